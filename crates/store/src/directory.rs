//! The files around the database: the lock, the format stamp and the acknowledgement mark. They are
//! read before the database is touched, so that a directory that is busy, foreign, of another version
//! or cut short is left exactly as it was found. What is inside the database is not known here.
//!
//! ```text
//! DIR/LOCK          held for as long as the store is open
//! DIR/FORMAT        "diptych-store 1"; written last when a store is created
//! DIR/ACKNOWLEDGED  number of the last acknowledged batch
//! DIR/rocksdb/      the database
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::StoreError;
use crate::schema::FORMAT_VERSION;

const LOCK: &str = "LOCK";
const FORMAT: &str = "FORMAT";
const FORMAT_NEW: &str = "FORMAT.new";
const ACKNOWLEDGED: &str = "ACKNOWLEDGED";
const DATABASE: &str = "rocksdb";
const STAMP: &str = "diptych-store ";
const HOLDER: &str = "diptych store, process ";

/// A directory that this process has locked.
#[derive(Debug)]
pub(crate) struct Directory {
    root: PathBuf,
    /// False until [`Directory::seal`] has stamped a new store.
    sealed: bool,
    /// Unlocks when it is dropped.
    _lock: File,
}

impl Directory {
    /// Locks an existing store, or prepares a new one in an absent or empty directory.
    pub(crate) fn open(root: &Path, create: bool) -> Result<Self, StoreError> {
        let sealed = match read_stamp(root)? {
            Some(FORMAT_VERSION) => true,
            Some(found) => {
                return Err(StoreError::Version { dir: root.to_owned(), found, supported: FORMAT_VERSION });
            }
            None => {
                prepare(root, create)?;
                false
            }
        };
        let lock = lock(&root.join(LOCK))?;
        let directory = Self { root: root.to_owned(), sealed, _lock: lock };
        make_private_dir(&directory.database())?;
        Ok(directory)
    }

    /// Where the database lies.
    pub(crate) fn database(&self) -> PathBuf {
        self.root.join(DATABASE)
    }

    /// The directory itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Whether the store was completely created before.
    pub(crate) fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// Stamps a store whose database exists, durably. A crash before this leaves a directory that
    /// the next open completes.
    pub(crate) fn seal(&mut self) -> Result<(), StoreError> {
        let doing = "stamping the new store";
        let stamp = || -> std::io::Result<()> {
            let new = self.root.join(FORMAT_NEW);
            let mut file = private_file(&new)?;
            file.set_len(0)?;
            file.write_all(format!("{STAMP}{FORMAT_VERSION}\n").as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, self.root.join(FORMAT))?;
            File::open(&self.root)?.sync_all()?;
            match self.root.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
                _ => Ok(()),
            }
        };
        stamp().map_err(|e| StoreError::io(doing, &e))?;
        self.sealed = true;
        Ok(())
    }

    /// Opens the acknowledgement mark.
    pub(crate) fn mark(&self) -> Result<AckMark, StoreError> {
        AckMark::open(&self.root.join(ACKNOWLEDGED))
    }

    /// Whether the database has a write-ahead log that must be replayed.
    pub(crate) fn has_log(&self) -> bool {
        self.database_files().any(|(name, bytes)| name.ends_with(".log") && bytes > 0)
    }

    /// Whether the database has data, or had some, but not its root file. Creating it anew would then
    /// delete what is left.
    pub(crate) fn has_lost_its_root(&self, mark: &AckMark) -> bool {
        let (mut root, mut data) = (false, mark.last() > 0);
        for (name, _) in self.database_files() {
            root |= name == "CURRENT";
            data |= name.ends_with(".sst");
        }
        data && !root
    }

    /// Bytes of all files of the store.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.database_files().map(|(_, bytes)| bytes).sum()
    }

    fn database_files(&self) -> impl Iterator<Item = (String, u64)> {
        fs::read_dir(self.database()).into_iter().flatten().flatten().filter_map(|entry| {
            let bytes = entry.metadata().ok()?.len();
            Some((entry.file_name().to_string_lossy().into_owned(), bytes))
        })
    }
}

/// Remembers, beside the database, the number of the last acknowledged batch.
///
/// The database alone cannot tell a log that a crash cut short from one whose end was damaged later:
/// both look like "nothing more follows". This number can: it is written after the batch was synced,
/// so the database must never come back with a smaller one. The mark itself is not synced. After a
/// power failure it may be old, which only makes the check weaker, never wrong.
///
/// Two slots of 24 bytes are written in turn: the number, big-endian, and 16 bytes of its BLAKE3. A
/// slot torn by a crash leaves the other one.
#[derive(Debug)]
pub(crate) struct AckMark {
    file: File,
    last: u64,
}

