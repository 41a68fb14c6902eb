//! De-identification of an archive: what was planted to identify is in no byte of the copies, and what the
//! archive is for is still there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use flate2::read::DeflateDecoder;
use serde_json::Value;

use crate::metrics::ask;
use crate::support::{Server, diptych, fail, mini_model, run, shared_data, succeed, succeed_with_notes};

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { out.extend(files(&path)) } else { out.push(path) }
    }
    out.sort();
    out
}

/// The bytes of a file in lower case, a deflated data set behind them in plain.
fn readable(path: &Path) -> String {
    let mut bytes = fs::read(path).unwrap();
    if bytes.get(128..132) == Some(b"DICM") {
        let mut plain = Vec::new();
        let length = u32::from_le_bytes(bytes[140..144].try_into().unwrap()) as usize;
        if String::from_utf8_lossy(&bytes[144..144 + length]).contains("1.2.840.10008.1.2.1.99") {
            DeflateDecoder::new(&bytes[144 + length..]).read_to_end(&mut plain).unwrap();
        }
        bytes.extend(plain);
    }
    String::from_utf8_lossy(&bytes).to_lowercase()
}

/// What a canary may look like: as it is, without its marks, in parts, a date in other forms.
fn variants(value: &str) -> BTreeSet<String> {
    let lower = value.to_lowercase();
    let mut out =
        BTreeSet::from([lower.clone(), lower.chars().filter(char::is_ascii_alphanumeric).collect()]);
    let parts = lower.split(|c: char| !c.is_alphanumeric());
    // Words that every planted sentence, address and link has.
    let telling =
        |part: &&str| part.len() >= 4 && !["told", "street", "https", "example", "report"].contains(part);
    out.extend(parts.filter(telling).filter(|p| !p.bytes().all(|b| b.is_ascii_digit())).map(str::to_owned));
    if lower.len() == 8 && lower.bytes().all(|b| b.is_ascii_digit()) {
        let (y, m, d) = (&lower[..4], &lower[4..6], &lower[6..]);
        out.extend([format!("{y}-{m}-{d}"), format!("{m}/{d}/{y}"), format!("{d}.{m}.{y}")]);
    }
    out
}

/// Whether a string stands in a text and is no part of a longer number.
fn stands(text: &str, value: &str) -> bool {
    text.match_indices(value).any(|(at, _)| {
        let digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
        let number = value.bytes().all(|b| b.is_ascii_digit());
        !number || !(digit(text[..at].chars().next_back()) || digit(text[at + value.len()..].chars().next()))
    })
}

fn lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn five_hundred_planted_identifiers_are_in_no_byte_of_the_copies() {
    let dir = tempfile::tempdir().unwrap();
    let made = [
        "phantom",
        "--format",
        "dicom",
        "--cases",
        "60",
        "--seed",
        "7",
        "--canaries",
        "500",
        "--out",
        "phantoms",
    ];
    succeed(dir.path(), &made);
    let canaries = lines(&dir.path().join("phantoms/canaries.jsonl"));
    assert_eq!(canaries.len(), 500);
    let kinds: BTreeSet<&str> = canaries.iter().map(|c| c["where"].as_str().unwrap()).collect();
    assert!(kinds.len() > 40, "{kinds:?}");
    let archive = dir.path().join("phantoms/archive");
    let before: Vec<String> = files(&archive).iter().map(|f| readable(f)).collect();

    fs::write(dir.path().join("the.key"), format!("{}\n", "5".repeat(64))).unwrap();
    private(&dir.path().join("the.key"));
    let (printed, notes) = succeed_with_notes(
        dir.path(),
        &[
            "dicom",
            "deidentify",
            "phantoms/archive",
            "copies",
            "--key-file",
            "the.key",
            "--report",
            "report.json",
        ],
    );
    let report = fs::read_to_string(dir.path().join("report.json")).unwrap();
    let copies = files(&dir.path().join("copies"));
    assert!(copies.len() >= 120, "{}", copies.len());
    let after: Vec<(String, String)> =
        copies.iter().map(|f| (f.to_string_lossy().to_lowercase(), readable(f))).collect();
    for canary in &canaries {
        let value = canary["value"].as_str().unwrap();
        let place = canary["where"].as_str().unwrap();
        let folder = canary["folder"].as_str().unwrap().to_lowercase();
        let forms = variants(value);
        let planted = before.iter().any(|text| forms.iter().any(|form| text.contains(form)));
        assert!(planted || forms.iter().any(|form| folder.contains(form)), "{place} was planted");
        for form in &forms {
            for (path, text) in &after {
                let name = path.rsplit_once("copies").unwrap().1;
                assert!(!stands(text, form) && !stands(name, form), "{place} '{form}' is left in {path}");
            }
            for (what, text) in [("output", &printed), ("notes", &notes), ("report", &report)] {
                assert!(!stands(&text.to_lowercase(), form), "{place} '{form}' is in the {what}");
            }
        }
    }
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["studies"], 60);
    assert_eq!(report["texts"], 30);
    assert!(report["kinds"]["name"].as_u64().unwrap() > 100, "{report}");
    assert!(printed.contains("DCM 113100") && printed.contains("name "), "{printed}");
}

