//! What is asked of a collection, and what it answers.

use diptych_core::{CollectionName, Query, QuerySource};
use diptych_engine::{Found, Plan, SearchOutcome};
use diptych_proto::v1 as wire;
use tonic::Status;

use super::filter::filter_from_wire;
use super::record::{attributes_to_wire, part_to_wire};
use super::{collection_from_wire, key_from_wire, part_ref_from_wire, refused, required_modality};

const K_DEFAULT: u32 = 10;

pub(crate) fn search_from_wire(request: wire::SearchRequest) -> Result<(CollectionName, Query), Status> {
    use wire::search_request::Query as WireQuery;
    let wire::SearchRequest { collection, query, target, k, ef, filter, target_recall } = request;
    let source = match query {
        None => {
            return Err(Status::invalid_argument(
                "the request has no query; set one of text, image, key and vector",
            ));
        }
        Some(WireQuery::Text(text)) => QuerySource::Text(text),
        Some(WireQuery::Image(bytes)) => QuerySource::Image(bytes),
        Some(WireQuery::Key(wire::KeyQuery { key, part })) => {
            QuerySource::Key { key: key_from_wire(key)?, part: part.map(part_ref_from_wire).transpose()? }
        }
        Some(WireQuery::Vector(vector)) => QuerySource::Vector(vector.values),
    };
    let target = required_modality(target, "target")?;
    let mut query = Query::new(source, target, u64::from(k.unwrap_or(K_DEFAULT)), ef).map_err(refused)?;
    if let Some(recall) = target_recall {
        query = query.with_target_recall(recall).map_err(refused)?;
    }
    if let Some(filter) = filter {
        query = query.with_filter(filter_from_wire(filter)?);
    }
    Ok((collection_from_wire(collection)?, query))
}

pub(crate) fn search_to_wire(outcome: SearchOutcome) -> wire::SearchResponse {
    let micros = |d: std::time::Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
    let times = outcome.times;
    wire::SearchResponse {
        hits: outcome.hits.into_iter().map(hit_to_wire).collect(),
        stats: Some(wire::SearchStats {
            searched_points: outcome.searched_points as u64,
            encode_micros: micros(times.encode),
            search_micros: micros(times.search),
            fetch_micros: micros(times.fetch),
            truncated_tokens: outcome.truncated_tokens,
            plan: plan_to_wire(outcome.plan) as i32,
            matching_points: outcome.matching_points,
            ef: outcome.ef.map(|ef| ef as u64),
            notes: outcome.notes,
        }),
    }
}

fn plan_to_wire(plan: Plan) -> wire::SearchPlan {
    match plan {
        Plan::Scan => wire::SearchPlan::Scan,
        Plan::Walk => wire::SearchPlan::Walk,
        Plan::TwoHop => wire::SearchPlan::TwoHop,
    }
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

fn hit_to_wire(Found { hit, record }: Found) -> wire::Hit {
    wire::Hit {
        key: hit.key.to_string(),
        score: hit.score,
        part: Some(part_to_wire(hit.part, record.part(hit.part))),
        attributes: attributes_to_wire(record.attributes()),
    }
}
