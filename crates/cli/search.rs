//! `diptych search`.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use diptych_core::{Modality, Query, QuerySource, Shape, Target, Term};
use diptych_engine::{EngineOptions, Found, IndexKind};
use diptych_proto::v1 as wire;
use diptych_server::{
    attributes_from_wire, filter_to_wire, modality_from_wire, modality_to_wire, plan_from_wire,
};
use serde_json::{Map, Value, json};

use crate::args::SearchArgs;
use crate::{local, output, remote, terms};

pub fn run(args: &SearchArgs) -> Result<ExitCode> {
    let answer = match (&args.place.data, &args.place.model, &args.place.server) {
        (Some(data), Some(model), None) => search_here(args, data, model)?,
        (_, _, Some(server)) => search_there(args, server)?,
        _ => unreachable!("the parser wants --data and --model, or --server"),
    };
    if answer.truncated_tokens > 0 {
        eprintln!(
            "the query is longer than the model's context: its last {} did not count; shorten it",
            output::count(answer.truncated_tokens.into(), "token")
        );
    }
    for note in &answer.stats.notes {
        eprintln!("note: {note}");
    }
    if args.json {
        output::line(&serde_json::to_string_pretty(&answer.json())?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if !answer.below.is_empty() {
        output::line(&format!(
            "no good match: nothing has a relevance of {:.0} % or more; nearest to it:",
            100.0 * args.min_relevance.unwrap_or(0.0)
        ))?;
        print_hits(&answer.below)?;
    } else if answer.hits.is_empty() {
        let what = match args.target {
            Target::Only(modality) => modality.as_str(),
            Target::Both => "part",
        };
        output::line(&match args.filter.is_some() {
            true => format!("no {what} of a record that meets the filter"),
            false => format!("no {what} in the collection yet"),
        })?;
    }
    print_hits(&answer.hits)?;
    // Beside the answer, which may go on to another program.
    eprintln!("{}", answer.stats.summary());
    Ok(ExitCode::SUCCESS)
}

fn print_hits(hits: &[Shown]) -> Result<()> {
    let width = hits.iter().map(|h| h.key.chars().count()).max().unwrap_or(0).min(40);
    let told = hits.iter().any(|hit| hit.relevance.is_some());
    for (rank, hit) in hits.iter().enumerate() {
        let relevance = match hit.relevance {
            Some(relevance) => format!("  {:>4.0} %", 100.0 * relevance),
            None if told => "        ".to_owned(),
            None => String::new(),
        };
        output::line(&format!(
            "{:>3}  {:>6.3}{relevance}  {:<width$}  {}",
            rank + 1,
            hit.score,
            hit.key,
            hit.summary()
        ))?;
    }
    Ok(())
}

/// What a search found, here or there.
struct Answer {
    hits: Vec<Shown>,
    /// The best, where none is relevant enough.
    below: Vec<Shown>,
    next_page_token: Option<String>,
    /// Tokens of the query beyond the model's context.
    truncated_tokens: u32,
    stats: Stats,
}

impl Answer {
    fn json(&self) -> Value {
        let shown = |hits: &[Shown]| hits.iter().map(Shown::json).collect::<Vec<_>>();
        json!({
            "hits": shown(&self.hits),
            "below": shown(&self.below),
            "no_good_match": self.hits.is_empty() && !self.below.is_empty(),
            "next_page_token": self.next_page_token,
            "query_truncated_tokens": self.truncated_tokens,
            "stats": self.stats.json(),
        })
    }
}

/// What a search did, here or there.
struct Stats {
    plan: String,
    ef: Option<u64>,
    searched_points: u64,
    matching_points: Option<u64>,
    /// Encoding, searching, fetching.
    times: [Duration; 3],
    notes: Vec<String>,
}

impl Stats {
    fn json(&self) -> Value {
        let [encode, search, fetch] = self.times.map(|time| time.as_secs_f64());
        json!({
            "plan": self.plan,
            "ef": self.ef,
            "searched_points": self.searched_points,
            "matching_points": self.matching_points,
            "encode_seconds": encode,
            "search_seconds": search,
            "fetch_seconds": fetch,
            "notes": self.notes,
        })
    }

    fn summary(&self) -> String {
        let ef = self.ef.map_or(String::new(), |ef| format!(", ef {ef}"));
        let points = output::count(self.searched_points, "point");
        let among = match self.matching_points {
            Some(matching) => format!("{matching} of {points}"),
            None => points,
        };
        let [encode, search, fetch] = self.times.map(|time| time.as_secs_f64() * 1e3);
        format!(
            "{}{ef} · {among} · encode {encode:.1} ms, search {search:.1} ms, fetch {fetch:.1} ms",
            self.plan
        )
    }
}

/// A hit as it is shown, wherever it came from.
struct Shown {
    key: String,
    score: f32,
    /// The probability that it is a match.
    relevance: Option<f64>,
    /// Its cosines with the terms, where there are several.
    term_scores: Vec<f32>,
    part: String,
    /// The text that was found; of a long text, the chunk.
    text: Option<String>,
    /// Where that chunk lies in its text, in bytes.
    span: Option<(usize, usize)>,
    image: Option<String>,
    attributes: Map<String, Value>,
}

impl Shown {
    fn json(&self) -> Value {
        let mut hit = json!({"key": self.key, "score": self.score, "part": self.part});
        if let Some(relevance) = self.relevance {
            hit["relevance"] = json!(relevance);
        }
        if !self.term_scores.is_empty() {
            hit["term_scores"] = json!(self.term_scores);
        }
        if let Some(text) = &self.text {
            hit["text"] = json!(text);
        }
        if let Some((start, end)) = self.span {
            hit["span"] = json!([start, end]);
        }
        if let Some(image) = &self.image {
            hit["image"] = json!(image);
        }
        hit["attributes"] = Value::Object(self.attributes.clone());
        hit
    }

    fn summary(&self) -> String {
        let what = self.text.as_deref().or(self.image.as_deref()).unwrap_or(&self.part);
        let labels = match self.attributes.get("labels") {
            Some(Value::Array(labels)) if self.text.is_none() => {
                let labels: Vec<&str> = labels.iter().filter_map(Value::as_str).collect();
                format!("  [{}]", labels.join(", "))
            }
            _ => String::new(),
        };
        // The end of a path says more than its beginning.
        let what = match &self.image {
            Some(path) if self.text.is_none() => {
                Path::new(path).file_name().map_or(path.clone(), |f| f.to_string_lossy().into_owned())
            }
            _ => what.to_owned(),
        };
        format!("{}{labels}", output::shorten(&what, 100))
    }
}

/// Everything that was typed, flags first.
fn terms(args: &SearchArgs) -> Result<Vec<Term>> {
    let mut terms: Vec<Term> = Vec::new();
    terms.extend(args.text.iter().map(|text| QuerySource::Text(text.clone()).into()));
    if let Some(path) = &args.image {
        terms.push(terms::image(path)?.into());
    }
    terms.extend(args.key.iter().map(|key| QuerySource::Key { key: key.clone(), part: None }.into()));
    if !args.terms.is_empty() {
        terms.extend(terms::parse(&args.terms)?);
    }
    Ok(terms)
}

/// One question does not pay for building a graph: it is answered by the one that is in the files, or by
/// an exact scan.
fn search_here(args: &SearchArgs, data: &Path, model: &Path) -> Result<Answer> {
    let shape = Shape {
        min_relevance: args.min_relevance,
        exclude_same: args.exclude_same.clone(),
        group_by: args.group_by.clone(),
        collapse: args.collapse.map(|share| share as f32),
        diversity: args.diversity.map(|share| share as f32),
        offset: 0,
    };
    let mut query = Query::composed(terms(args)?, args.target, args.k, args.ef)?.with_shape(shape)?;
    if let Some(filter) = &args.filter {
        query = query.with_filter(filter.clone());
    }
    output::init_logs_from("warn");
    let encoder = local::load_model(model, args.place.precision)?;
    let options = EngineOptions { index: IndexKind::Ready, ..EngineOptions::default() };
    let engine = local::open_engine(data, encoder, options, false)?;
    let outcome = engine.search(&args.place.collection, &query)?;
    let stats = Stats {
        plan: outcome.plan.to_string(),
        ef: outcome.ef.map(|ef| ef as u64),
        searched_points: outcome.searched_points as u64,
        matching_points: outcome.matching_points,
        times: [outcome.times.encode, outcome.times.search, outcome.times.fetch],
        notes: outcome.notes,
    };
    let shown = |found: Vec<Found>| found.into_iter().map(shown_here).collect();
    Ok(Answer {
        hits: shown(outcome.hits),
        below: shown(outcome.below),
        next_page_token: None,
        truncated_tokens: outcome.truncated_tokens,
        stats,
    })
}

fn shown_here(Found { hit, relevance, term_scores, record }: Found) -> Shown {
    use diptych_core::Part;
    let (text, span, image) = match record.part(hit.part) {
        Some(Part::Text(part)) => {
            let chunk = hit.part.chunk.and_then(|n| part.chunk(n));
            let text = &part.text[chunk.clone().unwrap_or(0..part.text.len())];
            (Some(text.to_owned()), chunk.map(|range| (range.start, range.end)), None)
        }
        Some(Part::Image(image)) => (None, None, Some(image.source.clone())),
        None => (None, None, None),
    };
    Shown {
        key: hit.key.to_string(),
        score: hit.score,
        relevance,
        term_scores,
        part: hit.part.to_string(),
        text,
        span,
        image,
        attributes: attributes(record.attributes()),
    }
}

fn attributes(attributes: &diptych_core::Attributes) -> Map<String, Value> {
    attributes.iter().map(|(name, value)| (name.clone(), output::attribute_json(value))).collect()
}

fn search_there(args: &SearchArgs, url: &str) -> Result<Answer> {
    let request = wire::SearchRequest {
        collection: args.place.collection.to_string(),
        query: None,
        terms: terms(args)?.into_iter().map(term_to_wire).collect(),
        target: match args.target {
            Target::Only(modality) => modality_to_wire(modality),
            Target::Both => wire::Modality::Unspecified as i32,
        },
        min_relevance: args.min_relevance,
        exclude_same: args.exclude_same.clone().unwrap_or_default(),
        group_by: args.group_by.clone().unwrap_or_default(),
        collapse: args.collapse.map(|share| share as f32),
        diversity: args.diversity.map(|share| share as f32),
        page_token: args.page_token.clone().unwrap_or_default(),
        // Out of range here is out of range there: the server says what is right.
        k: Some(u32::try_from(args.k).unwrap_or(u32::MAX)),
        ef: args.ef,
        filter: args.filter.as_ref().map(filter_to_wire),
        target_recall: args.recall,
    };
    let response = remote::runtime()?.block_on(async {
        remote::connect(url).await?.search(request).await.map_err(|s| remote::failed(&s))
    })?;
    let wire::SearchResponse { hits, below, stats, next_page_token, .. } = response.into_inner();
    let stats = stats.unwrap_or_default();
    let shown = |hits: Vec<wire::Hit>| hits.into_iter().map(shown_there).collect::<Result<Vec<Shown>>>();
    let truncated_tokens = stats.truncated_tokens;
    let micros = [stats.encode_micros, stats.search_micros, stats.fetch_micros];
    let stats = Stats {
        plan: plan_from_wire(stats.plan).map_or_else(|| "unknown".to_owned(), |plan| plan.to_string()),
        ef: stats.ef,
        searched_points: stats.searched_points,
        matching_points: stats.matching_points,
        times: micros.map(Duration::from_micros),
        notes: stats.notes,
    };
    Ok(Answer {
        hits: shown(hits)?,
        below: shown(below)?,
        next_page_token: Some(next_page_token).filter(|token| !token.is_empty()),
        truncated_tokens,
        stats,
    })
}

fn term_to_wire(term: Term) -> wire::QueryTerm {
    use wire::query_term::Source;
    let source = match term.source().clone() {
        QuerySource::Text(text) => Source::Text(text),
        QuerySource::Image(bytes) => Source::Image(bytes),
        QuerySource::Key { key, .. } => Source::Key(wire::KeyQuery { key: key.to_string(), part: None }),
        QuerySource::Vector(values) => Source::Vector(wire::Vector { values }),
    };
    wire::QueryTerm { source: Some(source), weight: Some(term.weight()) }
}

fn shown_there(hit: wire::Hit) -> Result<Shown> {
    use wire::part::Content;
    let part = hit.part.unwrap_or_default();
    let reference = part.r#ref.unwrap_or_default();
    let modality = modality_from_wire(reference.modality).map_or("unknown", Modality::as_str);
    let chunk = reference.chunk.map_or(String::new(), |n| format!("#{n}"));
    let (text, span, image) = match part.content {
        Some(Content::Text(text)) => {
            (Some(text.text), text.span.map(|span| (span.start as usize, span.end as usize)), None)
        }
        Some(Content::Image(image)) => (None, None, Some(image.source)),
        None => (None, None, None),
    };
    let attributes_here = attributes_from_wire(hit.attributes).map_err(|s| remote::failed(&s))?;
    Ok(Shown {
        key: hit.key,
        score: hit.score,
        relevance: hit.relevance,
        term_scores: hit.term_scores,
        part: format!("{modality}:{}{chunk}", reference.ordinal),
        text,
        span,
        image,
        attributes: attributes(&attributes_here),
    })
}
