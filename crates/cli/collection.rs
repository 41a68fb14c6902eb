//! `diptych collection`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use diptych_proto::v1 as wire;
use diptych_proto::v1::collection_service_client::CollectionServiceClient;
use diptych_server::{schema_to_wire, type_from_wire};
use serde_json::{Value, json};

use crate::record_args::{
    CollectionCommand, CreateArgs, DeleteCollectionArgs, DescribeArgs, ListCollectionsArgs, WhereArgs,
};
use crate::remote::Link;
use crate::{local, output, remote};

type Client = CollectionServiceClient<Link>;

pub fn run(command: &CollectionCommand) -> Result<ExitCode> {
    let runtime = remote::runtime()?;
    runtime.block_on(async {
        match command {
            CollectionCommand::Create(args) => create(args).await,
            CollectionCommand::List(args) => list(args).await,
            CollectionCommand::Describe(args) => describe(args).await,
            CollectionCommand::Delete(args) => delete(args).await,
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn create(args: &CreateArgs) -> Result<()> {
    let link = match (&args.place.data, &args.model) {
        (Some(data), Some(model)) => {
            let encoder = local::load_model(model, args.precision)?;
            let engine = local::open_engine(data, encoder, diptych_engine::EngineOptions::default(), true)?;
            local::link_to(engine).await?
        }
        (Some(data), None) if !local::has_model(data)? => anyhow::bail!(
            "{} has no collection yet, so its model is not known; name it with --model",
            data.display()
        ),
        _ => local::link(&args.place).await?,
    };
    let types = args.attributes.iter().cloned().collect();
    let schema = diptych_core::AttributeSchema::new(types, !args.closed)?;
    let request =
        wire::CreateCollectionRequest { name: args.name.to_string(), schema: Some(schema_to_wire(&schema)) };
    let mut client = Client::new(link);
    let answer = client.create_collection(request).await.map_err(|s| remote::failed(&s))?;
    let collection = answer.into_inner().collection.context("the server's answer has no collection")?;
    output::line(&format!("created collection '{}': {}", collection.name, schema_line(&collection)))
}

async fn list(args: &ListCollectionsArgs) -> Result<()> {
    let mut client = client(&args.place).await?;
    let mut collections = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = wire::ListCollectionsRequest { page_size: 1000, page_token };
        let page = client.list_collections(request).await.map_err(|s| remote::failed(&s))?.into_inner();
        collections.extend(page.collections);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    if args.json {
        let all: Vec<Value> = collections.iter().map(as_json).collect();
        return output::line(&serde_json::to_string_pretty(&all)?);
    }
    if collections.is_empty() {
        return output::line("no collection; create one, or ingest something");
    }
    let width = collections.iter().map(|c| c.name.len()).max().unwrap_or(0);
    collections.iter().try_for_each(|collection| {
        output::line(&format!("{:width$}  {}", collection.name, counts_line(collection)))
    })
}

async fn describe(args: &DescribeArgs) -> Result<()> {
    let collection = get(&mut client(&args.place).await?, args.name.to_string()).await?;
    if args.json {
        return output::line(&serde_json::to_string_pretty(&as_json(&collection))?);
    }
    output::line(&format!("{}: {}", collection.name, counts_line(&collection)))?;
    output::line(&format!("  attributes  {}", schema_line(&collection)))?;
    output::line(&format!("  model       {} · {} dimensions", collection.model_id, collection.dimension))?;
    output::line(&format!("  created     {}", created(&collection).unwrap_or_else(|| "not known".to_owned())))
}

async fn delete(args: &DeleteCollectionArgs) -> Result<()> {
    let mut client = client(&args.place).await?;
    let name = args.name.to_string();
    let records = get(&mut client, name.clone()).await?.records;
    let request = wire::DeleteCollectionRequest { name: name.clone() };
    client.delete_collection(request).await.map_err(|s| remote::failed(&s))?;
    output::line(&format!("deleted collection '{name}' with {}", output::count(records, "record")))
}

async fn client(place: &WhereArgs) -> Result<Client> {
    Ok(Client::new(local::link(place).await?))
}

async fn get(client: &mut Client, name: String) -> Result<wire::Collection> {
    let request = wire::GetCollectionRequest { name };
    let answer = client.get_collection(request).await.map_err(|s| remote::failed(&s))?;
    answer.into_inner().collection.context("the server's answer has no collection")
}

fn counts_line(collection: &wire::Collection) -> String {
    format!(
        "{}, {}, {}",
        output::count(collection.records, "record"),
        output::count(collection.image_points, "image"),
        output::count(collection.text_points, "text")
    )
}

/// The types by name, in their order.
fn types(collection: &wire::Collection) -> Vec<(&str, &'static str)> {
    let types = collection.schema.iter().flat_map(|schema| &schema.types);
    let mut types: Vec<(&str, &str)> = types
        .map(|(name, &of)| (name.as_str(), type_from_wire(of).map_or("unknown", |of| of.as_str())))
        .collect();
    types.sort_unstable();
    types
}

fn schema_line(collection: &wire::Collection) -> String {
    let types = types(collection);
    let closed = collection.schema.as_ref().is_some_and(|schema| schema.closed);
    let named: Vec<String> = types.iter().map(|(name, of)| format!("{name} {of}")).collect();
    match (named.is_empty(), closed) {
        (true, false) => "any attributes".to_owned(),
        (true, true) => "no attributes".to_owned(),
        (false, false) => format!("{}; any others", named.join(", ")),
        (false, true) => format!("{}; no others", named.join(", ")),
    }
}

fn created(collection: &wire::Collection) -> Option<String> {
    let time = collection.create_time.as_ref()?;
    let time = diptych_core::Time::new(time.seconds, u32::try_from(time.nanos).ok()?).ok()?;
    Some(time.to_string())
}

fn as_json(collection: &wire::Collection) -> Value {
    let types: serde_json::Map<String, Value> =
        types(collection).into_iter().map(|(name, of)| (name.to_owned(), json!(of))).collect();
    json!({
        "name": collection.name,
        "attributes": types,
        "closed": collection.schema.as_ref().is_some_and(|schema| schema.closed),
        "model_id": collection.model_id,
        "dimension": collection.dimension,
        "created": created(collection),
        "records": collection.records,
        "images": collection.image_points,
        "texts": collection.text_points,
        "truncated_texts": collection.truncated_texts,
    })
}
