//! The kernels for x86-64.
//!
//! Owns: AVX2 and AVX-512 VNNI versions of each. Deliberately absent: checks, which are made once per
//! call before.

use std::arch::x86_64::*;

use super::{AHEAD, LINE, Planes};

/// Asks for a row ahead of its use.
#[inline(always)]
fn prefetch(plane: &[u8], stride: usize, slot: u32) {
    let start = plane.as_ptr().wrapping_add(slot as usize * stride);
    for at in (0..stride).step_by(LINE) {
        // SAFETY: a prefetch of any address is harmless, and SSE is part of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(at).cast()) };
    }
}

/// Computes a number from the place of each slot's row in each plane, with the rows after it on their
/// way.
macro_rules! for_each_row {
    ($stride:expr, $slots:expr, $out:expr, [$($row:ident in $plane:expr),+] $number:expr) => {
        for &slot in $slots.iter().take(AHEAD) {
            $(prefetch($plane, $stride, slot);)+
        }
        for (i, (&slot, out)) in $slots.iter().zip($out).enumerate() {
            if let Some(&next) = $slots.get(i + AHEAD) {
                $(prefetch($plane, $stride, next);)+
            }
            $(let $row = $plane.as_ptr().wrapping_add(slot as usize * $stride);)+
            *out = $number;
        }
    };
}

/// # Safety
/// AVX2 must be present, every slot within the plane, the query a multiple of 128 long.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn coarse_avx2(query: &[i8], upper: &[u8], slots: &[u32], out: &mut [i32]) {
    let stride = query.len() / 2;
    let (nibble, ones) = (_mm256_set1_epi8(15), _mm256_set1_epi16(1));
    for_each_row!(stride, slots, out, [row in upper] {
        let mut sum = _mm256_setzero_si256();
        for line in (0..stride).step_by(LINE) {
            for at in [line, line + 32] {
                // SAFETY: at + 32 <= stride, and query[..2 * stride] has both halves of the line.
                let (v, q, r) = unsafe {
                    (
                        _mm256_loadu_si256(row.add(at).cast()),
                        _mm256_loadu_si256(query.as_ptr().add(line + at).cast()),
                        _mm256_loadu_si256(query.as_ptr().add(line + at + LINE).cast()),
                    )
                };
                // Four products of at most 15 * 127 fit 16 bits.
                let first = _mm256_maddubs_epi16(_mm256_and_si256(v, nibble), q);
                let second = _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16::<4>(v), nibble), r);
                sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_add_epi16(first, second), ones));
            }
        }
        total(sum)
    });
}

/// # Safety
/// AVX2 must be present, every slot within the planes, the query twice as long as their stride.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn products_avx2(query: &[i16], planes: Planes<'_>, slots: &[u32], out: &mut [i32]) {
    let stride = planes.stride;
    let (nibble, upper_nibble) = (_mm256_set1_epi8(15), _mm256_set1_epi8(-16));
    for_each_row!(stride, slots, out, [upper in planes.upper, lower in planes.lower] {
        let mut sum = _mm256_setzero_si256();
        for line in (0..stride).step_by(LINE) {
            for at in [line, line + 32] {
                // SAFETY: at + 32 <= stride, the length of a row of either plane.
                let (u, l) = unsafe {
                    (_mm256_loadu_si256(upper.add(at).cast()), _mm256_loadu_si256(lower.add(at).cast()))
                };
                let u_first = _mm256_slli_epi16::<4>(_mm256_and_si256(u, nibble));
                let first = _mm256_or_si256(u_first, _mm256_and_si256(l, nibble));
                let l_second = _mm256_and_si256(_mm256_srli_epi16::<4>(l), nibble);
                let second = _mm256_or_si256(_mm256_and_si256(u, upper_nibble), l_second);
                for (codes, at) in [(first, line + at), (second, line + at + LINE)] {
                    let halves = [_mm256_castsi256_si128(codes), _mm256_extracti128_si256::<1>(codes)];
                    for (i, half) in halves.into_iter().enumerate() {
                        // SAFETY: at + 32 <= 2 * stride, the length of the query.
                        let q = unsafe { _mm256_loadu_si256(query.as_ptr().add(at + 16 * i).cast()) };
                        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(q, _mm256_cvtepu8_epi16(half)));
                    }
                }
            }
        }
        total(sum)
    });
}

