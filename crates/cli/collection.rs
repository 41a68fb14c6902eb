//! `diptych collection`.

use std::process::ExitCode;

use anyhow::Result;
use diptych_client::Collection;
use serde_json::{Value, json};

use crate::record_args::{
    CollectionCommand, CreateArgs, DeleteCollectionArgs, DescribeArgs, ListCollectionsArgs, RebuildIndexArgs,
};
use crate::{local, operation, output, remote};

pub fn run(command: &CollectionCommand) -> Result<ExitCode> {
    let runtime = remote::runtime()?;
    runtime.block_on(async {
        match command {
            CollectionCommand::Create(args) => create(args).await,
            CollectionCommand::List(args) => list(args).await,
            CollectionCommand::Describe(args) => describe(args).await,
            CollectionCommand::Delete(args) => delete(args).await,
            CollectionCommand::RebuildIndex(args) => rebuild(args).await,
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn create(args: &CreateArgs) -> Result<()> {
    let client = match (&args.place.data, &args.model) {
        (Some(data), Some(model)) => {
            let encoder = local::load_model(model, args.precision)?;
            let engine = local::open_engine(data, encoder, diptych_engine::EngineOptions::default(), true)?;
            local::client_of(engine).await?
        }
        (Some(data), None) if !local::has_model(data)? => anyhow::bail!(
            "{} has no collection yet, so its model is not known; name it with --model",
            data.display()
        ),
        _ => local::client(&args.place).await?,
    };
    let types = args.attributes.iter().cloned().collect();
    let schema = diptych_core::AttributeSchema::new(types, !args.closed)?;
    let collection = client.create_collection(&args.name, &schema).await?;
    output::line(&format!("created collection '{}': {}", collection.name, schema_line(&collection)))
}

async fn list(args: &ListCollectionsArgs) -> Result<()> {
    let collections = local::client(&args.place).await?.collections().await?;
    if args.json {
        let all: Vec<Value> = collections.iter().map(as_json).collect();
        return output::line(&serde_json::to_string_pretty(&all)?);
    }
    if collections.is_empty() {
        return output::line("no collection; create one, or ingest something");
    }
    let width = collections.iter().map(|c| c.name.as_str().len()).max().unwrap_or(0);
    collections.iter().try_for_each(|collection| {
        output::line(&format!("{:width$}  {}", collection.name.as_str(), counts_line(collection)))
    })
}

async fn describe(args: &DescribeArgs) -> Result<()> {
    let collection = local::client(&args.place).await?.get_collection(&args.name).await?;
    if args.json {
        return output::line(&serde_json::to_string_pretty(&as_json(&collection))?);
    }
    output::line(&format!("{}: {}", collection.name, counts_line(&collection)))?;
    output::line(&format!("  attributes  {}", schema_line(&collection)))?;
    output::line(&format!("  model       {} · {} dimensions", collection.model_id, collection.dimension))?;
    output::line(&format!(
        "  created     {}",
        collection.created.map(|time| time.to_string()).unwrap_or_else(|| "not known".to_owned())
    ))
}

async fn delete(args: &DeleteCollectionArgs) -> Result<()> {
    let client = local::client(&args.place).await?;
    let records = client.get_collection(&args.name).await?.records;
    client.delete_collection(&args.name).await?;
    output::line(&format!("deleted collection '{}' with {}", args.name, output::count(records, "record")))
}

async fn rebuild(args: &RebuildIndexArgs) -> Result<()> {
    let client = local::client(&args.place).await?;
    let begun = client.rebuild_index(&args.name).await?;
    if args.detach {
        return output::line(&begun.name);
    }
    let points = operation::wait(&client, begun).await?.indexed_points;
    output::line(&format!("rebuilt the indexes of '{}': {}", args.name, output::count(points, "point")))
}

fn counts_line(collection: &Collection) -> String {
    format!(
        "{}, {}, {}",
        output::count(collection.records, "record"),
        output::count(collection.image_points, "image"),
        output::count(collection.text_points, "text")
    )
}

fn schema_line(collection: &Collection) -> String {
    let types = collection.schema.types();
    let named: Vec<String> = types.iter().map(|(name, of)| format!("{name} {of}")).collect();
    match (named.is_empty(), collection.schema.is_open()) {
        (true, true) => "any attributes".to_owned(),
        (true, false) => "no attributes".to_owned(),
        (false, true) => format!("{}; any others", named.join(", ")),
        (false, false) => format!("{}; no others", named.join(", ")),
    }
}

fn as_json(collection: &Collection) -> Value {
    let types = collection.schema.types().iter();
    let types: serde_json::Map<String, Value> =
        types.map(|(name, of)| (name.clone(), json!(of.as_str()))).collect();
    json!({
        "name": collection.name.as_str(),
        "attributes": types,
        "closed": !collection.schema.is_open(),
        "model_id": collection.model_id,
        "dimension": collection.dimension,
        "created": collection.created.map(|time| time.to_string()),
        "records": collection.records,
        "images": collection.image_points,
        "texts": collection.text_points,
        "truncated_texts": collection.truncated_texts,
    })
}
