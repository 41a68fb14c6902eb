//! Records beside their ingestion: reading with a filter, counting, new attributes, deletion.
//!
//! Owns: what a filter selects outside a search, and writes that may be repeated under a request id.
//! Deliberately absent: encoding. Nothing here needs the model.

use std::collections::{BTreeMap, BTreeSet};

use diptych_core::{
    AttributeValue, Attributes, CollectionName, Digest, Facet, FacetCounts, Filter, Key, Modality, PointId,
    Record, RequestId, Target,
};
use diptych_store::{Applied, Mutation, Once, Outcome, Remembered, Request, StoredRecord};

use crate::space::Space;
use crate::write::{Fields, content_digest};
use crate::{Engine, EngineError};

/// Records read at once while looking for those that meet a filter.
const PAGE: usize = 512;
/// Records that one page of a listing looks at before it ends with fewer than it might have.
const LOOKED_AT_MAX: usize = 16_384;
/// Points whose records are looked up at once.
const OWNERS: usize = 4096;
/// Records that are deleted in one batch.
const DELETED_AT_ONCE: usize = 256;

/// What becomes of the attributes of a record.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AttributeChange {
    /// Whether attributes that are not in `values` go.
    pub replace: bool,
    /// Attributes by name; `None` for one that is to go.
    pub values: BTreeMap<String, Option<AttributeValue>>,
}

/// A page of records.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordPage {
    /// In key order.
    pub records: Vec<StoredRecord>,
    /// Where the next page begins, after this key; `None` when there is none.
    pub next: Option<Key>,
}

/// What became of a change of attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changed {
    /// Updated, or unchanged.
    pub outcome: Outcome,
    /// The record's new place in the order of writes; `None` when it was not changed.
    pub seq: Option<u64>,
}

/// How many records meet a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// So many.
    pub records: u64,
    /// Why a condition meets no record, such as a name that no record has.
    pub notes: Vec<String>,
}

/// What a deletion by filter did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deletion {
    /// Records deleted, also by earlier runs under the same request id.
    pub deleted: u64,
    /// Whether it was told to stop before it was through.
    pub stopped: bool,
}

impl Engine {
    /// Reads up to `limit` records in key order that meet a filter, if there is one, beginning after a
    /// key. A page may hold fewer and still not be the last.
    ///
    /// # Errors
    /// [`EngineError::CollectionNotFound`], or when the store cannot be read.
    pub fn list_page(
        &self,
        collection: &CollectionName,
        after: Option<&Key>,
        limit: usize,
        filter: Option<&Filter>,
    ) -> Result<RecordPage, EngineError> {
        let space = self.space(collection)?;
        let mut records: Vec<StoredRecord> = Vec::new();
        let mut after = after.cloned();
        let mut looked_at = 0;
        loop {
            // One more than wanted tells whether there is a next page.
            let wanted = if filter.is_some() { PAGE } else { limit + 1 };
            let page = self.store.list(space.collection.id, after.as_ref(), wanted)?;
            let last = page.len() < wanted;
            for stored in page {
                looked_at += 1;
                let key = stored.record.key().clone();
                if filter.is_none_or(|filter| filter.matches(stored.record.attributes())) {
                    if records.len() == limit {
                        return Ok(RecordPage { records, next: after });
                    }
                    records.push(stored);
                }
                after = Some(key);
            }
            if last {
                return Ok(RecordPage { records, next: None });
            }
            if looked_at >= LOOKED_AT_MAX {
                return Ok(RecordPage { records, next: after });
            }
        }
    }

    /// Whether no record of a collection has changed since everything up to `seq` had been written.
    ///
    /// # Errors
    /// [`EngineError::CollectionNotFound`], or when the store cannot be read.
    pub fn unchanged_since(&self, collection: &CollectionName, seq: u64) -> Result<bool, EngineError> {
        let space = self.space(collection)?;
        Ok(self.store.unchanged_since(space.collection.id, seq)?)
    }

    /// Counts the records that meet a filter, or all.
    ///
    /// # Errors
    /// [`EngineError::CollectionNotFound`], or when the store cannot be read.
    pub fn count(
        &self,
        collection: &CollectionName,
        filter: Option<&Filter>,
    ) -> Result<Counted, EngineError> {
        let space = self.space(collection)?;
        let Some(filter) = filter else {
            let records = self.store.stats(space.collection.id)?.records;
            return Ok(Counted { records, notes: Vec::new() });
        };
        let attributes = space.attributes(&self.store)?;
        let notes = attributes.matching(filter, Modality::Image).notes.clone();
        Ok(Counted { records: attributes.count(Some(filter), Target::Both), notes })
    }

