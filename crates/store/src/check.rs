//! The audit: reads everything, with checksums, and proves that the families agree. It repairs nothing
//! and goes on after a problem, so that one report tells all.
//!
//! Why the counts suffice: each record's points lead back to that record and part, so no two records
//! share a point; if there are also as many points as the records have, no point is without its record.
//! The same holds between vectors and points.

use std::collections::BTreeMap;
use std::fmt;

use diptych_core::{Key, Modality, PartRef, PointId};

use crate::StoreError;
use crate::db::{Pair, View};
use crate::plan;
use crate::rows;
use crate::schema::{self, FORMAT_VERSION, Family, Marks};
use crate::values::{Collection, Stats};

/// Problems told in words; beyond these they are only counted.
const PROBLEMS_LISTED: usize = 100;

/// What the audit found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Collections read.
    pub collections: u64,
    /// Counts over all collections, as found by reading, not as stored.
    pub found: Stats,
    /// Journal entries read.
    pub journal_entries: u64,
    /// The first problems, in words.
    pub problems: Vec<String>,
    /// All problems.
    pub problem_count: u64,
}

impl CheckReport {
    /// Whether everything agrees.
    pub fn is_clean(&self) -> bool {
        self.problem_count == 0
    }

    fn problem(&mut self, problem: impl fmt::Display) {
        self.problem_count += 1;
        if self.problems.len() < PROBLEMS_LISTED {
            self.problems.push(problem.to_string());
        }
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stats { records, image_points, text_points, .. } = self.found;
        writeln!(
            f,
            "{} collections, {records} records, {image_points} image points, {text_points} text points, {} journal \
             entries: {}",
            self.collections,
            self.journal_entries,
            if self.is_clean() {
                "everything agrees".to_owned()
            } else {
                format!("{} problems", self.problem_count)
            }
        )?;
        self.problems.iter().try_for_each(|problem| writeln!(f, "- {problem}"))?;
        match self.problem_count - self.problems.len() as u64 {
            0 => Ok(()),
            more => writeln!(f, "- and {more} more"),
        }
    }
}

/// Audits one frozen state.
pub(crate) fn check(view: &View<'_>) -> CheckReport {
    let mut audit =
        Audit { view, report: CheckReport::default(), tallies: BTreeMap::new(), marks: Marks::default() };
    audit.meta();
    audit.collections();
    audit.records();
    audit.points();
    audit.vectors();
    audit.thumbnails();
    audit.journal();
    audit.totals();
    audit.report
}

/// What was counted in one collection.
struct Tally {
    collection: Collection,
    /// From the records.
    found: Stats,
    points: u64,
    vectors: u64,
    /// Points added less points removed, over the journal.
    journal: i64,
}

struct Audit<'a> {
    view: &'a View<'a>,
    report: CheckReport,
    tallies: BTreeMap<u32, Tally>,
    marks: Marks,
}

