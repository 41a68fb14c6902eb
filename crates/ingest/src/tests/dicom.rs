//! DICOM trees: studies by content, and nothing in them that names the patient.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use diptych_core::{AttributeValue, Chunking};
use diptych_radiology::deidentify::{Deidentifier, Options};

use super::{read_with, shared};
use crate::{DicomOptions, FramePolicy, Identities, Item, Layout, Source, SourceOptions};

/// What must not be in anything that is stored.
const CANARIES: [&str; 5] = ["MRN12345", "Zyxwell", "Quintessa", "ACC777", "19610203"];

fn element(group: u16, number: u16, vr: &str, value: &[u8]) -> Vec<u8> {
    let pad = if vr == "UI" { 0 } else { b' ' };
    let mut value = value.to_vec();
    if value.len() % 2 == 1 {
        value.push(pad);
    }
    let mut bytes = [group.to_le_bytes(), number.to_le_bytes()].concat();
    bytes.extend(vr.bytes());
    match vr {
        "OB" | "OW" => {
            bytes.extend([0, 0]);
            bytes.extend((value.len() as u32).to_le_bytes());
        }
        _ => bytes.extend((value.len() as u16).to_le_bytes()),
    }
    bytes.extend(value);
    bytes
}

/// A picture of 4 x 4 pixels.
struct Picture<'a> {
    study: &'a str,
    number: u16,
    date: &'a str,
    view: &'a str,
    burned_in: &'a str,
}

impl Picture<'_> {
    fn bytes(&self) -> Vec<u8> {
        let class = b"1.2.840.10008.5.1.4.1.1.1";
        let instance = format!("{}.1.{}", self.study, self.number);
        let meta = [
            element(2, 1, "OB", &[0, 1]),
            element(2, 2, "UI", class),
            element(2, 3, "UI", instance.as_bytes()),
            element(2, 0x10, "UI", b"1.2.840.10008.1.2.1"),
            element(2, 0x12, "UI", b"1.2.3"),
        ]
        .concat();
        let short = |group, number, value: u16| element(group, number, "US", &value.to_le_bytes());
        let set = [
            element(8, 0x16, "UI", class),
            element(8, 0x18, "UI", instance.as_bytes()),
            element(8, 0x20, "DA", self.date.as_bytes()),
            element(8, 0x50, "SH", b"ACC777"),
            element(8, 0x60, "CS", b"DX"),
            element(0x10, 0x10, "PN", b"Zyxwell^Quintessa"),
            element(0x10, 0x20, "LO", b"MRN12345"),
            element(0x10, 0x30, "DA", b"19610203"),
            element(0x10, 0x40, "CS", b"F"),
            element(0x10, 0x1010, "AS", b"095Y"),
            element(0x18, 0x15, "CS", b"CHEST"),
            element(0x18, 0x5101, "CS", self.view.as_bytes()),
            element(0x20, 0xD, "UI", self.study.as_bytes()),
            element(0x20, 0xE, "UI", format!("{}.1", self.study).as_bytes()),
            element(0x20, 0x13, "IS", self.number.to_string().as_bytes()),
            short(0x28, 2, 1),
            element(0x28, 4, "CS", b"MONOCHROME2"),
            short(0x28, 0x10, 4),
            short(0x28, 0x11, 4),
            short(0x28, 0x100, 8),
            short(0x28, 0x101, 8),
            short(0x28, 0x102, 7),
            short(0x28, 0x103, 0),
            element(0x28, 0x301, "CS", self.burned_in.as_bytes()),
            element(0x7FE0, 0x10, "OB", &(0..16).map(|n| n * 16).collect::<Vec<u8>>()),
        ]
        .concat();
        let length = element(2, 0, "UL", &(meta.len() as u32).to_le_bytes());
        [vec![0; 128], b"DICM".to_vec(), length, meta, set].concat()
    }
}

fn options(identities: Identities) -> SourceOptions {
    SourceOptions {
        dicom: DicomOptions { identities, frames: FramePolicy::Middle },
        ..SourceOptions::default()
    }
}

fn removed() -> SourceOptions {
    options(Identities::Removed(Arc::new(Deidentifier::new(Options::new([7; 32])))))
}

