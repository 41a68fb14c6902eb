//! DICOM trees: studies by what is in the files, stored without what identifies patients.
//!
//! Owns: which images and which report a study has, and that nothing of it is stored under an identifying name.
//! Pixels are decoded by whoever loads an image. Deliberately absent: the files themselves and the rules of
//! de-identification, which are `diptych_radiology`'s; pixels are not looked into for burned-in names.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use diptych_core::limits::IMAGE_BYTES_MAX;
use diptych_core::{AttributeValue, Chunking, Time};
use diptych_radiology::deidentify::{Annotation, BurnedIn, Dates, Deidentifier, Known};
use diptych_radiology::dicom::{self, DicomFile, FramePolicy, Header, Instance, Study as Tree, View};
use image::ImageFormat;

use crate::folder::read_text;
use crate::item::{Item, ItemError, ItemImage, ItemResult, Origin};
use crate::notes::Notes;
use crate::paths::has_extension;
use crate::study::Study;

/// Images of a study that are stored; of more, as many evenly spread ones.
const IMAGES_MAX: usize = 128;
/// Oldest age that is told of anybody without the name.
const AGE_MAX: u32 = 90;
const DAY_SECONDS: i64 = 86_400;

/// What becomes of identities in a DICOM tree.
#[derive(Clone, Default)]
pub enum Identities {
    /// Nobody has said, and so no such tree is read.
    #[default]
    Undecided,
    /// Removed: keys, patient numbers and dates are replaced, and reports scrubbed.
    Removed(Arc<Deidentifier>),
    /// Kept as they are.
    Kept,
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Undecided => "Undecided",
            Self::Removed(_) => "Removed",
            Self::Kept => "Kept",
        })
    }
}

/// How DICOM trees are read.
#[derive(Debug, Clone, Default)]
pub struct DicomOptions {
    /// What becomes of identities.
    pub identities: Identities,
    /// Which frames of an image are taken.
    pub frames: FramePolicy,
}

/// The studies of a tree, by their UIDs.
pub(crate) struct Studies {
    studies: VecDeque<Tree>,
    /// The one study that lies in a folder; `None` for several.
    folders: HashMap<PathBuf, Option<String>>,
    ready: VecDeque<ItemResult>,
    options: DicomOptions,
    chunking: Option<Chunking>,
    notes: Notes,
}

impl Studies {
    /// Looks at every file of a tree, at its header alone. The error is the reason in words.
    pub(crate) fn open(
        root: &Path,
        options: &DicomOptions,
        chunking: Option<Chunking>,
        notes: Notes,
    ) -> Result<Self, String> {
        if let Identities::Undecided = options.identities {
            return Err(
                "it is a DICOM tree, which names patients; ingest it by `diptych ingest`, which takes that away".to_owned()
            );
        }
        let found = dicom::scan(root).map_err(|e| e.to_string())?;
        for (count, what) in [
            (found.not_dicom, "files that are not DICOM, other than as texts of a study"),
            (found.directories, "tables of contents"),
            (found.duplicates, "copies of the same instance"),
            (found.special, "links, pipes and devices"),
        ] {
            notes.add(what, count);
        }
        let mut folders = HashMap::new();
        for study in &found.studies {
            for instance in study.series.iter().flat_map(|series| &series.instances) {
                // Up to the root and no further.
                for folder in instance.path.ancestors().skip(1).take_while(|folder| folder.starts_with(root))
                {
                    let only = folders.entry(folder.to_owned()).or_insert_with(|| Some(study.uid.clone()));
                    if only.as_ref().is_some_and(|only| *only != study.uid) {
                        *only = None;
                    }
                }
            }
        }
        let problem = |problem: dicom::Problem| {
            Err(ItemError { origin: Origin::Path(problem.path), reason: problem.error.to_string() })
        };
        let ready = found.problems.into_iter().map(problem).collect();
        Ok(Self { studies: found.studies.into(), folders, ready, options: options.clone(), chunking, notes })
    }

    /// The record of a study. Files that cannot be used are told and left out.
    fn item(&mut self, tree: &Tree) -> Result<Item, String> {
        let mut gathered = Gathered::default();
        for instance in tree.series.iter().flat_map(|series| &series.instances) {
            if let Err(reason) = self.gather(instance, &mut gathered) {
                let origin = Origin::Path(instance.path.to_path_buf());
                self.ready.push_back(Err(ItemError { origin, reason }));
            }
        }
        gathered.reports.extend(self.texts_beside(tree)?);
        let name = |uid: &str| match &self.options.identities {
            Identities::Removed(with) => with.uid(uid),
            _ => uid.to_owned(),
        };
        let mut study = Study { key: name(&tree.uid), ..Study::default() };
        gathered.views.iter().for_each(|view| study.add_view(view.as_str()));
        self.describe_study(&mut study, tree, &gathered);
        study.report = self.report(&gathered);
        study.images = self.spread(gathered.images);
        let origin = Origin::Path(PathBuf::from(&study.key));
        study.into_item(self.chunking, origin)
    }

