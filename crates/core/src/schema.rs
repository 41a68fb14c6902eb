//! Attribute schemas: which attributes the records of a collection may have, and of which type.
//!
//! Owns: what a schema is, which are valid, and how attributes are held against one. Deliberately
//! absent: where a schema is kept.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::limits::{ATTRIBUTE_NAME_BYTES_MAX, ATTRIBUTES_MAX};
use crate::{AttributeValue, Attributes};

/// Whole numbers up to this size are floats exactly.
const EXACT_MAX: u64 = 1 << 53;

/// The type of an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AttributeType {
    /// Text.
    String,
    /// Several texts.
    List,
    /// A whole number.
    Integer,
    /// A number.
    Float,
    /// A truth value.
    Bool,
    /// A moment.
    Time,
}

impl AttributeType {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::String, Self::List, Self::Integer, Self::Float, Self::Bool, Self::Time];

    /// The type of a value.
    pub fn of(value: &AttributeValue) -> Self {
        match value {
            AttributeValue::String(_) => Self::String,
            AttributeValue::List(_) => Self::List,
            AttributeValue::Integer(_) => Self::Integer,
            AttributeValue::Float(_) => Self::Float,
            AttributeValue::Bool(_) => Self::Bool,
            AttributeValue::Time(_) => Self::Time,
        }
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::List => "list",
            Self::Integer => "integer",
            Self::Float => "float",
            Self::Bool => "bool",
            Self::Time => "time",
        }
    }
}

impl fmt::Display for AttributeType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for AttributeType {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::as_str).join(", ");
        let found = Self::ALL.into_iter().find(|t| t.as_str() == s);
        found.ok_or_else(|| format!("'{s}' is no attribute type; use one of {}", names()))
    }
}

/// What the attributes of a collection's records are. The default asks for nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttributeSchema {
    types: BTreeMap<String, AttributeType>,
    open: bool,
}

/// Why a schema is refused, or attributes by one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// A schema that no record could meet.
    #[error("the schema is refused: {reason}")]
    Invalid {
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A value of another type.
    #[error("attribute '{name}' is {found}, and the collection's schema says {wanted}; send it as {wanted}")]
    Type {
        /// The attribute's name, cut to 64 characters.
        name: String,
        /// What was found.
        found: String,
        /// The type in the schema.
        wanted: AttributeType,
    },
    /// An attribute that the schema does not name.
    #[error(
        "attribute '{name}' ({found}) is not in the collection's schema, which allows {allowed}; leave it out"
    )]
    Unknown {
        /// The attribute's name, cut to 64 characters.
        name: String,
        /// Its type.
        found: AttributeType,
        /// What there may be.
        allowed: String,
    },
}

impl Default for AttributeSchema {
    fn default() -> Self {
        Self { types: BTreeMap::new(), open: true }
    }
}

impl AttributeSchema {
    /// A schema with these types; `open` when records may have other attributes, too.
    ///
    /// # Errors
    /// [`SchemaError::Invalid`] with more names than a record can have, or one it cannot have.
    pub fn new(types: BTreeMap<String, AttributeType>, open: bool) -> Result<Self, SchemaError> {
        if types.len() > ATTRIBUTES_MAX {
            let reason = format!("it names {} attributes, more than {ATTRIBUTES_MAX}", types.len());
            return Err(SchemaError::Invalid { reason });
        }
        for name in types.keys() {
            if name.trim().is_empty() {
                let reason = "the name of an attribute is empty; give it one".to_owned();
                return Err(SchemaError::Invalid { reason });
            }
            if name.len() > ATTRIBUTE_NAME_BYTES_MAX {
                let reason = format!(
                    "the name '{}' has {} bytes, more than {ATTRIBUTE_NAME_BYTES_MAX}; shorten it",
                    short(name),
                    name.len()
                );
                return Err(SchemaError::Invalid { reason });
            }
        }
        Ok(Self { types, open })
    }

    /// The types, by name.
    pub fn types(&self) -> &BTreeMap<String, AttributeType> {
        &self.types
    }

