//! Exact neighbours, and how hard they make a data set.
//!
//! Owns: the nearest by inner product, found by comparing every query with every base vector, and the
//! statistics that tell whether a set is as hard as real ones. Deliberately absent: any index.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::collections::BinaryHeap;

use diptych_kernels::{Epilogue, PackedMatrix, Threads, linear};
use rayon::prelude::*;
use serde::Serialize;

/// Base vectors of one task, and of one product within it.
const TASK: usize = 1 << 15;
const TILE: usize = 256;

/// The true neighbours of some queries.
pub struct Truth {
    /// Neighbours of each query.
    pub k: usize,
    /// `[query, k]`, best first, equal scores by id.
    pub ids: Vec<u32>,
    /// `[query, k]`, inner products.
    pub scores: Vec<f32>,
    /// The mean inner product of each query with the whole base.
    pub means: Vec<f64>,
}

/// The `k` base vectors of largest inner product with each query; at most all of them.
pub fn exact(base: &[f32], queries: &[f32], dim: usize, k: usize) -> Truth {
    let (n, count) = (base.len() / dim, queries.len() / dim);
    let k = k.min(n);
    let packed = PackedMatrix::pack(queries, count, dim);
    let best = base
        .par_chunks(TASK * dim)
        .enumerate()
        .map(|(task, part)| scan(part, task * TASK, &packed, k))
        .reduce(|| vec![Best::new(k); count], |a, b| a.into_iter().zip(b).map(|(a, b)| a.merge(b)).collect());
    let mean = mean(base, dim);
    let means = queries
        .chunks_exact(dim)
        .map(|q| q.iter().zip(&mean).map(|(&q, m)| f64::from(q) * m).sum())
        .collect();
    let found: Vec<Scored> = best.into_iter().flat_map(|b| b.heap.into_sorted_vec()).collect();
    Truth {
        k,
        ids: found.iter().map(|f| f.id).collect(),
        scores: found.iter().map(|f| f.score).collect(),
        means,
    }
}

fn scan(part: &[f32], first: usize, queries: &PackedMatrix, k: usize) -> Vec<Best> {
    let (dim, count) = (queries.cols(), queries.rows());
    let mut best = vec![Best::new(k); count];
    let mut worst = vec![f32::NEG_INFINITY; count];
    let mut scores = vec![0f32; TILE * count];
    for (tile, rows) in part.chunks(TILE * dim).enumerate() {
        let m = rows.len() / dim;
        let scores = &mut scores[..m * count];
        linear(scores, rows, m, queries, Epilogue::None, Threads::One);
        for (i, row) in scores.chunks_exact(count).enumerate() {
            let id = (first + tile * TILE + i) as u32;
            for (query, &score) in row.iter().enumerate() {
                if score > worst[query] {
                    worst[query] = best[query].offer(Scored { score, id });
                }
            }
        }
    }
    best
}

fn mean(base: &[f32], dim: usize) -> Vec<f64> {
    let sums: Vec<Vec<f64>> = base
        .par_chunks(TASK * dim)
        .map(|part| {
            let mut sum = vec![0f64; dim];
            for row in part.chunks_exact(dim) {
                sum.iter_mut().zip(row).for_each(|(s, &x)| *s += f64::from(x));
            }
            sum
        })
        .collect();
    let n = (base.len() / dim) as f64;
    (0..dim).map(|d| sums.iter().map(|s| s[d]).sum::<f64>() / n).collect()
}

/// A neighbour; less is better.
#[derive(Clone, Copy)]
struct Scored {
    score: f32,
    id: u32,
}

impl Ord for Scored {
    fn cmp(&self, other: &Self) -> Ordering {
        other.score.total_cmp(&self.score).then(self.id.cmp(&other.id))
    }
}

impl PartialOrd for Scored {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Scored {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scored {}

/// The best `k` of those offered; the worst of them is on top.
#[derive(Clone)]
struct Best {
    k: usize,
    heap: BinaryHeap<Scored>,
}

impl Best {
    fn new(k: usize) -> Self {
        Self { k, heap: BinaryHeap::new() }
    }

    /// Returns the score that the next must exceed. (Ids are offered in rising order within a task,
    /// so that one of equal score is no better; [`Best::merge`] compares ids too.)
    fn offer(&mut self, offered: Scored) -> f32 {
        if self.heap.len() < self.k {
            self.heap.push(offered);
        } else if let Some(mut worst) = self.heap.peek_mut()
            && offered < *worst
        {
            *worst = offered;
        }
        match self.heap.peek() {
            Some(worst) if self.heap.len() == self.k => worst.score,
            _ => f32::NEG_INFINITY,
        }
    }

    fn merge(mut self, other: Self) -> Self {
        for scored in other.heap {
            self.offer(scored);
        }
        self
    }
}

/// How hard the queries of one modality are: medians over the queries, in cosine distance.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Statistics {
    /// Mean distance to the base over the distance of neighbour 1, 10 and 100: how far neighbours
    /// stand out.
    pub rel_contrast: BTreeMap<String, f64>,
    /// Local intrinsic dimension by the maximum-likelihood estimate from the neighbours' distances
    /// (Levina and Bickel, 2004).
    pub lid100: Lid,
    /// Mean cosine of queries and base, and the median of each query's largest.
    pub mean_cos: f64,
    pub top1_cos: f64,
}

/// Percentiles over the queries.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Lid {
    pub p10: f64,
    pub p50: f64,
    pub p90: f64,
}

impl Truth {
    /// The statistics of these queries.
    pub fn statistics(&self) -> Statistics {
        let distances: Vec<Vec<f64>> = self
            .scores
            .chunks_exact(self.k)
            .map(|scores| scores.iter().map(|&s| (1.0 - f64::from(s)).max(1e-6)).collect())
            .collect();
        let contrast = |k: usize| {
            let each = distances.iter().zip(&self.means).map(|(d, mean)| (1.0 - mean) / d[k.min(self.k) - 1]);
            rounded(percentile(each.collect(), 0.5), 3)
        };
        let dimensions: Vec<f64> = distances
            .iter()
            .map(|d| {
                -1.0 / (d.iter().map(|x| (x / d[self.k - 1]).ln()).sum::<f64>() / d.len() as f64).min(-1e-9)
            })
            .collect();
        let lid = |p| rounded(percentile(dimensions.clone(), p), 1);
        let first = self.scores.chunks_exact(self.k).map(|scores| f64::from(scores[0])).collect();
        Statistics {
            rel_contrast: [1, 10, 100].map(|k| (k.to_string(), contrast(k))).into(),
            lid100: Lid { p10: lid(0.1), p50: lid(0.5), p90: lid(0.9) },
            mean_cos: rounded(self.means.iter().sum::<f64>() / self.means.len() as f64, 4),
            top1_cos: rounded(percentile(first, 0.5), 4),
        }
    }
}

/// The value at share `p` of the sorted values, linear between two of them.
pub fn percentile(mut values: Vec<f64>, p: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = p * (values.len() - 1) as f64;
    let (below, above) = (values[at.floor() as usize], values[at.ceil() as usize]);
    below + (above - below) * at.fract()
}

/// Rounded to so many decimals, for files that people read.
pub fn rounded(value: f64, decimals: i32) -> f64 {
    let unit = 10f64.powi(decimals);
    (value * unit).round() / unit
}
