//! What a random order of the gallery gives, exactly.
//!
//! Every order is equally likely and `right` of `gallery` items are right answers.

/// Recall at `k`: `1 - C(gallery - right, k) / C(gallery, k)`, one minus the hypergeometric
/// probability of drawing `k` wrong items.
pub fn chance_at(k: usize, right: usize, gallery: usize) -> f64 {
    let wrong = gallery.saturating_sub(right);
    if k > wrong {
        return if right == 0 { 0.0 } else { 1.0 };
    }
    1.0 - (0..k).map(|drawn| (wrong - drawn) as f64 / (gallery - drawn) as f64).product::<f64>()
}

/// The expected reciprocal rank of the first right answer: the sum over ranks `r` of
/// `C(gallery - r, right - 1) / C(gallery, right) / r`. With one right answer it is `H(n) / n`, the
/// mean of `1/1` to `1/n`.
pub fn reciprocal_rank_chance(right: usize, gallery: usize) -> f64 {
    first_rank_probabilities(right, gallery).zip(1..).map(|(p, rank)| p / f64::from(rank)).sum()
}

/// The expected average precision: `H/n + (right - 1) / (n - 1) * (1 - H/n)` with `n` the gallery and
/// `H` its harmonic number. Rank `i` holds a right answer with probability `right / n`, and then
/// `(i - 1) (right - 1) / (n - 1)` of the ranks before it do so on average (Bestgen, 2015).
pub fn average_precision_chance(right: usize, gallery: usize) -> f64 {
    if right == 0 || gallery == 0 {
        return 0.0;
    }
    if right >= gallery {
        return 1.0;
    }
    let mean_reciprocal = (1..=gallery).map(|i| 1.0 / i as f64).sum::<f64>() / gallery as f64;
    mean_reciprocal + (right - 1) as f64 / (gallery - 1) as f64 * (1.0 - mean_reciprocal)
}

/// The median rank over queries with these numbers of right answers, each given with how many queries
/// have it: the rank up to which half of the probability lies.
pub(crate) fn median_rank_chance(queries_by_right: &[(usize, usize)], gallery: usize) -> f64 {
    let queries: usize = queries_by_right.iter().map(|&(_, queries)| queries).sum();
    let mut ranks: Vec<_> = queries_by_right
        .iter()
        .map(|&(right, count)| (count as f64 / queries as f64, first_rank_probabilities(right, gallery)))
        .collect();
    let mut reached = 0.0;
    for rank in 1..=gallery {
        reached += ranks.iter_mut().map(|(share, p)| *share * p.next().unwrap_or(0.0)).sum::<f64>();
        // Half of the probability on either side: the median lies between two ranks.
        if (reached - 0.5).abs() < 1e-9 {
            return rank as f64 + 0.5;
        }
        if reached > 0.5 {
            return rank as f64;
        }
    }
    gallery as f64
}

/// The probabilities that the first right answer stands at rank 1, 2, ...; they sum to 1.
fn first_rank_probabilities(right: usize, gallery: usize) -> impl Iterator<Item = f64> {
    let last = if right == 0 || right > gallery { 0 } else { gallery - right + 1 };
    let mut probability = right as f64 / gallery.max(1) as f64;
    (1..=last).map(move |rank| {
        let this = probability;
        if rank < last {
            probability *= (gallery - rank - right + 1) as f64 / (gallery - rank) as f64;
        }
        this
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls `look` with every set of places that `right` answers can take among `gallery`.
    fn every_order(right: usize, gallery: usize, mut look: impl FnMut(&[usize])) -> f64 {
        let mut orders = 0.0;
        for set in 0u32..1 << gallery {
            if set.count_ones() as usize == right {
                let places: Vec<usize> = (1..=gallery).filter(|i| set >> (i - 1) & 1 == 1).collect();
                look(&places);
                orders += 1.0;
            }
        }
        orders
    }

    #[test]
    fn chance_is_the_mean_over_all_orders() {
        for gallery in 1..=9 {
            for right in 1..=gallery {
                let (mut recall, mut reciprocal, mut precision) = ([0.0; 10], 0.0, 0.0);
                let mut first_ranks = Vec::new();
                let orders = every_order(right, gallery, |places| {
                    (0..10).for_each(|k| recall[k] += f64::from(u8::from(places[0] <= k)));
                    reciprocal += 1.0 / places[0] as f64;
                    let hits = (1..).zip(places).map(|(hit, &place)| f64::from(hit) / place as f64);
                    precision += hits.sum::<f64>() / right as f64;
                    first_ranks.push(places[0]);
                });
                for (k, recall) in recall.iter().enumerate() {
                    assert!((chance_at(k, right, gallery) - recall / orders).abs() < 1e-12);
                }
                assert!((reciprocal_rank_chance(right, gallery) - reciprocal / orders).abs() < 1e-12);
                assert!((average_precision_chance(right, gallery) - precision / orders).abs() < 1e-12);
                first_ranks.sort_unstable();
                let n = first_ranks.len();
                let median = (first_ranks[(n - 1) / 2] + first_ranks[n / 2]) as f64 / 2.0;
                assert_eq!(median_rank_chance(&[(right, 3)], gallery), median, "{right} of {gallery}");
            }
        }
    }

    #[test]
    fn known_values() {
        // C(3, 2) / C(5, 2) = 3 / 10.
        assert!((chance_at(2, 2, 5) - 0.7).abs() < 1e-12);
        assert!((chance_at(10, 1, 1000) - 0.01).abs() < 1e-12);
        assert_eq!((chance_at(4, 2, 5), chance_at(9, 1, 3), chance_at(3, 0, 5)), (1.0, 1.0, 0.0));
        assert_eq!(chance_at(9, 0, 5), 0.0);
        // (1 + 1/2 + 1/3 + 1/4) / 4.
        assert!((reciprocal_rank_chance(1, 4) - 25.0 / 48.0).abs() < 1e-12);
        assert!((average_precision_chance(1, 4) - 25.0 / 48.0).abs() < 1e-12);
        assert_eq!((reciprocal_rank_chance(0, 4), average_precision_chance(0, 4)), (0.0, 0.0));
        assert_eq!(median_rank_chance(&[(1, 7)], 1000), 500.5);
        // Half of the queries are always answered first, the others at 1 to 10.
        assert_eq!(median_rank_chance(&[(10, 1), (1, 1)], 10), 1.0);
    }

    #[test]
    fn large_galleries_stay_accurate() {
        let harmonic: f64 = (1..=100_000).map(|i| 1.0 / f64::from(i)).sum::<f64>() / 1e5;
        assert!((reciprocal_rank_chance(1, 100_000) - harmonic).abs() < 1e-12);
        // The probabilities of a fifth of the gallery fall off quickly and must not go below zero.
        assert!((reciprocal_rank_chance(20_000, 100_000) - 0.402_36).abs() < 1e-4);
    }
}
