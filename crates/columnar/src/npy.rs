//! NumPy's array files: two dimensions of floats, row after row.
//!
//! The format is NEP 1, "A Simple File Format for NumPy Arrays": the magic `\x93NUMPY`, a version, the
//! length of a header, the header as the text of a Python dictionary padded with spaces and ended by a
//! newline so that the data begins at a multiple of 64 bytes, and the data. Deliberately absent: everything
//! but matrices of little-endian floats in C order.

use std::fmt;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use half::f16;

use crate::ColumnarError;
use crate::error::io;

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Bytes before the data of a file that is written here: room for any shape.
const WRITTEN_HEADER: usize = 128;
/// Longest header that is read.
const HEADER_MAX: usize = 64 * 1024;

/// How the numbers of a file are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// 16 bits: 11 of precision, as clip-retrieval writes.
    F16,
    /// 32 bits: vectors keep every bit.
    F32,
    /// 64 bits; read only, and rounded to 32.
    F64,
}

impl Dtype {
    fn bytes(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    fn descr(self) -> &'static str {
        match self {
            Self::F16 => "<f2",
            Self::F32 => "<f4",
            Self::F64 => "<f8",
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F16 => "f16",
            Self::F32 => "f32",
            Self::F64 => "f64",
        })
    }
}

impl FromStr for Dtype {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "f16" => Ok(Self::F16),
            "f32" => Ok(Self::F32),
            other => Err(format!("vectors are not written as '{other}'; use f16 or f32")),
        }
    }
}

/// Writes a matrix whose number of rows is not known yet.
#[derive(Debug)]
pub struct NpyWriter {
    path: PathBuf,
    out: BufWriter<File>,
    dtype: Dtype,
    dim: usize,
    rows: u64,
}

impl NpyWriter {
    /// Begins a file for rows of `dim` numbers.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn create(path: &Path, dim: usize, dtype: Dtype) -> Result<Self, ColumnarError> {
        let file = File::create(path).map_err(io("create", path))?;
        let mut writer = Self { path: path.to_owned(), out: BufWriter::new(file), dtype, dim, rows: 0 };
        writer.put(&[b' '; WRITTEN_HEADER])?;
        Ok(writer)
    }

    /// Writes a row of `dim` numbers.
    ///
    /// # Errors
    /// When the row has another length, or the file cannot be written.
    pub fn push(&mut self, row: &[f32]) -> Result<(), ColumnarError> {
        if row.len() != self.dim {
            let reason = format!("a vector has {} dimensions, the others have {}", row.len(), self.dim);
            return Err(ColumnarError::unusable(&self.path, reason));
        }
        let bytes: Vec<u8> = match self.dtype {
            Dtype::F16 => row.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
            Dtype::F32 => row.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Dtype::F64 => row.iter().flat_map(|&v| f64::from(v).to_le_bytes()).collect(),
        };
        self.rows += 1;
        self.put(&bytes)
    }

    /// Completes the file, durably.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn finish(mut self) -> Result<(), ColumnarError> {
        let text = format!(
            "{{'descr': '{}', 'fortran_order': False, 'shape': ({}, {}), }}",
            self.dtype.descr(),
            self.rows,
            self.dim
        );
        let length = WRITTEN_HEADER - MAGIC.len() - 4;
        let mut header = Vec::with_capacity(WRITTEN_HEADER);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&[1, 0]);
        header.extend_from_slice(&u16::try_from(length).expect("a short header").to_le_bytes());
        header.extend_from_slice(format!("{text:<width$}\n", width = length - 1).as_bytes());
        debug_assert_eq!(header.len(), WRITTEN_HEADER);
        let path = self.path.clone();
        self.out.seek(SeekFrom::Start(0)).map_err(io("write", &path))?;
        self.put(&header)?;
        let file = self.out.into_inner().map_err(|e| io("write", &path)(e.into_error()))?;
        file.sync_all().map_err(io("write", &path))
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), ColumnarError> {
        self.out.write_all(bytes).map_err(io("write", &self.path))
    }
}

/// Reads a matrix row by row.
#[derive(Debug)]
pub struct NpyReader {
    path: PathBuf,
    input: BufReader<File>,
    dtype: Dtype,
    dim: usize,
    rows: u64,
    read: u64,
}

