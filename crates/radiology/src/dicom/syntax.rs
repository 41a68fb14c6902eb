//! Transfer syntaxes: what their UIDs are called, and how files of each are read.

use dicom_core::Tag;
use dicom_encoding::TransferSyntaxIndex;
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;

use super::error::DicomError;
use super::walk::Encoding;

/// How the pixels of a transfer syntax are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PixelCoding {
    /// As they are, one frame behind the other.
    Native,
    /// As they are, in fragments.
    Encapsulated,
    /// Frames that are deflated one by one.
    DeflatedFrame,
    Rle,
    /// Baseline, extended or lossless, as the stream itself says.
    Jpeg,
    JpegLs,
    Jpeg2000,
    /// Something else.
    Unsupported,
}

/// A transfer syntax.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Syntax {
    pub uid: String,
    pub name: &'static str,
    pub encoding: Encoding,
    pub deflated: bool,
    pub coding: PixelCoding,
}

const PREFIX: &str = "1.2.840.10008.1.2";

impl Syntax {
    /// The transfer syntax of a UID. What is not known is taken for one of the many that differ from
    /// explicit little endian in their pixels alone, so that all but the pixels can be read.
    pub(crate) fn of(uid: &str) -> Self {
        use PixelCoding as P;
        let uid = uid.trim_matches(|c: char| c == '\0' || c.is_whitespace());
        let tail = uid.strip_prefix(PREFIX);
        let (encoding, coding) = match tail {
            Some("") => (Encoding::IMPLICIT_LE, P::Native),
            Some(".2") => (Encoding::EXPLICIT_BE, P::Native),
            Some(".1" | ".1.99") => (Encoding::EXPLICIT_LE, P::Native),
            Some(".1.98") => (Encoding::EXPLICIT_LE, P::Encapsulated),
            Some(".8.1") => (Encoding::EXPLICIT_LE, P::DeflatedFrame),
            Some(".5") => (Encoding::EXPLICIT_LE, P::Rle),
            Some(".4.50" | ".4.51" | ".4.57" | ".4.70") => (Encoding::EXPLICIT_LE, P::Jpeg),
            Some(".4.80" | ".4.81") => (Encoding::EXPLICIT_LE, P::JpegLs),
            Some(".4.90" | ".4.91") => (Encoding::EXPLICIT_LE, P::Jpeg2000),
            _ => (Encoding::EXPLICIT_LE, P::Unsupported),
        };
        let name = TransferSyntaxRegistry
            .get(uid)
            .map_or("not a registered transfer syntax", |syntax| syntax.name());
        let name = if uid.is_empty() { "none declared" } else { name };
        Self { uid: uid.to_owned(), name, encoding, deflated: tail == Some(".1.99"), coding }
    }

    /// The transfer syntax of a data set that declares none, by its encoding.
    pub(crate) fn guessed(encoding: Encoding) -> Self {
        Self::of(match encoding {
            Encoding { big_endian: true, .. } => "1.2.840.10008.1.2.2",
            Encoding { explicit: true, .. } => "1.2.840.10008.1.2.1",
            _ => PREFIX,
        })
    }

    /// The error for pixels that are not read.
    pub(crate) fn unsupported(&self) -> DicomError {
        DicomError::UnsupportedTransferSyntax { uid: self.uid.clone(), name: self.name }
    }

    /// Whether pixels are stored in fragments.
    pub(crate) fn is_encapsulated(&self) -> bool {
        self.coding != PixelCoding::Native
    }
}

/// The encoding of a data set by its first element, where that is plain: the low groups in one of the byte
/// orders, with or without a value representation.
pub(crate) fn guess(bytes: &[u8]) -> Option<Encoding> {
    let group: [u8; 2] = bytes.get(..2)?.try_into().ok()?;
    let explicit = super::walk::looks_explicit(bytes);
    match Tag(u16::from_le_bytes(group), 0).group() {
        0x0002 | 0x0004 | 0x0008 | 0x0010 => Some(Encoding { explicit, big_endian: false }),
        _ if matches!(u16::from_be_bytes(group), 0x0008 | 0x0010) && explicit => Some(Encoding::EXPLICIT_BE),
        _ => None,
    }
}
