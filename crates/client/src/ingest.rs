//! Storing records: what is sent, what becomes of it, and the stream of both.
//!
//! Deliberately absent: how the stream is kept going, which is in `run`.

mod run;

use std::pin::Pin;
use std::task::{Context, Poll};

use diptych_core::{AttributeValue, Attributes, Chunking, Key, RequestId};
use diptych_proto::convert::attributes_to_wire;
use diptych_proto::v1 as wire;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};
use tokio_stream::Stream;

use crate::answer::key;
use crate::client::fresh_request_id;
use crate::{Client, Error};

/// A record to store.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRecord {
    /// Its name.
    pub key: Key,
    /// Its images.
    pub images: Vec<NewImage>,
    /// Its texts.
    pub texts: Vec<String>,
    /// How each of them is divided.
    pub chunking: Chunking,
    /// Its attributes.
    pub attributes: Attributes,
    /// Sent again with the same id it is stored once; the client makes one when none is given.
    pub request_id: Option<RequestId>,
}

/// An image to store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewImage {
    /// The encoded file, at most 32 MiB.
    pub data: Vec<u8>,
    /// A path or name to remember it by; may be empty.
    pub source: String,
}

impl NewRecord {
    /// A record with nothing in it yet.
    pub fn new(key: Key) -> Self {
        Self {
            key,
            images: Vec::new(),
            texts: Vec::new(),
            chunking: Chunking::default(),
            attributes: Attributes::new(),
            request_id: None,
        }
    }

    /// Adds an image: an encoded file, and a path or name to remember it by.
    #[must_use]
    pub fn image(mut self, data: impl Into<Vec<u8>>, source: impl Into<String>) -> Self {
        self.images.push(NewImage { data: data.into(), source: source.into() });
        self
    }

    /// Adds a text.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.texts.push(text.into());
        self
    }

    /// Divides the texts into their sentences, so that a search finds the one that says what was asked.
    #[must_use]
    pub fn sentences(self) -> Self {
        Self { chunking: Chunking::Sentences, ..self }
    }

    /// Sets an attribute.
    #[must_use]
    pub fn attribute(mut self, name: impl Into<String>, value: impl Into<AttributeValue>) -> Self {
        self.attributes.insert(name.into(), value.into());
        self
    }

    fn into_wire(self, collection: String, mode: WriteMode) -> wire::IngestRequest {
        let image = |NewImage { data, source }| wire::ImageInput { data, source };
        let mode = match mode {
            WriteMode::Upsert => wire::WriteMode::Upsert,
            WriteMode::Insert => wire::WriteMode::Insert,
        };
        wire::IngestRequest {
            collection,
            key: self.key.to_string(),
            images: self.images.into_iter().map(image).collect(),
            texts: self.texts,
            attributes: attributes_to_wire(&self.attributes),
            mode: mode as i32,
            chunking: match self.chunking {
                Chunking::Context => wire::TextChunking::Context,
                Chunking::Sentences => wire::TextChunking::Sentences,
            } as i32,
            request_id: self.request_id.unwrap_or_else(fresh_request_id).to_string(),
        }
    }
}

/// What happens when the key exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WriteMode {
    /// The record is replaced.
    #[default]
    Upsert,
    /// The record is refused unless the content is the same.
    Insert,
}

/// How records are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IngestOptions {
    /// What happens when a key exists.
    pub mode: WriteMode,
    /// Records under way at the most, 1 to 256; beside that, about 64 MiB of them. Beyond, the source waits.
    pub in_flight: usize,
}

impl Default for IngestOptions {
    fn default() -> Self {
        Self { mode: WriteMode::Upsert, in_flight: 64 }
    }
}

/// What became of one record.
#[derive(Debug, Clone, PartialEq)]
pub struct IngestResult {
    /// The record.
    pub key: Key,
    /// What was stored, or why it was refused.
    pub stored: Result<Stored, Error>,
}

