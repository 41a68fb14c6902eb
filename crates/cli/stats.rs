//! `diptych stats`.

use std::process::ExitCode;

use anyhow::Result;
use diptych_core::Modality;
use diptych_proto::convert::modality_from_wire;
use diptych_proto::v1 as wire;
use serde_json::{Value, json};

use crate::args::StatsArgs;
use crate::{index, output, remote};

pub fn run(args: &StatsArgs) -> Result<ExitCode> {
    let stats = remote::runtime()?
        .block_on(async { anyhow::Ok(remote::connect(&args.server).await?.stats().await?.message) })?;
    if args.json {
        output::line(&serde_json::to_string_pretty(&as_json(&stats))?)?;
    } else {
        print(&stats)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(stats: &wire::StatsResponse) -> Result<()> {
    output::line(&format!(
        "diptych {} · model {} · {} dimensions",
        stats.version,
        stats.model_id.chars().take(12).collect::<String>(),
        stats.dimension
    ))?;
    for collection in &stats.collections {
        output::line(&format!(
            "{}: {}, {}, {}",
            collection.name,
            output::count(collection.records, "record"),
            output::count(collection.image_points, "image"),
            output::count(collection.text_points, "text"),
        ))?;
        for index in &collection.indexes {
            output::line(&format!("  {}", index::describe(index)))?;
        }
        if !collection.recall.is_empty() {
            output::line(
                "  recall                     searches  measured  dropped   mean  latest (95 % interval)",
            )?;
        }
        for recall in &collection.recall {
            output::line(&format!(
                "  {:<25} {:>9} {:>9} {:>8} {:>6}  {}",
                direction(recall),
                recall.searches,
                recall.measured,
                recall.dropped,
                recall.mean.map_or_else(|| "-".to_owned(), |mean| format!("{mean:.3}")),
                recall.latest.as_ref().map_or_else(|| "-".to_owned(), estimate),
            ))?;
            for rung in &recall.ladder {
                let found = rung.recall.as_ref().map_or_else(|| "-".to_owned(), estimate);
                output::line(&format!("    at 10 with ef {:<5} {found}", rung.ef))?;
            }
        }
    }
    let percent = 100.0 * stats.recall_sample;
    output::line(&format!("{percent} % of the searches are repeated exactly to measure recall"))
}

fn direction(recall: &wire::DirectionRecall) -> String {
    let from = match recall.query_kind() {
        wire::QueryKind::Image => "image",
        wire::QueryKind::Text => "text",
        wire::QueryKind::Vector => "vector",
        wire::QueryKind::Unspecified => "unknown",
    };
    let to = modality_from_wire(recall.target).map_or("unknown", Modality::as_str);
    format!("{from} to {to}{}", if recall.filtered { ", filtered" } else { "" })
}

fn estimate(recall: &wire::RecallEstimate) -> String {
    let wire::RecallEstimate { mean, low, high, queries } = recall;
    format!(
        "{mean:.3} ({low:.3} to {high:.3}) of {}",
        if *queries == 1 { "1 query".to_owned() } else { format!("{queries} queries") }
    )
}

fn as_json(stats: &wire::StatsResponse) -> Value {
    let estimate = |recall: &wire::RecallEstimate| json!({"mean": recall.mean, "low": recall.low, "high": recall.high, "queries": recall.queries});
    let recall = |recall: &wire::DirectionRecall| {
        let rung =
            |rung: &wire::LadderRung| json!({"ef": rung.ef, "recall": rung.recall.as_ref().map(estimate)});
        json!({
            "direction": direction(recall),
            "searches": recall.searches,
            "measured": recall.measured,
            "dropped": recall.dropped,
            "mean": recall.mean,
            "latest": recall.latest.as_ref().map(estimate),
            "ladder": recall.ladder.iter().map(rung).collect::<Vec<_>>(),
        })
    };
    let collection = |collection: &wire::CollectionStats| {
        json!({
            "name": collection.name,
            "records": collection.records,
            "images": collection.image_points,
            "texts": collection.text_points,
            "truncated_texts": collection.truncated_texts,
            "indexes": collection.indexes.iter().map(index::as_json).collect::<Vec<_>>(),
            "recall": collection.recall.iter().map(recall).collect::<Vec<_>>(),
        })
    };
    json!({
        "version": stats.version,
        "model_id": stats.model_id,
        "dimension": stats.dimension,
        "collections": stats.collections.iter().map(collection).collect::<Vec<_>>(),
        "recall_sample": stats.recall_sample,
    })
}
