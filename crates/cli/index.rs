//! `diptych index`, and how an index is described.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use diptych_core::{CollectionName, Modality};
use diptych_engine::{Care, Cared, Engine, EngineOptions, Opening, Taught, care_for};
use diptych_proto::convert::modality_from_wire;
use diptych_proto::v1 as wire;
use diptych_server::index_to_wire;
use serde_json::{Value, json};

use crate::args::IndexArgs;
use crate::embed::embed_texts;
use crate::{local, output, sources};

/// Most queries of a file: beyond these, an index learns little more and takes long.
const QUERIES_MAX: usize = 100_000;

pub fn run(args: &IndexArgs) -> Result<ExitCode> {
    output::init_logs_from("warn");
    let care = Care { check: args.check, rebuild: args.rebuild, queries: &[] };
    let mut shown = Shown { check: args.check, ..Shown::default() };
    match (&args.queries, &args.model) {
        (Some(file), Some(model)) => {
            let texts = read_queries(file)?;
            let encoder = local::load_model(model, args.precision)?;
            let engine = local::open_engine(&args.data, encoder, EngineOptions::default(), false)?;
            let collections = engine.overview()?.collections.into_iter().map(|(name, _)| name);
            let collections: Vec<CollectionName> = match &args.collection {
                Some(name) => vec![name.clone()],
                None => collections.collect(),
            };
            let queries = embed_texts(engine.encoder(), &texts)
                .with_context(|| format!("cannot embed the queries in {}", file.display()))?;
            let care = Care { queries: &queries, ..care };
            for collection in collections {
                engine.care_for(&collection, &care, |cared| shown.show(&cared))?;
            }
        }
        _ => {
            let store = local::open_store(&args.data, false)?;
            care_for(&store, args.collection.as_ref(), &care, |cared| shown.show(&cared))?;
        }
    }
    shown.finish()
}

/// Builds the indexes of a collection, or has them catch up, and says so.
pub fn build(engine: &Engine, collection: &CollectionName) -> Result<()> {
    let mut shown = Shown::default();
    engine.care_for(collection, &Care::default(), |cared| shown.show(&cared))?;
    shown.finish().map(drop)
}

/// Prints what was done, as it is done.
#[derive(Default)]
struct Shown {
    check: bool,
    collection: Option<CollectionName>,
    damaged: usize,
    /// What went wrong with printing.
    printed: Option<anyhow::Error>,
}

impl Shown {
    fn show(&mut self, cared: &Cared) {
        if let Err(error) = self.lines(cared) {
            self.printed.get_or_insert(error);
        }
    }

    fn lines(&mut self, cared: &Cared) -> Result<()> {
        let Cared { index, damage, sealed_in, taught, .. } = cared;
        if self.collection.as_ref() != Some(&index.collection) {
            output::line(&format!("{}:", index.collection))?;
            self.collection = Some(index.collection.clone());
        }
        let what = format!("{}s", index.modality);
        match damage {
            Some(damage) => {
                self.damaged += 1;
                output::line(&format!("  {what}: problem: {damage}"))?;
            }
            None if self.check => {
                output::line(&format!("  {what}: all files agree with their checksums"))?;
            }
            None => {}
        }
        output::line(&format!(
            "  {what}: {}, sealed and merged in {}",
            opened(cared),
            output::seconds(*sealed_in)
        ))?;
        if let Some(Taught { queries, links_added, took }) = taught {
            let queries = if *queries == 1 { "1 query".to_owned() } else { format!("{queries} queries") };
            let added = match links_added {
                0 => "no links added, since none were missing".to_owned(),
                links => format!("{} links added", output::grouped(*links as u64)),
            };
            output::line(&format!("  {what}: taught {queries} in {}: {added}", output::seconds(*took)))?;
        }
        output::line(&format!("  {}", describe(&index_to_wire(index))))
    }

    fn finish(self) -> Result<ExitCode> {
        if let Some(error) = self.printed {
            return Err(error);
        }
        if self.collection.is_none() {
            output::line("there are no collections yet: ingest something first")?;
        }
        Ok(if self.damaged > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

fn opened(cared: &Cared) -> String {
    let took = output::seconds(cared.opened_in);
    match &cared.opening {
        Opening::Held | Opening::Opened => format!("opened in {took}"),
        Opening::CaughtUp { changes } => {
            format!("opened and caught up with {} in {took}", output::count(*changes, "change"))
        }
        Opening::Built { because: Some(because) } if cared.damage.is_none() => {
            format!("built again in {took}, because {because}")
        }
        Opening::Built { because: Some(_) } => format!("built again in {took}"),
        Opening::Built { because: None } => format!("built in {took}"),
    }
}

/// An index in one line, such as `images: 12,345 points in 2 segments + 120 live`.
pub fn describe(index: &wire::IndexStats) -> String {
    let modality = modality_from_wire(index.modality).map_or("unknown", Modality::as_str);
    let sealed: u64 = index.segment_points.iter().sum();
    let mut places = Vec::new();
    if !index.segment_points.is_empty() {
        let segments = output::count(index.segment_points.len() as u64, "segment");
        let points = if sealed == 1 { "point" } else { "points" };
        places.push(format!("{} {points} in {segments}", output::grouped(sealed)));
    }
    for (points, state) in [(index.live_points, "live"), (index.sealing_points, "being sealed")] {
        if points > 0 {
            places.push(format!("{} {state}", output::grouped(points)));
        }
    }
    if places.is_empty() {
        return format!("{modality}s: no points");
    }
    let mut said = vec![places.join(" + ")];
    if sealed > 0 {
        let each = |links: u64| links as f64 / sealed as f64;
        let (links, added) = (each(index.links), each(index.added_links));
        said.push(format!("{links:.1} links per point, {added:.1} of them for queries"));
        let (hot, cold) = (output::mebibytes(index.hot_bytes), output::mebibytes(index.vector_bytes));
        said.push(format!("{hot} of codes and links, {cold} of vectors"));
    }
    if index.tombstones > 0 {
        said.push(output::count(index.tombstones, "tombstone"));
    }
    if index.stragglers > 0 {
        said.push(output::count(index.stragglers, "straggler"));
    }
    format!("{modality}s: {}", said.join(" · "))
}

/// An index as JSON.
pub fn as_json(index: &wire::IndexStats) -> Value {
    json!({
        "modality": modality_from_wire(index.modality).map_or("unknown", Modality::as_str),
        "segment_points": index.segment_points,
        "live_points": index.live_points,
        "sealing_points": index.sealing_points,
        "links": index.links,
        "added_links": index.added_links,
        "hot_bytes": index.hot_bytes,
        "vector_bytes": index.vector_bytes,
        "tombstones": index.tombstones,
        "stragglers": index.stragglers,
    })
}

fn read_queries(path: &Path) -> Result<Vec<String>> {
    let texts = sources::read_lines(path)?;
    if texts.is_empty() {
        bail!("{} is empty; give one query per line", path.display());
    }
    if texts.len() > QUERIES_MAX {
        bail!("{} has {} lines; give at most {QUERIES_MAX}, a sample of them", path.display(), texts.len());
    }
    Ok(texts)
}
