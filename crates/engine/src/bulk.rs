//! Bulk ingestion: a decode pool, batched encoding, grouped writes, one direction.
//!
//! A bad item is reported and counted, never fatal. Content that is stored already is recognised by
//! its digest and skipped, so that a run that was broken off is simply run again.

use std::sync::mpsc::sync_channel;

use diptych_core::CollectionName;
use diptych_store::{Outcome, PutMode};

use crate::space::Space;
use crate::write::Step;
use crate::{Engine, EngineError, NewRecord, TextCounts, Written, ordered_map};

/// One item of a source, read when a worker gets to it.
pub struct BulkItem {
    /// Where it comes from, for reports: a path, or a file and line.
    pub origin: String,
    /// Reads it: file contents and all. The error is the reason in words.
    pub load: Box<dyn FnOnce() -> Result<NewRecord, String> + Send>,
}

/// How a bulk run is cut.
#[derive(Debug, Clone)]
pub struct BulkOptions {
    /// Threads that read, decode and tokenise.
    pub workers: usize,
    /// Images or texts that are encoded together.
    pub batch: usize,
}

impl Default for BulkOptions {
    fn default() -> Self {
        let workers = std::thread::available_parallelism().map_or(2, usize::from);
        Self { workers, batch: 16 }
    }
}

/// Counts so far; the sums of all outcomes are the items seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BulkCounts {
    /// New records.
    pub created: u64,
    /// Records replaced by other content.
    pub updated: u64,
    /// Records that were stored with this content already.
    pub unchanged: u64,
    /// Items that could not be ingested.
    pub failed: u64,
    /// Images encoded.
    pub images: u64,
    /// Texts encoded, each counted once, however many chunks it has.
    pub texts: u64,
    /// What became of those that were longer than the model's context.
    pub long_texts: TextCounts,
}

impl BulkCounts {
    /// Items that have been dealt with.
    pub fn items(&self) -> u64 {
        self.created + self.updated + self.unchanged + self.failed
    }

    fn count(&mut self, written: &Written) {
        self.long_texts.add(written.texts);
        match written.outcome {
            Outcome::Created => self.created += 1,
            Outcome::Updated => self.updated += 1,
            _ => self.unchanged += 1,
        }
    }
}

/// An item that could not be ingested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Where it came from.
    pub origin: String,
    /// Why, and what to do.
    pub reason: String,
}

struct Batch {
    origins: Vec<String>,
    steps: Vec<Result<Step, EngineError>>,
    images: usize,
    texts: usize,
    /// Texts and chunks of long ones.
    pieces: usize,
}

impl Batch {
    fn new() -> Self {
        Self { origins: Vec::new(), steps: Vec::new(), images: 0, texts: 0, pieces: 0 }
    }

    fn push(&mut self, origin: String, step: Result<Step, EngineError>) {
        if let Ok(Step::New(prepared)) = &step {
            self.images += prepared.image_count();
            self.texts += prepared.text_count();
            self.pieces += prepared.text_pieces();
        }
        self.origins.push(origin);
        self.steps.push(step);
    }

    /// Full by work for the model, or by items that need none.
    fn is_full(&self, batch: usize) -> bool {
        self.images >= batch || self.pieces >= 4 * batch || self.steps.len() >= 16 * batch
    }
}

impl Engine {
    /// Ingests everything `items` yields. `failed` hears of each bad item, `progress` of each batch.
    ///
    /// # Errors
    /// Only what stops the whole run: the store cannot be written, or the model fails. What was
    /// written before stays.
    pub fn ingest_all(
        &self,
        collection: &CollectionName,
        items: impl Iterator<Item = BulkItem> + Send,
        options: &BulkOptions,
        mut failed: impl FnMut(Failure),
        mut progress: impl FnMut(&BulkCounts),
    ) -> Result<BulkCounts, EngineError> {
        let space = self.space_or_create(collection)?;
        let mut counts = BulkCounts::default();
        std::thread::scope(|scope| {
            let ahead = 2 * options.batch + options.workers;
            let prepared = ordered_map(scope, items, options.workers, ahead, |item: BulkItem| {
                (item.origin, self.load(&space, item.load))
            });
            // Encoding one batch overlaps with writing the one before.
            let (send, batches) = sync_channel(1);
            scope.spawn(move || {
                let send_batch = |batch: Batch| {
                    let Batch { origins, steps, images, texts, .. } = batch;
                    let encoded = self.encode_steps(steps).map(|encoded| (origins, encoded, images, texts));
                    let go_on = encoded.is_ok();
                    // The receiver is gone only when the run has failed.
                    send.send(encoded).is_ok() && go_on
                };
                let mut batch = Batch::new();
                for (origin, step) in prepared {
                    batch.push(origin, step);
                    if batch.is_full(options.batch)
                        && !send_batch(std::mem::replace(&mut batch, Batch::new()))
                    {
                        return;
                    }
                }
                send_batch(batch);
            });
            for encoded in batches {
                let (origins, encoded, images, texts) = encoded?;
                let answers = self.store_encoded(&space, encoded, PutMode::Upsert)?;
                counts.images += images as u64;
                counts.texts += texts as u64;
                for (origin, answer) in origins.into_iter().zip(answers) {
                    match answer {
                        Ok(written) => counts.count(&written),
                        Err(error) => {
                            counts.failed += 1;
                            failed(Failure { origin, reason: error.to_string() });
                        }
                    }
                }
                progress(&counts);
            }
            Ok(counts)
        })
    }

    fn load(
        &self,
        space: &Space,
        load: Box<dyn FnOnce() -> Result<NewRecord, String> + Send>,
    ) -> Result<Step, EngineError> {
        let new = load().map_err(|reason| EngineError::Source { reason })?;
        self.prepare_unless_known(space, new)
    }
}
