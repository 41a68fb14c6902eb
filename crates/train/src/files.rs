//! The files of a run.
//!
//! Owns: files that appear whole or not at all, told as errors of training; keeping a second run out of a
//! directory. Deliberately absent: what is in the files.

use std::fs::{self, File, TryLockError};
use std::path::Path;

use diptych_files::FileError;

use crate::error::{TrainError, io};

/// Replaces `path` by `bytes` in one step, in a directory that is this run's own.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    diptych_files::replace(path, bytes).map_err(told)
}

/// As [`replace`], in a directory where other processes may write the same file.
pub(crate) fn replace_shared(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    diptych_files::replace_shared(path, bytes).map_err(told)
}

fn told(error: FileError) -> TrainError {
    let FileError { action, path, source } = error;
    TrainError::Io { what: action, path, source }
}

/// Removes a file, if it is there.
pub(crate) fn remove(path: &Path) -> Result<(), TrainError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io("remove", path)(e)),
        _ => Ok(()),
    }
}

/// Creates a directory and its parents.
pub(crate) fn create_folder(path: &Path) -> Result<(), TrainError> {
    if let Some(file) = path.ancestors().find(|path| path.is_file()) {
        return Err(TrainError::NotADirectory { path: file.to_path_buf() });
    }
    fs::create_dir_all(path).map_err(io("create", path))
}

/// Keeps other runs out of a directory for as long as the handle lives. The directory itself is locked,
/// so that nothing is left in it; where the system cannot do that, nobody is kept out.
pub(crate) fn lock(folder: &Path) -> Result<File, TrainError> {
    let handle = File::open(folder).map_err(io("open", folder))?;
    match handle.try_lock() {
        Err(TryLockError::WouldBlock) => Err(TrainError::InUse { path: folder.to_path_buf() }),
        Ok(()) | Err(TryLockError::Error(_)) => Ok(handle),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_directory_is_one_runs_own_until_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock(dir.path()).unwrap();
        assert!(matches!(lock(dir.path()), Err(TrainError::InUse { .. })));
        drop(held);
        lock(dir.path()).unwrap();
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        replace(&file, b"x").unwrap();
        for path in [file.clone(), file.join("below")] {
            let error = create_folder(&path).unwrap_err();
            assert!(matches!(&error, TrainError::NotADirectory { path } if *path == file), "{error}");
        }
    }
}
