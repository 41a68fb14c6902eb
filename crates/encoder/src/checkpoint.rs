//! A model directory as training sees it: what its towers are made of, the values, and a new directory
//! with other values.
//!
//! Owns: opening a directory of any family, or with a text tower alone, without packing its towers, and
//! the checks of its tensors; writing one that loads as the same is the work of `files`. Deliberately
//! absent: arithmetic, and which values are replaced by what.

mod files;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use diptych_core::Digest;
use safetensors::Dtype;
use serde_json::Value;

use self::files::Original;
pub use self::files::WriteError;
use crate::anatomy::{Anatomy, Source, TextParts, VisionParts};
use crate::error::LoadError;
use crate::family::{Directory, Family, sentence};
use crate::precision::Precision;
use crate::preprocess::Preprocessing;
use crate::tokenizer::TextTokenizer;
use crate::trunk;
use crate::weights::{WEIGHTS_FILE, Weights};

/// A model directory, opened for its tensors.
pub struct Checkpoint {
    original: Original,
    family: Family,
    anatomy: Anatomy,
    preprocessing: Preprocessing,
    tokenizer: TextTokenizer,
}

/// The text tower of a model directory, opened for its tensors.
pub struct TextCheckpoint {
    original: Original,
    parts: TextParts,
    tokenizer: TextTokenizer,
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpoint")
            .field("path", &self.original.path)
            .field("family", &self.family)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for TextCheckpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextCheckpoint").field("path", &self.original.path).finish_non_exhaustive()
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
        // What convolutions are made of is not described.
        let convolutions = matches!(anatomy.vision, VisionParts::Convolutional(_));
        check(anatomy.sources(), &weights, |_| convolutions)?;
        let (family, weights_file) = (directory.family, directory.weight_files()[0]);
        let original = Original { path: dir.to_owned(), weights_file, weights };
        Ok(Self { original, family, anatomy, preprocessing, tokenizer })
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
        self.original.weights.has(name)
    }

    /// Number of weights in all tensors.
    pub fn parameters(&self) -> u64 {
        self.original.weights.parameters()
    }

    /// A digest over the names, formats, shapes and bytes of all tensors, whatever files they are in. It
    /// says what training began with; the id of the whole model is [`diptych_core::Encode::model_id`].
    pub fn weights_digest(&self) -> Digest {
        Digest(*self.original.weights.digest().as_bytes())
    }

    /// The values of a whole tensor, row-major as stored, up-cast from half precision.
    ///
    /// # Errors
    /// [`LoadError::MissingTensor`], [`LoadError::TensorType`] or [`LoadError::NotFinite`].
    pub fn tensor(&self, name: &str) -> Result<Vec<f32>, LoadError> {
        self.original.tensor(name)
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
        self.original.write(out, replaced)
    }
}

impl TextCheckpoint {
    /// Opens the text tower of any directory that [`crate::TextTrunk::open`] takes but a composed one: of
    /// a dual encoder, or a sentence encoder.
    ///
    /// # Errors
    /// See [`Checkpoint::open`].
    pub fn open(dir: &Path) -> Result<Self, LoadError> {
        match trunk::model_type(dir)? {
            Some((kind, config)) if kind == sentence::MODEL_TYPE => Self::open_sentence(dir, &config),
            _ => {
                let Checkpoint { original, anatomy, tokenizer, .. } = Checkpoint::open(dir)?;
                Ok(Self { original, parts: anatomy.text, tokenizer })
            }
        }
    }

    fn open_sentence(dir: &Path, config: &Value) -> Result<Self, LoadError> {
        let weights = Weights::open_file(trunk::weights_file(dir)?, Precision::F32)?;
        let (parts, tokenizer) = sentence::describe(dir, config)?;
        check(parts.sources(), &weights, |name| name.starts_with(sentence::UNUSED))?;
        let original = Original { path: dir.to_owned(), weights_file: WEIGHTS_FILE, weights };
        Ok(Self { original, parts, tokenizer })
    }

    /// What the tower is made of.
    pub fn parts(&self) -> &TextParts {
        &self.parts
    }

    /// How it reads text.
    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// Whether there is a tensor of this name, of the tower or beside it.
    pub fn has(&self, name: &str) -> bool {
        self.original.weights.has(name)
    }

    /// See [`Checkpoint::tensor`].
    ///
    /// # Errors
    /// Those of [`Checkpoint::tensor`].
    pub fn tensor(&self, name: &str) -> Result<Vec<f32>, LoadError> {
        self.original.tensor(name)
    }

    /// See [`Checkpoint::write`]: the whole directory is written, also what does not belong to the tower.
    /// The weights of a sentence encoder are `model.safetensors`, whatever they were called.
    ///
    /// # Errors
    /// See [`WriteError`]; values are checked before the first file is written.
    pub fn write(&self, out: &Path, replaced: &BTreeMap<String, Vec<f32>>) -> Result<u64, WriteError> {
        self.original.write(out, replaced)
    }
}

/// What is named must be there, and nothing else, unless it is `spare`.
fn check<'a>(
    sources: impl Iterator<Item = &'a Source>,
    weights: &Weights,
    spare: impl Fn(&str) -> bool,
) -> Result<(), LoadError> {
    let mut named = BTreeSet::new();
    for source in sources {
        weights.check(&source.name, &source.shape)?;
        named.insert(source.name.as_str());
    }
    for stored in weights.stored() {
        if !matches!(stored.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            let found = format!("{:?}", stored.dtype);
            return Err(LoadError::TensorType { name: stored.name.to_owned(), found });
        }
    }
    let mut extra = weights.stored().filter(|stored| !named.contains(stored.name) && !spare(stored.name));
    match extra.next() {
        Some(first) => Err(LoadError::ExtraTensors { name: first.name.to_owned(), count: 1 + extra.count() }),
        None => Ok(()),
    }
}
