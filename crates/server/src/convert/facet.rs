//! Attributes whose values are counted, and the counts.

use diptych_core::Facet;
use diptych_engine::FacetCounts;
use diptych_proto::v1 as wire;
use tonic::Status;

use super::filter::value_to_wire;
use super::refused;

/// Values of a facet that are answered when nothing is said.
const LIMIT_DEFAULT: usize = 10;

pub(crate) fn facets_from_wire(facets: Vec<wire::Facet>) -> Result<Vec<Facet>, Status> {
    let facet = |wire::Facet { attribute, limit }| match limit {
        0 => Facet::new(attribute, LIMIT_DEFAULT),
        limit => Facet::new(attribute, usize::try_from(limit).unwrap_or(usize::MAX)),
    };
    facets.into_iter().map(|of| facet(of).map_err(refused)).collect()
}

pub(crate) fn facets_to_wire(counts: Vec<FacetCounts>) -> Vec<wire::FacetCounts> {
    counts.into_iter().map(to_wire).collect()
}

fn to_wire(counts: FacetCounts) -> wire::FacetCounts {
    let values = counts
        .values
        .iter()
        .map(|of| wire::FacetValue { value: Some(value_to_wire(&of.value)), records: of.records });
    wire::FacetCounts {
        values: values.collect(),
        attribute: counts.attribute,
        records: counts.records,
        distinct_values: counts.distinct,
    }
}
