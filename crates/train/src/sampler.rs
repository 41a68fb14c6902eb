//! Which pictures a step takes, which of their texts, and how the pictures are changed.
//!
//! Owns: every random choice of a run, and which texts of a batch are right, wrong or neither for which
//! picture. Each choice depends on the seed and the step alone, so a run that is continued from a
//! checkpoint takes the same steps as one that was never interrupted, and there is no generator state
//! to save. Deliberately absent: reading data (see `data`, `features`) and changing pixels (`augment`).

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use diptych_encoder::TextTokenizer;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::augment::Augment;
use crate::data::{Collection, Pixels, fingerprint};
use crate::error::TrainError;
use crate::features::Features;
use crate::objective::Relation;
use crate::recipe::{TextRecipe, TrainSettings};
use crate::report_views::Views;

/// The pictures of a collection as an image side takes them.
#[derive(Debug)]
pub(crate) enum Images {
    /// Pixels for an open tower; a step changes them.
    Pixels(Pixels, Augment),
    /// Rows of a frozen tower: for every picture the plain view, then its changed ones.
    Features(Features, usize),
}

/// The texts of a collection as a text side takes them.
#[derive(Debug)]
pub(crate) struct Texts {
    /// Every distinct text once.
    pub inputs: TextInputs,
    /// Per record, its texts as positions in `inputs`.
    pub of_record: Vec<Views<u32>>,
}

/// Distinct texts.
#[derive(Debug)]
pub(crate) enum TextInputs {
    /// Token ids for an open tower.
    Tokens(Vec<Vec<u32>>),
    /// Rows of a frozen tower.
    Features(Features),
}

/// What one side of a model is fed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Inputs {
    /// Normalised images, `[n, 3, side, side]`.
    Pixels(Vec<f32>),
    /// Token ids with start and end token.
    Tokens(Vec<Vec<u32>>),
    /// Rows of a frozen tower, `[n, width]`.
    Rows(Vec<f32>),
}

/// What one step learns from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Batch {
    /// Pictures of the batch.
    pub pictures: Vec<usize>,
    /// `n` images.
    pub images: Inputs,
    /// The same images, changed another way; where an objective wants them.
    pub second_images: Option<Inputs>,
    /// `m` texts, those of the first image first.
    pub texts: Inputs,
    /// As many other texts of the same records, as far as they have others; where an objective wants them.
    pub second_texts: Option<Inputs>,
    /// What image `i` and text `j` are to each other, at `i * m + j`.
    pub relation: Vec<Relation>,
    /// Share of labels that image `i` and text `j` have in common, likewise; empty without labels.
    pub label_similarity: Vec<f32>,
    /// Positions of the texts among all.
    pub text_numbers: Vec<u32>,
    /// Equal for images and texts of records that share a text.
    pub image_ids: Vec<u64>,
    /// In the numbering of `image_ids`.
    pub text_ids: Vec<u64>,
    /// Decides what the heads leave out, sample by sample.
    pub seed: u64,
}

/// What a batch is made for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Wants {
    /// A second view of every image.
    pub second_images: bool,
    /// A second text for every text.
    pub second_texts: bool,
    /// Label similarity.
    pub labels: bool,
}

/// Draws batches.
#[derive(Debug)]
pub(crate) struct Sampler<'a> {
    collection: &'a Collection,
    images: &'a Images,
    texts: &'a Texts,
    /// Per record, its labels as bits of distinct labels.
    labels: Vec<Vec<u32>>,
    /// Per record, the number of its kin.
    kin: Vec<u32>,
    weights: TextRecipe,
    wants: Wants,
    batch_size: usize,
    texts_per_image: usize,
    seed: u64,
    /// The order of the epoch in progress.
    order: (u64, Vec<usize>),
}

/// What is random here, so that no two purposes share a stream.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    /// Initial weights.
    Weights,
    /// Order of the pairs in an epoch.
    Order,
    /// Changes to one sample.
    Sample,
}

/// The generator for one purpose and one number, an epoch or a sample.
pub(crate) fn generator(seed: u64, purpose: Purpose, number: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed.wrapping_mul(4).wrapping_add(purpose as u64));
    rng.set_stream(number);
    rng
}

