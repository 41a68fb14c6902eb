//! Bytes or text to embeddings: checkpoints, preprocessing, tokenizers, the forward pass.
