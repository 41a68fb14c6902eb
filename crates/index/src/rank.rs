//! The order of answers: best score first, equal scores by id.
//!
//! Owns: what a neighbour is and a list that keeps the best `k` of any number. Deliberately absent:
//! where the scores come from.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use diptych_core::PointId;

use crate::nodes::Node;
use crate::search::PointSet;

/// A point near a query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbor {
    /// Which point.
    pub id: PointId,
    /// Cosine similarity with the query, in `[-1, 1]` up to rounding; computed from the stored
    /// vector, never from a code or a distance.
    pub score: f32,
}

/// A neighbour ordered for ranking: less is better.
#[derive(Debug, Clone, Copy)]
struct Ranked(Neighbor);

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        other.0.score.total_cmp(&self.0.score).then(self.0.id.cmp(&other.0.id))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Ranked {}

/// The best `k` of the neighbours offered; each point is to be offered once.
#[derive(Debug)]
pub(crate) struct Best {
    k: usize,
    // The worst kept is on top.
    heap: BinaryHeap<Ranked>,
}

impl Best {
    /// An empty list of at most `k`.
    pub(crate) fn new(k: usize) -> Self {
        Self { k, heap: BinaryHeap::new() }
    }

    /// Neighbours kept so far.
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether a neighbour of this score may be kept.
    pub(crate) fn takes(&self, score: f32) -> bool {
        self.heap.len() < self.k || self.heap.peek().is_some_and(|worst| score >= worst.0.score)
    }

    /// Offers all live points of a node that a filter names. Points of one node share its score, so their id order is
    /// their rank order, and the first refused one ends the node.
    pub(crate) fn offer_node(&mut self, node: &Node, score: f32, filter: Option<&PointSet>) {
        if self.takes(score) {
            let counts = |id: PointId| filter.is_none_or(|filter| filter.contains(id.0));
            node.for_each_id(|id| !counts(id) || self.offer(Neighbor { id, score }));
        }
    }

    /// Offers one point; returns whether it was kept.
    pub(crate) fn offer(&mut self, neighbor: Neighbor) -> bool {
        let offered = Ranked(neighbor);
        if self.heap.len() < self.k {
            self.heap.push(offered);
            return true;
        }
        match self.heap.peek_mut() {
            Some(mut worst) if offered < *worst => {
                *worst = offered;
                true
            }
            _ => false,
        }
    }

    /// The best of two lists of the same `k`.
    pub(crate) fn merge(mut self, other: Self) -> Self {
        for ranked in other.heap {
            self.offer(ranked.0);
        }
        self
    }

    /// The neighbours, best first.
    pub(crate) fn into_sorted(self) -> Vec<Neighbor> {
        self.heap.into_sorted_vec().into_iter().map(|ranked| ranked.0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keeps_the_same_as_sorting_everything(
            scores in proptest::collection::vec(-3i8..4, 0..60),
            k in 0usize..20,
            split in 0usize..60,
        ) {
            let all: Vec<Neighbor> = scores
                .iter()
                .enumerate()
                .map(|(i, &s)| Neighbor { id: PointId((i as u64 * 37) % 61), score: f32::from(s) })
                .collect();
            let (left, right) = all.split_at(split.min(all.len()));
            let best = |part: &[Neighbor]| {
                let mut best = Best::new(k);
                for &neighbor in part {
                    best.offer(neighbor);
                }
                best
            };
            let mut expected = all.clone();
            expected.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.id.cmp(&b.id)));
            expected.truncate(k);
            prop_assert_eq!(best(left).merge(best(right)).into_sorted(), expected);
        }
    }
}
