//! Every live point finds itself. A graph can lose points: a vector farther from its neighbours than
//! all of theirs is dropped by every one of them.

use std::collections::HashMap;

use diptych_core::{Embedding, PointId};
use diptych_index::Index;

use crate::data::{always_walk, clip_like, gauss, index_of, numbered, rng, uniform, with_duplicates};

/// Each live point is its own nearest, or an exact copy of it is; all its copies come when asked for.
pub fn assert_all_find_themselves(index: &Index, vectors: &[Embedding]) {
    let mut copies: HashMap<Vec<u32>, Vec<PointId>> = HashMap::new();
    for id in index.ids() {
        let bits = vectors[id.0 as usize].as_slice().iter().map(|v| v.to_bits()).collect();
        copies.entry(bits).or_default().push(id);
    }
    for ids in copies.values() {
        let vector = &vectors[ids[0].0 as usize];
        let first = index.nearest(vector, 1, None).unwrap();
        assert!(first[0].score >= 1.0 - 1e-5, "{:?} finds {first:?}", ids[0]);
        let all = index.nearest(vector, ids.len(), None).unwrap();
        let mut found: Vec<PointId> = all.iter().map(|n| n.id).collect();
        found.sort_unstable();
        assert_eq!(&found, ids, "the copies of one vector");
    }
}

#[test]
fn uniform_vectors() {
    let vectors = uniform(2_500, 48, 1);
    assert_all_find_themselves(&index_of(&vectors, always_walk()), &vectors);
}

#[test]
fn clustered_vectors() {
    let vectors = clip_like(4_000, 64, 0, 2).images;
    assert_all_find_themselves(&index_of(&vectors, always_walk()), &vectors);
}

/// Tight clusters far apart, with few connections: the worst case for a greedy descent.
#[test]
fn islands_and_outliers() {
    let mut rng = rng(3);
    let centres = uniform(40, 24, 4);
    let mut vectors: Vec<Embedding> = (0..4_000)
        .map(|i| {
            let noise = gauss(&mut rng, 24);
            let centre = centres[i % centres.len()].as_slice();
            Embedding::new(centre.iter().zip(noise).map(|(c, g)| c + 0.01 * g).collect::<Vec<_>>()).unwrap()
        })
        .collect();
    vectors.extend(uniform(200, 24, 5));
    let options = diptych_index::IndexOptions { max_connections: 4, ef_construction: 20, ..always_walk() };
    let index = index_of(&vectors, options);
    eprintln!("{} of {} set aside", index.stragglers(), index.len());
    assert_all_find_themselves(&index, &vectors);
}

#[test]
fn a_third_of_the_vectors_are_duplicates() {
    let vectors = with_duplicates(clip_like(4_000, 48, 0, 6).images, 0.3, 7);
    let index = index_of(&vectors, always_walk());
    assert_all_find_themselves(&index, &vectors);
    // Duplicates must not crowd out the neighbours of others either.
    let queries = clip_like(4_000, 48, 100, 6).image_queries;
    assert!(crate::recall::recall_at_k(&index, &queries, 10, None) >= 0.95);
}

/// One standard sentence in every third report.
#[test]
fn one_vector_a_thousand_times() {
    let mut vectors = uniform(2_000, 32, 8);
    for i in (0..vectors.len()).step_by(2) {
        vectors[i] = vectors[0].clone();
    }
    let index = index_of(&vectors, always_walk());
    assert_all_find_themselves(&index, &vectors);
    let first: Vec<u64> = index.nearest(&vectors[0], 10, None).unwrap().iter().map(|n| n.id.0).collect();
    assert_eq!(first, [0, 2, 4, 6, 8, 10, 12, 14, 16, 18], "equal scores come in id order");
}

/// The same text encoded in different batches: equal but for rounding, so no two share a node.
#[test]
fn one_vector_a_thousand_times_but_for_rounding() {
    let mut vectors = uniform(3_000, 32, 9);
    let mut rng = rng(10);
    for i in (0..vectors.len()).step_by(3) {
        let noise = gauss(&mut rng, 32);
        let values: Vec<f32> = vectors[0].as_slice().iter().zip(noise).map(|(v, g)| v + 1e-7 * g).collect();
        vectors[i] = Embedding::new(values).unwrap();
    }
    let index = index_of(&vectors, always_walk());
    eprintln!("{} of {} set aside", index.stragglers(), index.len());
    for id in index.ids() {
        let first = index.nearest(&vectors[id.0 as usize], 1, None).unwrap()[0];
        assert!(first.score >= 1.0 - 1e-5, "{id:?} finds {first:?}");
    }
}

#[test]
fn after_a_third_was_deleted() {
    let vectors = with_duplicates(clip_like(4_000, 48, 0, 11).images, 0.1, 12);
    let index = index_of(&vectors, always_walk());
    for i in (0..vectors.len()).filter(|i| i % 10 < 3) {
        assert!(index.remove(PointId(i as u64)));
    }
    assert_eq!(index.len(), 2_800);
    assert_all_find_themselves(&index, &vectors);
}

#[test]
fn each_is_found_right_after_its_insert_and_all_after_an_audit() {
    let vectors = clip_like(2_000, 32, 0, 13).images;
    let options = diptych_index::IndexOptions { max_connections: 4, ef_construction: 16, ..always_walk() };
    let index = Index::new(32, options).unwrap();
    for (id, embedding) in numbered(&vectors) {
        index.insert(id, &embedding).unwrap();
        assert_eq!(index.nearest(&embedding, 1, None).unwrap()[0].id, id);
    }
    let aside = index.audit();
    assert_eq!(aside, index.stragglers());
    assert_all_find_themselves(&index, &vectors);
}
