//! How much of the true answer do searches find?
//!
//! Owns: the meter, which repeats a sampled share of live searches exactly, and the choice of a
//! candidate list for a wanted recall. Both per collection and [`Direction`]: text queries lie far
//! from all images, so one number for both would hide the harder.
//!
//! Nothing here delays a search: what is to be measured goes to one thread behind a bounded queue,
//! and is dropped when that is full or has had its share of the time. Until a recall has been
//! measured, a search that asks for one scans, which finds everything.
//! Deliberately absent: calibrations for filters, of which there are too many to measure each.

mod ladder;
mod window;
mod worker;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use diptych_core::{CollectionName, Effort, Embedding, Modality, Query};
use diptych_store::Store;

use crate::attributes::Matching;
use crate::space::Space;

use ladder::Ladder;
pub use window::Estimate;
use window::Window;
use worker::{Job, Worker};

/// Queries that a calibration measures at the most, and the latest live ones that are kept for it.
const CALIBRATION: usize = 64;

/// How recall is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RecallOptions {
    /// The share of searches that is repeated exactly: 0 for none, 1 for all.
    pub sample: f64,
    /// The share of one core's time that the repeats may take.
    pub busy_max: f64,
    /// Searches that may wait to be repeated before a further one is dropped.
    pub waiting_max: usize,
    /// Latest measured searches in the sliding mean.
    pub window: usize,
}

impl Default for RecallOptions {
    fn default() -> Self {
        Self { sample: 0.01, busy_max: 0.1, waiting_max: 64, window: 256 }
    }
}

/// What a search started from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum QueryKind {
    /// An image, or a stored one.
    Image,
    /// A text, or a stored one.
    Text,
    /// A vector, of which it is not known what it stands for, or several terms of different kinds.
    Vector,
}

impl fmt::Display for QueryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Image => "image",
            Self::Text => "text",
            Self::Vector => "vector",
        })
    }
}

impl From<Modality> for QueryKind {
    fn from(modality: Modality) -> Self {
        match modality {
            Modality::Image => Self::Image,
            Modality::Text => Self::Text,
        }
    }
}

/// From what to what a search went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Direction {
    /// What it started from.
    pub from: QueryKind,
    /// What it searched.
    pub to: Modality,
    /// Whether a filter narrowed the answer; such searches may take other ways through the index.
    pub filtered: bool,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}{}", self.from, self.to, if self.filtered { ", filtered" } else { "" })
    }
}

/// What is known of one direction in one collection.
#[derive(Debug, Clone, PartialEq)]
pub struct RecallReport {
    /// The collection.
    pub collection: CollectionName,
    /// The direction.
    pub direction: Direction,
    /// Searches since the engine was opened.
    pub searches: u64,
    /// Of those, repeated exactly.
    pub measured: u64,
    /// Of those, sampled but not repeated: the queue was full or had had its share of the time.
    pub dropped: u64,
    /// The mean recall of all that were measured, at the `k` and `ef` of each; `None` when there are
    /// none.
    pub mean: Option<f64>,
    /// The latest of them.
    pub latest: Option<Estimate>,
    /// The recall at 10 by size of the candidate list; empty until a search has asked for a recall.
    pub ladder: Vec<(usize, Estimate)>,
}

/// How a search shall look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// With this candidate list, or the index's own choice.
    Ef(Option<usize>),
    /// At everything.
    Exact,
}

/// A search that was answered.
pub(crate) struct Answered<'a> {
    pub(crate) space: &'a Arc<Space>,
    pub(crate) direction: Direction,
    pub(crate) embedding: &'a Embedding,
    pub(crate) k: usize,
    /// The points that could be found, if not all.
    pub(crate) matching: Option<&'a Arc<Matching>>,
    /// Scores of the at most `k` neighbours found.
    pub(crate) scores: &'a [f32],
}

type Key = (CollectionName, Direction);

struct Track {
    searches: u64,
    measured: u64,
    dropped: u64,
    sum: f64,
    window: Window,
    /// Embeddings of the latest searches that asked for a recall or were sampled.
    recent: VecDeque<Embedding>,
    ladder: Option<Ladder>,
    /// A calibration is on its way.
    calibrating: bool,
}

/// What the meter and its thread share.
struct Shared {
    options: RecallOptions,
    store: Arc<Store>,
    tracks: Mutex<HashMap<Key, Track>>,
    drawn: AtomicU64,
    started: Instant,
    /// Microseconds after the start until which the thread has used up its share of the time.
    rest_until: AtomicU64,
}

/// Measures recall, and chooses by what it has measured.
pub(crate) struct Meter {
    shared: Arc<Shared>,
    /// Started by the first job.
    worker: Mutex<Option<Worker>>,
}

