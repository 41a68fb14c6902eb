//! Diptych's index as the benchmark uses it.
//!
//! Owns: every call of the index, so that a change of its interface is a change of this file.
//! Deliberately absent: time, memory and recall (see `measure`).

use diptych_core::{Embedding, PointId};
use diptych_index::{Index, IndexError, IndexOptions, Neighbor};
use serde::Serialize;

/// Whether the index takes edges for a kind of queries. Today's does not, and the variant with them
/// is left out of the results.
pub const QUERY_EDGES: bool = false;

/// What a build is told; written beside its figures.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Params {
    /// Neighbours kept per vector and layer.
    #[serde(rename = "M")]
    pub m: usize,
    /// Candidates considered when a vector is linked.
    pub efc: usize,
}

/// An index that is ready for queries.
pub struct Ours(Index);

impl Ours {
    /// Builds on the threads of the current pool.
    pub fn build(points: &[(PointId, Embedding)], params: Params) -> Result<Self, IndexError> {
        let dim = points.first().map_or(1, |(_, embedding)| embedding.dim());
        let index = Index::new(
            dim,
            IndexOptions {
                max_connections: params.m,
                ef_construction: params.efc,
                expected_points: points.len(),
                ..IndexOptions::default()
            },
        )?;
        index.insert_many(points)?;
        Ok(Self(index))
    }

    /// Adds edges for the kind of queries that these texts are; returns whether it did.
    pub fn learn_queries(&self, _texts: &[Embedding]) -> Result<bool, IndexError> {
        Ok(QUERY_EDGES)
    }

    /// Inserts one more point.
    pub fn insert(&self, id: PointId, embedding: &Embedding) -> Result<(), IndexError> {
        self.0.insert(id, embedding)
    }

    /// The `k` nearest, best first, found with a candidate list of `ef`.
    pub fn search(&self, query: &Embedding, k: usize, ef: usize) -> Result<Vec<Neighbor>, IndexError> {
        self.0.nearest(query, k, Some(ef))
    }
}
