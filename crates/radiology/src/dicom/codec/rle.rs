//! RLE Lossless (PS3.5 annex G): byte planes, each packed by PackBits.

use super::{Decoded, DicomError, Patterns, Shape};

const CODEC: &str = "RLE";
const HEADER: usize = 64;

/// Decodes a frame: one segment for each byte of a sample, the most significant first.
pub(super) fn decode(stream: &[u8], shape: Shape) -> Result<Decoded, DicomError> {
    let samples = usize::from(shape.samples);
    let width = usize::from(shape.allocated) / 8;
    if !matches!(shape.allocated, 8 | 16 | 32) {
        return Err(DicomError::unsupported(format!("RLE of {} bits a sample", shape.allocated)));
    }
    let offsets = offsets(stream)?;
    if offsets.len() != samples * width {
        let reason = format!("it has {} segments where {} are needed", offsets.len(), samples * width);
        return Err(DicomError::codec(CODEC, reason));
    }
    let mut values = match width {
        1 => Patterns::Bytes(Vec::new()),
        2 => Patterns::Words(Vec::new()),
        _ => Patterns::Doubles(Vec::new()),
    };
    let mut plane = Vec::new();
    for (index, &start) in offsets.iter().enumerate() {
        let end = offsets.get(index + 1).copied().unwrap_or(stream.len());
        let segment = stream
            .get(start..end)
            .ok_or_else(|| DicomError::codec(CODEC, format!("segment {index} lies outside the frame")))?;
        unpack(segment, shape.pixels(), &mut plane)?;
        let sample = index / width;
        match &mut values {
            Patterns::Bytes(bytes) if samples == 1 => std::mem::swap(bytes, &mut plane),
            Patterns::Bytes(bytes) => merge(bytes, &plane, sample, shape, |_, byte| byte),
            Patterns::Words(words) => {
                merge(words, &plane, sample, shape, |word, byte| word << 8 | u16::from(byte))
            }
            Patterns::Doubles(words) => {
                merge(words, &plane, sample, shape, |word, byte| word << 8 | u32::from(byte))
            }
        }
    }
    Ok(Decoded::plain(values))
}

fn merge<T: Copy + Default>(
    into: &mut Vec<T>,
    plane: &[u8],
    sample: usize,
    shape: Shape,
    add: impl Fn(T, u8) -> T,
) {
    into.resize(shape.len(), T::default());
    if shape.samples == 1 {
        into.iter_mut().zip(plane).for_each(|(value, &byte)| *value = add(*value, byte));
        return;
    }
    let places = into.iter_mut().skip(sample).step_by(usize::from(shape.samples));
    places.zip(plane).for_each(|(value, &byte)| *value = add(*value, byte));
}

fn offsets(stream: &[u8]) -> Result<Vec<usize>, DicomError> {
    let short = || DicomError::codec(CODEC, "the frame is shorter than the header of its segments");
    let header = stream.get(..HEADER).ok_or_else(short)?;
    let mut words =
        header.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    let count = words.next().unwrap_or(0) as usize;
    if !(1..=15).contains(&count) {
        return Err(DicomError::codec(CODEC, format!("it declares {count} segments; 1 to 15 are possible")));
    }
    Ok(words.take(count).map(|offset| offset as usize).collect())
}

/// Unpacks as many bytes as a plane has; what comes after them is filling.
fn unpack(segment: &[u8], wanted: usize, plane: &mut Vec<u8>) -> Result<(), DicomError> {
    plane.clear();
    // No byte of a segment gives more than 64.
    plane.reserve(wanted.min(segment.len().saturating_mul(64)));
    let mut rest = segment;
    while plane.len() < wanted {
        let (control, tail) = match rest {
            [control, tail @ ..] => (*control, tail),
            [] => return Err(ends_early()),
        };
        rest = match control {
            0..=127 => {
                let count = usize::from(control) + 1;
                let needed = count.min(wanted - plane.len());
                plane.extend_from_slice(tail.get(..needed).ok_or_else(ends_early)?);
                tail.get(count..).unwrap_or_default()
            }
            128 => tail,
            _ => {
                let (&byte, tail) = tail.split_first().ok_or_else(ends_early)?;
                let count = (257 - usize::from(control)).min(wanted - plane.len());
                plane.resize(plane.len() + count, byte);
                tail
            }
        };
    }
    Ok(())
}

fn ends_early() -> DicomError {
    DicomError::codec(CODEC, "a segment ends before its plane is full")
}