impl NpyReader {
    /// Opens a file and checks that it is as long as it says.
    ///
    /// # Errors
    /// [`ColumnarError::Unusable`] when it is no matrix of little-endian floats in C order, or cut short.
    pub fn open(path: &Path) -> Result<Self, ColumnarError> {
        let wrong = |reason: String| ColumnarError::unusable(path, reason);
        let file = File::open(path).map_err(io("open", path))?;
        let length = file.metadata().map_err(io("read", path))?.len();
        let mut input = BufReader::with_capacity(1 << 18, file);
        let (text, begin) = read_header(&mut input).map_err(|reason| {
            wrong(format!("it is no NumPy array file: {reason}; write it by numpy.save"))
        })?;
        let header = Header::parse(&text).map_err(wrong)?;
        let row = (header.dim * header.dtype.bytes()) as u64;
        let expected = header.rows.checked_mul(row).and_then(|data| data.checked_add(begin));
        if expected != Some(length) {
            return Err(wrong(format!(
                "it has {length} bytes, and {} rows of {} numbers as {} take {}; it is cut short or damaged: write it again",
                header.rows,
                header.dim,
                header.dtype,
                expected.map_or_else(|| "more than any file".to_owned(), |bytes| bytes.to_string())
            )));
        }
        let Header { dtype, rows, dim } = header;
        Ok(Self { path: path.to_owned(), input, dtype, dim, rows, read: 0 })
    }

    /// Rows of the file.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Numbers of each row.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// How they are stored.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The next row; `None` behind the last.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn next_row(&mut self) -> Result<Option<Vec<f32>>, ColumnarError> {
        if self.read == self.rows {
            return Ok(None);
        }
        let mut bytes = vec![0; self.dim * self.dtype.bytes()];
        self.input.read_exact(&mut bytes).map_err(io("read", &self.path))?;
        self.read += 1;
        Ok(Some(match self.dtype {
            Dtype::F16 => bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
            Dtype::F32 => {
                bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
            }
            Dtype::F64 => {
                let number = |b: &[u8]| f64::from_le_bytes(b.try_into().expect("eight bytes")) as f32;
                bytes.chunks_exact(8).map(number).collect()
            }
        }))
    }
}

/// The text of the header, and where the data begins.
fn read_header(input: &mut impl Read) -> Result<(String, u64), String> {
    let mut start = [0; 8];
    input.read_exact(&mut start).map_err(|_| "it is shorter than a header".to_owned())?;
    if &start[..6] != MAGIC {
        return Err("it does not begin like one".to_owned());
    }
    let width = match start[6] {
        1 => 2,
        2 | 3 => 4,
        version => return Err(format!("version {version} is unknown")),
    };
    let mut length = [0; 4];
    input.read_exact(&mut length[..width]).map_err(|_| "it is shorter than a header".to_owned())?;
    let length = u32::from_le_bytes(length) as usize;
    if length > HEADER_MAX {
        return Err(format!("its header would have {length} bytes"));
    }
    let mut text = vec![0; length];
    input.read_exact(&mut text).map_err(|_| "it is shorter than its header".to_owned())?;
    let text = String::from_utf8(text).map_err(|_| "its header is no text".to_owned())?;
    Ok((text, (8 + width + length) as u64))
}

struct Header {
    dtype: Dtype,
    rows: u64,
    dim: usize,
}

impl Header {
    fn parse(text: &str) -> Result<Self, String> {
        let lacks = |name: &str| format!("its header lacks {name}; write it by numpy.save");
        let descr = value(text, "descr").and_then(quoted).ok_or_else(|| lacks("descr"))?;
        let dtype = match descr {
            "<f2" => Dtype::F16,
            "<f4" => Dtype::F32,
            "<f8" => Dtype::F64,
            other => {
                let other: String = other.chars().take(32).collect();
                return Err(format!(
                    "its numbers are '{other}'; convert them: a.astype(\"float16\") or a.astype(\"float32\")"
                ));
            }
        };
        let order = value(text, "fortran_order").ok_or_else(|| lacks("fortran_order"))?;
        if order.starts_with("True") {
            return Err("it is in Fortran order; convert it by numpy.ascontiguousarray".to_owned());
        }
        let shape = value(text, "shape")
            .and_then(|rest| Some(rest.strip_prefix('(')?.split_once(')')?.0))
            .ok_or_else(|| lacks("shape"))?;
        let sizes: Option<Vec<u64>> =
            shape.split(',').map(str::trim).filter(|s| !s.is_empty()).map(|s| s.parse().ok()).collect();
        match sizes.as_deref() {
            Some([rows, dim]) if (1..=diptych_core::limits::DIM_MAX as u64).contains(dim) => {
                Ok(Self { dtype, rows: *rows, dim: *dim as usize })
            }
            _ => Err(format!(
                "its shape is ({}); a matrix with a row for each vector is needed",
                shape.chars().take(64).collect::<String>()
            )),
        }
    }
}

