//! Collections come, are described and go; directories of the first format open.

use std::path::Path;

use diptych_core::{AttributeSchema, AttributeType, AttributeValue, CollectionName, Modality};
use diptych_store::{Mutation, NewCollection, Once, Outcome, Store, StoreError};

use crate::{DIM, assert_clean, assert_stored, collection, content, copy_dir, key, model_id, open, text};

fn new(name: &str, schema: AttributeSchema) -> NewCollection {
    let name = CollectionName::new(name).unwrap();
    let created = Some("2024-01-31".parse().unwrap());
    NewCollection { name, model_id: model_id(), dim: DIM, created, schema }
}

fn strict() -> AttributeSchema {
    AttributeSchema::new([("taken".to_owned(), AttributeType::Time)].into(), false).unwrap()
}

#[test]
fn a_collection_keeps_its_schema_and_the_time_it_was_created() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (made, is_new) = store.add_collection(new("cases", strict())).unwrap();
    assert!(is_new && *made.schema == strict());
    // Another of that name is not made, whatever it asks for.
    let (found, is_new) = store.add_collection(new("cases", AttributeSchema::default())).unwrap();
    assert_eq!((found, is_new), (made.clone(), false));
    drop(store);
    assert_eq!(open(dir.path()).collections(), [made]);
}

#[test]
fn a_deleted_collection_is_gone_whole_and_the_others_stay() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let kept = collection(&store);
    let (gone, _) = store.add_collection(new("gone", strict())).unwrap();
    for id in [kept.id, gone.id] {
        let puts = (0..50).map(|n| content(1).upsert(&format!("r{n}"))).collect();
        store.write(id, puts).unwrap();
    }
    store.delete_collection(gone.id).unwrap();
    let unknown = StoreError::UnknownCollection { id: gone.id };
    assert_eq!(store.delete_collection(gone.id), Err(unknown.clone()));
    assert_eq!(store.write(gone.id, vec![content(1).upsert("late")]), Err(unknown));
    assert_eq!(store.get(gone.id, &key("r1")).unwrap(), None);
    assert_clean(&store);

    // What a killed process leaves: nothing was flushed.
    let killed = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), killed.path());
    let store = open(killed.path());
    assert_eq!(store.collections().as_slice(), std::slice::from_ref(&kept));
    assert_eq!(store.list(gone.id, None, 10).unwrap(), []);
    assert_stored(&store, kept.id, "r7", content(1));
    assert_clean(&store);
    // The name is free at once, and its id is another one.
    let (again, is_new) = store.add_collection(new("gone", AttributeSchema::default())).unwrap();
    assert!(is_new && again.id > gone.id);
    assert_eq!(store.stats(again.id).unwrap().records, 0);
    store.write(again.id, vec![content(2).upsert("r1")]).unwrap();
    assert_stored(&store, again.id, "r1", content(2));
    assert_clean(&store);
}

#[test]
fn an_update_of_attributes_keeps_points_and_vectors() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let id = collection(&store).id;
    store.write(id, vec![content(1).upsert("a")]).unwrap();
    let before = store.get(id, &key("a")).unwrap().unwrap();
    let vectors = store.record_vectors(id, &key("a")).unwrap();
    let changed = |age: i64, seq: u64| {
        let mut attributes = before.record.attributes().clone();
        attributes.insert("age".to_owned(), AttributeValue::Integer(age));
        let record = diptych_core::Record::new(key("a"), before.record.parts().to_vec(), attributes).unwrap();
        Mutation::Update { record, digest: diptych_core::Digest([age as u8; 32]), seq }
    };
    let applied = store.write(id, vec![changed(40, before.seq)]).unwrap().remove(0);
    assert_eq!((applied.outcome, &applied.kept), (Outcome::Updated, &before.points));
    assert!(applied.added.is_empty() && applied.removed.is_empty());
    let after = store.get(id, &key("a")).unwrap().unwrap();
    assert_eq!(after.record.attributes()["age"], AttributeValue::Integer(40));
    assert_eq!(
        (after.points, store.record_vectors(id, &key("a")).unwrap()),
        (before.points.clone(), vectors)
    );
    // One who read it before that comes too late.
    let late = store.write(id, vec![changed(41, before.seq)]).unwrap().remove(0);
    assert_eq!((late.outcome, late.seq), (Outcome::Stale, None));
    let same = store.write(id, vec![changed(40, after.seq)]).unwrap().remove(0);
    assert_eq!(same.outcome, Outcome::Unchanged);
    let other_parts = content(1).record("b");
    let update = Mutation::Update { record: other_parts, digest: diptych_core::Digest([9; 32]), seq: 1 };
    assert_eq!(store.write(id, vec![update]).unwrap()[0].outcome, Outcome::NotFound);
    assert_eq!(store.scan_vectors(id, Modality::Text).unwrap().count(), 1);
    assert_clean(&store);
}

/// The directory was written by the program as it was before collections had schemas.
#[test]
fn a_directory_of_the_first_format_opens_with_all_that_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    copy_dir(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/format-1"), dir.path());
    let store = Store::open(dir.path(), &Default::default()).unwrap();
    let collections = store.collections();
    let [found] = collections.as_slice() else { panic!("{collections:?}") };
    assert_eq!((found.name.as_str(), found.created), ("default", None));
    assert_eq!(*found.schema, AttributeSchema::default());
    let a = store.get(found.id, &key("a")).unwrap().unwrap().record;
    assert_eq!(a.attributes()["taken"], AttributeValue::String("2024-01-31".to_owned()));
    let b = store.record_vectors(found.id, &key("b")).unwrap().unwrap();
    assert_eq!(b.iter().map(|v| v.part).collect::<Vec<_>>(), [text(0), text(1)]);
    assert_clean(&store);
    // It takes what is new.
    store.add_collection(new("cases", strict())).unwrap();
    store.write_once(found.id, vec![crate::delete("a")], Once::Never).unwrap();
    assert_clean(&store);
}
