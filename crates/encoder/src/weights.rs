//! The weights of a model directory: finding the files, and reading exactly what the towers ask for.
//!
//! Owns: safetensors files (one, or shards with an index) and PyTorch's pickled ones, the checks of
//! names, shapes, formats and values, up-casting to `f32`, and the digest over the weights. A tensor is
//! taken by name and shape or the directory is refused; what nobody took is refused at the end. Does
//! not own what the tensors mean.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use memmap2::Mmap;
use rayon::prelude::*;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use crate::anatomy::Source;
use crate::error::{LoadError, read_file};
use crate::pickle::{PickledTensor as StoredTensor, TensorBytes};
use crate::precision::Precision;

/// The weights' file name within a model directory.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// The weights' file name in PyTorch's own format.
pub(crate) const PICKLE_FILE: &str = "pytorch_model.bin";
/// What a Hugging Face directory may hold, the first that exists counts.
pub(crate) const HUGGING_FACE_FILES: [&str; 4] =
    [WEIGHTS_FILE, "model.safetensors.index.json", PICKLE_FILE, "pytorch_model.bin.index.json"];
/// What an OpenCLIP directory may hold, the first that exists counts.
pub(crate) const OPEN_CLIP_FILES: [&str; 4] = [
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    WEIGHTS_FILE,
];
/// Elements that one thread converts at a time.
const CHUNK: usize = 1 << 16;

/// One tensor within the mapped files.
struct Entry {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: TensorBytes,
}

/// The mapped weight files of one model.
pub(crate) struct Weights {
    files: Vec<(PathBuf, Arc<Mmap>)>,
    /// What lists the files, where there are several.
    index: Option<PathBuf>,
    entries: BTreeMap<String, Entry>,
    /// What has been taken, with the digest of its bytes.
    taken: Mutex<BTreeMap<String, blake3::Hash>>,
    /// How towers hold the weights of their blocks.
    precision: Precision,
}

/// One tensor as it is stored.
pub(crate) struct Stored<'a> {
    pub(crate) name: &'a str,
    pub(crate) dtype: Dtype,
    pub(crate) shape: &'a [usize],
    /// Row-major, little-endian.
    pub(crate) bytes: &'a [u8],
}

/// What stayed after every tensor was taken: how much there was, and a digest over all of it.
pub(crate) struct Inventory {
    /// Elements of all tensors.
    pub(crate) parameters: u64,
    /// A digest over names, formats, shapes and bytes in name order, so that shards do not matter.
    pub(crate) digest: blake3::Hash,
    /// The files they came from.
    pub(crate) files: Vec<PathBuf>,
}

impl Weights {
    /// Maps the first of the named files that the directory holds.
    pub(crate) fn open(dir: &Path, candidates: &[&str], precision: Precision) -> Result<Self, LoadError> {
        let found = candidates.iter().map(|name| dir.join(name)).find(|path| path.exists());
        let Some(path) = found else {
            let what = "the weights in safetensors format (or as PyTorch's .bin)";
            return Err(LoadError::MissingFile { path: dir.join(candidates[0]), what });
        };
        Self::open_file(path, precision)
    }

    /// Maps one file, or all that it lists when it is an index of shards.
    pub(crate) fn open_file(path: PathBuf, precision: Precision) -> Result<Self, LoadError> {
        let taken = Mutex::new(BTreeMap::new());
        let mut weights = Self { files: Vec::new(), index: None, entries: BTreeMap::new(), taken, precision };
        if path.to_string_lossy().ends_with(".index.json") {
            for shard in shards(&path)? {
                weights.add_file(shard)?;
            }
            weights.index = Some(path);
        } else {
            weights.add_file(path)?;
        }
        Ok(weights)
    }