/// A record that is durable and can be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// What was there before.
    pub outcome: Outcome,
    /// Tokens of its texts that no embedding sees.
    pub truncated_tokens: u32,
    /// Texts that were divided into chunks.
    pub split_texts: u32,
    /// The chunks of those.
    pub text_chunks: u32,
    /// Texts of which some tokens are in no embedding.
    pub truncated_texts: u32,
}

/// What was there before a record was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Nothing.
    Created,
    /// Another content.
    Updated,
    /// The same content; nothing was written.
    Unchanged,
}

impl IngestResult {
    fn from_wire(answer: wire::IngestResponse) -> Result<Self, Error> {
        let outcome = match answer.outcome() {
            wire::WriteOutcome::Created => Some(Outcome::Created),
            wire::WriteOutcome::Updated => Some(Outcome::Updated),
            wire::WriteOutcome::Unchanged => Some(Outcome::Unchanged),
            wire::WriteOutcome::Unspecified => None,
        };
        let stored = match (answer.error, outcome) {
            (Some(error), _) => Err(Error::of_item(error.code, error.message)),
            (None, None) => return Err(Error::lacks("outcome of a record")),
            (None, Some(outcome)) => Ok(Stored {
                outcome,
                truncated_tokens: answer.truncated_tokens,
                split_texts: answer.split_texts,
                text_chunks: answer.text_chunks,
                truncated_texts: answer.truncated_texts,
            }),
        };
        Ok(Self { key: key(answer.key)?, stored })
    }
}

/// Results in the order of the records. Dropped before its end, it calls off what is under way.
#[derive(Debug)]
pub struct IngestStream {
    results: mpsc::Receiver<Result<IngestResult, Error>>,
    /// Until its end has been seen.
    work: Option<JoinHandle<()>>,
}

impl Stream for IngestStream {
    type Item = Result<IngestResult, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let result = std::task::ready!(self.results.poll_recv(cx));
        if result.is_none()
            && let Some(work) = &mut self.work
        {
            // The end is one only when the source has not panicked.
            let ended = std::task::ready!(Pin::new(work).poll(cx));
            self.work = None;
            if let Some(error) = ended.err().filter(JoinError::is_panic) {
                std::panic::resume_unwind(error.into_panic());
            }
        }
        Poll::Ready(result)
    }
}

impl Drop for IngestStream {
    fn drop(&mut self) {
        self.work.iter().for_each(JoinHandle::abort);
    }
}

impl Client {
    /// Stores records, and says of each in its order what became of it. The source is read only as fast as the server
    /// answers. A record that is refused has its error in its result, and the stream goes on. When the connection breaks,
    /// what has no answer is sent again under the same request ids, so that it is stored once; an error of the stream
    /// itself is its last item. Needs a runtime of tokio.
    pub fn ingest(&self, records: impl Stream<Item = NewRecord> + Send + 'static) -> IngestStream {
        self.ingest_with(records, IngestOptions::default())
    }

    /// The same with options.
    pub fn ingest_with(
        &self,
        records: impl Stream<Item = NewRecord> + Send + 'static,
        options: IngestOptions,
    ) -> IngestStream {
        let (sender, results) = mpsc::channel(1);
        let work = tokio::spawn(run::ingest(self.clone(), Box::pin(records), options, sender));
        IngestStream { results, work: Some(work) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio_stream::StreamExt;

    use super::*;
    use crate::{ClientOptions, RetryPolicy};

    #[tokio::test]
    #[should_panic(expected = "the source is broken")]
    async fn a_source_that_panics_is_no_end() {
        let retry = RetryPolicy::never();
        let client =
            Client::connect_lazy(ClientOptions { retry, ..ClientOptions::new("127.0.0.1:1") }).unwrap();
        let source = tokio_stream::once(()).map(|()| -> NewRecord { panic!("the source is broken") });
        let results: Vec<_> = client.ingest(source).collect().await;
        assert!(results.is_empty());
    }
}
