//! `diptych search`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use diptych_client::{Client, Found, Hit, PartContent, Search, SearchStats};
use diptych_core::{AttributeValue, QuerySource, Target, Term};
use diptych_engine::{EngineOptions, IndexKind};
use serde_json::{Map, Value, json};

use crate::args::SearchArgs;
use crate::{facets, local, output, remote, terms};

pub fn run(args: &SearchArgs) -> Result<ExitCode> {
    let search = search(args)?;
    let found = remote::runtime()?.block_on(async {
        let client = client(args).await?.with_collection(args.place.collection.clone());
        anyhow::Ok(client.search(&search).await?)
    })?;
    if found.stats.truncated_tokens > 0 {
        eprintln!(
            "the query is longer than the model's context: its last {} did not count; shorten it",
            output::count(found.stats.truncated_tokens.into(), "token")
        );
    }
    for note in &found.stats.notes {
        eprintln!("note: {note}");
    }
    if let Some(dir) = &args.thumbnails {
        write_thumbnails(dir, &found.hits)?;
    }
    if args.json {
        output::line(&serde_json::to_string_pretty(&as_json(&found))?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if !found.below.is_empty() {
        output::line(&format!(
            "no good match: nothing has a relevance of {:.0} % or more; nearest to it:",
            100.0 * args.min_relevance.unwrap_or(0.0)
        ))?;
        print_hits(&found.below)?;
    } else if found.hits.is_empty() {
        let what = match args.target {
            Target::Only(modality) => modality.as_str(),
            Target::Both => "part",
        };
        output::line(&match args.filter.is_some() {
            true => format!("no {what} of a record that meets the filter"),
            false => format!("no {what} in the collection yet"),
        })?;
    }
    print_hits(&found.hits)?;
    facets::print(&found.facets)?;
    // Beside the answer, which may go on to another program.
    eprintln!("{}", summary_of_stats(&found.stats));
    Ok(ExitCode::SUCCESS)
}

/// A client of a server, or of the services over a data directory of this machine. One question does not pay for
/// building a graph: it is answered by the one that is in the files, or by an exact scan.
async fn client(args: &SearchArgs) -> Result<Client> {
    match (&args.place.data, &args.place.model, &args.place.server) {
        (Some(data), Some(model), None) => {
            output::init_logs_from("warn");
            let encoder = local::load_model(model, args.place.precision)?;
            let options = EngineOptions { index: IndexKind::Ready, ..EngineOptions::default() };
            local::client_of(local::open_engine(data, encoder, options, false)?).await
        }
        (_, _, Some(server)) => remote::connect(server).await,
        _ => unreachable!("the parser wants --data and --model, or --server"),
    }
}

/// What was typed.
fn search(args: &SearchArgs) -> Result<Search> {
    let mut search = terms(args)?.into_iter().fold(Search::new(), Search::term).target(args.target);
    // Out of range here is out of range there: the server says what is right.
    search = search.k(u32::try_from(args.k).unwrap_or(u32::MAX));
    if let Some(relevance) = args.min_relevance {
        search = search.min_relevance(relevance);
    }
    if let Some(attribute) = &args.exclude_same {
        search = search.exclude_same(attribute);
    }
    if let Some(attribute) = &args.group_by {
        search = search.group_by(attribute);
    }
    if let Some(share) = args.collapse {
        search = search.collapse(share as f32);
    }
    if let Some(share) = args.diversity {
        search = search.diversity(share as f32);
    }
    if let Some(token) = &args.page_token {
        search = search.page_token(token);
    }
    if let Some(ef) = args.ef {
        search = search.ef(ef);
    }
    if let Some(recall) = args.recall {
        search = search.target_recall(recall);
    }
    if let Some(filter) = &args.filter {
        search = search.filter(filter);
    }
    if args.thumbnails.is_some() {
        search = search.thumbnails();
    }
    Ok(args.facets.iter().fold(search, Search::facet))
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

fn print_hits(hits: &[Hit]) -> Result<()> {
    let width = hits.iter().map(|h| h.key.as_str().chars().count()).max().unwrap_or(0).min(40);
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
            hit.key.as_str(),
            summary(hit)
        ))?;
    }
    Ok(())
}

