//! The values that are rows: one format byte followed by postcard, of the plain structs below. Field
//! order, types and the order of enum variants are a contract, like all of `schema`. Reading a row
//! checks it as strictly as the value was checked when it came in. Keys are not made here.

use diptych_core::{
    AttributeValue, Attributes, CollectionName, Digest, ImagePart, Key, ModelId, Part, PartRef, PointId,
    Record, TextPart,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::StoreError;
use crate::schema::{modality_byte, modality_of, parse_journal_key};
use crate::values::{Collection, Entry, Stats, StoredRecord};

/// First byte of every row, so that a single kind of row can change later without the others.
const ROW_FORMAT: u8 = 1;

/// A point of a part.
type Point = (PartRef, PointId);

pub(crate) fn encode_collection(collection: &Collection) -> Vec<u8> {
    let Collection { id, model_id, dim, .. } = *collection;
    encode(&CollectionRow { id, model_id: model_id.0.0, dim })
}

/// Joins a collection with the name it lay under.
pub(crate) fn decode_collection(name: &[u8], row: &[u8]) -> Result<Collection, StoreError> {
    let name = String::from_utf8_lossy(name).into_owned();
    let row: CollectionRow = decode(row, &|| format!("collection '{name}'"))?;
    let name = CollectionName::new(name).map_err(|e| StoreError::corrupt(e.to_string()))?;
    Ok(Collection { id: row.id, name, model_id: ModelId(Digest(row.model_id)), dim: row.dim })
}

pub(crate) fn encode_stats(stats: &Stats) -> Vec<u8> {
    let Stats { records, image_points, text_points, truncated_texts } = *stats;
    encode(&StatsRow { records, image_points, text_points, truncated_texts })
}

pub(crate) fn decode_stats(row: &[u8], collection: u32) -> Result<Stats, StoreError> {
    let StatsRow { records, image_points, text_points, truncated_texts } =
        decode(row, &|| format!("the counters of collection {collection}"))?;
    Ok(Stats { records, image_points, text_points, truncated_texts })
}

/// `points` are those of the record, in the order of its parts.
pub(crate) fn encode_record(record: &Record, digest: Digest, seq: u64, points: &[Point]) -> Vec<u8> {
    encode(&RecordRow::new(record, digest, seq, points))
}

/// Joins a record with the key it lay under.
pub(crate) fn decode_record(row: &[u8], key: Key) -> Result<StoredRecord, StoreError> {
    decode::<RecordRow>(row, &|| format!("record '{key}'"))?.record(key)
}

pub(crate) fn decode_digest(row: &[u8], key: &Key) -> Result<Digest, StoreError> {
    Ok(Digest(decode::<RecordRow>(row, &|| format!("record '{key}'"))?.digest))
}

pub(crate) fn encode_owner(key: &Key, part: PartRef) -> Vec<u8> {
    let key = key.as_str().to_owned();
    encode(&PointRow { key, modality: modality_byte(part.modality), ordinal: part.ordinal })
}

/// The record and part that a point stands for.
pub(crate) fn decode_owner(row: &[u8], point: PointId) -> Result<(Key, PartRef), StoreError> {
    let invalid = |reason: String| StoreError::corrupt(format!("the row of point {}: {reason}", point.0));
    let row: PointRow = decode(row, &|| format!("the row of point {}", point.0))?;
    let key = Key::new(row.key).map_err(|e| invalid(e.to_string()))?;
    let modality = modality_of(row.modality).ok_or_else(|| invalid(format!("modality {}", row.modality)))?;
    Ok((key, PartRef { modality, ordinal: row.ordinal }))
}

pub(crate) fn encode_entry(collection: u32, key: &Key, added: &[Point], removed: &[Point]) -> Vec<u8> {
    encode(&JournalRow::new(collection, key, added, removed))
}

/// Joins a journal entry with the key it lay under.
pub(crate) fn decode_entry(key: &[u8], row: &[u8]) -> Result<Entry, StoreError> {
    let seq = parse_journal_key(key)
        .ok_or_else(|| StoreError::corrupt(format!("a journal entry lies under the key {key:02x?}")))?;
    decode::<JournalRow>(row, &|| format!("journal entry {seq}"))?.entry(seq)
}

/// A value of the `collections` family.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct CollectionRow {
    id: u32,
    model_id: [u8; 32],
    dim: u32,
}

/// A value of the `meta` family under `stats/`.
#[derive(Debug, Serialize, Deserialize)]
struct StatsRow {
    records: u64,
    image_points: u64,
    text_points: u64,
    truncated_texts: u64,
}

