//! A tree of files as studies, by what is in the files and never by their names.
//!
//! Owns: which files are looked at, and the order of studies, series and instances. What all files of a study
//! share is kept once; of a file its path and a few numbers. Deliberately absent: pixels, and any judgement of
//! which studies are wanted.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use super::error::DicomError;
use super::header::Header;
use super::read_header;
use super::view::View;

/// Folders within folders that are entered at most.
const MAX_FOLDERS: usize = 64;

/// What a tree of files holds.
#[derive(Debug, Default)]
pub struct Studies {
    /// The studies, by their UID.
    pub studies: Vec<Study>,
    /// Files that should have been readable and were not, by path.
    pub problems: Vec<Problem>,
    /// Files that are not DICOM.
    pub not_dicom: u64,
    /// Tables of contents (DICOMDIR).
    pub directories: u64,
    /// Copies of an instance that had been seen under another path.
    pub duplicates: u64,
    /// Links, pipes and devices, none of which is followed or opened.
    pub special: u64,
}

/// A study of a patient.
#[derive(Debug)]
pub struct Study {
    /// Its UID; of a file that has none, that of the file itself.
    pub uid: String,
    /// The header of one of its files, for what all of them share.
    pub header: Header,
    /// Its series, by number and UID.
    pub series: Vec<Series>,
}

/// A series of a study.
#[derive(Debug)]
pub struct Series {
    /// Its UID; empty where the files have none.
    pub uid: String,
    /// Its number.
    pub number: Option<i64>,
    /// Its modality.
    pub modality: Option<String>,
    /// Its files, by instance number and path.
    pub instances: Vec<Instance>,
}

/// A file.
#[derive(Debug)]
pub struct Instance {
    /// Where it is.
    pub path: Box<Path>,
    /// Its number in the series.
    pub number: Option<i32>,
    /// Frames of its image; 0 for an object without pixels.
    pub frames: u32,
    /// From which side it was taken.
    pub view: Option<View>,
}

/// A file that could not be used.
#[derive(Debug)]
pub struct Problem {
    /// Where it is.
    pub path: PathBuf,
    /// What is wrong with it.
    pub error: DicomError,
}

/// Looks at every file under a folder, or at one file. Links are not followed; what cannot be read is reported
/// and the rest goes on.
///
/// # Errors
///
/// [`DicomError::Io`] where the root itself cannot be read.
pub fn scan(root: &Path) -> Result<Studies, DicomError> {
    let mut scanner = Scanner::default();
    let kind = fs::metadata(root).map_err(|source| DicomError::Io { path: root.to_owned(), source })?;
    if kind.is_dir() {
        let entries = sorted(root)?;
        scanner.folder(entries, 0);
    } else {
        scanner.file(root.to_owned());
    }
    Ok(scanner.finish())
}

/// Series by number and UID.
type SeriesByNumber = BTreeMap<(Option<i64>, String), Series>;

#[derive(Default)]
struct Scanner {
    found: Studies,
    studies: BTreeMap<String, (Header, SeriesByNumber)>,
    /// Hashes of the instances seen, eight bytes for each.
    seen: HashSet<u64>,
}

impl Scanner {
    fn folder(&mut self, entries: Vec<PathBuf>, depth: usize) {
        for path in entries {
            match fs::symlink_metadata(&path) {
                Ok(kind) if kind.is_dir() && depth < MAX_FOLDERS => match sorted(&path) {
                    Ok(entries) => self.folder(entries, depth + 1),
                    Err(error) => self.found.problems.push(Problem { path, error }),
                },
                Ok(kind) if kind.is_file() => self.file(path),
                Ok(_) => self.found.special += 1,
                Err(source) => {
                    let error = DicomError::Io { path: path.clone(), source };
                    self.found.problems.push(Problem { path, error });
                }
            }
        }
    }

    fn file(&mut self, path: PathBuf) {
        let mut header = match read_header(&path) {
            Ok(header) => header,
            Err(DicomError::NotDicom { .. }) => {
                self.found.not_dicom += 1;
                return;
            }
            Err(error) => {
                self.found.problems.push(Problem { path, error });
                return;
            }
        };
        if header.is_directory() {
            self.found.directories += 1;
            return;
        }
        if header.sop_instance.as_ref().is_some_and(|uid| !self.seen.insert(hash(uid))) {
            self.found.duplicates += 1;
            return;
        }
        let instance = Instance {
            path: path.into_boxed_path(),
            number: header.instance_number.and_then(|number| i32::try_from(number).ok()),
            frames: header.image.as_ref().map_or(0, |image| image.frames),
            view: header.view,
        };
        let uid = header.study_instance.clone().or_else(|| header.sop_instance.clone()).unwrap_or_default();
        let series_uid = header.series_instance.take().unwrap_or_default();
        let (number, modality) = (header.series_number, header.modality.clone());
        let (_, series) = self.studies.entry(uid).or_insert_with(|| (header, BTreeMap::new()));
        let new = || Series { uid: series_uid.clone(), number, modality, instances: Vec::new() };
        series.entry((number, series_uid.clone())).or_insert_with(new).instances.push(instance);
    }

    fn finish(mut self) -> Studies {
        for (uid, (header, series)) in self.studies {
            let mut series: Vec<Series> = series.into_values().collect();
            for series in &mut series {
                series.instances.sort_by(|a, b| (a.number, &a.path).cmp(&(b.number, &b.path)));
                series.instances.shrink_to_fit();
            }
            self.found.studies.push(Study { uid, header, series });
        }
        self.found
    }
}

fn sorted(folder: &Path) -> Result<Vec<PathBuf>, DicomError> {
    let io = |source| DicomError::Io { path: folder.to_owned(), source };
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(io)? {
        entries.push(entry.map_err(io)?.path());
    }
    entries.sort();
    Ok(entries)
}

fn hash(uid: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    uid.hash(&mut hasher);
    hasher.finish()
}
