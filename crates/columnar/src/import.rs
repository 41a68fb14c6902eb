//! Reading a folder: ours, whose records come back as they were, or clip-retrieval's own, each row of which
//! becomes a record.
//!
//! Everything that can be known without reading rows is checked when the folder is opened: that arrays and
//! metadata are there, whole and as long as each other. Then one row is read at a time.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use diptych_core::limits::POINTS_MAX;
use diptych_core::{Attributes, Digest, ImagePart, Key, Modality, Part, PartRef, Record, TextPart};

use crate::ColumnarError;
use crate::attributes::{self, Cell};
use crate::error::io;
use crate::export::{self, DESCRIPTION_FILE, Description, FORMAT};
use crate::npy::NpyReader;
use crate::rows::{self, OWN_COLUMNS, ReadRow};
use crate::table::{Table, TableRow};

/// The vectors of a record, by part.
pub type Vectors = Vec<(PartRef, Vec<f32>)>;

/// What to make of a folder that is not ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FolderOptions {
    /// The column with the keys of the records; `key`, else `image_path`, when none is given.
    pub key_column: Option<String>,
}

/// A folder that has been checked.
#[derive(Debug)]
pub struct Folder {
    description: Option<Description>,
    shards: Vec<Shard>,
    dim: usize,
    rows: u64,
    /// The column of keys, where a row is a record.
    key_column: Option<String>,
}

#[derive(Debug)]
struct Shard {
    images: Option<PathBuf>,
    texts: Option<PathBuf>,
    metadata: PathBuf,
}

impl Folder {
    /// Opens a folder and checks what can be checked without reading it whole.
    ///
    /// # Errors
    /// [`ColumnarError::Unusable`] naming the file that is missing, damaged or does not fit the others.
    pub fn open(path: &Path, options: &FolderOptions) -> Result<Self, ColumnarError> {
        let description = read_description(path)?;
        let shards = find_shards(path)?;
        let (mut dims, mut rows, mut columns) = (None, 0, Vec::new());
        for (n, shard) in shards.iter().enumerate() {
            let table = Table::open(&shard.metadata)?;
            if n == 0 {
                columns = table.columns().to_vec();
            }
            for array in shard.images.iter().chain(&shard.texts) {
                let reader = NpyReader::open(array)?;
                if reader.rows() != table.rows() {
                    let reason = format!(
                        "it has {} rows, and {} has {}; they must have one for each other",
                        reader.rows(),
                        shard.metadata.display(),
                        table.rows()
                    );
                    return Err(ColumnarError::unusable(array, reason));
                }
                match dims {
                    None => dims = Some(reader.dim()),
                    Some(dim) if dim != reader.dim() => {
                        let reason = format!(
                            "its vectors have {} dimensions, those of other files {dim}; keep models apart",
                            reader.dim()
                        );
                        return Err(ColumnarError::unusable(array, reason));
                    }
                    Some(_) => {}
                }
            }
            rows += table.rows();
        }
        let dim = dims.ok_or_else(|| {
            ColumnarError::unusable(
                path,
                "it has no arrays; img_emb/img_emb_0.npy or text_emb/text_emb_0.npy is needed",
            )
        })?;
        check_description(path, description.as_ref(), rows, dim)?;
        let own = OWN_COLUMNS.iter().all(|own| columns.iter().any(|column| column == own));
        let key_column = if own { None } else { Some(key_column(&shards[0].metadata, &columns, options)?) };
        Ok(Self { description, shards, dim, rows, key_column })
    }

    /// What its `diptych.json` says, if it has one.
    pub fn description(&self) -> Option<&Description> {
        self.description.as_ref()
    }

    /// Dimensions of its vectors.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Rows of all shards.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Whether it was written here, so that several rows may be one record.
    pub fn is_own(&self) -> bool {
        self.key_column.is_none()
    }

    /// Reads its records in order.
    pub fn into_items(self) -> Items {
        Items {
            folder: self,
            next_shard: 0,
            open: None,
            held: None,
            left_out: BTreeSet::new(),
            without_text: 0,
        }
    }
}

/// A record as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// Its file and row.
    pub origin: String,
    /// Rows that it was read from.
    pub rows: u64,
    /// The record with its vectors, or what is wrong with it.
    pub outcome: Result<(Record, Vectors), String>,
}

/// The records of a folder.
pub struct Items {
    folder: Folder,
    next_shard: usize,
    open: Option<Open>,
    /// Of ours: the first row of the next record.
    held: Option<(String, ReadRow)>,
    left_out: BTreeSet<String>,
    without_text: u64,
}

struct Open {
    metadata: PathBuf,
    table: Table,
    images: Option<NpyReader>,
    texts: Option<NpyReader>,
    row: u64,
}

impl Items {
    /// Columns of which some values are none that an attribute can have; those were left out.
    pub fn left_out(&self) -> &BTreeSet<String> {
        &self.left_out
    }

