//! Typed look-ups in published JSON files, with errors that name the key.
//!
//! Owns: the rule that an absent or null key means the library's default, and the wording when a
//! value has the wrong type. Does not own any default.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

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
