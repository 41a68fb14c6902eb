//! `diptych import`.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use diptych_client::{Client, Code, Error, Stats};
use diptych_columnar::{About, ColumnarError, Folder, FolderOptions, Items};
use diptych_core::AttributeSchema;
use diptych_engine::{BulkCounts, EngineOptions, Failure};
use diptych_proto::v1 as wire;
use diptych_server::vector_record_to_wire;
use tokio_stream::wrappers::ReceiverStream;

use crate::backup_args::ImportArgs;
use crate::ingest::FailureReport;
use crate::{local, output, remote};

/// Records on their way at once.
const IN_FLIGHT: usize = 256;

pub fn run(args: &ImportArgs) -> Result<ExitCode> {
    let started = Instant::now();
    let folder = Folder::open(&args.source, &FolderOptions { key_column: args.key_column.clone() })?;
    if args.key_column.is_some() && folder.is_own() {
        bail!(
            "{} was exported by diptych and says its keys itself; leave --key-column out",
            args.source.display()
        );
    }
    let mut report = FailureReport::new(args.report.clone());
    let runtime = remote::runtime()?;
    let client = runtime.block_on(client(args, &folder))?.with_collection(args.collection.clone());
    let model_id = runtime.block_on(prepare(args, &folder, &client))?;
    let bar = output::progress_bar(Some(folder.rows()), "rows");
    let (counts, items) = send(args, folder, &runtime, &client, &model_id, &mut report, &bar)?;
    bar.finish_and_clear();
    let failures = report.finish()?;
    let took = started.elapsed();
    output::line(&format!(
        "{} in {}, {:.0} per second: {} created, {} updated, {} unchanged, {} failed",
        output::count(counts.items(), "record"),
        output::seconds(took),
        counts.items() as f64 / took.as_secs_f64(),
        counts.created,
        counts.updated,
        counts.unchanged,
        counts.failed
    ))?;
    tell(args, &items, failures)?;
    Ok(ExitCode::SUCCESS)
}

/// What was left out, and where to look further.
fn tell(args: &ImportArgs, items: &Items, failures: u64) -> Result<()> {
    if !items.left_out().is_empty() {
        let columns: Vec<&str> = items.left_out().iter().map(String::as_str).collect();
        output::line(&format!(
            "left out: values that are neither text, number, truth value, time nor a list of texts, of {}",
            columns.join(", ")
        ))?;
    }
    if items.without_text() > 0 {
        let rows = output::count(items.without_text(), "row");
        output::line(&format!("left out: the vectors of texts of {rows} without a caption"))?;
    }
    if failures > 0 {
        output::line(&format!("what failed, and why: {}", args.report.display()))?;
    }
    Ok(())
}

/// A client of the server, or of the services over the data directory.
async fn client(args: &ImportArgs, folder: &Folder) -> Result<Client> {
    let Some(data) = &args.place.data else { return local::client(&args.place).await };
    if let Some(model) = &args.model {
        let encoder = local::load_model(model, args.precision)?;
        return local::client_of(local::open_engine(data, encoder, EngineOptions::default(), true)?).await;
    }
    if local::has_model(data)? {
        return local::client(&args.place).await;
    }
    match folder.description() {
        Some(said) => {
            let engine = local::open_without_model(data, &said.about.model_id, said.about.dimension)?;
            local::client_of(engine).await
        }
        None => {
            bail!("{} has no collection yet, so its model is not known; name it with --model", data.display())
        }
    }
}

/// Checks that the vectors are of the model that is served, and creates the collection where it is to have
/// a schema. Returns the model's id.
async fn prepare(args: &ImportArgs, folder: &Folder, client: &Client) -> Result<String> {
    let Stats { model_id, dimension, .. } = client.stats().await?;
    let short = |id: &str| id.chars().take(12).collect::<String>();
    let source = args.source.display();
    if folder.dim() != dimension as usize {
        bail!(
            "the vectors in {source} have {} dimensions, those of model {} have {dimension}; embed with that model",
            folder.dim(),
            short(&model_id)
        );
    }
    match folder.description() {
        Some(said) if said.about.model_id != model_id => bail!(
            "the vectors in {source} are of model {}, the collection's would be of {}; use the model that they are \
             of, or ingest the originals",
            short(&said.about.model_id),
            short(&model_id)
        ),
        Some(said) => create(args, &said.about, client).await?,
        None if args.trust_vectors => {}
        None => bail!(
            "{source} does not say which model its vectors are of; if it is model {}, say so with --trust-vectors",
            short(&model_id)
        ),
    }
    Ok(model_id)
}

