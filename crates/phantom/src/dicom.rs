//! A synthetic archive as a hospital would hand it over: patients with several dated studies, studies with
//! several views and a report, in several transfer syntaxes, full of names and numbers.
//!
//! Owns: `DIR/archive` with files and folders whose names mean nothing, `DIR/cases.jsonl` with what is true
//! of each study, and `DIR/canaries.jsonl` with the strings that must not survive a de-identification. All
//! of it is a pure function of the arguments. Deliberately absent: models, stores, reading, and any claim of
//! clinical realism.

mod course;
mod element;
mod instance;
mod people;
mod pixels;
mod report;

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::draw::{Draw, Purpose};
use crate::write::{CASES_MAX, PhantomError, io_error};
use crate::{Finding, Trait, finding};
use course::{Course, Place, course, places};
use instance::Study;
use people::{Planted, Spot, canaries_max};
use pixels::{Stored, Syntax};

/// Studies made between two calls of `progress`.
const BATCH: usize = 32;

const ARCHIVE: &str = "archive";
const CASES: &str = "cases.jsonl";
const CANARIES: &str = "canaries.jsonl";

/// What an archive is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveOptions {
    /// Studies, 1 to a million.
    pub studies: u64,
    /// The same seed gives the same archive.
    pub seed: u64,
    /// Identifying strings that occur nowhere else, shared out among the studies.
    pub canaries: u64,
    /// Width and height of the pictures, in pixels.
    pub size: u32,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ArchiveSummary {
    /// Number of patients.
    pub patients: u64,
    /// Number of studies.
    pub studies: u64,
    /// Studies without a finding.
    pub normal: u64,
    /// Pictures, one in a file.
    pub pictures: u64,
    /// Reports as structured reports.
    pub structured_reports: u64,
    /// Reports as text files.
    pub text_reports: u64,
    /// Identifying strings on the list.
    pub canaries: u64,
    /// Where the files are.
    pub archive: PathBuf,
}

/// One line of `cases.jsonl`: a study.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyLine {
    /// Study Instance UID, before any de-identification.
    pub study: String,
    /// Patient ID, before any de-identification.
    pub patient: String,
    /// `YYYYMMDD`, before any de-identification.
    pub date: String,
    /// 0 for the patient's first study.
    pub number: usize,
    /// `F` or `M`.
    pub sex: String,
    /// Years.
    pub age: u32,
    /// Kinds of findings, such as `effusion`; empty in a normal study.
    pub findings: Vec<String>,
    /// Findings such as `effusion.left.large`, or `none`.
    pub labels: Vec<String>,
    /// Visible properties that are no findings.
    pub traits: Vec<String>,
    /// `PA`, `AP` or `LATERAL`, in the order of `pictures`.
    pub views: Vec<String>,
    /// Paths of the pictures, relative to the archive.
    pub pictures: Vec<String>,
    /// Path of the report.
    pub report: String,
    /// Its FINDINGS section.
    pub findings_text: String,
    /// Its IMPRESSION section.
    pub impression: String,
}

/// One line of `canaries.jsonl`: a string that identifies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CanaryLine {
    /// The string.
    pub value: String,
    /// What it is, such as `patient_name`.
    #[serde(rename = "where")]
    pub spot: String,
    /// Folder of the study that it was planted in first, relative to the archive.
    pub folder: String,
}

/// Writes an archive into a folder, which is created. `progress` is told how many studies are done.
///
/// # Errors
/// See [`PhantomError`]. An earlier archive is overwritten; anything else that lies there is refused.
pub fn write_archive(
    dir: &Path,
    options: ArchiveOptions,
    mut progress: impl FnMut(u64),
) -> Result<ArchiveSummary, PhantomError> {
    let ArchiveOptions { studies, canaries, .. } = options;
    if studies == 0 || studies > CASES_MAX {
        return Err(PhantomError::Count { cases: studies });
    }
    if canaries > canaries_max(studies) {
        return Err(PhantomError::Canaries { canaries, studies, most: canaries_max(studies) });
    }
    clear(dir)?;
    let archive = dir.join(ARCHIVE);
    fs::create_dir_all(&archive).map_err(|source| io_error(&archive, source))?;
    let mut summary = ArchiveSummary { archive: archive.clone(), ..ArchiveSummary::default() };
    let (mut cases, mut list) = (Vec::new(), Vec::new());
    let places = places(options.seed, studies);
    for (batch, part) in places.chunks(BATCH).enumerate() {
        let first = batch * BATCH;
        let written: Result<Vec<_>, PhantomError> = part
            .par_iter()
            .enumerate()
            .map(|(i, place)| write_study(&archive, options, (first + i) as u64, *place))
            .collect();
        for (line, planted) in written? {
            summary.add(&line, planted.len());
            for canary in planted {
                put_line(&mut list, &canary);
            }
            put_line(&mut cases, &line);
        }
        progress((first + part.len()) as u64);
    }
    // The list of studies last: a folder with it is complete.
    for (name, bytes) in [(CANARIES, list), (CASES, cases)] {
        let path = dir.join(name);
        fs::File::create(&path)
            .and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()))
            .map_err(|source| io_error(&path, source))?;
    }
    Ok(summary)
}

