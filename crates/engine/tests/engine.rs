//! The engine over a real store, with the hash encoder: equal words meet, across modalities.

#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;

use diptych_core::{
    AttributeValue, Attributes, CollectionName, Encode, EncodeError, HashEncoder, Key, Modality, Part,
    PartRef, Query, QuerySource, RecordError,
};
use diptych_engine::{
    BulkItem, BulkOptions, Engine, EngineError, EngineOptions, Failure, IndexKind, NewImage, NewRecord,
    Outcome, PutMode, verify,
};
use diptych_store::{Store, StoreError, StoreOptions};
use tempfile::TempDir;

fn engine(dir: &TempDir, index: IndexKind) -> Engine {
    engine_with(dir, index, HashEncoder::new(64))
}

fn engine_with(dir: &TempDir, index: IndexKind, encoder: HashEncoder) -> Engine {
    let store = Store::open(dir.path(), &StoreOptions::default()).unwrap();
    let options = EngineOptions { index, ..EngineOptions::default() };
    Engine::open(store, Arc::new(encoder), options).unwrap()
}

fn record(key: &str, images: &[&str], texts: &[&str]) -> NewRecord {
    NewRecord {
        key: Key::new(key).unwrap(),
        images: images
            .iter()
            .map(|words| NewImage { bytes: words.as_bytes().to_vec(), source: format!("{key}.words") })
            .collect(),
        texts: texts.iter().map(|&t| t.to_owned()).collect(),
        attributes: Attributes::new(),
        chunking: diptych_core::Chunking::default(),
    }
}

fn put(engine: &Engine, records: Vec<NewRecord>) -> Vec<Outcome> {
    let results = engine.ingest(&CollectionName::default(), records, PutMode::Upsert).unwrap();
    results.into_iter().map(|r| r.unwrap().outcome).collect()
}

fn find(engine: &Engine, source: QuerySource, target: Modality, k: u64) -> Vec<(String, String)> {
    let query = Query::new(source, target, k, None).unwrap();
    let outcome = engine.search(&CollectionName::default(), &query).unwrap();
    outcome.hits.iter().map(|f| (f.hit.key.to_string(), f.hit.part.to_string())).collect()
}

fn words(text: &str) -> QuerySource {
    QuerySource::Text(text.to_owned())
}

#[test]
fn hits_are_records_with_their_best_part() {
    for index in [IndexKind::Graph, IndexKind::Exact] {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(&dir, index);
        let many: Vec<&str> = vec!["red bird"; 30];
        let records = vec![
            record("birds", &many, &["birds of many kinds", "red bird"]),
            record("car", &["blue car"], &["a blue car"]),
            record("words", &[], &["only words"]),
        ];
        assert_eq!(put(&engine, records), [Outcome::Created; 3]);
        // Thirty equal parts of one record do not crowd out the next record.
        let found = find(&engine, words("red bird"), Modality::Image, 2);
        assert_eq!(found[0], ("birds".to_owned(), "image:0".to_owned()));
        assert_eq!(found[1], ("car".to_owned(), "image:0".to_owned()));
        let found = find(&engine, words("red bird"), Modality::Text, 10);
        assert_eq!(found[0], ("birds".to_owned(), "text:1".to_owned()));
        assert_eq!(found.len(), 3);
        let image = QuerySource::Image(b"blue car".to_vec());
        assert_eq!(find(&engine, image, Modality::Image, 1)[0].0, "car");
        let key = |part| QuerySource::Key { key: Key::new("birds").unwrap(), part };
        assert_eq!(find(&engine, key(None), Modality::Image, 1)[0].0, "birds");
        let absent = PartRef::whole(Modality::Text, 7);
        let query = Query::new(key(Some(absent)), Modality::Image, 1, None).unwrap();
        let error = engine.search(&CollectionName::default(), &query).unwrap_err();
        assert!(matches!(error, EngineError::PartNotFound { .. }), "{error}");
    }
}

