//! Filters in their written form, as `parse` reads them.

use std::fmt;

use super::{Condition, Filter, FilterValue, Number, parse};

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_condition(f, &self.0)
    }
}

fn write_condition(f: &mut fmt::Formatter<'_>, condition: &Condition) -> fmt::Result {
    match condition {
        Condition::Compare { attribute, comparison, value } => {
            write_name(f, attribute)?;
            write!(f, " {} ", comparison.as_str())?;
            write_value(f, value)
        }
        Condition::In { attribute, values } => {
            write_name(f, attribute)?;
            f.write_str(" in (")?;
            for (n, value) in values.iter().enumerate() {
                f.write_str(if n == 0 { "" } else { ", " })?;
                write_value(f, value)?;
            }
            f.write_str(")")
        }
        Condition::Has { attribute, text } => {
            write_name(f, attribute)?;
            f.write_str(" has ")?;
            write_text(f, text)
        }
        Condition::StartsWith { attribute, prefix } => {
            write_name(f, attribute)?;
            f.write_str(" starts_with ")?;
            write_text(f, prefix)
        }
        Condition::Exists { attribute } => {
            f.write_str("exists ")?;
            write_name(f, attribute)
        }
        Condition::All(inner) => write_joined(f, inner, " and "),
        Condition::Any(inner) => write_joined(f, inner, " or "),
        Condition::Not(inner) => {
            f.write_str("not ")?;
            write_operand(f, inner)
        }
    }
}

fn write_joined(f: &mut fmt::Formatter<'_>, inner: &[Condition], by: &str) -> fmt::Result {
    for (n, condition) in inner.iter().enumerate() {
        f.write_str(if n == 0 { "" } else { by })?;
        write_operand(f, condition)?;
    }
    Ok(())
}

/// A condition within another: in parentheses when it joins several.
fn write_operand(f: &mut fmt::Formatter<'_>, condition: &Condition) -> fmt::Result {
    if !matches!(condition, Condition::All(_) | Condition::Any(_)) {
        return write_condition(f, condition);
    }
    f.write_str("(")?;
    write_condition(f, condition)?;
    f.write_str(")")
}

fn write_name(f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
    if parse::is_bare_name(name) { f.write_str(name) } else { write!(f, "`{}`", name.replace('`', "``")) }
}

fn write_value(f: &mut fmt::Formatter<'_>, value: &FilterValue) -> fmt::Result {
    match value {
        FilterValue::Text(text) => write_text(f, text),
        FilterValue::Number(Number::Integer(v)) => write!(f, "{v}"),
        // Unlike `{}`, always with a point or an exponent.
        FilterValue::Number(Number::Float(v)) => write!(f, "{v:?}"),
        FilterValue::Bool(v) => write!(f, "{v}"),
        FilterValue::Time(v) => write!(f, "time(\"{v}\")"),
    }
}

fn write_text(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("\"")?;
    for c in text.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            c => write!(f, "{c}")?,
        }
    }
    f.write_str("\"")
}
