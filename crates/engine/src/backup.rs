//! A copy of everything at one moment, to be read away while the engine goes on.
//!
//! Owns: the order in which index and store are copied, one copy at a time, and its removal. Deliberately
//! absent: where it is read to.
//!
//! The copy lies in the data directory, where files that never change are shared with it by hard links. It
//! is removed when its [`Snapshot`] is dropped; what a crash leaves of one, at the next start.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use diptych_core::{CollectionName, Filter, Key, Modality};
use diptych_store::{RecordVector, Store, StoreError, StoredRecord};

use crate::shelf::INDEX_DIR;
use crate::{Engine, EngineError};

/// Where the copy lies, in the data directory.
const SNAPSHOT_DIR: &str = "backup.tmp";

/// Everything that an engine had at one moment, in files. Removed when dropped.
#[derive(Debug)]
pub struct Snapshot {
    staging: Staging,
    seq: u64,
    records: u64,
    files: Vec<(String, u64)>,
    _turn: Turn,
}

impl Snapshot {
    /// The folder: a data directory, but for the lock.
    pub fn dir(&self) -> &Path {
        &self.staging.0
    }

    /// Journal number of the last change in it.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Records of all collections.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Its files: paths below the folder, with `/` between names, and sizes in bytes.
    pub fn files(&self) -> &[(String, u64)] {
        &self.files
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, bytes)| bytes).sum()
    }
}

/// A folder that is removed in the end.
#[derive(Debug)]
struct Staging(PathBuf);

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.0) {
            tracing::warn!("a finished backup is left in {} until the next start: {error}", self.0.display());
        }
    }
}

/// The right to make a copy; one at a time has it.
#[derive(Debug)]
struct Turn(Arc<AtomicBool>);

impl Turn {
    fn take(taken: &Arc<AtomicBool>) -> Result<Self, EngineError> {
        match taken.swap(true, Ordering::AcqRel) {
            true => Err(EngineError::BackupRunning),
            false => Ok(Self(Arc::clone(taken))),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// A record with its vectors.
#[derive(Debug, Clone, PartialEq)]
pub struct Exported {
    /// The record.
    pub stored: StoredRecord,
    /// One vector for each of its points, in the order of its parts.
    pub vectors: Vec<RecordVector>,
}

/// A page of records with their vectors.
#[derive(Debug, Clone, PartialEq)]
pub struct ExportPage {
    /// In key order.
    pub records: Vec<Exported>,
    /// Where the next page begins, after this key; `None` when there is none.
    pub next: Option<Key>,
}

impl Engine {
    /// Copies everything as it is at one moment: all that was acknowledged before the call, and the files
    /// of the indexes, which may lag behind and catch up when they are opened. Reads and writes go on.
    ///
    /// # Errors
    /// [`EngineError::BackupRunning`] while there is another snapshot; a failure of the store.
    pub fn backup(&self) -> Result<Snapshot, EngineError> {
        let turn = Turn::take(&self.backup_taken)?;
        let staging = Staging(self.store.root().join(SNAPSHOT_DIR));
        remove(&staging.0).map_err(|error| io("removing an earlier backup", &error))?;
        diptych_files::create_private(&staging.0)
            .map_err(|error| io("making room for a backup", &error.source))?;
        // Before the store, so that no index has what the store lacks.
        for space in self.all_spaces() {
            for modality in Modality::ALL {
                let to = staging.0.join(INDEX_DIR).join(format!("{}-{modality}", space.collection.id));
                if let Err(error) = space.link_index(modality, &to) {
                    // It can be built from the store.
                    tracing::warn!(
                        "the {modality} index of '{}' is not in the backup: {error}",
                        space.collection.name
                    );
                    remove(&to).map_err(|error| io("removing half of an index", &error))?;
                }
            }
        }
        let checkpoint = self.store.checkpoint(&staging.0)?;
        let (seq, records, files) = (checkpoint.seq, checkpoint.records, checkpoint.files);
        Ok(Snapshot { staging, seq, records, files, _turn: turn })
    }

    /// Reads up to `limit` records with their vectors, as [`Engine::list_page`] does. Each record is as it
    /// is when it is read.
    ///
    /// # Errors
    /// As [`Engine::list_page`].
    pub fn export_page(
        &self,
        collection: &CollectionName,
        after: Option<&Key>,
        limit: usize,
        filter: Option<&Filter>,
    ) -> Result<ExportPage, EngineError> {
        let space = self.space(collection)?;
        let page = self.list_page(collection, after, limit, filter)?;
        let mut records = Vec::with_capacity(page.records.len());
        for listed in page.records {
            let whole =
                self.store.record_whole(space.collection.id, listed.record.key()).map_err(EngineError::from);
            // It may have changed since it was listed, or be gone.
            let Some((stored, vectors)) = space.told(whole)? else { continue };
            if filter.is_none_or(|filter| filter.matches(stored.record.attributes())) {
                records.push(Exported { stored, vectors });
            }
        }
        Ok(ExportPage { records, next: page.next })
    }
}

/// Removes what a crash has left of a snapshot.
pub(crate) fn discard_left(store: &Store) {
    let dir = store.root().join(SNAPSHOT_DIR);
    if dir.exists() {
        match remove(&dir) {
            Ok(()) => tracing::info!("removed a backup that was cut off"),
            Err(error) => tracing::warn!("a backup that was cut off is left in {}: {error}", dir.display()),
        }
    }
}

fn remove(dir: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn io(doing: &'static str, error: &std::io::Error) -> EngineError {
    let reason = error.to_string();
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreError::Full { doing, reason }.into(),
        _ => StoreError::Io { doing, reason }.into(),
    }
}