/// # Safety
/// AVX2 must be present, every slot within the plane, the row a multiple of 64 long.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn coarse_distances_avx2(a: &[u8], upper: &[u8], slots: &[u32], out: &mut [i32]) {
    let stride = a.len();
    let (nibble, ones) = (_mm256_set1_epi8(15), _mm256_set1_epi16(1));
    for_each_row!(stride, slots, out, [row in upper] {
        let mut sum = _mm256_setzero_si256();
        for at in (0..stride).step_by(32) {
            // SAFETY: at + 32 <= stride, the length of both rows.
            let (x, y) = unsafe {
                (_mm256_loadu_si256(a.as_ptr().add(at).cast()), _mm256_loadu_si256(row.add(at).cast()))
            };
            let (x2, y2) = (_mm256_srli_epi16::<4>(x), _mm256_srli_epi16::<4>(y));
            let first = _mm256_sub_epi8(_mm256_and_si256(x, nibble), _mm256_and_si256(y, nibble));
            let second = _mm256_sub_epi8(_mm256_and_si256(x2, nibble), _mm256_and_si256(y2, nibble));
            // Differences of at most 15: four squares fit 16 bits.
            let (first, second) = (_mm256_abs_epi8(first), _mm256_abs_epi8(second));
            let squares = _mm256_add_epi16(
                _mm256_maddubs_epi16(first, first),
                _mm256_maddubs_epi16(second, second),
            );
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(squares, ones));
        }
        total(sum)
    });
}

/// # Safety
/// AVX2 must be present, every slot within the codes, the code a multiple of 64 long.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn distances_avx2(code: &[u8], codes: &[u8], slots: &[u32], out: &mut [i32]) {
    let n = code.len();
    for_each_row!(n, slots, out, [row in codes] {
        let mut sums = [_mm256_setzero_si256(); 2];
        for at in (0..n).step_by(32) {
            for (half, sum) in sums.iter_mut().enumerate() {
                let at = at + 16 * half;
                // SAFETY: at + 16 <= n, the length of the code and of every row.
                let (a, b) = unsafe {
                    (_mm_loadu_si128(code.as_ptr().add(at).cast()), _mm_loadu_si128(row.add(at).cast()))
                };
                let d = _mm256_sub_epi16(_mm256_cvtepu8_epi16(a), _mm256_cvtepu8_epi16(b));
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(d, d));
            }
        }
        total(_mm256_add_epi32(sums[0], sums[1]))
    });
}

#[target_feature(enable = "avx2")]
fn total(sum: __m256i) -> i32 {
    let half = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
    let quarter = _mm_add_epi32(half, _mm_unpackhi_epi64(half, half));
    _mm_cvtsi128_si32(_mm_add_epi32(quarter, _mm_shuffle_epi32::<0b01>(quarter)))
}

/// # Safety
/// AVX-512 BW and VNNI must be present, every slot within the plane, the query a multiple of 128 long.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) unsafe fn coarse_avx512(query: &[i8], upper: &[u8], slots: &[u32], out: &mut [i32]) {
    let stride = query.len() / 2;
    let nibble = _mm512_set1_epi8(15);
    for_each_row!(stride, slots, out, [row in upper] {
        let mut sums = [_mm512_setzero_si512(); 2];
        for at in (0..stride).step_by(LINE) {
            // SAFETY: at + 64 <= stride, and the query is twice as long as the stride.
            let (v, q, r) = unsafe {
                (
                    _mm512_loadu_si512(row.add(at).cast()),
                    _mm512_loadu_si512(query.as_ptr().add(2 * at).cast()),
                    _mm512_loadu_si512(query.as_ptr().add(2 * at + LINE).cast()),
                )
            };
            sums[0] = _mm512_dpbusd_epi32(sums[0], _mm512_and_si512(v, nibble), q);
            let second = _mm512_and_si512(_mm512_srli_epi16::<4>(v), nibble);
            sums[1] = _mm512_dpbusd_epi32(sums[1], second, r);
        }
        _mm512_reduce_add_epi32(_mm512_add_epi32(sums[0], sums[1]))
    });
}

