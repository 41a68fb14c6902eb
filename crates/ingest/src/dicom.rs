//! DICOM trees.
//!
//! Owns: saying that such a tree is not read by this build.

use std::path::Path;

use diptych_core::Chunking;

use crate::item::ItemResult;

/// The studies of a tree: none.
pub(crate) type Studies = std::iter::Empty<ItemResult>;

pub(crate) struct Tree;

impl Tree {
    /// Refuses the tree. The error is the reason in words.
    pub(crate) fn open(_root: &Path, _chunking: Option<Chunking>) -> Result<Studies, String> {
        Err("it is a DICOM tree, which this build does not read; convert it to images with a list of them"
            .to_owned())
    }
}

pub(crate) fn describe() -> Vec<(String, String)> {
    Vec::new()
}
