//! A model directory as training sees it: what its towers are made of, the values, and a new directory
//! with other values.
//!
//! Owns: opening a directory of any family without packing its towers, and writing one that loads as
//! the same family. Deliberately absent: arithmetic, and which values are replaced by what.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use diptych_core::Digest;
use safetensors::{Dtype, SafeTensorError, View};

use crate::anatomy::{Anatomy, VisionParts};
use crate::error::LoadError;
use crate::family::{Directory, Family};
use crate::precision::Precision;
use crate::preprocess::Preprocessing;
use crate::tokenizer::TextTokenizer;
use crate::weights::{HUGGING_FACE_FILES, OPEN_CLIP_FILES, Stored, Weights};

/// Most bytes of a file that is copied beside the weights. The largest published vocabulary has an
/// eighth of it.
const COMPANION_MAX: u64 = 256 << 20;

/// A model directory, opened for its tensors.
pub struct Checkpoint {
    path: PathBuf,
    family: Family,
    /// What the weights of the family are called.
    weights_file: &'static str,
    weights: Weights,
    anatomy: Anatomy,
    preprocessing: Preprocessing,
    tokenizer: TextTokenizer,
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

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpoint")
            .field("path", &self.path)
            .field("family", &self.family)
            .finish_non_exhaustive()
    }
}

impl Checkpoint {
    /// Opens a model directory of any known [`Family`], recognised as by [`crate::DualEncoder::load`].
    /// Weights are mapped, not read.
    ///
    /// # Errors
    /// See [`LoadError`]: what does not load is not opened either, except that values are looked at only
    /// when they are asked for, and the tensors of convolutional image towers not at all.
    pub fn open(dir: &Path) -> Result<Self, LoadError> {
        let directory = Directory::open(dir)?;
        let weights = directory.weights(Precision::F32)?;
        let (anatomy, preprocessing, tokenizer) = directory.describe(&weights)?.into_anatomy();
        check(&anatomy, &weights)?;
        let (family, weights_file) = (directory.family, directory.weight_files()[0]);
        let path = dir.to_owned();
        Ok(Self { path, family, weights_file, weights, anatomy, preprocessing, tokenizer })
    }

    /// The family it belongs to.
    pub fn family(&self) -> Family {
        self.family
    }

    /// What the towers are made of.
    pub fn anatomy(&self) -> &Anatomy {
        &self.anatomy
    }

    /// How it wants its images.
    pub fn preprocessing(&self) -> &Preprocessing {
        &self.preprocessing
    }

    /// How it reads text.
    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// Whether there is a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.weights.has(name)
    }

    /// Number of weights in all tensors.
    pub fn parameters(&self) -> u64 {
        self.weights.parameters()
    }

    /// A digest over the names, formats, shapes and bytes of all tensors, whatever files they are in. It
    /// says what training began with; the id of the whole model is [`diptych_core::Encode::model_id`].
    pub fn weights_digest(&self) -> Digest {
        Digest(*self.weights.digest().as_bytes())
    }

    /// The values of a whole tensor, row-major as stored, up-cast from half precision.
    ///
    /// # Errors
    /// [`LoadError::MissingTensor`], [`LoadError::TensorType`] or [`LoadError::NotFinite`].
    pub fn tensor(&self, name: &str) -> Result<Vec<f32>, LoadError> {
        Ok(self.weights.take(name, self.weights.shape(name)?)?.to_vec())
    }

    /// Writes a directory that loads as the same family: the settings, vocabularies and licences beside
    /// the weights as they are, and the weights as one safetensors file, each tensor in its stored format
    /// with the values of `replaced` where they are given. Integer counters are left out. Every file
    /// appears whole, the weights last: a directory with weights is complete.
    ///
    /// Returns the bytes written.
    ///
    /// # Errors
    /// See [`WriteError`]; values are checked before the first file is written.
    pub fn write(&self, out: &Path, replaced: &BTreeMap<String, Vec<f32>>) -> Result<u64, WriteError> {
        let tensors = self.tensors(replaced)?;
        fs::create_dir_all(out).map_err(io("create", out))?;
        self.check_target(out)?;
        let mut written = 0;
        for path in self.companions()? {
            let bytes = fs::read(&path).map_err(io("read", &path))?;
            let target = out.join(path.file_name().unwrap_or_default());
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
            let path = entry.map_err(io("read", &self.path))?.path();
            if !is_companion(&path.file_name().unwrap_or_default().to_string_lossy()) {
                continue;
            }
            // Caches link to their files, so that the link is followed.
            let data = fs::metadata(&path).map_err(io("read", &path))?;
            if data.is_file() && data.len() <= COMPANION_MAX {
                found.push(path);
            }
        }
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

/// What the anatomy names must be there, and, where it names all, nothing else.
fn check(anatomy: &Anatomy, weights: &Weights) -> Result<(), LoadError> {
    for source in anatomy.sources() {
        weights.check(&source.name, &source.shape)?;
    }
    for stored in weights.stored() {
        if !matches!(stored.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            let found = format!("{:?}", stored.dtype);
            return Err(LoadError::TensorType { name: stored.name.to_owned(), found });
        }
    }
    if matches!(anatomy.vision, VisionParts::Convolutional(_)) {
        return Ok(());
    }
    let named: BTreeSet<&str> = anatomy.sources().map(|s| s.name.as_str()).collect();
    let mut extra = weights.stored().filter(|stored| !named.contains(stored.name));
    match extra.next() {
        Some(first) => Err(LoadError::ExtraTensors { name: first.name.to_owned(), count: 1 + extra.count() }),
        None => Ok(()),
    }
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

/// Puts a file in place whole, and returns its size: a crash leaves the old one or the new one.
fn replace(path: &Path, write: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<u64, WriteError> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    write(&temporary).map_err(io("write", &temporary))?;
    let file = File::options().append(true).open(&temporary).map_err(io("open", &temporary))?;
    let bytes = file.metadata().map_err(io("read", &temporary))?.len();
    file.sync_all().map_err(io("write", &temporary))?;
    fs::rename(&temporary, path).map_err(io("replace", path))?;
    // The rename is durable once its directory is; not every system can sync one.
    if let Some(parent) = path.parent().and_then(|parent| File::open(parent).ok()) {
        let _ = parent.sync_all();
    }
    Ok(bytes)
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> WriteError {
    let path = path.to_owned();
    move |source| WriteError::Io { action, path, source }
}
