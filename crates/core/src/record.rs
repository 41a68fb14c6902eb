//! Records: what a collection holds and how its things are named.

use std::collections::BTreeMap;
use std::fmt;

use crate::{Part, PartRef, Time, limits};

/// Why a name or key is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No characters, or only white space.
    #[error("the {what} is empty; give it at least one visible character")]
    Empty {
        /// What was being named.
        what: &'static str,
    },
    /// Longer than the bound.
    #[error("the {what} has {bytes} bytes, more than {max}; shorten it")]
    TooLong {
        /// What was being named.
        what: &'static str,
        /// Bytes found.
        bytes: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// A character that would make output misleading or a name ambiguous.
    #[error("the {what} contains the character U+{code:04X} at byte {position}; {hint}")]
    Character {
        /// What was being named.
        what: &'static str,
        /// Unicode code point.
        code: u32,
        /// Byte offset.
        position: usize,
        /// What is allowed.
        hint: &'static str,
    },
}

/// The name a user gives a record; unique within its collection.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(String);

impl Key {
    /// Checks a key: 1 to 512 bytes, no control characters and no bidirectional overrides.
    ///
    /// # Errors
    /// [`NameError`] when it is empty, too long or contains such a character.
    pub fn new(key: impl Into<String>) -> Result<Self, NameError> {
        let key = key.into();
        check_name("key", &key, limits::KEY_BYTES_MAX)?;
        Ok(Self(key))
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a collection: 1 to 64 of `a-z A-Z 0-9 _ -`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CollectionName(String);

impl CollectionName {
    /// The collection that is meant when none is named.
    pub const DEFAULT: &'static str = "default";

    /// Checks a collection name.
    ///
    /// # Errors
    /// [`NameError`] when it is empty, too long or has another character.
    pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
        let name = name.into();
        check_length("collection name", &name, limits::COLLECTION_NAME_BYTES_MAX)?;
        match name.char_indices().find(|&(_, c)| !(c.is_ascii_alphanumeric() || c == '_' || c == '-')) {
            Some((position, c)) => Err(NameError::Character {
                what: "collection name",
                code: c as u32,
                position,
                hint: "use letters, digits, '_' and '-'",
            }),
            None => Ok(Self(name)),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for CollectionName {
    fn default() -> Self {
        Self(Self::DEFAULT.to_owned())
    }
}

impl fmt::Display for CollectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks a name that may have any visible characters.
pub(crate) fn check_name(what: &'static str, name: &str, max: usize) -> Result<(), NameError> {
    check_length(what, name, max)?;
    match name.char_indices().find(|&(_, c)| c.is_control() || is_bidi_control(c)) {
        Some((position, c)) => Err(NameError::Character {
            what,
            code: c as u32,
            position,
            hint: "remove control and text-direction characters",
        }),
        None => Ok(()),
    }
}

fn check_length(what: &'static str, s: &str, max: usize) -> Result<(), NameError> {
    if s.trim().is_empty() {
        return Err(NameError::Empty { what });
    }
    if s.len() > max {
        return Err(NameError::TooLong { what, bytes: s.len(), max });
    }
    Ok(())
}

/// Characters that reorder the text around them and so make a key read as another one.
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// A typed attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum AttributeValue {
    /// Text.
    String(String),
    /// Several texts, such as labels.
    List(Vec<String>),
    /// A whole number.
    Integer(i64),
    /// A number.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// A moment.
    Time(Time),
}

impl From<&str> for AttributeValue {
    fn from(value: &str) -> Self {
        Self::String(value.to_owned())
    }
}

impl From<String> for AttributeValue {
    fn from(value: String) -> Self {
        Self::String(value)
    }
}

impl From<Vec<String>> for AttributeValue {
    fn from(value: Vec<String>) -> Self {
        Self::List(value)
    }
}

impl From<i32> for AttributeValue {
    fn from(value: i32) -> Self {
        Self::Integer(value.into())
    }
}

impl From<i64> for AttributeValue {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<f64> for AttributeValue {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<bool> for AttributeValue {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<Time> for AttributeValue {
    fn from(value: Time) -> Self {
        Self::Time(value)
    }
}

/// Attributes by name, in name order.
pub type Attributes = BTreeMap<String, AttributeValue>;

/// A thing in a collection: a key, any number of image and text parts, attributes.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    key: Key,
    parts: Vec<Part>,
    attributes: Attributes,
}

/// Why a record is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Nothing to search for.
    #[error("the record has neither image nor text; give it at least one part")]
    NoParts,
    /// More parts than the bound.
    #[error("the record has {found} parts, more than {max}; split it into several records", max = limits::PARTS_MAX)]
    TooManyParts {
        /// Parts found.
        found: usize,
    },
    /// More to search for than the bound.
    #[error(
        "the record comes to {found} images, texts and chunks of long texts, more than {max}; split it into several records",
        max = limits::POINTS_MAX
    )]
    TooManyPoints {
        /// Pieces found; at least so many.
        found: usize,
    },
    /// Chunks that are not the text they are said to be of.
    #[error("text {ordinal} of the record: {reason}; divide the text anew")]
    Chunks {
        /// Which text, counted from 0.
        ordinal: usize,
        /// What is wrong.
        reason: String,
    },
    /// More attributes than the bound.
    #[error("the record has {found} attributes, more than {max}; keep those you search by", max = limits::ATTRIBUTES_MAX)]
    TooManyAttributes {
        /// Attributes found.
        found: usize,
    },
    /// An attribute name or value out of bounds.
    #[error("attribute '{name}': {reason}")]
    Attribute {
        /// The attribute's name, cut to 64 characters.
        name: String,
        /// What is wrong and what would be right.
        reason: String,
    },
}

impl Record {
    /// Checks and joins the pieces. Parts keep their order within each modality.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub fn new(key: Key, parts: Vec<Part>, attributes: Attributes) -> Result<Self, RecordError> {
        if parts.is_empty() {
            return Err(RecordError::NoParts);
        }
        if parts.len() > limits::PARTS_MAX {
            return Err(RecordError::TooManyParts { found: parts.len() });
        }
        Self::check_points(parts.iter().map(Part::pieces).sum())?;
        let texts = parts.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text),
            Part::Image(_) => None,
        });
        for (ordinal, text) in texts.enumerate() {
            text.check().map_err(|reason| RecordError::Chunks { ordinal, reason })?;
        }
        if attributes.len() > limits::ATTRIBUTES_MAX {
            return Err(RecordError::TooManyAttributes { found: attributes.len() });
        }
        for (name, value) in &attributes {
            check_attribute(name, value)
                .map_err(|reason| RecordError::Attribute { name: name.chars().take(64).collect(), reason })?;
        }
        Ok(Self { key, parts, attributes })
    }

    /// Checks how many embeddings a record takes, for those who know it before the record is there.
    ///
    /// # Errors
    /// [`RecordError::TooManyPoints`].
    pub fn check_points(found: usize) -> Result<(), RecordError> {
        if found > limits::POINTS_MAX { Err(RecordError::TooManyPoints { found }) } else { Ok(()) }
    }

    /// The record's name.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// All parts, in the order given.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// All parts, each under the name of the whole image or text.
    pub fn whole_parts(&self) -> impl Iterator<Item = (PartRef, &Part)> {
        let mut next = [0u32; 2];
        self.parts.iter().map(move |part| {
            let modality = part.modality();
            let ordinal = next[modality as usize];
            next[modality as usize] += 1;
            (PartRef::whole(modality, ordinal), part)
        })
    }

    /// Everything that is searched, in order: the parts, and for a long text its chunks in its place.
    pub fn part_refs(&self) -> impl Iterator<Item = (PartRef, &Part)> {
        self.whole_parts().flat_map(|(whole, part)| {
            let chunks = match part {
                Part::Text(text) => text.chunk_ends.len(),
                Part::Image(_) => 0,
            };
            let name = move |n| if chunks == 0 { whole } else { PartRef::chunk(whole.ordinal, n) };
            // A record has at most POINTS_MAX pieces.
            (0..chunks.max(1) as u32).map(move |n| (name(n), part))
        })
    }

    /// The image or text that a reference names or lies in, if the record has it.
    pub fn part(&self, wanted: PartRef) -> Option<&Part> {
        let whole = PartRef { chunk: None, ..wanted };
        let (_, part) = self.whole_parts().find(|&(found, _)| found == whole)?;
        match (wanted.chunk, part) {
            (None, part) => Some(part),
            (Some(n), Part::Text(text)) => text.chunk(n).map(|_| part),
            (Some(_), Part::Image(_)) => None,
        }
    }

    /// Attributes by name.
    pub fn attributes(&self) -> &Attributes {
        &self.attributes
    }
}

