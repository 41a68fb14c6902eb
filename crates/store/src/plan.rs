//! Planning a batch: what each change does, given the records as stored and the changes before it.
//! Nothing becomes visible here; `commit` writes the finished batch.

use std::collections::{BTreeMap, HashMap};

use diptych_core::{Digest, Embedding, Key, Modality, Part, PartRef, PointId, Record};

use crate::StoreError;
use crate::db::{Batch, Db};
use crate::requests::{Pending, Requests};
use crate::rows;
use crate::schema::{self, Family, Marks};
use crate::values::{Applied, Mutation, Once, Outcome, PutMode, Remembered, Request, Stats};

/// A batch in the making. Later changes see earlier ones through `heads`, which holds the record
/// under each touched key as it will be once the batch is written.
pub(crate) struct Plan<'a, 'r> {
    db: &'a Db,
    batch: Batch<'a>,
    marks: Marks,
    requests: &'r Requests,
    pending: Pending,
    heads: HashMap<u32, HashMap<Key, Option<Head>>>,
    stats: BTreeMap<u32, Stats>,
    touched: bool,
}

/// What planning needs to know of a stored record.
struct Head {
    digest: Digest,
    seq: u64,
    points: Vec<(PartRef, PointId)>,
    truncated_texts: u64,
}

impl<'a, 'r> Plan<'a, 'r> {
    pub(crate) fn new(db: &'a Db, marks: Marks, requests: &'r Requests) -> Self {
        Self {
            db,
            batch: db.batch(),
            marks,
            requests,
            pending: Pending::default(),
            heads: HashMap::new(),
            stats: BTreeMap::new(),
            touched: false,
        }
    }

