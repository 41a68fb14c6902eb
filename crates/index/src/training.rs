//! Queries to teach segments about.
//!
//! Owns: a bounded, fair sample of all that were noted. Deliberately absent: where they come from.

use diptych_core::Embedding;

use crate::mix::mix;

/// Most queries kept.
const KEPT: usize = 8_192;

/// A reservoir: every query noted so far is in it with the same probability (Vitter 1985, algorithm R).
#[derive(Debug, Default)]
pub(crate) struct Training {
    queries: Vec<Embedding>,
    noted: u64,
}

impl Training {
    /// Notes a query; returns how many there were with it.
    pub(crate) fn note(&mut self, query: &Embedding) -> u64 {
        self.noted += 1;
        if self.queries.len() < KEPT {
            self.queries.push(query.clone());
        } else {
            let place = mix(self.noted) % self.noted;
            if let Some(kept) = usize::try_from(place).ok().and_then(|place| self.queries.get_mut(place)) {
                *kept = query.clone();
            }
        }
        self.noted
    }

    /// Queries ever noted.
    pub(crate) fn noted(&self) -> u64 {
        self.noted
    }

    /// The sample.
    pub(crate) fn queries(&self) -> &[Embedding] {
        &self.queries
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_sample_is_bounded_and_fair_to_early_and_late_queries() {
        let mut training = Training::default();
        let total = 4 * KEPT;
        for n in 0..total {
            let angle = n as f32 / total as f32;
            training.note(&Embedding::new([angle.cos(), angle.sin()]).unwrap());
        }
        assert_eq!((training.noted(), training.queries().len()), (total as u64, KEPT));
        let half = training.queries().iter().filter(|q| q.as_slice()[1] < 0.5f32.sin()).count();
        assert!((half as f64 / KEPT as f64 - 0.5).abs() < 0.02, "{half} of {KEPT} are of the first half");
    }
}
