//! The public face: opening, checked writing, reading. Which bytes are written and in
//! which order is decided in `commit`; what they look like, in `schema`.

use std::path::Path;
use std::sync::RwLock;

use diptych_core::{Digest, Embedding, Key, Modality, PartRef, PointId, RequestId};

use crate::StoreError;
use crate::check::{self, CheckReport};
use crate::collections::Collections;
use crate::commit::{CALL_BYTES_MAX, MUTATIONS_MAX, Writer};
use crate::db::{Access, Db, Depth};
use crate::directory::Directory;
use crate::plan;
use crate::requests::Requests;
use crate::rows;
use crate::schema::{self, FORMAT_VERSION, Family, Marks};
use crate::values::{Applied, Entry, Mutation, Once, RecordVector, Remembered, Stats, StoredRecord, Usage};

/// How to open a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOptions {
    /// Create the store when the directory is absent or empty.
    pub create: bool,
    /// Memory for blocks read from disk, in bytes. Searches read records and vectors through it.
    pub cache_bytes: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { create: true, cache_bytes: 256 << 20 }
    }
}

/// An open store. All methods take `&self` and may be called from many threads; calls block on the
/// disk, so an async caller gives them to a blocking thread.
pub struct Store {
    // Dropped in this order: the database is closed before the lock is released.
    pub(crate) db: Db,
    pub(crate) writer: Writer,
    pub(crate) collections: RwLock<Collections>,
    directory: Directory,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("dir", &self.directory.root())
            .field("last_seq", &self.last_seq())
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store in `dir`, or creates it there. The directory is closed to other users (0700).
    /// Files that others keep beside the store's own, such as an index, are left alone.
    ///
    /// # Errors
    /// [`StoreError::InUse`] at once when another process has it open; [`StoreError::Missing`],
    /// [`StoreError::NotAStore`], [`StoreError::Version`] for a wrong directory;
    /// [`StoreError::Corrupt`] when a file is damaged or missing, or when less comes back than was
    /// acknowledged. No data is changed in any of these cases.
    pub fn open(dir: &Path, options: &StoreOptions) -> Result<Self, StoreError> {
        let mut directory = Directory::open(dir, options.create)?;
        let path = directory.database();
        let ack = directory.mark()?;
        let access = if directory.is_sealed() { Access::Existing } else { Access::Create };
        if access == Access::Create && directory.has_lost_its_root(&ack) {
            return Err(StoreError::corrupt(format!("{} has lost its CURRENT file", path.display())));
        }
        if access == Access::Existing && directory.has_log() {
            // Replaying the log for good would remove it. First find out whether it is whole.
            let preview = Db::open(&path, Access::ReadOnly, options.cache_bytes)?;
            check_version(&preview, dir)?;
            check_acknowledged(read_marks(&preview)?.batch, ack.last())?;
        }
        let db = Db::open(&path, access, options.cache_bytes)?;
        if access == Access::Create && db.get(Family::Meta, schema::VERSION_KEY)?.is_none() {
            let mut batch = db.batch();
            batch.put(Family::Meta, schema::VERSION_KEY, FORMAT_VERSION.to_be_bytes());
            batch.put(Family::Meta, schema::MARKS_KEY, Marks::default().encode());
            db.write(batch)?;
        }
        check_version(&db, dir)?;
        let marks = read_marks(&db)?;
        check_acknowledged(marks.batch, ack.last())?;
        let collections = Collections::read(&db)?;
        ack.sync()?;
        if !directory.is_sealed() {
            directory.seal()?;
        }
        let writer = Writer::new(marks, ack, Requests::load(&db)?);
        Ok(Self { db, writer, collections: RwLock::new(collections), directory })
    }

    /// Applies changes in order, all or nothing, and returns when they are on disk. Calls from several
    /// threads share one synced batch; each sees the effects of those before it.
    ///
    /// # Errors
    /// [`StoreError::UnknownCollection`], [`StoreError::InvalidMutation`] or [`StoreError::TooMuch`]
    /// before anything is written. After [`StoreError::Full`] or [`StoreError::Io`] it is unknown
    /// whether the call took effect, and all further writes fail until a restart has found out;
    /// repeating the call then is safe.
    pub fn write(&self, collection: u32, mutations: Vec<Mutation>) -> Result<Vec<Applied>, StoreError> {
        self.write_once(collection, mutations, Once::Never)
    }

