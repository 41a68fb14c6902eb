//! Query texts that were asked before, with their embeddings: bounded, in memory.
//!
//! Exact: two texts share an embedding only when the model's tokens of both are equal, and a repeat
//! gets the same bits. The text as it was typed leads to its tokens, the tokens to the embedding, so
//! that a repeat needs no tokenizer and another spelling of the same tokens needs no model. A cache
//! belongs to one encoder, hence to one model id, and is dropped with it; nothing in it can be stale.
//! Deliberately absent: images, ingested texts, expiry, anything on disk.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use diptych_core::{Embedding, Encode, PreparedText};

use crate::EngineError;

/// What an entry takes besides its text, tokens and components: two map entries and the allocations.
const ENTRY_BYTES: usize = 192;

/// Counts of a query cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Query texts answered without the model.
    pub hits: u64,
    /// Query texts that the model had to embed.
    pub misses: u64,
    /// Embeddings held.
    pub entries: u64,
    /// Memory taken, in bytes; an estimate that errs upwards.
    pub bytes: u64,
}

/// A query's embedding, and how much of the query it does not see.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryEmbedding {
    /// The embedding.
    pub embedding: Embedding,
    /// Tokens of the query beyond the model's context.
    pub truncated_tokens: u32,
}

/// The cache in front of one encoder.
pub(crate) struct QueryCache {
    held: Mutex<Held>,
    hits: AtomicU64,
    misses: AtomicU64,
}

struct Held {
    /// Text as typed to its tokens and the number of those that were cut.
    spellings: Lru<str, (Arc<[u32]>, u32)>,
    embeddings: Lru<[u32], Embedding>,
}

