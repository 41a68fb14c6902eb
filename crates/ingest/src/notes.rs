//! What a source leaves out although no item is wrong: columns that no attribute can be, members of other kinds,
//! and what identifies patients.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts of what was left out, in words; filled while a source is read.
#[derive(Debug, Clone, Default)]
pub struct Notes(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    left_out: BTreeMap<String, u64>,
    /// What somebody should look at.
    told: BTreeMap<&'static str, u64>,
    /// By where it stood, by kind.
    identifying: BTreeMap<&'static str, BTreeMap<&'static str, u64>>,
}

impl Notes {
    /// What was left out so far, and how often.
    pub fn left_out(&self) -> Vec<(String, u64)> {
        self.counts().left_out.iter().map(|(what, times)| (what.clone(), *times)).collect()
    }

    /// What somebody should look at, and how often it was met.
    pub fn told(&self) -> Vec<(&'static str, u64)> {
        self.counts().told.iter().map(|(what, times)| (*what, *times)).collect()
    }

    /// What identifies patients and was removed so far: where it stood, and how much of each kind, in words.
    pub fn removed(&self) -> Vec<(&'static str, String)> {
        let kinds = |kinds: &BTreeMap<&'static str, u64>| {
            kinds.iter().map(|(kind, times)| format!("{kind} {times}")).collect::<Vec<_>>().join(", ")
        };
        self.counts().identifying.iter().map(|(place, of)| (*place, kinds(of))).collect()
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
        let notes = &mut self.counts().left_out;
        let known = notes.len() < KINDS_MAX || notes.contains_key(what);
        *notes.entry(if known { what } else { "other kinds" }.to_owned()).or_default() += times;
    }

    /// Counts something that somebody should look at.
    pub(crate) fn tell(&self, what: &'static str) {
        *self.counts().told.entry(what).or_default() += 1;
    }

    /// Counts what was removed because it identifies somebody.
    pub(crate) fn remove(&self, place: &'static str, kind: &'static str, times: u64) {
        *self.counts().identifying.entry(place).or_default().entry(kind).or_default() += times;
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
