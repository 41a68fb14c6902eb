//! From new records to stored, indexed, acknowledged ones.

use diptych_core::{
    AttributeValue, Attributes, CollectionName, Digest, Embedding, Encode, ImagePart, Key, Part, PartRef,
    PreparedImage, PreparedText, Record,
};
use diptych_store::{Applied, Mutation, Outcome, PutMode};
use rayon::prelude::*;

use crate::space::Space;
use crate::{Engine, EngineError, TextCounts, Urgency, chunks};

/// An image as it comes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewImage {
    /// The encoded file.
    pub bytes: Vec<u8>,
    /// A path or name to remember it by.
    pub source: String,
}

/// A record as it comes in: content, not yet vectors.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRecord {
    /// Its name.
    pub key: Key,
    /// Its images.
    pub images: Vec<NewImage>,
    /// Its texts.
    pub texts: Vec<String>,
    /// Its attributes.
    pub attributes: Attributes,
}

/// What became of a record that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Created, updated or unchanged.
    pub outcome: Outcome,
    /// What became of its long texts; all zero when nothing was written.
    pub texts: TextCounts,
}

impl NewRecord {
    /// A digest of the content, by which a repeated write is recognised without encoding it.
    pub fn digest(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        let mut field = |tag: u8, bytes: &[u8]| {
            hasher.update(&[tag]);
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        for image in &self.images {
            field(1, image.source.as_bytes());
            field(2, blake3::hash(&image.bytes).as_bytes());
        }
        for text in &self.texts {
            field(3, text.as_bytes());
        }
        for (name, value) in &self.attributes {
            field(4, name.as_bytes());
            match value {
                AttributeValue::String(s) => field(5, s.as_bytes()),
                AttributeValue::List(items) => {
                    field(6, &(items.len() as u64).to_le_bytes());
                    items.iter().for_each(|item| field(5, item.as_bytes()));
                }
                AttributeValue::Integer(v) => field(7, &v.to_le_bytes()),
                AttributeValue::Float(v) => field(8, &v.to_bits().to_le_bytes()),
                AttributeValue::Bool(v) => field(9, &[u8::from(*v)]),
            }
        }
        Digest(*hasher.finalize().as_bytes())
    }
}

/// A record decoded and tokenised, ready for the model.
pub(crate) struct Prepared {
    record: Record,
    digest: Digest,
    images: Vec<PreparedImage>,
    /// The pieces of all texts, in order.
    texts: Vec<PreparedText>,
    counts: TextCounts,
}

impl Prepared {
    pub(crate) fn image_count(&self) -> usize {
        self.images.len()
    }

    /// Texts as given.
    pub(crate) fn text_count(&self) -> usize {
        self.record.parts().len() - self.images.len()
    }

    /// Texts and chunks of long ones.
    pub(crate) fn text_pieces(&self) -> usize {
        self.texts.len()
    }
}

/// Decodes and tokenises a record; runs on any thread.
pub(crate) fn prepare(encoder: &dyn Encode, new: NewRecord) -> Result<Prepared, EngineError> {
    let digest = new.digest();
    let mut parts = Vec::with_capacity(new.images.len() + new.texts.len());
    let mut images = Vec::with_capacity(new.images.len());
    let mut texts = Vec::with_capacity(new.texts.len());
    let mut counts = TextCounts::default();
    for image in new.images {
        let prepared = encoder.prepare_image(&image.bytes)?;
        parts.push(Part::Image(ImagePart {
            source: image.source,
            digest: Digest(*blake3::hash(&image.bytes).as_bytes()),
            width: prepared.width,
            height: prepared.height,
        }));
        images.push(prepared);
    }
    for text in new.texts {
        let (part, pieces) = chunks::prepare_text(encoder, text)?;
        Record::check_points(images.len() + texts.len() + pieces.len())?;
        counts.count(&part);
        parts.push(Part::Text(part));
        texts.extend(pieces);
    }
    Ok(Prepared { record: Record::new(new.key, parts, new.attributes)?, digest, images, texts, counts })
}

impl Engine {
    /// Stores records in the order given; each gets its own answer. A bad record does not affect
    /// the others. When this returns, what was accepted is durable and can be found.
    ///
    /// # Errors
    /// The outer error when nothing could be written at all, such as a full disk.
    pub fn ingest(
        &self,
        collection: &CollectionName,
        records: Vec<NewRecord>,
        mode: PutMode,
    ) -> Result<Vec<Result<Written, EngineError>>, EngineError> {
        let space = self.space_or_create(collection)?;
        let prepared: Vec<Result<Step, EngineError>> =
            records.into_par_iter().map(|new| self.prepare_unless_known(&space, new)).collect();
        let encoded = self.encode_steps(prepared)?;
        self.store_encoded(&space, encoded, mode)
    }

