//! From a cosine to a probability.
//!
//! Owns: the isotonic fit of a monotone curve through judged scores, and how far its promises are from
//! what comes true. Deliberately absent: where scores and judgements come from.

/// A score of a hit, and whether the hit was a match.
pub(super) type Judged = (f32, bool);

/// Bins of a reliability diagram, equally wide.
const BINS: usize = 10;

/// The probability of a match by the score, never falling.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Curve {
    /// Scores, ascending, each with its probability; between two of them the curve is straight.
    knots: Vec<(f32, f64)>,
}

/// One bin of a reliability diagram.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReliabilityBin {
    /// Mean relevance promised, 0 to 1.
    pub predicted: f64,
    /// Share of matches that came true.
    pub observed: f64,
    /// Hits that the bin counts.
    pub hits: usize,
}

/// How far relevance is from what comes true.
#[derive(Debug, Clone, PartialEq)]
pub struct Reliability {
    /// Expected calibration error: the mean distance of promise and truth over the bins, weighed by
    /// their hits (Naeini et al. 2015).
    pub error: f64,
    /// Bins of equal width that have hits, lowest first.
    pub bins: Vec<ReliabilityBin>,
}

impl Curve {
    /// The isotonic regression of the judgements on the scores (pool adjacent violators, Ayer et al.
    /// 1955); `None` without a match or without a miss. Every pool counts one match and one miss more
    /// than it has, by their share in all, so that no score promises certainty.
    pub fn fit(judged: &[Judged]) -> Option<Self> {
        let matches = judged.iter().filter(|(_, matched)| *matched).count();
        if matches == 0 || matches == judged.len() {
            return None;
        }
        let mut sorted = judged.to_vec();
        sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut pools: Vec<Pool> = Vec::new();
        for (score, matched) in sorted {
            pools.push(Pool { scores: f64::from(score), matches: f64::from(u8::from(matched)), hits: 1.0 });
            // Equal scores are one pool; a pool that promises more than the next one joins it.
            while let [.., before, last] = pools.as_slice()
                && (before.share() >= last.share() || before.mean_score() >= last.mean_score())
            {
                let joined = before.joined(last);
                pools.truncate(pools.len() - 2);
                pools.push(joined);
            }
        }
        let prior = matches as f64 / judged.len() as f64;
        let mut knots: Vec<(f32, f64)> = Vec::with_capacity(pools.len());
        for pool in pools {
            let share = (pool.matches + prior) / (pool.hits + 1.0);
            let highest = knots.last().map_or(0.0, |(_, share)| *share);
            knots.push((pool.mean_score() as f32, share.max(highest)));
        }
        Some(Self { knots })
    }

    /// The probability of a match at a score.
    pub fn at(&self, score: f32) -> f64 {
        let next = self.knots.partition_point(|(knot, _)| *knot <= score);
        match (next.checked_sub(1).map(|i| self.knots[i]), self.knots.get(next)) {
            (Some((x0, p0)), Some((x1, p1))) => {
                p0 + (p1 - p0) * f64::from(score - x0) / f64::from((x1 - x0).max(f32::MIN_POSITIVE))
            }
            (Some((_, p)), None) | (None, Some(&(_, p))) => p,
            (None, None) => unreachable!("a fit has a pool"),
        }
    }
}

impl Reliability {
    /// What became of promised probabilities.
    pub(super) fn of(promises: &[(f64, bool)]) -> Self {
        let mut sums = [(0.0, 0.0, 0usize); BINS];
        for (predicted, matched) in promises {
            let bin = &mut sums[((predicted * BINS as f64) as usize).min(BINS - 1)];
            *bin = (bin.0 + predicted, bin.1 + f64::from(u8::from(*matched)), bin.2 + 1);
        }
        let bins: Vec<ReliabilityBin> = sums
            .iter()
            .filter(|(_, _, hits)| *hits > 0)
            .map(|&(predicted, observed, hits)| ReliabilityBin {
                predicted: predicted / hits as f64,
                observed: observed / hits as f64,
                hits,
            })
            .collect();
        let gap = |bin: &ReliabilityBin| (bin.predicted - bin.observed).abs() * bin.hits as f64;
        let error = bins.iter().map(gap).sum::<f64>() / promises.len().max(1) as f64;
        Self { error, bins }
    }
}

/// Neighbouring scores that share one probability.
#[derive(Debug, Clone, Copy)]
struct Pool {
    scores: f64,
    matches: f64,
    hits: f64,
}

impl Pool {
    fn share(&self) -> f64 {
        self.matches / self.hits
    }

    fn mean_score(&self) -> f64 {
        self.scores / self.hits
    }

    fn joined(&self, other: &Self) -> Self {
        Self {
            scores: self.scores + other.scores,
            matches: self.matches + other.matches,
            hits: self.hits + other.hits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scores 0 to 1 of which a share equal to the score are matches.
    fn honest() -> Vec<Judged> {
        (0..5000u32).map(|i| ((i % 100) as f32 / 100.0, (i / 100) % 50 < i % 100 / 2)).collect()
    }

    #[test]
    fn a_curve_promises_what_comes_true() {
        let judged = honest();
        let curve = Curve::fit(&judged).expect("matches and misses");
        for score in [0.1f32, 0.35, 0.6, 0.85] {
            assert!((curve.at(score) - f64::from(score)).abs() < 0.03, "{score}: {}", curve.at(score));
        }
        let promises: Vec<(f64, bool)> = judged.iter().map(|hit| (curve.at(hit.0), hit.1)).collect();
        let reliability = Reliability::of(&promises);
        assert!(reliability.error < 0.01, "{reliability:?}");
        assert_eq!(reliability.bins.iter().map(|bin| bin.hits).sum::<usize>(), judged.len());
    }

    #[test]
    fn it_never_falls_and_is_never_certain() {
        // A match below a miss, and equal scores that were judged both ways.
        let judged = [(0.1, false), (0.2, true), (0.3, false), (0.3, true), (0.3, false), (0.9, true)];
        let curve = Curve::fit(&judged).expect("matches and misses");
        let points: Vec<f64> = (-20..=20).map(|i| curve.at(i as f32 / 10.0)).collect();
        assert!(points.is_sorted(), "{points:?}");
        assert!(points[0] > 0.0 && points[40] < 1.0, "{points:?}");
        assert!(Curve::fit(&[(0.5, true)]).is_none() && Curve::fit(&[(0.5, false)]).is_none());
    }

    #[test]
    fn promises_that_are_not_kept_are_found_out() {
        let promises: Vec<(f64, bool)> = (0..10).map(|i| (0.92 + 0.001 * f64::from(i), i == 9)).collect();
        let reliability = Reliability::of(&promises);
        assert!((reliability.error - (0.9245 - 0.1)).abs() < 1e-9, "{reliability:?}");
    }
}
