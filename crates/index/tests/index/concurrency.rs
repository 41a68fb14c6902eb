//! Inserts, removals and searches at the same time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use diptych_core::PointId;
use diptych_index::Index;

use crate::data::{always_walk, clip_like, index_of, numbered, with_duplicates};
use crate::reachability::assert_all_find_themselves;
use crate::recall::recall_at_k;

#[test]
fn inserts_removals_and_searches_from_many_threads() {
    let set = clip_like(4_000, 32, 50, 1);
    let vectors = with_duplicates(set.images, 0.2, 2);
    let index = Index::new(32, always_walk()).unwrap();
    let inserted = [const { AtomicU64::new(0) }; 3];
    thread::scope(|scope| {
        // Each writer inserts every third point, and removes every tenth of its own right after.
        for (w, progress) in inserted.iter().enumerate() {
            let (index, vectors) = (&index, &vectors);
            scope.spawn(move || {
                for (n, i) in (w..vectors.len()).step_by(3).enumerate() {
                    let id = PointId(i as u64);
                    index.insert(id, &vectors[i]).unwrap();
                    if i % 10 == 0 {
                        assert!(index.remove(id));
                    }
                    progress.store(n as u64 + 1, Ordering::Release);
                }
            });
        }
        // A reader sees whatever was inserted before it looked, and nothing that had been removed.
        let (index, vectors, inserted) = (&index, &vectors, &inserted);
        scope.spawn(move || {
            for round in 0..1_500u64 {
                let w = (round % 3) as usize;
                let done = inserted[w].load(Ordering::Acquire);
                if done == 0 {
                    continue;
                }
                let i = w + 3 * (round.wrapping_mul(0x9e37_79b9) % done) as usize;
                let found = index.nearest(&vectors[i], 3, None).unwrap();
                assert!(found.windows(2).all(|pair| pair[0].score >= pair[1].score));
                if i.is_multiple_of(10) {
                    assert!(found.iter().all(|n| n.id.0 != i as u64), "{i} had been removed");
                }
                let newest = w + 3 * (done as usize - 1);
                if !newest.is_multiple_of(10) {
                    let first = index.nearest(&vectors[newest], 1, None).unwrap()[0];
                    assert!(first.score >= 1.0 - 1e-5, "{newest} had been inserted, found {first:?}");
                }
            }
        });
    });
    let expected: Vec<PointId> = (0..4_000).filter(|i| i % 10 != 0).map(PointId).collect();
    assert_eq!(index.ids(), expected);
    assert_eq!(index.len(), expected.len());
    index.audit();
    assert_all_find_themselves(&index, &vectors);
    assert!(recall_at_k(&index, &set.image_queries, 10, None) >= 0.95);
}

#[test]
fn the_same_points_from_every_thread_are_inserted_once() {
    let vectors = clip_like(1_500, 24, 0, 3).images;
    let points = numbered(&vectors);
    let index = Index::new(24, always_walk()).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| index.insert_many(&points).unwrap());
        }
    });
    assert_eq!(index.len(), 1_500);
    assert_eq!(index.nearest(&vectors[0], 2_000, None).unwrap().len(), 1_500);
    index.audit();
    assert_all_find_themselves(&index, &vectors);
}

/// A graph library that takes locks in a circle stops here.
#[test]
fn scans_and_audits_run_beside_inserts() {
    let vectors = clip_like(2_000, 24, 0, 4).images;
    let index = index_of(&vectors[..500], always_walk());
    thread::scope(|scope| {
        scope.spawn(|| index.insert_many(&numbered(&vectors)).unwrap());
        scope.spawn(|| {
            for _ in 0..5 {
                index.audit();
            }
        });
        scope.spawn(|| {
            for vector in &vectors[..200] {
                assert!(index.nearest_exact(vector, 1).unwrap()[0].score >= 1.0 - 1e-5);
            }
        });
    });
    index.audit();
    assert_all_find_themselves(&index, &vectors);
}
