//! Parquet files as rows.
//!
//! Owns: what the values of columns are to an item. Deliberately absent: the format, which is
//! `diptych_columnar`'s.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use diptych_columnar::{Table, Value};
use diptych_core::limits::ATTRIBUTE_VALUE_BYTES_MAX;
use diptych_core::{AttributeValue, Chunking};

use crate::columns::{Columns, Role, Roles, Row};
use crate::item::{ItemError, ItemImage, Origin, printable};
use crate::keys::{Found, FoundResult};
use crate::notes::Notes;
use crate::paths::Base;

/// The rows of some files, one after the other.
pub(crate) struct Rows {
    files: VecDeque<PathBuf>,
    columns: Columns,
    image_root: Option<PathBuf>,
    chunking: Option<Chunking>,
    notes: Notes,
    open: Option<Open>,
}

struct Open {
    file: Arc<Path>,
    table: Table,
    roles: Roles,
    base: Base,
    row: u64,
}

impl Rows {
    /// Opens the first file. The error is the reason in words.
    pub(crate) fn open(
        files: Vec<PathBuf>,
        columns: &Columns,
        image_root: Option<&Path>,
        chunking: Option<Chunking>,
        notes: Notes,
    ) -> Result<Self, String> {
        let mut rows = Self {
            files: files.into(),
            columns: columns.clone(),
            image_root: image_root.map(Path::to_owned),
            chunking,
            notes,
            open: None,
        };
        rows.open = rows.next_file().transpose().map_err(|error| error.reason)?;
        Ok(rows)
    }

    /// The columns of the open file and what they are taken for.
    pub(crate) fn describe(&self) -> Vec<(String, String)> {
        self.open.as_ref().map(|open| open.roles.describe()).unwrap_or_default()
    }

    fn next_file(&mut self) -> Option<Result<Open, ItemError>> {
        let path = self.files.pop_front()?;
        let opened = open(&path).and_then(|table| {
            let roles = Roles::of(table.columns().to_vec(), &self.columns)?;
            if !roles.has_content() {
                let there = roles.names.iter().map(|n| printable(n)).collect::<Vec<_>>().join(", ");
                return Err(format!(
                    "none of its columns is known to be an image or a text; say which by --image-column and \
                     --text-column. There are: {there}"
                ));
            }
            let base = Base::beside(&path, self.image_root.as_deref());
            Ok(Open { file: Arc::from(path.as_path()), table, roles, base, row: 0 })
        });
        Some(opened.map_err(|reason| ItemError { origin: Origin::Path(path), reason }))
    }
}

/// The rows that files say they have.
pub(crate) fn count(files: &[PathBuf]) -> Option<u64> {
    files.iter().map(|file| open(file).ok().map(|table| table.rows())).sum()
}

/// Opens a file. The library panics over some damage.
fn open(path: &Path) -> Result<Table, String> {
    match catch_unwind(|| Table::open_large(path)) {
        Ok(opened) => opened.map_err(|e| e.to_string()),
        Err(_) => Err("it is damaged; write it again".to_owned()),
    }
}

impl Open {
    fn origin(&self) -> Origin {
        Origin::Row { file: Arc::clone(&self.file), row: self.row }
    }

    fn found(
        &self,
        values: Vec<(String, Value)>,
        chunking: Option<Chunking>,
        notes: &Notes,
    ) -> Result<Found, String> {
        let mut row = Row::default();
        for ((name, value), role) in values.into_iter().zip(&self.roles.roles) {
            match role {
                Role::Unused => {}
                Role::Key | Role::Study => {
                    row.key = key_of(&name, value)?;
                    row.joins = *role == Role::Study;
                }
                Role::Image => self.add_image(&mut row, &name, value)?,
                Role::Text => add_text(&mut row, &name, value)?,
                Role::Attribute(name) => add_attribute(&mut row, name, value, notes),
            }
        }
        if row.key.is_none() && row.images.is_empty() {
            // Rows of other files have the same numbers.
            let stem = self.file.file_stem().unwrap_or_default().to_string_lossy();
            row.key = Some(format!("{stem}-{}", self.row));
        }
        row.into_found(&self.base, chunking, self.origin())
    }

