//! A segment: points that no longer change, the links between them, and which are still alive.
//!
//! Owns: searching one segment, and taking points out of it. Deliberately absent: building one (see
//! `build`), and the other segments.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use diptych_core::PointId;
use diptych_core::limits::EF_MAX;
use rayon::prelude::*;

use super::filter::{Accept, TwoHop};
use super::graph::best_entries;
use super::kernel::CodeKernel;
use super::links::LinkTable;
use super::points::{Points, Staged};
use super::search::ToQuery;
use super::walk::Walker;
use crate::IndexError;
use crate::dot::Dot;
use crate::rank::{Best, Neighbor};
use crate::search::{Plan, PointSet};

/// Slots of one task of a scan.
const SCAN_TASK: usize = 1024;
/// Share of the points, one in so many, up to which a filter's points are scanned.
const SCAN_SHARE: usize = 50;
/// How much cheaper a walk by codes is than one of the live layer, next to a scan.
const SCAN_WALKS: usize = 2;
/// Points of a filter that are scanned whatever their share.
const SCAN_MOST: usize = 512;
/// Points that are compared exactly rather than by their codes first.
const SCAN_EXACTLY: usize = 64;
/// Share of the points, one in so many, from which a filter's points are met often enough on the way.
const WALK_SHARE: usize = 32;

/// Share of the entry points, one in so many, that count as near to a query.
const NEAR_SHARE: usize = 4;

/// Points with links, and which of them are alive.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    points: Arc<Points>,
    links: Arc<LinkTable>,
    /// Counted when first asked for, which reads all links.
    counts: Arc<OnceLock<(usize, usize)>>,
    alive: Arc<Alive>,
    walkers: Arc<Mutex<Vec<Walker>>>,
    kernel: CodeKernel,
    dot: Dot,
}

/// One bit per point.
#[derive(Debug)]
struct Alive {
    bits: Box<[AtomicU64]>,
    points: AtomicUsize,
    slots: AtomicUsize,
    /// The same as `bits`, by id, to count what a filter matches.
    ids: RwLock<PointSet>,
}

/// What is asked of a segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) query: &'a [f32],
    pub(crate) k: usize,
    pub(crate) ef: usize,
    pub(crate) filter: Option<&'a PointSet>,
    /// Live points per unit of `ef` up to which a live layer scans them.
    pub(crate) scan_ratio: usize,
}

/// Fewest candidates of a walk in a part, if the whole has as many.
const PART_EF_MIN: usize = 16;

impl Wanted<'_> {
    /// The same for a part of the index, with the effort that gives it the recall of the whole. The
    /// candidates that a recall takes grow about as the square root of the points: on CLIP-like sets
    /// of 100,000 and 1,000,000, text queries need 56 and 160 of them for .95.
    pub(crate) fn in_part(&self, part: usize, whole: usize) -> Self {
        let share = (part as f64 / whole.max(1) as f64).min(1.0).sqrt();
        let ef = ((self.ef as f64 * share).ceil() as usize).max(self.k).max(PART_EF_MIN.min(self.ef));
        Self { ef, ..*self }
    }
}

impl Segment {
    /// All points are alive.
    pub(crate) fn new(points: Points, links: LinkTable) -> Self {
        let alive = Alive {
            bits: (0..points.len().div_ceil(64)).map(|_| AtomicU64::new(u64::MAX)).collect(),
            points: AtomicUsize::new(points.len()),
            slots: AtomicUsize::new(
                (0..points.slots() as u32).filter(|&s| points.ids_of(s).next().is_some()).count(),
            ),
            ids: RwLock::new(points.in_id_order().map(|(_, id)| id.0).collect()),
        };
        Self {
            points: Arc::new(points),
            links: Arc::new(links),
            counts: Arc::default(),
            alive: Arc::new(alive),
            walkers: Arc::default(),
            kernel: CodeKernel::detect(),
            dot: Dot::detect(),
        }
    }

