//! Huffman codes and the bits of a JPEG scan (ITU-T T.81 annexes C and F).
//!
//! Owns: reading bits without the bytes stuffed between them, up to the next marker. Past the end come
//! zeros, counted, so that a truncated stream ends instead of going on for ever.

use super::DicomError;

const LOOKUP_BITS: u32 = 10;

/// A table of codes of at most 16 bits.
pub(super) struct Huffman {
    /// By the next [`LOOKUP_BITS`] bits: length of the code, zero for a longer one, and its symbol.
    lookup: Vec<(u8, u8)>,
    /// By length: one more than the largest code of it, left-aligned to 16 bits.
    limits: [u32; 17],
    /// By length: what a code differs by from the index of its symbol.
    deltas: [i32; 17],
    symbols: Vec<u8>,
}

impl Huffman {
    /// The table with so many codes of each length from 1 to 16, and their symbols.
    pub(super) fn new(counts: &[u8; 16], symbols: &[u8]) -> Result<Self, DicomError> {
        let mut lookup = vec![(0, 0); 1 << LOOKUP_BITS];
        let (mut limits, mut deltas) = ([0; 17], [0; 17]);
        let (mut code, mut index) = (0_u32, 0_usize);
        for length in 1..=16_u32 {
            let count = usize::from(counts[length as usize - 1]);
            deltas[length as usize] = index as i32 - code as i32;
            for symbol in symbols.get(index..index + count).ok_or_else(|| damaged("a code has no symbol"))? {
                if code >> length != 0 {
                    return Err(damaged("a Huffman table has more codes than fit"));
                }
                if length <= LOOKUP_BITS {
                    let shift = LOOKUP_BITS - length;
                    let first = (code << shift) as usize;
                    lookup[first..first + (1 << shift)].fill((length as u8, *symbol));
                }
                code += 1;
            }
            index += count;
            limits[length as usize] = code << (16 - length);
            code <<= 1;
        }
        Ok(Self { lookup, limits, deltas, symbols: symbols[..index].to_vec() })
    }

    /// The next symbol.
    #[inline(always)]
    pub(super) fn next(&self, bits: &mut Bits<'_>) -> Result<u8, DicomError> {
        bits.refill();
        let (length, symbol) = self.lookup[bits.peek(LOOKUP_BITS) as usize];
        if length != 0 {
            bits.skip(u32::from(length));
            return Ok(symbol);
        }
        self.next_long(bits)
    }

    #[cold]
    fn next_long(&self, bits: &mut Bits<'_>) -> Result<u8, DicomError> {
        let ahead = bits.peek(16);
        let found = (LOOKUP_BITS + 1..=16).find(|&length| ahead < self.limits[length as usize]);
        let length = found.ok_or_else(|| damaged("a code is in no Huffman table"))?;
        let index = (ahead >> (16 - length)) as i32 + self.deltas[length as usize];
        bits.skip(length);
        let symbol = usize::try_from(index).ok().and_then(|index| self.symbols.get(index));
        symbol.copied().ok_or_else(|| damaged("a code is in no Huffman table"))
    }
}

/// The bits of a scan.
pub(super) struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    /// The next bits, left-aligned.
    buffer: u64,
    /// Bits in the buffer.
    count: u32,
    /// Bytes of zeros that were made up behind the end.
    past_end: usize,
}

impl<'a> Bits<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0, buffer: 0, count: 0, past_end: 0 }
    }

    /// Sees to at least 56 bits in the buffer.
    #[inline(always)]
    pub(super) fn refill(&mut self) {
        if self.count >= 32 {
            return;
        }
        if let Some(word) = self.data.get(self.at..self.at + 8) {
            let word = u64::from_be_bytes(word.try_into().expect("eight bytes"));
            let inverse = !word;
            let has_ff = inverse.wrapping_sub(0x0101_0101_0101_0101) & word & 0x8080_8080_8080_8080 != 0;
            if !has_ff {
                self.buffer |= word >> self.count;
                self.at += (63 - self.count as usize) >> 3;
                self.count |= 56;
                return;
            }
        }
        self.refill_slowly();
    }

    #[cold]
    fn refill_slowly(&mut self) {
        // What lies below the counted bits may be left over from a whole word.
        self.buffer = if self.count == 0 { 0 } else { self.buffer & (u64::MAX << (64 - self.count)) };
        while self.count <= 56 {
            let byte = match self.data.get(self.at..) {
                Some([0xFF, 0, ..]) => {
                    self.at += 2;
                    0xFF
                }
                Some([byte, ..]) if *byte != 0xFF => {
                    self.at += 1;
                    *byte
                }
                _ => {
                    self.past_end += 1;
                    0
                }
            };
            self.buffer |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    /// The next bits, at most 32, without taking them.
    #[inline(always)]
    pub(super) fn peek(&self, bits: u32) -> u32 {
        (self.buffer >> 32 >> (32 - bits)) as u32
    }

    #[inline(always)]
    pub(super) fn skip(&mut self, bits: u32) {
        self.buffer <<= bits;
        self.count = self.count.saturating_sub(bits);
    }

    /// A number of so many bits in which a leading zero means negative (T.81 F.2.2.1, EXTEND).
    #[inline(always)]
    pub(super) fn signed(&mut self, bits: u32) -> i32 {
        if bits == 0 {
            return 0;
        }
        self.refill();
        let value = self.peek(bits) as i32;
        self.skip(bits);
        if value < 1 << (bits - 1) { value - (1 << bits) + 1 } else { value }
    }

    /// An error once more was read than there was.
    pub(super) fn check(&self) -> Result<(), DicomError> {
        // The buffer runs ahead of what is used by at most eight bytes.
        if self.past_end > 8 { Err(damaged("the scan ends too early")) } else { Ok(()) }
    }

    /// Goes behind the next restart marker.
    pub(super) fn restart(&mut self) -> Result<(), DicomError> {
        (self.buffer, self.count, self.past_end) = (0, 0, 0);
        let rest = &self.data[self.at.min(self.data.len())..];
        // The buffer may have run ahead by nothing beyond the marker, as it stops there.
        let marker = rest.windows(2).position(|pair| pair[0] == 0xFF && (0xD0..=0xD7).contains(&pair[1]));
        self.at += marker.ok_or_else(|| damaged("a restart marker is missing"))? + 2;
        Ok(())
    }
}

fn damaged(reason: &str) -> DicomError {
    DicomError::codec("JPEG", reason)
}
