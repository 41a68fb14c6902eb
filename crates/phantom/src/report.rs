//! Reports: which sentences are said about a case, and in which order.
//!
//! Every positive finding is named in both sections and never denied; denials are only about kinds
//! that are absent; at most [`WORDS_MAX`] words, so that a report fits the context of a text tower.
//! Deliberately absent: the phrases themselves (`wording`).

use crate::anatomy::{Anatomy, Trait};
use crate::draw::Draw;
use crate::finding::{Finding, Kind, Side, Sign, Zone};
use crate::wording;

/// Optional sentences are left out when they would make a report longer than this.
const WORDS_MAX: usize = 45;

/// A report and its conclusion.
pub(crate) struct Text {
    pub(crate) report: String,
    pub(crate) impression: String,
}

/// Words the report of a case.
pub(crate) fn write(draw: &mut Draw, anatomy: &Anatomy, signs: &[Sign]) -> Text {
    let findings: Vec<Finding> = signs.iter().map(|s| s.finding).collect();
    let positive: Vec<String> = findings.iter().map(|f| sentence(draw, wording::finding(f), f)).collect();
    let impression = if findings.is_empty() {
        capitalised(draw.pick(wording::NORMAL_SHORT))
    } else {
        let short: Vec<String> = findings.iter().map(|f| sentence(draw, wording::impression(f), f)).collect();
        short.join(" ")
    };
    let mut budget =
        WORDS_MAX.saturating_sub(2 + words(&impression) + positive.iter().map(|s| words(s)).sum::<usize>());
    let mut affordable = |s: &String| {
        let fits = words(s) <= budget;
        if fits {
            budget -= words(s);
        }
        fits
    };
    let mut opening = vec![capitalised(draw.pick(wording::view(anatomy.view())))];
    opening.extend(describe_traits(draw, anatomy, &findings));
    opening.retain(&mut affordable);
    let mut closing = reassure(draw, &findings);
    closing.retain(&mut affordable);
    // Reporters differ in whether they name what is there or what is not there first.
    let body = if draw.chance(0.75) { [positive, closing] } else { [closing, positive] };
    let said: Vec<String> = opening.into_iter().chain(body.into_iter().flatten()).collect();
    Text { report: format!("FINDINGS: {} IMPRESSION: {impression}", said.join(" ")), impression }
}

fn describe_traits(draw: &mut Draw, anatomy: &Anatomy, findings: &[Finding]) -> Vec<String> {
    let effusion = findings.iter().any(|f| f.kind() == Kind::Effusion);
    let mut said = Vec::new();
    for what in anatomy.traits() {
        let (phrases, side) = match what {
            Trait::LowVolumes => (wording::LOW_VOLUMES, None),
            Trait::Hyperinflated => (wording::HYPERINFLATED, None),
            Trait::Scoliosis(side) => (wording::SCOLIOSIS, Some(side)),
            Trait::Rotated(side) => (wording::ROTATED, Some(side)),
            Trait::Underexposed => (wording::UNDEREXPOSED, None),
            Trait::Overexposed => (wording::OVEREXPOSED, None),
            // Fluid hides the diaphragm.
            Trait::ElevatedDiaphragm(_) if effusion => continue,
            Trait::ElevatedDiaphragm(side) => (wording::ELEVATED_DIAPHRAGM, Some(side)),
        };
        let phrase = draw.pick(phrases);
        if draw.chance(0.9) {
            said.push(capitalised(&phrase.replace("{side}", side.map_or("", Side::as_str))));
        }
    }
    said
}

/// One or two sentences about what is not there.
fn reassure(draw: &mut Draw, findings: &[Finding]) -> Vec<String> {
    let absent = |kind: Kind| findings.iter().all(|f| f.kind() != kind);
    let mut said = Vec::new();
    if findings.is_empty() {
        said.push(capitalised(draw.pick(wording::NORMAL)));
    }
    if draw.chance(0.35) {
        let (a, b, phrase) = draw.pick(wording::DENIALS_OF_TWO);
        if absent(a) && absent(b) {
            said.push(capitalised(phrase));
            return said;
        }
    }
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|&k| absent(k)).collect();
    let first = draw.below(kinds.len());
    said.push(capitalised(draw.pick(wording::denial(kinds[first]))));
    if draw.chance(0.4) {
        let second = (first + 1 + draw.below(kinds.len() - 1)) % kinds.len();
        said.push(capitalised(draw.pick(wording::denial(kinds[second]))));
    }
    said
}

