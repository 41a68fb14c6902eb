//! The recall meter and the candidate list it chooses, on searches of a real engine.

#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;

use diptych_core::{
    AttributeValue, Attributes, CollectionName, Embedding, HashEncoder, Key, Modality, Query, QuerySource,
};
use diptych_engine::{
    Direction, Engine, EngineOptions, NewImage, NewRecord, Plan, PutMode, QueryKind, RecallOptions,
    RecallReport,
};
use diptych_store::{Store, StoreOptions};
use tempfile::TempDir;

const DIM: usize = 24;
const TEXT_TO_IMAGE: Direction = Direction { from: QueryKind::Text, to: Modality::Image, filtered: false };

/// An engine that measures a share of the searches and rests never.
fn engine(dir: &TempDir, sample: f64) -> Engine {
    let store = Store::open(dir.path(), &StoreOptions::default()).unwrap();
    let recall = RecallOptions { sample, busy_max: 1.0, waiting_max: 4096, window: 50 };
    let options = EngineOptions { recall, ..EngineOptions::default() };
    Engine::open(store, Arc::new(HashEncoder::new(DIM)), options).unwrap()
}

fn fill(engine: &Engine, records: std::ops::Range<usize>) {
    let new: Vec<NewRecord> = records
        .map(|n| NewRecord {
            key: Key::new(format!("r{n}")).unwrap(),
            images: vec![NewImage {
                bytes: format!("picture {n} {}", n % 97).into_bytes(),
                source: String::new(),
            }],
            texts: vec![format!("report {n} {}", n % 89)],
            attributes: Attributes::new(),
            chunking: diptych_core::Chunking::default(),
        })
        .collect();
    for answer in engine.ingest(&CollectionName::default(), new, PutMode::Upsert).unwrap() {
        answer.unwrap();
    }
}

fn ask(engine: &Engine, source: QuerySource, target: Modality, ef: Option<u64>) {
    let query = Query::new(source, target, 10, ef).unwrap();
    assert_eq!(engine.search(&CollectionName::default(), &query).unwrap().hits.len(), 10);
}

fn words(n: usize) -> QuerySource {
    QuerySource::Text(format!("what about {n}"))
}

fn report(engine: &Engine, direction: Direction) -> RecallReport {
    engine.drain_recall();
    engine.overview().unwrap().recall.into_iter().find(|r| r.direction == direction).unwrap()
}

/// The `k` best cosines, without any index.
fn exact(engine: &Engine, query: &Embedding, k: usize) -> Vec<f32> {
    let mut scores = Vec::new();
    let mut after = None;
    loop {
        let page = engine.list(&CollectionName::default(), after.as_ref(), 1000).unwrap();
        for stored in &page {
            let bytes = format!("picture {}", &stored.record.key().as_str()[1..]);
            let n: usize = bytes["picture ".len()..].parse().unwrap();
            let image = engine.encoder().prepare_image(format!("{bytes} {}", n % 97).as_bytes()).unwrap();
            scores.push(engine.encoder().encode_images(&[image]).unwrap()[0].cosine(query));
        }
        match page.last() {
            Some(last) => after = Some(last.record.key().clone()),
            None => break,
        }
    }
    scores.sort_by(|a, b| b.total_cmp(a));
    scores.truncate(k);
    scores
}

#[test]
fn every_direction_is_measured_for_itself() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(&dir, 1.0);
    fill(&engine, 0..60);
    for n in 0..30 {
        ask(&engine, words(n), Modality::Image, None);
        if n < 20 {
            ask(&engine, QuerySource::Image(format!("picture {n}").into_bytes()), Modality::Text, None);
        }
        if n < 10 {
            let key = QuerySource::Key { key: Key::new(format!("r{n}")).unwrap(), part: None };
            ask(&engine, key, Modality::Image, None);
            let part = Some("text:0".parse().unwrap());
            let key = QuerySource::Key { key: Key::new(format!("r{n}")).unwrap(), part };
            ask(&engine, key, Modality::Text, None);
            let mut vector = vec![0.1; DIM];
            vector[n] = 1.0;
            ask(&engine, QuerySource::Vector(vector), Modality::Image, None);
        }
    }
    engine.drain_recall();
    let overview = engine.overview().unwrap();
    let counted: Vec<(String, u64, u64, Option<f64>)> =
        overview.recall.iter().map(|r| (r.direction.to_string(), r.searches, r.measured, r.mean)).collect();
    let all = |direction: &str, n: u64| (direction.to_owned(), n, n, Some(1.0));
    // Sixty points are scanned, and a scan misses nothing.
    let expected = [
        all("image to image", 10),
        all("image to text", 20),
        all("text to image", 30),
        all("text to text", 10),
        all("vector to image", 10),
    ];
    assert_eq!(counted, expected);
    assert_eq!(overview.recall_sample, 1.0);
    assert!(overview.recall.iter().all(|r| r.dropped == 0 && r.ladder.is_empty()), "{:?}", overview.recall);
}

