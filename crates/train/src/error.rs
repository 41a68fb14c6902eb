//! What can go wrong between a recipe and a model directory, and what to do about it.

use std::path::{Path, PathBuf};

/// Why training stopped.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The recipe file cannot be read.
    #[error("cannot read the recipe {}: {source}; check the path", path.display())]
    RecipeFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The recipe is no TOML of the expected form; the reason names line and key.
    #[error(
        "the recipe cannot be parsed: {reason}; correct that line (data/recipes/mini.toml shows every key)"
    )]
    RecipeSyntax {
        /// The parser's message, with line and key.
        reason: String,
    },
    /// A value is out of its bounds.
    #[error("recipe key `{key}` {reason}")]
    RecipeValue {
        /// The key, with its section.
        key: &'static str,
        /// What was found and what is allowed.
        reason: String,
    },
    /// The training data cannot be used.
    #[error("the training data {}: {reason}", path.display())]
    Data {
        /// The file with the pairs.
        path: PathBuf,
        /// What is wrong with it and how to put it right.
        reason: String,
    },
    /// A frozen tower could not run over the data.
    #[error("the features of a frozen tower: {reason}; correct or remove what is named")]
    Features {
        /// Which picture or text, and why.
        reason: String,
    },
    /// A pre-trained tower cannot be used.
    #[error("the tower {}: {reason}", path.display())]
    Tower {
        /// Where it was looked for.
        path: PathBuf,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// Training made nothing better.
    #[error(
        "the trained model finds the held-out pairs no better than before, so that nothing is written; before: {before}; after: {after}; give more pairs, change the settings, or write it anyway with --resume --force"
    )]
    NotBetter {
        /// Before the first step.
        before: Box<crate::exam::Validation>,
        /// With the best weights.
        after: Box<crate::exam::Validation>,
    },
    /// The held-out pairs cannot be scored.
    #[error("the held-out pairs cannot be scored: {reason}")]
    Validation {
        /// Why, and what to do.
        reason: String,
    },
    /// The tokenizer could not be trained or used.
    #[error("the tokenizer failed: {reason}; check that the texts of the training pairs are words")]
    Tokenizer {
        /// What it said.
        reason: String,
    },
    /// The loss or the gradient is NaN or infinite. Nothing of that step was kept.
    #[error(
        "the {what} is not finite at step {step}, whose batch is listed in {}; the checkpoint before it is intact: lower train.learning_rate or raise train.warmup_steps, or look at that batch, and start again",
        batch.display()
    )]
    NotFinite {
        /// "loss" or "gradient".
        what: &'static str,
        /// The step, counted from 1.
        step: u64,
        /// The file that lists the pictures and texts of that step.
        batch: PathBuf,
    },
    /// The output directory holds a run, and nobody said what to do with it.
    #[error(
        "{} holds a run at step {step} of {steps}; continue it with --resume, discard it with --restart, or choose another output directory",
        path.display()
    )]
    Unfinished {
        /// The output directory.
        path: PathBuf,
        /// Steps done.
        step: u64,
        /// Steps in all.
        steps: u64,
    },
    /// The output directory holds a model, and no run that could go on.
    #[error(
        "{} holds a model, and no run that could be continued; choose another output directory, or replace it with --restart",
        path.display()
    )]
    ModelThere {
        /// The output directory.
        path: PathBuf,
    },
    /// Another process is training in the output directory.
    #[error("{} is in use by another run; wait for its end, or choose another output directory", path.display())]
    InUse {
        /// The output directory.
        path: PathBuf,
    },
    /// A file stands where a directory is needed.
    #[error("{} is a file, but a directory is needed there; name another one, or move the file away", path.display())]
    NotADirectory {
        /// The file.
        path: PathBuf,
    },
    /// An objective cannot be used on this data.
    #[error("{0}")]
    Objective(#[from] crate::objective::ObjectiveError),
    /// The output directory holds the checkpoint of another run.
    #[error(
        "{} belongs to another run: its {what} differs; choose another output directory, or discard that run with --restart",
        path.display()
    )]
    OtherRun {
        /// The checkpoint file.
        path: PathBuf,
        /// What differs.
        what: &'static str,
    },
    /// The checkpoint is damaged.
    #[error("the checkpoint {} is damaged: {reason}; discard it with --restart", path.display())]
    Checkpoint {
        /// The checkpoint file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file of the output directory cannot be read or written.
    #[error("cannot {what} {}: {source}; check permissions and free space", path.display())]
    Io {
        /// "write", "read", ..
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A tower or a folder for one that cannot be used.
pub(crate) fn unusable(path: &Path, reason: String) -> TrainError {
    TrainError::Tower { path: path.to_path_buf(), reason }
}

/// Attaches the path to an I/O error.
pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> TrainError {
    let path = path.to_path_buf();
    move |source| TrainError::Io { what, path, source }
}
