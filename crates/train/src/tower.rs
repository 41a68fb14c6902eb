//! An image tower and a text tower in the shape of `CLIPModel`, forward and backward.
//!
//! Owns: embeddings, the stack of blocks, pooling, final norm and projection. The gradients are
//! written by hand: a general tape costs several passes over memory per operation, and the set of
//! operations here is small and fixed. Deliberately absent: normalisation to unit length and the
//! loss (see `loss`), and threads: a caller runs one [`Pass`] per chunk of samples.

use diptych_kernels::{Mat, MatMut, matmul};

use crate::block::{Block, Extent, Kept, Scratch, add_product};
use crate::ops::{add_assign, layer_norm, layer_norm_backward};
use crate::params::{Init, Layout, Span};

/// One tower: the layout of its parameters and how to run them.
#[derive(Debug, Clone)]
pub(crate) struct Tower {
    layout: Layout,
    width: usize,
    heads: usize,
    projection_dim: usize,
    entry: Entry,
    blocks: Vec<Block>,
    final_norm: (Span, Span),
    projection: Span,
}

/// The first layer: where inputs become rows of the residual stream.
#[derive(Debug, Clone)]
enum Entry {
    Patches { image: usize, patch: usize, class: Span, weight: Span, positions: Span, norm: (Span, Span) },
    Tokens { table: Span, positions: Span, pad: u32 },
}

/// The extents of a tower's transformer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TowerShape {
    /// Width of the residual stream.
    pub width: usize,
    /// Blocks.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Dimensions of the shared space.
    pub projection_dim: usize,
}

/// The input of one chunk.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Input<'a> {
    /// Normalised images, `[samples, 3, size, size]`.
    Images(&'a [f32]),
    /// Token ids; the last id of each text is its end token and is pooled.
    Texts(&'a [&'a [u32]]),
}

/// Everything one chunk keeps between forward and backward. Reused from step to step.
#[derive(Debug, Default)]
pub(crate) struct Pass {
    samples: usize,
    tokens: usize,
    /// Patches of the images, `[samples * patches, 3 * patch * patch]`.
    patches: Vec<f32>,
    /// Token ids of the texts, padded, `[samples, tokens]`.
    ids: Vec<u32>,
    /// The embedded image tokens before the first norm.
    embedded: Vec<f32>,
    /// The token that is pooled, per sample.
    pick: Vec<usize>,
    /// The input of every block, and behind it the pooled rows.
    stream: Vec<Vec<f32>>,
    kept: Vec<Kept>,
    pooled: Vec<f32>,
    scratch: Scratch,
}

const CHANNELS: usize = 3;

impl Tower {
    /// The image tower of a `CLIPModel` over square images of `image` pixels in patches of `patch`.
    pub fn vision(image: usize, patch: usize, shape: TowerShape) -> Self {
        let w = shape.width;
        let std = (w as f32).powf(-0.5);
        let patches = (image / patch).pow(2);
        let mut layout = Layout::default();
        let at = "vision_model.embeddings";
        let class = layout.push(format!("{at}.class_embedding"), &[w], Init::Normal(std), false);
        let weight = layout.push(
            format!("{at}.patch_embedding.weight"),
            &[w, CHANNELS, patch, patch],
            Init::Normal(0.02),
            true,
        );
        let positions = layout.push(
            format!("{at}.position_embedding.weight"),
            &[patches + 1, w],
            Init::Normal(0.02),
            false,
        );
        // The published checkpoints spell it so.
        let norm = layout.norm("vision_model.pre_layrnorm", w);
        let entry = Entry::Patches { image, patch, class, weight, positions, norm };
        Self::stack(layout, entry, shape, "vision_model", "post_layernorm", "visual_projection")
    }

    /// The text tower of a `CLIPModel`. Texts in a chunk are padded with `pad`, which no pooled
    /// token ever sees.
    pub fn text(vocab: usize, context: usize, pad: u32, shape: TowerShape) -> Self {
        let mut layout = Layout::default();
        let at = "text_model.embeddings";
        let size = [vocab, shape.width];
        let table = layout.push(format!("{at}.token_embedding.weight"), &size, Init::Normal(0.02), true);
        let size = [context, shape.width];
        let positions =
            layout.push(format!("{at}.position_embedding.weight"), &size, Init::Normal(0.01), false);
        let entry = Entry::Tokens { table, positions, pad };
        Self::stack(layout, entry, shape, "text_model", "final_layer_norm", "text_projection")
    }

