//! The sigmoid loss: every pair of the batch is a yes-or-no question of its own.

use diptych_kernels::{exp, multiversion, sum};
use serde::{Deserialize, Serialize};

use super::rows::{Similarity, Unit};
use super::views::{Gradients, Relation, Views};
use super::{Bound, Needs, Scalar, logit_scale};

/// SigLIP (Zhai et al. 2023): `L = -(1/n) sum_ij ln sigmoid(z_ij (t s_ij + b))` over n images, with z = 1
/// for positives and -1 for negatives; `logit_scale = ln t` and `logit_bias = b` are learned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Siglip {
    /// Where 1 / t starts.
    pub temperature: f32,
    /// Where b starts: so low that the many negatives are right from the beginning.
    pub bias: f32,
}

impl Default for Siglip {
    fn default() -> Self {
        Self { temperature: 0.1, bias: -10.0 }
    }
}

impl Siglip {
    const BIAS_MAX: f32 = 100.0;

    pub(super) fn bounds(&self) -> Vec<Bound> {
        vec![
            Bound::temperature("temperature", self.temperature),
            Bound::new("bias", self.bias, "-100 to 100", self.bias.abs() <= Self::BIAS_MAX),
        ]
    }

    pub(super) fn scalars(&self) -> Vec<Scalar> {
        let bias = Scalar {
            name: "logit_bias".into(),
            start: self.bias,
            low: -Self::BIAS_MAX,
            high: Self::BIAS_MAX,
        };
        vec![logit_scale(self.temperature), bias]
    }

    pub(super) fn needs(&self) -> Needs {
        Needs::default()
    }

    pub(super) fn evaluate(&self, views: &Views<'_>, scalars: &[f32]) -> Gradients {
        let images = Unit::new(views.images, views.dim);
        let texts = Unit::new(views.texts, views.dim);
        let mut similarity = Similarity::new(&images, &texts, scalars[0].exp());
        let (n, m) = (views.n(), views.m());
        let mut totals = [0f64; 2];
        let mut scratch = vec![0f32; 2 * m];
        let weight = 1.0 / n as f32;
        questions(&mut similarity.logits, &mut scratch, &mut totals, views.relation, scalars[1], weight);
        let mut out = similarity.gradients(views, 2, totals[0] / n as f64);
        out.scalars[1] = totals[1] as f32;
        out
    }
}

multiversion! {
    /// Replaces every logit by its gradient; adds up `-ln sigmoid`, without the weight, and the gradients.
    fn questions(
        logits: &mut [f32],
        scratch: &mut [f32],
        totals: &mut [f64; 2],
        relation: &[Relation],
        bias: f32,
        weight: f32,
    ) {
        let columns = scratch.len() / 2;
        let (hinge, tail) = scratch.split_at_mut(columns);
        for (s, r) in logits.chunks_exact_mut(columns).zip(relation.chunks_exact(columns)) {
            for j in 0..columns {
                // -ln sigmoid(y) = max(-y, 0) + ln(1 + e) with e = exp(-|y|).
                let z = if r[j] == Relation::Positive { 1.0 } else { -1.0 };
                let kept = if r[j] == Relation::Neutral { 0.0 } else { 1.0 };
                let y = z * (s[j] + bias);
                let e = exp(-y.abs());
                hinge[j] = if y < 0.0 { -y * kept } else { 0.0 };
                tail[j] = if kept == 0.0 { 0.0 } else { e };
                let miss = if y < 0.0 { 1.0 } else { e } / (1.0 + e);
                s[j] = if kept == 0.0 { 0.0 } else { -z * weight * miss };
            }
            totals[0] += f64::from(sum(hinge)) + sum_of_ln_1p(tail);
            totals[1] += f64::from(sum(s));
        }
    }
}

/// `sum ln(1 + e)` for e in 0..=1: the logarithm of a product, taken before it can overflow.
#[inline(always)]
fn sum_of_ln_1p(e: &[f32]) -> f64 {
    const LANES: usize = 8;
    let mut total = 0.0;
    for run in e.chunks(LANES * 512) {
        let mut products = [1f64; LANES];
        let mut groups = run.chunks_exact(LANES);
        for group in &mut groups {
            for lane in 0..LANES {
                products[lane] *= 1.0 + f64::from(group[lane]);
            }
        }
        for (product, e) in products.iter_mut().zip(groups.remainder()) {
            *product *= 1.0 + f64::from(*e);
        }
        total += products.iter().map(|p| p.ln()).sum::<f64>();
    }
    total
}
