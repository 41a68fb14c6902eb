//! Records with their vectors.

use diptych_core::{CollectionName, Digest, ImagePart, Modality, Part, PartRef, Record, TextPart};
use diptych_engine::{Exported, NewVectors, PutMode, VectorRecord};
use diptych_proto::convert::{attributes_from_wire, part_ref_from_wire, part_ref_to_wire};
use diptych_proto::v1 as wire;
use tonic::Status;

use super::record::{mode_from_wire, record_to_wire};
use super::{collection_from_wire, key_from_wire, refused, vector_to_wire};

/// The digest of an image whose file is not known.
const NO_DIGEST: Digest = Digest([0; 32]);

pub(crate) fn exported_to_wire(exported: Exported) -> wire::VectorRecord {
    let vectors = exported.vectors.into_iter().map(|vector| wire::PartVector {
        r#ref: Some(part_ref_to_wire(vector.part)),
        vector: Some(vector_to_wire(vector.embedding)),
    });
    wire::VectorRecord { vectors: vectors.collect(), record: Some(record_to_wire(exported.stored)) }
}

/// A record with its vectors, for the wire.
pub fn vector_record_to_wire(record: &Record, vectors: NewVectors) -> wire::VectorRecord {
    let vectors = vectors.into_iter().map(|(part, values)| wire::PartVector {
        r#ref: Some(part_ref_to_wire(part)),
        vector: Some(wire::Vector { values }),
    });
    wire::VectorRecord {
        vectors: vectors.collect(),
        record: Some(super::record::plain_record_to_wire(record, 0)),
    }
}

/// A record of the wire with its vectors, none of which is looked at.
///
/// # Errors
/// `INVALID_ARGUMENT` naming what is missing or wrong.
pub fn vector_record_from_wire(given: wire::VectorRecord) -> Result<(Record, NewVectors), Status> {
    let Some(record) = given.record else {
        return Err(Status::invalid_argument("the item has no record; set it"));
    };
    let record = record_from_wire(record)?;
    let vector = |given: wire::PartVector| match given {
        wire::PartVector { r#ref: Some(part), vector: Some(vector) } => {
            Ok((part_ref_from_wire(part)?, vector.values))
        }
        _ => Err(Status::invalid_argument("a vector lacks its ref or its values; set both")),
    };
    Ok((record, given.vectors.into_iter().map(vector).collect::<Result<_, _>>()?))
}

pub(crate) fn import_from_wire(
    item: wire::ImportRequest,
) -> Result<(CollectionName, PutMode, VectorRecord), Status> {
    let mode = mode_from_wire(item.mode)?;
    let collection = collection_from_wire(item.collection)?;
    let given = item.record.ok_or_else(|| Status::invalid_argument("the item has no record; set it"))?;
    let (record, vectors) = vector_record_from_wire(given)?;
    Ok((collection, mode, VectorRecord { record, vectors, model_id: item.model_id }))
}

fn record_from_wire(record: wire::Record) -> Result<Record, Status> {
    let key = key_from_wire(record.key)?;
    let mut next = [0u32; 2];
    let mut parts = Vec::with_capacity(record.parts.len());
    for part in record.parts {
        let (named, part) = part_from_wire(part)?;
        let ordinal = &mut next[part.modality() as usize];
        // A place that is not named is the next one.
        if named.is_some_and(|named| named != *ordinal) {
            return Err(Status::invalid_argument(format!(
                "the parts of '{key}' are not in order: {}:{ordinal} is missing; send all parts, in order",
                part.modality()
            )));
        }
        *ordinal += 1;
        parts.push(part);
    }
    Record::new(key, parts, attributes_from_wire(record.attributes)?).map_err(refused)
}

fn part_from_wire(part: wire::Part) -> Result<(Option<u32>, Part), Status> {
    use wire::part::Content;
    let named = part.r#ref.map(part_ref_from_wire).transpose()?;
    let content = match part.content {
        Some(Content::Image(image)) => Part::Image(image_from_wire(image)?),
        Some(Content::Text(text)) => Part::Text(text_from_wire(text)?),
        None => return Err(Status::invalid_argument("a part has no content; set its image or its text")),
    };
    let wrong = |named: &PartRef| named.modality != content.modality() || named.chunk.is_some();
    match named {
        Some(named) if wrong(&named) => Err(Status::invalid_argument(format!(
            "a part that is called {named} is another one; name whole images and texts"
        ))),
        named => Ok((named.map(|named| named.ordinal), content)),
    }
}

fn image_from_wire(image: wire::ImagePart) -> Result<ImagePart, Status> {
    let digest = match image.digest.len() {
        0 => NO_DIGEST,
        _ => Digest(image.digest.as_slice().try_into().map_err(|_| {
            Status::invalid_argument(format!(
                "the digest of an image has {} bytes; send the 32 of BLAKE3, or none",
                image.digest.len()
            ))
        })?),
    };
    Ok(ImagePart { source: image.source, digest, width: image.width, height: image.height })
}

fn text_from_wire(text: wire::TextPart) -> Result<TextPart, Status> {
    let max = diptych_core::limits::TEXT_BYTES_MAX;
    if text.text.len() > max {
        return Err(Status::invalid_argument(format!(
            "a text has {} bytes, more than {max}; shorten it",
            text.text.len()
        )));
    }
    if text.text.trim().is_empty() {
        return Err(Status::invalid_argument(format!("a {} is empty; leave it out", Modality::Text)));
    }
    let mut start = 0;
    for chunk in &text.chunks {
        if chunk.start != start {
            return Err(Status::invalid_argument(format!(
                "a chunk of a text begins at byte {}, and the one before ends at {start}; divide the text without gaps",
                chunk.start
            )));
        }
        start = chunk.end;
    }
    let chunk_ends = text.chunks.iter().map(|chunk| chunk.end).collect();
    Ok(TextPart { text: text.text, truncated_tokens: text.truncated_tokens, chunk_ends })
}
