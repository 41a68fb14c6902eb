//! Wire to core and back, all of it.

use std::ops::Range;

use diptych_core::{
    AttributeValue, Attributes, CollectionName, Comparison, Condition, Embedding, Filter, FilterValue, Key,
    Modality, Number, Part, PartRef, Query, QuerySource, TextPart,
};
use diptych_engine::{
    CacheStats, EngineError, Estimate, Found, IndexReport, IndexStats, NewImage, NewRecord, Outcome,
    Overview, Plan, PutMode, QueryKind, RecallReport, SearchOutcome, StoredRecord, TextTotals, Written,
};
use diptych_proto::v1 as wire;
use tonic::Status;

use crate::status;

const K_DEFAULT: u32 = 10;

pub(crate) fn collection_from_wire(name: String) -> Result<CollectionName, Status> {
    if name.is_empty() { Ok(CollectionName::default()) } else { CollectionName::new(name).map_err(refused) }
}

pub(crate) fn key_from_wire(key: String) -> Result<Key, Status> {
    Key::new(key).map_err(refused)
}

fn refused(error: impl Into<EngineError>) -> Status {
    status::from_engine(&error.into())
}

/// The key after which a page starts; tokens are opaque to clients.
pub(crate) fn page_token_from_wire(token: &str) -> Result<Option<Key>, Status> {
    if token.is_empty() {
        return Ok(None);
    }
    let bytes: Option<Vec<u8>> = token
        .as_bytes()
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok()))
        .collect();
    bytes
        .filter(|_| token.len().is_multiple_of(2))
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .and_then(|key| Key::new(key).ok())
        .map(Some)
        .ok_or_else(|| {
            Status::invalid_argument("the page token is not one of this server's; start without one")
        })
}

pub(crate) fn page_token_to_wire(last: &Key) -> String {
    last.as_str().bytes().map(|b| format!("{b:02x}")).collect()
}

/// A modality of the wire, if it is a known one.
pub fn modality_from_wire(modality: i32) -> Option<Modality> {
    match wire::Modality::try_from(modality) {
        Ok(wire::Modality::Image) => Some(Modality::Image),
        Ok(wire::Modality::Text) => Some(Modality::Text),
        Ok(wire::Modality::Unspecified) | Err(_) => None,
    }
}

/// A modality for the wire.
pub fn modality_to_wire(modality: Modality) -> i32 {
    match modality {
        Modality::Image => wire::Modality::Image as i32,
        Modality::Text => wire::Modality::Text as i32,
    }
}

fn required_modality(modality: i32, field: &str) -> Result<Modality, Status> {
    modality_from_wire(modality).ok_or_else(|| {
        Status::invalid_argument(format!(
            "{field} is not set to a known modality; use MODALITY_IMAGE or MODALITY_TEXT"
        ))
    })
}

fn part_ref_from_wire(part: wire::PartRef) -> Result<PartRef, Status> {
    let modality = required_modality(part.modality, "part.modality")?;
    Ok(PartRef { modality, ordinal: part.ordinal, chunk: part.chunk })
}

fn part_ref_to_wire(part: PartRef) -> wire::PartRef {
    let PartRef { modality, ordinal, chunk } = part;
    wire::PartRef { modality: modality_to_wire(modality), ordinal, chunk }
}

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

fn filter_from_wire(filter: wire::Filter) -> Result<Filter, Status> {
    Filter::new(condition_from_wire(filter)?).map_err(refused)
}

/// As deep as the message, whose depth its decoder bounds.
fn condition_from_wire(filter: wire::Filter) -> Result<Condition, Status> {
    use wire::filter::Condition as Wire;
    let list = |list: wire::FilterList| {
        list.filters.into_iter().map(condition_from_wire).collect::<Result<Vec<_>, Status>>()
    };
    let unset = "a filter has no condition; set one of compare, one_of, has, exists, all, any and negation";
    Ok(match filter.condition.ok_or_else(|| Status::invalid_argument(unset))? {
        Wire::Compare(wire::AttributeComparison { attribute, operator, value }) => Condition::Compare {
            comparison: comparison_from_wire(operator, &attribute)?,
            value: value_from_wire(value.unwrap_or_default(), &attribute)?,
            attribute,
        },
        Wire::OneOf(wire::AttributeIn { attribute, values }) => {
            let values = values.into_iter().map(|value| value_from_wire(value, &attribute));
            Condition::In { values: values.collect::<Result<_, _>>()?, attribute }
        }
        Wire::Has(wire::AttributeHas { attribute, text }) => Condition::Has { attribute, text },
        Wire::Exists(attribute) => Condition::Exists { attribute },
        Wire::All(all) => Condition::All(list(all)?),
        Wire::Any(any) => Condition::Any(list(any)?),
        Wire::Negation(inner) => Condition::Not(Box::new(condition_from_wire(*inner)?)),
    })
}

