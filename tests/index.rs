//! The files of the indexes, as an operator sees them: kept, caught up with, damaged, healed, looked after.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use diptych_proto::v1 as wire;
use serde_json::Value;

use crate::support::{Server, corpus, diptych, fail, hits, mini_model, run, succeed, succeed_with_notes};

const CASES: u32 = 120;
/// What everything in a file starts at a multiple of.
const PAGE: usize = 4096;

/// Files of all indexes whose name begins so.
fn files(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for index in fs::read_dir(dir.join("data/index")).unwrap() {
        for file in fs::read_dir(index.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            if path.file_name().unwrap().to_str().unwrap().starts_with(prefix) {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "there are no files {prefix}* in data/index");
    found
}

/// Flips one bit in a file, in the place of the old one: an open one keeps its pages.
fn damage(path: &Path, at: impl Fn(usize) -> usize) {
    let mut bytes = fs::read(path).unwrap();
    let place = at(bytes.len());
    bytes[place] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

fn place(model: &Path) -> [&str; 4] {
    ["--data", "data", "--model", model.to_str().unwrap()]
}

/// Keys and scores that a few searches of a server find.
fn answers(dir: &Path, url: &str) -> Vec<Vec<(String, f64, String)>> {
    let ask = |query: [&str; 2], target: &str| {
        let args = ["search", query[0], query[1], "--target", target, "--server", url, "--json"];
        hits(&succeed(dir, &args))
    };
    vec![
        ask(["--text", "Large left pleural effusion."], "image"),
        ask(["--key", "phantom-000003"], "image"),
        ask(["--key", "phantom-000007"], "text"),
    ]
}

#[test]
fn a_server_that_is_started_again_opens_its_files_and_builds_nothing() {
    let dir = corpus(CASES);
    let model = mini_model();
    let said = succeed(dir.path(), &[&["ingest", "phantoms"], &place(&model)[..]].concat());
    assert!(said.contains("diptych index"), "it says how the index gets to know: {said}");
    let server = Server::start(dir.path());
    let first = answers(dir.path(), &server.url);
    let log = server.stop_and_read_log();
    assert!(log.contains("built the image index of 'default': 120 points"), "{log}");

    let before = files(dir.path(), "points-");
    let server = Server::start(dir.path());
    assert_eq!(answers(dir.path(), &server.url), first);
    let said = succeed(dir.path(), &["stats", "--server", &server.url]);
    assert!(said.contains("  images: 120 points in 1 segment · "), "{said}");
    assert!(said.contains(" links per point, ") && said.contains("MiB of codes and links, "), "{said}");
    let said = succeed(dir.path(), &["stats", "--server", &server.url, "--json"]);
    let json: Value = serde_json::from_str(&said).unwrap();
    let index = &json["collections"][0]["indexes"][0];
    assert_eq!((&index["modality"], &index["segment_points"][0]), (&"image".into(), &120.into()));
    assert!(index["links"].as_u64().unwrap() >= 120 && index["hot_bytes"].as_u64().unwrap() > 0, "{said}");
    let log = server.stop_and_read_log();
    assert!(log.contains("opened the image index of 'default': 120 points"), "{log}");
    assert!(!log.contains("built") && !log.contains("building"), "{log}");
    assert_eq!(files(dir.path(), "points-"), before);
}

#[test]
fn files_that_are_damaged_or_missing_are_named_and_built_again_at_the_start() {
    let dir = corpus(CASES);
    let model = mini_model();
    succeed(dir.path(), &[&["ingest", "phantoms", "--index"], &place(&model)[..]].concat());
    let server = Server::start(dir.path());
    let sound = answers(dir.path(), &server.url);
    server.stop();
    // In the header, and in the last page; of the vectors, which come first, the next story tells.
    for prefix in ["links-", "points-", "manifest"] {
        for last in [false, true] {
            let path = files(dir.path(), prefix).remove(0);
            damage(&path, |len| if last { len - PAGE + 10 } else { 40 });
            let server = Server::start(dir.path());
            assert_eq!(answers(dir.path(), &server.url), sound, "{prefix}");
            let log = server.stop_and_read_log();
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(log.contains("WARN") && log.contains(name) && log.contains("damaged"), "{log}");
            assert!(log.contains("built the "), "{log}");
        }
    }
    let path = files(dir.path(), "points-").remove(0);
    fs::remove_file(&path).unwrap();
    let server = Server::start(dir.path());
    assert_eq!(answers(dir.path(), &server.url), sound);
    let log = server.stop_and_read_log();
    assert!(log.contains("it is missing"), "{log}");
}

#[test]
fn vectors_that_are_damaged_are_found_when_they_are_read_and_built_again_while_serving() {
    let dir = corpus(CASES);
    let model = mini_model();
    succeed(dir.path(), &[&["ingest", "phantoms", "--index"], &place(&model)[..]].concat());
    let server = Server::start(dir.path());
    let sound = answers(dir.path(), &server.url);
    server.stop();
    // Behind a page of header come 120 vectors of 128 components.
    for path in files(dir.path(), "points-") {
        for page in 1..=10 {
            damage(&path, |_| page * PAGE + 100);
        }
    }
    // It starts: these are checked when they are first read.
    let server = Server::start(dir.path());
    assert_eq!(answers(dir.path(), &server.url), sound);
    let log = server.stop_and_read_log();
    assert!(log.contains("opened the image index") && !log.contains("built the image index"), "{log}");
    let warning = log.lines().find(|line| line.contains("WARN")).unwrap();
    assert!(warning.contains("points-") && warning.contains("building it again"), "{log}");
    let said = succeed(dir.path(), &["index", "--data", "data", "--check"]);
    assert_eq!(said.matches("all files agree with their checksums").count(), 2, "{said}");
}

#[test]
fn index_builds_catches_up_checks_and_builds_again() {
    let dir = corpus(CASES);
    let model = mini_model();
    let index = |more: &[&str]| succeed(dir.path(), &[&["index", "--data", "data"], more].concat());
    succeed(dir.path(), &[&["ingest", "phantoms"], &place(&model)[..]].concat());
    let said = index(&[]);
    assert!(said.contains("default:\n  images: built in "), "{said}");
    assert!(said.contains("  texts: 120 points in 1 segment · "), "{said}");
    let said = index(&["--collection", "default"]);
    assert!(said.contains("images: opened in ") && !said.contains("built"), "{said}");

    fs::write(dir.path().join("more.jsonl"), r#"{"key": "more", "text": "One more."}"#).unwrap();
    let said = succeed(dir.path(), &[&["ingest", "more.jsonl", "--index"], &place(&model)[..]].concat());
    assert!(said.contains("texts: opened and caught up with 1 change in "), "{said}");
    assert!(said.contains("  texts: 121 points in 2 segments · "), "{said}");
    let said = index(&["--rebuild"]);
    assert!(said.contains("images: built in ") && said.contains("121 points in 1 segment"), "{said}");

    assert!(index(&["--check"]).contains("images: all files agree with their checksums"));
    damage(&files(dir.path(), "links-")[0], |len| len / 2);
    let output = run(dir.path(), &["index", "--data", "data", "--check"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("problem: the index file") && said.contains("links-"), "{said}");
    assert!(said.contains("built again in "), "{said}");
    assert!(index(&["--check"]).contains("images: all files agree with their checksums"));

    fs::write(dir.path().join("queries.txt"), "Cardiomegaly.\nPneumothorax.\n").unwrap();
    let model = model.to_str().unwrap();
    let said = index(&["--queries", "queries.txt", "--model", model]);
    assert!(said.contains("images: taught 2 queries in ") && !said.contains("texts: taught"), "{said}");
    let said = succeed(dir.path(), &["verify", "--data", "data"]);
    assert!(said.contains("agree"), "{said}");
}

#[test]
fn index_says_what_is_wrong_with_what_it_is_given() {
    let dir = corpus(2);
    let model = mini_model();
    succeed(dir.path(), &[&["ingest", "phantoms"], &place(&model)[..]].concat());
    for (name, bytes) in
        [("empty.txt", &b""[..]), ("blank.txt", b"one\n \ntwo\n"), ("latin.txt", b"one\nna\xefve\n")]
    {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    for (queries, says) in [
        ("nowhere.txt", "cannot read the texts in nowhere.txt"),
        ("empty.txt", "is empty; give one query per line"),
        ("blank.txt", "line 2 is empty"),
        ("latin.txt", "line 2 is not UTF-8"),
    ] {
        let said = fail(dir.path(), &[&["index", "--queries", queries], &place(&model)[..]].concat());
        assert!(said.contains(says), "{queries} said: {said}");
    }
    for (args, says) in [
        (vec!["index", "--data", "data", "--queries", "blank.txt"], "--model"),
        (vec!["index", "--data", "data", "--collection", "other"], "there are: default"),
        (vec!["index", "--data", "none"], "no store"),
    ] {
        let said = fail(dir.path(), &args);
        assert!(said.contains(says), "{args:?} said: {said}");
    }
    let server = Server::start(dir.path());
    let said = fail(dir.path(), &["index", "--data", "data"]);
    assert!(said.contains("in use"), "{said}");
    drop(server);
}

#[test]
fn one_search_uses_the_graph_in_the_files_and_scans_without_it() {
    let dir = corpus(CASES);
    let model = mini_model();
    let ask = |ef: &[&str]| {
        let args = ["search", "--key", "phantom-000003", "--target", "image", "--k", "1", "--json"];
        let (said, notes) = succeed_with_notes(dir.path(), &[&args, &place(&model)[..], ef].concat());
        let json: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(json["hits"][0]["key"], "phantom-000003");
        (json["stats"]["plan"].as_str().unwrap().to_owned(), notes)
    };
    succeed(dir.path(), &[&["ingest", "phantoms"], &place(&model)[..]].concat());
    assert_eq!(ask(&["--ef", "1"]).0, "scan");
    assert!(!dir.path().join("data/index").exists(), "a search leaves no files");
    succeed(dir.path(), &["index", "--data", "data"]);
    let before = files(dir.path(), "");
    assert_eq!(ask(&["--ef", "1"]).0, "walk");
    assert_eq!(ask(&[]).0, "scan", "so few points are scanned");

    // One picture in 120 is too much to catch up with for one question.
    fs::write(
        dir.path().join("more.jsonl"),
        r#"{"key": "more", "image": "phantoms/images/phantom-000003.png"}"#,
    )
    .unwrap();
    succeed(dir.path(), &[&["ingest", "more.jsonl"], &place(&model)[..]].concat());
    assert_eq!(ask(&["--ef", "1"]).0, "scan");
    assert_eq!(files(dir.path(), ""), before, "a search leaves the files as they are");
    damage(&files(dir.path(), "manifest")[0], |_| 40);
    let (plan, notes) = ask(&["--ef", "1"]);
    assert_eq!(plan, "scan");
    assert!(notes.contains("manifest is damaged") && notes.contains("scanning"), "{notes}");
}

#[tokio::test]
async fn what_was_ingested_before_a_kill_is_found_by_the_next_server() {
    let dir = corpus(CASES);
    let model = mini_model();
    succeed(dir.path(), &[&["ingest", "phantoms", "--index"], &place(&model)[..]].concat());
    let server = Server::start(dir.path());
    let mut client = server.client().await;
    let items = (0..40).map(|n| wire::IngestRequest {
        key: format!("late-{n:02}"),
        texts: vec![format!("A late finding, number {n}.")],
        ..Default::default()
    });
    let mut answers = client.ingest(tokio_stream::iter(items)).await.unwrap().into_inner();
    while let Some(answer) = answers.message().await.unwrap() {
        assert!(answer.error.is_none(), "{answer:?}");
    }
    let request = wire::DeleteRecordRequest { key: "phantom-000005".to_owned(), ..Default::default() };
    client.delete_record(request).await.unwrap();
    // Dropping kills it with SIGKILL, before its indexes were written down.
    drop(server);
    let server = Server::start(dir.path());
    let mut client = server.client().await;
    for n in 0..40 {
        let query = wire::search_request::Query::Text(format!("A late finding, number {n}."));
        let request = wire::SearchRequest {
            query: Some(query),
            target: wire::Modality::Text as i32,
            k: Some(200),
            ..Default::default()
        };
        let hits = client.search(request).await.unwrap().into_inner().hits;
        assert_eq!(hits.len(), 159);
        let late = format!("late-{n:02}");
        assert!(hits.iter().any(|hit| hit.key == late && hit.score > 0.999), "{late} is not found");
        assert!(hits.iter().all(|hit| hit.key != "phantom-000005"), "a deleted record is found");
    }
    let log = server.stop_and_read_log();
    assert!(log.contains("caught up with 41 changes"), "{log}");
}

#[test]
fn ingesting_into_a_server_has_no_use_for_the_index_flag() {
    let dir = corpus(1);
    let args = ["ingest", "phantoms", "--server", "http://127.0.0.1:1", "--index"];
    let output = diptych(dir.path(), &args).stdout(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("--data"), "{said}");
}
