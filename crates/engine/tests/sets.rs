//! Searches by several images and sentences at once, each for itself.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use diptych_core::{
    Attributes, Chunking, CollectionName, Encode, HashEncoder, Key, Modality, QuerySource, SetQuery,
};
use diptych_engine::{Engine, EngineError, EngineOptions, NewImage, NewRecord, PutMode, SetOutcome};
use diptych_store::{Store, StoreOptions};
use tempfile::TempDir;

const DIM: usize = 48;

fn open(dir: &TempDir) -> Engine {
    let store = Store::open(dir.path(), &StoreOptions { create: true, ..StoreOptions::default() }).unwrap();
    Engine::open(store, Arc::new(HashEncoder::new(DIM)), EngineOptions::default()).unwrap()
}

fn record(key: &str, images: &[&str], text: &str, ward: i64) -> NewRecord {
    let image = |words: &&str| NewImage { bytes: words.as_bytes().to_vec(), source: String::new() };
    NewRecord {
        key: Key::new(key).unwrap(),
        images: images.iter().map(image).collect(),
        texts: if text.is_empty() { Vec::new() } else { vec![text.to_owned()] },
        chunking: Chunking::Sentences,
        attributes: Attributes::from([("ward".to_owned(), ward.into())]),
    }
}

fn archive() -> (Engine, TempDir) {
    let dir = TempDir::new().unwrap();
    let engine = open(&dir);
    let records = vec![
        record("both", &["red bird", "blue bird"], "A red bird sits. A blue bird flies.", 1),
        record("half", &["red bird", "green car"], "A red bird sits. A green car waits.", 1),
        record("none", &["green car", "grey car"], "A green car waits. A grey car drives.", 2),
        record("silent", &["red bird", "blue bird"], "", 2),
        record("unseen", &[], "A red bird sits. A blue bird flies.", 3),
    ];
    for written in engine.ingest(&CollectionName::default(), records, PutMode::Upsert).unwrap() {
        written.unwrap();
    }
    (engine, dir)
}

fn image(words: &str) -> QuerySource {
    QuerySource::Image(words.as_bytes().to_vec())
}

fn text(words: &str) -> QuerySource {
    QuerySource::Text(words.to_owned())
}

fn search(engine: &Engine, query: &SetQuery) -> SetOutcome {
    engine.search_set(&CollectionName::default(), query).unwrap()
}

fn keys(outcome: &SetOutcome) -> Vec<&str> {
    outcome.hits.iter().map(|hit| hit.record.key().as_str()).collect()
}

#[test]
fn a_record_is_judged_by_how_well_each_part_of_the_set_is_met() {
    let (engine, _dir) = archive();
    let query = SetQuery::new(vec![image("red bird"), image("blue bird")], 10).unwrap();
    let outcome = search(&engine, &query);
    let found = keys(&outcome);
    let place = |key: &str| found.iter().position(|found| *found == key).unwrap();
    assert!(place("both") < place("half") && place("half") < place("none"), "{found:?}");
    assert!(place("silent") < place("half"), "what lacks a text is judged by its images: {found:?}");
    let best = &outcome.hits[place("both")];
    assert!(best.image.unwrap().cosine > 0.999);
    // One sentence comes from the images alone, across.
    let sentence = best.text.unwrap();
    assert_eq!(outcome.parts[sentence.query_part].modality, Modality::Image);
    assert_eq!(outcome.searched_points, 8 + 8);
}

#[test]
fn the_evidence_is_that_of_a_comparison_by_hand() {
    let (engine, _dir) = archive();
    let encoder = HashEncoder::new(DIM);
    let embed =
        |words: &str| encoder.encode_texts(&[encoder.prepare_text(words).unwrap()]).unwrap().remove(0);
    let asked = ["A blue bird sits.", "grey"];
    let query = SetQuery::new(asked.iter().map(|words| text(words)).collect(), 10).unwrap();
    for hit in search(&engine, &query).hits {
        let Some(found) = hit.text else { continue };
        let said: Vec<String> = hit
            .record
            .part_refs()
            .filter_map(|(at, part)| match (part, at.chunk) {
                (diptych_core::Part::Text(text), Some(n)) => Some(text.text[text.chunk(n)?].to_owned()),
                _ => None,
            })
            .collect();
        let cosine = |asked: &str, said: &String| embed(asked).cosine(&embed(said));
        let best = asked.iter().flat_map(|a| said.iter().map(move |s| cosine(a, s))).fold(-1.0, f32::max);
        assert!((found.cosine - best).abs() < 1e-5, "{}: {} and {best}", hit.record.key(), found.cosine);
        let named = cosine(asked[found.query_part], &said[found.part.chunk.unwrap() as usize]);
        assert!((found.cosine - named).abs() < 1e-5, "the parts that are named are those compared");
    }
}

#[test]
fn a_stored_record_stands_for_all_its_parts_and_is_not_its_own_answer() {
    let (engine, _dir) = archive();
    let key = |key: &str, part: Option<&str>| QuerySource::Key {
        key: Key::new(key).unwrap(),
        part: part.map(|part| part.parse().unwrap()),
    };
    let outcome = search(&engine, &SetQuery::new(vec![key("both", None)], 10).unwrap());
    assert_eq!(outcome.parts.len(), 4);
    let found = keys(&outcome);
    assert!(!found.contains(&"both") && found.last() == Some(&"none"), "{found:?}");
    let outcome = search(&engine, &SetQuery::new(vec![key("both", Some("text:0#1"))], 10).unwrap());
    assert_eq!(outcome.parts.len(), 1);
    let refused =
        |source| engine.search_set(&CollectionName::default(), &SetQuery::new(vec![source], 10).unwrap());
    assert!(matches!(refused(key("nobody", None)), Err(EngineError::RecordNotFound { .. })));
    assert!(matches!(refused(key("silent", Some("text:0"))), Err(EngineError::PartNotFound { .. })));
}

#[test]
fn only_what_meets_the_filter_is_found_and_a_second_look_brings_what_is_far() {
    let (engine, _dir) = archive();
    let birds = || vec![image("red bird"), text("A red bird sits.")];
    let ward = |filter: &str| Some(filter.parse().unwrap());
    let outcome = search(&engine, &SetQuery::new(birds(), 10).unwrap().with_filter(ward("ward = 2")));
    assert_eq!(keys(&outcome), ["silent", "none"]);
    // So small a pool does not reach it.
    let near = SetQuery::new(birds(), 1).unwrap();
    assert!(!keys(&search(&engine, &near)).contains(&"none"));
    let also = near.with_also(ward("ward = 2 and not exists name"));
    let found = search(&engine, &also);
    assert!(keys(&found).contains(&"silent"), "{:?}", keys(&found));
    let neither = also.with_filter(ward("ward = 9"));
    assert!(search(&engine, &neither).hits.is_empty());
}
