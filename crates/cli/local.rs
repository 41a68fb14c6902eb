//! A store and a model on this machine.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use diptych_encoder::{DualEncoder, Precision};
use diptych_engine::{Engine, EngineOptions};
use diptych_store::{Store, StoreOptions};

use crate::hub;

/// Loads a model: a directory, or a name such as `hf:owner/name`.
pub fn load_model(model: &Path, precision: Precision) -> Result<DualEncoder> {
    let dir = hub::model_dir(model)?;
    DualEncoder::load_with(&dir, precision)
        .with_context(|| format!("cannot load the model in {}", dir.display()))
}

/// Opens a data directory with a loaded model. `create` makes the directory when it is absent.
pub fn open_engine(
    data: &Path,
    encoder: DualEncoder,
    options: EngineOptions,
    create: bool,
) -> Result<Engine> {
    let encoder = Arc::new(encoder);
    let store = open_store(data, create)?;
    Ok(Engine::open(store, encoder, options)?)
}

/// Opens a data directory.
pub fn open_store(data: &Path, create: bool) -> Result<Store> {
    Ok(Store::open(data, &StoreOptions { create, ..StoreOptions::default() })?)
}
