//! Data sets as bytes: elements in the order of their tags, in any of the uncompressed encodings.
//!
//! A writer of its own, so that what reads phantoms is checked against something else than itself.
//! Deliberately absent: reading, and what the elements say.

use std::collections::BTreeMap;

/// A value in memory, before an encoding gives it an order of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    U16(Vec<u16>),
    Bytes(Vec<u8>),
    Items(Vec<DataSet>),
    /// One compressed frame.
    Frame(Vec<u8>),
}

/// Elements by tag.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct DataSet(BTreeMap<u32, ([u8; 2], Value)>);

/// How elements are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Encoding {
    pub(super) explicit: bool,
    pub(super) big_endian: bool,
    /// Whether sequences and items say how long they are, or end with a delimiter.
    pub(super) lengths: bool,
}

impl DataSet {
    pub(super) fn put(&mut self, tag: u32, vr: &[u8; 2], value: Value) {
        self.0.insert(tag, (*vr, value));
    }

    pub(super) fn text(&mut self, tag: u32, vr: &[u8; 2], text: impl Into<String>) {
        self.put(tag, vr, Value::Text(text.into()));
    }

    pub(super) fn short(&mut self, tag: u32, value: u16) {
        self.put(tag, b"US", Value::U16(vec![value]));
    }

    pub(super) fn items(&mut self, tag: u32, items: Vec<Self>) {
        self.put(tag, b"SQ", Value::Items(items));
    }

    /// Appends an item to a sequence, which is begun when it is not there.
    pub(super) fn item(&mut self, tag: u32, item: Self) {
        let entry = self.0.entry(tag).or_insert_with(|| (*b"SQ", Value::Items(Vec::new())));
        if let Value::Items(items) = &mut entry.1 {
            items.push(item);
        }
    }

    pub(super) fn get_text(&self, tag: u32) -> Option<&str> {
        match self.0.get(&tag) {
            Some((_, Value::Text(text))) => Some(text),
            _ => None,
        }
    }

    pub(super) fn encode(&self, encoding: Encoding) -> Vec<u8> {
        let mut out = Vec::new();
        for (tag, (vr, value)) in &self.0 {
            element(&mut out, *tag, *vr, value, encoding);
        }
        out
    }
}

fn element(out: &mut Vec<u8>, tag: u32, vr: [u8; 2], value: &Value, encoding: Encoding) {
    put_tag(out, tag, encoding);
    let (bytes, undefined) = match value {
        Value::Items(items) => (sequence(items, encoding), !encoding.lengths),
        Value::Frame(frame) => (encapsulated(frame, encoding), true),
        value => (plain(vr, value, encoding), false),
    };
    if encoding.explicit {
        out.extend(vr);
        if !matches!(&vr, b"OB" | b"OW" | b"SQ" | b"UN" | b"UT" | b"UC" | b"UR") {
            put_u16(out, bytes.len() as u16, encoding);
            out.extend(bytes);
            return;
        }
        out.extend([0, 0]);
    }
    put_u32(out, if undefined { u32::MAX } else { bytes.len() as u32 }, encoding);
    out.extend(bytes);
}

fn plain(vr: [u8; 2], value: &Value, encoding: Encoding) -> Vec<u8> {
    let mut bytes = match value {
        Value::Text(text) => text.clone().into_bytes(),
        Value::Bytes(bytes) => bytes.clone(),
        Value::U16(values) => {
            let mut bytes = Vec::with_capacity(2 * values.len());
            values.iter().for_each(|v| put_u16(&mut bytes, *v, encoding));
            bytes
        }
        Value::Items(_) | Value::Frame(_) => Vec::new(),
    };
    if bytes.len() % 2 == 1 {
        bytes.push(if matches!(&vr, b"UI" | b"OB") { 0 } else { b' ' });
    }
    bytes
}

fn sequence(items: &[DataSet], encoding: Encoding) -> Vec<u8> {
    let mut out = Vec::new();
    for item in items {
        let bytes = item.encode(encoding);
        put_tag(&mut out, 0xFFFE_E000, encoding);
        put_u32(&mut out, if encoding.lengths { bytes.len() as u32 } else { u32::MAX }, encoding);
        out.extend(bytes);
        if !encoding.lengths {
            delimiter(&mut out, 0xFFFE_E00D, encoding);
        }
    }
    if !encoding.lengths {
        delimiter(&mut out, 0xFFFE_E0DD, encoding);
    }
    out
}

/// An empty offset table and one fragment.
fn encapsulated(frame: &[u8], encoding: Encoding) -> Vec<u8> {
    let mut out = Vec::with_capacity(frame.len() + 32);
    delimiter(&mut out, 0xFFFE_E000, encoding);
    put_tag(&mut out, 0xFFFE_E000, encoding);
    put_u32(&mut out, frame.len().next_multiple_of(2) as u32, encoding);
    out.extend(frame);
    if frame.len() % 2 == 1 {
        out.push(0);
    }
    delimiter(&mut out, 0xFFFE_E0DD, encoding);
    out
}

fn delimiter(out: &mut Vec<u8>, tag: u32, encoding: Encoding) {
    put_tag(out, tag, encoding);
    put_u32(out, 0, encoding);
}

fn put_tag(out: &mut Vec<u8>, tag: u32, encoding: Encoding) {
    put_u16(out, (tag >> 16) as u16, encoding);
    put_u16(out, tag as u16, encoding);
}

fn put_u16(out: &mut Vec<u8>, value: u16, encoding: Encoding) {
    out.extend(if encoding.big_endian { value.to_be_bytes() } else { value.to_le_bytes() });
}

fn put_u32(out: &mut Vec<u8>, value: u32, encoding: Encoding) {
    out.extend(if encoding.big_endian { value.to_be_bytes() } else { value.to_le_bytes() });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_written_as_part_5_of_the_standard_has_them() {
        let mut set = DataSet::default();
        set.short(0x0028_0010, 258);
        set.text(0x0010_0010, b"PN", "A^B");
        let explicit = Encoding { explicit: true, big_endian: false, lengths: true };
        let little = set.encode(explicit);
        assert_eq!(little[..12], [0x10, 0, 0x10, 0, b'P', b'N', 4, 0, b'A', b'^', b'B', b' ']);
        assert_eq!(little[12..], [0x28, 0, 0x10, 0, b'U', b'S', 2, 0, 2, 1]);
        let big = set.encode(Encoding { big_endian: true, ..explicit });
        assert_eq!(big[12..], [0, 0x28, 0, 0x10, b'U', b'S', 0, 2, 1, 2]);
        let implicit = set.encode(Encoding { explicit: false, ..explicit });
        assert_eq!(implicit[12..], [0x28, 0, 0x10, 0, 2, 0, 0, 0, 2, 1]);
        let mut outer = DataSet::default();
        outer.item(0x0008_1140, set);
        assert_eq!(outer.encode(explicit).len(), 12 + 8 + 22);
        assert_eq!(outer.encode(Encoding { lengths: false, ..explicit }).len(), 12 + 8 + 22 + 8 + 8);
    }
}
