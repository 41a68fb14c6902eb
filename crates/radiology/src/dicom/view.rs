//! From which side an image was taken, in the few words that can be searched for.
//!
//! Owns: the many spellings of a view, and where in a data set it may be said. Deliberately absent: a guess
//! from the pixels.

use dicom_dictionary_std::tags;

use super::dataset::DataSet;

/// A projection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum View {
    /// From behind, the patient's front to the detector.
    Pa,
    /// From the front.
    Ap,
    /// From either side.
    Lateral,
    /// From between the front and a side.
    Oblique,
    /// Lying on a side.
    Decubitus,
    /// Mammography from above.
    Cc,
    /// Mammography at a slant.
    Mlo,
}

impl View {
    /// How it is written in attributes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pa => "PA",
            Self::Ap => "AP",
            Self::Lateral => "LATERAL",
            Self::Oblique => "OBLIQUE",
            Self::Decubitus => "DECUBITUS",
            Self::Cc => "CC",
            Self::Mlo => "MLO",
        }
    }

    /// The view that a term or a description names, in any of its spellings; none where it names none.
    pub fn of(text: &str) -> Option<Self> {
        let text =
            text.to_ascii_lowercase().replace("postero-anterior", "pa").replace("antero-posterior", "ap");
        let mut words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        // A word that stands for the patient's position goes before one that stands for the beam.
        let found: Vec<Self> = words.by_ref().filter_map(Self::of_word).collect();
        let order = [Self::Decubitus, Self::Mlo, Self::Cc, Self::Oblique, Self::Lateral, Self::Pa, Self::Ap];
        order.into_iter().find(|view| found.contains(view))
    }

    fn of_word(word: &str) -> Option<Self> {
        Some(match word {
            "pa" | "posteroanterior" | "posterioranterior" => Self::Pa,
            "ap" | "anteroposterior" | "anteriorposterior" => Self::Ap,
            "l" | "lat" | "lateral" | "ll" | "rl" | "lateralis" | "sag" => Self::Lateral,
            "obl" | "oblique" | "rao" | "lao" | "rpo" | "lpo" | "rlo" | "llo" => Self::Oblique,
            "decub" | "decubitus" | "lld" | "rld" => Self::Decubitus,
            "cc" | "xccl" | "craniocaudal" => Self::Cc,
            "mlo" | "ml" | "lm" | "lmo" | "mediolateral" => Self::Mlo,
            _ => return None,
        })
    }

    /// The view of an image: its own attribute, a code, a description, or how the patient lies to the picture.
    pub(crate) fn in_set(set: &DataSet<'_>) -> Option<Self> {
        let modality = set.code(tags::MODALITY).unwrap_or_default();
        if !matches!(modality.as_str(), "CR" | "DX" | "DR" | "RG" | "MG" | "IO" | "PX" | "OT" | "") {
            return None;
        }
        let text = |tag| set.text(tag).ok().flatten().unwrap_or_default();
        let code = || set.items(tags::VIEW_CODE_SEQUENCE).find_map(|item| Self::of_code(&item));
        Self::of(&text(tags::VIEW_POSITION))
            .or_else(code)
            .or_else(|| {
                let places = [
                    tags::SERIES_DESCRIPTION,
                    tags::ACQUISITION_DEVICE_PROCESSING_DESCRIPTION,
                    tags::PROTOCOL_NAME,
                ];
                places.into_iter().find_map(|tag| Self::of(&without_single_letters(&text(tag))))
            })
            .or_else(|| Self::of_orientation(&set.codes(tags::PATIENT_ORIENTATION)))
    }

    fn of_code(item: &DataSet<'_>) -> Option<Self> {
        match item.code(tags::CODE_VALUE).as_deref() {
            Some("R-10206" | "399348003") => Some(Self::Ap),
            Some("R-10214" | "399173006") => Some(Self::Pa),
            Some("R-10236" | "R-10232" | "399067008" | "399260004") => Some(Self::Lateral),
            _ => Self::of(&item.text(tags::CODE_MEANING).ok().flatten()?),
        }
    }

    /// Rows that run from front to back show a side; others do not tell PA from AP.
    fn of_orientation(orientation: &[String]) -> Option<Self> {
        match orientation {
            [row, column] if matches!(row.as_str(), "A" | "P") && matches!(column.as_str(), "F" | "H") => {
                Some(Self::Lateral)
            }
            _ => None,
        }
    }
}

/// In free text a letter alone is a side of the body rather than a view.
fn without_single_letters(text: &str) -> String {
    text.split_whitespace().filter(|word| word.len() > 1).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_have_many_spellings() {
        for (text, view) in [
            ("PA", Some(View::Pa)),
            ("ap portable", Some(View::Ap)),
            ("CHEST LAT.", Some(View::Lateral)),
            ("LL", Some(View::Lateral)),
            ("postero-anterior", Some(View::Pa)),
            ("Left lateral decubitus", Some(View::Decubitus)),
            ("L-MLO", Some(View::Mlo)),
            ("chest", None),
            ("", None),
        ] {
            assert_eq!(View::of(text), view, "{text}");
        }
    }
}
