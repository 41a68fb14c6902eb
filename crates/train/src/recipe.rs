//! What to train: the TOML file behind `diptych train`.
//!
//! Owns: every key, its default and its bounds. A [`Recipe`] read by [`Recipe::from_toml`] is valid;
//! unknown keys are refused, so a misspelt one never silently means its default.
//! Deliberately absent: carrying it out (see `run`).

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::TrainError;

/// A training run: the same recipe and seed give the same model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Where pairs come from.
    pub data: DataRecipe,
    /// The tokenizer that is trained on their texts.
    #[serde(default)]
    pub tokenizer: TokenizerRecipe,
    /// The architecture.
    #[serde(default)]
    pub model: ModelRecipe,
    /// Objective and optimiser.
    #[serde(default)]
    pub train: TrainSettings,
    /// Random changes to images at training time.
    #[serde(default)]
    pub augment: AugmentRecipe,
    /// Which part of a report a step reads.
    #[serde(default)]
    pub text: TextRecipe,
    /// What is written.
    #[serde(default)]
    pub output: OutputRecipe,
}

/// `[data]`: exactly one of `phantom` and `pairs`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataRecipe {
    /// Synthetic cases, generated in memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phantom: Option<PhantomRecipe>,
    /// A folder of images with texts beside them or a JSONL file, as `diptych ingest` reads them.
    /// Relative to the recipe file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pairs: Option<PathBuf>,
    /// With `pairs`: this many pairs, evenly spread, are held out for validation.
    #[serde(default)]
    pub validation_pairs: usize,
}

/// `[data.phantom]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhantomRecipe {
    /// Distinct training cases.
    pub cases: usize,
    /// Seed of the training cases.
    pub seed: u64,
    /// Held-out cases; the gallery of the validation. 0 for no validation.
    #[serde(default)]
    pub validation_cases: usize,
    /// Seed of the held-out cases; another one than `seed`.
    #[serde(default)]
    pub validation_seed: u64,
}

/// `[tokenizer]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokenizerRecipe {
    /// At most this many tokens: 512 for single bytes, 2 special ones, the rest learned merges.
    pub vocab_size: usize,
}

/// `[model]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelRecipe {
    /// Side of the square input image in pixels; a multiple of `patch_size`.
    pub image_size: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Width of the image transformer; a multiple of `vision_heads`.
    pub vision_width: usize,
    /// Blocks of the image transformer.
    pub vision_layers: usize,
    /// Attention heads of the image transformer.
    pub vision_heads: usize,
    /// Width of the text transformer; a multiple of `text_heads`.
    pub text_width: usize,
    /// Blocks of the text transformer.
    pub text_layers: usize,
    /// Attention heads of the text transformer.
    pub text_heads: usize,
    /// Longest text in tokens, both special tokens included.
    pub context_length: usize,
    /// Dimensions of the shared space.
    pub projection_dim: usize,
}

/// `[train]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainSettings {
    /// Optimiser steps.
    pub steps: u64,
    /// Pairs per step; each pair's wrong answers are the others of its batch.
    pub batch_size: usize,
    /// Peak learning rate.
    pub learning_rate: f32,
    /// Steps of linear warm-up before the cosine decay.
    pub warmup_steps: u64,
    /// Decoupled weight decay, on matrices only.
    pub weight_decay: f32,
    /// Largest global norm of the gradient; larger ones are scaled down.
    pub gradient_clip: f32,
    /// Initial temperature of the softmax; learned from there, never below 0.01.
    pub temperature: f32,
    /// Seed of the initial weights, the order of pairs and all augmentation.
    pub seed: u64,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Steps between validations during the run; 0 for one at the end only.
    pub validate_every: u64,
}

/// `[augment]`: the largest change of each kind; 0 switches it off. Images are never mirrored, since
/// reports name sides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AugmentRecipe {
    /// Shift in either direction, as a fraction of the side.
    pub shift: f32,
    /// Zoom in or out, as a fraction of the size.
    pub scale: f32,
    /// Added to all samples, as a fraction of their range.
    pub brightness: f32,
    /// Change of contrast about mid-grey, as a fraction.
    pub contrast: f32,
    /// Standard deviation of noise per sample, as a fraction of their range.
    pub noise: f32,
}

/// `[text]`: relative weights. A text without headings and with one sentence is always read whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TextRecipe {
    /// The whole text.
    pub whole: f32,
    /// What stands behind `IMPRESSION:`.
    pub impression: f32,
    /// One sentence of either section.
    pub sentence: f32,
}

/// `[output]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutputRecipe {
    /// Number format of the weights.
    pub dtype: WeightType,
}

/// Number format of the weights in `model.safetensors`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightType {
    /// Half precision.
    F16,
    /// Single precision: bit for bit what was trained.
    F32,
}

impl Default for TokenizerRecipe {
    fn default() -> Self {
        Self { vocab_size: 1_536 }
    }
}

