//! What a run writes in the end.
//!
//! Owns: whether that is a new model, a dual encoder with other weights or a composed model, and which
//! tensors go into which of its folders. Deliberately absent: the files' formats.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use diptych_core::Modality;
use diptych_encoder::anatomy::{Source, VisionParts};
use diptych_encoder::{Checkpoint, ComposedSide, LoadError, TextCheckpoint, WriteError, write_composed};

use crate::error::{TrainError, unusable};
use crate::export::Scratch;
use crate::model::Model;

/// What a run writes.
pub(crate) enum Product {
    /// A new `CLIPModel`.
    Scratch(Box<Scratch>),
    /// A dual encoder of the family it came from.
    Checkpoint(Box<Checkpoint>),
    /// Towers with heads on them.
    Composed(Box<[Part; 2]>),
}

/// One side of a composed model.
pub(crate) struct Part {
    /// Where the tower came from.
    pub source: PathBuf,
    /// What of it was open, if anything was.
    pub open: Option<OpenTower>,
    /// Which side it is.
    pub modality: Modality,
}

/// A pre-trained tower that is trained, with the directory that it is part of.
pub(crate) enum OpenTower {
    /// The image tower of a dual encoder.
    Image(Box<Checkpoint>),
    /// A text tower.
    Text(Box<TextCheckpoint>),
}

impl OpenTower {
    /// Whether a tensor is part of the tower. The directory may have more: another text tower, say, with
    /// tensors of the same names as those of the text tower that is trained.
    pub fn owns(&self, name: &str) -> bool {
        let named = |source: &Source| source.name == name;
        match self {
            Self::Image(checkpoint) => match &checkpoint.anatomy().vision {
                VisionParts::Vit(parts) => parts.sources().any(named),
                VisionParts::Convolutional(_) => false,
            },
            Self::Text(checkpoint) => checkpoint.parts().sources().any(named),
        }
    }

    /// The values of a tensor, as stored.
    pub fn tensor(&self, name: &str) -> Result<Vec<f32>, LoadError> {
        match self {
            Self::Image(checkpoint) => checkpoint.tensor(name),
            Self::Text(checkpoint) => checkpoint.tensor(name),
        }
    }

    fn write(&self, out: &Path, replaced: &BTreeMap<String, Vec<f32>>) -> Result<u64, WriteError> {
        match self {
            Self::Image(checkpoint) => checkpoint.write(out, replaced),
            Self::Text(checkpoint) => checkpoint.write(out, replaced),
        }
    }
}

impl Product {
    /// Writes the model directory; gives its size in bytes.
    pub fn write(
        &self,
        out: &Path,
        model: &Model,
        trained: &[f32],
        logit_scale: f32,
        logit_bias: Option<f32>,
    ) -> Result<u64, TrainError> {
        let layout = model.layout();
        match self {
            Self::Scratch(scratch) => scratch.write(out, layout, trained, logit_scale),
            Self::Checkpoint(checkpoint) => {
                let mut tensors = layout.collect(trained);
                tensors.retain(|name, _| checkpoint.has(name));
                let anatomy = checkpoint.anatomy();
                tensors.insert(anatomy.logit_scale.name.clone(), vec![logit_scale]);
                if let (Some(source), Some(bias)) = (&anatomy.logit_bias, logit_bias) {
                    tensors.insert(source.name.clone(), vec![bias]);
                }
                checkpoint.write(out, &tensors).map_err(|e| unusable(out, e.to_string()))
            }
            Self::Composed(parts) => write_parts(parts, out, model, trained, (logit_scale, logit_bias)),
        }
    }
}

fn write_parts(
    parts: &[Part; 2],
    out: &Path,
    model: &Model,
    trained: &[f32],
    (logit_scale, logit_bias): (f32, Option<f32>),
) -> Result<u64, TrainError> {
    let tensors = model.layout().collect(trained);
    let [image, text] = stage(parts, out, &tensors)?;
    let image_side = composed_side(model, trained, &parts[0], image.as_deref());
    let text_side = composed_side(model, trained, &parts[1], text.as_deref());
    let bytes = write_composed(out, image_side, text_side, logit_scale, logit_bias)
        .map_err(|e| unusable(out, e.to_string()))?;
    for staged in BTreeSet::from([image, text]).into_iter().flatten() {
        std::fs::remove_dir_all(&staged).map_err(crate::error::io("remove", &staged))?;
    }
    Ok(bytes)
}

/// One side of the new directory: a tower, where it lies now, and the head that was trained on it.
fn composed_side<'a>(
    model: &Model,
    trained: &[f32],
    part: &'a Part,
    staged: Option<&'a Path>,
) -> ComposedSide<'a> {
    let head = model.side(part.modality).head().expect("composed models have heads");
    let folder = part.modality.as_str();
    let prefix = format!("{folder}_head.");
    let slots = model.layout().slots().iter().filter(|slot| slot.name.starts_with(&prefix));
    let values = |span| model.values(span, trained).to_vec();
    let weights = slots.map(|slot| (slot.name.clone(), slot.shape.clone(), values(slot.span))).collect();
    ComposedSide { trunk: staged.unwrap_or(&part.source), folder, head: head.spec().clone(), weights }
}

/// Writes the open towers with what they learned, each into a folder of its own, from where they are taken
/// into the composed directory. Both towers of one directory stay together, also where one is frozen.
fn stage(
    parts: &[Part; 2],
    out: &Path,
    tensors: &BTreeMap<String, Vec<f32>>,
) -> Result<[Option<PathBuf>; 2], TrainError> {
    let together = parts[0].source == parts[1].source;
    let mut folders = [None, None];
    for (part, staged) in parts.iter().zip(&mut folders) {
        let Some(open) = &part.open else { continue };
        let folder = out.join(format!("{}.staged", part.modality.as_str()));
        let mut learned = tensors.clone();
        learned.retain(|name, _| match together {
            true => parts.iter().filter_map(|part| part.open.as_ref()).any(|open| open.owns(name)),
            false => open.owns(name),
        });
        open.write(&folder, &learned).map_err(|e| unusable(&folder, e.to_string()))?;
        if together {
            return Ok([Some(folder.clone()), Some(folder)]);
        }
        *staged = Some(folder);
    }
    Ok(folders)
}
