//! What is asked of a collection by several things at once, each for itself.

use crate::limits::{POOL_MAX, SET_PARTS_MAX};
use crate::{Filter, QueryError, QuerySource};

/// A search for the records whose images and texts are, as sets, most like a set of images and texts.
///
/// Other than the terms of a [`crate::Query`], the parts of a set do not become one vector: each looks for what
/// is nearest to itself, and a record is judged by how well each of them is met.
#[derive(Debug, Clone, PartialEq)]
pub struct SetQuery {
    parts: Vec<QuerySource>,
    pool: usize,
    filter: Option<Filter>,
    also: Option<Filter>,
}

impl SetQuery {
    /// A set of images, texts and parts of stored records; a record named without a part stands for all of its
    /// parts. Each part brings at most the owners of its `pool` nearest images and `pool` nearest texts into
    /// the answer.
    ///
    /// # Errors
    /// [`QueryError::SetParts`] when there are too few or too many parts, [`QueryError::SetVector`] for a bare
    /// vector, of which it is not known whether it is of an image or a text, and [`QueryError::Pool`].
    pub fn new(parts: Vec<QuerySource>, pool: usize) -> Result<Self, QueryError> {
        let found = parts.len();
        if !(1..=SET_PARTS_MAX).contains(&found) {
            return Err(QueryError::SetParts { found });
        }
        if parts.iter().any(|part| matches!(part, QuerySource::Vector(_))) {
            return Err(QueryError::SetVector);
        }
        if !(1..=POOL_MAX).contains(&pool) {
            return Err(QueryError::Pool { found: pool });
        }
        Ok(Self { parts, pool, filter: None, also: None })
    }

    /// The same query, only among records that meet a filter.
    #[must_use]
    pub fn with_filter(self, filter: Option<Filter>) -> Self {
        Self { filter, ..self }
    }

    /// The same query, whose parts each look a second time, among the records that meet this condition, too:
    /// for an order that will prefer those, so that there are some to prefer.
    #[must_use]
    pub fn with_also(self, also: Option<Filter>) -> Self {
        Self { also, ..self }
    }

    /// What is looked for.
    pub fn parts(&self) -> &[QuerySource] {
        &self.parts
    }

    /// How many nearest images, and texts, of each part are looked at.
    pub fn pool(&self) -> usize {
        self.pool
    }

    /// What records must meet to be found, if anything.
    pub fn filter(&self) -> Option<&Filter> {
        self.filter.as_ref()
    }

    /// Among which records, of those that meet the filter, the parts look a second time, if anywhere.
    pub fn also(&self) -> Option<&Filter> {
        self.also.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_parts_that_are_images_or_texts_and_a_pool() {
        let text = || QuerySource::Text("a".into());
        assert_eq!(SetQuery::new(Vec::new(), 10), Err(QueryError::SetParts { found: 0 }));
        let many = SET_PARTS_MAX + 1;
        assert_eq!(SetQuery::new(vec![text(); many], 10), Err(QueryError::SetParts { found: many }));
        assert_eq!(SetQuery::new(vec![QuerySource::Vector(vec![1.0])], 10), Err(QueryError::SetVector));
        assert_eq!(SetQuery::new(vec![text()], 0), Err(QueryError::Pool { found: 0 }));
        assert_eq!(SetQuery::new(vec![text()], POOL_MAX + 1), Err(QueryError::Pool { found: POOL_MAX + 1 }));
        assert!(SetQuery::new(vec![text(); SET_PARTS_MAX], POOL_MAX).is_ok());
    }
}
