//! The look at held-out records during and after a run.
//!
//! Owns: held-out records as the sides of the model take them, embedding them in pieces, and the few
//! numbers of the usual protocol that a run is steered by. Deliberately absent: how they are computed,
//! intervals and controls, which belong to the eval crate.

use std::fmt;

use diptych_core::Embedding;
use diptych_eval::{Bootstrap, Direction, Options, Pairs, evaluate};
use serde::{Deserialize, Serialize};

use crate::data::Collection;
use crate::error::TrainError;
use crate::model::Model;
use crate::sampler::{Images, Texts};

/// Both directions over one gallery.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// Every whole text a query, all images the gallery.
    pub text_to_image: Scores,
    /// Every image a query, all whole texts the gallery; any of its own counts.
    pub image_to_text: Scores,
}

/// One direction. Recall lies in 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Share of queries with a right answer first.
    pub recall_at_1: f64,
    /// .. among the first 5.
    pub recall_at_5: f64,
    /// .. among the first 10.
    pub recall_at_10: f64,
    /// Median over the queries of the rank of the first right answer, from 1.
    pub median_rank: f64,
    /// Queries.
    pub queries: usize,
    /// Items searched.
    pub gallery: usize,
    /// Recall at 1 of a random order.
    pub chance_at_1: f64,
    /// Recall at 10 of a random order.
    pub chance_at_10: f64,
}

impl From<Direction> for Scores {
    fn from(direction: Direction) -> Self {
        Self {
            recall_at_1: direction.recall_at_1.value,
            recall_at_5: direction.recall_at_5.value,
            recall_at_10: direction.recall_at_10.value,
            median_rank: direction.median_rank.value,
            queries: direction.queries,
            gallery: direction.gallery,
            chance_at_1: direction.recall_at_1.chance,
            chance_at_10: direction.recall_at_10.chance,
        }
    }
}

impl Validation {
    /// Mean of recall at 1, 5 and 10 over both directions: what "best" means for a run.
    pub fn score(&self) -> f64 {
        let one = |s: &Scores| (s.recall_at_1 + s.recall_at_5 + s.recall_at_10) / 3.0;
        (one(&self.text_to_image) + one(&self.image_to_text)) / 2.0
    }
}

impl fmt::Display for Validation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, s) in [("text to image", &self.text_to_image), ("image to text", &self.image_to_text)] {
            write!(
                f,
                "{name} recall@1/5/10 {:.3} {:.3} {:.3}, ",
                s.recall_at_1, s.recall_at_5, s.recall_at_10
            )?;
        }
        let s = &self.text_to_image;
        write!(f, "{} images, chance @1 {:.4} @10 {:.3}", s.gallery, s.chance_at_1, s.chance_at_10)
    }
}

/// Held-out records, prepared once: images without any change, whole texts.
pub(crate) struct Exam {
    images: Images,
    texts: Texts,
    records: usize,
    record_of_image: Vec<u32>,
    /// Every whole text of every record, by its number among the distinct ones.
    text_numbers: Vec<u32>,
    record_of_text: Vec<u32>,
}

impl Exam {
    /// Items embedded at once.
    const BATCH: usize = 128;

    /// Prepares the held-out side of the data; `None` when it is empty.
    pub fn new(collection: &Collection, images: Images, texts: Texts) -> Option<Self> {
        let (mut text_numbers, mut record_of_text) = (Vec::new(), Vec::new());
        for (record, views) in (0u32..).zip(&texts.of_record) {
            text_numbers.extend(&views.whole);
            record_of_text.resize(text_numbers.len(), record);
        }
        let records = collection.records.len();
        let record_of_image = collection.record_of.clone();
        (records > 0).then_some(Self {
            images,
            texts,
            records,
            record_of_image,
            text_numbers,
            record_of_text,
        })
    }

    /// The scores of a model. Nothing finite to score is an error of the caller's step, so that it gives
    /// `None`.
    pub fn sit(&self, model: &mut Model, params: &[f32]) -> Result<Option<Validation>, TrainError> {
        let dim = model.dim();
        let (mut images, mut texts) = (Vec::new(), Vec::new());
        let pictures: Vec<usize> = (0..self.images.len()).collect();
        for pictures in pictures.chunks(Self::BATCH) {
            images.extend(model.embed_images(params, &self.images.plain(pictures)));
        }
        for numbers in self.text_numbers.chunks(Self::BATCH) {
            texts.extend(model.embed_texts(params, &self.texts.inputs.take(numbers)));
        }
        let embeddings = |rows: &[f32]| -> Option<Vec<Embedding>> {
            rows.chunks_exact(dim).map(|row| Embedding::new(row.to_vec()).ok()).collect()
        };
        let (Some(images), Some(texts)) = (embeddings(&images), embeddings(&texts)) else { return Ok(None) };
        let failed = |e: diptych_eval::EvalError| TrainError::Validation { reason: e.to_string() };
        let pairs = Pairs::new(&images, &self.record_of_image, &texts, &self.record_of_text, self.records)
            .and_then(|pairs| pairs.with_equal_texts(&self.text_numbers))
            .map_err(failed)?;
        let bootstrap = Bootstrap { resamples: 0, ..Bootstrap::default() };
        let report = evaluate(&pairs, &Options { bootstrap, answers: 0, control: false }).map_err(failed)?;
        Ok(Some(Validation {
            text_to_image: report.text_to_image.into(),
            image_to_text: report.image_to_text.into(),
        }))
    }
}
