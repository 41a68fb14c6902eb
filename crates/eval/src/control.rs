//! The shuffled-pairs control: who is paired with whom when nothing is, and what several such shuffles
//! give together.

use crate::bootstrap::{Interval, dense};
use crate::random::Random;
use crate::retrieval::Direction;

/// Most shuffles of the control.
pub const SHUFFLES_MAX: usize = 20;
/// Scores looked at for the control, over all its shuffles, and queries kept at a time: large galleries
/// need fewer shuffles to come out at chance.
const SHUFFLED_SCORES: usize = 400_000_000;
const SHUFFLED_QUERIES: usize = 1_000_000;
/// Retrieval by the same scores with every record's images given to a record of another cluster. At
/// chance, unless the protocol itself is wrong; but for labels, where a model that answers every query
/// with items of the commonest label is above chance without knowing the query.
///
/// Each metric is the mean over several shuffles, its interval their lowest and highest value. One
/// shuffle alone would say little of labels: queries of equal labels find the same few items, which
/// then share one fate.
#[derive(Debug, Clone, PartialEq)]
pub struct Control {
    /// Texts as queries, images as gallery; without outcomes.
    pub text_to_image: Direction,
    /// Images as queries, texts as gallery; without outcomes.
    pub image_to_text: Direction,
    /// Shuffles: [`SHUFFLES_MAX`], fewer for very large galleries.
    pub shuffles: usize,
}

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

/// How many shuffles to make.
pub(crate) fn shuffles(images: usize, texts: usize) -> usize {
    let (more, fewer) = (images.max(texts), images.min(texts));
    (SHUFFLED_SCORES / more / fewer).min(SHUFFLED_QUERIES / more).clamp(1, SHUFFLES_MAX)
}

impl Control {
    /// The mean of shuffles in both directions; `None` without any.
    pub(crate) fn of(text_to_image: Vec<Direction>, image_to_text: Vec<Direction>) -> Option<Self> {
        let shuffles = text_to_image.len();
        Some(Self { text_to_image: mean(text_to_image)?, image_to_text: mean(image_to_text)?, shuffles })
    }
}

/// The mean of several shuffles, with their range for an interval; `None` without any.
fn mean(mut shuffles: Vec<Direction>) -> Option<Direction> {
    let count = shuffles.len() as f64;
    // Labels that some shuffle leaves without a single match cannot be averaged.
    if shuffles.iter().any(|shuffle| shuffle.labels.is_none()) {
        shuffles.iter_mut().for_each(|shuffle| shuffle.labels = None);
    }
    let values: Vec<Vec<f64>> = shuffles
        .iter()
        .map(|shuffle| shuffle.metrics().iter().map(|(_, metric)| metric.value).collect())
        .collect();
    let curves: Vec<Vec<f64>> = shuffles.iter().map(|shuffle| shuffle.recall_curve.clone()).collect();
    let mut mean = shuffles.into_iter().next()?;
    mean.outcomes.clear();
    for (k, recall) in mean.recall_curve.iter_mut().enumerate() {
        *recall = curves.iter().map(|curve| curve[k]).sum::<f64>() / count;
    }
    for (n, metric) in mean.metrics_mut().into_iter().enumerate() {
        let each = || values.iter().map(|values| values[n]);
        metric.value = each().sum::<f64>() / count;
        let (low, high) = (each().fold(f64::INFINITY, f64::min), each().fold(f64::NEG_INFINITY, f64::max));
        metric.interval = (values.len() > 1).then_some(Interval { low, high });
    }
    Some(mean)
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
    fn large_galleries_are_shuffled_less() {
        assert_eq!((shuffles(1000, 1000), shuffles(10_000, 30_000), shuffles(1 << 30, 1 << 30)), (20, 1, 1));
        assert_eq!((shuffles(1, 1), shuffles(3, 250_000)), (20, 4));
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
