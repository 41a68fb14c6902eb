//! Cases: similar ones to a case, and drafts of reports.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use diptych_core::{Attributes, Key, Modality};
use diptych_proto::convert::{attributes_from_wire, modality_from_wire};
use diptych_proto::v1 as wire;

use crate::answer::key;
use crate::client::Repeat;
use crate::search::condition;
use crate::{Client, Error, IntoFilter, Part, SearchStats};

/// Whether something is there, as a report says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FindingStatus {
    /// Said to be there.
    Present,
    /// Said not to be there.
    Absent,
    /// Said to be possible.
    Uncertain,
}

impl fmt::Display for FindingStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Present => "present",
            Self::Absent => "absent",
            Self::Uncertain => "uncertain",
        })
    }
}

/// What is said of findings, by name.
pub type Findings = BTreeMap<String, FindingStatus>;

/// A case to start from, and where to look for cases like it. What is wrong with it is said when it is sent.
///
/// ```
/// use diptych_client::SimilarTo;
///
/// let search = SimilarTo::report("Small left effusion. No pneumothorax.")
///     .filter("age >= 40")
///     .k(5);
/// ```
#[derive(Debug, Clone, Default)]
pub struct SimilarTo {
    request: wire::FindSimilarRequest,
    problem: Option<Error>,
}

impl SimilarTo {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Like a stored case.
    pub fn key(key: &Key) -> Self {
        Self::new().of(|case| case.key = key.to_string())
    }

    /// Like an image file.
    pub fn image(file: impl Into<Vec<u8>>) -> Self {
        Self::new().and_image(file)
    }

    /// Like what a report, or one sentence, says.
    pub fn report(report: impl Into<String>) -> Self {
        Self::new().and_report(report)
    }

    /// One more view of the case.
    #[must_use]
    pub fn and_image(self, file: impl Into<Vec<u8>>) -> Self {
        self.of(|case| case.images.push(file.into()))
    }

    /// The case's report, whole or begun.
    #[must_use]
    pub fn and_report(self, report: impl Into<String>) -> Self {
        self.of(|case| case.report = report.into())
    }

    /// The case is a stored one, too.
    #[must_use]
    pub fn and_key(self, key: &Key) -> Self {
        self.of(|case| case.key = key.to_string())
    }

    /// A finding that is known to be there or not, such as `effusion`.
    #[must_use]
    pub fn finding(self, name: impl Into<String>, status: FindingStatus) -> Self {
        let status = match status {
            FindingStatus::Present => wire::FindingStatus::Present,
            FindingStatus::Absent => wire::FindingStatus::Absent,
            FindingStatus::Uncertain => wire::FindingStatus::Uncertain,
        };
        self.of(|case| {
            case.findings.insert(name.into(), status as i32);
        })
    }

    /// The patient, as the attribute `patient_id` has it.
    #[must_use]
    pub fn patient(self, patient: impl Into<String>) -> Self {
        self.of(|case| case.patient_id = patient.into())
    }

    /// Finds cases of the same patient, too.
    #[must_use]
    pub fn all_patients(mut self) -> Self {
        self.request.patients = wire::CasePatients::All as i32;
        self
    }

    /// Finds only cases of the same patient, by date, the latest first.
    #[must_use]
    pub fn priors(mut self) -> Self {
        self.request.patients = wire::CasePatients::Same as i32;
        self
    }

    /// Only cases that meet a condition.
    #[must_use]
    pub fn filter(mut self, filter: impl IntoFilter) -> Self {
        match condition(filter) {
            Ok(filter) => self.request.filter = Some(filter),
            Err(error) => self.problem = self.problem.or(Some(error)),
        }
        self
    }

    /// Cases wanted.
    #[must_use]
    pub fn k(mut self, k: u32) -> Self {
        self.request.k = Some(k);
        self
    }

    /// How many standard deviations a case sinks when every finding contradicts; 0 for not at all.
    #[must_use]
    pub fn findings_weight(mut self, weight: f64) -> Self {
        self.request.findings_weight = Some(weight);
        self
    }

