//! Looking after indexes: what they are made of, checking their files, sealing and merging, building
//! them again, and teaching them about queries.
//!
//! Owns: the operator's side of the indexes. Deliberately absent: what happens by itself while an engine
//! serves (the space and the index see to that).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use diptych_core::{CollectionName, Embedding, Modality};
use diptych_index::{Index, IndexError, IndexStats};
use diptych_store::Store;

use crate::shelf::{INDEX_DIR, Opening, Watch};
use crate::space::Space;
use crate::{Engine, EngineError, IndexKind};

/// Points after which a rebuild says how far it is.
const TOLD_EACH: u64 = 1024;

/// What the index of one collection and modality is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexReport {
    /// The collection.
    pub collection: CollectionName,
    /// What the points are.
    pub modality: Modality,
    /// Points, links and bytes.
    pub stats: IndexStats,
    /// Vectors that are kept only as stepping stones: their points have been removed.
    pub tombstones: usize,
    /// Vectors that no walk leads to, which every search compares.
    pub stragglers: usize,
}

/// What is to be done for an index beside sealing and merging it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Care<'a> {
    /// Read every file and check it against its checksums.
    pub check: bool,
    /// Build it from the store, whatever its files hold.
    pub rebuild: bool,
    /// Texts that an index of images is taught about, as vectors.
    pub queries: &'a [Embedding],
}

/// What was done for an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cared {
    /// What it is made of now.
    pub index: IndexReport,
    /// What was wrong with its files, if they were checked; it has been built again then.
    pub damage: Option<String>,
    /// How it came to be open.
    pub opening: Opening,
    /// Time to open or build it.
    pub opened_in: Duration,
    /// Time to seal and merge it.
    pub sealed_in: Duration,
    /// What came of the queries, if it was taught about any.
    pub taught: Option<Taught>,
}

/// What came of teaching an index about queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taught {
    /// Queries.
    pub queries: usize,
    /// Links added and kept, less older ones that gave way to them.
    pub links_added: usize,
    /// Time it took.
    pub took: Duration,
}

/// Looks after the indexes of one collection, or of all: opens or builds each, seals and merges it, and
/// does what `care` says. `done` hears of each when it is done.
///
/// # Errors
/// [`EngineError::CollectionNotFound`]; [`EngineError::Dimension`] when the queries are of another model;
/// when the store cannot be read, or files cannot be written.
pub fn care_for(
    store: &Store,
    collection: Option<&CollectionName>,
    care: &Care<'_>,
    mut done: impl FnMut(Cared),
) -> Result<(), EngineError> {
    let mut collections = store.collections();
    collections.sort_by(|a, b| a.name.cmp(&b.name));
    let existing = || collections.iter().map(|c| c.name.to_string()).collect();
    if let Some(name) = collection.filter(|name| !collections.iter().any(|c| c.name == **name)) {
        return Err(EngineError::CollectionNotFound { name: name.to_string(), existing: existing() });
    }
    for one in collections.into_iter().filter(|c| collection.is_none_or(|name| c.name == *name)) {
        let space = Space::new(one, IndexKind::Graph, Some(store.root().join(INDEX_DIR)));
        for modality in Modality::ALL {
            done(space.care_for(store, modality, care)?);
        }
    }
    Ok(())
}

impl Engine {
    /// As [`care_for`], for an engine's collection. Writes to it wait until it is done.
    ///
    /// # Errors
    /// As [`care_for`].
    pub fn care_for(
        &self,
        collection: &CollectionName,
        care: &Care<'_>,
        mut done: impl FnMut(Cared),
    ) -> Result<(), EngineError> {
        let space = self.space(collection)?;
        Modality::ALL.into_iter().try_for_each(|modality| {
            done(space.care_for(&self.store, modality, care)?);
            Ok(())
        })
    }
}

/// What a rebuild of a collection's indexes did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rebuilt {
    /// Points of the indexes that were built.
    pub points: u64,
    /// Whether it was told to stop before it was through.
    pub stopped: bool,
}

impl Engine {
    /// Builds the indexes of a collection again from the store. `go_on` hears, now and then, how many points
    /// were taken and how many there are. When it says no, the index in work is completed, since its files
    /// are gone, and the next one is left as it is. Writes wait for each index, searches do not.
    ///
    /// # Errors
    /// As [`care_for`].
    pub fn rebuild(
        &self,
        collection: &CollectionName,
        go_on: impl Fn(u64, u64) -> bool,
    ) -> Result<Rebuilt, EngineError> {
        let space = self.space(collection)?;
        let stats = space.told(self.store.stats(space.collection.id).map_err(EngineError::from))?;
        let total = stats.image_points + stats.text_points;
        let taken = AtomicU64::new(0);
        let mut points = 0;
        for modality in Modality::ALL {
            if !go_on(taken.load(Ordering::Relaxed), total) {
                return Ok(Rebuilt { points, stopped: true });
            }
            let _alone = space.alone();
            space.check_there()?;
            let index = space.replace(&self.store, modality, &|| {
                let taken = taken.fetch_add(1, Ordering::Relaxed) + 1;
                if taken.is_multiple_of(TOLD_EACH) {
                    go_on(taken, total);
                }
            })?;
            points += index.len() as u64;
        }
        go_on(taken.load(Ordering::Relaxed), total);
        Ok(Rebuilt { points, stopped: false })
    }
}