impl Default for ModelRecipe {
    fn default() -> Self {
        Self {
            image_size: 64,
            patch_size: 8,
            vision_width: 128,
            vision_layers: 4,
            vision_heads: 4,
            text_width: 128,
            text_layers: 3,
            text_heads: 4,
            context_length: 77,
            projection_dim: 128,
        }
    }
}

impl Default for TrainSettings {
    fn default() -> Self {
        Self {
            steps: 2_000,
            batch_size: 128,
            learning_rate: 1e-3,
            warmup_steps: 100,
            weight_decay: 0.1,
            gradient_clip: 1.0,
            temperature: 0.07,
            seed: 1,
            checkpoint_every: 200,
            validate_every: 0,
        }
    }
}

impl Default for AugmentRecipe {
    fn default() -> Self {
        Self { shift: 0.06, scale: 0.08, brightness: 0.08, contrast: 0.15, noise: 0.02 }
    }
}

impl Default for TextRecipe {
    fn default() -> Self {
        Self { whole: 0.6, impression: 0.25, sentence: 0.15 }
    }
}

impl Default for OutputRecipe {
    fn default() -> Self {
        Self { dtype: WeightType::F16 }
    }
}

impl Recipe {
    /// Reads and checks a recipe file. A relative `data.pairs` is taken from the file's folder.
    ///
    /// # Errors
    /// [`TrainError::RecipeFile`], [`TrainError::RecipeSyntax`] or [`TrainError::RecipeValue`].
    pub fn from_file(path: &Path) -> Result<Self, TrainError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| TrainError::RecipeFile { path: path.to_path_buf(), source })?;
        let mut recipe = Self::from_toml(&text)?;
        if let (Some(pairs), Some(folder)) = (&mut recipe.data.pairs, path.parent()) {
            *pairs = folder.join(&*pairs);
        }
        Ok(recipe)
    }

    /// Parses and checks a recipe.
    ///
    /// # Errors
    /// [`TrainError::RecipeSyntax`] or [`TrainError::RecipeValue`], each naming the key.
    pub fn from_toml(text: &str) -> Result<Self, TrainError> {
        let recipe: Self = toml::from_str(text)
            .map_err(|e| TrainError::RecipeSyntax { reason: e.to_string().trim().to_owned() })?;
        recipe.validate()?;
        Ok(recipe)
    }

    /// Checks every value against its bounds. [`train`](crate::train) does so too.
    ///
    /// # Errors
    /// [`TrainError::RecipeValue`] naming the first key that is out of bounds.
    pub fn validate(&self) -> Result<(), TrainError> {
        self.data.validate()?;
        within("tokenizer.vocab_size", self.tokenizer.vocab_size, 514, 65_536)?;
        self.model.validate()?;
        self.train.validate()?;
        let a = &self.augment;
        within("augment.shift", a.shift, 0.0, 0.5)?;
        within("augment.scale", a.scale, 0.0, 0.5)?;
        within("augment.brightness", a.brightness, 0.0, 1.0)?;
        within("augment.contrast", a.contrast, 0.0, 0.9)?;
        within("augment.noise", a.noise, 0.0, 1.0)?;
        within("text.whole", self.text.whole, 1e-6, 1e6)?;
        within("text.impression", self.text.impression, 0.0, 1e6)?;
        within("text.sentence", self.text.sentence, 0.0, 1e6)?;
        if self.pairs_at_most().is_some_and(|pairs| pairs < self.train.batch_size) {
            return Err(wrong(
                "train.batch_size",
                format!(
                    "is {}, more than the {} pairs of data.phantom.cases; lower one or raise the other",
                    self.train.batch_size,
                    self.pairs_at_most().unwrap_or(0)
                ),
            ));
        }
        Ok(())
    }

    fn pairs_at_most(&self) -> Option<usize> {
        self.data.phantom.as_ref().map(|p| p.cases)
    }
}

impl DataRecipe {
    fn validate(&self) -> Result<(), TrainError> {
        match (&self.phantom, &self.pairs) {
            (Some(phantom), None) => {
                within("data.phantom.cases", phantom.cases, 2, 1_000_000)?;
                within("data.phantom.validation_cases", phantom.validation_cases, 0, 100_000)?;
                if phantom.validation_cases > 0 && phantom.validation_seed == phantom.seed {
                    let reason = format!(
                        "is {}, like data.phantom.seed, so validation would see training cases; choose another",
                        phantom.seed
                    );
                    return Err(wrong("data.phantom.validation_seed", reason));
                }
                Ok(())
            }
            (None, Some(_)) => within("data.validation_pairs", self.validation_pairs, 0, 100_000),
            _ => Err(wrong(
                "data",
                "needs exactly one of `phantom` (cases, seed) and `pairs` (a folder or JSONL file)"
                    .to_owned(),
            )),
        }
    }
}

