//! The settings that the Hugging Face tools share, read from the environment.
//!
//! Owns: the variables, their order and their defaults. The environment comes in as a function, so
//! that nothing here depends on the process.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::HubError;

const ENDPOINT: &str = "https://huggingface.co";

/// Where models are kept and where they come from.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The cache of repositories.
    pub cache: PathBuf,
    /// The server, without a slash at its end.
    pub endpoint: String,
    /// Whether connections are forbidden.
    pub offline: bool,
    /// What proves who asks.
    pub token: Option<Token>,
}

/// A secret; it is not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Wraps a secret. Spaces and line ends around it do not count.
    pub fn new(secret: &str) -> Option<Self> {
        let secret = secret.trim();
        // It becomes a header.
        let fit = !secret.is_empty() && secret.bytes().all(|b| b.is_ascii_graphic());
        fit.then(|| Self(secret.to_owned()))
    }

    #[cfg(feature = "download")]
    pub(crate) fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token(..{} characters..)", self.0.len())
    }
}

impl Settings {
    /// The settings of this process.
    ///
    /// # Errors
    /// [`HubError::Setting`] when no variable says where the cache is.
    pub fn from_env() -> Result<Self, HubError> {
        Self::from_vars(|name| std::env::var_os(name))
    }

    /// The settings of an environment, given as a function from a variable to its value.
    ///
    /// `HF_HUB_CACHE`, else `HF_HOME`/hub, else `XDG_CACHE_HOME`/huggingface/hub, else
    /// ~/.cache/huggingface/hub; `HF_ENDPOINT`; `HF_HUB_OFFLINE` or `TRANSFORMERS_OFFLINE`;
    /// `HF_TOKEN`, else the file `HF_TOKEN_PATH`, else `HF_HOME`/token. An empty variable is unset.
    ///
    /// # Errors
    /// [`HubError::Setting`] when no variable says where the cache is, or one has no possible value.
    pub fn from_vars(var: impl Fn(&str) -> Option<OsString>) -> Result<Self, HubError> {
        let var = |name: &str| var(name).filter(|value| !value.is_empty());
        let text = |name: &str| match var(name).map(OsString::into_string) {
            Some(Err(_)) => Err(setting(name, "is not UTF-8")),
            Some(Ok(value)) => Ok(Some(value)),
            None => Ok(None),
        };
        let user = var("HOME").or_else(|| var("USERPROFILE")).map(PathBuf::from);
        let path = |name: &str| var(name).map(|value| expand(Path::new(&value), user.as_deref()));
        let home = path("HF_HOME").or_else(|| {
            let caches = path("XDG_CACHE_HOME").or_else(|| Some(user.as_ref()?.join(".cache")))?;
            Some(caches.join("huggingface"))
        });
        let cache = path("HF_HUB_CACHE")
            .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| Some(home.as_ref()?.join("hub")))
            .ok_or_else(|| setting("HF_HUB_CACHE", "is not set, and neither are HF_HOME and HOME"))?;
        let endpoint = text("HF_ENDPOINT")?.unwrap_or_else(|| ENDPOINT.to_owned());
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
            return Err(setting("HF_ENDPOINT", "does not start with https://"));
        }
        let offline = text("HF_HUB_OFFLINE")?.or(text("TRANSFORMERS_OFFLINE")?);
        let token = match text("HF_TOKEN")?.or(text("HUGGING_FACE_HUB_TOKEN")?) {
            Some(secret) => Some(
                Token::new(&secret).ok_or_else(|| setting("HF_TOKEN", "holds characters no token has"))?,
            ),
            None if is_true(text("HF_HUB_DISABLE_IMPLICIT_TOKEN")?) => None,
            None => {
                let file = path("HF_TOKEN_PATH").or_else(|| Some(home.as_ref()?.join("token")));
                file.and_then(|file| std::fs::read_to_string(file).ok()).and_then(|text| Token::new(&text))
            }
        };
        Ok(Self {
            cache,
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            offline: is_true(offline),
            token,
        })
    }
}

fn setting(name: &str, reason: &str) -> HubError {
    HubError::Setting { name: name.to_owned(), reason: reason.to_owned() }
}

/// What the Python tools take for true.
fn is_true(value: Option<String>) -> bool {
    value.is_some_and(|value| matches!(value.to_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE"))
}

fn expand(path: &Path, user: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), user) {
        (Ok(rest), Some(user)) => user.join(rest),
        _ => path.to_owned(),
    }
}
