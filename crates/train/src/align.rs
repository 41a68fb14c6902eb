//! One coordinate system for both sides, where the objective leaves each its own.
//!
//! Owns: the linear maps that deep canonical correlation analysis ends with, and folding them into the
//! last layers, so that no other part knows of them. Deliberately absent: the solution itself (see
//! `objective`).

use diptych_core::Modality;

use crate::data::Collection;
use crate::error::TrainError;
use crate::model::Model;
use crate::objective::{Cca, CcaOptions};
use crate::sampler::{Images, Texts};

/// Pairs that the maps are solved from, at most.
const PAIRS: usize = 2048;
/// Pairs embedded at once.
const BATCH: usize = 128;
/// Ridge, as a multiple of the mean variance.
const RIDGE: f32 = 0.01;

/// Brings what both sides put out into one coordinate system.
///
/// The sum of canonical correlations does not change when either side is mapped linearly, so that its
/// maximum says nothing about cosines between sides. Canonical correlation analysis of what the sides put
/// out on the training pairs gives the maps after which coordinates correspond (Andrew et al. 2013).
pub(crate) struct Aligner<'a> {
    images: &'a Images,
    texts: &'a Texts,
    /// Pictures, evenly spaced, and the first whole text of their records.
    pairs: Vec<(usize, u32)>,
}

impl<'a> Aligner<'a> {
    /// Over some pairs of the training data.
    ///
    /// # Errors
    /// [`TrainError::RecipeValue`] if a side of the model has no linear layer at its end.
    pub fn new(
        model: &Model,
        collection: &Collection,
        images: &'a Images,
        texts: &'a Texts,
    ) -> Result<Self, TrainError> {
        if [Modality::Image, Modality::Text].iter().any(|side| model.side(*side).last_layer().is_none()) {
            let reason = "alone leaves each side its own coordinates, and these towers do not end in a linear \
                          layer that could bring them together; take [head] kind = \"linear\" or \"mlp\", or \
                          add an objective that compares the sides, info-nce for one";
            return Err(TrainError::RecipeValue { key: "objective.dcca", reason: reason.to_owned() });
        }
        let all = collection.record_of.len();
        let pairs = (0..all.min(PAIRS)).map(|i| {
            let picture = i * all / all.min(PAIRS);
            (picture, texts.of_record[collection.record_of[picture] as usize].whole[0])
        });
        Ok(Self { images, texts, pairs: pairs.collect() })
    }

    /// The weights with the maps folded into both last layers.
    pub fn aligned(&self, model: &mut Model, weights: &[f32]) -> Result<Vec<f32>, TrainError> {
        let (mut images, mut texts) = (Vec::new(), Vec::new());
        for pairs in self.pairs.chunks(BATCH) {
            let (pictures, numbers): (Vec<usize>, Vec<u32>) = pairs.iter().copied().unzip();
            images.extend(model.embed_images(weights, &self.images.plain(&pictures)));
            texts.extend(model.embed_texts(weights, &self.texts.inputs.take(&numbers)));
        }
        let options = CcaOptions {
            dims: model.dim(),
            image_regularization: RIDGE,
            text_regularization: RIDGE,
            power: 1.0,
        };
        let cca = Cca::fit_through_origin(&images, &texts, self.pairs.len(), &options)?;
        let mut weights = weights.to_vec();
        for (side, map) in [(Modality::Image, &cca.image), (Modality::Text, &cca.text)] {
            let layer = model.side(side).last_layer().expect("seen when the run began");
            layer.mapped(&mut weights, &map.weight);
        }
        Ok(weights)
    }
}