    /// The same points with other links.
    pub(crate) fn relinked(&self, links: LinkTable) -> Self {
        Self { links: Arc::new(links), counts: Arc::default(), ..self.clone() }
    }

    pub(crate) fn points(&self) -> &Points {
        &self.points
    }

    pub(crate) fn links(&self) -> &LinkTable {
        &self.links
    }

    /// Links of all kinds, and those that were added for queries or points.
    pub(crate) fn link_counts(&self) -> (usize, usize) {
        *self.counts.get_or_init(|| self.links.counts())
    }

    /// Whether both are the same points, alive and dead together.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.points, &other.points)
    }

    /// Live points.
    pub(crate) fn len(&self) -> usize {
        self.alive.points.load(Ordering::Acquire)
    }

    /// Slots without live points.
    pub(crate) fn dead_slots(&self) -> usize {
        self.points.slots() - self.alive.slots.load(Ordering::Acquire).min(self.points.slots())
    }

    /// Whether the point is here, alive or dead.
    pub(crate) fn knows(&self, id: PointId) -> bool {
        self.points.position(id).is_some()
    }

    /// Live points with their vectors, in the order of their slots.
    pub(crate) fn live_points(&self) -> impl Iterator<Item = Result<(PointId, &[f32]), IndexError>> + '_ {
        (0..self.points.slots() as u32).flat_map(move |slot| {
            let live = self.points.ids_of(slot).filter(|(at, _)| self.is_alive(*at));
            live.map(move |(_, id)| Ok((id, self.points.vector(slot)?)))
        })
    }

    /// Live ids, in id order.
    pub(crate) fn ids(&self) -> impl Iterator<Item = PointId> + '_ {
        self.points.in_id_order().filter(|(at, _)| self.is_alive(*at)).map(|(_, id)| id)
    }

    /// Live ids, as a set.
    pub(crate) fn id_set(&self) -> PointSet {
        self.alive.ids.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes a point out; one caller at a time. Returns whether it was alive.
    pub(crate) fn remove(&self, id: PointId) -> bool {
        let Some(at) = self.points.position(id) else { return false };
        let bit = 1 << (at % 64);
        if self.alive.bits[at / 64].fetch_and(!bit, Ordering::AcqRel) & bit == 0 {
            return false;
        }
        self.alive.ids.write().unwrap_or_else(PoisonError::into_inner).remove(id.0);
        self.alive.points.fetch_sub(1, Ordering::AcqRel);
        let slot = self.points.slot_at(at);
        if !self.slot_is_live(slot) {
            self.alive.slots.fetch_sub(1, Ordering::AcqRel);
        }
        true
    }

    /// Takes out all of these that are here; one caller at a time.
    pub(crate) fn remove_all(&self, ids: &PointSet) {
        let here = &*self.alive.ids.read().unwrap_or_else(PoisonError::into_inner) & ids;
        for id in here {
            self.remove(PointId(id));
        }
    }

    /// Those of some ids whose points are here, dead.
    pub(crate) fn dead_among(&self, ids: &PointSet) -> PointSet {
        if self.len() == self.points.len() {
            return PointSet::new();
        }
        let dead = self.points.in_id_order().filter(|(at, _)| !self.is_alive(*at)).map(|(_, id)| id.0);
        dead.filter(|&id| ids.contains(id)).collect()
    }

    /// Stages every slot, in order, with its live points.
    pub(crate) fn stage_all(&self, staged: &mut Staged) -> Result<(), IndexError> {
        for slot in 0..self.points.slots() as u32 {
            let vector = self.points.vector(slot)?;
            staged.slot(vector);
            for id in self.counted_ids(slot, None) {
                staged.push(id, vector);
            }
        }
        Ok(())
    }

    /// The nearest live points, and how they were found.
    pub(crate) fn nearest(&self, wanted: &Wanted<'_>) -> Result<(Best, Plan), IndexError> {
        let live = self.len();
        if live == 0 || wanted.k == 0 {
            return Ok((Best::new(wanted.k), Plan::Scan));
        }
        let Some(filter) = wanted.filter else {
            if live <= wanted.scan_ratio.saturating_mul(wanted.ef) / SCAN_WALKS {
                return Ok((self.scan(wanted)?, Plan::Scan));
            }
            return self.widening(wanted, wanted.k.min(live), 1, Plan::Walk);
        };
        let matching = self.alive.ids.read().unwrap_or_else(PoisonError::into_inner).intersection_len(filter);
        let matching = usize::try_from(matching).unwrap_or(usize::MAX);
        if matching <= SCAN_MOST.max(live / SCAN_SHARE) {
            return Ok((self.scan_matching(wanted, filter)?, Plan::Scan));
        }
        let enough = wanted.k.min(matching);
        if matching >= live / WALK_SHARE {
            return self.widening(wanted, enough, live.div_ceil(matching), Plan::Walk);
        }
        if self.leads_away(wanted.query, filter, matching, live) {
            return Ok((self.scan_matching(wanted, filter)?, Plan::Scan));
        }
        self.widening(wanted, enough, 1, Plan::TwoHop)
    }

    /// Whether a filter names fewer than half as many points near a query as elsewhere, judged by the
    /// entry points. The best of its points are then scattered over the rim of a region without any,
    /// where a walk from one to the next finds few of them.
    fn leads_away(&self, query: &[f32], filter: &PointSet, matching: usize, live: usize) -> bool {
        let query = self.points.query(query);
        let score = ToQuery { query: &query, planes: self.points.planes(), kernel: self.kernel };
        let ranked = score.refine(&self.links.entries);
        let near = &ranked[..ranked.len().div_ceil(NEAR_SHARE)];
        let accepted = near.iter().filter(|&&(_, slot)| self.slot_counts(slot, filter)).count();
        2 * accepted * live < near.len() * matching
    }

    /// Walks with a list of `factor` times the wanted length, and longer ones until enough live points
    /// are found; then scans.
    fn widening(
        &self,
        wanted: &Wanted<'_>,
        enough: usize,
        factor: usize,
        plan: Plan,
    ) -> Result<(Best, Plan), IndexError> {
        let slots = self.points.slots();
        let live_slots = (slots - self.dead_slots()).max(1);
        // Dead slots take places in the list: keep as many more as there are of them.
        let mut ef = wanted.ef.saturating_mul(factor).saturating_mul(slots) / live_slots;
        while ef <= EF_MAX {
            let best = self.walk(wanted, ef, plan)?;
            if best.len() >= enough {
                return Ok((best, plan));
            }
            ef = ef.saturating_mul(4);
        }
        let best = match wanted.filter {
            Some(filter) => self.scan_matching(wanted, filter)?,
            None => self.scan(wanted)?,
        };
        Ok((best, Plan::Scan))
    }

    fn walk(&self, wanted: &Wanted<'_>, ef: usize, plan: Plan) -> Result<Best, IndexError> {
        let query = self.points.query(wanted.query);
        let score = ToQuery { query: &query, planes: self.points.planes(), kernel: self.kernel };
        let mut starts = best_entries(&score, &self.links.entries);
        let accept = wanted.filter.map(|filter| Accept::new(self, filter));
        let mut walker = self.walkers().pop().unwrap_or_default();
        let view = self.links.view();
        let n = self.points.slots();
        let found = match &accept {
            Some(accept) if plan == Plan::TwoHop => {
                let links = TwoHop::new(view, accept);
                starts.retain(|&slot| accept.slot(slot));
                if starts.is_empty() {
                    starts = accept.some_slots(self, &links);
                }
                walker.walk(n, &links, &score, &starts, ef)
            }
            _ => walker.walk(n, &view, &score, &starts, ef),
        };
        let counts = |slot: u32| match &accept {
            Some(accept) => accept.slot(slot),
            None => self.slot_is_live(slot),
        };
        let slots = score.narrow(found.iter().copied().filter(|c| counts(c.slot())), wanted.k);
        self.walkers().push(walker);
        let strays = self.links.strays.iter().copied().filter(|s| !slots.contains(s) && counts(*s));
        self.best_of(wanted, slots.iter().copied().chain(strays))
    }

    /// The best by exact score.
    fn best_of(&self, wanted: &Wanted<'_>, slots: impl Iterator<Item = u32>) -> Result<Best, IndexError> {
        let mut best = Best::new(wanted.k);
        for slot in slots {
            self.offer(&mut best, wanted, slot)?;
        }
        Ok(best)
    }

    fn offer(&self, best: &mut Best, wanted: &Wanted<'_>, slot: u32) -> Result<(), IndexError> {
        let score = self.dot.product(wanted.query, self.points.vector(slot)?);
        if best.takes(score) {
            for id in self.counted_ids(slot, wanted.filter) {
                best.offer(Neighbor { id, score });
            }
        }
        Ok(())
    }

    /// Compares the query with every point that counts, exactly, on all cores.
    pub(crate) fn scan(&self, wanted: &Wanted<'_>) -> Result<Best, IndexError> {
        let slots: Vec<u32> = (0..self.points.slots() as u32).collect();
        slots
            .par_chunks(SCAN_TASK)
            .map(|slots| self.best_of(wanted, slots.iter().copied().filter(|&s| self.slot_is_live(s))))
            .try_reduce(|| Best::new(wanted.k), |a, b| Ok(a.merge(b)))
    }

    /// Compares the query with the points of a small filter: by their codes, then exactly.
    fn scan_matching(&self, wanted: &Wanted<'_>, filter: &PointSet) -> Result<Best, IndexError> {
        let matching = &*self.alive.ids.read().unwrap_or_else(PoisonError::into_inner) & filter;
        let positions = matching.iter().filter_map(|id| self.points.position(PointId(id)));
        let mut slots: Vec<u32> = positions.map(|at| self.points.slot_at(at)).collect();
        slots.sort_unstable();
        slots.dedup();
        if slots.len() > SCAN_EXACTLY.max(wanted.k.saturating_mul(4)) {
            let query = self.points.query(wanted.query);
            let score = ToQuery { query: &query, planes: self.points.planes(), kernel: self.kernel };
            let ranked = score.refine(&slots);
            let bound = ranked[wanted.k - 1].0.saturating_sub(query.margins.fine);
            slots = ranked.iter().take_while(|r| r.0 >= bound).map(|&(_, slot)| slot).collect();
            let strays = self.links.strays.iter().filter(|&&s| self.slot_counts(s, filter));
            let missing: Vec<u32> = strays.copied().filter(|s| !slots.contains(s)).collect();
            slots.extend(missing);
        }
        self.best_of(wanted, slots.into_iter())
    }

    fn counted_ids<'a>(
        &'a self,
        slot: u32,
        filter: Option<&'a PointSet>,
    ) -> impl Iterator<Item = PointId> + 'a {
        let live = self.points.ids_of(slot).filter(|(at, _)| self.is_alive(*at)).map(|(_, id)| id);
        live.filter(move |id| filter.is_none_or(|filter| filter.contains(id.0)))
    }

    /// Whether a slot has a point that lives and that the filter names.
    pub(crate) fn slot_counts(&self, slot: u32, filter: &PointSet) -> bool {
        self.counted_ids(slot, Some(filter)).next().is_some()
    }

    fn slot_is_live(&self, slot: u32) -> bool {
        self.points.ids_of(slot).any(|(at, _)| self.is_alive(at))
    }

    fn is_alive(&self, at: usize) -> bool {
        self.alive.bits[at / 64].load(Ordering::Acquire) & (1 << (at % 64)) != 0
    }

    fn walkers(&self) -> std::sync::MutexGuard<'_, Vec<Walker>> {
        self.walkers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of memory that a search needs at hand, and bytes of vectors that it reads a few rows of.
    pub(crate) fn bytes(&self) -> (usize, usize) {
        let (hot, cold) = self.points.bytes();
        (hot + self.links.bytes() + 8 * self.alive.bits.len(), cold)
    }
}
