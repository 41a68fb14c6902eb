//! What frozen towers make of the data, computed once and kept on disk.
//!
//! Owns: running a tower over all pictures, changed views of them, or texts, and the files that hold the
//! result. A file is named after everything that decides its content, so that another run over the same
//! data finds it and a changed picture is never served a stale row. Deliberately absent: what is trained
//! on the features.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use diptych_core::{PreparedImage, PreparedText};
use diptych_encoder::{ImageTrunk, TextTrunk};
use rayon::prelude::*;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::augment::{Augment, random_crop};
use crate::checkpoint::{from_bytes, to_bytes};
use crate::data::Picture;
use crate::error::TrainError;
use crate::files;
use crate::recipe::AugmentRecipe;
use crate::sampler::{Purpose, generator};

/// Items per file: what an interrupted run has to do again at most.
const SHARD: usize = 512;
/// Items that go through a tower together.
const BATCH: usize = 32;
/// Counts the ways in which rows were ever computed: files of an older way are not found.
const VERSION: u8 = 1;
/// The tensor in a file.
const TENSOR: &str = "features";
/// Key of the hash of its bytes in the file's metadata.
const HASH: &str = "blake3";

/// One row per item, `[n, width]`.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Features {
    /// Values of a row.
    pub width: usize,
    /// All rows.
    pub rows: Vec<f32>,
}

/// Where features are kept and who hears of progress.
pub(crate) struct Desk<'a> {
    /// The folder of the files.
    pub folder: &'a Path,
    /// Called with items done and items in all.
    pub progress: &'a mut dyn FnMut(u64, u64),
}

/// The changed views that are kept of every picture.
#[derive(Debug, Clone)]
pub(crate) struct ViewPlan {
    /// Views besides the plain one.
    pub views: usize,
    /// What is changed.
    pub augment: AugmentRecipe,
    /// Decides the changes.
    pub seed: u64,
}

/// Features of every picture: its plain view, then its changed ones; picture after picture.
pub(crate) fn of_pictures(
    trunk: &ImageTrunk,
    pictures: &[Picture],
    plan: &ViewPlan,
    desk: &mut Desk<'_>,
) -> Result<Features, TrainError> {
    // A crop is taken of the picture itself, not of what is left of it at the model's size.
    let rest = AugmentRecipe { crop: 1.0, ..plan.augment.clone() };
    let augment = Augment::new(rest, trunk.preprocessing());
    let about = match plan.views {
        0 => "plain".to_owned(),
        views => format!("{views} views, seed {}, {:?}", plan.seed, plan.augment),
    };
    let mut all = Features { width: trunk.width(), rows: Vec::new() };
    let total = pictures.len() as u64;
    for (number, shard) in pictures.chunks(SHARD).enumerate() {
        let bytes = shard.par_iter().map(Picture::bytes).collect::<Result<Vec<_>, _>>().map_err(encoding)?;
        // A view depends on the picture's place in the run, so the place is part of the name.
        let place = if plan.views == 0 { 0 } else { number as u64 };
        let name = name("image", &trunk.digest().to_string(), &about, place, bytes.iter().map(Vec::as_slice));
        let items = shard.iter().zip(&bytes).enumerate().collect::<Vec<_>>();
        let rows = kept(desk.folder, &name, trunk.width(), shard.len() * (1 + plan.views), || {
            let mut rows = Vec::new();
            for items in items.chunks(BATCH.div_ceil(1 + plan.views)) {
                let prepared = items
                    .par_iter()
                    .map(|(at, (picture, bytes))| {
                        let index = (number * SHARD + at) as u64;
                        views(trunk, &augment, picture, bytes, plan, index)
                    })
                    .collect::<Result<Vec<_>, String>>()
                    .map_err(encoding)?;
                rows.extend(trunk.features(&prepared.concat()).map_err(|e| encoding(e.to_string()))?);
            }
            Ok(rows)
        })?;
        all.rows.extend(rows);
        (desk.progress)(((number * SHARD + shard.len()) as u64).min(total), total);
    }
    Ok(all)
}

/// Features of every text, in order.
pub(crate) fn of_texts(
    trunk: &TextTrunk,
    texts: &[String],
    desk: &mut Desk<'_>,
) -> Result<Features, TrainError> {
    let mut all = Features { width: trunk.width(), rows: Vec::new() };
    for (number, shard) in texts.chunks(SHARD).enumerate() {
        let digest = trunk.digest().to_string();
        let name = name("text", &digest, "", 0, shard.iter().map(String::as_bytes));
        let rows = kept(desk.folder, &name, trunk.width(), shard.len(), || {
            let prepared: Vec<PreparedText> = shard
                .par_iter()
                .map(|text| trunk.prepare(text).map_err(|e| encoding(format!("{e} (in {text:?})"))))
                .collect::<Result<_, _>>()?;
            let mut rows = Vec::new();
            for texts in prepared.chunks(BATCH) {
                rows.extend(trunk.features(texts).map_err(|e| encoding(e.to_string()))?);
            }
            Ok(rows)
        })?;
        all.rows.extend(rows);
        (desk.progress)((number * SHARD + shard.len()) as u64, texts.len() as u64);
    }
    Ok(all)
}

