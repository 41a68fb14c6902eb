//! Cases like a case: whose they are, how findings order them, and what is told of each.

use std::cmp::Ordering;

use diptych_core::limits::K_MAX;
use diptych_core::{
    AttributeValue, CollectionName, Comparison, Condition, Filter, FilterError, FilterValue, Record, SetQuery,
};
use diptych_engine::{Engine, SetHit, SetOutcome};
use diptych_radiology::findings::Findings;

use crate::question::{Question, report_of};
use crate::{Case, CaseError, Contrast, PATIENT_ID, STUDY_DATE, finding};

/// How many standard deviations a case sinks when every finding contradicts, unless told otherwise.
pub const FINDINGS_WEIGHT: f64 = 2.0;
/// The largest weight of findings.
const WEIGHT_MAX: f64 = 1_000.0;
/// Neighbours of each image and sentence that are looked at, at least.
const POOL_MIN: usize = 50;

/// Whose cases are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Patients {
    /// Those of other patients than the case's, where that is known.
    #[default]
    Others,
    /// Everyone's.
    All,
    /// Only the same patient's, by date, the latest first.
    Same,
}

/// A search for similar cases.
#[derive(Debug, Clone, PartialEq)]
pub struct SimilarQuery {
    /// The case to start from.
    pub case: Case,
    /// Cases wanted, 1 to [`K_MAX`].
    pub k: usize,
    /// What cases must meet.
    pub filter: Option<Filter>,
    /// Whose cases are found.
    pub patients: Patients,
    /// How much findings count; see [`FINDINGS_WEIGHT`].
    pub findings_weight: f64,
    /// Whether each case comes with a small picture.
    pub thumbnails: bool,
}

/// A case that is like another.
#[derive(Debug, Clone, PartialEq)]
pub struct SimilarCase {
    /// The record, its best image and its best sentence.
    pub hit: SetHit,
    /// Images, sentences and findings together; orders the cases of one answer.
    pub score: f64,
    /// What its report concludes, if it has one.
    pub impression: Option<String>,
    /// What it says.
    pub findings: Findings,
    /// What it has in common with the case asked with, and where they differ.
    pub contrast: Contrast,
}

/// Similar cases.
#[derive(Debug, Clone, PartialEq)]
pub struct SimilarCases {
    /// Best first; of the same patient, by date, the latest first.
    pub cases: Vec<SimilarCase>,
    /// What the case asked with says.
    pub findings: Findings,
    /// How the answer was found; its hits have been taken out.
    pub outcome: SetOutcome,
}

/// Finds the cases that are most like one. What the engine finds by images and sentences is put into a new
/// order by findings, in which cases that contradict the one asked with sink.
///
/// # Errors
/// [`CaseError`].
pub fn find_similar(
    engine: &Engine,
    collection: &CollectionName,
    query: SimilarQuery,
) -> Result<SimilarCases, CaseError> {
    let SimilarQuery { case, k, filter, patients, findings_weight, thumbnails } = query;
    check("k", k as f64, 1.0, K_MAX as f64)?;
    check("findings_weight", findings_weight, 0.0, WEIGHT_MAX)?;
    let Question { parts, findings, patient } = case.question(engine, collection)?;
    let filter = of_patients(filter, patients, patient)?;
    let also = if findings_weight > 0.0 { finding::agreeing(&findings)? } else { None };
    let pool = (4 * k).clamp(POOL_MIN, K_MAX);
    let set = SetQuery::new(parts, pool)?.with_filter(filter).with_also(also);
    let mut outcome = engine.search_set(collection, &set)?;
    let mut cases: Vec<SimilarCase> = std::mem::take(&mut outcome.hits)
        .into_iter()
        .map(|hit| {
            let told = finding::of_record(&hit.record);
            let contrast = Contrast::of(&findings, &told);
            let score = hit.score + findings_weight * contrast.balance();
            SimilarCase { score, impression: None, findings: told, contrast, hit }
        })
        .collect();
    cases.sort_by(|a, b| {
        let by_date = match patients {
            Patients::Same => latest_first(&a.hit.record, &b.hit.record),
            Patients::Others | Patients::All => Ordering::Equal,
        };
        by_date
            .then_with(|| b.score.total_cmp(&a.score))
            .then_with(|| a.hit.record.key().cmp(b.hit.record.key()))
    });
    cases.truncate(k);
    for case in &mut cases {
        let report = report_of(&case.hit.record);
        case.impression = report.as_ref().and_then(|report| report.impression()).map(str::to_owned);
    }
    if thumbnails {
        engine.add_pictures(collection, cases.iter_mut().map(|case| &mut case.hit))?;
    }
    Ok(SimilarCases { cases, findings, outcome })
}

pub(crate) fn check(what: &'static str, found: f64, least: f64, most: f64) -> Result<(), CaseError> {
    match (least..=most).contains(&found) {
        true => Ok(()),
        false => Err(CaseError::Range { what, found, least, most }),
    }
}

/// The filter, and whose cases may be found.
fn of_patients(
    filter: Option<Filter>,
    patients: Patients,
    patient: Option<String>,
) -> Result<Option<Filter>, CaseError> {
    let comparison = match (patients, &patient) {
        (Patients::All, _) | (Patients::Others, None) => return Ok(filter),
        (Patients::Same, None) => return Err(CaseError::NoPatient),
        (Patients::Others, Some(_)) => Comparison::NotEqual,
        (Patients::Same, Some(_)) => Comparison::Equal,
    };
    let value = FilterValue::Text(patient.unwrap_or_default());
    let whose = Filter::new(Condition::Compare { attribute: PATIENT_ID.to_owned(), comparison, value })?;
    let both = |filter: Filter| -> Result<Filter, FilterError> { filter.and(&whose) };
    Ok(Some(filter.map(both).transpose()?.unwrap_or(whose)))
}

/// The later date first; what has none comes last.
fn latest_first(a: &Record, b: &Record) -> Ordering {
    let date = |record: &Record| match record.attributes().get(STUDY_DATE) {
        Some(AttributeValue::Time(date)) => Some(*date),
        _ => None,
    };
    date(b).cmp(&date(a))
}
