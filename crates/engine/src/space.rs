//! The index side of a collection: one index per modality, opened on first use, kept up with writes.
//!
//! Owns: which index answers for a modality, what every write does to it, and when its files catch up.
//! Deliberately absent: how an index is opened or built (see `shelf`).

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockWriteGuard};

use diptych_core::{Embedding, Modality};
use diptych_index::{Index, IndexError};
use diptych_lexical::LexicalIndex;
use diptych_store::{Applied, Collection, Store, StoreError};

use crate::attributes::AttributeIndex;
use crate::relevance::Relevance;
use crate::shelf::{Opening, Shelf};
use crate::{EngineError, IndexKind};

/// Changes of records after which the files of the indexes catch up.
const CHECKPOINT_CHANGES: u64 = 16_384;

/// A collection as the engine holds it.
pub(crate) struct Space {
    pub(crate) collection: Collection,
    /// Loaded as the indexes are, by the first filter.
    pub(crate) attributes: OnceLock<AttributeIndex>,
    /// Loaded by the first search by words.
    pub(crate) lexical: RwLock<Option<Arc<LexicalIndex>>>,
    /// What scores mean; learned when first asked for.
    pub(crate) relevance: Relevance,
    indexes: RwLock<[Option<Arc<Index>>; 2]>,
    /// Writers hold it shared from the store's batch to the index insert; a load holds it alone, so
    /// that it sees each write either in the store or in the index's own update, never in neither.
    gate: RwLock<()>,
    pub(crate) shelf: Shelf,
    /// Whether the files of the indexes stay as they are.
    read_only: bool,
    /// Changes since the files last caught up.
    changes: AtomicU64,
    /// Whether the collection was deleted.
    gone: AtomicBool,
}

impl Space {
    /// A collection whose indexes are kept in `dir`, if they are kept.
    pub(crate) fn new(collection: Collection, kind: IndexKind, dir: Option<PathBuf>) -> Self {
        let shelf = Shelf::new(collection.clone(), kind, dir);
        Self {
            collection,
            read_only: kind == IndexKind::Ready,
            attributes: OnceLock::new(),
            lexical: RwLock::default(),
            relevance: Relevance::default(),
            indexes: RwLock::default(),
            gate: RwLock::new(()),
            shelf,
            changes: AtomicU64::new(0),
            gone: AtomicBool::new(false),
        }
    }

    /// Refuses when the collection was deleted. The answer holds for as long as the gate is held.
    pub(crate) fn check_there(&self) -> Result<(), EngineError> {
        match self.gone.load(Ordering::Acquire) {
            true => Err(self.deleted()),
            false => Ok(()),
        }
    }

    /// Notes that the store has deleted the collection. The caller keeps writers out.
    pub(crate) fn set_gone(&self) {
        self.gone.store(true, Ordering::Release);
    }

    fn deleted(&self) -> EngineError {
        EngineError::CollectionDeleted { name: self.collection.name.to_string() }
    }

    /// An outcome of the store, which for a deleted collection says that it does not know it.
    pub(crate) fn told<T>(&self, outcome: Result<T, EngineError>) -> Result<T, EngineError> {
        match outcome {
            Err(EngineError::Store(StoreError::UnknownCollection { .. })) => Err(self.deleted()),
            outcome => outcome,
        }
    }

    /// Keeps writers out, for a load.
    pub(crate) fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.gate.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The index of one modality; opened, or built from the store, when this is the first need of it.
    pub(crate) fn index(&self, store: &Store, modality: Modality) -> Result<Arc<Index>, EngineError> {
        if let Some(index) = self.opened(modality) {
            return Ok(index);
        }
        let _alone = self.alone();
        if let Some(index) = self.opened(modality) {
            return Ok(index);
        }
        self.check_there()?;
        let (index, opening) = self.shelf.open(store, modality)?;
        self.log(modality, &index, &opening);
        let index = Arc::new(index);
        self.put(modality, Some(Arc::clone(&index)));
        Ok(index)
    }

    /// Asks the index of one modality. When one of its files turns out to be damaged, the index is built
    /// again from the store and asked once more.
    pub(crate) fn ask<T>(
        &self,
        store: &Store,
        modality: Modality,
        ask: impl Fn(&Index) -> Result<T, IndexError>,
    ) -> Result<T, EngineError> {
        let index = self.index(store, modality)?;
        match ask(&index) {
            Err(error @ IndexError::Damaged { .. }) => {
                tracing::warn!("{error}; building it again");
                self.rebuild(store, modality, &index)?;
                Ok(ask(&*self.index(store, modality)?)?)
            }
            answer => Ok(answer?),
        }
    }

    /// Replaces a damaged index, unless another caller has done so already.
    fn rebuild(&self, store: &Store, modality: Modality, damaged: &Arc<Index>) -> Result<(), EngineError> {
        let _alone = self.alone();
        if self.opened(modality).is_some_and(|index| !Arc::ptr_eq(&index, damaged)) {
            return Ok(());
        }
        self.check_there()?;
        self.replace(store, modality, &|| {}).map(drop)
    }

