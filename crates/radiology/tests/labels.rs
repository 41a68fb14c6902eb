//! How well findings are read: hand-labelled sentences, and the terms of real reports.
//!
//! `cargo test --release -p diptych-radiology --test labels -- --nocapture` prints precision and recall.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::path::Path;

use diptych_radiology::findings::{Findings, Observation, Status, of_report, of_text};
use diptych_radiology::report::Report;
use serde_json::Value;

/// Right, wrong and missed answers.
#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    right: usize,
    wrong: usize,
    missed: usize,
}

impl Counts {
    fn precision(self) -> f64 {
        self.right as f64 / (self.right + self.wrong).max(1) as f64
    }

    fn recall(self) -> f64 {
        self.right as f64 / (self.right + self.missed).max(1) as f64
    }

    fn f1(self) -> f64 {
        2.0 * self.right as f64 / (2 * self.right + self.wrong + self.missed).max(1) as f64
    }

    fn add(&mut self, other: Self) {
        self.right += other.right;
        self.wrong += other.wrong;
        self.missed += other.missed;
    }

    fn row(self, name: &str) {
        let Self { right, wrong, missed } = self;
        println!(
            "{name:<28} {:>6} {:>9.3} {:>7.3} {:>6.3}   right {right}, wrong {wrong}, missed {missed}",
            right + missed,
            self.precision(),
            self.recall(),
            self.f1()
        );
    }
}

fn compare(expected: &Findings, found: &Findings, status: Status, observation: Observation) -> Counts {
    let (expected, found) =
        (expected.get(&observation) == Some(&status), found.get(&observation) == Some(&status));
    Counts {
        right: usize::from(expected && found),
        wrong: usize::from(found && !expected),
        missed: usize::from(expected && !found),
    }
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

#[test]
fn hand_labelled_sentences_are_read_right() {
    let labelled = labelled();
    assert!(labelled.len() >= 320, "{} sentences", labelled.len());
    for held_out in [false, true] {
        let part: Vec<_> = labelled.iter().filter(|(.., held)| *held == held_out).collect();
        println!("\n{}: {} sentences", if held_out { "held out" } else { "development" }, part.len());
        println!("{:<28} {:>6} {:>9} {:>7} {:>6}", "", "labels", "precision", "recall", "F1");
        let mut by_status = BTreeMap::<Status, Counts>::new();
        let mut whole = Counts::default();
        for observation in Observation::ALL {
            let mut counts = Counts::default();
            for (text, expected, _) in &part {
                let found = of_text(text);
                for status in Status::ALL {
                    let one = compare(expected, &found, status, observation);
                    counts.add(one);
                    by_status.entry(status).or_default().add(one);
                }
            }
            counts.row(observation.as_str());
            whole.add(counts);
        }
        by_status.iter().for_each(|(status, counts)| counts.row(status.as_str()));
        whole.row("all");
        if std::env::var_os("SHOW_ERRORS").is_some() && !held_out {
            for (text, expected, _) in &part {
                let found = of_text(text);
                if found != *expected {
                    let differ = |a: &Findings, b: &Findings| {
                        let only = a.iter().filter(|(o, s)| b.get(o) != Some(s));
                        only.map(|(o, s)| format!("{o} {}", s.as_str())).collect::<Vec<_>>().join(", ")
                    };
                    println!(
                        "{text}\n    expected: {}\n    found:    {}",
                        differ(expected, &found),
                        differ(&found, expected)
                    );
                }
            }
        }
        let exact = part.iter().filter(|(text, expected, _)| of_text(text) == *expected).count();
        println!("{exact} of {} sentences exactly right", part.len());
        let floor = if held_out { 0.9 } else { 0.97 };
        if std::env::var_os("SHOW_ERRORS").is_none() {
            assert!(whole.precision() >= floor && whole.recall() >= floor, "{whole:?}");
        }
    }
}

/// Terms of the Open-i indexers that name an observation. Read by us off the terms; they are heads of MeSH paths.
fn terms(observation: Observation) -> &'static [&'static str] {
    match observation {
        Observation::NoFinding => &["normal"],
        Observation::Cardiomegaly => &["Cardiomegaly", "Cardiac Shadow/enlarged", "Heart/enlarged"],
        Observation::EnlargedCardiomediastinum => {
            &["Mediastinum/enlarged", "Mediastinum/prominent", "Mediastinum/wide"]
        }
        Observation::Atelectasis => &["Pulmonary Atelectasis"],
        Observation::Effusion => &["Pleural Effusion", "Hydropneumothorax", "Hemothorax", "Hemopneumothorax"],
        Observation::Pneumothorax => &["Pneumothorax", "Hydropneumothorax", "Hemopneumothorax"],
        Observation::Opacity => &[
            "Opacity",
            "Infiltrate",
            "Airspace Disease",
            "Markings/lung/interstitial",
            "Markings/interstitial",
        ],
        Observation::Consolidation => &["Consolidation", "Airspace Disease", "Infiltrate"],
        Observation::Pneumonia => &["Pneumonia"],
        Observation::Edema => &["Pulmonary Edema", "Pulmonary Congestion", "Heart Failure"],
        Observation::Nodule => &["Nodule"],
        Observation::Lesion => &["Nodule", "Mass"],
        Observation::Fracture => &["Fractures, Bone"],
        Observation::PleuralOther => &["Thickening/pleura"],
        Observation::Device => {
            &["Catheters, Indwelling", "Implanted Medical Device", "Tube, Inserted", "Medical Device"]
        }
        _ => &[],
    }
}

