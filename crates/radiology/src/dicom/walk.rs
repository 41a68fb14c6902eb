//! The walk over the data elements of a data set: which there are, and where their values lie.
//!
//! Owns the checks that come before anything else believes the file: declared lengths against what is
//! there, depth of nesting, number of elements. Copies no value and allocates nothing that a length
//! declares. Not here: what values mean (`dataset`), the file around a data set (`open`).

use std::ops::Range;

use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry, VirtualVr};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::{StandardDataDictionary, tags};

use super::error::DicomError;

/// Sequences within sequences that are read at most.
pub(crate) const MAX_DEPTH: usize = 64;
/// Data elements that are read at most, those of sequences included.
pub(crate) const MAX_ELEMENTS: usize = 1_000_000;

const UNDEFINED: u32 = u32::MAX;
const ITEM: Tag = Tag(0xFFFE, 0xE000);
const ITEM_END: Tag = Tag(0xFFFE, 0xE00D);
const SEQUENCE_END: Tag = Tag(0xFFFE, 0xE0DD);

/// How the elements of a data set are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Encoding {
    /// Whether the value representation is written.
    pub explicit: bool,
    /// Whether numbers are big endian.
    pub big_endian: bool,
}

impl Encoding {
    pub(crate) const IMPLICIT_LE: Self = Self { explicit: false, big_endian: false };
    pub(crate) const EXPLICIT_LE: Self = Self { explicit: true, big_endian: false };
    pub(crate) const EXPLICIT_BE: Self = Self { explicit: true, big_endian: true };
}

/// The elements of a data set or of an item, in the order of the file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Elements(pub(crate) Vec<Element>);

/// A data element; its value lies in the bytes that were walked.
#[derive(Debug, Clone)]
pub(crate) struct Element {
    pub tag: Tag,
    pub vr: VR,
    pub value: Value,
}

/// Where a value lies.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// Bytes, as ranges of what was walked.
    Bytes(Range<usize>),
    /// The items of a sequence.
    Items(Vec<Elements>),
    /// Encapsulated pixels: the offset table first, then the fragments.
    Fragments(Vec<Range<usize>>),
}

/// Why a walk ended early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The bytes at hand do not reach far enough; so many are needed.
    NeedMore(usize),
    Error(DicomError),
}

impl From<DicomError> for Stop {
    fn from(error: DicomError) -> Self {
        Self::Error(error)
    }
}

/// Walks the data set that begins at `start`. `bytes` may be only the beginning of a file of `total`
/// bytes; then the answer can be that more of it is needed. With `until_pixels`, ends before the pixel data.
/// Gives the elements and where the last of them ends.
pub(crate) fn walk(
    bytes: &[u8],
    start: usize,
    total: u64,
    encoding: Encoding,
    until_pixels: bool,
) -> Result<(Elements, usize), Stop> {
    let mut walker = Walker { bytes, total, encoding, until_pixels, at: start, count: 0 };
    let elements = walker.elements(None, 0, false)?;
    Ok((elements, walker.at))
}

/// Walks the group of file meta information, which is explicit little endian whatever follows. Gives the
/// elements and where the data set begins.
pub(crate) fn walk_meta(bytes: &[u8], start: usize, total: u64) -> Result<(Elements, usize), Stop> {
    let mut walker =
        Walker { bytes, total, encoding: Encoding::EXPLICIT_LE, until_pixels: false, at: start, count: 0 };
    let mut elements = Vec::new();
    while walker.left() >= 8 && walker.peek_tag()?.group() == 2 {
        let (tag, vr, length) = walker.header()?;
        elements.push(walker.element(tag, vr, length, 0)?);
    }
    Ok((Elements(elements), walker.at))
}

/// Whether an element with a written value representation begins at these bytes, in either byte order.
pub(crate) fn looks_explicit(bytes: &[u8]) -> bool {
    bytes.get(4..6).is_some_and(|vr| VR::from_binary([vr[0], vr[1]]).is_some())
}

struct Walker<'a> {
    bytes: &'a [u8],
    total: u64,
    encoding: Encoding,
    until_pixels: bool,
    at: usize,
    count: usize,
}

