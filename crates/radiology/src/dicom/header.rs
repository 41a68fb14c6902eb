//! What is known of a DICOM file without its pixels.
//!
//! Owns: which attributes are kept, and their normal form. Identifying ones are kept apart by name; who shows
//! or stores them decides what becomes of them.

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use diptych_core::Time;

use super::dataset::DataSet;
use super::error::DicomError;
use super::open::Walked;
use super::pixels::frames_of;
use super::view::View;
use super::walk::is_pixels;

/// What a file says of itself. Absent and empty attributes are none.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Header {
    /// UID of the transfer syntax.
    pub transfer_syntax: String,
    /// Its name.
    pub transfer_syntax_name: &'static str,
    /// UID of the kind of object.
    pub sop_class: Option<String>,
    /// UID of this object.
    pub sop_instance: Option<String>,
    /// UID of the study.
    pub study_instance: Option<String>,
    /// UID of the series.
    pub series_instance: Option<String>,
    /// Number of the series within the study.
    pub series_number: Option<i64>,
    /// Number of the object within the series.
    pub instance_number: Option<i64>,
    /// Modality, such as `CR`.
    pub modality: Option<String>,
    /// From which side the image was taken.
    pub view: Option<View>,
    /// Body part, in lower case.
    pub body_part: Option<String>,
    /// Side of the body: `L`, `R` or `B`.
    pub laterality: Option<String>,
    /// Sex of the patient: `F`, `M` or `O`.
    pub sex: Option<String>,
    /// Age of the patient in whole years.
    pub age: Option<u32>,
    /// Date of the study, with its time where that is known; time zones are not.
    pub study_date: Option<Time>,
    /// Description of the study; may name somebody, as people type it.
    pub study_description: Option<String>,
    /// Description of the series; likewise.
    pub series_description: Option<String>,
    /// Manufacturer of the equipment.
    pub manufacturer: Option<String>,
    /// The character sets declared.
    pub character_set: Option<String>,
    /// Whether identifying text is burned into the pixels; none where the file does not say.
    pub burned_in: Option<bool>,
    /// Whether the patient's identity was removed; none where the file does not say.
    pub identity_removed: Option<bool>,
    /// Identifying: the patient's number.
    pub patient_id: Option<String>,
    /// Identifying: the patient's name.
    pub patient_name: Option<String>,
    /// Identifying: the date of birth as it is written.
    pub birth_date: Option<String>,
    /// Identifying: the number of the order.
    pub accession_number: Option<String>,
    /// What is declared of the pixels; none for an object without any.
    pub image: Option<ImageHeader>,
}

/// What a file declares of its pixels; checked only when they are read.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct ImageHeader {
    /// Rows of pixels.
    pub rows: Option<i64>,
    /// Columns of pixels.
    pub columns: Option<i64>,
    /// Frames; 1 where nothing is said.
    pub frames: u32,
    /// Samples of a pixel.
    pub samples_per_pixel: Option<i64>,
    /// Whether colours are stored plane by plane.
    pub planar_configuration: Option<i64>,
    /// Meaning of the samples, as it is written.
    pub photometric: Option<String>,
    /// Bits a sample takes.
    pub bits_allocated: Option<i64>,
    /// Bits of them that are used.
    pub bits_stored: Option<i64>,
    /// The highest of those.
    pub high_bit: Option<i64>,
    /// Whether samples are signed.
    pub signed: Option<bool>,
    /// Slope and intercept of the rescale, where the data set itself has them.
    pub rescale: Option<(f64, f64)>,
    /// Centre and width of the first window, where the data set itself has one.
    pub window: Option<(f64, f64)>,
    /// Whether there is a modality lookup table.
    pub has_modality_lut: bool,
    /// Whether there is a VOI lookup table.
    pub has_voi_lut: bool,
}

impl Header {
    pub(crate) fn of(walked: &Walked) -> Result<Self, DicomError> {
        let set = &walked.data_set();
        let meta = walked.meta();
        let yes = |tag, yes: &str, no: &str| match set.code(tag) {
            Some(code) if code == yes => Some(true),
            Some(code) if code == no => Some(false),
            _ => None,
        };
        let has_pixels = set.elements.0.iter().any(|element| is_pixels(element.tag));
        Ok(Self {
            transfer_syntax: walked.syntax.uid.clone(),
            transfer_syntax_name: walked.syntax.name,
            sop_class: set.code(tags::SOP_CLASS_UID).or_else(|| meta.code(tags::MEDIA_STORAGE_SOP_CLASS_UID)),
            sop_instance: set
                .code(tags::SOP_INSTANCE_UID)
                .or_else(|| meta.code(tags::MEDIA_STORAGE_SOP_INSTANCE_UID)),
            study_instance: set.code(tags::STUDY_INSTANCE_UID),
            series_instance: set.code(tags::SERIES_INSTANCE_UID),
            series_number: set.integer(tags::SERIES_NUMBER),
            instance_number: set.integer(tags::INSTANCE_NUMBER),
            modality: set.code(tags::MODALITY),
            view: View::in_set(set),
            body_part: body_part(set)?,
            laterality: set.code(tags::LATERALITY).or_else(|| set.code(tags::IMAGE_LATERALITY)),
            sex: set.code(tags::PATIENT_SEX).filter(|sex| matches!(sex.as_str(), "F" | "M" | "O")),
            age: age(set),
            study_date: study_date(set),
            study_description: set.text(tags::STUDY_DESCRIPTION)?,
            series_description: set.text(tags::SERIES_DESCRIPTION)?,
            manufacturer: set.text(tags::MANUFACTURER)?,
            character_set: Some(set.codes(tags::SPECIFIC_CHARACTER_SET).join("\\"))
                .filter(|sets| !sets.is_empty()),
            burned_in: yes(tags::BURNED_IN_ANNOTATION, "YES", "NO"),
            identity_removed: yes(tags::PATIENT_IDENTITY_REMOVED, "YES", "NO"),
            patient_id: set.text(tags::PATIENT_ID)?,
            patient_name: set.text(tags::PATIENT_NAME)?,
            birth_date: set.code(tags::PATIENT_BIRTH_DATE),
            accession_number: set.text(tags::ACCESSION_NUMBER)?,
            image: if has_pixels { Some(ImageHeader::of(set)?) } else { None },
        })
    }

