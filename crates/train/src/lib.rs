//! Contrastive objectives, recipes, and the loop that turns pairs into a checkpoint.
//!
//! Owns: [`Recipe`], what a training run is, and [`train`], which carries it out and writes a Hugging
//! Face `CLIPModel` directory. The towers are the encoder's, written a second time with gradients: a
//! test holds both to the same embeddings.
//! Deliberately absent: command line and progress bar, evaluation protocols beyond a quick look at
//! held-out pairs, and accelerators.

mod align;
mod augment;
mod checkpoint;
mod closed;
mod curves;
mod data;
mod error;
mod exam;
mod export;
mod features;
mod files;
mod head;
mod log;
mod model;
mod objective;
mod ops;
mod optimizer;
mod params;
mod product;
mod ready;
mod recipe;
mod report_views;
mod run;
mod sampler;
mod setup;
mod step;
mod tape;
mod tower;
pub mod tune;
mod vocabulary;

pub use checkpoint::FOLDER as CHECKPOINT_FOLDER;
pub use curves::CURVES_FILE;
pub use data::HELD_OUT_FILE;
pub use error::TrainError;
pub use exam::{Scores, Validation};
pub use log::LOG_FILE;
pub use objective::{
    Cca, CcaOptions, Convirt, Dcca, Distance, InfoNce, Moco, MocoCross, Objective, ObjectiveError, Siglip,
    SimClr, SoftTargets, Term, Triplet, Weighting,
};
pub use recipe::{
    AugmentRecipe, DataRecipe, Domain, HeadKind, HeadRecipe, Keep, ModelRecipe, Open, OutputRecipe,
    PhantomRecipe, Recipe, TextRecipe, TokenizerRecipe, TowersRecipe, TrainSettings, WeightType,
};
pub use run::{FEATURES_FOLDER, Phase, Progress, Resume, Summary, TrainOptions, train};
