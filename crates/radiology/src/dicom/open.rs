//! From a file to the walked data set: size, preamble, meta information, transfer syntax, deflate.
//!
//! Owns: what counts as a DICOM file, and every bound that is checked before its content is believed. A file
//! may be read whole or only up to its pixels.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use flate2::read::DeflateDecoder;

use super::charset::Charset;
use super::dataset::{DataSet, charset_of};
use super::error::DicomError;
use super::syntax::{Syntax, guess};
use super::walk::{Elements, Encoding, Stop, looks_explicit, walk, walk_meta};

/// Bytes of a file that are read at most.
pub(crate) const MAX_FILE: u64 = 2 << 30;
/// Bytes that a deflated data set is inflated to at most.
const MAX_INFLATED: u64 = 512 << 20;
/// Times that a deflated data set grows at most; deflate itself reaches 1032.
const MAX_GROWTH: u64 = 1000;
/// The first look at a file whose pixels are not wanted.
const FIRST_LOOK: usize = 64 << 10;

/// A data set with the bytes its values lie in.
#[derive(Debug, Clone)]
pub(crate) struct Walked {
    pub bytes: Vec<u8>,
    pub elements: Elements,
    pub meta: Elements,
    /// What the meta elements lie in, where the data set was inflated; empty where both lie in `bytes`.
    pub meta_bytes: Vec<u8>,
    pub syntax: Syntax,
    pub charset: Charset,
    /// Where the data set lies in `bytes`.
    pub extent: Range<usize>,
}

impl Walked {
    pub(crate) fn data_set(&self) -> DataSet<'_> {
        DataSet {
            bytes: &self.bytes,
            elements: &self.elements,
            big_endian: self.syntax.encoding.big_endian,
            charset: &self.charset,
        }
    }

    pub(crate) fn meta(&self) -> DataSet<'_> {
        let bytes = if self.meta_bytes.is_empty() { &self.bytes } else { &self.meta_bytes };
        DataSet { bytes, elements: &self.meta, big_endian: false, charset: &self.charset }
    }
}

/// Reads a file whole.
pub(crate) fn read(path: &Path) -> Result<Walked, DicomError> {
    let (mut file, total) = open(path)?;
    let mut bytes = Vec::new();
    // A file that grows meanwhile is read no further than the limit either.
    file.by_ref().take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|source| io(path, source))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(DicomError::TooLarge { bytes: total.max(bytes.len() as u64), limit: MAX_FILE });
    }
    walk_bytes(bytes)
}

/// Reads a file up to its pixels, in a few growing steps.
pub(crate) fn read_header(path: &Path) -> Result<Walked, DicomError> {
    let (mut file, total) = open(path)?;
    let mut bytes = Vec::new();
    let mut wanted = FIRST_LOOK;
    loop {
        let more = wanted.saturating_sub(bytes.len());
        file.by_ref().take(more as u64).read_to_end(&mut bytes).map_err(|source| io(path, source))?;
        let total = if bytes.len() < wanted { bytes.len() as u64 } else { total.max(bytes.len() as u64) };
        match walk_prefix(&mut bytes, total, true) {
            Ok(walked) => return Ok(walked),
            Err(Stop::Error(error)) => return Err(error),
            Err(Stop::NeedMore(end)) => wanted = end.max(bytes.len() * 4),
        }
    }
}

/// Walks a file that is in memory.
pub(crate) fn walk_bytes(mut bytes: Vec<u8>) -> Result<Walked, DicomError> {
    let total = bytes.len() as u64;
    if total > MAX_FILE {
        return Err(DicomError::TooLarge { bytes: total, limit: MAX_FILE });
    }
    match walk_prefix(&mut bytes, total, false) {
        Ok(walked) => Ok(walked),
        Err(Stop::Error(error)) => Err(error),
        Err(Stop::NeedMore(_)) => unreachable!("the whole file is at hand"),
    }
}

fn open(path: &Path) -> Result<(File, u64), DicomError> {
    let file = File::open(path).map_err(|source| io(path, source))?;
    let total = file.metadata().map_err(|source| io(path, source))?.len();
    if total > MAX_FILE {
        return Err(DicomError::TooLarge { bytes: total, limit: MAX_FILE });
    }
    Ok((file, total))
}

fn io(path: &Path, source: std::io::Error) -> DicomError {
    DicomError::Io { path: path.to_owned(), source }
}

