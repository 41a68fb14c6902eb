//! Damage by chance, with a fixed seed: nothing panics, nothing grows, every item is whole.

use std::fs;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::archives::{file, member, tar};
use crate::openi::Report;
use crate::tar::{Entry, TarReader};
use crate::{Source, SourceOptions};

/// Damages of each kind of input.
const EXECUTIONS: usize = 20_000;

/// Changes, drops, doubles or moves bytes.
fn damage(bytes: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..rng.random_range(1..6) {
        if bytes.is_empty() {
            break;
        }
        let at = rng.random_range(0..bytes.len());
        let end = (at + rng.random_range(1..600)).min(bytes.len());
        match rng.random_range(0..6) {
            0 => bytes[at] ^= 1 << rng.random_range(0..8),
            1 => bytes[at] = rng.random(),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let copy = bytes[at..end].to_vec();
                let to = rng.random_range(0..=bytes.len());
                bytes.splice(to..to, copy);
            }
            _ => bytes[at..end].fill(*[0, 0xFF, b'"', b'<', b'7'].get(rng.random_range(0..5)).unwrap()),
        }
    }
    bytes
}

#[test]
fn damaged_archives_give_items_or_errors() {
    let whole = tar(&[
        file("a.jpg", b"image"),
        member("././@LongLink", b'L', b"a/long/name.txt\0"),
        file("cut", b"text"),
        member("pax", b'x', b"18 path=b/c.json\n30 size=17\n"),
        file("c", br#"{"text":"a","n":1}"#),
        member("d.jpg", b'2', b""),
        file("e.txt", &[b'x'; 700]),
    ]);
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut files = 0;
    for _ in 0..EXECUTIONS {
        let damaged = damage(&whole, &mut rng);
        let mut reader = TarReader::new(&damaged[..]);
        // Every entry takes a block at least.
        for _ in 0..=damaged.len() / 512 + 1 {
            match reader.next() {
                Ok(None) | Err(_) => break,
                Ok(Some(Entry::File { name, .. })) => {
                    files += 1;
                    assert!(!name.split('/').any(|part| part == "..") && !name.starts_with('/'));
                    if let Ok(content) = reader.content(4096) {
                        assert!(content.len() <= damaged.len());
                    }
                }
                Ok(Some(_)) => {}
            }
        }
        assert!(matches!(reader.next(), Ok(None) | Err(_)), "the archive does not end");
    }
    assert!(files > EXECUTIONS, "most members survive: {files}");
}

#[test]
fn damaged_tables_give_items_or_errors() {
    let whole =
        b"id,image,text,age\n1,a.png,\"one, \"\"quoted\"\"\",5\n2,,two,6\n3,,three,\n\"4\",,\"fo\nur\",7\n"
            .repeat(3);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("set.csv");
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let (mut items, mut errors) = (0, 0);
    for _ in 0..EXECUTIONS / 4 {
        fs::write(&path, damage(&whole, &mut rng)).unwrap();
        let Ok(read) = Source::open_with(&path, &SourceOptions::default()).unwrap().items() else { continue };
        for item in read {
            match item {
                Ok(item) => {
                    items += 1;
                    assert!(!item.images.is_empty() || !item.texts.is_empty());
                }
                Err(error) => {
                    errors += 1;
                    assert!(error.to_string().len() < 2000);
                }
            }
        }
    }
    assert!(items > 3000 && errors > 1000, "{items} items, {errors} errors");
}

#[test]
fn damaged_reports_are_read_or_refused() {
    let whole = br#"<?xml version="1.0"?><eCitation><uId id="CXR1"/><MedlineCitation><Article><Abstract>
        <AbstractText Label="FINDINGS">a &lt; b &#65; <![CDATA[c]]></AbstractText></Abstract></Article></MedlineCitation>
        <MeSH><major>normal</major></MeSH><parentImage id="x"/><!-- note --></eCitation>"#;
    let mut rng = ChaCha8Rng::seed_from_u64(13);
    let (mut read, mut refused) = (0, 0);
    for _ in 0..EXECUTIONS {
        match str::from_utf8(&damage(whole, &mut rng)).map(Report::parse) {
            Ok(Ok(_)) => read += 1,
            Ok(Err(reason)) => {
                refused += 1;
                assert!(reason.len() < 1000);
            }
            Err(_) => {}
        }
    }
    assert!(read > 100 && refused > 1000, "{read} read, {refused} refused");
}
