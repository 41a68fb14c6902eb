//! The one write path: concurrent calls are planned one after another into one batch, the batch is
//! synced, and only then is anyone answered. What a change does to a record is decided in `plan`.
//!
//! Group commit: every call queues its ticket. When nobody leads, the caller leads: it takes all queued
//! tickets, commits them together, leaves the answers in them and wakes everyone. While it waits for
//! the disk the next group gathers.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::StoreError;
use crate::db::{Batch, Db};
use crate::directory::AckMark;
use crate::plan::Plan;
use crate::requests::Requests;
use crate::schema::{self, Family, Marks};
use crate::values::{Applied, Mutation, Once, Remembered};

/// Most changes one call may carry.
pub(crate) const MUTATIONS_MAX: usize = 16_384;
/// Most vector bytes one call may carry.
pub(crate) const CALL_BYTES_MAX: usize = 256 << 20;
/// A group takes no further call once it has this many vector bytes. The first call always fits.
const GROUP_BYTES: usize = 32 << 20;

/// The state of writing: who waits, and what was given out so far.
pub(crate) struct Writer {
    queue: Mutex<Queue>,
    /// Signals that a leader has finished.
    finished: Condvar,
    state: Mutex<State>,
    /// Journal number of the last acknowledged change, for readers.
    last_seq: AtomicU64,
    batches: AtomicU64,
    writes: AtomicU64,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Arc<Ticket>>,
    /// Whether somebody is committing a group right now.
    led: bool,
    /// Whether a leader panicked and took its group's answers with it.
    broken: bool,
}

struct State {
    marks: Marks,
    ack: AckMark,
    requests: Requests,
    /// Collections that were deleted: a call that waited meanwhile must not write to them.
    gone: HashSet<u32>,
    /// Set by a failed batch. Whether it reached the disk is then unknown, and the next one could
    /// give out its numbers again, so nothing more is written until a restart has found out.
    halted: Option<StoreError>,
}

/// One waiting call.
struct Ticket {
    collection: u32,
    mutations: Vec<Mutation>,
    once: Once,
    bytes: usize,
    answer: Mutex<Option<Result<Vec<Applied>, StoreError>>>,
}

impl Writer {
    pub(crate) fn new(marks: Marks, ack: AckMark, requests: Requests) -> Self {
        Self {
            queue: Mutex::default(),
            finished: Condvar::new(),
            last_seq: AtomicU64::new(marks.seq),
            state: Mutex::new(State { marks, ack, requests, gone: HashSet::new(), halted: None }),
            batches: AtomicU64::new(0),
            writes: AtomicU64::new(0),
        }
    }

    pub(crate) fn last_seq(&self) -> u64 {
        self.last_seq.load(Ordering::Acquire)
    }

    /// Synced batches and the calls they answered.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.batches.load(Ordering::Relaxed), self.writes.load(Ordering::Relaxed))
    }

    /// Applies checked changes. Returns when they are on disk.
    pub(crate) fn write(
        &self,
        db: &Db,
        collection: u32,
        mutations: Vec<Mutation>,
        once: Once,
    ) -> Result<Vec<Applied>, StoreError> {
        let bytes = mutations.iter().map(Mutation::content_bytes).sum();
        let ticket = Arc::new(Ticket { collection, mutations, once, bytes, answer: Mutex::default() });
        let mut queue = hold(&self.queue);
        queue.waiting.push_back(Arc::clone(&ticket));
        loop {
            if let Some(answer) = hold(&ticket.answer).take() {
                return answer;
            }
            if queue.broken {
                return Err(StoreError::Halted);
            }
            if queue.led {
                queue = self.finished.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            queue.led = true;
            let group = queue.next_group();
            drop(queue);
            let term = Term(self);
            self.lead(db, &group);
            drop(term);
            queue = hold(&self.queue);
        }
    }

    /// Writes something that is not a record, such as a new collection, as a batch of its own.
    pub(crate) fn write_alone(
        &self,
        db: &Db,
        fill: impl FnOnce(&mut Batch<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut state = self.state.lock().map_err(|_| StoreError::Halted)?;
        let mut batch = db.batch();
        fill(&mut batch)?;
        if batch.is_empty() {
            return Ok(());
        }
        let marks = state.marks;
        self.commit(db, &mut state, batch, marks)
    }

    /// What is remembered of a request.
    pub(crate) fn request(&self, collection: u32, id: &str) -> Result<Option<Remembered>, StoreError> {
        let state = self.state.lock().map_err(|_| StoreError::Halted)?;
        Ok(state.requests.get(&(collection, id.to_owned())).cloned())
    }

    /// Deletes a collection by a batch of its own, which `fill` begins. From then on, no call writes to it.
    pub(crate) fn delete_collection(
        &self,
        db: &Db,
        id: u32,
        fill: impl FnOnce(&mut Batch<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut state = self.state.lock().map_err(|_| StoreError::Halted)?;
        let mut batch = db.batch();
        fill(&mut batch)?;
        for key in state.requests.keys_of(id) {
            batch.delete(Family::Meta, key);
        }
        let marks = state.marks;
        self.commit(db, &mut state, batch, marks)?;
        state.requests.forget(id);
        state.gone.insert(id);
        Ok(())
    }

    /// Commits a group and leaves the answers in its tickets.
    fn lead(&self, db: &Db, group: &[Arc<Ticket>]) {
        let Ok(mut state) = self.state.lock() else {
            group.iter().for_each(|ticket| ticket.finish(Err(StoreError::Halted)));
            return;
        };
        let mut plan = Plan::new(db, state.marks, &state.requests);
        let mut planned = Vec::with_capacity(group.len());
        for ticket in group {
            let id = ticket.collection;
            if state.gone.contains(&id) {
                ticket.finish(Err(StoreError::UnknownCollection { id }));
                continue;
            }
            match plan.load(id, &ticket.mutations) {
                Ok(()) => planned.push((ticket, plan.apply(id, &ticket.mutations, &ticket.once))),
                Err(e) => ticket.finish(Err(e)),
            }
        }
        let answered = planned.len() as u64;
        let (batch, marks, requests) = plan.finish();
        let committed = if batch.is_empty() { Ok(()) } else { self.commit(db, &mut state, batch, marks) };
        if committed.is_ok() {
            state.requests.take_over(requests);
        }
        for (ticket, applied) in planned {
            ticket.finish(committed.clone().map(|()| applied));
        }
        if committed.is_ok() {
            self.writes.fetch_add(answered, Ordering::Relaxed);
        }
    }

    /// The only place where the store changes: batch, sync, mark, and then the new state is visible.
    fn commit(
        &self,
        db: &Db,
        state: &mut State,
        mut batch: Batch<'_>,
        mut marks: Marks,
    ) -> Result<(), StoreError> {
        if let Some(reason) = &state.halted {
            return Err(reason.clone());
        }
        marks.batch += 1;
        batch.put(Family::Meta, schema::MARKS_KEY, marks.encode());
        if let Err(e) = db.write(batch).and_then(|()| state.ack.raise(marks.batch)) {
            state.halted = Some(e.clone());
            return Err(e);
        }
        state.marks = marks;
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.last_seq.store(marks.seq, Ordering::Release);
        Ok(())
    }

    /// Makes the mark durable at the end.
    pub(crate) fn close(&self) -> Result<(), StoreError> {
        self.state.lock().map_err(|_| StoreError::Halted)?.ack.sync()
    }
}

impl Queue {
    /// Takes the calls that the next batch answers: at least the first.
    fn next_group(&mut self) -> Vec<Arc<Ticket>> {
        let mut group = Vec::new();
        let mut bytes = 0;
        while let Some(ticket) = self.waiting.pop_front() {
            bytes += ticket.bytes;
            if bytes > GROUP_BYTES && !group.is_empty() {
                self.waiting.push_front(ticket);
                break;
            }
            group.push(ticket);
        }
        group
    }
}

/// The time in which one caller leads. It ends even by a panic, so that nobody waits for ever.
struct Term<'a>(&'a Writer);

impl Drop for Term<'_> {
    fn drop(&mut self) {
        let mut queue = hold(&self.0.queue);
        queue.led = false;
        queue.broken |= std::thread::panicking();
        self.0.finished.notify_all();
    }
}

