//! What goes into the store and what comes out, as plain values. No bytes, no database.

use std::collections::BTreeSet;
use std::sync::Arc;

use diptych_core::limits::THUMBNAIL_BYTES_MAX;
use diptych_core::{
    AttributeSchema, CollectionName, Digest, Embedding, Key, Modality, ModelId, PartRef, PointId, Record,
    RequestId, Time,
};

/// A set of records whose vectors all come from one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collection {
    /// Short name used in every key on disk; never given out twice.
    pub id: u32,
    /// The name its users know.
    pub name: CollectionName,
    /// The model all its vectors come from.
    pub model_id: ModelId,
    /// Dimensions of that model.
    pub dim: u32,
    /// When it was created, by the clock of who created it; `None` when that was not written down.
    pub created: Option<Time>,
    /// What its records' attributes are. The store keeps it, and does not hold records against it.
    pub schema: Arc<AttributeSchema>,
}

/// A collection to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCollection {
    /// The name its users know.
    pub name: CollectionName,
    /// The model all its vectors come from.
    pub model_id: ModelId,
    /// Dimensions of that model.
    pub dim: u32,
    /// What time it is.
    pub created: Option<Time>,
    /// What its records' attributes are.
    pub schema: AttributeSchema,
}

/// What to do when the key is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutMode {
    /// Replace the record and all its points.
    Upsert,
    /// Leave it alone and answer [`Outcome::AlreadyExists`].
    InsertOnly,
}

/// One change to one record.
#[derive(Debug, Clone, PartialEq)]
pub enum Mutation {
    /// Store a record.
    Put {
        /// The record.
        record: Record,
        /// One unit vector for each part, in any order.
        vectors: Vec<(PartRef, Embedding)>,
        /// Small pictures of its images, as JPEG files, where there are any; in any order.
        thumbnails: Vec<(PartRef, Vec<u8>)>,
        /// Digest over everything that decides the record and its vectors. A record whose digest is
        /// already stored is left alone, so that a repeated ingestion costs nothing.
        digest: Digest,
        /// What to do when the key is taken.
        mode: PutMode,
    },
    /// Give a record other attributes. Its parts, points and vectors stay as they are.
    Update {
        /// The record with its new attributes and the parts that it has.
        record: Record,
        /// As of [`Mutation::Put`], with the new attributes.
        digest: Digest,
        /// Journal number of the change that made the record what it was when it was read. When there
        /// was a later one, the record is left alone; the answer is [`Outcome::Stale`].
        seq: u64,
    },
    /// Remove a record with all its points.
    Delete {
        /// The record's key.
        key: Key,
    },
}

impl Mutation {
    /// The key of the record it changes.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { record, .. } | Self::Update { record, .. } => record.key(),
            Self::Delete { key } => key,
        }
    }

    /// A put must bring exactly one vector of the right dimension for each part.
    pub(crate) fn check(&self, dim: u32) -> Result<(), String> {
        let Self::Put { record, vectors, thumbnails, .. } = self else { return Ok(()) };
        let wanted: BTreeSet<PartRef> = record.part_refs().map(|(part, _)| part).collect();
        let mut given = BTreeSet::new();
        for (part, embedding) in vectors {
            if !wanted.contains(part) {
                return Err(format!(
                    "there is a vector for {part}, which the record does not have; leave it out"
                ));
            }
            if !given.insert(*part) {
                return Err(format!("there are two vectors for {part}; send one"));
            }
            if embedding.dim() != dim as usize {
                return Err(format!(
                    "the vector for {part} has {} dimensions, the collection has {dim}; use the collection's model",
                    embedding.dim()
                ));
            }
        }
        for (part, jpeg) in thumbnails {
            if part.modality != Modality::Image || !wanted.contains(part) {
                return Err(format!("there is a small picture for {part}, which is no image of the record"));
            }
            if jpeg.len() > THUMBNAIL_BYTES_MAX {
                return Err(format!(
                    "the small picture of {part} has {} bytes, more than {THUMBNAIL_BYTES_MAX}; make it smaller",
                    jpeg.len()
                ));
            }
        }
        match wanted.difference(&given).next() {
            Some(part) => Err(format!("there is no vector for {part}; send one for each part")),
            None => Ok(()),
        }
    }

    /// Bytes of all its vectors and small pictures.
    pub(crate) fn content_bytes(&self) -> usize {
        match self {
            Self::Put { vectors, thumbnails, .. } => {
                let vectors: usize = vectors.iter().map(|(_, embedding)| embedding.dim() * 4).sum();
                vectors + thumbnails.iter().map(|(_, jpeg)| jpeg.len()).sum::<usize>()
            }
            Self::Update { .. } | Self::Delete { .. } => 0,
        }
    }
}

