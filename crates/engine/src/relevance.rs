//! How likely is a hit a match?
//!
//! Owns: what a cosine means in one collection, by direction. A cosine of .3 between a text and an image
//! can be an excellent match, and one of .6 between two images a poor one; it depends on the model and on
//! what else the collection holds. So the engine asks its own collection: parts of stored records are
//! searched for the other parts of their records, with their own record among the answers and once more
//! without it, as a question whose answer is not there; the share of matches at a score is that score's
//! relevance. The first hit of a question is a match far more often than a later one of the same score, so
//! there is a curve for each of a few groups of ranks. Half of the records fit the curves, the others tell
//! how far they can be trusted.
//! Deliberately absent: the fit (see `curve`), and what a search does with relevance.

mod curve;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use diptych_core::{CollectionName, Embedding, Key, Modality, PartRef, PointId};
use diptych_index::{Plan, Search};
use diptych_store::{Store, StoredRecord};

use crate::space::Space;
use crate::{Engine, EngineError};
use curve::{Curve, Judged};
pub use curve::{Reliability, ReliabilityBin};

/// Questions asked at most; half fit the curve.
const QUESTIONS: usize = 1024;
/// Fewest questions, of records that have an answer, without which nothing is promised.
pub(crate) const QUESTIONS_MIN: usize = 60;
/// Points compared in all where every question is a scan: it then asks fewer.
const SCANNED_MAX: usize = 4_000_000;
/// Points of a collection up to which a fit is no trouble to a search.
const CHEAP: usize = 20_000;
/// Hits of a question that are judged.
const HITS: usize = 10;
/// A curve is fitted again when the collection has grown or shrunk by this factor.
const STALE: f64 = 1.5;
/// Vectors of either side, at most, that say how far cosines of a direction spread.
const SPREAD: usize = 128;

/// How much a search wants a calibration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// It cannot be answered without; a fit that takes seconds is waited for.
    Now,
    /// It is nice to have.
    IfCheap,
}

/// From parts of one modality to parts of the same or the other.
pub(crate) type Way = (Modality, Modality);

/// The first ranks, from 0, of the groups that have a curve each.
const RANKS: [usize; 3] = [0, 1, 3];

/// What is known of one direction of a collection.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    curves: [Curve; RANKS.len()],
    /// How its promises compare with the questions that it was not fitted on.
    pub reliability: Reliability,
    /// The same over the first hits of those questions alone, where most matches are.
    pub first_hits: Reliability,
    /// Questions that were asked, of parts of records that have an answer.
    pub questions: usize,
    /// Points searched when it was fitted.
    pub points: usize,
}

impl Calibration {
    /// The probability that a hit of this cosine is a match, above 0 and below 1, given how many records
    /// are nearer to the query.
    pub fn relevance(&self, cosine: f32, nearer: usize) -> f64 {
        self.curves[group(nearer)].at(cosine)
    }
}

/// A calibration with the direction it is for.
#[derive(Debug, Clone, PartialEq)]
pub struct RelevanceReport {
    /// The collection.
    pub collection: CollectionName,
    /// What the queries are.
    pub from: Modality,
    /// What is searched.
    pub to: Modality,
    /// What is known.
    pub calibration: Arc<Calibration>,
}

/// The calibrations of a collection.
#[derive(Default)]
pub(crate) struct Relevance {
    slots: Mutex<HashMap<Way, Slot>>,
    /// A fit is on its way in the background.
    busy: AtomicBool,
}

#[derive(Clone)]
struct Slot {
    /// `None` where the collection has too few pairs.
    calibration: Option<Arc<Calibration>>,
    points: usize,
    /// The standard deviation of cosines of this direction, where there are enough.
    spread: Option<f32>,
}

/// A part that is asked for the other parts of its record.
struct Question {
    point: PointId,
    key: Key,
    embedding: Embedding,
    /// Whether its record has a part that would answer it.
    answered: bool,
    /// Whether curves are fitted to it; all questions of a record are on one side.
    fits: bool,
}

impl Relevance {
    fn slots(&self) -> MutexGuard<'_, HashMap<Way, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Space {
    /// What is known of scores, by direction.
    pub(crate) fn relevance_reports(&self) -> Vec<RelevanceReport> {
        let collection = self.collection.name.clone();
        let slots = self.relevance.slots();
        let known = slots.iter().filter_map(|(way, slot)| Some((*way, slot.calibration.clone()?)));
        let mut all: Vec<RelevanceReport> = known
            .map(|((from, to), calibration)| RelevanceReport {
                collection: collection.clone(),
                from,
                to,
                calibration,
            })
            .collect();
        all.sort_by_key(|report| (report.from, report.to));
        all
    }

    /// The calibration of a direction, fitted when it is first needed; one of a collection that has changed
    /// much since is fitted again in the background.
    pub(crate) fn calibration(
        self: &Arc<Self>,
        store: &Arc<Store>,
        way: Way,
        need: Need,
    ) -> Result<Option<Arc<Calibration>>, EngineError> {
        Ok(self.slot(store, way, need)?.and_then(|slot| slot.calibration))
    }