fn comparison_from_wire(operator: i32, attribute: &str) -> Result<Comparison, Status> {
    use wire::ComparisonOperator as Wire;
    match Wire::try_from(operator) {
        Ok(Wire::Equal) => Ok(Comparison::Equal),
        Ok(Wire::NotEqual) => Ok(Comparison::NotEqual),
        Ok(Wire::Less) => Ok(Comparison::Less),
        Ok(Wire::LessOrEqual) => Ok(Comparison::LessOrEqual),
        Ok(Wire::Greater) => Ok(Comparison::Greater),
        Ok(Wire::GreaterOrEqual) => Ok(Comparison::GreaterOrEqual),
        Ok(Wire::Unspecified) | Err(_) => Err(Status::invalid_argument(format!(
            "the filter compares attribute '{attribute}' with no known operator; set one such as \
             COMPARISON_OPERATOR_EQUAL"
        ))),
    }
}

fn value_from_wire(value: wire::FilterValue, attribute: &str) -> Result<FilterValue, Status> {
    use wire::filter_value::Value;
    match value.value {
        Some(Value::StringValue(text)) => Ok(FilterValue::Text(text)),
        Some(Value::IntegerValue(v)) => Ok(FilterValue::Number(Number::Integer(v))),
        Some(Value::FloatValue(v)) => Ok(FilterValue::Number(Number::Float(v))),
        Some(Value::BoolValue(v)) => Ok(FilterValue::Bool(v)),
        None => Err(Status::invalid_argument(format!(
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
            value: Some(value_to_wire(value)),
        }),
        Condition::In { attribute, values } => Wire::OneOf(wire::AttributeIn {
            attribute: attribute.clone(),
            values: values.iter().map(value_to_wire).collect(),
        }),
        Condition::Has { attribute, text } => {
            Wire::Has(wire::AttributeHas { attribute: attribute.clone(), text: text.clone() })
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

fn value_to_wire(value: &FilterValue) -> wire::FilterValue {
    use wire::filter_value::Value;
    let value = match value {
        FilterValue::Text(text) => Value::StringValue(text.clone()),
        FilterValue::Number(Number::Integer(v)) => Value::IntegerValue(*v),
        FilterValue::Number(Number::Float(v)) => Value::FloatValue(*v),
        FilterValue::Bool(v) => Value::BoolValue(*v),
    };
    wire::FilterValue { value: Some(value) }
}

fn hit_to_wire(Found { hit, record }: Found) -> wire::Hit {
    wire::Hit {
        key: hit.key.to_string(),
        score: hit.score,
        part: Some(part_to_wire(hit.part, record.part(hit.part))),
        attributes: attributes_to_wire(record.attributes()),
    }
}

fn part_to_wire(part_ref: PartRef, part: Option<&Part>) -> wire::Part {
    use wire::part::Content;
    let content = part.map(|part| match part {
        Part::Image(image) => Content::Image(wire::ImagePart {
            source: image.source.clone(),
            digest: image.digest.0.to_vec(),
            width: image.width,
            height: image.height,
        }),
        Part::Text(text) => Content::Text(text_to_wire(part_ref, text)),
    });
    wire::Part { r#ref: Some(part_ref_to_wire(part_ref)), content }
}

/// A chunk for itself, with its place; a whole text with the places of its chunks.
fn text_to_wire(part_ref: PartRef, text: &TextPart) -> wire::TextPart {
    let span = |range: Range<usize>| {
        let offset = |at| u32::try_from(at).expect("a text has at most TEXT_BYTES_MAX bytes");
        wire::TextSpan { start: offset(range.start), end: offset(range.end) }
    };
    let truncated_tokens = text.truncated_tokens;
    match part_ref.chunk.and_then(|n| text.chunk(n)) {
        Some(range) => wire::TextPart {
            text: text.text[range.clone()].to_owned(),
            truncated_tokens,
            span: Some(span(range)),
            chunks: Vec::new(),
        },
        None => wire::TextPart {
            text: text.text.clone(),
            truncated_tokens,
            span: None,
            chunks: (0..).map_while(|n| text.chunk(n)).map(span).collect(),
        },
    }
}

pub(crate) fn record_to_wire(stored: StoredRecord) -> wire::Record {
    let record = stored.record;
    wire::Record {
        key: record.key().to_string(),
        parts: record.whole_parts().map(|(part_ref, part)| part_to_wire(part_ref, Some(part))).collect(),
        attributes: attributes_to_wire(record.attributes()),
        seq: stored.seq,
    }
}

/// Attributes for the wire.
pub fn attributes_to_wire(
    attributes: &Attributes,
) -> std::collections::HashMap<String, wire::AttributeValue> {
    use wire::attribute_value::Value;
    let value = |value: &AttributeValue| match value {
        AttributeValue::String(s) => Value::StringValue(s.clone()),
        AttributeValue::List(items) => Value::ListValue(wire::StringList { values: items.clone() }),
        AttributeValue::Integer(v) => Value::IntegerValue(*v),
        AttributeValue::Float(v) => Value::FloatValue(*v),
        AttributeValue::Bool(v) => Value::BoolValue(*v),
    };
    attributes
        .iter()
        .map(|(name, v)| (name.clone(), wire::AttributeValue { value: Some(value(v)) }))
        .collect()
}

/// Attributes of the wire.
///
/// # Errors
/// `INVALID_ARGUMENT` naming an attribute whose value is not set.
pub fn attributes_from_wire(
    attributes: std::collections::HashMap<String, wire::AttributeValue>,
) -> Result<Attributes, Status> {
    use wire::attribute_value::Value;
    attributes
        .into_iter()
        .map(|(name, value)| {
            let value = match value.value {
                Some(Value::StringValue(s)) => AttributeValue::String(s),
                Some(Value::ListValue(list)) => AttributeValue::List(list.values),
                Some(Value::IntegerValue(v)) => AttributeValue::Integer(v),
                Some(Value::FloatValue(v)) => AttributeValue::Float(v),
                Some(Value::BoolValue(v)) => AttributeValue::Bool(v),
                None => {
                    return Err(Status::invalid_argument(format!(
                        "attribute '{name}' has no value; set one or leave the attribute out"
                    )));
                }
            };
            Ok((name, value))
        })
        .collect()
}

pub(crate) fn ingest_from_wire(
    item: wire::IngestRequest,
) -> Result<(CollectionName, PutMode, NewRecord), Status> {
    let mode = match wire::WriteMode::try_from(item.mode) {
        Ok(wire::WriteMode::Unspecified | wire::WriteMode::Upsert) => PutMode::Upsert,
        Ok(wire::WriteMode::Insert) => PutMode::InsertOnly,
        Err(_) => {
            return Err(Status::invalid_argument(format!(
                "mode {} is unknown; use WRITE_MODE_UPSERT or WRITE_MODE_INSERT",
                item.mode
            )));
        }
    };
    let images = item.images.into_iter().map(|i| NewImage { bytes: i.data, source: i.source }).collect();
    let record = NewRecord {
        key: key_from_wire(item.key)?,
        images,
        texts: item.texts,
        attributes: attributes_from_wire(item.attributes)?,
    };
    Ok((collection_from_wire(item.collection)?, mode, record))
}

pub(crate) fn written_to_wire(key: String, written: &Written) -> wire::IngestResponse {
    let outcome = match written.outcome {
        Outcome::Created => wire::WriteOutcome::Created,
        Outcome::Updated => wire::WriteOutcome::Updated,
        Outcome::Unchanged => wire::WriteOutcome::Unchanged,
        Outcome::Deleted | Outcome::NotFound | Outcome::AlreadyExists => wire::WriteOutcome::Unspecified,
    };
    wire::IngestResponse {
        key,
        outcome: outcome as i32,
        error: None,
        truncated_tokens: small(written.texts.truncated_tokens),
        split_texts: small(written.texts.split),
        text_chunks: small(written.texts.chunks),
        truncated_texts: small(written.texts.truncated),
    }
}

/// A count of one record, which its bounds keep far below this one.
fn small(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

pub(crate) fn ingest_error(key: String, status: &Status) -> wire::IngestResponse {
    wire::IngestResponse {
        key,
        outcome: wire::WriteOutcome::Unspecified as i32,
        error: Some(wire::ItemError { code: status.code() as i32, message: status.message().to_owned() }),
        ..wire::IngestResponse::default()
    }
}

pub(crate) fn vector_to_wire(embedding: Embedding) -> wire::Vector {
    wire::Vector { values: embedding.into_vec() }
}

pub(crate) fn overview_to_wire(overview: Overview) -> wire::StatsResponse {
    let (mut recall, mut indexes) = (overview.recall, overview.indexes);
    wire::StatsResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        model_id: overview.model_id.to_string(),
        dimension: u32::try_from(overview.dim).unwrap_or(u32::MAX),
        collections: overview
            .collections
            .into_iter()
            .map(|(name, stats)| wire::CollectionStats {
                name: name.to_string(),
                records: stats.records,
                image_points: stats.image_points,
                text_points: stats.text_points,
                truncated_texts: stats.truncated_texts,
                recall: recall.extract_if(.., |r| r.collection == name).map(recall_to_wire).collect(),
                indexes: indexes
                    .extract_if(.., |i| i.collection == name)
                    .map(|index| index_to_wire(&index))
                    .collect(),
            })
            .collect(),
        encoding: Some(encoding_to_wire(overview.texts, overview.query_cache)),
        recall_sample: overview.recall_sample,
    }
}

/// What an index is made of.
pub fn index_to_wire(report: &IndexReport) -> wire::IndexStats {
    let IndexStats { live, sealing, segments, links, added_links, hot_bytes, vector_bytes } = &report.stats;
    wire::IndexStats {
        modality: modality_to_wire(report.modality),
        segment_points: segments.iter().map(|&points| points as u64).collect(),
        live_points: *live as u64,
        sealing_points: *sealing as u64,
        links: *links as u64,
        added_links: *added_links as u64,
        hot_bytes: *hot_bytes as u64,
        vector_bytes: *vector_bytes as u64,
        tombstones: report.tombstones as u64,
        stragglers: report.stragglers as u64,
    }
}

fn recall_to_wire(report: RecallReport) -> wire::DirectionRecall {
    let query_kind = match report.direction.from {
        QueryKind::Image => wire::QueryKind::Image,
        QueryKind::Text => wire::QueryKind::Text,
        QueryKind::Vector => wire::QueryKind::Vector,
    };
    let rung = |(ef, recall)| wire::LadderRung { ef: ef as u64, recall: Some(estimate_to_wire(recall)) };
    wire::DirectionRecall {
        query_kind: query_kind as i32,
        target: modality_to_wire(report.direction.to),
        filtered: report.direction.filtered,
        searches: report.searches,
        measured: report.measured,
        dropped: report.dropped,
        mean: report.mean,
        latest: report.latest.map(estimate_to_wire),
        ladder: report.ladder.into_iter().map(rung).collect(),
    }
}

fn estimate_to_wire(Estimate { mean, low, high, queries }: Estimate) -> wire::RecallEstimate {
    wire::RecallEstimate { mean, low, high, queries: queries as u64 }
}

fn encoding_to_wire(texts: TextTotals, cache: CacheStats) -> wire::EncodingStats {
    let CacheStats { hits, misses, entries, bytes } = cache;
    wire::EncodingStats {
        truncated_texts: texts.ingested.truncated,
        split_texts: texts.ingested.split,
        text_chunks: texts.ingested.chunks,
        truncated_queries: texts.truncated_queries,
        query_cache: Some(wire::QueryCacheStats { hits, misses, entries, bytes }),
    }
}
