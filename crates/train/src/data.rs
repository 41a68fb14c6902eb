//! Training pairs in memory: pixels at the model's size, and texts.
//!
//! Owns: rendering phantoms and reading pairs from disk through the encoder's own preprocessing, so
//! that a model is trained on exactly the pixels it will see. Deliberately absent: randomness; which
//! pair a step takes and how it is changed belongs to `sampler`.

use std::path::{Path, PathBuf};

use diptych_core::AttributeValue;
use diptych_encoder::{Preprocessing, RgbImage, decode};
use diptych_ingest::{Item, Source};
use rayon::prelude::*;

use crate::error::TrainError;
use crate::recipe::{DataRecipe, PhantomRecipe};
use crate::report_views::Views;

/// Pairs of an image and its texts.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Pairs {
    /// 1 when all images are grey, else 3.
    channels: usize,
    /// Samples per channel of one image.
    area: usize,
    /// `[n, channels, side, side]`.
    pixels: Vec<u8>,
    /// Texts of every pair.
    pub texts: Vec<Views<String>>,
    /// What every pair shows, where that is known: for label precision.
    pub labels: Vec<String>,
}

/// One pair as it is read.
struct Pair {
    pixels: Vec<u8>,
    texts: Views<String>,
    labels: Option<String>,
}

impl Pairs {
    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// The samples of one image, `[channels, side, side]`.
    pub fn image(&self, index: usize) -> &[u8] {
        let size = self.channels * self.area;
        &self.pixels[index * size..][..size]
    }