    /// Skips the work for a record that is stored with the same content already.
    pub(crate) fn prepare_unless_known(&self, space: &Space, new: NewRecord) -> Result<Step, EngineError> {
        if self.store.digest(space.collection.id, &new.key)? == Some(new.digest()) {
            return Ok(Step::Known);
        }
        prepare(self.encoder(), new).map(|p| Step::New(Box::new(p)))
    }

    /// Encodes a batch with one call per modality.
    pub(crate) fn encode_steps(&self, batch: Vec<Result<Step, EngineError>>) -> Result<Encoded, EngineError> {
        let (mut images, mut texts) = (Vec::new(), Vec::new());
        let mut writes = Vec::new();
        let mut answers = Vec::with_capacity(batch.len());
        for step in batch {
            answers.push(match step {
                Ok(Step::New(prepared)) => {
                    images.extend(prepared.images);
                    texts.extend(prepared.texts);
                    writes.push(Write {
                        record: prepared.record,
                        digest: prepared.digest,
                        texts: prepared.counts,
                    });
                    None
                }
                Ok(Step::Known) => {
                    Some(Ok(Written { outcome: Outcome::Unchanged, texts: TextCounts::default() }))
                }
                Err(error) => Some(Err(error)),
            });
        }
        let (images, texts) = self.embed(images, texts, Urgency::Ingest)?;
        Ok(Encoded { writes, images, texts, answers })
    }

    /// Writes an encoded batch as one synced group; one answer per step of the batch, in order.
    pub(crate) fn store_encoded(
        &self,
        space: &Space,
        encoded: Encoded,
        mode: PutMode,
    ) -> Result<Vec<Result<Written, EngineError>>, EngineError> {
        let Encoded { writes, images, texts, answers } = encoded;
        let mut written = self.store_records(space, writes, images, texts, mode)?.into_iter();
        let answer = |known: Option<_>| known.unwrap_or_else(|| written.next().expect("an answer per write"));
        Ok(answers.into_iter().map(answer).collect())
    }

    fn store_records(
        &self,
        space: &Space,
        writes: Vec<Write>,
        images: Vec<Embedding>,
        texts: Vec<Embedding>,
        mode: PutMode,
    ) -> Result<Vec<Result<Written, EngineError>>, EngineError> {
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        let (mut images, mut texts) = (images.into_iter(), texts.into_iter());
        let mut vectors = Vec::with_capacity(writes.len());
        let mut counts = Vec::with_capacity(writes.len());
        let mut keys = Vec::with_capacity(writes.len());
        let mutations = writes
            .into_iter()
            .map(|Write { record, digest, texts: count }| {
                let pairs: Vec<(PartRef, Embedding)> = record
                    .part_refs()
                    .map(|(part_ref, part)| {
                        let side = match part {
                            Part::Image(_) => &mut images,
                            Part::Text(_) => &mut texts,
                        };
                        (part_ref, side.next().expect("one embedding per part"))
                    })
                    .collect();
                counts.push(count);
                keys.push(record.key().clone());
                vectors.push(pairs.iter().map(|(_, e)| e.clone()).collect());
                Mutation::Put { record, vectors: pairs, digest, mode }
            })
            .collect();
        let applied = space.write(&self.store, &vectors, || self.write_store(space, mutations))?;
        Ok(applied.into_iter().zip(counts).zip(keys).map(|((a, t), key)| self.written(a, t, key)).collect())
    }

    fn written(&self, applied: Applied, texts: TextCounts, key: Key) -> Result<Written, EngineError> {
        match applied.outcome {
            Outcome::AlreadyExists => Err(EngineError::AlreadyExists { key }),
            outcome @ (Outcome::Created | Outcome::Updated) => {
                self.count_ingested(texts);
                Ok(Written { outcome, texts })
            }
            outcome => Ok(Written { outcome, texts: TextCounts::default() }),
        }
    }
}

/// What a record still needs.
pub(crate) enum Step {
    /// Encoding and storing.
    New(Box<Prepared>),
    /// Nothing: it is stored with this content.
    Known,
}

/// A record on its way to the store.
struct Write {
    record: Record,
    digest: Digest,
    texts: TextCounts,
}

/// A batch between the model and the store.
pub(crate) struct Encoded {
    writes: Vec<Write>,
    images: Vec<Embedding>,
    texts: Vec<Embedding>,
    /// One per step; `None` where the answer comes from the write.
    answers: Vec<Option<Result<Written, EngineError>>>,
}
