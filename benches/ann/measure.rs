//! Speed, latency and recall of our index on one data set.
//!
//! Owns: the build with its cost, and one measurement each of a batch of queries, of single queries
//! and of recall; what is timed is nothing but searches. Deliberately absent: repeats, sweeps and
//! output (see `main` and, beside the peers, `sweep.py`).

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use diptych_core::{Embedding, PointId};
use diptych_index::{IndexError, Neighbor};
use rayon::ThreadPool;
use rayon::prelude::*;
use serde::Serialize;

use crate::dataset::{DataSet, Modality};
use crate::exact::{percentile, rounded};
use crate::filtered::Filtered;
use crate::ours::{Ours, Params};
use crate::process::{cpu_seconds, resident_bytes};

/// Neighbours asked for, and for the second recall.
pub const K: usize = 10;
pub const K_LONG: usize = 100;
/// Queries before a clock starts.
const WARM: usize = 32;

/// What an index cost.
#[derive(Debug, Clone, Serialize)]
pub struct Built {
    pub peer: &'static str,
    pub params: Params,
    pub build_s: f64,
    pub build_cpu_s: f64,
    /// Processor time of query-aware edges, which is not part of the build's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edges_cpu_s: Option<f64>,
    pub build_threads: usize,
    /// Growth of resident memory from before the build until after it.
    pub rss_bytes: Option<u64>,
    pub bytes_per_vector: Option<f64>,
    /// Bytes of codes, links and ids per vector: what a search walks through. The rest of the growth is
    /// pages of exact vectors that were read, which the system takes back when it needs the memory.
    pub hot_bytes_per_vector: f64,
    /// From closed files, which the system still holds in memory, to the first answer.
    pub open_s: f64,
    pub n: usize,
}

/// One pass over a modality's queries.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Batch {
    pub recall10: f64,
    pub qps: f64,
    pub qps_cpu: f64,
}

/// One pass of queries one by one, on one thread.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Latency {
    pub p50_us: f64,
    pub p99_us: f64,
}

/// One pass of filtered queries, on one thread.
#[derive(Debug, Clone, Serialize)]
pub struct FilteredBatch {
    #[serde(flatten)]
    pub batch: Batch,
    /// How the index found the last answer.
    pub plan: String,
}

/// An index and the queries it is measured with.
pub struct Bench {
    pub built: Built,
    index: Ours,
    text: Asked,
    image: Asked,
    learn: Vec<Embedding>,
    /// Resident memory before the build.
    memory_before: Option<u64>,
    pools: BTreeMap<usize, ThreadPool>,
}

/// Queries with their true neighbours, `k` each.
struct Asked {
    queries: Vec<Embedding>,
    truth: Vec<u32>,
    k: usize,
}

impl Bench {
    /// Builds on `threads` threads. Of each modality the first `limit` queries are asked.
    pub fn build(data: DataSet, params: Params, threads: usize, limit: usize) -> Result<Self> {
        ensure!(data.k >= K, "the set has {} true neighbours per query; at least {K} are needed", data.k);
        let asked = |modality| -> Result<Asked> {
            let found = data.queries(modality);
            let mut queries = embeddings(&found.vectors, data.dim)?;
            queries.truncate(limit);
            Ok(Asked { queries, truth: found.truth.clone(), k: data.k })
        };
        let (text, image) = (asked(Modality::Text)?, asked(Modality::Image)?);
        let learn = embeddings(&data.learn, data.dim)?;
        let points: Vec<_> = (0..).map(PointId).zip(embeddings(&data.base, data.dim)?).collect();
        drop(data);
        let memory_before = resident_bytes();
        let (start, cpu) = (Instant::now(), cpu_seconds());
        // The pool ends before memory is read, so that its threads keep none.
        let index = pool(threads)?.install(|| Ours::build(&points, params))?;
        let (build_s, build_cpu_s) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        let opening = Instant::now();
        let index = pool(threads)?.install(|| index.reopened())?;
        if let Some(first) = image.queries.first() {
            index.search(first, K, K)?;
        }
        let open_s = opening.elapsed().as_secs_f64();
        let built = Built {
            peer: "diptych",
            params,
            build_s: rounded(build_s, 2),
            build_cpu_s: rounded(build_cpu_s, 2),
            edges_cpu_s: None,
            build_threads: threads,
            rss_bytes: None,
            bytes_per_vector: None,
            hot_bytes_per_vector: rounded(index.hot_bytes() as f64 / points.len().max(1) as f64, 1),
            open_s: rounded(open_s, 3),
            n: points.len(),
        };
        let mut bench = Self { built, index, text, image, learn, memory_before, pools: BTreeMap::new() };
        bench.weigh();
        // What the build read is freed only now: it counts on both sides of the growth.
        drop(points);
        bench.memory_before = None;
        Ok(bench)
    }

    /// Gives the index the set's training texts; returns whether it makes anything of them.
    pub fn learn_queries(&mut self) -> Result<bool> {
        let before = resident_bytes();
        let cpu = cpu_seconds();
        let learnt = pool(self.built.build_threads)?.install(|| self.index.learn_queries(&self.learn))?;
        if learnt {
            self.built.peer = "diptych-queries";
            self.built.edges_cpu_s = Some(rounded(cpu_seconds() - cpu, 2));
            let more = resident_bytes().zip(before).map(|(after, before)| after.saturating_sub(before));
            let bytes = self.built.rss_bytes.zip(more).map(|(bytes, more)| bytes + more);
            self.set_bytes(bytes);
        }
        Ok(learnt)
    }

