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
use crate::objective::MixtureState;
use crate::optimizer::AdamW;

/// Folder of the checkpoint within the output directory; safe to delete after training.
pub const FOLDER: &str = "checkpoint";
const FILE: &str = "state.safetensors";

/// The state of a run between two steps.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct State {
    /// Steps done.
    pub step: u64,
    /// All trained parameters.
    pub params: Vec<f32>,
    /// The optimiser's moments.
    pub adam: AdamW,
    /// Exponential average of the parameters; empty without one.
    pub average: Vec<f32>,
    /// The momentum encoder's parameters; empty without one.
    pub keys: Vec<f32>,
    /// Queues of earlier keys, images first: rows and ids.
    pub queues: [(Vec<f32>, Vec<u64>); 2],
    /// Running magnitudes of the objectives.
    pub mixture: Option<MixtureState>,
    /// The best parameters so far and their score; empty and negative before the first validation.
    pub best: (Vec<f32>, f32),
    /// Validations since then.
    pub stale: u64,
}

impl State {
    /// Before the first step.
    pub fn new(params: Vec<f32>) -> Self {
        Self {
            step: 0,
            adam: AdamW::new(params.len()),
            params,
            average: Vec::new(),
            keys: Vec::new(),
            queues: Default::default(),
            mixture: None,
            best: (Vec::new(), -1.0),
            stale: 0,
        }
    }

    /// The vectors of floats with their names.
    fn floats(&self) -> [(&'static str, &Vec<f32>); 8] {
        [
            ("params", &self.params),
            ("first_moment", &self.adam.first),
            ("second_moment", &self.adam.second),
            ("average", &self.average),
            ("keys", &self.keys),
            ("image_queue", &self.queues[0].0),
            ("text_queue", &self.queues[1].0),
            ("best", &self.best.0),
        ]
    }
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
    best: f32,
    stale: u64,
    mixture: Option<MixtureState>,
    queue_ids: [Vec<u64>; 2],
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
    let bytes = state.floats().map(|(name, values)| (name, to_bytes(values)));
    let mut tensors = Vec::new();
    for (name, bytes) in &bytes {
        tensors.push((*name, TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes).map_err(damaged)?));
    }
    // One entry: a map of several would be written in random order, and equal runs give equal bytes.
    let about = About {
        step: state.step,
        best: state.best.1,
        stale: state.stale,
        mixture: state.mixture.clone(),
        queue_ids: [0, 1].map(|side: usize| state.queues[side].1.clone()),
        origin: origin.clone(),
    };
    let about = serde_json::to_string(&about).expect("plain numbers and strings always serialise");
    let metadata = HashMap::from([(ABOUT.to_owned(), about)]);
    let file = safetensors::serialize(tensors, Some(metadata)).map_err(damaged)?;
    files::replace(&path, &file)
}

/// The step of the checkpoint of an output directory, if there is one, whatever run it is of.
pub(crate) fn step(out: &Path) -> Result<Option<u64>, TrainError> {
    Ok(read(out)?.map(|(_, about)| about.step))
}

/// The checkpoint of an output directory, if there is one.
pub(crate) fn load(out: &Path, origin: &Origin, len: usize) -> Result<Option<State>, TrainError> {
    let path = path(out);
    let Some((bytes, about)) = read(out)? else { return Ok(None) };
    let broken = |e: safetensors::SafeTensorError| damaged(&path, &e.to_string());
    let About { step, best, stale, mixture, queue_ids, origin: found } = about;
    for (what, found, expected) in
        [("recipe", &found.recipe, &origin.recipe), ("training data", &found.data, &origin.data)]
    {
        if found != expected {
            return Err(TrainError::OtherRun { path, what });
        }
    }
    let tensors = SafeTensors::deserialize(&bytes).map_err(broken)?;
    let take = |name: &str, whole: bool| {
        let tensor = tensors.tensor(name).map_err(broken)?;
        let found = tensor.data().len() / 4;
        if tensor.dtype() != Dtype::F32 || (found != len && (whole || found != 0)) {
            return Err(damaged(&path, &format!("`{name}` does not hold {len} f32 values")));
        }
        Ok(from_bytes(tensor.data()))
    };
    let queue = |name: &str| tensors.tensor(name).map(|t| from_bytes(t.data())).map_err(broken);
    let [image_ids, text_ids] = queue_ids;
    Ok(Some(State {
        step,
        params: take("params", true)?,
        adam: AdamW { first: take("first_moment", true)?, second: take("second_moment", true)? },
        average: take("average", false)?,
        keys: take("keys", false)?,
        queues: [(queue("image_queue")?, image_ids), (queue("text_queue")?, text_ids)],
        mixture,
        best: (take("best", false)?, best),
        stale,
    }))
}

/// The bytes of a checkpoint and what it says about itself.
fn read(out: &Path) -> Result<Option<(Vec<u8>, About)>, TrainError> {
    let path = path(out);
    let bytes = match std::fs::read(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(io("read", &path))?,
    };
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| damaged(&path, &e.to_string()))?;
    let about = header.metadata().as_ref().and_then(|metadata| metadata.get(ABOUT));
    let about = about.ok_or_else(|| damaged(&path, "it does not say which run it is of"))?;
    let about = serde_json::from_str(about).map_err(|e| damaged(&path, &e.to_string()))?;
    Ok(Some((bytes, about)))
}

fn damaged(path: &Path, reason: &str) -> TrainError {
    TrainError::Checkpoint { path: path.to_path_buf(), reason: reason.to_owned() }
}

/// Little-endian bytes, the order safetensors prescribes.
pub(crate) fn to_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// The reverse of [`to_bytes`].
pub(crate) fn from_bytes(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> (State, Origin) {
        let adam = AdamW { first: vec![1.0, -2.5], second: vec![0.1, f32::MIN_POSITIVE] };
        let state = State {
            step: 7,
            adam,
            average: vec![0.25, 0.1],
            queues: [(vec![1.0, 0.0, 0.0], vec![u64::MAX]), Default::default()],
            best: (vec![3.0, 4.0], 0.1),
            stale: 2,
            ..State::new(vec![0.5, -0.0])
        };
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
