//! Writing a directory anew from one that was opened.
//!
//! Owns: which files go along, and the stored format of every value. Deliberately absent: what the tensors
//! mean.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use diptych_files::FileError;
use safetensors::{Dtype, SafeTensorError, View};

use crate::error::LoadError;
use crate::family::sentence;
use crate::weights::{HUGGING_FACE_FILES, OPEN_CLIP_FILES, Stored, Weights};

/// Most bytes of a file that is copied beside the weights. The largest published vocabulary has an
/// eighth of it.
const COMPANION_MAX: u64 = 256 << 20;

/// A directory with weights, from which another one can be written.
pub(super) struct Original {
    pub(super) path: PathBuf,
    /// What the weights of a directory of its family are called.
    pub(super) weights_file: &'static str,
    pub(super) weights: Weights,
}

/// Why a checkpoint cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A value for a tensor that the checkpoint does not have.
    #[error("the checkpoint has no tensor '{name}' to replace; name one that its anatomy names")]
    Unknown {
        /// The tensor.
        name: String,
    },
    /// Another number of values than the tensor has.
    #[error("{found} values for the tensor '{name}', which has {expected}; keep the shape it is stored with")]
    Length {
        /// The tensor.
        name: String,
        /// Values of the stored tensor.
        expected: usize,
        /// Values that were given.
        found: usize,
    },
    /// A value that the loader would refuse: not a number, or beyond the range of the stored format.
    #[error(
        "the value {value} of '{name}' at position {position} is not finite as {format}, in which the checkpoint stores it; train again with a lower learning rate"
    )]
    NotFinite {
        /// The tensor.
        name: String,
        /// Position of the first such value, counted in row-major order.
        position: usize,
        /// The value.
        value: f32,
        /// The stored format.
        format: String,
    },
    /// The target is the directory that is being copied.
    #[error("{path} holds the checkpoint that is being copied; name another folder", path = path.display())]
    Source {
        /// The folder.
        path: PathBuf,
    },
    /// The target has weights under another name, and a loader could prefer them.
    #[error("{path} is there already and could be taken for the new weights; remove it or name another folder", path = path.display())]
    Occupied {
        /// The other file.
        path: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("cannot {action} {path}: {source}; check its permissions and the space on the disk", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Original {
    /// The values of a whole tensor, row-major as stored, up-cast from half precision.
    pub(super) fn tensor(&self, name: &str) -> Result<Vec<f32>, LoadError> {
        Ok(self.weights.take(name, self.weights.shape(name)?)?.to_vec())
    }

    /// Writes the directory again, with other values for the tensors of `replaced`; see
    /// [`super::Checkpoint::write`].
    pub(super) fn write(&self, out: &Path, replaced: &BTreeMap<String, Vec<f32>>) -> Result<u64, WriteError> {
        let tensors = self.tensors(replaced)?;
        fs::create_dir_all(out).map_err(io("create", out))?;
        self.check_target(out)?;
        let mut written = 0;
        for name in self.companions()? {
            let (path, target) = (self.path.join(&name), out.join(&name));
            let bytes = fs::read(&path).map_err(io("read", &path))?;
            if let Some(folder) = target.parent() {
                fs::create_dir_all(folder).map_err(io("create", folder))?;
            }
            written += replace(&target, |temporary| File::create(temporary)?.write_all(&bytes))?;
        }
        // The transformers library refuses files that do not name their framework.
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        written += replace(&out.join(self.weights_file), |temporary| {
            // The library writes a file for its owner alone; this one is as any new file is.
            let permissions = File::create(temporary)?.metadata()?.permissions();
            safetensors::serialize_to_file(tensors, Some(metadata), temporary).map_err(|e| match e {
                SafeTensorError::IoError(e) => e,
                other => std::io::Error::other(other),
            })?;
            fs::set_permissions(temporary, permissions)
        })?;
        Ok(written)
    }

    /// All tensors as they are to be written.
    fn tensors<'a>(
        &'a self,
        replaced: &'a BTreeMap<String, Vec<f32>>,
    ) -> Result<Vec<(&'a str, Tensor<'a>)>, WriteError> {
        if let Some(name) = replaced.keys().find(|name| !self.weights.has(name)) {
            return Err(WriteError::Unknown { name: name.clone() });
        }
        let tensor = |stored: Stored<'a>| {
            let values = replaced.get(stored.name).map(Vec::as_slice);
            check_values(&stored, values.unwrap_or_default(), values.is_some())?;
            Ok((stored.name, Tensor { stored, values }))
        };
        self.weights.stored().map(tensor).collect()
    }

    /// The target must load as what is written, and must not be the source.
    fn check_target(&self, out: &Path) -> Result<(), WriteError> {
        let whole = |path: &Path| path.canonicalize().map_err(io("open", path));
        if whole(out)? == whole(&self.path)? {
            return Err(WriteError::Source { path: out.to_owned() });
        }
        let others =
            HUGGING_FACE_FILES.iter().chain(&OPEN_CLIP_FILES).filter(|name| **name != self.weights_file);
        match others.map(|name| out.join(name)).find(|path| path.exists()) {
            Some(path) => Err(WriteError::Occupied { path }),
            None => Ok(()),
        }
    }

    /// The files beside the weights, in name order.
    fn companions(&self) -> Result<Vec<PathBuf>, WriteError> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(io("read", &self.path))? {
            let name = PathBuf::from(entry.map_err(io("read", &self.path))?.file_name());
            if !is_companion(&name.to_string_lossy()) {
                continue;
            }
            // Caches link to their files, so that the link is followed.
            let path = self.path.join(&name);
            let data = fs::metadata(&path).map_err(io("read", &path))?;
            if data.is_file() && data.len() <= COMPANION_MAX {
                found.push(name);
            }
        }
        found.extend(self.path.join(sentence::POOLING_FILE).exists().then(|| sentence::POOLING_FILE.into()));
        found.sort();
        Ok(found)
    }
}

