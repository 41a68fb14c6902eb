//! Words beside vectors: what is found, in which order, after which writes, starts and damage; with the hash
//! encoder, by which equal words meet across modalities.

#![allow(clippy::unwrap_used, missing_docs)]

use std::path::PathBuf;
use std::sync::Arc;

use diptych_core::{
    AttributeValue, Attributes, CollectionName, Fusion, HashEncoder, Key, Lexical, Modality, Query,
    QuerySource, Shape, Target,
};
use diptych_engine::{
    Engine, EngineError, EngineOptions, Found, IndexKind, NewImage, NewRecord, PutMode, SearchOutcome,
};
use diptych_store::{Store, StoreOptions};
use tempfile::TempDir;

fn open(dir: &TempDir, index: IndexKind) -> Engine {
    let store = Store::open(dir.path(), &StoreOptions::default()).unwrap();
    Engine::open(store, Arc::new(HashEncoder::new(64)), EngineOptions { index, ..EngineOptions::default() })
        .unwrap()
}

/// A record of an image, if it is named, and of texts; the attribute `view`.
fn put(engine: &Engine, key: &str, image: &str, texts: &[&str], view: &str) {
    let images = match image {
        "" => Vec::new(),
        words => vec![NewImage { bytes: words.as_bytes().to_vec(), source: String::new() }],
    };
    let record = NewRecord {
        key: Key::new(key).unwrap(),
        images,
        texts: texts.iter().map(|text| (*text).to_owned()).collect(),
        attributes: Attributes::from([("view".to_owned(), AttributeValue::String(view.to_owned()))]),
        chunking: diptych_core::Chunking::default(),
    };
    engine.ingest(&CollectionName::default(), vec![record], PutMode::Upsert).unwrap().remove(0).unwrap();
}

fn cases(engine: &Engine) {
    put(engine, "a", "left effusion", &["Large left pleural effusion."], "PA");
    put(engine, "b", "right effusion", &["No pneumothorax.", "Pleural thickening, right effusion."], "PA");
    put(engine, "c", "cardiomegaly", &["Cardiomegaly. No effusions."], "AP");
    put(engine, "d", "", &["A pleural effusion on the left."], "AP");
    put(engine, "e", "normal", &[], "PA");
}

fn lexical(text: &str) -> Lexical {
    Lexical { text: text.to_owned(), fusion: Fusion::default() }
}

fn words(text: &str, target: impl Into<Target>) -> Query {
    Query::words(lexical(text), target, 10).unwrap()
}

fn hybrid(meant: &str, text: &str, target: impl Into<Target>) -> Query {
    let query = Query::new(QuerySource::Text(meant.to_owned()), target, 10, None).unwrap();
    query.with_lexical(lexical(text)).unwrap()
}

fn ask(engine: &Engine, query: &Query) -> SearchOutcome {
    engine.search(&CollectionName::default(), query).unwrap()
}

fn keys(outcome: &SearchOutcome) -> Vec<&str> {
    outcome.hits.iter().map(|found| found.hit.key.as_str()).collect()
}

fn sorted(outcome: &SearchOutcome) -> Vec<&str> {
    let mut keys = keys(outcome);
    keys.sort_unstable();
    keys
}

fn hit<'o>(outcome: &'o SearchOutcome, key: &str) -> &'o Found {
    outcome.hits.iter().find(|found| found.hit.key.as_str() == key).unwrap()
}

