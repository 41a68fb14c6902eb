//! Where a server is, how it lets its clients in, and the connection to it.
//!
//! Deliberately absent: where keys and certificates come from, which the program knows.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use diptych_core::CollectionName;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};

use crate::{Error, RetryPolicy};

/// How to reach a server. Printing it shows no key.
#[derive(Clone)]
pub struct ClientOptions {
    /// HOST:PORT or a URL; `https` turns TLS on.
    pub address: String,
    /// The collection that calls are about.
    pub collection: CollectionName,
    /// The API key. It is never sent in the clear to another machine.
    pub api_key: Option<String>,
    /// PEM: who must have signed the server's certificate; the web's authorities when absent.
    pub tls_ca: Option<Vec<u8>>,
    /// The client's own certificate, where the server asks for one.
    pub tls_identity: Option<TlsIdentity>,
    /// How long a call may take in all, with its repetitions, and for how long `ingest` tries to get a broken stream
    /// back; no bound when absent.
    pub timeout: Option<Duration>,
    /// How calls are repeated.
    pub retry: RetryPolicy,
    /// Whether requests to search, ingest and read records are compressed by gzip, and answers asked for so. For slow
    /// networks: images are compressed already, and it takes time.
    pub compression: bool,
}

/// A certificate and its private key, both PEM.
#[derive(Clone)]
pub struct TlsIdentity {
    /// The certificate, and those between it and its authority.
    pub certificate: Vec<u8>,
    /// Its private key.
    pub key: Vec<u8>,
}

impl ClientOptions {
    /// The defaults: collection `default`, no key, a timeout of 30 s, [`RetryPolicy::default`], no compression.
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            collection: CollectionName::default(),
            api_key: None,
            tls_ca: None,
            tls_identity: None,
            timeout: Some(Duration::from_secs(30)),
            retry: RetryPolicy::default(),
            compression: false,
        }
    }

    /// The address as a URL.
    pub(crate) fn url(&self) -> String {
        let secure = self.tls_ca.is_some() || self.tls_identity.is_some();
        match self.address.contains("://") {
            true => self.address.clone(),
            false => format!("{}://{}", if secure { "https" } else { "http" }, self.address),
        }
    }

    pub(crate) fn endpoint(&self) -> Result<Endpoint, Error> {
        let url = self.url();
        let endpoint = Endpoint::from_shared(url.clone()).map_err(|_| {
            Error::request(format!("'{url}' is no address; write it like http://127.0.0.1:7700"))
        })?;
        let secure = endpoint.uri().scheme_str() == Some("https");
        if self.api_key.is_some() && !secure && !is_near(&endpoint) {
            return Err(Error::request(format!(
                "the API key would go to {url} where others can read it; use https:// for that server"
            )));
        }
        let endpoint = match self.timeout {
            Some(timeout) => endpoint.connect_timeout(timeout),
            None => endpoint,
        };
        if secure { self.with_tls(endpoint) } else { Ok(endpoint) }
    }

    fn with_tls(&self, endpoint: Endpoint) -> Result<Endpoint, Error> {
        let mut tls = ClientTlsConfig::new();
        tls = match &self.tls_ca {
            Some(pem) => tls.ca_certificate(Certificate::from_pem(pem)),
            None => tls.with_webpki_roots(),
        };
        if let Some(TlsIdentity { certificate, key }) = &self.tls_identity {
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        endpoint.tls_config(tls).map_err(|error| {
            Error::request(format!("the certificates cannot be used: {error}; they and the key are PEM"))
        })
    }

    pub(crate) fn bearer(&self) -> Result<Bearer, Error> {
        let Some(key) = &self.api_key else { return Ok(Bearer(None)) };
        let mut value: MetadataValue<Ascii> = format!("Bearer {key}").parse().map_err(|_| {
            Error::request("the API key has characters that no key has; check where it is from")
        })?;
        value.set_sensitive(true);
        Ok(Bearer(Some(value)))
    }
}

/// Whether what is sent stays on this machine.
fn is_near(endpoint: &Endpoint) -> bool {
    endpoint.uri().host().is_some_and(|host| {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    })
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientOptions")
            .field("address", &self.address)
            .field("collection", &self.collection)
            .field("api_key", &self.api_key.as_ref().map(|_| ".."))
            .field("tls_ca", &self.tls_ca.is_some())
            .field("tls_identity", &self.tls_identity)
            .field("timeout", &self.timeout)
            .field("retry", &self.retry)
            .field("compression", &self.compression)
            .finish()
    }
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsIdentity(..)")
    }
}

/// A connection that shows the API key with every request.
pub type Link = InterceptedService<Channel, Bearer>;

/// Sends the API key with every request.
#[derive(Debug, Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_key_stays_on_the_machine_unless_tls_carries_it() {
        let options = |address: &str| ClientOptions {
            api_key: Some("secret".to_owned()),
            ..ClientOptions::new(address)
        };
        for near in
            ["127.0.0.1:7700", "http://localhost:7700", "http://[::1]:7700", "https://example.org:7700"]
        {
            assert!(options(near).endpoint().is_ok(), "{near}");
        }
        let said = options("example.org:7700").endpoint().unwrap_err().to_string();
        assert!(said.contains("use https://"), "{said}");
        assert!(!format!("{:?}", options("a:1")).contains("secret"));
        assert!(options("http://").endpoint().unwrap_err().to_string().contains("no address"));
        let odd = ClientOptions { api_key: Some("two\nlines".to_owned()), ..ClientOptions::new("a:1") };
        assert!(odd.bearer().unwrap_err().to_string().contains("no key has"));
    }
}
