//! The file of the secret: 32 random bytes in hexadecimal, readable by its owner alone. Deliberately absent:
//! what is derived from it.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom as _, SystemRandom};

/// A key, and whether it was made just now.
#[derive(Clone)]
pub struct KeyFile {
    /// The secret.
    pub key: [u8; 32],
    /// Whether the file was made by this call.
    pub created: bool,
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file system refused.
    #[error("cannot {action} the key file {path}: {source}; check the path and its permissions", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file holds something else.
    #[error(
        "{path} is not a key file: 64 hexadecimal digits are expected; give another path, where a key is made",
        path = path.display()
    )]
    Content {
        /// The file.
        path: PathBuf,
    },
    /// Others may read the secret.
    #[error("{path} may be read by others; make it yours alone: chmod 600 {path}", path = path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// No random numbers.
    #[error("the system gives no random numbers to make a key of; try again later")]
    Random,
}

impl std::fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyFile").field("created", &self.created).finish_non_exhaustive()
    }
}

/// Reads the key in a file, which is made with a new random one when it is not there.
///
/// # Errors
/// [`KeyError`]; a file that is there is never changed.
pub fn open_key(path: &Path) -> Result<KeyFile, KeyError> {
    let failed = |action, source| KeyError::Io { action, path: path.to_owned(), source };
    for _ in 0..2 {
        match read(path)? {
            Some(key) => return Ok(KeyFile { key, created: false }),
            None => {
                let mut key = [0; 32];
                SystemRandom::new().fill(&mut key).map_err(|_| KeyError::Random)?;
                match create(path, &key) {
                    Ok(()) => return Ok(KeyFile { key, created: true }),
                    // Somebody else was faster; theirs counts.
                    Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                    Err(e) => return Err(failed("create", e)),
                }
            }
        }
    }
    Err(failed("create", ErrorKind::AlreadyExists.into()))
}

fn read(path: &Path) -> Result<Option<[u8; 32]>, KeyError> {
    let failed = |source| KeyError::Io { action: "read", path: path.to_owned(), source };
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let content = || KeyError::Content { path: path.to_owned() };
    if !metadata.is_file() || metadata.len() > 1024 {
        return Err(content());
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        if metadata.permissions().mode() & 0o077 != 0 {
            return Err(KeyError::Exposed { path: path.to_owned() });
        }
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    let hash = blake3::Hash::from_hex(text.trim()).map_err(|_| content())?;
    Ok(Some(*hash.as_bytes()))
}

fn create(path: &Path, key: &[u8; 32]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    let mut file = options.open(path)?;
    let written =
        writeln!(file, "{}", blake3::Hash::from_bytes(*key).to_hex()).and_then(|()| file.sync_all());
    if written.is_err() {
        // Half a key would be refused for ever; the error that is told is that of writing.
        let _ = fs::remove_file(path);
    }
    written
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_key_is_made_once_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let first = open_key(&path).unwrap();
        let second = open_key(&path).unwrap();
        assert!(first.created && !second.created && first.key == second.key && first.key != [0; 32]);
        let other = open_key(&dir.path().join("other")).unwrap();
        assert_ne!(other.key, first.key);
        assert!(!format!("{first:?}").contains(&format!("{:02x}{:02x}", first.key[0], first.key[1])));
        assert!(matches!(open_key(&dir.path().join("absent/key")), Err(KeyError::Io { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn a_key_that_others_read_or_that_is_none_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        open_key(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(open_key(&path), Err(KeyError::Exposed { .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "secret").unwrap();
        assert!(matches!(open_key(&path), Err(KeyError::Content { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"secret", "never overwritten");
    }
}