#[test]
fn words_alone_are_found_without_encoding() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir, IndexKind::Exact);
    cases(&engine);
    let before = engine.overview().unwrap().query_cache;
    let outcome = ask(&engine, &words("effusion", Target::Both));
    assert_eq!(sorted(&outcome), ["a", "b", "c", "d"]);
    assert_eq!((outcome.lexical_matches, outcome.searched_points), (Some(4), 5));
    assert!(outcome.hits.iter().all(|found| found.hit.score == 0.0 && found.relevance.is_none()));
    let scores: Vec<f32> = outcome.hits.iter().map(|found| found.lexical.unwrap().score).collect();
    assert!(scores.windows(2).all(|pair| pair[0] >= pair[1]) && scores[3] > 0.0, "{scores:?}");
    assert_eq!(hit(&outcome, "b").hit.part.to_string(), "text:1", "the text that has the word");
    assert_eq!(engine.overview().unwrap().query_cache, before);

    assert_eq!(keys(&ask(&engine, &words("\"pleural effusion\" left", Target::Both))), ["a", "d"]);
    let images = ask(&engine, &words("\"pleural effusion\"", Modality::Image));
    assert_eq!(keys(&images), ["a"], "d has no image");
    assert_eq!(images.hits[0].hit.part.to_string(), "image:0");
    assert_eq!(images.hits[0].lexical.unwrap().part.to_string(), "text:0");
    let none = ask(&engine, &words("aorta", Target::Both));
    assert_eq!((none.hits.len(), none.lexical_matches), (0, Some(0)));
    assert!(none.notes.iter().any(|note| note.contains("has the words")), "{:?}", none.notes);
    for nothing in ["", "\"", "-effusion"] {
        let refused = engine.search(&CollectionName::default(), &words(nothing, Target::Both));
        assert!(matches!(refused, Err(EngineError::Lexical(_))), "{nothing}");
    }
}

#[test]
fn a_phrase_is_required_of_every_hit_whoever_found_it() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir, IndexKind::Exact);
    cases(&engine);
    assert_eq!(ask(&engine, &hybrid("cardiomegaly", "effusion", Target::Both)).hits.len(), 5);
    let phrase = |target: Target| ask(&engine, &hybrid("cardiomegaly", "\"pleural effusion\"", target));
    assert_eq!(sorted(&phrase(Target::Both)), ["a", "d"]);
    assert_eq!(sorted(&phrase(Modality::Text.into())), ["a", "d"]);
    assert_eq!(keys(&phrase(Modality::Image.into())), ["a"]);
    let without = ask(&engine, &hybrid("effusion", "effusion -left", Modality::Image));
    assert_eq!(sorted(&without), ["b", "c", "e"]);
    assert!(hit(&without, "e").lexical.is_none());
    let required = ask(&engine, &hybrid("normal", "+right +pneumothorax", Modality::Image));
    assert_eq!(keys(&required), ["b"], "the words are in two texts of one record");
}

#[test]
fn a_record_that_words_found_has_its_cosine() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir, IndexKind::Exact);
    for n in 0..300 {
        put(&engine, &format!("near-{n:03}"), "", &[&format!("cat {n}")], "PA");
    }
    put(&engine, "far", "", &["something about an aneurysm", "another text"], "PA");
    let meant = Query::new(QuerySource::Text("cat".into()), Modality::Text, 1000, None).unwrap();
    let expected = ask(&engine, &meant);
    let both = ask(&engine, &hybrid("cat", "aneurysm", Modality::Text));
    assert_eq!(hit(&both, "far").hit.score, hit(&expected, "far").hit.score);
    assert_eq!(hit(&both, "far").hit.part, hit(&expected, "far").hit.part);
    assert_eq!(hit(&both, "far").lexical.unwrap().part.to_string(), "text:0");
    // Pages follow each other.
    let page = |offset, k| {
        let query = Query::new(QuerySource::Text("cat".into()), Modality::Text, k, None).unwrap();
        let query = query.with_lexical(lexical("aneurysm 7")).unwrap();
        ask(&engine, &query.with_shape(Shape { offset, ..Shape::default() }).unwrap())
    };
    let whole: Vec<String> = keys(&page(0, 30)).into_iter().map(str::to_owned).collect();
    let pages: Vec<String> = [0, 10, 20]
        .iter()
        .flat_map(|&at| keys(&page(at, 10)).into_iter().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    assert_eq!(pages, whole);
    assert!(page(0, 10).more);
}

