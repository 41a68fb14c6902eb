//! MIMIC-CXR-JPG: patients, studies, images, with reports and tables beside them.
//!
//! ```text
//! files/p10/p10000032/s50414267/02aa804e-....jpg
//! files/p10/p10000032/s50414267.txt                  or in another tree, see `REPORT_TREES`
//! mimic-cxr-2.0.0-metadata.csv[.gz]  -split  -chexpert  -negbio
//! ```
//!
//! Owns: the walk over it and what becomes of a study. The tables are in `mimic_tables`.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use diptych_core::Chunking;

use crate::IMAGE_EXTENSIONS;
use crate::folder::read_text;
use crate::item::{ItemError, ItemImage, ItemResult, Origin};
use crate::mimic_tables::Tables;
use crate::paths::has_extension;
use crate::study::Study;

/// Where reports may be besides next to the images, relative to the root.
const REPORT_TREES: [&str; 4] = ["reports/files", "reports", "mimic-cxr-reports/files", "mimic-cxr-reports"];

/// The studies of an archive, in the order of their names.
pub(crate) struct Studies {
    /// The folder with `p10`, `p11` and so on.
    files: PathBuf,
    /// The same of the tree of reports, when it is another one.
    reports: Option<PathBuf>,
    tables: Tables,
    chunking: Option<Chunking>,
    /// What is still to be visited.
    groups: VecDeque<PathBuf>,
    patients: VecDeque<PathBuf>,
    /// Of one patient: the relative path, such as `p10/p10000032/s50414267`.
    studies: VecDeque<PathBuf>,
    ready: VecDeque<ItemResult>,
}

impl Studies {
    /// Reads the tables and lists the first folder.
    pub(crate) fn open(root: &Path, chunking: Option<Chunking>) -> Result<Self, String> {
        let trees: Vec<PathBuf> = REPORT_TREES.iter().map(|tree| root.join(tree)).collect();
        let has_groups = |folder: &Path| !subfolders(folder, is_group).unwrap_or_default().is_empty();
        let reports = trees.iter().find(|tree| has_groups(tree)).cloned();
        let files = [root.join("files"), root.to_owned()]
            .into_iter()
            .find(|folder| has_groups(folder))
            .or_else(|| reports.clone())
            .ok_or("it has no folders files/p10, files/p11 and so on; give the root of the archive")?;
        let groups = subfolders(&files, is_group).map_err(|e| format!("cannot be listed: {e}"))?;
        // Its own reports are found beside its studies.
        let reports = reports.filter(|tree| *tree != files);
        Ok(Self {
            tables: Tables::read(root)?,
            files,
            reports,
            chunking,
            groups: groups.into(),
            patients: VecDeque::new(),
            studies: VecDeque::new(),
            ready: VecDeque::new(),
        })
    }

    /// What was found, for people.
    pub(crate) fn describe(&self) -> Vec<(String, String)> {
        let row = |a: &str, b: String| (a.to_owned(), b);
        let reports = match &self.reports {
            Some(tree) => format!("text of the record, out of {}", tree.display()),
            None => "text of the record, beside the images".to_owned(),
        };
        let mut rows = vec![
            row("pXX/pXXXXXXXX", "attribute patient_id".to_owned()),
            row("sXXXXXXXX", "key; the images in it are one record".to_owned()),
            row("sXXXXXXXX.txt", reports),
        ];
        rows.extend(self.tables.describe());
        rows
    }

    fn advance(&mut self) -> bool {
        if let Some(study) = self.studies.pop_front() {
            let item = self.study(&study);
            let origin = || Origin::Path(self.files.join(&study));
            self.ready.push_back(item.map_err(|reason| ItemError { origin: origin(), reason }));
        } else if let Some(patient) = self.patients.pop_front() {
            match self.studies_of(&patient) {
                Ok(studies) => self.studies = studies.into(),
                Err(error) => self.unlisted(&patient, &error),
            }
        } else if let Some(group) = self.groups.pop_front() {
            match subfolders(&self.files.join(&group), is_patient) {
                Ok(patients) => self.patients = patients.iter().map(|name| group.join(name)).collect(),
                Err(error) => self.unlisted(&group, &error),
            }
        } else {
            return false;
        }
        true
    }

