//! Snapshots of an engine in use, and records that come with their vectors.

#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use diptych_core::{
    Attributes, CollectionName, Digest, Encode, HashEncoder, ImagePart, Key, Modality, Part, PartRef, Query,
    QuerySource, Record, TextPart,
};
use diptych_engine::{
    Engine, EngineError, EngineOptions, NewRecord, Outcome, PutMode, VectorRecord, Written, verify,
};
use diptych_store::{Store, StoreOptions};

const DIM: usize = 64;

fn engine(dir: &Path) -> Engine {
    let store = Store::open(dir, &StoreOptions::default()).unwrap();
    Engine::open(store, Arc::new(HashEncoder::new(DIM)), EngineOptions::default()).unwrap()
}

fn new(key: String, text: String) -> NewRecord {
    NewRecord {
        key: Key::new(key).unwrap(),
        images: Vec::new(),
        texts: vec![text],
        attributes: Attributes::new(),
        chunking: diptych_core::Chunking::default(),
    }
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn find(engine: &Engine, collection: &CollectionName, text: &str) -> Vec<String> {
    let query = Query::new(QuerySource::Text(text.to_owned()), Modality::Text, 3, None).unwrap();
    engine.search(collection, &query).unwrap().hits.iter().map(|found| found.hit.key.to_string()).collect()
}

#[test]
fn a_snapshot_of_an_engine_in_use_is_a_whole_data_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (data, restored) = (dir.path().join("data"), dir.path().join("restored"));
    let collection = CollectionName::default();
    let engine = engine(&data);
    let batch = |from: usize, n: usize| {
        (from..from + n).map(|i| new(format!("r{i}"), format!("word{i} of {i}"))).collect()
    };
    engine.warm().unwrap();
    engine.ingest(&collection, batch(0, 3000), PutMode::Upsert).unwrap();
    engine.warm().unwrap();
    engine.close().unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                // New ones, and ones that take the place of others.
                engine.ingest(&collection, batch(3000 + 50 * n, 50), PutMode::Upsert).unwrap();
                let again =
                    (0..20).map(|i| new(format!("r{}", 2900 + i), format!("word{} again {n}", 2900 + i)));
                engine.ingest(&collection, again.collect(), PutMode::Upsert).unwrap();
            }
        });
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(find(&engine, &collection, "word7 of 7")[0], "r7");
            }
        });
        for round in 0..3 {
            let snapshot = engine.backup().unwrap();
            assert!(snapshot.records() >= 3000);
            assert_eq!(snapshot.bytes(), snapshot.files().iter().map(|(_, bytes)| bytes).sum::<u64>());
            assert!(matches!(engine.backup(), Err(EngineError::BackupRunning)), "one at a time");
            let (left, index) = (snapshot.dir().to_owned(), "index/1-text/manifest");
            assert!(snapshot.files().iter().any(|(path, _)| path == index), "{:?}", snapshot.files());
            let to = restored.join(round.to_string());
            for (path, _) in snapshot.files() {
                let target = to.join(path);
                std::fs::create_dir_all(target.parent().unwrap()).unwrap();
                std::fs::copy(snapshot.dir().join(path), target).unwrap();
            }
            drop(snapshot);
            assert!(!left.exists(), "a snapshot is removed");
        }
        stop.store(true, Ordering::Relaxed);
    });
    for round in 0..3 {
        let to = restored.join(round.to_string());
        {
            let store = Store::open(&to, &StoreOptions { create: false, ..StoreOptions::default() }).unwrap();
            let report = verify(&store).unwrap();
            assert!(report.problems.is_empty() && report.records >= 3000, "{report:?}");
        }
        let restored = self::engine(&to);
        for n in [0, 7, 1500, 2999] {
            assert_eq!(find(&restored, &collection, &format!("word{n} of {n}"))[0], format!("r{n}"));
        }
    }
}

#[test]
fn what_a_crash_leaves_of_a_snapshot_is_removed_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let (data, crashed) = (dir.path().join("data"), dir.path().join("crashed"));
    let engine = engine(&data);
    let collection = CollectionName::default();
    engine.ingest(&collection, vec![new("a".into(), "one".into())], PutMode::Upsert).unwrap();
    let snapshot = engine.backup().unwrap();
    copy_dir(&data, &crashed);
    let name = snapshot.dir().file_name().unwrap().to_owned();
    assert!(crashed.join(&name).join("FORMAT").exists());
    let recovered = self::engine(&crashed);
    assert!(!crashed.join(&name).exists());
    assert_eq!(find(&recovered, &collection, "one"), ["a"]);
    assert!(recovered.backup().is_ok());
}

fn part(name: &str) -> PartRef {
    name.parse().unwrap()
}

