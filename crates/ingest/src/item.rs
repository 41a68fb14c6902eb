//! What a source gives: items, the images they name, and why something is left out.
//!
//! Owns: [`Item`], [`ItemImage`] with its bounded reading, [`Origin`] and [`ItemError`]. Deliberately absent:
//! how any layout comes to its items.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use diptych_core::limits::IMAGE_BYTES_MAX;
use diptych_core::{Attributes, Chunking, Key};

/// One thing to ingest. It has at least one image or text.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Its name, unique within its source.
    pub key: Key,
    /// Its images, in order.
    pub images: Vec<ItemImage>,
    /// Texts, in order, none of them blank.
    pub texts: Vec<String>,
    /// How its texts are to be divided: those of studies into sentences.
    pub chunking: Chunking,
    /// Attributes by name.
    pub attributes: Attributes,
    /// Where it was found.
    pub origin: Origin,
}

impl Item {
    /// The files of its images, for callers that need files.
    ///
    /// # Errors
    /// The reason, in words, when an image is not a file of its own.
    pub fn image_files(&self) -> Result<Vec<PathBuf>, String> {
        let file = |image: &ItemImage| {
            image.path().map(Path::to_owned).ok_or_else(|| {
                format!(
                    "image '{}' is not a file of its own; unpack the archive, or convert it, into a folder of image files",
                    printable(&image.source())
                )
            })
        };
        self.images.iter().map(file).collect()
    }
}

/// Reads an image that is in no file yet. The error is the reason in words.
pub type LoadImage = dyn Fn() -> Result<Vec<u8>, String> + Send + Sync;

/// An image of an item: a file, bytes out of an archive, or something that is made when it is wanted.
#[derive(Clone)]
pub struct ItemImage(Content);

#[derive(Clone)]
enum Content {
    File(PathBuf),
    Bytes { source: String, bytes: Arc<[u8]> },
    Lazy { source: String, load: Arc<LoadImage> },
}

impl ItemImage {
    /// A regular file, openable from the directory in which the source was opened.
    pub fn file(path: PathBuf) -> Self {
        Self(Content::File(path))
    }

    /// An encoded image that is in memory already; `source` names it for people.
    pub fn bytes(source: impl Into<String>, bytes: impl Into<Arc<[u8]>>) -> Self {
        Self(Content::Bytes { source: source.into(), bytes: bytes.into() })
    }

    /// An encoded image that `load` makes, possibly on another thread; `source` names it for people.
    pub fn lazy(
        source: impl Into<String>,
        load: impl Fn() -> Result<Vec<u8>, String> + Send + Sync + 'static,
    ) -> Self {
        Self(Content::Lazy { source: source.into(), load: Arc::new(load) })
    }

    /// What the image is remembered by: the whole path of a file without links, or the name that it was given.
    pub fn source(&self) -> String {
        match &self.0 {
            Content::File(path) => {
                let whole = path.canonicalize().unwrap_or_else(|_| path.clone());
                whole.to_string_lossy().into_owned()
            }
            Content::Bytes { source, .. } | Content::Lazy { source, .. } => source.clone(),
        }
    }

    /// Its file, when it is one.
    pub fn path(&self) -> Option<&Path> {
        match &self.0 {
            Content::File(path) => Some(path),
            Content::Bytes { .. } | Content::Lazy { .. } => None,
        }
    }

    /// Its encoded bytes: of a file, at most one more than an image may have.
    ///
    /// # Errors
    /// The reason in words, with the path of a file in front.
    pub fn load(&self) -> Result<Vec<u8>, String> {
        match &self.0 {
            Content::File(path) => read_image(path).map_err(|e| format!("{}: {e}", path.display())),
            Content::Bytes { bytes, .. } => Ok(bytes.to_vec()),
            Content::Lazy { load, .. } => load(),
        }
    }
}

impl PartialEq for ItemImage {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Content::File(a), Content::File(b)) => a == b,
            (Content::Bytes { source: a, bytes: x }, Content::Bytes { source: b, bytes: y }) => {
                a == b && x == y
            }
            // What a function makes is not known before; the same function is equal to itself.
            (Content::Lazy { source: a, load: x }, Content::Lazy { source: b, load: y }) => {
                a == b && Arc::ptr_eq(x, y)
            }
            _ => false,
        }
    }
}

impl fmt::Debug for ItemImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Content::File(path) => write!(f, "File({})", path.display()),
            Content::Bytes { source, bytes } => write!(f, "Bytes({source}, {})", bytes.len()),
            Content::Lazy { source, .. } => write!(f, "Lazy({source})"),
        }
    }
}

/// Reads an image file, one byte over the bound at the most: enough for the encoder to refuse it.
///
/// # Errors
/// The reason in words, without the path.
pub fn read_image(path: &Path) -> Result<Vec<u8>, String> {
    // Before it is opened: opening a pipe waits for somebody to write to it.
    let metadata = path.metadata().map_err(|e| format!("cannot be opened: {e}; check the path"))?;
    if !metadata.is_file() {
        return Err("is not a regular file; name image files".to_owned());
    }
    let file = File::open(path).map_err(|e| format!("cannot be opened: {e}; check the path"))?;
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0).min(IMAGE_BYTES_MAX + 1));
    file.take(IMAGE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| format!("cannot be read: {e}"))?;
    Ok(bytes)
}

/// Where an item or an error comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A line of a file of lines or of a table. Written `cases.jsonl line 17`.
    Line {
        /// The file.
        file: Arc<Path>,
        /// Line number, from 1.
        line: u64,
    },
    /// A row of a Parquet file. Written `train.parquet row 17`.
    Row {
        /// The file.
        file: Arc<Path>,
        /// Row number, from 1.
        row: u64,
    },
    /// A member of an archive, or what several of them make. Written `000.tar member a/b.jpg`.
    Member {
        /// The archive.
        archive: Arc<Path>,
        /// Its name there.
        name: String,
    },
    /// A file or directory of a folder, or an object of a store. Written as its path.
    Path(PathBuf),
}

impl Origin {
    /// Its place in a file that is read in order.
    pub(crate) fn position(&self) -> Option<(&'static str, u64)> {
        match self {
            Self::Line { line, .. } => Some(("line", *line)),
            Self::Row { row, .. } => Some(("row", *row)),
            Self::Member { .. } | Self::Path(_) => None,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |file: &Path| {
            let name = file.file_name().map_or(file, Path::new);
            printable(&name.to_string_lossy())
        };
        match self {
            Self::Line { file, line } => write!(f, "{} line {line}", named(file)),
            Self::Row { file, row } => write!(f, "{} row {row}", named(file)),
            Self::Member { archive, name } => write!(f, "{} member {}", named(archive), printable(name)),
            Self::Path(path) => f.write_str(&printable(&path.to_string_lossy())),
        }
    }
}

/// Why one item is left out. The rest of the source is not affected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {reason}")]
pub struct ItemError {
    /// Where it was found.
    pub origin: Origin,
    /// What is wrong and what would be right.
    pub reason: String,
}

/// An item, or why there is none.
pub(crate) type ItemResult = Result<Item, ItemError>;

/// Text fit for one line of a report: control characters escaped, at most 300 characters.
pub(crate) fn printable(text: &str) -> String {
    const CHARS_MAX: usize = 300;
    let mut out = String::with_capacity(text.len().min(CHARS_MAX));
    for (position, c) in text.chars().enumerate() {
        if position == CHARS_MAX {
            out.push('…');
            break;
        }
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}