    /// As [`Store::write`], for requests that may be repeated. The latest 16,384 of all collections are
    /// remembered, in the batch that they change the store with.
    ///
    /// # Errors
    /// As [`Store::write`].
    pub fn write_once(
        &self,
        collection: u32,
        mutations: Vec<Mutation>,
        once: Once,
    ) -> Result<Vec<Applied>, StoreError> {
        let dim = self.known(collection)?.dim;
        if mutations.len() > MUTATIONS_MAX {
            return Err(StoreError::TooMuch { what: "changes", found: mutations.len(), max: MUTATIONS_MAX });
        }
        for (position, mutation) in mutations.iter().enumerate() {
            mutation.check(dim).map_err(|reason| StoreError::InvalidMutation {
                position,
                key: mutation.key().clone(),
                reason,
            })?;
        }
        let bytes = mutations.iter().map(Mutation::content_bytes).sum();
        if bytes > CALL_BYTES_MAX {
            return Err(StoreError::TooMuch { what: "bytes of vectors", found: bytes, max: CALL_BYTES_MAX });
        }
        self.writer.write(&self.db, collection, mutations, once)
    }

    /// What is remembered of a request, if it was answered not too long ago.
    ///
    /// # Errors
    /// [`StoreError::Halted`].
    pub fn request(&self, collection: u32, id: &RequestId) -> Result<Option<Remembered>, StoreError> {
        self.writer.request(collection, id.as_str())
    }

    /// Reads a record.
    ///
    /// # Errors
    /// A failure to read.
    pub fn get(&self, collection: u32, key: &Key) -> Result<Option<StoredRecord>, StoreError> {
        match self.db.get(Family::Records, &schema::record_key(collection, key.as_str()))? {
            Some(bytes) => rows::decode_record(&bytes, key.clone()).map(Some),
            None => Ok(None),
        }
    }

    /// Reads several records, in the order of the keys.
    ///
    /// # Errors
    /// A failure to read.
    pub fn get_many(&self, collection: u32, keys: &[Key]) -> Result<Vec<Option<StoredRecord>>, StoreError> {
        let rows: Vec<Vec<u8>> =
            keys.iter().map(|key| schema::record_key(collection, key.as_str())).collect();
        let found = self.db.get_many(Family::Records, &rows)?;
        found
            .into_iter()
            .zip(keys)
            .map(|(bytes, key)| bytes.map(|bytes| rows::decode_record(&bytes, key.clone())).transpose())
            .collect()
    }

    /// The digest a record was stored with: whether an ingestion can skip it.
    ///
    /// # Errors
    /// A failure to read.
    pub fn digest(&self, collection: u32, key: &Key) -> Result<Option<Digest>, StoreError> {
        match self.db.get(Family::Records, &schema::record_key(collection, key.as_str()))? {
            Some(bytes) => rows::decode_digest(&bytes, key).map(Some),
            None => Ok(None),
        }
    }

