//! Requests of the wire to core, and answers back: a file for each kind of message, names here. What a client needs too
//! is in `diptych_proto::convert`.

mod backup;
mod cases;
mod classify;
mod collection;
mod facet;
mod mask;
mod record;
mod search;
mod stats;

use diptych_core::{CollectionName, Embedding, Key};
use diptych_engine::EngineError;
use diptych_proto::v1 as wire;
use tonic::Status;

pub(crate) use backup::{exported_to_wire, import_from_wire};
pub use backup::{vector_record_from_wire, vector_record_to_wire};
pub(crate) use cases::{draft_from_wire, draft_to_wire, similar_from_wire, similar_to_wire};
pub(crate) use classify::{ClassifyCall, classified_to_wire, classify_from_wire};
pub(crate) use collection::{
    changed_to_wire, collection_to_wire, collection_token_from_wire, request_id_from_wire, update_from_wire,
};
pub(crate) use diptych_proto::convert::{filter_from_wire, schema_from_wire};
pub(crate) use facet::facets_from_wire;
pub(crate) use mask::read_mask_from_wire;
pub(crate) use record::{
    Once, ingest_error, ingest_from_wire, outcome_to_wire, record_to_wire, written_to_wire,
};
pub(crate) use search::{SearchCall, replay_from_wire, replayed, search_from_wire, search_to_wire};
pub use stats::index_to_wire;
pub(crate) use stats::overview_to_wire;

use crate::status;

pub(crate) fn collection_from_wire(name: String) -> Result<CollectionName, Status> {
    if name.is_empty() { Ok(CollectionName::default()) } else { CollectionName::new(name).map_err(refused) }
}

/// The name of a collection that must be named.
pub(crate) fn named_collection_from_wire(name: String) -> Result<CollectionName, Status> {
    CollectionName::new(name).map_err(refused)
}

pub(crate) fn key_from_wire(key: String) -> Result<Key, Status> {
    Key::new(key).map_err(refused)
}

fn refused(error: impl Into<EngineError>) -> Status {
    status::from_engine(&error.into())
}

/// The key after which a page starts; tokens are opaque to clients.
pub(crate) fn page_token_from_wire(token: &str) -> Result<Option<Key>, Status> {
    if token.is_empty() {
        return Ok(None);
    }
    let bytes: Option<Vec<u8>> = token
        .as_bytes()
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok()))
        .collect();
    bytes
        .filter(|_| token.len().is_multiple_of(2))
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .and_then(|key| Key::new(key).ok())
        .map(Some)
        .ok_or_else(|| {
            Status::invalid_argument("the page token is not one of this server's; start without one")
        })
}

pub(crate) fn page_token_to_wire(last: &Key) -> String {
    last.as_str().bytes().map(|b| format!("{b:02x}")).collect()
}

pub(crate) fn vector_to_wire(embedding: Embedding) -> wire::Vector {
    wire::Vector { values: embedding.into_vec() }
}
