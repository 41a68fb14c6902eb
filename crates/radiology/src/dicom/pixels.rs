//! Stored pixels: what the image pixel module declares, and the samples of a frame as numbers.
//!
//! Owns: the checks of rows, columns, bits and frames before anything of that size is allocated, and the way
//! from bytes in a file to samples, in every transfer syntax. Not here: what samples mean (`grey`, `colour`).

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;

use super::codec::{Colours, Decoded, Patterns, Shape, decode};
use super::dataset::DataSet;
use super::error::DicomError;
use super::fragments;
use super::open::{Walked, inflate_frame};
use super::syntax::PixelCoding;
use super::walk::Value;

/// Pixels of a frame that are decoded at most.
pub(crate) const MAX_PIXELS: u64 = 64 << 20;
/// Bytes of a frame's samples at most.
const MAX_BYTES: u64 = 256 << 20;

/// What the samples of a pixel mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Photometric {
    /// Grey, the smallest value white.
    Monochrome1,
    /// Grey, the smallest value black.
    Monochrome2,
    /// An index into a palette.
    PaletteColor,
    /// Red, green and blue.
    Rgb,
    /// Luminance and two chrominances, with 4:2:2 subsampling where pixels are not compressed.
    YbrFull422,
    /// Luminance and two chrominances.
    YbrFull,
    /// The irreversible transform of JPEG 2000, undone by its decoder.
    YbrIct,
    /// The reversible transform of JPEG 2000, undone by its decoder.
    YbrRct,
}

impl Photometric {
    fn of(name: &str) -> Option<Self> {
        let all = [
            Self::Monochrome1,
            Self::Monochrome2,
            Self::PaletteColor,
            Self::Rgb,
            Self::YbrFull422,
            Self::YbrFull,
            Self::YbrIct,
            Self::YbrRct,
        ];
        all.into_iter().find(|photometric| photometric.as_str() == name)
    }

    /// The defined term of DICOM.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Monochrome1 => "MONOCHROME1",
            Self::Monochrome2 => "MONOCHROME2",
            Self::PaletteColor => "PALETTE COLOR",
            Self::Rgb => "RGB",
            Self::YbrFull422 => "YBR_FULL_422",
            Self::YbrFull => "YBR_FULL",
            Self::YbrIct => "YBR_ICT",
            Self::YbrRct => "YBR_RCT",
        }
    }

    /// Whether a pixel is one value of grey.
    pub fn is_grey(self) -> bool {
        matches!(self, Self::Monochrome1 | Self::Monochrome2)
    }

    fn samples(self) -> u16 {
        if self.is_grey() || self == Self::PaletteColor { 1 } else { 3 }
    }
}

/// The samples of a frame as numbers, interleaved by pixel; of the width that is allocated in the file.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Samples {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    F64(Vec<f64>),
}

/// A frame as it is stored: decompressed, but before any lookup table, window or conversion of colours.
#[derive(Debug, Clone, PartialEq)]
pub struct RawFrame {
    /// Rows of pixels.
    pub rows: u32,
    /// Columns of pixels.
    pub columns: u32,
    /// Samples of a pixel: 1 or 3.
    pub samples_per_pixel: u16,
    /// What the samples mean; for JPEG 2000 after its own colour transform is undone.
    pub photometric: Photometric,
    /// The samples, `rows * columns * samples_per_pixel` of them.
    pub samples: Samples,
}

/// What a data set declares about its pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PixelModule {
    pub rows: u32,
    pub columns: u32,
    pub frames: u32,
    pub samples_per_pixel: u16,
    pub planar: bool,
    pub photometric: Photometric,
    pub bits_allocated: u16,
    pub bits_stored: u16,
    pub high_bit: u16,
    pub signed: bool,
}

