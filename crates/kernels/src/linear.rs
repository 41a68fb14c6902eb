//! A linear layer in one call: product with packed weights, bias, activation or residual.
//!
//! Owns: [`linear`], and how its work is cut into blocks that stay in the second-level cache and into
//! tasks for threads. The epilogue is applied to each tile while that is in the first-level cache.
//! Deliberately absent: the tiles themselves (see `kernel`).

use std::ops::Range;

use crate::activation::Activation;
use crate::kernel::{Fetch, Kernel, Last, ROWS_MAX, Strides, WIDTH_MAX};
use crate::matmul::{Mat, MatMut};
use crate::packed::PackedMatrix;
use crate::threads::{Shared, Threads, with_scratch};

/// Bytes of x that one task keeps in the second-level cache beside a panel of weights.
const BLOCK_BYTES: usize = 192 << 10;
/// Multiplications below which a second thread costs more than it brings.
const TASK_PRODUCTS: usize = 1 << 17;
/// Tasks per thread, so that a thread that is late does not hold up the others for long.
const TASKS_PER_THREAD: usize = 4;

/// What follows the product, element by element.
#[derive(Debug, Clone, Copy)]
pub enum Epilogue<'a> {
    /// `y = x W^T`.
    None,
    /// `y = x W^T + bias`.
    Bias(&'a [f32]),
    /// `y = activation(x W^T + bias)`.
    BiasActivation(Option<&'a [f32]>, Activation),
    /// `y += x W^T + bias`: a branch that joins the residual stream.
    AddBias(Option<&'a [f32]>),
}

impl<'a> Epilogue<'a> {
    pub(crate) fn bias(&self) -> Option<&'a [f32]> {
        match *self {
            Self::None => None,
            Self::Bias(bias) => Some(bias),
            Self::BiasActivation(bias, _) | Self::AddBias(bias) => bias,
        }
    }

    /// What to do to columns `j0 .. j0 + cols`; the bias is copied to `padded`.
    pub(crate) fn last<'b>(&self, j0: usize, cols: usize, padded: &'b mut [f32; WIDTH_MAX]) -> Last<'b> {
        let bias = self.bias().map(|bias| {
            padded[..cols].copy_from_slice(&bias[j0..j0 + cols]);
            &*padded
        });
        Last { cols, bias, activation: self.activation(), add: self.adds() }
    }

    fn activation(&self) -> Option<Activation> {
        match *self {
            Self::BiasActivation(_, activation) => Some(activation),
            _ => None,
        }
    }

    fn adds(&self) -> bool {
        matches!(self, Self::AddBias(_))
    }
}

/// `y = x W^T` and the epilogue, for `m` rows: x is `[m, k]`, W is `[n, k]`, y is `[m, n]`, row-major.
///
/// # Panics
/// If x, y or the bias has another size.
pub fn linear(y: &mut [f32], x: &[f32], m: usize, w: &PackedMatrix, e: Epilogue<'_>, threads: Threads) {
    assert!(x.len() == m * w.cols(), "x has {} values, not {m} rows of {}", x.len(), w.cols());
    assert!(y.len() == m * w.rows(), "y has {} values, not {m} rows of {}", y.len(), w.rows());
    linear_rows(MatMut::new(y, w.rows()), Mat::new(x, w.cols()), m, w, e, threads);
}

/// [`linear`] on rows that are not adjacent, such as the first position of every sequence.
///
/// # Panics
/// If x, y or the bias is shorter than its shape, or x is a transposed view.
pub fn linear_rows(y: MatMut<'_>, x: Mat<'_>, m: usize, w: &PackedMatrix, e: Epilogue<'_>, threads: Threads) {
    let (n, k) = (w.rows(), w.cols());
    if m == 0 {
        return;
    }
    assert!(x.col == 1, "x must be row-major");
    x.assert_holds(m, k);
    assert!(n <= y.stride && (m - 1) * y.stride + n <= y.data.len(), "y is shorter than its shape");
    if let Some(bias) = e.bias() {
        assert!(bias.len() == n, "{} biases for {n} outputs", bias.len());
    }
    let (y_stride, y) = (y.stride, Shared::new(y.data));
    let job = Job { w, kernel: w.kernel(), x: x.data, x_stride: x.row, y, y_stride, m, e };
    let tile = (job.kernel.rows, job.kernel.width());
    let plan = Plan::new((m, n, k), tile, k * size_of::<f32>(), threads);
    plan.run(threads, |tiles, panels| job.run(tiles, panels));
}

/// The `i`-th of `parts` nearly equal parts of `0..len`.
pub(crate) fn part(len: usize, parts: usize, i: usize) -> Range<usize> {
    i * len / parts..(i + 1) * len / parts
}

/// How many tasks: blocks of rows times segments of panels.
pub(crate) struct Plan {
    pub tiles: usize,
    pub panels: usize,
    pub blocks: usize,
    pub segments: usize,
}

