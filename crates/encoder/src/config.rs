//! The shape of a CLIP model: `config.json` of a Hugging Face `CLIPModel` directory.
//!
//! Owns: the keys, the library's defaults for absent ones (published files are sparse), the legacy
//! `*_config_dict` overrides, validation, and writing the same file back. Does not own
//! preprocessing or tokenizer settings, which live in files of their own.

use std::path::Path;

use diptych_core::limits::DIM_MAX;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::activation::Activation;
use crate::error::{LoadError, read_file};
use crate::json::{self, Section};

/// The file's name within a model directory.
pub const CONFIG_FILE: &str = "config.json";

/// Both towers and the space they share.
///
/// Deserialising validates; so do [`ClipConfig::from_json`] and [`ClipConfig::from_dir`]. A value
/// built by hand is checked by [`ClipConfig::validate`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "Value")]
pub struct ClipConfig {
    /// `text_config`.
    pub text: TextConfig,
    /// `vision_config`.
    pub vision: VisionConfig,
    /// Dimensions of the shared space.
    pub projection_dim: usize,
    /// Initial value of `logit_scale`, the natural logarithm of the inverse temperature.
    pub logit_scale_init_value: f32,
}

/// The text tower: a causal pre-norm transformer over byte-level BPE tokens.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TextConfig {
    /// Token ids are below this.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Transformer blocks.
    pub num_hidden_layers: usize,
    /// Attention heads per block; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Longest token sequence, special tokens included.
    pub max_position_embeddings: usize,
    /// Activation of the feed-forward layer.
    #[serde(serialize_with = "crate::activation::serialize")]
    pub hidden_act: Activation,
    /// Added to the variance in every layer norm.
    pub layer_norm_eps: f64,
    /// Id of the token that opens a text.
    pub bos_token_id: u32,
    /// Id of the token whose position is pooled. The historic value 2 stands for "pool at the
    /// largest id", as the transformers library does it.
    pub eos_token_id: u32,
    /// Id of the padding token. Not read: pads come after the pooled token and the tower is causal.
    pub pad_token_id: u32,
}

/// The image tower: a pre-norm vision transformer over square patches.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VisionConfig {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Transformer blocks.
    pub num_hidden_layers: usize,
    /// Attention heads per block; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Colour channels; always 3 here.
    pub num_channels: usize,
    /// Height and width of the input in pixels.
    pub image_size: usize,
    /// Height and width of a patch in pixels.
    pub patch_size: usize,
    /// Activation of the feed-forward layer.
    #[serde(serialize_with = "crate::activation::serialize")]
    pub hidden_act: Activation,
    /// Added to the variance in every layer norm.
    pub layer_norm_eps: f64,
}

impl ClipConfig {
    /// Reads and validates `config.json` of a model directory.
    ///
    /// # Errors
    /// [`LoadError::MissingFile`], [`LoadError::Io`], or [`LoadError::Config`] naming the key.
    pub fn from_dir(dir: &Path) -> Result<Self, LoadError> {
        Self::from_json(&read_file(&dir.join(CONFIG_FILE), "the model's config.json")?)
    }

    /// Reads and validates the text of a `config.json`. Keys that are absent or null take the
    /// defaults of the transformers library; keys that do not shape the model are ignored.
    ///
    /// # Errors
    /// [`LoadError::Config`] naming the key.
    pub fn from_json(text: &str) -> Result<Self, LoadError> {
        Self::from_value(&json::parse(CONFIG_FILE, text)?)
    }

    /// The text of a `config.json` that this loader and the transformers library both read.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain numbers and strings always serialise")
    }

    /// Checks that the numbers fit together.
    ///
    /// # Errors
    /// [`LoadError::Config`] naming the key.
    pub fn validate(&self) -> Result<(), LoadError> {
        bound("projection_dim", self.projection_dim, 1, DIM_MAX)?;
        if !self.logit_scale_init_value.is_finite() {
            return Err(wrong("logit_scale_init_value", "is not finite; the usual value is 2.6592"));
        }
        self.text.validate()?;
        self.vision.validate()
    }

    pub(crate) fn from_value(value: &Value) -> Result<Self, LoadError> {
        let top = Section::top(CONFIG_FILE, value)?;
        if let Some(kind) = top.get::<String>("model_type")?
            && kind != "clip"
        {
            let reason =
                format!("is '{kind}', but only 'clip' (CLIPModel) can be loaded; use a CLIP checkpoint");
            return Err(top.error("model_type", reason));
        }
        let empty = Value::Object(serde_json::Map::new());
        // Old files carry both spellings. The library builds a whole config from the `_dict` one,
        // defaults included, and lets it override the other.
        let section = |legacy: &'static str, name: &'static str| match top.value(legacy) {
            Some(found) => Section::new(CONFIG_FILE, legacy, found),
            None => Section::new(CONFIG_FILE, name, top.value(name).unwrap_or(&empty)),
        };
        let config = Self {
            text: TextConfig::from_section(section("text_config_dict", "text_config")?)?,
            vision: VisionConfig::from_section(section("vision_config_dict", "vision_config")?)?,
            projection_dim: top.get_or("projection_dim", 512)?,
            logit_scale_init_value: top.get_or("logit_scale_init_value", 2.6592)?,
        };
        config.validate()?;
        Ok(config)
    }
}

