//! A case as a question: what of it is looked for, what it says, and whose it is.

use diptych_core::{
    AttributeValue, CollectionName, Key, Modality, Part, PartRef, QuerySource, Record, sentences,
};
use diptych_engine::Engine;
use diptych_radiology::findings::{self, Findings};
use diptych_radiology::report::Report;

use crate::{CaseError, PATIENT_ID, finding};

/// A case to start from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Case {
    /// Encoded image files: the views of a study.
    pub images: Vec<Vec<u8>>,
    /// A report, whole or begun, or a single sentence.
    pub report: Option<String>,
    /// A stored case; its images and its report's sentences stand for it.
    pub key: Option<Key>,
    /// What is known to be there or not; goes before what the report says.
    pub findings: Findings,
    /// The patient, as the attribute [`PATIENT_ID`] has it; that of a stored case is known.
    pub patient: Option<String>,
}

/// A case ready to be looked for.
pub(crate) struct Question {
    pub(crate) parts: Vec<QuerySource>,
    pub(crate) findings: Findings,
    pub(crate) patient: Option<String>,
}

impl Case {
    pub(crate) fn question(
        self,
        engine: &Engine,
        collection: &CollectionName,
    ) -> Result<Question, CaseError> {
        let mut parts: Vec<QuerySource> = self.images.into_iter().map(QuerySource::Image).collect();
        let (mut said, mut patient) = (Findings::new(), self.patient);
        if let Some(key) = self.key {
            let record = engine.get(collection, &key)?.record;
            parts.extend(
                stored_parts(&record)
                    .into_iter()
                    .map(|part| QuerySource::Key { key: key.clone(), part: Some(part) }),
            );
            said.extend(finding::of_record(&record));
            patient = patient.or_else(|| patient_of(&record).map(str::to_owned));
        }
        if let Some(text) = self.report.filter(|text| !text.trim().is_empty()) {
            let report = Report::parse(&text);
            let mut told: Vec<String> = report.sentences().map(|(_, said)| said.to_owned()).collect();
            if told.is_empty() {
                told = sentences(&text).map(str::to_owned).collect();
            }
            parts.extend(told.into_iter().map(QuerySource::Text));
            said.extend(findings::of_report(&report));
        }
        said.extend(self.findings);
        if parts.is_empty() {
            return Err(CaseError::Empty);
        }
        Ok(Question { parts, findings: said, patient })
    }
}

/// The patient of a stored case.
pub(crate) fn patient_of(record: &Record) -> Option<&str> {
    match record.attributes().get(PATIENT_ID) {
        Some(AttributeValue::String(patient)) => Some(patient),
        _ => None,
    }
}

/// The report of a stored case: its texts together.
pub(crate) fn report_of(record: &Record) -> Option<Report> {
    let texts: Vec<&str> = record
        .parts()
        .iter()
        .filter_map(|part| match part {
            Part::Text(text) => Some(text.text.as_str()),
            Part::Image(_) => None,
        })
        .collect();
    (!texts.is_empty()).then(|| Report::parse(&texts.join("\n")))
}

/// The parts of a stored case that describe it: its images, and the pieces of its report that are not about its
/// history or technique. All pieces where none does.
fn stored_parts(record: &Record) -> Vec<PartRef> {
    let described: Vec<String> = report_of(record)
        .map(|report| report.sentences().map(|(_, said)| said.to_owned()).collect())
        .unwrap_or_default();
    let (images, texts): (Vec<_>, Vec<_>) =
        record.part_refs().partition(|(part, _)| part.modality == Modality::Image);
    let describes = |part: PartRef, text: &Part| match (text, part.chunk) {
        (Part::Text(text), Some(n)) => text.chunk(n).is_some_and(|range| {
            let piece = &text.text[range];
            described
                .iter()
                .any(|sentence| piece.contains(sentence.as_str()) || sentence.contains(piece.trim()))
        }),
        _ => true,
    };
    let mut told: Vec<PartRef> =
        texts.iter().filter(|(part, text)| describes(*part, text)).map(|(part, _)| *part).collect();
    if told.is_empty() {
        told = texts.iter().map(|(part, _)| *part).collect();
    }
    images.into_iter().map(|(part, _)| part).chain(told).collect()
}
