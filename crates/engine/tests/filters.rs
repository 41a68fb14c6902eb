//! Filtered searches over a real store: exactly the records that the filter's definition accepts,
//! whatever was written before and after the attributes were first needed.

#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::sync::Arc;

use diptych_core::{
    AttributeValue, Attributes, CollectionName, Comparison, Condition, Filter, FilterValue, HashEncoder, Key,
    Modality, Number, Query, QuerySource, Time,
};
use diptych_engine::{
    AttributeChange, Engine, EngineOptions, IndexKind, NewImage, NewRecord, Plan, PutMode, SearchOutcome,
};
use diptych_store::{Store, StoreOptions};
use proptest::prelude::*;
use tempfile::TempDir;

fn open(dir: &TempDir, index: IndexKind) -> Engine {
    let store = Store::open(dir.path(), &StoreOptions::default()).unwrap();
    let options = EngineOptions { index, ..EngineOptions::default() };
    Engine::open(store, Arc::new(HashEncoder::new(16)), options).unwrap()
}

fn record(key: &str, images: usize, texts: usize, attributes: Attributes) -> NewRecord {
    let words = |n| format!("{key} word {n}");
    NewRecord {
        key: Key::new(key).unwrap(),
        images: (0..images)
            .map(|n| NewImage { bytes: words(n).into_bytes(), source: String::new() })
            .collect(),
        texts: (0..texts).map(words).collect(),
        chunking: diptych_core::Chunking::default(),
        attributes,
    }
}

fn put(engine: &Engine, record: NewRecord) {
    engine.ingest(&CollectionName::default(), vec![record], PutMode::Upsert).unwrap().remove(0).unwrap();
}

fn search(engine: &Engine, filter: Filter, target: Modality, k: u64) -> SearchOutcome {
    let query = Query::new(QuerySource::Text("word".into()), target, k, None).unwrap().with_filter(filter);
    engine.search(&CollectionName::default(), &query).unwrap()
}

fn keys(outcome: &SearchOutcome) -> BTreeSet<String> {
    outcome.hits.iter().map(|found| found.hit.key.to_string()).collect()
}

/// What the definition says: the records with a part of the modality that match, and their points.
fn oracle(engine: &Engine, filter: &Filter, target: Modality) -> (BTreeSet<String>, u64) {
    let records = engine.list(&CollectionName::default(), None, 1000).unwrap();
    let mut found = BTreeSet::new();
    let mut points = 0;
    for stored in records.iter().filter(|stored| filter.matches(stored.record.attributes())) {
        let here = stored.points.iter().filter(|(part, _)| part.modality == target).count() as u64;
        points += here;
        if here > 0 {
            found.insert(stored.record.key().to_string());
        }
    }
    (found, points)
}

fn value() -> impl Strategy<Value = AttributeValue> {
    let word = || prop_oneof![Just("a".to_owned()), Just("b".to_owned()), Just("long ".repeat(20))];
    prop_oneof![
        word().prop_map(AttributeValue::String),
        proptest::collection::vec(word(), 0..3).prop_map(AttributeValue::List),
        (-2i64..3).prop_map(AttributeValue::Integer),
        (-4i32..5).prop_map(|v| AttributeValue::Float(f64::from(v) / 2.0)),
        any::<bool>().prop_map(AttributeValue::Bool),
        (-2i64..3).prop_map(|s| AttributeValue::Time(Time::new(s, 0).unwrap())),
    ]
}

fn attributes() -> impl Strategy<Value = Attributes> {
    proptest::collection::btree_map(name(), value(), 0..3)
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![Just("x".to_owned()), Just("y".to_owned()), Just("z".to_owned())]
}

fn compared() -> impl Strategy<Value = FilterValue> {
    value().prop_map(|value| match value {
        AttributeValue::String(text) => FilterValue::Text(text),
        AttributeValue::List(items) => FilterValue::Text(items.into_iter().next().unwrap_or_default()),
        AttributeValue::Integer(v) => FilterValue::Number(Number::Integer(v)),
        AttributeValue::Float(v) => FilterValue::Number(Number::Float(v)),
        AttributeValue::Bool(v) => FilterValue::Bool(v),
        AttributeValue::Time(v) => FilterValue::Time(v),
    })
}

