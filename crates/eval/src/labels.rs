//! What shared labels say of an order of the gallery.
//!
//! Owns: nDCG with the Jaccard similarity of label sets as gain, and precision among the nearest,
//! each with its chance. The query's own partner is in the gallery and counts like any other item.

use crate::Metric;
use crate::bootstrap::{Bootstrap, dense};
use crate::scores::nearest;

/// Depths at which the nearest items' labels are counted.
pub const LABEL_DEPTHS: [usize; 3] = [1, 5, 10];
/// Depth of nDCG.
pub const NDCG_DEPTH: usize = 10;

/// nDCG, exact precision at three depths, precision of any label at three depths.
const VALUES: usize = 1 + 2 * LABEL_DEPTHS.len();

/// How far the labels of the nearest items are those of the query. A gallery smaller than a depth is
/// looked at whole.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LabelReport {
    /// nDCG at [`NDCG_DEPTH`]: the gain of an item is the Jaccard similarity of its label set and the
    /// query's, discounted by `log2(rank + 1)`; the ideal order is that of the gallery by gain
    /// (Järvelin and Kekäläinen, 2002).
    pub ndcg: Metric,
    /// Share of the nearest whose label set is exactly the query's, at [`LABEL_DEPTHS`].
    pub exact: [Metric; LABEL_DEPTHS.len()],
    /// Share of the nearest that have at least one of the query's labels, or none as the query has
    /// none, at [`LABEL_DEPTHS`].
    pub any: [Metric; LABEL_DEPTHS.len()],
    /// Queries counted: those whose labels occur in the gallery.
    pub queries: usize,
}

/// The label sets of one direction.
pub(crate) struct Labelled<'a> {
    sets: &'a [Vec<u32>],
    queries: Vec<u32>,
    items: Vec<u32>,
    /// Per set, its items in the gallery.
    counts: Vec<usize>,
}

/// One query's values and what chance gives, in the order of [`VALUES`].
pub(crate) type LabelRow = ([f64; VALUES], [f64; VALUES]);

impl<'a> Labelled<'a> {
    /// Queries and items, each by the number of its label set in `sets`.
    pub fn new(sets: &'a [Vec<u32>], queries: Vec<u32>, items: Vec<u32>) -> Self {
        let mut counts = vec![0; sets.len()];
        items.iter().for_each(|&set| counts[set as usize] += 1);
        Self { sets, queries, items, counts }
    }

    /// What the scores of one query give; `None` when no item shares a label with it. Among equal
    /// scores the item of smaller gain counts as nearer.
    pub fn row(&self, query: usize, scores: &[f32]) -> Option<LabelRow> {
        let own = self.queries[query] as usize;
        let gains: Vec<f64> = self.sets.iter().map(|set| jaccard(&self.sets[own], set)).collect();
        let depth = NDCG_DEPTH.min(scores.len());
        let ideal = self.ideal(&gains, depth);
        if ideal == 0.0 {
            return None;
        }
        let gain = |item: u32| gains[self.items[item as usize] as usize];
        let nearest = nearest(scores, depth, |item| gain(item) as f32);
        let (mut values, mut chances) = ([0.0; VALUES], [0.0; VALUES]);
        values[0] = dcg(nearest.iter().map(|&item| gain(item))) / ideal;
        let share = |of_set: &dyn Fn(usize) -> f64| {
            (0..self.sets.len()).map(|set| of_set(set) * self.counts[set] as f64).sum::<f64>()
                / scores.len() as f64
        };
        chances[0] = share(&|set| gains[set]) * dcg((0..depth).map(|_| 1.0)) / ideal;
        let exact_chance = self.counts[own] as f64 / scores.len() as f64;
        let any_chance = share(&|set| f64::from(u8::from(gains[set] > 0.0)));
        for (n, &depth) in LABEL_DEPTHS.iter().enumerate() {
            let nearest = &nearest[..depth.min(scores.len())];
            let mean = |right: &dyn Fn(u32) -> bool| {
                nearest.iter().filter(|&&item| right(item)).count() as f64 / nearest.len() as f64
            };
            values[1 + n] = mean(&|item| self.items[item as usize] as usize == own);
            values[1 + LABEL_DEPTHS.len() + n] = mean(&|item| gain(item) > 0.0);
            chances[1 + n] = exact_chance;
            chances[1 + LABEL_DEPTHS.len() + n] = any_chance;
        }
        Some((values, chances))
    }

