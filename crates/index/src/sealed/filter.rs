//! Walking over the slots that a filter accepts.
//!
//! Owns: which slots a filter accepts, asked once each, and links that step across the others.
//! Deliberately absent: when that is the right way (the segment decides).

use std::cell::RefCell;

use super::links::LinkView;
use super::segment::Segment;
use super::walk::Links;
use crate::search::PointSet;

/// Slots looked at for somewhere to start when no entry point is accepted.
const LOOKED_AT: usize = 4096;

/// Accepted neighbours of one slot from which on none across others are looked for.
const ENOUGH: usize = 32;

/// Which slots count, as far as asked.
pub(crate) struct Accept<'a> {
    segment: &'a Segment,
    filter: &'a PointSet,
    /// Two bits per slot: asked, and accepted.
    known: RefCell<Vec<u64>>,
}

impl<'a> Accept<'a> {
    pub(crate) fn new(segment: &'a Segment, filter: &'a PointSet) -> Self {
        Self { segment, filter, known: RefCell::new(vec![0; segment.points().slots().div_ceil(32)]) }
    }

    /// Whether a slot has a live point that the filter names.
    pub(crate) fn slot(&self, slot: u32) -> bool {
        let (word, shift) = (slot as usize / 32, 2 * (slot % 32));
        let known = self.known.borrow()[word] >> shift;
        if known & 1 == 1 {
            return known & 2 == 2;
        }
        let accepted = self.segment.slot_counts(slot, self.filter);
        self.known.borrow_mut()[word] |= (1 | u64::from(accepted) << 1) << shift;
        accepted
    }

    /// A few accepted slots to start from, spread over the segment.
    pub(crate) fn some_slots(&self, segment: &Segment, links: &TwoHop<'_>) -> Vec<u32> {
        let mut found = Vec::new();
        for &entry in segment.links().entries.iter() {
            links.for_each(entry, |slot| found.push(slot));
        }
        let slots = segment.points().slots();
        if found.is_empty() {
            let step = (slots / LOOKED_AT).max(1);
            found.extend((0..slots as u32).step_by(step).filter(|&slot| self.slot(slot)));
        }
        found
    }
}

/// Links from accepted slots to accepted slots, directly or across one that is not.
pub(crate) struct TwoHop<'a> {
    links: LinkView<'a>,
    accept: &'a Accept<'a>,
}

impl<'a> TwoHop<'a> {
    pub(crate) fn new(links: LinkView<'a>, accept: &'a Accept<'a>) -> Self {
        Self { links, accept }
    }
}

impl Links for TwoHop<'_> {
    fn for_each(&self, slot: u32, mut take: impl FnMut(u32)) {
        let mut taken = 0;
        self.links.for_each(slot, |near| {
            if self.accept.slot(near) {
                take(near);
                taken += 1;
            } else if taken < ENOUGH {
                self.links.for_each(near, |far| {
                    if self.accept.slot(far) {
                        take(far);
                        taken += 1;
                    }
                });
            }
        });
    }

    fn prefetch(&self, slot: u32) {
        self.links.prefetch(slot);
    }
}
