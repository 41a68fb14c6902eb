//! Attributes whose values are counted, and the counts.

use diptych_core::{Facet, FacetCounts, FacetValue};

use super::WireError;
use super::filter::{filter_value_from_wire, filter_value_to_wire};
use crate::v1 as wire;

/// An attribute to be counted, for the wire.
pub fn facet_to_wire(facet: &Facet) -> wire::Facet {
    let limit = u32::try_from(facet.limit()).expect("the values of a facet are bounded");
    wire::Facet { attribute: facet.attribute().to_owned(), limit }
}

/// The counts of one attribute, for the wire.
pub fn facet_counts_to_wire(counts: FacetCounts) -> wire::FacetCounts {
    let values = counts
        .values
        .iter()
        .map(|of| wire::FacetValue { value: Some(filter_value_to_wire(&of.value)), records: of.records });
    wire::FacetCounts {
        values: values.collect(),
        attribute: counts.attribute,
        records: counts.records,
        distinct_values: counts.distinct,
    }
}

/// The counts of one attribute, of the wire.
///
/// # Errors
/// [`WireError`] when a value is not set.
pub fn facet_counts_from_wire(counts: wire::FacetCounts) -> Result<FacetCounts, WireError> {
    let wire::FacetCounts { attribute, records, values, distinct_values } = counts;
    let value = |of: wire::FacetValue| {
        let value = filter_value_from_wire(of.value.unwrap_or_default(), &attribute)?;
        Ok(FacetValue { value, records: of.records })
    };
    let values = values.into_iter().map(value).collect::<Result<_, WireError>>()?;
    Ok(FacetCounts { attribute, records, values, distinct: distinct_values })
}