impl Meter {
    pub(crate) fn new(store: Arc<Store>, options: RecallOptions) -> Self {
        let shared = Shared {
            options,
            store,
            tracks: Mutex::default(),
            // 0 would always be drawn.
            drawn: AtomicU64::new(1),
            started: Instant::now(),
            rest_until: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared), worker: Mutex::new(None) }
    }

    /// How a query shall be searched among `points` points. One that asks for a recall that has not
    /// been measured yet is searched exactly, and the measurement is begun.
    pub(crate) fn look(
        &self,
        space: &Arc<Space>,
        direction: Direction,
        embedding: &Embedding,
        query: &Query,
        points: usize,
    ) -> Look {
        let target = match query.effort() {
            Effort::Default => return Look::Ef(None),
            Effort::Ef(ef) => return Look::Ef(Some(ef)),
            Effort::Recall(target) => target,
        };
        // A filter has its own meter, and the ladder of the searches without one.
        let direction = Direction { filtered: false, ..direction };
        let mut tracks = self.shared.tracks();
        let track = self.shared.track(&mut tracks, space, direction);
        track.remember(embedding);
        let chosen = track.ladder.as_ref().and_then(|ladder| ladder.choose(target, query.k()));
        let needed = track.ladder.as_ref().is_none_or(|ladder| ladder.is_stale(points));
        let few = track.ladder.as_ref().is_some_and(|ladder| ladder.queries() < CALIBRATION);
        let calibrate = needed && !track.calibrating;
        track.calibrating |= needed;
        drop(tracks);
        if calibrate && !self.send(Job::Calibrate { space: Arc::clone(space), direction }) {
            let mut tracks = self.shared.tracks();
            self.shared.track(&mut tracks, space, direction).calibrating = false;
        } else if few && !needed {
            // There were not enough queries to calibrate with: this is one more.
            let space = Arc::clone(space);
            let embedding = embedding.clone();
            self.send(Job::Repeat { space, direction, embedding, matching: None, answer: None });
        }
        chosen.map_or(Look::Exact, |ef| Look::Ef(Some(ef)))
    }

    /// Counts a search and, if it is drawn, has it repeated.
    pub(crate) fn answered(&self, answered: &Answered<'_>) {
        let Answered { space, direction, embedding, k, matching, scores } = answered;
        let drawn = self.shared.draw();
        {
            let mut tracks = self.shared.tracks();
            let track = self.shared.track(&mut tracks, space, *direction);
            track.searches += 1;
            if !drawn {
                return;
            }
            track.remember(embedding);
        }
        let job = Job::Repeat {
            space: Arc::clone(space),
            direction: *direction,
            embedding: (*embedding).clone(),
            matching: matching.cloned(),
            answer: Some((*k, scores.to_vec())),
        };
        if self.shared.is_resting() || !self.send(job) {
            let mut tracks = self.shared.tracks();
            self.shared.track(&mut tracks, space, *direction).dropped += 1;
        }
    }

    /// Waits until everything that was to be measured so far has been.
    pub(crate) fn drain(&self) {
        let Some(jobs) = self.worker().as_ref().and_then(Worker::jobs) else { return };
        let (done, flushed) = sync_channel(1);
        if jobs.send(Job::Flush(done)).is_ok() {
            // An error means that the thread has ended: nothing is left to wait for.
            let _ = flushed.recv();
        }
    }

    /// Forgets what was measured of a collection that is gone.
    pub(crate) fn forget(&self, collection: &CollectionName) {
        self.shared.tracks().retain(|(name, _), _| name != collection);
    }

    /// What is known, by collection and direction.
    pub(crate) fn reports(&self) -> Vec<RecallReport> {
        let tracks = self.shared.tracks();
        let mut reports: Vec<RecallReport> = tracks
            .iter()
            .map(|((collection, direction), track)| RecallReport {
                collection: collection.clone(),
                direction: *direction,
                searches: track.searches,
                measured: track.measured,
                dropped: track.dropped,
                mean: (track.measured > 0).then(|| track.sum / track.measured as f64),
                latest: track.window.estimate(),
                ladder: track.ladder.as_ref().map(Ladder::estimates).unwrap_or_default(),
            })
            .collect();
        reports.sort_by(|a, b| (&a.collection, a.direction).cmp(&(&b.collection, b.direction)));
        reports
    }

    /// Hands a job to the thread, unless its queue is full.
    fn send(&self, job: Job) -> bool {
        let mut worker = self.worker();
        if worker.is_none() {
            *worker = Worker::start(Arc::clone(&self.shared));
        }
        worker.as_ref().is_some_and(|worker| worker.send(job))
    }

    fn worker(&self) -> MutexGuard<'_, Option<Worker>> {
        self.worker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Track {
    fn new(window: usize) -> Self {
        Self {
            searches: 0,
            measured: 0,
            dropped: 0,
            sum: 0.0,
            window: Window::new(window),
            recent: VecDeque::new(),
            ladder: None,
            calibrating: false,
        }
    }

    fn remember(&mut self, embedding: &Embedding) {
        if self.recent.back() == Some(embedding) {
            return;
        }
        if self.recent.len() == CALIBRATION {
            self.recent.pop_front();
        }
        self.recent.push_back(embedding.clone());
    }
}

impl Shared {
    fn tracks(&self) -> MutexGuard<'_, HashMap<Key, Track>> {
        self.tracks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn track<'t>(
        &self,
        tracks: &'t mut HashMap<Key, Track>,
        space: &Space,
        direction: Direction,
    ) -> &'t mut Track {
        let key = (space.collection.name.clone(), direction);
        tracks.entry(key).or_insert_with(|| Track::new(self.options.window))
    }

    /// Whether the next search is sampled: each with the same probability, whatever pattern the
    /// queries come in, and yet the same ones in every run.
    fn draw(&self) -> bool {
        let mut z = self.drawn.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let share = ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64;
        share < self.options.sample
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn is_resting(&self) -> bool {
        self.now() < self.rest_until.load(Ordering::Relaxed)
    }

    /// After so much work, the thread takes no repeats for as long as its share of the time wants.
    fn rest_after(&self, worked: Duration) {
        let pause = worked.as_secs_f64() * (1.0 / self.options.busy_max.clamp(1e-3, 1.0) - 1.0);
        let until = self.now().saturating_add((pause * 1e6) as u64);
        self.rest_until.store(until, Ordering::Relaxed);
    }
}
