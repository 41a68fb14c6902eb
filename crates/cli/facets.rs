//! Counted values of attributes: as they are asked for, printed and written as JSON.

use anyhow::Result;
use diptych_core::{Facet, FacetCounts, FacetValue, FilterValue, Number};
use serde_json::{Value, json};

use crate::output;

/// Values of an attribute that are counted when nothing is said.
const LIMIT: usize = 10;

/// An attribute, with the number of values wanted behind a colon: `labels:20`.
pub fn parse(text: &str) -> Result<Facet, String> {
    let (name, limit) = match text.rsplit_once(':') {
        Some((name, limit)) => {
            let limit =
                limit.parse().map_err(|_| "write an attribute, or one and a number, such as labels:20")?;
            (name, limit)
        }
        None => (text, LIMIT),
    };
    Facet::new(name, limit).map_err(|e| e.to_string())
}

/// A line per attribute, and one per value below it.
pub fn print(counts: &[FacetCounts]) -> Result<()> {
    for of in counts {
        let values = output::count(of.distinct, "value");
        let shown = match of.values.len() as u64 {
            all if all == of.distinct => String::new(),
            some => format!(", the first {some}"),
        };
        output::line(&format!(
            "{}: {} with {values}{shown}",
            of.attribute,
            output::count(of.records, "record")
        ))?;
        for value in &of.values {
            output::line(&format!("{:>9}  {}", value.records, output::shorten(&spelt(value), 80)))?;
        }
    }
    Ok(())
}

pub fn json(counts: &[FacetCounts]) -> Value {
    let value = |of: &FacetValue| json!({"value": typed(of), "records": of.records});
    let attribute = |of: &FacetCounts| {
        json!({
            "attribute": of.attribute,
            "records": of.records,
            "distinct_values": of.distinct,
            "values": of.values.iter().map(value).collect::<Vec<_>>(),
        })
    };
    counts.iter().map(attribute).collect()
}

fn spelt(of: &FacetValue) -> String {
    match typed(of) {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

fn typed(of: &FacetValue) -> Value {
    match &of.value {
        FilterValue::Text(text) => json!(text),
        FilterValue::Number(Number::Integer(v)) => json!(v),
        FilterValue::Number(Number::Float(v)) => json!(v),
        FilterValue::Bool(v) => json!(v),
        FilterValue::Time(v) => json!(v.to_string()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_facet_is_a_name_and_perhaps_a_number() {
        assert_eq!(parse("sex"), Ok(Facet::new("sex", LIMIT).unwrap()));
        assert_eq!(parse("a:b:20"), Ok(Facet::new("a:b", 20).unwrap()));
        for (wrong, says) in [("", "names no attribute"), ("a:", "such as labels:20"), ("a:0", "1 to 1000")] {
            assert!(parse(wrong).unwrap_err().contains(says), "{wrong}");
        }
    }
}
