//! A graph under construction: every slot's neighbours, linked on all cores.
//!
//! Owns: which slots are linked, and the rows of links while they change. Deliberately absent: codes
//! (read from a slice), files, ids.
//!
//! One layer. Instead of the upper layers of HNSW, a walk starts from the best of a spread sample of
//! slots. Links are chosen as in HNSW (Malkov & Yashunin 2016, algorithm 4): a neighbour is kept if it
//! is nearer to the slot than to every neighbour kept before it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rayon::prelude::*;

use super::build::Stop;
use super::container::Section;
use super::kernel::{CodeKernel, Planes};
use super::links::{LinkTable, NONE};
use super::walk::{Links, Score, Walker};

/// Locks that writers of rows share.
const LOCKS: usize = 4096;
/// Links beyond its degree that a slot may have while the graph is built.
const SLACK: usize = 16;
/// Slots that one task links.
const LINK_TASK: usize = 256;
/// Entry points a walk starts from.
const STARTS: usize = 4;
/// Entry points per square root of the number of slots.
const ENTRIES_PER_ROOT: f64 = 1.0;

/// How a graph is built.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BuildOptions {
    /// Most links of the graph's own that a slot has.
    pub(crate) degree: usize,
    /// Neighbours a slot chooses when it is linked; the rest of its row is for those that choose it.
    pub(crate) chosen: usize,
    /// Candidates a slot chooses from.
    pub(crate) ef: usize,
    /// Links that may be added to a slot for queries and points that cannot be served without.
    pub(crate) extra: usize,
    /// How much nearer a neighbour must be to one kept before than to the slot, to be dropped;
    /// multiplies squared distances.
    pub(crate) alpha: f32,
}

impl BuildOptions {
    /// Most links of a slot.
    pub(crate) fn width(&self) -> usize {
        self.degree + self.extra
    }
}

/// The codes that a graph is built from, whole and by their upper plane.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Codes<'a> {
    pub(crate) whole: &'a [u8],
    pub(crate) planes: Planes<'a>,
    pub(crate) kernel: CodeKernel,
}

impl<'a> Codes<'a> {
    fn len(&self) -> usize {
        self.whole.len() / (2 * self.planes.stride)
    }

    fn get(&self, slot: u32) -> &'a [u8] {
        let bytes = 2 * self.planes.stride;
        &self.whole[slot as usize * bytes..][..bytes]
    }

    /// Squared distances by whole codes.
    fn distances(&self, code: &[u8], slots: &[u32], out: &mut [i32]) {
        self.kernel.distances(code, self.whole, slots, out);
    }

    /// Slots with their distances from another, nearest first.
    fn ranked(&self, from: u32, slots: Vec<u32>) -> Vec<(i32, u32)> {
        let mut distances = vec![0; slots.len()];
        self.distances(self.get(from), &slots, &mut distances);
        let mut ranked: Vec<(i32, u32)> = distances.into_iter().zip(slots).collect();
        ranked.sort_unstable();
        ranked
    }
}

/// Nearness to a slot, by the upper plane.
struct ToSlot<'a> {
    codes: Codes<'a>,
    row: &'a [u8],
}

impl Score for ToSlot<'_> {
    #[inline]
    fn score(&self, slots: &[u32], out: &mut [i32]) {
        self.codes.kernel.coarse_distances(self.row, self.codes.planes.upper, slots, out);
        out[..slots.len()].iter_mut().for_each(|d| *d = -*d);
    }
}

/// Rows of links of one length, read and written at once. A row that is read while it is written
/// may miss a neighbour or have one twice; every value in it is a slot.
///
/// Links come in two kinds. Those of hardness 0 are the graph's own: nearest neighbours in several
/// directions. The others were added because a query or a point could not be served without them; how
/// badly is their hardness, and where a row is full the least hard gives way.
#[derive(Debug)]
pub(crate) struct Rows {
    links: Box<[AtomicU32]>,
    hardness: Box<[AtomicU8]>,
    width: usize,
    locks: Box<[Mutex<()>]>,
}

impl Rows {
    /// Empty rows of at most `width` links.
    pub(crate) fn new(slots: usize, width: usize) -> Self {
        Self {
            links: (0..slots * width).map(|_| AtomicU32::new(NONE)).collect(),
            hardness: (0..slots * width).map(|_| AtomicU8::new(0)).collect(),
            width,
            locks: (0..LOCKS).map(|_| Mutex::new(())).collect(),
        }
    }

