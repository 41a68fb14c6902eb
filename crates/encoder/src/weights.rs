//! The weights of a model directory: which tensors there must be, and reading exactly those.
//!
//! Owns: safetensors files (one, or shards with an index), the checks of names, shapes, formats and
//! values, up-casting to `f32`, and the digest over the weights. Nothing is ever filled in: a tensor
//! is read or the directory is refused. Does not own what the tensors mean.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use rayon::prelude::*;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use crate::config::ClipConfig;
use crate::error::{LoadError, read_file};

/// The weights' file name within a model directory.
pub const WEIGHTS_FILE: &str = "model.safetensors";
const INDEX_FILE: &str = "model.safetensors.index.json";
/// Elements that one thread converts at a time.
const CHUNK: usize = 1 << 16;

/// Every tensor of a `CLIPModel` with its shape, under the names that are published.
pub fn tensor_shapes(config: &ClipConfig) -> BTreeMap<String, Vec<usize>> {
    let (text, vision) = (&config.text, &config.vision);
    let mut shapes = BTreeMap::new();
    let mut add = |name: String, shape: &[usize]| {
        shapes.insert(name, shape.to_vec());
    };
    add("logit_scale".into(), &[]);
    add("text_projection.weight".into(), &[config.projection_dim, text.hidden_size]);
    add("visual_projection.weight".into(), &[config.projection_dim, vision.hidden_size]);
    let embeddings = "text_model.embeddings";
    add(format!("{embeddings}.token_embedding.weight"), &[text.vocab_size, text.hidden_size]);
    add(format!("{embeddings}.position_embedding.weight"), &[text.max_position_embeddings, text.hidden_size]);
    let embeddings = "vision_model.embeddings";
    let patch = [vision.hidden_size, vision.num_channels, vision.patch_size, vision.patch_size];
    add(format!("{embeddings}.class_embedding"), &[vision.hidden_size]);
    add(format!("{embeddings}.patch_embedding.weight"), &patch);
    add(format!("{embeddings}.position_embedding.weight"), &[vision.num_positions(), vision.hidden_size]);
    for (norm, width) in [
        ("text_model.final_layer_norm", text.hidden_size),
        // Spelled like this in every published checkpoint.
        ("vision_model.pre_layrnorm", vision.hidden_size),
        ("vision_model.post_layernorm", vision.hidden_size),
    ] {
        add(format!("{norm}.weight"), &[width]);
        add(format!("{norm}.bias"), &[width]);
    }
    for (tower, layers, hidden, inner) in [
        ("text_model", text.num_hidden_layers, text.hidden_size, text.intermediate_size),
        ("vision_model", vision.num_hidden_layers, vision.hidden_size, vision.intermediate_size),
    ] {
        for layer in 0..layers {
            for (part, out, input) in [
                ("self_attn.q_proj", hidden, hidden),
                ("self_attn.k_proj", hidden, hidden),
                ("self_attn.v_proj", hidden, hidden),
                ("self_attn.out_proj", hidden, hidden),
                ("mlp.fc1", inner, hidden),
                ("mlp.fc2", hidden, inner),
            ] {
                add(format!("{tower}.encoder.layers.{layer}.{part}.weight"), &[out, input]);
                add(format!("{tower}.encoder.layers.{layer}.{part}.bias"), &[out]);
            }
            for norm in ["layer_norm1", "layer_norm2"] {
                add(format!("{tower}.encoder.layers.{layer}.{norm}.weight"), &[hidden]);
                add(format!("{tower}.encoder.layers.{layer}.{norm}.bias"), &[hidden]);
            }
        }
    }
    shapes
}

/// One tensor within the mapped files.
struct Entry {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

/// The mapped weight files of one model, with all names and shapes checked.
pub(crate) struct Weights {
    files: Vec<(PathBuf, Mmap)>,
    entries: BTreeMap<String, Entry>,
}

impl Weights {
    /// Maps the weight files of a directory and checks that they hold exactly the given tensors.
    pub(crate) fn open(dir: &Path, shapes: &BTreeMap<String, Vec<usize>>) -> Result<Self, LoadError> {
        let mut weights = Self { files: Vec::new(), entries: BTreeMap::new() };
        for path in weight_files(dir)? {
            weights.add_file(path)?;
        }
        weights.check(shapes)?;
        Ok(weights)
    }

