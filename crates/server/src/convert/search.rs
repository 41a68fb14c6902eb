//! What is asked of a collection, and what it answers.

use diptych_core::limits::K_MAX;
use diptych_core::{CollectionName, Digest, ModelId, Query, QuerySource, Shape, Target, Term};
use diptych_engine::{Found, Plan, SearchOutcome};
use diptych_proto::v1 as wire;
use prost::Message;
use tonic::Status;

use super::filter::filter_from_wire;
use super::record::{attributes_to_wire, part_to_wire};
use super::{collection_from_wire, key_from_wire, part_ref_from_wire, refused, required_modality};

const K_DEFAULT: u32 = 10;

/// A search of the wire, and the digest that its receipt and page tokens carry.
pub(crate) struct SearchCall {
    pub collection: CollectionName,
    pub query: Query,
    pub digest: Digest,
}

pub(crate) fn search_from_wire(mut request: wire::SearchRequest) -> Result<SearchCall, Status> {
    let page_token = std::mem::take(&mut request.page_token);
    let digest = Digest(*blake3::hash(&request.encode_to_vec()).as_bytes());
    let offset = offset_from_wire(&page_token, &digest)?;
    let terms = terms_from_wire(request.query, request.terms)?;
    let target = match wire::Modality::try_from(request.target) {
        Ok(wire::Modality::Unspecified) => Target::Both,
        _ => Target::Only(required_modality(request.target, "target")?),
    };
    let k = u64::from(request.k.unwrap_or(K_DEFAULT));
    let mut query = Query::composed(terms, target, k, request.ef).map_err(refused)?;
    if let Some(recall) = request.target_recall {
        query = query.with_target_recall(recall).map_err(refused)?;
    }
    if let Some(filter) = request.filter {
        query = query.with_filter(filter_from_wire(filter)?);
    }
    let named = |name: String| Some(name).filter(|name| !name.is_empty());
    let shape = Shape {
        min_relevance: request.min_relevance,
        exclude_same: named(request.exclude_same),
        group_by: named(request.group_by),
        collapse: request.collapse,
        diversity: request.diversity,
        offset,
    };
    let query = query.with_shape(shape).map_err(refused)?;
    Ok(SearchCall { collection: collection_from_wire(request.collection)?, query, digest })
}

fn terms_from_wire(
    single: Option<wire::search_request::Query>,
    terms: Vec<wire::QueryTerm>,
) -> Result<Vec<Term>, Status> {
    use wire::query_term::Source;
    use wire::search_request::Query;
    let terms = match (single, terms) {
        (None, terms) if terms.is_empty() => {
            return Err(Status::invalid_argument(
                "the request has no query; set one of text, image, key and vector, or terms",
            ));
        }
        (None, terms) => terms,
        (Some(single), terms) if terms.is_empty() => {
            let source = match single {
                Query::Text(text) => Source::Text(text),
                Query::Image(bytes) => Source::Image(bytes),
                Query::Key(key) => Source::Key(key),
                Query::Vector(vector) => Source::Vector(vector),
            };
            vec![wire::QueryTerm { source: Some(source), weight: None }]
        }
        _ => {
            return Err(Status::invalid_argument(
                "the request has terms and a query of its own; make that one of the terms",
            ));
        }
    };
    terms.into_iter().map(term_from_wire).collect()
}

fn term_from_wire(term: wire::QueryTerm) -> Result<Term, Status> {
    use wire::query_term::Source;
    let source = match term.source {
        None => {
            return Err(Status::invalid_argument(
                "a term is empty; set one of text, image, key and vector in it",
            ));
        }
        Some(Source::Text(text)) => QuerySource::Text(text),
        Some(Source::Image(bytes)) => QuerySource::Image(bytes),
        Some(Source::Key(wire::KeyQuery { key, part })) => {
            QuerySource::Key { key: key_from_wire(key)?, part: part.map(part_ref_from_wire).transpose()? }
        }
        Some(Source::Vector(vector)) => QuerySource::Vector(vector.values),
    };
    Term::new(source, term.weight.unwrap_or(1.0)).map_err(refused)
}

/// The records that the pages before have shown. A token is the number of them and the beginning of the
/// digest of the request that it goes on with.
fn offset_from_wire(token: &str, digest: &Digest) -> Result<usize, Status> {
    if token.is_empty() {
        return Ok(0);
    }
    let (offset, query) = token.split_once('-').unwrap_or((token, ""));
    match usize::from_str_radix(offset, 16) {
        Ok(_) if query != short(digest) => Err(Status::invalid_argument(
            "the page token belongs to another request; send it with the same one, page_token aside",
        )),
        Ok(offset) => Ok(offset),
        Err(_) => {
            Err(Status::invalid_argument("the page token is not one of this server's; start without one"))
        }
    }
}

fn short(digest: &Digest) -> String {
    digest.0[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn search_to_wire(
    outcome: SearchOutcome,
    query: &Query,
    digest: Digest,
    model: ModelId,
) -> wire::SearchResponse {
    let micros = |d: std::time::Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
    let times = outcome.times;
    let shown = query.shape().offset + outcome.hits.len();
    let next_page_token = match outcome.more && shown < K_MAX {
        true => format!("{shown:x}-{}", short(&digest)),
        false => String::new(),
    };
    wire::SearchResponse {
        no_good_match: outcome.hits.is_empty() && !outcome.below.is_empty(),
        hits: outcome.hits.into_iter().map(hit_to_wire).collect(),
        below: outcome.below.into_iter().map(hit_to_wire).collect(),
        next_page_token,
        receipt: Some(wire::Receipt {
            model_id: model.to_string(),
            generation: outcome.seq,
            request_digest: digest.0.to_vec(),
        }),
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

fn hit_to_wire(Found { hit, relevance, term_scores, record }: Found) -> wire::Hit {
    wire::Hit {
        key: hit.key.to_string(),
        score: hit.score,
        part: Some(part_to_wire(hit.part, record.part(hit.part))),
        attributes: attributes_to_wire(record.attributes()),
        relevance,
        term_scores,
    }
}
