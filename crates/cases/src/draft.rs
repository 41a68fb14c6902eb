//! Sentences for a report, taken from the reports of similar cases.
//!
//! Owns: which sentences say the same, how many cases stand behind each, and which are left out because they
//! contradict what is written already, what more cases say, or because they speak of another examination. No word
//! is generated or changed.

use std::collections::{BTreeSet, HashMap};

use diptych_core::{CollectionName, Key};
use diptych_engine::Engine;
use diptych_radiology::findings::{self, Findings, Observation, Status};
use diptych_radiology::report::{Report, SectionKind};

use crate::question::report_of;
use crate::similar::check;
use crate::{CaseError, SimilarCase, SimilarQuery, find_similar};

/// Most sentences of a draft.
pub const SENTENCES_MAX: usize = 100;
/// Standard deviations by which a case has to be worse to count a third as much.
const FALL: f64 = 2.0;
/// Cases that have to agree on a sentence, where so many reports were read.
const AGREEING_MIN: usize = 2;
/// Words by which a sentence speaks of another examination than the one it would be put into.
const COMPARING: [&str; 18] = [
    "ago",
    "again",
    "change",
    "changed",
    "comparison",
    "compared",
    "decreased",
    "earlier",
    "improved",
    "increased",
    "interval",
    "new",
    "previous",
    "previously",
    "prior",
    "stable",
    "unchanged",
    "worsened",
];
/// Words that change what a sentence says and are no finding: sides, places and degrees.
const TELLING: [&str; 23] = [
    "apical",
    "apex",
    "bilateral",
    "both",
    "large",
    "left",
    "lingula",
    "lobe",
    "lower",
    "marked",
    "middle",
    "mild",
    "minimal",
    "moderate",
    "right",
    "severe",
    "slight",
    "small",
    "trace",
    "upper",
    "base",
    "basal",
    "bibasilar",
];

/// How a draft is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DraftOptions {
    /// Sentences at the most, 1 to [`SENTENCES_MAX`].
    pub sentences: usize,
    /// Share of the similar cases, by weight, that has to agree on a sentence, 0 to 1.
    pub min_support: f64,
}

impl Default for DraftOptions {
    fn default() -> Self {
        Self { sentences: 10, min_support: 0.2 }
    }
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

/// Sentences for a report; retrieved text, not a diagnosis.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// For the section of findings, the best supported first.
    pub findings: Vec<DraftSentence>,
    /// For the impression, likewise.
    pub impression: Vec<DraftSentence>,
    /// The cases whose reports were read, the most similar first.
    pub keys: Vec<Key>,
    /// Sentences that contradict what is written already, or what more cases say.
    pub contradictions: usize,
    /// What the case asked with says.
    pub query_findings: Findings,
}

/// What sentences that say the same have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Meaning {
    /// Findings, and words of side, place and degree.
    Said(BTreeSet<(Observation, u8)>, BTreeSet<String>),
    /// All words of a sentence without a finding.
    Words(Vec<String>),
}

/// A sentence of one of the cases.
struct Said {
    impression: bool,
    text: String,
    findings: Findings,
    meaning: Meaning,
    case: usize,
}

/// Sentences that say the same.
struct Group {
    /// The first, of the most similar case.
    said: Said,
    support: f64,
    cases: Vec<usize>,
}

/// Drafts a report for a case: the sentences on which the reports of similar cases agree.
///
/// # Errors
/// [`CaseError`].
pub fn draft(
    engine: &Engine,
    collection: &CollectionName,
    query: SimilarQuery,
    options: &DraftOptions,
) -> Result<Draft, CaseError> {
    check("sentences", options.sentences as f64, 1.0, SENTENCES_MAX as f64)?;
    check("min_support", options.min_support, 0.0, 1.0)?;
    let similar = find_similar(engine, collection, query)?;
    Ok(of_cases(&similar.cases, &similar.findings, options))
}

