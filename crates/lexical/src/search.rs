//! From words to the records that have them.
//!
//! Owns: the conditions, which are asked of records, and the scores, which are those of pieces of text: the
//! score of a record is that of its best piece. Deliberately absent: the files.
//!
//! The score of a piece is the sum of the BM25 (Robertson et al. 1994; k1 = 1.2, b = 0.75, with Lucene's
//! idf, `ln(1 + (N - n + 0.5) / (n + 0.5))`) of each word that was asked for and of each phrase as if it
//! were a word. It is summed up in the order of the query and so depends on nothing but the query and the
//! texts that there are.

use std::cmp::Ordering;

use tantivy::query::{EnableScoring, PhraseQuery, Query, TermQuery, Weight};
use tantivy::schema::IndexRecordOption;
use tantivy::{Searcher, SegmentReader, TERMINATED, Term};

use crate::analysis::{Fields, POINT, RECORD};
use crate::query::{LexicalQuery, Probe};
use crate::statistics::Counts;

/// A set of points or of records.
pub type PointSet = roaring::RoaringTreemap;

/// A record that has the words.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Match {
    /// Its best piece; of equally good ones, that with the smallest number.
    pub point: u64,
    /// The number of the record, as its pieces came with it.
    pub record: u64,
    /// The BM25 score of that piece, above 0.
    pub score: f32,
}

/// What a search by words found.
#[derive(Debug, Clone, Default)]
pub struct Matches {
    /// Best first, one per record; ties by point.
    pub hits: Vec<Match>,
    /// Records that could have been hits, had there been no limit.
    pub records: u64,
    /// The records that have all that must be there, if anything must.
    required: Option<PointSet>,
    /// The records that have something that must not be there.
    excluded: PointSet,
}

impl Matches {
    /// Whether a record meets the conditions of the query: what must be there is, what must not is not.
    /// `None` for a record without texts.
    pub fn allows(&self, record: Option<u64>) -> bool {
        match record {
            Some(record) => {
                self.required.as_ref().is_none_or(|all| all.contains(record))
                    && !self.excluded.contains(record)
            }
            None => self.required.is_none(),
        }
    }
}

/// Searches what a searcher sees.
pub(crate) fn search(
    searcher: &Searcher,
    fields: Fields,
    counts: &Counts<'_>,
    query: &LexicalQuery,
    filter: Option<&PointSet>,
    limit: usize,
) -> tantivy::Result<Matches> {
    let mut matches = Matches::default();
    if searcher.num_docs() == 0 {
        matches.required = (!query.required.is_empty()).then(PointSet::new);
        return Ok(matches);
    }
    for probe in &query.required {
        let with = records(searcher, fields, probe)?;
        matches.required = Some(matches.required.map_or(with.clone(), |all| all & with));
    }
    for probe in &query.excluded {
        matches.excluded |= records(searcher, fields, probe)?;
    }
    let scoring = EnableScoring::enabled_from_statistics_provider(counts, searcher);
    let weights: Vec<Box<dyn Weight>> = query
        .scored
        .iter()
        .map(|probe| looked_up(fields, probe).weight(scoring))
        .collect::<tantivy::Result<_>>()?;
    let mut found = Vec::new();
    for reader in searcher.segment_readers() {
        let allowed = |point, record| {
            filter.is_none_or(|filter| filter.contains(point)) && matches.allows(Some(record))
        };
        scored(reader, &weights, allowed, &mut found)?;
    }
    matches.records = found.len() as u64;
    let order =
        |a: &Match, b: &Match| -> Ordering { b.score.total_cmp(&a.score).then(a.point.cmp(&b.point)) };
    if found.len() > limit {
        found.select_nth_unstable_by(limit, order);
        found.truncate(limit);
    }
    found.sort_unstable_by(order);
    matches.hits = found;
    Ok(matches)
}

fn looked_up(fields: Fields, probe: &Probe) -> Box<dyn Query> {
    let form = |word: &String| Term::from_field_text(fields.forms, word);
    match probe {
        Probe::Stem(stem) => {
            let term = Term::from_field_text(fields.stems, stem);
            Box::new(TermQuery::new(term, IndexRecordOption::WithFreqs))
        }
        Probe::Phrase(words) => match words.as_slice() {
            [word] => Box::new(TermQuery::new(form(word), IndexRecordOption::WithFreqs)),
            words => Box::new(PhraseQuery::new(words.iter().map(form).collect())),
        },
    }
}

/// The records that have something in any of their pieces.
fn records(searcher: &Searcher, fields: Fields, probe: &Probe) -> tantivy::Result<PointSet> {
    let weight = looked_up(fields, probe).weight(EnableScoring::disabled_from_searcher(searcher))?;
    let mut records = PointSet::new();
    for reader in searcher.segment_readers() {
        let record_of = reader.fast_fields().u64(RECORD)?;
        let alive = reader.alive_bitset();
        let mut docs = weight.scorer(reader, 1.0)?;
        let mut doc = docs.doc();
        while doc != TERMINATED {
            if alive.is_none_or(|alive| alive.is_alive(doc)) {
                records.extend(record_of.first(doc));
            }
            doc = docs.advance();
        }
    }
    Ok(records)
}

/// Adds the records of one segment to those found. All pieces of a record lie side by side in one segment.
fn scored(
    reader: &SegmentReader,
    weights: &[Box<dyn Weight>],
    allowed: impl Fn(u64, u64) -> bool,
    found: &mut Vec<Match>,
) -> tantivy::Result<()> {
    let mut scores = vec![0f64; reader.max_doc() as usize];
    for weight in weights {
        let mut scorer = weight.scorer(reader, 1.0)?;
        let mut doc = scorer.doc();
        while doc != TERMINATED {
            scores[doc as usize] += f64::from(scorer.score());
            doc = scorer.advance();
        }
    }
    let (point_of, record_of) = (reader.fast_fields().u64(POINT)?, reader.fast_fields().u64(RECORD)?);
    let alive = reader.alive_bitset();
    let first = found.len();
    for (doc, score) in (0..).zip(scores).filter(|(_, score)| *score > 0.0) {
        if alive.is_some_and(|alive| alive.is_deleted(doc)) {
            continue;
        }
        let (Some(point), Some(record)) = (point_of.first(doc), record_of.first(doc)) else { continue };
        if !allowed(point, record) {
            continue;
        }
        let new = Match { point, record, score: score as f32 };
        match found[first..].last_mut().filter(|last| last.record == record) {
            None => found.push(new),
            Some(last) if (new.score, last.point) > (last.score, new.point) => *last = new,
            Some(_) => {}
        }
    }
    Ok(())
}