/// Two studies of a patient under her name, 30 days apart; the first has a report and a picture with burned-in text.
fn tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join("Zyxwell_Quintessa").join(name);
    fs::create_dir_all(at("first")).unwrap();
    fs::create_dir_all(at("second")).unwrap();
    let picture =
        |study, number, date, view, burned_in| Picture { study, number, date, view, burned_in }.bytes();
    fs::write(at("first/b"), picture("1.2.826.1", 2, "20240131", "LL", "NO")).unwrap();
    fs::write(at("first/a.dcm"), picture("1.2.826.1", 1, "20240131", "PA", "NO")).unwrap();
    fs::write(at("first/c.dcm"), picture("1.2.826.1", 3, "20240131", "AP", "YES")).unwrap();
    let report = "PATIENT: Zyxwell, Quintessa  MRN12345\nACCESSION: ACC777\nFINAL REPORT\n\
        FINDINGS: Mrs. Zyxwell has clear lungs. No pneumothorax.\nIMPRESSION: Small left pleural effusion.\n";
    fs::write(at("first/report.txt"), report).unwrap();
    fs::write(at("second/x.dcm"), picture("1.2.826.2", 1, "20240301", "PA", "NO")).unwrap();
    fs::write(at("second/broken.dcm"), &picture("1.2.826.2", 2, "20240301", "PA", "NO")[..300]).unwrap();
    fs::write(dir.path().join("notes.txt"), "Belongs to nobody: Zyxwell.").unwrap();
    dir
}

fn text<'a>(item: &'a Item, name: &str) -> &'a str {
    match &item.attributes[name] {
        AttributeValue::String(text) => text,
        other => panic!("{name} is {other:?}"),
    }
}

#[test]
fn a_tree_is_read_by_its_content_and_names_nobody() {
    let dir = tree();
    assert_eq!(Source::open(dir.path()).unwrap().layout(), Layout::Dicom);
    let (items, errors) = read_with(dir.path(), &removed());
    assert_eq!(items.len(), 2);
    let stored = format!(
        "{:?}",
        items.iter().map(|i| (&i.key, &i.images, &i.texts, &i.attributes)).collect::<Vec<_>>()
    );
    for canary in CANARIES {
        assert!(!stored.to_lowercase().contains(&canary.to_lowercase()), "{canary} is in {stored}");
    }
    assert!(!stored.contains(dir.path().to_str().unwrap()), "paths name patients: {stored}");
    assert!(!stored.contains("1.2.826"), "{stored}");
    let first = items.iter().find(|item| !item.texts.is_empty()).unwrap();
    let second = items.iter().find(|item| item.texts.is_empty()).unwrap();
    assert_eq!((first.images.len(), second.images.len()), (2, 1));
    assert_eq!(first.images[0].load().unwrap()[..2], *b"P5");
    assert_eq!(text(first, "patient_id"), text(second, "patient_id"));
    assert_eq!(text(first, "modality"), "DX");
    assert_eq!(text(first, "body_part"), "chest");
    assert_eq!(text(first, "finding.pneumothorax"), "absent");
    assert_eq!(text(first, "finding.effusion"), "present");
    assert_eq!(first.attributes["age"], AttributeValue::Integer(90), "few are older");
    assert_eq!(first.attributes["views"], AttributeValue::List(vec!["PA".into(), "LATERAL".into()]));
    assert_eq!(first.chunking, Chunking::Sentences);
    let day = |item: &Item| match item.attributes["study_date"] {
        AttributeValue::Time(time) => time.seconds() / 86_400,
        ref other => panic!("{other:?}"),
    };
    assert_eq!(day(second) - day(first), 30, "intervals are true");
    assert!(!stored.contains("2024-01-31"));
    let messages: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(messages.len(), 2, "{messages:?}");
    assert!(messages.iter().any(|m| m.contains("burned into its pixels")), "{messages:?}");
    assert!(messages.iter().any(|m| m.contains("broken.dcm")), "{messages:?}");
    // The same key gives the same records.
    let keys = |items: &[Item]| items.iter().map(|item| item.key.clone()).collect::<Vec<_>>();
    assert_eq!(keys(&items), keys(&read_with(dir.path(), &removed()).0));
}

#[test]
fn identities_stay_only_where_that_is_asked_for() {
    let dir = tree();
    let error = Source::open(dir.path()).unwrap().items().unwrap_err().to_string();
    assert!(error.contains("names patients"), "{error}");
    let (items, errors) = read_with(dir.path(), &options(Identities::Kept));
    assert_eq!((items.len(), errors.len()), (2, 1));
    assert_eq!(items[0].key.as_str(), "1.2.826.1");
    assert_eq!((text(&items[0], "patient_id"), items[0].images.len()), ("MRN12345", 3));
}

#[test]
fn real_files_are_read_whatever_their_syntax() {
    let Some(path) = shared("dicom") else { return };
    let read = |path: &Path| read_with(path, &removed());
    let (items, errors) = read(&path);
    assert!(items.len() >= 10, "{} items, {errors:?}", items.len());
    for item in &items {
        for image in &item.images {
            let bytes = image.load().unwrap_or_else(|e| panic!("{}: {e}", item.key));
            assert!(bytes.starts_with(b"P5") || bytes.starts_with(b"P6"), "{}", item.key);
        }
    }
}
