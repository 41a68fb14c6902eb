//! When a call that failed is made again.
//!
//! Owns: the policy, and the draws of its delays. Deliberately absent: whether a call may be repeated at all, and the
//! waiting; the clock is tokio's.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::Error;

/// How calls are repeated while the server cannot be reached or has too much to do.
///
/// Before attempt n + 1 the client waits between 0 and `first_delay * 2^(n - 1)`, evenly drawn ("full jitter"), at most
/// `max_delay`. Where the server names a delay, it waits that long and up to a quarter longer, so that clients refused
/// together do not come back together. A wait that would end after the timeout, or for a named delay that is longer than
/// `max_named_delay`, is not begun: the error is told instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all; 1 for no repetition, and 0 counts as 1.
    pub attempts: u32,
    /// The most before the second attempt.
    pub first_delay: Duration,
    /// The most before any attempt, unless the server names a longer delay.
    pub max_delay: Duration,
    /// The longest delay named by the server that is waited for.
    pub max_named_delay: Duration,
    /// Seed of the draws, for tests; from the system when absent.
    pub seed: Option<u64>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 4,
            first_delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(5),
            max_named_delay: Duration::from_secs(30),
            seed: None,
        }
    }
}

impl RetryPolicy {
    /// One attempt and no more.
    pub fn never() -> Self {
        Self { attempts: 1, ..Self::default() }
    }
}

/// A policy at work.
#[derive(Debug)]
pub(crate) struct Retry {
    policy: RetryPolicy,
    draws: Mutex<StdRng>,
}

impl Retry {
    pub(crate) fn new(policy: RetryPolicy) -> Self {
        let draws = policy.seed.map_or_else(rand::make_rng, StdRng::seed_from_u64);
        Self { policy, draws: Mutex::new(draws) }
    }

    /// What to wait before the next attempt; `None` when the error is to be told. `left` is what remains of the
    /// timeout.
    pub(crate) fn delay(&self, error: &Error, made: u32, left: Option<Duration>) -> Option<Duration> {
        if made >= self.policy.attempts || !error.is_retryable() {
            return None;
        }
        let share: f64 = self.draws.lock().unwrap_or_else(PoisonError::into_inner).random();
        let delay = match error.retry_after() {
            Some(named) if named > self.policy.max_named_delay => return None,
            Some(named) => named.saturating_add(named.mul_f64(share / 4.0)),
            None => {
                let doubled = self.policy.first_delay.saturating_mul(1 << (made.saturating_sub(1)).min(30));
                doubled.min(self.policy.max_delay).mul_f64(share)
            }
        };
        left.is_none_or(|left| delay < left).then_some(delay)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tonic::Code;

    use super::*;

    fn busy(retry_after: Option<Duration>) -> Error {
        let message = "busy".to_owned();
        Error::Status { code: Code::ResourceExhausted, message, request_id: None, retry_after }
    }

    #[test]
    fn delays_grow_are_drawn_and_bounded() {
        let policy = RetryPolicy { attempts: 40, seed: Some(7), ..RetryPolicy::default() };
        let retry = Retry::new(policy.clone());
        let drawn: Vec<Duration> =
            (1..40).map(|made| retry.delay(&busy(None), made, None).unwrap()).collect();
        for (n, delay) in (0..).zip(&drawn) {
            let bound = Duration::from_millis(100 << n.min(10)).min(policy.max_delay);
            assert!(*delay <= bound, "{delay:?} of {bound:?}");
        }
        assert!(drawn[20..].iter().any(|delay| *delay > Duration::from_secs(3)), "{drawn:?}");
        assert!(drawn[20..].iter().any(|delay| *delay < Duration::from_secs(2)), "{drawn:?}");
        let again = Retry::new(policy);
        assert_eq!(again.delay(&busy(None), 1, None), Some(drawn[0]), "a seed decides the draws");
        assert_eq!(retry.delay(&busy(None), 40, None), None);
    }

    #[test]
    fn a_named_delay_counts_and_a_late_one_is_not_begun() {
        let retry = Retry::new(RetryPolicy::default());
        let second = Duration::from_secs(1);
        for _ in 0..50 {
            let delay = retry.delay(&busy(Some(second)), 1, None).unwrap();
            assert!((second..=second + second / 4).contains(&delay), "{delay:?}");
        }
        assert_eq!(retry.delay(&busy(Some(second)), 1, Some(second / 2)), None);
        assert_eq!(retry.delay(&busy(Some(31 * second)), 1, None), None);
        assert_eq!(retry.delay(&Error::request("wrong"), 1, None), None);
        assert_eq!(Retry::new(RetryPolicy::never()).delay(&busy(None), 1, None), None);
    }
}
