//! ROCO and ROCOv2: figures of articles with their captions.
//!
//! ```text
//! train_captions.csv (ID,Caption)   train_concepts.csv (ID,CUIs)   train/ID.jpg          ROCOv2
//! train/radiology/captions.txt (ID<tab>caption)   train/radiology/images/ID.jpg          ROCO
//! train/radiologytraindata.csv (id,name,caption)  train/radiology/images/NAME            ROCO
//! ```
//!
//! Owns: where captions and images are. The captions are read one by one; the concepts are in memory.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use diptych_core::{AttributeValue, Attributes, Chunking, Key};

use crate::csv::Table;
use crate::input::Input;
use crate::item::{Item, ItemError, ItemImage, ItemResult, Origin, printable};
use crate::keys::Seeds;
use crate::paths::has_extension;

/// Folders of splits, relative to the root, and the splits they are of.
const SPLITS: [(&str, &str); 5] = [
    ("train", "train"),
    ("validation", "validation"),
    ("val", "validation"),
    ("valid", "validation"),
    ("test", "test"),
];
const IMAGE_SUFFIXES: [&str; 3] = [".jpg", ".png", ".jpeg"];

/// A file of captions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Captions {
    path: PathBuf,
    split: Option<&'static str>,
}

/// The files of captions in a folder, or in its folders of splits.
pub(crate) fn find(root: &Path) -> Vec<Captions> {
    let mut found = Vec::new();
    let mut folders = vec![(root.to_owned(), None), (root.join("radiology"), None)];
    for (folder, split) in SPLITS {
        folders.push((root.join(folder), Some(split)));
        folders.push((root.join(folder).join("radiology"), Some(split)));
    }
    for (folder, split) in folders {
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> =
            entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect();
        paths.sort();
        let tables: Vec<PathBuf> = paths.iter().filter(|path| is_table(path)).cloned().collect();
        let lists = || paths.iter().filter(|path| is_list(path)).cloned().collect::<Vec<_>>();
        let own = if tables.is_empty() { lists() } else { tables };
        found.extend(own.into_iter().map(|path| Captions { split: split.or_else(|| split_of(&path)), path }));
    }
    found
}

/// A table with the columns of either.
fn is_table(path: &Path) -> bool {
    has_extension(path, &["csv"])
        && Table::open(path)
            .is_ok_and(|table| table.has(&["ID", "Caption"]) || table.has(&["id", "name", "caption"]))
}

/// A list whose first line begins with an id of ROCO.
fn is_list(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "captions.txt")
        && crate::detect::head(path).is_ok_and(|head| head.starts_with(b"ROCO"))
}

fn split_of(path: &Path) -> Option<&'static str> {
    let name = path.file_name()?.to_string_lossy().to_lowercase();
    SPLITS.iter().find(|(named, _)| name.contains(named)).map(|&(_, split)| split)
}

/// The figures of an archive.
pub(crate) struct Figures {
    files: VecDeque<Captions>,
    image_root: Option<PathBuf>,
    chunking: Chunking,
    open: Option<Open>,
}

struct Open {
    list: List,
    folders: Vec<PathBuf>,
    seeds: Seeds,
    concepts: HashMap<[u64; 2], String>,
    split: Option<&'static str>,
}

enum List {
    Table { table: Box<Table>, id: usize, name: Option<usize>, caption: usize },
    Lines { lines: Box<crate::lines::TextLines<Input>>, file: Arc<Path> },
}

/// One caption as it is written.
struct Caption {
    id: String,
    name: Option<String>,
    text: String,
}

impl Figures {
    pub(crate) fn new(files: Vec<Captions>, image_root: Option<&Path>, chunking: Option<Chunking>) -> Self {
        Self {
            files: files.into(),
            image_root: image_root.map(Path::to_owned),
            chunking: chunking.unwrap_or_default(),
            open: None,
        }
    }

    pub(crate) fn describe(&self) -> Vec<(String, String)> {
        let row = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let mut rows = vec![
            row("ID", "key"),
            row("caption", "text"),
            row("ID.jpg, or name", "image"),
            row("CUIs", "attribute cuis, a list"),
        ];
        rows.extend(self.files.iter().map(|file| {
            let split =
                file.split.map_or("no split".to_owned(), |split| format!("attribute split = {split}"));
            (file.path.display().to_string(), split)
        }));
        rows
    }

    fn next_file(&mut self) -> Option<Result<Open, ItemError>> {
        let Captions { path, split } = self.files.pop_front()?;
        let opened = open(&path, split, self.image_root.as_deref());
        Some(opened.map_err(|reason| ItemError { origin: Origin::Path(path), reason }))
    }
}

fn open(path: &Path, split: Option<&'static str>, image_root: Option<&Path>) -> Result<Open, String> {
    let list = if has_extension(path, &["csv"]) {
        let table = Table::open(path)?;
        let place = |names: [&str; 2]| table.columns().iter().position(|c| names.contains(&c.as_str()));
        let missing = || "it needs the columns id and caption".to_owned();
        let id = place(["ID", "id"]).ok_or_else(missing)?;
        let caption = place(["Caption", "caption"]).ok_or_else(missing)?;
        List::Table { name: place(["name", "name"]), id, caption, table: Box::new(table) }
    } else {
        let input = Input::open(path).map_err(|e| format!("cannot be opened: {e}"))?;
        List::Lines { lines: Box::new(crate::lines::TextLines::new(input)), file: Arc::from(path) }
    };
    let seeds = Seeds::default();
    let concepts = concepts(path, &seeds)?;
    Ok(Open { list, folders: image_folders(path, split, image_root), seeds, concepts, split })
}

