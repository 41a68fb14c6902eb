//! The scan of a baseline JPEG file, decoded to a reduced image.
//!
//! Owns: the order of blocks, the reduced inverse transforms and the conversion to RGB. Does not own
//! the reading of bits. Integers, then plain products and sums: every machine gives the same pixels.
//!
//! Samples keep fractions of a grey level. Rounding them to 8 bits would be noise that full decoding
//! does not have, because there each output pixel is the mean of many more samples.

use image::Rgb32FImage;

use super::bits::Bits;
use super::frame::{Component, Frame};

/// Fractional bits of the cosines.
const COSINE_BITS: u32 = 12;
/// Fractional bits kept between the two directions.
const MIDDLE_BITS: u32 = 6;
/// Fractional bits of the samples.
const SAMPLE_BITS: u32 = 6;

/// Decodes all units of the scan. None on damage.
pub(super) fn decode(frame: &Frame, data: &[u8], factor: usize) -> Option<Rgb32FImage> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2") {
        // SAFETY: the processor has both, as just checked.
        return unsafe { decode_avx2(frame, data, factor) };
    }
    decode_any(frame, data, factor)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi2")]
fn decode_avx2(frame: &Frame, data: &[u8], factor: usize) -> Option<Rgb32FImage> {
    decode_any(frame, data, factor)
}

#[inline(always)]
fn decode_any(frame: &Frame, data: &[u8], factor: usize) -> Option<Rgb32FImage> {
    let h = frame.components.iter().map(|c| c.h).max()?;
    let v = frame.components.iter().map(|c| c.v).max()?;
    let units = (frame.width.div_ceil(8 * h), frame.height.div_ceil(8 * v));
    let across = 8 / factor;
    // All planes come out at the same size: those stored smaller are reduced less.
    let stride = units.0 * h * across;
    let mut planes = frame
        .components
        .iter()
        .map(|c| Plane::new(frame, c, (across * h / c.h, across * v / c.v), stride, units))
        .collect::<Option<Vec<_>>>()?;
    let mut bits = Bits::new(data);
    let total = units.0 * units.1;
    for unit in 0..total {
        if frame.restart > 0 && unit > 0 && unit.is_multiple_of(frame.restart) {
            if bits.marker()? != 0xD0 + ((unit / frame.restart - 1) % 8) as u8 {
                return None;
            }
            bits.pass_marker();
            planes.iter_mut().for_each(|plane| plane.predicted = 0);
        }
        for plane in &mut planes {
            plane.unit(&mut bits, unit % units.0, unit / units.0)?;
        }
    }
    if bits.marker()? != 0xD9 {
        return None;
    }
    let (width, height) = (frame.width.div_ceil(factor), frame.height.div_ceil(factor));
    let pixels = to_rgb(&planes, stride, width, height);
    Rgb32FImage::from_raw(width as u32, height as u32, pixels)
}

struct Plane<'a> {
    component: &'a Component,
    tables: (&'a super::bits::Table, &'a super::bits::Table),
    /// Samples per block, across and down.
    samples: (usize, usize),
    cosines: (Cosines, Cosines),
    predicted: i32,
    stride: usize,
    data: Vec<u16>,
    coefficients: [i32; 64],
}

impl<'a> Plane<'a> {
    /// None for proportions that cannot be brought to one size, and for absent tables.
    fn new(
        frame: &'a Frame,
        component: &'a Component,
        samples: (usize, usize),
        stride: usize,
        units: (usize, usize),
    ) -> Option<Self> {
        if !matches!(samples.0, 1 | 2 | 4 | 8) || !matches!(samples.1, 1 | 2 | 4 | 8) {
            return None;
        }
        Some(Self {
            tables: (frame.dc.get(component.dc)?.as_ref()?, frame.ac.get(component.ac)?.as_ref()?),
            samples,
            cosines: (cosines(samples.0), cosines(samples.1)),
            predicted: 0,
            stride,
            data: vec![0; stride * units.1 * component.v * samples.1],
            coefficients: [0; 64],
            component,
        })
    }

    /// The blocks of one unit.
    #[inline(always)]
    fn unit(&mut self, bits: &mut Bits<'_>, x: usize, y: usize) -> Option<()> {
        let Component { h, v, .. } = *self.component;
        for block in 0..h * v {
            let (column, row) = (x * h + block % h, y * v + block / h);
            let at = row * self.samples.1 * self.stride + column * self.samples.0;
            let out = self.data.get_mut(at..)?;
            let quantization = &self.component.quantization;
            let more = bits.block(self.tables, quantization, &mut self.predicted, &mut self.coefficients)?;
            if more {
                invert(self.samples, &self.coefficients, &self.cosines, out, self.stride)?;
                self.coefficients = [0; 64];
            } else {
                let value = eighths(self.coefficients[0]);
                for row in out.chunks_mut(self.stride).take(self.samples.1) {
                    row[..self.samples.0].fill(value);
                }
            }
        }
        Some(())
    }
}

/// `cos((2 i + 1) k pi / 2 n) / 2`, and that over the square root of 2 for k = 0, in fixed point; for
/// sample i of n and frequency k, at `k * 8 + i`.
type Cosines = [i32; 64];

fn cosines(n: usize) -> Cosines {
    let mut table = [0; 64];
    for (at, value) in table.iter_mut().enumerate().filter(|(at, _)| at / 8 < n && at % 8 < n) {
        let (i, k) = ((at % 8) as f64, (at / 8) as f64);
        let scale = if at < 8 { 0.5f64.sqrt() } else { 1.0 };
        let angle = (2.0 * i + 1.0) * k * std::f64::consts::PI / (2.0 * n as f64);
        *value = (0.5 * scale * angle.cos() * f64::from(1 << COSINE_BITS)).round() as i32;
    }
    table
}