    /// Takes up an image: encoded, a path, both in a group, or a list of those.
    fn add_image(&self, row: &mut Row, name: &str, value: Value) -> Result<(), String> {
        let source = || {
            let file = self.file.canonicalize().unwrap_or_else(|_| self.file.to_path_buf());
            format!("{}!{}", file.to_string_lossy(), self.row)
        };
        match value {
            Value::Empty => {}
            Value::Bytes(bytes) if bytes.is_empty() => return Err(format!("'{}' is empty", printable(name))),
            Value::Bytes(bytes) => row.own_images.push(ItemImage::bytes(source(), bytes)),
            Value::Attribute(AttributeValue::String(path)) if !path.trim().is_empty() => {
                row.images.push(path.trim().to_owned());
            }
            Value::Attribute(AttributeValue::List(paths)) => row.images.extend(paths),
            Value::List(values) => {
                values.into_iter().try_for_each(|value| self.add_image(row, name, value))?;
            }
            Value::Group(values) => {
                let (mut bytes, mut path) = (None, None);
                for (name, value) in values {
                    match (name.as_str(), value) {
                        ("bytes", Value::Bytes(found)) => bytes = Some(found),
                        ("path", Value::Attribute(AttributeValue::String(found))) => path = Some(found),
                        _ => {}
                    }
                }
                match (bytes, path) {
                    (Some(bytes), path) => {
                        let source = path.map_or_else(source, |path| format!("{}!{path}", source()));
                        row.own_images.push(ItemImage::bytes(source, bytes));
                    }
                    (None, Some(path)) => row.images.push(path),
                    (None, None) => return Err(no_image(name)),
                }
            }
            Value::Attribute(_) | Value::Other => return Err(no_image(name)),
        }
        Ok(())
    }
}

fn no_image(name: &str) -> String {
    let name = printable(name);
    format!("'{name}' is no image; give encoded images, paths, or groups of 'bytes' and 'path'")
}

fn key_of(name: &str, value: Value) -> Result<Option<String>, String> {
    match value {
        Value::Attribute(AttributeValue::String(key)) => Ok(Some(key)),
        Value::Attribute(AttributeValue::Integer(key)) => Ok(Some(key.to_string())),
        Value::Bytes(bytes) => String::from_utf8(bytes).map(Some).map_err(|_| no_key(name)),
        _ => Err(no_key(name)),
    }
}

fn no_key(name: &str) -> String {
    format!(
        "'{}' is neither a text nor a whole number, so it is no key; name another column",
        printable(name)
    )
}

fn add_text(row: &mut Row, name: &str, value: Value) -> Result<(), String> {
    let wrong = || format!("'{}' is no text; name another column by --text-column", printable(name));
    match value {
        Value::Empty => {}
        Value::Attribute(AttributeValue::String(text)) => row.texts.push(text),
        Value::Attribute(AttributeValue::List(texts)) => row.texts.extend(texts),
        Value::Bytes(bytes) => row.texts.push(String::from_utf8(bytes).map_err(|_| wrong())?),
        _ => return Err(wrong()),
    }
    row.texts.retain(|text| !text.trim().is_empty());
    Ok(())
}

/// Takes up an attribute; what can be none is left out and noted.
fn add_attribute(row: &mut Row, name: &str, value: Value, notes: &Notes) {
    let text =
        |bytes: Vec<u8>| String::from_utf8(bytes).ok().filter(|t| t.len() <= ATTRIBUTE_VALUE_BYTES_MAX);
    let value = match value {
        Value::Empty => return,
        Value::Attribute(value) => Some(value),
        Value::Bytes(bytes) => text(bytes).map(AttributeValue::String),
        Value::Group(values) => {
            for (inner, value) in values {
                add_attribute(row, &format!("{name}.{inner}"), value, notes);
            }
            return;
        }
        Value::List(_) | Value::Other => None,
    };
    match value {
        Some(value) => drop(row.attributes.insert(name.to_owned(), value)),
        None => notes.count(&format!("values of column '{}' that no attribute can have", printable(name))),
    }
}

impl Iterator for Rows {
    type Item = FoundResult;

    fn next(&mut self) -> Option<FoundResult> {
        loop {
            let Some(open) = &mut self.open else {
                match self.next_file()? {
                    Ok(open) => self.open = Some(open),
                    Err(error) => return Some(Err(error)),
                }
                continue;
            };
            open.row += 1;
            let read = catch_unwind(AssertUnwindSafe(|| open.table.next_row()));
            let stops = match read {
                Ok(Ok(None)) => {
                    self.open = None;
                    continue;
                }
                Ok(Ok(Some(row))) => {
                    let found = open.found(row.into_values(), self.chunking, &self.notes);
                    return Some(found.map_err(|reason| ItemError { origin: open.origin(), reason }));
                }
                Ok(Err(error)) => error.to_string(),
                // The library panics over some damage.
                Err(_) => "the file is damaged".to_owned(),
            };
            let origin = open.origin();
            self.open = None;
            return Some(Err(ItemError { origin, reason: format!("reading stops here: {stops}") }));
        }
    }
}
