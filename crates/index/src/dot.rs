//! The inner product of two `f32` vectors, as fast as the machine allows.
//!
//! Owns: the kernels and the choice between them, made once at run time, so that one binary runs on
//! any x86-64 or aarch64. Deliberately absent: norms and clamping. Embeddings are of unit norm
//! already, and what a distance is belongs to the graph.

use diptych_core::Embedding;

/// The cosine of a vector with a query, to the bit as every index reckons it: for vectors that are compared
/// without one.
pub fn cosine_with(query: &Embedding) -> impl Fn(&Embedding) -> f32 {
    let dot = Dot::detect();
    move |vector| dot.product(query.as_slice(), vector.as_slice())
}

/// An inner product whose kernel has been chosen for this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dot {
    // Private: a kernel may only be named after its instructions were detected.
    kernel: Kernel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kernel {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Dot {
    /// The fastest kernel this machine can run.
    pub(crate) fn detect() -> Self {
        *Self::available().last().expect("the scalar kernel is always available")
    }

    /// Every kernel this machine can run, slowest first.
    pub(crate) fn available() -> Vec<Self> {
        #[allow(unused_mut)] // nothing to add on other architectures
        let mut kernels = vec![Kernel::Scalar];
        #[cfg(target_arch = "x86_64")]
        {
            if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
                kernels.push(Kernel::Avx2);
            }
            if std::arch::is_x86_feature_detected!("avx512f") {
                kernels.push(Kernel::Avx512);
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("neon") {
            kernels.push(Kernel::Neon);
        }
        kernels.into_iter().map(|kernel| Self { kernel }).collect()
    }

    /// The inner product of two vectors of the same length.
    ///
    /// # Panics
    /// When the lengths differ: the kernels read both up to the length of the first.
    #[inline]
    pub(crate) fn product(self, a: &[f32], b: &[f32]) -> f32 {
        assert_eq!(a.len(), b.len(), "an inner product needs vectors of one length");
        match self.kernel {
            Kernel::Scalar => scalar(a, b),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this kernel is only chosen where AVX2 and FMA were detected; lengths are equal.
            Kernel::Avx2 => unsafe { x86::avx2(a, b) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this kernel is only chosen where AVX-512F was detected; lengths are equal.
            Kernel::Avx512 => unsafe { x86::avx512(a, b) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: this kernel is only chosen where NEON was detected; lengths are equal.
            Kernel::Neon => unsafe { arm::neon(a, b) },
        }
    }
}

/// Eight running sums, which the compiler can keep in whatever vector registers the baseline has.
fn scalar(a: &[f32], b: &[f32]) -> f32 {
    let (a_blocks, a_rest) = a.as_chunks::<8>();
    let (b_blocks, b_rest) = b.as_chunks::<8>();
    let mut sums = [0.0f32; 8];
    for (x, y) in a_blocks.iter().zip(b_blocks) {
        for lane in 0..8 {
            sums[lane] += x[lane] * y[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum();
    sums.iter().sum::<f32>() + rest
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    /// # Safety
    /// AVX2 and FMA must be present, and `b` at least as long as `a`.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn avx2(a: &[f32], b: &[f32]) -> f32 {
        let n = a.len();
        let (pa, pb) = (a.as_ptr(), b.as_ptr());
        // Four sums hide the latency of the multiply-add.
        let mut sums = [_mm256_setzero_ps(); 4];
        let mut i = 0;
        while i + 32 <= n {
            for (lane, sum) in sums.iter_mut().enumerate() {
                let at = i + 8 * lane;
                // SAFETY: at + 8 <= i + 32 <= n, and b is as long as a.
                let (x, y) = unsafe { (_mm256_loadu_ps(pa.add(at)), _mm256_loadu_ps(pb.add(at))) };
                *sum = _mm256_fmadd_ps(x, y, *sum);
            }
            i += 32;
        }
        while i + 8 <= n {
            // SAFETY: i + 8 <= n, and b is as long as a.
            let (x, y) = unsafe { (_mm256_loadu_ps(pa.add(i)), _mm256_loadu_ps(pb.add(i))) };
            sums[0] = _mm256_fmadd_ps(x, y, sums[0]);
            i += 8;
        }
        let sum = _mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3]));
        let half = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps::<1>(sum));
        let quarter = _mm_add_ps(half, _mm_movehl_ps(half, half));
        let total = _mm_cvtss_f32(_mm_add_ss(quarter, _mm_movehdup_ps(quarter)));
        total + a[i..].iter().zip(&b[i..]).map(|(x, y)| x * y).sum::<f32>()
    }

    /// # Safety
    /// AVX-512F must be present, and `b` at least as long as `a`.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn avx512(a: &[f32], b: &[f32]) -> f32 {
        let n = a.len();
        let (pa, pb) = (a.as_ptr(), b.as_ptr());
        let mut sums = [_mm512_setzero_ps(); 4];
        let mut i = 0;
        while i + 64 <= n {
            for (lane, sum) in sums.iter_mut().enumerate() {
                let at = i + 16 * lane;
                // SAFETY: at + 16 <= i + 64 <= n, and b is as long as a.
                let (x, y) = unsafe { (_mm512_loadu_ps(pa.add(at)), _mm512_loadu_ps(pb.add(at))) };
                *sum = _mm512_fmadd_ps(x, y, *sum);
            }
            i += 64;
        }
        while i < n {
            let mask = if n - i >= 16 { u16::MAX } else { (1u16 << (n - i)) - 1 };
            // SAFETY: only the min(16, n - i) lanes of the mask are read, all of them below n.
            let (x, y) =
                unsafe { (_mm512_maskz_loadu_ps(mask, pa.add(i)), _mm512_maskz_loadu_ps(mask, pb.add(i))) };
            sums[0] = _mm512_fmadd_ps(x, y, sums[0]);
            i += 16;
        }
        let sum = _mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3]));
        _mm512_reduce_add_ps(sum)
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use std::arch::aarch64::*;

    /// # Safety
    /// NEON must be present, and `b` at least as long as `a`.
    #[target_feature(enable = "neon")]
    pub(super) unsafe fn neon(a: &[f32], b: &[f32]) -> f32 {
        let n = a.len();
        let (pa, pb) = (a.as_ptr(), b.as_ptr());
        let mut sums = [vdupq_n_f32(0.0); 4];
        let mut i = 0;
        while i + 16 <= n {
            for (lane, sum) in sums.iter_mut().enumerate() {
                let at = i + 4 * lane;
                // SAFETY: at + 4 <= i + 16 <= n, and b is as long as a.
                let (x, y) = unsafe { (vld1q_f32(pa.add(at)), vld1q_f32(pb.add(at))) };
                *sum = vfmaq_f32(*sum, x, y);
            }
            i += 16;
        }
        let sum = vaddq_f32(vaddq_f32(sums[0], sums[1]), vaddq_f32(sums[2], sums[3]));
        vaddvq_f32(sum) + a[i..].iter().zip(&b[i..]).map(|(x, y)| x * y).sum::<f32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn reference(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
    }

    fn vector(rng: &mut ChaCha8Rng, dim: usize) -> Vec<f32> {
        (0..dim).map(|_| rng.random_range(-1.0f32..1.0)).collect()
    }

    #[test]
    fn every_kernel_agrees_with_f64_at_every_length() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for dim in (1..=200).chain([255, 256, 257, 511, 512, 513, 768, 1023, 1024, 2049]) {
            let (a, b) = (vector(&mut rng, dim), vector(&mut rng, dim));
            let bound = 1e-6 * dim as f64;
            for dot in Dot::available() {
                let found = f64::from(dot.product(&a, &b));
                let expected = reference(&a, &b);
                assert!((found - expected).abs() <= bound, "{dot:?} at {dim}: {found} is not {expected}");
            }
        }
    }

    #[test]
    fn kernels_read_nothing_beyond_the_slice() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        for dim in 1..=100 {
            let (mut a, b) = (vector(&mut rng, dim + 64), vector(&mut rng, dim + 64));
            let clean: Vec<f32> = Dot::available().iter().map(|d| d.product(&a[..dim], &b[..dim])).collect();
            a[dim..].fill(f32::NAN);
            let dirty: Vec<f32> = Dot::available().iter().map(|d| d.product(&a[..dim], &b[..dim])).collect();
            assert_eq!(clean, dirty, "at {dim} dimensions");
        }
    }

    #[test]
    fn odd_starts_in_memory_change_nothing() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let (a, b) = (vector(&mut rng, 600), vector(&mut rng, 600));
        for dot in Dot::available() {
            for start in 0..17 {
                let found = dot.product(&a[start..start + 515], &b[start..start + 515]);
                let (x, y) = (a[start..start + 515].to_vec(), b[start..start + 515].to_vec());
                let moved = dot.product(&x, &y);
                assert_eq!(found.to_bits(), moved.to_bits(), "{dot:?} from {start}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "vectors of one length")]
    fn lengths_must_agree() {
        Dot::detect().product(&[1.0, 0.0], &[1.0]);
    }

    #[test]
    fn the_scalar_kernel_is_first_and_the_fastest_is_chosen() {
        let available = Dot::available();
        assert_eq!(available[0].kernel, Kernel::Scalar);
        assert_eq!(available.last(), Some(&Dot::detect()));
    }
}
