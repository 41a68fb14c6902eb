//! The points of a segment: ids, codes and vectors. They never change.
//!
//! Owns: which points there are, their distinct vectors, and how both lie on disk. Deliberately absent:
//! links between them (they change without the points), and which points are still alive.
//!
//! Points with bit-equal vectors share a slot, so that the many copies of one standard sentence cannot
//! fill each other's neighbour lists. Exact vectors are read only for the few points that a search
//! ends with; they stay in their file, and are checked, block by block, when first touched.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use diptych_core::PointId;
use rayon::prelude::*;

use super::code::{CodeQuery, Quantizer, stride};
use super::container::{Container, ContainerWriter, FIELDS, Section};
use super::kernel::{Planes, divide};
use crate::IndexError;

const MAGIC: [u8; 8] = *b"DIPPTS\0\x01";
/// The section of the vectors, which is checked block by block.
const VECTORS: usize = 0;
/// Bytes of vectors under one checksum.
const CHECK_BLOCK: usize = 64 << 10;

/// Points and their distinct vectors, `slots` of them.
#[derive(Debug)]
pub(crate) struct Points {
    dim: usize,
    quantizer: Quantizer,
    /// Row-major, one row per slot.
    vectors: Section<f32>,
    /// One per [`CHECK_BLOCK`] bytes of `vectors`; empty in memory.
    checksums: Section<u32>,
    /// Which blocks have been checked, one bit each.
    checked: Box<[AtomicU64]>,
    path: std::path::PathBuf,
    upper: Section<u8>,
    lower: Section<u8>,
    /// Grouped by slot, in id order within one.
    ids: Section<u64>,
    /// Where the ids of each slot start, and their number.
    starts: Section<u32>,
    /// Positions in `ids`, in id order.
    by_id: Section<u32>,
}

/// Points on their way into a segment: distinct vectors in order of arrival.
#[derive(Debug)]
pub(crate) struct Staged {
    dim: usize,
    vectors: Vec<f32>,
    ids: Vec<(u32, u64)>,
    slots: HashMap<[u8; 16], u32>,
}

impl Staged {
    pub(crate) fn new(dim: usize) -> Self {
        Self { dim, vectors: Vec::new(), ids: Vec::new(), slots: HashMap::new() }
    }

    /// Adds a point; each id is added once.
    pub(crate) fn push(&mut self, id: PointId, vector: &[f32]) {
        let slot = self.slot(vector);
        self.ids.push((slot, id.0));
    }

    /// The slot of a vector; bit-equal ones share it.
    pub(crate) fn slot(&mut self, vector: &[f32]) -> u32 {
        let hash = blake3::hash(bytemuck::cast_slice(vector));
        let key = hash.as_bytes().first_chunk().copied().expect("a digest has 32 bytes");
        let next = self.slots.len() as u32;
        let slot = *self.slots.entry(key).or_insert(next);
        if slot == next {
            self.vectors.extend_from_slice(vector);
        }
        slot
    }

    /// Distinct vectors so far.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn vector(&self, slot: usize) -> &[f32] {
        &self.vectors[slot * self.dim..][..self.dim]
    }

    /// Whether a quantiser codes these vectors about as well as those it was made for.
    pub(crate) fn suit(&self, quantizer: &Quantizer) -> bool {
        quantizer.suits(self.len(), |i| self.vector(i))
    }

    /// Codes the vectors. Returns the points and their codes, not divided into planes.
    pub(crate) fn finish(self, quantizer: Option<Quantizer>) -> (Points, Vec<u8>) {
        let (dim, n) = (self.dim, self.len());
        let quantizer = quantizer.unwrap_or_else(|| Quantizer::train(dim, n, |i| self.vector(i)));
        let stride = quantizer.stride();
        let mut codes = vec![0; n * stride];
        let (mut upper, mut lower) = (vec![0; n * stride / 2], vec![0; n * stride / 2]);
        codes
            .par_chunks_exact_mut(stride)
            .zip(upper.par_chunks_exact_mut(stride / 2))
            .zip(lower.par_chunks_exact_mut(stride / 2))
            .zip(self.vectors.par_chunks_exact(dim))
            .for_each(|(((code, upper), lower), vector)| {
                quantizer.encode(vector, code);
                divide(code, upper, lower);
            });
        let mut ids = self.ids;
        ids.par_sort_unstable();
        let mut starts = vec![0u32; n + 1];
        for &(slot, _) in &ids {
            starts[slot as usize + 1] += 1;
        }
        for slot in 0..n {
            starts[slot + 1] += starts[slot];
        }
        let ids: Vec<u64> = ids.into_iter().map(|(_, id)| id).collect();
        let mut by_id: Vec<u32> = (0..ids.len() as u32).collect();
        by_id.par_sort_unstable_by_key(|&at| ids[at as usize]);
        let points = Points {
            dim,
            quantizer,
            vectors: Section::Owned(self.vectors),
            checksums: Section::Owned(Vec::new()),
            checked: Box::default(),
            path: std::path::PathBuf::new(),
            upper: Section::Owned(upper),
            lower: Section::Owned(lower),
            ids: Section::Owned(ids),
            starts: Section::Owned(starts),
            by_id: Section::Owned(by_id),
        };
        (points, codes)
    }
}

impl Points {
    /// Distinct vectors.
    pub(crate) fn slots(&self) -> usize {
        self.starts.len() - 1
    }

    /// Points.
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(crate) fn quantizer(&self) -> &Quantizer {
        &self.quantizer
    }

    pub(crate) fn query(&self, vector: &[f32]) -> CodeQuery {
        self.quantizer.query(vector)
    }

