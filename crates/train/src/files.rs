//! Writing files so that a crash leaves the old one or the new one, never half of one.
//!
//! Owns: write, sync, rename, sync the directory. Deliberately absent: what is in the files.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use crate::error::{TrainError, io};

/// Replaces `path` by `bytes` in one step.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".tmp");
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

/// Creates a directory and its parents.
pub(crate) fn create_folder(path: &Path) -> Result<(), TrainError> {
    fs::create_dir_all(path).map_err(io("create", path))
}
