//! BM25 over the texts of one collection.
//!
//! Owns: [`LexicalIndex`], which answers "which records have these words" while texts come and go, the words
//! that people type ([`LexicalQuery`]), and what counts as the same word. Deliberately absent: what the
//! points are and when they change (the engine knows), and durability (the store has the truth; the files
//! of an index spare building it again, and can be built again at any time).
//!
//! ```
//! use diptych_lexical::{LexicalIndex, LexicalQuery, Piece};
//!
//! let index = LexicalIndex::in_memory()?;
//! for (point, text) in [(1, "Large left pleural effusion."), (2, "No effusion, pleural thickening.")] {
//!     index.apply(&[], &[Piece { point, record: point, text, range: 0..text.len() }])?;
//! }
//! let both = index.search(&LexicalQuery::parse("effusions")?, None, 10)?;
//! assert_eq!(both.records, 2);
//! let phrase = index.search(&LexicalQuery::parse("\"pleural effusion\"")?, None, 10)?;
//! assert_eq!(phrase.hits[0].point, 1);
//! assert_eq!(phrase.records, 1);
//! # Ok::<(), diptych_lexical::LexicalError>(())
//! ```

mod analysis;
mod error;
mod excerpt;
mod index;
mod query;
mod search;
mod statistics;
#[cfg(test)]
mod tests;

pub use error::LexicalError;
pub use index::{LexicalIndex, Piece};
pub use query::{LexicalQuery, WORDS_MAX};
pub use search::{Match, Matches, PointSet};
