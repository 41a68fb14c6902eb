//! The vocabulary of Diptych as pure values.
//!
//! Owns: what a key, a part, a record, an embedding, a query, a filter and a hit are, and which of them
//! are valid. Values check themselves once, in their constructor, and stay valid from then on.
//! Deliberately absent: I/O, async, threads, serialisation formats. Those belong to the crates that
//! store, send or compute these values.

pub mod calendar;
mod embedding;
mod encode;
mod facet;
mod filter;
pub mod limits;
mod part;
mod query;
mod record;
mod request;
mod schema;
mod sentence;
mod time;
mod zero_shot;

pub use embedding::{Embedding, EmbeddingError};
pub use encode::{Encode, EncodeError, HashEncoder, ModelId, PreparedImage, PreparedText};
pub use facet::{Facet, FacetCounts, FacetValue};
pub use filter::{Comparison, Condition, Filter, FilterError, FilterValue, Number};
pub use part::{Chunking, Digest, ImagePart, Modality, Part, PartRef, PointId, TextPart};
pub use query::{
    Effort, Fusion, Hit, Lexical, Plan, Query, QueryError, QuerySource, SetQuery, Shape, Target, Term,
};
pub use record::{AttributeValue, Attributes, CollectionName, Key, NameError, Record, RecordError};
pub use request::RequestId;
pub use schema::{AttributeSchema, AttributeType, SchemaError};
pub use sentence::sentences;
pub use time::{Time, TimeError};
pub use zero_shot::{Logits, ensemble};
