//! From a query to hits.
//!
//! Owns: the way of a search, terms to vectors, vectors to neighbours, neighbours to records, records to
//! an answer; and how far it looks until the answer is complete. Deliberately absent: how terms become one
//! vector (see `terms`), what words find beside them (see `hybrid`), what relevance a score has (see the
//! module `relevance`), and what the shape of an answer leaves out (see `shape`).

mod candidates;
mod hybrid;
mod shape;
mod terms;

use std::sync::Arc;
use std::time::{Duration, Instant};

use diptych_core::{
    AttributeValue, CollectionName, Embedding, FacetCounts, Hit, Modality, PointId, Query, QuerySource,
    Record, Target,
};
use diptych_index::{Index, Plan};

use crate::attributes::Matching;
use crate::recall::{Answered, Look};
use crate::relevance::{Calibration, Need};
use crate::space::Space;
use crate::{Direction, Engine, EngineError, QueryKind};

use candidates::Looked;
use hybrid::{Worded, Words, fused};
use shape::{Candidate, compares, is_shaped, shaped};
use terms::Terms;

pub use hybrid::LexicalMatch;

/// A hit with the record it names.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The hit.
    pub hit: Hit,
    /// The probability that it is a match; `None` where the collection cannot tell.
    pub relevance: Option<f64>,
    /// Its cosine with every term, in their order, where there are several.
    pub term_scores: Vec<f32>,
    /// The words that it has, where the query has words.
    pub lexical: Option<LexicalMatch>,
    /// The record as it is stored now.
    pub record: Record,
    /// The point of the image that shows it: the one found, else the record's first.
    pub image: Option<PointId>,
    /// A small picture of that image, as a JPEG file, where the query asks for it and one is kept.
    pub thumbnail: Option<Vec<u8>>,
}

/// Where the time of a search went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SearchTimes {
    /// Turning the query into a vector.
    pub encode: Duration,
    /// In the index.
    pub search: Duration,
    /// Looking up words.
    pub lexical: Duration,
    /// Reading the hits from the store.
    pub fetch: Duration,
    /// Counting the values of attributes.
    pub facets: Duration,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchOutcome {
    /// Best first, one per record; ties in key order, of words alone in the order of points. A hit of a
    /// chunk names the chunk.
    pub hits: Vec<Found>,
    /// Where a least relevance was asked for and nothing has it: the best of what there is.
    pub below: Vec<Found>,
    /// Whether records may follow behind the last hit.
    pub more: bool,
    /// Points of the target that could be found; of words alone, texts and their chunks.
    pub searched_points: usize,
    /// Of those, the points of records that meet the filter; `None` without a filter.
    pub matching_points: Option<u64>,
    /// Records that have the words, and meet the filter; `None` without words.
    pub lexical_matches: Option<u64>,
    /// How the nearest were found; where both modalities were searched, the way of the larger index. Words
    /// alone are looked up in every text that has them, which is a scan.
    pub plan: Plan,
    /// The candidate list of a walk; `None` when the answer came from a scan.
    pub ef: Option<usize>,
    /// The values of attributes over all records that could be found, as the query asks.
    pub facets: Vec<FacetCounts>,
    /// What the caller may want to know, such as why a condition of the filter meets no record.
    pub notes: Vec<String>,
    /// Tokens of the query's texts beyond the model's context, which the search did not see.
    pub truncated_tokens: u32,
    /// The position in the order of writes up to which the search has seen everything.
    pub seq: u64,
    /// Where the time went.
    pub times: SearchTimes,
}

/// Neighbours looked at, at most, for an answer that leaves most of them out.
const NEIGHBORS_MAX: usize = 16_384;
/// Candidates, at least, from which a diverse answer is chosen.
const POOL_MIN: usize = 64;
/// Answers given, when nothing is relevant enough.
const BELOW: usize = 3;

/// One modality that is searched.
struct Field<'a> {
    space: &'a Arc<Space>,
    query: &'a Query,
    terms: &'a Terms,
    target: Modality,
    index: Arc<Index>,
    embedding: Embedding,
    direction: Direction,
    look: Look,
    calibrations: Option<Vec<Arc<Calibration>>>,
}

/// Everything that is asked, ready to be looked up.
struct Search<'a> {
    space: &'a Arc<Space>,
    query: &'a Query,
    /// The modalities that are searched; none when there are words alone.
    fields: Vec<Field<'a>>,
    words: Option<Words<'a>>,
}

/// How far the index of one modality has looked: whatever it has not found has no larger cosine.
struct Floor {
    target: Modality,
    cosine: f32,
}

impl Floor {
    /// Whether a candidate comes before all that has not been found.
    fn meets(&self, candidate: &Candidate) -> bool {
        let hit = &candidate.found.hit;
        hit.part.modality == self.target && hit.score >= self.cosine
    }
}

/// What was found when looking so far.
struct Round {
    answers: Vec<(Looked, Option<Arc<Matching>>)>,
    floors: Vec<Floor>,
    worded: Option<Worded>,
    /// Best first.
    candidates: Vec<Candidate>,
    /// Whether there is nothing behind them.
    all: bool,
}