    /// Takes up what one file says; its pixels are read when they are wanted. The error is the reason in words.
    fn gather(&self, instance: &Instance, gathered: &mut Gathered) -> Result<(), String> {
        let file = DicomFile::open_header(&instance.path).map_err(|e| e.to_string())?;
        let mut object = file.object().map_err(|e| e.to_string())?;
        let header = file.header();
        let uid = header.sop_instance.clone().unwrap_or_default();
        let mut source = format!("{uid}.dcm");
        gathered.known.add(&Known::of_object(&object));
        gathered.identity.get_or_insert_with(|| Deidentifier::identity(&object));
        if let Identities::Removed(with) = &self.options.identities {
            let removed = with.object(&mut object).map_err(|e| e.to_string())?;
            for (kind, times) in removed.kinds.iter() {
                self.notes.remove("attributes", kind.as_str(), times);
            }
            if removed.annotation != Annotation::None && with.options().burned_in != BurnedIn::Accept {
                self.notes
                    .tell("of the pictures may have names in their pixels, which nobody has looked into");
            }
            gathered.methods.extend(removed.methods.iter().map(|(code, _)| *code));
            source = format!("{}.dcm", with.uid(&uid));
        }
        gathered.reports.extend(file.sr_text().map_err(|e| e.to_string())?);
        if instance.frames == 0 {
            return Ok(());
        }
        gathered.views.extend(instance.view);
        *gathered.modalities.entry(header.modality.clone().unwrap_or_default()).or_default() += 1;
        for frame in self.options.frames.frames(instance.frames) {
            let name = if instance.frames > 1 { format!("{source}#{frame}") } else { source.clone() };
            let path = instance.path.clone();
            gathered.images.push(ItemImage::lazy(name, move || picture(&path, frame)));
        }
        Ok(())
    }

    /// All images, or as many as are stored, evenly spread.
    fn spread(&self, images: Vec<ItemImage>) -> Vec<ItemImage> {
        let count = images.len();
        let taken = count.min(IMAGES_MAX);
        self.notes.add("images of studies with more than 128", (count - taken) as u64);
        let middle = |part: usize| (2 * part + 1) * count / (2 * taken);
        let mut chosen = (0..taken).map(middle).peekable();
        images
            .into_iter()
            .enumerate()
            .filter(|(n, _)| chosen.next_if_eq(n).is_some())
            .map(|(_, image)| image)
            .collect()
    }

