//! A thin safe face on RocksDB, the only file that names it: families, batches, snapshots, scans,
//! tuning, and errors translated into ours. What the bytes mean is not known here.

use std::path::Path;

use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBIterator,
    DBRecoveryMode, Direction, ErrorKind, FlushOptions, IteratorMode, LogLevel, Options, ReadOptions,
    Snapshot, WriteBatch, WriteOptions,
};

use crate::StoreError;
use crate::schema::{self, Family};

const MIB: usize = 1 << 20;

/// How to open a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Create what is missing.
    Create,
    /// Everything must be there.
    Existing,
    /// As `Existing`, and change no file: the log is replayed in memory only.
    ReadOnly,
}

/// An open database.
pub(crate) struct Db(DB);

impl Db {
    pub(crate) fn open(path: &Path, access: Access, cache_bytes: usize) -> Result<Self, StoreError> {
        let cache = Cache::new_lru_cache(cache_bytes);
        let mut options = database_options(access);
        let mut wanted = Family::ALL.to_vec();
        if access != Access::Create && lacks_thumbnails(&options, path) {
            match access {
                Access::ReadOnly => wanted.retain(|family| *family != Family::Thumbnails),
                Access::Create | Access::Existing => options.create_missing_column_families(true),
            }
        }
        let families = wanted
            .into_iter()
            .map(|family| ColumnFamilyDescriptor::new(family.name(), family_options(family, &cache)));
        let db = match access {
            Access::ReadOnly => DB::open_cf_descriptors_read_only(&options, path, families, false),
            Access::Create | Access::Existing => DB::open_cf_descriptors(&options, path, families),
        };
        db.map(Self).map_err(|e| open_error(path, e))
    }

    /// Collects changes for [`Db::write`].
    pub(crate) fn batch(&self) -> Batch<'_> {
        Batch { db: self, inner: WriteBatch::default() }
    }

    /// Applies a batch as one; on return it has reached the disk.
    pub(crate) fn write(&self, batch: Batch<'_>) -> Result<(), StoreError> {
        let mut options = WriteOptions::default();
        options.set_sync(true);
        self.0.write_opt(batch.inner, &options).map_err(|e| error("writing to the store", e))
    }

    /// Reads the newest value.
    pub(crate) fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.get_with(family, key, &ReadOptions::default())
    }

    /// Reads the newest values, in the order of the keys.
    pub(crate) fn get_many(
        &self,
        family: Family,
        keys: &[impl AsRef<[u8]>],
    ) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.get_many_with(family, keys, &ReadOptions::default())
    }

    /// Walks the keys from `from` to before `until`, as they are at this moment.
    pub(crate) fn scan(&self, family: Family, from: &[u8], until: Option<Vec<u8>>, depth: Depth) -> Scan<'_> {
        self.scan_with(family, from, until, depth, ReadOptions::default())
    }

    /// Walks the keys that begin with `prefix`, as they are at this moment.
    pub(crate) fn scan_prefix(&self, family: Family, prefix: &[u8]) -> Scan<'_> {
        self.scan(family, prefix, schema::after_prefix(prefix), Depth::Page)
    }

    /// Freezes the present state for several reads.
    pub(crate) fn view(&self) -> View<'_> {
        View { db: self, snapshot: self.0.snapshot() }
    }

    /// Makes a copy of the database as it is at one moment, at a path where nothing is.
    pub(crate) fn checkpoint(&self, path: &Path) -> Result<(), StoreError> {
        let made = Checkpoint::new(&self.0).and_then(|checkpoint| checkpoint.create_checkpoint(path));
        made.map_err(|e| error("copying the store", e))
    }

    /// Moves everything from memory and log into tables.
    pub(crate) fn flush(&self) -> Result<(), StoreError> {
        let families = Family::ALL.map(|family| self.family(family));
        self.0.flush_cfs_opt(&families, &FlushOptions::default()).map_err(|e| error("flushing the store", e))
    }

    fn family(&self, family: Family) -> &ColumnFamily {
        self.0.cf_handle(family.name()).expect("the database was opened with every family")
    }

    fn get_with(
        &self,
        family: Family,
        key: &[u8],
        options: &ReadOptions,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.get_cf_opt(self.family(family), key, options).map_err(|e| error("reading from the store", e))
    }

    fn get_many_with(
        &self,
        family: Family,
        keys: &[impl AsRef<[u8]>],
        options: &ReadOptions,
    ) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.0
            .batched_multi_get_cf_opt(self.family(family), keys, false, options)
            .into_iter()
            .map(|value| match value {
                Ok(value) => Ok(value.map(|bytes| bytes.to_vec())),
                Err(e) => Err(error("reading from the store", e)),
            })
            .collect()
    }

    fn scan_with(
        &self,
        family: Family,
        from: &[u8],
        until: Option<Vec<u8>>,
        depth: Depth,
        mut options: ReadOptions,
    ) -> Scan<'_> {
        if let Some(until) = until {
            options.set_iterate_upper_bound(until);
        }
        if depth == Depth::Whole {
            // A walk over everything would only push out what searches need.
            options.fill_cache(false);
            options.set_readahead_size(2 * MIB);
        }
        Scan(self.0.iterator_cf_opt(
            self.family(family),
            options,
            IteratorMode::From(from, Direction::Forward),
        ))
    }
}

/// How much a scan is going to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// A few rows.
    Page,
    /// A whole range.
    Whole,
}

/// Changes that happen together or not at all.
pub(crate) struct Batch<'a> {
    db: &'a Db,
    inner: WriteBatch,
}