    /// Reads all that a call depends on, so that applying it cannot fail half-way.
    pub(crate) fn load(&mut self, collection: u32, mutations: &[Mutation]) -> Result<(), StoreError> {
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
                        seq: stored.seq,
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

    pub(crate) fn apply(&mut self, collection: u32, mutations: &[Mutation], once: &Once) -> Vec<Applied> {
        let applied = match once {
            Once::Each(requests) => {
                let requests = requests.iter().map(Option::as_ref).chain(std::iter::repeat(None));
                let each = mutations.iter().zip(requests);
                each.map(|(mutation, request)| match request {
                    Some(request) => self.apply_once(collection, mutation, request),
                    None => self.apply_one(collection, mutation),
                })
                .collect()
            }
            Once::Never | Once::Step(_) => {
                mutations.iter().map(|mutation| self.apply_one(collection, mutation)).collect()
            }
        };
        if let Once::Step(request) = once {
            self.remember(collection, request, Outcome::Updated, None);
        }
        applied
    }

    fn apply_one(&mut self, collection: u32, mutation: &Mutation) -> Applied {
        match mutation {
            Mutation::Put { record, vectors, thumbnails, digest, mode } => {
                let applied = self.put(collection, record, vectors, *digest, *mode);
                self.put_thumbnails(collection, thumbnails, &applied.added);
                applied
            }
            Mutation::Update { record, digest, seq } => self.update(collection, record, *digest, *seq),
            Mutation::Delete { key } => self.delete(collection, key),
        }
    }

    /// Applies a change unless its request was answered before. Refusals are not remembered: a
    /// repetition may find the matter changed.
    fn apply_once(&mut self, collection: u32, mutation: &Mutation, request: &Request) -> Applied {
        let name = (collection, request.id.as_str().to_owned());
        match self.pending.get(self.requests, &name) {
            Some(known) if known.fingerprint != request.fingerprint => {
                return Applied::nothing(Outcome::RequestReused);
            }
            Some(known) => {
                let repeated = Some(known.note.clone());
                return Applied { seq: known.seq, repeated, ..Applied::nothing(known.outcome) };
            }
            None => {}
        }
        let applied = self.apply_one(collection, mutation);
        match applied.outcome {
            Outcome::Created | Outcome::Updated | Outcome::Unchanged | Outcome::Deleted => {
                self.remember(collection, request, applied.outcome, applied.seq);
            }
            Outcome::NotFound | Outcome::AlreadyExists | Outcome::Stale | Outcome::RequestReused => {}
        }
        applied
    }

    fn remember(&mut self, collection: u32, request: &Request, outcome: Outcome, seq: Option<u64>) {
        let (fingerprint, note) = (request.fingerprint, request.note.clone());
        let remembered = Remembered { fingerprint, outcome, seq, note };
        let name = (collection, request.id.as_str().to_owned());
        self.pending.add(self.requests, name, remembered);
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

        let vectors: HashMap<PartRef, &Embedding> = vectors.iter().map(|(part, e)| (*part, e)).collect();
        let mut added = Vec::with_capacity(vectors.len());
        for (part, _) in record.part_refs() {
            let embedding = vectors.get(&part).expect("a put was checked to have one vector for each part");
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

        let head = Head { digest, seq, points: added.clone(), truncated_texts: truncated_texts(record) };
        self.count(collection, &head, u64::wrapping_add);
        self.set_head(collection, key, Some(head));
        Applied { seq: Some(seq), added, removed, ..Applied::nothing(outcome) }
    }

    /// Keeps the small pictures of those parts that have been added.
    fn put_thumbnails(
        &mut self,
        collection: u32,
        thumbnails: &[(PartRef, Vec<u8>)],
        added: &[(PartRef, PointId)],
    ) {
        for (part, jpeg) in thumbnails {
            if let Some((_, point)) = added.iter().find(|(of, _)| of == part) {
                self.batch.put(Family::Thumbnails, schema::point_key(collection, *point), jpeg);
            }
        }
    }

    /// Writes a record with its points as they are.
    fn update(&mut self, collection: u32, record: &Record, digest: Digest, seq: u64) -> Applied {
        let key = record.key();
        let points = match self.head(collection, key) {
            None => return Applied::nothing(Outcome::NotFound),
            Some(head) if head.seq != seq => return Applied::nothing(Outcome::Stale),
            Some(head) if head.digest == digest => return Applied::nothing(Outcome::Unchanged),
            Some(head) => head.points.clone(),
        };
        let parts = record.part_refs().map(|(part, _)| part);
        if !parts.eq(points.iter().map(|&(part, _)| part)) {
            return Applied::nothing(Outcome::Stale);
        }
        let seq = self.log(collection, key, &[], &[]);
        let row = rows::encode_record(record, digest, seq, &points);
        self.batch.put(Family::Records, schema::record_key(collection, key.as_str()), row);
        let head = Head { digest, seq, points: points.clone(), truncated_texts: truncated_texts(record) };
        self.set_head(collection, key, Some(head));
        Applied { seq: Some(seq), kept: points, ..Applied::nothing(Outcome::Updated) }
    }

    fn delete(&mut self, collection: u32, key: &Key) -> Applied {
        let Some(removed) = self.remove(collection, key) else {
            return Applied::nothing(Outcome::NotFound);
        };
        self.batch.delete(Family::Records, schema::record_key(collection, key.as_str()));
        let seq = self.log(collection, key, &[], &removed);
        Applied { seq: Some(seq), removed, ..Applied::nothing(Outcome::Deleted) }
    }

    /// Takes away the points of the record under `key`; `None` when there is none.
    fn remove(&mut self, collection: u32, key: &Key) -> Option<Vec<(PartRef, PointId)>> {
        let head = self.heads.get_mut(&collection)?.get_mut(key)?.take()?;
        for &(part, point) in &head.points {
            self.batch.delete(Family::Points, schema::point_key(collection, point));
            self.batch.delete(Family::Vectors, schema::vector_key(collection, part.modality, point));
            if part.modality == Modality::Image {
                self.batch.delete(Family::Thumbnails, schema::point_key(collection, point));
            }
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

    /// The batch, empty when nothing changed, and what is to be taken over once it is on disk.
    pub(crate) fn finish(mut self) -> (Batch<'a>, Marks, Pending) {
        if !self.pending.is_empty() {
            self.requests.write(&self.pending, &mut self.batch);
        }
        if self.touched {
            for (&collection, stats) in &self.stats {
                let row = rows::encode_stats(stats);
                self.batch.put(Family::Meta, schema::stats_key(collection), row);
            }
        }
        (self.batch, self.marks, self.pending)
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
