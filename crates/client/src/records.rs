//! Records: reading, counting, changing and deleting them.

use diptych_core::{AttributeValue, Attributes, Facet, FacetCounts, Key, RequestId};
use diptych_proto::FieldMask;
use diptych_proto::convert::{attributes_to_wire, facet_to_wire};
use diptych_proto::v1 as wire;
use futures_util::stream;
use tokio_stream::Stream;

use crate::answer::{facets, token};
use crate::client::{Repeat, fresh_request_id};
use crate::search::{IntoFilter, condition};
use crate::{Client, Error, Operation, Record};

/// Which records are read, and what of them. What is wrong with it is said when it is sent.
#[derive(Debug, Clone, Default)]
pub struct List {
    request: wire::ListRecordsRequest,
    problem: Option<Error>,
}

impl List {
    /// All records, in the order of their keys, 100 on a page.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only those that meet a condition. A page may then hold fewer than asked for, or none, and not be the last.
    #[must_use]
    pub fn filter(mut self, filter: impl IntoFilter) -> Self {
        match condition(filter) {
            Ok(filter) => self.request.filter = Some(filter),
            Err(error) => drop(self.problem.get_or_insert(error)),
        }
        self
    }

    /// What is wanted beside the key: `parts`, `attributes`, `attributes.NAME`, `seq`; all unless this is said.
    #[must_use]
    pub fn fields<S: Into<String>>(mut self, fields: impl IntoIterator<Item = S>) -> Self {
        self.request.read_mask = mask(fields);
        self
    }

    /// Most records on a page, at most 1000.
    #[must_use]
    pub fn page_size(mut self, records: u32) -> Self {
        self.request.page_size = records;
        self
    }
}

/// A number of records, and what may be said of the condition.
#[derive(Debug, Clone, PartialEq)]
pub struct Counted {
    /// So many.
    pub records: u64,
    /// Why a condition meets no record, such as a name that no record has.
    pub notes: Vec<String>,
    /// The counts of attribute values, as they were asked for, in that order.
    pub facets: Vec<FacetCounts>,
}

/// Which records are counted, and which values of theirs. What is wrong with it is said when it is sent.
#[derive(Debug, Clone, Default)]
pub struct Count {
    request: wire::CountRecordsRequest,
    problem: Option<Error>,
}

impl Count {
    /// All records.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only those that meet a condition.
    #[must_use]
    pub fn filter(mut self, filter: impl IntoFilter) -> Self {
        match condition(filter) {
            Ok(filter) => self.request.filter = Some(filter),
            Err(error) => drop(self.problem.get_or_insert(error)),
        }
        self
    }

    /// Also counts the values of an attribute, over the same records.
    #[must_use]
    pub fn facet(mut self, facet: &Facet) -> Self {
        self.request.facets.push(facet_to_wire(facet));
        self
    }
}

/// A change of attributes; the record is not encoded again.
#[derive(Debug, Clone)]
pub struct Update {
    key: Key,
    set: Attributes,
    unset: Vec<String>,
    replace: bool,
    request_id: Option<RequestId>,
}

impl Update {
    /// No change yet of a record's attributes.
    pub fn new(key: Key) -> Self {
        Self { key, set: Attributes::new(), unset: Vec::new(), replace: false, request_id: None }
    }

    /// Sets an attribute.
    #[must_use]
    pub fn set(mut self, name: impl Into<String>, value: impl Into<AttributeValue>) -> Self {
        self.set.insert(name.into(), value.into());
        self
    }

    /// Deletes an attribute.
    #[must_use]
    pub fn unset(mut self, name: impl Into<String>) -> Self {
        self.unset.push(name.into());
        self
    }

    /// Deletes all attributes that are not set here.
    #[must_use]
    pub fn replace(mut self) -> Self {
        self.replace = true;
        self
    }

    /// Repeated with the same id it is done once; the client makes one when none is given.
    #[must_use]
    pub fn request_id(mut self, id: RequestId) -> Self {
        self.request_id = Some(id);
        self
    }

