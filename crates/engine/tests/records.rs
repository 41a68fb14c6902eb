//! Collections and records of an engine: what a crash leaves of a deleted collection, changes of attributes
//! among other writers, deletions that are broken off.

#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use diptych_core::{
    AttributeSchema, AttributeType, AttributeValue, Attributes, CollectionName, Filter, HashEncoder, Key,
    Modality, Query, QuerySource, RequestId,
};
use diptych_engine::{
    AttributeChange, Engine, EngineError, EngineOptions, NewRecord, Outcome, PutMode, verify,
};
use diptych_store::{Store, StoreOptions};

fn engine(dir: &Path) -> Engine {
    let store = Store::open(dir, &StoreOptions::default()).unwrap();
    Engine::open(store, Arc::new(HashEncoder::new(32)), EngineOptions::default()).unwrap()
}

fn name(name: &str) -> CollectionName {
    CollectionName::new(name).unwrap()
}

fn key(key: &str) -> Key {
    Key::new(key).unwrap()
}

fn record(key: &str, age: i64) -> NewRecord {
    NewRecord {
        key: Key::new(key).unwrap(),
        images: Vec::new(),
        texts: vec![format!("word {key}")],
        attributes: Attributes::from([("age".to_owned(), AttributeValue::Integer(age))]),
        chunking: diptych_core::Chunking::default(),
    }
}

fn put(engine: &Engine, collection: &CollectionName, records: Vec<NewRecord>) {
    for written in engine.ingest(collection, records, PutMode::Upsert).unwrap() {
        written.unwrap();
    }
}

fn filter(written: &str) -> Filter {
    written.parse().unwrap()
}

fn search(engine: &Engine, collection: &CollectionName, k: u64) -> Result<usize, EngineError> {
    let query = Query::new(QuerySource::Text("word".into()), Modality::Text, k, None).unwrap();
    engine.search(collection, &query).map(|outcome| outcome.hits.len())
}

fn aged(age: i64) -> AttributeChange {
    let values = BTreeMap::from([("age".to_owned(), Some(AttributeValue::Integer(age)))]);
    AttributeChange { replace: false, values }
}

#[test]
fn index_files_of_a_deletion_that_was_cut_short_go_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let (kept, gone) = (name("kept"), name("gone"));
    let engine_1 = engine(dir.path());
    put(&engine_1, &kept, vec![record("a", 1)]);
    put(&engine_1, &gone, (0..10).map(|n| record(&n.to_string(), n)).collect());
    assert_eq!(search(&engine_1, &gone, 20).unwrap(), 10);
    engine_1.close().unwrap();
    drop(engine_1);
    // As after a crash between the store's batch and the files.
    let store = Store::open(dir.path(), &StoreOptions::default()).unwrap();
    let id = store.collection(&gone).unwrap().id;
    store.delete_collection(id).unwrap();
    drop(store);
    let index = dir.path().join("index");
    let left = || {
        let names = std::fs::read_dir(&index).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with(&format!("{id}-"))).count()
    };
    assert!(left() > 0, "the files are there before");
    let engine = engine(dir.path());
    assert_eq!(left(), 0);
    assert_eq!(search(&engine, &kept, 20).unwrap(), 1);
    assert!(matches!(search(&engine, &gone, 20), Err(EngineError::CollectionNotFound { .. })));
    let created = engine.create_collection(&gone, AttributeSchema::default()).unwrap();
    assert_eq!(created.stats.records, 0);
    assert!(created.created.is_some());
}

