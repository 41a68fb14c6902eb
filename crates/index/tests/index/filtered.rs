//! Searches among some of the points: how they are done, and how much they find.

use std::sync::OnceLock;

use diptych_core::{Embedding, PointId};
use diptych_index::{Index, IndexError, IndexOptions, Plan, PointSet, Search};

use crate::data::{ClipLike, clip_like, numbered, sealing, uniform};
use crate::oracle::{Points, exact, points_of, recall};

const N: usize = 24_000;
const DIM: usize = 24;

struct Sealed {
    set: ClipLike,
    points: Points,
    index: Index,
}

/// One large segment: fewer points than some thousands are scanned whatever their share.
fn sealed() -> &'static Sealed {
    static SEALED: OnceLock<Sealed> = OnceLock::new();
    SEALED.get_or_init(|| {
        let set = clip_like(N, DIM, 40, 1);
        let index = Index::new(DIM, IndexOptions { max_connections: 12, ..sealing(4_096) }).unwrap();
        index.insert_many(&numbered(&set.images)).unwrap();
        assert_eq!(index.stats().segments, [N]);
        Sealed { points: points_of(&set.images), set, index }
    })
}

/// A filter that names one point in so many, without pattern.
fn one_in(n: u64, of: usize) -> PointSet {
    (0..of as u64).filter(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).is_multiple_of(n)).collect()
}

fn plan(index: &Index, query: &Embedding, filter: &PointSet) -> Plan {
    index.search(query, &Search { filter: Some(filter), ..Search::nearest(10) }).unwrap().plan
}

#[test]
fn filters_of_every_share_find_at_least_95_percent() {
    let Sealed { set, points, index } = sealed();
    for (n, expected) in [
        (2, Plan::Walk),
        (10, Plan::Walk),
        (30, Plan::Walk),
        (40, Plan::TwoHop),
        (100, Plan::Scan),
        (1_000, Plan::Scan),
    ] {
        let filter = one_in(n, N);
        let search = Search { filter: Some(&filter), ..Search::nearest(10) };
        for (kind, queries) in [("image", &set.image_queries), ("text", &set.text_queries)] {
            let share = recall(index, points, queries, &search);
            eprintln!("one in {n}, {kind} queries: {share:.4}");
            assert!(share >= 0.95, "one in {n}, {kind} queries: {share}");
            assert_eq!(plan(index, &queries[0], &filter), expected, "one in {n}");
        }
    }
    assert_eq!(index.search(&set.images[0], &Search::nearest(10)).unwrap().plan, Plan::Walk);
}

/// The filter names what is least like the query: nothing on the way counts.
#[test]
fn filters_that_name_only_points_far_from_the_query() {
    let Sealed { set, points, index } = sealed();
    // How many are far enough, one in how many of those is named, and how much is to be found. In
    // between, where only the nearest tenth is left out, the walk has the least to go by.
    for (farthest, one_in, floor) in [
        (12_000, 1, 0.95),
        (3_000, 1, 0.95),
        (500, 1, 0.95),
        (18_000, 6, 0.95),
        (21_600, 8, 0.85),
        (23_500, 9, 0.95),
    ] {
        for (kind, queries) in [("image", &set.image_queries), ("text", &set.text_queries)] {
            let (mut hits, mut plans, asked) = (0, Vec::new(), 8);
            for query in &queries[..asked] {
                let ranked = exact(points, query, N, None);
                let named = ranked[N - farthest..].iter().step_by(one_in);
                let filter: PointSet = named.clone().map(|n| n.id.0).collect();
                let search = Search { filter: Some(&filter), ..Search::nearest(10) };
                let answer = index.search(query, &search).unwrap();
                assert_eq!(answer.neighbors.len(), 10);
                plans.push(answer.plan);
                hits += named.take(10).filter(|t| answer.neighbors.iter().any(|f| f.id == t.id)).count();
            }
            let share = hits as f64 / (10 * asked) as f64;
            eprintln!("one in {one_in} of the farthest {farthest}, {kind} queries: {share:.4} by {plans:?}");
            assert!(share >= floor, "one in {one_in} of the farthest {farthest}, {kind} queries: {share}");
        }
    }
}

/// The filter names one neighbourhood, and the query is from elsewhere.
#[test]
fn filters_that_name_one_region() {
    let Sealed { set, points, index } = sealed();
    let region = exact(points, &set.image_queries[0], 2_500, None);
    let filter: PointSet = region.iter().map(|n| n.id.0).collect();
    let search = Search { filter: Some(&filter), ..Search::nearest(10) };
    assert_eq!(plan(index, &set.image_queries[0], &filter), Plan::Walk);
    for queries in [&set.image_queries, &set.text_queries] {
        let share = recall(index, points, queries, &search);
        assert!(share >= 0.95, "{share}");
    }
}