impl Plan {
    /// For tiles of `tile` rows and columns over rows of x of `row_bytes` each.
    pub(crate) fn new(
        (m, n, k): (usize, usize, usize),
        tile: (usize, usize),
        row_bytes: usize,
        threads: Threads,
    ) -> Self {
        let (tiles, panels) = (m.div_ceil(tile.0), n.div_ceil(tile.1));
        let block = (BLOCK_BYTES / (tile.0 * row_bytes)).max(1);
        let blocks = tiles.div_ceil(block);
        let segments = match threads.count() {
            1 => 1,
            threads => {
                let most = (threads * TASKS_PER_THREAD).min(m * n * k / TASK_PRODUCTS);
                most.div_ceil(blocks).clamp(1, panels)
            }
        };
        Self { tiles, panels, blocks, segments }
    }

    /// Runs `f(tiles, panels)` for every task.
    pub(crate) fn run(&self, threads: Threads, f: impl Fn(Range<usize>, Range<usize>) + Sync + Send) {
        threads.each(self.blocks * self.segments, |task| {
            let (block, segment) = (task / self.segments, task % self.segments);
            f(part(self.tiles, self.blocks, block), part(self.panels, self.segments, segment));
        });
    }
}

/// One product, with every size checked.
struct Job<'a> {
    w: &'a PackedMatrix,
    kernel: &'static Kernel,
    x: &'a [f32],
    x_stride: usize,
    y: Shared,
    y_stride: usize,
    m: usize,
    e: Epilogue<'a>,
}

impl Job<'_> {
    /// Computes the rows of `tiles` by the columns of `panels`.
    fn run(&self, tiles: Range<usize>, panels: Range<usize>) {
        let rows = self.rows(tiles.start).start..self.rows(tiles.end - 1).end;
        let k = self.w.cols();
        if !collides(self.x_stride) || tiles.len() * panels.len() < 4 {
            return self.block(&self.x[rows.start * self.x_stride..], self.x_stride, tiles, panels);
        }
        // An odd number of cache lines.
        let stride = (k.div_ceil(16) | 1) * 16;
        with_scratch(rows.len() * stride, |copy| {
            for (to, i) in copy.chunks_exact_mut(stride).zip(rows) {
                to[..k].copy_from_slice(&self.x[i * self.x_stride..][..k]);
            }
            self.block(copy, stride, tiles, panels);
        });
    }

    /// Rows of y in tile `t`: tiles differ by at most one row.
    fn rows(&self, t: usize) -> Range<usize> {
        part(self.m, self.m.div_ceil(self.kernel.rows), t)
    }

    /// [`Job::run`] where `x` starts at the first row of `tiles`.
    fn block(&self, x: &[f32], stride: usize, tiles: Range<usize>, panels: Range<usize>) {
        let (n, k, kernel) = (self.w.rows(), self.w.cols(), self.kernel);
        let first_row = self.rows(tiles.start).start;
        let mut sums = TileBuffer([0f32; ROWS_MAX * WIDTH_MAX]);
        let mut padded = [0f32; WIDTH_MAX];
        for p in panels {
            let j0 = p * kernel.width();
            let cols = kernel.width().min(n - j0);
            let width = kernel.width_for(cols);
            let last = self.e.last(j0, cols, &mut padded);
            let panel = &self.w.panels()[j0 * k..][..width * k];
            for t in tiles.clone() {
                let rows = self.rows(t);
                let from = x[(rows.start - first_row) * stride..].as_ptr();
                let strides = Strides { row: stride, step: 1 };
                let fetch = Fetch::ahead(panel.as_ptr(), (k, width), (t - tiles.start, tiles.len()));
                // SAFETY: x holds `rows` at `stride`, each of k values; the panel holds k x width; the
                // sums have room for every kernel's tile. y holds m x n, and the tasks of a product
                // share no row and column. The kernel is the one the weights were packed for, and a
                // level is only ever chosen when the machine has it.
                unsafe {
                    kernel.tile(rows.len(), width)(
                        k,
                        from,
                        strides,
                        panel.as_ptr(),
                        sums.0.as_mut_ptr(),
                        width,
                        &fetch,
                    );
                    let y = self.y.at(rows.start * self.y_stride + j0);
                    kernel.store(width)(sums.0.as_mut_ptr(), rows.len(), y, self.y_stride, &last);
                }
            }
        }
    }
}

/// Room for a tile, on cache lines of its own.
#[repr(align(64))]
struct TileBuffer([f32; ROWS_MAX * WIDTH_MAX]);

