//! WebDataset: tar archives whose members make samples.
//!
//! Owns: which members belong together and what their extensions mean. One pass; a sample is in memory, and
//! nothing else. Deliberately absent: the archive itself, see `tar`.

use std::collections::VecDeque;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use diptych_core::Chunking;
use diptych_core::limits::{IMAGE_BYTES_MAX, TEXT_BYTES_MAX};
use serde_json::{Map, Value};

use crate::columns::{Columns, Row, typed};
use crate::fields::Object;
use crate::folder::text_of;
use crate::input::Input;
use crate::item::{ItemError, ItemImage, Origin, printable};
use crate::keys::FoundResult;
use crate::notes::Notes;
use crate::paths::Base;
use crate::tar::{ContentError, Entry, TarReader};
use crate::{IMAGE_EXTENSIONS, LINE_BYTES_MAX};

/// Extensions of members that are texts.
const TEXT_EXTENSIONS: [&str; 3] = ["txt", "text", "caption"];
/// What the images of one sample may have together, in bytes.
const SAMPLE_BYTES_MAX: usize = 2 * IMAGE_BYTES_MAX;
/// What is read of an archive at once.
const BUFFER_BYTES: usize = 1 << 20;

/// The samples of some archives, one after the other.
pub(crate) struct Samples {
    shards: VecDeque<Shard>,
    chunking: Option<Chunking>,
    notes: Notes,
    open: Option<(Arc<Path>, TarReader<BufReader<Input>>)>,
    sample: Option<Sample>,
    ready: VecDeque<FoundResult>,
}

/// An archive that is not open yet.
pub(crate) enum Shard {
    File(PathBuf),
    #[cfg(feature = "s3")]
    Object(crate::s3::Object),
}

impl Shard {
    fn name(&self) -> PathBuf {
        match self {
            Self::File(path) => path.clone(),
            #[cfg(feature = "s3")]
            Self::Object(object) => object.name(),
        }
    }

    fn open(&self) -> Result<Input, String> {
        match self {
            Self::File(path) => {
                Input::open(path).map_err(|e| format!("cannot be opened: {e}; check its permissions"))
            }
            #[cfg(feature = "s3")]
            Self::Object(object) => Input::of(object.fetch()?).map_err(|e| format!("cannot be read: {e}")),
        }
    }
}

/// The members read so far of one sample.
struct Sample {
    archive: Arc<Path>,
    key: String,
    row: Row,
    bytes: usize,
    /// Why it cannot be used as a whole.
    wrong: Option<String>,
}

/// What a member is to its sample.
enum Part {
    Image,
    Text,
    Json,
    Class,
}

impl Samples {
    pub(crate) fn new(shards: Vec<Shard>, chunking: Option<Chunking>, notes: Notes) -> Self {
        let (open, sample, ready) = (None, None, VecDeque::new());
        Self { shards: shards.into(), chunking, notes, open, sample, ready }
    }

    /// Reads on until something is ready; `false` when there is nothing left.
    fn advance(&mut self) -> bool {
        let Some((archive, tar)) = &mut self.open else {
            let Some(shard) = self.shards.pop_front() else { return false };
            match shard.open() {
                Ok(input) => {
                    let reader = BufReader::with_capacity(BUFFER_BYTES, input);
                    self.open = Some((Arc::from(shard.name()), TarReader::new(reader)));
                }
                Err(reason) => {
                    self.ready.push_back(Err(ItemError { origin: Origin::Path(shard.name()), reason }));
                }
            }
            return true;
        };
        let archive = Arc::clone(archive);
        match tar.next() {
            Ok(Some(Entry::File { name, size })) => self.member(archive, &name, size),
            Ok(Some(Entry::Refused { name, reason })) => self.refused(&archive, name, reason),
            Ok(Some(Entry::Damaged(reason))) => {
                // What is lost may have belonged to what was begun.
                self.fail_sample(&reason);
                self.report(&archive, reason);
            }
            Ok(None) => {
                self.finish_sample();
                self.open = None;
            }
            Err(error) => {
                self.fail_sample(&error.to_string());
                self.report(&archive, format!("reading stops here: {error}; fetch the archive again"));
                self.open = None;
            }
        }
        true
    }

