//! The symmetric contrastive objective and its gradient.
//!
//! Owns: InfoNCE with a learned temperature over a batch of pairs, as in CLIP (Radford et al. 2021)
//! and, before it, ConVIRT (Zhang et al. 2020). Deliberately absent: the towers.

use diptych_kernels::{Mat, MatMut, dot, matmul};

/// `ln 100`: the temperature never falls below 1/100, as in the CLIP reference implementation.
pub(crate) const LOGIT_SCALE_MAX: f32 = 4.605_170_2;

/// The loss of a batch and its gradients.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Contrast {
    /// Mean of both cross-entropies, in nats; `ln n` for a model that knows nothing.
    pub loss: f32,
    /// Gradient of the image rows, before their normalisation, `[n, dim]`.
    pub d_images: Vec<f32>,
    /// Gradient of the text rows, likewise.
    pub d_texts: Vec<f32>,
    /// Gradient of `logit_scale`.
    pub d_logit_scale: f32,
}

/// `L = (CE(s/tau, I) + CE(s^T/tau, I)) / 2` with `s_ij` the cosine of image i and text j and
/// `1/tau = exp(logit_scale)`.
///
/// Pairs with the same `group` carry the same text, so neither is a wrong answer for the other: such
/// `s_ij`, i != j, are left out of both sums. Distinct groups give plain InfoNCE.
pub(crate) fn info_nce(images: &[f32], texts: &[f32], groups: &[u64], logit_scale: f32) -> Contrast {
    let n = groups.len();
    let dim = images.len() / n;
    let (image_norms, images) = unit_rows(images, dim);
    let (text_norms, texts) = unit_rows(texts, dim);
    let scale = logit_scale.exp();
    let mut logits = vec![0f32; n * n];
    matmul(
        MatMut::new(&mut logits, n),
        (n, n, dim),
        Mat::new(&images, dim),
        Mat::new(&texts, dim).t(),
        false,
    );
    logits.iter_mut().for_each(|s| *s *= scale);
    let hidden = |i: usize, j: usize| i != j && groups[i] == groups[j];

    // d: gradient of the logits, (row softmax + column softmax - 2 identity) / 2n.
    let mut d = vec![0f32; n * n];
    let mut loss = 0f64;
    let half = 0.5 / n as f64;
    for i in 0..n {
        for by_row in [true, false] {
            let cell = |j: usize| if by_row { i * n + j } else { j * n + i };
            let others = || (0..n).filter(|&j| !hidden(i, j));
            let top = others().map(|j| logits[cell(j)]).fold(f32::NEG_INFINITY, f32::max);
            let norm: f64 = others().map(|j| f64::from(logits[cell(j)] - top).exp()).sum();
            loss += half * (norm.ln() + f64::from(top - logits[i * n + i]));
            for j in others() {
                let p = f64::from(logits[cell(j)] - top).exp() / norm;
                d[cell(j)] += (half * (p - f64::from(u8::from(i == j)))) as f32;
            }
        }
    }
    let d_logit_scale: f64 = d.iter().zip(&logits).map(|(d, s)| f64::from(*d) * f64::from(*s)).sum();
    d.iter_mut().for_each(|d| *d *= scale);
    let mut d_images = vec![0f32; n * dim];
    matmul(MatMut::new(&mut d_images, dim), (n, dim, n), Mat::new(&d, n), Mat::new(&texts, dim), false);
    let mut d_texts = vec![0f32; n * dim];
    matmul(MatMut::new(&mut d_texts, dim), (n, dim, n), Mat::new(&d, n).t(), Mat::new(&images, dim), false);
    unit_rows_backward(&mut d_images, &images, &image_norms, dim);
    unit_rows_backward(&mut d_texts, &texts, &text_norms, dim);
    Contrast { loss: loss as f32, d_images, d_texts, d_logit_scale: d_logit_scale as f32 }
}

