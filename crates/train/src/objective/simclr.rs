//! Two views of one thing against everything else of its modality.

use serde::{Deserialize, Serialize};

use super::rows::{Similarity, Unit};
use super::softmax::contrast;
use super::views::{Gradients, Relation, Views};
use super::{Bound, Needs, Scalar, inverse_temperature, learned_scale};

/// NT-Xent (SimCLR, Chen et al. 2020): over the 2N views of N images, with c the cosine and v' the other
/// view of what v shows,
///
/// `L = mean_v -ln(exp(c_vv' / tau) / sum over w != v of exp(c_vw / tau))`.
///
/// Views of two images that share a text are left out of each other's sums. With `texts` the same is
/// done for two views of every text; with both, the loss is the mean.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimClr {
    /// tau, or where it starts.
    pub temperature: f32,
    /// Learn `ln(1 / tau)`; the paper does not.
    pub learn_temperature: bool,
    /// Contrast two views of every image.
    pub images: bool,
    /// Contrast two views of every text.
    pub texts: bool,
}

impl Default for SimClr {
    fn default() -> Self {
        Self { temperature: 0.1, learn_temperature: false, images: true, texts: false }
    }
}

impl SimClr {
    pub(super) fn bounds(&self) -> Vec<Bound> {
        let modalities = f32::from(u8::from(self.images) + u8::from(self.texts));
        vec![
            Bound::temperature("temperature", self.temperature),
            Bound::new("images + texts", modalities, "at least one of both", modalities > 0.0),
        ]
    }

    pub(super) fn scalars(&self) -> Vec<Scalar> {
        learned_scale(self.temperature, self.learn_temperature)
    }

    pub(super) fn needs(&self) -> Needs {
        Needs { second_images: self.images, second_texts: self.texts, ..Needs::default() }
    }

    pub(super) fn evaluate(&self, views: &Views<'_>, scalars: &[f32]) -> Gradients {
        let scale = inverse_temperature(self.temperature, scalars);
        let share = if self.images && self.texts { 0.5 } else { 1.0 };
        let mut out = Gradients::zeros(views, scalars.len());
        let (mut loss, mut d_scale) = (0.0, 0.0);
        if self.images {
            let both =
                two_views(views.images, views.second_images, views.dim, &views.kin_images(), scale, share);
            (out.images, out.second_images) = (both.first, both.second);
            loss += both.loss;
            d_scale += both.d_scale;
        }
        if self.texts {
            let both =
                two_views(views.texts, views.second_texts, views.dim, &views.kin_texts(), scale, share);
            (out.texts, out.second_texts) = (both.first, both.second);
            loss += both.loss;
            d_scale += both.d_scale;
        }
        out.loss = loss as f32;
        out.scalars.fill(d_scale as f32);
        out
    }
}

struct TwoViews {
    loss: f64,
    first: Vec<f32>,
    second: Vec<f32>,
    d_scale: f64,
}

fn two_views(first: &[f32], second: &[f32], dim: usize, kin: &[bool], scale: f32, weight: f64) -> TwoViews {
    let n = first.len() / dim;
    let rows = Unit::new(&[first, second].concat(), dim);
    let mut similarity = Similarity::new(&rows, &rows, scale);
    let relation: Vec<_> = (0..4 * n * n)
        .map(|at| match (at / (2 * n), at % (2 * n)) {
            (a, b) if a + n == b || b + n == a => Relation::Positive,
            (a, b) if kin[a % n * n + b % n] => Relation::Neutral,
            _ => Relation::Negative,
        })
        .collect();
    let loss = contrast(&mut similarity.logits, &relation, 2 * n, (weight, 0.0));
    let (mut left, right, d_scale) = similarity.backward();
    left.iter_mut().zip(right).for_each(|(l, r)| *l += r);
    let second = left.split_off(n * dim);
    TwoViews { loss, first: left, second, d_scale }
}
