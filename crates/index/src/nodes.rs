//! The distinct vectors of an index and the points that have them.
//!
//! Owns: storage that only grows, read without locks while it grows. Deliberately absent: which id
//! belongs to which vector (the registry's), and who is near whom (the graph's).

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use diptych_core::PointId;

/// Position of a distinct vector, counted from 0 in the order of arrival.
pub(crate) type Slot = u32;

/// Most distinct vectors one index holds; the graph library counts them in an `i32`.
pub(crate) const SLOTS_MAX: u32 = i32::MAX as u32;

/// Nodes in the first block; every further block holds twice as many as the one before.
const FIRST_BLOCK: u64 = 1024;
/// Enough doublings for `SLOTS_MAX`.
const BLOCKS: usize = 22;

/// One distinct vector and the live points that have exactly this vector, in id order. A node
/// without points stays where it is, since the graph walks through it.
#[derive(Debug)]
pub(crate) struct Node {
    vector: Arc<[f32]>,
    ids: RwLock<Vec<PointId>>,
    // The length of `ids`, to pass over dead nodes without taking the lock.
    live: AtomicU32,
}

impl Node {
    pub(crate) fn vector(&self) -> &Arc<[f32]> {
        &self.vector
    }

    pub(crate) fn is_live(&self) -> bool {
        self.live.load(Ordering::Acquire) > 0
    }

    /// Calls `take` with live ids in ascending order until it returns false.
    pub(crate) fn for_each_id(&self, mut take: impl FnMut(PointId) -> bool) {
        let ids = self.ids.read().unwrap_or_else(PoisonError::into_inner);
        for &id in ids.iter() {
            if !take(id) {
                return;
            }
        }
    }

    /// Adds a point that is not among the ids; returns whether it is the only one now.
    pub(crate) fn add(&self, id: PointId) -> bool {
        let mut ids = self.ids.write().unwrap_or_else(PoisonError::into_inner);
        let at = ids.partition_point(|&other| other < id);
        ids.insert(at, id);
        self.count(ids.len()) == 1
    }

    /// Removes a point; returns whether none is left.
    pub(crate) fn remove(&self, id: PointId) -> bool {
        let mut ids = self.ids.write().unwrap_or_else(PoisonError::into_inner);
        if let Ok(at) = ids.binary_search(&id) {
            ids.remove(at);
        }
        self.count(ids.len()) == 0
    }

    fn count(&self, ids: usize) -> usize {
        self.live.store(u32::try_from(ids).unwrap_or(u32::MAX), Ordering::Release);
        ids
    }
}

/// All nodes. Any number of readers, one writer at a time (the registry's lock sees to that).
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    // Blocks never move, so a reference to a node holds while others are added.
    blocks: [OnceLock<Box<[OnceLock<Node>]>>; BLOCKS],
    len: AtomicU32,
}

impl Nodes {
    /// Nodes so far, live or not.
    pub(crate) fn len(&self) -> u32 {
        self.len.load(Ordering::Acquire)
    }

    /// Adds a node with its first point. The caller is the only one that adds, and has checked
    /// that fewer than `SLOTS_MAX` exist.
    pub(crate) fn push(&self, id: PointId, vector: Arc<[f32]>) -> Slot {
        let slot = self.len();
        let (block, at, size) = place(slot);
        let cells = self.blocks[block].get_or_init(|| (0..size).map(|_| OnceLock::new()).collect());
        let node = Node { vector, ids: RwLock::new(vec![id]), live: AtomicU32::new(1) };
        cells[at].set(node).expect("nodes are added by one caller at a time");
        self.len.store(slot + 1, Ordering::Release);
        slot
    }

    /// The node of a slot this storage gave out.
    pub(crate) fn get(&self, slot: Slot) -> &Node {
        let (block, at, _) = place(slot);
        self.blocks[block].get().and_then(|cells| cells[at].get()).expect("a slot is given out with its node")
    }
}

/// The block of a slot, its place in there, and the size of the block.
fn place(slot: Slot) -> (usize, usize, usize) {
    let block = (u64::from(slot) / FIRST_BLOCK + 1).ilog2();
    let before = FIRST_BLOCK * ((1 << block) - 1);
    (block as usize, (u64::from(slot) - before) as usize, (FIRST_BLOCK << block) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_follow_each_other_without_gaps() {
        let mut expected = (0, 0);
        for slot in 0..20_000 {
            let (block, at, size) = place(slot);
            assert_eq!((block, at), expected, "slot {slot}");
            expected = if at + 1 == size { (block + 1, 0) } else { (block, at + 1) };
        }
        assert!(place(SLOTS_MAX).0 < BLOCKS);
    }

    #[test]
    fn references_survive_growth() {
        let nodes = Nodes::default();
        nodes.push(PointId(7), Arc::from([1.0f32].as_slice()));
        let first = nodes.get(0);
        for i in 0..5_000u64 {
            nodes.push(PointId(100 + i), Arc::from([i as f32].as_slice()));
        }
        assert_eq!(first.vector()[0], 1.0);
        assert_eq!(nodes.get(5_000).vector()[0], 4_999.0);
        assert_eq!(nodes.len(), 5_001);
    }

    #[test]
    fn ids_of_one_vector_stay_in_order() {
        let nodes = Nodes::default();
        let slot = nodes.push(PointId(5), Arc::from([1.0f32].as_slice()));
        let node = nodes.get(slot);
        assert!(!node.add(PointId(2)));
        assert!(!node.add(PointId(9)));
        let mut seen = Vec::new();
        node.for_each_id(|id| {
            seen.push(id.0);
            seen.len() < 2
        });
        assert_eq!(seen, [2, 5], "ascending, and stopped when told");
        assert!(!node.remove(PointId(2)));
        assert!(!node.remove(PointId(5)));
        assert!(node.remove(PointId(9)));
        assert!(!node.is_live());
        assert!(node.add(PointId(11)), "a dead node comes back with its next point");
        assert!(node.is_live());
    }
}
