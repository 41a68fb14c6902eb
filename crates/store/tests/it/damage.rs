//! Bits that flip and files that vanish: refused or reported, never a silent wrong answer.

use std::path::PathBuf;

use diptych_store::{Store, StoreError, StoreOptions};

use crate::*;

const TABLED: u32 = 60;
const LOGGED: u32 = 30;

/// A directory with records in tables and records in the log, as a killed process leaves it.
fn image(at: &Path) -> PathBuf {
    let (live, image) = (at.join("live"), at.join("image"));
    let write = |store: &Store, range: std::ops::Range<u32>| {
        let id = collection(store).id;
        for i in range {
            store.write(id, vec![content(1).upsert(&format!("k{i}"))]).unwrap();
        }
    };
    // Closing moves everything into tables.
    write(&open(&live), 0..TABLED);
    let store = open(&live);
    write(&store, TABLED..TABLED + LOGGED);
    copy_dir(&live, &image);
    image
}

/// What came of reading a damaged directory.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Refused,
    Reported,
    Unharmed,
}

/// Opens and reads everything. Panics when something is wrong or missing without an error.
fn read_all(dir: &Path, what: &str) -> Fate {
    let store = match Store::open(dir, &StoreOptions::default()) {
        Ok(store) => store,
        Err(StoreError::Corrupt { .. } | StoreError::Version { .. }) => return Fate::Refused,
        Err(e) => panic!("{what}: {e}"),
    };
    let mut reported = false;
    let found = store.collections();
    assert_eq!(found.len(), 1, "{what}");
    for i in 0..TABLED + LOGGED {
        let name = format!("k{i}");
        match store.get(1, &key(&name)) {
            Ok(stored) => {
                let stored = stored.unwrap_or_else(|| panic!("{what}: '{name}' is silently missing"));
                assert_eq!(stored.record, content(1).record(&name), "{what}");
            }
            Err(e) => {
                assert!(matches!(e, StoreError::Corrupt { .. }), "{what}: {e}");
                reported = true;
            }
        }
        match store.record_vectors(1, &key(&name)) {
            Ok(vectors) => {
                for vector in vectors.unwrap() {
                    assert_eq!(vector.embedding, content(1).vector(&name, vector.part), "{what}");
                }
            }
            Err(e) => {
                assert!(matches!(e, StoreError::Corrupt { .. }), "{what}: {e}");
                reported = true;
            }
        }
    }
    reported |= !store.check().is_clean();
    if reported { Fate::Reported } else { Fate::Unharmed }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for dir in [dir.to_owned(), dir.join("rocksdb")] {
        found.extend(std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_file()));
    }
    found.sort();
    found
}

#[test]
fn flipped_bits_are_never_silent() {
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path());
    assert_eq!(read_all(&copied(&image, dir.path(), "whole"), "undamaged"), Fate::Unharmed);
    let (mut refused, mut tried) = (0, 0);
    let mut state = 1u64;
    for file in files(&image) {
        let bytes = std::fs::read(&file).unwrap();
        let name = file.strip_prefix(&image).unwrap();
        let text = name.display().to_string();
        let flips = if text.ends_with(".log") { 40 } else { 10 };
        for _ in 0..flips.min(bytes.len()) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (state >> 33) as usize % bytes.len();
            let bit = (state >> 20) % 8;
            let damaged = copied(&image, dir.path(), "damaged");
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            std::fs::write(damaged.join(name), flipped).unwrap();
            let fate = read_all(&damaged, &format!("{text}, byte {at} of {}, bit {bit}", bytes.len()));
            tried += 1;
            if fate != Fate::Unharmed {
                refused += 1;
            } else if text.ends_with(".log") || text.contains("FORMAT") {
                panic!("{text}, byte {at}, bit {bit}: the flip was not noticed");
            }
        }
    }
    eprintln!("{tried} flips, {refused} refused or reported, the rest changed nothing that is read");
    assert!(refused >= 80, "{refused} of {tried}");
}

#[test]
fn the_end_of_the_log_is_guarded_as_well_as_its_middle() {
    // A flip in the length of the last record makes the log look torn, as if by a crash.
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path());
    let log = files(&image).into_iter().rfind(|path| path.extension().is_some_and(|e| e == "log")).unwrap();
    let bytes = std::fs::read(&log).unwrap();
    let name = log.strip_prefix(&image).unwrap();
    for back in (1..400).step_by(9) {
        let at = bytes.len() - back;
        let damaged = copied(&image, dir.path(), "damaged");
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x80;
        std::fs::write(damaged.join(name), flipped).unwrap();
        assert_eq!(read_all(&damaged, &format!("{back} bytes before the end")), Fate::Refused);
    }
}

#[test]
fn vanished_files_are_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path());
    let mut needed = 0;
    for file in files(&image) {
        let name = file.strip_prefix(&image).unwrap();
        let text = name.display().to_string();
        let damaged = copied(&image, dir.path(), "damaged");
        std::fs::remove_file(damaged.join(name)).unwrap();
        let fate = read_all(&damaged, &format!("{text} removed"));
        let truth = text.ends_with(".sst") || text.contains("MANIFEST") || text.ends_with("CURRENT");
        let newest_log = text.ends_with(".log") && !std::fs::read(&file).unwrap().is_empty();
        if truth || newest_log {
            needed += 1;
            assert_ne!(fate, Fate::Unharmed, "{text} removed");
        }
    }
    assert!(needed >= 4, "tables, log, manifest and CURRENT were among them");
}

fn copied(image: &Path, at: &Path, name: &str) -> PathBuf {
    let to = at.join(name);
    let _ = std::fs::remove_dir_all(&to);
    copy_dir(image, &to);
    to
}
