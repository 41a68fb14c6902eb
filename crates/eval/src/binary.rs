//! How well scores separate the items that have a label from those that do not.

use rayon::prelude::*;

use crate::bootstrap::{Bootstrap, dense};
use crate::pairs::check_lengths;
use crate::{EvalError, Metric, average_precision_chance};

/// One label over all items.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Detection {
    /// Items that have the label.
    pub positives: usize,
    /// Items that do not.
    pub negatives: usize,
    /// Area under the ROC curve: the probability that an item with the label scores higher than one
    /// without, a tie counting half (Mann and Whitney, 1947). Chance is one half. `None` without
    /// positives or without negatives.
    pub auc: Option<Metric>,
    /// Average precision: the sum over distinct scores, from the highest, of the recall gained times
    /// the precision reached. Chance is about the share of positives. `None` as for `auc`.
    pub average_precision: Option<Metric>,
}

/// Several labels over the same items.
#[derive(Debug, Clone, PartialEq)]
pub struct Detections {
    /// Each label, in the order given.
    pub labels: Vec<Detection>,
    /// Mean area under the ROC curve of the labels that have one.
    pub mean_auc: Option<Metric>,
    /// Mean average precision of the labels that have one.
    pub mean_average_precision: Option<Metric>,
    /// Items scored.
    pub items: usize,
    /// Clusters they come from: what intervals resample.
    pub clusters: usize,
}

/// Measures each label: `scores` and `truth` have one list per label, with one entry per item;
/// `clusters` says which items are not independent of one another. A resample without positives or
/// without negatives of a label does not count for it.
///
/// # Errors
/// [`EvalError`] when there are no labels or items, lengths differ or a score is not finite.
pub fn detect(
    scores: &[Vec<f32>],
    truth: &[Vec<bool>],
    clusters: &[u32],
    bootstrap: &Bootstrap,
) -> Result<Detections, EvalError> {
    check_lengths("labels", scores.len(), "lists of truths", truth.len())?;
    for (side, empty) in [("labels", scores.is_empty()), ("items", clusters.is_empty())] {
        if empty {
            return Err(EvalError::Empty { side });
        }
    }
    for (scores, truth) in scores.iter().zip(truth) {
        check_lengths("items", clusters.len(), "scores", scores.len())?;
        check_lengths("items", clusters.len(), "truths", truth.len())?;
        if let Some(position) = scores.iter().position(|score| !score.is_finite()) {
            return Err(EvalError::NotFinite { position });
        }
    }
    let (clusters, cluster_count) = dense(clusters.iter().copied());
    let ordered: Vec<Ordered> =
        scores.par_iter().zip(truth).map(|(scores, truth)| Ordered::new(scores, truth, &clusters)).collect();
    let all = |times: &[u32]| {
        let each: Vec<[f64; 2]> = ordered.iter().map(|label| label.measure(times)).collect();
        let means = [0, 1].map(|n| mean_of_defined(each.iter().map(|values| values[n])));
        each.into_iter().flatten().chain(means).collect::<Vec<f64>>()
    };
    let values = all(&vec![1; cluster_count]);
    let intervals = bootstrap.intervals(cluster_count, values.len(), all);
    let metric = |n: usize, chance: f64| {
        (!values[n].is_nan()).then(|| Metric { value: values[n], chance, interval: intervals[n] })
    };
    let chance = |label: &Ordered| average_precision_chance(label.positives, label.items.len());
    let labels: Vec<Detection> = (0..)
        .zip(&ordered)
        .map(|(n, label)| Detection {
            positives: label.positives,
            negatives: label.items.len() - label.positives,
            auc: metric(2 * n, 0.5),
            average_precision: metric(2 * n + 1, chance(label)),
        })
        .collect();
    let mean_chance = mean_of_defined(labels.iter().filter_map(|l| Some(l.average_precision?.chance)));
    Ok(Detections {
        mean_auc: metric(2 * labels.len(), 0.5),
        mean_average_precision: metric(2 * labels.len() + 1, mean_chance),
        labels,
        items: clusters.len(),
        clusters: cluster_count,
    })
}

