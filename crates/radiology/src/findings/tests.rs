//! Rules on sentences made to try them, and what becomes of findings in a report.
#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;

fn said(text: &str) -> String {
    let each = of_text(text).into_iter().map(|(observation, status)| {
        let mark = match status {
            Present => "+",
            Absent => "-",
            Uncertain => "?",
        };
        format!("{mark}{observation}")
    });
    each.collect::<Vec<_>>().join(" ")
}

#[test]
fn negation_reaches_through_lists_and_ends_where_something_new_begins() {
    for (text, expected) in [
        ("No effusion, consolidation or pneumothorax.", "-consolidation -pneumothorax -effusion"),
        ("No effusion, stable cardiomegaly.", "+cardiomegaly -effusion"),
        ("No effusion but a pneumothorax.", "+pneumothorax -effusion"),
        ("Effusion and pneumothorax are not seen.", "-pneumothorax -effusion"),
        ("No change in the effusion.", "+effusion"),
        ("Not only an effusion but a pneumothorax.", "+pneumothorax +effusion"),
        ("Small effusion (no pneumothorax) and cardiomegaly.", "+cardiomegaly -pneumothorax +effusion"),
        ("No sign of possible pneumonia.", "-pneumonia"),
        ("Concern for pneumonia without effusion.", "?pneumonia -effusion"),
        ("Effusion?", "?effusion"),
        ("?effusion", "?effusion"),
        ("No effusion, pneumothorax unchanged.", "+pneumothorax -effusion"),
    ] {
        assert_eq!(said(text), expected, "{text}");
    }
}

#[test]
fn clear_lungs_deny_what_makes_them_opaque_unless_something_else_is_said() {
    let clear = "-opacity -lesion -edema -consolidation -atelectasis -nodule";
    assert_eq!(said("The lungs are clear."), clear);
    assert_eq!(said("The right lung is clear."), "", "one lung says nothing of the other");
    assert_eq!(said("The lungs are not clear."), "");
    assert!(said("Clear lungs. Mild atelectasis.").contains("+atelectasis"));
}

#[test]
fn a_report_is_weighed_by_its_sections() {
    let of = |text: &str| of_report(&Report::parse(text));
    let findings = of(
        "INDICATION: Pneumonia?\nFINDINGS: Opacity, may be pneumonia. Small effusion.\nIMPRESSION: Pneumonia.",
    );
    assert_eq!(findings.get(&Pneumonia), Some(&Present), "the impression is surer than the findings");
    assert_eq!(findings.get(&Effusion), Some(&Present), "what only the findings say counts");
    assert_eq!(findings.get(&NoFinding), Some(&Absent));
    let findings =
        of("INDICATION: Pneumothorax.\nFINDINGS: Lungs are clear. Pacemaker.\nIMPRESSION: No acute disease.");
    assert_eq!(findings.get(&Pneumothorax), None, "a question is no finding");
    assert_eq!(findings.get(&NoFinding), Some(&Present), "a pacemaker is nothing abnormal");
    let findings = of("FINDINGS: Small nodule.\nIMPRESSION: Clear lungs.");
    assert_eq!(findings.get(&Nodule), Some(&Present), "clear lungs do not outweigh a nodule");
    let findings = of("FINDINGS: Small pneumothorax.\nIMPRESSION: No pneumothorax.");
    assert_eq!(findings.get(&Pneumothorax), Some(&Absent));
    assert_eq!(of("FINDINGS: Possible nodule.").get(&NoFinding), Some(&Uncertain));
    assert_eq!(of(""), Findings::new());
}

#[test]
fn attributes_keep_findings() {
    let findings = of_text("Left effusion, possible pneumonia, no pneumothorax. Right PICC.");
    let mut attributes = to_attributes(&findings);
    assert_eq!(attributes["finding.effusion"], AttributeValue::from("present"));
    assert_eq!(attributes["finding.pneumonia"], AttributeValue::from("uncertain"));
    attributes.insert("finding.unheard_of".to_owned(), AttributeValue::from("present"));
    attributes.insert("finding.edema".to_owned(), AttributeValue::from("perhaps"));
    attributes.insert("age".to_owned(), AttributeValue::from(3));
    assert_eq!(from_attributes(&attributes), findings);
    let error = "efusion".parse::<Observation>().unwrap_err().to_string();
    assert!(error.starts_with("'efusion' is no finding; use one of no_finding, "), "{error}");
}

#[test]
fn hostile_sentences_are_read_in_linear_time() {
    for unit in [
        "no ",
        "no effusion, ",
        "(",
        "effusion or ",
        "heart normal ",
        "? ",
        "clear of ",
        ", and ",
        "Ａ",
        "not ",
    ] {
        let text = unit.repeat(200_000 / unit.len());
        let _ = of_sentence(&text);
        let _ = of_text(&text);
    }
    assert_eq!(said(&"no effusion, ".repeat(2_000)), "-effusion", "a long list is cut between its members");
}

proptest! {
    #[test]
    fn any_text_has_findings(text in "(no |effusion|heart |is |enlarged|[,.?():;/-] ?|or |cannot be excluded |\\PC){0,80}") {
        let found = of_sentence(&text);
        prop_assert!(found.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
