//! Pillow's resampling, to the bit, computed only where it is needed.
//!
//! Owns: the filters, their fixed-point weights and the two passes. Does not own what size an image
//! is resized to or what is cropped from it; see `preprocess`.
//!
//! The truth is `Resample.c` of Pillow up to version 12: a horizontal pass, then a vertical one,
//! each with weights of 22 fractional bits and each rounded and clipped to 8 bits. A pass in floating
//! point differs by up to 13 grey levels at edges, which the towers amplify.

use std::f64::consts::PI;
use std::ops::Range;

/// `32 - 8 - 2` in Pillow: sums of products with 8-bit samples fit 32 bits with room for overshoot.
const PRECISION_BITS: u32 = 22;
/// Half a unit, so that the final shift rounds.
const HALF: i32 = 1 << (PRECISION_BITS - 1);
/// Rows that go through the horizontal pass together.
const ROWS: usize = 8;

/// A resampling filter, by its number in Pillow and in `preprocessor_config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// 0: the nearest sample, no antialiasing.
    Nearest = 0,
    /// 1: windowed sinc over three lobes.
    Lanczos = 1,
    /// 2: a triangle.
    Bilinear = 2,
    /// 3: Keys' cubic with a = -0.5.
    Bicubic = 3,
    /// 4: the mean of the covered samples.
    Box = 4,
    /// 5: sinc under a Hamming window.
    Hamming = 5,
}

impl Filter {
    /// The filter with a given Pillow number.
    pub fn from_pillow(id: u64) -> Option<Self> {
        [Self::Nearest, Self::Lanczos, Self::Bilinear, Self::Bicubic, Self::Box, Self::Hamming]
            .into_iter()
            .find(|&f| f as u64 == id)
    }

    /// The usual name, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nearest => "nearest",
            Self::Lanczos => "lanczos",
            Self::Bilinear => "bilinear",
            Self::Bicubic => "bicubic",
            Self::Box => "box",
            Self::Hamming => "hamming",
        }
    }

    /// Half-width of the filter at scale 1.
    fn support(self) -> f64 {
        match self {
            Self::Nearest | Self::Box => 0.5,
            Self::Bilinear | Self::Hamming => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    fn at(self, x: f64) -> f64 {
        match self {
            Self::Nearest | Self::Box => {
                if x > -0.5 && x <= 0.5 {
                    1.0
                } else {
                    0.0
                }
            }
            Self::Bilinear => (1.0 - x.abs()).max(0.0),
            Self::Hamming => {
                let x = x.abs();
                if x == 0.0 {
                    1.0
                } else if x >= 1.0 {
                    0.0
                } else {
                    (x * PI).sin() / (x * PI) * (0.54 + 0.46 * (x * PI).cos())
                }
            }
            Self::Bicubic => {
                const A: f64 = -0.5;
                let x = x.abs();
                if x < 1.0 {
                    ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
                } else if x < 2.0 {
                    (((x - 5.0) * x + 8.0) * x - 4.0) * A
                } else {
                    0.0
                }
            }
            Self::Lanczos => {
                if (-3.0..3.0).contains(&x) {
                    sinc(x) * sinc(x / 3.0)
                } else {
                    0.0
                }
            }
        }
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) }
}

/// The weights of one pass, for a window of its output positions.
pub(crate) struct Axis {
    /// First input sample of each output position.
    first: Vec<usize>,
    /// Where each output position's weights begin; one more entry than positions.
    offset: Vec<usize>,
    weights: Vec<i32>,
}

