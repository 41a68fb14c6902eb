//! The headers of a JPEG file (ITU-T T.81, annex B).
//!
//! Owns: tables and frame description of baseline files with one scan. Does not own the scan's data.

use super::bits::Table;

/// What a baseline file says before its scan.
pub(super) struct Frame {
    pub(super) width: usize,
    pub(super) height: usize,
    /// One for grey, three for colour in YCbCr.
    pub(super) components: Vec<Component>,
    /// Units between restart markers; 0 for none.
    pub(super) restart: usize,
    /// Huffman tables for first and other coefficients, by number.
    pub(super) dc: [Option<Table>; 4],
    pub(super) ac: [Option<Table>; 4],
}

/// One plane.
pub(super) struct Component {
    id: u8,
    /// Blocks per unit, across and down.
    pub(super) h: usize,
    pub(super) v: usize,
    pub(super) quantization: [i32; 64],
    pub(super) dc: usize,
    pub(super) ac: usize,
}

impl Frame {
    /// Reads up to the scan's data, which is returned too. None when the file is not of this kind or
    /// does not have the size `(width, height)`.
    pub(super) fn read(bytes: &[u8], size: (u32, u32)) -> Option<(Self, &[u8])> {
        let mut frame = Self {
            width: size.0 as usize,
            height: size.1 as usize,
            components: Vec::new(),
            restart: 0,
            dc: [const { None }; 4],
            ac: [const { None }; 4],
        };
        let mut quantization = [None; 4];
        let mut selected = Vec::new();
        let mut at = 2;
        loop {
            if *bytes.get(at)? != 0xFF {
                return None;
            }
            let marker = *bytes.get(at + 1)?;
            if marker == 0xFF {
                at += 1;
                continue;
            }
            let length = usize::from(u16::from_be_bytes([*bytes.get(at + 2)?, *bytes.get(at + 3)?]));
            let segment = bytes.get(at + 4..at + 2 + length)?;
            at += 2 + length;
            match marker {
                // Baseline, and extended with 8 bits and no more tables than this reads.
                0xC0 | 0xC1 if frame.components.is_empty() => selected = frame.start(segment)?,
                0xC4 => frame.huffman(segment)?,
                0xDB => read_quantization(segment, &mut quantization)?,
                0xDD => frame.restart = usize::from(u16::from_be_bytes(*segment.first_chunk()?)),
                // Adobe's transform 0: three components are RGB.
                0xEE if segment.starts_with(b"Adobe") && segment.get(11) == Some(&0) => return None,
                0xDA => {
                    for (component, table) in frame.components.iter_mut().zip(selected) {
                        component.quantization = *quantization.get(usize::from(table))?.as_ref()?;
                    }
                    frame.scan(segment)?;
                    return Some((frame, bytes.get(at..)?));
                }
                0xE0..=0xEF | 0xFE => {}
                _ => return None,
            }
        }
    }

    /// The frame header; returns the quantisation table numbers.
    fn start(&mut self, segment: &[u8]) -> Option<Vec<u8>> {
        let header = segment.first_chunk::<6>()?;
        let side = |at: usize| usize::from(u16::from_be_bytes([header[at], header[at + 1]]));
        if header[0] != 8 || (side(3), side(1)) != (self.width, self.height) {
            return None;
        }
        let (entries, rest) = segment[6..].as_chunks::<3>();
        if entries.len() != usize::from(header[5]) || !rest.is_empty() || !matches!(entries.len(), 1 | 3) {
            return None;
        }
        for entry in entries {
            let (h, v) = (usize::from(entry[1] >> 4), usize::from(entry[1] & 15));
            if !matches!(h, 1 | 2 | 4) || !matches!(v, 1 | 2 | 4) {
                return None;
            }
            // A single plane is not divided into units of several blocks.
            let (h, v) = if entries.len() == 1 { (1, 1) } else { (h, v) };
            self.components.push(Component { id: entry[0], h, v, quantization: [0; 64], dc: 0, ac: 0 });
        }
        // Without a word from anyone, these names mean what they say.
        if self.components.iter().map(|c| c.id).eq(*b"RGB") {
            return None;
        }
        Some(entries.iter().map(|entry| entry[2]).collect())
    }

    fn huffman(&mut self, mut segment: &[u8]) -> Option<()> {
        while let Some((head, rest)) = segment.split_first() {
            let counts = rest.first_chunk::<16>()?;
            let total: usize = counts.iter().map(|c| usize::from(*c)).sum();
            let symbols = rest.get(16..16 + total)?;
            let tables = match head >> 4 {
                0 => &mut self.dc,
                1 => &mut self.ac,
                _ => return None,
            };
            *tables.get_mut(usize::from(head & 15))? = Some(Table::new(counts, symbols)?);
            segment = &rest[16 + total..];
        }
        Some(())
    }

    /// The scan header: all components in order, all frequencies, all bits.
    fn scan(&mut self, segment: &[u8]) -> Option<()> {
        let count = usize::from(*segment.first()?);
        if count == 0 || count != self.components.len() || segment.len() != 4 + 2 * count {
            return None;
        }
        let (entries, tail) = segment[1..].split_at(2 * count);
        for (component, entry) in self.components.iter_mut().zip(entries.as_chunks::<2>().0) {
            if component.id != entry[0] {
                return None;
            }
            (component.dc, component.ac) = (usize::from(entry[1] >> 4), usize::from(entry[1] & 15));
        }
        (tail == [0, 63, 0]).then_some(())
    }
}

fn read_quantization(mut segment: &[u8], tables: &mut [Option<[i32; 64]>; 4]) -> Option<()> {
    while let Some((head, rest)) = segment.split_first() {
        let width = match head >> 4 {
            0 => 1,
            1 => 2,
            _ => return None,
        };
        let values = rest.get(..64 * width)?;
        let mut table = [0; 64];
        for (value, bytes) in table.iter_mut().zip(values.chunks_exact(width)) {
            *value = bytes.iter().fold(0, |sum, &b| sum << 8 | i32::from(b));
        }
        *tables.get_mut(usize::from(head & 15))? = Some(table);
        segment = &rest[64 * width..];
    }
    Some(())
}