/// What follows a name in the text of a dictionary.
fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    ['\'', '"'].into_iter().find_map(|quote| {
        let named = format!("{quote}{name}{quote}");
        let rest = &text[text.find(&named)? + named.len()..];
        Some(rest.trim_start().strip_prefix(':')?.trim_start())
    })
}

fn quoted(rest: &str) -> Option<&str> {
    let quote = rest.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    Some(rest[1..].split_once(quote)?.0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn written(dtype: Dtype, rows: &[[f32; 3]]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        let mut writer = NpyWriter::create(&path, 3, dtype).unwrap();
        rows.iter().for_each(|row| writer.push(row).unwrap());
        assert!(writer.push(&[1.0]).is_err(), "a row of another length");
        writer.finish().unwrap();
        (dir, path)
    }

    #[test]
    fn the_bytes_are_those_of_the_format() {
        let (_dir, path) = written(Dtype::F32, &[[1.0, -2.0, 0.5]]);
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes[..10], *b"\x93NUMPY\x01\x00\x76\x00");
        let header = std::str::from_utf8(&bytes[10..128]).unwrap();
        assert_eq!(header.trim_end(), "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3), }");
        assert!(header.ends_with(" \n"));
        assert_eq!(bytes[128..132], 1.0f32.to_le_bytes());
        assert_eq!(bytes.len(), 128 + 12);
    }

    #[test]
    fn rows_are_read_as_they_were_written() {
        let rows = [[1.0, -2.0, 0.5], [0.25, 0.0, 1024.0]];
        for dtype in [Dtype::F16, Dtype::F32, Dtype::F64] {
            let (_dir, path) = written(dtype, &rows);
            let mut reader = NpyReader::open(&path).unwrap();
            assert_eq!((reader.rows(), reader.dim(), reader.dtype()), (2, 3, dtype));
            assert_eq!(reader.next_row().unwrap().unwrap(), rows[0]);
            assert_eq!(reader.next_row().unwrap().unwrap(), rows[1]);
            assert_eq!(reader.next_row().unwrap(), None);
        }
        let (_dir, path) = written(Dtype::F16, &[]);
        assert_eq!(NpyReader::open(&path).unwrap().next_row().unwrap(), None);
    }

    #[test]
    fn what_is_no_such_file_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("odd.npy");
        let with = |header: &str, data: usize| {
            let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
            bytes.extend_from_slice(&(header.len() as u16).to_le_bytes());
            bytes.extend_from_slice(header.as_bytes());
            bytes.extend(vec![0; data]);
            bytes
        };
        let header = |descr: &str, order: &str, shape: &str| {
            format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n")
        };
        let (good, cut) = (header("<f4", "False", "(2, 3)"), header("<f4", "False", "(99999999999, 60000)"));
        for (bytes, says) in [
            (Vec::new(), "shorter than a header"),
            (b"PK\x03\x04 a zip archive".to_vec(), "does not begin like one"),
            (with("", 0), "lacks descr"),
            (with(&good, 23), "cut short"),
            (with(&good, 25), "cut short"),
            (with(&cut, 24), "cut short"),
            (with(&header("<f4", "False", "(18446744073709551615, 65536)"), 0), "more than any file"),
            (with(&header(">f4", "False", "(2, 3)"), 24), "'>f4'"),
            (with(&header("<i8", "False", "(2, 3)"), 48), "'<i8'"),
            (with(&header("<f4", "True", "(2, 3)"), 24), "Fortran order"),
            (with(&header("<f4", "False", "(6,)"), 24), "(6,)"),
            (with(&header("<f4", "False", "(2, 0)"), 0), "(2, 0)"),
            (b"\x93NUMPY\x09\x00 ".to_vec(), "version 9"),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let error = NpyReader::open(&path).unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("odd.npy"), "{error}");
        }
        // As other programs write it: other quotes, other order, no padding.
        std::fs::write(&path, with("{\"shape\":(2,3),\"descr\":\"<f2\",\"fortran_order\":False}", 12))
            .unwrap();
        assert_eq!(NpyReader::open(&path).unwrap().rows(), 2);
    }
}
