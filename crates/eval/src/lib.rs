//! Retrieval metrics and protocols.
