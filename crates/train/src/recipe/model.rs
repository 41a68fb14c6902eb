//! `[tokenizer]`, `[model]`, `[towers]`, `[head]` and `[output]`: what is trained and what is written.
//!
//! Owns: those keys, their defaults and bounds. Deliberately absent: building any of it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{multiple, within, wrong};
use crate::error::TrainError;
use crate::objective::{CcaOptions, Objective};

/// `[tokenizer]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokenizerRecipe {
    /// At most this many tokens: 512 for single bytes, 2 special ones, the rest learned merges.
    pub vocab_size: usize,
}

/// `[model]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelRecipe {
    /// Side of the square input image in pixels; a multiple of `patch_size`.
    pub image_size: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Width of the image transformer; a multiple of `vision_heads`.
    pub vision_width: usize,
    /// Blocks of the image transformer.
    pub vision_layers: usize,
    /// Attention heads of the image transformer.
    pub vision_heads: usize,
    /// Width of the text transformer; a multiple of `text_heads`.
    pub text_width: usize,
    /// Blocks of the text transformer.
    pub text_layers: usize,
    /// Attention heads of the text transformer.
    pub text_heads: usize,
    /// Longest text in tokens, both special tokens included.
    pub context_length: usize,
    /// Dimensions of the shared space.
    pub projection_dim: usize,
}

/// `[towers]`: pre-trained towers. Without them both are trained from scratch as `[model]` says.
///
/// Every tower can be used frozen. These can be opened, each side by itself: of any dual encoder but a
/// composed one, the image tower, where it is a vision transformer with square images, and the text tower;
/// and a sentence encoder (a BERT's directory). Networks of convolutions cannot, such as MobileNetV2 or the
/// image towers of MobileCLIP. Without `[head]` an open dual encoder stays one of its family; with it the
/// new model is a composed one, whose folders hold the towers with what they learned.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TowersRecipe {
    /// A dual encoder of any family for both sides; excludes `image` and `text`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub both: Option<PathBuf>,
    /// The image tower: a dual encoder's directory, or MobileNetV2 weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<PathBuf>,
    /// The text tower: a dual encoder's directory, or a BERT's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<PathBuf>,
    /// What of the image tower is trained.
    pub open_image: Open,
    /// What of the text tower is trained.
    pub open_text: Open,
    /// With a frozen image tower: how many changed views of each image are cached besides the plain
    /// one; a step draws one of them all.
    pub views: usize,
}

/// What of a pre-trained tower is trained: `"none"`, `"all"`, or the number of its last blocks, which go
/// with everything behind them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Open {
    /// Nothing: the tower runs once over all data and its features are cached.
    #[default]
    None,
    /// The last blocks, final norm and projection.
    Last(usize),
    /// Everything.
    All,
}

/// `[head]`: layers between a tower's output and the shared space, one such head on each side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HeadRecipe {
    /// Its form.
    pub kind: HeadKind,
    /// Width of the hidden layer, where there is one.
    pub hidden: usize,
    /// Dimensions of the shared space. An adapter keeps the tower's.
    pub dim: usize,
    /// Share of a layer's inputs that a step leaves out.
    pub dropout: f32,
    /// A linear layer in front, which canonical correlation analysis of the frozen towers' features solves
    /// for before the first step, and which stays as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cca: Option<CcaOptions>,
}

/// The form of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeadKind {
    /// Linear alone; what canonical correlation analysis solves for.
    Projection,
    /// Norm, dropout, linear.
    Linear,
    /// Norm, dropout, linear, GELU, dropout, linear.
    Mlp,
    /// The unit output of what is in front plus a small change, norm, dropout, linear, GELU, dropout,
    /// linear, which starts at zero. What is in front must share a space already: one dual encoder, or
    /// `cca`.
    Adapter,
}

/// `[output]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutputRecipe {
    /// Number format of the weights.
    pub dtype: WeightType,
}

/// Number format of the weights in `model.safetensors`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightType {
    /// Half precision.
    F16,
    /// Single precision: bit for bit what was trained.
    F32,
}

impl Default for TokenizerRecipe {
    fn default() -> Self {
        Self { vocab_size: 1_536 }
    }
}

impl Default for ModelRecipe {
    fn default() -> Self {
        Self {
            image_size: 64,
            patch_size: 8,
            vision_width: 128,
            vision_layers: 4,
            vision_heads: 4,
            text_width: 128,
            text_layers: 3,
            text_heads: 4,
            context_length: 77,
            projection_dim: 128,
        }
    }
}

impl Default for OutputRecipe {
    fn default() -> Self {
        Self { dtype: WeightType::F16 }
    }
}

impl Default for HeadRecipe {
    fn default() -> Self {
        Self { kind: HeadKind::Mlp, hidden: 1024, dim: 256, dropout: 0.5, cca: None }
    }
}

impl Serialize for Open {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_str("none"),
            Self::All => serializer.serialize_str("all"),
            Self::Last(blocks) => serializer.serialize_u64(*blocks as u64),
        }
    }
}

