//! The look at held-out pairs during and after a run.
//!
//! Owns: held-out pairs, prepared once, and embedding them in pieces. Deliberately absent: what is
//! computed from the embeddings (see `validation`).

use diptych_encoder::{CLIP_MEAN, CLIP_STD, Preprocessing, TextTokenizer};

use crate::data::Pairs;
use crate::error::TrainError;
use crate::model::Model;
use crate::sampler::tokenise;
use crate::validation::{Validation, validate};

/// Held-out pairs, prepared once: images without any change, whole texts.
pub(crate) struct Exam {
    images: Vec<Vec<f32>>,
    texts: Vec<Vec<u32>>,
    labels: Vec<String>,
}

impl Exam {
    /// Pairs embedded at once.
    const BATCH: usize = 128;

    /// Normalises and tokenises the pairs.
    pub fn new(
        pairs: Pairs,
        tokenizer: &TextTokenizer,
        preprocessing: &Preprocessing,
    ) -> Result<Self, TrainError> {
        let area = preprocessing.side().pow(2);
        let images = (0..pairs.len()).map(|i| normalised(pairs.image(i), area)).collect();
        let texts =
            pairs.texts.iter().map(|views| tokenise(tokenizer, &views.whole[0])).collect::<Result<_, _>>()?;
        Ok(Self { images, texts, labels: pairs.labels })
    }

    /// The scores of a model; none without held-out pairs.
    pub fn sit(&self, model: &mut Model, params: &[f32]) -> Option<Validation> {
        if self.images.is_empty() {
            return None;
        }
        let dim = model.shape().vision.projection_dim;
        let (mut images, mut texts) = (Vec::new(), Vec::new());
        for (image, text) in self.images.chunks(Self::BATCH).zip(self.texts.chunks(Self::BATCH)) {
            images.extend(model.embed_images(params, &image.concat()));
            texts.extend(model.embed_texts(params, text));
        }
        Some(validate(&images, &texts, dim, &self.labels))
    }
}

/// Samples as the encoder normalises them, `[3, side, side]`.
pub(crate) fn normalised(samples: &[u8], area: usize) -> Vec<f32> {
    let channels = samples.len() / area;
    let plane = |c: usize| &samples[if channels == 1 { 0 } else { c } * area..][..area];
    (0..3)
        .flat_map(|c| {
            plane(c).iter().map(move |&v| ((f64::from(v) / 255.0 - CLIP_MEAN[c]) / CLIP_STD[c]) as f32)
        })
        .collect()
}
