//! What a run says beside its counts: the list of what could not be ingested, and what the source told.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use diptych_engine::Failure;
use diptych_ingest::Source;
use serde_json::json;

use crate::output;

/// The list of what failed, as JSON lines; the file is made with its first entry.
pub struct FailureReport {
    path: PathBuf,
    file: Option<BufWriter<File>>,
    entries: u64,
    error: Option<std::io::Error>,
}

impl FailureReport {
    /// A report that is not written yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path, file: None, entries: 0, error: None }
    }

    /// Adds an entry; a failure to write is kept for [`Self::finish`], so that it does not end a run.
    pub fn add(&mut self, failure: &Failure) {
        self.entries += 1;
        if let Err(error) = self.write(failure) {
            self.error.get_or_insert(error);
        }
    }

    fn write(&mut self, failure: &Failure) -> std::io::Result<()> {
        if self.file.is_none() {
            self.file = Some(BufWriter::new(File::create(&self.path)?));
        }
        let line = json!({"origin": failure.origin, "reason": failure.reason});
        self.file.as_mut().map_or(Ok(()), |file| writeln!(file, "{line}"))
    }

    /// Completes the file; returns how many entries it has.
    pub fn finish(mut self) -> Result<u64> {
        let flushed = self.file.as_mut().map_or(Ok(()), BufWriter::flush);
        match self.error.map_or(flushed, Err) {
            Ok(()) => Ok(self.entries),
            Err(error) => Err(error).with_context(|| {
                format!("{} items failed, but they cannot be listed in {}", self.entries, self.path.display())
            }),
        }
    }
}

/// Prints what a source told while it was read: what to look at, what was removed, and what was left out, by this word.
pub fn tell_notes(source: &Source, left_out: &str) -> Result<()> {
    let notes = source.notes();
    for (what, times) in notes.told() {
        output::line(&format!("look at: {} {what}", output::grouped(times)))?;
    }
    for (place, kinds) in notes.removed() {
        output::line(&format!("identifying, removed from {place}: {kinds}"))?;
    }
    for (what, times) in notes.left_out() {
        output::line(&format!("{left_out}: {} {what}", output::grouped(times)))?;
    }
    Ok(())
}
