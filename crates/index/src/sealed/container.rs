//! Files of sections: written once, checked by checksum, read in place.
//!
//! Owns: the layout of a file on disk and its damage. Deliberately absent: what the sections hold.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | magic |
//! | 4 | version, u32 |
//! | 4 | number of sections, u32 |
//! | 128 | 16 numbers of the writer's, u64 |
//! | 384 | 16 sections: start u64, bytes u64, CRC-32 u32, 0 u32 |
//! | to 4092 | 0 |
//! | 4 | CRC-32 of all of the above |
//!
//! Integers are little-endian. Sections follow, each from a multiple of 4096 bytes and filled up with
//! zeros to the next, which its checksum covers. The file ends with the last one.

use std::fs::File;
use std::io::{BufWriter, ErrorKind, Seek, SeekFrom, Write};
use std::marker::PhantomData;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytemuck::Pod;
use crc32fast::Hasher;
use memmap2::Mmap;
#[cfg(unix)]
use memmap2::UncheckedAdvice;
use rayon::prelude::*;

use crate::IndexError;

const PAGE: usize = 4096;
const VERSION: u32 = 1;
/// Numbers that a writer may keep in the header.
pub(crate) const FIELDS: usize = 16;
const SECTIONS_MAX: usize = 16;
/// Bytes that one task checks.
const CHECK_TASK: usize = 4 << 20;

const _: () = assert!(cfg!(target_endian = "little"), "files are read in place, which needs little-endian");

#[derive(Debug, Clone, Copy)]
struct Place {
    start: usize,
    bytes: usize,
    crc: u32,
}

/// A file being written.
pub(crate) struct ContainerWriter {
    out: BufWriter<File>,
    path: PathBuf,
    magic: [u8; 8],
    at: usize,
    places: Vec<Place>,
}

impl ContainerWriter {
    /// Creates the file, or empties it.
    pub(crate) fn create(path: &Path, magic: [u8; 8]) -> Result<Self, IndexError> {
        let file = File::options().create(true).truncate(true).read(true).write(true).open(path);
        let file = file.map_err(|e| IndexError::io("create", path, &e))?;
        let mut writer = Self {
            out: BufWriter::with_capacity(1 << 20, file),
            path: path.to_owned(),
            magic,
            at: 0,
            places: Vec::new(),
        };
        writer.put(&[0; PAGE])?;
        Ok(writer)
    }

    /// Writes a section.
    pub(crate) fn section<T: Pod>(&mut self, values: &[T]) -> Result<(), IndexError> {
        self.section_from([values])
    }

    /// Writes a section piece by piece.
    pub(crate) fn section_from<'a, T: Pod>(
        &mut self,
        pieces: impl IntoIterator<Item = &'a [T]>,
    ) -> Result<(), IndexError> {
        assert!(self.places.len() < SECTIONS_MAX, "a file has few sections");
        let start = self.at;
        let mut crc = Hasher::new();
        for piece in pieces {
            let bytes: &[u8] = bytemuck::cast_slice(piece);
            crc.update(bytes);
            self.put(bytes)?;
        }
        let bytes = self.at - start;
        let padding = &[0u8; PAGE][..self.at.next_multiple_of(PAGE) - self.at];
        crc.update(padding);
        self.put(padding)?;
        self.places.push(Place { start, bytes, crc: crc.finalize() });
        Ok(())
    }

    /// Writes the header and makes all of it durable.
    pub(crate) fn finish(mut self, fields: [u64; FIELDS]) -> Result<(), IndexError> {
        let mut header = Vec::with_capacity(PAGE);
        header.extend(self.magic);
        header.extend(VERSION.to_le_bytes());
        header.extend((self.places.len() as u32).to_le_bytes());
        header.extend(fields.iter().flat_map(|f| f.to_le_bytes()));
        for place in &self.places {
            header.extend((place.start as u64).to_le_bytes());
            header.extend((place.bytes as u64).to_le_bytes());
            header.extend(place.crc.to_le_bytes());
            header.extend([0; 4]);
        }
        header.resize(PAGE - 4, 0);
        header.extend(crc32fast::hash(&header).to_le_bytes());
        let path = self.path.clone();
        let failed = |e: &std::io::Error| IndexError::io("write", &path, e);
        self.out.seek(SeekFrom::Start(0)).map_err(|e| failed(&e))?;
        self.put(&header)?;
        self.out.flush().map_err(|e| failed(&e))?;
        self.out.get_ref().sync_all().map_err(|e| failed(&e))
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), IndexError> {
        self.at += bytes.len();
        self.out.write_all(bytes).map_err(|e| IndexError::io("write", &self.path, &e))
    }
}

