//! What a run learns from: records with pictures, texts and labels.
//!
//! Owns: reading them from a source or drawing phantoms, which records are held out, and pixels at the
//! model's size. A picture is decoded by the encoder's own preprocessing, so that a model is trained on
//! exactly the pixels it will see. Deliberately absent: randomness (see `sampler`), and what frozen
//! towers make of the records (see `features`).

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use diptych_core::AttributeValue;
use diptych_encoder::{Preprocessing, RgbImage, decode};
use diptych_ingest::{Item, ItemImage, Source};
use rayon::prelude::*;
use serde_json::{Map, Value, json};

use crate::error::TrainError;
use crate::files;
use crate::recipe::{DataRecipe, PhantomRecipe};
use crate::report_views::Views;

/// Records and their pictures.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Collection {
    /// Every picture of every record, in order of records.
    pub pictures: Vec<Picture>,
    /// The record of every picture.
    pub record_of: Vec<u32>,
    /// The records.
    pub records: Vec<Record>,
}

/// What belongs together.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Record {
    /// Its texts.
    pub texts: Views<String>,
    /// Its labels, sorted; empty where they are unknown.
    pub labels: Vec<String>,
}

/// Where a picture comes from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Picture {
    /// A file, and what names its record.
    File(PathBuf, String),
    /// A phantom of this seed and index.
    Phantom(u64, u64),
}

impl Picture {
    /// Its bytes: equal bytes, equal picture. A phantom is its own name.
    pub fn bytes(&self) -> Result<Vec<u8>, String> {
        match self {
            Self::File(path, origin) => {
                std::fs::read(path).map_err(|e| format!("{} of {origin}: {e}", path.display()))
            }
            Self::Phantom(seed, index) => Ok(format!("phantom {seed} {index}").into_bytes()),
        }
    }

    /// Decodes what [`Picture::bytes`] gave.
    pub fn decode(&self, bytes: &[u8]) -> Result<RgbImage, String> {
        match self {
            Self::File(path, origin) => {
                decode(bytes).map_err(|e| format!("{} of {origin}: {e}", path.display()))
            }
            Self::Phantom(seed, index) => Ok(to_rgb(&diptych_phantom::case(*seed, *index))),
        }
    }
}

/// Samples of all pictures of a collection at the model's size.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Pixels {
    /// 1 when all images are grey, else 3.
    channels: usize,
    /// Samples per channel of one image.
    area: usize,
    /// `[n, channels, side, side]`.
    samples: Vec<u8>,
}

impl Pixels {
    /// Decodes all pictures of a collection.
    pub fn of(collection: &Collection, preprocessing: &Preprocessing) -> Result<Self, String> {
        let planes = collection
            .pictures
            .par_iter()
            .map(|picture| {
                let image = picture.decode(&picture.bytes()?)?;
                Ok(preprocessing.pixels(&image).to_planes())
            })
            .collect::<Result<Vec<_>, String>>()?;
        Ok(Self::collect(&planes, preprocessing.side().pow(2)))
    }

    /// Number of pictures.
    pub fn len(&self) -> usize {
        self.samples.len() / (self.channels * self.area).max(1)
    }

    /// The samples of one image, `[channels, side, side]`.
    pub fn image(&self, index: usize) -> &[u8] {
        let size = self.channels * self.area;
        &self.samples[index * size..][..size]
    }

    /// Changes whenever a sample does.
    pub fn fingerprint(&self) -> u64 {
        fingerprint(&self.samples, self.channels as u64)
    }

    fn collect(planes: &[Vec<u8>], area: usize) -> Self {
        let grey = planes.iter().all(|planes| {
            let (red, rest) = planes.split_at(area);
            red == &rest[..area] && red == &rest[area..]
        });
        let channels = if grey { 1 } else { 3 };
        let samples = planes.iter().flat_map(|planes| &planes[..channels * area]).copied().collect();
        Self { channels, area, samples }
    }
}

/// Changes whenever a byte does (FNV-1a over 8-byte words, started from `hash`).
pub(crate) fn fingerprint(bytes: &[u8], hash: u64) -> u64 {
    bytes.chunks(8).fold(hash ^ 0xcbf2_9ce4_8422_2325, |hash, chunk| {
        let mut word = [0u8; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29)
    })
}

impl Collection {
    /// Whole texts of all records.
    pub fn whole_texts(&self) -> impl Iterator<Item = &String> {
        self.records.iter().flat_map(|record| &record.texts.whole)
    }

    /// Per record, the number of its kin: records that share a whole text are right answers for each
    /// other, however many pictures they have.
    pub fn kin(&self) -> Vec<u32> {
        let texts: Vec<Vec<&String>> = self.records.iter().map(|r| r.texts.whole.iter().collect()).collect();
        connected(&texts)
    }

