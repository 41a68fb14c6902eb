//! One DICOM file, from its bytes to those of its de-identified copy. Deliberately absent: where either
//! lies, and trees of files.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use dicom_dictionary_std::tags;
use dicom_object::{FileDicomObject, InMemDicomObject};

use super::dataset::text_of;
use super::{Deidentifier, DeidentifyError, Known, Removed};

/// Largest file that is read, in bytes.
const BYTES_MAX: u64 = 2 << 30;

/// A de-identified copy of a file.
#[derive(Debug)]
pub struct CleanFile {
    /// The copy, a DICOM file in the transfer syntax of the original.
    pub bytes: Vec<u8>,
    /// Study Instance UID of the copy; `none` where the original has none.
    pub study: String,
    /// Series Instance UID of the copy; `none` where the original has none.
    pub series: String,
    /// SOP Instance UID of the copy.
    pub instance: String,
    /// What the original says that identifies, to be found in texts beside it.
    pub known: Known,
    /// What was removed.
    pub removed: Removed,
}

/// Why there is no de-identified copy of a file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Something other than DICOM.
    #[error("it is no DICOM file; leave it out")]
    NotDicom,
    /// A directory of other files, which names patients.
    #[error("it is a DICOMDIR, which lists patients; make a new one of the de-identified files")]
    Directory,
    /// Larger than any picture.
    #[error("it has {bytes} bytes, more than the {limit} that are read; split it")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The bound.
        limit: u64,
    },
    /// The file system refused.
    #[error("cannot read it: {0}; check its permissions")]
    Io(#[from] std::io::Error),
    /// Damaged, or written in an unknown way.
    #[error("it cannot be read as DICOM: {reason}; repair it or leave it out")]
    Damaged {
        /// What is wrong, without values.
        reason: String,
    },
    /// Refused.
    #[error(transparent)]
    Refused(#[from] DeidentifyError),
}

impl Deidentifier {
    /// The de-identified copy of a file.
    ///
    /// # Errors
    /// [`FileError`]; nothing is written anywhere.
    pub fn file(&self, path: &Path) -> Result<CleanFile, FileError> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        let mut start = Vec::new();
        file.by_ref().take(132).read_to_end(&mut start)?;
        if start.get(128..132) != Some(b"DICM") {
            return Err(FileError::NotDicom);
        }
        if size > BYTES_MAX {
            return Err(FileError::TooLarge { bytes: size, limit: BYTES_MAX });
        }
        let mut bytes = start;
        file.take(BYTES_MAX).read_to_end(&mut bytes)?;
        self.bytes(bytes)
    }

    /// As [`Deidentifier::file`], of a file that is in memory.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn bytes(&self, bytes: Vec<u8>) -> Result<CleanFile, FileError> {
        let mut object = parse(bytes)?;
        if object.meta().media_storage_sop_class_uid().trim_end_matches('\0') == MEDIA_STORAGE_DIRECTORY {
            return Err(FileError::Directory);
        }
        let known = Known::of_object(&object);
        let removed = self.object(&mut object)?;
        let uid = |tag| Some(text_of(&object, tag)).filter(|uid| is_uid(uid)).unwrap_or("none".to_owned());
        let (study, series) = (uid(tags::STUDY_INSTANCE_UID), uid(tags::SERIES_INSTANCE_UID));
        let instance = uid(tags::SOP_INSTANCE_UID);
        let mut bytes = Vec::new();
        object.write_all(&mut bytes).map_err(|error| damaged(&error))?;
        Ok(CleanFile { bytes, study, series, instance, known, removed })
    }
}

const MEDIA_STORAGE_DIRECTORY: &str = "1.2.840.10008.1.3.10";

/// Whether it can be the name of a file: with UIDs retained, it is what the file says.
fn is_uid(uid: &str) -> bool {
    !uid.is_empty()
        && uid.len() <= 64
        && uid.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        && !uid.contains("..")
}

fn parse(bytes: Vec<u8>) -> Result<FileDicomObject<InMemDicomObject>, FileError> {
    if bytes.get(128..132) != Some(b"DICM") {
        return Err(FileError::NotDicom);
    }
    dicom_object::from_reader(&bytes[..]).map_err(|error| damaged(&error))
}

/// The outermost description alone: those within may quote values.
fn damaged(error: &dyn std::error::Error) -> FileError {
    FileError::Damaged { reason: error.to_string() }
}
