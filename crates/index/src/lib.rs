//! Embeddings to nearest ids: a live HNSW graph and its exact oracle.
