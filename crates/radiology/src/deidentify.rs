//! What identifies a patient, and how it is removed: DICOM objects by the Basic Application Level
//! Confidentiality Profile of PS3.15 Annex E and its options, report texts by rules.
//!
//! Identifiers that have to stay comparable (UIDs, the patient) are replaced by keyed hashes, so that the
//! same key gives the same replacements in every file and run, and nobody without the key can go back.
//! Dates of a patient move by the same number of days. Deliberately absent: pixels, which are neither
//! looked into nor changed; and a promise that rules find every name in prose.

mod action;
mod attributes;
mod count;
mod dataset;
mod date;
mod file;
mod key;
mod known;
mod scrub;
mod study;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use dicom_dictionary_std::tags;
use dicom_object::{FileDicomObject, InMemDicomObject};

pub use count::{Counts, Kind};
pub use file::{CleanFile, FileError};
pub use key::{KeyError, KeyFile, open_key};
pub use known::Known;
pub use study::{ScrubbedStudy, StudyFields};

/// What was removed from a text, by kind.
pub type Scrubbed = Counts;

/// What a redaction is written as, in texts.
pub const REDACTED: &str = "___";

/// What happens to dates and times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dates {
    /// Moved by a number of days of the patient's own, -365 to -1; times of day stay. The intervals between
    /// the studies of a patient are true, the dates are not (modified dates option, 113107).
    #[default]
    Shift,
    /// Kept (full dates option, 113106).
    Keep,
    /// Removed, as the Basic Profile alone wants.
    Remove,
}

/// What happens to pictures that have, or may have, names burned into their pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BurnedIn {
    /// Burned In Annotation YES is refused; pictures of kinds that often have it, and do not say, are
    /// flagged.
    #[default]
    Refuse,
    /// Both are refused.
    RefuseSuspected,
    /// Both are flagged.
    Flag,
    /// Neither is mentioned.
    Accept,
}

/// What was found out about annotation in the pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Annotation {
    /// No sign of it.
    #[default]
    None,
    /// The kind of picture often has it: screen captures, scanned film, ultrasound, endoscopy, photographs.
    Suspected,
    /// Burned In Annotation is YES.
    Declared,
}

/// How to de-identify. The defaults are the Basic Profile with modified dates and cleaned structured
/// content.
#[derive(Clone)]
pub struct Options {
    /// Secret of the replacements; see [`open_key`].
    pub key: [u8; 32],
    /// UIDs stay (113110).
    pub retain_uids: bool,
    /// Names and numbers of devices stay (113109).
    pub retain_device_identity: bool,
    /// Name and address of the institution stay (113112).
    pub retain_institution_identity: bool,
    /// Age, sex, size, weight and the like stay (113108); ages over 89 become 90.
    pub retain_patient_characteristics: bool,
    /// Dates and times.
    pub dates: Dates,
    /// Descriptions stay, scrubbed as texts are (113105).
    pub clean_descriptors: bool,
    /// Content of structured reports stays, its texts scrubbed (113104); without this it is removed.
    pub clean_structured_content: bool,
    /// Graphic annotations stay, their texts scrubbed (113103). Overlays and curves never do.
    pub clean_graphics: bool,
    /// Private attributes that PS3.15 Table E.3.10-1 calls safe stay (113111).
    pub retain_safe_private: bool,
    /// Names burned into pixels.
    pub burned_in: BurnedIn,
}

/// Removes what identifies patients, with one key and one set of options.
#[derive(Clone)]
pub struct Deidentifier {
    options: Options,
    uids: [u8; 32],
    patients: [u8; 32],
    days: [u8; 32],
}

/// What was removed from an object. Never a value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Removed {
    /// Attributes with a value, per action: "removed", "emptied", "replaced", "cleaned", "remapped",
    /// "shifted".
    pub actions: std::collections::BTreeMap<&'static str, u64>,
    /// Identifying values, per kind.
    pub kinds: Counts,
    /// Codes of the profile and options that were followed, with their meanings, as recorded in the object.
    pub methods: Vec<(&'static str, &'static str)>,
    /// Annotation in the pixels.
    pub annotation: Annotation,
}

