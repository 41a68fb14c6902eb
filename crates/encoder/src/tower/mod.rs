//! The towers: from token ids or pixels to rows of the shared space.
//!
//! Owns: the layers that the families share ([`layers`]), the stack of transformer blocks
//! ([`transformer`]), and one tower per kind of input ([`text`]; [`vit`] or [`fastvit`]). A family decides sizes,
//! names and options; nothing here knows a file or a published name. Inference only.
//!
//! Activations are row-major `[sequences * positions, width]` slices. A batch goes through a tower in
//! small groups of sequences, one group per core at a time, so that a group's activations stay in
//! that core's cache; a single sequence is spread over all cores instead.

mod conv_stem;
mod convolution;
pub(crate) mod fastvit;
pub(crate) mod layers;
pub(crate) mod text;
pub(crate) mod transformer;
pub(crate) mod vit;

use diptych_kernels::Threads;
use rayon::prelude::*;

pub(crate) use conv_stem::ConvStem;
pub(crate) use fastvit::FastVit;
pub(crate) use text::TextTower;
pub(crate) use vit::Vit;

/// The image tower of a model.
pub(crate) enum VisionTower {
    Vit(Box<Vit>),
    FastVit(Box<FastVit>),
}

impl VisionTower {
    /// Height and width of the input in pixels.
    pub(crate) fn image(&self) -> (usize, usize) {
        match self {
            Self::Vit(tower) => tower.spec.image,
            Self::FastVit(tower) => tower.spec.image,
        }
    }

    /// Dimensions of the output.
    pub(crate) fn out(&self) -> usize {
        match self {
            Self::Vit(tower) => tower.out(),
            Self::FastVit(tower) => tower.out(),
        }
    }

    /// Positions of one image, as a measure of its cost beside texts.
    pub(crate) fn positions(&self) -> usize {
        match self {
            Self::Vit(tower) => tower.spec.positions(),
            // What its last stage has: a pixel for each 32 x 32 of the input.
            Self::FastVit(tower) => (tower.spec.image.0 / 32) * (tower.spec.image.1 / 32),
        }
    }

    /// Projected, not normalised: `[images, out]`. Each image is `[3, height, width]`.
    pub(crate) fn forward(&self, images: &[&[f32]]) -> Vec<f32> {
        match self {
            Self::Vit(tower) => tower.forward(images),
            Self::FastVit(tower) => tower.forward(images),
        }
    }

    /// What there is to know about it: labels with what belongs to them.
    pub(crate) fn describe(&self) -> Vec<(&'static str, String)> {
        let (height, width) = self.image();
        match self {
            Self::Vit(tower) => {
                let spec = &tower.spec;
                let (high, wide) = spec.patch;
                let positions = spec.positions();
                let input =
                    format!("{height} x {width} pixels in patches of {high} x {wide}, {positions} positions");
                vec![
                    ("image tower", spec.transformer.to_string()),
                    ("  input", input),
                    ("  pooling", spec.pooling.to_string()),
                ]
            }
            Self::FastVit(tower) => {
                vec![
                    ("image tower", tower.spec.to_string()),
                    ("  input", format!("{height} x {width} pixels")),
                ]
            }
        }
    }

    /// What decides its arithmetic, as canonical JSON.
    pub(crate) fn spec_json(&self) -> String {
        let spec = match self {
            Self::Vit(tower) => serde_json::to_string(&tower.spec),
            Self::FastVit(tower) => serde_json::to_string(&tower.spec),
        };
        spec.expect("plain numbers and strings always serialise")
    }
}

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

/// The mean of rows of `width` values.
fn mean_of_rows(rows: &[f32], width: usize) -> Vec<f32> {
    let mut mean = vec![0f32; width];
    for row in rows.chunks_exact(width) {
        mean.iter_mut().zip(row).for_each(|(sum, v)| *sum += v);
    }
    let count = (rows.len() / width) as f32;
    mean.iter_mut().for_each(|sum| *sum /= count);
    mean
}
