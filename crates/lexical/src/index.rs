//! An index of texts by their words, which come and go.
//!
//! Owns: the documents, one per piece of a text, when they are written down, and whether files that are
//! found are the ones that were written. Deliberately absent: how a search scores (see `search`).
//!
//! All pieces of a record are written in one batch, and so lie side by side in one segment.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tantivy::directory::MmapDirectory;
use tantivy::indexer::{IndexWriterOptions, UserOperation};
use tantivy::{Index, IndexReader, IndexWriter, ReloadPolicy, TantivyDocument, TantivyError, Term};

use crate::LexicalError;
use crate::analysis::{Fields, after_words, schema, tokenizers};
use crate::query::LexicalQuery;
use crate::search::{Matches, PointSet, search};
use crate::statistics::{Counts, Lengths};

/// What files begin their note with. Another way to read texts or another schema is another one.
const FORMAT: &str = "diptych-words-1";
/// Memory for documents that are not in a segment yet; a larger one makes fewer segments while building.
const WRITER_BYTES: usize = 64 << 20;
/// Words behind a piece that its phrases may reach into.
const PHRASE_REACH: usize = 32;

/// One piece of a text: what is found.
#[derive(Debug, Clone)]
pub struct Piece<'a> {
    /// The point that it stands for.
    pub point: u64,
    /// A number that all pieces of its record share, and no other piece.
    pub record: u64,
    /// The whole text.
    pub text: &'a str,
    /// The bytes of the piece in it. A phrase may begin here and end up to 32 words behind.
    pub range: Range<usize>,
}

/// The texts of one collection by their words. Share it by reference; every method takes `&self`.
pub struct LexicalIndex {
    index: Index,
    fields: Fields,
    reader: IndexReader,
    /// `None` once it has been retired.
    writer: Mutex<Option<Writer>>,
    /// Whether there are changes that searches do not see yet.
    unseen: AtomicBool,
    lengths: Mutex<Lengths>,
}

struct Writer {
    inner: IndexWriter,
    /// What the files are said to hold all changes up to.
    mark: u64,
    /// The mark of the last commit.
    committed: u64,
    /// Points that were removed since the last checkpoint: one that is added by a slower writer only now is
    /// gone already.
    removed: PointSet,
}

impl LexicalIndex {
    /// An index without files.
    ///
    /// # Errors
    /// [`LexicalError::Failed`] when no thread can be started.
    pub fn in_memory() -> Result<Self, LexicalError> {
        let (schema, _) = schema();
        let index = Index::builder().schema(schema).tokenizers(tokenizers()).create_in_ram();
        let failed = LexicalError::failed("begin");
        Self::over(index.map_err(&failed)?, 0).map_err(failed)
    }

    /// An empty index whose files are in `dir`, in place of what is there.
    ///
    /// # Errors
    /// [`LexicalError::Failed`] when the directory cannot be written.
    pub fn create(dir: &Path) -> Result<Self, LexicalError> {
        Self::discard(dir)?;
        let failed = LexicalError::failed("write its first file");
        let made = || -> Result<Index, TantivyError> {
            std::fs::create_dir_all(dir)?;
            let (schema, _) = schema();
            Index::builder().schema(schema).tokenizers(tokenizers()).create_in_dir(dir)
        };
        Self::over(made().map_err(&failed)?, 0).map_err(failed)
    }