impl Engine {
    /// Finds the records whose parts of the target are nearest to the query, or whose texts have its words,
    /// among those that meet its filter if it has one, in the shape it asks for.
    ///
    /// # Errors
    /// When the collection or a queried record is absent, a term cannot be encoded, the terms cancel out,
    /// the words are none, or a least relevance is asked for where the collection cannot tell relevance.
    pub fn search(&self, collection: &CollectionName, query: &Query) -> Result<SearchOutcome, EngineError> {
        let space = self.space(collection)?;
        let words = Words::of(query)?;
        let started = Instant::now();
        let seq = self.store.last_seq();
        let terms = self.embed_terms(&space, query.terms())?;
        let mut times = SearchTimes { encode: started.elapsed(), ..SearchTimes::default() };
        let started = Instant::now();
        let targets = if terms.all.is_empty() { &[] } else { query.target().modalities() };
        let fields: Vec<Field<'_>> =
            targets.iter().map(|t| self.field(&space, query, &terms, *t)).collect::<Result<_, _>>()?;
        // What scores mean may have to be learned first.
        times.search = started.elapsed();
        let excluded = self.excluded(&space, query)?;
        let needed = query.shape().offset + query.k();
        let mut wanted = match query.shape() {
            _ if words.is_some() => Words::pool(needed),
            shape if is_shaped(shape) => (4 * needed).max(POOL_MIN),
            _ => needed,
        };
        let search = Search { space: &space, query, fields, words };
        let mut first = true;
        loop {
            let Round { answers, floors, worded, candidates, all } =
                self.round(&search, wanted, std::mem::take(&mut first), &mut times)?;
            let started = Instant::now();
            // Of a single term, what follows a last hit that is not relevant enough is less relevant still.
            let below = |candidate: &Candidate| is_below(&candidate.found, query);
            let ends = terms.single()
                && match worded {
                    None => candidates.last().is_some_and(below),
                    Some(_) => {
                        floors.iter().all(|floor| candidates.iter().any(|c| floor.meets(c) && below(c)))
                    }
                };
            let (good, below): (Vec<_>, Vec<_>) =
                candidates.into_iter().partition(|candidate| !is_below(&candidate.found, query));
            // One more than is needed tells whether there is one.
            let good = shaped(good, query.shape(), &excluded, needed + 1);
            times.fetch += started.elapsed();
            if good.len() >= needed || all || ends || wanted >= NEIGHBORS_MAX {
                let below = match good.is_empty() {
                    true => shaped(below, query.shape(), &excluded, BELOW),
                    false => Vec::new(),
                };
                let more = good.len() > needed || (good.len() == needed && !all && !ends);
                let mut outcome = outcome(&search, &answers, worded.as_ref(), good, below);
                if search.fields.is_empty() {
                    outcome.searched_points = space.ask_words(&self.store, |index| index.len())? as usize;
                }
                (outcome.more, outcome.times, outcome.seq) = (more, times, seq);
                outcome.truncated_tokens = terms.truncated_tokens;
                if query.thumbnails() {
                    self.add_thumbnails(&space, &mut outcome)?;
                }
                let started = Instant::now();
                outcome.facets = self.facets(collection, query.facets(), query.filter(), query.target())?;
                outcome.times.facets = started.elapsed();
                return Ok(outcome);
            }
            wanted = wanted.saturating_mul(4).min(NEIGHBORS_MAX.max(needed));
        }
    }

    /// Looks once, so many neighbours and so many records with the words far.
    fn round(
        &self,
        search: &Search<'_>,
        wanted: usize,
        first: bool,
        times: &mut SearchTimes,
    ) -> Result<Round, EngineError> {
        let Search { space, query, fields, words } = search;
        let mut answers = Vec::with_capacity(fields.len());
        let mut floors = Vec::with_capacity(fields.len());
        for field in fields {
            let started = Instant::now();
            let matching = self.matching(field)?;
            let looked = self.look(field, wanted, matching.as_deref().map(|m| &m.points))?;
            times.search += started.elapsed();
            if first {
                self.meter.answered(&Answered {
                    space,
                    direction: field.direction,
                    embedding: &field.embedding,
                    k: query.k(),
                    matching: matching.as_ref(),
                    scores: &looked.scores(query.k()),
                });
            }
            let cosine = looked.neighbors.last().map_or(f32::INFINITY, |last| last.score);
            floors.push(Floor { target: field.target, cosine });
            answers.push((looked, matching));
        }
        let started = Instant::now();
        let worded = words.as_ref().map(|words| self.look_words(space, query, words, wanted)).transpose()?;
        if worded.is_some() {
            times.lexical += started.elapsed();
        }
        let started = Instant::now();
        let mut all = answers.iter().all(|(looked, _)| looked.all);
        if let (Some(words), Some(worded)) = (words, &worded) {
            for (field, (looked, _)) in fields.iter().zip(&mut answers) {
                self.bring(field, looked, worded)?;
            }
            all = worded.all && (all || words.require());
        }
        let looked: Vec<&Looked> = answers.iter().map(|(looked, _)| looked).collect();
        let candidates = match (words, &worded) {
            (Some(_), Some(worded)) if fields.is_empty() => self.worded_candidates(space, query, worded)?,
            (Some(words), Some(worded)) => fused(self.candidates(fields, &looked)?, words, worded),
            _ => self.candidates(fields, &looked)?,
        };
        times.fetch += started.elapsed();
        Ok(Round { answers, floors, worded, candidates, all })
    }

