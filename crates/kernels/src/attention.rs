//! Multi-head scaled dot-product attention.
//!
//! Owns: `softmax(scale q k^T) v` per sequence and head, with a causal mask and a mask of padding,
//! without ever holding more scores than one tile of queries has.
//! Deliberately absent: the projections around it (see `linear`), rotary positions, additive biases.

use crate::kernel::{Fetch, Kernel, ROWS_MAX, Strides, WIDTH_MAX};
use crate::matmul::{Mat, MatMut, pack};
use crate::norm::softmax_numerators;
use crate::simd::level;
use crate::threads::{Shared, Threads, with_scratch};

/// Sizes of one attention call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionShape {
    /// Sequences.
    pub batch: usize,
    /// Queries per sequence.
    pub queries: usize,
    /// Keys and values per sequence.
    pub keys: usize,
    /// Heads side by side in a row.
    pub heads: usize,
    /// Width of one head.
    pub head_width: usize,
    /// Factor on the scores before the softmax; positive.
    pub scale: f32,
}

impl AttentionShape {
    /// Self-attention over `positions` per sequence, scores scaled by `head_width^-1/2`.
    pub fn new(batch: usize, positions: usize, heads: usize, head_width: usize) -> Self {
        let scale = (head_width as f64).powf(-0.5) as f32;
        Self { batch, queries: positions, keys: positions, heads, head_width, scale }
    }

    /// Width of a row of queries, keys, values or results: all heads.
    pub fn hidden(&self) -> usize {
        self.heads * self.head_width
    }
}

/// Which keys a query sees.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mask<'a> {
    /// Query i sees keys 0 to i only.
    pub causal: bool,
    /// Keys that exist in each sequence; those after them are padding. None: all of them.
    pub lengths: Option<&'a [usize]>,
}

/// Self-attention over fused rows: `qkv` is `[batch * positions, 3 * hidden]`, queries, keys and values
/// side by side; `out` is `[batch * positions, hidden]`.
///
/// Rows of padding get a result too (of what they see); callers pass over it.
///
/// # Panics
/// If a slice has another size, queries and keys differ in number, or a length is 0 or too large.
pub fn attention(out: &mut [f32], qkv: &[f32], shape: AttentionShape, mask: Mask<'_>, threads: Threads) {
    let (rows, hidden) = (shape.batch * shape.queries, shape.hidden());
    assert!(shape.queries == shape.keys, "{} queries and {} keys in fused rows", shape.queries, shape.keys);
    assert!(qkv.len() == rows * 3 * hidden, "{} values, not {rows} rows of 3 x {hidden}", qkv.len());
    assert!(out.len() == rows * hidden, "{} results, not {rows} rows of {hidden}", out.len());
    if rows == 0 {
        return;
    }
    let part = |i: usize| Mat::new(&qkv[i * hidden..], 3 * hidden);
    cross_attention(MatMut::new(out, hidden), part(0), part(1), part(2), shape, mask, threads);
}

/// Attention with queries, keys and values from anywhere: row-major views of `[batch * queries, hidden]`
/// and twice `[batch * keys, hidden]`, and the result like the queries.
///
/// # Panics
/// If a view is shorter than its shape or transposed, or a length is 0 or too large.
pub fn cross_attention(
    out: MatMut<'_>,
    q: Mat<'_>,
    k: Mat<'_>,
    v: Mat<'_>,
    shape: AttentionShape,
    mask: Mask<'_>,
    threads: Threads,
) {
    let AttentionShape { batch, queries, keys, heads, head_width, scale } = shape;
    if batch * queries * heads == 0 {
        return;
    }
    assert!(keys > 0 && head_width > 0 && scale > 0.0, "attention over nothing: {shape:?}");
    assert!(q.col == 1 && k.col == 1 && v.col == 1, "queries, keys and values must be row-major");
    q.assert_holds(batch * queries, shape.hidden());
    k.assert_holds(batch * keys, shape.hidden());
    v.assert_holds(batch * keys, shape.hidden());
    let last = (batch * queries - 1) * out.stride + shape.hidden();
    assert!(shape.hidden() <= out.stride && last <= out.data.len(), "output shorter than its shape");
    if let Some(lengths) = mask.lengths {
        assert!(lengths.len() == batch, "{} lengths for {batch} sequences", lengths.len());
        let fits = lengths.iter().all(|n| (1..=keys).contains(n));
        assert!(fits, "lengths {lengths:?} of sequences of {keys} keys");
    }
    let (out_stride, out) = (out.stride, Shared::new(out.data));
    let job = Job { kernel: Kernel::of(level()), out, out_stride, q, k, v, shape, mask };
    threads.each(batch * heads, |task| job.head(task / heads, task % heads));
}

/// One call, with every size checked.
struct Job<'a> {
    kernel: &'static Kernel,
    out: Shared,
    out_stride: usize,
    q: Mat<'a>,
    k: Mat<'a>,
    v: Mat<'a>,
    shape: AttentionShape,
    mask: Mask<'a>,
}

