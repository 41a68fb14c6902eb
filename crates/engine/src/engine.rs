//! The engine: a store, a model and the collections that join them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use diptych_core::{
    AttributeSchema, CollectionName, Embedding, Encode, Key, Modality, ModelId, PreparedImage, PreparedText,
};
use diptych_index::{IndexOptions, Kind};
use diptych_store::{Stats, Store, StoreError, StoredRecord};

use crate::backup;
use crate::cache::QueryCache;
use crate::collections::{discard_orphans, new_collection};
use crate::recall::Meter;
use crate::shelf::INDEX_DIR;
use crate::space::Space;
use crate::{
    CacheStats, EncodeThread, EngineError, IndexReport, QueryEmbedding, QueueLimits, RecallOptions,
    RecallReport, RelevanceReport, TextCounts, Urgency,
};

/// How an engine finds neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IndexKind {
    /// By a graph, which is kept in files: for a server.
    #[default]
    Graph,
    /// By a scan of all stored vectors, which needs no files.
    Exact,
    /// By the graph that is in the files, or by a scan where there is none that can be used at once.
    /// Those files are only read: for a single question.
    Ready,
}

impl IndexKind {
    pub(crate) fn options(self) -> IndexOptions {
        let kind = if self == Self::Exact { Kind::Exact } else { Kind::Graph };
        IndexOptions { kind, ..IndexOptions::default() }
    }
}

/// How an engine is set up.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// How neighbours are found.
    pub index: IndexKind,
    /// Searches that may wait for the model before a further one is refused.
    pub waiting_searches_max: usize,
    /// Ingest batches that may wait for the model before a further one blocks.
    pub waiting_ingests_max: usize,
    /// Positions, of patches and tokens together, that go through the model at once: enough to keep
    /// all cores busy, few enough that a question does not wait long behind them.
    pub batch_positions: usize,
    /// Query texts whose embeddings are kept, and the bytes that they may take; 0 for none.
    pub query_cache_entries: usize,
    /// See [`Self::query_cache_entries`].
    pub query_cache_bytes: usize,
    /// Pixels along the longer side of the small pictures that are kept of images, at most; 0 for none.
    pub thumbnail_side: u32,
    /// How the recall of searches is measured; only with [`IndexKind::Graph`].
    pub recall: RecallOptions,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            index: IndexKind::Graph,
            waiting_searches_max: 256,
            waiting_ingests_max: 4,
            batch_positions: 1024,
            query_cache_entries: 8192,
            query_cache_bytes: 32 << 20,
            thumbnail_side: 160,
            recall: RecallOptions::default(),
        }
    }
}

/// What became of texts that the model could not read whole, since the engine was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TextTotals {
    /// Texts that were stored.
    pub ingested: TextCounts,
    /// Texts to search by or to embed that were longer than the model's context, and so were cut.
    pub truncated_queries: u64,
}

/// What an engine holds.
#[derive(Debug, Clone)]
pub struct Overview {
    /// The model's identity.
    pub model_id: ModelId,
    /// Dimensions of the shared space.
    pub dim: usize,
    /// Every collection with its counts, by name.
    pub collections: Vec<(CollectionName, Stats)>,
    /// What the indexes that are open are made of.
    pub indexes: Vec<IndexReport>,
    /// Texts longer than the model's context.
    pub texts: TextTotals,
    /// The cache of query texts.
    pub query_cache: CacheStats,
    /// The share of searches that is repeated exactly.
    pub recall_sample: f64,
    /// The recall of searches, by collection and direction.
    pub recall: Vec<RecallReport>,
    /// What scores mean, by collection and direction, where that has been learned.
    pub relevance: Vec<RelevanceReport>,
}

/// Encodes, stores, indexes and searches. Share it by reference; every method takes `&self`.
pub struct Engine {
    pub(crate) store: Arc<Store>,
    pub(crate) meter: Meter,
    pub(crate) encode: EncodeThread,
    queries: QueryCache,
    ingested_texts: Mutex<TextCounts>,
    truncated_queries: AtomicU64,
    pub(crate) spaces: RwLock<HashMap<CollectionName, Arc<Space>>>,
    index_kind: IndexKind,
    /// Where the files of the indexes are.
    index_dir: Option<PathBuf>,
    recall_sample: f64,
    pub(crate) thumbnail_side: u32,
    /// Whether there is a snapshot.
    pub(crate) backup_taken: Arc<AtomicBool>,
    model_id: ModelId,
    dim: usize,
}

