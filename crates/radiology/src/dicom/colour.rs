//! Colours: palettes, and luminance with chrominance, to red, green and blue.
//!
//! Owns: the conversion of PS3.3 section C.7.6.3.1.2 and palette tables, segmented ones too (C.7.9.2). Not
//! here: the colour transforms of JPEG 2000, which its decoder undoes.

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::dataset::DataSet;
use super::error::DicomError;
use super::grey::entries_of;
use super::pixels::{Photometric, RawFrame, Samples, invalid};

/// A picture of red, green and blue, interleaved, in the depth that the file gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rgb {
    /// Values from 0 to 255.
    U8(Vec<u8>),
    /// Values of more bits, as many as stated.
    U16 {
        /// The values.
        values: Vec<u16>,
        /// Bits of a value, 9 to 16.
        bits: u16,
    },
}

impl Rgb {
    /// The picture in 8 bits a colour.
    pub fn into_u8(self) -> Vec<u8> {
        match self {
            Self::U8(values) => values,
            Self::U16 { values, bits } => {
                values.into_iter().map(|value| (value >> (bits - 8)) as u8).collect()
            }
        }
    }
}

/// The colours of a frame that is not grey. `bits` are those stored for a sample.
pub(crate) fn rgb(set: &DataSet<'_>, frame: &RawFrame, bits: u16) -> Result<Rgb, DicomError> {
    match frame.photometric {
        Photometric::PaletteColor => palette(set, frame),
        Photometric::YbrFull | Photometric::YbrFull422 => match &frame.samples {
            Samples::U8(values) => Ok(Rgb::U8(from_ybr(values))),
            _ => Err(DicomError::unsupported("luminance and chrominance of more than 8 bits")),
        },
        _ => match &frame.samples {
            Samples::U8(values) if bits == 8 => Ok(Rgb::U8(values.clone())),
            Samples::U8(values) => {
                let scale = f32::from(u8::MAX) / f32::from(u8::MAX >> (8 - bits.min(8)));
                Ok(Rgb::U8(values.iter().map(|&value| (f32::from(value) * scale + 0.5) as u8).collect()))
            }
            Samples::U16(values) => Ok(Rgb::U16 { values: values.clone(), bits: bits.clamp(8, 16) }),
            _ => Err(DicomError::unsupported("signed colours, or colours of 32 bits")),
        },
    }
}

fn from_ybr(values: &[u8]) -> Vec<u8> {
    let byte = |value: f32| (value + 0.5) as u8;
    let convert = |pixel: &[u8]| {
        let (y, b, r) = (f32::from(pixel[0]), f32::from(pixel[1]) - 128.0, f32::from(pixel[2]) - 128.0);
        [byte(y + 1.402 * r), byte(y - 0.344_136 * b - 0.714_136 * r), byte(y + 1.772 * b)]
    };
    values.chunks_exact(3).flat_map(convert).collect()
}

fn palette(set: &DataSet<'_>, frame: &RawFrame) -> Result<Rgb, DicomError> {
    let tables = [
        (tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR, tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DATA),
        (tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR, tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DATA),
        (tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR, tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DATA),
    ];
    let segmented = [
        tags::SEGMENTED_RED_PALETTE_COLOR_LOOKUP_TABLE_DATA,
        tags::SEGMENTED_GREEN_PALETTE_COLOR_LOOKUP_TABLE_DATA,
        tags::SEGMENTED_BLUE_PALETTE_COLOR_LOOKUP_TABLE_DATA,
    ];
    let mut channels = Vec::new();
    for ((descriptor, data), segmented) in tables.into_iter().zip(segmented) {
        channels.push(Channel::of(set, descriptor, data, segmented)?);
    }
    let bits = channels.iter().map(|channel| channel.bits).max().unwrap_or(8);
    let index: Vec<i64> = match &frame.samples {
        Samples::U8(values) => values.iter().map(|&value| i64::from(value)).collect(),
        Samples::I8(values) => values.iter().map(|&value| i64::from(value)).collect(),
        Samples::U16(values) => values.iter().map(|&value| i64::from(value)).collect(),
        Samples::I16(values) => values.iter().map(|&value| i64::from(value)).collect(),
        _ => return Err(DicomError::unsupported("a palette with an index of 32 bits")),
    };
    let colours =
        index.iter().flat_map(|&value| [0, 1, 2].map(|channel: usize| channels[channel].colour(value)));
    Ok(match bits {
        0..=8 => Rgb::U8(colours.map(|colour| colour as u8).collect()),
        _ => Rgb::U16 { values: colours.collect(), bits: bits as u16 },
    })
}

