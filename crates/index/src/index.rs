//! The index: points in, nearest points out.
//!
//! Owns: the choice between walking the graph and scanning, the guarantee that no live vector gets
//! lost in the graph, and deletes. Deliberately absent: persistence (the store has the truth, an index
//! is rebuilt from it) and compaction (build a new one when [`Index::tombstones`] grows large).
//!
//! Three ideas carry it:
//! - The graph links distinct vectors. Points with bit-equal vectors, such as the many copies of one
//!   standard sentence, share a node, so duplicates cannot fill each other's neighbour lists.
//! - A new vector is set aside until a search of the graph finds it. Vectors set aside are few and
//!   every search scans them. Later inserts may cut a vector off, so every insert examines an older
//!   vector again, and a bulk insert all of them.
//! - Deletes take the point off its node; a node without points stays in the graph as a stepping
//!   stone. A search keeps a longer candidate list in proportion, and scans if that is not enough.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use diptych_core::limits::{DIM_MAX, EF_MAX};
use diptych_core::{Embedding, PointId};
use rayon::prelude::*;

use crate::dot::Dot;
use crate::graph::Graph;
use crate::nodes::{Nodes, Slot};
use crate::options::{EF_DEFAULT, IndexError, IndexOptions, Kind, default_ef};
use crate::rank::{Best, Neighbor};
use crate::registry::{Fingerprints, Inserted, Registry, Removed};
use crate::search::{Answer, Plan, PointSet, Search};

/// Points of an insert of many that are entered under one lock and then linked at once.
const BATCH: usize = 1024;
/// Candidates of the first, cheap look for a vector in the graph. Nearly all are found by it.
const EF_PROBE: usize = 8;
/// Cosine distance below which vectors are the same but for rounding.
const SAME: f32 = 1e-6;
/// Vectors of one scanning task.
const SCAN_TASK: u32 = 1024;
/// Multiplications below which a scan is not worth waking other threads.
const SCAN_ALONE: usize = 1 << 20;

/// Points of one modality and their nearest neighbours by cosine similarity. All methods take
/// `&self` and may run at the same time.
pub struct Index {
    dim: usize,
    scan_ratio: usize,
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

impl Index {
    /// An empty index for vectors of `dim` components.
    ///
    /// # Errors
    /// [`IndexError::Dimensions`], or an option out of its bounds.
    pub fn new(dim: usize, options: IndexOptions) -> Result<Self, IndexError> {
        if !(1..=DIM_MAX).contains(&dim) {
            return Err(IndexError::Dimensions { dim });
        }
        options.check()?;
        let dot = Dot::detect();
        Ok(Self {
            dim,
            scan_ratio: options.scan_ratio,
            dot,
            fingerprints: Fingerprints::default(),
            registry: Mutex::default(),
            nodes: Nodes::default(),
            graph: match options.kind {
                Kind::Graph => Some(Graph::new(&options, dot)),
                Kind::Exact => None,
            },
            aside: RwLock::default(),
            live_points: AtomicUsize::new(0),
            live_nodes: AtomicUsize::new(0),
            cursor: AtomicU32::new(0),
        })
    }

    /// Components of every vector.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Live points.
    pub fn len(&self) -> usize {
        self.live_points.load(Ordering::Acquire)
    }

    /// Whether there are no live points.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Live ids, in id order.
    pub fn ids(&self) -> Vec<PointId> {
        self.registry().ids()
    }

    /// Vectors that are kept only as stepping stones: all their points have been removed.
    pub fn tombstones(&self) -> usize {
        (self.nodes.len() as usize).saturating_sub(self.live_nodes.load(Ordering::Acquire))
    }

