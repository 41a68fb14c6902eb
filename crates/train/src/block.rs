//! One pre-norm transformer block, forward and backward, over a chunk of samples.
//!
//! Owns: x + attention(norm(x)), then m + mlp(norm(m)), what must be kept in between, and the
//! gradients of both. In the last block of a tower only one row per sample is pooled, so everything
//! but the keys and values is computed for that row alone; the result is the same.
//! Deliberately absent: embeddings, pooling norm and projection (see `tower`).

use diptych_kernels::{Mat, MatMut, matmul};

use crate::ops::{
    add_assign, add_bias, add_columns, layer_norm, layer_norm_backward, quick_gelu, softmax, softmax_backward,
};
use crate::params::{Init, Layout, Span};

/// The feed-forward layer is this many times as wide as the residual stream.
pub(crate) const MLP_RATIO: usize = 4;

/// Where the parameters of a block lie.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    norm1: (Span, Span),
    q: (Span, Span),
    /// Keys and values in one product: their weights and their biases are neighbours.
    kv: (Span, Span),
    out: (Span, Span),
    norm2: (Span, Span),
    fc1: (Span, Span),
    fc2: (Span, Span),
}

/// The extents of a chunk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    /// Samples in the chunk.
    pub samples: usize,
    /// Tokens per sample, padding included.
    pub tokens: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Attention heads; divides `width`.
    pub heads: usize,
    /// Whether a token sees only itself and earlier ones.
    pub causal: bool,
}

/// What a backward pass needs of its forward pass, besides the block's input.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    q: Vec<f32>,
    kv: Vec<f32>,
    probs: Vec<f32>,
    context: Vec<f32>,
    mid: Vec<f32>,
    hidden: Vec<f32>,
}

/// Buffers whose content matters only within one call; one per chunk of work in flight.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    norm: Vec<f32>,
    picked: Vec<f32>,
    act: Vec<f32>,
    d_act: Vec<f32>,
    d_norm: Vec<f32>,
    d_context: Vec<f32>,
    d_q: Vec<f32>,
    d_kv: Vec<f32>,
    d_probs: Vec<f32>,
    d_in: Vec<f32>,
}

/// Resizes without keeping the content: every caller writes all of it.
fn sized(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    buffer.resize(len, 0.0);
    buffer
}

impl Block {
    /// Appends the parameters of block `prefix` to a tower of `layers` blocks. The standard
    /// deviations are those of the CLIP reference implementation.
    pub fn push(layout: &mut Layout, prefix: &str, width: usize, layers: usize) -> Self {
        let w = width as f32;
        let depth = (2.0 * layers as f32).powf(-0.5);
        let (std_in, std_out, std_fc) = (w.powf(-0.5) * depth, w.powf(-0.5), (2.0 * w).powf(-0.5));
        let norm1 = layout.norm(&format!("{prefix}.layer_norm1"), width);
        let weights = ["q_proj", "k_proj", "v_proj"]
            .map(|name| layout.matrix(format!("{prefix}.self_attn.{name}.weight"), width, width, std_in));
        let biases = ["q_proj", "k_proj", "v_proj"].map(|name| {
            layout.push(format!("{prefix}.self_attn.{name}.bias"), &[width], Init::Constant(0.0), false)
        });
        let mut linear = |name: &str, rows: usize, cols: usize, std: f32| {
            let weight = layout.matrix(format!("{prefix}.{name}.weight"), rows, cols, std);
            (weight, layout.push(format!("{prefix}.{name}.bias"), &[rows], Init::Constant(0.0), false))
        };
        let out = linear("self_attn.out_proj", width, width, std_out);
        let fc1 = linear("mlp.fc1", MLP_RATIO * width, width, std_fc);
        let fc2 = linear("mlp.fc2", width, MLP_RATIO * width, std_in);
        let norm2 = layout.norm(&format!("{prefix}.layer_norm2"), width);
        Self {
            norm1,
            q: (weights[0], biases[0]),
            kv: (weights[1].through(weights[2]), biases[1].through(biases[2])),
            out,
            norm2,
            fc1,
            fc2,
        }
    }