#[cfg(unix)]
fn private(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[cfg(not(unix))]
fn private(_: &Path) {}

#[test]
fn copies_keep_studies_together_and_runs_with_one_key_agree() {
    let dir = tempfile::tempdir().unwrap();
    succeed(
        dir.path(),
        &["phantom", "--format", "dicom", "--cases", "10", "--seed", "2", "--out", "phantoms"],
    );
    let (_, notes) = succeed_with_notes(dir.path(), &["dicom", "deidentify", "phantoms/archive", "once"]);
    assert!(notes.contains("once.key"), "{notes}");
    succeed(dir.path(), &["dicom", "deidentify", "phantoms/archive", "again", "--key-file", "once.key"]);
    succeed(dir.path(), &["dicom", "deidentify", "phantoms/archive", "other", "--key-file", "other.key"]);
    let tree = |name: &str| -> BTreeMap<PathBuf, Vec<u8>> {
        let root = dir.path().join(name);
        files(&root)
            .into_iter()
            .map(|f| (f.strip_prefix(&root).unwrap().to_owned(), fs::read(f).unwrap()))
            .collect()
    };
    let once = tree("once");
    assert_eq!(once, tree("again"), "the same key");
    assert!(tree("other").keys().all(|path| !once.contains_key(path)), "another key");
    let studies: BTreeSet<String> =
        once.keys().map(|p| p.iter().next().unwrap().to_string_lossy().into_owned()).collect();
    assert_eq!(studies.len(), 10);
    let texts = once.iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "txt"));
    let texts: Vec<String> = texts.map(|(_, bytes)| String::from_utf8(bytes.clone()).unwrap()).collect();
    assert_eq!(texts.len(), 5);
    assert!(texts.iter().all(|t| t.contains("FINDINGS: ") && t.contains("PATIENT NAME: ___")), "{texts:?}");
    // Once more over the copies' own tree: an archive must not be mixed with its copies.
    let inside = fail(dir.path(), &["dicom", "deidentify", "phantoms", "phantoms/archive/copies"]);
    assert!(inside.contains("lie in one another"), "{inside}");
}

#[test]
fn bad_files_are_told_and_left_out_and_the_next_are_copied() {
    let dir = tempfile::tempdir().unwrap();
    succeed(
        dir.path(),
        &["phantom", "--format", "dicom", "--cases", "3", "--seed", "5", "--out", "phantoms"],
    );
    let archive = dir.path().join("phantoms/archive");
    let good = files(&archive);
    let plain = |text: String| text.contains("1.2.840.10008.1.2.1\0") && text.contains("monochrome");
    let picture = good.iter().find(|f| plain(readable(f))).unwrap();
    let bytes = fs::read(picture).unwrap();
    fs::write(archive.join("cut.dcm"), &bytes[..400]).unwrap();
    fs::write(archive.join("notes.pdf"), "%PDF-1.4").unwrap();
    fs::write(archive.join("loose.txt"), "Dr. Fortescue came.").unwrap();
    fs::write(archive.join("empty"), "").unwrap();
    let at = bytes.windows(10).position(|w| w == b"\x28\x00\x01\x03CS\x02\x00NO").unwrap();
    let mut burned = bytes.clone();
    burned.splice(at..at + 10, *b"\x28\x00\x01\x03CS\x04\x00YES ");
    fs::write(archive.join("burned.dcm"), &burned).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(dir.path(), archive.join("around")).unwrap();

    let (printed, notes) =
        succeed_with_notes(dir.path(), &["dicom", "deidentify", "phantoms/archive", "copies"]);
    assert!(notes.contains("cut.dcm: it cannot be read as DICOM"), "{notes}");
    assert!(notes.contains("burned.dcm: the picture has, by Burned In Annotation"), "{notes}");
    assert!(printed.contains("2 damaged or refused") && printed.contains("1 texts"), "{printed}");
    assert_eq!(files(&dir.path().join("copies")).len(), good.len());
    assert!(files(&dir.path().join("copies")).iter().all(|f| !f.to_string_lossy().ends_with(".tmp")));
    let flagged = run(
        dir.path(),
        &["dicom", "deidentify", "phantoms/archive/burned.dcm", "burned.dcm", "--burned-in", "flag"],
    );
    assert!(flagged.status.success() && dir.path().join("burned.dcm").is_file());
    assert!(String::from_utf8_lossy(&flagged.stderr).contains("look at burned.dcm"));
    let nothing = fail(dir.path(), &["dicom", "deidentify", "phantoms/archive/cut.dcm", "none"]);
    assert!(nothing.contains("nothing was de-identified"), "{nothing}");
    assert!(
        fail(dir.path(), &["dicom", "deidentify", "absent", "none"])
            .contains("name a DICOM file or a folder")
    );
}