#[test]
fn the_share_that_is_asked_for_is_measured() {
    let dir = tempfile::tempdir().unwrap();
    for (sample, least, most) in [(0.0, 0, 0), (0.1, 20, 60), (1.0, 400, 400)] {
        let engine = engine(&dir, sample);
        fill(&engine, 0..20);
        for n in 0..400 {
            ask(&engine, words(n), Modality::Image, None);
        }
        let report = report(&engine, TEXT_TO_IMAGE);
        assert_eq!(report.searches, 400);
        assert!((least..=most).contains(&report.measured), "{sample}: {report:?}");
        assert_eq!(report.latest.map_or(0, |latest| latest.queries as u64), report.measured.min(50));
    }
}

#[test]
fn measured_recall_is_what_a_brute_force_says() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(&dir, 1.0);
    fill(&engine, 0..3000);
    let mut sum = 0.0;
    for n in 0..40 {
        let query = Query::new(words(n), Modality::Image, 10, Some(10)).unwrap();
        let outcome = engine.search(&CollectionName::default(), &query).unwrap();
        assert_eq!(outcome.ef, (outcome.plan == Plan::Walk).then_some(10));
        let embedding = engine.embed_query(&format!("what about {n}")).unwrap().embedding;
        let last = *exact(&engine, &embedding, 10).last().unwrap();
        let near = outcome.hits.iter().filter(|found| found.hit.score >= last - 1e-6).count();
        sum += near as f64 / 10.0;
    }
    let report = report(&engine, TEXT_TO_IMAGE);
    let mean = report.mean.unwrap();
    // Two points whose scores differ by rounding only may be told apart here and not there.
    assert!((mean - sum / 40.0).abs() < 0.01, "measured {mean}, in truth {}", sum / 40.0);
    let latest = report.latest.unwrap();
    assert!(latest.low < latest.mean && latest.mean <= latest.high, "{latest:?}");
}

#[test]
fn a_target_recall_scans_until_it_is_measured_and_then_follows_the_ladder() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(&dir, 0.0);
    fill(&engine, 0..4000);
    let ask = |n: usize, recall: f64, k: u64| {
        let query = Query::new(words(n), Modality::Image, k, None).unwrap();
        let outcome =
            engine.search(&CollectionName::default(), &query.with_target_recall(recall).unwrap()).unwrap();
        let scores: Vec<f32> = outcome.hits.iter().map(|found| found.hit.score).collect();
        (outcome.plan, outcome.ef, scores)
    };
    let (plan, ef, _) = ask(0, 0.9, 10);
    assert_eq!((plan, ef), (Plan::Scan, None), "nothing is measured yet");
    let ladder = report(&engine, TEXT_TO_IMAGE).ladder;
    assert_eq!(ladder.first().map(|rung| rung.0), Some(16));
    assert!(ladder.iter().all(|(_, found)| found.queries >= 64), "{ladder:?}");
    let means: Vec<f64> = ladder.iter().map(|(_, found)| found.mean).collect();
    assert!(means.windows(2).all(|pair| pair[0] <= pair[1] + 0.02), "longer lists find more: {means:?}");

    // The smallest list whose lower bound reaches the target, which a higher target does not shorten.
    let smallest = |target: f64| ladder.iter().find(|(_, found)| found.low >= target).map(|rung| rung.0);
    let mut before = 0;
    for target in [0.3, 0.6, 0.9, 0.98] {
        let (plan, ef, _) = ask(2, target, 10);
        let expected = smallest(target).filter(|_| plan != Plan::Scan);
        assert_eq!(ef, expected, "for {target}: {ladder:?}");
        assert!(ef.is_none_or(|ef| ef >= before));
        before = ef.unwrap_or(before);
    }
    let (_, ten, _) = ask(3, 0.3, 10);
    let (plan, forty, _) = ask(3, 0.3, 40);
    assert!(plan == Plan::Scan || forty == ten.map(|ef| 4 * ef), "{ten:?} and {forty:?}");

    // More certainty than 64 queries can give is a matter for a scan.
    let (plan, ef, scores) = ask(4, 0.99999, 10);
    assert_eq!((plan, ef), (Plan::Scan, None));
    let embedding = engine.embed_query("what about 4").unwrap().embedding;
    for (found, truth) in scores.iter().zip(exact(&engine, &embedding, 10)) {
        assert!((found - truth).abs() < 1e-5);
    }
}

