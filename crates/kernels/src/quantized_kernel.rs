//! Register tiles of 8-bit integers, exact in every instruction set.
//!
//! Owns: sums of products of unsigned and signed bytes in 32 bits, four along the depth at a time.
//! Deliberately absent: scales and zero points (see `quantized`).

use crate::simd::{Level, level};

/// `c[i][j] = sum_d a[i * row + d] * b[d / 4][j][d % 4]` for d up to `4 * quads`, where b has as many
/// columns as the tile and c is dense.
///
/// # Safety
/// All elements named above are readable or, for c, writable; the CPU has the kernel's features.
pub(crate) type Tile = unsafe fn(quads: usize, a: *const u8, row: usize, b: *const i8, c: *mut i32);

/// Rows of the tallest tile of any instruction set.
pub(crate) const ROWS_MAX: usize = 14;

/// Instruction sets with a kernel of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub(crate) enum Set {
    Portable,
    Avx2,
    /// AVX-512 with the instruction made for this sum.
    Vnni,
}

impl Set {
    /// The best of this machine.
    pub(crate) fn detected() -> Self {
        #[cfg(target_arch = "x86_64")]
        if level() == Level::Avx512 && is_x86_feature_detected!("avx512vnni") {
            return Self::Vnni;
        }
        if level() >= Level::Avx2 { Self::Avx2 } else { Self::Portable }
    }

    /// The level whose tiles of floats are as wide as this set's, or twice as wide.
    pub(crate) fn level(self) -> Level {
        match self {
            Self::Portable => Level::Portable,
            Self::Avx2 => Level::Avx2,
            Self::Vnni => Level::Avx512,
        }
    }
}

/// The tiles of one instruction set.
pub(crate) struct Kernel {
    /// Columns of a tile.
    pub width: usize,
    /// One tile for each number of rows, from 1.
    pub tiles: &'static [Tile],
}

impl Kernel {
    pub(crate) fn of(set: Set) -> &'static Self {
        match set {
            #[cfg(target_arch = "x86_64")]
            Set::Vnni => &x86::VNNI,
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => &x86::AVX2,
            _ => &PORTABLE,
        }
    }
}

static PORTABLE: Kernel =
    Kernel { width: 8, tiles: &[portable::<1>, portable::<2>, portable::<3>, portable::<4>] };

unsafe fn portable<const R: usize>(quads: usize, a: *const u8, row: usize, b: *const i8, c: *mut i32) {
    let mut sums = [[0i32; 8]; R];
    for q in 0..quads {
        // SAFETY: the contract of `Tile`.
        let w = unsafe { b.add(q * 32).cast::<[[i8; 4]; 8]>().read() };
        for (i, sums) in sums.iter_mut().enumerate() {
            // SAFETY: as above.
            let x = unsafe { a.add(i * row + q * 4).cast::<[u8; 4]>().read() };
            for (sum, w) in sums.iter_mut().zip(&w) {
                for (x, w) in x.iter().zip(w) {
                    *sum += i32::from(*x) * i32::from(*w);
                }
            }
        }
    }
    // SAFETY: as above.
    unsafe { c.cast::<[[i32; 8]; R]>().write_unaligned(sums) };
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::*;

    pub(super) static VNNI: Kernel = Kernel {
        width: 32,
        tiles: &[
            vnni::<1>, vnni::<2>, vnni::<3>, vnni::<4>, vnni::<5>, vnni::<6>, vnni::<7>, vnni::<8>,
            vnni::<9>, vnni::<10>, vnni::<11>, vnni::<12>, vnni::<13>, vnni::<14>,
        ],
    };

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn vnni<const R: usize>(quads: usize, a: *const u8, row: usize, b: *const i8, c: *mut i32) {
        let mut sums = [[_mm512_setzero_si512(); 2]; R];
        for q in 0..quads {
            // SAFETY: the contract of `Tile`.
            unsafe {
                let w = b.add(q * 128);
                let w = [_mm512_loadu_si512(w.cast()), _mm512_loadu_si512(w.add(64).cast())];
                for (i, sums) in sums.iter_mut().enumerate() {
                    let x = _mm512_set1_epi32(a.add(i * row + q * 4).cast::<i32>().read_unaligned());
                    sums[0] = _mm512_dpbusd_epi32(sums[0], x, w[0]);
                    sums[1] = _mm512_dpbusd_epi32(sums[1], x, w[1]);
                }
            }
        }
        for (i, sum) in sums.as_flattened().iter().enumerate() {
            // SAFETY: as above.
            unsafe { _mm512_storeu_si512(c.add(i * 16).cast(), *sum) };
        }
    }

    pub(super) static AVX2: Kernel =
        Kernel { width: 8, tiles: &[avx2::<1>, avx2::<2>, avx2::<3>, avx2::<4>, avx2::<5>, avx2::<6>] };

    /// Bytes are widened to 16 bits first: the instruction that multiplies bytes saturates.
    #[target_feature(enable = "avx2")]
    unsafe fn avx2<const R: usize>(quads: usize, a: *const u8, row: usize, b: *const i8, c: *mut i32) {
        let mut sums = [[_mm256_setzero_si256(); 2]; R];
        for q in 0..quads {
            // SAFETY: the contract of `Tile`.
            unsafe {
                let w = b.add(q * 32);
                let w = [
                    _mm256_cvtepi8_epi16(_mm_loadu_si128(w.cast())),
                    _mm256_cvtepi8_epi16(_mm_loadu_si128(w.add(16).cast())),
                ];
                for (i, sums) in sums.iter_mut().enumerate() {
                    let x = _mm_set1_epi32(a.add(i * row + q * 4).cast::<i32>().read_unaligned());
                    let x = _mm256_cvtepu8_epi16(x);
                    sums[0] = _mm256_add_epi32(sums[0], _mm256_madd_epi16(x, w[0]));
                    sums[1] = _mm256_add_epi32(sums[1], _mm256_madd_epi16(x, w[1]));
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            // Two partial sums a column; adding neighbours leaves columns 0 1 4 5 2 3 6 7.
            let sum = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_hadd_epi32(sums[0], sums[1]));
            // SAFETY: as above.
            unsafe { _mm256_storeu_si256(c.add(i * 8).cast(), sum) };
        }
    }
}