/// Cosines of `vector` with two directions, and one text each.
#[test]
fn both_orders_become_one_as_reckoned_by_hand() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir, IndexKind::Exact);
    // Nearer to "sun" the fewer other words there are; by the word "moon" the order is the other way round.
    for (key, image, text) in [
        ("p", "sun", "stars"),
        ("q", "sun sky", "moon and stars and clouds and rain"),
        ("r", "sun sky sea", "moon"),
        ("s", "cave", "moon and stars"),
    ] {
        put(&engine, key, image, &[text], "PA");
    }
    let by_vector =
        ask(&engine, &Query::new(QuerySource::Text("sun".into()), Modality::Image, 10, None).unwrap());
    assert_eq!(keys(&by_vector), ["p", "q", "r", "s"]);
    let by_words = ask(&engine, &words("moon", Modality::Image));
    assert_eq!(keys(&by_words), ["r", "s", "q"]);
    let order = |fusion: Fusion| {
        let query = Query::new(QuerySource::Text("sun".into()), Modality::Image, 10, None).unwrap();
        let query = query.with_lexical(Lexical { text: "moon".into(), fusion }).unwrap();
        keys(&ask(&engine, &query)).join("")
    };
    // k = 60: r 1/63 + 1/61 > s 1/64 + 1/62 > q 1/62 + 1/63 > p 1/61.
    // r .0322665, s .0317540, q .0320020, p .0163934: so r, q, s, p.
    assert_eq!(order(Fusion::default()), "rqsp");
    // k = 1: p 1/2 = .5; q 1/3 + 1/4 = .5833; r 1/4 + 1/2 = .75; s 1/5 + 1/3 = .5333.
    assert_eq!(order(Fusion::Rrf { k: 1.0 }), "rqsp");
    // Words count nothing, or everything.
    assert_eq!(order(Fusion::Weighted { lexical: 0.0 }), "pqrs");
    assert_eq!(order(Fusion::Weighted { lexical: 1.0 }), "rsqp");
    // Half each, of the scaled scores.
    let cosine = |key: &str| f64::from(hit(&by_vector, key).hit.score);
    let bm25 = |key: &str| {
        by_words
            .hits
            .iter()
            .find(|f| f.hit.key.as_str() == key)
            .map_or(0.0, |f| f64::from(f.lexical.unwrap().score))
    };
    let scaled = |value: f64, least: f64, greatest: f64| (value - least) / (greatest - least);
    let worth = |key: &str| {
        0.5 * scaled(cosine(key), cosine("s"), cosine("p")) + 0.5 * scaled(bm25(key), 0.0, bm25("r"))
    };
    let mut expected = ["p", "q", "r", "s"];
    expected.sort_by(|a, b| worth(b).total_cmp(&worth(a)));
    assert_eq!(order(Fusion::Weighted { lexical: 0.5 }), expected.join(""));
}

#[test]
fn filters_and_shapes_hold_for_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir, IndexKind::Exact);
    cases(&engine);
    let filtered = |query: Query| ask(&engine, &query.with_filter("view = 'AP'".parse().unwrap()));
    let alone = filtered(words("effusion", Target::Both));
    assert_eq!(
        (sorted(&alone), alone.lexical_matches, alone.matching_points),
        (vec!["c", "d"], Some(2), Some(2))
    );
    assert_eq!(sorted(&filtered(hybrid("left effusion", "effusion", Target::Both))), ["c", "d"]);
    assert_eq!(keys(&filtered(words("\"no pneumothorax\"", Target::Both))), [""; 0]);
    let grouped = |query: Query| {
        let shape = Shape { group_by: Some("view".to_owned()), ..Shape::default() };
        ask(&engine, &query.with_shape(shape).unwrap()).hits.len()
    };
    assert_eq!(grouped(words("effusion", Target::Both)), 2);
    assert_eq!(grouped(hybrid("effusion", "effusion", Target::Both)), 2);
    let diverse = Shape { diversity: Some(0.5), collapse: Some(0.99), ..Shape::default() };
    for query in [words("effusion", Target::Both), hybrid("effusion", "effusion", Modality::Image)] {
        let plain = ask(&engine, &query);
        let shaped = ask(&engine, &query.with_shape(diverse.clone()).unwrap());
        assert_eq!(keys(&shaped)[0], keys(&plain)[0]);
        assert_eq!(shaped.hits.len(), plain.hits.len());
    }
}

