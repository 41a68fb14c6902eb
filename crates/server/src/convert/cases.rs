//! Cases of the wire to questions about them, and answers back.

use std::collections::HashMap;

use diptych_cases::{
    Case, Conflict, Draft, DraftOptions, DraftSentence, FINDINGS_WEIGHT, Findings, Observation, Patients,
    SimilarCase, SimilarCases, SimilarQuery, Status as Said,
};
use diptych_core::{CollectionName, Record};
use diptych_engine::{PartMatch, SetPart};
use diptych_proto::convert::{attributes_to_wire, filter_from_wire, modality_to_wire};
use diptych_proto::v1 as wire;
use diptych_radiology::findings::UnknownName;
use tonic::Status;

use super::record::part_to_wire;
use super::{collection_from_wire, key_from_wire};
use crate::observe::micros;

const K_DEFAULT: u32 = 10;

pub(crate) fn similar_from_wire(
    request: wire::FindSimilarRequest,
) -> Result<(CollectionName, SimilarQuery), Status> {
    let wire::FindSimilarRequest { collection, case, k, filter, patients, findings_weight, thumbnails } =
        request;
    let case =
        case.ok_or_else(|| Status::invalid_argument("the request has no case; set one to start from"))?;
    let patients = match wire::CasePatients::try_from(patients) {
        Ok(wire::CasePatients::Unspecified | wire::CasePatients::Others) => Patients::Others,
        Ok(wire::CasePatients::All) => Patients::All,
        Ok(wire::CasePatients::Same) => Patients::Same,
        Err(_) => {
            return Err(Status::invalid_argument(format!(
                "patients {patients} is unknown; use CASE_PATIENTS_OTHERS, CASE_PATIENTS_ALL or CASE_PATIENTS_SAME"
            )));
        }
    };
    let query = SimilarQuery {
        case: case_from_wire(case)?,
        k: k.unwrap_or(K_DEFAULT) as usize,
        filter: filter.map(filter_from_wire).transpose()?,
        patients,
        findings_weight: findings_weight.unwrap_or(FINDINGS_WEIGHT),
        thumbnails,
    };
    Ok((collection_from_wire(collection)?, query))
}

pub(crate) fn draft_from_wire(
    request: wire::DraftRequest,
) -> Result<(CollectionName, SimilarQuery, DraftOptions), Status> {
    let similar = request.similar.ok_or_else(|| {
        Status::invalid_argument("the request has no search for similar cases; set one, with the case in it")
    })?;
    let (collection, query) = similar_from_wire(similar)?;
    let defaults = DraftOptions::default();
    let options = DraftOptions {
        sentences: request.sentences.map_or(defaults.sentences, |sentences| sentences as usize),
        min_support: request.min_support.unwrap_or(defaults.min_support),
    };
    Ok((collection, query, options))
}

fn case_from_wire(case: wire::Case) -> Result<Case, Status> {
    let wire::Case { images, report, key, findings, patient_id } = case;
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    Ok(Case {
        images,
        report: some(report),
        key: some(key).map(key_from_wire).transpose()?,
        findings: findings_from_wire(findings)?,
        patient: some(patient_id),
    })
}

fn findings_from_wire(findings: HashMap<String, i32>) -> Result<Findings, Status> {
    let mut all = Findings::new();
    for (name, status) in findings {
        let observation: Observation =
            shown(&name).parse().map_err(|error: UnknownName| Status::invalid_argument(error.to_string()))?;
        let status = match wire::FindingStatus::try_from(status) {
            Ok(wire::FindingStatus::Present) => Said::Present,
            Ok(wire::FindingStatus::Absent) => Said::Absent,
            Ok(wire::FindingStatus::Uncertain) => Said::Uncertain,
            Ok(wire::FindingStatus::Unspecified) => continue,
            Err(_) => {
                return Err(Status::invalid_argument(format!(
                    "the status {status} of finding '{name}' is unknown; use FINDING_STATUS_PRESENT, _ABSENT or \
                     _UNCERTAIN"
                )));
            }
        };
        all.insert(observation, status);
    }
    Ok(all)
}

