//! Retrieval and zero-shot metrics and protocols.
//!
//! Owns: what is measured of embeddings, each number beside the value that chance alone would give,
//! its bootstrap interval, and the counts it rests on. Retrieval: recall at k, reciprocal rank, median
//! rank, average precision and, by labels, nDCG and precision, in both directions, with a control
//! whose pairs are shuffled. Search by label (`label_search`): precision for each label among things of several
//! embeddings, such as studies. Classification by prompts: accuracy, area under the ROC curve, average
//! precision. All are exact: every query is scored against the whole gallery.
//! Deliberately absent: models, indexes, files and printing.

mod agreement;
mod binary;
mod bootstrap;
mod by_label;
mod chance;
mod control;
mod error;
mod labels;
mod pairs;
mod random;
mod retrieval;
mod scores;
#[cfg(test)]
mod tests;
mod zero_shot;

pub use agreement::Agreement;
pub use binary::{Detection, Detections, detect};
pub use bootstrap::{Bootstrap, Interval};
pub use by_label::{LabelOptions, LabelPrecision, LabelSearch, Labelled, Things, label_search};
pub use chance::{average_precision_chance, chance_at, reciprocal_rank_chance};
pub use control::{Control, Derangement, SHUFFLES_MAX, derange};
pub use error::EvalError;
pub use labels::{LABEL_DEPTHS, LabelReport, NDCG_DEPTH};
pub use pairs::Pairs;
pub use retrieval::{Answer, CURVE_DEPTH, Direction, Options, Outcome, Report, evaluate};
pub use zero_shot::{Accuracy, ClassCount, class_scores, classify};

/// A measured number, what chance gives in its place, and how sure it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// What was measured.
    pub value: f64,
    /// What a random order gives in expectation.
    pub chance: f64,
    /// The bootstrap interval of the value; `None` where there are fewer than two groups to resample,
    /// or no resamples were asked for.
    pub interval: Option<Interval>,
}