impl ArchiveSummary {
    fn add(&mut self, line: &StudyLine, canaries: usize) {
        self.patients += u64::from(line.number == 0);
        self.studies += 1;
        self.normal += u64::from(line.findings.is_empty());
        self.pictures += line.pictures.len() as u64;
        let text = line.report.ends_with(".txt");
        self.text_reports += u64::from(text);
        self.structured_reports += u64::from(!text);
        self.canaries += canaries as u64;
    }
}

fn put_line(out: &mut Vec<u8>, line: &impl Serialize) {
    serde_json::to_writer(&mut *out, line).expect("strings and numbers are always valid JSON");
    out.push(b'\n');
}

fn write_study(
    archive: &Path,
    options: ArchiveOptions,
    index: u64,
    place: Place,
) -> Result<(StudyLine, Vec<CanaryLine>), PhantomError> {
    let seed = options.seed;
    let course = course(seed, place);
    let planted = Planted::new(seed, index, options.studies, options.canaries, place);
    let report = report::write(seed, index, &course, &planted);
    let study = Study { index, course: &course, planted: &planted, size: options.size };
    let mut draw = Draw::new(seed, index, Purpose::Names);
    let hex = |draw: &mut Draw| format!("{:08x}", draw.bits());
    let folder = match planted.get(Spot::FolderName) {
        Some(name) => format!("{}_{index:06}", name.to_uppercase()),
        None => format!("{}{index:06}", hex(&mut draw)),
    };
    // Some studies lie in one folder, some have one for each kind of file.
    let pictures_in = if draw.chance(0.5) { folder.clone() } else { format!("{folder}/{}", hex(&mut draw)) };
    let mut pictures = Vec::new();
    for (number, shot) in course.shots.iter().enumerate() {
        let ending = draw.pick(&["", ".dcm", ".img", ".DCM"]);
        let path = format!("{pictures_in}/{}{ending}", hex(&mut draw));
        let syntax = Syntax::ALL[(index as usize * 2 + number) % Syntax::ALL.len()];
        let stored =
            draw.pick(&[Stored::Plain, Stored::Plain, Stored::Inverted, Stored::Rescaled, Stored::Signed]);
        put_file(archive, &path, &study.picture(number, shot, syntax, stored))?;
        pictures.push(path);
    }
    let structured = index.is_multiple_of(2);
    let name = if structured { hex(&mut draw) } else { format!("{}.txt", hex(&mut draw)) };
    let path = format!("{folder}/{name}");
    let bytes = if structured { study.structured_report(&report) } else { report.text().into_bytes() };
    put_file(archive, &path, &bytes)?;
    let canaries = planted.chosen().iter().map(|spot| CanaryLine {
        value: planted.canary(*spot),
        spot: spot.name(),
        folder: folder.clone(),
    });
    Ok((study_line(&study, place, pictures, path, &report), canaries.collect()))
}

fn study_line(
    study: &Study<'_>,
    place: Place,
    pictures: Vec<String>,
    report_path: String,
    report: &report::Report,
) -> StudyLine {
    let course: &Course = study.course;
    let findings: Vec<Finding> = course.signs.iter().map(|s| s.finding).collect();
    let labels = finding::labels(&findings);
    let mut kinds: Vec<String> =
        findings.iter().map(|f| f.label().split('.').next().unwrap_or_default().to_owned()).collect();
    kinds.sort();
    StudyLine {
        study: study.uid(),
        patient: study.planted.get(Spot::PatientId).unwrap_or_default(),
        date: report::date_text(course.day),
        number: place.number,
        sex: course.sex.as_str().to_owned(),
        age: course.age,
        findings: kinds,
        labels,
        traits: course.shots[0].anatomy.traits().into_iter().map(Trait::label).collect(),
        views: course.shots.iter().map(|s| s.anatomy.view.as_str().to_owned()).collect(),
        pictures,
        report: report_path,
        findings_text: report.section("FINDINGS").to_owned(),
        impression: report.section("IMPRESSION").to_owned(),
    }
}

fn put_file(archive: &Path, path: &str, bytes: &[u8]) -> Result<(), PhantomError> {
    let path = archive.join(path);
    let folder = path.parent().expect("a file of the archive lies in a folder of its study");
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&path, bytes))
        .map_err(|source| io_error(&path, source))
}

