//! How a hit is shown: as a line, and as JSON.

use std::path::Path;

use anyhow::Result;
use diptych_client::{Hit, PartContent};
use diptych_core::AttributeValue;
use diptych_lexical::LexicalQuery;
use serde_json::{Map, Value, json};

use crate::output;

/// Under a hit that words found stands the sentence that has them, unless it is what is shown anyway.
pub fn print_hits(hits: &[Hit], words: Option<&LexicalQuery>) -> Result<()> {
    let width = hits.iter().map(|h| h.key.as_str().chars().count()).max().unwrap_or(0).min(40);
    let told = hits.iter().any(|hit| hit.relevance.is_some());
    for (rank, hit) in hits.iter().enumerate() {
        let relevance = match hit.relevance {
            Some(relevance) => format!("  {:>4.0} %", 100.0 * relevance),
            None if told => "        ".to_owned(),
            None => String::new(),
        };
        let bm25 = match (&hit.lexical, words) {
            (Some(found), _) => format!("  {:>6.2}", found.score),
            (None, Some(_)) => "       -".to_owned(),
            (None, None) => String::new(),
        };
        let summary = summary(hit);
        output::line(&format!(
            "{:>3}  {:>6.3}{relevance}{bm25}  {:<width$}  {summary}",
            rank + 1,
            hit.score,
            hit.key.as_str()
        ))?;
        if let (Some(found), Some(words)) = (&hit.lexical, words) {
            let sentence = output::shorten(words.sentence(found.text()), 100);
            if sentence != summary {
                output::line(&format!("       {}: {sentence}", found.part.at))?;
            }
        }
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

pub fn hit_json(hit: &Hit, words: Option<&LexicalQuery>) -> Value {
    let part = hit.part.as_ref().map(|part| part.at.to_string());
    let mut json = json!({"key": hit.key.as_str(), "score": hit.score, "part": part});
    if let Some(relevance) = hit.relevance {
        json["relevance"] = json!(relevance);
    }
    if !hit.term_scores.is_empty() {
        json["term_scores"] = json!(hit.term_scores);
    }
    if let (Some(found), Some(words)) = (&hit.lexical, words) {
        json["lexical_score"] = json!(found.score);
        json["lexical_part"] = json!(found.part.at.to_string());
        json["lexical_sentence"] = json!(words.sentence(found.text()));
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
