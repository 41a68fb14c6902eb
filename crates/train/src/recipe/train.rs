//! `[train]`, `[[objective]]` and `[augment]`: how it is trained.
//!
//! Owns: those keys, their defaults and bounds. Deliberately absent: what an objective's own keys mean
//! (see `objective`).

use serde::{Deserialize, Serialize};

use super::{within, wrong};
use crate::error::TrainError;
use crate::objective::Weighting;

/// `[train]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainSettings {
    /// Optimiser steps; ignored with `epochs`.
    pub steps: u64,
    /// Passes over the training pairs instead of `steps`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<f64>,
    /// Images per step; each image's wrong answers are the texts of the others.
    pub batch_size: usize,
    /// Texts drawn for each image of a step, as far as it has as many; all of them are right.
    pub texts_per_image: usize,
    /// Images that go through the towers together; 0 for the whole batch. A smaller number bounds the
    /// memory and changes nothing else: the loss is still that of the whole batch (cached gradients).
    pub micro_batch: usize,
    /// Batches whose gradients are averaged for one optimiser step.
    pub accumulate: usize,
    /// Peak learning rate.
    pub learning_rate: f32,
    /// Factor on the learning rate of pre-trained towers that are open.
    pub tower_rate: f32,
    /// Steps of linear warm-up before the cosine decay.
    pub warmup_steps: u64,
    /// Decoupled weight decay, on matrices only.
    pub weight_decay: f32,
    /// Decay of the optimiser's second moment.
    pub beta2: f32,
    /// Largest global norm of the gradient; larger ones are scaled down.
    pub gradient_clip: f32,
    /// Decay of an exponential average of the weights, which is what is validated and written; 0 for none.
    pub average: f32,
    /// How several objectives are weighed against each other.
    pub weighting: Weighting,
    /// Seed of the initial weights, the order of pairs and all augmentation.
    pub seed: u64,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Steps between validations during the run; 0 for one at the end only.
    pub validate_every: u64,
    /// Which weights are written.
    pub keep: Keep,
    /// Validations without a new best after which the run ends; 0 for never.
    pub patience: u64,
}

/// Which weights of a run are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// Those after the last step.
    #[default]
    Last,
    /// Those with the best mean of recall@1, @5 and @10 of both directions on the held-out pairs.
    Best,
}

/// `[augment]`: the largest change of each kind; 0 switches it off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AugmentRecipe {
    /// What the pictures are, which decides what may be changed.
    pub domain: Domain,
    /// Shift in either direction, as a fraction of the side.
    pub shift: f32,
    /// Zoom in or out, as a fraction of the size.
    pub scale: f32,
    /// Rotation in either direction, in degrees.
    pub rotate: f32,
    /// Smallest share of the picture's area that a random crop keeps, which is then enlarged to the
    /// whole; 1 for no crop.
    pub crop: f32,
    /// Probability of a left-right mirror image. Only for photos: reports name sides.
    pub mirror: f32,
    /// Added to all samples, as a fraction of their range.
    pub brightness: f32,
    /// Change of contrast about mid-grey, as a fraction.
    pub contrast: f32,
    /// Change of saturation, as a fraction; nothing to grey pictures.
    pub saturation: f32,
    /// Standard deviation of noise per sample, as a fraction of their range.
    pub noise: f32,
}

/// What pictures show.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Domain {
    /// Radiographs: left and right mean something.
    #[default]
    Radiograph,
    /// Photographs.
    Photo,
}

impl Default for TrainSettings {
    fn default() -> Self {
        Self {
            steps: 2_000,
            epochs: None,
            batch_size: 128,
            texts_per_image: 1,
            micro_batch: 0,
            accumulate: 1,
            learning_rate: 1e-3,
            tower_rate: 1.0,
            warmup_steps: 100,
            weight_decay: 0.1,
            beta2: 0.98,
            gradient_clip: 1.0,
            average: 0.0,
            weighting: Weighting::default(),
            seed: 1,
            checkpoint_every: 200,
            validate_every: 0,
            keep: Keep::Last,
            patience: 0,
        }
    }
}

impl Default for AugmentRecipe {
    fn default() -> Self {
        let none = Self::none();
        Self { shift: 0.06, scale: 0.08, brightness: 0.08, contrast: 0.15, noise: 0.02, ..none }
    }
}

impl AugmentRecipe {
    /// No change at all.
    pub fn none() -> Self {
        Self {
            domain: Domain::Radiograph,
            shift: 0.0,
            scale: 0.0,
            rotate: 0.0,
            crop: 1.0,
            mirror: 0.0,
            brightness: 0.0,
            contrast: 0.0,
            saturation: 0.0,
            noise: 0.0,
        }
    }

    pub(super) fn validate(&self) -> Result<(), TrainError> {
        within("augment.shift", self.shift, 0.0, 0.5)?;
        within("augment.scale", self.scale, 0.0, 0.5)?;
        within("augment.rotate", self.rotate, 0.0, 180.0)?;
        within("augment.crop", self.crop, 0.05, 1.0)?;
        within("augment.mirror", self.mirror, 0.0, 1.0)?;
        within("augment.brightness", self.brightness, 0.0, 1.0)?;
        within("augment.contrast", self.contrast, 0.0, 0.9)?;
        within("augment.saturation", self.saturation, 0.0, 1.0)?;
        within("augment.noise", self.noise, 0.0, 1.0)?;
        if self.mirror > 0.0 && self.domain == Domain::Radiograph {
            let reason = "mirrors radiographs, whose reports name sides; set it to 0, or augment.domain \
                          to \"photo\" if these are no radiographs";
            return Err(wrong("augment.mirror", reason.to_owned()));
        }
        Ok(())
    }
}

impl TrainSettings {
    /// Optimiser steps over this many training images.
    pub(crate) fn steps_over(&self, images: usize) -> u64 {
        let Some(epochs) = self.epochs else { return self.steps };
        let per_epoch = (images / (self.batch_size * self.accumulate)).max(1);
        ((epochs * per_epoch as f64).round() as u64).max(1)
    }

    pub(super) fn validate(&self) -> Result<(), TrainError> {
        within("train.steps", self.steps, 1, 100_000_000)?;
        if let Some(epochs) = self.epochs {
            within("train.epochs", epochs, 1e-6, 1e6)?;
        }
        within("train.batch_size", self.batch_size, 2, 65_536)?;
        within("train.texts_per_image", self.texts_per_image, 1, 64)?;
        within("train.micro_batch", self.micro_batch, 0, self.batch_size)?;
        within("train.accumulate", self.accumulate, 1, 4_096)?;
        within("train.learning_rate", self.learning_rate, 1e-8, 1.0)?;
        within("train.tower_rate", self.tower_rate, 0.0, 100.0)?;
        if self.epochs.is_none() {
            within("train.warmup_steps", self.warmup_steps, 0, self.steps)?;
        }
        within("train.weight_decay", self.weight_decay, 0.0, 10.0)?;
        within("train.beta2", self.beta2, 0.5, 0.999_999)?;
        within("train.gradient_clip", self.gradient_clip, 1e-6, 1e6)?;
        within("train.average", self.average, 0.0, 0.999_999)?;
        within("train.checkpoint_every", self.checkpoint_every, 1, u64::MAX)?;
        if self.patience > 0 && self.validate_every == 0 {
            let reason = "counts validations, but train.validate_every is 0; set that too".to_owned();
            return Err(wrong("train.patience", reason));
        }
        Ok(())
    }
}
