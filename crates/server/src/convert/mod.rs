//! Wire to core and back, all of it: a file for each kind of message, names and small values here.

mod classify;
mod collection;
mod facet;
mod filter;
mod mask;
mod record;
mod search;
mod stats;

use diptych_core::{CollectionName, Embedding, Key, Modality, PartRef};
use diptych_engine::EngineError;
use diptych_proto::v1 as wire;
use tonic::Status;

pub(crate) use classify::{ClassifyCall, classified_to_wire, classify_from_wire};
pub(crate) use collection::{
    changed_to_wire, collection_to_wire, collection_token_from_wire, request_id_from_wire, schema_from_wire,
    update_from_wire,
};
pub use collection::{schema_to_wire, time_to_wire, type_from_wire};
pub(crate) use facet::{facets_from_wire, facets_to_wire};
pub(crate) use filter::filter_from_wire;
pub use filter::{filter_to_wire, filter_value_from_wire};
pub(crate) use mask::read_mask_from_wire;
pub(crate) use record::{Once, ingest_error, ingest_from_wire, record_to_wire, written_to_wire};
pub use record::{attributes_from_wire, attributes_to_wire};
pub use search::plan_from_wire;
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

/// A modality of the wire, if it is a known one.
pub fn modality_from_wire(modality: i32) -> Option<Modality> {
    match wire::Modality::try_from(modality) {
        Ok(wire::Modality::Image) => Some(Modality::Image),
        Ok(wire::Modality::Text) => Some(Modality::Text),
        Ok(wire::Modality::Unspecified) | Err(_) => None,
    }
}

/// A modality for the wire.
pub fn modality_to_wire(modality: Modality) -> i32 {
    match modality {
        Modality::Image => wire::Modality::Image as i32,
        Modality::Text => wire::Modality::Text as i32,
    }
}

fn required_modality(modality: i32, field: &str) -> Result<Modality, Status> {
    modality_from_wire(modality).ok_or_else(|| {
        Status::invalid_argument(format!(
            "{field} is not set to a known modality; use MODALITY_IMAGE or MODALITY_TEXT"
        ))
    })
}

fn part_ref_from_wire(part: wire::PartRef) -> Result<PartRef, Status> {
    let modality = required_modality(part.modality, "part.modality")?;
    Ok(PartRef { modality, ordinal: part.ordinal, chunk: part.chunk })
}

fn part_ref_to_wire(part: PartRef) -> wire::PartRef {
    let PartRef { modality, ordinal, chunk } = part;
    wire::PartRef { modality: modality_to_wire(modality), ordinal, chunk }
}

pub(crate) fn vector_to_wire(embedding: Embedding) -> wire::Vector {
    wire::Vector { values: embedding.into_vec() }
}
