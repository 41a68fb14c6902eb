//! The retrieval service, seen through a key: the collection that a request names is asked for
//! before the request is handled, and what is given out is counted.
//!
//! One method per RPC: an RPC that is new cannot be compiled without one. Deliberately absent:
//! roles and limits, which the guard has checked before.

use diptych_proto::v1 as wire;
use diptych_proto::v1::retrieval_service_server::RetrievalService;
use tonic::{Request, Response, Status, Streaming};

use super::caller::Caller;

/// A service behind the question whether the key is for the collection.
pub(crate) struct Scoped<S>(pub(crate) S);

/// A request, by the collection that it names.
trait Names {
    /// As the wire has it; `None` for a request that names none.
    fn collection(&self) -> Option<&str>;
}

macro_rules! names_collection {
    ($($message:ident),*) => {
        $(impl Names for wire::$message {
            fn collection(&self) -> Option<&str> {
                Some(&self.collection)
            }
        })*
    };
}

names_collection!(SearchRequest, GetRecordRequest, ListRecordsRequest, DeleteRecordRequest);

impl Names for wire::EmbedRequest {
    fn collection(&self) -> Option<&str> {
        None
    }
}

impl Names for wire::StatsRequest {
    fn collection(&self) -> Option<&str> {
        None
    }
}

/// Asks, lets the service answer, and counts the records of the answer.
async fn through<Q: Names, A>(
    request: Request<Q>,
    answer: impl AsyncFnOnce(Request<Q>) -> Result<Response<A>, Status>,
    records: impl FnOnce(&A) -> usize,
) -> Result<Response<A>, Status> {
    let caller = Caller::current()?;
    if let Some(collection) = request.get_ref().collection() {
        caller.may_enter(collection)?;
    }
    caller.in_time()?;
    let response = answer(request).await?;
    caller.count(records(response.get_ref()) as u64);
    Ok(response)
}

#[tonic::async_trait]
impl<S: RetrievalService> RetrievalService for Scoped<S> {
    async fn search(
        &self,
        request: Request<wire::SearchRequest>,
    ) -> Result<Response<wire::SearchResponse>, Status> {
        through(request, async |request| self.0.search(request).await, |answer| answer.hits.len()).await
    }

    type IngestStream = S::IngestStream;

    /// Each item names its own collection: each is asked for, and counted, where it is read.
    async fn ingest(
        &self,
        request: Request<Streaming<wire::IngestRequest>>,
    ) -> Result<Response<Self::IngestStream>, Status> {
        Caller::current()?.in_time()?;
        self.0.ingest(request).await
    }

    async fn get_record(
        &self,
        request: Request<wire::GetRecordRequest>,
    ) -> Result<Response<wire::GetRecordResponse>, Status> {
        through(
            request,
            async |request| self.0.get_record(request).await,
            |answer| usize::from(answer.record.is_some()),
        )
        .await
    }

    async fn list_records(
        &self,
        request: Request<wire::ListRecordsRequest>,
    ) -> Result<Response<wire::ListRecordsResponse>, Status> {
        through(request, async |request| self.0.list_records(request).await, |answer| answer.records.len())
            .await
    }

    async fn delete_record(
        &self,
        request: Request<wire::DeleteRecordRequest>,
    ) -> Result<Response<wire::DeleteRecordResponse>, Status> {
        through(request, async |request| self.0.delete_record(request).await, |_| 1).await
    }

    async fn embed(
        &self,
        request: Request<wire::EmbedRequest>,
    ) -> Result<Response<wire::EmbedResponse>, Status> {
        through(request, async |request| self.0.embed(request).await, |_| 0).await
    }

    /// Only of the collections that the key is for.
    async fn stats(
        &self,
        request: Request<wire::StatsRequest>,
    ) -> Result<Response<wire::StatsResponse>, Status> {
        let caller = Caller::current()?;
        let mut response = through(request, async |request| self.0.stats(request).await, |_| 0).await?;
        response.get_mut().collections.retain(|collection| caller.sees(&collection.name));
        Ok(response)
    }
}