impl Texts {
    /// Every distinct text of a collection, in order of appearance, and where each record's are.
    pub fn distinct(collection: &Collection) -> (Vec<String>, Vec<Views<u32>>) {
        let mut numbers: HashMap<&str, u32> = HashMap::new();
        let mut all = Vec::new();
        let of_record = collection
            .records
            .iter()
            .map(|record| {
                record.texts.map(|text| {
                    *numbers.entry(text.as_str()).or_insert_with(|| {
                        all.push(text.clone());
                        all.len() as u32 - 1
                    })
                })
            })
            .collect();
        (all, of_record)
    }
}

impl Images {
    /// Pictures.
    pub fn len(&self) -> usize {
        match self {
            Self::Pixels(pixels, _) => pixels.len(),
            Self::Features(features, _) => features.rows.len() / features.width / self.views(),
        }
    }

    /// Changes whenever a value does.
    pub fn fingerprint(&self) -> u64 {
        match self {
            Self::Pixels(pixels, _) => pixels.fingerprint(),
            Self::Features(features, views) => {
                fingerprint(bytemuck::cast_slice(&features.rows), *views as u64)
            }
        }
    }

    /// Views that are kept of every picture, the plain one included.
    pub fn views(&self) -> usize {
        match self {
            Self::Pixels(..) => 1,
            Self::Features(_, views) => 1 + views,
        }
    }

    /// Pictures in views that are kept, the plain one being number 0.
    pub fn seen(&self, views: &[(usize, usize)]) -> Inputs {
        match self {
            Self::Pixels(..) => self.plain(&views.iter().map(|view| view.0).collect::<Vec<_>>()),
            Self::Features(features, _) => Inputs::Rows(gather(
                features,
                views.iter().map(|(picture, view)| picture * self.views() + view),
            )),
        }
    }

    /// These pictures as they are.
    pub fn plain(&self, pictures: &[usize]) -> Inputs {
        match self {
            Self::Pixels(pixels, augment) => {
                let mut values = vec![0f32; pictures.len() * augment.values()];
                let each = values.par_chunks_exact_mut(augment.values()).zip(pictures);
                each.for_each(|(out, &picture)| augment.plain(pixels.image(picture), out));
                Inputs::Pixels(values)
            }
            Self::Features(features, _) => {
                Inputs::Rows(gather(features, pictures.iter().map(|picture| picture * self.views())))
            }
        }
    }

    /// These pictures, each changed as its own generator says. Of a frozen tower's, one view of all.
    fn changed(&self, pictures: &[usize], rngs: &mut [ChaCha8Rng]) -> Inputs {
        match self {
            Self::Pixels(pixels, augment) => {
                let mut values = vec![0f32; pictures.len() * augment.values()];
                let each = values.par_chunks_exact_mut(augment.values()).zip(pictures).zip(rngs);
                each.for_each(|((out, &picture), rng)| augment.changed(pixels.image(picture), out, rng));
                Inputs::Pixels(values)
            }
            Self::Features(features, views) => {
                let rows = pictures.iter().zip(rngs);
                let rows = rows.map(|(picture, rng)| picture * self.views() + rng.random_range(0..=*views));
                Inputs::Rows(gather(features, rows))
            }
        }
    }
}

impl Inputs {
    /// These inputs with others behind them, where there are others.
    pub fn joined<'a>(&'a self, others: Option<&Self>) -> Cow<'a, Self> {
        let Some(others) = others else { return Cow::Borrowed(self) };
        let mut all = self.clone();
        match (&mut all, others) {
            (Self::Pixels(all), Self::Pixels(others)) | (Self::Rows(all), Self::Rows(others)) => {
                all.extend_from_slice(others);
            }
            (Self::Tokens(all), Self::Tokens(others)) => all.extend_from_slice(others),
            _ => unreachable!("both views of an image are for the same side"),
        }
        Cow::Owned(all)
    }

    /// A run of samples, of which one takes `size` values.
    pub fn piece(&self, samples: &Range<usize>, size: usize) -> Self {
        let values = |all: &[f32]| all[samples.start * size..samples.end * size].to_vec();
        match self {
            Self::Pixels(all) => Self::Pixels(values(all)),
            Self::Rows(all) => Self::Rows(values(all)),
            Self::Tokens(all) => Self::Tokens(all[samples.clone()].to_vec()),
        }
    }
}