/// Whether rows `stride` apart would evict each other from a first-level cache, whose sets repeat
/// every 4 KiB.
fn collides(stride: usize) -> bool {
    (stride * 4).is_multiple_of(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Level, noise};

    fn product(x: &[f32], w: &[f32], (m, n, k): (usize, usize, usize)) -> Vec<f64> {
        let dot = |i: usize, j: usize| {
            let (x, w) = (&x[i * k..][..k], &w[j * k..][..k]);
            x.iter().zip(w).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        (0..m * n).map(|at| dot(at / n, at % n)).collect()
    }

    #[test]
    fn every_kernel_agrees_with_the_definition_at_odd_sizes() {
        for (n, k) in [(1, 1), (7, 5), (16, 64), (17, 33), (33, 129), (100, 1), (131, 300)] {
            for m in 1..=30 {
                let (x, w) = (noise(m * k, 1), noise(n * k, 2));
                let expected = product(&x, &w, (m, n, k));
                for level in Level::available() {
                    let w = PackedMatrix::for_level(&[(&w, n)], k, level);
                    let mut y = vec![f32::NAN; m * n];
                    linear(&mut y, &x, m, &w, Epilogue::None, Threads::One);
                    for (y, e) in y.iter().zip(&expected) {
                        assert!(
                            (f64::from(*y) - e).abs() < 1e-5 * k as f64,
                            "{level:?} {m}x{n}x{k}: {y}, {e}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn epilogues_do_what_they_say() {
        let (m, n, k) = (17, 83, 40);
        let (x, w, bias, start) = (noise(m * k, 1), noise(n * k, 2), noise(n, 3), noise(m * n, 4));
        let sums = product(&x, &w, (m, n, k));
        let biased = |at: usize| sums[at] + f64::from(bias[at % n]);
        let relu = |v: f64| v.max(0.0);
        type Expected<'a> = &'a dyn Fn(usize) -> f64;
        let cases: [(Epilogue<'_>, Expected<'_>); 6] = [
            (Epilogue::None, &|at| sums[at]),
            (Epilogue::Bias(&bias), &biased),
            (Epilogue::BiasActivation(Some(&bias), Activation::Relu), &|at| relu(biased(at))),
            (Epilogue::BiasActivation(None, Activation::Relu), &|at| relu(sums[at])),
            (Epilogue::AddBias(Some(&bias)), &|at| f64::from(start[at]) + biased(at)),
            (Epilogue::AddBias(None), &|at| f64::from(start[at]) + sums[at]),
        ];
        for level in Level::available() {
            let w = PackedMatrix::for_level(&[(&w, n)], k, level);
            for (e, expected) in &cases {
                let mut y = start.clone();
                linear(&mut y, &x, m, &w, *e, Threads::All);
                for (at, y) in y.iter().enumerate() {
                    assert!((f64::from(*y) - expected(at)).abs() < 1e-5, "{level:?} {e:?} at {at}");
                }
            }
        }
    }

    #[test]
    fn results_depend_neither_on_threads_nor_on_the_other_rows() {
        let pool = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().expect("a pool");
        for (m, n, k) in [(1, 2048, 512), (9, 700, 512), (61, 333, 1024), (240, 96, 768)] {
            let (x, w, bias) = (noise(m * k, 1), noise(n * k, 2), noise(n, 3));
            let w = PackedMatrix::pack(&w, n, k);
            let e = Epilogue::BiasActivation(Some(&bias), Activation::QuickGelu);
            let run = |m: usize, threads| {
                let mut y = vec![f32::NAN; m * n];
                linear(&mut y, &x[..m * k], m, &w, e, threads);
                y
            };
            let one = run(m, Threads::One);
            for threads in [1, 2, 3, 7] {
                assert!(
                    pool(threads).install(|| run(m, Threads::All)) == one,
                    "{threads} threads, {m}x{n}x{k}"
                );
            }
            assert!(run(1, Threads::All) == one[..n], "alone and among {m} rows, {n}x{k}");
        }
    }

    #[test]
    fn strided_rows_are_read_and_written_in_place() {
        let (m, n, k, stride) = (5, 20, 12, 50);
        let (x, w) = (noise(m * stride, 1), PackedMatrix::pack(&noise(n * k, 2), n, k));
        let dense: Vec<f32> = x.chunks(stride).flat_map(|row| row[..k].to_vec()).collect();
        let (mut expected, mut y) = (vec![0.0; m * n], vec![7.0; m * stride]);
        linear(&mut expected, &dense, m, &w, Epilogue::None, Threads::One);
        linear_rows(MatMut::new(&mut y, stride), Mat::new(&x, stride), m, &w, Epilogue::None, Threads::One);
        for (y, expected) in y.chunks(stride).zip(expected.chunks(n)) {
            assert_eq!(&y[..n], expected);
            assert!(y[n..].iter().all(|v| *v == 7.0));
        }
    }

    #[test]
    fn concatenated_parts_are_the_whole_and_a_nan_is_seen() {
        let (m, n, k) = (3, 70, 9);
        let (mut x, w) = (noise(m * k, 1), noise(n * k, 2));
        let (whole, parts) = (
            PackedMatrix::pack(&w, n, k),
            PackedMatrix::concat(&[(&w[..30 * k], 30), (&w[30 * k..35 * k], 5), (&w[35 * k..], 35)], k),
        );
        x[k + 2] = f32::NAN;
        let run = |w: &PackedMatrix| {
            let mut y = vec![0.0; m * n];
            linear(&mut y, &x, m, w, Epilogue::BiasActivation(None, Activation::Relu), Threads::One);
            y
        };
        let (a, b) = (run(&whole), run(&parts));
        for (i, (a, b)) in a.iter().zip(&b).enumerate() {
            assert!(a.to_bits() == b.to_bits() && a.is_nan() == (i / n == 1), "{i}: {a} and {b}");
        }
    }
}
