//! Run-time choice of instruction set, and the few vector idioms the kernels share.
//!
//! Owns: the `multiversion!` macro, which compiles one body for AVX-512, AVX2 and the portable
//! baseline and picks at run time, and sums and maxima in a form the compiler vectorises.
//! Deliberately absent: any knowledge of layers, and hand-written vector code (see `kernel`).

/// Compiles a function of slices once per instruction set. The body is inlined into each version,
/// so loops over slices in it are vectorised with the widest registers the machine has. The body may
/// name the constant `FUSED`: whether `f32::mul_add` is one instruction in the version at hand.
#[macro_export]
macro_rules! multiversion {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body<const FUSED: bool>($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn wide($($arg: $ty),*) $(-> $ret)? { body::<true>($($arg),*) }
                #[target_feature(enable = "avx2,fma")]
                fn middle($($arg: $ty),*) $(-> $ret)? { body::<true>($($arg),*) }
                match $crate::level() {
                    // SAFETY: `level` found every feature that `wide` is compiled for.
                    $crate::Level::Avx512 => return unsafe { wide($($arg),*) },
                    // SAFETY: `level` found every feature that `middle` is compiled for.
                    $crate::Level::Avx2 => return unsafe { middle($($arg),*) },
                    $crate::Level::Portable => {}
                }
            }
            body::<{ cfg!(target_arch = "aarch64") }>($($arg),*)
        }
    };
}

/// What the machine can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The baseline the program was compiled for.
    Portable,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// x86-64 with the AVX-512 subsets every AVX-512 server has.
    Avx512,
}

#[cfg(test)]
impl Level {
    /// Every level that this machine can run.
    pub(crate) fn available() -> impl Iterator<Item = Self> {
        [Self::Portable, Self::Avx2, Self::Avx512].into_iter().filter(|l| *l <= level())
    }
}

/// Reproducible values in -1..1.
#[cfg(test)]
pub(crate) fn noise(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

/// The best instruction set of this machine. The answer is cached by the standard library.
#[inline]
pub fn level() -> Level {
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

/// Number of independent partial sums of [`lane_sum!`](crate::lane_sum), so that the order of additions
/// does not forbid vectors.
pub const LANES: usize = 16;

/// Sum of `f(a, b)` over two slices of equal length.
#[macro_export]
macro_rules! lane_sum {
    ($a:expr, $b:expr, |$x:ident, $y:ident| $e:expr) => {{
        let (a, b): (&[f32], &[f32]) = ($a, $b);
        let mut lanes = [0f32; $crate::LANES];
        let mut total = 0f32;
        let mut ca = a.chunks_exact($crate::LANES);
        let mut cb = b.chunks_exact($crate::LANES);
        for (pa, pb) in (&mut ca).zip(&mut cb) {
            for i in 0..$crate::LANES {
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

/// Sum of products.
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    lane_sum!(a, b, |x, y| x * y)
}

/// Sum.
#[inline(always)]
pub fn sum(a: &[f32]) -> f32 {
    lane_sum!(a, a, |x, _y| x)
}

/// Largest value; negative infinity for no values. NaN is passed over.
#[inline(always)]
pub fn max(a: &[f32]) -> f32 {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_maxima_cover_the_remainder() {
        let values: Vec<f32> = (0..37).map(|i| i as f32).collect();
        assert_eq!(sum(&values), 666.0);
        assert_eq!(max(&values), 36.0);
        assert_eq!(dot(&values, &values), (0..37).map(|i| (i * i) as f32).sum::<f32>());
    }
}
