//! A run that can be continued: everything that changes from step to step.
//!
//! Owns: `OUT/checkpoint/state.safetensors` with parameters, moments, the step and what the run was
//! started with. Random choices depend on seed and step alone, so there is no generator to save.
//! Deliberately absent: the finished model (see `export`).

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use crate::error::{TrainError, io};
use crate::files;
use crate::optimizer::AdamW;

/// Folder of the checkpoint within the output directory; safe to delete after training.
pub(crate) const FOLDER: &str = "checkpoint";
const FILE: &str = "state.safetensors";

/// The state of a run between two steps.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct State {
    /// Steps done.
    pub step: u64,
    /// All parameters.
    pub params: Vec<f32>,
    /// The optimiser's moments.
    pub adam: AdamW,
}

/// What a run was started with: a checkpoint fits only the same recipe and the same data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// The recipe as JSON.
    pub recipe: String,
    /// Fingerprint of the training pairs.
    pub data: String,
}

/// What the file says about itself besides its tensors.
#[derive(Debug, Serialize, Deserialize)]
struct About {
    step: u64,
    origin: Origin,
}

/// Key of [`About`] in the file's metadata.
const ABOUT: &str = "run";

/// Path of the state within an output directory.
pub(crate) fn path(out: &Path) -> PathBuf {
    out.join(FOLDER).join(FILE)
}

/// Replaces the checkpoint of an output directory.
pub(crate) fn save(out: &Path, state: &State, origin: &Origin) -> Result<(), TrainError> {
    files::create_folder(&out.join(FOLDER))?;
    let path = path(out);
    let damaged = |e: safetensors::SafeTensorError| damaged(&path, &e.to_string());
    let bytes = [&state.params, &state.adam.first, &state.adam.second].map(|values| to_bytes(values));
    let mut tensors = Vec::new();
    for (name, bytes) in NAMES.iter().zip(&bytes) {
        tensors.push((*name, TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes).map_err(damaged)?));
    }
    // One entry: a map of several would be written in random order, and equal runs give equal bytes.
    let about = About { step: state.step, origin: origin.clone() };
    let about = serde_json::to_string(&about).expect("plain numbers and strings always serialise");
    let metadata = HashMap::from([(ABOUT.to_owned(), about)]);
    let file = safetensors::serialize(tensors, Some(metadata)).map_err(damaged)?;
    files::replace(&path, &file)
}

const NAMES: [&str; 3] = ["params", "first_moment", "second_moment"];

/// The checkpoint of an output directory, if there is one.
pub(crate) fn load(out: &Path, origin: &Origin, len: usize) -> Result<Option<State>, TrainError> {
    let path = path(out);
    let bytes = match std::fs::read(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(io("read", &path))?,
    };
    let broken = |e: safetensors::SafeTensorError| damaged(&path, &e.to_string());
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(broken)?;
    let about = header.metadata().as_ref().and_then(|metadata| metadata.get(ABOUT));
    let about = about.ok_or_else(|| damaged(&path, "it does not say which run it is of"))?;
    let About { step, origin: found } =
        serde_json::from_str(about).map_err(|e| damaged(&path, &e.to_string()))?;
    for (what, found, expected) in
        [("recipe", &found.recipe, &origin.recipe), ("training data", &found.data, &origin.data)]
    {
        if found != expected {
            return Err(TrainError::OtherRun { path, what });
        }
    }
    let tensors = SafeTensors::deserialize(&bytes).map_err(broken)?;
    let mut values = Vec::new();
    for name in NAMES {
        let tensor = tensors.tensor(name).map_err(broken)?;
        if tensor.dtype() != Dtype::F32 || tensor.data().len() != len * 4 {
            return Err(damaged(&path, &format!("`{name}` does not hold {len} f32 values")));
        }
        values.push(from_bytes(tensor.data()));
    }
    let mut next = values.into_iter();
    let mut take = || next.next().expect("one vector per name");
    let (params, first, second) = (take(), take(), take());
    Ok(Some(State { step, params, adam: AdamW { first, second } }))
}

fn damaged(path: &Path, reason: &str) -> TrainError {
    TrainError::Checkpoint { path: path.to_path_buf(), reason: reason.to_owned() }
}

/// Little-endian bytes, the order safetensors prescribes.
pub(crate) fn to_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn from_bytes(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> (State, Origin) {
        let adam = AdamW { first: vec![1.0, -2.5], second: vec![0.1, f32::MIN_POSITIVE] };
        let state = State { step: 7, params: vec![0.5, -0.0], adam };
        (state, Origin { recipe: "{}".to_owned(), data: "1f".to_owned() })
    }

    #[test]
    fn a_checkpoint_comes_back_with_the_same_bits() {
        let (state, origin) = example();
        let out = tempfile::tempdir().expect("a folder");
        assert_eq!(load(out.path(), &origin, 2).expect("nothing yet"), None);
        save(out.path(), &state, &origin).expect("saves");
        assert_eq!(load(out.path(), &origin, 2).expect("loads"), Some(state));
    }

    #[test]
    fn checkpoints_of_other_runs_and_damaged_ones_are_refused() {
        let (state, origin) = example();
        let out = tempfile::tempdir().expect("a folder");
        save(out.path(), &state, &origin).expect("saves");
        let other = Origin { recipe: "{\"seed\":2}".to_owned(), ..origin.clone() };
        let error = load(out.path(), &other, 2).expect_err("another recipe").to_string();
        assert!(error.contains("recipe differs"), "{error}");
        let error = load(out.path(), &origin, 3).expect_err("another size").to_string();
        assert!(error.contains("`params`"), "{error}");
        let file = path(out.path());
        let bytes = std::fs::read(&file).expect("reads");
        std::fs::write(&file, &bytes[..bytes.len() - 3]).expect("writes");
        assert!(matches!(load(out.path(), &origin, 2), Err(TrainError::Checkpoint { .. })));
    }
}
