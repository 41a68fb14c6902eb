//! `diptych search`.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, anyhow};
use diptych_core::{Modality, Query, QuerySource};
use diptych_engine::{EngineOptions, Found, IndexKind};
use diptych_proto::v1 as wire;
use diptych_server::{
    attributes_from_wire, filter_to_wire, modality_from_wire, modality_to_wire, plan_from_wire,
};
use serde_json::{Map, Value, json};

use crate::args::SearchArgs;
use crate::{local, output, remote, sources};

pub fn run(args: &SearchArgs) -> Result<ExitCode> {
    let Answer { hits, truncated_tokens, stats } =
        match (&args.place.data, &args.place.model, &args.place.server) {
            (Some(data), Some(model), None) => search_here(args, data, model)?,
            (_, _, Some(server)) => search_there(args, server)?,
            _ => unreachable!("the parser wants --data and --model, or --server"),
        };
    if truncated_tokens > 0 {
        eprintln!(
            "the query is longer than the model's context: its last {} did not count; shorten it",
            output::count(truncated_tokens.into(), "token")
        );
    }
    for note in &stats.notes {
        eprintln!("the filter: {note}");
    }
    if args.json {
        let hits: Vec<Value> = hits.iter().map(Shown::json).collect();
        let answer =
            json!({ "hits": hits, "query_truncated_tokens": truncated_tokens, "stats": stats.json() });
        output::line(&serde_json::to_string_pretty(&answer)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if hits.is_empty() && args.filter.is_some() {
        output::line(&format!("no {} of a record that meets the filter", args.target))?;
    } else if hits.is_empty() {
        output::line(&format!("no records with a {} part yet", args.target))?;
    } else {
        let width = hits.iter().map(|h| h.key.chars().count()).max().unwrap_or(0).min(40);
        for (rank, hit) in hits.iter().enumerate() {
            output::line(&format!(
                "{:>3}  {:>6.3}  {:<width$}  {}",
                rank + 1,
                hit.score,
                hit.key,
                hit.summary()
            ))?;
        }
    }
    // Beside the answer, which may go on to another program.
    eprintln!("{}", stats.summary());
    Ok(ExitCode::SUCCESS)
}

/// What a search found, here or there.
struct Answer {
    hits: Vec<Shown>,
    /// Tokens of the query beyond the model's context.
    truncated_tokens: u32,
    stats: Stats,
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

fn source(args: &SearchArgs) -> Result<QuerySource> {
    match (&args.text, &args.image, &args.key) {
        (Some(text), ..) => Ok(QuerySource::Text(text.clone())),
        (_, Some(path), _) => {
            let bytes = sources::read_image(path).map_err(|reason| anyhow!("{} {reason}", path.display()))?;
            Ok(QuerySource::Image(bytes))
        }
        (.., Some(key)) => Ok(QuerySource::Key { key: key.clone(), part: None }),
        _ => unreachable!("the parser wants one of --text, --image and --key"),
    }
}

/// One question does not pay for building a graph: it is answered by the one that is in the files, or by
/// an exact scan.
fn search_here(args: &SearchArgs, data: &Path, model: &Path) -> Result<Answer> {
    let mut query = Query::new(source(args)?, args.target, args.k, args.ef)?;
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
    let hits = outcome.hits.into_iter().map(shown_here).collect();
    Ok(Answer { hits, truncated_tokens: outcome.truncated_tokens, stats })
}

fn shown_here(Found { hit, record }: Found) -> Shown {
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
    use wire::search_request::Query as WireQuery;
    let query = match source(args)? {
        QuerySource::Text(text) => WireQuery::Text(text),
        QuerySource::Image(bytes) => WireQuery::Image(bytes),
        QuerySource::Key { key, .. } => WireQuery::Key(wire::KeyQuery { key: key.to_string(), part: None }),
        QuerySource::Vector(values) => WireQuery::Vector(wire::Vector { values }),
    };
    let request = wire::SearchRequest {
        collection: args.place.collection.to_string(),
        query: Some(query),
        target: modality_to_wire(args.target),
        // Out of range here is out of range there: the server says what is right.
        k: Some(u32::try_from(args.k).unwrap_or(u32::MAX)),
        ef: args.ef,
        filter: args.filter.as_ref().map(filter_to_wire),
        target_recall: args.recall,
    };
    let response = remote::runtime()?.block_on(async {
        remote::connect(url).await?.search(request).await.map_err(|s| remote::failed(&s))
    })?;
    let wire::SearchResponse { hits, stats } = response.into_inner();
    let stats = stats.unwrap_or_default();
    let hits = hits.into_iter().map(shown_there).collect::<Result<_>>()?;
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
    Ok(Answer { hits, truncated_tokens, stats })
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
        part: format!("{modality}:{}{chunk}", reference.ordinal),
        text,
        span,
        image,
        attributes: attributes(&attributes_here),
    })
}
