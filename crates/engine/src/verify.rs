//! Does the store hold together, and does an index built from it answer for exactly its records?

use std::collections::HashSet;

use diptych_core::{Modality, PointId};
use diptych_lexical::LexicalIndex;
use diptych_store::{Collection, Store};

use crate::lexical::words_dir;
use crate::shelf::{INDEX_DIR, Shelf};
use crate::{EngineError, IndexKind};

/// Cosine below which a point does not count as its own nearest neighbour.
const SELF_COSINE_MIN: f32 = 1.0 - 1e-4;

/// What a verification looked at and found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Collections checked.
    pub collections: usize,
    /// Records checked.
    pub records: u64,
    /// Vectors checked.
    pub points: u64,
    /// What is wrong, in words; empty when everything agrees.
    pub problems: Vec<String>,
}

/// Checks a store and the indexes that are built from it: every record's parts have their vectors,
/// no vector is without its record, the index holds exactly the store's points, and every point
/// finds itself.
///
/// # Errors
/// When the store cannot be read at all; everything else is in the report.
pub fn verify(store: &Store) -> Result<VerifyReport, EngineError> {
    let check = store.check();
    let mut report = VerifyReport {
        records: check.found.records,
        points: check.found.image_points + check.found.text_points,
        problems: check.problems,
        ..VerifyReport::default()
    };
    for collection in store.collections() {
        report.collections += 1;
        for modality in Modality::ALL {
            verify_index(store, &collection, modality, &mut report.problems)?;
        }
        verify_words(store, &collection, &mut report.problems);
    }
    Ok(report)
}

/// Checks the files of the index of words, if there are any. What the store has since is caught up with by
/// the first search by words.
fn verify_words(store: &Store, collection: &Collection, problems: &mut Vec<String>) {
    if let Err(error) = LexicalIndex::open(&words_dir(&store.root().join(INDEX_DIR), collection.id)) {
        problems.push(format!("collection '{}': {error} with a search by words", collection.name));
    }
}

fn verify_index(
    store: &Store,
    collection: &Collection,
    modality: Modality,
    problems: &mut Vec<String>,
) -> Result<(), EngineError> {
    let place = format!("collection '{}', {modality} index", collection.name);
    let shelf = Shelf::new(collection.clone(), IndexKind::Graph, Some(store.root().join(INDEX_DIR)));
    let opened = match shelf.check(modality) {
        Ok(()) => shelf.open(store, modality).map(|(index, _)| index),
        Err(error) => {
            problems.push(format!("{place}: {error}; it has been built again"));
            shelf.build_again(store, modality)
        }
    };
    let index = match opened {
        Ok(index) => index,
        Err(error) => {
            problems.push(format!("{place}: it cannot be built: {error}"));
            return Ok(());
        }
    };
    let indexed: HashSet<PointId> = index.ids().into_iter().collect();
    let mut stored = 0usize;
    for point in store.scan_vectors(collection.id, modality)? {
        let (id, embedding) = point?;
        stored += 1;
        if !indexed.contains(&id) {
            problems.push(format!("{place}: point {} is stored but not indexed", id.0));
            continue;
        }
        let first = index.nearest(&embedding, 1, None)?;
        if first.first().is_none_or(|n| n.score < SELF_COSINE_MIN) {
            problems.push(format!("{place}: point {} does not find itself", id.0));
        }
    }
    if stored != indexed.len() {
        problems.push(format!("{place}: {} points are indexed, {stored} are stored", indexed.len()));
    }
    Ok(())
}