    fn add_file(&mut self, path: PathBuf) -> Result<(), LoadError> {
        let io = |source| LoadError::Io { path: path.clone(), source };
        let file = File::open(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                LoadError::MissingFile { path: path.clone(), what: "this part of the weights" }
            }
            _ => io(e),
        })?;
        // SAFETY: the mapping is only read. Weight files are replaced as a whole, not rewritten in
        // place, so the mapped bytes do not change under us.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        let tensors = if path.extension().is_some_and(|e| e == "safetensors") {
            read_safetensors(&path, &map)?
        } else {
            crate::pickle::read(&map).map_err(|e| e.in_file(&path))?
        };
        for StoredTensor { name, dtype, shape, bytes } in tensors {
            if is_integer(dtype) && is_counter(&name) {
                continue;
            }
            let entry = Entry { file: self.files.len(), dtype, shape, bytes };
            if let Some(other) = self.entries.insert(name.clone(), entry) {
                let first = self.files.get(other.file).map_or(&path, |(path, _)| path);
                return Err(LoadError::DuplicateTensor {
                    name,
                    first: first.display().to_string(),
                    second: path.display().to_string(),
                });
            }
        }
        self.files.push((path, Arc::new(map)));
        Ok(())
    }

    /// Forgets the tensors whose names begin so: parts of a checkpoint that embeddings do not need.
    pub(crate) fn leave_out(&mut self, prefix: &str) {
        self.entries.retain(|name, _| !name.starts_with(prefix));
    }

    /// How towers hold the weights of their blocks.
    pub(crate) fn precision(&self) -> Precision {
        self.precision
    }

    /// Whether there is a tensor of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// The shape of a tensor. For sizes that a family leaves to the weights.
    ///
    /// # Errors
    /// [`LoadError::MissingTensor`].
    pub(crate) fn shape(&self, name: &str) -> Result<&[usize], LoadError> {
        match self.entries.get(name) {
            Some(entry) => Ok(&entry.shape),
            None => Err(LoadError::MissingTensor { name: name.to_owned(), expected: Vec::new() }),
        }
    }

    fn entry(&self, name: &str, shape: &[usize]) -> Result<&Entry, LoadError> {
        let Some(entry) = self.entries.get(name) else {
            return Err(LoadError::MissingTensor { name: name.to_owned(), expected: shape.to_vec() });
        };
        // A scalar may be stored as a vector of one.
        let scalar = |shape: &[usize]| shape.is_empty() || shape == [1];
        if entry.shape != shape && !(scalar(&entry.shape) && scalar(shape)) {
            return Err(LoadError::TensorShape {
                name: name.to_owned(),
                expected: shape.to_vec(),
                found: entry.shape.clone(),
            });
        }
        Ok(entry)
    }

    /// Checks that there is a tensor of this name and shape, without reading it.
    ///
    /// # Errors
    /// [`LoadError::MissingTensor`] or [`LoadError::TensorShape`].
    pub(crate) fn check(&self, name: &str, shape: &[usize]) -> Result<(), LoadError> {
        self.entry(name, shape).map(|_| ())
    }

    /// All tensors as they are stored, in name order.
    pub(crate) fn stored(&self) -> impl Iterator<Item = Stored<'_>> {
        self.entries.iter().map(|(name, entry)| Stored {
            name,
            dtype: entry.dtype,
            shape: &entry.shape,
            bytes: entry.bytes.of(&self.files[entry.file].1),
        })
    }

    /// The values of one tensor, row-major, as `f32`: mapped from the file where they are stored so.
    ///
    /// # Errors
    /// [`LoadError::MissingTensor`], [`LoadError::TensorShape`], [`LoadError::TensorType`] or
    /// [`LoadError::NotFinite`].
    pub(crate) fn take(&self, name: &str, shape: &[usize]) -> Result<Floats, LoadError> {
        let entry = self.entry(name, shape)?;
        let map = &self.files[entry.file].1;
        let bytes = entry.bytes.of(map);
        let values = match entry.dtype {
            Dtype::F32 => match &entry.bytes {
                TensorBytes::InFile(range) => Floats::mapped(map, range.clone()),
                TensorBytes::Gathered(bytes) => Floats::owned(upcast(bytes, f32::from_le_bytes)),
            },
            Dtype::F16 => Floats::owned(upcast(bytes, |b| half::f16::from_le_bytes(b).to_f32())),
            Dtype::BF16 => Floats::owned(upcast(bytes, |b| half::bf16::from_le_bytes(b).to_f32())),
            other => {
                return Err(LoadError::TensorType { name: name.to_owned(), found: format!("{other:?}") });
            }
        };
        if let Some(position) = values.par_iter().with_min_len(CHUNK).position_first(|v| !v.is_finite()) {
            return Err(LoadError::NotFinite { name: name.to_owned(), position });
        }
        let digest = blake3::hash(bytes);
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), digest);
        Ok(values)
    }

    /// The rows that a source means, as `[rows, columns]`. The whole tensor is taken, and checked.
    ///
    /// # Errors
    /// As [`Weights::take`].
    pub(crate) fn rows(&self, source: &Source) -> Result<Floats, LoadError> {
        let stored = self.take(&source.name, &source.shape)?;
        if source.transposed {
            let (out, input) = (source.rows, source.columns());
            let values = (0..out * input).map(|i| stored[(i % input) * out + i / input]);
            return Ok(Floats::owned(values.collect()));
        }
        Ok(stored.narrowed(source.range()))
    }

    /// Refuses tensors that nobody took; a model that ignores weights is another model.
    ///
    /// # Errors
    /// [`LoadError::ExtraTensors`].
    pub(crate) fn finish(mut self) -> Result<Inventory, LoadError> {
        let taken = std::mem::take(self.taken.get_mut().unwrap_or_else(PoisonError::into_inner));
        let mut extra = self.entries.keys().filter(|name| !taken.contains_key(*name));
        if let Some(name) = extra.next() {
            return Err(LoadError::ExtraTensors { name: name.clone(), count: 1 + extra.count() });
        }
        let (parameters, digest) = (self.parameters(), digest(&self.entries, &taken));
        let mut files: Vec<PathBuf> = self.files.into_iter().map(|(path, _)| path).collect();
        files.extend(self.index);
        Ok(Inventory { parameters, digest, files })
    }

    /// Elements of all tensors.
    pub(crate) fn parameters(&self) -> u64 {
        self.entries.values().map(|entry| entry.shape.iter().product::<usize>() as u64).sum()
    }

    /// What [`Weights::finish`] gives once all is taken; here all is read for it.
    pub(crate) fn digest(&self) -> blake3::Hash {
        let hash = |stored: Stored<'_>| (stored.name.to_owned(), blake3::hash(stored.bytes));
        let hashes = self.stored().collect::<Vec<_>>().into_par_iter().map(hash).collect();
        digest(&self.entries, &hashes)
    }
}

