//! The fields of a JSON object.
//!
//! Owns: which names mean key, images, texts and attributes, and which types they may have. Knows
//! nothing of files, lines or the keys of other items.

use std::fmt;

use diptych_core::{AttributeValue, Attributes};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::columns::{Columns, Row, STUDY_NAME};
use crate::item::printable;

const KEY_FIELDS: [&str; 2] = ["key", "id"];
const IMAGE_FIELDS: [&str; 2] = ["image", "images"];
const TEXT_FIELDS: [&str; 5] = ["text", "texts", "caption", "captions", "report"];

impl Row {
    /// Reads one JSON object. The error says what is wrong and what would be right.
    pub(crate) fn parse(line: &str, columns: &Columns) -> Result<Self, String> {
        let Object(object) = serde_json::from_str(line).map_err(|e| {
            // The parser sees one line at a time, so its own line number would mislead.
            let reason = e.to_string().replace(" at line 1 column ", " at column ");
            format!("not a JSON object: {}; write one object per line", printable(&reason))
        })?;
        let row = Self::of_object(object, columns)?;
        if row.images.is_empty() && row.texts.is_empty() {
            return Err("neither image nor text; give \"image\" or \"text\" a value".to_owned());
        }
        Ok(row)
    }

    /// What an object says: `key`, else `id`, else `case_id`, whose lines are one study; `image` and `images`;
    /// `text`, `texts`, `caption`, `captions`, `report`; `attributes` and every other scalar field.
    pub(crate) fn of_object(mut object: Map<String, Value>, columns: &Columns) -> Result<Self, String> {
        object.retain(|_, value| !value.is_null());
        let (key, joins) = take_key(&mut object, columns)?;
        let (mut images, mut texts) = (Vec::new(), Vec::new());
        for name in names(&columns.images, &IMAGE_FIELDS) {
            if let Some(value) = object.remove(name) {
                images.extend(strings(name, value)?);
            }
        }
        if images.iter().any(|path| path.trim().is_empty()) {
            return Err("an image path is empty; give the path or leave the field out".to_owned());
        }
        for name in names(&columns.texts, &TEXT_FIELDS) {
            if let Some(value) = object.remove(name) {
                texts.extend(text_parts(name, value)?);
            }
        }
        let mut attributes = attributes(object)?;
        if !columns.attributes.is_empty() {
            let wanted = columns.attributes.iter();
            attributes = wanted
                .filter_map(|(name, column)| Some((name.clone(), attributes.get(column)?.clone())))
                .collect();
        }
        Ok(Self { key, joins, images, own_images: Vec::new(), texts, attributes })
    }
}

/// Fields that were named, else the usual ones.
fn names<'a>(named: &'a [String], usual: &'a [&'a str]) -> Vec<&'a str> {
    match named.is_empty() {
        true => usual.to_vec(),
        false => named.iter().map(String::as_str).collect(),
    }
}

/// The key, and whether it is that of a study.
fn take_key(object: &mut Map<String, Value>, columns: &Columns) -> Result<(Option<String>, bool), String> {
    let named = columns.study.as_ref().map(|name| (name, true));
    if let Some((name, joins)) = named.or(columns.key.as_ref().map(|name| (name, false))) {
        let value = object.remove(name);
        let value =
            value.ok_or_else(|| format!("it has no '{}', which is to be its key", printable(name)))?;
        return Ok((Some(key(name, value)?), joins));
    }
    if let Some(name) = KEY_FIELDS.into_iter().find(|&name| object.contains_key(name)) {
        let value = object.remove(name).unwrap_or_default();
        return Ok((Some(key(name, value)?), false));
    }
    match object.get(STUDY_NAME) {
        // It stays an attribute, by which records can be grouped.
        Some(value) => Ok((Some(key(STUDY_NAME, value.clone())?), true)),
        None => Ok((None, false)),
    }
}

