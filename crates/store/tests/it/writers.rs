//! Many writers at once.

use std::collections::BTreeSet;

use diptych_store::{Outcome, PutMode, Stats};

use crate::*;

#[test]
fn concurrent_writers_share_batches_and_lose_nothing() {
    const THREADS: usize = 8;
    const WRITES: usize = 200;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let id = collection(&store).id;
    let before = store.usage();
    let points: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|t| {
                let store = &store;
                scope.spawn(move || {
                    (0..WRITES)
                        .flat_map(|i| {
                            let name = format!("{t}-{i}");
                            let applied = store.write(id, vec![content(1).upsert(&name)]).unwrap();
                            // Whoever was answered can read what it wrote.
                            assert!(store.get(id, &key(&name)).unwrap().is_some());
                            assert!(store.last_seq() >= applied[0].seq.unwrap());
                            applied[0].added.clone()
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let after = store.usage();
    assert_eq!(after.writes - before.writes, (THREADS * WRITES) as u64);
    let batches = after.batches - before.batches;
    assert!(batches < (THREADS * WRITES) as u64, "{batches} batches for {} writes", THREADS * WRITES);

    assert_eq!(points.iter().map(|&(_, point)| point).collect::<BTreeSet<_>>().len(), 2 * THREADS * WRITES);
    let n = (THREADS * WRITES) as u64;
    let stats = Stats { records: n, image_points: n, text_points: n, truncated_texts: 0 };
    assert_eq!(store.stats(id).unwrap(), stats);
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.stats(id).unwrap(), stats);
    for t in 0..THREADS {
        for i in 0..WRITES {
            assert_stored(&store, id, &format!("{t}-{i}"), content(1));
        }
    }
    assert_clean(&store);
}

#[test]
fn of_many_inserts_of_one_key_exactly_one_succeeds() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let id = collection(&store).id;
    for round in 0..20 {
        let name = format!("round {round}");
        let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|version| {
                    let (store, name) = (&store, &name);
                    scope.spawn(move || {
                        let put = content(version).put(name, PutMode::InsertOnly);
                        store.write(id, vec![put]).unwrap()[0].outcome
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(outcomes.iter().filter(|&&o| o == Outcome::Created).count(), 1);
        assert_eq!(outcomes.iter().filter(|&&o| o == Outcome::AlreadyExists).count(), 7);
    }
    assert_eq!(store.stats(id).unwrap().records, 20);
    assert_clean(&store);
}

#[test]
fn a_refused_call_does_not_disturb_its_group() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let id = collection(&store).id;
    std::thread::scope(|scope| {
        for t in 0..8 {
            let store = &store;
            scope.spawn(move || {
                for i in 0..20 {
                    let collection = if t % 2 == 0 { id } else { id + 1 };
                    let result = store.write(collection, vec![content(1).upsert(&format!("{t}-{i}"))]);
                    assert_eq!(result.is_ok(), t % 2 == 0);
                }
            });
        }
    });
    assert_eq!(store.stats(id).unwrap().records, 80);
}
