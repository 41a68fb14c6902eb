//! From vectors to records.
//!
//! Owns: asking the index, rolling parts up to records, reading those, and one order for what was found in
//! both modalities. Deliberately absent: how far a search looks.

use std::collections::HashMap;

use diptych_core::limits::EF_MAX;
use diptych_core::{Embedding, Hit, Key, Modality, PartRef, PointId};
use diptych_index::{Answer, Neighbor, Plan, PointSet, Search, default_ef};

use super::shape::Candidate;
use super::terms::relevance;
use super::{Field, Found, compares};
use crate::lexical::record_number;
use crate::recall::Look;
use crate::{Engine, EngineError};

/// Added to ranks that are fused (Cormack et al. 2009).
const RANK_OFFSET: f64 = 60.0;

/// What the index of one modality answered.
pub(super) struct Looked {
    pub neighbors: Vec<Neighbor>,
    pub plan: Plan,
    /// The candidate list, if there was one.
    pub ef: Option<usize>,
    /// Whether there is nothing behind the last neighbour.
    pub all: bool,
}

/// The best part of a record.
struct Best {
    hit: Hit,
    point: PointId,
}

impl Looked {
    /// Scores of the first `k` neighbours, before anything is rolled up.
    pub fn scores(&self, k: usize) -> Vec<f32> {
        self.neighbors.iter().take(k).map(|n| n.score).collect()
    }
}

impl Engine {
    /// The nearest points of one modality.
    pub(super) fn look(
        &self,
        field: &Field<'_>,
        wanted: usize,
        filter: Option<&PointSet>,
    ) -> Result<Looked, EngineError> {
        let points = match filter {
            Some(filter) => usize::try_from(filter.len()).unwrap_or(usize::MAX).min(field.index.len()),
            None => field.index.len(),
        };
        if points == 0 {
            return Ok(Looked { neighbors: Vec::new(), plan: Plan::Scan, ef: None, all: true });
        }
        // Points removed while the index looks make it return fewer although there are more.
        let all = |found: usize| found >= points || (found < wanted && wanted > points);
        let ef = match (field.look, filter) {
            (Look::Exact, None) => {
                let neighbors = field
                    .space
                    .ask(&self.store, field.target, |index| index.nearest_exact(&field.embedding, wanted))?;
                let all = all(neighbors.len());
                return Ok(Looked { neighbors, plan: Plan::Scan, ef: None, all });
            }
            // Recalls are measured without filters, so here the longest list has to do.
            (Look::Exact, Some(_)) => Some(EF_MAX),
            (Look::Ef(ef), _) => ef,
        };
        let search = Search { k: wanted, ef, filter };
        let Answer { neighbors, plan } =
            field.space.ask(&self.store, field.target, |index| index.search(&field.embedding, &search))?;
        let used = ef.unwrap_or_else(|| default_ef(wanted)).max(wanted);
        let all = all(neighbors.len());
        Ok(Looked { neighbors, plan, ef: (plan != Plan::Scan).then_some(used), all })
    }

