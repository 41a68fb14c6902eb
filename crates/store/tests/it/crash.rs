//! Death at any moment: what was acknowledged is there, and all of it agrees.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use diptych_store::{Outcome, Store, StoreError, StoreOptions};

use crate::*;

/// Tells the child which directory to write to, and under which names.
const CHILD_DIR: &str = "DIPTYCH_STORE_TEST_DIR";
const CHILD_ROUND: &str = "DIPTYCH_STORE_TEST_ROUND";

/// Not a test of its own: the process that `killed_writers_lose_nothing` kills. Writes without end
/// from four threads, replacing and deleting now and then, and prints what was acknowledged.
#[test]
#[ignore = "runs only as the child of killed_writers_lose_nothing"]
fn child_writes_until_killed() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let round = std::env::var(CHILD_ROUND).unwrap();
    let store = open(&PathBuf::from(dir));
    let id = collection(&store).id;
    let say = |what: &str, name: &str| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "\n{what} {name}").unwrap();
        out.flush().unwrap();
    };
    std::thread::scope(|scope| {
        for t in 0..4 {
            let (store, say, round) = (&store, &say, &round);
            scope.spawn(move || {
                for i in 0.. {
                    let name = format!("{round}/{t}/{i}");
                    store.write(id, vec![content(1).upsert(&name)]).unwrap();
                    say("v1", &name);
                    if i % 3 == 1 {
                        store.write(id, vec![content(2).upsert(&name)]).unwrap();
                        say("v2", &name);
                    }
                    if i % 5 == 4 {
                        let applied = store.write(id, vec![delete(&name)]).unwrap();
                        assert_eq!(applied[0].outcome, Outcome::Deleted);
                        say("gone", &name);
                    }
                }
            });
        }
    });
}

/// Runs the child, kills it after `acks` acknowledgements, and returns all that it acknowledged, by
/// name: the last version, or 0 when deleted.
fn write_and_kill(dir: &Path, round: u32, acks: usize) -> BTreeMap<String, u8> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child_writes_until_killed", "--ignored", "--nocapture"])
        .env(CHILD_DIR, dir)
        .env(CHILD_ROUND, round.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut acknowledged = BTreeMap::new();
    let (mut count, mut line) = (0, String::new());
    // After the kill the pipe still holds what was printed before it. A line without its end is no
    // acknowledgement yet.
    while out.read_line(&mut line).unwrap() > 0 && line.ends_with('\n') {
        let version = match line.split_once(' ') {
            Some(("v1", _)) => Some(1),
            Some(("v2", _)) => Some(2),
            Some(("gone", _)) => Some(0),
            _ => None,
        };
        if let (Some(version), Some((_, name))) = (version, line.trim_end().split_once(' ')) {
            acknowledged.insert(name.to_owned(), version);
            count += 1;
            if count == acks {
                child.kill().unwrap();
            }
        }
        line.clear();
    }
    assert!(!child.wait().unwrap().success(), "the child was killed");
    assert!(count >= acks, "the child ended after {count} acknowledgements");
    acknowledged
}

#[test]
fn killed_writers_lose_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut all = BTreeMap::new();
    for (round, acks) in [1, 40, 150, 3, 300].into_iter().enumerate() {
        all.extend(write_and_kill(dir.path(), round as u32, acks));
        let store = open(dir.path());
        let id = collection(&store).id;
        for (name, &version) in &all {
            let found = store.get(id, &key(name)).unwrap().map(|stored| stored.digest);
            // The change after the last acknowledged one may have happened as well.
            let v = |version: u8| Some(content(version).digest());
            let fine = match version {
                0 => found.is_none(),
                1 => found == v(1) || found == v(2) || found.is_none(),
                _ => found == v(2) || found.is_none(),
            };
            assert!(fine, "'{name}' was acknowledged in version {version}, found {found:?}");
            let (_, i) = name.rsplit_once('/').unwrap();
            if found.is_none() {
                assert_eq!(i.parse::<u32>().unwrap() % 5, 4, "'{name}' was never deleted");
            }
        }
        assert_clean(&store);
    }
}

