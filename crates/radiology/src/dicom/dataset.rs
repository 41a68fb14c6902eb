//! Values of a data set that was walked: by tag, as text, numbers or items.
//!
//! Owns: how the bytes of a value become what they mean. Not here: where values lie (`walk`), and what they
//! say about a picture or a patient (`header`, `pixels`).

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;

use super::charset::Charset;
use super::error::DicomError;
use super::walk::{Element, Elements, Value, implied_vr};

/// A data set or an item, with the bytes its values lie in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DataSet<'a> {
    pub bytes: &'a [u8],
    pub elements: &'a Elements,
    pub big_endian: bool,
    pub charset: &'a Charset,
}

impl<'a> DataSet<'a> {
    pub(crate) fn element(&self, tag: Tag) -> Option<&'a Element> {
        self.elements.0.iter().find(|element| element.tag == tag)
    }

    /// The bytes of a value that is not a sequence; none for one that is empty.
    pub(crate) fn value(&self, tag: Tag) -> Option<&'a [u8]> {
        self.element(tag).and_then(|element| self.value_of(element))
    }

    fn value_of(&self, element: &Element) -> Option<&'a [u8]> {
        match &element.value {
            Value::Bytes(range) => self.bytes.get(range.clone()).filter(|bytes| !bytes.is_empty()),
            _ => None,
        }
    }

    /// The text of a value, none where there is nothing but filling.
    pub(crate) fn text(&self, tag: Tag) -> Result<Option<String>, DicomError> {
        let Some(bytes) = self.value(tag) else { return Ok(None) };
        let text = self.charset.decode(bytes)?;
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    /// A value of plain ASCII, such as a UID or a code; of several the first.
    pub(crate) fn code(&self, tag: Tag) -> Option<String> {
        self.codes(tag).into_iter().next().filter(|code| !code.is_empty())
    }

    /// The values of plain ASCII that a backslash separates; an empty one stays in its place.
    pub(crate) fn codes(&self, tag: Tag) -> Vec<String> {
        let text = self.value(tag).map(String::from_utf8_lossy).unwrap_or_default();
        if text.is_empty() {
            return Vec::new();
        }
        text.split('\\')
            .map(|code| code.trim_matches(|c: char| c == '\0' || c.is_whitespace()).to_owned())
            .collect()
    }

    /// The whole numbers of a value, whether binary or written out.
    pub(crate) fn integers(&self, tag: Tag) -> Vec<i64> {
        let Some(element) = self.element(tag) else { return Vec::new() };
        let Some(bytes) = self.value_of(element) else { return Vec::new() };
        match self.number_vr(element) {
            VR::US | VR::OW => self.words(bytes).map(i64::from).collect(),
            VR::SS => self.words(bytes).map(|word| i64::from(word as i16)).collect(),
            VR::UL | VR::OL => self.doubles(bytes).map(i64::from).collect(),
            VR::SL => self.doubles(bytes).map(|word| i64::from(word as i32)).collect(),
            VR::OB => bytes.iter().map(|&byte| i64::from(byte)).collect(),
            VR::OV | VR::UV | VR::SV => bytes.chunks_exact(8).map(|chunk| self.quad(chunk) as i64).collect(),
            _ => {
                self.codes(tag).iter().map_while(|code| code.parse::<f64>().ok()).map(|n| n as i64).collect()
            }
        }
    }

    /// The first whole number of a value.
    pub(crate) fn integer(&self, tag: Tag) -> Option<i64> {
        self.integers(tag).into_iter().next()
    }

    /// The numbers of a value; not a number where it is written as something else.
    pub(crate) fn numbers(&self, tag: Tag) -> Vec<f64> {
        let Some(element) = self.element(tag) else { return Vec::new() };
        let Some(bytes) = self.value_of(element) else { return Vec::new() };
        match self.number_vr(element) {
            VR::FL | VR::OF => self.doubles(bytes).map(|bits| f64::from(f32::from_bits(bits))).collect(),
            VR::FD | VR::OD => bytes.chunks_exact(8).map(|chunk| f64::from_bits(self.quad(chunk))).collect(),
            VR::DS | VR::IS => {
                let codes = self.codes(tag);
                // A value of several, some of them empty, has the meaning of those that are there.
                codes.iter().filter(|code| !code.is_empty()).map(|code| number(code)).collect()
            }
            _ => self.integers(tag).into_iter().map(|n| n as f64).collect(),
        }
    }

    /// The items of a sequence, none where it is absent or empty.
    pub(crate) fn items(&self, tag: Tag) -> impl Iterator<Item = DataSet<'a>> + use<'a> {
        let items = match self.element(tag).map(|element| &element.value) {
            Some(Value::Items(items)) => items.as_slice(),
            _ => &[],
        };
        let outer = *self;
        items.iter().map(move |elements| DataSet { elements, ..outer })
    }

    /// The 16-bit words of a value of the file's byte order.
    pub(crate) fn words(&self, bytes: &'a [u8]) -> impl Iterator<Item = u16> + use<'a> {
        let big = self.big_endian;
        bytes.chunks_exact(2).map(move |word| {
            let word = [word[0], word[1]];
            if big { u16::from_be_bytes(word) } else { u16::from_le_bytes(word) }
        })
    }

    fn doubles(&self, bytes: &'a [u8]) -> impl Iterator<Item = u32> + use<'a> {
        let big = self.big_endian;
        bytes.chunks_exact(4).map(move |word| {
            let word = [word[0], word[1], word[2], word[3]];
            if big { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) }
        })
    }

    fn quad(&self, chunk: &[u8]) -> u64 {
        let word: [u8; 8] = chunk.try_into().expect("chunks_exact gives eight bytes");
        if self.big_endian { u64::from_be_bytes(word) } else { u64::from_le_bytes(word) }
    }

    /// How numbers are written: of an unknown representation, as the standard says of the tag.
    fn number_vr(&self, element: &Element) -> VR {
        match element.vr {
            VR::UN => implied_vr(element.tag),
            vr => vr,
        }
    }
}

/// The character set that a data set declares.
pub(crate) fn charset_of(bytes: &[u8], elements: &Elements) -> Charset {
    let set = DataSet { bytes, elements, big_endian: false, charset: &Charset::Undeclared };
    Charset::named(&set.codes(tags::SPECIFIC_CHARACTER_SET).join("\\"))
}

/// A decimal string; some writers use a comma.
fn number(text: &str) -> f64 {
    text.replace(',', ".").parse().unwrap_or(f64::NAN)
}