    /// The attributes that every study has, as far as its files say them.
    fn describe_study(&self, study: &mut Study, tree: &Tree, gathered: &Gathered) {
        let Header { body_part, sex, age, study_date, .. } = &tree.header;
        let with = match &self.options.identities {
            Identities::Removed(with) => Some(with),
            _ => None,
        };
        let age = age.map(|age| if with.is_some() { age.min(AGE_MAX) } else { age });
        // What most images are; of equals the first by name.
        let modality = gathered.modalities.iter().max_by_key(|(name, times)| (**times, Reverse(*name)));
        let modality = modality.map(|(name, _)| name.clone()).filter(|name| !name.is_empty());
        let methods: Vec<String> = gathered.methods.iter().map(|code| (*code).to_owned()).collect();
        let named = [
            ("modality", modality.map(AttributeValue::String)),
            ("body_part", body_part.clone().map(AttributeValue::String)),
            ("sex", sex.clone().map(AttributeValue::String)),
            ("age", age.map(|age| AttributeValue::Integer(age.into()))),
            ("deidentification", (!methods.is_empty()).then_some(AttributeValue::List(methods))),
        ];
        study
            .attributes
            .extend(named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        let (Some(with), Some(identity)) = (with, &gathered.identity) else {
            study.patient = tree.header.patient_id.clone();
            study.date = *study_date;
            return;
        };
        study.patient = Some(with.patient(identity));
        study.date = study_date.and_then(|date| match with.options().dates {
            Dates::Remove => None,
            Dates::Keep => Some(date),
            Dates::Shift => {
                let moved = date.seconds() + with.shift_days(identity) * DAY_SECONDS;
                Time::new(moved, date.nanos()).ok()
            }
        });
    }

    /// The `.txt` files in folders that are this study's alone.
    fn texts_beside(&self, tree: &Tree) -> Result<Vec<String>, String> {
        let instances = tree.series.iter().flat_map(|series| &series.instances);
        let alone =
            |folder: &&Path| self.folders.get(*folder).is_some_and(|only| only.as_ref() == Some(&tree.uid));
        let folders: BTreeSet<&Path> =
            instances.flat_map(|instance| instance.path.ancestors().skip(1)).filter(alone).collect();
        let mut texts = Vec::new();
        for folder in folders {
            let entries =
                std::fs::read_dir(folder).map_err(|e| format!("its folder cannot be listed: {e}"))?;
            let mut paths: Vec<PathBuf> = entries
                .flatten()
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
                .map(|entry| entry.path())
                .filter(|path| has_extension(path, &["txt"]))
                .collect();
            paths.sort();
            for path in paths {
                texts
                    .extend(read_text(&path).map_err(|reason| format!("a text beside its images {reason}"))?);
            }
        }
        Ok(texts)
    }

    /// The report, without what identifies anybody unless that is to stay: by rules, and by what the files of the
    /// study say.
    fn report(&self, gathered: &Gathered) -> Option<String> {
        let text = gathered.reports.join("\n\n");
        if text.is_empty() {
            return None;
        }
        let Identities::Removed(with) = &self.options.identities else { return Some(text) };
        let (clean, scrubbed) = with.text(&text, &gathered.known);
        for (kind, times) in scrubbed.iter() {
            self.notes.remove("reports", kind.as_str(), times);
        }
        Some(clean)
    }
}

/// What the files of a study say.
#[derive(Default)]
struct Gathered {
    images: Vec<ItemImage>,
    views: Vec<View>,
    modalities: BTreeMap<String, usize>,
    reports: Vec<String>,
    /// What is to be looked for in reports.
    known: Known,
    /// Who the patient is, as the de-identifier knows patients.
    identity: Option<String>,
    /// Codes of how files were de-identified.
    methods: BTreeSet<&'static str>,
}

/// A frame as an encoded image: uncompressed, which costs nothing, where that is within bounds.
fn picture(path: &Path, frame: u32) -> Result<Vec<u8>, String> {
    let file = DicomFile::open(path).map_err(|e| e.to_string())?;
    let picture = file.frame(frame).map_err(|e| e.to_string())?;
    let (width, height) = (picture.width(), picture.height());
    let magic = if picture.color().has_color() { "P6" } else { "P5" };
    let mut bytes = format!("{magic}\n{width} {height}\n255\n").into_bytes();
    if bytes.len() + picture.as_bytes().len() <= IMAGE_BYTES_MAX {
        bytes.extend_from_slice(picture.as_bytes());
        return Ok(bytes);
    }
    let mut bytes = Cursor::new(Vec::new());
    let written = picture.write_to(&mut bytes, ImageFormat::Png);
    written.map_err(|e| format!("its pixels cannot be encoded: {e}"))?;
    Ok(bytes.into_inner())
}

impl Iterator for Studies {
    type Item = ItemResult;

    fn next(&mut self) -> Option<ItemResult> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Some(ready);
            }
            let tree = self.studies.pop_front()?;
            let item = self.item(&tree).map_err(|reason| {
                let first = tree.series.iter().flat_map(|series| &series.instances).next();
                let path = first.map_or_else(PathBuf::new, |instance| instance.path.to_path_buf());
                ItemError { origin: Origin::Path(path), reason }
            });
            self.ready.push_back(item);
        }
    }
}

pub(crate) fn describe(options: &DicomOptions) -> Vec<(String, String)> {
    let row = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    let identities = match options.identities {
        Identities::Removed(_) => "replaced by keyed hashes; dates move by days of the patient's own",
        Identities::Kept => "kept as they are",
        Identities::Undecided => "not decided, so that nothing is read",
    };
    vec![
        row("StudyInstanceUID", "key; all its series are one record"),
        row("pixels", "image, by frame"),
        row("structured report, .txt of the study's folder", "text of the record"),
        row("PatientID, StudyDate", "attributes patient_id, study_date"),
        row("Modality, BodyPartExamined, PatientSex, PatientAge", "attributes modality, body_part, sex, age"),
        row("ViewPosition", "views"),
        row("identities", identities),
    ]
}
