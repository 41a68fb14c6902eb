//! AdamW, the learning-rate schedule and gradient clipping.
//!
//! Owns: the moments and one update. Deliberately absent: where gradients come from.

use diptych_kernels::multiversion;
use rayon::prelude::*;

use crate::ops::sum_of_squares;

/// Decay of the first moment.
const BETA1: f32 = 0.9;
/// Added to the root of the second moment; that of CLIP.
const EPS: f32 = 1e-6;
/// Parameters per parallel piece. Fixed, so that the result does not depend on the machine.
const PIECE: usize = 1 << 16;

/// First and second moments of every parameter (Loshchilov and Hutter 2019).
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AdamW {
    /// Running mean of the gradients.
    pub first: Vec<f32>,
    /// Running mean of their squares.
    pub second: Vec<f32>,
}

/// What scales one update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Update {
    /// Number of this update, from 1: corrects the bias of the young moments.
    pub step: u64,
    /// Learning rate of this update.
    pub learning_rate: f32,
    /// Decay of the second moment; .98 in CLIP's vision transformers.
    pub beta2: f32,
    /// Decoupled weight decay, multiplied by the learning rate.
    pub weight_decay: f32,
    /// Factor on all gradients, at most 1 (see [`clip_factor`]).
    pub gradient_scale: f32,
}

impl AdamW {
    /// Zero moments for `len` parameters.
    pub fn new(len: usize) -> Self {
        Self { first: vec![0.0; len], second: vec![0.0; len] }
    }

    /// Updates all parameters. `decays` is 1 where weight decay applies, `rates` a factor on the learning
    /// rate; both per parameter.
    pub fn update(&mut self, params: &mut [f32], grads: &[f32], decays: &[f32], rates: &[f32], u: Update) {
        let bias1 = 1.0 - f64::from(BETA1).powf(u.step as f64);
        let bias2 = 1.0 - f64::from(u.beta2).powf(u.step as f64);
        let factors = [
            u.learning_rate / bias1 as f32,
            1.0 / (bias2 as f32).sqrt(),
            u.learning_rate * u.weight_decay,
            u.gradient_scale,
            u.beta2,
        ];
        params
            .par_chunks_mut(PIECE)
            .zip(grads.par_chunks(PIECE))
            .zip(decays.par_chunks(PIECE).zip(rates.par_chunks(PIECE)))
            .zip(self.first.par_chunks_mut(PIECE).zip(self.second.par_chunks_mut(PIECE)))
            .for_each(|(((params, grads), (decays, rates)), (first, second))| {
                update_piece(params, grads, decays, rates, first, second, factors);
            });
    }
}

multiversion! {
    fn update_piece(
        params: &mut [f32], grads: &[f32], decays: &[f32], rates: &[f32], first: &mut [f32], second: &mut [f32],
        factors: [f32; 5],
    ) {
        let [rate, root_scale, decay, gradient_scale, beta2] = factors;
        let n = params.len();
        let (grads, decays, rates) = (&grads[..n], &decays[..n], &rates[..n]);
        let (first, second) = (&mut first[..n], &mut second[..n]);
        for i in 0..n {
            let g = grads[i] * gradient_scale;
            let m = BETA1 * first[i] + (1.0 - BETA1) * g;
            let v = beta2 * second[i] + (1.0 - beta2) * g * g;
            first[i] = m;
            second[i] = v;
            params[i] -= rates[i] * (rate * m / (v.sqrt() * root_scale + EPS) + decay * decays[i] * params[i]);
        }
    }
}

/// Global norm of the gradients, and the factor that brings it down to `limit`.
pub(crate) fn clip_factor(grads: &[f32], limit: f32) -> (f32, f32) {
    // Pieces are summed in order, so that the norm has the same bits on any number of threads.
    let pieces: Vec<f64> = grads.par_chunks(PIECE).map(sum_of_squares).collect();
    let norm = pieces.iter().sum::<f64>().sqrt() as f32;
    (norm, if norm > limit { limit / norm } else { 1.0 })
}

/// Linear warm-up to `peak` over `warmup` steps, then half a cosine down to 0 at `steps`. `step`
/// counts from 0.
pub(crate) fn learning_rate(step: u64, warmup: u64, steps: u64, peak: f32) -> f32 {
    if step < warmup {
        return peak * (step + 1) as f32 / warmup as f32;
    }
    let done = (step - warmup) as f64 / (steps - warmup).max(1) as f64;
    (f64::from(peak) * 0.5 * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos())) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_then_falls_to_zero() {
        let rates: Vec<f32> = (0..100).map(|s| learning_rate(s, 10, 100, 1.0)).collect();
        assert_eq!((rates[0], rates[9], rates[10]), (0.1, 1.0, 1.0));
        assert!(rates[10..].is_sorted_by(|a, b| a > b) && rates[99] < 1e-3);
    }

    #[test]
    fn one_update_follows_the_equations() {
        let (mut adam, mut params) = (AdamW::new(3), vec![1.0, 1.0, 1.0]);
        let update =
            Update { step: 1, learning_rate: 0.1, weight_decay: 0.5, gradient_scale: 1.0, beta2: 0.98 };
        adam.update(&mut params, &[0.2, -0.2, 0.2], &[1.0, 0.0, 0.0], &[1.0, 1.0, 0.5], update);
        // After bias correction the first update is rate * sign(gradient), and decay is rate * wd * p.
        assert!((params[0] - (1.0 - 0.1 - 0.05)).abs() < 1e-4, "{params:?}");
        assert!((params[1] - 1.1).abs() < 1e-4, "{params:?}");
        assert!((params[2] - (1.0 - 0.05)).abs() < 1e-4, "half the rate: {params:?}");
    }

    #[test]
    fn clipping_scales_to_the_limit_and_never_up() {
        assert_eq!(clip_factor(&[3.0, 4.0], 1.0), (5.0, 0.2));
        assert_eq!(clip_factor(&[0.3, 0.4], 1.0).1, 1.0);
    }
}
