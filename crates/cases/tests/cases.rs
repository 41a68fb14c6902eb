//! Cases among cases, with the hash encoder and a real store.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use diptych_core::{Attributes, Chunking, CollectionName, HashEncoder, Key, Time};
use diptych_engine::{Engine, EngineOptions, NewImage, NewRecord, PutMode};
use diptych_radiology::findings;
use diptych_radiology::report::Report;
use diptych_store::{Store, StoreOptions};
use tempfile::TempDir;

use diptych_cases::{
    Case, CaseError, Draft, DraftOptions, DraftSentence, FINDINGS_WEIGHT, Observation, PATIENT_ID, Patients,
    STUDY_DATE, SimilarCase, SimilarCases, SimilarQuery, Status, draft, find_similar,
};

struct Archive {
    engine: Engine,
    _dir: TempDir,
}

/// A study: key, patient, day, the words that its picture is made of, report.
type Study<'a> = (&'a str, &'a str, u32, &'a str, &'a str);

const STUDIES: &[Study<'_>] = &[
    (
        "effusion-1",
        "p1",
        1,
        "white base",
        "FINDINGS: Large left pleural effusion. The heart is normal in size. IMPRESSION: Left pleural effusion.",
    ),
    (
        "effusion-2",
        "p2",
        2,
        "white base",
        "FINDINGS: Large left pleural effusion. No pneumothorax. IMPRESSION: Large left pleural effusion.",
    ),
    (
        "effusion-3",
        "p3",
        3,
        "white base",
        "FINDINGS: Large left pleural effusion, unchanged. No pneumothorax. IMPRESSION: Pleural effusion on the left side.",
    ),
    (
        "clear-1",
        "p4",
        4,
        "black base",
        "FINDINGS: No left pleural effusion. No pneumothorax. IMPRESSION: No pleural effusion.",
    ),
    (
        "clear-2",
        "p5",
        5,
        "black base",
        "FINDINGS: No pleural effusion. No pneumothorax. IMPRESSION: Clear chest.",
    ),
    (
        "collapse",
        "p6",
        6,
        "black apex",
        "FINDINGS: Right apical pneumothorax. No pleural effusion. IMPRESSION: Right pneumothorax.",
    ),
    (
        "effusion-1-later",
        "p1",
        7,
        "white base",
        "FINDINGS: Small left pleural effusion. IMPRESSION: Small effusion.",
    ),
    ("effusion-1-before", "p1", 0, "black base", "FINDINGS: No pleural effusion. IMPRESSION: Normal chest."),
];

impl Archive {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let store =
            Store::open(dir.path(), &StoreOptions { create: true, ..StoreOptions::default() }).unwrap();
        let encoder = Arc::new(HashEncoder::new(64));
        let engine = Engine::open(store, encoder, EngineOptions::default()).unwrap();
        let records = STUDIES.iter().map(|study| record(*study)).collect();
        for written in engine.ingest(&CollectionName::default(), records, PutMode::Upsert).unwrap() {
            written.unwrap();
        }
        Self { engine, _dir: dir }
    }

    fn similar(&self, query: SimilarQuery) -> Result<SimilarCases, CaseError> {
        find_similar(&self.engine, &CollectionName::default(), query)
    }

    fn keys(&self, query: SimilarQuery) -> Vec<String> {
        self.similar(query).unwrap().cases.iter().map(|case| case.hit.record.key().to_string()).collect()
    }

    fn draft(&self, query: SimilarQuery, options: DraftOptions) -> Draft {
        draft(&self.engine, &CollectionName::default(), query, &options).unwrap()
    }
}

fn record((key, patient, day, image, report): Study<'_>) -> NewRecord {
    let report = Report::parse(report);
    let mut attributes: Attributes = findings::to_attributes(&findings::of_report(&report));
    attributes.insert(PATIENT_ID.to_owned(), patient.into());
    let date: Time = format!("2024-01-{:02}T00:00:00Z", day + 1).parse().unwrap();
    attributes.insert(STUDY_DATE.to_owned(), date.into());
    NewRecord {
        key: Key::new(key).unwrap(),
        images: vec![NewImage { bytes: image.as_bytes().to_vec(), source: format!("{key}.png") }],
        texts: vec![report.text()],
        chunking: Chunking::Sentences,
        attributes,
    }
}

