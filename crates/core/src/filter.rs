//! Conditions on the attributes of records.
//!
//! Owns: what a filter is, which filters are valid, and what they mean ([`Filter::matches`] is the
//! reference that faster evaluations must agree with), and their written form (in `parse` and `write`).
//! Deliberately absent: sets of records, and everything that makes filtering fast.

mod number;
mod parse;
#[cfg(test)]
mod tests;
mod write;

use std::cmp::Ordering;

use crate::limits::{
    ATTRIBUTE_NAME_BYTES_MAX, ATTRIBUTE_VALUE_BYTES_MAX, FILTER_DEPTH_MAX, FILTER_PREFIX_BYTES_MAX,
    FILTER_VALUES_MAX,
};
use crate::{AttributeValue, Attributes, Time};

pub use number::Number;

/// What an attribute is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilterValue {
    /// Text; equal when every character is.
    Text(String),
    /// A finite number.
    Number(Number),
    /// A truth value.
    Bool(bool),
    /// A moment.
    Time(Time),
}

impl FilterValue {
    /// Whether an attribute is this value. A list is no single value, so it never is.
    fn equals(&self, attribute: &AttributeValue) -> bool {
        match (self, attribute) {
            (Self::Text(a), AttributeValue::String(b)) => a == b,
            (Self::Bool(a), AttributeValue::Bool(b)) => a == b,
            (Self::Time(a), AttributeValue::Time(b)) => a == b,
            (Self::Number(a), b) => number(b).is_some_and(|b| *a == b),
            _ => false,
        }
    }
}

/// The number in an attribute, if it is one.
fn number(attribute: &AttributeValue) -> Option<Number> {
    match attribute {
        AttributeValue::Integer(v) => Some(Number::Integer(*v)),
        AttributeValue::Float(v) => Some(Number::Float(*v)),
        AttributeValue::String(_)
        | AttributeValue::List(_)
        | AttributeValue::Bool(_)
        | AttributeValue::Time(_) => None,
    }
}

/// How an attribute is compared with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// The same value.
    Equal,
    /// Anything but that value, also no value at all: the negation of [`Self::Equal`].
    NotEqual,
    /// A smaller number, or an earlier time.
    Less,
    /// A smaller number or the same; times likewise.
    LessOrEqual,
    /// A greater number, or a later time.
    Greater,
    /// A greater number or the same; times likewise.
    GreaterOrEqual,
}

impl Comparison {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }

    /// Whether it compares sizes, and so numbers and times only.
    fn orders(self) -> bool {
        !matches!(self, Self::Equal | Self::NotEqual)
    }
}

/// A condition, not yet checked. An attribute that a record lacks meets no condition but
/// [`Comparison::NotEqual`]; so does one that holds another type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// An attribute compared with one value.
    Compare {
        /// The attribute's name.
        attribute: String,
        /// How.
        comparison: Comparison,
        /// With what.
        value: FilterValue,
    },
    /// An attribute equal to one of several values.
    In {
        /// The attribute's name.
        attribute: String,
        /// At least one.
        values: Vec<FilterValue>,
    },
    /// A list of texts that contains a text.
    Has {
        /// The attribute's name.
        attribute: String,
        /// The text.
        text: String,
    },
    /// A text that begins with a text.
    StartsWith {
        /// The attribute's name.
        attribute: String,
        /// What it begins with, 1 to [`FILTER_PREFIX_BYTES_MAX`] bytes.
        prefix: String,
    },
    /// An attribute that is there, with any value.
    Exists {
        /// The attribute's name.
        attribute: String,
    },
    /// Every one of at least one condition.
    All(Vec<Condition>),
    /// At least one of at least one condition.
    Any(Vec<Condition>),
    /// The contrary.
    Not(Box<Condition>),
}

/// A condition on the attributes of a record, within bounds. Written like
/// `view = "PA" and age >= 40 and not labels has "normal"`; that form parses back to the same filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter(Condition);

