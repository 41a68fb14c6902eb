//! How sure a number is: the cluster bootstrap.
//!
//! Owns: drawing whole clusters (records, patients) with replacement and the percentile interval of
//! any statistic over them. Captions of one image, or images of one patient, are not independent, so
//! they are drawn together; drawing them one by one would give intervals that are too narrow.
//! Deliberately absent: the statistics.

use std::collections::HashMap;

use rayon::prelude::*;

use crate::random::Random;

/// How intervals are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bootstrap {
    /// Resamples; 0 for no intervals.
    pub resamples: usize,
    /// The same seed gives the same intervals.
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self { resamples: 1000, seed: 1 }
    }
}

/// The middle 95 % of a statistic over the resamples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The 2.5th percentile.
    pub low: f64,
    /// The 97.5th percentile.
    pub high: f64,
}

/// Numbers clusters from 0 in order of appearance; gives them and how many there are.
pub(crate) fn dense(clusters: impl Iterator<Item = u32>) -> (Vec<u32>, usize) {
    let mut numbers = HashMap::new();
    let renumbered = clusters
        .map(|cluster| {
            let next = u32::try_from(numbers.len()).expect("no more clusters than their 32-bit names");
            *numbers.entry(cluster).or_insert(next)
        })
        .collect();
    (renumbered, numbers.len())
}

impl Bootstrap {
    /// The intervals of several statistics over the same resamples. `statistics` is told how often
    /// each cluster was drawn and gives NaN for what such a sample does not define; an interval needs
    /// at least half of the resamples to define it.
    pub(crate) fn intervals(
        &self,
        clusters: usize,
        count: usize,
        statistics: impl Fn(&[u32]) -> Vec<f64> + Sync,
    ) -> Vec<Option<Interval>> {
        if clusters < 2 || self.resamples == 0 {
            return vec![None; count];
        }
        let draws: Vec<Vec<f64>> = (0..self.resamples)
            .into_par_iter()
            .map(|number| {
                let mut random = Random::new(self.seed, number as u64);
                let mut times = vec![0u32; clusters];
                (0..clusters).for_each(|_| times[random.below(clusters)] += 1);
                statistics(&times)
            })
            .collect();
        (0..count)
            .map(|n| {
                let mut values: Vec<f64> = draws.iter().map(|d| d[n]).filter(|v| !v.is_nan()).collect();
                if 2 * values.len() < self.resamples {
                    return None;
                }
                values.sort_by(f64::total_cmp);
                Some(Interval { low: quantile(&values, 0.025), high: quantile(&values, 0.975) })
            })
            .collect()
    }

    /// The intervals of means over queries: `rows` holds the cluster of each query, numbered from 0
    /// without gaps, and its values.
    pub(crate) fn means<const N: usize>(
        &self,
        clusters: usize,
        rows: &[(u32, [f64; N])],
    ) -> [Option<Interval>; N] {
        let mut sums = vec![(0u32, [0.0; N]); clusters];
        for (cluster, values) in rows {
            let (count, sum) = &mut sums[*cluster as usize];
            *count += 1;
            sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        }
        let intervals = self.intervals(clusters, N, |times| {
            let (mut counted, mut total) = (0u64, [0.0; N]);
            for (&times, (count, sum)) in times.iter().zip(&sums) {
                counted += u64::from(times) * u64::from(*count);
                total.iter_mut().zip(sum).for_each(|(total, sum)| *total += f64::from(times) * sum);
            }
            total.iter().map(|total| total / counted as f64).collect()
        });
        std::array::from_fn(|n| intervals[n])
    }
}

/// The `p` quantile of sorted values, not empty, with linear interpolation between order statistics
/// (type 7 of Hyndman and Fan, 1996).
fn quantile(sorted: &[f64], p: f64) -> f64 {
    let place = p * (sorted.len() - 1) as f64;
    let below = place.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (place - below as f64) * (sorted[above] - sorted[below])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn quantiles_lie_between_the_values() {
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 5.0], 0.5), 2.5);
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 5.0], 1.0), 5.0);
        assert!((quantile(&[0.0, 10.0], 0.025) - 0.25).abs() < 1e-12);
        assert_eq!(quantile(&[4.0], 0.975), 4.0);
    }

    #[test]
    fn the_interval_of_a_share_is_that_of_the_binomial() {
        // 400 independent queries, 120 of them found: the standard error is sqrt(.3 * .7 / 400).
        let rows: Vec<(u32, [f64; 1])> = (0..400).map(|n| (n, [f64::from(u8::from(n < 120))])).collect();
        let bootstrap = Bootstrap { resamples: 4000, seed: 3 };
        let [interval] = bootstrap.means(400, &rows);
        let interval = interval.unwrap();
        let half = 1.96 * (0.3f64 * 0.7 / 400.0).sqrt();
        assert!((interval.low - (0.3 - half)).abs() < 0.005, "{interval:?}");
        assert!((interval.high - (0.3 + half)).abs() < 0.005, "{interval:?}");
    }

    #[test]
    fn queries_of_one_cluster_are_drawn_together() {
        // Five equal captions of each image carry no more evidence than one.
        let single: Vec<(u32, [f64; 1])> = (0..100).map(|n| (n, [f64::from(n % 2)])).collect();
        let five: Vec<(u32, [f64; 1])> = (0..500).map(|n| (n / 5, [f64::from(n / 5 % 2)])).collect();
        let bootstrap = Bootstrap::default();
        assert_eq!(bootstrap.means(100, &single), bootstrap.means(100, &five));
        let apart: Vec<(u32, [f64; 1])> = (0..500).map(|n| (n, [f64::from(n / 5 % 2)])).collect();
        let width = |i: Option<Interval>| i.unwrap().high - i.unwrap().low;
        let ratio = width(bootstrap.means(100, &five)[0]) / width(bootstrap.means(500, &apart)[0]);
        assert!((ratio - 5f64.sqrt()).abs() < 0.3, "{ratio}");
    }

    #[test]
    fn one_cluster_and_no_resamples_have_no_interval() {
        let rows = [(0, [1.0]), (0, [0.0])];
        assert_eq!(Bootstrap::default().means(1, &rows), [None]);
        let none = Bootstrap { resamples: 0, seed: 1 };
        assert_eq!(none.means(2, &[(0, [1.0]), (1, [0.0])]), [None]);
    }

    #[test]
    fn a_statistic_that_is_mostly_undefined_has_no_interval() {
        let bootstrap = Bootstrap::default();
        // Needs the first of three clusters: there in 19 of 27 samples. All three: in 6 of 27.
        let defined = |there: bool| if there { 1.0 } else { f64::NAN };
        let found = bootstrap
            .intervals(3, 2, |t| vec![defined(t[0] > 0), defined(t.iter().all(|&times| times == 1))]);
        assert_eq!(found, [Some(Interval { low: 1.0, high: 1.0 }), None]);
    }

    #[test]
    fn clusters_are_numbered_as_they_appear() {
        assert_eq!(dense([7, 3, 7, 9].into_iter()), (vec![0, 1, 0, 2], 3));
    }
}
