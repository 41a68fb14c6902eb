//! Canonical correlation of what two towers put out, to be raised by gradient.

use nalgebra::DMatrix;
use serde::{Deserialize, Serialize};

use super::cca::{Canonical, centred, regularization};
use super::views::{Gradients, Views};
use super::{Bound, Needs, ObjectiveError, Scalar};

/// Deep CCA (Andrew et al. 2013): `L = -(sum of the k largest singular values of T)` with T as in
/// [`super::Cca`], of the rows of every positive pair, which are not scaled to unit length.
///
/// The covariances are those of one batch: it should hold several times as many pairs as the rows have
/// dimensions, otherwise the regularisation decides. A gradient exists where the k-th and the next
/// singular value differ.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dcca {
    /// k; fewer if the rows have fewer dimensions.
    pub dims: usize,
    /// r1: added to the variance of every image dimension.
    pub image_regularization: f32,
    /// r2: added to the variance of every text dimension.
    pub text_regularization: f32,
}

impl Default for Dcca {
    fn default() -> Self {
        Self { dims: 128, image_regularization: 1e-3, text_regularization: 1e-3 }
    }
}

impl Dcca {
    pub(super) fn bounds(&self) -> Vec<Bound> {
        vec![
            Bound::new("dims", self.dims as f32, "at least 1", self.dims >= 1),
            regularization("image_regularization", self.image_regularization),
            regularization("text_regularization", self.text_regularization),
        ]
    }

    pub(super) fn scalars(&self) -> Vec<Scalar> {
        Vec::new()
    }

    pub(super) fn needs(&self) -> Needs {
        Needs::default()
    }

    pub(super) fn evaluate(&self, views: &Views<'_>) -> Result<Gradients, ObjectiveError> {
        let dim = views.dim;
        let mut out = Gradients::zeros(views, 0);
        let pairs = views.positives();
        if pairs.len() < 2 {
            return Ok(out);
        }
        if !views.images.iter().chain(views.texts).all(|x| x.is_finite()) {
            out.loss = f32::NAN;
            return Ok(out);
        }
        let rows = |of: &[f32], at: &dyn Fn(&(usize, usize)) -> usize| -> Vec<f32> {
            pairs.iter().flat_map(|pair| &of[at(pair) * dim..][..dim]).copied().collect()
        };
        let (images, texts) = (rows(views.images, &|&(i, _)| i), rows(views.texts, &|&(_, j)| j));
        let regularization = [self.image_regularization, self.text_regularization].map(f64::from);
        let c = Canonical::of(&images, &texts, pairs.len(), self.dims, regularization)?;
        out.loss = -c.correlations.iter().sum::<f64>() as f32;

        // With A and B the directions, as columns, and D the correlations, the sum of correlations has
        // the gradients A B^T by S12, -A D A^T / 2 by S11 and -B D B^T / 2 by S22.
        let (x, y) = (centred(&images, &c.image_mean), centred(&texts, &c.text_mean));
        let (a, b) = (&c.image_directions, &c.text_directions);
        let (ax, by) = (a.transpose() * x, b.transpose() * y);
        let scaled = |m: &DMatrix<f64>| {
            let mut m = m.clone();
            m.row_iter_mut().zip(&c.correlations).for_each(|(mut row, r)| row *= *r);
            m
        };
        let d_images = a * (scaled(&ax) - &by);
        let d_texts = b * (scaled(&by) - &ax);
        let weight = 1.0 / (pairs.len() - 1) as f64;
        let scatter = |to: &mut [f32], row: usize, d: nalgebra::DVectorView<'_, f64>| {
            to[row * dim..][..dim].iter_mut().zip(&d).for_each(|(t, d)| *t += (weight * d) as f32);
        };
        for (pair, &(i, j)) in pairs.iter().enumerate() {
            scatter(&mut out.images, i, d_images.column(pair));
            scatter(&mut out.texts, j, d_texts.column(pair));
        }
        Ok(out)
    }
}