impl QueryCache {
    /// A cache of at most `entries_max` embeddings and about `bytes_max` bytes; none at all when
    /// either is 0.
    pub(crate) fn new(entries_max: usize, bytes_max: usize) -> Self {
        // Tokens and components outweigh the text of a query.
        let spellings = Lru::new(entries_max, bytes_max / 4);
        let embeddings = Lru::new(entries_max, bytes_max - bytes_max / 4);
        let held = Mutex::new(Held { spellings, embeddings });
        Self { held, hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    /// The embeddings of query texts, in their order: held, or else from `encode`, which is called without
    /// any lock, once, with the texts that are not held, each once.
    pub(crate) fn get_or_encode(
        &self,
        texts: &[&str],
        encoder: &dyn Encode,
        encode: impl FnOnce(Vec<PreparedText>) -> Result<Vec<Embedding>, EngineError>,
    ) -> Result<Vec<QueryEmbedding>, EngineError> {
        let mut found: Vec<Option<QueryEmbedding>> = vec![None; texts.len()];
        let mut prepared: Vec<PreparedText> = Vec::new();
        // What is to be encoded, by its tokens: which one of `prepared` it is.
        let mut missing: HashMap<Arc<[u32]>, usize> = HashMap::new();
        let mut waiting: Vec<(usize, usize, Arc<[u32]>, u32)> = Vec::new();
        for (place, &text) in texts.iter().enumerate() {
            found[place] = self.lock().spelled(text);
            if found[place].is_some() {
                continue;
            }
            let new = encoder.prepare_text(text)?;
            let (truncated_tokens, ids) = (new.truncated_tokens, Arc::<[u32]>::from(new.ids.as_slice()));
            let known = self.lock().tokenised(text, &ids, truncated_tokens);
            found[place] = known.map(|embedding| QueryEmbedding { embedding, truncated_tokens });
            if found[place].is_some() {
                continue;
            }
            let which = *missing.entry(Arc::clone(&ids)).or_insert(prepared.len());
            if which == prepared.len() {
                prepared.push(new);
            }
            waiting.push((place, which, ids, truncated_tokens));
        }
        self.hits.fetch_add((texts.len() - waiting.len()) as u64, Ordering::Relaxed);
        if !waiting.is_empty() {
            let embeddings = encode(prepared)?;
            self.misses.fetch_add(waiting.len() as u64, Ordering::Relaxed);
            for (place, which, ids, truncated_tokens) in waiting {
                let new = embeddings[which].clone();
                let embedding = self.lock().keep(texts[place], ids, truncated_tokens, new);
                found[place] = Some(QueryEmbedding { embedding, truncated_tokens });
            }
        }
        Ok(found.into_iter().map(|query| query.expect("every text was found or encoded")).collect())
    }

    pub(crate) fn stats(&self) -> CacheStats {
        let held = self.lock();
        CacheStats {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            entries: held.embeddings.entries.len() as u64,
            bytes: (held.spellings.bytes + held.embeddings.bytes) as u64,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // No foreign code runs under the lock, and every change is complete when it is released.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn spelled(&mut self, text: &str) -> Option<QueryEmbedding> {
        let (ids, truncated_tokens) = self.spellings.get(text)?.clone();
        let embedding = self.embeddings.get(&ids)?.clone();
        Some(QueryEmbedding { embedding, truncated_tokens })
    }

    fn tokenised(&mut self, text: &str, ids: &Arc<[u32]>, truncated_tokens: u32) -> Option<Embedding> {
        let embedding = self.embeddings.get(ids)?.clone();
        self.spell(text, ids, truncated_tokens);
        Some(embedding)
    }

    /// Keeps an embedding. When another caller was first, its embedding stands: what the text was
    /// batched with changes it by rounding, and a repeat must get the same bits.
    fn keep(&mut self, text: &str, ids: Arc<[u32]>, truncated_tokens: u32, new: Embedding) -> Embedding {
        self.spell(text, &ids, truncated_tokens);
        if let Some(first) = self.embeddings.get(&ids) {
            return first.clone();
        }
        let bytes = size_of_val(&*ids) + size_of_val(new.as_slice()) + ENTRY_BYTES;
        self.embeddings.insert(ids, new.clone(), bytes);
        new
    }

    fn spell(&mut self, text: &str, ids: &Arc<[u32]>, truncated_tokens: u32) {
        let bytes = text.len() + size_of_val(&**ids) + ENTRY_BYTES;
        self.spellings.insert(text.into(), (Arc::clone(ids), truncated_tokens), bytes);
    }
}

/// A map that forgets what was used longest ago, bounded in entries and bytes.
struct Lru<K: ?Sized, V> {
    entries: HashMap<Arc<K>, Entry<V>>,
    /// The keys by the time of their last use.
    uses: BTreeMap<u64, Arc<K>>,
    /// Grows with every use.
    now: u64,
    bytes: usize,
    entries_max: usize,
    bytes_max: usize,
}

struct Entry<V> {
    value: V,
    used: u64,
    bytes: usize,
}

impl<K: ?Sized + Eq + Hash, V> Lru<K, V>
where
    Arc<K>: Borrow<K>,
{
    fn new(entries_max: usize, bytes_max: usize) -> Self {
        Self { entries: HashMap::new(), uses: BTreeMap::new(), now: 0, bytes: 0, entries_max, bytes_max }
    }

    fn get(&mut self, key: &K) -> Option<&V> {
        let entry = self.entries.get_mut(key)?;
        let key = self.uses.remove(&entry.used).expect("every entry has its time of use");
        self.now += 1;
        entry.used = self.now;
        self.uses.insert(self.now, key);
        Some(&entry.value)
    }

    /// Puts an entry in, in the place of an older one of the same key; one that alone is over the
    /// bound is not kept.
    fn insert(&mut self, key: Arc<K>, value: V, bytes: usize) {
        if let Some(old) = self.entries.remove(&*key) {
            self.forget(&old);
        }
        if bytes > self.bytes_max || self.entries_max == 0 {
            return;
        }
        while self.entries.len() >= self.entries_max || self.bytes + bytes > self.bytes_max {
            let (_, oldest) = self.uses.first_key_value().expect("what is over the bound has entries");
            let old = self.entries.remove(&**oldest).expect("every time of use is an entry's");
            self.forget(&old);
        }
        self.now += 1;
        self.bytes += bytes;
        self.uses.insert(self.now, Arc::clone(&key));
        self.entries.insert(key, Entry { value, used: self.now, bytes });
    }

    fn forget(&mut self, old: &Entry<V>) {
        self.uses.remove(&old.used);
        self.bytes -= old.bytes;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use diptych_core::HashEncoder;

    use super::*;

    const DIM: usize = 16;

    fn encoder() -> HashEncoder {
        HashEncoder::with_context(DIM, 6)
    }

    /// Asks; also says whether the model was needed.
    fn ask(cache: &QueryCache, text: &str) -> (QueryEmbedding, bool) {
        let encoder = encoder();
        let mut asked = false;
        let found = cache.get_or_encode(&[text], &encoder, |prepared| {
            asked = true;
            Ok(encoder.encode_texts(&prepared)?)
        });
        (found.unwrap().remove(0), asked)
    }

    #[test]
    fn a_repeat_and_another_spelling_get_the_same_bits_without_the_model() {
        let cache = QueryCache::new(8, 1 << 20);
        let (first, asked) = ask(&cache, "Large left effusion");
        assert!(asked);
        for spelling in ["Large left effusion", "  large LEFT\teffusion\n", "Large left effusion"] {
            let (again, asked) = ask(&cache, spelling);
            assert!(!asked, "{spelling:?}");
            let bits = |e: &QueryEmbedding| -> Vec<u32> {
                e.embedding.as_slice().iter().map(|v| v.to_bits()).collect()
            };
            assert_eq!(bits(&again), bits(&first));
        }
        assert!(ask(&cache, "Large right effusion").1, "other tokens are another query");
        let stats = cache.stats();
        assert_eq!((stats.hits, stats.misses, stats.entries), (3, 2, 2));
    }

    #[test]
    fn of_several_texts_those_that_are_not_known_are_encoded_together_and_once() {
        let cache = QueryCache::new(8, 1 << 20);
        let (known, _) = ask(&cache, "left effusion");
        let encoder = encoder();
        let mut encoded = Vec::new();
        let texts = ["right effusion", "left effusion", "RIGHT effusion", "a b c d e f g", "a b c d e f"];
        let found = cache.get_or_encode(&texts, &encoder, |prepared| {
            encoded.push(prepared.len());
            Ok(encoder.encode_texts(&prepared)?)
        });
        let found = found.unwrap();
        assert_eq!(encoded, [2]);
        assert_eq!((&found[1], &found[0].embedding), (&known, &found[2].embedding));
        let cut: Vec<u32> = found.iter().map(|query| query.truncated_tokens).collect();
        assert_eq!(cut, [0, 0, 0, 1, 0]);
        for (text, query) in texts.iter().zip(&found) {
            assert_eq!(ask(&QueryCache::new(0, 0), text).0, *query);
        }
    }

    #[test]
    fn what_was_cut_is_remembered_per_spelling() {
        let cache = QueryCache::new(8, 1 << 20);
        assert_eq!(ask(&cache, "a b c d e f").0.truncated_tokens, 0);
        // The same tokens after truncation: the same embedding, but not the same loss.
        for _ in 0..2 {
            let (found, asked) = ask(&cache, "a b c d e f g h");
            assert_eq!((found.truncated_tokens, asked), (2, false));
        }
        assert_eq!(ask(&cache, "a b c d e f").0.truncated_tokens, 0);
        assert_eq!(cache.stats().entries, 1);
    }

    #[test]
    fn the_cache_is_bounded_and_forgets_what_was_used_longest_ago() {
        let cache = QueryCache::new(3, 1 << 20);
        for text in ["one", "two", "three", "one", "four"] {
            ask(&cache, text);
        }
        assert_eq!(cache.stats().entries, 3);
        assert!(!ask(&cache, "one").1, "it was used after 'two'");
        assert!(ask(&cache, "two").1, "it made room for 'four'");

        // Room for about five embeddings.
        let bytes_max = 5 * (DIM * 4 + ENTRY_BYTES + 16) * 4 / 3;
        let cache = QueryCache::new(1000, bytes_max);
        for n in 0..100 {
            ask(&cache, &format!("number {n}"));
            assert!(cache.stats().bytes <= bytes_max as u64);
        }
        assert!((3..=6).contains(&cache.stats().entries), "{:?}", cache.stats());
        let huge = "x".repeat(bytes_max);
        assert!(ask(&cache, &huge).1);
        assert!(cache.stats().bytes <= bytes_max as u64);

        let none = QueryCache::new(0, 1 << 20);
        assert!(ask(&none, "one").1 && ask(&none, "one").1);
        assert_eq!(none.stats().entries, 0);
    }

    #[test]
    fn many_threads_agree_on_every_answer() {
        let cache = QueryCache::new(16, 1 << 20);
        let expected: Vec<Embedding> =
            (0..24).map(|n| ask(&QueryCache::new(0, 0), &format!("query {n}")).0.embedding).collect();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (cache, expected) = (&cache, &expected);
                scope.spawn(move || {
                    for round in 0..200 {
                        let n = (round * 7 + thread * 5) % 24;
                        assert_eq!(ask(cache, &format!("query {n}")).0.embedding, expected[n]);
                    }
                });
            }
        });
        let stats = cache.stats();
        assert_eq!(stats.hits + stats.misses, 800);
        assert_eq!(stats.entries, 16);
    }

    #[test]
    fn a_query_that_cannot_be_embedded_leaves_no_trace() {
        let cache = QueryCache::new(8, 1 << 20);
        let refused = cache.get_or_encode(&["  "], &encoder(), |_| panic!("there is nothing to encode"));
        assert!(matches!(refused, Err(EngineError::Encode(_))));
        let failed = cache.get_or_encode(&["a"], &encoder(), |_| Err(EngineError::Closed));
        assert!(matches!(failed, Err(EngineError::Closed)));
        assert!(ask(&cache, "a").1, "a failure is not remembered");
        assert_eq!(cache.stats().misses, 1);
    }
}
