//! PyTorch checkpoints (`pytorch_model.bin`, `open_clip_pytorch_model.bin`, `.pt`): where each tensor lies.
//!
//! Owns: finding the state dict within a checkpoint and the place, shape and format of its tensors,
//! for the zip container of PyTorch 1.6 and later and for the stream before it. The pickle inside is
//! interpreted symbolically (`machine`): a short list of names has a meaning, everything else is
//! refused, nothing is ever imported or run. Values are not copied, they stay in the mapped file;
//! only a tensor whose elements do not lie in row-major order is gathered into memory of its own.
//! Does not own what the tensors mean, nor which ones there must be.

mod archive;
mod legacy;
mod machine;
mod tensors;
#[cfg(test)]
mod tests;
mod values;
#[cfg(test)]
mod writer;

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::Path;

use safetensors::Dtype;

use crate::error::LoadError;
use archive::Archive;
use machine::Machine;
use values::{Id, Node, shown};

/// Bytes of pickle in one checkpoint. A state dict needs about 150 per tensor.
const MAX_PICKLE: usize = 64 << 20;
/// Tensors of one state dict.
const MAX_TENSORS: usize = 100_000;

/// One tensor of a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PickledTensor {
    /// Its name in the state dict, without the `module.` of data-parallel training.
    pub(crate) name: String,
    /// How its elements are stored, little-endian.
    pub(crate) dtype: Dtype,
    /// Its shape; a scalar has none.
    pub(crate) shape: Vec<usize>,
    /// Its elements in row-major order.
    pub(crate) bytes: TensorBytes,
}

/// Where the elements of a tensor are.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum TensorBytes {
    /// Within the checkpoint.
    InFile(Range<usize>),
    /// In memory: they were stored transposed, sliced or expanded.
    Gathered(Vec<u8>),
}

impl TensorBytes {
    /// The elements, given the checkpoint that they were read from.
    pub(crate) fn of<'a>(&'a self, file: &'a [u8]) -> &'a [u8] {
        match self {
            Self::InFile(range) => &file[range.clone()],
            Self::Gathered(bytes) => bytes,
        }
    }
}

/// Why a checkpoint is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PickleError {
    /// Neither form of a checkpoint.
    #[error("{0}")]
    Form(String),
    /// The container contradicts itself or ends early.
    #[error("{entry}: {reason}; download it again")]
    Container {
        /// The entry of the container, or the part of it.
        entry: String,
        /// What was found.
        reason: String,
    },
    /// The pickle asks for something to be imported, called or built.
    #[error(
        "it holds {0}: code in a pickle, which is never run; use the .safetensors file of this model, or, where its author is trusted, load it in PyTorch and save its state_dict with safetensors.torch.save_file"
    )]
    Code(String),
    /// The pickle is malformed.
    #[error("the pickle is malformed at byte {at}: {reason}; download it again")]
    Pickle {
        /// Position within the pickle.
        at: usize,
        /// What was found.
        reason: String,
    },
    /// There is no state dict where one is looked for.
    #[error("{0}; save the model's state_dict() alone, with torch.save or safetensors.torch.save_file")]
    Layout(String),
    /// A tensor cannot be read.
    #[error(
        "the tensor '{name}' {reason}; download the checkpoint again, or save its state_dict with safetensors.torch.save_file"
    )]
    Tensor {
        /// Its name in the state dict.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// More than any checkpoint of a dual encoder needs.
    #[error("it holds more than {limit} {what}; save the model's state_dict() alone")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much is read.
        limit: usize,
    },
}

impl PickleError {
    /// The error of a model directory whose weights file is refused.
    pub(crate) fn in_file(self, path: &Path) -> LoadError {
        LoadError::Checkpoint { path: path.to_owned(), reason: self.to_string() }
    }
}