    /// Rows with the vector of a text that they do not have, which was left out.
    pub fn without_text(&self) -> u64 {
        self.without_text
    }

    /// The next record; `None` behind the last.
    ///
    /// # Errors
    /// When a file cannot be read on.
    pub fn next_record(&mut self) -> Result<Option<Imported>, ColumnarError> {
        match self.folder.key_column.clone() {
            None => self.next_own(),
            Some(column) => {
                let Some((origin, read)) = self.next_row()? else { return Ok(None) };
                Ok(Some(Imported { origin, rows: 1, outcome: self.foreign(read, &column) }))
            }
        }
    }

    fn next_row(&mut self) -> Result<Option<(String, ReadRow)>, ColumnarError> {
        loop {
            let open = match &mut self.open {
                Some(open) => open,
                none => match self.folder.shards.get(self.next_shard) {
                    None => return Ok(None),
                    Some(shard) => {
                        self.next_shard += 1;
                        none.insert(Open::of(shard)?)
                    }
                },
            };
            if let Some(read) = open.next_row()? {
                return Ok(Some(read));
            }
            self.open = None;
        }
    }

    fn next_own(&mut self) -> Result<Option<Imported>, ColumnarError> {
        let first = match self.held.take() {
            Some(held) => Some(held),
            None => self.next_row()?,
        };
        let Some((origin, first)) = first else { return Ok(None) };
        let key = first.row.text("key").map(str::to_owned);
        let (mut rows, mut count) = (vec![first], 1);
        while let Some((origin, next)) = self.next_row()? {
            if next.row.text("key") != key.as_deref() {
                self.held = Some((origin, next));
                break;
            }
            count += 1;
            // No record has more, and what is no record is not kept.
            if rows.len() <= POINTS_MAX {
                rows.push(next);
            }
        }
        let outcome = match rows.len() {
            found if found > POINTS_MAX => Err(format!(
                "{count} rows with the key '{}', and no record has more than {POINTS_MAX}; give each record its own key",
                key.unwrap_or_default()
            )),
            _ => rows::to_record(rows),
        };
        Ok(Some(Imported { origin, rows: count, outcome }))
    }

    /// A row of clip-retrieval's as a record.
    fn foreign(&mut self, read: ReadRow, key_column: &str) -> Result<(Record, Vectors), String> {
        let ReadRow { row, image, text } = read;
        let key = match row.field(key_column).map(attributes::from_field) {
            Some(Cell::Value(diptych_core::AttributeValue::String(key))) => key,
            Some(Cell::Value(diptych_core::AttributeValue::Integer(key))) => key.to_string(),
            _ => {
                return Err(format!(
                    "it has no key: its column '{key_column}' has no text; choose another with --key-column"
                ));
            }
        };
        let key = Key::new(key).map_err(|e| e.to_string())?;
        let (mut parts, mut vectors) = (Vec::new(), Vectors::new());
        if let Some(vector) = image {
            let source = row.text("image_path").unwrap_or_default().to_owned();
            parts.push(Part::Image(ImagePart { source, digest: Digest([0; 32]), width: 0, height: 0 }));
            vectors.push((PartRef::whole(Modality::Image, 0), vector));
        }
        match (text, row.text("caption").filter(|caption| !caption.trim().is_empty())) {
            (Some(vector), Some(caption)) => {
                parts.push(Part::Text(TextPart::whole(caption, 0)));
                vectors.push((PartRef::whole(Modality::Text, 0), vector));
            }
            (Some(_), None) => self.without_text += 1,
            (None, _) => {}
        }
        let attributes = self.attributes(&row, key_column);
        let record = Record::new(key, parts, attributes).map_err(|e| e.to_string())?;
        Ok((record, vectors))
    }

    fn attributes(&mut self, row: &TableRow, key_column: &str) -> Attributes {
        let mut found = Attributes::new();
        for (name, field) in &row.0 {
            // What has its own place, and the row numbers of pandas.
            if [key_column, "image_path", "caption"].contains(&name.as_str())
                || name.starts_with("__index_level_")
            {
                continue;
            }
            match attributes::from_field(field) {
                Cell::Value(value) => drop(found.insert(name.clone(), value)),
                Cell::Empty => {}
                Cell::Other => drop(self.left_out.insert(name.clone())),
            }
        }
        found
    }
}

impl Open {
    fn of(shard: &Shard) -> Result<Self, ColumnarError> {
        let array = |path: &Option<PathBuf>| path.as_deref().map(NpyReader::open).transpose();
        Ok(Self {
            metadata: shard.metadata.clone(),
            table: Table::open(&shard.metadata)?,
            images: array(&shard.images)?,
            texts: array(&shard.texts)?,
            row: 0,
        })
    }

