//! Diptych's index as the benchmark uses it.
//!
//! Owns: every call of the index, so that a change of its interface is a change of this file.
//! Deliberately absent: time, memory and recall (see `measure`).

use diptych_core::{Embedding, PointId};
use diptych_index::{Answer, Index, IndexError, IndexOptions, Neighbor, PointSet, Search};
use serde::Serialize;
use tempfile::TempDir;

/// Whether the index takes edges for a kind of queries.
pub const QUERY_EDGES: bool = true;

/// What a build is told; written beside its figures.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Params {
    /// Neighbours kept per vector and layer.
    #[serde(rename = "M")]
    pub m: usize,
    /// Candidates considered when a vector is linked.
    pub efc: usize,
}

/// An index that is ready for queries, in files that go with it.
pub struct Ours {
    index: Index,
    options: IndexOptions,
    dir: TempDir,
}

impl Ours {
    /// Builds on the threads of the current pool.
    pub fn build(points: &[(PointId, Embedding)], params: Params) -> Result<Self, IndexError> {
        let dim = points.first().map_or(1, |(_, embedding)| embedding.dim());
        let options = IndexOptions {
            max_connections: params.m,
            ef_construction: params.efc,
            ..IndexOptions::default()
        };
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        let index = Index::open(dir.path(), dim, options)?;
        index.insert_many(points)?;
        index.seal()?;
        Ok(Self { index, options, dir })
    }

    /// Closes the index and opens it again from its files.
    pub fn reopened(self) -> Result<Self, IndexError> {
        let Self { index, options, dir } = self;
        let dim = index.dim();
        drop(index);
        Ok(Self { index: Index::open(dir.path(), dim, options)?, options, dir })
    }

    /// Bytes of codes, links and ids.
    pub fn hot_bytes(&self) -> usize {
        self.index.stats().hot_bytes
    }

    /// Adds edges for the kind of queries that these texts are; returns whether it did.
    pub fn learn_queries(&self, texts: &[Embedding]) -> Result<bool, IndexError> {
        self.index.learn_queries(texts)?;
        Ok(QUERY_EDGES)
    }

    /// Inserts one more point.
    pub fn insert(&self, id: PointId, embedding: &Embedding) -> Result<(), IndexError> {
        self.index.insert(id, embedding)
    }

    /// The `k` nearest, best first, found with a candidate list of `ef`.
    pub fn search(&self, query: &Embedding, k: usize, ef: usize) -> Result<Vec<Neighbor>, IndexError> {
        self.index.nearest(query, k, Some(ef))
    }

    /// As [`Ours::search`], among some of the points; also says how.
    pub fn search_filtered(
        &self,
        query: &Embedding,
        k: usize,
        ef: usize,
        allowed: &PointSet,
    ) -> Result<Answer, IndexError> {
        self.index.search(query, &Search { k, ef: Some(ef), filter: Some(allowed) })
    }
}