/// Settings, vocabularies and licences; not weights, nor what describes this very checkpoint.
fn is_companion(name: &str) -> bool {
    let lower = name.to_lowercase();
    let licence = ["license", "licence", "notice", "copying"].iter().any(|word| lower.starts_with(word));
    let kept = [".json", ".txt", ".model"].iter().any(|end| lower.ends_with(end));
    let dropped = lower.starts_with('.') || lower.starts_with("readme") || lower.ends_with(".index.json");
    (licence || kept) && !dropped
}

fn check_values(stored: &Stored<'_>, values: &[f32], given: bool) -> Result<(), WriteError> {
    let (name, expected) = (stored.name.to_owned(), stored.shape.iter().product());
    if given && values.len() != expected {
        return Err(WriteError::Length { name, expected, found: values.len() });
    }
    let finite = |value: f32| match stored.dtype {
        Dtype::F16 => half::f16::from_f32(value).is_finite(),
        Dtype::BF16 => half::bf16::from_f32(value).is_finite(),
        _ => value.is_finite(),
    };
    match values.iter().position(|value| !finite(*value)) {
        Some(position) => {
            let format = format!("{:?}", stored.dtype);
            Err(WriteError::NotFinite { name, position, value: values[position], format })
        }
        None => Ok(()),
    }
}

/// A tensor to write: as stored, or with other values in the stored format.
struct Tensor<'a> {
    stored: Stored<'a>,
    values: Option<&'a [f32]>,
}

impl View for Tensor<'_> {
    fn dtype(&self) -> Dtype {
        self.stored.dtype
    }

    fn shape(&self) -> &[usize] {
        self.stored.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let Some(values) = self.values else { return Cow::Borrowed(self.stored.bytes) };
        Cow::Owned(match self.stored.dtype {
            Dtype::F16 => values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect(),
            Dtype::BF16 => values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect(),
            _ => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        })
    }

    fn data_len(&self) -> usize {
        self.stored.bytes.len()
    }
}

/// Puts a file in place whole, and returns its size.
fn replace(path: &Path, write: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<u64, WriteError> {
    diptych_files::replace_with(path, write).map_err(|error| {
        let FileError { action, path, source } = error;
        WriteError::Io { action, path, source }
    })
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> WriteError {
    let path = path.to_owned();
    move |source| WriteError::Io { action, path, source }
}