impl AckMark {
    const SLOT: usize = 24;

    fn open(path: &Path) -> Result<Self, StoreError> {
        let doing = "reading the acknowledgement mark";
        let mut file = private_file(path).map_err(|e| StoreError::io(doing, &e))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|e| StoreError::io(doing, &e))?;
        let last = bytes
            .chunks_exact(Self::SLOT)
            .filter_map(|slot| {
                let batch = u64::from_be_bytes(slot[..8].try_into().ok()?);
                (slot == Self::slot(batch)).then_some(batch)
            })
            .max();
        match last {
            None if !bytes.is_empty() => Err(StoreError::corrupt(format!(
                "{} is unreadable, so it is unknown how much was acknowledged (to accept whatever the database \
                 still has, delete that file)",
                path.display()
            ))),
            last => Ok(Self { file, last: last.unwrap_or(0) }),
        }
    }

    /// A mark in a file of the caller's, such as one that cannot be written.
    #[cfg(test)]
    pub(crate) fn in_file(file: File) -> Self {
        Self { file, last: 0 }
    }

    /// The last acknowledged batch known.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Raises the mark. Call it only once the batch is synced.
    pub(crate) fn raise(&mut self, batch: u64) -> Result<(), StoreError> {
        let at = (batch % 2) * Self::SLOT as u64;
        self.file
            .seek(SeekFrom::Start(at))
            .and_then(|_| self.file.write_all(&Self::slot(batch)))
            .map_err(|e| StoreError::io("writing the acknowledgement mark", &e))?;
        self.last = batch;
        Ok(())
    }

    /// Makes the mark durable, which is only worth its cost at the start and the end.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        self.file.sync_all().map_err(|e| StoreError::io("syncing the acknowledgement mark", &e))
    }

    fn slot(batch: u64) -> [u8; Self::SLOT] {
        let number = batch.to_be_bytes();
        let mut slot = [0; Self::SLOT];
        slot[..8].copy_from_slice(&number);
        slot[8..].copy_from_slice(&blake3::hash(&number).as_bytes()[..16]);
        slot
    }
}

/// Files below a folder: paths relative to it with `/` between names, in order, and sizes in bytes.
pub(crate) struct Listed(pub(crate) Vec<(String, u64)>);

/// Where the database of a store in `root` lies.
pub(crate) fn database_in(root: &Path) -> PathBuf {
    root.join(DATABASE)
}

/// Makes a store of a folder that has the database of one: the acknowledgement mark, and last the format.
pub(crate) fn stamp_copy(root: &Path, batch: u64) -> Result<(), StoreError> {
    let mut mark = AckMark::open(&root.join(ACKNOWLEDGED))?;
    if batch > 0 {
        mark.raise(batch)?;
    }
    mark.sync()?;
    let stamp = private_file(&root.join(FORMAT)).and_then(|mut file| {
        file.write_all(format!("{STAMP}{FORMAT_VERSION}\n").as_bytes())?;
        file.sync_all()
    });
    stamp.map_err(|e| StoreError::io("stamping the copy of the store", &e))
}

/// The files of a copy of a store, the database's own log aside.
pub(crate) fn list_copy(root: &Path) -> Result<Listed, StoreError> {
    fn walk(folder: &Path, above: &str, files: &mut Vec<(String, u64)>) -> std::io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = format!("{above}{}", entry.file_name().to_string_lossy());
            let data = entry.metadata()?;
            if data.is_dir() {
                walk(&entry.path(), &format!("{name}/"), files)?;
            } else if !(above == format!("{DATABASE}/")
                && entry.file_name().as_encoded_bytes().starts_with(b"LOG"))
            {
                files.push((name, data.len()));
            }
        }
        Ok(())
    }
    let mut files = Vec::new();
    walk(root, "", &mut files).map_err(|e| StoreError::io("listing the copy of the store", &e))?;
    files.sort();
    Ok(Listed(files))
}

/// The version that a finished store is stamped with.
fn read_stamp(root: &Path) -> Result<Option<u32>, StoreError> {
    let path = root.join(FORMAT);
    let text = match fs::read(&path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(e) => return Err(StoreError::io("reading the format of the store", &e)),
    };
    match text.strip_prefix(STAMP).and_then(|version| version.strip_suffix('\n')?.parse().ok()) {
        Some(version) => Ok(Some(version)),
        None => Err(StoreError::corrupt(format!("{} does not say '{STAMP}VERSION'", path.display()))),
    }
}

