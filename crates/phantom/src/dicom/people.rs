//! What identifies the imagined people: unique names and numbers, where they are planted, and which of them
//! are on the list of canaries.
//!
//! A canary is a string that occurs nowhere else: whoever finds it behind a de-identification has found a
//! leak. Deliberately absent: putting them into files.

use super::course::{Place, civil};

/// Where a canary is planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Spot {
    // Of the patient: the same in all studies.
    PatientName,
    PatientId,
    PatientBirthDate,
    // Of the study.
    OtherPatientIds,
    OtherPatientIdInSequence,
    PatientAddress,
    PatientPhone,
    MothersName,
    PatientComments,
    History,
    Accession,
    StudyId,
    StudyUid,
    StudyDescription,
    SeriesDescription,
    ReferringPhysician,
    Operator,
    Institution,
    InstitutionAddress,
    Station,
    SerialNumber,
    ImageComments,
    RequestedProcedure,
    RequestingPhysician,
    PerformedStepId,
    OriginalAttributes,
    ReferencedPatient,
    PrivateText,
    PrivateNested,
    OverlayComments,
    AeTitle,
    FolderName,
    TitledName,
    SignedName,
    DictatedName,
    ToldName,
    TextPatientName,
    TextPatientId,
    TextPhone,
    TextMail,
    TextLink,
    TextAddress,
    TextHospital,
    TextDate,
    TextSocialSecurity,
    TextAccession,
    Observer,
}

/// What kind of string a spot takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `Zukovape`, as DICOM or prose writes names.
    Name,
    Id,
    Date,
    Address,
    Phone,
    Mail,
    Link,
    SocialSecurity,
    Uid,
    Sentence,
}

impl Spot {
    const ALL: [Self; 47] = [
        Self::PatientName,
        Self::PatientId,
        Self::PatientBirthDate,
        Self::OtherPatientIds,
        Self::OtherPatientIdInSequence,
        Self::PatientAddress,
        Self::PatientPhone,
        Self::MothersName,
        Self::PatientComments,
        Self::History,
        Self::Accession,
        Self::StudyId,
        Self::StudyUid,
        Self::StudyDescription,
        Self::SeriesDescription,
        Self::ReferringPhysician,
        Self::Operator,
        Self::Institution,
        Self::InstitutionAddress,
        Self::Station,
        Self::SerialNumber,
        Self::ImageComments,
        Self::RequestedProcedure,
        Self::RequestingPhysician,
        Self::PerformedStepId,
        Self::OriginalAttributes,
        Self::ReferencedPatient,
        Self::PrivateText,
        Self::PrivateNested,
        Self::OverlayComments,
        Self::AeTitle,
        Self::FolderName,
        Self::TitledName,
        Self::SignedName,
        Self::DictatedName,
        Self::ToldName,
        Self::TextPatientName,
        Self::TextPatientId,
        Self::TextPhone,
        Self::TextMail,
        Self::TextLink,
        Self::TextAddress,
        Self::TextHospital,
        Self::TextDate,
        Self::TextSocialSecurity,
        Self::TextAccession,
        Self::Observer,
    ];
    /// How many of them belong to the patient.
    const OF_PATIENT: usize = 3;

    /// The name of the spot in the list of canaries.
    pub(super) fn name(self) -> String {
        // patient_name of PatientName
        let mut out = String::new();
        for c in format!("{self:?}").chars() {
            if c.is_ascii_uppercase() && !out.is_empty() {
                out.push('_');
            }
            out.push(c.to_ascii_lowercase());
        }
        out
    }

    fn form(self) -> Form {
        match self {
            Self::PatientBirthDate | Self::TextDate => Form::Date,
            Self::PatientAddress | Self::InstitutionAddress | Self::TextAddress => Form::Address,
            Self::PatientPhone | Self::TextPhone => Form::Phone,
            Self::TextMail => Form::Mail,
            Self::TextLink => Form::Link,
            Self::TextSocialSecurity => Form::SocialSecurity,
            Self::StudyUid => Form::Uid,
            Self::PatientId
            | Self::OtherPatientIds
            | Self::OtherPatientIdInSequence
            | Self::Accession
            | Self::StudyId
            | Self::SerialNumber
            | Self::PerformedStepId
            | Self::TextPatientId
            | Self::TextAccession => Form::Id,
            Self::PatientComments
            | Self::History
            | Self::StudyDescription
            | Self::SeriesDescription
            | Self::ImageComments
            | Self::PrivateText
            | Self::PrivateNested
            | Self::OverlayComments => Form::Sentence,
            _ => Form::Name,
        }
    }
}

/// The strings of one study.
pub(super) struct Planted {
    seed: u64,
    study: u64,
    patient: u64,
    /// Of the patient's first study: whether each of its own spots has a canary.
    of_patient: [bool; Spot::OF_PATIENT],
    chosen: Vec<Spot>,
}

/// Canaries of a study, when a set of studies has so many.
fn quota(study: u64, studies: u64, canaries: u64) -> usize {
    (canaries / studies + u64::from(study < canaries % studies)) as usize
}

/// Most canaries that a set of studies can have planted, whoever their patients are.
pub(super) fn canaries_max(studies: u64) -> u64 {
    studies * (Spot::ALL.len() - Spot::OF_PATIENT) as u64
}

