//! Who is asking, in the course of one request: what they may see, and what they have seen so far.
//!
//! The guard makes a [`Caller`] for each request and gives it to all that runs on its behalf.
//! Deliberately absent: how somebody is recognised, which is the guard's.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use diptych_core::CollectionName;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::AbortHandle;
use tonic::{Code, Status};

use super::audit::{self, Audit, Event, Line};
use super::keyfile::KeyRecord;
use super::keyring::{Badge, Rejected};
use crate::observe::micros;
use crate::status::name_of;

tokio::task_local! {
    pub(super) static CALLER: Caller;
}

/// Collections that a line of the audit log names at the most, for streams that write to many.
const COLLECTIONS_MAX: usize = 64;

/// Whoever made the request that is being answered. Cheap to clone; while a clone lives, the request
/// counts as in work.
#[derive(Clone)]
pub(crate) struct Caller(Arc<Request>);

/// What is known of a request when it arrives.
pub(super) struct Arrival {
    pub(super) id: String,
    pub(super) method: &'static str,
    pub(super) peer: Option<String>,
    pub(super) at: Instant,
    /// What the client has set; the server's own bound is for the first byte only.
    pub(super) deadline: Option<Instant>,
}

struct Request {
    arrival: Arrival,
    badge: Option<Badge>,
    audit: Option<Arc<Audit>>,
    collections: Mutex<BTreeSet<String>>,
    records: AtomicU64,
    ended: AtomicBool,
    /// Why nobody waits for the answer any more.
    left: Mutex<Option<Code>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Caller {
    pub(super) fn new(
        arrival: Arrival,
        badge: Option<Badge>,
        audit: Option<Arc<Audit>>,
        place: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self(Arc::new(Request {
            arrival,
            badge,
            audit,
            collections: Mutex::default(),
            records: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            left: Mutex::default(),
            _place: place,
        }))
    }

    /// The caller on whose behalf this runs.
    ///
    /// # Errors
    /// INTERNAL where there is none: what did not come through the guard gets nothing.
    pub(crate) fn current() -> Result<Self, Status> {
        CALLER
            .try_with(Self::clone)
            .map_err(|_| Status::internal("the request was not checked for access; report this as a bug"))
    }

    /// Enters a collection, or is refused. Whether it exists is not said.
    ///
    /// # Errors
    /// PERMISSION_DENIED when the key is not for it; UNAUTHENTICATED when the key, which was good when
    /// the request began, is good no more.
    pub(crate) fn may(&self, collection: &CollectionName) -> Result<(), Status> {
        self.note(collection.as_str());
        if !self.sees(collection.as_str()) {
            return Err(self.refused(collection.as_str()));
        }
        let badge = self.0.badge.as_ref();
        badge
            .map_or(Ok(()), |badge| badge.still_good(SystemTime::now()))
            .map_err(|rejected: Rejected| rejected.status())
    }

    /// Enters all collections, or is refused.
    ///
    /// # Errors
    /// PERMISSION_DENIED when the key is for some only; else as [`Caller::may`].
    pub(crate) fn may_all(&self) -> Result<(), Status> {
        if let Some(key) = self.0.key().filter(|key| key.collections.is_some()) {
            return Err(Status::permission_denied(format!(
                "the API key '{}' is for some collections only, and this concerns all; use one that is for all",
                key.name
            )));
        }
        let badge = self.0.badge.as_ref();
        badge
            .map_or(Ok(()), |badge| badge.still_good(SystemTime::now()))
            .map_err(|rejected| rejected.status())
    }

    /// Whether the key is for a collection of that name.
    pub(crate) fn sees(&self, collection: &str) -> bool {
        let scope = self.0.key().and_then(|key| key.collections.as_ref());
        scope.is_none_or(|names| names.iter().any(|name| name.as_str() == collection))
    }

    /// As [`Caller::may`], for a name as the wire has it, which may be empty or no name at all.
    ///
    /// # Errors
    /// As [`Caller::may`].
    pub(crate) fn may_enter(&self, collection: &str) -> Result<(), Status> {
        let name = if collection.is_empty() { CollectionName::DEFAULT } else { collection };
        match CollectionName::new(name) {
            Ok(name) => self.may(&name),
            // Said by those who convert it, to those who may know.
            Err(_) if self.0.key().is_none_or(|key| key.collections.is_none()) => Ok(()),
            Err(_) => Err(self.refused("of that name")),
        }
    }

    fn refused(&self, collection: &str) -> Status {
        let key = self.0.key().map_or("", |key| key.name.as_str());
        Status::permission_denied(format!(
            "the API key '{key}' is not for collection '{collection}'; use one that is: an administrator makes it with `diptych keys create --collection`"
        ))
    }

    /// Counts records that were given out or written.
    pub(crate) fn count(&self, records: u64) {
        self.0.records.fetch_add(records, Ordering::Relaxed);
    }

    /// Work may begin.
    ///
    /// # Errors
    /// DEADLINE_EXCEEDED when nobody waits for its result any more.
    pub(crate) fn in_time(&self) -> Result<(), Status> {
        if self.expired() { Err(deadline_exceeded()) } else { Ok(()) }
    }

    /// The result of `work`, if there is one before the deadline of the client.
    pub(crate) async fn before_deadline<T>(&self, work: impl Future<Output = T>) -> Result<T, Status> {
        match self.0.arrival.deadline {
            None => Ok(work.await),
            Some(deadline) => {
                tokio::time::timeout_at(deadline.into(), work).await.map_err(|_| deadline_exceeded())
            }
        }
    }

    fn expired(&self) -> bool {
        self.0.arrival.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    fn note(&self, collection: &str) {
        if self.0.audit.is_none() {
            return;
        }
        let mut collections = self.0.collections.lock().unwrap_or_else(PoisonError::into_inner);
        if collections.len() < COLLECTIONS_MAX {
            collections.insert(collection.to_owned());
        }
    }

    /// Writes that a stream has begun.
    pub(super) fn begun(&self) -> Result<(), Status> {
        self.0.write(Event::Begin, None)
    }

    /// Writes how the request has ended, the first time that it is called.
    pub(super) fn ended(&self, code: Code) -> Result<(), Status> {
        self.0.ended(code)
    }

    /// Nobody waits for the answer any more. That is written when all work on its behalf is done,
    /// since some of it is finished all the same.
    pub(super) fn left(&self) {
        let code = if self.expired() { Code::DeadlineExceeded } else { Code::Cancelled };
        *self.0.left.lock().unwrap_or_else(PoisonError::into_inner) = Some(code);
    }
}

impl Request {
    fn key(&self) -> Option<&KeyRecord> {
        self.badge.as_ref().map(|badge| &*badge.key)
    }

    fn ended(&self, code: Code) -> Result<(), Status> {
        if self.ended.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        self.write(Event::End, Some(code))
    }

    fn write(&self, event: Event, code: Option<Code>) -> Result<(), Status> {
        let Some(audit) = &self.audit else { return Ok(()) };
        let collections = self.collections.lock().unwrap_or_else(PoisonError::into_inner);
        let line = Line {
            event,
            request_id: &self.arrival.id,
            key: self.key().map(|key| key.name.as_str()),
            key_id: self.key().map(|key| key.id.as_str()),
            peer: self.arrival.peer.as_deref(),
            method: self.arrival.method,
            collections: &collections,
            records: self.records.load(Ordering::Relaxed),
            code: code.map(name_of),
            micros: micros(self.arrival.at.elapsed()),
        };
        let stranger = self.badge.is_none() && code == Some(Code::Unauthenticated);
        let written = if stranger { audit.write_stranger(&line, Instant::now()) } else { audit.write(&line) };
        written.map_err(|_| audit::unavailable())
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let left = self.left.get_mut().unwrap_or_else(PoisonError::into_inner).unwrap_or(Code::Cancelled);
        // Nobody is left to be told of a failure; it has been logged.
        let _ = self.ended(left);
    }
}

pub(super) fn deadline_exceeded() -> Status {
    Status::deadline_exceeded("the deadline of the request has passed; allow more time, or ask for less")
}

/// Calls off work that has not begun when whoever waits for it goes away.
pub(crate) struct CallOff(pub(crate) AbortHandle);

impl Drop for CallOff {
    fn drop(&mut self) {
        // Of work on a blocking thread, only what has not begun is called off.
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::super::keyfile::{NewKey, create_key};
    use super::super::keyring::Keyring;
    use super::super::roles::Role;
    use super::*;

    fn caller(collections: Option<&[&str]>, deadline: Option<Instant>) -> Caller {
        let dir = tempfile::tempdir().unwrap();
        let collections =
            collections.map(|names| names.iter().map(|n| CollectionName::new(*n).unwrap()).collect());
        let new = NewKey { role: Role::Read, collections, name: Some("k".to_owned()), lifetime: None };
        let path = dir.path().join("keys.toml");
        let (key, _) = create_key(&path, new).unwrap();
        let badge = Badge { key: Arc::new(key), ring: Arc::new(Keyring::open(path).unwrap()) };
        let arrival = Arrival { id: "r".to_owned(), method: "m", peer: None, at: Instant::now(), deadline };
        Caller::new(arrival, Some(badge), None, None)
    }

    #[test]
    fn a_key_is_for_the_collections_that_it_names() {
        let scoped = caller(Some(&["a", "b"]), None);
        assert!(scoped.may_enter("a").is_ok() && scoped.may_enter("b").is_ok());
        for other in ["", "c", "A", "a/b", "a "] {
            assert_eq!(scoped.may_enter(other).unwrap_err().code(), Code::PermissionDenied, "{other}");
        }
        assert!(caller(Some(&["default"]), None).may_enter("").is_ok());
        let nothing = caller(Some(&[]), None);
        assert_eq!(nothing.may_enter("a").unwrap_err().code(), Code::PermissionDenied);
        assert_eq!(scoped.may_all().unwrap_err().code(), Code::PermissionDenied);
        let all = caller(None, None);
        assert!(all.may_all().is_ok());
        assert!(["", "c", "a/b"].iter().all(|name| all.may_enter(name).is_ok()));
    }

    #[tokio::test]
    async fn outside_of_a_request_there_is_no_caller() {
        assert_eq!(Caller::current().err().unwrap().code(), Code::Internal);
        let inside = CALLER.scope(caller(None, None), async { Caller::current().is_ok() });
        assert!(inside.await);
    }

    #[tokio::test]
    async fn work_begins_and_is_waited_for_only_before_the_deadline() {
        let now = Instant::now();
        let late = caller(None, Some(now));
        assert_eq!(late.in_time().unwrap_err().code(), Code::DeadlineExceeded);
        let waited = late.before_deadline(std::future::pending::<()>()).await;
        assert_eq!(waited.unwrap_err().code(), Code::DeadlineExceeded);
        let early = caller(None, Some(now + Duration::from_secs(3600)));
        assert!(early.in_time().is_ok());
        assert_eq!(early.before_deadline(async { 7 }).await.unwrap(), 7);
    }

    #[test]
    fn work_that_has_not_begun_is_called_off_when_nobody_waits_for_it() {
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        runtime.block_on(async {
            // The only thread is busy until it is told to go on.
            let (go_on, wait) = std::sync::mpsc::channel::<()>();
            let busy = tokio::task::spawn_blocking(move || wait.recv());
            let begun = Arc::new(AtomicBool::new(false));
            let noted = Arc::clone(&begun);
            let queued = tokio::task::spawn_blocking(move || noted.store(true, Ordering::Relaxed));
            drop(CallOff(queued.abort_handle()));
            go_on.send(()).unwrap();
            busy.await.unwrap().unwrap();
            assert!(queued.await.unwrap_err().is_cancelled());
            assert!(!begun.load(Ordering::Relaxed));
        });
    }
}