    fn weigh(&mut self) {
        let grown = resident_bytes().zip(self.memory_before);
        self.set_bytes(grown.map(|(after, before)| after.saturating_sub(before)));
    }

    fn set_bytes(&mut self, bytes: Option<u64>) {
        self.built.rss_bytes = bytes;
        self.built.bytes_per_vector = bytes.map(|b| rounded(b as f64 / self.built.n as f64, 1));
    }

    /// All queries of a modality on `threads` threads, one query per task.
    pub fn batch(&mut self, modality: Modality, ef: usize, threads: usize) -> Result<Batch> {
        let pool = self.prepare_pool(threads)?;
        let asked = self.asked(modality);
        let (start, cpu) = (Instant::now(), cpu_seconds());
        let found: Vec<_> = pool.install(|| {
            asked
                .queries
                .par_iter()
                .with_max_len(1)
                .map(|q| self.index.search(q, K, ef))
                .collect::<Result<_, _>>()
        })?;
        let (seconds, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        self.pools.insert(threads, pool);
        let (asked, count) = (self.asked(modality), found.len() as f64);
        Ok(Batch {
            recall10: rounded(asked.recall(&found, K), 4),
            qps: rounded(count / seconds, 1),
            qps_cpu: rounded(count / cpu.max(1e-9), 1),
        })
    }

    /// The first `count` queries of a modality one by one. On a thread of a pool of one: what the
    /// index shares out among threads stays on it.
    pub fn singles(&mut self, modality: Modality, ef: usize, count: usize) -> Result<Latency> {
        let pool = self.prepare_pool(1)?;
        let asked = self.asked(modality);
        let times: Vec<f64> = pool.install(|| {
            for query in asked.queries.iter().take(WARM) {
                self.index.search(query, K, ef)?;
            }
            let timed = asked.queries.iter().take(count.max(1)).map(|query| {
                let start = Instant::now();
                self.index.search(query, K, ef)?;
                Ok(start.elapsed().as_secs_f64() * 1e6)
            });
            timed.collect::<Result<_, IndexError>>()
        })?;
        self.pools.insert(1, pool);
        Ok(Latency {
            p50_us: rounded(percentile(times.clone(), 0.5), 1),
            p99_us: rounded(percentile(times, 0.99), 1),
        })
    }

    /// Recall among the first hundred neighbours; `None` where the set has fewer true ones.
    pub fn recall100(&self, modality: Modality, ef: usize) -> Result<Option<f64>> {
        let asked = self.asked(modality);
        if asked.k < K_LONG {
            return Ok(None);
        }
        let found: Vec<_> =
            asked.queries.par_iter().map(|q| self.index.search(q, K_LONG, ef)).collect::<Result<_, _>>()?;
        Ok(Some(rounded(asked.recall(&found, K_LONG), 4)))
    }

    /// Queries under a filter one after the other, on a thread of a pool of one.
    pub fn filtered(&mut self, filtered: &Filtered, ef: usize) -> Result<FilteredBatch> {
        let pool = self.prepare_pool(1)?;
        let (start, cpu) = (Instant::now(), cpu_seconds());
        let answers = pool.install(|| {
            let search = |q| self.index.search_filtered(q, filtered.k, ef, &filtered.allowed);
            filtered.queries.iter().map(search).collect::<Result<Vec<_>, _>>()
        })?;
        let (seconds, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        self.pools.insert(1, pool);
        let count = answers.len() as f64;
        let plan = answers.last().map(|answer| answer.plan.to_string()).unwrap_or_default();
        let found: Vec<_> = answers.into_iter().map(|answer| answer.neighbors).collect();
        let batch = Batch {
            recall10: rounded(filtered.recall(&found), 4),
            qps: rounded(count / seconds, 1),
            qps_cpu: rounded(count / cpu.max(1e-9), 1),
        };
        Ok(FilteredBatch { batch, plan })
    }

    fn asked(&self, modality: Modality) -> &Asked {
        match modality {
            Modality::Text => &self.text,
            Modality::Image => &self.image,
        }
    }

    /// A pool from an earlier measurement, or a new one; its threads are awake.
    fn prepare_pool(&mut self, threads: usize) -> Result<ThreadPool> {
        let pool = self.pools.remove(&threads).map_or_else(|| pool(threads), Ok)?;
        pool.broadcast(|_| ());
        Ok(pool)
    }
}

impl Asked {
    /// Mean share of the first `k` true neighbours among those found.
    fn recall(&self, found: &[Vec<Neighbor>], k: usize) -> f64 {
        let hits: usize = found
            .iter()
            .zip(self.truth.chunks_exact(self.k))
            .map(|(found, truth)| {
                found
                    .iter()
                    .take(k)
                    .filter(|hit| truth[..k].iter().any(|&t| u64::from(t) == hit.id.0))
                    .count()
            })
            .sum();
        hits as f64 / (found.len() * k) as f64
    }
}

/// A pool of so many threads.
pub fn pool(threads: usize) -> Result<ThreadPool> {
    let build = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    build.with_context(|| format!("{threads} threads cannot be started; ask for fewer with --threads"))
}

/// Rows as embeddings.
pub fn embeddings(rows: &[f32], dim: usize) -> Result<Vec<Embedding>> {
    rows.par_chunks_exact(dim).map(|row| Embedding::new(row).context("the set has a broken vector")).collect()
}
