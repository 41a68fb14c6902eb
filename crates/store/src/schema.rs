//! How things lie on disk: column families, key encodings, value encodings, version. These bytes are
//! a contract; a change that an older program would misread needs a new [`FORMAT_VERSION`].
//!
//! Integers in keys are big-endian, so that byte order is number order. Rows are one format byte
//! followed by postcard; vectors are bare little-endian `f32`. No database and no files here.
//!
//! | family | key | value |
//! |---|---|---|
//! | meta | `version` | u32 big-endian |
//! | meta | `marks` | three u64 big-endian: batch, seq, next point |
//! | meta | `stats/` collection u32 | [`StatsRow`] |
//! | collections | name | [`CollectionRow`] |
//! | records | collection u32, key | [`RecordRow`] |
//! | points | collection u32, point u64 | [`PointRow`] |
//! | vectors | collection u32, modality u8, point u64 | f32 little-endian, `dim` of them |
//! | journal | seq u64 | [`JournalRow`] |

use diptych_core::{
    AttributeValue, Attributes, Digest, Embedding, ImagePart, Key, Modality, Part, PartRef, PointId, Record,
    TextPart,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::StoreError;
use crate::values::{Entry, Stats, StoredRecord};

/// Version of everything on disk. A directory of another version is refused.
pub const FORMAT_VERSION: u32 = 1;

/// First byte of every row, so that a single kind of row can change later without the others.
const ROW_FORMAT: u8 = 1;

/// The column families.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Meta,
    Collections,
    Records,
    Points,
    Vectors,
    Journal,
}

impl Family {
    pub(crate) const ALL: [Self; 6] =
        [Self::Meta, Self::Collections, Self::Records, Self::Points, Self::Vectors, Self::Journal];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Collections => "collections",
            Self::Records => "records",
            Self::Points => "points",
            Self::Vectors => "vectors",
            Self::Journal => "journal",
        }
    }
}

pub(crate) const VERSION_KEY: &[u8] = b"version";
pub(crate) const MARKS_KEY: &[u8] = b"marks";

/// The high-water marks. They change in the same batch as the data they count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// Batches ever committed.
    pub(crate) batch: u64,
    /// Journal number of the last change.
    pub(crate) seq: u64,
    /// Id of the next point.
    pub(crate) next_point: u64,
}

impl Marks {
    pub(crate) fn encode(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.batch.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.seq.to_be_bytes());
        bytes[16..].copy_from_slice(&self.next_point.to_be_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let bytes: [u8; 24] = bytes.try_into().map_err(|_| {
            StoreError::corrupt(format!("the marks have {} bytes instead of 24", bytes.len()))
        })?;
        Ok(Self { batch: be64(&bytes[..8]), seq: be64(&bytes[8..16]), next_point: be64(&bytes[16..]) })
    }
}

fn be64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |n, &b| n << 8 | u64::from(b))
}

fn be32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |n, &b| n << 8 | u32::from(b))
}

// Keys.

pub(crate) fn stats_key(collection: u32) -> Vec<u8> {
    [b"stats/".as_slice(), &collection.to_be_bytes()].concat()
}

pub(crate) fn record_key(collection: u32, key: &str) -> Vec<u8> {
    [&collection.to_be_bytes(), key.as_bytes()].concat()
}

pub(crate) fn parse_record_key(bytes: &[u8]) -> Option<(u32, Key)> {
    let (collection, key) = bytes.split_at_checked(4)?;
    let key = Key::new(std::str::from_utf8(key).ok()?).ok()?;
    Some((be32(collection), key))
}

pub(crate) fn point_key(collection: u32, point: PointId) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&collection.to_be_bytes());
    key[4..].copy_from_slice(&point.0.to_be_bytes());
    key
}

pub(crate) fn parse_point_key(bytes: &[u8]) -> Option<(u32, PointId)> {
    (bytes.len() == 12).then(|| (be32(&bytes[..4]), PointId(be64(&bytes[4..]))))
}

pub(crate) fn modality_byte(modality: Modality) -> u8 {
    match modality {
        Modality::Image => 0,
        Modality::Text => 1,
    }
}

fn modality_of(byte: u8) -> Option<Modality> {
    match byte {
        0 => Some(Modality::Image),
        1 => Some(Modality::Text),
        _ => None,
    }
}

pub(crate) fn vector_key(collection: u32, modality: Modality, point: PointId) -> [u8; 13] {
    let mut key = [0; 13];
    key[..4].copy_from_slice(&collection.to_be_bytes());
    key[4] = modality_byte(modality);
    key[5..].copy_from_slice(&point.0.to_be_bytes());
    key
}

