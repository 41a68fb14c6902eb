//! The index: points in, nearest points out.
//!
//! Owns: the live layer and the sealed segments as one index, and every change of either. Deliberately
//! absent: how each of them searches, when background work is due (`upkeep`), and durability: the store
//! has the truth, and what is in no segment yet is inserted again when the index is opened.
//!
//! A point is inserted into the live layer. When that is full it is set aside and a fresh one takes its
//! place; the full one stays searchable until a segment of its points is ready. A search asks the live
//! layer, those being sealed and all segments for their `k` best and merges them by exact score.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};

use diptych_core::limits::EF_MAX;
use diptych_core::{Embedding, PointId};

use crate::live::Live;
use crate::manifest::{self, Manifest};
use crate::options::{IndexError, IndexOptions, Kind, default_ef};
use crate::rank::{Best, Neighbor};
use crate::sealed::points::Staged;
use crate::sealed::segment::Wanted;
use crate::search::{Answer, Plan, PointSet, Search};
use crate::state::{IndexStats, Part, Sealing, Shared, State};
use crate::upkeep::{Upkeep, open_segments};

/// Queries noted between two looks at whether segments should be taught.
const NOTES_PER_LOOK: u64 = 1024;

/// Points of one modality and their nearest neighbours by cosine similarity. All methods take
/// `&self` and may run at the same time.
pub struct Index {
    shared: Arc<Shared>,
    upkeep: Option<Upkeep>,
}

impl Index {
    /// An empty index in memory for vectors of `dim` components.
    ///
    /// # Errors
    /// [`IndexError::Dimensions`], or an option out of its bounds.
    pub fn new(dim: usize, options: IndexOptions) -> Result<Self, IndexError> {
        options.check(dim)?;
        Ok(Self::with(dim, options, None, Manifest::default(), Vec::new()))
    }

    /// The index of a directory, which is created when absent; no other process may use it meanwhile.
    /// Everything but the exact vectors is checked against its checksums before this returns; those
    /// are checked when they are first read.
    ///
    /// What was inserted or removed after [`Index::mark`] may be missing and is to be done again.
    ///
    /// # Errors
    /// [`IndexError::Damaged`]: use [`Index::discard`] and build it again. [`IndexError::InUse`], [`IndexError::Io`],
    /// [`IndexError::WrongDimension`] when the directory is of another dimension.
    pub fn open(dir: &Path, dim: usize, options: IndexOptions) -> Result<Self, IndexError> {
        options.check(dim)?;
        std::fs::create_dir_all(dir).map_err(|e| IndexError::io("create", dir, &e))?;
        let lock = manifest::lock(dir)?;
        let manifest = Manifest::read(dir)?.unwrap_or(Manifest { dim: dim as u64, ..Manifest::default() });
        if manifest.dim != dim as u64 {
            return Err(IndexError::WrongDimension { expected: dim, found: manifest.dim as usize });
        }
        manifest.tidy(dir)?;
        let segments = open_segments(dir, &manifest)?;
        Ok(Self::with(dim, options, Some((dir.to_owned(), lock)), manifest, segments))
    }

    /// Stops background work for good, before another index takes the directory over: what is sealed by
    /// now can still be searched, and nothing is written any more.
    pub fn retire(&self) {
        if let Some(upkeep) = &self.upkeep {
            upkeep.stop();
        }
    }

    /// Puts the files in force into another directory, as an index of its own; searches, inserts and
    /// background work go on. What they lack is what comes after [`Index::mark`], as ever. Returns whether
    /// there are any.
    ///
    /// # Errors
    /// [`IndexError::Io`], [`IndexError::Damaged`].
    pub fn link_to(&self, to: &Path) -> Result<bool, IndexError> {
        let Some(dir) = &self.shared.dir else { return Ok(false) };
        // Whoever puts another manifest in force, and deletes what it does not name, needs this lock.
        let _in_force = self.shared.manifest();
        Manifest::link(dir, to)
    }

    /// As [`Index::link_to`], of an index that is not open, and is not opened meanwhile.
    ///
    /// # Errors
    /// As [`Index::link_to`].
    pub fn link_closed(dir: &Path, to: &Path) -> Result<bool, IndexError> {
        Manifest::link(dir, to)
    }

