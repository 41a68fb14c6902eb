//! The generated wire types of `diptych.v1`, and the descriptor set that describes them.
//!
//! Owns nothing of its own: the truth is `proto/diptych/v1/*.proto`. Conversions to and from the
//! core types live in the server, in one file.

/// The package `diptych.v1`.
pub mod v1 {
    #![allow(missing_docs, clippy::all, clippy::pedantic, clippy::unwrap_used)]
    tonic::include_proto!("diptych.v1");
}

/// The well-known types that messages are made of.
pub use prost_types::{FieldMask, Timestamp};

/// The compiled descriptors of `diptych.v1`, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/diptych.v1.bin"));
