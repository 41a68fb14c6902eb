//! What is asked of a collection, and what it answers.

use diptych_core::limits::K_MAX;
use diptych_core::{CollectionName, Digest, ModelId, Query, QuerySource, Shape, Target, Term};
use diptych_engine::{Found, SearchOutcome};
use diptych_proto::convert::{
    attributes_to_wire, facet_counts_to_wire, filter_from_wire, lexical_from_wire, part_ref_from_wire,
    plan_to_wire, required_modality,
};
use diptych_proto::v1 as wire;
use prost::Message;
use tonic::Status;

use super::facet::facets_from_wire;
use super::mask::{HitMask, hit_mask_from_wire};
use super::record::part_to_wire;
use super::{collection_from_wire, key_from_wire, refused};
use crate::observe::micros;

const K_DEFAULT: u32 = 10;

/// A search of the wire, and what its answer says of it.
pub(crate) struct SearchCall {
    pub collection: CollectionName,
    pub query: Query,
    pub asked: Asked,
}

/// What an answer says of its question.
pub(crate) struct Asked {
    /// Over all of the request but the page token.
    digest: Digest,
    /// The request without the bytes of images and the components of vectors.
    parameters: wire::SearchRequest,
    mask: HitMask,
}

pub(crate) fn search_from_wire(mut request: wire::SearchRequest) -> Result<SearchCall, Status> {
    let digest = digest_of(&mut request);
    call_from_wire(request, digest)
}

/// The same for every page: the page token, which is put aside meanwhile, does not count.
fn digest_of(request: &mut wire::SearchRequest) -> Digest {
    let page_token = std::mem::take(&mut request.page_token);
    let digest = Digest(*blake3::hash(&request.encode_to_vec()).as_bytes());
    request.page_token = page_token;
    digest
}

fn call_from_wire(mut request: wire::SearchRequest, digest: Digest) -> Result<SearchCall, Status> {
    let offset = offset_from_wire(&request.page_token, &digest)?;
    let (single, terms) = (request.query.take(), std::mem::take(&mut request.terms));
    let mut parameters = request.clone();
    parameters.query = single.as_ref().map(without_content);
    parameters.terms = terms.iter().map(term_without_content).collect();
    let mask = hit_mask_from_wire(request.read_mask.as_ref())?;
    let lexical = request.lexical.map(lexical_from_wire);
    let no_terms = single.is_none() && terms.is_empty();
    let target = match wire::Modality::try_from(request.target) {
        Ok(wire::Modality::Unspecified) => Target::Both,
        _ => Target::Only(required_modality(request.target, "target")?),
    };
    let k = u64::from(request.k.unwrap_or(K_DEFAULT));
    let query = match lexical {
        Some(lexical) if no_terms => Query::words(lexical, target, k),
        lexical => {
            let query = Query::composed(terms_from_wire(single, terms)?, target, k, request.ef);
            query.and_then(|query| match lexical {
                Some(lexical) => query.with_lexical(lexical),
                None => Ok(query),
            })
        }
    };
    let mut query = query.map_err(refused)?.with_thumbnails(request.thumbnails);
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
    let facets = facets_from_wire(request.facets)?;
    let query = query.with_shape(shape).and_then(|query| query.with_facets(facets)).map_err(refused)?;
    let asked = Asked { digest, parameters, mask };
    Ok(SearchCall { collection: collection_from_wire(request.collection)?, query, asked })
}

/// The request that a replay asks again: the one that comes with it, else what the receipt holds of it.
pub(crate) fn replayed(request: &wire::ReplayRequest) -> Option<&wire::SearchRequest> {
    request.request.as_ref().or(request.receipt.as_ref()?.parameters.as_ref())
}

/// The search of a receipt, as it was done, and the receipt.
pub(crate) fn replay_from_wire(request: wire::ReplayRequest) -> Result<(SearchCall, wire::Receipt), Status> {
    let invalid = |message: &str| Err(Status::invalid_argument(message));
    let Some(receipt) = request.receipt else {
        return invalid("the request has no receipt; send that of an earlier answer");
    };
    let digest: [u8; 32] = match receipt.request_digest.as_slice().try_into() {
        Ok(digest) => digest,
        Err(_) => {
            return invalid("the receipt has no digest of a request; send it whole, as it was answered");
        }
    };
    let digest = Digest(digest);
    let Some(mut parameters) = receipt.parameters.clone() else {
        return invalid("the receipt has no parameters; send it whole, as it was answered");
    };
    match request.request {
        Some(mut given) => {
            if digest_of(&mut given) != digest {
                return invalid("the request is not the one that the receipt is of; send that one, or none");
            }
            (parameters.query, parameters.terms) = (given.query, given.terms);
        }
        None if lacks_content(&parameters) => {
            return invalid(
                "the request had images or vectors of its own, which a receipt does not hold; send it, too",
            );
        }
        None => {}
    }
    Ok((call_from_wire(parameters, digest)?, receipt))
}

