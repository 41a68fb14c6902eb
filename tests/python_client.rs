//! The service from another language: Python's grpcio, with stubs generated from `proto/`.

use std::path::Path;
use std::process::Command;

use crate::support::{Server, corpus, succeed};

#[test]
fn a_python_client_generated_from_the_proto_files_can_do_everything() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join(".venv/bin/python");
    let ready = Command::new(&python).args(["-c", "import grpc, grpc_tools"]).output();
    if !ready.is_ok_and(|o| o.status.success()) {
        eprintln!("SKIPPED: no Python with grpcio-tools in .venv; `make setup` makes one where it can");
        return;
    }
    let dir = corpus(20);
    let server = Server::start(dir.path());
    succeed(dir.path(), &["ingest", "phantoms", "--server", &server.url]);
    let output = Command::new(python)
        .arg(root.join("tests/python/client.py"))
        .arg(root.join("proto"))
        .arg(server.url.trim_start_matches("http://"))
        .arg(dir.path().join("phantoms"))
        .current_dir(dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(said.trim(), "all well");
}
