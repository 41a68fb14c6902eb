//! The entropy-coded bits of a JPEG scan (ITU-T T.81, annexes C and F).
//!
//! Owns: byte stuffing, Huffman tables, and the coefficients of one block. Does not own the order of
//! blocks or what coefficients mean.

/// Bits that one look-up resolves: most codes together with the value that follows them.
const LOOKUP: u32 = 11;
/// Advance that stands for the end of a block.
const END_OF_BLOCK: u32 = 128;

/// Natural position of each coefficient in zigzag order (figure A.6).
const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7,
    14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39,
    46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// A Huffman table.
pub(super) struct Table {
    /// By the next bits: length of the code and its symbol; length 0 for longer codes.
    symbols: Box<[(u8, u8); 1 << LOOKUP]>,
    /// By the next bits: for a whole code with its value, bits used, zeros before the value, the
    /// value; 0 bits where they do not fit.
    values: Box<[(u8, u8, i16); 1 << LOOKUP]>,
    /// For each length, the first code beyond that length's codes, left-aligned to 16 bits.
    limit: [u32; 17],
    /// For each length, what to add to a code to get its place in `ordered`.
    place: [i32; 17],
    ordered: Vec<u8>,
}

impl Table {
    /// From the number of codes of each length, 1 to 16, and the symbols in order of their codes.
    /// None when more codes are declared than there are.
    pub(super) fn new(counts: &[u8; 16], ordered: &[u8]) -> Option<Self> {
        let mut table = Self {
            symbols: Box::new([(0, 0); 1 << LOOKUP]),
            values: Box::new([(0, 0, 0); 1 << LOOKUP]),
            limit: [0; 17],
            place: [0; 17],
            ordered: ordered.to_vec(),
        };
        let (mut code, mut next) = (0u32, 0usize);
        for length in 1..=16u32 {
            let count = usize::from(counts[length as usize - 1]);
            table.place[length as usize] = next as i32 - code as i32;
            if code as usize + count > 1 << length {
                return None;
            }
            for symbol in ordered.get(next..next + count)? {
                if length <= LOOKUP {
                    let free = LOOKUP - length;
                    let from = (code << free) as usize;
                    table.symbols[from..from + (1 << free)].fill((length as u8, *symbol));
                }
                code += 1;
            }
            next += count;
            table.limit[length as usize] = code << (16 - length);
            code <<= 1;
        }
        table.fill_values();
        Some(table)
    }

    fn fill_values(&mut self) {
        for (bits, value) in self.values.iter_mut().enumerate() {
            let (length, symbol) = self.symbols[bits];
            let (zeros, size) = (symbol >> 4, u32::from(symbol & 15));
            let used = u32::from(length) + size;
            *value = match (length, symbol) {
                (0, _) => (0, 0, 0),
                (_, 0) => (length, END_OF_BLOCK as u8, 0),
                // Sixteen zeros: fifteen, and a coefficient of 0.
                (_, 0xF0) => (length, 15, 0),
                // The other sizes of 0 mean something in progressive files only.
                _ if size == 0 || used > LOOKUP => (0, 0, 0),
                _ => {
                    let extra = (bits as u32 >> (LOOKUP - used)) & ((1 << size) - 1);
                    (used as u8, zeros, extend(extra, size) as i16)
                }
            };
        }
    }
}

/// The signed value of `size` additional bits (figure F.12).
fn extend(bits: u32, size: u32) -> i32 {
    if size == 0 {
        return 0;
    }
    let bits = bits as i32;
    if bits < 1 << (size - 1) { bits - (1 << size) + 1 } else { bits }
}

