//! The report of a study as hospitals print it: a header with names and numbers, sections, signatures.
//!
//! Deliberately absent: the sentences about findings, which other phantoms have too (`report`), and DICOM.

use super::course::{Course, civil};
use super::people::{Planted, Spot};
use crate::anatomy::{Sex, View};
use crate::draw::{Draw, Purpose};
use crate::finding::Kind;
use crate::report;

/// A report, section by section.
pub(super) struct Report {
    /// Lines before the report proper.
    pub(super) header: Vec<String>,
    /// Heading and text.
    pub(super) sections: Vec<(&'static str, String)>,
    /// Lines behind it.
    pub(super) footer: Vec<String>,
}

impl Report {
    /// As a text file, its lines wrapped.
    pub(super) fn text(&self) -> String {
        let mut out = self.header.join("\n");
        out.push_str("\n\n                                 FINAL REPORT\n");
        for (heading, text) in &self.sections {
            wrap(&mut out, &format!("{heading}: {text}"));
        }
        out.push('\n');
        self.footer.iter().for_each(|line| wrap(&mut out, line));
        out
    }

    pub(super) fn section(&self, heading: &str) -> &str {
        self.sections.iter().find(|s| s.0 == heading).map_or("", |s| s.1.as_str())
    }
}

/// Wraps a paragraph at 80 columns.
fn wrap(out: &mut String, paragraph: &str) {
    let mut column = 0;
    for word in paragraph.split(' ') {
        if column > 0 && column + 1 + word.len() > 80 {
            out.push('\n');
            column = 0;
        } else if column > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += word.len();
    }
    out.push('\n');
}

/// Words the report of a study.
pub(super) fn write(seed: u64, study: u64, course: &Course, planted: &Planted) -> Report {
    let mut draw = Draw::new(seed, study, Purpose::Words);
    let text = report::write(&mut draw, &course.shots[0].anatomy, &course.signs);
    let findings = text.report.strip_prefix("FINDINGS: ").unwrap_or(&text.report);
    let findings = findings.split(" IMPRESSION: ").next().unwrap_or_default();
    let mut findings = findings.to_owned();
    for finding in &course.resolved {
        findings.push(' ');
        findings.push_str(draw.pick(RESOLVED));
        findings = findings.replace("{what}", named(finding.kind()));
    }
    if let Some(date) = planted.has(Spot::TextDate).then(|| planted.canary(Spot::TextDate)) {
        findings.push_str(&format!(" Surgical clips since {} are unchanged.", us_date(&date)));
    }
    let views = course.shots.iter().map(|s| s.anatomy.view);
    let frontal = if views.clone().any(|v| v == View::Ap) { "PORTABLE AP" } else { "PA" };
    let examination = if views.clone().any(|v| v == View::Lateral) { "CHEST (PA AND LAT)" } else { "CHEST" };
    let person = if course.sex == Sex::Female { "woman" } else { "man" };
    let indication =
        format!("{} year old {person} with {}. {}", course.age, draw.pick(COMPLAINTS), draw.pick(QUESTIONS));
    let comparison = match course.prior {
        Some(day) => format!("Chest radiograph of {}.", us_date(&date_text(day))),
        None => draw.pick(&["None.", "None available.", "No prior studies."]).to_owned(),
    };
    let technique = format!("{frontal} {} of the chest.", draw.pick(&["view", "radiograph", "image"]));
    Report {
        header: header(course, planted),
        sections: vec![
            ("EXAMINATION", format!("{examination}.")),
            ("INDICATION", indication),
            ("TECHNIQUE", technique),
            ("COMPARISON", comparison),
            ("FINDINGS", findings),
            ("IMPRESSION", text.impression),
        ],
        footer: footer(course, planted),
    }
}

/// `YYYYMMDD` of a day since 1 January 1970.
pub(super) fn date_text(day: i64) -> String {
    let (year, month, day) = civil(day);
    format!("{year:04}{month:02}{day:02}")
}

/// `05/12/2019` of `20190512`.
fn us_date(date: &str) -> String {
    format!("{}/{}/{}", &date[4..6], &date[6..8], &date[..4])
}

fn header(course: &Course, planted: &Planted) -> Vec<String> {
    let name = planted.get(Spot::PatientName).unwrap_or_default().to_uppercase();
    let id = planted.get(Spot::PatientId).unwrap_or_default();
    let accession = planted.get(Spot::Accession).unwrap_or_default();
    let mut lines = vec![
        format!("PATIENT NAME: {name}, ANN"),
        format!("MRN: {id}    ACCESSION: {accession}"),
        format!("DATE OF EXAM: {}    SEX: {}", us_date(&date_text(course.day)), course.sex.as_str()),
    ];
    let planted = |spot: Spot| planted.has(spot).then(|| planted.canary(spot));
    lines.extend(planted(Spot::TextPatientName).map(|v| format!("Formerly known as name: {v}")));
    lines.extend(planted(Spot::TextPatientId).map(|v| format!("Old MRN: {v}")));
    lines.extend(planted(Spot::TextAccession).map(|v| format!("Accession number: {v}")));
    lines.extend(planted(Spot::TextSocialSecurity).map(|v| format!("SSN: {v}")));
    lines.extend(planted(Spot::TextAddress).map(|v| format!("Address: {v}")));
    lines.extend(planted(Spot::TextHospital).map(|v| format!("Transferred from {v} Memorial Hospital.")));
    lines
}

fn footer(course: &Course, planted: &Planted) -> Vec<String> {
    let planted = |spot: Spot| planted.has(spot).then(|| planted.canary(spot));
    let day = us_date(&date_text(course.day));
    let mut lines = Vec::new();
    lines.extend(
        planted(Spot::ToldName).map(|v| format!("Findings were discussed with Ann {v} by telephone.")),
    );
    lines.extend(planted(Spot::TitledName).map(|v| format!("Dr. {v} was paged on {day} at 14:05.")));
    lines.extend(planted(Spot::TextPhone).map(|v| format!("Questions: call {v}.")));
    lines.extend(planted(Spot::TextMail).map(|v| format!("Write to {v}.")));
    lines.extend(planted(Spot::TextLink).map(|v| format!("Pictures at {v}.")));
    lines.extend(planted(Spot::Observer).map(|v| format!("Reported by {v}.")));
    lines.extend(planted(Spot::DictatedName).map(|v| format!("Dictated by: {v}, MD")));
    lines.extend(planted(Spot::SignedName).map(|v| format!("Electronically signed by {v} on {day}.")));
    lines
}

fn named(kind: Kind) -> &'static str {
    match kind {
        Kind::Effusion => "pleural effusion",
        Kind::Pneumothorax => "pneumothorax",
        Kind::Cardiomegaly => "cardiomegaly",
        Kind::Consolidation => "consolidation",
        Kind::Nodule => "nodule",
        Kind::Line => "support device",
        Kind::Fracture => "rib fracture",
    }
}