impl Space {
    /// What the open indexes are made of.
    pub(crate) fn reports(&self) -> Vec<IndexReport> {
        let open = Modality::ALL.into_iter().filter_map(|modality| Some((modality, self.opened(modality)?)));
        open.map(|(modality, index)| self.report(modality, &index)).collect()
    }

    fn report(&self, modality: Modality, index: &Index) -> IndexReport {
        IndexReport {
            collection: self.collection.name.clone(),
            modality,
            stats: index.stats(),
            tombstones: index.tombstones(),
            stragglers: index.stragglers(),
        }
    }

    /// Looks after the index of one modality; writers wait meanwhile.
    fn care_for(&self, store: &Store, modality: Modality, care: &Care<'_>) -> Result<Cared, EngineError> {
        if let Some(query) = care.queries.iter().find(|q| q.dim() != self.collection.dim as usize) {
            let expected = self.collection.dim as usize;
            return Err(EngineError::Dimension { expected, found: query.dim() });
        }
        let _alone = self.alone();
        self.check_there()?;
        let damage = if care.check { self.damage(modality)? } else { None };
        let started = Instant::now();
        let (mut index, mut opening) = match self.opened(modality) {
            _ if care.rebuild || damage.is_some() => {
                let index = self.replace(store, modality, &|| {})?;
                (index, Opening::Built { because: damage.clone() })
            }
            Some(index) => (index, Opening::Held),
            None => {
                let (index, opening) = self.shelf.open(store, modality)?;
                let index = Arc::new(index);
                self.put(modality, Some(Arc::clone(&index)));
                (index, opening)
            }
        };
        let mut opened_in = started.elapsed();

        let work = |index: &Index| -> Result<(Duration, Option<Taught>), IndexError> {
            let started = Instant::now();
            index.seal()?;
            let sealed_in = started.elapsed();
            let teach = modality == Modality::Image && !care.queries.is_empty();
            Ok((sealed_in, if teach { Some(taught(index, care.queries)?) } else { None }))
        };
        let (sealed_in, taught) = match work(&index) {
            // Vectors are checked when they are first read, which may be here.
            Err(error @ IndexError::Damaged { .. }) => {
                tracing::warn!("{error}; building it again");
                let started = Instant::now();
                index = self.replace(store, modality, &|| {})?;
                opening = Opening::Built { because: Some(error.to_string()) };
                opened_in = started.elapsed();
                work(&index)?
            }
            outcome => outcome?,
        };
        let index = self.report(modality, &index);
        Ok(Cared { index, damage, opening, opened_in, sealed_in, taught })
    }

    /// What is wrong with the files of an index.
    fn damage(&self, modality: Modality) -> Result<Option<String>, EngineError> {
        let checked = match self.opened(modality) {
            Some(index) => index.check_vectors(),
            None => self.shelf.check(modality),
        };
        match checked {
            Ok(()) => Ok(None),
            Err(error @ (IndexError::Damaged { .. } | IndexError::WrongDimension { .. })) => {
                Ok(Some(error.to_string()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Builds an index again. Searches go on in the old one until the new one is there.
    pub(crate) fn replace(
        &self,
        store: &Store,
        modality: Modality,
        watch: &Watch<'_>,
    ) -> Result<Arc<Index>, EngineError> {
        if let Some(old) = self.opened(modality) {
            // Its files stay readable to those who search it.
            old.retire();
        }
        match self.shelf.build_watched(store, modality, watch) {
            Ok(index) => {
                let index = Arc::new(index);
                self.put(modality, Some(Arc::clone(&index)));
                Ok(index)
            }
            Err(error) => {
                // The next one to need it builds it.
                self.put(modality, None);
                Err(error)
            }
        }
    }
}

fn taught(index: &Index, queries: &[Embedding]) -> Result<Taught, IndexError> {
    let started = Instant::now();
    let before = index.stats().added_links;
    index.learn_queries(queries)?;
    let links_added = index.stats().added_links.saturating_sub(before);
    Ok(Taught { queries: queries.len(), links_added, took: started.elapsed() })
}