/// The concepts beside a file of captions, where there are any: `train_concepts.csv`.
fn concepts(captions: &Path, seeds: &Seeds) -> Result<HashMap<[u64; 2], String>, String> {
    let name = captions.file_name().unwrap_or_default().to_string_lossy().replace("captions", "concepts");
    let path = captions.with_file_name(name);
    let mut concepts = HashMap::new();
    if path == captions || !path.is_file() || !has_extension(&path, &["csv"]) {
        return Ok(concepts);
    }
    let named = |reason: String| format!("{}: {reason}", path.display());
    let mut table = Table::open(&path).map_err(named)?;
    let place = |name: &str| table.columns().iter().position(|column| column == name);
    let (Some(id), Some(cuis)) = (place("ID"), place("CUIs")) else { return Ok(concepts) };
    while let Some((line, row)) = table.next_row() {
        let row = row.map_err(|reason| named(format!("line {line}: {reason}")))?;
        concepts.insert(seeds.hash(row[id].trim()), row[cuis].trim().to_owned());
    }
    Ok(concepts)
}

/// Folders that images of a file of captions may be in.
fn image_folders(captions: &Path, split: Option<&'static str>, image_root: Option<&Path>) -> Vec<PathBuf> {
    let beside = captions.parent().unwrap_or(Path::new(""));
    let mut folders = Vec::new();
    for root in image_root.into_iter().chain([beside]) {
        for name in ["", "images", "radiology/images"] {
            folders.push(root.join(name));
        }
        for (named, of) in SPLITS {
            if split == Some(of) {
                folders.push(root.join(named));
                folders.push(root.join(format!("{named}_images")));
                folders.push(root.join(format!("{named}_images")).join(named));
            }
        }
    }
    folders.retain(|folder| folder.is_dir());
    folders
}

impl Open {
    fn origin(&self, line: u64) -> Origin {
        match &self.list {
            List::Table { table, .. } => table.origin(line),
            List::Lines { file, .. } => Origin::Line { file: Arc::clone(file), line },
        }
    }

    fn next_caption(&mut self) -> Option<(u64, Result<Caption, String>)> {
        match &mut self.list {
            List::Table { table, id, name, caption } => {
                let (line, row) = table.next_row()?;
                let caption = row.map(|row| Caption {
                    id: row[*id].trim().to_owned(),
                    name: name.map(|name| row[name].trim().to_owned()).filter(|name| !name.is_empty()),
                    text: row[*caption].trim().to_owned(),
                });
                Some((line, caption))
            }
            List::Lines { lines, .. } => {
                let (line, text) = lines.next()?;
                let caption = text.and_then(|text| {
                    let (id, caption) = text
                        .split_once('\t')
                        .ok_or("no tab between id and caption; write them as ROCO does")?;
                    let (id, text) = (id.trim().to_owned(), caption.trim().to_owned());
                    Ok(Caption { id, name: None, text })
                });
                Some((line, caption))
            }
        }
    }

    fn item(&self, line: u64, caption: Caption, chunking: Chunking) -> Result<Item, String> {
        let Caption { id, name, text } = caption;
        let image = self.image(&id, name.as_deref())?;
        let mut attributes = Attributes::new();
        let cuis = self.concepts.get(&self.seeds.hash(&id)).into_iter();
        let cuis: Vec<String> = cuis
            .flat_map(|cuis| cuis.split([';', ',']))
            .map(|cui| cui.trim().to_owned())
            .filter(|cui| !cui.is_empty())
            .collect();
        let list = (!cuis.is_empty()).then_some(AttributeValue::List(cuis));
        attributes.extend(list.map(|list| ("cuis".to_owned(), list)));
        let text_value = |value: &str| AttributeValue::String(value.to_owned());
        attributes.extend(self.split.map(|split| ("split".to_owned(), text_value(split))));
        attributes.extend(name.map(|name| ("figure".to_owned(), text_value(&name))));
        let key = Key::new(id).map_err(|e| e.to_string())?;
        let texts = if text.is_empty() { Vec::new() } else { vec![text] };
        let images = vec![ItemImage::file(image)];
        Ok(Item { key, images, texts, chunking, attributes, origin: self.origin(line) })
    }

    fn image(&self, id: &str, name: Option<&str>) -> Result<PathBuf, String> {
        let plain =
            |name: &str| !name.is_empty() && !name.contains(['/', '\\', '\0']) && !name.starts_with('.');
        if !plain(id) || name.is_some_and(|name| !plain(name)) {
            return Err(format!("'{}' is no plain name of an image; correct it", printable(id)));
        }
        let mut names: Vec<String> = IMAGE_SUFFIXES.iter().map(|suffix| format!("{id}{suffix}")).collect();
        names.extend(name.map(str::to_owned));
        let mut there =
            self.folders.iter().flat_map(|folder| names.iter().map(move |name| folder.join(name)));
        there.find(|path| path.is_file()).ok_or_else(|| {
            format!(
                "its image {}.jpg is not there; fetch the images into a folder 'images' beside the captions, or name \
                 their folder by --image-root",
                printable(id)
            )
        })
    }
}

impl Iterator for Figures {
    type Item = ItemResult;

    fn next(&mut self) -> Option<ItemResult> {
        loop {
            let Some(open) = &mut self.open else {
                match self.next_file()? {
                    Ok(open) => self.open = Some(open),
                    Err(error) => return Some(Err(error)),
                }
                continue;
            };
            match open.next_caption() {
                None => self.open = None,
                Some((line, caption)) => {
                    let item = caption.and_then(|caption| open.item(line, caption, self.chunking));
                    return Some(item.map_err(|reason| ItemError { origin: open.origin(line), reason }));
                }
            }
        }
    }
}