impl Ticket {
    fn finish(&self, answer: Result<Vec<Applied>, StoreError>) {
        *hold(&self.answer) = Some(answer);
    }
}

/// Locks something that is whole at every moment, so that a panic elsewhere does not matter.
fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::Access;
    use crate::values::{Outcome, PutMode};
    use diptych_core::{Attributes, Digest, Embedding, Key, Modality, Part, PartRef, Record, TextPart};

    fn delete(name: usize) -> Vec<Mutation> {
        vec![Mutation::Delete { key: Key::new(name.to_string()).expect("valid key") }]
    }

    fn put(name: usize) -> Vec<Mutation> {
        let text = TextPart::whole("a text", 0);
        let key = Key::new(name.to_string()).expect("valid key");
        let record = Record::new(key, vec![Part::Text(text)], Attributes::new()).expect("valid record");
        let part = PartRef::whole(Modality::Text, 0);
        let vectors = vec![(part, Embedding::new(vec![1.0]).expect("valid vector"))];
        vec![Mutation::Put {
            record,
            vectors,
            thumbnails: Vec::new(),
            digest: Digest([0; 32]),
            mode: PutMode::Upsert,
        }]
    }

    fn store(dir: &std::path::Path) -> (Db, Writer) {
        let db = Db::open(&dir.join("rocksdb"), Access::Create, 1 << 20).expect("opens");
        let file = std::fs::File::create_new(dir.join("mark")).expect("is new");
        (db, Writer::new(Marks::default(), AckMark::in_file(file), Requests::default()))
    }

    /// The story: followers once waited for the leader's lock to learn that they were done, and so
    /// stood in the way of each other; 32 writers were hardly faster than one.
    #[test]
    fn whoever_comes_while_a_batch_is_written_shares_the_next_one() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (db, writer) = store(dir.path());
        std::thread::scope(|scope| {
            // The first call leads a group of one and is held up, as by a slow disk.
            let slow_disk = writer.state.lock().expect("nobody panicked");
            let calls: Vec<_> = (0..8)
                .map(|name| {
                    let (db, writer) = (&db, &writer);
                    scope.spawn(move || writer.write(db, 1, put(name), Once::Never))
                })
                .collect();
            let gathered = || {
                let queue = hold(&writer.queue);
                queue.led && queue.waiting.len() == 7
            };
            while !gathered() {
                std::thread::yield_now();
            }
            drop(slow_disk);
            for call in calls {
                let outcome = call.join().expect("no panic").map(|applied| applied[0].outcome);
                assert_eq!(outcome, Ok(Outcome::Created));
            }
        });
        assert_eq!(writer.counts(), (2, 8), "one batch for the first call, one for all the others");
    }

    #[test]
    fn a_panicking_leader_leaves_nobody_waiting() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (db, writer) = store(dir.path());
        let answer = writer.write(&db, 1, delete(1), Once::Never).map(|applied| applied[0].outcome);
        assert_eq!(answer, Ok(Outcome::NotFound));
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            hold(&writer.queue).led = true;
            let _term = Term(&writer);
            panic!("half-way");
        }));
        assert!(panicked.is_err());
        assert_eq!(writer.write(&db, 1, delete(1), Once::Never), Err(StoreError::Halted));
    }
}