    fn add_file(&mut self, path: PathBuf) -> Result<(), LoadError> {
        let io = |source| LoadError::Io { path: path.clone(), source };
        let file = File::open(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                LoadError::MissingFile { path: path.clone(), what: "the weights in safetensors format" }
            }
            _ => io(e),
        })?;
        // SAFETY: the mapping is only read, and only while the model loads. Weight files are replaced
        // as a whole, not rewritten in place, so the mapped bytes do not change under us.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        let broken = |e: safetensors::SafeTensorError| LoadError::Weights {
            path: path.clone(),
            reason: e.to_string(),
        };
        let tensors = SafeTensors::deserialize(&map).map_err(broken)?;
        let base = map.as_ptr() as usize;
        for (name, view) in tensors.iter() {
            let start = view.data().as_ptr() as usize - base;
            let entry = Entry {
                file: self.files.len(),
                dtype: view.dtype(),
                shape: view.shape().to_vec(),
                bytes: start..start + view.data().len(),
            };
            // Buffers that old versions of the library saved; they count 0, 1, 2, ...
            if name.ends_with(".position_ids") && is_integer(entry.dtype) {
                continue;
            }
            if let Some(other) = self.entries.insert(name.to_owned(), entry) {
                return Err(LoadError::DuplicateTensor {
                    name: name.to_owned(),
                    first: self.files[other.file].0.display().to_string(),
                    second: path.display().to_string(),
                });
            }
        }
        self.files.push((path, map));
        Ok(())
    }

    fn check(&self, shapes: &BTreeMap<String, Vec<usize>>) -> Result<(), LoadError> {
        for (name, expected) in shapes {
            let Some(entry) = self.entries.get(name) else {
                return Err(LoadError::MissingTensor { name: name.clone(), expected: expected.clone() });
            };
            // A scalar may be stored as a vector of one.
            if entry.shape != *expected && !(expected.is_empty() && entry.shape == [1]) {
                return Err(LoadError::TensorShape {
                    name: name.clone(),
                    expected: expected.clone(),
                    found: entry.shape.clone(),
                });
            }
            if !matches!(entry.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
                return Err(LoadError::TensorType {
                    name: name.clone(),
                    found: format!("{:?}", entry.dtype),
                });
            }
        }
        let mut extra = self.entries.keys().filter(|name| !shapes.contains_key(*name));
        match extra.next() {
            Some(name) => Err(LoadError::ExtraTensors { name: name.clone(), count: 1 + extra.count() }),
            None => Ok(()),
        }
    }

    /// The values of one checked tensor, row-major, as `f32`.
    ///
    /// # Errors
    /// [`LoadError::NotFinite`]; [`LoadError::MissingTensor`] for a name outside the checked set.
    pub(crate) fn values(&self, name: &str) -> Result<Vec<f32>, LoadError> {
        let Some(entry) = self.entries.get(name) else {
            return Err(LoadError::MissingTensor { name: name.to_owned(), expected: Vec::new() });
        };
        let bytes = self.bytes(entry);
        let values = match entry.dtype {
            Dtype::F32 => upcast(bytes, f32::from_le_bytes),
            Dtype::F16 => upcast(bytes, |b| half::f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => upcast(bytes, |b| half::bf16::from_le_bytes(b).to_f32()),
            other => {
                return Err(LoadError::TensorType { name: name.to_owned(), found: format!("{other:?}") });
            }
        };
        match values.par_iter().with_min_len(CHUNK).position_first(|v| !v.is_finite()) {
            Some(position) => Err(LoadError::NotFinite { name: name.to_owned(), position }),
            None => Ok(values),
        }
    }

    /// Feeds names, formats, shapes and bytes in name order, so that shards do not matter.
    pub(crate) fn hash_into(&self, hasher: &mut blake3::Hasher) {
        for (name, entry) in &self.entries {
            let head = format!("{name} {:?} {:?} {}\n", entry.dtype, entry.shape, entry.bytes.len());
            hasher.update(head.as_bytes());
            hasher.update(self.bytes(entry));
        }
    }

    fn bytes(&self, entry: &Entry) -> &[u8] {
        &self.files[entry.file].1[entry.bytes.clone()]
    }
}

fn upcast<const N: usize>(bytes: &[u8], convert: impl Fn([u8; N]) -> f32 + Sync) -> Vec<f32> {
    let mut values = vec![0f32; bytes.len() / N];
    values.par_chunks_mut(CHUNK).zip(bytes.par_chunks(CHUNK * N)).for_each(|(values, bytes)| {
        for (value, bytes) in values.iter_mut().zip(bytes.as_chunks::<N>().0) {
            *value = convert(*bytes);
        }
    });
    values
}

fn is_integer(dtype: Dtype) -> bool {
    matches!(
        dtype,
        Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64 | Dtype::U8 | Dtype::U16 | Dtype::U32 | Dtype::U64
    )
}

/// The one weights file, or the shards that the index names.
fn weight_files(dir: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let single = dir.join(WEIGHTS_FILE);
    let index = dir.join(INDEX_FILE);
    if single.exists() || !index.exists() {
        return Ok(vec![single]);
    }
    let wrong = |key: &str, reason: &str| LoadError::Config {
        file: INDEX_FILE.to_owned(),
        key: key.to_owned(),
        reason: format!("{reason}; download the index again"),
    };
    let text = read_file(&index, "the index of the weight shards")?;
    let value = crate::json::parse(INDEX_FILE, &text)?;
    let Some(Value::Object(map)) = value.get("weight_map") else {
        return Err(wrong("weight_map", "is missing or no object"));
    };
    let mut files: Vec<&str> = Vec::new();
    for (tensor, file) in map {
        match file.as_str() {
            // A plain name: an index must not reach outside its directory.
            Some(file) if !file.is_empty() && !file.starts_with('.') && !file.contains(['/', '\\']) => {
                files.push(file);
            }
            _ => return Err(wrong(&format!("weight_map.{tensor}"), "is no plain file name")),
        }
    }
    files.sort_unstable();
    files.dedup();
    if files.is_empty() {
        return Err(wrong("weight_map", "is empty"));
    }
    Ok(files.into_iter().map(|file| dir.join(file)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vit_b_32_has_the_published_number_of_parameters() {
        let shapes = tensor_shapes(&ClipConfig::default());
        let parameters: usize = shapes.values().map(|s| s.iter().product::<usize>()).sum();
        // openai/clip-vit-base-patch32: 151,277,313 parameters in 398 tensors.
        assert_eq!((parameters, shapes.len()), (151_277_313, 398));
    }
}
