//! Attributes whose values are counted.

use diptych_core::Facet;
use diptych_proto::v1 as wire;
use tonic::Status;

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
