//! What is known to identify somebody in a study: the names, numbers and places of its DICOM attributes, to
//! be found again in its texts. Deliberately absent: finding them (`scrub`).

use std::collections::BTreeSet;
use std::fmt;

use dicom_core::value::Value;
use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;

use super::scrub::is_common;

/// Most numbers and places that are kept; a study has a handful.
const IDS_MAX: usize = 64;
/// Most parts of names.
const PARTS_MAX: usize = 512;
/// Deepest sequence that is looked into.
const DEPTH_MAX: usize = 16;

/// Names, numbers and places of one study.
#[derive(Clone, Default)]
pub struct Known {
    /// Parts of names in lower case, found wherever they stand.
    pub(super) parts: BTreeSet<String>,
    /// Parts that are words of reports too: found beside other parts alone.
    pub(super) weak: BTreeSet<String>,
    /// Numbers and places in lower case, found as they are.
    pub(super) ids: Vec<String>,
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Known({} parts of names, {} others)", self.parts.len() + self.weak.len(), self.ids.len())
    }
}

impl Known {
    /// What the attributes of an object say, those of its sequences included.
    pub fn of_object(object: &InMemDicomObject) -> Self {
        let mut known = Self::default();
        known.collect(object, 0);
        known
    }

    /// Adds a name, as DICOM writes it (`Family^Given^Middle`) or as people do.
    pub fn add_name(&mut self, name: &str) {
        for part in name.split(|c: char| !c.is_alphabetic() && c != '\'' && c != '’') {
            let part = part.trim_matches(['\'', '’']).to_lowercase();
            let letters = part.chars().count();
            if letters < 2 || self.parts.len() + self.weak.len() >= PARTS_MAX || is_title(&part) {
                continue;
            }
            if letters == 2 || is_common(&part) {
                self.weak.insert(part);
            } else {
                self.parts.insert(part);
            }
        }
    }

    /// Adds a number, an address or another value that is to be found as it is. Values under four
    /// characters say too little and are passed over.
    pub fn add_id(&mut self, id: &str) {
        let id = id.trim_matches([' ', '\0', '\r', '\n']).to_ascii_lowercase();
        let telling = id.chars().filter(|c| c.is_alphanumeric()).count() >= 4 && !is_common(&id);
        if telling && id.len() <= 512 && self.ids.len() < IDS_MAX && !self.ids.contains(&id) {
            self.ids.push(id);
        }
    }

    /// Adds what another knows.
    pub fn add(&mut self, other: &Self) {
        let room = PARTS_MAX.saturating_sub(self.parts.len() + self.weak.len());
        self.parts.extend(other.parts.iter().take(room).cloned());
        let room = PARTS_MAX.saturating_sub(self.parts.len() + self.weak.len());
        self.weak.extend(other.weak.iter().take(room).cloned());
        other.ids.iter().for_each(|id| self.add_id(id));
    }

    fn collect(&mut self, object: &InMemDicomObject, depth: usize) {
        for element in object.iter() {
            let header = element.header();
            if let Value::Sequence(items) = element.value() {
                if depth < DEPTH_MAX {
                    items.items().iter().for_each(|item| self.collect(item, depth + 1));
                }
                continue;
            }
            let name = header.vr() == VR::PN;
            if !name && !IDENTIFYING.contains(&header.tag) {
                continue;
            }
            let Ok(values) = element.value().to_multi_str() else { continue };
            for value in values.iter() {
                if name {
                    // The ideographic and phonetic groups of a name are names too.
                    self.add_name(value);
                } else {
                    self.add_id(value);
                }
            }
        }
    }
}

fn is_title(part: &str) -> bool {
    ["dr", "mr", "mrs", "ms", "prof", "md", "phd", "jr", "sr", "ii", "iii", "iv"].contains(&part)
}

/// Attributes whose values identify wherever they are repeated.
const IDENTIFYING: &[Tag] = &[
    tags::PATIENT_ID,
    tags::ISSUER_OF_PATIENT_ID,
    // Other Patient IDs; retired, and still found.
    Tag(0x0010, 0x1000),
    tags::PATIENT_ADDRESS,
    tags::PATIENT_TELEPHONE_NUMBERS,
    // Medical Record Locator; retired.
    Tag(0x0010, 0x1090),
    tags::ACCESSION_NUMBER,
    tags::STUDY_ID,
    tags::ADMISSION_ID,
    tags::SERVICE_EPISODE_ID,
    tags::INSTITUTION_NAME,
    tags::INSTITUTION_ADDRESS,
    tags::REQUESTED_PROCEDURE_ID,
    tags::SCHEDULED_PROCEDURE_STEP_ID,
    tags::PERFORMED_PROCEDURE_STEP_ID,
    tags::FILLER_ORDER_NUMBER_IMAGING_SERVICE_REQUEST,
    tags::PLACER_ORDER_NUMBER_IMAGING_SERVICE_REQUEST,
    tags::REFERRING_PHYSICIAN_ADDRESS,
    tags::REFERRING_PHYSICIAN_TELEPHONE_NUMBERS,
    tags::PERSON_ADDRESS,
    tags::PERSON_TELEPHONE_NUMBERS,
    tags::STATION_NAME,
    tags::DEVICE_SERIAL_NUMBER,
];
