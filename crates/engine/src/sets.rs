//! From a set of images and texts to the records whose images and texts are most like it, as sets.
//!
//! Owns: the vectors of a set, which records are looked at for it, and how a record is judged by all of its
//! vectors. Deliberately absent: what the parts say, and any other reason to prefer one record (see the crate
//! `cases`).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use diptych_core::{
    CollectionName, Embedding, Filter, Key, Modality, PartRef, PointId, QuerySource, Record, SetQuery,
};
use diptych_index::Search;
use diptych_store::RecordVector;

use crate::relevance::Need;
use crate::space::Space;
use crate::{Engine, EngineError, SearchTimes, Urgency};

/// Records whose vectors are read for one answer, at most.
const RECORDS_MAX: usize = 1_024;
/// Added to ranks when the records to read are chosen (Cormack et al. 2009).
const RANK_OFFSET: f64 = 60.0;
/// How much a direction counts that leads from images to texts or back, where one counts 1 that stays within
/// a modality: two images of the same kind are compared more reliably than an image and a text.
const ACROSS: f64 = 0.5;

/// A part of a record that meets a part of the set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PartMatch {
    /// The part of the record.
    pub part: PartRef,
    /// Which part of the set, in the order of [`SetOutcome::parts`].
    pub query_part: usize,
    /// Their cosine similarity.
    pub cosine: f32,
}

/// A record and how it meets the set.
#[derive(Debug, Clone, PartialEq)]
pub struct SetHit {
    /// The record as it is stored now.
    pub record: Record,
    /// In standard deviations over the records that were looked at: 0 is one of them like any other. Only good
    /// to order the hits of one answer.
    pub score: f64,
    /// How likely parts as close as the closest ones are to be of one record; `None` where the collection
    /// cannot tell.
    pub relevance: Option<f64>,
    /// The image that meets the set best, if the record has one.
    pub image: Option<PartMatch>,
    /// The text, or piece of one, that meets it best, if the record has one.
    pub text: Option<PartMatch>,
    /// A small picture of that image, as a JPEG file; see [`Engine::add_pictures`].
    pub thumbnail: Option<Vec<u8>>,
    /// The point of that image.
    point: Option<PointId>,
}

/// One part of the set that was searched by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetPart {
    /// Image or text.
    pub modality: Modality,
    /// Which part of the query it comes from, counted from 0.
    pub source: usize,
    /// The part of the stored record, where it is one.
    pub stored: Option<PartRef>,
}

/// What a search by a set found.
#[derive(Debug, Clone, PartialEq)]
pub struct SetOutcome {
    /// The records looked at, best first; ties in key order.
    pub hits: Vec<SetHit>,
    /// The parts of the set, records named as a whole taken apart.
    pub parts: Vec<SetPart>,
    /// Points that could be found.
    pub searched_points: usize,
    /// Tokens of texts beyond the model's context, which the search did not see.
    pub truncated_tokens: u32,
    /// The position in the order of writes up to which the search has seen everything.
    pub seq: u64,
    /// Where the time went.
    pub times: SearchTimes,
}

/// A part of the set as a vector.
struct Element {
    part: SetPart,
    embedding: Embedding,
}

/// A record that is looked at.
struct Candidate {
    record: Record,
    /// Per direction, how well the set is met on average; `None` where the record has no such part.
    met: Vec<Option<f64>>,
    best: [Option<(PartMatch, PointId)>; 2],
}

/// From the parts of the set of one modality to those of records of the same or the other.
type Direction = (Modality, Modality);

impl Engine {
    /// Finds the records whose images and texts meet a set best. For each direction that there is, such as
    /// from the set's images to the record's texts, a record is as good as its nearest part is for each part of the
    /// set, on average; directions are put into one scale by their standard deviation over all records looked
    /// at. Records that the set names are left out.
    ///
    /// # Errors
    /// When the collection or a queried record is absent, or a part cannot be encoded.
    pub fn search_set(
        &self,
        collection: &CollectionName,
        query: &SetQuery,
    ) -> Result<SetOutcome, EngineError> {
        let space = self.space(collection)?;
        let started = Instant::now();
        let seq = self.store.last_seq();
        let (elements, truncated_tokens) = self.elements(&space, query.parts())?;
        let mut times = SearchTimes { encode: started.elapsed(), ..SearchTimes::default() };
        let started = Instant::now();
        let keys = self.pool(&space, query, &elements)?;
        times.search = started.elapsed();
        let started = Instant::now();
        let named = |key: &Key| {
            query.parts().iter().any(|part| matches!(part, QuerySource::Key { key: k, .. } if k == key))
        };
        let directions = directions(&elements);
        let mut candidates = Vec::with_capacity(keys.len());
        for key in keys.iter().filter(|key| !named(key)) {
            // One that is gone is none, nor is one that was replaced by one that the filter excludes.
            let Some((stored, vectors)) = self.store.record_whole(space.collection.id, key)? else {
                continue;
            };
            let attributes = stored.record.attributes();
            if query.filter().is_none_or(|filter| filter.matches(attributes)) {
                candidates.push(Candidate::new(stored.record, &vectors, &elements, &directions));
            }
        }
        let hits = self.judge(&space, &elements, &directions, candidates)?;
        times.fetch = started.elapsed();
        let mut searched_points = 0;
        for modality in Modality::ALL {
            searched_points += space.index(&self.store, modality)?.len();
        }
        let parts = elements.into_iter().map(|element| element.part).collect();
        Ok(SetOutcome { hits, parts, searched_points, truncated_tokens, seq, times })
    }

