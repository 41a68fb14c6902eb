//! Sources to items: folders, lines, tables, archives, and the layouts of radiology collections.
//!
//! Owns: what a source is, how its files become [`Item`]s, and which of them are refused and why. A bad file,
//! line or member is an [`ItemError`] in the stream and never ends it. Deliberately absent: decoding,
//! embedding, storing and progress. An item names its images or has them as they are encoded.
//!
//! Reading order: `item` (what is given), `layout` and `detect` (what is recognised), `columns`, `keys`, `paths`
//! and `input` (what layouts share), then a module for each layout.

mod columns;
mod csv;
mod detect;
mod dicom;
mod fields;
mod folder;
mod input;
mod item;
mod keys;
mod layout;
mod lines;
mod mimic;
mod mimic_tables;
mod notes;
mod openi;
mod openi_csv;
mod parquet;
mod paths;
mod roco;
#[cfg(feature = "s3")]
mod s3;
mod study;
mod tar;
#[cfg(test)]
mod tests;
mod webdataset;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use diptych_core::Chunking;

use crate::detect::{Detected, Place};
use crate::folder::Folder;
use crate::item::ItemResult;
use crate::keys::{Found, Unique};
use crate::lines::Lines;
use crate::paths::Base;

pub use columns::Columns;
pub use dicom::{DicomOptions, Identities};
pub use diptych_radiology::dicom::FramePolicy;
pub use item::{Item, ItemError, ItemImage, LoadImage, Origin, read_image};
pub use layout::Layout;
pub use notes::Notes;

/// Longest line of a JSON lines file and longest record of a table, in bytes without the line break.
pub const LINE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// File extensions taken for images, in lower case.
pub const IMAGE_EXTENSIONS: [&str; 11] =
    ["jpg", "jpeg", "png", "webp", "gif", "tif", "tiff", "bmp", "pgm", "ppm", "pnm"];

/// File extensions taken for JSON lines, in lower case.
pub const LINES_EXTENSIONS: [&str; 3] = ["jsonl", "ndjson", "json"];

/// Files that make a directory a JSON lines source; the first one present is read.
pub const LINES_NAMES: [&str; 2] = ["cases.jsonl", "captions.jsonl"];

/// Why a source cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The path, or the file or directory behind it, cannot be read.
    #[error("cannot read {}: {error}; check the path and its permissions", path.display())]
    Io {
        /// What was to be read.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// A pipe, device or socket.
    #[error("{} is neither a directory nor a regular file; write its content to a .jsonl file first", path.display())]
    NotRegular {
        /// What was given.
        path: PathBuf,
    },
    /// A file of another kind.
    #[error(
        "{} is not a source; give a folder, a JSON lines file named *.jsonl, a table (*.csv, *.tsv, *.parquet) or an \
         archive (*.tar, *.tar.gz), or name its layout by --format", path.display()
    )]
    NotASource {
        /// What was given.
        path: PathBuf,
    },
    /// It is not what its layout needs.
    #[error("{}: {reason}", path.display())]
    Unusable {
        /// What was given, or a file of it.
        path: PathBuf,
        /// What is wrong and what would be right.
        reason: String,
    },
}

/// How a source is to be read, where it does not say so itself.
#[derive(Debug, Clone, Default)]
pub struct SourceOptions {
    /// The layout, instead of the one that is recognised.
    pub layout: Option<Layout>,
    /// Which columns of a table, or fields of a line, are what.
    pub columns: Columns,
    /// The folder that image paths are relative to, instead of that of the file that names them.
    pub image_root: Option<PathBuf>,
    /// How texts are divided, instead of what the layout implies: sentences for studies, else the context.
    pub chunking: Option<Chunking>,
    /// What becomes of DICOM.
    pub dicom: DicomOptions,
}

