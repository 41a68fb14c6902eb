//! Random histories, with restarts, against a map in memory.

use std::collections::{BTreeMap, BTreeSet};

use diptych_core::PointId;
use diptych_store::{Outcome, PutMode, Stats};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::*;

#[derive(Debug, Clone)]
enum Change {
    Put { name: String, content: Content, mode: PutMode },
    Delete { name: String },
}

#[derive(Debug, Clone)]
enum Step {
    Call(Vec<Change>),
    Reopen,
}

fn change() -> impl Strategy<Value = Change> {
    let name = || (0..6u8).prop_map(|n| format!("k{n}"));
    let content = (0..3u8, 0..3u32, 0..3u32)
        .prop_filter("a record needs a part", |(_, images, texts)| images + texts > 0)
        .prop_map(|(version, images, texts)| Content { version, images, texts });
    let mode = prop_oneof![3 => Just(PutMode::Upsert), 1 => Just(PutMode::InsertOnly)];
    prop_oneof![
        4 => (name(), content, mode).prop_map(|(name, content, mode)| Change::Put { name, content, mode }),
        1 => name().prop_map(|name| Change::Delete { name }),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let call = proptest::collection::vec(change(), 1..6).prop_map(Step::Call);
    proptest::collection::vec(prop_oneof![6 => call, 1 => Just(Step::Reopen)], 1..20)
}

/// What the store should answer, by the book.
fn expect(model: &mut BTreeMap<String, Content>, change: &Change) -> Outcome {
    match change {
        Change::Delete { name } => match model.remove(name) {
            Some(_) => Outcome::Deleted,
            None => Outcome::NotFound,
        },
        Change::Put { name, content, mode } => match model.get(name) {
            Some(found) if found == content => Outcome::Unchanged,
            Some(_) if *mode == PutMode::InsertOnly => Outcome::AlreadyExists,
            found => {
                let outcome = if found.is_some() { Outcome::Updated } else { Outcome::Created };
                model.insert(name.clone(), *content);
                outcome
            }
        },
    }
}

fn assert_equal(store: &Store, id: u32, model: &BTreeMap<String, Content>) {
    let mut stats = Stats::default();
    for (name, content) in model {
        assert_stored(store, id, name, *content);
        stats.records += 1;
        stats.image_points += u64::from(content.images);
        stats.text_points += u64::from(content.texts);
        // Every text but the first is too long for the context.
        stats.truncated_texts += u64::from(content.texts.saturating_sub(1));
    }
    let listed: Vec<String> = store
        .list(id, None, usize::MAX)
        .unwrap()
        .iter()
        .map(|stored| stored.record.key().as_str().to_owned())
        .collect();
    assert_eq!(listed, model.keys().cloned().collect::<Vec<_>>());
    assert_eq!(store.stats(id).unwrap(), stats);

    // The journal, replayed, gives exactly the points that are there, and no id twice.
    let (mut live, mut ever) = (BTreeSet::new(), BTreeSet::new());
    for entry in store.journal(0) {
        let entry = entry.unwrap();
        for (part, point) in entry.removed {
            assert!(live.remove(&(entry.key.clone(), part, point)));
        }
        for (part, point) in entry.added {
            assert!(ever.insert(point), "{point:?} was given out twice");
            live.insert((entry.key.clone(), part, point));
        }
    }
    let scanned: BTreeSet<PointId> = Modality::ALL
        .into_iter()
        .flat_map(|modality| store.scan_vectors(id, modality).unwrap().map(|item| item.unwrap().0))
        .collect();
    assert_eq!(live.iter().map(|(_, _, point)| *point).collect::<BTreeSet<_>>(), scanned);
    assert_clean(store);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, rng_seed: RngSeed::Fixed(7), ..ProptestConfig::default() })]

    #[test]
    fn behaves_like_a_map_that_survives_restarts(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        let id = collection(&store).id;
        let mut model = BTreeMap::new();
        for step in steps {
            match step {
                Step::Call(changes) => {
                    let mutations = changes
                        .iter()
                        .map(|change| match change {
                            Change::Put { name, content, mode } => content.put(name, *mode),
                            Change::Delete { name } => delete(name),
                        })
                        .collect();
                    let applied = store.write(id, mutations).unwrap();
                    for (applied, change) in applied.iter().zip(&changes) {
                        prop_assert_eq!(applied.outcome, expect(&mut model, change));
                    }
                }
                Step::Reopen => {
                    drop(store);
                    store = open(dir.path());
                }
            }
        }
        assert_equal(&store, id, &model);
        drop(store);
        assert_equal(&open(dir.path()), id, &model);
    }
}
