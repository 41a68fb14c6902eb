//! Points come and go while segments are sealed and merged under them.

use std::ops::Range;

use diptych_core::{Embedding, PointId};
use diptych_index::{Index, IndexOptions, Search};
use rand::seq::SliceRandom;

use crate::data::{clip_like, gauss, numbered, rng, sealing, uniform, with_duplicates};
use crate::oracle::{Points, assert_all_find_themselves, points_of, recall};

/// Inserts the points of a range, in small batches, and as they are.
fn insert(index: &Index, vectors: &[Embedding], range: Range<usize>, batch: usize) {
    for chunk in numbered(vectors)[range].chunks(batch) {
        index.insert_many(chunk).unwrap();
    }
}

#[test]
fn recall_after_a_fifth_was_replaced_is_that_of_a_fresh_build() {
    let set = clip_like(6_000, 32, 200, 1);
    let churned = Index::new(32, sealing(512)).unwrap();
    insert(&churned, &set.images, 0..5_000, 100);
    let mut points = points_of(&set.images[..5_000]);
    let mut order: Vec<u64> = (0..5_000).collect();
    order.shuffle(&mut rng(2));
    for (batch, old) in order[..1_000].chunks(50).enumerate() {
        for &id in old {
            assert!(churned.remove(PointId(id)));
            points.remove(&PointId(id));
        }
        let new = 5_000 + 50 * batch..5_050 + 50 * batch;
        insert(&churned, &set.images, new.clone(), 50);
        points.extend(new.map(|i| (PointId(i as u64), set.images[i].clone())));
    }
    churned.settle().unwrap();
    assert!(churned.stats().segments.len() < 8, "{:?}", churned.stats());
    let fresh = Index::new(32, sealing(512)).unwrap();
    fresh.insert_all(points.iter().map(|(&id, e)| Ok::<_, diptych_index::IndexError>((id, e)))).unwrap();
    assert_eq!(churned.ids(), fresh.ids());
    for (kind, queries) in [("image", &set.image_queries), ("text", &set.text_queries)] {
        for (ef, slack) in [(16, 0.05), (64, 0.01), (128, 0.01)] {
            let search = Search { ef: Some(ef), ..Search::nearest(10) };
            let [after, anew] = [&churned, &fresh].map(|index| recall(index, &points, queries, &search));
            eprintln!("{kind} queries at ef {ef}: {after:.4} after churn, {anew:.4} fresh");
            assert!(after >= anew - slack, "{kind} queries at ef {ef}: {after} after churn, {anew} fresh");
        }
    }
    assert_all_find_themselves(&churned, &points);
}

#[test]
fn nearly_everything_removed_leaves_the_rest_alone() {
    let vectors = clip_like(2_000, 24, 0, 3).images;
    let index = Index::new(24, sealing(256)).unwrap();
    insert(&index, &vectors, 0..2_000, 90);
    let mut points = points_of(&vectors);
    for i in (0..2_000).filter(|i| i % 400 != 0) {
        assert!(index.remove(PointId(i)));
        points.remove(&PointId(i));
    }
    for settled in [false, true] {
        assert_eq!(index.ids(), points.keys().copied().collect::<Vec<_>>());
        for query in &vectors[..50] {
            let found = index.nearest(query, 10, None).unwrap();
            assert_eq!(found, index.nearest_exact(query, 10).unwrap());
            assert_eq!(found.len(), 5);
        }
        if !settled {
            index.seal().unwrap();
        }
    }
    assert!(index.tombstones() <= 1, "{:?}", index.stats());
    for id in points.keys() {
        assert!(index.remove(*id));
    }
    index.seal().unwrap();
    assert_eq!((index.len(), index.tombstones()), (0, 0));
    assert_eq!(index.stats().segments, [] as [usize; 0]);
    assert_eq!(index.nearest(&vectors[0], 10, None).unwrap(), []);
    index.insert(PointId(9_999), &vectors[0]).unwrap();
    assert_eq!(index.nearest(&vectors[0], 10, None).unwrap()[0].id, PointId(9_999), "and it goes on");
}

#[test]
fn duplicates_do_not_trap_the_search() {
    let set = clip_like(3_000, 32, 80, 4);
    let vectors = with_duplicates(set.images, 0.3, 5);
    let index = Index::new(32, sealing(400)).unwrap();
    insert(&index, &vectors, 0..3_000, 150);
    index.seal().unwrap();
    let points = points_of(&vectors);
    assert_all_find_themselves(&index, &points);
    // Copies of one vector score the same, so an answer is as good if its scores are.
    for queries in [&set.image_queries, &set.text_queries] {
        let mut good = 0;
        for query in queries {
            let found = index.nearest(query, 10, None).unwrap();
            let truth = crate::oracle::exact(&points, query, 10, None);
            good += found.iter().filter(|f| f.score >= truth[9].score - 1e-5).count();
        }
        assert!(good >= 780, "{good} of 800 are as near as the tenth of the truth");
    }
}

