//! Contrastive objectives, recipes, and the loop that turns pairs into a checkpoint.
//!
//! Owns: [`Recipe`], what a training run is, and [`train`], which carries it out and writes a Hugging
//! Face `CLIPModel` directory. The towers are the encoder's, written a second time with gradients: a
//! test holds both to the same embeddings.
//! Deliberately absent: command line and progress bar, evaluation protocols beyond a quick look at
//! held-out pairs, and accelerators.

mod block;
mod checkpoint;
mod data;
mod error;
mod exam;
mod export;
mod files;
mod loss;
mod model;
mod ops;
mod optimizer;
mod params;
mod recipe;
mod report_views;
mod run;
mod sampler;
#[allow(dead_code)]
mod tape;
mod tower;
mod validation;
mod vocabulary;

pub use error::TrainError;
pub use recipe::{
    AugmentRecipe, DataRecipe, ModelRecipe, OutputRecipe, PhantomRecipe, Recipe, TextRecipe, TokenizerRecipe,
    TrainSettings, WeightType,
};
pub use run::{LOG_FILE, Phase, Progress, Resume, Summary, train};
pub use validation::{Scores, Validation};
