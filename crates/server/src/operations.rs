//! Work that goes on after its request was answered: who does it, how far it is, how it ended.
//!
//! Owns: the operations of this process, bounded in number. What they have done is durable; that they
//! were there is not. Deliberately absent: what the work is.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use diptych_core::Time;
use diptych_proto::convert::time_to_wire;
use diptych_proto::{Timestamp, v1 as wire};
use tokio::sync::watch;
use tonic::{Code, Status};

use crate::status;
use diptych_engine::EngineError;

/// Operations that may run at once.
const RUNNING_MAX: usize = 4;
/// Operations that are remembered after their end.
const KEPT_MAX: usize = 1000;
/// Longest time that a client may wait for an end.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// The operations of this process.
pub(crate) struct Operations {
    /// Tells this process's operations from those of earlier ones.
    prefix: String,
    all: Mutex<All>,
}

#[derive(Default)]
struct All {
    last: u64,
    by_number: BTreeMap<u64, Arc<Handle>>,
}

/// One operation, as its work and those who ask for it see it.
pub(crate) struct Handle {
    state: watch::Sender<wire::Operation>,
    cancelled: AtomicBool,
}

/// What an operation did, and whether it was stopped before it was through.
pub(crate) struct Done {
    pub(crate) result: wire::OperationResult,
    pub(crate) stopped: bool,
}

impl Operations {
    pub(crate) fn new() -> Self {
        let prefix = format!("operations/{:x}-", now().seconds);
        Self { prefix, all: Mutex::default() }
    }

    /// Starts an operation on a thread of its own and returns it.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` when as many run as may.
    pub(crate) fn start(
        &self,
        kind: wire::OperationKind,
        collection: String,
        work: impl FnOnce(&Handle) -> Result<Done, EngineError> + Send + 'static,
    ) -> Result<Arc<Handle>, Status> {
        let handle = self.add(kind, collection)?;
        let working = Arc::clone(&handle);
        tokio::task::spawn_blocking(move || {
            let outcome = catch_unwind(AssertUnwindSafe(|| work(&working)));
            working.finish(outcome.unwrap_or(Err(EngineError::Closed)));
        });
        Ok(handle)
    }

    fn add(&self, kind: wire::OperationKind, collection: String) -> Result<Arc<Handle>, Status> {
        let mut all = self.all();
        let running = all.by_number.values().filter(|handle| !handle.state.borrow().done).count();
        if running >= RUNNING_MAX {
            return Err(Status::resource_exhausted(format!(
                "{running} operations are running; wait for one to end, or cancel one"
            )));
        }
        all.last += 1;
        let number = all.last;
        let operation = wire::Operation {
            name: format!("{}{number}", self.prefix),
            kind: kind as i32,
            collection,
            progress: Some(wire::OperationProgress::default()),
            result: Some(wire::OperationResult::default()),
            start_time: Some(now()),
            ..Default::default()
        };
        let state = watch::Sender::new(operation);
        let handle = Arc::new(Handle { state, cancelled: AtomicBool::new(false) });
        all.by_number.insert(number, Arc::clone(&handle));
        let surplus = all.by_number.len().saturating_sub(KEPT_MAX);
        let ended = all.by_number.iter().filter(|(_, handle)| handle.state.borrow().done);
        let forgotten: Vec<u64> = ended.map(|(&number, _)| number).take(surplus).collect();
        forgotten.iter().for_each(|number| drop(all.by_number.remove(number)));
        Ok(handle)
    }

