//! Why a model cannot be had by its name.

use std::path::PathBuf;

use crate::ModelName;

/// Why a model is not on this machine, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// A name that cannot be one.
    #[error("'{text}' names no model: {reason}; write hf:owner/name or hf:owner/name@revision")]
    Name {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A variable of the environment that cannot be used.
    #[error("{name} {reason}; correct it, or unset it")]
    Setting {
        /// The variable.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Not in the cache, and connections are forbidden.
    #[error(
        "{model} is not whole in {cache}, and HF_HUB_OFFLINE forbids to download it; run '{command}' where there is a network, or set HF_HUB_OFFLINE=0",
        cache = cache.display(), command = model.command()
    )]
    Offline {
        /// The model.
        model: ModelName,
        /// Where it was looked for.
        cache: PathBuf,
    },
    /// Not in the cache, and this program cannot open connections.
    #[error(
        "{model} is not whole in {cache}, and this program was built without downloads; run '{command}', or build it with --features hub",
        cache = cache.display(), command = model.command()
    )]
    NoDownloads {
        /// The model.
        model: ModelName,
        /// Where it was looked for.
        cache: PathBuf,
    },
    /// The server cannot be reached.
    #[error(
        "{model} is not whole in the cache, and {endpoint} cannot be reached: {reason}; check the network and HTTPS_PROXY, set HF_ENDPOINT to a mirror, or run '{command}' elsewhere and copy the cache",
        command = model.command()
    )]
    Unreachable {
        /// The model.
        model: ModelName,
        /// The server.
        endpoint: String,
        /// What happened.
        reason: String,
    },
    /// There is no such repository, or not for this user.
    #[error("{endpoint} shows no {repository}: {hint}", repository = model.repository())]
    NotFound {
        /// The model.
        model: ModelName,
        /// The server.
        endpoint: String,
        /// What to do.
        hint: &'static str,
    },
    /// The repository has no such revision.
    #[error(
        "{repository} has no revision '{revision}'; see the branches and tags at {endpoint}/{repository}/tree/main",
        repository = model.repository(), revision = model.revision()
    )]
    Revision {
        /// The model.
        model: ModelName,
        /// The server.
        endpoint: String,
    },
    /// The repository is only for those who accepted its terms.
    #[error(
        "{repository} is gated: accept its terms at {endpoint}/{repository}, and set HF_TOKEN to a token that may read it",
        repository = model.repository()
    )]
    Gated {
        /// The model.
        model: ModelName,
        /// The server.
        endpoint: String,
    },
    /// The repository holds no dual encoder in a known form.
    #[error(
        "{model} holds no config.json with model.safetensors or pytorch_model.bin, and no open_clip_config.json with open_clip_model.safetensors or open_clip_pytorch_model.bin; name a repository that holds a dual encoder"
    )]
    NoModel {
        /// The model.
        model: ModelName,
    },
    /// The server answered with something that is no answer.
    #[error("{url} answered with {reason}; try again later, or set HF_ENDPOINT to another server")]
    Answer {
        /// What was asked.
        url: String,
        /// What came.
        reason: String,
    },
    /// A file ended before its end.
    #[error("{file} broke off after {received} bytes: {reason}; run the command again, it continues there")]
    Interrupted {
        /// The file.
        file: String,
        /// Bytes that are kept.
        received: u64,
        /// What happened.
        reason: String,
    },
    /// A file has other contents than the server announced.
    #[error("{file} arrived damaged: {reason}; nothing of it was kept, run the command again")]
    Damaged {
        /// The file.
        file: String,
        /// What differs.
        reason: String,
    },
    /// An index of shards that cannot be used.
    #[error("{file} is no index of weights: {reason}; delete it from the cache and download it again")]
    Index {
        /// The index.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A reference in the cache that is no commit.
    #[error("{path} holds no commit; delete it, and the model is looked up again", path = path.display())]
    Reference {
        /// The reference.
        path: PathBuf,
    },
    /// The cache cannot be read or written.
    #[error("cannot use {path}: {source}; check its permissions and the disk, or set HF_HUB_CACHE", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl HubError {
    /// Nobody could be asked.
    pub(crate) fn is_unreachable(&self) -> bool {
        matches!(self, Self::Offline { .. } | Self::NoDownloads { .. } | Self::Unreachable { .. })
    }
}
