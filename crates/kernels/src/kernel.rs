//! The register tiles that every product here is made of.
//!
//! Owns: a rank-1-update tile written once over an abstract vector and compiled for each instruction
//! set and for every number of rows, so that a remainder of rows costs what it must and no more; and
//! the last step that a finished tile of a linear layer goes through.
//! Deliberately absent: loops over tiles, packing and threads (see `linear`, `matmul`, `attention`).

use crate::activation::Activation;
use crate::simd::Level;

/// Tallest tile of any instruction set.
pub(crate) const ROWS_MAX: usize = 14;
/// Widest tile of any instruction set.
pub(crate) const WIDTH_MAX: usize = 32;

/// `c[i][j] = sum_k a[i * row + k * step] * b[k][j]` over `depth` values of k, where b is dense with
/// as many columns as the tile and c has rows `c_stride` apart. The sum of an element is one chain of
/// additions in the order of k, whatever the number of rows.
///
/// # Safety
/// All elements named above are readable or, for c, writable; the CPU has the kernel's features.
pub(crate) type Tile = unsafe fn(
    depth: usize,
    a: *const f32,
    strides: Strides,
    b: *const f32,
    c: *mut f32,
    c_stride: usize,
    fetch: &Fetch,
);

/// Memory that will be needed soon: at every step along the depth, the cache lines of both pointers,
/// which then move on by `step` elements. Only a hint: the pointers are not read through.
pub(crate) struct Fetch {
    pub from: [*const f32; 2],
    pub step: usize,
}

impl Fetch {
    /// For tile `t` of `tiles` that all read the panel at `panel`, after which comes the next one. A
    /// single tile runs some way ahead of itself; of several, the first two share the next panel, and
    /// the others have it in the second-level cache.
    pub(crate) fn ahead(
        panel: *const f32,
        (depth, width): (usize, usize),
        (t, tiles): (usize, usize),
    ) -> Self {
        let next = panel.wrapping_add(depth * width);
        match (t, tiles) {
            (_, 1) => {
                let from = panel.wrapping_add(AHEAD);
                Self { from: [from, from.wrapping_add(width / 2)], step: width }
            }
            (0, _) => Self { from: [next; 2], step: width / 2 },
            (1, _) => Self { from: [next.wrapping_add(depth * width / 2); 2], step: width / 2 },
            _ => Self::none(panel),
        }
    }

    /// Nothing in particular.
    pub(crate) fn none(memory: *const f32) -> Self {
        Self { from: [memory; 2], step: 0 }
    }
}

/// Floats that a single tile fetches ahead: some hundred cycles.
const AHEAD: usize = 2048;

/// Distances within a, in elements: from row to row, and along the depth.
#[derive(Clone, Copy)]
pub(crate) struct Strides {
    pub row: usize,
    pub step: usize,
}

/// Writes a finished tile to its place.
///
/// # Safety
/// `tile` holds `rows` rows as wide as the tile's columns; `y` is writable at `cols` elements in each
/// of `rows` rows, `stride` apart; the CPU has the kernel's features.
pub(crate) type Store = unsafe fn(tile: *mut f32, rows: usize, y: *mut f32, stride: usize, last: &Last<'_>);

/// What follows a product, for the columns of one tile.
pub(crate) struct Last<'a> {
    /// Columns that exist; the tile may be wider.
    pub cols: usize,
    /// Added to every row, zero-filled to the widest tile.
    pub bias: Option<&'a [f32; WIDTH_MAX]>,
    pub activation: Option<Activation>,
    /// Add to what is there.
    pub add: bool,
}

/// The tiles of one instruction set.
pub(crate) struct Kernel {
    /// Columns of a narrow tile; a wide one has twice as many.
    pub lanes: usize,
    /// Rows of the tallest tile.
    pub rows: usize,
    tiles: [&'static [Tile]; 2],
    stores: [Store; 2],
}

impl Kernel {
    pub(crate) fn of(level: Level) -> &'static Self {
        match level {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => &x86::AVX512,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => &x86::AVX2,
            _ => &portable::PORTABLE,
        }
    }

    /// Columns of a wide tile.
    pub(crate) fn width(&self) -> usize {
        2 * self.lanes
    }

    /// Columns of the tile for `cols` remaining columns.
    pub(crate) fn width_for(&self, cols: usize) -> usize {
        if cols > self.lanes { 2 * self.lanes } else { self.lanes }
    }

    /// The tile of `rows` rows and `width` columns, as [`Kernel::width_for`] gives them.
    pub(crate) fn tile(&self, rows: usize, width: usize) -> Tile {
        self.tiles[usize::from(width > self.lanes)][rows - 1]
    }

    /// See [`Store`].
    pub(crate) fn store(&self, width: usize) -> Store {
        self.stores[usize::from(width > self.lanes)]
    }
}

/// A register of floats.
///
/// # Safety
/// Every function requires the CPU features of the type; loads and stores, `LANES` elements.
unsafe trait Vector: Copy {
    const LANES: usize;
    unsafe fn zero() -> Self;
    unsafe fn splat(p: *const f32) -> Self;
    unsafe fn load(p: *const f32) -> Self;
    unsafe fn store(self, p: *mut f32);
    unsafe fn add(self, x: Self) -> Self;
    /// `self + x * y`.
    unsafe fn add_product(self, x: Self, y: Self) -> Self;
    /// Brings the cache line of `p` closer.
    unsafe fn prefetch(p: *const f32);
}