    /// With a small picture of each case's best image.
    #[must_use]
    pub fn thumbnails(mut self) -> Self {
        self.request.thumbnails = true;
        self
    }

    fn of(mut self, change: impl FnOnce(&mut wire::Case)) -> Self {
        change(self.request.case.get_or_insert_default());
        self
    }

    fn request(&self, collection: &str) -> Result<wire::FindSimilarRequest, Error> {
        match &self.problem {
            Some(problem) => Err(problem.clone()),
            None => {
                Ok(wire::FindSimilarRequest { collection: collection.to_owned(), ..self.request.clone() })
            }
        }
    }
}

/// Similar cases.
#[derive(Debug, Clone, PartialEq)]
pub struct SimilarCases {
    /// Best first; of the same patient, by date, the latest first.
    pub cases: Vec<SimilarCase>,
    /// What the case asked with is understood to say.
    pub query_findings: Findings,
    /// What the search did.
    pub stats: SearchStats,
}

/// A case that is like another.
#[derive(Debug, Clone, PartialEq)]
pub struct SimilarCase {
    /// Its key.
    pub key: Key,
    /// Orders the cases of one answer; in standard deviations over those that were looked at.
    pub score: f64,
    /// How likely parts as close as the closest ones are to be of one case, 0 to 1; absent where it cannot be told.
    pub relevance: Option<f64>,
    /// Its best image, if it has one.
    pub image: Option<CaseMatch>,
    /// Its best sentence, if it has one.
    pub sentence: Option<CaseMatch>,
    /// What its report concludes; empty without a report.
    pub impression: String,
    /// Its findings.
    pub findings: Findings,
    /// The findings that both cases say are there.
    pub common: Vec<String>,
    /// The findings that one says are there and the other not: what the case asked with says, and what this one does.
    pub conflicts: BTreeMap<String, (FindingStatus, FindingStatus)>,
    /// Its attributes.
    pub attributes: Attributes,
    /// A small picture of its best image, as a JPEG file; absent when it was not asked for or none is kept.
    pub thumbnail: Option<Vec<u8>>,
}

/// A part of a stored case that meets a part of the case asked with.
#[derive(Debug, Clone, PartialEq)]
pub struct CaseMatch {
    /// The stored part.
    pub part: Part,
    /// What it meets: an image or a sentence, and which, counted from 0.
    pub query_part: (Modality, u32),
    /// Their cosine similarity.
    pub cosine: f32,
}

/// Sentences for a report; retrieved text, not a diagnosis.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// For the section of findings, the best supported first.
    pub findings: Vec<DraftSentence>,
    /// For the impression, likewise.
    pub impression: Vec<DraftSentence>,
    /// The cases whose reports were read, the most similar first.
    pub keys: Vec<Key>,
    /// Sentences left out because they contradict what is written already, or what more cases say.
    pub contradictions: u32,
    /// What the case asked with is understood to say.
    pub query_findings: Findings,
}

/// A sentence of the reports of similar cases.
#[derive(Debug, Clone, PartialEq)]
pub struct DraftSentence {
    /// As it stands in one of them.
    pub text: String,
    /// The case that it is taken from.
    pub key: Key,
    /// Share of the similar cases, by weight, whose reports say the same, 0 to 1.
    pub support: f64,
    /// Their keys, the most similar first.
    pub supporting: Vec<Key>,
    /// What it says.
    pub findings: Findings,
}

impl Client {
    /// Finds the cases that are most like one, other patients' only unless told otherwise.
    ///
    /// # Errors
    /// [`Error::Status`]: `InvalidArgument` when the case is empty or something is out of range.
    pub async fn similar(&self, search: &SimilarTo) -> Result<SimilarCases, Error> {
        let request = search.request(self.collection().as_str())?;
        let answer = self.call(Repeat::Safe, request, |request| {
            let mut client = self.cases_service();
            async move { client.find_similar(request).await }
        });
        let wire::FindSimilarResponse { cases, query_findings, stats } = answer.await?;
        Ok(SimilarCases {
            cases: cases.into_iter().map(SimilarCase::from_wire).collect::<Result<_, _>>()?,
            query_findings: findings(query_findings),
            stats: SearchStats::from_wire(stats.unwrap_or_default()),
        })
    }

