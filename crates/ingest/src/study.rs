//! Studies: what radiology layouts have in common.
//!
//! Owns: how a report becomes the text and the findings of a record, and the attributes that every layout of
//! studies writes alike. Deliberately absent: where reports come from.

use diptych_core::{AttributeValue, Attributes, Chunking, Key, Time};
use diptych_radiology::findings;
use diptych_radiology::report::Report;

use crate::columns::normal_view;
use crate::item::{Item, ItemImage, Origin};

/// What is known of a study, whatever its layout.
#[derive(Debug, Default)]
pub(crate) struct Study {
    pub(crate) key: String,
    pub(crate) images: Vec<ItemImage>,
    /// Of each image where it is known, each once.
    pub(crate) views: Vec<String>,
    pub(crate) report: Option<String>,
    pub(crate) patient: Option<String>,
    pub(crate) date: Option<Time>,
    pub(crate) body_part: Option<&'static str>,
    pub(crate) attributes: Attributes,
}

impl Study {
    /// Takes up a view, unless it is there.
    pub(crate) fn add_view(&mut self, view: &str) {
        let view = normal_view(view);
        if !view.is_empty() && !self.views.contains(&view) {
            self.views.push(view);
        }
    }

    /// The item of a study. The error is the reason in words.
    pub(crate) fn into_item(self, chunking: Option<Chunking>, origin: Origin) -> Result<Item, String> {
        let (texts, findings) = self.report.as_deref().map(record).unwrap_or_default();
        if self.images.is_empty() && texts.is_empty() {
            return Err("neither image nor report; put them where the layout has them".to_owned());
        }
        let mut attributes = self.attributes;
        attributes.extend(findings);
        let named = [
            ("patient_id", self.patient.map(AttributeValue::String)),
            ("study_date", self.date.map(AttributeValue::Time)),
            ("body_part", self.body_part.map(|part| AttributeValue::String(part.to_owned()))),
            ("views", (!self.views.is_empty()).then_some(AttributeValue::List(self.views))),
        ];
        attributes.extend(named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        let key = Key::new(self.key).map_err(|e| e.to_string())?;
        let chunking = chunking.unwrap_or(Chunking::Sentences);
        Ok(Item { key, images: self.images, texts, chunking, attributes, origin })
    }
}

/// The texts that are stored of a report, and the findings in it.
pub(crate) fn record(report: &str) -> (Vec<String>, Attributes) {
    let report = Report::parse(report);
    let text = report.text();
    let texts = if text.trim().is_empty() { Vec::new() } else { vec![text] };
    (texts, findings::to_attributes(&findings::of_report(&report)))
}

/// A report of named sections, those that are blank left out: a line each, such as `FINDINGS: ...`.
pub(crate) fn sections<'a>(sections: impl IntoIterator<Item = (&'a str, &'a str)>) -> Option<String> {
    let lines: Vec<String> = sections
        .into_iter()
        .filter(|(_, text)| !text.trim().is_empty())
        .map(|(name, text)| {
            let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
            format!("{}: {flat}", name.to_uppercase())
        })
        .collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// A day as DICOM writes it, `21800506`, with a time of day as DICOM writes it, `213014.531`, where there is one.
pub(crate) fn dicom_time(day: &str, time: &str) -> Option<Time> {
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let day = day.trim();
    if day.len() != 8 || !digits(day) {
        return None;
    }
    let date = format!("{}-{}-{}", &day[..4], &day[4..6], &day[6..]);
    // A table has lost the zeros in front: 93014.5 is half past nine.
    let (clock, fraction) = time.trim().split_once('.').unwrap_or((time.trim(), ""));
    let whole = format!("{clock:0>6}");
    if clock.is_empty() || whole.len() != 6 || !digits(&whole) || !digits(fraction) {
        return date.parse().ok();
    }
    let fraction: String = fraction.chars().take(9).collect();
    let point = if fraction.is_empty() { "" } else { "." };
    let moment = format!("{date}T{}:{}:{}{point}{fraction}Z", &whole[..2], &whole[2..4], &whole[4..]);
    moment.parse().or_else(|_| date.parse()).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn days_and_times_of_dicom_are_moments() {
        let said = |day: &str, time: &str| dicom_time(day, time).map(|t| t.to_string());
        assert_eq!(said("21800506", "213014.531").unwrap(), "2180-05-06T21:30:14.531Z");
        assert_eq!(said("21800506", "93014").unwrap(), "2180-05-06T09:30:14Z");
        assert_eq!(said("21800506", "").unwrap(), "2180-05-06T00:00:00Z");
        assert_eq!(said("21800506", "996060").unwrap(), "2180-05-06T00:00:00Z");
        assert_eq!(said("21801306", ""), None);
        assert_eq!(said("2180", ""), None);
        assert_eq!(said("2180é506", ""), None);
    }

    #[test]
    fn sections_are_lines_and_blank_ones_are_left_out() {
        let report =
            sections([("indication", " "), ("Findings", "Clear\n lungs."), ("impression", "Normal.")]);
        assert_eq!(report.unwrap(), "FINDINGS: Clear lungs.\nIMPRESSION: Normal.");
        assert_eq!(sections([("findings", "")]), None);
    }
}
