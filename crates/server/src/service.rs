//! The retrieval service: admission, conversion, one engine call, conversion back.

use std::pin::Pin;
use std::sync::Arc;

use diptych_core::{CollectionName, Key};
use diptych_engine::{Engine, EngineError, PutMode, Urgency, Written};
use diptych_proto::v1 as wire;
use diptych_proto::v1::retrieval_service_server::RetrievalService;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::access::{CallOff, Caller};
use crate::convert::{Once, SearchCall};
use crate::groups::{self, Groups};
use crate::observe::Observed;
use crate::operations::Operations;
use crate::{collections, convert, queries, status};

/// What of an ingest stream is encoded and synced together.
static INGEST: Groups<wire::IngestRequest, wire::IngestResponse> = Groups {
    items: 32,
    bytes: 64 << 20,
    answers: 64,
    size: content_bytes,
    work: ingest_group,
    told: Observed::ingested,
};
/// Inputs of one embed request.
const EMBED_INPUTS_MAX: usize = 256;

/// Clones share what they bound.
#[derive(Clone)]
pub(crate) struct Retrieval {
    engine: Arc<Engine>,
    requests: Arc<Semaphore>,
    operations: Arc<Operations>,
}

impl Retrieval {
    pub(crate) fn new(engine: Arc<Engine>, requests_max: usize) -> Self {
        Self {
            engine,
            requests: Arc::new(Semaphore::new(requests_max)),
            operations: Arc::new(Operations::new()),
        }
    }

    pub(crate) fn engine(&self) -> Arc<Engine> {
        Arc::clone(&self.engine)
    }

    pub(crate) fn operations(&self) -> &Operations {
        &self.operations
    }

    pub(crate) fn admit(&self) -> Result<OwnedSemaphorePermit, Status> {
        Arc::clone(&self.requests).try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(
                "the server is busy: too many requests are in work; retry after a short, growing pause",
            )
        })
    }

    /// As [`Self::admit`], but waits for a place: for work of which a client can only have so much at a time.
    pub(crate) async fn admit_in_turn(&self) -> OwnedSemaphorePermit {
        let place = Arc::clone(&self.requests).acquire_owned().await;
        place.expect("the semaphore of requests is never closed")
    }

    /// Runs one engine call on a blocking thread.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Engine) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, Status> {
        self.call_for(self.admit()?, Caller::current()?, Observed::current(), work).await
    }

    /// As [`Self::call`], on behalf of a request that this task is only a part of.
    async fn call_for<T: Send + 'static>(
        &self,
        place: OwnedSemaphorePermit,
        caller: Caller,
        observed: Observed,
        work: impl FnOnce(&Engine) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, Status> {
        // Both are held for as long as the work takes, also when the client has left.
        let held = (place, caller);
        let engine = Arc::clone(&self.engine);
        let task = tokio::task::spawn_blocking(move || {
            let _held = held;
            observed.run(|| work(&engine))
        });
        let _call_off = CallOff(task.abort_handle());
        task.await
            .map_err(|_| {
                Status::internal("the request failed inside the server; report this if it persists")
            })?
            .map_err(|error| status::from_engine(&error))
    }
}

impl Retrieval {
    /// Answers one search on behalf of a caller.
    pub(crate) async fn answer(
        &self,
        place: OwnedSemaphorePermit,
        caller: Caller,
        observed: Observed,
        call: SearchCall,
    ) -> Result<wire::SearchResponse, Status> {
        let SearchCall { collection, query, asked } = call;
        let work = move |engine: &Engine| {
            let outcome = engine.search(&collection, &query)?;
            let times = outcome.times;
            let model = engine.encoder().model_id();
            Ok((convert::search_to_wire(outcome, &query, asked, model), times))
        };
        let (response, times) = self.call_for(place, caller, observed.clone(), work).await?;
        observed.searched(&times);
        Ok(response)
    }
}