/// A source that exists, and its layout.
#[derive(Debug, Clone)]
pub struct Source {
    path: PathBuf,
    layout: Layout,
    why: String,
    place: Place,
    options: SourceOptions,
    notes: Notes,
    #[cfg(feature = "s3")]
    remote: Option<s3::Remote>,
}

impl Source {
    /// Recognises a source by what is there; see [`Source::open_with`].
    ///
    /// # Errors
    /// [`SourceError`] when the path cannot be read or is none.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        Self::open_with(path, &SourceOptions::default())
    }

    /// Recognises a source, or takes it for what the options say. A directory that contains one of
    /// [`LINES_NAMES`] is that file. A path such as `{000..009}.tar` that is not there stands for several files.
    /// `s3://bucket/key` is an object, or all that begins so, where the feature `s3` is built in.
    ///
    /// # Errors
    /// [`SourceError`] when the path cannot be read, is none, or lacks what its layout needs.
    pub fn open_with(path: &Path, options: &SourceOptions) -> Result<Self, SourceError> {
        if let Some(url) = path.to_str().filter(|text| text.contains("://")) {
            return Self::open_url(url, options);
        }
        let Detected { layout, why, place } = detect::detect(path, options.layout)?;
        let found = match &place {
            Place::Path(found) => found.clone(),
            _ => path.to_owned(),
        };
        Ok(Self {
            path: found,
            layout,
            why,
            place,
            options: options.clone(),
            notes: Notes::default(),
            #[cfg(feature = "s3")]
            remote: None,
        })
    }

    fn open_url(url: &str, options: &SourceOptions) -> Result<Self, SourceError> {
        let unusable =
            |reason: &str| SourceError::Unusable { path: PathBuf::from(url), reason: reason.to_owned() };
        if !url.starts_with("s3://") {
            return Err(unusable("only s3:// is read over a network; download it and give the path"));
        }
        #[cfg(feature = "s3")]
        return s3::open(url, options);
        #[cfg(not(feature = "s3"))]
        {
            let _ = options;
            Err(unusable(
                "reading object stores is not built in; build with `cargo build --release --features s3`",
            ))
        }
    }

    /// The folder or the file that is read.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its layout.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Decides how a DICOM tree is read, which is asked for only once it is known to be one.
    pub fn set_dicom(&mut self, options: DicomOptions) {
        self.options.dicom = options;
    }

    /// Why that layout was taken, as a clause.
    pub fn why(&self) -> &str {
        &self.why
    }

    /// What was left out of items while they were read, without being an error.
    pub fn notes(&self) -> &Notes {
        &self.notes
    }

    /// What means what: names of columns, files or elements, and what becomes of them. Reads tables that have
    /// to be in memory, and the first lines of others.
    ///
    /// # Errors
    /// As [`Source::items`].
    pub fn mapping(&self) -> Result<Vec<(String, String)>, SourceError> {
        let row = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        Ok(match self.layout {
            Layout::Folder => vec![
                row("path without its extension", "key"),
                row("image file", "image"),
                row(".txt file of the same name", "text"),
            ],
            Layout::JsonLines => lines_mapping(&self.options.columns),
            Layout::Csv => {
                let rows = self.csv()?;
                let mut mapping = vec![row("separated by", rows.delimiter())];
                mapping.extend(rows.describe());
                mapping
            }
            Layout::Parquet => self.parquet()?.describe(),
            Layout::WebDataset => webdataset::describe(),
            Layout::ClipRetrieval => vec![row("vectors", "stored as they are, by `diptych import`")],
            Layout::MimicCxr => self.mimic()?.describe(),
            Layout::OpenI => self.openi()?.describe(),
            Layout::OpenICsv => self.openi_csv()?.describe(),
            Layout::Roco => self.roco()?.describe(),
            Layout::Dicom => dicom::describe(&self.options.dicom),
        })
    }

    /// Reads the source from its beginning, in an order that depends on its content only. Memory is bounded by
    /// one line, record or sample, or by the names in one chain of nested directories, besides 24 bytes a line
    /// for finding repeated keys, and tables beside studies, see their layouts.
    ///
    /// # Errors
    /// [`SourceError`] when the first file or the topmost directory cannot be opened or is not what its layout
    /// needs.
    pub fn items(&self) -> Result<Items, SourceError> {
        let io = |error| SourceError::Io { path: self.path.clone(), error };
        let chunking = self.options.chunking;
        let apart = |item: ItemResult| item.map(|item| Found { item, joins: false });
        let reader: Box<dyn Iterator<Item = ItemResult> + Send> = match self.layout {
            #[cfg(feature = "s3")]
            Layout::Folder if self.remote.is_some() => Box::new(self.objects()?),
            Layout::Folder => Box::new(Folder::open(&self.path, chunking.unwrap_or_default()).map_err(io)?),
            Layout::JsonLines => {
                let base = self.base();
                let columns = &self.options.columns;
                Box::new(Unique::new(Lines::open(&self.path, base, columns, chunking).map_err(io)?))
            }
            Layout::Csv => Box::new(Unique::new(self.csv()?)),
            Layout::Parquet => Box::new(Unique::new(self.parquet()?)),
            Layout::WebDataset => {
                let samples = webdataset::Samples::new(self.shards(), chunking, self.notes.clone());
                Box::new(Unique::new(samples))
            }
            Layout::ClipRetrieval => {
                return Err(
                    self.unusable("it holds vectors, not images and texts; store them by `diptych import`")
                );
            }
            Layout::MimicCxr => Box::new(self.mimic()?),
            Layout::OpenI => Box::new(Unique::new(self.openi()?.map(apart))),
            Layout::OpenICsv => Box::new(Unique::new(self.openi_csv()?.map(apart))),
            Layout::Roco => Box::new(Unique::new(self.roco()?.map(apart))),
            Layout::Dicom => Box::new(Unique::new(self.dicom()?.map(apart))),
        };
        Ok(Items {
            reader,
            #[cfg(feature = "s3")]
            _remote: self.remote.clone(),
        })
    }

    /// About how many items and errors [`Source::items`] will give, for a progress bar: lines that
    /// are not blank, or files named like images. Reads the file once, or lists the directories;
    /// `None` when that fails, or would take as long as reading the items.
    pub fn count_hint(&self) -> Option<u64> {
        match self.layout {
            #[cfg(feature = "s3")]
            _ if self.remote.is_some() => None,
            Layout::Folder => folder::count(&self.path).ok(),
            Layout::JsonLines => lines::count(&self.path).ok().flatten(),
            Layout::Csv => lines::count(&self.path).ok().flatten().map(|lines: u64| lines.saturating_sub(1)),
            Layout::Parquet => parquet::count(&self.files()),
            Layout::OpenI => self.openi().ok().map(|reports| reports.len()),
            Layout::WebDataset
            | Layout::ClipRetrieval
            | Layout::MimicCxr
            | Layout::OpenICsv
            | Layout::Roco
            | Layout::Dicom => None,
        }
    }

    fn unusable(&self, reason: impl Into<String>) -> SourceError {
        SourceError::Unusable { path: self.path.clone(), reason: reason.into() }
    }

    /// What image paths of the source's file are relative to.
    fn base(&self) -> Base {
        #[cfg(feature = "s3")]
        if let (Some(remote), None) = (&self.remote, &self.options.image_root) {
            return Base::Objects(remote.beside());
        }
        Base::beside(&self.path, self.options.image_root.as_deref())
    }

    fn files(&self) -> Vec<PathBuf> {
        match &self.place {
            Place::Files(files) => files.clone(),
            _ => vec![self.path.clone()],
        }
    }

    fn shards(&self) -> Vec<webdataset::Shard> {
        match &self.place {
            #[cfg(feature = "s3")]
            Place::Objects(objects) => objects.iter().cloned().map(webdataset::Shard::Object).collect(),
            _ => self.files().into_iter().map(webdataset::Shard::File).collect(),
        }
    }

    fn csv(&self) -> Result<csv::Rows, SourceError> {
        let rows = csv::Rows::open(&self.path, self.base(), &self.options.columns, self.options.chunking);
        rows.map_err(|reason| self.unusable(reason))
    }

    fn parquet(&self) -> Result<parquet::Rows, SourceError> {
        let SourceOptions { columns, image_root, chunking, .. } = &self.options;
        let notes = self.notes.clone();
        let rows = parquet::Rows::open(self.files(), columns, image_root.as_deref(), *chunking, notes);
        rows.map_err(|reason| self.unusable(reason))
    }

    fn mimic(&self) -> Result<mimic::Studies, SourceError> {
        mimic::Studies::open(&self.path, self.options.chunking).map_err(|reason| self.unusable(reason))
    }

    fn openi(&self) -> Result<openi::Reports, SourceError> {
        let SourceOptions { image_root, chunking, .. } = &self.options;
        let reports = openi::Reports::open(&self.path, image_root.as_deref(), *chunking);
        reports.map_err(|reason| self.unusable(reason))
    }

    fn openi_csv(&self) -> Result<openi_csv::Reports, SourceError> {
        let Place::Tables(files) = &self.place else {
            return Err(self.unusable("name the folder with both tables"));
        };
        let SourceOptions { image_root, chunking, .. } = &self.options;
        let reports = openi_csv::Reports::open(files, image_root.as_deref(), *chunking);
        reports.map_err(|reason| self.unusable(reason))
    }

    fn roco(&self) -> Result<roco::Figures, SourceError> {
        let Place::Captions(files) = &self.place else {
            return Err(self.unusable("name the folder with the captions"));
        };
        let SourceOptions { image_root, chunking, .. } = &self.options;
        Ok(roco::Figures::new(files.clone(), image_root.as_deref(), *chunking))
    }

    fn dicom(&self) -> Result<dicom::Studies, SourceError> {
        let SourceOptions { dicom, chunking, .. } = &self.options;
        let studies = dicom::Studies::open(&self.path, dicom, *chunking, self.notes.clone());
        studies.map_err(|reason| self.unusable(reason))
    }
}

