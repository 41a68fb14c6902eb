//! What a source leaves out although no item is wrong: columns that no attribute can be, members of other kinds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts of what was left out, in words; filled while a source is read.
#[derive(Debug, Clone, Default)]
pub struct Notes(Arc<Mutex<BTreeMap<String, u64>>>);

impl Notes {
    /// What was left out so far, and how often.
    pub fn left_out(&self) -> Vec<(String, u64)> {
        let notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        notes.iter().map(|(what, times)| (what.clone(), *times)).collect()
    }

    /// Counts something; beyond some kinds, all others are one.
    pub(crate) fn count(&self, what: &str) {
        self.add(what, 1);
    }

    /// Counts several of something.
    pub(crate) fn add(&self, what: &str, times: u64) {
        if times == 0 {
            return;
        }
        const KINDS_MAX: usize = 64;
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = notes.len() < KINDS_MAX || notes.contains_key(what);
        *notes.entry(if known { what } else { "other kinds" }.to_owned()).or_default() += times;
    }
}
