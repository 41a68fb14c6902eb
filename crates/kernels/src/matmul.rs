//! Single-threaded product of strided matrices, nothing packed beforehand: for training.
//!
//! Owns: the views [`Mat`] and [`MatMut`], and [`matmul()`] over them. Callers run one product per
//! thread, on different samples, so there is nothing to synchronise here. A is read in place (its
//! elements are broadcast), B is packed panel by panel into a buffer that stays in the first-level cache.
//! Deliberately absent: threads, allocation, weights that outlive a call (see `packed`).

use crate::kernel::{Fetch, Kernel, ROWS_MAX, Strides, WIDTH_MAX};
use crate::simd::level;

/// Depth of one packed panel of B.
const DEPTH: usize = 256;

/// A read-only matrix view: element `(i, j)` is `data[i * row + j * col]`.
#[derive(Clone, Copy)]
pub struct Mat<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) row: usize,
    pub(crate) col: usize,
}

impl<'a> Mat<'a> {
    /// Row-major with `stride` elements from one row to the next.
    pub fn new(data: &'a [f32], stride: usize) -> Self {
        Self { data, row: stride, col: 1 }
    }

    /// The transposed view.
    pub fn t(self) -> Self {
        Self { data: self.data, row: self.col, col: self.row }
    }

    pub(crate) fn assert_holds(&self, rows: usize, cols: usize) {
        assert!(
            (rows - 1) * self.row + (cols - 1) * self.col < self.data.len(),
            "operand shorter than its shape"
        );
    }
}

/// A row-major output view with `stride` elements from one row to the next.
pub struct MatMut<'a> {
    pub(crate) data: &'a mut [f32],
    pub(crate) stride: usize,
}

impl<'a> MatMut<'a> {
    /// See the type.
    pub fn new(data: &'a mut [f32], stride: usize) -> Self {
        Self { data, stride }
    }
}

/// `c = a b` or, with `add`, `c += a b`, where a is `m x k`, b is `k x n`, c is `m x n`.
///
/// # Panics
/// If a view is shorter than its shape, or `k` is 0.
pub fn matmul(c: MatMut<'_>, (m, n, k): (usize, usize, usize), a: Mat<'_>, b: Mat<'_>, add: bool) {
    if m == 0 || n == 0 {
        return;
    }
    assert!(k > 0, "a product over nothing");
    a.assert_holds(m, k);
    b.assert_holds(k, n);
    assert!(n <= c.stride && (m - 1) * c.stride + n <= c.data.len(), "output shorter than its shape");
    product(Kernel::of(level()), c, (m, n, k), a, b, add);
}

fn product(
    kernel: &Kernel,
    c: MatMut<'_>,
    (m, n, k): (usize, usize, usize),
    a: Mat<'_>,
    b: Mat<'_>,
    add: bool,
) {
    let mut panel = [0f32; DEPTH * WIDTH_MAX];
    let mut tile = [0f32; ROWS_MAX * WIDTH_MAX];
    for k0 in (0..k).step_by(DEPTH) {
        let depth = DEPTH.min(k - k0);
        for j0 in (0..n).step_by(kernel.width()) {
            let cols = kernel.width().min(n - j0);
            let width = kernel.width_for(cols);
            let panel = &mut panel[..depth * width];
            pack(panel, b, (k0, depth), (j0, cols), width);
            for i0 in (0..m).step_by(kernel.rows) {
                let rows = kernel.rows.min(m - i0);
                let from = a.data[i0 * a.row + k0 * a.col..].as_ptr();
                let strides = Strides { row: a.row, step: a.col };
                // SAFETY: `matmul` checked that a holds m x k; `i0 + rows <= m` and `k0 + depth <= k`.
                // The panel holds depth x width, the tile has room for every kernel's.
                unsafe {
                    let run = kernel.tile(rows, width);
                    run(
                        depth,
                        from,
                        strides,
                        panel.as_ptr(),
                        tile.as_mut_ptr(),
                        width,
                        &Fetch::none(panel.as_ptr()),
                    );
                }
                let overwrite = k0 == 0 && !add;
                for (i, sums) in tile.chunks_exact(width).take(rows).enumerate() {
                    store(&mut c.data[(i0 + i) * c.stride + j0..][..cols], &sums[..cols], overwrite);
                }
            }
        }
    }
}

#[inline(always)]
fn store(out: &mut [f32], sums: &[f32], overwrite: bool) {
    if overwrite {
        out.copy_from_slice(sums);
    } else {
        for (o, s) in out.iter_mut().zip(sums) {
            *o += s;
        }
    }
}

/// Copies rows `k0 .. k0 + depth` and columns `j0 .. j0 + cols` of b into a dense panel of `width`
/// columns, zero-filled past `cols`.
pub(crate) fn pack(
    panel: &mut [f32],
    b: Mat<'_>,
    (k0, depth): (usize, usize),
    (j0, cols): (usize, usize),
    width: usize,
) {
    if cols < width {
        panel[..depth * width].fill(0.0);
    }
    let origin = k0 * b.row + j0 * b.col;
    if b.col == 1 {
        for (k, row) in panel.chunks_exact_mut(width).take(depth).enumerate() {
            row[..cols].copy_from_slice(&b.data[origin + k * b.row..][..cols]);
        }
    } else {
        for j in 0..cols {
            let column = &b.data[origin + j * b.col..];
            for k in 0..depth {
                panel[k * width + j] = column[k * b.row];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Level, noise as values};

    fn slow(c: &mut [f32], (m, n, k): (usize, usize, usize), a: Mat<'_>, b: Mat<'_>, add: bool) {
        for i in 0..m {
            for j in 0..n {
                let s: f64 = (0..k)
                    .map(|p| {
                        f64::from(a.data[i * a.row + p * a.col]) * f64::from(b.data[p * b.row + j * b.col])
                    })
                    .sum();
                c[i * n + j] = if add { c[i * n + j] } else { 0.0 } + s as f32;
            }
        }
    }

    #[test]
    fn every_kernel_agrees_with_the_definition_in_all_layouts_and_odd_sizes() {
        for (m, n, k) in [(1, 1, 1), (13, 33, 5), (12, 32, 256), (65, 65, 32), (7, 100, 513), (30, 17, 300)] {
            let (a, b, start) = (values(m * k, 1), values(k * n, 2), values(m * n, 3));
            for (a, b) in [
                (Mat::new(&a, k), Mat::new(&b, n)),
                (Mat::new(&a, m).t(), Mat::new(&b, n)),
                (Mat::new(&a, k), Mat::new(&b, k).t()),
            ] {
                for add in [false, true] {
                    let mut expected = start.clone();
                    slow(&mut expected, (m, n, k), a, b, add);
                    for level in Level::available() {
                        let mut c = start.clone();
                        product(Kernel::of(level), MatMut::new(&mut c, n), (m, n, k), a, b, add);
                        for (g, e) in c.iter().zip(&expected) {
                            assert!((g - e).abs() < 1e-4, "{level:?} {m}x{n}x{k}: {g} instead of {e}");
                        }
                    }
                }
            }
        }
    }
}
