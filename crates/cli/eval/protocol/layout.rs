//! Files of published protocols, as they are published.
//!
//! - 5x200 (Huang et al., GLoRIA, 2021): `chexpert_5x200.csv` with `Path`, `Report Impression` and a column for each
//!   category, 200 rows positive in each of five.
//! - 8x200 (Zhang et al., ConVIRT, 2020): `image-retrieval/candidate.csv` (`Path` and the columns of CheXpert),
//!   `image-retrieval/query.csv` (`Variable,Path`) and `text-retrieval/query.csv` (`Variable,Text`).
//! - ROCOv2 (Rückert et al., 2024): `<split>_captions.csv` (`ID,Caption`) beside the images.
//!
//! An evaluation leaves nothing out: a row that cannot be used is an error that names it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use diptych_core::{Attributes, Chunking, Key};
use diptych_ingest::{Item, ItemImage, Origin};

use crate::pairs::Numbers;

/// The categories of 5x200.
pub const FIVE: [&str; 5] = ["Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion"];
/// The categories of 8x200.
pub const EIGHT: [&str; 8] = [
    "Atelectasis",
    "Cardiomegaly",
    "Edema",
    "Fracture",
    "Pleural Effusion",
    "Pneumonia",
    "Pneumothorax",
    "No Finding",
];

/// Longest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 30;
const PATH_COLUMNS: &[&str] = &["Path", "image_path", "imgpath", "image"];
const TEXT_COLUMNS: &[&str] = &["Report Impression", "Impression", "report", "text"];
/// Extensions that images of ROCOv2 have.
const EXTENSIONS: [&str; 4] = ["jpg", "jpeg", "png", "webp"];

/// Rows with an image or a text each.
#[derive(Debug, Default)]
pub struct Rows {
    pub images: Vec<PathBuf>,
    pub texts: Vec<String>,
    /// Per row, the numbers of its categories.
    pub labels: Vec<Vec<u32>>,
    /// Per row, the number of its patient.
    pub groups: Vec<u32>,
}

/// What 8x200 has.
#[derive(Debug)]
pub struct Eight {
    pub candidates: Rows,
    pub images: Option<Rows>,
    pub texts: Option<Rows>,
}

/// Reads 5x200: a CSV file, or the folder it is in.
pub fn five_by_200(path: &Path, images: Option<&Path>) -> Result<Rows> {
    let file = match path.is_dir() {
        true => path.join("chexpert_5x200.csv"),
        false => path.to_owned(),
    };
    let table = Table::read(&file)?;
    let root = Root::new(&file, images);
    let texts = table.column(TEXT_COLUMNS)?;
    let mut rows = table.labelled_images(&FIVE, &root)?;
    for (row, line) in &table.rows {
        let text = row[texts].trim();
        if text.is_empty() {
            bail!("{} line {line}: has no report; every row needs one", table.name);
        }
        rows.texts.push(text.to_owned());
    }
    Ok(rows)
}

/// Reads 8x200 from its folder.
pub fn eight_by_200(path: &Path, images: Option<&Path>) -> Result<Eight> {
    let found = |names: &[&str]| names.iter().map(|name| path.join(name)).find(|file| file.is_file());
    let Some(candidates) = found(&["image-retrieval/candidate.csv", "text-retrieval/candidate.csv"]) else {
        bail!("{} has no image-retrieval/candidate.csv; give the folder of CheXpert 8x200", path.display());
    };
    let root = Root::new(&path.join("candidate.csv"), images);
    let candidates = Table::read(&candidates)?.labelled_images(&EIGHT, &root)?;
    let text_queries = found(&["text-retrieval/query.csv"]).map(|file| queries(&file, None)).transpose()?;
    let image_queries =
        found(&["image-retrieval/query.csv"]).map(|file| queries(&file, Some(&root))).transpose()?;
    if text_queries.is_none() && image_queries.is_none() {
        bail!("{} has neither text-retrieval/query.csv nor image-retrieval/query.csv", path.display());
    }
    Ok(Eight { candidates, images: image_queries, texts: text_queries })
}

/// Queries of 8x200: images where there is a folder for them, else texts.
fn queries(file: &Path, root: Option<&Root>) -> Result<Rows> {
    let table = Table::read(file)?;
    let category = table.column(&["Variable"])?;
    let content = table.column(if root.is_some() { &["Path"] } else { &["Text"] })?;
    let mut rows = Rows::default();
    let mut patients = Numbers::default();
    for (n, (row, line)) in (0u32..).zip(&table.rows) {
        let named = row[category].trim();
        let label = EIGHT.iter().position(|name| name.eq_ignore_ascii_case(named)).ok_or_else(|| {
            anyhow!("{} line {line}: '{named}' is no category; use one of {}", table.name, EIGHT.join(", "))
        })?;
        rows.labels.push(vec![u32::try_from(label).expect("there are eight")]);
        match root {
            Some(root) => {
                let path = row[content].trim();
                rows.images.push(root.find(path).with_context(|| format!("{} line {line}", table.name))?);
                rows.groups.push(patients.of(patient(path).unwrap_or(path).to_owned()));
            }
            None => {
                rows.texts.push(row[content].trim().to_owned());
                rows.groups.push(n);
            }
        }
    }
    Ok(rows)
}

