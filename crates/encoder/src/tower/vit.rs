//! Pixels to the shared space, by a vision transformer.
//!
//! Owns: patches and their embedding, the class token, positions, the pooling of patch states, and the
//! way from there to the shared space. Does not own decoding, preprocessing or normalisation of the
//! result.

use std::fmt;

use diptych_kernels::{Activation, AttentionShape, Mask, Mat, MatMut, Threads, cross_attention};
use serde::Serialize;

use super::layers::{Head, LayerNorm, Linear};
use super::transformer::{Transformer, TransformerSpec, Wanted};
use super::{ConvStem, in_groups, mean_of_rows};
use crate::anatomy::{NormParts, PoolParts, VitParts};
use crate::error::LoadError;
use crate::precision::Precision;
use crate::weights::Weights;

/// What stands for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The class token.
    Class,
    /// The mean over the patches, without the class token.
    MeanOfPatches,
    /// A learnt query that attends to all patches (SigLIP's "MAP" head).
    Attention,
}

impl fmt::Display for Pooling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Class => "at the class token",
            Self::MeanOfPatches => "mean over the patches",
            Self::Attention => "by a learnt query that attends to all patches",
        })
    }
}

/// What decides the arithmetic of a vision transformer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VitSpec {
    /// The blocks.
    pub transformer: TransformerSpec,
    /// Height and width of the input in pixels.
    pub image: (usize, usize),
    /// Height and width of a patch in pixels.
    pub patch: (usize, usize),
    /// Whether a learnt row comes before those of the patches.
    pub class_token: bool,
    /// What stands for the image.
    pub pooling: Pooling,
    /// Whether the final norm comes after pooling instead of before.
    pub norm_after_pooling: bool,
}

impl VitSpec {
    /// Patches along the height and the width. Pixels beyond the last whole patch are not seen.
    pub fn grid(&self) -> (usize, usize) {
        (self.image.0 / self.patch.0, self.image.1 / self.patch.1)
    }

    /// Positions of the tower: all patches, and the class token if there is one.
    pub fn positions(&self) -> usize {
        self.grid().0 * self.grid().1 + usize::from(self.class_token)
    }
}

/// From pixels to one row per patch.
enum PatchEmbedding {
    /// `[hidden, 3 * patch height * patch width]`: a convolution whose stride is its kernel.
    Linear(Linear),
    /// Several convolutions.
    Stem(Box<ConvStem>),
}

/// The vision transformer of a model.
pub(crate) struct Vit {
    pub(crate) spec: VitSpec,
    patch_embedding: PatchEmbedding,
    /// The class token with its position added.
    class_row: Option<Vec<f32>>,
    /// `[patches, hidden]`.
    patch_positions: Vec<f32>,
    pre_norm: Option<LayerNorm>,
    blocks: Transformer,
    post_norm: Option<LayerNorm>,
    attention_pool: Option<AttentionPool>,
    head: Head,
}

impl Vit {
    /// Takes the tensors of `parts`.
    ///
    /// # Errors
    /// [`LoadError`] naming the tensor.
    pub(crate) fn assemble(weights: &Weights, parts: VitParts) -> Result<Self, LoadError> {
        let patches = Linear::assemble(weights, &parts.patch, Precision::F32)?;
        Self::behind(PatchEmbedding::Linear(patches), weights, parts)
    }

    /// [`Vit::assemble`] behind a stem of convolutions below `prefix`, the last of which is the
    /// `patch` of `parts`.
    pub(crate) fn assemble_behind_stem(
        weights: &Weights,
        prefix: &str,
        parts: VitParts,
    ) -> Result<Self, LoadError> {
        let stem = ConvStem::load(weights, prefix, parts.spec.transformer.hidden)?;
        Self::behind(PatchEmbedding::Stem(Box::new(stem)), weights, parts)
    }

    fn behind(
        patch_embedding: PatchEmbedding,
        weights: &Weights,
        parts: VitParts,
    ) -> Result<Self, LoadError> {
        let transformer = parts.spec.transformer.with(weights);
        let norm = |parts: &Option<NormParts>| {
            parts.as_ref().map(|parts| LayerNorm::assemble(weights, parts)).transpose()
        };
        let positions = weights.rows(&parts.positions)?;
        let class = parts.class.as_ref().map(|source| weights.rows(source)).transpose()?;
        let own = if parts.class_has_position { transformer.hidden } else { 0 };
        let (own, patch_positions) = positions.split_at(own);
        let class_row = class.map(|class| match parts.class_has_position {
            true => class.iter().zip(own).map(|(c, p)| c + p).collect(),
            false => class.to_vec(),
        });
        let pool = parts.pool.as_ref();
        Ok(Self {
            patch_embedding,
            class_row,
            patch_positions: patch_positions.to_vec(),
            pre_norm: norm(&parts.pre_norm)?,
            blocks: Transformer::assemble(weights, &parts.blocks, transformer.clone())?,
            post_norm: norm(&parts.post_norm)?,
            attention_pool: pool
                .map(|pool| AttentionPool::assemble(weights, pool, &transformer))
                .transpose()?,
            head: Head::assemble(weights, &parts.head)?,
            spec: VitSpec { transformer, ..parts.spec },
        })
    }

    /// Dimensions of the output.
    pub(crate) fn out(&self) -> usize {
        self.head.out(self.spec.transformer.hidden)
    }