    /// At most `limit` records in key order (byte order), beginning after `after`.
    ///
    /// # Errors
    /// A failure to read.
    pub fn list(
        &self,
        collection: u32,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<StoredRecord>, StoreError> {
        let mut from = schema::record_key(collection, after.map_or("", Key::as_str));
        if after.is_some() {
            // The smallest key that is greater than `after`.
            from.push(0);
        }
        let until = schema::after_prefix(&collection.to_be_bytes());
        self.db
            .scan(Family::Records, &from, until, Depth::Page)
            .take(limit)
            .map(|pair| {
                let (key, row) = pair?;
                let (_, key) = schema::parse_record_key(&key)
                    .ok_or_else(|| StoreError::corrupt(format!("a record lies under the key {key:02x?}")))?;
                rows::decode_record(&row, key)
            })
            .collect()
    }

    /// The record and part each point stands for; `None` for points that no longer exist.
    ///
    /// # Errors
    /// A failure to read.
    pub fn owners(
        &self,
        collection: u32,
        points: &[PointId],
    ) -> Result<Vec<Option<(Key, PartRef)>>, StoreError> {
        let keys: Vec<[u8; 12]> = points.iter().map(|&point| schema::point_key(collection, point)).collect();
        let rows = self.db.get_many(Family::Points, &keys)?;
        rows.into_iter()
            .zip(points)
            .map(|(row, &point)| row.map(|bytes| rows::decode_owner(&bytes, point)).transpose())
            .collect()
    }

    /// The vectors of points of one modality; `None` for points that no longer exist.
    ///
    /// # Errors
    /// [`StoreError::UnknownCollection`] or a failure to read.
    pub fn vectors(
        &self,
        collection: u32,
        modality: Modality,
        points: &[PointId],
    ) -> Result<Vec<Option<Embedding>>, StoreError> {
        let dim = self.known(collection)?.dim;
        let keys: Vec<[u8; 13]> =
            points.iter().map(|&point| schema::vector_key(collection, modality, point)).collect();
        let rows = self.db.get_many(Family::Vectors, &keys)?;
        rows.into_iter()
            .zip(points)
            .map(|(row, &point)| row.map(|bytes| schema::decode_vector(&bytes, dim, point)).transpose())
            .collect()
    }

    /// The small pictures of images, as JPEG files; `None` for those that have none.
    ///
    /// # Errors
    /// A failure to read.
    pub fn thumbnails(
        &self,
        collection: u32,
        points: &[PointId],
    ) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let keys: Vec<[u8; 12]> = points.iter().map(|&point| schema::point_key(collection, point)).collect();
        self.db.get_many(Family::Thumbnails, &keys)
    }

