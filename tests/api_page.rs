//! docs/api.md as it stands: every block that is marked `runnable` runs against a server with phantoms in it, in the
//! order of the page, and shows what it says it shows.
//!
//! A block says so in its first line (```` ```sh runnable ````, ```` ```python runnable ````) and what is to be seen in
//! lines `# shows: ...`, of which it has one at least. It runs where the folder `phantoms` is, with the server's address
//! in `$SERVER`, the bundled model in `$MODEL`, and `diptych` on the path.

use std::path::Path;
use std::process::Command;

use crate::python_client::python_that;
use crate::support::{Server, corpus, mini_model, succeed};

/// What the page promises a reader to have made before.
const CASES: u32 = 500;

struct Block {
    line: usize,
    language: String,
    code: String,
}

/// The blocks of the page that can be run.
fn runnable() -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (line, text) in (1..).zip(include_str!("../docs/api.md").lines()) {
        match (&mut open, text.strip_prefix("```")) {
            (None, Some(info)) => {
                let language = info.strip_suffix(" runnable").unwrap_or_default().to_owned();
                open = Some(Block { line, language, code: String::new() });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => block.code.extend([text, "\n"]),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block of docs/api.md has no end");
    blocks.retain(|block| !block.language.is_empty());
    blocks
}

/// Runs the blocks of one language by a program that takes their code as its last argument.
fn run(language: &str, program: impl Fn() -> Command) {
    let blocks: Vec<Block> = runnable().into_iter().filter(|block| block.language == language).collect();
    assert!(!blocks.is_empty(), "docs/api.md has no {language} block");
    let dir = corpus(CASES);
    let server = Server::start(dir.path());
    succeed(dir.path(), &["ingest", "phantoms", "--server", &server.url]);
    let binary = Path::new(env!("CARGO_BIN_EXE_diptych")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap_or_default());
    for Block { line, code, .. } in blocks {
        let mut command = program();
        command.arg(&code).current_dir(dir.path()).env("PATH", &path).env("SERVER", &server.url);
        let output = command.env("MODEL", mini_model()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let noted = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "docs/api.md line {line} failed:\n{code}\n{said}{noted}");
        let shows: Vec<&str> = code.lines().filter_map(|line| line.strip_prefix("# shows: ")).collect();
        assert!(!shows.is_empty(), "docs/api.md line {line} does not say what it shows");
        for shown in shows {
            assert!(said.contains(shown), "docs/api.md line {line} does not show '{shown}':\n{said}{noted}");
        }
    }
}

#[test]
fn every_command_of_the_page_shows_what_it_says() {
    run("sh", || {
        let mut command = Command::new("sh");
        command.args(["-e", "-c"]);
        command
    });
}

#[test]
fn every_python_snippet_of_the_page_shows_what_it_says() {
    let Some(python) = python_that("import grpc, numpy, sys; assert sys.version_info >= (3, 10)") else {
        return;
    };
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/python/src");
    run("python", || {
        let mut command = Command::new(&python);
        command.env("PYTHONPATH", &package).args(["-B", "-c"]);
        command
    });
}
