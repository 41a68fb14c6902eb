//! Small files made here, in every encoding that takes no more than a few lines to write.

use dicom_core::{PrimitiveValue, Tag, VR};
use dicom_dictionary_std::tags;
use flate2::Compression;
use flate2::write::DeflateEncoder;
use std::io::Write;

use super::super::*;

/// A file that is put together element by element.
#[derive(Clone)]
pub(super) struct Maker {
    pub elements: Vec<(Tag, VR, Vec<u8>)>,
    pub explicit: bool,
    pub big_endian: bool,
    pub syntax: &'static str,
    /// Pixels in fragments, the offset table first.
    pub fragments: Option<Vec<Vec<u8>>>,
}

pub(super) const IMPLICIT: &str = "1.2.840.10008.1.2";
pub(super) const EXPLICIT: &str = "1.2.840.10008.1.2.1";
pub(super) const BIG: &str = "1.2.840.10008.1.2.2";
pub(super) const DEFLATED: &str = "1.2.840.10008.1.2.1.99";
pub(super) const RLE: &str = "1.2.840.10008.1.2.5";
pub(super) const JPEG: &str = "1.2.840.10008.1.2.4.50";

impl Maker {
    /// A grey image of so many bits; its pixels are still to be given.
    pub fn grey(rows: u16, columns: u16, allocated: u16, stored: u16, signed: bool) -> Self {
        let mut maker = Self {
            elements: Vec::new(),
            explicit: true,
            big_endian: false,
            syntax: EXPLICIT,
            fragments: None,
        };
        maker.text(tags::SOP_CLASS_UID, VR::UI, "1.2.840.10008.5.1.4.1.1.7");
        maker.text(tags::SOP_INSTANCE_UID, VR::UI, "1.2.3.4");
        maker.text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2");
        for (tag, value) in [
            (tags::SAMPLES_PER_PIXEL, 1),
            (tags::ROWS, rows),
            (tags::COLUMNS, columns),
            (tags::BITS_ALLOCATED, allocated),
            (tags::BITS_STORED, stored),
            (tags::HIGH_BIT, stored.wrapping_sub(1)),
            (tags::PIXEL_REPRESENTATION, u16::from(signed)),
        ] {
            maker.word(tag, value);
        }
        maker
    }

    pub fn text(&mut self, tag: Tag, vr: VR, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        if bytes.len() % 2 == 1 {
            bytes.push(if vr == VR::UI { 0 } else { b' ' });
        }
        self.put(tag, vr, bytes)
    }

    pub fn word(&mut self, tag: Tag, value: u16) -> &mut Self {
        self.put(tag, VR::US, value.to_le_bytes().to_vec())
    }

    /// Little endian bytes; those of numbers are turned round for a big endian file.
    pub fn put(&mut self, tag: Tag, vr: VR, bytes: Vec<u8>) -> &mut Self {
        self.elements.retain(|element| element.0 != tag);
        self.elements.push((tag, vr, bytes));
        self.elements.sort_by_key(|element| element.0);
        self
    }

    pub fn syntax(&mut self, uid: &'static str) -> &mut Self {
        (self.syntax, self.explicit, self.big_endian) = (uid, uid != IMPLICIT, uid == BIG);
        self
    }

    pub fn data_set(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (tag, vr, bytes) in &self.elements {
            let bytes = match (self.big_endian, vr) {
                (true, VR::US | VR::SS | VR::OW) => {
                    bytes.chunks(2).flat_map(|pair| pair.iter().rev().copied()).collect()
                }
                _ => bytes.clone(),
            };
            self.element(&mut out, *tag, *vr, bytes.len() as u32);
            out.extend(bytes);
        }
        if let Some(fragments) = &self.fragments {
            self.element(&mut out, tags::PIXEL_DATA, VR::OB, u32::MAX);
            for fragment in fragments {
                out.extend([0xFE, 0xFF, 0x00, 0xE0]);
                out.extend((fragment.len() as u32).to_le_bytes());
                out.extend(fragment);
            }
            out.extend([0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0]);
        }
        out
    }

