//! Keeps a stream of records going: bounded, answered in order, taken up again when it breaks.
//!
//! Deliberately absent: the transport, which is passed in, so that its failures can be told in tests.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;

use diptych_proto::v1 as wire;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Status};

use super::{IngestOptions, IngestResult, NewRecord};
use crate::client::named;
use crate::{Client, Error};

/// Past this many, answers that nobody reads could stop the stream.
const IN_FLIGHT_MAX: usize = 256;
/// Bytes under way beyond which no record is taken in; the last may be larger.
const BYTES_IN_FLIGHT: usize = 64 << 20;

pub(super) type Source = Pin<Box<dyn Stream<Item = NewRecord> + Send>>;
/// What is on its way is kept until it is answered, so the two share it.
type Requests = UnboundedReceiverStream<Arc<wire::IngestRequest>>;
type Answers = Pin<Box<dyn Stream<Item = Result<wire::IngestResponse, Status>> + Send>>;
type Opening = Pin<Box<dyn Future<Output = Result<Answers, Status>> + Send>>;

/// Stores the records of a source until it ends, the stream cannot be had, or nobody wants the results.
pub(super) async fn ingest(
    client: Client,
    source: Source,
    options: IngestOptions,
    results: mpsc::Sender<Result<IngestResult, Error>>,
) {
    let retrieval = client.clone();
    let open = move |requests: Requests, id: &str| -> Opening {
        let mut client = retrieval.retrieval();
        let requests = named(Request::new(requests.map(|request| (*request).clone())), id);
        Box::pin(async move {
            let answers = client.ingest(requests).await?.into_inner();
            Ok(Box::pin(answers) as Answers)
        })
    };
    Run {
        client,
        source,
        options,
        open,
        results,
        unanswered: VecDeque::new(),
        bytes: 0,
        more: true,
        answered: 0,
    }
    .drive()
    .await;
}

struct Run<O> {
    client: Client,
    source: Source,
    options: IngestOptions,
    open: O,
    results: mpsc::Sender<Result<IngestResult, Error>>,
    /// Sent and not answered, in order.
    unanswered: VecDeque<Arc<wire::IngestRequest>>,
    bytes: usize,
    /// Whether the source may have more.
    more: bool,
    answered: u64,
}

/// Why a stream ended before its time.
enum Ended {
    Failed(Error),
    /// Nobody wants the results any more.
    Unwanted,
}

impl<O: FnMut(Requests, &str) -> Opening> Run<O> {
    async fn drive(mut self) {
        let (mut made, mut failing_since) = (0, Instant::now());
        loop {
            let before = self.answered;
            let id = format!("{:016x}", rand::random::<u64>());
            let error = match self.one_stream(&id).await {
                Ok(()) | Err(Ended::Unwanted) => return,
                Err(Ended::Failed(error)) => error.with_request_id(&id),
            };
            if made == 0 || self.answered > before {
                (made, failing_since) = (0, Instant::now());
            }
            made += 1;
            let left = self.client.timeout().map(|timeout| timeout.saturating_sub(failing_since.elapsed()));
            match self.client.retry().delay(&error, made, left) {
                Some(delay) => tokio::time::sleep(delay).await,
                // Whoever has left needs no error.
                None => return drop(self.results.send(Err(error)).await),
            }
        }
    }

