//! Streams whose items are dealt with in groups: taken together as they arrive, answered each, in their order.
//!
//! Deliberately absent: what is done with the items.

use std::sync::Arc;

use diptych_engine::Engine;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use crate::access::Caller;
use crate::observe::Observed;
use crate::service::Retrieval;

/// How the items `Q` of a stream become its answers `A`.
pub(crate) struct Groups<Q, A> {
    /// Items that are held for one group, at the most.
    pub(crate) items: usize,
    /// Bytes that are, the last item aside.
    pub(crate) bytes: usize,
    /// Answers that may wait to be sent.
    pub(crate) answers: usize,
    /// The size of an item, in bytes.
    pub(crate) size: fn(&Q) -> usize,
    /// Deals with a group: one answer per item.
    pub(crate) work: fn(&Engine, &Caller, Vec<Q>) -> Vec<A>,
    /// Hears of the answers to a group.
    pub(crate) told: fn(&Observed, &[A]),
}

/// Answers a stream, group by group.
///
/// # Errors
/// `RESOURCE_EXHAUSTED` when the server has too much to do.
pub(crate) fn answer<Q: Send + 'static, A: Send + 'static>(
    retrieval: &Retrieval,
    mut items: Streaming<Q>,
    groups: &'static Groups<Q, A>,
) -> Result<mpsc::Receiver<Result<A, Status>>, Status> {
    let permit = retrieval.admit()?;
    let caller = Caller::current()?;
    let engine = retrieval.engine();
    let observed = Observed::current();
    let (answers, receive) = mpsc::channel(groups.answers);
    tokio::spawn(async move {
        let _permit = permit;
        loop {
            let waited = caller.before_deadline(next_group(&mut items, groups)).await;
            let (group, end) = waited.unwrap_or_else(|late| (Vec::new(), Some(Err(late))));
            let (engine, caller) = (Arc::clone(&engine), caller.clone());
            // Runs to its end even when the client leaves: a group is written whole.
            let request = observed.clone();
            let work = move || request.run(|| (groups.work)(&engine, &caller, group));
            let written = tokio::task::spawn_blocking(work).await.unwrap_or_default();
            (groups.told)(&observed, &written);
            for answer in written {
                if answers.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
            match end {
                None => {}
                Some(Ok(())) => return,
                Some(Err(status)) => {
                    // The client that broke the stream may not be there to read this.
                    let _ = answers.send(Err(status)).await;
                    return;
                }
            }
        }
    });
    Ok(receive)
}

/// Waits for an item, then takes those that have arrived behind it. The second value tells how the stream ended, once
/// it has.
async fn next_group<Q, A>(
    items: &mut Streaming<Q>,
    groups: &Groups<Q, A>,
) -> (Vec<Q>, Option<Result<(), Status>>) {
    let mut group: Vec<Q> = Vec::new();
    let mut held = 0;
    while group.len() < groups.items && held < groups.bytes {
        let arrived = if group.is_empty() {
            items.message().await
        } else {
            tokio::select! {
                biased;
                next = items.message() => next,
                () = std::future::ready(()) => break,
            }
        };
        match arrived {
            Ok(Some(item)) => {
                held += (groups.size)(&item);
                group.push(item);
            }
            Ok(None) => return (group, Some(Ok(()))),
            Err(status) => return (group, Some(Err(status))),
        }
    }
    (group, None)
}
