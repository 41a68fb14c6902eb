//! Sizes and requests at the edge of what makes sense.

use diptych_core::{Embedding, PointId};
use diptych_index::{Index, IndexError, IndexOptions, Kind};

use crate::data::{always_walk, index_of, uniform};

fn kinds() -> [IndexOptions; 3] {
    [always_walk(), IndexOptions::default(), IndexOptions { kind: Kind::Exact, ..IndexOptions::default() }]
}

#[test]
fn an_index_is_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Index>();
}

#[test]
fn empty_and_single() {
    for options in kinds() {
        let index = Index::new(3, options).unwrap();
        let a = Embedding::new([1.0, 2.0, 2.0]).unwrap();
        assert!(index.is_empty());
        assert_eq!(index.nearest(&a, 1, None).unwrap(), []);
        assert_eq!(index.nearest_exact(&a, 1).unwrap(), []);
        assert_eq!(index.audit(), 0);
        index.insert(PointId(u64::MAX), &a).unwrap();
        for k in [1, 10, 100_000] {
            let found = index.nearest(&a, k, None).unwrap();
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].id, PointId(u64::MAX));
            assert!((found[0].score - 1.0).abs() < 1e-6);
        }
        assert_eq!(index.nearest(&a, 0, None).unwrap(), [], "nothing was asked for");
        assert_eq!((index.len(), index.dim(), index.ids()), (1, 3, vec![PointId(u64::MAX)]));
        let debug = format!("{index:?}");
        assert!(debug.contains("len: 1"), "{debug}");
    }
}

/// In one dimension there are two vectors, so all points share two nodes.
#[test]
fn one_dimension() {
    for options in kinds() {
        let index = Index::new(1, options).unwrap();
        let (plus, minus) = (Embedding::new([5.0]).unwrap(), Embedding::new([-0.1]).unwrap());
        for i in 0..100 {
            index.insert(PointId(i), if i % 2 == 0 { &plus } else { &minus }).unwrap();
        }
        let ids = |query, k| -> Vec<u64> {
            index.nearest(query, k, None).unwrap().iter().map(|n| n.id.0).collect()
        };
        assert_eq!(ids(&plus, 3), [0, 2, 4]);
        assert_eq!(ids(&minus, 3), [1, 3, 5]);
        assert_eq!(ids(&minus, 52)[49..], [99, 0, 2]);
        assert_eq!(ids(&plus, 1_000).len(), 100);
        let opposite = index.nearest(&plus, 100, None).unwrap()[99];
        assert_eq!((opposite.id, opposite.score), (PointId(99), -1.0));
    }
}

#[test]
fn more_asked_for_than_there_is_gives_all() {
    for options in kinds() {
        let vectors = uniform(3_000, 8, 1);
        let index = index_of(&vectors, options);
        for k in [2_999, 3_000, 3_001, 1_000_000] {
            let found = index.nearest(&vectors[0], k, None).unwrap();
            assert_eq!(found.len(), k.min(3_000));
            assert!(found.windows(2).all(|w| w[0].score >= w[1].score));
        }
        assert_eq!(index.nearest(&vectors[0], 500, Some(1)).unwrap().len(), 500, "k raises ef");
    }
}

#[test]
fn the_same_id_twice_is_one_point() {
    for options in kinds() {
        let vectors = uniform(2, 8, 2);
        let index = Index::new(8, options).unwrap();
        index.insert(PointId(1), &vectors[0]).unwrap();
        index.insert(PointId(1), &vectors[1]).unwrap();
        index.insert_many(&[(PointId(1), vectors[1].clone()), (PointId(1), vectors[0].clone())]).unwrap();
        assert_eq!(index.len(), 1);
        assert!((index.nearest(&vectors[0], 5, None).unwrap()[0].score - 1.0).abs() < 1e-6);
    }
}

#[test]
fn the_wrong_dimension_is_refused_with_both_numbers() {
    for options in kinds() {
        let index = Index::new(4, options).unwrap();
        let (right, wrong) = (uniform(1, 4, 3).remove(0), uniform(1, 5, 3).remove(0));
        let refusal = IndexError::WrongDimension { expected: 4, found: 5 };
        assert_eq!(index.insert(PointId(1), &wrong), Err(refusal.clone()));
        let both = [(PointId(1), right), (PointId(2), wrong.clone())];
        assert_eq!(index.insert_many(&both), Err(refusal.clone()));
        assert_eq!(index.nearest(&wrong, 1, None), Err(refusal.clone()));
        assert_eq!(index.nearest_exact(&wrong, 1), Err(refusal.clone()));
        assert!(index.is_empty(), "nothing of a refused batch is inserted");
        let message = refusal.to_string();
        assert!(message.contains('4') && message.contains('5'), "{message}");
    }
}

#[test]
fn options_and_efforts_out_of_bounds_are_refused() {
    let with = |change: fn(&mut IndexOptions)| {
        let mut options = always_walk();
        change(&mut options);
        Index::new(4, options).err()
    };
    assert_eq!(with(|o| o.max_connections = 1), Some(IndexError::Connections { found: 1 }));
    assert_eq!(with(|o| o.max_connections = 257), Some(IndexError::Connections { found: 257 }));
    assert_eq!(with(|o| o.ef_construction = 0), Some(IndexError::EfConstruction { found: 0 }));
    assert_eq!(with(|o| o.ef_construction = 5_000), Some(IndexError::EfConstruction { found: 5_000 }));
    assert_eq!(with(|o| o.expected_points = usize::MAX), None, "a hint, not a demand");
    assert_eq!(Index::new(0, always_walk()).err(), Some(IndexError::Dimensions { dim: 0 }));
    assert_eq!(Index::new(70_000, always_walk()).err(), Some(IndexError::Dimensions { dim: 70_000 }));
    let vectors = uniform(10, 4, 4);
    let index = index_of(&vectors, always_walk());
    for found in [0, 5_000] {
        assert_eq!(index.nearest(&vectors[0], 1, Some(found)), Err(IndexError::Ef { found }));
    }
}

#[test]
fn the_extreme_options_that_are_allowed_work() {
    let vectors = uniform(250, 8, 5);
    for (max_connections, ef_construction) in [(2, 1), (255, 4_096)] {
        let index = index_of(&vectors, IndexOptions { max_connections, ef_construction, ..always_walk() });
        crate::reachability::assert_all_find_themselves(&index, &vectors);
    }
}

#[test]
fn scores_are_inner_products_of_the_stored_vectors() {
    let vectors = uniform(2_000, 77, 6);
    let index = index_of(&vectors, always_walk());
    for query in &vectors[..50] {
        for neighbor in index.nearest(query, 20, None).unwrap() {
            let stored = &vectors[neighbor.id.0 as usize];
            let pairs = query.as_slice().iter().zip(stored.as_slice());
            let expected: f64 = pairs.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
            assert!((f64::from(neighbor.score) - expected).abs() < 1e-6);
        }
    }
}