    /// Opens the index in `dir` after every file of it has been checked; `None` when there is none.
    ///
    /// # Errors
    /// [`LexicalError::Damaged`], also when another version wrote the files.
    pub fn open(dir: &Path) -> Result<Option<Self>, LexicalError> {
        if !dir.join("meta.json").exists() {
            return Ok(None);
        }
        let damaged = |reason: String| LexicalError::Damaged { dir: dir.to_path_buf(), reason };
        let told = |error: TantivyError| damaged(error.to_string());
        let mut index = Index::open(MmapDirectory::open(dir).map_err(|e| told(e.into()))?).map_err(told)?;
        index.set_tokenizers(tokenizers());
        if index.schema() != schema().0 {
            return Err(damaged("it is of another format".to_owned()));
        }
        let metas = index.load_metas().map_err(told)?;
        let mark = read_note(metas.payload.as_deref().unwrap_or_default())
            .ok_or_else(|| damaged("it is of another format, or its note is damaged".to_owned()))?;
        let segments: Vec<String> = metas.segments.iter().map(|meta| meta.id().uuid_string()).collect();
        for entry in std::fs::read_dir(dir).map_err(|e| damaged(e.to_string()))? {
            let name = entry.map_err(|e| damaged(e.to_string()))?.file_name();
            let known = name.to_str().is_some_and(|name| segments.iter().any(|id| name.starts_with(id)));
            if known && !matches!(index.directory().validate_checksum(Path::new(&name)), Ok(true)) {
                return Err(damaged(format!("{} does not match its checksum", name.display())));
            }
        }
        Self::over(index, mark).map(Some).map_err(told)
    }