fn query(case: Case) -> SimilarQuery {
    SimilarQuery {
        case,
        k: 5,
        filter: None,
        patients: Patients::Others,
        findings_weight: FINDINGS_WEIGHT,
        thumbnails: false,
    }
}

fn saying(report: &str) -> SimilarQuery {
    query(Case { report: Some(report.to_owned()), ..Case::default() })
}

fn stored(key: &str) -> SimilarQuery {
    query(Case { key: Some(Key::new(key).unwrap()), ..Case::default() })
}

#[test]
fn what_says_the_contrary_sinks_however_alike_its_words_are() {
    let archive = Archive::new();
    let by_words = archive.keys(SimilarQuery { findings_weight: 0.0, ..saying("No left pleural effusion.") });
    assert_eq!(by_words[0], "clear-1");
    assert!(by_words[..4].iter().any(|key| key.starts_with("effusion-")), "words do not tell: {by_words:?}");
    let found = archive.keys(saying("No left pleural effusion."));
    let absent = ["clear-1", "clear-2", "collapse", "effusion-1-before"];
    assert!(found[..4].iter().all(|key| absent.contains(&key.as_str())), "{found:?}");

    let found = archive.similar(SimilarQuery { k: 8, ..saying("Left pleural effusion.") }).unwrap();
    assert_eq!(found.findings.get(&Observation::Effusion), Some(&Status::Present));
    let last: Vec<&SimilarCase> = found.cases[4..].iter().collect();
    for case in last {
        let conflict = case.contrast.conflicts.first().expect("what says the contrary comes last");
        assert_eq!(conflict.observation, Observation::Effusion);
        assert_eq!((conflict.query, conflict.found), (Status::Present, Status::Absent));
    }
    assert_eq!(found.cases[0].contrast.common, [Observation::Effusion]);
}

#[test]
fn each_case_shows_its_best_image_its_best_sentence_and_what_it_concludes() {
    let archive = Archive::new();
    let case = Case {
        images: vec![b"black apex".to_vec()],
        report: Some("FINDINGS: Right apical pneumothorax.".to_owned()),
        ..Case::default()
    };
    let found = archive.similar(query(case)).unwrap();
    let best = &found.cases[0];
    assert_eq!(best.hit.record.key().as_str(), "collapse");
    assert_eq!(best.impression.as_deref(), Some("Right pneumothorax."));
    let image = best.hit.image.unwrap();
    assert!(image.part.to_string() == "image:0" && image.cosine > 0.999, "{image:?}");
    let text = best.hit.text.unwrap();
    let diptych_core::Part::Text(part) = best.hit.record.part(text.part).unwrap() else { panic!("a text") };
    let sentence = &part.text[part.chunk(text.part.chunk.unwrap()).unwrap()];
    assert!(sentence.contains("Right apical pneumothorax."), "{sentence}");
    assert_eq!(found.outcome.parts[text.query_part].modality, diptych_core::Modality::Text);
}

#[test]
fn other_cases_of_the_patient_are_left_out_or_are_all_there_is() {
    let archive = Archive::new();
    let found = archive.keys(SimilarQuery { k: 8, ..stored("effusion-1") });
    assert_eq!(found.len(), 5, "{found:?}");
    assert!(!found.iter().any(|key| key.starts_with("effusion-1")), "{found:?}");
    let all = archive.keys(SimilarQuery { k: 8, patients: Patients::All, ..stored("effusion-1") });
    assert!(all.len() == 7 && !all.contains(&"effusion-1".to_owned()), "{all:?}");
    let history = archive.keys(SimilarQuery { patients: Patients::Same, ..stored("effusion-1") });
    assert_eq!(history, ["effusion-1-later", "effusion-1-before"]);

    let named = Case { patient: Some("p1".into()), report: Some("Effusion.".into()), ..Case::default() };
    let found = archive.keys(SimilarQuery { k: 8, ..query(named) });
    assert!(found.len() == 5 && !found.iter().any(|key| key.starts_with("effusion-1")), "{found:?}");
    let nobody = archive.similar(SimilarQuery { patients: Patients::Same, ..saying("Effusion.") });
    assert!(matches!(nobody, Err(CaseError::NoPatient)));
}

