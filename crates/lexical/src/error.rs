//! Why words cannot be searched. One variant per thing a caller can do about it.

use std::path::PathBuf;

use crate::query::WORDS_MAX;

/// What can go wrong in a search by words, or in keeping its index.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LexicalError {
    /// Nothing that could be looked for.
    #[error("the words to search by hold no letter and no digit; give at least one word")]
    NoWords,
    /// Nothing to look for.
    #[error("every word to search by is excluded with '-'; give at least one to look for")]
    OnlyExcluded,
    /// More than the bound.
    #[error("{found} different words and phrases to search by are more than {WORDS_MAX}; give fewer")]
    TooManyWords {
        /// So many.
        found: usize,
    },
    /// Files that are not what was written, or were written by another version. The store can build the
    /// index again.
    #[error("the word index in {} is of no use: {reason}; build it again", dir.display())]
    Damaged {
        /// Where the files are.
        dir: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A failure to read or to write.
    #[error("the word index fails to {what}: {reason}; see to the disk and repeat the request")]
    Failed {
        /// What it was to do.
        what: &'static str,
        /// Why it cannot.
        reason: String,
    },
}

impl LexicalError {
    /// A failure that `what` was to do.
    pub(crate) fn failed(what: &'static str) -> impl Fn(tantivy::TantivyError) -> Self {
        move |error| Self::Failed { what, reason: error.to_string() }
    }

    /// Whether the question is to blame, and not the index.
    pub fn is_of_query(&self) -> bool {
        match self {
            Self::NoWords | Self::OnlyExcluded | Self::TooManyWords { .. } => true,
            Self::Damaged { .. } | Self::Failed { .. } => false,
        }
    }
}