const RESOLVED: &[&str] = &[
    "The previously seen {what} is no longer seen.",
    "Interval resolution of the {what}.",
    "The {what} has resolved.",
];

const COMPLAINTS: &[&str] = &[
    "cough",
    "shortness of breath",
    "chest pain",
    "fever",
    "weight loss",
    "a fall",
    "hypoxia",
    "dyspnea on exertion",
];

const QUESTIONS: &[&str] = &[
    "Evaluate for acute process.",
    "Rule out pneumonia.",
    "Question pneumothorax.",
    "Assess for effusion.",
    "Preoperative.",
    "Follow-up.",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dicom::course::{course, places};

    #[test]
    fn a_report_is_printed_as_hospitals_do() {
        let places = places(2, 40);
        for (study, place) in places.iter().enumerate() {
            let study = study as u64;
            let planted = Planted::new(2, study, 40, 400, *place);
            let course = course(2, *place);
            let report = write(2, study, &course, &planted);
            let text = report.text();
            for part in ["FINAL REPORT", "INDICATION: ", "COMPARISON: ", "FINDINGS: ", "IMPRESSION: "] {
                assert!(text.contains(part), "{part} is missing in {text}");
            }
            assert!(!text.contains('{') && text.lines().all(|l| l.len() <= 80), "{text}");
            assert_eq!(course.prior.is_some(), report.section("COMPARISON").contains("radiograph of"));
        }
    }
}
