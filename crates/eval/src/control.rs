//! The shuffled-pairs control: who is paired with whom when nothing is.

use crate::bootstrap::dense;
use crate::random::Random;

/// Each record with the record whose texts and labels it is given instead of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Derangement {
    /// Per record, its new partner; a permutation.
    pub partners: Vec<u32>,
    /// Records whose partner is of their own cluster: 0 unless one cluster holds more than half of all.
    pub kept: usize,
}

/// Pairs every record with one of another cluster, by a seed. `clusters` has one number per record.
///
/// The clusters are put in a random order, the records of each side by side, and all records are
/// rotated by at least the largest cluster, so that none meets its own.
pub fn derange(clusters: &[u32], seed: u64) -> Derangement {
    let count = clusters.len();
    let (dense, cluster_count) = dense(clusters.iter().copied());
    let mut members = vec![Vec::new(); cluster_count];
    for (record, &cluster) in (0u32..).zip(&dense) {
        members[cluster as usize].push(record);
    }
    let mut random = Random::new(seed, u64::MAX);
    members.iter_mut().for_each(|records| random.shuffle(records));
    random.shuffle(&mut members);
    let largest = members.iter().map(Vec::len).max().unwrap_or(0);
    let ring: Vec<u32> = members.into_iter().flatten().collect();
    let turn = if 2 * largest > count { count / 2 } else { largest + random.below(count - 2 * largest + 1) };
    let mut partners = vec![0; count];
    for (place, &record) in ring.iter().enumerate() {
        partners[record as usize] = ring[(place + turn) % count];
    }
    let kept = (0..count).filter(|&r| dense[r] == dense[partners[r] as usize]).count();
    Derangement { partners, kept }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_meets_a_record_of_the_own_cluster() {
        for seed in 0..50 {
            for clusters in [
                vec![0, 1],
                vec![0, 1, 2],
                vec![5, 5, 5, 1, 2, 3],
                (0..997).map(|n| n / 3).collect::<Vec<u32>>(),
            ] {
                let Derangement { partners, kept } = derange(&clusters, seed);
                let mut sorted = partners.clone();
                sorted.sort_unstable();
                assert!(sorted.iter().zip(0..).all(|(&a, b)| a == b), "a permutation");
                let meets = partners.iter().zip(&clusters).any(|(&p, &c)| clusters[p as usize] == c);
                assert_eq!((meets, kept), (false, 0), "seed {seed}");
            }
        }
    }

    #[test]
    fn a_cluster_of_more_than_half_is_moved_as_far_as_it_can_be() {
        assert_eq!(derange(&[1, 1, 1, 2], 1).kept, 2);
        assert_eq!(derange(&[4], 1), Derangement { partners: vec![0], kept: 1 });
        assert_eq!(derange(&[], 1), Derangement { partners: vec![], kept: 0 });
    }

    #[test]
    fn every_partner_is_about_equally_likely() {
        let mut met = [0u32; 6];
        for seed in 0..6000 {
            met[derange(&[0, 1, 2, 3, 4, 5], seed).partners[0] as usize] += 1;
        }
        assert_eq!(met[0], 0);
        // Four standard deviations of 6000 draws at 1/5.
        assert!(met[1..].iter().all(|m| m.abs_diff(1200) < 124), "{met:?}");
    }
}
