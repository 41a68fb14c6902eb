//! Run-time choice of instruction set, and the few vector idioms the kernels share.
//!
//! Owns: the `multiversion!` macro, which compiles one body for AVX-512, AVX2 and the portable
//! baseline and picks at run time, and sums, maxima and `exp` in a form the compiler vectorises.
//! Deliberately absent: any knowledge of layers; see `ops` and `gemm`.

/// Compiles a function of slices once per instruction set. The body is inlined into each version,
/// so loops over slices in it are vectorised with the widest registers the machine has.
macro_rules! multiversion {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn wide($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
                #[target_feature(enable = "avx2,fma")]
                fn middle($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
                match $crate::simd::level() {
                    // SAFETY: `level` found every feature that `wide` is compiled for.
                    $crate::simd::Level::Avx512 => return unsafe { wide($($arg),*) },
                    // SAFETY: `level` found every feature that `middle` is compiled for.
                    $crate::simd::Level::Avx2 => return unsafe { middle($($arg),*) },
                    $crate::simd::Level::Portable => {}
                }
            }
            body($($arg),*)
        }
    };
}
pub(crate) use multiversion;

/// What the machine can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub(crate) enum Level {
    /// The baseline the program was compiled for.
    Portable,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// x86-64 with the AVX-512 subsets every AVX-512 server has.
    Avx512,
}

/// The best instruction set of this machine. The answer is cached by the standard library.
#[inline]
pub(crate) fn level() -> Level {
    #[cfg(target_arch = "x86_64")]
    {
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        if avx2
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
        {
            return Level::Avx512;
        }
        if avx2 {
            return Level::Avx2;
        }
    }
    Level::Portable
}

/// Independent partial sums, so that the order of additions does not forbid vectors.
pub(crate) const LANES: usize = 16;

/// Sum of `f(a, b)` over two slices of equal length.
macro_rules! lane_sum {
    ($a:expr, $b:expr, |$x:ident, $y:ident| $e:expr) => {{
        let (a, b): (&[f32], &[f32]) = ($a, $b);
        let mut lanes = [0f32; $crate::simd::LANES];
        let mut total = 0f32;
        let mut ca = a.chunks_exact($crate::simd::LANES);
        let mut cb = b.chunks_exact($crate::simd::LANES);
        for (pa, pb) in (&mut ca).zip(&mut cb) {
            for i in 0..$crate::simd::LANES {
                let ($x, $y) = (pa[i], pb[i]);
                lanes[i] += $e;
            }
        }
        for (&$x, &$y) in ca.remainder().iter().zip(cb.remainder()) {
            total += $e;
        }
        for lane in lanes {
            total += lane;
        }
        total
    }};
}
pub(crate) use lane_sum;

/// Sum of products.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    lane_sum!(a, b, |x, y| x * y)
}

/// Sum.
#[inline(always)]
pub(crate) fn sum(a: &[f32]) -> f32 {
    lane_sum!(a, a, |x, _y| x)
}

/// Largest value; negative infinity for no values.
#[inline(always)]
pub(crate) fn max(a: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let mut chunks = a.chunks_exact(LANES);
    for chunk in &mut chunks {
        for i in 0..LANES {
            lanes[i] = if chunk[i] > lanes[i] { chunk[i] } else { lanes[i] };
        }
    }
    let mut best = f32::NEG_INFINITY;
    for &x in chunks.remainder().iter().chain(&lanes) {
        best = if x > best { x } else { best };
    }
    best
}

/// `e^x` to about 2 units in the last place, branch-free; NaN stays NaN, large magnitudes saturate.
/// Cody-Waite reduction and the degree-6 polynomial of Cephes `expf`.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + MAGIC;
    let n = shifted - MAGIC;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4f32;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let e = p * r * r + r + 1.0;
    let power = (shifted.to_bits() as i32).wrapping_sub(0x4b40_0000).wrapping_add(127) << 23;
    e * f32::from_bits(power as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_follows_the_library_function() {
        for i in -8700..8800 {
            let x = i as f32 / 100.0;
            let (ours, theirs) = (exp(x), x.exp());
            assert!((ours - theirs).abs() <= 4e-7 * theirs, "exp({x}) = {ours}, expected {theirs}");
        }
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn sums_and_maxima_cover_the_remainder() {
        let values: Vec<f32> = (0..37).map(|i| i as f32).collect();
        assert_eq!(sum(&values), 666.0);
        assert_eq!(max(&values), 36.0);
        assert_eq!(dot(&values, &values), (0..37).map(|i| (i * i) as f32).sum::<f32>());
    }
}