/// Length of `cols` columns cut into panels, the last of which may be narrow.
fn padded(kernel: &Kernel, cols: usize) -> usize {
    let last = cols % kernel.width();
    cols - last + if last > 0 { kernel.width_for(last) } else { 0 }
}

impl Job<'_> {
    /// Packs keys and values of one head, then goes through its queries a tile at a time.
    fn head(&self, sequence: usize, head: usize) {
        let AttentionShape { queries, keys, head_width, .. } = self.shape;
        let kernel = self.kernel;
        let keys_seen = self.mask.lengths.map_or(keys, |lengths| lengths[sequence]);
        let (score_stride, width) = (padded(kernel, keys_seen), padded(kernel, head_width));
        let lens = [score_stride * head_width, width * keys_seen, score_stride * ROWS_MAX];
        with_scratch(lens.iter().sum(), |scratch| {
            let (packed_k, rest) = scratch.split_at_mut(lens[0]);
            let (packed_v, scores) = rest.split_at_mut(lens[1]);
            let at = |m: Mat<'_>| sequence * keys * m.row + head * head_width;
            pack_panels(
                kernel,
                packed_k,
                Mat { data: &self.k.data[at(self.k)..], ..self.k }.t(),
                head_width,
                keys_seen,
            );
            pack_panels(
                kernel,
                packed_v,
                Mat { data: &self.v.data[at(self.v)..], ..self.v },
                keys_seen,
                head_width,
            );
            let tiles = queries.div_ceil(kernel.rows);
            for t in 0..tiles {
                let rows = t * queries / tiles..(t + 1) * queries / tiles;
                let visible = |row: usize| if self.mask.causal { keys_seen.min(row + 1) } else { keys_seen };
                let seen = visible(rows.end - 1);
                let first = (sequence * queries + rows.start, head * head_width);
                let q = self.q.data[first.0 * self.q.row + first.1..].as_ptr();
                self.scores(q, rows.len(), packed_k, seen, scores, score_stride);
                let mut norms = [0f32; ROWS_MAX];
                for (i, row) in scores.chunks_exact_mut(score_stride).take(rows.len()).enumerate() {
                    let visible = visible(rows.start + i);
                    norms[i] = softmax_numerators(&mut row[..seen], visible, self.shape.scale);
                }
                self.mix(first, &norms[..rows.len()], scores, score_stride, packed_v, (keys_seen, seen));
            }
        });
    }

    /// Scores of `rows` queries at `q` against the first `seen` keys.
    fn scores(&self, q: *const f32, rows: usize, k: &[f32], seen: usize, scores: &mut [f32], stride: usize) {
        let (kernel, depth) = (self.kernel, self.shape.head_width);
        let strides = Strides { row: self.q.row, step: 1 };
        for j0 in (0..seen).step_by(kernel.width()) {
            let width = kernel.width_for(stride - j0);
            let panel = k[j0 * depth..][..width * depth].as_ptr();
            let out = scores[j0..].as_mut_ptr();
            // SAFETY: q has `rows` rows of head_width; the panel holds head_width x width; a row of
            // scores has room for whole panels. The kernel is one the machine can run.
            unsafe { kernel.tile(rows, width)(depth, q, strides, panel, out, stride, &Fetch::none(panel)) };
        }
    }

    /// `out = norms * scores v`, over the first `seen` of `keys` values, for the queries that start at
    /// row and column `first`.
    fn mix(
        &self,
        first: (usize, usize),
        norms: &[f32],
        scores: &[f32],
        stride: usize,
        v: &[f32],
        (keys, seen): (usize, usize),
    ) {
        let (kernel, head_width) = (self.kernel, self.shape.head_width);
        let strides = Strides { row: stride, step: 1 };
        let mut tile = [0f32; ROWS_MAX * WIDTH_MAX];
        for j0 in (0..head_width).step_by(kernel.width()) {
            let cols = kernel.width().min(head_width - j0);
            let width = kernel.width_for(cols);
            let panel = v[j0 * keys..][..width * keys].as_ptr();
            let run = kernel.tile(norms.len(), width);
            // SAFETY: each row of scores holds `seen <= keys` values; the panel holds keys x width; the
            // tile has room for every kernel's.
            unsafe {
                run(seen, scores.as_ptr(), strides, panel, tile.as_mut_ptr(), width, &Fetch::none(panel))
            };
            for (i, (sums, norm)) in tile.chunks_exact(width).zip(norms).enumerate() {
                let at = (first.0 + i) * self.out_stride + first.1 + j0;
                // SAFETY: out holds batch * queries rows of hidden values; tasks share no row and head.
                let out = unsafe { std::slice::from_raw_parts_mut(self.out.at(at), cols) };
                for (out, sum) in out.iter_mut().zip(sums) {
                    *out = sum * norm;
                }
            }
        }
    }
}

