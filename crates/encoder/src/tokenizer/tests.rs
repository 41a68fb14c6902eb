//! Ids against the reference libraries, from every spelling of the published files.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use super::*;

mod golden;
mod odd;

/// Rules for a tower with room for everything, to be changed by the test.
fn rules(kind: Kind) -> TextRules<'static> {
    TextRules {
        context_length: Some(32),
        vocab_size: 1_000_000,
        padding: Padding::None,
        cleaning: Cleaning::None,
        default_kind: kind,
        tokenizer_kwargs: None,
    }
}

/// A shared fixture, or `None` with a loud note when this machine has none.
fn shared(path: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared").join(path);
    if path.exists() {
        return Some(path);
    }
    eprintln!("SKIPPED: {} is absent", path.display());
    None
}

/// A directory with the given files.
fn dir(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}