    fn unlisted(&mut self, folder: &Path, error: &io::Error) {
        let reason = format!("cannot be listed: {error}; check its permissions");
        let origin = Origin::Path(self.files.join(folder));
        self.ready.push_back(Err(ItemError { origin, reason }));
    }

    /// Folders of images, and reports without one.
    fn studies_of(&self, patient: &Path) -> io::Result<Vec<PathBuf>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.files.join(patient))? {
            let entry = entry?;
            let name = entry.file_name();
            let path = Path::new(&name);
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let kind = entry.file_type()?;
            let is_study = kind.is_dir() && path.extension().is_none();
            let is_report = kind.is_file() && has_extension(path, &["txt"]);
            if numbered(stem, 's') && (is_study || is_report) {
                names.push(patient.join(stem));
            }
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    fn study(&self, study: &Path) -> Result<crate::Item, String> {
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let key = name(study);
        let patient = study.parent().map(name).unwrap_or_default();
        let mut found = Study {
            patient: Some(patient.trim_start_matches('p').to_owned()),
            body_part: Some("chest"),
            report: self.report(study)?,
            ..Study::default()
        };
        for path in images(&self.files.join(study))? {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            self.tables.add_image(&stem, &mut found);
            found.images.push(ItemImage::file(path));
        }
        self.tables.add_study(key.trim_start_matches('s'), &mut found);
        found.key = key;
        found.into_item(self.chunking, Origin::Path(self.files.join(study)))
    }

    fn report(&self, study: &Path) -> Result<Option<String>, String> {
        for tree in [Some(&self.files), self.reports.as_ref()].into_iter().flatten() {
            let path = tree.join(study).with_extension("txt");
            if path.symlink_metadata().is_ok() {
                return read_text(&path).map_err(|reason| format!("its report {} {reason}", path.display()));
            }
        }
        Ok(None)
    }
}

impl Iterator for Studies {
    type Item = ItemResult;

    fn next(&mut self) -> Option<ItemResult> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Some(ready);
            }
            if !self.advance() {
                return None;
            }
        }
    }
}

/// The images of a study in the order of their names; none when it has no folder.
fn images(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let listed = match fs::read_dir(folder) {
        Ok(entries) => entries.collect::<io::Result<Vec<_>>>(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => Err(error),
    };
    let entries = listed.map_err(|e| format!("its folder cannot be listed: {e}"))?;
    let mut images = Vec::new();
    for entry in entries {
        let path = entry.path();
        if !has_extension(&path, &IMAGE_EXTENSIONS) {
            continue;
        }
        if !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            let name = crate::item::printable(&entry.file_name().to_string_lossy());
            return Err(format!("its image {name} is not a regular file; replace it by a copy of the image"));
        }
        images.push(path);
    }
    images.sort();
    Ok(images)
}

/// The folders of a folder whose names are of a kind, in order. Links are not followed.
fn subfolders(folder: &Path, wanted: impl Fn(&str) -> bool) -> io::Result<Vec<PathBuf>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() && entry.file_name().to_str().is_some_and(&wanted) {
            names.push(PathBuf::from(entry.file_name()));
        }
    }
    names.sort();
    Ok(names)
}

/// `p10`: all patients whose number begins so.
pub(crate) fn is_group(name: &str) -> bool {
    name.len() == 3 && numbered(name, 'p')
}

fn is_patient(name: &str) -> bool {
    name.len() > 3 && numbered(name, 'p')
}

fn numbered(name: &str, letter: char) -> bool {
    let digits = name.strip_prefix(letter);
    digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}