impl ModelRecipe {
    fn validate(&self) -> Result<(), TrainError> {
        within("model.image_size", self.image_size, 8, 1_024)?;
        within("model.patch_size", self.patch_size, 1, self.image_size)?;
        multiple("model.image_size", self.image_size, "model.patch_size", self.patch_size)?;
        within("model.vision_width", self.vision_width, 4, 4_096)?;
        within("model.vision_layers", self.vision_layers, 1, 64)?;
        within("model.vision_heads", self.vision_heads, 1, self.vision_width)?;
        multiple("model.vision_width", self.vision_width, "model.vision_heads", self.vision_heads)?;
        within("model.text_width", self.text_width, 4, 4_096)?;
        within("model.text_layers", self.text_layers, 1, 64)?;
        within("model.text_heads", self.text_heads, 1, self.text_width)?;
        multiple("model.text_width", self.text_width, "model.text_heads", self.text_heads)?;
        within("model.context_length", self.context_length, 4, 1_024)?;
        within("model.projection_dim", self.projection_dim, 2, 4_096)
    }
}

impl TrainSettings {
    fn validate(&self) -> Result<(), TrainError> {
        within("train.steps", self.steps, 1, 100_000_000)?;
        within("train.batch_size", self.batch_size, 2, 8_192)?;
        within("train.learning_rate", self.learning_rate, 1e-8, 1.0)?;
        within("train.warmup_steps", self.warmup_steps, 0, self.steps)?;
        within("train.weight_decay", self.weight_decay, 0.0, 1.0)?;
        within("train.gradient_clip", self.gradient_clip, 1e-6, 1e6)?;
        within("train.temperature", self.temperature, 0.01, 10.0)?;
        within("train.checkpoint_every", self.checkpoint_every, 1, u64::MAX)
    }
}

/// Refuses a value outside `low..=high`, NaN included.
fn within<T: PartialOrd + std::fmt::Display + Copy>(
    key: &'static str,
    value: T,
    low: T,
    high: T,
) -> Result<(), TrainError> {
    if low <= value && value <= high {
        return Ok(());
    }
    Err(wrong(key, format!("is {value}; choose a value from {low} to {high}")))
}

fn multiple(key: &'static str, value: usize, of: &str, unit: usize) -> Result<(), TrainError> {
    if value.is_multiple_of(unit) {
        return Ok(());
    }
    Err(wrong(key, format!("is {value}, not a multiple of {of} = {unit}; change one of them")))
}

fn wrong(key: &'static str, reason: String) -> TrainError {
    TrainError::RecipeValue { key, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[data.phantom]\ncases = 200\nseed = 1\nvalidation_cases = 10\n";

    #[test]
    fn a_short_recipe_takes_the_defaults() {
        let recipe = Recipe::from_toml(GOOD).expect("valid");
        assert_eq!(recipe.model, ModelRecipe::default());
        assert_eq!(recipe.data.phantom.expect("phantoms").cases, 200);
    }

    #[test]
    fn bad_recipes_are_refused_by_the_name_of_the_key() {
        for (key, extra) in [
            ("learning_rte", "[train]\nlearning_rte = 1.0"),
            ("learning_rate", "[train]\nlearning_rate = \"fast\""),
            ("train.learning_rate", "[train]\nlearning_rate = nan"),
            ("train.batch_size", "[train]\nbatch_size = 1"),
            ("train.batch_size", "[train]\nbatch_size = 256"),
            ("train.warmup_steps", "[train]\nsteps = 5\nwarmup_steps = 6"),
            ("train.temperature", "[train]\ntemperature = 0.001"),
            ("model.image_size", "[model]\nimage_size = 60"),
            ("model.vision_width", "[model]\nvision_width = 130"),
            ("model.text_heads", "[model]\ntext_heads = 0"),
            ("tokenizer.vocab_size", "[tokenizer]\nvocab_size = 100"),
            ("augment.shift", "[augment]\nshift = 0.9"),
            ("text.whole", "[text]\nwhole = 0.0"),
            ("dtype", "[output]\ndtype = \"f8\""),
        ] {
            let error = Recipe::from_toml(&format!("{GOOD}{extra}")).expect_err(key).to_string();
            assert!(error.contains(key), "`{key}` is not named in: {error}");
        }
    }

    #[test]
    fn data_comes_from_exactly_one_place_and_is_not_validated_on_itself() {
        for bad in ["[data]\n", "[data]\npairs = \"x\"\nphantom = { cases = 9, seed = 1 }\n"] {
            let error = Recipe::from_toml(bad).expect_err("ambiguous").to_string();
            assert!(error.contains("`data`"), "{error}");
        }
        let same = "[data.phantom]\ncases = 200\nseed = 7\nvalidation_cases = 10\nvalidation_seed = 7\n";
        let error = Recipe::from_toml(same).expect_err("same seed").to_string();
        assert!(error.contains("data.phantom.validation_seed"), "{error}");
    }
}