#[test]
fn filters_hold_beside_everything_else() {
    let archive = Archive::new();
    let filter = Some("finding.pneumothorax = \"present\"".parse().unwrap());
    assert_eq!(archive.keys(SimilarQuery { filter, ..stored("clear-1") }), ["collapse"]);
}

#[test]
fn what_is_known_goes_before_what_the_report_says() {
    let archive = Archive::new();
    let case = Case {
        report: Some("Pleural effusion.".into()),
        findings: [(Observation::Effusion, Status::Absent)].into(),
        ..Case::default()
    };
    let found = archive.keys(query(case));
    assert!(
        !found[..4].iter().any(|key| key.starts_with("effusion-") && !key.ends_with("before")),
        "{found:?}"
    );
}

#[test]
fn a_draft_is_made_of_sentences_of_similar_reports_and_names_them() {
    let archive = Archive::new();
    let options = DraftOptions { sentences: 10, min_support: 0.0 };
    let image = Case { images: vec![b"white base".to_vec()], ..Case::default() };
    let drafted = archive.draft(SimilarQuery { k: 8, ..query(image) }, options);
    let all: Vec<&DraftSentence> = drafted.findings.iter().chain(&drafted.impression).collect();
    assert!(all.iter().any(|sentence| sentence.text == "Large left pleural effusion."), "{all:#?}");
    for sentence in &all {
        let of = STUDIES.iter().find(|study| study.0 == sentence.key.as_str()).unwrap();
        assert!(of.4.contains(&sentence.text), "'{}' stands in no report", sentence.text);
        assert!(sentence.supporting.contains(&sentence.key) && sentence.support <= 1.0 + 1e-9);
        assert!(!sentence.text.contains("unchanged"), "of what this was compared with nothing is known");
    }
    let effusions = all.iter().filter(|s| s.findings.get(&Observation::Effusion) == Some(&Status::Present));
    let denied = all.iter().filter(|s| s.findings.get(&Observation::Effusion) == Some(&Status::Absent));
    assert!(effusions.count() > 0 && denied.count() == 0, "a draft does not contradict itself: {all:#?}");
    assert!(drafted.contradictions > 0);
}

#[test]
fn a_draft_does_not_contradict_what_is_written() {
    let archive = Archive::new();
    let options = DraftOptions { sentences: 10, min_support: 0.0 };
    let case = Case {
        images: vec![b"white base".to_vec()],
        report: Some("No pleural effusion.".into()),
        ..Case::default()
    };
    let drafted = archive.draft(query(case), options);
    for sentence in drafted.findings.iter().chain(&drafted.impression) {
        assert_ne!(
            sentence.findings.get(&Observation::Effusion),
            Some(&Status::Present),
            "{}",
            sentence.text
        );
    }
    let strict = DraftOptions { sentences: 10, min_support: 1.0 };
    let agreed = archive.draft(stored("collapse"), strict);
    assert!(agreed.findings.iter().chain(&agreed.impression).all(|s| s.support > 0.999));
}

#[test]
fn what_is_no_question_is_refused() {
    let archive = Archive::new();
    assert!(matches!(archive.similar(query(Case::default())), Err(CaseError::Empty)));
    assert!(matches!(archive.similar(saying(" \n")), Err(CaseError::Empty)));
    for k in [0, 1001] {
        let refused = archive.similar(SimilarQuery { k, ..saying("Effusion.") });
        assert!(matches!(refused, Err(CaseError::Range { what: "k", .. })));
    }
    for findings_weight in [-1.0, f64::NAN, f64::INFINITY] {
        let refused = archive.similar(SimilarQuery { findings_weight, ..saying("Effusion.") });
        assert!(matches!(refused, Err(CaseError::Range { what: "findings_weight", .. })));
    }
    assert!(matches!(archive.similar(stored("nobody")), Err(CaseError::Engine(_))));
    let bad = DraftOptions { sentences: 0, min_support: 0.5 };
    let refused = draft(&archive.engine, &CollectionName::default(), stored("collapse"), &bad);
    assert!(matches!(refused, Err(CaseError::Range { what: "sentences", .. })));
    let long = "One more sentence. ".repeat(300);
    assert!(matches!(archive.similar(saying(&long)), Err(CaseError::Query(_))), "too many sentences");
}
