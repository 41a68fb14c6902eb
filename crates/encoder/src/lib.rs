//! Bytes or text to embeddings: checkpoints, preprocessing, tokenizers, the forward pass.
//!
//! Owns: reading the directories of published dual encoders exactly as their reference libraries do, and
//! [`DualEncoder`], the [`diptych_core::Encode`] over them. Deliberately absent: storage, threads and
//! queues of its own, training. Fidelity is checked against stored outputs of the references.

mod activation;
pub mod anatomy;
mod checkpoint;
mod compose;
mod config;
mod decode;
mod error;
mod family;
mod head;
mod jpeg;
mod json;
mod model;
mod pickle;
mod precision;
mod preprocess;
mod resize;
mod thumbnail;
mod tokenizer;
mod tower;
mod trunk;
mod weights;

pub use activation::Activation;
pub use checkpoint::{Checkpoint, TextCheckpoint, WriteError};
pub use compose::{ComposeError, ComposedSide, write_composed};
pub use config::{CONFIG_FILE, ClipConfig, TextConfig, VisionConfig};
pub use decode::decode;
pub use error::LoadError;
pub use family::{Family, clip_anatomy};
pub use head::{Head, HeadError, HeadLayer, HeadSpec, HeadTensor};
/// Decoded pixels: interleaved 8-bit RGB rows.
pub use image::RgbImage;
pub use model::DualEncoder;
pub use precision::Precision;
pub use preprocess::{
    CLIP_MEAN, CLIP_STD, PREPROCESSOR_FILE, PROCESSOR_FILE, Pixels, Preprocessing, ProcessorFamily,
};
pub use resize::Filter;
pub use thumbnail::thumbnail;
pub use tokenizer::{
    Cleaning, Padding, TOKENIZER_FILE, TextTokenizer, TokenizerSummary, clip_tokenizer_json,
};
pub use trunk::{ImageTrunk, TextTrunk};
pub use weights::WEIGHTS_FILE;
