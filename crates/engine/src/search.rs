//! From a query to hits.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use diptych_core::limits::EF_MAX;
use diptych_core::{
    CollectionName, Embedding, Filter, Hit, Key, Modality, PartRef, Query, QuerySource, Record,
};
use diptych_index::{Answer, Index, Neighbor, Plan, PointSet, Search, default_ef};
use diptych_store::{RecordVector, Store};

use crate::attributes::Matching;
use crate::recall::{Answered, Look};
use crate::space::Space;
use crate::{Direction, Engine, EngineError, QueryEmbedding, QueryKind, Urgency};

/// A hit with the record it names.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The hit.
    pub hit: Hit,
    /// The record as it is stored now.
    pub record: Record,
}

/// Where the time of a search went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SearchTimes {
    /// Turning the query into a vector.
    pub encode: Duration,
    /// In the index.
    pub search: Duration,
    /// Reading the hits from the store.
    pub fetch: Duration,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchOutcome {
    /// Best first, one per record; ties in key order. A hit of a chunk names the chunk.
    pub hits: Vec<Found>,
    /// Points of the target modality that could be found.
    pub searched_points: usize,
    /// Of those, the points of records that meet the filter; `None` without a filter.
    pub matching_points: Option<u64>,
    /// How the nearest were found.
    pub plan: Plan,
    /// The candidate list of a walk; `None` when the answer came from a scan.
    pub ef: Option<usize>,
    /// Why a condition of the filter meets no record, such as a name that no record has.
    pub notes: Vec<String>,
    /// Tokens of the query text beyond the model's context, which the search did not see.
    pub truncated_tokens: u32,
    /// Where the time went.
    pub times: SearchTimes,
}

/// How often a search looks at most when records vanish under it; the last answer counts.
const LOOKS: u32 = 4;

/// Where and how a search looks.
struct Field<'a> {
    space: &'a Space,
    store: &'a Store,
    target: Modality,
    index: &'a Index,
    embedding: &'a Embedding,
    look: Look,
    k: usize,
}

/// The best part of each of the best records.
struct Rolled {
    hits: Vec<Hit>,
    plan: Plan,
    ef: Option<usize>,
    /// Scores of the first `k` neighbours, before anything was rolled up.
    scores: Vec<f32>,
    /// Time in the store.
    fetching: Duration,
}

impl Engine {
    /// Finds the records whose parts of the target modality are nearest to the query, among those
    /// that meet its filter if it has one.
    ///
    /// # Errors
    /// When the collection or the queried record is absent, or the query cannot be encoded.
    pub fn search(&self, collection: &CollectionName, query: &Query) -> Result<SearchOutcome, EngineError> {
        let space = self.space(collection)?;
        let started = Instant::now();
        let (from, encoded) = self.query_embedding(&space, query.source())?;
        let QueryEmbedding { embedding, truncated_tokens } = encoded;
        let mut times = SearchTimes { encode: started.elapsed(), ..SearchTimes::default() };

        let index = space.index(&self.store, query.target())?;
        let direction = Direction { from, to: query.target(), filtered: query.filter().is_some() };
        let look = self.meter.look(&space, direction, &embedding, query, index.len());
        if from != query.target().into() {
            index.note_query(&embedding)?;
        }
        let field = Field {
            space: &space,
            store: &self.store,
            target: query.target(),
            index: &index,
            embedding: &embedding,
            look,
            k: query.k(),
        };
        let mut left = LOOKS;
        loop {
            let started = Instant::now();
            let matching = self.matching(&space, query)?;
            let Rolled { hits: best, plan, ef, scores, fetching } =
                self.best_parts(&field, matching.as_ref().map(|m| &m.points))?;
            times.search += started.elapsed().saturating_sub(fetching);
            if left == LOOKS {
                self.meter.answered(&Answered {
                    space: &space,
                    direction,
                    embedding: &embedding,
                    k: query.k(),
                    matching: matching.as_ref(),
                    scores: &scores,
                });
            }

            let started = Instant::now();
            let wanted = best.len();
            let hits = self.fetch(&space, best, query.filter())?;
            times.fetch += started.elapsed() + fetching;
            left -= 1;
            // A record deleted between the two leaves its place to the next best.
            if hits.len() == wanted || left == 0 {
                let matching_points = matching.as_ref().map(|m| m.points.len());
                let notes = matching.map(|m| m.notes.clone()).unwrap_or_default();
                let searched_points = index.len();
                return Ok(SearchOutcome {
                    hits,
                    searched_points,
                    matching_points,
                    plan,
                    ef,
                    notes,
                    truncated_tokens,
                    times,
                });
            }
        }
    }

    /// The points that meet the query's filter, if it has one.
    fn matching(&self, space: &Space, query: &Query) -> Result<Option<Arc<Matching>>, EngineError> {
        let Some(filter) = query.filter() else { return Ok(None) };
        Ok(Some(space.attributes(&self.store)?.matching(filter, query.target())))
    }

    /// The query as a vector, and what kind of query it is.
    fn query_embedding(
        &self,
        space: &Space,
        source: &QuerySource,
    ) -> Result<(QueryKind, QueryEmbedding), EngineError> {
        let (kind, embedding) = match source {
            QuerySource::Text(text) => return Ok((QueryKind::Text, self.embed_query(text)?)),
            QuerySource::Image(bytes) => {
                let prepared = self.encoder().prepare_image(bytes)?;
                let mut embeddings = self.encode.images(vec![prepared], Urgency::Search)?;
                (QueryKind::Image, embeddings.pop().expect("one embedding for one input"))
            }
            QuerySource::Key { key, part } => {
                let stored = self.stored_embedding(space, key, *part)?;
                (stored.part.modality.into(), stored.embedding)
            }
            QuerySource::Vector(values) => {
                let (expected, found) = (space.collection.dim as usize, values.len());
                if found != expected {
                    return Err(EngineError::Dimension { expected, found });
                }
                (QueryKind::Vector, Embedding::new(values.as_slice())?)
            }
        };
        Ok((kind, QueryEmbedding { embedding, truncated_tokens: 0 }))
    }

