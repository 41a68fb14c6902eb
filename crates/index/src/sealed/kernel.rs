//! Integer arithmetic on codes: inner products with a query, and the distance of two codes.
//!
//! Owns: the kernels, the choice between them, made once at run time, so that one binary runs on any
//! x86-64 or aarch64, and how codes lie in memory. All sums are exact integers, so every kernel gives
//! the same answer. Deliberately absent: what a code means (see `code`).
//!
//! A code has one byte per dimension, padded to a multiple of [`BLOCK`]. It is kept in two planes of
//! half a byte per dimension. The upper plane alone is a code of 4 bits, which is what a walk reads:
//! at 512 dimensions four cache lines instead of eight, and fetching them is what a walk spends its
//! time on. The lower plane sharpens the scores of the few that a walk ends with. Byte `j` of block `b`
//! of a plane holds dimension `128 b + j` in its lower and `128 b + 64 + j` in its upper half.

/// Dimensions of a block: one cache line of each plane.
pub(crate) const BLOCK: usize = 128;
/// Bytes of a block of a plane.
const LINE: usize = BLOCK / 2;

/// Rows that are on their way from memory while one is scored.
const AHEAD: usize = 6;

/// Largest magnitude of a number of a query: its high byte is at most 64, its low one in -64..64.
pub(crate) const QUERY_MAX: i16 = 8191;

/// A query against codes, in the forms the kernels read.
#[derive(Debug, Clone, Default)]
pub(crate) struct QueryRow {
    /// One number per dimension.
    wide: Vec<i16>,
    /// The same as `128 * high + low`, one byte each: first all high, then all low.
    split: Vec<i8>,
    /// The same rounded to a byte, for the upper plane alone.
    narrow: Vec<i8>,
    /// Bytes per number in that rounding.
    shrink: f32,
}

impl QueryRow {
    /// A row of numbers of at most [`QUERY_MAX`] in magnitude; `numbers` is a multiple of [`BLOCK`]
    /// long.
    pub(crate) fn new(numbers: Vec<i16>) -> Self {
        assert!(numbers.len().is_multiple_of(BLOCK), "codes are padded to whole blocks");
        let high = |v: i16| (v + 64) >> 7;
        let split = numbers.iter().map(|&v| high(v) as i8);
        let split = split.chain(numbers.iter().map(|&v| (v - (high(v) << 7)) as i8)).collect();
        let largest = numbers.iter().map(|v| v.abs()).max().unwrap_or(0).max(1);
        let shrink = 127.0 / f32::from(largest);
        let narrow = numbers.iter().map(|&v| (f32::from(v) * shrink).round() as i8).collect();
        Self { wide: numbers, split, narrow, shrink }
    }

    fn len(&self) -> usize {
        self.wide.len()
    }

    /// What a number was multiplied with to fit a byte.
    pub(crate) fn shrink(&self) -> f32 {
        self.shrink
    }
}

/// Both planes of the codes of many slots.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Planes<'a> {
    pub(crate) upper: &'a [u8],
    pub(crate) lower: &'a [u8],
    /// Bytes of a row of either plane.
    pub(crate) stride: usize,
}

impl Planes<'_> {
    /// Puts the code of a slot together again: twice `stride` bytes.
    pub(crate) fn join(&self, slot: u32, code: &mut [u8]) {
        let at = slot as usize * self.stride;
        let (upper, lower) = (&self.upper[at..][..self.stride], &self.lower[at..][..self.stride]);
        for ((code, upper), lower) in
            code.chunks_exact_mut(BLOCK).zip(upper.chunks_exact(LINE)).zip(lower.chunks_exact(LINE))
        {
            let (first, second) = code.split_at_mut(LINE);
            for j in 0..LINE {
                first[j] = (upper[j] << 4) | (lower[j] & 15);
                second[j] = (upper[j] & 0xf0) | (lower[j] >> 4);
            }
        }
    }
}