    /// Counts the values of attributes over the records with parts of the target that meet a filter, or
    /// all.
    ///
    /// # Errors
    /// [`EngineError::CollectionNotFound`], [`diptych_core::QueryError::Facets`], or when the store cannot be
    /// read.
    pub fn facets(
        &self,
        collection: &CollectionName,
        facets: &[Facet],
        filter: Option<&Filter>,
        target: Target,
    ) -> Result<Vec<FacetCounts>, EngineError> {
        if facets.is_empty() {
            return Ok(Vec::new());
        }
        Facet::check_number(facets)?;
        let space = self.space(collection)?;
        Ok(space.attributes(&self.store)?.facets(facets, filter, target))
    }

    /// Changes attributes of a record. Its parts and vectors stay, so nothing is encoded.
    ///
    /// # Errors
    /// [`EngineError::CollectionNotFound`], [`EngineError::RecordNotFound`]; [`EngineError::Schema`] or
    /// [`EngineError::Record`] when the record could not have such attributes;
    /// [`EngineError::RequestReused`].
    pub fn update_attributes(
        &self,
        collection: &CollectionName,
        key: &Key,
        change: &AttributeChange,
        request: Option<RequestId>,
    ) -> Result<Changed, EngineError> {
        let space = self.space(collection)?;
        let request =
            request.map(|id| Request { id, fingerprint: change.fingerprint(key), note: Vec::new() });
        // Alone, so that of two changes of one record the later one is the one that is found.
        let applied = space.write_alone(&self.store, || {
            if let Some(answer) = self.answered(&space, request.as_ref())? {
                return Ok(vec![answer]);
            }
            let stored = self.stored(&space, key)?;
            let mut attributes = change.apply(stored.record.attributes());
            space.collection.schema.conform(&mut attributes)?;
            let record = Record::new(key.clone(), stored.record.parts().to_vec(), attributes)?;
            let digest = content_digest(&Fields::of_record(&record));
            let update = Mutation::Update { record, digest, seq: stored.seq };
            self.write_store(&space, vec![update], Once::Each(vec![request]))
        })?;
        match applied.first() {
            Some(Applied { outcome: outcome @ (Outcome::Updated | Outcome::Unchanged), seq, .. }) => {
                Ok(Changed { outcome: *outcome, seq: *seq })
            }
            _ => Err(self.not_found(&space, key)),
        }
    }

    /// Deletes one record, once however often the request is repeated; gone from searches that start
    /// afterwards.
    ///
    /// # Errors
    /// [`EngineError::CollectionNotFound`], [`EngineError::RecordNotFound`] or
    /// [`EngineError::RequestReused`].
    pub fn delete_once(
        &self,
        collection: &CollectionName,
        key: &Key,
        request: Option<RequestId>,
    ) -> Result<(), EngineError> {
        let space = self.space(collection)?;
        let mutation = Mutation::Delete { key: key.clone() };
        let fingerprint = fingerprint(&["delete", key.as_str()]);
        let request = request.map(|id| Request { id, fingerprint, note: Vec::new() });
        let id = request.as_ref().map(|request| request.id.clone());
        let applied = space.write(&self.store, &[Vec::new()], || {
            self.write_store(&space, vec![mutation], Once::Each(vec![request]))
        })?;
        match (applied.first().map(|a| &a.outcome), id) {
            (Some(Outcome::Deleted), _) => Ok(()),
            (Some(Outcome::RequestReused), Some(id)) => Err(EngineError::RequestReused { id }),
            _ => Err(self.not_found(&space, key)),
        }
    }

    /// Deletes the records that meet a filter, in batches. After each, `go_on` hears how many were deleted
    /// and how many there were to delete, and says whether to go on. Under a request id, a run that was
    /// broken off is taken up again, and one that was completed is answered as it was.
    ///
    /// # Errors
    /// [`EngineError::CollectionNotFound`], [`EngineError::RequestReused`]; a failure to write, and then
    /// what was deleted before stays deleted.
    pub fn delete_matching(
        &self,
        collection: &CollectionName,
        filter: &Filter,
        request: Option<RequestId>,
        mut go_on: impl FnMut(u64, u64) -> bool,
    ) -> Result<Deletion, EngineError> {
        let space = self.space(collection)?;
        let fingerprint = fingerprint(&["delete-matching", &filter.to_string()]);
        let mut deleted = 0;
        if let Some(id) = &request
            && let Some(known) = self.known(&space, id, fingerprint)?
        {
            let (done, count) = read_progress(&known.note);
            if done {
                return Ok(Deletion { deleted: count, stopped: false });
            }
            deleted = count;
        }
        let before = deleted;
        let keys: Vec<Key> = self.matching_keys(&space, filter)?.into_iter().collect();
        let total = before + keys.len() as u64;
        let mut batches = keys.chunks(DELETED_AT_ONCE).peekable();
        // A step of its own when there is nothing to delete, so that this is remembered, too.
        let mut batch = batches.next().unwrap_or_default();
        loop {
            let last = batches.peek().is_none();
            let step = |deleted: u64| match &request {
                Some(id) => {
                    Once::Step(Request { id: id.clone(), fingerprint, note: progress_note(last, deleted) })
                }
                None => Once::Never,
            };
            let applied = space.write_alone(&self.store, || {
                let mutations = self.deletions(&space, batch, filter)?;
                let count = deleted + mutations.len() as u64;
                self.write_store(&space, mutations, step(count))
            })?;
            deleted += applied.len() as u64;
            let go_on = go_on(deleted, total);
            match batches.next() {
                None => return Ok(Deletion { deleted, stopped: false }),
                Some(_) if !go_on => return Ok(Deletion { deleted, stopped: true }),
                Some(next) => batch = next,
            }
        }
    }