#[test]
fn every_acknowledged_write_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir, IndexKind::Graph);
    cases(&engine);
    let found = |text: &str| -> Vec<String> {
        sorted(&ask(&engine, &words(text, Target::Both))).into_iter().map(str::to_owned).collect()
    };
    assert_eq!(found("pneumothorax"), ["b"]);
    put(&engine, "f", "", &["Pneumothorax!"], "PA");
    assert_eq!(found("pneumothorax"), ["b", "f"]);
    put(&engine, "b", "", &["Nothing."], "PA");
    assert_eq!(found("pneumothorax"), ["f"]);
    engine.delete(&CollectionName::default(), &Key::new("f").unwrap()).unwrap();
    assert_eq!(found("pneumothorax"), [""; 0]);
    let filter = "view = 'AP'".parse().unwrap();
    engine.delete_matching(&CollectionName::default(), &filter, None, |_, _| true).unwrap();
    assert_eq!(found("effusion nothing"), ["a", "b"]);
}

/// Where the words of the first collection are.
fn words_dir(dir: &TempDir) -> PathBuf {
    let mut dirs = std::fs::read_dir(dir.path().join("index")).unwrap().map(|entry| entry.unwrap().path());
    dirs.find(|path| path.to_string_lossy().ends_with("-words")).unwrap()
}

#[test]
fn files_are_caught_up_with_or_built_again() {
    let dir = tempfile::tempdir().unwrap();
    let query = words("effusion nothing", Target::Both);
    let scores = |outcome: &SearchOutcome| -> Vec<(String, f32)> {
        let of = |found: &Found| (found.hit.key.to_string(), found.lexical.unwrap().score);
        outcome.hits.iter().map(of).collect()
    };
    let engine = open(&dir, IndexKind::Graph);
    cases(&engine);
    assert_eq!(ask(&engine, &query).hits.len(), 4);
    drop(engine);
    // Written while nobody asked for words.
    let engine = open(&dir, IndexKind::Graph);
    put(&engine, "a", "", &["Nothing."], "PA");
    put(&engine, "g", "", &["Effusion of another kind.", "Nothing else."], "PA");
    engine.delete(&CollectionName::default(), &Key::new("c").unwrap()).unwrap();
    drop(engine);
    let exact = scores(&ask(&open(&dir, IndexKind::Exact), &query));
    assert_eq!(exact.len(), 4);
    for kind in [IndexKind::Ready, IndexKind::Graph] {
        assert_eq!(scores(&ask(&open(&dir, kind), &query)), exact, "{kind:?}");
    }
    // Damage, another state, and files that are gone.
    let meta = words_dir(&dir).join("meta.json");
    let told = std::fs::read_to_string(&meta).unwrap();
    std::fs::write(&meta, &told[..told.len() / 2]).unwrap();
    let store = Store::open(dir.path(), &StoreOptions::default()).unwrap();
    let problems = diptych_engine::verify(&store).unwrap().problems;
    assert!(problems.len() == 1 && problems[0].contains("word index"), "{problems:?}");
    drop(store);
    assert_eq!(scores(&ask(&open(&dir, IndexKind::Graph), &query)), exact);
    let segment = std::fs::read_dir(words_dir(&dir)).unwrap().map(|entry| entry.unwrap().path());
    let segment = segment.filter(|path| path.extension().is_some_and(|e| e == "idx")).max().unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    assert_eq!(scores(&ask(&open(&dir, IndexKind::Graph), &query)), exact);
    let store = Store::open(dir.path(), &StoreOptions::default()).unwrap();
    assert_eq!(diptych_engine::verify(&store).unwrap().problems, [""; 0]);
    drop(store);
    std::fs::remove_dir_all(words_dir(&dir)).unwrap();
    assert_eq!(scores(&ask(&open(&dir, IndexKind::Graph), &query)), exact);

    let engine = open(&dir, IndexKind::Graph);
    ask(&engine, &query);
    let path = words_dir(&dir);
    engine.delete_collection(&CollectionName::default()).unwrap();
    assert!(!path.exists());
    // Left by a deletion that was cut short.
    drop(engine);
    std::fs::create_dir_all(&path).unwrap();
    drop(open(&dir, IndexKind::Graph));
    assert!(!path.exists());
}