    /// Changes whenever a text, a label or what belongs together does; not with pixels.
    pub fn fingerprint(&self) -> u64 {
        let records = self.records.iter().fold(0, |hash, record| {
            let parts = record.texts.whole.iter().chain(&record.labels);
            parts.fold(fingerprint(b"record", hash), |hash, text| fingerprint(text.as_bytes(), hash))
        });
        self.record_of.iter().fold(records, |hash, record| fingerprint(&record.to_le_bytes(), hash))
    }

    /// Adds a record; one without picture or text says nothing about pairs and is left out.
    fn push(&mut self, record: Record, pictures: impl IntoIterator<Item = Picture>) {
        let before = self.pictures.len();
        self.pictures.extend(pictures);
        self.record_of.resize(self.pictures.len(), self.records.len() as u32);
        if self.pictures.len() > before {
            self.records.push(record);
        }
    }
}

/// What a recipe's data comes to.
#[derive(Debug, Default)]
pub(crate) struct Data {
    /// Records to train on.
    pub train: Collection,
    /// Records that are held out.
    pub held_out: Collection,
    /// The held-out records as they were read, where they were taken from the pairs.
    taken: Vec<Item>,
}

/// Name of the list of held-out records within the output directory.
pub const HELD_OUT_FILE: &str = "held-out.jsonl";

impl Data {
    /// Lists the records that were held out of the pairs, one JSON object per line, so that they can be
    /// evaluated on later. Nothing where they have a file of their own.
    pub fn list_held_out(&self, out: &Path) -> Result<(), TrainError> {
        if self.taken.is_empty() {
            return Ok(());
        }
        let lines: String = self.taken.iter().map(|item| format!("{}\n", line(item))).collect();
        files::create_folder(out)?;
        files::replace(&out.join(HELD_OUT_FILE), lines.as_bytes())
    }
}

/// Training records and held-out records.
pub(crate) fn load(recipe: &DataRecipe) -> Result<Data, TrainError> {
    let apart = |train, held_out| Data { train, held_out, taken: Vec::new() };
    if let Some(PhantomRecipe { cases, seed, validation_cases, validation_seed }) = recipe.phantom {
        return Ok(apart(phantoms(seed, cases), phantoms(validation_seed, validation_cases)));
    }
    let path = recipe.pairs.as_deref().unwrap_or(Path::new(""));
    let items = read(path)?;
    let labels = recipe.labels.as_str();
    if let Some(other) = &recipe.validation {
        return Ok(apart(collect(&items, labels), collect(&read(other)?, labels)));
    }
    let mut held = held_out(&items, recipe, path)?.into_iter();
    let (taken, rest): (Vec<Item>, Vec<Item>) =
        items.into_iter().partition(|_| held.next().expect("a decision for every record"));
    Ok(Data { train: collect(&rest, labels), held_out: collect(&taken, labels), taken })
}

/// A record as a line of a source. Its images are named from the root: the list lies elsewhere.
fn line(item: &Item) -> Value {
    let whole = |image: &ItemImage| {
        image.path().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.into()))
    };
    let attributes: Map<String, Value> =
        item.attributes.iter().map(|(name, value)| (name.clone(), json_of(value))).collect();
    json!({
        "key": item.key.as_str(),
        "images": item.images.iter().filter_map(whole).collect::<Vec<_>>(),
        "texts": item.texts,
        "attributes": attributes,
    })
}

fn json_of(value: &AttributeValue) -> Value {
    match value {
        AttributeValue::String(v) => json!(v),
        AttributeValue::Integer(v) => json!(v),
        AttributeValue::Float(v) => json!(v),
        AttributeValue::Bool(v) => json!(v),
        AttributeValue::Time(v) => json!(v.to_string()),
        AttributeValue::List(v) => json!(v),
    }
}

fn phantoms(seed: u64, cases: usize) -> Collection {
    let records: Vec<Record> = (0..cases as u64)
        .into_par_iter()
        .map(|index| {
            // The picture is drawn when it is wanted; here it is as small as can be.
            let case = diptych_phantom::case_sized(seed, index, diptych_phantom::SIZE_MIN);
            Record { texts: Views::of(&[case.report]), labels: case.labels }
        })
        .collect();
    let mut all = Collection::default();
    for (index, record) in records.into_iter().enumerate() {
        all.push(record, [Picture::Phantom(seed, index as u64)]);
    }
    all
}

fn to_rgb(case: &diptych_phantom::Case) -> RgbImage {
    let (width, height) = case.image.dimensions();
    let rgb = case.image.as_raw().iter().flat_map(|&v| [v; 3]).collect();
    RgbImage::from_raw(width, height, rgb).expect("three samples per grey pixel")
}

fn unusable(path: &Path, reason: String) -> TrainError {
    TrainError::Data { path: path.to_path_buf(), reason }
}

