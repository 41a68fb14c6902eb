//! Looking after indexes: what is reported, what is taught, and what a single search does with the files.

#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;

use diptych_core::{
    Attributes, CollectionName, Embedding, Encode, HashEncoder, Key, Modality, Query, QuerySource,
};
use diptych_engine::{
    Care, Cared, Engine, EngineError, EngineOptions, IndexKind, NewImage, NewRecord, Opening, Plan, PutMode,
    care_for,
};
use diptych_store::{Store, StoreOptions};
use tempfile::TempDir;

fn store(dir: &TempDir) -> Store {
    Store::open(dir.path(), &StoreOptions::default()).unwrap()
}

fn engine(dir: &TempDir, index: IndexKind) -> Engine {
    let options = EngineOptions { index, ..EngineOptions::default() };
    Engine::open(store(dir), Arc::new(HashEncoder::new(64)), options).unwrap()
}

fn put(engine: &Engine, range: std::ops::Range<u32>) {
    let record = |n: u32| NewRecord {
        key: Key::new(format!("r{n:05}")).unwrap(),
        images: vec![NewImage { bytes: format!("w{n} of{}", n % 7).into_bytes(), source: String::new() }],
        texts: Vec::new(),
        attributes: Attributes::new(),
        chunking: diptych_core::Chunking::default(),
    };
    let records: Vec<NewRecord> = range.map(record).collect();
    for chunk in records.chunks(500) {
        let results = engine.ingest(&CollectionName::default(), chunk.to_vec(), PutMode::Upsert).unwrap();
        for result in results {
            result.unwrap();
        }
    }
}

/// The plan of a search with a list of one, and the key it finds first.
fn ask(engine: &Engine, words: &str) -> (Plan, String) {
    let query = Query::new(QuerySource::Text(words.to_owned()), Modality::Image, 1, Some(1)).unwrap();
    let outcome = engine.search(&CollectionName::default(), &query).unwrap();
    (outcome.plan, outcome.hits[0].hit.key.to_string())
}

fn cared(dir: &TempDir, care: &Care<'_>) -> Vec<Cared> {
    let mut all = Vec::new();
    care_for(&store(dir), None, care, |cared| all.push(cared)).unwrap();
    assert_eq!(all.iter().map(|c| c.index.modality).collect::<Vec<_>>(), Modality::ALL);
    all
}

#[test]
fn an_index_of_images_is_taught_about_queries_and_keeps_it() {
    let dir = tempfile::tempdir().unwrap();
    put(&engine(&dir, IndexKind::Graph), 0..2500);
    let built = cared(&dir, &Care::default());
    assert_eq!(built[0].opening, Opening::Built { because: None });
    assert_eq!((&built[0].index.stats.segments, built[0].index.stats.live), (&vec![2500], 0));

    let encoder = HashEncoder::new(64);
    let texts: Vec<_> = (0..300)
        .map(|n| encoder.prepare_text(&format!("of{} of{} x{n}", n % 7, (n + 3) % 7)).unwrap())
        .collect();
    let queries: Vec<Embedding> = encoder.encode_texts(&texts).unwrap();
    let taught = cared(&dir, &Care { queries: &queries, ..Care::default() });
    assert_eq!(taught[0].opening, Opening::Opened);
    let learnt = taught[0].taught.unwrap();
    let added = |cared: &[Cared]| cared[0].index.stats.added_links;
    assert_eq!((learnt.queries, learnt.links_added), (300, added(&taught) - added(&built)));
    assert!(learnt.links_added > 0 && taught[1].taught.is_none());

    let again = cared(&dir, &Care { check: true, ..Care::default() });
    assert_eq!((added(&again), &again[0].damage), (added(&taught), &None));
    let other: Vec<Embedding> = vec![Embedding::new([1.0, 0.0]).unwrap()];
    let error = care_for(&store(&dir), None, &Care { queries: &other, ..Care::default() }, drop).unwrap_err();
    assert!(matches!(error, EngineError::Dimension { expected: 64, found: 2 }), "{error}");
}

#[test]
fn an_overview_tells_what_the_open_indexes_are_made_of() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(&dir, IndexKind::Graph);
    put(&engine, 0..40);
    assert!(engine.overview().unwrap().indexes.is_empty(), "nothing has needed one yet");
    ask(&engine, "w3 of3");
    let mut care = Vec::new();
    engine.care_for(&CollectionName::default(), &Care::default(), |c| care.push(c.opening)).unwrap();
    assert_eq!(care, [Opening::Held, Opening::Built { because: None }]);
    put(&engine, 40..45);
    engine.delete(&CollectionName::default(), &Key::new("r00003").unwrap()).unwrap();
    let overview = engine.overview().unwrap();
    let images = &overview.indexes[0];
    assert_eq!((images.modality, &images.stats.segments, images.stats.live), (Modality::Image, &vec![39], 5));
    assert_eq!((images.tombstones, overview.indexes.len()), (1, 2));
    assert!(images.stats.links >= 39 && images.stats.hot_bytes > 0 && images.stats.vector_bytes > 0);
}

#[test]
fn a_single_search_catches_up_with_little_and_scans_rather_than_with_much() {
    let dir = tempfile::tempdir().unwrap();
    put(&engine(&dir, IndexKind::Graph), 0..1100);
    assert_eq!(ask(&engine(&dir, IndexKind::Ready), "w20 of6").0, Plan::Scan, "there are no files");
    cared(&dir, &Care::default());
    assert_eq!(ask(&engine(&dir, IndexKind::Ready), "w20 of6").0, Plan::Walk);

    put(&engine(&dir, IndexKind::Exact), 1100..1102);
    let (plan, key) = ask(&engine(&dir, IndexKind::Ready), "w1101 of2");
    assert_eq!((plan, key.as_str()), (Plan::Walk, "r01101"), "two are caught up with");
    put(&engine(&dir, IndexKind::Exact), 1102..1110);
    let (plan, key) = ask(&engine(&dir, IndexKind::Ready), "w1109 of3");
    assert_eq!((plan, key.as_str()), (Plan::Scan, "r01109"), "ten are too many");
    let caught_up = cared(&dir, &Care::default());
    assert_eq!(caught_up[0].opening, Opening::CaughtUp { changes: 10 }, "nothing was written down before");
    assert_eq!(ask(&engine(&dir, IndexKind::Ready), "w1109 of3").0, Plan::Walk);
}
