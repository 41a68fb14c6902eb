//! Queries of several terms, answers of a certain shape, and what scores mean; with the hash encoder, by
//! which equal words meet across modalities.

#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;

use diptych_core::{
    AttributeValue, Attributes, CollectionName, HashEncoder, Key, Modality, Query, QuerySource, Shape,
    Target, Term,
};
use diptych_engine::{
    Engine, EngineError, EngineOptions, IndexKind, NewImage, NewRecord, PutMode, SearchOutcome,
};
use diptych_store::{Store, StoreOptions};
use tempfile::TempDir;

fn open(dir: &TempDir) -> Engine {
    let store = Store::open(dir.path(), &StoreOptions::default()).unwrap();
    let options = EngineOptions { index: IndexKind::Exact, ..EngineOptions::default() };
    Engine::open(store, Arc::new(HashEncoder::new(64)), options).unwrap()
}

/// A record of one image, one text, or both; the attribute `owner` where it is named.
fn put(engine: &Engine, key: &str, image: &str, text: &str, owner: &str) {
    let some = |words: &str| (!words.is_empty()).then(|| words.to_owned());
    let mut attributes = Attributes::new();
    attributes.extend(some(owner).map(|owner| ("owner".to_owned(), AttributeValue::String(owner))));
    let record = NewRecord {
        key: Key::new(key).unwrap(),
        images: some(image)
            .map(|words| NewImage { bytes: words.into_bytes(), source: String::new() })
            .into_iter()
            .collect(),
        texts: some(text).into_iter().collect(),
        attributes,
        chunking: diptych_core::Chunking::default(),
    };
    engine.ingest(&CollectionName::default(), vec![record], PutMode::Upsert).unwrap().remove(0).unwrap();
}

fn text(words: &str) -> QuerySource {
    QuerySource::Text(words.to_owned())
}

fn picture(words: &str) -> QuerySource {
    QuerySource::Image(words.as_bytes().to_vec())
}

fn ask(
    engine: &Engine,
    terms: &[(f32, QuerySource)],
    target: impl Into<Target>,
    k: u64,
    shape: Shape,
) -> Result<SearchOutcome, EngineError> {
    let terms = terms.iter().map(|(weight, source)| Term::new(source.clone(), *weight).unwrap()).collect();
    let query = Query::composed(terms, target, k, None).unwrap().with_shape(shape).unwrap();
    engine.search(&CollectionName::default(), &query)
}

fn keys(outcome: &SearchOutcome) -> Vec<&str> {
    outcome.hits.iter().map(|found| found.hit.key.as_str()).collect()
}

fn vehicles() -> (TempDir, Engine) {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir);
    for (key, words, owner) in [
        ("red-car", "red car", "ann"),
        ("blue-car", "blue car", "bob"),
        ("red-bike", "red bike", "ann"),
        ("blue-bike", "blue bike", ""),
        ("red-car-again", "red car", "bob"),
    ] {
        put(&engine, key, words, "", owner);
    }
    (dir, engine)
}

#[test]
fn terms_add_up_by_their_weights() {
    let (_dir, engine) = vehicles();
    let first = |terms: &[(f32, QuerySource)]| {
        let outcome = ask(&engine, terms, Modality::Image, 1, Shape::default()).unwrap();
        keys(&outcome)[0].to_owned()
    };
    assert_eq!(first(&[(1.0, text("blue")), (1.0, text("bike"))]), "blue-bike");
    assert_eq!(first(&[(1.0, text("car")), (-1.0, text("red"))]), "blue-car");
    assert_eq!(first(&[(1.0, text("bike")), (-1.0, text("red")), (0.1, text("car"))]), "blue-bike");
    // A stored record, less something, plus a picture.
    let stored = QuerySource::Key { key: Key::new("red-car").unwrap(), part: None };
    assert_eq!(first(&[(1.0, stored), (-1.0, text("red")), (1.0, picture("blue"))]), "blue-car");
}

#[test]
fn a_hit_tells_its_cosine_with_every_term() {
    let (_dir, engine) = vehicles();
    let terms = [(2.0, text("red car")), (-0.5, text("bike"))];
    let outcome = ask(&engine, &terms, Modality::Image, 5, Shape::default()).unwrap();
    assert_eq!(keys(&outcome)[..2], ["red-car", "red-car-again"]);
    let best = &outcome.hits[0];
    assert!((best.term_scores[0] - 1.0).abs() < 1e-5 && best.term_scores[1] < 0.9, "{best:?}");
    let single = ask(&engine, &terms[..1], Modality::Image, 1, Shape::default()).unwrap();
    assert!(single.hits[0].term_scores.is_empty());
}

#[test]
fn terms_that_cancel_out_are_refused() {
    let (_dir, engine) = vehicles();
    let terms = [(1.0, text("red")), (-1.0, text("red"))];
    let error = ask(&engine, &terms, Modality::Image, 5, Shape::default()).unwrap_err();
    assert!(matches!(error, EngineError::Cancelled), "{error}");
}