#[test]
fn updates_and_deletes_show_at_once_and_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    {
        let engine = engine(&dir, IndexKind::Graph);
        put(&engine, (0..20).map(|n| record(&format!("r{n}"), &[], &[&format!("number {n}")])).collect());
        // The index is loaded by this search; what follows must reach it.
        assert_eq!(find(&engine, words("number 3"), Modality::Text, 1)[0].0, "r3");
        assert_eq!(put(&engine, vec![record("r3", &[], &["quite different"])]), [Outcome::Updated]);
        assert_eq!(put(&engine, vec![record("r3", &[], &["quite different"])]), [Outcome::Unchanged]);
        engine.delete(&CollectionName::default(), &Key::new("r4").unwrap()).unwrap();
        let again = engine.delete(&CollectionName::default(), &Key::new("r4").unwrap());
        assert!(matches!(again, Err(EngineError::RecordNotFound { .. })));
        assert_eq!(find(&engine, words("quite different"), Modality::Text, 1)[0].0, "r3");
        assert!(find(&engine, words("number 4"), Modality::Text, 100).iter().all(|h| h.0 != "r4"));
    }
    let engine = engine(&dir, IndexKind::Graph);
    let found = find(&engine, words("number 4"), Modality::Text, 100);
    assert_eq!(found.len(), 19);
    assert!(found.iter().all(|h| h.0 != "r4"));
    assert_eq!(find(&engine, words("quite different"), Modality::Text, 1)[0].0, "r3");
    drop(engine);
    let store = Store::open(dir.path(), &StoreOptions::default()).unwrap();
    let report = verify(&store).unwrap();
    assert_eq!((report.records, report.problems), (19, vec![]));
}

#[test]
fn a_bad_record_does_not_affect_its_neighbours() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(&dir, IndexKind::Graph);
    let mut not_finite = record("nan", &[], &["text"]);
    not_finite.attributes.insert("age".to_owned(), AttributeValue::Float(f64::NAN));
    let records = vec![
        record("a", &[], &["fine"]),
        record("b", &["\u{0}"], &["   "]),
        record("c", &[], &[]),
        not_finite,
        record("d", &[], &["fine too"]),
    ];
    let results = engine.ingest(&CollectionName::default(), records, PutMode::Upsert).unwrap();
    let ok: Vec<bool> = results.iter().map(Result::is_ok).collect();
    assert_eq!(ok, [true, false, false, false, true]);
    assert!(matches!(results[1], Err(EngineError::Encode(EncodeError::EmptyText))));
    assert!(matches!(results[2], Err(EngineError::Record(_))));
    assert_eq!(find(&engine, words("fine"), Modality::Text, 10).len(), 2);
}

#[test]
fn insert_refuses_other_content_under_a_taken_key() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(&dir, IndexKind::Graph);
    let name = CollectionName::default();
    put(&engine, vec![record("a", &[], &["one"])]);
    let insert = |text: &str| {
        engine.ingest(&name, vec![record("a", &[], &[text])], PutMode::InsertOnly).unwrap().remove(0)
    };
    assert_eq!(insert("one").unwrap().outcome, Outcome::Unchanged);
    assert!(matches!(insert("two"), Err(EngineError::AlreadyExists { .. })));
    assert_eq!(find(&engine, words("one"), Modality::Text, 10).len(), 1);
}

#[test]
fn another_model_is_refused_before_anything_is_read() {
    let dir = tempfile::tempdir().unwrap();
    put(&engine(&dir, IndexKind::Graph), vec![record("a", &[], &["one"])]);
    let store = Store::open(dir.path(), &StoreOptions::default()).unwrap();
    let other: Arc<dyn Encode> = Arc::new(HashEncoder::new(32));
    let Err(error) = Engine::open(store, other, EngineOptions::default()) else {
        panic!("vectors of two models would have met");
    };
    assert!(matches!(error, EngineError::Store(StoreError::ModelMismatch { .. })), "{error}");
}