    /// Rows for `slots` slots, of which the first have the links of a table of the same width.
    pub(crate) fn resume(slots: usize, table: &LinkTable) -> Self {
        let rows = Self::new(slots, table.width);
        for (place, &link) in rows.links.iter().zip(table.links.iter()) {
            place.store(link, Ordering::Relaxed);
        }
        for (place, &hardness) in rows.hardness.iter().zip(table.hardness.iter()) {
            place.store(hardness, Ordering::Relaxed);
        }
        rows
    }

    /// The rows as they are, for reading.
    pub(crate) fn into_table(self, entries: Vec<u32>, strays: Vec<u32>) -> LinkTable {
        LinkTable {
            entries: Section::Owned(entries),
            strays: Section::Owned(strays),
            links: Section::Owned(self.links.into_iter().map(AtomicU32::into_inner).collect()),
            hardness: Section::Owned(self.hardness.into_iter().map(AtomicU8::into_inner).collect()),
            width: self.width,
        }
    }

    /// Adds a link that something could not be served without; returns whether there was room for it.
    pub(crate) fn add_hard(&self, from: u32, to: u32, hardness: u8) -> bool {
        let _lock = self.lock(from);
        let (links, kinds) = (self.row(from), self.kinds(from));
        let mut least: Option<(u8, usize)> = None;
        for (at, (link, kind)) in links.iter().zip(kinds).enumerate() {
            let (link, kind) = (link.load(Ordering::Relaxed), kind.load(Ordering::Relaxed));
            if link == to {
                kinds[at].store(kind.max(if kind == 0 { 0 } else { hardness }), Ordering::Relaxed);
                return true;
            }
            if link == NONE {
                kinds[at].store(hardness, Ordering::Relaxed);
                links[at].store(to, Ordering::Relaxed);
                return true;
            }
            if kind > 0 && kind < hardness && least.is_none_or(|(known, _)| kind < known) {
                least = Some((kind, at));
            }
        }
        if let Some((_, at)) = least {
            kinds[at].store(hardness, Ordering::Relaxed);
            links[at].store(to, Ordering::Relaxed);
        }
        least.is_some()
    }

    fn row(&self, slot: u32) -> &[AtomicU32] {
        &self.links[slot as usize * self.width..][..self.width]
    }

    fn kinds(&self, slot: u32) -> &[AtomicU8] {
        &self.hardness[slot as usize * self.width..][..self.width]
    }

    /// Replaces the graph's own links of a slot; the caller holds its lock.
    fn set_own(&self, slot: u32, own: &[u32]) {
        let (links, kinds) = (self.row(slot), self.kinds(slot));
        let hard: Vec<(u32, u8)> = links
            .iter()
            .zip(kinds)
            .map(|(link, kind)| (link.load(Ordering::Relaxed), kind.load(Ordering::Relaxed)))
            .filter(|&(link, kind)| link != NONE && kind > 0 && !own.contains(&link))
            .collect();
        let all = own.iter().map(|&link| (link, 0)).chain(hard).chain(std::iter::repeat((NONE, 0)));
        for ((place, kind), (link, hardness)) in links.iter().zip(kinds).zip(all) {
            kind.store(hardness, Ordering::Relaxed);
            place.store(link, Ordering::Relaxed);
        }
    }

    /// The graph's own links of a slot.
    fn own(&self, slot: u32) -> Vec<u32> {
        let pairs = self.row(slot).iter().zip(self.kinds(slot));
        pairs
            .filter(|(_, kind)| kind.load(Ordering::Relaxed) == 0)
            .map(|(link, _)| link.load(Ordering::Relaxed))
            .filter(|&link| link != NONE)
            .collect()
    }

    /// Places for the graph's own links in a row.
    fn room(&self, slot: u32) -> usize {
        self.width - self.kinds(slot).iter().filter(|kind| kind.load(Ordering::Relaxed) > 0).count()
    }

    fn lock(&self, slot: u32) -> MutexGuard<'_, ()> {
        self.locks[slot as usize % LOCKS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Links for Rows {
    #[inline]
    fn for_each(&self, slot: u32, mut take: impl FnMut(u32)) {
        for link in self.row(slot) {
            let link = link.load(Ordering::Relaxed);
            if link == NONE {
                return;
            }
            take(link);
        }
    }

    fn prefetch(&self, _slot: u32) {}
}

/// Links slots into rows, from their codes.
pub(crate) struct GraphBuilder<'a> {
    codes: Codes<'a>,
    rows: Rows,
    options: BuildOptions,
}

impl<'a> GraphBuilder<'a> {
    /// A builder for the slots that have codes; `rows` may have links of some of them.
    pub(crate) fn new(codes: Codes<'a>, rows: Rows, options: BuildOptions) -> Self {
        Self { codes, rows, options }
    }

