//! CSV and TSV: the stream of records, and rows with named columns.
//!
//! Owns: the delimiter, quotes, bounds, and where reading goes on behind a record that cannot be read. The only
//! file that names the parser. What the columns mean is in `columns`.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};
use diptych_core::Chunking;

use crate::LINE_BYTES_MAX;
use crate::columns::{Columns, Role, Roles, Row, typed};
use crate::input::Input;
use crate::item::{ItemError, Origin, printable};
use crate::keys::{Found, FoundResult};
use crate::paths::Base;

const BUFFER_BYTES: usize = 256 * 1024;
/// Most columns of a table.
const COLUMNS_MAX: usize = 4096;
/// Delimiters that are looked for.
const DELIMITERS: [u8; 4] = [b',', b'\t', b';', b'|'];

/// A record and the line it begins in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// Its fields, not unquoted any further.
    Fields(u64, Vec<String>),
    /// Why it cannot be used; reading goes on behind it.
    Unusable(u64, String),
}

/// The records of a table as text.
pub(crate) struct Records<R> {
    reader: BufReader<R>,
    parser: Reader,
    delimiter: u8,
    output: Vec<u8>,
    ends: Vec<usize>,
    /// Lines that the parser has not seen.
    passed: u64,
    ended: bool,
}

impl<R: Read> Records<R> {
    /// Reads a table, whose first line says what separates its fields: the one of comma, tab, semicolon and
    /// bar that is there most often outside quotes.
    pub(crate) fn new(input: R) -> io::Result<Self> {
        let mut reader = BufReader::with_capacity(BUFFER_BYTES, input);
        let delimiter = sniff(reader.fill_buf()?);
        let parser = ReaderBuilder::new().delimiter(delimiter).build();
        Ok(Self {
            reader,
            parser,
            delimiter,
            output: vec![0; 64 * 1024],
            ends: vec![0; COLUMNS_MAX],
            passed: 0,
            ended: false,
        })
    }

    /// The delimiter, in words.
    pub(crate) fn delimiter(&self) -> &'static str {
        match self.delimiter {
            b'\t' => "tab",
            b';' => "semicolon",
            b'|' => "bar",
            _ => "comma",
        }
    }

    /// The next record that is not blank.
    pub(crate) fn next(&mut self) -> io::Result<Option<Record>> {
        if self.ended {
            return Ok(None);
        }
        self.pass_blank_lines()?;
        let begins = self.parser.line() + self.passed;
        let (mut out, mut end) = (0, 0);
        loop {
            let input = self.reader.fill_buf()?;
            let (result, read, written, ends) =
                self.parser.read_record(input, &mut self.output[out..], &mut self.ends[end..]);
            self.reader.consume(read);
            (out, end) = (out + written, end + ends);
            match result {
                ReadRecordResult::Record => return Ok(Some(self.record(begins, end))),
                ReadRecordResult::End => {
                    self.ended = true;
                    return Ok(None);
                }
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull if self.output.len() < LINE_BYTES_MAX => {
                    let longer = (self.output.len() * 4).min(LINE_BYTES_MAX);
                    self.output.resize(longer, 0);
                }
                ReadRecordResult::OutputFull => {
                    let reason = format!(
                        "the record is longer than {LINE_BYTES_MAX} bytes, which a quote that is not closed does; \
                         reading goes on at the next line"
                    );
                    return self.give_up(begins, reason).map(Some);
                }
                ReadRecordResult::OutputEndsFull => {
                    let reason =
                        format!("the record has more than {COLUMNS_MAX} fields; split the table by columns");
                    return self.give_up(begins, reason).map(Some);
                }
            }
        }
    }

    /// Passes over line breaks in front of a record, so that it is named by the line it begins in.
    fn pass_blank_lines(&mut self) -> io::Result<()> {
        loop {
            let input = self.reader.fill_buf()?;
            let breaks = input.iter().take_while(|&&b| matches!(b, b'\r' | b'\n')).count();
            self.passed += input[..breaks].iter().filter(|&&b| b == b'\n').count() as u64;
            self.reader.consume(breaks);
            if breaks == 0 {
                return Ok(());
            }
        }
    }

    fn record(&self, begins: u64, fields: usize) -> Record {
        let mut texts = Vec::with_capacity(fields);
        let mut start = 0;
        for &end in &self.ends[..fields] {
            let bytes = &self.output[start..end];
            start = end;
            if bytes.contains(&0) {
                let reason = "it contains NUL bytes; save the file as UTF-8".to_owned();
                return Record::Unusable(begins, reason);
            }
            match str::from_utf8(bytes) {
                Ok(text) => texts.push(text.to_owned()),
                Err(_) => {
                    let column = texts.len() + 1;
                    let reason = format!("column {column} is not UTF-8; save the file as UTF-8");
                    return Record::Unusable(begins, reason);
                }
            }
        }
        Record::Fields(begins, texts)
    }

    /// Passes over the rest of a line and begins anew behind it.
    fn give_up(&mut self, begins: u64, reason: String) -> io::Result<Record> {
        let line = self.parser.line();
        loop {
            let input = self.reader.fill_buf()?;
            if input.is_empty() {
                break;
            }
            let end = input.iter().position(|&b| b == b'\n');
            let passed = end.map_or(input.len(), |end| end + 1);
            self.reader.consume(passed);
            if end.is_some() {
                break;
            }
        }
        self.parser = ReaderBuilder::new().delimiter(self.delimiter).build();
        self.parser.set_line(line + 1);
        Ok(Record::Unusable(begins, reason))
    }
}