    fn report(&mut self, archive: &Arc<Path>, reason: String) {
        let origin = Origin::Path(archive.to_path_buf());
        self.ready.push_back(Err(ItemError { origin, reason }));
    }

    fn member(&mut self, archive: Arc<Path>, name: &str, size: u64) {
        let Some((key, part)) = place(name) else {
            let extension = Path::new(name).extension().unwrap_or_default().to_string_lossy();
            self.notes.count(&format!("members named .{}", printable(&extension)));
            return;
        };
        self.begin(&archive, key);
        let (Some(sample), Some((_, tar))) = (&mut self.sample, &mut self.open) else { return };
        let most = match part {
            Part::Image => IMAGE_BYTES_MAX,
            Part::Text | Part::Class => TEXT_BYTES_MAX,
            Part::Json => LINE_BYTES_MAX,
        };
        let content = match tar.content(most as u64) {
            Ok(content) => content,
            Err(ContentError::TooLong) => {
                sample.fail(name, format!("has {size} bytes, more than {most}; make it smaller"));
                return;
            }
            Err(ContentError::Broken(error)) => {
                sample.fail(name, format!("cannot be read: {error}"));
                let reason = format!("reading stops here: {error}; fetch the archive again");
                self.finish_sample();
                self.report(&archive, reason);
                self.open = None;
                return;
            }
        };
        if let Err(reason) = sample.add(name, part, content) {
            sample.fail(name, reason);
        }
    }

    fn refused(&mut self, archive: &Arc<Path>, name: String, reason: String) {
        match place(&name) {
            // Half of a sample would be another sample.
            Some((key, _)) => {
                self.begin(archive, key);
                if let Some(sample) = &mut self.sample {
                    sample.fail(&name, format!("is refused: {reason}"));
                }
            }
            None => {
                let origin = Origin::Member { archive: Arc::clone(archive), name };
                self.ready.push_back(Err(ItemError { origin, reason }));
            }
        }
    }

    /// Makes the sample of this key the current one.
    fn begin(&mut self, archive: &Arc<Path>, key: &str) {
        if self.sample.as_ref().is_some_and(|sample| sample.key == key) {
            return;
        }
        self.finish_sample();
        let row = Row { key: Some(key.to_owned()), ..Row::default() };
        let archive = Arc::clone(archive);
        self.sample = Some(Sample { archive, key: key.to_owned(), row, bytes: 0, wrong: None });
    }

    /// Ends a sample of which not all may have been read.
    fn fail_sample(&mut self, reason: &str) {
        if let Some(sample) = &mut self.sample {
            sample.wrong.get_or_insert_with(|| format!("it may lack members: {reason}"));
        }
        self.finish_sample();
    }

    fn finish_sample(&mut self) {
        let Some(Sample { archive, key, row, wrong, .. }) = self.sample.take() else { return };
        let origin = Origin::Member { archive, name: key };
        let found = match wrong {
            Some(reason) => Err(reason),
            // Its images are in memory, so that there is nothing for paths to be relative to.
            None => row.into_found(&Base::beside(Path::new(""), None), self.chunking, origin.clone()),
        };
        self.ready.push_back(found.map_err(|reason| ItemError { origin, reason }));
    }
}

impl Iterator for Samples {
    type Item = FoundResult;