/// Why a filter is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// The written form cannot be read.
    #[error("the filter is not understood at character {position}, {place}: {hint}")]
    Syntax {
        /// Counted from 1.
        position: usize,
        /// What stands there.
        place: String,
        /// What to write.
        hint: String,
    },
    /// Conditions within conditions beyond the bound.
    #[error(
        "the filter nests more than {FILTER_DEPTH_MAX} conditions; join them with one 'and' or 'or' instead"
    )]
    TooDeep,
    /// More values than the bound.
    #[error("the filter names {found} values, more than {FILTER_VALUES_MAX}; search in several steps")]
    TooMany {
        /// Values, and conditions without one.
        found: usize,
    },
    /// An `and`, `or` or `in` of nothing.
    #[error("'{what}' has nothing to choose from; give it at least one {of}")]
    Empty {
        /// Which.
        what: &'static str,
        /// Of what.
        of: &'static str,
    },
    /// A name or value that no attribute can have.
    #[error("the filter's attribute '{name}': {reason}")]
    Attribute {
        /// The attribute's name, cut to 64 characters.
        name: String,
        /// What is wrong and what would be right.
        reason: String,
    },
}

impl Filter {
    /// Checks a condition: at most [`FILTER_DEPTH_MAX`] conditions within each other, at most
    /// [`FILTER_VALUES_MAX`] values, finite numbers, sizes of numbers and times only, names and texts that
    /// attributes can have. `All` and `Any` of a single condition are replaced by that condition.
    ///
    /// # Errors
    /// See [`FilterError`].
    pub fn new(condition: Condition) -> Result<Self, FilterError> {
        let condition = simplify(condition, FILTER_DEPTH_MAX)?;
        let found = values(&condition);
        if found > FILTER_VALUES_MAX {
            return Err(FilterError::TooMany { found });
        }
        Ok(Self(condition))
    }

    /// The condition.
    pub fn condition(&self) -> &Condition {
        &self.0
    }

    /// What meets this filter and another.
    ///
    /// # Errors
    /// As [`Filter::new`], when both together are out of bounds.
    pub fn and(&self, other: &Self) -> Result<Self, FilterError> {
        Self::new(Condition::All(vec![self.0.clone(), other.0.clone()]))
    }

    /// Whether a record with these attributes meets the filter.
    pub fn matches(&self, attributes: &Attributes) -> bool {
        matches(&self.0, attributes)
    }
}

/// Checks a condition of at most `depth` levels and removes `All` and `Any` around a single one.
fn simplify(condition: Condition, depth: usize) -> Result<Condition, FilterError> {
    let depth = depth.checked_sub(1).ok_or(FilterError::TooDeep)?;
    Ok(match condition {
        Condition::All(inner) => match several("and", inner, depth)? {
            Ok(one) => one,
            Err(all) => Condition::All(all),
        },
        Condition::Any(inner) => match several("or", inner, depth)? {
            Ok(one) => one,
            Err(any) => Condition::Any(any),
        },
        Condition::Not(inner) => Condition::Not(Box::new(simplify(*inner, depth)?)),
        leaf => {
            check_leaf(&leaf)?;
            leaf
        }
    })
}

/// The checked conditions; as `Ok` when it is a single one.
fn several(
    what: &'static str,
    inner: Vec<Condition>,
    depth: usize,
) -> Result<Result<Condition, Vec<Condition>>, FilterError> {
    let mut checked =
        inner.into_iter().map(|condition| simplify(condition, depth)).collect::<Result<Vec<_>, _>>()?;
    match checked.len() {
        0 => Err(FilterError::Empty { what, of: "condition" }),
        1 => Ok(Ok(checked.remove(0))),
        _ => Ok(Err(checked)),
    }
}

fn check_leaf(leaf: &Condition) -> Result<(), FilterError> {
    let (attribute, checked) = match leaf {
        Condition::Compare { attribute, comparison, value } => {
            let ordered =
                !comparison.orders() || matches!(value, FilterValue::Number(_) | FilterValue::Time(_));
            let refuse = || {
                let written = comparison.as_str();
                format!("'{written}' compares numbers and times; use '=' or 'in' for other values")
            };
            (attribute, if ordered { check_value(value) } else { Err(refuse()) })
        }
        Condition::In { attribute, values } => {
            if values.is_empty() {
                return Err(FilterError::Empty { what: "in", of: "value" });
            }
            (attribute, values.iter().try_for_each(check_value))
        }
        Condition::Has { attribute, text } => {
            (attribute, check_text("text", text, ATTRIBUTE_VALUE_BYTES_MAX))
        }
        Condition::StartsWith { attribute, prefix } => (attribute, check_prefix(prefix)),
        Condition::Exists { attribute } => (attribute, Ok(())),
        Condition::All(_) | Condition::Any(_) | Condition::Not(_) => return Ok(()),
    };
    let named = if attribute.trim().is_empty() {
        Err("the name is empty; give the attribute's name".to_owned())
    } else {
        check_text("name", attribute, ATTRIBUTE_NAME_BYTES_MAX)
    };
    named
        .and(checked)
        .map_err(|reason| FilterError::Attribute { name: attribute.chars().take(64).collect(), reason })
}

