//! The kernels for aarch64.
//!
//! Owns: NEON versions of each. Deliberately absent: checks, which are made once per call before.

use std::arch::aarch64::*;

use super::{LINE, Planes};

/// # Safety
/// NEON must be present, every slot within the plane, the query a multiple of 128 long.
#[target_feature(enable = "neon")]
pub(super) unsafe fn coarse(query: &[i8], upper: &[u8], slots: &[u32], out: &mut [i32]) {
    let stride = query.len() / 2;
    let nibble = vdupq_n_u8(15);
    for (&slot, out) in slots.iter().zip(out) {
        let row = &upper[slot as usize * stride..][..stride];
        let mut sum = vdupq_n_s32(0);
        for line in (0..stride).step_by(LINE) {
            for at in (line..line + LINE).step_by(16) {
                // SAFETY: at + 16 <= stride, and the query is twice as long as the stride.
                let (v, q, r) = unsafe {
                    (
                        vld1q_u8(row.as_ptr().add(at)),
                        vld1q_s8(query.as_ptr().add(line + at)),
                        vld1q_s8(query.as_ptr().add(line + at + LINE)),
                    )
                };
                let first = vreinterpretq_s8_u8(vandq_u8(v, nibble));
                let second = vreinterpretq_s8_u8(vshrq_n_u8::<4>(v));
                sum = vpadalq_s16(sum, vmull_s8(vget_low_s8(first), vget_low_s8(q)));
                sum = vpadalq_s16(sum, vmull_high_s8(first, q));
                sum = vpadalq_s16(sum, vmull_s8(vget_low_s8(second), vget_low_s8(r)));
                sum = vpadalq_s16(sum, vmull_high_s8(second, r));
            }
        }
        *out = vaddvq_s32(sum);
    }
}

/// # Safety
/// NEON must be present, every slot within the planes, the query twice as long as their stride.
#[target_feature(enable = "neon")]
pub(super) unsafe fn products(query: &[i16], planes: Planes<'_>, slots: &[u32], out: &mut [i32]) {
    let stride = planes.stride;
    let (nibble, upper_nibble) = (vdupq_n_u8(15), vdupq_n_u8(0xf0));
    for (&slot, out) in slots.iter().zip(out) {
        let upper = &planes.upper[slot as usize * stride..][..stride];
        let lower = &planes.lower[slot as usize * stride..][..stride];
        let mut sum = vdupq_n_s32(0);
        for line in (0..stride).step_by(LINE) {
            for at in (line..line + LINE).step_by(16) {
                // SAFETY: at + 16 <= stride, the length of a row of either plane.
                let (u, l) = unsafe { (vld1q_u8(upper.as_ptr().add(at)), vld1q_u8(lower.as_ptr().add(at))) };
                let first = vorrq_u8(vshlq_n_u8::<4>(u), vandq_u8(l, nibble));
                let second = vorrq_u8(vandq_u8(u, upper_nibble), vshrq_n_u8::<4>(l));
                for (codes, at) in [(first, line + at), (second, line + at + LINE)] {
                    let halves = [vmovl_u8(vget_low_u8(codes)), vmovl_high_u8(codes)];
                    for (i, half) in halves.into_iter().enumerate() {
                        // SAFETY: at + 16 <= 2 * stride, the length of the query.
                        let q = unsafe { vld1q_s16(query.as_ptr().add(at + 8 * i)) };
                        let c = vreinterpretq_s16_u16(half);
                        sum = vmlal_s16(sum, vget_low_s16(q), vget_low_s16(c));
                        sum = vmlal_high_s16(sum, q, c);
                    }
                }
            }
        }
        *out = vaddvq_s32(sum);
    }
}

/// # Safety
/// NEON must be present, every slot within the plane, the row a multiple of 64 long.
#[target_feature(enable = "neon")]
pub(super) unsafe fn coarse_distances(a: &[u8], upper: &[u8], slots: &[u32], out: &mut [i32]) {
    let stride = a.len();
    let nibble = vdupq_n_u8(15);
    for (&slot, out) in slots.iter().zip(out) {
        let row = &upper[slot as usize * stride..][..stride];
        let mut sum = vdupq_n_u32(0);
        for at in (0..stride).step_by(16) {
            // SAFETY: at + 16 <= stride, the length of both rows.
            let (x, y) = unsafe { (vld1q_u8(a.as_ptr().add(at)), vld1q_u8(row.as_ptr().add(at))) };
            let first = vabdq_u8(vandq_u8(x, nibble), vandq_u8(y, nibble));
            let second = vabdq_u8(vshrq_n_u8::<4>(x), vshrq_n_u8::<4>(y));
            for d in [first, second] {
                sum = vpadalq_u16(sum, vmull_u8(vget_low_u8(d), vget_low_u8(d)));
                sum = vpadalq_u16(sum, vmull_high_u8(d, d));
            }
        }
        *out = vaddvq_u32(sum) as i32;
    }
}

/// # Safety
/// NEON must be present, every slot within the codes, the code a multiple of 64 long.
#[target_feature(enable = "neon")]
pub(super) unsafe fn distances(code: &[u8], codes: &[u8], slots: &[u32], out: &mut [i32]) {
    let n = code.len();
    for (&slot, out) in slots.iter().zip(out) {
        let row = &codes[slot as usize * n..][..n];
        let mut sums = [vdupq_n_u32(0); 2];
        for at in (0..n).step_by(16) {
            // SAFETY: at + 16 <= n, the length of both.
            let (a, b) = unsafe { (vld1q_u8(code.as_ptr().add(at)), vld1q_u8(row.as_ptr().add(at))) };
            let d = vabdq_u8(a, b);
            sums[0] = vpadalq_u16(sums[0], vmull_u8(vget_low_u8(d), vget_low_u8(d)));
            sums[1] = vpadalq_u16(sums[1], vmull_high_u8(d, d));
        }
        *out = vaddvq_u32(vaddq_u32(sums[0], sums[1])) as i32;
    }
}