    fn into_wire(self, collection: String) -> wire::UpdateRecordRequest {
        let named = self.set.keys().chain(&self.unset).map(|name| format!("attributes.{name}"));
        let paths = if self.replace { vec!["attributes".to_owned()] } else { named.collect() };
        wire::UpdateRecordRequest {
            collection,
            record: Some(wire::Record {
                key: self.key.to_string(),
                attributes: attributes_to_wire(&self.set),
                ..Default::default()
            }),
            update_mask: Some(FieldMask { paths }),
            request_id: self.request_id.unwrap_or_else(fresh_request_id).to_string(),
        }
    }
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Updated {
    /// The record's new place in the order of writes; absent when it had these attributes already.
    pub seq: Option<u64>,
}

/// A deletion of the records that meet a condition.
#[derive(Debug, Clone)]
pub struct DeleteWhere {
    filter: Result<wire::Filter, Error>,
    dry_run: bool,
    request_id: Option<RequestId>,
}

impl DeleteWhere {
    /// A deletion of the records that meet a condition.
    pub fn new(filter: impl IntoFilter) -> Self {
        Self { filter: condition(filter), dry_run: false, request_id: None }
    }

    /// Only counts the records.
    #[must_use]
    pub fn dry_run(mut self) -> Self {
        self.dry_run = true;
        self
    }

    /// Repeated with the same id it is done once, and taken up again where it was broken off; the client makes one
    /// when none is given.
    #[must_use]
    pub fn request_id(mut self, id: RequestId) -> Self {
        self.request_id = Some(id);
        self
    }
}

/// A deletion that was begun.
#[derive(Debug, Clone, PartialEq)]
pub struct Deletion {
    /// Records that met the condition when the request came.
    pub matching_records: u64,
    /// The operation that deletes them, done already when they are few; absent for a dry run.
    pub operation: Option<Operation>,
    /// Why a condition meets no record.
    pub notes: Vec<String>,
}

impl Client {
    /// Reads a record.
    ///
    /// # Errors
    /// [`Error::Status`], `NotFound` when there is none.
    pub async fn get(&self, key: &Key) -> Result<Record, Error> {
        self.get_fields(key, [""; 0]).await
    }

    /// Reads some fields of a record, as in [`List::fields`].
    ///
    /// # Errors
    /// [`Error::Status`], `NotFound` when there is none, `InvalidArgument` when there is no such field.
    pub async fn get_fields<S: Into<String>>(
        &self,
        key: &Key,
        fields: impl IntoIterator<Item = S>,
    ) -> Result<Record, Error> {
        let (collection, key) = (self.collection().to_string(), key.to_string());
        let request = wire::GetRecordRequest { collection, key, read_mask: mask(fields) };
        let answer = self.call(Repeat::Safe, request, |request| {
            let mut client = self.retrieval();
            async move { client.get_record(request).await }
        });
        Record::from_wire(answer.await?.record.ok_or_else(|| Error::lacks("record"))?)
    }

    /// Reads records, page by page in the order of their keys; it ends with the last page, or with an error.
    pub fn list(&self, list: &List) -> impl Stream<Item = Result<Vec<Record>, Error>> + Send + 'static {
        let request = match &list.problem {
            Some(error) => Err(error.clone()),
            None => {
                let collection = self.collection().to_string();
                Ok(wire::ListRecordsRequest { collection, ..list.request.clone() })
            }
        };
        let client = self.clone();
        stream::unfold(Some(request), move |request| {
            let client = client.clone();
            async move {
                let request = match request? {
                    Ok(request) => request,
                    Err(error) => return Some((Err(error), None)),
                };
                match client.page(request.clone()).await {
                    Err(error) => Some((Err(error), None)),
                    Ok((records, token)) => {
                        let next =
                            token.map(|page_token| Ok(wire::ListRecordsRequest { page_token, ..request }));
                        Some((Ok(records), next))
                    }
                }
            }
        })
    }

    async fn page(&self, request: wire::ListRecordsRequest) -> Result<(Vec<Record>, Option<String>), Error> {
        let answer = self.call(Repeat::Safe, request, |request| {
            let mut client = self.retrieval();
            async move { client.list_records(request).await }
        });
        let page = answer.await?;
        let records = page.records.into_iter().map(Record::from_wire).collect::<Result<_, _>>()?;
        Ok((records, token(page.next_page_token)))
    }