/// The draft that similar cases give.
fn of_cases(cases: &[SimilarCase], known: &Findings, options: &DraftOptions) -> Draft {
    let reports: Vec<Option<Report>> = cases.iter().map(|case| report_of(&case.hit.record)).collect();
    let best = cases.iter().map(|case| case.score).fold(f64::NEG_INFINITY, f64::max);
    let mut weights: Vec<f64> = cases.iter().map(|case| ((case.score - best) / FALL).exp()).collect();
    weights
        .iter_mut()
        .zip(&reports)
        .filter(|(_, report)| report.is_none())
        .for_each(|(weight, _)| *weight = 0.0);
    let total: f64 = weights.iter().sum();
    let mut contradictions = 0;
    let mut groups: HashMap<(bool, Meaning), Group> = HashMap::new();
    for (case, report) in reports.iter().enumerate() {
        for said in report.iter().flat_map(|report| sentences_of(report, case)) {
            if contradicts(&said.findings, known) {
                contradictions += 1;
                continue;
            }
            let group = groups.entry((said.impression, said.meaning.clone())).or_insert_with(|| Group {
                said,
                support: 0.0,
                cases: Vec::new(),
            });
            // A case that says it twice counts once.
            if group.cases.last() != Some(&case) {
                group.cases.push(case);
                group.support += weights[case] / total;
            }
        }
    }
    let least = AGREEING_MIN.min(reports.iter().flatten().count());
    let agreed = |group: &Group| group.support >= options.min_support && group.cases.len() >= least;
    let mut groups: Vec<Group> = groups.into_values().filter(agreed).collect();
    groups.sort_by(|a, b| {
        b.support
            .total_cmp(&a.support)
            .then_with(|| a.said.case.cmp(&b.said.case))
            .then_with(|| a.said.text.cmp(&b.said.text))
    });
    let mut draft = Draft {
        findings: Vec::new(),
        impression: Vec::new(),
        keys: cases.iter().map(|case| case.hit.record.key().clone()).collect(),
        contradictions,
        query_findings: known.clone(),
    };
    choose(groups, &mut draft, options.sentences);
    draft
}

/// Takes what is best supported, unless it contradicts or repeats what has been taken.
fn choose(groups: Vec<Group>, draft: &mut Draft, most: usize) {
    let mut taken = Findings::new();
    let mut told: [Findings; 2] = Default::default();
    for Group { said, support, cases } in groups {
        if draft.findings.len() + draft.impression.len() == most {
            break;
        }
        if contradicts(&said.findings, &taken) {
            draft.contradictions += 1;
            continue;
        }
        let told = &mut told[usize::from(said.impression)];
        if !said.findings.is_empty() && said.findings.keys().all(|observation| told.contains_key(observation))
        {
            continue;
        }
        told.extend(&said.findings);
        taken.extend(&said.findings);
        let sentence = DraftSentence {
            text: said.text,
            key: draft.keys[said.case].clone(),
            support,
            supporting: cases.into_iter().map(|case| draft.keys[case].clone()).collect(),
            findings: said.findings,
        };
        if said.impression { &mut draft.impression } else { &mut draft.findings }.push(sentence);
    }
}

/// The sentences of a report that could stand in another one.
fn sentences_of(report: &Report, case: usize) -> Vec<Said> {
    let mut said = Vec::new();
    for (section, text) in report.sentences() {
        let words = words(text);
        let speaks_of_another = words.iter().any(|word| COMPARING.contains(&word.as_str()));
        // What was blacked out in one report is not to be put into another.
        if words.is_empty() || speaks_of_another || text.contains("___") || text.contains("XXXX") {
            continue;
        }
        let findings: Findings = findings::of_sentence(text).into_iter().collect();
        let meaning = meaning(&findings, words);
        let impression = section == SectionKind::Impression;
        said.push(Said { impression, text: text.to_owned(), findings, meaning, case });
    }
    said
}

fn meaning(findings: &Findings, words: Vec<String>) -> Meaning {
    if findings.is_empty() {
        return Meaning::Words(words);
    }
    let said = findings.iter().map(|(observation, status)| (*observation, *status as u8)).collect();
    // Of what is not there, it does not matter where.
    let present = findings.values().any(|status| *status != Status::Absent);
    let telling = words.into_iter().filter(|word| present && TELLING.contains(&word.as_str())).collect();
    Meaning::Said(said, telling)
}

/// The words of a sentence, in lower case.
fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

/// Whether one says that something is there and the other that it is not.
fn contradicts(a: &Findings, b: &Findings) -> bool {
    let opposite = |observation: &Observation, status: &Status| {
        matches!(
            (status, b.get(observation)),
            (Status::Present, Some(Status::Absent)) | (Status::Absent, Some(Status::Present))
        )
    };
    a.iter().any(|(observation, status)| opposite(observation, status))
}
