//! Sources to items: folders of images and JSON lines.
//!
//! Owns: what a source is, how its files and lines become [`Item`]s, and which of them are refused
//! and why. A bad file or line is an [`ItemError`] in the stream and never ends it. Deliberately
//! absent: decoding, embedding, storing and progress. An item names its images by path; whoever
//! consumes it opens them.

mod fields;
mod folder;
mod lines;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use diptych_core::{Attributes, Key};

use crate::folder::Folder;
use crate::lines::Lines;

/// Longest line of a JSON lines file, in bytes without the line break.
pub const LINE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// File extensions taken for images, in lower case.
pub const IMAGE_EXTENSIONS: [&str; 11] =
    ["jpg", "jpeg", "png", "webp", "gif", "tif", "tiff", "bmp", "pgm", "ppm", "pnm"];

/// File extensions taken for JSON lines, in lower case.
pub const LINES_EXTENSIONS: [&str; 3] = ["jsonl", "ndjson", "json"];

/// Files that make a directory a JSON lines source; the first one present is read.
pub const LINES_NAMES: [&str; 2] = ["cases.jsonl", "captions.jsonl"];

/// One thing to ingest. It has at least one image or text.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Its name, unique within its source.
    pub key: Key,
    /// Image files, in order. Each was a regular file when the item was read; openable from the
    /// directory in which the source was opened.
    pub images: Vec<PathBuf>,
    /// Texts, in order, none of them blank.
    pub texts: Vec<String>,
    /// Attributes by name.
    pub attributes: Attributes,
    /// Where it was found.
    pub origin: Origin,
}

/// Where an item or an error comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A line of a JSON lines file. Written `cases.jsonl line 17`.
    Line {
        /// The file.
        file: Arc<Path>,
        /// Line number, from 1.
        line: u64,
    },
    /// A file or directory of a folder. Written as its path.
    Path(PathBuf),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { file, line } => {
                let name = file.file_name().map_or(file.as_ref(), Path::new);
                write!(f, "{} line {line}", printable(&name.to_string_lossy()))
            }
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
        "{} is not a source; give a folder of images or a JSON lines file named *.jsonl", path.display()
    )]
    NotASource {
        /// What was given.
        path: PathBuf,
    },
}

/// A source that exists: a folder of images or a JSON lines file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    path: PathBuf,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Folder,
    Lines,
}

impl Source {
    /// Recognises a source. A directory that contains one of [`LINES_NAMES`] is that file; any
    /// other directory is a folder of images. A file must have one of [`LINES_EXTENSIONS`].
    ///
    /// # Errors
    /// [`SourceError`] when the path cannot be read or is neither.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        let metadata = path.metadata().map_err(|error| SourceError::Io { path: path.to_owned(), error })?;
        if metadata.is_dir() {
            let named = LINES_NAMES.iter().map(|name| path.join(name)).find(|file| file.is_file());
            return Ok(match named {
                Some(path) => Self { path, kind: Kind::Lines },
                None => Self { path: path.to_owned(), kind: Kind::Folder },
            });
        }
        if !metadata.is_file() {
            return Err(SourceError::NotRegular { path: path.to_owned() });
        }
        if !has_extension(path, &LINES_EXTENSIONS) {
            return Err(SourceError::NotASource { path: path.to_owned() });
        }
        Ok(Self { path: path.to_owned(), kind: Kind::Lines })
    }

    /// The folder or the JSON lines file that is read.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the source from its beginning, in an order that depends on its content only.
    /// Memory is bounded by one line, or by the names in one chain of nested directories, besides
    /// 24 bytes a line for finding repeated keys.
    ///
    /// # Errors
    /// [`SourceError::Io`] when the file or the topmost directory cannot be opened.
    pub fn items(&self) -> Result<Items, SourceError> {
        let io = |error| SourceError::Io { path: self.path.clone(), error };
        Ok(Items(match self.kind {
            Kind::Folder => Reader::Folder(Folder::open(&self.path).map_err(io)?),
            Kind::Lines => Reader::Lines(Box::new(Lines::open(&self.path).map_err(io)?)),
        }))
    }

    /// About how many items and errors [`Source::items`] will give, for a progress bar: lines that
    /// are not blank, or files named like images. Reads the file once, or lists the directories;
    /// `None` when that fails.
    pub fn count_hint(&self) -> Option<u64> {
        match self.kind {
            Kind::Folder => folder::count(&self.path).ok(),
            Kind::Lines => lines::count(&self.path).ok(),
        }
    }
}

/// The items of a source; see [`Source::items`]. Owns what it reads, so it can be sent to a thread.
#[derive(Debug)]
pub struct Items(Reader);

#[derive(Debug)]
enum Reader {
    Folder(Folder),
    Lines(Box<Lines>),
}

impl Iterator for Items {
    type Item = Result<Item, ItemError>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Reader::Folder(folder) => folder.next(),
            Reader::Lines(lines) => lines.next(),
        }
    }
}

fn has_extension(path: &Path, lower_case: &[&str]) -> bool {
    let extension = path.extension().and_then(|e| e.to_str());
    extension.is_some_and(|e| lower_case.iter().any(|known| e.eq_ignore_ascii_case(known)))
}

/// Text fit for one line of a report: control characters escaped, at most 300 characters.
fn printable(text: &str) -> String {
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
