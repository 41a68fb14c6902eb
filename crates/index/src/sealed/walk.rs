//! The walk: from entry points to the best of a graph.
//!
//! Owns: the order in which slots are looked at, and what is remembered meanwhile. Deliberately
//! absent: what a score is, how links are stored, and exact scores.
//!
//! One step expands the best slot that is not expanded yet, in two passes: first its unseen
//! neighbours are collected, then all are scored as one batch, with their codes on the way from memory
//! while others are scored. The walk ends when every slot of the list is expanded.

/// Marks a slot of the list that has been expanded.
const EXPANDED: u32 = 1 << 31;

/// The links of a graph.
pub(crate) trait Links {
    /// Calls `take` with every neighbour of a slot.
    fn for_each(&self, slot: u32, take: impl FnMut(u32));
    /// Asks for the links of a slot ahead of their use.
    fn prefetch(&self, slot: u32);
}

/// Scores of slots; more is better.
pub(crate) trait Score {
    /// Writes the score of `slots[i]` to `out[i]`.
    fn score(&self, slots: &[u32], out: &mut [i32]);
}

/// A slot with its score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) score: i32,
    slot: u32,
}

impl Candidate {
    pub(crate) fn slot(self) -> u32 {
        self.slot & !EXPANDED
    }
}

/// What a walk needs to remember; kept from one walk to the next so that nothing is allocated.
#[derive(Debug, Default)]
pub(crate) struct Walker {
    seen: Seen,
    list: List,
    batch: Vec<u32>,
    scores: Vec<i32>,
}

impl Walker {
    /// Walks a graph of `n` slots from `entries`, with a list of `ef` slots. Returns the list, best
    /// first.
    pub(crate) fn walk(
        &mut self,
        n: usize,
        links: &impl Links,
        score: &impl Score,
        entries: &[u32],
        ef: usize,
    ) -> &[Candidate] {
        self.seen.reset(n);
        self.list.reset(ef);
        self.batch.clear();
        self.batch.extend(entries.iter().copied().filter(|&slot| self.seen.insert(slot)));
        self.offer_batch(score);
        while let Some(slot) = self.list.next() {
            if let Some(next) = self.list.peek() {
                links.prefetch(next);
            }
            self.batch.clear();
            links.for_each(slot, |neighbour| {
                if self.seen.insert(neighbour) {
                    self.batch.push(neighbour);
                }
            });
            self.offer_batch(score);
        }
        &self.list.items
    }

    fn offer_batch(&mut self, score: &impl Score) {
        if self.scores.len() < self.batch.len() {
            self.scores.resize(self.batch.len(), 0);
        }
        score.score(&self.batch, &mut self.scores);
        for (&slot, &score) in self.batch.iter().zip(&self.scores) {
            self.list.offer(Candidate { score, slot });
        }
    }
}

/// One bit per slot.
#[derive(Debug, Default)]
struct Seen {
    bits: Vec<u64>,
}

impl Seen {
    fn reset(&mut self, n: usize) {
        self.bits.clear();
        self.bits.resize(n.div_ceil(64), 0);
    }

    /// Returns whether the slot is new.
    #[inline]
    fn insert(&mut self, slot: u32) -> bool {
        let word = &mut self.bits[slot as usize / 64];
        let bit = 1 << (slot % 64);
        let new = *word & bit == 0;
        *word |= bit;
        new
    }
}

/// The best `capacity` of the slots offered, best first, and where the first unexpanded one is.
#[derive(Debug, Default)]
struct List {
    items: Vec<Candidate>,
    capacity: usize,
    cursor: usize,
}

impl List {
    fn reset(&mut self, capacity: usize) {
        self.items.clear();
        self.items.reserve(capacity + 1);
        self.capacity = capacity;
        self.cursor = 0;
    }

    #[inline]
    fn offer(&mut self, offered: Candidate) {
        if self.items.len() == self.capacity {
            if self.items.last().is_none_or(|worst| offered.score <= worst.score) {
                return;
            }
            self.items.pop();
        }
        let at = self.items.partition_point(|item| item.score >= offered.score);
        self.items.insert(at, offered);
        self.cursor = self.cursor.min(at);
    }

    /// The best slot that is not expanded yet; it is from now on.
    fn next(&mut self) -> Option<u32> {
        let item = self.items.get_mut(self.cursor)?;
        let slot = item.slot;
        item.slot |= EXPANDED;
        self.cursor += 1;
        while self.items.get(self.cursor).is_some_and(|item| item.slot & EXPANDED != 0) {
            self.cursor += 1;
        }
        Some(slot)
    }

    /// The slot that [`List::next`] would give.
    fn peek(&self) -> Option<u32> {
        self.items.get(self.cursor).map(|item| item.slot)
    }
}
