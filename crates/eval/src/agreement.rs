//! Agreement of what was found with what is true: counts, and precision, recall and F1 of them.

/// Answers that were right, wrong and missed. They add up.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Agreement {
    /// True and found.
    pub right: usize,
    /// Found, not true.
    pub wrong: usize,
    /// True, not found.
    pub missed: usize,
}

impl Agreement {
    /// Counts one answer.
    pub fn count(&mut self, is_true: bool, is_found: bool) {
        self.right += usize::from(is_true && is_found);
        self.wrong += usize::from(!is_true && is_found);
        self.missed += usize::from(is_true && !is_found);
    }

    /// The share of what was found that is true; `None` where nothing was found.
    pub fn precision(self) -> Option<f64> {
        share(self.right, self.right + self.wrong)
    }

    /// The share of what is true that was found; `None` where nothing is true.
    pub fn recall(self) -> Option<f64> {
        share(self.right, self.right + self.missed)
    }

    /// The harmonic mean of both; `None` where nothing is true and nothing was found.
    pub fn f1(self) -> Option<f64> {
        share(2 * self.right, 2 * self.right + self.wrong + self.missed)
    }
}

impl std::ops::AddAssign for Agreement {
    fn add_assign(&mut self, other: Self) {
        self.right += other.right;
        self.wrong += other.wrong;
        self.missed += other.missed;
    }
}

fn share(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_are_those_of_the_definitions() {
        let mut counts = Agreement::default();
        for (is_true, is_found) in [(true, true), (true, true), (true, false), (false, true), (false, false)]
        {
            counts.count(is_true, is_found);
        }
        counts += Agreement { right: 1, wrong: 0, missed: 1 };
        assert_eq!(counts, Agreement { right: 3, wrong: 1, missed: 2 });
        assert_eq!(
            (counts.precision(), counts.recall(), counts.f1()),
            (Some(0.75), Some(0.6), Some(6.0 / 9.0))
        );
        let none = Agreement::default();
        assert_eq!((none.precision(), none.recall(), none.f1()), (None, None, None));
    }
}
