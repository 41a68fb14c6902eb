//! Attributes as JSON and back, and columns of other programs as attributes.

use diptych_core::{AttributeValue, Attributes, Time};
use parquet::record::Field;
use serde_json::{Map, Value, json};

/// Attributes as one JSON object. A moment is `{"time": "2024-01-31T00:00:00Z"}`; a number with a point or
/// an exponent is a float, one without an integer.
pub(crate) fn to_json(attributes: &Attributes) -> String {
    let value = |value: &AttributeValue| match value {
        AttributeValue::String(s) => json!(s),
        AttributeValue::List(items) => json!(items),
        AttributeValue::Integer(v) => json!(v),
        AttributeValue::Float(v) => json!(v),
        AttributeValue::Bool(v) => json!(v),
        AttributeValue::Time(v) => json!({"time": v.to_string()}),
    };
    let object: Map<String, Value> = attributes.iter().map(|(name, v)| (name.clone(), value(v))).collect();
    Value::Object(object).to_string()
}

/// Reads what [`to_json`] writes.
pub(crate) fn from_json(text: &str) -> Result<Attributes, String> {
    let object: Map<String, Value> =
        serde_json::from_str(text).map_err(|e| format!("its attributes are no JSON object: {e}"))?;
    object
        .into_iter()
        .map(|(name, value)| match attribute(value) {
            Some(value) => Ok((name, value)),
            None => Err(format!(
                "its attribute '{}' has a value that no attribute has; write a text, a list of texts, a number, true, \
                 false or {{\"time\": ...}}",
                name.chars().take(64).collect::<String>()
            )),
        })
        .collect()
}

fn attribute(value: Value) -> Option<AttributeValue> {
    Some(match value {
        Value::String(s) => AttributeValue::String(s),
        Value::Bool(v) => AttributeValue::Bool(v),
        Value::Number(n) => match n.as_i64() {
            Some(v) => AttributeValue::Integer(v),
            None if n.is_f64() => AttributeValue::Float(n.as_f64()?),
            None => return None,
        },
        Value::Array(items) => {
            let text = |item: Value| match item {
                Value::String(s) => Some(s),
                _ => None,
            };
            AttributeValue::List(items.into_iter().map(text).collect::<Option<_>>()?)
        }
        Value::Object(object) => match (object.len(), object.get("time")) {
            (1, Some(Value::String(time))) => AttributeValue::Time(time.parse().ok()?),
            _ => return None,
        },
        Value::Null => return None,
    })
}

/// What a cell of another program's column comes to.
pub(crate) enum Cell {
    /// An attribute.
    Value(AttributeValue),
    /// Nothing: there is no value, or no number.
    Empty,
    /// A value that no attribute has.
    Other,
}

/// A cell of a column as an attribute.
pub(crate) fn from_field(field: &Field) -> Cell {
    let time = |micros: i64| {
        let nanos = u32::try_from(micros.rem_euclid(1_000_000) * 1000).unwrap_or_default();
        Time::new(micros.div_euclid(1_000_000), nanos)
            .map_or(Cell::Other, |t| Cell::Value(AttributeValue::Time(t)))
    };
    let integer = |v: i64| Cell::Value(AttributeValue::Integer(v));
    let float = |v: f64| if v.is_finite() { Cell::Value(AttributeValue::Float(v)) } else { Cell::Empty };
    match field {
        Field::Null => Cell::Empty,
        Field::Bool(v) => Cell::Value(AttributeValue::Bool(*v)),
        Field::Byte(v) => integer((*v).into()),
        Field::Short(v) => integer((*v).into()),
        Field::Int(v) => integer((*v).into()),
        Field::Long(v) => integer(*v),
        Field::UByte(v) => integer((*v).into()),
        Field::UShort(v) => integer((*v).into()),
        Field::UInt(v) => integer((*v).into()),
        Field::ULong(v) => i64::try_from(*v).map_or(Cell::Other, integer),
        Field::Float16(v) => float((*v).into()),
        Field::Float(v) => float((*v).into()),
        Field::Double(v) => float(*v),
        Field::Str(v) => Cell::Value(AttributeValue::String(v.clone())),
        Field::Date(days) => i64::from(*days).checked_mul(86_400_000_000).map_or(Cell::Other, time),
        Field::TimestampMillis(v) => v.checked_mul(1000).map_or(Cell::Other, time),
        Field::TimestampMicros(v) => time(*v),
        Field::ListInternal(list) => {
            let text = |field: &Field| match field {
                Field::Str(s) => Some(s.clone()),
                _ => None,
            };
            let texts: Option<Vec<String>> = list.elements().iter().map(text).collect();
            texts.map_or(Cell::Other, |texts| Cell::Value(AttributeValue::List(texts)))
        }
        Field::Bytes(_)
        | Field::Decimal(_)
        | Field::TimeMillis(_)
        | Field::TimeMicros(_)
        | Field::Group(_)
        | Field::MapInternal(_) => Cell::Other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn attributes_keep_value_and_type() {
        let time = |t: &str| AttributeValue::Time(t.parse().unwrap());
        let attributes = Attributes::from(
            [
                ("text", AttributeValue::String("Zürich \"x\"\n".into())),
                ("empty", AttributeValue::List(Vec::new())),
                ("list", AttributeValue::List(vec!["a".into(), "".into()])),
                ("integer", AttributeValue::Integer(i64::MIN)),
                ("whole float", AttributeValue::Float(5.0)),
                ("small", AttributeValue::Float(-0.0)),
                ("large", AttributeValue::Float(1e300)),
                ("bool", AttributeValue::Bool(false)),
                ("time", time("2024-01-31T10:00:00.000000005Z")),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        let read = from_json(&to_json(&attributes)).unwrap();
        assert_eq!(read, attributes);
        assert!(matches!(read["whole float"], AttributeValue::Float(_)));
        for wrong in
            ["", "[]", "{\"a\": null}", "{\"a\": [1]}", "{\"a\": {\"time\": \"noon\"}}", "{\"a\": {}}"]
        {
            assert!(from_json(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn every_finite_number_is_read_as_it_was(v in any::<f64>().prop_filter("finite", |v| v.is_finite())) {
            let attributes = Attributes::from([("a".to_owned(), AttributeValue::Float(v))]);
            let read = from_json(&to_json(&attributes)).unwrap();
            let AttributeValue::Float(found) = read["a"] else { panic!("{read:?}") };
            prop_assert_eq!(found.to_bits(), v.to_bits());
        }
    }
}
