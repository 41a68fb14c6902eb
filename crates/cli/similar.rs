//! `diptych similar` and `diptych draft`.

use std::process::ExitCode;

use anyhow::Result;
use diptych_client::{
    CaseMatch, Draft, DraftSentence, FindingStatus, Findings, Part, PartContent, SimilarCase, SimilarCases,
};
use diptych_core::{AttributeValue, Attributes};
use serde_json::{Map, Value, json};

use crate::case_args::{DraftArgs, SimilarArgs};
use crate::{local, output, remote};

/// Said under everything that a reader may take for more than it is.
const NOTICE: &str = "retrieved text, not a diagnosis";
/// Characters of a sentence or an impression in one line.
const LINE: usize = 110;

pub fn run(args: &SimilarArgs) -> Result<ExitCode> {
    let mut search = args.case.search(args.place.data.as_deref())?.k(args.k);
    if args.priors {
        search = search.priors();
    }
    if args.thumbnails.is_some() {
        search = search.thumbnails();
    }
    let found = remote::runtime()?
        .block_on(async { anyhow::Ok(local::asking(&args.place).await?.similar(&search).await?) })?;
    if let Some(dir) = &args.thumbnails {
        output::write_pictures(dir, found.cases.iter().map(|case| case.thumbnail.as_deref()))?;
    }
    if args.json {
        output::line(&serde_json::to_string_pretty(&similar_json(&found))?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if !found.query_findings.is_empty() {
        output::line(&format!("the case says: {}", said(&found.query_findings)))?;
    }
    if found.cases.is_empty() {
        output::line(match args.priors {
            true => "no other case of this patient",
            false => "no case that meets the conditions",
        })?;
    }
    for (rank, case) in found.cases.iter().enumerate() {
        print_case(rank + 1, case)?;
    }
    let stats = &found.stats;
    let [encode, search, fetch] =
        [stats.encode, stats.search, stats.fetch].map(|time| time.as_secs_f64() * 1e3);
    eprintln!(
        "{} · encode {encode:.1} ms, search {search:.1} ms, compare {fetch:.1} ms · {NOTICE}",
        output::count(stats.searched_points, "point")
    );
    Ok(ExitCode::SUCCESS)
}

/// Runs `diptych draft`.
pub fn run_draft(args: &DraftArgs) -> Result<ExitCode> {
    let search = args.case.search(args.place.data.as_deref())?.k(args.cases);
    let drafted = remote::runtime()?.block_on(async {
        let client = local::asking(&args.place).await?;
        anyhow::Ok(client.draft(&search, Some(args.sentences), Some(args.min_support)).await?)
    })?;
    if args.json {
        output::line(&serde_json::to_string_pretty(&draft_json(&drafted))?)?;
        return Ok(ExitCode::SUCCESS);
    }
    output::line(&format!(
        "DRAFT FROM {} ({NOTICE})",
        output::count(drafted.keys.len() as u64, "SIMILAR REPORT").to_uppercase()
    ))?;
    if !drafted.query_findings.is_empty() {
        output::line(&format!("the case says: {}", said(&drafted.query_findings)))?;
    }
    for (heading, sentences) in [("FINDINGS", &drafted.findings), ("IMPRESSION", &drafted.impression)] {
        if !sentences.is_empty() {
            output::line(&format!("\n{heading}:"))?;
            sentences.iter().try_for_each(print_sentence)?;
        }
    }
    if drafted.findings.is_empty() && drafted.impression.is_empty() {
        output::line(
            "no sentence on which enough of the reports agree; lower --min-support or read more --cases",
        )?;
    }
    if drafted.contradictions > 0 {
        eprintln!("{} left out that contradict", output::count(drafted.contradictions.into(), "sentence"));
    }
    Ok(ExitCode::SUCCESS)
}

fn print_case(rank: usize, case: &SimilarCase) -> Result<()> {
    let relevance = case.relevance.map_or(String::new(), |relevance| format!("  {:.0} %", 100.0 * relevance));
    let about = about(&case.attributes);
    output::line(&format!("\n{rank:>3}  {:>6.2}{relevance}  {}{about}", case.score, case.key))?;
    let row = |name: &str, text: &str| output::line(&format!("     {name:<11}{text}"));
    if let Some(found) = &case.image {
        row("image", &matched(found))?;
    }
    if let Some(found) = &case.sentence {
        row("sentence", &matched(found))?;
    }
    if !case.impression.is_empty() {
        row("impression", &output::shorten(&case.impression, LINE))?;
    }
    if !case.common.is_empty() {
        row("in common", &case.common.join(", "))?;
    }
    if !case.conflicts.is_empty() {
        let differ = |(name, (_, found)): (&String, &(FindingStatus, FindingStatus))| match found {
            FindingStatus::Present => format!("{name} is there"),
            FindingStatus::Absent => format!("no {name} there"),
            FindingStatus::Uncertain => format!("{name} possible there"),
        };
        row(
            "in conflict",
            &format!(" {}", case.conflicts.iter().map(differ).collect::<Vec<_>>().join(", ")),
        )?;
    }
    Ok(())
}

/// Who and when, as far as it is known.
fn about(attributes: &Attributes) -> String {
    let text = |name: &str| match attributes.get(name)? {
        AttributeValue::String(text) => Some(text.clone()),
        AttributeValue::Integer(number) => Some(number.to_string()),
        AttributeValue::Time(time) => Some(time.to_string().chars().take(10).collect()),
        AttributeValue::List(list) => Some(list.join("+")),
        AttributeValue::Float(_) | AttributeValue::Bool(_) => None,
    };
    let names = ["sex", "age", "modality", "views", "view", diptych_cases::STUDY_DATE];
    let all: Vec<String> = names.into_iter().filter_map(text).filter(|text| !text.is_empty()).collect();
    if all.is_empty() { String::new() } else { format!("  ({})", all.join(" ")) }
}

fn matched(found: &CaseMatch) -> String {
    format!("{:.3}  {}", found.cosine, output::shorten(&content(&found.part), LINE))
}

/// What is kept of a part, in one line; of a path its end.
fn content(part: &Part) -> String {
    match &part.content {
        Some(PartContent::Text(text)) => text.text.trim().to_owned(),
        Some(PartContent::Image(image)) if !image.source.is_empty() => {
            image.source.rsplit(['/', '\\']).next().unwrap_or(&image.source).to_owned()
        }
        _ => part.at.to_string(),
    }
}

/// Findings in words. That nothing is found goes without saying where something is.
fn said(findings: &Findings) -> String {
    let one = |(name, status): (&String, &FindingStatus)| match (name.as_str(), status) {
        ("no_finding", FindingStatus::Present) => Some("nothing abnormal".to_owned()),
        ("no_finding", _) => None,
        (name, FindingStatus::Present) => Some(name.to_owned()),
        (name, FindingStatus::Absent) => Some(format!("no {name}")),
        (name, FindingStatus::Uncertain) => Some(format!("possibly {name}")),
    };
    findings.iter().filter_map(one).collect::<Vec<_>>().join(", ")
}

fn print_sentence(sentence: &DraftSentence) -> Result<()> {
    output::line(&format!("  {}", sentence.text))?;
    let others = sentence.supporting.iter().filter(|key| **key != sentence.key).count();
    let more = if others == 0 { String::new() } else { format!(" and {others} more") };
    output::line(&format!("      {:.0} % of the cases: {}{more}", 100.0 * sentence.support, sentence.key))
}

fn findings_json(findings: &Findings) -> Value {
    Value::Object(
        findings.iter().map(|(name, of)| (name.clone(), json!(of.to_string()))).collect::<Map<_, _>>(),
    )
}

fn similar_json(found: &SimilarCases) -> Value {
    let stats = &found.stats;
    json!({
        "cases": found.cases.iter().map(case_json).collect::<Vec<_>>(),
        "query_findings": findings_json(&found.query_findings),
        "stats": {
            "searched_points": stats.searched_points,
            "encode_seconds": stats.encode.as_secs_f64(),
            "search_seconds": stats.search.as_secs_f64(),
            "fetch_seconds": stats.fetch.as_secs_f64(),
        },
        "notice": NOTICE,
    })
}

fn case_json(case: &SimilarCase) -> Value {
    let matched = |found: &Option<CaseMatch>| {
        found.as_ref().map(|found| {
            let (modality, ordinal) = found.query_part;
            json!({
                "part": found.part.at.to_string(),
                "content": content(&found.part),
                "cosine": found.cosine,
                "query_part": format!("{modality}:{ordinal}"),
            })
        })
    };
    let conflict = |(name, (query, found)): (&String, &(FindingStatus, FindingStatus))| {
        (name.clone(), json!({"query": query.to_string(), "found": found.to_string()}))
    };
    let attributes = case.attributes.iter().map(|(name, of)| (name.clone(), output::attribute_json(of)));
    json!({
        "key": case.key.as_str(),
        "score": case.score,
        "relevance": case.relevance,
        "image": matched(&case.image),
        "sentence": matched(&case.sentence),
        "impression": case.impression,
        "findings": findings_json(&case.findings),
        "common": case.common,
        "conflicts": case.conflicts.iter().map(conflict).collect::<Map<_, _>>(),
        "attributes": attributes.collect::<Map<_, _>>(),
    })
}

fn draft_json(draft: &Draft) -> Value {
    let sentence = |of: &DraftSentence| {
        json!({
            "text": of.text,
            "key": of.key.as_str(),
            "support": of.support,
            "supporting": of.supporting.iter().map(|key| key.as_str()).collect::<Vec<_>>(),
            "findings": findings_json(&of.findings),
        })
    };
    json!({
        "findings": draft.findings.iter().map(sentence).collect::<Vec<_>>(),
        "impression": draft.impression.iter().map(sentence).collect::<Vec<_>>(),
        "keys": draft.keys.iter().map(|key| key.as_str()).collect::<Vec<_>>(),
        "contradictions": draft.contradictions,
        "query_findings": findings_json(&draft.query_findings),
        "notice": NOTICE,
    })
}
