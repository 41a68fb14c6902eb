//! Black-box tests: the real program, a real server, real RocksDB, real sockets.
//!
//! One binary, one module per story. Nothing here reaches into a crate's insides.

#![allow(clippy::unwrap_used, missing_docs)]

mod access;
mod answers;
mod api_page;
mod archives;
mod backup;
mod bad_input;
mod client;
mod collections;
mod config;
mod crash;
mod deidentification;
mod evaluation;
mod export;
mod filters;
mod hybrid;
mod index;
mod journey;
mod long_text;
mod metrics;
mod named_model;
mod operations;
mod python_client;
mod queries;
mod real_data;
mod recall;
mod records;
mod reports;
mod similar;
mod support;
mod training;
mod wire;