impl PixelModule {
    /// Reads and checks what is declared.
    pub(crate) fn of(set: &DataSet<'_>) -> Result<Self, DicomError> {
        let dimension = |tag, name| match positive(set, tag, name)? {
            value if value <= i64::from(u16::MAX) => Ok(value as u32),
            value => Err(invalid(tag, name, format!("is {value}; 1 to 65535 are possible"))),
        };
        let rows = dimension(tags::ROWS, "Rows")?;
        let columns = dimension(tags::COLUMNS, "Columns")?;
        let frames = frames_of(set)?;
        let name = set.code(tags::PHOTOMETRIC_INTERPRETATION).ok_or(DicomError::Missing {
            tag: tags::PHOTOMETRIC_INTERPRETATION,
            name: "Photometric Interpretation",
        })?;
        let known = Photometric::of(&name);
        let unknown =
            || DicomError::unsupported(format!("the photometric interpretation {}", printable(&name)));
        let photometric = known.ok_or_else(unknown)?;
        let samples_per_pixel =
            set.integer(tags::SAMPLES_PER_PIXEL).unwrap_or(i64::from(photometric.samples()));
        if samples_per_pixel != i64::from(photometric.samples()) {
            let reason = format!("is {samples_per_pixel}, which is impossible for {}", photometric.as_str());
            return Err(invalid(tags::SAMPLES_PER_PIXEL, "Samples per Pixel", reason));
        }
        let samples_per_pixel = photometric.samples();
        let (bits_allocated, bits_stored, high_bit) = bits_of(set)?;
        let module = Self {
            rows,
            columns,
            frames,
            samples_per_pixel,
            planar: set.integer(tags::PLANAR_CONFIGURATION) == Some(1),
            photometric,
            bits_allocated,
            bits_stored,
            high_bit,
            signed: set.integer(tags::PIXEL_REPRESENTATION) == Some(1),
        };
        module.check_size()?;
        Ok(module)
    }

    fn check_size(&self) -> Result<(), DicomError> {
        let pixels = u64::from(self.rows) * u64::from(self.columns);
        let bytes = pixels * u64::from(self.samples_per_pixel) * u64::from(self.bits_allocated.div_ceil(8));
        if pixels > MAX_PIXELS || bytes > MAX_BYTES {
            return Err(DicomError::TooManyPixels {
                rows: self.rows,
                columns: self.columns,
                limit: MAX_PIXELS,
            });
        }
        if bytes.checked_mul(u64::from(self.frames)).is_none_or(|all| all > 1 << 46) {
            let reason = "times Rows times Columns is more than any file holds".to_owned();
            return Err(invalid(tags::NUMBER_OF_FRAMES, "Number of Frames", reason));
        }
        Ok(())
    }

    fn shape(&self) -> Shape {
        Shape {
            rows: self.rows,
            columns: self.columns,
            samples: self.samples_per_pixel,
            allocated: self.bits_allocated,
        }
    }

    /// Bits of a frame that is not compressed. Subsampled colours have two samples for a pixel.
    fn native_bits(&self) -> u64 {
        let samples = match self.photometric {
            Photometric::YbrFull422 => 2,
            _ => u64::from(self.samples_per_pixel),
        };
        u64::from(self.rows) * u64::from(self.columns) * samples * u64::from(self.bits_allocated)
    }
}

/// How many frames a data set declares.
pub(crate) fn frames_of(set: &DataSet<'_>) -> Result<u32, DicomError> {
    match set.integer(tags::NUMBER_OF_FRAMES) {
        None | Some(0) => Ok(1),
        Some(frames) => u32::try_from(frames).map_err(|_| {
            invalid(tags::NUMBER_OF_FRAMES, "Number of Frames", format!("is {frames}, which is impossible"))
        }),
    }
}

