//! Seeded synthetic chest radiographs with reports and labels.
//!
//! Owns: what a phantom case is, how its anatomy and findings are drawn from a seed, how both become
//! a picture and a report, and how a set of cases is written to a folder. Everything about a case is
//! a pure function of `(seed, index)`; pictures are computed with additions, multiplications,
//! divisions and square roots alone, which IEEE 754 defines to the last bit, so a case has the same
//! bytes on every machine.
//! Deliberately absent: models, stores, and any claim of clinical realism. Phantoms prove behaviour.

mod anatomy;
mod dicom;
mod draw;
mod finding;
mod render;
mod report;
#[cfg(test)]
mod tests;
mod wording;
mod write;

use image::GrayImage;

pub use anatomy::{Anatomy, Sex, Trait, View};
pub use dicom::{ArchiveOptions, ArchiveSummary, CanaryLine, StudyLine, write_archive};
pub use finding::{Amount, Density, Finding, Line, Severity, Side, Sides, Sign, Size, Zone};
pub use render::{SIZE_MAX, SIZE_MIN, render};
pub use write::{CaseLine, CaseLineAttributes, PhantomError, Summary, write};

use draw::{Draw, Purpose};

/// Width and height of a case's picture unless another size is asked for, in pixels.
pub const SIZE_DEFAULT: u32 = 256;

/// One synthetic examination: a picture, its report, and what is true of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// Name, `phantom-000123` for index 123.
    pub key: String,
    /// The picture, square. The patient's left is on the right of frontal pictures.
    pub image: GrayImage,
    /// The whole report, `FINDINGS: ... IMPRESSION: ...`, in one line.
    pub report: String,
    /// The text after `IMPRESSION:` alone.
    pub impression: String,
    /// The positive findings, none to three; empty in a normal case.
    pub findings: Vec<Finding>,
    /// The findings as labels such as `effusion.left.large`, sorted; `["none"]` in a normal case.
    pub labels: Vec<String>,
    /// Projection.
    pub view: View,
    /// Sex of the imagined patient.
    pub sex: Sex,
    /// Age of the imagined patient in years.
    pub age: u32,
    /// What else is visible and named in reports, such as low lung volumes.
    pub traits: Vec<Trait>,
}

impl Case {
    /// All labels as one string, `effusion.left.large|nodule.right.upper.small`: two cases show the
    /// same findings exactly when this is equal.
    pub fn label_set(&self) -> String {
        self.labels.join("|")
    }
}

/// The case `index` of the set `seed`, with a picture of [`SIZE_DEFAULT`] pixels.
pub fn case(seed: u64, index: u64) -> Case {
    case_sized(seed, index, SIZE_DEFAULT)
}

/// The case `index` of the set `seed`, with a picture of `size` x `size` pixels. Everything but the
/// picture is the same at every size, and so is the scene in the picture.
///
/// # Panics
/// When `size` is outside [`SIZE_MIN`]`..=`[`SIZE_MAX`].
pub fn case_sized(seed: u64, index: u64, size: u32) -> Case {
    let (anatomy, signs) = scene(seed, index);
    let image = render(&anatomy, &signs, size);
    let text = report::write(&mut Draw::new(seed, index, Purpose::Words), &anatomy, &signs);
    let findings: Vec<Finding> = signs.iter().map(|s| s.finding).collect();
    Case {
        key: key(index),
        image,
        report: text.report,
        impression: text.impression,
        labels: finding::labels(&findings),
        findings,
        view: anatomy.view(),
        sex: anatomy.sex(),
        age: anatomy.age(),
        traits: anatomy.traits(),
    }
}

/// The anatomy and findings of a case, before they are rendered: for pictures of the same patient
/// with other findings.
pub fn scene(seed: u64, index: u64) -> (Anatomy, Vec<Sign>) {
    let anatomy = Anatomy::draw(&mut Draw::new(seed, index, Purpose::Anatomy));
    let signs = finding::draw(&mut Draw::new(seed, index, Purpose::Findings), anatomy.view());
    (anatomy, signs)
}

fn key(index: u64) -> String {
    format!("phantom-{index:06}")
}
