//! The command line as a client of a server.

use anyhow::{Context, Result, anyhow};
use diptych_core::limits::IMAGE_BYTES_MAX;
use diptych_proto::v1::retrieval_service_client::RetrievalServiceClient;
use tokio::runtime::Runtime;
use tonic::Status;
use tonic::transport::Channel;

pub type Client = RetrievalServiceClient<Channel>;

/// A runtime for one client.
pub fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

/// Connects to a server.
pub async fn connect(url: &str) -> Result<Client> {
    let channel = channel(url).await?;
    Ok(RetrievalServiceClient::new(channel).max_decoding_message_size(2 * IMAGE_BYTES_MAX))
}

/// A connection to a server, for any of its services.
pub async fn channel(url: &str) -> Result<Channel> {
    Channel::from_shared(url.to_owned())
        .with_context(|| format!("'{url}' is no address; write it like http://127.0.0.1:7700"))?
        .connect()
        .await
        .with_context(|| format!("cannot reach {url}; is `diptych serve` running there?"))
}

/// A status as an error: its message says what to do, its code is for those who search for it.
pub fn failed(status: &Status) -> anyhow::Error {
    anyhow!("{} ({:?})", status.message(), status.code())
}