/// The samples of frame `frame`, counted from 0.
pub(crate) fn raw_frame(walked: &Walked, frame: u32) -> Result<RawFrame, DicomError> {
    let set = walked.data_set();
    if set.element(tags::FLOAT_PIXEL_DATA).is_some() || set.element(tags::DOUBLE_FLOAT_PIXEL_DATA).is_some() {
        return float_frame(walked, frame);
    }
    let Some(element) = set.element(tags::PIXEL_DATA) else { return Err(DicomError::NoPixelData) };
    if walked.syntax.coding == PixelCoding::Unsupported {
        return Err(walked.syntax.unsupported());
    }
    let module = PixelModule::of(&set)?;
    check_frame(frame, module.frames)?;
    match &element.value {
        Value::Bytes(range) => {
            if walked.syntax.is_encapsulated() {
                let reason = "is not in fragments, as its transfer syntax demands".to_owned();
                return Err(invalid(tags::PIXEL_DATA, "Pixel Data", reason));
            }
            // Bytes in words are swapped with them in a big endian file (PS3.5 section 8.1.1 and annex A.3).
            let swapped = set.big_endian && element.vr == VR::OW && module.bits_allocated <= 8;
            native_frame(&walked.bytes[range.clone()], &module, frame, set.big_endian, swapped)
        }
        Value::Fragments(parts) => {
            let stream = fragments::frame(&set, parts, module.frames, frame)?;
            encapsulated_frame(walked, &stream, &module)
        }
        Value::Items(_) => Err(invalid(tags::PIXEL_DATA, "Pixel Data", "is a sequence".to_owned())),
    }
}

fn check_frame(frame: u32, frames: u32) -> Result<(), DicomError> {
    if frame < frames { Ok(()) } else { Err(DicomError::NoSuchFrame { frame, frames }) }
}

fn encapsulated_frame(walked: &Walked, stream: &[u8], module: &PixelModule) -> Result<RawFrame, DicomError> {
    match walked.syntax.coding {
        PixelCoding::Native => Err(invalid(
            tags::PIXEL_DATA,
            "Pixel Data",
            "is in fragments, which its transfer syntax does not allow".to_owned(),
        )),
        PixelCoding::Encapsulated => {
            native_frame(stream, &PixelModule { frames: 1, ..*module }, 0, false, false)
        }
        PixelCoding::DeflatedFrame => {
            let inflated = inflate_frame(stream, module.native_bits().div_ceil(8) as usize)?;
            native_frame(&inflated, &PixelModule { frames: 1, ..*module }, 0, false, false)
        }
        _ => decode(&walked.syntax, stream, module.shape()).and_then(|decoded| stored(decoded, module)),
    }
}

/// The samples of a frame that is not compressed, out of all of them.
fn native_frame(
    bytes: &[u8],
    module: &PixelModule,
    frame: u32,
    big_endian: bool,
    swapped: bool,
) -> Result<RawFrame, DicomError> {
    let bits = module.native_bits();
    let needed = (bits * u64::from(module.frames)).div_ceil(8);
    if (bytes.len() as u64) < needed {
        let reason = format!(
            "has {} bytes where {} frames of {} x {} pixels need {needed}",
            bytes.len(),
            module.frames,
            module.rows,
            module.columns
        );
        return Err(invalid(tags::PIXEL_DATA, "Pixel Data", reason));
    }
    let first = u64::from(frame) * bits;
    let patterns = if module.bits_allocated == 1 {
        Patterns::Bytes(unpack_bits(bytes, first as usize, bits as usize, swapped))
    } else {
        let bytes = &bytes[(first / 8) as usize..((first + bits) / 8) as usize];
        words_of(bytes, module.bits_allocated, big_endian, swapped)
    };
    let patterns = match (module.photometric, patterns) {
        (Photometric::YbrFull422, Patterns::Bytes(bytes)) => Patterns::Bytes(upsampled(&bytes)),
        (Photometric::YbrFull422, _) => {
            return Err(DicomError::unsupported("YBR_FULL_422 of more than 8 bits"));
        }
        (_, patterns) if module.planar && module.samples_per_pixel == 3 => interleaved(patterns),
        (_, patterns) => patterns,
    };
    stored(Decoded { patterns, bits: None, colours: None, signed: false }, module)
}

