//! What waits for the model, and how it is put together to batches.
//!
//! A batch is filled by what it costs, its positions in the tower, not by the number of its inputs:
//! sixty short queries are as quick as four long ones. A request over the budget is cut into several
//! jobs, so that a question never waits for more than one budget of somebody else's work.
//! Deliberately absent: the thread that takes the batches, and waiting for a batch to fill.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use diptych_core::{Embedding, Encode, EncodeError, PreparedImage, PreparedText};

use crate::EngineError;

/// Who is waiting for the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// A person or program asked a question.
    Search,
    /// A load that only minds throughput.
    Ingest,
}

/// Bounds of the queue in front of the model.
#[derive(Debug, Clone, Copy)]
pub struct QueueLimits {
    /// Searches that may wait; a further one is refused.
    pub searches_max: usize,
    /// Ingest jobs that may wait; a further request blocks its sender.
    pub ingests_max: usize,
    /// Positions of a batch. A single input that takes more is a batch of its own.
    pub batch_positions: usize,
}

pub(crate) type Answer = Result<Vec<Embedding>, EncodeError>;

/// Inputs of one modality.
pub(crate) enum Inputs {
    Images(Vec<PreparedImage>),
    Texts(Vec<PreparedText>),
}

impl Inputs {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Images(images) => images.len(),
            Self::Texts(texts) => texts.len(),
        }
    }

    fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    fn append(&mut self, other: Self) {
        match (self, other) {
            (Self::Images(all), Self::Images(more)) => all.extend(more),
            (Self::Texts(all), Self::Texts(more)) => all.extend(more),
            _ => unreachable!("only inputs that are alike are appended"),
        }
    }

    /// Cuts into pieces within the budget, of about equal cost, each with its positions.
    fn cut(self, encoder: &dyn Encode, budget: usize) -> Vec<(Self, usize)> {
        match self {
            Self::Images(images) => {
                let positions = encoder.image_positions();
                let pieces = cut(images, |_| positions, budget);
                pieces.into_iter().map(|(piece, cost)| (Self::Images(piece), cost)).collect()
            }
            Self::Texts(texts) => {
                let pieces = cut(texts, |text| encoder.text_positions(text), budget);
                pieces.into_iter().map(|(piece, cost)| (Self::Texts(piece), cost)).collect()
            }
        }
    }
}

fn cut<T>(inputs: Vec<T>, cost: impl Fn(&T) -> usize, budget: usize) -> Vec<(Vec<T>, usize)> {
    let total: usize = inputs.iter().map(&cost).sum();
    // Equal pieces, so that none is a remainder too small to keep the cores busy.
    let target = total.div_ceil(total.div_ceil(budget.max(1)).max(1));
    let mut pieces: Vec<(Vec<T>, usize)> = Vec::new();
    for input in inputs {
        let cost = cost(&input);
        match pieces.last_mut() {
            Some((piece, sum)) if *sum < target && *sum + cost <= budget => {
                piece.push(input);
                *sum += cost;
            }
            _ => pieces.push((vec![input], cost)),
        }
    }
    pieces
}

/// A request, or a piece of one, that waits for the model.
struct Job {
    inputs: Inputs,
    positions: usize,
    /// Gone when whoever asked has had an error for another piece of the request.
    caller: Weak<()>,
    reply: SyncSender<Answer>,
}

/// Jobs that go through the model together.
pub(crate) struct Batch {
    pub(crate) inputs: Inputs,
    positions: usize,
    replies: Vec<(usize, SyncSender<Answer>)>,
}

impl Batch {
    fn new(job: Job) -> Self {
        let replies = vec![(job.inputs.len(), job.reply)];
        Self { inputs: job.inputs, positions: job.positions, replies }
    }

    /// Takes the jobs of a line that are like its own and fit, in their order.
    fn fill(&mut self, line: &mut VecDeque<Job>, budget: usize) {
        let mut next = 0;
        while let Some(job) = line.get(next) {
            if !self.inputs.is_like(&job.inputs) {
                next += 1;
                continue;
            }
            if self.positions + job.positions > budget {
                return;
            }
            let job = line.remove(next).expect("the job was there just now");
            self.positions += job.positions;
            self.replies.push((job.inputs.len(), job.reply));
            self.inputs.append(job.inputs);
        }
    }

    pub(crate) fn into_parts(self) -> (Inputs, Replies) {
        (self.inputs, Replies(self.replies))
    }
}

/// Who waits for a batch, and for how many embeddings each.
pub(crate) struct Replies(Vec<(usize, SyncSender<Answer>)>);

