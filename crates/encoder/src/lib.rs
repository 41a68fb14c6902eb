//! Bytes or text to embeddings: checkpoints, preprocessing, tokenizers, the forward pass.
//!
//! Owns: reading a Hugging Face `CLIPModel` directory exactly as the reference library does, and
//! [`DualEncoder`], the [`diptych_core::Encode`] over it. Deliberately absent: storage, threads and
//! queues of its own, training. Fidelity is checked against stored outputs of the reference.

mod config;
mod decode;
mod error;
mod json;
mod model;
mod ops;
#[cfg_attr(not(test), expect(dead_code, reason = "the weights do not read checkpoints yet"))]
mod pickle;
mod preprocess;
mod resize;
mod tokenizer;
mod tower;
mod weights;

pub use config::{Activation, CONFIG_FILE, ClipConfig, TextConfig, VisionConfig};
pub use decode::decode;
pub use error::LoadError;
/// Decoded pixels: interleaved 8-bit RGB rows.
pub use image::RgbImage;
pub use model::DualEncoder;
pub use preprocess::{
    CLIP_MEAN, CLIP_STD, PREPROCESSOR_FILE, PROCESSOR_FILE, Pixels, Preprocessing, ProcessorFamily,
};
pub use resize::Filter;
pub use tokenizer::{
    Cleaning, Padding, TOKENIZER_FILE, TextTokenizer, TokenizerSummary, clip_tokenizer_json,
};
pub use weights::{WEIGHTS_FILE, tensor_shapes};