/// Makes sure that a directory without a stamp may become a store: it is absent, empty, or was on the
/// way to becoming one when its process died.
fn prepare(root: &Path, create: bool) -> Result<(), StoreError> {
    let doing = "creating the data directory";
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound && create => {
            if let Some(parent) = root.parent() {
                fs::create_dir_all(parent).map_err(|e| StoreError::io(doing, &e))?;
            }
            return make_private_dir(root);
        }
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return Err(StoreError::Missing { dir: root.to_owned() });
        }
        Err(e) if e.kind() == ErrorKind::NotADirectory => {
            return Err(StoreError::NotAStore { dir: root.to_owned(), found: "a plain file".to_owned() });
        }
        Err(e) => return Err(StoreError::io("reading the data directory", &e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| StoreError::io("reading the data directory", &e))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    let holder = fs::read(root.join(LOCK)).unwrap_or_default();
    let ours = holder.starts_with(HOLDER.as_bytes()) || (holder.is_empty() && names == [LOCK]);
    let expected = [LOCK, FORMAT_NEW, ACKNOWLEDGED, DATABASE];
    match names.iter().find(|name| !ours || !expected.contains(&name.as_str())) {
        Some(found) => Err(StoreError::NotAStore { dir: root.to_owned(), found: found.clone() }),
        None if !create => Err(StoreError::Missing { dir: root.to_owned() }),
        None => make_private_dir(root),
    }
}

fn lock(path: &Path) -> Result<File, StoreError> {
    let doing = "locking the data directory";
    let mut file = private_file(path).map_err(|e| StoreError::io(doing, &e))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let text = fs::read_to_string(path).unwrap_or_default();
            let holder = match text.trim().strip_prefix(HOLDER) {
                Some(id) => format!("process {}", id.trim()),
                None => "another process".to_owned(),
            };
            return Err(StoreError::InUse { lock: path.to_owned(), holder });
        }
        Err(TryLockError::Error(e)) => return Err(StoreError::io(doing, &e)),
    }
    // Of fixed length, so that it overwrites its predecessor without ever being empty in between.
    let holder = format!("{HOLDER}{:<10}\n", std::process::id());
    file.write_all(holder.as_bytes()).map_err(|e| StoreError::io(doing, &e))?;
    Ok(file)
}

/// Opens a file for reading and writing; only its owner may read it.
fn private_file(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options.open(path)
}

/// Creates a directory, or takes an existing one, and closes it to everyone else.
pub(crate) fn make_private_dir(path: &Path) -> Result<(), StoreError> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    let made = match builder.create(path) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => close_to_others(path),
        made => made,
    };
    made.map_err(|e| StoreError::io("creating the data directory", &e))
}

#[cfg(unix)]
fn close_to_others(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}

#[cfg(not(unix))]
fn close_to_others(_path: &Path) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_survives_a_torn_slot() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join(ACKNOWLEDGED);
        let mut mark = AckMark::open(&path).expect("opens");
        for batch in 1..=7 {
            mark.raise(batch).expect("raises");
        }
        assert_eq!(AckMark::open(&path).expect("opens").last(), 7);

        // Batch 7 lies in the second slot. Losing any byte of it leaves batch 6.
        let good = fs::read(&path).expect("reads");
        for at in AckMark::SLOT..2 * AckMark::SLOT {
            let mut torn = good.clone();
            torn[at] ^= 0x10;
            fs::write(&path, &torn).expect("writes");
            assert_eq!(AckMark::open(&path).expect("opens").last(), 6, "byte {at}");
        }
        fs::write(&path, [0u8; 48]).expect("writes");
        assert!(matches!(AckMark::open(&path), Err(StoreError::Corrupt { .. })));
    }

    #[test]
    fn a_creation_that_was_interrupted_is_completed() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let root = dir.path().join("data");
        drop(Directory::open(&root, true).expect("prepares"));
        assert!(matches!(Directory::open(&root, false), Err(StoreError::Missing { .. })));
        let mut directory = Directory::open(&root, true).expect("prepares again");
        assert!(!directory.is_sealed());
        directory.seal().expect("seals");
        drop(directory);
        assert!(Directory::open(&root, false).expect("opens").is_sealed());
    }
}
