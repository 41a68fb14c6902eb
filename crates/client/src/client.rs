//! The client: a connection, what calls have in common, and those about no record.
//!
//! Owns: repetition and deadlines of calls. Deliberately absent: what each call sends and gets, which is in the files
//! of its subject.

use std::sync::Arc;
use std::time::Duration;

use diptych_core::limits::IMAGE_BYTES_MAX;
use diptych_core::{CollectionName, RequestId};
use diptych_proto::v1 as wire;
use diptych_proto::v1::backup_service_client::BackupServiceClient;
use diptych_proto::v1::case_service_client::CaseServiceClient;
use diptych_proto::v1::collection_service_client::CollectionServiceClient;
use diptych_proto::v1::operation_service_client::OperationServiceClient;
use diptych_proto::v1::retrieval_service_client::RetrievalServiceClient;
use tokio::time::Instant;
use tonic::codec::CompressionEncoding;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::options::Link;
use crate::retry::Retry;
use crate::{ClientOptions, Embeddings, Error, Stats};

/// Where the server takes the id of a request from, for its logs.
const REQUEST_ID: &str = "x-request-id";
/// Inputs and bytes of one request to embed; the server's bounds.
const EMBED_INPUTS: usize = 256;
const EMBED_BYTES: usize = IMAGE_BYTES_MAX;

/// A connection to a server, made for one collection. Clones share the connection and cost little.
#[derive(Debug, Clone)]
pub struct Client {
    link: Link,
    collection: CollectionName,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    timeout: Option<Duration>,
    retry: Retry,
    compression: bool,
}

/// Whether a call may be made again when its answer is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Twice is as once: it changes nothing, or has a request id.
    Safe,
    /// It would be done twice, or be refused since it has been done.
    Unsafe,
}

impl Client {
    /// Connects to a server.
    ///
    /// # Errors
    /// [`Error::Request`] when the options cannot work, a retryable error when nobody answers there.
    pub async fn connect(options: ClientOptions) -> Result<Self, Error> {
        let (endpoint, url) = (options.endpoint()?, options.url());
        let channel = endpoint
            .connect()
            .await
            .map_err(|error| Error::unavailable(format_args!("cannot reach {url}: {}", whole(&error))))?;
        Self::over(channel, options)
    }

    /// A client that connects with its first call, so that the server may come up later. Needs a runtime of tokio.
    ///
    /// # Errors
    /// [`Error::Request`] when the options cannot work.
    pub fn connect_lazy(options: ClientOptions) -> Result<Self, Error> {
        Self::over(options.endpoint()?.connect_lazy(), options)
    }

    /// A client over a connection that there is, wherever it goes; of the options, those of a connection do not count.
    ///
    /// # Errors
    /// [`Error::Request`] when the API key cannot be sent.
    pub fn over(channel: Channel, options: ClientOptions) -> Result<Self, Error> {
        let link = InterceptedService::new(channel, options.bearer()?);
        let ClientOptions { collection, timeout, retry, compression, .. } = options;
        Ok(Self {
            link,
            collection,
            shared: Arc::new(Shared { timeout, retry: Retry::new(retry), compression }),
        })
    }

    /// The same connection, for another collection.
    #[must_use]
    pub fn with_collection(&self, collection: CollectionName) -> Self {
        Self { collection, ..self.clone() }
    }

    /// The collection that calls are about.
    pub fn collection(&self) -> &CollectionName {
        &self.collection
    }

    /// Embeds images (encoded files) and texts without storing them, in as many calls as needed.
    ///
    /// # Errors
    /// [`Error::Status`], such as `InvalidArgument` when an input cannot be embedded.
    pub async fn embed(&self, images: Vec<Vec<u8>>, texts: Vec<String>) -> Result<Embeddings, Error> {
        let mut all = Embeddings::default();
        for request in embed_requests(images, texts) {
            let answer = self.call(Repeat::Safe, request, |request| {
                let mut client = self.retrieval();
                async move { client.embed(request).await }
            });
            all.add(answer.await?);
        }
        Ok(all)
    }

    /// Says what the server holds.
    ///
    /// # Errors
    /// [`Error::Status`].
    pub async fn stats(&self) -> Result<Stats, Error> {
        let answer = self.call(Repeat::Safe, wire::StatsRequest {}, |request| {
            let mut client = self.retrieval();
            async move { client.stats(request).await }
        });
        Ok(Stats::from_wire(answer.await?))
    }

