//! Finding out what a path holds, and opening it.
//!
//! Owns: the order in which models are recognised, the tensors of a checkpoint that features do not need,
//! and the list of files that make the same model elsewhere. Does not own the towers.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{ImageTrunk, TextTrunk};
use crate::config::CONFIG_FILE;
use crate::error::LoadError;
use crate::family::{Directory, Family, Model, OPEN_CLIP_CONFIG_FILE, Parts, read_json, sentence};
use crate::json::Section;
use crate::precision::Precision;
use crate::preprocess::{PREPROCESSOR_FILE, PROCESSOR_FILE, Preprocessing};
use crate::tokenizer::TOKENIZER_FILES;
use crate::tower::{MobileNet, TextTower, VisionTower, mobilenet};
use crate::weights::{HUGGING_FACE_FILES, Inventory, PICKLE_FILE, WEIGHTS_FILE, Weights};

/// The `model_type` of a MobileNetV2's `config.json`.
pub(crate) const MOBILENET_TYPE: &str = "mobilenet_v2";
/// What torchvision's preset for these weights makes of an image: the shorter side, and the crop.
const MOBILENET_SIZES: (usize, usize) = (256, 224);
/// What may stand beside weights and tokenizer in a model's directory.
const SETTINGS_FILES: [&str; 6] = [
    CONFIG_FILE,
    OPEN_CLIP_CONFIG_FILE,
    PREPROCESSOR_FILE,
    PROCESSOR_FILE,
    sentence::POOLING_FILE,
    sentence::SENTENCE_FILE,
];

/// What a path holds: one tower or both.
pub(crate) struct Opened {
    pub(crate) image: Option<ImageTrunk>,
    pub(crate) text: Option<TextTrunk>,
    /// Number of weights in all.
    pub(crate) parameters: u64,
    /// What makes the same model in another directory.
    pub(crate) files: Vec<TrunkFile>,
}

/// A file of a model.
#[derive(Debug)]
pub(crate) struct TrunkFile {
    /// Its place within the model's directory.
    pub(crate) to: PathBuf,
    pub(crate) content: Content,
}

/// Where the bytes of a file come from.
#[derive(Debug)]
pub(crate) enum Content {
    File(PathBuf),
    Text(String),
}

/// Opens whatever a path holds; it lies within `depth` composed models.
pub(crate) fn open(path: &Path, precision: Precision, depth: usize) -> Result<Opened, LoadError> {
    if path.is_file() {
        return open_mobilenet(path.to_owned(), precision);
    }
    let has = |name: &str| path.join(name).exists();
    if !has(CONFIG_FILE) && !has(OPEN_CLIP_CONFIG_FILE) {
        return open_mobilenet(only_safetensors(path, MOBILENET_TYPE)?, precision);
    }
    match model_type(path)? {
        Some((kind, _)) if kind == MOBILENET_TYPE => open_mobilenet(weights_file(path)?, precision),
        Some((kind, config)) if kind == sentence::MODEL_TYPE => open_sentence(path, &config, precision),
        _ => open_dual(path, precision, depth),
    }
}

/// The `model_type` of a `config.json`, and the configuration, where no other configuration is beside it.
pub(crate) fn model_type(path: &Path) -> Result<Option<(String, Value)>, LoadError> {
    if !path.join(CONFIG_FILE).exists() || path.join(OPEN_CLIP_CONFIG_FILE).exists() {
        return Ok(None);
    }
    let config = read_json(path, CONFIG_FILE, "the model's config.json")?;
    let kind = Section::top(CONFIG_FILE, &config)?.get::<String>("model_type")?;
    Ok(kind.map(|kind| (kind, config)))
}

/// The towers of a dual encoder.
fn open_dual(path: &Path, precision: Precision, depth: usize) -> Result<Opened, LoadError> {
    let directory = Directory::open_within(path, depth)?;
    let Model { parts, composition, inventory } = directory.read(precision)?;
    let Parts { text, vision, preprocessing, tokenizer, .. } = parts;
    let mut identity =
        vec![("family", directory.family.to_string()), ("weights", inventory.digest.to_string())];
    if directory.family == Family::Composed {
        identity.push(("composition", composition.identity));
    }
    let mut files = copies(path, &inventory, false);
    files.extend(composition.files);
    let parameters = inventory.parameters + composition.parameters;
    Ok(Opened {
        image: Some(ImageTrunk::new(identity.clone(), vision, composition.image, preprocessing, parameters)),
        text: Some(TextTrunk::new(identity, text, composition.text, tokenizer, parameters)?),
        parameters,
        files,
    })
}

