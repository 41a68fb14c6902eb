//! Single-threaded matrix product for the shapes of a small transformer.
//!
//! Owns: `matmul` over strided views. Callers run one product per thread, on different samples, so
//! there is nothing to synchronise here. A is read in place (its elements are broadcast), B is
//! packed panel by panel into a buffer that stays in the first-level cache.
//! Deliberately absent: threads, allocation, half precision.

use crate::simd::{Level, level};

/// Depth of one packed panel of B.
const DEPTH: usize = 256;
/// Widest panel of any kernel.
const PANEL_MAX: usize = 32;
/// Tallest tile of any kernel.
const TILE_ROWS_MAX: usize = 12;

/// A read-only matrix view: element `(i, j)` is `data[i * row + j * col]`.
#[derive(Clone, Copy)]
pub(crate) struct Mat<'a> {
    data: &'a [f32],
    row: usize,
    col: usize,
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

    fn assert_holds(&self, rows: usize, cols: usize) {
        assert!(
            (rows - 1) * self.row + (cols - 1) * self.col < self.data.len(),
            "operand shorter than its shape"
        );
    }
}

/// A row-major output view with `stride` elements from one row to the next.
pub(crate) struct MatMut<'a> {
    data: &'a mut [f32],
    stride: usize,
}

impl<'a> MatMut<'a> {
    /// See the type.
    pub fn new(data: &'a mut [f32], stride: usize) -> Self {
        Self { data, stride }
    }
}

/// `c = a b` or, with `add`, `c += a b`, where a is `m x k`, b is `k x n`, c is `m x n`.
pub(crate) fn matmul(c: MatMut<'_>, (m, n, k): (usize, usize, usize), a: Mat<'_>, b: Mat<'_>, add: bool) {
    if m == 0 || n == 0 {
        return;
    }
    assert!(k > 0, "a product over nothing");
    a.assert_holds(m, k);
    b.assert_holds(k, n);
    assert!(n <= c.stride && (m - 1) * c.stride + n <= c.data.len(), "output shorter than its shape");
    match level() {
        // SAFETY: `level` found every feature these versions are compiled for.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { x86::product_avx512(c, (m, n, k), a, b, add) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { x86::product_avx2(c, (m, n, k), a, b, add) },
        _ => product::<Portable>(c, (m, n, k), a, b, add),
    }
}

/// A register tile: `ROWS x COLS` sums over one packed panel.
trait Kernel {
    const ROWS: usize;
    const COLS: usize;

    /// Writes `sum_k a[i][k] * b[k][j]` to `tile[i * COLS + j]`.
    ///
    /// # Safety
    /// The first `ROWS` pointers of `a` are readable at `0, step, .., (depth - 1) * step`; `b`
    /// holds `depth * COLS` elements; the CPU has the kernel's features.
    unsafe fn run(depth: usize, a: &[*const f32; TILE_ROWS_MAX], step: usize, b: &[f32], tile: &mut [f32]);
}