impl Audit<'_> {
    fn meta(&mut self) {
        match self.view.get(Family::Meta, schema::VERSION_KEY) {
            Ok(Some(bytes)) if bytes == FORMAT_VERSION.to_be_bytes() => {}
            Ok(found) => self.report.problem(format!("the version is {found:?}")),
            Err(e) => self.report.problem(e),
        }
        let marks = self.view.get(Family::Meta, schema::MARKS_KEY).and_then(|bytes| match bytes {
            Some(bytes) => Marks::decode(&bytes),
            None => Err(StoreError::corrupt("there are no high-water marks")),
        });
        match marks {
            Ok(marks) => self.marks = marks,
            Err(e) => self.report.problem(e),
        }
    }

    fn collections(&mut self) {
        for pair in self.view.scan_all(Family::Collections) {
            let decoded = pair.and_then(|(name, row)| match &*name {
                schema::NEXT_COLLECTION_KEY => schema::decode_next_collection(&row).map(|_| None),
                name => rows::decode_collection(name, &row).map(Some),
            });
            match decoded {
                Ok(None) => {}
                Ok(Some(collection)) => {
                    self.report.collections += 1;
                    let id = collection.id;
                    let tally =
                        Tally { collection, found: Stats::default(), points: 0, vectors: 0, journal: 0 };
                    if let Some(other) = self.tallies.insert(id, tally) {
                        let name = other.collection.name;
                        self.report.problem(format!("collection '{name}' shares its id {id} with another"));
                    }
                }
                Err(e) => self.report.problem(e),
            }
        }
    }

    fn records(&mut self) {
        for pair in self.view.scan_all(Family::Records) {
            if let Err(e) = pair.and_then(|pair| self.record(pair)) {
                self.report.problem(e);
            }
        }
    }

    fn record(&mut self, (key, row): Pair) -> Result<(), StoreError> {
        let (id, key) = schema::parse_record_key(&key)
            .ok_or_else(|| StoreError::corrupt(format!("a record lies under the key {key:02x?}")))?;
        let stored = rows::decode_record(&row, key.clone())?;
        let Some(tally) = self.tallies.get_mut(&id) else {
            return Err(StoreError::corrupt(format!(
                "record '{key}' is in collection {id}, which does not exist"
            )));
        };
        tally.found.records += 1;
        tally.found.truncated_texts += plan::truncated_texts(&stored.record);
        for (part, _) in &stored.points {
            match part.modality {
                Modality::Image => tally.found.image_points += 1,
                Modality::Text => tally.found.text_points += 1,
            }
        }
        if stored.seq == 0 || stored.seq > self.marks.seq {
            let last = self.marks.seq;
            self.report.problem(format!("record '{key}' has number {}, the last is {last}", stored.seq));
        }
        self.record_points(id, &key, &stored.points)
    }

    fn record_points(&mut self, id: u32, key: &Key, points: &[(PartRef, PointId)]) -> Result<(), StoreError> {
        let point_keys: Vec<[u8; 12]> =
            points.iter().map(|&(_, point)| schema::point_key(id, point)).collect();
        let owners = self.view.get_many(Family::Points, &point_keys)?;
        for (&(part, point), owner) in points.iter().zip(owners) {
            if point.0 >= self.marks.next_point {
                self.report.problem(format!("point {} was never given out ('{key}' {part})", point.0));
            }
            match owner.map(|bytes| rows::decode_owner(&bytes, point)).transpose() {
                Ok(Some(owner)) if owner == (key.clone(), part) => {}
                Ok(Some((other, other_part))) => self.report.problem(format!(
                    "point {} belongs to '{key}' {part}, but leads to '{other}' {other_part}",
                    point.0
                )),
                Ok(None) => {
                    self.report.problem(format!("point {} of '{key}' {part} leads nowhere", point.0));
                }
                Err(e) => self.report.problem(e),
            }
        }
        Ok(())
    }

    fn points(&mut self) {
        for pair in self.view.scan_all(Family::Points) {
            match pair.map(|(key, _)| schema::parse_point_key(&key)) {
                Ok(Some((id, point))) => match self.tallies.get_mut(&id) {
                    Some(tally) => tally.points += 1,
                    None => self.report.problem(format!("point {} is in no collection ({id})", point.0)),
                },
                Ok(None) => self.report.problem("a point lies under an invalid key"),
                Err(e) => self.report.problem(e),
            }
        }
    }

    fn vectors(&mut self) {
        for pair in self.view.scan_all(Family::Vectors) {
            if let Err(e) = pair.and_then(|pair| self.vector(pair)) {
                self.report.problem(e);
            }
        }
    }

    fn vector(&mut self, (key, bytes): Pair) -> Result<(), StoreError> {
        let (id, modality, point) = schema::parse_vector_key(&key)
            .ok_or_else(|| StoreError::corrupt(format!("a vector lies under the key {key:02x?}")))?;
        let Some(tally) = self.tallies.get_mut(&id) else {
            return Err(StoreError::corrupt(format!(
                "the vector of point {} is in no collection ({id})",
                point.0
            )));
        };
        tally.vectors += 1;
        schema::decode_vector(&bytes, tally.collection.dim, point)?;
        match self.view.get(Family::Points, &schema::point_key(id, point))? {
            Some(row) => match rows::decode_owner(&row, point)? {
                (_, part) if part.modality == modality => Ok(()),
                (key, part) => Err(StoreError::corrupt(format!(
                    "the {modality} vector of point {} belongs to '{key}' {part}",
                    point.0
                ))),
            },
            None => {
                Err(StoreError::corrupt(format!("the {modality} vector of point {} has no record", point.0)))
            }
        }
    }

    fn thumbnails(&mut self) {
        for pair in self.view.scan_all(Family::Thumbnails) {
            if let Err(e) = pair.and_then(|(key, _)| self.thumbnail(&key)) {
                self.report.problem(e);
            }
        }
    }

    fn thumbnail(&self, key: &[u8]) -> Result<(), StoreError> {
        let (id, point) = schema::parse_point_key(key)
            .ok_or_else(|| StoreError::corrupt("a small picture lies under an invalid key"))?;
        let owner = self.view.get(Family::Points, &schema::point_key(id, point))?;
        match owner.map(|row| rows::decode_owner(&row, point)).transpose()? {
            Some((_, part)) if part.modality == Modality::Image => Ok(()),
            Some((key, part)) => Err(StoreError::corrupt(format!(
                "the small picture of point {} belongs to '{key}' {part}, which is no image",
                point.0
            ))),
            None => Err(StoreError::corrupt(format!("the small picture of point {} has no record", point.0))),
        }
    }

    fn journal(&mut self) {
        let mut expected = 1;
        for pair in self.view.scan_all(Family::Journal) {
            match pair.and_then(|(key, row)| rows::decode_entry(&key, &row)) {
                Ok(entry) => {
                    self.report.journal_entries += 1;
                    if entry.seq != expected {
                        let seq = entry.seq;
                        self.report.problem(format!("the journal goes on with {seq} instead of {expected}"));
                    }
                    expected = entry.seq + 1;
                    if let Some(tally) = self.tallies.get_mut(&entry.collection) {
                        tally.journal += entry.added.len() as i64 - entry.removed.len() as i64;
                    }
                }
                Err(e) => self.report.problem(e),
            }
        }
        if expected - 1 != self.marks.seq {
            let last = expected - 1;
            self.report.problem(format!("the journal ends at {last} instead of {}", self.marks.seq));
        }
    }

    fn totals(&mut self) {
        for tally in std::mem::take(&mut self.tallies).into_values() {
            let Collection { id, name, .. } = &tally.collection;
            let found = tally.found;
            let wanted = found.image_points + found.text_points;
            for (what, count) in [("points", tally.points), ("vectors", tally.vectors)] {
                if count != wanted {
                    self.report.problem(format!("collection '{name}' has {count} {what} for {wanted} parts"));
                }
            }
            if tally.journal != wanted as i64 {
                let sum = tally.journal;
                self.report.problem(format!("the journal of '{name}' adds up to {sum} points, not {wanted}"));
            }
            match plan::read_stats(|key| self.view.get(Family::Meta, key), *id) {
                Ok(stored) if stored == found => {}
                Ok(stored) => {
                    self.report.problem(format!("the counters of '{name}' say {stored:?}, found {found:?}"));
                }
                Err(e) => self.report.problem(e),
            }
            self.report.found.records += found.records;
            self.report.found.image_points += found.image_points;
            self.report.found.text_points += found.text_points;
            self.report.found.truncated_texts += found.truncated_texts;
        }
    }
}
