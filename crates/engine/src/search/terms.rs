//! From the terms of a query to one vector per modality that is searched.
//!
//! Owns: embedding terms, and putting them together so that each counts by its weight. Deliberately
//! absent: the search.

use std::sync::Arc;

use diptych_core::{Embedding, Key, Modality, PartRef, QuerySource, Term};
use diptych_store::RecordVector;

use crate::relevance::{Calibration, Need};
use crate::space::Space;
use crate::{Engine, EngineError, QueryKind, Urgency};

/// A term as a vector.
pub(super) struct Embedded {
    pub kind: QueryKind,
    pub embedding: Embedding,
    pub weight: f32,
}

/// All terms of a query.
pub(super) struct Terms {
    pub all: Vec<Embedded>,
    /// Tokens of texts beyond the model's context.
    pub truncated_tokens: u32,
}

impl Terms {
    /// What kind of query this is, where all terms are of one.
    pub fn kind(&self) -> QueryKind {
        let first = self.all[0].kind;
        if self.all.iter().all(|term| term.kind == first) { first } else { QueryKind::Vector }
    }

    /// Whether the query is one vector and nothing else.
    pub fn single(&self) -> bool {
        self.all.len() == 1
    }
}

impl Engine {
    /// The vectors of all terms.
    pub(super) fn embed_terms(&self, space: &Arc<Space>, terms: &[Term]) -> Result<Terms, EngineError> {
        let mut truncated_tokens = 0;
        let embed = |term: &Term| {
            let space = || Ok(Arc::clone(space));
            let (kind, embedding, truncated) = self.embed_source(space, term.source())?;
            truncated_tokens += truncated;
            Ok(Embedded { kind, embedding, weight: term.weight() })
        };
        let all = terms.iter().map(embed).collect::<Result<_, EngineError>>()?;
        Ok(Terms { all, truncated_tokens })
    }

    /// A source as a vector, with the tokens of it that the model does not see. `space` is asked for the
    /// collection of a stored record.
    pub(crate) fn embed_source(
        &self,
        space: impl FnOnce() -> Result<Arc<Space>, EngineError>,
        source: &QuerySource,
    ) -> Result<(QueryKind, Embedding, u32), EngineError> {
        Ok(match source {
            QuerySource::Text(text) => {
                let query = self.embed_query(text)?;
                (QueryKind::Text, query.embedding, query.truncated_tokens)
            }
            QuerySource::Image(bytes) => {
                let prepared = self.encoder().prepare_image(bytes)?;
                let mut embeddings = self.encode.images(vec![prepared], Urgency::Search)?;
                (QueryKind::Image, embeddings.pop().expect("one embedding for one input"), 0)
            }
            QuerySource::Key { key, part } => {
                let space = space()?;
                let stored = self.stored_embedding(&space, key, *part)?;
                (stored.part.modality.into(), stored.embedding, 0)
            }
            QuerySource::Vector(values) => {
                let (expected, found) = (self.encoder().dim(), values.len());
                if found != expected {
                    return Err(EngineError::Dimension { expected, found });
                }
                (QueryKind::Vector, Embedding::new(values.as_slice())?, 0)
            }
        })
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

    /// One vector for all terms, for a search of one modality.
    ///
    /// A hit is to be judged by the weighted sum of its cosines with the terms. But cosines with texts
    /// and with images lie in ranges of their own, and their differences are of different size: a text
    /// would hardly count beside an image. So each cosine is counted in standard deviations of its
    /// direction, which is a weighted sum of the vectors again.
    pub(super) fn composed(
        &self,
        space: &Arc<Space>,
        terms: &Terms,
        target: Modality,
    ) -> Result<Embedding, EngineError> {
        if let [only] = terms.all.as_slice() {
            return Ok(only.embedding.clone());
        }
        let mixed = terms.all.iter().any(|term| term.kind != terms.all[0].kind);
        let mut spreads = vec![1f32; terms.all.len()];
        if mixed {
            let measured = terms
                .all
                .iter()
                .map(|term| space.spread(&self.store, (modality_of(term.kind).unwrap_or(target), target)));
            // Where one is not known, none helps.
            if let Some(all) = measured.collect::<Result<Option<Vec<f32>>, _>>()? {
                spreads = all;
            }
        }
        let mut sum = vec![0f32; space.collection.dim as usize];
        for (term, spread) in terms.all.iter().zip(spreads) {
            let weight = term.weight / spread;
            sum.iter_mut().zip(term.embedding.as_slice()).for_each(|(sum, v)| *sum += weight * v);
        }
        Embedding::new(sum).map_err(|_| EngineError::Cancelled)
    }

    /// The calibrations of the terms' directions; `None` where one of them has none.
    pub(super) fn calibrations(
        &self,
        space: &Arc<Space>,
        terms: &Terms,
        target: Modality,
        need: Need,
    ) -> Result<Option<Vec<Arc<Calibration>>>, EngineError> {
        let mut all = Vec::with_capacity(terms.all.len());
        for term in &terms.all {
            let Some(from) = modality_of(term.kind) else { return Ok(None) };
            match space.calibration(&self.store, (from, target), need)? {
                Some(calibration) => all.push(calibration),
                None => return Ok(None),
            }
        }
        Ok(Some(all))
    }
}

/// What a query of this kind is a part of, if that is known.
fn modality_of(kind: QueryKind) -> Option<Modality> {
    match kind {
        QueryKind::Image => Some(Modality::Image),
        QueryKind::Text => Some(Modality::Text),
        QueryKind::Vector => None,
    }
}

/// The relevance of a hit that has these cosines with the terms, and so many records before it: the weighted geometric mean of the
/// probabilities that it matches each positive term and that it does not match each negative one.
pub(super) fn relevance(
    terms: &Terms,
    calibrations: &[Arc<Calibration>],
    cosines: &[f32],
    nearer: usize,
) -> f64 {
    let (mut sum, mut weights) = (0.0, 0.0);
    for ((term, calibration), cosine) in terms.all.iter().zip(calibrations).zip(cosines) {
        let matched = calibration.relevance(*cosine, nearer);
        let probability = if term.weight > 0.0 { matched } else { 1.0 - matched };
        let weight = f64::from(term.weight.abs());
        sum += weight * probability.ln();
        weights += weight;
    }
    (sum / weights).exp()
}
