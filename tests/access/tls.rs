//! Encryption: who reaches a server at all, and what it needs to be reachable.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::{create, until};
use crate::support::{Server, diptych, fail, mini_model};

#[test]
fn off_loopback_a_server_starts_only_with_keys_and_tls() {
    let (dir, pki) = (tempfile::tempdir().unwrap(), Pki::new());
    pki.serve_with(dir.path());
    create(dir.path(), "admin", &[]);
    let model = mini_model();
    let serve = |more: &[&str]| {
        let args = ["serve", "--data", "data", "--model", model.to_str().unwrap(), "--listen", "0.0.0.0:0"];
        fail(dir.path(), &[&args, more].concat())
    };
    let said = serve(&[]);
    assert!(
        said.contains("no authentication") && said.contains("--keys") && said.contains("--tls-key"),
        "{said}"
    );
    let said = serve(&["--keys", "keys.toml"]);
    assert!(said.contains("no encryption") && !said.contains("--keys"), "{said}");
    let said = serve(&TLS);
    assert!(said.contains("no authentication") && !said.contains("--tls-key"), "{said}");
    let said = serve(&[&TLS[..], &["--keys", "other.toml"]].concat());
    assert!(said.contains("other.toml") && said.contains("keys create"), "{said}");
    let said = serve(&["--tls-certificate", "server.pem", "--tls-key", "keys.toml", "--keys", "keys.toml"]);
    assert!(said.contains("keys.toml") && said.contains("private key"), "{said}");
    let said = serve(&[&TLS[..], &["--keys", "keys.toml", "--rate-limit", "0"]].concat());
    assert!(said.contains("0.001 to 1000000"), "{said}");
    assert!(!dir.path().join("data").exists(), "nothing was begun");

    let args = ["serve", "--data", "data", "--model", model.to_str().unwrap(), "--listen", "0.0.0.0:0"];
    let args = [&args[..], &TLS, &["--keys", "keys.toml"]].concat();
    let mut child = diptych(dir.path(), &args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(line.starts_with("serving on https://0.0.0.0:"), "{line}");
}

/// The arguments for certificates as [`Pki::serve_with`] puts them.
const TLS: [&str; 4] = ["--tls-certificate", "server.pem", "--tls-key", "server.key"];

/// An authority of its own, and certificates that it signs.
struct Pki {
    issuer: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
}

impl Pki {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        Self { issuer: rcgen::CertifiedIssuer::self_signed(params, key).unwrap() }
    }

    fn ca(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for a name and its key.
    fn issue(&self, name: &str) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn serve_with(&self, dir: &Path) {
        let (certificate, key) = self.issue("127.0.0.1");
        std::fs::write(dir.join("server.pem"), certificate).unwrap();
        std::fs::write(dir.join("server.key"), key).unwrap();
    }

    /// What a client trusts that knows this authority.
    fn trust(&self) -> ClientTlsConfig {
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(self.ca()))
    }
}

/// Whether a client that is set up like this gets an answer from health.
async fn reaches(server: &Server, tls: ClientTlsConfig) -> bool {
    let endpoint = Channel::from_shared(server.url.clone()).unwrap().tls_config(tls).unwrap();
    let Ok(channel) = endpoint.connect().await else { return false };
    // In TLS 1.3 a client may believe to be connected before the server has looked at its certificate.
    HealthClient::new(channel).check(HealthCheckRequest::default()).await.is_ok()
}

#[tokio::test]
async fn with_tls_only_those_who_trust_the_certificate_talk_to_the_server() {
    let (dir, pki, other) = (tempfile::tempdir().unwrap(), Pki::new(), Pki::new());
    pki.serve_with(dir.path());
    let server = Server::start_with(dir.path(), &TLS);
    assert!(server.url.starts_with("https://"), "{}", server.url);
    assert!(reaches(&server, pki.trust()).await);
    assert!(!reaches(&server, other.trust()).await, "a client took a certificate of somebody else");
    let wrong_name = pki.trust().domain_name("elsewhere.example");
    assert!(!reaches(&server, wrong_name).await);
    let plain = server.url.replace("https://", "http://");
    let plain = Channel::from_shared(plain).unwrap().connect().await.unwrap();
    assert!(HealthClient::new(plain).check(HealthCheckRequest::default()).await.is_err());

    // New certificates are offered without a restart.
    other.serve_with(dir.path());
    until("the new certificate is offered", async || reaches(&server, other.trust()).await.then_some(()))
        .await;
    assert!(!reaches(&server, pki.trust()).await);
}

#[tokio::test]
async fn with_a_client_authority_only_its_clients_are_let_in() {
    let (dir, pki, other) = (tempfile::tempdir().unwrap(), Pki::new(), Pki::new());
    pki.serve_with(dir.path());
    std::fs::write(dir.path().join("clients.pem"), pki.ca()).unwrap();
    let server = Server::start_with(dir.path(), &[&TLS[..], &["--tls-client-ca", "clients.pem"]].concat());
    let with =
        |(certificate, key): (String, String)| pki.trust().identity(Identity::from_pem(certificate, key));
    assert!(reaches(&server, with(pki.issue("client-7"))).await);
    assert!(!reaches(&server, pki.trust()).await, "a client without a certificate was let in");
    assert!(!reaches(&server, with(other.issue("client-7"))).await, "a stranger's certificate was taken");
}

#[tokio::test]
async fn the_command_line_is_let_in_by_its_environment() {
    let (dir, pki) = (tempfile::tempdir().unwrap(), Pki::new());
    pki.serve_with(dir.path());
    let key = create(dir.path(), "read", &[]);
    let (certificate, client_key) = pki.issue("client-7");
    let files =
        [("ca.pem", pki.ca()), ("me.pem", certificate + &client_key), ("key.txt", format!("{key}\n"))];
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let more = [&TLS[..], &["--keys", "keys.toml", "--tls-client-ca", "ca.pem"]].concat();
    let server = Server::start_with(dir.path(), &more);
    let stats = |env: &[(&str, &str)]| {
        let mut command = diptych(dir.path(), &["stats", "--server", &server.url]);
        let output = command.envs(env.iter().copied()).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let tls = [("DIPTYCH_TLS_CA", "ca.pem"), ("DIPTYCH_TLS_IDENTITY", "me.pem")];
    let (good, said) = stats(&[&tls[..], &[("DIPTYCH_API_KEY_FILE", "key.txt")]].concat());
    assert!(good, "{said}");
    let (good, said) = stats(&[&tls[..], &[("DIPTYCH_API_KEY", &key)]].concat());
    assert!(good, "{said}");
    let (good, said) = stats(&tls);
    assert!(!good && said.contains("needs an API key"), "{said}");
    let (good, said) = stats(&[("DIPTYCH_API_KEY", &key)]);
    assert!(!good && said.contains("DIPTYCH_TLS_CA"), "{said}");
    let far = ["stats", "--server", "http://diptych.example:7700"];
    let output = diptych(dir.path(), &far).env("DIPTYCH_API_KEY", &key).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("use https://"), "{said}");
}
