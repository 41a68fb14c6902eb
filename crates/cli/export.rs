//! `diptych export`.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use diptych_client::Error;
use diptych_columnar::{About, Description, ExportOptions, ExportWriter};
use diptych_proto::convert::{filter_to_wire, schema_from_wire};
use diptych_proto::v1 as wire;
use diptych_server::vector_record_from_wire;

use crate::backup_args::ExportArgs;
use crate::{backup, local, output, remote};

pub fn run(args: &ExportArgs) -> Result<ExitCode> {
    let started = Instant::now();
    let written = remote::runtime()?.block_on(export(args))?;
    output::line(&format!(
        "exported {} as {} in {}, vectors as {}, in {}: {}",
        output::count(written.records, "record"),
        output::count(written.rows, "row"),
        output::count(written.shards, "shard"),
        written.dtype,
        output::seconds(started.elapsed()),
        args.out.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

async fn export(args: &ExportArgs) -> Result<Description> {
    let folder = backup::staged(&args.out)?;
    let mut client = local::client(&args.place).await?.backups();
    let request = wire::ExportRequest {
        collection: args.collection.to_string(),
        filter: args.filter.as_ref().map(filter_to_wire),
    };
    let mut stream = client.export(request).await.map_err(Error::from)?.into_inner();
    let first = stream.message().await.map_err(Error::from)?;
    let collection = first.and_then(|first| first.collection);
    let collection = collection.context("the server does not say what it exports; run it again")?;
    let total = args.filter.is_none().then_some(collection.records);
    let bar = output::progress_bar(total, "records");
    let options = ExportOptions { dtype: args.dtype, shard_rows: args.shard };
    let mut writer = ExportWriter::create(folder.path(), about(collection)?, options)?;
    let cut = "the export was cut off, and nothing was written; run it again";
    while let Some(message) = stream.message().await.map_err(Error::from).context(cut)? {
        bar.inc(message.records.len() as u64);
        for record in message.records {
            let (record, vectors) = vector_record_from_wire(record).map_err(Error::from)?;
            writer.push(&record, &vectors)?;
        }
    }
    bar.finish_and_clear();
    let description = writer.finish()?;
    backup::publish(folder, &args.out)?;
    Ok(description)
}

fn about(collection: wire::Collection) -> Result<About> {
    let schema = schema_from_wire(collection.schema)?;
    Ok(About {
        collection: collection.name,
        model_id: collection.model_id,
        dimension: collection.dimension as usize,
        schema: schema.types().iter().map(|(name, of)| (name.clone(), of.to_string())).collect(),
        closed: !schema.is_open(),
    })
}