/// The table of one colour.
struct Channel {
    first: i64,
    entries: Vec<u16>,
    bits: u32,
}

impl Channel {
    fn of(set: &DataSet<'_>, descriptor: Tag, data: Tag, segmented: Tag) -> Result<Self, DicomError> {
        let numbers = set.integers(descriptor);
        let [count, first, bits] = *numbers
            .first_chunk()
            .ok_or(DicomError::Missing { tag: descriptor, name: "Palette Color Lookup Table Descriptor" })?;
        let count = if count & 0xFFFF == 0 { 65_536 } else { count as usize & 0xFFFF };
        if !matches!(bits, 8 | 16) {
            let reason = format!("declares {bits} bits an entry; 8 and 16 are possible");
            return Err(invalid(descriptor, "Palette Color Lookup Table Descriptor", reason));
        }
        let signed = set.integer(tags::PIXEL_REPRESENTATION) == Some(1);
        let first = if signed { i64::from(first as i16) } else { first };
        let entries = match (set.value(data), set.value(segmented)) {
            (Some(bytes), _) => entries_of(set, bytes, count, bits as u32),
            (None, Some(bytes)) => {
                let words: Vec<u16> =
                    if bits == 8 && set.element(segmented).is_some_and(|e| e.vr == dicom_core::VR::OB) {
                        bytes.iter().map(|&byte| u16::from(byte)).collect()
                    } else {
                        set.words(bytes).collect()
                    };
                expand(&words).filter(|entries| entries.len() >= count)
            }
            (None, None) => {
                return Err(DicomError::Missing { tag: data, name: "Palette Color Lookup Table Data" });
            }
        };
        let reason =
            || invalid(data, "Palette Color Lookup Table Data", format!("has too few of {count} entries"));
        Ok(Self { first, entries: entries.ok_or_else(reason)?, bits: bits as u32 })
    }

    fn colour(&self, index: i64) -> u16 {
        let place = (index - self.first).clamp(0, self.entries.len() as i64 - 1);
        self.entries[place as usize]
    }
}

/// Writes out a segmented table: values as they are, straight lines, and repetitions of earlier segments.
fn expand(words: &[u16]) -> Option<Vec<u16>> {
    let mut entries = Vec::new();
    let mut at = 0;
    while at + 1 < words.len() {
        at = segment(words, at, &mut entries, true)?;
        if entries.len() > 65_536 {
            return None;
        }
    }
    Some(entries)
}

/// Writes out the segment that begins at `at`, and gives where the next one begins.
fn segment(words: &[u16], at: usize, entries: &mut Vec<u16>, may_repeat: bool) -> Option<usize> {
    let (kind, length) = (*words.get(at)?, usize::from(*words.get(at + 1)?));
    match kind {
        0 => {
            entries.extend_from_slice(words.get(at + 2..at + 2 + length)?);
            Some(at + 2 + length)
        }
        1 => {
            let (start, end) = (f64::from(*entries.last()?), f64::from(*words.get(at + 2)?));
            let step = (end - start) / length.max(1) as f64;
            entries.extend((1..=length).map(|index| (start + step * index as f64).round() as u16));
            Some(at + 3)
        }
        2 if may_repeat => {
            let offset = usize::from(*words.get(at + 2)?) | usize::from(*words.get(at + 3)?) << 16;
            let mut from = offset;
            for _ in 0..length {
                from = segment(words, from, entries, false)?;
                if entries.len() > 65_536 {
                    return None;
                }
            }
            Some(at + 4)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn segmented_tables_are_written_out() {
        // Two values, a line to 100 in four steps, and both once more.
        let words = [0, 2, 10, 20, 1, 4, 100, 2, 2, 0, 0];
        assert_eq!(expand(&words).unwrap(), [10, 20, 40, 60, 80, 100, 10, 20, 40, 60, 80, 100]);
        assert_eq!(expand(&[2, 1, 0, 0]), None);
        assert_eq!(expand(&[1, 3, 9]), None);
    }

    #[test]
    fn luminance_and_chrominance_become_colours() {
        assert_eq!(from_ybr(&[76, 85, 255, 255, 128, 128, 0, 128, 128]), [254, 0, 0, 255, 255, 255, 0, 0, 0]);
    }
}