    /// Drafts a report: the sentences on which the reports of similar cases agree. At most `sentences`, each with at
    /// least the share `min_support` of these cases behind it; the server's own bounds where they are `None`.
    ///
    /// # Errors
    /// As [`Client::similar`].
    pub async fn draft(
        &self,
        search: &SimilarTo,
        sentences: Option<u32>,
        min_support: Option<f64>,
    ) -> Result<Draft, Error> {
        let similar = Some(search.request(self.collection().as_str())?);
        let request = wire::DraftRequest { similar, sentences, min_support };
        let answer = self.call(Repeat::Safe, request, |request| {
            let mut client = self.cases_service();
            async move { client.draft(request).await }
        });
        let answer = answer.await?;
        let sentences = |all: Vec<wire::DraftSentence>| {
            all.into_iter().map(DraftSentence::from_wire).collect::<Result<_, Error>>()
        };
        Ok(Draft {
            findings: sentences(answer.findings)?,
            impression: sentences(answer.impression)?,
            keys: answer.keys.into_iter().map(key).collect::<Result<_, _>>()?,
            contradictions: answer.contradictions,
            query_findings: findings(answer.query_findings),
        })
    }
}

impl SimilarCase {
    fn from_wire(case: wire::SimilarCase) -> Result<Self, Error> {
        let conflict = |of: wire::FindingConflict| Some((of.finding, (status(of.query)?, status(of.found)?)));
        Ok(Self {
            key: key(case.key)?,
            score: case.score,
            relevance: case.relevance,
            image: case.image.map(CaseMatch::from_wire).transpose()?,
            sentence: case.sentence.map(CaseMatch::from_wire).transpose()?,
            impression: case.impression,
            findings: findings(case.findings),
            common: case.common,
            conflicts: case.conflicts.into_iter().filter_map(conflict).collect(),
            attributes: attributes_from_wire(case.attributes)?,
            thumbnail: Some(case.thumbnail).filter(|jpeg| !jpeg.is_empty()),
        })
    }
}

impl CaseMatch {
    fn from_wire(found: wire::CaseMatch) -> Result<Self, Error> {
        let modality =
            modality_from_wire(found.query_modality).ok_or_else(|| Error::lacks("query_modality"))?;
        Ok(Self {
            part: Part::from_wire(found.part.ok_or_else(|| Error::lacks("part"))?)?,
            query_part: (modality, found.query_ordinal),
            cosine: found.cosine,
        })
    }
}

impl DraftSentence {
    fn from_wire(sentence: wire::DraftSentence) -> Result<Self, Error> {
        Ok(Self {
            text: sentence.text,
            key: key(sentence.key)?,
            support: sentence.support,
            supporting: sentence.supporting_keys.into_iter().map(key).collect::<Result<_, _>>()?,
            findings: findings(sentence.findings),
        })
    }
}

/// A status of the wire; `None` for one that this client does not know.
fn status(status: i32) -> Option<FindingStatus> {
    match wire::FindingStatus::try_from(status) {
        Ok(wire::FindingStatus::Present) => Some(FindingStatus::Present),
        Ok(wire::FindingStatus::Absent) => Some(FindingStatus::Absent),
        Ok(wire::FindingStatus::Uncertain) => Some(FindingStatus::Uncertain),
        Ok(wire::FindingStatus::Unspecified) | Err(_) => None,
    }
}

fn findings(findings: HashMap<String, i32>) -> Findings {
    findings.into_iter().filter_map(|(name, of)| Some((name, status(of)?))).collect()
}
