//! Published families of dual encoders: what their directories look like and which arithmetic they mean.
//!
//! Owns: finding the family from the files of a directory alone, and one description per family that
//! turns configuration files and the names and shapes of tensors into the parts of towers, a tokenizer
//! and preprocessing. Does not own taking and packing weights, arithmetic, nor reading the files of
//! tokenizers and preprocessors.

mod bert;
mod blocks;
mod chinese_clip;
pub(crate) mod composed;
mod hf_clip;
mod open_clip;
pub(crate) mod sentence;
mod siglip;
mod timm;
mod vision_text;

use std::fmt;
use std::path::Path;

use serde_json::Value;

use self::composed::Composition;
pub use self::hf_clip::clip_anatomy;
use crate::anatomy::{Anatomy, Source, TextParts, VisionParts, VitParts};
use crate::config::CONFIG_FILE;
use crate::error::{LoadError, read_file};
use crate::json::{self, Section};
use crate::precision::Precision;
use crate::preprocess::Preprocessing;
use crate::tokenizer::{TOKENIZER_FILE, TextTokenizer};
use crate::tower::text::{Attention, Pooling};
use crate::tower::{FastVit, TextTower, VisionTower, Vit};
use crate::weights::{HUGGING_FACE_FILES, Inventory, OPEN_CLIP_FILES, Weights};

/// OpenCLIP's configuration file.
pub(crate) const OPEN_CLIP_CONFIG_FILE: &str = "open_clip_config.json";

/// A published family of dual encoders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// `CLIPModel` of the transformers library.
    Clip,
    /// `SiglipModel`: SigLIP, SigLIP 2 at fixed resolution, MedSigLIP.
    Siglip,
    /// `ChineseCLIPModel`.
    ChineseClip,
    /// `VisionTextDualEncoderModel`: any vision transformer beside any BERT.
    VisionTextDualEncoder,
    /// OpenCLIP's own format: towers of its own, or image towers of timm (BiomedCLIP, MobileCLIP, SigLIP)
    /// and text towers of BERT's kind.
    OpenClip,
    /// Diptych's own: frozen towers of any of these, of MobileNetV2 or of sentence encoders, under trained
    /// heads.
    Composed,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Clip => "Hugging Face CLIPModel",
            Self::Siglip => "Hugging Face SiglipModel",
            Self::ChineseClip => "Hugging Face ChineseCLIPModel",
            Self::VisionTextDualEncoder => "Hugging Face VisionTextDualEncoderModel",
            Self::OpenClip => "OpenCLIP",
            Self::Composed => "Diptych composed",
        })
    }
}

/// What a family makes of a directory before any weight is read.
pub(crate) struct Description {
    pub(crate) vision: Vision,
    pub(crate) text: TextParts,
    /// The natural logarithm of what cosines are multiplied by.
    pub(crate) logit_scale: Source,
    /// Added to the scaled cosines.
    pub(crate) logit_bias: Option<Source>,
    pub(crate) preprocessing: Preprocessing,
    pub(crate) tokenizer: TextTokenizer,
}

/// An image tower, before any weight is read.
pub(crate) enum Vision {
    Vit(Box<VitParts>),
    /// A vision transformer behind a stem of convolutions, whose tensors are below `prefix`.
    Stemmed {
        model: String,
        prefix: String,
        parts: Box<VitParts>,
    },
    /// Its loader finds its parts itself. The model's name is one that [`crate::tower::fastvit::is_fastvit`] knows.
    FastVit {
        model: String,
        prefix: String,
        image: (usize, usize),
        out: usize,
    },
}

impl Vision {
    /// Height and width of the input in pixels.
    fn image(&self) -> (usize, usize) {
        match self {
            Self::Vit(parts) | Self::Stemmed { parts, .. } => parts.spec.image,
            Self::FastVit { image, .. } => *image,
        }
    }

