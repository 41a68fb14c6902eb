//! The one write path: concurrent calls are planned one after another into one batch, the batch is
//! synced, and only then is anyone answered. Reading for other purposes is not done here.
//!
//! Group commit: every call queues its ticket and then waits for the writer lock. Whoever gets the
//! lock leads: it takes all queued tickets, commits them together and leaves the answers in them. While
//! it waits for the disk the next group gathers. The followers find their answers when they get the
//! lock in turn.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use diptych_core::{Digest, Embedding, Key, Modality, Part, PartRef, PointId, Record};

use crate::StoreError;
use crate::db::{Batch, Db};
use crate::directory::AckMark;
use crate::rows;
use crate::schema::{self, Family, Marks};
use crate::values::{Applied, Mutation, Outcome, PutMode, Stats};

/// Most changes one call may carry.
pub(crate) const MUTATIONS_MAX: usize = 16_384;
/// Most vector bytes one call may carry.
pub(crate) const CALL_BYTES_MAX: usize = 256 << 20;
/// A group takes no further call once it has this many vector bytes. The first call always fits.
const GROUP_BYTES: usize = 32 << 20;

/// The state of writing: who waits, and what was given out so far.
pub(crate) struct Writer {
    queue: Mutex<VecDeque<Arc<Ticket>>>,
    state: Mutex<State>,
    /// Journal number of the last acknowledged change, for readers.
    last_seq: AtomicU64,
    batches: AtomicU64,
    writes: AtomicU64,
}

struct State {
    marks: Marks,
    ack: AckMark,
    /// Set by a failed batch. Whether it reached the disk is then unknown, and the next one could
    /// give out its numbers again, so nothing more is written until a restart has found out.
    halted: Option<StoreError>,
}

/// One waiting call.
struct Ticket {
    collection: u32,
    mutations: Vec<Mutation>,
    bytes: usize,
    answer: Mutex<Option<Result<Vec<Applied>, StoreError>>>,
}

