//! What is asked of an index and what it answers.
//!
//! Owns: the question, the answer, and the names of the ways to one. Deliberately absent: choosing
//! the way, which the index does.

pub use diptych_core::Plan;

use crate::rank::Neighbor;

/// A set of point ids, compressed.
pub type PointSet = roaring::RoaringTreemap;

/// A question to an index.
#[derive(Debug, Clone, Copy)]
pub struct Search<'a> {
    /// How many points are wanted.
    pub k: usize,
    /// Candidates kept while walking: more finds more of the true neighbours and takes longer.
    /// Without it, [`default_ef`](crate::default_ef).
    pub ef: Option<usize>,
    /// Only points of this set count. Ids that the index does not hold are passed over.
    pub filter: Option<&'a PointSet>,
}

impl Search<'_> {
    /// The `k` nearest of all points, with the default effort.
    pub fn nearest(k: usize) -> Self {
        Self { k, ef: None, filter: None }
    }
}

/// What an index answers.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Answer {
    /// Best first, equal scores by id.
    pub neighbors: Vec<Neighbor>,
    /// The way they were found.
    pub plan: Plan,
}
