//! The one place where encoding, index and store meet.
//!
//! Owns the two hallways of data: records in (prepare, encode, store, index, acknowledge) and
//! queries through (encode, nearest, roll up to records, fetch). The store is the truth; an index is
//! a cache of it, loaded when first needed and thrown away freely.
//! Deliberately absent: async, wire types, models (the engine sees only [`diptych_core::Encode`]).

mod attributes;
mod backup;
mod bulk;
mod cache;
mod chunks;
mod classify;
mod collections;
mod encoding;
mod engine;
mod error;
mod import;
mod lexical;
mod maintain;
mod parallel;
mod points;
mod queue;
mod recall;
mod records;
mod relevance;
mod search;
mod sets;
mod shelf;
mod space;
mod verify;
mod write;

pub use backup::{ExportPage, Exported, Snapshot};
pub use bulk::{BulkCounts, BulkItem, BulkOptions, Failure};
pub use cache::{CacheStats, QueryEmbedding};
pub use chunks::TextCounts;
pub use classify::{Classified, Label};
pub use collections::CollectionInfo;
pub use encoding::EncodeThread;
pub use engine::{Engine, EngineOptions, IndexKind, Overview, TextTotals};
pub use error::EngineError;
pub use import::{NewVectors, VectorRecord};
pub use maintain::{Care, Cared, IndexReport, Rebuilt, Taught, care_for};
pub use parallel::{Ordered, ordered_map};
pub use queue::{QueueLimits, Urgency};
pub use recall::{Direction, Estimate, QueryKind, RecallOptions, RecallReport};
pub use records::{AttributeChange, Changed, Counted, Deletion, RecordPage};
pub use relevance::{Calibration, RelevanceReport, Reliability, ReliabilityBin};
pub use search::{Found, LexicalMatch, SearchOutcome, SearchTimes};
pub use sets::{PartMatch, SetHit, SetOutcome, SetPart};
pub use shelf::Opening;
pub use verify::{VerifyReport, verify};
pub use write::{NewImage, NewRecord, Written};

pub use diptych_index::{IndexStats, Plan};
pub use diptych_store::{Outcome, PutMode, StoredRecord};