impl Replies {
    /// Hands everyone their share. A caller that stopped waiting is no concern of the others.
    pub(crate) fn send(self, result: Answer) {
        match result {
            Ok(embeddings) => {
                let mut embeddings = embeddings.into_iter();
                for (count, reply) in self.0 {
                    let _ = reply.send(Ok(embeddings.by_ref().take(count).collect()));
                }
            }
            Err(error) => {
                for (_, reply) in self.0 {
                    let _ = reply.send(Err(error.clone()));
                }
            }
        }
    }
}

#[derive(Default)]
struct Waiting {
    searches: VecDeque<Job>,
    ingests: VecDeque<Job>,
    closed: bool,
}

/// The lines in front of the model.
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    limits: QueueLimits,
}

impl Queue {
    pub(crate) fn new(limits: QueueLimits) -> Self {
        Self { waiting: Mutex::default(), changed: Condvar::new(), limits }
    }

    /// Queues a request and waits for all its embeddings.
    pub(crate) fn submit(
        &self,
        encoder: &dyn Encode,
        inputs: Inputs,
        urgency: Urgency,
    ) -> Result<Vec<Embedding>, EngineError> {
        let count = inputs.len();
        let pieces = inputs.cut(encoder, self.limits.batch_positions);
        let here = Arc::new(());
        let answers = self.push(pieces, urgency, &here)?;
        let mut embeddings = Vec::with_capacity(count);
        for answer in answers {
            embeddings.extend(answer.recv().map_err(|_| EngineError::Closed)??);
        }
        Ok(embeddings)
    }

    fn push(
        &self,
        pieces: Vec<(Inputs, usize)>,
        urgency: Urgency,
        caller: &Arc<()>,
    ) -> Result<Vec<Receiver<Answer>>, EngineError> {
        let QueueLimits { searches_max, ingests_max, .. } = self.limits;
        let mut waiting = self.lock();
        if urgency == Urgency::Ingest {
            while waiting.ingests.len() >= ingests_max && !waiting.closed {
                waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
        }
        if waiting.closed {
            return Err(EngineError::Closed);
        }
        let line = match urgency {
            Urgency::Search if waiting.searches.len() >= searches_max => {
                let what = format!("{} queries wait for the model already", waiting.searches.len());
                return Err(EngineError::Overloaded { what });
            }
            Urgency::Search => &mut waiting.searches,
            Urgency::Ingest => &mut waiting.ingests,
        };
        let mut answers = Vec::with_capacity(pieces.len());
        for (inputs, positions) in pieces {
            let (reply, answer) = sync_channel(1);
            line.push_back(Job { inputs, positions, caller: Arc::downgrade(caller), reply });
            answers.push(answer);
        }
        drop(waiting);
        self.changed.notify_all();
        Ok(answers)
    }

    /// The next batch, searches first; `None` when the queue is closed and empty.
    pub(crate) fn next(&self) -> Option<Batch> {
        let mut waiting = self.lock();
        loop {
            let Waiting { searches, ingests, closed } = &mut *waiting;
            let line = if searches.is_empty() { ingests } else { searches };
            if let Some(job) = line.pop_front() {
                if job.caller.strong_count() == 0 {
                    self.changed.notify_all();
                    continue;
                }
                let mut batch = Batch::new(job);
                batch.fill(line, self.limits.batch_positions);
                self.changed.notify_all();
                return Some(batch);
            }
            if *closed {
                return None;
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets what waits finish and takes nothing more.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // The queue holds plain values and every change to it is complete when the lock is
        // released, so a panic elsewhere leaves it usable.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Jobs that wait: ingests, searches.
    pub(crate) fn lengths(&self) -> (usize, usize) {
        let waiting = self.lock();
        (waiting.ingests.len(), waiting.searches.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(inputs: &[usize], budget: usize) -> Vec<Vec<usize>> {
        cut(inputs.to_vec(), |&cost| cost, budget).into_iter().map(|(piece, _)| piece).collect()
    }

    #[test]
    fn requests_are_cut_into_like_pieces_within_the_budget() {
        assert_eq!(costs(&[65; 16], 1024), [vec![65; 8], vec![65; 8]]);
        assert_eq!(costs(&[10, 20, 30], 60), [[10, 20, 30]]);
        assert_eq!(costs(&[10, 20, 31], 60), [vec![10, 20], vec![31]]);
        assert_eq!(costs(&[100, 1], 60), [[100], [1]], "what is over the budget goes alone");
        assert_eq!(costs(&[1, 100], 60), [[1], [100]]);
        assert_eq!(costs(&[], 60), [[0; 0]; 0]);
        for budget in 1..40 {
            for piece in costs(&[3, 7, 1, 9, 9, 2, 5, 5, 5, 8, 1], budget) {
                assert!(piece.len() == 1 || piece.iter().sum::<usize>() <= budget, "{piece:?} at {budget}");
            }
        }
    }
}
