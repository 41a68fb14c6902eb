//! How well findings are read: hand-labelled sentences, and the terms of real reports.
//!
//! `cargo test --release -p diptych-radiology --test labels -- --nocapture` prints precision and recall.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::path::Path;

use diptych_eval::Agreement;
use diptych_radiology::findings::{Findings, Observation, Status, of_report, of_text};
use diptych_radiology::report::Report;
use serde_json::Value;

fn row(name: &str, counts: Agreement) {
    let Agreement { right, wrong, missed } = counts;
    let share = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.3}"));
    let [precision, recall, f1] = [counts.precision(), counts.recall(), counts.f1()].map(share);
    let labels = right + missed;
    println!(
        "{name:<28} {labels:>6} {precision:>9} {recall:>7} {f1:>6}   right {right}, wrong {wrong}, missed {missed}"
    );
}

fn labelled() -> Vec<(String, Findings, bool)> {
    let lines = include_str!("findings/sentences.jsonl").lines();
    let read = |line: &str| {
        let value: Value = serde_json::from_str(line).unwrap();
        let mut findings = Findings::new();
        for status in Status::ALL {
            for name in value[status.as_str()].as_array().into_iter().flatten() {
                findings.insert(name.as_str().unwrap().parse().unwrap(), status);
            }
        }
        (value["text"].as_str().unwrap().to_owned(), findings, value["held_out"].as_bool().unwrap_or(false))
    };
    lines.map(read).collect()
}

fn heading(title: &str) {
    println!("\n{title}\n{:<28} {:>6} {:>9} {:>7} {:>6}", "", "labels", "precision", "recall", "F1");
}

#[test]
fn hand_labelled_sentences_are_read_right() {
    let labelled = labelled();
    assert!(labelled.len() >= 320, "{} sentences", labelled.len());
    for (held_out, floor) in [(false, 0.98), (true, 0.95)] {
        let part: Vec<_> = labelled.iter().filter(|(.., held)| *held == held_out).collect();
        let name = if held_out { "held out" } else { "development" };
        heading(&format!("{name}: {} sentences", part.len()));
        let mut statuses = BTreeMap::<Status, Agreement>::new();
        let mut whole = Agreement::default();
        for observation in Observation::ALL {
            let mut counts = Agreement::default();
            for (text, expected, _) in &part {
                let found = of_text(text);
                for status in Status::ALL {
                    let [is_true, is_found] =
                        [expected, &found].map(|f| f.get(&observation) == Some(&status));
                    counts.count(is_true, is_found);
                    statuses.entry(status).or_default().count(is_true, is_found);
                }
            }
            row(observation.as_str(), counts);
            whole += counts;
        }
        statuses.iter().for_each(|(status, counts)| row(status.as_str(), *counts));
        row("all", whole);
        assert!(whole.precision() >= Some(floor) && whole.recall() >= Some(floor), "{name}: {whole:?}");
        for (status, counts) in statuses {
            assert!(counts.f1() >= Some(floor - 0.05), "{name}, {}: {counts:?}", status.as_str());
        }
    }
}

/// Terms of the Open-i indexers that name an observation, and the least F1 to agree with them. Read by us off
/// the terms; they are heads of MeSH paths.
fn terms(observation: Observation) -> Option<(f64, &'static [&'static str])> {
    Some(match observation {
        // The indexers' "normal" knows no old granuloma, no scoliosis and no tortuous aorta; ours does.
        Observation::NoFinding => (0.6, &["normal"]),
        Observation::Cardiomegaly => (0.87, &["Cardiomegaly", "Cardiac Shadow/enlarged", "Heart/enlarged"]),
        Observation::EnlargedCardiomediastinum => {
            (0.6, &["Mediastinum/enlarged", "Mediastinum/prominent", "Mediastinum/wide"])
        }
        Observation::Atelectasis => (0.77, &["Pulmonary Atelectasis"]),
        Observation::Effusion => {
            (0.87, &["Pleural Effusion", "Hydropneumothorax", "Hemothorax", "Hemopneumothorax"])
        }
        Observation::Pneumothorax => (0.85, &["Pneumothorax", "Hydropneumothorax", "Hemopneumothorax"]),
        Observation::Opacity => (
            0.87,
            &[
                "Opacity",
                "Infiltrate",
                "Airspace Disease",
                "Markings/lung/interstitial",
                "Markings/interstitial",
            ],
        ),
        Observation::Consolidation => (0.73, &["Consolidation", "Airspace Disease", "Infiltrate"]),
        Observation::Pneumonia => (0.65, &["Pneumonia"]),
        Observation::Edema => (0.7, &["Pulmonary Edema", "Pulmonary Congestion", "Heart Failure"]),
        Observation::Nodule => (0.74, &["Nodule"]),
        Observation::Lesion => (0.74, &["Nodule", "Mass"]),
        Observation::Fracture => (0.87, &["Fractures, Bone"]),
        Observation::PleuralOther => (0.6, &["Thickening/pleura"]),
        Observation::Device => {
            (0.84, &["Catheters, Indwelling", "Implanted Medical Device", "Tube, Inserted", "Medical Device"])
        }
        _ => return None,
    })
}

/// Whether one of the terms is among the paths of a report, separated by semicolons.
fn is_indexed(paths: &str, terms: &[&str]) -> bool {
    let heads = |path: &str| {
        let head = |term: &&str| {
            path.strip_prefix(term).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        terms.iter().any(head)
    };
    paths.split(';').any(heads)
}

#[test]
fn real_reports_agree_with_their_indexers() {
    let file =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/iu-xray-reports/reports.jsonl");
    let Ok(lines) = std::fs::read_to_string(&file) else {
        eprintln!("SKIPPED: {} is absent, so nothing is tested on real reports", file.display());
        return;
    };
    let mut counts = BTreeMap::<Observation, [Agreement; 2]>::new();
    let mut reports = 0;
    for line in lines.lines() {
        let value: Value = serde_json::from_str(line).unwrap();
        let of = |name: &str| value[name].as_str().unwrap();
        let [indication, comparison, findings, impression] =
            ["indication", "comparison", "findings", "impression"].map(of);
        if of("problems").contains("No Indexing") || findings.is_empty() && impression.is_empty() {
            continue;
        }
        reports += 1;
        let text = format!(
            "INDICATION: {indication}\n\nCOMPARISON: {comparison}\n\nFINDINGS: {findings}\n\nIMPRESSION: {impression}"
        );
        let found = of_report(&Report::parse(&text));
        for observation in Observation::ALL {
            let Some((_, terms)) = terms(observation) else { continue };
            let indexed = is_indexed(of("mesh"), terms);
            let [present, stated] = counts.entry(observation).or_default();
            let status = found.get(&observation);
            present.count(indexed, status == Some(&Status::Present));
            stated.count(indexed, matches!(status, Some(Status::Present | Status::Uncertain)));
        }
    }
    assert!(reports > 2_000, "{reports} reports");
    for (n, title) in ["said to be present", "said to be present or uncertain"].iter().enumerate() {
        heading(&format!("{reports} real reports, {title}"));
        counts.iter().for_each(|(observation, counts)| row(observation.as_str(), counts[n]));
    }
    for (observation, [present, _]) in counts {
        let floor = terms(observation).map(|(floor, _)| floor);
        assert!(present.f1() >= floor, "{observation}: {present:?}");
    }
}
