//! Pixels of an instance: stored values of several kinds, and the transfer syntaxes that carry them.
//!
//! The picture is the same in all of them: rescale, window and photometric interpretation undo what the
//! stored values were put through. Deliberately absent: drawing it, and decoding.

use flate2::Compression;
use flate2::write::DeflateEncoder;
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, GrayImage, ImageEncoder as _};
use std::io::Write as _;

use super::element::{DataSet, Encoding, Value};

/// A transfer syntax that phantoms are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Syntax {
    ExplicitLittle,
    ImplicitLittle,
    ExplicitBig,
    Deflated,
    Rle,
    JpegBaseline,
    JpegLossless,
}

/// How the values of a picture are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    /// 12 bits of 16, unsigned, with a window.
    Plain,
    /// As plain, white being the smallest value.
    Inverted,
    /// Unsigned values that a rescale intercept moves below zero.
    Rescaled,
    /// Two's complement, which a rescale intercept makes positive again.
    Signed,
    /// 8 bits of 8.
    Byte,
}

/// Largest value of 12 bits.
const TOP: u16 = 4095;

impl Syntax {
    pub(super) const ALL: [Self; 7] = [
        Self::ExplicitLittle,
        Self::ImplicitLittle,
        Self::ExplicitBig,
        Self::Deflated,
        Self::Rle,
        Self::JpegBaseline,
        Self::JpegLossless,
    ];

    pub(super) fn uid(self) -> &'static str {
        match self {
            Self::ExplicitLittle => "1.2.840.10008.1.2.1",
            Self::ImplicitLittle => "1.2.840.10008.1.2",
            Self::ExplicitBig => "1.2.840.10008.1.2.2",
            Self::Deflated => "1.2.840.10008.1.2.1.99",
            Self::Rle => "1.2.840.10008.1.2.5",
            Self::JpegBaseline => "1.2.840.10008.1.2.4.50",
            Self::JpegLossless => "1.2.840.10008.1.2.4.70",
        }
    }

    fn encoding(self) -> Encoding {
        Encoding {
            explicit: self != Self::ImplicitLittle,
            big_endian: self == Self::ExplicitBig,
            lengths: matches!(self, Self::ImplicitLittle | Self::ExplicitBig),
        }
    }

    /// A data set in this syntax.
    pub(super) fn write(self, set: &DataSet) -> Vec<u8> {
        let bytes = set.encode(self.encoding());
        if self != Self::Deflated {
            return bytes;
        }
        let mut deflater = DeflateEncoder::new(Vec::new(), Compression::default());
        let written = deflater.write_all(&bytes).and_then(|()| deflater.finish());
        let mut out = written.expect("memory takes everything");
        if out.len() % 2 == 1 {
            out.push(0);
        }
        out
    }
}

/// Puts a picture into a data set, with everything that says how it is stored.
pub(super) fn put(set: &mut DataSet, picture: &GrayImage, stored: Stored, syntax: Syntax) {
    let stored = if syntax == Syntax::JpegBaseline { Stored::Byte } else { stored };
    let byte = stored == Stored::Byte;
    let inverted = stored == Stored::Inverted;
    set.short(0x0028_0002, 1);
    set.text(0x0028_0004, b"CS", if inverted { "MONOCHROME1" } else { "MONOCHROME2" });
    set.short(0x0028_0010, picture.height() as u16);
    set.short(0x0028_0011, picture.width() as u16);
    set.short(0x0028_0100, if byte { 8 } else { 16 });
    set.short(0x0028_0101, if byte { 8 } else { 12 });
    set.short(0x0028_0102, if byte { 7 } else { 11 });
    set.short(0x0028_0103, u16::from(stored == Stored::Signed));
    set.text(0x2050_0020, b"CS", if inverted { "INVERSE" } else { "IDENTITY" });
    let intercept = match stored {
        Stored::Rescaled => -1024,
        Stored::Signed => 2048,
        _ => 0,
    };
    set.text(0x0028_1052, b"DS", intercept.to_string());
    set.text(0x0028_1053, b"DS", "1");
    if !byte {
        // The full range, as PS3.3 C.11.2.1.2 has it, of the rescaled values.
        let lowest = if stored == Stored::Rescaled { -1024 } else { 0 };
        set.text(0x0028_1050, b"DS", (lowest + 2048).to_string());
        set.text(0x0028_1051, b"DS", "4096");
    }
    if syntax == Syntax::JpegBaseline {
        set.text(0x0028_2110, b"CS", "01");
    }
    let values = values(picture, stored);
    let value = match syntax {
        Syntax::Rle => Value::Frame(rle(&values)),
        Syntax::JpegLossless => Value::Frame(jpeg_lossless(&values, picture.width() as usize)),
        Syntax::JpegBaseline => Value::Frame(jpeg_baseline(picture)),
        _ => Value::U16(values),
    };
    let vr = if matches!(value, Value::Frame(_)) { b"OB" } else { b"OW" };
    set.put(0x7FE0_0010, vr, value);
}

/// 8 bits made 12: the lowest four come from the place, so that no value is empty.
fn values(picture: &GrayImage, stored: Stored) -> Vec<u16> {
    let width = picture.width() as usize;
    let twelve = picture.as_raw().iter().enumerate().map(|(i, &v)| {
        let fine = (i % width).wrapping_mul(7) ^ (i / width).wrapping_mul(13);
        u16::from(v) << 4 | (fine & 15) as u16
    });
    match stored {
        Stored::Plain | Stored::Rescaled | Stored::Byte => twelve.collect(),
        Stored::Inverted => twelve.map(|v| TOP - v).collect(),
        Stored::Signed => {
            twelve.map(|v| v.wrapping_sub(2048) & if v >= 2048 { TOP } else { u16::MAX }).collect()
        }
    }
}

