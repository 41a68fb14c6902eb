//! Linear layers with 8-bit weights and inputs.
//!
//! Owns: [`QuantizedMatrix`] and [`linear_q8`]. Weights are rounded once, symmetrically, with a scale for
//! each output and each group of inputs; inputs are rounded on the fly, with a scale for each row and
//! group, so that one large input costs digits only in its own group. Sums within a group are exact
//! integers, the same in every instruction set.
//! Deliberately absent: calibration, and the decision where this accuracy is enough.

use std::ops::Range;

use crate::kernel::{Kernel as FloatKernel, WIDTH_MAX};
use crate::linear::{Epilogue, Plan, part};
use crate::packed::Aligned;
use crate::quantized_kernel::{Kernel, ROWS_MAX, Set};
use crate::simd::max;
use crate::threads::{Shared, Threads};
use crate::{lane_sum, multiversion};

/// Inputs that share a scale: a multiple of 4.
const GROUP: usize = 256;
/// Added to a rounded input, which makes it unsigned as the instruction wants it.
const ZERO_POINT: i32 = 128;
/// 1.5 * 2^23: adding it rounds to an integer, whose bits are then at the bottom.
const ROUND: f32 = 12_582_912.0;

/// Weights `[n, k]` of a linear layer in 8 bits, packed once for this machine's kernel.
pub struct QuantizedMatrix {
    /// Panels of whole tiles; within one, four inputs side by side for every column.
    panels: Aligned,
    /// For every panel, group and column: the weight that 1 stands for.
    scales: Vec<f32>,
    /// Likewise: the sum of the rounded weights times the zero point.
    offsets: Vec<i32>,
    n: usize,
    k: usize,
    group: usize,
    set: Set,
}

impl std::fmt::Debug for QuantizedMatrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "QuantizedMatrix[{}, {}] for {:?}", self.n, self.k, self.set)
    }
}

impl QuantizedMatrix {
    /// Rounds and packs `w`, `n` rows (outputs) of `k` values (inputs).
    ///
    /// # Panics
    /// If `w` does not hold `n * k` finite values, or either is 0.
    pub fn quantize(w: &[f32], n: usize, k: usize) -> Self {
        Self::with(w, (n, k), GROUP, Set::detected())
    }

    /// [`QuantizedMatrix::quantize`] with groups of `group` inputs, for the kernel of `set`.
    fn with(w: &[f32], (n, k): (usize, usize), group: usize, set: Set) -> Self {
        assert!(n > 0 && k > 0 && w.len() == n * k, "{} values for {n} rows of {k}", w.len());
        assert!(group.is_multiple_of(4) && group < 1 << 16, "a group of {group} inputs");
        let (width, groups, depth) = (Kernel::of(set).width, k.div_ceil(group), k.next_multiple_of(4));
        let columns = n.next_multiple_of(width);
        let mut this = Self {
            panels: Aligned::zeroed((columns * depth).div_ceil(4)),
            scales: vec![0.0; columns * groups],
            offsets: vec![0; columns * groups],
            n,
            k,
            group,
            set,
        };
        for (column, row) in w.chunks_exact(k).enumerate() {
            for (g, values) in row.chunks(group).enumerate() {
                this.put(column, g, values);
            }
        }
        this
    }

    /// Stores the weights of one column and group.
    fn put(&mut self, column: usize, g: usize, values: &[f32]) {
        let (width, depth) = (Kernel::of(self.set).width, self.depth());
        let (p, j) = (column / width, column % width);
        let top = values.iter().fold(0f32, |top, v| top.max(v.abs()));
        assert!(values.iter().all(|v| v.is_finite()), "output {column} has a weight that is not finite");
        let inverse = if top > 0.0 { 127.0 / top } else { 0.0 };
        let panel = &mut self.panels.as_mut_bytes()[p * width * depth..][..width * depth];
        let mut total = 0;
        for (i, v) in values.iter().enumerate() {
            let d = g * self.group + i;
            let rounded = (v * inverse).round_ties_even() as i8;
            panel[(d / 4 * width + j) * 4 + d % 4] = rounded as u8;
            total += i32::from(rounded);
        }
        let at = (p * self.k.div_ceil(self.group) + g) * width + j;
        self.scales[at] = top / 127.0;
        self.offsets[at] = total * ZERO_POINT;
    }

