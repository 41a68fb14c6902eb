//! Which id has which vector.
//!
//! Owns: the two maps from ids and from vectors to nodes, and the rules for ids that come twice, come
//! after their own removal, or bring a vector that is there already. Deliberately absent: the graph.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use diptych_core::{Embedding, PointId};

use crate::nodes::{Nodes, SLOTS_MAX, Slot};
use crate::options::IndexError;

/// Ids and vectors known; behind a lock.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    // `None` once removed: ids are never used twice, and a removal may overtake its insert.
    by_id: HashMap<PointId, Option<Slot>>,
    // By fingerprint; of different vectors with one fingerprint, the first.
    by_vector: HashMap<u64, Slot>,
}

/// What an insert did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inserted {
    /// Nothing: the id is there, or has been removed.
    Known,
    /// The point joined a node that has live points.
    Joined,
    /// The point brought a node without live points back.
    Revived(Slot),
    /// A new node.
    New(Slot),
}

/// What a removal did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removed {
    /// Nothing but remembering the id: it was not live.
    Unknown,
    /// Took one of several points of a node.
    Left,
    /// Took the last point of a node.
    Died(Slot),
}

/// A keyed hash of vectors, so that nobody can prepare collisions.
#[derive(Debug, Default)]
pub(crate) struct Fingerprints(RandomState);

impl Fingerprints {
    /// The fingerprint of a vector's bits.
    pub(crate) fn of(&self, embedding: &Embedding) -> u64 {
        let mut hasher = self.0.build_hasher();
        for pair in embedding.as_slice().chunks(2) {
            let high = pair.get(1).map_or(0, |v| v.to_bits());
            hasher.write_u64(u64::from(pair[0].to_bits()) | u64::from(high) << 32);
        }
        hasher.finish()
    }
}

impl Registry {
    /// Enters a point. With a fingerprint, a vector that is there already is shared; without, every
    /// point gets its own node.
    pub(crate) fn insert(
        &mut self,
        nodes: &Nodes,
        id: PointId,
        embedding: &Embedding,
        fingerprint: Option<u64>,
    ) -> Result<Inserted, IndexError> {
        if self.by_id.contains_key(&id) {
            return Ok(Inserted::Known);
        }
        let same = fingerprint
            .and_then(|f| self.by_vector.get(&f).copied())
            .filter(|&slot| same_bits(nodes.get(slot).vector(), embedding.as_slice()));
        if let Some(slot) = same {
            self.by_id.insert(id, Some(slot));
            let only = nodes.get(slot).add(id);
            return Ok(if only { Inserted::Revived(slot) } else { Inserted::Joined });
        }
        if nodes.len() >= SLOTS_MAX {
            return Err(IndexError::Full);
        }
        let slot = nodes.push(id, Arc::from(embedding.as_slice()));
        self.by_id.insert(id, Some(slot));
        if let Some(fingerprint) = fingerprint {
            self.by_vector.entry(fingerprint).or_insert(slot);
        }
        Ok(Inserted::New(slot))
    }

    /// Removes a point, or remembers that it must not be inserted.
    pub(crate) fn remove(&mut self, nodes: &Nodes, id: PointId) -> Removed {
        match self.by_id.insert(id, None) {
            Some(Some(slot)) if nodes.get(slot).remove(id) => Removed::Died(slot),
            Some(Some(_)) => Removed::Left,
            Some(None) | None => Removed::Unknown,
        }
    }

    /// Whether the id is live, or was ever.
    pub(crate) fn knows(&self, id: PointId) -> bool {
        self.by_id.contains_key(&id)
    }

    /// Live ids, in id order.
    pub(crate) fn ids(&self) -> Vec<PointId> {
        let mut ids: Vec<PointId> =
            self.by_id.iter().filter(|(_, slot)| slot.is_some()).map(|(&id, _)| id).collect();
        ids.sort_unstable();
        ids
    }
}

fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(x, y)| x.to_bits() == y.to_bits())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(values: &[f32]) -> Embedding {
        Embedding::new(values).expect("valid")
    }

    #[test]
    fn equal_vectors_share_a_node_and_colliding_ones_do_not() {
        let (nodes, mut registry) = (Nodes::default(), Registry::default());
        let (a, b) = (unit(&[1.0, 0.0]), unit(&[0.0, 1.0]));
        let mut insert = |id, e, f| registry.insert(&nodes, PointId(id), e, Some(f)).expect("room");
        assert_eq!(insert(1, &a, 9), Inserted::New(0));
        assert_eq!(insert(2, &a, 9), Inserted::Joined);
        assert_eq!(insert(3, &b, 9), Inserted::New(1), "another vector with the same fingerprint");
        assert_eq!(insert(1, &b, 9), Inserted::Known);
        assert_eq!(registry.remove(&nodes, PointId(1)), Removed::Left);
        assert_eq!(registry.remove(&nodes, PointId(1)), Removed::Unknown);
        assert_eq!(registry.remove(&nodes, PointId(2)), Removed::Died(0));
        let mut insert = |id| registry.insert(&nodes, PointId(id), &a, Some(9)).expect("room");
        assert_eq!(insert(2), Inserted::Known, "a removed id stays removed");
        assert_eq!(insert(4), Inserted::Revived(0));
        assert_eq!(registry.ids(), [PointId(3), PointId(4)]);
    }

    #[test]
    fn fingerprints_see_every_component() {
        let fingerprints = Fingerprints::default();
        let base = unit(&[0.5, 0.5, 0.5, 0.3, 0.4]);
        for i in 0..5 {
            let mut values = base.as_slice().to_vec();
            values[i] = -values[i];
            assert_ne!(fingerprints.of(&base), fingerprints.of(&unit(&values)), "component {i}");
        }
        assert_eq!(fingerprints.of(&base), fingerprints.of(&base.clone()));
    }
}
