//! A store and a model on this machine, or a store alone.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use diptych_client::Client;
use diptych_core::{Digest, Embedding, Encode, EncodeError, ModelId, PreparedImage, PreparedText};
use diptych_encoder::{DualEncoder, Precision};
use diptych_engine::{Engine, EngineOptions, IndexKind};
use diptych_store::{Store, StoreOptions};

use crate::args::PlaceArgs;
use crate::hub;
use crate::record_args::WhereArgs;
use crate::{output, remote};

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

/// A client for questions: of a server, or of the services over a data directory of this machine. One question does
/// not pay for building a graph: it is answered by the one that is in the files, or by an exact scan.
pub async fn asking(place: &PlaceArgs) -> Result<Client> {
    let client = match (&place.data, &place.model, &place.server) {
        (Some(data), Some(model), None) => {
            output::init_logs_from("warn");
            let encoder = load_model(model, place.precision)?;
            let options = EngineOptions { index: IndexKind::Ready, ..EngineOptions::default() };
            client_of(open_engine(data, encoder, options, false)?).await?
        }
        (_, _, Some(server)) => remote::connect(server).await?,
        _ => unreachable!("the parser wants --data and --model, or --server"),
    };
    Ok(client.with_collection(place.collection.clone()))
}

/// A client of a server, or of the services over a data directory that is opened without its model.
pub async fn client(place: &WhereArgs) -> Result<Client> {
    match (&place.data, &place.server) {
        (Some(data), _) => {
            let store = open_store(data, false)?;
            let encoder = Arc::new(Absent::of(&store));
            let engine = Engine::open(store, encoder, EngineOptions::default())?;
            client_of(engine).await
        }
        (None, Some(server)) => remote::connect(server).await,
        (None, None) => unreachable!("the parser wants --data or --server"),
    }
}

/// Opens a data directory, which is created when absent, for a model that is only known by its id.
pub fn open_without_model(data: &Path, model_id: &str, dim: usize) -> Result<Engine> {
    let model_id = ModelId(digest(model_id).with_context(|| format!("'{model_id}' is no id of a model"))?);
    let encoder = Arc::new(Absent { model_id, dim });
    Ok(Engine::open(open_store(data, true)?, encoder, EngineOptions::default())?)
}

/// Reads a digest of 64 hexadecimal digits.
fn digest(hex: &str) -> Option<Digest> {
    let bytes: Option<Vec<u8>> = hex
        .as_bytes()
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()))
        .collect();
    bytes.and_then(|bytes| bytes.try_into().ok()).map(Digest)
}

/// A client of the services over an engine.
pub async fn client_of(engine: Engine) -> Result<Client> {
    let channel = diptych_server::in_process(Arc::new(engine)).await;
    let channel = channel.map_err(|e| anyhow::anyhow!("the services cannot be started here: {e}"))?;
    Ok(Client::over(channel, remote::options("in.process"))?)
}

/// Whether a data directory has a collection, from which its model is known.
pub fn has_model(data: &Path) -> Result<bool> {
    Ok(data.exists() && !open_store(data, false)?.collections().is_empty())
}

/// The model of a store that nothing is to be encoded for.
struct Absent {
    model_id: ModelId,
    dim: usize,
}

impl Absent {
    /// All collections of a store have one model; a store without any has none to tell.
    fn of(store: &Store) -> Self {
        let (model_id, dim) = match store.collections().first() {
            Some(collection) => (collection.model_id, collection.dim),
            None => (ModelId(Digest([0; 32])), 1),
        };
        Self { model_id, dim: dim as usize }
    }

    fn refusal<T>() -> Result<T, EncodeError> {
        Err(EncodeError::Model { reason: "this command works without the model".to_owned() })
    }
}

impl Encode for Absent {
    fn model_id(&self) -> ModelId {
        self.model_id
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn prepare_image(&self, _: &[u8]) -> Result<PreparedImage, EncodeError> {
        Self::refusal()
    }

    fn prepare_text(&self, _: &str) -> Result<PreparedText, EncodeError> {
        Self::refusal()
    }

    fn encode_images(&self, _: &[PreparedImage]) -> Result<Vec<Embedding>, EncodeError> {
        Self::refusal()
    }

    fn encode_texts(&self, _: &[PreparedText]) -> Result<Vec<Embedding>, EncodeError> {
        Self::refusal()
    }
}
