//! Background work: sealing, merging, teaching, and putting the results in force.
//!
//! Owns: when each is due, one such job at a time, and the thread they run on. Deliberately absent: how a
//! segment is built. Searches, inserts and removals go on during every job; a result appears at once.
//!
//! Segments of about one size are merged when there are [`FAN`] of them, so that there are few, and each
//! point is written again only a logarithmic number of times. The largest keeps its links, and only the
//! points of the others are linked anew. A segment of which too much is dead is built again without it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;

use diptych_core::Embedding;

use crate::manifest::{Files, Manifest, links_path, points_path};
use crate::sealed::build;
use crate::sealed::links::LinkTable;
use crate::sealed::points::{Points, Staged};
use crate::sealed::segment::Segment;
use crate::state::{Part, Sealing, Shared};
use crate::{IndexError, PointSet};

/// Segments of one size that are merged.
const FAN: usize = 4;
/// Share of dead slots, one in so many, beyond which a segment is built again.
const DEAD_SHARE: usize = 5;

/// New queries before segments are taught about them.
const TEACH_MIN: u64 = 2048;

/// The worker of one index.
pub(crate) struct Upkeep {
    signal: Arc<Signal>,
    /// Held during a job.
    jobs: Arc<Mutex<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Signal {
    due: Mutex<bool>,
    woken: Condvar,
    stop: AtomicBool,
}

/// One piece of work.
enum Job {
    Seal(Sealing),
    Merge {
        base: Option<Part>,
        others: Vec<Part>,
    },
    Teach(Part),
    /// Write down what is in force, which failed before.
    Commit,
}

impl Upkeep {
    /// Starts the worker.
    pub(crate) fn start(shared: &Arc<Shared>) -> Self {
        let (signal, jobs) = (Arc::<Signal>::default(), Arc::<Mutex<()>>::default());
        let thread = {
            let (signal, jobs, shared) = (Arc::clone(&signal), Arc::clone(&jobs), Arc::downgrade(shared));
            std::thread::Builder::new()
                .name("diptych-upkeep".into())
                .spawn(move || run(&signal, &jobs, &shared))
                .ok()
        };
        Self { signal, jobs, thread }
    }

    /// Says that there may be work.
    pub(crate) fn wake(&self) {
        *self.signal.due.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.signal.woken.notify_one();
    }

    /// Stops the worker for good; returns when no job is under way.
    pub(crate) fn stop(&self) {
        self.signal.stop.store(true, Ordering::Release);
        self.wake();
        drop(lock(&self.jobs));
    }

    /// Does all work that is due, here, on all cores.
    pub(crate) fn settle(&self, shared: &Shared) -> Result<(), IndexError> {
        let jobs = lock(&self.jobs);
        work_off(shared, &Turn::patient(&jobs))
    }

    /// Seals what was set aside for it, here, on all cores.
    pub(crate) fn flush(&self, shared: &Shared) -> Result<(), IndexError> {
        let jobs = lock(&self.jobs);
        let turn = &Turn::patient(&jobs);
        while let Some(sealing) = next_sealing(shared) {
            seal(shared, turn, &sealing)?;
        }
        Ok(())
    }

    /// Makes points a segment, here, on all cores.
    pub(crate) fn insert_segment(&self, shared: &Shared, staged: Staged) -> Result<(), IndexError> {
        if staged.len() == 0 {
            return Ok(());
        }
        let jobs = lock(&self.jobs);
        let turn = &Turn::patient(&jobs);
        build_and_publish(shared, turn, staged, None, &[], None)?;
        work_off(shared, turn)
    }

    /// Teaches all segments about queries, here, on all cores.
    pub(crate) fn learn(&self, shared: &Shared, queries: &[Embedding]) -> Result<(), IndexError> {
        let jobs = lock(&self.jobs);
        let turn = &Turn::patient(&jobs);
        let queries: Vec<&[f32]> = queries.iter().map(Embedding::as_slice).collect();
        shared.snapshot().segments.iter().try_for_each(|part| teach(shared, turn, part, &queries))
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported; nothing here depends on it.
            let _ = thread.join();
        }
    }
}

/// The right to do jobs, one at a time, until stopped.
struct Turn<'a> {
    _jobs: &'a MutexGuard<'a, ()>,
    stop: build::Stop<'a>,
}

impl<'a> Turn<'a> {
    /// Until all is done.
    fn patient(jobs: &'a MutexGuard<'a, ()>) -> Self {
        Self { _jobs: jobs, stop: &|| false }
    }
}

fn lock(jobs: &Mutex<()>) -> MutexGuard<'_, ()> {
    jobs.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The worker: waits for work and does it on half of the cores, so that searches keep the others.
