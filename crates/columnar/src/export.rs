//! Writing a folder: records in, shards out.
//!
//! Owns: which rows go into which shard, and what is said of the whole. Memory is bounded by a group of
//! rows, however many records there are.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use diptych_core::{PartRef, Record};
use serde::{Deserialize, Serialize};

use crate::ColumnarError;
use crate::error::io;
use crate::npy::{Dtype, NpyWriter};
use crate::rows;
use crate::table::TableWriter;

/// The file that says what a folder is.
pub const DESCRIPTION_FILE: &str = "diptych.json";
/// The format that is written.
pub(crate) const FORMAT: u32 = 1;

/// What an export is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The collection.
    pub collection: String,
    /// The model that the vectors come from, in hexadecimal digits.
    pub model_id: String,
    /// Dimensions of the vectors.
    pub dimension: usize,
    /// Types of attributes by name, as the collection's schema has them.
    #[serde(default)]
    pub schema: BTreeMap<String, String>,
    /// Whether records may have no other attributes.
    #[serde(default)]
    pub closed: bool,
}

/// What `diptych.json` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// Version of the format.
    pub format: u32,
    /// Version of the program that wrote it.
    pub diptych: String,
    /// What it is of.
    #[serde(flatten)]
    pub about: About,
    /// How vectors are stored: `f16` or `f32`.
    pub dtype: String,
    /// Records.
    pub records: u64,
    /// Rows of all shards.
    pub rows: u64,
    /// Shards, numbered from 0.
    pub shards: u64,
    /// BLAKE3 digests of all files, in hexadecimal digits, by their paths with `/` between names.
    pub files: BTreeMap<String, String>,
}

/// How a folder is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExportOptions {
    /// How vectors are stored.
    pub dtype: Dtype,
    /// Rows of a shard. A record is never divided, so that a shard may have some more.
    pub shard_rows: u64,
}

/// Writes a folder.
pub struct ExportWriter {
    dir: PathBuf,
    about: About,
    options: ExportOptions,
    shard: Option<Shard>,
    shards: u64,
    records: u64,
    rows: u64,
    files: BTreeMap<String, String>,
}

struct Shard {
    images: NpyWriter,
    texts: NpyWriter,
    metadata: TableWriter,
    rows: u64,
}

impl ExportWriter {
    /// Begins to write into an empty folder.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(dir: &Path, about: About, options: ExportOptions) -> Result<Self, ColumnarError> {
        for folder in ["img_emb", "text_emb", "metadata"].map(|name| dir.join(name)) {
            fs::create_dir(&folder).map_err(io("create", &folder))?;
        }
        Ok(Self {
            dir: dir.to_owned(),
            about,
            options,
            shard: None,
            shards: 0,
            records: 0,
            rows: 0,
            files: BTreeMap::new(),
        })
    }

    /// Writes a record. `vectors` has one of the right dimension for each of its parts, in any order.
    ///
    /// # Errors
    /// When a vector is missing or of another dimension, or a file cannot be written.
    pub fn push(&mut self, record: &Record, vectors: &[(PartRef, Vec<f32>)]) -> Result<(), ColumnarError> {
        let vectors: HashMap<PartRef, &[f32]> =
            vectors.iter().map(|(part, v)| (*part, v.as_slice())).collect();
        let absent = vec![0.0; self.about.dimension];
        let vector = |part: Option<PartRef>| match part {
            None => Ok(absent.as_slice()),
            Some(part) => vectors.get(&part).copied().ok_or_else(|| {
                let reason =
                    format!("record '{}' came without a vector for {part}; export again", record.key());
                ColumnarError::unusable(&self.dir, reason)
            }),
        };
        let paired = rows::of_record(record);
        let shard = match &mut self.shard {
            Some(shard) => shard,
            none => none.insert(Shard::create(&self.dir, self.shards, &self.about, self.options)?),
        };
        for paired in paired {
            shard.images.push(vector(paired.image)?)?;
            shard.texts.push(vector(paired.text)?)?;
            shard.metadata.push(paired.row)?;
            shard.rows += 1;
            self.rows += 1;
        }
        self.records += 1;
        if shard.rows >= self.options.shard_rows {
            self.close_shard()?;
        }
        Ok(())
    }

    /// Completes the folder, and says of it what it is.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn finish(mut self) -> Result<Description, ColumnarError> {
        if self.shards == 0 && self.shard.is_none() {
            self.shard = Some(Shard::create(&self.dir, 0, &self.about, self.options)?);
        }
        self.close_shard()?;
        let description = Description {
            format: FORMAT,
            diptych: env!("CARGO_PKG_VERSION").to_owned(),
            about: self.about,
            dtype: self.options.dtype.to_string(),
            records: self.records,
            rows: self.rows,
            shards: self.shards,
            files: self.files,
        };
        let text = serde_json::to_string_pretty(&description).expect("plain values can be written as JSON");
        diptych_files::replace(&self.dir.join(DESCRIPTION_FILE), format!("{text}\n").as_bytes())?;
        Ok(description)
    }

    fn close_shard(&mut self) -> Result<(), ColumnarError> {
        let Some(shard) = self.shard.take() else { return Ok(()) };
        shard.images.finish()?;
        shard.texts.finish()?;
        shard.metadata.finish()?;
        for name in shard_files(self.shards) {
            let digest = digest(&self.dir.join(&name))?;
            self.files.insert(name, digest);
        }
        self.shards += 1;
        Ok(())
    }
}

/// The files of a shard, below the folder.
fn shard_files(number: u64) -> [String; 3] {
    [
        format!("img_emb/img_emb_{number}.npy"),
        format!("text_emb/text_emb_{number}.npy"),
        format!("metadata/metadata_{number}.parquet"),
    ]
}

/// The digest of a file as a description has it.
pub(crate) fn digest(path: &Path) -> Result<String, ColumnarError> {
    let mut hasher = blake3::Hasher::new();
    let read = fs::File::open(path).and_then(|file| hasher.update_reader(file).map(drop));
    read.map_err(io("read", path))?;
    Ok(hasher.finalize().to_hex().to_string())
}

impl Shard {
    fn create(dir: &Path, number: u64, about: &About, options: ExportOptions) -> Result<Self, ColumnarError> {
        let [images, texts, metadata] = shard_files(number).map(|name| dir.join(name));
        Ok(Self {
            images: NpyWriter::create(&images, about.dimension, options.dtype)?,
            texts: NpyWriter::create(&texts, about.dimension, options.dtype)?,
            metadata: TableWriter::create(&metadata)?,
            rows: 0,
        })
    }
}
