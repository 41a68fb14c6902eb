//! How fast points go into an index that is being searched.
//!
//! Owns: the rate of inserts beside searches that take half of what the machine can do. A peer's rate
//! alone is measured by `peers.py` on the same points. Deliberately absent: bulk builds (see
//! `measure`).

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use diptych_core::{Embedding, PointId};
use diptych_index::IndexError;
use rayon::prelude::*;
use serde::Serialize;

use crate::dataset::DataSet;
use crate::exact::rounded;
use crate::measure::{K, embeddings, pool};
use crate::ours::{Ours, Params};

/// Points at most; four fifths are there before the clock starts.
pub const POINTS_MAX: usize = 100_000;
/// The candidate list of the searches meanwhile.
pub const EF: usize = 64;

/// Rates per second.
#[derive(Debug, Clone, Serialize)]
pub struct Inserts {
    pub peer: &'static str,
    pub params: Params,
    pub n: usize,
    pub threads: usize,
    /// Without searches, and beside them.
    pub inserts_alone: f64,
    pub inserts_searching: f64,
    /// Searches without inserts; half of it was aimed at meanwhile, and so much was reached.
    pub searches_alone: f64,
    pub searches_inserting: f64,
}

/// Inserts the last fifth of the points one by one on `threads` threads: half of it alone, half
/// beside image queries from as many threads, which are held to half their rate.
pub fn measure(data: &DataSet, params: Params, threads: usize) -> Result<Inserts> {
    let rows = data.base.len().min(POINTS_MAX * data.dim);
    let points: Vec<_> = (0..).map(PointId).zip(embeddings(&data.base[..rows], data.dim)?).collect();
    let queries = embeddings(&data.image.vectors, data.dim)?;
    let (before, rest) = points.split_at(points.len() / 5 * 4);
    let (alone, beside) = rest.split_at(rest.len() / 2);
    let pool = pool(threads)?;
    let index = pool.install(|| Ours::build(before, params))?;

    let insert = |part: &[(PointId, Embedding)]| -> Result<f64, IndexError> {
        let start = Instant::now();
        pool.install(|| part.par_iter().with_max_len(1).try_for_each(|(id, e)| index.insert(*id, e)))?;
        Ok(part.len() as f64 / start.elapsed().as_secs_f64())
    };
    let start = Instant::now();
    pool.install(|| queries.par_iter().with_max_len(1).try_for_each(|q| index.search(q, K, EF).map(drop)))?;
    let searches_alone = queries.len() as f64 / start.elapsed().as_secs_f64();
    let inserts_alone = insert(alone)?;
    let half = Load { index: &index, queries: &queries, per_second: searches_alone / 2.0, threads };
    let (inserts_searching, searches_inserting) = half.beside(|| insert(beside))?;
    Ok(Inserts {
        peer: "diptych",
        params,
        n: points.len(),
        threads,
        inserts_alone: rounded(inserts_alone, 1),
        inserts_searching: rounded(inserts_searching, 1),
        searches_alone: rounded(searches_alone, 1),
        searches_inserting: rounded(searches_inserting, 1),
    })
}

/// Searches at a steady rate.
struct Load<'a> {
    index: &'a Ours,
    queries: &'a [Embedding],
    per_second: f64,
    threads: usize,
}

impl Load<'_> {
    /// Searches for as long as `work` takes; returns its result and the searches per second.
    fn beside<R>(&self, work: impl FnOnce() -> Result<R, IndexError>) -> Result<(R, f64), IndexError> {
        let (turn, done, stop) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
        let start = Instant::now();
        let search = || -> Result<(), IndexError> {
            while !stop.load(Ordering::Relaxed) {
                let turn = turn.fetch_add(1, Ordering::Relaxed);
                let due = Duration::from_secs_f64(turn as f64 / self.per_second);
                std::thread::sleep(due.saturating_sub(start.elapsed()));
                self.index.search(&self.queries[turn % self.queries.len()], K, EF)?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let searchers: Vec<_> = (0..self.threads).map(|_| scope.spawn(search)).collect();
            let result = work();
            let rate = done.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64();
            stop.store(true, Ordering::Relaxed);
            for searcher in searchers {
                searcher.join().expect("a search does not panic")?;
            }
            Ok((result?, rate))
        })
    }
}