    /// The standard deviation of the cosines between stored parts of a direction.
    pub(crate) fn spread(self: &Arc<Self>, store: &Arc<Store>, way: Way) -> Result<Option<f32>, EngineError> {
        Ok(self.slot(store, way, Need::Now)?.and_then(|slot| slot.spread))
    }

    fn slot(self: &Arc<Self>, store: &Arc<Store>, way: Way, need: Need) -> Result<Option<Slot>, EngineError> {
        let points = self.index(store, way.1)?.len();
        let known = self.relevance.slots().get(&way).cloned();
        match &known {
            Some(slot) => {
                let (then, now) = (slot.points.max(1) as f64, points.max(1) as f64);
                if now / then > STALE || then / now > STALE {
                    self.fit_in_background(store, way);
                }
            }
            None if need == Need::Now || points <= CHEAP => {
                let slot = self.fit(store, way)?;
                self.relevance.slots().insert(way, slot.clone());
                return Ok(Some(slot));
            }
            None => self.fit_in_background(store, way),
        }
        Ok(known)
    }

    fn fit_in_background(self: &Arc<Self>, store: &Arc<Store>, way: Way) {
        if self.relevance.busy.swap(true, Ordering::AcqRel) {
            return;
        }
        let (space, store) = (Arc::clone(self), Arc::clone(store));
        std::thread::spawn(move || {
            match space.fit(&store, way) {
                Ok(slot) => drop(space.relevance.slots().insert(way, slot)),
                Err(error) => tracing::warn!("the relevance of hits is not fitted: {error}"),
            }
            space.relevance.busy.store(false, Ordering::Release);
        });
    }

    fn fit(&self, store: &Store, way: Way) -> Result<Slot, EngineError> {
        let points = self.index(store, way.1)?.len();
        let mut questions = self.questions(store, way)?;
        let spread = self.measure_spread(store, way.1, &questions)?;
        questions.retain(|question| question.answered);
        let mut fitted: [Vec<Judged>; RANKS.len()] = Default::default();
        let mut kept = fitted.clone();
        let (mut scans, mut asked) = (0, 0);
        for question in &questions {
            let search = Search { k: HITS * 2, ef: None, filter: None };
            let answer = self.ask(store, way.1, |index| index.search(&question.embedding, &search))?;
            scans += if answer.plan == Plan::Scan { points } else { 0 };
            let judged = self.judge(store, question, &answer.neighbors)?;
            let groups = if question.fits { &mut fitted } else { &mut kept };
            // Once as it is, once as if its own record were not there.
            for hits in [judged.clone(), judged.into_iter().filter(|(_, matched)| !matched).collect()] {
                for (rank, hit) in hits.into_iter().take(HITS).enumerate() {
                    groups[group(rank)].push(hit);
                }
            }
            asked += 1;
            if scans > SCANNED_MAX && asked >= QUESTIONS_MIN {
                break;
            }
        }
        let calibration = match asked < QUESTIONS_MIN {
            true => None,
            false => {
                calibration(&fitted, &kept).map(|c| Arc::new(Calibration { questions: asked, points, ..c }))
            }
        };
        Ok(Slot { calibration, points, spread })
    }

    /// Parts of records, evenly spaced among those that are searched.
    fn questions(&self, store: &Store, (from, to): Way) -> Result<Vec<Question>, EngineError> {
        let chosen = evenly(&self.index(store, to)?.ids(), QUESTIONS);
        let owners = store.owners(self.collection.id, &chosen)?;
        let mut keys: Vec<Key> = owners.into_iter().flatten().map(|(key, _)| key).collect();
        keys.dedup();
        let records = store.get_many(self.collection.id, &keys)?;
        // Of few records, several parts each.
        let each = (QUESTIONS / keys.len().max(1)).max(1);
        let mut parts = Vec::new();
        for (n, (key, record)) in keys.into_iter().zip(records).enumerate() {
            let Some(record) = record else { continue };
            let askable: Vec<_> = record.points.iter().filter(|(part, _)| part.modality == from).collect();
            for i in 0..each.min(askable.len()) {
                // Each of several parts gets its turn.
                let (part, point) = askable[(n + i) % askable.len()];
                let answers = |other: &PartRef| other.modality == to && !same_whole(*other, *part);
                let answered = record.points.iter().any(|(other, _)| answers(other));
                parts.push((*point, key.clone(), answered, n % 2 == 0));
            }
        }
        let points: Vec<PointId> = parts.iter().map(|(point, ..)| *point).collect();
        let vectors = store.vectors(self.collection.id, from, &points)?;
        let questions = parts.into_iter().zip(vectors);
        Ok(questions
            .filter_map(|((point, key, answered, fits), embedding)| {
                Some(Question { point, key, embedding: embedding?, answered, fits })
            })
            .collect())
    }

