//! JSON lines: the stream of lines and their keys.
//!
//! Owns: line splitting with a bounded buffer, encodings, repeated keys and the paths of images
//! relative to the file. What the fields of a line mean is in `fields`.

use std::collections::HashMap;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufRead, BufReader};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use diptych_core::Key;

use crate::fields::Fields;
use crate::{Item, ItemError, LINE_BYTES_MAX, Origin, printable};

const BUFFER_BYTES: usize = 256 * 1024;
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// The items of one JSON lines file.
#[derive(Debug)]
pub(crate) struct Lines {
    reader: BufReader<File>,
    file: Arc<Path>,
    line: u64,
    buffer: Vec<u8>,
    seen: SeenKeys,
    ended: bool,
}

impl Lines {
    /// Opens a file; nothing is read yet.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            reader: BufReader::with_capacity(BUFFER_BYTES, File::open(path)?),
            file: Arc::from(path),
            line: 0,
            buffer: Vec::new(),
            seen: SeenKeys::default(),
            ended: false,
        })
    }

    fn item(&mut self) -> Result<Item, String> {
        let text = std::str::from_utf8(&self.buffer).map_err(|e| {
            format!("the line is not UTF-8 from byte {} on; save the file as UTF-8", e.valid_up_to())
        })?;
        let fields = Fields::parse(text)?;
        let folder = self.file.parent().unwrap_or(Path::new(""));
        let mut images = Vec::with_capacity(fields.images.len());
        let mut first = None;
        for given in &fields.images {
            let path = within(given)?;
            let resolved = folder.join(&path);
            check_regular(given, &resolved)?;
            images.push(resolved);
            first.get_or_insert(path);
        }
        let key = match (fields.key, first) {
            (Some(key), _) => key,
            (None, Some(path)) => slashed(&path.with_extension("")),
            (None, None) => format!("line-{}", self.line),
        };
        let key = Key::new(key).map_err(|e| e.to_string())?;
        if let Some(earlier) = self.seen.insert(&key, self.line) {
            return Err(format!(
                "the key '{}' is that of line {earlier} already; give every line its own key",
                printable(key.as_str())
            ));
        }
        let origin = self.origin();
        Ok(Item { key, images, texts: fields.texts, attributes: fields.attributes, origin })
    }

    fn origin(&self) -> Origin {
        Origin::Line { file: Arc::clone(&self.file), line: self.line }
    }
}

impl Iterator for Lines {
    type Item = Result<Item, ItemError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            self.line += 1;
            let result = match read_line(&mut self.reader, &mut self.buffer) {
                Ok(Line::End) => {
                    self.ended = true;
                    break;
                }
                Ok(Line::TooLong) => Err(format!(
                    "the line is longer than {LINE_BYTES_MAX} bytes; split the item or shorten its texts"
                )),
                Ok(Line::Whole) => {
                    if self.line == 1 && self.buffer.starts_with(BYTE_ORDER_MARK) {
                        self.buffer.drain(..BYTE_ORDER_MARK.len());
                    }
                    if self.buffer.iter().all(u8::is_ascii_whitespace) {
                        continue;
                    }
                    self.item()
                }
                Err(error) => {
                    self.ended = true;
                    Err(format!("reading stops here: {error}; check the disk and run again"))
                }
            };
            return Some(result.map_err(|reason| ItemError { origin: self.origin(), reason }));
        }
        None
    }
}

/// Counts the lines that are not blank.
pub(crate) fn count(path: &Path) -> io::Result<u64> {
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, File::open(path)?);
    let (mut lines, mut blank) = (0, true);
    loop {
        let available = match reader.fill_buf() {
            Ok([]) => return Ok(lines),
            Ok(available) => available,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        for byte in available {
            if *byte == b'\n' {
                blank = true;
            } else if blank && !byte.is_ascii_whitespace() {
                blank = false;
                lines += 1;
            }
        }
        let read = available.len();
        reader.consume(read);
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Line {
    Whole,
    TooLong,
    End,
}

/// Reads up to and without the next line break. A line over the bound is consumed, not kept.
fn read_line(reader: &mut impl BufRead, buffer: &mut Vec<u8>) -> io::Result<Line> {
    buffer.clear();
    let (mut any, mut too_long) = (false, false);
    loop {
        let available = match reader.fill_buf() {
            Ok(available) => available,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        let end = available.iter().position(|&b| b == b'\n');
        let taken = &available[..end.unwrap_or(available.len())];
        too_long |= buffer.len() + taken.len() > LINE_BYTES_MAX;
        if too_long {
            buffer.clear();
        } else {
            buffer.extend_from_slice(taken);
        }
        let at_end = available.is_empty();
        any |= !at_end;
        let consumed = taken.len() + usize::from(end.is_some());
        reader.consume(consumed);
        if end.is_some() || at_end {
            return Ok(match (any, too_long) {
                (false, _) => Line::End,
                (true, true) => Line::TooLong,
                (true, false) => Line::Whole,
            });
        }
    }
}

/// An image path without `.` and `..`. Absolute paths are the user's own choice and stay as they
/// are; a relative one must not reach outside the folder of its file.
fn within(given: &str) -> Result<PathBuf, String> {
    if given.contains("://") {
        return Err(format!("image '{}' is a URL; download it and give the path", printable(given)));
    }
    if Path::new(given).is_absolute() {
        return Ok(PathBuf::from(given));
    }
    let mut path = PathBuf::new();
    for component in Path::new(given).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::ParentDir if path.pop() => {}
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(format!(
                    "image '{}' leads outside the folder of this file; move it inside or give an absolute path",
                    printable(given)
                ));
            }
        }
    }
    Ok(path)
}

/// A pipe or device would block whoever opens it, so only regular files pass.
fn check_regular(given: &str, path: &Path) -> Result<(), String> {
    match path.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(()),
        Ok(_) => Err(format!("image '{}' is not a regular file; give the path of one", printable(given))),
        Err(error) => Err(format!(
            "image '{}' cannot be read: {error}; paths are relative to the folder of this file",
            printable(given)
        )),
    }
}

/// A path with `/` between its components on every system.
fn slashed(path: &Path) -> String {
    path.to_string_lossy().replace(std::path::MAIN_SEPARATOR, "/")
}

/// The lines of the keys seen so far. Keeps a 128-bit hash under random seeds instead of the key,
/// so that memory does not depend on key lengths; two keys of a billion meet by chance with
/// probability below 1e-20.
#[derive(Debug, Default)]
struct SeenKeys {
    seeds: [RandomState; 2],
    lines: HashMap<[u64; 2], u64>,
}

impl SeenKeys {
    /// Notes a key; gives the earlier line when it was there already.
    fn insert(&mut self, key: &Key, line: u64) -> Option<u64> {
        let hash = [self.seeds[0].hash_one(key), self.seeds[1].hash_one(key)];
        let first = *self.lines.entry(hash).or_insert(line);
        (first != line).then_some(first)
    }
}
