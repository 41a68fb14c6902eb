//! Multi-head attention on a tape.
//!
//! Owns: `softmax(q k^T / sqrt(d)) v` per sample and head with its gradients, and what a query sees.
//! There may be fewer queries than keys: a last block is needed at the pooled positions alone.
//! Deliberately absent: the projections around it (see `linear`).

use diptych_kernels::{AttentionShape, Mask, Mat, MatMut, Threads, cross_attention};

use super::buffers::Buffer;
use super::{Back, Entry, Node, Op, Tape};
use crate::ops::{matmul, softmax, softmax_backward};

/// Some columns of a node, as many as there are in all heads together, from `first` on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Columns {
    /// The node.
    pub node: Node,
    /// The first of the columns.
    pub first: usize,
}

/// Which keys of its sample a query sees.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Visible<'a> {
    /// Query i sees keys 0 to i only.
    pub causal: bool,
    /// Keys that are seen in each sample at most, at least 1; those behind them are padding. None: all.
    pub lengths: Option<&'a [usize]>,
}

/// See [`Tape::attention`].
#[derive(Debug)]
pub(super) struct Attention {
    pub(super) q: Columns,
    pub(super) k: Columns,
    v: Columns,
    e: Extent,
}

#[derive(Debug, Clone, Copy)]
struct Extent {
    samples: usize,
    queries: usize,
    keys: usize,
    heads: usize,
    /// Width of one head.
    size: usize,
}

impl Extent {
    fn scale(&self) -> f32 {
        (self.size as f32).powf(-0.5)
    }

    /// Each sample with each head.
    fn heads(&self) -> impl Iterator<Item = (usize, usize)> {
        let heads = self.heads;
        (0..self.samples * heads).map(move |i| (i / heads, i % heads))
    }

    /// Length of the weights of one head.
    fn weights(&self) -> usize {
        self.queries * self.keys
    }
}

/// Columns of rows that belong to samples.
#[derive(Clone, Copy)]
struct View<'a> {
    data: &'a [f32],
    at: At,
}

/// Where the columns of a node lie.
#[derive(Clone, Copy)]
struct At {
    first: usize,
    stride: usize,
    /// Rows of a sample.
    rows: usize,
    /// Width of a head.
    size: usize,
}

impl At {
    /// Where a sample's rows of a head begin.
    fn of(self, (sample, head): (usize, usize)) -> usize {
        sample * self.rows * self.stride + self.first + head * self.size
    }
}

impl<'a> View<'a> {
    fn new(data: &'a [f32], first: usize, stride: usize, rows: usize, e: Extent) -> Self {
        Self { data, at: At { first, stride, rows, size: e.size } }
    }

    /// One head of one sample.
    fn head(self, which: (usize, usize)) -> Mat<'a> {
        Mat::new(&self.data[self.at.of(which)..], self.at.stride)
    }
}

impl Tape {
    /// Attention of `heads` heads, `width` columns together, over samples of equally many rows: `q` has
    /// some rows per sample and `k` and `v` have some. The result has a row per row of `q`.
    ///
    /// # Panics
    /// If the rows do not make up `samples`, or the columns are not there.
    pub fn attention(
        &mut self,
        [q, k, v]: [Columns; 3],
        samples: usize,
        (heads, width): (usize, usize),
        visible: Visible<'_>,
    ) -> Node {
        let rows = |c: Columns| self.count(c.node);
        let (queries, keys) = (rows(q) / samples, rows(k) / samples);
        let e = Extent { samples, queries, keys, heads, size: width / heads };
        let whole = rows(q) == samples * queries && rows(k) == samples * keys && rows(v) == rows(k);
        assert!(whole, "rows of samples of one length");
        assert!(k.node == v.node, "keys and values side by side");
        assert!([q, k, v].iter().all(|c| c.first + width <= self.width(c.node)), "columns that are there");
        let needs = [q, k].iter().any(|c| self.needs(c.node));
        let mut out = self.pool.take(samples * queries * width);
        let kept = needs.then(|| self.pool.take(samples * heads * e.weights()));
        let view = |c: Columns, rows| View::new(self.rows(c.node), c.first, self.width(c.node), rows, e);
        let (q_view, k_view, v_view) = (view(q, queries), view(k, keys), view(v, keys));
        let kept = match kept {
            Some(mut weights) => {
                attend(&mut out, &mut weights, [q_view, k_view, v_view], e, visible);
                Some(weights)
            }
            None => {
                // Nothing comes back this way, so that the weights need not be held.
                let shape = AttentionShape { queries, ..AttentionShape::new(samples, keys, heads, e.size) };
                let mask = Mask { causal: visible.causal, lengths: visible.lengths };
                let [q, k, v] = [q_view, k_view, v_view].map(|view| view.head((0, 0)));
                cross_attention(MatMut::new(&mut out, width), q, k, v, shape, mask, Threads::One);
                None
            }
        };
        let node = self.push(Op::Attention(Attention { q, k, v, e }), width, out, needs);
        self.entries[node.0].kept = kept;
        node
    }
}

