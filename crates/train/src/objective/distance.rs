//! The plain distance of partners, and what keeps it from collapsing.

use serde::{Deserialize, Serialize};

use super::rows::{Similarity, Unit};
use super::softmax::{Factors, NEGATIVES, Sums, weigh};
use super::views::{Gradients, Relation, Views};
use super::{Bound, Needs, Scalar};

/// Mean squared distance of partners on the unit sphere, `mean over positive pairs of 2 - 2 s_ip`.
///
/// On its own it is best served by towers that map everything to one point, and nothing in it says
/// otherwise. `uniformity` adds the known remedy (Wang and Isola 2020, where the distance is called
/// alignment): `uniformity * (U(images) + U(texts)) / 2` with `U(x) = ln mean exp(-2 |x_a - x_b|^2)`
/// over the pairs of one modality that share no text.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Distance {
    /// Weight of the uniformity of each modality; 0 for the distance alone.
    pub uniformity: f32,
}

/// The factor of the squared distance in the Gaussian of the uniformity, the one of the paper.
const SHARPNESS: f32 = 2.0;

impl Distance {
    pub(super) fn bounds(&self) -> Vec<Bound> {
        vec![Bound::new("uniformity", self.uniformity, "0 to 100", (0.0..=100.0).contains(&self.uniformity))]
    }

    pub(super) fn scalars(&self) -> Vec<Scalar> {
        Vec::new()
    }

    pub(super) fn needs(&self) -> Needs {
        Needs::default()
    }

    pub(super) fn evaluate(&self, views: &Views<'_>) -> Gradients {
        let dim = views.dim;
        let images = Unit::new(views.images, dim);
        let texts = Unit::new(views.texts, dim);
        let positives = views.positives();
        let weight = 1.0 / positives.len().max(1) as f64;
        let mut out = Gradients::zeros(views, 0);
        let mut loss = 0.0;
        for (i, j) in positives {
            let (a, b) = (images.row(i), texts.row(j));
            loss += weight * (2.0 - 2.0 * f64::from(diptych_kernels::dot(a, b)));
            add(&mut out.images[i * dim..][..dim], b, -2.0 * weight as f32);
            add(&mut out.texts[j * dim..][..dim], a, -2.0 * weight as f32);
        }
        images.backward(&mut out.images, 1.0);
        texts.backward(&mut out.texts, 1.0);
        if self.uniformity > 0.0 {
            let half = 0.5 * self.uniformity;
            loss += spread(&images, &views.kin_images(), half, &mut out.images);
            loss += spread(&texts, &views.kin_texts(), half, &mut out.texts);
        }
        out.loss = loss as f32;
        out
    }
}

fn add(to: &mut [f32], from: &[f32], factor: f32) {
    to.iter_mut().zip(from).for_each(|(t, f)| *t += factor * f);
}

/// `weight * U` of one modality; its gradient is added to `d`. 0 if all are kin.
fn spread(rows: &Unit, kin: &[bool], weight: f32, d: &mut [f32]) -> f64 {
    let n = rows.count();
    let relation: Vec<_> =
        kin.iter().map(|&kin| if kin { Relation::Neutral } else { Relation::Negative }).collect();
    let pairs = kin.iter().filter(|&&kin| !kin).count();
    if pairs == 0 {
        return 0.0;
    }
    // exp(-t |a - b|^2) = exp(2 t (cos - 1)).
    let mut similarity = Similarity::new(rows, rows, 2.0 * SHARPNESS);
    let sums = Sums::of_rows(&similarity.logits, &relation, n, NEGATIVES);
    let total: f64 = (0..n).filter(|&a| sums.sum[a] != 0.0).map(|a| sums.log_sum(a).exp()).sum();
    let factor = |a: usize| match sums.sum[a] {
        0.0 => 0.0,
        _ => (f64::from(weight) * f64::from(sums.top[a]).exp() / total) as f32,
    };
    let factors = (0..n).map(factor).collect();
    let rows = Factors::new(sums, factors);
    weigh(&mut similarity.logits, &relation, NEGATIVES, &rows, &Factors::none(n));
    let (left, right, _) = similarity.backward();
    add(d, &left, 1.0);
    add(d, &right, 1.0);
    f64::from(weight) * ((total / pairs as f64).ln() - 2.0 * f64::from(SHARPNESS))
}
