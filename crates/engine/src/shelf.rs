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

use crate::lexical::words_dir;
use crate::{EngineError, IndexKind};

/// Where the files of all indexes are, in the store's directory.
pub(crate) const INDEX_DIR: &str = "index";
/// Points whose vectors are read and inserted together when changes are caught up with.
const REPLAY_CHUNK: usize = 16_384;
/// Stored vectors of the other modality that a new index is taught as queries, one for so many points.
const TAUGHT_SHARE: u64 = 10;
/// Fewest and most of them.
const TAUGHT_MIN: u64 = 4096;
const TAUGHT_MAX: u64 = 32_768;

/// Points, one of so many, up to which changes that the files lack are caught up with for a single
/// search: to link one into a graph takes about as long as to read some hundred from the store.
const FEW_MISSING: u64 = 512;

/// Hears of each point that a build takes.
pub(crate) type Watch<'a> = dyn Fn() + 'a;

/// How an index came to be open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opening {
    /// It was open already.
    Held,
    /// From its files, which lacked nothing.
    Opened,
    /// From its files, and then what the store had since.
    CaughtUp {
        /// Changes of records that the files lacked.
        changes: u64,
    },
    /// From the store alone.
    Built {
        /// Why its files were not good enough, if there were any.
        because: Option<String>,
    },
}

impl Opening {
    fn from_files(changes: u64) -> Self {
        if changes == 0 { Self::Opened } else { Self::CaughtUp { changes } }
    }
}

/// Where the indexes of a collection are kept, and how they are built.
pub(crate) struct Shelf {
    collection: Collection,
    kind: IndexKind,
    options: IndexOptions,
    /// Without one, indexes are built in memory each time.
    dir: Option<PathBuf>,
}

impl Shelf {
    /// The indexes of a collection, whose files are in `dir`, if there are any.
    pub(crate) fn new(collection: Collection, kind: IndexKind, dir: Option<PathBuf>) -> Self {
        Self { collection, kind, options: kind.options(), dir }
    }

