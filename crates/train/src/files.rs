//! Writing files so that a crash leaves the old one or the new one, never half of one.
//!
//! Owns: write, sync, rename, sync the directory; keeping a second run out of a directory. Deliberately
//! absent: what is in the files.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::Path;

use crate::error::{TrainError, io};

/// Replaces `path` by `bytes` in one step, in a directory that is this run's own.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    replace_by(path, ".tmp", bytes)
}

/// As [`replace`], in a directory where other processes may write the same file.
pub(crate) fn replace_shared(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    replace_by(path, &format!(".{}.tmp", std::process::id()), bytes)
}

fn replace_by(path: &Path, ending: &str, bytes: &[u8]) -> Result<(), TrainError> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(ending);
    let temporary = path.with_file_name(name);
    let mut file = File::create(&temporary).map_err(io("create", &temporary))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io("write", &temporary))?;
    fs::rename(&temporary, path).map_err(io("replace", path))?;
    // The rename is durable once its directory is; not every system can sync one.
    if let Some(folder) = path.parent()
        && let Ok(folder) = File::open(folder)
    {
        folder.sync_all().ok();
    }
    Ok(())
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
