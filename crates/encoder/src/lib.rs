//! Bytes or text to embeddings: checkpoints, preprocessing, tokenizers, the forward pass.

mod config;
mod error;
mod json;

pub use config::{Activation, CONFIG_FILE, ClipConfig, TextConfig, VisionConfig};
pub use error::LoadError;