#[tonic::async_trait]
impl RetrievalService for Retrieval {
    async fn search(
        &self,
        request: Request<wire::SearchRequest>,
    ) -> Result<Response<wire::SearchResponse>, Status> {
        let call = convert::search_from_wire(request.into_inner())?;
        let observed = Observed::current();
        let answer = self.answer(self.admit()?, Caller::current()?, observed, call).await?;
        Ok(Response::new(answer))
    }

    type BatchSearchStream = Pin<Box<dyn Stream<Item = Result<wire::BatchSearchResponse, Status>> + Send>>;

    async fn batch_search(
        &self,
        request: Request<Streaming<wire::BatchSearchRequest>>,
    ) -> Result<Response<Self::BatchSearchStream>, Status> {
        let answers = queries::batch_search(self, request.into_inner())?;
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn replay(
        &self,
        request: Request<wire::ReplayRequest>,
    ) -> Result<Response<wire::ReplayResponse>, Status> {
        queries::replay(self, request.into_inner()).await.map(Response::new)
    }

    async fn classify(
        &self,
        request: Request<wire::ClassifyRequest>,
    ) -> Result<Response<wire::ClassifyResponse>, Status> {
        queries::classify(self, request.into_inner()).await.map(Response::new)
    }

    type IngestStream = Pin<Box<dyn Stream<Item = Result<wire::IngestResponse, Status>> + Send>>;

    async fn ingest(
        &self,
        request: Request<Streaming<wire::IngestRequest>>,
    ) -> Result<Response<Self::IngestStream>, Status> {
        let receive = groups::answer(self, request.into_inner(), &INGEST)?;
        Ok(Response::new(Box::pin(ReceiverStream::new(receive))))
    }

    async fn get_record(
        &self,
        request: Request<wire::GetRecordRequest>,
    ) -> Result<Response<wire::GetRecordResponse>, Status> {
        let wire::GetRecordRequest { collection, key, read_mask } = request.into_inner();
        let (collection, key) = names(collection, key)?;
        let mask = convert::read_mask_from_wire(read_mask)?;
        let stored = self.call(move |engine| engine.get(&collection, &key)).await?;
        let record = Some(mask.apply(convert::record_to_wire(stored)));
        Ok(Response::new(wire::GetRecordResponse { record }))
    }

    async fn list_records(
        &self,
        request: Request<wire::ListRecordsRequest>,
    ) -> Result<Response<wire::ListRecordsResponse>, Status> {
        collections::list_records(self, request.into_inner()).await.map(Response::new)
    }

    async fn delete_record(
        &self,
        request: Request<wire::DeleteRecordRequest>,
    ) -> Result<Response<wire::DeleteRecordResponse>, Status> {
        let wire::DeleteRecordRequest { collection, key, request_id } = request.into_inner();
        let (collection, key) = names(collection, key)?;
        let id = convert::request_id_from_wire(request_id)?;
        self.call(move |engine| engine.delete_once(&collection, &key, id)).await?;
        Ok(Response::new(wire::DeleteRecordResponse {}))
    }

    async fn update_record(
        &self,
        request: Request<wire::UpdateRecordRequest>,
    ) -> Result<Response<wire::UpdateRecordResponse>, Status> {
        collections::update_record(self, request.into_inner()).await.map(Response::new)
    }

    async fn delete_records(
        &self,
        request: Request<wire::DeleteRecordsRequest>,
    ) -> Result<Response<wire::DeleteRecordsResponse>, Status> {
        collections::delete_records(self, request.into_inner()).await.map(Response::new)
    }

    async fn count_records(
        &self,
        request: Request<wire::CountRecordsRequest>,
    ) -> Result<Response<wire::CountRecordsResponse>, Status> {
        collections::count_records(self, request.into_inner()).await.map(Response::new)
    }

    async fn embed(
        &self,
        request: Request<wire::EmbedRequest>,
    ) -> Result<Response<wire::EmbedResponse>, Status> {
        let wire::EmbedRequest { images, texts } = request.into_inner();
        let inputs = images.len() + texts.len();
        if inputs == 0 || inputs > EMBED_INPUTS_MAX {
            return Err(Status::invalid_argument(format!(
                "the request has {inputs} inputs; send 1 to {EMBED_INPUTS_MAX} images and texts"
            )));
        }
        let (model_id, images, texts, truncated_tokens) = self
            .call(move |engine| {
                let encoder = engine.encoder();
                let images =
                    images.iter().map(|i| encoder.prepare_image(&i.data)).collect::<Result<_, _>>()?;
                let texts = texts.iter().map(|t| encoder.prepare_text(t)).collect::<Result<Vec<_>, _>>()?;
                let truncated_tokens = texts.iter().map(|t| t.truncated_tokens).collect();
                let (images, texts) = engine.embed(images, texts, Urgency::Search)?;
                Ok((encoder.model_id(), images, texts, truncated_tokens))
            })
            .await?;
        let vectors = |all: Vec<_>| all.into_iter().map(convert::vector_to_wire).collect();
        Ok(Response::new(wire::EmbedResponse {
            image_embeddings: vectors(images),
            text_embeddings: vectors(texts),
            model_id: model_id.to_string(),
            truncated_tokens,
        }))
    }

    async fn stats(&self, _: Request<wire::StatsRequest>) -> Result<Response<wire::StatsResponse>, Status> {
        let overview = self.call(Engine::overview).await?;
        Ok(Response::new(convert::overview_to_wire(overview)))
    }
}

fn names(collection: String, key: String) -> Result<(CollectionName, Key), Status> {
    Ok((convert::collection_from_wire(collection)?, convert::key_from_wire(key)?))
}

fn content_bytes(item: &wire::IngestRequest) -> usize {
    let images: usize = item.images.iter().map(|image| image.data.len()).sum();
    images + item.texts.iter().map(String::len).sum::<usize>()
}

/// Ingests the items of a group, answers in order. Runs of one collection and mode go together.
fn ingest_group(
    engine: &Engine,
    caller: &Caller,
    group: Vec<wire::IngestRequest>,
) -> Vec<wire::IngestResponse> {
    let mut answers = Vec::with_capacity(group.len());
    let mut run: Option<(CollectionName, PutMode, Vec<Once>)> = None;
    let flush = |run: &mut Option<(CollectionName, PutMode, Vec<Once>)>,
                 answers: &mut Vec<wire::IngestResponse>| {
        if let Some((collection, mode, records)) = run.take() {
            answers.extend(ingest_run(engine, &collection, mode, records));
        }
    };
    for item in group {
        let key = item.key.clone();
        let allowed = caller.may_enter(&item.collection);
        match allowed.and_then(|()| convert::ingest_from_wire(item)) {
            Ok((collection, mode, record)) => match &mut run {
                Some((c, m, records)) if *c == collection && *m == mode => records.push(record),
                _ => {
                    flush(&mut run, &mut answers);
                    run = Some((collection, mode, vec![record]));
                }
            },
            Err(status) => {
                flush(&mut run, &mut answers);
                answers.push(convert::ingest_error(key, &status));
            }
        }
    }
    flush(&mut run, &mut answers);
    let written = [wire::WriteOutcome::Created, wire::WriteOutcome::Updated];
    caller.count(answers.iter().filter(|answer| written.contains(&answer.outcome())).count() as u64);
    answers
}

fn ingest_run(
    engine: &Engine,
    collection: &CollectionName,
    mode: PutMode,
    records: Vec<Once>,
) -> Vec<wire::IngestResponse> {
    let keys: Vec<String> = records.iter().map(|(new, _)| new.key.to_string()).collect();
    let answer = |key: String, result: Result<Written, EngineError>| match result {
        Ok(written) => convert::written_to_wire(key, &written),
        Err(error) => convert::ingest_error(key, &status::from_engine(&error)),
    };
    match engine.ingest_once(collection, records, mode) {
        Ok(results) => keys.into_iter().zip(results).map(|(key, result)| answer(key, result)).collect(),
        Err(error) => {
            let status = status::from_engine(&error);
            keys.into_iter().map(|key| convert::ingest_error(key, &status)).collect()
        }
    }
}
