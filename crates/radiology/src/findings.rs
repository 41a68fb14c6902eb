//! Findings: what a report says is there, absent or uncertain.
//!
//! Owns: the names of observations, what a sentence says of each, and what the sentences of a report come to. Rules
//! over a lexicon: nothing is learned and nothing is looked at but the words. They were written for English
//! reports of chest radiographs.
//! Deliberately absent: sections (see `report`), severity, place and change over time.

mod anatomy;
mod lexicon;
mod scope;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use diptych_core::{AttributeValue, Attributes, sentences};

use crate::report::{REPORT_BYTES_MAX, Report, SectionKind};
use scope::{Statement, statements};

/// What may be found. The first fourteen are those of CheXpert (Irvin et al., 2019).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Observation {
    /// Nothing out of the ordinary; devices do not count.
    NoFinding,
    /// A wide mediastinum, with or without the heart.
    EnlargedCardiomediastinum,
    /// An enlarged heart.
    Cardiomegaly,
    /// Anything that makes lung opaque: opacity, infiltrate, interstitial markings.
    Opacity,
    /// A mass, nodule, cavity or tumour of the lung.
    Lesion,
    /// Edema of the lung, congestion and heart failure.
    Edema,
    /// Airspace filled: consolidation, airspace disease, infiltrate.
    Consolidation,
    /// Pneumonia and other infection.
    Pneumonia,
    /// Atelectasis and collapse.
    Atelectasis,
    /// Air in the pleural space.
    Pneumothorax,
    /// Fluid in the pleural space.
    Effusion,
    /// Thickening, plaques and scars of the pleura.
    PleuralOther,
    /// A broken bone, old or new.
    Fracture,
    /// Any tube, line or implanted device that supports the patient.
    Device,
    /// A tube in the trachea through the mouth.
    EndotrachealTube,
    /// A catheter in a central vein, ports included.
    CentralLine,
    /// A drain in the pleural space.
    ChestTube,
    /// A pacemaker or defibrillator.
    Pacemaker,
    /// A tube to the stomach or beyond.
    NasogastricTube,
    /// A nodule of the lung; a lesion too.
    Nodule,
}

use Observation::*;

impl Observation {
    /// All of them.
    pub const ALL: [Self; 20] = [
        NoFinding,
        EnlargedCardiomediastinum,
        Cardiomegaly,
        Opacity,
        Lesion,
        Edema,
        Consolidation,
        Pneumonia,
        Atelectasis,
        Pneumothorax,
        Effusion,
        PleuralOther,
        Fracture,
        Device,
        EndotrachealTube,
        CentralLine,
        ChestTube,
        Pacemaker,
        NasogastricTube,
        Nodule,
    ];

    /// Its name in attributes, after `finding.`.
    pub fn as_str(self) -> &'static str {
        match self {
            NoFinding => "no_finding",
            EnlargedCardiomediastinum => "enlarged_cardiomediastinum",
            Cardiomegaly => "cardiomegaly",
            Opacity => "opacity",
            Lesion => "lesion",
            Edema => "edema",
            Consolidation => "consolidation",
            Pneumonia => "pneumonia",
            Atelectasis => "atelectasis",
            Pneumothorax => "pneumothorax",
            Effusion => "effusion",
            PleuralOther => "pleural_other",
            Fracture => "fracture",
            Device => "device",
            EndotrachealTube => "endotracheal_tube",
            CentralLine => "central_line",
            ChestTube => "chest_tube",
            Pacemaker => "pacemaker",
            NasogastricTube => "nasogastric_tube",
            Nodule => "nodule",
        }
    }

    /// What it is an instance of: a central line is a device, a nodule a lesion.
    pub fn parent(self) -> Option<Self> {
        match self {
            EndotrachealTube | CentralLine | ChestTube | Pacemaker | NasogastricTube => Some(Device),
            Nodule => Some(Lesion),
            _ => None,
        }
    }

    /// Whether it is something abnormal in the patient: neither [`Self::NoFinding`] nor a device.
    pub fn is_abnormal(self) -> bool {
        self != NoFinding && self != Device && self.parent() != Some(Device)
    }
}

impl fmt::Display for Observation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name that is no observation's, or no status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{name}' is no {what}; use one of {known}")]
pub struct UnknownName {
    what: &'static str,
    name: String,
    known: String,
}

impl FromStr for Observation {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        Self::ALL.into_iter().find(|o| o.as_str() == name).ok_or_else(|| UnknownName {
            what: "finding",
            name: name.to_owned(),
            known: Self::ALL.map(Self::as_str).join(", "),
        })
    }
}

/// What is said of an observation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    /// It is there.
    Present,
    /// It is not there.
    Absent,
    /// It may be there.
    Uncertain,
}

use Status::*;

impl Status {
    /// All of them.
    pub const ALL: [Self; 3] = [Present, Absent, Uncertain];