fn sentence(draw: &mut Draw, phrases: &[&'static str], finding: &Finding) -> String {
    let phrase = draw.pick(phrases);
    let degree = draw.pick(wording::degree(finding));
    let (side, zone) = place(finding);
    capitalised(&phrase.replace("{degree}", degree).replace("{side}", side).replace("{zone}", zone))
}

fn place(finding: &Finding) -> (&'static str, &'static str) {
    use crate::finding::Line;
    match *finding {
        Finding::Effusion { side, .. } => (side.map_or("", crate::Sides::as_str), ""),
        Finding::Pneumothorax { side, .. } => (side.as_str(), ""),
        Finding::Consolidation { side, zone, .. } | Finding::Nodule { side, zone, .. } => {
            (side.map_or("", Side::as_str), zone.as_str())
        }
        Finding::Fracture { side, zone } => (side.as_str(), Zone::as_str(zone)),
        Finding::Line(Line::CentralVenous(side) | Line::Pacemaker(side) | Line::ChestTube(side)) => {
            (side.as_str(), "")
        }
        Finding::Line(Line::Endotracheal | Line::Nasogastric) | Finding::Cardiomegaly { .. } => ("", ""),
    }
}

/// With a capital first letter and a full stop.
fn capitalised(phrase: &str) -> String {
    let mut out = String::with_capacity(phrase.len() + 1);
    let mut letters = phrase.chars();
    out.extend(letters.next().map(|c| c.to_ascii_uppercase()));
    out.push_str(letters.as_str());
    out.push('.');
    out
}

fn words(s: &str) -> usize {
    s.split_whitespace().count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::Purpose;
    use crate::finding::Sides;
    use crate::{Amount, Line, View, scene};

    fn cases() -> impl Iterator<Item = (Anatomy, Vec<Sign>, Text)> {
        (0..4000).map(|i| {
            let (anatomy, signs) = scene(5, i);
            let text = write(&mut Draw::new(5, i, Purpose::Words), &anatomy, &signs);
            (anatomy, signs, text)
        })
    }

    /// Words of which at least one names the finding.
    fn names(finding: &Finding) -> &'static [&'static str] {
        match finding {
            Finding::Effusion { .. } => &["effusion", "pleural fluid"],
            Finding::Pneumothorax { .. } => &["pneumothorax"],
            Finding::Cardiomegaly { .. } => &["cardiomegaly", "enlarge"],
            Finding::Consolidation { .. } => &["consolidation", "opaci", "infiltrate", "pneumonia"],
            Finding::Nodule { .. } => &["nodule", "round opacity"],
            Finding::Line(Line::Endotracheal) => &["endotracheal", "et tube"],
            Finding::Line(Line::CentralVenous(_)) => &["central venous", "central line"],
            Finding::Line(Line::Pacemaker(_)) => &["pacemaker"],
            Finding::Line(Line::ChestTube(_)) => &["chest tube"],
            Finding::Line(Line::Nasogastric) => &["nasogastric", "ng tube"],
            Finding::Fracture { .. } => &["fracture"],
        }
    }

    #[test]
    fn both_sections_name_every_finding_with_its_side_and_zone() {
        for (_, signs, text) in cases() {
            let report = text.report.to_lowercase();
            let (findings, impression) = report.split_once(" impression: ").expect("two sections");
            assert!(findings.starts_with("findings: ") && impression == text.impression.to_lowercase());
            for sign in &signs {
                let (side, zone) = place(&sign.finding);
                let side = if side == "bilateral" { "b" } else { side };
                for section in [findings, impression] {
                    let named = section.split('.').any(|s| {
                        names(&sign.finding).iter().any(|n| s.contains(n))
                            && s.contains(side)
                            && s.contains(zone)
                    });
                    assert!(named, "{:?} is not named in '{section}'", sign.finding);
                }
            }
        }
    }

    #[test]
    fn no_report_denies_what_it_shows() {
        for (_, signs, text) in cases() {
            let report = text.report.to_lowercase();
            for sign in &signs {
                let kind = sign.finding.kind();
                let two = wording::DENIALS_OF_TWO.iter().filter(|d| d.0 == kind || d.1 == kind).map(|d| d.2);
                for denial in wording::denial(kind).iter().copied().chain(two) {
                    let said = report.split(". ").any(|s| s.trim_end_matches('.').ends_with(denial));
                    assert!(!said, "'{denial}' is said in '{report}'");
                }
            }
            if !signs.is_empty() {
                assert!(!report.contains("normal chest") && !report.contains("lungs are clear"), "{report}");
            }
        }
    }

    #[test]
    fn reports_are_short_and_complete_sentences() {
        let mut total = 0;
        for (_, _, text) in cases() {
            assert!(!text.report.contains(['{', '}']), "{}", text.report);
            assert!(!text.report.contains("  ") && !text.report.contains(" ."), "{}", text.report);
            assert!(words(&text.report) <= 50, "{} words: {}", words(&text.report), text.report);
            total += words(&text.report);
        }
        let mean = total as f64 / 4000.0;
        assert!((20.0..40.0).contains(&mean), "{mean} words on average");
    }

    #[test]
    fn every_phrase_can_be_said_and_there_are_six_for_each() {
        for (_, signs, _) in cases() {
            for sign in signs {
                let f = &sign.finding;
                assert!(wording::finding(f).len() >= 6 && wording::impression(f).len() >= 6, "{f:?}");
                assert!(wording::denial(f.kind()).len() >= 6);
            }
        }
    }

    #[test]
    fn the_projection_is_announced() {
        let announced = cases().filter(|(anatomy, _, text)| {
            let word = match anatomy.view() {
                View::Pa => "PA",
                View::Ap => "AP",
                View::Lateral => "ateral",
            };
            text.report.contains(word)
        });
        assert!(announced.count() > 3800);
    }

    #[test]
    fn a_side_is_never_said_where_none_is_seen() {
        let sided = Finding::Effusion { side: Some(Sides::Left), amount: Amount::Small };
        assert!(wording::finding(&sided).iter().all(|p| p.contains("{side}")));
        let unsided = Finding::Effusion { side: None, amount: Amount::Small };
        assert!(wording::finding(&unsided).iter().all(|p| !p.contains("{side}")));
    }
}