#[test]
fn writers_of_a_collection_that_is_deleted_are_told_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let gone = name("gone");
    put(&engine, &gone, vec![record("first", 0)]);
    assert_eq!(engine.count(&gone, Some(&filter("age = 0"))).unwrap().records, 1);
    std::thread::scope(|scope| {
        let (engine, gone) = (&engine, &gone);
        for writer in 0..4 {
            scope.spawn(move || {
                for n in 0..25 {
                    let records = vec![record(&format!("{writer}-{n}"), n)];
                    match engine.ingest(gone, records, PutMode::Upsert) {
                        Ok(_) | Err(EngineError::CollectionDeleted { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
        scope.spawn(move || {
            for _ in 0..10 {
                match engine.delete_collection(gone) {
                    Ok(())
                    | Err(EngineError::CollectionNotFound { .. } | EngineError::CollectionDeleted { .. }) => {
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        });
    });
    // What is there now agrees in every way of looking at it.
    put(&engine, &gone, vec![record("last", 99)]);
    let records = engine.count(&gone, None).unwrap().records;
    assert_eq!(engine.count(&gone, Some(&filter("exists age"))).unwrap().records, records);
    assert_eq!(search(&engine, &gone, 1000).unwrap() as u64, records);
    assert_eq!(engine.list_page(&gone, None, 1000, None).unwrap().records.len() as u64, records);
    engine.close().unwrap();
    drop(engine);
    let report = verify(&Store::open(dir.path(), &StoreOptions::default()).unwrap()).unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
}

#[test]
fn changes_of_attributes_by_many_are_all_there_in_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let all = name("all");
    put(&engine, &all, (0..4).map(|n| record(&n.to_string(), 0)).collect());
    assert_eq!(engine.count(&all, Some(&filter("age = 0"))).unwrap().records, 4, "the filters are loaded");
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let (engine, all) = (&engine, &all);
            scope.spawn(move || {
                for n in 0..20 {
                    let values = BTreeMap::from([(format!("w{writer}"), Some(AttributeValue::Integer(n)))]);
                    let change = AttributeChange { replace: false, values };
                    engine.update_attributes(all, &key(&(n % 4).to_string()), &change, None).unwrap();
                }
            });
        }
    });
    for n in 0..4 {
        let stored = engine.get(&all, &key(&n.to_string())).unwrap();
        for writer in 0..4 {
            assert_eq!(stored.record.attributes()[&format!("w{writer}")], AttributeValue::Integer(16 + n));
        }
    }
    for writer in 0..4 {
        assert_eq!(engine.count(&all, Some(&filter(&format!("w{writer} >= 16")))).unwrap().records, 4);
        assert_eq!(engine.count(&all, Some(&filter(&format!("w{writer} < 16")))).unwrap().records, 0);
    }
    let schema = AttributeSchema::new([("age".to_owned(), AttributeType::String)].into(), false).unwrap();
    let strict = name("strict");
    engine.create_collection(&strict, schema).unwrap();
    let text = Attributes::from([("age".to_owned(), AttributeValue::String("old".into()))]);
    put(&engine, &strict, vec![NewRecord { attributes: text, ..record("a", 0) }]);
    let refused = engine.update_attributes(&strict, &key("a"), &aged(3), None).unwrap_err();
    assert!(refused.to_string().contains("'age' is the integer 3"), "{refused}");
}

#[test]
fn a_deletion_that_was_broken_off_is_taken_up_by_its_request() {
    let dir = tempfile::tempdir().unwrap();
    let all = name("all");
    let id = || Some(RequestId::new("bulk").unwrap());
    let deletion = {
        let engine = engine(dir.path());
        put(&engine, &all, (0..1000).map(|n| record(&format!("{n:04}"), n)).collect());
        // Told to stop after the first batch.
        engine.delete_matching(&all, &filter("age < 900"), id(), |_, total| total != 900).unwrap()
    };
    assert!(deletion.stopped && (1..900).contains(&deletion.deleted), "{deletion:?}");
    let engine = engine(dir.path());
    assert_eq!(engine.count(&all, None).unwrap().records, 1000 - deletion.deleted);
    let mut told = Vec::new();
    let end = engine
        .delete_matching(&all, &filter("age < 900"), id(), |done, total| {
            told.push((done, total));
            true
        })
        .unwrap();
    assert_eq!((end.deleted, end.stopped), (900, false));
    assert_eq!(told.last(), Some(&(900, 900)));
    assert!(told[0].0 > deletion.deleted, "it goes on where it was");
    // Completed, it is answered and not done again.
    put(&engine, &all, vec![record("late", 1)]);
    let again =
        engine.delete_matching(&all, &filter("age < 900"), id(), |_, _| panic!("nothing to do")).unwrap();
    assert_eq!(again, end);
    assert_eq!(engine.count(&all, Some(&filter("age < 900"))).unwrap().records, 1);
    let other = engine.delete_matching(&all, &filter("age < 1"), id(), |_, _| true).unwrap_err();
    assert!(matches!(other, EngineError::RequestReused { .. }), "{other}");
    // One that finds nothing is remembered, too.
    let none = RequestId::new("none").unwrap();
    let nothing =
        || engine.delete_matching(&all, &filter("age > 5000"), Some(none.clone()), |_, _| true).unwrap();
    assert_eq!(nothing().deleted, 0);
    put(&engine, &all, vec![record("old", 6000)]);
    assert_eq!(nothing().deleted, 0);
    assert!(engine.get(&all, &key("old")).is_ok());
}

#[test]
fn a_page_of_a_rare_condition_ends_before_it_has_read_everything() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let all = name("all");
    for batch in 0..20u32 {
        let records =
            (0..1000).map(|n| record(&format!("{:05}", batch * 1000 + n), i64::from(batch * 1000 + n)));
        put(&engine, &all, records.collect());
    }
    let rare = filter("age = 19999 or age = 3");
    let first = engine.list_page(&all, None, 10, Some(&rare)).unwrap();
    assert_eq!(first.records.len(), 1);
    let next = first.next.expect("there is more to look at");
    let second = engine.list_page(&all, Some(&next), 10, Some(&rare)).unwrap();
    assert_eq!((second.records.len(), second.next), (1, None));
    assert_eq!(second.records[0].record.key(), &key("19999"));
    // A page that is exactly full, with nothing behind it, is the last.
    let both = engine.list_page(&all, Some(&key("19989")), 10, None).unwrap();
    assert_eq!((both.records.len(), both.next), (10, None));
    let outcome = engine.update_attributes(&all, &key("00003"), &aged(3), None).unwrap();
    assert_eq!(outcome.outcome, Outcome::Unchanged);
}
