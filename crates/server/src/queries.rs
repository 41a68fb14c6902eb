//! What is asked beside single searches: many searches on one stream, an earlier search again, labels.
//!
//! Owns: the order and the number of searches of a stream, and the comparison of an answer with an earlier
//! one. Deliberately absent: how a search is answered, which is the service's.

use std::sync::Arc;

use diptych_proto::v1 as wire;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::{Status, Streaming};

use crate::access::Caller;
use crate::convert;
use crate::observe::Observed;
use crate::service::Retrieval;

/// Searches of one stream that are in work or wait to be sent at the most: as many as fill a batch of the
/// model.
const IN_WORK_MAX: usize = 32;

/// What comes next on a stream of answers.
enum Next {
    Answer(JoinHandle<wire::BatchSearchResponse>),
    /// The end, with what broke the stream.
    Broken(Status),
}

/// Answers the searches of a stream side by side, in their order.
pub(crate) fn batch_search(
    retrieval: &Retrieval,
    mut items: Streaming<wire::BatchSearchRequest>,
) -> Result<mpsc::Receiver<Result<wire::BatchSearchResponse, Status>>, Status> {
    let work = Arc::new(Batch {
        retrieval: retrieval.clone(),
        caller: Caller::current()?,
        observed: Observed::current(),
    });
    let (answers, receive) = mpsc::channel(1);
    let (order, mut ordered) = mpsc::channel(IN_WORK_MAX);
    tokio::spawn(async move {
        // Read no further than answers are taken; a client that has left takes none.
        while let Ok(place) = order.reserve().await {
            match work.caller.before_deadline(items.message()).await {
                Ok(Ok(Some(item))) => {
                    let work = Arc::clone(&work);
                    place.send(Next::Answer(tokio::spawn(async move { work.answer(item).await })));
                }
                Ok(Ok(None)) => return,
                Ok(Err(status)) | Err(status) => return place.send(Next::Broken(status)),
            }
        }
    });
    tokio::spawn(async move {
        while let Some(next) = ordered.recv().await {
            let answer = match next {
                Next::Broken(status) => Err(status),
                Next::Answer(task) => task.await.map_err(|_| {
                    Status::internal("a search failed inside the server; report this if it persists")
                }),
            };
            if answers.send(answer).await.is_err() {
                return;
            }
        }
    });
    Ok(receive)
}

/// What the searches of one stream share.
struct Batch {
    retrieval: Retrieval,
    caller: Caller,
    observed: Observed,
}

impl Batch {
    async fn answer(&self, item: wire::BatchSearchRequest) -> wire::BatchSearchResponse {
        use wire::batch_search_response::Outcome;
        let wire::BatchSearchRequest { search, id } = item;
        let outcome = match self.search(search).await {
            Ok(response) => Outcome::Response(response),
            Err(status) => {
                let (code, message) = (status.code() as i32, status.message().to_owned());
                Outcome::Error(wire::ItemError { code, message })
            }
        };
        wire::BatchSearchResponse { id, outcome: Some(outcome) }
    }

    async fn search(&self, request: Option<wire::SearchRequest>) -> Result<wire::SearchResponse, Status> {
        let request = request.ok_or_else(|| {
            Status::invalid_argument("the item has no search; set the request of one in it")
        })?;
        self.caller.may_enter(&request.collection)?;
        let call = convert::search_from_wire(request)?;
        let place = self.caller.before_deadline(self.retrieval.admit_in_turn()).await?;
        let (caller, observed) = (self.caller.clone(), self.observed.clone());
        let response = self.retrieval.answer(place, caller, observed, call).await?;
        self.caller.count(response.hits.len() as u64);
        Ok(response)
    }
}

/// Asks again what a receipt is of.
pub(crate) async fn replay(
    retrieval: &Retrieval,
    request: wire::ReplayRequest,
) -> Result<wire::ReplayResponse, Status> {
    let (call, receipt) = convert::replay_from_wire(request)?;
    let (collection, generation) = (call.collection.clone(), receipt.generation);
    let (model, same_generation) = retrieval
        .call(move |engine| {
            let model = engine.encoder().model_id().to_string();
            Ok((model, engine.unchanged_since(&collection, generation)?))
        })
        .await?;
    if model != receipt.model_id {
        return Err(Status::failed_precondition(format!(
            "the receipt is of another model than the server's, which is {}; search anew",
            model.get(..12).unwrap_or(&model)
        )));
    }
    let (place, caller) = (retrieval.admit()?, Caller::current()?);
    let response = retrieval.answer(place, caller, Observed::current(), call).await?;
    let identical = response.receipt.as_ref().is_some_and(|now| now.hits_digest == receipt.hits_digest);
    Ok(wire::ReplayResponse { response: Some(response), identical, same_generation })
}

/// Compares something with labels.
pub(crate) async fn classify(
    retrieval: &Retrieval,
    request: wire::ClassifyRequest,
) -> Result<wire::ClassifyResponse, Status> {
    let convert::ClassifyCall { collection, subject, labels, templates, k } =
        convert::classify_from_wire(request)?;
    retrieval
        .call(move |engine| {
            let classified = engine.classify(&collection, &subject, &labels, &templates)?;
            let (model, logits) = (engine.encoder().model_id(), engine.encoder().logits());
            Ok(convert::classified_to_wire(classified, k, model, logits.bias.is_some()))
        })
        .await
}
