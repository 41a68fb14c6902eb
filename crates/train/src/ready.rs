//! Before the first step: what a run needs of its data and of its output directory.
//!
//! Owns: refusing what could only end badly, with the remedy, and keeping what is in the directory until
//! somebody says that it may go. Deliberately absent: bounds of single recipe keys (see `recipe`).

use std::fs::{self, File};
use std::path::Path;

use crate::checkpoint;
use crate::data::Collection;
use crate::error::{TrainError, io};
use crate::export;
use crate::files;
use crate::objective::Objective;
use crate::recipe::Recipe;
use crate::run::Resume;

/// Refuses data that the recipe cannot be carried out on, and an output directory that it reads.
pub(crate) fn check(recipe: &Recipe, train: &Collection, out: &Path) -> Result<(), TrainError> {
    check_size(recipe, train)?;
    check_labels(recipe, train)?;
    check_place(recipe, out)
}

/// Makes the output directory ready for what is to become of a run in it, and keeps other runs out for as
/// long as the result lives.
pub(crate) fn prepare(out: &Path, resume: Resume, steps: u64) -> Result<File, TrainError> {
    files::create_folder(out)?;
    let lock = files::lock(out)?;
    if resume == Resume::Restart {
        let folder = out.join(checkpoint::FOLDER);
        match fs::remove_dir_all(&folder) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io("remove", &folder)(e)),
            _ => export::discard_model(out)?,
        }
        return Ok(lock);
    }
    let path = || out.to_path_buf();
    match checkpoint::step(out)? {
        Some(step) if resume == Resume::Refuse => Err(TrainError::Unfinished { path: path(), step, steps }),
        // Somebody else's, or one whose checkpoint was deleted: not to be lost by a slip of the pen.
        None if export::holds_model(out) => Err(TrainError::ModelThere { path: path() }),
        _ => Ok(lock),
    }
}

/// Refuses batches that the data cannot fill.
fn check_size(recipe: &Recipe, train: &Collection) -> Result<(), TrainError> {
    let (size, found) = (recipe.train.batch_size, train.pictures.len());
    if found >= size || recipe.closed_form().is_some() {
        return Ok(());
    }
    let reason = format!("is {size}, more than the {found} training images; lower it or add pairs");
    Err(TrainError::RecipeValue { key: "train.batch_size", reason })
}

/// Refuses objectives that go by labels where no record has any: they would learn nothing from them,
/// and nobody would be told.
fn check_labels(recipe: &Recipe, train: &Collection) -> Result<(), TrainError> {
    let wanted = recipe.objective.iter().any(|term| matches!(term.objective, Objective::SoftTargets(_)));
    if !wanted || train.records.iter().any(|record| !record.labels.is_empty()) {
        return Ok(());
    }
    let reason = format!(
        "is {:?}, but no training record has such an attribute, and soft-targets goes by labels; name the \
         attribute that holds them, or choose another objective",
        recipe.data.labels
    );
    Err(TrainError::RecipeValue { key: "data.labels", reason })
}

/// Refuses to write over a tower that the run reads.
fn check_place(recipe: &Recipe, out: &Path) -> Result<(), TrainError> {
    let Ok(out) = out.canonicalize() else { return Ok(()) };
    for path in recipe.towers.paths().into_iter().flatten() {
        if path.canonicalize().is_ok_and(|path| path == out) {
            let reason = "it is the output directory too; choose another one for what is to be written";
            return Err(TrainError::Tower { path: path.clone(), reason: reason.to_owned() });
        }
    }
    Ok(())
}
