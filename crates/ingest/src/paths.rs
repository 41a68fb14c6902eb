//! Paths that a source names.
//!
//! Owns: which of them may be opened, and what they are relative to. Never opens one.

use std::path::{Component, Path, PathBuf};

use crate::item::{ItemImage, printable};

/// What the image paths of a source are relative to.
#[derive(Debug, Clone)]
pub(crate) enum Base {
    /// A folder of this machine, and whether the user has named it.
    Folder { folder: PathBuf, named: bool },
    /// The objects beside the one that names them.
    #[cfg(feature = "s3")]
    Objects(crate::s3::Prefix),
}

impl Base {
    /// The folder of a file, unless the user has named another one.
    pub(crate) fn beside(file: &Path, root: Option<&Path>) -> Self {
        match root {
            Some(root) => Self::Folder { folder: root.to_owned(), named: true },
            None => Self::Folder { folder: file.parent().unwrap_or(Path::new("")).to_owned(), named: false },
        }
    }

    /// An image by its path as written, and that path without `.` and `..`.
    pub(crate) fn image(&self, given: &str) -> Result<(ItemImage, PathBuf), String> {
        let path = within(given)?;
        match self {
            Self::Folder { folder, named } => {
                let resolved = folder.join(&path);
                check_regular(given, &resolved, *named)?;
                Ok((ItemImage::file(resolved), path))
            }
            #[cfg(feature = "s3")]
            Self::Objects(prefix) => Ok((prefix.image(&slashed(&path))?, path)),
        }
    }
}

/// An image path without `.` and `..`. Absolute paths are the user's own choice and stay as they
/// are; a relative one must not reach outside the folder of its file.
fn within(given: &str) -> Result<PathBuf, String> {
    if given.contains("://") {
        return Err(format!("image '{}' is a URL; download it and give the path", printable(given)));
    }
    if Path::new(given).is_absolute() {
        return Ok(PathBuf::from(given));
    }
    let mut path = PathBuf::new();
    for component in Path::new(given).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::ParentDir if path.pop() => {}
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(format!(
                    "image '{}' leads outside the folder of this file; move it inside or give an absolute path",
                    printable(given)
                ));
            }
        }
    }
    Ok(path)
}

/// A pipe or device would block whoever opens it, so only regular files pass.
fn check_regular(given: &str, path: &Path, named: bool) -> Result<(), String> {
    match path.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(()),
        Ok(_) => Err(format!("image '{}' is not a regular file; give the path of one", printable(given))),
        Err(error) => {
            let base = if named { "the folder of --image-root" } else { "the folder of this file" };
            Err(format!("image '{}' cannot be read: {error}; paths are relative to {base}", printable(given)))
        }
    }
}

/// A path with `/` between its components on every system.
pub(crate) fn slashed(path: &Path) -> String {
    path.to_string_lossy().replace(std::path::MAIN_SEPARATOR, "/")
}

/// Whether a file has one of these extensions, which are in lower case.
pub(crate) fn has_extension(path: &Path, lower_case: &[&str]) -> bool {
    let extension = path.extension().and_then(|e| e.to_str());
    extension.is_some_and(|e| lower_case.iter().any(|known| e.eq_ignore_ascii_case(known)))
}
