//! The service from another language: Python's grpcio, with stubs generated from `proto/`, and the package under
//! clients/python, by its own tests.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Server, corpus, succeed};

#[test]
fn a_python_client_generated_from_the_proto_files_can_do_everything() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let Some(python) = python_that("import grpc, grpc_tools") else { return };
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

#[test]
fn the_python_package_passes_its_own_tests() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/python");
    let Some(python) =
        python_that("import grpc, numpy, PIL, pytest, sys; assert sys.version_info >= (3, 10)")
    else {
        return;
    };
    let output = Command::new(python)
        .args(["-B", "-m", "pytest", "-q"])
        .env("DIPTYCH_BIN", env!("CARGO_BIN_EXE_diptych"))
        .current_dir(package)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    // Tests that were skipped are named there.
    eprintln!("{said}");
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

/// The interpreter in `.venv`, when it can do this; says loudly when it cannot.
pub fn python_that(can: &str) -> Option<PathBuf> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    let ready = Command::new(&python).args(["-c", can]).output();
    if ready.is_ok_and(|o| o.status.success()) {
        return Some(python);
    }
    eprintln!("SKIPPED: no Python in .venv that can `{can}`; `make setup` makes one where it can");
    None
}