    pub fn element(&self, out: &mut Vec<u8>, tag: Tag, vr: VR, length: u32) {
        let word = |value: u16| if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
        let double = |value: u32| if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
        out.extend(word(tag.group()));
        out.extend(word(tag.element()));
        if !self.explicit {
            out.extend(double(length));
            return;
        }
        out.extend(vr.to_bytes());
        if matches!(vr, VR::OB | VR::OW | VR::SQ | VR::UN | VR::OF | VR::OD | VR::UT) {
            out.extend([0, 0]);
            out.extend(double(length));
        } else {
            out.extend(word(length as u16));
        }
    }

    /// The file.
    pub fn file(&self) -> Vec<u8> {
        let data = self.data_set();
        with_meta(self.syntax, &if self.syntax == DEFLATED { deflate(&data) } else { data })
    }

    pub fn read(&self) -> DicomFile {
        DicomFile::read(self.file()).unwrap()
    }
}

pub(super) fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A preamble, a mark and the meta information in front of a data set.
pub(super) fn with_meta(syntax: &str, data: &[u8]) -> Vec<u8> {
    let mut uid = syntax.as_bytes().to_vec();
    if uid.len() % 2 == 1 {
        uid.push(0);
    }
    let mut file = vec![0; 128];
    file.extend(b"DICM");
    file.extend([2, 0, 0x10, 0, b'U', b'I']);
    file.extend((uid.len() as u16).to_le_bytes());
    file.extend(uid);
    file.extend(data);
    file
}

/// Packs a plane: runs where there are any.
fn pack_bits(plane: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    let mut rest = plane;
    while let Some(&byte) = rest.first() {
        let run = rest.iter().take(128).take_while(|&&other| other == byte).count();
        if run > 1 {
            packed.extend([(257 - run) as u8, byte]);
            rest = &rest[run..];
        } else {
            packed.extend([0, byte]);
            rest = &rest[1..];
        }
    }
    if packed.len() % 2 == 1 {
        packed.push(0);
    }
    packed
}

/// A frame of RLE from its byte planes.
pub(super) fn rle(planes: &[Vec<u8>]) -> Vec<u8> {
    let packed: Vec<Vec<u8>> = planes.iter().map(|plane| pack_bits(plane)).collect();
    let mut words = vec![planes.len() as u32];
    let mut at = 64;
    for plane in &packed {
        words.push(at);
        at += plane.len() as u32;
    }
    words.resize(16, 0);
    words.iter().flat_map(|word| word.to_le_bytes()).chain(packed.concat()).collect()
}

