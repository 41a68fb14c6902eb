//! `diptych search`.

mod shown;

use std::process::ExitCode;

use anyhow::{Result, bail};
use diptych_client::{Found, Hit, Search, SearchStats};
use diptych_core::{Lexical, QuerySource, Target, Term};
use diptych_lexical::LexicalQuery;
use serde_json::{Value, json};

use crate::args::SearchArgs;
use crate::{facets, local, output, remote, terms};
use shown::{hit_json, print_hits};

pub fn run(args: &SearchArgs) -> Result<ExitCode> {
    let terms = terms(args)?;
    let lexical = lexical(args, &terms)?;
    let words = lexical.as_ref().map(|lexical| LexicalQuery::parse(&lexical.text)).transpose()?;
    let words = words.as_ref();
    let search = search(args, terms, lexical.as_ref());
    let found = remote::runtime()?.block_on(async {
        let client = local::asking(&args.place).await?;
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
        output::write_pictures(dir, found.hits.iter().map(|hit| hit.thumbnail.as_deref()))?;
    }
    if args.json {
        output::line(&serde_json::to_string_pretty(&as_json(&found, words))?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if !found.below.is_empty() {
        output::line(&format!(
            "no good match: nothing has a relevance of {:.0} % or more; nearest to it:",
            100.0 * args.min_relevance.unwrap_or(0.0)
        ))?;
        print_hits(&found.below, words)?;
    } else if found.hits.is_empty() {
        let what = match args.target {
            Target::Only(modality) => modality.as_str(),
            Target::Both => "part",
        };
        output::line(&match (words, args.filter.is_some()) {
            (Some(_), false) => format!("no {what} of a record with these words"),
            (Some(_), true) => format!("no {what} of a record with these words that meets the filter"),
            (None, true) => format!("no {what} of a record that meets the filter"),
            (None, false) => format!("no {what} in the collection yet"),
        })?;
    }
    print_hits(&found.hits, words)?;
    facets::print(&found.facets)?;
    // Beside the answer, which may go on to another program.
    eprintln!("{}", summary_of_stats(&found.stats));
    Ok(ExitCode::SUCCESS)
}

/// What was typed.
fn search(args: &SearchArgs, terms: Vec<Term>, lexical: Option<&Lexical>) -> Search {
    let mut search = terms.into_iter().fold(Search::new(), Search::term).target(args.target);
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
    if let Some(lexical) = lexical {
        search = search.lexical(lexical);
    }
    if args.thumbnails.is_some() {
        search = search.thumbnails();
    }
    args.facets.iter().fold(search, Search::facet)
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

/// The words to look for in texts, if any.
fn lexical(args: &SearchArgs, terms: &[Term]) -> Result<Option<Lexical>> {
    let text = match &args.words {
        Some(words) => words.clone(),
        None if args.hybrid => {
            let texts =
                terms.iter().filter(|term| term.weight() > 0.0).filter_map(|term| match term.source() {
                    QuerySource::Text(text) => Some(text.as_str()),
                    _ => None,
                });
            let texts: Vec<&str> = texts.collect();
            if texts.is_empty() {
                bail!(
                    "--hybrid looks for the words of the texts searched by, and there is none; use --words"
                );
            }
            texts.join(" ")
        }
        None => return Ok(None),
    };
    Ok(Some(Lexical { text, fusion: args.fusion }))
}

fn summary_of_stats(stats: &SearchStats) -> String {
    let ef = stats.ef.map_or(String::new(), |ef| format!(", ef {ef}"));
    let points = output::count(stats.searched_points, "point");
    let among = match stats.matching_points {
        Some(matching) => format!("{matching} of {points}"),
        None => points,
    };
    let [encode, search, lexical, fetch] =
        [stats.encode, stats.search, stats.lexical, stats.fetch].map(|time| time.as_secs_f64() * 1e3);
    let (with, words) = match stats.lexical_matches {
        Some(matches) => {
            let records = output::count(matches, "record");
            (format!(" · {records} with the words"), format!("words {lexical:.1} ms, "))
        }
        None => (String::new(), String::new()),
    };
    format!(
        "{}{ef} · {among}{with} · encode {encode:.1} ms, search {search:.1} ms, {words}fetch {fetch:.1} ms",
        plan(stats)
    )
}

fn plan(stats: &SearchStats) -> String {
    stats.plan.map_or_else(|| "unknown".to_owned(), |plan| plan.to_string())
}

fn as_json(found: &Found, words: Option<&LexicalQuery>) -> Value {
    let hits = |hits: &[Hit]| hits.iter().map(|hit| hit_json(hit, words)).collect::<Vec<_>>();
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
        "lexical_matches": stats.lexical_matches,
        "lexical_seconds": stats.lexical.as_secs_f64(),
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
