//! The towers: from token ids or pixels to rows of the shared space.
//!
//! Owns: the layers that the families share ([`layers`]), the stack of transformer blocks
//! ([`transformer`]), and one tower per kind of input ([`text`], [`vit`]). A family decides sizes,
//! names and options; nothing here knows a file or a published name. Inference only.
//!
//! Activations are row-major `[sequences * positions, width]` slices. A batch goes through a tower in
//! small groups of sequences, one group per core at a time, so that a group's activations stay in
//! that core's cache; a single sequence is spread over all cores instead.

pub(crate) mod layers;
pub(crate) mod text;
pub(crate) mod transformer;
pub(crate) mod vit;

use diptych_kernels::Threads;
use rayon::prelude::*;

pub(crate) use text::TextTower;
pub(crate) use vit::Vit;

/// Runs `forward` over groups of inputs and joins the rows. With fewer groups than threads the
/// groups follow one another and each uses all cores.
///
/// How an input is grouped never depends on the machine, and a kernel gives the same bits on one
/// thread as on all: the same call gives the same result everywhere.
pub(crate) fn in_groups<T: Sync>(
    inputs: &[T],
    sizes: impl Iterator<Item = usize>,
    forward: impl Fn(&[T], Threads) -> Vec<f32> + Sync,
) -> Vec<f32> {
    let mut groups = Vec::new();
    let mut rest = inputs;
    for size in sizes {
        let (group, later) = rest.split_at(size.min(rest.len()));
        groups.push(group);
        rest = later;
    }
    debug_assert!(rest.is_empty(), "sizes cover the inputs");
    if groups.len() < rayon::current_num_threads() {
        return groups.into_iter().flat_map(|group| forward(group, Threads::All)).collect();
    }
    let rows: Vec<Vec<f32>> = groups.par_iter().map(|group| forward(group, Threads::One)).collect();
    rows.concat()
}