/// What fields of a line mean.
fn lines_mapping(columns: &Columns) -> Vec<(String, String)> {
    let joined = |named: &[String], usual: &str| match named.is_empty() {
        true => usual.to_owned(),
        false => named.join(", "),
    };
    let key = match (&columns.study, &columns.key) {
        (Some(name), _) => (name.clone(), "key of the study; its lines are one record".to_owned()),
        (None, Some(name)) => (name.clone(), "key".to_owned()),
        (None, None) => ("key, id; else case_id, whose lines are one study".to_owned(), "key".to_owned()),
    };
    let mut mapping = vec![
        key,
        (joined(&columns.images, "image, images"), "image".to_owned()),
        (joined(&columns.texts, "text, texts, caption, captions, report"), "text".to_owned()),
    ];
    match columns.attributes.is_empty() {
        true => mapping.push(("every other field".to_owned(), "attribute of its name".to_owned())),
        false => {
            let named = columns.attributes.iter();
            mapping.extend(named.map(|(name, column)| (column.clone(), format!("attribute {name}"))));
        }
    }
    mapping
}

/// The items of a source; see [`Source::items`]. Owns what it reads, so it can be sent to a thread.
pub struct Items {
    reader: Box<dyn Iterator<Item = ItemResult> + Send>,
    /// Files that were fetched stay until they are read.
    #[cfg(feature = "s3")]
    _remote: Option<s3::Remote>,
}

impl fmt::Debug for Items {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Items").finish_non_exhaustive()
    }
}

impl Iterator for Items {
    type Item = ItemResult;

    fn next(&mut self) -> Option<ItemResult> {
        self.reader.next()
    }
}
