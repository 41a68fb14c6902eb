//! `diptych.v1.CollectionService` and `OperationService`, and what the retrieval service does with records
//! beside storing and finding them.

use std::time::Duration;

use diptych_core::Target;
use diptych_engine::{Deletion, Rebuilt};
use diptych_proto::convert::facet_counts_to_wire;
use diptych_proto::v1 as wire;
use diptych_proto::v1::collection_service_server::CollectionService;
use diptych_proto::v1::operation_service_server::OperationService;
use tonic::{Request, Response, Status};

use crate::convert;
use crate::operations::{Done, Handle};
use crate::service::Retrieval;

const PAGE_SIZE_DEFAULT: u32 = 100;
const PAGE_SIZE_MAX: u32 = 1000;
/// How long a request for a deletion waits for it: most are done by then.
const PATIENCE: Duration = Duration::from_millis(500);

/// The length of a page that is asked for.
pub(crate) fn page_limit(page_size: u32) -> usize {
    match page_size {
        0 => PAGE_SIZE_DEFAULT as usize,
        n => n.min(PAGE_SIZE_MAX) as usize,
    }
}

/// The services of collections and operations, beside the one of their records.
#[derive(Clone)]
pub(crate) struct Collections(pub(crate) Retrieval);

#[tonic::async_trait]
impl CollectionService for Collections {
    async fn create_collection(
        &self,
        request: Request<wire::CreateCollectionRequest>,
    ) -> Result<Response<wire::CreateCollectionResponse>, Status> {
        let wire::CreateCollectionRequest { name, schema } = request.into_inner();
        let name = convert::named_collection_from_wire(name)?;
        let schema = convert::schema_from_wire(schema)?;
        let info = self.0.call(move |engine| engine.create_collection(&name, schema)).await?;
        let collection = Some(convert::collection_to_wire(info));
        Ok(Response::new(wire::CreateCollectionResponse { collection }))
    }

    async fn list_collections(
        &self,
        request: Request<wire::ListCollectionsRequest>,
    ) -> Result<Response<wire::ListCollectionsResponse>, Status> {
        let wire::ListCollectionsRequest { page_size, page_token } = request.into_inner();
        let after = convert::collection_token_from_wire(page_token)?;
        let limit = page_limit(page_size);
        // One more than asked tells whether there is a next page.
        let mut infos = self.0.call(move |engine| engine.list_collections(after.as_ref(), limit + 1)).await?;
        let more = infos.len() > limit;
        infos.truncate(limit);
        let next_page_token = match infos.last() {
            Some(last) if more => last.name.to_string(),
            _ => String::new(),
        };
        let collections = infos.into_iter().map(convert::collection_to_wire).collect();
        Ok(Response::new(wire::ListCollectionsResponse { collections, next_page_token }))
    }

    async fn get_collection(
        &self,
        request: Request<wire::GetCollectionRequest>,
    ) -> Result<Response<wire::GetCollectionResponse>, Status> {
        let name = convert::collection_from_wire(request.into_inner().name)?;
        let info = self.0.call(move |engine| engine.describe_collection(&name)).await?;
        let collection = Some(convert::collection_to_wire(info));
        Ok(Response::new(wire::GetCollectionResponse { collection }))
    }

    async fn delete_collection(
        &self,
        request: Request<wire::DeleteCollectionRequest>,
    ) -> Result<Response<wire::DeleteCollectionResponse>, Status> {
        let name = convert::named_collection_from_wire(request.into_inner().name)?;
        self.0.call(move |engine| engine.delete_collection(&name)).await?;
        Ok(Response::new(wire::DeleteCollectionResponse {}))
    }

    async fn rebuild_index(
        &self,
        request: Request<wire::RebuildIndexRequest>,
    ) -> Result<Response<wire::RebuildIndexResponse>, Status> {
        let name = convert::collection_from_wire(request.into_inner().collection)?;
        // Refused now rather than by an operation that fails.
        let known = name.clone();
        self.0.call(move |engine| engine.describe_collection(&known)).await?;
        let engine = self.0.engine();
        let kind = wire::OperationKind::RebuildIndex;
        let handle = self.0.operations().start(kind, name.to_string(), move |handle: &Handle| {
            let result = |indexed_points| wire::OperationResult { indexed_points, ..Default::default() };
            let Rebuilt { points, stopped } =
                engine.rebuild(&name, |taken, total| handle.progress(taken, total, result(taken)))?;
            Ok(Done { result: result(points), stopped })
        })?;
        let operation = Some(handle.wait(PATIENCE).await);
        Ok(Response::new(wire::RebuildIndexResponse { operation }))
    }
}

#[tonic::async_trait]
impl OperationService for Collections {
    async fn get_operation(
        &self,
        request: Request<wire::GetOperationRequest>,
    ) -> Result<Response<wire::GetOperationResponse>, Status> {
        let wire::GetOperationRequest { name, wait_millis } = request.into_inner();
        let handle = self.0.operations().get(&name)?;
        let operation = match wait_millis {
            0 => handle.now(),
            wait => handle.wait(Duration::from_millis(wait.into())).await,
        };
        Ok(Response::new(wire::GetOperationResponse { operation: Some(operation) }))
    }

