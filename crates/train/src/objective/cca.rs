//! Canonical correlation analysis in closed form.
//!
//! Owns: the directions along which two sets of features are most correlated, in double precision, and
//! the projections made of them. Deliberately absent: the gradient (see `dcca`).

use nalgebra::{Cholesky, DMatrix, DVector, Dyn};
use serde::{Deserialize, Serialize};

use super::{Bound, ObjectiveError};

/// How canonical correlation is computed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CcaOptions {
    /// Dimensions of the shared space, k; fewer if either side has fewer.
    pub dims: usize,
    /// r1, added to the variance of every image feature, as a multiple of their mean variance. With few
    /// pairs a few times the mean variance pays off.
    pub image_regularization: f32,
    /// r2, likewise for text features.
    pub text_regularization: f32,
    /// Coordinate i is multiplied by `correlation_i ^ power`, so that cosines listen most to what both
    /// sides agree on; after Gong et al. 2014, who raise eigenvalues to the fourth power. 0 leaves every
    /// coordinate its variance of 1. At 1 the product of two coordinates counts as its share in the
    /// explained variance, the square of the correlation.
    pub power: f32,
}

impl Default for CcaOptions {
    fn default() -> Self {
        Self { dims: 256, image_regularization: 1.0, text_regularization: 1.0, power: 1.0 }
    }
}

impl CcaOptions {
    pub(super) fn bounds(&self) -> Vec<Bound> {
        vec![
            Bound::new("dims", self.dims as f32, "at least 1", self.dims >= 1),
            regularization("image_regularization", self.image_regularization),
            regularization("text_regularization", self.text_regularization),
            Bound::new("power", self.power, "0 to 8", (0.0..=8.0).contains(&self.power)),
        ]
    }
}

pub(super) fn regularization(option: &'static str, r: f32) -> Bound {
    Bound::new(option, r, "0 or more", r >= 0.0 && r.is_finite())
}

/// `y = W x + b`.
#[derive(Debug, Clone, PartialEq)]
pub struct Affine {
    /// Length of x.
    pub inputs: usize,
    /// Length of y.
    pub outputs: usize,
    /// W, `[outputs, inputs]`.
    pub weight: Vec<f32>,
    /// b, `[outputs]`.
    pub bias: Vec<f32>,
}

impl Affine {
    /// Rows `[n, inputs]` to rows `[n, outputs]`.
    ///
    /// # Panics
    /// If `rows` does not hold whole rows.
    pub fn apply(&self, rows: &[f32]) -> Vec<f32> {
        assert!(rows.len().is_multiple_of(self.inputs), "{} elements in rows of {}", rows.len(), self.inputs);
        let n = rows.len() / self.inputs;
        let mut out = self.bias.repeat(n);
        let weight = diptych_kernels::Mat::new(&self.weight, self.inputs).t();
        let rows = super::rows::Operand::rows(rows, self.inputs);
        super::rows::product(&mut out, self.outputs, (n, self.outputs, self.inputs), rows, weight, true);
        out
    }

    /// `scale_i (direction_i . (x - mean))` for every column i of `directions`.
    fn new(directions: &DMatrix<f64>, mean: &DVector<f64>, scales: &[f64]) -> Self {
        let (inputs, outputs) = directions.shape();
        let mut affine = Self { inputs, outputs, weight: Vec::new(), bias: Vec::new() };
        for (direction, scale) in directions.column_iter().zip(scales) {
            affine.weight.extend(direction.iter().map(|w| (scale * w) as f32));
            affine.bias.push((-scale * direction.dot(mean)) as f32);
        }
        affine
    }
}

/// The shared space of canonical correlation analysis (Hotelling 1936, regularised as by Vinod 1976).
///
/// With S11 and S22 the covariances of images and texts and S12 that between them, the directions are
/// the singular vectors of `T = (S11 + r1 I)^-1/2 S12 (S22 + r2 I)^-1/2`, brought back by the roots; the
/// correlations are its singular values.
#[derive(Debug, Clone, PartialEq)]
pub struct Cca {
    /// Projects image features.
    pub image: Affine,
    /// Projects text features.
    pub text: Affine,
    /// Canonical correlations, largest first, one for each output.
    pub correlations: Vec<f32>,
}

