//! Words beside vectors: one more order of records, and one out of all.
//!
//! Owns: what a search by words found as records, the cosines of records that only words found, and fusion.
//! Deliberately absent: how words are looked up (see the module `lexical`), and how far a search looks.
//!
//! Fusion looks at candidates: what the index of vectors found, what the words found, all of them records
//! with a part of the target. Each has its cosine, whoever found it, and so a place in the order by
//! vectors; those that have the words have a place in the order by words, too.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use diptych_core::{Fusion, Hit, Key, Lexical, Modality, PartRef, PointId, Query, Target};
use diptych_index::{Neighbor, cosine_with};
use diptych_lexical::{LexicalQuery, Matches};
use diptych_store::StoredRecord;

use super::candidates::{Looked, shown_by};
use super::shape::Candidate;
use super::{Field, Found, NEIGHBORS_MAX, compares};
use crate::attributes::Matching;
use crate::lexical::record_number;
use crate::space::Space;
use crate::{Engine, EngineError};

/// Candidates of either side for an answer of a few hits. The pages of an answer come from the same
/// candidates as long as four times as many suffice.
const POOL: usize = 128;

/// The piece of a record's texts that has the words.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LexicalMatch {
    /// Its BM25 score, above 0; of several pieces, the best.
    pub score: f32,
    /// The text, or the chunk of a long one.
    pub part: PartRef,
}

/// The words of a query, read.
pub(super) struct Words<'q> {
    lexical: &'q Lexical,
    parsed: LexicalQuery,
}

/// What words found.
pub(super) struct Worded {
    matches: Matches,
    /// In the order of their scores; records that are gone left out.
    records: Vec<WordedRecord>,
    /// Whether there is nothing behind the last.
    pub all: bool,
    /// Points that meet the filter, if there is one, and what is to be said of it.
    pub matching: Option<Arc<Matching>>,
}

struct WordedRecord {
    number: u64,
    point: PointId,
    hit: LexicalMatch,
    stored: StoredRecord,
}

impl Worded {
    /// Records that have the words, and meet the filter.
    pub fn count(&self) -> u64 {
        self.matches.records
    }
}

impl<'q> Words<'q> {
    /// Reads the words of a query, if it has any.
    pub fn of(query: &'q Query) -> Result<Option<Self>, EngineError> {
        let read = |lexical: &'q Lexical| -> Result<Self, EngineError> {
            Ok(Self { lexical, parsed: LexicalQuery::parse(&lexical.text)? })
        };
        query.lexical().map(read).transpose()
    }

    /// Whether nothing is a hit that words did not find.
    pub fn require(&self) -> bool {
        self.parsed.requires()
    }

    /// How many candidates either side gives for so many hits.
    pub fn pool(needed: usize) -> usize {
        let mut pool = POOL;
        while pool < 4 * needed && pool < NEIGHBORS_MAX {
            pool *= 4;
        }
        pool
    }
}

impl Engine {
    /// The `wanted` best records by words.
    pub(super) fn look_words(
        &self,
        space: &Space,
        query: &Query,
        words: &Words<'_>,
        wanted: usize,
    ) -> Result<Worded, EngineError> {
        let matching = match query.filter() {
            Some(filter) => Some(space.attributes(&self.store)?.matching(filter, Modality::Text)),
            None => None,
        };
        let filter = matching.as_ref().map(|matching| &matching.points);
        let matches = space.ask_words(&self.store, |index| index.search(&words.parsed, filter, wanted))?;
        let points: Vec<PointId> = matches.hits.iter().map(|hit| PointId(hit.point)).collect();
        let owners = self.store.owners(space.collection.id, &points)?;
        let there: Vec<_> = matches.hits.iter().zip(owners).filter_map(|(hit, o)| Some((hit, o?))).collect();
        let keys: Vec<Key> = there.iter().map(|(_, (key, _))| key.clone()).collect();
        let stored = self.store.get_many(space.collection.id, &keys)?;
        let records = there.into_iter().zip(stored).filter_map(|((found, (_, part)), stored)| {
            let stored = stored?;
            // One that was replaced meanwhile has other points.
            let same = record_number(&stored.points) == Some(found.record);
            let meets = query.filter().is_none_or(|filter| filter.matches(stored.record.attributes()));
            let hit = LexicalMatch { score: found.score, part };
            (same && meets).then_some(WordedRecord {
                number: found.record,
                point: PointId(found.point),
                hit,
                stored,
            })
        });
        let records = records.collect();
        let all = matches.hits.len() as u64 == matches.records;
        Ok(Worded { matches, records, all, matching })
    }

