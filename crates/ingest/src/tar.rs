//! Tar archives as streams of members.
//!
//! Owns: headers of ustar, GNU and pax, what is refused as a member, and where reading goes on behind damage.
//! Memory is bounded whatever the headers say. Deliberately absent: what members mean, and writing anything
//! to disk.

use std::io::{self, Read};

/// A header, and what members are padded to.
const BLOCK: usize = 512;
/// Longest extended header or long name.
const EXTENDED_BYTES_MAX: u64 = 64 * 1024;

/// What comes next in an archive.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A regular file, to be read by [`TarReader::content`] or passed over.
    File {
        /// Its path: relative, without `..`.
        name: String,
        /// Its length in bytes, as its header says.
        size: u64,
    },
    /// A member that is not taken, and why.
    Refused { name: String, reason: String },
    /// What is no archive. Reading goes on at the next header, if there is one.
    Damaged(String),
}

/// Why a member cannot be had.
#[derive(Debug)]
pub(crate) enum ContentError {
    /// It is longer than the bound, in bytes; the next member can be read.
    TooLong,
    /// The archive ends within it, or cannot be read on.
    Broken(io::Error),
}

/// An archive that is read once from its beginning to its end.
#[derive(Debug)]
pub(crate) struct TarReader<R> {
    input: R,
    /// Bytes read so far.
    position: u64,
    /// What is left of the current member, padding included.
    left: u64,
    /// What is left of the current member itself.
    content_left: u64,
    ended: bool,
}

/// What extended headers say of the next member.
#[derive(Debug, Default)]
struct Extended {
    name: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
}

impl<R: Read> TarReader<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, position: 0, left: 0, content_left: 0, ended: false }
    }

    /// The next member that is of interest; `None` behind the last. After an error there is nothing more.
    pub(crate) fn next(&mut self) -> io::Result<Option<Entry>> {
        let next = self.step();
        self.ended |= !matches!(next, Ok(Some(_)));
        next
    }

    fn step(&mut self) -> io::Result<Option<Entry>> {
        if self.ended {
            return Ok(None);
        }
        self.pass_over()?;
        let mut extended = Extended::default();
        loop {
            let mut header = [0; BLOCK];
            if !self.read_block(&mut header)? {
                let reason = "the archive ends without its end mark; it may be cut off";
                self.ended = true;
                return Ok(Some(Entry::Damaged(reason.to_owned())));
            }
            if header.iter().all(|&b| b == 0) {
                return Ok(None);
            }
            let Some(size) = sound(&header) else { return self.find_header().map(Some) };
            match header[156] {
                b'x' | b'L' => {
                    self.begin(size);
                    if size > EXTENDED_BYTES_MAX {
                        let reason =
                            format!("its extended header has {size} bytes, more than {EXTENDED_BYTES_MAX}");
                        let name = lossy(field(&header[..100]));
                        self.pass_over()?;
                        return Ok(Some(Entry::Refused { name, reason }));
                    }
                    let bytes = self.all(size)?;
                    match header[156] {
                        b'L' => extended.name = Some(field(&bytes).to_vec()),
                        _ => pax(&bytes, &mut extended),
                    }
                    self.pass_over()?;
                }
                // A long link target, and what holds for all members: neither is of use here.
                b'K' | b'g' => {
                    self.begin(size);
                    self.pass_over()?;
                }
                b'5' => {
                    self.begin(size);
                    self.pass_over()?;
                    extended = Extended::default();
                }
                kind => {
                    let size = extended.size.unwrap_or(size);
                    self.begin(if matches!(kind, b'1' | b'2') { 0 } else { size });
                    let name = extended.name.take().unwrap_or_else(|| header_name(&header));
                    if kind == 0 && name.ends_with(b"/") {
                        self.pass_over()?;
                        extended = Extended::default();
                        continue;
                    }
                    return Ok(Some(judge(&name, size, kind, extended.sparse)));
                }
            }
        }
    }

    /// The content of the member that [`TarReader::next`] gave, when it has at most `most` bytes.
    pub(crate) fn content(&mut self, most: u64) -> Result<Vec<u8>, ContentError> {
        if self.content_left > most {
            return Err(ContentError::TooLong);
        }
        let size = self.content_left;
        self.all(size).map_err(|error| {
            self.ended = true;
            ContentError::Broken(error)
        })
    }

    /// Makes a member the current one.
    fn begin(&mut self, size: u64) {
        self.content_left = size;
        self.left = size.div_ceil(BLOCK as u64).saturating_mul(BLOCK as u64);
    }

    /// Reads so many bytes of the current member. Memory grows with what is there, not with what was announced.
    fn all(&mut self, size: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(size.min(1 << 20) as usize);
        let read = (&mut self.input).take(size).read_to_end(&mut bytes)? as u64;
        self.position += read;
        self.left -= read.min(self.left);
        self.content_left -= read.min(self.content_left);
        if read < size { Err(cut_off()) } else { Ok(bytes) }
    }

    /// Passes over what is left of the current member.
    fn pass_over(&mut self) -> io::Result<()> {
        let passed = io::copy(&mut (&mut self.input).take(self.left), &mut io::sink())?;
        self.position += passed;
        // Many programs leave out the padding of the last member.
        let content_passed = passed >= self.content_left;
        self.left -= passed;
        self.content_left = 0;
        match self.left {
            0 => Ok(()),
            _ if content_passed => {
                self.left = 0;
                Ok(())
            }
            _ => Err(cut_off()),
        }
    }

    /// Reads a block; `false` when there is nothing left.
    fn read_block(&mut self, block: &mut [u8; BLOCK]) -> io::Result<bool> {
        let mut read = 0;
        while read < BLOCK {
            match self.input.read(&mut block[read..]) {
                Ok(0) if read == 0 => return Ok(false),
                Ok(0) => return Err(cut_off()),
                Ok(n) => read += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.position += BLOCK as u64;
        Ok(true)
    }

    /// Passes over blocks that are no header. What follows begins with the member of the one that is found,
    /// which is passed over too: what stood in front of it may have renamed it.
    fn find_header(&mut self) -> io::Result<Entry> {
        let begins = self.position - BLOCK as u64;
        let mut block = [0; BLOCK];
        loop {
            if !self.read_block(&mut block)? {
                self.ended = true;
                let reason = format!("no tar header at byte {begins}, and none behind it; the rest is lost");
                return Ok(Entry::Damaged(reason));
            }
            if block[257..262] == *b"ustar"
                && let Some(size) = sound(&block)
            {
                self.begin(if matches!(block[156], b'1' | b'2') { 0 } else { size });
                let end = self.position;
                let reason = format!(
                    "no tar header at byte {begins}; what is there is lost, up to the member at byte {end}"
                );
                return Ok(Entry::Damaged(reason));
            }
        }
    }
}

fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the archive is cut off")
}