/// Divides a code, a multiple of [`BLOCK`] bytes, between a row of the upper and one of the lower plane.
pub(crate) fn divide(code: &[u8], upper: &mut [u8], lower: &mut [u8]) {
    for ((code, upper), lower) in
        code.chunks_exact(BLOCK).zip(upper.chunks_exact_mut(LINE)).zip(lower.chunks_exact_mut(LINE))
    {
        let (first, second) = code.split_at(LINE);
        for j in 0..LINE {
            upper[j] = (first[j] >> 4) | (second[j] & 0xf0);
            lower[j] = (first[j] & 15) | (second[j] << 4);
        }
    }
}

/// Integer kernels that have been chosen for this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CodeKernel {
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

impl CodeKernel {
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
            if std::arch::is_x86_feature_detected!("avx2") {
                kernels.push(Kernel::Avx2);
            }
            if std::arch::is_x86_feature_detected!("avx512bw")
                && std::arch::is_x86_feature_detected!("avx512vnni")
            {
                kernels.push(Kernel::Avx512);
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("neon") {
            kernels.push(Kernel::Neon);
        }
        kernels.into_iter().map(|kernel| Self { kernel }).collect()
    }

    /// The inner products of a query, rounded to bytes, with the upper halves of the codes of `slots`:
    /// `out[i]` for `slots[i]`.
    ///
    /// # Panics
    /// When a slot is beyond the plane, or `out` shorter than `slots`.
    #[inline]
    pub(crate) fn coarse_products(self, query: &QueryRow, upper: &[u8], slots: &[u32], out: &mut [i32]) {
        let (query, stride) = (&query.narrow, query.len() / 2);
        check(upper.len(), stride, slots, out.len());
        match self.kernel {
            Kernel::Scalar => {
                for (slot, out) in slots.iter().zip(out) {
                    *out = scalar::coarse_product(query, &upper[*slot as usize * stride..][..stride]);
                }
            }
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this kernel is only chosen where AVX2 was detected; slots are within the plane.
            Kernel::Avx2 => unsafe { x86::coarse_avx2(query, upper, slots, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: only chosen where AVX-512 BW and VNNI were detected; slots are within the plane.
            Kernel::Avx512 => unsafe { x86::coarse_avx512(query, upper, slots, out) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: this kernel is only chosen where NEON was detected; slots are within the plane.
            Kernel::Neon => unsafe { arm::coarse(query, upper, slots, out) },
        }
    }

    /// The inner products of a query with the whole codes of `slots`: `out[i]` for `slots[i]`.
    ///
    /// # Panics
    /// When a slot is beyond the planes, or `out` shorter than `slots`.
    pub(crate) fn products(self, query: &QueryRow, planes: Planes<'_>, slots: &[u32], out: &mut [i32]) {
        assert_eq!(planes.stride, query.len() / 2, "a query is as long as the codes");
        check(planes.upper.len().min(planes.lower.len()), planes.stride, slots, out.len());
        match self.kernel {
            Kernel::Scalar => {
                let mut code = vec![0; query.len()];
                for (slot, out) in slots.iter().zip(out) {
                    planes.join(*slot, &mut code);
                    *out = scalar::product(&query.wide, &code);
                }
            }
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this kernel is only chosen where AVX2 was detected; slots are within the planes.
            Kernel::Avx2 => unsafe { x86::products_avx2(&query.wide, planes, slots, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: only chosen where AVX-512 BW and VNNI were detected; slots are within the planes.
            Kernel::Avx512 => unsafe { x86::products_avx512(&query.split, planes, slots, out) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: this kernel is only chosen where NEON was detected; slots are within the planes.
            Kernel::Neon => unsafe { arm::products(&query.wide, planes, slots, out) },
        }
    }

    /// The squared distances of the upper half of a code, a row of the plane, from those of `slots`:
    /// `out[i]` for `slots[i]`.
    ///
    /// # Panics
    /// When a slot is beyond the plane, or `out` shorter than `slots`.
    #[inline]
    pub(crate) fn coarse_distances(self, row: &[u8], upper: &[u8], slots: &[u32], out: &mut [i32]) {
        assert!(row.len().is_multiple_of(LINE), "codes are padded to whole blocks");
        check(upper.len(), row.len(), slots, out.len());
        match self.kernel {
            Kernel::Scalar => {
                for (slot, out) in slots.iter().zip(out) {
                    *out = scalar::coarse_distance(row, &upper[*slot as usize * row.len()..][..row.len()]);
                }
            }
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this kernel is only chosen where AVX2 was detected; slots are within the plane.
            Kernel::Avx2 => unsafe { x86::coarse_distances_avx2(row, upper, slots, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: only chosen where AVX-512 BW and VNNI were detected; slots are within the plane.
            Kernel::Avx512 => unsafe { x86::coarse_distances_avx512(row, upper, slots, out) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: this kernel is only chosen where NEON was detected; slots are within the plane.
            Kernel::Neon => unsafe { arm::coarse_distances(row, upper, slots, out) },
        }
    }

    /// The squared distances of a code from the codes of `slots`, not divided into planes: `out[i]` for
    /// `slots[i]`.
    ///
    /// # Panics
    /// When a slot is beyond the codes, or `out` shorter than `slots`.
    #[inline]
    pub(crate) fn distances(self, code: &[u8], codes: &[u8], slots: &[u32], out: &mut [i32]) {
        assert!(code.len().is_multiple_of(BLOCK), "codes are padded to whole blocks");
        check(codes.len(), code.len(), slots, out.len());
        match self.kernel {
            Kernel::Scalar => {
                for (slot, out) in slots.iter().zip(out) {
                    *out = scalar::distance(code, &codes[*slot as usize * code.len()..][..code.len()]);
                }
            }
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this kernel is only chosen where AVX2 was detected; slots are within the codes.
            Kernel::Avx2 => unsafe { x86::distances_avx2(code, codes, slots, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: only chosen where AVX-512 BW and VNNI were detected; slots are within the codes.
            Kernel::Avx512 => unsafe { x86::distances_avx512(code, codes, slots, out) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: this kernel is only chosen where NEON was detected; slots are within the codes.
            Kernel::Neon => unsafe { arm::distances(code, codes, slots, out) },
        }
    }
}

/// One check for a whole list of rows, so that the loops need none.
#[inline]
fn check(bytes: usize, stride: usize, slots: &[u32], out: usize) {
    let rows = bytes / stride.max(1);
    assert!(slots.len() <= out && slots.iter().all(|&s| (s as usize) < rows), "slots are within the codes");
}

mod scalar {
    use super::{BLOCK, LINE};

    pub(super) fn coarse_product(query: &[i8], upper: &[u8]) -> i32 {
        let mut sum = 0;
        for (query, upper) in query.chunks_exact(BLOCK).zip(upper.chunks_exact(LINE)) {
            let (first, second) = query.split_at(LINE);
            for j in 0..LINE {
                sum += i32::from(first[j]) * i32::from(upper[j] & 15);
                sum += i32::from(second[j]) * i32::from(upper[j] >> 4);
            }
        }
        sum
    }

    pub(super) fn coarse_distance(a: &[u8], b: &[u8]) -> i32 {
        let square = |x: u8, y: u8| (i32::from(x) - i32::from(y)).pow(2);
        a.iter().zip(b).map(|(&x, &y)| square(x & 15, y & 15) + square(x >> 4, y >> 4)).sum()
    }

    pub(super) fn product(query: &[i16], code: &[u8]) -> i32 {
        query.iter().zip(code).map(|(&q, &c)| i32::from(q) * i32::from(c)).sum()
    }

    pub(super) fn distance(a: &[u8], b: &[u8]) -> i32 {
        let square = |(&x, &y): (&u8, &u8)| {
            let difference = i32::from(x) - i32::from(y);
            difference * difference
        };
        a.iter().zip(b).map(square).sum()
    }
}

#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "aarch64")]
mod arm;

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    const SLOTS: [u32; 9] = [8, 0, 3, 3, 7, 1, 2, 6, 5];

    struct Set {
        codes: Vec<u8>,
        upper: Vec<u8>,
        lower: Vec<u8>,
        dims: usize,
    }

    impl Set {
        fn new(rng: &mut ChaCha8Rng, dims: usize) -> Self {
            let codes: Vec<u8> = (0..dims * SLOTS.len()).map(|_| rng.random_range(0..=255)).collect();
            let (mut upper, mut lower) = (vec![0; codes.len() / 2], vec![0; codes.len() / 2]);
            divide(&codes, &mut upper, &mut lower);
            Self { codes, upper, lower, dims }
        }

        fn planes(&self) -> Planes<'_> {
            Planes { upper: &self.upper, lower: &self.lower, stride: self.dims / 2 }
        }

        fn code(&self, slot: u32) -> &[u8] {
            &self.codes[slot as usize * self.dims..][..self.dims]
        }
    }

    #[test]
    fn every_kernel_gives_the_exact_integers() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for dims in [128, 256, 384, 512, 768, 4096] {
            let set = Set::new(&mut rng, dims);
            let numbers: Vec<i16> = (0..dims).map(|_| rng.random_range(-QUERY_MAX..=QUERY_MAX) / 8).collect();
            let query = QueryRow::new(numbers.clone());
            let code: Vec<u8> = (0..dims).map(|_| rng.random_range(0..=255)).collect();
            for kernel in CodeKernel::available() {
                let (mut coarse, mut products, mut distances) = ([0; 9], [0; 9], [0; 9]);
                let mut coarse_distances = [0; 9];
                let first = &set.upper[..dims / 2];
                kernel.coarse_distances(first, &set.upper, &SLOTS, &mut coarse_distances);
                kernel.coarse_products(&query, &set.upper, &SLOTS, &mut coarse);
                kernel.products(&query, set.planes(), &SLOTS, &mut products);
                kernel.distances(&code, &set.codes, &SLOTS, &mut distances);
                for (i, &slot) in SLOTS.iter().enumerate() {
                    let row = set.code(slot);
                    let coarse_product: i32 =
                        query.narrow.iter().zip(row).map(|(&q, &c)| i32::from(q) * i32::from(c >> 4)).sum();
                    let product: i64 =
                        numbers.iter().zip(row).map(|(&q, &c)| i64::from(q) * i64::from(c)).sum();
                    let distance: i64 =
                        code.iter().zip(row).map(|(&a, &b)| (i64::from(a) - i64::from(b)).pow(2)).sum();
                    let steps = set.code(0).iter().zip(row);
                    let coarse_distance: i32 =
                        steps.map(|(&a, &b)| (i32::from(a >> 4) - i32::from(b >> 4)).pow(2)).sum();
                    assert_eq!(coarse_distances[i], coarse_distance, "{kernel:?} at {dims}");
                    assert_eq!(coarse[i], coarse_product, "{kernel:?} at {dims}");
                    assert_eq!(i64::from(products[i]), product, "{kernel:?} at {dims}");
                    assert_eq!(i64::from(distances[i]), distance, "{kernel:?} at {dims}");
                }
            }
        }
    }

    #[test]
    fn planes_join_to_the_codes_they_were_divided_from() {
        let set = Set::new(&mut ChaCha8Rng::seed_from_u64(2), 384);
        for slot in 0..9 {
            let mut code = vec![0; 384];
            set.planes().join(slot, &mut code);
            assert_eq!(code, set.code(slot));
        }
    }

    #[test]
    fn the_extremes_of_a_query_survive_being_split() {
        for value in [QUERY_MAX, -QUERY_MAX, 0, 1, -1, 63, 64, -64, -65, 127, 128] {
            let query = QueryRow::new(vec![value; BLOCK]);
            let planes = Planes { upper: &[255; LINE], lower: &[255; LINE], stride: LINE };
            for kernel in CodeKernel::available() {
                let (mut out, mut coarse) = ([0], [0]);
                kernel.products(&query, planes, &[0], &mut out);
                kernel.coarse_products(&query, planes.upper, &[0], &mut coarse);
                assert_eq!(out[0], i32::from(value) * 255 * BLOCK as i32, "{kernel:?}");
                assert_eq!(coarse[0], i32::from(value.signum()) * 127 * 15 * BLOCK as i32, "{kernel:?}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "within the codes")]
    fn a_slot_beyond_the_codes_is_refused() {
        let query = QueryRow::new(vec![1; BLOCK]);
        CodeKernel::detect().coarse_products(&query, &[0; LINE * 2], &[2], &mut [0]);
    }
}