/// What became of one change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The key was free; the record is stored.
    Created,
    /// The record replaced another one.
    Updated,
    /// A record with the same digest was there already.
    Unchanged,
    /// The record is gone.
    Deleted,
    /// There was nothing to delete.
    NotFound,
    /// The key is taken by a record with another digest, and the mode was [`PutMode::InsertOnly`].
    AlreadyExists,
    /// The record has changed since it was read.
    Stale,
    /// Another request had the same id; nothing was done.
    RequestReused,
}

/// The durable effect of one change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// What became of it.
    pub outcome: Outcome,
    /// Its place in the journal; `None` when nothing changed.
    pub seq: Option<u64>,
    /// Points that exist now, in the order of the record's parts.
    pub added: Vec<(PartRef, PointId)>,
    /// Points that no longer exist. Their ids are never given out again.
    pub removed: Vec<(PartRef, PointId)>,
    /// Points whose record has other attributes now, and which are otherwise as they were.
    pub kept: Vec<(PartRef, PointId)>,
    /// When the request had been answered before: the note that it was remembered with. `outcome` and
    /// `seq` are those of then, and nothing was done now.
    pub repeated: Option<Vec<u8>>,
}

impl Applied {
    pub(crate) fn nothing(outcome: Outcome) -> Self {
        Self { outcome, seq: None, added: Vec::new(), removed: Vec::new(), kept: Vec::new(), repeated: None }
    }
}

/// A request that is to be done once, however often it is repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// By which it is recognised within its collection.
    pub id: RequestId,
    /// A digest of what it asks for: another one under the same id is a mistake.
    pub fingerprint: Digest,
    /// Kept for the answer to a repetition; its meaning is the caller's.
    pub note: Vec<u8>,
}

/// A request that was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// What it asked for.
    pub fingerprint: Digest,
    /// What became of it.
    pub outcome: Outcome,
    /// The journal number of its change, if there was one.
    pub seq: Option<u64>,
    /// What it was remembered with.
    pub note: Vec<u8>,
}

/// How the requests behind the changes of one call are remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Once {
    /// They are not.
    Never,
    /// Each change may be a request of its own, which is not done when it was done before.
    Each(Vec<Option<Request>>),
    /// The call is one step of a request, and takes the place of what was remembered of it.
    Step(Request),
}

/// A record as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRecord {
    /// The record.
    pub record: Record,
    /// The digest it was stored with.
    pub digest: Digest,
    /// Journal number of its last change.
    pub seq: u64,
    /// Its points, in the order of its parts.
    pub points: Vec<(PartRef, PointId)>,
}

/// One part's point and its unit vector.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordVector {
    /// The part.
    pub part: PartRef,
    /// Its point.
    pub point: PointId,
    /// Its vector.
    pub embedding: Embedding,
}

/// One line of the journal: what happened to one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// 1 for the first change ever, then without gaps, over all collections.
    pub seq: u64,
    /// Collection of the record.
    pub collection: u32,
    /// Key of the record.
    pub key: Key,
    /// Points that came into being.
    pub added: Vec<(PartRef, PointId)>,
    /// Points that ceased to be.
    pub removed: Vec<(PartRef, PointId)>,
}

/// Exact counts of one collection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records.
    pub records: u64,
    /// Image parts, each with one point.
    pub image_points: u64,
    /// Text parts, each with one point; of a text in chunks, the chunks.
    pub text_points: u64,
    /// Texts of which some tokens are in no vector.
    pub truncated_texts: u64,
}

/// What the store as a whole has done and takes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of all files in the store's directory.
    pub disk_bytes: u64,
    /// Journal number of the last change.
    pub last_seq: u64,
    /// Synced batches written since the store was opened.
    pub batches: u64,
    /// Calls to [`crate::Store::write`] answered by those batches.
    pub writes: u64,
}
