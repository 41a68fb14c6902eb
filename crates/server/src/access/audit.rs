//! The audit log: who had access to what, one JSON object per line.
//!
//! Never what is in a request or an answer, and never a key: only names that an administrator gave,
//! counts and codes. A line is appended by one call to the system, and before the answer leaves.
//! It is not synced: it outlives the process at once, and the machine after its next write-back.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use serde::Serialize;
use tonic::Status;

use super::clock;
use super::limits::TokenBucket;
use super::watch::INTERVAL;

/// Lines in a second about those who show no key, and how many at once: they must not be able to
/// fill the disk.
const STRANGERS: (f64, f64) = (10.0, 100.0);

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Event {
    /// A stream was opened.
    Begin,
    /// A request was answered.
    End,
    /// The log can be written again, after it could not.
    Resume,
}

/// What a line says.
#[derive(Debug, Serialize)]
pub(super) struct Line<'a> {
    pub(super) event: Event,
    pub(super) request_id: &'a str,
    pub(super) key: Option<&'a str>,
    pub(super) key_id: Option<&'a str>,
    pub(super) peer: Option<&'a str>,
    pub(super) method: &'a str,
    pub(super) collections: &'a BTreeSet<String>,
    pub(super) records: u64,
    pub(super) code: Option<&'static str>,
    pub(super) micros: u64,
}

#[derive(Serialize)]
struct Dated<T> {
    time: String,
    #[serde(flatten)]
    line: T,
    #[serde(skip_serializing_if = "Option::is_none")]
    unlisted: Option<u64>,
}

#[derive(Serialize)]
struct Resumed {
    event: Event,
}

pub(super) struct Audit {
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    file: Option<File>,
    /// When it was last made sure that the file is still the one of that name.
    looked: Instant,
    /// The last write failed.
    failed: bool,
    /// The last write has left half a line.
    torn: bool,
    strangers: TokenBucket,
    /// Refused requests of strangers that have no line.
    unlisted: u64,
}

impl Audit {
    /// Opens the log, which is made when there is none.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let now = Instant::now();
        let strangers = TokenBucket::new(STRANGERS.0, STRANGERS.1, now);
        let mut state = State { file: None, looked: now, failed: false, torn: false, strangers, unlisted: 0 };
        let file = open_file(&path, &mut state.file).map(|_| ());
        file.map(|()| Self { path, state: Mutex::new(state) })
    }

    /// Whether a line can be written, as far as that is known before it is.
    pub(super) fn ready(&self, now: Instant) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.follow(&mut state, now);
        if !state.failed {
            return Ok(());
        }
        // Whether it can be written is known by writing.
        self.append(&mut state, Resumed { event: Event::Resume }, None)
    }

    pub(super) fn write(&self, line: &Line<'_>) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.append(&mut state, line, None)
    }

    /// As [`Audit::write`], of somebody who showed no key: past a bound they are only counted.
    pub(super) fn write_stranger(&self, line: &Line<'_>, now: Instant) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.strangers.take(now).is_err() {
            state.unlisted += 1;
            return Ok(());
        }
        let unlisted = Some(state.unlisted).filter(|n| *n > 0);
        self.append(&mut state, line, unlisted)?;
        state.unlisted = 0;
        Ok(())
    }

    /// Lets go of a file that has been moved away or removed, as rotation does.
    fn follow(&self, state: &mut State, now: Instant) {
        if now.saturating_duration_since(state.looked) < INTERVAL {
            return;
        }
        state.looked = now;
        let Some(file) = &state.file else { return };
        let identity = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
        let named = std::fs::metadata(&self.path).ok().map(identity);
        if named.is_none() || file.metadata().ok().map(identity) != named {
            state.file = None;
            state.torn = false;
        }
    }

    fn append<T: Serialize>(&self, state: &mut State, line: T, unlisted: Option<u64>) -> io::Result<()> {
        let line = Dated { time: clock::to_text(SystemTime::now()), line, unlisted };
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        if state.torn {
            text.insert(0, b'\n');
        }
        // One call, so that lines of several processes do not mix.
        let written = open_file(&self.path, &mut state.file).and_then(|file| file.write(&text));
        let error = match written {
            Ok(bytes) if bytes == text.len() => {
                (state.failed, state.torn) = (false, false);
                return Ok(());
            }
            Ok(bytes) => {
                state.torn |= bytes > 0;
                io::Error::new(io::ErrorKind::WriteZero, "only a part of the line could be written")
            }
            Err(error) => error,
        };
        (state.file, state.failed) = (None, true);
        tracing::error!(path = %self.path.display(), %error, "the audit log cannot be written; requests are refused until it can");
        Err(error)
    }
}

