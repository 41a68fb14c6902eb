//! The thread that measures: exact repeats and calibrations, one after the other, on one core.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use diptych_core::{Embedding, Modality, PointId};
use diptych_index::{Index, IndexError, Neighbor, PointSet};

use super::ladder::{self, Ladder};
use super::{CALIBRATION, Direction, QueryKind, Shared};
use crate::EngineError;
use crate::attributes::Matching;
use crate::space::Space;

/// What there is to do.
pub(super) enum Job {
    /// Repeat a search exactly; with an answer, that is compared, and a ladder grows by the query.
    Repeat {
        space: Arc<Space>,
        direction: Direction,
        embedding: Embedding,
        /// The points that could be found, if not all.
        matching: Option<Arc<Matching>>,
        /// `k` and the scores found.
        answer: Option<(usize, Vec<f32>)>,
    },
    /// Begin a ladder anew.
    Calibrate { space: Arc<Space>, direction: Direction },
    /// Say when everything before is done.
    Flush(SyncSender<()>),
}

/// The thread and the way to it; ends it when dropped, after the job in work.
pub(super) struct Worker {
    jobs: Option<SyncSender<Job>>,
    closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts the thread; `None` when the system has none to give.
    pub(super) fn start(shared: Arc<Shared>) -> Option<Self> {
        let (jobs, receive) = sync_channel(shared.options.waiting_max.max(1));
        let closing = Arc::new(AtomicBool::new(false));
        let closed = Arc::clone(&closing);
        let run = move || run(&shared, &receive, &closed);
        let thread = std::thread::Builder::new().name("recall".to_owned()).spawn(run).ok()?;
        Some(Self { jobs: Some(jobs), closing, thread: Some(thread) })
    }

    /// Whether the job was taken.
    pub(super) fn send(&self, job: Job) -> bool {
        self.jobs.as_ref().is_some_and(|jobs| jobs.try_send(job).is_ok())
    }

    /// The way to the thread, for those who can wait.
    pub(super) fn jobs(&self) -> Option<SyncSender<Job>> {
        self.jobs.clone()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has nothing left to say.
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared, jobs: &Receiver<Job>, closing: &AtomicBool) {
    // Scans spread over the pool they are called in; here that is one thread, so that measuring
    // leaves the other cores to the searches.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().ok();
    for job in jobs {
        if closing.load(Ordering::Relaxed) {
            return;
        }
        let started = Instant::now();
        let repeat = matches!(job, Job::Repeat { .. });
        match &pool {
            Some(pool) => pool.install(|| work(shared, job, closing)),
            None => work(shared, job, closing),
        }
        if repeat {
            shared.rest_after(started.elapsed());
        }
    }
}

/// A job that fails has measured nothing, and is counted as such: the search itself was answered.
fn work(shared: &Shared, job: Job, closing: &AtomicBool) {
    match job {
        Job::Repeat { space, direction, embedding, matching, answer } => {
            let points = matching.as_ref().map(|matching| &matching.points);
            if repeat(shared, &space, direction, &embedding, points, answer).is_err() {
                shared.track(&mut shared.tracks(), &space, direction).dropped += 1;
            }
        }
        Job::Calibrate { space, direction } => {
            let ladder = calibrate(shared, &space, direction, closing);
            let mut tracks = shared.tracks.lock().unwrap_or_else(PoisonError::into_inner);
            let track = shared.track(&mut tracks, &space, direction);
            track.calibrating = false;
            if let Ok(ladder) = ladder {
                track.ladder = Some(ladder);
            }
        }
        Job::Flush(done) => {
            // Whoever waited may have gone.
            let _ = done.send(());
        }
    }
}

fn repeat(
    shared: &Shared,
    space: &Space,
    direction: Direction,
    embedding: &Embedding,
    points: Option<&PointSet>,
    answer: Option<(usize, Vec<f32>)>,
) -> Result<(), EngineError> {
    let index = space.index(&shared.store, direction.to)?;
    if let Some((k, scores)) = answer {
        let exact = match points {
            Some(points) => nearest_among(&index, embedding, k, points)?,
            None => index.nearest_exact(embedding, k)?,
        };
        if let Some(recall) = ladder::recall_of(&scores, &exact) {
            let mut tracks = shared.tracks();
            let track = shared.track(&mut tracks, space, direction);
            track.measured += 1;
            track.sum += recall;
            track.window.push(recall);
        }
    }
    // Only where recalls are asked for is the cost of a ladder worth it.
    let climbs = shared.track(&mut shared.tracks(), space, direction).ladder.is_some();
    if climbs && let Some(recalls) = ladder::measure(&index, embedding)? {
        let mut tracks = shared.tracks();
        if let Some(ladder) = &mut shared.track(&mut tracks, space, direction).ladder {
            ladder.add(&recalls);
        }
    }
    Ok(())
}

/// The `k` nearest of some points, by a scan of all: of so many nearest that enough are among them.
fn nearest_among(
    index: &Index,
    embedding: &Embedding,
    k: usize,
    points: &PointSet,
) -> Result<Vec<Neighbor>, IndexError> {
    let share = points.len().max(1) as f64 / index.len().max(1) as f64;
    let mut wanted = (2.0 * k as f64 / share) as usize + k;
    loop {
        let nearest = index.nearest_exact(embedding, wanted)?;
        let all = nearest.len() < wanted;
        let among: Vec<Neighbor> =
            nearest.into_iter().filter(|neighbor| points.contains(neighbor.id.0)).take(k).collect();
        if all || among.len() == k {
            return Ok(among);
        }
        wanted = wanted.saturating_mul(4);
    }
}

/// A ladder from the latest real queries and, up to the bound, stored vectors in their stead.
fn calibrate(
    shared: &Shared,
    space: &Space,
    direction: Direction,
    closing: &AtomicBool,
) -> Result<Ladder, EngineError> {
    let mut queries: Vec<Embedding> =
        shared.track(&mut shared.tracks(), space, direction).recent.iter().cloned().collect();
    queries.extend(stored_queries(shared, space, direction, CALIBRATION - queries.len())?);
    let index = space.index(&shared.store, direction.to)?;
    let mut ladder = Ladder::new(index.len());
    for query in &queries {
        if closing.load(Ordering::Relaxed) {
            break;
        }
        if let Some(recalls) = ladder::measure(&index, query)? {
            ladder.add(&recalls);
        }
    }
    Ok(ladder)
}

/// Vectors that queries of this kind resemble, evenly from all that are stored.
fn stored_queries(
    shared: &Shared,
    space: &Space,
    direction: Direction,
    wanted: usize,
) -> Result<Vec<Embedding>, EngineError> {
    let modality = match (direction.from, direction.to) {
        (QueryKind::Image, _) | (QueryKind::Vector, Modality::Text) => Modality::Image,
        // What a vector stands for is unknown: the other modality is the harder of the two.
        (QueryKind::Text, _) | (QueryKind::Vector, Modality::Image) => Modality::Text,
    };
    let ids = space.index(&shared.store, modality)?.ids();
    let wanted = wanted.min(ids.len());
    let chosen: Vec<PointId> = (0..wanted).map(|n| ids[n * ids.len() / wanted]).collect();
    let vectors = shared.store.vectors(space.collection.id, modality, &chosen)?;
    Ok(vectors.into_iter().flatten().collect())
}
