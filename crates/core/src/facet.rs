//! Attributes whose values are counted, and the counts.

use crate::limits::{FACET_VALUES_MAX, FACETS_MAX};
use crate::{FilterValue, QueryError};

/// An attribute whose values are counted: over all records that a search could find, which are those that
/// meet its filter, not only over the hits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facet {
    attribute: String,
    limit: usize,
}

/// The values of an attribute, with the records that have each.
#[derive(Debug, Clone, PartialEq)]
pub struct FacetCounts {
    /// The attribute.
    pub attribute: String,
    /// Records that have the attribute, with any value.
    pub records: u64,
    /// Those of most records first, equals in the order of the values; of a list, its members. Texts
    /// longer than 64 bytes are not among them.
    pub values: Vec<FacetValue>,
    /// Different values, whether they are listed or not.
    pub distinct: u64,
}

/// A value and the records that have it.
#[derive(Debug, Clone, PartialEq)]
pub struct FacetValue {
    /// The value.
    pub value: FilterValue,
    /// So many.
    pub records: u64,
}

impl Facet {
    /// The values of an attribute, at most `limit` of them, those of most records first.
    ///
    /// # Errors
    /// [`QueryError::NoAttribute`] or [`QueryError::FacetValues`].
    pub fn new(attribute: impl Into<String>, limit: usize) -> Result<Self, QueryError> {
        let attribute = attribute.into();
        match (attribute.is_empty(), limit) {
            (true, _) => Err(QueryError::NoAttribute { what: "a facet" }),
            (_, 1..=FACET_VALUES_MAX) => Ok(Self { attribute, limit }),
            (_, found) => Err(QueryError::FacetValues { found }),
        }
    }

    /// The attribute.
    pub fn attribute(&self) -> &str {
        &self.attribute
    }

    /// Most values wanted.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Refuses more facets than are counted.
    ///
    /// # Errors
    /// [`QueryError::Facets`].
    pub fn check_number(facets: &[Self]) -> Result<(), QueryError> {
        match facets.len() {
            found if found > FACETS_MAX => Err(QueryError::Facets { found }),
            _ => Ok(()),
        }
    }
}