    /// Runs the block on `x`, `[samples * tokens, width]`. With `pick`, the token index of one row
    /// per sample, `out` is `[samples, width]`, else it has the shape of `x`.
    #[allow(clippy::too_many_arguments)]
    pub fn forward(
        &self,
        params: &[f32],
        e: Extent,
        pick: Option<&[usize]>,
        x: &[f32],
        out: &mut Vec<f32>,
        kept: &mut Kept,
        scratch: &mut Scratch,
    ) {
        let (w, rows) = (e.width, e.samples * e.tokens);
        let rows_q = pick.map_or(rows, |_| e.samples);
        let norm = sized(&mut scratch.norm, rows * w);
        layer_norm(norm, x, self.norm1.0.of(params), self.norm1.1.of(params));
        linear(sized(&mut kept.kv, rows * 2 * w), norm, self.kv, params, w);
        let queries = picked(&mut scratch.picked, norm, pick, e);
        linear(sized(&mut kept.q, rows_q * w), queries, self.q, params, w);
        sized(&mut kept.context, rows_q * w);
        sized(&mut kept.probs, rows_q * e.tokens * e.heads);
        attention(kept, e, pick);

        let mid = sized(&mut kept.mid, rows_q * w);
        add_bias(mid, picked(&mut scratch.picked, x, pick, e), self.out.1.of(params));
        add_product(mid, &kept.context, self.out.0.of(params), w, w);
        let norm = sized(&mut scratch.norm, rows_q * w);
        layer_norm(norm, mid, self.norm2.0.of(params), self.norm2.1.of(params));
        let hidden = sized(&mut kept.hidden, rows_q * MLP_RATIO * w);
        linear(hidden, norm, self.fc1, params, w);
        let act = sized(&mut scratch.act, hidden.len());
        quick_gelu(act, hidden);
        let out = sized(out, rows_q * w);
        add_bias(out, mid, self.fc2.1.of(params));
        add_product(out, act, self.fc2.0.of(params), MLP_RATIO * w, w);
    }

    /// Given `d`, the gradient of the block's output, adds the gradients of its parameters to
    /// `grads` and turns `d` into the gradient of its input `x`.
    #[allow(clippy::too_many_arguments)]
    pub fn backward(
        &self,
        params: &[f32],
        grads: &mut [f32],
        e: Extent,
        pick: Option<&[usize]>,
        x: &[f32],
        d: &mut Vec<f32>,
        kept: &Kept,
        scratch: &mut Scratch,
    ) {
        let (w, rows) = (e.width, e.samples * e.tokens);
        self.mlp_backward(params, grads, d, kept, scratch);

        let d_context = sized(&mut scratch.d_context, d.len());
        linear_backward(d_context, grads, d, &kept.context, self.out, params, false);
        sized(&mut scratch.d_q, d.len());
        sized(&mut scratch.d_kv, rows * 2 * w);
        attention_backward(kept, scratch, e, pick);

        let norm = sized(&mut scratch.norm, rows * w);
        layer_norm(norm, x, self.norm1.0.of(params), self.norm1.1.of(params));
        let d_norm = sized(&mut scratch.d_norm, rows * w);
        linear_backward(d_norm, grads, &scratch.d_kv, norm, self.kv, params, false);
        let queries = picked(&mut scratch.picked, norm, pick, e);
        match pick {
            None => {
                linear_backward(d_norm, grads, &scratch.d_q, queries, self.q, params, true);
            }
            Some(pick) => {
                let d_picked = sized(&mut scratch.d_context, d.len());
                linear_backward(d_picked, grads, &scratch.d_q, queries, self.q, params, false);
                scatter(d_norm, d_picked, pick, e);
                scratch.d_in.clear();
                scratch.d_in.resize(rows * w, 0.0);
                scatter(&mut scratch.d_in, d, pick, e);
                std::mem::swap(d, &mut scratch.d_in);
            }
        }
        let (d_weight, d_bias) = self.norm1.0.pair_mut(self.norm1.1, grads);
        layer_norm_backward(
            d,
            d_weight,
            d_bias,
            d_norm,
            x,
            self.norm1.0.of(params),
            crate::ops::LAYER_NORM_EPS,
        );
    }

    /// Turns the gradient of the output into that of the middle of the residual stream.
    fn mlp_backward(
        &self,
        params: &[f32],
        grads: &mut [f32],
        d: &mut [f32],
        kept: &Kept,
        scratch: &mut Scratch,
    ) {
        let act = sized(&mut scratch.act, kept.hidden.len());
        quick_gelu(act, &kept.hidden);
        let d_act = sized(&mut scratch.d_act, kept.hidden.len());
        linear_backward(d_act, grads, d, act, self.fc2, params, false);
        crate::ops::activation_backward(diptych_kernels::Activation::QuickGelu, d_act, &kept.hidden);
        let norm = sized(&mut scratch.norm, d.len());
        layer_norm(norm, &kept.mid, self.norm2.0.of(params), self.norm2.1.of(params));
        let d_norm = sized(&mut scratch.d_norm, d.len());
        linear_backward(d_norm, grads, d_act, norm, self.fc1, params, false);
        let (d_weight, d_bias) = self.norm2.0.pair_mut(self.norm2.1, grads);
        layer_norm_backward(
            d,
            d_weight,
            d_bias,
            d_norm,
            &kept.mid,
            self.norm2.0.of(params),
            crate::ops::LAYER_NORM_EPS,
        );
    }
}

/// `out = x W^T + b`; the input width is `width`.
fn linear(out: &mut [f32], x: &[f32], (weight, bias): (Span, Span), params: &[f32], width: usize) {
    let bias = bias.of(params);
    crate::ops::fill_columns(out, bias.len(), 0, bias);
    add_product(out, x, weight.of(params), width, bias.len());
}

/// `out += x W^T` with `x: [rows, k]`, `W: [n, k]`.
pub(crate) fn add_product(out: &mut [f32], x: &[f32], weight: &[f32], k: usize, n: usize) {
    let rows = out.len() / n;
    matmul(MatMut::new(out, n), (rows, n, k), Mat::new(x, k), Mat::new(weight, k).t(), true);
}

