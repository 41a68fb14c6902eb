//! The live layer: points in, searchable at once, and out again.
//!
//! Owns: the choice between walking the graph of `hnsw_rs` and scanning, the guarantee that no live
//! vector gets lost in that graph, and removal. Deliberately absent: sealed segments, into which its
//! points go when there are many, and persistence.
//!
//! Three ideas carry it:
//! - The graph links distinct vectors. Points with bit-equal vectors, such as the many copies of one
//!   standard sentence, share a node, so duplicates cannot fill each other's neighbour lists.
//! - A new vector is set aside until a search of the graph finds it. Vectors set aside are few and
//!   every search scans them. Later inserts may cut a vector off, so every insert examines an older
//!   vector again, and a bulk insert all of them.
//! - Removal takes the point off its node; a node without points stays in the graph as a stepping
//!   stone. A search keeps a longer candidate list in proportion, and scans if that is not enough.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use diptych_core::limits::EF_MAX;
use diptych_core::{Embedding, PointId};
use rayon::prelude::*;

use crate::dot::Dot;
use crate::graph::Graph;
use crate::nodes::{Nodes, Slot};
use crate::options::{EF_DEFAULT, IndexError, IndexOptions, Kind};
use crate::rank::Best;
use crate::registry::{Fingerprints, Inserted, Registry, Removed};
use crate::sealed::segment::Wanted;
use crate::search::{Plan, PointSet};

/// Points of an insert of many that are entered under one lock and then linked at once.
const BATCH: usize = 1024;
/// Candidates of the first, cheap look for a vector in the graph. Nearly all are found by it.
const EF_PROBE: usize = 8;
/// Cosine distance below which vectors are the same but for rounding.
const SAME: f32 = 1e-6;
/// Vectors of one scanning task.
const SCAN_TASK: u32 = 1024;
/// Multiplications below which a scan is not worth waking other threads.
const SCAN_ALONE: usize = 1 << 22;

/// Points of one modality and their nearest neighbours by cosine similarity. All methods take
/// `&self` and may run at the same time.
pub(crate) struct Live {
    dim: usize,
    dot: Dot,
    fingerprints: Fingerprints,
    registry: Mutex<Registry>,
    nodes: Nodes,
    // None for an index that only scans.
    graph: Option<Graph>,
    // Live nodes that are being linked, or that the graph does not lead to.
    aside: RwLock<BTreeSet<Slot>>,
    live_points: AtomicUsize,
    live_nodes: AtomicUsize,
    // Where the examination of older vectors goes on.
    cursor: AtomicU32,
}

impl Live {
    /// An empty layer for vectors of `dim` components; dimension and options have been checked.
    pub(crate) fn new(dim: usize, options: &IndexOptions) -> Self {
        let dot = Dot::detect();
        Self {
            dim,
            dot,
            fingerprints: Fingerprints::default(),
            registry: Mutex::default(),
            nodes: Nodes::default(),
            graph: match options.kind {
                Kind::Graph => Some(Graph::new(options, dot)),
                Kind::Exact => None,
            },
            aside: RwLock::default(),
            live_points: AtomicUsize::new(0),
            live_nodes: AtomicUsize::new(0),
            cursor: AtomicU32::new(0),
        }
    }

    /// Live points.
    pub(crate) fn len(&self) -> usize {
        self.live_points.load(Ordering::Acquire)
    }

    /// Live ids, in id order.
    pub(crate) fn ids(&self) -> Vec<PointId> {
        self.registry().ids()
    }

    /// Vectors that are kept only as stepping stones: all their points have been removed.
    pub(crate) fn tombstones(&self) -> usize {
        (self.nodes.len() as usize).saturating_sub(self.live_nodes.load(Ordering::Acquire))
    }

    /// What fills the layer: live points, and vectors that are kept without any.
    pub(crate) fn held(&self) -> usize {
        self.len() + self.tombstones()
    }