    /// Whether this is the table of contents of a medium rather than an object of its own.
    pub fn is_directory(&self) -> bool {
        self.sop_class.as_deref() == Some("1.2.840.10008.1.3.10")
    }
}

impl ImageHeader {
    fn of(set: &DataSet<'_>) -> Result<Self, DicomError> {
        let pair = |a: Tag, b: Tag| Some((*set.numbers(a).first()?, *set.numbers(b).first()?));
        Ok(Self {
            rows: set.integer(tags::ROWS),
            columns: set.integer(tags::COLUMNS),
            frames: frames_of(set)?,
            samples_per_pixel: set.integer(tags::SAMPLES_PER_PIXEL),
            planar_configuration: set.integer(tags::PLANAR_CONFIGURATION),
            photometric: set.code(tags::PHOTOMETRIC_INTERPRETATION),
            bits_allocated: set.integer(tags::BITS_ALLOCATED),
            bits_stored: set.integer(tags::BITS_STORED),
            high_bit: set.integer(tags::HIGH_BIT),
            signed: set.integer(tags::PIXEL_REPRESENTATION).map(|signed| signed == 1),
            rescale: pair(tags::RESCALE_SLOPE, tags::RESCALE_INTERCEPT),
            window: pair(tags::WINDOW_CENTER, tags::WINDOW_WIDTH),
            has_modality_lut: set.items(tags::MODALITY_LUT_SEQUENCE).next().is_some(),
            has_voi_lut: set.items(tags::VOILUT_SEQUENCE).next().is_some(),
        })
    }
}

fn body_part(set: &DataSet<'_>) -> Result<Option<String>, DicomError> {
    let said = match set.code(tags::BODY_PART_EXAMINED) {
        Some(part) => Some(part),
        None => match set.items(tags::ANATOMIC_REGION_SEQUENCE).next() {
            Some(region) => region.text(tags::CODE_MEANING)?,
            None => None,
        },
    };
    Ok(said.map(|part| part.to_lowercase()))
}

/// The age as it is written, such as `045Y` or `007M`, else from the date of birth to that of the study.
fn age(set: &DataSet<'_>) -> Option<u32> {
    let written = set.code(tags::PATIENT_AGE).and_then(|age| {
        let (number, unit) = age.split_at_checked(age.len().checked_sub(1)?)?;
        let number: u32 = number.trim().parse().ok()?;
        match unit {
            "Y" => Some(number),
            "M" => Some(number / 12),
            "W" => Some(number / 52),
            "D" => Some(number / 365),
            _ => None,
        }
    });
    written
        .or_else(|| {
            let (birth, study) =
                (day(&set.code(tags::PATIENT_BIRTH_DATE)?)?, day(&set.code(tags::STUDY_DATE)?)?);
            let before_birthday = (study.1, study.2) < (birth.1, birth.2);
            study.0.checked_sub(birth.0)?.checked_sub(u32::from(before_birthday))
        })
        .filter(|&years| years < 150)
}

/// Year, month and day of a date, with the points that were once allowed or without.
fn day(date: &str) -> Option<(u32, u32, u32)> {
    let digits = date.replace('.', "");
    if digits.len() != 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number = |range| digits.get(range).and_then(|part: &str| part.parse().ok());
    Some((number(0..4)?, number(4..6)?, number(6..8)?))
}

fn study_date(set: &DataSet<'_>) -> Option<Time> {
    let (year, month, day) = day(&set.code(tags::STUDY_DATE)?)?;
    let date = format!("{year:04}-{month:02}-{day:02}");
    let time = set.code(tags::STUDY_TIME).unwrap_or_default().replace(':', "");
    let part = |range| time.get(range).filter(|part: &&str| part.bytes().all(|byte| byte.is_ascii_digit()));
    let clock = part(0..2)
        .map(|hours| format!("{hours}:{}:{}", part(2..4).unwrap_or("00"), part(4..6).unwrap_or("00")));
    clock.and_then(|clock| format!("{date}T{clock}Z").parse().ok()).or_else(|| date.parse().ok())
}