fn run(signal: &Signal, jobs: &Mutex<()>, shared: &Weak<Shared>) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads((cores / 2).max(1))
        .thread_name(|i| format!("diptych-upkeep-{i}"))
        .build();
    let Ok(pool) = pool else { return };
    loop {
        {
            let mut due = signal.due.lock().unwrap_or_else(PoisonError::into_inner);
            while !*due {
                due = signal.woken.wait(due).unwrap_or_else(PoisonError::into_inner);
            }
            *due = false;
        }
        let stop = || signal.stop.load(Ordering::Acquire);
        let Some(shared) = shared.upgrade().filter(|_| !stop()) else { return };
        // What fails stays as it is, searchable; the next wake-up, or the owner's `settle`, tries again
        // and reports it.
        let _ = pool.install(|| work_off(&shared, &Turn { _jobs: &lock(jobs), stop: &stop }));
    }
}

/// Does work until none is due.
fn work_off(shared: &Shared, turn: &Turn<'_>) -> Result<(), IndexError> {
    while !(turn.stop)() {
        let Some(job) = next_job(shared) else { break };
        match job {
            Job::Seal(sealing) => seal(shared, turn, &sealing)?,
            Job::Merge { base, others } => merge(shared, turn, base, others)?,
            Job::Commit => commit(shared, None)?,
            Job::Teach(part) => {
                let queries = shared.training().queries().to_vec();
                let queries: Vec<&[f32]> = queries.iter().map(Embedding::as_slice).collect();
                teach(shared, turn, &part, &queries)?;
            }
        }
    }
    Ok(())
}

fn next_job(shared: &Shared) -> Option<Job> {
    if let Some(sealing) = next_sealing(shared) {
        return Some(Job::Seal(sealing));
    }
    if shared.owed().is_some() {
        return Some(Job::Commit);
    }
    let state = shared.snapshot();
    let mostly_dead = |part: &Part| part.segment.dead_slots() * DEAD_SHARE > part.segment.points().slots();
    if let Some(part) = state.segments.iter().find(|part| mostly_dead(part)) {
        return Some(Job::Merge { base: None, others: vec![part.clone()] });
    }
    let tier =
        |part: &Part| (part.segment.points().slots().max(1) / shared.options.seal_at.max(1)).max(1).ilog(FAN);
    for part in &state.segments {
        let mut same: Vec<Part> = state.segments.iter().filter(|p| tier(p) <= tier(part)).cloned().collect();
        if same.len() >= FAN {
            same.sort_by_key(|part| part.segment.points().slots());
            let base = same.pop();
            return Some(Job::Merge { base, others: same });
        }
    }
    let noted = shared.training().noted();
    let due = |part: &&Part| noted >= (2 * part.taught).max(part.taught + TEACH_MIN);
    state.segments.iter().find(due).cloned().map(Job::Teach)
}

fn next_sealing(shared: &Shared) -> Option<Sealing> {
    shared.snapshot().sealing.first().cloned()
}

fn seal(shared: &Shared, turn: &Turn<'_>, sealing: &Sealing) -> Result<(), IndexError> {
    let mut staged = Staged::new(shared.dim);
    sealing.layer.for_each_point(|id, vector| staged.push(id, vector));
    build_and_publish(shared, turn, staged, None, &[], Some(sealing))
}

fn teach(shared: &Shared, turn: &Turn<'_>, part: &Part, queries: &[&[f32]]) -> Result<(), IndexError> {
    let taught = shared.training().noted();
    let links = build::relearn(&part.segment, queries, turn.stop)?;
    part.segment.points().release_vectors();
    if (turn.stop)() {
        return Ok(());
    }
    publish_links(shared, turn, part, links, taught)
}

fn merge(shared: &Shared, turn: &Turn<'_>, base: Option<Part>, others: Vec<Part>) -> Result<(), IndexError> {
    let mut staged = Staged::new(shared.dim);
    if let Some(base) = &base {
        base.segment.stage_all(&mut staged)?;
    }
    for part in &others {
        for point in part.segment.live_points() {
            let (id, vector) = point?;
            staged.push(id, vector);
        }
    }
    let merged: Vec<Part> = base.iter().cloned().chain(others).collect();
    // Codes and links of the largest are kept, unless its codes are too fine for the others.
    let base = base.map(|part| part.segment).filter(|base| staged.suit(base.points().quantizer()));
    build_and_publish(shared, turn, staged, base.as_deref(), &merged, None)
}

