//! One byte per dimension: vectors to codes, and queries to a form that can be scored against codes.
//!
//! Owns: the quantiser. A vector is centred on the mean of its base, rotated by a fixed orthogonal
//! transform, and divided by one step. Centring takes away the few large coordinates that all CLIP
//! vectors of one modality share and that would waste the range of a byte; it moves every inner
//! product with one query by the same amount, so ranking is kept. The rotation spreads the rest evenly
//! over all coordinates, so one step serves them all and the distance of two codes is one integer.
//! Deliberately absent: arithmetic on codes (`kernel`), exact scores (computed from the vectors).
//!
//! The rotation is a cascade of sign changes and fast Walsh-Hadamard transforms, O(d log d), as in
//! Ailon & Chazelle, "The fast Johnson-Lindenstrauss transform" (2009). Where the dimension is not a
//! power of two, each round transforms an overlapping head and tail.

use crate::mix::mix;

use super::kernel::{BLOCK, QUERY_MAX, QueryRow};

/// The byte of a coordinate that is exactly on the mean.
const ZERO: f32 = 128.0;
/// Largest step number in either direction.
const STEPS: f32 = 127.0;
/// Vectors looked at to choose the mean and the step.
const SAMPLE: usize = 16_384;
/// Vectors looked at to see whether a step suits them.
const SUITED: usize = 1024;
/// Times the error of rounding alone that a step that suits may leave.
const SUITS: f64 = 4.0;
/// Standard deviations of the error of one product that a margin between two allows for.
const DEVIATIONS: f32 = 4.0;
/// Rounds of sign changes and transforms.
const ROUNDS: u64 = 2;

/// Vectors to codes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Quantizer {
    /// The mean of the base.
    mean: Vec<f32>,
    /// What one step of a code stands for.
    step: f32,
    rotation: Rotation,
}

/// A query in the form that is scored against codes. Products rank as scores do; what they are off by
/// is the same for all.
#[derive(Debug, Clone)]
pub(crate) struct CodeQuery {
    pub(crate) row: QueryRow,
    /// How far two products may be off, against each other, for half of the code and for all of it.
    pub(crate) margins: Margins,
}

/// Differences of products that rounding to codes may have made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Margins {
    pub(crate) coarse: i32,
    pub(crate) fine: i32,
}

