//! What is asked of a collection, and what it answers.

use crate::limits::{EF_MAX, K_MAX};
use crate::{Filter, Key, Modality, PartRef};

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
    effort: Effort,
    filter: Option<Filter>,
}

/// How hard a search tries to find the true neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Effort {
    /// As the index does when nothing is said.
    #[default]
    Default,
    /// A candidate list of this size: larger finds more and takes longer.
    Ef(usize),
    /// The share of the true neighbours to be found, above 0 and below 1; the engine chooses the
    /// candidate list by what it has measured.
    Recall(f64),
}

/// Why a query is refused before anything is encoded.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
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
    /// A target recall out of range.
    #[error("the target recall is {found}; use a share between 0 and 1, such as 0.95")]
    Recall {
        /// What was asked.
        found: f64,
    },
    /// Two ways of saying the same.
    #[error("both ef and a target recall are given; keep one, the other follows from it")]
    EfAndRecall,
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
        let effort = ef.map_or(Effort::Default, Effort::Ef);
        Ok(Self { source, target, k, effort, filter: None })
    }

    /// The same query, only among records that meet a filter.
    #[must_use]
    pub fn with_filter(self, filter: Filter) -> Self {
        Self { filter: Some(filter), ..self }
    }

    /// The same query, with the candidate list chosen for this share of the true neighbours.
    ///
    /// # Errors
    /// [`QueryError::Recall`] when it is not above 0 and below 1, [`QueryError::EfAndRecall`] when an
    /// `ef` is given, too.
    pub fn with_target_recall(self, recall: f64) -> Result<Self, QueryError> {
        if !(recall > 0.0 && recall < 1.0) {
            return Err(QueryError::Recall { found: recall });
        }
        match self.effort {
            Effort::Ef(_) => Err(QueryError::EfAndRecall),
            Effort::Default | Effort::Recall(_) => Ok(Self { effort: Effort::Recall(recall), ..self }),
        }
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

    /// How hard to try.
    pub fn effort(&self) -> Effort {
        self.effort
    }

    /// What records must meet to be found, if anything.
    pub fn filter(&self) -> Option<&Filter> {
        self.filter.as_ref()
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

    #[test]
    fn a_target_recall_is_a_share_and_takes_the_place_of_ef() {
        let query = |ef| Query::new(QuerySource::Text("a".into()), Modality::Image, 10, ef).expect("valid");
        for found in [0.0, 1.0, 95.0, -0.1, f64::INFINITY] {
            assert_eq!(query(None).with_target_recall(found), Err(QueryError::Recall { found }));
        }
        assert!(matches!(query(None).with_target_recall(f64::NAN), Err(QueryError::Recall { .. })));
        assert_eq!(query(Some(5)).with_target_recall(0.9), Err(QueryError::EfAndRecall));
        let chosen = query(None).with_target_recall(0.9).map(|query| query.effort());
        assert_eq!(chosen, Ok(Effort::Recall(0.9)));
        assert_eq!(query(Some(5)).effort(), Effort::Ef(5));
    }
}