impl Planted {
    /// The strings of the study `study` of `studies`, among which `canaries` are shared out.
    pub(super) fn new(seed: u64, study: u64, studies: u64, canaries: u64, place: Place) -> Self {
        let first = study - place.number as u64;
        let of_first = quota(first, studies, canaries);
        let of_patient = std::array::from_fn(|i| i < of_first);
        let mut chosen = Vec::new();
        let mut left = quota(study, studies, canaries);
        if place.number == 0 {
            chosen.extend(Spot::ALL[..Spot::OF_PATIENT].iter().take(left));
            left -= chosen.len();
        }
        // Every study goes on where the one before stopped, so that few canaries reach all spots too.
        let rest = &Spot::ALL[Spot::OF_PATIENT..];
        let start = (study * 13) as usize % rest.len();
        chosen.extend((0..rest.len().min(left)).map(|i| rest[(start + i) % rest.len()]));
        Self { seed, study, patient: place.patient, of_patient, chosen }
    }

    /// The spots with a canary that are new with this study.
    pub(super) fn chosen(&self) -> &[Spot] {
        &self.chosen
    }

    /// Whether a spot has a canary.
    pub(super) fn has(&self, spot: Spot) -> bool {
        let index = spot as usize;
        if index < Spot::OF_PATIENT { self.of_patient[index] } else { self.chosen.contains(&spot) }
    }

    /// The string of a spot, a canary or not. `None` where there is nothing to say without one.
    pub(super) fn get(&self, spot: Spot) -> Option<String> {
        if self.has(spot) {
            return Some(self.canary(spot));
        }
        Some(match spot {
            Spot::PatientName => "Phantom".to_owned(),
            Spot::PatientId => format!("PH{:06}", self.patient),
            Spot::Accession => format!("A{:06}", self.study),
            Spot::StudyUid => format!("2.25.{}", 1_000_000_000_000u128 + u128::from(self.number(spot))),
            Spot::ReferringPhysician => "Unknown".to_owned(),
            Spot::Institution => "Phantom Hospital".to_owned(),
            _ => return None,
        })
    }

    /// The unique string of a spot.
    pub(super) fn canary(&self, spot: Spot) -> String {
        let n = self.number(spot);
        let word = word(n);
        match spot.form() {
            Form::Name => word,
            Form::Id => format!("{}{:09}", &word[..2].to_uppercase(), 100_000_007 + n * 137),
            Form::Date => {
                // Before any study, so that a moved date is never one of them by chance.
                let (year, month, day) = civil(-14_000 + (n % 13_500) as i64);
                format!("{year:04}{month:02}{day:02}")
            }
            Form::Address => format!("{} {word} Street", 100 + n % 9000),
            Form::Phone => format!("({}) {:03}-{:04}", 201 + n % 700, 200 + n / 700 % 700, n % 10_000),
            Form::Mail => format!("{}@example.org", word.to_lowercase()),
            Form::Link => format!("https://{}.example.org/report", word.to_lowercase()),
            Form::SocialSecurity => format!("{:03}-{:02}-{:04}", 100 + n % 800, 10 + n % 89, n % 10_000),
            Form::Uid => format!("1.2.826.0.1.3680043.99999.{}", 100_000_007 + n * 137),
            Form::Sentence => format!("As told by {word}"),
        }
    }

    /// A number of its own for each spot of each study, or of each patient.
    fn number(&self, spot: Spot) -> u64 {
        let of_patient = (spot as usize) < Spot::OF_PATIENT;
        let owner = if of_patient { self.patient } else { self.study };
        let plain = owner * 64 + spot as u64;
        // Odd and no multiple of five, so that no two numbers below 50^4 become one.
        (plain.wrapping_mul(2_654_437) + self.seed % 6_250_000) % 6_250_000
    }
}

/// Four syllables, different for every number below 50^4.
fn word(number: u64) -> String {
    const SYLLABLES: [&str; 50] = [
        "ba", "be", "bo", "da", "de", "do", "fa", "fe", "fo", "ga", "ge", "go", "ha", "he", "ho", "ja", "je",
        "jo", "ka", "ke", "ko", "la", "le", "lo", "ma", "me", "mo", "na", "ne", "no", "pa", "pe", "po", "ra",
        "re", "ro", "sa", "se", "so", "ta", "te", "to", "va", "ve", "vo", "wa", "za", "ze", "zo", "xu",
    ];
    let mut rest = number;
    let mut out = String::from("Q");
    for _ in 0..4 {
        out.push_str(SYLLABLES[(rest % 50) as usize]);
        rest /= 50;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn five_hundred_canaries_are_five_hundred_strings_on_all_spots() {
        let studies = 60;
        let places = super::super::course::places(1, studies);
        let mut values = BTreeSet::new();
        let mut spots = BTreeSet::new();
        let mut count = 0;
        for (study, place) in places.iter().enumerate() {
            let planted = Planted::new(1, study as u64, studies, 500, *place);
            count += planted.chosen().len();
            for spot in planted.chosen() {
                spots.insert(*spot);
                values.insert(planted.get(*spot).unwrap_or_default());
            }
        }
        assert_eq!((count, spots.len()), (500, Spot::ALL.len()));
        assert_eq!(values.len(), 500, "all different");
        assert!(Spot::ALL.iter().enumerate().all(|(i, spot)| *spot as usize == i));
    }

    #[test]
    fn words_differ() {
        let words: BTreeSet<String> = (0..20_000).map(word).collect();
        assert_eq!(words.len(), 20_000);
        assert!(words.iter().all(|w| w.len() == 9));
    }
}
