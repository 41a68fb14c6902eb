//! Writing, reading back, replacing, deleting, listing, the journal.

use std::collections::BTreeSet;

use diptych_core::{
    AttributeValue, Attributes, Digest, Embedding, Key, Modality, Part, PartRef, PointId, Record, TextPart,
};
use diptych_store::{Mutation, Outcome, PutMode, Stats, StoreError};

use crate::*;

#[test]
fn every_kind_of_value_comes_back_as_it_went_in() {
    let dir = tempfile::tempdir().unwrap();
    let attributes = Attributes::from([
        ("empty".to_owned(), AttributeValue::String(String::new())),
        ("string".to_owned(), AttributeValue::String("Zürich \u{1F43E}\nline\0two".to_owned())),
        ("list".to_owned(), AttributeValue::List(vec![String::new(), "effusion".to_owned()])),
        ("least".to_owned(), AttributeValue::Integer(i64::MIN)),
        ("greatest".to_owned(), AttributeValue::Integer(i64::MAX)),
        ("small".to_owned(), AttributeValue::Float(-f64::MIN_POSITIVE)),
        ("large".to_owned(), AttributeValue::Float(f64::MAX)),
        ("yes".to_owned(), AttributeValue::Bool(true)),
        ("no".to_owned(), AttributeValue::Bool(false)),
    ]);
    let image = Content { version: 255, images: 1, texts: 0 }.record("x").parts()[0].clone();
    let long = TextPart::whole("wörd ".repeat(10_000), u32::MAX);
    let parts = vec![Part::Text(long), image.clone(), image];
    let name = "a key with spaces, / and ünïcode";
    let record = Record::new(key(name), parts, attributes).unwrap();
    let vectors: Vec<_> = record.part_refs().map(|(part, _)| (part, vector(&part.to_string()))).collect();
    // The order of the vectors does not matter.
    let given = vectors.iter().rev().cloned().collect();
    let put = Mutation::Put {
        record: record.clone(),
        vectors: given,
        thumbnails: Vec::new(),
        digest: Digest([0xff; 32]),
        mode: PutMode::InsertOnly,
    };

    let store = open(dir.path());
    let id = collection(&store).id;
    let applied = store.write(id, vec![put]).unwrap().remove(0);
    assert_eq!((applied.outcome, applied.seq), (Outcome::Created, Some(1)));
    drop(store);

    let store = open(dir.path());
    let stored = store.get(id, &key(name)).unwrap().unwrap();
    assert_eq!(stored.record, record);
    assert_eq!((stored.digest, stored.seq), (Digest([0xff; 32]), 1));
    assert_eq!(stored.points, applied.added);
    assert_eq!(store.digest(id, &key(name)).unwrap(), Some(Digest([0xff; 32])));
    for (part, embedding) in vectors {
        let &(_, point) = stored.points.iter().find(|(found, _)| *found == part).unwrap();
        assert_eq!(store.vectors(id, part.modality, &[point]).unwrap(), [Some(embedding)]);
        assert_eq!(store.owners(id, &[point]).unwrap(), [Some((key(name), part))]);
    }
    assert_clean(&store);
}

#[test]
fn a_long_text_has_a_point_per_chunk_and_comes_back_whole() {
    let dir = tempfile::tempdir().unwrap();
    let text = "Erster Satz, überlang. Zweiter Satz.";
    let long = TextPart { chunk_ends: vec![24, 37], ..TextPart::whole(text, 0) };
    let parts = vec![Part::Text(TextPart::whole("short", 0)), Part::Text(long)];
    let record = Record::new(key("long"), parts, Attributes::new()).unwrap();
    let vectors: Vec<_> = record.part_refs().map(|(part, _)| (part, vector(&part.to_string()))).collect();
    let names: Vec<String> = vectors.iter().map(|(part, _)| part.to_string()).collect();
    assert_eq!(names, ["text:0", "text:1#0", "text:1#1"]);
    let put = |record: &Record, digest, vectors: &[(PartRef, Embedding)]| Mutation::Put {
        record: record.clone(),
        vectors: vectors.to_vec(),
        thumbnails: Vec::new(),
        digest: Digest([digest; 32]),
        mode: PutMode::Upsert,
    };
    let store = open(dir.path());
    let id = collection(&store).id;
    let missing = store.write(id, vec![put(&record, 1, &vectors[..2])]);
    assert!(matches!(missing, Err(StoreError::InvalidMutation { .. })), "{missing:?}");
    let applied = store.write(id, vec![put(&record, 1, &vectors)]).unwrap().remove(0);
    drop(store);

    let store = open(dir.path());
    let stored = store.get(id, &key("long")).unwrap().unwrap();
    assert_eq!((&stored.record, &stored.points), (&record, &applied.added));
    for ((part, embedding), (_, point)) in vectors.iter().zip(&stored.points) {
        assert_eq!(store.owners(id, &[*point]).unwrap(), [Some((key("long"), *part))]);
        assert_eq!(store.vectors(id, Modality::Text, &[*point]).unwrap(), [Some(embedding.clone())]);
    }
    assert_eq!(store.stats(id).unwrap().text_points, 3);
    assert_clean(&store);
    // Replaced by a short one, all its points go.
    let short = Record::new(key("long"), vec![record.parts()[0].clone()], Attributes::new()).unwrap();
    let applied = store.write(id, vec![put(&short, 2, &vectors[..1])]).unwrap().remove(0);
    assert_eq!(applied.removed, stored.points);
    assert_eq!(store.stats(id).unwrap().text_points, 1);
    assert_clean(&store);
}

