//! A copy of the store as it is at one moment, beside the store in use.
//!
//! Owns: which files such a copy is made of, and that it opens as a store. Deliberately absent: where it
//! goes from there.
//!
//! Tables never change once they are written, so the copy shares them by hard links; only what is small
//! is written anew.

use std::path::Path;

use crate::db::{Access, Db};
use crate::directory::{self, Listed};
use crate::{Store, StoreError, plan};

/// Memory for blocks while a copy is looked at.
const CACHE_BYTES: usize = 8 << 20;

/// What a copy of the store holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Journal number of the last change in it.
    pub seq: u64,
    /// Records of all collections.
    pub records: u64,
    /// Its files by their paths below the folder, in the order of those, with their sizes in bytes.
    pub files: Vec<(String, u64)>,
}

impl Store {
    /// Makes a copy of the store in `dir`, which is created when absent and must have no store in it; on
    /// the file system of the store, it takes little more room than the changes since the last flush.
    /// Reads and writes go on. The copy has what was acknowledged before the call, and perhaps some of
    /// what is written meanwhile, each batch whole or not at all; [`Store::open`] takes it as it is, once
    /// it lies for itself. Files that others have put into `dir` are listed with it.
    ///
    /// # Errors
    /// [`StoreError::Full`] or [`StoreError::Io`]; [`StoreError::Corrupt`] when the copy does not open.
    pub fn checkpoint(&self, dir: &Path) -> Result<Checkpoint, StoreError> {
        directory::make_private_dir(dir)?;
        let database = directory::database_in(dir);
        self.db.checkpoint(&database)?;
        // Looked at from outside: what the copy has is what it says itself.
        let copy = Db::open(&database, Access::ReadOnly, CACHE_BYTES)?;
        let marks = crate::store::read_marks(&copy)?;
        let mut records = 0;
        for collection in crate::collections::Collections::read(&copy)?.all() {
            records +=
                plan::read_stats(|key| copy.get(crate::schema::Family::Meta, key), collection.id)?.records;
        }
        drop(copy);
        directory::stamp_copy(dir, marks.batch)?;
        let Listed(files) = directory::list_copy(dir)?;
        Ok(Checkpoint { seq: marks.seq, records, files })
    }
}