impl Axis {
    /// Weights that map the part `extent` of `input` samples to `output` samples, for the output
    /// positions in `window`, as Pillow's `resize(box=...)`: samples beside the part still count where
    /// the filter reaches them.
    pub(crate) fn new(
        filter: Filter,
        input: usize,
        extent: Range<f64>,
        output: u64,
        window: Range<u64>,
    ) -> Self {
        debug_assert!(input > 0 && window.end <= output);
        let scale = (extent.end - extent.start) / output as f64;
        if input as u64 == output && scale == 1.0 {
            return Self::one_tap(window.map(|i| i as usize));
        }
        if filter == Filter::Nearest {
            // Pillow adds the scale up instead of multiplying, and its rounding errors are kept.
            let mut at = extent.start + scale * 0.5;
            let mut taps = Vec::new();
            for i in 0..window.end {
                if i >= window.start {
                    taps.push((at as usize).min(input - 1));
                }
                at += scale;
            }
            return Self::one_tap(taps.into_iter());
        }
        let mut axis = Self { first: Vec::new(), offset: vec![0], weights: Vec::new() };
        let widening = scale.max(1.0);
        let support = filter.support() * widening;
        let mut row = Vec::new();
        for position in window {
            let center = extent.start + (position as f64 + 0.5) * scale;
            // Truncation towards zero, as a C cast does it.
            let low = ((center - support + 0.5) as i64).max(0) as usize;
            let high = ((center + support + 0.5) as i64).min(input as i64) as usize;
            row.clear();
            row.extend((low..high).map(|x| filter.at((x as f64 - center + 0.5) * (1.0 / widening))));
            let sum: f64 = row.iter().sum();
            axis.first.push(low);
            axis.weights.extend(row.iter().map(|w| fixed_point(if sum == 0.0 { *w } else { w / sum })));
            axis.offset.push(axis.weights.len());
        }
        axis
    }

    fn one_tap(first: impl Iterator<Item = usize>) -> Self {
        let first: Vec<usize> = first.collect();
        Self { offset: (0..=first.len()).collect(), weights: vec![1 << PRECISION_BITS; first.len()], first }
    }

    fn len(&self) -> usize {
        self.first.len()
    }

    #[inline(always)]
    fn taps(&self, position: usize) -> (usize, &[i32]) {
        (self.first[position], &self.weights[self.offset[position]..self.offset[position + 1]])
    }

    /// The input samples that any position of the window reads.
    fn input_range(&self) -> Range<usize> {
        let end = (0..self.len()).map(|i| self.first[i] + self.taps(i).1.len()).max().unwrap_or(0);
        self.first.iter().copied().min().unwrap_or(0)..end
    }

    /// Whether every position copies one sample, the next one each time.
    fn is_copy(&self) -> bool {
        self.weights.len() == self.len() && self.first.windows(2).all(|w| w[1] == w[0] + 1)
    }
}

fn fixed_point(weight: f64) -> i32 {
    let scaled = weight * f64::from(1 << PRECISION_BITS);
    (if weight < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32
}

/// A kind of sample and the arithmetic of a pass over it.
pub(crate) trait Sample: Copy + Default {
    type Sum: Copy;
    const START: Self::Sum;
    fn add(sum: &mut Self::Sum, sample: Self, weight: i32);
    /// What one pass hands to the next.
    fn pass_on(sum: Self::Sum) -> Self;
    fn finish(sum: Self::Sum) -> u8;
}

/// Pillow's: 22 fractional bits, rounded after each pass.
impl Sample for u8 {
    type Sum = i32;
    const START: i32 = HALF;

    #[inline(always)]
    fn add(sum: &mut i32, sample: u8, weight: i32) {
        *sum += i32::from(sample) * weight;
    }

    #[inline(always)]
    fn pass_on(sum: i32) -> u8 {
        clip(sum)
    }

    #[inline(always)]
    fn finish(sum: i32) -> u8 {
        clip(sum)
    }
}

/// For samples with fractions: rounded once, at the end.
impl Sample for f32 {
    type Sum = f32;
    const START: f32 = 0.0;

    #[inline(always)]
    fn add(sum: &mut f32, sample: f32, weight: i32) {
        *sum += sample * (weight as f32 / (1 << PRECISION_BITS) as f32);
    }

    #[inline(always)]
    fn pass_on(sum: f32) -> f32 {
        sum
    }

    #[inline(always)]
    fn finish(sum: f32) -> u8 {
        (sum + 0.5) as u8
    }
}

/// Resamples rows of `width` pixels, each of `C` interleaved samples, into the window that the two
/// axes describe. Returns `y.len()` rows of `x.len()` such pixels.
///
/// Memory is bounded by the window and the width of the source, not by the source's height.
pub(crate) fn resize<S: Sample, const C: usize>(source: &[S], width: usize, x: &Axis, y: &Axis) -> Vec<u8> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2, as just checked.
        return unsafe { resize_avx2::<S, C>(source, width, x, y) };
    }
    resize_any::<S, C>(source, width, x, y)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn resize_avx2<S: Sample, const C: usize>(source: &[S], width: usize, x: &Axis, y: &Axis) -> Vec<u8> {
    resize_any::<S, C>(source, width, x, y)
}

