//! How much of the truth a search finds at its default effort.

use diptych_core::Embedding;
use diptych_index::{Index, IndexOptions, Kind};

use crate::data::{always_walk, clip_like, index_of, uniform};

/// Mean share of the exact top `k` that a search returns.
pub fn recall_at_k(index: &Index, queries: &[Embedding], k: usize, ef: Option<usize>) -> f64 {
    let found: usize = queries
        .iter()
        .map(|query| {
            let exact = index.nearest_exact(query, k).unwrap();
            let walked = index.nearest(query, k, ef).unwrap();
            assert_eq!(walked.len(), exact.len());
            walked.iter().filter(|n| exact.contains(n)).count()
        })
        .sum();
    found as f64 / (queries.len() * k) as f64
}

#[test]
fn recall_at_10_is_at_least_95_percent_in_both_directions() {
    let set = clip_like(5_000, 64, 200, 1);
    let index = index_of(&set.images, always_walk());
    let image = recall_at_k(&index, &set.image_queries, 10, None);
    let text = recall_at_k(&index, &set.text_queries, 10, None);
    eprintln!("recall@10: image queries {image:.4}, text queries {text:.4}");
    assert!(image >= 0.95, "image queries: {image}");
    assert!(text >= 0.95, "text queries: {text}");
}

#[test]
fn recall_holds_for_points_inserted_one_by_one() {
    let set = clip_like(3_000, 48, 100, 2);
    let index = Index::new(48, always_walk()).unwrap();
    for (id, embedding) in crate::data::numbered(&set.images) {
        index.insert(id, &embedding).unwrap();
    }
    for queries in [&set.image_queries, &set.text_queries] {
        let recall = recall_at_k(&index, queries, 10, None);
        assert!(recall >= 0.95, "{recall}");
    }
}

#[test]
fn more_effort_finds_more() {
    let set = clip_like(5_000, 64, 100, 3);
    let index = index_of(&set.images, always_walk());
    let at = |ef| recall_at_k(&index, &set.text_queries, 10, Some(ef));
    let (little, much) = (at(10), at(1_000));
    assert!(little < much, "{little} at 10, {much} at 1000");
    assert!(much >= 0.995, "{much}");
}

#[test]
fn small_sets_are_answered_exactly() {
    let set = clip_like(1_000, 32, 50, 4);
    let index = index_of(&set.images, IndexOptions::default());
    for query in set.image_queries.iter().chain(&set.text_queries) {
        assert_eq!(index.nearest(query, 20, None).unwrap(), index.nearest_exact(query, 20).unwrap());
    }
}

#[test]
fn the_oracle_agrees_with_sorting_in_f64() {
    // Large enough that the scan is shared out to threads.
    let vectors = uniform(9_000, 130, 5);
    let options = IndexOptions { kind: Kind::Exact, ..IndexOptions::default() };
    let index = index_of(&vectors, options);
    for query in &vectors[..20] {
        let mut all: Vec<(f64, u64)> = vectors
            .iter()
            .enumerate()
            .map(|(i, v)| {
                let pairs = query.as_slice().iter().zip(v.as_slice());
                (pairs.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum(), i as u64)
            })
            .collect();
        all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let found = index.nearest_exact(query, 50).unwrap();
        for (neighbor, (score, _)) in found.iter().zip(&all) {
            assert!((f64::from(neighbor.score) - score).abs() < 1e-5);
        }
        let same = found.iter().zip(&all).filter(|(n, (_, id))| n.id.0 == *id).count();
        assert!(same >= 48, "only ties within rounding may change places: {same} of 50 agree");
        assert_eq!(found, index.nearest(query, 50, Some(1)).unwrap(), "an exact index always scans");
    }
}