#[test]
fn bulk_ingestion_reports_bad_items_and_recognises_known_ones() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(&dir, IndexKind::Exact);
    let run = |bad_every: usize| {
        let items = (0..1000usize).map(move |n| BulkItem {
            origin: format!("item {n}"),
            load: Box::new(move || {
                if n % bad_every == 0 {
                    return Err(format!("item {n} is bad; mend it"));
                }
                Ok(record(&format!("r{n}"), &[&format!("picture {n}")], &[&format!("words {n}")]))
            }),
        });
        let mut failures: Vec<Failure> = Vec::new();
        let mut seen = 0;
        let counts = engine
            .ingest_all(
                &CollectionName::default(),
                items,
                &BulkOptions::default(),
                |failure| failures.push(failure),
                |counts| {
                    assert!(counts.items() >= seen);
                    seen = counts.items();
                },
            )
            .unwrap();
        assert_eq!(seen, 1000);
        (counts, failures)
    };
    let (counts, failures) = run(100);
    assert_eq!((counts.created, counts.failed, counts.images, counts.texts), (990, 10, 990, 990));
    assert_eq!(failures[1], Failure { origin: "item 100".into(), reason: "item 100 is bad; mend it".into() });
    let (counts, _) = run(1000);
    assert_eq!((counts.created, counts.unchanged, counts.failed), (9, 990, 1));
    assert_eq!(find(&engine, words("picture 777"), Modality::Image, 1)[0].0, "r777");
}

#[test]
fn many_writers_and_searchers_end_in_agreement() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(&dir, IndexKind::Graph);
    engine.warm().unwrap();
    put(&engine, vec![record("seed", &[], &["seed"])]);
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let engine = &engine;
            scope.spawn(move || {
                for n in 0..50 {
                    let key = format!("k{}", (n * 7 + writer) % 60);
                    put(engine, vec![record(&key, &[], &[&format!("text {writer} {n}")])]);
                    if n % 9 == 0 {
                        // Another writer may have been first.
                        let _ = engine.delete(&CollectionName::default(), &Key::new(&key).unwrap());
                    }
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                for n in 0..100 {
                    assert!(!find(&engine, words(&format!("text 1 {n}")), Modality::Text, 5).is_empty());
                }
            });
        }
    });
    let listed = engine.list(&CollectionName::default(), None, 1000).unwrap();
    let found = find(&engine, words("text"), Modality::Text, 1000);
    assert_eq!(found.len(), listed.len());
    for stored in &listed {
        let source = QuerySource::Key { key: stored.record.key().clone(), part: None };
        assert!(find(&engine, source, Modality::Text, 3).iter().any(|h| h.0 == stored.record.key().as_str()));
    }
}

/// A report of sixty sentences, five words each; the last is about a nodule.
fn report() -> String {
    let mut sentences: Vec<String> = (0..59).map(|n| format!("Sentence {n} says nothing new{n}.")).collect();
    sentences.push("Tiny nodule behind the heart.".to_owned());
    sentences.join(" ")
}

#[test]
fn a_long_text_is_found_by_its_last_sentence_and_returned_whole() {
    for index in [IndexKind::Graph, IndexKind::Exact] {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine_with(&dir, index, HashEncoder::with_context(64, 12));
        let name = CollectionName::default();
        let long = record("long", &["heart"], &["a caption", &report(), "the end"]);
        let other = record("other", &[], &["Tiny nodule in the lung."]);
        let written = engine.ingest(&name, vec![long.clone(), other], PutMode::Upsert).unwrap();
        let counts = written[0].as_ref().unwrap().texts;
        assert_eq!((counts.split, counts.chunks, counts.truncated), (1, 30, 0));

        let query = words("Tiny nodule behind the heart.");
        let query = Query::new(query, Modality::Text, 10, None).unwrap();
        let outcome = engine.search(&name, &query).unwrap();
        let keys: Vec<&str> = outcome.hits.iter().map(|f| f.hit.key.as_str()).collect();
        assert_eq!(keys, ["long", "other"], "thirty chunks are one record");
        let best = &outcome.hits[0];
        assert_eq!(best.hit.part.to_string(), "text:1#29");
        let Some(Part::Text(part)) = best.record.part(best.hit.part) else { panic!("{best:?}") };
        let chunk = &part.text[part.chunk(29).unwrap()];
        assert!(chunk.ends_with("Tiny nodule behind the heart.") && part.text == report(), "{chunk}");

        // Short neighbours keep their names, and a chunk can be searched from.
        assert_eq!(find(&engine, words("the end"), Modality::Text, 1)[0].1, "text:2");
        for (part, expected) in [("text:1#29", "text:1#29"), ("text:1", "text:1#0")] {
            let source = QuerySource::Key { key: long.key.clone(), part: Some(part.parse().unwrap()) };
            assert_eq!(find(&engine, source, Modality::Text, 1)[0].1, expected);
        }
        let source = QuerySource::Key { key: long.key.clone(), part: Some(PartRef::chunk(1, 30)) };
        let query = Query::new(source, Modality::Text, 1, None).unwrap();
        let error = engine.search(&name, &query).unwrap_err();
        assert!(error.to_string().contains("text:1#30"), "{error}");

        // The same content again costs nothing; other content replaces every chunk.
        assert_eq!(put(&engine, vec![long]), [Outcome::Unchanged]);
        assert_eq!(engine.overview().unwrap().collections[0].1.text_points, 33);
        assert_eq!(put(&engine, vec![record("long", &[], &["now short"])]), [Outcome::Updated]);
        assert_eq!(engine.overview().unwrap().collections[0].1.text_points, 2);
        drop(engine);
        let store = Store::open(dir.path(), &StoreOptions::default()).unwrap();
        assert_eq!(verify(&store).unwrap().problems, [""; 0]);
    }
}

