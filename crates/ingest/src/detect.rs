//! Telling layouts apart by what is there.
//!
//! Owns: the order in which layouts are looked for, and the sentence that says why one was taken. Reads at most
//! the heads of some files and the lists of some folders.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::columns::{Columns, Role, Roles};
use crate::input::Input;
use crate::layout::Layout;
use crate::paths::has_extension;
use crate::{IMAGE_EXTENSIONS, LINES_EXTENSIONS, LINES_NAMES, SourceError};
use crate::{mimic, mimic_tables, openi, openi_csv, roco};

/// What is read of a file to recognise it, in bytes.
const HEAD_BYTES: u64 = 4096;
/// Shards that a pattern may stand for.
const SHARDS_MAX: usize = 100_000;
/// Files of a tree that are looked at for DICOM.
const PROBED_FILES: usize = 32;

/// Where the parts of a source are.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// A file or a folder.
    Path(PathBuf),
    /// Files that are read one after the other.
    Files(Vec<PathBuf>),
    /// The two tables of OpenI as CSV.
    Tables(openi_csv::Files),
    /// The captions of ROCO.
    Captions(Vec<roco::Captions>),
    /// Archives in a store.
    #[cfg(feature = "s3")]
    Objects(Vec<crate::s3::Object>),
}

/// A layout, and why it was taken.
#[derive(Debug)]
pub(crate) struct Detected {
    pub(crate) layout: Layout,
    pub(crate) why: String,
    pub(crate) place: Place,
}

impl Detected {
    fn path(layout: Layout, path: &Path, why: impl Into<String>) -> Self {
        Self { layout, why: why.into(), place: Place::Path(path.to_owned()) }
    }

    fn files(layout: Layout, files: Vec<PathBuf>, why: impl Into<String>) -> Self {
        Self { layout, why: why.into(), place: Place::Files(files) }
    }
}

/// The first bytes of a file, unpacked where it is gzip.
pub(crate) fn head(path: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    // A pipe would wait for somebody to write to it.
    if path.metadata()?.is_file() {
        Input::open(path)?.take(HEAD_BYTES).read_to_end(&mut head)?;
    }
    Ok(head)
}

/// Recognises a source, or finds what a layout needs that was asked for.
pub(crate) fn detect(path: &Path, wanted: Option<Layout>) -> Result<Detected, SourceError> {
    if let Some(shards) = expand(path)? {
        let n = shards.len();
        let layout = wanted.unwrap_or_else(|| by_name(&shards[0]).unwrap_or(Layout::WebDataset));
        return match layout {
            Layout::WebDataset | Layout::Parquet => {
                Ok(Detected::files(layout, shards, format!("the pattern stands for {n} files")))
            }
            other => Err(unusable(path, format!("a pattern of several files is not read as {other}"))),
        };
    }
    let metadata = path.metadata().map_err(|error| SourceError::Io { path: path.to_owned(), error })?;
    match (metadata.is_dir(), metadata.is_file(), wanted) {
        (true, _, None) => Ok(folder(path)),
        (true, _, Some(layout)) => forced_folder(path, layout),
        (_, true, None) => file(path),
        (_, true, Some(layout)) => forced_file(path, layout),
        _ => Err(SourceError::NotRegular { path: path.to_owned() }),
    }
}

fn unusable(path: &Path, reason: impl Into<String>) -> SourceError {
    SourceError::Unusable { path: path.to_owned(), reason: reason.into() }
}

fn file(path: &Path) -> Result<Detected, SourceError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let head = head(path).map_err(|error| SourceError::Io { path: path.to_owned(), error })?;
    let detected = |layout, why: &str| Ok(single(layout, path, why));
    if head.starts_with(b"PAR1") {
        return detected(Layout::Parquet, "the file begins with PAR1");
    }
    if head.get(257..262) == Some(b"ustar") {
        return detected(Layout::WebDataset, "the file has a tar header");
    }
    if head.get(128..132) == Some(b"DICM") {
        return detected(Layout::Dicom, "the file has a DICOM preamble");
    }
    match by_name(path) {
        Some(layout) => {
            let extension = name.split_once('.').map_or("", |(_, extension)| extension);
            detected(layout, &format!("the file is named .{extension}"))
        }
        None => Err(SourceError::NotASource { path: path.to_owned() }),
    }
}

/// The layout that the name of a file promises.
pub(crate) fn by_name(path: &Path) -> Option<Layout> {
    let unpacked = if has_extension(path, &["gz"]) { path.with_extension("") } else { path.to_owned() };
    [
        (Layout::JsonLines, &LINES_EXTENSIONS[..]),
        (Layout::Csv, &["csv", "tsv", "tab"]),
        (Layout::Parquet, &["parquet"]),
        (Layout::WebDataset, &["tar", "tgz"]),
    ]
    .into_iter()
    .find(|(_, extensions)| has_extension(&unpacked, extensions))
    .map(|(layout, _)| layout)
}

