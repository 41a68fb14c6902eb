//! Noticing that a file has changed, without reading it and at most once in an interval.
//!
//! Works by looking when somebody asks, so that there is no thread and no system of notices, which
//! network file systems and mounted secrets do not give.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often a file is looked at when it is asked for without pause.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);

/// What tells one state of a file from another: a write, a rename over it, a change of its mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let meta: Metadata = std::fs::metadata(path).ok()?;
        let changed = (meta.ctime(), meta.ctime_nsec());
        Some(Self { device: meta.dev(), inode: meta.ino(), size: meta.size(), changed })
    }
}

/// Some files that are read together.
#[derive(Debug)]
pub(super) struct Watch {
    files: Vec<PathBuf>,
    /// `None` when the files have to be read again whatever they look like.
    seen: Option<Vec<Option<Stamp>>>,
    looked: Instant,
}

impl Watch {
    /// To be made before the files are read, so that no change falls between the two.
    pub(super) fn new(files: Vec<PathBuf>, now: Instant) -> Self {
        let seen = Some(files.iter().map(|f| Stamp::of(f)).collect());
        Self { files, seen, looked: now }
    }

    /// Whether to read the files again. True at most once in [`INTERVAL`].
    pub(super) fn changed(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.looked) < INTERVAL {
            return false;
        }
        self.looked = now;
        let there = self.files.iter().map(|f| Stamp::of(f)).collect();
        let changed = self.seen.as_ref() != Some(&there);
        self.seen = Some(there);
        changed
    }

    /// What was read was of no use: the next look counts as a change.
    pub(super) fn distrust(&mut self) {
        self.seen = None;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_change_is_told_once_and_not_before_the_interval_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "one").unwrap();
        let start = Instant::now();
        let mut watch = Watch::new(vec![file.clone()], start);
        assert!(!watch.changed(start + INTERVAL), "nothing has changed");
        std::fs::write(&file, "other").unwrap();
        assert!(!watch.changed(start + INTERVAL), "too early to look");
        assert!(watch.changed(start + 2 * INTERVAL));
        assert!(!watch.changed(start + 3 * INTERVAL), "told already");
        watch.distrust();
        assert!(watch.changed(start + 4 * INTERVAL));
        std::fs::remove_file(&file).unwrap();
        assert!(watch.changed(start + 5 * INTERVAL), "gone is a change");
        assert!(!watch.changed(start + 6 * INTERVAL));
    }
}
