//! Pixels to the shared space, by FastViT: the image tower of MobileCLIP S0 to S4.
//!
//! Owns: the forward pass, in which every batch norm, branch, skip and scale of the trained model is
//! part of a neighbouring convolution; `loader` folds them when the weights are read. Does not own the
//! convolutions themselves, preprocessing or normalisation of the result.
//!
//! The architecture is that of Vasu et al., "FastViT" (2023) and "MobileCLIP" (2024), as timm has it.

mod loader;
#[cfg(test)]
mod tests;

use std::fmt;

use diptych_kernels::{Activation, AttentionShape, Mask, Threads, attention};
use serde::Serialize;

pub(crate) use self::loader::is_fastvit;
use super::convolution::{Depthwise, Excite, Map, means, pointwise, windows};
use super::layers::{LayerNorm, Linear};
use super::one_by_one;

/// Width of an attention head.
const HEAD_WIDTH: usize = 32;

/// What decides the arithmetic of the tower.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct FastVitSpec {
    /// The name in timm.
    pub(crate) model: &'static str,
    /// Height and width of the input in pixels.
    pub(crate) image: (usize, usize),
    /// Width of each stage.
    pub(crate) widths: Vec<usize>,
    /// Blocks of each stage.
    pub(crate) layers: Vec<usize>,
    /// Whether the branches were summed before the weights were published.
    pub(crate) reparameterized: bool,
}

impl fmt::Display for FastVitSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, widths, layers, .. } = self;
        let form = if self.reparameterized { "reparameterised" } else { "in training form" };
        write!(f, "FastViT {model}, stages of width {widths:?} with {layers:?} blocks, weights {form}")
    }
}

/// The image tower.
pub(crate) struct FastVit {
    pub(crate) spec: FastVitSpec,
    /// From windows of 3 x 3 pixels to the first width.
    stem_in: Linear,
    stem_spatial: Depthwise,
    stem_out: Linear,
    stages: Vec<Stage>,
    last: Depthwise,
    last_excite: Excite,
    head: Linear,
}

struct Stage {
    downsample: Option<Downsample>,
    /// Positions from the content: a convolution with its skip folded in.
    position: Option<Depthwise>,
    blocks: Vec<Block>,
}

struct Downsample {
    spatial: Depthwise,
    excite: Option<Excite>,
    mix: Linear,
}

struct Block {
    mixer: Mixer,
    spatial: Depthwise,
    fc1: Linear,
    /// With its layer scale folded in; its output is added to the block's input.
    fc2: Linear,
}

enum Mixer {
    /// A convolution with its skip folded in.
    Convolution(Depthwise),
    /// Attention over all pixels, added to its input.
    Attention { norm: Option<LayerNorm>, qkv: Linear, out: Linear },
}

impl FastVit {
    /// Dimensions of the output.
    pub(crate) fn out(&self) -> usize {
        self.head.out()
    }

    /// Projected, not normalised: `[images, out]`. Each image is `[3, height, width]`.
    pub(crate) fn forward(&self, images: &[&[f32]]) -> Vec<f32> {
        one_by_one(images, |image, threads| self.image(image, threads))
    }

    fn image(&self, image: &[f32], threads: Threads) -> Vec<f32> {
        let mut padded = Vec::new();
        let gelu = Some(Activation::Gelu);
        let (windows, height, width) = windows(image, self.spec.image);
        let x =
            pointwise(&self.stem_in, &Map { height, width, channels: 27, values: windows }, gelu, threads);
        let mut x = self.stem_spatial.forward(&x, &mut padded, threads);
        Activation::Gelu.apply(&mut x.values);
        x = pointwise(&self.stem_out, &x, gelu, threads);
        for stage in &self.stages {
            x = stage.forward(x, &mut padded, threads);
        }
        x = self.last.forward(&x, &mut padded, threads);
        self.last_excite.run(&mut x, threads);
        Activation::Gelu.apply(&mut x.values);
        self.head.forward(&means(&x), 1, threads)
    }
}

impl Stage {
    fn forward(&self, mut x: Map, padded: &mut Vec<f32>, threads: Threads) -> Map {
        if let Some(Downsample { spatial, excite, mix }) = &self.downsample {
            x = spatial.forward(&x, padded, threads);
            if let Some(excite) = excite {
                excite.run(&mut x, threads);
            }
            Activation::Gelu.apply(&mut x.values);
            x = pointwise(mix, &x, Some(Activation::Gelu), threads);
        }
        if let Some(position) = &self.position {
            x = position.forward(&x, padded, threads);
        }
        for block in &self.blocks {
            x = block.forward(x, padded, threads);
        }
        x
    }
}

impl Block {
    fn forward(&self, mut x: Map, padded: &mut Vec<f32>, threads: Threads) -> Map {
        let pixels = x.pixels();
        match &self.mixer {
            Mixer::Convolution(mixer) => x = mixer.forward(&x, padded, threads),
            Mixer::Attention { norm, qkv, out } => {
                let qkv = match norm {
                    Some(norm) => qkv.forward(&norm.forward(&x.values, threads), pixels, threads),
                    None => qkv.forward(&x.values, pixels, threads),
                };
                let mut attended = vec![0f32; x.values.len()];
                let shape = AttentionShape::new(1, pixels, x.channels / HEAD_WIDTH, HEAD_WIDTH);
                attention(&mut attended, &qkv, shape, Mask::default(), threads);
                out.add_to(&mut x.values, &attended, pixels, threads);
            }
        }
        let spatial = self.spatial.forward(&x, padded, threads);
        let wide = pointwise(&self.fc1, &spatial, Some(Activation::Gelu), threads);
        self.fc2.add_to(&mut x.values, &wide.values, pixels, threads);
        x
    }
}
