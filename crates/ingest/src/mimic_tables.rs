//! The tables of MIMIC-CXR-JPG, packed: what they say of an image or a study.
//!
//! Owns: their columns, and that labels stay four-valued. In memory they are about 100 bytes a study for each
//! table of labels and an image for the metadata, found by 128-bit hashes of their names.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use diptych_core::AttributeValue;

use crate::csv::Table;
use crate::keys::Seeds;
use crate::study::{Study, dicom_time};

/// What the name of every table begins with.
const PREFIX: &str = "mimic-cxr-";
/// Tables of labels, and what their attributes begin with.
const LABELERS: [&str; 2] = ["chexpert", "negbio"];

/// All tables that are there.
#[derive(Default)]
pub(crate) struct Tables {
    seeds: Seeds,
    texts: Texts,
    files: Vec<PathBuf>,
    images: HashMap<[u64; 2], Image>,
    splits: HashMap<[u64; 2], u16>,
    labels: Vec<Labels>,
}

/// What the metadata says of an image.
struct Image {
    view: u16,
    procedure: u16,
    day: [u8; 8],
    /// As written, up to 10 characters.
    time: [u8; 10],
}

struct Labels {
    labeler: &'static str,
    names: Vec<String>,
    studies: HashMap<[u64; 2], Box<[Label]>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Label {
    Blank,
    Present,
    Absent,
    Uncertain,
}

/// Texts of which there are few, by number; 0 is none.
#[derive(Default)]
struct Texts {
    numbers: HashMap<String, u16>,
    texts: Vec<String>,
}

impl Texts {
    fn number(&mut self, text: &str) -> u16 {
        let text = text.trim();
        if text.is_empty() {
            return 0;
        }
        if let Some(&number) = self.numbers.get(text) {
            return number;
        }
        // Beyond so many they are no longer few, and what they say is not kept.
        let Ok(number) = u16::try_from(self.texts.len() + 1) else { return 0 };
        self.texts.push(text.to_owned());
        self.numbers.insert(text.to_owned(), number);
        number
    }

    fn text(&self, number: u16) -> Option<&str> {
        self.texts.get(usize::from(number).checked_sub(1)?).map(String::as_str)
    }
}

impl Tables {
    /// Reads those that lie in a folder. The error names the file and the reason.
    pub(crate) fn read(root: &Path) -> Result<Self, String> {
        let mut tables = Self::default();
        for path in files(root) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
            let read = if name.contains("-metadata.") {
                tables.read_metadata(&path)
            } else if name.contains("-split.") {
                tables.read_splits(&path)
            } else if let Some(labeler) = LABELERS.into_iter().find(|l| name.contains(&format!("-{l}."))) {
                tables.read_labels(&path, labeler)
            } else {
                continue;
            };
            read.map_err(|reason| format!("{}: {reason}", path.display()))?;
            tables.files.push(path);
        }
        Ok(tables)
    }

