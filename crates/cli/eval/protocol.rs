//! `diptych eval --protocol`: published protocols on files as they are published, and ours for studies.
//!
//! Owns: which searches a protocol makes and how their numbers are shown. How files are read is in `layout`, what a
//! study is in `study`, and what is measured in the crate eval.

mod layout;
mod study;

use std::process::ExitCode;

use anyhow::{Result, bail};
use diptych_core::{Embedding, Encode};
use diptych_encoder::DualEncoder;
use diptych_eval::{LabelOptions, LabelSearch, Labelled, Metric, Things, label_search};
use serde_json::{Map, Value, json};

use super::{align, file_name, interval, interval_json, number};
use crate::args::{EvalArgs, Protocol};
use crate::embed::{embed_images, embed_texts};
use crate::local;
use crate::output::{self, grouped, short_id};

pub use layout::rocov2;

/// Depths at which precision is published for categories, and those for studies.
const CATEGORY_DEPTHS: &[usize] = &[5, 10, 50, 100];
const STUDY_DEPTHS: &[usize] = &[1, 5, 10];

/// Things of one side, as they own their data.
#[derive(Debug, Default)]
struct Side {
    embeddings: Vec<Embedding>,
    owners: Vec<u32>,
    labels: Vec<Vec<u32>>,
    sets: Vec<Vec<u32>>,
    groups: Vec<u32>,
}

impl Side {
    /// Things with one embedding each, whose labels are also what nDCG compares.
    fn single(embeddings: Vec<Embedding>, labels: Vec<Vec<u32>>, groups: Vec<u32>) -> Self {
        let owners = (0u32..).take(embeddings.len()).collect();
        Self { embeddings, owners, sets: labels.clone(), labels, groups }
    }

    fn things(&self) -> Things<'_> {
        let Self { embeddings, owners, labels, sets, groups } = self;
        Things { embeddings, owners, labels, sets, groups }
    }
}

