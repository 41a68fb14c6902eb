//! The values that are rows: one format byte followed by postcard, of the plain structs below. Field
//! order, types and the order of enum variants are a contract, like all of `schema`. Reading a row
//! checks it as strictly as the value was checked when it came in. Keys are not made here. Records,
//! points and the journal are here; collections and requests, in `rows/catalogue`.
//!
//! Rows that speak of chunks of long texts have a format of their own. All others are written as they
//! always were, so that only a store with such texts is closed to programs that do not know them. So it
//! is with records that have times, and with collections that have a schema or a time of creation.

mod catalogue;

use diptych_core::{
    AttributeValue, Attributes, Digest, ImagePart, Key, Part, PartRef, PointId, Record, TextPart, Time,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::StoreError;
use crate::schema::{modality_byte, modality_of, parse_journal_key};
use crate::values::{Entry, Stats, StoredRecord};

pub(crate) use catalogue::{decode_collection, decode_request, encode_collection, encode_request};

/// First byte of every row, so that a single kind of row can change later without the others.
const ROW_FORMAT: u8 = 1;
/// First byte of records, points and journal entries with chunks.
const CHUNKED_FORMAT: u8 = 2;
/// First byte of records with times, with or without chunks.
const TIMED_FORMAT: u8 = 3;

/// A point of a part.
type Point = (PartRef, PointId);

pub(crate) fn encode_stats(stats: &Stats) -> Vec<u8> {
    let Stats { records, image_points, text_points, truncated_texts } = *stats;
    encode(ROW_FORMAT, &StatsRow { records, image_points, text_points, truncated_texts })
}

pub(crate) fn decode_stats(row: &[u8], collection: u32) -> Result<Stats, StoreError> {
    let StatsRow { records, image_points, text_points, truncated_texts } =
        decode(ROW_FORMAT, row, &|| format!("the counters of collection {collection}"))?;
    Ok(Stats { records, image_points, text_points, truncated_texts })
}

/// `points` are those of the record, in the order of its parts.
pub(crate) fn encode_record(record: &Record, digest: Digest, seq: u64, points: &[Point]) -> Vec<u8> {
    // Chunks only add a kind of part, and times one of attribute, so all formats have the same fields.
    let chunked = record.parts().iter().any(|part| matches!(part, Part::Text(t) if !t.chunk_ends.is_empty()));
    let timed = record.attributes().values().any(|value| matches!(value, AttributeValue::Time(_)));
    let format = match (timed, chunked) {
        (true, _) => TIMED_FORMAT,
        (false, true) => CHUNKED_FORMAT,
        (false, false) => ROW_FORMAT,
    };
    encode(format, &RecordRow::new(record, digest, seq, points))
}

/// Joins a record with the key it lay under.
pub(crate) fn decode_record(row: &[u8], key: Key) -> Result<StoredRecord, StoreError> {
    decode_record_row(row, &key)?.record(key)
}

pub(crate) fn decode_digest(row: &[u8], key: &Key) -> Result<Digest, StoreError> {
    Ok(Digest(decode_record_row(row, key)?.digest))
}

fn decode_record_row(row: &[u8], key: &Key) -> Result<RecordRow, StoreError> {
    let format = if row.first() == Some(&TIMED_FORMAT) { TIMED_FORMAT } else { format_of(row) };
    decode(format, row, &|| format!("record '{key}'"))
}

pub(crate) fn encode_owner(key: &Key, part: PartRef) -> Vec<u8> {
    let key = key.as_str().to_owned();
    let row = PointRow { key, modality: modality_byte(part.modality), ordinal: part.ordinal };
    match part.chunk {
        None => encode(ROW_FORMAT, &row),
        Some(chunk) => encode(CHUNKED_FORMAT, &(row, chunk)),
    }
}

/// The record and part that a point stands for.
pub(crate) fn decode_owner(row: &[u8], point: PointId) -> Result<(Key, PartRef), StoreError> {
    let what = || format!("the row of point {}", point.0);
    let invalid = |reason: String| StoreError::corrupt(format!("{}: {reason}", what()));
    let (row, chunk): (PointRow, _) = match format_of(row) {
        CHUNKED_FORMAT => decode(CHUNKED_FORMAT, row, &what).map(|(row, chunk)| (row, Some(chunk)))?,
        _ => (decode(ROW_FORMAT, row, &what)?, None),
    };
    let key = Key::new(row.key).map_err(|e| invalid(e.to_string()))?;
    let modality = modality_of(row.modality).ok_or_else(|| invalid(format!("modality {}", row.modality)))?;
    Ok((key, PartRef { modality, ordinal: row.ordinal, chunk }))
}

pub(crate) fn encode_entry(collection: u32, key: &Key, added: &[Point], removed: &[Point]) -> Vec<u8> {
    if added.iter().chain(removed).any(|(part, _)| part.chunk.is_some()) {
        encode(CHUNKED_FORMAT, &JournalRow::<ChunkPoint>::new(collection, key, added, removed))
    } else {
        encode(ROW_FORMAT, &JournalRow::<PartPoint>::new(collection, key, added, removed))
    }
}

/// Joins a journal entry with the key it lay under.
pub(crate) fn decode_entry(key: &[u8], row: &[u8]) -> Result<Entry, StoreError> {
    let seq = parse_journal_key(key)
        .ok_or_else(|| StoreError::corrupt(format!("a journal entry lies under the key {key:02x?}")))?;
    let what = || format!("journal entry {seq}");
    match format_of(row) {
        CHUNKED_FORMAT => decode::<JournalRow<ChunkPoint>>(CHUNKED_FORMAT, row, &what)?.entry(seq),
        _ => decode::<JournalRow<PartPoint>>(ROW_FORMAT, row, &what)?.entry(seq),
    }
}

/// A value of the `meta` family under `stats/`.
#[derive(Debug, Serialize, Deserialize)]
struct StatsRow {
    records: u64,
    image_points: u64,
    text_points: u64,
    truncated_texts: u64,
}

/// A value of the `points` family: the part that a point stands for. A chunk's number follows it.
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

/// A [`PartPoint`] that may be a chunk's.
#[derive(Debug, Serialize, Deserialize)]
struct ChunkPoint {
    modality: u8,
    ordinal: u32,
    chunk: Option<u32>,
    point: u64,
}

/// A value of the `records` family. Points are in the order of the parts and their chunks, so that the
/// `n`-th point belongs to the `n`-th of those.
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
    Image {
        source: String,
        digest: [u8; 32],
        width: u32,
        height: u32,
    },
    Text {
        text: String,
        truncated_tokens: u32,
    },
    /// Only in the chunked format.
    ChunkedText {
        text: String,
        truncated_tokens: u32,
        chunk_ends: Vec<u32>,
    },
}