    /// `present`, `absent` or `uncertain`.
    pub fn as_str(self) -> &'static str {
        match self {
            Present => "present",
            Absent => "absent",
            Uncertain => "uncertain",
        }
    }

    /// Of two statements that count alike, what is there outweighs what may be, and that what is not.
    fn weight(self) -> u8 {
        match self {
            Present => 2,
            Uncertain => 1,
            Absent => 0,
        }
    }
}

impl FromStr for Status {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        Self::ALL.into_iter().find(|s| s.as_str() == name).ok_or_else(|| UnknownName {
            what: "status",
            name: name.to_owned(),
            known: Self::ALL.map(Self::as_str).join(", "),
        })
    }
}

/// What is said of each observation; those of which nothing is said are not there.
pub type Findings = BTreeMap<Observation, Status>;

/// What a report says. The impression and addenda outweigh the findings section, which is weighed only where they
/// say nothing; a statement about a whole ("lungs are clear") counts only where nothing else is said. Among
/// equals present outweighs uncertain, and that absent.
///
/// [`Observation::NoFinding`] follows from the others: absent with anything abnormal, uncertain with
/// something uncertain, else present where the report says so or denies anything.
pub fn of_report(report: &Report) -> Findings {
    let mut gathered = Gathered::default();
    for (kind, sentence) in report.sentences() {
        let weight = match kind {
            SectionKind::Impression | SectionKind::Addendum => 2,
            _ => 1,
        };
        gathered.add(sentence, weight);
    }
    let mut findings = gathered.findings();
    let stated = |status| findings.iter().any(|(o, s)| o.is_abnormal() && *s == status);
    let normal = if stated(Present) {
        Some(Absent)
    } else if stated(Uncertain) {
        Some(Uncertain)
    } else {
        (stated(Absent) || findings.contains_key(&NoFinding)).then_some(Present)
    };
    findings.remove(&NoFinding);
    findings.extend(normal.map(|status| (NoFinding, status)));
    findings
}

/// What bare sentences say, such as a query. Nothing is concluded from what they leave out.
pub fn of_text(text: &str) -> Findings {
    let mut gathered = Gathered::default();
    for sentence in sentences(bounded(text)) {
        gathered.add(sentence, 1);
    }
    gathered.findings()
}

/// What one sentence says, each observation once, in the order of [`Observation::ALL`].
pub fn of_sentence(sentence: &str) -> Vec<(Observation, Status)> {
    let mut gathered = Gathered::default();
    gathered.add(bounded(sentence), 1);
    gathered.findings().into_iter().collect()
}

/// What attributes of findings are named by, before the observation.
pub const ATTRIBUTE_PREFIX: &str = "finding.";

/// Findings as attributes of a record: `finding.effusion` is `present`, `absent` or `uncertain`.
pub fn to_attributes(findings: &Findings) -> Attributes {
    let named = |(observation, status): (&Observation, &Status)| {
        (format!("{ATTRIBUTE_PREFIX}{observation}"), AttributeValue::from(status.as_str()))
    };
    findings.iter().map(named).collect()
}

/// The findings among the attributes of a record; what is named or said otherwise is passed over.
pub fn from_attributes(attributes: &Attributes) -> Findings {
    let read = |(name, value): (&String, &AttributeValue)| {
        let observation = name.strip_prefix(ATTRIBUTE_PREFIX)?.parse().ok()?;
        let AttributeValue::String(status) = value else { return None };
        Some((observation, status.parse().ok()?))
    };
    attributes.iter().filter_map(read).collect()
}

/// At most as much text as a report has.
fn bounded(text: &str) -> &str {
    let end = (0..=text.len().min(REPORT_BYTES_MAX)).rev().find(|&at| text.is_char_boundary(at));
    &text[..end.unwrap_or(0)]
}

/// Statements of several sentences, the weightiest of each observation.
#[derive(Default)]
struct Gathered(BTreeMap<Observation, (u8, Status)>);

impl Gathered {
    fn add(&mut self, sentence: &str, weight: u8) {
        for Statement { observations, status, blanket } in statements(sentence) {
            let weight = if blanket { 0 } else { weight };
            for &observation in observations {
                self.put(observation, weight, status);
                // A tube that was removed says nothing of other devices.
                if status != Absent
                    && let Some(parent) = observation.parent()
                {
                    self.put(parent, weight, status);
                }
            }
        }
    }

    fn put(&mut self, observation: Observation, weight: u8, status: Status) {
        let said = self.0.entry(observation).or_insert((weight, status));
        if (weight, status.weight()) > (said.0, said.1.weight()) {
            *said = (weight, status);
        }
    }

    fn findings(self) -> Findings {
        self.0.into_iter().map(|(observation, (_, status))| (observation, status)).collect()
    }
}
