//! Sealed segments: points that no longer change, in flat files that are read in place.

pub(crate) mod bridges;
pub(crate) mod build;
pub(crate) mod code;
pub(crate) mod container;
pub(crate) mod filter;
pub(crate) mod graph;
pub(crate) mod kernel;
pub(crate) mod links;
pub(crate) mod points;
pub(crate) mod search;
pub(crate) mod segment;
pub(crate) mod walk;
