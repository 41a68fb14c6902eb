//! DICOM files: what is in them, and their pixels as pictures.
//!
//! A file is walked before anything else believes it: nesting, lengths and counts are bounded (`walk`, `open`).
//! Its header is what the rest of Diptych wants to know of it ([`Header`]); a frame of it is a picture as a
//! viewer would show it first ([`DicomFile::frame`]), or the numbers that are stored
//! ([`DicomFile::raw_frame`]); a structured report is text ([`DicomFile::sr_text`]); and a tree of files is
//! studies ([`scan`]). Deliberately absent: writing, the network, overlays, presentation states, and anything
//! that is removed for privacy (`deidentify`).

mod charset;
mod codec;
mod colour;
mod dataset;
mod error;
mod fragments;
mod frames;
mod grey;
mod header;
mod open;
mod pixels;
mod scan;
mod structured;
mod syntax;
mod view;
mod walk;

use std::path::Path;

use dicom_dictionary_std::tags;
use dicom_object::{DefaultDicomObject, FileMetaTableBuilder, InMemDicomObject};
use dicom_transfer_syntax_registry::entries;
use image::{DynamicImage, GrayImage, RgbImage};

pub use colour::Rgb;
pub use error::DicomError;
pub use frames::FramePolicy;
pub use grey::Statistics;
pub use header::{Header, ImageHeader};
pub use pixels::{Photometric, RawFrame, Samples};
pub use scan::{Instance, Problem, Series, Studies, Study, scan};
pub use view::View;

use grey::Chain;
use open::Walked;
use walk::Encoding;

/// A DICOM file in memory, checked and walked.
#[derive(Debug, Clone)]
pub struct DicomFile {
    walked: Walked,
    header: Header,
}

impl DicomFile {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`DicomError`] for a file that cannot be read, is not DICOM, or is damaged or hostile.
    pub fn open(path: &Path) -> Result<Self, DicomError> {
        Self::new(open::read(path)?)
    }

    /// Reads a file no further than its pixels: everything but frames is there.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn open_header(path: &Path) -> Result<Self, DicomError> {
        Self::new(open::read_header(path)?)
    }

    /// Takes a file that is in memory.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn read(bytes: Vec<u8>) -> Result<Self, DicomError> {
        Self::new(open::walk_bytes(bytes)?)
    }

    fn new(walked: Walked) -> Result<Self, DicomError> {
        Ok(Self { header: Header::of(&walked)?, walked })
    }

    /// What the file says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// A frame as it is to be shown, 8 bits of grey or of each colour: for grey, modality lookup table or
    /// rescale, then VOI lookup table or window, else from the smallest value to the largest, MONOCHROME1
    /// inverted; colours as red, green and blue. Frames are counted from 0.
    ///
    /// # Errors
    ///
    /// [`DicomError`] for a file without pixels, a frame that is not there, pixels that are damaged, or an
    /// encoding that is not read ([`DicomError::is_unsupported`]).
    pub fn frame(&self, frame: u32) -> Result<DynamicImage, DicomError> {
        self.picture(&self.raw_frame(frame)?, frame)
    }

    /// The picture of a raw frame of this file; see [`Self::frame`].
    ///
    /// # Errors
    ///
    /// [`DicomError`] for lookup tables and windows that make no sense.
    pub fn picture(&self, raw: &RawFrame, frame: u32) -> Result<DynamicImage, DicomError> {
        let whole = "a picture has as many bytes as its size says";
        if raw.photometric.is_grey() {
            let bytes = Chain::of(&self.walked.data_set(), frame)?.picture(raw);
            return Ok(GrayImage::from_raw(raw.columns, raw.rows, bytes).expect(whole).into());
        }
        let bytes = self.rgb(raw)?.into_u8();
        Ok(RgbImage::from_raw(raw.columns, raw.rows, bytes).expect(whole).into())
    }

    /// A frame as it is stored, decompressed and no more.
    ///
    /// # Errors
    ///
    /// As [`Self::frame`].
    pub fn raw_frame(&self, frame: u32) -> Result<RawFrame, DicomError> {
        pixels::raw_frame(&self.walked, frame)
    }

    /// The colours of a raw frame of this file, in the depth of the file or its palette.
    ///
    /// # Errors
    ///
    /// [`DicomError`] for a broken palette.
    pub fn rgb(&self, raw: &RawFrame) -> Result<Rgb, DicomError> {
        let set = self.walked.data_set();
        let bits = set.integer(tags::BITS_STORED).unwrap_or(8).clamp(1, 16) as u16;
        colour::rgb(&set, raw, bits)
    }

    /// The values of a grey raw frame of this file after its modality lookup table or rescale.
    ///
    /// # Errors
    ///
    /// [`DicomError`] for a lookup table or rescale that makes no sense.
    pub fn statistics(&self, raw: &RawFrame, frame: u32) -> Result<Statistics, DicomError> {
        Ok(Chain::of(&self.walked.data_set(), frame)?.statistics(raw))
    }

    /// The text of a structured report: its containers as headings, its texts, codes and measurements as
    /// lines. None for a file that has none.
    ///
    /// # Errors
    ///
    /// [`DicomError`] for text in an unknown character set.
    pub fn sr_text(&self) -> Result<Option<String>, DicomError> {
        structured::text(&self.walked.data_set())
    }

    /// The data set as an object of the crate dicom-object, with its meta information. What was deflated is
    /// declared as explicit little endian, which it is now.
    ///
    /// # Errors
    ///
    /// [`DicomError::Object`] for a data set that only the walk can make sense of.
    pub fn object(&self) -> Result<DefaultDicomObject, DicomError> {
        let failed = |reason: String| DicomError::Object { reason };
        let Walked { bytes, syntax, extent, .. } = &self.walked;
        let encoding = match syntax.encoding {
            Encoding { big_endian: true, .. } => entries::EXPLICIT_VR_BIG_ENDIAN.erased(),
            Encoding { explicit: true, .. } => entries::EXPLICIT_VR_LITTLE_ENDIAN.erased(),
            _ => entries::IMPLICIT_VR_LITTLE_ENDIAN.erased(),
        };
        let object = InMemDicomObject::read_dataset_with_ts(&bytes[extent.clone()], &encoding)
            .map_err(|error| failed(error.to_string()))?;
        let uid = if syntax.deflated { entries::EXPLICIT_VR_LITTLE_ENDIAN.uid() } else { &syntax.uid };
        let meta = FileMetaTableBuilder::new()
            .transfer_syntax(uid)
            .media_storage_sop_class_uid(self.header.sop_class.clone().unwrap_or_default())
            .media_storage_sop_instance_uid(self.header.sop_instance.clone().unwrap_or_default());
        object.with_meta(meta).map_err(|error| failed(error.to_string()))
    }

    /// As [`Self::object`], for who needs nothing else of the file.
    ///
    /// # Errors
    ///
    /// As [`Self::object`].
    pub fn into_object(self) -> Result<DefaultDicomObject, DicomError> {
        self.object()
    }
}

/// The header of a file, which is read no further than its pixels.
///
/// # Errors
///
/// As [`DicomFile::open`].
pub fn read_header(path: &Path) -> Result<Header, DicomError> {
    Header::of(&open::read_header(path)?)
}

#[cfg(test)]
mod tests;