#[test]
fn an_upsert_replaces_all_points_and_never_reuses_an_id() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let id = collection(&store).id;
    let first = store.write(id, vec![content(1).upsert("a")]).unwrap().remove(0);
    let wide = Content { version: 2, images: 3, texts: 2 };
    let second = store.write(id, vec![wide.upsert("a")]).unwrap().remove(0);
    assert_eq!(second.outcome, Outcome::Updated);
    assert_eq!(second.removed, first.added);
    assert_eq!(
        second.added.iter().map(|&(part, _)| part).collect::<Vec<_>>(),
        [image(0), image(1), image(2), text(0), text(1)]
    );
    assert_stored(&store, id, "a", wide);

    let old: Vec<PointId> = first.added.iter().map(|&(_, point)| point).collect();
    assert_eq!(store.owners(id, &old).unwrap(), [None, None]);
    assert_eq!(store.vectors(id, Modality::Image, &old).unwrap(), [None, None]);

    let gone = store.write(id, vec![delete("a")]).unwrap().remove(0);
    assert_eq!((gone.outcome, &gone.removed), (Outcome::Deleted, &second.added));
    assert_eq!(store.get(id, &key("a")).unwrap(), None);
    assert_eq!(store.record_vectors(id, &key("a")).unwrap(), None);
    drop(store);

    let store = open(dir.path());
    let third = store.write(id, vec![content(1).upsert("a")]).unwrap().remove(0);
    let mut seen = BTreeSet::new();
    for (_, point) in [first.added, second.added, third.added].concat() {
        assert!(seen.insert(point), "{point:?} was given out twice");
    }
    assert_eq!(
        store.stats(id).unwrap(),
        Stats { records: 1, image_points: 1, text_points: 1, truncated_texts: 0 }
    );
    assert_clean(&store);
}

#[test]
fn the_same_content_again_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let id = collection(&store).id;
    store.write(id, vec![content(1).upsert("a")]).unwrap();
    let before = store.usage();
    for mode in [PutMode::Upsert, PutMode::InsertOnly] {
        let again = store.write(id, vec![content(1).put("a", mode)]).unwrap().remove(0);
        assert_eq!((again.outcome, again.seq), (Outcome::Unchanged, None));
        assert_eq!((again.added, again.removed), (vec![], vec![]));
    }
    // Not even a batch was written.
    assert_eq!(store.usage().batches, before.batches);
    assert_eq!(store.last_seq(), 1);
}

#[test]
fn changes_of_one_call_see_each_other_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let id = collection(&store).id;
    let calls = vec![
        delete("a"),
        content(1).put("a", PutMode::InsertOnly),
        content(1).put("a", PutMode::InsertOnly),
        content(2).put("a", PutMode::InsertOnly),
        content(2).upsert("a"),
        delete("a"),
        delete("a"),
        content(3).put("a", PutMode::InsertOnly),
        content(1).upsert("b"),
    ];
    let applied = store.write(id, calls).unwrap();
    let outcomes: Vec<Outcome> = applied.iter().map(|a| a.outcome).collect();
    use Outcome::*;
    assert_eq!(
        outcomes,
        [NotFound, Created, Unchanged, AlreadyExists, Updated, Deleted, NotFound, Created, Created]
    );
    let seqs: Vec<Option<u64>> = applied.iter().map(|a| a.seq).collect();
    assert_eq!(seqs, [None, Some(1), None, None, Some(2), Some(3), None, Some(4), Some(5)]);
    assert_stored(&store, id, "a", content(3));
    assert_eq!(store.stats(id).unwrap().records, 2);
    assert_eq!(store.usage().batches, 2, "one for the collection, one for the call");
    assert_clean(&store);
}

