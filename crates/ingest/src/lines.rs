//! JSON lines: the stream of lines.
//!
//! Owns: line splitting with a bounded buffer and encodings. What the fields of a line mean is in `fields`;
//! repeated keys are found in `keys`.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use diptych_core::Chunking;

use crate::LINE_BYTES_MAX;
use crate::columns::{Columns, Row};
use crate::input::Input;
use crate::item::{ItemError, Origin};
use crate::keys::FoundResult;
use crate::paths::Base;

const BUFFER_BYTES: usize = 256 * 1024;
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// The lines of a file that are not blank, with their numbers from 1. Memory is bounded by one line.
#[derive(Debug)]
pub(crate) struct TextLines<R> {
    reader: BufReader<R>,
    line: u64,
    buffer: Vec<u8>,
    ended: bool,
}

impl<R: Read> TextLines<R> {
    pub(crate) fn new(input: R) -> Self {
        let reader = BufReader::with_capacity(BUFFER_BYTES, input);
        Self { reader, line: 0, buffer: Vec::new(), ended: false }
    }

    /// The next line, or what is wrong with it.
    pub(crate) fn next(&mut self) -> Option<(u64, Result<&str, String>)> {
        while !self.ended {
            self.line += 1;
            match read_line(&mut self.reader, &mut self.buffer) {
                Ok(Line::End) => self.ended = true,
                Ok(Line::TooLong) => {
                    let reason = format!(
                        "the line is longer than {LINE_BYTES_MAX} bytes; split the item or shorten its texts"
                    );
                    return Some((self.line, Err(reason)));
                }
                Ok(Line::Whole) => {
                    if self.line == 1 && self.buffer.starts_with(BYTE_ORDER_MARK) {
                        self.buffer.drain(..BYTE_ORDER_MARK.len());
                    }
                    if !self.buffer.iter().all(u8::is_ascii_whitespace) {
                        let text = std::str::from_utf8(&self.buffer).map_err(|e| {
                            let valid = e.valid_up_to();
                            format!("the line is not UTF-8 from byte {valid} on; save the file as UTF-8")
                        });
                        return Some((self.line, text));
                    }
                }
                Err(error) => {
                    self.ended = true;
                    let reason = format!("reading stops here: {error}; check the file and run again");
                    return Some((self.line, Err(reason)));
                }
            }
        }
        None
    }
}

/// The rows of one JSON lines file.
#[derive(Debug)]
pub(crate) struct Lines {
    lines: TextLines<Input>,
    file: Arc<Path>,
    base: Base,
    columns: Columns,
    chunking: Option<Chunking>,
}

impl Lines {
    /// Opens a file; nothing is read yet.
    pub(crate) fn open(
        path: &Path,
        base: Base,
        columns: &Columns,
        chunking: Option<Chunking>,
    ) -> io::Result<Self> {
        let lines = TextLines::new(Input::open(path)?);
        Ok(Self { lines, file: Arc::from(path), base, columns: columns.clone(), chunking })
    }
}

impl Iterator for Lines {
    type Item = FoundResult;

    fn next(&mut self) -> Option<Self::Item> {
        let (line, text) = self.lines.next()?;
        let origin = || Origin::Line { file: Arc::clone(&self.file), line };
        let found = text
            .and_then(|text| Row::parse(text, &self.columns))
            .and_then(|row| row.into_found(&self.base, self.chunking, origin()));
        Some(found.map_err(|reason| ItemError { origin: origin(), reason }))
    }
}

/// Counts the lines that are not blank; `None` for a file that would have to be unpacked.
pub(crate) fn count(path: &Path) -> io::Result<Option<u64>> {
    let input = Input::open(path)?;
    if input.is_gzip() {
        return Ok(None);
    }
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, input);
    let (mut lines, mut blank) = (0, true);
    loop {
        let available = match reader.fill_buf() {
            Ok([]) => return Ok(Some(lines)),
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