    fn assemble(self, weights: &Weights) -> Result<VisionTower, LoadError> {
        Ok(match self {
            Self::Vit(parts) => VisionTower::Vit(Box::new(Vit::assemble(weights, *parts)?)),
            Self::Stemmed { prefix, parts, .. } => {
                VisionTower::Vit(Box::new(Vit::assemble_behind_stem(weights, &prefix, *parts)?))
            }
            Self::FastVit { model, prefix, image, out } => {
                VisionTower::FastVit(Box::new(FastVit::load(weights, &prefix, &model, image, out)?))
            }
        })
    }
}

impl Description {
    /// Takes all weights and packs the towers.
    pub(crate) fn assemble(self, weights: &Weights) -> Result<Parts, LoadError> {
        let scalar = |source| Ok::<f32, LoadError>(weights.rows(source)?[0]);
        Ok(Parts {
            text: TextTower::assemble(weights, self.text)?,
            vision: self.vision.assemble(weights)?,
            logit_scale: scalar(&self.logit_scale)?,
            logit_bias: self.logit_bias.as_ref().map(scalar).transpose()?,
            preprocessing: self.preprocessing,
            tokenizer: self.tokenizer,
        })
    }

    /// What there is to know about the tensors, and the other files' meaning.
    pub(crate) fn into_anatomy(self) -> (Anatomy, Preprocessing, TextTokenizer) {
        let vision = match self.vision {
            Vision::Vit(parts) => VisionParts::Vit(parts),
            Vision::Stemmed { model, .. } | Vision::FastVit { model, .. } => {
                VisionParts::Convolutional(model)
            }
        };
        let Self { text, logit_scale, logit_bias, preprocessing, tokenizer, .. } = self;
        (Anatomy { vision, text, logit_scale, logit_bias }, preprocessing, tokenizer)
    }
}

/// A scalar, which may be stored as a vector of one.
fn scalar(weights: &Weights, name: &str) -> Source {
    let vector = weights.shape(name).is_ok_and(|shape| shape == [1]);
    Source::whole(name, if vector { &[1] } else { &[] })
}

/// Everything of a model but the bookkeeping.
pub(crate) struct Parts {
    pub(crate) text: TextTower,
    pub(crate) vision: VisionTower,
    pub(crate) preprocessing: Preprocessing,
    pub(crate) tokenizer: TextTokenizer,
    /// The natural logarithm of what cosines are multiplied by.
    pub(crate) logit_scale: f32,
    /// Added to the scaled cosines.
    pub(crate) logit_bias: Option<f32>,
}

/// A model directory, recognised.
pub(crate) struct Directory<'a> {
    path: &'a Path,
    pub(crate) family: Family,
    config: Value,
    /// How many composed models it lies within.
    depth: usize,
}

/// A model as read.
pub(crate) struct Model {
    pub(crate) parts: Parts,
    pub(crate) composition: Composition,
    pub(crate) inventory: Inventory,
}

impl<'a> Directory<'a> {
    /// Recognises the family from the configuration files. Many repositories carry the Hugging Face
    /// set beside OpenCLIP's; the first is preferred when its weights are there.
    ///
    /// # Errors
    /// [`LoadError::MissingFile`] or [`LoadError::Config`] for a family that is not known.
    pub(crate) fn open(path: &'a Path) -> Result<Self, LoadError> {
        Self::open_within(path, 0)
    }

    /// [`Directory::open`] of a directory that lies within `depth` composed models.
    pub(crate) fn open_within(path: &'a Path, depth: usize) -> Result<Self, LoadError> {
        let has = |name: &str| path.join(name).exists();
        let hugging_face = has(CONFIG_FILE) && HUGGING_FACE_FILES.iter().any(|name| has(name));
        if has(OPEN_CLIP_CONFIG_FILE) && (!hugging_face || !names_a_family(path)) {
            let config = read_json(path, OPEN_CLIP_CONFIG_FILE, "OpenCLIP's configuration")?;
            return Ok(Self { path, family: Family::OpenClip, config, depth });
        }
        let config = read_json(path, CONFIG_FILE, "the model's config.json (or open_clip_config.json)")?;
        let top = Section::top(CONFIG_FILE, &config)?;
        let kind = top.get::<String>("model_type")?;
        let Some(family) = kind.as_deref().map_or(Some(Family::Clip), family_of) else {
            let kind = kind.unwrap_or_default();
            let reason = format!(
                "is '{kind}', but known are {}; use a checkpoint of one of these families",
                MODEL_TYPES.map(|(name, _)| name).join(", ")
            );
            return Err(top.error("model_type", reason));
        };
        Ok(Self { path, family, config, depth })
    }

