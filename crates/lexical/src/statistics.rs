//! What BM25 is reckoned with: how many pieces there are, how long, and how many have a word.
//!
//! Only what can be found is counted. What was deleted stays in the files until they are merged, and if it
//! were counted, a score would depend on when that happens. Lengths are those that the scores are made
//! with, which keep about two digits.

use std::collections::HashMap;

use tantivy::index::SegmentId;
use tantivy::query::Bm25StatisticsProvider;
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::{DocSet, Opstamp, Searcher, SegmentReader, TERMINATED, Term};

use crate::analysis::Fields;

/// Words of the pieces of each segment, as stems and as forms; a segment changes only by deletions, which
/// give it another number.
pub(crate) type Lengths = HashMap<(SegmentId, Option<Opstamp>), [u64; 2]>;

/// The counts of one moment.
pub(crate) struct Counts<'a> {
    searcher: &'a Searcher,
    fields: Fields,
    /// Words in all, as stems and as forms.
    tokens: [u64; 2],
}

impl<'a> Counts<'a> {
    /// Those of a searcher. `lengths` keeps what segments were found to hold.
    pub fn new(searcher: &'a Searcher, fields: Fields, lengths: &mut Lengths) -> tantivy::Result<Self> {
        let mut tokens = [0; 2];
        let mut known = Lengths::new();
        for reader in searcher.segment_readers() {
            let segment = (reader.segment_id(), reader.delete_opstamp());
            let held = match lengths.get(&segment) {
                Some(held) => *held,
                None => [length(reader, fields.stems)?, length(reader, fields.forms)?],
            };
            tokens.iter_mut().zip(held).for_each(|(sum, tokens)| *sum += tokens);
            known.insert(segment, held);
        }
        *lengths = known;
        Ok(Self { searcher, fields, tokens })
    }
}

impl Bm25StatisticsProvider for Counts<'_> {
    fn total_num_tokens(&self, field: Field) -> tantivy::Result<u64> {
        Ok(self.tokens[usize::from(field == self.fields.forms)])
    }

    fn total_num_docs(&self) -> tantivy::Result<u64> {
        Ok(self.searcher.num_docs())
    }

    fn doc_freq(&self, term: &Term) -> tantivy::Result<u64> {
        let mut count = 0;
        for reader in self.searcher.segment_readers() {
            let inverted = reader.inverted_index(term.field())?;
            let Some(alive) = reader.alive_bitset() else {
                count += u64::from(inverted.doc_freq(term)?);
                continue;
            };
            if let Some(mut postings) = inverted.read_postings(term, IndexRecordOption::Basic)? {
                let mut doc = postings.doc();
                while doc != TERMINATED {
                    count += u64::from(alive.is_alive(doc));
                    doc = postings.advance();
                }
            }
        }
        Ok(count)
    }
}

/// Words of all pieces of a segment that can be found.
fn length(reader: &SegmentReader, field: Field) -> tantivy::Result<u64> {
    let lengths = reader.get_fieldnorms_reader(field)?;
    Ok(reader.doc_ids_alive().map(|doc| u64::from(lengths.fieldnorm(doc))).sum())
}