/// One sentence in every second report, over many segments: a search that wants ten points gets ten.
#[test]
fn one_vector_in_every_segment() {
    let mut vectors = uniform(1_200, 16, 6);
    for i in (0..vectors.len()).step_by(2) {
        vectors[i] = vectors[0].clone();
    }
    let index = Index::new(16, sealing(100)).unwrap();
    for (id, vector) in &numbered(&vectors) {
        index.insert(*id, vector).unwrap();
    }
    for settled in [false, true] {
        let first: Vec<u64> = index.nearest(&vectors[0], 10, None).unwrap().iter().map(|n| n.id.0).collect();
        assert_eq!(first, [0, 2, 4, 6, 8, 10, 12, 14, 16, 18], "equal scores come in id order");
        if !settled {
            index.seal().unwrap();
        }
    }
    assert_all_find_themselves(&index, &points_of(&vectors));
}

#[test]
fn a_segment_that_is_mostly_dead_is_built_again_without_it() {
    let vectors = uniform(1_000, 16, 7);
    let index = Index::new(16, sealing(500)).unwrap();
    index.insert_many(&numbered(&vectors)).unwrap();
    index.settle().unwrap();
    let bytes = index.stats().hot_bytes;
    for i in 0..150 {
        index.remove(PointId(i));
    }
    index.settle().unwrap();
    assert_eq!(index.tombstones(), 150, "few dead ones are cheaper to keep");
    for i in 150..600 {
        index.remove(PointId(i));
    }
    assert_eq!(index.tombstones(), 600);
    index.settle().unwrap();
    assert_eq!((index.tombstones(), index.stats().segments), (0, vec![400]));
    assert!(index.stats().hot_bytes < bytes / 2);
    let points: Points = points_of(&vectors).into_iter().filter(|(id, _)| id.0 >= 600).collect();
    assert_all_find_themselves(&index, &points);
    assert!(recall(&index, &points, &vectors[..50], &Search::nearest(10)) >= 0.99);
}

/// A record is written again and again: the live layer does not keep every version of it.
#[test]
fn points_replaced_before_they_are_sealed_do_not_pile_up() {
    let vectors = uniform(3_000, 16, 8);
    let index = Index::new(16, sealing(200)).unwrap();
    for (id, vector) in &numbered(&vectors) {
        index.insert(*id, vector).unwrap();
        if id.0 >= 20 {
            assert!(index.remove(PointId(id.0 - 20)));
        }
    }
    index.settle().unwrap();
    assert_eq!(index.len(), 20);
    assert!(index.tombstones() <= 250, "{} vectors are kept for {} points", index.tombstones(), index.len());
}

/// The same sentence encoded in many batches, equal but for rounding, and then everything else: codes
/// fine enough for the former must not be what the latter are told apart by.
#[test]
fn near_copies_sealed_first_do_not_spoil_what_is_merged_with_them() {
    let vectors = uniform(800, 32, 9);
    let mut noise = rng(10);
    let mut copies = Vec::new();
    for _ in 0..400 {
        let pairs = vectors[0].as_slice().iter().zip(gauss(&mut noise, 32));
        copies.push(Embedding::new(pairs.map(|(v, g)| v + 1e-6 * g).collect::<Vec<_>>()).unwrap());
    }
    let all = [copies, vectors.clone()].concat();
    let index = Index::new(32, sealing(200)).unwrap();
    index.insert_many(&numbered(&all)[..400]).unwrap();
    insert(&index, &all, 400..1_200, 150);
    index.seal().unwrap();
    assert!(index.stats().segments.iter().any(|&points| points > 1_000), "merged: {:?}", index.stats());
    let points = points_of(&all);
    let queries = uniform(100, 32, 11);
    let share = recall(&index, &points, &queries, &Search::nearest(10));
    eprintln!("beside near copies: {share:.4}");
    assert!(share >= 0.95, "{share}");
    assert_all_find_themselves(&index, &points);
}

/// What is inserted later is of another kind than what the codes were made for.
#[test]
fn a_shift_of_the_data_does_not_lower_recall() {
    let (first, second) = (clip_like(1_200, 32, 60, 12), uniform(1_000, 32, 13));
    let vectors = [first.images.clone(), second.clone()].concat();
    let index = Index::new(32, IndexOptions { seal_at: 400, ..sealing(400) }).unwrap();
    insert(&index, &vectors, 0..1_200, 1_200);
    insert(&index, &vectors, 1_200..2_200, 250);
    index.seal().unwrap();
    let points = points_of(&vectors);
    for queries in [&first.image_queries, &first.text_queries, &uniform(60, 32, 14)] {
        let share = recall(&index, &points, queries, &Search::nearest(10));
        assert!(share >= 0.98, "{share}");
    }
    assert_all_find_themselves(&index, &points);
}
