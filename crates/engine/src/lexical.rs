//! Which records have which words.
//!
//! Owns: the index of a collection's texts by their words: opened on the first search by words, under the
//! gate that loads hold, from its files and what the store has since, or built from the store's records;
//! from then on kept up with every write. One document per piece of a text, a chunk or the text itself, so
//! that a hit names the piece that has the words. Deliberately absent: what words mean (`diptych-lexical`
//! knows) and how they are joined with vectors (`search::hybrid`).
//!
//! The store is the truth. When the index fails it is let go, and the next search opens it again; no write
//! that the store has accepted fails for its sake.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use diptych_core::{Key, Modality, Part, PartRef, PointId, Record};
use diptych_lexical::{LexicalError, LexicalIndex, Piece};
use diptych_store::{Applied, Store};

use crate::EngineError;
use crate::space::Space;

/// What the directory of such an index ends with.
pub(crate) const LEXICAL_SUFFIX: &str = "words";
/// Records read at once while loading.
const PAGE: usize = 1024;

impl Space {
    /// Asks the index of words. When it fails, it is opened again, or built, and asked once more.
    pub(crate) fn ask_words<T>(
        &self,
        store: &Store,
        ask: impl Fn(&LexicalIndex) -> Result<T, LexicalError>,
    ) -> Result<T, EngineError> {
        let index = self.lexical(store)?;
        match ask(&index) {
            Err(error) if !error.is_of_query() => {
                self.let_go(&index, &error);
                Ok(ask(&*self.lexical(store)?)?)
            }
            answer => Ok(answer?),
        }
    }