    async fn list_operations(
        &self,
        request: Request<wire::ListOperationsRequest>,
    ) -> Result<Response<wire::ListOperationsResponse>, Status> {
        let wire::ListOperationsRequest { page_size, page_token } = request.into_inner();
        let (operations, next_page_token) = self.0.operations().page(&page_token, page_limit(page_size))?;
        Ok(Response::new(wire::ListOperationsResponse { operations, next_page_token }))
    }

    async fn cancel_operation(
        &self,
        request: Request<wire::CancelOperationRequest>,
    ) -> Result<Response<wire::CancelOperationResponse>, Status> {
        self.0.operations().get(&request.into_inner().name)?.cancel();
        Ok(Response::new(wire::CancelOperationResponse {}))
    }
}

/// A page of records.
pub(crate) async fn list_records(
    retrieval: &Retrieval,
    request: wire::ListRecordsRequest,
) -> Result<wire::ListRecordsResponse, Status> {
    let wire::ListRecordsRequest { collection, page_size, page_token, filter, read_mask } = request;
    let collection = convert::collection_from_wire(collection)?;
    let after = convert::page_token_from_wire(&page_token)?;
    let filter = filter.map(convert::filter_from_wire).transpose()?;
    let mask = convert::read_mask_from_wire(read_mask)?;
    let limit = page_limit(page_size);
    let page = retrieval
        .call(move |engine| engine.list_page(&collection, after.as_ref(), limit, filter.as_ref()))
        .await?;
    let next_page_token = page.next.as_ref().map(convert::page_token_to_wire).unwrap_or_default();
    let records = page.records.into_iter().map(|stored| mask.apply(convert::record_to_wire(stored)));
    Ok(wire::ListRecordsResponse { records: records.collect(), next_page_token })
}

/// New attributes for a record.
pub(crate) async fn update_record(
    retrieval: &Retrieval,
    request: wire::UpdateRecordRequest,
) -> Result<wire::UpdateRecordResponse, Status> {
    let wire::UpdateRecordRequest { collection, record, update_mask, request_id } = request;
    let collection = convert::collection_from_wire(collection)?;
    let (key, change) = convert::update_from_wire(record, update_mask)?;
    let id = convert::request_id_from_wire(request_id)?;
    let changed =
        retrieval.call(move |engine| engine.update_attributes(&collection, &key, &change, id)).await?;
    Ok(convert::changed_to_wire(changed))
}

/// A deletion of the records that meet a filter, as an operation.
pub(crate) async fn delete_records(
    retrieval: &Retrieval,
    request: wire::DeleteRecordsRequest,
) -> Result<wire::DeleteRecordsResponse, Status> {
    let wire::DeleteRecordsRequest { collection, filter, dry_run, request_id } = request;
    let collection = convert::collection_from_wire(collection)?;
    let filter = filter.ok_or_else(|| {
        Status::invalid_argument("the request has no filter; set one, or delete the collection to delete all")
    })?;
    let filter = convert::filter_from_wire(filter)?;
    let id = convert::request_id_from_wire(request_id)?;
    let (counted, counting) = (collection.clone(), filter.clone());
    let counted = retrieval.call(move |engine| engine.count(&counted, Some(&counting))).await?;
    let (matching_records, notes) = (counted.records, counted.notes);
    if dry_run {
        return Ok(wire::DeleteRecordsResponse { matching_records, operation: None, notes });
    }
    let engine = retrieval.engine();
    let kind = wire::OperationKind::DeleteRecords;
    let handle = retrieval.operations().start(kind, collection.to_string(), move |handle: &Handle| {
        let result = |deleted_records| wire::OperationResult { deleted_records, ..Default::default() };
        let Deletion { deleted, stopped } =
            engine.delete_matching(&collection, &filter, id, |done, total| {
                handle.progress(done, total, result(done))
            })?;
        Ok(Done { result: result(deleted), stopped })
    })?;
    let operation = Some(handle.wait(PATIENCE).await);
    Ok(wire::DeleteRecordsResponse { matching_records, operation, notes })
}

/// How many records meet a filter.
pub(crate) async fn count_records(
    retrieval: &Retrieval,
    request: wire::CountRecordsRequest,
) -> Result<wire::CountRecordsResponse, Status> {
    let collection = convert::collection_from_wire(request.collection)?;
    let filter = request.filter.map(convert::filter_from_wire).transpose()?;
    let facets = convert::facets_from_wire(request.facets)?;
    let (counted, facets) = retrieval
        .call(move |engine| {
            let filter = filter.as_ref();
            let facets = engine.facets(&collection, &facets, filter, Target::Both)?;
            Ok((engine.count(&collection, filter)?, facets))
        })
        .await?;
    let facets = facets.into_iter().map(facet_counts_to_wire).collect();
    Ok(wire::CountRecordsResponse { records: counted.records, notes: counted.notes, facets })
}
