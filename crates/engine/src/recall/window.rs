//! The latest recalls of a kind, their mean and how sure that mean is.

use std::collections::VecDeque;

/// Share of the neighbours that one more query is imagined to have missed. Without it, a run of
/// perfect answers would claim certainty, however short it is.
const MISSED: f64 = 0.1;
/// Standard errors on either side of a 95 % interval.
const Z: f64 = 1.96;

/// A mean recall with its 95 % confidence interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// The lower end of the interval, at least 0.
    pub low: f64,
    /// The upper end of the interval, at most 1.
    pub high: f64,
    /// Queries it is the mean of.
    pub queries: usize,
}

/// At most a fixed number of the latest recalls.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    recalls: VecDeque<f64>,
    capacity: usize,
}

impl Window {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { recalls: VecDeque::new(), capacity: capacity.max(1) }
    }

    pub(crate) fn push(&mut self, recall: f64) {
        if self.recalls.len() == self.capacity {
            self.recalls.pop_front();
        }
        self.recalls.push_back(recall);
    }

    pub(crate) fn len(&self) -> usize {
        self.recalls.len()
    }

    /// The mean and its normal interval; `None` when there is nothing yet. Queries, not neighbours,
    /// are what was drawn, so the spread is that between queries. The interval is that of the sample
    /// and one imagined query that missed a tenth of its neighbours.
    pub(crate) fn estimate(&self) -> Option<Estimate> {
        if self.recalls.is_empty() {
            return None;
        }
        let n = self.recalls.len() as f64;
        let sum: f64 = self.recalls.iter().sum();
        let center = (sum + 1.0 - MISSED) / (n + 1.0);
        let squares = |recall: f64| (recall - center).powi(2);
        let spread = self.recalls.iter().copied().map(squares).sum::<f64>() + squares(1.0 - MISSED);
        let error = Z * (spread / n / (n + 1.0)).sqrt();
        let mean = sum / n;
        Some(Estimate {
            mean,
            low: (center - error).clamp(0.0, mean),
            high: (center + error).clamp(mean, 1.0),
            queries: self.recalls.len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate(recalls: &[f64]) -> Estimate {
        let mut window = Window::new(1000);
        recalls.iter().for_each(|&recall| window.push(recall));
        window.estimate().expect("not empty")
    }

    #[test]
    fn more_queries_make_surer_and_perfection_is_never_certain() {
        assert_eq!(Window::new(4).estimate(), None);
        let one = estimate(&[1.0]);
        assert!(one.mean == 1.0 && one.low < 0.9 && one.high == 1.0, "{one:?}");
        let perfect = estimate(&[1.0; 64]);
        assert!(perfect.low > 0.99 && perfect.low < 0.999, "{perfect:?}");
        // Half of the queries at .9, half at 1: sd .05, so 1.96 × .05 / √400 on either side.
        let mixed: Vec<f64> = (0..400).map(|n| if n % 2 == 0 { 0.9 } else { 1.0 }).collect();
        let mixed = estimate(&mixed);
        assert!((mixed.mean - 0.95).abs() < 1e-9);
        assert!((mixed.low - 0.945).abs() < 5e-4 && (mixed.high - 0.955).abs() < 5e-4, "{mixed:?}");
        let none = estimate(&[0.0; 8]);
        assert!(none.mean == 0.0 && none.low == 0.0 && none.high > 0.0, "{none:?}");
    }

    #[test]
    fn only_the_latest_count() {
        let mut window = Window::new(3);
        [0.0, 0.0, 0.5, 0.5, 0.5].into_iter().for_each(|recall| window.push(recall));
        let estimate = window.estimate().expect("not empty");
        assert_eq!((estimate.mean, estimate.queries, window.len()), (0.5, 3, 3));
    }
}