/// Inverts a block's lowest frequencies into rows of samples, `stride` apart.
#[inline(always)]
fn invert(
    samples: (usize, usize),
    coefficients: &[i32; 64],
    cosines: &(Cosines, Cosines),
    out: &mut [u16],
    stride: usize,
) -> Option<()> {
    match samples {
        (1, 1) => invert_to::<1, 1>(coefficients, cosines, out, stride),
        (1, 2) => invert_to::<1, 2>(coefficients, cosines, out, stride),
        (2, 1) => invert_to::<2, 1>(coefficients, cosines, out, stride),
        (2, 2) => invert_two(coefficients, out, stride),
        (2, 4) => invert_to::<2, 4>(coefficients, cosines, out, stride),
        (4, 2) => invert_to::<4, 2>(coefficients, cosines, out, stride),
        (4, 4) => invert_to::<4, 4>(coefficients, cosines, out, stride),
        (4, 8) => invert_to::<4, 8>(coefficients, cosines, out, stride),
        (8, 4) => invert_to::<8, 4>(coefficients, cosines, out, stride),
        (8, 8) => invert_to::<8, 8>(coefficients, cosines, out, stride),
        // Proportions that occur in no camera's files.
        _ => return None,
    }
    Some(())
}

/// The inverse transform of the lowest `X` by `Y` frequencies: down, then across. The scale of a
/// shorter transform cancels that of its fewer samples, so that the formula is the full one's.
#[inline(always)]
fn invert_to<const X: usize, const Y: usize>(
    coefficients: &[i32; 64],
    (across, down): &(Cosines, Cosines),
    out: &mut [u16],
    stride: usize,
) {
    const ROUND: i32 = 1 << (COSINE_BITS - MIDDLE_BITS - 1);
    const LAST: u32 = COSINE_BITS + MIDDLE_BITS - SAMPLE_BITS;
    for (y, row) in out.chunks_mut(stride).take(Y).enumerate() {
        let mut middle = [0i32; X];
        for k in 0..Y {
            let weight = down[k * 8 + y];
            let row: &[i32; X] = coefficients[k * 8..].first_chunk().expect("eight rows of eight");
            for (sum, c) in middle.iter_mut().zip(row) {
                *sum = sum.wrapping_add(c.wrapping_mul(weight));
            }
        }
        for sum in &mut middle {
            *sum = sum.wrapping_add(ROUND) >> (COSINE_BITS - MIDDLE_BITS);
        }
        let mut sums = [(1 << (LAST - 1)) + (128 << (LAST + SAMPLE_BITS)); X];
        for (k, m) in middle.iter().enumerate() {
            let weights: &[i32; X] = across[k * 8..].first_chunk().expect("eight rows of eight");
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum = i32::wrapping_add(*sum, m.wrapping_mul(*weight));
            }
        }
        for (value, sum) in row.iter_mut().zip(sums) {
            *value = clip(sum >> LAST);
        }
    }
}

/// Two by two, where all the cosines are equal.
#[inline(always)]
fn invert_two(coefficients: &[i32; 64], out: &mut [u16], stride: usize) {
    let (a, b, c, d) = (coefficients[0], coefficients[1], coefficients[8], coefficients[9]);
    let (left, right) = (a.wrapping_add(b), a.wrapping_sub(b));
    let (rise, fall) = (c.wrapping_add(d), c.wrapping_sub(d));
    out[0] = eighths(left.wrapping_add(rise));
    out[1] = eighths(right.wrapping_add(fall));
    out[stride] = eighths(left.wrapping_sub(rise));
    out[stride + 1] = eighths(right.wrapping_sub(fall));
}

/// The sample for a sum of coefficients that stands for eighths of a grey level around the middle.
fn eighths(sum: i32) -> u16 {
    clip((sum.wrapping_add(128 * 8)).wrapping_mul(1 << (SAMPLE_BITS - 3)))
}

fn clip(value: i32) -> u16 {
    value.clamp(0, 255 << SAMPLE_BITS) as u16
}

/// JFIF's YCbCr to RGB in 0 to 255; a single plane is grey.
#[inline(always)]
fn to_rgb(planes: &[Plane<'_>], stride: usize, width: usize, height: usize) -> Vec<f32> {
    const UNIT: f32 = 1.0 / (1 << SAMPLE_BITS) as f32;
    let mut pixels = vec![0f32; 3 * width * height];
    for (y, out) in pixels.chunks_exact_mut(3 * width).enumerate() {
        let row = |plane: usize| planes[plane].data[y * stride..].iter().map(|v| f32::from(*v) * UNIT);
        let out = out.as_chunks_mut::<3>().0.iter_mut();
        if planes.len() == 1 {
            out.zip(row(0)).for_each(|(pixel, v)| *pixel = [v; 3]);
            continue;
        }
        for (((pixel, y), blue), red) in out.zip(row(0)).zip(row(1)).zip(row(2)) {
            let (cb, cr) = (blue - 128.0, red - 128.0);
            *pixel = [y + 1.402 * cr, y - 0.344_136 * cb - 0.714_136 * cr, y + 1.772 * cb]
                .map(|v| v.clamp(0.0, 255.0));
        }
    }
    pixels
}