    /// Whether records may have attributes that it does not name.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Holds attributes against the schema. A text where it says time is read as RFC 3339, and a whole
    /// number where it says float becomes one if that is exact, since JSON can write neither; all else
    /// stays as it is. A record need not have every attribute.
    ///
    /// # Errors
    /// [`SchemaError::Type`] or [`SchemaError::Unknown`].
    pub fn conform(&self, attributes: &mut Attributes) -> Result<(), SchemaError> {
        for (name, value) in attributes {
            let found = AttributeType::of(value);
            let Some(&wanted) = self.types.get(name) else {
                if self.open {
                    continue;
                }
                return Err(SchemaError::Unknown { name: short(name), found, allowed: self.allowed() });
            };
            if found == wanted {
                continue;
            }
            match converted(value, wanted) {
                Some(value_of_type) => *value = value_of_type,
                None => {
                    return Err(SchemaError::Type { name: short(name), found: shown(value), wanted });
                }
            }
        }
        Ok(())
    }

    fn allowed(&self) -> String {
        let names: Vec<&str> = self.types.keys().map(String::as_str).take(20).collect();
        let more = if self.types.len() > names.len() { " and others" } else { "" };
        if names.is_empty() { "none".to_owned() } else { format!("{}{more}", names.join(", ")) }
    }
}

fn converted(value: &AttributeValue, wanted: AttributeType) -> Option<AttributeValue> {
    match (value, wanted) {
        (AttributeValue::String(text), AttributeType::Time) => text.parse().ok().map(AttributeValue::Time),
        (AttributeValue::Integer(v), AttributeType::Float) if v.unsigned_abs() <= EXACT_MAX => {
            Some(AttributeValue::Float(*v as f64))
        }
        _ => None,
    }
}

/// A value in words, short enough for a message.
fn shown(value: &AttributeValue) -> String {
    match value {
        AttributeValue::String(text) => format!("the string '{}'", short(text)),
        AttributeValue::List(items) => format!("a list of {} strings", items.len()),
        AttributeValue::Integer(v) => format!("the integer {v}"),
        AttributeValue::Float(v) => format!("the float {v}"),
        AttributeValue::Bool(v) => format!("the bool {v}"),
        AttributeValue::Time(v) => format!("the time {v}"),
    }
}

fn short(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn schema(types: &[(&str, AttributeType)], open: bool) -> AttributeSchema {
        AttributeSchema::new(types.iter().map(|&(n, t)| (n.to_owned(), t)).collect(), open).unwrap()
    }

    fn conformed(
        schema: &AttributeSchema,
        name: &str,
        value: AttributeValue,
    ) -> Result<AttributeValue, String> {
        let mut attributes = Attributes::from([(name.to_owned(), value)]);
        schema.conform(&mut attributes).map_err(|e| e.to_string())?;
        Ok(attributes.remove(name).unwrap())
    }

    #[test]
    fn values_are_held_against_the_schema() {
        use AttributeValue::{Bool, Float, Integer, String};
        let text = |s: &str| String(s.to_owned());
        let strict = schema(&[("taken", AttributeType::Time), ("dose", AttributeType::Float)], false);
        let time = AttributeValue::Time("2024-01-31".parse().unwrap());
        assert_eq!(conformed(&strict, "taken", text("2024-01-31")), Ok(time.clone()));
        assert_eq!(conformed(&strict, "taken", time.clone()), Ok(time));
        assert_eq!(conformed(&strict, "dose", Integer(3)), Ok(Float(3.0)));
        for (name, value, says) in [
            (
                "taken",
                text("yesterday"),
                "'taken' is the string 'yesterday', and the collection's schema says time",
            ),
            ("taken", Integer(3), "the integer 3"),
            ("dose", Integer(i64::MAX), "says float"),
            ("dose", Bool(true), "the bool true"),
            ("ward", Bool(true), "'ward' (bool) is not in the collection's schema, which allows dose, taken"),
        ] {
            let said = conformed(&strict, name, value).unwrap_err();
            assert!(said.contains(says), "{said}");
        }
        let open = schema(&[("age", AttributeType::Integer)], true);
        assert_eq!(conformed(&open, "ward", Bool(true)), Ok(Bool(true)));
        assert!(conformed(&open, "age", Float(3.0)).is_err(), "a float is no integer");
    }

    #[test]
    fn schemas_that_no_record_could_meet_are_refused() {
        let named =
            |name: std::string::String| AttributeSchema::new([(name, AttributeType::Bool)].into(), true);
        assert!(named(" ".to_owned()).is_err() && named("n".repeat(ATTRIBUTE_NAME_BYTES_MAX + 1)).is_err());
        let many = (0..=ATTRIBUTES_MAX).map(|n| (n.to_string(), AttributeType::Bool)).collect();
        assert!(AttributeSchema::new(many, true).is_err());
        assert_eq!("time".parse(), Ok(AttributeType::Time));
        assert!("date".parse::<AttributeType>().unwrap_err().contains("string, list"));
    }
}
