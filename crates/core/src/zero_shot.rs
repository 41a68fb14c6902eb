//! Classification without training: labels as texts, and what a model makes of their cosines.
//!
//! Deliberately absent: what the texts say, how they are embedded, and how well it works.

use crate::{Embedding, EmbeddingError};

/// How a model turns cosines into probabilities; it was trained with it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Logits {
    /// What a cosine is multiplied by: the factor itself, not its logarithm.
    pub scale: f32,
    /// What is added then, in models whose loss is a sigmoid (Zhai et al. 2023).
    pub bias: Option<f32>,
}

impl Logits {
    /// The probabilities of several labels out of their cosines with one subject. With a bias each label is
    /// a question of its own, `sigmoid(scale * cosine + bias)`; without, they share a probability of 1,
    /// `softmax(scale * cosines)`.
    pub fn probabilities(&self, cosines: &[f32]) -> Vec<f64> {
        let logit = |cosine: f32| f64::from(self.scale) * f64::from(cosine);
        if let Some(bias) = self.bias {
            return cosines.iter().map(|&c| sigmoid(logit(c) + f64::from(bias))).collect();
        }
        let highest = cosines.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let terms: Vec<f64> = cosines.iter().map(|&c| (logit(c) - logit(highest)).exp()).collect();
        let sum: f64 = terms.iter().sum();
        terms.into_iter().map(|term| term / sum).collect()
    }

    /// The probability that something is there out of the cosines with a text that says so and with one
    /// that denies it: their softmax. A bias would cancel out.
    pub fn pair_probability(&self, positive: f32, negative: f32) -> f64 {
        sigmoid(f64::from(self.scale) * (f64::from(positive) - f64::from(negative)))
    }
}

/// One embedding for a label out of those of its prompts: their mean, scaled to unit norm. All are of unit
/// norm already, so that each prompt weighs the same (Radford et al. 2021, section 3.1.4). All have the
/// dimension of the first.
///
/// # Errors
/// [`EmbeddingError::Empty`] when there are no prompts, [`EmbeddingError::Zero`] when they cancel out.
pub fn ensemble(prompts: &[Embedding]) -> Result<Embedding, EmbeddingError> {
    let first = prompts.first().ok_or(EmbeddingError::Empty)?;
    let mut sum = vec![0f64; first.dim()];
    for prompt in prompts {
        sum.iter_mut().zip(prompt.as_slice()).for_each(|(sum, &v)| *sum += f64::from(v));
    }
    // What is left of opposite directions is rounding.
    if sum.iter().map(|v| v * v).sum::<f64>().sqrt() < 1e-5 * prompts.len() as f64 {
        return Err(EmbeddingError::Zero);
    }
    let mean: Vec<f32> = sum.into_iter().map(|v| (v / prompts.len() as f64) as f32).collect();
    Embedding::new(mean)
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(degrees: f32) -> Embedding {
        let radians = degrees.to_radians();
        Embedding::new([radians.cos(), radians.sin()]).unwrap()
    }

    #[test]
    fn an_ensemble_lies_in_the_middle() {
        let middle = ensemble(&[at(10.0), at(50.0)]).unwrap();
        assert!((middle.cosine(&at(30.0)) - 1.0).abs() < 1e-6);
        assert!((ensemble(&[at(10.0)]).unwrap().cosine(&at(10.0)) - 1.0).abs() < 1e-6);
        assert_eq!(ensemble(&[at(10.0), at(190.0)]), Err(EmbeddingError::Zero));
        assert_eq!(ensemble(&[]), Err(EmbeddingError::Empty));
    }

    #[test]
    fn probabilities_are_a_softmax_or_sigmoids() {
        let softmax = |scale| Logits { scale, bias: None };
        let p = softmax(10.0).probabilities(&[0.3, 0.1]);
        assert!((p[0] - 1.0 / (1.0 + (-2f64).exp())).abs() < 1e-6 && (p[0] + p[1] - 1.0).abs() < 1e-12);
        let p = Logits { scale: 10.0, bias: Some(-2.0) }.probabilities(&[0.3, 0.1]);
        assert!((p[0] - sigmoid(1.0)).abs() < 1e-6 && (p[1] - sigmoid(-1.0)).abs() < 1e-6);
        // No overflow at any scale.
        assert_eq!(softmax(1e30).probabilities(&[1.0, -1.0]), [1.0, 0.0]);
        assert_eq!(softmax(100.0).pair_probability(0.4, 0.4), 0.5);
        let both = softmax(20.0).probabilities(&[0.31, 0.24]);
        assert!((softmax(20.0).pair_probability(0.31, 0.24) - both[0]).abs() < 1e-12);
    }
}
