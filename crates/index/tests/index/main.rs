//! What the index promises, through its public interface.

#![allow(clippy::unwrap_used)]

mod churn;
mod concurrency;
mod data;
mod deletes;
mod edges;
mod files;
mod filtered;
mod model;
mod oracle;
mod properties;
mod queries;
mod reachability;
mod real;
mod recall;
mod table;
