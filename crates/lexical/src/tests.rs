//! The index as its users know it: what is found, in which order, after which changes and damage.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use crate::{LexicalError, LexicalIndex, LexicalQuery, Match, Matches, Piece, PointSet};

/// Texts of one piece each, every one a record of its own.
fn add(index: &LexicalIndex, texts: &[(u64, &str)]) {
    for &(point, text) in texts {
        index.apply(&[], &[Piece { point, record: point, text, range: 0..text.len() }]).unwrap();
    }
}

fn indexed(texts: &[(u64, &str)]) -> LexicalIndex {
    let index = LexicalIndex::in_memory().unwrap();
    add(&index, texts);
    index
}

fn ask(index: &LexicalIndex, typed: &str) -> Matches {
    index.search(&LexicalQuery::parse(typed).unwrap(), None, 100).unwrap()
}

fn found(index: &LexicalIndex, typed: &str) -> Vec<u64> {
    ask(index, typed).hits.iter().map(|hit| hit.point).collect()
}

const REPORTS: [(u64, &str); 6] = [
    (1, "Large left pleural effusion."),
    (2, "Small right-sided effusions; no pneumothorax."),
    (3, "No effusion. Left pleural thickening, effusion on the right side."),
    (4, "Cardiomegaly."),
    (5, "Cardiomégalie sévère, effusion."),
    (6, "Left lung: clear."),
];

#[test]
fn words_are_found_whatever_their_case_accents_and_endings() {
    let index = indexed(&REPORTS);
    assert_eq!(found(&index, "EFFUSIONS"), [5, 1, 3, 2]);
    assert_eq!(found(&index, "cardiomégalie"), [4, 5]);
    assert_eq!(found(&index, "side"), [2, 3], "right-sided and side");
    assert_eq!(found(&index, "aorta"), [0u64; 0]);
    assert_eq!(ask(&index, "effusion").records, 4);
}

#[test]
fn a_phrase_is_found_word_for_word() {
    let index = indexed(&REPORTS);
    assert_eq!(found(&index, "\"pleural effusion\""), [1]);
    assert_eq!(found(&index, "\"PLEURAL, effusion!\""), [1]);
    assert_eq!(found(&index, "\"pleural effusions\""), [0u64; 0], "another form");
    assert_eq!(found(&index, "\"effusion pleural\""), [0u64; 0], "another order");
    assert_eq!(found(&index, "\"effusions\""), [2]);
    assert_eq!(found(&index, "effusion \"left pleural\""), [1, 3], "both have the phrase");
}

#[test]
fn signs_require_and_exclude() {
    let index = indexed(&REPORTS);
    assert_eq!(found(&index, "+left effusion"), [1, 3, 6]);
    assert_eq!(found(&index, "+left +effusion"), [1, 3]);
    assert_eq!(found(&index, "effusion -left"), [5, 2]);
    assert_eq!(found(&index, "effusion -\"no effusion\""), [5, 1, 2]);
    let matches = ask(&index, "+left effusion -\"no effusion\"");
    let allowed: Vec<u64> = (0..8).filter(|record| matches.allows(Some(*record))).collect();
    assert_eq!(allowed, [1, 6]);
    assert!(!matches.allows(None), "a record without a text has no word");
    assert!(ask(&index, "effusion -left").allows(None));
    assert!(ask(&index, "effusion").allows(Some(4)));
    assert!(!ask(&LexicalIndex::in_memory().unwrap(), "+a").allows(Some(4)));
}

#[test]
fn scores_are_those_of_bm25() {
    let index = indexed(&[(1, "a b"), (2, "a a c d"), (3, "b c d e f g")]);
    // N = 3, mean length 4; 'a' is in two, once in one of length 2 and twice in one of length 4.
    let idf = (1.0f64 + (3.0 - 2.0 + 0.5) / (2.0 + 0.5)).ln();
    let bm25 = |often: f64, length: f64| idf * often * 2.2 / (often + 1.2 * (0.25 + 0.75 * length / 4.0));
    let hits = ask(&index, "a").hits;
    let expected = [(2, bm25(2.0, 4.0)), (1, bm25(1.0, 2.0))];
    for (hit, (point, score)) in hits.iter().zip(expected) {
        assert_eq!(hit.point, point);
        assert!((f64::from(hit.score) - score).abs() < 1e-5, "{hit:?} {score}");
    }
    assert_eq!(hits.len(), 2);
}

