//! Creating, describing and deleting collections.
//!
//! The store decides whether a collection is there; what else belongs to one, open indexes and their
//! files, follows it. Files that a crash left behind are removed at the next start.

use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use diptych_core::{AttributeSchema, CollectionName, Modality, ModelId, Time};
use diptych_index::Index;
use diptych_store::{Collection, NewCollection, Stats, Store};

use crate::lexical::LEXICAL_SUFFIX;
use crate::space::Space;
use crate::{Engine, EngineError};

/// What a collection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectionInfo {
    /// Its name.
    pub name: CollectionName,
    /// The model that all its vectors come from.
    pub model_id: ModelId,
    /// Dimensions of that model.
    pub dim: u32,
    /// When it was created; `None` when it is older than such notes.
    pub created: Option<Time>,
    /// What its records' attributes are.
    pub schema: Arc<AttributeSchema>,
    /// What it holds.
    pub stats: Stats,
}

impl Engine {
    /// Creates a collection for the engine's model.
    ///
    /// # Errors
    /// [`EngineError::CollectionExists`]; a failure to write.
    pub fn create_collection(
        &self,
        name: &CollectionName,
        schema: AttributeSchema,
    ) -> Result<CollectionInfo, EngineError> {
        match self.add_space(name, schema)? {
            (space, true) => self.info(&space),
            (_, false) => Err(EngineError::CollectionExists { name: name.to_string() }),
        }
    }

    /// Describes a collection.
    ///
    /// # Errors
    /// [`EngineError::CollectionNotFound`], or when the store cannot be read.
    pub fn describe_collection(&self, name: &CollectionName) -> Result<CollectionInfo, EngineError> {
        self.info(&*self.space(name)?)
    }

    /// Describes up to `limit` collections in the order of their names, beginning after `after`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn list_collections(
        &self,
        after: Option<&CollectionName>,
        limit: usize,
    ) -> Result<Vec<CollectionInfo>, EngineError> {
        let mut spaces = self.all_spaces();
        spaces.retain(|space| after.is_none_or(|after| space.collection.name > *after));
        spaces.sort_by(|a, b| a.collection.name.cmp(&b.collection.name));
        let infos = spaces.iter().map(|space| self.info(space));
        // One that is deleted meanwhile is not listed.
        let there = infos.filter(|info| !matches!(info, Err(EngineError::CollectionDeleted { .. })));
        there.take(limit).collect()
    }

    /// Deletes a collection with all that belongs to it. After a crash it is either there or gone, and
    /// when this returns, its name is free.
    ///
    /// # Errors
    /// [`EngineError::CollectionNotFound`]; a failure to write, and then it is there.
    pub fn delete_collection(&self, name: &CollectionName) -> Result<(), EngineError> {
        let space = self.space(name)?;
        {
            // Writes in work are done before, and later ones find that it is gone.
            let _alone = space.alone();
            space.check_there()?;
            self.store.delete_collection(space.collection.id)?;
            space.set_gone();
        }
        let mut spaces = self.spaces.write().unwrap_or_else(PoisonError::into_inner);
        if spaces.get(name).is_some_and(|found| Arc::ptr_eq(found, &space)) {
            spaces.remove(name);
        }
        drop(spaces);
        self.meter.forget(name);
        space.discard();
        Ok(())
    }

    fn info(&self, space: &Space) -> Result<CollectionInfo, EngineError> {
        let Collection { id, name, model_id, dim, created, schema } = space.collection.clone();
        let stats = space.told(self.store.stats(id).map_err(EngineError::from))?;
        Ok(CollectionInfo { name, model_id, dim, created, schema, stats })
    }
}

impl Space {
    /// Closes the indexes of a collection that is gone and deletes their files.
    fn discard(&self) {
        let _alone = self.alone();
        self.discard_words();
        for modality in Modality::ALL {
            if let Some(index) = self.put(modality, None) {
                // Searches may still read it.
                index.retire();
            }
            if let Some(dir) = self.shelf.index_dir(modality)
                && let Err(error) = Index::discard(&dir)
            {
                tracing::warn!("files of a deleted collection are left until the next start: {error}");
            }
        }
    }
}

/// A collection to be created now, with no more asked of its attributes than `schema` says.
pub(crate) fn new_collection(
    name: &CollectionName,
    model_id: ModelId,
    dim: u32,
    schema: AttributeSchema,
) -> NewCollection {
    // A clock that the calendar does not reach tells nothing.
    let created = Time::try_from(SystemTime::now()).ok();
    NewCollection { name: name.clone(), model_id, dim, created, schema }
}

/// Deletes the index files of collections that the store does not have: their deletion was cut short.
pub(crate) fn discard_orphans(store: &Store, dir: &Path) {
    let known: Vec<u32> = store.collections().into_iter().map(|collection| collection.id).collect();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let kinds = Modality::ALL.map(Modality::as_str).into_iter().chain([LEXICAL_SUFFIX]);
        let id = kinds
            .into_iter()
            .find_map(|kind| name.strip_suffix(kind)?.strip_suffix('-')?.parse::<u32>().ok());
        if id.is_some_and(|id| !known.contains(&id)) {
            match Index::discard(&entry.path()) {
                Ok(()) => tracing::info!("removed {name}, left of a collection that was deleted"),
                Err(error) => tracing::warn!("files of a deleted collection cannot be removed: {error}"),
            }
        }
    }
}