/// The plain view of a picture and its changed ones, ready for the tower.
fn views(
    trunk: &ImageTrunk,
    augment: &Augment,
    picture: &Picture,
    bytes: &[u8],
    plan: &ViewPlan,
    index: u64,
) -> Result<Vec<PreparedImage>, String> {
    let image = picture.decode(bytes)?;
    let plain = trunk.preprocessing().prepare_rgb(&image).map_err(|e| e.to_string())?;
    if plan.views == 0 {
        return Ok(vec![plain]);
    }
    let (width, height) = (plain.width, plain.height);
    let changed = (0..plan.views as u64).map(|view| {
        let mut values = vec![0f32; augment.values()];
        let mut rng = generator(plan.seed, Purpose::Sample, index * plan.views as u64 + view);
        let part = random_crop(&image, plan.augment.crop, &mut rng);
        let samples = trunk.preprocessing().pixels(part.as_ref().unwrap_or(&image)).to_planes();
        augment.changed(&samples, &mut values, &mut rng);
        PreparedImage { values: values.into_boxed_slice(), width, height }
    });
    Ok([plain].into_iter().chain(changed).collect())
}

fn encoding(reason: String) -> TrainError {
    TrainError::Features { reason }
}

/// A name that changes with the tower, the treatment, the place and every item.
fn name<'a>(
    kind: &str,
    tower: &str,
    about: &str,
    place: u64,
    items: impl Iterator<Item = &'a [u8]>,
) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[VERSION]);
    for part in [kind, tower, about] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.update(&place.to_le_bytes());
    for item in items {
        hasher.update(blake3::hash(item).as_bytes());
    }
    format!("{kind}-{}.safetensors", &hasher.finalize().to_hex()[..32])
}

/// The rows of a file, or what `compute` gives, which is then kept. A file that is damaged is computed
/// again.
fn kept(
    folder: &Path,
    name: &str,
    width: usize,
    count: usize,
    compute: impl FnOnce() -> Result<Vec<f32>, TrainError>,
) -> Result<Vec<f32>, TrainError> {
    let path: PathBuf = folder.join(name);
    if let Some(rows) = std::fs::read(&path).ok().and_then(|bytes| read(&bytes, width, count)) {
        return Ok(rows);
    }
    files::create_folder(folder)?;
    let rows = compute()?;
    debug_assert_eq!(rows.len(), width * count);
    let bytes = to_bytes(&rows);
    let tensor = TensorView::new(Dtype::F32, vec![count, width], &bytes)
        .and_then(|tensor| safetensors::serialize([(TENSOR, tensor)], Some(hash(&bytes))))
        .map_err(|e| encoding(e.to_string()))?;
    files::replace_shared(&path, &tensor)?;
    Ok(rows)
}

fn hash(bytes: &[u8]) -> HashMap<String, String> {
    HashMap::from([(HASH.to_owned(), blake3::hash(bytes).to_hex().to_string())])
}

fn read(bytes: &[u8], width: usize, count: usize) -> Option<Vec<f32>> {
    let tensors = SafeTensors::deserialize(bytes).ok()?;
    let tensor = tensors.tensor(TENSOR).ok()?;
    let (_, header) = SafeTensors::read_metadata(bytes).ok()?;
    let whole = header.metadata().as_ref() == Some(&hash(tensor.data()));
    let right = tensor.dtype() == Dtype::F32 && tensor.shape() == [count, width];
    (whole && right).then(|| from_bytes(tensor.data()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::cell::Cell;

    #[test]
    fn rows_are_computed_once_and_a_damaged_file_again() {
        let dir = tempfile::tempdir().unwrap();
        let runs = Cell::new(0);
        let get = |name: &str| {
            kept(dir.path(), name, 2, 2, || {
                runs.set(runs.get() + 1);
                Ok(vec![1.0, 2.0, 3.0, 4.0])
            })
            .unwrap()
        };
        assert_eq!(get("a.safetensors"), get("a.safetensors"));
        assert_eq!(runs.get(), 1);
        get("b.safetensors");
        assert_eq!(runs.get(), 2);
        let path = dir.path().join("a.safetensors");
        let bytes = std::fs::read(&path).unwrap();
        let mut changed = bytes.clone();
        changed[bytes.len() - 4] ^= 1;
        for (runs_now, damaged) in [(3, &bytes[..bytes.len() - 1]), (4, &changed)] {
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(get("a.safetensors"), [1.0, 2.0, 3.0, 4.0]);
            assert_eq!(runs.get(), runs_now);
        }
    }

    #[test]
    fn a_name_changes_with_everything_that_decides_the_rows() {
        let base = || name("image", "tower", "plain", 0, [b"a".as_slice(), b"b"].into_iter());
        let others = [
            name("text", "tower", "plain", 0, [b"a".as_slice(), b"b"].into_iter()),
            name("image", "tower2", "plain", 0, [b"a".as_slice(), b"b"].into_iter()),
            name("image", "tower", "2 views", 0, [b"a".as_slice(), b"b"].into_iter()),
            name("image", "tower", "plain", 1, [b"a".as_slice(), b"b"].into_iter()),
            name("image", "tower", "plain", 0, [b"ab".as_slice()].into_iter()),
            name("image", "tower", "plain", 0, [b"b".as_slice(), b"a"].into_iter()),
        ];
        assert_eq!(base(), base());
        assert!(others.iter().all(|other| *other != base()));
    }
}