fn axis(n: usize) -> Vec<f32> {
    (0..DIM).map(|i| if i == n { 2.0 } else { 0.0 }).collect()
}

fn given(key: &str, digest: u8, vectors: Vec<(PartRef, Vec<f32>)>) -> VectorRecord {
    let image = ImagePart { source: "a.png".into(), digest: Digest([digest; 32]), width: 1, height: 1 };
    let parts = vec![Part::Image(image), Part::Text(TextPart::whole("a text", 0))];
    let record = Record::new(Key::new(key).unwrap(), parts, Attributes::new()).unwrap();
    VectorRecord { record, vectors, model_id: HashEncoder::new(DIM).model_id().to_string() }
}

fn import(engine: &Engine, records: Vec<VectorRecord>) -> Vec<Result<Written, EngineError>> {
    engine.import(&CollectionName::default(), records, PutMode::Upsert).unwrap()
}

fn outcome(engine: &Engine, record: VectorRecord) -> Outcome {
    import(engine, vec![record]).remove(0).unwrap().outcome
}

#[test]
fn vectors_are_stored_as_they_come_and_found() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let both = |n: usize| vec![(part("text:0"), axis(n)), (part("image:0"), axis(n + 1))];
    assert_eq!(outcome(&engine, given("a", 9, both(0))), Outcome::Created);
    let query = Query::new(QuerySource::Vector(axis(1)), Modality::Image, 1, None).unwrap();
    let found = engine.search(&CollectionName::default(), &query).unwrap().hits;
    assert_eq!((found[0].hit.key.as_str(), found[0].hit.part), ("a", part("image:0")));
    assert!(found[0].hit.score > 0.9999, "scaled to unit norm");

    // The file of the image decides its vector; where it is not known, the vector counts itself.
    assert_eq!(outcome(&engine, given("a", 9, both(5))), Outcome::Unchanged);
    assert_eq!(outcome(&engine, given("b", 0, both(0))), Outcome::Created);
    assert_eq!(outcome(&engine, given("b", 0, both(0))), Outcome::Unchanged);
    assert_eq!(outcome(&engine, given("b", 0, both(5))), Outcome::Updated);

    let page = engine.export_page(&CollectionName::default(), None, 10, None).unwrap();
    let keys: Vec<&str> = page.records.iter().map(|exported| exported.stored.record.key().as_str()).collect();
    assert_eq!((keys, page.next), (vec!["a", "b"], None));
    let exported: Vec<PartRef> = page.records[0].vectors.iter().map(|vector| vector.part).collect();
    assert_eq!(exported, [part("image:0"), part("text:0")]);
    assert_eq!(page.records[0].vectors[0].embedding.as_slice()[1], 1.0);
}

#[test]
fn a_record_with_unfit_vectors_is_refused_alone_and_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let (image, text) = (part("image:0"), part("text:0"));
    let with = |values: Vec<f32>| given("bad", 1, vec![(image, values), (text, axis(0))]);
    let one = |n: usize, value: f32| {
        let mut values = axis(0);
        values[n] = value;
        values
    };
    let mut foreign = given("bad", 1, vec![(image, axis(0)), (text, axis(1))]);
    foreign.model_id = "another".into();
    let mut unnamed = foreign.clone();
    unnamed.model_id = String::new();
    assert!(import(&engine, vec![foreign.clone(), unnamed.clone()]).iter().all(Result::is_err));
    let created = engine.list_collections(None, 10).unwrap();
    assert!(created.is_empty(), "no collection is created for vectors that do not get into it: {created:?}");
    for (bad, says) in [
        (with(one(3, f32::NAN)), "image:0: component 3 of the vector is not finite"),
        (with(one(4, f32::INFINITY)), "image:0: component 4"),
        (with(vec![0.0; DIM]), "image:0: the vector is zero"),
        (with(vec![1.0; 3]), "3 dimensions, the collection's model has 64"),
        (given("bad", 1, vec![(text, axis(0))]), "none for image:0"),
        (given("bad", 1, vec![(image, axis(0)), (image, axis(0)), (text, axis(0))]), "two for image:0"),
        (
            given("bad", 1, vec![(image, axis(0)), (text, axis(0)), (part("text:1"), axis(0))]),
            "one for text:1",
        ),
        (foreign, "of model another"),
        (unnamed, "that is not named"),
    ] {
        let good = given("good", 2, vec![(image, axis(2)), (text, axis(3))]);
        let mut answers = import(&engine, vec![bad, good]);
        assert!(answers.pop().unwrap().is_ok());
        let error = answers.pop().unwrap().unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    assert_eq!(engine.count(&CollectionName::default(), None).unwrap().records, 1);
}
