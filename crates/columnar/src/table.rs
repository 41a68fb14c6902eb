//! Parquet files: the columns of an export written, any columns read. The only file that names the library.
//!
//! Owns: the schema of an export, and row groups bounded in memory. Deliberately absent: what the columns
//! mean.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::record::Field;
use parquet::record::reader::RowIter;
use parquet::schema::parser::parse_message_type;

use diptych_core::AttributeValue;

use crate::ColumnarError;
use crate::attributes::{self, Cell};
use crate::error::io;
use crate::rows::Row;

/// The columns of an export, in order. `rows` says what they mean.
const SCHEMA: &str = "message diptych {
    required binary image_path (string);
    required binary caption (string);
    required binary key (string);
    optional binary image_part (string);
    optional binary text_part (string);
    optional binary image_digest (string);
    optional int64 image_width;
    optional int64 image_height;
    optional int64 truncated_tokens;
    required binary attributes (string);
}";
/// Rows of a group, which is held in memory until it is written.
const GROUP_ROWS: usize = 8192;
/// Rows that are read at once.
const BATCH_ROWS: usize = 1024;
/// The same where rows may be large.
const LARGE_BATCH_ROWS: usize = 16;
/// A group ends early at so many bytes of text.
const GROUP_BYTES: usize = 16 << 20;

/// Writes the metadata of an export.
pub(crate) struct TableWriter {
    path: PathBuf,
    writer: SerializedFileWriter<File>,
    rows: Vec<Row>,
    bytes: usize,
}