/// The size in a header whose checksum is right.
fn sound(header: &[u8; BLOCK]) -> Option<u64> {
    let stated = number(&header[148..156])?;
    let sum: u64 = header
        .iter()
        .enumerate()
        .map(|(n, &b)| u64::from(if (148..156).contains(&n) { b' ' } else { b }))
        .sum();
    (stated == sum).then(|| number(&header[124..136])).flatten()
}

/// A number in octal digits, or in binary where the first bit says so.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let (high, low) = field.split_at(field.len() - 8);
        // Negative, beyond 64 bits, or a checksum, which is never written so.
        if high.first() != Some(&0x80) || high[1..].iter().any(|&b| b != 0) {
            return None;
        }
        return Some(low.iter().fold(0, |value, &b| value << 8 | u64::from(b)));
    }
    let digits = field.iter().skip_while(|&&b| b == b' ').take_while(|&&b| b != 0 && b != b' ');
    digits.copied().try_fold(0u64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8).map(|value| value + u64::from(digit - b'0')),
        _ => None,
    })
}

/// A field up to its NUL.
fn field(bytes: &[u8]) -> &[u8] {
    bytes.split(|&b| b == 0).next().unwrap_or(bytes)
}

fn header_name(header: &[u8; BLOCK]) -> Vec<u8> {
    let name = field(&header[..100]);
    let prefix = field(&header[345..500]);
    // GNU keeps times where ustar keeps the prefix.
    if header[257..263] == *b"ustar\0" && !prefix.is_empty() {
        return [prefix, b"/", name].concat();
    }
    name.to_vec()
}

/// Reads `length key=value\n` records.
fn pax(mut bytes: &[u8], extended: &mut Extended) {
    while let Some(space) = bytes.iter().position(|&b| b == b' ') {
        let length = str::from_utf8(&bytes[..space]).ok().and_then(|digits| digits.parse::<usize>().ok());
        let Some(record) = length.and_then(|length| bytes.get(space + 1..length)) else { return };
        bytes = &bytes[space + 1 + record.len()..];
        let record = record.strip_suffix(b"\n").unwrap_or(record);
        let Some(equals) = record.iter().position(|&b| b == b'=') else { continue };
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        match key {
            b"path" => extended.name = Some(value.to_vec()),
            b"size" => extended.size = str::from_utf8(value).ok().and_then(|digits| digits.parse().ok()),
            _ => extended.sparse |= key.starts_with(b"GNU.sparse."),
        }
    }
}

/// Whether a member is taken.
fn judge(name: &[u8], size: u64, kind: u8, sparse: bool) -> Entry {
    let what = match kind {
        b'0' | 0 | b'7' if !sparse => None,
        b'0' | 0 | b'7' | b'S' => Some("a sparse file"),
        b'1' => Some("a hard link"),
        b'2' => Some("a symbolic link"),
        b'3' | b'4' => Some("a device"),
        b'6' => Some("a pipe"),
        _ => Some("of a kind that is not known"),
    };
    let refused = |reason: String| Entry::Refused { name: lossy(name), reason };
    if let Some(what) = what {
        return refused(format!("it is {what}; pack regular files only"));
    }
    let Ok(text) = str::from_utf8(name) else {
        return refused("its name is not UTF-8; rename the file".to_owned());
    };
    let text = text.strip_prefix("./").unwrap_or(text);
    if text.starts_with('/') || text.starts_with('\\') || text.as_bytes().get(1) == Some(&b':') {
        return refused("its name is an absolute path; pack it with a relative one".to_owned());
    }
    if text.split(['/', '\\']).any(|part| part == "..") {
        return refused("its name leads out of the archive by '..'; pack it under its own name".to_owned());
    }
    if text.is_empty() {
        return refused("it has no name; pack it under one".to_owned());
    }
    Entry::File { name: text.to_owned(), size }
}

fn lossy(name: &[u8]) -> String {
    String::from_utf8_lossy(&name[..name.len().min(300)]).into_owned()
}