    pub(crate) fn describe(&self) -> Vec<(String, String)> {
        let said = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let what = if name.contains("metadata") {
                "views, attributes study_date and procedure".to_owned()
            } else if name.contains("split") {
                "attribute split".to_owned()
            } else {
                let labeler = LABELERS.into_iter().find(|l| name.contains(l)).unwrap_or_default();
                format!("attributes {labeler}.*: present, absent or uncertain; blank is no attribute")
            };
            (name, what)
        };
        self.files.iter().map(said).collect()
    }

    /// Adds what is known of an image.
    pub(crate) fn add_image(&self, dicom_id: &str, study: &mut Study) {
        let Some(image) = self.images.get(&self.seeds.hash(dicom_id)) else { return };
        if let Some(view) = self.texts.text(image.view) {
            study.add_view(view);
        }
        if let Some(procedure) = self.texts.text(image.procedure) {
            let value = AttributeValue::String(procedure.to_owned());
            study.attributes.entry("procedure".to_owned()).or_insert(value);
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
        let date = dicom_time(&text(&image.day), &text(&image.time));
        // A study begins with its first image.
        study.date = match (study.date, date) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }

    /// Adds what is known of a study by its number.
    pub(crate) fn add_study(&self, study_id: &str, study: &mut Study) {
        let hash = self.seeds.hash(study_id);
        if let Some(split) = self.splits.get(&hash).and_then(|&split| self.texts.text(split)) {
            study.attributes.insert("split".to_owned(), AttributeValue::String(split.to_owned()));
        }
        for labels in &self.labels {
            let Some(values) = labels.studies.get(&hash) else { continue };
            for (name, value) in labels.names.iter().zip(values) {
                let said = match value {
                    Label::Blank => continue,
                    Label::Present => "present",
                    Label::Absent => "absent",
                    Label::Uncertain => "uncertain",
                };
                let name = format!("{}.{name}", labels.labeler);
                study.attributes.insert(name, AttributeValue::String(said.to_owned()));
            }
        }
    }

    fn read_metadata(&mut self, path: &Path) -> Result<(), String> {
        let mut table = Table::open(path)?;
        let id = column(&table, "dicom_id")?;
        let optional = |name: &str| table.columns().iter().position(|column| column == name);
        let (view, day, time) = (optional("ViewPosition"), optional("StudyDate"), optional("StudyTime"));
        let procedure = optional("PerformedProcedureStepDescription");
        for_each(&mut table, |row| {
            let field = |at: Option<usize>| at.map_or("", |at| row[at].trim());
            let image = Image {
                view: self.texts.number(field(view)),
                procedure: self.texts.number(field(procedure)),
                day: packed(field(day)),
                time: packed(field(time)),
            };
            self.images.insert(self.seeds.hash(row[id].trim()), image);
            Ok(())
        })
    }

    fn read_splits(&mut self, path: &Path) -> Result<(), String> {
        let mut table = Table::open(path)?;
        let (study, split) = (column(&table, "study_id")?, column(&table, "split")?);
        for_each(&mut table, |row| {
            let number = self.texts.number(&row[split]);
            self.splits.insert(self.seeds.hash(row[study].trim()), number);
            Ok(())
        })
    }

    fn read_labels(&mut self, path: &Path, labeler: &'static str) -> Result<(), String> {
        let mut table = Table::open(path)?;
        let study = column(&table, "study_id")?;
        let chosen: Vec<usize> = (0..table.columns().len())
            .filter(|&n| !matches!(table.columns()[n].as_str(), "study_id" | "subject_id"))
            .collect();
        let names = chosen
            .iter()
            .map(|&n| table.columns()[n].trim().to_lowercase().replace([' ', '/'], "_"))
            .collect();
        let mut studies = HashMap::new();
        for_each(&mut table, |row| {
            let labels: Result<Box<[Label]>, String> = chosen.iter().map(|&n| label(&row[n])).collect();
            studies.insert(self.seeds.hash(row[study].trim()), labels?);
            Ok(())
        })?;
        self.labels.push(Labels { labeler, names, studies });
        Ok(())
    }
}

/// The tables of a folder, in order.
pub(crate) fn files(root: &Path) -> Vec<PathBuf> {
    let named = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        name.starts_with(PREFIX) && (name.ends_with(".csv") || name.ends_with(".csv.gz"))
    };
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(named).collect();
    files.sort();
    files.dedup_by_key(|path| path.to_string_lossy().trim_end_matches(".gz").to_owned());
    files
}

fn column(table: &Table, name: &str) -> Result<usize, String> {
    let place = table.columns().iter().position(|column| column == name);
    place.ok_or_else(|| format!("it has no column '{name}'; fetch the file as it is published"))
}

/// Reads a table to its end. These tables come from one program, so that one bad row is a bad file.
fn for_each(table: &mut Table, mut take: impl FnMut(&[String]) -> Result<(), String>) -> Result<(), String> {
    while let Some((line, row)) = table.next_row() {
        row.and_then(|row| take(&row)).map_err(|reason| format!("line {line}: {reason}"))?;
    }
    Ok(())
}

/// `1.0`, `0.0`, `-1.0` or nothing: present, absent, uncertain or not mentioned.
fn label(cell: &str) -> Result<Label, String> {
    match cell.trim() {
        "" => Ok(Label::Blank),
        "1" | "1.0" => Ok(Label::Present),
        "0" | "0.0" => Ok(Label::Absent),
        "-1" | "-1.0" => Ok(Label::Uncertain),
        _ => Err("a label is none of 1, 0, -1 and blank; fetch the file as it is published".to_owned()),
    }
}

fn packed<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let text = text.as_bytes();
    let length = text.len().min(N);
    bytes[..length].copy_from_slice(&text[..length]);
    bytes
}