fn words_of(bytes: &[u8], allocated: u16, big_endian: bool, swapped: bool) -> Patterns {
    match allocated {
        8 if swapped => {
            let mut bytes = bytes.to_vec();
            bytes.chunks_exact_mut(2).for_each(|pair| pair.swap(0, 1));
            Patterns::Bytes(bytes)
        }
        8 => Patterns::Bytes(bytes.to_vec()),
        16 => {
            let words = bytes.chunks_exact(2).map(|pair| [pair[0], pair[1]]);
            Patterns::Words(match big_endian {
                true => words.map(u16::from_be_bytes).collect(),
                false => words.map(u16::from_le_bytes).collect(),
            })
        }
        _ => {
            let words = bytes.chunks_exact(4).map(|quad| [quad[0], quad[1], quad[2], quad[3]]);
            Patterns::Doubles(match big_endian {
                true => words.map(u32::from_be_bytes).collect(),
                false => words.map(u32::from_le_bytes).collect(),
            })
        }
    }
}

/// Bits from the least significant of each byte on (PS3.5 annex D).
fn unpack_bits(bytes: &[u8], first: usize, count: usize, swapped: bool) -> Vec<u8> {
    let byte = |index: usize| bytes.get(if swapped { index ^ 1 } else { index }).copied().unwrap_or(0);
    (first..first + count).map(|bit| byte(bit / 8) >> (bit % 8) & 1).collect()
}

/// Two luminances and one pair of chrominances become two pixels.
fn upsampled(bytes: &[u8]) -> Vec<u8> {
    bytes.chunks_exact(4).flat_map(|quad| [quad[0], quad[2], quad[3], quad[1], quad[2], quad[3]]).collect()
}

/// Planes become pixels.
fn interleaved(patterns: Patterns) -> Patterns {
    fn pixels<T: Copy>(planes: &[T]) -> Vec<T> {
        let plane = planes.len() / 3;
        (0..plane)
            .flat_map(|pixel| [planes[pixel], planes[pixel + plane], planes[pixel + 2 * plane]])
            .collect()
    }
    match patterns {
        Patterns::Bytes(planes) => Patterns::Bytes(pixels(&planes)),
        Patterns::Words(planes) => Patterns::Words(pixels(&planes)),
        Patterns::Doubles(planes) => Patterns::Doubles(pixels(&planes)),
    }
}

