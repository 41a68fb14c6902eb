//! Typed look-ups in published JSON files, with errors that name the key.
//!
//! Owns: the rule that an absent or null key means the library's default, and the wording when a
//! value has the wrong type. Does not own any default.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::activation::{self, Activation};
use crate::error::LoadError;

/// One object of a JSON file.
#[derive(Clone, Copy)]
pub(crate) struct Section<'a> {
    file: &'a str,
    /// Dotted path of the object within the file; empty at the top.
    path: &'a str,
    map: &'a Map<String, Value>,
}

impl<'a> Section<'a> {
    /// The top of a file.
    pub(crate) fn top(file: &'a str, value: &'a Value) -> Result<Self, LoadError> {
        Self::new(file, "", value)
    }

    /// An object within a file.
    pub(crate) fn new(file: &'a str, path: &'a str, value: &'a Value) -> Result<Self, LoadError> {
        match value {
            Value::Object(map) => Ok(Self { file, path, map }),
            _ => Err(LoadError::Config {
                file: file.to_owned(),
                key: if path.is_empty() { "(top)".to_owned() } else { path.to_owned() },
                reason: "is no JSON object; use the file as published".to_owned(),
            }),
        }
    }

    /// The raw value of a key, when present and not null.
    pub(crate) fn value(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    /// Whether the key is there and null, where that is not the same as being absent.
    pub(crate) fn is_null(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(Value::is_null)
    }

    /// The typed value of a key, when present and not null.
    pub(crate) fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, LoadError> {
        self.value(key)
            .map(|v| {
                T::deserialize(v)
                    .map_err(|e| self.error(key, format!("{e}; correct the value or remove the key")))
            })
            .transpose()
    }

    /// The typed value of a key, or the library's default.
    pub(crate) fn get_or<T: DeserializeOwned>(&self, key: &str, default: T) -> Result<T, LoadError> {
        Ok(self.get(key)?.unwrap_or(default))
    }

    /// An object below this one; an absent or null one is empty, so that every key takes its default.
    pub(crate) fn section(&self, key: &'a str) -> Result<Section<'a>, LoadError> {
        static EMPTY: std::sync::LazyLock<Value> = std::sync::LazyLock::new(|| Value::Object(Map::new()));
        Section::new(self.file, key, self.value(key).unwrap_or(&EMPTY))
    }

    /// Refuses keys that would change the result and are not supported, unless they say "no".
    pub(crate) fn refuse(&self, keys: &[&str]) -> Result<(), LoadError> {
        for key in keys {
            match self.value(key) {
                None | Some(Value::Bool(false)) => {}
                Some(Value::Object(map)) if map.is_empty() => {}
                Some(value) => {
                    let reason =
                        format!("is {value}, an option that is not supported; use another checkpoint");
                    return Err(self.error(key, reason));
                }
            }
        }
        Ok(())
    }

    /// The activation that a key names.
    pub(crate) fn activation(&self, key: &str, default: Activation) -> Result<Activation, LoadError> {
        let Some(name) = self.get::<String>(key)? else { return Ok(default) };
        activation::from_name(&name).ok_or_else(|| {
            let known = activation::KNOWN;
            self.error(key, format!("is '{name}', an activation that is not known; known are {known}"))
        })
    }

    /// A whole number of a key, checked against its bounds.
    pub(crate) fn size(
        &self,
        key: &str,
        default: usize,
        (min, max): (usize, usize),
    ) -> Result<usize, LoadError> {
        let found = self.get_or(key, default)?;
        if (min..=max).contains(&found) {
            return Ok(found);
        }
        let reason = format!("is {found}, but must be {min} to {max}; use the config.json of these weights");
        Err(self.error(key, reason))
    }

    /// What is added to a variance, checked against its bounds.
    pub(crate) fn epsilon(&self, key: &str, default: f64) -> Result<f64, LoadError> {
        let eps = self.get_or(key, default)?;
        if eps.is_finite() && eps > 0.0 && eps < 1.0 {
            return Ok(eps);
        }
        Err(self.error(key, format!("is {eps}, but must be between 0 and 1, usually {default:e}")))
    }

    /// Heads that do not divide the width.
    pub(crate) fn heads_error(&self, heads: usize, hidden: usize) -> LoadError {
        let reason = format!(
            "is {heads}, which does not divide hidden_size {hidden}; use the config.json of these weights"
        );
        self.error("num_attention_heads", reason)
    }

    /// Height and width: one number for both, or two.
    pub(crate) fn pair(&self, key: &str, default: usize, max: usize) -> Result<(usize, usize), LoadError> {
        let pair = match self.value(key) {
            Some(Value::Array(_)) => {
                let [height, width]: [usize; 2] = self.get_or(key, [default; 2])?;
                (height, width)
            }
            _ => {
                let side = self.get_or(key, default)?;
                (side, side)
            }
        };
        if pair.0.min(pair.1) == 0 || pair.0.max(pair.1) > max {
            return Err(self.error(key, format!("is {pair:?}, but must be 1 to {max} pixels")));
        }
        Ok(pair)
    }

    /// An error about a key of this object.
    pub(crate) fn error(&self, key: &str, reason: impl Into<String>) -> LoadError {
        let key = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        LoadError::Config { file: self.file.to_owned(), key, reason: reason.into() }
    }
}

/// Parses a JSON file.
pub(crate) fn parse(file: &str, text: &str) -> Result<Value, LoadError> {
    serde_json::from_str(text).map_err(|e| LoadError::Config {
        file: file.to_owned(),
        key: format!("line {}, column {}", e.line(), e.column()),
        reason: format!("{e}; use the file as published"),
    })
}