    /// Inputs, rounded up to what the kernels take at a time.
    fn depth(&self) -> usize {
        self.k.next_multiple_of(4)
    }

    /// Outputs, the `n` of `[n, k]`.
    pub fn rows(&self) -> usize {
        self.n
    }

    /// Inputs, the `k` of `[n, k]`.
    pub fn cols(&self) -> usize {
        self.k
    }

    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        size_of_val(self.panels.as_slice()) + 4 * (self.scales.len() + self.offsets.len())
    }
}

/// [`linear`](crate::linear) with 8-bit arithmetic. A row with a value that is not finite gives NaN.
///
/// # Panics
/// If x, y or the bias has another size.
pub fn linear_q8(y: &mut [f32], x: &[f32], m: usize, w: &QuantizedMatrix, e: Epilogue<'_>, threads: Threads) {
    let (n, k) = (w.n, w.k);
    assert!(x.len() == m * k, "x has {} values, not {m} rows of {k}", x.len());
    assert!(y.len() == m * n, "y has {} values, not {m} rows of {n}", y.len());
    if let Some(bias) = e.bias() {
        assert!(bias.len() == n, "{} biases for {n} outputs", bias.len());
    }
    if m == 0 {
        return;
    }
    let x = Rounded::new(x, k, w.group, threads);
    let kernel = Kernel::of(w.set);
    let store = FloatKernel::of(w.set.level());
    let job = Job { kernel, store, x: &x, w, y: Shared::new(y), m, e };
    let plan = Plan::new((m, n, k), (kernel.tiles.len(), kernel.width), x.depth, threads);
    plan.run(threads, |tiles, panels| job.run(tiles, panels));
}

/// Rows of inputs in 8 bits.
struct Rounded {
    /// `[m, depth]`, the zero point added.
    values: Vec<u8>,
    /// `[m, groups]`: the input that 1 stands for.
    scales: Vec<f32>,
    depth: usize,
    groups: usize,
}

impl Rounded {
    fn new(x: &[f32], k: usize, group: usize, threads: Threads) -> Self {
        let (m, groups, depth) = (x.len() / k, k.div_ceil(group), k.next_multiple_of(4));
        let (mut values, mut scales) = (vec![ZERO_POINT as u8; m * depth], vec![0f32; m * groups]);
        let out = (SharedBytes(values.as_mut_ptr()), Shared::new(&mut scales));
        let rows = (1 << 14) / k + 1;
        threads.each(m.div_ceil(rows), |task| {
            let out = &out;
            for i in task * rows..m.min((task + 1) * rows) {
                // SAFETY: each row belongs to one task and both buffers hold m rows.
                let (values, scales) = unsafe {
                    let values = out.0.0.add(i * depth);
                    (
                        std::slice::from_raw_parts_mut(values, k),
                        std::slice::from_raw_parts_mut(out.1.at(i * groups), groups),
                    )
                };
                round_row(values, scales, &x[i * k..][..k], group);
            }
        });
        Self { values, scales, depth, groups }
    }
}

/// Like [`Shared`], for bytes.
struct SharedBytes(*mut u8);

// SAFETY: whoever dereferences the pointer promises, there, that no two threads touch one element.
unsafe impl Sync for SharedBytes {}

// SAFETY: as above.
unsafe impl Send for SharedBytes {}

multiversion! {
    /// Rounds one row to 127 steps either side of the zero point; a group that is not finite throughout
    /// gets a scale of NaN.
    fn round_row(out: &mut [u8], scales: &mut [f32], x: &[f32], group: usize) {
        for ((out, scale), x) in out.chunks_mut(group).zip(scales).zip(x.chunks(group)) {
            let top = max_magnitude(x);
            let inverse = if top > 0.0 { 127.0 / top } else { 0.0 };
            for (out, x) in out.iter_mut().zip(x) {
                *out = ((x * inverse + ROUND).to_bits() as u8).wrapping_add(ZERO_POINT as u8);
            }
            *scale = top / 127.0 + lane_sum!(x, x, |x, _y| x * 0.0);
        }
    }
}

/// Largest magnitude of a row.
#[inline(always)]
fn max_magnitude(x: &[f32]) -> f32 {
    let mut tops = [0f32; 16];
    let (chunks, rest) = x.as_chunks::<16>();
    for chunk in chunks {
        for (top, v) in tops.iter_mut().zip(chunk) {
            *top = if v.abs() > *top { v.abs() } else { *top };
        }
    }
    rest.iter().fold(max(&tops), |top, v| if v.abs() > top { v.abs() } else { top })
}