fn filter() -> impl Strategy<Value = Filter> {
    use Comparison::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
    let comparison =
        proptest::sample::select(vec![Equal, NotEqual, Less, LessOrEqual, Greater, GreaterOrEqual]);
    let leaf = prop_oneof![
        (name(), comparison, compared()).prop_map(|(attribute, comparison, value)| {
            let ordered = matches!(value, FilterValue::Number(_) | FilterValue::Time(_));
            Condition::Compare { attribute, comparison: if ordered { comparison } else { Equal }, value }
        }),
        (name(), proptest::collection::vec(compared(), 1..4))
            .prop_map(|(attribute, values)| Condition::In { attribute, values }),
        (name(), prop_oneof![Just("a"), Just("b")])
            .prop_map(|(attribute, text)| Condition::Has { attribute, text: text.to_owned() }),
        (name(), prop_oneof![Just("a"), Just("lo"), Just("long long ")])
            .prop_map(|(attribute, prefix)| Condition::StartsWith { attribute, prefix: prefix.to_owned() }),
        name().prop_map(|attribute| Condition::Exists { attribute }),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 1..4).prop_map(Condition::All),
            proptest::collection::vec(inner.clone(), 1..4).prop_map(Condition::Any),
            inner.prop_map(|condition| Condition::Not(Box::new(condition))),
        ]
    })
    .prop_map(|condition| Filter::new(condition).unwrap())
}

