//! The collections of a store: which there are, how one comes and how one goes.
//!
//! Deliberately absent: their records, beyond that they go with them.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLockReadGuard};

use diptych_core::limits::DIM_MAX;
use diptych_core::{AttributeSchema, CollectionName, ModelId};

use crate::StoreError;
use crate::db::{Db, Depth};
use crate::rows;
use crate::schema::{self, Family};
use crate::store::Store;
use crate::values::{Collection, NewCollection};

/// The collections, by id, and the id of the next.
pub(crate) struct Collections {
    by_id: BTreeMap<u32, Collection>,
    next: u32,
}

impl Collections {
    /// Reads what there is.
    pub(crate) fn read(db: &Db) -> Result<Self, StoreError> {
        let mut collections = Self { by_id: BTreeMap::new(), next: 1 };
        for pair in db.scan(Family::Collections, &[], None, Depth::Page) {
            let (name, row) = pair?;
            if *name == *schema::NEXT_COLLECTION_KEY {
                collections.next = collections.next.max(schema::decode_next_collection(&row)?);
                continue;
            }
            let collection = rows::decode_collection(&name, &row)?;
            collections.next = collections.next.max(collection.id + 1);
            collections.by_id.insert(collection.id, collection);
        }
        Ok(collections)
    }

    /// All of them, by id.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Collection> {
        self.by_id.values()
    }
}

impl Store {
    /// All collections, by id.
    pub fn collections(&self) -> Vec<Collection> {
        self.read_collections().by_id.values().cloned().collect()
    }

    /// The collection of that name.
    pub fn collection(&self, name: &CollectionName) -> Option<Collection> {
        self.read_collections().by_id.values().find(|c| c.name == *name).cloned()
    }

    /// Creates a collection, or returns the one of that name when it has the same model.
    ///
    /// # Errors
    /// [`StoreError::ModelMismatch`] when it has another model, [`StoreError::Dimension`] when no
    /// model has `dim` dimensions, or a failure to write.
    pub fn create_collection(
        &self,
        name: &CollectionName,
        model_id: ModelId,
        dim: u32,
    ) -> Result<Collection, StoreError> {
        let schema = AttributeSchema::default();
        let new = NewCollection { name: name.clone(), model_id, dim, created: None, schema };
        match self.add_collection(new)? {
            (found, false) if found.model_id != model_id || found.dim != dim => {
                Err(StoreError::ModelMismatch {
                    collection: found.name,
                    stored: found.model_id,
                    stored_dim: found.dim,
                    given: model_id,
                    given_dim: dim,
                })
            }
            (found, _) => Ok(found),
        }
    }

    /// Creates a collection unless there is one of that name; returns that one, whatever it is, and
    /// whether it is new.
    ///
    /// # Errors
    /// [`StoreError::Dimension`] when no model has so many dimensions, or a failure to write.
    pub fn add_collection(&self, new: NewCollection) -> Result<(Collection, bool), StoreError> {
        let NewCollection { name, model_id, dim, created, schema } = new;
        if dim == 0 || dim as usize > DIM_MAX {
            return Err(StoreError::Dimension { dim });
        }
        // Held until the collection is on disk, so that two callers cannot both create it.
        let mut collections = self.collections.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = collections.by_id.values().find(|c| c.name == name) {
            return Ok((found.clone(), false));
        }
        let id = collections.next;
        let collection = Collection { id, name, model_id, dim, created, schema: Arc::new(schema) };
        let row = rows::encode_collection(&collection);
        self.writer.write_alone(&self.db, |batch| {
            batch.put(Family::Collections, collection.name.as_str(), row);
            Ok(())
        })?;
        collections.next = id + 1;
        collections.by_id.insert(id, collection.clone());
        Ok((collection, true))
    }

    /// Deletes a collection with all its records, points and vectors, and what is remembered of requests
    /// to it, by one synced batch: after a crash it is either there or gone. Its journal entries stay,
    /// and its id is not given out again. The room on disk is free once the database has merged its files.
    ///
    /// # Errors
    /// [`StoreError::UnknownCollection`], or a failure to write.
    pub fn delete_collection(&self, id: u32) -> Result<(), StoreError> {
        let mut collections = self.collections.write().unwrap_or_else(PoisonError::into_inner);
        let name = match collections.by_id.get(&id) {
            Some(collection) => collection.name.clone(),
            None => return Err(StoreError::UnknownCollection { id }),
        };
        let from = id.to_be_bytes();
        let until = (id + 1).to_be_bytes();
        self.writer.delete_collection(&self.db, id, |batch| {
            batch.delete(Family::Collections, name.as_str());
            batch.delete(Family::Meta, schema::stats_key(id));
            for family in [Family::Records, Family::Points, Family::Vectors, Family::Thumbnails] {
                batch.delete_range(family, &from, &until);
            }
            let next = schema::encode_next_collection(collections.next);
            batch.put(Family::Collections, schema::NEXT_COLLECTION_KEY, next);
            Ok(())
        })?;
        collections.by_id.remove(&id);
        Ok(())
    }

    pub(crate) fn known(&self, id: u32) -> Result<Collection, StoreError> {
        self.read_collections().by_id.get(&id).cloned().ok_or(StoreError::UnknownCollection { id })
    }

    fn read_collections(&self) -> RwLockReadGuard<'_, Collections> {
        // A collection comes and goes in one step, so the map is whole even after a panic.
        self.collections.read().unwrap_or_else(PoisonError::into_inner)
    }
}
