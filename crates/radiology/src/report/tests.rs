//! Reports as archives have them, and texts that are none.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::SectionKind::*;
use super::*;

fn sections(text: &str) -> Vec<(SectionKind, String)> {
    Report::parse(text).sections().iter().map(|s| (s.kind, s.text.clone())).collect()
}

fn section(kind: SectionKind, text: &str) -> (SectionKind, String) {
    (kind, text.to_owned())
}

#[test]
fn a_wrapped_report_with_a_wet_read_gives_its_final_sections() {
    let text = "WET READ: ___ ___ ___ 5:22 PM\n  Large left effusion.\n ______\n\
                                  FINAL REPORT\n EXAMINATION:  CHEST (PA AND LAT)\n\n INDICATION:  ___F with cough, evaluate for\n \
                pneumonia\n\n TECHNIQUE:  Two views\n\n COMPARISON:  ___\n\n FINDINGS: \n \n \
                The cardiomediastinal silhouette is normal and there is no pleural effusion or\n \
                pneumothorax.  The right-\n sided line was removed.\n\n IMPRESSION: \n \n 1.  No acute disease.\n 2.  Low volumes\n\n \
                NOTIFICATION:  Discussed with Dr. ___ at 3:15 p.m.\n";
    let expected = [
        section(Examination, "CHEST (PA AND LAT)"),
        section(Indication, "___F with cough, evaluate for pneumonia"),
        section(Technique, "Two views"),
        section(
            Findings,
            "The cardiomediastinal silhouette is normal and there is no pleural effusion or pneumothorax. The \
             right-sided line was removed.",
        ),
        section(Impression, "No acute disease.\nLow volumes"),
        section(Notification, "Discussed with Dr. ___ at 3:15 p.m."),
    ];
    assert_eq!(sections(text), expected);
    let report = Report::parse(text);
    assert_eq!(report.impression(), Some("No acute disease.\nLow volumes"));
    let told = report.text();
    assert!(told.starts_with("EXAMINATION: CHEST (PA AND LAT)\nINDICATION: ___F with cough"), "{told}");
    assert!(told.ends_with("\nIMPRESSION: No acute disease. Low volumes"), "{told}");
    assert_eq!(report.sentences().map(|(_, sentence)| sentence).last(), Some("Low volumes"));
    assert!(report.sentences().all(|(kind, _)| matches!(kind, Findings | Impression)));
}

#[test]
fn headers_are_known_in_many_spellings() {
    for (text, kind) in [
        ("CLINICAL HISTORY: cough", Indication),
        ("Reason for Exam: cough", Indication),
        ("REASON FOR THIS EXAMINATION:\n cough", Indication),
        ("Clinical Information - cough", Indication),
        ("**Findings:** clear", Findings),
        ("Findings - clear", Findings),
        ("FINDINGS\nclear", Findings),
        ("FINDINGS:\r\nclear\r\n", Findings),
        ("Findings and Impression: clear", Findings),
        ("FINDINGS/IMPRESSION: clear", Findings),
        ("Impression\n-----\nclear", Impression),
        ("IMPRESSION AND RECOMMENDATION: clear", Impression),
        ("CONCLUSION: clear", Impression),
        ("Opinion: clear", Impression),
        ("SUMMARY: clear", Impression),
        ("IMPRESSION Clear lungs", Impression),
        ("IMPRESSION(S): clear", Impression),
        ("TECHNIQUE: two views", Technique),
        ("COMPARISONS: none", Comparison),
        ("EXAMINATION: chest", Examination),
        ("RECOMMENDATION(S): CT", Recommendation),
        ("ADDENDUM: now clear", Addendum),
        ("NOTIFICATION: told", Notification),
        ("WET READ: clear", Preliminary),
        ("REPORT: clear", Body),
        ("Electronically signed by: A. Person", Signature),
    ] {
        let found = sections(text);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert_eq!(found[0].0, kind, "{text}");
    }
}

#[test]
fn what_only_looks_like_a_header_is_text() {
    for text in [
        "The findings: none of note",
        "Compared with the study of 5:13 there is an impression of improvement",
        "Impressions of the ribs are normal",
        "In summary: stable",
    ] {
        assert_eq!(sections(text), [section(Body, text)]);
    }
    let headed = "FINDINGS:\nLUNGS: Clear.\nHEART: Normal.\nIMPRESSION: Normal.";
    let found = sections(headed);
    assert_eq!(found[0], section(Findings, "LUNGS: Clear.\nHEART: Normal."));
}

#[test]
fn sections_in_one_line_are_told_apart() {
    let text = "FINDINGS: PA view. No effusion. IMPRESSION: Normal study.";
    assert_eq!(
        sections(text),
        [section(Findings, "PA view. No effusion."), section(Impression, "Normal study.")]
    );
    let text =
        "Indication: cough. Comparison: none. Findings: Clear. Impression: 1. Clear lungs. 2. Old fracture.";
    let found = sections(text);
    assert_eq!(found.iter().map(|s| s.0).collect::<Vec<_>>(), [Indication, Comparison, Findings, Impression]);
    assert_eq!(found[3].1, "Clear lungs.\nOld fracture.");
}

