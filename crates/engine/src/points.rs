//! Sets of points that are small as long as they have few members: most values of most attributes
//! belong to a handful of records.
//!
//! Deliberately absent: what the points have in common.

use std::borrow::Cow;

use diptych_index::PointSet;

/// Members up to which a sorted list is kept.
const FEW: usize = 32;

/// A set of point ids.
#[derive(Debug, Clone)]
pub(crate) enum Points {
    /// At most [`FEW`], sorted.
    Few(Vec<u64>),
    /// Compressed.
    Many(PointSet),
}

impl Default for Points {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Points {
    pub(crate) fn insert(&mut self, id: u64) {
        match self {
            Self::Many(set) => {
                set.insert(id);
            }
            Self::Few(ids) => match ids.binary_search(&id) {
                Ok(_) => {}
                Err(_) if ids.len() == FEW => {
                    let mut set = sorted(ids);
                    set.insert(id);
                    *self = Self::Many(set);
                }
                Err(place) => ids.insert(place, id),
            },
        }
    }

    pub(crate) fn remove(&mut self, id: u64) {
        match self {
            Self::Many(set) => {
                set.remove(id);
            }
            Self::Few(ids) => {
                if let Ok(place) = ids.binary_search(&id) {
                    ids.remove(place);
                }
            }
        }
    }

    /// How many of the members are in `set`, too.
    pub(crate) fn common(&self, set: &PointSet) -> u64 {
        match self {
            Self::Few(ids) => ids.iter().filter(|&&id| set.contains(id)).count() as u64,
            Self::Many(many) => many.intersection_len(set),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Few(ids) => ids.is_empty(),
            Self::Many(set) => set.is_empty(),
        }
    }

    /// The members of all sets; without a copy when that is one large set.
    pub(crate) fn union<'a>(sets: impl Iterator<Item = &'a Self>) -> Cow<'a, PointSet> {
        let mut few = Vec::new();
        let mut many: Option<Cow<'a, PointSet>> = None;
        for set in sets {
            match set {
                Self::Few(ids) => few.extend_from_slice(ids),
                Self::Many(set) => match &mut many {
                    None => many = Some(Cow::Borrowed(set)),
                    Some(union) => *union.to_mut() |= set,
                },
            }
        }
        few.sort_unstable();
        few.dedup();
        match many {
            None => Cow::Owned(sorted(&few)),
            Some(union) if few.is_empty() => union,
            Some(union) => Cow::Owned(union.as_ref() | sorted(&few)),
        }
    }
}

/// A set of ascending ids.
fn sorted(ids: &[u64]) -> PointSet {
    PointSet::from_sorted_iter(ids.iter().copied()).expect("the ids are sorted and distinct")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn small_and_large_sets_hold_the_same_members() {
        let mut state = 7u64;
        let mut draw = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        let mut sets = vec![(Points::default(), BTreeSet::new()); 6];
        for _ in 0..4000 {
            let (set, model) = &mut sets[draw(6) as usize];
            let id = draw(8).pow(14);
            let id = id + draw(60);
            if draw(3) == 0 {
                set.remove(id);
                model.remove(&id);
            } else {
                set.insert(id);
                model.insert(id);
            }
            assert_eq!(set.is_empty(), model.is_empty());
        }
        sets.push((Points::Few(vec![3]), BTreeSet::from([3])));
        assert!(sets.iter().any(|(set, _)| matches!(set, Points::Many(_))));
        for take in 0..=sets.len() {
            for group in [&sets[..take], &sets[take..]] {
                let union: Vec<u64> = Points::union(group.iter().map(|(set, _)| set)).iter().collect();
                let all: PointSet = union.iter().copied().collect();
                assert!(group.iter().all(|(set, model)| set.common(&all) == model.len() as u64));
                let model: BTreeSet<u64> = group.iter().flat_map(|(_, model)| model).copied().collect();
                assert_eq!(union, model.into_iter().collect::<Vec<_>>());
            }
        }
    }
}