    fn stack(
        mut layout: Layout,
        entry: Entry,
        s: TowerShape,
        at: &str,
        norm: &str,
        projection: &str,
    ) -> Self {
        let blocks = (0..s.layers)
            .map(|i| Block::push(&mut layout, &format!("{at}.encoder.layers.{i}"), s.width, s.layers))
            .collect();
        let final_norm = layout.norm(&format!("{at}.{norm}"), s.width);
        let std = (s.width as f32).powf(-0.5);
        let projection = layout.matrix(format!("{projection}.weight"), s.projection_dim, s.width, std);
        let (width, heads, projection_dim) = (s.width, s.heads, s.projection_dim);
        Self { layout, width, heads, projection_dim, entry, blocks, final_norm, projection }
    }

    /// The tensors of this tower.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Dimensions of the shared space.
    pub fn projection_dim(&self) -> usize {
        self.projection_dim
    }

    /// Embeds a chunk into `out`, `[samples, projection_dim]`, not yet of unit length.
    pub fn forward(&self, params: &[f32], input: Input<'_>, pass: &mut Pass, out: &mut [f32]) {
        pass.stream.resize_with(self.blocks.len() + 1, Vec::new);
        pass.kept.resize_with(self.blocks.len(), Kept::default);
        self.enter(params, input, pass);
        let e = self.extent(pass);
        for (i, block) in self.blocks.iter().enumerate() {
            let (before, after) = pass.stream.split_at_mut(i + 1);
            let pick = self.pick_in(i, &pass.pick);
            block.forward(params, e, pick, &before[i], &mut after[0], &mut pass.kept[i], &mut pass.scratch);
        }
        let last = &pass.stream[self.blocks.len()];
        pass.pooled.resize(last.len(), 0.0);
        layer_norm(&mut pass.pooled, last, self.final_norm.0.of(params), self.final_norm.1.of(params));
        out.fill(0.0);
        add_product(out, &pass.pooled, self.projection.of(params), self.width, self.projection_dim);
    }

    /// Adds the gradients of the parameters to `grads`, given `d_out`, the gradient of what
    /// [`Tower::forward`] wrote for the same pass.
    pub fn backward(&self, params: &[f32], pass: &mut Pass, d_out: &[f32], grads: &mut [f32]) {
        let (w, n, p) = (self.width, pass.samples, self.projection_dim);
        let weight = MatMut::new(self.projection.of_mut(grads), w);
        matmul(weight, (p, w, n), Mat::new(d_out, p).t(), Mat::new(&pass.pooled, w), true);
        let mut d_pooled = vec![0f32; n * w];
        let projection = Mat::new(self.projection.of(params), w);
        matmul(MatMut::new(&mut d_pooled, w), (n, w, p), Mat::new(d_out, p), projection, false);
        let mut d = vec![0f32; n * w];
        let (d_weight, d_bias) = self.final_norm.0.pair_mut(self.final_norm.1, grads);
        let last = &pass.stream[self.blocks.len()];
        layer_norm_backward(
            &mut d,
            d_weight,
            d_bias,
            &d_pooled,
            last,
            self.final_norm.0.of(params),
            crate::ops::LAYER_NORM_EPS,
        );
        let e = self.extent(pass);
        for (i, block) in self.blocks.iter().enumerate().rev() {
            let pick = self.pick_in(i, &pass.pick);
            let (x, kept) = (&pass.stream[i], &pass.kept[i]);
            block.backward(params, grads, e, pick, x, &mut d, kept, &mut pass.scratch);
        }
        self.leave(params, grads, pass, &d);
    }