impl TextConfig {
    pub(crate) fn from_section(s: Section<'_>) -> Result<Self, LoadError> {
        let default = Self::default();
        Ok(Self {
            vocab_size: s.get_or("vocab_size", default.vocab_size)?,
            hidden_size: s.get_or("hidden_size", default.hidden_size)?,
            intermediate_size: s.get_or("intermediate_size", default.intermediate_size)?,
            num_hidden_layers: s.get_or("num_hidden_layers", default.num_hidden_layers)?,
            num_attention_heads: s.get_or("num_attention_heads", default.num_attention_heads)?,
            max_position_embeddings: s.get_or("max_position_embeddings", default.max_position_embeddings)?,
            hidden_act: s.activation("hidden_act", default.hidden_act)?,
            layer_norm_eps: s.get_or("layer_norm_eps", default.layer_norm_eps)?,
            bos_token_id: s.get_or("bos_token_id", default.bos_token_id)?,
            eos_token_id: s.get_or("eos_token_id", default.eos_token_id)?,
            pad_token_id: s.get_or("pad_token_id", default.pad_token_id)?,
        })
    }

    fn validate(&self) -> Result<(), LoadError> {
        bound("text_config.vocab_size", self.vocab_size, 1, 1 << 24)?;
        bound("text_config.max_position_embeddings", self.max_position_embeddings, 2, 1 << 16)?;
        block("text_config", self.hidden_size, self.intermediate_size, self.num_hidden_layers)?;
        heads("text_config", self.hidden_size, self.num_attention_heads)?;
        epsilon("text_config", self.layer_norm_eps)
    }
}

impl VisionConfig {
    pub(crate) fn from_section(s: Section<'_>) -> Result<Self, LoadError> {
        let default = Self::default();
        Ok(Self {
            hidden_size: s.get_or("hidden_size", default.hidden_size)?,
            intermediate_size: s.get_or("intermediate_size", default.intermediate_size)?,
            num_hidden_layers: s.get_or("num_hidden_layers", default.num_hidden_layers)?,
            num_attention_heads: s.get_or("num_attention_heads", default.num_attention_heads)?,
            num_channels: s.get_or("num_channels", default.num_channels)?,
            image_size: s.get_or("image_size", default.image_size)?,
            patch_size: s.get_or("patch_size", default.patch_size)?,
            hidden_act: s.activation("hidden_act", default.hidden_act)?,
            layer_norm_eps: s.get_or("layer_norm_eps", default.layer_norm_eps)?,
        })
    }

    pub(crate) fn validate(&self) -> Result<(), LoadError> {
        bound("vision_config.num_channels", self.num_channels, 3, 3)?;
        bound("vision_config.image_size", self.image_size, 1, 4096)?;
        bound("vision_config.patch_size", self.patch_size, 1, self.image_size)?;
        block("vision_config", self.hidden_size, self.intermediate_size, self.num_hidden_layers)?;
        heads("vision_config", self.hidden_size, self.num_attention_heads)?;
        epsilon("vision_config", self.layer_norm_eps)
    }

    /// Patches along one side. Pixels beyond the last whole patch are not seen.
    pub fn patches_per_side(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Positions of the image tower: one class token and all patches.
    pub fn num_positions(&self) -> usize {
        self.patches_per_side() * self.patches_per_side() + 1
    }
}

impl Default for TextConfig {
    /// The transformers library's `CLIPTextConfig()`.
    fn default() -> Self {
        Self {
            vocab_size: 49408,
            hidden_size: 512,
            intermediate_size: 2048,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
            bos_token_id: 49406,
            eos_token_id: 49407,
            pad_token_id: 1,
        }
    }
}

impl Default for VisionConfig {
    /// The transformers library's `CLIPVisionConfig()`.
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_channels: 3,
            image_size: 224,
            patch_size: 32,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
        }
    }
}

impl Default for ClipConfig {
    /// The transformers library's `CLIPConfig()`, which is ViT-B/32.
    fn default() -> Self {
        Self {
            text: TextConfig::default(),
            vision: VisionConfig::default(),
            projection_dim: 512,
            logit_scale_init_value: 2.6592,
        }
    }
}

impl TryFrom<Value> for ClipConfig {
    type Error = LoadError;

    fn try_from(value: Value) -> Result<Self, LoadError> {
        Self::from_value(&value)
    }
}