/// The length of every row, and the rows scaled to unit length. A zero row becomes NaN, which the
/// trainer reports as a loss that is not finite.
pub(crate) fn unit_rows(x: &[f32], dim: usize) -> (Vec<f32>, Vec<f32>) {
    let norms: Vec<f32> = x.chunks_exact(dim).map(|row| dot(row, row).sqrt()).collect();
    let unit = x.chunks_exact(dim).zip(&norms).flat_map(|(row, norm)| row.iter().map(move |v| v / norm));
    (norms.clone(), unit.collect())
}

/// `d <- (d - <d, u> u) / norm` for every row u of unit length.
fn unit_rows_backward(d: &mut [f32], unit: &[f32], norms: &[f32], dim: usize) {
    for ((d, u), norm) in d.chunks_exact_mut(dim).zip(unit.chunks_exact(dim)).zip(norms) {
        let along = dot(d, u);
        for (d, u) in d.iter_mut().zip(u) {
            *d = (*d - along * u) / norm;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::normal;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    /// The equation read off the page, in f64.
    fn slow(images: &[f32], texts: &[f32], groups: &[u64], logit_scale: f32) -> f64 {
        let n = groups.len();
        let dim = images.len() / n;
        let row =
            |m: &[f32], i: usize| -> Vec<f64> { m[i * dim..][..dim].iter().map(|&v| f64::from(v)).collect() };
        let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let logit = |i: usize, j: usize| {
            let (a, b) = (row(images, i), row(texts, j));
            f64::from(logit_scale).exp() * product(&a, &b) / (product(&a, &a) * product(&b, &b)).sqrt()
        };
        let mut loss = 0.0;
        for i in 0..n {
            let counts = |j: &usize| *j == i || groups[*j] != groups[i];
            let to_text: f64 = (0..n).filter(counts).map(|j| logit(i, j).exp()).sum();
            let to_image: f64 = (0..n).filter(counts).map(|j| logit(j, i).exp()).sum();
            loss -= (logit(i, i).exp() / to_text).ln() + (logit(i, i).exp() / to_image).ln();
        }
        loss / (2 * n) as f64
    }

    fn example(n: usize) -> (Vec<f32>, Vec<f32>) {
        let rng = &mut ChaCha8Rng::seed_from_u64(5);
        ((0..n * 4).map(|_| normal(rng)).collect(), (0..n * 4).map(|_| normal(rng)).collect())
    }

    #[test]
    fn the_loss_is_the_equation() {
        let (images, texts) = example(7);
        for groups in [vec![0, 1, 2, 3, 4, 5, 6], vec![0, 1, 0, 3, 4, 1, 1]] {
            let got = info_nce(&images, &texts, &groups, 1.3).loss;
            let expected = slow(&images, &texts, &groups, 1.3);
            assert!((f64::from(got) - expected).abs() < 1e-5, "{got} instead of {expected}");
        }
    }

    #[test]
    fn a_model_that_knows_nothing_loses_ln_n() {
        let same = vec![1.0; 8 * 4];
        let got = info_nce(&same, &same, &[0, 1, 2, 3, 4, 5, 6, 7], 2.0).loss;
        assert!((got - 8f32.ln()).abs() < 1e-5, "{got}");
    }

    #[test]
    fn gradients_match_finite_differences_of_the_equation() {
        let (images, texts) = example(5);
        let groups = [0, 1, 2, 1, 4];
        let contrast = info_nce(&images, &texts, &groups, 0.9);
        let step = 1e-3f32;
        let slope = |f: &dyn Fn(f32) -> f64| (f(step) - f(-step)) / f64::from(2.0 * step);
        for at in 0..images.len() {
            let moved = |values: &[f32], by: f32| {
                let mut values = values.to_vec();
                values[at] += by;
                values
            };
            let d = slope(&|by| slow(&moved(&images, by), &texts, &groups, 0.9));
            assert!((d - f64::from(contrast.d_images[at])).abs() < 1e-4, "image value {at}");
            let d = slope(&|by| slow(&images, &moved(&texts, by), &groups, 0.9));
            assert!((d - f64::from(contrast.d_texts[at])).abs() < 1e-4, "text value {at}");
        }
        let d = slope(&|by| slow(&images, &texts, &groups, 0.9 + by));
        assert!((d - f64::from(contrast.d_logit_scale)).abs() < 1e-4, "logit_scale");
    }
}
