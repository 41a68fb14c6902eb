//! Searches among a share of the points.
//!
//! Owns: which points a filter of a given share lets through, the same as `peers.py` beside this file
//! chooses, and the true neighbours among them. Deliberately absent: timing (see `measure`).

use std::path::Path;

use anyhow::{Result, ensure};
use diptych_core::Embedding;
use diptych_index::{Neighbor, PointSet};

use crate::dataset::{DataSet, Modality};
use crate::exact::exact;
use crate::measure::{K, embeddings};

/// Some queries of a modality, and their answers under a filter.
pub struct Filtered {
    pub asked: (Modality, f64, usize),
    pub allowed: PointSet,
    pub queries: Vec<Embedding>,
    /// `[query, k]`
    truth: Vec<u64>,
    /// [`K`], or all that the filter lets through.
    pub k: usize,
}

impl Filtered {
    /// The first `count` queries under a filter that lets through a share of the base.
    pub fn new(dir: &Path, modality: Modality, share: f64, count: usize) -> Result<Self> {
        let data = DataSet::read(dir)?;
        let ids: Vec<u64> =
            (0..(data.base.len() / data.dim) as u64).filter(|&id| attribute(id) < share).collect();
        ensure!(
            !ids.is_empty() && count > 0,
            "a filter of {share} lets nothing through; ask for a larger share"
        );
        let rows: Vec<f32> =
            ids.iter().flat_map(|&id| &data.base[id as usize * data.dim..][..data.dim]).copied().collect();
        let vectors = &data.queries(modality).vectors;
        let vectors = &vectors[..vectors.len().min(count * data.dim)];
        let found = exact(&rows, vectors, data.dim, K);
        Ok(Self {
            asked: (modality, share, count),
            queries: embeddings(vectors, data.dim)?,
            truth: found.ids.iter().map(|&row| ids[row as usize]).collect(),
            k: found.k,
            allowed: ids.into_iter().collect(),
        })
    }

    /// Mean share of the true neighbours among those found.
    pub fn recall(&self, found: &[Vec<Neighbor>]) -> f64 {
        let rows = found.iter().zip(self.truth.chunks_exact(self.k));
        let hits: usize =
            rows.map(|(found, truth)| found.iter().filter(|hit| truth.contains(&hit.id.0)).count()).sum();
        hits as f64 / self.truth.len() as f64
    }
}

/// A number in `[0, 1)` for every id, mixed as splitmix64 does: below `s` for a share `s` of them.
fn attribute(id: u64) -> f64 {
    let x = (id + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x ^ (x >> 31)) as f64 / 2f64.powi(64)
}
