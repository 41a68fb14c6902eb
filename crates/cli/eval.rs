//! `diptych eval`: which pairs, which measures, and where they go.

mod json;
mod page;
mod plots;
mod protocol;
mod table;
mod thumbnail;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use diptych_core::Embedding;
use diptych_encoder::DualEncoder;
use diptych_eval::{Bootstrap, Options, Report, evaluate};
use diptych_ingest::Item;

use crate::args::{EvalArgs, Protocol};
use crate::embed::{embed_images, embed_texts};
use crate::pairs::{self, Numbers};
use crate::{local, output};

pub use json::interval as interval_json;
pub use table::{align, interval, number};

/// The attribute that labels are taken from when none is named and every record has it.
const LABELS_DEFAULT: &str = "labels";

pub fn run(args: &EvalArgs) -> Result<ExitCode> {
    if !matches!(args.protocol, None | Some(Protocol::Rocov2)) {
        return protocol::run(args);
    }
    let encoder = local::load_model(&args.model.dir, args.model.precision)?;
    let corpus = Corpus::read(args)?;
    let images = embed_images(&encoder, &corpus.images)?;
    let texts = embed_texts(&encoder, &corpus.texts)?;
    let report = corpus.evaluate(&images, &texts, args.measure.bootstrap())?;
    for note in corpus.notes(&report) {
        eprintln!("note: {note}");
    }
    let evaluation = Evaluation { encoder: &encoder, corpus: &corpus, report: &report, args };
    if let Some(path) = &args.report {
        let page = page::write(&evaluation)?;
        std::fs::write(path, page).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if args.json {
        output::line(&serde_json::to_string_pretty(&json::of(&evaluation))?)?;
    } else {
        for line in table::lines(&evaluation) {
            output::line(&line)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// All that is reported.
struct Evaluation<'a> {
    encoder: &'a DualEncoder,
    corpus: &'a Corpus,
    report: &'a Report,
    args: &'a EvalArgs,
}

/// The pairs as two galleries.
struct Corpus {
    items: Vec<Item>,
    images: Vec<PathBuf>,
    image_records: Vec<u32>,
    texts: Vec<String>,
    text_records: Vec<u32>,
    /// Per text, the number of its wording; `None` when equal texts are wrong for each other.
    wordings: Option<Vec<u32>>,
    /// Texts that another record has too.
    texts_shared: usize,
    groups: Vec<u32>,
    /// The attribute that labels come from, and the set of each record.
    labels: Option<(String, Vec<Vec<u32>>)>,
}

impl Corpus {
    fn read(args: &EvalArgs) -> Result<Self> {
        let items = match args.protocol {
            Some(Protocol::Rocov2) => protocol::rocov2(&args.pairs, args.images.as_deref())?,
            _ => pairs::read(&args.pairs)?,
        };
        let groups = pairs::groups(&items, args.measure.group_by.as_deref())?;
        let labels = labels(&items, args.labels.as_deref())?;
        let (mut images, mut image_records) = (Vec::new(), Vec::new());
        let (mut texts, mut text_records) = (Vec::new(), Vec::new());
        for (record, item) in (0u32..).zip(&items) {
            if item.images.is_empty() || item.texts.is_empty() {
                bail!("{}: has no pair; every line needs an image and a text", item.origin);
            }
            let files = pairs::image_files(item)?;
            image_records.extend(files.iter().map(|_| record));
            images.extend(files);
            text_records.extend(item.texts.iter().map(|_| record));
            texts.extend(item.texts.iter().cloned());
        }
        let (wordings, texts_shared) = wordings(&texts, &text_records);
        let wordings = (!args.duplicates_wrong).then_some(wordings);
        Ok(Self { items, images, image_records, texts, text_records, wordings, texts_shared, groups, labels })
    }

    fn evaluate(&self, images: &[Embedding], texts: &[Embedding], bootstrap: Bootstrap) -> Result<Report> {
        let (of_images, of_texts) = (&self.image_records, &self.text_records);
        let mut pairs = diptych_eval::Pairs::new(images, of_images, texts, of_texts, self.items.len())?
            .with_clusters(&self.groups)?;
        if let Some(wordings) = &self.wordings {
            pairs = pairs.with_equal_texts(wordings)?;
        }
        if let Some((_, sets)) = &self.labels {
            pairs = pairs.with_labels(sets)?;
        }
        Ok(evaluate(&pairs, &Options { bootstrap, ..Options::default() })?)
    }

    /// What a reader of the numbers should know.
    fn notes(&self, report: &Report) -> Vec<String> {
        let mut notes = Vec::new();
        if self.texts_shared > 0 {
            let shared = output::grouped(self.texts_shared as u64);
            let all = output::grouped(self.texts.len() as u64);
            notes.push(match self.wordings {
                Some(_) => format!(
                    "{shared} of {all} texts occur in other records too and are right answers for the images of \
                     all of these, and one item of the gallery; --duplicates-wrong counts only the own record"
                ),
                None => format!(
                    "{shared} of {all} texts occur in other records too; --duplicates-wrong counts those as \
                     wrong, which no model can tell apart"
                ),
            });
        }
        let groups = report.text_to_image.clusters;
        if groups < 2 {
            notes.push(
                "there is only one group, so there are neither intervals nor a control; give pairs of several"
                    .to_owned(),
            );
        } else if groups < 30 && report.text_to_image.mrr.interval.is_some() {
            notes.push(format!("{groups} groups are few: take the intervals as too narrow"));
        }
        notes
    }

    /// The record of an image, in words.
    fn key_of_image(&self, image: u32) -> &str {
        self.items[self.image_records[image as usize] as usize].key.as_str()
    }

    /// The record of a text, in words.
    fn key_of_text(&self, text: u32) -> &str {
        self.items[self.text_records[text as usize] as usize].key.as_str()
    }
}

/// The number of each text's wording, white space aside, and how many texts another record has too.
fn wordings(texts: &[String], records: &[u32]) -> (Vec<u32>, usize) {
    let mut numbers = Numbers::default();
    let wordings: Vec<u32> =
        texts.iter().map(|text| numbers.of(text.split_whitespace().collect::<Vec<_>>().join(" "))).collect();
    let mut first_record = vec![None; numbers.len()];
    let mut shared = vec![false; numbers.len()];
    for (&wording, &record) in wordings.iter().zip(records) {
        let first = *first_record[wording as usize].get_or_insert(record);
        shared[wording as usize] |= first != record;
    }
    let count = wordings.iter().filter(|&&wording| shared[wording as usize]).count();
    (wordings, count)
}

/// The label sets of all records: of the attribute asked for, else of the usual one where all have it.
fn labels(items: &[Item], attribute: Option<&str>) -> Result<Option<(String, Vec<Vec<u32>>)>> {
    let usual =
        || items.iter().all(|item| item.attributes.contains_key(LABELS_DEFAULT)).then_some(LABELS_DEFAULT);
    let Some(attribute) = attribute.or_else(usual) else { return Ok(None) };
    let mut numbers = Numbers::default();
    let sets = items.iter().map(|item| {
        let values = pairs::values(item, attribute)?;
        Ok(values.into_iter().map(|label| numbers.of(label)).collect::<Vec<u32>>())
    });
    Ok(Some((attribute.to_owned(), sets.collect::<Result<_>>()?)))
}

/// A file's name without its folders, which differ between machines.
fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}
