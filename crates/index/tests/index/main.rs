//! What the index promises, through its public interface.

#![allow(clippy::unwrap_used)]

mod concurrency;
mod data;
mod deletes;
mod edges;
mod model;
mod reachability;
mod recall;
mod table;