    /// Changes whenever a pixel or a text does (FNV-1a over 8-byte words).
    pub fn fingerprint(&self) -> u64 {
        let step = |hash: u64, word: u64| (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
        let words = |bytes: &[u8], hash: u64| {
            bytes.chunks(8).fold(hash, |hash, chunk| {
                let mut word = [0u8; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                step(hash, u64::from_le_bytes(word))
            })
        };
        let texts = self.texts.iter().flat_map(|views| &views.whole);
        texts.fold(words(&self.pixels, 0xcbf2_9ce4_8422_2325), |hash, text| words(text.as_bytes(), hash))
    }

    fn collect(pairs: Vec<Pair>, area: usize) -> Self {
        let grey = pairs.iter().all(|pair| {
            let (red, rest) = pair.pixels.split_at(area);
            red == &rest[..area] && red == &rest[area..]
        });
        let channels = if grey { 1 } else { 3 };
        let mut all = Self { channels, area, ..Self::default() };
        for pair in pairs {
            all.pixels.extend_from_slice(&pair.pixels[..channels * area]);
            all.texts.push(pair.texts);
            all.labels.extend(pair.labels);
        }
        all
    }
}

/// Training pairs and held-out pairs.
pub(crate) fn load(recipe: &DataRecipe, preprocessing: &Preprocessing) -> Result<(Pairs, Pairs), TrainError> {
    if let Some(PhantomRecipe { cases, seed, validation_cases, validation_seed }) = recipe.phantom {
        return Ok((
            phantoms(seed, cases, preprocessing),
            phantoms(validation_seed, validation_cases, preprocessing),
        ));
    }
    let path = recipe.pairs.as_deref().unwrap_or(Path::new(""));
    from_source(path, recipe.validation_pairs, preprocessing)
}

fn phantoms(seed: u64, cases: usize, preprocessing: &Preprocessing) -> Pairs {
    let pairs = (0..cases as u64)
        .into_par_iter()
        .map(|index| {
            let case = diptych_phantom::case(seed, index);
            let (width, height) = case.image.dimensions();
            let rgb = case.image.as_raw().iter().flat_map(|&v| [v; 3]).collect();
            let image = RgbImage::from_raw(width, height, rgb).expect("three samples per grey pixel");
            Pair {
                pixels: preprocessing.pixels(&image).to_planes(),
                labels: Some(case.label_set()),
                texts: Views::of(&[case.report]),
            }
        })
        .collect();
    Pairs::collect(pairs, preprocessing.side().pow(2))
}

/// Reads every pair of a source. A file that cannot be read ends the run before its first step: a
/// model must not depend on what happened to be readable that day.
fn from_source(
    path: &Path,
    held_out: usize,
    preprocessing: &Preprocessing,
) -> Result<(Pairs, Pairs), TrainError> {
    let unusable = |reason: String| TrainError::Data { path: path.to_path_buf(), reason };
    let source = Source::open(path).map_err(|e| unusable(e.to_string()))?;
    let mut items = Vec::new();
    for item in source.items().map_err(|e| unusable(e.to_string()))? {
        let item = item.map_err(|e| unusable(format!("{e}; correct or remove it")))?;
        if !item.images.is_empty() && !item.texts.is_empty() {
            items.push(item);
        }
    }
    let n = items.len();
    if held_out >= n {
        return Err(unusable(format!(
            "it has {n} records with both image and text, which must be more than data.validation_pairs = {held_out}"
        )));
    }
    let pairs: Vec<Vec<Pair>> =
        items.par_iter().map(|item| read(item, preprocessing).map_err(unusable)).collect::<Result<_, _>>()?;
    let (mut train, mut validation) = (Vec::new(), Vec::new());
    for (i, pairs) in pairs.into_iter().enumerate() {
        // Whole records are held out, so that no image of a record in training is among them.
        let held = i * held_out / n != (i + 1) * held_out / n;
        if held { &mut validation } else { &mut train }.extend(pairs);
    }
    let area = preprocessing.side().pow(2);
    Ok((Pairs::collect(train, area), Pairs::collect(validation, area)))
}

/// One pair per image of a record, each with all its texts.
fn read(item: &Item, preprocessing: &Preprocessing) -> Result<Vec<Pair>, String> {
    let labels = item.attributes.get("labels").and_then(label_set);
    let texts = Views::of(&item.texts);
    let pair = |path: &PathBuf| {
        let bytes = std::fs::read(path).map_err(|e| e.to_string());
        let image = bytes.and_then(|bytes| decode(&bytes).map_err(|e| e.to_string()));
        let image = image.map_err(|e| format!("{} of {}: {e}", path.display(), item.origin))?;
        let pixels = preprocessing.pixels(&image).to_planes();
        Ok(Pair { pixels, texts: texts.clone(), labels: labels.clone() })
    };
    item.images.iter().map(pair).collect()
}

/// Labels as one string, equal for equal sets.
fn label_set(value: &AttributeValue) -> Option<String> {
    match value {
        AttributeValue::String(label) => Some(label.clone()),
        AttributeValue::List(labels) => {
            let mut labels = labels.clone();
            labels.sort_unstable();
            Some(labels.join("|"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use diptych_encoder::{CLIP_MEAN, CLIP_STD};

    fn on_disk(cases: u64) -> (tempfile::TempDir, DataRecipe, Preprocessing) {
        let dir = tempfile::tempdir().unwrap();
        let list = diptych_phantom::write(dir.path(), cases, 3, |_| {}).unwrap().list;
        let recipe = DataRecipe { pairs: Some(list), ..DataRecipe::default() };
        (dir, recipe, Preprocessing::for_training(32, CLIP_MEAN, CLIP_STD))
    }

    #[test]
    fn pairs_from_disk_are_those_from_memory() {
        let (_dir, recipe, preprocessing) = on_disk(12);
        let (pairs, held_out) = load(&recipe, &preprocessing).unwrap();
        assert_eq!(held_out.len(), 0);
        let memory = phantoms(3, 12, &preprocessing);
        assert_eq!((pairs.channels, pairs.len()), (1, 12));
        assert_eq!(pairs, memory);
        assert_ne!(pairs.fingerprint(), phantoms(4, 12, &preprocessing).fingerprint());
    }

    #[test]
    fn held_out_pairs_are_spread_evenly_and_never_trained_on() {
        let (_dir, recipe, preprocessing) = on_disk(12);
        let all = phantoms(3, 12, &preprocessing);
        let recipe = DataRecipe { validation_pairs: 3, ..recipe };
        let (pairs, held_out) = load(&recipe, &preprocessing).unwrap();
        let texts = |chosen: &[usize]| chosen.iter().map(|&i| all.texts[i].clone()).collect::<Vec<_>>();
        assert_eq!(held_out.texts, texts(&[3, 7, 11]));
        assert_eq!(pairs.texts, texts(&[0, 1, 2, 4, 5, 6, 8, 9, 10]));
    }

    #[test]
    fn data_that_cannot_be_used_is_refused_by_name() {
        let (dir, recipe, preprocessing) = on_disk(4);
        let refused = |recipe: &DataRecipe| load(recipe, &preprocessing).unwrap_err().to_string();
        let error = refused(&DataRecipe { validation_pairs: 4, ..recipe.clone() });
        assert!(error.contains("4 records") && error.contains("data.validation_pairs"), "{error}");
        let image = dir.path().join("images/phantom-000002.png");
        std::fs::write(&image, &std::fs::read(&image).unwrap()[..900]).unwrap();
        assert!(refused(&recipe).contains("phantom-000002.png"), "{}", refused(&recipe));
        std::fs::remove_file(&image).unwrap();
        assert!(refused(&recipe).contains("phantom-000002.png"), "{}", refused(&recipe));
        let nowhere = DataRecipe { pairs: Some(dir.path().join("nothing.jsonl")), ..recipe };
        assert!(refused(&nowhere).contains("nothing.jsonl"));
    }
}
