//! What recall which candidate list gives, and the list to use for a wanted recall.
//!
//! Deliberately absent: where the queries come from and when they are measured.

use diptych_core::Embedding;
use diptych_core::limits::EF_MAX;
use diptych_index::{Index, IndexError, Neighbor, Search};

use super::window::{Estimate, Window};

/// Sizes of the candidate list that are measured.
pub(crate) const RUNGS: [usize; 8] = [16, 32, 64, 128, 256, 512, 1024, 2048];
/// Neighbours that are compared.
const LADDER_K: usize = 10;
/// Latest queries that count.
const WINDOW: usize = 256;
/// Difference of two scores that is rounding.
const ROUNDING: f32 = 1e-6;

/// The recall measured at each rung, for one kind of query on one index.
#[derive(Debug, Clone)]
pub(crate) struct Ladder {
    rungs: [Window; RUNGS.len()],
    /// Points of the index when the ladder was begun.
    points: usize,
}

impl Ladder {
    pub(crate) fn new(points: usize) -> Self {
        Self { rungs: std::array::from_fn(|_| Window::new(WINDOW)), points }
    }

    pub(crate) fn add(&mut self, recalls: &[f64; RUNGS.len()]) {
        for (rung, &recall) in self.rungs.iter_mut().zip(recalls) {
            rung.push(recall);
        }
    }

    /// Queries that count.
    pub(crate) fn queries(&self) -> usize {
        self.rungs[0].len()
    }

    /// Whether the index has grown or shrunk by more than a quarter since the ladder was begun.
    pub(crate) fn is_stale(&self, points: usize) -> bool {
        points > self.points + self.points / 4 || points < self.points - self.points / 4
    }

    /// The smallest candidate list of which it is sure that it finds `target` of the `k` nearest;
    /// `None` when none of those measured does, and a scan is the way. For `k` beyond 10 the list
    /// grows in proportion, which errs upwards; a list longer than the bound is a scan, too.
    pub(crate) fn choose(&self, target: f64, k: usize) -> Option<usize> {
        let sure = |window: &Window| window.estimate().is_some_and(|estimate| estimate.low >= target);
        let rung = self.rungs.iter().position(sure)?;
        let ef = RUNGS[rung].saturating_mul(k.max(LADDER_K)).div_ceil(LADDER_K);
        (ef <= EF_MAX).then_some(ef)
    }

    /// What was measured, by size of the candidate list.
    pub(crate) fn estimates(&self) -> Vec<(usize, Estimate)> {
        let estimates = self.rungs.iter().map(Window::estimate);
        RUNGS.into_iter().zip(estimates).filter_map(|(ef, estimate)| Some((ef, estimate?))).collect()
    }
}

/// The recall of one query at every rung; `None` when there is nothing to find.
pub(crate) fn measure(index: &Index, query: &Embedding) -> Result<Option<[f64; RUNGS.len()]>, IndexError> {
    let exact = index.nearest_exact(query, LADDER_K)?;
    let mut recalls = [0.0; RUNGS.len()];
    for (recall, ef) in recalls.iter_mut().zip(RUNGS) {
        let found = index.search(query, &Search { k: LADDER_K, ef: Some(ef), filter: None })?;
        let scores: Vec<f32> = found.neighbors.iter().map(|n| n.score).collect();
        match recall_of(&scores, &exact) {
            Some(found) => *recall = found,
            None => return Ok(None),
        }
    }
    Ok(Some(recalls))
}

/// The share of the exact neighbours that were found, by their scores: of several points at the same
/// distance, each is as good as the other. `None` when there is nothing to find.
pub(crate) fn recall_of(found: &[f32], exact: &[Neighbor]) -> Option<f64> {
    let last = exact.last()?.score;
    let near = found.iter().filter(|&&score| score >= last - ROUNDING).count();
    Some(near.min(exact.len()) as f64 / exact.len() as f64)
}

#[cfg(test)]
mod tests {
    use diptych_core::PointId;

    use super::*;

    #[test]
    fn the_smallest_sure_list_is_chosen_and_scaled_with_k() {
        let mut ladder = Ladder::new(1000);
        assert_eq!(ladder.choose(0.5, 10), None, "nothing measured, nothing promised");
        for _ in 0..100 {
            ladder.add(&[0.5, 0.7, 0.9, 0.96, 0.98, 0.99, 1.0, 1.0]);
        }
        let chosen = [0.4, 0.6, 0.8, 0.95, 0.99].map(|target| ladder.choose(target, 10));
        assert_eq!(chosen, [Some(16), Some(32), Some(64), Some(128), Some(1024)]);
        assert_eq!(ladder.choose(0.999, 10), None, "a hundred queries cannot show that");
        assert_eq!(ladder.choose(0.95, 1), Some(128));
        assert_eq!(ladder.choose(0.95, 25), Some(320));
        assert_eq!(ladder.choose(0.99, 40), Some(EF_MAX));
        assert_eq!(ladder.choose(0.99, 41), None);
        assert_eq!(ladder.estimates()[3].0, 128);
        assert!((ladder.estimates()[3].1.mean - 0.96).abs() < 1e-9);
    }

    #[test]
    fn one_lucky_query_promises_little() {
        let mut ladder = Ladder::new(1000);
        ladder.add(&[1.0; RUNGS.len()]);
        assert_eq!(ladder.choose(0.95, 10), None);
    }

    #[test]
    fn a_quarter_more_or_less_makes_a_ladder_stale() {
        let ladder = Ladder::new(1000);
        let stale = [749, 750, 1250, 1251].map(|points| ladder.is_stale(points));
        assert_eq!(stale, [true, false, false, true]);
    }

    #[test]
    fn points_at_the_same_distance_stand_for_each_other() {
        let exact = [0.9, 0.8, 0.8].map(|score| Neighbor { id: PointId(1), score });
        assert_eq!(recall_of(&[0.9, 0.8, 0.8], &exact), Some(1.0));
        assert_eq!(recall_of(&[0.8, 0.8, 0.8, 0.8], &exact), Some(1.0));
        assert_eq!(recall_of(&[0.9, 0.7], &exact), Some(1.0 / 3.0));
        assert_eq!(recall_of(&[], &exact), Some(0.0));
        assert_eq!(recall_of(&[0.9], &[]), None);
    }
}
