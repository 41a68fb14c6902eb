//! Collections: how they come and go.

use diptych_core::{AttributeSchema, CollectionName};
use diptych_proto::convert::schema_to_wire;
use diptych_proto::v1 as wire;

use crate::client::Repeat;
use crate::{Client, Collection, Error, Operation};

/// Collections that are asked for at once; the most that a server gives.
const PAGE: u32 = 1000;

impl Client {
    /// Creates a collection, whose records' attributes are as the schema says. Never repeated: a second attempt would
    /// find it there.
    ///
    /// # Errors
    /// [`Error::Status`], `AlreadyExists` when there is one of that name.
    pub async fn create_collection(
        &self,
        name: &CollectionName,
        schema: &AttributeSchema,
    ) -> Result<Collection, Error> {
        let request =
            wire::CreateCollectionRequest { name: name.to_string(), schema: Some(schema_to_wire(schema)) };
        let answer = self.call(Repeat::Unsafe, request, |request| {
            let mut client = self.collections_service();
            async move { client.create_collection(request).await }
        });
        Collection::from_wire(answer.await?.collection)
    }

    /// All collections, in the order of their names.
    ///
    /// # Errors
    /// [`Error::Status`].
    pub async fn collections(&self) -> Result<Vec<Collection>, Error> {
        let mut all = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = wire::ListCollectionsRequest { page_size: PAGE, page_token };
            let answer = self.call(Repeat::Safe, request, |request| {
                let mut client = self.collections_service();
                async move { client.list_collections(request).await }
            });
            let page = answer.await?;
            for collection in page.collections {
                all.push(Collection::from_wire(Some(collection))?);
            }
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(all);
            }
        }
    }

    /// Describes a collection.
    ///
    /// # Errors
    /// [`Error::Status`], `NotFound` when there is none of that name.
    pub async fn get_collection(&self, name: &CollectionName) -> Result<Collection, Error> {
        let request = wire::GetCollectionRequest { name: name.to_string() };
        let answer = self.call(Repeat::Safe, request, |request| {
            let mut client = self.collections_service();
            async move { client.get_collection(request).await }
        });
        Collection::from_wire(answer.await?.collection)
    }

    /// Deletes a collection with all its records. Never repeated: a second attempt would find none.
    ///
    /// # Errors
    /// [`Error::Status`], `NotFound` when there is none of that name.
    pub async fn delete_collection(&self, name: &CollectionName) -> Result<(), Error> {
        let request = wire::DeleteCollectionRequest { name: name.to_string() };
        let answer = self.call(Repeat::Unsafe, request, |request| {
            let mut client = self.collections_service();
            async move { client.delete_collection(request).await }
        });
        answer.await.map(drop)
    }

    /// Builds the indexes of a collection again from its vectors. Searches go on meanwhile, writes wait. Wait for the
    /// end by [`Client::wait`]. Never repeated: that would build twice.
    ///
    /// # Errors
    /// [`Error::Status`], `NotFound` when there is no such collection.
    pub async fn rebuild_index(&self, name: &CollectionName) -> Result<Operation, Error> {
        let request = wire::RebuildIndexRequest { collection: name.to_string() };
        let answer = self.call(Repeat::Unsafe, request, |request| {
            let mut client = self.collections_service();
            async move { client.rebuild_index(request).await }
        });
        Operation::from_wire(answer.await?.operation)
    }
}
