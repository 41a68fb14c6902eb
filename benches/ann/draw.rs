//! Random draws of the data generator.
//!
//! Owns: one ChaCha8 stream per purpose and chunk, so that chunks can be drawn on any threads in any
//! order, and the distributions the model needs. Deliberately absent: what is drawn (see `cliplike`).

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What a stream is for. Each has its own, so that another number of queries leaves the base alone.
#[derive(Debug, Clone, Copy)]
pub enum Purpose {
    Structure = 0,
    Base = 1,
    ImageQueries = 2,
    TextQueries = 3,
    LearnTexts = 4,
}

/// A stream of draws.
pub struct Draw(ChaCha8Rng);

impl Draw {
    /// The stream of one chunk of one purpose.
    pub fn new(seed: u64, purpose: Purpose, chunk: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream((purpose as u64) << 48 | chunk as u64);
        Self(rng)
    }

    /// Uniform in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        ((self.unit() * n as f64) as usize).min(n - 1)
    }

    /// One standard normal value.
    pub fn normal(&mut self) -> f32 {
        self.normal_pair().0
    }

    /// As many standard normal values as `out` has room for.
    pub fn normals(&mut self, out: &mut [f32]) {
        for pair in out.chunks_mut(2) {
            let (a, b) = self.normal_pair();
            pair[0] = a;
            if let Some(second) = pair.get_mut(1) {
                *second = b;
            }
        }
    }

    /// Box and Muller's method. The radius comes from `(0, 1]`, so its logarithm is finite.
    fn normal_pair(&mut self) -> (f32, f32) {
        const STEP: f32 = 1.0 / (1u32 << 24) as f32;
        let radius = (-2.0 * (((self.0.next_u32() >> 8) + 1) as f32 * STEP).ln()).sqrt();
        let (sin, cos) = (std::f32::consts::TAU * ((self.0.next_u32() >> 8) as f32 * STEP)).sin_cos();
        (radius * cos, radius * sin)
    }

    /// Cumulative shares of `k` clusters whose sizes are gamma distributed with shape 1/2, half of a
    /// squared normal value: few large ones and many small ones.
    pub fn shares(&mut self, k: usize) -> Vec<f64> {
        let mut sum = 0.0;
        let mut cumulative: Vec<f64> = (0..k)
            .map(|_| {
                sum += 0.5 * f64::from(self.normal()).powi(2) + 1e-3;
                sum
            })
            .collect();
        cumulative.iter_mut().for_each(|c| *c /= sum);
        cumulative
    }

    /// A cluster, by its share.
    pub fn cluster(&mut self, cumulative: &[f64]) -> usize {
        let at = self.unit();
        cumulative.partition_point(|&c| c <= at).min(cumulative.len() - 1)
    }

    /// `count` different numbers below `n`.
    pub fn choose(&mut self, n: usize, count: usize) -> Vec<usize> {
        rand::seq::index::sample(&mut self.0, n, count).into_vec()
    }
}
