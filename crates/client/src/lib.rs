//! A client of a Diptych server for programs in Rust: no model, no database, no C++.
//!
//! Owns: the connection, repetition of calls with their deadlines, streams of records and of pages, and answers as plain
//! values. Everything that a value of the vocabulary stands for is one of `diptych-core`. Deliberately absent: how the
//! server works, and where addresses, keys and certificates come from.
//!
#![doc = include_str!("../README.md")]

mod answer;
mod cases;
mod client;
mod collections;
mod error;
mod ingest;
mod operations;
mod options;
mod questions;
mod records;
mod retry;
mod search;

pub use answer::{
    Collection, CollectionStats, Embeddings, Found, Hit, LexicalMatch, Part, PartContent, Receipt, Record,
    SearchStats, Stats, TextContent,
};
pub use cases::{
    CaseMatch, Draft, DraftSentence, FindingStatus, Findings, SimilarCase, SimilarCases, SimilarTo,
};
pub use client::Client;
pub use diptych_core::{
    AttributeSchema, AttributeType, AttributeValue, Attributes, CollectionName, Facet, FacetCounts,
    FacetValue, Filter, FilterValue, Fusion, Key, Lexical, Modality, PartRef, Plan, RequestId, Target, Term,
    Time,
};
pub use error::Error;
pub use ingest::{
    IngestOptions, IngestResult, IngestStream, NewImage, NewRecord, Outcome, Stored, WriteMode,
};
pub use operations::{Operation, OperationKind};
pub use options::{Bearer, ClientOptions, Link, TlsIdentity};
pub use questions::{Classify, Replayed, Scored};
pub use records::{Count, Counted, DeleteWhere, Deletion, List, Update, Updated};
pub use retry::RetryPolicy;
pub use search::{IntoFilter, Search};
pub use tonic::Code;

/// The page of the whole interface has examples in Rust; they compile.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/api.md")]
struct ApiPage;