#[test]
fn real_files_of_every_kind_are_copied_with_their_pixels() {
    let Some(folder) = shared_data("dicom") else { return };
    let dir = tempfile::tempdir().unwrap();
    let input = folder.join("files").to_string_lossy().into_owned();
    succeed(dir.path(), &["dicom", "deidentify", &input, "copies"]);
    // Some of them claim to be the same instance, and are all copied.
    let (originals, copies) = (files(&folder.join("files")), files(&dir.path().join("copies")));
    assert_eq!(copies.len(), originals.len());
    // The pixels are the last element, but for padding and private ones, which go.
    let copies: Vec<Vec<u8>> = copies.iter().map(|f| fs::read(f).unwrap()).collect();
    let holds = |bytes: &[u8], piece: &[u8]| bytes.windows(piece.len()).any(|w| w == piece);
    for original in &originals {
        let bytes = fs::read(original).unwrap();
        if readable(original).contains("1.2.840.10008.1.2.1.99") {
            continue;
        }
        let middle = bytes.len() * 3 / 4;
        let piece = &bytes[middle..middle + 400];
        assert!(copies.iter().any(|copy| holds(copy, piece)), "{} lost its pixels", original.display());
    }
}

/// All that a collection tells of itself: its records, and an export of them.
fn told(dir: &Path, url: &str) -> String {
    let records = succeed(dir, &["record", "list", "--server", url]);
    succeed(dir, &["export", "default", "exported", "--server", url]);
    let backup = succeed(dir, &["backup", "saved", "--server", url]);
    let exported: String = files(&dir.join("exported")).iter().map(|file| readable(file)).collect();
    format!("{records}{backup}{exported}").to_lowercase()
}

#[test]
fn five_hundred_planted_identifiers_are_nowhere_once_the_archive_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        "phantom",
        "--format",
        "dicom",
        "--cases",
        "60",
        "--seed",
        "7",
        "--canaries",
        "500",
        "--out",
        "phantoms",
    ];
    succeed(dir.path(), &cases);
    let canaries = lines(&dir.path().join("phantoms/canaries.jsonl"));
    assert_eq!(canaries.len(), 500);
    let (data, model) = ("data", mini_model());
    let serve = ["serve", "--data", data, "--model", model.to_str().unwrap(), "--listen", "127.0.0.1:0"];
    let more = ["--metrics-listen", "127.0.0.1:0", "--log-slow-seconds", "0.000001"];
    let server = Server::spawn(diptych(dir.path(), &[&serve[..], &more].concat()).env("RUST_LOG", "debug"));
    let ingest = ["ingest", "phantoms/archive", "--key-file", "the.key", "--server", &server.url];
    let (printed, notes) = succeed_with_notes(dir.path(), &ingest);
    assert!(printed.contains("60 created"), "{printed}");
    assert!(printed.contains("identifying"), "the count of what was removed: {printed}");
    let pictures =
        ["similar", "--text", "effusion", "-k", "60", "--thumbnails", "pictures", "--server", &server.url];
    let (shown, _) = succeed_with_notes(dir.path(), &pictures);
    let (_, page) = ask(&server, "GET /metrics");
    let records = told(dir.path(), &server.url);
    let log = server.stop_and_read_log();
    let stored: String = files(&dir.path().join(data)).iter().map(|file| readable(file)).collect();
    let thumbnails: String = files(&dir.path().join("pictures")).iter().map(|file| readable(file)).collect();
    assert!(records.contains("113100") && records.contains("finding.effusion"), "the records are there");
    let places = [
        ("output", printed + &notes + &shown),
        ("metrics", page),
        ("log", log),
        ("records and exports", records),
        ("data directory", stored),
        ("thumbnails", thumbnails),
    ];
    let places = places.map(|(name, text)| (name, text.to_lowercase()));
    for canary in &canaries {
        let (value, planted) = (canary["value"].as_str().unwrap(), canary["where"].as_str().unwrap());
        for form in variants(value) {
            for (name, text) in &places {
                assert!(!stands(text, &form), "{planted} '{form}' is in the {name}");
            }
        }
    }
}