#[test]
fn equal_scores_are_in_the_order_of_their_points() {
    let index = LexicalIndex::in_memory().unwrap();
    for point in [7u64, 3, 9, 1, 5] {
        add(&index, &[(point, "the same text")]);
        // A segment for each.
        index.checkpoint(point).unwrap();
    }
    let query = LexicalQuery::parse("text").unwrap();
    for limit in 1..=6 {
        let hits = index.search(&query, None, limit).unwrap();
        let points: Vec<u64> = hits.hits.iter().map(|hit| hit.point).collect();
        assert_eq!(points, [1, 3, 5, 7, 9][..limit.min(5)]);
        assert_eq!(hits.records, 5);
    }
    assert_eq!(index.search(&query, None, 0).unwrap().hits, []);
}

#[test]
fn only_points_of_the_filter_are_found() {
    let index = indexed(&REPORTS);
    let filter: PointSet = [2, 4, 5].into_iter().collect();
    let query = LexicalQuery::parse("effusion").unwrap();
    let matches = index.search(&query, Some(&filter), 100).unwrap();
    assert_eq!(matches.hits.iter().map(|hit| hit.point).collect::<Vec<_>>(), [5, 2]);
    assert_eq!(matches.records, 2);
}

#[test]
fn of_a_record_the_best_piece_is_found_and_conditions_are_asked_of_all() {
    let index = LexicalIndex::in_memory().unwrap();
    let text = "The heart is large. The left lung has an effusion. Stable since last year.";
    let ends = [20, 51, text.len()];
    let pieces: Vec<Piece<'_>> = (0..3)
        .map(|n| Piece { point: 10 + n as u64, record: 10, text, range: [0, ends[0], ends[1]][n]..ends[n] })
        .collect();
    index.apply(&[], &pieces).unwrap();
    add(&index, &[(20, "An effusion elsewhere.")]);
    let points = |typed: &str| found(&index, typed);
    assert_eq!(points("lung effusion"), [11, 20]);
    assert_eq!(points("stable"), [12]);
    assert_eq!(points("+stable +lung +heart"), [10], "no piece has all of them, the record has");
    assert_eq!(points("effusion -stable"), [20], "another piece of the record has what must not be");
    assert_eq!(points("\"large the left lung\""), [10], "a phrase across two pieces");
    assert_eq!(points("\"the left lung\""), [11], "the piece that has it, not the one that reaches into it");
}

#[test]
fn what_is_deleted_or_replaced_vanishes_and_does_not_count() {
    let index = indexed(&REPORTS);
    assert_eq!(found(&index, "cardiomegaly"), [4, 5]);
    index.apply(&[4], &[]).unwrap();
    index.apply(&[2, 3], &[Piece { point: 7, record: 7, text: "Fracture.", range: 0..9 }]).unwrap();
    assert_eq!(found(&index, "cardiomegaly"), [5]);
    assert_eq!(found(&index, "effusion fracture"), [7, 5, 1]);
    // As if the others had never been.
    let texts = [REPORTS[0], REPORTS[4], REPORTS[5], (7, "Fracture.")];
    let fresh = indexed(&texts);
    for typed in ["effusion fracture", "\"pleural effusion\"", "left -lung"] {
        assert_eq!(ask(&index, typed).hits, ask(&fresh, typed).hits, "{typed}");
    }
    assert_eq!((index.len().unwrap(), index.is_empty().unwrap()), (4, false));
}

#[test]
fn a_removal_that_overtakes_its_addition_leaves_nothing() {
    let index = LexicalIndex::in_memory().unwrap();
    index.apply(&[1], &[Piece { point: 2, record: 2, text: "new words", range: 0..9 }]).unwrap();
    add(&index, &[(1, "old words")]);
    assert_eq!(found(&index, "words"), [2]);
    // Taking in again what is there changes nothing.
    index.apply_again(&[Piece { point: 2, record: 2, text: "new words", range: 0..9 }]).unwrap();
    assert_eq!(found(&index, "words"), [2]);
}

#[test]
fn the_order_of_changes_and_the_number_of_segments_do_not_change_a_score() {
    let texts: Vec<(u64, String)> = (0..60u64)
        .map(|n| (n, format!("finding {} {} of the {} lobe", n % 7, n % 3, "left ".repeat(n as usize % 4))))
        .collect();
    let borrowed: Vec<(u64, &str)> = texts.iter().map(|(n, text)| (*n, text.as_str())).collect();
    let once = indexed(&borrowed);
    let pieced = LexicalIndex::in_memory().unwrap();
    for (n, text) in borrowed.iter().rev().enumerate() {
        add(&pieced, &[*text, (1000 + text.0, "finding of the left lobe")]);
        if n % 9 == 0 {
            pieced.checkpoint(n as u64).unwrap();
        }
    }
    let gone: Vec<u64> = (1000..1060).collect();
    pieced.apply(&gone, &[]).unwrap();
    assert_eq!(pieced.len().unwrap(), 60);
    assert!(pieced.segments() > 1);
    for typed in ["left lobe", "finding 3 2", "+finding \"left lobe\" 1", "of the -2"] {
        assert_eq!(ask(&pieced, typed).hits, ask(&once, typed).hits, "{typed}");
    }
}

