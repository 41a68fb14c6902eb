//! Which files of a repository a model needs.
//!
//! Owns: the names of configurations, tokenizers and weights, and the choice among weights. A
//! repository often holds the same weights in several forms; only one is fetched, with the
//! configuration that describes it: safetensors before pickle, and among equals the layout of
//! transformers before that of OpenCLIP. Does not own what the files mean.

use std::collections::BTreeSet;

use crate::HubError;
use crate::name::is_plain;

/// Files beside configuration and weights, fetched where they exist.
const COMPANIONS: [&str; 12] = [
    "added_tokens.json",
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
];

/// One form of the weights, with the configuration that describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) config: &'static str,
    pub(crate) weights: &'static str,
}

impl Form {
    /// Whether the weights file only names the files that hold the weights.
    pub(crate) fn is_index(self) -> bool {
        self.weights.ends_with(".index.json")
    }
}

const TRANSFORMERS: &str = "config.json";
const OPEN_CLIP: &str = "open_clip_config.json";

/// In order of preference.
const FORMS: [Form; 8] = [
    Form { config: TRANSFORMERS, weights: "model.safetensors" },
    Form { config: TRANSFORMERS, weights: "model.safetensors.index.json" },
    Form { config: OPEN_CLIP, weights: "open_clip_model.safetensors" },
    Form { config: OPEN_CLIP, weights: "open_clip_pytorch_model.safetensors" },
    Form { config: OPEN_CLIP, weights: "model.safetensors" },
    Form { config: TRANSFORMERS, weights: "pytorch_model.bin" },
    Form { config: TRANSFORMERS, weights: "pytorch_model.bin.index.json" },
    Form { config: OPEN_CLIP, weights: "open_clip_pytorch_model.bin" },
];

/// The best form among the names. Beside an OpenCLIP configuration, the `config.json` of another
/// library may lie (timm describes the image tower alone): `read` gives it to be told apart.
pub(crate) fn form(
    names: &BTreeSet<String>,
    read: impl FnOnce(&'static str) -> Result<Vec<u8>, HubError>,
) -> Result<Option<Form>, HubError> {
    let has = |form: &&Form| names.contains(form.config) && names.contains(form.weights);
    let mut forms = FORMS.iter().filter(has);
    let Some(first) = forms.next().copied() else { return Ok(None) };
    let other = forms.find(|form| form.config != first.config).copied();
    match other {
        Some(other) if first.config == TRANSFORMERS && !is_transformers(&read(TRANSFORMERS)?) => {
            Ok(Some(other))
        }
        _ => Ok(Some(first)),
    }
}

/// Whether a `config.json` is one of transformers, all of which have a `model_type`.
fn is_transformers(config: &[u8]) -> bool {
    let config: serde_json::Value = serde_json::from_slice(config).unwrap_or_default();
    config.get("model_type").is_some_and(serde_json::Value::is_string)
}

/// What precedes the weights, so that whoever finds weights finds the rest as well.
#[cfg(feature = "download")]
pub(crate) fn before_weights(form: Form, names: &BTreeSet<String>) -> Vec<&'static str> {
    let companions = COMPANIONS.into_iter().filter(|name| names.contains(*name));
    std::iter::once(form.config).chain(companions).collect()
}

/// Whether the names hold a tokenizer, and preprocessing where it has a file of its own.
pub(crate) fn has_companions(form: Form, names: &BTreeSet<String>) -> bool {
    let has = |name: &str| {
        debug_assert!(COMPANIONS.contains(&name), "a companion is fetched");
        names.contains(name)
    };
    let tokenizer = ["tokenizer.json", "vocab.txt", "spiece.model", "tokenizer.model"].into_iter().any(has)
        || (has("vocab.json") && has("merges.txt"));
    let preprocessing = has("preprocessor_config.json") || has("processor_config.json");
    tokenizer && (preprocessing || form.config == OPEN_CLIP)
}

/// The files that an index names, each once.
pub(crate) fn shards(file: &str, index: &[u8]) -> Result<BTreeSet<String>, HubError> {
    let wrong = |reason: &str| HubError::Index { file: file.to_owned(), reason: reason.to_owned() };
    let index: serde_json::Value = serde_json::from_slice(index).map_err(|e| wrong(&e.to_string()))?;
    let map = index.get("weight_map").and_then(|map| map.as_object());
    let map = map.filter(|map| !map.is_empty()).ok_or_else(|| wrong("it has no weight_map"))?;
    map.values()
        .map(|shard| match shard.as_str() {
            Some(shard) if is_plain(shard) => Ok(shard.to_owned()),
            _ => Err(wrong("it names a shard that is no plain file name")),
        })
        .collect()
}
