//! `[data]`: where pairs come from, which of them are held out, and which texts of one are read.
//!
//! Owns: those keys and their bounds. Deliberately absent: reading anything.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{within, wrong};
use crate::error::TrainError;

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
    /// With `pairs`: other pairs for the validation, in the same form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<PathBuf>,
    /// With `pairs` and without `validation`: about this many records, evenly spread, are held out.
    #[serde(default)]
    pub validation_pairs: usize,
    /// With `validation_pairs`: the attribute whose records stay on one side, such as a patient's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_by: Option<String>,
    /// The attribute that holds a record's labels: a list, or one label.
    #[serde(default = "default_labels")]
    pub labels: String,
}

fn default_labels() -> String {
    "labels".to_owned()
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

impl Default for TextRecipe {
    fn default() -> Self {
        Self { whole: 0.6, impression: 0.25, sentence: 0.15 }
    }
}

impl DataRecipe {
    pub(super) fn validate(&self) -> Result<(), TrainError> {
        match (&self.phantom, &self.pairs) {
            (Some(phantom), None) => {
                within("data.phantom.cases", phantom.cases, 2, 1_000_000)?;
                within("data.phantom.validation_cases", phantom.validation_cases, 0, 100_000)?;
                if self.validation.is_some() || self.validation_pairs > 0 || self.group_by.is_some() {
                    let reason = "has validation, validation_pairs or group_by beside phantom; \
                                  phantoms are held out by phantom.validation_cases";
                    return Err(wrong("data", reason.to_owned()));
                }
                if phantom.validation_cases > 0 && phantom.validation_seed == phantom.seed {
                    let reason = format!(
                        "is {}, like data.phantom.seed, so validation would see training cases; choose another",
                        phantom.seed
                    );
                    return Err(wrong("data.phantom.validation_seed", reason));
                }
                Ok(())
            }
            (None, Some(_)) if self.validation.is_some() && self.validation_pairs > 0 => {
                let reason = "stands beside data.validation; keep one of them".to_owned();
                Err(wrong("data.validation_pairs", reason))
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

impl TextRecipe {
    pub(super) fn validate(&self) -> Result<(), TrainError> {
        within("text.whole", self.whole, 1e-6, 1e6)?;
        within("text.impression", self.impression, 0.0, 1e6)?;
        within("text.sentence", self.sentence, 0.0, 1e6)
    }
}
