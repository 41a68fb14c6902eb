//! Pixels to the shared space, by a vision transformer.
//!
//! Owns: patches and their embedding, the class token, positions, and the pooling of patch states.
//! Deliberately absent: the blocks, and convolutional towers, which have no gradients here.

use diptych_encoder::anatomy::{PoolParts, TransformerSpec, VitParts, VitPooling, VitSpec};

use super::Open;
use super::blocks::{Blocks, Extent};
use super::spans::{Head, linear, norm, rows};
use crate::params::{Init, Layout, Params, Span};
use crate::tape::{Columns, LinearSpan, Node, NormSpan, Tape, Visible};

const CHANNELS: usize = 3;

/// An image tower.
#[derive(Debug, Clone)]
pub(crate) struct ImageTower {
    spec: VitSpec,
    patch: LinearSpan,
    class: Option<Span>,
    class_has_position: bool,
    positions: Span,
    pre_norm: Option<NormSpan>,
    blocks: Blocks,
    post_norm: Option<NormSpan>,
    pool: Option<Pool>,
    head: Head,
    out: usize,
}

impl ImageTower {
    /// Appends the tower's tensors to a layout.
    pub fn new(parts: &VitParts, open: Open, layout: &mut Layout) -> Self {
        let (spec, embeddings) = (parts.spec.clone(), open.embeddings());
        let std = (spec.transformer.hidden as f32).powf(-0.5);
        let row =
            |layout: &mut Layout, source, std| rows(layout, source, Init::Normal(std), false, embeddings);
        Self {
            class: parts.class.as_ref().map(|class| row(layout, class, std)),
            patch: linear(layout, &parts.patch, 0.02, embeddings),
            class_has_position: parts.class_has_position,
            positions: row(layout, &parts.positions, 0.02),
            pre_norm: parts.pre_norm.as_ref().map(|parts| norm(layout, parts, embeddings)),
            blocks: Blocks::new(layout, &parts.blocks, &spec.transformer, open),
            post_norm: parts.post_norm.as_ref().map(|parts| norm(layout, parts, open.head())),
            pool: parts.pool.as_ref().map(|parts| Pool::new(layout, parts, &spec.transformer, open.head())),
            head: Head::new(layout, &parts.head, open.head()),
            out: parts.out(),
            spec,
        }
    }

    /// Dimensions of the shared space.
    pub fn out(&self) -> usize {
        self.out
    }

    /// The layer that it ends with, if that is linear.
    pub fn last_layer(&self) -> Option<&LinearSpan> {
        self.head.last_layer()
    }

    /// Values of one image, `3 * height * width`.
    pub fn pixels(&self) -> usize {
        CHANNELS * self.spec.image.0 * self.spec.image.1
    }

    /// Embeds normalised images, `[samples, 3, height, width]`, into rows of the shared space, not yet
    /// of unit length.
    ///
    /// # Panics
    /// If the images are of another size.
    pub fn forward(&self, tape: &mut Tape, params: &Params<'_>, images: &[f32]) -> Node {
        assert!(images.len().is_multiple_of(self.pixels()), "whole images of this tower's size");
        let (spec, mark) = (&self.spec, tape.mark());
        let (samples, tokens) = (images.len() / self.pixels(), spec.positions());
        let mut x = self.embed(tape, params, images);
        if let Some(norm) = &self.pre_norm {
            x = tape.layer_norm(x, norm, params);
        }
        let classes = vec![0; samples];
        let picks = (spec.pooling == VitPooling::Class).then_some(classes.as_slice());
        let e = Extent { samples, tokens, causal: false, lengths: None, picks };
        x = self.blocks.forward(tape, params, x, e, mark);
        let norm = |tape: &mut Tape, x| match &self.post_norm {
            Some(norm) => tape.layer_norm(x, norm, params),
            None => x,
        };
        if !spec.norm_after_pooling {
            x = norm(tape, x);
        }
        x = match (spec.pooling, &self.pool) {
            (VitPooling::Attention, Some(pool)) => pool.forward(tape, params, x, samples),
            (VitPooling::MeanOfPatches, _) => {
                let first = usize::from(spec.class_token);
                tape.mean(x, (0..samples).map(|sample| sample * tokens + first..(sample + 1) * tokens))
            }
            _ => x,
        };
        if spec.norm_after_pooling {
            x = norm(tape, x);
        }
        x = self.head.forward(tape, params, x);
        tape.release(mark, x);
        x
    }