impl Cca {
    /// The projections that n pairs of features, `images` `[n, p]` and `texts` `[n, q]`, call for.
    ///
    /// # Errors
    /// If there are fewer than two pairs, the lengths do not fit, features are not finite, or a
    /// covariance is singular.
    pub fn fit(
        images: &[f32],
        texts: &[f32],
        n: usize,
        options: &CcaOptions,
    ) -> Result<Self, ObjectiveError> {
        Self::solve(images, texts, n, options, true)
    }

    /// [`Cca::fit`] of features whose mean is left in, for layers without a bias: the mean becomes a
    /// direction of its own, and all others are free of it.
    pub(crate) fn fit_through_origin(
        images: &[f32],
        texts: &[f32],
        n: usize,
        options: &CcaOptions,
    ) -> Result<Self, ObjectiveError> {
        Self::solve(images, texts, n, options, false)
    }

    fn solve(
        images: &[f32],
        texts: &[f32],
        n: usize,
        options: &CcaOptions,
        centred: bool,
    ) -> Result<Self, ObjectiveError> {
        let odd = !images.len().is_multiple_of(n) || !texts.len().is_multiple_of(n);
        if n < 2 || images.is_empty() || texts.is_empty() || odd {
            return Err(failed(format!(
                "{} image and {} text features do not make two or more pairs of {n}; give one row of each per pair",
                images.len(),
                texts.len()
            )));
        }
        let regularization = [
            f64::from(options.image_regularization) * mean_variance(images, n),
            f64::from(options.text_regularization) * mean_variance(texts, n),
        ];
        let means = [images, texts]
            .map(|rows| if centred { mean(rows, rows.len() / n) } else { DVector::zeros(rows.len() / n) });
        let c = Canonical::about(means, images, texts, n, options.dims, regularization)?;
        let scales: Vec<f64> = c.correlations.iter().map(|r| r.powf(f64::from(options.power))).collect();
        Ok(Self {
            image: Affine::new(&c.image_directions, &c.image_mean, &scales),
            text: Affine::new(&c.text_directions, &c.text_mean, &scales),
            correlations: c.correlations.iter().map(|&r| r as f32).collect(),
        })
    }
}

/// The variance of a feature over n rows, in the mean over all features.
fn mean_variance(rows: &[f32], n: usize) -> f64 {
    let width = rows.len() / n;
    let (mut sums, mut squares) = (vec![0f64; width], vec![0f64; width]);
    for row in rows.chunks_exact(width) {
        for ((sum, square), &v) in sums.iter_mut().zip(&mut squares).zip(row) {
            *sum += f64::from(v);
            *square += f64::from(v) * f64::from(v);
        }
    }
    let n = n as f64;
    let variances = sums.iter().zip(&squares).map(|(sum, square)| (square - sum * sum / n) / n);
    variances.sum::<f64>() / width as f64
}

/// Canonical directions in double precision.
pub(super) struct Canonical {
    pub image_mean: DVector<f64>,
    pub text_mean: DVector<f64>,
    /// `[p, k]`: column i is the i-th direction.
    pub image_directions: DMatrix<f64>,
    /// `[q, k]`.
    pub text_directions: DMatrix<f64>,
    /// `[k]`, largest first.
    pub correlations: Vec<f64>,
}

impl Canonical {
    /// Of n >= 2 pairs of rows.
    pub fn of(
        images: &[f32],
        texts: &[f32],
        n: usize,
        dims: usize,
        regularization: [f64; 2],
    ) -> Result<Self, ObjectiveError> {
        let means = [images, texts].map(|rows| mean(rows, rows.len() / n));
        Self::about(means, images, texts, n, dims, regularization)
    }

