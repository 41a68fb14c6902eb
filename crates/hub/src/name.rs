//! Names of models on the hub.
//!
//! Owns: [`ModelName`] and its checks, so that no part of a name can leave the cache or a URL.

use std::fmt;
use std::str::FromStr;

use crate::HubError;

/// A repository and a revision of it: `owner/name`, or `owner/name@revision`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelName {
    owner: String,
    name: String,
    revision: String,
}

impl ModelName {
    /// What precedes a name where a directory could stand too.
    pub const PREFIX: &'static str = "hf:";
    /// The revision of a name that has none.
    pub const DEFAULT_REVISION: &'static str = "main";

    /// `owner/name`
    pub fn repository(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    /// A branch, a tag or a commit.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The folder of the repository within a cache.
    pub(crate) fn folder(&self) -> String {
        format!("models--{}--{}", self.owner, self.name)
    }

    /// The command that fills the cache.
    pub(crate) fn command(&self) -> String {
        format!("hf download {} --revision {}", self.repository(), self.revision)
    }
}

impl FromStr for ModelName {
    type Err = HubError;

    /// Parses `hf:owner/name[@revision]`; the prefix may be absent.
    fn from_str(text: &str) -> Result<Self, HubError> {
        let wrong = |reason: &str| HubError::Name { text: text.to_owned(), reason: reason.to_owned() };
        let rest = text.strip_prefix(Self::PREFIX).unwrap_or(text);
        let (repository, revision) = rest.split_once('@').unwrap_or((rest, Self::DEFAULT_REVISION));
        let Some((owner, name)) = repository.split_once('/') else {
            return Err(wrong("the owner is missing"));
        };
        for part in [owner, name] {
            if !is_plain(part) || part.contains("--") {
                return Err(wrong(
                    "owner and name are letters, digits, '-', '_' and '.', without '--' or '..', and start with a letter, digit or '_'",
                ));
            }
        }
        if revision.len() > 200 || !revision.split('/').all(is_plain) {
            return Err(wrong("the revision is no branch, tag or commit"));
        }
        Ok(Self { owner: owner.to_owned(), name: name.to_owned(), revision: revision.to_owned() })
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hf:{}/{}@{}", self.owner, self.name, self.revision)
    }
}

/// A name that is one path component, and no special one.
pub(crate) fn is_plain(name: &str) -> bool {
    let first = name.chars().next();
    first.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_')
        && name.len() <= 128
        && !name.contains("..")
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}
