//! The durable truth: records, parts, vectors and the journal, in RocksDB.
//!
//! The promise: what was acknowledged is there after any crash, and what is not whole is refused
//! instead of being served.
//!
//! Owns: the directory ([`Store::open`]), what is written and in which order ([`Store::write`]), what
//! can be read back, and the proof that all of it agrees ([`Store::check`]).
//! Deliberately absent: models, graphs, search, networking, wall-clock time. Everything is ordered by
//! a sequence number that the store gives out itself.
//!
//! Reading order: `values` (what goes in and comes out), `schema` and `rows` (how it lies on disk),
//! `directory` (files around the database), `db` (the only file that names RocksDB), `commit`,
//! `plan` and `requests` (the one write path), `store` and `collections` (the public face), `check` (the audit),
//! `checkpoint` (a copy beside the store in use).

mod check;
mod checkpoint;
mod collections;
mod commit;
mod db;
mod directory;
mod error;
mod plan;
mod requests;
mod rows;
mod schema;
mod store;
#[cfg(test)]
mod tests;
mod values;

pub use check::CheckReport;
pub use checkpoint::Checkpoint;
pub use error::StoreError;
pub use schema::FORMAT_VERSION;
pub use store::{Store, StoreOptions};
pub use values::{
    Applied, Collection, Entry, Mutation, NewCollection, Once, Outcome, PutMode, RecordVector, Remembered,
    Request, Stats, StoredRecord, Usage,
};
