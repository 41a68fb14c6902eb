//! A point of the shared space.

use crate::limits::DIM_MAX;

/// A vector of unit L2 norm: finite, never zero, at least one dimension.
///
/// The inner product of two embeddings is therefore their cosine similarity, in `[-1, 1]` up to
/// rounding.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding(Box<[f32]>);

/// Why a vector cannot be an [`Embedding`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EmbeddingError {
    /// No components.
    #[error("the vector is empty; send as many components as the collection's model has dimensions")]
    Empty,
    /// More components than any model has.
    #[error("the vector has {dim} components, more than {DIM_MAX}; send one vector at a time")]
    TooLong {
        /// Components found.
        dim: usize,
    },
    /// A NaN or infinite component.
    #[error("component {position} of the vector is not finite; remove NaN and infinity before sending")]
    NotFinite {
        /// Index of the first such component.
        position: usize,
    },
    /// All components are (nearly) zero, so there is no direction to compare.
    #[error("the vector is zero and has no direction; send a vector with a norm above 1e-12")]
    Zero,
}

impl Embedding {
    /// Checks a vector and scales it to unit norm. The norm is taken in `f64`, so components of
    /// any finite magnitude are fine.
    ///
    /// # Errors
    /// See [`EmbeddingError`].
    pub fn new(values: impl Into<Vec<f32>>) -> Result<Self, EmbeddingError> {
        let mut values: Vec<f32> = values.into();
        if values.is_empty() {
            return Err(EmbeddingError::Empty);
        }
        if values.len() > DIM_MAX {
            return Err(EmbeddingError::TooLong { dim: values.len() });
        }
        if let Some(position) = values.iter().position(|v| !v.is_finite()) {
            return Err(EmbeddingError::NotFinite { position });
        }
        let norm = values.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
        if norm < 1e-12 {
            return Err(EmbeddingError::Zero);
        }
        // A vector that is already of unit norm keeps its bits, so that a stored embedding survives
        // any number of round trips unchanged.
        if (norm - 1.0).abs() > 1e-6 {
            for v in &mut values {
                *v = (f64::from(*v) / norm) as f32;
            }
        }
        Ok(Self(values.into_boxed_slice()))
    }

    /// Number of dimensions.
    pub fn dim(&self) -> usize {
        self.0.len()
    }

    /// The components.
    pub fn as_slice(&self) -> &[f32] {
        &self.0
    }

    /// The components, without a copy.
    pub fn into_vec(self) -> Vec<f32> {
        self.0.into_vec()
    }

    /// Cosine similarity. Both sides must have the same dimension; the shorter one decides
    /// otherwise, which callers rule out when they check a query against its collection.
    pub fn cosine(&self, other: &Self) -> f32 {
        debug_assert_eq!(self.dim(), other.dim());
        self.0.iter().zip(&other.0).map(|(a, b)| a * b).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_vectors_without_a_direction() {
        assert_eq!(Embedding::new(vec![]), Err(EmbeddingError::Empty));
        assert_eq!(Embedding::new(vec![0.0; 4]), Err(EmbeddingError::Zero));
        assert_eq!(Embedding::new(vec![1.0, f32::NAN]), Err(EmbeddingError::NotFinite { position: 1 }));
        assert_eq!(Embedding::new(vec![f32::INFINITY]), Err(EmbeddingError::NotFinite { position: 0 }));
    }

    #[test]
    fn huge_components_do_not_overflow() {
        let e = Embedding::new(vec![1e38, 1e38]).expect("finite");
        assert!((e.as_slice()[0] - std::f32::consts::FRAC_1_SQRT_2).abs() < 1e-6);
    }

    proptest! {
        #[test]
        fn unit_norm_and_stable_under_round_trips(v in proptest::collection::vec(-1e6f32..1e6, 1..300)) {
            prop_assume!(v.iter().any(|x| x.abs() > 1e-3));
            let once = Embedding::new(v).expect("valid");
            prop_assert!((once.cosine(&once) - 1.0).abs() < 1e-4);
            let twice = Embedding::new(once.as_slice()).expect("valid");
            prop_assert_eq!(once, twice);
        }
    }
}
