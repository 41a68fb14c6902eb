//! Core values to the wire and back, where both ends of it need that.
//!
//! Owns: modalities, parts, times, attributes, schemas, filters. Deliberately absent: whole requests and answers, of
//! which the server reads what a client writes, and the other way round.

mod facet;
mod filter;
mod lexical;

use std::collections::HashMap;
use std::fmt;

use diptych_core::{
    AttributeSchema, AttributeType, AttributeValue, Attributes, Modality, PartRef, Plan, SchemaError, Time,
};

use crate::{Timestamp, v1 as wire};

pub use facet::{facet_counts_from_wire, facet_counts_to_wire, facet_to_wire};
pub use filter::{filter_from_wire, filter_to_wire};
pub use lexical::{lexical_from_wire, lexical_to_wire};

/// Why a message stands for no value: what is wrong with it and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireError(String);

impl WireError {
    pub(crate) fn new(reason: impl fmt::Display) -> Self {
        Self(reason.to_string())
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WireError {}

impl From<WireError> for tonic::Status {
    fn from(error: WireError) -> Self {
        Self::invalid_argument(error.0)
    }
}

/// A modality of the wire, if it is a known one.
pub fn modality_from_wire(modality: i32) -> Option<Modality> {
    match wire::Modality::try_from(modality) {
        Ok(wire::Modality::Image) => Some(Modality::Image),
        Ok(wire::Modality::Text) => Some(Modality::Text),
        Ok(wire::Modality::Unspecified) | Err(_) => None,
    }
}

/// A modality for the wire.
pub fn modality_to_wire(modality: Modality) -> i32 {
    match modality {
        Modality::Image => wire::Modality::Image as i32,
        Modality::Text => wire::Modality::Text as i32,
    }
}

/// A modality of the wire, in a field that must be set.
///
/// # Errors
/// [`WireError`] naming the field when it is not.
pub fn required_modality(modality: i32, field: &str) -> Result<Modality, WireError> {
    modality_from_wire(modality).ok_or_else(|| {
        WireError::new(format_args!(
            "{field} is not set to a known modality; use MODALITY_IMAGE or MODALITY_TEXT"
        ))
    })
}

/// A part of the wire.
///
/// # Errors
/// [`WireError`] when its modality is none.
pub fn part_ref_from_wire(part: wire::PartRef) -> Result<PartRef, WireError> {
    let modality = required_modality(part.modality, "part.modality")?;
    Ok(PartRef { modality, ordinal: part.ordinal, chunk: part.chunk })
}

/// A part for the wire.
pub fn part_ref_to_wire(part: PartRef) -> wire::PartRef {
    let PartRef { modality, ordinal, chunk } = part;
    wire::PartRef { modality: modality_to_wire(modality), ordinal, chunk }
}

/// A plan of the wire, if it is a known one.
pub fn plan_from_wire(plan: i32) -> Option<Plan> {
    match wire::SearchPlan::try_from(plan) {
        Ok(wire::SearchPlan::Scan) => Some(Plan::Scan),
        Ok(wire::SearchPlan::Walk) => Some(Plan::Walk),
        Ok(wire::SearchPlan::TwoHop) => Some(Plan::TwoHop),
        Ok(wire::SearchPlan::Unspecified) | Err(_) => None,
    }
}

/// A plan for the wire.
pub fn plan_to_wire(plan: Plan) -> i32 {
    let plan = match plan {
        Plan::Scan => wire::SearchPlan::Scan,
        Plan::Walk => wire::SearchPlan::Walk,
        Plan::TwoHop => wire::SearchPlan::TwoHop,
    };
    plan as i32
}

/// A moment of the wire; `what` it is of is said when it is none.
///
/// # Errors
/// [`WireError`] outside the years 1 to 9999, or with more than a second of nanoseconds.
pub fn time_from_wire(time: Timestamp, what: &str) -> Result<Time, WireError> {
    let nanos = u32::try_from(time.nanos).unwrap_or(u32::MAX);
    Time::new(time.seconds, nanos).map_err(|error| WireError::new(format_args!("{what}: {error}")))
}

/// A moment for the wire.
pub fn time_to_wire(time: Time) -> Timestamp {
    let nanos = i32::try_from(time.nanos()).expect("a time has less than 10^9 nanoseconds");
    Timestamp { seconds: time.seconds(), nanos }
}

/// Attributes for the wire.
pub fn attributes_to_wire(attributes: &Attributes) -> HashMap<String, wire::AttributeValue> {
    use wire::attribute_value::Value;
    let value = |value: &AttributeValue| match value {
        AttributeValue::String(s) => Value::StringValue(s.clone()),
        AttributeValue::List(items) => Value::ListValue(wire::StringList { values: items.clone() }),
        AttributeValue::Integer(v) => Value::IntegerValue(*v),
        AttributeValue::Float(v) => Value::FloatValue(*v),
        AttributeValue::Bool(v) => Value::BoolValue(*v),
        AttributeValue::Time(v) => Value::TimeValue(time_to_wire(*v)),
    };
    attributes
        .iter()
        .map(|(name, v)| (name.clone(), wire::AttributeValue { value: Some(value(v)) }))
        .collect()
}

/// Attributes of the wire.
///
/// # Errors
/// [`WireError`] naming an attribute whose value is not set, or no moment.
pub fn attributes_from_wire(
    attributes: HashMap<String, wire::AttributeValue>,
) -> Result<Attributes, WireError> {
    attributes
        .into_iter()
        .map(|(name, value)| {
            let value = attribute_from_wire(&name, value)?;
            Ok((name, value))
        })
        .collect()
}

/// One attribute of the wire.
///
/// # Errors
/// As [`attributes_from_wire`].
pub fn attribute_from_wire(name: &str, value: wire::AttributeValue) -> Result<AttributeValue, WireError> {
    use wire::attribute_value::Value;
    let named = || format!("attribute '{}'", short(name));
    match value.value {
        Some(Value::StringValue(s)) => Ok(AttributeValue::String(s)),
        Some(Value::ListValue(list)) => Ok(AttributeValue::List(list.values)),
        Some(Value::IntegerValue(v)) => Ok(AttributeValue::Integer(v)),
        Some(Value::FloatValue(v)) => Ok(AttributeValue::Float(v)),
        Some(Value::BoolValue(v)) => Ok(AttributeValue::Bool(v)),
        Some(Value::TimeValue(v)) => Ok(AttributeValue::Time(time_from_wire(v, &named())?)),
        None => {
            Err(WireError::new(format_args!("{} has no value; set one or leave the attribute out", named())))
        }
    }
}

/// A schema of the wire; none asks for nothing.
///
/// # Errors
/// [`WireError`] with a type that is none, or where the schema is refused.
pub fn schema_from_wire(schema: Option<wire::AttributeSchema>) -> Result<AttributeSchema, WireError> {
    let Some(wire::AttributeSchema { types, closed }) = schema else { return Ok(AttributeSchema::default()) };
    let types = types.into_iter().map(|(name, of)| match type_from_wire(of) {
        Some(of) => Ok((name, of)),
        None => {
            let reason = format!(
                "attribute '{}' has no known type; set one such as ATTRIBUTE_TYPE_STRING",
                short(&name)
            );
            Err(WireError::new(SchemaError::Invalid { reason }))
        }
    });
    AttributeSchema::new(types.collect::<Result<_, _>>()?, !closed).map_err(WireError::new)
}

/// A schema for the wire.
pub fn schema_to_wire(schema: &AttributeSchema) -> wire::AttributeSchema {
    let types = schema.types().iter().map(|(name, &of)| (name.clone(), type_to_wire(of)));
    wire::AttributeSchema { types: types.collect(), closed: !schema.is_open() }
}

fn type_from_wire(of: i32) -> Option<AttributeType> {
    AttributeType::ALL.into_iter().find(|&known| type_to_wire(known) == of)
}

fn type_to_wire(of: AttributeType) -> i32 {
    let of = match of {
        AttributeType::String => wire::AttributeType::String,
        AttributeType::List => wire::AttributeType::List,
        AttributeType::Integer => wire::AttributeType::Integer,
        AttributeType::Float => wire::AttributeType::Float,
        AttributeType::Bool => wire::AttributeType::Bool,
        AttributeType::Time => wire::AttributeType::Time,
    };
    of as i32
}

fn short(name: &str) -> String {
    name.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_goes_over_the_wire_comes_back() {
        let time: Time = "2024-01-31T08:30:00.25Z".parse().unwrap();
        let attributes = Attributes::from([
            ("a".to_owned(), AttributeValue::Time(time)),
            ("b".to_owned(), AttributeValue::List(vec!["x".to_owned()])),
            ("c".to_owned(), AttributeValue::Integer(i64::MIN)),
        ]);
        assert_eq!(attributes_from_wire(attributes_to_wire(&attributes)), Ok(attributes));
        let types = AttributeType::ALL.into_iter().map(|of| (of.to_string(), of)).collect();
        let schema = AttributeSchema::new(types, false).unwrap();
        assert_eq!(schema_from_wire(Some(schema_to_wire(&schema))), Ok(schema));
        let part = PartRef::chunk(2, 7);
        assert_eq!(part_ref_from_wire(part_ref_to_wire(part)), Ok(part));
        for plan in [Plan::Scan, Plan::Walk, Plan::TwoHop] {
            assert_eq!(plan_from_wire(plan_to_wire(plan)), Some(plan));
        }
        let filter =
            r#"view in ("PA", "AP") and not (age >= 40 or taken < time("2024-01-31") or exists ward)"#;
        let filter = filter.parse().unwrap();
        assert_eq!(filter_from_wire(filter_to_wire(&filter)), Ok(filter));
    }

    #[test]
    fn what_is_no_value_is_refused_with_its_name() {
        let unset = wire::AttributeValue { value: None };
        let said = attribute_from_wire("age", unset).unwrap_err().to_string();
        assert!(said.contains("'age' has no value"), "{said}");
        let late = Timestamp { seconds: i64::MAX, nanos: 0 };
        let said = time_from_wire(late, "attribute 'taken'").unwrap_err().to_string();
        assert!(said.contains("'taken'") && said.contains("1 to 9999"), "{said}");
        assert_eq!(plan_from_wire(99), None);
        assert!(part_ref_from_wire(wire::PartRef::default()).is_err());
    }
}