    /// The records of all neighbours, best first; ties in key order.
    pub(super) fn candidates(
        &self,
        fields: &[Field<'_>],
        looked: &[&Looked],
    ) -> Result<Vec<Candidate>, EngineError> {
        let mut sides = Vec::with_capacity(fields.len());
        for (field, looked) in fields.iter().zip(looked) {
            sides.push(self.side(field, &looked.neighbors)?);
        }
        if sides.len() == 1 {
            return Ok(sides.remove(0));
        }
        let by_relevance = sides.iter().flatten().all(|candidate| candidate.found.relevance.is_some());
        let mut merged: HashMap<Key, Candidate> = HashMap::new();
        for side in sides {
            for (rank, mut candidate) in side.into_iter().enumerate() {
                candidate.worth = match candidate.found.relevance {
                    Some(relevance) if by_relevance => relevance,
                    _ => 1.0 / (RANK_OFFSET + rank as f64 + 1.0),
                };
                match merged.remove(&candidate.found.hit.key) {
                    None => {}
                    Some(other) if by_relevance && other.worth >= candidate.worth => candidate = other,
                    Some(_) if by_relevance => {}
                    // Found in both: both ranks speak for it.
                    Some(mut other) => {
                        let worth = other.worth + candidate.worth;
                        candidate = if other.worth >= candidate.worth {
                            std::mem::replace(&mut other, candidate)
                        } else {
                            candidate
                        };
                        candidate.worth = worth;
                    }
                }
                merged.insert(candidate.found.hit.key.clone(), candidate);
            }
        }
        let mut all: Vec<Candidate> = merged.into_values().collect();
        all.sort_by(|a, b| b.worth.total_cmp(&a.worth).then_with(|| a.found.hit.key.cmp(&b.found.hit.key)));
        Ok(all)
    }

    /// The records of one modality's neighbours. A record that is gone is none, nor is one that was
    /// replaced by one that the filter excludes.
    fn side(&self, field: &Field<'_>, neighbors: &[Neighbor]) -> Result<Vec<Candidate>, EngineError> {
        let best = self.roll_up(field, neighbors)?;
        let collection = field.space.collection.id;
        let several = !field.terms.single();
        let embeddings: Vec<Option<Embedding>> = if several || compares(field.query.shape()) {
            let points: Vec<PointId> = best.iter().map(|best| best.point).collect();
            self.store.vectors(collection, field.target, &points)?
        } else {
            vec![None; best.len()]
        };
        let keys: Vec<Key> = best.iter().map(|best| best.hit.key.clone()).collect();
        let records = self.store.get_many(collection, &keys)?;
        let mut candidates = Vec::with_capacity(best.len());
        for ((Best { hit, .. }, embedding), stored) in best.into_iter().zip(embeddings).zip(records) {
            let Some(stored) = stored else { continue };
            if field.query.filter().is_some_and(|filter| !filter.matches(stored.record.attributes())) {
                continue;
            }
            let term_scores: Vec<f32> = match &embedding {
                Some(embedding) if several => {
                    field.terms.all.iter().map(|term| term.embedding.cosine(embedding)).collect()
                }
                _ => Vec::new(),
            };
            let cosines = if several { term_scores.as_slice() } else { std::slice::from_ref(&hit.score) };
            let relevance = match &field.calibrations {
                Some(calibrations) if cosines.len() == calibrations.len() => {
                    Some(relevance(field.terms, calibrations, cosines, candidates.len()))
                }
                _ => None,
            };
            let worth = f64::from(hit.score);
            let (image, number) = (shown_by(hit.part, &stored.points), record_number(&stored.points));
            let record = stored.record;
            let found = Found { hit, relevance, term_scores, lexical: None, record, image, thumbnail: None };
            candidates.push(Candidate { found, worth, embedding, number });
        }
        Ok(candidates)
    }

    /// Turns neighbours into hits, one per record. Neighbours whose record is gone are dropped.
    fn roll_up(&self, field: &Field<'_>, neighbors: &[Neighbor]) -> Result<Vec<Best>, EngineError> {
        let points: Vec<_> = neighbors.iter().map(|n| n.id).collect();
        let owners = self.store.owners(field.space.collection.id, &points)?;
        let mut best: HashMap<Key, (f32, PartRef, PointId)> = HashMap::new();
        for (neighbor, owner) in neighbors.iter().zip(owners) {
            let Some((key, part)) = owner else { continue };
            let new = (neighbor.score, part, neighbor.id);
            best.entry(key).and_modify(|old| *old = better(*old, new)).or_insert(new);
        }
        let mut hits: Vec<Best> = best
            .into_iter()
            .map(|(key, (score, part, point))| Best { hit: Hit { key, score, part }, point })
            .collect();
        hits.sort_by(|a, b| b.hit.score.total_cmp(&a.hit.score).then_with(|| a.hit.key.cmp(&b.hit.key)));
        Ok(hits)
    }
}

/// The image that shows a hit: itself, else the first one of its record.
pub(super) fn shown_by(hit: PartRef, points: &[(PartRef, PointId)]) -> Option<PointId> {
    let images = points.iter().filter(|(part, _)| part.modality == Modality::Image);
    images.min_by_key(|(part, _)| (*part != hit, *part)).map(|(_, point)| *point)
}

/// The better of two parts of one record; the earlier part when they score the same.
fn better(a: (f32, PartRef, PointId), b: (f32, PartRef, PointId)) -> (f32, PartRef, PointId) {
    if b.0 > a.0 || (b.0 == a.0 && b.1 < a.1) { b } else { a }
}
