//! What one key may ask of the server: so many requests in a second, so many at a time.
//!
//! Deliberately absent: the bound on all requests together, which is the service's own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Bounds for each key; whoever needs no key counts as one.
#[derive(Debug, Clone, Default)]
pub struct KeyLimits {
    /// Requests in a second, on average; without bound when `None`.
    pub requests_per_second: Option<f64>,
    /// Requests that may come at once after a pause; as many as in a second when `None`, at least one.
    pub burst: Option<u32>,
    /// Requests in work at a time; without bound when `None`. A stream is one request until it ends.
    pub in_work_max: Option<usize>,
}

/// What to wait when too much is in work: nobody can know when some of it ends.
const IN_WORK_RETRY: Duration = Duration::from_millis(100);

/// Tokens that come back at a steady rate up to a bound; a request takes one.
#[derive(Debug)]
pub(super) struct TokenBucket {
    per_second: f64,
    burst: f64,
    tokens: f64,
    at: Instant,
}

impl TokenBucket {
    pub(super) fn new(per_second: f64, burst: f64, now: Instant) -> Self {
        Self { per_second, burst, tokens: burst, at: now }
    }

    /// Takes a token, or says how long it takes until there is one.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let passed = now.saturating_duration_since(self.at);
        self.at = self.at.max(now);
        self.tokens = (self.tokens + passed.as_secs_f64() * self.per_second).min(self.burst);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::try_from_secs_f64((1.0 - self.tokens) / self.per_second).unwrap_or(Duration::MAX))
    }
}

/// What is known of one key's requests.
struct Share {
    bucket: Option<Mutex<TokenBucket>>,
    in_work: Option<Arc<Semaphore>>,
}

pub(super) struct Limits {
    options: KeyLimits,
    /// By key id. Only keys of the file get in here, so there are no more of them than there.
    shares: Mutex<HashMap<String, Arc<Share>>>,
}

impl Limits {
    pub(super) fn new(options: KeyLimits) -> Self {
        Self { options, shares: Mutex::default() }
    }

    /// Lets a request of a key in; what is returned is to be held until it is done.
    pub(super) fn admit(&self, id: &str, now: Instant) -> Result<Option<OwnedSemaphorePermit>, Status> {
        if self.options.requests_per_second.is_none() && self.options.in_work_max.is_none() {
            return Ok(None);
        }
        let share = self.share(id, now);
        let permit = match &share.in_work {
            Some(in_work) => Some(Arc::clone(in_work).try_acquire_owned().map_err(|_| self.too_many())?),
            None => None,
        };
        if let Some(bucket) = &share.bucket {
            let taken = bucket.lock().unwrap_or_else(PoisonError::into_inner).take(now);
            taken.map_err(|wait| self.too_fast(wait))?;
        }
        Ok(permit)
    }

    fn share(&self, id: &str, now: Instant) -> Arc<Share> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.get(id) {
            return Arc::clone(share);
        }
        let bucket = self.options.requests_per_second.map(|rate| {
            let burst = self.options.burst.map_or(rate.ceil(), f64::from).max(1.0);
            Mutex::new(TokenBucket::new(rate, burst, now))
        });
        let in_work = self.options.in_work_max.map(|max| Arc::new(Semaphore::new(max)));
        let share = Arc::new(Share { bucket, in_work });
        shares.insert(id.to_owned(), Arc::clone(&share));
        share
    }

    fn too_many(&self) -> Status {
        let max = self.options.in_work_max.unwrap_or_default();
        let message = format!(
            "{max} requests of this key are in work, which is the most at a time; wait for one to end, and retry after a short, growing pause"
        );
        refused(message, IN_WORK_RETRY)
    }

    fn too_fast(&self, wait: Duration) -> Status {
        let rate = self.options.requests_per_second.unwrap_or_default();
        let message = format!(
            "this key may make {rate} requests per second and has made more; retry in {:.3} s, and spread requests out",
            wait.as_secs_f64()
        );
        refused(message, wait)
    }
}

fn refused(message: String, wait: Duration) -> Status {
    Status::with_error_details(Code::ResourceExhausted, message, ErrorDetails::with_retry_info(Some(wait)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn tokens_come_back_at_the_rate_and_no_more_than_the_burst() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(2.0, 3.0, start);
        for _ in 0..3 {
            assert_eq!(bucket.take(start), Ok(()));
        }
        assert_eq!(bucket.take(start), Err(Duration::from_millis(500)));
        assert_eq!(bucket.take(start + Duration::from_millis(250)), Err(Duration::from_millis(250)));
        assert_eq!(bucket.take(start + Duration::from_millis(500)), Ok(()));
        let later = start + Duration::from_secs(3600);
        assert_eq!((0..10).filter(|_| bucket.take(later).is_ok()).count(), 3);
        // A clock that is read on another core may lie a little behind.
        assert!(bucket.take(start).is_err());
    }

    #[test]
    fn each_key_has_a_share_of_its_own_and_is_told_when_to_come_back() {
        let now = Instant::now();
        let limits =
            Limits::new(KeyLimits { requests_per_second: Some(0.5), burst: None, in_work_max: None });
        assert!(limits.admit("a", now).is_ok());
        let status = limits.admit("a", now).unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(status.message().contains("retry in 2.000 s"), "{}", status.message());
        let retry = status.get_details_retry_info().unwrap();
        assert_eq!(retry.retry_delay, Some(Duration::from_secs(2)));
        assert!(limits.admit("b", now).is_ok());
        assert!(limits.admit("a", now + Duration::from_secs(2)).is_ok());
    }

    #[test]
    fn a_place_is_free_again_when_it_is_given_back() {
        let now = Instant::now();
        let limits = Limits::new(KeyLimits { in_work_max: Some(2), ..KeyLimits::default() });
        let first = limits.admit("a", now).unwrap();
        let _second = limits.admit("a", now).unwrap();
        let status = limits.admit("a", now).unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(status.get_details_retry_info().is_some());
        assert!(limits.admit("b", now).is_ok());
        drop(first);
        assert!(limits.admit("a", now).is_ok());
    }

    #[test]
    fn without_limits_nothing_is_counted() {
        let limits = Limits::new(KeyLimits::default());
        let now = Instant::now();
        assert!((0..1000).all(|_| limits.admit("a", now).unwrap().is_none()));
    }
}