impl Batch<'_> {
    pub(crate) fn put(&mut self, family: Family, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.inner.put_cf(self.db.family(family), key, value);
    }

    pub(crate) fn delete(&mut self, family: Family, key: impl AsRef<[u8]>) {
        self.inner.delete_cf(self.db.family(family), key);
    }

    /// Deletes the keys from `from` to before `until`, however many they are.
    pub(crate) fn delete_range(&mut self, family: Family, from: &[u8], until: &[u8]) {
        self.inner.delete_range_cf(self.db.family(family), from, until);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.inner.is_empty()
    }
}

/// The state of the database at one moment.
pub(crate) struct View<'a> {
    db: &'a Db,
    snapshot: Snapshot<'a>,
}

impl View<'_> {
    pub(crate) fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.db.get_with(family, key, &self.options())
    }

    pub(crate) fn get_many(
        &self,
        family: Family,
        keys: &[impl AsRef<[u8]>],
    ) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.db.get_many_with(family, keys, &self.options())
    }

    pub(crate) fn scan_all(&self, family: Family) -> Scan<'_> {
        self.db.scan_with(family, &[], None, Depth::Whole, self.options())
    }

    fn options(&self) -> ReadOptions {
        let mut options = ReadOptions::default();
        options.set_snapshot(&self.snapshot);
        options.set_verify_checksums(true);
        options
    }
}

/// A key with its value.
pub(crate) type Pair = (Box<[u8]>, Box<[u8]>);

/// Keys in ascending order with their values.
pub(crate) struct Scan<'a>(DBIterator<'a>);

impl Iterator for Scan<'_> {
    type Item = Result<Pair, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|pair| pair.map_err(|e| error("reading from the store", e)))
    }
}

/// Whether a database is from before small pictures were kept, and has all else. One that lacks more is damaged.
fn lacks_thumbnails(options: &Options, path: &Path) -> bool {
    let Ok(there) = DB::list_cf(options, path) else { return false };
    let missing = |family: &Family| !there.iter().any(|name| name == family.name());
    Family::ALL.into_iter().filter(missing).eq([Family::Thumbnails])
}

fn database_options(access: Access) -> Options {
    let mut options = Options::default();
    options.create_if_missing(access == Access::Create);
    options.create_missing_column_families(access == Access::Create);
    // Refuse a damaged log instead of quietly stopping before the damage.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_paranoid_checks(true);
    // All families reach the tables together, so that damage to the manifest's end can only take the
    // whole store back to an earlier state, which the acknowledgement mark then tells.
    options.set_atomic_flush(true);
    // Every table is opened, and its footer checked, at start.
    options.set_max_open_files(-1);
    options.set_max_background_jobs(4);
    // Bulk ingestion of a million vectors is some gigabytes: buffers large enough not to stall, and a
    // bound on all of them together.
    options.set_db_write_buffer_size(256 * MIB);
    options.set_max_total_wal_size(512 * MIB as u64);
    options.set_bytes_per_sync(MIB as u64);
    // The database's own log stays small and free of keys.
    options.set_log_level(LogLevel::Warn);
    options.set_max_log_file_size(MIB);
    options.set_keep_log_file_num(4);
    options.set_stats_dump_period_sec(0);
    options
}

fn family_options(family: Family, cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_bloom_filter(10.0, false);
    table.set_format_version(5);
    let mut options = Options::default();
    match family {
        Family::Vectors => {
            // Unit vectors do not compress. They arrive in key order, so the tables hardly overlap.
            options.set_compression_type(DBCompressionType::None);
            table.set_block_size(16 << 10);
            options.set_write_buffer_size(64 * MIB);
            options.set_max_write_buffer_number(4);
            options.set_target_file_size_base(128 * MIB as u64);
            options.set_max_bytes_for_level_base(512 * MIB as u64);
        }
        Family::Records | Family::Points | Family::Journal => {
            options.set_compression_type(DBCompressionType::Lz4);
            table.set_block_size(8 << 10);
            options.set_write_buffer_size(32 * MIB);
            options.set_max_write_buffer_number(4);
        }
        Family::Thumbnails => {
            // JPEG files do not compress, and are read one by one.
            options.set_compression_type(DBCompressionType::None);
            table.set_block_size(16 << 10);
            options.set_write_buffer_size(32 * MIB);
        }
        Family::Meta | Family::Collections => {
            options.set_compression_type(DBCompressionType::None);
            options.set_write_buffer_size(4 * MIB);
        }
    }
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_block_based_table_factory(&table);
    options
}

/// Translates a failure to open: what is missing or unexpected then is damage, not a bad request.
fn open_error(path: &Path, e: rocksdb::Error) -> StoreError {
    if e.as_ref().contains("LOCK:") || e.as_ref().contains("lock hold by") {
        return StoreError::InUse { lock: path.join("LOCK"), holder: "another program".to_owned() };
    }
    match e.kind() {
        ErrorKind::InvalidArgument | ErrorKind::NotFound => StoreError::corrupt(e.into_string()),
        _ => error("opening the store", e),
    }
}

fn error(doing: &'static str, e: rocksdb::Error) -> StoreError {
    let kind = e.kind();
    let reason = e.into_string();
    let says = |words: &[&str]| words.iter().any(|word| reason.contains(word));
    if kind == ErrorKind::Corruption || says(&["Corruption: ", "No such file or directory"]) {
        StoreError::corrupt(reason)
    } else if says(&["No space left on device", "Space limit reached", "Disk quota exceeded"]) {
        StoreError::Full { doing, reason }
    } else {
        StoreError::Io { doing, reason }
    }
}