    /// Deletions of those of some records that meet a filter now.
    fn deletions(&self, space: &Space, keys: &[Key], filter: &Filter) -> Result<Vec<Mutation>, EngineError> {
        let stored = self.store.get_many(space.collection.id, keys)?;
        let meeting = stored.into_iter().flatten().filter(|s| filter.matches(s.record.attributes()));
        Ok(meeting.map(|stored| Mutation::Delete { key: stored.record.key().clone() }).collect())
    }

    /// The keys of the records that meet a filter.
    fn matching_keys(&self, space: &Space, filter: &Filter) -> Result<BTreeSet<Key>, EngineError> {
        let mut keys = BTreeSet::new();
        let attributes = space.attributes(&self.store)?;
        for modality in Modality::ALL {
            let matching = attributes.matching(filter, modality);
            let points: Vec<PointId> = matching.points.iter().map(PointId).collect();
            for points in points.chunks(OWNERS) {
                let owners = self.store.owners(space.collection.id, points)?;
                keys.extend(owners.into_iter().flatten().map(|(key, _)| key));
            }
        }
        Ok(keys)
    }

    /// The answer to a request that was answered before.
    fn answered(&self, space: &Space, request: Option<&Request>) -> Result<Option<Applied>, EngineError> {
        let Some(Request { id, fingerprint, .. }) = request else { return Ok(None) };
        Ok(self.known(space, id, *fingerprint)?.map(|known| Applied {
            outcome: known.outcome,
            seq: known.seq,
            added: Vec::new(),
            removed: Vec::new(),
            kept: Vec::new(),
            repeated: Some(known.note),
        }))
    }

    /// What is remembered of a request.
    ///
    /// # Errors
    /// [`EngineError::RequestReused`] when it asked for something else.
    pub(crate) fn known(
        &self,
        space: &Space,
        id: &RequestId,
        fingerprint: Digest,
    ) -> Result<Option<Remembered>, EngineError> {
        match self.store.request(space.collection.id, id)? {
            Some(known) if known.fingerprint != fingerprint => {
                Err(EngineError::RequestReused { id: id.clone() })
            }
            known => Ok(known),
        }
    }

    fn stored(&self, space: &Space, key: &Key) -> Result<StoredRecord, EngineError> {
        self.store.get(space.collection.id, key)?.ok_or_else(|| self.not_found(space, key))
    }

    fn not_found(&self, space: &Space, key: &Key) -> EngineError {
        EngineError::RecordNotFound { key: key.clone(), collection: space.collection.name.to_string() }
    }
}

impl AttributeChange {
    fn apply(&self, old: &Attributes) -> Attributes {
        let mut attributes = if self.replace { Attributes::new() } else { old.clone() };
        for (name, value) in &self.values {
            match value {
                Some(value) => attributes.insert(name.clone(), value.clone()),
                None => attributes.remove(name),
            };
        }
        attributes
    }

    fn fingerprint(&self, key: &Key) -> Digest {
        let given = self.values.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?)));
        let given: Attributes = given.collect();
        let gone = self.values.iter().filter(|(_, value)| value.is_none()).map(|(name, _)| name.as_str());
        let mut texts = vec![if self.replace { "replace" } else { "update" }, key.as_str()];
        texts.extend(gone);
        content_digest(&Fields { texts, attributes: Some(&given), ..Fields::default() })
    }
}

/// A digest of what a request asks for, in words.
fn fingerprint(words: &[&str]) -> Digest {
    content_digest(&Fields { texts: words.to_vec(), ..Fields::default() })
}

/// How far a deletion is, as its request is remembered: whether it is through, and what it deleted.
fn progress_note(done: bool, deleted: u64) -> Vec<u8> {
    [[u8::from(done)].as_slice(), &deleted.to_le_bytes()].concat()
}

fn read_progress(note: &[u8]) -> (bool, u64) {
    let deleted = note.get(1..9).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
    (note.first() == Some(&1), deleted)
}
