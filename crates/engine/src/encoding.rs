//! The model's own thread: takes batches from the queue in front of it and answers them.
//!
//! Requests that wait together are encoded together; nothing waits for a batch to fill. Searches go
//! before ingestion, so that a bulk load does not hold up a question. How batches are put together is
//! decided in `queue`. Deliberately absent: decoding and tokenising, which callers do on their own
//! threads first.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use diptych_core::{Embedding, Encode, EncodeError, PreparedImage, PreparedText};

use crate::EngineError;
use crate::queue::{Answer, Inputs, Queue, QueueLimits, Urgency};

/// An encoder on a thread of its own.
pub struct EncodeThread {
    encoder: Arc<dyn Encode>,
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

impl EncodeThread {
    /// Starts the thread.
    pub fn start(encoder: Arc<dyn Encode>, limits: QueueLimits) -> Self {
        let queue = Arc::new(Queue::new(limits));
        let thread = std::thread::Builder::new()
            .name("diptych-encode".to_owned())
            .spawn({
                let (encoder, queue) = (Arc::clone(&encoder), Arc::clone(&queue));
                move || {
                    while let Some(batch) = queue.next() {
                        let (inputs, replies) = batch.into_parts();
                        replies.send(run(&*encoder, &inputs));
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
        self.queue.submit(&*self.encoder, Inputs::Images(images), urgency)
    }

    /// Embeds prepared texts, in order.
    ///
    /// # Errors
    /// As [`Self::images`].
    pub fn texts(&self, texts: Vec<PreparedText>, urgency: Urgency) -> Result<Vec<Embedding>, EngineError> {
        self.queue.submit(&*self.encoder, Inputs::Texts(texts), urgency)
    }

    /// Jobs that wait for the model.
    pub(crate) fn waiting(&self, urgency: Urgency) -> usize {
        let (ingests, searches) = self.queue.lengths();
        match urgency {
            Urgency::Search => searches,
            Urgency::Ingest => ingests,
        }
    }
}

impl Drop for EncodeThread {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been answered as an error already.
            let _ = thread.join();
        }
    }
}

/// Runs the model. A panic inside becomes an error for those who asked, not the end of the thread.
fn run(encoder: &dyn Encode, inputs: &Inputs) -> Answer {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::{Barrier, Mutex};

    use diptych_core::{HashEncoder, ModelId};

    use super::*;

    const POISON: &str = "poison";

    /// Records its batches as words per text; images wait at a barrier, so that a test knows what
    /// queues behind them.
    struct Scripted {
        inner: HashEncoder,
        entered: Barrier,
        released: Barrier,
        batches: Mutex<Vec<Vec<usize>>>,
    }

    impl Encode for Scripted {
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
        fn image_positions(&self) -> usize {
            40
        }
        fn encode_images(&self, images: &[PreparedImage]) -> Result<Vec<Embedding>, EncodeError> {
            self.batches.lock().unwrap().push(vec![0; images.len()]);
            self.entered.wait();
            self.released.wait();
            self.inner.encode_images(images)
        }
        fn encode_texts(&self, texts: &[PreparedText]) -> Result<Vec<Embedding>, EncodeError> {
            self.batches.lock().unwrap().push(texts.iter().map(|t| t.ids.len()).collect());
            let poison = self.inner.prepare_text(POISON)?;
            assert!(!texts.contains(&poison), "a test asks for a panic");
            self.inner.encode_texts(texts)
        }
    }

    /// The model busy with one image, and the queue that a test fills behind it.
    struct Busy {
        model: Arc<Scripted>,
        thread: EncodeThread,
    }

    impl Busy {
        fn new(searches_max: usize, batch_positions: usize) -> Self {
            let model = Arc::new(Scripted {
                inner: HashEncoder::new(16),
                entered: Barrier::new(2),
                released: Barrier::new(2),
                batches: Mutex::default(),
            });
            let limits = QueueLimits { searches_max, ingests_max: 8, batch_positions };
            Self { thread: EncodeThread::start(model.clone(), limits), model }
        }

        fn text(&self, words: usize) -> PreparedText {
            self.thread.encoder().prepare_text(&"a ".repeat(words)).unwrap()
        }

        fn image(&self) -> PreparedImage {
            self.thread.encoder().prepare_image(b"a b").unwrap()
        }

        /// Queues each request in turn while the model is busy, then lets it go on; returns the
        /// batches it was given, the first image aside.
        fn batches(&self, requests: &[(Urgency, &[usize])]) -> Vec<Vec<usize>> {
            std::thread::scope(|scope| {
                scope.spawn(|| self.thread.images(vec![self.image()], Urgency::Ingest).unwrap());
                self.model.entered.wait();
                for (urgency, words) in requests {
                    let before = self.thread.queue.lengths();
                    let texts: Vec<_> = words.iter().map(|&n| self.text(n)).collect();
                    scope.spawn(|| {
                        let expected = self.model.inner.encode_texts(&texts).unwrap();
                        assert_eq!(self.thread.texts(texts, *urgency).unwrap(), expected);
                    });
                    while self.thread.queue.lengths() == before {
                        std::thread::yield_now();
                    }
                }
                self.model.released.wait();
            });
            self.model.batches.lock().unwrap()[1..].to_vec()
        }
    }

    #[test]
    fn what_waits_is_joined_by_its_positions_and_searches_go_first() {
        use Urgency::{Ingest, Search};
        let busy = Busy::new(8, 20);
        let batches = busy.batches(&[
            (Ingest, &[5, 5]),
            (Search, &[9]),
            (Search, &[8]),
            (Search, &[3]),
            (Search, &[4]),
            (Ingest, &[6]),
        ]);
        // Three searches fill the budget of 20; the fourth goes with the next batch, which takes no
        // ingestion in; the two ingest requests go together at the end.
        assert_eq!(batches, [vec![9, 8, 3], vec![4], vec![5, 5, 6]]);
    }

    #[test]
    fn a_request_over_the_budget_is_cut_and_comes_back_whole_and_in_order() {
        use Urgency::{Ingest, Search};
        let busy = Busy::new(8, 20);
        let batches = busy.batches(&[(Ingest, &[12, 1, 12, 2, 30, 3]), (Search, &[2])]);
        assert_eq!(batches, [vec![2], vec![12, 1], vec![12, 2], vec![30], vec![3]]);
    }

    #[test]
    fn too_many_waiting_searches_are_refused() {
        let busy = Busy::new(2, 1000);
        let thread = &busy.thread;
        std::thread::scope(|scope| {
            scope.spawn(|| thread.images(vec![busy.image()], Urgency::Ingest).unwrap());
            busy.model.entered.wait();
            for _ in 0..2 {
                scope.spawn(|| thread.texts(vec![busy.text(2)], Urgency::Search).unwrap());
            }
            while thread.queue.lengths() != (0, 2) {
                std::thread::yield_now();
            }
            let refused = thread.texts(vec![busy.text(2)], Urgency::Search);
            assert!(matches!(refused, Err(EngineError::Overloaded { .. })));
            busy.model.released.wait();
        });
    }

    #[test]
    fn like_requests_are_joined_across_others_that_wait_between_them() {
        let busy = Busy::new(8, 1000);
        let (thread, model) = (&busy.thread, &busy.model);
        std::thread::scope(|scope| {
            scope.spawn(|| thread.images(vec![busy.image()], Urgency::Search).unwrap());
            model.entered.wait();
            let after = |waiting: usize| {
                while thread.queue.lengths() != (0, waiting) {
                    std::thread::yield_now();
                }
            };
            scope.spawn(|| thread.texts(vec![busy.text(1)], Urgency::Search).unwrap());
            after(1);
            scope.spawn(|| thread.images(vec![busy.image(); 2], Urgency::Search).unwrap());
            after(2);
            scope.spawn(|| thread.texts(vec![busy.text(2)], Urgency::Search).unwrap());
            after(3);
            model.released.wait();
            model.entered.wait();
            model.released.wait();
        });
        assert_eq!(*model.batches.lock().unwrap(), [vec![0], vec![1, 2], vec![0, 0]]);
    }

    #[test]
    fn a_panic_of_the_model_is_an_error_and_the_next_call_works() {
        // Room for a query beside the pieces of the one that failed, which may still be waiting.
        let busy = Busy::new(4, 4);
        let poison = busy.thread.encoder().prepare_text(POISON).unwrap();
        // The request is cut into three; after the first nobody waits for the others any more.
        let mut texts = vec![poison];
        texts.extend((0..11).map(|_| busy.text(1)));
        let failed = busy.thread.texts(texts, Urgency::Search);
        assert!(matches!(failed, Err(EngineError::Encode(EncodeError::Model { .. }))));
        assert_eq!(busy.thread.texts(vec![busy.text(1)], Urgency::Search).unwrap().len(), 1);
        let batches = busy.model.batches.lock().unwrap();
        assert_eq!((batches[0].len(), batches.last().unwrap().len()), (4, 1));
    }
}
