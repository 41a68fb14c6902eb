//! The door: every request of every service passes here before anything else sees it.
//!
//! In this order: can it be recorded, who is it, may they call this, are they within their limits.
//! Then the answer is waited for, until the deadline of the client or the server's own.
//! What an RPC needs is in `roles`; which collections a key is for is asked in `scoped`, where the
//! request has been read.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, HeaderValue, Request, Response};
use tonic::body::Body;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Status};
use tower_layer::Layer;
use tower_service::Service;

use super::Gate;
use super::caller::{Arrival, CALLER, Caller, deadline_exceeded};
use super::keyfile::KeyRecord;
use super::keyring::{Badge, Rejected};
use super::roles::{Access, Rule, rule};
use crate::observe::{REQUEST_ID, RequestId, code_of, follow, grpc_timeout};

/// Where a request carries its key.
const AUTHORIZATION: &str = "authorization";
/// Stands for a time that no clock can tell.
const TIMEOUT_MAX: Duration = Duration::from_secs(365 * 86_400);

/// Puts the guard in front of services.
#[derive(Clone)]
pub(crate) struct GuardLayer {
    pub(super) gate: Arc<Gate>,
    /// Longest time to the first byte of an answer.
    pub(super) timeout: Duration,
}

impl<S> Layer<S> for GuardLayer {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard { layer: self.clone(), inner }
    }
}

/// Services behind the guard.
#[derive(Clone)]
pub(crate) struct Guard<S> {
    layer: GuardLayer,
    inner: S,
}

impl<S> Service<Request<Body>> for Guard<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let ready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, ready);
        let GuardLayer { gate, timeout } = self.layer.clone();
        // Taken before the transport takes its own time, so that it is this deadline that is met:
        // the transport would say that the client has left.
        let at = Instant::now();
        Box::pin(async move {
            let id = request_id(&request);
            let echo = HeaderValue::from_str(&id).ok();
            let (method, rule) = rule(request.uri().path());
            let deadline = deadline(request.headers(), at);
            let admitted = gate.admit(&request, Arrival { id, method, peer: None, at, deadline }, rule);
            // The key has done its work; nothing behind the guard has a use for it.
            request.headers_mut().remove(AUTHORIZATION);
            if let Some(id) = &echo {
                request.headers_mut().insert(REQUEST_ID, id.clone());
            }
            let mut response = match admitted {
                Err(status) => status.into_http(),
                Ok(ticket) => {
                    let answer = CALLER.scope(ticket.0.clone(), inner.call(request));
                    let bounds = [deadline, at.checked_add(timeout)];
                    let until = bounds.into_iter().flatten().min().unwrap_or(at + TIMEOUT_MAX);
                    match tokio::time::timeout_at(until.into(), answer).await {
                        Ok(response) => ticket.settle(rule, response?),
                        Err(_) => ticket.refuse(deadline_exceeded()),
                    }
                }
            };
            if let Some(id) = echo {
                response.headers_mut().insert(REQUEST_ID, id);
            }
            Ok(response)
        })
    }
}

impl Gate {
    /// Lets a request in, or says why not; either is in the audit log.
    fn admit(&self, request: &Request<Body>, mut arrival: Arrival, rule: Rule) -> Result<Ticket, Status> {
        let peer = request.extensions().get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
        arrival.peer = peer.map(|peer| peer.to_string());
        let (at, method) = (arrival.at, arrival.method);
        let audit = self.audit.as_ref().filter(|_| rule.access == Access::Data).map(Arc::clone);
        if let Some(audit) = &audit {
            audit.ready(at).map_err(|_| super::audit::unavailable())?;
        }
        let near = peer.is_some_and(|peer| peer.ip().is_loopback());
        let (badge, place) = match self.recognise(request.headers(), rule, near) {
            Err(rejected) => {
                let caller = Caller::new(
                    arrival,
                    rejected.key().cloned().and_then(|key| self.badge(key)),
                    audit,
                    None,
                );
                caller.ended(Code::Unauthenticated)?;
                return Err(rejected.status());
            }
            Ok(key) => {
                let place = self.within_bounds(key.as_deref(), method, rule, at);
                let badge = key.and_then(|key| self.badge(key));
                match place {
                    Ok(place) => (badge, place),
                    Err(status) => {
                        Caller::new(arrival, badge, audit, None).ended(status.code())?;
                        return Err(status);
                    }
                }
            }
        };
        let ticket = Ticket(Caller::new(arrival, badge, audit, place));
        if rule.streams {
            ticket.0.begun()?;
        }
        Ok(ticket)
    }

    /// The key of a request; `None` where none is needed.
    fn recognise(
        &self,
        headers: &HeaderMap,
        rule: Rule,
        near: bool,
    ) -> Result<Option<Arc<KeyRecord>>, Rejected> {
        let Some(keys) = &self.keys else { return Ok(None) };
        if rule.access == Access::Health && near {
            return Ok(None);
        }
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let value = values.next().ok_or(Rejected::Absent)?;
        if values.next().is_some() {
            return Err(Rejected::Malformed);
        }
        let value = value.to_str().map_err(|_| Rejected::Malformed)?;
        keys.authenticate(value, SystemTime::now()).map(Some)
    }

