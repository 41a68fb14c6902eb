//! Writes composed models: the directory of trunks and trained heads that `DualEncoder` loads.
//!
//! Owns: [`write_composed`], which of a trunk's files belong to a model, and the order of writing that
//! never leaves half a model. Does not own what the files mean.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use diptych_core::Modality;
use diptych_files::FileError;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::config::CONFIG_FILE;
use crate::error::LoadError;
use crate::family::composed::{self, Side};
use crate::head::{Head, HeadSpec, HeadTensor};
use crate::precision::Precision;
use crate::trunk::{self, Content, Opened, TrunkFile};
use crate::weights::WEIGHTS_FILE;

/// Files of at least this many bytes are linked, smaller ones are copied: people edit those, and would edit
/// both.
const LINKED_FROM: u64 = 1 << 20;
/// Where the files lie until all of them are written.
const STAGING: &str = ".partial";

/// One side of a composed model.
#[derive(Debug, Clone)]
pub struct ComposedSide<'a> {
    /// Where the trunk is now: anything that [`crate::ImageTrunk::open`] or [`crate::TextTrunk::open`]
    /// takes.
    pub trunk: &'a Path,
    /// The plain name of the folder for it in the new directory.
    pub folder: &'a str,
    /// What was trained on top.
    pub head: HeadSpec,
    /// The head's tensors, named as [`HeadSpec::tensors`] says.
    pub weights: Vec<HeadTensor>,
}

/// Why a composed model cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    /// A trunk cannot be opened, or its head does not fit.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A file cannot be written.
    #[error("cannot write {path}: {source}; check permissions and free space", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The directory or a folder's name cannot be used.
    #[error("{path} cannot be used: {reason}", path = path.display())]
    Place {
        /// The directory or folder.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
}

/// Writes a directory that [`crate::DualEncoder`] loads: both trunks, each in its folder (in one where both
/// sides come from the same directory, the image side's), the heads, `logit_scale` (the natural logarithm of
/// what cosines are multiplied by) and `logit_bias`. Returns how many bytes the model has on disk.
///
/// A trunk's weights are linked where the file system can, and copied where not. Everything is first written
/// aside; a directory that holds `model.safetensors` is complete. An older composed model there is replaced,
/// anything else in the directory is left alone.
///
/// # Errors
/// [`ComposeError`]; what was there before is then untouched, unless it was replacing that failed.
pub fn write_composed(
    out: &Path,
    image: ComposedSide<'_>,
    text: ComposedSide<'_>,
    logit_scale: f32,
    logit_bias: Option<f32>,
) -> Result<u64, ComposeError> {
    let replaced = folders_there(out)?;
    let plan = Plan::new(out, &image, &text, &replaced)?;
    let mut tensors = [image.weights, text.weights].concat();
    tensors.push(("logit_scale".to_owned(), Vec::new(), vec![logit_scale]));
    tensors.extend(logit_bias.map(|bias| ("logit_bias".to_owned(), Vec::new(), vec![bias])));
    for (name, _, values) in &tensors {
        if let Some(position) = values.iter().position(|v| !v.is_finite()) {
            return Err(LoadError::NotFinite { name: name.clone(), position }.into());
        }
    }
    let staging = out.join(STAGING);
    remove(&staging)?;
    at(&staging, fs::create_dir_all(&staging))?;
    let mut bytes = 0;
    for file in &plan.files {
        bytes += place(file, &staging)?;
    }
    bytes += write(&staging.join(CONFIG_FILE), composed::config_json(&plan.image, &plan.text).as_bytes())?;
    bytes += write(&staging.join(WEIGHTS_FILE), &serialize(&tensors))?;
    publish(out, &staging, &plan, &replaced)?;
    Ok(bytes)
}

/// What is going to be written.
struct Plan {
    image: Side,
    text: Side,
    files: Vec<TrunkFile>,
}

impl Plan {
    /// Opens the trunks and checks that everything fits.
    fn new(
        out: &Path,
        image: &ComposedSide<'_>,
        text: &ComposedSide<'_>,
        replaced: &[String],
    ) -> Result<Self, ComposeError> {
        let shared = same_path(image.trunk, text.trunk);
        let mut folders = vec![(image.folder, image.trunk)];
        if !shared {
            folders.push((text.folder, text.trunk));
        }
        for (folder, trunk) in &folders {
            check_folder(out, folder, trunk, replaced)?;
        }
        if !shared && image.folder == text.folder {
            let reason = "is meant for two different trunks; give each a folder of its own".to_owned();
            return Err(ComposeError::Place { path: out.join(image.folder), reason });
        }
        let open = |path: &Path| trunk::open(path, Precision::F32, 0);
        let first = open(image.trunk)?;
        let second = if shared { None } else { Some(open(text.trunk)?) };
        let text_from = second.as_ref().unwrap_or(&first);
        let width = |trunk: Option<usize>, side: Modality, path: &Path| {
            trunk.ok_or_else(|| ComposeError::Place {
                path: path.to_owned(),
                reason: format!("it has no {} tower; give a trunk that has one", side.as_str()),
            })
        };
        let image_width = width(first.image.as_ref().map(|t| t.width()), Modality::Image, image.trunk)?;
        let text_width = width(text_from.text.as_ref().map(|t| t.width()), Modality::Text, text.trunk)?;
        let image_out = Head::new(&image.head, image_width, Modality::Image, &image.weights)?.out();
        let text_out = Head::new(&text.head, text_width, Modality::Text, &text.weights)?.out();
        composed::same_width(image_out, text_out)?;
        let mut files = Vec::new();
        for (Opened { files: found, .. }, (folder, _)) in
            [Some(first), second].into_iter().flatten().zip(&folders)
        {
            files.extend(
                found.into_iter().map(|file| TrunkFile { to: Path::new(folder).join(file.to), ..file }),
            );
        }
        let text_folder = if shared { image.folder } else { text.folder };
        Ok(Self {
            image: Side { trunk: image.folder.to_owned(), head: image.head.clone() },
            text: Side { trunk: text_folder.to_owned(), head: text.head.clone() },
            files,
        })
    }