#[test]
fn a_study_as_files_finds_other_patients_and_keeps_its_own_name_to_itself() {
    let dir = tempfile::tempdir().unwrap();
    succeed(
        dir.path(),
        &["phantom", "--format", "dicom", "--cases", "40", "--seed", "3", "--out", "phantoms"],
    );
    let model = mini_model();
    let here = ["--data", "data", "--model", model.to_str().unwrap()];
    let ingested = succeed(dir.path(), &[&["ingest", "phantoms/archive"][..], &here].concat());
    assert!(ingested.contains("40 created"), "{ingested}");
    assert!(dir.path().join("data.key").is_file(), "the secret is beside the data");
    let again = succeed(dir.path(), &[&["ingest", "phantoms/archive"][..], &here].concat());
    assert!(
        again.contains("40 unchanged") && !again.contains("encoded"),
        "nothing is encoded again: {again}"
    );

    let picture = files(&dir.path().join("phantoms/archive"))
        .into_iter()
        .find(|file| file.extension().is_none_or(|e| e != "txt") && readable(file).contains("monochrome"))
        .unwrap();
    let asked = ["similar", "--dicom", picture.to_str().unwrap(), "-k", "40", "--json"];
    let own = |more: &[&str]| -> Vec<Value> {
        let answer = succeed(dir.path(), &[&asked[..], &here, more].concat());
        serde_json::from_str::<Value>(&answer).unwrap()["cases"].as_array().unwrap().clone()
    };
    let patient = |case: &Value| case["attributes"]["patient_id"].as_str().unwrap().to_owned();
    let all = own(&["--all-patients"]);
    let mine = patient(&all[0]);
    assert!(all[0]["image"]["cosine"].as_f64().unwrap() > 0.999, "its own study is the nearest: {}", all[0]);
    let others = own(&[]);
    assert!(!others.is_empty() && others.iter().all(|case| patient(case) != mine));
    let priors = own(&["--priors"]);
    assert!(!priors.is_empty() && priors.iter().all(|case| patient(case) == mine));
    let dates: Vec<&str> = priors.iter().map(|c| c["attributes"]["study_date"].as_str().unwrap()).collect();
    assert!(dates.is_sorted_by(|a, b| a >= b), "the latest first: {dates:?}");
    let (_, notes) =
        succeed_with_notes(dir.path(), &[&asked[..], &here, &["--key-file", "data.key"]].concat());
    assert!(!notes.contains("without --key-file"), "{notes}");
}

#[test]
fn a_file_is_shown_without_naming_anybody() {
    let dir = tempfile::tempdir().unwrap();
    succeed(
        dir.path(),
        &["phantom", "--format", "dicom", "--cases", "2", "--seed", "3", "--out", "phantoms"],
    );
    let all = files(&dir.path().join("phantoms/archive"));
    let picture = all.iter().find(|file| readable(file).contains("monochrome2")).unwrap().to_str().unwrap();
    let shown = succeed(dir.path(), &["dicom", "show", picture, "--out", "shown.png"]);
    assert!(shown.contains("(hidden)") && shown.contains("MONOCHROME2"), "{shown}");
    let png = fs::read(dir.path().join("shown.png")).unwrap();
    assert!(png.starts_with(b"\x89PNG"));
    let named = succeed(dir.path(), &["dicom", "show", picture, "--identifying"]);
    assert!(!named.contains("(hidden)"), "{named}");
    let json: Value =
        serde_json::from_str(&succeed(dir.path(), &["dicom", "show", picture, "--json"])).unwrap();
    assert!(json.is_object());
    fs::write(dir.path().join("text.dcm"), "no DICOM").unwrap();
    assert!(fail(dir.path(), &["dicom", "show", "text.dcm"]).contains("DICM"));
}
