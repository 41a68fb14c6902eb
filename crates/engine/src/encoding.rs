//! The model's own thread: a bounded queue in front of an encoder.
//!
//! Owns admission and batching. Requests that wait together are encoded together; nothing waits for
//! a batch to fill. Searches go before ingestion, so that a bulk load does not hold up a question.
//! Deliberately absent: decoding and tokenising, which callers do on their own threads first.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use diptych_core::{Embedding, Encode, EncodeError, PreparedImage, PreparedText};

use crate::EngineError;

/// Most inputs the model is given at once when waiting requests are joined.
const JOINED_BATCH_MAX: usize = 32;

/// Who is waiting for the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// A person or program asked a question.
    Search,
    /// A load that only minds throughput.
    Ingest,
}

type Reply = SyncSender<Result<Vec<Embedding>, EncodeError>>;

struct Job {
    inputs: Inputs,
    reply: Reply,
}

enum Inputs {
    Images(Vec<PreparedImage>),
    Texts(Vec<PreparedText>),
}

impl Inputs {
    fn len(&self) -> usize {
        match self {
            Self::Images(images) => images.len(),
            Self::Texts(texts) => texts.len(),
        }
    }

    fn joins(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
            && self.len() + other.len() <= JOINED_BATCH_MAX
    }

    fn append(&mut self, other: Self) {
        match (self, other) {
            (Self::Images(all), Self::Images(more)) => all.extend(more),
            (Self::Texts(all), Self::Texts(more)) => all.extend(more),
            _ => unreachable!("only jobs that join are appended"),
        }
    }
}

#[derive(Default)]
struct Waiting {
    searches: VecDeque<Job>,
    ingests: VecDeque<Job>,
    closed: bool,
}

struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    searches_max: usize,
    ingests_max: usize,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // The queue holds plain values and every change to it is complete when the lock is
        // released, so a panic elsewhere leaves it usable.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next batch, searches first, with the jobs of the same kind that wait behind it.
    fn next(&self) -> Option<(Inputs, Vec<(usize, Reply)>)> {
        let mut waiting = self.lock();
        loop {
            let Waiting { searches, ingests, closed } = &mut *waiting;
            let line = if searches.is_empty() { ingests } else { searches };
            if let Some(Job { mut inputs, reply }) = line.pop_front() {
                let mut replies = vec![(inputs.len(), reply)];
                while let Some(job) = line.pop_front_if(|job| inputs.joins(&job.inputs)) {
                    replies.push((job.inputs.len(), job.reply));
                    inputs.append(job.inputs);
                }
                self.changed.notify_all();
                return Some((inputs, replies));
            }
            if *closed {
                return None;
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// An encoder on a thread of its own.
pub struct EncodeThread {
    encoder: Arc<dyn Encode>,
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

impl EncodeThread {
    /// Starts the thread. At most `searches_max` searches wait; a further one is refused. At most
    /// `ingests_max` ingest batches wait; a further one blocks its sender.
    pub fn start(encoder: Arc<dyn Encode>, searches_max: usize, ingests_max: usize) -> Self {
        let queue =
            Arc::new(Queue { waiting: Mutex::default(), changed: Condvar::new(), searches_max, ingests_max });
        let thread = std::thread::Builder::new()
            .name("diptych-encode".to_owned())
            .spawn({
                let (encoder, queue) = (Arc::clone(&encoder), Arc::clone(&queue));
                move || {
                    while let Some((inputs, replies)) = queue.next() {
                        answer(run(&*encoder, &inputs), replies);
                    }
                }
            })
            .expect("the system can start one more thread");
        Self { encoder, queue, thread: Some(thread) }
    }

    /// The encoder, for preparing inputs on the caller's thread.
    pub fn encoder(&self) -> &dyn Encode {
        &*self.encoder
    }

    /// Embeds prepared images, in order.
    ///
    /// # Errors
    /// [`EngineError::Overloaded`] when too many searches wait, [`EngineError::Encode`] when the
    /// model fails, [`EngineError::Closed`] while shutting down.
    pub fn images(
        &self,
        images: Vec<PreparedImage>,
        urgency: Urgency,
    ) -> Result<Vec<Embedding>, EngineError> {
        self.submit(Inputs::Images(images), urgency)
    }

    /// Embeds prepared texts, in order.
    ///
    /// # Errors
    /// As [`Self::images`].
    pub fn texts(&self, texts: Vec<PreparedText>, urgency: Urgency) -> Result<Vec<Embedding>, EngineError> {
        self.submit(Inputs::Texts(texts), urgency)
    }

    fn submit(&self, inputs: Inputs, urgency: Urgency) -> Result<Vec<Embedding>, EngineError> {
        if inputs.len() == 0 {
            return Ok(Vec::new());
        }
        let (reply, answer) = sync_channel(1);
        let mut waiting = self.queue.lock();
        if urgency == Urgency::Ingest {
            while waiting.ingests.len() >= self.queue.ingests_max && !waiting.closed {
                waiting = self.queue.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
        }
        if waiting.closed {
            return Err(EngineError::Closed);
        }
        let job = Job { inputs, reply };
        match urgency {
            Urgency::Search if waiting.searches.len() >= self.queue.searches_max => {
                let what = format!("{} queries wait for the model already", waiting.searches.len());
                return Err(EngineError::Overloaded { what });
            }
            Urgency::Search => waiting.searches.push_back(job),
            Urgency::Ingest => waiting.ingests.push_back(job),
        }
        drop(waiting);
        self.queue.changed.notify_all();
        Ok(answer.recv().map_err(|_| EngineError::Closed)??)
    }
}

impl Drop for EncodeThread {
    fn drop(&mut self) {
        self.queue.lock().closed = true;
        self.queue.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been answered as an error already.
            let _ = thread.join();
        }
    }
}

/// Runs the model. A panic inside becomes an error for those who asked, not the end of the thread.
fn run(encoder: &dyn Encode, inputs: &Inputs) -> Result<Vec<Embedding>, EncodeError> {
    let embeddings = catch_unwind(AssertUnwindSafe(|| match inputs {
        Inputs::Images(images) => encoder.encode_images(images),
        Inputs::Texts(texts) => encoder.encode_texts(texts),
    }))
    .unwrap_or_else(|_| Err(EncodeError::Model { reason: "it panicked on this input".to_owned() }))?;
    if embeddings.len() == inputs.len() {
        Ok(embeddings)
    } else {
        let reason = format!("{} embeddings for {} inputs", embeddings.len(), inputs.len());
        Err(EncodeError::Model { reason })
    }
}

fn answer(result: Result<Vec<Embedding>, EncodeError>, replies: Vec<(usize, Reply)>) {
    match result {
        Ok(embeddings) => {
            let mut embeddings = embeddings.into_iter();
            for (count, reply) in replies {
                // A caller that stopped waiting is no concern of the others.
                let _ = reply.send(Ok(embeddings.by_ref().take(count).collect()));
            }
        }
        Err(error) => {
            for (_, reply) in replies {
                let _ = reply.send(Err(error.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Barrier;

    use diptych_core::{HashEncoder, ModelId};

    use super::*;

    /// Waits at a barrier in its first call, so that a test knows what queues behind it.
    struct Gate {
        inner: HashEncoder,
        entered: Barrier,
        released: Barrier,
        calls: Mutex<Vec<(&'static str, usize)>>,
    }

    impl Encode for Gate {
        fn model_id(&self) -> ModelId {
            self.inner.model_id()
        }
        fn dim(&self) -> usize {
            self.inner.dim()
        }
        fn prepare_image(&self, bytes: &[u8]) -> Result<PreparedImage, EncodeError> {
            self.inner.prepare_image(bytes)
        }
        fn prepare_text(&self, text: &str) -> Result<PreparedText, EncodeError> {
            self.inner.prepare_text(text)
        }
        fn encode_images(&self, images: &[PreparedImage]) -> Result<Vec<Embedding>, EncodeError> {
            self.calls.lock().unwrap().push(("images", images.len()));
            self.entered.wait();
            self.released.wait();
            self.inner.encode_images(images)
        }
        fn encode_texts(&self, texts: &[PreparedText]) -> Result<Vec<Embedding>, EncodeError> {
            self.calls.lock().unwrap().push(("texts", texts.len()));
            assert!(texts.len() < 1000, "a test asks for a panic");
            self.inner.encode_texts(texts)
        }
    }

    fn gate() -> Arc<Gate> {
        Arc::new(Gate {
            inner: HashEncoder::new(16),
            entered: Barrier::new(2),
            released: Barrier::new(2),
            calls: Mutex::default(),
        })
    }

    #[test]
    fn searches_overtake_ingestion_and_wait_in_bounded_number() {
        let gate = gate();
        let thread = EncodeThread::start(gate.clone(), 2, 8);
        let image = thread.encoder().prepare_image(b"a b").unwrap();
        let text = thread.encoder().prepare_text("a b").unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| thread.images(vec![image], Urgency::Ingest).unwrap());
            gate.entered.wait();
            // The model is busy now. Queue one ingest batch, then two searches behind it.
            scope.spawn(|| thread.texts(vec![text.clone(); 5], Urgency::Ingest).unwrap());
            for _ in 0..2 {
                scope.spawn(|| thread.texts(vec![text.clone()], Urgency::Search).unwrap());
            }
            let queued = || {
                let waiting = thread.queue.lock();
                (waiting.ingests.len(), waiting.searches.len())
            };
            while queued() != (1, 2) {
                std::thread::yield_now();
            }
            let refused = thread.texts(vec![text.clone()], Urgency::Search);
            assert!(matches!(refused, Err(EngineError::Overloaded { .. })));
            gate.released.wait();
        });
        // The two searches were joined, and went before the ingest batch.
        assert_eq!(*gate.calls.lock().unwrap(), [("images", 1), ("texts", 2), ("texts", 5)]);
    }

    #[test]
    fn a_panic_of_the_model_is_an_error_and_the_next_call_works() {
        let thread = EncodeThread::start(gate(), 2, 8);
        let text = thread.encoder().prepare_text("a b").unwrap();
        let failed = thread.texts(vec![text.clone(); 1000], Urgency::Search);
        assert!(matches!(failed, Err(EngineError::Encode(EncodeError::Model { .. }))));
        assert_eq!(thread.texts(vec![text], Urgency::Search).unwrap().len(), 1);
    }
}
