//! JPEG-LS, lossless and near-lossless (ITU-T T.87): the markers, the scans, and the parameters of the model.
//!
//! Owns: which samples come in which order. The model itself is in `model`. Deliberately absent, and refused
//! by name: mapping tables, point transforms, restarts, and colour transforms of one vendor.

mod model;

use super::{Decoded, DicomError, Patterns, Shape};
use model::{Model, Parameters};

const CODEC: &str = "JPEG-LS";

/// Decodes a frame.
pub(super) fn decode(stream: &[u8], shape: Shape) -> Result<Decoded, DicomError> {
    let mut at = 2;
    let mut image: Option<Image> = None;
    let mut presets = None;
    loop {
        let (marker, body, next) = marker(stream, at)?;
        at = next;
        match marker {
            0xF7 => image = Some(Image::new(body, shape)?),
            0xF8 => presets = presets_of(body)?.or(presets),
            0xDA => {
                let image = image.as_mut().ok_or_else(|| damaged("a scan comes before the frame header"))?;
                at += image.scan(body, presets, stream.get(at..).unwrap_or_default())?;
                if image.done.iter().all(|&done| done) {
                    break;
                }
            }
            0xDD => return Err(DicomError::unsupported("JPEG-LS with restarts")),
            0xE8 if body.starts_with(b"mrfx") && body.get(4) != Some(&0) => {
                return Err(DicomError::unsupported("JPEG-LS with a colour transform of its vendor"));
            }
            0xD9 => return Err(damaged("the scan of a component is missing")),
            _ => {}
        }
    }
    let image = image.ok_or_else(|| damaged("there is no frame header"))?;
    let bits = Some(image.precision);
    let patterns = match image.precision {
        0..=8 => Patterns::Bytes(image.samples.into_iter().map(|sample| sample as u8).collect()),
        _ => Patterns::Words(image.samples),
    };
    Ok(Decoded { bits, ..Decoded::plain(patterns) })
}

/// Thresholds and the reset count that a stream sets.
#[derive(Debug, Clone, Copy)]
struct Presets {
    maximum: i32,
    thresholds: [i32; 3],
    reset: i32,
}

struct Image {
    precision: u32,
    rows: usize,
    columns: usize,
    ids: Vec<u8>,
    /// Interleaved by pixel.
    samples: Vec<u16>,
    done: Vec<bool>,
}

impl Image {
    fn new(body: &[u8], shape: Shape) -> Result<Self, DicomError> {
        let [precision, r1, r0, c1, c0, count] =
            *body.first_chunk().ok_or_else(|| damaged("the frame header is cut short"))?;
        let (rows, columns) = (u16::from_be_bytes([r1, r0]), u16::from_be_bytes([c1, c0]));
        let count = usize::from(count);
        shape.check(CODEC, u32::from(rows), u32::from(columns), count)?;
        if !(2..=16).contains(&precision) {
            return Err(damaged(&format!("a precision of {precision} bits is impossible")));
        }
        let specifications =
            body.get(6..6 + 3 * count).ok_or_else(|| damaged("the frame header is cut short"))?;
        if specifications.chunks_exact(3).any(|component| component[1] != 0x11) {
            return Err(DicomError::unsupported("JPEG-LS with subsampled colours"));
        }
        let ids = specifications.chunks_exact(3).map(|component| component[0]).collect();
        let (rows, columns) = (usize::from(rows), usize::from(columns));
        let samples = vec![0; shape.len()];
        Ok(Self { precision: u32::from(precision), rows, columns, ids, samples, done: vec![false; count] })
    }

    /// Decodes a scan and gives how many bytes of `data` it has read.
    fn scan(&mut self, body: &[u8], presets: Option<Presets>, data: &[u8]) -> Result<usize, DicomError> {
        let short = || damaged("a scan header is cut short");
        let count = usize::from(*body.first().ok_or_else(short)?);
        let specifications = body.get(1..1 + 2 * count).ok_or_else(short)?;
        let [near, interleave, transform] =
            *body.get(1 + 2 * count..).and_then(|rest| rest.first_chunk()).ok_or_else(short)?;
        if specifications.chunks_exact(2).any(|component| component[1] != 0) {
            return Err(DicomError::unsupported("JPEG-LS with mapping tables"));
        }
        if transform & 15 != 0 {
            return Err(DicomError::unsupported("JPEG-LS with a point transform"));
        }
        let mut components = Vec::new();
        for specification in specifications.chunks_exact(2) {
            let component = self.ids.iter().position(|&id| id == specification[0]);
            components.push(component.ok_or_else(|| damaged("a scan is of no component"))?);
        }
        if components.is_empty() || interleave == 0 && count != 1 || interleave > 2 {
            return Err(damaged("its components are interleaved in an impossible way"));
        }
        let parameters = parameters(self.precision, i32::from(near), presets)?;
        let mut model = Model::new(parameters, data, count);
        let mut lines = vec![model::Lines::new(self.columns); count];
        for row in 0..self.rows {
            lines.iter_mut().for_each(model::Lines::turn);
            if interleave == 2 && count > 1 {
                model.line_by_sample(&mut lines)?;
            } else {
                for (index, line) in lines.iter_mut().enumerate() {
                    model.line(line, index)?;
                }
            }
            self.put(row, &components, &lines);
        }
        components.iter().for_each(|&component| self.done[component] = true);
        Ok(model.position())
    }

