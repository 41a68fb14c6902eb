//! Models that are named instead of pointed at: `--model hf:owner/name[@revision]`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use diptych_hub::{Event, ModelName, Settings};

use crate::output;

/// The directory of a model: the one that is given, or the one that holds the model of that name.
pub fn model_dir(model: &Path) -> Result<PathBuf> {
    let Some(name) = model.to_str().filter(|text| text.starts_with(ModelName::PREFIX)) else {
        return Ok(model.to_owned());
    };
    let mut bar = None;
    let mut progress = |event: Event<'_>| match event {
        Event::Started { file, size } => {
            let started = output::download_bar(size);
            started.set_message(file.to_owned());
            bar = Some(started);
        }
        Event::Received { bytes } => bar.iter().for_each(|bar| bar.set_position(bytes)),
        Event::Finished => bar.take().iter().for_each(indicatif::ProgressBar::finish_and_clear),
    };
    Ok(diptych_hub::resolve(&name.parse()?, &Settings::from_env()?, &mut progress)?)
}