/// Walks what is at hand of a file of `total` bytes. Takes the bytes only when it succeeds.
fn walk_prefix(bytes: &mut Vec<u8>, total: u64, until_pixels: bool) -> Result<Walked, Stop> {
    let (start, has_mark) = match bytes.as_slice() {
        bytes if bytes.get(128..132) == Some(b"DICM".as_slice()) => (132, true),
        bytes if bytes.starts_with(b"DICM") => (4, true),
        bytes if bytes.len() < 132 && (bytes.len() as u64) < total => return Err(Stop::NeedMore(132)),
        _ => (0, false),
    };
    if !has_mark && (bytes.len() < 8 || guess(bytes).is_none()) {
        let reason =
            if bytes.is_empty() { "the file is empty" } else { "it has no DICM mark after its preamble" };
        return Err(DicomError::NotDicom { reason }.into());
    }
    let (meta, start) = walk_meta(bytes, start, total)?;
    let syntax = syntax_of(bytes, &meta, start)?;
    let mut meta_bytes = Vec::new();
    let (data, start, total) = if syntax.deflated {
        // Inflated as a whole even where only the header is wanted: it has no length to go by.
        if (bytes.len() as u64) < total {
            return Err(Stop::NeedMore(total as usize));
        }
        let inflated = inflate(&bytes[start..])?;
        let total = inflated.len() as u64;
        meta_bytes = bytes[..start].to_vec();
        (inflated, 0, total)
    } else {
        (std::mem::take(bytes), start, total)
    };
    let (elements, end) = match walk(&data, start, total, syntax.encoding, until_pixels) {
        Ok(walked) => walked,
        Err(stop) => {
            if !syntax.deflated {
                *bytes = data;
            }
            let stop = match stop {
                // Without the mark there is no telling a damaged file from one that was never DICOM.
                Stop::Error(_) if !has_mark => {
                    DicomError::NotDicom { reason: "it has no DICM mark, and its elements make no sense" }
                        .into()
                }
                stop => stop,
            };
            return Err(stop);
        }
    };
    let charset = charset_of(&data, &elements);
    let walked = Walked { bytes: data, elements, meta, meta_bytes, syntax, charset, extent: start..end };
    if !has_mark && !is_plainly_dicom(&walked) {
        return Err(DicomError::NotDicom { reason: "it has neither a DICM mark nor a SOP class" }.into());
    }
    Ok(walked)
}

fn is_plainly_dicom(walked: &Walked) -> bool {
    let set = walked.data_set();
    [tags::SOP_CLASS_UID, tags::STUDY_INSTANCE_UID, tags::MODALITY]
        .iter()
        .any(|&tag| set.value(tag).is_some())
}

/// The transfer syntax that the meta information declares, corrected by what is plainly there.
fn syntax_of(bytes: &[u8], meta: &Elements, start: usize) -> Result<Syntax, Stop> {
    let rest = bytes.get(start..).unwrap_or_default();
    let set = DataSet { bytes, elements: meta, big_endian: false, charset: &Charset::Undeclared };
    let Some(uid) = set.code(tags::TRANSFER_SYNTAX_UID) else {
        // Nothing declared: as the first element looks; an empty data set may be anything.
        let encoding = guess(rest).or(rest.is_empty().then_some(Encoding::IMPLICIT_LE));
        return encoding.map(Syntax::guessed).ok_or_else(|| {
            let reason = "the meta information names no transfer syntax, and the data set shows none";
            DicomError::malformed(tags::TRANSFER_SYNTAX_UID, reason).into()
        });
    };
    let mut syntax = Syntax::of(&uid);
    // Some writers declare implicit and write explicit; a length that spells a representation is none.
    if syntax.encoding == Encoding::IMPLICIT_LE && looks_explicit(rest) && first_tag(rest).element() != 0 {
        syntax.encoding = Encoding::EXPLICIT_LE;
    }
    Ok(syntax)
}

fn first_tag(bytes: &[u8]) -> Tag {
    match bytes {
        [a, b, c, d, ..] => Tag(u16::from_le_bytes([*a, *b]), u16::from_le_bytes([*c, *d])),
        _ => Tag(0, 0),
    }
}

fn inflate(deflated: &[u8]) -> Result<Vec<u8>, DicomError> {
    let compressed = deflated.len() as u64;
    let limit = MAX_INFLATED.min(compressed.saturating_mul(MAX_GROWTH).max(1 << 16));
    let mut inflated = Vec::new();
    let outcome = DeflateDecoder::new(deflated).take(limit + 1).read_to_end(&mut inflated);
    if inflated.len() as u64 > limit {
        return Err(DicomError::DeflateBomb { compressed, limit });
    }
    outcome.map_err(|error| DicomError::codec("deflate", error.to_string()))?;
    Ok(inflated)
}

/// Inflates one frame to the bytes it must have.
pub(crate) fn inflate_frame(deflated: &[u8], wanted: usize) -> Result<Vec<u8>, DicomError> {
    let mut inflated = Vec::new();
    let limit = wanted as u64 + 1;
    let outcome = DeflateDecoder::new(deflated).take(limit).read_to_end(&mut inflated);
    outcome.map_err(|error| DicomError::codec("deflate", error.to_string()))?;
    Ok(inflated)
}
