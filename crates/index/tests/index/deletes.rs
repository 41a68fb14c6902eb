//! What was removed is never seen again, and what is left is still found.

use diptych_core::PointId;
use diptych_index::{Index, IndexOptions};

use crate::data::{always_walk, clip_like, index_of, uniform};
use crate::recall::recall_at_k;

#[test]
fn removed_points_are_never_returned() {
    let set = clip_like(3_000, 48, 60, 1);
    let index = index_of(&set.images, always_walk());
    for i in 0..3_000 {
        if i % 3 == 0 {
            assert!(index.remove(PointId(i)));
            assert!(!index.remove(PointId(i)), "only once");
        }
    }
    for query in set.image_queries.iter().chain(&set.text_queries) {
        for k in [1, 10, 100] {
            let found = index.nearest(query, k, None).unwrap();
            assert_eq!(found.len(), k);
            assert!(found.iter().all(|n| n.id.0 % 3 != 0));
        }
    }
    assert_eq!(index.tombstones(), 1_000);
    assert!(recall_at_k(&index, &set.image_queries, 10, None) >= 0.95);
    assert!(recall_at_k(&index, &set.text_queries, 10, None) >= 0.95);
}

/// Everything near the query is gone, so the first candidate list holds dead vectors only.
#[test]
fn a_removed_neighbourhood_hides_nothing_behind_it() {
    let vectors = uniform(3_000, 24, 2);
    let index = index_of(&vectors, always_walk());
    let query = &vectors[0];
    for neighbor in index.nearest_exact(query, 1_000).unwrap() {
        index.remove(neighbor.id);
    }
    let exact = index.nearest_exact(query, 10).unwrap();
    assert_eq!(exact.len(), 10);
    assert_eq!(index.nearest(query, 10, Some(10)).unwrap().len(), 10);
    let shared = index.nearest(query, 10, None).unwrap().iter().filter(|n| exact.contains(n)).count();
    assert!(shared >= 8, "{shared} of 10");
}

#[test]
fn nearly_everything_removed() {
    let vectors = uniform(2_000, 16, 3);
    let index = index_of(&vectors, always_walk());
    for i in 5..2_000 {
        index.remove(PointId(i));
    }
    let found = index.nearest(&vectors[1_000], 10, None).unwrap();
    assert_eq!(found, index.nearest_exact(&vectors[1_000], 10).unwrap());
    assert_eq!(found.len(), 5);
    for i in 0..5 {
        index.remove(PointId(i));
    }
    assert!(index.is_empty());
    assert_eq!(index.nearest(&vectors[0], 10, None).unwrap(), []);
    assert_eq!(index.tombstones(), 2_000);
}

#[test]
fn a_removal_may_overtake_its_insert() {
    for options in [always_walk(), IndexOptions { kind: diptych_index::Kind::Exact, ..always_walk() }] {
        let vectors = uniform(3, 8, 4);
        let index = Index::new(8, options).unwrap();
        assert!(!index.remove(PointId(1)), "never seen");
        index.insert(PointId(1), &vectors[1]).unwrap();
        index.insert_many(&crate::data::numbered(&vectors)).unwrap();
        assert_eq!(index.ids(), [PointId(0), PointId(2)]);
        assert_eq!(index.nearest(&vectors[1], 9, None).unwrap().len(), 2);
    }
}

/// A record is written again with the same image: its new point takes the old one's node.
#[test]
fn a_vector_that_comes_back_with_a_new_id_leaves_no_tombstone() {
    let vectors = uniform(500, 16, 5);
    let index = index_of(&vectors, always_walk());
    for (i, vector) in vectors.iter().enumerate() {
        let (old, new) = (PointId(i as u64), PointId(1_000 + i as u64));
        assert!(index.remove(old));
        index.insert(new, vector).unwrap();
        assert_eq!(index.nearest(vector, 1, None).unwrap()[0].id, new);
    }
    assert_eq!((index.len(), index.tombstones()), (500, 0));
}