impl TextInputs {
    /// These texts.
    pub fn take(&self, texts: &[u32]) -> Inputs {
        match self {
            Self::Tokens(ids) => {
                Inputs::Tokens(texts.iter().map(|&text| ids[text as usize].clone()).collect())
            }
            Self::Features(features) => {
                Inputs::Rows(gather(features, texts.iter().map(|&text| text as usize)))
            }
        }
    }
}

fn gather(features: &Features, rows: impl ExactSizeIterator<Item = usize>) -> Vec<f32> {
    let mut out = Vec::with_capacity(rows.len() * features.width);
    rows.for_each(|row| out.extend_from_slice(&features.rows[row * features.width..][..features.width]));
    out
}

impl<'a> Sampler<'a> {
    /// Over the training side of the data.
    pub fn new(
        collection: &'a Collection,
        images: &'a Images,
        texts: &'a Texts,
        weights: TextRecipe,
        settings: &TrainSettings,
        wants: Wants,
    ) -> Self {
        let mut numbers: HashMap<&str, u32> = HashMap::new();
        let labels = collection
            .records
            .iter()
            .map(|record| {
                let number = |label: &'a String| {
                    let next = numbers.len() as u32;
                    *numbers.entry(label.as_str()).or_insert(next)
                };
                let mut labels: Vec<u32> = record.labels.iter().map(number).collect();
                labels.sort_unstable();
                labels
            })
            .collect();
        let (batch_size, texts_per_image, seed) =
            (settings.batch_size, settings.texts_per_image, settings.seed);
        let (kin, order) = (collection.kin(), (u64::MAX, Vec::new()));
        Self {
            collection,
            images,
            texts,
            labels,
            kin,
            weights,
            wants,
            batch_size,
            texts_per_image,
            seed,
            order,
        }
    }

    /// The batch of this number, counted from 0. Every epoch visits the pictures in another order; the
    /// few that do not fill a batch wait for another epoch.
    pub fn batch(&mut self, number: u64) -> Batch {
        let all = self.collection.pictures.len();
        let per_epoch = (all / self.batch_size).max(1) as u64;
        let epoch = number / per_epoch;
        if self.order.0 != epoch {
            let mut order: Vec<usize> = (0..all).collect();
            order.shuffle(&mut generator(self.seed, Purpose::Order, epoch));
            self.order = (epoch, order);
        }
        let start = (number % per_epoch) as usize * self.batch_size;
        let pictures = self.order.1[start..][..self.batch_size.min(all)].to_vec();
        let sample = |i: usize| number * self.batch_size as u64 + i as u64;
        let mut rngs: Vec<ChaCha8Rng> =
            (0..pictures.len()).map(|i| generator(self.seed, Purpose::Sample, sample(i))).collect();
        let images = self.images.changed(&pictures, &mut rngs);
        let second_images = self.wants.second_images.then(|| self.images.changed(&pictures, &mut rngs));
        let records: Vec<usize> =
            pictures.iter().map(|&picture| self.collection.record_of[picture] as usize).collect();
        let (mut texts, mut second_texts, mut owners) = (Vec::new(), Vec::new(), Vec::new());
        for (&record, rng) in records.iter().zip(&mut rngs) {
            let mut drawn =
                self.draw(record, self.texts_per_image * (1 + usize::from(self.wants.second_texts)), rng);
            second_texts.extend(drawn.split_off(self.texts_per_image));
            owners.resize(owners.len() + drawn.len(), record);
            texts.extend(drawn);
        }
        Batch {
            images,
            second_images,
            relation: self.relation(&records, &texts, &owners),
            label_similarity: self.label_similarity(&records, &owners),
            image_ids: records.iter().map(|&record| u64::from(self.kin[record])).collect(),
            text_ids: owners.iter().map(|&record| u64::from(self.kin[record])).collect(),
            texts: self.texts.inputs.take(&texts),
            second_texts: self.wants.second_texts.then(|| self.texts.inputs.take(&second_texts)),
            text_numbers: texts,
            pictures,
            seed: self.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        }
    }

    /// So many texts of a record, none twice unless there are too few.
    fn draw(&self, record: usize, count: usize, rng: &mut ChaCha8Rng) -> Vec<u32> {
        let views = &self.texts.of_record[record];
        let mut drawn: Vec<u32> = Vec::with_capacity(count);
        // A record with fewer texts repeats them: objectives count on as many for each image.
        let mut tries = 0;
        while drawn.len() < count {
            let text = *self.draw_one(views, rng);
            tries += 1;
            if !drawn.contains(&text) || tries > 8 * count {
                drawn.push(text);
            }
        }
        drawn
    }

    fn draw_one<'v>(&self, views: &'v Views<u32>, rng: &mut ChaCha8Rng) -> &'v u32 {
        let weight = |w: f32, texts: &[u32]| if texts.is_empty() { 0.0 } else { w };
        let whole = weight(self.weights.whole, &views.whole);
        let impression = weight(self.weights.impression, &views.impressions);
        let sentence = weight(self.weights.sentence, &views.sentences);
        let at = rng.random::<f32>() * (whole + impression + sentence);
        let from = if at < whole || (impression == 0.0 && sentence == 0.0) {
            &views.whole
        } else if at < whole + impression || sentence == 0.0 {
            &views.impressions
        } else {
            &views.sentences
        };
        &from[rng.random_range(0..from.len())]
    }

    /// Texts drawn for the same record are right. A text that another record has too, drawn or not, is
    /// no wrong answer for it.
    fn relation(&self, records: &[usize], texts: &[u32], owners: &[usize]) -> Vec<Relation> {
        let m = texts.len();
        let mut places: HashMap<u32, Vec<usize>> = HashMap::new();
        for (j, &text) in texts.iter().enumerate() {
            places.entry(text).or_default().push(j);
        }
        let mut relation = vec![Relation::Negative; records.len() * m];
        for (row, &record) in relation.chunks_exact_mut(m).zip(records) {
            for text in self.texts.of_record[record].iter() {
                for &j in places.get(text).into_iter().flatten() {
                    row[j] = Relation::Neutral;
                }
            }
            for (cell, &owner) in row.iter_mut().zip(owners) {
                if owner == record {
                    *cell = Relation::Positive;
                }
            }
        }
        relation
    }

    /// Jaccard index of the labels of every image's record and every text's.
    fn label_similarity(&self, records: &[usize], owners: &[usize]) -> Vec<f32> {
        if !self.wants.labels {
            return Vec::new();
        }
        let rows = records.iter();
        rows.flat_map(|&a| owners.iter().map(move |&b| jaccard(&self.labels[a], &self.labels[b]))).collect()
    }
}