#[test]
fn text_without_a_header_describes_the_study() {
    let text = "HISTORY: Cough.\n\n COMPARISON: ___.\n\n FRONTAL AND LATERAL VIEWS: The heart is large.\n\n No effusion.";
    let found = sections(text);
    assert_eq!(found[1], section(Findings, "FRONTAL AND LATERAL VIEWS: The heart is large.\nNo effusion."));
    let text = "HISTORY: Cough.\n\nThe heart is large.\n\nNo effusion.";
    let report = Report::parse(text);
    assert_eq!(report.sections()[1].kind, Body);
    assert_eq!(report.impression(), Some("No effusion."), "the last paragraph");
    assert_eq!(report.sentences().count(), 2);
    assert_eq!(Report::parse("diffuse infiltrates").text(), "diffuse infiltrates");
    let titled = Report::parse("CHEST RADIOGRAPH\nFINDINGS: Clear.");
    assert_eq!(titled.sections()[0].kind, Examination);
    let kept = Report::parse("COMPARISON: ___\n\nThe heart is large.\n\nIMPRESSION: Cardiomegaly.");
    assert_eq!(kept.sections()[0].kind, Body, "what follows a redacted section is no title");
}

#[test]
fn what_is_redacted_or_repeated_is_no_section() {
    let text = "COMPARISON: XXXX, ___.\nFINDINGS: Heart XXXX normal.\nFINDINGS: Heart XXXX normal.";
    assert_eq!(sections(text), [section(Findings, "Heart XXXX normal.")]);
    assert_eq!(Report::parse("").text(), "");
    assert_eq!(Report::parse("___ XXXX \n\n ---").impression(), None);
}

#[test]
fn an_addendum_stays_when_the_first_reading_goes() {
    let text = "ADDENDUM: There is a fracture.\nWET READ: Normal.\nFINAL REPORT\nFINDINGS: Clear.";
    assert_eq!(sections(text), [section(Addendum, "There is a fracture."), section(Findings, "Clear.")]);
    let early = Report::parse("WET READ: Small effusion.");
    assert_eq!(early.sentences().count(), 1, "without a final report the first reading counts");
    let both = Report::parse("WET READ: Small effusion.\nIMPRESSION: No effusion.");
    assert_eq!(both.text(), "IMPRESSION: No effusion.");
}

#[test]
fn lines_that_were_not_wrapped_stay_apart() {
    let text = "FINDINGS:\nHeart size normal\nLungs clear\nNo effusion";
    assert_eq!(sections(text)[0].1, "Heart size normal\nLungs clear\nNo effusion");
    assert_eq!(Report::parse(text).text(), "FINDINGS: Heart size normal. Lungs clear. No effusion");
    let list = "IMPRESSION:\n- Small effusion\n- No\n  pneumothorax\n\n* Old fractures";
    assert_eq!(sections(list)[0].1, "Small effusion\nNo pneumothorax\nOld fractures");
    let measures = "IMPRESSION: A mass of 3. 2 cm nodes.";
    assert_eq!(sections(measures)[0].1, "A mass of 3. 2 cm nodes.", "not every number begins an item");
}

#[test]
fn hostile_text_is_cut_and_read_in_linear_time() {
    for unit in [
        "A:",
        "FINDINGS: ",
        "IMP: a\n",
        "1. A ",
        "\n",
        "A A A A:",
        "É: ",
        "FINDINGS AND ",
        "- ",
        "IMPRESSION - ",
    ] {
        let text = unit.repeat(300_000 / unit.len());
        let report = Report::parse(&text);
        assert!(report.text().len() <= 4 * REPORT_BYTES_MAX, "{unit:?}");
    }
    // A character that the cut would halve.
    let text = format!("{}É", "a".repeat(REPORT_BYTES_MAX - 1));
    assert_eq!(Report::parse(&text).text().len(), REPORT_BYTES_MAX - 1);
}

proptest! {
    #[test]
    fn any_text_is_read_and_read_again_alike(text in "(FINDINGS: |Impression\n|IMPRESSION: |[a-z]{1,9}[.] |[A-Z][a-z]{0,8} |\n|\n\n|___ |[0-9][.] |: |- |\\PC){0,60}") {
        let report = Report::parse(&text);
        prop_assert!(report.sections().iter().all(|section| !section.text.trim().is_empty()));
        let again = Report::parse(&report.text());
        prop_assert!(again.sections().len() <= report.sections().len() + 8);
    }
}

#[test]
fn whose_report_it_is_is_not_report() {
    let text = "COMMENT: PATIENT NAME: ___, ___\nMRN: ___    ACCESSION: ___\nDATE OF EXAM: ___    SEX: F\n\
        EXAMINATION: CHEST.\nHISTORY: Fever.\nFINDINGS: No airspace disease.\nIMPRESSION: Small nodule.";
    let report = Report::parse(text);
    assert_eq!(report.impression(), Some("Small nodule."));
    assert_eq!(
        report.text(),
        "EXAMINATION: CHEST.\nINDICATION: Fever.\nFINDINGS: No airspace disease.\nIMPRESSION: Small nodule."
    );
}
