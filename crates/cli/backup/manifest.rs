//! `backup.json`: what makes a folder of files a backup.
//!
//! Owns: the list of files with their digests, and holding files against it. It is written last, so that a
//! folder without it is no backup.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::{Component, Path};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// The file's name.
pub const FILE: &str = "backup.json";
/// The format that is written.
const FORMAT: u32 = 1;
/// Bytes read at once.
const PIECE: usize = 1 << 20;

/// What a backup is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this format.
    pub format: u32,
    /// Version of the server that it is of.
    pub diptych: String,
    /// The model that all vectors come from.
    pub model_id: String,
    /// Position in the order of writes up to which it has them.
    pub seq: u64,
    /// Records of all collections.
    pub records: u64,
    /// In the order in which they came.
    pub files: Vec<Entry>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Below the folder, with `/` between names.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// BLAKE3, in hexadecimal digits.
    pub blake3: String,
}

impl Manifest {
    /// The manifest of a backup that is going to have files.
    pub fn new(diptych: String, model_id: String, seq: u64, records: u64) -> Self {
        Self { format: FORMAT, diptych, model_id, seq, records, files: Vec::new() }
    }

    /// Reads that of a folder.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == ErrorKind::NotFound && folder.exists() => bail!(
                "{} has no {FILE}, so it is no backup, or one that was not completed; use another",
                folder.display()
            ),
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
        };
        let format =
            serde_json::from_slice::<serde_json::Value>(&text).ok().and_then(|v| v["format"].as_u64());
        if let Some(found) = format.filter(|found| *found != u64::from(FORMAT)) {
            bail!(
                "{} has format {found}, this program reads {FORMAT}; restore it with the version that wrote it",
                path.display()
            );
        }
        let manifest: Self = serde_json::from_slice(&text)
            .with_context(|| format!("{} is damaged; use another backup", path.display()))?;
        for entry in &manifest.files {
            check_path(&entry.path).with_context(|| format!("{} is damaged", path.display()))?;
        }
        Ok(manifest)
    }

    /// Writes it, durably.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        Ok(diptych_files::write_synced(&folder.join(FILE), format!("{text}\n").as_bytes())?)
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|entry| entry.bytes).sum()
    }
}

impl Entry {
    /// Reads the file in `folder` and compares it with what is said of it; `each` gets its bytes.
    pub fn check(&self, folder: &Path, mut each: impl FnMut(&[u8]) -> std::io::Result<()>) -> Result<()> {
        let path = folder.join(&self.path);
        let use_another = "use another backup, or copy this one again from where it was kept";
        let mut file = match File::open(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                bail!("the backup is damaged: {} is missing; {use_another}", self.path)
            }
            file => file.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let found = file.metadata()?.len();
        if found != self.bytes {
            bail!(
                "the backup is damaged: {} has {found} bytes instead of {}; {use_another}",
                self.path,
                self.bytes
            );
        }
        let (mut hasher, mut piece) = (blake3::Hasher::new(), vec![0; PIECE]);
        loop {
            let read = file.read(&mut piece).with_context(|| format!("cannot read {}", path.display()))?;
            if read == 0 {
                break;
            }
            hasher.update(&piece[..read]);
            each(&piece[..read])?;
        }
        if hasher.finalize().to_hex().as_str() != self.blake3 {
            bail!("the backup is damaged: {} is not what was backed up; {use_another}", self.path);
        }
        Ok(())
    }

    /// Copies the file from one folder to another, durably, and checks it on the way.
    pub fn copy(&self, from: &Path, to: &Path) -> Result<()> {
        let target = place(to, &self.path)?;
        let mut file =
            File::create_new(&target).with_context(|| format!("cannot create {}", target.display()))?;
        self.check(from, |piece| file.write_all(piece))
            .with_context(|| format!("{} cannot be restored", self.path))?;
        file.sync_all().with_context(|| format!("cannot write {}", target.display()))
    }
}

/// Where a file of a backup goes; the folder that it lies in is made.
pub fn place(folder: &Path, path: &str) -> Result<std::path::PathBuf> {
    check_path(path)?;
    let target = folder.join(path);
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    }
    Ok(target)
}

/// Paths lead to files below the folder, and nowhere else.
fn check_path(path: &str) -> Result<()> {
    let plain =
        !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    if !plain || path == FILE {
        bail!("'{}' is no path of a file of a backup", path.escape_debug().take(128).collect::<String>());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn paths_stay_in_the_folder() {
        for path in ["FORMAT", "rocksdb/000012.sst", "index/1-image/points-00000000"] {
            assert!(check_path(path).is_ok(), "{path}");
        }
        for path in ["", "/etc/passwd", "../x", "rocksdb/../../x", "./x", "backup.json"] {
            assert!(check_path(path).is_err(), "{path}");
        }
    }
}
