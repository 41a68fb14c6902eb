//! OpenI: a report per XML file, and the images that it names.
//!
//! ```text
//! ecgen-radiology/1.xml      eCitation/MedlineCitation/Article/Abstract/AbstractText[@Label]
//! NLMCXR_png/CXR1_1_IM-0001-3001.png
//! ```
//!
//! Owns: which elements mean what, and the bounds of reading them. The only file that names the parser, which
//! expands no entities and opens nothing.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};

use diptych_core::{AttributeValue, Chunking};
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

use crate::item::{ItemError, ItemImage, ItemResult, Origin, printable};
use crate::paths::has_extension;
use crate::study::{self, Study};

/// Largest file of a report.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Elements that may lie within each other.
const DEPTH_MAX: usize = 64;
/// Folders that the XML files may be in, relative to the root.
const REPORT_FOLDERS: [&str; 3] = ["ecgen-radiology", "NLMCXR_reports/ecgen-radiology", ""];
/// Folders that the images may be in.
const IMAGE_FOLDERS: [&str; 4] = ["NLMCXR_png", "images", "png", ""];
/// What stands behind the id of an image in the name of its file.
const IMAGE_SUFFIXES: [&str; 4] = [".png", ".jpg", ".jpeg", ".dcm.png"];

/// The reports of an archive, in the order of their names.
pub(crate) struct Reports {
    files: VecDeque<PathBuf>,
    /// Where images are; nowhere when there are none at all.
    images: Option<PathBuf>,
    chunking: Option<Chunking>,
}

impl Reports {
    /// Lists the reports.
    pub(crate) fn open(
        root: &Path,
        image_root: Option<&Path>,
        chunking: Option<Chunking>,
    ) -> Result<Self, String> {
        let files = REPORT_FOLDERS.iter().map(|folder| xml_files(&root.join(folder)));
        let files = files.into_iter().find(|files| !files.is_empty());
        let files =
            files.ok_or("it has no XML files, in ecgen-radiology or itself; give the root of the archive")?;
        let images = match image_root {
            Some(root) => Some(root.to_owned()),
            None => IMAGE_FOLDERS.iter().map(|folder| root.join(folder)).find(|folder| has_image(folder)),
        };
        Ok(Self { files: files.into(), images, chunking })
    }

    pub(crate) fn len(&self) -> u64 {
        self.files.len() as u64
    }

    pub(crate) fn describe(&self) -> Vec<(String, String)> {
        let row = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let images = match &self.images {
            Some(folder) => format!("image, out of {}", folder.display()),
            None => "not read, since there is no folder of images".to_owned(),
        };
        vec![
            row("uId@id", "key"),
            row("AbstractText@Label", "section of the text"),
            row("MeSH/major, MeSH/automatic", "attributes mesh.major, mesh.automatic"),
            ("parentImage@id".to_owned(), images),
        ]
    }

    fn item(&self, path: &Path) -> Result<crate::Item, String> {
        let metadata = path.metadata().map_err(|e| format!("cannot be read: {e}"))?;
        if !metadata.is_file() {
            return Err("is not a regular file; replace it by one".to_owned());
        }
        if metadata.len() > FILE_BYTES_MAX {
            return Err(format!("has {} bytes, more than {FILE_BYTES_MAX}; it is no report", metadata.len()));
        }
        let bytes = fs::read(path).map_err(|e| format!("cannot be read: {e}"))?;
        let text = String::from_utf8(bytes).map_err(|_| "is not UTF-8; save it as UTF-8".to_owned())?;
        let report = Report::parse(&text)?;
        let key = match report.uid {
            Some(uid) => uid,
            None => path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        };
        let mut study = Study {
            key,
            report: study::sections(
                report.sections.iter().map(|(name, text)| (name.as_str(), text.as_str())),
            ),
            body_part: Some("chest"),
            ..Study::default()
        };
        for (name, terms) in [("mesh.major", report.major), ("mesh.automatic", report.automatic)] {
            if !terms.is_empty() {
                study.attributes.insert(name.to_owned(), AttributeValue::List(terms));
            }
        }
        for id in report.images {
            if let Some(folder) = &self.images {
                study.images.push(ItemImage::file(image(folder, &id)?));
            }
        }
        study.into_item(self.chunking, Origin::Path(path.to_owned()))
    }
}

impl Iterator for Reports {
    type Item = ItemResult;

    fn next(&mut self) -> Option<ItemResult> {
        let path = self.files.pop_front()?;
        Some(self.item(&path).map_err(|reason| ItemError { origin: Origin::Path(path), reason }))
    }
}

/// Whether a folder has reports of this kind: one of its first XML files begins like one.
pub(crate) fn is_at(root: &Path) -> bool {
    let begins_so = |path: &PathBuf| {
        crate::detect::head(path).is_ok_and(|head| String::from_utf8_lossy(&head).contains("<eCitation"))
    };
    REPORT_FOLDERS.iter().any(|folder| xml_files(&root.join(folder)).iter().take(3).any(begins_so))
}

/// The XML files of a folder: numbers in their order, then names in theirs.
fn xml_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| has_extension(path, &["xml"])).collect();
    files.sort_by_cached_key(|path| {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        (stem.parse::<u64>().unwrap_or(u64::MAX), stem)
    });
    files
}