/// Every record of a source that has a picture and a text. A line that cannot be read ends the run
/// before its first step: a model must not depend on what happened to be readable that day.
pub(crate) fn read(path: &Path) -> Result<Vec<Item>, TrainError> {
    let source = Source::open(path).map_err(|e| unusable(path, e.to_string()))?;
    let mut items = Vec::new();
    for item in source.items().map_err(|e| unusable(path, e.to_string()))? {
        let item = item.map_err(|e| unusable(path, format!("{e}; correct or remove it")))?;
        // Pictures are read once for each run, and held-out records are listed by their files.
        item.image_files().map_err(|reason| unusable(path, format!("{}: {reason}", item.origin)))?;
        if !item.images.is_empty() && !item.texts.is_empty() {
            items.push(item);
        }
    }
    if items.is_empty() {
        return Err(unusable(path, "it has no record with both image and text; give some".to_owned()));
    }
    Ok(items)
}

/// Which records are held out: whole groups, spread evenly over the source.
fn held_out(items: &[Item], recipe: &DataRecipe, path: &Path) -> Result<Vec<bool>, TrainError> {
    let wanted = recipe.validation_pairs;
    if wanted >= items.len() {
        let n = items.len();
        let reason = format!(
            "it has {n} records with both image and text, which must be more than data.validation_pairs = {wanted}"
        );
        return Err(unusable(path, reason));
    }
    let groups = groups(items, recipe.group_by.as_deref()).map_err(|reason| unusable(path, reason))?;
    let count = groups.iter().max().map_or(0, |last| last + 1);
    // As many groups as hold about the wanted records, one step apart.
    let taken = (wanted * count).div_ceil(items.len()).min(count.saturating_sub(1));
    let held = |group: usize| group * taken / count != (group + 1) * taken / count;
    Ok(groups.into_iter().map(held).collect())
}

/// The group of every record, numbered in order of appearance. Records with one text in common are one
/// group too: no text is on both sides.
fn groups(items: &[Item], attribute: Option<&str>) -> Result<Vec<usize>, String> {
    let mut keys = Vec::new();
    for item in items {
        let mut own: Vec<String> = item.texts.iter().map(|text| format!("text {text}")).collect();
        if let Some(name) = attribute {
            let value = item.attributes.get(name).ok_or_else(|| {
                format!("{} has no attribute '{name}', which data.group_by names; add it", item.origin)
            })?;
            own.push(format!("attribute {value:?}"));
        }
        keys.push(own);
    }
    Ok(connected(&keys).into_iter().map(|group| group as usize).collect())
}

/// Numbers for things, in order of appearance, equal when two things share a key or are joined by a
/// chain of such.
fn connected<K: std::hash::Hash + Eq>(keys: &[Vec<K>]) -> Vec<u32> {
    let mut first: HashMap<&K, usize> = HashMap::new();
    let mut parent: Vec<usize> = (0..keys.len()).collect();
    for (at, keys) in keys.iter().enumerate() {
        for key in keys {
            let other = *first.entry(key).or_insert(at);
            let (a, b) = (root(&mut parent, at), root(&mut parent, other));
            parent[a.max(b)] = a.min(b);
        }
    }
    let mut numbers: HashMap<usize, u32> = HashMap::new();
    (0..keys.len())
        .map(|at| {
            let next = numbers.len() as u32;
            *numbers.entry(root(&mut parent, at)).or_insert(next)
        })
        .collect()
}

fn root(parent: &mut [usize], mut at: usize) -> usize {
    while parent[at] != at {
        parent[at] = parent[parent[at]];
        at = parent[at];
    }
    at
}

fn collect(items: &[Item], labels: &str) -> Collection {
    let mut all = Collection::default();
    for item in items {
        let labels = item.attributes.get(labels).map(label_set).unwrap_or_default();
        let record = Record { texts: Views::of(&item.texts), labels };
        let origin = item.origin.to_string();
        all.push(
            record,
            item.images
                .iter()
                .filter_map(|image| Some(Picture::File(image.path()?.to_owned(), origin.clone()))),
        );
    }
    all
}

