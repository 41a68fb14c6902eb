//! The service of cases: similar ones, and drafts of reports.
//!
//! Deliberately absent: what makes cases similar and which sentences agree, which is the crate `cases`.

use diptych_cases::{CaseError, draft, find_similar};
use diptych_proto::v1 as wire;
use diptych_proto::v1::case_service_server::CaseService;
use tonic::{Request, Response, Status};

use crate::service::Retrieval;
use crate::{convert, status};

/// The service over what it shares with the others.
#[derive(Clone)]
pub(crate) struct Cases(pub(crate) Retrieval);

#[tonic::async_trait]
impl CaseService for Cases {
    async fn find_similar(
        &self,
        request: Request<wire::FindSimilarRequest>,
    ) -> Result<Response<wire::FindSimilarResponse>, Status> {
        let (collection, query) = convert::similar_from_wire(request.into_inner())?;
        let found = self.0.call(move |engine| Ok(find_similar(engine, &collection, query))).await?;
        Ok(Response::new(convert::similar_to_wire(found.map_err(|error| refused(&error))?)))
    }

    async fn draft(
        &self,
        request: Request<wire::DraftRequest>,
    ) -> Result<Response<wire::DraftResponse>, Status> {
        let (collection, query, options) = convert::draft_from_wire(request.into_inner())?;
        let drafted = self.0.call(move |engine| Ok(draft(engine, &collection, query, &options))).await?;
        Ok(Response::new(convert::draft_to_wire(drafted.map_err(|error| refused(&error))?)))
    }
}

fn refused(error: &CaseError) -> Status {
    match error {
        CaseError::Engine(error) => status::from_engine(error),
        CaseError::Empty
        | CaseError::Range { .. }
        | CaseError::NoPatient
        | CaseError::Query(_)
        | CaseError::Filter(_) => Status::invalid_argument(error.to_string()),
    }
}