    /// [`Canonical::of`], with what is taken for the means of images and texts.
    ///
    /// Instead of the inverse roots, the inverse Cholesky factors are used: they differ by a rotation,
    /// which neither the singular values nor the directions see, and cost a fraction.
    fn about(
        [image_mean, text_mean]: [DVector<f64>; 2],
        images: &[f32],
        texts: &[f32],
        n: usize,
        dims: usize,
        [r1, r2]: [f64; 2],
    ) -> Result<Self, ObjectiveError> {
        let (p, q) = (image_mean.len(), text_mean.len());
        let cross = |a, a_mean, b, b_mean| covariance(a, a_mean, b, b_mean, n);
        let (s11, (s22, s12)) = rayon::join(
            || cross(images, &image_mean, images, &image_mean),
            || {
                rayon::join(
                    || cross(texts, &text_mean, texts, &text_mean),
                    || cross(images, &image_mean, texts, &text_mean),
                )
            },
        );
        let (l1, l2) = (factor(s11, r1, "image")?, factor(s22, r2, "text")?);
        let solved = "a Cholesky factor has no zero on its diagonal";
        let half = l1.solve_lower_triangular(&s12).expect(solved);
        let t = l2.solve_lower_triangular(&half.transpose()).expect(solved).transpose();
        let k = dims.min(p).min(q);
        let (u, correlations, v) = if p <= q {
            leading(&t, k)
        } else {
            let (v, correlations, u) = leading(&t.transpose(), k);
            (u, correlations, v)
        };
        Ok(Self {
            image_mean,
            text_mean,
            image_directions: l1.tr_solve_lower_triangular(&u).expect(solved),
            text_directions: l2.tr_solve_lower_triangular(&v).expect(solved),
            correlations,
        })
    }
}

fn failed(reason: String) -> ObjectiveError {
    ObjectiveError::Correlation { reason }
}

fn mean(rows: &[f32], dim: usize) -> DVector<f64> {
    let mut mean = DVector::zeros(dim);
    for row in rows.chunks_exact(dim) {
        mean.iter_mut().zip(row).for_each(|(m, x)| *m += f64::from(*x));
    }
    mean / (rows.len() / dim) as f64
}

/// Rows less their mean, as columns: `[dim, rows]`.
pub(super) fn centred(rows: &[f32], mean: &DVector<f64>) -> DMatrix<f64> {
    let dim = mean.len();
    let values = rows.chunks_exact(dim).flat_map(|row| row.iter().zip(mean).map(|(x, m)| f64::from(*x) - m));
    DMatrix::from_iterator(dim, rows.len() / dim, values)
}

/// `sum (a - mean a)(b - mean b)^T / (n - 1)`, some rows at a time to bound the memory.
fn covariance(a: &[f32], a_mean: &DVector<f64>, b: &[f32], b_mean: &DVector<f64>, n: usize) -> DMatrix<f64> {
    const ROWS: usize = 4096;
    let (p, q) = (a_mean.len(), b_mean.len());
    let mut sum = DMatrix::zeros(p, q);
    for (a, b) in a.chunks(ROWS * p).zip(b.chunks(ROWS * q)) {
        let b = centred(b, b_mean).transpose();
        sum.gemm(1.0 / (n - 1) as f64, &centred(a, a_mean), &b, 1.0);
    }
    sum
}

/// The lower Cholesky factor of `s + r I`.
fn factor(mut s: DMatrix<f64>, r: f64, side: &str) -> Result<DMatrix<f64>, ObjectiveError> {
    let dim = s.nrows();
    let largest = s.diagonal().max();
    for i in 0..dim {
        s[(i, i)] += r;
    }
    let cholesky: Option<Cholesky<f64, Dyn>> = s.cholesky();
    let l = cholesky.map(Cholesky::unpack);
    // Rounding can leave a tiny pivot where there should be none.
    let threshold = 1e-13 * (largest + r);
    match l {
        Some(l) if l.diagonal().iter().all(|pivot| pivot * pivot > threshold) => Ok(l),
        _ => Err(failed(format!(
            "the covariance of the {side} features is singular or not finite; raise {side}_regularization above {r}, or give more pairs than the {dim} features"
        ))),
    }
}