    /// Whether no record of a collection has changed after `seq`.
    ///
    /// # Errors
    /// A failure to read.
    pub fn unchanged_since(&self, collection: u32, seq: u64) -> Result<bool, StoreError> {
        for entry in self.journal(seq) {
            if entry?.collection == collection {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The vectors of one record, in the order of its parts; `None` when there is no such record.
    ///
    /// # Errors
    /// [`StoreError::UnknownCollection`] or a failure to read.
    pub fn record_vectors(
        &self,
        collection: u32,
        key: &Key,
    ) -> Result<Option<Vec<RecordVector>>, StoreError> {
        Ok(self.record_whole(collection, key)?.map(|(_, vectors)| vectors))
    }

    /// A record and its vectors, in the order of its parts, both of one moment; `None` when there is no
    /// such record.
    ///
    /// # Errors
    /// [`StoreError::UnknownCollection`] or a failure to read.
    pub fn record_whole(
        &self,
        collection: u32,
        key: &Key,
    ) -> Result<Option<(StoredRecord, Vec<RecordVector>)>, StoreError> {
        let dim = self.known(collection)?.dim;
        // One view, so that an update between the two reads cannot take the vectors away.
        let view = self.db.view();
        let Some(bytes) = view.get(Family::Records, &schema::record_key(collection, key.as_str()))? else {
            return Ok(None);
        };
        let stored = rows::decode_record(&bytes, key.clone())?;
        let keys: Vec<[u8; 13]> = stored
            .points
            .iter()
            .map(|&(part, point)| schema::vector_key(collection, part.modality, point))
            .collect();
        let rows = view.get_many(Family::Vectors, &keys)?;
        let vectors = rows.into_iter().zip(&stored.points).map(|(row, &(part, point))| {
            let row = row.ok_or_else(|| {
                StoreError::corrupt(format!("record '{key}' has no vector for {part} (point {})", point.0))
            })?;
            Ok(RecordVector { part, point, embedding: schema::decode_vector(&row, dim, point)? })
        });
        let vectors = vectors.collect::<Result<_, _>>()?;
        Ok(Some((stored, vectors)))
    }

    /// All points of one modality with their vectors, in id order, as they are at this moment; later
    /// writes do not show. To build an index, note [`Store::last_seq`] before and replay
    /// [`Store::journal`] from there after: an entry may then tell of points already seen, or of points
    /// already gone, for which [`Store::vectors`] answers `None`.
    ///
    /// # Errors
    /// [`StoreError::UnknownCollection`] at once; an item is an error when its read fails.
    pub fn scan_vectors(
        &self,
        collection: u32,
        modality: Modality,
    ) -> Result<impl Iterator<Item = Result<(PointId, Embedding), StoreError>> + '_, StoreError> {
        let dim = self.known(collection)?.dim;
        let mut prefix = collection.to_be_bytes().to_vec();
        prefix.push(schema::modality_byte(modality));
        let scan = self.db.scan(Family::Vectors, &prefix, schema::after_prefix(&prefix), Depth::Whole);
        Ok(scan.map(move |pair| {
            let (key, bytes) = pair?;
            let (_, _, point) = schema::parse_vector_key(&key)
                .ok_or_else(|| StoreError::corrupt(format!("a vector lies under the key {key:02x?}")))?;
            Ok((point, schema::decode_vector(&bytes, dim, point)?))
        }))
    }

    /// The journal after `after_seq`, in order, over all collections. Pass 0 for all of it.
    pub fn journal(&self, after_seq: u64) -> impl Iterator<Item = Result<Entry, StoreError>> + '_ {
        let from = schema::journal_key(after_seq.saturating_add(1));
        self.db.scan(Family::Journal, &from, None, Depth::Whole).map(|pair| {
            let (key, row) = pair?;
            rows::decode_entry(&key, &row)
        })
    }

    /// Journal number of the last acknowledged change; 0 when there was none yet.
    pub fn last_seq(&self) -> u64 {
        self.writer.last_seq()
    }

    /// The store's directory. It is locked, and room for files that are built from the store.
    pub fn root(&self) -> &Path {
        self.directory.root()
    }

    /// Exact counts of one collection.
    ///
    /// # Errors
    /// [`StoreError::UnknownCollection`] or a failure to read.
    pub fn stats(&self, collection: u32) -> Result<Stats, StoreError> {
        self.known(collection)?;
        plan::read_stats(|key| self.db.get(Family::Meta, key), collection)
    }

    /// What the store as a whole has done and takes up.
    pub fn usage(&self) -> Usage {
        let (batches, writes) = self.writer.counts();
        Usage { disk_bytes: self.directory.disk_bytes(), last_seq: self.last_seq(), batches, writes }
    }

    /// Reads everything and proves that it agrees. Other calls go on meanwhile; the report is about
    /// the moment of the call.
    ///
    /// # Errors
    /// None of its own: problems, unreadable places included, are in the report.
    pub fn check(&self) -> CheckReport {
        check::check(&self.db.view())
    }
}

impl Drop for Store {
    /// Leaves an empty log behind, so that the next start has nothing to replay. Everything is durable
    /// already, so a failure here loses nothing and there is nobody left to tell.
    fn drop(&mut self) {
        let _ = self.writer.close();
        let _ = self.db.flush();
    }
}

fn check_version(db: &Db, dir: &Path) -> Result<(), StoreError> {
    let bytes = db
        .get(Family::Meta, schema::VERSION_KEY)?
        .ok_or_else(|| StoreError::corrupt("the database has no version"))?;
    let found = <[u8; 4]>::try_from(bytes.as_slice())
        .map(u32::from_be_bytes)
        .map_err(|_| StoreError::corrupt(format!("the version has {} bytes instead of 4", bytes.len())))?;
    if found != FORMAT_VERSION {
        return Err(StoreError::Version { dir: dir.to_owned(), found, supported: FORMAT_VERSION });
    }
    Ok(())
}

pub(crate) fn check_acknowledged(batch: u64, acknowledged: u64) -> Result<(), StoreError> {
    if batch < acknowledged {
        return Err(StoreError::corrupt(format!(
            "batch {acknowledged} was acknowledged, but the log ends at batch {batch} (to accept the loss of the \
             difference, delete the file ACKNOWLEDGED)"
        )));
    }
    Ok(())
}

pub(crate) fn read_marks(db: &Db) -> Result<Marks, StoreError> {
    let bytes = db
        .get(Family::Meta, schema::MARKS_KEY)?
        .ok_or_else(|| StoreError::corrupt("the database has no high-water marks"))?;
    Marks::decode(&bytes)
}
