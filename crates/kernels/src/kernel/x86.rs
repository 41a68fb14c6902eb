//! The tiles of AVX-512 and of AVX2 with FMA.
//!
//! Owns: the two vector types and the heights that fill their registers. Deliberately absent: the
//! detection of either (see `simd`).

use std::arch::x86_64::*;

use super::*;

// SAFETY: AVX-512F; loads and stores touch 16 elements.
unsafe impl Vector for __m512 {
    const LANES: usize = 16;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller's promise, here and below.
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn splat(p: *const f32) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_set1_ps(*p) }
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_loadu_ps(p) }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: as above.
        unsafe { _mm512_storeu_ps(p, self) }
    }

    #[inline(always)]
    unsafe fn add(self, x: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_add_ps(self, x) }
    }

    #[inline(always)]
    unsafe fn add_product(self, x: Self, y: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_fmadd_ps(x, y, self) }
    }

    #[inline(always)]
    unsafe fn prefetch(p: *const f32) {
        // SAFETY: a prefetch does not fault.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
}

// SAFETY: AVX2 and FMA; loads and stores touch 8 elements.
unsafe impl Vector for __m256 {
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller's promise, here and below.
        unsafe { _mm256_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn splat(p: *const f32) -> Self {
        // SAFETY: as above.
        unsafe { _mm256_set1_ps(*p) }
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: as above.
        unsafe { _mm256_loadu_ps(p) }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: as above.
        unsafe { _mm256_storeu_ps(p, self) }
    }

    #[inline(always)]
    unsafe fn add(self, x: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm256_add_ps(self, x) }
    }

    #[inline(always)]
    unsafe fn add_product(self, x: Self, y: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm256_fmadd_ps(x, y, self) }
    }

    #[inline(always)]
    unsafe fn prefetch(p: *const f32) {
        // SAFETY: a prefetch does not fault.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
}

kernel!(AVX512, __m512, 14, 16, true, ["avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"],
    [1 2 3 4 5 6 7 8 9 10 11 12 13 14]);
kernel!(AVX2, __m256, 6, 8, true, ["avx2,fma"], [1 2 3 4 5 6]);