/// Creates the collection, if it is absent and was exported with a schema.
async fn create(args: &ImportArgs, about: &About, client: &Client) -> Result<()> {
    if about.schema.is_empty() && !about.closed {
        return Ok(());
    }
    match client.get_collection(&args.collection).await {
        Err(error) if error.code() == Code::NotFound => {}
        Err(error) => return Err(error.into()),
        Ok(_) => return Ok(()),
    }
    let types = about.schema.iter().map(|(name, of)| Ok((name.clone(), of.parse()?)));
    let types = types.collect::<Result<_, String>>().map_err(|reason| anyhow!("diptych.json: {reason}"))?;
    let schema = AttributeSchema::new(types, !about.closed)?;
    client.create_collection(&args.collection, &schema).await?;
    Ok(())
}

/// What was sent, or could not be; answers come in this order.
enum Sent {
    Record { origin: String, rows: u64 },
    Unusable(Failure, u64),
}

/// Streams the records. A file that cannot be read on ends the run; what was stored before stays.
fn send(
    args: &ImportArgs,
    folder: Folder,
    runtime: &tokio::runtime::Runtime,
    client: &Client,
    model_id: &str,
    report: &mut FailureReport,
    bar: &indicatif::ProgressBar,
) -> Result<(BulkCounts, Items)> {
    let mut counts = BulkCounts::default();
    let collection = args.collection.to_string();
    let (send, requests) = tokio::sync::mpsc::channel::<wire::ImportRequest>(IN_FLIGHT);
    let (sent, origins) = std::sync::mpsc::sync_channel::<Sent>(4 * IN_FLIGHT);
    let items = std::thread::scope(|scope| {
        let reader = scope.spawn(move || read(folder, &collection, model_id, &send, &sent));
        let answered = runtime.block_on(async {
            let response = client.backups().import(ReceiverStream::new(requests)).await;
            let mut answers = response.map_err(Error::from)?.into_inner();
            for entry in origins {
                let rows = match entry {
                    Sent::Unusable(failure, rows) => {
                        counts.failed += 1;
                        report.add(&failure);
                        rows
                    }
                    Sent::Record { origin, rows } => {
                        let answer = answers.message().await.map_err(Error::from)?;
                        let answer =
                            answer.context("the server ended the stream early; run again to go on")?;
                        take(answer, origin, &mut counts, report);
                        rows
                    }
                };
                bar.inc(rows);
                bar.set_message(format!("{} failed", counts.failed));
            }
            anyhow::Ok(())
        });
        let read = reader.join().map_err(|_| anyhow!("the folder could not be read: a file is damaged"))?;
        answered?;
        read.map_err(|error| anyhow!("after {}: {error}", output::count(counts.items(), "record")))
    })?;
    Ok((counts, items))
}

/// Reads the records of a folder into the stream, until there are no more or nobody takes them.
fn read(
    folder: Folder,
    collection: &str,
    model_id: &str,
    send: &tokio::sync::mpsc::Sender<wire::ImportRequest>,
    sent: &std::sync::mpsc::SyncSender<Sent>,
) -> Result<Items, ColumnarError> {
    let mut items = folder.into_items();
    while let Some(item) = items.next_record()? {
        let (origin, rows) = (item.origin, item.rows);
        let (entry, request) = match item.outcome {
            Ok((record, vectors)) => {
                let request = wire::ImportRequest {
                    collection: collection.to_owned(),
                    record: Some(vector_record_to_wire(&record, vectors)),
                    model_id: model_id.to_owned(),
                    mode: wire::WriteMode::Upsert as i32,
                };
                (Sent::Record { origin, rows }, Some(request))
            }
            Err(reason) => (Sent::Unusable(Failure { origin, reason }, rows), None),
        };
        let gone =
            sent.send(entry).is_err() || request.is_some_and(|request| send.blocking_send(request).is_err());
        if gone {
            break;
        }
    }
    Ok(items)
}

fn take(answer: wire::ImportResponse, origin: String, counts: &mut BulkCounts, report: &mut FailureReport) {
    match (answer.error, wire::WriteOutcome::try_from(answer.outcome)) {
        (Some(error), _) => {
            counts.failed += 1;
            report.add(&Failure { origin, reason: error.message });
        }
        (None, Ok(wire::WriteOutcome::Created)) => counts.created += 1,
        (None, Ok(wire::WriteOutcome::Updated)) => counts.updated += 1,
        (None, _) => counts.unchanged += 1,
    }
}