    /// Readies the search of one modality.
    fn field<'a>(
        &self,
        space: &'a Arc<Space>,
        query: &'a Query,
        terms: &'a Terms,
        target: Modality,
    ) -> Result<Field<'a>, EngineError> {
        let index = space.index(&self.store, target)?;
        let embedding = self.composed(space, terms, target)?;
        let kind = terms.kind();
        let direction = Direction { from: kind, to: target, filtered: query.filter().is_some() };
        let look = self.meter.look(space, direction, &embedding, query, index.len());
        if kind != QueryKind::Vector && kind != target.into() {
            index.note_query(&embedding)?;
        }
        let must = query.target() == Target::Both || query.shape().min_relevance.is_some();
        let need = if must { Need::Now } else { Need::IfCheap };
        let calibrations = self.calibrations(space, terms, target, need)?;
        if calibrations.is_none() && query.shape().min_relevance.is_some() {
            return Err(EngineError::NotCalibrated { from: kind, to: target });
        }
        Ok(Field { space, query, terms, target, index, embedding, direction, look, calibrations })
    }

    /// The points that meet the query's filter, if it has one.
    fn matching(&self, field: &Field<'_>) -> Result<Option<Arc<Matching>>, EngineError> {
        let Some(filter) = field.query.filter() else { return Ok(None) };
        Ok(Some(field.space.attributes(&self.store)?.matching(filter, field.target)))
    }

    /// Reads the small pictures of all hits.
    fn add_thumbnails(&self, space: &Space, outcome: &mut SearchOutcome) -> Result<(), EngineError> {
        let started = Instant::now();
        let shown = outcome.hits.iter_mut().chain(&mut outcome.below).filter(|found| found.image.is_some());
        let shown: Vec<&mut Found> = shown.collect();
        let points: Vec<PointId> = shown.iter().filter_map(|found| found.image).collect();
        let pictures = self.store.thumbnails(space.collection.id, &points)?;
        for (found, picture) in shown.into_iter().zip(pictures) {
            found.thumbnail = picture;
        }
        outcome.times.fetch += started.elapsed();
        Ok(())
    }

    /// The values of the attribute whose records are left out.
    fn excluded(&self, space: &Space, query: &Query) -> Result<Vec<AttributeValue>, EngineError> {
        let Some(name) = &query.shape().exclude_same else { return Ok(Vec::new()) };
        let mut values = Vec::new();
        for term in query.terms() {
            if let QuerySource::Key { key, .. } = term.source()
                && let Some(stored) = self.store.get(space.collection.id, key)?
            {
                values.extend(stored.record.attributes().get(name).cloned());
            }
        }
        Ok(values)
    }
}

/// Whether a hit is less relevant than the query asks for.
fn is_below(found: &Found, query: &Query) -> bool {
    query.shape().min_relevance.is_some_and(|least| found.relevance.is_none_or(|relevance| relevance < least))
}

/// Puts the answer together.
fn outcome(
    search: &Search<'_>,
    answers: &[(Looked, Option<Arc<Matching>>)],
    worded: Option<&Worded>,
    good: Vec<Found>,
    below: Vec<Found>,
) -> SearchOutcome {
    let Search { query, fields, .. } = search;
    let hits = good.into_iter().skip(query.shape().offset).take(query.k()).collect();
    let largest = (0..fields.len()).max_by_key(|&i| fields[i].index.len());
    let by_words = worded.filter(|_| fields.is_empty()).and_then(|worded| worded.matching.as_ref());
    let matching = answers.iter().filter_map(|(_, matching)| matching.as_ref()).chain(by_words);
    let mut notes: Vec<String> = Vec::new();
    for note in matching.clone().flat_map(|m| &m.notes) {
        if !notes.contains(note) {
            notes.push(note.clone());
        }
    }
    if query.target() == Target::Both && fields.iter().any(|field| field.calibrations.is_none()) {
        notes.push(
            "images and texts are merged by rank: the collection cannot tell how relevant the scores of \
             both are"
                .to_owned(),
        );
    }
    if worded.is_some_and(|worded| worded.count() == 0) {
        notes.push("no text that could be found has the words".to_owned());
    }
    SearchOutcome {
        hits,
        below,
        more: false,
        searched_points: fields.iter().map(|field| field.index.len()).sum(),
        matching_points: query.filter().map(|_| matching.map(|m| m.points.len()).sum()),
        lexical_matches: worded.map(Worded::count),
        plan: largest.map_or(Plan::Scan, |largest| answers[largest].0.plan),
        ef: largest.and_then(|largest| answers[largest].0.ef),
        facets: Vec::new(),
        notes,
        truncated_tokens: 0,
        seq: 0,
        times: SearchTimes::default(),
    }
}