fn open_sentence(path: &Path, config: &Value, precision: Precision) -> Result<Opened, LoadError> {
    let mut weights = Weights::open_file(weights_file(path)?, precision)?;
    let (parts, tokenizer) = sentence::describe(path, config)?;
    weights.leave_out(sentence::UNUSED);
    let tower = TextTower::assemble(&weights, parts)?;
    let inventory = weights.finish()?;
    let identity =
        vec![("family", "sentence encoder (BERT)".to_owned()), ("weights", inventory.digest.to_string())];
    let parameters = inventory.parameters;
    Ok(Opened {
        image: None,
        text: Some(TextTrunk::new(identity, tower, Vec::new(), tokenizer, parameters)?),
        parameters,
        files: copies(path, &inventory, true),
    })
}

fn open_mobilenet(file: PathBuf, precision: Precision) -> Result<Opened, LoadError> {
    let mut weights = Weights::open_file(file.clone(), precision)?;
    if !weights.has(mobilenet::FIRST_TENSOR) {
        return Err(LoadError::Config {
            file: file.display().to_string(),
            key: mobilenet::FIRST_TENSOR.to_owned(),
            reason: "is missing; give torchvision's mobilenet_v2 with its own tensor names, as safetensors"
                .to_owned(),
        });
    }
    weights.leave_out("classifier.");
    let tower = VisionTower::MobileNet(Box::new(MobileNet::load(&weights)?));
    let (resize, crop) = MOBILENET_SIZES;
    let preprocessing = Preprocessing::torchvision(resize, crop);
    let inventory = weights.finish()?;
    let identity =
        vec![("family", "torchvision MobileNetV2".to_owned()), ("weights", inventory.digest.to_string())];
    let config = format!("{{\n  \"model_type\": \"{MOBILENET_TYPE}\"\n}}\n");
    let mut files = copies(Path::new(""), &inventory, true);
    files.push(TrunkFile { to: PathBuf::from(CONFIG_FILE), content: Content::Text(config) });
    let parameters = inventory.parameters;
    Ok(Opened {
        image: Some(ImageTrunk::new(identity, tower, Vec::new(), preprocessing, parameters)),
        text: None,
        parameters,
        files,
    })
}

/// The files of a model, of all that its directory may hold. With `rename`, a single file of weights gets
/// the usual name.
fn copies(dir: &Path, inventory: &Inventory, rename: bool) -> Vec<TrunkFile> {
    let file = |to: PathBuf, from: PathBuf| TrunkFile { to, content: Content::File(from) };
    let mut files = Vec::new();
    if !dir.as_os_str().is_empty() {
        let present =
            SETTINGS_FILES.iter().copied().chain(TOKENIZER_FILES).filter(|name| dir.join(name).exists());
        files.extend(present.map(|name| file(PathBuf::from(name), dir.join(name))));
    }
    for from in &inventory.files {
        let safetensors = from.extension().is_some_and(|extension| extension == "safetensors");
        let usual = if safetensors { WEIGHTS_FILE } else { PICKLE_FILE };
        let to = match from.file_name() {
            _ if rename && inventory.files.len() == 1 => PathBuf::from(usual),
            Some(name) => PathBuf::from(name),
            None => continue,
        };
        files.push(file(to, from.clone()));
    }
    files
}

/// The weights of a directory: a usual name, or else the only `.safetensors` file.
pub(crate) fn weights_file(dir: &Path) -> Result<PathBuf, LoadError> {
    match HUGGING_FACE_FILES.iter().map(|name| dir.join(name)).find(|path| path.exists()) {
        Some(path) => Ok(path),
        None => only_safetensors(dir, ""),
    }
}

/// The only file of a directory whose name begins so and ends in `.safetensors`.
fn only_safetensors(dir: &Path, begins: &str) -> Result<PathBuf, LoadError> {
    let io = |source| LoadError::Io { path: dir.to_owned(), source };
    let mut found = Vec::new();
    match std::fs::read_dir(dir) {
        Ok(entries) => {
            for entry in entries {
                let name = entry.map_err(io)?.file_name();
                let name = name.to_string_lossy();
                if name.starts_with(begins) && name.ends_with(".safetensors") {
                    found.push(name.into_owned());
                }
            }
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(io(e)),
    }
    found.sort();
    match found.as_slice() {
        [one] => Ok(dir.join(one)),
        [] => {
            let what = if begins.is_empty() {
                "the weights in safetensors format"
            } else {
                "a dual encoder's or BERT's configuration with its weights, or torchvision's mobilenet_v2*.safetensors,"
            };
            let name = if begins.is_empty() { WEIGHTS_FILE } else { CONFIG_FILE };
            Err(LoadError::MissingFile { path: dir.join(name), what })
        }
        several => Err(LoadError::Config {
            file: dir.display().to_string(),
            key: format!("{begins}*.safetensors"),
            reason: format!("could be {}; keep one of them", several.join(" and ")),
        }),
    }
}

/// The error of a directory that holds something else than what is needed.
pub(super) fn wrong_type(reason: String) -> LoadError {
    LoadError::Config { file: CONFIG_FILE.to_owned(), key: "model_type".to_owned(), reason }
}