    fn put(&mut self, row: usize, components: &[usize], lines: &[model::Lines]) {
        let width = self.ids.len();
        let start = row * self.columns * width;
        for (&component, line) in components.iter().zip(lines) {
            let places = self.samples[start..].iter_mut().skip(component).step_by(width);
            places.zip(line.samples()).for_each(|(place, &sample)| *place = sample as u16);
        }
    }
}

/// The next marker, its body, and where the one behind it is to be looked for.
fn marker(stream: &[u8], at: usize) -> Result<(u8, &[u8], usize), DicomError> {
    let rest = stream.get(at..).unwrap_or_default();
    let start = rest.windows(2).position(|pair| pair[0] == 0xFF && pair[1] >= 0x80 && pair[1] != 0xFF);
    let start = at + start.ok_or_else(|| damaged("the stream ends too early"))?;
    let marker = stream[start + 1];
    if matches!(marker, 0xD0..=0xD9) {
        return Ok((marker, &[], start + 2));
    }
    let length =
        stream.get(start + 2..start + 4).map(|pair| usize::from(u16::from_be_bytes([pair[0], pair[1]])));
    let end = start + 2 + length.ok_or_else(|| damaged("a segment is cut short"))?.max(2);
    let body = stream.get(start + 4..end).ok_or_else(|| damaged("a segment is cut short"))?;
    Ok((marker, body, end))
}

fn presets_of(body: &[u8]) -> Result<Option<Presets>, DicomError> {
    match body.first() {
        Some(1) => {}
        Some(2 | 3) => return Err(DicomError::unsupported("JPEG-LS with mapping tables")),
        _ => return Err(DicomError::unsupported("JPEG-LS with an extension of its parameters")),
    }
    let words: Vec<i32> =
        body[1..].chunks_exact(2).map(|pair| i32::from(u16::from_be_bytes([pair[0], pair[1]]))).collect();
    let [maximum, t1, t2, t3, reset] =
        *words.first_chunk().ok_or_else(|| damaged("its parameters are cut short"))?;
    Ok(Some(Presets { maximum, thresholds: [t1, t2, t3], reset }))
}

/// The parameters of a scan, by default as T.87 C.2.4.1.1 says.
fn parameters(precision: u32, near: i32, presets: Option<Presets>) -> Result<Parameters, DicomError> {
    let preset = |value: fn(&Presets) -> i32| presets.as_ref().map(value).filter(|&value| value != 0);
    let maximum = preset(|p| p.maximum).unwrap_or((1 << precision) - 1);
    if maximum >= 1 << precision || near > 255.min(maximum / 2) {
        return Err(damaged("its parameters contradict each other"));
    }
    let clamp = |value: i32, low: i32| if value > maximum || value < low { low } else { value };
    let basic = |base: i32, add: i32, times: i32| {
        if maximum >= 128 {
            let factor = (maximum.min(4095) + 128) / 256;
            factor * (base - add) + add + times * near
        } else {
            add.max(base / (256 / (maximum + 1)) + times * near)
        }
    };
    let t1 = preset(|p| p.thresholds[0]).unwrap_or_else(|| clamp(basic(3, 2, 3), near + 1));
    let t2 = preset(|p| p.thresholds[1]).unwrap_or_else(|| clamp(basic(7, 3, 5), t1));
    let t3 = preset(|p| p.thresholds[2]).unwrap_or_else(|| clamp(basic(21, 4, 7), t2));
    if !(near < t1 && t1 <= t2 && t2 <= t3 && t3 <= maximum) {
        return Err(damaged("its thresholds are out of order"));
    }
    let reset = preset(|p| p.reset).unwrap_or(64);
    if reset < 3 {
        return Err(damaged("its parameters contradict each other"));
    }
    Ok(Parameters { maximum, near, thresholds: [t1, t2, t3], reset })
}

fn damaged(reason: &str) -> DicomError {
    DicomError::codec(CODEC, reason)
}
