//! How things lie on disk: column families, key encodings, value encodings, version. These bytes are
//! a contract; a change that an older program would misread needs a new [`FORMAT_VERSION`].
//!
//! Integers in keys are big-endian, so that byte order is number order. Vectors are bare little-endian
//! `f32`. The other values are rows, see `rows`. No database and no files here.
//!
//! | family | key | value |
//! |---|---|---|
//! | meta | `version` | u32 big-endian |
//! | meta | `marks` | three u64 big-endian: batch, seq, next point |
//! | meta | `stats/` collection u32 | row |
//! | meta | `request/` number u64 | row |
//! | collections | name | row |
//! | collections | 0x00 `next` | 0x02, u32 big-endian: no collection gets a smaller id |
//! | records | collection u32, key | row |
//! | points | collection u32, point u64 | row |
//! | vectors | collection u32, modality u8, point u64 | f32 little-endian, `dim` of them |
//! | thumbnails | collection u32, point u64 | JPEG file |
//! | journal | seq u64 | row |

use diptych_core::{Embedding, Key, Modality, PointId};

use crate::StoreError;

/// Version of everything on disk. A directory of another version is refused.
pub const FORMAT_VERSION: u32 = 1;

/// The column families.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Meta,
    Collections,
    Records,
    Points,
    Vectors,
    Thumbnails,
    Journal,
}

impl Family {
    pub(crate) const ALL: [Self; 7] = [
        Self::Meta,
        Self::Collections,
        Self::Records,
        Self::Points,
        Self::Vectors,
        Self::Thumbnails,
        Self::Journal,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Collections => "collections",
            Self::Records => "records",
            Self::Points => "points",
            Self::Vectors => "vectors",
            Self::Thumbnails => "thumbnails",
            Self::Journal => "journal",
        }
    }
}

pub(crate) const VERSION_KEY: &[u8] = b"version";
pub(crate) const MARKS_KEY: &[u8] = b"marks";
pub(crate) const REQUEST_PREFIX: &[u8] = b"request/";
/// Written when a collection is deleted, so that its id is not given out again. No name begins with
/// such a byte; a program that does not know of deletions takes it for a collection of a format that it
/// does not know, and so refuses the directory.
pub(crate) const NEXT_COLLECTION_KEY: &[u8] = b"\0next";
const NEXT_COLLECTION_FORMAT: u8 = 2;

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

pub(crate) fn request_key(number: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(REQUEST_PREFIX);
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}

pub(crate) fn parse_request_key(bytes: &[u8]) -> Option<u64> {
    let number = bytes.strip_prefix(REQUEST_PREFIX)?;
    (number.len() == 8).then(|| be64(number))
}

pub(crate) fn encode_next_collection(next: u32) -> [u8; 5] {
    let [a, b, c, d] = next.to_be_bytes();
    [NEXT_COLLECTION_FORMAT, a, b, c, d]
}

pub(crate) fn decode_next_collection(bytes: &[u8]) -> Result<u32, StoreError> {
    match bytes {
        [NEXT_COLLECTION_FORMAT, next @ ..] if next.len() == 4 => Ok(be32(next)),
        _ => Err(StoreError::corrupt(format!("the next collection's id is {bytes:02x?}"))),
    }
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

pub(crate) fn modality_of(byte: u8) -> Option<Modality> {
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
    // False for NaN too.
    let unit = (square - 1.0).abs() <= 1e-5;
    if !unit {
        return Err(StoreError::corrupt(format!(
            "the vector of point {} has norm {:.6} instead of 1",
            point.0,
            square.sqrt()
        )));
    }
    Embedding::new(values)
        .map_err(|e| StoreError::corrupt(format!("the vector of point {} is invalid: {e}", point.0)))
}