/// Reads the data of one scan. Beyond its end it gives zeros and remembers that it did.
pub(super) struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    /// The next bits, from the highest down.
    window: u64,
    /// How many of them count.
    filled: u32,
    /// How many of those are made up.
    padding: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0, window: 0, filled: 0, padding: 0 }
    }

    /// At least 48 bits in the window.
    #[inline(always)]
    fn refill(&mut self) {
        if self.filled >= 48 {
            return;
        }
        if let Some(bytes) = self.data.get(self.at..self.at + 8)
            && let Ok(bytes) = <[u8; 8]>::try_from(bytes)
        {
            let next = u64::from_be_bytes(bytes);
            let inverse = !next;
            let has_ff = inverse.wrapping_sub(0x0101_0101_0101_0101) & !inverse & 0x8080_8080_8080_8080;
            if has_ff == 0 {
                // Bits of a byte that fits only partly are put in again with the next refill.
                self.window |= next >> self.filled;
                let whole = (64 - self.filled) / 8;
                self.at += whole as usize;
                self.filled += whole * 8;
                return;
            }
        }
        self.refill_bytes();
    }

    #[cold]
    #[inline(never)]
    fn refill_bytes(&mut self) {
        // A byte that fits only partly may have been put in before.
        self.window &= !(u64::MAX >> self.filled);
        while self.filled <= 56 {
            let byte = match (self.data.get(self.at), self.data.get(self.at + 1)) {
                (Some(0xFF), Some(0x00)) => {
                    self.at += 2;
                    0xFF
                }
                // A marker, which may follow fill bytes, or the end: stay there.
                (Some(0xFF), Some(0xFF)) => {
                    self.at += 1;
                    continue;
                }
                (Some(0xFF) | None, _) => {
                    self.padding += 8;
                    0
                }
                (Some(&byte), _) => {
                    self.at += 1;
                    byte
                }
            };
            self.window |= u64::from(byte) << (56 - self.filled);
            self.filled += 8;
        }
    }

    #[inline(always)]
    fn peek(&self, n: u32) -> u32 {
        (self.window >> (64 - n)) as u32
    }

    #[inline(always)]
    fn skip(&mut self, n: u32) {
        self.window <<= n;
        self.filled -= n;
    }

    /// The marker that the data ends at, once all of it has been read and nothing beyond.
    pub(super) fn marker(&mut self) -> Option<u8> {
        self.refill_bytes_if_short();
        let real = self.filled.checked_sub(self.padding)?;
        if real >= 8 {
            return None;
        }
        match self.data.get(self.at..self.at + 2)? {
            [0xFF, marker] => Some(*marker),
            _ => None,
        }
    }

    fn refill_bytes_if_short(&mut self) {
        if self.filled <= 56 {
            self.refill_bytes();
        }
    }

    /// Goes on after the marker that [`Self::marker`] found.
    pub(super) fn pass_marker(&mut self) {
        *self = Self { at: self.at + 2, ..Self::new(self.data) };
    }

    /// A symbol; the window must hold 16 bits.
    #[inline(always)]
    fn symbol(&mut self, table: &Table) -> Option<u8> {
        let (length, symbol) = table.symbols[self.peek(LOOKUP) as usize];
        if length > 0 {
            self.skip(u32::from(length));
            return Some(symbol);
        }
        self.long_symbol(table)
    }

    #[cold]
    #[inline(never)]
    fn long_symbol(&mut self, table: &Table) -> Option<u8> {
        let code = self.peek(16);
        let length = (LOOKUP + 1..=16).find(|&length| code < table.limit[length as usize])?;
        self.skip(length);
        let place = table.place[length as usize] + (code >> (16 - length)) as i32;
        table.ordered.get(usize::try_from(place).ok()?).copied()
    }

    /// The coefficients of one block, dequantised, in natural order; `coefficients` holds zeros where
    /// none is written. Returns whether any but the first may be other than 0, or None on damage.
    #[inline(always)]
    pub(super) fn block(
        &mut self,
        (dc, ac): (&Table, &Table),
        quantization: &[i32; 64],
        predicted: &mut i32,
        coefficients: &mut [i32; 64],
    ) -> Option<bool> {
        self.refill();
        let size = u32::from(self.symbol(dc)?);
        if size > 11 {
            return None;
        }
        if size > 0 {
            *predicted = predicted.wrapping_add(extend(self.peek(size), size));
            self.skip(size);
        }
        coefficients[0] = predicted.wrapping_mul(quantization[0]);
        let mut k = 1u32;
        while k < 64 {
            self.refill();
            let (used, zeros, value) = ac.values[self.peek(LOOKUP) as usize];
            let (zeros, value) = if used > 0 {
                self.skip(u32::from(used));
                (u32::from(zeros), i32::from(value))
            } else {
                self.long_value(ac)?
            };
            if zeros == END_OF_BLOCK {
                return Some(k > 1);
            }
            k += zeros;
            if k > 63 {
                return None;
            }
            coefficients[usize::from(ZIGZAG[k as usize])] = value * quantization[k as usize];
            k += 1;
        }
        Some(true)
    }

    #[inline(never)]
    fn long_value(&mut self, ac: &Table) -> Option<(u32, i32)> {
        let symbol = self.symbol(ac)?;
        let (zeros, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
        match (zeros, size) {
            (0, 0) => return Some((END_OF_BLOCK, 0)),
            (15, 0) => return Some((15, 0)),
            (_, 0 | 11..) => return None,
            _ => {}
        }
        let value = extend(self.peek(size), size);
        self.skip(size);
        Some((zeros, value))
    }
}
