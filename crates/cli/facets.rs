//! Counted values of attributes: as they are asked for, printed and written as JSON.

use anyhow::Result;
use diptych_core::Facet;
use diptych_proto::v1 as wire;
use diptych_server::filter_value_from_wire;
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

pub fn to_wire(facets: &[Facet]) -> Vec<wire::Facet> {
    let limit = |facet: &Facet| u32::try_from(facet.limit()).expect("a facet's limit is bounded");
    let each = facets.iter();
    each.map(|of| wire::Facet { attribute: of.attribute().to_owned(), limit: limit(of) }).collect()
}

/// A line per attribute, and one per value below it.
pub fn print(counts: &[wire::FacetCounts]) -> Result<()> {
    for of in counts {
        let values = output::count(of.distinct_values, "value");
        let shown = match of.values.len() as u64 {
            all if all == of.distinct_values => String::new(),
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

pub fn json(counts: &[wire::FacetCounts]) -> Value {
    let value = |of: &wire::FacetValue| json!({"value": typed(of), "records": of.records});
    let attribute = |of: &wire::FacetCounts| {
        json!({
            "attribute": of.attribute,
            "records": of.records,
            "distinct_values": of.distinct_values,
            "values": of.values.iter().map(value).collect::<Vec<_>>(),
        })
    };
    counts.iter().map(attribute).collect()
}

fn spelt(of: &wire::FacetValue) -> String {
    match typed(of) {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

fn typed(of: &wire::FacetValue) -> Value {
    use diptych_core::{FilterValue, Number};
    match of.value.clone().and_then(|value| filter_value_from_wire(value, "").ok()) {
        Some(FilterValue::Text(text)) => json!(text),
        Some(FilterValue::Number(Number::Integer(v))) => json!(v),
        Some(FilterValue::Number(Number::Float(v))) => json!(v),
        Some(FilterValue::Bool(v)) => json!(v),
        Some(FilterValue::Time(v)) => json!(v.to_string()),
        None => Value::Null,
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