/// The items of one label, highest score first.
struct Ordered {
    items: Vec<Scored>,
    positives: usize,
}

struct Scored {
    score: f32,
    cluster: u32,
    positive: bool,
}

impl Ordered {
    fn new(scores: &[f32], truth: &[bool], clusters: &[u32]) -> Self {
        let mut items: Vec<Scored> = scores
            .iter()
            .zip(truth)
            .zip(clusters)
            .map(|((&score, &positive), &cluster)| Scored { score, cluster, positive })
            .collect();
        items.sort_by(|a, b| b.score.total_cmp(&a.score));
        Self { items, positives: truth.iter().filter(|&&positive| positive).count() }
    }

    /// Area under the ROC curve and average precision when each cluster is there so many times; NaN
    /// when that leaves no positives or no negatives.
    fn measure(&self, times: &[u32]) -> [f64; 2] {
        let weight = |item: &Scored| f64::from(times[item.cluster as usize]);
        let (mut positives, mut negatives) = (0.0, 0.0);
        for item in &self.items {
            *(if item.positive { &mut positives } else { &mut negatives }) += weight(item);
        }
        if positives == 0.0 || negatives == 0.0 {
            return [f64::NAN; 2];
        }
        let (mut above, mut wrong_above) = (0.0, 0.0);
        let (mut auc, mut precision) = (0.0, 0.0);
        // -0 and 0 are equal scores.
        for tied in self.items.chunk_by(|a, b| a.score == b.score) {
            let right: f64 = tied.iter().filter(|item| item.positive).map(weight).sum();
            let wrong: f64 = tied.iter().filter(|item| !item.positive).map(weight).sum();
            auc += right * (negatives - wrong_above - wrong / 2.0);
            above += right;
            wrong_above += wrong;
            if right > 0.0 {
                precision += right / positives * above / (above + wrong_above);
            }
        }
        [auc / (positives * negatives), precision]
    }
}