impl Walker<'_> {
    /// The elements up to `end`, or up to the delimiter of an item where there is no end.
    fn elements(&mut self, end: Option<u64>, depth: usize, delimited: bool) -> Result<Elements, Stop> {
        let mut elements = Vec::new();
        let end = end.unwrap_or(self.total);
        while (self.at as u64) < end {
            if depth == 0 && self.is_padding(end)? {
                break;
            }
            let begins = self.at;
            let (tag, vr, length) = self.header()?;
            if delimited && tag == ITEM_END {
                return Ok(Elements(elements));
            }
            if tag.group() == 0xFFFE {
                return Err(DicomError::malformed(tag, "a delimiter stands where an element should").into());
            }
            if depth == 0 && self.until_pixels && is_pixels(tag) {
                elements.push(Element { tag, vr, value: Value::Bytes(0..0) });
                // What was walked is a data set by itself.
                self.at = begins;
                break;
            }
            elements.push(self.element(tag, vr, length, depth)?);
            if self.at as u64 > end {
                let over = self.at as u64 - end;
                return Err(
                    DicomError::malformed(tag, format!("it reaches {over} bytes beyond its item")).into()
                );
            }
        }
        if delimited {
            return Err(DicomError::Truncated { tag: ITEM_END, declared: 8, available: 0 }.into());
        }
        Ok(Elements(elements))
    }

    /// Whether what is left of the file is filling: nothing but zeros.
    fn is_padding(&self, end: u64) -> Result<bool, Stop> {
        let left = end - self.at as u64;
        self.have(left.min(8) as usize)?;
        let rest = &self.bytes[self.at.min(self.bytes.len())..];
        Ok(rest.iter().take(8).all(|&byte| byte == 0) && rest.iter().all(|&byte| byte == 0))
    }

    /// Tag, value representation and declared length of the element that begins here.
    fn header(&mut self) -> Result<(Tag, VR, u32), Stop> {
        self.count += 1;
        if self.count > MAX_ELEMENTS {
            return Err(DicomError::TooManyElements { limit: MAX_ELEMENTS }.into());
        }
        let tag = self.peek_tag()?;
        self.have(8)?;
        let at = self.at;
        let letters = [self.bytes[at + 4], self.bytes[at + 5]];
        if tag.group() == 0xFFFE || !self.encoding.explicit || !letters.iter().all(u8::is_ascii_uppercase) {
            // A writer that forgot the value representation of one element wrote it as if implicit.
            let vr = if tag.group() == 0xFFFE { VR::UN } else { implied_vr(tag) };
            let length = self.u32_at(at + 4);
            self.at += 8;
            return Ok((tag, vr, length));
        }
        let vr = VR::from_binary(letters);
        // Representations that are new since have the long form (PS3.5 section 6.2).
        let long = vr.is_none_or(is_long);
        if !long {
            let length = u32::from(self.u16_at(at + 6));
            self.at += 8;
            return Ok((tag, vr.unwrap_or(VR::UN), length));
        }
        self.have(12)?;
        let length = self.u32_at(at + 8);
        self.at += 12;
        Ok((tag, vr.unwrap_or(VR::UN), length))
    }

    /// The element whose header has just been read.
    fn element(&mut self, tag: Tag, vr: VR, length: u32, depth: usize) -> Result<Element, Stop> {
        let value = if length == UNDEFINED && tag == tags::PIXEL_DATA {
            self.fragments()?
        } else if vr == VR::SQ || length == UNDEFINED {
            self.sequence(tag, vr, length, depth)?
        } else {
            Value::Bytes(self.take(tag, length)?)
        };
        Ok(Element { tag, vr, value })
    }

    fn sequence(&mut self, tag: Tag, vr: VR, length: u32, depth: usize) -> Result<Value, Stop> {
        if depth >= MAX_DEPTH {
            return Err(DicomError::TooDeep { tag, limit: MAX_DEPTH }.into());
        }
        if !matches!(vr, VR::SQ | VR::UN) {
            return Err(DicomError::malformed(tag, format!("{vr} may not have an undefined length")).into());
        }
        let end = match length {
            UNDEFINED => None,
            _ => Some(self.end_of(tag, length)?),
        };
        let outer = self.encoding;
        // What is unknown and has no length is implicit little endian inside (PS3.5 section 6.2.2, note 2).
        if vr == VR::UN && self.encoding.explicit && !self.looks_like_explicit_item() {
            self.encoding = Encoding::IMPLICIT_LE;
        }
        let items = self.items(tag, end, depth);
        self.encoding = outer;
        Ok(Value::Items(items?))
    }

    /// Whether the first element of the first item here has a value representation, as some writers of
    /// unknown sequences leave it.
    fn looks_like_explicit_item(&self) -> bool {
        self.bytes.get(self.at + 8..).is_some_and(looks_explicit)
    }

    fn items(&mut self, sequence: Tag, end: Option<u64>, depth: usize) -> Result<Vec<Elements>, Stop> {
        let mut items = Vec::new();
        while end.is_none_or(|end| (self.at as u64) < end) {
            let (tag, _, length) = self.header()?;
            match tag {
                SEQUENCE_END => {
                    // Written although the length is known; then it is the last.
                    return Ok(items);
                }
                ITEM if length == UNDEFINED => items.push(self.elements(None, depth + 1, true)?),
                ITEM => {
                    let end = self.end_of(tag, length)?;
                    items.push(self.elements(Some(end), depth + 1, false)?);
                }
                _ => return Err(DicomError::malformed(sequence, "its items do not begin as items").into()),
            }
        }
        if end.is_some_and(|end| self.at as u64 > end) {
            return Err(DicomError::malformed(sequence, "an item reaches beyond its end").into());
        }
        Ok(items)
    }

    fn fragments(&mut self) -> Result<Value, Stop> {
        let mut fragments = Vec::new();
        while self.left() > 0 {
            if self.left() < 8 {
                break;
            }
            let (tag, _, length) = self.header()?;
            match tag {
                SEQUENCE_END => return Ok(Value::Fragments(fragments)),
                ITEM => fragments.push(self.take(tags::PIXEL_DATA, length)?),
                _ => {
                    let reason = "something other than a fragment stands between the fragments";
                    return Err(DicomError::malformed(tags::PIXEL_DATA, reason).into());
                }
            }
        }
        // Without a delimiter at the end of the file; whether frames are missing is seen when they are counted.
        Ok(Value::Fragments(fragments))
    }

    fn take(&mut self, tag: Tag, length: u32) -> Result<Range<usize>, Stop> {
        self.end_of(tag, length)?;
        self.have(length as usize)?;
        let range = self.at..self.at + length as usize;
        self.at = range.end;
        Ok(range)
    }

    /// Where a value of the declared length would end, if the file reaches so far.
    fn end_of(&self, tag: Tag, length: u32) -> Result<u64, DicomError> {
        let end = self.at as u64 + u64::from(length);
        if end > self.total {
            let available = self.total.saturating_sub(self.at as u64);
            return Err(DicomError::Truncated { tag, declared: u64::from(length), available });
        }
        Ok(end)
    }

    fn peek_tag(&self) -> Result<Tag, Stop> {
        self.have(8)?;
        Ok(Tag(self.u16_at(self.at), self.u16_at(self.at + 2)))
    }

    /// Makes sure of so many bytes from here on.
    fn have(&self, bytes: usize) -> Result<(), Stop> {
        let end = self.at.saturating_add(bytes);
        if end <= self.bytes.len() {
            return Ok(());
        }
        if end as u64 <= self.total {
            return Err(Stop::NeedMore(end));
        }
        let tag = match self.bytes.get(self.at..self.at + 4) {
            Some(_) => Tag(self.u16_at(self.at), self.u16_at(self.at + 2)),
            None => Tag(0, 0),
        };
        let available = self.left();
        Err(DicomError::Truncated { tag, declared: bytes as u64, available }.into())
    }

    fn left(&self) -> u64 {
        self.total.saturating_sub(self.at as u64)
    }

    fn u16_at(&self, at: usize) -> u16 {
        let bytes = [self.bytes[at], self.bytes[at + 1]];
        if self.encoding.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }

    fn u32_at(&self, at: usize) -> u32 {
        let bytes = [self.bytes[at], self.bytes[at + 1], self.bytes[at + 2], self.bytes[at + 3]];
        if self.encoding.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }
}

/// Whether the element holds pixels: integers, single or double precision.
pub(crate) fn is_pixels(tag: Tag) -> bool {
    tag.group() == 0x7FE0 && matches!(tag.element(), 0x0008..=0x0010)
}

fn is_long(vr: VR) -> bool {
    use VR::{OB, OD, OF, OL, OV, OW, SQ, SV, UC, UN, UR, UT, UV};
    matches!(vr, OB | OD | OF | OL | OV | OW | SQ | SV | UC | UN | UR | UT | UV)
}

/// The value representation that the standard gives to a tag.
pub(crate) fn implied_vr(tag: Tag) -> VR {
    if tag.element() == 0 {
        return VR::UL;
    }
    match StandardDataDictionary.by_tag(tag).map(|entry| entry.vr()) {
        Some(VirtualVr::Exact(vr)) => vr,
        Some(VirtualVr::Xs) => VR::US,
        Some(_) => VR::OW,
        None if tag.group() % 2 == 1 && (0x10..=0xFF).contains(&tag.element()) => VR::LO,
        None => VR::UN,
    }
}
