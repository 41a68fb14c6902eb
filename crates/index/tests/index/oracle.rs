//! The truth, computed without the index: every vector compared with the query, and sorted.

use std::collections::BTreeMap;

use diptych_core::{Embedding, PointId};
use diptych_index::{Index, Neighbor, PointSet, Search};

/// Points by id, as the index should hold them.
pub type Points = BTreeMap<PointId, Embedding>;

pub fn points_of(vectors: &[Embedding]) -> Points {
    crate::data::numbered(vectors).into_iter().collect()
}

/// The `k` best of the points that a filter names, best first, equal scores by id.
pub fn exact(points: &Points, query: &Embedding, k: usize, filter: Option<&PointSet>) -> Vec<Neighbor> {
    let counted = points.iter().filter(|(id, _)| filter.is_none_or(|filter| filter.contains(id.0)));
    let mut all: Vec<Neighbor> =
        counted.map(|(&id, vector)| Neighbor { id, score: query.cosine(vector) }).collect();
    all.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.id.cmp(&b.id)));
    all.truncate(k);
    all
}

/// Mean share of the true `k` best that the index finds among the points of a filter; each answer has
/// as many points as there are, each with its own score, and none that does not count.
pub fn recall(index: &Index, points: &Points, queries: &[Embedding], search: &Search<'_>) -> f64 {
    let (mut hits, mut wanted) = (0, 0);
    for query in queries {
        let truth = exact(points, query, search.k, search.filter);
        let found = index.search(query, search).unwrap().neighbors;
        assert_eq!(found.len(), truth.len());
        for neighbor in &found {
            let vector = points.get(&neighbor.id).expect("only points that live");
            assert!((neighbor.score - query.cosine(vector)).abs() < 1e-5);
            assert!(search.filter.is_none_or(|filter| filter.contains(neighbor.id.0)));
        }
        hits += truth.iter().filter(|t| found.iter().any(|f| f.id == t.id)).count();
        wanted += truth.len();
    }
    hits as f64 / wanted.max(1) as f64
}

/// Each point is its own nearest, or shares its vector with it.
pub fn assert_all_find_themselves(index: &Index, points: &Points) {
    for (id, vector) in points {
        let first = index.nearest(vector, 1, None).unwrap();
        assert!(first.first().is_some_and(|n| n.score >= 1.0 - 1e-5), "{id:?} finds {first:?}");
    }
}
