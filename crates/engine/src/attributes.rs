//! Which points belong to records with which attributes.
//!
//! Owns: the points per attribute value of one collection, in memory, and the evaluation of a filter
//! to the set of points that meet it: exactly the points of the records that [`Filter::matches`].
//! Built from the store's records when a collection is first filtered, under the gate that loads of
//! indexes hold; from then on every write brings it up to date before the write is acknowledged.
//! Deliberately absent: the search among those points (the index does it), and persistence.

mod facets;
mod postings;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use diptych_core::{Attributes, Filter, Modality, Record};
use diptych_index::PointSet;
use diptych_store::{Applied, Collection, Mutation, Once, Store};

use crate::space::Space;
use crate::{Engine, EngineError};

use postings::Postings;

/// Records read at once while loading.
const PAGE: usize = 1024;
/// Evaluated filters that are kept until the next write.
const KEPT: usize = 16;

/// The attributes of a collection.
#[derive(Debug, Default)]
pub(crate) struct AttributeIndex {
    postings: RwLock<Postings>,
    /// Latest last; those of an older version are worthless.
    kept: Mutex<VecDeque<Kept>>,
}

/// A filter that was evaluated, as many queries come with the same one.
#[derive(Debug)]
struct Kept {
    version: u64,
    filter: Filter,
    target: Modality,
    matching: Arc<Matching>,
}

/// The points that meet a filter.
#[derive(Debug)]
pub(crate) struct Matching {
    pub(crate) points: PointSet,
    /// What the caller may want to know, such as a misspelt name.
    pub(crate) notes: Vec<String>,
}

impl Space {
    /// The attributes of the collection; read from the store when this is the first need of them.
    pub(crate) fn attributes(&self, store: &Store) -> Result<&AttributeIndex, EngineError> {
        if let Some(attributes) = self.attributes.get() {
            return Ok(attributes);
        }
        let _alone = self.alone();
        if let Some(attributes) = self.attributes.get() {
            return Ok(attributes);
        }
        let loaded = AttributeIndex::load(store, &self.collection)?;
        Ok(self.attributes.get_or_init(|| loaded))
    }
}

impl Engine {
    /// Writes to the store and brings the attributes and the words up to it, if they are held. To be called
    /// within [`Space::write`], so that a load sees each write either in the store or here.
    pub(crate) fn write_store(
        &self,
        space: &Space,
        mutations: Vec<Mutation>,
        once: Once,
    ) -> Result<Vec<Applied>, EngineError> {
        let (attributes, words) = (space.attributes.get(), space.opened_lexical());
        if attributes.is_none() && words.is_none() {
            return Ok(self.store.write_once(space.collection.id, mutations, once)?);
        }
        let records: Vec<Option<Record>> = mutations
            .iter()
            .map(|mutation| match mutation {
                Mutation::Put { record, .. } | Mutation::Update { record, .. } => Some(record.clone()),
                Mutation::Delete { .. } => None,
            })
            .collect();
        let applied = self.store.write_once(space.collection.id, mutations, once)?;
        if let Some(words) = &words {
            space.apply_words(words, &applied, &records);
        }
        if let Some(index) = attributes {
            let none = Attributes::new();
            let attributes: Vec<&Attributes> =
                records.iter().map(|record| record.as_ref().map_or(&none, Record::attributes)).collect();
            index.apply(&applied, &attributes);
        }
        Ok(applied)
    }
}

impl AttributeIndex {
    fn load(store: &Store, collection: &Collection) -> Result<Self, EngineError> {
        let mut postings = Postings::default();
        let mut after = None;
        loop {
            let page = store.list(collection.id, after.as_ref(), PAGE)?;
            for stored in &page {
                postings.add(stored.record.attributes(), &stored.points);
            }
            match page.last() {
                Some(last) if page.len() == PAGE => after = Some(last.record.key().clone()),
                _ => return Ok(Self { postings: RwLock::new(postings), kept: Mutex::default() }),
            }
        }
    }

    /// Takes over writes with the attributes of the records written.
    fn apply(&self, applied: &[Applied], attributes: &[&Attributes]) {
        let mut postings = self.postings.write().unwrap_or_else(PoisonError::into_inner);
        postings.version += 1;
        for (change, attributes) in applied.iter().zip(attributes) {
            for &(part, point) in &change.removed {
                postings.remove(part, point);
            }
            postings.add(attributes, &change.added);
            // Whoever changes attributes is the only writer meanwhile, so nothing overtakes it here.
            for &(part, point) in &change.kept {
                postings.remove(part, point);
            }
            postings.add(attributes, &change.kept);
        }
    }