multiversion! {
    /// `out[i][j] (+)= (sums[i][j] - offsets[j]) * (rows[i * stride] * columns[j])`.
    fn dequantize(
        out: &mut [f32], sums: &[i32], offsets: &[i32], rows: &[f32], stride: usize, columns: &[f32], add: bool,
    ) {
        let width = columns.len();
        let tiles = out.chunks_exact_mut(width).zip(sums.chunks_exact(width));
        for ((out, sums), &row) in tiles.zip(rows.iter().step_by(stride)) {
            let values = sums.iter().zip(offsets).zip(columns);
            let values = values.map(|((sum, offset), column)| (sum - offset) as f32 * (row * column));
            if add {
                out.iter_mut().zip(values).for_each(|(out, value)| *out += value);
            } else {
                out.iter_mut().zip(values).for_each(|(out, value)| *out = value);
            }
        }
    }
}

/// One product, with every size checked.
struct Job<'a> {
    kernel: &'static Kernel,
    store: &'static FloatKernel,
    x: &'a Rounded,
    w: &'a QuantizedMatrix,
    y: Shared,
    m: usize,
    e: Epilogue<'a>,
}

impl Job<'_> {
    /// Computes the rows of `tiles` by the columns of `panels`.
    fn run(&self, tiles: Range<usize>, panels: Range<usize>) {
        let (width, n, groups) = (self.kernel.width, self.w.n, self.x.groups);
        let mut padded = [0f32; WIDTH_MAX];
        let mut out = [0f32; ROWS_MAX * WIDTH_MAX];
        let mut sums = [0i32; ROWS_MAX * WIDTH_MAX];
        for p in panels {
            let j0 = p * width;
            let last = self.e.last(j0, width.min(n - j0), &mut padded);
            for t in tiles.clone() {
                let rows = part(self.m, self.m.div_ceil(self.kernel.tiles.len()), t);
                let out = &mut out[..rows.len() * width];
                for g in 0..groups {
                    self.group(out, &mut sums, rows.clone(), p, g);
                }
                // SAFETY: the tile is dense, as wide as a tile of floats of this level or half of it; y
                // holds m x n, and the tasks of a product share no row and column.
                unsafe {
                    let y = self.y.at(rows.start * n + j0);
                    self.store.store(width)(out.as_mut_ptr(), rows.len(), y, n, &last);
                }
            }
        }
    }

    /// Adds what one group of inputs contributes to a tile; the first group overwrites.
    fn group(&self, out: &mut [f32], sums: &mut [i32], rows: Range<usize>, p: usize, g: usize) {
        let (width, depth, groups) = (self.kernel.width, self.x.depth, self.x.groups);
        let from = g * self.w.group;
        let quads = (self.w.group.min(depth - from)) / 4;
        let x = self.x.values[rows.start * depth + from..].as_ptr();
        let panel = self.w.panels.as_bytes()[(p * depth + from) * width..].as_ptr().cast::<i8>();
        // SAFETY: x holds `rows` at `depth`, from `from` at least `4 * quads` values each; so does the
        // panel for its columns. The set was detected when the weights were packed.
        unsafe { self.kernel.tiles[rows.len() - 1](quads, x, depth, panel, sums.as_mut_ptr()) };
        let at = (p * groups + g) * width;
        let (offsets, scales) = (&self.w.offsets[at..at + width], &self.w.scales[at..at + width]);
        dequantize(out, sums, offsets, &self.x.scales[rows.start * groups + g..], groups, scales, g > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::Activation;
    use crate::simd::noise;

    fn sets() -> impl Iterator<Item = Set> {
        [Set::Portable, Set::Avx2, Set::Vnni].into_iter().filter(|s| *s <= Set::detected())
    }

    /// The same arithmetic, one element at a time.
    fn slow(x: &[f32], w: &[f32], (m, n, k): (usize, usize, usize), group: usize) -> Vec<f32> {
        let round = |v: &[f32]| {
            let top = v.iter().fold(0f32, |t, v| t.max(v.abs()));
            let inverse = if top > 0.0 { 127.0 / top } else { 0.0 };
            let values: Vec<i64> = v.iter().map(|v| (v * inverse).round_ties_even() as i64).collect();
            (values, top / 127.0)
        };
        let mut out = vec![0f32; m * n];
        for (at, out) in out.iter_mut().enumerate() {
            let (x, w) = (&x[at / n * k..][..k], &w[at % n * k..][..k]);
            for (x, w) in x.chunks(group).zip(w.chunks(group)) {
                let ((x, sx), (w, sw)) = (round(x), round(w));
                let sum: i64 = x.iter().zip(&w).map(|(x, w)| x * w).sum();
                *out += sum as f32 * (sx * sw);
            }
        }
        out
    }

    #[test]
    fn every_kernel_equals_integer_arithmetic_bit_for_bit() {
        for (m, n, k) in [(1, 1, 1), (3, 7, 5), (5, 33, 257), (13, 40, 64), (14, 64, 600), (29, 70, 131)] {
            let (x, w) = (noise(m * k, 1), noise(n * k, 2));
            for group in [64, 256] {
                let expected = slow(&x, &w, (m, n, k), group);
                for set in sets() {
                    let w = QuantizedMatrix::with(&w, (n, k), group, set);
                    for threads in [Threads::One, Threads::All] {
                        let mut y = vec![f32::NAN; m * n];
                        linear_q8(&mut y, &x, m, &w, Epilogue::None, threads);
                        assert!(y == expected, "{set:?} {threads:?} {m}x{n}x{k} in groups of {group}");
                    }
                }
            }
        }
    }

    /// Root mean square of the difference to exact arithmetic over that of the exact results.
    fn relative_error(x: &[f32], group: usize) -> f64 {
        let (m, n, k) = (8, 96, 768);
        let w = gaussian(n * k, 7);
        let packed = QuantizedMatrix::with(&w, (n, k), group, Set::detected());
        let mut y = vec![0.0; m * n];
        linear_q8(&mut y, x, m, &packed, Epilogue::None, Threads::All);
        let (mut wrong, mut right) = (0.0, 0.0);
        for (at, y) in y.iter().enumerate() {
            let (x, w) = (&x[at / n * k..][..k], &w[at % n * k..][..k]);
            let exact: f64 = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
            wrong += (f64::from(*y) - exact).powi(2);
            right += exact * exact;
        }
        (wrong / right).sqrt()
    }

    /// Close to normal: the sum of twelve uniform values.
    fn gaussian(n: usize, seed: u32) -> Vec<f32> {
        noise(12 * n, seed).chunks(12).map(|v| v.iter().sum::<f32>() / 2.0).collect()
    }

    #[test]
    fn the_error_is_small_and_one_large_input_spoils_only_its_group() {
        let mut x = gaussian(8 * 768, 3);
        let plain = relative_error(&x, 256);
        // What residual streams look like: a few channels tens of times as large as the rest.
        for row in x.chunks_mut(768) {
            row[133] *= 40.0;
        }
        let (grouped, whole) = (relative_error(&x, 256), relative_error(&x, 768));
        eprintln!("relative error: {plain:.4} Gaussian, {grouped:.4} with outliers, {whole:.4} ungrouped");
        assert!(plain < 0.02, "{plain}");
        assert!(grouped < 0.8 * whole, "{grouped} in groups, {whole} without");
    }

    #[test]
    fn epilogues_apply_and_what_is_not_finite_is_seen() {
        let (m, n, k) = (3, 20, 30);
        let (mut x, w, bias) = (noise(m * k, 1), noise(n * k, 2), noise(n, 3));
        x[..k].fill(0.0);
        x[k + 3] = f32::INFINITY;
        let w = QuantizedMatrix::quantize(&w, n, k);
        let mut y = vec![1.0; m * n];
        linear_q8(&mut y, &x, m, &w, Epilogue::AddBias(Some(&bias)), Threads::One);
        assert!(y[..n].iter().zip(&bias).all(|(y, b)| *y == 1.0 + b), "a row of zeros adds the bias");
        assert!(y[n..2 * n].iter().all(|y| y.is_nan()) && y[2 * n..].iter().all(|y| y.is_finite()));
        linear_q8(&mut y, &x, m, &w, Epilogue::BiasActivation(Some(&bias), Activation::Relu), Threads::One);
        assert!(y[..n].iter().zip(&bias).all(|(y, b)| *y == b.max(0.0)));
    }
}