    /// Links all slots from `first` on: those among the `entries` before all others and one after the
    /// other, so that every walk finds them. Leaves slots out when stopped.
    pub(crate) fn link_from(&self, first: u32, entries: &[u32], stop: Stop<'_>) {
        let (old, new): (Vec<u32>, Vec<u32>) = entries.iter().partition(|&&slot| slot < first);
        let mut walker = Walker::default();
        let mut known = old;
        for &slot in &new {
            self.link(&mut walker, slot, &known);
            known.push(slot);
        }
        let is_new: HashSet<u32> = new.into_iter().collect();
        (first..self.codes.len() as u32)
            .into_par_iter()
            .with_max_len(LINK_TASK)
            .filter(|slot| !is_new.contains(slot) && !stop())
            .for_each_init(Walker::default, |walker, slot| self.link(walker, slot, entries));
        (0..self.codes.len() as u32).into_par_iter().with_max_len(LINK_TASK).for_each(|slot| {
            let own = self.rows.own(slot);
            if own.len() > self.options.degree {
                self.rows.set_own(slot, &self.cut_back(slot, own));
            }
        });
    }

    /// The rows.
    pub(crate) fn into_rows(self) -> Rows {
        self.rows
    }

    fn link(&self, walker: &mut Walker, slot: u32, entries: &[u32]) {
        let Planes { upper, stride, .. } = self.codes.planes;
        let score = ToSlot { codes: self.codes, row: &upper[slot as usize * stride..][..stride] };
        let start = best_entries(&score, entries);
        let found = walker.walk(self.codes.len(), &self.rows, &score, &start, self.options.ef);
        let near = found.iter().map(|c| c.slot()).filter(|&s| s != slot).collect();
        let candidates = self.codes.ranked(slot, near);
        let chosen = self.choose(&candidates, self.options.chosen);
        {
            let _lock = self.rows.lock(slot);
            self.rows.set_own(slot, &chosen);
        }
        for &neighbour in &chosen {
            self.link_back(neighbour, slot);
        }
    }

    /// Links back to a slot that chose this one. Rows may get longer than they will stay, so that they
    /// are cut back in turns rather than with every link.
    fn link_back(&self, from: u32, to: u32) {
        let _lock = self.rows.lock(from);
        let mut slots = self.rows.own(from);
        if slots.contains(&to) {
            return;
        }
        slots.push(to);
        if slots.len() > (self.options.degree + SLACK).min(self.rows.room(from)) {
            slots = self.cut_back(from, slots);
        }
        self.rows.set_own(from, &slots);
    }

    /// The best of a slot's links, as many as it may keep.
    fn cut_back(&self, from: u32, slots: Vec<u32>) -> Vec<u32> {
        self.choose(&self.codes.ranked(from, slots), self.options.degree)
    }

    /// Up to `most` of the candidates, given nearest first, such that none is much nearer to one chosen
    /// before than to the slot they are chosen for.
    fn choose(&self, candidates: &[(i32, u32)], most: usize) -> Vec<u32> {
        let mut chosen: Vec<u32> = Vec::with_capacity(most);
        let mut out = [0; 4];
        for &(distance, slot) in candidates {
            if chosen.len() == most {
                break;
            }
            let code = self.codes.get(slot);
            let covered = chosen.chunks(4).any(|some| {
                self.codes.distances(code, some, &mut out);
                out[..some.len()].iter().any(|&d| d as f32 * self.options.alpha < distance as f32)
            });
            if !covered {
                chosen.push(slot);
            }
        }
        chosen
    }
}

/// The best of the entry points, to start a walk from.
pub(crate) fn best_entries(score: &impl Score, entries: &[u32]) -> Vec<u32> {
    let mut scores = vec![0; entries.len()];
    score.score(entries, &mut scores);
    let mut ranked: Vec<(i32, u32)> = scores.into_iter().zip(entries.iter().copied()).collect();
    if STARTS < ranked.len() {
        ranked.select_nth_unstable_by(STARTS, |a, b| b.cmp(a));
        ranked.truncate(STARTS);
    }
    ranked.into_iter().map(|(_, slot)| slot).collect()
}

/// The entry points of so many slots: a spread sample of about twice their square root.
pub(crate) fn spread_entries(slots: usize) -> Vec<u32> {
    let count = ((slots as f64).sqrt() * ENTRIES_PER_ROOT).ceil() as usize;
    let count = count.clamp(slots.min(1), slots);
    (0..count).map(|i| (i * slots / count) as u32).collect()
}
