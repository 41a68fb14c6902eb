//! Random draws that never change: one ChaCha8 stream per case and purpose, turned into numbers by
//! arithmetic of our own, so that neither a platform nor a new version of a random-number library
//! changes a case.
//! Deliberately absent: distributions other than the uniform one.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What a stream is for. Each purpose has its own, so that a new draw in one leaves the others alone.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    Anatomy = 1,
    Findings = 2,
    Words = 3,
    Patient = 4,
    Course = 5,
    Study = 6,
    Names = 7,
}

/// A stream of draws.
pub(crate) struct Draw(ChaCha8Rng);

impl Draw {
    /// The stream of one purpose of one case.
    pub(crate) fn new(seed: u64, index: u64, purpose: Purpose) -> Self {
        let mut bytes = [0u8; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        bytes[8..16].copy_from_slice(&index.to_le_bytes());
        bytes[16] = purpose as u8;
        Self(ChaCha8Rng::from_seed(bytes))
    }

    /// Uniform in `[0, 1)`, on a grid of 2^-24.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.0.next_u32() >> 8) as f32 * (1.0 / 16_777_216.0)
    }

    /// Uniform in `[low, high)`.
    pub(crate) fn range(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// True with probability `p`.
    pub(crate) fn chance(&mut self, p: f32) -> bool {
        self.unit() < p
    }

    /// Minus one or plus one.
    pub(crate) fn sign(&mut self) -> f32 {
        if self.chance(0.5) { -1.0 } else { 1.0 }
    }

    /// Uniform below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((u64::from(self.0.next_u32()) * n as u64) >> 32) as usize
    }

    /// One of several, all equally likely.
    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// 32 random bits.
    pub(crate) fn bits(&mut self) -> u32 {
        self.0.next_u32()
    }
}
