//! Weights in the order in which the kernels read them.
//!
//! Owns: [`PackedMatrix`]. Columns of the product are cut into panels as wide as a tile; a panel holds,
//! for every input, its columns side by side, so that a product reads each panel from start to end.
//! Deliberately absent: the product (see `linear`) and weight files.

use rayon::prelude::*;

use crate::kernel::Kernel;
use crate::simd::{Level, level};

/// A cache line, for its alignment.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// A zeroed buffer of floats that starts on a cache line.
pub(crate) struct Aligned(Vec<Line>);

impl Aligned {
    pub(crate) fn zeroed(len: usize) -> Self {
        Self(vec![Line([0.0; 16]); len.div_ceil(16)])
    }

    pub(crate) fn as_slice(&self) -> &[f32] {
        // SAFETY: `Line` is 16 floats without padding.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() * 16) }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), self.0.len() * 16) }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        // SAFETY: as above; every byte of a float is initialised.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() * 64) }
    }

    pub(crate) fn as_mut_bytes(&mut self) -> &mut [u8] {
        // SAFETY: as above; any bytes make floats.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), self.0.len() * 64) }
    }

    /// Room for at least `len` floats; what was there is lost.
    pub(crate) fn grow(&mut self, len: usize) -> &mut [f32] {
        if self.0.len() * 16 < len {
            *self = Self::zeroed(len);
        }
        self.as_mut_slice()
    }
}

/// Weights `[n, k]` of a linear layer, packed once for this machine's kernel.
pub struct PackedMatrix {
    panels: Aligned,
    n: usize,
    k: usize,
    level: Level,
}

impl std::fmt::Debug for PackedMatrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PackedMatrix[{}, {}] for {:?}", self.n, self.k, self.level)
    }
}

impl PackedMatrix {
    /// Packs `w`, `n` rows (outputs) of `k` values (inputs), as a PyTorch `Linear` stores them.
    ///
    /// # Panics
    /// If `w` does not hold `n * k` values, or either is 0.
    pub fn pack(w: &[f32], n: usize, k: usize) -> Self {
        Self::concat(&[(w, n)], k)
    }

    /// Packs several matrices of `k` columns, one below the other: `(values, rows)` each.
    ///
    /// # Panics
    /// If a part does not hold `rows * k` values, or there is nothing to pack.
    pub fn concat(parts: &[(&[f32], usize)], k: usize) -> Self {
        Self::for_level(parts, k, level())
    }

    /// [`PackedMatrix::concat`] for the kernel of another instruction set.
    pub(crate) fn for_level(parts: &[(&[f32], usize)], k: usize, level: Level) -> Self {
        let mut rows = Vec::new();
        for &(values, count) in parts {
            assert!(values.len() == count * k, "{} values for {count} rows of {k}", values.len());
            rows.extend(values.chunks_exact(k));
        }
        let n = rows.len();
        assert!(n > 0 && k > 0, "nothing to pack");
        let kernel = Kernel::of(level);
        let last = n % kernel.width();
        let columns = n - last + if last > 0 { kernel.width_for(last) } else { 0 };
        let mut panels = Aligned::zeroed(columns * k);
        panels.as_mut_slice()[..columns * k]
            .par_chunks_mut(kernel.width() * k)
            .zip(rows.par_chunks(kernel.width()))
            .for_each(|(panel, rows)| pack_transposed(panel, rows, kernel.width_for(rows.len())));
        Self { panels, n, k, level }
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
        std::mem::size_of_val(self.panels.as_slice())
    }

    pub(crate) fn kernel(&self) -> &'static Kernel {
        Kernel::of(self.level)
    }

    /// All panels; panel `p` starts at `p * width * k`, and only the last may be narrow.
    pub(crate) fn panels(&self) -> &[f32] {
        self.panels.as_slice()
    }
}

/// `panel[d * width + j] = rows[j][d]`; columns without a row keep what they hold.
fn pack_transposed(panel: &mut [f32], rows: &[&[f32]], width: usize) {
    for (j, row) in rows.iter().enumerate() {
        for (line, &value) in panel.chunks_exact_mut(width).zip(*row) {
            line[j] = value;
        }
    }
}