    /// The index of words; opened, or built from the store, when this is the first need of it.
    pub(crate) fn lexical(&self, store: &Store) -> Result<Arc<LexicalIndex>, EngineError> {
        if let Some(index) = self.opened_lexical() {
            return Ok(index);
        }
        let _alone = self.alone();
        if let Some(index) = self.opened_lexical() {
            return Ok(index);
        }
        self.check_there()?;
        let index = Arc::new(self.load_lexical(store)?);
        *self.lexical.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&index));
        Ok(index)
    }

    /// The index of words, if it is open.
    pub(crate) fn opened_lexical(&self) -> Option<Arc<LexicalIndex>> {
        self.lexical.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes writes over into the index of words, with the records written.
    pub(crate) fn apply_words(
        &self,
        index: &Arc<LexicalIndex>,
        applied: &[Applied],
        records: &[Option<Record>],
    ) {
        for (change, record) in applied.iter().zip(records) {
            let removed = texts(&change.removed);
            let added = record.as_ref().map_or(Vec::new(), |record| pieces(record, &change.added));
            if removed.is_empty() && added.is_empty() {
                continue;
            }
            if let Err(error) = index.apply(&removed, &added) {
                self.let_go(index, &error);
                return;
            }
        }
    }

    /// Has the files of the index of words catch up with the store. The caller keeps writers out.
    pub(crate) fn checkpoint_words(&self, store: &Store) {
        if let Some(index) = self.opened_lexical()
            && let Err(error) = index.checkpoint(store.last_seq())
        {
            self.let_go(&index, &error);
        }
    }

    /// Closes the index of words of a collection that is gone and deletes its files.
    pub(crate) fn discard_words(&self) {
        if let Some(index) = self.lexical.write().unwrap_or_else(PoisonError::into_inner).take() {
            index.retire();
        }
        if let Some(dir) = self.shelf.words_dir()
            && let Err(error) = LexicalIndex::discard(&dir)
        {
            tracing::warn!("files of a deleted collection are left until the next start: {error}");
        }
    }

    /// Closes an index that has failed, unless another one has taken its place.
    fn let_go(&self, failed: &Arc<LexicalIndex>, error: &LexicalError) {
        tracing::warn!("{error}; opening the word index of '{}' again", self.collection.name);
        let mut held = self.lexical.write().unwrap_or_else(PoisonError::into_inner);
        if held.as_ref().is_some_and(|held| Arc::ptr_eq(held, failed)) {
            *held = None;
        }
        failed.retire();
    }

    fn load_lexical(&self, store: &Store) -> Result<LexicalIndex, EngineError> {
        let name = &self.collection.name;
        let Some(dir) = self.shelf.words_dir() else {
            return self.fill(store, LexicalIndex::in_memory()?);
        };
        let because = match LexicalIndex::open(&dir) {
            Ok(None) => None,
            Ok(Some(index)) => match self.catch_up_words(store, &index)? {
                None => {
                    tracing::info!("opened the word index of '{name}': {} texts", index.len()?);
                    return Ok(index);
                }
                because => {
                    index.retire();
                    because
                }
            },
            Err(error @ LexicalError::Damaged { .. }) => Some(error.to_string()),
            Err(error) => return Err(error.into()),
        };
        if let Some(because) = because {
            tracing::warn!("{because}; building it again");
        }
        let index = self.fill(store, LexicalIndex::create(&dir)?)?;
        tracing::info!("built the word index of '{name}': {} texts", index.len()?);
        Ok(index)
    }

    /// Takes all texts of the store into an empty index.
    fn fill(&self, store: &Store, index: LexicalIndex) -> Result<LexicalIndex, EngineError> {
        let seq = store.last_seq();
        let mut after: Option<Key> = None;
        loop {
            let page = store.list(self.collection.id, after.as_ref(), PAGE)?;
            for stored in &page {
                let pieces = pieces(&stored.record, &stored.points);
                if !pieces.is_empty() {
                    index.apply(&[], &pieces)?;
                }
            }
            match page.last() {
                Some(last) if page.len() == PAGE => after = Some(last.record.key().clone()),
                _ => break,
            }
        }
        index.checkpoint(seq)?;
        Ok(index)
    }

    /// Does again what the store has done since the index was last written down. Says why the index is of no
    /// use, if it is of none.
    fn catch_up_words(&self, store: &Store, index: &LexicalIndex) -> Result<Option<String>, EngineError> {
        let (seq, mark, name) = (store.last_seq(), index.mark(), &self.collection.name);
        if mark > seq {
            return Ok(Some(format!("the word index of '{name}' is of a later state than the store")));
        }
        let mut keys = BTreeSet::new();
        for entry in store.journal(mark) {
            let entry = entry?;
            if entry.collection != self.collection.id {
                continue;
            }
            let removed = texts(&entry.removed);
            if !removed.is_empty() {
                index.apply(&removed, &[])?;
            }
            if entry.added.iter().any(|(part, _)| part.modality == Modality::Text) {
                keys.insert(entry.key);
            }
        }
        let keys: Vec<Key> = keys.into_iter().collect();
        for keys in keys.chunks(PAGE) {
            for stored in store.get_many(self.collection.id, keys)?.into_iter().flatten() {
                index.apply_again(&pieces(&stored.record, &stored.points))?;
            }
        }
        index.checkpoint(seq)?;
        let (indexed, counted) = (index.len()?, store.stats(self.collection.id)?.text_points);
        Ok((indexed != counted).then(|| {
            format!("the word index of '{name}' holds {indexed} texts and chunks, and the store {counted}")
        }))
    }
}

/// The number by which the pieces of a record are known to belong together: the first of its text points.
pub(crate) fn record_number(points: &[(PartRef, PointId)]) -> Option<u64> {
    texts(points).into_iter().min()
}

fn texts(points: &[(PartRef, PointId)]) -> Vec<u64> {
    points.iter().filter(|(part, _)| part.modality == Modality::Text).map(|(_, point)| point.0).collect()
}

/// The pieces of a record's texts that have these points.
fn pieces<'r>(record: &'r Record, points: &[(PartRef, PointId)]) -> Vec<Piece<'r>> {
    let Some(number) = record_number(points) else { return Vec::new() };
    let piece = |&(part, point): &(PartRef, PointId)| {
        let Some(Part::Text(text)) = record.part(part) else { return None };
        let range = match part.chunk {
            Some(n) => text.chunk(n)?,
            None => 0..text.text.len(),
        };
        Some(Piece { point: point.0, record: number, text: &text.text, range })
    };
    points.iter().filter_map(piece).collect()
}

/// The directory of the index of words of a collection, among those of all indexes.
pub(crate) fn words_dir(dir: &std::path::Path, collection: u32) -> PathBuf {
    dir.join(format!("{collection}-{LEXICAL_SUFFIX}"))
}