/// The mean of the numbers that are no NaN; NaN without any.
fn mean_of_defined(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.filter(|v| !v.is_nan()).fold((0.0, 0u32), |(s, n), v| (s + v, n + 1));
    sum / f64::from(count)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::random::Random;

    fn one(scores: &[f32], truth: &[u8]) -> Detection {
        let truth = truth.iter().map(|&t| t == 1).collect();
        let clusters: Vec<u32> = (0u32..).take(scores.len()).collect();
        detect(&[scores.to_vec()], &[truth], &clusters, &Bootstrap::default()).unwrap().labels[0]
    }

    #[test]
    fn values_are_those_worked_out_by_hand() {
        // Of six pairs of a positive (.9, .6) and a negative (.8, .6, .1): four are right, one is tied.
        let found = one(&[0.9, 0.8, 0.6, 0.6, 0.1], &[1, 0, 1, 0, 0]);
        assert_eq!((found.positives, found.negatives), (2, 3));
        assert!((found.auc.unwrap().value - 4.5 / 6.0).abs() < 1e-12);
        // Half of the recall at precision 1, half at 2 of 4.
        assert!((found.average_precision.unwrap().value - 0.75).abs() < 1e-12);
        assert_eq!(found.auc.unwrap().chance, 0.5);
        let perfect = one(&[3.0, 2.0, 1.0], &[1, 1, 0]);
        assert_eq!((perfect.auc.unwrap().value, perfect.average_precision.unwrap().value), (1.0, 1.0));
        assert_eq!(one(&[1.0, 2.0, 3.0], &[1, 1, 0]).auc.unwrap().value, 0.0);
        let tied = one(&[0.0, -0.0, 0.0, 0.0], &[1, 0, 0, 0]);
        assert_eq!((tied.auc.unwrap().value, tied.average_precision.unwrap().value), (0.5, 0.25));
    }

    #[test]
    fn a_label_that_all_or_none_have_cannot_be_measured() {
        for truth in [[1, 1], [0, 0]] {
            let found = one(&[0.5, 0.4], &truth);
            assert_eq!((found.auc, found.average_precision), (None, None));
        }
        let truth = [vec![true, true], vec![true, false]];
        let found =
            detect(&[vec![0.5, 0.4], vec![0.5, 0.4]], &truth, &[0, 1], &Bootstrap::default()).unwrap();
        assert_eq!((found.labels[0].auc, found.mean_auc.unwrap().value), (None, 1.0));
    }

    #[test]
    fn values_are_those_of_the_definitions_for_any_scores_and_weights() {
        let mut random = Random::new(4, 0);
        for _ in 0..200 {
            let n = 2 + random.below(12);
            // Few different scores, so that there are ties.
            let scores: Vec<f32> = (0..n).map(|_| random.below(5) as f32 / 4.0).collect();
            let truth: Vec<bool> = (0..n).map(|_| random.below(2) == 1).collect();
            let clusters: Vec<u32> = (0..n).map(|_| random.below(4) as u32).collect();
            let times: Vec<u32> = (0..4).map(|_| random.below(4) as u32).collect();
            let [auc, precision] = Ordered::new(&scores, &truth, &clusters).measure(&times);
            // The same with every item written out as often as it was drawn.
            let drawn: Vec<(f32, bool)> = (0..n)
                .flat_map(|i| vec![(scores[i], truth[i]); times[clusters[i] as usize] as usize])
                .collect();
            let of = |p: bool| drawn.iter().filter(move |d| d.1 == p).map(|d| d.0);
            let (positives, negatives) = (of(true).count() as f64, of(false).count() as f64);
            if positives == 0.0 || negatives == 0.0 {
                assert!(auc.is_nan() && precision.is_nan());
                continue;
            }
            let won = |a: f32, b: f32| {
                if a > b {
                    1.0
                } else if a == b {
                    0.5
                } else {
                    0.0
                }
            };
            let wins: f64 = of(true).flat_map(|a| of(false).map(move |b| won(a, b))).sum();
            assert!((auc - wins / (positives * negatives)).abs() < 1e-12);
            // Each positive contributes the precision among all items that score at least as high.
            let at = |s: f32| {
                of(true).filter(|&p| p >= s).count() as f64 / drawn.iter().filter(|d| d.0 >= s).count() as f64
            };
            assert!((precision - of(true).map(at).sum::<f64>() / positives).abs() < 1e-12);
        }
    }

    #[test]
    fn random_scores_are_at_chance_and_inside_the_interval() {
        let mut random = Random::new(5, 0);
        let (mut auc, mut precision, mut inside) = (0.0, 0.0, 0);
        for _ in 0..200 {
            let scores: Vec<f32> = (0..60).map(|_| random.below(1 << 20) as f32).collect();
            let truth: Vec<u8> = (0..60).map(|i| u8::from(i < 15)).collect();
            let found = one(&scores, &truth);
            auc += found.auc.unwrap().value / 200.0;
            precision += found.average_precision.unwrap().value / 200.0;
            let interval = found.auc.unwrap().interval.unwrap();
            inside += u32::from(interval.low <= 0.5 && 0.5 <= interval.high);
        }
        assert!((auc - 0.5).abs() < 0.02, "{auc}");
        assert!((precision - average_precision_chance(15, 60)).abs() < 0.02, "{precision}");
        assert!(inside >= 180, "{inside} of 200 intervals hold the truth");
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        let bootstrap = Bootstrap::default();
        let error = detect(&[vec![f32::NAN]], &[vec![true]], &[0], &bootstrap);
        assert_eq!(error, Err(EvalError::NotFinite { position: 0 }));
        assert_eq!(detect(&[], &[], &[0], &bootstrap), Err(EvalError::Empty { side: "labels" }));
        assert_eq!(detect(&[vec![]], &[vec![]], &[], &bootstrap), Err(EvalError::Empty { side: "items" }));
        let lengths = EvalError::Lengths { side: "items", expected: 2, what: "truths", found: 1 };
        assert_eq!(detect(&[vec![0.0, 1.0]], &[vec![true]], &[0, 1], &bootstrap), Err(lengths));
    }
}