/// Packs `depth` rows and `cols` columns of b into panels.
fn pack_panels(kernel: &Kernel, panels: &mut [f32], b: Mat<'_>, depth: usize, cols: usize) {
    for j0 in (0..cols).step_by(kernel.width()) {
        let count = kernel.width().min(cols - j0);
        let width = kernel.width_for(count);
        pack(&mut panels[j0 * depth..][..width * depth], b, (0, depth), (j0, count), width);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::noise;

    /// The definition, in double precision.
    fn slow(q: Mat<'_>, k: Mat<'_>, v: Mat<'_>, shape: AttentionShape, mask: Mask<'_>) -> Vec<f64> {
        let AttentionShape { batch, queries, keys, heads, head_width, scale } = shape;
        let get = |m: Mat<'_>, row: usize, col: usize| f64::from(m.data[row * m.row + col]);
        let mut out = vec![0.0; batch * queries * heads * head_width];
        for (b, i, h) in
            (0..batch * queries * heads).map(|t| (t / heads / queries, t / heads % queries, t % heads))
        {
            let mut visible = mask.lengths.map_or(keys, |l| l[b]);
            if mask.causal {
                visible = visible.min(i + 1);
            }
            let weights: Vec<f64> = (0..visible)
                .map(|j| {
                    let dot = |c: usize| {
                        get(q, b * queries + i, h * head_width + c) * get(k, b * keys + j, h * head_width + c)
                    };
                    ((0..head_width).map(dot).sum::<f64>() * f64::from(scale)).exp()
                })
                .collect();
            let total: f64 = weights.iter().sum();
            for c in 0..head_width {
                let mixed = |(j, w): (usize, &f64)| w * get(v, b * keys + j, h * head_width + c);
                out[(b * queries + i) * heads * head_width + h * head_width + c] =
                    weights.iter().enumerate().map(mixed).sum::<f64>() / total;
            }
        }
        out
    }

    fn assert_close(found: &[f32], expected: &[f64], what: &str) {
        assert_eq!(found.len(), expected.len());
        for (at, (f, e)) in found.iter().zip(expected).enumerate() {
            assert!((f64::from(*f) - e).abs() < 1e-5, "{what} at {at}: {f} instead of {e}");
        }
    }

    #[test]
    fn fused_attention_follows_the_definition_under_every_mask() {
        for (batch, positions, heads, head_width) in
            [(1, 1, 1, 1), (3, 7, 2, 5), (2, 50, 3, 64), (1, 77, 2, 72), (2, 33, 1, 16), (1, 131, 2, 40)]
        {
            let shape = AttentionShape::new(batch, positions, heads, head_width);
            let hidden = shape.hidden();
            let qkv: Vec<f32> = noise(batch * positions * 3 * hidden, 5).iter().map(|x| 3.0 * x).collect();
            let lengths: Vec<usize> =
                (0..batch).map(|b| (positions * (b + 1) / (batch + 1)).max(1)).collect();
            for causal in [false, true] {
                for lengths in [None, Some(lengths.as_slice())] {
                    let mask = Mask { causal, lengths };
                    let mut out = vec![f32::NAN; batch * positions * hidden];
                    attention(&mut out, &qkv, shape, mask, Threads::One);
                    let part = |i: usize| Mat::new(&qkv[i * hidden..], 3 * hidden);
                    let expected = slow(part(0), part(1), part(2), shape, mask);
                    assert_close(&out, &expected, &format!("{shape:?} {mask:?}"));
                    let mut all = vec![f32::NAN; out.len()];
                    attention(&mut all, &qkv, shape, mask, Threads::All);
                    assert!(all == out, "threads change {shape:?}");
                }
            }
        }
    }

    #[test]
    fn one_query_per_sequence_pools_a_separate_set_of_keys() {
        let shape = AttentionShape { queries: 1, scale: 0.3, ..AttentionShape::new(3, 19, 2, 24) };
        let (q, kv) = (noise(3 * 48, 1), noise(3 * 19 * 96, 2));
        let (q, k, v) = (Mat::new(&q, 48), Mat::new(&kv, 96), Mat::new(&kv[48..], 96));
        let mut out = vec![0.0; 3 * 48];
        let mask = Mask { causal: false, lengths: Some(&[19, 4, 1]) };
        cross_attention(MatMut::new(&mut out, 48), q, k, v, shape, mask, Threads::All);
        assert_close(&out, &slow(q, k, v, shape, mask), "pooling");
    }

    #[test]
    fn padding_is_never_read_and_a_nan_is_seen() {
        let shape = AttentionShape::new(2, 6, 1, 8);
        let mut qkv = noise(2 * 6 * 24, 3);
        let mask = Mask { causal: false, lengths: Some(&[4, 6]) };
        qkv[4 * 24..6 * 24].fill(f32::NAN);
        let mut out = vec![0.0; 2 * 6 * 8];
        attention(&mut out, &qkv, shape, mask, Threads::One);
        assert!(out[..4 * 8].iter().all(|x| x.is_finite()) && out[6 * 8..].iter().all(|x| x.is_finite()));
        assert!(out[4 * 8..6 * 8].iter().all(|x| x.is_nan()), "a query of NaN has no result");
        qkv[3 * 24 + 8] = f32::NAN;
        attention(&mut out, &qkv, shape, mask, Threads::One);
        assert!(out[..4 * 8].iter().all(|x| x.is_nan()), "a key of NaN spoils what sees it");
    }
}