    /// Whether the server answers and its model has just worked.
    ///
    /// # Errors
    /// [`Error::Status`], such as `Unavailable` when it cannot be reached.
    pub async fn health(&self) -> Result<bool, Error> {
        let request = HealthCheckRequest { service: String::new() };
        let answer = self.call(Repeat::Safe, request, |request| {
            let mut client = HealthClient::new(self.link.clone());
            async move { client.check(request).await }
        });
        Ok(answer.await?.status() == ServingStatus::Serving)
    }

    pub(crate) fn retrieval(&self) -> RetrievalServiceClient<Link> {
        // An answer may hold a stored record with more than one long text.
        let client =
            RetrievalServiceClient::new(self.link.clone()).max_decoding_message_size(2 * IMAGE_BYTES_MAX);
        match self.shared.compression {
            true => {
                client.send_compressed(CompressionEncoding::Gzip).accept_compressed(CompressionEncoding::Gzip)
            }
            false => client,
        }
    }

    pub(crate) fn cases_service(&self) -> CaseServiceClient<Link> {
        CaseServiceClient::new(self.link.clone()).max_decoding_message_size(2 * IMAGE_BYTES_MAX)
    }

    /// The service of backups, exports and imports, whose streams are taken as they are on the wire.
    pub fn backups(&self) -> BackupServiceClient<Link> {
        // One record may have many vectors.
        BackupServiceClient::new(self.link.clone()).max_decoding_message_size(2 * IMAGE_BYTES_MAX)
    }

    pub(crate) fn collections_service(&self) -> CollectionServiceClient<Link> {
        CollectionServiceClient::new(self.link.clone())
    }

    pub(crate) fn operations_service(&self) -> OperationServiceClient<Link> {
        OperationServiceClient::new(self.link.clone())
    }

    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.shared.timeout
    }

    pub(crate) fn retry(&self) -> &Retry {
        &self.shared.retry
    }

    /// Makes a call, and again where that is safe, until it is answered, refused for good, or its time is over.
    pub(crate) async fn call<Q: Clone, A, F>(
        &self,
        repeat: Repeat,
        request: Q,
        mut send: impl FnMut(Request<Q>) -> F,
    ) -> Result<A, Error>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let id = format!("{:016x}", rand::random::<u64>());
        let timeout = self.timeout();
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let left = || deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let mut made = 0;
        loop {
            let (mut attempt, left_now) = (named(Request::new(request.clone()), &id), left());
            if let Some(left) = left_now {
                // The server is told, so that it does not work for nobody.
                attempt.set_timeout(left);
            }
            let answer = send(attempt);
            let answered = match left_now {
                Some(left) => tokio::time::timeout(left, answer).await.ok(),
                None => Some(answer.await),
            };
            let error = match answered {
                Some(Ok(answer)) => return Ok(answer.into_inner()),
                Some(Err(status)) => Error::from(status).with_request_id(&id),
                None => return Err(Error::late(timeout.unwrap_or_default(), &id)),
            };
            made += 1;
            match self.retry().delay(&error, made, left()).filter(|_| repeat == Repeat::Safe) {
                Some(delay) => tokio::time::sleep(delay).await,
                None => return Err(error),
            }
        }
    }
}

/// A request with the id that the server's logs name it by.
pub(crate) fn named<Q>(mut request: Request<Q>, id: &str) -> Request<Q> {
    let value: MetadataValue<Ascii> = id.parse().expect("an id is made of digits");
    request.metadata_mut().insert(REQUEST_ID, value);
    request
}

/// The id of a write that was given none. From the system, whatever seeds the delays: two programs must not share one.
pub(crate) fn fresh_request_id() -> RequestId {
    RequestId::new(format!("{:032x}", rand::random::<u128>())).expect("digits are a request id")
}

/// An error with its causes, each said once.
fn whole(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !said.contains(&text) {
            said = format!("{said}: {text}");
        }
        source = cause.source();
    }
    said
}

