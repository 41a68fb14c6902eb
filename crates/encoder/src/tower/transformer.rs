//! A stack of transformer blocks, forward only.
//!
//! Owns: multi-head self-attention and feed-forward layers with their residuals, normalised before
//! (CLIP, ViT, SigLIP) or after (BERT) each of them, and how a family's tensor names map to the parts
//! of a block. Does not own embeddings, pooling or heads.
//!
//! The last block finishes only the rows that are asked for.

use std::fmt;

use diptych_kernels::{Activation, AttentionShape, Mask, Threads, attention};
use rayon::prelude::*;
use serde::Serialize;

use super::layers::{Bias, LayerNorm, Linear};
use crate::error::LoadError;
use crate::precision::Precision;
use crate::weights::{Floats, Weights};

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
    pub hidden: usize,
    /// Width of the feed-forward layer.
    pub inner: usize,
    pub layers: usize,
    pub heads: usize,
    #[serde(serialize_with = "crate::activation::serialize")]
    pub activation: Activation,
    pub eps: f64,
    pub norm: NormOrder,
    /// Whether queries, keys and values have biases; all other layers have.
    pub qkv_bias: bool,
    /// Whether each addition to the residual stream is scaled per channel.
    pub layer_scale: bool,
    /// How the linear layers compute.
    pub precision: Precision,
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

