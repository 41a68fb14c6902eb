//! Why the store refuses. Each variant carries the facts and says what to do next. How these become
//! gRPC codes or exit codes is decided elsewhere.

use std::path::PathBuf;

use diptych_core::{CollectionName, Key, ModelId};

/// Everything the store can refuse with. `Clone`, because one failed batch answers several writers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another process, or another `Store` of this process, has the directory open.
    #[error(
        "the data directory is in use: the lock {lock} is held by {holder}; stop that process, send requests \
         to it instead, or choose another directory",
        lock = lock.display()
    )]
    InUse {
        /// The lock file.
        lock: PathBuf,
        /// Who holds it, as far as the lock file tells.
        holder: String,
    },
    /// There is no store and none may be created.
    #[error("there is no store in {dir}; check the path, or ingest something to create one", dir = dir.display())]
    Missing {
        /// The directory asked for.
        dir: PathBuf,
    },
    /// The directory holds other things.
    #[error(
        "{dir} is not a store, it contains '{found}'; choose an empty or new directory",
        dir = dir.display()
    )]
    NotAStore {
        /// The directory asked for.
        dir: PathBuf,
        /// Something found in it.
        found: String,
    },
    /// The directory was written by another version of the format.
    #[error(
        "the store in {dir} has format version {found}, this program reads version {supported}; use the program \
         that wrote it, or ingest again into a new directory",
        dir = dir.display()
    )]
    Version {
        /// The directory asked for.
        dir: PathBuf,
        /// Version on disk.
        found: u32,
        /// Version of this program.
        supported: u32,
    },
    /// The collection's vectors are from another model.
    #[error(
        "collection '{collection}' was made with model {stored} ({stored_dim} dimensions), not {given} ({given_dim} \
         dimensions); use the original model, or ingest again into a new collection"
    )]
    ModelMismatch {
        /// The collection.
        collection: CollectionName,
        /// Model it was made with.
        stored: ModelId,
        /// Dimensions of that model.
        stored_dim: u32,
        /// Model given now.
        given: ModelId,
        /// Dimensions given now.
        given_dim: u32,
    },
    /// No model has that many dimensions, or none.
    #[error("a collection cannot have {dim} dimensions; give the model's dimension, 1 to {max}", max = diptych_core::limits::DIM_MAX)]
    Dimension {
        /// Dimensions given.
        dim: u32,
    },
    /// A collection id that the store never gave out.
    #[error("there is no collection with id {id}; create it first")]
    UnknownCollection {
        /// The id given.
        id: u32,
    },
    /// A change that contradicts itself; nothing of its call was written.
    #[error("change {position} (key '{key}') is refused: {reason}")]
    InvalidMutation {
        /// Index within the call.
        position: usize,
        /// Key of the record.
        key: Key,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// More in one call than the bound.
    #[error("one call has {found} {what}, more than {max}; send several smaller calls")]
    TooMuch {
        /// What was counted.
        what: &'static str,
        /// Count found.
        found: usize,
        /// Count allowed.
        max: usize,
    },
    /// The disk has no room. Reads go on.
    #[error("{doing}: no space left ({reason}); free space on the data disk, then restart to write again")]
    Full {
        /// What the store was doing.
        doing: &'static str,
        /// What the system said.
        reason: String,
    },
    /// The operating system or the database refused. Reads may go on.
    #[error("{doing}: {reason}; check the disk and the permissions of the data directory, then restart")]
    Io {
        /// What the store was doing.
        doing: &'static str,
        /// What the system said.
        reason: String,
    },
    /// What is on disk is not what was written.
    #[error(
        "the store is damaged: {what}; keep a copy of the directory, then restore a backup or ingest again"
    )]
    Corrupt {
        /// What was found where.
        what: String,
    },
    /// A writer thread panicked, so nobody knows what it left behind.
    #[error("a writer failed half-way and writing has stopped; restart to recover what was acknowledged")]
    Halted,
}

impl StoreError {
    /// A corruption, in words.
    pub(crate) fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt { what: what.into() }
    }

    /// An error of the operating system.
    pub(crate) fn io(doing: &'static str, error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                Self::Full { doing, reason: error.to_string() }
            }
            _ => Self::Io { doing, reason: error.to_string() },
        }
    }
}
