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
pub(crate) use body::{code_of, follow};
use method::Methods;
pub(crate) use work::Observed;
use work::{Unfinished, Work};

/// Where a client may say an id for a request, and where it reads the id that the request has.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
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
    pub(crate) fn of(headers: &HeaderMap, made: impl FnOnce() -> u64) -> Self {
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
            let body = follow(&head.headers, body, |code| unfinished.finish(code));
            Ok(Response::from_parts(head, body))
        };
        let span = work.span().clone();
        Box::pin(Observed::scope(work, observed).instrument(span))
    }
}

/// What the client has left of its patience: `grpc-timeout`, up to eight digits and a unit. `None` for anything else,
/// which counts as no deadline.
pub(crate) fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
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

/// Whole microseconds.
pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
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
        assert_eq!(timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(timeout("0n"), Some(Duration::ZERO));
        for wrong in ["", "5", "5x", "-5m", "+5m", "1.5S", "5\u{e9}", "123456789m", "m"] {
            assert_eq!(timeout(wrong), None, "{wrong:?}");
        }
    }

    /// Answers as it is told by the path: never, in the head, with trailers, or with a body without end.
    #[derive(Clone)]
    struct Scripted;

    impl Service<Request<Body>> for Scripted {
        type Response = Response<Body>;
        type Error = std::convert::Infallible;
        type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Self::Error>> + Send>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<Body>) -> Self::Future {
            assert!(request.extensions().get::<RequestId>().is_some());
            Box::pin(async move {
                let headers = |code| HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), code)]);
                match request.uri().path() {
                    "/diptych.v1.RetrievalService/Search" => std::future::pending().await,
                    "/diptych.v1.RetrievalService/GetRecord" => {
                        let mut response = Response::new(Body::empty());
                        *response.headers_mut() = headers(HeaderValue::from_static("5"));
                        Ok(response)
                    }
                    _ => {
                        Observed::current().run(|| ());
                        let trailers = headers(HeaderValue::from_static("0"));
                        let body = http_body_util::Full::new(bytes::Bytes::from_static(b"hit"));
                        let body = http_body_util::BodyExt::with_trailers(body, async { Some(Ok(trailers)) });
                        Ok(Response::new(Body::new(body)))
                    }
                }
            })
        }
    }

    fn observed(timeout: Duration) -> (Metrics, Observe<Scripted>) {
        let metrics = Metrics::default();
        (metrics.clone(), ObserveLayer::new(metrics, None, timeout).layer(Scripted))
    }

    fn request(method: &str) -> Request<Body> {
        let path = format!("/diptych.v1.RetrievalService/{method}");
        Request::builder().uri(path).body(Body::empty()).unwrap()
    }

    fn count(metrics: &Metrics, method: &str, code: &str) -> bool {
        let labels = format!("method=\"diptych.v1.RetrievalService/{method}\",code=\"{code}\"");
        metrics.page().contains(&format!("diptych_requests_total{{{labels}}} 1\n"))
    }

    #[tokio::test]
    async fn a_request_ends_with_its_status_wherever_that_stands() {
        let (metrics, mut service) = observed(Duration::MAX);
        let response = service.call(request("GetRecord")).await.unwrap();
        assert_eq!(response.headers()[REQUEST_ID].len(), 16);
        assert!(count(&metrics, "GetRecord", "NOT_FOUND"), "{}", metrics.page());

        let response = service.call(request("Stats")).await.unwrap();
        assert!(metrics.page().contains("diptych_requests_in_work 1\n"), "the trailers are still to come");
        let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap();
        assert_eq!(body.to_bytes(), "hit");
        assert!(count(&metrics, "Stats", "OK"), "{}", metrics.page());
        assert!(metrics.page().contains("diptych_requests_in_work 0\n"));
        assert!(metrics.page().contains("stage=\"admission\"} 1\n"), "{}", metrics.page());
    }

    #[test]
    fn a_request_that_is_given_up_is_cancelled_or_out_of_time() {
        for (timeout, code) in [(Duration::MAX, "CANCELLED"), (Duration::ZERO, "DEADLINE_EXCEEDED")] {
            let (metrics, mut service) = observed(timeout);
            drop(service.call(request("Search")));
            assert!(count(&metrics, "Search", code), "{code}: {}", metrics.page());
        }
    }
}