    pub(crate) fn planes(&self) -> Planes<'_> {
        Planes { upper: &self.upper, lower: &self.lower, stride: stride(self.dim) / 2 }
    }

    /// Positions and ids of the points of a slot, in id order.
    pub(crate) fn ids_of(&self, slot: u32) -> impl Iterator<Item = (usize, PointId)> + '_ {
        let range = self.starts[slot as usize] as usize..self.starts[slot as usize + 1] as usize;
        range.clone().zip(self.ids[range].iter().map(|&id| PointId(id)))
    }

    /// Positions and ids of all points, in id order.
    pub(crate) fn in_id_order(&self) -> impl Iterator<Item = (usize, PointId)> + '_ {
        self.by_id.iter().map(|&at| (at as usize, PointId(self.ids[at as usize])))
    }

    /// The position of a point.
    pub(crate) fn position(&self, id: PointId) -> Option<usize> {
        let found = self.by_id.binary_search_by_key(&id.0, |&at| self.ids[at as usize]);
        found.ok().map(|i| self.by_id[i] as usize)
    }

    /// The slot of the point at a position.
    pub(crate) fn slot_at(&self, position: usize) -> u32 {
        self.starts.partition_point(|&start| start as usize <= position) as u32 - 1
    }

    /// The exact vector of a slot.
    ///
    /// # Errors
    /// [`IndexError::Damaged`] when its block of the file fails its checksum.
    pub(crate) fn vector(&self, slot: u32) -> Result<&[f32], IndexError> {
        let from = slot as usize * self.dim;
        if self.vectors.is_mapped() {
            let bytes = size_of::<f32>() * from..size_of::<f32>() * (from + self.dim);
            for block in bytes.start / CHECK_BLOCK..=(bytes.end - 1) / CHECK_BLOCK {
                self.check_block(block)?;
            }
        }
        Ok(&self.vectors[from..][..self.dim])
    }

    fn check_block(&self, block: usize) -> Result<(), IndexError> {
        let (word, bit) = (&self.checked[block / 64], 1 << (block % 64));
        if word.load(Ordering::Relaxed) & bit != 0 {
            return Ok(());
        }
        let bytes: &[u8] = bytemuck::cast_slice(&self.vectors);
        let bytes = &bytes[block * CHECK_BLOCK..bytes.len().min((block + 1) * CHECK_BLOCK)];
        if crc32fast::hash(bytes) != self.checksums[block] {
            return Err(IndexError::damaged(
                &self.path,
                &format!("block {block} of the vectors fails its checksum"),
            ));
        }
        word.fetch_or(bit, Ordering::Relaxed);
        Ok(())
    }

    /// Lets go of the exact vectors that were read, after all of them were: searches need few.
    pub(crate) fn release_vectors(&self) {
        self.vectors.release();
    }

    /// Checks all vectors.
    pub(crate) fn check_vectors(&self) -> Result<(), IndexError> {
        (0..self.checksums.len()).into_par_iter().try_for_each(|block| self.check_block(block))
    }

    /// Writes the points to a new file.
    pub(crate) fn write(&self, path: &Path) -> Result<(), IndexError> {
        let mut file = ContainerWriter::create(path, MAGIC)?;
        file.section(&self.vectors)?;
        let bytes: &[u8] = bytemuck::cast_slice(&self.vectors);
        let checksums: Vec<u32> = bytes.par_chunks(CHECK_BLOCK).map(crc32fast::hash).collect();
        file.section(&checksums)?;
        file.section(self.quantizer.mean())?;
        file.section(&self.upper)?;
        file.section(&self.lower)?;
        file.section(&self.ids)?;
        file.section(&self.starts)?;
        file.section(&self.by_id)?;
        let mut fields = [0; FIELDS];
        fields[0] = self.dim as u64;
        fields[1] = self.slots() as u64;
        fields[2] = self.len() as u64;
        fields[3] = u64::from(self.quantizer.step().to_bits());
        file.finish(fields)
    }

    /// Opens a file that [`Points::write`] made.
    ///
    /// # Errors
    /// [`IndexError::Damaged`]: everything but the vectors is checked here.
    pub(crate) fn open(path: &Path) -> Result<Self, IndexError> {
        let file = Container::open(path, MAGIC, Some(VECTORS))?;
        let number = |i: usize| file.fields()[i] as usize;
        let (dim, slots, len) = (number(0), number(1), number(2));
        let plane = slots * stride(dim) / 2;
        let blocks = (slots * dim * size_of::<f32>()).div_ceil(CHECK_BLOCK);
        let mean = file.section::<f32>(2, dim)?.to_vec();
        Ok(Self {
            dim,
            quantizer: Quantizer::from_parts(mean, f32::from_bits(file.fields()[3] as u32)),
            vectors: file.section(VECTORS, slots * dim)?,
            checksums: file.section(1, blocks)?,
            checked: (0..blocks.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            path: path.to_owned(),
            upper: file.section(3, plane)?,
            lower: file.section(4, plane)?,
            ids: file.section(5, len)?,
            starts: file.section(6, slots + 1)?,
            by_id: file.section(7, len)?,
        })
    }

    /// Bytes of memory that a search needs at hand, and bytes of vectors that it reads a few rows of.
    pub(crate) fn bytes(&self) -> (usize, usize) {
        let hot = self.upper.len()
            + self.lower.len()
            + 8 * self.ids.len()
            + 4 * (self.starts.len() + self.by_id.len());
        (hot, size_of::<f32>() * self.vectors.len())
    }
}