impl<'de> Deserialize<'de> for Open {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Blocks(usize),
            Word(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Blocks(0) => Ok(Self::None),
            Written::Blocks(blocks) => Ok(Self::Last(blocks)),
            Written::Word(word) if word == "none" => Ok(Self::None),
            Written::Word(word) if word == "all" => Ok(Self::All),
            Written::Word(word) => {
                let reason = format!("is '{word}'; write \"none\", \"all\" or a number of blocks");
                Err(serde::de::Error::custom(reason))
            }
        }
    }
}

impl TowersRecipe {
    /// The towers of both sides, image first.
    pub(crate) fn paths(&self) -> [Option<&PathBuf>; 2] {
        [self.image.as_ref().or(self.both.as_ref()), self.text.as_ref().or(self.both.as_ref())]
    }

    /// Every path, for resolving it against the recipe's folder.
    pub(super) fn paths_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        [&mut self.both, &mut self.image, &mut self.text].into_iter().flatten()
    }

    pub(super) fn validate(&self, head: Option<&HeadRecipe>) -> Result<(), TrainError> {
        if self.both.is_some() && (self.image.is_some() || self.text.is_some()) {
            let reason = "stands beside towers.image or towers.text; keep one or the other".to_owned();
            return Err(wrong("towers.both", reason));
        }
        within("towers.views", self.views, 0, 1_000)?;
        let [image, text] = self.paths();
        if image.is_some() != text.is_some() {
            let reason = "has one of image and text; give both, or none to train both from scratch";
            return Err(wrong("towers", reason.to_owned()));
        }
        for (key, path, open) in
            [("towers.open_image", image, self.open_image), ("towers.open_text", text, self.open_text)]
        {
            if path.is_none() && open != Open::None {
                let reason = "is set, but that tower starts from scratch and is open anyway; leave it out";
                return Err(wrong(key, reason.to_owned()));
            }
        }
        if self.views > 0 && (image.is_none() || self.open_image != Open::None) {
            let reason = "is for frozen image towers; an open one sees a new view in every step";
            return Err(wrong("towers.views", reason.to_owned()));
        }
        if image.is_none() && head.is_some() {
            let reason = "stands without [towers]; towers from scratch have projections of their own";
            return Err(wrong("head", reason.to_owned()));
        }
        let alone = self.both.is_none() && image.is_some();
        let frozen = |path: Option<&PathBuf>, open| path.is_some() && open == Open::None;
        let nothing = frozen(image, self.open_image) && frozen(text, self.open_text);
        if head.is_none() && (alone || nothing) {
            let reason = "is missing: towers of different origin share no space, and frozen ones learn \
                          nothing, without [head] on top; add it";
            return Err(wrong("head", reason.to_owned()));
        }
        let solved = head.is_some_and(|head| head.cca.is_some());
        if solved && !(frozen(image, self.open_image) && frozen(text, self.open_text)) {
            let reason = "is solved on the features of two frozen towers; leave open_image and open_text out";
            return Err(wrong("head.cca", reason.to_owned()));
        }
        if alone && !solved && head.is_some_and(|head| head.kind == HeadKind::Adapter) {
            let reason = "is \"adapter\", but these towers share no space to start from; take another kind, \
                          or add [head.cca]";
            return Err(wrong("head.kind", reason.to_owned()));
        }
        Ok(())
    }
}

impl HeadRecipe {
    pub(super) fn validate(&self) -> Result<(), TrainError> {
        within("head.hidden", self.hidden, 1, 16_384)?;
        within("head.dim", self.dim, 2, 4_096)?;
        within("head.dropout", self.dropout, 0.0, 0.95)?;
        match &self.cca {
            None => Ok(()),
            Some(options) => Ok(Objective::Cca(options.clone()).validate()?),
        }
    }
}

impl ModelRecipe {
    pub(super) fn validate(&self) -> Result<(), TrainError> {
        within("model.image_size", self.image_size, 8, 1_024)?;
        within("model.patch_size", self.patch_size, 1, self.image_size)?;
        multiple("model.image_size", self.image_size, "model.patch_size", self.patch_size)?;
        within("model.vision_width", self.vision_width, 4, 4_096)?;
        within("model.vision_layers", self.vision_layers, 1, 64)?;
        within("model.vision_heads", self.vision_heads, 1, self.vision_width)?;
        multiple("model.vision_width", self.vision_width, "model.vision_heads", self.vision_heads)?;
        within("model.text_width", self.text_width, 4, 4_096)?;
        within("model.text_layers", self.text_layers, 1, 64)?;
        within("model.text_heads", self.text_heads, 1, self.text_width)?;
        multiple("model.text_width", self.text_width, "model.text_heads", self.text_heads)?;
        within("model.context_length", self.context_length, 4, 1_024)?;
        within("model.projection_dim", self.projection_dim, 2, 4_096)
    }
}
