//! Why nothing can be measured.

/// Why nothing can be measured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// A side without items.
    #[error("there are no {side}; give at least one")]
    Empty {
        /// Which side.
        side: &'static str,
    },
    /// Two lists that belong together differ in length.
    #[error("{found} {what} for {expected} {side}; give one for each")]
    Lengths {
        /// What is counted.
        side: &'static str,
        /// How many of them there are.
        expected: usize,
        /// What should be there for each.
        what: &'static str,
        /// How many of those there are.
        found: usize,
    },
    /// An embedding of another dimension than the first.
    #[error(
        "number {position} of the {side} (counted from 0) has {found} dimensions, the first embedding has \
         {expected}; embed everything with one model"
    )]
    Dimension {
        /// Which side.
        side: &'static str,
        /// Its position there.
        position: usize,
        /// Dimensions of the first embedding.
        expected: usize,
        /// Dimensions found.
        found: usize,
    },
    /// An item refers to a record, class or cluster that is not there.
    #[error(
        "number {position} of the {side} (counted from 0) refers to number {found}, but there are {count}; \
         count from 0"
    )]
    Reference {
        /// Which side.
        side: &'static str,
        /// Its position there.
        position: usize,
        /// What it refers to.
        found: u32,
        /// How many there are.
        count: usize,
    },
    /// No query has a right item.
    #[error(
        "none of the {queries} queries has a right answer among the {gallery} items; check that the records \
         of both sides come from the same pairs"
    )]
    NoPairs {
        /// Queries given.
        queries: usize,
        /// Items searched.
        gallery: usize,
    },
    /// A score that is no number.
    #[error("the score of item {position} (counted from 0) is not finite; check what it was computed from")]
    NotFinite {
        /// The item.
        position: usize,
    },
}