    fn badge(&self, key: Arc<KeyRecord>) -> Option<Badge> {
        self.keys.as_ref().map(|ring| Badge { key, ring: Arc::clone(ring) })
    }

    fn within_bounds(
        &self,
        key: Option<&KeyRecord>,
        method: &'static str,
        rule: Rule,
        now: Instant,
    ) -> Result<Option<tokio::sync::OwnedSemaphorePermit>, Status> {
        if let Some(key) = key
            && key.role < rule.role
        {
            return Err(Status::permission_denied(format!(
                "the API key '{}' has the role {}, and {method} needs {}; use another key: an administrator makes one with `diptych keys create --role {}`",
                key.name, key.role, rule.role, rule.role
            )));
        }
        if rule.access != Access::Data {
            return Ok(None);
        }
        self.limits.admit(key.map_or("", |key| &key.id), now)
    }
}

/// A request that was let in, and whose end is still to be recorded.
struct Ticket(Caller);

impl Ticket {
    fn settle(self, rule: Rule, response: Response<Body>) -> Response<Body> {
        match code_of(response.headers()) {
            None if rule.streams => {
                let (head, body) = response.into_parts();
                let body = follow(&head.headers, body, move |code| {
                    // The stream is over; what it gave was announced by the line of its beginning.
                    let _ = self.0.ended(code);
                });
                Response::from_parts(head, body)
            }
            code => match self.0.ended(code.unwrap_or(Code::Ok)) {
                Ok(()) => response,
                // What cannot be recorded is not given out.
                Err(status) => status.into_http(),
            },
        }
    }

    fn refuse(self, status: Status) -> Response<Body> {
        self.0.ended(status.code()).map_or_else(Status::into_http, |()| status.into_http())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.left();
    }
}

/// When the client no longer waits.
fn deadline(headers: &HeaderMap, at: Instant) -> Option<Instant> {
    at.checked_add(grpc_timeout(headers)?)
}

/// The id that the layer around this one has given the request, so that logs and audit agree; without
/// that layer, one by the same rules.
fn request_id(request: &Request<Body>) -> String {
    let given = request.extensions().get::<RequestId>().cloned();
    given.unwrap_or_else(|| RequestId::of(request.headers(), new_id)).as_str().to_owned()
}

