//! Training pairs in memory: pixels at the model's size, and texts.
//!
//! Owns: rendering phantoms and reading pairs from disk through the encoder's own preprocessing, so
//! that a model is trained on exactly the pixels it will see. Deliberately absent: randomness; which
//! pair a step takes and how it is changed belongs to `sampler`.

use std::path::Path;

use diptych_encoder::{Preprocessing, RgbImage};
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

fn from_source(
    path: &Path,
    _held_out: usize,
    _preprocessing: &Preprocessing,
) -> Result<(Pairs, Pairs), TrainError> {
    Err(TrainError::Data { path: path.to_path_buf(), reason: "not yet".to_owned() })
}
