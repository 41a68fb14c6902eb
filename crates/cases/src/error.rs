//! Why a question about cases is refused or fails.

use diptych_core::{FilterError, QueryError};
use diptych_engine::EngineError;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CaseError {
    /// Nothing to look for.
    #[error("the case has neither an image nor a report nor a key; give at least one")]
    Empty,
    /// A number out of range.
    #[error("{what} is {found}; use a number from {least} to {most}")]
    Range {
        /// Which option.
        what: &'static str,
        /// What was asked.
        found: f64,
        /// The least that is taken.
        least: f64,
        /// The most that is taken.
        most: f64,
    },
    /// The history of nobody.
    #[error("the patient of the case is not known; give its patient_id, or a stored case that has one")]
    NoPatient,
    /// The set of images and sentences is out of bounds.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The conditions together are out of bounds.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The search failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}
