//! `diptych operation`, and waiting for one with its progress.

use std::process::ExitCode;

use anyhow::{Result, bail};
use diptych_client::{Client, Operation};
use serde_json::{Value, json};
use tokio_stream::StreamExt;

use crate::{output, remote};

#[derive(Debug, clap::Subcommand)]
pub enum OperationCommand {
    /// List operations, the latest first
    List(ListArgs),
    /// Show how far an operation is
    Show(ShowArgs),
    /// Wait for the end of an operation; exit code 1 when it ended before it was through
    Wait(NameArgs),
    /// Ask an operation to stop; what it has done stays done
    Cancel(NameArgs),
}

/// A server; operations are its, and forgotten when it stops.
#[derive(Debug, clap::Args)]
pub struct ServerArgs {
    /// Server to ask, such as http://127.0.0.1:7700
    ///
    /// The API key and certificates come from the environment, as `diptych search --help` says.
    #[arg(long, value_name = "URL")]
    pub server: String,
}

#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Most operations to print
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub limit: usize,
    #[command(flatten)]
    pub server: ServerArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    #[command(flatten)]
    pub which: NameArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub struct NameArgs {
    /// The operation's name, such as operations/67430c1a-3
    pub name: String,
    #[command(flatten)]
    pub server: ServerArgs,
}

pub fn run(command: &OperationCommand) -> Result<ExitCode> {
    remote::runtime()?.block_on(async {
        match command {
            OperationCommand::List(args) => list(args).await,
            OperationCommand::Show(args) => show(args).await,
            OperationCommand::Wait(args) => {
                let client = remote::connect(&args.server.server).await?;
                let operation = client.operation(&args.name).await?;
                output::line(&line(&wait(&client, operation).await?))
            }
            OperationCommand::Cancel(args) => {
                remote::connect(&args.server.server).await?.cancel(&args.name).await?;
                output::line(&format!("asked {} to stop; what it has done stays done", args.name))
            }
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn list(args: &ListArgs) -> Result<()> {
    let client = remote::connect(&args.server.server).await?;
    let mut pages = std::pin::pin!(client.operations());
    let mut all = Vec::new();
    while let Some(page) = pages.next().await {
        all.extend(page?);
        if all.len() >= args.limit {
            break;
        }
    }
    all.truncate(args.limit);
    if args.json {
        let all: Vec<Value> = all.iter().map(as_json).collect();
        return output::line(&serde_json::to_string_pretty(&all)?);
    }
    if all.is_empty() {
        return output::line("no operation since the server was started");
    }
    all.iter().try_for_each(|operation| output::line(&line(operation)))
}

async fn show(args: &ShowArgs) -> Result<()> {
    let operation = remote::connect(&args.which.server.server).await?.operation(&args.which.name).await?;
    match args.json {
        true => output::line(&serde_json::to_string_pretty(&as_json(&operation))?),
        false => output::line(&line(&operation)),
    }
}

/// Waits for the end of an operation and shows how far it is; that it failed is an error.
pub async fn wait(client: &Client, operation: Operation) -> Result<Operation> {
    let operation = match operation.done {
        true => operation,
        false => {
            let bar = output::progress_bar(Some(operation.total), unit(&operation));
            let ended = client.wait(&operation.name, |operation| {
                bar.set_length(operation.total.max(1));
                bar.set_position(operation.completed);
            });
            let ended = ended.await?;
            bar.finish_and_clear();
            ended
        }
    };
    if let Some(error) = &operation.error {
        bail!("after {}: {}", done_so_far(&operation), error.message());
    }
    Ok(operation)
}

fn unit(operation: &Operation) -> &'static str {
    match operation.kind {
        diptych_client::OperationKind::RebuildIndex => "points",
        _ => "records",
    }
}

fn done_so_far(operation: &Operation) -> String {
    let (deleted, indexed) = (operation.deleted_records, operation.indexed_points);
    match operation.kind {
        diptych_client::OperationKind::DeleteRecords => output::count(deleted, "record"),
        diptych_client::OperationKind::RebuildIndex => output::count(indexed, "point"),
        _ => format!("{} of {}", operation.completed, operation.total),
    }
}

fn line(operation: &Operation) -> String {
    let state = match (&operation.error, operation.done) {
        (Some(error), _) => format!("ended after {}: {}", done_so_far(operation), error.message()),
        (None, true) => format!("done, {}", done_so_far(operation)),
        (None, false) => format!("running, {} of {}", operation.completed, operation.total),
    };
    format!("{}  {} of '{}': {state}", operation.name, operation.what(), operation.collection)
}

fn as_json(operation: &Operation) -> Value {
    let error = operation.error.as_ref();
    json!({
        "name": operation.name,
        "kind": operation.what(),
        "collection": operation.collection,
        "done": operation.done,
        "completed": operation.completed,
        "total": operation.total,
        "error": error.map(|error| json!({"code": format!("{:?}", error.code()), "message": error.message()})),
        "deleted_records": operation.deleted_records,
        "indexed_points": operation.indexed_points,
        "started": operation.started.map(|time| time.to_string()),
        "ended": operation.ended.map(|time| time.to_string()),
    })
}
