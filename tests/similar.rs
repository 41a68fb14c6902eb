//! A radiologist asks for similar cases: what is found, what sinks, and what is drafted from it.

use std::collections::BTreeMap;

use diptych_client::{Client, ClientOptions, Code, FindingStatus, Modality, NewRecord, Search, SimilarTo};
use diptych_core::Key;
use serde_json::Value;
use tokio_stream::StreamExt;

use crate::support::{Server, corpus, fail, succeed, succeed_with_notes};

/// Phantoms with known findings.
const CASES: u32 = 1000;
/// A finding's label, how it is asked for, and words of which each report that speaks of it has one.
const FINDINGS: [(&str, &str, &[&str]); 6] = [
    ("effusion", "pleural effusion", &["effusion", "costophrenic", "pleural fluid"]),
    ("pneumothorax", "pneumothorax", &["pneumothorax"]),
    ("cardiomegaly", "cardiomegaly", &["cardiomegaly", "heart"]),
    ("consolidation", "consolidation", &["consolidation", "airspace", "opacity", "infiltrate"]),
    ("nodule", "nodule", &["nodule"]),
    ("fracture", "rib fracture", &["fracture"]),
];

struct Phantom {
    labels: Vec<String>,
    text: String,
}

impl Phantom {
    /// Whether it says the contrary of "X" or of "no X".
    fn says_the_contrary(&self, (label, _, words): (&str, &str, &[&str]), asked_for: bool) -> bool {
        let there = self.labels.iter().any(|of| of.starts_with(label));
        let spoken_of = words.iter().any(|word| self.text.contains(word));
        if asked_for { !there && spoken_of } else { there }
    }
}

fn phantoms(dir: &std::path::Path) -> BTreeMap<String, Phantom> {
    let lines = std::fs::read_to_string(dir.join("phantoms/cases.jsonl")).unwrap();
    let phantom = |line: &str| {
        let case: Value = serde_json::from_str(line).unwrap();
        let labels = case["attributes"]["labels"].as_array().unwrap();
        let labels = labels.iter().map(|label| label.as_str().unwrap().to_owned()).collect();
        let text = case["text"].as_str().unwrap().to_lowercase();
        (case["key"].as_str().unwrap().to_owned(), Phantom { labels, text })
    };
    lines.lines().map(phantom).collect()
}

#[tokio::test]
async fn reports_that_say_the_contrary_sink() {
    let dir = corpus(CASES);
    let server = Server::start(dir.path());
    succeed(dir.path(), &["ingest", "phantoms", "--server", &server.url]);
    let client = Client::connect(ClientOptions::new(&server.url)).await.unwrap();
    let phantoms = phantoms(dir.path());
    let (mut plain, mut sunk) = (0, 0);
    for finding in FINDINGS {
        for asked_for in [true, false] {
            let asked = if asked_for { format!("{}.", finding.1) } else { format!("No {}.", finding.1) };
            let contrary = |key: &Key| phantoms[key.as_str()].says_the_contrary(finding, asked_for);
            let by_cosine = Search::new().text(&asked).target(Modality::Text).k(10);
            let found = client.search(&by_cosine).await.unwrap();
            plain += found.hits.iter().filter(|hit| contrary(&hit.key)).count();
            let found = client.similar(&SimilarTo::report(&asked).k(10)).await.unwrap();
            assert_eq!(found.cases.len(), 10);
            sunk += found.cases.iter().filter(|case| contrary(&case.key)).count();
        }
    }
    eprintln!("of 120 hits, {plain} say the contrary by plain cosine, {sunk} as similar cases");
    assert!(plain >= 10, "the question is too easy: {plain}");
    assert!(sunk * 10 <= plain, "{sunk} of {plain} are left");
}

/// A study: key, patient, date, report, whether there is an effusion.
const STUDIES: [(&str, &str, &str, &str, &str); 5] = [
    (
        "s1",
        "p1",
        "2024-03-01T00:00:00Z",
        "FINDINGS: Large left pleural effusion.\nIMPRESSION: Left effusion.",
        "present",
    ),
    (
        "s2",
        "p2",
        "2024-03-02T00:00:00Z",
        "FINDINGS: Large left pleural effusion. Heart size is normal.\nIMPRESSION: Large effusion.",
        "present",
    ),
    (
        "s3",
        "p3",
        "2024-03-03T00:00:00Z",
        "FINDINGS: No pleural effusion.\nIMPRESSION: Clear chest.",
        "absent",
    ),
    (
        "s4",
        "p1",
        "2024-01-04T00:00:00Z",
        "FINDINGS: Small left pleural effusion.\nIMPRESSION: Small effusion.",
        "present",
    ),
    (
        "s5",
        "p1",
        "2023-01-05T00:00:00Z",
        "FINDINGS: No pleural effusion.\nIMPRESSION: Clear chest.",
        "absent",
    ),
];