fn check_value(value: &FilterValue) -> Result<(), String> {
    match value {
        FilterValue::Text(text) => check_text("text", text, ATTRIBUTE_VALUE_BYTES_MAX),
        FilterValue::Number(number) if !number.is_finite() => {
            Err("the number is not finite; use 'exists' to ask for any value".to_owned())
        }
        FilterValue::Number(_) | FilterValue::Bool(_) | FilterValue::Time(_) => Ok(()),
    }
}

fn check_prefix(prefix: &str) -> Result<(), String> {
    match prefix.len() {
        0 => Err("it begins with nothing; use 'exists' to ask for any value".to_owned()),
        n if n > FILTER_PREFIX_BYTES_MAX => {
            Err(format!("the beginning has {n} bytes, more than {FILTER_PREFIX_BYTES_MAX}; shorten it"))
        }
        _ => Ok(()),
    }
}

fn check_text(what: &str, text: &str, max: usize) -> Result<(), String> {
    if text.len() > max {
        return Err(format!("the {what} has {} bytes, and no attribute has more than {max}", text.len()));
    }
    Ok(())
}

/// Values of a condition; a leaf without one counts as one.
fn values(condition: &Condition) -> usize {
    match condition {
        Condition::In { values, .. } => values.len(),
        Condition::Compare { .. }
        | Condition::Has { .. }
        | Condition::StartsWith { .. }
        | Condition::Exists { .. } => 1,
        Condition::All(inner) | Condition::Any(inner) => inner.iter().map(values).sum(),
        Condition::Not(inner) => values(inner),
    }
}

fn matches(condition: &Condition, attributes: &Attributes) -> bool {
    match condition {
        Condition::Compare { attribute, comparison, value } => {
            compares(attributes.get(attribute), *comparison, value)
        }
        Condition::In { attribute, values } => {
            attributes.get(attribute).is_some_and(|found| values.iter().any(|value| value.equals(found)))
        }
        Condition::Has { attribute, text } => match attributes.get(attribute) {
            Some(AttributeValue::List(items)) => items.contains(text),
            _ => false,
        },
        Condition::StartsWith { attribute, prefix } => match attributes.get(attribute) {
            Some(AttributeValue::String(text)) => text.starts_with(prefix),
            _ => false,
        },
        Condition::Exists { attribute } => attributes.contains_key(attribute),
        Condition::All(inner) => inner.iter().all(|condition| matches(condition, attributes)),
        Condition::Any(inner) => inner.iter().any(|condition| matches(condition, attributes)),
        Condition::Not(inner) => !matches(inner, attributes),
    }
}

fn compares(found: Option<&AttributeValue>, comparison: Comparison, value: &FilterValue) -> bool {
    let order = || match (found.and_then(number), value) {
        (Some(found), FilterValue::Number(value)) => Some(found.cmp(value)),
        (None, FilterValue::Time(value)) => match found {
            Some(AttributeValue::Time(found)) => Some(found.cmp(value)),
            _ => None,
        },
        _ => None,
    };
    match comparison {
        Comparison::Equal => found.is_some_and(|found| value.equals(found)),
        Comparison::NotEqual => !found.is_some_and(|found| value.equals(found)),
        Comparison::Less => order().is_some_and(Ordering::is_lt),
        Comparison::LessOrEqual => order().is_some_and(Ordering::is_le),
        Comparison::Greater => order().is_some_and(Ordering::is_gt),
        Comparison::GreaterOrEqual => order().is_some_and(Ordering::is_ge),
    }
}
