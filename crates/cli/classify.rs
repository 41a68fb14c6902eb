//! `diptych classify`: labels in words, given to images or judged by the truth.

mod classes;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use diptych_core::{Embedding, Encode, ensemble};
use diptych_encoder::DualEncoder;
use diptych_eval::{Accuracy, Detections, class_scores, classify, detect};
use diptych_ingest::Item;

use crate::args::ClassifyArgs;
use crate::embed::{embed_images, embed_texts};
use crate::{local, output, pairs};
use classes::Class;

pub fn run(args: &ClassifyArgs) -> Result<ExitCode> {
    let classes = classes::of(args)?;
    let encoder = local::load_model(&args.model.dir, args.model.precision)?;
    let pictures = Pictures::read(args)?;
    if classes.len() == 1 && classes[0].negatives.is_empty() && encoder.logit_bias().is_none() {
        eprintln!(
            "note: a single label always has the probability 1; give several, or texts that deny it, as with \
             --prompts radiology"
        );
    }
    let truth = pictures.truth(args, &classes)?;
    let scores = Scores::new(&encoder, &classes, &pictures.paths)?;
    let measured = truth.map(|truth| measure(args, &classes, &pictures, truth, &scores)).transpose()?;
    let classification =
        Classification { encoder: &encoder, classes: &classes, pictures: &pictures, scores: &scores, args };
    if args.json {
        let value = report::json(&classification, measured.as_ref());
        output::line(&serde_json::to_string_pretty(&value)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let lines = match &measured {
        Some(measured) => report::tables(&classification, measured),
        None => report::images(&classification),
    };
    for line in lines {
        output::line(&line)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// All that is reported but the measures.
struct Classification<'a> {
    encoder: &'a DualEncoder,
    classes: &'a [Class],
    pictures: &'a Pictures,
    scores: &'a Scores,
    args: &'a ClassifyArgs,
}

/// The images and the records they come from.
struct Pictures {
    paths: Vec<PathBuf>,
    /// Per image, its record; none when images were named one by one.
    records: Vec<u32>,
    items: Vec<Item>,
}

impl Pictures {
    fn read(args: &ClassifyArgs) -> Result<Self> {
        let Some(pairs) = &args.pairs else {
            return Ok(Self { paths: args.images.clone(), records: Vec::new(), items: Vec::new() });
        };
        let items = pairs::read(pairs)?;
        let (mut paths, mut records) = (Vec::new(), Vec::new());
        for (record, item) in (0u32..).zip(&items) {
            if item.images.is_empty() {
                bail!("{}: has no image; every line needs one", item.origin);
            }
            let files = pairs::image_files(item)?;
            records.extend(files.iter().map(|_| record));
            paths.extend(files);
        }
        Ok(Self { paths, records, items })
    }

    /// What is true of each record; `None` when that was not asked for.
    fn truth(&self, args: &ClassifyArgs, classes: &[Class]) -> Result<Option<Truth>> {
        let Some(attribute) = &args.truth else { return Ok(None) };
        let values: Vec<Vec<String>> =
            self.items.iter().map(|item| pairs::values(item, attribute)).collect::<Result<_>>()?;
        let lists = self.items.iter().any(|item| {
            matches!(item.attributes.get(attribute), Some(diptych_core::AttributeValue::List(_)))
        });
        let labels: Vec<Vec<bool>> =
            classes.iter().map(|class| values.iter().map(|values| class.is_true(values)).collect()).collect();
        if labels.iter().all(|label| label.iter().all(|&is_true| !is_true)) {
            let mut there: Vec<&str> = values.iter().flatten().map(String::as_str).collect();
            there.sort_unstable();
            there.dedup();
            bail!(
                "no record has any of the labels in '{attribute}'; there are: {}",
                output::shorten(&there.join(", "), 300)
            );
        }
        Ok(Some(Truth { single: !lists, labels }))
    }
}

/// What is true of the records.
struct Truth {
    /// Whether the attribute has one value per record rather than a list.
    single: bool,
    /// Per class and record.
    labels: Vec<Vec<bool>>,
}

/// Cosines of every image with every class.
struct Scores {
    /// Per image and class, with the prompts that say it is there.
    positive: Vec<Vec<f32>>,
    /// The same with those that deny it.
    negative: Option<Vec<Vec<f32>>>,
}

impl Scores {
    fn new(encoder: &DualEncoder, classes: &[Class], paths: &[PathBuf]) -> Result<Self> {
        let positive = embed_classes(encoder, classes, |class| &class.prompts)?;
        let negative = match classes[0].negatives.is_empty() {
            true => None,
            false => Some(embed_classes(encoder, classes, |class| &class.negatives)?),
        };
        let images = embed_images(encoder, paths)?;
        Ok(Self {
            positive: class_scores(&images, &positive)?,
            negative: negative.map(|negative| class_scores(&images, &negative)).transpose()?,
        })
    }

    /// What separates images with a label from those without: the cosine with its prompts, less that
    /// with the prompts that deny it.
    fn score(&self, image: usize, class: usize) -> f32 {
        self.positive[image][class] - self.negative.as_ref().map_or(0.0, |negative| negative[image][class])
    }

    /// What the model makes of an image, per class.
    fn probabilities(&self, encoder: &DualEncoder, image: usize) -> Vec<f64> {
        let logits = encoder.logits();
        match &self.negative {
            None => logits.probabilities(&self.positive[image]),
            Some(negative) => {
                let both = self.positive[image].iter().zip(&negative[image]);
                both.map(|(&positive, &negative)| logits.pair_probability(positive, negative)).collect()
            }
        }
    }
}

/// One embedding per class, from the prompts that `of` chooses.
fn embed_classes(
    encoder: &DualEncoder,
    classes: &[Class],
    of: impl Fn(&Class) -> &Vec<String>,
) -> Result<Vec<Embedding>> {
    let prompts: Vec<String> = classes.iter().flat_map(|class| of(class).iter().cloned()).collect();
    let mut embeddings = embed_texts(encoder as &dyn Encode, &prompts)?.into_iter();
    let each = classes.iter().map(|class| {
        let own: Vec<Embedding> = embeddings.by_ref().take(of(class).len()).collect();
        ensemble(&own).with_context(|| format!("label '{}': use other prompts", class.name))
    });
    each.collect()
}

/// What was measured.
struct Measured {
    /// Over the images whose truth is exactly one of the classes; `None` where records have lists, there
    /// is one class only, or classes have prompts that deny them.
    accuracy: Option<Accuracy>,
    /// Images that accuracy leaves out.
    left_out: usize,
    detections: Detections,
}

fn measure(
    args: &ClassifyArgs,
    classes: &[Class],
    pictures: &Pictures,
    truth: Truth,
    scores: &Scores,
) -> Result<Measured> {
    let bootstrap = args.measure.bootstrap();
    let of_records = pairs::groups(&pictures.items, args.measure.group_by.as_deref())?;
    let groups: Vec<u32> = pictures.records.iter().map(|&record| of_records[record as usize]).collect();
    let images = 0..pictures.paths.len();
    let per_class: Vec<Vec<f32>> = (0..classes.len())
        .map(|class| images.clone().map(|image| scores.score(image, class)).collect())
        .collect();
    let of_images: Vec<Vec<bool>> = truth
        .labels
        .iter()
        .map(|label| pictures.records.iter().map(|&record| label[record as usize]).collect())
        .collect();
    let detections = detect(&per_class, &of_images, &groups, &bootstrap)?;
    let (mut accuracy, mut left_out) = (None, 0);
    if truth.single && classes.len() > 1 {
        let own = |image: usize| {
            let mut classes =
                (0u32..).zip(&of_images).filter(|(_, label)| label[image]).map(|(class, _)| class);
            classes.next().filter(|_| classes.next().is_none())
        };
        let counted: Vec<(usize, u32)> =
            images.clone().filter_map(|image| Some((image, own(image)?))).collect();
        left_out = pictures.paths.len() - counted.len();
        if !counted.is_empty() {
            let rows: Vec<Vec<f32>> = counted
                .iter()
                .map(|&(image, _)| (0..classes.len()).map(|class| scores.score(image, class)).collect())
                .collect();
            let own: Vec<u32> = counted.iter().map(|&(_, class)| class).collect();
            let groups: Vec<u32> = counted.iter().map(|&(image, _)| groups[image]).collect();
            accuracy = Some(classify(&rows, &own, &groups, &bootstrap)?);
        }
    }
    Ok(Measured { accuracy, left_out, detections })
}
