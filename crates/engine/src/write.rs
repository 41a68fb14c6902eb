//! From new records to stored, indexed, acknowledged ones.

use diptych_core::{
    AttributeValue, Attributes, Chunking, CollectionName, Digest, Embedding, Encode, ImagePart, Key,
    Modality, Part, PartRef, PreparedImage, PreparedText, Record, RequestId,
};
use diptych_store::{Applied, Mutation, Once, Outcome, PutMode, Request};
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
    /// How each of them is divided; not part of the content, so that a record that differs in nothing else is
    /// the same.
    pub chunking: Chunking,
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
        let image = |image: &'_ NewImage| Digest(*blake3::hash(&image.bytes).as_bytes());
        content_digest(&Fields {
            images: self.images.iter().map(|i| (i.source.as_str(), image(i))).collect(),
            texts: self.texts.iter().map(String::as_str).collect(),
            attributes: Some(&self.attributes),
        })
    }
}

/// What a digest of content is taken over.
#[derive(Default)]
pub(crate) struct Fields<'a> {
    /// Sources, and digests of the files.
    pub(crate) images: Vec<(&'a str, Digest)>,
    pub(crate) texts: Vec<&'a str>,
    pub(crate) attributes: Option<&'a Attributes>,
}

impl<'a> Fields<'a> {
    /// Those of a record: the same as of the [`NewRecord`] that it was.
    pub(crate) fn of_record(record: &'a Record) -> Self {
        let mut fields = Self { attributes: Some(record.attributes()), ..Self::default() };
        for part in record.parts() {
            match part {
                Part::Image(image) => fields.images.push((&image.source, image.digest)),
                Part::Text(text) => fields.texts.push(&text.text),
            }
        }
        fields
    }
}

/// A digest over what a record is made of.
pub(crate) fn content_digest(fields: &Fields<'_>) -> Digest {
    let mut hasher = blake3::Hasher::new();
    let mut field = |tag: u8, bytes: &[u8]| {
        hasher.update(&[tag]);
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    for (source, digest) in &fields.images {
        field(1, source.as_bytes());
        field(2, &digest.0);
    }
    for text in &fields.texts {
        field(3, text.as_bytes());
    }
    for (name, value) in fields.attributes.into_iter().flatten() {
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
            AttributeValue::Time(v) => {
                field(10, &v.seconds().to_le_bytes());
                field(11, &v.nanos().to_le_bytes());
            }
        }
    }
    Digest(*hasher.finalize().as_bytes())
}

/// A record decoded and tokenised, ready for the model.
pub(crate) struct Prepared {
    record: Record,
    digest: Digest,
    images: Vec<PreparedImage>,
    thumbnails: Vec<(PartRef, Vec<u8>)>,
    /// The pieces of all texts, in order.
    texts: Vec<PreparedText>,
    counts: TextCounts,
    /// By which a repetition is recognised.
    request: Option<Request>,
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

/// Decodes and tokenises a record; runs on any thread. Small pictures have at most `side` pixels along
/// their longer side; there are none when that is 0.
fn prepare(encoder: &dyn Encode, side: u32, new: NewRecord) -> Result<Prepared, EngineError> {
    let digest = new.digest();
    let mut parts = Vec::with_capacity(new.images.len() + new.texts.len());
    let mut images = Vec::with_capacity(new.images.len());
    let mut texts = Vec::with_capacity(new.texts.len());
    let mut thumbnails = Vec::new();
    let mut counts = TextCounts::default();
    for (ordinal, image) in (0..).zip(new.images) {
        let (prepared, thumbnail) = match side {
            0 => (encoder.prepare_image(&image.bytes)?, None),
            side => encoder.prepare_with_thumbnail(&image.bytes, side)?,
        };
        thumbnails.extend(thumbnail.map(|jpeg| (PartRef::whole(Modality::Image, ordinal), jpeg)));
        parts.push(Part::Image(ImagePart {
            source: image.source,
            digest: Digest(*blake3::hash(&image.bytes).as_bytes()),
            width: prepared.width,
            height: prepared.height,
        }));
        images.push(prepared);
    }
    for text in new.texts {
        let (part, pieces, long) = chunks::prepare_text(encoder, text, new.chunking)?;
        Record::check_points(images.len() + texts.len() + pieces.len())?;
        counts.count(&part, long);
        parts.push(Part::Text(part));
        texts.extend(pieces);
    }
    let record = Record::new(new.key, parts, new.attributes)?;
    Ok(Prepared { record, digest, images, thumbnails, texts, counts, request: None })
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
        self.ingest_once(collection, records.into_iter().map(|new| (new, None)).collect(), mode)
    }

    /// As [`Self::ingest`]. A record that comes with the id of a request that was answered before is
    /// answered as it was then, and nothing is done.
    ///
    /// # Errors
    /// As [`Self::ingest`].
    pub fn ingest_once(
        &self,
        collection: &CollectionName,
        records: Vec<(NewRecord, Option<RequestId>)>,
        mode: PutMode,
    ) -> Result<Vec<Result<Written, EngineError>>, EngineError> {
        let space = self.space_or_create(collection)?;
        let prepared: Vec<Result<Step, EngineError>> = records
            .into_par_iter()
            .map(|(new, request)| match request {
                None => self.prepare_unless_known(&space, new),
                Some(id) => self.prepare_once(&space, new, mode, id),
            })
            .collect();
        let encoded = self.encode_steps(prepared)?;
        self.store_encoded(&space, encoded, mode)
    }

