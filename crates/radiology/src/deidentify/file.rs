//! One DICOM file, from its bytes to those of its de-identified copy. Deliberately absent: where either
//! lies, and trees of files.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use dicom_dictionary_std::tags;

use super::dataset::text_of;
use super::{Deidentifier, DeidentifyError, Known, Removed};
use crate::dicom::{DicomError, DicomFile};

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
    /// The file system refused.
    #[error("cannot read it: {0}; check its permissions")]
    Io(#[from] std::io::Error),
    /// Damaged, or written in an unknown way.
    #[error("it cannot be read as DICOM: {reason}")]
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
        // Without reading large files that are something else.
        let mut start = Vec::new();
        File::open(path)?.take(132).read_to_end(&mut start)?;
        if !may_be_dicom(&start) {
            return Err(FileError::NotDicom);
        }
        self.copy(DicomFile::open(path)?)
    }

    /// As [`Deidentifier::file`], of a file that is in memory.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn bytes(&self, bytes: Vec<u8>) -> Result<CleanFile, FileError> {
        self.copy(DicomFile::read(bytes)?)
    }

    fn copy(&self, file: DicomFile) -> Result<CleanFile, FileError> {
        let deflated = file.header().transfer_syntax == DEFLATED;
        let mut object = file.into_object()?;
        if deflated {
            // What was inflated for reading is deflated again.
            object.update_meta(|meta| meta.transfer_syntax = DEFLATED.to_owned());
        }
        if object.meta().media_storage_sop_class_uid().trim_end_matches('\0') == MEDIA_STORAGE_DIRECTORY {
            return Err(FileError::Directory);
        }
        let known = Known::of_object(&object);
        let removed = self.object(&mut object)?;
        let uid = |tag| Some(text_of(&object, tag)).filter(|uid| is_uid(uid)).unwrap_or("none".to_owned());
        let (study, series) = (uid(tags::STUDY_INSTANCE_UID), uid(tags::SERIES_INSTANCE_UID));
        let instance = uid(tags::SOP_INSTANCE_UID);
        let mut bytes = Vec::new();
        object.write_all(&mut bytes).map_err(|error| FileError::Damaged { reason: error.to_string() })?;
        Ok(CleanFile { bytes, study, series, instance, known, removed })
    }
}

const DEFLATED: &str = "1.2.840.10008.1.2.1.99";
const MEDIA_STORAGE_DIRECTORY: &str = "1.2.840.10008.1.3.10";

/// Whether it can be the name of a file: with UIDs retained, it is what the file says.
fn is_uid(uid: &str) -> bool {
    !uid.is_empty()
        && uid.len() <= 64
        && uid.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        && !uid.contains("..")
}

/// Whether a file with these first bytes can be DICOM: a mark, or the first group of a data set without one.
fn may_be_dicom(start: &[u8]) -> bool {
    let first_group = matches!(start, [2 | 8, 0, ..] | [0, 2 | 8, ..]);
    start.get(128..132) == Some(b"DICM") || start.starts_with(b"DICM") || first_group
}

impl From<DicomError> for FileError {
    fn from(error: DicomError) -> Self {
        match error {
            DicomError::NotDicom { .. } => Self::NotDicom,
            DicomError::Io { source, .. } => Self::Io(source),
            error => Self::Damaged { reason: error.to_string() },
        }
    }
}