/// Labels in order, each once.
fn label_set(value: &AttributeValue) -> Vec<String> {
    let mut labels = match value {
        AttributeValue::String(label) => vec![label.clone()],
        AttributeValue::List(labels) => labels.clone(),
        _ => Vec::new(),
    };
    labels.sort_unstable();
    labels.dedup();
    labels
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use diptych_encoder::{CLIP_MEAN, CLIP_STD};

    fn on_disk(cases: u64) -> (tempfile::TempDir, DataRecipe) {
        let dir = tempfile::tempdir().unwrap();
        let list = diptych_phantom::write(dir.path(), cases, 3, |_| {}).unwrap().list;
        let recipe = DataRecipe { pairs: Some(list), labels: "labels".to_owned(), ..DataRecipe::default() };
        (dir, recipe)
    }

    #[test]
    fn pairs_from_disk_are_those_from_memory() {
        let (_dir, recipe) = on_disk(12);
        let preprocessing = Preprocessing::for_training(32, CLIP_MEAN, CLIP_STD);
        let Data { train: collection, held_out, .. } = load(&recipe).unwrap();
        assert_eq!(held_out.records.len(), 0);
        let memory = phantoms(3, 12);
        assert_eq!((&collection.records, &collection.record_of), (&memory.records, &memory.record_of));
        let pixels = Pixels::of(&collection, &preprocessing).unwrap();
        assert_eq!((pixels.channels, pixels.len()), (1, 12));
        assert_eq!(pixels, Pixels::of(&memory, &preprocessing).unwrap());
        assert_eq!(collection.fingerprint(), memory.fingerprint());
        assert_ne!(collection.fingerprint(), phantoms(4, 12).fingerprint());
    }

    #[test]
    fn held_out_records_are_spread_evenly_and_never_trained_on() {
        let (_dir, recipe) = on_disk(12);
        let all = phantoms(3, 12).records;
        let recipe = DataRecipe { validation_pairs: 3, ..recipe };
        let Data { train, held_out, .. } = load(&recipe).unwrap();
        let records = |chosen: &[usize]| chosen.iter().map(|&i| all[i].clone()).collect::<Vec<_>>();
        assert_eq!(held_out.records, records(&[3, 7, 11]));
        assert_eq!(train.records, records(&[0, 1, 2, 4, 5, 6, 8, 9, 10]));
    }

    fn lines(dir: &Path, lines: &[&str]) -> PathBuf {
        RgbImage::new(8, 8).save(dir.join("a.png")).unwrap();
        let path = dir.join("pairs.jsonl");
        std::fs::write(&path, lines.join("\n")).unwrap();
        path
    }

    #[test]
    fn a_patient_and_a_repeated_text_stay_on_one_side() {
        let dir = tempfile::tempdir().unwrap();
        let path = lines(
            dir.path(),
            &[
                r#"{"id":"1","image":"a.png","text":"one","patient":"p1"}"#,
                r#"{"id":"2","image":"a.png","text":"two","patient":"p2"}"#,
                r#"{"id":"3","image":"a.png","text":"three","patient":"p3"}"#,
                r#"{"id":"4","image":"a.png","text":"four","patient":"p1"}"#,
                r#"{"id":"5","image":"a.png","text":"two","patient":"p4"}"#,
                r#"{"id":"6","image":"a.png","text":"five","patient":"p3"}"#,
            ],
        );
        let recipe = DataRecipe {
            pairs: Some(path),
            validation_pairs: 2,
            group_by: Some("patient".to_owned()),
            ..DataRecipe::default()
        };
        let data = load(&recipe).unwrap();
        let Data { train, held_out, .. } = &data;
        let texts = |side: &Collection| side.whole_texts().cloned().collect::<Vec<_>>();
        assert_eq!(texts(train), ["one", "two", "four", "two"]);
        assert_eq!(texts(held_out), ["three", "five"]);
        let out = dir.path().join("out");
        data.list_held_out(&out).unwrap();
        let listed = collect(&read(&out.join(HELD_OUT_FILE)).unwrap(), "labels");
        assert_eq!(texts(&listed), texts(held_out), "what is listed can be read as pairs again");
        let missing = DataRecipe { group_by: Some("ward".to_owned()), ..recipe };
        let error = load(&missing).unwrap_err().to_string();
        assert!(error.contains("'ward'") && error.contains("line 1"), "{error}");
    }

    #[test]
    fn data_that_cannot_be_used_is_refused_by_name() {
        let (dir, recipe) = on_disk(4);
        let preprocessing = Preprocessing::for_training(32, CLIP_MEAN, CLIP_STD);
        let refused = |recipe: &DataRecipe| load(recipe).unwrap_err().to_string();
        let error = refused(&DataRecipe { validation_pairs: 4, ..recipe.clone() });
        assert!(error.contains("4 records") && error.contains("data.validation_pairs"), "{error}");
        let collection = load(&recipe).unwrap().train;
        let image = dir.path().join("images/phantom-000002.png");
        std::fs::write(&image, &std::fs::read(&image).unwrap()[..900]).unwrap();
        let error = Pixels::of(&collection, &preprocessing).unwrap_err();
        assert!(error.contains("phantom-000002.png"), "{error}");
        let nowhere = DataRecipe { pairs: Some(dir.path().join("nothing.jsonl")), ..recipe };
        assert!(refused(&nowhere).contains("nothing.jsonl"));
    }
}