    /// The discounted gain of the best order.
    fn ideal(&self, gains: &[f64], depth: usize) -> f64 {
        let mut best: Vec<(f64, usize)> = gains.iter().copied().zip(self.counts.iter().copied()).collect();
        best.retain(|&(gain, count)| gain > 0.0 && count > 0);
        best.sort_by(|a, b| b.0.total_cmp(&a.0));
        dcg(best.into_iter().flat_map(|(gain, count)| std::iter::repeat_n(gain, count)).take(depth))
    }
}

/// Means over the queries that have a row, each with the cluster of its query. `None` without any.
pub(crate) fn report(rows: &[(u32, LabelRow)], bootstrap: &Bootstrap) -> Option<LabelReport> {
    if rows.is_empty() {
        return None;
    }
    let (clusters, count) = dense(rows.iter().map(|row| row.0));
    let values: Vec<(u32, [f64; VALUES])> =
        clusters.into_iter().zip(rows).map(|(cluster, row)| (cluster, row.1.0)).collect();
    let intervals = bootstrap.means(count, &values);
    let mean = |of: &dyn Fn(&LabelRow) -> f64| rows.iter().map(|r| of(&r.1)).sum::<f64>() / rows.len() as f64;
    let metric = |n: usize| Metric {
        value: mean(&|row| row.0[n]),
        chance: mean(&|row| row.1[n]),
        interval: intervals[n],
    };
    Some(LabelReport {
        ndcg: metric(0),
        exact: std::array::from_fn(|n| metric(1 + n)),
        any: std::array::from_fn(|n| metric(1 + LABEL_DEPTHS.len() + n)),
        queries: rows.len(),
    })
}

/// Discounted cumulative gain of items in rank order.
pub(crate) fn dcg(gains: impl Iterator<Item = f64>) -> f64 {
    gains.zip(2..).map(|(gain, place)| gain / f64::from(place).log2()).sum()
}

/// Size of the intersection over size of the union of two sorted sets; 1 for two empty ones.
pub(crate) fn jaccard(a: &[u32], b: &[u32]) -> f64 {
    let shared = a.iter().filter(|label| b.binary_search(label).is_ok()).count();
    let union = a.len() + b.len() - shared;
    if union == 0 { 1.0 } else { shared as f64 / union as f64 }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn jaccard_is_the_shared_part_of_the_union() {
        assert_eq!(jaccard(&[1, 2, 3], &[2, 3, 4]), 0.5);
        assert_eq!((jaccard(&[], &[]), jaccard(&[], &[1]), jaccard(&[7], &[7])), (1.0, 0.0, 1.0));
    }

    #[test]
    fn values_are_those_worked_out_by_hand() {
        // Sets: {1, 2}, {1}, {3}. The query has {1, 2}; the gallery has one, two and one of them.
        let sets = [vec![1, 2], vec![1], vec![3]];
        let labelled = Labelled::new(&sets, vec![0], vec![1, 0, 2, 1]);
        // Order by score: items 2, 0, 1, 3 of gains 0, 1/2, 1, 1/2.
        let (values, chances) = labelled.row(0, &[0.8, 0.7, 0.9, 0.1]).unwrap();
        let discount = |rank: f64| 1.0 / (rank + 1.0).log2();
        let ideal = 1.0 + 0.5 * discount(2.0) + 0.5 * discount(3.0);
        let found = 0.5 * discount(2.0) + discount(3.0) + 0.5 * discount(4.0);
        assert!((values[0] - found / ideal).abs() < 1e-12);
        let whole = 1.0 + discount(2.0) + discount(3.0) + discount(4.0);
        assert!((chances[0] - 0.5 * whole / ideal).abs() < 1e-12);
        // The nearest one, then all four, as the gallery has no more.
        assert_eq!(values[1..], [0.0, 0.25, 0.25, 0.0, 0.75, 0.75]);
        assert_eq!(chances[1..], [0.25, 0.25, 0.25, 0.75, 0.75, 0.75]);
    }

    #[test]
    fn ties_count_against_and_strangers_are_left_out() {
        let sets = [vec![1], vec![2], vec![3]];
        let labelled = Labelled::new(&sets, vec![0, 2], vec![0, 1]);
        let (values, _) = labelled.row(0, &[0.5, 0.5]).unwrap();
        assert_eq!((values[1], values[2]), (0.0, 0.5));
        assert!(labelled.row(1, &[0.5, 0.5]).is_none());
    }
}
