//! A set of cases on disk: `DIR/images/phantom-000000.png` and `DIR/cases.jsonl`.
//!
//! The same arguments give the same bytes. The list is put in place last, so that a folder with a
//! list is complete.
//! Deliberately absent: reading sets back; that is what every other corpus reader does too.

use std::fs;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::anatomy::{Trait, View};
use crate::{Case, case};

/// Most cases in one set.
pub const CASES_MAX: u64 = 1_000_000;
/// Cases rendered between two calls of `progress`.
const BATCH: u64 = 128;

const LIST: &str = "cases.jsonl";
const LIST_UNFINISHED: &str = "cases.jsonl.unfinished";
const IMAGES: &str = "images";

/// One line of `cases.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseLine {
    /// Name of the case.
    pub key: String,
    /// Path of the picture, relative to the list.
    pub image: String,
    /// The whole report.
    pub text: String,
    /// What is true of the case.
    pub attributes: CaseLineAttributes,
}

/// The attributes of a line of `cases.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseLineAttributes {
    /// Findings, or `none`.
    pub labels: Vec<String>,
    /// `PA`, `AP` or `LATERAL`.
    pub view: String,
    /// `F` or `M`.
    pub sex: String,
    /// Years.
    pub age: u32,
    /// Visible properties that are no findings.
    pub traits: Vec<String>,
    /// The report's conclusion alone.
    pub impression: String,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Number of cases.
    pub cases: u64,
    /// Cases without a finding.
    pub normal: u64,
    /// Cases per projection: PA, AP, lateral.
    pub views: [u64; 3],
    /// Path of the list.
    pub list: PathBuf,
}

/// Why a set could not be written.
#[derive(Debug, thiserror::Error)]
pub enum PhantomError {
    /// No case, or more than the bound.
    #[error("{cases} cases cannot be written; ask for 1 to {CASES_MAX}")]
    Count {
        /// Cases asked for.
        cases: u64,
    },
    /// More canaries than there are places for.
    #[error(
        "{canaries} canaries do not fit into {studies} studies; ask for at most {most}, or for more studies"
    )]
    Canaries {
        /// Canaries asked for.
        canaries: u64,
        /// Studies asked for.
        studies: u64,
        /// What fits.
        most: u64,
    },
    /// The folder holds something that this program has not written.
    #[error("{dir} already holds '{entry}', which is no part of a phantom set; give an empty or new folder")]
    Occupied {
        /// The folder.
        dir: PathBuf,
        /// The first foreign entry.
        entry: String,
    },
    /// The file system refused.
    #[error("cannot write {path}: {source}; check that the folder is writable and the disk has room")]
    Io {
        /// What was being written.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A picture could not be encoded or written.
    #[error(
        "cannot write the picture {path}: {source}; check that the folder is writable and the disk has room"
    )]
    Picture {
        /// What was being written.
        path: PathBuf,
        /// What the encoder said.
        source: image::ImageError,
    },
}

/// Writes the cases `0..cases` of the set `seed` into a folder, which is created. `progress` is told
/// how many are done, from time to time and at the end. A folder with an earlier or unfinished set is
/// overwritten.
///
/// # Errors
/// See [`PhantomError`]. After an error the folder has no list.
pub fn write(
    dir: &Path,
    cases: u64,
    seed: u64,
    mut progress: impl FnMut(u64),
) -> Result<Summary, PhantomError> {
    if cases == 0 || cases > CASES_MAX {
        return Err(PhantomError::Count { cases });
    }
    let images = dir.join(IMAGES);
    clear(dir)?;
    fs::create_dir_all(&images).map_err(|source| io_error(&images, source))?;
    let unfinished = dir.join(LIST_UNFINISHED);
    let file = fs::File::create(&unfinished).map_err(|source| io_error(&unfinished, source))?;
    let mut list = BufWriter::new(file);
    let mut summary = Summary { cases, normal: 0, views: [0; 3], list: dir.join(LIST) };
    let mut done = 0;
    while done < cases {
        let batch = done..cases.min(done + BATCH);
        let lines: Result<Vec<(Case, String)>, PhantomError> =
            batch.clone().into_par_iter().map(|index| write_case(dir, seed, index)).collect();
        for (case, line) in lines? {
            summary.normal += u64::from(case.findings.is_empty());
            summary.views[match case.view {
                View::Pa => 0,
                View::Ap => 1,
                View::Lateral => 2,
            }] += 1;
            writeln!(list, "{line}").map_err(|source| io_error(&unfinished, source))?;
        }
        done = batch.end;
        progress(done);
    }
    list.into_inner()
        .map_err(io::IntoInnerError::into_error)
        .and_then(|file| file.sync_all())
        .and_then(|()| fs::rename(&unfinished, &summary.list))
        .map_err(|source| io_error(&summary.list, source))?;
    Ok(summary)
}