fn open_file<'a>(path: &Path, slot: &'a mut Option<File>) -> io::Result<&'a mut File> {
    let file = match slot.take() {
        Some(file) => file,
        None => OpenOptions::new().append(true).create(true).mode(0o600).open(path)?,
    };
    Ok(slot.insert(file))
}

/// What a client is told while there is no audit log.
pub(super) fn unavailable() -> Status {
    Status::unavailable(
        "access is refused because it cannot be recorded: the audit log cannot be written; the server's own log says why. Retry later",
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use tonic::Code;

    use super::*;
    use crate::status::name_of;

    fn line(collections: &BTreeSet<String>) -> Line<'_> {
        Line {
            event: Event::End,
            request_id: "r1",
            key: Some("reader"),
            key_id: Some("0123456789ab"),
            peer: Some("10.0.0.7:5000"),
            method: "/diptych.v1.RetrievalService/Search",
            collections,
            records: 3,
            code: Some(name_of(Code::Ok)),
            micros: 42,
        }
    }

    fn lines(text: &str) -> Vec<serde_json::Value> {
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_line_is_one_json_object_and_the_file_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let audit = Audit::open(path.clone()).unwrap();
        audit.write(&line(&BTreeSet::from(["cases".to_owned()]))).unwrap();
        let written = lines(&std::fs::read_to_string(&path).unwrap());
        assert_eq!(written.len(), 1);
        let line = &written[0];
        assert_eq!((line["event"].as_str(), line["key"].as_str()), (Some("end"), Some("reader")));
        assert_eq!(line["collections"], serde_json::json!(["cases"]));
        assert_eq!((line["records"].as_u64(), line["micros"].as_u64()), (Some(3), Some(42)));
        assert_eq!(line["code"], "OK");
        assert!(clock::from_text(line["time"].as_str().unwrap()).is_some());
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_log_that_was_moved_away_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("audit.jsonl"), dir.path().join("audit.jsonl.1"));
        let audit = Audit::open(path.clone()).unwrap();
        audit.write(&line(&BTreeSet::new())).unwrap();
        std::fs::rename(&path, &moved).unwrap();
        audit.ready(Instant::now() + 2 * INTERVAL).unwrap();
        audit.write(&line(&BTreeSet::new())).unwrap();
        assert_eq!(lines(&std::fs::read_to_string(&moved).unwrap()).len(), 1);
        assert_eq!(lines(&std::fs::read_to_string(&path).unwrap()).len(), 1);
    }

    #[test]
    fn what_cannot_be_written_is_told_and_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("logs");
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join("audit.jsonl");
        let audit = Audit::open(path.clone()).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        let now = Instant::now();
        assert!(audit.ready(now + 2 * INTERVAL).is_ok(), "nothing was written since");
        assert!(audit.write(&line(&BTreeSet::new())).is_err());
        assert!(audit.ready(now + 2 * INTERVAL).is_err());
        std::fs::create_dir(&folder).unwrap();
        audit.ready(now + 2 * INTERVAL).unwrap();
        audit.write(&line(&BTreeSet::new())).unwrap();
        let written = lines(&std::fs::read_to_string(&path).unwrap());
        assert_eq!((written.len(), written[0]["event"].as_str()), (2, Some("resume")));
        assert!(Audit::open(dir.path().join("no such folder/audit.jsonl")).is_err());
    }

    #[test]
    fn strangers_are_counted_when_they_are_too_many() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let audit = Audit::open(path.clone()).unwrap();
        let (none, now) = (BTreeSet::new(), Instant::now());
        for _ in 0..150 {
            audit.write_stranger(&line(&none), now).unwrap();
        }
        assert_eq!(lines(&std::fs::read_to_string(&path).unwrap()).len(), 100);
        audit.write_stranger(&line(&none), now + Duration::from_secs(1)).unwrap();
        let written = lines(&std::fs::read_to_string(&path).unwrap());
        assert_eq!(written.last().unwrap()["unlisted"], 50);
    }
}
