//! JPEG 2000 (ITU-T T.800), by the crate hayro-jpeg2000, which is safe Rust throughout.
//!
//! Owns: the header of the codestream, read before anything is decoded, and the numbers as they were coded,
//! signed ones too. Not here: wavelets and bit planes.

use hayro_jpeg2000::{DecodeSettings, DecoderContext, Image};

use super::{Colours, Decoded, DicomError, Patterns, Shape};

const CODEC: &str = "JPEG 2000";
const START: [u8; 4] = [0xFF, 0x4F, 0xFF, 0x51];
/// How the container JP2 begins, which DICOM forbids and some writers use.
const CONTAINER: &[u8] = b"\0\0\0\x0CjP  ";

/// Whether a stream is JPEG 2000.
pub(super) fn is_one(stream: &[u8]) -> bool {
    stream.starts_with(&START) || stream.starts_with(CONTAINER)
}

/// What the codestream says of itself.
struct Size {
    precision: u32,
    signed: bool,
    subsampled: bool,
}

/// Decodes a frame.
pub(super) fn decode(stream: &[u8], shape: Shape) -> Result<Decoded, DicomError> {
    let stream = codestream(stream)?;
    let size = size_of(stream, shape)?;
    let settings = DecodeSettings { resolve_palette_indices: false, strict: false, target_resolution: None };
    let damaged = |error: &dyn std::fmt::Display| DicomError::codec(CODEC, error.to_string());
    let image = Image::new(stream, &settings).map_err(|error| damaged(&error))?;
    let mut context = DecoderContext::default();
    let decoded = image.decode(&mut context).map_err(|error| damaged(&error))?;
    let samples = usize::from(shape.samples);
    let components: Vec<&[f32]> = decoded.components().iter().take(samples).map(|c| c.samples()).collect();
    if components.len() != samples || components.iter().any(|component| component.len() != shape.pixels()) {
        return Err(damaged(&"the components have another size than the header says"));
    }
    // The decoder lifts every sample by half the range, whether or not it is signed.
    let largest = ((1_u32 << size.precision) - 1) as f32;
    let middle = if size.signed { 1_u16 << (size.precision - 1) } else { 0 };
    let word = |value: f32| (value.clamp(0.0, largest) + 0.5) as u16;
    let patterns = if size.precision <= 8 && !size.signed {
        Patterns::Bytes(interleave(&components, |value| word(value) as u8))
    } else {
        Patterns::Words(interleave(&components, |value| word(value).wrapping_sub(middle)))
    };
    // Subsampled luminance and chrominance come out as red, green and blue.
    let colours = (size.subsampled && samples == 3).then_some(Colours::Rgb);
    Ok(Decoded { patterns, bits: Some(size.precision), colours, signed: size.signed })
}

fn interleave<T: Copy + Default>(components: &[&[f32]], to: impl Fn(f32) -> T) -> Vec<T> {
    if let [only] = components {
        return only.iter().map(|&value| to(value)).collect();
    }
    let mut values = vec![T::default(); components.len() * components[0].len()];
    for (index, component) in components.iter().enumerate() {
        let places = values.iter_mut().skip(index).step_by(components.len());
        places.zip(*component).for_each(|(place, &value)| *place = to(value));
    }
    values
}

/// The codestream, out of its container if it has one.
fn codestream(stream: &[u8]) -> Result<&[u8], DicomError> {
    if stream.starts_with(&START) {
        return Ok(stream);
    }
    stream
        .windows(4)
        .position(|window| window == START)
        .map(|at| &stream[at..])
        .ok_or_else(|| DicomError::codec(CODEC, "there is no codestream in its container"))
}

fn size_of(stream: &[u8], shape: Shape) -> Result<Size, DicomError> {
    let short = || DicomError::codec(CODEC, "the header is cut short");
    let word = |at: usize| -> Result<u32, DicomError> {
        let bytes: &[u8; 4] = stream.get(at..).and_then(|rest| rest.first_chunk()).ok_or_else(short)?;
        Ok(u32::from_be_bytes(*bytes))
    };
    // SIZ: marker at 2, length at 4, capabilities at 6, then the grid.
    let (columns, rows) = (word(8)?.checked_sub(word(16)?), word(12)?.checked_sub(word(20)?));
    let count = stream
        .get(40..42)
        .map(|pair| usize::from(u16::from_be_bytes([pair[0], pair[1]])))
        .ok_or_else(short)?;
    let (Some(columns), Some(rows)) = (columns, rows) else {
        return Err(DicomError::codec(CODEC, "the image lies outside of its grid"));
    };
    shape.check(CODEC, rows, columns, count)?;
    let tiles = rows.div_ceil(word(28)?.max(1)) as u64 * columns.div_ceil(word(24)?.max(1)) as u64;
    if tiles > 65_535 {
        return Err(DicomError::codec(CODEC, "it has more tiles than are possible"));
    }
    let components = stream.get(42..42 + 3 * count).ok_or_else(short)?;
    let depth = components.first().copied().ok_or_else(short)?;
    if components.chunks_exact(3).any(|component| component[0] != depth) {
        return Err(DicomError::unsupported("JPEG 2000 with components of different depth"));
    }
    let precision = u32::from(depth & 0x7F) + 1;
    if precision > 16 {
        return Err(DicomError::unsupported(format!("JPEG 2000 of {precision} bits a sample")));
    }
    let subsampled = components.chunks_exact(3).any(|component| component[1..] != [1, 1]);
    Ok(Size { precision, signed: depth & 0x80 != 0, subsampled })
}
