//! Opening an index: from its files and what the store has since, or from the store alone.
//!
//! Owns: the way from a collection to an index that holds exactly its points. Deliberately absent: which
//! index is in use (the space knows).
//!
//! The store is the truth and every file of an index can be built again. So files that are damaged, or
//! that do not add up to what the store counts, are thrown away.

use std::path::PathBuf;

use diptych_core::{Embedding, Modality, PointId};
use diptych_index::{Index, IndexError, IndexOptions, Kind};
use diptych_store::{Collection, Store};

use crate::EngineError;

/// Where the files of all indexes are, in the store's directory.
pub(crate) const INDEX_DIR: &str = "index";
/// Points whose vectors are read and inserted together when changes are caught up with.
const REPLAY_CHUNK: usize = 16_384;
/// Stored vectors of the other modality that a new index is taught as queries, one for so many points.
const TAUGHT_SHARE: u64 = 10;
/// Fewest and most of them.
const TAUGHT_MIN: u64 = 4096;
const TAUGHT_MAX: u64 = 32_768;

/// Where the indexes of a collection are kept, and how they are built.
pub(crate) struct Shelf {
    pub(crate) collection: Collection,
    pub(crate) options: IndexOptions,
    /// Without one, indexes are built in memory each time.
    pub(crate) dir: Option<PathBuf>,
}

impl Shelf {
    /// Opens the index of one modality, or builds it. Nothing may be written meanwhile.
    pub(crate) fn open(&self, store: &Store, modality: Modality) -> Result<Index, EngineError> {
        let Some(dir) = self.index_dir(modality) else {
            return self.build(store, modality, Index::new(self.dim(), self.options)?);
        };
        match Index::open(&dir, self.dim(), self.options) {
            Ok(index) if index.mark() == 0 && index.is_empty() => self.build(store, modality, index),
            Ok(index) => {
                self.catch_up(store, modality, &index)?;
                let counted = self.points(store, modality)?;
                if index.len() as u64 == counted {
                    return Ok(index);
                }
                tracing::warn!(
                    "the {modality} index of '{}' holds {} points, and the store {counted}; building it again",
                    self.collection.name,
                    index.len(),
                );
                drop(index);
                self.build_again(store, modality)
            }
            Err(error @ (IndexError::Damaged { .. } | IndexError::WrongDimension { .. })) => {
                tracing::warn!("{error}; building it again");
                self.build_again(store, modality)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Checks all files of the index of one modality, vectors and all.
    ///
    /// # Errors
    /// [`IndexError::Damaged`].
    pub(crate) fn check(&self, modality: Modality) -> Result<(), IndexError> {
        match self.index_dir(modality).filter(|dir| dir.exists()) {
            Some(dir) => Index::open(&dir, self.dim(), self.options)?.check_vectors(),
            None => Ok(()),
        }
    }

    /// Builds the index of one modality from the store alone. Nothing may be written meanwhile.
    pub(crate) fn build_again(&self, store: &Store, modality: Modality) -> Result<Index, EngineError> {
        let index = match self.index_dir(modality) {
            Some(dir) => {
                Index::discard(&dir)?;
                Index::open(&dir, self.dim(), self.options)?
            }
            None => Index::new(self.dim(), self.options)?,
        };
        self.build(store, modality, index)
    }

    fn build(&self, store: &Store, modality: Modality, index: Index) -> Result<Index, EngineError> {
        let seq = store.last_seq();
        let points = self.points(store, modality)?;
        if self.options.kind == Kind::Graph {
            let taught = (points / TAUGHT_SHARE).clamp(TAUGHT_MIN, TAUGHT_MAX);
            let other = self.points(store, modality.other())?;
            let step = other.div_ceil(taught).max(1) as usize;
            for (n, stored) in store.scan_vectors(self.collection.id, modality.other())?.enumerate() {
                let (_, vector) = stored?;
                if n % step == 0 {
                    index.note_query(&vector)?;
                }
            }
        }
        let stored = store.scan_vectors(self.collection.id, modality)?;
        if points >= self.options.seal_at as u64 {
            index.insert_all(stored.map(|point| point.map_err(EngineError::from)))?;
        } else {
            let all: Vec<(PointId, Embedding)> = stored.collect::<Result<_, _>>()?;
            index.insert_many(&all)?;
        }
        index.checkpoint(seq);
        Ok(index)
    }

    /// Does again what the store has done since the index was last written down.
    fn catch_up(&self, store: &Store, modality: Modality, index: &Index) -> Result<(), EngineError> {
        let seq = store.last_seq();
        if index.mark() == seq {
            return Ok(());
        }
        let mut added = Vec::new();
        for entry in store.journal(index.mark()) {
            let entry = entry?;
            if entry.collection != self.collection.id {
                continue;
            }
            for (_, point) in entry.removed.iter().filter(|(part, _)| part.modality == modality) {
                index.remove(*point);
            }
            added.extend(entry.added.iter().filter(|(part, _)| part.modality == modality).map(|(_, p)| *p));
            if added.len() >= REPLAY_CHUNK {
                self.insert_stored(store, modality, index, &mut added)?;
            }
        }
        self.insert_stored(store, modality, index, &mut added)?;
        index.checkpoint(seq);
        Ok(())
    }

    /// Inserts those of some points that the index does not know and the store still has.
    fn insert_stored(
        &self,
        store: &Store,
        modality: Modality,
        index: &Index,
        points: &mut Vec<PointId>,
    ) -> Result<(), EngineError> {
        points.retain(|point| !index.knows(*point));
        let vectors = store.vectors(self.collection.id, modality, points)?;
        let present: Vec<(PointId, Embedding)> =
            points.drain(..).zip(vectors).filter_map(|(point, vector)| Some((point, vector?))).collect();
        index.insert_many(&present)?;
        Ok(())
    }

    fn points(&self, store: &Store, modality: Modality) -> Result<u64, EngineError> {
        let stats = store.stats(self.collection.id)?;
        Ok(match modality {
            Modality::Image => stats.image_points,
            Modality::Text => stats.text_points,
        })
    }

    fn dim(&self) -> usize {
        self.collection.dim as usize
    }

    fn index_dir(&self, modality: Modality) -> Option<PathBuf> {
        // A scan has no files of its own, and is not in the way of those of a graph.
        let dir = self.dir.as_ref().filter(|_| self.options.kind == Kind::Graph)?;
        Some(dir.join(format!("{}-{modality}", self.collection.id)))
    }
}