/// Why an object is refused. It is then partly changed and must not be used.
#[derive(Debug, thiserror::Error)]
pub enum DeidentifyError {
    /// Burned In Annotation (0028,0301) is YES, or likely, and the policy is to refuse.
    #[error(
        "the picture {} identifying text burned into its pixels, which is not removed; clean the pixels, or \
         let such pictures pass with the burned-in policy 'flag'",
        if *.declared { "has, by Burned In Annotation (0028,0301)," } else { "is of a kind that may have" }
    )]
    BurnedIn {
        /// Whether the object says so itself.
        declared: bool,
    },
    /// Sound or moving pictures.
    #[error(
        "it is {what}, in which voices and faces identify people; leave it out, it cannot be de-identified"
    )]
    Recording {
        /// What it is.
        what: &'static str,
    },
    /// No SOP Instance UID.
    #[error("it has no SOP Instance UID (0008,0018): a directory or a damaged file; leave it out")]
    NoInstance,
    /// Sequences in sequences without end.
    #[error(
        "sequences are nested more than {limit} deep at {tag}; the file is damaged or hostile, leave it out"
    )]
    Depth {
        /// Deepest level that is entered.
        limit: usize,
        /// The sequence.
        tag: String,
    },
}

impl Options {
    /// The defaults with a key.
    pub fn new(key: [u8; 32]) -> Self {
        Self {
            key,
            retain_uids: false,
            retain_device_identity: false,
            retain_institution_identity: false,
            retain_patient_characteristics: false,
            dates: Dates::Shift,
            clean_descriptors: false,
            clean_structured_content: true,
            clean_graphics: false,
            retain_safe_private: false,
            burned_in: BurnedIn::Refuse,
        }
    }