/// Share of the labels of either that both have; both sorted. Two records without labels have nothing
/// in common that is known.
fn jaccard(a: &[u32], b: &[u32]) -> f32 {
    let both = a.iter().filter(|label| b.binary_search(label).is_ok()).count();
    both as f32 / (a.len() + b.len() - both).max(1) as f32
}

/// Token ids as the model will see them at inference, special tokens included.
pub(crate) fn tokenise(tokenizer: &TextTokenizer, text: &str) -> Result<Vec<u32>, TrainError> {
    let prepared = tokenizer
        .prepare(text)
        .map_err(|e| TrainError::Tokenizer { reason: format!("{e} (in {text:?})") })?;
    Ok(prepared.ids)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::data::{Picture, Record};

    /// Five records, the second with two pictures; records 0 and 4 share a text.
    fn collection() -> Collection {
        let record = |texts: &[&str], labels: &[&str]| Record {
            texts: Views::of(&texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>()),
            labels: labels.iter().map(|l| (*l).to_owned()).collect(),
        };
        Collection {
            pictures: (0..6).map(|i| Picture::Phantom(1, i)).collect(),
            record_of: vec![0, 1, 1, 2, 3, 4],
            records: vec![
                record(&["normal", "clear lungs"], &["none"]),
                record(&["a", "b", "c"], &["x", "y"]),
                record(&["d"], &["x"]),
                record(&["e"], &[]),
                record(&["normal"], &["none"]),
            ],
        }
    }

    fn sides(collection: &Collection) -> (Images, Texts) {
        let rows = |n: usize| Features { width: 1, rows: (0..n).map(|v| v as f32).collect() };
        let (distinct, of_record) = Texts::distinct(collection);
        let images = Images::Features(rows(collection.pictures.len() * 3), 2);
        (images, Texts { inputs: TextInputs::Features(rows(distinct.len())), of_record })
    }

    fn settings(texts_per_image: usize) -> TrainSettings {
        TrainSettings { batch_size: 6, texts_per_image, ..TrainSettings::default() }
    }

    fn rows(inputs: &Inputs) -> Vec<usize> {
        let Inputs::Rows(rows) = inputs else { panic!("rows of a frozen tower") };
        rows.iter().map(|v| *v as usize).collect()
    }

    #[test]
    fn a_batch_is_a_function_of_its_number() {
        let collection = collection();
        let (images, texts) = sides(&collection);
        let sampler = || {
            let wants = Wants { second_images: true, second_texts: true, labels: true };
            Sampler::new(&collection, &images, &texts, TextRecipe::default(), &settings(2), wants)
        };
        let (mut one, mut other) = (sampler(), sampler());
        let third = one.batch(3);
        one.batch(4);
        assert_eq!(third, other.batch(3));
        assert_ne!(third.pictures, other.batch(4).pictures);
        // Every picture once, each by one of its three views.
        let mut seen: Vec<usize> = rows(&third.images).iter().map(|row| row / 3).collect();
        assert_eq!(seen, third.pictures);
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2, 3, 4, 5]);
        let second = third.second_images.unwrap();
        assert_eq!(rows(&second).iter().map(|row| row / 3).collect::<Vec<_>>(), third.pictures);
    }

    #[test]
    fn a_second_text_is_another_one_of_the_record_where_there_is_one() {
        let collection = collection();
        let (images, texts) = sides(&collection);
        let wants = Wants { second_texts: true, ..Wants::default() };
        let mut sampler =
            Sampler::new(&collection, &images, &texts, TextRecipe::default(), &settings(1), wants);
        let mut met = 0;
        for batch in (0..8).map(|number| sampler.batch(number)) {
            let (first, second) = (rows(&batch.texts), rows(&batch.second_texts.unwrap()));
            assert_eq!((first.len(), second.len()), (6, 6));
            for ((picture, first), second) in batch.pictures.iter().zip(first).zip(second) {
                let own = &texts.of_record[collection.record_of[*picture] as usize];
                assert!(own.iter().any(|text| *text as usize == second), "a text of another record");
                met += usize::from(first == second && own.whole.len() > 1);
            }
        }
        assert_eq!(met, 0, "records with several texts met the same one twice");
    }

    #[test]
    fn own_texts_are_right_and_shared_ones_are_not_wrong() {
        let collection = collection();
        let (images, texts) = sides(&collection);
        let wants = Wants { labels: true, ..Wants::default() };
        let mut sampler =
            Sampler::new(&collection, &images, &texts, TextRecipe::default(), &settings(2), wants);
        let batch = sampler.batch(0);
        let m = batch.text_numbers.len();
        assert_eq!(m, 12);
        let at = |picture| batch.pictures.iter().position(|&p| p == picture).unwrap();
        for (i, &picture) in batch.pictures.iter().enumerate() {
            let record = collection.record_of[picture];
            for (j, &text) in batch.text_numbers.iter().enumerate() {
                let owner = collection.record_of[batch.pictures[j / 2]];
                let own_text = texts.of_record[record as usize].iter().any(|t| *t == text);
                let expected = match (owner == record, own_text) {
                    (true, _) => Relation::Positive,
                    (false, true) => Relation::Neutral,
                    (false, false) => Relation::Negative,
                };
                assert_eq!(batch.relation[i * m + j], expected, "picture {picture}, text {text}");
            }
        }
        assert_eq!(batch.image_ids[at(0)], batch.image_ids[at(5)], "kin share an id");
        assert!(batch.relation.contains(&Relation::Neutral), "records 0 and 4 share a text");
        // Labels x, y beside x: one of two.
        assert_eq!(batch.label_similarity[at(1) * m + at(3) * 2], 0.5);
        assert_eq!(batch.label_similarity[at(4) * m + at(4) * 2], 0.0, "no labels, nothing in common");
    }
}
