//! The transformer blocks of a tower.
//!
//! Owns: attention and feed-forward layers with their residuals, normalised before or after each, and
//! that the last block finishes only the rows that are pooled. Deliberately absent: embeddings, pooling
//! and heads.

use diptych_encoder::anatomy::{BlockParts, NormOrder, TransformerSpec};

use super::Open;
use super::spans::{linear, norm};
use crate::params::{Layout, Params};
use crate::tape::{Columns, LinearSpan, Node, NormSpan, Tape, Visible};

/// All blocks of a tower.
#[derive(Debug, Clone)]
pub(super) struct Blocks {
    blocks: Vec<Block>,
    /// Queries, and keys and values, of the last block: not computed for the same rows.
    split: (LinearSpan, LinearSpan),
    spec: TransformerSpec,
}

#[derive(Debug, Clone)]
struct Block {
    norm1: NormSpan,
    qkv: LinearSpan,
    out: LinearSpan,
    norm2: NormSpan,
    fc1: LinearSpan,
    fc2: LinearSpan,
}

/// The rows of a chunk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent<'a> {
    /// Samples in the chunk.
    pub samples: usize,
    /// Rows per sample, padding included.
    pub tokens: usize,
    /// Whether a row sees only itself and earlier ones.
    pub causal: bool,
    /// Rows of each sample that are no padding; None: all.
    pub lengths: Option<&'a [usize]>,
    /// The row of each sample, counted within it, that is wanted of the last block; None: all.
    pub picks: Option<&'a [usize]>,
}

impl Blocks {
    pub fn new(layout: &mut Layout, parts: &[BlockParts], spec: &TransformerSpec, open: Open) -> Self {
        let block = |(i, parts)| Block::new(layout, parts, spec, open.block(i, spec.layers));
        let blocks: Vec<Block> = parts.iter().enumerate().map(block).collect();
        let hidden = spec.hidden;
        let last = &blocks.last().expect("a transformer has blocks").qkv;
        let split = (last.outputs(0, hidden), last.outputs(hidden, 2 * hidden));
        Self { blocks, split, spec: spec.clone() }
    }

    /// Runs all blocks on `x`, `[samples * tokens, hidden]`: of the same shape, or `[samples, hidden]`
    /// with picks. Values since `mark` are let go where nothing open needs them.
    pub fn forward(
        &self,
        tape: &mut Tape,
        params: &Params<'_>,
        mut x: Node,
        e: Extent<'_>,
        mark: usize,
    ) -> Node {
        for (i, block) in self.blocks.iter().enumerate() {
            let normed = match self.spec.norm {
                NormOrder::Before => tape.layer_norm(x, &block.norm1, params),
                NormOrder::After => x,
            };
            let picks = e.picks.filter(|_| i + 1 == self.blocks.len());
            let attended = match picks {
                Some(picks) => self.attention_at(tape, params, normed, e, picks),
                None => self.attention(tape, params, normed, e, block),
            };
            x = picks.map_or(x, |picks| pick(tape, x, picks, e.tokens));
            x = block.after_attention(tape, params, x, attended, &self.spec);
            tape.release(mark, x);
        }
        x
    }

    fn heads(&self) -> (usize, usize) {
        (self.spec.heads, self.spec.hidden)
    }

    /// Of all rows to all rows.
    fn attention(&self, tape: &mut Tape, params: &Params<'_>, x: Node, e: Extent<'_>, block: &Block) -> Node {
        let hidden = self.spec.hidden;
        let qkv = tape.linear(x, &block.qkv, params);
        let columns = [0, hidden, 2 * hidden].map(|first| Columns { node: qkv, first });
        let visible = Visible { causal: e.causal, lengths: e.lengths };
        tape.attention(columns, e.samples, self.heads(), visible)
    }

    /// In the last block, of one row per sample to all of them.
    fn attention_at(
        &self,
        tape: &mut Tape,
        params: &Params<'_>,
        x: Node,
        e: Extent<'_>,
        picks: &[usize],
    ) -> Node {
        let (queries, keys_values) = &self.split;
        let kv = tape.linear(x, keys_values, params);
        let q = pick(tape, x, picks, e.tokens);
        let q = tape.linear(q, queries, params);
        // What a causal mask leaves a query is decided by its position alone.
        let seen: Vec<usize> = picks.iter().map(|pick| pick + 1).collect();
        let lengths = if e.causal { Some(seen.as_slice()) } else { e.lengths };
        let at = |node, first| Columns { node, first };
        let columns = [at(q, 0), at(kv, 0), at(kv, self.spec.hidden)];
        tape.attention(columns, e.samples, self.heads(), Visible { causal: false, lengths })
    }
}

impl Block {
    fn new(layout: &mut Layout, parts: &BlockParts, spec: &TransformerSpec, open: bool) -> Self {
        let width = spec.hidden as f32;
        let depth = (2.0 * spec.layers as f32).powf(-0.5);
        let (std_in, std_out, std_fc) =
            (width.powf(-0.5) * depth, width.powf(-0.5), (2.0 * width).powf(-0.5));
        Self {
            norm1: norm(layout, &parts.norm1, open),
            qkv: linear(layout, &parts.qkv, std_in, open),
            out: linear(layout, &parts.out, std_out, open),
            fc1: linear(layout, &parts.fc1, std_fc, open),
            fc2: linear(layout, &parts.fc2, std_in, open),
            norm2: norm(layout, &parts.norm2, open),
        }
    }

    /// What follows attention: its residual `x`, the feed-forward layer, and the norms.
    fn after_attention(
        &self,
        tape: &mut Tape,
        params: &Params<'_>,
        x: Node,
        attended: Node,
        spec: &TransformerSpec,
    ) -> Node {
        let before = spec.norm == NormOrder::Before;
        let mut x = tape.linear_add(attended, &self.out, x, params);
        if !before {
            x = tape.layer_norm(x, &self.norm1, params);
        }
        let normed = if before { tape.layer_norm(x, &self.norm2, params) } else { x };
        let wide = tape.linear(normed, &self.fc1, params);
        let wide = tape.activation(wide, spec.activation);
        let x = tape.linear_add(wide, &self.fc2, x, params);
        if before { x } else { tape.layer_norm(x, &self.norm2, params) }
    }
}

/// One row of every sample.
fn pick(tape: &mut Tape, x: Node, picks: &[usize], tokens: usize) -> Node {
    tape.gather(x, picks.iter().enumerate().map(|(sample, pick)| sample * tokens + pick))
}