    /// Opens the index of one modality, or builds it. Nothing may be written meanwhile.
    pub(crate) fn open(&self, store: &Store, modality: Modality) -> Result<(Index, Opening), EngineError> {
        if self.kind == IndexKind::Ready {
            return self.open_ready(store, modality);
        }
        let Some(dir) = self.index_dir(modality) else {
            let index = self.build(store, modality, Index::new(self.dim(), self.options)?, &|| {})?;
            return Ok((index, Opening::Built { because: None }));
        };
        match Index::open(&dir, self.dim(), self.options) {
            Ok(index) if index.mark() == 0 && index.is_empty() => {
                let index = self.build(store, modality, index, &|| {})?;
                Ok((index, Opening::Built { because: None }))
            }
            Ok(index) => {
                let changes = self.catch_up(store, modality, &index)?;
                match self.disagreement(store, modality, &index)? {
                    None => Ok((index, Opening::from_files(changes))),
                    Some(because) => {
                        drop(index);
                        self.build_because(store, modality, because)
                    }
                }
            }
            Err(error @ (IndexError::Damaged { .. } | IndexError::WrongDimension { .. })) => {
                self.build_because(store, modality, error.to_string())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn build_because(
        &self,
        store: &Store,
        modality: Modality,
        because: String,
    ) -> Result<(Index, Opening), EngineError> {
        tracing::warn!("{because}; building it again");
        Ok((self.build_again(store, modality)?, Opening::Built { because: Some(because) }))
    }

    /// The index in the files where that is quicker than a scan; a scan otherwise. The files stay as
    /// they are.
    fn open_ready(&self, store: &Store, modality: Modality) -> Result<(Index, Opening), EngineError> {
        if let Some(dir) = self.index_dir(modality).filter(|dir| dir.exists()) {
            match Index::open(&dir, self.dim(), self.options) {
                Ok(index) if self.few_missing(store, modality, index.mark())? => {
                    let changes = self.replay(store, modality, &index)?;
                    if self.disagreement(store, modality, &index)?.is_none() {
                        return Ok((index, Opening::from_files(changes)));
                    }
                }
                Ok(_) => {}
                Err(error) => tracing::warn!("{error}; scanning the stored vectors instead"),
            }
        }
        Ok((self.build_again(store, modality)?, Opening::Built { because: None }))
    }

    /// Whether so few changes come after `mark` that to do them again takes less time than to read all
    /// stored vectors.
    fn few_missing(&self, store: &Store, modality: Modality, mark: u64) -> Result<bool, EngineError> {
        let points = self.points(store, modality)?;
        // Those of other collections cost a look each.
        if store.last_seq().saturating_sub(mark) > points {
            return Ok(false);
        }
        let mut missing = 0;
        for entry in store.journal(mark) {
            let entry = entry?;
            if entry.collection == self.collection.id {
                missing += entry.added.iter().filter(|(part, _)| part.modality == modality).count() as u64;
            }
            if missing * FEW_MISSING > points {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// How the index differs from what the store counts, if it does.
    fn disagreement(
        &self,
        store: &Store,
        modality: Modality,
        index: &Index,
    ) -> Result<Option<String>, EngineError> {
        let (indexed, counted) = (index.len() as u64, self.points(store, modality)?);
        Ok((indexed != counted).then(|| {
            let name = &self.collection.name;
            format!("the {modality} index of '{name}' holds {indexed} points, and the store {counted}")
        }))
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

    /// Builds the index of one modality from the store alone. Nothing may be written meanwhile. Where
    /// files are only read, it is one that scans.
    pub(crate) fn build_again(&self, store: &Store, modality: Modality) -> Result<Index, EngineError> {
        self.build_watched(store, modality, &|| {})
    }

    /// As [`Self::build_again`]; `watch` hears of each point.
    pub(crate) fn build_watched(
        &self,
        store: &Store,
        modality: Modality,
        watch: &Watch<'_>,
    ) -> Result<Index, EngineError> {
        if self.kind == IndexKind::Ready {
            let scan = Self::new(self.collection.clone(), IndexKind::Exact, None);
            return scan.build_watched(store, modality, watch);
        }
        let index = match self.index_dir(modality) {
            Some(dir) => {
                Index::discard(&dir)?;
                Index::open(&dir, self.dim(), self.options)?
            }
            None => Index::new(self.dim(), self.options)?,
        };
        self.build(store, modality, index, watch)
    }

    fn build(
        &self,
        store: &Store,
        modality: Modality,
        index: Index,
        watch: &Watch<'_>,
    ) -> Result<Index, EngineError> {
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
        let stored = stored.map(|point| -> Result<_, EngineError> {
            watch();
            Ok(point?)
        });
        if points >= self.options.seal_at as u64 {
            index.insert_all(stored)?;
        } else {
            let all: Vec<(PointId, Embedding)> = stored.collect::<Result<_, _>>()?;
            index.insert_many(&all)?;
        }
        index.checkpoint(seq);
        Ok(index)
    }

    /// Does again what the store has done since the index was last written down, and writes that down.
    /// Returns how many changes of the collection that were.
    fn catch_up(&self, store: &Store, modality: Modality, index: &Index) -> Result<u64, EngineError> {
        let seq = store.last_seq();
        if index.mark() == seq {
            return Ok(0);
        }
        let changes = self.replay(store, modality, index)?;
        index.checkpoint(seq);
        Ok(changes)
    }

    fn replay(&self, store: &Store, modality: Modality, index: &Index) -> Result<u64, EngineError> {
        let mut added = Vec::new();
        let mut changes = 0;
        for entry in store.journal(index.mark()) {
            let entry = entry?;
            if entry.collection != self.collection.id {
                continue;
            }
            changes += 1;
            for (_, point) in entry.removed.iter().filter(|(part, _)| part.modality == modality) {
                index.remove(*point);
            }
            added.extend(entry.added.iter().filter(|(part, _)| part.modality == modality).map(|(_, p)| *p));
            if added.len() >= REPLAY_CHUNK {
                self.insert_stored(store, modality, index, &mut added)?;
            }
        }
        self.insert_stored(store, modality, index, &mut added)?;
        Ok(changes)
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

    /// Where the files of the index of words are, if there can be any.
    pub(crate) fn words_dir(&self) -> Option<PathBuf> {
        let dir = self.dir.as_ref().filter(|_| self.options.kind == Kind::Graph)?;
        Some(words_dir(dir, self.collection.id))
    }

    /// Where the files of an index are, if there can be any.
    pub(crate) fn index_dir(&self, modality: Modality) -> Option<PathBuf> {
        // A scan has no files of its own, and is not in the way of those of a graph.
        let dir = self.dir.as_ref().filter(|_| self.options.kind == Kind::Graph)?;
        Some(dir.join(format!("{}-{modality}", self.collection.id)))
    }
}