/// Tells requests apart; no secret.
fn new_id() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(SystemTime::now()));
    static COUNT: AtomicU64 = AtomicU64::new(0);
    PROCESS.wrapping_add(COUNT.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::convert::Infallible;
    use std::net::SocketAddr;
    use std::path::Path;
    use std::sync::Mutex;

    use super::super::keyfile::{NewKey, create_key};
    use super::super::roles::Role;
    use super::super::{AccessOptions, KeyLimits};
    use super::*;

    const SEARCH: &str = "/diptych.v1.RetrievalService/Search";
    const HEALTH: &str = "/grpc.health.v1.Health/Check";

    /// A service that notes what reaches it, and answers never or at once.
    #[derive(Clone, Default)]
    struct Inner {
        seen: Arc<Mutex<Vec<HeaderMap>>>,
        never: bool,
    }

    impl Service<Request<Body>> for Inner {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<Body>) -> Self::Future {
            self.seen.lock().unwrap().push(request.headers().clone());
            let never = self.never;
            Box::pin(async move {
                if never {
                    std::future::pending::<()>().await;
                }
                Caller::current().unwrap().count(3);
                Ok(Response::new(Body::empty()))
            })
        }
    }

    fn guard(options: &AccessOptions, inner: &Inner) -> Guard<Inner> {
        let gate = Gate::open(options, "127.0.0.1:0".parse().unwrap()).unwrap();
        gate.layer(Duration::from_secs(3600)).layer(inner.clone())
    }

    fn request(path: &str, headers: &[(&'static str, &str)], peer: &str) -> Request<Body> {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = path.parse().unwrap();
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        let remote_addr: Option<SocketAddr> = Some(peer.parse().unwrap());
        request.extensions_mut().insert(TcpConnectInfo { local_addr: None, remote_addr });
        request
    }

    fn code(response: &Response<Body>) -> Code {
        response.headers().get(Status::GRPC_STATUS).map_or(Code::Ok, |v| Code::from_bytes(v.as_bytes()))
    }

    fn with_key(dir: &Path, role: Role) -> (AccessOptions, String) {
        let keys = dir.join("keys.toml");
        let new = NewKey { role, collections: None, name: None, lifetime: None };
        let (_, key) = create_key(&keys, new).unwrap();
        (AccessOptions { keys: Some(keys), ..AccessOptions::default() }, format!("Bearer {key}"))
    }

    fn audited(dir: &Path, options: AccessOptions) -> AccessOptions {
        AccessOptions { audit_log: Some(dir.join("audit.jsonl")), ..options }
    }

    fn lines(dir: &Path) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(dir.join("audit.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[tokio::test]
    async fn health_is_open_to_this_machine_and_to_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let (options, key) = with_key(dir.path(), Role::Read);
        let mut guard = guard(&options, &Inner::default());
        let (near, far) = ("127.0.0.1:5", "192.168.0.9:5");
        let cases = [
            (HEALTH, None, near, Code::Ok),
            (HEALTH, None, far, Code::Unauthenticated),
            (HEALTH, Some(&key), far, Code::Ok),
            (SEARCH, None, near, Code::Unauthenticated),
            ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", None, near, Code::Unauthenticated),
        ];
        for (path, key, peer, expected) in cases {
            let headers: Vec<_> = key.into_iter().map(|key| ("authorization", key.as_str())).collect();
            let response = guard.call(request(path, &headers, peer)).await.unwrap();
            assert_eq!(code(&response), expected, "{path} from {peer}");
        }
    }

    #[tokio::test]
    async fn what_is_refused_reaches_no_service_and_the_key_never_does() {
        let dir = tempfile::tempdir().unwrap();
        let (options, key) = with_key(dir.path(), Role::Read);
        let inner = Inner::default();
        let mut guard = guard(&options, &inner);
        let twice = [("authorization", key.as_str()), ("authorization", key.as_str())];
        let refused = guard.call(request(SEARCH, &twice, "127.0.0.1:5")).await.unwrap();
        assert_eq!(code(&refused), Code::Unauthenticated);
        let write = request("/diptych.v1.RetrievalService/DeleteRecord", &twice[..1], "127.0.0.1:5");
        assert_eq!(code(&guard.call(write).await.unwrap()), Code::PermissionDenied);
        assert!(inner.seen.lock().unwrap().is_empty());

        let headers = [twice[0], ("x-request-id", "r-1")];
        let response = guard.call(request(SEARCH, &headers, "127.0.0.1:5")).await.unwrap();
        assert_eq!(response.headers()["x-request-id"], "r-1");
        let odd = [twice[0], ("x-request-id", "two words")];
        let response = guard.call(request(SEARCH, &odd, "127.0.0.1:5")).await.unwrap();
        assert_ne!(response.headers()["x-request-id"], "two words");
        let seen = inner.seen.lock().unwrap();
        assert_eq!(seen.len(), 2);
        assert!(seen.iter().all(|headers| !headers.contains_key("authorization")));
        assert_eq!(seen[1]["x-request-id"], response.headers()["x-request-id"]);
    }

    #[tokio::test]
    async fn a_deadline_that_passes_is_said_and_recorded() {
        let dir = tempfile::tempdir().unwrap();
        let options = audited(dir.path(), AccessOptions::default());
        let inner = Inner { never: true, ..Inner::default() };
        let late = request(SEARCH, &[("grpc-timeout", "0n")], "127.0.0.1:5");
        let response = guard(&options, &inner).call(late).await.unwrap();
        assert_eq!(code(&response), Code::DeadlineExceeded);
        assert_eq!(lines(dir.path())[0]["code"], "DEADLINE_EXCEEDED");
    }

    #[tokio::test]
    async fn a_client_that_leaves_is_recorded_and_gives_its_place_back() {
        let dir = tempfile::tempdir().unwrap();
        let limits = KeyLimits { in_work_max: Some(1), ..KeyLimits::default() };
        let options = audited(dir.path(), AccessOptions { limits, ..AccessOptions::default() });
        let inner = Inner { never: true, ..Inner::default() };
        let mut guard = guard(&options, &inner);
        let mut waiting = guard.call(request(SEARCH, &[], "127.0.0.1:5"));
        std::future::poll_fn(|cx| {
            assert!(waiting.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        let second = guard.call(request(SEARCH, &[], "127.0.0.1:5")).await.unwrap();
        assert_eq!(code(&second), Code::ResourceExhausted);
        drop(waiting);
        guard.inner.never = false;
        let third = guard.call(request(SEARCH, &[], "127.0.0.1:5")).await.unwrap();
        assert_eq!(code(&third), Code::Ok);
        let codes: Vec<_> = lines(dir.path()).iter().map(|line| line["code"].clone()).collect();
        assert_eq!(codes, ["RESOURCE_EXHAUSTED", "CANCELLED", "OK"]);
        assert_eq!(lines(dir.path())[2]["records"], 3);
    }

    #[tokio::test]
    async fn work_that_goes_on_without_its_client_keeps_its_place_and_is_recorded_at_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let options = audited(dir.path(), AccessOptions::default());
        let gate = Gate::open(&options, "127.0.0.1:0".parse().unwrap()).unwrap();
        let arrival =
            Arrival { id: "r".to_owned(), method: "m", peer: None, at: Instant::now(), deadline: None };
        let ticket = gate.admit(&request(SEARCH, &[], "127.0.0.1:5"), arrival, rule(SEARCH).1).unwrap();
        let work = ticket.0.clone();
        drop(ticket);
        assert!(lines(dir.path()).is_empty());
        work.count(2);
        drop(work);
        let line = &lines(dir.path())[0];
        assert_eq!((line["code"].as_str(), line["records"].as_u64()), (Some("CANCELLED"), Some(2)));
    }
}
