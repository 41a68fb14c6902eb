//! `diptych record`.

use std::process::ExitCode;

use anyhow::Result;
use diptych_client::{Client, Count, DeleteWhere, List, Part, PartContent, Record, Update};
use diptych_core::Filter;
use serde_json::{Map, Value, json};
use tokio_stream::StreamExt;

use crate::record_args::{CountArgs, DeleteArgs, GetArgs, ListArgs, RecordCommand, RecordsArgs, UpdateArgs};
use crate::{facets, local, operation, output, remote};

/// Records that are asked for at once: their texts may be long.
const PAGE: u32 = 100;

pub fn run(command: &RecordCommand) -> Result<ExitCode> {
    let runtime = remote::runtime()?;
    runtime.block_on(async {
        match command {
            RecordCommand::Get(args) => get(args).await,
            RecordCommand::List(args) => list(args).await,
            RecordCommand::Count(args) => count(args).await,
            RecordCommand::Update(args) => update(args).await,
            RecordCommand::Delete(args) => delete(args).await,
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn get(args: &GetArgs) -> Result<()> {
    let client = client(&args.records).await?;
    let record = client.get_fields(&args.key, args.fields.iter().cloned()).await?;
    output::line(&serde_json::to_string_pretty(&as_json(&record, &args.fields))?)
}

async fn list(args: &ListArgs) -> Result<()> {
    let client = client(&args.records).await?;
    let mut list = List::new().fields(args.fields.iter().cloned());
    list = list.page_size(u32::try_from(args.limit).map_or(PAGE, |limit| limit.clamp(1, PAGE)));
    if let Some(filter) = &args.filter {
        list = list.filter(filter);
    }
    let mut pages = std::pin::pin!(client.list(&list));
    let mut left = args.limit;
    while left > 0 {
        let Some(page) = pages.next().await else { break };
        let page = page?;
        let shown = page.iter().take(usize::try_from(left).unwrap_or(usize::MAX));
        shown.map(|record| as_json(record, &args.fields)).try_for_each(|record| {
            left -= 1;
            output::line(&record.to_string())
        })?;
    }
    Ok(())
}

async fn count(args: &CountArgs) -> Result<()> {
    let client = client(&args.records).await?;
    let mut counting = Count::new();
    if let Some(filter) = &args.filter {
        counting = counting.filter(filter);
    }
    let counted = client.count_values(&args.facets.iter().fold(counting, Count::facet)).await?;
    counted.notes.iter().for_each(|note| eprintln!("note: {note}"));
    output::line(&counted.records.to_string())?;
    facets::print(&counted.facets)
}

async fn update(args: &UpdateArgs) -> Result<()> {
    let client = client(&args.records).await?;
    let mut update = Update::new(args.key.clone());
    for (name, value) in &args.set {
        update = update.set(name, value.clone());
    }
    for name in &args.unset {
        update = update.unset(name);
    }
    if args.replace {
        update = update.replace();
    }
    if let Some(id) = &args.request_id {
        update = update.request_id(id.clone());
    }
    output::line(match client.update(update).await?.seq {
        Some(_) => "updated",
        None => "unchanged: it has these attributes already",
    })
}

async fn delete(args: &DeleteArgs) -> Result<()> {
    let client = client(&args.records).await?;
    if let Some(filter) = &args.filter {
        return delete_matching(args, &client, filter).await;
    }
    for key in &args.keys {
        client.delete(key).await?;
    }
    output::line(&format!("deleted {}", output::count(args.keys.len() as u64, "record")))
}

async fn delete_matching(args: &DeleteArgs, client: &Client, filter: &Filter) -> Result<()> {
    let mut deletion = DeleteWhere::new(filter);
    if args.dry_run {
        deletion = deletion.dry_run();
    }
    if let Some(id) = &args.request_id {
        deletion = deletion.request_id(id.clone());
    }
    let begun = client.delete_where(deletion).await?;
    begun.notes.iter().for_each(|note| eprintln!("note: {note}"));
    let Some(operation) = begun.operation else {
        let records = output::count(begun.matching_records, "record");
        return output::line(&format!("{records} would be deleted"));
    };
    let deleted = operation::wait(client, operation).await?.deleted_records;
    output::line(&format!("deleted {}", output::count(deleted, "record")))
}

async fn client(records: &RecordsArgs) -> Result<Client> {
    Ok(local::client(&records.place).await?.with_collection(records.collection.clone()))
}

/// A record as JSON, with those of its fields that were asked for.
fn as_json(record: &Record, fields: &[String]) -> Value {
    let wanted = |name: &str| {
        let asks = |field: &String| field == name || field == "*" || field.split('.').next() == Some(name);
        fields.is_empty() || fields.iter().any(asks)
    };
    let attributes: Map<String, Value> =
        record.attributes.iter().map(|(name, value)| (name.clone(), output::attribute_json(value))).collect();
    let parts: Vec<Value> = record.parts.iter().map(part_json).collect();
    let all = [
        ("key", json!(record.key.as_str())),
        ("parts", json!(parts)),
        ("attributes", json!(attributes)),
        ("seq", json!(record.seq)),
    ];
    let shown = all.into_iter().filter(|(name, _)| wanted(name));
    shown.map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>().into()
}

fn part_json(part: &Part) -> Value {
    let name = part.at.to_string();
    match &part.content {
        Some(PartContent::Image(image)) => {
            let (digest, width, height) = (image.digest.to_string(), image.width, image.height);
            json!({"part": name, "source": image.source, "width": width, "height": height, "digest": digest})
        }
        Some(PartContent::Text(text)) => {
            json!({"part": name, "text": text.text, "truncated_tokens": text.truncated_tokens})
        }
        None => json!({"part": name}),
    }
}
