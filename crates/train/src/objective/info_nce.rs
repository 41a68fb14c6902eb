//! Cross-entropy of the true partner among all of the batch: InfoNCE, and ConVIRT's asymmetric form.

use serde::{Deserialize, Serialize};

use super::rows::{Similarity, Unit};
use super::softmax::contrast;
use super::views::{Gradients, Views};
use super::{Bound, Needs, Scalar, inverse_temperature, learned_scale};

/// InfoNCE (van den Oord et al. 2018) in both directions, as CLIP has it (Radford et al. 2021):
///
/// `L = (CE(s / tau, I) + CE(s^T / tau, I)) / 2`, and for an anchor with positives P and negatives N
/// `CE = mean over p in P of -ln(exp(s_p / tau) / (exp(s_p / tau) + sum over N of exp(s_j / tau)))`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InfoNce {
    /// tau, or where it starts.
    pub temperature: f32,
    /// Learn `ln(1 / tau)` along with the towers.
    pub learn_temperature: bool,
}

impl Default for InfoNce {
    fn default() -> Self {
        Self { temperature: 0.07, learn_temperature: true }
    }
}

impl InfoNce {
    pub(super) fn bounds(&self) -> Vec<Bound> {
        vec![Bound::temperature("temperature", self.temperature)]
    }

    pub(super) fn scalars(&self) -> Vec<Scalar> {
        learned_scale(self.temperature, self.learn_temperature)
    }

    pub(super) fn needs(&self) -> Needs {
        Needs::default()
    }

    pub(super) fn evaluate(&self, views: &Views<'_>, scalars: &[f32]) -> Gradients {
        across(views, scalars, inverse_temperature(self.temperature, scalars), (0.5, 0.5))
    }
}

/// ConVIRT (Zhang et al. 2020): `L = lambda CE(image -> text) + (1 - lambda) CE(text -> image)`, with
/// the cross-entropies of [`InfoNce`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Convirt {
    /// lambda, the share of the direction from image to text.
    pub lambda: f32,
    /// tau, or where it starts.
    pub temperature: f32,
    /// Learn `ln(1 / tau)`; the paper does not.
    pub learn_temperature: bool,
}

impl Default for Convirt {
    fn default() -> Self {
        Self { lambda: 0.75, temperature: 0.1, learn_temperature: false }
    }
}

impl Convirt {
    pub(super) fn bounds(&self) -> Vec<Bound> {
        vec![
            Bound::temperature("temperature", self.temperature),
            Bound::new("lambda", self.lambda, "0 to 1", (0.0..=1.0).contains(&self.lambda)),
        ]
    }

    pub(super) fn scalars(&self) -> Vec<Scalar> {
        learned_scale(self.temperature, self.learn_temperature)
    }

    pub(super) fn needs(&self) -> Needs {
        Needs::default()
    }

    pub(super) fn evaluate(&self, views: &Views<'_>, scalars: &[f32]) -> Gradients {
        let lambda = f64::from(self.lambda);
        across(views, scalars, inverse_temperature(self.temperature, scalars), (lambda, 1.0 - lambda))
    }
}

/// Images against texts, with the weights of the direction from images and of that from texts.
fn across(views: &Views<'_>, scalars: &[f32], scale: f32, weights: (f64, f64)) -> Gradients {
    let images = Unit::new(views.images, views.dim);
    let texts = Unit::new(views.texts, views.dim);
    let mut similarity = Similarity::new(&images, &texts, scale);
    let loss = contrast(&mut similarity.logits, views.relation, views.m(), weights);
    similarity.gradients(views, scalars.len(), loss)
}
