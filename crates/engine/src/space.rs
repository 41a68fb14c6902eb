//! The in-memory side of a collection: one index per modality, loaded from the store on first use.

use std::sync::{OnceLock, PoisonError, RwLock, RwLockWriteGuard};

use diptych_core::{Embedding, Modality, PointId};
use diptych_index::{Index, IndexOptions};
use diptych_store::{Applied, Collection, Store};

use crate::EngineError;
use crate::attributes::AttributeIndex;

/// Points handed to the index at once while loading; bounds the memory held twice.
const LOAD_CHUNK: usize = 16_384;

/// A collection as the engine holds it.
pub(crate) struct Space {
    pub(crate) collection: Collection,
    /// Loaded as the indexes are, by the first filter.
    pub(crate) attributes: OnceLock<AttributeIndex>,
    indexes: [OnceLock<Index>; 2],
    /// Writers hold it shared from the store's batch to the index insert; a load holds it alone, so
    /// that it sees each write either in the store or in the index's own update, never in neither.
    gate: RwLock<()>,
    options: IndexOptions,
}

impl Space {
    pub(crate) fn new(collection: Collection, options: IndexOptions) -> Self {
        let attributes = OnceLock::new();
        Self { collection, attributes, indexes: Default::default(), gate: RwLock::new(()), options }
    }

    /// Keeps writers out, for a load.
    pub(crate) fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.gate.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The index of one modality; built from the store when this is the first need of it.
    pub(crate) fn index(&self, store: &Store, modality: Modality) -> Result<&Index, EngineError> {
        let cell = &self.indexes[modality as usize];
        if let Some(index) = cell.get() {
            return Ok(index);
        }
        let _alone = self.alone();
        if let Some(index) = cell.get() {
            return Ok(index);
        }
        let index = load(store, &self.collection, modality, &self.options)?;
        Ok(cell.get_or_init(|| index))
    }

    /// Runs a write to the store and brings the loaded indexes up to it before returning.
    pub(crate) fn write(
        &self,
        vectors: &[Vec<Embedding>],
        write: impl FnOnce() -> Result<Vec<Applied>, EngineError>,
    ) -> Result<Vec<Applied>, EngineError> {
        let _shared = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let applied = write()?;
        for (position, change) in applied.iter().enumerate() {
            for (part, point) in &change.removed {
                if let Some(index) = self.indexes[part.modality as usize].get() {
                    index.remove(*point);
                }
            }
            for (n, (part, point)) in change.added.iter().enumerate() {
                if let Some(index) = self.indexes[part.modality as usize].get() {
                    index.insert(*point, &vectors[position][n])?;
                }
            }
        }
        Ok(applied)
    }
}

/// Builds an index of everything the store holds of one modality.
pub(crate) fn load(
    store: &Store,
    collection: &Collection,
    modality: Modality,
    options: &IndexOptions,
) -> Result<Index, EngineError> {
    let stats = store.stats(collection.id)?;
    let expected = match modality {
        Modality::Image => stats.image_points,
        Modality::Text => stats.text_points,
    };
    let expected_points = usize::try_from(expected).unwrap_or(usize::MAX);
    let options = IndexOptions { expected_points, ..*options };
    let index = Index::new(collection.dim as usize, options)?;
    let mut chunk: Vec<(PointId, Embedding)> = Vec::with_capacity(LOAD_CHUNK.min(expected_points));
    for point in store.scan_vectors(collection.id, modality)? {
        chunk.push(point?);
        if chunk.len() == LOAD_CHUNK {
            index.insert_many(&chunk)?;
            chunk.clear();
        }
    }
    index.insert_many(&chunk)?;
    Ok(index)
}