#[derive(Debug, Clone)]
enum Step {
    Put { key: u8, images: usize, texts: usize, attributes: Attributes },
    Update { key: u8, replace: bool, attributes: Attributes },
    Delete { key: u8 },
    Ask(Filter),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..24, 0usize..3, 1usize..3, attributes())
            .prop_map(|(key, images, texts, attributes)| Step::Put { key, images, texts, attributes }),
        2 => (0u8..24, any::<bool>(), attributes())
            .prop_map(|(key, replace, attributes)| Step::Update { key, replace, attributes }),
        1 => (0u8..24).prop_map(|key| Step::Delete { key }),
        3 => filter().prop_map(Step::Ask),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_filtered_search_finds_exactly_what_matches(steps in proptest::collection::vec(step(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(&dir, IndexKind::Exact);
        put(&engine, record("first", 1, 1, Attributes::new()));
        let key = |n: u8| format!("k{n}");
        for step in steps {
            match step {
                Step::Put { key: n, images, texts, attributes } => {
                    put(&engine, record(&key(n), images, texts, attributes));
                }
                Step::Update { key: n, replace, attributes } => {
                    let values = attributes.into_iter().map(|(name, value)| (name, Some(value))).collect();
                    let change = AttributeChange { replace, values };
                    let key = Key::new(key(n)).unwrap();
                    // Absent as often as not.
                    let _ = engine.update_attributes(&CollectionName::default(), &key, &change, None);
                }
                Step::Delete { key: n } => {
                    // Absent as often as not.
                    let _ = engine.delete(&CollectionName::default(), &Key::new(key(n)).unwrap());
                }
                Step::Ask(filter) => for target in Modality::ALL {
                    let outcome = search(&engine, filter.clone(), target, 1000);
                    let (expected, points) = oracle(&engine, &filter, target);
                    prop_assert_eq!(keys(&outcome), expected, "{} in {:?}", filter, target);
                    prop_assert_eq!(outcome.matching_points, Some(points), "{}", filter);
                },
            }
        }
    }
}

fn case(age: i64, labels: &[&str]) -> Attributes {
    let labels = labels.iter().map(|&label| label.to_owned()).collect();
    Attributes::from([
        ("age".to_owned(), AttributeValue::Integer(age)),
        ("labels".to_owned(), AttributeValue::List(labels)),
    ])
}

#[test]
fn the_best_of_the_matching_are_found_and_not_the_matching_of_the_best() {
    for index in [IndexKind::Graph, IndexKind::Exact] {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(&dir, index);
        let records =
            (0..300).map(|n| record(&format!("r{n:03}"), 2, 1, case(n % 100, &["odd"][..(n % 2) as usize])));
        for answer in engine.ingest(&CollectionName::default(), records.collect(), PutMode::Upsert).unwrap() {
            answer.unwrap();
        }
        let filter: Filter = r#"age < 10 and labels has "odd""#.parse().unwrap();
        let outcome = search(&engine, filter.clone(), Modality::Image, 15);
        assert_eq!(
            (outcome.hits.len(), outcome.matching_points, outcome.searched_points),
            (15, Some(30), 600)
        );
        assert_eq!(keys(&outcome), oracle(&engine, &filter, Modality::Image).0);
        assert!(outcome.hits.windows(2).all(|pair| pair[0].hit.score >= pair[1].hit.score));
        let three = search(&engine, filter, Modality::Image, 3);
        assert_eq!(three.hits, outcome.hits[..3]);
        let all = search(&engine, "exists age".parse().unwrap(), Modality::Text, 300);
        assert_eq!((all.hits.len(), all.notes), (300, vec![]));
    }
}

#[test]
fn a_filter_that_nothing_meets_gives_an_empty_answer_and_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir, IndexKind::Graph);
    put(&engine, record("a", 1, 1, case(40, &["nodule"])));
    let ask = |filter: &str| {
        let outcome = search(&engine, filter.parse().unwrap(), Modality::Image, 10);
        (outcome.hits.len(), outcome.matching_points, outcome.plan, outcome.ef, outcome.notes.join("; "))
    };
    assert_eq!(ask("age > 90"), (0, Some(0), Plan::Scan, None, String::new()));
    for (filter, note) in [
        ("agee > 90", "no record has the attribute 'agee'; there are: age, labels"),
        ("labels = 'nodule'", "'labels' holds lists of texts, no texts; ask what a list contains with 'has'"),
        (
            "age has 'nodule'",
            "'age' holds numbers, no lists of texts; compare single values with '=' or 'in'",
        ),
        ("age = '40' or age in ('40', '41')", "'age' holds numbers, no texts"),
    ] {
        assert_eq!(ask(filter), (0, Some(0), Plan::Scan, None, note.to_owned()), "{filter}");
    }
    assert_eq!(ask("agee != 3").0, 1, "what is absent is not 3");
    engine.delete(&CollectionName::default(), &Key::new("a").unwrap()).unwrap();
    assert_eq!(ask("age = 40").4, "no record has the attribute 'age', or any other");
}

#[test]
fn filters_hold_while_others_write() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir, IndexKind::Graph);
    put(&engine, record("seed", 0, 1, case(0, &["even"])));
    let odd: Filter = "labels has 'odd'".parse().unwrap();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let engine = &engine;
            scope.spawn(move || {
                for n in 0..60 {
                    // All writers share the keys, so they overtake each other.
                    let label = if (n + writer) % 2 == 0 { "even" } else { "odd" };
                    let key = format!("k{}", (n * 7) % 20);
                    put(engine, record(&key, 1, 1 + n % 3, case(writer as i64, &[label])));
                    if n % 9 == writer {
                        let _ = engine.delete(&CollectionName::default(), &Key::new(key).unwrap());
                    }
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..60 {
                    let outcome = search(&engine, odd.clone(), Modality::Image, 50);
                    let matches = outcome.hits.iter().all(|found| odd.matches(found.record.attributes()));
                    assert!(matches, "{:?}", outcome.hits);
                }
            });
        }
    });
    for filter in ["labels has 'odd'", "labels has 'even'", "age in (1, 3)", "exists age"] {
        let filter: Filter = filter.parse().unwrap();
        for target in Modality::ALL {
            let outcome = search(&engine, filter.clone(), target, 1000);
            assert_eq!((keys(&outcome), outcome.matching_points.unwrap()), oracle(&engine, &filter, target));
        }
    }
}
