//! A stack of transformer blocks, forward only.
//!
//! Owns: multi-head self-attention and feed-forward layers with their residuals, normalised before
//! (CLIP, ViT, SigLIP) or after (BERT) each of them. Does not own names, embeddings, pooling or heads.
//!
//! The last block finishes only the rows that are asked for.

use std::fmt;

use diptych_kernels::{Activation, AttentionShape, Mask, Threads, attention};
use rayon::prelude::*;
use serde::Serialize;

use super::layers::{LayerNorm, Linear};
use crate::anatomy::BlockParts;
use crate::error::LoadError;
use crate::precision::Precision;
use crate::weights::Weights;

/// Where a block normalises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NormOrder {
    /// What goes into a layer; the residual stream itself is never normalised.
    Before,
    /// The residual stream after each addition.
    After,
}

/// The sizes and options that all blocks of a tower share.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TransformerSpec {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the feed-forward layer.
    pub inner: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Attention heads per block; divides `hidden`.
    pub heads: usize,
    /// Between both linear layers of the feed-forward layer.
    #[serde(serialize_with = "crate::activation::serialize")]
    pub activation: Activation,
    /// Added to the variance in every layer norm of the tower.
    pub eps: f64,
    /// Where a block normalises.
    pub norm: NormOrder,
    /// Whether queries, keys and values have biases; all other layers have.
    pub qkv_bias: bool,
    /// Whether each addition to the residual stream is scaled per channel.
    pub layer_scale: bool,
    /// How the linear layers of a loaded tower compute; `f32` in a description.
    pub precision: Precision,
}

impl TransformerSpec {
    /// As it computes with these weights.
    pub(super) fn with(self, weights: &Weights) -> Self {
        Self { precision: weights.precision(), ..self }
    }
}

impl fmt::Display for TransformerSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hidden, inner, layers, heads, activation, eps, precision, .. } = self;
        let activation = crate::activation::name(*activation);
        let norm = match self.norm {
            NormOrder::Before => "pre-norm",
            NormOrder::After => "post-norm",
        };
        write!(
            f,
            "{layers} layers of width {hidden}, {heads} heads, feed-forward {inner} with {activation}, {norm} eps {eps:e}, {precision}"
        )
    }
}

struct Block {
    norm1: LayerNorm,
    /// Queries, keys and values in one product.
    qkv: Linear,
    out: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

impl Block {
    fn assemble(weights: &Weights, parts: &BlockParts) -> Result<Self, LoadError> {
        let linear = |parts| Linear::assemble(weights, parts, weights.precision());
        Ok(Self {
            norm1: LayerNorm::assemble(weights, &parts.norm1)?,
            qkv: linear(&parts.qkv)?,
            out: linear(&parts.out)?,
            norm2: LayerNorm::assemble(weights, &parts.norm2)?,
            fc1: linear(&parts.fc1)?,
            fc2: linear(&parts.fc2)?,
        })
    }
}

/// Which rows of the last block are wanted.
#[derive(Clone, Copy)]
pub(crate) enum Wanted<'a> {
    /// All of them, `[sequences * positions, hidden]`.
    All,
    /// These rows only, one or more per sequence.
    Rows(&'a [usize]),
}

/// All blocks of a tower.
pub(crate) struct Transformer {
    blocks: Vec<Block>,
    spec: TransformerSpec,
}

impl Transformer {
    /// Takes the tensors of all blocks. `spec` says what the blocks have in common.
    pub(crate) fn assemble(
        weights: &Weights,
        blocks: &[BlockParts],
        spec: TransformerSpec,
    ) -> Result<Self, LoadError> {
        // One block after another would leave all but one core waiting for the disk.
        let blocks = blocks.par_iter().map(|parts| Block::assemble(weights, parts)).collect::<Vec<_>>();
        // The first failure in block order, whichever thread met one first.
        Ok(Self { blocks: blocks.into_iter().collect::<Result<_, _>>()?, spec })
    }

    /// Runs the residual stream `x` of `sequences` equally long sequences through all blocks.
    pub(crate) fn forward(
        &self,
        mut x: Vec<f32>,
        sequences: usize,
        mask: Mask<'_>,
        wanted: Wanted<'_>,
        threads: Threads,
    ) -> Vec<f32> {
        let TransformerSpec { hidden, inner, heads, norm, .. } = self.spec;
        let rows = x.len() / hidden;
        let shape = AttentionShape::new(sequences, rows / sequences.max(1), heads, hidden / heads);
        let mut normed = vec![0f32; rows * hidden];
        let mut qkv = vec![0f32; rows * 3 * hidden];
        let mut wide = vec![0f32; rows * inner];
        let Some(last) = self.blocks.len().checked_sub(1) else {
            return select(x, hidden, wanted);
        };
        for (i, block) in self.blocks.iter().enumerate() {
            match norm {
                NormOrder::Before => {
                    block.norm1.run(&mut normed, &x, threads);
                    block.qkv.run(&mut qkv, &normed, rows, None, threads);
                }
                NormOrder::After => block.qkv.run(&mut qkv, &x, rows, None, threads),
            }
            attention(&mut normed, &qkv, shape, mask, threads);
            if i == last {
                x = select(x, hidden, wanted);
                normed = select(normed, hidden, wanted);
            }
            let rows = x.len() / hidden;
            let wide = &mut wide[..rows * inner];
            block.out.add_to(&mut x, &normed, rows, threads);
            match norm {
                NormOrder::Before => {
                    block.norm2.run(&mut normed, &x, threads);
                    block.fc1.run(wide, &normed, rows, Some(self.spec.activation), threads);
                    block.fc2.add_to(&mut x, wide, rows, threads);
                }
                NormOrder::After => {
                    block.norm1.run(&mut normed, &x, threads);
                    block.fc1.run(wide, &normed, rows, Some(self.spec.activation), threads);
                    block.fc2.add_to(&mut normed, wide, rows, threads);
                    block.norm2.run(&mut x, &normed, threads);
                }
            }
        }
        x
    }
}

fn select(x: Vec<f32>, hidden: usize, wanted: Wanted<'_>) -> Vec<f32> {
    match wanted {
        Wanted::All => x,
        Wanted::Rows(rows) => {
            rows.iter().flat_map(|row| x[row * hidden..][..hidden].iter().copied()).collect()
        }
    }
}
