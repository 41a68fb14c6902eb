//! The cache of the Hugging Face tools, for one repository.
//!
//! Owns: its layout, finding a model in it, and (with downloads) putting files there. A folder
//! `models--owner--name` holds `refs/REVISION` (a commit), `blobs/ETAG` (contents) and
//! `snapshots/COMMIT/FILE`, which are links to blobs. The Python tools read and write the same.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::{HubError, ModelName, Settings, files};

/// Characters of a commit.
const COMMIT_LEN: usize = 40;

/// What the cache has of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cached {
    /// Everything that models of its kind have.
    Whole(PathBuf),
    /// Configuration and weights, but not all that usually comes with them.
    Loadable(PathBuf),
    /// Less than that.
    Nothing,
}

/// One repository within the cache.
pub(crate) struct Cache {
    folder: PathBuf,
    revision: String,
    #[cfg(feature = "download")]
    locks: PathBuf,
}

impl Cache {
    pub(crate) fn new(settings: &Settings, model: &ModelName) -> Self {
        Self {
            folder: settings.cache.join(model.folder()),
            revision: model.revision().to_owned(),
            #[cfg(feature = "download")]
            locks: settings.cache.join(".locks").join(model.folder()),
        }
    }

    /// Looks for the revision.
    pub(crate) fn find(&self) -> Result<Cached, HubError> {
        let Some(commit) = self.commit()? else {
            return Ok(Cached::Nothing);
        };
        let dir = self.snapshot(&commit);
        let names = listing(&dir)?;
        let read = |name: &str| std::fs::read(dir.join(name)).map_err(|e| failed(&dir.join(name), e));
        let Some(form) = files::form(&names, read)? else {
            return Ok(Cached::Nothing);
        };
        if form.is_index() && !files::shards(form.weights, &read(form.weights)?)?.is_subset(&names) {
            return Ok(Cached::Nothing);
        }
        Ok(if files::has_companions(form, &names) { Cached::Whole(dir) } else { Cached::Loadable(dir) })
    }

    /// The directory of a commit.
    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// The commit of the revision, where it is known.
    fn commit(&self) -> Result<Option<String>, HubError> {
        if is_commit(&self.revision) {
            return Ok(Some(self.revision.clone()));
        }
        let path = self.folder.join("refs").join(&self.revision);
        match std::fs::read_to_string(&path) {
            Ok(text) if is_commit(text.trim()) => Ok(Some(text.trim().to_owned())),
            Ok(_) => Err(HubError::Reference { path }),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::IsADirectory) => Ok(None),
            Err(e) => Err(failed(&path, e)),
        }
    }
}

#[cfg(feature = "download")]
impl Cache {
    /// Where the contents with an etag belong.
    pub(crate) fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    /// Waits until no other process fetches the same contents; released when dropped.
    pub(crate) fn lock(&self, etag: &str) -> Result<std::fs::File, HubError> {
        let path = self.locks.join(format!("{etag}.lock"));
        make_parent(&path)?;
        let file = std::fs::File::options().create(true).append(true).open(&path);
        let file = file.map_err(|e| failed(&path, e))?;
        file.lock().map_err(|e| failed(&path, e))?;
        Ok(file)
    }

    /// Makes contents appear as a file of a commit, at once and whole.
    pub(crate) fn link(&self, etag: &str, commit: &str, file: &str) -> Result<(), HubError> {
        let target = self.snapshot(commit).join(file);
        make_parent(&target)?;
        #[cfg(unix)]
        {
            let link = with_suffix(&target, &format!(".{}.tmp", std::process::id()));
            let _ = std::fs::remove_file(&link);
            // Relative, so that the cache can be moved.
            std::os::unix::fs::symlink(Path::new("../../blobs").join(etag), &link)
                .and_then(|()| std::fs::rename(&link, &target))
                .map_err(|e| failed(&target, e))
        }
        #[cfg(not(unix))]
        std::fs::rename(self.blob(etag), &target).map_err(|e| failed(&target, e))
    }

    /// Remembers which commit the revision stands for.
    pub(crate) fn remember(&self, commit: &str) -> Result<(), HubError> {
        if self.revision == commit {
            return Ok(());
        }
        let path = self.folder.join("refs").join(&self.revision);
        make_parent(&path)?;
        let part = with_suffix(&path, &format!(".{}.tmp", std::process::id()));
        std::fs::write(&part, commit)
            .and_then(|()| std::fs::rename(&part, &path))
            .map_err(|e| failed(&path, e))
    }
}

/// A file in the same folder, with a longer name.
#[cfg(feature = "download")]
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(feature = "download")]
pub(crate) fn make_parent(path: &Path) -> Result<(), HubError> {
    let parent = path.parent().expect("a file of the cache has a folder");
    std::fs::create_dir_all(parent).map_err(|e| failed(parent, e))
}

pub(crate) fn failed(path: &Path, source: std::io::Error) -> HubError {
    HubError::Io { path: path.to_owned(), source }
}

pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == COMMIT_LEN && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The files of a snapshot whose contents are there.
fn listing(dir: &Path) -> Result<BTreeSet<String>, HubError> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(e) => return Err(failed(dir, e)),
    };
    let mut names = BTreeSet::new();
    for entry in entries {
        let entry = entry.map_err(|e| failed(dir, e))?;
        // Follows the link: a blob may be gone.
        if entry.path().is_file()
            && let Ok(name) = entry.file_name().into_string()
        {
            names.insert(name);
        }
    }
    Ok(names)
}