fn reports_in(dir: &Path) -> Vec<Match> {
    let index = LexicalIndex::create(dir).unwrap();
    add(&index, &REPORTS);
    index.checkpoint(17).unwrap();
    index.apply(&[4], &[]).unwrap();
    index.checkpoint(18).unwrap();
    ask(&index, "effusion left").hits
}

#[test]
fn files_are_opened_as_they_were_left() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("words");
    assert!(LexicalIndex::open(&dir).unwrap().is_none());
    let hits = reports_in(&dir);
    let index = LexicalIndex::open(&dir).unwrap().unwrap();
    assert_eq!((index.mark(), index.len().unwrap()), (18, 5));
    assert_eq!(ask(&index, "effusion left").hits, hits);
    add(&index, &[(8, "Not written down.")]);
    drop(index);
    let index = LexicalIndex::open(&dir).unwrap().unwrap();
    assert_eq!((index.mark(), index.len().unwrap()), (18, 5), "what was not written down is lost");

    let in_use = LexicalIndex::open(&dir).unwrap_err();
    assert!(matches!(in_use, LexicalError::Damaged { .. }), "{in_use}");
    index.retire();
    assert!(index.apply(&[1], &[]).is_err());
    assert_eq!(ask(&index, "effusion left").hits, hits, "searches go on");
    let again = LexicalIndex::open(&dir).unwrap().unwrap();
    assert_eq!(again.len().unwrap(), 5);
    again.retire();
    LexicalIndex::discard(&dir).unwrap();
    LexicalIndex::discard(&dir).unwrap();
    assert!(!dir.exists());
}

#[test]
fn damage_to_any_file_is_noticed_or_does_no_harm() {
    let whole = tempfile::tempdir().unwrap();
    let whole = whole.path().join("words");
    let hits = reports_in(&whole);
    let names: Vec<PathBuf> =
        std::fs::read_dir(&whole).unwrap().map(|entry| entry.unwrap().file_name().into()).collect();
    assert!(names.len() > 6, "{names:?}");
    let damages: [fn(&mut Vec<u8>); 4] = [
        |bytes| bytes.truncate(bytes.len() / 2),
        |bytes| bytes.clear(),
        |bytes| bytes.iter_mut().take(1).for_each(|byte| *byte ^= 0x10),
        |bytes| {
            let middle = bytes.len() / 2;
            bytes.iter_mut().skip(middle).take(1).for_each(|byte| *byte ^= 0x01);
        },
    ];
    for name in &names {
        for (n, damage) in damages.iter().enumerate() {
            let dir = tempfile::tempdir().unwrap();
            for name in &names {
                std::fs::copy(whole.join(name), dir.path().join(name)).unwrap();
            }
            let path = dir.path().join(name);
            let mut bytes = std::fs::read(&path).unwrap();
            damage(&mut bytes);
            std::fs::write(&path, bytes).unwrap();
            match LexicalIndex::open(dir.path()) {
                Err(LexicalError::Damaged { .. }) => {}
                Ok(Some(index)) => {
                    assert_eq!(ask(&index, "effusion left").hits, hits, "{name:?} {n}");
                    assert_eq!(index.len().unwrap(), 5, "{name:?} {n}");
                }
                other => panic!("{name:?} {n}: {other:?}"),
            }
        }
    }
}

#[test]
fn files_of_another_format_are_not_read() {
    let dir = tempfile::tempdir().unwrap();
    reports_in(dir.path());
    let path = dir.path().join("meta.json");
    let meta = std::fs::read_to_string(&path).unwrap();
    assert!(meta.contains("diptych-words-1 18 "), "{meta}");
    for (old, new) in [("diptych-words-1", "diptych-words-0"), ("words-1 18", "words-1 19")] {
        std::fs::write(&path, meta.replace(old, new)).unwrap();
        let error = LexicalIndex::open(dir.path()).unwrap_err();
        assert!(error.to_string().contains("another format"), "{error}");
    }
}
