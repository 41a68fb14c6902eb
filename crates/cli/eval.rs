//! `diptych eval`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use diptych_core::{AttributeValue, Attributes, Embedding, Encode};
use diptych_eval::{DirectionReport, PrecisionReport, Report, evaluate, label_precision};
use diptych_ingest::Source;
use serde_json::{Value, json};

use crate::args::EvalArgs;
use crate::embed::{embed_images, embed_texts};
use crate::{local, output};

/// Depth at which shared labels are counted.
const LABEL_DEPTH: usize = 5;

pub fn run(args: &EvalArgs) -> Result<ExitCode> {
    let encoder = local::load_model(&args.model.dir, args.model.precision)?;
    let pairs = Pairs::read(args)?;
    let images = embed_images(&encoder, &pairs.images)?;
    let texts = embed_texts(&encoder, &pairs.texts)?;
    let report = evaluate(&images, &pairs.image_items, &texts, &pairs.text_items)?;
    let labels = pairs.label_precision(&images, &texts)?;
    if args.json {
        output::line(&serde_json::to_string_pretty(&as_json(&encoder, &report, labels.as_ref()))?)?;
    } else {
        print_table(&report, labels.as_ref())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The pairs as two galleries; equal item numbers belong together.
#[derive(Default)]
struct Pairs {
    images: Vec<PathBuf>,
    image_items: Vec<u32>,
    texts: Vec<String>,
    text_items: Vec<u32>,
    /// Per item, the number of its label set; `None` when some item has no labels.
    label_sets: Option<Vec<u32>>,
}

impl Pairs {
    fn read(args: &EvalArgs) -> Result<Self> {
        let mut pairs = Self::default();
        let mut sets: HashMap<Vec<String>, u32> = HashMap::new();
        let mut label_sets = Some(Vec::new());
        for item in Source::open(&args.pairs)?.items()? {
            let item = match item {
                Ok(item) => item,
                Err(error) => bail!("{error}; correct the file, an evaluation leaves nothing out"),
            };
            if item.images.is_empty() || item.texts.is_empty() {
                bail!("{}: has no pair; every line needs an image and a text", item.origin);
            }
            let number = next_item(&pairs);
            pairs.image_items.extend(item.images.iter().map(|_| number));
            pairs.images.extend(item.images);
            pairs.text_items.extend(item.texts.iter().map(|_| number));
            pairs.texts.extend(item.texts);
            label_sets = label_sets.zip(labels(&item.attributes)).map(|(mut all, labels)| {
                let next = u32::try_from(sets.len()).unwrap_or(u32::MAX);
                all.push(*sets.entry(labels).or_insert(next));
                all
            });
        }
        if pairs.images.is_empty() {
            bail!("{} has no pairs; give one JSON object per line", args.pairs.display());
        }
        pairs.label_sets = label_sets;
        Ok(pairs)
    }

    /// Precision by full label set, text to image and image to text.
    fn label_precision(
        &self,
        images: &[Embedding],
        texts: &[Embedding],
    ) -> Result<Option<(PrecisionReport, PrecisionReport)>> {
        let Some(sets) = &self.label_sets else { return Ok(None) };
        let of = |items: &[u32]| items.iter().map(|&item| sets[item as usize]).collect::<Vec<u32>>();
        let (image_labels, text_labels) = (of(&self.image_items), of(&self.text_items));
        Ok(Some((
            label_precision(texts, &text_labels, images, &image_labels, LABEL_DEPTH)?,
            label_precision(images, &image_labels, texts, &text_labels, LABEL_DEPTH)?,
        )))
    }
}

/// The number of the next item: one more than the last.
fn next_item(pairs: &Pairs) -> u32 {
    pairs.image_items.last().map_or(0, |last| last + 1)
}

fn labels(attributes: &Attributes) -> Option<Vec<String>> {
    match attributes.get("labels") {
        Some(AttributeValue::List(labels)) => {
            let mut labels = labels.clone();
            labels.sort();
            Some(labels)
        }
        _ => None,
    }
}

fn as_json(
    encoder: &dyn Encode,
    report: &Report,
    labels: Option<&(PrecisionReport, PrecisionReport)>,
) -> Value {
    let direction = |d: &DirectionReport, labels: Option<&PrecisionReport>| {
        let mut value = json!({
            "recall@1": d.recall_at_1, "recall@5": d.recall_at_5, "recall@10": d.recall_at_10,
            "median_rank": d.median_rank, "queries": d.queries, "gallery": d.gallery,
            "chance@1": d.chance_at_1, "chance@5": d.chance_at_5, "chance@10": d.chance_at_10,
        });
        if let Some(labels) = labels {
            value["label_precision@5"] = json!(labels.precision);
            value["label_chance@5"] = json!(labels.chance);
        }
        value
    };
    json!({
        "text_to_image": direction(&report.text_to_image, labels.map(|l| &l.0)),
        "image_to_text": direction(&report.image_to_text, labels.map(|l| &l.1)),
        "model_id": encoder.model_id().to_string(),
    })
}

fn print_table(report: &Report, labels: Option<&(PrecisionReport, PrecisionReport)>) -> Result<()> {
    output::line("direction       recall@1  recall@5  recall@10  median rank  queries  gallery  chance@10")?;
    for (name, d) in [("text to image", &report.text_to_image), ("image to text", &report.image_to_text)] {
        output::line(&format!(
            "{name}   {:>8.3}  {:>8.3}  {:>9.3}  {:>11}  {:>7}  {:>7}  {:>9.4}",
            d.recall_at_1, d.recall_at_5, d.recall_at_10, d.median_rank, d.queries, d.gallery, d.chance_at_10
        ))?;
    }
    if let Some((to_image, to_text)) = labels {
        output::line("")?;
        output::line("direction       label precision@5  chance")?;
        for (name, p) in [("text to image", to_image), ("image to text", to_text)] {
            output::line(&format!("{name}   {:>17.3}  {:>6.4}", p.precision, p.chance))?;
        }
    }
    Ok(())
}