#[test]
fn a_ladder_is_begun_anew_when_the_collection_has_grown() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(&dir, 1.0);
    fill(&engine, 0..100);
    let ask = |n: usize| {
        let query = Query::new(words(n), Modality::Image, 10, None).unwrap().with_target_recall(0.9).unwrap();
        engine.search(&CollectionName::default(), &query).unwrap();
        report(&engine, TEXT_TO_IMAGE).ladder.iter().map(|(_, found)| found.queries).max().unwrap()
    };
    // 64 to calibrate with, and every search that is sampled.
    let counts: Vec<usize> = (0..30).map(ask).collect();
    assert_eq!(counts, (65..95).collect::<Vec<_>>());
    fill(&engine, 100..200);
    assert_eq!(ask(30), 65, "what was measured on half as many points is forgotten");
    assert_eq!(ask(31), 66);
}

#[test]
fn without_texts_to_calibrate_with_the_queries_themselves_fill_the_ladder() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(&dir, 0.0);
    let images = (0..2000).map(|n| NewRecord {
        key: Key::new(format!("r{n}")).unwrap(),
        images: vec![NewImage { bytes: format!("picture {n}").into_bytes(), source: String::new() }],
        texts: vec![],
        attributes: Attributes::new(),
        chunking: diptych_core::Chunking::default(),
    });
    engine.ingest(&CollectionName::default(), images.collect(), PutMode::Upsert).unwrap();
    let ask = |n: usize| {
        let query = Query::new(words(n), Modality::Image, 10, None).unwrap().with_target_recall(0.5).unwrap();
        engine.search(&CollectionName::default(), &query).unwrap()
    };
    ask(0);
    assert_eq!(report(&engine, TEXT_TO_IMAGE).ladder[0].1.queries, 1);
    for n in 1..40 {
        ask(n);
    }
    let ladder = report(&engine, TEXT_TO_IMAGE).ladder;
    assert_eq!(ladder[0].1.queries, 40);
    let known = ladder.iter().find(|(_, found)| found.low >= 0.5).map(|rung| rung.0);
    let outcome = ask(40);
    assert!(outcome.plan == Plan::Scan || outcome.ef == known, "{ladder:?}, used {:?}", outcome.ef);
}

#[test]
fn what_the_queue_cannot_hold_is_dropped_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), &StoreOptions::default()).unwrap();
    let recall = RecallOptions { sample: 1.0, busy_max: 0.01, waiting_max: 1, ..RecallOptions::default() };
    let options = EngineOptions { recall, ..EngineOptions::default() };
    let engine = Engine::open(store, Arc::new(HashEncoder::new(DIM)), options).unwrap();
    fill(&engine, 0..500);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let engine = &engine;
            scope.spawn(move || {
                (0..100).for_each(|n| ask(engine, words(100 * thread + n), Modality::Image, None))
            });
        }
    });
    let counted = report(&engine, TEXT_TO_IMAGE);
    assert_eq!((counted.searches, counted.measured + counted.dropped), (400, 400));
    assert!(counted.measured > 0 && counted.mean == Some(1.0), "{counted:?}");
}

#[test]
fn filtered_searches_are_measured_apart_and_among_what_matches() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(&dir, 1.0);
    let records = (0..3000i64).map(|n| NewRecord {
        key: Key::new(format!("r{n}")).unwrap(),
        images: vec![NewImage { bytes: format!("picture {n}").into_bytes(), source: String::new() }],
        texts: vec![],
        attributes: Attributes::from([("n".to_owned(), AttributeValue::Integer(n))]),
        chunking: diptych_core::Chunking::default(),
    });
    engine.ingest(&CollectionName::default(), records.collect(), PutMode::Upsert).unwrap();
    let filtered = Direction { filtered: true, ..TEXT_TO_IMAGE };
    let mut asked = 0;
    let mut scanned = true;
    for filter in ["n < 1500", "n < 300", "n < 30", "n < 3", "n < 0"] {
        for n in 0..10 {
            let query = Query::new(words(n), Modality::Image, 10, None).unwrap();
            let query = query.with_filter(filter.parse().unwrap());
            let outcome = engine.search(&CollectionName::default(), &query).unwrap();
            scanned &= outcome.plan == Plan::Scan;
            asked += 1;
        }
    }
    let counted = report(&engine, filtered);
    // Of nothing, nothing can be missed: such searches are counted, not measured.
    assert_eq!((counted.searches, counted.measured, counted.dropped), (asked, asked - 10, 0));
    let mean = counted.mean.unwrap();
    assert!(if scanned { mean == 1.0 } else { mean > 0.9 }, "{counted:?}");
    assert!(engine.overview().unwrap().recall.iter().all(|r| r.direction == filtered));
}