/// What a protocol measured.
struct Measured {
    /// What was read, in words.
    described: String,
    names: Vec<String>,
    depths: &'static [usize],
    searches: Vec<(&'static str, LabelSearch)>,
    notes: Vec<String>,
}

pub fn run(args: &EvalArgs) -> Result<ExitCode> {
    if args.report.is_some() {
        bail!("there is no page for this protocol; use --json, or --report with pairs or --protocol rocov2");
    }
    let measured = |encoder: &DualEncoder| match args.protocol {
        Some(Protocol::FiveBy200) => five(encoder, args),
        Some(Protocol::EightBy200) => eight(encoder, args),
        _ => studies(encoder, args),
    };
    let encoder = local::load_model(&args.model.dir, args.model.precision)?;
    let measured = measured(&encoder)?;
    for note in &measured.notes {
        eprintln!("note: {note}");
    }
    if args.json {
        output::line(&serde_json::to_string_pretty(&to_json(&measured, &encoder, args))?)?;
        return Ok(ExitCode::SUCCESS);
    }
    output::line(&format!("model  {} {}", encoder.family(), short_id(&encoder.model_id())))?;
    output::line(&format!("read   {}", measured.described))?;
    for (name, search) in &measured.searches {
        output::line(&format!(
            "\n{name}: {} queries of {} groups, gallery of {}",
            grouped(search.queries as u64),
            grouped(search.groups as u64),
            grouped(search.gallery as u64)
        ))?;
        for line in align(&rows(&measured, search)) {
            output::line(&line)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Images and report texts of five categories, each looking for the other.
fn five(encoder: &DualEncoder, args: &EvalArgs) -> Result<Measured> {
    let read = layout::five_by_200(&args.pairs, args.images.as_deref())?;
    let images = Side::single(embed_images(encoder, &read.images)?, read.labels.clone(), read.groups.clone());
    let texts = Side::single(embed_texts(encoder, &read.texts)?, read.labels, read.groups);
    let options = options(args, CATEGORY_DEPTHS, false);
    let search = |queries: &Side, gallery: &Side| {
        label_search(&queries.things(), &gallery.things(), layout::FIVE.len(), &options)
    };
    Ok(Measured {
        described: format!("{}: {} images with a report each", file_name(&args.pairs), images.groups.len()),
        names: layout::FIVE.map(str::to_owned).to_vec(),
        depths: CATEGORY_DEPTHS,
        searches: vec![
            ("image to text", search(&images, &texts)?),
            ("text to image", search(&texts, &images)?),
        ],
        notes: vec![
            "the own report of an image is in the gallery and counts, as in the published protocol"
                .to_owned(),
        ],
    })
}

/// Images of eight categories for texts and for other images.
fn eight(encoder: &DualEncoder, args: &EvalArgs) -> Result<Measured> {
    let read = layout::eight_by_200(&args.pairs, args.images.as_deref())?;
    let candidates = Side::single(
        embed_images(encoder, &read.candidates.images)?,
        read.candidates.labels,
        read.candidates.groups,
    );
    let options = options(args, CATEGORY_DEPTHS, false);
    let mut searches = Vec::new();
    let mut described = format!("{}: {} candidates", file_name(&args.pairs), candidates.groups.len());
    if let Some(texts) = read.texts {
        described += &format!(", {} texts", texts.texts.len());
        let queries = Side::single(embed_texts(encoder, &texts.texts)?, texts.labels, texts.groups);
        let found = label_search(&queries.things(), &candidates.things(), layout::EIGHT.len(), &options)?;
        searches.push(("text to image", found));
    }
    if let Some(images) = read.images {
        described += &format!(", {} query images", images.images.len());
        let queries = Side::single(embed_images(encoder, &images.images)?, images.labels, images.groups);
        let found = label_search(&queries.things(), &candidates.things(), layout::EIGHT.len(), &options)?;
        searches.push(("image to image", found));
    }
    let names = layout::EIGHT.map(str::to_owned).to_vec();
    Ok(Measured { described, names, depths: CATEGORY_DEPTHS, searches, notes: Vec::new() })
}

/// Studies by their images and reports, each looking for those of other patients.
fn studies(encoder: &DualEncoder, args: &EvalArgs) -> Result<Measured> {
    let studies = study::Studies::read(args)?;
    let images = studies.by_images(encoder)?;
    let reports = studies.by_reports(encoder)?;
    let options = options(args, STUDY_DEPTHS, true);
    let mut searches = Vec::new();
    for (name, queries, gallery) in [
        ("images to reports", &images, &reports),
        ("reports to images", &reports, &images),
        ("images to images", &images, &images),
        ("reports to reports", &reports, &reports),
    ] {
        if !queries.labels.is_empty() && !gallery.labels.is_empty() {
            searches
                .push((name, label_search(&queries.things(), &gallery.things(), study::LABELS, &options)?));
        }
    }
    Ok(Measured {
        described: studies.describe(&file_name(&args.pairs)),
        names: study::names(),
        depths: STUDY_DEPTHS,
        searches,
        notes: studies.notes(),
    })
}

fn options<'a>(args: &EvalArgs, depths: &'a [usize], exclude_group: bool) -> LabelOptions<'a> {
    LabelOptions { bootstrap: args.measure.bootstrap(), depths, exclude_group }
}

/// A line of headings, nDCG, the mean of the labels, and one per label, as cells.
fn rows(measured: &Measured, search: &LabelSearch) -> Vec<Vec<String>> {
    let heading = |text: &str| text.to_owned();
    let mut head =
        vec![heading(""), heading("queries"), heading("with it"), heading("chance"), heading("shuffled")];
    for depth in measured.depths {
        head.extend([format!("P@{depth}"), heading("95 % interval")]);
    }
    let dashes = 2 * (measured.depths.len() - 1);
    let value = |metric: &Metric| [number(metric.value, ""), interval(metric, "")];
    let shuffled = |one: &Labelled| one.shuffled.map_or("-".to_owned(), |value| number(value, ""));
    let mut rows = vec![head];
    let row = |name: &str, counts: [String; 2], cells: &[Labelled]| {
        let mut row = vec![name.to_owned()];
        row.extend(counts);
        row.extend([number(cells[0].metric.chance, ""), shuffled(&cells[0])]);
        row.extend(cells.iter().flat_map(|one| value(&one.metric)));
        row
    };
    let none = || [String::new(), String::new()];
    rows.push(row("mean of labels", none(), &search.mean));
    for label in &search.labels {
        let counts = [label.queries, label.positives].map(|n| grouped(n as u64));
        rows.push(row(&measured.names[label.label as usize], counts, &label.precision));
    }
    if let Some(ndcg) = &search.ndcg {
        let mut row = row("nDCG@10", none(), &[*ndcg]);
        row.extend(std::iter::repeat_n(String::new(), dashes));
        rows.push(row);
    }
    rows
}

fn to_json(measured: &Measured, encoder: &DualEncoder, args: &EvalArgs) -> Value {
    let labelled = |one: &Labelled| {
        json!({
            "value": one.metric.value,
            "chance": one.metric.chance,
            "interval": interval_json(&one.metric),
            "shuffled": one.shuffled,
            "range": one.range.map(|range| [range.low, range.high]),
        })
    };
    let depths = |cells: &[Labelled]| {
        let each =
            measured.depths.iter().zip(cells).map(|(k, one)| (format!("precision@{k}"), labelled(one)));
        each.collect::<Map<String, Value>>()
    };
    let mut value = Map::new();
    for (name, search) in &measured.searches {
        let labels = search.labels.iter().map(|label| {
            let mut row = depths(&label.precision);
            row.insert("queries".to_owned(), json!(label.queries));
            row.insert("positives".to_owned(), json!(label.positives));
            (measured.names[label.label as usize].clone(), Value::Object(row))
        });
        let found = json!({
            "queries": search.queries,
            "gallery": search.gallery,
            "groups": search.groups,
            "ndcg@10": search.ndcg.as_ref().map(labelled),
            "mean": depths(&search.mean),
            "labels": labels.collect::<Map<String, Value>>(),
        });
        value.insert(name.replace(' ', "_"), found);
    }
    let protocol = args.protocol.and_then(|p| clap::ValueEnum::to_possible_value(&p));
    value.insert("protocol".to_owned(), json!(protocol.map(|p| p.get_name().to_owned())));
    value.insert("pairs".to_owned(), json!(file_name(&args.pairs)));
    value.insert("model_id".to_owned(), json!(encoder.model_id().to_string()));
    value.insert("bootstrap".to_owned(), json!(args.measure.bootstrap));
    value.insert("seed".to_owned(), json!(args.measure.seed));
    Value::Object(value)
}
