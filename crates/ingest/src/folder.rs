//! Folders of images.
//!
//! Owns: the walk, its order, which files are images, their keys and the texts beside them. Never
//! opens an image, and never follows a link out of the folder.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};

use diptych_core::limits::TEXT_BYTES_MAX;
use diptych_core::{Attributes, Chunking, Key};

use crate::IMAGE_EXTENSIONS;
use crate::item::{Item, ItemError, ItemImage, Origin, printable};
use crate::paths::has_extension;

/// The items of one folder: depth first, names in byte order within each directory.
#[derive(Debug)]
pub(crate) struct Folder {
    root: PathBuf,
    /// The root without links, against which links are judged.
    real_root: PathBuf,
    /// What is still to be visited, the next one last.
    pending: Vec<Pending>,
    chunking: Chunking,
}

#[derive(Debug)]
enum Pending {
    Directory(PathBuf),
    Image(ImageFile),
    Failed(ItemError),
}

#[derive(Debug)]
struct ImageFile {
    /// Directory, relative to the root.
    directory: PathBuf,
    name: OsString,
    /// Whether another image of the directory would have the same key without its extension.
    keep_extension: bool,
    /// Name of the text file beside it.
    text: Option<OsString>,
}

impl Folder {
    /// Lists the topmost directory.
    pub(crate) fn open(root: &Path, chunking: Chunking) -> io::Result<Self> {
        let real_root = root.canonicalize()?;
        let mut folder = Self { root: root.to_owned(), real_root, pending: Vec::new(), chunking };
        folder.visit(Path::new(""))?;
        Ok(folder)
    }

    /// Lists one directory and puts what it holds in front of everything pending.
    fn visit(&mut self, directory: &Path) -> io::Result<()> {
        let path = self.root.join(directory);
        let mut entries = fs::read_dir(&path)?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_cached_key(DirEntry::file_name);
        let texts: HashMap<OsString, OsString> = entries
            .iter()
            .map(DirEntry::file_name)
            .filter(|name| has_extension(Path::new(name), &["txt"]))
            .filter_map(|name| Some((Path::new(&name).file_stem()?.to_owned(), name)))
            .collect();

        let mut found = Vec::new();
        for entry in entries {
            match self.classify(&entry) {
                Ok(Kind::Image) => found.push(Pending::Image(ImageFile {
                    directory: directory.to_owned(),
                    text: Path::new(&entry.file_name()).file_stem().and_then(|s| texts.get(s)).cloned(),
                    name: entry.file_name(),
                    keep_extension: false,
                })),
                Ok(Kind::Directory) => found.push(Pending::Directory(directory.join(entry.file_name()))),
                Ok(Kind::Other) => {}
                Err(reason) => found.push(Pending::Failed(failure(entry.path(), reason))),
            }
        }
        separate_keys(&mut found);
        self.pending.extend(found.into_iter().rev());
        Ok(())
    }

    fn classify(&self, entry: &DirEntry) -> Result<Kind, String> {
        let path = entry.path();
        let named_image = has_extension(&path, &IMAGE_EXTENSIONS);
        let mut file_type = entry.file_type().map_err(|e| format!("cannot be read: {e}; check the disk"))?;
        let linked = file_type.is_symlink();
        if linked {
            match (self.follow(&path), named_image) {
                (Ok(metadata), _) => file_type = metadata.file_type(),
                // A broken link to something that is no image is nobody's concern.
                (Err(Link::Broken(_)), false) => return Ok(Kind::Other),
                (Err(Link::Outside { directory: false }), false) => return Ok(Kind::Other),
                (Err(link), _) => return Err(link.reason()),
            }
        }
        match (file_type.is_dir(), file_type.is_file(), named_image) {
            (true, _, true) => {
                Err("is a directory with the name of an image; rename it to have it read".to_owned())
            }
            // What a link within the folder leads to is visited under its own name.
            (true, _, false) => Ok(if linked { Kind::Other } else { Kind::Directory }),
            (false, true, true) => Ok(Kind::Image),
            (false, false, true) => {
                Err("is not a regular file; replace it by a copy of the image".to_owned())
            }
            (false, _, false) => Ok(Kind::Other),
        }
    }

    /// What a link leads to, when that lies within the folder.
    fn follow(&self, link: &Path) -> Result<fs::Metadata, Link> {
        let target = link.canonicalize().map_err(Link::Broken)?;
        let metadata = target.metadata().map_err(Link::Broken)?;
        if target.starts_with(&self.real_root) {
            Ok(metadata)
        } else {
            Err(Link::Outside { directory: metadata.is_dir() })
        }
    }

    fn item(&self, image: &ImageFile) -> Result<Item, ItemError> {
        let path = self.root.join(&image.directory).join(&image.name);
        let key = key(image).map_err(|reason| failure(path.clone(), reason))?;
        let text = match &image.text {
            Some(name) => {
                let beside = path.with_file_name(name);
                self.text(&beside).map_err(|reason| {
                    let name = printable(&name.to_string_lossy());
                    failure(path.clone(), format!("the text beside it, {name}, {reason}"))
                })?
            }
            None => None,
        };
        Ok(Item {
            key,
            images: vec![ItemImage::file(path.clone())],
            texts: text.into_iter().collect(),
            chunking: self.chunking,
            attributes: Attributes::new(),
            origin: Origin::Path(path),
        })
    }