#[test]
fn the_totals_say_what_was_split_truncated_and_answered_from_the_cache() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine_with(&dir, IndexKind::Graph, HashEncoder::with_context(64, 12));
    let items = (0..3).map(|n| BulkItem {
        origin: format!("item {n}"),
        load: Box::new(move || Ok(record(&format!("r{n}"), &[], &[&report(), "short"]))),
    });
    let name = CollectionName::default();
    let counts = engine.ingest_all(&name, items, &BulkOptions::default(), |_| {}, |_| {}).unwrap();
    assert_eq!((counts.texts, counts.long_texts.split, counts.long_texts.chunks), (6, 3, 90));
    let texts = engine.overview().unwrap().texts;
    assert_eq!((texts.ingested, texts.truncated_queries), (counts.long_texts, 0));

    let ask = |text: &str| {
        let query = Query::new(words(text), Modality::Text, 1, None).unwrap();
        engine.search(&name, &query).unwrap()
    };
    let first = ask("Tiny nodule");
    for text in ["Tiny nodule", " tiny  NODULE "] {
        let again = ask(text);
        assert_eq!((again.hits, again.truncated_tokens), (first.hits.clone(), 0));
    }
    for _ in 0..2 {
        assert_eq!(ask(&report()).truncated_tokens, 300 - 12);
    }
    let overview = engine.overview().unwrap();
    let cache = overview.query_cache;
    assert_eq!((cache.hits, cache.misses, cache.entries), (3, 2, 2));
    assert_eq!(overview.texts.truncated_queries, 2, "a repeat is cut just as the first was");
}

#[test]
fn a_text_of_too_many_chunks_is_refused_and_its_neighbours_are_stored() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine_with(&dir, IndexKind::Graph, HashEncoder::with_context(64, 2));
    let endless = "word ".repeat(4000);
    let records = vec![record("a", &[], &["one"]), record("b", &[], &[&endless]), record("c", &[], &["two"])];
    let results = engine.ingest(&CollectionName::default(), records, PutMode::Upsert).unwrap();
    let error = results[1].as_ref().unwrap_err();
    assert!(matches!(error, EngineError::Record(RecordError::TooManyPoints { found: 2000 })), "{error}");
    assert!(results[0].is_ok() && results[2].is_ok());
}

#[test]
fn every_engine_answers_with_its_own_model() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let engines = [(&one, 16), (&two, 32)]
        .map(|(dir, dim)| (engine_with(dir, IndexKind::Exact, HashEncoder::new(dim)), dim));
    for _ in 0..2 {
        for (engine, dim) in &engines {
            assert_eq!(engine.embed_query("the same words").unwrap().embedding.dim(), *dim);
        }
    }
    let hits = engines.map(|(engine, _)| engine.overview().unwrap().query_cache.hits);
    assert_eq!(hits, [1, 1]);
}
