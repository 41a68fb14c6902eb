//! What to train: the TOML file behind `diptych train`.
//!
//! Owns: every key, its default and its bounds. A [`Recipe`] read by [`Recipe::from_toml`] is valid;
//! unknown keys are refused, so a misspelt one never silently means its default.
//! Deliberately absent: carrying it out (see `run`).

mod data;
mod model;
mod train;

use std::path::Path;

use serde::{Deserialize, Serialize};

pub use data::{DataRecipe, PhantomRecipe, TextRecipe};
pub use model::{
    HeadKind, HeadRecipe, ModelRecipe, Open, OutputRecipe, TokenizerRecipe, TowersRecipe, WeightType,
};
pub use train::{AugmentRecipe, Domain, Keep, TrainSettings};

use crate::error::TrainError;
use crate::objective::{CcaOptions, InfoNce, Mixture, Objective, Term};

/// A training run: the same recipe and seed give the same model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Where pairs come from.
    pub data: DataRecipe,
    /// The tokenizer that is trained on their texts, where the text tower starts from scratch.
    #[serde(default)]
    pub tokenizer: TokenizerRecipe,
    /// The architecture of towers that start from scratch.
    #[serde(default)]
    pub model: ModelRecipe,
    /// Pre-trained towers.
    #[serde(default)]
    pub towers: TowersRecipe,
    /// Layers on top of the towers; none means the towers' own projections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<HeadRecipe>,
    /// What is minimised: a weighted sum. InfoNCE when left out.
    #[serde(default = "default_objective")]
    pub objective: Vec<Term>,
    /// Schedule and optimiser.
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

fn default_objective() -> Vec<Term> {
    vec![Term { weight: 1.0, objective: Objective::InfoNce(InfoNce::default()) }]
}

impl Recipe {
    /// Reads and checks a recipe file. Relative paths are taken from the file's folder.
    ///
    /// # Errors
    /// [`TrainError::RecipeFile`], [`TrainError::RecipeSyntax`] or [`TrainError::RecipeValue`].
    pub fn from_file(path: &Path) -> Result<Self, TrainError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| TrainError::RecipeFile { path: path.to_path_buf(), source })?;
        let mut recipe = Self::from_toml(&text)?;
        if let Some(folder) = path.parent() {
            let data = [&mut recipe.data.pairs, &mut recipe.data.validation].into_iter().flatten();
            data.chain(recipe.towers.paths_mut()).for_each(|path| *path = folder.join(&*path));
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

    /// Checks every value against its bounds. [`train`](crate::train()) does so too.
    ///
    /// # Errors
    /// [`TrainError::RecipeValue`] naming the first key that is out of bounds.
    pub fn validate(&self) -> Result<(), TrainError> {
        self.data.validate()?;
        within("tokenizer.vocab_size", self.tokenizer.vocab_size, 514, 65_536)?;
        self.model.validate()?;
        if let Some(head) = &self.head {
            head.validate()?;
        }
        self.train.validate()?;
        self.augment.validate()?;
        self.text.validate()?;
        self.validate_objectives()?;
        let holds_out = self.data.validation.is_some()
            || self.data.validation_pairs > 0
            || self.data.phantom.as_ref().is_some_and(|phantom| phantom.validation_cases > 0);
        if !holds_out && (self.train.keep == Keep::Best || self.train.validate_every > 0) {
            let reason = "needs held-out pairs; set data.validation, data.validation_pairs or \
                          data.phantom.validation_cases";
            let key = if self.train.keep == Keep::Best { "train.keep" } else { "train.validate_every" };
            return Err(wrong(key, reason.to_owned()));
        }
        match self.data.phantom.as_ref().map(|phantom| phantom.cases) {
            Some(pairs) if self.closed_form().is_none() && pairs < self.train.batch_size => Err(wrong(
                "train.batch_size",
                format!(
                    "is {}, more than the {pairs} pairs of data.phantom.cases; lower one or raise the other",
                    self.train.batch_size,
                ),
            )),
            _ => Ok(()),
        }
    }

    /// The recipe itself, or, where canonical correlation analysis is all that it asks for, the same with
    /// a head that is solved for and no steps.
    pub(crate) fn resolved(&self) -> Self {
        let mut recipe = self.clone();
        if let Some(options) = self.closed_form() {
            let cca = Some(options.clone());
            recipe.head = Some(HeadRecipe { kind: HeadKind::Projection, cca, ..HeadRecipe::default() });
        }
        recipe
    }

    /// The options of canonical correlation analysis, if that is all that the recipe asks for.
    pub(crate) fn closed_form(&self) -> Option<&CcaOptions> {
        match self.objective.as_slice() {
            [Term { objective: Objective::Cca(options), .. }] => Some(options),
            _ => None,
        }
    }

    fn validate_objectives(&self) -> Result<(), TrainError> {
        let Some(options) = self.closed_form() else {
            self.towers.validate(self.head.as_ref())?;
            return Ok(Mixture::new(self.objective.clone(), self.train.weighting).map(|_| ())?);
        };
        Objective::Cca(options.clone()).validate()?;
        let [image, text] = self.towers.paths();
        let frozen = [self.towers.open_image, self.towers.open_text] == [Open::None; 2];
        if self.head.is_some() || image.is_none() || text.is_none() || !frozen {
            let reason = "is solved on the features of two frozen towers and is its own head: name both in \
                          [towers], leave [head], open_image and open_text out, or take `dcca`";
            return Err(wrong("objective.cca", reason.to_owned()));
        }
        Ok(())
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

    const GOOD: &str = "[data.phantom]\ncases = 200\nseed = 1\n";

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
            ("temperature", "[[objective]]\nkind = \"info-nce\"\ntemperature = 0.001"),
            ("temprature", "[[objective]]\nkind = \"info-nce\"\ntemprature = 0.1"),
            ("info-nse", "[[objective]]\nkind = \"info-nse\""),
            ("objective.cca", "[[objective]]\nkind = \"cca\""),
            ("train.keep", "[train]\nkeep = \"best\""),
            ("train.patience", "[train]\npatience = 2"),
            ("augment.mirror", "[augment]\nmirror = 0.5"),
            ("towers.both", "[towers]\nboth = \"a\"\nimage = \"b\""),
            ("towers", "[towers]\nimage = \"b\""),
            ("head", "[towers]\nboth = \"a\""),
            ("head", "[head]\ndim = 8"),
            ("open_text", "[towers]\nboth = \"a\"\nopen_text = \"some\""),
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
