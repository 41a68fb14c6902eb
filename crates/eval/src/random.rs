//! Numbers from a seed: the same on every machine and with every version of this program.

/// SplitMix64 (Steele, Lea and Flood, 2014).
pub(crate) struct Random(u64);

impl Random {
    /// Independent numbers for each `stream` of one seed.
    pub fn new(seed: u64, stream: u64) -> Self {
        // The state of a stream is an output of the seed's own sequence, so that neighbouring seeds
        // and streams do not run along one another.
        let mut state = Self(seed);
        let base = state.next();
        Self(Self(base ^ stream.wrapping_mul(0xd134_2543_de82_ef95)).next())
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is at least 1, each equally likely (Lemire, 2019).
    pub fn below(&mut self, n: usize) -> usize {
        let n = n as u64;
        let mut product = u128::from(self.next()) * u128::from(n);
        if (product as u64) < n {
            let threshold = n.wrapping_neg() % n;
            while (product as u64) < threshold {
                product = u128::from(self.next()) * u128::from(n);
            }
        }
        (product >> 64) as usize
    }

    /// Every order equally likely.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_and_every_order_comes_up_equally_often() {
        let mut random = Random::new(1, 0);
        let mut counts = [0u32; 7];
        (0..70_000).for_each(|_| counts[random.below(7)] += 1);
        // Four standard deviations.
        assert!(counts.iter().all(|&c| c.abs_diff(10_000) < 372), "{counts:?}");
        let mut orders = std::collections::HashMap::new();
        for _ in 0..24_000 {
            let mut items = [0, 1, 2, 3];
            random.shuffle(&mut items);
            *orders.entry(items).or_insert(0u32) += 1;
        }
        assert_eq!(orders.len(), 24);
        assert!(orders.values().all(|&c| c.abs_diff(1000) < 130), "{orders:?}");
    }

    #[test]
    fn streams_and_seeds_differ() {
        let first = |seed, stream| Random::new(seed, stream).next();
        let mut seen: Vec<u64> = (0..100).flat_map(|s| (0..100).map(move |t| first(s, t))).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 10_000);
    }
}
