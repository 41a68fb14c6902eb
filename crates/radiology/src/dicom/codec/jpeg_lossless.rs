//! The lossless process of JPEG (ITU-T T.81 annex H): every sample from its neighbours and a coded difference.

use super::huffman::{Bits, Huffman};
use super::jpeg::{Frame, Scan};
use super::{DicomError, Patterns, Shape};

const CODEC: &str = "JPEG lossless";

/// The samples of a frame, interleaved by pixel.
pub(super) struct Planes {
    samples: Vec<u16>,
    columns: usize,
    rows: usize,
    /// Samples of a pixel.
    width: usize,
    done: Vec<bool>,
    /// Bits by which samples are shifted up at the end.
    shift: u8,
}

impl Planes {
    pub(super) fn new(frame: &Frame, shape: Shape) -> Result<Self, DicomError> {
        if !(2..=16).contains(&frame.precision) {
            return Err(DicomError::codec(
                CODEC,
                format!("a precision of {} bits is impossible", frame.precision),
            ));
        }
        if frame.components.iter().any(|component| (component.horizontal, component.vertical) != (1, 1)) {
            return Err(DicomError::unsupported("lossless JPEG with subsampled colours"));
        }
        let (rows, columns, width) = (frame.rows, frame.columns, frame.components.len());
        Ok(Self { samples: vec![0; shape.len()], columns, rows, width, done: vec![false; width], shift: 0 })
    }

    pub(super) fn is_complete(&self) -> bool {
        self.done.iter().all(|&done| done)
    }

    pub(super) fn finish(mut self, frame: &Frame) -> Patterns {
        if self.shift > 0 {
            self.samples.iter_mut().for_each(|sample| *sample <<= self.shift);
        }
        if frame.precision <= 8 {
            return Patterns::Bytes(self.samples.into_iter().map(|sample| sample as u8).collect());
        }
        Patterns::Words(self.samples)
    }

    pub(super) fn scan(&mut self, frame: &Frame, scan: &Scan, data: &[u8]) -> Result<(), DicomError> {
        if u32::from(scan.low) >= frame.precision {
            return Err(DicomError::codec(CODEC, "its point transform leaves no bits"));
        }
        self.shift = scan.low;
        let mut tables = Vec::new();
        for &(component, table, _) in &scan.components {
            let table = frame.dc[table].as_ref();
            tables.push((
                component,
                table.ok_or_else(|| DicomError::codec(CODEC, "a Huffman table is missing"))?,
            ));
            self.done[component] = true;
        }
        let first = 1_i32 << (frame.precision - 1 - u32::from(scan.low));
        let mut bits = Bits::new(data);
        let rows_between = match frame.restart {
            0 => usize::MAX,
            units if units % self.columns == 0 => units / self.columns,
            _ => return Err(DicomError::unsupported("lossless JPEG with restarts within a line")),
        };
        for row in 0..self.rows {
            let restarts = row > 0 && row % rows_between == 0;
            if restarts {
                bits.restart()?;
            }
            let is_first = row == 0 || restarts;
            self.row(
                &mut bits,
                &tables,
                row,
                if is_first { 1 } else { scan.start },
                is_first.then_some(first),
            )?;
            bits.check()?;
        }
        Ok(())
    }

    fn row(
        &mut self,
        bits: &mut Bits<'_>,
        tables: &[(usize, &Huffman)],
        row: usize,
        predictor: u8,
        first: Option<i32>,
    ) -> Result<(), DicomError> {
        let stride = self.columns * self.width;
        let (above, here) = self.samples.split_at_mut(row * stride);
        let above = &above[above.len().saturating_sub(stride)..];
        let line = Line { above, here: &mut here[..stride], width: self.width, first };
        match predictor {
            1 => line.fill(bits, tables, |left, _, _| left),
            2 => line.fill(bits, tables, |_, up, _| up),
            3 => line.fill(bits, tables, |_, _, corner| corner),
            4 => line.fill(bits, tables, |left, up, corner| left + up - corner),
            5 => line.fill(bits, tables, |left, up, corner| left + ((up - corner) >> 1)),
            6 => line.fill(bits, tables, |left, up, corner| up + ((left - corner) >> 1)),
            7 => line.fill(bits, tables, |left, up, _| (left + up) >> 1),
            _ => Err(DicomError::codec(CODEC, format!("there is no predictor {predictor}"))),
        }
    }
}

/// A line of samples that is being filled.
struct Line<'a> {
    above: &'a [u16],
    here: &'a mut [u16],
    width: usize,
    /// What the first sample is predicted from in the first line; in others it is the one above.
    first: Option<i32>,
}

impl Line<'_> {
    #[inline(always)]
    fn fill(
        self,
        bits: &mut Bits<'_>,
        tables: &[(usize, &Huffman)],
        predict: impl Fn(i32, i32, i32) -> i32,
    ) -> Result<(), DicomError> {
        let Self { above, here, width, first } = self;
        for &(component, table) in tables {
            let start = first.unwrap_or_else(|| i32::from(above[component]));
            here[component] = (start + difference(bits, table)?) as u16;
        }
        if let ([(0, table)], 1) = (tables, width) {
            // One component, as nearly always: what is to the left stays in a register.
            let mut left = i32::from(here[0]);
            let mut corner = above.first().map_or(0, |&sample| i32::from(sample));
            for (column, sample) in here.iter_mut().enumerate().skip(1) {
                let up = above.get(column).map_or(0, |&sample| i32::from(sample));
                left = i32::from((predict(left, up, corner) + difference(bits, table)?) as u16);
                corner = up;
                *sample = left as u16;
            }
            return Ok(());
        }
        let at = |line: &[u16], index: usize| line.get(index).map_or(0, |&sample| i32::from(sample));
        for pixel in (width..here.len()).step_by(width) {
            for &(component, table) in tables {
                let index = pixel + component;
                let (left, up, corner) =
                    (at(here, index - width), at(above, index), at(above, index - width));
                here[index] = (predict(left, up, corner) + difference(bits, table)?) as u16;
            }
        }
        Ok(())
    }
}

/// A coded difference, modulo 2^16 (T.81 H.1.2.2).
#[inline(always)]
fn difference(bits: &mut Bits<'_>, table: &Huffman) -> Result<i32, DicomError> {
    match table.next(bits)? {
        0 => Ok(0),
        category @ 1..=15 => Ok(bits.signed(u32::from(category))),
        16 => Ok(32_768),
        category => Err(DicomError::codec(CODEC, format!("there is no category {category} of differences"))),
    }
}