#[inline(always)]
fn product<K: Kernel>(c: MatMut<'_>, (m, n, k): (usize, usize, usize), a: Mat<'_>, b: Mat<'_>, add: bool) {
    let mut panel = [0f32; DEPTH * PANEL_MAX];
    let mut tile = [0f32; TILE_ROWS_MAX * PANEL_MAX];
    let tile = &mut tile[..K::ROWS * K::COLS];
    for k0 in (0..k).step_by(DEPTH) {
        let depth = DEPTH.min(k - k0);
        for j0 in (0..n).step_by(K::COLS) {
            let cols = K::COLS.min(n - j0);
            let panel = &mut panel[..depth * K::COLS];
            pack(panel, b, (k0, depth), (j0, cols), K::COLS);
            for i0 in (0..m).step_by(K::ROWS) {
                let mut rows = [a.data.as_ptr(); TILE_ROWS_MAX];
                for (i, row) in rows.iter_mut().enumerate() {
                    // Rows past the end repeat the last one; their sums are not stored.
                    let i = (i0 + i).min(m - 1);
                    *row = a.data[i * a.row + k0 * a.col..].as_ptr();
                }
                // SAFETY: `matmul` checked that a holds m x k; `i < m` and `k0 + depth <= k`. The
                // panel was cut to depth * COLS. `matmul` chose the kernel by detected features.
                unsafe { K::run(depth, &rows, a.col, panel, tile) };
                let first = k0 == 0 && !add;
                for i in 0..K::ROWS.min(m - i0) {
                    let out = &mut c.data[(i0 + i) * c.stride + j0..][..cols];
                    store(out, &tile[i * K::COLS..][..cols], first);
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
#[inline(always)]
fn pack(
    panel: &mut [f32],
    b: Mat<'_>,
    (k0, depth): (usize, usize),
    (j0, cols): (usize, usize),
    width: usize,
) {
    if cols < width {
        panel.fill(0.0);
    }
    let origin = k0 * b.row + j0 * b.col;
    if b.col == 1 {
        for (k, row) in panel.chunks_exact_mut(width).enumerate() {
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

/// The baseline; the compiler vectorises the inner loop with what the target always has.
struct Portable;

impl Kernel for Portable {
    const ROWS: usize = 4;
    const COLS: usize = 8;

    #[inline(always)]
    unsafe fn run(depth: usize, a: &[*const f32; TILE_ROWS_MAX], step: usize, b: &[f32], tile: &mut [f32]) {
        let mut sums = [[0f32; 8]; 4];
        for k in 0..depth {
            for (row, &a) in sums.iter_mut().zip(a) {
                // SAFETY: the caller promises `depth` elements `step` apart behind each pointer.
                let x = unsafe { *a.add(k * step) };
                for (s, y) in row.iter_mut().zip(&b[k * 8..k * 8 + 8]) {
                    *s += x * y;
                }
            }
        }
        tile.copy_from_slice(sums.as_flattened());
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;
    use std::arch::x86_64::*;

    struct Avx512;

    impl Kernel for Avx512 {
        const ROWS: usize = 12;
        const COLS: usize = 32;

        #[inline(always)]
        unsafe fn run(
            depth: usize,
            a: &[*const f32; TILE_ROWS_MAX],
            step: usize,
            b: &[f32],
            tile: &mut [f32],
        ) {
            debug_assert!(b.len() >= depth * 32 && tile.len() >= 12 * 32);
            // SAFETY: the trait's contract covers a and b; the tile has ROWS * COLS elements.
            unsafe {
                let mut sums = [[_mm512_setzero_ps(); 2]; 12];
                let mut b = b.as_ptr();
                for k in 0..depth {
                    let (b0, b1) = (_mm512_loadu_ps(b), _mm512_loadu_ps(b.add(16)));
                    for i in 0..12 {
                        let x = _mm512_set1_ps(*a[i].add(k * step));
                        sums[i][0] = _mm512_fmadd_ps(x, b0, sums[i][0]);
                        sums[i][1] = _mm512_fmadd_ps(x, b1, sums[i][1]);
                    }
                    b = b.add(32);
                }
                for (i, row) in sums.iter().enumerate() {
                    _mm512_storeu_ps(tile.as_mut_ptr().add(i * 32), row[0]);
                    _mm512_storeu_ps(tile.as_mut_ptr().add(i * 32 + 16), row[1]);
                }
            }
        }
    }

    struct Avx2;

    impl Kernel for Avx2 {
        const ROWS: usize = 6;
        const COLS: usize = 16;

        #[inline(always)]
        unsafe fn run(
            depth: usize,
            a: &[*const f32; TILE_ROWS_MAX],
            step: usize,
            b: &[f32],
            tile: &mut [f32],
        ) {
            debug_assert!(b.len() >= depth * 16 && tile.len() >= 6 * 16);
            // SAFETY: the trait's contract covers a and b; the tile has ROWS * COLS elements.
            unsafe {
                let mut sums = [[_mm256_setzero_ps(); 2]; 6];
                let mut b = b.as_ptr();
                for k in 0..depth {
                    let (b0, b1) = (_mm256_loadu_ps(b), _mm256_loadu_ps(b.add(8)));
                    for i in 0..6 {
                        let x = _mm256_set1_ps(*a[i].add(k * step));
                        sums[i][0] = _mm256_fmadd_ps(x, b0, sums[i][0]);
                        sums[i][1] = _mm256_fmadd_ps(x, b1, sums[i][1]);
                    }
                    b = b.add(16);
                }
                for (i, row) in sums.iter().enumerate() {
                    _mm256_storeu_ps(tile.as_mut_ptr().add(i * 16), row[0]);
                    _mm256_storeu_ps(tile.as_mut_ptr().add(i * 16 + 8), row[1]);
                }
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    pub(super) fn product_avx512(
        c: MatMut<'_>,
        mnk: (usize, usize, usize),
        a: Mat<'_>,
        b: Mat<'_>,
        add: bool,
    ) {
        product::<Avx512>(c, mnk, a, b, add);
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn product_avx2(c: MatMut<'_>, mnk: (usize, usize, usize), a: Mat<'_>, b: Mat<'_>, add: bool) {
        product::<Avx2>(c, mnk, a, b, add);
    }

    #[cfg(test)]
    pub(super) fn run_avx2(
        c: MatMut<'_>,
        mnk: (usize, usize, usize),
        a: Mat<'_>,
        b: Mat<'_>,
        add: bool,
    ) -> bool {
        if level() == Level::Portable {
            return false;
        }
        // SAFETY: any level above portable has AVX2 and FMA.
        unsafe { product_avx2(c, mnk, a, b, add) };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        (0..n)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect()
    }

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
                    let check = |got: &[f32], name: &str| {
                        for (g, e) in got.iter().zip(&expected) {
                            assert!((g - e).abs() < 1e-4, "{name} {m}x{n}x{k}: {g} instead of {e}");
                        }
                    };
                    let mut c = start.clone();
                    matmul(MatMut::new(&mut c, n), (m, n, k), a, b, add);
                    check(&c, "detected");
                    c.clone_from(&start);
                    product::<Portable>(MatMut::new(&mut c, n), (m, n, k), a, b, add);
                    check(&c, "portable");
                    #[cfg(target_arch = "x86_64")]
                    {
                        c.clone_from(&start);
                        if x86::run_avx2(MatMut::new(&mut c, n), (m, n, k), a, b, add) {
                            check(&c, "avx2");
                        }
                    }
                }
            }
        }
    }
}