/// A file that has been opened.
#[derive(Debug)]
pub(crate) struct Container {
    map: Arc<Mmap>,
    path: PathBuf,
    fields: [u64; FIELDS],
    places: Vec<Place>,
}

impl Container {
    /// Opens a file and checks its header and every section but the one of number `unchecked`.
    pub(crate) fn open(path: &Path, magic: [u8; 8], unchecked: Option<usize>) -> Result<Self, IndexError> {
        let file = File::open(path).map_err(|e| match e.kind() {
            // It was written before anything named it.
            ErrorKind::NotFound => IndexError::damaged(path, "it is missing"),
            _ => IndexError::io("open", path, &e),
        })?;
        // SAFETY: the files of an index are written once, under a name that is not in use, and the
        // directory is locked against other processes.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| IndexError::io("map", path, &e))?;
        let damaged = |what: &str| IndexError::damaged(path, what);
        let header = map.get(..PAGE).ok_or_else(|| damaged("it has no header"))?;
        let (body, crc) = header.split_at(PAGE - 4);
        if crc != crc32fast::hash(body).to_le_bytes() {
            return Err(damaged("the header fails its checksum"));
        }
        if body[..8] != magic || body[8..12] != VERSION.to_le_bytes() {
            return Err(damaged("it is not a file of this kind and version"));
        }
        let number = |at: usize| u64::from_le_bytes(body[at..][..8].try_into().expect("eight bytes"));
        let short = |at: usize| u32::from_le_bytes(body[at..][..4].try_into().expect("four bytes"));
        let fields = std::array::from_fn(|i| number(16 + 8 * i));
        let count = (short(12) as usize).min(SECTIONS_MAX);
        let places: Vec<Place> = (0..count)
            .map(|i| 16 + 8 * FIELDS + 24 * i)
            .map(|at| Place {
                start: number(at) as usize,
                bytes: number(at + 8) as usize,
                crc: short(at + 16),
            })
            .collect();
        let end = places.last().map_or(PAGE, |p| (p.start + p.bytes).next_multiple_of(PAGE));
        if map.len() != end {
            return Err(damaged(&format!("it has {} bytes instead of {end}", map.len())));
        }
        for (i, place) in places.iter().enumerate().filter(|(i, _)| Some(*i) != unchecked) {
            if checksum(&map[place.start..(place.start + place.bytes).next_multiple_of(PAGE)]) != place.crc {
                return Err(damaged(&format!("section {i} fails its checksum")));
            }
        }
        // What fills up the section that is not checked here belongs to none of its values.
        if let Some(place) = unchecked.and_then(|i| places.get(i)) {
            let end = place.start + place.bytes;
            if map[end..end.next_multiple_of(PAGE)].iter().any(|&byte| byte != 0) {
                return Err(damaged("it has bytes between its sections"));
            }
        }
        Ok(Self { map: Arc::new(map), path: path.to_owned(), fields, places })
    }

    pub(crate) fn fields(&self) -> &[u64; FIELDS] {
        &self.fields
    }