    /// Deletes the files of an index that is not open, or has been retired.
    ///
    /// # Errors
    /// [`IndexError::Io`].
    pub fn discard(dir: &Path) -> Result<(), IndexError> {
        match std::fs::remove_dir_all(dir) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(IndexError::io("delete", dir, &e)),
            _ => Ok(()),
        }
    }

    fn with(
        dim: usize,
        options: IndexOptions,
        place: Option<(PathBuf, File)>,
        manifest: Manifest,
        segments: Vec<Part>,
    ) -> Self {
        let (dir, lock) = place.unzip();
        // Where an id is in two segments, one has it dead without its having been removed: see
        // `State::take_known`.
        let mut seen = manifest.removed.clone();
        for Part { segment, .. } in &segments {
            segment.remove_all(&seen);
            seen |= segment.id_set();
        }
        let live = Arc::new(Live::new(dim, &options));
        let shared = Arc::new(Shared {
            dim,
            options,
            dir,
            _lock: lock,
            state: RwLock::new(State { live, sealing: Vec::new(), segments }),
            removed: Mutex::new(manifest.removed.clone()),
            training: Mutex::default(),
            manifest: Mutex::new(manifest),
            owed: Mutex::default(),
        });
        let upkeep = (options.kind == Kind::Graph).then(|| Upkeep::start(&shared));
        Self { shared, upkeep }
    }

    /// Components of every vector.
    pub fn dim(&self) -> usize {
        self.shared.dim
    }

    /// Live points.
    pub fn len(&self) -> usize {
        self.shared.state().len()
    }

    /// Whether there are no live points.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Live ids, in id order.
    pub fn ids(&self) -> Vec<PointId> {
        let state = self.shared.snapshot();
        let mut ids: Vec<PointId> = state.layers().flat_map(|layer| layer.ids()).collect();
        for part in &state.segments {
            ids.extend(part.segment.ids());
        }
        ids.sort_unstable();
        // A point may be seen twice while its layer is replaced by its segment.
        ids.dedup();
        ids
    }

    /// Up to where the owner's changes are on disk for certain; see [`Index::checkpoint`].
    pub fn mark(&self) -> u64 {
        self.shared.manifest().mark
    }

    /// Vectors that are kept only as stepping stones: all their points have been removed.
    pub fn tombstones(&self) -> usize {
        let state = self.shared.snapshot();
        let layers = state.layers().map(|layer| layer.tombstones()).sum::<usize>();
        layers + state.segments.iter().map(|part| part.segment.dead_slots()).sum::<usize>()
    }

    /// Vectors that no walk leads to, which every search compares; 0 for an index without a graph.
    pub fn stragglers(&self) -> usize {
        let state = self.shared.snapshot();
        let layers = state.layers().map(|layer| layer.stragglers()).sum::<usize>();
        layers + state.segments.iter().map(|part| part.segment.links().strays.len()).sum::<usize>()
    }

    /// What the index is made of.
    pub fn stats(&self) -> IndexStats {
        self.shared.snapshot().stats()
    }

    /// Inserts a point: every search that starts after this returns sees it. An id that is present,
    /// or that was ever removed, changes nothing: ids are never used twice, and a removal may
    /// overtake its insert.
    ///
    /// # Errors
    /// [`IndexError::WrongDimension`], [`IndexError::Full`].
    pub fn insert(&self, id: PointId, embedding: &Embedding) -> Result<(), IndexError> {
        self.check_dim(embedding)?;
        if self.shared.removed().contains(id.0) {
            return Ok(());
        }
        let full = {
            let state = self.shared.state();
            if state.is_sealed(id) {
                return Ok(());
            }
            state.live.insert(id, embedding)?;
            state.live.held() >= self.shared.options.seal_at
        };
        self.take_back_removed(&[id]);
        if full {
            self.rotate(self.shared.options.seal_at, None);
        }
        Ok(())
    }

    /// Inserts many points on all cores, each as by [`Index::insert`]; searches meanwhile see some of
    /// them. So many that they fill a live layer become a segment at once.
    ///
    /// # Errors
    /// [`IndexError::WrongDimension`] before anything is inserted, [`IndexError::Full`] after all
    /// that fitted, [`IndexError::Io`].
    pub fn insert_many(&self, points: &[(PointId, Embedding)]) -> Result<(), IndexError> {
        points.iter().try_for_each(|(_, embedding)| self.check_dim(embedding))?;
        if self.upkeep.is_some() && points.len() >= self.shared.options.seal_at {
            return self.insert_all(points.iter().map(|(id, e)| Ok((*id, e))));
        }
        let mut new = points.to_vec();
        {
            let removed = self.shared.removed();
            new.retain(|(id, _)| !removed.contains(id.0));
        }
        let (full, outcome) = {
            let state = self.shared.state();
            new.retain(|(id, _)| !state.is_sealed(*id));
            let outcome = state.live.insert_many(&new);
            (state.live.held() >= self.shared.options.seal_at, outcome)
        };
        self.take_back_removed(&points.iter().map(|(id, _)| *id).collect::<Vec<_>>());
        if full {
            self.rotate(self.shared.options.seal_at, None);
        }
        outcome
    }

    /// Inserts points as one segment, which is searchable when this returns. An id that comes twice
    /// counts once.
    ///
    /// # Errors
    /// The first error of the points; [`IndexError::WrongDimension`], [`IndexError::Io`]. Nothing is
    /// inserted then.
    pub fn insert_all<E: std::borrow::Borrow<Embedding>, Failed: From<IndexError>>(
        &self,
        points: impl Iterator<Item = Result<(PointId, E), Failed>>,
    ) -> Result<(), Failed> {
        let Some(upkeep) = &self.upkeep else {
            for point in points {
                let (id, embedding) = point?;
                self.insert(id, embedding.borrow())?;
            }
            return Ok(());
        };
        let mut staged = Staged::new(self.shared.dim);
        let mut new = PointSet::new();
        for point in points {
            let (id, embedding) = point?;
            self.check_dim(embedding.borrow())?;
            let known = self.shared.state().knows(id);
            if !known && new.insert(id.0) {
                staged.push(id, embedding.borrow().as_slice());
            }
        }
        upkeep.insert_segment(&self.shared, staged)?;
        Ok(())
    }

    /// Removes a point: no search that starts after this returns sees it. Returns whether it was
    /// live. An id never seen is remembered, so that its insert, should it come, changes nothing.
    pub fn remove(&self, id: PointId) -> bool {
        let mut removed = self.shared.removed();
        removed.insert(id.0);
        let state = self.shared.state();
        let in_layers = state.layers().filter(|layer| layer.knows(id)).any(|layer| layer.remove(id));
        in_layers || state.segments.iter().any(|part| part.segment.remove(id))
    }

    /// The `k` points nearest to the query, best first, equal scores by id; all points if there are
    /// fewer. `ef` is the candidate list: larger finds more of the true neighbours and takes longer;
    /// without it, [`default_ef`]. Where a scan costs no more than the walk, and for `k` beyond what a
    /// candidate list may hold, the answer is exact.
    ///
    /// # Errors
    /// As [`Index::search`].
    pub fn nearest(
        &self,
        query: &Embedding,
        k: usize,
        ef: Option<usize>,
    ) -> Result<Vec<Neighbor>, IndexError> {
        Ok(self.search(query, &Search { k, ef, filter: None })?.neighbors)
    }

    /// As [`Index::nearest`], among the points of a filter if there is one; also says how.
    ///
    /// # Errors
    /// [`IndexError::WrongDimension`], [`IndexError::Ef`]; [`IndexError::Damaged`] when a vector that is
    /// read for the first time fails its checksum.
    pub fn search(&self, query: &Embedding, search: &Search<'_>) -> Result<Answer, IndexError> {
        self.check_dim(query)?;
        if let Some(found) = search.ef.filter(|ef| !(1..=EF_MAX).contains(ef)) {
            return Err(IndexError::Ef { found });
        }
        let ef = search.ef.unwrap_or_else(|| default_ef(search.k)).max(search.k);
        let scan_ratio = self.shared.options.scan_ratio;
        let wanted = Wanted { query: query.as_slice(), k: search.k, ef, filter: search.filter, scan_ratio };
        let state = self.shared.snapshot();
        let points = state.len();
        let mut best = Best::new(wanted.k);
        let (mut plan, mut largest) = (Plan::Scan, 0);
        for layer in state.layers().filter(|layer| layer.len() > 0) {
            let (found, way) = layer.nearest(&wanted.in_part(layer.len(), points));
            best = best.merge(found);
            (plan, largest) = if layer.len() > largest { (way, layer.len()) } else { (plan, largest) };
        }
        for Part { segment, .. } in &state.segments {
            let (found, way) = segment.nearest(&wanted.in_part(segment.len(), points))?;
            best = best.merge(found);
            (plan, largest) = if segment.len() > largest { (way, segment.len()) } else { (plan, largest) };
        }
        Ok(Answer { neighbors: best.into_sorted(), plan })
    }

    /// As [`Index::nearest`], by comparing the query with every live vector, on all cores.
    ///
    /// # Errors
    /// [`IndexError::WrongDimension`], [`IndexError::Damaged`].
    pub fn nearest_exact(&self, query: &Embedding, k: usize) -> Result<Vec<Neighbor>, IndexError> {
        self.check_dim(query)?;
        let wanted = Wanted { query: query.as_slice(), k, ef: k, filter: None, scan_ratio: 0 };
        let state = self.shared.snapshot();
        let mut best = Best::new(k);
        for layer in state.layers() {
            best = best.merge(layer.scan(&wanted));
        }
        for Part { segment, .. } in &state.segments {
            best = best.merge(segment.scan(&wanted)?);
        }
        Ok(best.into_sorted())
    }

    /// Looks for every vector of the live layer by itself, on all cores, and sets those aside that are
    /// not found (and back those that are). Returns how many are set aside: [`Index::stragglers`].
    /// After it, until the next insert, every live point finds itself; points of segments always do.
    pub fn audit(&self) -> usize {
        self.shared.snapshot().layers().map(|layer| layer.audit()).sum()
    }

    /// Reads every exact vector of the segments and checks it against its checksum.
    ///
    /// # Errors
    /// [`IndexError::Damaged`].
    pub fn check_vectors(&self) -> Result<(), IndexError> {
        self.shared.snapshot().segments.iter().try_for_each(|part| {
            let checked = part.segment.points().check_vectors();
            part.segment.points().release_vectors();
            checked
        })
    }

    /// Seals what is live, does all background work that is due, and returns when it is done.
    ///
    /// # Errors
    /// [`IndexError::Io`], [`IndexError::Damaged`]: what could not be sealed stays live.
    pub fn seal(&self) -> Result<(), IndexError> {
        self.rotate(1, None);
        self.settle()
    }

    /// Has the files of the index catch up with its owner: everything inserted and removed so far is
    /// sealed in the background, and [`Index::mark`] is `mark` from then on.
    pub fn checkpoint(&self, mark: u64) {
        self.rotate(1, Some(mark));
    }

    /// Does all background work that is due, and returns when it is done.
    ///
    /// # Errors
    /// As [`Index::seal`].
    pub fn settle(&self) -> Result<(), IndexError> {
        self.upkeep.as_ref().map_or(Ok(()), |upkeep| upkeep.settle(&self.shared))
    }

    /// Teaches the index about queries of the kind it will be asked: walks for similar ones get shorter.
    /// Matters where queries are not of the kind of the points, such as texts in an index of images.
    /// Returns when it is done; the queries are noted too, for the segments of later points.
    ///
    /// # Errors
    /// [`IndexError::WrongDimension`]; [`IndexError::Io`], [`IndexError::Damaged`].
    pub fn learn_queries(&self, queries: &[Embedding]) -> Result<(), IndexError> {
        queries.iter().try_for_each(|query| self.check_dim(query))?;
        for query in queries {
            self.shared.training().note(query);
        }
        self.upkeep.as_ref().map_or(Ok(()), |upkeep| upkeep.learn(&self.shared, queries))
    }

    /// Notes a query, or something like one, for segments to be taught about in the background. Of many
    /// a fair sample is kept.
    ///
    /// # Errors
    /// [`IndexError::WrongDimension`].
    pub fn note_query(&self, query: &Embedding) -> Result<(), IndexError> {
        self.check_dim(query)?;
        let Some(upkeep) = &self.upkeep else { return Ok(()) };
        let noted = self.shared.training().note(query);
        if noted.is_multiple_of(NOTES_PER_LOOK) {
            upkeep.wake();
        }
        Ok(())
    }

    /// Whether the point is here, or was.
    pub fn knows(&self, id: PointId) -> bool {
        self.shared.removed().contains(id.0) || self.shared.state().knows(id)
    }

    /// Seals what was set aside for it, without merging, and returns when it is in force.
    ///
    /// # Errors
    /// As [`Index::seal`].
    pub fn flush(&self) -> Result<(), IndexError> {
        self.upkeep.as_ref().map_or(Ok(()), |upkeep| upkeep.flush(&self.shared))
    }

    /// Sets a live layer that holds at least so many points, dead ones included, aside for sealing.
    fn rotate(&self, least: usize, mark: Option<u64>) {
        let Some(upkeep) = &self.upkeep else { return };
        {
            let mut state = self.shared.state_mut();
            if state.live.held() < least && mark.is_none() {
                return;
            }
            // With nothing live, the mark is reached with what is being sealed, or at once.
            let fresh = Arc::new(Live::new(self.shared.dim, &self.shared.options));
            let layer = std::mem::replace(&mut state.live, fresh);
            state.sealing.push(Sealing { layer, mark });
        }
        upkeep.wake();
    }

    /// Removes points whose removal came before they were in.
    fn take_back_removed(&self, ids: &[PointId]) {
        let early: Vec<PointId> = {
            let removed = self.shared.removed();
            ids.iter().copied().filter(|id| removed.contains(id.0)).collect()
        };
        for id in early {
            self.remove(id);
        }
    }

    fn check_dim(&self, embedding: &Embedding) -> Result<(), IndexError> {
        if embedding.dim() == self.shared.dim {
            Ok(())
        } else {
            Err(IndexError::WrongDimension { expected: self.shared.dim, found: embedding.dim() })
        }
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index")
            .field("dim", &self.dim())
            .field("kind", &self.shared.options.kind)
            .field("len", &self.len())
            .field("tombstones", &self.tombstones())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