/// A source of one file.
fn single(layout: Layout, path: &Path, why: &str) -> Detected {
    match layout {
        Layout::Parquet | Layout::WebDataset => Detected::files(layout, vec![path.to_owned()], why),
        _ => Detected::path(layout, path, why),
    }
}

fn forced_file(path: &Path, layout: Layout) -> Result<Detected, SourceError> {
    match layout {
        Layout::JsonLines | Layout::Csv | Layout::Parquet | Layout::WebDataset | Layout::Dicom => {
            Ok(single(layout, path, FORCED))
        }
        _ => Err(unusable(path, format!("the layout {layout} is a folder; name the folder"))),
    }
}

const FORCED: &str = "it was asked for by --format";

/// What a layout that was asked for needs of a folder.
fn forced_folder(path: &Path, layout: Layout) -> Result<Detected, SourceError> {
    let named = |extensions: &str| format!("there is no {extensions} file in it; name the file itself");
    let of_kind = |layout: Layout| -> Vec<PathBuf> {
        listed(path).into_iter().filter(|file| by_name(file) == Some(layout)).collect()
    };
    match layout {
        Layout::JsonLines | Layout::Csv => {
            let mut files = of_kind(layout);
            if let Some(known) = lines_file(path).filter(|_| layout == Layout::JsonLines) {
                files = vec![known];
            }
            match files.len() {
                1 => Ok(single(layout, &files[0], FORCED)),
                0 => Err(unusable(path, named(layout.as_str()))),
                n => Err(unusable(path, format!("there are {n} {layout} files in it; name one of them"))),
            }
        }
        Layout::Parquet | Layout::WebDataset => {
            let mut files = of_kind(layout);
            if files.is_empty() {
                let within = listed(&path.join("data"));
                files = within.into_iter().filter(|file| by_name(file) == Some(layout)).collect();
            }
            match files.is_empty() {
                false => Ok(Detected::files(layout, files, FORCED)),
                true => Err(unusable(path, named(layout.as_str()))),
            }
        }
        Layout::OpenICsv => {
            let files = openi_csv::Files::find(path);
            let files = files.ok_or_else(|| {
                unusable(
                    path,
                    "it has no two tables with the columns uid, findings, impression and uid, filename, projection",
                )
            })?;
            Ok(Detected { layout, why: FORCED.to_owned(), place: Place::Tables(files) })
        }
        Layout::Roco => {
            let files = roco::find(path);
            if files.is_empty() {
                let reason = "it has neither captions.txt nor a table with the columns ID, Caption or id, name, caption";
                return Err(unusable(path, reason));
            }
            Ok(Detected { layout, why: FORCED.to_owned(), place: Place::Captions(files) })
        }
        Layout::Folder | Layout::ClipRetrieval | Layout::MimicCxr | Layout::OpenI | Layout::Dicom => {
            Ok(Detected::path(layout, path, FORCED))
        }
    }
}

fn lines_file(folder: &Path) -> Option<PathBuf> {
    LINES_NAMES.iter().map(|name| folder.join(name)).find(|file| file.is_file())
}

/// Recognises a folder; what is like nothing else is a folder of images.
fn folder(path: &Path) -> Detected {
    if let Some(file) = lines_file(path) {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        return Detected::path(Layout::JsonLines, &file, format!("the folder has {name}"));
    }
    let arrays = |name: &str| path.join(name).is_dir();
    if (arrays("img_emb") || arrays("text_emb")) && arrays("metadata") {
        return Detected::path(
            Layout::ClipRetrieval,
            path,
            "the folder has arrays of vectors beside metadata",
        );
    }
    let has_groups = |folder: PathBuf| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        folders.any(|entry| entry.file_name().to_str().is_some_and(mimic::is_group))
    };
    if has_groups(path.join("files"))
        || (!mimic_tables::files(path).is_empty() && has_groups(path.to_owned()))
    {
        return Detected::path(
            Layout::MimicCxr,
            path,
            "the folder has files/p10 and so on, as MIMIC-CXR does",
        );
    }
    if openi::is_at(path) {
        return Detected::path(Layout::OpenI, path, "the folder has XML files of eCitation, as OpenI does");
    }
    if let Some(files) = openi_csv::Files::find(path) {
        let why = "the folder has a table of reports and one of projections, as the Indiana collection does";
        return Detected { layout: Layout::OpenICsv, why: why.to_owned(), place: Place::Tables(files) };
    }
    let captions = roco::find(path);
    if !captions.is_empty() {
        let why = "the folder has captions with ids, as ROCO does".to_owned();
        return Detected { layout: Layout::Roco, why, place: Place::Captions(captions) };
    }
    files_of(path).or_else(|| dicom(path)).unwrap_or_else(|| {
        Detected::path(Layout::Folder, path, "the folder is like no other layout, so its images are read")
    })
}

