//! What is asked of a collection, and what it answers.

use crate::limits::{EF_MAX, K_MAX};
use crate::{Key, Modality, PartRef};

/// What a search starts from.
#[derive(Debug, Clone, PartialEq)]
pub enum QuerySource {
    /// Words, encoded by the text tower.
    Text(String),
    /// An encoded image file, encoded by the image tower.
    Image(Vec<u8>),
    /// A stored record; without a part, its first part of either modality, images first.
    Key {
        /// The record.
        key: Key,
        /// The part whose stored embedding is used.
        part: Option<PartRef>,
    },
    /// A vector of the shared space; scaled to unit norm.
    Vector(Vec<f32>),
}

/// One search: from a source, for the `k` best records by their parts of one modality.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    source: QuerySource,
    target: Modality,
    k: usize,
    ef: Option<usize>,
}

/// Why a query is refused before anything is encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// `k` out of range.
    #[error("k is {found}; ask for 1 to {K_MAX} hits")]
    K {
        /// What was asked.
        found: u64,
    },
    /// `ef` out of range.
    #[error("ef is {found}; use 1 to {EF_MAX}, or leave it out for the default")]
    Ef {
        /// What was asked.
        found: u64,
    },
}

impl Query {
    /// Checks the bounds. `ef` is the size of the graph's candidate list: larger finds more of the
    /// true neighbours and takes longer; `None` lets the index choose.
    ///
    /// # Errors
    /// [`QueryError`] when `k` or `ef` is out of range.
    pub fn new(source: QuerySource, target: Modality, k: u64, ef: Option<u64>) -> Result<Self, QueryError> {
        let in_range = |v: u64, max: usize| usize::try_from(v).ok().filter(|&v| (1..=max).contains(&v));
        let k = in_range(k, K_MAX).ok_or(QueryError::K { found: k })?;
        let ef = ef.map(|ef| in_range(ef, EF_MAX).ok_or(QueryError::Ef { found: ef })).transpose()?;
        Ok(Self { source, target, k, ef })
    }

    /// What the search starts from.
    pub fn source(&self) -> &QuerySource {
        &self.source
    }

    /// The modality of the parts that are searched.
    pub fn target(&self) -> Modality {
        self.target
    }

    /// Most hits wanted.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Candidate list size, if the caller chose one.
    pub fn ef(&self) -> Option<usize> {
        self.ef
    }
}

/// A record that answers a query.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// The record.
    pub key: Key,
    /// Cosine similarity of the query and the record's best part.
    pub score: f32,
    /// That part.
    pub part: PartRef,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k_and_ef_are_bounded() {
        let query = |k, ef| Query::new(QuerySource::Text("a".into()), Modality::Image, k, ef);
        assert_eq!(query(0, None), Err(QueryError::K { found: 0 }));
        assert_eq!(query(u64::MAX, None), Err(QueryError::K { found: u64::MAX }));
        assert_eq!(query(1, Some(0)), Err(QueryError::Ef { found: 0 }));
        assert_eq!(query(1, Some(u64::MAX)), Err(QueryError::Ef { found: u64::MAX }));
        assert!(query(K_MAX as u64, Some(EF_MAX as u64)).is_ok());
    }
}