impl TableWriter {
    pub(crate) fn create(path: &Path) -> Result<Self, ColumnarError> {
        let file = File::create(path).map_err(io("create", path))?;
        let schema = Arc::new(parse_message_type(SCHEMA).expect("the schema is well formed"));
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_created_by(concat!("diptych ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        let writer = SerializedFileWriter::new(file, schema, Arc::new(properties));
        let writer = writer.map_err(|e| refused(path, "write", e))?;
        Ok(Self { path: path.to_owned(), writer, rows: Vec::new(), bytes: 0 })
    }

    pub(crate) fn push(&mut self, row: Row) -> Result<(), ColumnarError> {
        self.bytes += row.bytes();
        self.rows.push(row);
        if self.rows.len() >= GROUP_ROWS || self.bytes >= GROUP_BYTES { self.flush() } else { Ok(()) }
    }

    /// Completes the file, durably.
    pub(crate) fn finish(mut self) -> Result<(), ColumnarError> {
        self.flush()?;
        let path = self.path;
        let file = self.writer.into_inner().map_err(|e| refused(&path, "write", e))?;
        file.sync_all().map_err(io("write", &path))
    }

    fn flush(&mut self) -> Result<(), ColumnarError> {
        if self.rows.is_empty() {
            return Ok(());
        }
        self.bytes = 0;
        let rows = std::mem::take(&mut self.rows);
        let mut write = || -> Result<(), ParquetError> {
            let mut group = self.writer.next_row_group()?;
            put_texts(&mut group, &rows, |row| row.image_path.as_str())?;
            put_texts(&mut group, &rows, |row| row.caption.as_str())?;
            put_texts(&mut group, &rows, |row| row.key.as_str())?;
            put_some_texts(&mut group, &rows, |row| row.image_part.as_deref())?;
            put_some_texts(&mut group, &rows, |row| row.text_part.as_deref())?;
            put_some_texts(&mut group, &rows, |row| row.image_digest.as_deref())?;
            put_numbers(&mut group, &rows, |row| row.image_width)?;
            put_numbers(&mut group, &rows, |row| row.image_height)?;
            put_numbers(&mut group, &rows, |row| row.truncated_tokens)?;
            put_texts(&mut group, &rows, |row| row.attributes.as_str())?;
            group.close().map(drop)
        };
        write().map_err(|e| refused(&self.path, "write", e))
    }
}

type Group<'a> = SerializedRowGroupWriter<'a, File>;

fn put_texts<'a>(
    group: &mut Group<'_>,
    rows: &'a [Row],
    cell: impl Fn(&'a Row) -> &'a str,
) -> Result<(), ParquetError> {
    let values: Vec<ByteArray> = rows.iter().map(|row| cell(row).into()).collect();
    put(group, |column| column.typed::<ByteArrayType>().write_batch(&values, None, None))
}

fn put_some_texts<'a>(
    group: &mut Group<'_>,
    rows: &'a [Row],
    cell: impl Fn(&'a Row) -> Option<&'a str>,
) -> Result<(), ParquetError> {
    let values: Vec<ByteArray> = rows.iter().filter_map(|row| cell(row).map(ByteArray::from)).collect();
    let there: Vec<i16> = rows.iter().map(|row| i16::from(cell(row).is_some())).collect();
    put(group, |column| column.typed::<ByteArrayType>().write_batch(&values, Some(&there), None))
}

fn put_numbers(
    group: &mut Group<'_>,
    rows: &[Row],
    cell: impl Fn(&Row) -> Option<u32>,
) -> Result<(), ParquetError> {
    let values: Vec<i64> = rows.iter().filter_map(|row| cell(row).map(i64::from)).collect();
    let there: Vec<i16> = rows.iter().map(|row| i16::from(cell(row).is_some())).collect();
    put(group, |column| column.typed::<Int64Type>().write_batch(&values, Some(&there), None))
}

fn put(
    group: &mut Group<'_>,
    write: impl FnOnce(&mut parquet::file::writer::SerializedColumnWriter<'_>) -> Result<usize, ParquetError>,
) -> Result<(), ParquetError> {
    let mut column = group.next_column()?.expect("one write for each column of the schema");
    write(&mut column)?;
    column.close()
}

/// A Parquet file with any columns, read row by row.
pub struct Table {
    path: PathBuf,
    rows: u64,
    columns: Vec<String>,
    reader: RowIter<'static>,
    read: u64,
}

/// What a column has in a row, for programs that do not know Parquet.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing.
    Empty,
    /// What an attribute can be.
    Attribute(AttributeValue),
    /// Bytes that are not said to be text, such as an encoded image.
    Bytes(Vec<u8>),
    /// Named values together, such as an image and its path.
    Group(Vec<(String, Value)>),
    /// Several values that are not all texts.
    List(Vec<Value>),
    /// What no attribute can be, such as a decimal number.
    Other,
}

/// One row: the values of its columns by name, in the order of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct TableRow(pub(crate) Vec<(String, Field)>);

impl Table {
    /// Opens a file.
    ///
    /// # Errors
    /// [`ColumnarError::Unusable`] when it is no Parquet file, or one that cannot be read here.
    pub fn open(path: &Path) -> Result<Self, ColumnarError> {
        Self::open_by(path, BATCH_ROWS)
    }

    /// Opens a file whose rows may be large, such as images: few are read at once.
    ///
    /// # Errors
    /// As [`Table::open`].
    pub fn open_large(path: &Path) -> Result<Self, ColumnarError> {
        Self::open_by(path, LARGE_BATCH_ROWS)
    }

    fn open_by(path: &Path, batch: usize) -> Result<Self, ColumnarError> {
        let file = File::open(path).map_err(io("open", path))?;
        let unreadable = |e: ParquetError| refused(path, "read", e);
        let reader = SerializedFileReader::new(file).map_err(unreadable)?;
        let about = reader.metadata().file_metadata();
        let rows = u64::try_from(about.num_rows()).map_err(|_| {
            ColumnarError::unusable(path, "it says to have less than no rows; write it again")
        })?;
        let columns = about.schema().get_fields().iter().map(|field| field.name().to_owned()).collect();
        let reader = RowIter::from_file_into(Box::new(reader)).with_batch_size(batch);
        Ok(Self { path: path.to_owned(), rows, columns, reader, read: 0 })
    }

    /// Rows of the file.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The names of its columns.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The next row; `None` behind the last.
    ///
    /// # Errors
    /// When the file is damaged, or compressed by a codec that is not read here.
    pub fn next_row(&mut self) -> Result<Option<TableRow>, ColumnarError> {
        let row = self.reader.next().transpose().map_err(|e| refused(&self.path, "read", e))?;
        match row {
            Some(row) => {
                self.read += 1;
                Ok(Some(TableRow(row.into_columns())))
            }
            None if self.read < self.rows => {
                let reason = format!("it ends after {} of {} rows; write it again", self.read, self.rows);
                Err(ColumnarError::unusable(&self.path, reason))
            }
            None => Ok(None),
        }
    }
}

impl TableRow {
    /// Its values by name, in the order of the file.
    pub fn into_values(self) -> Vec<(String, Value)> {
        self.0.into_iter().map(|(name, field)| (name, value(field))).collect()
    }

    /// The text in a column; `None` where there is no column of that name, no value, or no text.
    pub(crate) fn text(&self, column: &str) -> Option<&str> {
        match self.field(column)? {
            Field::Str(text) => Some(text),
            _ => None,
        }
    }

    /// A whole number that is not negative.
    pub(crate) fn number(&self, column: &str) -> Option<u32> {
        match *self.field(column)? {
            Field::Int(v) => v.try_into().ok(),
            Field::Long(v) => v.try_into().ok(),
            Field::UInt(v) => Some(v),
            _ => None,
        }
    }

    pub(crate) fn field(&self, column: &str) -> Option<&Field> {
        self.0.iter().find(|(name, _)| name == column).map(|(_, field)| field)
    }
}

fn value(field: Field) -> Value {
    match field {
        Field::Bytes(bytes) => Value::Bytes(bytes.data().to_vec()),
        Field::Group(row) => {
            Value::Group(row.into_columns().into_iter().map(|(name, field)| (name, value(field))).collect())
        }
        field => match (attributes::from_field(&field), field) {
            (Cell::Value(found), _) => Value::Attribute(found),
            (Cell::Empty, _) => Value::Empty,
            (Cell::Other, Field::ListInternal(list)) => {
                Value::List(list.elements().iter().cloned().map(value).collect())
            }
            (Cell::Other, _) => Value::Other,
        },
    }
}

fn refused(path: &Path, doing: &str, error: ParquetError) -> ColumnarError {
    let reason = match doing {
        "write" => format!("it cannot be written: {error}; check permissions and free space"),
        _ => format!("it cannot be read: {error}; write it again, uncompressed or with snappy, gzip or lz4"),
    };
    ColumnarError::unusable(path, reason)
}