/// A value of the `points` family: the part that a point stands for.
#[derive(Debug, Serialize, Deserialize)]
struct PointRow {
    key: String,
    modality: u8,
    ordinal: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct PartPoint {
    modality: u8,
    ordinal: u32,
    point: u64,
}

/// A value of the `records` family. Points are in the order of the parts, so that the `n`-th point
/// belongs to the `n`-th part.
#[derive(Debug, Serialize, Deserialize)]
struct RecordRow {
    seq: u64,
    digest: [u8; 32],
    parts: Vec<PartRow>,
    points: Vec<u64>,
    attributes: Vec<(String, AttributeRow)>,
}

#[derive(Debug, Serialize, Deserialize)]
enum PartRow {
    Image { source: String, digest: [u8; 32], width: u32, height: u32 },
    Text { text: String, truncated_tokens: u32 },
}

#[derive(Debug, Serialize, Deserialize)]
enum AttributeRow {
    String(String),
    List(Vec<String>),
    Integer(i64),
    Float(f64),
    Bool(bool),
}

/// A value of the `journal` family.
#[derive(Debug, Serialize, Deserialize)]
struct JournalRow {
    collection: u32,
    key: String,
    added: Vec<PartPoint>,
    removed: Vec<PartPoint>,
}

fn encode<T: Serialize>(row: &T) -> Vec<u8> {
    postcard::to_extend(row, vec![ROW_FORMAT]).expect("rows are plain values, which always serialise")
}

/// Reads a row; `what` names it in the error.
fn decode<T: DeserializeOwned>(bytes: &[u8], what: &dyn Fn() -> String) -> Result<T, StoreError> {
    let Some((&format, body)) = bytes.split_first() else {
        return Err(StoreError::corrupt(format!("{} is empty", what())));
    };
    if format != ROW_FORMAT {
        return Err(StoreError::corrupt(format!(
            "{} has row format {format}, expected {ROW_FORMAT}",
            what()
        )));
    }
    match postcard::take_from_bytes(body) {
        Ok((row, [])) => Ok(row),
        Ok((_, rest)) => Err(StoreError::corrupt(format!("{} has {} bytes too many", what(), rest.len()))),
        Err(e) => Err(StoreError::corrupt(format!("{} cannot be read: {e}", what()))),
    }
}

impl RecordRow {
    fn new(record: &Record, digest: Digest, seq: u64, points: &[Point]) -> Self {
        Self {
            seq,
            digest: digest.0,
            parts: record.parts().iter().map(PartRow::new).collect(),
            points: points.iter().map(|&(_, point)| point.0).collect(),
            attributes: record
                .attributes()
                .iter()
                .map(|(name, value)| (name.clone(), AttributeRow::new(value)))
                .collect(),
        }
    }

    /// Joins the row with the key it lay under.
    fn record(self, key: Key) -> Result<StoredRecord, StoreError> {
        let found = (self.parts.len(), self.points.len());
        if found.0 != found.1 {
            return Err(StoreError::corrupt(format!(
                "record '{key}' has {} parts but {} points",
                found.0, found.1
            )));
        }
        let parts = self.parts.into_iter().map(PartRow::part).collect();
        let attributes: Attributes =
            self.attributes.into_iter().map(|(name, value)| (name, value.value())).collect();
        let record = Record::new(key.clone(), parts, attributes)
            .map_err(|e| StoreError::corrupt(format!("record '{key}' is no longer valid: {e}")))?;
        let points =
            record.part_refs().zip(&self.points).map(|((part, _), &point)| (part, PointId(point))).collect();
        Ok(StoredRecord { record, digest: Digest(self.digest), seq: self.seq, points })
    }
}

impl PartRow {
    fn new(part: &Part) -> Self {
        match part {
            Part::Image(ImagePart { source, digest, width, height }) => {
                Self::Image { source: source.clone(), digest: digest.0, width: *width, height: *height }
            }
            Part::Text(TextPart { text, truncated_tokens }) => {
                Self::Text { text: text.clone(), truncated_tokens: *truncated_tokens }
            }
        }
    }

    fn part(self) -> Part {
        match self {
            Self::Image { source, digest, width, height } => {
                Part::Image(ImagePart { source, digest: Digest(digest), width, height })
            }
            Self::Text { text, truncated_tokens } => Part::Text(TextPart { text, truncated_tokens }),
        }
    }
}

impl AttributeRow {
    fn new(value: &AttributeValue) -> Self {
        match value {
            AttributeValue::String(v) => Self::String(v.clone()),
            AttributeValue::List(v) => Self::List(v.clone()),
            AttributeValue::Integer(v) => Self::Integer(*v),
            AttributeValue::Float(v) => Self::Float(*v),
            AttributeValue::Bool(v) => Self::Bool(*v),
        }
    }

    fn value(self) -> AttributeValue {
        match self {
            Self::String(v) => AttributeValue::String(v),
            Self::List(v) => AttributeValue::List(v),
            Self::Integer(v) => AttributeValue::Integer(v),
            Self::Float(v) => AttributeValue::Float(v),
            Self::Bool(v) => AttributeValue::Bool(v),
        }
    }
}

impl JournalRow {
    fn new(collection: u32, key: &Key, added: &[Point], removed: &[Point]) -> Self {
        let rows = |points: &[Point]| {
            points
                .iter()
                .map(|&(part, point)| PartPoint {
                    modality: modality_byte(part.modality),
                    ordinal: part.ordinal,
                    point: point.0,
                })
                .collect()
        };
        Self { collection, key: key.as_str().to_owned(), added: rows(added), removed: rows(removed) }
    }

    fn entry(self, seq: u64) -> Result<Entry, StoreError> {
        let invalid = |reason: String| StoreError::corrupt(format!("journal entry {seq}: {reason}"));
        let points = |rows: Vec<PartPoint>| {
            rows.into_iter()
                .map(|row| {
                    let modality = modality_of(row.modality)
                        .ok_or_else(|| invalid(format!("modality {}", row.modality)))?;
                    Ok((PartRef { modality, ordinal: row.ordinal }, PointId(row.point)))
                })
                .collect::<Result<Vec<_>, StoreError>>()
        };
        let key = Key::new(self.key).map_err(|e| invalid(e.to_string()))?;
        let (added, removed) = (points(self.added)?, points(self.removed)?);
        Ok(Entry { seq, collection: self.collection, key, added, removed })
    }
}