    /// Codes (scheme DCM) and meanings of the profile and its options, as PS3.16 CID 7050 has them.
    pub fn methods(&self) -> Vec<(&'static str, &'static str)> {
        let switches = [
            (true, "113100", "Basic Application Confidentiality Profile"),
            (self.clean_graphics, "113103", "Clean Graphics Option"),
            (self.clean_structured_content, "113104", "Clean Structured Content Option"),
            (self.clean_descriptors, "113105", "Clean Descriptors Option"),
            (
                self.dates == Dates::Keep,
                "113106",
                "Retain Longitudinal Temporal Information Full Dates Option",
            ),
            (
                self.dates == Dates::Shift,
                "113107",
                "Retain Longitudinal Temporal Information Modified Dates Option",
            ),
            (self.retain_patient_characteristics, "113108", "Retain Patient Characteristics Option"),
            (self.retain_device_identity, "113109", "Retain Device Identity Option"),
            (self.retain_uids, "113110", "Retain UIDs Option"),
            (self.retain_safe_private, "113111", "Retain Safe Private Option"),
            (self.retain_institution_identity, "113112", "Retain Institution Identity Option"),
        ];
        switches.into_iter().filter(|s| s.0).map(|(_, code, meaning)| (code, meaning)).collect()
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("methods", &self.methods()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Deidentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deidentifier").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Deidentifier {
    /// A de-identifier; from the key, one secret is derived for each use.
    pub fn new(options: Options) -> Self {
        let derive = |context| blake3::derive_key(context, &options.key);
        Self {
            uids: derive("Diptych de-identification, 2026: UIDs"),
            patients: derive("Diptych de-identification, 2026: patient pseudonyms"),
            days: derive("Diptych de-identification, 2026: days that dates move"),
            options,
        }
    }

    /// The options.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Removes what identifies anybody from a DICOM object, its file meta group included, and records how
    /// that was done in it. An object that is already de-identified is treated once more.
    ///
    /// # Errors
    /// [`DeidentifyError`]; the object is then partly changed and must not be used.
    pub fn object(&self, object: &mut FileDicomObject<InMemDicomObject>) -> Result<Removed, DeidentifyError> {
        dataset::deidentify(self, object)
    }

    /// The identity of the patient of an object, by which pseudonym and days are found: Patient ID, or else
    /// name and birth date, or else the study.
    pub fn identity(object: &InMemDicomObject) -> String {
        let value = |tag| dataset::text_of(object, tag);
        let id = value(tags::PATIENT_ID);
        if !id.is_empty() {
            return id;
        }
        let name = value(tags::PATIENT_NAME);
        if name.is_empty() {
            return format!("study\n{}", value(tags::STUDY_INSTANCE_UID));
        }
        format!("name\n{}\n{}", name.to_uppercase(), value(tags::PATIENT_BIRTH_DATE))
    }

    /// The UID that stands for another: `2.25.` and 128 bits of a keyed hash. Those that DICOM itself
    /// registers (`1.2.840.10008.`) identify nobody and stay; so does an empty one.
    pub fn uid(&self, uid: &str) -> String {
        let uid = uid.trim_matches([' ', '\0']);
        if uid.is_empty() || uid.starts_with("1.2.840.10008.") || self.options.retain_uids {
            return uid.to_owned();
        }
        let hash = blake3::keyed_hash(&self.uids, uid.as_bytes());
        let half: [u8; 16] = hash.as_bytes()[..16].try_into().expect("a hash has 32 bytes");
        format!("2.25.{}", u128::from_be_bytes(half))
    }

    /// The pseudonym of a patient: `P` and 80 bits of a keyed hash, in 16 letters and digits.
    pub fn patient(&self, identity: &str) -> String {
        // 32 digits and letters: five bits each.
        const LETTERS: &[u8; 32] = b"0123456789BCDEFGHJKLMNPQRSTVWXYZ";
        let hash = blake3::keyed_hash(&self.patients, identity.trim().as_bytes());
        let bits = hash.as_bytes()[..10].iter().fold(0u128, |bits, byte| bits << 8 | u128::from(*byte));
        let letter = |i: u32| char::from(LETTERS[(bits >> (5 * i) & 31) as usize]);
        std::iter::once('P').chain((0..16).map(letter)).collect()
    }

    /// By how many days the dates of a patient move: -365 to -1.
    pub fn shift_days(&self, identity: &str) -> i64 {
        let hash = blake3::keyed_hash(&self.days, identity.trim().as_bytes());
        let bytes: [u8; 8] = hash.as_bytes()[..8].try_into().expect("a hash has 32 bytes");
        -1 - (u64::from_be_bytes(bytes) % 365) as i64
    }

    /// A date `YYYYMMDD` of a patient as the options want it; `None` for what is no date, and when dates
    /// are removed.
    pub fn shift(&self, identity: &str, date: &str) -> Option<String> {
        let date = date.trim();
        let moved = match self.options.dates {
            Dates::Remove => None,
            Dates::Keep => date::shift_da(date, 0),
            Dates::Shift => date::shift_da(date, self.shift_days(identity)),
        };
        moved.filter(|date| !date.is_empty())
    }

    /// A text without what the rules find and what is known of its study, each replaced by [`REDACTED`].
    /// Takes time linear in the text.
    pub fn text(&self, text: &str, known: &Known) -> (String, Scrubbed) {
        scrub::text(text, known)
    }

    /// What makes a study record, without what identifies the patient.
    pub fn study(&self, study: &StudyFields<'_>, report: Option<&str>, known: &Known) -> ScrubbedStudy {
        study::scrub(self, study, report, known)
    }
}

impl Removed {
    /// Adds the counts of another object.
    pub fn add(&mut self, other: &Self) {
        for (action, count) in &other.actions {
            *self.actions.entry(action).or_default() += count;
        }
        self.kinds.add(&other.kinds);
        for method in &other.methods {
            if !self.methods.contains(method) {
                self.methods.push(*method);
            }
        }
    }
}

impl BurnedIn {
    /// What can be typed.
    pub const ALL: [(&'static str, Self); 4] = [
        ("refuse", Self::Refuse),
        ("refuse-suspected", Self::RefuseSuspected),
        ("flag", Self::Flag),
        ("accept", Self::Accept),
    ];
}

impl Dates {
    /// What can be typed.
    pub const ALL: [(&'static str, Self); 3] =
        [("shift", Self::Shift), ("keep", Self::Keep), ("remove", Self::Remove)];
}

/// A word that is none of a closed set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{word}' is not one of {choices}")]
pub struct UnknownWord {
    word: String,
    choices: String,
}

macro_rules! typed {
    ($type:ty) => {
        impl FromStr for $type {
            type Err = UnknownWord;

            fn from_str(word: &str) -> Result<Self, Self::Err> {
                let found = Self::ALL.iter().find(|(name, _)| *name == word);
                found.map(|(_, value)| *value).ok_or_else(|| UnknownWord {
                    word: word.to_owned(),
                    choices: Self::ALL.map(|(name, _)| name).join(", "),
                })
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let named = Self::ALL.iter().find(|(_, value)| value == self);
                f.write_str(named.map_or("", |(name, _)| name))
            }
        }
    };
}

typed!(BurnedIn);
typed!(Dates);
