//! The links of a segment, as a search reads them.
//!
//! Owns: rows of links in memory or in a file, and the entry points. Deliberately absent: changing them
//! (see `graph`), and what they link.

use std::path::Path;

use super::container::{Container, ContainerWriter, FIELDS, Section};
use super::walk::Links;
use crate::IndexError;

/// An empty place in a row of links; it ends the row.
pub(crate) const NONE: u32 = u32::MAX;

const MAGIC: [u8; 8] = *b"DIPLNK\0\x01";

/// The links of all slots.
#[derive(Debug)]
pub(crate) struct LinkTable {
    /// Slots that walks start from.
    pub(crate) entries: Section<u32>,
    /// Slots that no walk finds, or whose codes are too far off: every search compares them exactly.
    pub(crate) strays: Section<u32>,
    /// `width` per slot; a row ends at [`NONE`].
    pub(crate) links: Section<u32>,
    /// As many; see `Rows`.
    pub(crate) hardness: Section<u8>,
    pub(crate) width: usize,
}

impl LinkTable {
    /// Links of all kinds, and those that were added for queries or points.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let kinds = self.links.iter().zip(self.hardness.iter()).filter(|(link, _)| **link != NONE);
        kinds.fold((0, 0), |(all, hard), (_, &kind)| (all + 1, hard + usize::from(kind > 0)))
    }

    /// For reading while the table stays as it is.
    pub(crate) fn view(&self) -> LinkView<'_> {
        LinkView { links: &self.links, width: self.width }
    }

    /// Bytes of memory that a search needs at hand.
    pub(crate) fn bytes(&self) -> usize {
        4 * (self.links.len() + self.entries.len() + self.strays.len())
    }

    /// Writes the links to a new file.
    pub(crate) fn write(&self, path: &Path) -> Result<(), IndexError> {
        let mut file = ContainerWriter::create(path, MAGIC)?;
        file.section(&self.entries)?;
        file.section(&self.links)?;
        file.section(&self.hardness)?;
        file.section(&self.strays)?;
        let mut fields = [0; FIELDS];
        fields[0] = self.entries.len() as u64;
        fields[1] = self.links.len() as u64;
        fields[2] = self.width as u64;
        fields[3] = self.strays.len() as u64;
        file.finish(fields)
    }

    /// Opens a file that [`LinkTable::write`] made, for so many slots.
    pub(crate) fn open(path: &Path, slots: usize) -> Result<Self, IndexError> {
        let file = Container::open(path, MAGIC, None)?;
        let [entries, links, width, strays] = [0, 1, 2, 3].map(|i| file.fields()[i] as usize);
        if Some(links) != slots.checked_mul(width) {
            return Err(IndexError::damaged(path, "it is of another number of slots than its points"));
        }
        Ok(Self {
            entries: file.section(0, entries)?,
            links: file.section(1, links)?,
            hardness: file.section(2, links)?,
            strays: file.section(3, strays)?,
            width,
        })
    }
}

/// Borrowed links.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LinkView<'a> {
    links: &'a [u32],
    width: usize,
}

impl Links for LinkView<'_> {
    #[inline]
    fn for_each(&self, slot: u32, mut take: impl FnMut(u32)) {
        for &link in &self.links[slot as usize * self.width..][..self.width] {
            if link == NONE {
                return;
            }
            take(link);
        }
    }

    #[inline]
    fn prefetch(&self, slot: u32) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let row = self.links.as_ptr().wrapping_add(slot as usize * self.width).cast::<i8>();
            for line in 0..(4 * self.width).div_ceil(64) {
                // SAFETY: a prefetch of any address is harmless, and SSE is part of x86-64.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(64 * line)) };
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = slot;
    }
}
