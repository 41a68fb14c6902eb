//! Why the engine refuses or fails. One variant per thing a caller can do about it.

use diptych_core::{
    EmbeddingError, EncodeError, FilterError, Key, NameError, PartRef, QueryError, RecordError, RequestId,
    SchemaError,
};
use diptych_index::IndexError;
use diptych_lexical::LexicalError;
use diptych_store::StoreError;

/// What can go wrong between a request and its answer.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// An image or text cannot be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// A query parameter is out of range.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// A filter is incomplete or out of bounds.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// A vector is no direction in the shared space.
    #[error(transparent)]
    Embedding(#[from] EmbeddingError),
    /// A record is incomplete or out of bounds.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Attributes that the collection's schema does not allow, or a schema that is none.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// A key or collection name is refused.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The vector is of another space.
    #[error(
        "the vector has {found} dimensions, but the model of this collection has {expected}; embed with that model"
    )]
    Dimension {
        /// Dimensions of the collection.
        expected: usize,
        /// Dimensions of the vector.
        found: usize,
    },
    /// A composed query that comes to nothing.
    #[error("the terms of the query cancel each other out; drop one, or give them other weights")]
    Cancelled,
    /// Labels that cannot be told apart, or cannot be asked for.
    #[error("{reason}")]
    Labels {
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A least relevance where none can be told.
    #[error(
        "how relevant a score from {from} to {to} is cannot be told: the collection has fewer than \
         {} records that show it, with parts of both kinds; leave min_relevance out",
        crate::relevance::QUESTIONS_MIN
    )]
    NotCalibrated {
        /// What the query is.
        from: crate::QueryKind,
        /// What it searches.
        to: diptych_core::Modality,
    },
    /// No such collection.
    #[error("there is no collection '{name}'; {}", existing_collections(.existing))]
    CollectionNotFound {
        /// What was asked for.
        name: String,
        /// What there is.
        existing: Vec<String>,
    },
    /// It was deleted while the request was in work.
    #[error("collection '{name}' has just been deleted; create it again to use it")]
    CollectionDeleted {
        /// The collection.
        name: String,
    },
    /// The name is taken.
    #[error(
        "collection '{name}' exists; describe it to see what it is, delete it first, or use another name"
    )]
    CollectionExists {
        /// The collection.
        name: String,
    },
    /// Another request with the same id was answered before.
    #[error(
        "the request id '{id}' belongs to another request to this collection; give each request its own id"
    )]
    RequestReused {
        /// The id.
        id: RequestId,
    },
    /// No such record.
    #[error("there is no record '{key}' in collection '{collection}'; list its records to see the keys")]
    RecordNotFound {
        /// What was asked for.
        key: Key,
        /// Where.
        collection: String,
    },
    /// The record has no such part.
    #[error("record '{key}' has no part {part}; read the record to see its parts")]
    PartNotFound {
        /// The record.
        key: Key,
        /// The part asked for.
        part: PartRef,
    },
    /// Insert-only write on an existing key.
    #[error("record '{key}' exists with other content; upsert to replace it, or use another key")]
    AlreadyExists {
        /// The key.
        key: Key,
    },
    /// An item of a bulk source cannot be read.
    #[error("{reason}")]
    Source {
        /// Why, and what to do.
        reason: String,
    },
    /// A bounded queue is full.
    #[error("the server is busy: {what}; retry after a short, growing pause")]
    Overloaded {
        /// Which bound was reached.
        what: String,
    },
    /// One backup at a time.
    #[error("another backup is being read; wait until it has ended, or end it")]
    BackupRunning,
    /// Vectors that do not belong to the parts of their record.
    #[error("the vectors do not fit the record: {reason}")]
    Vectors {
        /// Which part, and what is wrong.
        reason: String,
    },
    /// Vectors of another model.
    #[error(
        "the vectors are of model {found}, and this collection's are of {expected}; embed the originals with that model"
    )]
    ForeignVectors {
        /// What they are said to be of.
        found: String,
        /// The engine's model.
        expected: diptych_core::ModelId,
    },
    /// The engine is being closed.
    #[error("the server is shutting down; retry on the next one")]
    Closed,
    /// The words to search by are none, or their index failed.
    #[error(transparent)]
    Lexical(#[from] LexicalError),
    /// The index refused or failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The store refused or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn existing_collections(existing: &[String]) -> String {
    if existing.is_empty() {
        "there are none yet: ingest something first".to_owned()
    } else {
        format!("there are: {}", existing.join(", "))
    }
}