impl Engine {
    /// Joins a store and a model. Every collection of the store must belong to that model.
    ///
    /// # Errors
    /// [`StoreError::ModelMismatch`] when a collection was made with another model.
    pub fn open(store: Store, encoder: Arc<dyn Encode>, options: EngineOptions) -> Result<Self, EngineError> {
        let (model_id, dim) = (encoder.model_id(), encoder.dim());
        backup::discard_left(&store);
        let dir = store.root().join(INDEX_DIR);
        if options.index == IndexKind::Graph {
            discard_orphans(&store, &dir);
        }
        let index_dir = Some(dir);
        let mut spaces = HashMap::new();
        for collection in store.collections() {
            if collection.model_id != model_id {
                return Err(StoreError::ModelMismatch {
                    collection: collection.name,
                    stored: collection.model_id,
                    stored_dim: collection.dim,
                    given: model_id,
                    given_dim: u32::try_from(dim).unwrap_or(u32::MAX),
                }
                .into());
            }
            let space = Space::new(collection, options.index, index_dir.clone());
            spaces.insert(space.collection.name.clone(), Arc::new(space));
        }
        let limits = QueueLimits {
            searches_max: options.waiting_searches_max,
            ingests_max: options.waiting_ingests_max,
            batch_positions: options.batch_positions,
        };
        let store = Arc::new(store);
        let recall = match options.index {
            IndexKind::Graph => options.recall,
            IndexKind::Exact | IndexKind::Ready => RecallOptions { sample: 0.0, ..options.recall },
        };
        Ok(Self {
            meter: Meter::new(Arc::clone(&store), recall),
            recall_sample: recall.sample,
            thumbnail_side: options.thumbnail_side,
            store,
            encode: EncodeThread::start(encoder, limits),
            queries: QueryCache::new(options.query_cache_entries, options.query_cache_bytes),
            ingested_texts: Mutex::default(),
            truncated_queries: AtomicU64::new(0),
            spaces: RwLock::new(spaces),
            index_kind: options.index,
            index_dir,
            backup_taken: Arc::default(),
            model_id,
            dim,
        })
    }

