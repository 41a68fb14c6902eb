//! Records that come with their vectors: stored as they are, without the model.
//!
//! Owns: whether vectors fit their record, and what decides that such a record is stored already.
//! Deliberately absent: where they come from.

use std::collections::HashMap;

use diptych_core::{CollectionName, Digest, Embedding, EmbeddingError, ModelId, Part, PartRef, Record};
use diptych_store::PutMode;

use crate::write::{Fields, Write, content_digest};
use crate::{Engine, EngineError, TextCounts, Written};

/// The vectors of a record: one for each image, text and chunk of a long text, in any order.
pub type NewVectors = Vec<(PartRef, Vec<f32>)>;

/// A record as it comes in with its vectors.
#[derive(Debug, Clone, PartialEq)]
pub struct VectorRecord {
    /// The record.
    pub record: Record,
    /// Its vectors; scaled to unit norm.
    pub vectors: NewVectors,
    /// What the vectors are said to be of, in hexadecimal digits.
    pub model_id: String,
}

impl Engine {
    /// Stores records with the vectors that they come with, in the order given; each gets its own answer.
    /// As [`Engine::ingest`], but that nothing is encoded. A record whose content is stored already is left
    /// as it is, with the vectors that it has.
    ///
    /// # Errors
    /// The outer error when nothing could be written at all. Of one record: [`EngineError::ForeignVectors`],
    /// [`EngineError::Vectors`], [`EngineError::Schema`].
    pub fn import(
        &self,
        collection: &CollectionName,
        records: Vec<VectorRecord>,
        mode: PutMode,
    ) -> Result<Vec<Result<Written, EngineError>>, EngineError> {
        let model_id = self.encoder().model_id();
        let foreign = |record: &VectorRecord| check_model(&record.model_id, model_id).err();
        // A collection is not created for what does not get into it.
        if records.iter().all(|record| foreign(record).is_some()) {
            return Ok(records.iter().filter_map(foreign).map(Err).collect());
        }
        let space = self.space_or_create(collection)?;
        let dim = space.collection.dim as usize;
        let mut writes = Vec::with_capacity(records.len());
        let (mut images, mut texts) = (Vec::new(), Vec::new());
        // Of each record, why it is refused; `None` for one that is written.
        let mut refused = Vec::with_capacity(records.len());
        for VectorRecord { record, vectors, model_id: said } in records {
            let checked = check_model(&said, model_id).and_then(|()| {
                let mut attributes = record.attributes().clone();
                space.collection.schema.conform(&mut attributes)?;
                let record = Record::new(record.key().clone(), record.parts().to_vec(), attributes)?;
                let vectors = fitting(&record, vectors, dim)?;
                Ok((record, vectors))
            });
            refused.push(match checked {
                Err(error) => Some(error),
                Ok((record, vectors)) => {
                    let digest = import_digest(&record, &vectors);
                    let mut counts = TextCounts::default();
                    for part in record.parts() {
                        if let Part::Text(text) = part {
                            counts.count(text, !text.chunk_ends.is_empty());
                        }
                    }
                    for ((_, part), vector) in record.part_refs().zip(vectors) {
                        match part {
                            Part::Image(_) => images.push(vector),
                            Part::Text(_) => texts.push(vector),
                        }
                    }
                    let thumbnails = Vec::new();
                    writes.push(Write { record, digest, thumbnails, texts: counts, request: None });
                    None
                }
            });
        }
        let mut written = self.store_records(&space, writes, images, texts, mode)?.into_iter();
        let answer = |refused: Option<EngineError>| match refused {
            Some(error) => Err(error),
            None => written.next().expect("an answer per write"),
        };
        Ok(refused.into_iter().map(answer).collect())
    }
}

fn check_model(said: &str, model_id: ModelId) -> Result<(), EngineError> {
    if said == model_id.to_string() {
        return Ok(());
    }
    let found = match said.chars().take(64).collect::<String>() {
        said if said.is_empty() => "that is not named".to_owned(),
        said => said,
    };
    Err(EngineError::ForeignVectors { found, expected: model_id })
}

/// The vectors in the order of the record's parts.
fn fitting(record: &Record, vectors: NewVectors, dim: usize) -> Result<Vec<Embedding>, EngineError> {
    let reason = |reason: String| EngineError::Vectors { reason };
    let mut by_part = HashMap::with_capacity(vectors.len());
    for (part, values) in vectors {
        if by_part.insert(part, values).is_some() {
            return Err(reason(format!("there are two for {part}; send one")));
        }
    }
    let mut ordered = Vec::with_capacity(by_part.len());
    for (part, _) in record.part_refs() {
        let values = by_part
            .remove(&part)
            .ok_or_else(|| reason(format!("there is none for {part}; send one for each part")))?;
        if values.len() != dim {
            return Err(reason(format!(
                "that of {part} has {} dimensions, the collection's model has {dim}; embed with that model",
                values.len()
            )));
        }
        let embedding = Embedding::new(values)
            .map_err(|error: EmbeddingError| reason(format!("that of {part}: {error}")))?;
        ordered.push(embedding);
    }
    match by_part.keys().min() {
        Some(part) => {
            Err(reason(format!("there is one for {part}, which the record does not have; leave it out")))
        }
        None => Ok(ordered),
    }
}

/// The digest that the same record gets when it is ingested. Where an image has no digest of its file, its
/// vector counts in its place.
fn import_digest(record: &Record, vectors: &[Embedding]) -> Digest {
    let mut fields = Fields::of_record(record);
    for ((_, digest), vector) in fields.images.iter_mut().zip(vectors_of_images(record, vectors)) {
        if *digest == Digest([0; 32]) {
            let mut hasher = blake3::Hasher::new();
            for value in vector.as_slice() {
                hasher.update(&value.to_le_bytes());
            }
            *digest = Digest(*hasher.finalize().as_bytes());
        }
    }
    content_digest(&fields)
}

fn vectors_of_images<'a>(record: &Record, vectors: &'a [Embedding]) -> impl Iterator<Item = &'a Embedding> {
    let images = record.part_refs().map(|(_, part)| matches!(part, Part::Image(_)));
    images.zip(vectors).filter(|(image, _)| *image).map(|(_, vector)| vector)
}
