//! Structured reports as text (PS3.3 section C.17.3).
//!
//! Owns: which items of a content tree are said, and in which form. Containers are headings, so that the
//! sections of the text can be told apart as those of a written report. Deliberately absent: references to
//! images, coordinates, and the templates that a tree may follow.

use dicom_dictionary_std::tags;

use super::dataset::DataSet;
use super::error::DicomError;

/// The text of the content tree; none where there is none.
pub(crate) fn text(set: &DataSet<'_>) -> Result<Option<String>, DicomError> {
    let mut lines = Vec::new();
    if set.element(tags::CONTENT_SEQUENCE).is_none() {
        return Ok(None);
    }
    container(set, false, &mut lines)?;
    Ok(Some(lines.join("\n")).filter(|text| !text.is_empty()))
}

/// What is said within a container, which is `titled` when a heading stands before it. The depth of the tree is
/// that of the data set, which is bounded.
fn container(set: &DataSet<'_>, titled: bool, lines: &mut Vec<String>) -> Result<(), DicomError> {
    for item in set.items(tags::CONTENT_SEQUENCE) {
        let concept = meaning(&item, tags::CONCEPT_NAME_CODE_SEQUENCE)?;
        match item.code(tags::VALUE_TYPE).as_deref() {
            Some("CONTAINER") => {
                let name = concept.map(|concept| heading(&concept));
                lines.extend(name.clone());
                let before = lines.len();
                container(&item, name.is_some(), lines)?;
                if lines.len() == before && name.is_some() {
                    lines.pop();
                }
                continue;
            }
            Some("TEXT") => {
                // Under a heading, a text that is only called a finding or a comment needs no name of its own.
                let named = concept.filter(|concept| !titled || !is_general(&heading(concept)));
                say(lines, named, item.text(tags::TEXT_VALUE)?);
            }
            Some("CODE") => say(lines, concept, meaning(&item, tags::CONCEPT_CODE_SEQUENCE)?),
            Some("NUM") => say(lines, concept, measured(&item)?),
            // Names, dates and UIDs are about the report, not part of what it says.
            _ => {}
        }
        container(&item, titled, lines)?;
    }
    Ok(())
}

/// Whether a name says nothing that the heading above it does not.
fn is_general(name: &str) -> bool {
    ["FINDINGS:", "IMPRESSION:", "COMMENT:", "DESCRIPTION:", "TEXT:"].contains(&name)
}

/// What stands before a section; a plural as reports write it.
fn heading(concept: &str) -> String {
    let name = concept.trim_end_matches(':').to_uppercase();
    match name.as_str() {
        "FINDING" => "FINDINGS:".to_owned(),
        "CONCLUSION" | "CONCLUSIONS" | "SUMMARY" | "IMPRESSIONS" => "IMPRESSION:".to_owned(),
        // As the templates of reports (PS3.16 TID 2000, CID 7001) call them.
        "CURRENT PROCEDURE DESCRIPTIONS" => "EXAMINATION:".to_owned(),
        "PROCEDURE DESCRIPTIONS" => "TECHNIQUE:".to_owned(),
        "PREVIOUS FINDINGS" => "COMPARISON:".to_owned(),
        _ => format!("{name}:"),
    }
}

fn say(lines: &mut Vec<String>, concept: Option<String>, value: Option<String>) {
    let Some(value) = value else { return };
    // A sentence under a heading of the same name needs no name of its own.
    let redundant = |concept: &String| {
        let name = heading(concept);
        lines.iter().rev().find(|line| line.ends_with(':')).is_some_and(|line| *line == name)
    };
    lines.push(match concept {
        Some(concept) if !redundant(&concept) => format!("{} {value}", heading(&concept)),
        _ => value,
    });
}

fn measured(item: &DataSet<'_>) -> Result<Option<String>, DicomError> {
    let Some(measured) = item.items(tags::MEASURED_VALUE_SEQUENCE).next() else { return Ok(None) };
    let Some(value) = measured.code(tags::NUMERIC_VALUE) else { return Ok(None) };
    let unit = measured.items(tags::MEASUREMENT_UNITS_CODE_SEQUENCE).next();
    let unit =
        unit.and_then(|unit| unit.code(tags::CODE_VALUE)).filter(|unit| unit != "1" && unit != "{0:1}");
    Ok(Some(unit.map_or(value.clone(), |unit| format!("{value} {unit}"))))
}

fn meaning(item: &DataSet<'_>, sequence: dicom_core::Tag) -> Result<Option<String>, DicomError> {
    match item.items(sequence).next() {
        Some(code) => code.text(tags::CODE_MEANING),
        None => Ok(None),
    }
}