    /// Loads every index, so that the first search does not wait for it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn warm(&self) -> Result<(), EngineError> {
        for space in self.all_spaces() {
            for modality in Modality::ALL {
                space.index(&self.store, modality)?;
            }
        }
        Ok(())
    }

    /// Writes down what the indexes hold, so that the next start need not build it again. Done when the
    /// engine is dropped; here, errors are told.
    ///
    /// # Errors
    /// When files cannot be written. Nothing is lost: the store has everything.
    pub fn close(&self) -> Result<(), EngineError> {
        self.all_spaces().iter().try_for_each(|space| space.close(&self.store))
    }

    /// The encoder, for preparing inputs on the caller's thread.
    pub fn encoder(&self) -> &dyn Encode {
        self.encode.encoder()
    }

    /// Embeds a text to search by: from the cache of earlier queries, or else by the model. A text
    /// longer than the model's context is cut as its family does.
    ///
    /// # Errors
    /// When the text is empty or too long to be tokenised; else as [`EncodeThread::images`].
    pub fn embed_query(&self, text: &str) -> Result<QueryEmbedding, EngineError> {
        let mut queries = self.embed_queries(&[text])?;
        Ok(queries.pop().expect("one embedding for one text"))
    }

    /// As [`Self::embed_query`], for several texts, in their order: those that are not known go through the
    /// model together.
    ///
    /// # Errors
    /// As [`Self::embed_query`], of the first text that is refused.
    pub fn embed_queries(&self, texts: &[&str]) -> Result<Vec<QueryEmbedding>, EngineError> {
        let encode = |prepared| self.encode.texts(prepared, Urgency::Search);
        let queries = self.queries.get_or_encode(texts, self.encoder(), encode)?;
        let truncated = queries.iter().filter(|query| query.truncated_tokens > 0).count() as u64;
        self.truncated_queries.fetch_add(truncated, Ordering::Relaxed);
        Ok(queries)
    }

    /// Embeds prepared inputs without storing them, always by the model.
    ///
    /// # Errors
    /// As [`EncodeThread::images`].
    pub fn embed(
        &self,
        images: Vec<PreparedImage>,
        texts: Vec<PreparedText>,
        urgency: Urgency,
    ) -> Result<(Vec<Embedding>, Vec<Embedding>), EngineError> {
        let truncated = texts.iter().filter(|text| text.truncated_tokens > 0).count() as u64;
        let embeddings = (self.encode.images(images, urgency)?, self.encode.texts(texts, urgency)?);
        if urgency == Urgency::Search {
            self.truncated_queries.fetch_add(truncated, Ordering::Relaxed);
        }
        Ok(embeddings)
    }

    /// Reads one record.
    ///
    /// # Errors
    /// [`EngineError::CollectionNotFound`] or [`EngineError::RecordNotFound`].
    pub fn get(&self, collection: &CollectionName, key: &Key) -> Result<StoredRecord, EngineError> {
        let space = self.space(collection)?;
        self.store.get(space.collection.id, key)?.ok_or_else(|| EngineError::RecordNotFound {
            key: key.clone(),
            collection: collection.to_string(),
        })
    }

    /// Reads up to `limit` records in key order, starting behind `after`.
    ///
    /// # Errors
    /// [`EngineError::CollectionNotFound`], or when the store cannot be read.
    pub fn list(
        &self,
        collection: &CollectionName,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<StoredRecord>, EngineError> {
        let space = self.space(collection)?;
        Ok(self.store.list(space.collection.id, after, limit)?)
    }

    /// Deletes one record; gone from searches that start afterwards.
    ///
    /// # Errors
    /// [`EngineError::CollectionNotFound`] or [`EngineError::RecordNotFound`].
    pub fn delete(&self, collection: &CollectionName, key: &Key) -> Result<(), EngineError> {
        self.delete_once(collection, key, None)
    }

    /// What the engine holds.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn overview(&self) -> Result<Overview, EngineError> {
        let mut collections = self
            .all_spaces()
            .into_iter()
            .filter_map(|space| match self.store.stats(space.collection.id) {
                // Deleted just now.
                Err(StoreError::UnknownCollection { .. }) => None,
                stats => Some(stats.map(|stats| (space.collection.name.clone(), stats))),
            })
            .collect::<Result<Vec<_>, StoreError>>()?;
        collections.sort_by(|a, b| a.0.cmp(&b.0));
        let indexes = self.all_spaces().iter().flat_map(|space| space.reports()).collect();
        let texts = TextTotals {
            ingested: *self.ingested_texts.lock().unwrap_or_else(PoisonError::into_inner),
            truncated_queries: self.truncated_queries.load(Ordering::Relaxed),
        };
        Ok(Overview {
            model_id: self.model_id,
            dim: self.dim,
            collections,
            indexes,
            texts,
            query_cache: self.queries.stats(),
            recall_sample: self.recall_sample,
            recall: self.meter.reports(),
            relevance: self.all_spaces().iter().flat_map(|space| space.relevance_reports()).collect(),
        })
    }

    /// Jobs of that urgency that wait for the model: requests, or pieces of large ones.
    pub fn waiting(&self, urgency: Urgency) -> usize {
        self.encode.waiting(urgency)
    }

    /// Bytes of the store's files on disk; those of the indexes, which can be built again, not included.
    pub fn store_bytes(&self) -> u64 {
        self.store.usage().disk_bytes
    }

    /// Waits until every search that was drawn to be repeated, and every calibration that was begun,
    /// has been measured.
    pub fn drain_recall(&self) {
        self.meter.drain();
    }

    /// Adds the texts of a record that has been stored to the totals.
    pub(crate) fn count_ingested(&self, texts: TextCounts) {
        self.ingested_texts.lock().unwrap_or_else(PoisonError::into_inner).add(texts);
    }

    /// The collection of that name.
    pub(crate) fn space(&self, name: &CollectionName) -> Result<Arc<Space>, EngineError> {
        let spaces = self.spaces.read().unwrap_or_else(PoisonError::into_inner);
        spaces.get(name).cloned().ok_or_else(|| {
            let mut existing: Vec<String> = spaces.keys().map(CollectionName::to_string).collect();
            existing.sort();
            EngineError::CollectionNotFound { name: name.to_string(), existing }
        })
    }

    /// The collection of that name, created for this model when absent.
    pub(crate) fn space_or_create(&self, name: &CollectionName) -> Result<Arc<Space>, EngineError> {
        match self.space(name) {
            Ok(space) => Ok(space),
            Err(_) => Ok(self.add_space(name, AttributeSchema::default())?.0),
        }
    }

    /// The collection of that name, created for this model when absent, and whether it is new.
    pub(crate) fn add_space(
        &self,
        name: &CollectionName,
        schema: AttributeSchema,
    ) -> Result<(Arc<Space>, bool), EngineError> {
        let mut spaces = self.spaces.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(space) = spaces.get(name) {
            return Ok((Arc::clone(space), false));
        }
        let dim = u32::try_from(self.dim).expect("an embedding has at most DIM_MAX dimensions");
        let new = new_collection(name, self.model_id, dim, schema);
        let (collection, _) = self.store.add_collection(new)?;
        let space = Arc::new(Space::new(collection, self.index_kind, self.index_dir.clone()));
        spaces.insert(name.clone(), Arc::clone(&space));
        Ok((space, true))
    }

    pub(crate) fn all_spaces(&self) -> Vec<Arc<Space>> {
        self.spaces.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!("the indexes are not written down, the next start will take longer: {error}");
        }
    }
}