/// Backward of [`linear`]: `dW += dy^T x`, `db += sum dy`, and `dx = dy W`, or `dx += dy W` with `add`.
fn linear_backward(
    dx: &mut [f32],
    grads: &mut [f32],
    dy: &[f32],
    x: &[f32],
    (weight, bias): (Span, Span),
    params: &[f32],
    add: bool,
) {
    let n = bias.of(params).len();
    let rows = dy.len() / n;
    let k = x.len() / rows;
    add_columns(bias.of_mut(grads), dy, n, 0);
    matmul(MatMut::new(weight.of_mut(grads), k), (n, k, rows), Mat::new(dy, n).t(), Mat::new(x, k), true);
    matmul(MatMut::new(dx, k), (rows, k, n), Mat::new(dy, n), Mat::new(weight.of(params), k), add);
}

/// The picked row of every sample, or all rows as they are.
fn picked<'a>(buffer: &'a mut Vec<f32>, x: &'a [f32], pick: Option<&[usize]>, e: Extent) -> &'a [f32] {
    let Some(pick) = pick else { return x };
    buffer.clear();
    for (sample, token) in pick.iter().enumerate() {
        buffer.extend_from_slice(&x[(sample * e.tokens + token) * e.width..][..e.width]);
    }
    buffer
}

/// Adds one row per sample to the row it was picked from.
fn scatter(out: &mut [f32], x: &[f32], pick: &[usize], e: Extent) {
    for (sample, token) in pick.iter().enumerate() {
        let row = &mut out[(sample * e.tokens + token) * e.width..][..e.width];
        add_assign(row, &x[sample * e.width..][..e.width]);
    }
}

/// How many keys query `i` of a sample sees.
fn visible(e: Extent, pick: Option<&[usize]>, sample: usize, i: usize) -> usize {
    if e.causal { pick.map_or(i, |pick| pick[sample]) + 1 } else { e.tokens }
}

/// `context = softmax(q k^T / sqrt(d)) v`, head by head.
fn attention(kept: &mut Kept, e: Extent, pick: Option<&[usize]>) {
    let (w, t, size) = (e.width, e.tokens, e.width / e.heads);
    let tq = if pick.is_some() { 1 } else { t };
    let scale = (size as f32).powf(-0.5);
    for sample in 0..e.samples {
        for head in 0..e.heads {
            let at_q = sample * tq * w + head * size;
            let at_k = sample * t * 2 * w + head * size;
            let q = Mat::new(&kept.q[at_q..], w);
            let (k, v) = (Mat::new(&kept.kv[at_k..], 2 * w), Mat::new(&kept.kv[at_k + w..], 2 * w));
            let p = &mut kept.probs[(sample * e.heads + head) * tq * t..][..tq * t];
            matmul(MatMut::new(p, t), (tq, t, size), q, k.t(), false);
            for (i, row) in p.chunks_exact_mut(t).enumerate() {
                softmax(row, visible(e, pick, sample, i), scale);
            }
            matmul(MatMut::new(&mut kept.context[at_q..], w), (tq, size, t), Mat::new(p, t), v, false);
        }
    }
}

/// Turns `scratch.d_context` into `scratch.d_q` and `scratch.d_kv`.
fn attention_backward(kept: &Kept, scratch: &mut Scratch, e: Extent, pick: Option<&[usize]>) {
    let (w, t, size) = (e.width, e.tokens, e.width / e.heads);
    let tq = if pick.is_some() { 1 } else { t };
    let scale = (size as f32).powf(-0.5);
    let Scratch { d_context, d_q, d_kv, d_probs, .. } = scratch;
    let dp = sized(d_probs, tq * t);
    for sample in 0..e.samples {
        for head in 0..e.heads {
            let at_q = sample * tq * w + head * size;
            let at_k = sample * t * 2 * w + head * size;
            let q = Mat::new(&kept.q[at_q..], w);
            let (k, v) = (Mat::new(&kept.kv[at_k..], 2 * w), Mat::new(&kept.kv[at_k + w..], 2 * w));
            let p = &kept.probs[(sample * e.heads + head) * tq * t..][..tq * t];
            let dc = Mat::new(&d_context[at_q..], w);
            matmul(MatMut::new(dp, t), (tq, t, size), dc, v.t(), false);
            matmul(MatMut::new(&mut d_kv[at_k + w..], 2 * w), (t, size, tq), Mat::new(p, t).t(), dc, false);
            for (dp, p) in dp.chunks_exact_mut(t).zip(p.chunks_exact(t)) {
                softmax_backward(dp, p, scale);
            }
            let dp = Mat::new(dp, t);
            matmul(MatMut::new(&mut d_q[at_q..], w), (tq, size, t), dp, k, false);
            matmul(MatMut::new(&mut d_kv[at_k..], 2 * w), (t, size, tq), dp.t(), q, false);
        }
    }
}