/// Both passes, row block by row block. The order of the sums is fixed, so that the result does not
/// depend on the instructions it is compiled to.
#[inline(always)]
fn resize_any<S: Sample, const C: usize>(source: &[S], width: usize, x: &Axis, y: &Axis) -> Vec<u8> {
    let row_len = x.len() * C;
    let mut sums = vec![S::START; y.len() * row_len];
    let rows = y.input_range();
    let columns = x.input_range();
    let copy = x.is_copy();
    let mut block = vec![[[S::default(); ROWS]; C]; if copy { 0 } else { columns.len() }];
    let mut narrow = vec![S::default(); ROWS * row_len];
    let mut oldest = 0;
    for top in rows.clone().step_by(ROWS) {
        let count = ROWS.min(rows.end - top);
        if copy {
            for r in 0..count {
                let from = ((top + r) * width + columns.start) * C;
                narrow[r * row_len..][..row_len].copy_from_slice(&source[from..from + row_len]);
            }
        } else {
            gather(source, width, top, count, &columns, &mut block);
            horizontal(&block, columns.start, x, &mut narrow);
        }
        for r in 0..count {
            let row = top + r;
            while oldest < y.len() && y.first[oldest] + y.taps(oldest).1.len() <= row {
                oldest += 1;
            }
            for position in oldest..y.len() {
                let (first, weights) = y.taps(position);
                if first > row {
                    break;
                }
                if let Some(&weight) = weights.get(row - first) {
                    let sums = &mut sums[position * row_len..][..row_len];
                    for (sum, &v) in sums.iter_mut().zip(&narrow[r * row_len..]) {
                        S::add(sum, v, weight);
                    }
                }
            }
        }
    }
    sums.into_iter().map(S::finish).collect()
}

/// Lays the samples of `count` rows side by side per column and channel, so that the horizontal pass
/// works on vectors.
#[inline(always)]
fn gather<S: Sample, const C: usize>(
    source: &[S],
    width: usize,
    top: usize,
    count: usize,
    columns: &Range<usize>,
    block: &mut [[[S; ROWS]; C]],
) {
    for r in 0..count {
        let from = ((top + r) * width + columns.start) * C;
        let row = &source[from..from + columns.len() * C];
        for (cell, pixel) in block.iter_mut().zip(row.as_chunks::<C>().0) {
            for (lane, &v) in cell.iter_mut().zip(pixel) {
                lane[r] = v;
            }
        }
    }
}

#[inline(always)]
fn horizontal<S: Sample, const C: usize>(
    block: &[[[S; ROWS]; C]],
    first_column: usize,
    x: &Axis,
    narrow: &mut [S],
) {
    let row_len = x.len() * C;
    for position in 0..x.len() {
        let (first, weights) = x.taps(position);
        let mut sums = [[S::START; ROWS]; C];
        for (cell, &weight) in block[first - first_column..].iter().zip(weights) {
            for (sum, &v) in sums.as_flattened_mut().iter_mut().zip(cell.as_flattened()) {
                S::add(sum, v, weight);
            }
        }
        for (i, &sum) in sums.as_flattened().iter().enumerate() {
            narrow[i % ROWS * row_len + position * C + i / ROWS] = S::pass_on(sum);
        }
    }
}