    /// Counts all records.
    ///
    /// # Errors
    /// [`Error::Status`].
    pub async fn count(&self) -> Result<u64, Error> {
        Ok(self.count_values(&Count::new()).await?.records)
    }

    /// Counts the records that meet a condition.
    ///
    /// # Errors
    /// [`Error::Request`] when it is none, else [`Error::Status`].
    pub async fn count_where(&self, filter: impl IntoFilter) -> Result<Counted, Error> {
        self.count_values(&Count::new().filter(filter)).await
    }

    /// Counts records, and the values of their attributes.
    ///
    /// # Errors
    /// [`Error::Request`] when the condition is none, else [`Error::Status`].
    pub async fn count_values(&self, count: &Count) -> Result<Counted, Error> {
        if let Some(error) = &count.problem {
            return Err(error.clone());
        }
        let collection = self.collection().to_string();
        let request = wire::CountRecordsRequest { collection, ..count.request.clone() };
        let answer = self.call(Repeat::Safe, request, |request| {
            let mut client = self.retrieval();
            async move { client.count_records(request).await }
        });
        let wire::CountRecordsResponse { records, notes, facets: counts } = answer.await?;
        Ok(Counted { records, notes, facets: facets(counts)? })
    }

    /// Changes attributes of a record. Filters know the new values when the answer is there.
    ///
    /// # Errors
    /// [`Error::Status`], `NotFound` when there is no such record.
    pub async fn update(&self, update: Update) -> Result<Updated, Error> {
        let request = update.into_wire(self.collection().to_string());
        let answer = self.call(Repeat::Safe, request, |request| {
            let mut client = self.retrieval();
            async move { client.update_record(request).await }
        });
        Ok(Updated { seq: answer.await?.seq })
    }

    /// Deletes a record.
    ///
    /// # Errors
    /// [`Error::Status`], `NotFound` when there is no such record.
    pub async fn delete(&self, key: &Key) -> Result<(), Error> {
        self.delete_once(key, &fresh_request_id()).await
    }

    /// The same under a request id of one's own: repeated with it, it is done once.
    ///
    /// # Errors
    /// As [`Client::delete`].
    pub async fn delete_once(&self, key: &Key, id: &RequestId) -> Result<(), Error> {
        let collection = self.collection().to_string();
        let request =
            wire::DeleteRecordRequest { collection, key: key.to_string(), request_id: id.to_string() };
        let answer = self.call(Repeat::Safe, request, |request| {
            let mut client = self.retrieval();
            async move { client.delete_record(request).await }
        });
        answer.await.map(drop)
    }

    /// Deletes the records that meet a condition. Wait for the end by [`Client::wait`].
    ///
    /// # Errors
    /// [`Error::Request`] when the condition is none, else [`Error::Status`].
    pub async fn delete_where(&self, deletion: DeleteWhere) -> Result<Deletion, Error> {
        let request = wire::DeleteRecordsRequest {
            collection: self.collection().to_string(),
            filter: Some(deletion.filter?),
            dry_run: deletion.dry_run,
            request_id: deletion.request_id.unwrap_or_else(fresh_request_id).to_string(),
        };
        let answer = self.call(Repeat::Safe, request, |request| {
            let mut client = self.retrieval();
            async move { client.delete_records(request).await }
        });
        let wire::DeleteRecordsResponse { matching_records, operation, notes } = answer.await?;
        let operation = operation.map(|operation| Operation::from_wire(Some(operation))).transpose()?;
        Ok(Deletion { matching_records, operation, notes })
    }
}

/// What is wanted of a record; its key always.
pub(crate) fn mask<S: Into<String>>(fields: impl IntoIterator<Item = S>) -> Option<FieldMask> {
    let mut paths: Vec<String> = fields.into_iter().map(Into::into).collect();
    if paths.is_empty() {
        return None;
    }
    paths.push("key".to_owned());
    Some(FieldMask { paths })
}