    fn folders(&self) -> Vec<&str> {
        let mut folders = vec![self.image.trunk.as_str(), self.text.trunk.as_str()];
        folders.dedup();
        folders
    }
}

fn check_folder(out: &Path, folder: &str, trunk: &Path, replaced: &[String]) -> Result<(), ComposeError> {
    let refuse = |path: PathBuf, reason: &str| Err(ComposeError::Place { path, reason: reason.to_owned() });
    if same_path(out, trunk) {
        return refuse(out.to_owned(), "the trunk itself is there; write to another directory");
    }
    if !composed::is_plain(folder) {
        return refuse(out.join(folder), "its name is no plain folder name; choose one such as 'image'");
    }
    if out.join(folder).exists() && !replaced.iter().any(|name| name == folder) {
        let reason = "it is there already and belongs to no composed model; remove it or choose another name";
        return refuse(out.join(folder), reason);
    }
    Ok(())
}

/// The trunk folders of the composed model that is there already. Any other model is not replaced.
fn folders_there(out: &Path) -> Result<Vec<String>, ComposeError> {
    let path = out.join(CONFIG_FILE);
    if !path.exists() {
        return match out.join(WEIGHTS_FILE).exists() {
            true => Err(foreign(out)),
            false => Ok(Vec::new()),
        };
    }
    let text = fs::read_to_string(&path).map_err(|source| LoadError::Io { path, source })?;
    let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    if value["model_type"] != composed::MODEL_TYPE {
        return Err(foreign(out));
    }
    let folder = |side: &str| value[side]["trunk"].as_str().filter(|name| composed::is_plain(name));
    let mut folders: Vec<String> =
        ["image", "text"].into_iter().filter_map(folder).map(str::to_owned).collect();
    folders.dedup();
    Ok(folders)
}

fn foreign(out: &Path) -> ComposeError {
    let reason = "it holds a model that was not composed here; write to another directory".to_owned();
    ComposeError::Place { path: out.to_owned(), reason }
}

/// Moves everything to its place. Without weights the directory is no model, so that they go first and come
/// last.
fn publish(out: &Path, staging: &Path, plan: &Plan, replaced: &[String]) -> Result<(), ComposeError> {
    remove(&out.join(WEIGHTS_FILE))?;
    let moved = |name: &str| at(&out.join(name), fs::rename(staging.join(name), out.join(name)));
    for folder in replaced {
        remove(&out.join(folder))?;
    }
    // From here on the configuration says whose the folders are.
    moved(CONFIG_FILE)?;
    for folder in plan.folders() {
        moved(folder)?;
    }
    moved(WEIGHTS_FILE)?;
    diptych_files::sync_folder(out).map_err(told)?;
    remove(staging)
}

/// Links or copies one file of a trunk; returns its bytes.
fn place(file: &TrunkFile, staging: &Path) -> Result<u64, ComposeError> {
    let to = staging.join(&file.to);
    if let Some(folder) = to.parent() {
        at(folder, fs::create_dir_all(folder))?;
    }
    let from = match &file.content {
        Content::Text(text) => return write(&to, text.as_bytes()),
        Content::File(from) => from,
    };
    // A link to a link would break when the first one moves.
    let from = fs::canonicalize(from).map_err(|source| LoadError::Io { path: from.clone(), source })?;
    let bytes = at(&from, fs::metadata(&from))?.len();
    if bytes < LINKED_FROM || fs::hard_link(&from, &to).is_err() {
        at(&to, fs::copy(&from, &to))?;
        at(&to, fs::File::open(&to).and_then(|copy| copy.sync_all()))?;
    }
    Ok(bytes)
}

fn write(path: &Path, bytes: &[u8]) -> Result<u64, ComposeError> {
    diptych_files::write_synced(path, bytes).map_err(told)?;
    Ok(bytes.len() as u64)
}

fn serialize(tensors: &[HeadTensor]) -> Vec<u8> {
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|(_, _, values)| values.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        (name, TensorView::new(Dtype::F32, shape.clone(), bytes).expect("shapes were checked"))
    });
    safetensors::serialize(views, None).expect("plain tensors always serialise")
}

/// Removes a file or folder that may be absent.
fn remove(path: &Path) -> Result<(), ComposeError> {
    let result = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => at(path, other),
    }
}

fn told(error: FileError) -> ComposeError {
    ComposeError::Write { path: error.path, source: error.source }
}

fn same_path(a: &Path, b: &Path) -> bool {
    match (fs::canonicalize(a), fs::canonicalize(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

fn at<T>(path: &Path, result: io::Result<T>) -> Result<T, ComposeError> {
    result.map_err(|source| ComposeError::Write { path: path.to_owned(), source })
}