#[inline(always)]
fn clip(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, one value at a time: both passes over the whole image, then the window.
    fn reference(source: &[u8], size: (usize, usize), out: (usize, usize), filter: Filter) -> Vec<u8> {
        let x = Axis::new(filter, size.0, whole(size.0), out.0 as u64, 0..out.0 as u64);
        let y = Axis::new(filter, size.1, whole(size.1), out.1 as u64, 0..out.1 as u64);
        let pass = |n: usize, axis: &Axis, read: &dyn Fn(usize) -> u8| {
            let (first, weights) = axis.taps(n);
            clip(HALF + weights.iter().enumerate().map(|(k, w)| i32::from(read(first + k)) * w).sum::<i32>())
        };
        let mut wide = vec![0u8; size.1 * out.0 * 3];
        for (i, v) in wide.iter_mut().enumerate() {
            let (row, column, c) = (i / 3 / out.0, i / 3 % out.0, i % 3);
            *v = pass(column, &x, &|k| source[(row * size.0 + k) * 3 + c]);
        }
        (0..out.0 * out.1 * 3)
            .map(|i| pass(i / 3 / out.0, &y, &|k| wide[(k * out.0 + i / 3 % out.0) * 3 + i % 3]))
            .collect()
    }

    fn whole(input: usize) -> Range<f64> {
        0.0..input as f64
    }

    fn noise(n: usize) -> Vec<u8> {
        let mut state = 7u32;
        (0..n)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect()
    }

    #[test]
    fn a_window_equals_the_same_window_of_the_whole() {
        for (size, out) in [((37, 53), (16, 11)), ((9, 5), (40, 31)), ((20, 64), (20, 16)), ((1, 90), (8, 3))]
        {
            let source = noise(size.0 * size.1 * 3);
            for id in 0..6 {
                let filter = Filter::from_pillow(id).expect("six filters");
                let all = reference(&source, size, out, filter);
                let (x0, x1) = (out.0 / 4, out.0 - out.0 / 5);
                let (y0, y1) = (out.1 / 4, out.1 - out.1 / 5);
                let x = Axis::new(filter, size.0, whole(size.0), out.0 as u64, x0 as u64..x1 as u64);
                let y = Axis::new(filter, size.1, whole(size.1), out.1 as u64, y0 as u64..y1 as u64);
                let window = resize::<_, 3>(&source, size.0, &x, &y);
                let expected: Vec<u8> =
                    (y0..y1).flat_map(|r| all[(r * out.0 + x0) * 3..(r * out.0 + x1) * 3].to_vec()).collect();
                assert_eq!(window, expected, "{size:?} to {out:?} with {filter:?}");
            }
        }
    }

    #[test]
    fn samples_with_fractions_differ_by_the_rounding_between_the_passes_only() {
        let source = noise(60 * 40 * 3);
        let fine: Vec<f32> = source.iter().map(|v| f32::from(*v)).collect();
        let (x, y) = (
            Axis::new(Filter::Bicubic, 60, whole(60), 13, 0..13),
            Axis::new(Filter::Bicubic, 40, whole(40), 9, 0..9),
        );
        let (coarse, fine) = (resize::<_, 3>(&source, 60, &x, &y), resize::<_, 3>(&fine, 60, &x, &y));
        assert!(coarse.iter().zip(&fine).all(|(a, b)| a.abs_diff(*b) <= 1));
        // Part of a side: half of each of the outer samples' neighbours.
        let ramp: Vec<f32> = (0..10).flat_map(|v| [v as f32 * 10.0; 3]).collect();
        let (x, y) =
            (Axis::new(Filter::Box, 10, 1.0..9.0, 4, 0..4), Axis::new(Filter::Box, 1, whole(1), 1, 0..1));
        let parts: Vec<u8> = resize::<_, 3>(&ramp, 10, &x, &y).into_iter().step_by(3).collect();
        assert_eq!(parts, [15, 35, 55, 75]);
    }

    #[test]
    fn flat_colour_stays_flat_and_equal_size_copies() {
        for id in 0..6 {
            let filter = Filter::from_pillow(id).expect("six filters");
            let x = Axis::new(filter, 50, whole(50), 7, 0..7);
            let y = Axis::new(filter, 3, whole(3), 90, 0..90);
            assert!(resize::<_, 3>(&[201; 50 * 3 * 3], 50, &x, &y).iter().all(|&v| v == 201), "{filter:?}");
            let source = noise(6 * 4 * 3);
            let (x, y) = (Axis::new(filter, 6, whole(6), 6, 0..6), Axis::new(filter, 4, whole(4), 4, 0..4));
            assert_eq!(resize::<_, 3>(&source, 6, &x, &y), source);
        }
        assert_eq!(Filter::from_pillow(6), None);
    }
}