    /// Says how an index came to be open, if there is something in it.
    fn log(&self, modality: Modality, index: &Index, opening: &Opening) {
        let (name, points) = (&self.collection.name, index.len());
        match opening {
            _ if points == 0 => {}
            Opening::Held | Opening::Opened => {
                tracing::info!("opened the {modality} index of '{name}': {points} points");
            }
            Opening::CaughtUp { changes } => {
                tracing::info!(
                    "opened the {modality} index of '{name}' and caught up with {changes} changes: \
                     {points} points"
                );
            }
            Opening::Built { .. } => {
                tracing::info!("built the {modality} index of '{name}': {points} points");
            }
        }
    }

    /// Puts the files of the index of one modality, if there are any, into a directory. The store has
    /// everything that they have, and what they lack can be caught up with from it.
    pub(crate) fn link_index(&self, modality: Modality, to: &Path) -> Result<(), IndexError> {
        let Some(dir) = self.shelf.index_dir(modality) else { return Ok(()) };
        // Keeps out those who open or replace an index, not those who write to it.
        let _shared = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        match self.opened(modality) {
            Some(index) => index.link_to(to),
            None if dir.exists() => Index::link_closed(&dir, to),
            None => Ok(false),
        }
        .map(drop)
    }

    /// The index of one modality, if it is open.
    pub(crate) fn opened(&self, modality: Modality) -> Option<Arc<Index>> {
        self.indexes.read().unwrap_or_else(PoisonError::into_inner)[modality as usize].clone()
    }

    /// Puts an index in the place of another; returns that. The caller keeps writers out.
    pub(crate) fn put(&self, modality: Modality, index: Option<Arc<Index>>) -> Option<Arc<Index>> {
        let mut indexes = self.indexes.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut indexes[modality as usize], index)
    }

    /// Runs a write to the store and brings the opened indexes up to it before returning.
    pub(crate) fn write(
        &self,
        store: &Store,
        vectors: &[Vec<Embedding>],
        write: impl FnOnce() -> Result<Vec<Applied>, EngineError>,
    ) -> Result<Vec<Applied>, EngineError> {
        let applied = {
            let _shared = self.gate.read().unwrap_or_else(PoisonError::into_inner);
            let applied = self.told(write())?;
            for (change, vectors) in applied.iter().zip(vectors) {
                self.apply(change, vectors)?;
            }
            applied
        };
        self.count(store, &applied);
        Ok(applied)
    }

    /// As [`Self::write`], for changes that bring no vectors and that other writers must not overtake.
    pub(crate) fn write_alone(
        &self,
        store: &Store,
        write: impl FnOnce() -> Result<Vec<Applied>, EngineError>,
    ) -> Result<Vec<Applied>, EngineError> {
        let applied = {
            let _alone = self.alone();
            self.check_there()?;
            let applied = write()?;
            applied.iter().try_for_each(|change| self.apply(change, &[]))?;
            applied
        };
        self.count(store, &applied);
        Ok(applied)
    }

    fn count(&self, store: &Store, applied: &[Applied]) {
        let changes = self.changes.fetch_add(applied.len() as u64, Ordering::Relaxed) + applied.len() as u64;
        if changes >= CHECKPOINT_CHANGES {
            self.checkpoint(store);
        }
    }

    fn apply(&self, change: &Applied, vectors: &[Embedding]) -> Result<(), EngineError> {
        for (part, point) in &change.removed {
            if let Some(index) = self.opened(part.modality) {
                index.remove(*point);
            }
        }
        for ((part, point), vector) in change.added.iter().zip(vectors) {
            if let Some(index) = self.opened(part.modality) {
                index.insert(*point, vector)?;
            }
            // What is stored in one modality is what the other will be asked.
            if let Some(index) = self.opened(part.modality.other()) {
                index.note_query(vector)?;
            }
        }
        Ok(())
    }

    /// Has the files of the opened indexes catch up with the store, in the background.
    pub(crate) fn checkpoint(&self, store: &Store) {
        let _alone = self.alone();
        self.checkpoint_words(store);
        if self.read_only {
            return;
        }
        self.changes.store(0, Ordering::Relaxed);
        for modality in Modality::ALL {
            if let Some(index) = self.opened(modality) {
                index.checkpoint(store.last_seq());
            }
        }
    }

    /// Has the files of the opened indexes catch up with the store, now.
    pub(crate) fn close(&self, store: &Store) -> Result<(), EngineError> {
        self.checkpoint(store);
        if self.read_only {
            return Ok(());
        }
        for modality in Modality::ALL {
            if let Some(index) = self.opened(modality) {
                index.flush()?;
            }
        }
        Ok(())
    }
}
