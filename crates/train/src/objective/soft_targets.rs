//! Cross-entropy against soft targets: strangers with the same findings are no wrong answers.

use diptych_kernels::{dot, multiversion};
use serde::{Deserialize, Serialize};

use super::rows::{Similarity, Unit};
use super::softmax::{ALL_BUT_NEUTRAL, Factors, Sums, weigh};
use super::views::{Gradients, Relation, Views};
use super::{Bound, Needs, Scalar, inverse_temperature, learned_scale};

/// Semantic matching (MedCLIP, Wang et al. 2022): `y_ij = softmax_j(l_ij / target_temperature)` of the
/// label similarity l, `L = -mean_i sum_j y_ij ln softmax_j(s_ij / tau)`; the same over columns, and the
/// mean of both. Neutral pairs are missing from either softmax.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SoftTargets {
    /// tau, or where it starts.
    pub temperature: f32,
    /// Learn `ln(1 / tau)` along with the towers.
    pub learn_temperature: bool,
    /// Temperature of the targets. At 1 a batch of hundreds has nearly equal ones; at 0.1 a pair with
    /// the same labels has 22,000 times the target of one with nothing in common.
    pub target_temperature: f32,
}

impl Default for SoftTargets {
    fn default() -> Self {
        Self { temperature: 0.07, learn_temperature: true, target_temperature: 0.1 }
    }
}

impl SoftTargets {
    pub(super) fn bounds(&self) -> Vec<Bound> {
        vec![
            Bound::temperature("temperature", self.temperature),
            Bound::temperature("target_temperature", self.target_temperature),
        ]
    }

    pub(super) fn scalars(&self) -> Vec<Scalar> {
        learned_scale(self.temperature, self.learn_temperature)
    }

    pub(super) fn needs(&self) -> Needs {
        Needs { label_similarity: true, ..Needs::default() }
    }

    pub(super) fn evaluate(&self, views: &Views<'_>, scalars: &[f32]) -> Gradients {
        let images = Unit::new(views.images, views.dim);
        let texts = Unit::new(views.texts, views.dim);
        let mut similarity = Similarity::new(&images, &texts, inverse_temperature(self.temperature, scalars));
        let mut targets: Vec<f32> =
            views.label_similarity.iter().map(|l| l / self.target_temperature).collect();
        let (columns, relation) = (views.m(), views.relation);
        // The gradient of a logit is p - y, weighed over rows and over columns; so is the loss linear in y.
        let logits = &mut similarity.logits;
        log_sums_and_shares(&mut targets, relation, columns, |_| ());
        let mut loss = 0.0;
        // In pieces: one sum in single precision over the whole matrix would lose digits.
        for (s, y) in logits.chunks(512).zip(targets.chunks(512)) {
            loss -= f64::from(dot(s, y));
        }
        log_sums_and_shares(logits, relation, columns, |log_sum| loss += log_sum);
        subtract(logits, &targets);
        similarity.gradients(views, scalars.len(), loss)
    }
}

/// Replaces logits by their softmax along rows and that along columns, each weighed by half the share of
/// its row or column in the mean, and added. Reports `ln sum exp` of each with the same weight.
fn log_sums_and_shares(
    logits: &mut [f32],
    relation: &[Relation],
    columns: usize,
    mut log_sum: impl FnMut(f64),
) {
    let mut factors = |sums: Sums| {
        let takes_part = |a: &usize| sums.sum[*a] != 0.0;
        let anchors = 0..sums.sum.len();
        let weight = 0.5 / anchors.clone().filter(takes_part).count().max(1) as f64;
        anchors.clone().filter(takes_part).for_each(|a| log_sum(weight * sums.log_sum(a)));
        let factor = |a| if takes_part(&a) { (weight / f64::from(sums.sum[a])) as f32 } else { 0.0 };
        let factors = anchors.map(factor).collect();
        Factors::new(sums, factors)
    };
    let of_rows = factors(Sums::of_rows(logits, relation, columns, ALL_BUT_NEUTRAL));
    let of_columns = factors(Sums::of_columns(logits, relation, columns, ALL_BUT_NEUTRAL));
    weigh(logits, relation, ALL_BUT_NEUTRAL, &of_rows, &of_columns);
}

multiversion! {
    fn subtract(d: &mut [f32], y: &[f32]) {
        for (d, y) in d.iter_mut().zip(y) {
            *d -= y;
        }
    }
}