/// What a search was asked by, without images and vectors.
fn without_content(query: &wire::search_request::Query) -> wire::search_request::Query {
    use wire::search_request::Query;
    match query {
        Query::Image(_) => Query::Image(Vec::new()),
        Query::Vector(_) => Query::Vector(wire::Vector::default()),
        Query::Text(_) | Query::Key(_) => query.clone(),
    }
}

fn term_without_content(term: &wire::QueryTerm) -> wire::QueryTerm {
    use wire::query_term::Source;
    let source = term.source.as_ref().map(|source| match source {
        Source::Image(_) => Source::Image(Vec::new()),
        Source::Vector(_) => Source::Vector(wire::Vector::default()),
        Source::Text(_) | Source::Key(_) => source.clone(),
    });
    wire::QueryTerm { source, weight: term.weight }
}

/// Whether images or vectors have been left out.
fn lacks_content(request: &wire::SearchRequest) -> bool {
    use wire::query_term::Source;
    use wire::search_request::Query;
    matches!(request.query, Some(Query::Image(_) | Query::Vector(_)))
        || request.terms.iter().any(|term| matches!(term.source, Some(Source::Image(_) | Source::Vector(_))))
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
                "the request has no query; set one of text, image, key and vector, or terms, or lexical",
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
        Some(Source::Key(key)) => key_query_from_wire(key)?,
        Some(Source::Vector(vector)) => QuerySource::Vector(vector.values),
    };
    Term::new(source, term.weight.unwrap_or(1.0)).map_err(refused)
}

/// A stored record to start from.
pub(super) fn key_query_from_wire(query: wire::KeyQuery) -> Result<QuerySource, Status> {
    let wire::KeyQuery { key, part } = query;
    Ok(QuerySource::Key { key: key_from_wire(key)?, part: part.map(part_ref_from_wire).transpose()? })
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
    asked: Asked,
    model: ModelId,
) -> wire::SearchResponse {
    let Asked { digest, mut parameters, mask } = asked;
    let times = outcome.times;
    let shown = query.shape().offset + outcome.hits.len();
    let next_page_token = match outcome.more && shown < K_MAX {
        true => format!("{shown:x}-{}", short(&digest)),
        false => String::new(),
    };
    if let Some(ef) = outcome.ef {
        (parameters.ef, parameters.target_recall) = (Some(ef as u64), None);
    }
    let receipt = wire::Receipt {
        model_id: model.to_string(),
        generation: outcome.seq,
        request_digest: digest.0.to_vec(),
        parameters: Some(parameters),
        hits_digest: digest_of_hits(&outcome.hits).0.to_vec(),
    };
    let to_wire = |found: Vec<Found>| found.into_iter().map(|found| mask.apply(hit_to_wire(found))).collect();
    wire::SearchResponse {
        no_good_match: outcome.hits.is_empty() && !outcome.below.is_empty(),
        hits: to_wire(outcome.hits),
        below: to_wire(outcome.below),
        next_page_token,
        receipt: Some(receipt),
        facets: outcome.facets.into_iter().map(facet_counts_to_wire).collect(),
        stats: Some(wire::SearchStats {
            searched_points: outcome.searched_points as u64,
            encode_micros: micros(times.encode),
            search_micros: micros(times.search),
            fetch_micros: micros(times.fetch),
            facet_micros: micros(times.facets),
            truncated_tokens: outcome.truncated_tokens,
            plan: plan_to_wire(outcome.plan),
            matching_points: outcome.matching_points,
            ef: outcome.ef.map(|ef| ef as u64),
            notes: outcome.notes,
            lexical_micros: micros(times.lexical),
            lexical_matches: outcome.lexical_matches,
        }),
    }
}

/// Over keys, parts and scores, in order.
fn digest_of_hits(hits: &[Found]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for Found { hit, .. } in hits {
        let key = hit.key.as_str().as_bytes();
        hasher.update(&(key.len() as u64).to_le_bytes());
        hasher.update(key);
        hasher.update(hit.part.to_string().as_bytes());
        hasher.update(&hit.score.to_bits().to_le_bytes());
    }
    Digest(*hasher.finalize().as_bytes())
}

fn hit_to_wire(found: Found) -> wire::Hit {
    let Found { hit, relevance, term_scores, lexical, record, thumbnail, .. } = found;
    wire::Hit {
        key: hit.key.to_string(),
        score: hit.score,
        part: Some(part_to_wire(hit.part, record.part(hit.part))),
        attributes: attributes_to_wire(record.attributes()),
        relevance,
        term_scores,
        lexical_score: lexical.map(|found| found.score),
        lexical_part: lexical.map(|found| part_to_wire(found.part, record.part(found.part))),
        thumbnail: thumbnail.unwrap_or_default(),
    }
}
