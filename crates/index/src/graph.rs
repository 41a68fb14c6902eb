//! The live graph: the only file that knows `hnsw_rs`.
//!
//! Owns: linking vectors, walking from a query to the nearest of them, and keeping the hazards of the
//! library from everybody else. Deliberately absent: ids, deletes, exact scores, persistence.
//!
//! Hazards that end here (`hnsw_rs` 0.3.5):
//! - Its constructor ends the process above 256 connections and counts them in a byte: options are
//!   checked before ([`IndexOptions`]).
//! - A NaN distance panics, as does a negative one: embeddings are finite, and [`Cosine`] clamps.
//! - Of several first inserts at once, all but one stay without links: the first is made alone.
//! - Its filtered search unwraps an empty heap when the filter rejects all it held before, which a
//!   concurrent delete can bring about, and it does not stop early: never used, the caller drops
//!   what it does not want from a longer list.
//! - Iterating all points takes a lock it already holds, and deadlocks when an insert waits between:
//!   never used, vectors are read from where they are stored.
//! - It copies what it is given: it is given a reference-counted pointer, so vectors exist once.
//! - `ef` is a pre-allocation: bounded by the caller.
//! - A vector that is the farthest neighbour of all its neighbours is dropped by all of them and
//!   never found again: [`crate::Index`] looks for such vectors and scans them.
//! - Its loader trusts what it reads, and ends the process when it is wrong: never used.

use std::sync::{Arc, Once};

use hnsw_rs::prelude::{Distance, Hnsw};

use crate::dot::Dot;
use crate::nodes::Slot;
use crate::options::IndexOptions;

/// Layers the library can have.
const LAYERS: usize = 16;
/// Largest table allocated ahead of time; expecting more costs a few reallocations later.
const EXPECTED_MAX: usize = 1 << 22;

/// Candidates considered at most when a vector is linked. This graph is small and soon sealed, so the
/// care that a large one needs would only slow inserts down.
const EF_CONSTRUCTION_MAX: usize = 64;

/// A shared vector, as the library stores it: a slice of exactly one of these is one point.
type Shared = Arc<[f32]>;

/// Cosine distance of unit vectors, `max(0, 1 - a . b)`: rounding may take the inner product of a
/// vector with itself above 1.
struct Cosine {
    dot: Dot,
}

impl Distance<Shared> for Cosine {
    #[inline]
    fn eval(&self, a: &[Shared], b: &[Shared]) -> f32 {
        (1.0 - self.dot.product(&a[0], &b[0])).max(0.0)
    }
}

/// A vector found by walking the graph.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Found {
    pub(crate) slot: Slot,
    /// `max(0, 1 - cosine)`.
    pub(crate) distance: f32,
}

/// The graph over slots.
pub(crate) struct Graph {
    hnsw: Hnsw<'static, Shared, Cosine>,
    first: Once,
}

impl Graph {
    /// An empty graph; `options` have been checked.
    pub(crate) fn new(options: &IndexOptions, dot: Dot) -> Self {
        let hnsw = Hnsw::new(
            options.max_connections,
            options.expected_points.min(EXPECTED_MAX),
            LAYERS,
            options.ef_construction.min(EF_CONSTRUCTION_MAX),
            Cosine { dot },
        );
        Self { hnsw, first: Once::new() }
    }

    /// Links a vector. All vectors of one graph have one length; each slot is linked once.
    pub(crate) fn link(&self, slot: Slot, vector: &Shared) {
        let insert = || self.hnsw.insert((std::slice::from_ref(vector), slot as usize));
        let mut was_first = false;
        self.first.call_once(|| {
            insert();
            was_first = true;
        });
        if !was_first {
            insert();
        }
    }

    /// Up to `ef` vectors near the query, nearest first.
    pub(crate) fn walk(&self, query: &Shared, ef: usize) -> Vec<Found> {
        self.hnsw
            .search(std::slice::from_ref(query), ef, ef)
            .into_iter()
            .map(|n| Found {
                slot: Slot::try_from(n.d_id).expect("slots are given in as u32"),
                distance: n.distance,
            })
            .collect()
    }
}
