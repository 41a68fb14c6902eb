//! What `tokenizer_config.json`, `special_tokens_map.json` and open_clip's `tokenizer_kwargs` say.
//!
//! Owns: reading those settings, their defaults in the reference library, and refusing those that
//! would change the ids and are not supported. Does not own the vocabulary.

use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::clean::Clean;
use super::{Cleaning, Kind, SETTINGS_FILE};
use crate::error::{LoadError, read_file};
use crate::json;

pub(super) const SPECIAL_TOKENS_FILE: &str = "special_tokens_map.json";
/// Libraries write a huge number where they know no limit.
const LENGTH_SANE: f64 = 1e6;

/// The settings beside a vocabulary.
#[derive(Debug, Clone, Default)]
pub(super) struct Settings {
    present: bool,
    values: Map<String, Value>,
    special: Map<String, Value>,
}

/// The `tokenizer_class` of the reference library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Class {
    /// One whose vocabulary files can be read.
    Known(Kind),
    /// Named, but only its `tokenizer.json` can be read.
    Other(String),
    /// Not named.
    Absent,
}

impl Class {
    /// Whether the reference lower-cases in front of the tokenizer.
    pub(super) fn is_siglip2(&self) -> bool {
        matches!(self, Class::Other(name) if name == "Siglip2Tokenizer")
    }

    /// For errors.
    pub(super) fn name(&self) -> &str {
        match self {
            Class::Other(name) => name,
            Class::Known(_) | Class::Absent => "(none)",
        }
    }
}

impl Settings {
    /// Reads the settings of a model directory; both files may be absent.
    pub(super) fn from_dir(dir: &Path) -> Result<Self, LoadError> {
        let (values, special) = (object(dir, SETTINGS_FILE)?, object(dir, SPECIAL_TOKENS_FILE)?);
        let settings = Self {
            present: values.is_some(),
            values: values.unwrap_or_default(),
            special: special.unwrap_or_default(),
        };
        if let Some(side) = settings.string("truncation_side")?
            && side != "right"
        {
            let reason =
                format!("is '{side}', but only 'right' is supported, as every published model has it");
            return Err(settings.error("truncation_side", reason));
        }
        Ok(settings)
    }

    /// Whether there is a `tokenizer_config.json`.
    pub(super) fn is_present(&self) -> bool {
        self.present
    }

    /// An error about a key of `tokenizer_config.json`.
    pub(super) fn error(&self, key: &str, reason: impl Into<String>) -> LoadError {
        LoadError::Config { file: SETTINGS_FILE.to_owned(), key: key.to_owned(), reason: reason.into() }
    }

    /// The class of tokenizer; the suffix `Fast` makes no difference.
    pub(super) fn class(&self) -> Class {
        let Some(name) = self.values.get("tokenizer_class").and_then(Value::as_str) else {
            return Class::Absent;
        };
        match name.strip_suffix("Fast").unwrap_or(name) {
            "CLIPTokenizer" => Class::Known(Kind::ClipBpe),
            "BertTokenizer" | "DistilBertTokenizer" | "ElectraTokenizer" | "MobileBertTokenizer" => {
                Class::Known(Kind::Bert)
            }
            "SiglipTokenizer" => Class::Known(Kind::Siglip),
            "GemmaTokenizer" => Class::Known(Kind::Gemma),
            other => Class::Other(other.to_owned()),
        }
    }

    /// `model_max_length`, unless it stands for "no limit".
    pub(super) fn model_max_length(&self) -> Option<usize> {
        let length = self.values.get("model_max_length")?.as_f64()?;
        (1.0..LENGTH_SANE).contains(&length).then_some(length as usize)
    }

    /// Whether padding goes in front of the text. Gemma's class does so unless told otherwise.
    pub(super) fn pads_left(&self, kind: Option<Kind>) -> Result<bool, LoadError> {
        let gemma = kind == Some(Kind::Gemma) || self.class().is_siglip2();
        match self.string("padding_side")?.as_deref() {
            None => Ok(gemma),
            Some("right") => Ok(false),
            Some("left") => Ok(true),
            Some(other) => Err(self.error("padding_side", format!("is '{other}'; use 'right' or 'left'"))),
        }
    }

    /// Whether the text is lower-cased.
    pub(super) fn do_lower_case(&self) -> Result<bool, LoadError> {
        Ok(self.bool("do_lower_case")?.unwrap_or(true))
    }