/// Builds a segment and puts it in the place of older ones, or of a layer.
fn build_and_publish(
    shared: &Shared,
    turn: &Turn<'_>,
    staged: Staged,
    base: Option<&Segment>,
    replaced: &[Part],
    sealed: Option<&Sealing>,
) -> Result<(), IndexError> {
    let (training, taught) = {
        let training = shared.training();
        (training.queries().to_vec(), training.noted())
    };
    let queries: Vec<&[f32]> = training.iter().map(Embedding::as_slice).collect();
    let new = if staged.len() > 0 {
        let options = shared.options.build_options();
        let Some((points, links)) = build::build(staged, base, options, &queries, turn.stop)? else {
            return Ok(());
        };
        Some(place(shared, points, links, taught)?)
    } else {
        None
    };
    {
        // No removal between the look at what was removed and the appearance of the segment.
        let removed = shared.removed();
        if let Some(part) = &new {
            part.segment.remove_all(&removed);
        }
        let mut state = shared.state_mut();
        if let Some(part) = new.as_ref().filter(|_| sealed.is_none() && replaced.is_empty()) {
            state.take_known(&part.segment);
        }
        state.segments.retain(|part| !replaced.iter().any(|old| old.segment.is(&part.segment)));
        state.segments.extend(new);
        if let Some(sealed) = sealed {
            state.sealing.retain(|sealing| !Arc::ptr_eq(&sealing.layer, &sealed.layer));
        }
    }
    commit(shared, sealed.and_then(|sealing| sealing.mark))
}

/// Puts a segment into files, if the index has a directory.
fn place(shared: &Shared, points: Points, links: LinkTable, taught: u64) -> Result<Part, IndexError> {
    let Some(dir) = &shared.dir else {
        return Ok(Part { segment: Arc::new(Segment::new(points, links)), files: None, taught });
    };
    let files = {
        let mut manifest = shared.manifest();
        manifest.next += 2;
        Files { points: manifest.next - 2, links: manifest.next - 1 }
    };
    points.write(&points_path(dir, files.points))?;
    links.write(&links_path(dir, files.links))?;
    drop((points, links));
    Ok(Part { taught, ..open_segment(dir, files)? })
}

/// Puts other links of a segment in force; without any, only notes that it has been taught.
fn publish_links(
    shared: &Shared,
    _turn: &Turn<'_>,
    old: &Part,
    links: Option<LinkTable>,
    taught: u64,
) -> Result<(), IndexError> {
    let mut new = Part { taught, ..old.clone() };
    if let Some(links) = links {
        let links = match (&shared.dir, old.files) {
            (Some(dir), Some(files)) => {
                let number = {
                    let mut manifest = shared.manifest();
                    manifest.next += 1;
                    manifest.next - 1
                };
                let path = links_path(dir, number);
                links.write(&path)?;
                new.files = Some(Files { links: number, ..files });
                LinkTable::open(&path, old.segment.points().slots())?
            }
            _ => links,
        };
        new.segment = Arc::new(old.segment.relinked(links));
    }
    for part in &mut shared.state_mut().segments {
        if part.segment.is(&old.segment) {
            *part = new.clone();
        }
    }
    if new.files == old.files { Ok(()) } else { commit(shared, None) }
}

/// Writes down which files are in force. Where that fails it is owed, and the mark is not reached.
fn commit(shared: &Shared, mark: Option<u64>) -> Result<(), IndexError> {
    let mut in_force = shared.manifest();
    let mark = mark.max(*shared.owed()).unwrap_or_default().max(in_force.mark);
    let Some(dir) = &shared.dir else {
        in_force.mark = mark;
        return Ok(());
    };
    *shared.owed() = Some(mark);
    let mut manifest = Manifest { dim: shared.dim as u64, mark, ..in_force.clone() };
    // Removals first: one that is noted although its segment is gone does no harm.
    let removed = shared.removed().clone();
    let state = shared.snapshot();
    manifest.segments = state.segments.iter().filter_map(|part| part.files).collect();
    manifest.removed = state.segments.iter().fold(PointSet::new(), |mut all, part| {
        all |= part.segment.dead_among(&removed);
        all
    });
    manifest.write(dir)?;
    *in_force = manifest;
    *shared.owed() = None;
    Ok(())
}

/// Opens the segments that a manifest names.
pub(crate) fn open_segments(dir: &Path, manifest: &Manifest) -> Result<Vec<Part>, IndexError> {
    manifest.segments.iter().map(|&files| open_segment(dir, files)).collect()
}

fn open_segment(dir: &Path, files: Files) -> Result<Part, IndexError> {
    let points = Points::open(&points_path(dir, files.points))?;
    let links = LinkTable::open(&links_path(dir, files.links), points.slots())?;
    Ok(Part { segment: Arc::new(Segment::new(points, links)), files: Some(files), taught: 0 })
}
