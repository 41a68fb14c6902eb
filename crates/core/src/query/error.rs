//! Why a query is refused.

use crate::limits::{
    EF_MAX, FACET_VALUES_MAX, FACETS_MAX, K_MAX, POOL_MAX, RANK_CONSTANT_MAX, SET_PARTS_MAX, TERMS_MAX,
    TEXT_BYTES_MAX, WEIGHT_MAX,
};

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
    /// No term at all.
    #[error("the query has no term; give at least one text, image, key or vector to look for")]
    NoTerm,
    /// More terms than are taken.
    #[error("the query has {found} terms; use at most {TERMS_MAX}")]
    Terms {
        /// What was given.
        found: usize,
    },
    /// A set that is empty or too large.
    #[error("the case has {found} images and sentences to look for; give 1 to {SET_PARTS_MAX}")]
    SetParts {
        /// What was given.
        found: usize,
    },
    /// A vector in a set.
    #[error("a case is looked for by images, texts and stored records; a vector does not say which it is")]
    SetVector,
    /// A pool out of range.
    #[error("the pool is {found}; look at 1 to {POOL_MAX} neighbours of each part")]
    Pool {
        /// What was asked.
        found: usize,
    },
    /// A weight that says nothing.
    #[error("a term has the weight {found}; use a number other than 0 from -{WEIGHT_MAX} to {WEIGHT_MAX}")]
    Weight {
        /// What was given.
        found: f32,
    },
    /// Nothing to look for.
    #[error("every term is negative: what lies farthest from them is arbitrary; add one to look for")]
    OnlyNegative,
    /// A share out of range.
    #[error("{what} is {found}; use a number from 0 to 1")]
    Share {
        /// Which option.
        what: &'static str,
        /// What was given.
        found: f64,
    },
    /// An attribute without a name.
    #[error("{what} names no attribute; name one, or leave it out")]
    NoAttribute {
        /// Which option.
        what: &'static str,
    },
    /// More facets than are counted.
    #[error("{found} facets are asked for; ask for at most {FACETS_MAX}")]
    Facets {
        /// What was asked.
        found: usize,
    },
    /// More or fewer values of a facet than are answered.
    #[error("{found} values of a facet are asked for; ask for 1 to {FACET_VALUES_MAX}")]
    FacetValues {
        /// What was asked.
        found: usize,
    },
    /// A constant of rank fusion out of range.
    #[error("the constant of rank fusion is {found}; use a number above 0 and up to {RANK_CONSTANT_MAX}")]
    RankConstant {
        /// What was given.
        found: f32,
    },
    /// More words than are taken.
    #[error("the words to search by have {found} bytes; use at most {TEXT_BYTES_MAX}")]
    Words {
        /// What was given.
        found: usize,
    },
    /// A least relevance of what has none.
    #[error("words alone tell no relevance; leave min_relevance out, or give a text to compare with, too")]
    NoRelevance,
    /// A page beyond the last.
    #[error("the page begins behind {found} records; {K_MAX} can be paged through, so narrow the query")]
    Offset {
        /// What was asked.
        found: usize,
    },
    /// Two ways of saying the same.
    #[error("both ef and a target recall are given; keep one, the other follows from it")]
    EfAndRecall,
}