/// Reads captions of ROCOv2: a CSV file, or the folder with `test_captions.csv` or another split.
pub fn rocov2(path: &Path, images: Option<&Path>) -> Result<Vec<Item>> {
    let file = match path.is_dir() {
        true => ["test_captions.csv", "valid_captions.csv", "train_captions.csv"]
            .iter()
            .map(|name| path.join(name))
            .find(|file| file.is_file())
            .with_context(|| format!("{} has no test_captions.csv; name the file", path.display()))?,
        false => path.to_owned(),
    };
    let table = Table::read(&file)?;
    let (id, caption) = (table.column(&["ID", "id"])?, table.column(&["Caption", "caption"])?);
    let folders = folders(&file, images);
    let shared: Arc<Path> = Arc::from(file.as_path());
    let mut items = Vec::with_capacity(table.rows.len());
    for (row, line) in &table.rows {
        let (id, caption) = (row[id].trim(), row[caption].trim());
        let origin = Origin::Line { file: shared.clone(), line: *line };
        let key = Key::new(id).with_context(|| origin.to_string())?;
        if caption.is_empty() {
            bail!("{origin}: has no caption; every row needs one");
        }
        let plain = !id.contains(['/', '\\']) && id != "..";
        let candidates =
            folders.iter().flat_map(|folder| EXTENSIONS.map(|e| folder.join(format!("{id}.{e}"))));
        let Some(image) = candidates.into_iter().find(|file| plain && file.is_file()) else {
            let folders: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
            bail!(
                "{origin}: there is no image {id}.jpg in {}; name the folder with --images",
                folders.join(", ")
            );
        };
        let texts = vec![caption.to_owned()];
        items.push(Item {
            key,
            images: vec![ItemImage::file(image)],
            texts,
            chunking: Chunking::default(),
            attributes: Attributes::new(),
            origin,
        });
    }
    Ok(items)
}

/// Folders that images of a file of captions may be in.
fn folders(file: &Path, images: Option<&Path>) -> Vec<PathBuf> {
    if let Some(images) = images {
        return vec![images.to_owned()];
    }
    let beside = file.parent().unwrap_or(Path::new("")).to_owned();
    let name = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let split = name.strip_suffix("_captions").unwrap_or(&name);
    let named =
        [format!("{split}_images/{split}"), format!("{split}_images"), split.to_owned(), "images".to_owned()];
    let mut folders: Vec<PathBuf> =
        named.iter().map(|name| beside.join(name)).filter(|f| f.is_dir()).collect();
    folders.push(beside);
    folders
}

/// Where the paths of a file start.
struct Root(PathBuf);

impl Root {
    fn new(file: &Path, images: Option<&Path>) -> Self {
        Self(images.unwrap_or_else(|| file.parent().unwrap_or(Path::new(""))).to_owned())
    }

    /// The image of a path as written, or below its first folder, which names the release of the data set.
    fn find(&self, path: &str) -> Result<PathBuf> {
        let relative = Path::new(path);
        let plain = relative.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        if !plain || path.is_empty() {
            bail!("'{path}' is no path below the folder of images; use relative ones without ..");
        }
        let below: PathBuf = relative.components().skip(1).collect();
        let whole = self.0.join(relative);
        let candidates = [whole.clone(), self.0.join(below)];
        candidates.into_iter().find(|file| file.is_file()).with_context(|| {
            format!("there is no {}; name the folder that holds the images with --images", whole.display())
        })
    }
}

/// The patient that a path names, as in `train/patient00001/study1/view1_frontal.jpg`.
fn patient(path: &str) -> Option<&str> {
    path.split('/').find(|part| part.strip_prefix("patient").is_some_and(|n| !n.is_empty()))
}

/// A CSV file in memory.
struct Table {
    name: String,
    header: Vec<String>,
    rows: Vec<(csv::StringRecord, u64)>,
}

impl Table {
    fn read(file: &Path) -> Result<Self> {
        let cannot = || format!("cannot read {}", file.display());
        let metadata = file.metadata().with_context(cannot)?;
        if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
            bail!("{} is no file of at most 1 GiB; give the CSV file of the protocol", file.display());
        }
        let mut reader = csv::ReaderBuilder::new().from_path(file).with_context(cannot)?;
        let header = reader.headers().with_context(cannot)?;
        let header =
            header.iter().map(|name| name.trim_start_matches('\u{feff}').trim().to_owned()).collect();
        let name = super::file_name(file);
        let mut rows = Vec::new();
        for record in reader.records() {
            let record = record.with_context(cannot)?;
            let line = record.position().map_or(0, csv::Position::line);
            rows.push((record, line));
        }
        if rows.is_empty() {
            bail!("{name} has no rows below its header");
        }
        Ok(Self { name, header, rows })
    }

    /// The first of some columns that is there.
    fn column(&self, names: &[&str]) -> Result<usize> {
        let at = |name: &&str| self.header.iter().position(|column| column.eq_ignore_ascii_case(name));
        names.iter().find_map(at).with_context(|| {
            format!(
                "{} has no column '{}' (it has {})",
                self.name,
                names.join("' or '"),
                self.header.join(", ")
            )
        })
    }

    /// The images of all rows, with those categories whose columns have 1.
    fn labelled_images(&self, categories: &[&str], root: &Root) -> Result<Rows> {
        let path = self.column(PATH_COLUMNS)?;
        let columns = categories.iter().map(|name| self.column(&[name])).collect::<Result<Vec<usize>>>()?;
        let mut rows = Rows::default();
        let mut patients = Numbers::default();
        for (row, line) in &self.rows {
            let positive =
                |column: &usize| row[*column].trim().parse::<f64>().is_ok_and(|value| value == 1.0);
            let labels: Vec<u32> = (0u32..)
                .zip(&columns)
                .filter(|(_, column)| positive(column))
                .map(|(label, _)| label)
                .collect();
            if labels.is_empty() {
                bail!("{} line {line}: is positive in none of {}", self.name, categories.join(", "));
            }
            let written = row[path].trim();
            rows.images.push(root.find(written).with_context(|| format!("{} line {line}", self.name))?);
            rows.groups.push(patients.of(patient(written).unwrap_or(written).to_owned()));
            rows.labels.push(labels);
        }
        Ok(rows)
    }
}
