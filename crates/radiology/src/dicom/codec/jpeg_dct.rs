//! The sequential processes of JPEG by discrete cosine transform: baseline and extended, of 8 and 12 bits
//! (ITU-T T.81 annexes A, E and F).
//!
//! Owns: blocks to samples, and subsampled chrominance back to every pixel, by the triangle filter that
//! decoders commonly use. Deliberately absent: the conversion of colours.

use super::huffman::Bits;
use super::jpeg::{Component, Frame, Scan};
use super::{DicomError, Patterns};

const CODEC: &str = "JPEG";

/// Where the coefficient that comes so late in a block belongs.
const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7,
    14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39,
    46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// The components of a frame, each in its own resolution.
pub(super) struct Planes {
    planes: Vec<Plane>,
    /// Largest sampling factors.
    horizontal: usize,
    vertical: usize,
}

struct Plane {
    component: Component,
    /// Samples that count, and those of whole units.
    columns: usize,
    rows: usize,
    stride: usize,
    /// Blocks of whole units.
    block_rows: usize,
    samples: Vec<u16>,
    done: bool,
}

impl Planes {
    pub(super) fn new(frame: &Frame) -> Result<Self, DicomError> {
        if !matches!(frame.precision, 8 | 12) {
            return Err(DicomError::unsupported(format!("JPEG of {} bits a sample", frame.precision)));
        }
        let largest =
            |factor: fn(&Component) -> usize| frame.components.iter().map(factor).max().unwrap_or(1);
        let (horizontal, vertical) = (largest(|c| c.horizontal), largest(|c| c.vertical));
        let units_across = frame.columns.div_ceil(8 * horizontal);
        let units_down = frame.rows.div_ceil(8 * vertical);
        let plane = |component: &Component| {
            let block_columns = units_across * component.horizontal;
            let block_rows = units_down * component.vertical;
            Plane {
                component: *component,
                columns: (frame.columns * component.horizontal).div_ceil(horizontal),
                rows: (frame.rows * component.vertical).div_ceil(vertical),
                stride: block_columns * 8,
                block_rows,
                samples: vec![0; block_columns * block_rows * 64],
                done: false,
            }
        };
        Ok(Self { planes: frame.components.iter().map(plane).collect(), horizontal, vertical })
    }

    pub(super) fn is_complete(&self) -> bool {
        self.planes.iter().all(|plane| plane.done)
    }

    pub(super) fn scan(&mut self, frame: &Frame, scan: &Scan, data: &[u8]) -> Result<(), DicomError> {
        let mut bits = Bits::new(data);
        let mut predictions = [0_i32; 4];
        let single = scan.components.len() == 1;
        let (across, down) = if single {
            let plane = &self.planes[scan.components[0].0];
            (plane.columns.div_ceil(8), plane.rows.div_ceil(8))
        } else {
            (frame.columns.div_ceil(8 * self.horizontal), frame.rows.div_ceil(8 * self.vertical))
        };
        for unit in 0..across * down {
            if frame.restart > 0 && unit > 0 && unit % frame.restart == 0 {
                bits.restart()?;
                predictions = [0; 4];
            }
            let (row, column) = (unit / across, unit % across);
            for (&(index, dc, ac), prediction) in scan.components.iter().zip(&mut predictions) {
                let plane = &mut self.planes[index];
                let (wide, high) =
                    if single { (1, 1) } else { (plane.component.horizontal, plane.component.vertical) };
                for block in 0..wide * high {
                    let mut coefficients = [0_i32; 64];
                    let last = block_of(
                        frame,
                        &mut bits,
                        (plane.component.quantiser, dc, ac),
                        prediction,
                        &mut coefficients,
                    )?;
                    let at = (row * high + block / wide, column * wide + block % wide);
                    plane.put(at, &coefficients, last, frame.precision);
                }
            }
            if column + 1 == across {
                bits.check()?;
            }
        }
        scan.components.iter().for_each(|&(index, ..)| self.planes[index].done = true);
        Ok(())
    }

    /// Interleaves the components, each in the resolution of the frame.
    pub(super) fn finish(self, frame: &Frame) -> Patterns {
        let width = self.planes.len();
        let mut samples = vec![0_u16; frame.rows * frame.columns * width];
        let mut line = vec![0_u16; frame.columns];
        for (index, plane) in self.planes.iter().enumerate() {
            let ratio =
                (self.horizontal / plane.component.horizontal, self.vertical / plane.component.vertical);
            for row in 0..frame.rows {
                plane.line(row, ratio, &mut line);
                let places = samples[row * frame.columns * width..].iter_mut().skip(index).step_by(width);
                places.zip(&line).for_each(|(place, &sample)| *place = sample);
            }
        }
        if frame.precision == 8 {
            return Patterns::Bytes(samples.into_iter().map(|sample| sample as u8).collect());
        }
        Patterns::Words(samples)
    }
}

impl Plane {
    fn put(&mut self, (row, column): (usize, usize), coefficients: &[i32; 64], last: usize, precision: u32) {
        if row >= self.block_rows || column * 8 >= self.stride {
            return;
        }
        let mut block = [0_u16; 64];
        inverse_dct(coefficients, last, precision, &mut block);
        for (line, samples) in block.chunks_exact(8).enumerate() {
            let at = (row * 8 + line) * self.stride + column * 8;
            self.samples[at..at + 8].copy_from_slice(samples);
        }
    }

