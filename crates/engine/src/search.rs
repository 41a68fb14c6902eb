//! From a query to hits.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use diptych_core::{CollectionName, Embedding, Hit, Key, Modality, PartRef, Query, QuerySource, Record};
use diptych_index::{Index, Neighbor};

use crate::space::Space;
use crate::{Engine, EngineError, QueryEmbedding, Urgency};

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
    /// Tokens of the query text beyond the model's context, which the search did not see.
    pub truncated_tokens: u32,
    /// Where the time went.
    pub times: SearchTimes,
}

/// How often a search looks at most when records vanish under it; the last answer counts.
const LOOKS: u32 = 4;

impl Engine {
    /// Finds the records whose parts of the target modality are nearest to the query.
    ///
    /// # Errors
    /// When the collection or the queried record is absent, or the query cannot be encoded.
    pub fn search(&self, collection: &CollectionName, query: &Query) -> Result<SearchOutcome, EngineError> {
        let space = self.space(collection)?;
        let started = Instant::now();
        let QueryEmbedding { embedding, truncated_tokens } = self.query_embedding(&space, query.source())?;
        let encode = started.elapsed();

        let index = space.index(&self.store, query.target())?;
        let mut times = SearchTimes { encode, search: Duration::ZERO, fetch: Duration::ZERO };
        let mut left = LOOKS;
        loop {
            let started = Instant::now();
            let (best, fetch_owners) = self.best_parts(&space, index, &embedding, query)?;
            times.search += started.elapsed().saturating_sub(fetch_owners);

            let started = Instant::now();
            let wanted = best.len();
            let hits = self.fetch(&space, best)?;
            times.fetch += started.elapsed() + fetch_owners;
            left -= 1;
            // A record deleted between the two leaves its place to the next best.
            if hits.len() == wanted || left == 0 {
                return Ok(SearchOutcome { hits, searched_points: index.len(), truncated_tokens, times });
            }
        }
    }

    fn query_embedding(&self, space: &Space, source: &QuerySource) -> Result<QueryEmbedding, EngineError> {
        let embedding = match source {
            QuerySource::Text(text) => return self.embed_query(text),
            QuerySource::Image(bytes) => {
                let prepared = self.encoder().prepare_image(bytes)?;
                let mut embeddings = self.encode.images(vec![prepared], Urgency::Search)?;
                embeddings.pop().expect("one embedding for one input")
            }
            QuerySource::Key { key, part } => self.stored_embedding(space, key, *part)?,
            QuerySource::Vector(values) => {
                let (expected, found) = (space.collection.dim as usize, values.len());
                if found != expected {
                    return Err(EngineError::Dimension { expected, found });
                }
                Embedding::new(values.as_slice())?
            }
        };
        Ok(QueryEmbedding { embedding, truncated_tokens: 0 })
    }

    /// The stored embedding of a part: the first chunk's when a long text is named as a whole.
    fn stored_embedding(
        &self,
        space: &Space,
        key: &Key,
        part: Option<PartRef>,
    ) -> Result<Embedding, EngineError> {
        let vectors = self.store.record_vectors(space.collection.id, key)?.ok_or_else(|| {
            EngineError::RecordNotFound { key: key.clone(), collection: space.collection.name.to_string() }
        })?;
        let wanted = match part {
            Some(part) => vectors.into_iter().filter(|v| part.covers(v.part)).min_by_key(|v| v.part),
            // The parts order images before texts, and each by its position.
            None => vectors.into_iter().min_by_key(|v| v.part),
        };
        let part = part.unwrap_or(PartRef::whole(Modality::Image, 0));
        Ok(wanted.ok_or_else(|| EngineError::PartNotFound { key: key.clone(), part })?.embedding)
    }

    /// The best part of each of the `k` best records. Records with many near parts use up
    /// neighbours, so the neighbourhood grows until there are `k` records or no more points.
    fn best_parts(
        &self,
        space: &Space,
        index: &Index,
        embedding: &Embedding,
        query: &Query,
    ) -> Result<(Vec<Hit>, Duration), EngineError> {
        let mut fetching = Duration::ZERO;
        let mut wanted = query.k();
        loop {
            let neighbors = index.nearest(embedding, wanted, query.ef())?;
            let started = Instant::now();
            let mut hits = self.roll_up(space, &neighbors)?;
            fetching += started.elapsed();
            // Points removed while the index looked make it return fewer although there are more.
            let all = neighbors.len() < wanted && wanted > index.len();
            if hits.len() >= query.k() || all {
                hits.truncate(query.k());
                return Ok((hits, fetching));
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

    fn fetch(&self, space: &Space, hits: Vec<Hit>) -> Result<Vec<Found>, EngineError> {
        let mut found = Vec::with_capacity(hits.len());
        for hit in hits {
            // A record that was replaced since may lack the part; one that was deleted is no hit.
            if let Some(stored) = self.store.get(space.collection.id, &hit.key)? {
                found.push(Found { hit, record: stored.record });
            }
        }
        Ok(found)
    }
}

/// The better of two parts of one record; the earlier part when they score the same.
fn better(a: (f32, PartRef), b: (f32, PartRef)) -> (f32, PartRef) {
    if b.0 > a.0 || (b.0 == a.0 && b.1 < a.1) { b } else { a }
}