#[test]
fn an_answer_has_the_shape_that_was_asked_for() {
    let (_dir, engine) = vehicles();
    let shaped = |terms: &[(f32, QuerySource)], shape: Shape| {
        let outcome = ask(&engine, terms, Modality::Image, 4, shape).unwrap();
        outcome.hits.iter().map(|found| found.hit.key.to_string()).collect::<Vec<_>>()
    };
    let red_car = [(1.0, text("red car"))];
    let owner = || Some("owner".to_owned());
    // The best of each owner; a record without one stands alone.
    let grouped = shaped(&red_car, Shape { group_by: owner(), ..Shape::default() });
    assert_eq!(grouped, ["red-car", "red-car-again", "blue-bike"]);
    // Nothing of the owner of the record asked with.
    let stored = [(1.0, QuerySource::Key { key: Key::new("red-car").unwrap(), part: None })];
    let others = shaped(&stored, Shape { exclude_same: owner(), ..Shape::default() });
    assert_eq!(others[0], "red-car-again");
    assert!(
        !others.contains(&"red-car".to_owned()) && !others.contains(&"red-bike".to_owned()),
        "{others:?}"
    );
    // Equal pictures are one hit.
    let collapsed = shaped(&red_car, Shape { collapse: Some(0.999), ..Shape::default() });
    assert_eq!(collapsed.len(), 4);
    assert!(!collapsed.contains(&"red-car-again".to_owned()));
    // What repeats the first hit comes late.
    let diverse = shaped(&red_car, Shape { diversity: Some(0.6), ..Shape::default() });
    assert_eq!(diverse[0], "red-car");
    assert_ne!(diverse[1], "red-car-again");
}

#[test]
fn pages_put_together_are_the_whole_answer() {
    let (_dir, engine) = vehicles();
    let page = |k: u64, offset: usize| {
        ask(&engine, &[(1.0, text("red car"))], Modality::Image, k, Shape { offset, ..Shape::default() })
            .unwrap()
    };
    let whole = page(5, 0);
    let (first, second, third) = (page(2, 0), page(2, 2), page(2, 4));
    assert_eq!([keys(&first), keys(&second), keys(&third)].concat(), keys(&whole));
    assert!(first.more && second.more && !third.more);
}

/// Records whose image and text share a word of their own beside words that many have.
fn collection() -> (TempDir, Engine) {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir);
    for i in 0..200 {
        let (kind, place) = (i % 5, i % 3);
        let image = format!("own{i} kind{kind} picture seen from place{place}");
        let words = format!("own{i} kind{kind} report written at place{place}");
        put(&engine, &format!("r{i}"), &image, &words, "");
    }
    (dir, engine)
}

#[test]
fn relevance_keeps_its_promise() {
    let (_dir, engine) = collection();
    let shape = Shape { min_relevance: Some(0.0), ..Shape::default() };
    let own =
        ask(&engine, &[(1.0, text("own7 kind2 report written at place1"))], Modality::Image, 200, shape)
            .unwrap();
    let relevance: Vec<f64> = own.hits.iter().map(|found| found.relevance.unwrap()).collect();
    assert!(relevance.is_sorted_by(|a, b| a >= b) && relevance[0] > 0.5, "{:?}", &relevance[..5]);
    assert!(relevance[100] < 0.05, "{}", relevance[100]);
    let reports = engine.overview().unwrap().relevance;
    let report = reports.iter().find(|r| r.from == Modality::Text && r.to == Modality::Image).unwrap();
    assert!(report.calibration.reliability.error <= 0.05, "{:?}", report.calibration.reliability);
    assert_eq!((report.calibration.questions, report.calibration.points), (200, 200));
}

#[test]
fn when_nothing_is_relevant_the_best_is_answered_apart() {
    let (_dir, engine) = collection();
    let shape = || Shape { min_relevance: Some(0.5), ..Shape::default() };
    let nothing = ask(&engine, &[(1.0, text("a bicycle in winter"))], Modality::Image, 10, shape()).unwrap();
    assert!(nothing.hits.is_empty() && !nothing.more);
    assert_eq!(nothing.below.len(), 3);
    let words = "own7 kind2 report written at place1";
    let found = ask(&engine, &[(1.0, text(words))], Modality::Image, 10, shape()).unwrap();
    assert_eq!(keys(&found), ["r7"]);
    assert!(found.below.is_empty());
    // Two texts of a record would be needed to tell what a score between texts means.
    let error = ask(&engine, &[(1.0, text("a"))], Modality::Text, 10, shape()).unwrap_err();
    assert!(error.to_string().contains("text to text"), "{error}");
    let vector = QuerySource::Vector(vec![1.0; 64]);
    assert!(ask(&engine, &[(1.0, vector)], Modality::Image, 10, shape()).is_err());
}

#[test]
fn both_modalities_make_one_answer() {
    let (_dir, engine) = collection();
    let words = "own7 kind2 picture seen from place1";
    let both = ask(&engine, &[(1.0, text(words))], Target::Both, 10, Shape::default()).unwrap();
    assert_eq!(keys(&both)[0], "r7");
    let mut distinct = keys(&both);
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 10, "one hit per record");
    assert_eq!(both.searched_points, 400);
    assert!(both.notes.iter().any(|note| note.contains("by rank")), "{:?}", both.notes);
}
