//! Records, their parts and attributes, and what became of writes.

use std::ops::Range;

use diptych_core::{Chunking, CollectionName, Part, PartRef, Record, RequestId, TextPart};
use diptych_engine::{NewImage, NewRecord, Outcome, PutMode, StoredRecord, Written};
use diptych_proto::convert::{attributes_from_wire, attributes_to_wire, part_ref_to_wire};
use diptych_proto::v1 as wire;
use tonic::Status;

use super::collection::request_id_from_wire;
use super::{collection_from_wire, key_from_wire};

pub(super) fn part_to_wire(part_ref: PartRef, part: Option<&Part>) -> wire::Part {
    use wire::part::Content;
    let content = part.map(|part| match part {
        Part::Image(image) => Content::Image(wire::ImagePart {
            source: image.source.clone(),
            digest: image.digest.0.to_vec(),
            width: image.width,
            height: image.height,
        }),
        Part::Text(text) => Content::Text(text_to_wire(part_ref, text)),
    });
    wire::Part { r#ref: Some(part_ref_to_wire(part_ref)), content }
}

/// A chunk for itself, with its place; a whole text with the places of its chunks.
fn text_to_wire(part_ref: PartRef, text: &TextPart) -> wire::TextPart {
    let span = |range: Range<usize>| {
        let offset = |at| u32::try_from(at).expect("a text has at most TEXT_BYTES_MAX bytes");
        wire::TextSpan { start: offset(range.start), end: offset(range.end) }
    };
    let truncated_tokens = text.truncated_tokens;
    match part_ref.chunk.and_then(|n| text.chunk(n)) {
        Some(range) => wire::TextPart {
            text: text.text[range.clone()].to_owned(),
            truncated_tokens,
            span: Some(span(range)),
            chunks: Vec::new(),
        },
        None => wire::TextPart {
            text: text.text.clone(),
            truncated_tokens,
            span: None,
            chunks: (0..).map_while(|n| text.chunk(n)).map(span).collect(),
        },
    }
}

pub(crate) fn record_to_wire(stored: StoredRecord) -> wire::Record {
    plain_record_to_wire(&stored.record, stored.seq)
}

pub(super) fn plain_record_to_wire(record: &Record, seq: u64) -> wire::Record {
    wire::Record {
        key: record.key().to_string(),
        parts: record.whole_parts().map(|(part_ref, part)| part_to_wire(part_ref, Some(part))).collect(),
        attributes: attributes_to_wire(record.attributes()),
        seq,
    }
}

/// A record, and the id of the request to store it if that has one.
pub(crate) type Once = (NewRecord, Option<RequestId>);

pub(super) fn mode_from_wire(mode: i32) -> Result<PutMode, Status> {
    match wire::WriteMode::try_from(mode) {
        Ok(wire::WriteMode::Unspecified | wire::WriteMode::Upsert) => Ok(PutMode::Upsert),
        Ok(wire::WriteMode::Insert) => Ok(PutMode::InsertOnly),
        Err(_) => Err(Status::invalid_argument(format!(
            "mode {mode} is unknown; use WRITE_MODE_UPSERT or WRITE_MODE_INSERT"
        ))),
    }
}

fn chunking_from_wire(chunking: i32) -> Result<Chunking, Status> {
    match wire::TextChunking::try_from(chunking) {
        Ok(wire::TextChunking::Unspecified | wire::TextChunking::Context) => Ok(Chunking::Context),
        Ok(wire::TextChunking::Sentences) => Ok(Chunking::Sentences),
        Err(_) => Err(Status::invalid_argument(format!(
            "chunking {chunking} is unknown; use TEXT_CHUNKING_CONTEXT or TEXT_CHUNKING_SENTENCES"
        ))),
    }
}

pub(crate) fn ingest_from_wire(item: wire::IngestRequest) -> Result<(CollectionName, PutMode, Once), Status> {
    let mode = mode_from_wire(item.mode)?;
    let images = item.images.into_iter().map(|i| NewImage { bytes: i.data, source: i.source }).collect();
    let record = NewRecord {
        key: key_from_wire(item.key)?,
        images,
        texts: item.texts,
        chunking: chunking_from_wire(item.chunking)?,
        attributes: attributes_from_wire(item.attributes)?,
    };
    let id = request_id_from_wire(item.request_id)?;
    Ok((collection_from_wire(item.collection)?, mode, (record, id)))
}

pub(crate) fn outcome_to_wire(outcome: Outcome) -> wire::WriteOutcome {
    match outcome {
        Outcome::Created => wire::WriteOutcome::Created,
        Outcome::Updated => wire::WriteOutcome::Updated,
        Outcome::Unchanged => wire::WriteOutcome::Unchanged,
        Outcome::Deleted
        | Outcome::NotFound
        | Outcome::AlreadyExists
        | Outcome::Stale
        | Outcome::RequestReused => wire::WriteOutcome::Unspecified,
    }
}

pub(crate) fn written_to_wire(key: String, written: &Written) -> wire::IngestResponse {
    wire::IngestResponse {
        key,
        outcome: outcome_to_wire(written.outcome) as i32,
        error: None,
        truncated_tokens: small(written.texts.truncated_tokens),
        split_texts: small(written.texts.split),
        text_chunks: small(written.texts.chunks),
        truncated_texts: small(written.texts.truncated),
    }
}

/// A count of one record, which its bounds keep far below this one.
fn small(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

pub(crate) fn ingest_error(key: String, status: &Status) -> wire::IngestResponse {
    wire::IngestResponse {
        key,
        outcome: wire::WriteOutcome::Unspecified as i32,
        error: Some(wire::ItemError { code: status.code() as i32, message: status.message().to_owned() }),
        ..wire::IngestResponse::default()
    }
}