#[test]
fn filters_of_none_of_one_and_of_strangers() {
    let Sealed { set, points, index } = sealed();
    let query = &set.text_queries[0];
    let find = |filter: &PointSet, k| {
        index.search(query, &Search { filter: Some(filter), ..Search::nearest(k) }).unwrap()
    };
    let none = find(&PointSet::new(), 10);
    assert_eq!((none.neighbors.len(), none.plan), (0, Plan::Scan));
    let strangers: PointSet = (N as u64..N as u64 + 9_000).chain([u64::MAX]).collect();
    assert_eq!(find(&strangers, 10).neighbors, []);
    for id in [0, 17, N as u64 - 1] {
        let one: PointSet = strangers.iter().chain([id]).collect();
        let found = find(&one, 10).neighbors;
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].id, PointId(id));
        assert!((found[0].score - query.cosine(&set.images[id as usize])).abs() < 1e-5);
    }
    let all: PointSet = (0..N as u64).collect();
    let search = Search { filter: Some(&all), ..Search::nearest(10) };
    assert!(recall(index, points, &set.text_queries, &search) >= 0.95);
    assert_eq!(find(&all, 10).plan, Plan::Walk);
}

#[test]
fn more_than_the_filter_has_gives_all_it_has() {
    let Sealed { set, index, .. } = sealed();
    for n in [5, 10, 100, 1_000] {
        let filter = one_in(n, N);
        for k in [filter.len() as usize, 50_000, usize::MAX / 4 + 1, usize::MAX] {
            let search = Search { filter: Some(&filter), ..Search::nearest(k) };
            let found = index.search(&set.images[3], &search).unwrap().neighbors;
            assert_eq!(found.len() as u64, filter.len(), "one in {n}, {k} wanted");
        }
    }
}

/// Live points, points that are being sealed, and several segments answer together.
#[test]
fn filters_over_all_parts_of_an_index_and_removals() {
    let set = clip_like(4_000, 24, 40, 2);
    let mut points = points_of(&set.images);
    let index = Index::new(24, sealing(600)).unwrap();
    let all = numbered(&set.images);
    index.insert_many(&all[..1_500]).unwrap();
    index.insert_many(&all[1_500..2_500]).unwrap();
    for (id, vector) in &all[2_500..] {
        index.insert(*id, vector).unwrap();
    }
    for id in (0..4_000).filter(|id| id % 7 == 3).map(PointId) {
        assert!(index.remove(id));
        points.remove(&id);
    }
    for _ in 0..2 {
        for n in [1, 2, 10, 100, 1_000] {
            let filter = one_in(n, 4_000);
            let search = Search { filter: Some(&filter), ..Search::nearest(10) };
            for queries in [&set.image_queries, &set.text_queries] {
                let share = recall(&index, &points, queries, &search);
                assert!(share >= 0.95, "one in {n}: {share}");
            }
        }
        index.seal().unwrap();
    }
    let removed: PointSet = (0..4_000).filter(|id| id % 7 == 3).collect();
    let search = Search { filter: Some(&removed), ..Search::nearest(10) };
    assert_eq!(index.search(&set.images[3], &search).unwrap().neighbors, [], "all of them are gone");
}

#[test]
fn copies_of_a_vector_of_which_the_filter_names_one() {
    let mut vectors = uniform(300, 16, 3);
    (0..300).step_by(3).for_each(|i| vectors[i] = vectors[0].clone());
    let index = Index::new(16, sealing(64)).unwrap();
    index.insert_many(&numbered(&vectors)).unwrap();
    index.seal().unwrap();
    let filter: PointSet = [9, 33, 100].into_iter().collect();
    let search = Search { filter: Some(&filter), ..Search::nearest(10) };
    let ids: Vec<u64> =
        index.search(&vectors[0], &search).unwrap().neighbors.iter().map(|n| n.id.0).collect();
    assert_eq!(ids, [9, 33, 100]);
}

#[test]
fn a_scan_index_filters_too_and_bad_efforts_are_refused() {
    let vectors = uniform(500, 8, 4);
    let options = IndexOptions { kind: diptych_index::Kind::Exact, ..IndexOptions::default() };
    let index = Index::new(8, options).unwrap();
    index.insert_many(&numbered(&vectors)).unwrap();
    let (points, filter) = (points_of(&vectors), one_in(10, 500));
    let search = Search { filter: Some(&filter), ..Search::nearest(10) };
    assert_eq!(recall(&index, &points, &vectors[..30], &search), 1.0);
    assert_eq!(plan(&index, &vectors[0], &filter), Plan::Scan);
    let refused = index.search(&vectors[0], &Search { ef: Some(0), ..search });
    assert_eq!(refused, Err(IndexError::Ef { found: 0 }));
}
