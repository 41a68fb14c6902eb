//! `diptych ingest --dry-run`: what would be stored, and what would not.

use std::process::ExitCode;

use anyhow::Result;
use diptych_core::{AttributeValue, Chunking};
use diptych_ingest::{Item, Layout, Source};

use super::report;
use crate::ingest_args::DryRun;
use crate::output;

/// Characters of a text that are shown.
const TEXT_WIDTH: usize = 160;
/// Characters of a value that are shown.
const VALUE_WIDTH: usize = 60;
/// What would be left out, at the most, that is told one by one.
const ERRORS_SHOWN: u64 = 20;

/// Counts of what was seen.
#[derive(Default)]
struct Seen {
    items: u64,
    images: u64,
    texts: u64,
    errors: u64,
}

/// Prints the layout, the mapping and the first records.
pub fn run(source: &Source, wanted: DryRun) -> Result<ExitCode> {
    output::line(&format!("layout: {}", source.layout()))?;
    output::line(&format!("why:    {}", source.why()))?;
    output::line(&format!("source: {}", source.path().display()))?;
    let mapping = source.mapping()?;
    if !mapping.is_empty() {
        output::line("\nmapping:")?;
        let width = mapping.iter().map(|(what, _)| what.chars().count()).max().unwrap_or(0).min(48);
        for (what, meaning) in &mapping {
            output::line(&format!("  {what:width$}  {meaning}"))?;
        }
    }
    if source.layout() == Layout::ClipRetrieval {
        output::line("\nnothing would be encoded; `diptych ingest` imports the vectors as they are")?;
        return Ok(ExitCode::SUCCESS);
    }
    let shown = match wanted {
        DryRun::First(n) => n.get() as u64,
        // Shown as many as without a number; the others are counted.
        DryRun::All => 5,
    };
    let mut seen = Seen::default();
    let mut ended = true;
    for item in source.items()? {
        match item {
            Ok(item) => {
                seen.items += 1;
                seen.images += item.images.len() as u64;
                seen.texts += item.texts.len() as u64;
                if seen.items <= shown {
                    show(seen.items, &item)?;
                }
            }
            Err(error) => {
                seen.errors += 1;
                if seen.errors <= ERRORS_SHOWN {
                    output::line(&format!("\nleft out: {error}"))?;
                }
            }
        }
        if wanted != DryRun::All && seen.items + seen.errors >= shown {
            ended = false;
            break;
        }
    }
    sum_up(source, &seen, ended)?;
    Ok(ExitCode::SUCCESS)
}

fn sum_up(source: &Source, seen: &Seen, ended: bool) -> Result<()> {
    if seen.errors > ERRORS_SHOWN {
        output::line(&format!("\nleft out: {} more", output::grouped(seen.errors - ERRORS_SHOWN)))?;
    }
    report::tell_notes(source, "not read")?;
    let whole = if ended { "the whole source" } else { "so far; --dry-run=all reads on to the end" };
    output::line(&format!(
        "\n{} with {} and {}, {} left out: {whole}",
        output::count(seen.items, "record"),
        output::count(seen.images, "image"),
        output::count(seen.texts, "text"),
        output::grouped(seen.errors),
    ))
}

/// Prints a record as it would be stored.
fn show(number: u64, item: &Item) -> Result<()> {
    output::line(&format!("\nrecord {number}: {}", item.key))?;
    output::line(&format!("  from       {}", item.origin))?;
    for image in &item.images {
        let size = image.path().and_then(|path| path.metadata().ok()).map(|metadata| metadata.len());
        let size = size.map_or(String::new(), |size| format!(" ({} bytes)", output::grouped(size)));
        output::line(&format!("  image      {}{size}", output::shorten(&image.source(), TEXT_WIDTH)))?;
    }
    let divided = match item.chunking {
        Chunking::Context => "",
        Chunking::Sentences => ", by sentences",
    };
    for text in &item.texts {
        let length = output::count(text.chars().count() as u64, "character");
        output::line(&format!("  text       {}", output::shorten(text, TEXT_WIDTH)))?;
        output::line(&format!("             ({length}{divided})"))?;
    }
    for (name, value) in &item.attributes {
        let value = match value {
            AttributeValue::String(text) => format!("\"{}\"", output::shorten(text, VALUE_WIDTH)),
            other => output::shorten(&output::attribute_json(other).to_string(), VALUE_WIDTH),
        };
        let (name, of) = (output::shorten(name, VALUE_WIDTH), type_name(item, name));
        output::line(&format!("  attribute  {name} = {value} ({of})"))?;
    }
    Ok(())
}

fn type_name(item: &Item, name: &str) -> &'static str {
    match item.attributes.get(name) {
        Some(AttributeValue::String(_)) => "text",
        Some(AttributeValue::List(_)) => "list",
        Some(AttributeValue::Integer(_)) => "integer",
        Some(AttributeValue::Float(_)) => "float",
        Some(AttributeValue::Bool(_)) => "truth value",
        Some(AttributeValue::Time(_)) => "time",
        None => "none",
    }
}