impl Quantizer {
    /// The quantiser for a base, from a sample of it; `vector(i)` is the `i`-th of `n` vectors of
    /// `dim` finite components.
    pub(crate) fn train<'a>(dim: usize, n: usize, vector: impl Fn(usize) -> &'a [f32]) -> Self {
        let sample: Vec<usize> = (0..n.min(SAMPLE)).map(|i| i * n / n.min(SAMPLE)).collect();
        let mut sums = vec![0.0f64; dim];
        for &i in &sample {
            for (sum, &v) in sums.iter_mut().zip(vector(i)) {
                *sum += f64::from(v);
            }
        }
        let count = sample.len().max(1) as f64;
        let mean: Vec<f32> = sums.iter().map(|sum| (sum / count) as f32).collect();
        let rotation = Rotation::new(dim);
        let mut spread = Vec::with_capacity(sample.len().min(1024) * dim);
        for &i in sample.iter().step_by(sample.len().div_ceil(1024).max(1)) {
            let mut centred: Vec<f32> = vector(i).iter().zip(&mean).map(|(v, m)| v - m).collect();
            rotation.apply(&mut centred);
            spread.extend_from_slice(&centred);
        }
        Self { mean, step: best_step(&spread), rotation }
    }

    /// The quantiser of a mean and a step that [`Quantizer::train`] found.
    pub(crate) fn from_parts(mean: Vec<f32>, step: f32) -> Self {
        let rotation = Rotation::new(mean.len());
        Self { mean, step, rotation }
    }

    /// Whether `n` vectors are coded about as well as those that the step was chosen for, judged by a
    /// sample: rounding to a step leaves a squared error of a twelfth of its square, and coordinates that
    /// are cut off much more.
    pub(crate) fn suits<'a>(&self, n: usize, vector: impl Fn(usize) -> &'a [f32]) -> bool {
        let sample = n.min(SUITED);
        let mut error = 0.0f64;
        for i in 0..sample {
            let pairs = vector(i * n / sample).iter().zip(&self.mean);
            let mut values: Vec<f32> = pairs.map(|(v, m)| v - m).collect();
            self.rotation.apply(&mut values);
            let off = |v: f32| v - (v / self.step).round().clamp(-STEPS, STEPS) * self.step;
            error += values.iter().map(|&v| f64::from(off(v)).powi(2)).sum::<f64>();
        }
        let rounding = f64::from(self.step).powi(2) / 12.0;
        error <= SUITS * rounding * (sample * self.mean.len()) as f64
    }

    pub(crate) fn mean(&self) -> &[f32] {
        &self.mean
    }

    pub(crate) fn step(&self) -> f32 {
        self.step
    }

    /// Bytes of a code.
    pub(crate) fn stride(&self) -> usize {
        stride(self.mean.len())
    }

    /// Writes the code of a vector; `code` is [`Quantizer::stride`] long. Coordinates beyond the
    /// range are cut to it.
    pub(crate) fn encode(&self, vector: &[f32], code: &mut [u8]) {
        let mut values: Vec<f32> = vector.iter().zip(&self.mean).map(|(v, m)| v - m).collect();
        self.rotation.apply(&mut values);
        let (coded, padding) = code.split_at_mut(values.len());
        for (c, v) in coded.iter_mut().zip(values) {
            *c = ((v / self.step).clamp(-STEPS, STEPS).round() + ZERO) as u8;
        }
        padding.fill(ZERO as u8);
    }

    /// Prepares a query of finite components.
    pub(crate) fn query(&self, vector: &[f32]) -> CodeQuery {
        let mut values = vector.to_vec();
        self.rotation.apply(&mut values);
        let largest = values.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let total: f32 = values.iter().map(|v| v.abs()).sum();
        // No number above its bound, and no sum of products above 31 bits.
        let scale = (f32::from(QUERY_MAX) / largest).min(0.99 * i32::MAX as f32 / (255.0 * total));
        let scale = if scale.is_finite() { scale } else { 0.0 };
        let mut numbers: Vec<i16> = values.iter().map(|v| (v * scale).round() as i16).collect();
        numbers.resize(self.stride(), 0);
        let row = QueryRow::new(numbers);
        // Rounding to a step leaves an error of a standard deviation of 1 / sqrt(12) steps in each
        // coordinate, and so, for a query of some norm, one of that times the norm in the product.
        let norm = values.iter().map(|v| v * v).sum::<f32>().sqrt();
        let fine = DEVIATIONS * norm * scale / 12.0f32.sqrt();
        let margins = Margins { coarse: (fine * row.shrink()).ceil() as i32, fine: fine.ceil() as i32 };
        CodeQuery { row, margins }
    }
}

/// Bytes of a code of so many dimensions.
pub(crate) fn stride(dim: usize) -> usize {
    dim.next_multiple_of(BLOCK)
}

/// The step of least squared error for these coordinates: small steps cut off the largest
/// coordinates, large ones round the others.
fn best_step(spread: &[f32]) -> f32 {
    let square: f64 = spread.iter().map(|&v| f64::from(v).powi(2)).sum();
    let deviation = (square / spread.len().max(1) as f64).sqrt() as f32;
    let error = |step: f32| -> f64 {
        let one = |&v: &f32| f64::from(v - (v / step).round().clamp(-STEPS, STEPS) * step).powi(2);
        spread.iter().map(one).sum()
    };
    let candidates = (6..=20).map(|half| half as f32 / 2.0 * deviation / STEPS);
    let best = candidates.filter(|step| *step > 0.0).min_by(|a, b| error(*a).total_cmp(&error(*b)));
    // All vectors are the same: any step will do.
    best.unwrap_or(1.0 / STEPS)
}

/// The fixed orthogonal transform of a dimension.
#[derive(Debug, Clone, PartialEq)]
struct Rotation {
    /// One row of factors per round: signs, and the scale that keeps lengths.
    factors: Vec<Vec<f32>>,
    /// Length of a transform, a power of two.
    len: usize,
}

impl Rotation {
    fn new(dim: usize) -> Self {
        let len = if dim == 0 { 0 } else { 1 << dim.ilog2() };
        let sign = |round: u64, at: u64| {
            if mix(round * 0x1_0000_0001 + at + 1) >> 63 == 0 { 1.0 } else { -1.0 }
        };
        let factors = (0..ROUNDS).map(|round| (0..dim as u64).map(|at| sign(round, at)).collect()).collect();
        Self { factors, len }
    }

