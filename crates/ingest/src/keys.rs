//! Keys of a stream of items: each once, and lines of one study joined.
//!
//! Owns: finding repeated keys in bounded memory, and what becomes of attributes that differ between the lines
//! of one study. Deliberately absent: which lines belong to a study, which their reader says.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};

use diptych_core::limits::PARTS_MAX;
use diptych_core::{AttributeValue, Attributes, Key};

use crate::item::{Item, ItemError, ItemResult, printable};

/// What a reader found, and whether it goes together with its neighbours of the same key.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) item: Item,
    pub(crate) joins: bool,
}

/// What readers of rows give.
pub(crate) type FoundResult = Result<Found, ItemError>;

/// The items of a reader of rows: neighbours that join are one item, and no key comes twice.
pub(crate) struct Unique<I> {
    rows: I,
    seen: SeenKeys,
    held: Option<Item>,
    ready: VecDeque<ItemResult>,
    items: u64,
}

impl<I: Iterator<Item = FoundResult>> Unique<I> {
    pub(crate) fn new(rows: I) -> Self {
        Self { rows, seen: SeenKeys::default(), held: None, ready: VecDeque::new(), items: 0 }
    }

    fn take(&mut self, Found { item, joins }: Found) {
        if joins
            && let Some(held) = &mut self.held
            && held.key == item.key
        {
            if let Err(error) = join(held, item) {
                self.ready.push_back(Err(error));
            }
            return;
        }
        self.ready.extend(self.held.take().map(Ok));
        self.items += 1;
        let position = item.origin.position().map_or(self.items, |(_, position)| position);
        match self.seen.insert(&item.key, position) {
            Some(earlier) => self.ready.push_back(Err(repeated(item, earlier, joins))),
            None if joins => self.held = Some(item),
            None => self.ready.push_back(Ok(item)),
        }
    }
}

impl<I: Iterator<Item = FoundResult>> Iterator for Unique<I> {
    type Item = ItemResult;

    fn next(&mut self) -> Option<ItemResult> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Some(ready);
            }
            match self.rows.next() {
                Some(Ok(found)) => self.take(found),
                Some(Err(error)) => return Some(Err(error)),
                None => return self.held.take().map(Ok),
            }
        }
    }
}

fn repeated(item: Item, earlier: u64, joins: bool) -> ItemError {
    let place = match item.origin.position() {
        Some((what, _)) => format!("{what} {earlier}"),
        None => format!("item {earlier}"),
    };
    let remedy = match (joins, item.origin.position()) {
        (true, _) => "keep the lines of one study together".to_owned(),
        (false, Some((what, _))) => format!("give every {what} its own key"),
        (false, None) => "give every item its own key".to_owned(),
    };
    let key = printable(item.key.as_str());
    ItemError { reason: format!("the key '{key}' is that of {place} already; {remedy}"), origin: item.origin }
}

/// Adds a line to the study it belongs to.
fn join(study: &mut Item, line: Item) -> Result<(), ItemError> {
    let texts: Vec<String> = line.texts.into_iter().filter(|text| !study.texts.contains(text)).collect();
    if study.images.len() + study.texts.len() + line.images.len() + texts.len() > PARTS_MAX {
        let reason = format!("its study has more than {PARTS_MAX} images and texts; divide it");
        return Err(ItemError { origin: line.origin, reason });
    }
    study.images.extend(line.images);
    study.texts.extend(texts);
    join_attributes(&mut study.attributes, line.attributes);
    Ok(())
}

/// Equal values stay as they are; of different ones there is a list of each in words, in order of appearance.
fn join_attributes(study: &mut Attributes, line: Attributes) {
    for (name, value) in line {
        let Some(there) = study.get_mut(&name) else {
            study.insert(name, value);
            continue;
        };
        if *there == value {
            continue;
        }
        let mut values = in_words(there);
        for word in in_words(&value) {
            if !values.contains(&word) {
                values.push(word);
            }
        }
        *there = AttributeValue::List(values);
    }
}

fn in_words(value: &AttributeValue) -> Vec<String> {
    match value {
        AttributeValue::List(values) => values.clone(),
        AttributeValue::String(v) => vec![v.clone()],
        AttributeValue::Integer(v) => vec![v.to_string()],
        AttributeValue::Float(v) => vec![v.to_string()],
        AttributeValue::Bool(v) => vec![v.to_string()],
        AttributeValue::Time(v) => vec![v.to_string()],
    }
}

/// Where the keys seen so far were. Keeps a 128-bit hash under random seeds instead of the key, so that memory
/// does not depend on key lengths; two keys of a billion meet by chance with probability below 1e-20.
#[derive(Debug, Default)]
struct SeenKeys {
    seeds: Seeds,
    positions: HashMap<[u64; 2], u64>,
}

impl SeenKeys {
    /// Notes a key; gives the earlier position when it was there already.
    fn insert(&mut self, key: &Key, position: u64) -> Option<u64> {
        let hash = self.seeds.hash(key.as_str());
        match self.positions.entry(hash) {
            std::collections::hash_map::Entry::Occupied(entry) => Some(*entry.get()),
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(position);
                None
            }
        }
    }
}

/// Names as 128 bits, for tables that would otherwise hold each name.
#[derive(Debug, Default)]
pub(crate) struct Seeds([RandomState; 2]);

impl Seeds {
    pub(crate) fn hash(&self, name: &str) -> [u64; 2] {
        [self.0[0].hash_one(name), self.0[1].hash_one(name)]
    }
}