    /// Adds the parts of records that words found to what the index of vectors found.
    pub(super) fn bring(
        &self,
        field: &Field<'_>,
        looked: &mut Looked,
        worded: &Worded,
    ) -> Result<(), EngineError> {
        let known: HashSet<PointId> = looked.neighbors.iter().map(|neighbor| neighbor.id).collect();
        let of_target = |worded: &WordedRecord| -> Vec<PointId> {
            let points = worded.stored.points.iter().filter(|(part, _)| part.modality == field.target);
            points.map(|(_, point)| *point).collect()
        };
        let mut points: Vec<PointId> = worded.records.iter().flat_map(of_target).collect();
        points.retain(|point| !known.contains(point));
        let vectors = self.store.vectors(field.space.collection.id, field.target, &points)?;
        let cosine = cosine_with(&field.embedding);
        let near = points
            .into_iter()
            .zip(vectors)
            .filter_map(|(id, vector)| Some(Neighbor { id, score: cosine(&vector?) }));
        looked.neighbors.extend(near);
        Ok(())
    }

    /// The candidates of words alone, best first.
    pub(super) fn worded_candidates(
        &self,
        space: &Space,
        query: &Query,
        worded: &Worded,
    ) -> Result<Vec<Candidate>, EngineError> {
        let best = worded.records.first().map_or(1.0, |first| f64::from(first.hit.score));
        let mut candidates = Vec::with_capacity(worded.records.len());
        for WordedRecord { number, point, hit, stored } in &worded.records {
            let (part, point) = match query.target() {
                Target::Only(Modality::Image) => {
                    let mut points = stored.points.iter();
                    match points.find(|(part, _)| part.modality == Modality::Image) {
                        Some(first) => *first,
                        None => continue,
                    }
                }
                Target::Only(Modality::Text) | Target::Both => (hit.part, *point),
            };
            let embedding = match compares(query.shape()) {
                true => self.store.vectors(space.collection.id, part.modality, &[point])?.pop().flatten(),
                false => None,
            };
            let found = Found {
                hit: Hit { key: stored.record.key().clone(), score: 0.0, part },
                relevance: None,
                term_scores: Vec::new(),
                lexical: Some(*hit),
                record: stored.record.clone(),
                image: shown_by(part, &stored.points),
                thumbnail: None,
            };
            let worth = f64::from(hit.score) / best;
            candidates.push(Candidate { found, worth, embedding, number: Some(*number) });
        }
        Ok(candidates)
    }
}

/// One order out of two: candidates in the order by vectors, best first, and what words found. Left out is
/// what does not meet the conditions of the words. Ties are in key order.
pub(super) fn fused(candidates: Vec<Candidate>, words: &Words<'_>, worded: &Worded) -> Vec<Candidate> {
    let mut candidates = candidates;
    candidates.retain(|candidate| worded.matches.allows(candidate.number));
    let by_number: HashMap<u64, usize> =
        candidates.iter().enumerate().filter_map(|(i, c)| Some((c.number?, i))).collect();
    let mut by_words = vec![None; candidates.len()];
    let mut rank = 0;
    for record in &worded.records {
        if let Some(&i) = by_number.get(&record.number) {
            rank += 1;
            by_words[i] = Some(rank);
            candidates[i].found.lexical = Some(record.hit);
        }
    }
    match words.lexical.fusion {
        Fusion::Rrf { k } => {
            let k = f64::from(k);
            let of = |rank: usize| (k + 1.0) / (k + rank as f64);
            for (i, (candidate, by_words)) in candidates.iter_mut().zip(by_words).enumerate() {
                // Divided by what the first of both has, so that diversity finds worths from 0 to 1.
                candidate.worth = (of(i + 1) + by_words.map_or(0.0, of)) / 2.0;
            }
        }
        Fusion::Weighted { lexical } => {
            let lexical = f64::from(lexical);
            let bm25 = |c: &Candidate| c.found.lexical.map_or(0.0, |hit| f64::from(hit.score));
            let vectors = scaled(candidates.iter().map(|c| c.worth).collect());
            let by_words = scaled(candidates.iter().map(bm25).collect());
            for ((candidate, vector), words) in candidates.iter_mut().zip(vectors).zip(by_words) {
                candidate.worth = (1.0 - lexical) * vector + lexical * words;
            }
        }
    }
    candidates
        .sort_by(|a, b| b.worth.total_cmp(&a.worth).then_with(|| a.found.hit.key.cmp(&b.found.hit.key)));
    candidates
}

/// Scores brought to 0 to 1: the least is 0, the greatest 1. Where all are the same, all are 1.
fn scaled(scores: Vec<f64>) -> Vec<f64> {
    let least = scores.iter().copied().fold(f64::INFINITY, f64::min);
    let range = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max) - least;
    scores.into_iter().map(|score| if range > 0.0 { (score - least) / range } else { 1.0 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_scaled_from_the_least_to_the_greatest() {
        assert_eq!(scaled(vec![0.5, -0.5, 0.0]), [1.0, 0.0, 0.5]);
        assert_eq!(scaled(vec![0.0, 0.0]), [1.0, 1.0]);
        assert_eq!(scaled(Vec::new()), [0.0; 0]);
    }

    #[test]
    fn pages_come_from_one_pool() {
        assert_eq!([1, 10, 32].map(Words::pool), [128; 3]);
        assert_eq!([33, 128, 129, 1000].map(Words::pool), [512, 512, 2048, 8192]);
    }
}