/// Removes an earlier archive, its list of studies first; refuses a folder with anything else in it.
fn clear(dir: &Path) -> Result<(), PhantomError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(io_error(dir, source)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|source| io_error(dir, source))?;
        let kind = entry.file_type().map_err(|source| io_error(&entry.path(), source))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let expected = if name == ARCHIVE { kind.is_dir() } else { kind.is_file() };
        if ![ARCHIVE, CASES, CANARIES].contains(&name.as_str()) || !expected {
            return Err(PhantomError::Occupied { dir: dir.to_owned(), entry: name });
        }
        names.push(name);
    }
    // An archive without its lists may be anybody's.
    if names.iter().any(|n| n == ARCHIVE) && !names.iter().any(|n| n == CASES || n == CANARIES) {
        let mut inside = fs::read_dir(dir.join(ARCHIVE)).map_err(|source| io_error(dir, source))?;
        if inside.next().is_some() {
            return Err(PhantomError::Occupied { dir: dir.to_owned(), entry: ARCHIVE.to_owned() });
        }
    }
    names.sort();
    for name in names.iter().filter(|n| *n == CASES).chain(names.iter().filter(|n| *n == CANARIES)) {
        let path = dir.join(name);
        fs::remove_file(&path).map_err(|source| io_error(&path, source))?;
    }
    if names.iter().any(|n| n == ARCHIVE) {
        let path = dir.join(ARCHIVE);
        fs::remove_dir_all(&path).map_err(|source| io_error(&path, source))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::BTreeSet;

    const OPTIONS: ArchiveOptions = ArchiveOptions { studies: 12, seed: 4, canaries: 100, size: 48 };

    fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let mut out = Vec::new();
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                out.extend(files(&path));
            } else {
                out.push((path.clone(), fs::read(&path).unwrap()));
            }
        }
        out.sort();
        out
    }

    #[test]
    fn an_archive_is_written_whole_and_again_with_the_same_bytes() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let summary = write_archive(a.path(), OPTIONS, |_| {}).unwrap();
        write_archive(b.path(), ArchiveOptions { seed: 9, ..OPTIONS }, |_| {}).unwrap();
        write_archive(b.path(), OPTIONS, |_| {}).unwrap();
        let strip = |dir: &Path| -> Vec<(PathBuf, Vec<u8>)> {
            files(dir).into_iter().map(|(p, b)| (p.strip_prefix(dir).unwrap().to_owned(), b)).collect()
        };
        assert_eq!(strip(a.path()), strip(b.path()));
        assert_eq!((summary.studies, summary.structured_reports, summary.text_reports), (12, 6, 6));
        assert!(summary.pictures >= 12 && summary.patients >= 3);
        let cases = fs::read_to_string(a.path().join(CASES)).unwrap();
        let cases: Vec<StudyLine> = cases.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        for case in &cases {
            assert!(
                case.pictures.iter().chain([&case.report]).all(|f| a.path().join(ARCHIVE).join(f).is_file())
            );
            assert_eq!(case.views.len(), case.pictures.len());
        }
        assert_eq!(cases.iter().map(|c| &c.study).collect::<BTreeSet<_>>().len(), 12);
    }

    #[test]
    fn canaries_are_where_the_list_says() {
        let dir = tempfile::tempdir().unwrap();
        let summary = write_archive(dir.path(), OPTIONS, |_| {}).unwrap();
        let list = fs::read_to_string(dir.path().join(CANARIES)).unwrap();
        let list: Vec<CanaryLine> = list.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(summary.canaries, list.len() as u64);
        assert_eq!(list.len(), 100);
        let mut found = 0;
        for canary in &list {
            let folder = dir.path().join(ARCHIVE).join(&canary.folder);
            let value = canary.value.to_lowercase();
            // Deflated files and other forms of dates are looked into by those who can read them.
            let there = folder.to_string_lossy().to_lowercase().contains(&value)
                || files(&folder)
                    .iter()
                    .any(|f| String::from_utf8_lossy(&f.1).to_lowercase().contains(&value));
            found += usize::from(there || canary.spot.ends_with("_date"));
        }
        assert!(found + 3 >= list.len(), "{found} of {}", list.len());
    }

    #[test]
    fn foreign_folders_and_impossible_numbers_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(ARCHIVE)).unwrap();
        fs::write(dir.path().join("archive/holiday.dcm"), "x").unwrap();
        assert!(matches!(write_archive(dir.path(), OPTIONS, |_| {}), Err(PhantomError::Occupied { .. })));
        assert!(dir.path().join("archive/holiday.dcm").exists());
        let dir = tempfile::tempdir().unwrap();
        let many = ArchiveOptions { canaries: 10_000, ..OPTIONS };
        let error = write_archive(dir.path(), many, |_| {}).unwrap_err();
        assert!(error.to_string().contains("528"), "{error}");
        let none = ArchiveOptions { studies: 0, ..OPTIONS };
        assert!(matches!(write_archive(dir.path(), none, |_| {}), Err(PhantomError::Count { .. })));
    }
}