#[test]
fn real_reports_agree_with_their_indexers() {
    let file =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/iu-xray-reports/reports.jsonl");
    let Ok(lines) = std::fs::read_to_string(&file) else {
        eprintln!("SKIPPED: {} is absent, so nothing is tested on real reports", file.display());
        return;
    };
    let shown: Option<Observation> = std::env::var("SHOW").ok().map(|name| name.parse().unwrap());
    let mut counts = BTreeMap::<Observation, (Counts, Counts)>::new();
    let mut reports = 0;
    for line in lines.lines() {
        let value: Value = serde_json::from_str(line).unwrap();
        let of = |name: &str| value[name].as_str().unwrap();
        if of("problems").contains("No Indexing")
            || (of("findings").is_empty() && of("impression").is_empty())
        {
            continue;
        }
        reports += 1;
        let text = format!(
            "INDICATION: {}\n\nCOMPARISON: {}\n\nFINDINGS: {}\n\nIMPRESSION: {}",
            of("indication"),
            of("comparison"),
            of("findings"),
            of("impression")
        );
        let found = of_report(&Report::parse(&text));
        for observation in Observation::ALL {
            let terms = terms(observation);
            let indexed = of("mesh").split(';').any(|path| {
                terms.iter().any(|term| {
                    path.strip_prefix(term).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                })
            });
            let status = found.get(&observation);
            let (present, stated) = counts.entry(observation).or_default();
            let present_found = status == Some(&Status::Present);
            for (counts, found) in [
                (present, present_found),
                (stated, matches!(status, Some(Status::Present | Status::Uncertain))),
            ] {
                counts.right += usize::from(indexed && found);
                counts.wrong += usize::from(!indexed && found);
                counts.missed += usize::from(indexed && !found);
            }
            if shown == Some(observation) && indexed != present_found {
                println!(
                    "{} | indexed: {indexed}, found: {status:?}\n  {}\n  {}\n  {}\n",
                    of("uid"),
                    of("mesh"),
                    of("findings"),
                    of("impression")
                );
            }
        }
    }
    println!("\n{reports} reports; said to be present");
    for stated in [false, true] {
        if stated {
            println!("\nsaid to be present or uncertain");
        }
        println!("{:<28} {:>6} {:>9} {:>7} {:>6}", "", "terms", "precision", "recall", "F1");
        for (observation, (present, both)) in counts.iter().filter(|(o, _)| !terms(**o).is_empty()) {
            (if stated { both } else { present }).row(observation.as_str());
        }
    }
}