    /// Sends what has no answer yet and then what comes, until all is answered or the stream breaks.
    async fn one_stream(&mut self, id: &str) -> Result<(), Ended> {
        let (sender, requests) = mpsc::unbounded_channel();
        for request in &self.unanswered {
            // It is read as long as the stream is.
            let _ = sender.send(Arc::clone(request));
        }
        // Dropped, it tells the server that there is no more.
        let mut sender = Some(sender).filter(|_| self.more);
        let mut opening = (self.open)(UnboundedReceiverStream::new(requests), id);
        let mut answers: Option<Answers> = None;
        loop {
            let room = sender.is_some() && self.has_room();
            tokio::select! {
                biased;
                opened = &mut opening, if answers.is_none() => {
                    answers = Some(opened.map_err(|status| Ended::Failed(status.into()))?);
                }
                answer = next(&mut answers) => match answer {
                    Some(Ok(answer)) => self.take(answer).await?,
                    Some(Err(status)) => return Err(Ended::Failed(status.into())),
                    None if self.unanswered.is_empty() && !self.more => return Ok(()),
                    None => {
                        let left = self.unanswered.len();
                        let said = format!("the server ended the stream with {left} records unanswered");
                        return Err(Ended::Failed(Error::unavailable(said)));
                    }
                },
                record = self.source.next(), if room => match record {
                    Some(record) => {
                        let request = self.keep(record);
                        if let Some(sender) = &sender {
                            let _ = sender.send(request);
                        }
                    }
                    None => (self.more, sender) = (false, None),
                },
            }
        }
    }

    fn has_room(&self) -> bool {
        self.unanswered.len() < self.options.in_flight.clamp(1, IN_FLIGHT_MAX) && self.bytes < BYTES_IN_FLIGHT
    }

    fn keep(&mut self, record: NewRecord) -> Arc<wire::IngestRequest> {
        let request = Arc::new(record.into_wire(self.client.collection().to_string(), self.options.mode));
        self.bytes += size(&request);
        self.unanswered.push_back(Arc::clone(&request));
        request
    }

    /// Answers come in the order of the requests.
    async fn take(&mut self, answer: wire::IngestResponse) -> Result<(), Ended> {
        let asked = self.unanswered.pop_front().filter(|asked| asked.key == answer.key).ok_or_else(|| {
            Ended::Failed(Error::answer(format_args!("it is about '{}', which is not next", answer.key)))
        })?;
        self.bytes -= size(&asked);
        self.answered += 1;
        let result = IngestResult::from_wire(answer).map_err(Ended::Failed)?;
        self.results.send(Ok(result)).await.map_err(|_| Ended::Unwanted)
    }
}

async fn next(answers: &mut Option<Answers>) -> Option<Result<wire::IngestResponse, Status>> {
    match answers {
        Some(answers) => answers.next().await,
        None => std::future::pending().await,
    }
}

