//! Requests that are repeated are answered as they were, also after a restart.

use diptych_core::{Digest, RequestId};
use diptych_store::{Applied, Mutation, Once, Outcome, Request, Store};

use crate::{assert_clean, assert_stored, collection, content, copy_dir, delete, key, open};

fn request(id: &str, fingerprint: u8) -> Request {
    let id = RequestId::new(id).unwrap();
    Request { id, fingerprint: Digest([fingerprint; 32]), note: vec![fingerprint, 7] }
}

fn once(store: &Store, mutation: Mutation, request: Request) -> Applied {
    let id = collection(store).id;
    store.write_once(id, vec![mutation], Once::Each(vec![Some(request)])).unwrap().remove(0)
}

#[test]
fn a_repeated_request_gets_the_first_answer_and_does_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let first = once(&store, content(1).upsert("a"), request("r1", 1));
    assert_eq!((first.outcome, first.repeated), (Outcome::Created, None));
    // Somebody else changes the record, and then the first request comes again.
    once(&store, content(2).upsert("a"), request("r2", 2));
    let again = once(&store, content(1).upsert("a"), request("r1", 1));
    assert_eq!((again.outcome, again.seq), (Outcome::Created, first.seq));
    assert_eq!((again.repeated, again.added), (Some(vec![1, 7]), vec![]));
    assert_stored(&store, 1, "a", content(2));
    let other = once(&store, delete("a"), request("r1", 3));
    assert_eq!(other.outcome, Outcome::RequestReused);
    assert_stored(&store, 1, "a", content(2));
    assert_eq!(once(&store, content(2).upsert("a"), request("same", 2)).outcome, Outcome::Unchanged);
    // A refusal is not remembered: there may be something to delete the next time.
    assert_eq!(once(&store, delete("b"), request("r4", 4)).outcome, Outcome::NotFound);
    once(&store, content(1).upsert("b"), request("r5", 5));
    assert_eq!(once(&store, delete("b"), request("r4", 4)).outcome, Outcome::Deleted);

    let killed = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), killed.path());
    let store = open(killed.path());
    assert_eq!(once(&store, delete("b"), request("r4", 4)).outcome, Outcome::Deleted);
    assert_eq!(once(&store, content(1).upsert("a"), request("r1", 1)).seq, first.seq);
    assert_eq!(once(&store, content(3).upsert("a"), request("same", 2)).outcome, Outcome::Unchanged);
    assert_stored(&store, 1, "a", content(2));
    assert_clean(&store);
}

#[test]
fn two_of_one_id_in_one_call_are_done_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let id = collection(&store).id;
    let mutations = vec![content(1).upsert("a"), content(1).upsert("a"), content(1).upsert("b")];
    let requests = vec![Some(request("r", 1)), Some(request("r", 1)), Some(request("r", 2))];
    let applied = store.write_once(id, mutations, Once::Each(requests)).unwrap();
    let outcomes: Vec<Outcome> = applied.iter().map(|a| a.outcome).collect();
    assert_eq!(outcomes, [Outcome::Created, Outcome::Created, Outcome::RequestReused]);
    assert_eq!(applied[0].seq, applied[1].seq);
    assert_eq!(store.stats(id).unwrap().records, 1);
}

#[test]
fn the_steps_of_a_request_are_remembered_with_what_they_did() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let id = collection(&store).id;
    store.write(id, vec![content(1).upsert("a"), content(1).upsert("b")]).unwrap();
    let step = |note: u8| Request { note: vec![note], ..request("bulk", 1) };
    let name = RequestId::new("bulk").unwrap();
    for (n, mutations) in [vec![delete("a")], vec![delete("b")], vec![]].into_iter().enumerate() {
        store.write_once(id, mutations, Once::Step(step(n as u8))).unwrap();
        assert_eq!(store.request(id, &name).unwrap().unwrap().note, [n as u8]);
    }
    assert_eq!(store.get(id, &key("b")).unwrap(), None);
    // Requests go with their collection.
    store.delete_collection(id).unwrap();
    assert_eq!(store.request(id, &name).unwrap(), None);
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.request(id, &name).unwrap(), None);
    assert_eq!(once(&store, content(1).upsert("a"), request("bulk", 9)).outcome, Outcome::Created);
}