impl Serialize for ClipConfig {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Tower<'a, T> {
            model_type: &'static str,
            #[serde(flatten)]
            config: &'a T,
        }
        #[derive(Serialize)]
        struct File<'a> {
            architectures: [&'static str; 1],
            model_type: &'static str,
            projection_dim: usize,
            logit_scale_init_value: f32,
            text_config: Tower<'a, TextConfig>,
            vision_config: Tower<'a, VisionConfig>,
        }
        File {
            architectures: ["CLIPModel"],
            model_type: "clip",
            projection_dim: self.projection_dim,
            logit_scale_init_value: self.logit_scale_init_value,
            text_config: Tower { model_type: "clip_text_model", config: &self.text },
            vision_config: Tower { model_type: "clip_vision_model", config: &self.vision },
        }
        .serialize(serializer)
    }
}

fn wrong(key: &str, reason: impl Into<String>) -> LoadError {
    LoadError::Config { file: CONFIG_FILE.to_owned(), key: key.to_owned(), reason: reason.into() }
}

fn bound(key: &str, found: usize, min: usize, max: usize) -> Result<(), LoadError> {
    if (min..=max).contains(&found) {
        return Ok(());
    }
    Err(wrong(key, format!("is {found}, but must be {min} to {max}; use the config.json of these weights")))
}

fn block(section: &str, hidden: usize, intermediate: usize, layers: usize) -> Result<(), LoadError> {
    bound(&format!("{section}.hidden_size"), hidden, 1, 1 << 16)?;
    bound(&format!("{section}.intermediate_size"), intermediate, 1, 1 << 18)?;
    bound(&format!("{section}.num_hidden_layers"), layers, 1, 1024)
}

fn heads(section: &str, hidden: usize, heads: usize) -> Result<(), LoadError> {
    if heads > 0 && hidden.is_multiple_of(heads) {
        return Ok(());
    }
    let reason = format!(
        "is {heads}, which does not divide hidden_size {hidden}; use the config.json of these weights"
    );
    Err(wrong(&format!("{section}.num_attention_heads"), reason))
}

fn epsilon(section: &str, eps: f64) -> Result<(), LoadError> {
    if eps.is_finite() && eps > 0.0 && eps < 1.0 {
        return Ok(());
    }
    Err(wrong(
        &format!("{section}.layer_norm_eps"),
        format!("is {eps}, but must be between 0 and 1, usually 1e-5"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_keys_mean_the_librarys_defaults() {
        let config = ClipConfig::from_json("{}").expect("an empty file is CLIPConfig()");
        assert_eq!(config, ClipConfig::default());
        let sparse = ClipConfig::from_json(
            r#"{"text_config": {"hidden_act": "gelu", "eos_token_id": null}, "vision_config": null}"#,
        )
        .expect("nulls are absent keys");
        assert_eq!(sparse.text.hidden_act, Activation::Gelu);
        assert_eq!(sparse.text.eos_token_id, 49407);
        assert_eq!(sparse.vision, VisionConfig::default());
    }

    #[test]
    fn the_legacy_spelling_overrides_whole_sections() {
        let config = ClipConfig::from_json(
            r#"{"text_config": {"hidden_size": 64, "eos_token_id": 2}, "text_config_dict": {"hidden_size": 768}}"#,
        )
        .expect("valid");
        assert_eq!((config.text.hidden_size, config.text.eos_token_id), (768, 49407));
    }

    #[test]
    fn writing_and_reading_gives_the_same_config() {
        let mut config = ClipConfig::default();
        config.text.hidden_act = Activation::GeluTanh;
        config.vision.layer_norm_eps = 1e-6;
        config.projection_dim = 96;
        let json = config.to_json();
        assert!(json.contains(r#""model_type": "clip_text_model""#) && json.contains("CLIPModel"), "{json}");
        assert_eq!(ClipConfig::from_json(&json).expect("own output"), config);
        assert_eq!(serde_json::from_str::<ClipConfig>(&json).expect("own output"), config);
    }

    #[test]
    fn wrong_settings_are_refused_by_name() {
        for (json, key, words) in [
            (r#"{"text_config": {"hidden_act": "mish"}}"#, "text_config.hidden_act", "'mish'"),
            (r#"{"vision_config": {"num_attention_heads": 7}}"#, "vision_config.num_attention_heads", "768"),
            (r#"{"vision_config": {"patch_size": 0}}"#, "vision_config.patch_size", "1 to 224"),
            (r#"{"text_config": {"hidden_size": "wide"}}"#, "text_config.hidden_size", "wide"),
            (r#"{"text_config": {"layer_norm_eps": 0}}"#, "text_config.layer_norm_eps", "1e-5"),
            (r#"{"model_type": "siglip"}"#, "model_type", "siglip"),
            (r#"{"projection_dim": 0}"#, "projection_dim", "65536"),
            (r#"{"vision_config": [1]}"#, "vision_config", "object"),
            ("{", "line 1", "EOF"),
        ] {
            let error = ClipConfig::from_json(json).expect_err(json).to_string();
            assert!(error.contains(key) && error.contains(words), "{json}: {error}");
        }
    }
}