impl Writer {
    pub(crate) fn new(marks: Marks, ack: AckMark) -> Self {
        Self {
            queue: Mutex::default(),
            last_seq: AtomicU64::new(marks.seq),
            state: Mutex::new(State { marks, ack, halted: None }),
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
    ) -> Result<Vec<Applied>, StoreError> {
        let bytes = mutations.iter().map(Mutation::vector_bytes).sum();
        let ticket = Arc::new(Ticket { collection, mutations, bytes, answer: Mutex::default() });
        hold(&self.queue).push_back(Arc::clone(&ticket));
        loop {
            let mut state = self.state.lock().map_err(|_| StoreError::Halted)?;
            if let Some(answer) = hold(&ticket.answer).take() {
                return answer;
            }
            self.lead(db, &mut state);
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

    /// Answers at least the first ticket of the queue.
    fn lead(&self, db: &Db, state: &mut State) {
        let group = self.next_group();
        let mut plan = Plan::new(db, state.marks);
        let mut planned = Vec::with_capacity(group.len());
        for ticket in &group {
            match plan.load(ticket.collection, &ticket.mutations) {
                Ok(()) => planned.push((ticket, plan.apply(ticket.collection, &ticket.mutations))),
                Err(e) => ticket.finish(Err(e)),
            }
        }
        let answered = planned.len() as u64;
        let (batch, marks) = plan.finish();
        let committed = if batch.is_empty() { Ok(()) } else { self.commit(db, state, batch, marks) };
        for (ticket, applied) in planned {
            ticket.finish(committed.clone().map(|()| applied));
        }
        if committed.is_ok() {
            self.writes.fetch_add(answered, Ordering::Relaxed);
        }
    }

    fn next_group(&self) -> Vec<Arc<Ticket>> {
        let mut queue = hold(&self.queue);
        let mut group = Vec::new();
        let mut bytes = 0;
        while let Some(ticket) = queue.pop_front() {
            bytes += ticket.bytes;
            if bytes > GROUP_BYTES && !group.is_empty() {
                queue.push_front(ticket);
                break;
            }
            group.push(ticket);
        }
        group
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

impl Ticket {
    fn finish(&self, answer: Result<Vec<Applied>, StoreError>) {
        *hold(&self.answer) = Some(answer);
    }
}

/// Locks something that is whole at every moment, so that a panic elsewhere does not matter.
fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What planning needs to know of a stored record.
struct Head {
    digest: Digest,
    points: Vec<(PartRef, PointId)>,
    truncated_texts: u64,
}

/// A batch in the making. Later changes see earlier ones through `heads`, which holds the record
/// under each touched key as it will be once the batch is written.
struct Plan<'a> {
    db: &'a Db,
    batch: Batch<'a>,
    marks: Marks,
    heads: HashMap<u32, HashMap<Key, Option<Head>>>,
    stats: BTreeMap<u32, Stats>,
    touched: bool,
}

impl<'a> Plan<'a> {
    fn new(db: &'a Db, marks: Marks) -> Self {
        Self { db, batch: db.batch(), marks, heads: HashMap::new(), stats: BTreeMap::new(), touched: false }
    }

    /// Reads all that a call depends on, so that applying it cannot fail half-way.
    fn load(&mut self, collection: u32, mutations: &[Mutation]) -> Result<(), StoreError> {
        if !self.stats.contains_key(&collection) {
            let stats = read_stats(|key| self.db.get(Family::Meta, key), collection)?;
            self.stats.insert(collection, stats);
        }
        let heads = self.heads.entry(collection).or_default();
        let absent: Vec<&Key> =
            mutations.iter().map(Mutation::key).filter(|key| !heads.contains_key(*key)).collect();
        let keys: Vec<Vec<u8>> =
            absent.iter().map(|key| schema::record_key(collection, key.as_str())).collect();
        let rows = self.db.get_many(Family::Records, &keys)?;
        let mut found = Vec::with_capacity(rows.len());
        for (key, row) in absent.into_iter().zip(rows) {
            let head = match row {
                None => None,
                Some(bytes) => {
                    let stored = rows::decode_record(&bytes, key.clone())?;
                    Some(Head {
                        digest: stored.digest,
                        truncated_texts: truncated_texts(&stored.record),
                        points: stored.points,
                    })
                }
            };
            found.push((key.clone(), head));
        }
        heads.extend(found);
        Ok(())
    }

    fn apply(&mut self, collection: u32, mutations: &[Mutation]) -> Vec<Applied> {
        mutations
            .iter()
            .map(|mutation| match mutation {
                Mutation::Put { record, vectors, digest, mode } => {
                    self.put(collection, record, vectors, *digest, *mode)
                }
                Mutation::Delete { key } => self.delete(collection, key),
            })
            .collect()
    }

    fn put(
        &mut self,
        collection: u32,
        record: &Record,
        vectors: &[(PartRef, Embedding)],
        digest: Digest,
        mode: PutMode,
    ) -> Applied {
        let key = record.key();
        match self.head(collection, key) {
            Some(head) if head.digest == digest => return Applied::nothing(Outcome::Unchanged),
            Some(_) if mode == PutMode::InsertOnly => return Applied::nothing(Outcome::AlreadyExists),
            _ => {}
        }
        let removed = self.remove(collection, key);
        let outcome = if removed.is_some() { Outcome::Updated } else { Outcome::Created };
        let removed = removed.unwrap_or_default();

        let mut added = Vec::with_capacity(vectors.len());
        for (part, _) in record.part_refs() {
            let (_, embedding) = vectors
                .iter()
                .find(|(given, _)| *given == part)
                .expect("a put was checked to have one vector for each part");
            let point = PointId(self.marks.next_point);
            self.marks.next_point += 1;
            let row = rows::encode_owner(key, part);
            self.batch.put(Family::Points, schema::point_key(collection, point), row);
            let vector = schema::encode_vector(embedding);
            self.batch.put(Family::Vectors, schema::vector_key(collection, part.modality, point), vector);
            added.push((part, point));
        }
        let seq = self.log(collection, key, &added, &removed);
        let row = rows::encode_record(record, digest, seq, &added);
        self.batch.put(Family::Records, schema::record_key(collection, key.as_str()), row);

        let head = Head { digest, points: added.clone(), truncated_texts: truncated_texts(record) };
        self.count(collection, &head, u64::wrapping_add);
        self.set_head(collection, key, Some(head));
        Applied { outcome, seq: Some(seq), added, removed }
    }

    fn delete(&mut self, collection: u32, key: &Key) -> Applied {
        let Some(removed) = self.remove(collection, key) else {
            return Applied::nothing(Outcome::NotFound);
        };
        self.batch.delete(Family::Records, schema::record_key(collection, key.as_str()));
        let seq = self.log(collection, key, &[], &removed);
        Applied { outcome: Outcome::Deleted, seq: Some(seq), added: Vec::new(), removed }
    }

    /// Takes away the points of the record under `key`; `None` when there is none.
    fn remove(&mut self, collection: u32, key: &Key) -> Option<Vec<(PartRef, PointId)>> {
        let head = self.heads.get_mut(&collection)?.get_mut(key)?.take()?;
        for &(part, point) in &head.points {
            self.batch.delete(Family::Points, schema::point_key(collection, point));
            self.batch.delete(Family::Vectors, schema::vector_key(collection, part.modality, point));
        }
        self.count(collection, &head, u64::wrapping_sub);
        Some(head.points)
    }

    /// Writes the journal and returns the change's number.
    fn log(
        &mut self,
        collection: u32,
        key: &Key,
        added: &[(PartRef, PointId)],
        removed: &[(PartRef, PointId)],
    ) -> u64 {
        self.touched = true;
        self.marks.seq += 1;
        let row = rows::encode_entry(collection, key, added, removed);
        self.batch.put(Family::Journal, schema::journal_key(self.marks.seq), row);
        self.marks.seq
    }

    fn head(&self, collection: u32, key: &Key) -> Option<&Head> {
        self.heads.get(&collection)?.get(key)?.as_ref()
    }

    fn set_head(&mut self, collection: u32, key: &Key, head: Option<Head>) {
        self.heads.entry(collection).or_default().insert(key.clone(), head);
    }

    fn count(&mut self, collection: u32, head: &Head, change: fn(u64, u64) -> u64) {
        let stats = self.stats.entry(collection).or_default();
        stats.records = change(stats.records, 1);
        for (part, _) in &head.points {
            match part.modality {
                Modality::Image => stats.image_points = change(stats.image_points, 1),
                Modality::Text => stats.text_points = change(stats.text_points, 1),
            }
        }
        stats.truncated_texts = change(stats.truncated_texts, head.truncated_texts);
    }

    /// The batch, empty when nothing changed, and the marks to commit with it.
    fn finish(mut self) -> (Batch<'a>, Marks) {
        if self.touched {
            for (&collection, stats) in &self.stats {
                let row = rows::encode_stats(stats);
                self.batch.put(Family::Meta, schema::stats_key(collection), row);
            }
        }
        (self.batch, self.marks)
    }
}

pub(crate) fn truncated_texts(record: &Record) -> u64 {
    record.parts().iter().filter(|part| matches!(part, Part::Text(text) if text.truncated_tokens > 0)).count()
        as u64
}

/// Reads the counts of a collection through `get`; a collection without any has zeros.
pub(crate) fn read_stats(
    get: impl FnOnce(&[u8]) -> Result<Option<Vec<u8>>, StoreError>,
    collection: u32,
) -> Result<Stats, StoreError> {
    match get(&schema::stats_key(collection))? {
        Some(bytes) => rows::decode_stats(&bytes, collection),
        None => Ok(Stats::default()),
    }
}
