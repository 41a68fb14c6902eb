//! `diptych search`.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use diptych_core::{Modality, QuerySource, Target, Term};
use diptych_engine::{EngineOptions, IndexKind};
use diptych_proto::v1 as wire;
use diptych_server::{
    attributes_from_wire, filter_to_wire, modality_from_wire, modality_to_wire, plan_from_wire,
};
use serde_json::{Map, Value, json};

use crate::args::SearchArgs;
use crate::remote::Link;
use crate::{facets, local, output, remote, terms};

pub fn run(args: &SearchArgs) -> Result<ExitCode> {
    let answer = Answer::of(search(args)?)?;
    if answer.truncated_tokens > 0 {
        eprintln!(
            "the query is longer than the model's context: its last {} did not count; shorten it",
            output::count(answer.truncated_tokens.into(), "token")
        );
    }
    for note in &answer.stats.notes {
        eprintln!("note: {note}");
    }
    if let Some(dir) = &args.thumbnails {
        write_thumbnails(dir, &answer.hits)?;
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
    facets::print(&answer.facets)?;
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

/// What a search found.
struct Answer {
    hits: Vec<Shown>,
    /// The best, where none is relevant enough.
    below: Vec<Shown>,
    facets: Vec<wire::FacetCounts>,
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
            "facets": facets::json(&self.facets),
            "next_page_token": self.next_page_token,
            "query_truncated_tokens": self.truncated_tokens,
            "stats": self.stats.json(),
        })
    }
}

/// What a search did.
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

/// A hit as it is shown.
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
    /// A JPEG file; empty where there is none.
    thumbnail: Vec<u8>,
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

/// A connection to a server, or to the services over a data directory of this machine. One question does not
/// pay for building a graph: it is answered by the one that is in the files, or by an exact scan.
async fn link(args: &SearchArgs) -> Result<Link> {
    match (&args.place.data, &args.place.model, &args.place.server) {
        (Some(data), Some(model), None) => {
            output::init_logs_from("warn");
            let encoder = local::load_model(model, args.place.precision)?;
            let options = EngineOptions { index: IndexKind::Ready, ..EngineOptions::default() };
            local::link_to(local::open_engine(data, encoder, options, false)?).await
        }
        (_, _, Some(server)) => remote::link(server).await,
        _ => unreachable!("the parser wants --data and --model, or --server"),
    }
}

fn request(args: &SearchArgs) -> Result<wire::SearchRequest> {
    Ok(wire::SearchRequest {
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
        facets: facets::to_wire(&args.facets),
        read_mask: None,
        thumbnails: args.thumbnails.is_some(),
    })
}

fn search(args: &SearchArgs) -> Result<wire::SearchResponse> {
    let request = request(args)?;
    let answer = remote::runtime()?.block_on(async {
        let mut client = remote::records(link(args).await?);
        client.search(request).await.map_err(|s| remote::failed(&s))
    });
    Ok(answer?.into_inner())
}

impl Answer {
    fn of(response: wire::SearchResponse) -> Result<Self> {
        let wire::SearchResponse { hits, below, stats, next_page_token, facets, .. } = response;
        let stats = stats.unwrap_or_default();
        let shown = |hits: Vec<wire::Hit>| hits.into_iter().map(Shown::of).collect::<Result<Vec<Shown>>>();
        let micros = [stats.encode_micros, stats.search_micros, stats.fetch_micros];
        Ok(Self {
            hits: shown(hits)?,
            below: shown(below)?,
            facets,
            next_page_token: Some(next_page_token).filter(|token| !token.is_empty()),
            truncated_tokens: stats.truncated_tokens,
            stats: Stats {
                plan: plan_from_wire(stats.plan)
                    .map_or_else(|| "unknown".to_owned(), |plan| plan.to_string()),
                ef: stats.ef,
                searched_points: stats.searched_points,
                matching_points: stats.matching_points,
                times: micros.map(Duration::from_micros),
                notes: stats.notes,
            },
        })
    }
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

impl Shown {
    fn of(hit: wire::Hit) -> Result<Self> {
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
        let attributes = attributes_from_wire(hit.attributes).map_err(|s| remote::failed(&s))?;
        let attributes = attributes.iter().map(|(name, of)| (name.clone(), output::attribute_json(of)));
        Ok(Self {
            key: hit.key,
            score: hit.score,
            relevance: hit.relevance,
            term_scores: hit.term_scores,
            part: format!("{modality}:{}{chunk}", reference.ordinal),
            text,
            span,
            image,
            attributes: attributes.collect(),
            thumbnail: hit.thumbnail,
        })
    }
}

/// Writes the small pictures of hits into a folder, by their rank.
fn write_thumbnails(dir: &Path, hits: &[Shown]) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make the folder {}", dir.display()))?;
    let mut written = 0;
    for (rank, hit) in (1..).zip(hits).filter(|(_, hit)| !hit.thumbnail.is_empty()) {
        let path = dir.join(format!("{rank:04}.jpg"));
        std::fs::write(&path, &hit.thumbnail).with_context(|| format!("cannot write {}", path.display()))?;
        written += 1;
    }
    eprintln!("{} in {}, named by rank", output::count(written, "picture"), dir.display());
    Ok(())
}