fn words(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn the_same_numbers_come_out_of_every_byte_order_and_packing() {
    let values: Vec<u16> = (0..12 * 10).map(|index| (index * 37 % 4096) as u16).collect();
    for uid in [EXPLICIT, IMPLICIT, BIG, DEFLATED] {
        let mut maker = Maker::grey(12, 10, 16, 12, false);
        let file = maker.syntax(uid).put(tags::PIXEL_DATA, VR::OW, words(&values)).read();
        assert_eq!(file.raw_frame(0).unwrap().samples, Samples::U16(values.clone()), "{uid}");
        assert_eq!(file.header().transfer_syntax, uid);
        assert_eq!(file.object().unwrap().get(tags::ROWS).unwrap().to_int::<u16>().unwrap(), 12, "{uid}");
    }
    let mut maker = Maker::grey(12, 10, 16, 12, false);
    let planes = [8, 0].map(|shift| values.iter().map(|value| (value >> shift) as u8).collect::<Vec<u8>>());
    maker.syntax(RLE).fragments = Some(vec![Vec::new(), rle(&planes)]);
    assert_eq!(maker.read().raw_frame(0).unwrap().samples, Samples::U16(values));
}

#[test]
fn signs_and_unused_bits_are_told_apart() {
    // Twelve bits: -1, the lowest and the highest, with other things above them.
    let pixels = words(&[0x0FFF, 0xF800, 0x17FF, 0x0001]);
    let mut maker = Maker::grey(1, 4, 16, 12, true);
    maker.put(tags::PIXEL_DATA, VR::OW, pixels.clone());
    assert_eq!(maker.read().raw_frame(0).unwrap().samples, Samples::I16(vec![-1, -2048, 2047, 1]));
    maker.word(tags::PIXEL_REPRESENTATION, 0);
    assert_eq!(maker.read().raw_frame(0).unwrap().samples, Samples::U16(vec![4095, 2048, 2047, 1]));
    // The old way: stored bits at the top.
    maker.word(tags::HIGH_BIT, 15).put(tags::PIXEL_DATA, VR::OW, words(&[0x0010, 0xFFF0, 0x8000, 0]));
    assert_eq!(maker.read().raw_frame(0).unwrap().samples, Samples::U16(vec![1, 4095, 2048, 0]));
}

#[test]
fn bits_bytes_and_double_words_are_read() {
    let mut maker = Maker::grey(2, 5, 1, 1, false);
    maker.text(tags::NUMBER_OF_FRAMES, VR::IS, "2").put(
        tags::PIXEL_DATA,
        VR::OB,
        vec![0b1000_0101, 0b0000_0111, 0, 0],
    );
    let file = maker.read();
    assert_eq!(file.raw_frame(0).unwrap().samples, Samples::U8(vec![1, 0, 1, 0, 0, 0, 0, 1, 1, 1]));
    assert_eq!(file.raw_frame(1).unwrap().samples, Samples::U8(vec![1, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
    let mut maker = Maker::grey(1, 2, 32, 32, false);
    maker.put(tags::PIXEL_DATA, VR::OW, [7_u32, 70_000].iter().flat_map(|v| v.to_le_bytes()).collect());
    assert_eq!(maker.read().raw_frame(0).unwrap().samples, Samples::U32(vec![7, 70_000]));
    let mut maker = Maker::grey(1, 2, 32, 32, false);
    maker.put(
        tags::FLOAT_PIXEL_DATA,
        VR::OF,
        [0.5_f32, f32::NAN].iter().flat_map(|v| v.to_le_bytes()).collect(),
    );
    assert_eq!(maker.read().frame(0).unwrap().into_luma8().into_raw(), [0, 0]);
}

#[test]
fn colours_of_every_arrangement_become_red_green_and_blue() {
    let pixels = [[10, 20, 30], [40, 50, 60], [70, 80, 90], [100, 110, 120]].concat();
    let planes: Vec<Vec<u8>> = (0..3).map(|c| pixels.iter().skip(c).step_by(3).copied().collect()).collect();
    let mut maker = Maker::grey(2, 2, 8, 8, false);
    maker.word(tags::SAMPLES_PER_PIXEL, 3).text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "RGB");
    let shown = |maker: &Maker| maker.read().frame(0).unwrap().into_rgb8().into_raw();
    assert_eq!(shown(maker.put(tags::PIXEL_DATA, VR::OB, pixels.clone())), pixels);
    maker.word(tags::PLANAR_CONFIGURATION, 1);
    assert_eq!(shown(maker.put(tags::PIXEL_DATA, VR::OB, planes.concat())), pixels);
    let mut packed = maker.clone();
    packed.elements.retain(|element| element.0 != tags::PIXEL_DATA);
    packed.syntax(RLE).fragments = Some(vec![Vec::new(), rle(&planes)]);
    assert_eq!(shown(&packed), pixels);
    maker.word(tags::PLANAR_CONFIGURATION, 0).text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "YBR_FULL_422");
    maker.put(tags::PIXEL_DATA, VR::OB, vec![0, 255, 128, 128, 76, 76, 85, 255]);
    assert_eq!(shown(&maker), [0, 0, 0, 255, 255, 255, 254, 0, 0, 254, 0, 0]);
}

#[test]
fn a_photograph_of_lossy_jpeg_is_close_to_what_went_in() {
    let grey: Vec<u8> =
        (0..64 * 48).map(|i| (128.0 + 100.0 * f64::sin(f64::from(i % 64) / 9.0)) as u8).collect();
    let mut stream = Vec::new();
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut stream, 95)
        .encode(&grey, 64, 48, image::ExtendedColorType::L8)
        .unwrap();
    let mut maker = Maker::grey(48, 64, 8, 8, false);
    maker.syntax(JPEG).fragments = Some(vec![Vec::new(), stream]);
    let Samples::U8(shown) = maker.read().raw_frame(0).unwrap().samples else { panic!("not of 8 bits") };
    let worst = shown.iter().zip(&grey).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    assert!(worst <= 4, "{worst} levels");
}

#[test]
fn palettes_map_their_index() {
    let mut maker = Maker::grey(1, 3, 8, 8, false);
    maker.text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "PALETTE COLOR");
    for (descriptor, data, entries) in [
        (
            tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
            tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DATA,
            [1_u16, 2],
        ),
        (
            tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
            tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DATA,
            [3, 4],
        ),
        (
            tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
            tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DATA,
            [5, 6],
        ),
    ] {
        maker.put(descriptor, VR::US, words(&[2, 10, 16]));
        maker.put(data, VR::OW, words(&entries.map(|entry| entry << 8)));
    }
    let file = maker.put(tags::PIXEL_DATA, VR::OB, vec![0, 11, 200, 0]).read();
    assert_eq!(file.frame(0).unwrap().into_rgb8().into_raw(), [1, 3, 5, 2, 4, 6, 2, 4, 6]);
}