    fn apply(&self, values: &mut [f32]) {
        let tail = values.len() - self.len;
        for factors in &self.factors {
            for (v, f) in values.iter_mut().zip(factors) {
                *v *= f;
            }
            hadamard(&mut values[..self.len]);
            if tail > 0 {
                hadamard(&mut values[tail..]);
            }
        }
    }
}

/// The orthonormal Walsh-Hadamard transform of a power of two of values.
fn hadamard(values: &mut [f32]) {
    let n = values.len();
    let mut half = 1;
    while half < n {
        for pair in values.chunks_exact_mut(2 * half) {
            let (left, right) = pair.split_at_mut(half);
            for (a, b) in left.iter_mut().zip(right) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
    let scale = 1.0 / (n as f32).sqrt();
    values.iter_mut().for_each(|v| *v *= scale);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::sealed::kernel::{CodeKernel, Planes, divide};
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn unit(rng: &mut ChaCha8Rng, dim: usize, mean: f32) -> Vec<f32> {
        let mut v: Vec<f32> = (0..dim).map(|_| rng.random_range(-1.0f32..1.0)).collect();
        v[0] += mean;
        let norm = v.iter().map(|x| x * x).sum::<f32>().sqrt();
        v.iter().map(|x| x / norm).collect()
    }

    fn dot(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(x, y)| x * y).sum()
    }

    #[test]
    fn rotations_keep_lengths_and_angles_at_every_dimension() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for dim in [1, 2, 3, 7, 63, 64, 65, 100, 384, 512, 768] {
            let rotation = Rotation::new(dim);
            let (a, b) = (unit(&mut rng, dim, 0.0), unit(&mut rng, dim, 0.0));
            let (mut ra, mut rb) = (a.clone(), b.clone());
            rotation.apply(&mut ra);
            rotation.apply(&mut rb);
            assert!((dot(&ra, &ra) - 1.0).abs() < 1e-4, "{dim}");
            assert!((dot(&ra, &rb) - dot(&a, &b)).abs() < 1e-4, "{dim}");
        }
    }

    #[test]
    fn products_rank_as_scores_do_even_with_one_dominant_coordinate() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        for (dim, mean) in [(1, 0.0), (3, 0.0), (64, 30.0), (100, 0.0), (512, 60.0), (768, 0.0)] {
            let base: Vec<Vec<f32>> = (0..300).map(|_| unit(&mut rng, dim, mean)).collect();
            let quantizer = Quantizer::train(dim, base.len(), |i| &base[i]);
            let mut codes = vec![0; base.len() * quantizer.stride()];
            for (v, code) in base.iter().zip(codes.chunks_exact_mut(quantizer.stride())) {
                quantizer.encode(v, code);
            }
            let exact = unit(&mut ChaCha8Rng::seed_from_u64(3), dim, 0.0);
            let asked = quantizer.query(&exact);
            let slots: Vec<u32> = (0..base.len() as u32).collect();
            let mut products = vec![0; base.len()];
            let (mut upper, mut lower) = (vec![0; codes.len() / 2], vec![0; codes.len() / 2]);
            divide(&codes, &mut upper, &mut lower);
            let planes = Planes { upper: &upper, lower: &lower, stride: quantizer.stride() / 2 };
            CodeKernel::detect().products(&asked.row, planes, &slots, &mut products);
            // Of two vectors whose products differ by more than the margin, the greater one is nearer.
            for (v, product) in base.iter().zip(&products) {
                for (w, other) in base.iter().zip(&products).step_by(7) {
                    if product - other > asked.margins.fine {
                        assert!(dot(v, &exact) > dot(w, &exact), "{dim}");
                    }
                }
            }
            let spread = products.iter().max().unwrap() - products.iter().min().unwrap();
            assert!(spread > 4 * asked.margins.fine, "{dim}: codes tell the vectors apart");
        }
    }

    #[test]
    fn bases_of_equal_vectors_and_queries_of_zeros_are_harmless() {
        let v = [0.6f32, 0.8];
        let quantizer = Quantizer::train(2, 5, |_| &v);
        let mut code = [0; BLOCK];
        quantizer.encode(&v, &mut code);
        assert_eq!(code, [128; BLOCK]);
        let query = quantizer.query(&[0.0, 0.0]);
        assert_eq!((query.margins.coarse, query.margins.fine), (0, 0));
        assert_eq!(Quantizer::train(2, 0, |_| &v).step(), 1.0 / STEPS);
    }
}