    /// Adds the small pictures of the best images, where they are kept.
    ///
    /// # Errors
    /// When the collection is absent, or the store cannot be read.
    pub fn add_pictures<'a>(
        &self,
        collection: &CollectionName,
        hits: impl Iterator<Item = &'a mut SetHit>,
    ) -> Result<(), EngineError> {
        let space = self.space(collection)?;
        let shown: Vec<&mut SetHit> = hits.filter(|hit| hit.point.is_some()).collect();
        let points: Vec<PointId> = shown.iter().filter_map(|hit| hit.point).collect();
        let pictures = self.store.thumbnails(space.collection.id, &points)?;
        shown.into_iter().zip(pictures).for_each(|(hit, picture)| hit.thumbnail = picture);
        Ok(())
    }

    /// The vectors of the set; what has to be encoded is encoded together.
    fn elements(
        &self,
        space: &Arc<Space>,
        parts: &[QuerySource],
    ) -> Result<(Vec<Element>, u32), EngineError> {
        let mut elements = Vec::new();
        let (mut images, mut texts) = (Vec::new(), Vec::new());
        let mut stored: HashMap<&Key, Vec<RecordVector>> = HashMap::new();
        for (source, part) in parts.iter().enumerate() {
            match part {
                QuerySource::Image(bytes) => {
                    images.push((source, self.encoder().prepare_image(bytes)?));
                }
                QuerySource::Text(text) => texts.push((source, text.as_str())),
                QuerySource::Key { key, part } => {
                    if !stored.contains_key(key) {
                        let vectors = self.store.record_vectors(space.collection.id, key)?;
                        let vectors = vectors.ok_or_else(|| EngineError::RecordNotFound {
                            key: key.clone(),
                            collection: space.collection.name.to_string(),
                        })?;
                        stored.insert(key, vectors);
                    }
                    let wanted = |v: &&RecordVector| part.is_none_or(|part| part.covers(v.part));
                    let before = elements.len();
                    elements.extend(stored[key].iter().filter(wanted).map(|v| Element {
                        part: SetPart { modality: v.part.modality, source, stored: Some(v.part) },
                        embedding: v.embedding.clone(),
                    }));
                    if let (Some(part), true) = (*part, elements.len() == before) {
                        return Err(EngineError::PartNotFound { key: key.clone(), part });
                    }
                }
                QuerySource::Vector(_) => unreachable!("a set has no vectors"),
            }
        }
        let (image_sources, prepared): (Vec<usize>, Vec<_>) = images.into_iter().unzip();
        let (embedded, _) = self.embed(prepared, Vec::new(), Urgency::Search)?;
        let element = |modality| {
            move |(source, embedding)| Element { part: SetPart { modality, source, stored: None }, embedding }
        };
        elements.extend(image_sources.into_iter().zip(embedded).map(element(Modality::Image)));
        let (text_sources, texts): (Vec<usize>, Vec<&str>) = texts.into_iter().unzip();
        let mut truncated_tokens = 0u32;
        for (source, query) in text_sources.into_iter().zip(self.embed_queries(&texts)?) {
            truncated_tokens = truncated_tokens.saturating_add(query.truncated_tokens);
            elements.push(element(Modality::Text)((source, query.embedding)));
        }
        elements.sort_by_key(|element| (element.part.modality, element.part.source, element.part.stored));
        Ok((elements, truncated_tokens))
    }

    /// The records that are looked at: the owners of what is nearest to each part of the set, those first that
    /// are near to many.
    fn pool(
        &self,
        space: &Arc<Space>,
        query: &SetQuery,
        elements: &[Element],
    ) -> Result<Vec<Key>, EngineError> {
        let mut worth: HashMap<Key, f64> = HashMap::new();
        self.gather(space, query.pool(), query.filter(), elements, &mut worth)?;
        if let Some(also) = query.also() {
            let both = match query.filter() {
                None => also.clone(),
                Some(filter) => filter.and(also)?,
            };
            self.gather(space, query.pool(), Some(&both), elements, &mut worth)?;
        }
        let mut all: Vec<(Key, f64)> = worth.into_iter().collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        all.truncate(RECORDS_MAX);
        Ok(all.into_iter().map(|(key, _)| key).collect())
    }

    /// Adds the owners of what is nearest to each part, among the records that meet a filter, with the sum of
    /// their reciprocal ranks.
    fn gather(
        &self,
        space: &Arc<Space>,
        nearest: usize,
        filter: Option<&Filter>,
        elements: &[Element],
        worth: &mut HashMap<Key, f64>,
    ) -> Result<(), EngineError> {
        for target in Modality::ALL {
            let matching = match filter {
                None => None,
                Some(filter) => Some(space.attributes(&self.store)?.matching(filter, target)),
            };
            let points = matching.as_deref().map(|matching| &matching.points);
            let nothing = points.is_some_and(|points| points.is_empty());
            if nothing || space.index(&self.store, target)?.is_empty() {
                continue;
            }
            for element in elements {
                let search = Search { k: nearest, ef: None, filter: points };
                let answer =
                    space.ask(&self.store, target, |index| index.search(&element.embedding, &search))?;
                let points: Vec<PointId> = answer.neighbors.iter().map(|n| n.id).collect();
                let mut seen: HashSet<Key> = HashSet::new();
                for (key, _) in self.store.owners(space.collection.id, &points)?.into_iter().flatten() {
                    if !seen.contains(&key) {
                        *worth.entry(key.clone()).or_default() +=
                            1.0 / (RANK_OFFSET + seen.len() as f64 + 1.0);
                        seen.insert(key);
                    }
                }
            }
        }
        Ok(())
    }

    /// One order of all candidates.
    fn judge(
        &self,
        space: &Arc<Space>,
        elements: &[Element],
        directions: &[Direction],
        candidates: Vec<Candidate>,
    ) -> Result<Vec<SetHit>, EngineError> {
        let scales: Vec<(f64, f64)> = (0..directions.len())
            .map(|d| mean_and_deviation(candidates.iter().filter_map(|c| c.met[d])))
            .collect();
        let score = |candidate: &Candidate| {
            let (mut sum, mut weights) = (0.0, 0.0);
            for ((direction, met), (mean, deviation)) in directions.iter().zip(&candidate.met).zip(&scales) {
                let Some(met) = met else { continue };
                let weight = if direction.0 == direction.1 { 1.0 } else { ACROSS };
                sum += weight * (met - mean) / deviation.max(f64::from(f32::EPSILON));
                weights += weight;
            }
            if weights > 0.0 { sum / weights } else { 0.0 }
        };
        let mut scored: Vec<(f64, Candidate)> = candidates.into_iter().map(|c| (score(&c), c)).collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.record.key().cmp(b.1.record.key())));
        let mut hits = Vec::with_capacity(scored.len());
        for (rank, (score, candidate)) in scored.into_iter().enumerate() {
            let mut relevance: Option<f64> = None;
            for (best, _) in candidate.best.iter().flatten() {
                let way = (elements[best.query_part].part.modality, best.part.modality);
                if let Some(calibration) = space.calibration(&self.store, way, Need::IfCheap)? {
                    let found = calibration.relevance(best.cosine, rank);
                    relevance = Some(relevance.map_or(found, |other| other.max(found)));
                }
            }
            let [image, text] = candidate.best;
            hits.push(SetHit {
                record: candidate.record,
                score,
                relevance,
                point: image.map(|(_, point)| point),
                image: image.map(|(best, _)| best),
                text: text.map(|(best, _)| best),
                thumbnail: None,
            });
        }
        Ok(hits)
    }
}

