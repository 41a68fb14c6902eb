//! Cases: what is like a study with its images, report and findings, and what the reports of those agree on.
//!
//! Owns: a case as a question, whose cases answer it, how findings in common and in conflict order the answer,
//! and drafts made of sentences of retrieved reports. Everything said is retrieved, nothing is generated, and
//! none of it is a diagnosis.
//! Deliberately absent: how images and sentences are compared (`engine`), and how a report is read (`radiology`).

mod draft;
mod error;
mod finding;
mod question;
mod similar;

pub use draft::{Draft, DraftOptions, DraftSentence, SENTENCES_MAX, draft};
pub use error::CaseError;
pub use finding::{Conflict, Contrast};
pub use question::Case;
pub use similar::{FINDINGS_WEIGHT, Patients, SimilarCase, SimilarCases, SimilarQuery, find_similar};

pub use diptych_radiology::findings::{Findings, Observation, Status};

/// The attribute that names a case's patient.
pub const PATIENT_ID: &str = "patient_id";
/// The attribute that tells when a case was.
pub const STUDY_DATE: &str = "study_date";