/// The beginning of what a client sent, for a message.
fn shown(name: &str) -> String {
    name.chars().take(64).collect()
}

fn status_to_wire(status: Said) -> i32 {
    let status = match status {
        Said::Present => wire::FindingStatus::Present,
        Said::Absent => wire::FindingStatus::Absent,
        Said::Uncertain => wire::FindingStatus::Uncertain,
    };
    status as i32
}

fn findings_to_wire(findings: &Findings) -> HashMap<String, i32> {
    findings.iter().map(|(known, status)| (known.as_str().to_owned(), status_to_wire(*status))).collect()
}

pub(crate) fn similar_to_wire(found: SimilarCases) -> wire::FindSimilarResponse {
    let SimilarCases { cases, findings, outcome } = found;
    let times = outcome.times;
    wire::FindSimilarResponse {
        cases: cases.into_iter().map(|case| case_to_wire(case, &outcome.parts)).collect(),
        query_findings: findings_to_wire(&findings),
        stats: Some(wire::SearchStats {
            searched_points: outcome.searched_points as u64,
            encode_micros: micros(times.encode),
            search_micros: micros(times.search),
            fetch_micros: micros(times.fetch),
            truncated_tokens: outcome.truncated_tokens,
            ..wire::SearchStats::default()
        }),
    }
}

fn case_to_wire(case: SimilarCase, parts: &[SetPart]) -> wire::SimilarCase {
    let SimilarCase { hit, score, impression, findings, contrast } = case;
    let record = &hit.record;
    wire::SimilarCase {
        key: record.key().to_string(),
        score,
        relevance: hit.relevance,
        image: hit.image.map(|found| match_to_wire(found, record, parts)),
        sentence: hit.text.map(|found| match_to_wire(found, record, parts)),
        impression: impression.unwrap_or_default(),
        findings: findings_to_wire(&findings),
        common: contrast.common.iter().map(|known| known.as_str().to_owned()).collect(),
        conflicts: contrast.conflicts.iter().map(conflict_to_wire).collect(),
        attributes: attributes_to_wire(record.attributes()),
        thumbnail: hit.thumbnail.unwrap_or_default(),
    }
}

fn conflict_to_wire(conflict: &Conflict) -> wire::FindingConflict {
    wire::FindingConflict {
        finding: conflict.observation.as_str().to_owned(),
        query: status_to_wire(conflict.query),
        found: status_to_wire(conflict.found),
    }
}

fn match_to_wire(found: PartMatch, record: &Record, parts: &[SetPart]) -> wire::CaseMatch {
    let modality = parts[found.query_part].modality;
    let before = parts[..found.query_part].iter().filter(|part| part.modality == modality).count();
    wire::CaseMatch {
        part: Some(part_to_wire(found.part, record.part(found.part))),
        query_modality: modality_to_wire(modality),
        // A set has at most SET_PARTS_MAX parts.
        query_ordinal: u32::try_from(before).unwrap_or(u32::MAX),
        cosine: found.cosine,
    }
}

pub(crate) fn draft_to_wire(draft: Draft) -> wire::DraftResponse {
    let sentences = |all: Vec<DraftSentence>| all.into_iter().map(sentence_to_wire).collect();
    wire::DraftResponse {
        findings: sentences(draft.findings),
        impression: sentences(draft.impression),
        keys: draft.keys.iter().map(ToString::to_string).collect(),
        contradictions: u32::try_from(draft.contradictions).unwrap_or(u32::MAX),
        query_findings: findings_to_wire(&draft.query_findings),
    }
}

fn sentence_to_wire(sentence: DraftSentence) -> wire::DraftSentence {
    wire::DraftSentence {
        text: sentence.text,
        key: sentence.key.to_string(),
        support: sentence.support,
        supporting_keys: sentence.supporting.iter().map(ToString::to_string).collect(),
        findings: findings_to_wire(&sentence.findings),
    }
}