/// Patterns of bits become numbers: the bits that are stored, with a sign or without.
fn stored(decoded: Decoded, module: &PixelModule) -> Result<RawFrame, DicomError> {
    let Decoded { patterns, bits, colours, signed: coded_signed } = decoded;
    let allocated = u32::from(module.bits_allocated.max(8));
    let compressed = bits.is_some();
    if bits.is_some_and(|bits| bits > allocated) {
        let reason = format!("is {allocated}, fewer than the compressed samples have");
        return Err(invalid(tags::BITS_ALLOCATED, "Bits Allocated", reason));
    }
    let bits = match bits {
        // A stream whose signs the data set agrees with is right as it is.
        Some(_) if coded_signed && module.signed => allocated,
        Some(bits) => {
            if module.signed {
                bits.min(u32::from(module.bits_stored))
            } else {
                bits
            }
        }
        None => u32::from(module.bits_stored),
    };
    let shift = if compressed { 0 } else { u32::from(module.high_bit + 1 - module.bits_stored) };
    let patterns = match (patterns, allocated) {
        (Patterns::Bytes(bytes), 16) => Patterns::Words(bytes.into_iter().map(u16::from).collect()),
        (Patterns::Bytes(bytes), 32) => Patterns::Doubles(bytes.into_iter().map(u32::from).collect()),
        (Patterns::Words(words), 8) => Patterns::Bytes(words.into_iter().map(|word| word as u8).collect()),
        (Patterns::Words(words), 32) if coded_signed => {
            Patterns::Doubles(words.into_iter().map(|word| i32::from(word as i16) as u32).collect())
        }
        (Patterns::Words(words), 32) => Patterns::Doubles(words.into_iter().map(u32::from).collect()),
        (patterns, _) => patterns,
    };
    // Shifted up to the top and down again: what is above the stored bits is lost, or repeats the sign.
    let (up, down) = (allocated - bits - shift.min(allocated - bits), allocated - bits);
    macro_rules! numbers {
        ($values:expr, $unsigned:ident, $signed:ident) => {{
            let mut values = $values;
            match module.signed {
                false if down == 0 => Samples::$unsigned(values),
                false => {
                    values.iter_mut().for_each(|value| *value = (*value << up) >> down);
                    Samples::$unsigned(values)
                }
                true => Samples::$signed(
                    values.into_iter().map(|value| ((value << up).cast_signed()) >> down).collect(),
                ),
            }
        }};
    }
    let samples = match patterns {
        Patterns::Bytes(values) => numbers!(values, U8, I8),
        Patterns::Words(values) => numbers!(values, U16, I16),
        Patterns::Doubles(values) => numbers!(values, U32, I32),
    };
    let photometric = match (module.photometric, colours) {
        (Photometric::YbrIct | Photometric::YbrRct, _) | (_, Some(Colours::Rgb)) => Photometric::Rgb,
        (Photometric::Rgb, Some(Colours::Ybr)) => Photometric::YbrFull,
        (photometric, _) => photometric,
    };
    let &PixelModule { rows, columns, samples_per_pixel, .. } = module;
    Ok(RawFrame { rows, columns, samples_per_pixel, photometric, samples })
}

/// A frame of floating-point numbers, which are never compressed.
fn float_frame(walked: &Walked, frame: u32) -> Result<RawFrame, DicomError> {
    let set = walked.data_set();
    let dimension = |tag, name| positive(&set, tag, name).map(|value| value.min(i64::from(u16::MAX)) as u32);
    let (rows, columns) = (dimension(tags::ROWS, "Rows")?, dimension(tags::COLUMNS, "Columns")?);
    if u64::from(rows) * u64::from(columns) > MAX_PIXELS / 2 {
        return Err(DicomError::TooManyPixels { rows, columns, limit: MAX_PIXELS / 2 });
    }
    let frames = frames_of(&set)?;
    check_frame(frame, frames)?;
    let (tag, width) = match set.element(tags::FLOAT_PIXEL_DATA) {
        Some(_) => (tags::FLOAT_PIXEL_DATA, 4),
        None => (tags::DOUBLE_FLOAT_PIXEL_DATA, 8),
    };
    let size = rows as usize * columns as usize * width;
    let range = (frame as usize).checked_mul(size).map(|start| start..start + size);
    let bytes = set.value(tag).zip(range).and_then(|(bytes, range)| bytes.get(range));
    let bytes =
        bytes.ok_or_else(|| invalid(tag, "Pixel Data", "has fewer bytes than its frames need".to_owned()))?;
    let big = set.big_endian;
    let samples = match width {
        4 => Samples::F32(bytes.chunks_exact(4).map(|chunk| f32_of(chunk, big)).collect()),
        _ => Samples::F64(bytes.chunks_exact(8).map(|chunk| f64_of(chunk, big)).collect()),
    };
    let photometric = match set.code(tags::PHOTOMETRIC_INTERPRETATION).as_deref() {
        Some("MONOCHROME1") => Photometric::Monochrome1,
        _ => Photometric::Monochrome2,
    };
    Ok(RawFrame { rows, columns, samples_per_pixel: 1, photometric, samples })
}