    /// The stored embedding of a part: the first chunk's when a long text is named as a whole.
    fn stored_embedding(
        &self,
        space: &Space,
        key: &Key,
        part: Option<PartRef>,
    ) -> Result<RecordVector, EngineError> {
        let vectors = self.store.record_vectors(space.collection.id, key)?.ok_or_else(|| {
            EngineError::RecordNotFound { key: key.clone(), collection: space.collection.name.to_string() }
        })?;
        let wanted = match part {
            Some(part) => vectors.into_iter().filter(|v| part.covers(v.part)).min_by_key(|v| v.part),
            // The parts order images before texts, and each by its position.
            None => vectors.into_iter().min_by_key(|v| v.part),
        };
        let part = part.unwrap_or(PartRef::whole(Modality::Image, 0));
        wanted.ok_or_else(|| EngineError::PartNotFound { key: key.clone(), part })
    }

    /// The best part of each of the `k` best records. Records with many near parts use up
    /// neighbours, so the neighbourhood grows until there are `k` records or no more points.
    fn best_parts(&self, field: &Field<'_>, filter: Option<&PointSet>) -> Result<Rolled, EngineError> {
        let points = || match filter {
            Some(filter) => usize::try_from(filter.len()).unwrap_or(usize::MAX).min(field.index.len()),
            None => field.index.len(),
        };
        let mut rolled = Rolled {
            hits: Vec::new(),
            plan: Plan::Scan,
            ef: None,
            scores: Vec::new(),
            fetching: Duration::ZERO,
        };
        if points() == 0 {
            return Ok(rolled);
        }
        let mut wanted = field.k;
        loop {
            let (Answer { neighbors, plan }, ef) = field.nearest(wanted, filter)?;
            (rolled.plan, rolled.ef) = (plan, ef);
            if wanted == field.k {
                rolled.scores = neighbors.iter().map(|n| n.score).collect();
            }
            let started = Instant::now();
            rolled.hits = self.roll_up(field.space, &neighbors)?;
            rolled.fetching += started.elapsed();
            // Points removed while the index looked make it return fewer although there are more.
            let all = neighbors.len() < wanted && wanted > points();
            if rolled.hits.len() >= field.k || all {
                rolled.hits.truncate(field.k);
                return Ok(rolled);
            }
            wanted = wanted.saturating_mul(4);
        }
    }

    /// Turns neighbours into hits, one per record. Neighbours whose record is gone are dropped.
    fn roll_up(&self, space: &Space, neighbors: &[Neighbor]) -> Result<Vec<Hit>, EngineError> {
        let points: Vec<_> = neighbors.iter().map(|n| n.id).collect();
        let owners = self.store.owners(space.collection.id, &points)?;
        let mut best: HashMap<Key, (f32, PartRef)> = HashMap::new();
        for (neighbor, owner) in neighbors.iter().zip(owners) {
            let Some((key, part)) = owner else { continue };
            let new = (neighbor.score, part);
            best.entry(key).and_modify(|old| *old = better(*old, new)).or_insert(new);
        }
        let mut hits: Vec<Hit> =
            best.into_iter().map(|(key, (score, part))| Hit { key, score, part }).collect();
        hits.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.key.cmp(&b.key)));
        Ok(hits)
    }

    fn fetch(
        &self,
        space: &Space,
        hits: Vec<Hit>,
        filter: Option<&Filter>,
    ) -> Result<Vec<Found>, EngineError> {
        let mut found = Vec::with_capacity(hits.len());
        for hit in hits {
            // A record that was replaced since may lack the part; one that was deleted is no hit, nor
            // is one that was replaced by one that the filter excludes.
            if let Some(stored) = self.store.get(space.collection.id, &hit.key)?
                && filter.is_none_or(|filter| filter.matches(stored.record.attributes()))
            {
                found.push(Found { hit, record: stored.record });
            }
        }
        Ok(found)
    }
}

impl Field<'_> {
    /// The nearest points, and the candidate list they were found with, if there was one.
    fn nearest(
        &self,
        wanted: usize,
        filter: Option<&PointSet>,
    ) -> Result<(Answer, Option<usize>), EngineError> {
        let ef = match (self.look, filter) {
            (Look::Exact, None) => {
                let neighbors = self
                    .space
                    .ask(self.store, self.target, |index| index.nearest_exact(self.embedding, wanted))?;
                return Ok((Answer { neighbors, plan: Plan::Scan }, None));
            }
            // Recalls are measured without filters, so here the longest list has to do.
            (Look::Exact, Some(_)) => Some(EF_MAX),
            (Look::Ef(ef), _) => ef,
        };
        let search = Search { k: wanted, ef, filter };
        let answer =
            self.space.ask(self.store, self.target, |index| index.search(self.embedding, &search))?;
        let used = ef.unwrap_or_else(|| default_ef(wanted)).max(wanted);
        let ef = (answer.plan != Plan::Scan).then_some(used);
        Ok((answer, ef))
    }
}

/// The better of two parts of one record; the earlier part when they score the same.
fn better(a: (f32, PartRef), b: (f32, PartRef)) -> (f32, PartRef) {
    if b.0 > a.0 || (b.0 == a.0 && b.1 < a.1) { b } else { a }
}
