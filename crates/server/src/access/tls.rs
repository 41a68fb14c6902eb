//! TLS: certificates read from files, and read again when the files change.
//!
//! Connections that are open keep what they began with; each new one gets what is current.
//! Deliberately absent: any provider of cryptography but ring, and TLS before 1.2.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};

use super::watch::Watch;

/// Where the server's certificate is, and whose clients are let in.
#[derive(Debug, Clone)]
pub struct TlsOptions {
    /// PEM: the server's certificate, then those that lead to a root.
    pub certificate: PathBuf,
    /// PEM: the private key of the first of them.
    pub key: PathBuf,
    /// PEM: who must have signed a client's certificate; clients need none when `None`.
    pub client_ca: Option<PathBuf>,
}

/// Why TLS cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing or is no PEM of that kind.
    #[error("{path} cannot be read as {what}: {problem}; it must be a PEM file of that")]
    File {
        /// The file.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The files are fine one by one, but not together.
    #[error(
        "the certificate in {certificate} and the key in {key} cannot be used: {problem}; do they belong to each other?"
    )]
    Together {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong with them.
        problem: String,
    },
}

pub(crate) struct Tls {
    options: TlsOptions,
    state: Mutex<State>,
}

struct State {
    config: Arc<ServerConfig>,
    watch: Watch,
}

impl Tls {
    pub(super) fn open(options: TlsOptions) -> Result<Self, TlsError> {
        let files = [Some(&options.certificate), Some(&options.key), options.client_ca.as_ref()];
        let watch = Watch::new(files.into_iter().flatten().cloned().collect(), Instant::now());
        let config = Arc::new(load(&options)?);
        Ok(Self { options, state: Mutex::new(State { config, watch }) })
    }

    /// What a connection that begins now is offered.
    pub(crate) fn current(&self, now: Instant) -> Arc<ServerConfig> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.watch.changed(now) {
            match load(&self.options) {
                Ok(config) => {
                    tracing::info!("the TLS certificate has changed and was read again");
                    state.config = Arc::new(config);
                }
                // Such as between the replacement of the certificate and that of its key.
                Err(error) => {
                    tracing::error!(%error, "the TLS files have changed and cannot be used; those read before stay in force");
                    state.watch.distrust();
                }
            }
        }
        Arc::clone(&state.config)
    }
}

fn load(options: &TlsOptions) -> Result<ServerConfig, TlsError> {
    let chain = certificates(&options.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&options.key).map_err(|e| TlsError::File {
        path: options.key.clone(),
        what: "a private key",
        problem: e.to_string(),
    })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .expect("ring has the cipher suites of both versions");
    let builder = match &options.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let failed = |problem: String| TlsError::File {
                path: path.clone(),
                what: "certificates of authorities",
                problem,
            };
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|e| failed(e.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().map_err(|e| failed(e.to_string()))?)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|e| TlsError::Together {
        certificate: options.certificate.clone(),
        key: options.key.clone(),
        problem: e.to_string(),
    })?;
    // gRPC is HTTP/2, and clients ask for it by this name.
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |problem: String| TlsError::File { path: path.to_owned(), what: "certificates", problem };
    let read = CertificateDer::pem_file_iter(path).map_err(|e| failed(e.to_string()))?;
    let all: Vec<_> = read.collect::<Result<_, _>>().map_err(|e| failed(e.to_string()))?;
    if all.is_empty() {
        return Err(failed("there is no certificate in it".to_owned()));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::watch::INTERVAL;
    use super::*;

    /// A certificate of its own, as (certificate, key).
    fn issue() -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn files_that_change_are_read_again_once_they_fit() {
        let dir = tempfile::tempdir().unwrap();
        let options = TlsOptions {
            certificate: dir.path().join("server.pem"),
            key: dir.path().join("server.key"),
            client_ca: None,
        };
        assert!(Tls::open(options.clone()).err().unwrap().to_string().contains("server.pem"));
        let ((first, first_key), (second, second_key)) = (issue(), issue());
        std::fs::write(&options.certificate, first).unwrap();
        std::fs::write(&options.key, &second_key).unwrap();
        let error = Tls::open(options.clone()).err().unwrap();
        assert!(matches!(error, TlsError::Together { .. }), "{error}");
        std::fs::write(&options.key, first_key).unwrap();
        let tls = Tls::open(options.clone()).unwrap();

        let start = Instant::now();
        let before = tls.current(start);
        std::fs::write(&options.certificate, second).unwrap();
        assert!(Arc::ptr_eq(&before, &tls.current(start + 2 * INTERVAL)), "the key does not fit yet");
        std::fs::write(&options.key, second_key).unwrap();
        let after = tls.current(start + 4 * INTERVAL);
        assert!(!Arc::ptr_eq(&before, &after));
        assert!(Arc::ptr_eq(&after, &tls.current(start + 6 * INTERVAL)), "nothing has changed since");
    }

    #[test]
    fn what_is_no_certificate_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = issue();
        let write = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).unwrap();
            dir.path().join(name)
        };
        let good =
            TlsOptions { certificate: write("c", &certificate), key: write("k", &key), client_ca: None };
        let bad = [
            (TlsOptions { certificate: write("empty", ""), ..good.clone() }, "no certificate"),
            (TlsOptions { key: write("other", &certificate), ..good.clone() }, "a private key"),
            (TlsOptions { client_ca: Some(write("ca", "nothing")), ..good.clone() }, "no certificate"),
        ];
        for (options, says) in bad {
            let error = Tls::open(options).err().unwrap().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert!(Tls::open(TlsOptions { client_ca: Some(good.certificate.clone()), ..good }).is_ok());
    }
}