#[derive(Debug, Serialize, Deserialize)]
enum AttributeRow {
    String(String),
    List(Vec<String>),
    Integer(i64),
    Float(f64),
    Bool(bool),
    /// Only in the timed format.
    Time {
        seconds: i64,
        nanos: u32,
    },
}

/// A value of the `journal` family.
#[derive(Debug, Serialize, Deserialize)]
struct JournalRow<P> {
    collection: u32,
    key: String,
    added: Vec<P>,
    removed: Vec<P>,
}

fn encode<T: Serialize>(format: u8, row: &T) -> Vec<u8> {
    postcard::to_extend(row, vec![format]).expect("rows are plain values, which always serialise")
}

/// The format that a row of two formats is to be read in.
fn format_of(bytes: &[u8]) -> u8 {
    if bytes.first() == Some(&CHUNKED_FORMAT) { CHUNKED_FORMAT } else { ROW_FORMAT }
}

/// Reads a row of one format; `what` names it in the error.
fn decode<T: DeserializeOwned>(
    expected: u8,
    bytes: &[u8],
    what: &dyn Fn() -> String,
) -> Result<T, StoreError> {
    let Some((&format, body)) = bytes.split_first() else {
        return Err(StoreError::corrupt(format!("{} is empty", what())));
    };
    if format != expected {
        return Err(StoreError::corrupt(format!("{} has row format {format}, expected {expected}", what())));
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
        let parts = self.parts.into_iter().map(PartRow::part).collect();
        let invalid =
            |reason: String| StoreError::corrupt(format!("record '{key}' is no longer valid: {reason}"));
        let attributes = self.attributes.into_iter().map(|(name, value)| Ok((name, value.value()?)));
        let attributes: Attributes = attributes.collect::<Result<_, _>>().map_err(invalid)?;
        let record = Record::new(key.clone(), parts, attributes).map_err(|e| invalid(e.to_string()))?;
        let found = (record.part_refs().count(), self.points.len());
        if found.0 != found.1 {
            return Err(StoreError::corrupt(format!(
                "record '{key}' has {} parts but {} points",
                found.0, found.1
            )));
        }
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
            Part::Text(TextPart { text, truncated_tokens, chunk_ends }) => {
                let (text, truncated_tokens) = (text.clone(), *truncated_tokens);
                if chunk_ends.is_empty() {
                    Self::Text { text, truncated_tokens }
                } else {
                    Self::ChunkedText { text, truncated_tokens, chunk_ends: chunk_ends.clone() }
                }
            }
        }
    }

    fn part(self) -> Part {
        match self {
            Self::Image { source, digest, width, height } => {
                Part::Image(ImagePart { source, digest: Digest(digest), width, height })
            }
            Self::Text { text, truncated_tokens } => Part::Text(TextPart::whole(text, truncated_tokens)),
            Self::ChunkedText { text, truncated_tokens, chunk_ends } => {
                Part::Text(TextPart { text, truncated_tokens, chunk_ends })
            }
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
            AttributeValue::Time(v) => Self::Time { seconds: v.seconds(), nanos: v.nanos() },
        }
    }

    fn value(self) -> Result<AttributeValue, String> {
        Ok(match self {
            Self::String(v) => AttributeValue::String(v),
            Self::List(v) => AttributeValue::List(v),
            Self::Integer(v) => AttributeValue::Integer(v),
            Self::Float(v) => AttributeValue::Float(v),
            Self::Bool(v) => AttributeValue::Bool(v),
            Self::Time { seconds, nanos } => {
                AttributeValue::Time(Time::new(seconds, nanos).map_err(|e| e.to_string())?)
            }
        })
    }
}