    /// A line in the resolution of the frame.
    fn line(&self, row: usize, ratio: (usize, usize), line: &mut [u16]) {
        let at = |row: usize, column: usize| u32::from(self.samples[row * self.stride + column]);
        let (last_row, last_column) = (self.rows - 1, self.columns - 1);
        match ratio {
            (2, 1 | 2) => {
                // Three parts of the nearer sample and one of the farther, along both axes.
                let near = (row / ratio.1).min(last_row);
                let far = match ratio.1 {
                    1 => near,
                    _ if row.is_multiple_of(2) => near.saturating_sub(1),
                    _ => (near + 1).min(last_row),
                };
                let blend = |column: usize| 3 * at(near, column) + at(far, column);
                for (column, sample) in line.iter_mut().enumerate() {
                    let here = (column / 2).min(last_column);
                    let beside =
                        if column % 2 == 0 { here.saturating_sub(1) } else { (here + 1).min(last_column) };
                    let round = match (ratio.1, column % 2) {
                        (1, 0) => 4,
                        (1, _) | (_, 0) => 8,
                        _ => 7,
                    };
                    *sample = ((3 * blend(here) + blend(beside) + round) >> 4) as u16;
                }
            }
            (across, down) => {
                let row = (row / down.max(1)).min(last_row);
                for (column, sample) in line.iter_mut().enumerate() {
                    *sample = at(row, (column / across.max(1)).min(last_column)) as u16;
                }
            }
        }
    }
}

/// Reads a block, dequantised, and gives the place of its last coefficient in reading order.
fn block_of(
    frame: &Frame,
    bits: &mut Bits<'_>,
    (quantiser, dc, ac): (usize, usize, usize),
    prediction: &mut i32,
    coefficients: &mut [i32; 64],
) -> Result<usize, DicomError> {
    let missing = || DicomError::codec(CODEC, "a table is missing");
    let quantiser = frame.quantisers[quantiser].as_ref().ok_or_else(missing)?;
    let (dc, ac) = (frame.dc[dc].as_ref().ok_or_else(missing)?, frame.ac[ac].as_ref().ok_or_else(missing)?);
    let category = dc.next(bits)?;
    if category > 16 {
        return Err(DicomError::codec(CODEC, "a coefficient is too large"));
    }
    *prediction = prediction.wrapping_add(bits.signed(u32::from(category)));
    coefficients[0] = prediction.wrapping_mul(i32::from(quantiser[0]));
    let (mut place, mut last) = (1, 0);
    while place < 64 {
        let symbol = ac.next(bits)?;
        let (run, category) = (usize::from(symbol >> 4), u32::from(symbol & 15));
        if category == 0 {
            if run != 15 {
                break;
            }
            place += 16;
            continue;
        }
        place += run;
        if place > 63 {
            return Err(DicomError::codec(CODEC, "a block has more than 64 coefficients"));
        }
        coefficients[usize::from(ZIGZAG[place])] =
            bits.signed(category).wrapping_mul(i32::from(quantiser[place]));
        last = place;
        place += 1;
    }
    Ok(last)
}

/// The inverse transform of a block, level-shifted and clamped to the precision; one pass of a separable sum
/// along each axis, in fixed point with 13 bits.
fn inverse_dct(coefficients: &[i32; 64], last: usize, precision: u32, block: &mut [u16; 64]) {
    let (middle, limit) = (1_i64 << (precision - 1), (1_i64 << precision) - 1);
    let sample = |value: i64| (value + middle).clamp(0, limit) as u16;
    if last == 0 {
        block.fill(sample((i64::from(coefficients[0]) + 4) >> 3));
        return;
    }
    let mut columns = [0_i64; 64];
    for column in 0..8 {
        let input = std::array::from_fn(|row| i64::from(coefficients[row * 8 + column]));
        // Two extra bits are kept between the passes.
        for (row, value) in transform(input).into_iter().enumerate() {
            columns[row * 8 + column] = (value + (1 << 10)) >> 11;
        }
    }
    for (row, line) in columns.chunks_exact(8).enumerate() {
        let input = std::array::from_fn(|column| line[column]);
        for (column, value) in transform(input).into_iter().enumerate() {
            block[row * 8 + column] = sample((value + (1 << 17)) >> 18);
        }
    }
}

/// Eight values of the inverse cosine transform times 2^13 √8: even and odd inputs apart, each with the
/// cosines written out.
fn transform(x: [i64; 8]) -> [i64; 8] {
    // √2 cos(kπ/16) · 2^13 for k = 1 to 7; k = 4 is 2^13 itself.
    const C: [i64; 8] = [0, 11_363, 10_703, 9_633, 8_192, 6_436, 4_433, 2_260];
    let sum = (x[0] + x[4]) << 13;
    let difference = (x[0] - x[4]) << 13;
    let (wide, narrow) = (x[2] * C[2] + x[6] * C[6], x[2] * C[6] - x[6] * C[2]);
    let even = [sum + wide, difference + narrow, difference - narrow, sum - wide];
    let odd = [
        x[1] * C[1] + x[3] * C[3] + x[5] * C[5] + x[7] * C[7],
        x[1] * C[3] - x[3] * C[7] - x[5] * C[1] - x[7] * C[5],
        x[1] * C[5] - x[3] * C[1] + x[5] * C[7] + x[7] * C[3],
        x[1] * C[7] - x[3] * C[5] + x[5] * C[3] - x[7] * C[1],
    ];
    std::array::from_fn(|index| match index {
        0..=3 => even[index] + odd[index],
        _ => even[7 - index] - odd[7 - index],
    })
}
