//! Records: what a collection holds and how its things are named.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::limits;

/// Which side of the shared space a part lies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Modality {
    /// Pixels.
    Image,
    /// Words.
    Text,
}

impl Modality {
    /// Both, in the order in which they are stored.
    pub const ALL: [Self; 2] = [Self::Image, Self::Text];

    /// The name used in output and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Text => "text",
        }
    }
}

impl fmt::Display for Modality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Modality {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "image" => Ok(Self::Image),
            "text" => Ok(Self::Text),
            other => Err(format!("unknown modality '{other}'; use 'image' or 'text'")),
        }
    }
}

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
        check_length("key", &key, limits::KEY_BYTES_MAX)?;
        match key.char_indices().find(|&(_, c)| c.is_control() || is_bidi_control(c)) {
            Some((position, c)) => Err(NameError::Character {
                what: "key",
                code: c as u32,
                position,
                hint: "remove control and text-direction characters",
            }),
            None => Ok(Self(key)),
        }
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

/// The identity of one vector. Given out by the store, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PointId(pub u64);

/// Which part of a record: the `ordinal`-th image or the `ordinal`-th text, counted from 0 within
/// its modality. Written `image:0`, `text:2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartRef {
    /// Image or text.
    pub modality: Modality,
    /// Position among the record's parts of that modality.
    pub ordinal: u32,
}

impl fmt::Display for PartRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.modality, self.ordinal)
    }
}

impl FromStr for PartRef {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let wrong = || format!("'{s}' is not a part; write it like 'image:0' or 'text:2'");
        let (modality, ordinal) = s.split_once(':').ok_or_else(wrong)?;
        Ok(Self {
            modality: modality.parse().map_err(|_| wrong())?,
            ordinal: ordinal.parse().map_err(|_| wrong())?,
        })
    }
}

/// A BLAKE3 digest of some content.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// What is kept of an image: where it came from and what it was, not its pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePart {
    /// Path or name the image was read from; free text, may be empty.
    pub source: String,
    /// Digest of the encoded file.
    pub digest: Digest,
    /// Width in pixels, after EXIF orientation.
    pub width: u32,
    /// Height in pixels, after EXIF orientation.
    pub height: u32,
}

/// One text of a record, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextPart {
    /// The text as given.
    pub text: String,
    /// Tokens beyond the model's context, which its embedding does not see.
    pub truncated_tokens: u32,
}

/// One searchable piece of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// An image.
    Image(ImagePart),
    /// A text.
    Text(TextPart),
}

impl Part {
    /// The side of the shared space this part lies on.
    pub fn modality(&self) -> Modality {
        match self {
            Self::Image(_) => Modality::Image,
            Self::Text(_) => Modality::Text,
        }
    }
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
        if attributes.len() > limits::ATTRIBUTES_MAX {
            return Err(RecordError::TooManyAttributes { found: attributes.len() });
        }
        for (name, value) in &attributes {
            check_attribute(name, value)
                .map_err(|reason| RecordError::Attribute { name: name.chars().take(64).collect(), reason })?;
        }
        Ok(Self { key, parts, attributes })
    }

    /// The record's name.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// All parts, in the order given.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// All parts with their references.
    pub fn part_refs(&self) -> impl Iterator<Item = (PartRef, &Part)> {
        let mut next = [0u32; 2];
        self.parts.iter().map(move |part| {
            let modality = part.modality();
            let ordinal = next[modality as usize];
            next[modality as usize] += 1;
            (PartRef { modality, ordinal }, part)
        })
    }

    /// One part, if the record has it.
    pub fn part(&self, wanted: PartRef) -> Option<&Part> {
        self.part_refs().find(|&(found, _)| found == wanted).map(|(_, part)| part)
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
        AttributeValue::Float(_) | AttributeValue::Integer(_) | AttributeValue::Bool(_) => 8,
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

    fn text(s: &str) -> Part {
        Part::Text(TextPart { text: s.to_owned(), truncated_tokens: 0 })
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