/// The directions of a set: from each modality that it has to both.
fn directions(elements: &[Element]) -> Vec<Direction> {
    let has = |modality: &Modality| elements.iter().any(|element| element.part.modality == *modality);
    Modality::ALL.into_iter().filter(has).flat_map(|from| Modality::ALL.map(|to| (from, to))).collect()
}

impl Candidate {
    fn new(record: Record, vectors: &[RecordVector], elements: &[Element], directions: &[Direction]) -> Self {
        let mut met = Vec::with_capacity(directions.len());
        let mut best: [Option<(PartMatch, PointId)>; 2] = [None, None];
        for &(from, to) in directions {
            let (mut sum, mut count) = (0.0, 0u32);
            for (query_part, element) in elements.iter().enumerate().filter(|(_, e)| e.part.modality == from)
            {
                let cosines = vectors
                    .iter()
                    .filter(|v| v.part.modality == to)
                    .map(|v| (v.embedding.cosine(&element.embedding), v));
                // Of equals the earlier part.
                let Some((cosine, nearest)) = cosines.reduce(|a, b| if b.0 > a.0 { b } else { a }) else {
                    continue;
                };
                sum += f64::from(cosine);
                count += 1;
                let found = PartMatch { part: nearest.part, query_part, cosine };
                let slot = &mut best[to as usize];
                // What is of the same modality is the better evidence; across is shown where there is no other.
                let within = |m: &PartMatch| elements[m.query_part].part.modality == to;
                let better = match slot {
                    None => true,
                    Some((old, _)) => (within(&found), found.cosine) > (within(old), old.cosine),
                };
                if better {
                    *slot = Some((found, nearest.point));
                }
            }
            met.push((count > 0).then(|| sum / f64::from(count)));
        }
        Self { record, met, best }
    }
}

fn mean_and_deviation(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let n = values.clone().count().max(1) as f64;
    let mean = values.clone().sum::<f64>() / n;
    let variance = values.map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
    (mean, variance.sqrt())
}