/// A folder of archives, of Parquet files, or with one table.
fn files_of(path: &Path) -> Option<Detected> {
    let files = listed(path);
    let images = files.iter().any(|file| has_extension(file, &IMAGE_EXTENSIONS));
    let of_kind = |files: &[PathBuf], layout: Layout| -> Vec<PathBuf> {
        files.iter().filter(|file| by_name(file) == Some(layout)).cloned().collect()
    };
    let archives = of_kind(&files, Layout::WebDataset);
    if !archives.is_empty() && !images {
        let n = archives.len();
        return Some(Detected::files(Layout::WebDataset, archives, format!("the folder has {n} tar files")));
    }
    for folder in [path.to_owned(), path.join("data")] {
        let tables = of_kind(&listed(&folder), Layout::Parquet);
        if !tables.is_empty() && !images {
            let n = tables.len();
            return Some(Detected::files(
                Layout::Parquet,
                tables,
                format!("the folder has {n} Parquet files"),
            ));
        }
    }
    let tables = of_kind(&files, Layout::Csv);
    let names_images = |table: &PathBuf| {
        let columns = crate::csv::Table::open(table).ok().map(|table| table.columns().to_vec());
        let roles = columns.and_then(|columns| Roles::of(columns, &Columns::default()).ok());
        roles.is_some_and(|roles| roles.roles.contains(&Role::Image) || (roles.has_content() && !images))
    };
    match &tables[..] {
        [table] if names_images(table) => {
            let name = table.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Some(Detected::path(
                Layout::Csv,
                table,
                format!("the folder has one table, {name}, of images or texts"),
            ))
        }
        _ => None,
    }
}

/// A tree one of whose first files is DICOM.
fn dicom(path: &Path) -> Option<Detected> {
    let mut folders = vec![path.to_owned()];
    let mut probed = 0;
    while let Some(folder) = folders.pop() {
        for file in listed(&folder) {
            if probed == PROBED_FILES {
                return None;
            }
            probed += 1;
            if head(&file).is_ok_and(|head| head.get(128..132) == Some(b"DICM")) {
                let why = "one of its first files has a DICOM preamble";
                return Some(Detected::path(Layout::Dicom, path, why));
            }
        }
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        let mut inner: Vec<PathBuf> = entries
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .collect();
        inner.sort_by(|a, b| b.cmp(a));
        folders.extend(inner);
    }
    None
}

/// The regular files of a folder in the order of their names; none when it cannot be listed.
fn listed(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
        .map(|entry| entry.path())
        .collect();
    files.sort();
    files
}

/// The files that a pattern like `{000..009}.tar` stands for; `None` when the path is none, or is there.
pub(crate) fn expand(path: &Path) -> Result<Option<Vec<PathBuf>>, SourceError> {
    let Some(text) = path.to_str() else { return Ok(None) };
    if path.exists() {
        return Ok(None);
    }
    let names = expand_text(text).map_err(|reason| unusable(path, reason))?;
    Ok(names.map(|names| names.into_iter().map(PathBuf::from).collect()))
}

/// The names that a text with one range in braces stands for; `None` when it has none.
pub(crate) fn expand_text(text: &str) -> Result<Option<Vec<String>>, String> {
    let Some((before, rest)) = text.split_once('{') else { return Ok(None) };
    let Some((range, after)) = rest.split_once('}') else { return Ok(None) };
    let wrong =
        || format!("'{{{range}}}' is no range of numbers such as {{000..009}}, and nothing has this name");
    let (from, to) = range.split_once("..").ok_or_else(wrong)?;
    let number = |digits: &str| -> Result<u64, String> {
        match digits.bytes().all(|b| b.is_ascii_digit()) {
            true => digits.parse().map_err(|_| wrong()),
            false => Err(wrong()),
        }
    };
    let (first, last) = (number(from)?, number(to)?);
    match last.checked_sub(first) {
        Some(more) if more < SHARDS_MAX as u64 => {}
        _ => return Err(format!("'{{{range}}}' must count upwards, over at most {SHARDS_MAX} files")),
    }
    let width = from.len();
    Ok(Some((first..=last).map(|n| format!("{before}{n:0width$}{after}")).collect()))
}
