//! What a study record takes from a header and a report, without what identifies the patient.
//! Deliberately absent: reading headers and reports, and findings.

use super::{Deidentifier, Known, Scrubbed};

/// What is known of a study before it is de-identified; whatever is not known is `None` or empty.
#[derive(Debug, Clone, Copy, Default)]
pub struct StudyFields<'a> {
    /// Study Instance UID, or the layout's name of the study.
    pub study: &'a str,
    /// Patient ID, or what [`Deidentifier::identity`] says.
    pub patient: &'a str,
    /// Study Date, `YYYYMMDD`.
    pub date: Option<&'a str>,
    /// Age in years.
    pub age: Option<u32>,
}

/// A study without what identifies the patient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScrubbedStudy {
    /// The remapped UID.
    pub key: String,
    /// The pseudonym.
    pub patient_id: String,
    /// The date as the options want it, `YYYYMMDD`.
    pub date: Option<String>,
    /// Age in years, at most 90.
    pub age: Option<u32>,
    /// The report, scrubbed.
    pub report: Option<String>,
    /// What was removed from the report.
    pub scrubbed: Scrubbed,
}

pub(super) fn scrub(
    with: &Deidentifier,
    study: &StudyFields<'_>,
    report: Option<&str>,
    known: &Known,
) -> ScrubbedStudy {
    let mut scrubbed = Scrubbed::default();
    let report = report.map(|text| {
        let (text, counts) = with.text(text, known);
        scrubbed = counts;
        text
    });
    ScrubbedStudy {
        key: with.uid(study.study),
        patient_id: with.patient(study.patient),
        date: study.date.and_then(|date| with.shift(study.patient, date)),
        age: study.age.map(|age| age.min(90)),
        report,
        scrubbed,
    }
}
