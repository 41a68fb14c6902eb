//! Why a folder cannot be written or read.

use std::path::{Path, PathBuf};

use diptych_files::FileError;

/// What can go wrong with a folder as a whole; what is wrong with single records is told with them.
#[derive(Debug, thiserror::Error)]
pub enum ColumnarError {
    /// The system refused.
    #[error("cannot {action} {path}: {source}; check permissions and free space", path = path.display())]
    Io {
        /// What was tried, such as "write".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file or folder is not what it should be.
    #[error("{path}: {reason}", path = path.display())]
    Unusable {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong and what would be right.
        reason: String,
    },
}

impl ColumnarError {
    pub(crate) fn unusable(path: &Path, reason: impl Into<String>) -> Self {
        Self::Unusable { path: path.to_owned(), reason: reason.into() }
    }
}

impl From<FileError> for ColumnarError {
    fn from(error: FileError) -> Self {
        let FileError { action, path, source } = error;
        Self::Io { action, path, source }
    }
}

/// Attaches the path to an error of the system.
pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> ColumnarError {
    let path = path.to_owned();
    move |source| ColumnarError::Io { action, path, source }
}