fn key(name: &str, value: Value) -> Result<String, String> {
    match value {
        Value::String(key) => Ok(key),
        Value::Number(number) if !number.is_f64() => Ok(number.to_string()),
        other => Err(format!("'{name}' is {}; write it as a string", kind(&other))),
    }
}

/// Texts of a field. A blank string says no more than a missing field and is left out; within a
/// list it would shift the texts after it, so there it is an error.
fn text_parts(name: &str, value: Value) -> Result<Vec<String>, String> {
    let alone = value.is_string();
    let mut texts = strings(name, value)?;
    match texts.iter().position(|text| text.trim().is_empty()) {
        Some(position) if !alone => {
            Err(format!("entry {position} of '{name}' (counted from 0) is blank; fill it or remove it"))
        }
        Some(_) => {
            texts.clear();
            Ok(texts)
        }
        None => Ok(texts),
    }
}

fn strings(name: &str, value: Value) -> Result<Vec<String>, String> {
    match value {
        Value::String(text) => Ok(vec![text]),
        Value::Array(entries) => string_list(name, entries),
        other => Err(format!("'{name}' is {}; give a string or a list of strings", kind(&other))),
    }
}

fn string_list(name: &str, entries: Vec<Value>) -> Result<Vec<String>, String> {
    let each = entries.into_iter().enumerate().map(|(position, entry)| match entry {
        Value::String(text) => Ok(text),
        other => Err(format!(
            "entry {position} of '{}' (counted from 0) is {}; give strings only",
            printable(name),
            kind(&other)
        )),
    });
    each.collect()
}

fn attributes(mut object: Map<String, Value>) -> Result<Attributes, String> {
    let mut attributes = Attributes::new();
    match object.remove("attributes") {
        None => {}
        Some(Value::Object(named)) => {
            for (name, value) in named {
                if !value.is_null() {
                    let value = attribute(&format!("attributes.{name}"), value)?;
                    attributes.insert(name, value);
                }
            }
        }
        Some(other) => {
            return Err(format!("'attributes' is {}; give an object of names and values", kind(&other)));
        }
    }
    for (name, value) in object {
        let value = attribute(&name, value)?;
        if attributes.contains_key(&name) {
            let name = printable(&name);
            return Err(format!("'{name}' is a field and also in 'attributes'; keep one of them"));
        }
        attributes.insert(name, value);
    }
    Ok(attributes)
}

fn attribute(name: &str, value: Value) -> Result<AttributeValue, String> {
    match value {
        Value::String(text) => Ok(AttributeValue::String(text)),
        Value::Bool(truth) => Ok(AttributeValue::Bool(truth)),
        Value::Number(number) => numeric(name, &number),
        Value::Array(entries) => string_list(name, entries).map(AttributeValue::List),
        other => Err(format!(
            "'{}' is {}; an attribute is a string, a number, true, false or a list of strings",
            printable(name),
            kind(&other)
        )),
    }
}

fn numeric(name: &str, number: &Number) -> Result<AttributeValue, String> {
    if let Some(whole) = number.as_i64() {
        return Ok(AttributeValue::Integer(whole));
    }
    match number.as_f64() {
        // As a float such a number would silently lose its last digits, which matter in an id.
        Some(float) if number.is_f64() => Ok(AttributeValue::Float(float)),
        _ => Err(format!("'{}' is {number}, beyond 64 signed bits; write it as a string", printable(name))),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A JSON object in which no name occurs twice. The parser's own map would keep the last value and
/// lose the first without a word.
pub(crate) struct Object(pub(crate) Map<String, Value>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Object;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object like {\"image\": \"a.png\", \"text\": \"...\"}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Object, A::Error> {
        let mut object = Map::new();
        while let Some((name, value)) = access.next_entry::<String, Value>()? {
            if object.contains_key(&name) {
                return Err(A::Error::custom(format!("'{}' occurs twice", printable(&name))));
            }
            object.insert(name, value);
        }
        Ok(Object(object))
    }
}
