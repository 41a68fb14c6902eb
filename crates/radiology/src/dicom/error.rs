//! What can be wrong with a DICOM file.
//!
//! Messages name tags, sizes and reasons, and what to do next; never the value of an attribute that could
//! identify somebody.

use std::io;
use std::path::PathBuf;

use dicom_core::Tag;

/// Why a DICOM file could not be read, or its pixels not be shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DicomError {
    /// The file itself could not be read.
    #[error("{} cannot be read: {source}; check that it exists and may be read", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Larger than any file that is read.
    #[error("the file has {bytes} bytes, more than the {limit} that are read at most; split it by instance")]
    TooLarge {
        /// Size of the file in bytes.
        bytes: u64,
        /// Bytes that are read at most.
        limit: u64,
    },
    /// Neither the mark of a DICOM file nor a data set that is plainly DICOM.
    #[error("not a DICOM file: {reason}; leave it out, or export it again as a DICOM file")]
    NotDicom {
        /// What is missing.
        reason: &'static str,
    },
    /// The file ends before something that it declares.
    #[error(
        "the file is cut short: {tag} declares {declared} bytes where {available} are left; copy it again from its source"
    )]
    Truncated {
        /// The element that declares more than there is.
        tag: Tag,
        /// Bytes declared.
        declared: u64,
        /// Bytes there are.
        available: u64,
    },
    /// Sequences within sequences beyond any sense.
    #[error(
        "sequences are nested more than {limit} deep at {tag}; the file is damaged or hostile, leave it out"
    )]
    TooDeep {
        /// Where the limit was met.
        tag: Tag,
        /// Depth that is read at most.
        limit: usize,
    },
    /// More elements than are read.
    #[error("more than {limit} data elements; split the file by instance")]
    TooManyElements {
        /// Elements that are read at most.
        limit: usize,
    },
    /// A deflated data set that grows out of all proportion.
    #[error(
        "the deflated data set grows beyond {limit} bytes from {compressed}; the file is damaged or hostile, leave it out"
    )]
    DeflateBomb {
        /// Bytes that were deflated.
        compressed: u64,
        /// Bytes that are inflated at most.
        limit: u64,
    },
    /// The structure of the file is broken.
    #[error("the file is malformed at {tag}: {reason}; copy it again from its source, or leave it out")]
    Malformed {
        /// Where.
        tag: Tag,
        /// What is wrong there.
        reason: String,
    },
    /// Pixels in an encoding that is not read.
    #[error(
        "the transfer syntax {uid} ({name}) is not supported; convert the file to an uncompressed one, RLE, JPEG or JPEG 2000"
    )]
    UnsupportedTransferSyntax {
        /// UID of the transfer syntax.
        uid: String,
        /// Its name, where it has one.
        name: &'static str,
    },
    /// A way to store pixels that the transfer syntax allows and this program does not read.
    #[error("{what} is not supported; convert the file to an uncompressed transfer syntax")]
    Unsupported {
        /// What is not read.
        what: String,
    },
    /// No pixels.
    #[error("no pixel data; only an image can be shown")]
    NoPixelData,
    /// An attribute that pixels cannot do without.
    #[error("{name} {tag} is missing; without it the pixels cannot be read, export the image again")]
    Missing {
        /// Its tag.
        tag: Tag,
        /// Its name.
        name: &'static str,
    },
    /// An attribute of the pixels that makes no sense.
    #[error("{name} {tag} {reason}; correct the file or leave it out")]
    Invalid {
        /// Its tag.
        tag: Tag,
        /// Its name.
        name: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// No such frame.
    #[error("frame {frame} was asked for, of {frames}; frames are counted from 0")]
    NoSuchFrame {
        /// The frame asked for.
        frame: u32,
        /// Frames there are.
        frames: u32,
    },
    /// A frame whose encoded pixels are not there.
    #[error("frame {frame}: {reason}; copy the file again from its source")]
    MissingFragment {
        /// The frame, counted from 0.
        frame: u32,
        /// What is missing.
        reason: String,
    },
    /// More pixels than are decoded.
    #[error(
        "a frame of {rows} x {columns} pixels is larger than the {limit} pixels that are decoded; reduce it"
    )]
    TooManyPixels {
        /// Rows.
        rows: u32,
        /// Columns.
        columns: u32,
        /// Pixels that are decoded at most.
        limit: u64,
    },
    /// The compressed pixels are damaged.
    #[error("the {codec} data is damaged: {reason}; copy the file again from its source")]
    Codec {
        /// Which encoding.
        codec: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The data set could be walked but not be read as an object.
    #[error("the data set cannot be read as an object: {reason}; export the file again")]
    Object {
        /// What the parser said, without values.
        reason: String,
    },
}

impl DicomError {
    /// Whether the file is in order but uses what this program does not read: UNIMPLEMENTED, not
    /// INVALID_ARGUMENT.
    pub fn is_unsupported(&self) -> bool {
        matches!(self, Self::UnsupportedTransferSyntax { .. } | Self::Unsupported { .. })
    }

    pub(crate) fn malformed(tag: Tag, reason: impl Into<String>) -> Self {
        Self::Malformed { tag, reason: reason.into() }
    }

    pub(crate) fn codec(codec: &'static str, reason: impl Into<String>) -> Self {
        Self::Codec { codec, reason: reason.into() }
    }

    pub(crate) fn unsupported(what: impl Into<String>) -> Self {
        Self::Unsupported { what: what.into() }
    }
}
