//! The durable truth: records, parts, vectors and the journal, in RocksDB.
