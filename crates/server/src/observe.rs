//! What every request tells about itself: one layer around all services, for metrics and logs.
//!
//! The layer gives each request an id, knows its method, and sees its end, whichever way it comes: a
//! status in the head or the trailers, a client that leaves, a deadline. What only a handler knows,
//! such as the times of a search, it says through [`Observed::current`].
//! Deliberately absent: content. Nothing here sees a message, and nothing of one can be logged here.

mod body;
mod method;
mod work;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tonic::body::Body;
use tower_layer::Layer;
use tower_service::Service;
use tracing::Instrument;

use crate::Metrics;
use body::ObservedBody;
use method::Methods;
pub(crate) use work::Observed;
use work::{Unfinished, Work};

/// Where a client may say an id for a request, and where it reads the id that the request has.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REQUEST_ID_CHARS_MAX: usize = 64;

/// The id of a request, for whoever writes about it; an extension of every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestId(Arc<str>);

impl RequestId {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The client's id, if it is a plain and short one; else a new one. Ids stand in logs, so they
    /// must not become a way to write there.
    fn of(headers: &HeaderMap, made: impl FnOnce() -> u64) -> Self {
        let plain = |id: &&str| {
            (1..=REQUEST_ID_CHARS_MAX).contains(&id.len())
                && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
        };
        match headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(plain) {
            Some(id) => Self(id.into()),
            None => Self(format!("{:016x}", made()).into()),
        }
    }
}

/// What there is to know for all requests.
#[derive(Clone)]
pub(crate) struct ObserveLayer {
    shared: Arc<Shared>,
}

struct Shared {
    metrics: Metrics,
    methods: Methods,
    /// Requests that take longer are logged.
    slow: Option<Duration>,
    /// Longest time to the head of an answer.
    timeout: Duration,
    ids: std::hash::RandomState,
    requests: std::sync::atomic::AtomicU64,
}

impl ObserveLayer {
    pub(crate) fn new(metrics: Metrics, slow: Option<Duration>, timeout: Duration) -> Self {
        let shared = Shared {
            metrics,
            methods: Methods::known(),
            slow,
            timeout,
            ids: std::hash::RandomState::new(),
            requests: std::sync::atomic::AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared) }
    }
}

impl Shared {
    /// A number that no other request of this server has, and that tells nothing.
    fn made_id(&self) -> u64 {
        use std::hash::BuildHasher;
        self.ids.hash_one(self.requests.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
    }
}

impl<S> Layer<S> for ObserveLayer {
    type Service = Observe<S>;

    fn layer(&self, inner: S) -> Observe<S> {
        Observe { inner, shared: Arc::clone(&self.shared) }
    }
}

/// A service under observation.
#[derive(Clone)]
pub(crate) struct Observe<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> Service<Request<Body>> for Observe<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let shared = &self.shared;
        let id = RequestId::of(request.headers(), || shared.made_id());
        let method = shared.methods.of(request.uri().path());
        let timeout = grpc_timeout(request.headers()).map_or(shared.timeout, |t| t.min(shared.timeout));
        let echo = HeaderValue::from_str(id.as_str()).expect("an id has plain characters only");
        let work = Arc::new(Work::new(shared.metrics.clone(), method, &id, shared.slow));
        let unfinished = Unfinished::new(Arc::clone(&work), timeout);
        request.extensions_mut().insert(id);
        let answered = self.inner.call(request);
        let observed = async move {
            let response = answered.await?;
            let (mut head, body) = response.into_parts();
            head.headers.insert(REQUEST_ID, echo);
            let body = ObservedBody::of(&head, body, unfinished);
            Ok(Response::from_parts(head, body))
        };
        let span = work.span().clone();
        Box::pin(Observed::scope(work, observed).instrument(span))
    }
}

/// What the client has left of its patience: `grpc-timeout`, up to eight digits and a unit.
fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    let amount: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(3600 * amount),
        "M" => Duration::from_secs(60 * amount),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn a_plain_id_is_kept_and_any_other_is_replaced() {
        let id = |value: &str| RequestId::of(&headers("x-request-id", value), || 10).as_str().to_owned();
        assert_eq!(id("job-7.a:B_2"), "job-7.a:B_2");
        assert_eq!(id(&"a".repeat(64)), "a".repeat(64));
        for odd in ["", "two words", "\"quoted\"", "Müller", "a/b", &"a".repeat(65)] {
            assert_eq!(id(odd), "000000000000000a", "{odd:?}");
        }
        assert_eq!(RequestId::of(&HeaderMap::new(), || 10).as_str(), "000000000000000a");
    }

    #[test]
    fn the_clients_patience_is_read_as_grpc_writes_it() {
        let timeout = |value: &str| grpc_timeout(&headers("grpc-timeout", value));
        assert_eq!(timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(timeout("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(timeout("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for wrong in ["", "5", "5x", "-5m", "123456789m", "m"] {
            assert_eq!(timeout(wrong), None, "{wrong:?}");
        }
    }
}
