//! `diptych record`.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use diptych_core::Filter;
use diptych_proto::FieldMask;
use diptych_proto::v1 as wire;
use diptych_proto::v1::operation_service_client::OperationServiceClient;
use diptych_server::{attributes_from_wire, attributes_to_wire, filter_to_wire, modality_from_wire};
use serde_json::{Map, Value, json};

use crate::record_args::{CountArgs, DeleteArgs, GetArgs, ListArgs, RecordCommand, RecordsArgs, UpdateArgs};
use crate::remote::{Client, Link};
use crate::{facets, local, output, remote};

/// How long one question for the progress of an operation waits for its end.
const WAIT_MILLIS: u32 = 1000;
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
    let mut client = client(&args.records).await?;
    let request = wire::GetRecordRequest {
        collection: args.records.collection.to_string(),
        key: args.key.to_string(),
        read_mask: mask(&args.fields),
    };
    let answer = client.get_record(request).await.map_err(|s| remote::failed(&s))?;
    let record = answer.into_inner().record.context("the server's answer has no record")?;
    output::line(&serde_json::to_string_pretty(&as_json(record, &args.fields)?)?)
}

async fn list(args: &ListArgs) -> Result<()> {
    let mut client = client(&args.records).await?;
    let mut left = args.limit;
    let mut page_token = String::new();
    while left > 0 {
        let request = wire::ListRecordsRequest {
            collection: args.records.collection.to_string(),
            page_size: u32::try_from(left).map_or(PAGE, |left| left.min(PAGE)),
            page_token,
            filter: args.filter.as_ref().map(filter_to_wire),
            read_mask: mask(&args.fields),
        };
        let page = client.list_records(request).await.map_err(|s| remote::failed(&s))?.into_inner();
        for record in page.records {
            output::line(&as_json(record, &args.fields)?.to_string())?;
            left -= 1;
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    Ok(())
}

async fn count(args: &CountArgs) -> Result<()> {
    let mut client = client(&args.records).await?;
    let request = wire::CountRecordsRequest {
        collection: args.records.collection.to_string(),
        filter: args.filter.as_ref().map(filter_to_wire),
        facets: facets::to_wire(&args.facets),
    };
    let answer = client.count_records(request).await.map_err(|s| remote::failed(&s))?.into_inner();
    answer.notes.iter().for_each(|note| eprintln!("note: {note}"));
    output::line(&answer.records.to_string())?;
    facets::print(&answer.facets)
}

async fn update(args: &UpdateArgs) -> Result<()> {
    let mut client = client(&args.records).await?;
    let attributes = args.set.iter().cloned().collect();
    let named = args.set.iter().map(|(name, _)| name).chain(&args.unset);
    let paths = match args.replace {
        true => vec!["attributes".to_owned()],
        false => named.map(|name| format!("attributes.{name}")).collect(),
    };
    let request = wire::UpdateRecordRequest {
        collection: args.records.collection.to_string(),
        record: Some(wire::Record {
            key: args.key.to_string(),
            attributes: attributes_to_wire(&attributes),
            ..Default::default()
        }),
        update_mask: Some(FieldMask { paths }),
        request_id: args.request_id.as_ref().map(ToString::to_string).unwrap_or_default(),
    };
    let answer = client.update_record(request).await.map_err(|s| remote::failed(&s))?.into_inner();
    output::line(match answer.outcome() {
        wire::WriteOutcome::Updated => "updated",
        _ => "unchanged: it has these attributes already",
    })
}

async fn delete(args: &DeleteArgs) -> Result<()> {
    let link = local::link(&args.records.place).await?;
    let mut client = remote::records(link.clone());
    let collection = args.records.collection.to_string();
    if let Some(filter) = &args.filter {
        return delete_matching(args, client, OperationServiceClient::new(link), filter).await;
    }
    for key in &args.keys {
        let (collection, key) = (collection.clone(), key.to_string());
        let request = wire::DeleteRecordRequest { collection, key, ..Default::default() };
        client.delete_record(request).await.map_err(|s| remote::failed(&s))?;
    }
    output::line(&format!("deleted {}", output::count(args.keys.len() as u64, "record")))
}

async fn delete_matching(
    args: &DeleteArgs,
    mut client: Client,
    mut operations: OperationServiceClient<Link>,
    filter: &Filter,
) -> Result<()> {
    let request = wire::DeleteRecordsRequest {
        collection: args.records.collection.to_string(),
        filter: Some(filter_to_wire(filter)),
        dry_run: args.dry_run,
        request_id: args.request_id.as_ref().map(ToString::to_string).unwrap_or_default(),
    };
    let answer = client.delete_records(request).await.map_err(|s| remote::failed(&s))?.into_inner();
    answer.notes.iter().for_each(|note| eprintln!("note: {note}"));
    let Some(mut operation) = answer.operation else {
        let records = output::count(answer.matching_records, "record");
        return output::line(&format!("{records} would be deleted"));
    };
    let bar = output::progress_bar(Some(answer.matching_records), "records");
    while !operation.done {
        if let Some(progress) = &operation.progress {
            bar.set_length(progress.total.max(1));
            bar.set_position(progress.completed);
        }
        let request = wire::GetOperationRequest { name: operation.name.clone(), wait_millis: WAIT_MILLIS };
        let answer = operations.get_operation(request).await.map_err(|s| remote::failed(&s))?;
        operation = answer.into_inner().operation.context("the server's answer has no operation")?;
    }
    bar.finish_and_clear();
    let deleted = operation.result.map_or(0, |result| result.deleted_records);
    if let Some(error) = operation.error {
        bail!("after {}: {}", output::count(deleted, "record"), error.message);
    }
    output::line(&format!("deleted {}", output::count(deleted, "record")))
}

async fn client(records: &RecordsArgs) -> Result<Client> {
    Ok(remote::records(local::link(&records.place).await?))
}

fn mask(fields: &[String]) -> Option<FieldMask> {
    (!fields.is_empty()).then(|| FieldMask { paths: fields.to_vec() })
}

/// A record as JSON, with those of its fields that were asked for.
fn as_json(record: wire::Record, fields: &[String]) -> Result<Value> {
    let wanted = |name: &str| {
        let asks = |field: &String| field == name || field == "*" || field.split('.').next() == Some(name);
        fields.is_empty() || fields.iter().any(asks)
    };
    let attributes = attributes_from_wire(record.attributes).map_err(|s| remote::failed(&s))?;
    let attributes: Map<String, Value> =
        attributes.iter().map(|(name, value)| (name.clone(), output::attribute_json(value))).collect();
    let parts: Vec<Value> = record.parts.iter().map(part_json).collect();
    let all = [
        ("key", json!(record.key)),
        ("parts", json!(parts)),
        ("attributes", json!(attributes)),
        ("seq", json!(record.seq)),
    ];
    let shown = all.into_iter().filter(|(name, _)| wanted(name));
    Ok(shown.map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>().into())
}

fn part_json(part: &wire::Part) -> Value {
    use wire::part::Content;
    let name = part
        .r#ref
        .as_ref()
        .and_then(|part| Some(format!("{}:{}", modality_from_wire(part.modality)?.as_str(), part.ordinal)));
    match &part.content {
        Some(Content::Image(image)) => {
            let digest: String = image.digest.iter().map(|byte| format!("{byte:02x}")).collect();
            let (width, height) = (image.width, image.height);
            json!({"part": name, "source": image.source, "width": width, "height": height, "digest": digest})
        }
        Some(Content::Text(text)) => {
            json!({"part": name, "text": text.text, "truncated_tokens": text.truncated_tokens})
        }
        None => json!({"part": name}),
    }
}
