//! The services of records, collections, operations and backups, seen through a key: the collection that a request names is asked for
//! before the request is handled, and what is given out is counted.
//!
//! One method per RPC: an RPC that is new cannot be compiled without one. Deliberately absent:
//! roles and limits, which the guard has checked before.

use diptych_proto::v1 as wire;
use diptych_proto::v1::backup_service_server::BackupService;
use diptych_proto::v1::case_service_server::CaseService;
use diptych_proto::v1::collection_service_server::CollectionService;
use diptych_proto::v1::operation_service_server::OperationService;
use diptych_proto::v1::retrieval_service_server::RetrievalService;
use tonic::{Request, Response, Status, Streaming};

use super::caller::Caller;
use crate::convert::replayed;

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

names_collection!(
    SearchRequest,
    ClassifyRequest,
    FindSimilarRequest,
    GetRecordRequest,
    ListRecordsRequest,
    DeleteRecordRequest,
    UpdateRecordRequest,
    DeleteRecordsRequest,
    CountRecordsRequest,
    ExportRequest,
    RebuildIndexRequest
);

macro_rules! is_a_collection {
    ($($message:ident),*) => {
        $(impl Names for wire::$message {
            fn collection(&self) -> Option<&str> {
                Some(&self.name)
            }
        })*
    };
}

is_a_collection!(CreateCollectionRequest, GetCollectionRequest, DeleteCollectionRequest);

macro_rules! names_none {
    ($($message:ident),*) => {
        $(impl Names for wire::$message {
            fn collection(&self) -> Option<&str> {
                None
            }
        })*
    };
}

impl Names for wire::ReplayRequest {
    fn collection(&self) -> Option<&str> {
        replayed(self).map(|request| request.collection.as_str())
    }
}

impl Names for wire::DraftRequest {
    fn collection(&self) -> Option<&str> {
        self.similar.as_ref().map(|similar| similar.collection.as_str())
    }
}