    /// A boolean, when present and not null.
    pub(super) fn bool(&self, key: &str) -> Result<Option<bool>, LoadError> {
        match self.values.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(other) => Err(self.error(key, format!("is {other}; use true, false or null"))),
        }
    }

    /// The text of a special token by its role, such as `pad_token`.
    pub(super) fn token(&self, role: &str) -> Option<String> {
        let text = |value: &Value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Object(token) => token.get("content").and_then(Value::as_str).map(str::to_owned),
            _ => None,
        };
        [&self.values, &self.special].into_iter().find_map(|map| map.get(role).and_then(text))
    }

    /// The text of a special token by its role, or the one that the reference's class gives it.
    pub(super) fn token_or_default(&self, role: &str, kind: Option<Kind>) -> Option<String> {
        let kind = if self.class().is_siglip2() { Some(Kind::Gemma) } else { kind };
        self.token(role).or_else(|| default_token(role, kind?).map(str::to_owned))
    }

    /// CLIP's token in front of a text.
    pub(super) fn bos(&self) -> String {
        self.token("bos_token").unwrap_or_else(|| super::clip::BOS.to_owned())
    }

    /// CLIP's token behind a text.
    pub(super) fn eos(&self) -> String {
        self.token("eos_token").unwrap_or_else(|| super::clip::EOS.to_owned())
    }

    /// The entries of `added_tokens_decoder`, in the order of their ids.
    pub(super) fn added_tokens(&self) -> Result<Vec<(u32, AddedToken)>, LoadError> {
        let Some(entries) = self.values.get("added_tokens_decoder").and_then(Value::as_object) else {
            return Ok(Vec::new());
        };
        let wrong =
            |id: &str| self.error("added_tokens_decoder", format!("'{id}' is no entry of id and token"));
        let mut tokens = Vec::with_capacity(entries.len());
        for (id, entry) in entries {
            let flag = |key: &str| entry.get(key).and_then(Value::as_bool).unwrap_or(false);
            let content = entry.get("content").and_then(Value::as_str).ok_or_else(|| wrong(id))?;
            let special = flag("special");
            let token = AddedToken::from(content, special)
                .lstrip(flag("lstrip"))
                .rstrip(flag("rstrip"))
                .single_word(flag("single_word"))
                .normalized(entry.get("normalized").and_then(Value::as_bool).unwrap_or(!special));
            tokens.push((id.parse().map_err(|_| wrong(id))?, token));
        }
        tokens.sort_by_key(|&(id, _)| id);
        Ok(tokens)
    }

    fn string(&self, key: &str) -> Result<Option<String>, LoadError> {
        match self.values.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(value)) => Ok(Some(value.clone())),
            Some(other) => Err(self.error(key, format!("is {other}; use a string"))),
        }
    }
}

/// The names the reference's classes give their special tokens.
fn default_token(role: &str, kind: Kind) -> Option<&'static str> {
    Some(match (kind, role) {
        (Kind::ClipBpe, "bos_token") => super::clip::BOS,
        (Kind::ClipBpe, "eos_token" | "pad_token" | "unk_token") => super::clip::EOS,
        (Kind::Bert, "pad_token") => "[PAD]",
        (Kind::Bert, "unk_token") => "[UNK]",
        (Kind::Bert, "cls_token") => "[CLS]",
        (Kind::Bert, "sep_token") => "[SEP]",
        (Kind::Bert, "mask_token") => "[MASK]",
        (Kind::Siglip, "pad_token" | "eos_token") => "</s>",
        (Kind::Siglip | Kind::Gemma, "unk_token") => "<unk>",
        (Kind::Gemma, "pad_token") => "<pad>",
        (Kind::Gemma, "bos_token") => "<bos>",
        (Kind::Gemma, "eos_token") => "<eos>",
        _ => return None,
    })
}

/// What open_clip's `text_cfg.tokenizer_kwargs` ask for.
#[derive(Debug, Clone, Default)]
pub(super) struct Kwargs {
    pub(super) clean: Option<Clean>,
    pub(super) strip_sep_token: bool,
}

impl Kwargs {
    /// Reads them; every key that could change the ids and is not supported is refused by name.
    pub(super) fn from_value(value: Option<&Value>, cleaning: Cleaning) -> Result<Self, LoadError> {
        let mut kwargs = Self::default();
        let error = |key: &str, reason: String| LoadError::Config {
            file: "open_clip_config.json".to_owned(),
            key: format!("model_cfg.text_cfg.tokenizer_kwargs{}{key}", if key.is_empty() { "" } else { "." }),
            reason,
        };
        let entries = match value {
            None | Some(Value::Null) => return Ok(kwargs),
            Some(Value::Object(entries)) => entries,
            Some(other) => return Err(error("", format!("is {other}; use an object"))),
        };
        for (key, value) in entries {
            match (key.as_str(), value) {
                (_, Value::Null) => {}
                ("clean", Value::String(name)) => {
                    kwargs.clean = Some(Clean::from_name(name).ok_or_else(|| {
                        let known = "'lower', 'whitespace' and 'canonicalize'";
                        error(key, format!("is '{name}', but open_clip knows {known}"))
                    })?);
                }
                ("strip_sep_token", Value::Bool(strip)) if cleaning == Cleaning::OpenClipHf => {
                    kwargs.strip_sep_token = *strip;
                }
                // A random or syntactic choice of words is for training; an empty one is the default.
                ("reduction_mask", Value::String(mask)) if mask.is_empty() => {}
                _ => return Err(error(key, format!("is {value}, which is not supported here; remove it"))),
            }
        }
        Ok(kwargs)
    }
}

fn object(dir: &Path, file: &str) -> Result<Option<Map<String, Value>>, LoadError> {
    let path = dir.join(file);
    if !path.exists() {
        return Ok(None);
    }
    match json::parse(file, &read_file(&path, "the tokenizer's settings")?)? {
        Value::Object(map) => Ok(Some(map)),
        _ => Err(LoadError::Config {
            file: file.to_owned(),
            key: "(top)".to_owned(),
            reason: "is no JSON object; use the file as published".to_owned(),
        }),
    }
}