fn f32_of(chunk: &[u8], big_endian: bool) -> f32 {
    let bytes = chunk.try_into().expect("chunks_exact gives four bytes");
    if big_endian { f32::from_be_bytes(bytes) } else { f32::from_le_bytes(bytes) }
}

fn f64_of(chunk: &[u8], big_endian: bool) -> f64 {
    let bytes = chunk.try_into().expect("chunks_exact gives eight bytes");
    if big_endian { f64::from_be_bytes(bytes) } else { f64::from_le_bytes(bytes) }
}

fn bits_of(set: &DataSet<'_>) -> Result<(u16, u16, u16), DicomError> {
    let name = "Bits Allocated";
    let allocated =
        set.integer(tags::BITS_ALLOCATED).ok_or(DicomError::Missing { tag: tags::BITS_ALLOCATED, name })?;
    if !matches!(allocated, 1 | 8 | 16 | 32) {
        let reason = format!("is {allocated}; 1, 8, 16 and 32 can be read");
        return Err(invalid(tags::BITS_ALLOCATED, name, reason));
    }
    let stored = set.integer(tags::BITS_STORED).unwrap_or(allocated);
    if !(1..=allocated).contains(&stored) {
        let reason = format!("is {stored} of {allocated} bits allocated");
        return Err(invalid(tags::BITS_STORED, "Bits Stored", reason));
    }
    let high = set.integer(tags::HIGH_BIT).unwrap_or(stored - 1);
    if !(stored - 1..allocated).contains(&high) {
        let reason = format!("is {high} for {stored} bits stored of {allocated} allocated");
        return Err(invalid(tags::HIGH_BIT, "High Bit", reason));
    }
    Ok((allocated as u16, stored as u16, high as u16))
}

fn positive(set: &DataSet<'_>, tag: Tag, name: &'static str) -> Result<i64, DicomError> {
    match set.integer(tag) {
        None => Err(DicomError::Missing { tag, name }),
        Some(value) if value > 0 => Ok(value),
        Some(value) => Err(invalid(tag, name, format!("is {value}; an image has at least one"))),
    }
}

pub(crate) fn invalid(tag: Tag, name: &'static str, reason: String) -> DicomError {
    DicomError::Invalid { tag, name, reason }
}

/// A term of the standard, cut to what may be shown.
fn printable(term: &str) -> String {
    term.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(32).collect()
}

impl Samples {
    /// The name of the type as numpy has it, and the samples in little endian.
    pub fn to_le_bytes(&self) -> (&'static str, Vec<u8>) {
        macro_rules! bytes {
            ($name:literal, $values:expr) => {
                ($name, $values.iter().flat_map(|value| value.to_le_bytes()).collect())
            };
        }
        match self {
            Self::U8(values) => bytes!("uint8", values),
            Self::I8(values) => bytes!("int8", values),
            Self::U16(values) => bytes!("uint16", values),
            Self::I16(values) => bytes!("int16", values),
            Self::U32(values) => bytes!("uint32", values),
            Self::I32(values) => bytes!("int32", values),
            Self::F32(values) => bytes!("float32", values),
            Self::F64(values) => bytes!("float64", values),
        }
    }

    /// The samples as numbers.
    pub fn to_numbers(&self) -> Vec<f64> {
        match self {
            Self::U8(values) => values.iter().map(|&value| f64::from(value)).collect(),
            Self::I8(values) => values.iter().map(|&value| f64::from(value)).collect(),
            Self::U16(values) => values.iter().map(|&value| f64::from(value)).collect(),
            Self::I16(values) => values.iter().map(|&value| f64::from(value)).collect(),
            Self::U32(values) => values.iter().map(|&value| f64::from(value)).collect(),
            Self::I32(values) => values.iter().map(|&value| f64::from(value)).collect(),
            Self::F32(values) => values.iter().map(|&value| f64::from(value)).collect(),
            Self::F64(values) => values.clone(),
        }
    }
}