/// The newest log of a directory.
fn newest_log(dir: &Path) -> PathBuf {
    let logs = std::fs::read_dir(dir.join("rocksdb")).unwrap().map(|entry| entry.unwrap().path());
    logs.filter(|path| path.extension().is_some_and(|e| e == "log")).max().unwrap()
}

/// Directories as they were after ten acknowledged writes and after an eleventh.
fn ten_and_eleven(at: &Path) -> (PathBuf, PathBuf) {
    let (live, ten, eleven) = (at.join("live"), at.join("ten"), at.join("eleven"));
    let store = open(&live);
    let id = collection(&store).id;
    for i in 0..10 {
        store.write(id, vec![content(1).upsert(&format!("k{i}"))]).unwrap();
    }
    copy_dir(&live, &ten);
    store.write(id, vec![content(1).upsert("k10")]).unwrap();
    copy_dir(&live, &eleven);
    (ten, eleven)
}

#[test]
fn a_write_torn_by_the_crash_disappears_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (ten, eleven) = ten_and_eleven(dir.path());
    let log = newest_log(&ten);
    let before = std::fs::read(&log).unwrap();
    let after = std::fs::read(newest_log(&eleven)).unwrap();
    assert_eq!(after[..before.len()], before, "the log only grows");
    let step = ((after.len() - before.len()) / 12).max(1);
    for end in (before.len()..=after.len()).step_by(step) {
        let torn = dir.path().join(format!("torn-{end}"));
        copy_dir(&ten, &torn);
        std::fs::write(newest_log(&torn), &after[..end]).unwrap();
        let store = open(&torn);
        let id = collection(&store).id;
        for i in 0..10 {
            assert_stored(&store, id, &format!("k{i}"), content(1));
        }
        let whole = end == after.len();
        assert_eq!(store.get(id, &key("k10")).unwrap().is_some(), whole, "cut at {end}");
        assert_clean(&store);
        let applied = store.write(id, vec![content(2).upsert("k10")]).unwrap();
        assert_eq!(applied[0].seq, Some(if whole { 12 } else { 11 }));
    }
}

/// The story: a log that lost its end after the write was acknowledged looks like one torn by a crash,
/// and RocksDB opens it without a word. The mark beside the database knows better.
#[test]
fn a_log_that_lost_acknowledged_writes_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (_, eleven) = ten_and_eleven(dir.path());
    let log = newest_log(&eleven);
    let whole = std::fs::read(&log).unwrap();
    std::fs::write(&log, &whole[..whole.len() - 3]).unwrap();
    for _ in 0..2 {
        let error = Store::open(&eleven, &StoreOptions::default()).map(|_| ()).unwrap_err();
        let StoreError::Corrupt { what } = &error else { panic!("{error}") };
        assert!(what.contains("was acknowledged"), "{what}");
        assert_eq!(std::fs::read(&log).unwrap(), whole[..whole.len() - 3], "the evidence is kept");
    }
    // Mended, it opens as if nothing had happened.
    std::fs::write(&log, &whole).unwrap();
    let store = open(&eleven);
    assert_stored(&store, collection(&store).id, "k10", content(1));
}

#[test]
fn accepting_a_loss_is_possible_and_deliberate() {
    let dir = tempfile::tempdir().unwrap();
    let (_, eleven) = ten_and_eleven(dir.path());
    let log = newest_log(&eleven);
    let whole = std::fs::read(&log).unwrap();
    std::fs::write(&log, &whole[..whole.len() - 3]).unwrap();
    assert!(Store::open(&eleven, &StoreOptions::default()).is_err());
    std::fs::remove_file(eleven.join("ACKNOWLEDGED")).unwrap();
    let store = open(&eleven);
    assert_eq!(store.stats(collection(&store).id).unwrap().records, 10);
    assert_clean(&store);
}