/// Where queries, keys and values are stored.
#[derive(Debug, Clone, Copy)]
pub(crate) enum QkvNames {
    /// Three linear layers.
    Split([&'static str; 3]),
    /// One matrix of three blocks of rows, and its bias, under these full names.
    Joined { weight: &'static str, bias: &'static str },
}

/// A family's names for the parts of a block, below the block's own prefix.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockNames {
    pub(crate) qkv: QkvNames,
    pub(crate) out: &'static str,
    /// The norm of attention, and of the feed-forward layer.
    pub(crate) norms: [&'static str; 2],
    pub(crate) fc: [&'static str; 2],
    /// The scales of both additions, where there are any.
    pub(crate) scales: [&'static str; 2],
}

impl BlockNames {
    /// `CLIPEncoderLayer` and `SiglipEncoderLayer` of the transformers library.
    pub(crate) const CLIP: Self = Self {
        qkv: QkvNames::Split(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
        out: "self_attn.out_proj",
        norms: ["layer_norm1", "layer_norm2"],
        fc: ["mlp.fc1", "mlp.fc2"],
        scales: ["", ""],
    };
    /// `BertLayer`.
    pub(crate) const BERT: Self = Self {
        qkv: QkvNames::Split(["attention.self.query", "attention.self.key", "attention.self.value"]),
        out: "attention.output.dense",
        norms: ["attention.output.LayerNorm", "output.LayerNorm"],
        fc: ["intermediate.dense", "output.dense"],
        scales: ["", ""],
    };
    /// `ViTLayer`.
    pub(crate) const VIT: Self = Self {
        qkv: QkvNames::Split([
            "attention.attention.query",
            "attention.attention.key",
            "attention.attention.value",
        ]),
        out: "attention.output.dense",
        norms: ["layernorm_before", "layernorm_after"],
        fc: ["intermediate.dense", "output.dense"],
        scales: ["", ""],
    };
    /// `ResidualAttentionBlock` of OpenCLIP.
    pub(crate) const OPEN_CLIP: Self = Self {
        qkv: QkvNames::Joined { weight: "attn.in_proj_weight", bias: "attn.in_proj_bias" },
        out: "attn.out_proj",
        norms: ["ln_1", "ln_2"],
        fc: ["mlp.c_fc", "mlp.c_proj"],
        scales: ["ls_1.gamma", "ls_2.gamma"],
    };
    /// `Block` of timm's vision transformer.
    pub(crate) const TIMM: Self = Self {
        qkv: QkvNames::Joined { weight: "attn.qkv.weight", bias: "attn.qkv.bias" },
        out: "attn.proj",
        norms: ["norm1", "norm2"],
        fc: ["mlp.fc1", "mlp.fc2"],
        scales: ["ls1.gamma", "ls2.gamma"],
    };
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
    fn load(
        weights: &Weights,
        prefix: &str,
        names: &BlockNames,
        spec: &TransformerSpec,
    ) -> Result<Self, LoadError> {
        let (hidden, inner) = (spec.hidden, spec.inner);
        let norm =
            |i: usize| LayerNorm::load(weights, &format!("{prefix}{}", names.norms[i]), hidden, spec.eps);
        let [fc1, fc2] = names.fc.map(|name| format!("{prefix}{name}"));
        let [scale1, scale2] = names.scales.map(|name| format!("{prefix}{name}"));
        Ok(Self {
            norm1: norm(0)?,
            qkv: qkv(weights, prefix, names.qkv, spec)?,
            out: scaled(weights, &format!("{prefix}{}", names.out), (hidden, hidden), &scale1, spec)?,
            norm2: norm(1)?,
            fc1: Linear::load_in(weights, &fc1, (inner, hidden), Bias::With, spec.precision)?,
            fc2: scaled(weights, &fc2, (hidden, inner), &scale2, spec)?,
        })
    }
}

fn qkv(
    weights: &Weights,
    prefix: &str,
    names: QkvNames,
    spec: &TransformerSpec,
) -> Result<Linear, LoadError> {
    let hidden = spec.hidden;
    match names {
        QkvNames::Split(parts) => {
            let take = |name: &str, shape: &[usize]| weights.take(&format!("{prefix}{name}"), shape);
            let matrices = parts
                .iter()
                .map(|part| Ok((take(&format!("{part}.weight"), &[hidden, hidden])?, hidden)))
                .collect::<Result<Vec<(Floats, usize)>, LoadError>>()?;
            let mut bias = Vec::new();
            if spec.qkv_bias {
                for part in parts {
                    bias.extend_from_slice(&take(&format!("{part}.bias"), &[hidden])?);
                }
            }
            Ok(Linear::joined(&matrices, hidden, spec.qkv_bias.then_some(bias), spec.precision))
        }
        QkvNames::Joined { weight, bias } => {
            let weight = weights.take(&format!("{prefix}{weight}"), &[3 * hidden, hidden])?;
            let bias = match spec.qkv_bias {
                true => Some(weights.take(&format!("{prefix}{bias}"), &[3 * hidden])?),
                false => None,
            };
            Ok(Linear::with_precision(&weight, (3 * hidden, hidden), bias.as_deref(), spec.precision))
        }
    }
}

/// A layer whose output is added to the residual stream, with its scale multiplied in.
fn scaled(
    weights: &Weights,
    name: &str,
    (out, input): (usize, usize),
    scale: &str,
    spec: &TransformerSpec,
) -> Result<Linear, LoadError> {
    if !spec.layer_scale {
        return Linear::load_in(weights, name, (out, input), Bias::With, spec.precision);
    }
    let gamma = weights.take(scale, &[out])?;
    let weight = weights.take(&format!("{name}.weight"), &[out, input])?;
    let bias = weights.take(&format!("{name}.bias"), &[out])?;
    let weight: Vec<f32> =
        weight.chunks_exact(input).zip(&*gamma).flat_map(|(row, g)| row.iter().map(move |w| w * g)).collect();
    let bias: Vec<f32> = bias.iter().zip(&*gamma).map(|(b, g)| b * g).collect();
    Ok(Linear::with_precision(&weight, (out, input), Some(&bias), spec.precision))
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
    /// Loads block `i` from below `prefix(i)`.
    pub(crate) fn load(
        weights: &Weights,
        prefix: impl Fn(usize) -> String + Sync,
        names: &BlockNames,
        spec: TransformerSpec,
    ) -> Result<Self, LoadError> {
        // One block after another would leave all but one core waiting for the disk.
        let blocks = (0..spec.layers)
            .into_par_iter()
            .map(|i| Block::load(weights, &prefix(i), names, &spec))
            .collect::<Vec<_>>();
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
