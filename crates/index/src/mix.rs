//! Numbers without pattern that are the same in every run.
//!
//! Owns: one mixing function. Files depend on it: another one would read them as noise.

/// A number from a counter: the finaliser of SplitMix64 (Steele, Lea, Flood 2014).
pub(crate) fn mix(counter: u64) -> u64 {
    let mut z = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::mix;

    #[test]
    fn the_numbers_never_change() {
        let known = [0, 0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f];
        assert_eq!([0, 1, 2, 3].map(mix), known);
    }
}