/// As many requests as the server's bounds ask for.
fn embed_requests(images: Vec<Vec<u8>>, texts: Vec<String>) -> Vec<wire::EmbedRequest> {
    let mut all = Vec::new();
    let mut request = wire::EmbedRequest::default();
    let mut bytes = 0;
    let mut room = |all: &mut Vec<_>, request: &mut wire::EmbedRequest, more: usize| {
        let inputs = request.images.len() + request.texts.len();
        if inputs == EMBED_INPUTS || (inputs > 0 && bytes + more > EMBED_BYTES) {
            all.push(std::mem::take(request));
            bytes = 0;
        }
        bytes += more;
    };
    for data in images {
        room(&mut all, &mut request, data.len());
        request.images.push(wire::ImageInput { data, source: String::new() });
    }
    for text in texts {
        room(&mut all, &mut request, text.len());
        request.texts.push(text);
    }
    if request != wire::EmbedRequest::default() {
        all.push(request);
    }
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Mutex;

    use tonic::Code;

    use super::*;
    use crate::RetryPolicy;

    fn client(timeout: Option<Duration>) -> Client {
        let retry = RetryPolicy { attempts: 3, seed: Some(1), ..RetryPolicy::default() };
        Client::connect_lazy(ClientOptions { timeout, retry, ..ClientOptions::new("127.0.0.1:1") }).unwrap()
    }

    /// Answers as told, in turn, and notes the ids of the requests.
    async fn story(
        client: &Client,
        repeat: Repeat,
        answers: Vec<Result<u8, Status>>,
    ) -> (Result<u8, Error>, Vec<String>) {
        let (answers, ids) = (Mutex::new(answers.into_iter()), Mutex::new(Vec::new()));
        let result = client.call(repeat, (), |request| {
            let id = request.metadata().get(REQUEST_ID).unwrap().to_str().unwrap().to_owned();
            ids.lock().unwrap().push(id);
            let answer = answers.lock().unwrap().next();
            async move {
                match answer {
                    Some(answer) => answer.map(Response::new),
                    None => std::future::pending().await,
                }
            }
        });
        let result = result.await;
        (result, ids.into_inner().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_safe_call_is_repeated_under_one_id_and_an_unsafe_one_is_not() {
        let client = client(None);
        let busy = || Err(Status::unavailable("starting"));
        let (result, ids) = story(&client, Repeat::Safe, vec![busy(), busy(), Ok(7)]).await;
        assert_eq!(result, Ok(7));
        assert!(ids.len() == 3 && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        let (result, ids) = story(&client, Repeat::Safe, vec![busy(), busy(), busy(), Ok(7)]).await;
        let error = result.unwrap_err();
        assert_eq!((error.code(), error.request_id()), (Code::Unavailable, Some(ids[0].as_str())));
        assert_eq!(ids.len(), 3, "three attempts and no more");
        let (result, ids) = story(&client, Repeat::Unsafe, vec![busy(), Ok(7)]).await;
        assert!(result.unwrap_err().is_retryable() && ids.len() == 1);
        let refused = Err(Status::invalid_argument("k is 0"));
        let (result, ids) = story(&client, Repeat::Safe, vec![refused, Ok(7)]).await;
        assert_eq!((result.unwrap_err().code(), ids.len()), (Code::InvalidArgument, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn the_timeout_is_that_of_all_attempts_together() {
        let client = client(Some(Duration::from_secs(2)));
        let began = Instant::now();
        let (result, ids) = story(&client, Repeat::Safe, vec![Err(Status::unavailable("starting"))]).await;
        assert_eq!((result.unwrap_err().code(), ids.len()), (Code::DeadlineExceeded, 2));
        assert_eq!(began.elapsed(), Duration::from_secs(2));
    }

    #[test]
    fn inputs_to_embed_are_divided_by_the_servers_bounds() {
        let sizes = |images: Vec<Vec<u8>>, texts: usize| -> Vec<(usize, usize)> {
            let all = embed_requests(images, vec!["a".to_owned(); texts]);
            all.iter().map(|request| (request.images.len(), request.texts.len())).collect()
        };
        assert_eq!(sizes(vec![], 0), []);
        assert_eq!(sizes(vec![vec![0]; 200], 100), [(200, 56), (0, 44)]);
        assert_eq!(sizes(vec![vec![0; EMBED_BYTES], vec![0; 1]], 1), [(1, 0), (1, 1)]);
    }
}
