//! How an index is built, and why one refuses.
//!
//! Owns: the options with their defaults and bounds, and the errors of the crate. Deliberately
//! absent: reading options from files or flags, which belongs to the binary.

use std::path::{Path, PathBuf};

use diptych_core::limits::{DIM_MAX, EF_MAX};

use crate::nodes::SLOTS_MAX;
use crate::sealed::graph::BuildOptions;

/// Fewest neighbours a vector may keep per layer: with 1 the layers have no scale.
pub const CONNECTIONS_MIN: usize = 2;
/// Most neighbours a vector may keep per layer. The graph library counts them in a byte, and ends
/// the process when asked for more than it allows.
pub const CONNECTIONS_MAX: usize = 255;
/// Candidates of a search that names no `ef` and asks for few hits.
pub const EF_DEFAULT: usize = 128;

/// How much nearer a neighbour must be to one kept before than to the point, to be dropped, as a factor
/// of squared distances: with 1 the graph is as sparse as that of HNSW.
const ALPHA: f32 = 1.15;
/// Fewest places for links without which a point is not found.
const LIFELINES_MIN: usize = 8;

/// How neighbours are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// A graph: inserts cost a search each, searches look at a small part of the vectors.
    #[default]
    Graph,
    /// A scan: inserts only append, every search looks at every vector. For one-shot use, where
    /// building a graph costs more than the few searches it would serve.
    Exact,
}

/// How an index is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexOptions {
    /// Graph or scan.
    pub kind: Kind,
    /// Neighbours kept per vector and layer, `M` of the HNSW paper (twice that in the lowest
    /// layer). From [`CONNECTIONS_MIN`] to [`CONNECTIONS_MAX`].
    pub max_connections: usize,
    /// Candidates considered when a vector is linked into the graph. From 1 to
    /// [`EF_MAX`].
    pub ef_construction: usize,
    /// Vectors expected, for sizing tables; more or fewer are fine.
    pub expected_points: usize,
    /// Points in the live graph, those removed there included, from which it is sealed in the background.
    pub seal_at: usize,
    /// Live vectors per unit of `ef` up to which a search scans them instead of walking the graph:
    /// there the scan costs no more, and it is exact. 0 always walks.
    pub scan_ratio: usize,
}

impl Default for IndexOptions {
    fn default() -> Self {
        Self {
            kind: Kind::Graph,
            max_connections: 16,
            ef_construction: 200,
            expected_points: 2048,
            seal_at: 2048,
            scan_ratio: 16,
        }
    }
}

/// Why an index refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// An index of no dimensions, or more than any model has.
    #[error("an index of {dim} dimensions is not possible; give the model's, from 1 to {DIM_MAX}")]
    Dimensions {
        /// What was asked.
        dim: usize,
    },
    /// `max_connections` out of range.
    #[error("max_connections is {found}; use {CONNECTIONS_MIN} to {CONNECTIONS_MAX}, usually 16")]
    Connections {
        /// What was asked.
        found: usize,
    },
    /// `ef_construction` out of range.
    #[error("ef_construction is {found}; use 1 to {EF_MAX}, usually 200")]
    EfConstruction {
        /// What was asked.
        found: usize,
    },
    /// A vector of another dimension than the index.
    #[error("the vector has {found} dimensions and the index {expected}; use the collection's own model")]
    WrongDimension {
        /// Dimensions of the index.
        expected: usize,
        /// Dimensions of the vector.
        found: usize,
    },
    /// `ef` of a search out of range.
    #[error("ef is {found}; use 1 to {EF_MAX}, or leave it out for the default")]
    Ef {
        /// What was asked.
        found: usize,
    },
    /// A file of the index cannot be read or written.
    #[error("cannot {doing} {}: {reason}; check the disk and the permissions", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// Another process, or another part of this one, has the index open.
    #[error("the index in {} is in use; close it there first", dir.display())]
    InUse {
        /// Where it is.
        dir: PathBuf,
    },
    /// A file of the index is not what was written.
    #[error("the index file {} is damaged: {what}; delete it, the index is built again from the store", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// No room for another distinct vector.
    #[error("the index holds {SLOTS_MAX} distinct vectors, its most; open another collection")]
    Full,
}

impl IndexError {
    pub(crate) fn io(doing: &'static str, path: &Path, error: &std::io::Error) -> Self {
        Self::Io { doing, path: path.to_owned(), reason: error.to_string() }
    }

    pub(crate) fn damaged(path: &Path, what: &str) -> Self {
        Self::Damaged { path: path.to_owned(), what: what.to_owned() }
    }
}

impl IndexOptions {
    /// How segments are built: `max_connections` counts as in HNSW, whose lowest layer has twice as
    /// many; here there is only that layer, with half as many again.
    pub(crate) fn build_options(&self) -> BuildOptions {
        let degree = 3 * self.max_connections;
        BuildOptions {
            degree,
            chosen: 2 * self.max_connections,
            extra: degree.div_ceil(3).max(LIFELINES_MIN),
            ef: self.ef_construction,
            alpha: ALPHA,
        }
    }

    /// Checks the bounds, before the graph library sees them.
    pub(crate) fn check(&self, dim: usize) -> Result<(), IndexError> {
        if !(1..=DIM_MAX).contains(&dim) {
            return Err(IndexError::Dimensions { dim });
        }
        if !(CONNECTIONS_MIN..=CONNECTIONS_MAX).contains(&self.max_connections) {
            return Err(IndexError::Connections { found: self.max_connections });
        }
        if !(1..=EF_MAX).contains(&self.ef_construction) {
            return Err(IndexError::EfConstruction { found: self.ef_construction });
        }
        Ok(())
    }
}

/// The candidates a search for `k` hits keeps when it names no `ef`.
pub fn default_ef(k: usize) -> usize {
    EF_DEFAULT.max(k.saturating_mul(2))
}
