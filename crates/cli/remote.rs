//! The command line as a client of a server.
//!
//! How it is let in comes from the environment, never from arguments, which every process of the
//! machine can read. Deliberately absent: the calls, which are `diptych-client`'s.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use diptych_client::{Client, ClientOptions, RetryPolicy, TlsIdentity};
use tokio::runtime::Runtime;

/// The API key itself.
const KEY: &str = "DIPTYCH_API_KEY";
/// A file that holds nothing but the API key.
const KEY_FILE: &str = "DIPTYCH_API_KEY_FILE";
/// PEM: who must have signed the server's certificate, where that is none of the web's authorities.
const TLS_CA: &str = "DIPTYCH_TLS_CA";
/// PEM: a certificate of the client's own, then its private key.
const TLS_IDENTITY: &str = "DIPTYCH_TLS_IDENTITY";

/// A runtime for one client.
pub fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

/// Connects to a server.
pub async fn connect(url: &str) -> Result<Client> {
    let identity = |pem: Vec<u8>| TlsIdentity { certificate: pem.clone(), key: pem };
    let secure = url.starts_with("https://");
    let options = ClientOptions {
        api_key: api_key()?,
        tls_ca: if secure { file(TLS_CA)? } else { None },
        tls_identity: if secure { file(TLS_IDENTITY)?.map(identity) } else { None },
        ..options(url)
    };
    Client::connect(options).await.map_err(|error| match error {
        // What cannot be asked for has its remedy in it.
        diptych_client::Error::Request { .. } => error.into(),
        _ => {
            let hint = match secure {
                true => format!(" {TLS_CA} must name the authority of its certificate."),
                false => String::new(),
            };
            anyhow::Error::new(error)
                .context(format!("cannot reach {url}; is `diptych serve` running there?{hint}"))
        }
    })
}

/// What every client of the command line has in common: whoever typed waits for work as long as it takes, but is told
/// at once when it may not be begun for long.
pub fn options(url: &str) -> ClientOptions {
    let retry = RetryPolicy { max_named_delay: Duration::from_secs(5), ..RetryPolicy::default() };
    ClientOptions { timeout: None, retry, ..ClientOptions::new(url) }
}

fn api_key() -> Result<Option<String>> {
    let key = match std::env::var(KEY) {
        Ok(key) => Some(key),
        Err(_) => file(KEY_FILE)?.map(String::from_utf8).transpose().context("the API key is no text")?,
    };
    Ok(key.map(|key| key.trim().to_owned()).filter(|key| !key.is_empty()))
}

/// What is in the file that a variable names.
fn file(variable: &str) -> Result<Option<Vec<u8>>> {
    let Some(path) = std::env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from) else {
        return Ok(None);
    };
    let bytes = std::fs::read(&path);
    bytes.map(Some).with_context(|| format!("cannot read {}, which {variable} names", path.display()))
}