/// See [`Tile`]; `N` registers wide.
#[inline(always)]
unsafe fn tile<V: Vector, const R: usize, const N: usize>(
    depth: usize,
    a: *const f32,
    strides: Strides,
    b: *const f32,
    c: *mut f32,
    c_stride: usize,
    fetch: &Fetch,
) {
    // SAFETY: the contract of `Tile`. Pointers past the last step are formed but not read.
    unsafe {
        let mut sums = [[V::zero(); N]; R];
        let (mut a, mut b, [mut first, mut second]) = (a, b, fetch.from);
        for _ in 0..depth {
            let mut y = [V::zero(); N];
            for (j, y) in y.iter_mut().enumerate() {
                *y = V::load(b.add(j * V::LANES));
            }
            V::prefetch(first);
            V::prefetch(second);
            for (i, row) in sums.iter_mut().enumerate() {
                let x = V::splat(a.add(i * strides.row));
                for (sum, &y) in row.iter_mut().zip(&y) {
                    *sum = sum.add_product(x, y);
                }
            }
            a = a.wrapping_add(strides.step);
            b = b.wrapping_add(N * V::LANES);
            first = first.wrapping_add(fetch.step);
            second = second.wrapping_add(fetch.step);
        }
        for (i, row) in sums.iter().enumerate() {
            for (j, &sum) in row.iter().enumerate() {
                sum.store(c.add(i * c_stride + j * V::LANES));
            }
        }
    }
}

/// See [`Store`]; `N` registers wide. In vectors by hand: compilers turn such short rows sideways.
#[inline(always)]
unsafe fn store<V: Vector, const N: usize, const FUSED: bool>(
    tile: *mut f32,
    rows: usize,
    y: *mut f32,
    stride: usize,
    last: &Last<'_>,
) {
    let width = N * V::LANES;
    // SAFETY: the contract of `Store`; a bias is as long as the widest tile.
    unsafe {
        if let Some(bias) = last.bias {
            let mut b = [V::zero(); N];
            for (j, b) in b.iter_mut().enumerate() {
                *b = V::load(bias.as_ptr().add(j * V::LANES));
            }
            for i in 0..rows {
                for (j, &b) in b.iter().enumerate() {
                    let at = tile.add(i * width + j * V::LANES);
                    V::load(at).add(b).store(at);
                }
            }
        }
        if let Some(activation) = last.activation {
            activation.apply_inline::<FUSED>(std::slice::from_raw_parts_mut(tile, rows * width));
        }
        for i in 0..rows {
            let (from, to) = (tile.add(i * width), y.add(i * stride));
            if last.cols == width {
                for j in 0..N {
                    let (v, to) = (V::load(from.add(j * V::LANES)), to.add(j * V::LANES));
                    if last.add { V::load(to).add(v).store(to) } else { v.store(to) }
                }
            } else {
                for j in 0..last.cols {
                    *to.add(j) = if last.add { *to.add(j) + *from.add(j) } else { *from.add(j) };
                }
            }
        }
    }
}

/// The functions of one instruction set: `kernel!(NAME, vector, rows, lanes, features, fused, [1 2 ..])`.
macro_rules! kernel {
    ($name:ident, $vector:ty, $rows:literal, $lanes:literal, $fused:expr, [$($feature:literal)?], [$($r:literal)*]) => {
        pub(super) static $name: Kernel = {
            $(#[target_feature(enable = $feature)])?
            unsafe fn tile_of<const R: usize, const N: usize>(
                depth: usize,
                a: *const f32,
                strides: Strides,
                b: *const f32,
                c: *mut f32,
                c_stride: usize,
                fetch: &Fetch,
            ) {
                // SAFETY: the caller keeps the contract of `Tile`. A constant step lets the compiler
                // address several steps from one pointer.
                unsafe {
                    if strides.step == 1 {
                        let strides = Strides { row: strides.row, step: 1 };
                        tile::<$vector, R, N>(depth, a, strides, b, c, c_stride, fetch);
                    } else {
                        tile::<$vector, R, N>(depth, a, strides, b, c, c_stride, fetch);
                    }
                }
            }
            $(#[target_feature(enable = $feature)])?
            unsafe fn store_of<const N: usize>(
                tile: *mut f32,
                rows: usize,
                y: *mut f32,
                stride: usize,
                last: &Last<'_>,
            ) {
                // SAFETY: the caller keeps the contract of `Store`.
                unsafe { store::<$vector, N, { $fused }>(tile, rows, y, stride, last) }
            }
            Kernel {
                lanes: $lanes,
                rows: $rows,
                tiles: [&[$(tile_of::<$r, 1>),*], &[$(tile_of::<$r, 2>),*]],
                stores: [store_of::<1>, store_of::<2>],
            }
        };
    };
}

mod portable;

#[cfg(target_arch = "x86_64")]
mod x86;