    /// The text of a file, trimmed; `None` when it is blank.
    fn text(&self, path: &Path) -> Result<Option<String>, String> {
        let unreadable = |e: io::Error| format!("cannot be read: {e}; check its permissions");
        let metadata = path.symlink_metadata().map_err(unreadable)?;
        if metadata.is_symlink() {
            self.follow(path).map_err(Link::reason)?;
        }
        read_text(path)
    }
}

/// The text of a file, trimmed; `None` when it is blank. The error goes on from the name of the file.
pub(crate) fn read_text(path: &Path) -> Result<Option<String>, String> {
    let unreadable = |e: io::Error| format!("cannot be read: {e}; check its permissions");
    let metadata = path.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err("is not a regular file; replace it by one or remove it".to_owned());
    }
    if metadata.len() > TEXT_BYTES_MAX as u64 {
        let bytes = metadata.len();
        return Err(format!("has {bytes} bytes, more than {TEXT_BYTES_MAX}; shorten it"));
    }
    text_of(fs::read(path).map_err(unreadable)?)
}

/// The text in some bytes, trimmed; `None` when it is blank. The error goes on from the name of where they are
/// from.
pub(crate) fn text_of(bytes: Vec<u8>) -> Result<Option<String>, String> {
    let text = String::from_utf8(bytes).map_err(|e| {
        format!("is not UTF-8 from byte {} on; save it as UTF-8", e.utf8_error().valid_up_to())
    })?;
    let text = text.trim_start_matches('\u{FEFF}').trim();
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

impl Iterator for Folder {
    type Item = Result<Item, ItemError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.pending.pop()? {
                Pending::Image(image) => return Some(self.item(&image)),
                Pending::Failed(error) => return Some(Err(error)),
                Pending::Directory(directory) => {
                    if let Err(e) = self.visit(&directory) {
                        let reason = format!("cannot be listed: {e}; check its permissions");
                        return Some(Err(failure(self.root.join(directory), reason)));
                    }
                }
            }
        }
    }
}

/// Counts what is named like an image.
pub(crate) fn count(root: &Path) -> io::Result<u64> {
    let mut images = 0;
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let path = entry.path();
            if has_extension(&path, &IMAGE_EXTENSIONS) {
                images += 1;
            } else if entry.file_type()?.is_dir() {
                directories.push(path);
            }
        }
    }
    Ok(images)
}

enum Kind {
    Image,
    Directory,
    Other,
}

/// Why a link is not followed.
enum Link {
    Broken(io::Error),
    Outside { directory: bool },
}

impl Link {
    fn reason(self) -> String {
        match self {
            Self::Broken(e) => format!("is a link that leads nowhere: {e}; repair or remove it"),
            Self::Outside { .. } => {
                "is a link that leaves the folder; copy what it points to into the folder".to_owned()
            }
        }
    }
}

fn failure(path: PathBuf, reason: String) -> ItemError {
    ItemError { origin: Origin::Path(path), reason }
}

/// Keeps the extension in the keys of images that would otherwise share one. `a.jpg` and `a.png`
/// keep theirs; beside them `a.jpg.png` must keep its own too, or it would become `a.jpg`.
fn separate_keys(found: &mut [Pending]) {
    let stem = |image: &ImageFile| Path::new(&image.name).file_stem().map(OsStr::to_owned);
    let images = || {
        found.iter().filter_map(|p| match p {
            Pending::Image(image) => Some(image),
            Pending::Directory(_) | Pending::Failed(_) => None,
        })
    };
    let mut times: HashMap<OsString, usize> = HashMap::new();
    for image in images() {
        *times.entry(stem(image).unwrap_or_default()).or_default() += 1;
    }
    let mut whole: HashSet<OsString> = HashSet::new();
    loop {
        let before = whole.len();
        let clashing: Vec<OsString> = images()
            .filter(|image| {
                let stem = stem(image).unwrap_or_default();
                times.get(&stem).is_some_and(|&n| n > 1) || whole.contains(&stem)
            })
            .map(|image| image.name.clone())
            .collect();
        whole.extend(clashing);
        if whole.len() == before {
            break;
        }
    }
    for pending in found {
        if let Pending::Image(image) = pending {
            image.keep_extension = whole.contains(&image.name);
        }
    }
}

fn key(image: &ImageFile) -> Result<Key, String> {
    let mut path = image.directory.join(&image.name);
    if !image.keep_extension {
        path.set_extension("");
    }
    let key = path.to_str().ok_or("the name is not UTF-8; rename the file")?;
    Key::new(key.replace(std::path::MAIN_SEPARATOR, "/")).map_err(|e| format!("{e}, by renaming the file"))
}