#[test]
fn a_call_with_a_wrong_vector_writes_nothing_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let id = collection(&store).id;
    let spoil = |change: fn(&mut Vec<(diptych_core::PartRef, diptych_core::Embedding)>)| {
        let Mutation::Put { record, mut vectors, thumbnails, digest, mode } = content(1).upsert("bad") else {
            panic!()
        };
        change(&mut vectors);
        Mutation::Put { record, vectors, thumbnails, digest, mode }
    };
    let cases: [(Mutation, &str); 4] = [
        (spoil(|v| drop(v.pop())), "there is no vector for text:0"),
        (spoil(|v| v.push((text(1), vector("x")))), "which the record does not have"),
        (spoil(|v| v.push((text(0), vector("x")))), "two vectors for text:0"),
        (
            spoil(|v| v[0].1 = diptych_core::Embedding::new(vec![1.0; DIM as usize + 1]).unwrap()),
            "has 9 dimensions, the collection has 8",
        ),
    ];
    for (bad, says) in cases {
        let error = store.write(id, vec![content(1).upsert("good"), bad]).unwrap_err();
        let StoreError::InvalidMutation { position: 1, key, reason } = &error else { panic!("{error}") };
        assert_eq!(key.as_str(), "bad");
        assert!(reason.contains(says), "{reason}");
    }
    assert_eq!(store.get(id, &key("good")).unwrap(), None);
    let unknown = store.write(id + 1, vec![delete("a")]).unwrap_err();
    assert_eq!(unknown, StoreError::UnknownCollection { id: id + 1 });
    let many = store.write(id, vec![delete("a"); 20_000]).unwrap_err();
    assert!(matches!(many, StoreError::TooMuch { found: 20_000, .. }));
    assert_eq!(store.last_seq(), 0);
}

#[test]
fn listing_pages_through_one_collection_in_key_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let id = collection(&store).id;
    let other = store.create_collection(&CollectionName::new("other").unwrap(), model_id(), DIM).unwrap().id;
    let mut names: Vec<String> = (0..25).map(|i| format!("k{i}")).collect();
    names.extend(["k1 ".to_owned(), "ä".to_owned()]);
    store.write(id, names.iter().map(|name| content(1).upsert(name)).collect()).unwrap();
    store.write(other, vec![content(1).upsert("k0"), content(1).upsert("zz")]).unwrap();

    let mut seen = Vec::new();
    let mut after: Option<Key> = None;
    loop {
        let page = store.list(id, after.as_ref(), 10).unwrap();
        assert!(page.len() <= 10);
        let Some(last) = page.last() else { break };
        after = Some(last.record.key().clone());
        seen.extend(page.into_iter().map(|stored| stored.record.key().as_str().to_owned()));
    }
    names.sort();
    assert_eq!(seen, names);

    let keys = [key("zz"), key("nothing"), key("k0")];
    let found = store.get_many(other, &keys).unwrap();
    assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true]);
}

#[test]
fn a_scan_shows_one_modality_at_one_moment() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let id = collection(&store).id;
    let applied = store.write(id, vec![content(1).upsert("a"), content(1).upsert("b")]).unwrap();
    let scan = store.scan_vectors(id, Modality::Text).unwrap();
    store.write(id, vec![delete("a"), content(1).upsert("c")]).unwrap();
    let seen: Vec<_> = scan.map(Result::unwrap).collect();
    let wanted: Vec<_> = ["a", "b"]
        .into_iter()
        .zip(&applied)
        .map(|(name, applied)| (applied.added[1].1, content(1).vector(name, text(0))))
        .collect();
    assert_eq!(seen, wanted);
    assert_eq!(store.scan_vectors(id, Modality::Image).unwrap().count(), 2);
    assert!(matches!(
        store.scan_vectors(9, Modality::Image).map(|_| ()),
        Err(StoreError::UnknownCollection { id: 9 })
    ));
}

#[test]
fn the_journal_tells_every_change_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let id = collection(&store).id;
    let other = store.create_collection(&CollectionName::new("other").unwrap(), model_id(), DIM).unwrap().id;
    let mut told = Vec::new();
    for (collection, mutations) in [
        (id, vec![content(1).upsert("a"), content(1).upsert("b")]),
        (other, vec![content(1).upsert("a")]),
        (id, vec![content(2).upsert("a"), delete("nothing"), delete("b")]),
    ] {
        let names: Vec<Key> = mutations.iter().map(|m| m.key().clone()).collect();
        for (key, applied) in names.into_iter().zip(store.write(collection, mutations).unwrap()) {
            if let Some(seq) = applied.seq {
                told.push((seq, collection, key, applied.added, applied.removed));
            }
        }
    }
    drop(store);
    let store = open(dir.path());
    let journal = |after| {
        store
            .journal(after)
            .map(|entry| entry.map(|e| (e.seq, e.collection, e.key, e.added, e.removed)).unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(told.len(), 5);
    assert_eq!(journal(0), told);
    assert_eq!(journal(3), told[3..]);
    assert_eq!(store.last_seq(), 5);
    assert_eq!(journal(u64::MAX), []);
}