    /// Builds everything, and takes stock of the weights.
    pub(crate) fn read(&self, precision: Precision) -> Result<Model, LoadError> {
        let weights = self.weights(precision)?;
        let (parts, composition) = match self.family {
            Family::Composed => composed::load(self.path, &self.config, &weights, self.depth)?,
            _ => (self.describe(&weights)?.assemble(&weights)?, Composition::default()),
        };
        Ok(Model { parts, composition, inventory: weights.finish()? })
    }

    /// The names that its weights may have, the preferred one first.
    pub(crate) fn weight_files(&self) -> &'static [&'static str] {
        match self.family {
            Family::OpenClip => &OPEN_CLIP_FILES,
            _ => &HUGGING_FACE_FILES,
        }
    }

    /// Maps the weights that belong to the configuration.
    pub(crate) fn weights(&self, precision: Precision) -> Result<Weights, LoadError> {
        Weights::open(self.path, self.weight_files(), precision)
    }

    /// Describes everything from the configuration and the names and shapes of the weights.
    pub(crate) fn describe(&self, weights: &Weights) -> Result<Description, LoadError> {
        let (path, config) = (self.path, &self.config);
        let description = match self.family {
            Family::Clip => hf_clip::describe(path, config, weights),
            Family::Siglip => siglip::describe(path, config, weights),
            Family::ChineseClip => chinese_clip::describe(path, config, weights),
            Family::VisionTextDualEncoder => vision_text::describe(path, config, weights),
            Family::OpenClip => open_clip::describe(path, config, weights),
            Family::Composed => {
                let reason =
                    "is a composed model, whose towers lie in folders of their own; name one of those";
                return Err(Section::top(CONFIG_FILE, config)?.error("model_type", reason));
            }
        }?;
        check_pooling(&description)?;
        Ok(description)
    }
}

/// A tower that pools at the end token needs a tokenizer that ends texts with it.
fn check_pooling(description: &Description) -> Result<(), LoadError> {
    let Description { text: TextParts { spec, .. }, tokenizer, .. } = description;
    let by_token = matches!(spec.pooling, Pooling::FirstOf(_) | Pooling::Argmax);
    if spec.attention != Attention::Causal || !by_token {
        return Ok(());
    }
    let ids = tokenizer.probe()?;
    if !ids.is_empty() && spec.pooled_position(&ids) + 1 == ids.len() {
        return Ok(());
    }
    let reason = format!("turns 'a' into {ids:?}, but the text tower pools {}", spec.pooling);
    Err(LoadError::Tokenizer { file: TOKENIZER_FILE.to_owned(), reason })
}

/// The families by the `model_type` of their `config.json`.
const MODEL_TYPES: [(&str, Family); 5] = [
    ("clip", Family::Clip),
    ("siglip", Family::Siglip),
    ("chinese_clip", Family::ChineseClip),
    ("vision-text-dual-encoder", Family::VisionTextDualEncoder),
    (composed::MODEL_TYPE, Family::Composed),
];

fn family_of(model_type: &str) -> Option<Family> {
    MODEL_TYPES.iter().find(|(name, _)| *name == model_type).map(|(_, family)| *family)
}

/// Whether `config.json` is one of a family: some OpenCLIP repositories carry timm's instead.
fn names_a_family(path: &Path) -> bool {
    read_json(path, CONFIG_FILE, "")
        .is_ok_and(|config| config.get("model_type").and_then(Value::as_str).and_then(family_of).is_some())
}

pub(crate) fn read_json(path: &Path, file: &str, what: &'static str) -> Result<Value, LoadError> {
    json::parse(file, &read_file(&path.join(file), what)?)
}