    /// The operation of a name.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub(crate) fn get(&self, name: &str) -> Result<Arc<Handle>, Status> {
        let number = name.strip_prefix(&self.prefix).and_then(|number| number.parse().ok());
        let found = number.and_then(|number: u64| self.all().by_number.get(&number).cloned());
        found.ok_or_else(|| {
            Status::not_found(format!(
                "there is no operation '{}'; they are forgotten when the server stops, and what they did stays done",
                name.chars().take(128).collect::<String>()
            ))
        })
    }

    /// Up to `limit` operations, the latest first, beginning before the one of a page token.
    pub(crate) fn page(&self, token: &str, limit: usize) -> Result<(Vec<wire::Operation>, String), Status> {
        let before = match token {
            "" => u64::MAX,
            token => token.parse().map_err(|_| {
                Status::invalid_argument("the page token is not one of this server's; start without one")
            })?,
        };
        let all = self.all();
        let mut page = all.by_number.range(..before).rev();
        let found: Vec<(u64, wire::Operation)> =
            page.by_ref().take(limit).map(|(&number, handle)| (number, handle.now())).collect();
        let next = match found.last() {
            Some((number, _)) if page.next().is_some() => number.to_string(),
            _ => String::new(),
        };
        Ok((found.into_iter().map(|(_, operation)| operation).collect(), next))
    }

    /// Asks all to stop.
    pub(crate) fn cancel_all(&self) {
        self.all().by_number.values().for_each(|handle| handle.cancel());
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handle {
    /// Says how far the work is; returns whether it shall go on.
    pub(crate) fn progress(&self, completed: u64, total: u64, result: wire::OperationResult) -> bool {
        self.state.send_modify(|operation| {
            operation.progress = Some(wire::OperationProgress { completed, total });
            operation.result = Some(result);
        });
        !self.cancelled.load(Ordering::Relaxed)
    }

    /// Asks the work to stop.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// The operation as it is.
    pub(crate) fn now(&self) -> wire::Operation {
        self.state.borrow().clone()
    }

    /// The operation at its end, or as it is after some time.
    pub(crate) async fn wait(&self, time: Duration) -> wire::Operation {
        let mut state = self.state.subscribe();
        // An end of the time is no failure: it is told as it is then.
        let _ = tokio::time::timeout(time.min(WAIT_MAX), state.wait_for(|operation| operation.done)).await;
        self.now()
    }

    fn finish(&self, outcome: Result<Done, EngineError>) {
        let stopped = || wire::OperationError {
            code: Code::Cancelled as i32,
            message: "it was cancelled; what it did before stays done".to_owned(),
        };
        let (result, error) = match outcome {
            Ok(Done { result, stopped: false }) => (Some(result), None),
            Ok(Done { result, stopped: true }) => (Some(result), Some(stopped())),
            Err(error) => {
                let status = status::from_engine(&error);
                let (code, message) = (status.code() as i32, status.message().to_owned());
                (None, Some(wire::OperationError { code, message }))
            }
        };
        self.state.send_modify(|operation| {
            if let Some(result) = result {
                operation.result = Some(result);
            }
            operation.error = error;
            operation.end_time = Some(now());
            operation.done = true;
        });
    }
}

fn now() -> Timestamp {
    // A clock that the calendar does not reach tells nothing.
    time_to_wire(Time::try_from(SystemTime::now()).unwrap_or(Time::MIN))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const KIND: wire::OperationKind = wire::OperationKind::DeleteRecords;

    fn deleted(deleted_records: u64) -> wire::OperationResult {
        wire::OperationResult { deleted_records, ..Default::default() }
    }

    #[tokio::test]
    async fn an_operation_tells_how_far_it_is_and_stops_when_it_is_told_to() {
        let operations = Operations::new();
        let (said, heard) = std::sync::mpsc::channel::<()>();
        let handle = operations
            .start(KIND, "cases".into(), move |handle| {
                let mut done = 0;
                while handle.progress(done, 100, deleted(done)) {
                    done += 1;
                    heard.recv().unwrap();
                }
                Ok(Done { result: deleted(done), stopped: true })
            })
            .unwrap();
        let mut state = handle.state.subscribe();
        said.send(()).unwrap();
        state.wait_for(|o| o.progress.as_ref().unwrap().completed == 1).await.unwrap();
        let name = handle.now().name;
        assert!(!operations.get(&name).unwrap().now().done);
        operations.get(&name).unwrap().cancel();
        said.send(()).unwrap();
        let end = handle.wait(WAIT_MAX).await;
        assert!(end.done && end.end_time.is_some());
        assert_eq!(end.error.unwrap().code, Code::Cancelled as i32);
        assert_eq!(end.result, Some(deleted(2)));
        assert_eq!(operations.get("operations/0-1").err().unwrap().code(), Code::NotFound);
    }

    #[tokio::test]
    async fn operations_are_bounded_and_listed_latest_first() {
        let operations = Operations::new();
        let (said, heard) = std::sync::mpsc::channel::<()>();
        let heard = Arc::new(Mutex::new(heard));
        let running: Vec<Arc<Handle>> = (0..RUNNING_MAX)
            .map(|n| {
                let heard = Arc::clone(&heard);
                let work = move |_: &Handle| {
                    heard.lock().unwrap().recv().unwrap();
                    if n == 0 {
                        Err(EngineError::Closed)
                    } else {
                        Ok(Done { result: deleted(1), stopped: false })
                    }
                };
                operations.start(KIND, n.to_string(), work).unwrap()
            })
            .collect();
        let more = operations.start(KIND, String::new(), |_| Err(EngineError::Closed));
        assert_eq!(more.err().unwrap().code(), Code::ResourceExhausted);
        (0..RUNNING_MAX).for_each(|_| said.send(()).unwrap());
        for handle in &running {
            handle.wait(WAIT_MAX).await;
        }
        let failed = running[0].now();
        assert_eq!((failed.done, failed.error.unwrap().code), (true, Code::Unavailable as i32));
        let panicking = operations.start(KIND, "4".into(), |_| panic!("half-way")).unwrap();
        assert!(panicking.wait(WAIT_MAX).await.error.is_some());

        let names = |page: &[wire::Operation]| page.iter().map(|o| o.collection.clone()).collect::<Vec<_>>();
        let (first, token) = operations.page("", 3).unwrap();
        assert_eq!(names(&first), ["4", "3", "2"]);
        let (second, token) = operations.page(&token, 3).unwrap();
        assert_eq!((names(&second), token), (vec!["1".to_owned(), "0".to_owned()], String::new()));
        assert!(operations.page("x", 3).is_err());
    }
}
