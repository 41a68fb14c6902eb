//! The generated wire types of `diptych.v1`, and the descriptor set that describes them.
//!
//! The truth is `proto/diptych/v1/*.proto`. Owns, beside what is generated, the conversions of core values that a
//! server and a client both need. Deliberately absent: services and calls.

pub mod convert;

/// The package `diptych.v1`.
pub mod v1 {
    #![allow(missing_docs, clippy::all, clippy::pedantic, clippy::unwrap_used)]
    tonic::include_proto!("diptych.v1");
}

/// The well-known types that messages are made of.
pub use prost_types::{FieldMask, Timestamp};

/// The compiled descriptors of `diptych.v1`, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/diptych.v1.bin"));
