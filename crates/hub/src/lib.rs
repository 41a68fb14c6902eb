//! Models by name: `hf:owner/name[@revision]` to a directory on this machine.
//!
//! Owns: the names, the settings that the Hugging Face tools read too (`HF_HOME`, `HF_HUB_CACHE`,
//! `HF_HUB_OFFLINE`, `HF_TOKEN`, `HF_ENDPOINT`), the layout of their cache, which files of a
//! repository a model needs, and, with the feature `download`, fetching those. Files are shared with
//! the Python tools in both directions. Does not own what the files mean; prints nothing.
//!
//! Why not the crate hf-hub: release 1.0 takes reqwest with its default TLS, which is aws-lc in C, and
//! a second client with an async runtime of its own; no choice of its features leaves them out.

mod cache;
#[cfg(feature = "download")]
mod client;
#[cfg(feature = "download")]
mod download;
mod error;
mod files;
mod name;
mod settings;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use cache::{Cache, Cached};
pub use error::HubError;
pub use name::ModelName;
pub use settings::{Settings, Token};

/// What happens during a download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// A file is being fetched.
    Started {
        /// Its name in the repository.
        file: &'a str,
        /// Its size in bytes, where the server says it.
        size: Option<u64>,
    },
    /// Bytes of the current file that are there, those of an earlier, interrupted run included.
    Received {
        /// Bytes from the beginning of the file.
        bytes: u64,
    },
    /// The current file is complete and verified.
    Finished,
}

/// The directory that holds a model: from the cache when the model is whole there, else downloaded.
///
/// A branch that is cached is not asked for news; pin a revision, or run `hf download`, to move on.
///
/// # Errors
/// [`HubError`]: not in the cache and not to be had, each with what to do about it. An interrupted
/// download leaves nothing that looks complete, and is continued by the next call.
pub fn resolve(
    model: &ModelName,
    settings: &Settings,
    progress: &mut dyn FnMut(Event<'_>),
) -> Result<PathBuf, HubError> {
    let cache = Cache::new(settings, model);
    let cached = cache.find()?;
    if let Cached::Whole(dir) = cached {
        return Ok(dir);
    }
    let outcome = fetch(model, settings, &cache, progress);
    match (outcome, cached) {
        // Enough for some models, and the loader names what is missing for others.
        (Err(error), Cached::Loadable(dir)) if error.is_unreachable() => Ok(dir),
        (outcome, _) => outcome,
    }
}

fn fetch(
    model: &ModelName,
    settings: &Settings,
    cache: &Cache,
    progress: &mut dyn FnMut(Event<'_>),
) -> Result<PathBuf, HubError> {
    if settings.offline {
        return Err(HubError::Offline { model: model.clone(), cache: settings.cache.clone() });
    }
    #[cfg(feature = "download")]
    return download::fetch(model, settings, cache, progress);
    #[cfg(not(feature = "download"))]
    {
        let _ = (cache, progress);
        Err(HubError::NoDownloads { model: model.clone(), cache: settings.cache.clone() })
    }
}