    fn next_row(&mut self) -> Result<Option<(String, ReadRow)>, ColumnarError> {
        let Some(row) = self.table.next_row()? else { return Ok(None) };
        let next = |array: &mut Option<NpyReader>| match array {
            Some(array) => array.next_row(),
            None => Ok(None),
        };
        let (image, text) = (next(&mut self.images)?, next(&mut self.texts)?);
        let origin = format!("{}, row {}", self.metadata.display(), self.row);
        self.row += 1;
        Ok(Some((origin, ReadRow { row, image, text })))
    }
}

fn read_description(path: &Path) -> Result<Option<Description>, ColumnarError> {
    let file = path.join(DESCRIPTION_FILE);
    let text = match fs::read(&file) {
        Ok(text) => text,
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(e) => return Err(io("read", &file)(e)),
    };
    let description: Description = serde_json::from_slice(&text)
        .map_err(|e| ColumnarError::unusable(&file, format!("it is damaged: {e}; export again")))?;
    if description.format != FORMAT {
        let reason = format!(
            "it has format {}, this program reads {FORMAT}; use the version that wrote it, {}",
            description.format, description.diptych
        );
        return Err(ColumnarError::unusable(&file, reason));
    }
    Ok(Some(description))
}

fn check_description(
    path: &Path,
    description: Option<&Description>,
    rows: u64,
    dim: usize,
) -> Result<(), ColumnarError> {
    let Some(said) = description else { return Ok(()) };
    let file = path.join(DESCRIPTION_FILE);
    if said.rows != rows {
        let reason = format!(
            "it says {} rows, the shards have {rows}; some are missing or not of this export",
            said.rows
        );
        return Err(ColumnarError::unusable(&file, reason));
    }
    if said.about.dimension != dim {
        let reason =
            format!("it says {} dimensions, the vectors have {dim}; export again", said.about.dimension);
        return Err(ColumnarError::unusable(&file, reason));
    }
    for (name, expected) in &said.files {
        let path = path.join(name);
        if export::digest(&path)? != *expected {
            let reason = format!(
                "it is not what was exported; copy the folder again, or, where it was changed on purpose, delete \
                 {DESCRIPTION_FILE} and say --trust-vectors"
            );
            return Err(ColumnarError::unusable(&path, reason));
        }
    }
    Ok(())
}

/// The shards by number, which may be padded with zeros.
fn find_shards(path: &Path) -> Result<Vec<Shard>, ColumnarError> {
    let metadata = path.join("metadata");
    let entries = match fs::read_dir(&metadata) {
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            let reason = "it has no folder 'metadata'; name a folder that `diptych export` or clip-retrieval has written";
            return Err(ColumnarError::unusable(path, reason));
        }
        entries => entries.map_err(io("read", &metadata))?,
    };
    let mut numbers: Vec<(u64, String)> = Vec::new();
    for entry in entries {
        let name = entry.map_err(io("read", &metadata))?.file_name().to_string_lossy().into_owned();
        let number = name.strip_prefix("metadata_").and_then(|name| name.strip_suffix(".parquet"));
        numbers.extend(number.and_then(|text| Some((text.parse().ok()?, text.to_owned()))));
    }
    numbers.sort();
    if numbers.is_empty() {
        return Err(ColumnarError::unusable(
            &metadata,
            "it has no metadata_0.parquet or the like; without it, vectors have no names",
        ));
    }
    let array = |side: &str, number: &str| {
        let file = path.join(side).join(format!("{side}_{number}.npy"));
        if file.exists() {
            Ok(Some(file))
        } else if path.join(side).is_dir() {
            Err(ColumnarError::unusable(
                &file,
                "it is missing, and other shards have theirs; copy the folder again",
            ))
        } else {
            Ok(None)
        }
    };
    let shard = |(_, number): (u64, String)| {
        Ok(Shard {
            images: array("img_emb", &number)?,
            texts: array("text_emb", &number)?,
            metadata: metadata.join(format!("metadata_{number}.parquet")),
        })
    };
    numbers.into_iter().map(shard).collect()
}

fn key_column(metadata: &Path, columns: &[String], options: &FolderOptions) -> Result<String, ColumnarError> {
    let there = |name: &str| columns.iter().any(|column| column == name);
    match &options.key_column {
        Some(name) if there(name) => Ok(name.clone()),
        Some(name) => {
            let reason = format!("it has no column '{name}' for keys; it has {}", columns.join(", "));
            Err(ColumnarError::unusable(metadata, reason))
        }
        None => ["key", "image_path"].into_iter().find(|name| there(name)).map(str::to_owned).ok_or_else(|| {
            let reason = format!(
                "it has neither 'key' nor 'image_path' to name records by; choose another with --key-column: it has {}",
                columns.join(", ")
            );
            ColumnarError::unusable(metadata, reason)
        }),
    }
}