/// Over names, formats, shapes and the digests of the bytes, in name order.
fn digest(entries: &BTreeMap<String, Entry>, hashes: &BTreeMap<String, blake3::Hash>) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for (name, entry) in entries {
        hasher.update(format!("{name} {:?} {:?}\n", entry.dtype, entry.shape).as_bytes());
        hasher.update(hashes[name].as_bytes());
    }
    hasher.finalize()
}

/// The values of one tensor: a part of a mapped file, or converted ones.
///
/// Mapped pages are given back to the system when the value goes, so that weights which are copied
/// into another layout do not stay in memory twice.
pub(crate) struct Floats(Storage);

enum Storage {
    Mapped { map: Arc<Mmap>, bytes: Range<usize> },
    Owned(Vec<f32>),
}

impl Floats {
    fn mapped(map: &Arc<Mmap>, bytes: Range<usize>) -> Self {
        let aligned = (map.as_ptr() as usize + bytes.start).is_multiple_of(align_of::<f32>());
        if cfg!(target_endian = "little") && aligned {
            return Self(Storage::Mapped { map: map.clone(), bytes });
        }
        Self::owned(upcast(&map[bytes], f32::from_le_bytes))
    }

    fn owned(values: Vec<f32>) -> Self {
        Self(Storage::Owned(values))
    }

    /// Only some of the values, without a copy of mapped ones.
    fn narrowed(mut self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len(), "a source names rows that there are");
        match &mut self.0 {
            Storage::Mapped { bytes, .. } => {
                *bytes =
                    bytes.start + range.start * size_of::<f32>()..bytes.start + range.end * size_of::<f32>();
            }
            Storage::Owned(values) => {
                values.truncate(range.end);
                values.drain(..range.start);
            }
        }
        self
    }
}

impl Deref for Floats {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &self.0 {
            Storage::Mapped { map, bytes } => {
                let bytes = &map[bytes.clone()];
                // SAFETY: `mapped` checked alignment and byte order, every bit pattern is an f32, and
                // the mapping lives as long as the value.
                unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / 4) }
            }
            Storage::Owned(values) => values,
        }
    }
}

impl Drop for Floats {
    fn drop(&mut self) {
        #[cfg(unix)]
        if let Storage::Mapped { map, bytes } = &self.0 {
            // SAFETY: the mapping is of a file and is only read, so that pages which are asked for
            // again are read again with the same content. A refusal costs memory, nothing else.
            let _ = unsafe {
                map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, bytes.start, bytes.len())
            };
        }
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

fn read_safetensors(path: &Path, map: &Mmap) -> Result<Vec<StoredTensor>, LoadError> {
    let tensors = SafeTensors::deserialize(map)
        .map_err(|e| LoadError::Weights { path: path.to_owned(), reason: e.to_string() })?;
    let base = map.as_ptr() as usize;
    let locate = |(name, view): (&str, safetensors::tensor::TensorView<'_>)| {
        let start = view.data().as_ptr() as usize - base;
        StoredTensor {
            name: name.to_owned(),
            dtype: view.dtype(),
            shape: view.shape().to_vec(),
            bytes: TensorBytes::InFile(start..start + view.data().len()),
        }
    };
    Ok(tensors.iter().map(locate).collect())
}

fn is_integer(dtype: Dtype) -> bool {
    matches!(
        dtype,
        Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64 | Dtype::U8 | Dtype::U16 | Dtype::U32 | Dtype::U64
    )
}

/// Buffers that libraries save beside the weights: positions that count 0, 1, 2, ..., and batch
/// norms' counts of training steps. They decide nothing.
fn is_counter(name: &str) -> bool {
    ["position_ids", "num_batches_tracked"].contains(&name.rsplit('.').next().unwrap_or(name))
}

/// The files that an index of shards names.
fn shards(index: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let file = index.file_name().unwrap_or_default().to_string_lossy();
    let wrong = |key: &str, reason: &str| LoadError::Config {
        file: file.to_string(),
        key: key.to_owned(),
        reason: format!("{reason}; download the index again"),
    };
    let text = read_file(index, "the index of the weight shards")?;
    let value = crate::json::parse(&file, &text)?;
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
    Ok(files.into_iter().map(|file| index.with_file_name(file)).collect())
}