    /// A section as values of one kind; it must hold exactly `len` of them.
    pub(crate) fn section<T: Pod>(&self, number: usize, len: usize) -> Result<Section<T>, IndexError> {
        let place = self.places.get(number).copied();
        let place = place.filter(|p| Some(p.bytes) == len.checked_mul(size_of::<T>()));
        let place = place.ok_or_else(|| {
            IndexError::damaged(&self.path, &format!("section {number} has not the expected {len} entries"))
        })?;
        Ok(Section::Mapped { map: Arc::clone(&self.map), start: place.start, len, kind: PhantomData })
    }
}

/// Values in memory, or in a file that is read in place.
#[derive(Debug)]
pub(crate) enum Section<T> {
    /// In memory.
    Owned(Vec<T>),
    /// In a file.
    Mapped { map: Arc<Mmap>, start: usize, len: usize, kind: PhantomData<T> },
}

impl<T: Pod> Deref for Section<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Self::Owned(values) => values,
            Self::Mapped { map, start, len, .. } => {
                bytemuck::cast_slice(&map[*start..*start + len * size_of::<T>()])
            }
        }
    }
}

impl<T> Section<T> {
    /// Lets go of what was read of a mapped section; it is read again when it is needed.
    pub(crate) fn release(&self) {
        #[cfg(unix)]
        if let Self::Mapped { map, start, len, .. } = self {
            // SAFETY: the map is of a file and for reading only, so what is let go comes back the same.
            let released = unsafe {
                map.unchecked_advise_range(UncheckedAdvice::DontNeed, *start, len * size_of::<T>())
            };
            // Only advice: that it was not taken harms nothing.
            drop(released);
        }
    }

    /// Bytes that have to be in memory for it.
    pub(crate) fn is_mapped(&self) -> bool {
        matches!(self, Self::Mapped { .. })
    }
}

/// The CRC-32 of bytes, on all cores.
fn checksum(bytes: &[u8]) -> u32 {
    let parts: Vec<Hasher> = bytes
        .par_chunks(CHECK_TASK)
        .map(|part| {
            let mut crc = Hasher::new();
            crc.update(part);
            crc
        })
        .collect();
    let mut whole = Hasher::new();
    for part in &parts {
        whole.combine(part);
    }
    whole.finalize()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const MAGIC: [u8; 8] = *b"DIPTEST\0";

    fn written(path: &Path) {
        let mut writer = ContainerWriter::create(path, MAGIC).unwrap();
        writer.section(&[1u32, 2, 3]).unwrap();
        writer.section_from([[4u8; 5000].as_slice(), &[5; 10]]).unwrap();
        writer.section::<u64>(&[]).unwrap();
        let mut fields = [0; FIELDS];
        fields[3] = 42;
        writer.finish(fields).unwrap();
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        written(&path);
        let file = Container::open(&path, MAGIC, None).unwrap();
        assert_eq!(file.fields()[3], 42);
        assert_eq!(&*file.section::<u32>(0, 3).unwrap(), [1, 2, 3]);
        assert_eq!(file.section::<u8>(1, 5010).unwrap()[4999..5001], [4, 5]);
        assert!(file.section::<u64>(2, 0).unwrap().is_empty());
        assert!(file.section::<u32>(0, 4).is_err(), "not as many as there are");
        assert!(file.section::<u32>(3, 0).is_err(), "no such section");
        assert!(Container::open(&path, *b"ANOTHER\0", None).is_err());
    }

    #[test]
    fn damage_to_any_byte_is_noticed_and_so_is_a_file_cut_short() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        written(&path);
        let whole = std::fs::read(&path).unwrap();
        for at in (0..whole.len()).step_by(7).chain(0..600).chain(4000..4200) {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << (at % 8);
            std::fs::write(&path, &damaged).unwrap();
            let error = Container::open(&path, MAGIC, None).unwrap_err();
            assert!(matches!(error, IndexError::Damaged { .. }), "byte {at}: {error}");
        }
        for len in [0, 1, 4095, 4096, 8192, whole.len() - 1] {
            std::fs::write(&path, &whole[..len]).unwrap();
            assert!(Container::open(&path, MAGIC, None).is_err(), "cut to {len} bytes");
        }
    }
}