/// What a request takes, its names aside.
fn size(request: &wire::IngestRequest) -> usize {
    let images: usize = request.images.iter().map(|image| image.data.len()).sum();
    images + request.texts.iter().map(String::len).sum::<usize>()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::HashMap;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use diptych_core::Key;
    use tonic::Code;

    use super::*;
    use crate::{ClientOptions, Outcome, RetryPolicy};

    /// A server that stores what it is sent and breaks its first streams after so many answers each.
    #[derive(Default)]
    struct Flaky {
        breaks: Mutex<VecDeque<usize>>,
        /// Request ids by key, as often as they were sent.
        seen: Mutex<HashMap<String, Vec<String>>>,
    }

    impl Flaky {
        fn open(self: &Arc<Self>, mut requests: Requests) -> Answers {
            let after = self.breaks.lock().unwrap().pop_front();
            let (sender, answers) = mpsc::channel(1);
            let server = Arc::clone(self);
            tokio::spawn(async move {
                for n in 0.. {
                    if after == Some(n) {
                        let _ = sender.send(Err(Status::unavailable("going down"))).await;
                        return;
                    }
                    let Some(request) = requests.next().await else { return };
                    let key = request.key.clone();
                    server
                        .seen
                        .lock()
                        .unwrap()
                        .entry(key.clone())
                        .or_default()
                        .push(request.request_id.clone());
                    let outcome = wire::WriteOutcome::Created as i32;
                    let answer = wire::IngestResponse { key, outcome, ..Default::default() };
                    if sender.send(Ok(answer)).await.is_err() {
                        return;
                    }
                }
            });
            Box::pin(tokio_stream::wrappers::ReceiverStream::new(answers))
        }
    }

    fn record(n: usize) -> NewRecord {
        NewRecord::new(Key::new(format!("k{n}")).unwrap()).text("a")
    }

    /// Ingests from a source through a flaky server; returns the results.
    async fn story(
        server: &Arc<Flaky>,
        source: Source,
        options: IngestOptions,
    ) -> Vec<Result<IngestResult, Error>> {
        let retry = RetryPolicy { attempts: 3, seed: Some(1), ..RetryPolicy::default() };
        let client = ClientOptions { retry, ..ClientOptions::new("127.0.0.1:1") };
        let client = Client::connect_lazy(client).unwrap();
        let (results, mut received) = mpsc::channel(1);
        let server = Arc::clone(server);
        let open = move |requests: Requests, _: &str| -> Opening {
            let answers = server.open(requests);
            Box::pin(async move { Ok(answers) })
        };
        let (unanswered, bytes) = (VecDeque::new(), 0);
        let run = Run { client, source, options, open, results, unanswered, bytes, more: true, answered: 0 };
        tokio::spawn(run.drive());
        let mut all = Vec::new();
        while let Some(result) = received.recv().await {
            all.push(result);
        }
        all
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_answered_is_sent_again_under_the_same_ids() {
        let server = Arc::new(Flaky { breaks: Mutex::new([3, 0, 7, 1].into()), ..Flaky::default() });
        let source = Box::pin(tokio_stream::iter((0..50).map(record)));
        let options = IngestOptions { in_flight: 8, ..IngestOptions::default() };
        let results = story(&server, source, options).await;
        let results: Vec<IngestResult> = results.into_iter().map(Result::unwrap).collect();
        assert!(results.iter().all(|result| result.stored.as_ref().unwrap().outcome == Outcome::Created));
        let keys: Vec<String> = results.iter().map(|result| result.key.to_string()).collect();
        assert_eq!(keys, (0..50).map(|n| format!("k{n}")).collect::<Vec<_>>(), "in order, each once");
        let seen = server.seen.lock().unwrap();
        assert!(seen.values().all(|ids| ids.iter().all(|id| id.len() == 32 && *id == ids[0])), "{seen:?}");
        let ids: std::collections::HashSet<&String> = seen.values().map(|ids| &ids[0]).collect();
        assert_eq!(ids.len(), 50, "each record has an id of its own");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_gets_nowhere_is_given_up_and_says_why() {
        let server = Arc::new(Flaky { breaks: Mutex::new([2, 0, 0, 0].into()), ..Flaky::default() });
        let results =
            story(&server, Box::pin(tokio_stream::iter((0..9).map(record))), IngestOptions::default()).await;
        assert_eq!(results.len(), 3);
        let error = results.into_iter().next_back().unwrap().unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::Unavailable, "going down"));
        assert!(error.request_id().is_some());
        assert_eq!(server.breaks.lock().unwrap().len(), 1, "three attempts without an answer");
    }

    #[tokio::test(start_paused = true)]
    async fn the_source_is_read_no_further_than_the_bound() {
        let read = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&read);
        let source = tokio_stream::iter(0..100).map(move |n| {
            counted.fetch_add(1, Ordering::Relaxed);
            record(n)
        });
        let (open, ended) = (Arc::new(Mutex::new(None)), Arc::new(AtomicUsize::new(0)));
        let (held, noted) = (Arc::clone(&open), Arc::clone(&ended));
        let client = Client::connect_lazy(ClientOptions::new("127.0.0.1:1")).unwrap();
        let (results, received) = mpsc::channel(1);
        let never = move |requests: Requests, _: &str| -> Opening {
            *held.lock().unwrap() = Some(requests);
            Box::pin(std::future::pending())
        };
        let options = IngestOptions { in_flight: 5, ..IngestOptions::default() };
        let (unanswered, bytes) = (VecDeque::new(), 0);
        let source: Source = Box::pin(source);
        let run =
            Run { client, source, options, open: never, results, unanswered, bytes, more: true, answered: 0 };
        let work = tokio::spawn(async move {
            run.drive().await;
            noted.fetch_add(1, Ordering::Relaxed);
        });
        // Time stands still until all that can go on has done so.
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        assert_eq!(read.load(Ordering::Relaxed), 5);
        assert_eq!(ended.load(Ordering::Relaxed), 0);
        work.abort();
        drop(received);
    }
}