/// Writes the attention weights and what they mix.
fn attend(out: &mut [f32], weights: &mut [f32], [q, k, v]: [View<'_>; 3], e: Extent, visible: Visible<'_>) {
    let Extent { queries, keys, size, .. } = e;
    let to = At { first: 0, stride: e.heads * size, rows: queries, size };
    for ((sample, head), p) in e.heads().zip(weights.chunks_exact_mut(e.weights())) {
        let which = (sample, head);
        matmul(MatMut::new(p, keys), (queries, keys, size), q.head(which), k.head(which).t(), false);
        let length = visible.lengths.map_or(keys, |lengths| lengths[sample]);
        for (i, row) in p.chunks_exact_mut(keys).enumerate() {
            let seen = if visible.causal { length.min(i + 1) } else { length };
            softmax(row, seen, e.scale());
        }
        let out = MatMut::new(&mut out[to.of(which)..], to.stride);
        matmul(out, (queries, size, keys), Mat::new(p, keys), v.head(which), false);
    }
}

impl Attention {
    pub fn backward(&self, entry: &Entry, dy: Buffer, back: &mut Back<'_>) {
        let e = self.e;
        let fused = self.q.node == self.k.node;
        let (to_q, to_kv) = (back.needs(self.q.node), back.needs(self.k.node));
        let mut d_kv = to_kv.then(|| open(back, self.k.node, if fused { 3 } else { 2 }, e));
        let mut d_q = (to_q && !fused).then(|| open(back, self.q.node, 1, e));
        let mut dp = back.pool.take(e.weights());
        let weights = entry.kept.as_deref().expect("kept on the way forth");
        let view = |c: Columns, rows| {
            let entry = &back.before[c.node.0];
            View::new(entry.value(), c.first, entry.width, rows, e)
        };
        let (q, k, v) = (view(self.q, e.queries), view(self.k, e.keys), view(self.v, e.keys));
        let d = View::new(&dy, 0, e.heads * e.size, e.queries, e);
        for (which, p) in e.heads().zip(weights.chunks_exact(e.weights())) {
            let (many, one) = ((e.queries, e.size, e.keys), (e.keys, e.size, e.queries));
            let (p_view, d) = (Mat::new(p, e.keys), d.head(which));
            if let Some((d_kv, begun)) = &mut d_kv {
                let dv = MatMut::new(&mut d_kv[v.at.of(which)..], v.at.stride);
                matmul(dv, one, p_view.t(), d, *begun);
            }
            matmul(MatMut::new(&mut dp, e.keys), (e.queries, e.keys, e.size), d, v.head(which).t(), false);
            for (dp, p) in dp.chunks_exact_mut(e.keys).zip(p.chunks_exact(e.keys)) {
                softmax_backward(dp, p, e.scale());
            }
            let dp = Mat::new(&dp, e.keys);
            if let Some((d_q, begun)) = if fused { d_kv.as_mut() } else { d_q.as_mut() } {
                let dq = MatMut::new(&mut d_q[q.at.of(which)..], q.at.stride);
                matmul(dq, many, dp, k.head(which), *begun);
            }
            if let Some((d_kv, begun)) = &mut d_kv {
                let dk = MatMut::new(&mut d_kv[k.at.of(which)..], k.at.stride);
                matmul(dk, one, dp.t(), q.head(which), *begun);
            }
        }
        [dy, dp].into_iter().for_each(|buffer| back.pool.give(buffer));
        d_kv.into_iter().for_each(|(d, _)| back.close(self.k.node, d));
        d_q.into_iter().for_each(|(d, _)| back.close(self.q.node, d));
    }
}

/// A node's gradient and whether to add to it, given that `parts` blocks of columns will be written.
fn open(back: &mut Back<'_>, node: Node, parts: usize, e: Extent) -> (Buffer, bool) {
    let (mut d, begun) = back.open(node);
    let others = back.before[node.0].width != parts * e.heads * e.size;
    if others && !begun {
        d.fill(0.0);
    }
    (d, begun || others)
}
