//! A light adapter on top of a model that exists, from a user's own pairs.
//!
//! Owns: the recipe behind `diptych tune`, so that the same could be written by hand. Deliberately
//! absent: carrying it out, which is [`train`](crate::train()).

use std::path::{Path, PathBuf};

use crate::data;
use crate::error::TrainError;
use crate::objective::{InfoNce, Objective, Term};
use crate::recipe::{
    AugmentRecipe, DataRecipe, HeadKind, HeadRecipe, Keep, ModelRecipe, OutputRecipe, Recipe, TextRecipe,
    TokenizerRecipe, TowersRecipe, TrainSettings,
};

/// Records held out at least, where there are so many.
const HELD_OUT_MIN: usize = 20;
/// Validations per run.
const LOOKS: u64 = 30;

/// What may be chosen; [`Settings::default`] suits hundreds to tens of thousands of pairs.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Other pairs for the validation; else a share of the pairs is held out.
    pub validation: Option<PathBuf>,
    /// That share, in 0 to 1.
    pub validation_share: f64,
    /// The attribute whose records stay on one side, such as a patient's number.
    pub group_by: Option<String>,
    /// Width of the adapter's hidden layer.
    pub hidden: usize,
    /// Passes over the pairs at most; a run without progress ends earlier.
    pub epochs: f64,
    /// Images per step; fewer when there are fewer.
    pub batch_size: usize,
    /// Peak learning rate.
    pub learning_rate: f32,
    /// Seed of the adapter's weights and the order of pairs.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            validation: None,
            validation_share: 0.1,
            group_by: None,
            hidden: 256,
            epochs: 30.0,
            batch_size: 256,
            learning_rate: 3e-4,
            seed: 1,
        }
    }
}

/// The recipe of an adapter on both towers of `model`, which start at what the model is.
///
/// # Errors
/// [`TrainError`] when the pairs cannot be read or are too few, or a setting is out of bounds.
pub fn recipe(model: &Path, pairs: &Path, settings: &Settings) -> Result<Recipe, TrainError> {
    let items = data::read(pairs)?;
    let share = settings.validation_share;
    if !(share > 0.0 && share < 1.0) {
        let reason = format!("is {share}; choose a share between 0 and 1, such as 0.1");
        return Err(TrainError::RecipeValue { key: "validation share", reason });
    }
    if settings.batch_size < 2 {
        let reason =
            format!("is {}; choose 2 at least: the wrong answers are the others", settings.batch_size);
        return Err(TrainError::RecipeValue { key: "batch size", reason });
    }
    let held_out = match settings.validation {
        Some(_) => 0,
        None => ((items.len() as f64 * share).round() as usize).max(HELD_OUT_MIN.min(items.len() / 3)).max(1),
    };
    let left = items.len().saturating_sub(held_out);
    if left < 4 {
        let found = items.len();
        let reason =
            format!("it holds {found} of the records with both image and text, and at least 6 are needed");
        return Err(TrainError::Data { path: pairs.to_path_buf(), reason });
    }
    // Whole groups are held out, which may be some more than asked for.
    let batch_size = settings.batch_size.min((left / 2).max(2));
    let steps = (settings.epochs * (left / batch_size).max(1) as f64).round().max(1.0) as u64;
    let recipe = Recipe {
        data: DataRecipe {
            pairs: Some(pairs.to_path_buf()),
            validation: settings.validation.clone(),
            validation_pairs: held_out,
            group_by: settings.group_by.clone().filter(|_| settings.validation.is_none()),
            labels: "labels".to_owned(),
            phantom: None,
        },
        tokenizer: TokenizerRecipe::default(),
        model: ModelRecipe::default(),
        towers: TowersRecipe { both: Some(model.to_path_buf()), ..TowersRecipe::default() },
        head: Some(HeadRecipe {
            kind: HeadKind::Adapter,
            hidden: settings.hidden,
            dropout: 0.5,
            ..HeadRecipe::default()
        }),
        objective: vec![Term { weight: 1.0, objective: Objective::InfoNce(InfoNce::default()) }],
        train: TrainSettings {
            steps,
            epochs: Some(settings.epochs),
            batch_size,
            learning_rate: settings.learning_rate,
            warmup_steps: (steps / 10).max(1),
            beta2: 0.999,
            seed: settings.seed,
            checkpoint_every: (steps / 4).max(1),
            validate_every: (steps / LOOKS).max(1),
            keep: Keep::Best,
            patience: LOOKS / 3,
            ..TrainSettings::default()
        },
        augment: AugmentRecipe::none(),
        text: TextRecipe::default(),
        output: OutputRecipe::default(),
    };
    recipe.validate().map_err(in_words_of_settings)?;
    Ok(recipe)
}

/// Who tunes has never seen a recipe's keys.
fn in_words_of_settings(error: TrainError) -> TrainError {
    match error {
        TrainError::RecipeValue { key: "train.learning_rate", reason } => {
            TrainError::RecipeValue { key: "learning rate", reason }
        }
        TrainError::RecipeValue { key: "train.epochs", reason } => {
            TrainError::RecipeValue { key: "epochs", reason }
        }
        TrainError::RecipeValue { key: "head.hidden", reason } => {
            TrainError::RecipeValue { key: "hidden", reason }
        }
        other => other,
    }
}
