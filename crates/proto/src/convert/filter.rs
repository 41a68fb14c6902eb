//! Conditions on attributes.

use diptych_core::{Comparison, Condition, Filter, FilterValue, Number};

use super::{WireError, short, time_from_wire, time_to_wire};
use crate::v1 as wire;

/// A filter of the wire.
///
/// # Errors
/// [`WireError`] when a condition is not set, or the filter is refused.
pub fn filter_from_wire(filter: wire::Filter) -> Result<Filter, WireError> {
    Filter::new(condition_from_wire(filter)?).map_err(WireError::new)
}

/// As deep as the message, whose depth its decoder bounds.
fn condition_from_wire(filter: wire::Filter) -> Result<Condition, WireError> {
    use wire::filter::Condition as Wire;
    let list = |list: wire::FilterList| {
        list.filters.into_iter().map(condition_from_wire).collect::<Result<Vec<_>, WireError>>()
    };
    let unset = "a filter has no condition; set one of compare, one_of, has, starts_with, exists, all, any and negation";
    Ok(match filter.condition.ok_or_else(|| WireError::new(unset))? {
        Wire::Compare(wire::AttributeComparison { attribute, operator, value }) => Condition::Compare {
            comparison: comparison_from_wire(operator, &attribute)?,
            value: filter_value_from_wire(value.unwrap_or_default(), &attribute)?,
            attribute,
        },
        Wire::OneOf(wire::AttributeIn { attribute, values }) => {
            let values = values.into_iter().map(|value| filter_value_from_wire(value, &attribute));
            Condition::In { values: values.collect::<Result<_, _>>()?, attribute }
        }
        Wire::Has(wire::AttributeHas { attribute, text }) => Condition::Has { attribute, text },
        Wire::StartsWith(wire::AttributePrefix { attribute, prefix }) => {
            Condition::StartsWith { attribute, prefix }
        }
        Wire::Exists(attribute) => Condition::Exists { attribute },
        Wire::All(all) => Condition::All(list(all)?),
        Wire::Any(any) => Condition::Any(list(any)?),
        Wire::Negation(inner) => Condition::Not(Box::new(condition_from_wire(*inner)?)),
    })
}

fn comparison_from_wire(operator: i32, attribute: &str) -> Result<Comparison, WireError> {
    use wire::ComparisonOperator as Wire;
    match Wire::try_from(operator) {
        Ok(Wire::Equal) => Ok(Comparison::Equal),
        Ok(Wire::NotEqual) => Ok(Comparison::NotEqual),
        Ok(Wire::Less) => Ok(Comparison::Less),
        Ok(Wire::LessOrEqual) => Ok(Comparison::LessOrEqual),
        Ok(Wire::Greater) => Ok(Comparison::Greater),
        Ok(Wire::GreaterOrEqual) => Ok(Comparison::GreaterOrEqual),
        Ok(Wire::Unspecified) | Err(_) => Err(WireError::new(format_args!(
            "the filter compares attribute '{attribute}' with no known operator; set one such as \
             COMPARISON_OPERATOR_EQUAL"
        ))),
    }
}

/// What an attribute is compared with, of the wire.
///
/// # Errors
/// [`WireError`] naming an attribute whose value is not set.
pub(super) fn filter_value_from_wire(
    value: wire::FilterValue,
    attribute: &str,
) -> Result<FilterValue, WireError> {
    use wire::filter_value::Value;
    match value.value {
        Some(Value::StringValue(text)) => Ok(FilterValue::Text(text)),
        Some(Value::IntegerValue(v)) => Ok(FilterValue::Number(Number::Integer(v))),
        Some(Value::FloatValue(v)) => Ok(FilterValue::Number(Number::Float(v))),
        Some(Value::BoolValue(v)) => Ok(FilterValue::Bool(v)),
        Some(Value::TimeValue(v)) => {
            let what = format!("the filter's attribute '{}'", short(attribute));
            Ok(FilterValue::Time(time_from_wire(v, &what)?))
        }
        None => Err(WireError::new(format_args!(
            "the filter compares attribute '{attribute}' with no value; set one"
        ))),
    }
}

/// A filter for the wire.
pub fn filter_to_wire(filter: &Filter) -> wire::Filter {
    condition_to_wire(filter.condition())
}

fn condition_to_wire(condition: &Condition) -> wire::Filter {
    use wire::filter::Condition as Wire;
    let list = |all: &[Condition]| wire::FilterList { filters: all.iter().map(condition_to_wire).collect() };
    let condition = match condition {
        Condition::Compare { attribute, comparison, value } => Wire::Compare(wire::AttributeComparison {
            attribute: attribute.clone(),
            operator: comparison_to_wire(*comparison) as i32,
            value: Some(filter_value_to_wire(value)),
        }),
        Condition::In { attribute, values } => Wire::OneOf(wire::AttributeIn {
            attribute: attribute.clone(),
            values: values.iter().map(filter_value_to_wire).collect(),
        }),
        Condition::Has { attribute, text } => {
            Wire::Has(wire::AttributeHas { attribute: attribute.clone(), text: text.clone() })
        }
        Condition::StartsWith { attribute, prefix } => {
            Wire::StartsWith(wire::AttributePrefix { attribute: attribute.clone(), prefix: prefix.clone() })
        }
        Condition::Exists { attribute } => Wire::Exists(attribute.clone()),
        Condition::All(all) => Wire::All(list(all)),
        Condition::Any(any) => Wire::Any(list(any)),
        Condition::Not(inner) => Wire::Negation(Box::new(condition_to_wire(inner))),
    };
    wire::Filter { condition: Some(condition) }
}

fn comparison_to_wire(comparison: Comparison) -> wire::ComparisonOperator {
    use wire::ComparisonOperator as Wire;
    match comparison {
        Comparison::Equal => Wire::Equal,
        Comparison::NotEqual => Wire::NotEqual,
        Comparison::Less => Wire::Less,
        Comparison::LessOrEqual => Wire::LessOrEqual,
        Comparison::Greater => Wire::Greater,
        Comparison::GreaterOrEqual => Wire::GreaterOrEqual,
    }
}

pub(super) fn filter_value_to_wire(value: &FilterValue) -> wire::FilterValue {
    use wire::filter_value::Value;
    let value = match value {
        FilterValue::Text(text) => Value::StringValue(text.clone()),
        FilterValue::Number(Number::Integer(v)) => Value::IntegerValue(*v),
        FilterValue::Number(Number::Float(v)) => Value::FloatValue(*v),
        FilterValue::Bool(v) => Value::BoolValue(*v),
        FilterValue::Time(v) => Value::TimeValue(time_to_wire(*v)),
    };
    wire::FilterValue { value: Some(value) }
}