fn has_image(folder: &Path) -> bool {
    let mut entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.any(|entry| has_extension(&entry.path(), &crate::IMAGE_EXTENSIONS))
}

/// The file of an image by its id, which must be a plain name.
fn image(folder: &Path, id: &str) -> Result<PathBuf, String> {
    if id.is_empty() || id.contains(['/', '\\', '\0']) || id == ".." {
        return Err(format!("its image '{}' is no plain name; correct the id", printable(id)));
    }
    let there = IMAGE_SUFFIXES.iter().map(|suffix| folder.join(format!("{id}{suffix}")));
    there.into_iter().find(|path| path.is_file()).ok_or_else(|| {
        let (id, folder) = (printable(id), folder.display());
        format!(
            "its image {id}.png is not in {folder}; fetch all images, or name their folder by --image-root"
        )
    })
}

/// What is read of one file.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Report {
    uid: Option<String>,
    /// Label and text, in order.
    sections: Vec<(String, String)>,
    major: Vec<String>,
    automatic: Vec<String>,
    images: Vec<String>,
}

/// Where text goes that is being read.
enum Target {
    Section(String),
    Major,
    Automatic,
}

impl Report {
    /// Reads a document. The error is the reason in words, without what the document says.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut reader = Reader::from_str(text);
        let mut report = Self::default();
        let mut depth = 0usize;
        let mut target: Option<(Target, usize, String)> = None;
        loop {
            let event = reader.read_event();
            let place = reader.error_position().max(reader.buffer_position());
            let wrong = |e: &dyn std::fmt::Display| format!("is not XML at byte {place}: {e}");
            match event.map_err(|e| wrong(&e))? {
                Event::Start(start) => {
                    depth += 1;
                    if depth > DEPTH_MAX {
                        return Err(format!(
                            "has more than {DEPTH_MAX} elements within each other; it is no report"
                        ));
                    }
                    if let Some(found) = report.begin(&start)? {
                        target = Some((found, depth, String::new()));
                    }
                }
                Event::Empty(start) => drop(report.begin(&start)?),
                Event::End(_) => {
                    if target.as_ref().is_some_and(|(_, at, _)| *at == depth)
                        && let Some((of, _, text)) = target.take()
                    {
                        report.end(of, &text);
                    }
                    depth = depth.saturating_sub(1);
                }
                Event::Text(text) => append(&mut target, &text.xml10_content()),
                Event::CData(text) => append(&mut target, &text.xml10_content()),
                Event::GeneralRef(reference) => {
                    let c = resolve(&reference).ok_or_else(|| {
                        "uses an entity of its own, which is not expanded; write the characters themselves".to_owned()
                    })?;
                    append(&mut target, c.encode_utf8(&mut [0; 4]));
                }
                Event::DocType(kind) if kind.contains("<!ENTITY") => {
                    return Err("defines entities, which are not expanded; write the characters themselves"
                        .to_owned());
                }
                Event::Eof if depth > 0 => return Err("ends within an element; it is cut off".to_owned()),
                Event::Eof => return Ok(report),
                Event::Decl(_) | Event::PI(_) | Event::Comment(_) | Event::DocType(_) => {}
            }
        }
    }

    /// Takes up the attributes of an element; says where its text goes.
    fn begin(&mut self, start: &BytesStart<'_>) -> Result<Option<Target>, String> {
        let attribute = |name: &str| -> Result<Option<String>, String> {
            let found = start.try_get_attribute(name).map_err(|e| format!("is not XML: {e}"))?;
            let Some(found) = found else { return Ok(None) };
            let value = found
                .normalized_value(XmlVersion::Implicit1_0)
                .map_err(|_| "has an attribute with an entity of its own".to_owned())?;
            Ok(Some(value.trim().to_owned()).filter(|value| !value.is_empty()))
        };
        match start.local_name().as_ref() {
            "uId" => self.uid = attribute("id")?.or(self.uid.take()),
            "parentImage" => {
                let id = attribute("id")?;
                self.images.extend(id.filter(|id| !self.images.contains(id)));
            }
            "AbstractText" => {
                let label = attribute("Label")?.unwrap_or_else(|| "FINDINGS".to_owned());
                return Ok(Some(Target::Section(label)));
            }
            "major" => return Ok(Some(Target::Major)),
            "automatic" => return Ok(Some(Target::Automatic)),
            _ => {}
        }
        Ok(None)
    }

    fn end(&mut self, target: Target, text: &str) {
        let text = text.trim();
        if text.is_empty() {
            return;
        }
        match target {
            Target::Section(label) => self.sections.push((label, text.to_owned())),
            Target::Major => self.major.push(text.to_owned()),
            Target::Automatic => self.automatic.push(text.to_owned()),
        }
    }
}

fn append(target: &mut Option<(Target, usize, String)>, text: &str) {
    if let Some((_, _, so_far)) = target {
        so_far.push_str(text);
    }
}

/// The five entities of XML itself, and characters by number.
fn resolve(reference: &BytesRef<'_>) -> Option<char> {
    match reference.as_ref() {
        "lt" => Some('<'),
        "gt" => Some('>'),
        "amp" => Some('&'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => reference.resolve_char_ref().ok().flatten(),
    }
}
