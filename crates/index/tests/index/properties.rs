//! Random sequences of operations on an index with files, against a map that is searched by sorting.
//! `model` does the same for the live layer alone.

use std::collections::BTreeSet;
use std::path::Path;

use diptych_core::{Embedding, PointId};
use diptych_index::{Index, IndexError, IndexOptions, PointSet, Search};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::data::{gauss, rng, sealing};
use crate::oracle::{Points, exact};

/// Few ids, those at the ends of the range among them, so that they meet again.
const IDS: [u64; 40] = {
    let mut ids = [0; 40];
    let mut i = 0;
    while i < 20 {
        ids[i] = i as u64;
        ids[39 - i] = u64::MAX - i as u64;
        i += 1;
    }
    ids
};
const VECTORS: usize = 25;

#[derive(Debug, Clone)]
enum Operation {
    Insert(usize, usize),
    InsertMany(Vec<(usize, usize)>),
    InsertAll(Vec<(usize, usize)>),
    Remove(usize),
    Seal,
    Settle,
    Reopen,
    Search { vector: usize, k: usize },
    Filtered { vector: usize, k: usize, ids: Vec<usize> },
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let (id, vector) = (0..IDS.len(), 0..VECTORS);
    let points = |most| proptest::collection::vec((0..IDS.len(), 0..VECTORS), 0..most);
    let one = prop_oneof![
        8 => (id.clone(), vector.clone()).prop_map(|(id, vector)| Operation::Insert(id, vector)),
        2 => points(6).prop_map(Operation::InsertMany),
        1 => points(20).prop_map(Operation::InsertAll),
        3 => id.clone().prop_map(Operation::Remove),
        1 => Just(Operation::Seal),
        1 => Just(Operation::Settle),
        1 => Just(Operation::Reopen),
        3 => (vector.clone(), 0usize..50).prop_map(|(vector, k)| Operation::Search { vector, k }),
        2 => (vector, 1usize..10, proptest::collection::vec(id, 0..20))
            .prop_map(|(vector, k, ids)| Operation::Filtered { vector, k, ids }),
    ];
    proptest::collection::vec(one, 1..60)
}

struct World {
    index: Option<Index>,
    options: IndexOptions,
    vectors: Vec<Embedding>,
    live: Points,
    removed: BTreeSet<PointId>,
    marks: u64,
}

impl World {
    fn open(dir: &Path, dim: usize, options: IndexOptions) -> Self {
        let mut rng = rng(dim as u64);
        // A few vectors are equal but for rounding, and one is there twice.
        let mut vectors: Vec<Embedding> =
            (0..VECTORS).map(|_| Embedding::new(gauss(&mut rng, dim)).unwrap()).collect();
        vectors[1] = vectors[0].clone();
        let nearly = vectors[0].as_slice().iter().map(|v| v * (1.0 + 1e-6));
        vectors[2] = Embedding::new(nearly.collect::<Vec<_>>()).unwrap();
        let index = Some(Index::open(dir, dim, options).unwrap());
        Self { index, options, vectors, live: Points::new(), removed: BTreeSet::new(), marks: 0 }
    }

    fn index(&self) -> &Index {
        self.index.as_ref().unwrap()
    }

    /// Enters points in the model; returns them as the index takes them.
    fn enter(&mut self, points: &[(usize, usize)]) -> Vec<(PointId, Embedding)> {
        let many: Vec<_> =
            points.iter().map(|&(id, v)| (PointId(IDS[id]), self.vectors[v].clone())).collect();
        for (id, vector) in &many {
            if !self.removed.contains(id) {
                self.live.entry(*id).or_insert_with(|| vector.clone());
            }
        }
        many
    }

    /// Scores may differ by rounding, and then so may the order of vectors that nearly are equal.
    fn check(&self, vector: usize, k: usize, filter: Option<&PointSet>) -> Result<(), TestCaseError> {
        let query = &self.vectors[vector];
        let truth = exact(&self.live, query, k, filter);
        let search = Search { k, ef: Some(200), filter };
        let mut answers = vec![self.index().search(query, &search).unwrap().neighbors];
        if filter.is_none() {
            answers.push(self.index().nearest_exact(query, k).unwrap());
        }
        for found in answers {
            prop_assert_eq!(found.len(), truth.len());
            prop_assert!(
                found
                    .windows(2)
                    .all(|w| w[0].score > w[1].score || (w[0].score == w[1].score && w[0].id < w[1].id))
            );
            for (f, t) in found.iter().zip(&truth) {
                prop_assert!((f.score - t.score).abs() < 1e-5, "{:?} instead of {:?}", f, t);
                let own = self.live.get(&f.id).map(|v| v.cosine(query));
                prop_assert!(own.is_some_and(|own| (own - f.score).abs() < 1e-5), "{:?}", f);
                prop_assert!(filter.is_none_or(|filter| filter.contains(f.id.0)));
            }
        }
        Ok(())
    }

    fn reopen(&mut self, dir: &Path) {
        self.marks += 1;
        self.index().checkpoint(self.marks);
        self.index().settle().unwrap();
        let dim = self.index().dim();
        self.index = None;
        self.index = Some(Index::open(dir, dim, self.options).unwrap());
        assert_eq!(self.index().mark(), self.marks);
        // The journal is done again: what was removed and is in no segment any more comes back else.
        self.removed.iter().for_each(|&id| {
            self.index().remove(id);
        });
    }

