//! Archives as they are: what a dry run says, what is stored, and that a second run encodes nothing.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::{Server, corpus, fail, hits, mini_model, succeed};

/// A regular file of an archive, or another kind of member.
fn member(name: &str, kind: u8, content: &[u8]) -> Vec<u8> {
    let mut header = vec![0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    header[156] = kind;
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[148..156].fill(b' ');
    let sum: u64 = header.iter().map(|&b| u64::from(b)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    header.extend(content);
    header.resize(header.len().div_ceil(512) * 512, 0);
    header
}

/// The phantoms of a folder as an archive of samples, with a link among them.
fn archive(phantoms: &Path) -> Vec<u8> {
    let mut tar = Vec::new();
    for line in fs::read_to_string(phantoms.join("cases.jsonl")).unwrap().lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let image = phantoms.join(case["image"].as_str().unwrap());
        let stem = image.file_stem().unwrap().to_str().unwrap().to_owned();
        tar.extend(member(&format!("{stem}.png"), b'0', &fs::read(&image).unwrap()));
        tar.extend(member(&format!("{stem}.txt"), b'0', case["text"].as_str().unwrap().as_bytes()));
    }
    tar.extend(member("link.png", b'2', b""));
    tar.extend([0; 1024]);
    tar
}

#[test]
fn a_second_run_over_an_archive_encodes_nothing() {
    let dir = corpus(6);
    fs::write(dir.path().join("set.tar"), archive(&dir.path().join("phantoms"))).unwrap();
    let model = mini_model();
    let place = ["--data", "data", "--model", model.to_str().unwrap()];
    let ingest = [&["ingest", "set.tar"], &place[..]].concat();
    let said = succeed(dir.path(), &ingest);
    assert!(said.contains("6 created, 0 updated, 0 unchanged, 1 failed"), "{said}");
    assert!(said.contains("encoded: 6 images and 6 texts"), "{said}");
    assert!(said.contains("read as webdataset"), "{said}");
    let report = fs::read_to_string(dir.path().join("ingest-failures.jsonl")).unwrap();
    assert!(report.contains("set.tar member link") && report.contains("a symbolic link"), "{report}");
    let said = succeed(dir.path(), &ingest);
    assert!(said.contains("0 created, 0 updated, 6 unchanged, 1 failed"), "{said}");
    assert!(!said.contains("encoded:"), "{said}");
    let search = [&["search", "--key", "phantom-000002", "--target", "image", "--json"], &place[..]].concat();
    assert_eq!(hits(&succeed(dir.path(), &search))[0].0, "phantom-000002");
}

#[test]
fn parquet_is_read_with_its_images_and_a_second_run_encodes_nothing() {
    let dir = corpus(5);
    let model = mini_model();
    let place = ["--data", "data", "--model", model.to_str().unwrap()];
    succeed(dir.path(), &[&["ingest", "phantoms"], &place[..]].concat());
    succeed(dir.path(), &["export", "default", "out", "--data", "data"]);
    let server = Server::start(dir.path());
    let table = "out/metadata/metadata_0.parquet";
    let ingest = ["ingest", table, "--collection", "again", "--server", &server.url];
    let said = succeed(dir.path(), &ingest);
    assert!(said.contains("5 created") && said.contains("0 failed"), "{said}");
    assert!(said.contains("encoded: 5 images and 5 texts"), "{said}");
    let said = succeed(dir.path(), &ingest);
    assert!(said.contains("5 unchanged") && !said.contains("encoded:"), "{said}");
}

#[test]
fn a_dry_run_shows_the_mapping_and_stores_nothing() {
    let dir = corpus(2);
    let rows = "uid,file,words,age,day\n\
        1,phantoms/images/phantom-000000.png,First.,52,2024-01-31\n\
        2,gone.png,Second.,,\n\
        3,phantoms/images/phantom-000001.png,Third.,,\n";
    fs::write(dir.path().join("set.csv"), rows).unwrap();
    let mapped = ["--key-column", "uid", "--image-column", "file", "--text-column", "words"];
    let said = succeed(dir.path(), &[&["ingest", "set.csv", "--dry-run=2"], &mapped[..]].concat());
    for part in [
        "layout: csv",
        "why:    the file is named .csv",
        "separated by  comma",
        "words         text",
        "record 1: 1",
        "from       set.csv line 2",
        "phantom-000000.png",
        "attribute  age = 52 (integer)",
        "attribute  day = \"2024-01-31T00:00:00Z\" (time)",
        "left out: set.csv line 3: image 'gone.png' cannot be read",
        "1 record with 1 image and 1 text, 1 left out: so far",
    ] {
        assert!(said.contains(part), "'{part}' is not in: {said}");
    }
    assert!(!said.contains("Third."), "{said}");
    let said = succeed(dir.path(), &[&["ingest", "set.csv", "--dry-run=all"], &mapped[..]].concat());
    assert!(said.contains("2 records with 2 images and 2 texts, 1 left out: the whole source"), "{said}");
    assert!(!dir.path().join("data").exists() && !dir.path().join("ingest-failures.jsonl").exists());
    // Without a mapping, it says which options there are.
    let said = fail(dir.path(), &["ingest", "set.csv", "--dry-run"]);
    assert!(said.contains("--image-column"), "{said}");
    let said = fail(dir.path(), &["ingest", "set.csv"]);
    assert!(said.contains("--server"), "{said}");
}

#[test]
fn a_folder_of_vectors_is_imported_and_nothing_is_encoded() {
    let dir = corpus(4);
    let model = mini_model();
    let place = ["--data", "data", "--model", model.to_str().unwrap()];
    succeed(dir.path(), &[&["ingest", "phantoms"], &place[..]].concat());
    succeed(dir.path(), &["export", "default", "out", "--data", "data"]);
    let other = ["--data", "other", "--model", model.to_str().unwrap()];
    let said = succeed(dir.path(), &[&["ingest", "out", "--dry-run"], &other[..]].concat());
    assert!(said.contains("layout: clip-retrieval"), "{said}");
    let said = succeed(dir.path(), &[&["ingest", "out"], &other[..]].concat());
    assert!(said.contains("4 created") && !said.contains("encoded:"), "{said}");
}

#[test]
fn what_is_read_out_of_archives_cannot_be_evaluated_by_files() {
    let dir = corpus(2);
    fs::write(dir.path().join("set.tar"), archive(&dir.path().join("phantoms"))).unwrap();
    let tar = fs::read(dir.path().join("set.tar")).unwrap();
    // Without the link, which is refused on its own.
    let link = tar.windows(8).position(|w| w == b"link.png").unwrap();
    fs::write(dir.path().join("set.tar"), [&tar[..link], &[0; 1024]].concat()).unwrap();
    let model = mini_model();
    let said = fail(dir.path(), &["eval", "--model", model.to_str().unwrap(), "--pairs", "set.tar"]);
    assert!(said.contains("unpack the archive"), "{said}");
    let said = fail(dir.path(), &["ingest", "s3://bucket/set.jsonl", "--dry-run"]);
    if cfg!(feature = "s3") {
        assert!(said.contains("store"), "{said}");
    } else {
        assert!(said.contains("--features s3"), "{said}");
    }
}