    /// Skips the work for a record that is stored with the same content already.
    pub(crate) fn prepare_unless_known(
        &self,
        space: &Space,
        mut new: NewRecord,
    ) -> Result<Step, EngineError> {
        space.collection.schema.conform(&mut new.attributes)?;
        if self.store.digest(space.collection.id, &new.key)? == Some(new.digest()) {
            return Ok(Step::Known);
        }
        prepare(self.encoder(), self.thumbnail_side, new).map(|p| Step::New(Box::new(p)))
    }

    /// Skips the work for a request that was answered before. One that finds its content stored already
    /// is not skipped: it is to be remembered by the store.
    fn prepare_once(
        &self,
        space: &Space,
        mut new: NewRecord,
        mode: PutMode,
        id: RequestId,
    ) -> Result<Step, EngineError> {
        space.collection.schema.conform(&mut new.attributes)?;
        let mode = match mode {
            PutMode::Upsert => "upsert",
            PutMode::InsertOnly => "insert",
        };
        let words = ["ingest", mode, new.key.as_str(), &new.digest().to_string()];
        let fingerprint = content_digest(&Fields { texts: words.to_vec(), ..Fields::default() });
        if let Some(known) = self.known(space, &id, fingerprint)? {
            return Ok(Step::Answered(answered(known.outcome, &known.note)));
        }
        let mut prepared = prepare(self.encoder(), self.thumbnail_side, new)?;
        let note = counts_note(prepared.counts);
        prepared.request = Some(Request { id, fingerprint, note });
        Ok(Step::New(Box::new(prepared)))
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
                        thumbnails: prepared.thumbnails,
                        texts: prepared.counts,
                        request: prepared.request,
                    });
                    None
                }
                Ok(Step::Known) => {
                    Some(Ok(Written { outcome: Outcome::Unchanged, texts: TextCounts::default() }))
                }
                Ok(Step::Answered(written)) => Some(Ok(written)),
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

    pub(crate) fn store_records(
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
        let mut requests = Vec::with_capacity(writes.len());
        let mutations = writes
            .into_iter()
            .map(|Write { record, digest, thumbnails, texts: count, request }| {
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
                requests.push(request);
                keys.push(record.key().clone());
                vectors.push(pairs.iter().map(|(_, e)| e.clone()).collect());
                Mutation::Put { record, vectors: pairs, thumbnails, digest, mode }
            })
            .collect();
        let ids = requests.iter().map(|request| request.as_ref().map(|request| request.id.clone()));
        let ids: Vec<Option<RequestId>> = ids.collect();
        let once = if ids.iter().all(Option::is_none) { Once::Never } else { Once::Each(requests) };
        let applied = space.write(&self.store, &vectors, || self.write_store(space, mutations, once))?;
        let each = applied.into_iter().zip(counts).zip(keys).zip(ids);
        Ok(each.map(|(((applied, texts), key), id)| self.written(applied, texts, key, id)).collect())
    }

    fn written(
        &self,
        applied: Applied,
        texts: TextCounts,
        key: Key,
        id: Option<RequestId>,
    ) -> Result<Written, EngineError> {
        if let Some(note) = applied.repeated {
            return Ok(answered(applied.outcome, &note));
        }
        if let (Outcome::RequestReused, Some(id)) = (applied.outcome, id) {
            return Err(EngineError::RequestReused { id });
        }
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
    /// Nothing: its request was answered before.
    Answered(Written),
}

/// The counts of a record's texts, as its request is remembered.
fn counts_note(counts: TextCounts) -> Vec<u8> {
    let TextCounts { split, chunks, truncated, truncated_tokens } = counts;
    [split, chunks, truncated, truncated_tokens].into_iter().flat_map(u64::to_le_bytes).collect()
}

/// The answer that a request got.
fn answered(outcome: Outcome, note: &[u8]) -> Written {
    let stored = matches!(outcome, Outcome::Created | Outcome::Updated);
    Written { outcome, texts: if stored { read_counts(note) } else { TextCounts::default() } }
}

fn read_counts(note: &[u8]) -> TextCounts {
    let mut counts = note.chunks_exact(8).map(|bytes| bytes.try_into().map_or(0, u64::from_le_bytes));
    let mut next = || counts.next().unwrap_or(0);
    TextCounts { split: next(), chunks: next(), truncated: next(), truncated_tokens: next() }
}

/// A record on its way to the store.
pub(crate) struct Write {
    pub(crate) record: Record,
    pub(crate) digest: Digest,
    pub(crate) thumbnails: Vec<(PartRef, Vec<u8>)>,
    pub(crate) texts: TextCounts,
    pub(crate) request: Option<Request>,
}

/// A batch between the model and the store.
pub(crate) struct Encoded {
    writes: Vec<Write>,
    images: Vec<Embedding>,
    texts: Vec<Embedding>,
    /// One per step; `None` where the answer comes from the write.
    answers: Vec<Option<Result<Written, EngineError>>>,
}
