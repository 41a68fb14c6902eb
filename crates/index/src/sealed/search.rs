//! Scores of codes against a query, and the narrowing from codes to exact scores.
//!
//! Owns: the three grains of a score: the upper plane for walking, both planes for the few that a walk
//! ends with, the exact vectors for the answer. Deliberately absent: walking, and which points live.

use diptych_core::limits::EF_MAX;

use super::code::CodeQuery;
use super::kernel::{CodeKernel, Planes};
use super::walk::{Candidate, Score};

/// Candidates that are scored by their whole codes beyond four times those wanted.
const SPARE: usize = 24;

/// Nearness to a query, by the upper plane.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ToQuery<'a> {
    pub(crate) query: &'a CodeQuery,
    pub(crate) planes: Planes<'a>,
    pub(crate) kernel: CodeKernel,
}

impl Score for ToQuery<'_> {
    #[inline]
    fn score(&self, slots: &[u32], out: &mut [i32]) {
        self.kernel.coarse_products(&self.query.row, self.planes.upper, slots, out);
    }
}

impl ToQuery<'_> {
    /// The slots whose exact scores decide about the `k` best: of those that a walk found, given best
    /// first, the ones that rounding to codes may have moved behind the `k`-th; and a few more, since
    /// real vectors have tails that no margin foresees.
    pub(crate) fn narrow(&self, found: impl Iterator<Item = Candidate>, k: usize) -> Vec<u32> {
        let margins = self.query.margins;
        let mut bound = i32::MIN;
        let within = found.enumerate().take_while(|(rank, candidate)| {
            if rank + 1 == k {
                bound = candidate.score.saturating_sub(margins.coarse);
            }
            *rank < 4 * k.min(EF_MAX) + SPARE || candidate.score >= bound
        });
        let slots: Vec<u32> = within.map(|(_, candidate)| candidate.slot()).collect();
        let mut ranked = self.refine(&slots);
        let bound = ranked.get(k.max(1) - 1).map_or(i32::MIN, |r| r.0.saturating_sub(margins.fine));
        let within = ranked.partition_point(|r| r.0 >= bound);
        ranked.truncate(within.max(k.saturating_add(k / 2 + 1)));
        ranked.into_iter().map(|(_, slot)| slot).collect()
    }

    /// Slots with the products of their whole codes, best first.
    pub(crate) fn refine(&self, slots: &[u32]) -> Vec<(i32, u32)> {
        let mut products = vec![0; slots.len()];
        self.kernel.products(&self.query.row, self.planes, slots, &mut products);
        let mut ranked: Vec<(i32, u32)> = products.into_iter().zip(slots.iter().copied()).collect();
        ranked.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        ranked
    }
}
