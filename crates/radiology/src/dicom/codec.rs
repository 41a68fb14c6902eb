//! Compressed frames to samples: one decoder for each encoding.
//!
//! Owns: which decoder reads which transfer syntax, and the shape that every one must deliver. Decoders give
//! unsigned patterns, interleaved by pixel; what is signed and how many bits count is decided by `pixels`.

mod huffman;
mod jpeg;
mod jpeg2000;
mod jpeg_dct;
mod jpeg_lossless;
#[cfg(feature = "jpeg-ls")]
mod jpeg_ls;
mod rle;

use super::error::DicomError;
use super::syntax::{PixelCoding, Syntax};

/// What a frame has to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub rows: u32,
    pub columns: u32,
    /// Samples of a pixel.
    pub samples: u16,
    /// Bits allocated for a sample.
    pub allocated: u16,
}

impl Shape {
    pub(crate) fn pixels(self) -> usize {
        self.rows as usize * self.columns as usize
    }

    pub(crate) fn len(self) -> usize {
        self.pixels() * usize::from(self.samples)
    }

    /// Checks what a stream says of itself against what the data set says.
    fn check(self, codec: &'static str, rows: u32, columns: u32, samples: usize) -> Result<(), DicomError> {
        if (rows, columns, samples) == (self.rows, self.columns, usize::from(self.samples)) {
            return Ok(());
        }
        let Self { rows: r, columns: c, samples: s, .. } = self;
        let reason = format!(
            "it has {rows} x {columns} x {samples} samples where the data set declares {r} x {c} x {s}"
        );
        Err(DicomError::codec(codec, reason))
    }
}

/// Samples as they were coded, interleaved by pixel: patterns of bits, not yet signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Patterns {
    Bytes(Vec<u8>),
    Words(Vec<u16>),
    Doubles(Vec<u32>),
}

/// What three samples of a pixel are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colours {
    Rgb,
    Ybr,
}

/// A decoded frame.
#[derive(Debug, Clone)]
pub(crate) struct Decoded {
    pub patterns: Patterns,
    /// Bits of a sample, where the stream itself tells better than the data set.
    pub bits: Option<u32>,
    /// What the stream itself says its three samples are, which goes before what the data set says.
    pub colours: Option<Colours>,
    /// Whether the patterns are of signed numbers, already extended to the whole container.
    pub signed: bool,
}

impl Decoded {
    fn plain(patterns: Patterns) -> Self {
        Self { patterns, bits: None, colours: None, signed: false }
    }
}

/// Decodes a frame of a compressed transfer syntax.
pub(crate) fn decode(syntax: &Syntax, stream: &[u8], shape: Shape) -> Result<Decoded, DicomError> {
    match syntax.coding {
        PixelCoding::Rle => rle::decode(stream, shape),
        // What a stream begins with decides: syntaxes of the JPEG family are mistaken for each other.
        PixelCoding::Jpeg | PixelCoding::JpegLs | PixelCoding::Jpeg2000 => decode_jpeg_family(stream, shape),
        _ => Err(syntax.unsupported()),
    }
}

fn decode_jpeg_family(stream: &[u8], shape: Shape) -> Result<Decoded, DicomError> {
    if jpeg2000::is_one(stream) {
        return jpeg2000::decode(stream, shape);
    }
    match jpeg::start_of_frame(stream) {
        #[cfg(feature = "jpeg-ls")]
        Some(0xF7) => jpeg_ls::decode(stream, shape),
        #[cfg(not(feature = "jpeg-ls"))]
        Some(0xF7) => {
            Err(DicomError::unsupported("JPEG-LS, as this program was built without the feature jpeg-ls,"))
        }
        Some(_) => jpeg::decode(stream, shape),
        None => Err(DicomError::codec("JPEG", "there is no start of a frame")),
    }
}