/// A point as one of the two formats of the journal writes it.
trait JournalPoint: Sized {
    fn from_point(point: &Point) -> Self;
    /// Modality byte, ordinal, chunk and point.
    fn fields(self) -> (u8, u32, Option<u32>, u64);
}

impl JournalPoint for PartPoint {
    fn from_point(&(part, point): &Point) -> Self {
        Self { modality: modality_byte(part.modality), ordinal: part.ordinal, point: point.0 }
    }

    fn fields(self) -> (u8, u32, Option<u32>, u64) {
        (self.modality, self.ordinal, None, self.point)
    }
}

impl JournalPoint for ChunkPoint {
    fn from_point(&(part, point): &Point) -> Self {
        let PartRef { modality, ordinal, chunk } = part;
        Self { modality: modality_byte(modality), ordinal, chunk, point: point.0 }
    }

    fn fields(self) -> (u8, u32, Option<u32>, u64) {
        (self.modality, self.ordinal, self.chunk, self.point)
    }
}

impl<P: JournalPoint> JournalRow<P> {
    fn new(collection: u32, key: &Key, added: &[Point], removed: &[Point]) -> Self {
        let rows = |points: &[Point]| points.iter().map(P::from_point).collect();
        Self { collection, key: key.as_str().to_owned(), added: rows(added), removed: rows(removed) }
    }

    fn entry(self, seq: u64) -> Result<Entry, StoreError> {
        let invalid = |reason: String| StoreError::corrupt(format!("journal entry {seq}: {reason}"));
        let points = |rows: Vec<P>| {
            rows.into_iter()
                .map(|row| {
                    let (modality, ordinal, chunk, point) = row.fields();
                    let modality =
                        modality_of(modality).ok_or_else(|| invalid(format!("modality {modality}")))?;
                    Ok((PartRef { modality, ordinal, chunk }, PointId(point)))
                })
                .collect::<Result<Vec<_>, StoreError>>()
        };
        let key = Key::new(self.key).map_err(|e| invalid(e.to_string()))?;
        let (added, removed) = (points(self.added)?, points(self.removed)?);
        Ok(Entry { seq, collection: self.collection, key, added, removed })
    }
}
