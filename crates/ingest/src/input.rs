//! Files as streams of bytes, unpacked where they are gzip.
//!
//! Owns: which files are gzip, and what is refused as a bomb. Deliberately absent: what the bytes mean.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

/// Bytes that are read from the disk at once.
const BUFFER_BYTES: usize = 256 * 1024;
/// What may come out of a gzip stream, however little went in.
const UNPACKED_FREE: u64 = 1 << 30;
/// How many times its size a gzip stream may unpack to beyond that. Deflate cannot do more than 1032 times;
/// tables and texts come to ten, images to one.
const RATIO_MAX: u64 = 100;

/// A file that is read from its beginning to its end.
#[derive(Debug)]
pub(crate) struct Input(Kind);

#[derive(Debug)]
enum Kind {
    Plain(BufReader<File>),
    Gzip(Box<Unpacked<BufReader<File>>>),
}

impl Input {
    /// Opens a file; its first two bytes say whether it is gzip.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Self::of(File::open(path)?)
    }

    /// Reads a file that is open already.
    pub(crate) fn of(file: File) -> io::Result<Self> {
        let mut reader = BufReader::with_capacity(BUFFER_BYTES, file);
        let gzip = reader.fill_buf()?.starts_with(&[0x1F, 0x8B]);
        Ok(Self(if gzip { Kind::Gzip(Box::new(Unpacked::new(reader))) } else { Kind::Plain(reader) }))
    }

    /// Whether the file is gzip.
    pub(crate) fn is_gzip(&self) -> bool {
        matches!(self.0, Kind::Gzip(_))
    }
}

impl Read for Input {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Kind::Plain(reader) => reader.read(out),
            Kind::Gzip(reader) => reader.read(out),
        }
    }
}

/// The content of a gzip stream, refused when it is out of all proportion.
#[derive(Debug)]
pub(crate) struct Unpacked<R> {
    decoder: MultiGzDecoder<Counted<R>>,
    unpacked: u64,
    free: u64,
}

impl<R: BufRead> Unpacked<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self::with_free(reader, UNPACKED_FREE)
    }

    fn with_free(reader: R, free: u64) -> Self {
        Self { decoder: MultiGzDecoder::new(Counted { reader, bytes: 0 }), unpacked: 0, free }
    }
}

impl<R: BufRead> Read for Unpacked<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.decoder.read(out).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => {
                io::Error::new(e.kind(), "the gzip stream ends early: the file is cut off")
            }
            _ => io::Error::new(e.kind(), format!("the gzip stream is damaged: {e}")),
        })?;
        self.unpacked += read as u64;
        let packed = self.decoder.get_ref().bytes;
        if self.unpacked > self.free && self.unpacked / RATIO_MAX > packed {
            let reason = format!(
                "{packed} bytes of gzip unpack to more than {} and to more than {RATIO_MAX} times their size, as a \
                 bomb does; unpack the file yourself if it is not one",
                self.free
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        Ok(read)
    }
}

#[derive(Debug)]
struct Counted<R> {
    reader: R,
    bytes: u64,
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(out)?;
        self.bytes += read as u64;
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.reader.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.bytes += amount as u64;
        self.reader.consume(amount);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write as _;

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_bomb_is_refused_and_what_is_in_proportion_is_not() {
        let zeros = packed(&vec![0; 4 << 20]);
        let mut out = Vec::new();
        let error = Unpacked::with_free(&zeros[..], 1 << 20).read_to_end(&mut out).unwrap_err();
        assert!(error.to_string().contains("bomb"), "{error}");
        assert!(out.len() <= (1 << 20) + (1 << 17), "{} bytes came out first", out.len());
        let mut state = 1u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as u8 & 63
        })
        .take(4 << 20)
        .collect();
        let mut out = Vec::new();
        Unpacked::with_free(&packed(&noise)[..], 1 << 20).read_to_end(&mut out).unwrap();
        assert!(out == noise);
    }

    #[test]
    fn a_stream_that_is_cut_off_says_so() {
        let whole = packed(b"some text that is long enough to be cut");
        let mut out = String::new();
        let error = Unpacked::new(&whole[..whole.len() - 12]).read_to_string(&mut out).unwrap_err();
        assert!(error.to_string().contains("cut off"), "{error}");
        // Two streams one after the other are one.
        let both = [packed(b"a"), packed(b"b")].concat();
        let mut out = String::new();
        Unpacked::new(&both[..]).read_to_string(&mut out).unwrap();
        assert_eq!(out, "ab");
    }
}
