//! The requests that are remembered, so that one which is repeated is answered as it was and not done
//! again: the latest [`REQUESTS_MAX`] of them, in memory and in rows of the `meta` family.
//!
//! A request is remembered in the batch that it changed the store with, so that neither can be there
//! without the other. Deliberately absent: what the requests ask for.

use std::collections::{BTreeMap, HashMap};

use crate::StoreError;
use crate::db::{Batch, Db};
use crate::rows;
use crate::schema::{self, Family};
use crate::values::Remembered;

/// Requests that are remembered; one more takes the place of the oldest.
pub(crate) const REQUESTS_MAX: usize = 16_384;

/// Whose request it is: a collection and the request's id.
pub(crate) type Name = (u32, String);

/// What is remembered.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    by_name: HashMap<Name, (u64, Remembered)>,
    /// By number, the oldest first.
    order: BTreeMap<u64, Name>,
    next: u64,
}

/// What a batch adds to it.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    by_name: HashMap<Name, (u64, Remembered)>,
    /// Those of them that are not remembered yet.
    added: u64,
}

impl Requests {
    /// Reads what was remembered before.
    pub(crate) fn load(db: &Db) -> Result<Self, StoreError> {
        let mut requests = Self::default();
        for pair in db.scan_prefix(Family::Meta, schema::REQUEST_PREFIX) {
            let (key, row) = pair?;
            let number = schema::parse_request_key(&key)
                .ok_or_else(|| StoreError::corrupt(format!("a request lies under the key {key:02x?}")))?;
            let (name, remembered) = rows::decode_request(&row, number)?;
            requests.insert(number, name, remembered);
        }
        Ok(requests)
    }

    /// What is remembered of a request.
    pub(crate) fn get(&self, name: &Name) -> Option<&Remembered> {
        self.by_name.get(name).map(|(_, remembered)| remembered)
    }

    /// Puts rows for what is pending into a batch, and takes out those of the oldest.
    pub(crate) fn write(&self, pending: &Pending, batch: &mut Batch<'_>) {
        for (name, (number, remembered)) in &pending.by_name {
            batch.put(Family::Meta, schema::request_key(*number), rows::encode_request(name, remembered));
        }
        for number in self.oldest(pending) {
            batch.delete(Family::Meta, schema::request_key(number));
        }
    }

    /// Takes over what was pending, once its batch is on disk.
    pub(crate) fn take_over(&mut self, pending: Pending) {
        for number in self.oldest(&pending) {
            if let Some(name) = self.order.remove(&number) {
                self.by_name.remove(&name);
            }
        }
        for (name, (number, remembered)) in pending.by_name {
            self.insert(number, name, remembered);
        }
    }

    /// Forgets the requests of a collection.
    pub(crate) fn forget(&mut self, collection: u32) {
        for number in self.numbers_of(collection) {
            if let Some(name) = self.order.remove(&number) {
                self.by_name.remove(&name);
            }
        }
    }

    /// The keys of the rows of a collection's requests.
    pub(crate) fn keys_of(&self, collection: u32) -> Vec<[u8; 16]> {
        self.numbers_of(collection).into_iter().map(schema::request_key).collect()
    }

    fn numbers_of(&self, collection: u32) -> Vec<u64> {
        self.order.iter().filter(|(_, name)| name.0 == collection).map(|(&number, _)| number).collect()
    }

    /// Numbers of the oldest, which make room for what is pending.
    fn oldest(&self, pending: &Pending) -> Vec<u64> {
        let surplus = (self.order.len() + pending.added as usize).saturating_sub(REQUESTS_MAX);
        // Those that are written again keep their place.
        let kept = |name: &Name| !pending.by_name.contains_key(name);
        self.order.iter().filter(|(_, name)| kept(name)).map(|(&number, _)| number).take(surplus).collect()
    }

    fn insert(&mut self, number: u64, name: Name, remembered: Remembered) {
        self.next = self.next.max(number + 1);
        self.order.insert(number, name.clone());
        self.by_name.insert(name, (number, remembered));
    }
}

impl Pending {
    /// What is remembered of a request, or is going to be.
    pub(crate) fn get<'a>(&'a self, requests: &'a Requests, name: &Name) -> Option<&'a Remembered> {
        self.by_name.get(name).map(|(_, remembered)| remembered).or_else(|| requests.get(name))
    }

    /// Adds a request, in the place of one of its name if there is one.
    pub(crate) fn add(&mut self, requests: &Requests, name: Name, remembered: Remembered) {
        let known =
            self.by_name.get(&name).or_else(|| requests.by_name.get(&name)).map(|(number, _)| *number);
        let number = known.unwrap_or_else(|| {
            self.added += 1;
            requests.next + self.added - 1
        });
        self.by_name.insert(name, (number, remembered));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use diptych_core::Digest;

    use super::*;
    use crate::db::Access;
    use crate::values::Outcome;

    fn remembered(seq: u64) -> Remembered {
        Remembered { fingerprint: Digest([1; 32]), outcome: Outcome::Created, seq: Some(seq), note: vec![7] }
    }

    #[test]
    fn the_oldest_make_room_and_what_is_left_is_read_back() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let db = Db::open(dir.path(), Access::Create, 1 << 20).expect("opens");
        let mut requests = Requests::default();
        let commit = |names: std::ops::Range<u64>, requests: &mut Requests| {
            let mut pending = Pending::default();
            for n in names {
                pending.add(requests, (1, n.to_string()), remembered(n));
            }
            let mut batch = db.batch();
            requests.write(&pending, &mut batch);
            db.write(batch).expect("writes");
            requests.take_over(pending);
        };
        let max = REQUESTS_MAX as u64;
        commit(0..max - 2, &mut requests);
        commit(max - 2..max + 3, &mut requests);
        // Written again, the oldest keeps its place and makes nothing older go.
        commit(3..4, &mut requests);
        let loaded = Requests::load(&db).expect("loads");
        for requests in [&requests, &loaded] {
            assert_eq!(requests.order.len(), REQUESTS_MAX);
            assert_eq!(requests.get(&(1, "2".to_owned())), None);
            assert_eq!(requests.get(&(1, "3".to_owned())), Some(&remembered(3)));
            assert_eq!(requests.get(&(2, "3".to_owned())), None);
            assert_eq!(requests.get(&(1, (max + 2).to_string())), Some(&remembered(max + 2)));
            assert_eq!(requests.next, max + 3);
        }
    }
}
