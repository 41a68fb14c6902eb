//! Inserts, removals and searches at the same time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use diptych_core::{Embedding, PointId};
use diptych_index::{Index, IndexOptions, Search};

use crate::data::{always_walk, clip_like, index_of, numbered, sealing, with_duplicates};
use crate::oracle::{Points, recall};
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

/// The same, of so many that each thread makes a segment of them.
#[test]
fn the_same_points_from_every_thread_are_sealed_once() {
    let vectors = clip_like(1_200, 16, 0, 5).images;
    let points = numbered(&vectors);
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path(), 16, sealing(200)).unwrap();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| index.insert_many(&points).unwrap());
        }
        scope.spawn(|| {
            for (id, vector) in &points {
                index.insert(*id, vector).unwrap();
            }
        });
        scope.spawn(|| points.chunks(90).for_each(|chunk| index.insert_many(chunk).unwrap()));
    });
    index.seal().unwrap();
    assert_eq!((index.len(), index.ids().len()), (1_200, 1_200));
    let all = index.nearest(&vectors[0], 5_000, None).unwrap();
    assert_eq!(all.len(), 1_200, "each point is found once");
    for id in (0..1_200).step_by(2).map(PointId) {
        assert!(index.remove(id));
    }
    assert_eq!(index.len(), 600);
    let left = index.nearest(&vectors[0], 5_000, None).unwrap();
    assert!(left.len() == 600 && left.iter().all(|n| n.id.0 % 2 == 1), "what was removed is nowhere");
    index.checkpoint(1);
    index.settle().unwrap();
    drop(index);
    let index = Index::open(dir.path(), 16, sealing(200)).unwrap();
    assert_eq!((index.len(), index.nearest_exact(&vectors[0], 5_000).unwrap().len()), (600, 600));
}

/// What one writer did to its own share of the ids, every third of them.
fn write_share(index: &Index, vectors: &[Embedding], share: usize, progress: &AtomicU64) {
    let own: Vec<usize> = (share..vectors.len()).step_by(3).collect();
    for (round, chunk) in own.chunks(7).enumerate() {
        let points: Vec<_> = chunk.iter().map(|&i| (PointId(i as u64), vectors[i].clone())).collect();
        if round % 2 == 0 {
            index.insert_many(&points).unwrap();
        } else {
            points.iter().for_each(|(id, vector)| index.insert(*id, vector).unwrap());
        }
        for &i in chunk.iter().filter(|&&i| is_removed(i)) {
            assert!(index.remove(PointId(i as u64)), "{i}");
        }
        progress.store(points[points.len() - 1].0.0 + 1, Ordering::Release);
    }
}

fn is_removed(i: usize) -> bool {
    i % 5 == 1
}

/// Searches for points that have been inserted or removed for certain, until the writers are done and
/// at least `least` times.
fn read_along(index: &Index, vectors: &[Embedding], progress: &[AtomicU64; 3], least: u64, offset: u64) {
    let mut round = offset;
    loop {
        let done = progress.each_ref().map(|p| p.load(Ordering::Acquire) as usize);
        let share = (round % 3) as usize;
        let count = done[share].saturating_sub(share).div_ceil(3) as u64;
        if count > 0 {
            let i =
                share + 3 * (round.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20).wrapping_rem(count) as usize;
            let found = index.nearest(&vectors[i], 5, None).unwrap();
            assert!(found.windows(2).all(|w| w[0].score >= w[1].score && w[0].id != w[1].id), "{found:?}");
            if is_removed(i) {
                assert!(found.iter().all(|n| n.id.0 != i as u64), "{i} had been removed");
            } else {
                assert!(index.knows(PointId(i as u64)));
            }
        }
        round += 1;
        let all_written = (0..3).all(|s| done[s] + 3 > vectors.len());
        if all_written && round - offset >= least {
            return;
        }
    }
}

/// Writers, removers, readers, and every kind of work on segments at once.
fn everything_at_once(n: usize, seal_at: usize, rounds: u64, seed: u64) {
    let set = clip_like(n, 16, 60, seed);
    let dir = tempfile::tempdir().unwrap();
    let options = IndexOptions { ef_construction: 60, ..sealing(seal_at) };
    let index = Index::open(dir.path(), 16, options).unwrap();
    let vectors = with_duplicates(set.images, 0.1, seed);
    let progress = [const { AtomicU64::new(0) }; 3];
    thread::scope(|scope| {
        let (index, vectors, progress) = (&index, &vectors, &progress);
        for (share, own) in progress.iter().enumerate() {
            scope.spawn(move || write_share(index, vectors, share, own));
        }
        for reader in 0..2 {
            scope.spawn(move || read_along(index, vectors, progress, rounds, reader));
        }
        let texts = &set.text_queries;
        scope.spawn(move || {
            for round in 0..rounds / 100 {
                match round % 4 {
                    0 => index.seal().unwrap(),
                    1 => index.learn_queries(texts).unwrap(),
                    2 => index.checkpoint(round),
                    _ => index.flush().unwrap(),
                }
            }
        });
    });
    index.checkpoint(1_000_000);
    index.settle().unwrap();
    let live = (0..n).filter(|&i| !is_removed(i));
    let model: Points = live.map(|i| (PointId(i as u64), vectors[i].clone())).collect();
    let agrees = |index: &Index| {
        assert_eq!(index.ids(), model.keys().copied().collect::<Vec<_>>());
        assert_eq!(index.len(), model.len());
        crate::oracle::assert_all_find_themselves(index, &model);
        let everything = index.nearest_exact(&vectors[0], n + 1).unwrap();
        assert_eq!(everything.len(), model.len(), "each point once");
    };
    agrees(&index);
    // Copies of one vector are interchangeable, so recall is that of vectors, not quite of ids.
    assert!(recall(&index, &model, &set.image_queries, &Search::nearest(10)) >= 0.95);
    drop(index);
    let index = Index::open(dir.path(), 16, options).unwrap();
    assert_eq!(index.mark(), 1_000_000);
    agrees(&index);
}

#[test]
fn writers_removers_readers_and_upkeep_at_the_same_time() {
    everything_at_once(4_000, 128, 1_500, 6);
}

#[test]
#[ignore = "a minute of the same; for changes of locks or of upkeep"]
fn writers_removers_readers_and_upkeep_for_a_minute() {
    for seed in 10..20 {
        everything_at_once(6_000, 64 << (seed % 3), 4_000, seed);
    }
}