/// # Safety
/// AVX-512 BW and VNNI must be present, every slot within the planes, `split` four times as long as
/// their stride.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) unsafe fn products_avx512(split: &[i8], planes: Planes<'_>, slots: &[u32], out: &mut [i32]) {
    let stride = planes.stride;
    let (high, low) = split.split_at(split.len() / 2);
    let (nibble, upper_nibble) = (_mm512_set1_epi8(15), _mm512_set1_epi8(-16));
    for_each_row!(stride, slots, out, [upper in planes.upper, lower in planes.lower] {
        let mut highs = _mm512_setzero_si512();
        let mut lows = _mm512_setzero_si512();
        for at in (0..stride).step_by(LINE) {
            // SAFETY: at + 64 <= stride, the length of a row of either plane.
            let (u, l) =
                unsafe { (_mm512_loadu_si512(upper.add(at).cast()), _mm512_loadu_si512(lower.add(at).cast())) };
            let u_first = _mm512_slli_epi16::<4>(_mm512_and_si512(u, nibble));
            let first = _mm512_or_si512(u_first, _mm512_and_si512(l, nibble));
            let l_second = _mm512_and_si512(_mm512_srli_epi16::<4>(l), nibble);
            let second = _mm512_or_si512(_mm512_and_si512(u, upper_nibble), l_second);
            for (codes, at) in [(first, 2 * at), (second, 2 * at + LINE)] {
                // SAFETY: at + 64 <= 2 * stride, the length of both halves of the query.
                let (h, l) = unsafe {
                    (
                        _mm512_loadu_si512(high.as_ptr().add(at).cast()),
                        _mm512_loadu_si512(low.as_ptr().add(at).cast()),
                    )
                };
                highs = _mm512_dpbusd_epi32(highs, codes, h);
                lows = _mm512_dpbusd_epi32(lows, codes, l);
            }
        }
        _mm512_reduce_add_epi32(_mm512_add_epi32(_mm512_slli_epi32::<7>(highs), lows))
    });
}

/// # Safety
/// AVX-512 BW and VNNI must be present, every slot within the plane, the row a multiple of 64 long.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) unsafe fn coarse_distances_avx512(a: &[u8], upper: &[u8], slots: &[u32], out: &mut [i32]) {
    let stride = a.len();
    let nibble = _mm512_set1_epi8(15);
    for_each_row!(stride, slots, out, [row in upper] {
        let mut sums = [_mm512_setzero_si512(); 2];
        for at in (0..stride).step_by(LINE) {
            // SAFETY: at + 64 <= stride, the length of both rows.
            let (x, y) = unsafe {
                (_mm512_loadu_si512(a.as_ptr().add(at).cast()), _mm512_loadu_si512(row.add(at).cast()))
            };
            let (x2, y2) = (_mm512_srli_epi16::<4>(x), _mm512_srli_epi16::<4>(y));
            let first = _mm512_sub_epi8(_mm512_and_si512(x, nibble), _mm512_and_si512(y, nibble));
            let second = _mm512_sub_epi8(_mm512_and_si512(x2, nibble), _mm512_and_si512(y2, nibble));
            let (first, second) = (_mm512_abs_epi8(first), _mm512_abs_epi8(second));
            sums[0] = _mm512_dpbusd_epi32(sums[0], first, first);
            sums[1] = _mm512_dpbusd_epi32(sums[1], second, second);
        }
        _mm512_reduce_add_epi32(_mm512_add_epi32(sums[0], sums[1]))
    });
}

/// # Safety
/// AVX-512 BW and VNNI must be present, every slot within the codes, the code a multiple of 64 long.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) unsafe fn distances_avx512(code: &[u8], codes: &[u8], slots: &[u32], out: &mut [i32]) {
    let n = code.len();
    for_each_row!(n, slots, out, [row in codes] {
        let mut sums = [_mm512_setzero_si512(); 2];
        for at in (0..n).step_by(64) {
            for (half, sum) in sums.iter_mut().enumerate() {
                let at = at + 32 * half;
                // SAFETY: at + 32 <= n, the length of the code and of every row.
                let (a, b) = unsafe {
                    (_mm256_loadu_si256(code.as_ptr().add(at).cast()), _mm256_loadu_si256(row.add(at).cast()))
                };
                let d = _mm512_sub_epi16(_mm512_cvtepu8_epi16(a), _mm512_cvtepu8_epi16(b));
                *sum = _mm512_dpwssd_epi32(*sum, d, d);
            }
        }
        _mm512_reduce_add_epi32(_mm512_add_epi32(sums[0], sums[1]))
    });
}