/// Finds every tensor of the state dict in a checkpoint, in its order.
///
/// The state dict is the top of the checkpoint, or what it holds under `state_dict` or `model`; when
/// its first name starts with `module.`, all names lose that prefix. What lies beside the state dict
/// (an optimizer, an epoch) is left alone.
///
/// # Errors
/// [`PickleError`]: the file is cut short, damaged (checksums are verified where they are stored),
/// compressed, big-endian, holds code, or its state dict holds anything but tensors.
pub(crate) fn read(file: &[u8]) -> Result<Vec<PickledTensor>, PickleError> {
    if file.starts_with(b"PK\x03\x04") {
        let archive = Archive::open(file)?;
        let (machine, root) = run_whole(archive.checked("data.pkl")?)?;
        let storages = archive.storages();
        let tensors = state_dict(&machine, root, file, &storages)?;
        archive.verify(&storages_of(&machine, &tensors))?;
        Ok(tensors.into_iter().map(|t| t.tensor).collect())
    } else if legacy::is_legacy(file) {
        let stream = legacy::open(file)?;
        let tensors = state_dict(&stream.machine, stream.root, file, &stream.storages)?;
        Ok(tensors.into_iter().map(|t| t.tensor).collect())
    } else if file.starts_with(b"version https://git-lfs") {
        Err(PickleError::Form("it is a Git LFS pointer, not the weights themselves; run git lfs pull".into()))
    } else {
        Err(PickleError::Form(
            "it is no checkpoint that torch.save wrote; download it again, or use the .safetensors file"
                .into(),
        ))
    }
}

/// A tensor of the state dict with the storage that it reads.
struct Found {
    tensor: PickledTensor,
    storage: Id,
}

fn run_whole(pickle: &[u8]) -> Result<(Machine<'_>, Id), PickleError> {
    if pickle.len() > MAX_PICKLE {
        return Err(PickleError::TooLarge { what: "bytes of pickle", limit: MAX_PICKLE });
    }
    let mut machine = Machine::new(pickle);
    let root = machine.run()?;
    match pickle.len() - machine.position() {
        0 => Ok((machine, root)),
        rest => Err(PickleError::Pickle {
            at: machine.position(),
            reason: format!("{rest} bytes follow its end"),
        }),
    }
}

/// Finds the state dict and resolves its tensors.
fn state_dict(
    machine: &Machine<'_>,
    root: Id,
    file: &[u8],
    storages: &HashMap<&str, Range<usize>>,
) -> Result<Vec<Found>, PickleError> {
    let entries = unwrap_state_dict(machine, root)?;
    if entries.is_empty() {
        return Err(PickleError::Layout("its state dict is empty".into()));
    }
    if entries.len() > MAX_TENSORS {
        return Err(PickleError::TooLarge { what: "tensors", limit: MAX_TENSORS });
    }
    let mut names = HashSet::with_capacity(entries.len());
    let mut prefix = "";
    let mut found = Vec::with_capacity(entries.len());
    // A tensor that must be gathered may claim many times the bytes that it is stored in.
    let mut budget = file.len();
    for (position, &(key, value)) in entries.iter().enumerate() {
        let Node::Str(full) = *machine.node(key) else {
            return Err(PickleError::Layout(format!(
                "entry {position} of its state dict has {} as name",
                machine.node(key).describe()
            )));
        };
        if position == 0 && full.starts_with("module.") {
            prefix = "module.";
        }
        let Some(name) = full.strip_prefix(prefix) else {
            return Err(PickleError::Layout(format!(
                "its state dict mixes names with and without the prefix 'module.', such as '{}'",
                shown(full)
            )));
        };
        if !names.insert(name) {
            return Err(PickleError::Tensor { name: shown(name), reason: "is stored twice".into() });
        }
        found.push(tensors::resolve(machine, name, value, file, storages, &mut budget)?);
    }
    Ok(found)
}

fn unwrap_state_dict<'m>(machine: &'m Machine<'_>, root: Id) -> Result<&'m [(Id, Id)], PickleError> {
    let Node::Dict(entries) = machine.node(root) else {
        return Err(PickleError::Layout(format!(
            "it holds {} instead of a state dict",
            machine.node(root).describe()
        )));
    };
    for wrapper in ["state_dict", "model"] {
        // The last one counts, as in a Python dict.
        let inner = entries.iter().rev().find(|(key, _)| machine.node(*key).as_str() == Some(wrapper));
        match inner.map(|(_, value)| machine.node(*value)) {
            Some(Node::Dict(inner)) => return Ok(inner),
            // A tensor of that name would be part of the state dict itself.
            Some(Node::Tensor { .. }) | None => {}
            Some(other) => {
                return Err(PickleError::Layout(format!(
                    "its entry '{wrapper}' is {} instead of a state dict",
                    other.describe()
                )));
            }
        }
    }
    Ok(entries)
}

/// The storages that tensors read, each once.
fn storages_of<'a>(machine: &Machine<'a>, tensors: &[Found]) -> Vec<&'a str> {
    let mut keys: Vec<&str> = tensors
        .iter()
        .filter_map(|found| match machine.node(found.storage) {
            Node::Storage { key, .. } => Some(*key),
            _ => None,
        })
        .collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}