    /// The hits of a question, one per record, each with whether it is a match: a part of the same
    /// record, or of one that has a text in common with it.
    fn judge(
        &self,
        store: &Store,
        question: &Question,
        neighbors: &[diptych_index::Neighbor],
    ) -> Result<Vec<Judged>, EngineError> {
        let points: Vec<PointId> = neighbors.iter().map(|n| n.id).collect();
        let owners = store.owners(self.collection.id, &points)?;
        let mut hits: Vec<(Key, f32)> = Vec::new();
        for (neighbor, owner) in neighbors.iter().zip(owners) {
            match owner {
                // What was asked with is no answer.
                Some(_) if neighbor.id == question.point => {}
                Some((key, _)) if !hits.iter().any(|(known, _)| *known == key) => {
                    hits.push((key, neighbor.score));
                }
                _ => {}
            }
        }
        let mut keys: Vec<Key> = hits.iter().map(|(key, _)| key.clone()).collect();
        keys.push(question.key.clone());
        let mut records = store.get_many(self.collection.id, &keys)?;
        let own = records.pop().flatten();
        let own_texts: Vec<&str> = own.iter().flat_map(texts).collect();
        let judged = hits.into_iter().zip(&records).map(|((key, score), record)| {
            let alike = record.iter().flat_map(texts).any(|text| own_texts.contains(&text));
            (score, key == question.key || alike)
        });
        Ok(judged.collect())
    }

    /// The standard deviation of the cosines of the questions with parts that are searched.
    fn measure_spread(
        &self,
        store: &Store,
        to: Modality,
        asked: &[Question],
    ) -> Result<Option<f32>, EngineError> {
        let chosen = evenly(&self.index(store, to)?.ids(), SPREAD);
        let searched: Vec<Embedding> =
            store.vectors(self.collection.id, to, &chosen)?.into_iter().flatten().collect();
        let mut cosines = Vec::new();
        for question in asked.iter().step_by(asked.len().div_ceil(SPREAD).max(1)) {
            let others = searched.iter().filter(|other| **other != question.embedding);
            cosines.extend(others.map(|other| f64::from(question.embedding.cosine(other))));
        }
        let n = cosines.len() as f64;
        let mean = cosines.iter().sum::<f64>() / n;
        let variance = cosines.iter().map(|c| (c - mean) * (c - mean)).sum::<f64>() / n;
        Ok((n >= SPREAD as f64 && variance > 0.0).then(|| variance.sqrt() as f32))
    }
}

impl Engine {
    /// Learns what the scores of every direction of a collection mean; directions of which it cannot be
    /// told are left out.
    ///
    /// # Errors
    /// [`EngineError::CollectionNotFound`], or when the store cannot be read.
    pub fn calibrate(&self, collection: &CollectionName) -> Result<Vec<RelevanceReport>, EngineError> {
        let space = self.space(collection)?;
        for from in Modality::ALL {
            for to in Modality::ALL {
                space.slot(&self.store, (from, to), Need::Now)?;
            }
        }
        Ok(space.relevance_reports())
    }
}

/// The group of a rank.
fn group(rank: usize) -> usize {
    RANKS.iter().rposition(|first| *first <= rank).expect("the first group begins at the first rank")
}

/// The curves through some judgements, and how well they keep their promises on others.
fn calibration(
    fitted: &[Vec<Judged>; RANKS.len()],
    kept: &[Vec<Judged>; RANKS.len()],
) -> Option<Calibration> {
    let all: Vec<Judged> = fitted.iter().flatten().copied().collect();
    let rough = Curve::fit(&all)?;
    // Later ranks of a small collection may hold no match at all.
    let curves: [Curve; RANKS.len()] =
        std::array::from_fn(|i| Curve::fit(&fitted[i]).unwrap_or_else(|| rough.clone()));
    let promised = |groups: std::ops::Range<usize>| {
        let promises =
            groups.flat_map(|i| kept[i].iter().map(|hit| (curves[i].at(hit.0), hit.1)).collect::<Vec<_>>());
        Reliability::of(&promises.collect::<Vec<_>>())
    };
    let (reliability, first_hits) = (promised(0..RANKS.len()), promised(0..1));
    Some(Calibration { curves, reliability, first_hits, questions: 0, points: 0 })
}

fn texts(record: &StoredRecord) -> impl Iterator<Item = &str> {
    record.record.whole_parts().filter_map(|(_, part)| match part {
        diptych_core::Part::Text(text) => Some(text.text.as_str()),
        diptych_core::Part::Image(_) => None,
    })
}

/// Whether two references name the same image or the same text, whole or in chunks.
fn same_whole(a: PartRef, b: PartRef) -> bool {
    (a.modality, a.ordinal) == (b.modality, b.ordinal)
}

/// At most `n` of them, evenly spaced, in an order that does not depend on how they were inserted.
fn evenly(ids: &[PointId], n: usize) -> Vec<PointId> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    let step = ids.len().div_ceil(n.max(1)).max(1);
    ids.into_iter().step_by(step).collect()
}
