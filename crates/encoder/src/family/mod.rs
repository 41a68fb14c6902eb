//! Published families of dual encoders: what their directories look like and which arithmetic they mean.
//!
//! Owns: finding the family from the files of a directory alone, and one loader per family that
//! turns configuration files and tensor names into towers, a tokenizer and preprocessing. Does not
//! own arithmetic, nor reading the files of tokenizers and preprocessors.

mod bert;
mod chinese_clip;
mod hf_clip;
mod open_clip;
pub(crate) mod sentence;
mod siglip;
mod timm;
mod vision_text;

use std::fmt;
use std::path::Path;

use serde_json::Value;

use crate::config::CONFIG_FILE;
use crate::error::{LoadError, read_file};
use crate::json::{self, Section};
use crate::precision::Precision;
use crate::preprocess::Preprocessing;
use crate::tokenizer::{TOKENIZER_FILE, TextTokenizer};
use crate::tower::text::{Attention, Pooling};
use crate::tower::{TextTower, VisionTower};
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
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Clip => "Hugging Face CLIPModel",
            Self::Siglip => "Hugging Face SiglipModel",
            Self::ChineseClip => "Hugging Face ChineseCLIPModel",
            Self::VisionTextDualEncoder => "Hugging Face VisionTextDualEncoderModel",
            Self::OpenClip => "OpenCLIP",
        })
    }
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
}

impl<'a> Directory<'a> {
    /// Recognises the family from the configuration files. Many repositories carry the Hugging Face
    /// set beside OpenCLIP's; the first is preferred when its weights are there.
    ///
    /// # Errors
    /// [`LoadError::MissingFile`] or [`LoadError::Config`] for a family that is not known.
    pub(crate) fn open(path: &'a Path) -> Result<Self, LoadError> {
        let has = |name: &str| path.join(name).exists();
        let hugging_face = has(CONFIG_FILE) && HUGGING_FACE_FILES.iter().any(|name| has(name));
        if has(OPEN_CLIP_CONFIG_FILE) && (!hugging_face || !names_a_family(path)) {
            let config = read_json(path, OPEN_CLIP_CONFIG_FILE, "OpenCLIP's configuration")?;
            return Ok(Self { path, family: Family::OpenClip, config });
        }
        let config = read_json(path, CONFIG_FILE, "the model's config.json (or open_clip_config.json)")?;
        let top = Section::top(CONFIG_FILE, &config)?;
        let kind = top.get::<String>("model_type")?;
        let Some(family) = kind.as_deref().map_or(Some(Family::Clip), family_of) else {
            let kind = kind.unwrap_or_default();
            let reason = format!(
                "is '{kind}', but known are {}; use a checkpoint of one of these families",
                HUGGING_FACE_TYPES.map(|(name, _)| name).join(", ")
            );
            return Err(top.error("model_type", reason));
        };
        Ok(Self { path, family, config })
    }

    /// Builds everything, and takes stock of the weights.
    pub(crate) fn read(&self, precision: Precision) -> Result<(Parts, Inventory), LoadError> {
        let weights = self.weights(precision)?;
        let parts = self.load(&weights)?;
        check_pooling(&parts)?;
        Ok((parts, weights.finish()?))
    }

    /// Maps the weights that belong to the configuration.
    fn weights(&self, precision: Precision) -> Result<Weights, LoadError> {
        match self.family {
            Family::OpenClip => Weights::open(self.path, &OPEN_CLIP_FILES, precision),
            _ => Weights::open(self.path, &HUGGING_FACE_FILES, precision),
        }
    }

    /// Builds everything from the configuration and the weights.
    fn load(&self, weights: &Weights) -> Result<Parts, LoadError> {
        let (path, config) = (self.path, &self.config);
        match self.family {
            Family::Clip => hf_clip::load(path, config, weights),
            Family::Siglip => siglip::load(path, config, weights),
            Family::ChineseClip => chinese_clip::load(path, config, weights),
            Family::VisionTextDualEncoder => vision_text::load(path, config, weights),
            Family::OpenClip => open_clip::load(path, config, weights),
        }
    }
}

/// A tower that pools at the end token needs a tokenizer that ends texts with it.
fn check_pooling(parts: &Parts) -> Result<(), LoadError> {
    let spec = &parts.text.spec;
    let by_token = matches!(spec.pooling, Pooling::FirstOf(_) | Pooling::Argmax);
    if spec.attention != Attention::Causal || !by_token {
        return Ok(());
    }
    let ids = parts.tokenizer.probe()?;
    if !ids.is_empty() && parts.text.pooled_position(&ids) + 1 == ids.len() {
        return Ok(());
    }
    let reason = format!("turns 'a' into {ids:?}, but the text tower pools {}", spec.pooling);
    Err(LoadError::Tokenizer { file: TOKENIZER_FILE.to_owned(), reason })
}

const HUGGING_FACE_TYPES: [(&str, Family); 4] = [
    ("clip", Family::Clip),
    ("siglip", Family::Siglip),
    ("chinese_clip", Family::ChineseClip),
    ("vision-text-dual-encoder", Family::VisionTextDualEncoder),
];

fn family_of(model_type: &str) -> Option<Family> {
    HUGGING_FACE_TYPES.iter().find(|(name, _)| *name == model_type).map(|(_, family)| *family)
}

/// Whether `config.json` is one of a family: some OpenCLIP repositories carry timm's instead.
fn names_a_family(path: &Path) -> bool {
    read_json(path, CONFIG_FILE, "")
        .is_ok_and(|config| config.get("model_type").and_then(Value::as_str).and_then(family_of).is_some())
}

pub(crate) fn read_json(path: &Path, file: &str, what: &'static str) -> Result<Value, LoadError> {
    json::parse(file, &read_file(&path.join(file), what)?)
}