/// The k leading left singular vectors `[p, k]`, singular values, and right singular vectors `[q, k]` of
/// a matrix `[p, q]` with p <= q, the largest first.
fn leading(t: &DMatrix<f64>, k: usize) -> (DMatrix<f64>, Vec<f64>, DMatrix<f64>) {
    let eigen = (t * t.transpose()).symmetric_eigen();
    let mut order: Vec<usize> = (0..t.nrows()).collect();
    order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
    let mut u =
        DMatrix::from_columns(&order[..k].iter().map(|&i| eigen.eigenvectors.column(i)).collect::<Vec<_>>());
    // An eigenvector has no sign of its own: its largest component shall be positive.
    for mut column in u.column_iter_mut() {
        if column[column.iamax()] < 0.0 {
            column.neg_mut();
        }
    }
    // T^T U has orthogonal columns. Householder reflections make them orthonormal even where a singular
    // value, the length of a column, vanishes.
    let qr = (t.transpose() * &u).qr();
    let (mut v, r) = (qr.q(), qr.r());
    for (i, mut column) in v.column_iter_mut().enumerate() {
        if r[(i, i)] < 0.0 {
            column.neg_mut();
        }
    }
    (u, (0..k).map(|i| r[(i, i)].abs()).collect(), v)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::super::reference::canonical_correlations;
    use super::*;
    use crate::params::normal;

    const N: usize = 16;
    const CORRELATIONS: [f64; 3] = [0.9, 0.5, 0.2];

    /// Entry of the Hadamard matrix of order 16: columns 1 to 15 have mean 0 and are orthogonal.
    fn hadamard(row: usize, column: usize) -> f64 {
        if (row & column).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 }
    }

    /// Images of 3 latents, and texts of as many with exactly the known correlations beside one with
    /// none, each mixed by an invertible matrix and moved.
    fn constructed(image_mixing: &[f64; 9]) -> (Vec<f32>, Vec<f32>) {
        let text_mixing = [1.0, 0.5, 0.0, -1.0, 0.0, 2.0, 0.3, 0.0, 0.7, 0.0, 1.5, 0.2, 0.0, -0.4, 0.0, 1.0];
        let (mut images, mut texts) = (Vec::new(), Vec::new());
        for row in 0..N {
            let x: Vec<f64> = (0..3).map(|i| hadamard(row, i + 1)).collect();
            let mut y: Vec<f64> = (0..3)
                .map(|i| {
                    let r = CORRELATIONS[i];
                    r * x[i] + (1.0 - r * r).sqrt() * hadamard(row, i + 8)
                })
                .collect();
            y.push(hadamard(row, 15));
            let mixed = |mixing: &[f64], latents: &[f64]| -> Vec<f32> {
                let rows = mixing.chunks(latents.len());
                rows.map(|m| (5.0 + m.iter().zip(latents).map(|(m, z)| m * z).sum::<f64>()) as f32).collect()
            };
            images.extend(mixed(image_mixing, &x));
            texts.extend(mixed(&text_mixing, &y));
        }
        (images, texts)
    }

    const PLAIN: [f64; 9] = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];
    const MIXED: [f64; 9] = [2.0, 1.0, -0.5, 0.0, 0.3, 4.0, 1.0, -1.0, 0.5];

    fn exact(power: f32) -> CcaOptions {
        CcaOptions { dims: 3, image_regularization: 0.0, text_regularization: 0.0, power }
    }

    /// `sum over rows of a_i b_j / (n - 1)`: the projections have mean 0.
    fn moment(a: &[f32], b: &[f32], i: usize, j: usize) -> f64 {
        a.chunks(3).zip(b.chunks(3)).map(|(a, b)| f64::from(a[i]) * f64::from(b[j])).sum::<f64>()
            / (N - 1) as f64
    }

    #[test]
    fn known_correlations_are_found_whatever_the_features_are_mixed_by() {
        for mixing in [PLAIN, MIXED] {
            let (images, texts) = constructed(&mixing);
            for (a, b) in [(&images, &texts), (&texts, &images)] {
                let cca = Cca::fit(a, b, N, &exact(0.0)).unwrap();
                for (found, expected) in cca.correlations.iter().zip(CORRELATIONS) {
                    assert!((f64::from(*found) - expected).abs() < 1e-5, "{:?}", cca.correlations);
                }
            }
        }
    }

    #[test]
    fn through_the_origin_the_mean_is_a_direction_and_the_others_are_free_of_it() {
        let (images, texts) = constructed(&MIXED);
        let with_one = |rows: &[f32], width: usize| -> Vec<f32> {
            rows.chunks(width).flat_map(|row| [row, [1.0].as_slice()].concat()).collect()
        };
        let (images, texts) = (with_one(&images, 3), with_one(&texts, 4));
        let options = CcaOptions { dims: 4, ..exact(0.0) };
        let cca = Cca::fit_through_origin(&images, &texts, N, &options).unwrap();
        for (found, expected) in cca.correlations.iter().zip([1.0].into_iter().chain(CORRELATIONS)) {
            assert!((f64::from(*found) - expected).abs() < 1e-4, "{:?}", cca.correlations);
        }
        for side in [cca.image.apply(&images), cca.text.apply(&texts)] {
            let mean = |i: usize| side.chunks(4).map(|row| row[i]).sum::<f32>() / N as f32;
            assert!(mean(0).abs() > 0.9 && (1..4).all(|i| mean(i).abs() < 1e-3), "{side:?}");
        }
        assert!([cca.image, cca.text].iter().all(|map| map.bias.iter().all(|b| *b == 0.0)));
    }

    #[test]
    fn projections_are_uncorrelated_but_for_partners() {
        let (images, texts) = constructed(&MIXED);
        let cca = Cca::fit(&images, &texts, N, &exact(0.0)).unwrap();
        let (x, y) = (cca.image.apply(&images), cca.text.apply(&texts));
        for side in [&x, &y] {
            let sums = (0..3).map(|i| side.chunks(3).map(|row| row[i]).sum::<f32>());
            assert!(sums.into_iter().all(|sum| sum.abs() < 1e-4), "{side:?}");
        }
        for (i, r) in CORRELATIONS.into_iter().enumerate() {
            for j in 0..3 {
                let same = f64::from(u8::from(i == j));
                assert!((moment(&x, &x, i, j) - same).abs() < 1e-4);
                assert!((moment(&y, &y, i, j) - same).abs() < 1e-4);
                assert!((moment(&x, &y, i, j) - same * r).abs() < 1e-4);
            }
        }
    }

    #[test]
    fn an_invertible_map_of_the_features_changes_no_projection() {
        let ((plain, texts), (mixed, _)) = (constructed(&PLAIN), constructed(&MIXED));
        let first = Cca::fit(&plain, &texts, N, &exact(1.0)).unwrap();
        let second = Cca::fit(&mixed, &texts, N, &exact(1.0)).unwrap();
        let (a, b) = (first.image.apply(&plain), second.image.apply(&mixed));
        let (c, d) = (first.text.apply(&texts), second.text.apply(&texts));
        for i in 0..3 {
            // A direction has no sign of its own, but both sides share it.
            let sign = (moment(&a, &b, i, i).signum(), moment(&c, &d, i, i).signum());
            assert_eq!(sign.0, sign.1);
            for (a, b) in [(&a, &b), (&c, &d)] {
                let pairs = a.chunks(3).zip(b.chunks(3));
                assert!(
                    pairs.into_iter().all(|(a, b)| (f64::from(a[i]) - sign.0 * f64::from(b[i])).abs() < 1e-4)
                );
            }
        }
    }

    #[test]
    fn power_scales_each_coordinate_by_its_correlation() {
        let (images, texts) = constructed(&MIXED);
        let cca = Cca::fit(&images, &texts, N, &exact(2.0)).unwrap();
        let (x, y) = (cca.image.apply(&images), cca.text.apply(&texts));
        for (i, r) in CORRELATIONS.into_iter().enumerate() {
            assert!((moment(&x, &x, i, i) - r.powi(4)).abs() < 1e-4);
            assert!((moment(&y, &y, i, i) - r.powi(4)).abs() < 1e-4);
            assert!((moment(&x, &y, i, i) - r.powi(5)).abs() < 1e-4);
        }
    }

    #[test]
    fn regularised_correlations_are_those_of_the_equation() {
        let rng = &mut ChaCha8Rng::seed_from_u64(2);
        // More rows than a block of the covariance holds.
        let n = 5000;
        let images: Vec<f32> = (0..n * 5).map(|_| normal(rng)).collect();
        let texts: Vec<f32> = images
            .chunks(5)
            .flat_map(|x| [x[0] + normal(rng), x[1] - x[2] + 2.0 * normal(rng), normal(rng)])
            .collect();
        let options = CcaOptions { dims: 9, image_regularization: 0.2, text_regularization: 0.5, power: 1.0 };
        let cca = Cca::fit(&images, &texts, n, &options).unwrap();
        let rows = |of: &[f32], dim: usize| -> Vec<Vec<f64>> {
            of.chunks(dim).map(|row| row.iter().map(|&x| f64::from(x)).collect()).collect()
        };
        let r = [(0.2f32, &images), (0.5f32, &texts)].map(|(r, rows)| f64::from(r) * mean_variance(rows, n));
        let expected = canonical_correlations(&rows(&images, 5), &rows(&texts, 3), r);
        assert_eq!((cca.correlations.len(), cca.image.outputs, cca.text.outputs), (3, 3, 3));
        for (found, expected) in cca.correlations.iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-6, "{:?}", cca.correlations);
        }
    }

    #[test]
    fn regularisation_is_in_units_of_the_mean_variance() {
        let rows = [1.0, 10.0, 3.0, 14.0];
        assert!((mean_variance(&rows, 2) - (1.0 + 4.0) / 2.0).abs() < 1e-12);
        let (images, texts) = constructed(&MIXED);
        let options = CcaOptions { image_regularization: 0.3, text_regularization: 0.2, ..exact(0.0) };
        let large: Vec<f32> = images.iter().map(|v| 100.0 * v).collect();
        let [one, other] =
            [&images, &large].map(|rows| Cca::fit(rows, &texts, N, &options).unwrap().correlations);
        assert!(one.iter().zip(&other).all(|(a, b)| (a - b).abs() < 1e-5), "{one:?} {other:?}");
    }

    #[test]
    fn features_that_share_less_than_all_still_have_orthonormal_directions() {
        // Texts of the first latent alone, beside two that no image knows.
        let images: Vec<f32> = (0..N).flat_map(|row| [1, 2, 3].map(|c| hadamard(row, c) as f32)).collect();
        let texts: Vec<f32> = (0..N).flat_map(|row| [1, 8, 9].map(|c| hadamard(row, c) as f32)).collect();
        let cca = Cca::fit(&images, &texts, N, &exact(0.0)).unwrap();
        assert!((cca.correlations[0] - 1.0).abs() < 1e-6 && cca.correlations[1].abs() < 1e-6);
        let y = cca.text.apply(&texts);
        for i in 0..3 {
            for j in 0..3 {
                assert!((moment(&y, &y, i, j) - f64::from(u8::from(i == j))).abs() < 1e-4);
            }
        }
    }

    #[test]
    fn what_has_no_solution_is_refused_with_the_remedy() {
        let (images, texts) = constructed(&PLAIN);
        // A feature twice.
        let doubled: Vec<f32> = images.chunks(3).flat_map(|x| [x[0], x[1], x[2], x[1]]).collect();
        let error = Cca::fit(&doubled, &texts, N, &exact(0.0)).unwrap_err();
        assert!(error.to_string().contains("raise image_regularization"), "{error}");
        let regularised = CcaOptions { image_regularization: 1e-3, ..exact(0.0) };
        let cca = Cca::fit(&doubled, &texts, N, &regularised).unwrap();
        assert!((cca.correlations[0] - 0.9).abs() < 1e-2);
        let mut broken = texts.clone();
        broken[7] = f32::NAN;
        assert!(Cca::fit(&images, &broken, N, &regularised).is_err());
        assert!(Cca::fit(&images[..3], &texts[..4], 1, &regularised).is_err());
        assert!(Cca::fit(&images, &texts, N - 1, &regularised).is_err());
    }
}