/// What was found of a record, in one line.
fn summary(hit: &Hit) -> String {
    let what = match hit.part.as_ref().and_then(|part| part.content.as_ref()) {
        Some(PartContent::Text(text)) => return output::shorten(&text.text, 100),
        // The end of a path says more than its beginning.
        Some(PartContent::Image(image)) => Path::new(&image.source)
            .file_name()
            .map_or_else(|| image.source.clone(), |name| name.to_string_lossy().into_owned()),
        None => hit.part.as_ref().map(|part| part.at.to_string()).unwrap_or_default(),
    };
    let labels = match hit.attributes.get("labels") {
        Some(AttributeValue::List(labels)) => format!("  [{}]", labels.join(", ")),
        _ => String::new(),
    };
    format!("{}{labels}", output::shorten(&what, 100))
}

fn summary_of_stats(stats: &SearchStats) -> String {
    let ef = stats.ef.map_or(String::new(), |ef| format!(", ef {ef}"));
    let points = output::count(stats.searched_points, "point");
    let among = match stats.matching_points {
        Some(matching) => format!("{matching} of {points}"),
        None => points,
    };
    let [encode, search, fetch] =
        [stats.encode, stats.search, stats.fetch].map(|time| time.as_secs_f64() * 1e3);
    format!(
        "{}{ef} · {among} · encode {encode:.1} ms, search {search:.1} ms, fetch {fetch:.1} ms",
        plan(stats)
    )
}

fn plan(stats: &SearchStats) -> String {
    stats.plan.map_or_else(|| "unknown".to_owned(), |plan| plan.to_string())
}

fn as_json(found: &Found) -> Value {
    let hits = |hits: &[Hit]| hits.iter().map(hit_json).collect::<Vec<_>>();
    let receipt = &found.receipt;
    json!({
        "hits": hits(&found.hits),
        "below": hits(&found.below),
        "no_good_match": found.no_good_match,
        "facets": facets::json(&found.facets),
        "next_page_token": found.next_page_token,
        "query_truncated_tokens": found.stats.truncated_tokens,
        "receipt": {"model_id": receipt.model_id(), "generation": receipt.generation()},
        "stats": stats_json(&found.stats),
    })
}

fn stats_json(stats: &SearchStats) -> Value {
    json!({
        "plan": plan(stats),
        "ef": stats.ef,
        "searched_points": stats.searched_points,
        "matching_points": stats.matching_points,
        "encode_seconds": stats.encode.as_secs_f64(),
        "search_seconds": stats.search.as_secs_f64(),
        "fetch_seconds": stats.fetch.as_secs_f64(),
        "notes": stats.notes,
    })
}

fn hit_json(hit: &Hit) -> Value {
    let part = hit.part.as_ref().map(|part| part.at.to_string());
    let mut json = json!({"key": hit.key.as_str(), "score": hit.score, "part": part});
    if let Some(relevance) = hit.relevance {
        json["relevance"] = json!(relevance);
    }
    if !hit.term_scores.is_empty() {
        json["term_scores"] = json!(hit.term_scores);
    }
    match hit.part.as_ref().and_then(|part| part.content.as_ref()) {
        Some(PartContent::Text(text)) => {
            json["text"] = json!(text.text);
            if let Some(span) = &text.span {
                json["span"] = json!([span.start, span.end]);
            }
        }
        Some(PartContent::Image(image)) => json["image"] = json!(image.source),
        None => {}
    }
    let attributes = hit.attributes.iter().map(|(name, of)| (name.clone(), output::attribute_json(of)));
    json["attributes"] = Value::Object(attributes.collect::<Map<_, _>>());
    json
}

/// Writes the small pictures of hits into a folder, by their rank.
fn write_thumbnails(dir: &Path, hits: &[Hit]) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make the folder {}", dir.display()))?;
    let pictures = (1..).zip(hits).filter_map(|(rank, hit)| Some((rank, hit.thumbnail.as_ref()?)));
    let mut written = 0;
    for (rank, jpeg) in pictures {
        let path = dir.join(format!("{rank:04}.jpg"));
        std::fs::write(&path, jpeg).with_context(|| format!("cannot write {}", path.display()))?;
        written += 1;
    }
    eprintln!("{} in {}, named by rank", output::count(written, "picture"), dir.display());
    Ok(())
}
