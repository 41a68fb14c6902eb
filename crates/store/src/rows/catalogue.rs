//! The rows of collections and of requests, as `rows` says of all.

use std::collections::BTreeMap;
use std::sync::Arc;

use diptych_core::{AttributeSchema, AttributeType, CollectionName, Digest, ModelId, Time};
use serde::{Deserialize, Serialize};

use super::{ROW_FORMAT, decode, encode};
use crate::StoreError;
use crate::requests::Name;
use crate::values::{Collection, Outcome, Remembered};

/// First byte of collections with a schema or a time of creation.
const DESCRIBED_FORMAT: u8 = 2;

pub(crate) fn encode_collection(collection: &Collection) -> Vec<u8> {
    let Collection { id, name: _, model_id, dim, created, schema } = collection;
    let row = CollectionRow { id: *id, model_id: model_id.0.0, dim: *dim };
    if created.is_none() && **schema == AttributeSchema::default() {
        return encode(ROW_FORMAT, &row);
    }
    let created = created.map(|time| (time.seconds(), time.nanos()));
    let types = schema.types().iter().map(|(name, &of)| (name.clone(), type_byte(of))).collect();
    encode(DESCRIBED_FORMAT, &(row, DescriptionRow { created, types, open: schema.is_open() }))
}

/// Joins a collection with the name it lay under.
pub(crate) fn decode_collection(name: &[u8], row: &[u8]) -> Result<Collection, StoreError> {
    let name = String::from_utf8_lossy(name).into_owned();
    let what = || format!("collection '{name}'");
    let invalid = |reason: String| StoreError::corrupt(format!("{}: {reason}", what()));
    let (row, description): (CollectionRow, _) = match row.first() {
        Some(&DESCRIBED_FORMAT) => {
            let (row, description): (_, DescriptionRow) = decode(DESCRIBED_FORMAT, row, &what)?;
            (row, Some(description))
        }
        _ => (decode(ROW_FORMAT, row, &what)?, None),
    };
    let (mut created, mut schema) = (None, AttributeSchema::default());
    if let Some(found) = description {
        let time = found.created.map(|(seconds, nanos)| Time::new(seconds, nanos)).transpose();
        created = time.map_err(|e| invalid(e.to_string()))?;
        let types = found.types.into_iter().map(|(name, byte)| Some((name, type_of(byte)?)));
        let types: Option<BTreeMap<String, AttributeType>> = types.collect();
        let types = types.ok_or_else(|| invalid("an attribute has no known type".to_owned()))?;
        schema = AttributeSchema::new(types, found.open).map_err(|e| invalid(e.to_string()))?;
    }
    let (model_id, schema) = (ModelId(Digest(row.model_id)), Arc::new(schema));
    let name = CollectionName::new(name.clone()).map_err(|e| StoreError::corrupt(e.to_string()))?;
    Ok(Collection { id: row.id, name, model_id, dim: row.dim, created, schema })
}

fn type_byte(of: AttributeType) -> u8 {
    match of {
        AttributeType::String => 0,
        AttributeType::List => 1,
        AttributeType::Integer => 2,
        AttributeType::Float => 3,
        AttributeType::Bool => 4,
        AttributeType::Time => 5,
    }
}

fn type_of(byte: u8) -> Option<AttributeType> {
    AttributeType::ALL.into_iter().find(|&of| type_byte(of) == byte)
}

pub(crate) fn encode_request(name: &Name, remembered: &Remembered) -> Vec<u8> {
    let Remembered { fingerprint, outcome, seq, note } = remembered;
    let row = RequestRow {
        collection: name.0,
        id: name.1.clone(),
        fingerprint: fingerprint.0,
        outcome: outcome_byte(*outcome),
        seq: *seq,
        note: note.clone(),
    };
    encode(ROW_FORMAT, &row)
}

/// The name a request lay under, and what is remembered of it.
pub(crate) fn decode_request(row: &[u8], number: u64) -> Result<(Name, Remembered), StoreError> {
    let row: RequestRow = decode(ROW_FORMAT, row, &|| format!("request {number}"))?;
    let RequestRow { collection, id, fingerprint, outcome, seq, note } = row;
    let outcome = outcome_of(outcome)
        .ok_or_else(|| StoreError::corrupt(format!("request {number} has outcome {outcome}")))?;
    Ok(((collection, id), Remembered { fingerprint: Digest(fingerprint), outcome, seq, note }))
}

fn outcome_byte(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Created => 0,
        Outcome::Updated => 1,
        Outcome::Unchanged => 2,
        Outcome::Deleted => 3,
        Outcome::NotFound => 4,
        Outcome::AlreadyExists => 5,
        Outcome::Stale => 6,
        Outcome::RequestReused => 7,
    }
}

/// The outcomes that are remembered.
fn outcome_of(byte: u8) -> Option<Outcome> {
    let remembered = [Outcome::Created, Outcome::Updated, Outcome::Unchanged, Outcome::Deleted];
    remembered.into_iter().find(|&outcome| outcome_byte(outcome) == byte)
}

/// A value of the `collections` family.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct CollectionRow {
    id: u32,
    model_id: [u8; 32],
    dim: u32,
}

/// What follows a [`CollectionRow`] in the described format.
#[derive(Debug, Serialize, Deserialize)]
struct DescriptionRow {
    /// Seconds since 1970, and nanoseconds.
    created: Option<(i64, u32)>,
    /// Attributes by name, and the bytes of their types.
    types: Vec<(String, u8)>,
    open: bool,
}

/// A value of the `meta` family under `request/`.
#[derive(Debug, Serialize, Deserialize)]
struct RequestRow {
    collection: u32,
    id: String,
    fingerprint: [u8; 32],
    outcome: u8,
    seq: Option<u64>,
    note: Vec<u8>,
}
