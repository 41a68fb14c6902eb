//! The towers: from token ids or pixels to rows of the shared space.
//!
//! Owns: the layers that the families share ([`layers`]), the stack of transformer blocks
//! ([`transformer`]), and one tower per kind of input ([`text`]; [`vit`], [`fastvit`] or
//! [`mobilenet`]). A family decides sizes,
//! names and options; nothing here knows a file or a published name. Inference only.
//!
//! Activations are row-major `[sequences * positions, width]` slices. A batch goes through a tower in
//! small groups of sequences, one group per core at a time, so that a group's activations stay in
//! that core's cache; a single sequence is spread over all cores instead.

mod conv_stem;
mod convolution;
pub(crate) mod fastvit;
pub(crate) mod layers;
pub(crate) mod mobilenet;
pub(crate) mod text;
pub(crate) mod transformer;
pub(crate) mod vit;

use diptych_kernels::Threads;
use rayon::prelude::*;

pub(crate) use conv_stem::ConvStem;
pub(crate) use fastvit::FastVit;
pub(crate) use mobilenet::MobileNet;
pub(crate) use text::TextTower;
pub(crate) use vit::Vit;

/// The image tower of a model.
pub(crate) enum VisionTower {
    Vit(Box<Vit>),
    FastVit(Box<FastVit>),
    MobileNet(Box<MobileNet>),
}

impl VisionTower {
    /// Height and width of the input in pixels.
    pub(crate) fn image(&self) -> (usize, usize) {
        match self {
            Self::Vit(tower) => tower.spec.image,
            Self::FastVit(tower) => tower.spec.image,
            Self::MobileNet(tower) => tower.spec.image,
        }
    }

    /// Dimensions of the output.
    pub(crate) fn out(&self) -> usize {
        match self {
            Self::Vit(tower) => tower.out(),
            Self::FastVit(tower) => tower.out(),
            Self::MobileNet(tower) => tower.out(),
        }
    }

    /// Positions of one image, as a measure of its cost beside texts.
    pub(crate) fn positions(&self) -> usize {
        match self {
            Self::Vit(tower) => tower.spec.positions(),
            // What the last stage has: a pixel for each 32 x 32 of the input.
            Self::FastVit(_) | Self::MobileNet(_) => {
                let (height, width) = self.image();
                (height / 32) * (width / 32)
            }
        }
    }

    /// Projected, not normalised: `[images, out]`. Each image is `[3, height, width]`.
    pub(crate) fn forward(&self, images: &[&[f32]]) -> Vec<f32> {
        match self {
            Self::Vit(tower) => tower.forward(images),
            Self::FastVit(tower) => tower.forward(images),
            Self::MobileNet(tower) => tower.forward(images),
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
            Self::MobileNet(tower) => vec![
                ("image tower", tower.spec.to_string()),
                ("  input", format!("{height} x {width} pixels")),
                ("  pooling", "mean over all pixels".to_owned()),
            ],
        }
    }

    /// What decides its arithmetic, as canonical JSON.
    pub(crate) fn spec_json(&self) -> String {
        let spec = match self {
            Self::Vit(tower) => serde_json::to_string(&tower.spec),
            Self::FastVit(tower) => serde_json::to_string(&tower.spec),
            Self::MobileNet(tower) => serde_json::to_string(&tower.spec),
        };
        spec.expect("plain numbers and strings always serialise")
    }
}

/// Positions that go through the blocks as one group: enough rows to keep the matrix product busy,
/// few enough that they stay in a core's cache.
const GROUP_POSITIONS: usize = 200;

/// Runs `forward` over groups of inputs and joins the rows.
///
/// What fits one group uses all cores together: then the time goes into reading the weights, which each
/// core does for a part of them. More inputs make groups of like size, a multiple of the threads, each
/// on one core. A kernel gives a row the same bits whatever it is grouped with and on however many
/// threads, so that the result is the same everywhere.
fn in_groups<T: Sync>(
    inputs: &[T],
    positions: impl Fn(&T) -> usize,
    forward: impl Fn(&[T], Threads) -> Vec<f32> + Sync + Send,
) -> Vec<f32> {
    let costs: Vec<usize> = inputs.iter().map(positions).collect();
    let total: usize = costs.iter().sum();
    let threads = rayon::current_num_threads();
    if total <= GROUP_POSITIONS || inputs.len() < threads || threads == 1 {
        let groups = divide(inputs, &costs, total.div_ceil(GROUP_POSITIONS));
        // On a thread of the pool, so that each layer's hand-over is to a neighbour that still waits and
        // not through a sleeping caller.
        return rayon::scope(|_| groups.into_iter().flat_map(|group| forward(group, Threads::All)).collect());
    }
    let groups = divide(inputs, &costs, total.div_ceil(GROUP_POSITIONS).next_multiple_of(threads));
    let rows: Vec<Vec<f32>> = groups.par_iter().map(|group| forward(group, Threads::One)).collect();
    rows.concat()
}

/// Runs a network of convolutions over images, each by itself: one has work enough for a core.
fn one_by_one(images: &[&[f32]], forward: impl Fn(&[f32], Threads) -> Vec<f32> + Sync + Send) -> Vec<f32> {
    let each = |group: &[&[f32]], threads| group.iter().flat_map(|image| forward(image, threads)).collect();
    in_groups(images, |_| GROUP_POSITIONS, each)
}

/// Cuts inputs, in order, into at most `count` groups of nearly equal cost.
fn divide<'a, T>(inputs: &'a [T], costs: &[usize], count: usize) -> Vec<&'a [T]> {
    let total = costs.iter().sum::<usize>().max(1);
    let mut groups = Vec::with_capacity(count);
    let (mut start, mut before) = (0, 0);
    for (i, cost) in costs.iter().enumerate() {
        // An input belongs to the group in which its middle lies.
        let group = |before: usize, cost: usize| (2 * before + cost) * count / (2 * total);
        let last = costs.get(i + 1).is_none_or(|next| group(before, *cost) != group(before + cost, *next));
        before += cost;
        if last {
            groups.push(&inputs[start..=i]);
            start = i + 1;
        }
    }
    groups
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

#[cfg(test)]
mod tests {
    use super::divide;

    #[test]
    fn groups_have_like_cost_and_lose_nothing() {
        let inputs: Vec<usize> = (0..9).collect();
        let sizes = |costs: &[usize], count| -> Vec<usize> {
            let groups = divide(&inputs[..costs.len()], costs, count);
            assert_eq!(groups.concat(), inputs[..costs.len()]);
            groups.iter().map(|group| group.len()).collect()
        };
        assert_eq!(sizes(&[50; 8], 2), [4, 4]);
        assert_eq!(sizes(&[77; 8], 4), [2, 2, 2, 2]);
        assert_eq!(sizes(&[10, 10, 10, 10, 20, 20], 4), [2, 2, 1, 1]);
        assert_eq!(sizes(&[1, 1, 500], 2), [2, 1]);
        assert_eq!(sizes(&[5; 3], 8), [1, 1, 1]);
        assert!(divide::<usize>(&[], &[], 2).is_empty());
    }
}
