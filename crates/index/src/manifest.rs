//! Which files make up an index: the manifest and the names in its directory.
//!
//! Owns: switching from one set of files to the next in one step. Deliberately absent: what the files
//! hold.
//!
//! Files are written under numbers that were never used. A new manifest is written beside the old one,
//! made durable, and renamed over it; only then are files that it does not name deleted. So a crash at
//! any moment leaves one whole set.

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use crate::IndexError;
use crate::sealed::container::{Container, ContainerWriter, FIELDS};
use crate::search::PointSet;

const MAGIC: [u8; 8] = *b"DIPMAN\0\x01";
const NAME: &str = "manifest";
const NEW_NAME: &str = "manifest.new";
const LOCK_NAME: &str = "lock";

/// The files of one segment, by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Files {
    pub(crate) points: u64,
    pub(crate) links: u64,
}

/// What is in force.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Manifest {
    /// Components of every vector.
    pub(crate) dim: u64,
    /// Up to where the owner's changes are in the files; means nothing here.
    pub(crate) mark: u64,
    /// The first number never used.
    pub(crate) next: u64,
    pub(crate) segments: Vec<Files>,
    /// Removed points that the segments still hold.
    pub(crate) removed: PointSet,
}

/// Path of a file of points.
pub(crate) fn points_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("points-{number:08}"))
}

/// Path of a file of links.
pub(crate) fn links_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("links-{number:08}"))
}

impl Manifest {
    /// Reads the manifest of a directory; `None` when it has none.
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>, IndexError> {
        let path = dir.join(NAME);
        if !path.try_exists().map_err(|e| IndexError::io("look for", &path, &e))? {
            return Ok(None);
        }
        let file = Container::open(&path, MAGIC, None)?;
        let [dim, mark, next, segments, removed] = [0, 1, 2, 3, 4].map(|i| file.fields()[i]);
        let numbers = file.section::<u64>(0, 2 * segments as usize)?;
        let removed = PointSet::deserialize_from(&*file.section::<u8>(1, removed as usize)?)
            .map_err(|e| IndexError::damaged(&path, &format!("its list of removed points: {e}")))?;
        let pairs = numbers.chunks_exact(2);
        let segments = pairs.map(|pair| Files { points: pair[0], links: pair[1] }).collect();
        Ok(Some(Self { dim, mark, next, segments, removed }))
    }

    /// Puts this manifest in force and deletes the files that it does not name.
    pub(crate) fn write(&self, dir: &Path) -> Result<(), IndexError> {
        let (path, new) = (dir.join(NAME), dir.join(NEW_NAME));
        let numbers: Vec<u64> = self.segments.iter().flat_map(|f| [f.points, f.links]).collect();
        let mut removed = Vec::new();
        self.removed.serialize_into(&mut removed).map_err(|e| IndexError::io("write", &new, &e))?;
        let mut file = ContainerWriter::create(&new, MAGIC)?;
        file.section(&numbers)?;
        file.section(&removed)?;
        let mut fields = [0; FIELDS];
        let values = [self.dim, self.mark, self.next, self.segments.len() as u64, removed.len() as u64];
        fields[..5].copy_from_slice(&values);
        file.finish(fields)?;
        fs::rename(&new, &path).map_err(|e| IndexError::io("rename", &new, &e))?;
        sync_dir(dir)?;
        self.tidy(dir)
    }

    /// Links, or where that cannot be copies, the files in force of one directory into another, the
    /// manifest last. The caller sees to it that no other manifest is put in force meanwhile. Files never
    /// change once they are named, so both may be used from then on. Returns whether there were any.
    pub(crate) fn link(dir: &Path, to: &Path) -> Result<bool, IndexError> {
        let Some(manifest) = Self::read(dir)? else { return Ok(false) };
        fs::create_dir_all(to).map_err(|e| IndexError::io("create", to, &e))?;
        let points = manifest.segments.iter().map(|f| points_path(dir, f.points));
        let links = manifest.segments.iter().map(|f| links_path(dir, f.links));
        for path in points.chain(links).chain([dir.join(NAME)]) {
            let target = to.join(path.file_name().expect("a file of an index has a name"));
            if fs::hard_link(&path, &target).is_err() {
                fs::copy(&path, &target).map_err(|e| IndexError::io("copy", &path, &e))?;
            }
        }
        Ok(true)
    }

    /// Deletes the files of segments that are not in force.
    pub(crate) fn tidy(&self, dir: &Path) -> Result<(), IndexError> {
        let points = self.segments.iter().map(|f| points_path(dir, f.points));
        let links = self.segments.iter().map(|f| links_path(dir, f.links));
        let named: HashSet<PathBuf> = points.chain(links).collect();
        let entries = fs::read_dir(dir).map_err(|e| IndexError::io("list", dir, &e))?;
        for entry in entries {
            let path = entry.map_err(|e| IndexError::io("list", dir, &e))?.path();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            let ours = name.starts_with("points-") || name.starts_with("links-") || name == NEW_NAME;
            if ours && !named.contains(&path) {
                fs::remove_file(&path).map_err(|e| IndexError::io("delete", &path, &e))?;
            }
        }
        Ok(())
    }
}

/// Keeps others out of a directory for as long as the file lives.
pub(crate) fn lock(dir: &Path) -> Result<File, IndexError> {
    let path = dir.join(LOCK_NAME);
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|e| IndexError::io("open", &path, &e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(IndexError::InUse { dir: dir.to_owned() }),
        Err(TryLockError::Error(e)) => Err(IndexError::io("lock", &path, &e)),
    }
}

/// Makes renames and new names in a directory durable.
fn sync_dir(dir: &Path) -> Result<(), IndexError> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|e| IndexError::io("sync", dir, &e))
}
