//! What the stories share: running the program, a server on a free port, a small corpus.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use diptych_proto::v1 as wire;
use diptych_proto::v1::retrieval_service_client::RetrievalServiceClient;
use serde_json::Value;
use tempfile::TempDir;
use tonic::transport::Channel;

pub type Client = RetrievalServiceClient<Channel>;

/// The model that ships with the program.
pub fn mini_model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/models/mini")
}

/// Real data beside the project, when it is there; says loudly when it is not.
pub fn shared_data(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("SKIPPED: {} is absent, so nothing is tested on real {name}", path.display());
    None
}

/// The program with arguments, ready to run in `dir`.
pub fn diptych(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_diptych"));
    command.current_dir(dir).args(args).env_remove("RUST_LOG");
    command
}

/// Runs the program to its end.
pub fn run(dir: &Path, args: &[&str]) -> Output {
    diptych(dir, args).output().unwrap()
}

/// Runs the program, which must succeed; returns what it printed.
pub fn succeed(dir: &Path, args: &[&str]) -> String {
    let output = run(dir, args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "diptych {args:?} failed: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs the program, which must succeed; returns what it printed and what it noted beside that.
pub fn succeed_with_notes(dir: &Path, args: &[&str]) -> (String, String) {
    let output = run(dir, args);
    let notes = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "diptych {args:?} failed: {notes}");
    (String::from_utf8(output.stdout).unwrap(), notes)
}

/// Runs the program, which must fail; returns what it said of it.
pub fn fail(dir: &Path, args: &[&str]) -> String {
    let output = run(dir, args);
    assert!(!output.status.success(), "diptych {args:?} succeeded");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The hits of a `search --json`, as (key, score, part).
pub fn hits(json: &str) -> Vec<(String, f64, String)> {
    let value: Value = serde_json::from_str(json).unwrap();
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    value["hits"]
        .as_array()
        .unwrap()
        .iter()
        .map(|h| (text(&h["key"]), h["score"].as_f64().unwrap(), text(&h["part"])))
        .collect()
}

/// Ingests items, none of which may fail; returns the answers.
pub async fn ingest(client: &mut Client, items: Vec<wire::IngestRequest>) -> Vec<wire::IngestResponse> {
    let mut answers = client.ingest(tokio_stream::iter(items)).await.unwrap().into_inner();
    let mut all = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        assert!(answer.error.is_none(), "{answer:?}");
        all.push(answer);
    }
    all
}

/// A condition as it is written, for the wire.
pub fn filter(written: &str) -> Option<wire::Filter> {
    Some(diptych_proto::convert::filter_to_wire(&written.parse().unwrap()))
}

/// A folder with generated cases in `phantoms/`.
pub fn corpus(cases: u32) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    succeed(dir.path(), &["phantom", "--cases", &cases.to_string(), "--seed", "5", "--out", "phantoms"]);
    dir
}

/// A server of its own process; killed when dropped.
pub struct Server {
    child: Child,
    log: Option<std::thread::JoinHandle<String>>,
    pub url: String,
    /// What it printed when it was ready.
    pub line: String,
}

impl Server {
    /// Starts a server on `dir/data` with the mini model and waits until it serves.
    pub fn start(dir: &Path) -> Self {
        Self::start_with(dir, &[])
    }

    /// As [`Server::start`], with further arguments.
    pub fn start_with(dir: &Path, more: &[&str]) -> Self {
        Self::start_with_model(dir, &mini_model(), more)
    }

    /// As [`Server::start_with`], with another model.
    pub fn start_with_model(dir: &Path, model: &Path, more: &[&str]) -> Self {
        let args = ["serve", "--data", "data", "--model", model.to_str().unwrap(), "--listen", "127.0.0.1:0"];
        Self::spawn(&mut diptych(dir, &[&args, more].concat()))
    }

    /// Starts a server by a command of one's own and waits until it serves.
    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Some(url) = line.split_whitespace().find(|word| word.starts_with("http")) else {
            let mut said = String::new();
            child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            panic!("the server did not start: {line} {said}");
        };
        // Its log is read away, so that a full pipe cannot stop it.
        let mut log = child.stderr.take().unwrap();
        let log = std::thread::spawn(move || {
            let mut said = Vec::new();
            let _ = log.read_to_end(&mut said);
            String::from_utf8_lossy(&said).into_owned()
        });
        Self { url: url.to_owned(), line, log: Some(log), child }
    }

    pub async fn client(&self) -> Client {
        RetrievalServiceClient::new(self.channel().await)
    }

    /// A connection for any of its services.
    pub async fn channel(&self) -> Channel {
        Channel::from_shared(self.url.clone()).unwrap().connect().await.unwrap()
    }

    /// Asks the server to stop, as an operator would, and waits for it.
    pub fn stop(mut self) -> std::process::ExitStatus {
        self.terminate()
    }

    /// As [`Server::stop`], while connections of this task are open: the server waits for them to close.
    pub async fn stop_with_clients(self) -> std::process::ExitStatus {
        tokio::task::spawn_blocking(|| self.stop()).await.unwrap()
    }

    /// As [`Server::stop`]; returns all that it has logged.
    pub fn stop_and_read_log(mut self) -> String {
        assert!(self.terminate().success());
        self.log.take().unwrap().join().unwrap()
    }

    /// Sends a signal, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    fn terminate(&mut self) -> std::process::ExitStatus {
        self.signal("TERM");
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
