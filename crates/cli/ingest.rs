//! `diptych ingest`.

mod dry_run;
mod report;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use diptych_client::{IngestResult, NewImage, NewRecord, Outcome, Stored};
use diptych_engine::{BulkCounts, BulkOptions, Engine, EngineOptions, Failure, TextCounts, ordered_map};
use diptych_ingest::{Layout, Source};
use indicatif::ProgressBar;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use crate::ingest_args::IngestArgs;
use crate::{import, index, local, output, remote, sources};
pub use report::FailureReport;

/// Items that are read ahead of those on their way; bounds memory when images are large.
const IN_FLIGHT: usize = 32;

pub fn run(args: &IngestArgs) -> Result<ExitCode> {
    let started = Instant::now();
    if args.index && args.data.is_none() {
        bail!("--index is for --data; a server takes in what is new by itself");
    }
    let mut source = Source::open_with(&args.source, &args.source_options())?;
    if source.layout() == Layout::Dicom {
        source.set_dicom(args.dicom_options()?);
    }
    if let Some(wanted) = args.dry_run {
        return dry_run::run(&source, wanted);
    }
    if source.layout() == Layout::ClipRetrieval {
        eprintln!("note: {}, so it is imported as it is and nothing is encoded", source.why());
        return import::run(&args.import());
    }
    let mut report = FailureReport::new(args.report.clone());
    let (counts, engine) = match (&args.data, &args.model, &args.server) {
        (Some(data), Some(model), None) => {
            let (counts, engine) = ingest_here(args, &source, data, model, &mut report)?;
            (counts, Some(engine))
        }
        (_, _, Some(server)) => (ingest_there(args, &source, server, &mut report)?, None),
        _ => bail!("--data needs --model; name the model directory, or hf:owner/name"),
    };
    let failures = report.finish()?;
    let layout = source.layout();
    if layout != Layout::Folder && layout != Layout::JsonLines {
        output::line(&format!("read as {layout}: {}", source.why()))?;
    }
    let seconds = started.elapsed();
    let rate = counts.items() as f64 / seconds.as_secs_f64();
    output::line(&format!(
        "{} items in {}, {rate:.0} per second: {} created, {} updated, {} unchanged, {} failed",
        counts.items(),
        output::seconds(seconds),
        counts.created,
        counts.updated,
        counts.unchanged,
        counts.failed
    ))?;
    if counts.images + counts.texts > 0 {
        let (images, texts) = (output::count(counts.images, "image"), output::count(counts.texts, "text"));
        output::line(&format!("encoded: {images} and {texts}"))?;
    }
    let TextCounts { split, chunks, truncated, truncated_tokens } = counts.long_texts;
    if split > 0 {
        let texts = output::count(split, "text");
        output::line(&format!("{texts} longer than the model's context: split into {chunks} parts"))?;
    }
    if truncated > 0 {
        let (texts, tokens) = (output::count(truncated, "text"), output::count(truncated_tokens, "token"));
        output::line(&format!("{texts} truncated to the model's context: {tokens} cannot be found by"))?;
    }
    report::tell_notes(&source, "left out")?;
    if failures > 0 {
        output::line(&format!("what failed, and why: {}", args.report.display()))?;
    }
    match engine {
        Some(engine) if args.index => index::build(&engine, &args.collection)?,
        Some(_) if counts.created + counts.updated > 0 => {
            output::line("the index takes this in at the next start, or now by `diptych index`")?;
        }
        _ => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn ingest_here(
    args: &IngestArgs,
    source: &Source,
    data: &Path,
    model: &Path,
    report: &mut FailureReport,
) -> Result<(BulkCounts, Engine)> {
    let (items, total) = sources::bulk_items(source)?;
    let encoder = local::load_model(model, args.precision)?;
    // No index is opened by ingesting, so none slows it down.
    let engine = local::open_engine(data, encoder, EngineOptions::default(), true)?;
    let bar = output::progress_bar(total, "items");
    let counts = engine.ingest_all(
        &args.collection,
        items,
        &BulkOptions::default(),
        |failure| report.add(&failure),
        |counts| show(&bar, counts),
    )?;
    bar.finish_and_clear();
    Ok((counts, engine))
}

fn show(bar: &ProgressBar, counts: &BulkCounts) {
    bar.set_position(counts.items());
    bar.set_message(format!("{} failed", counts.failed));
}

/// Streams the items to a server. Answers come in the order of the items.
fn ingest_there(
    args: &IngestArgs,
    source: &Source,
    url: &str,
    report: &mut FailureReport,
) -> Result<BulkCounts> {
    let (items, total) = sources::bulk_items(source)?;
    let bar = output::progress_bar(total, "items");
    let mut counts = BulkCounts::default();
    let runtime = remote::runtime()?;
    let client = runtime.block_on(remote::connect(url))?.with_collection(args.collection.clone());
    let (send, records) = tokio::sync::mpsc::channel::<NewRecord>(IN_FLIGHT);
    // What was sent, in order: its origin and the number of its images and texts.
    let (sent, origins) = std::sync::mpsc::sync_channel::<Sent>(4 * IN_FLIGHT);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let workers = BulkOptions::default().workers;
            let loaded = ordered_map(scope, items, workers, IN_FLIGHT, |item| (item.origin, (item.load)()));
            for (origin, record) in loaded {
                let (entry, record) = match record {
                    Ok(new) => {
                        let sizes = (new.images.len() as u64, new.texts.len() as u64);
                        (Sent::Item { origin, sizes }, Some(record_of(new)))
                    }
                    Err(reason) => (Sent::Unreadable(Failure { origin, reason }), None),
                };
                let gone = sent.send(entry).is_err()
                    || record.is_some_and(|record| send.blocking_send(record).is_err());
                if gone {
                    return;
                }
            }
        });
        runtime.block_on(async {
            let mut results = client.ingest(ReceiverStream::new(records));
            for entry in origins {
                match entry {
                    Sent::Unreadable(failure) => {
                        counts.failed += 1;
                        report.add(&failure);
                    }
                    Sent::Item { origin, sizes } => {
                        let result = results.next().await;
                        let result = result.context("not all items were answered; run again to go on")?;
                        let result = result.context("broken off; run again to go on")?;
                        take(result, origin, sizes, &mut counts, report);
                    }
                }
                show(&bar, &counts);
            }
            anyhow::Ok(())
        })
    })?;
    bar.finish_and_clear();
    Ok(counts)
}

