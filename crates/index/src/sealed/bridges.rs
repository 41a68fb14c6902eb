//! Query-aware links: bridges between points that belong together for a query, though not for the base.
//!
//! Owns: which links to add for a training query. Deliberately absent: which queries there are.
//!
//! A text is far from every image, and the images nearest to it are far from one another, so a walk in a
//! graph of image neighbours has to leave the neighbourhood of a text and come back to see all of it.
//! For a training query this looks at its nearest slots in rank order, finds pairs of the first
//! [`WANTED`] of them that the links among the first [`SEEN`] do not join, and adds links between them,
//! shortest first, until every one reaches every other. The worse a pair was joined, the harder the
//! link. The idea is that of "NGFix: fixing neighborhood graphs for out-of-distribution queries"
//! (SIGMOD 2026); a hard pair there is measured by rank in the same way.

use rayon::prelude::*;

use super::build::Stop;
use super::code::CodeQuery;
use super::graph::{Rows, best_entries};
use super::kernel::{CodeKernel, Planes};
use super::points::Points;
use super::search::ToQuery;
use super::walk::{Links, Score, Walker};

/// Nearest slots of a training query that must reach each other.
const WANTED: usize = 40;
/// Nearest slots through which they may.
const SEEN: usize = 80;
/// Candidates of the walk that finds them.
const EF: usize = 400;
/// Effort of the walk that must at least arrive at the nearest slots.
const EF_ARRIVE: usize = 24;

/// Adds the links that these queries lack, on all cores.
pub(crate) fn learn(
    points: &Points,
    rows: &Rows,
    entries: &[u32],
    queries: &[&[f32]],
    kernel: CodeKernel,
    stop: Stop<'_>,
) {
    queries.par_iter().with_max_len(16).filter(|_| !stop()).for_each_init(
        Walker::default,
        |walker, query| {
            learn_one(points, rows, entries, &points.query(query), kernel, walker);
        },
    );
}

fn learn_one(
    points: &Points,
    rows: &Rows,
    entries: &[u32],
    query: &CodeQuery,
    kernel: CodeKernel,
    walker: &mut Walker,
) {
    let planes = points.planes();
    let score = ToQuery { query, planes, kernel };
    let start = best_entries(&score, entries);
    let found = walker.walk(points.slots(), rows, &score, &start, EF);
    let mut slots: Vec<u32> = found.iter().take(2 * SEEN).map(|c| c.slot()).collect();
    let mut products = vec![0; slots.len()];
    kernel.products(&query.row, planes, &slots, &mut products);
    let mut ranked: Vec<(i32, u32)> = products.into_iter().zip(slots.iter().copied()).collect();
    ranked.sort_unstable_by(|a, b| b.cmp(a));
    slots = ranked.into_iter().take(SEEN).map(|(_, slot)| slot).collect();
    if slots.len() < 2 {
        return;
    }
    join(planes, rows, &slots, kernel);
    arrive(points.slots(), rows, &score, entries, &slots, walker);
}

/// Joins the first [`WANTED`] of the slots, given in rank order.
fn join(planes: Planes<'_>, rows: &Rows, slots: &[u32], kernel: CodeKernel) {
    let wanted = slots.len().min(WANTED);
    let joined_at = ranks_joined(rows, slots, wanted);
    let mut reach: Vec<u128> = (0..wanted)
        .map(|i| (0..wanted).filter(|&j| joined_at[i][j] != UNJOINED).fold(0, |set, j| set | 1 << j))
        .collect();
    if reach.iter().all(|set| set.count_ones() as usize == wanted) {
        return;
    }
    let mut pairs = nearest_pairs(planes, &slots[..wanted], kernel);
    pairs.sort_unstable();
    for (_, i, j) in pairs {
        for (from, to) in [(i, j), (j, i)] {
            if reach[from] & (1 << to) != 0 || !rows.add_hard(slots[from], slots[to], HARD) {
                continue;
            }
            let gained = reach[to];
            for set in &mut reach {
                if *set & (1 << from) != 0 {
                    *set |= gained;
                }
            }
        }
    }
}

/// A pair that no path among the slots joins.
const UNJOINED: u8 = u8::MAX;
/// The hardness of a link between two that were not joined at all.
const HARD: u8 = 100;
/// The hardness of a link that leads to the nearest slots of a query.
const ARRIVAL: u8 = 120;

/// For each pair of the first `wanted` slots, the rank up to which slots are needed for a path from one
/// to the other.
fn ranks_joined(rows: &Rows, slots: &[u32], wanted: usize) -> Vec<Vec<u8>> {
    let mut rank_of: Vec<(u32, usize)> = slots.iter().copied().zip(0..).collect();
    rank_of.sort_unstable();
    // Links among the slots, both ways, as sets of ranks.
    let mut out = vec![0u128; slots.len()];
    let mut into = vec![0u128; slots.len()];
    for (rank, &slot) in slots.iter().enumerate() {
        rows.for_each(slot, |link| {
            if let Ok(at) = rank_of.binary_search_by_key(&link, |&(slot, _)| slot) {
                let other = rank_of[at].1;
                out[rank] |= 1 << other;
                into[other] |= 1 << rank;
            }
        });
    }
    let mut joined_at = vec![vec![UNJOINED; wanted]; wanted];
    let mut reach = vec![0u128; slots.len()];
    for new in 0..slots.len() {
        let known = (1u128 << new) - 1;
        // All that the new one reaches through the older ones, and all that reach it.
        let mut gained = 1 << new;
        let mut direct = out[new] & known;
        while direct != 0 {
            gained |= reach[direct.trailing_zeros() as usize];
            direct &= direct - 1;
        }
        for set in &mut reach[..new] {
            if *set & into[new] != 0 {
                *set |= gained;
            }
        }
        reach[new] = gained;
        for i in 0..wanted.min(new + 1) {
            let mut fresh = reach[i] & ((1u128 << wanted) - 1);
            while fresh != 0 {
                let j = fresh.trailing_zeros() as usize;
                joined_at[i][j] = joined_at[i][j].min(new as u8);
                fresh &= fresh - 1;
            }
        }
    }
    joined_at
}

/// Squared distances of all pairs of slots.
fn nearest_pairs(planes: Planes<'_>, slots: &[u32], kernel: CodeKernel) -> Vec<(i32, usize, usize)> {
    let bytes = 2 * planes.stride;
    let mut codes = vec![0; slots.len() * bytes];
    for (code, &slot) in codes.chunks_exact_mut(bytes).zip(slots) {
        planes.join(slot, code);
    }
    let all: Vec<u32> = (0..slots.len() as u32).collect();
    let mut distances = vec![0; slots.len()];
    let mut pairs = Vec::with_capacity(slots.len() * slots.len() / 2);
    for i in 1..slots.len() {
        kernel.distances(&codes[i * bytes..][..bytes], &codes, &all[..i], &mut distances);
        pairs.extend(distances[..i].iter().enumerate().map(|(j, &d)| (d, i, j)));
    }
    pairs
}

/// Where a cheap walk does not arrive at any of the nearest slots, links the best it found to them.
fn arrive(n: usize, rows: &Rows, score: &impl Score, entries: &[u32], slots: &[u32], walker: &mut Walker) {
    let start = best_entries(score, entries);
    let found = walker.walk(n, rows, score, &start, EF_ARRIVE);
    let nearest = &slots[..slots.len().min(10)];
    if found.iter().any(|c| nearest.contains(&c.slot())) {
        return;
    }
    if let Some(best) = found.first() {
        rows.add_hard(best.slot(), nearest[0], ARRIVAL);
    }
}
