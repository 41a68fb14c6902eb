//! Files and folders that appear whole or not at all: a crash leaves the old one or the new one, never
//! half of one.
//!
//! Owns: write aside, sync, rename, sync the folder. Deliberately absent: what is in the files, and the
//! directories of the store and the index, which have protocols of their own.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// A file or folder cannot be put in place.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}: {source}; check permissions and free space", path = path.display())]
pub struct FileError {
    /// What was tried, such as "write".
    pub action: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// Replaces a file by `bytes` in one step, in a folder where nobody else writes the same file.
///
/// # Errors
/// [`FileError`]; what was there is untouched.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    replace_with(path, |temporary| File::create(temporary)?.write_all(bytes)).map(drop)
}

/// As [`replace`], in a folder where other processes may write the same file.
///
/// # Errors
/// As [`replace`].
pub fn replace_shared(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let write = |temporary: &Path| File::create(temporary)?.write_all(bytes);
    replace_by(path, &format!(".{}.tmp", std::process::id()), write).map(drop)
}

/// Replaces a file in one step by the one that `write` writes under the name that it is given. Returns its
/// size in bytes.
///
/// # Errors
/// As [`replace`].
pub fn replace_with(path: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> Result<u64, FileError> {
    replace_by(path, ".tmp", write)
}

fn replace_by(
    path: &Path,
    ending: &str,
    write: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<u64, FileError> {
    let temporary = path.with_file_name(named(path, "", ending));
    write(&temporary).map_err(failed("write", &temporary))?;
    let file = File::options().append(true).open(&temporary).map_err(failed("open", &temporary))?;
    let bytes = file.metadata().map_err(failed("read", &temporary))?.len();
    file.sync_all().map_err(failed("write", &temporary))?;
    fs::rename(&temporary, path).map_err(failed("replace", path))?;
    sync_folder(parent(path))?;
    Ok(bytes)
}

/// Writes a new file and makes its content durable; its name is, once the folder is synced.
///
/// # Errors
/// [`FileError`].
pub fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let write = || -> io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(failed("write", path))
}

/// Makes new names in a folder, and renames, last beyond a power failure, where a folder can be synced.
///
/// # Errors
/// [`FileError`].
pub fn sync_folder(folder: &Path) -> Result<(), FileError> {
    if !cfg!(unix) {
        return Ok(());
    }
    match File::open(folder).and_then(|opened| opened.sync_all()) {
        // Some file systems cannot.
        Err(e) if matches!(e.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        synced => synced.map_err(failed("sync", folder)),
    }
}

/// A folder in the making. It lies beside its later place under another name until it is published; one
/// that is dropped before is removed.
#[derive(Debug)]
pub struct StagedFolder {
    target: PathBuf,
    staging: PathBuf,
    published: bool,
}

impl StagedFolder {
    /// Begins a folder that is to be at `target`, where nothing may be but an empty folder. On Unix, only
    /// its owner may enter it.
    ///
    /// # Errors
    /// [`FileError`], of the kind [`ErrorKind::DirectoryNotEmpty`] or [`ErrorKind::NotADirectory`] when
    /// something is there.
    pub fn create(target: &Path) -> Result<Self, FileError> {
        check_free(target)?;
        let target = std::path::absolute(target).map_err(failed("find", target))?;
        let folder = parent(&target);
        fs::create_dir_all(folder).map_err(failed("create", folder))?;
        let staging = target.with_file_name(named(&target, ".", &format!(".{}.partial", std::process::id())));
        // Of an earlier process with this number, if it is there.
        match fs::remove_dir_all(&staging) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(failed("remove", &staging)(e)),
            _ => {}
        }
        create_private(&staging)?;
        Ok(Self { target, staging, published: false })
    }

    /// Where it is until it is published.
    pub fn path(&self) -> &Path {
        &self.staging
    }

    /// Puts the folder in its place. The files in it must have been synced; names are synced here, in the
    /// folder and those below it.
    ///
    /// # Errors
    /// [`FileError`]; then nothing is in its place.
    pub fn publish(mut self) -> Result<(), FileError> {
        check_free(&self.target)?;
        sync_tree(&self.staging)?;
        fs::rename(&self.staging, &self.target).map_err(failed("create", &self.target))?;
        self.published = true;
        sync_folder(parent(&self.target))
    }
}

impl Drop for StagedFolder {
    fn drop(&mut self) {
        if !self.published {
            // Nobody is left to be told; its name says that it is not whole.
            let _ = fs::remove_dir_all(&self.staging);
        }
    }
}

/// Creates a folder that on Unix only its owner may enter; its parent must be there.
///
/// # Errors
/// [`FileError`].
pub fn create_private(folder: &Path) -> Result<(), FileError> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(folder).map_err(failed("create", folder))
}

fn check_free(target: &Path) -> Result<(), FileError> {
    match fs::read_dir(target).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(failed("create", target)(ErrorKind::DirectoryNotEmpty.into())),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(failed("read", target)(e)),
    }
}

fn sync_tree(folder: &Path) -> Result<(), FileError> {
    for entry in fs::read_dir(folder).map_err(failed("read", folder))? {
        let entry = entry.map_err(failed("read", folder))?;
        if entry.file_type().map_err(failed("read", folder))?.is_dir() {
            sync_tree(&entry.path())?;
        }
    }
    sync_folder(folder)
}

fn named(path: &Path, before: &str, after: &str) -> OsString {
    let mut name = OsString::from(before);
    name.push(path.file_name().unwrap_or_default());
    name.push(after);
    name
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError { action, path, source }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_or_left_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("settings.json");
        replace(&path, b"old").unwrap();
        let broken = replace_with(&path, |temporary| {
            fs::write(temporary, b"half")?;
            Err(ErrorKind::StorageFull.into())
        });
        let error = broken.unwrap_err();
        assert!(error.to_string().contains("settings.json.tmp") && error.to_string().contains("free space"));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(replace_with(&path, |temporary| fs::write(temporary, b"newer")).unwrap(), 5);
        replace_shared(&path, b"newest").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"newest");
        assert!(replace(&dir.path().join("absent/file"), b"x").is_err());
    }

    #[test]
    fn a_folder_appears_when_it_is_published() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("new");
        let names = || fs::read_dir(dir.path()).unwrap().count();
        let given_up = StagedFolder::create(&target).unwrap();
        fs::write(given_up.path().join("file"), b"x").unwrap();
        assert!(!target.exists());
        drop(given_up);
        assert_eq!(names(), 0, "what was given up is gone");

        fs::create_dir(&target).unwrap();
        let folder = StagedFolder::create(&target).unwrap();
        fs::create_dir(folder.path().join("below")).unwrap();
        write_synced(&folder.path().join("below/file"), b"x").unwrap();
        folder.publish().unwrap();
        assert_eq!((names(), fs::read(target.join("below/file")).unwrap()), (1, b"x".to_vec()));
        let error = StagedFolder::create(&target).unwrap_err();
        assert_eq!(error.source.kind(), ErrorKind::DirectoryNotEmpty);
        let error = StagedFolder::create(&target.join("below/file")).unwrap_err();
        assert_eq!(error.source.kind(), ErrorKind::NotADirectory);
    }
}