#[test]
fn frames_are_found_by_tables_counts_and_beginnings() {
    let frame = |value: u8| rle(&[vec![value; 4]]);
    let mut maker = Maker::grey(2, 2, 8, 8, false);
    maker.syntax(RLE).text(tags::NUMBER_OF_FRAMES, VR::IS, "2");
    let shown = |maker: &Maker, frame| maker.read().raw_frame(frame).unwrap().samples;
    maker.fragments = Some(vec![Vec::new(), frame(3), frame(4)]);
    assert_eq!(shown(&maker, 1), Samples::U8(vec![4; 4]));
    // The second frame in two fragments, which only the table can tell.
    let (first, second) = (frame(3), frame(4));
    let offsets = [0, first.len() as u32 + 8].iter().flat_map(|offset| offset.to_le_bytes()).collect();
    maker.fragments = Some(vec![offsets, first, second[..40].to_vec(), second[40..].to_vec()]);
    assert_eq!(shown(&maker, 0), Samples::U8(vec![3; 4]));
    assert_eq!(shown(&maker, 1), Samples::U8(vec![4; 4]));
}

#[test]
fn a_file_without_preamble_or_meta_information_is_read_where_it_is_plain() {
    for uid in [EXPLICIT, IMPLICIT, BIG] {
        let mut maker = Maker::grey(1, 1, 8, 8, false);
        let bare = maker.syntax(uid).put(tags::PIXEL_DATA, VR::OB, vec![9, 0]).data_set();
        let file = DicomFile::read(bare.clone()).unwrap();
        assert_eq!(file.raw_frame(0).unwrap().samples, Samples::U8(vec![9]), "{uid}");
        let mut marked = vec![0; 128];
        marked.extend(b"DICM");
        marked.extend(bare);
        assert_eq!(DicomFile::read(marked).unwrap().header().transfer_syntax, uid);
    }
    let object = Maker::grey(1, 1, 8, 8, false).read().object().unwrap();
    assert_eq!(object.get(tags::COLUMNS).unwrap().value().primitive(), Some(&PrimitiveValue::from(1_u16)));
}