    /// The input of the first block or of the norm before it, `[samples * positions, hidden]`.
    fn embed(&self, tape: &mut Tape, params: &Params<'_>, images: &[f32]) -> Node {
        let (rows, columns) = self.spec.grid();
        let (patches, width) = (rows * columns, CHANNELS * self.spec.patch.0 * self.spec.patch.1);
        let len = images.len() / self.pixels() * patches * width;
        let x = tape.input_with(len, width, |out| cut_patches(out, images, &self.spec));
        let x = tape.linear(x, &self.patch, params);
        match self.class {
            Some(class) if self.class_has_position => {
                let x = tape.prepend(x, class, patches, params);
                tape.add_rows(x, self.positions, params)
            }
            Some(class) => {
                let x = tape.add_rows(x, self.positions, params);
                tape.prepend(x, class, patches, params)
            }
            None => tape.add_rows(x, self.positions, params),
        }
    }
}

/// Lays out each patch as one row, channel by channel: the order of a convolution's weights. Pixels
/// beyond the last whole patch are not seen.
fn cut_patches(out: &mut [f32], images: &[f32], spec: &VitSpec) {
    let VitSpec { image: (height, width), patch: (high, wide), .. } = *spec;
    let (rows, columns) = spec.grid();
    let mut runs = out.chunks_exact_mut(wide);
    for image in images.chunks_exact(CHANNELS * height * width) {
        for (top, left) in (0..rows * columns).map(|i| (i / columns * high, i % columns * wide)) {
            for channel in image.chunks_exact(height * width) {
                for (y, run) in (top..top + high).zip(&mut runs) {
                    run.copy_from_slice(&channel[y * width + left..][..wide]);
                }
            }
        }
    }
}

/// Attention of one learnt query over all positions, then a residual feed-forward layer.
#[derive(Debug, Clone)]
struct Pool {
    probe: Span,
    query: LinearSpan,
    key_value: LinearSpan,
    out: LinearSpan,
    norm: NormSpan,
    fc1: LinearSpan,
    fc2: LinearSpan,
    spec: TransformerSpec,
}

impl Pool {
    fn new(layout: &mut Layout, parts: &PoolParts, spec: &TransformerSpec, open: bool) -> Self {
        let std = (spec.hidden as f32).powf(-0.5);
        Self {
            probe: rows(layout, &parts.probe, Init::Normal(std), false, open),
            query: linear(layout, &parts.query, std, open),
            key_value: linear(layout, &parts.key_value, std, open),
            out: linear(layout, &parts.out, std, open),
            norm: norm(layout, &parts.norm, open),
            fc1: linear(layout, &parts.fc1, std, open),
            fc2: linear(layout, &parts.fc2, (spec.inner as f32).powf(-0.5), open),
            spec: spec.clone(),
        }
    }

    /// `[samples, hidden]` from `[samples * positions, hidden]`.
    fn forward(&self, tape: &mut Tape, params: &Params<'_>, x: Node, samples: usize) -> Node {
        let hidden = self.spec.hidden;
        let probe = tape.parameter(self.probe, hidden, params);
        let query = tape.linear(probe, &self.query, params);
        let query = tape.gather(query, std::iter::repeat_n(0, samples));
        let kv = tape.linear(x, &self.key_value, params);
        let at = |node, first| Columns { node, first };
        let columns = [at(query, 0), at(kv, 0), at(kv, hidden)];
        let attended = tape.attention(columns, samples, (self.spec.heads, hidden), Visible::default());
        let pooled = tape.linear(attended, &self.out, params);
        let normed = tape.layer_norm(pooled, &self.norm, params);
        let wide = tape.linear(normed, &self.fc1, params);
        let wide = tape.activation(wide, self.spec.activation);
        tape.linear_add(wide, &self.fc2, pooled, params)
    }
}