names_none!(EmbedRequest, StatsRequest, ListCollectionsRequest, ListOperationsRequest);

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

    type BatchSearchStream = S::BatchSearchStream;

    /// Each search names its own collection: each is asked for, and counted, where it is read.
    async fn batch_search(
        &self,
        request: Request<Streaming<wire::BatchSearchRequest>>,
    ) -> Result<Response<Self::BatchSearchStream>, Status> {
        Caller::current()?.in_time()?;
        self.0.batch_search(request).await
    }

    async fn replay(
        &self,
        request: Request<wire::ReplayRequest>,
    ) -> Result<Response<wire::ReplayResponse>, Status> {
        let hits = |answer: &wire::ReplayResponse| answer.response.as_ref().map_or(0, |r| r.hits.len());
        through(request, async |request| self.0.replay(request).await, hits).await
    }

    async fn classify(
        &self,
        request: Request<wire::ClassifyRequest>,
    ) -> Result<Response<wire::ClassifyResponse>, Status> {
        through(request, async |request| self.0.classify(request).await, |_| 0).await
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

    async fn update_record(
        &self,
        request: Request<wire::UpdateRecordRequest>,
    ) -> Result<Response<wire::UpdateRecordResponse>, Status> {
        through(request, async |request| self.0.update_record(request).await, |_| 1).await
    }

    async fn delete_records(
        &self,
        request: Request<wire::DeleteRecordsRequest>,
    ) -> Result<Response<wire::DeleteRecordsResponse>, Status> {
        let deleted = |answer: &wire::DeleteRecordsResponse| match answer.operation {
            Some(_) => usize::try_from(answer.matching_records).unwrap_or(usize::MAX),
            None => 0,
        };
        through(request, async |request| self.0.delete_records(request).await, deleted).await
    }

    async fn count_records(
        &self,
        request: Request<wire::CountRecordsRequest>,
    ) -> Result<Response<wire::CountRecordsResponse>, Status> {
        through(request, async |request| self.0.count_records(request).await, |_| 0).await
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

#[tonic::async_trait]
impl<S: CaseService> CaseService for Scoped<S> {
    async fn find_similar(
        &self,
        request: Request<wire::FindSimilarRequest>,
    ) -> Result<Response<wire::FindSimilarResponse>, Status> {
        through(request, async |request| self.0.find_similar(request).await, |answer| answer.cases.len())
            .await
    }

    async fn draft(
        &self,
        request: Request<wire::DraftRequest>,
    ) -> Result<Response<wire::DraftResponse>, Status> {
        through(request, async |request| self.0.draft(request).await, |answer| answer.keys.len()).await
    }
}

#[tonic::async_trait]
impl<S: CollectionService> CollectionService for Scoped<S> {
    async fn create_collection(
        &self,
        request: Request<wire::CreateCollectionRequest>,
    ) -> Result<Response<wire::CreateCollectionResponse>, Status> {
        through(request, async |request| self.0.create_collection(request).await, |_| 0).await
    }

    /// Only those that the key is for.
    async fn list_collections(
        &self,
        request: Request<wire::ListCollectionsRequest>,
    ) -> Result<Response<wire::ListCollectionsResponse>, Status> {
        let caller = Caller::current()?;
        let mut response =
            through(request, async |request| self.0.list_collections(request).await, |_| 0).await?;
        response.get_mut().collections.retain(|collection| caller.sees(&collection.name));
        Ok(response)
    }

    async fn get_collection(
        &self,
        request: Request<wire::GetCollectionRequest>,
    ) -> Result<Response<wire::GetCollectionResponse>, Status> {
        through(request, async |request| self.0.get_collection(request).await, |_| 0).await
    }

    async fn delete_collection(
        &self,
        request: Request<wire::DeleteCollectionRequest>,
    ) -> Result<Response<wire::DeleteCollectionResponse>, Status> {
        through(request, async |request| self.0.delete_collection(request).await, |_| 0).await
    }

    async fn rebuild_index(
        &self,
        request: Request<wire::RebuildIndexRequest>,
    ) -> Result<Response<wire::RebuildIndexResponse>, Status> {
        through(request, async |request| self.0.rebuild_index(request).await, |_| 0).await
    }
}

/// An operation is its collection's: a key that is not for that learns nothing of it.
#[tonic::async_trait]
impl<S: OperationService> OperationService for Scoped<S> {
    async fn get_operation(
        &self,
        request: Request<wire::GetOperationRequest>,
    ) -> Result<Response<wire::GetOperationResponse>, Status> {
        let caller = Caller::current()?;
        caller.in_time()?;
        let response = self.0.get_operation(request).await?;
        if let Some(operation) = &response.get_ref().operation {
            caller.may_enter(&operation.collection)?;
        }
        Ok(response)
    }

    async fn list_operations(
        &self,
        request: Request<wire::ListOperationsRequest>,
    ) -> Result<Response<wire::ListOperationsResponse>, Status> {
        let caller = Caller::current()?;
        let mut response =
            through(request, async |request| self.0.list_operations(request).await, |_| 0).await?;
        response.get_mut().operations.retain(|operation| caller.sees(&operation.collection));
        Ok(response)
    }

    async fn cancel_operation(
        &self,
        request: Request<wire::CancelOperationRequest>,
    ) -> Result<Response<wire::CancelOperationResponse>, Status> {
        let named = wire::GetOperationRequest { name: request.get_ref().name.clone(), wait_millis: 0 };
        self.get_operation(Request::new(named)).await?;
        self.0.cancel_operation(request).await
    }
}

#[tonic::async_trait]
impl<S: BackupService> BackupService for Scoped<S> {
    type BackupStream = S::BackupStream;

    /// Of all collections, so for a key that is for all.
    async fn backup(
        &self,
        request: Request<wire::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        let caller = Caller::current()?;
        caller.may_all()?;
        caller.in_time()?;
        self.0.backup(request).await
    }

    type ExportStream = S::ExportStream;

    /// Records are counted as they are sent.
    async fn export(
        &self,
        request: Request<wire::ExportRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        through(request, async |request| self.0.export(request).await, |_| 0).await
    }

    type ImportStream = S::ImportStream;

    /// Each item names its own collection: each is asked for, and counted, where it is read.
    async fn import(
        &self,
        request: Request<Streaming<wire::ImportRequest>>,
    ) -> Result<Response<Self::ImportStream>, Status> {
        Caller::current()?.in_time()?;
        self.0.import(request).await
    }
}