    /// Deletes the files of an index that is not open, if there are any.
    ///
    /// # Errors
    /// [`LexicalError::Failed`].
    pub fn discard(dir: &Path) -> Result<(), LexicalError> {
        match std::fs::remove_dir_all(dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(LexicalError::failed("delete its files")(error.into()))
            }
            _ => Ok(()),
        }
    }

    fn over(index: Index, mark: u64) -> Result<Self, TantivyError> {
        let (_, fields) = schema();
        // One thread, so that documents lie in the order in which they came.
        let options = IndexWriterOptions::builder()
            .num_worker_threads(1)
            .num_merge_threads(1)
            .memory_budget_per_thread(WRITER_BYTES)
            .build();
        let inner = index.writer_with_options(options)?;
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        let writer = Writer { inner, mark, committed: mark, removed: PointSet::new() };
        Ok(Self {
            index,
            fields,
            reader,
            writer: Mutex::new(Some(writer)),
            unseen: AtomicBool::new(false),
            lengths: Mutex::default(),
        })
    }

    /// Takes over what became of one record: points that are gone, and pieces that are new. Searches that
    /// begin afterwards see it.
    ///
    /// # Errors
    /// [`LexicalError::Failed`] when the writer has failed before, for instance because the disk is full.
    pub fn apply(&self, removed: &[u64], added: &[Piece<'_>]) -> Result<(), LexicalError> {
        self.with_writer(|writer| {
            writer.removed.extend(removed.iter().copied());
            let added = added.iter().filter(|piece| !writer.removed.contains(piece.point));
            let mut operations: Vec<_> = removed.iter().map(|point| self.deletion(*point)).collect();
            operations.extend(added.map(|piece| UserOperation::Add(self.document(piece))));
            run(writer, operations)
        })
    }

    /// Takes in the pieces of one record that the index may hold already.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn apply_again(&self, pieces: &[Piece<'_>]) -> Result<(), LexicalError> {
        self.with_writer(|writer| {
            let mut operations: Vec<_> = pieces.iter().map(|piece| self.deletion(piece.point)).collect();
            operations.extend(pieces.iter().map(|piece| UserOperation::Add(self.document(piece))));
            run(writer, operations)
        })
    }

    /// Writes everything down, and that it is all up to `mark`. The caller keeps writers out.
    ///
    /// # Errors
    /// [`LexicalError::Failed`].
    pub fn checkpoint(&self, mark: u64) -> Result<(), LexicalError> {
        let mut guard = self.writer();
        let Some(writer) = guard.as_mut() else { return Err(retired()) };
        writer.mark = mark;
        writer.removed.clear();
        match writer.committed == mark && !self.unseen.load(Ordering::Acquire) {
            true => Ok(()),
            false => self.commit(writer),
        }
    }

    /// What the files are said to hold all changes up to.
    pub fn mark(&self) -> u64 {
        self.writer().as_ref().map_or(0, |writer| writer.mark)
    }

    /// Pieces that can be found.
    ///
    /// # Errors
    /// [`LexicalError::Failed`].
    pub fn len(&self) -> Result<u64, LexicalError> {
        self.refresh()?;
        Ok(self.reader.searcher().num_docs())
    }

    /// Whether nothing can be found.
    ///
    /// # Errors
    /// [`LexicalError::Failed`].
    pub fn is_empty(&self) -> Result<bool, LexicalError> {
        Ok(self.len()? == 0)
    }

    /// The `limit` best records for a query among those of which a piece is in `filter`, if there is one.
    ///
    /// # Errors
    /// [`LexicalError::Failed`].
    pub fn search(
        &self,
        query: &LexicalQuery,
        filter: Option<&PointSet>,
        limit: usize,
    ) -> Result<Matches, LexicalError> {
        self.refresh()?;
        let searcher = self.reader.searcher();
        let found = || {
            let counts = {
                let mut lengths = self.lengths.lock().unwrap_or_else(PoisonError::into_inner);
                Counts::new(&searcher, self.fields, &mut lengths)?
            };
            search(&searcher, self.fields, &counts, query, filter, limit)
        };
        found().map_err(LexicalError::failed("read its files"))
    }

    /// Stops writing, so that another index can have the files. Searches in work go on.
    pub fn retire(&self) {
        *self.writer() = None;
    }

    fn writer(&self) -> MutexGuard<'_, Option<Writer>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_writer(
        &self,
        work: impl FnOnce(&mut Writer) -> Result<(), TantivyError>,
    ) -> Result<(), LexicalError> {
        let mut guard = self.writer();
        let writer = guard.as_mut().ok_or_else(retired)?;
        work(writer).map_err(LexicalError::failed("take in a text"))?;
        self.unseen.store(true, Ordering::Release);
        Ok(())
    }

    /// Makes searches see every change.
    fn refresh(&self) -> Result<(), LexicalError> {
        if !self.unseen.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut guard = self.writer();
        let Some(writer) = guard.as_mut() else { return Err(retired()) };
        // Another search may have done it meanwhile.
        if self.unseen.load(Ordering::Acquire) { self.commit(writer) } else { Ok(()) }
    }

    fn commit(&self, writer: &mut Writer) -> Result<(), LexicalError> {
        let mut commit = || -> Result<(), TantivyError> {
            let mut prepared = writer.inner.prepare_commit()?;
            prepared.set_payload(&note(writer.mark));
            prepared.commit()?;
            self.reader.reload()
        };
        commit().map_err(LexicalError::failed("write down what it holds"))?;
        writer.committed = writer.mark;
        self.unseen.store(false, Ordering::Release);
        Ok(())
    }

    fn deletion(&self, point: u64) -> UserOperation {
        UserOperation::Delete(Term::from_field_u64(self.fields.point, point))
    }

    fn document(&self, piece: &Piece<'_>) -> TantivyDocument {
        let Range { start, end } = piece.range;
        let behind = end + after_words(&piece.text[end..], PHRASE_REACH);
        let mut document = TantivyDocument::default();
        document.add_u64(self.fields.point, piece.point);
        document.add_u64(self.fields.record, piece.record);
        document.add_text(self.fields.stems, &piece.text[start..end]);
        document.add_text(self.fields.forms, &piece.text[start..behind]);
        document
    }

    /// Parts that its files have, each searched by itself.
    #[cfg(test)]
    pub(crate) fn segments(&self) -> usize {
        self.reader.searcher().segment_readers().len()
    }
}

impl std::fmt::Debug for LexicalIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LexicalIndex").field("index", &self.index).finish_non_exhaustive()
    }
}

fn run(writer: &mut Writer, operations: Vec<UserOperation>) -> Result<(), TantivyError> {
    writer.inner.run(operations).map(drop)
}

fn retired() -> LexicalError {
    let reason = "it has been replaced".to_owned();
    LexicalError::Failed { what: "take part any more", reason }
}

/// What is noted beside the files: their format, and what they hold all changes up to.
fn note(mark: u64) -> String {
    let told = format!("{FORMAT} {mark}");
    format!("{told} {:08x}", crc32fast::hash(told.as_bytes()))
}

fn read_note(note: &str) -> Option<u64> {
    let (told, crc) = note.rsplit_once(' ')?;
    let (format, mark) = told.split_once(' ')?;
    let sound = format == FORMAT && u32::from_str_radix(crc, 16).ok()? == crc32fast::hash(told.as_bytes());
    sound.then(|| mark.parse().ok()).flatten()
}
