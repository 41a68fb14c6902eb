//! What `Store::open` takes and what it refuses.

use std::time::{Duration, Instant};

use diptych_core::{CollectionName, Digest, ModelId};
use diptych_store::{FORMAT_VERSION, Store, StoreError, StoreOptions};

use crate::*;

fn refused(dir: &Path, options: &StoreOptions) -> StoreError {
    Store::open(dir, options).map(|_| ()).unwrap_err()
}

#[test]
fn a_store_is_closed_to_other_users_of_the_machine() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("deep/data");
    let store = open(&root);
    collection(&store);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        for path in [root.clone(), root.join("rocksdb")] {
            assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o700);
        }
    }
    assert!(store.usage().disk_bytes > 0);
}

#[test]
fn a_second_opener_is_turned_away_at_once_with_the_lock_and_its_holder() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let start = Instant::now();
    let error = refused(dir.path(), &StoreOptions::default());
    assert!(start.elapsed() < Duration::from_secs(1));
    let lock = dir.path().join("LOCK");
    let holder = format!("process {}", std::process::id());
    assert_eq!(error, StoreError::InUse { lock: lock.clone(), holder: holder.clone() });
    let message = error.to_string();
    assert!(message.contains(&lock.display().to_string()) && message.contains(&holder), "{message}");
    drop(store);
    open(dir.path());
}

#[test]
fn another_version_is_refused_naming_both() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    std::fs::write(dir.path().join("FORMAT"), "diptych-store 99\n").unwrap();
    let error = refused(dir.path(), &StoreOptions::default());
    assert_eq!(
        error,
        StoreError::Version { dir: dir.path().to_owned(), found: 99, supported: FORMAT_VERSION }
    );
    assert!(error.to_string().contains("version 99") && error.to_string().contains("version 1"), "{error}");
}

#[test]
fn what_is_no_store_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let photos = dir.path().join("photos");
    std::fs::create_dir(&photos).unwrap();
    std::fs::write(photos.join("cat.jpg"), "not really").unwrap();
    let error = refused(&photos, &StoreOptions::default());
    assert_eq!(error, StoreError::NotAStore { dir: photos.clone(), found: "cat.jpg".to_owned() });
    assert_eq!(std::fs::read_dir(&photos).unwrap().count(), 1, "nothing was added");
    let file = photos.join("cat.jpg");
    assert!(matches!(refused(&file, &StoreOptions::default()), StoreError::NotAStore { .. }));

    let options = StoreOptions { create: false, ..StoreOptions::default() };
    let absent = dir.path().join("absent");
    assert_eq!(refused(&absent, &options), StoreError::Missing { dir: absent.clone() });
    assert!(!absent.exists());
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    assert_eq!(refused(&empty, &options), StoreError::Missing { dir: empty.clone() });
    open(&empty);
}

#[test]
fn other_files_may_lie_beside_a_store() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    std::fs::create_dir(dir.path().join("index")).unwrap();
    assert_clean(&open(dir.path()));
}

#[test]
fn a_collection_keeps_its_model() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let made = collection(&store);
    assert_eq!(collection(&store), made, "the same again is fine");
    let another = ModelId(Digest([8; 32]));
    let error = store.create_collection(&made.name, another, 16).unwrap_err();
    assert_eq!(
        error,
        StoreError::ModelMismatch {
            collection: made.name.clone(),
            stored: model_id(),
            stored_dim: DIM,
            given: another,
            given_dim: 16
        }
    );
    let message = error.to_string();
    assert!(message.contains("use the original model, or ingest again into a new collection"), "{message}");
    assert_eq!(
        store.create_collection(&CollectionName::new("x").unwrap(), another, 0),
        Err(StoreError::Dimension { dim: 0 })
    );
    let second = store.create_collection(&CollectionName::new("second").unwrap(), another, 16).unwrap();
    assert_ne!(second.id, made.id);
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.collections(), [made.clone(), second]);
    assert_eq!(store.collection(&made.name), Some(made));
    assert_eq!(store.collection(&CollectionName::new("x").unwrap()), None);
}