    /// Vectors that the graph does not lead to, which every search scans; 0 for an index without a
    /// graph.
    pub fn stragglers(&self) -> usize {
        self.aside.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Inserts a point: every search that starts after this returns sees it. An id that is present,
    /// or that was ever removed, changes nothing: ids are never used twice, and a removal may
    /// overtake its insert.
    ///
    /// # Errors
    /// [`IndexError::WrongDimension`], [`IndexError::Full`].
    pub fn insert(&self, id: PointId, embedding: &Embedding) -> Result<(), IndexError> {
        self.check_dim(embedding)?;
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

    /// Inserts many points on all cores, each as by [`Index::insert`]; searches meanwhile see some of
    /// them. When that is more than the index has vectors, ends with an [`Index::audit`]; until then
    /// the new ones are scanned.
    ///
    /// # Errors
    /// [`IndexError::WrongDimension`] before anything is inserted, [`IndexError::Full`] after all
    /// that fitted.
    pub fn insert_many(&self, points: &[(PointId, Embedding)]) -> Result<(), IndexError> {
        points.iter().try_for_each(|(_, embedding)| self.check_dim(embedding))?;
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
    pub fn remove(&self, id: PointId) -> bool {
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

    /// The `k` points nearest to the query, best first, equal scores by id; all points if there are
    /// fewer. `ef` is the graph's candidate list: larger finds more of the true neighbours and takes
    /// longer; without it, [`default_ef`]. Where a scan costs no more than the walk, and for `k`
    /// beyond what a candidate list may hold, the answer is exact.
    ///
    /// # Errors
    /// [`IndexError::WrongDimension`], [`IndexError::Ef`].
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
    /// [`IndexError::WrongDimension`], [`IndexError::Ef`].
    pub fn search(&self, query: &Embedding, search: &Search<'_>) -> Result<Answer, IndexError> {
        self.check_dim(query)?;
        if let Some(found) = search.ef.filter(|ef| !(1..=EF_MAX).contains(ef)) {
            return Err(IndexError::Ef { found });
        }
        let ef = search.ef.unwrap_or_else(|| default_ef(search.k)).max(search.k);
        if let Some(filter) = search.filter {
            let neighbors = self.scan_filtered(query, search.k, filter);
            return Ok(Answer { neighbors, plan: Plan::Scan });
        }
        let walked = self.graph.as_ref().and_then(|graph| self.walk(graph, query, search.k, ef));
        Ok(match walked {
            Some(neighbors) => Answer { neighbors, plan: Plan::Walk },
            None => Answer { neighbors: self.scan(query, search.k), plan: Plan::Scan },
        })
    }

    fn scan_filtered(&self, query: &Embedding, k: usize, filter: &PointSet) -> Vec<Neighbor> {
        let mut best = Best::new(k);
        for slot in 0..self.nodes.len() {
            let node = self.nodes.get(slot);
            let score = self.dot.product(query.as_slice(), node.vector());
            node.for_each_id(|id| {
                if filter.contains(id.0) {
                    best.offer(Neighbor { id, score });
                }
                true
            });
        }
        best.into_sorted()
    }

    /// As [`Index::nearest`], by comparing the query with every live vector, on all cores.
    ///
    /// # Errors
    /// [`IndexError::WrongDimension`].
    pub fn nearest_exact(&self, query: &Embedding, k: usize) -> Result<Vec<Neighbor>, IndexError> {
        self.check_dim(query)?;
        Ok(self.scan(query, k))
    }

    /// Looks for every live vector in the graph by itself, on all cores, and sets those aside that are
    /// not found (and back those that are). Returns how many are set aside: [`Index::stragglers`].
    /// After it, until the next insert, every live point finds itself.
    pub fn audit(&self) -> usize {
        if let Some(graph) = &self.graph {
            (0..self.nodes.len()).into_par_iter().for_each(|slot| self.settle(graph, slot));
        }
        self.stragglers()
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_dim(&self, embedding: &Embedding) -> Result<(), IndexError> {
        if embedding.dim() == self.dim {
            Ok(())
        } else {
            Err(IndexError::WrongDimension { expected: self.dim, found: embedding.dim() })
        }
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
    fn walk(&self, graph: &Graph, query: &Embedding, k: usize, ef: usize) -> Option<Vec<Neighbor>> {
        let live = self.live_nodes.load(Ordering::Acquire);
        let wanted = k.min(self.len());
        if wanted == 0 {
            return None;
        }
        let query: Arc<[f32]> = Arc::from(query.as_slice());
        // Dead nodes take places in the list: keep as many more as there are of them.
        let mut ef = ef.saturating_mul(live + self.tombstones()) / live.max(1);
        while ef <= EF_MAX && live > self.scan_ratio.saturating_mul(ef) {
            let found = self.walk_once(graph, &query, k, ef);
            if found.len() >= wanted {
                return Some(found);
            }
            ef = ef.saturating_mul(4);
        }
        None
    }

    fn walk_once(&self, graph: &Graph, query: &Arc<[f32]>, k: usize, ef: usize) -> Vec<Neighbor> {
        // First the ones set aside, then the graph: a vector leaves the former only when it is in the
        // latter, so none is missed in between.
        let aside: Vec<Slot> =
            self.aside.read().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        let walked = graph.walk(query, ef);
        let slots = walked.iter().map(|found| found.slot).filter(|slot| aside.binary_search(slot).is_err());
        let mut best = Best::new(k);
        for slot in aside.iter().copied().chain(slots) {
            self.offer(&mut best, query, slot);
        }
        best.into_sorted()
    }

    fn offer(&self, best: &mut Best, query: &[f32], slot: Slot) {
        let node = self.nodes.get(slot);
        if node.is_live() {
            best.offer_node(node, self.dot.product(query, node.vector()));
        }
    }

    fn scan(&self, query: &Embedding, k: usize) -> Vec<Neighbor> {
        let (query, len) = (query.as_slice(), self.nodes.len());
        let part = |from: u32, to: u32| {
            let mut best = Best::new(k);
            for slot in from..to {
                self.offer(&mut best, query, slot);
            }
            best
        };
        if len as usize * self.dim <= SCAN_ALONE {
            return part(0, len).into_sorted();
        }
        (0..len.div_ceil(SCAN_TASK))
            .into_par_iter()
            .map(|task| part(task * SCAN_TASK, (task * SCAN_TASK).saturating_add(SCAN_TASK).min(len)))
            .reduce(|| Best::new(k), Best::merge)
            .into_sorted()
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index")
            .field("dim", &self.dim)
            .field("kind", &if self.graph.is_some() { Kind::Graph } else { Kind::Exact })
            .field("len", &self.len())
            .field("tombstones", &self.tombstones())
            .field("stragglers", &self.stragglers())
            .finish_non_exhaustive()
    }
}
