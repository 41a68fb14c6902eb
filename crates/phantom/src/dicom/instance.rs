//! The attributes of an instance: a picture, or a structured report, with everything that identifies.
//!
//! Deliberately absent: the encoding (`element`), the pixels (`pixels`) and the words (`report`).

use super::course::{Course, Shot};
use super::element::{DataSet, Encoding, Value};
use super::people::{Planted, Spot};
use super::pixels::{self, Stored, Syntax};
use super::report::{Report, date_text};
use crate::anatomy::View;
use crate::render;

/// What the instances of a study share.
pub(super) struct Study<'a> {
    /// Number in the set.
    pub(super) index: u64,
    pub(super) course: &'a Course,
    pub(super) planted: &'a Planted,
    /// Width and height of the pictures, in pixels.
    pub(super) size: u32,
}

const CR: &str = "1.2.840.10008.5.1.4.1.1.1";
const DX: &str = "1.2.840.10008.5.1.4.1.1.1.1";
const BASIC_TEXT_SR: &str = "1.2.840.10008.5.1.4.1.1.88.11";
/// The writer: a UID derived from a UUID.
const IMPLEMENTATION: &str = "2.25.190146254417025163213286331421160283392";

impl Study<'_> {
    pub(super) fn uid(&self) -> String {
        self.planted.get(Spot::StudyUid).unwrap_or_default()
    }

    /// The UID of a series or an instance: below that of the study where that is a root of ours.
    fn uid_of(&self, series: usize, instance: usize) -> String {
        format!(
            "2.25.{}",
            7_000_000_000_000u128 + u128::from(self.index) * 1000 + (series * 10 + instance) as u128
        )
    }

    /// A picture as a file.
    pub(super) fn picture(&self, number: usize, shot: &Shot, syntax: Syntax, stored: Stored) -> Vec<u8> {
        let digital = (self.index + number as u64).is_multiple_of(2);
        let class = if digital { DX } else { CR };
        let mut set = self.common(class, if digital { "DX" } else { "CR" }, 1, number + 1);
        let stored =
            if syntax == Syntax::JpegLossless && stored == Stored::Signed { Stored::Plain } else { stored };
        pixels::put(&mut set, &render(&shot.anatomy, &shot.signs, self.size), stored, syntax);
        set.text(0x0018_0015, b"CS", "CHEST");
        set.text(
            0x0018_5101,
            b"CS",
            if shot.anatomy.view == View::Lateral { "LL" } else { shot.anatomy.view.as_str() },
        );
        set.text(0x0020_0020, b"CS", if shot.anatomy.view == View::Lateral { "A\\F" } else { "L\\F" });
        set.text(0x0028_0301, b"CS", "NO");
        set.text(0x0008_0008, b"CS", "ORIGINAL\\PRIMARY\\");
        if digital {
            set.text(0x0008_0068, b"CS", "FOR PRESENTATION");
        }
        if let Some(comments) =
            self.planted.has(Spot::OverlayComments).then(|| self.planted.canary(Spot::OverlayComments))
        {
            set.text(0x6000_4000, b"LT", comments);
        }
        self.file(class, &set, syntax)
    }

    /// The report as a Basic Text SR.
    pub(super) fn structured_report(&self, report: &Report) -> Vec<u8> {
        let mut set = self.common(BASIC_TEXT_SR, "SR", 2, 1);
        set.text(0x0040_A040, b"CS", "CONTAINER");
        set.items(0x0040_A043, vec![code("18748-4", "LN", "Diagnostic imaging report")]);
        set.text(0x0040_A050, b"CS", "SEPARATE");
        set.text(0x0040_A491, b"CS", "COMPLETE");
        set.text(0x0040_A493, b"CS", "UNVERIFIED");
        let mut content = Vec::new();
        if let Some(name) = self.planted.has(Spot::Observer).then(|| self.planted.canary(Spot::Observer)) {
            let mut item =
                content_item("HAS OBS CONTEXT", "PNAME", code("121008", "DCM", "Person Observer Name"));
            item.text(0x0040_A123, b"PN", format!("{name}^Ann"));
            content.push(item);
        }
        content.push(text_item("121106", "Comment", report.header.join("\r\n")));
        for (heading, text) in &report.sections {
            let (value, meaning) = match *heading {
                "EXAMINATION" => ("121064", "Current Procedure Descriptions"),
                "INDICATION" => ("121060", "History"),
                "COMPARISON" => ("121068", "Previous Findings"),
                "FINDINGS" => ("121070", "Findings"),
                "IMPRESSION" => ("121072", "Impressions"),
                _ => ("121065", "Procedure Descriptions"),
            };
            let mut section = content_item("CONTAINS", "CONTAINER", code(value, "DCM", meaning));
            section.text(0x0040_A050, b"CS", "SEPARATE");
            section.items(0x0040_A730, vec![text_item("121071", "Finding", text.clone())]);
            content.push(section);
        }
        if !report.footer.is_empty() {
            content.push(text_item("121106", "Comment", report.footer.join("\r\n")));
        }
        set.items(0x0040_A730, content);
        self.file(BASIC_TEXT_SR, &set, Syntax::ExplicitLittle)
    }

    fn common(&self, class: &str, modality: &str, series: usize, instance: usize) -> DataSet {
        let mut set = DataSet::default();
        let (date, second) = (date_text(self.course.day), self.course.second);
        let time = format!("{:02}{:02}{:02}", second / 3600, second / 60 % 60, second % 60);
        set.text(0x0008_0005, b"CS", "ISO_IR 192");
        set.text(0x0008_0016, b"UI", class);
        set.text(0x0008_0018, b"UI", self.uid_of(series, instance));
        for tag in [0x0008_0020, 0x0008_0021, 0x0008_0023] {
            set.text(tag, b"DA", date.as_str());
        }
        for tag in [0x0008_0030, 0x0008_0031, 0x0008_0033] {
            set.text(tag, b"TM", time.as_str());
        }
        set.text(0x0008_002A, b"DT", format!("{date}{time}.00"));
        set.text(0x0008_0060, b"CS", modality);
        set.text(0x0008_0070, b"LO", "Diptych");
        set.text(0x0010_0040, b"CS", self.course.sex.as_str());
        set.text(0x0010_1010, b"AS", format!("{:03}Y", self.course.age));
        set.text(0x0020_000D, b"UI", self.uid());
        set.text(0x0020_000E, b"UI", self.uid_of(series, 0));
        set.text(0x0020_0011, b"IS", series.to_string());
        set.text(0x0020_0013, b"IS", instance.to_string());
        self.identify(&mut set);
        self.nest(&mut set);
        set
    }

    /// Everything that stands in the data set itself.
    fn identify(&self, set: &mut DataSet) {
        let planted = self.planted;
        let person = |spot: Spot| planted.get(spot).map(|family| format!("{family}^Ann"));
        let date = |spot: Spot| planted.has(spot).then(|| planted.canary(spot));
        let plain: [(u32, &[u8; 2], Option<String>); 24] = [
            (0x0008_0050, b"SH", planted.get(Spot::Accession)),
            (0x0008_0080, b"LO", planted.get(Spot::Institution)),
            (0x0008_0081, b"ST", planted.get(Spot::InstitutionAddress)),
            (0x0008_0090, b"PN", person(Spot::ReferringPhysician)),
            (0x0008_1010, b"SH", planted.get(Spot::Station)),
            (0x0008_1030, b"LO", planted.get(Spot::StudyDescription).or(Some("CHEST".to_owned()))),
            (0x0008_103E, b"LO", planted.get(Spot::SeriesDescription)),
            (0x0008_1070, b"PN", person(Spot::Operator)),
            (0x0010_0010, b"PN", person(Spot::PatientName)),
            (0x0010_0020, b"LO", planted.get(Spot::PatientId)),
            (0x0010_0030, b"DA", date(Spot::PatientBirthDate)),
            (0x0010_1000, b"LO", planted.get(Spot::OtherPatientIds)),
            (0x0010_1040, b"LO", planted.get(Spot::PatientAddress)),
            (0x0010_1060, b"PN", person(Spot::MothersName)),
            (0x0010_2154, b"SH", planted.get(Spot::PatientPhone)),
            (0x0010_21B0, b"LT", planted.get(Spot::History)),
            (0x0010_4000, b"LT", planted.get(Spot::PatientComments)),
            (0x0018_1000, b"LO", planted.get(Spot::SerialNumber)),
            (0x0020_0010, b"SH", planted.get(Spot::StudyId)),
            (0x0020_4000, b"LT", planted.get(Spot::ImageComments)),
            (0x0032_1032, b"PN", person(Spot::RequestingPhysician)),
            (0x0040_0253, b"SH", planted.get(Spot::PerformedStepId)),
            (0x0099_0010, b"LO", Some("PHANTOM PRIVATE".to_owned())),
            (0x0099_1001, b"LO", planted.get(Spot::PrivateText)),
        ];
        for (tag, vr, value) in plain {
            if let Some(value) = value {
                set.text(tag, vr, value);
            }
        }
    }

    /// What stands in sequences, and in sequences of sequences.
    fn nest(&self, set: &mut DataSet) {
        let planted = |spot: Spot| self.planted.has(spot).then(|| self.planted.canary(spot));
        let one = |tag: u32, vr: &[u8; 2], value: String| {
            let mut item = DataSet::default();
            item.text(tag, vr, value);
            item
        };
        if let Some(id) = planted(Spot::OtherPatientIdInSequence) {
            set.item(0x0010_1002, one(0x0010_0020, b"LO", id));
        }
        if let Some(name) = planted(Spot::RequestedProcedure) {
            set.item(0x0040_0275, one(0x0032_1060, b"LO", name));
        }
        if let Some(name) = planted(Spot::OriginalAttributes) {
            let mut modified = DataSet::default();
            modified.item(0x0400_0550, one(0x0010_0010, b"PN", name));
            set.item(0x0400_0561, modified);
        }
        if let Some(name) = planted(Spot::ReferencedPatient) {
            let mut purpose = one(0x0008_1155, b"UI", self.uid_of(1, 9));
            purpose.text(0x0008_1150, b"UI", CR);
            purpose.text(0x0010_0010, b"PN", name);
            set.item(0x0008_1140, purpose);
        }
        if let Some(text) = planted(Spot::PrivateNested) {
            set.item(0x0099_1002, one(0x0099_1003, b"LT", text));
        }
    }

    /// Preamble, meta group and data set.
    fn file(&self, class: &str, set: &DataSet, syntax: Syntax) -> Vec<u8> {
        let instance = set.get_text(0x0008_0018).unwrap_or_default();
        let mut meta = DataSet::default();
        meta.put(0x0002_0001, b"OB", Value::Bytes(vec![0, 1]));
        meta.text(0x0002_0002, b"UI", class);
        meta.text(0x0002_0003, b"UI", instance);
        meta.text(0x0002_0010, b"UI", syntax.uid());
        meta.text(0x0002_0012, b"UI", IMPLEMENTATION);
        if self.planted.has(Spot::AeTitle) {
            meta.text(0x0002_0016, b"AE", self.planted.canary(Spot::AeTitle));
        }
        let meta = meta.encode(Encoding { explicit: true, big_endian: false, lengths: true });
        let mut out = vec![0; 128];
        out.extend(b"DICM\x02\x00\x00\x00UL\x04\x00");
        out.extend((meta.len() as u32).to_le_bytes());
        out.extend(meta);
        out.extend(syntax.write(set));
        out
    }
}

fn code(value: &str, scheme: &str, meaning: &str) -> DataSet {
    let mut set = DataSet::default();
    set.text(0x0008_0100, b"SH", value);
    set.text(0x0008_0102, b"SH", scheme);
    set.text(0x0008_0104, b"LO", meaning);
    set
}

fn content_item(relation: &str, kind: &str, concept: DataSet) -> DataSet {
    let mut item = DataSet::default();
    item.text(0x0040_A010, b"CS", relation);
    item.text(0x0040_A040, b"CS", kind);
    item.items(0x0040_A043, vec![concept]);
    item
}

fn text_item(value: &str, meaning: &str, text: String) -> DataSet {
    let mut item = content_item("CONTAINS", "TEXT", code(value, "DCM", meaning));
    item.text(0x0040_A160, b"UT", text);
    item
}
