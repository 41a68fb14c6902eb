//! Copies of a store that is in use.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::*;

#[test]
fn a_copy_taken_while_writers_write_has_all_that_was_acknowledged_before() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("data"));
    let id = collection(&store).id;
    for n in 0..50 {
        store.write(id, vec![content(1).upsert(&format!("before-{n}"))]).unwrap();
    }
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let copies: Vec<_> = std::thread::scope(|scope| {
        for writer in 0..3 {
            let (store, stop, written) = (&store, &stop, &written);
            scope.spawn(move || {
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let name = format!("{writer}-{}", n % 40);
                    let content = Content { version: (n % 250) as u8, images: 1, texts: 1 };
                    store.write(id, vec![content.upsert(&name)]).unwrap();
                    written.fetch_add(1, Ordering::Release);
                }
            });
        }
        let copies = (0..4).map(|n| {
            // Each with more than the one before.
            while written.load(Ordering::Acquire) < 20 * (n + 1) {
                std::thread::yield_now();
            }
            let acknowledged = store.last_seq();
            let copy = dir.path().join(format!("copy-{n}"));
            let checkpoint = store.checkpoint(&copy).unwrap();
            (copy, acknowledged, checkpoint)
        });
        let copies = copies.collect();
        stop.store(true, Ordering::Relaxed);
        copies
    });
    for (copy, acknowledged, checkpoint) in copies {
        assert!(checkpoint.seq >= acknowledged);
        for (path, bytes) in &checkpoint.files {
            assert_eq!(std::fs::metadata(copy.join(path)).unwrap().len(), *bytes, "{path}");
        }
        let names: Vec<&str> = checkpoint.files.iter().map(|(path, _)| path.as_str()).collect();
        assert!(
            ["ACKNOWLEDGED", "FORMAT", "rocksdb/CURRENT"].iter().all(|name| names.contains(name)),
            "{names:?}"
        );
        let copied = open(&copy);
        assert_eq!(copied.last_seq(), checkpoint.seq);
        assert_eq!(copied.stats(id).unwrap().records, checkpoint.records);
        assert_clean(&copied);
        for n in 0..50 {
            assert_stored(&copied, id, &format!("before-{n}"), content(1));
        }
        // It is a store of its own.
        copied.write(id, vec![content(2).upsert("later")]).unwrap();
        assert!(store.get(id, &key("later")).unwrap().is_none());
    }
    assert_clean(&store);
}

#[test]
fn a_copy_goes_where_no_store_is() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("data"));
    let copy = dir.path().join("copy");
    let empty = store.checkpoint(&copy).unwrap();
    assert_eq!((empty.seq, empty.records), (0, 0));
    assert!(store.checkpoint(&copy).is_err());
    assert_clean(&open(&copy));
}