    /// Vectors that the graph does not lead to, which every search scans; 0 for an index without a
    /// graph.
    pub(crate) fn stragglers(&self) -> usize {
        self.aside.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Inserts a point: every search that starts after this returns sees it. An id that is present,
    /// or that was ever removed, changes nothing: ids are never used twice, and a removal may
    /// overtake its insert.
    ///
    /// # Errors
    /// [`IndexError::Full`].
    pub(crate) fn insert(&self, id: PointId, embedding: &Embedding) -> Result<(), IndexError> {
        let fingerprint = self.fingerprint(embedding);
        let inserted = self.register(&mut self.registry(), id, embedding, fingerprint)?;
        if let Some(graph) = &self.graph {
            self.link(graph, inserted);
            self.settle_inserted(graph, inserted);
            if matches!(inserted, Inserted::New(_)) {
                self.examine_older(graph);
            }
        }
        Ok(())
    }

    /// Inserts many points on all cores, each as by [`Live::insert`]; searches meanwhile see some of
    /// them. When that is more than the index has vectors, ends with an [`Live::audit`]; until then
    /// the new ones are scanned.
    ///
    /// # Errors
    /// [`IndexError::Full`] after all that fitted.
    pub(crate) fn insert_many(&self, points: &[(PointId, Embedding)]) -> Result<(), IndexError> {
        let bulk = points.len() > self.nodes.len() as usize;
        let outcome = points.chunks(BATCH).try_for_each(|batch| self.insert_batch(batch, bulk));
        if bulk {
            self.audit();
        }
        outcome
    }

    fn insert_batch(&self, batch: &[(PointId, Embedding)], bulk: bool) -> Result<(), IndexError> {
        let fingerprints: Vec<Option<u64>> = batch.par_iter().map(|(_, e)| self.fingerprint(e)).collect();
        let mut outcome = Ok(());
        let mut inserted = Vec::with_capacity(batch.len());
        {
            let mut registry = self.registry();
            for ((id, embedding), fingerprint) in batch.iter().zip(fingerprints) {
                match self.register(&mut registry, *id, embedding, fingerprint) {
                    Ok(done) => inserted.push(done),
                    Err(full) => outcome = Err(full),
                }
            }
        }
        if let Some(graph) = &self.graph {
            inserted.par_iter().for_each(|&i| self.link(graph, i));
            // A bulk insert settles all of its points at its end, once.
            if !bulk {
                inserted.par_iter().for_each(|&i| {
                    self.settle_inserted(graph, i);
                    if matches!(i, Inserted::New(_)) {
                        self.examine_older(graph);
                    }
                });
            }
        }
        outcome
    }

    /// Removes a point: no search that starts after this returns sees it. Returns whether it was
    /// live. An id never seen is remembered, so that its insert, should it come, changes nothing.
    pub(crate) fn remove(&self, id: PointId) -> bool {
        let mut registry = self.registry();
        match registry.remove(&self.nodes, id) {
            Removed::Unknown => return false,
            Removed::Left => {}
            Removed::Died(slot) => {
                self.live_nodes.fetch_sub(1, Ordering::AcqRel);
                self.set_aside(slot, false);
            }
        }
        self.live_points.fetch_sub(1, Ordering::AcqRel);
        true
    }

    /// The nearest points, and how they were found: by a scan where it costs no more than the walk, and
    /// for `k` beyond what a candidate list may hold.
    pub(crate) fn nearest(&self, wanted: &Wanted<'_>) -> (Best, Plan) {
        let graph = self.graph.as_ref().filter(|_| wanted.filter.is_none());
        match graph.and_then(|graph| self.walk(graph, wanted)) {
            Some(best) => (best, Plan::Walk),
            None => (self.scan(wanted), Plan::Scan),
        }
    }

    /// Whether the point is here, or was.
    pub(crate) fn knows(&self, id: PointId) -> bool {
        self.registry().knows(id)
    }

    /// Live points with their vectors, in order of arrival of the vectors.
    pub(crate) fn for_each_point(&self, mut take: impl FnMut(PointId, &[f32])) {
        for slot in 0..self.nodes.len() {
            let node = self.nodes.get(slot);
            node.for_each_id(|id| {
                take(id, node.vector());
                true
            });
        }
    }

    /// Looks for every live vector in the graph by itself, on all cores, and sets those aside that are
    /// not found (and back those that are). Returns how many are set aside: [`Live::stragglers`].
    /// After it, until the next insert, every live point finds itself.
    pub(crate) fn audit(&self) -> usize {
        if let Some(graph) = &self.graph {
            (0..self.nodes.len()).into_par_iter().for_each(|slot| self.settle(graph, slot));
        }
        self.stragglers()
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Only a graph gains from sharing nodes; a scan is about speed of appending.
    fn fingerprint(&self, embedding: &Embedding) -> Option<u64> {
        self.graph.as_ref().map(|_| self.fingerprints.of(embedding))
    }

    /// Enters a point under the registry's lock; from here on, searches see it.
    fn register(
        &self,
        registry: &mut Registry,
        id: PointId,
        embedding: &Embedding,
        fingerprint: Option<u64>,
    ) -> Result<Inserted, IndexError> {
        let inserted = registry.insert(&self.nodes, id, embedding, fingerprint)?;
        if let Inserted::New(slot) | Inserted::Revived(slot) = inserted {
            if self.graph.is_some() {
                self.set_aside(slot, true);
            }
            self.live_nodes.fetch_add(1, Ordering::AcqRel);
        }
        if inserted != Inserted::Known {
            self.live_points.fetch_add(1, Ordering::AcqRel);
        }
        Ok(inserted)
    }

    fn link(&self, graph: &Graph, inserted: Inserted) {
        if let Inserted::New(slot) = inserted {
            graph.link(slot, self.nodes.get(slot).vector());
        }
    }

    fn settle_inserted(&self, graph: &Graph, inserted: Inserted) {
        if let Inserted::New(slot) | Inserted::Revived(slot) = inserted {
            self.settle(graph, slot);
        }
    }

    /// Examines the next vector in turn, so that none stays cut off for longer than it takes to
    /// insert as many vectors as there are.
    fn examine_older(&self, graph: &Graph) {
        let turn = self.cursor.fetch_add(1, Ordering::Relaxed);
        self.settle(graph, turn % self.nodes.len().max(1));
    }

    /// Sets a live node aside exactly if the graph does not lead to it. Dead ones are not touched:
    /// they left with their last point, and what brings them back settles them.
    fn settle(&self, graph: &Graph, slot: Slot) {
        if self.nodes.get(slot).is_live() {
            self.set_aside(slot, !self.leads_to(graph, slot));
        }
    }

    /// Whether a search for a vector by itself, of the effort any search has, meets it. A vector in a
    /// crowd of more than a list's length that differ by rounding only is as good as met.
    fn leads_to(&self, graph: &Graph, slot: Slot) -> bool {
        let vector = self.nodes.get(slot).vector();
        let probe = graph.walk(vector, EF_PROBE);
        if probe.iter().any(|found| found.slot == slot) {
            return true;
        }
        let list = graph.walk(vector, EF_DEFAULT);
        list.iter().any(|found| found.slot == slot)
            || (list.len() == EF_DEFAULT && list.iter().all(|found| found.distance <= SAME))
    }

    fn set_aside(&self, slot: Slot, aside: bool) {
        // Most of the time nothing changes, and readers do not wait for readers.
        if self.aside.read().unwrap_or_else(PoisonError::into_inner).contains(&slot) == aside {
            return;
        }
        let mut set = self.aside.write().unwrap_or_else(PoisonError::into_inner);
        if aside {
            set.insert(slot);
        } else {
            set.remove(&slot);
        }
    }

    /// Searches the graph and the vectors set aside. `None` where a scan is the better way: it costs
    /// no more, or the list would get too long, or the nodes found have too few live points.
    fn walk(&self, graph: &Graph, wanted: &Wanted<'_>) -> Option<Best> {
        let live = self.live_nodes.load(Ordering::Acquire);
        let enough = wanted.k.min(self.len());
        if enough == 0 {
            return None;
        }
        let query: Arc<[f32]> = Arc::from(wanted.query);
        // Dead nodes take places in the list: keep as many more as there are of them.
        let mut ef = wanted.ef.saturating_mul(live + self.tombstones()) / live.max(1);
        while ef <= EF_MAX && live > wanted.scan_ratio.saturating_mul(ef) {
            let best = self.walk_once(graph, &query, wanted.k, ef);
            if best.len() >= enough {
                return Some(best);
            }
            ef = ef.saturating_mul(4);
        }
        None
    }

    fn walk_once(&self, graph: &Graph, query: &Arc<[f32]>, k: usize, ef: usize) -> Best {
        // First the ones set aside, then the graph: a vector leaves the former only when it is in the
        // latter, so none is missed in between.
        let aside: Vec<Slot> =
            self.aside.read().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        let walked = graph.walk(query, ef);
        let slots = walked.iter().map(|found| found.slot).filter(|slot| aside.binary_search(slot).is_err());
        let mut best = Best::new(k);
        for slot in aside.iter().copied().chain(slots) {
            self.offer(&mut best, query, slot, None);
        }
        best
    }

    fn offer(&self, best: &mut Best, query: &[f32], slot: Slot, filter: Option<&PointSet>) {
        let node = self.nodes.get(slot);
        if node.is_live() {
            best.offer_node(node, self.dot.product(query, node.vector()), filter);
        }
    }

    /// Compares the query with every live vector, on all cores.
    pub(crate) fn scan(&self, wanted: &Wanted<'_>) -> Best {
        let len = self.nodes.len();
        let part = |from: u32, to: u32| {
            let mut best = Best::new(wanted.k);
            for slot in from..to {
                self.offer(&mut best, wanted.query, slot, wanted.filter);
            }
            best
        };
        if len as usize * self.dim <= SCAN_ALONE {
            return part(0, len);
        }
        (0..len.div_ceil(SCAN_TASK))
            .into_par_iter()
            .map(|task| part(task * SCAN_TASK, (task * SCAN_TASK).saturating_add(SCAN_TASK).min(len)))
            .reduce(|| Best::new(wanted.k), Best::merge)
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live")
            .field("dim", &self.dim)
            .field("kind", &if self.graph.is_some() { Kind::Graph } else { Kind::Exact })
            .field("len", &self.len())
            .field("tombstones", &self.tombstones())
            .field("stragglers", &self.stragglers())
            .finish_non_exhaustive()
    }
}
