//! The tiles of the baseline: arrays that the compiler maps to what the target always has.
//!
//! Owns: the sizes that suit such targets. Deliberately absent: anything that needs detecting.

use super::*;

/// Of the width that suits the target's registers: 32 of 128 bits on aarch64, 16 on x86-64.
#[cfg(target_arch = "aarch64")]
pub(super) const LANES: usize = 8;
#[cfg(not(target_arch = "aarch64"))]
pub(super) const LANES: usize = 4;

#[derive(Clone, Copy)]
struct Array([f32; LANES]);

// SAFETY: no CPU features are needed; loads and stores touch `LANES` elements.
unsafe impl Vector for Array {
    const LANES: usize = LANES;

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([0.0; LANES])
    }

    #[inline(always)]
    unsafe fn splat(p: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self([unsafe { *p }; LANES])
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { p.cast::<[f32; LANES]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { p.cast::<[f32; LANES]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn add(mut self, x: Self) -> Self {
        for (a, b) in self.0.iter_mut().zip(x.0) {
            *a += b;
        }
        self
    }

    #[inline(always)]
    unsafe fn add_product(mut self, x: Self, y: Self) -> Self {
        for i in 0..LANES {
            self.0[i] = if cfg!(target_arch = "aarch64") {
                x.0[i].mul_add(y.0[i], self.0[i])
            } else {
                self.0[i] + x.0[i] * y.0[i]
            };
        }
        self
    }

    #[inline(always)]
    unsafe fn prefetch(_: *const f32) {}
}

#[cfg(target_arch = "aarch64")]
kernel!(PORTABLE, Array, 6, 8, true, [], [1 2 3 4 5 6]);
#[cfg(not(target_arch = "aarch64"))]
kernel!(PORTABLE, Array, 4, 4, false, [], [1 2 3 4]);