async fn with_studies(server: &Server) -> Client {
    let client = Client::connect(ClientOptions::new(&server.url)).await.unwrap();
    let records: Vec<NewRecord> = STUDIES
        .iter()
        .map(|(key, patient, date, report, effusion)| {
            let record = NewRecord::new(Key::new(*key).unwrap()).text(*report).sentences();
            let date: diptych_client::Time = date.parse().unwrap();
            record
                .attribute("patient_id", *patient)
                .attribute("study_date", date)
                .attribute("finding.effusion", *effusion)
        })
        .collect();
    let mut results = client.ingest(tokio_stream::iter(records));
    while let Some(result) = results.next().await {
        result.unwrap().stored.unwrap();
    }
    client
}

#[tokio::test]
async fn a_case_is_shown_with_what_speaks_for_and_against_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let client = with_studies(&server).await;
    let found = client.similar(&SimilarTo::key(&Key::new("s1").unwrap())).await.unwrap();
    let keys: Vec<&str> = found.cases.iter().map(|case| case.key.as_str()).collect();
    assert_eq!(keys, ["s2", "s3"], "the same patient's are left out");
    let best = &found.cases[0];
    assert_eq!(best.impression, "Large effusion.");
    assert_eq!(best.common, ["effusion"]);
    let sentence = best.sentence.as_ref().unwrap();
    let Some(diptych_client::PartContent::Text(text)) = &sentence.part.content else { panic!("a sentence") };
    assert!(
        text.text.contains("Large left pleural effusion.") && !text.text.contains("Heart"),
        "{}",
        text.text
    );
    assert!(text.span.is_some() && sentence.cosine > 0.99);
    let contrary = &found.cases[1];
    assert_eq!(contrary.conflicts["effusion"], (FindingStatus::Present, FindingStatus::Absent));

    let refused = client.similar(&SimilarTo::new()).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let refused = client.similar(&SimilarTo::report("x").finding("headache", FindingStatus::Present)).await;
    let said = refused.unwrap_err().to_string();
    assert!(said.contains("headache") && said.contains("effusion"), "{said}");
}

#[tokio::test]
async fn the_command_line_shows_cases_priors_and_drafts() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    with_studies(&server).await;
    let there = ["--server", &server.url];
    let said = |args: &[&str]| succeed_with_notes(dir.path(), &[args, &there].concat());
    let (shown, notes) = said(&["similar", "--text", "Large left effusion."]);
    assert!(shown.contains("the case says: effusion"), "{shown}");
    assert!(shown.contains("in common") && shown.contains("impression"), "{shown}");
    assert!(notes.contains("not a diagnosis"), "{notes}");
    let (shown, _) = said(&["similar", "--key", "s1", "--priors"]);
    let place = |key: &str| shown.find(key).unwrap_or_else(|| panic!("{key} is missing: {shown}"));
    assert!(place("s4") < place("s5"), "the latest first: {shown}");
    let (shown, _) =
        said(&["similar", "--text", "effusion", "--with", "no:effusion", "--since", "2024-01-01", "--json"]);
    let found: Value = serde_json::from_str(&shown).unwrap();
    let keys: Vec<&str> =
        found["cases"].as_array().unwrap().iter().map(|c| c["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["s3"]);

    let (shown, _) = said(&["draft", "--text", "Left pleural effusion.", "--min-support", "0"]);
    assert!(shown.contains("not a diagnosis") && shown.contains("FINDINGS:"), "{shown}");
    assert!(shown.contains("Clear chest.") || shown.contains("effusion"), "{shown}");
    std::fs::write(dir.path().join("report.txt"), " \n").unwrap();
    let refused = fail(dir.path(), &[&["similar", "--report", "report.txt"][..], &there].concat());
    assert!(refused.contains("is empty"), "{refused}");
    let refused = fail(dir.path(), &[&["similar", "--image", "report.txt"][..], &there].concat());
    assert!(refused.contains("image"), "{refused}");
    let refused = fail(dir.path(), &[&["similar", "--text", "x", "--priors"][..], &there].concat());
    assert!(refused.contains("patient"), "{refused}");
}