    fn next(&mut self) -> Option<FoundResult> {
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

impl Sample {
    /// Notes the first thing that is wrong.
    fn fail(&mut self, name: &str, reason: String) {
        self.wrong.get_or_insert_with(|| format!("member {} {reason}", printable(name)));
        // What is read of it is of no use any more.
        self.row.own_images.clear();
        self.bytes = 0;
    }

    fn add(&mut self, name: &str, part: Part, content: Vec<u8>) -> Result<(), String> {
        match part {
            _ if self.wrong.is_some() => Ok(()),
            Part::Image => {
                self.bytes += content.len();
                if self.bytes > SAMPLE_BYTES_MAX {
                    return Err(format!(
                        "is one too many: the images of one sample have more than {SAMPLE_BYTES_MAX} bytes; divide it"
                    ));
                }
                let archive = self.archive.canonicalize().unwrap_or_else(|_| self.archive.to_path_buf());
                let source = format!("{}!{name}", archive.to_string_lossy());
                self.row.own_images.push(ItemImage::bytes(source, content));
                Ok(())
            }
            Part::Text => {
                let text = text_of(content)?;
                self.row.texts.extend(text.filter(|text| !self.row.texts.contains(text)));
                Ok(())
            }
            Part::Class => {
                if let Some(value) = text_of(content)?.as_deref().and_then(typed) {
                    self.row.attributes.insert("cls".to_owned(), value);
                }
                Ok(())
            }
            Part::Json => self.add_json(&content),
        }
    }

    /// Takes up texts and attributes of a JSON object; objects within it become names with points.
    fn add_json(&mut self, content: &[u8]) -> Result<(), String> {
        let Object(object) = serde_json::from_slice(content)
            .map_err(|e| format!("is not a JSON object: {}", printable(&e.to_string())))?;
        let mut flat = Map::new();
        flatten("", object, 4, &mut flat)?;
        // The name of the sample is its key; where the image was once is an attribute.
        for (name, other) in [("key", "json_key"), ("id", "json_id"), ("case_id", "json_case_id")]
            .into_iter()
            .chain([("image", "json_image"), ("images", "json_images")])
        {
            if let Some(value) = flat.remove(name) {
                let own = value.as_str() == Some(self.key.as_str());
                if !own {
                    flat.insert(other.to_owned(), value);
                }
            }
        }
        let row = Row::of_object(flat, &Columns::default())?;
        for text in row.texts {
            if !self.row.texts.contains(&text) {
                self.row.texts.push(text);
            }
        }
        self.row.attributes.extend(row.attributes);
        Ok(())
    }
}

fn flatten(
    prefix: &str,
    object: Map<String, Value>,
    depth: usize,
    out: &mut Map<String, Value>,
) -> Result<(), String> {
    for (name, value) in object {
        let name = format!("{prefix}{name}");
        match value {
            Value::Object(_) if depth == 0 => {
                return Err("has objects within each other, too deep for attributes; flatten it".to_owned());
            }
            Value::Object(inner) => flatten(&format!("{name}."), inner, depth - 1, out)?,
            value => {
                out.insert(name, value);
            }
        }
    }
    Ok(())
}

/// The key of a member, which is its path up to the first point of its last part, and what it is; `None` when
/// it is nothing that is read.
fn place(name: &str) -> Option<(&str, Part)> {
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    let point = file + name[file..].find('.')?;
    if point == file {
        return None;
    }
    let extension = name.rsplit('.').next().unwrap_or_default();
    let is = |known: &[&str]| known.iter().any(|k| extension.eq_ignore_ascii_case(k));
    let part = if is(&IMAGE_EXTENSIONS) {
        Part::Image
    } else if is(&TEXT_EXTENSIONS) {
        Part::Text
    } else if is(&["json"]) {
        Part::Json
    } else if is(&["cls"]) {
        Part::Class
    } else {
        return None;
    };
    Some((&name[..point], part))
}

/// What a `--dry-run` says of the layout.
pub(crate) fn describe() -> Vec<(String, String)> {
    let row = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    vec![
        row("name up to its first point", "key; its members are one record"),
        row(".jpg .png .webp ...", "image"),
        row(".txt .text .caption", "text"),
        row(".json", "texts by their names, every other field an attribute"),
        row(".cls", "attribute cls"),
        row("other members", "not read"),
    ]
}