fn write_case(dir: &Path, seed: u64, index: u64) -> Result<(Case, String), PhantomError> {
    let case = case(seed, index);
    let line = CaseLine::new(&case);
    let path = dir.join(&line.image);
    case.image
        .save_with_format(&path, image::ImageFormat::Png)
        .map_err(|source| PhantomError::Picture { path, source })?;
    let line = serde_json::to_string(&line).expect("strings and numbers are always valid JSON");
    Ok((case, line))
}

impl CaseLine {
    /// The line of a case.
    pub fn new(case: &Case) -> Self {
        Self {
            key: case.key.clone(),
            image: format!("{IMAGES}/{}.png", case.key),
            text: case.report.clone(),
            attributes: CaseLineAttributes {
                labels: case.labels.clone(),
                view: case.view.as_str().to_owned(),
                sex: case.sex.as_str().to_owned(),
                age: case.age,
                traits: case.traits.iter().map(|t| Trait::label(*t)).collect(),
                impression: case.impression.clone(),
            },
        }
    }
}

/// Refuses a folder with anything foreign in it, before anything is changed; removes an earlier set,
/// its list first.
fn clear(dir: &Path) -> Result<(), PhantomError> {
    let mut ours = Vec::new();
    for (folder, accept) in [(dir.to_owned(), is_ours as fn(&str) -> bool), (dir.join(IMAGES), is_picture)] {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(io_error(&folder, source)),
        };
        for entry in entries {
            let entry = entry.map_err(|source| io_error(&folder, source))?;
            let kind = entry.file_type().map_err(|source| io_error(&entry.path(), source))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // A link could lead to somebody else's pictures.
            let expected = if name == IMAGES { kind.is_dir() } else { kind.is_file() };
            if !accept(&name) || !expected {
                return Err(PhantomError::Occupied { dir: folder, entry: name });
            }
            if kind.is_file() {
                ours.push(entry.path());
            }
        }
    }
    ours.iter().try_for_each(|path| fs::remove_file(path).map_err(|source| io_error(path, source)))
}

fn is_ours(name: &str) -> bool {
    [LIST, LIST_UNFINISHED, IMAGES].contains(&name)
}

fn is_picture(name: &str) -> bool {
    let digits = name.strip_prefix("phantom-").and_then(|n| n.strip_suffix(".png"));
    digits.is_some_and(|d| d.len() >= 6 && d.bytes().all(|b| b.is_ascii_digit()))
}

pub(crate) fn io_error(path: &Path, source: io::Error) -> PhantomError {
    PhantomError::Io { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_set_is_written_whole_and_again_with_the_same_bytes() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut told = Vec::new();
        let summary = write(a.path(), 130, 9, |n| told.push(n)).unwrap();
        assert_eq!(told, [128, 130]);
        assert_eq!(summary.views.iter().sum::<u64>(), 130);
        write(b.path(), 140, 9, |_| {}).unwrap();
        write(b.path(), 130, 9, |_| {}).unwrap();
        let list = fs::read_to_string(a.path().join(LIST)).unwrap();
        assert_eq!(list, fs::read_to_string(b.path().join(LIST)).unwrap());
        assert_eq!(fs::read_dir(b.path().join(IMAGES)).unwrap().count(), 130);
        for (index, line) in list.lines().enumerate() {
            let read: CaseLine = serde_json::from_str(line).unwrap();
            let made = case(9, index as u64);
            assert_eq!(read, CaseLine::new(&made));
            let bytes = fs::read(a.path().join(&read.image)).unwrap();
            assert_eq!(bytes, fs::read(b.path().join(&read.image)).unwrap());
            if index % 20 == 0 {
                assert_eq!(image::load_from_memory(&bytes).unwrap().into_luma8(), made.image);
            }
        }
    }

    #[test]
    fn foreign_files_are_never_touched() {
        let dir = tempfile::tempdir().unwrap();
        let holiday = dir.path().join("holiday.png");
        fs::write(&holiday, "x").unwrap();
        let error = write(dir.path(), 1, 0, |_| {}).unwrap_err();
        assert!(error.to_string().contains("holiday.png"), "{error}");
        assert!(holiday.exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is added beside it");
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(IMAGES)).unwrap();
        fs::write(dir.path().join("images/cat.png"), "x").unwrap();
        assert!(matches!(write(dir.path(), 1, 0, |_| {}), Err(PhantomError::Occupied { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn pictures_behind_a_link_are_never_touched() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let theirs = elsewhere.path().join("phantom-000000.png");
        fs::write(&theirs, "x").unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), dir.path().join(IMAGES)).unwrap();
        assert!(matches!(write(dir.path(), 1, 0, |_| {}), Err(PhantomError::Occupied { .. })));
        assert_eq!(fs::read(&theirs).unwrap(), b"x");
    }

    #[test]
    fn no_cases_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(write(dir.path(), 0, 0, |_| {}), Err(PhantomError::Count { cases: 0 })));
        assert!(matches!(write(dir.path(), u64::MAX, 0, |_| {}), Err(PhantomError::Count { .. })));
    }
}