enum Sent {
    Item { origin: String, sizes: (u64, u64) },
    Unreadable(Failure),
}

fn record_of(new: diptych_engine::NewRecord) -> NewRecord {
    let image = |image: diptych_engine::NewImage| NewImage { data: image.bytes, source: image.source };
    NewRecord {
        images: new.images.into_iter().map(image).collect(),
        texts: new.texts,
        chunking: new.chunking,
        attributes: new.attributes,
        ..NewRecord::new(new.key)
    }
}

fn take(
    result: IngestResult,
    origin: String,
    sizes: (u64, u64),
    counts: &mut BulkCounts,
    report: &mut FailureReport,
) {
    let stored = match result.stored {
        Ok(stored) => stored,
        Err(error) => {
            counts.failed += 1;
            report.add(&Failure { origin, reason: error.message().to_owned() });
            return;
        }
    };
    let Stored { outcome, truncated_tokens, split_texts, text_chunks, truncated_texts } = stored;
    counts.long_texts.add(TextCounts {
        split: split_texts.into(),
        chunks: text_chunks.into(),
        truncated: truncated_texts.into(),
        truncated_tokens: truncated_tokens.into(),
    });
    match outcome {
        Outcome::Created => counts.created += 1,
        Outcome::Updated => counts.updated += 1,
        Outcome::Unchanged => {
            counts.unchanged += 1;
            return;
        }
    }
    counts.images += sizes.0;
    counts.texts += sizes.1;
}