fn check_attribute(name: &str, value: &AttributeValue) -> Result<(), String> {
    if name.trim().is_empty() {
        return Err("the name is empty; give it one".to_owned());
    }
    if name.len() > limits::ATTRIBUTE_NAME_BYTES_MAX {
        return Err(format!(
            "the name has {} bytes, more than {}; shorten it",
            name.len(),
            limits::ATTRIBUTE_NAME_BYTES_MAX
        ));
    }
    let bytes = match value {
        AttributeValue::String(s) => s.len(),
        AttributeValue::List(items) => items.iter().map(String::len).sum(),
        AttributeValue::Float(v) if !v.is_finite() => {
            return Err("the value is not finite; leave the attribute out instead".to_owned());
        }
        AttributeValue::Float(_)
        | AttributeValue::Integer(_)
        | AttributeValue::Bool(_)
        | AttributeValue::Time(_) => 16,
    };
    if bytes > limits::ATTRIBUTE_VALUE_BYTES_MAX {
        return Err(format!(
            "the value has {bytes} bytes, more than {}; make it a text part instead",
            limits::ATTRIBUTE_VALUE_BYTES_MAX
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Digest, ImagePart, Modality, TextPart};

    fn text(s: &str) -> Part {
        Part::Text(TextPart::whole(s, 0))
    }

    fn image(source: &str) -> Part {
        Part::Image(ImagePart { source: source.to_owned(), digest: Digest([0; 32]), width: 1, height: 1 })
    }

    #[test]
    fn parts_are_counted_within_their_modality() {
        let key = Key::new("case-1").expect("valid");
        let record =
            Record::new(key, vec![text("a"), image("x"), text("b")], Attributes::new()).expect("valid");
        let refs: Vec<String> = record.part_refs().map(|(r, _)| r.to_string()).collect();
        assert_eq!(refs, ["text:0", "image:0", "text:1"]);
        let second: PartRef = "text:1".parse().expect("valid");
        assert_eq!(record.part(second), Some(&text("b")));
        assert_eq!(record.part("image:1".parse().expect("valid")), None);
    }

    #[test]
    fn a_long_text_is_searched_by_its_chunks_and_bounded() {
        let long = |chunk_ends: Vec<u32>| {
            let text = "x".repeat(*chunk_ends.last().expect("some") as usize);
            Part::Text(TextPart { chunk_ends, ..TextPart::whole(text, 0) })
        };
        let record = |parts| Record::new(Key::new("k").expect("valid"), parts, Attributes::new());
        let found = record(vec![text("a"), long(vec![2, 5, 9]), text("b")]).expect("valid");
        let refs: Vec<String> = found.part_refs().map(|(r, _)| r.to_string()).collect();
        assert_eq!(refs, ["text:0", "text:1#0", "text:1#1", "text:1#2", "text:2"]);
        let whole: Vec<String> = found.whole_parts().map(|(r, _)| r.to_string()).collect();
        assert_eq!(whole, ["text:0", "text:1", "text:2"]);
        assert_eq!(found.part(PartRef::chunk(1, 2)), found.parts().get(1));
        assert_eq!(found.part(PartRef::whole(Modality::Text, 1)), found.parts().get(1));
        assert_eq!(found.part(PartRef::chunk(1, 3)), None);
        assert_eq!(found.part(PartRef::chunk(0, 0)), None);

        let ends = |n: usize| (1..=n as u32).collect::<Vec<u32>>();
        assert!(record(vec![long(ends(limits::POINTS_MAX))]).is_ok());
        let error = record(vec![text("a"), long(ends(limits::POINTS_MAX))]).expect_err("one too many");
        assert_eq!(error, RecordError::TooManyPoints { found: limits::POINTS_MAX + 1 });
        let torn = Part::Text(TextPart { chunk_ends: vec![1], ..TextPart::whole("abc", 0) });
        let error = record(vec![text("a"), torn]).expect_err("torn");
        assert!(matches!(error, RecordError::Chunks { ordinal: 1, .. }), "{error}");
    }

    #[test]
    fn keys_that_would_mislead_are_refused() {
        assert!(matches!(Key::new("  "), Err(NameError::Empty { .. })));
        assert!(matches!(Key::new("a\0b"), Err(NameError::Character { code: 0, position: 1, .. })));
        assert!(matches!(Key::new("a\u{202E}gpj.exe"), Err(NameError::Character { .. })));
        assert!(matches!(Key::new("x".repeat(513)), Err(NameError::TooLong { .. })));
        assert!(Key::new("p11/s55935845 (2).jpg – Zürich").is_ok());
        assert!(CollectionName::new("no/slash").is_err());
    }

    #[test]
    fn a_record_needs_a_part_and_finite_attributes() {
        let key = Key::new("k").expect("valid");
        assert_eq!(Record::new(key.clone(), vec![], Attributes::new()), Err(RecordError::NoParts));
        let attributes = Attributes::from([("age".to_owned(), AttributeValue::Float(f64::NAN))]);
        assert!(matches!(Record::new(key, vec![text("a")], attributes), Err(RecordError::Attribute { .. })));
    }
}
