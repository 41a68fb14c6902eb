//! Why a model directory cannot be loaded.
//!
//! Owns: [`LoadError`]. Errors of single inputs are `diptych_core::EncodeError`.

use std::path::PathBuf;

/// Why a model directory is refused. Nothing is ever replaced by a default or by random numbers.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file of the model directory is absent.
    #[error("{path} is missing; put {what} there, as published by the model's authors", path = path.display())]
    MissingFile {
        /// The file that was looked for.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// A file of the model directory cannot be read.
    #[error("cannot read {path}: {source}; check its permissions and the disk", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A setting is wrong, unknown or contradicts another one.
    #[error("{file}: {key}: {reason}")]
    Config {
        /// The file that holds the setting, such as `config.json`.
        file: String,
        /// The setting, as a dotted path such as `text_config.hidden_act`.
        key: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// The weights file is cut short or is no safetensors file.
    #[error("{path} is no whole safetensors file: {reason}; download it again", path = path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// A PyTorch checkpoint that is damaged, or holds something else than tensors.
    #[error("{path} cannot be read: {reason}", path = path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What was found, in which tensor or entry, and what to do about it.
        reason: String,
    },
    /// A tensor that the configuration calls for is absent.
    #[error(
        "the weights lack the tensor '{name}' (shape {expected:?}); download the whole checkpoint, or correct config.json if it describes another model"
    )]
    MissingTensor {
        /// The tensor.
        name: String,
        /// The shape it should have.
        expected: Vec<usize>,
    },
    /// A tensor has another shape than the configuration implies.
    #[error(
        "the tensor '{name}' has shape {found:?}, but config.json implies {expected:?}; use the config.json that was published with these weights"
    )]
    TensorShape {
        /// The tensor.
        name: String,
        /// The shape implied by the configuration.
        expected: Vec<usize>,
        /// The shape found.
        found: Vec<usize>,
    },
    /// Tensors that no part of the model would read.
    #[error(
        "the weights hold {count} tensors that config.json does not call for, such as '{name}'; use the config.json that was published with these weights"
    )]
    ExtraTensors {
        /// The first of them, in name order.
        name: String,
        /// How many there are.
        count: usize,
    },
    /// A tensor is stored in a number format that is no floating-point weight.
    #[error("the tensor '{name}' is stored as {found}; convert it to F32, F16 or BF16")]
    TensorType {
        /// The tensor.
        name: String,
        /// The format found.
        found: String,
    },
    /// A weight is NaN or infinite.
    #[error(
        "the tensor '{name}' holds a value that is not finite at position {position}; download the checkpoint again, or train again with a lower learning rate"
    )]
    NotFinite {
        /// The tensor.
        name: String,
        /// Position of the first such value, counted in row-major order.
        position: usize,
    },
    /// Weight files that contradict each other.
    #[error("the tensor '{name}' is in both {first} and {second}; keep one of them")]
    DuplicateTensor {
        /// The tensor.
        name: String,
        /// One file.
        first: String,
        /// The other file.
        second: String,
    },
    /// The tokenizer's files cannot be used.
    #[error("{file}: {reason}; use the tokenizer files that were published with these weights")]
    Tokenizer {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
}

/// Reads a whole text file of the model directory.
pub(crate) fn read_file(path: &std::path::Path, what: &'static str) -> Result<String, LoadError> {
    match std::fs::read(path) {
        Ok(bytes) => String::from_utf8(bytes).map_err(|e| LoadError::Io {
            path: path.to_owned(),
            source: std::io::Error::new(std::io::ErrorKind::InvalidData, e),
        }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            Err(LoadError::MissingFile { path: path.to_owned(), what })
        }
        Err(source) => Err(LoadError::Io { path: path.to_owned(), source }),
    }
}
