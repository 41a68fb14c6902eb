//! The Indiana University chest X-rays as two tables: reports, and projections that name their images.
//!
//! Owns: which columns mean what, and where the images are. The projections are in memory, about 100 bytes an
//! image; the reports are read one by one.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use diptych_core::{AttributeValue, Chunking};

use crate::csv::Table;
use crate::item::{Item, ItemError, ItemResult};
use crate::paths::{Base, has_extension};
use crate::study::{self, Study};

const REPORT_COLUMNS: [&str; 3] = ["uid", "findings", "impression"];
const PROJECTION_COLUMNS: [&str; 2] = ["uid", "filename"];
/// Sections of the text, in order.
const SECTIONS: [&str; 4] = ["indication", "comparison", "findings", "impression"];
/// Columns that are lists with semicolons, and their attributes.
const LISTS: [(&str, &str); 2] = [("MeSH", "mesh"), ("Problems", "problems")];
/// Folders that the images may be in, relative to the tables.
const IMAGE_FOLDERS: [&str; 4] = ["images/images_normalized", "images_normalized", "images", "NLMCXR_png"];

/// The two tables of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Files {
    pub(crate) reports: PathBuf,
    pub(crate) projections: PathBuf,
}

impl Files {
    /// Finds them in a folder by their columns.
    pub(crate) fn find(root: &Path) -> Option<Self> {
        let entries = fs::read_dir(root).ok()?.flatten();
        let mut tables: Vec<PathBuf> = entries
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
            .map(|entry| entry.path())
            .filter(|path| has_extension(path, &["csv"]))
            .collect();
        tables.sort();
        let opened: Vec<(PathBuf, Table)> =
            tables.into_iter().filter_map(|path| Some((path.clone(), Table::open(&path).ok()?))).collect();
        let first = |columns: &[&str], any: &[&str]| {
            let fits = |table: &Table| {
                table.has(columns) && (any.is_empty() || any.iter().any(|name| table.has(&[name])))
            };
            opened.iter().find(|(_, table)| fits(table)).map(|(path, _)| path.clone())
        };
        let reports = first(&REPORT_COLUMNS, &[])?;
        let projections = first(&PROJECTION_COLUMNS, &["projection", "view"])?;
        Some(Self { reports, projections })
    }
}

/// The reports of an archive in their order.
pub(crate) struct Reports {
    table: Table,
    /// By uid: file and projection.
    images: HashMap<String, Vec<(String, String)>>,
    base: Option<Base>,
    folder: Option<PathBuf>,
    chunking: Option<Chunking>,
}

impl Reports {
    /// Reads the projections and opens the reports.
    pub(crate) fn open(
        files: &Files,
        image_root: Option<&Path>,
        chunking: Option<Chunking>,
    ) -> Result<Self, String> {
        let named = |path: &Path, reason: String| format!("{}: {reason}", path.display());
        let table = Table::open(&files.reports).map_err(|reason| named(&files.reports, reason))?;
        let images = projections(&files.projections).map_err(|reason| named(&files.projections, reason))?;
        let root = files.reports.parent().unwrap_or(Path::new(""));
        let folder = match image_root {
            Some(root) => Some(root.to_owned()),
            None => IMAGE_FOLDERS.iter().map(|folder| root.join(folder)).find(|folder| folder.is_dir()),
        };
        let base = folder.as_deref().map(|folder| Base::beside(&files.reports, Some(folder)));
        Ok(Self { table, images, base, folder, chunking })
    }

    pub(crate) fn describe(&self) -> Vec<(String, String)> {
        let row = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let images = match &self.folder {
            Some(folder) => format!("image, out of {}", folder.display()),
            None => "not read, since there is no folder of images; name it by --image-root".to_owned(),
        };
        vec![
            row("uid", "key"),
            row("indication, comparison, findings, impression", "text of the record"),
            row("MeSH, Problems", "attributes mesh, problems: lists"),
            ("filename".to_owned(), images),
            row("projection", "views"),
        ]
    }

    fn item(&self, line: u64, row: &[String]) -> Result<Item, String> {
        let field = |name: &str| {
            let place = self.table.columns().iter().position(|column| column == name);
            place.map_or("", |place| row[place].trim())
        };
        let uid = field("uid");
        let mut study = Study {
            key: uid.to_owned(),
            report: study::sections(SECTIONS.map(|name| (name, field(name)))),
            body_part: Some("chest"),
            ..Study::default()
        };
        for (column, name) in LISTS {
            let terms: Vec<String> = field(column)
                .split(';')
                .map(str::trim)
                .filter(|t| !t.is_empty())
                .map(str::to_owned)
                .collect();
            if !terms.is_empty() {
                study.attributes.insert(name.to_owned(), AttributeValue::List(terms));
            }
        }
        for (file, projection) in self.images.get(uid).into_iter().flatten() {
            if let Some(base) = &self.base {
                study.images.push(base.image(file)?.0);
            }
            study.add_view(projection);
        }
        study.into_item(self.chunking, self.table.origin(line))
    }
}

impl Iterator for Reports {
    type Item = ItemResult;

    fn next(&mut self) -> Option<ItemResult> {
        let (line, row) = self.table.next_row()?;
        let item = row.and_then(|row| self.item(line, &row));
        Some(item.map_err(|reason| ItemError { origin: self.table.origin(line), reason }))
    }
}

fn projections(path: &Path) -> Result<HashMap<String, Vec<(String, String)>>, String> {
    let mut table = Table::open(path)?;
    let place = |name: &str| table.columns().iter().position(|column| column == name);
    let missing = || "it needs the columns uid and filename".to_owned();
    let (uid, file) = (place("uid").ok_or_else(missing)?, place("filename").ok_or_else(missing)?);
    let view = place("projection").or_else(|| place("view"));
    let mut images: HashMap<String, Vec<(String, String)>> = HashMap::new();
    while let Some((line, row)) = table.next_row() {
        let row = row.map_err(|reason| format!("line {line}: {reason}"))?;
        let projection = view.map_or("", |view| row[view].trim());
        images
            .entry(row[uid].trim().to_owned())
            .or_default()
            .push((row[file].trim().to_owned(), projection.to_owned()));
    }
    Ok(images)
}