    /// The points of one modality whose records meet a filter.
    pub(crate) fn matching(&self, filter: &Filter, target: Modality) -> Arc<Matching> {
        let postings = self.read();
        let version = postings.version;
        let same = |kept: &Kept| kept.version == version && kept.target == target && kept.filter == *filter;
        if let Some(kept) = self.kept().iter().find(|kept| same(kept)) {
            return Arc::clone(&kept.matching);
        }
        let points = postings.meeting(filter.condition(), target as usize).into_owned();
        let mut notes = Vec::new();
        postings.note(filter.condition(), &mut notes);
        let matching = Arc::new(Matching { points, notes });
        let mut kept = self.kept();
        kept.retain(|kept| kept.version == version);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(Kept { version, filter: filter.clone(), target, matching: Arc::clone(&matching) });
        matching
    }

    fn read(&self) -> RwLockReadGuard<'_, Postings> {
        self.postings.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use diptych_core::{AttributeValue, PartRef, PointId};

    use super::*;

    const PART: PartRef = PartRef::whole(Modality::Image, 0);

    fn found(index: &AttributeIndex, filter: &str) -> Vec<u64> {
        index.matching(&filter.parse().unwrap(), Modality::Image).points.iter().collect()
    }

    fn aged(age: i64) -> Attributes {
        Attributes::from([("age".to_owned(), AttributeValue::Integer(age))])
    }

    fn change(added: &[u64], removed: &[u64]) -> Applied {
        let points = |ids: &[u64]| ids.iter().map(|&id| (PART, PointId(id))).collect();
        Applied {
            outcome: diptych_store::Outcome::Updated,
            seq: Some(1),
            added: points(added),
            removed: points(removed),
            kept: Vec::new(),
            repeated: None,
        }
    }

    #[test]
    fn a_removal_that_overtakes_its_addition_leaves_nothing() {
        let index = AttributeIndex::default();
        // Two writers of one key: the store saw 1 and then 2; here the second comes first.
        index.apply(&[change(&[2], &[1])], &[&aged(41)]);
        index.apply(&[change(&[1], &[])], &[&aged(40)]);
        assert_eq!(found(&index, "exists age"), [2]);
        assert_eq!(found(&index, "age = 40"), [0u64; 0]);
        index.apply(&[change(&[], &[2])], &[&Attributes::new()]);
        assert!(index.postings.into_inner().unwrap().is_empty());
    }

    #[test]
    fn a_change_of_attributes_keeps_the_points() {
        let index = AttributeIndex::default();
        index.apply(&[change(&[1, 2], &[])], &[&aged(40)]);
        let kept = vec![(PART, PointId(1)), (PART, PointId(2))];
        index.apply(&[Applied { kept, ..change(&[], &[]) }], &[&aged(41)]);
        assert_eq!(found(&index, "age = 41"), [1, 2]);
        assert_eq!(found(&index, "age = 40"), [0u64; 0]);
        index.apply(&[change(&[], &[1, 2])], &[&Attributes::new()]);
        assert!(index.postings.into_inner().unwrap().is_empty());
    }

    #[test]
    fn texts_are_found_by_how_they_begin_and_times_by_when_they_are() {
        let index = AttributeIndex::default();
        let text = |s: String| Attributes::from([("s".to_owned(), AttributeValue::String(s))]);
        let texts = ["a", "ab", "abc", "b", "é"].map(str::to_owned);
        let long = ["ab".repeat(60), "ab".repeat(59) + "x", "é".repeat(40)];
        for (n, s) in (1..).zip(texts.into_iter().chain(long)) {
            index.apply(&[change(&[n], &[])], &[&text(s)]);
        }
        for (prefix, ids) in [
            ("a", [1, 2, 3, 6, 7].as_slice()),
            ("ab", &[2, 3, 6, 7]),
            ("abc", &[3]),
            ("é", &[5, 8]),
            ("c", &[]),
            (&"ab".repeat(32), &[6, 7]),
            (&"é".repeat(32), &[8]),
        ] {
            assert_eq!(found(&index, &format!("s starts_with '{prefix}'")), ids, "{prefix}");
        }
        for (n, day) in [(20, "2024-01-31"), (21, "2024-02-01")] {
            let time = AttributeValue::Time(day.parse().unwrap());
            index.apply(&[change(&[n], &[])], &[&Attributes::from([("t".to_owned(), time)])]);
        }
        assert_eq!(found(&index, "t >= time('2024-02-01') or t = time('2024-01-31')"), [20, 21]);
        assert_eq!(found(&index, "t < time('2024-02-01')"), [20]);
        assert_eq!(found(&index, "t > time('2024-02-01')"), [0u64; 0]);
        let notes = &index.matching(&"t > 3".parse().unwrap(), Modality::Image).notes;
        assert_eq!(*notes, ["'t' holds times, no numbers"]);
    }

    #[test]
    fn long_texts_are_found_by_their_digest() {
        let index = AttributeIndex::default();
        let long = "x".repeat(100);
        let attributes = Attributes::from([("note".to_owned(), AttributeValue::String(long.clone()))]);
        index.apply(&[change(&[7], &[])], &[&attributes]);
        assert_eq!(found(&index, &format!("note = '{long}'")), [7]);
        assert_eq!(found(&index, &format!("note = '{long}x'")), [0u64; 0]);
    }
}