    /// Only the last block works on the pooled rows alone.
    fn pick_in<'a>(&self, block: usize, pick: &'a [usize]) -> Option<&'a [usize]> {
        (block + 1 == self.blocks.len()).then_some(pick)
    }

    fn extent(&self, pass: &Pass) -> Extent {
        let causal = matches!(self.entry, Entry::Tokens { .. });
        Extent { samples: pass.samples, tokens: pass.tokens, width: self.width, heads: self.heads, causal }
    }

    /// Fills the input of the first block.
    fn enter(&self, params: &[f32], input: Input<'_>, pass: &mut Pass) {
        let w = self.width;
        match (&self.entry, input) {
            (Entry::Patches { image, patch, class, weight, positions, norm }, Input::Images(pixels)) => {
                let n = (image / patch).pow(2);
                pass.samples = pixels.len() / (CHANNELS * image * image);
                pass.tokens = n + 1;
                pass.pick.clear();
                pass.pick.resize(pass.samples, 0);
                cut_patches(&mut pass.patches, pixels, *image, *patch);
                let positions = positions.of(params);
                pass.embedded.resize(pass.samples * pass.tokens * w, 0.0);
                let per_patch = CHANNELS * patch * patch;
                for (sample, rows) in pass.embedded.chunks_exact_mut(pass.tokens * w).enumerate() {
                    rows.copy_from_slice(positions);
                    add_assign(&mut rows[..w], class.of(params));
                    let patches = &pass.patches[sample * n * per_patch..][..n * per_patch];
                    add_product(&mut rows[w..], patches, weight.of(params), per_patch, w);
                }
                let x = &mut pass.stream[0];
                x.resize(pass.embedded.len(), 0.0);
                layer_norm(x, &pass.embedded, norm.0.of(params), norm.1.of(params));
            }
            (Entry::Tokens { table, positions, pad }, Input::Texts(texts)) => {
                let longest = texts.iter().map(|ids| ids.len()).max().unwrap_or(1);
                (pass.samples, pass.tokens) = (texts.len(), longest);
                pass.pick.clear();
                pass.pick.extend(texts.iter().map(|ids| ids.len() - 1));
                pass.ids.clear();
                for ids in texts {
                    pass.ids.extend_from_slice(ids);
                    pass.ids.resize(pass.ids.len() + longest - ids.len(), *pad);
                }
                let (table, positions) = (table.of(params), positions.of(params));
                let x = &mut pass.stream[0];
                x.clear();
                for (at, &id) in pass.ids.iter().enumerate() {
                    let start = x.len();
                    x.extend_from_slice(&table[id as usize * w..][..w]);
                    add_assign(&mut x[start..], &positions[at % longest * w..][..w]);
                }
            }
            _ => unreachable!("each tower is fed its own modality by `model`"),
        }
    }

    /// Adds the gradients of the first layer, given the gradient `d` of the first block's input.
    fn leave(&self, params: &[f32], grads: &mut [f32], pass: &Pass, d: &[f32]) {
        let w = self.width;
        match &self.entry {
            Entry::Patches { patch, class, weight, positions, norm, .. } => {
                let mut d_embedded = vec![0f32; d.len()];
                let (d_weight, d_bias) = norm.0.pair_mut(norm.1, grads);
                layer_norm_backward(
                    &mut d_embedded,
                    d_weight,
                    d_bias,
                    d,
                    &pass.embedded,
                    norm.0.of(params),
                    crate::ops::LAYER_NORM_EPS,
                );
                let (n, k) = (pass.tokens - 1, CHANNELS * patch * patch);
                for (sample, rows) in d_embedded.chunks_exact(pass.tokens * w).enumerate() {
                    add_assign(positions.of_mut(grads), rows);
                    add_assign(class.of_mut(grads), &rows[..w]);
                    let patches = Mat::new(&pass.patches[sample * n * k..], k);
                    let rows = Mat::new(&rows[w..], w).t();
                    matmul(MatMut::new(weight.of_mut(grads), k), (w, k, n), rows, patches, true);
                }
            }
            Entry::Tokens { table, positions, .. } => {
                for (at, (&id, row)) in pass.ids.iter().zip(d.chunks_exact(w)).enumerate() {
                    // Nothing reads past the pooled token, so the rest has no gradient.
                    if at % pass.tokens > pass.pick[at / pass.tokens] {
                        continue;
                    }
                    add_assign(&mut table.of_mut(grads)[id as usize * w..][..w], row);
                    add_assign(&mut positions.of_mut(grads)[at % pass.tokens * w..][..w], row);
                }
            }
        }
    }
}

/// Lays out each patch as one row, channel by channel: the order of a convolution's weights.
fn cut_patches(out: &mut Vec<f32>, pixels: &[f32], image: usize, patch: usize) {
    out.clear();
    for sample in pixels.chunks_exact(CHANNELS * image * image) {
        for top in (0..image / patch * patch).step_by(patch) {
            for left in (0..image / patch * patch).step_by(patch) {
                for channel in sample.chunks_exact(image * image) {
                    for y in top..top + patch {
                        out.extend_from_slice(&channel[y * image + left..][..patch]);
                    }
                }
            }
        }
    }
}
