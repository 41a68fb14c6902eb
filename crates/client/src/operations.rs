//! Operations: work that goes on after its request was answered.

use std::time::Duration;

use diptych_core::Time;
use diptych_proto::v1 as wire;
use futures_util::stream;
use tokio_stream::Stream;

use crate::answer::{time, token};
use crate::client::Repeat;
use crate::{Client, Error};

pub use wire::OperationKind;

/// How long one question waits at the server for the end.
const WAIT: Duration = Duration::from_secs(1);
/// Operations that are asked for at once.
const PAGE: u32 = 100;

/// Work that goes on after its request was answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    /// Its name, such as `operations/67430c1a-3`.
    pub name: String,
    /// What it does.
    pub kind: OperationKind,
    /// The collection that it works on.
    pub collection: String,
    /// Whether it has ended, well or not.
    pub done: bool,
    /// Records or points dealt with.
    pub completed: u64,
    /// Records or points to deal with; 0 until they are counted.
    pub total: u64,
    /// Why it ended before it was through; absent while it runs, and when it ended well.
    pub error: Option<Error>,
    /// Records deleted so far.
    pub deleted_records: u64,
    /// Points indexed so far.
    pub indexed_points: u64,
    /// When it began.
    pub started: Option<Time>,
    /// When it ended; absent while it runs.
    pub ended: Option<Time>,
}

impl Operation {
    pub(crate) fn from_wire(operation: Option<wire::Operation>) -> Result<Self, Error> {
        let operation = operation.ok_or_else(|| Error::lacks("operation"))?;
        let kind = operation.kind();
        let (progress, result) =
            (operation.progress.unwrap_or_default(), operation.result.unwrap_or_default());
        Ok(Self {
            name: operation.name,
            kind,
            collection: operation.collection,
            done: operation.done,
            completed: progress.completed,
            total: progress.total,
            error: operation.error.map(|error| Error::of_item(error.code, error.message)),
            deleted_records: result.deleted_records,
            indexed_points: result.indexed_points,
            started: time(operation.start_time, "start_time")?,
            ended: time(operation.end_time, "end_time")?,
        })
    }

    /// What it does, in words: `delete records`, `rebuild index`.
    pub fn what(&self) -> String {
        let name = self.kind.as_str_name();
        name.strip_prefix("OPERATION_KIND_").unwrap_or(name).to_lowercase().replace('_', " ")
    }
}

impl Client {
    /// How far an operation is.
    ///
    /// # Errors
    /// [`Error::Status`], `NotFound` when the server has forgotten it.
    pub async fn operation(&self, name: &str) -> Result<Operation, Error> {
        self.ask(name, Duration::ZERO).await
    }

    /// Waits for the end of an operation, which is told how far it is in between. That it ended before it was through is
    /// in its `error`.
    ///
    /// # Errors
    /// [`Error::Status`], `NotFound` when the server has forgotten it.
    pub async fn wait(&self, name: &str, mut progress: impl FnMut(&Operation)) -> Result<Operation, Error> {
        // An answer that waits must come within the timeout of its call.
        let wait = self.timeout().map_or(WAIT, |timeout| WAIT.min(timeout / 2));
        let mut operation = self.operation(name).await?;
        while !operation.done {
            progress(&operation);
            operation = self.ask(name, wait).await?;
        }
        Ok(operation)
    }

    /// Operations, the latest first, page by page; it ends with the last page, or with an error.
    pub fn operations(&self) -> impl Stream<Item = Result<Vec<Operation>, Error>> + Send + 'static {
        let client = self.clone();
        stream::unfold(Some(String::new()), move |page_token| {
            let client = client.clone();
            async move {
                match client.page_of_operations(page_token?).await {
                    Ok((operations, next)) => Some((Ok(operations), next)),
                    Err(error) => Some((Err(error), None)),
                }
            }
        })
    }

    /// Asks an operation to stop. What it has done stays done.
    ///
    /// # Errors
    /// [`Error::Status`], `NotFound` when the server has forgotten it.
    pub async fn cancel(&self, name: &str) -> Result<(), Error> {
        let request = wire::CancelOperationRequest { name: name.to_owned() };
        let answer = self.call(Repeat::Safe, request, |request| {
            let mut client = self.operations_service();
            async move { client.cancel_operation(request).await }
        });
        answer.await.map(drop)
    }

    async fn ask(&self, name: &str, wait: Duration) -> Result<Operation, Error> {
        let wait_millis = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        let request = wire::GetOperationRequest { name: name.to_owned(), wait_millis };
        let answer = self.call(Repeat::Safe, request, |request| {
            let mut client = self.operations_service();
            async move { client.get_operation(request).await }
        });
        Operation::from_wire(answer.await?.operation)
    }

    async fn page_of_operations(
        &self,
        page_token: String,
    ) -> Result<(Vec<Operation>, Option<String>), Error> {
        let request = wire::ListOperationsRequest { page_size: PAGE, page_token };
        let answer = self.call(Repeat::Safe, request, |request| {
            let mut client = self.operations_service();
            async move { client.list_operations(request).await }
        });
        let page = answer.await?;
        let operations = page.operations.into_iter().map(|operation| Operation::from_wire(Some(operation)));
        Ok((operations.collect::<Result<_, _>>()?, token(page.next_page_token)))
    }
}