pub(crate) fn parse_vector_key(bytes: &[u8]) -> Option<(u32, Modality, PointId)> {
    (bytes.len() == 13).then_some(())?;
    Some((be32(&bytes[..4]), modality_of(bytes[4])?, PointId(be64(&bytes[5..]))))
}

pub(crate) fn journal_key(seq: u64) -> [u8; 8] {
    seq.to_be_bytes()
}

pub(crate) fn parse_journal_key(bytes: &[u8]) -> Option<u64> {
    (bytes.len() == 8).then(|| be64(bytes))
}

/// The first key after all keys that begin with `prefix`; `None` when there is no such key.
pub(crate) fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&b| b != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

// Vectors.

pub(crate) fn encode_vector(embedding: &Embedding) -> Vec<u8> {
    embedding.as_slice().iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Reads a vector back and checks it as strictly as when it came in: right dimension, unit norm.
pub(crate) fn decode_vector(bytes: &[u8], dim: u32, point: PointId) -> Result<Embedding, StoreError> {
    if bytes.len() != dim as usize * 4 {
        return Err(StoreError::corrupt(format!(
            "the vector of point {} has {} bytes, {} are right for {dim} dimensions",
            point.0,
            bytes.len(),
            dim as usize * 4
        )));
    }
    let values: Vec<f32> =
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    let square: f64 = values.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
    // NaN fails this comparison too.
    if !((square - 1.0).abs() <= 1e-5) {
        return Err(StoreError::corrupt(format!(
            "the vector of point {} has norm {:.6} instead of 1",
            point.0,
            square.sqrt()
        )));
    }
    Embedding::new(values)
        .map_err(|e| StoreError::corrupt(format!("the vector of point {} is invalid: {e}", point.0)))
}

// Rows.

/// A value of the `collections` family.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CollectionRow {
    pub(crate) id: u32,
    pub(crate) model_id: [u8; 32],
    pub(crate) dim: u32,
}

/// A value of the `meta` family under `stats/`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StatsRow {
    records: u64,
    image_points: u64,
    text_points: u64,
    truncated_texts: u64,
}

/// A value of the `points` family: the part that a point stands for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PointRow {
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
pub(crate) struct RecordRow {
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
pub(crate) struct JournalRow {
    collection: u32,
    key: String,
    added: Vec<PartPoint>,
    removed: Vec<PartPoint>,
}

pub(crate) fn encode<T: Serialize>(row: &T) -> Vec<u8> {
    postcard::to_extend(row, vec![ROW_FORMAT]).expect("rows are plain values, which always serialise")
}

/// Reads a row; `what` names it in the error.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8], what: &dyn Fn() -> String) -> Result<T, StoreError> {
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

impl StatsRow {
    pub(crate) fn new(stats: &Stats) -> Self {
        let Stats { records, image_points, text_points, truncated_texts } = *stats;
        Self { records, image_points, text_points, truncated_texts }
    }

    pub(crate) fn stats(self) -> Stats {
        let Self { records, image_points, text_points, truncated_texts } = self;
        Stats { records, image_points, text_points, truncated_texts }
    }
}

impl PointRow {
    pub(crate) fn new(key: &Key, part: PartRef) -> Self {
        Self { key: key.as_str().to_owned(), modality: modality_byte(part.modality), ordinal: part.ordinal }
    }

    pub(crate) fn owner(self, point: PointId) -> Result<(Key, PartRef), StoreError> {
        let invalid = |reason: String| StoreError::corrupt(format!("the row of point {}: {reason}", point.0));
        let key = Key::new(self.key).map_err(|e| invalid(e.to_string()))?;
        let modality =
            modality_of(self.modality).ok_or_else(|| invalid(format!("modality {}", self.modality)))?;
        Ok((key, PartRef { modality, ordinal: self.ordinal }))
    }
}

impl RecordRow {
    pub(crate) fn new(record: &Record, digest: Digest, seq: u64, points: &[(PartRef, PointId)]) -> Self {
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
    pub(crate) fn record(self, key: Key) -> Result<StoredRecord, StoreError> {
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

    pub(crate) fn digest(&self) -> Digest {
        Digest(self.digest)
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
    pub(crate) fn new(
        collection: u32,
        key: &Key,
        added: &[(PartRef, PointId)],
        removed: &[(PartRef, PointId)],
    ) -> Self {
        let rows = |points: &[(PartRef, PointId)]| {
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

    pub(crate) fn entry(self, seq: u64) -> Result<Entry, StoreError> {
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
