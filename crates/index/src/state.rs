//! The parts of an index at one moment, and what its users and its upkeep share.
//!
//! Owns: which live layer takes inserts, which are being sealed, which segments there are, and the locks
//! around them. Deliberately absent: searching and changing them (see `index` and `upkeep`).

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use diptych_core::PointId;

use crate::live::Live;
use crate::manifest::{Files, Manifest};
use crate::options::IndexOptions;
use crate::sealed::segment::Segment;
use crate::search::PointSet;
use crate::training::Training;

/// What searches, writers and background work share.
pub(crate) struct Shared {
    pub(crate) dim: usize,
    pub(crate) options: IndexOptions,
    /// Where segments are kept; without, in memory.
    pub(crate) dir: Option<PathBuf>,
    pub(crate) _lock: Option<File>,
    pub(crate) state: RwLock<State>,
    /// Every id ever removed: ids are never used twice, and a removal may overtake its insert. Its lock
    /// orders removals and the appearance of new segments. Of several locks, the manifest's is taken
    /// first, then this, then the state's.
    pub(crate) removed: Mutex<PointSet>,
    /// Queries that segments are taught about when they are built, and later.
    pub(crate) training: Mutex<Training>,
    /// What the manifest says, and one writer of it at a time.
    pub(crate) manifest: Mutex<Manifest>,
    /// The mark of a manifest that is still to be written.
    pub(crate) owed: Mutex<Option<u64>>,
}

/// The parts of the index. Replaced as a whole, so that a search sees one moment.
#[derive(Clone)]
pub(crate) struct State {
    pub(crate) live: Arc<Live>,
    pub(crate) sealing: Vec<Sealing>,
    pub(crate) segments: Vec<Part>,
}

/// A live layer that takes no more points.
#[derive(Clone)]
pub(crate) struct Sealing {
    pub(crate) layer: Arc<Live>,
    /// The owner's mark that is reached when this is sealed.
    pub(crate) mark: Option<u64>,
}

/// A segment and the files it is in.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) segment: Arc<Segment>,
    pub(crate) files: Option<Files>,
    /// Queries that had been noted when its links were taught about them.
    pub(crate) taught: u64,
}

/// What an index is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IndexStats {
    /// Live points in the live layer.
    pub live: usize,
    /// Live points in layers that are being sealed.
    pub sealing: usize,
    /// Live points of each segment.
    pub segments: Vec<usize>,
    /// Links of all segments.
    pub links: usize,
    /// Of those, added for queries and for points that were not found otherwise.
    pub added_links: usize,
    /// Bytes of segments that searches need at hand: codes, links, ids.
    pub hot_bytes: usize,
    /// Bytes of exact vectors in segments, of which a search reads a few rows.
    pub vector_bytes: usize,
}

impl Shared {
    pub(crate) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The parts of this moment.
    pub(crate) fn snapshot(&self) -> State {
        self.state().clone()
    }

    pub(crate) fn removed(&self) -> MutexGuard<'_, PointSet> {
        self.removed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn manifest(&self) -> MutexGuard<'_, Manifest> {
        self.manifest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn owed(&self) -> MutexGuard<'_, Option<u64>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn training(&self) -> MutexGuard<'_, Training> {
        self.training.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Live points.
    pub(crate) fn len(&self) -> usize {
        let layers = self.layers().map(|layer| layer.len()).sum::<usize>();
        layers + self.segments.iter().map(|part| part.segment.len()).sum::<usize>()
    }

    /// The live layer and those being sealed.
    pub(crate) fn layers(&self) -> impl Iterator<Item = &Arc<Live>> {
        std::iter::once(&self.live).chain(self.sealing.iter().map(|sealing| &sealing.layer))
    }

    /// Whether a point is, or was, somewhere else than in the live layer.
    pub(crate) fn is_sealed(&self, id: PointId) -> bool {
        self.sealing.iter().any(|sealing| sealing.layer.knows(id))
            || self.segments.iter().any(|part| part.segment.knows(id))
    }

    pub(crate) fn knows(&self, id: PointId) -> bool {
        self.live.knows(id) || self.is_sealed(id)
    }

    /// Takes the points out of a new segment that came by another way while it was built.
    pub(crate) fn take_known(&self, new: &Segment) {
        for layer in self.layers() {
            new.remove_all(&layer.ids().into_iter().map(|id| id.0).collect());
        }
        for part in &self.segments {
            new.remove_all(&part.segment.id_set());
        }
    }

    /// What the index is made of.
    pub(crate) fn stats(&self) -> IndexStats {
        let mut stats = IndexStats {
            live: self.live.len(),
            sealing: self.sealing.iter().map(|s| s.layer.len()).sum(),
            ..IndexStats::default()
        };
        for Part { segment, .. } in &self.segments {
            stats.segments.push(segment.len());
            let (links, added) = segment.link_counts();
            let (hot, cold) = segment.bytes();
            stats.links += links;
            stats.added_links += added;
            stats.hot_bytes += hot;
            stats.vector_bytes += cold;
        }
        stats
    }
}
