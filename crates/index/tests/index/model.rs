//! Random sequences of operations against a map that is searched by sorting.

use std::collections::{BTreeMap, BTreeSet};

use diptych_core::{Embedding, PointId};
use diptych_index::{Index, IndexOptions, Kind, Neighbor};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::data::{always_walk, uniform};

#[derive(Debug, Clone)]
enum Operation {
    Insert { id: u64, vector: usize },
    InsertMany(Vec<(u64, usize)>),
    Remove { id: u64 },
    Search { vector: usize, k: usize },
    Audit,
}

/// Few ids and few vectors, so that they meet again.
fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let id = 0u64..60;
    let vector = 0usize..30;
    let one = prop_oneof![
        6 => (id.clone(), vector.clone()).prop_map(|(id, vector)| Operation::Insert { id, vector }),
        1 => proptest::collection::vec((id.clone(), vector.clone()), 0..20).prop_map(Operation::InsertMany),
        3 => id.prop_map(|id| Operation::Remove { id }),
        4 => (vector, 0usize..40).prop_map(|(vector, k)| Operation::Search { vector, k }),
        1 => Just(Operation::Audit),
    ];
    proptest::collection::vec(one, 1..80)
}

#[derive(Default)]
struct Model {
    live: BTreeMap<PointId, usize>,
    removed: BTreeSet<PointId>,
}

impl Model {
    fn insert(&mut self, id: u64, vector: usize) {
        let id = PointId(id);
        if !self.removed.contains(&id) {
            self.live.entry(id).or_insert(vector);
        }
    }

    fn remove(&mut self, id: u64) -> bool {
        self.removed.insert(PointId(id));
        self.live.remove(&PointId(id)).is_some()
    }

    fn nearest(&self, vectors: &[Embedding], query: usize, k: usize) -> Vec<Neighbor> {
        let score = |vector: usize| vectors[query].cosine(&vectors[vector]);
        let mut all: Vec<Neighbor> =
            self.live.iter().map(|(&id, &vector)| Neighbor { id, score: score(vector) }).collect();
        all.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.id.cmp(&b.id)));
        all.truncate(k);
        all
    }
}

fn run(options: IndexOptions, operations: &[Operation]) -> Result<(), TestCaseError> {
    let vectors = uniform(30, 6, 99);
    let index = Index::new(6, options).unwrap();
    let mut model = Model::default();
    for operation in operations {
        match operation {
            &Operation::Insert { id, vector } => {
                index.insert(PointId(id), &vectors[vector]).unwrap();
                model.insert(id, vector);
            }
            Operation::InsertMany(points) => {
                let many: Vec<_> = points.iter().map(|&(id, v)| (PointId(id), vectors[v].clone())).collect();
                index.insert_many(&many).unwrap();
                points.iter().for_each(|&(id, vector)| model.insert(id, vector));
            }
            &Operation::Remove { id } => prop_assert_eq!(index.remove(PointId(id)), model.remove(id)),
            // A graph with so few links is approximate even here; what it promises holds all the same.
            &Operation::Search { vector, k } if options.max_connections < 16 => {
                index.audit();
                let found = index.nearest(&vectors[vector], k, None).unwrap();
                let expected = model.nearest(&vectors, vector, k);
                prop_assert_eq!(found.len(), expected.len());
                let all = model.nearest(&vectors, vector, usize::MAX);
                let places: Vec<_> =
                    found.iter().map(|f| all.iter().position(|n| n.id == f.id).expect("live")).collect();
                prop_assert!(places.is_sorted(), "{:?}", places);
                let itself = expected.iter().take_while(|n| n.score >= 1.0 - 1e-5).count();
                prop_assert_eq!(&places[..itself], &(0..itself).collect::<Vec<_>>()[..]);
            }
            &Operation::Search { vector, k } => {
                let expected = model.nearest(&vectors, vector, k);
                for found in [
                    index.nearest(&vectors[vector], k, None).unwrap(),
                    index.nearest_exact(&vectors[vector], k).unwrap(),
                ] {
                    let ids = |list: &[Neighbor]| list.iter().map(|n| n.id).collect::<Vec<_>>();
                    prop_assert_eq!(ids(&found), ids(&expected));
                    for (f, e) in found.iter().zip(&expected) {
                        prop_assert!((f.score - e.score).abs() < 1e-5);
                    }
                }
            }
            Operation::Audit => prop_assert!(index.audit() <= model.live.len()),
        }
        prop_assert_eq!(index.len(), model.live.len());
        prop_assert_eq!(index.is_empty(), model.live.is_empty());
    }
    prop_assert_eq!(index.ids(), model.live.keys().copied().collect::<Vec<_>>());
    let used: BTreeSet<usize> = model.live.values().copied().collect();
    if options.kind == Kind::Graph {
        prop_assert!(index.tombstones() + used.len() <= vectors.len(), "one node per distinct vector");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, rng_seed: RngSeed::Fixed(7), ..ProptestConfig::default() })]

    #[test]
    fn a_graph_behaves_like_the_model(operations in operations()) {
        run(always_walk(), &operations)?;
    }

    #[test]
    fn a_sparse_graph_behaves_like_the_model(operations in operations()) {
        run(IndexOptions { max_connections: 2, ef_construction: 2, ..always_walk() }, &operations)?;
    }

    #[test]
    fn a_scan_behaves_like_the_model(operations in operations()) {
        run(IndexOptions { kind: Kind::Exact, ..IndexOptions::default() }, &operations)?;
    }
}