    fn apply(&mut self, dir: &Path, operation: &Operation) -> Result<(), TestCaseError> {
        match operation {
            &Operation::Insert(id, vector) => {
                let point = self.enter(&[(id, vector)]).remove(0);
                self.index().insert(point.0, &point.1).unwrap();
            }
            Operation::InsertMany(points) => {
                let many = self.enter(points);
                self.index().insert_many(&many).unwrap();
            }
            Operation::InsertAll(points) => {
                let many = self.enter(points);
                let all = many.iter().map(|(id, e)| Ok::<_, IndexError>((*id, e)));
                self.index().insert_all(all).unwrap();
            }
            &Operation::Remove(id) => {
                let id = PointId(IDS[id]);
                self.removed.insert(id);
                prop_assert_eq!(self.index().remove(id), self.live.remove(&id).is_some());
            }
            Operation::Seal => self.index().seal().unwrap(),
            Operation::Settle => self.index().settle().unwrap(),
            Operation::Reopen => self.reopen(dir),
            &Operation::Search { vector, k } => self.check(vector, k, None)?,
            Operation::Filtered { vector, k, ids } => {
                self.check(*vector, *k, Some(&ids.iter().map(|&id| IDS[id]).collect()))?;
            }
        }
        prop_assert_eq!(self.index().len(), self.live.len());
        prop_assert_eq!(self.index().is_empty(), self.live.is_empty());
        prop_assert_eq!(self.index().ids(), self.live.keys().copied().collect::<Vec<_>>());
        Ok(())
    }
}

fn run(dim: usize, operations: &[Operation]) -> Result<(), TestCaseError> {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::open(dir.path(), dim, sealing(8));
    for operation in operations {
        world.apply(dir.path(), operation)?;
    }
    world.index().seal().unwrap();
    for vector in 0..VECTORS {
        world.check(vector, 7, None)?;
    }
    crate::oracle::assert_all_find_themselves(world.index(), &world.live);
    for id in IDS.map(PointId) {
        let known = world.live.contains_key(&id) || world.removed.contains(&id);
        prop_assert_eq!(world.index().knows(id), known);
    }
    world.reopen(dir.path());
    prop_assert_eq!(world.index().ids(), world.live.keys().copied().collect::<Vec<_>>());
    world.index().check_vectors().unwrap();
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, rng_seed: RngSeed::Fixed(11), ..ProptestConfig::default() })]

    #[test]
    fn one_dimension_behaves_like_the_model(operations in operations()) {
        run(1, &operations)?;
    }

    #[test]
    fn two_dimensions_behave_like_the_model(operations in operations()) {
        run(2, &operations)?;
    }

    #[test]
    fn three_dimensions_behave_like_the_model(operations in operations()) {
        run(3, &operations)?;
    }

    #[test]
    fn seventeen_dimensions_behave_like_the_model(operations in operations()) {
        run(17, &operations)?;
    }
}

#[test]
fn an_index_of_nothing_does_everything_with_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let query = Embedding::new([0.6, 0.8]).unwrap();
    let index = Index::open(dir.path(), 2, sealing(8)).unwrap();
    index.seal().unwrap();
    index.flush().unwrap();
    index.learn_queries(std::slice::from_ref(&query)).unwrap();
    index.note_query(&query).unwrap();
    index.insert_many(&[]).unwrap();
    index.insert_all(std::iter::empty::<Result<(PointId, Embedding), IndexError>>()).unwrap();
    index.check_vectors().unwrap();
    index.checkpoint(3);
    index.settle().unwrap();
    assert_eq!((index.len(), index.mark(), index.stats().segments.len()), (0, 3, 0));
    assert_eq!(index.nearest(&query, 5, None).unwrap(), []);
    drop(index);
    let index = Index::open(dir.path(), 2, sealing(8)).unwrap();
    assert_eq!((index.len(), index.mark()), (0, 3));
}

#[test]
fn a_single_point_is_sealed_and_found_at_either_end_of_the_ids() {
    for id in [0, 1, u64::MAX].map(PointId) {
        let dir = tempfile::tempdir().unwrap();
        let vector = Embedding::new([1.0, -2.0, 2.0]).unwrap();
        let index = Index::open(dir.path(), 3, sealing(8)).unwrap();
        index.insert(id, &vector).unwrap();
        index.seal().unwrap();
        assert_eq!(index.stats().segments, [1]);
        drop(index);
        let index = Index::open(dir.path(), 3, sealing(8)).unwrap();
        for k in [1, 2, 4_096, usize::MAX] {
            let found = index.nearest(&vector, k, None).unwrap();
            assert_eq!((found.len(), found[0].id), (1, id));
        }
        assert!(index.remove(id) && !index.remove(id));
        index.seal().unwrap();
        assert!(index.is_empty() && index.knows(id));
    }
}

#[test]
fn identical_vectors_are_sealed_together_and_all_of_them_found() {
    let vector = Embedding::new([0.1, 0.2, 0.3, 0.4]).unwrap();
    let index = Index::new(4, sealing(50)).unwrap();
    for id in 0..500 {
        index.insert(PointId(id), &vector).unwrap();
    }
    index.seal().unwrap();
    for k in [1, 10, 500, 1_000] {
        let found = index.nearest(&vector, k, None).unwrap();
        let ids: Vec<u64> = found.iter().map(|n| n.id.0).collect();
        assert_eq!(ids, (0..k.min(500) as u64).collect::<Vec<_>>());
    }
}
