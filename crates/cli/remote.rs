//! The command line as a client of a server.
//!
//! How it is let in comes from the environment, never from arguments, which every process of the
//! machine can read.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use diptych_core::limits::IMAGE_BYTES_MAX;
use diptych_proto::v1::retrieval_service_client::RetrievalServiceClient;
use tokio::runtime::Runtime;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};

/// The API key itself.
const KEY: &str = "DIPTYCH_API_KEY";
/// A file that holds nothing but the API key.
const KEY_FILE: &str = "DIPTYCH_API_KEY_FILE";
/// PEM: who must have signed the server's certificate, where that is none of the web's authorities.
const TLS_CA: &str = "DIPTYCH_TLS_CA";
/// PEM: a certificate of the client's own, then its private key.
const TLS_IDENTITY: &str = "DIPTYCH_TLS_IDENTITY";

/// A connection, for the client of any service.
pub type Link = InterceptedService<Channel, Bearer>;
pub type Client = RetrievalServiceClient<Link>;

/// Sends the API key with every request.
#[derive(Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// A runtime for one client.
pub fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

/// Connects to a server.
pub async fn connect(url: &str) -> Result<Client> {
    Ok(records(link(url).await?))
}

/// The service of records over a connection.
pub fn records(link: Link) -> Client {
    RetrievalServiceClient::new(link).max_decoding_message_size(2 * IMAGE_BYTES_MAX)
}

/// A connection within this process, which needs no key.
pub fn near(channel: Channel) -> Link {
    InterceptedService::new(channel, Bearer(None))
}

/// Connects to a server, for any of its services.
pub async fn link(url: &str) -> Result<Link> {
    let endpoint = Channel::from_shared(url.to_owned())
        .with_context(|| format!("'{url}' is no address; write it like http://127.0.0.1:7700"))?;
    let bearer = Bearer(api_key()?);
    let secure = endpoint.uri().scheme_str() == Some("https");
    let near = endpoint.uri().host().is_some_and(|host| {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    });
    if bearer.0.is_some() && !secure && !near {
        bail!("the API key would go to {url} where others can read it; use https:// for that server");
    }
    let endpoint = if secure { with_tls(endpoint)? } else { endpoint };
    let channel = endpoint.connect().await.with_context(|| {
        let hint = if secure {
            format!(" {TLS_CA} must name the authority of its certificate.")
        } else {
            String::new()
        };
        format!("cannot reach {url}; is `diptych serve` running there?{hint}")
    })?;
    Ok(InterceptedService::new(channel, bearer))
}

fn with_tls(endpoint: Endpoint) -> Result<Endpoint> {
    let mut tls = ClientTlsConfig::new();
    tls = match file(TLS_CA)? {
        Some(pem) => tls.ca_certificate(Certificate::from_pem(pem)),
        None => tls.with_webpki_roots(),
    };
    if let Some(pem) = file(TLS_IDENTITY)? {
        tls = tls.identity(Identity::from_pem(&pem, &pem));
    }
    endpoint.tls_config(tls).context("the certificates cannot be used")
}

fn api_key() -> Result<Option<MetadataValue<Ascii>>> {
    let key = match std::env::var(KEY) {
        Ok(key) => Some(key),
        Err(_) => file(KEY_FILE)?.map(String::from_utf8).transpose().context("the API key is no text")?,
    };
    let Some(key) = key.map(|key| key.trim().to_owned()).filter(|key| !key.is_empty()) else {
        return Ok(None);
    };
    let mut value: MetadataValue<Ascii> = format!("Bearer {key}")
        .parse()
        .map_err(|_| anyhow!("the API key has characters that no key has; check {KEY} or {KEY_FILE}"))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// What is in the file that a variable names.
fn file(variable: &str) -> Result<Option<Vec<u8>>> {
    let Some(path) = std::env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from) else {
        return Ok(None);
    };
    let bytes = std::fs::read(&path);
    bytes.map(Some).with_context(|| format!("cannot read {}, which {variable} names", path.display()))
}

/// A status as an error: its message says what to do, its code is for those who search for it.
pub fn failed(status: &Status) -> anyhow::Error {
    anyhow!("{} ({:?})", status.message(), status.code())
}