    /// Projected, not normalised: `[images, out]`. Each image is `[3, height, width]`.
    pub(crate) fn forward(&self, images: &[&[f32]]) -> Vec<f32> {
        in_groups(images, |_| self.spec.positions(), |group, threads| self.group(group, threads))
    }

    fn group(&self, images: &[&[f32]], threads: Threads) -> Vec<f32> {
        let (hidden, positions) = (self.spec.transformer.hidden, self.spec.positions());
        let mut x = self.embed(images, threads);
        if let Some(norm) = &self.pre_norm {
            x = norm.forward(&x, threads);
        }
        let classes: Vec<usize> = (0..images.len()).map(|i| i * positions).collect();
        let wanted = match self.spec.pooling {
            Pooling::Class => Wanted::Rows(&classes),
            Pooling::MeanOfPatches | Pooling::Attention => Wanted::All,
        };
        let mut x = self.blocks.forward(x, images.len(), Mask::default(), wanted, threads);
        let norm = |x: Vec<f32>| match &self.post_norm {
            Some(norm) => norm.forward(&x, threads),
            None => x,
        };
        if !self.spec.norm_after_pooling {
            x = norm(x);
        }
        x = match (self.spec.pooling, &self.attention_pool) {
            (Pooling::Attention, Some(pool)) => pool.forward(&x, images.len(), positions, threads),
            (Pooling::MeanOfPatches, _) => {
                let skip = usize::from(self.spec.class_token) * hidden;
                x.chunks_exact(positions * hidden)
                    .flat_map(|states| mean_of_rows(&states[skip..], hidden))
                    .collect()
            }
            _ => x,
        };
        if self.spec.norm_after_pooling {
            x = norm(x);
        }
        self.head.forward(x, images.len(), threads)
    }

    /// `[images * positions, hidden]`.
    fn embed(&self, images: &[&[f32]], threads: Threads) -> Vec<f32> {
        let hidden = self.spec.transformer.hidden;
        let (rows, columns) = self.spec.grid();
        let patches = images.len() * rows * columns;
        let embedded = match &self.patch_embedding {
            PatchEmbedding::Linear(layer) => layer.forward(&self.patches(images), patches, threads),
            PatchEmbedding::Stem(stem) => stem.forward(images, self.spec.image, threads),
        };
        let mut x = Vec::with_capacity(images.len() * self.spec.positions() * hidden);
        for image in embedded.chunks_exact(rows * columns * hidden) {
            x.extend(self.class_row.iter().flatten());
            x.extend(image.iter().zip(&self.patch_positions).map(|(v, p)| v + p));
        }
        x
    }

    /// Each patch as one row in the order of the convolution's kernel: channel, row, column.
    fn patches(&self, images: &[&[f32]]) -> Vec<f32> {
        let VitSpec { image: (height, width), patch: (high, wide), .. } = self.spec;
        let (rows, columns) = self.spec.grid();
        let mut out = Vec::with_capacity(images.len() * rows * columns * 3 * high * wide);
        for image in images {
            for (top, left) in (0..rows * columns).map(|i| (i / columns * high, i % columns * wide)) {
                for (c, y) in (0..3 * high).map(|i| (i / high, i % high)) {
                    let at = (c * height + top + y) * width + left;
                    out.extend_from_slice(&image[at..at + wide]);
                }
            }
        }
        out
    }
}

/// Multi-head attention of one learnt query over all positions, then a residual feed-forward layer.
struct AttentionPool {
    /// The projected query, the same for every image.
    query: Vec<f32>,
    key_value: Linear,
    out: Linear,
    norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    heads: usize,
    activation: Activation,
}

impl AttentionPool {
    fn assemble(weights: &Weights, parts: &PoolParts, spec: &TransformerSpec) -> Result<Self, LoadError> {
        let linear = |parts| Linear::assemble(weights, parts, Precision::F32);
        let probe = weights.rows(&parts.probe)?;
        Ok(Self {
            query: linear(&parts.query)?.forward(&probe, 1, Threads::One),
            key_value: linear(&parts.key_value)?,
            out: linear(&parts.out)?,
            norm: LayerNorm::assemble(weights, &parts.norm)?,
            fc1: linear(&parts.fc1)?,
            fc2: linear(&parts.fc2)?,
            heads: spec.heads,
            activation: spec.activation,
        })
    }

    /// `[images, hidden]` from `[images * positions, hidden]`.
    fn forward(&self, x: &[f32], images: usize, positions: usize, threads: Threads) -> Vec<f32> {
        let hidden = self.query.len();
        let key_value = self.key_value.forward(x, images * positions, threads);
        let queries = self.query.repeat(images);
        let shape = AttentionShape {
            queries: 1,
            ..AttentionShape::new(images, positions, self.heads, hidden / self.heads)
        };
        let mut attended = vec![0f32; images * hidden];
        cross_attention(
            MatMut::new(&mut attended, hidden),
            Mat::new(&queries, hidden),
            Mat::new(&key_value, 2 * hidden),
            Mat::new(&key_value[hidden..], 2 * hidden),
            shape,
            Mask::default(),
            threads,
        );
        let mut pooled = self.out.forward(&attended, images, threads);
        let normed = self.norm.forward(&pooled, threads);
        let mut wide = vec![0f32; images * self.fc1.out()];
        self.fc1.run(&mut wide, &normed, images, Some(self.activation), threads);
        self.fc2.add_to(&mut pooled, &wide, images, threads);
        pooled
    }
}