/// What separates the fields of the first line that is not blank.
fn sniff(head: &[u8]) -> u8 {
    let mut counts = [0usize; DELIMITERS.len()];
    let (mut quoted, mut blank) = (false, true);
    for &byte in head {
        match byte {
            b'"' => quoted = !quoted,
            b'\n' | b'\r' if !quoted => {
                if !blank {
                    break;
                }
            }
            _ => {
                if let Some(n) = DELIMITERS.iter().position(|&d| d == byte).filter(|_| !quoted) {
                    counts[n] += 1;
                }
            }
        }
        blank &= byte.is_ascii_whitespace();
    }
    let most = (0..counts.len()).rev().max_by_key(|&n| counts[n]).unwrap_or(0);
    DELIMITERS[most]
}

/// A table with named columns.
pub(crate) struct Table {
    records: Records<Input>,
    file: Arc<Path>,
    columns: Vec<String>,
}

/// A row of a table: its line and its fields, as many as there are columns, or what is wrong with it.
pub(crate) type TableRow = (u64, Result<Vec<String>, String>);

impl Table {
    /// Opens a table and reads the names of its columns. The error is the reason in words.
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        let unreadable = |e: io::Error| format!("it cannot be read: {e}");
        let input = Input::open(path).map_err(unreadable)?;
        let mut records = Records::new(input).map_err(unreadable)?;
        let columns = match records.next().map_err(unreadable)? {
            Some(Record::Fields(_, names)) => names,
            Some(Record::Unusable(_, reason)) => return Err(format!("its first line: {reason}")),
            None => return Err("it is empty; its first line must name its columns".to_owned()),
        };
        let mut names: Vec<&str> = columns.iter().map(String::as_str).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1] && !pair[0].trim().is_empty()) {
            return Err(format!("two columns are named '{}'; rename one of them", printable(twice[0])));
        }
        Ok(Self { records, file: Arc::from(path), columns })
    }

    pub(crate) fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Whether it has all these columns.
    pub(crate) fn has(&self, names: &[&str]) -> bool {
        names.iter().all(|name| self.columns.iter().any(|column| column == name))
    }

    /// What separates its fields, in words.
    pub(crate) fn delimiter(&self) -> &'static str {
        self.records.delimiter()
    }

    /// Where a line of it is.
    pub(crate) fn origin(&self, line: u64) -> Origin {
        Origin::Line { file: Arc::clone(&self.file), line }
    }

    /// The next row. An error ends the table.
    pub(crate) fn next_row(&mut self) -> Option<TableRow> {
        match self.records.next() {
            Ok(None) => None,
            Ok(Some(Record::Fields(line, fields))) if fields.len() == self.columns.len() => {
                Some((line, Ok(fields)))
            }
            Ok(Some(Record::Fields(line, fields))) => {
                let (found, named) = (fields.len(), self.columns.len());
                let reason = format!(
                    "{found} fields, and the first line names {named}; put fields that contain a {} into quotes",
                    self.delimiter()
                );
                Some((line, Err(reason)))
            }
            Ok(Some(Record::Unusable(line, reason))) => Some((line, Err(reason))),
            Err(error) => {
                self.records.ended = true;
                let reason = format!("reading stops here: {error}; check the file and run again");
                Some((self.records.parser.line() + self.records.passed, Err(reason)))
            }
        }
    }
}

/// The rows of a table that is a source itself.
pub(crate) struct Rows {
    table: Table,
    roles: Roles,
    base: Base,
    chunking: Option<Chunking>,
}

impl Rows {
    /// Opens a table. The error is the reason in words.
    pub(crate) fn open(
        path: &Path,
        base: Base,
        columns: &Columns,
        chunking: Option<Chunking>,
    ) -> Result<Self, String> {
        let table = Table::open(path)?;
        let roles = Roles::of(table.columns().to_vec(), columns)?;
        if !roles.has_content() {
            let there = roles.names.iter().map(|n| printable(n)).collect::<Vec<_>>().join(", ");
            return Err(format!(
                "none of its columns is known to be an image or a text; say which by --image-column and \
                 --text-column. There are: {there}"
            ));
        }
        Ok(Self { table, roles, base, chunking })
    }

    /// The columns and what they are taken for.
    pub(crate) fn describe(&self) -> Vec<(String, String)> {
        self.roles.describe()
    }

    /// What separates its fields, in words.
    pub(crate) fn delimiter(&self) -> &'static str {
        self.table.delimiter()
    }

    fn found(&self, line: u64, fields: Vec<String>) -> Result<Found, String> {
        let mut row = Row::default();
        for (field, role) in fields.into_iter().zip(&self.roles.roles) {
            if field.trim().is_empty() {
                continue;
            }
            match role {
                Role::Key => row.key = Some(field.trim().to_owned()),
                Role::Study => {
                    row.key = Some(field.trim().to_owned());
                    row.joins = true;
                }
                Role::Image => row.images.push(field.trim().to_owned()),
                Role::Text => row.texts.push(field.trim().to_owned()),
                Role::Attribute(name) => row.attributes.extend(typed(&field).map(|v| (name.clone(), v))),
                Role::Unused => {}
            }
        }
        let named = self.roles.roles.iter().any(|role| matches!(role, Role::Key | Role::Study));
        if named && row.key.is_none() {
            return Err("its key is empty; give it one".to_owned());
        }
        row.into_found(&self.base, self.chunking, self.table.origin(line))
    }
}

impl Iterator for Rows {
    type Item = FoundResult;

    fn next(&mut self) -> Option<FoundResult> {
        let (line, fields) = self.table.next_row()?;
        let found = fields.and_then(|fields| self.found(line, fields));
        Some(found.map_err(|reason| ItemError { origin: self.table.origin(line), reason }))
    }
}