fn jpeg_baseline(picture: &GrayImage) -> Vec<u8> {
    let mut out = Vec::new();
    JpegEncoder::new_with_quality(&mut out, 92)
        .write_image(picture.as_raw(), picture.width(), picture.height(), ExtendedColorType::L8)
        .expect("a picture in memory can be written to memory");
    out
}

/// RLE of PS3.5 Annex G: the high bytes and the low bytes, each packed.
fn rle(values: &[u16]) -> Vec<u8> {
    let segments = [8, 0].map(|shift| {
        let plane: Vec<u8> = values.iter().map(|v| (v >> shift) as u8).collect();
        pack(&plane)
    });
    let offsets = [2, 64, 64 + segments[0].len() as u32];
    let mut out: Vec<u8> = offsets.iter().flat_map(|v| v.to_le_bytes()).collect();
    out.resize(64, 0);
    segments.into_iter().for_each(|segment| out.extend(segment));
    out
}

/// PackBits: `n` in 0..128 is followed by n + 1 bytes as they are, 257 - n by one that stands n times.
fn pack(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let run = |from: usize| bytes[from..].iter().take(128).take_while(|b| **b == bytes[from]).count();
    let mut at = 0;
    while at < bytes.len() {
        let same = run(at);
        if same >= 3 {
            out.extend([(257 - same) as u8, bytes[at]]);
            at += same;
            continue;
        }
        let start = at;
        while at < bytes.len() && at - start < 128 && run(at) < 3 {
            at += 1;
        }
        out.push((at - start - 1) as u8);
        out.extend(&bytes[start..at]);
    }
    if out.len() % 2 == 1 {
        out.push(0);
    }
    out
}

/// JPEG process 14, selection value 1: the difference to the left neighbour, Huffman coded (ITU-T T.81,
/// Annex H). All 17 categories have codes of five bits, which wastes little on phantoms.
fn jpeg_lossless(values: &[u16], width: usize) -> Vec<u8> {
    const PRECISION: u8 = 12;
    let height = values.len() / width;
    let mut out = vec![0xFF, 0xD8];
    let [h, w] = [height, width].map(|v| (v as u16).to_be_bytes());
    out.extend([0xFF, 0xC3, 0, 11, PRECISION, h[0], h[1], w[0], w[1], 1, 1, 0x11, 0]);
    out.extend([0xFF, 0xC4, 0, 19 + 17, 0]);
    out.extend((1..=16).map(|length| if length == 5 { 17 } else { 0 }));
    out.extend(0..17);
    out.extend([0xFF, 0xDA, 0, 8, 1, 1, 0, 1, 0, 0]);
    let mut bits = Bits { out, held: 0, count: 0 };
    for (i, &value) in values.iter().enumerate() {
        let predicted = match (i % width, i / width) {
            (0, 0) => 1 << (PRECISION - 1),
            (0, _) => values[i - width],
            _ => values[i - 1],
        };
        let difference = i32::from(value) - i32::from(predicted);
        let category = 32 - difference.unsigned_abs().leading_zeros();
        bits.put(category, 5);
        // Negative ones are written as their one's complement.
        let low = if difference < 0 { difference - 1 } else { difference } as u32;
        bits.put(low & ((1 << category) - 1), category);
    }
    bits.finish()
}

struct Bits {
    out: Vec<u8>,
    held: u64,
    count: u32,
}

impl Bits {
    fn put(&mut self, value: u32, bits: u32) {
        self.held = self.held << bits | u64::from(value);
        self.count += bits;
        while self.count >= 8 {
            self.count -= 8;
            let byte = (self.held >> self.count) as u8;
            self.out.push(byte);
            if byte == 0xFF {
                self.out.push(0);
            }
        }
    }

    fn finish(mut self) -> Vec<u8> {
        let missing = (8 - self.count % 8) % 8;
        self.put((1 << missing) - 1, missing);
        self.out.extend([0xFF, 0xD9]);
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_bytes_unpack_to_themselves() {
        for n in 0..300usize {
            let bytes: Vec<u8> = (0..n).map(|i| if i % 50 < 20 { 7 } else { (i * i) as u8 }).collect();
            let packed = pack(&bytes);
            let (mut out, mut at) = (Vec::new(), 0);
            while at < packed.len() && out.len() < n {
                let code = packed[at];
                if code < 128 {
                    out.extend(&packed[at + 1..at + 2 + code as usize]);
                    at += 2 + code as usize;
                } else {
                    out.extend(std::iter::repeat_n(packed[at + 1], 257 - code as usize));
                    at += 2;
                }
            }
            assert_eq!(out, bytes, "{n} bytes");
        }
    }

    #[test]
    fn stored_values_fit_their_bits() {
        let picture = GrayImage::from_fn(16, 16, |x, y| image::Luma([(x * 16 + y) as u8]));
        assert!(values(&picture, Stored::Inverted).iter().all(|v| *v <= TOP));
        let signed: Vec<i16> = values(&picture, Stored::Signed).iter().map(|v| *v as i16).collect();
        assert!(signed.iter().all(|v| (-2048..2048).contains(v)) && signed.iter().any(|v| *v < 0));
    }
}
