//! Operations from the command line: begun, listed, waited for and cancelled.

use serde_json::Value;

use crate::support::{Server, corpus, fail, mini_model, succeed};

#[test]
fn an_operation_is_begun_followed_and_cancelled_from_the_command_line() {
    let dir = corpus(30);
    let server = Server::start(dir.path());
    let there = ["--server", server.url.as_str()];
    let ask = |words: &[&str]| succeed(dir.path(), &[words, &there].concat());
    assert_eq!(ask(&["operation", "list"]), "no operation since the server was started\n");
    ask(&["ingest", "phantoms"]);
    assert_eq!(
        ask(&["collection", "rebuild-index", "default"]),
        "rebuilt the indexes of 'default': 60 points\n"
    );
    let name = ask(&["collection", "rebuild-index", "--detach"]);
    let name = name.trim();
    assert!(name.starts_with("operations/"), "{name}");
    let waited = ask(&["operation", "wait", name]);
    assert_eq!(waited, format!("{name}  rebuild index of 'default': done, 60 points\n"));
    assert_eq!(ask(&["operation", "show", name]), waited);
    let shown: Value = serde_json::from_str(&ask(&["operation", "show", name, "--json"])).unwrap();
    assert_eq!((&shown["done"], &shown["indexed_points"]), (&true.into(), &60.into()));
    assert!(shown["ended"].as_str() >= shown["started"].as_str(), "{shown}");

    assert_eq!(ask(&["record", "delete", "--filter", "age >= 0"]), "deleted 30 records\n");
    let listed = ask(&["operation", "list"]);
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines.len(), 3, "{listed}");
    assert!(lines[0].ends_with("delete records of 'default': done, 30 records"), "{listed}");
    assert_eq!(lines[1], waited.trim());
    assert_eq!(ask(&["operation", "list", "--limit", "1"]).lines().count(), 1);
    let said = ask(&["operation", "cancel", name]);
    assert!(said.contains("what it has done stays done"), "{said}");
    let said = fail(dir.path(), &[&["operation", "show", "operations/0-1"], &there[..]].concat());
    assert!(said.contains("there is no operation 'operations/0-1'"), "{said}");
}

#[test]
fn indexes_of_a_directory_are_rebuilt_without_a_server() {
    let dir = corpus(12);
    let model = mini_model();
    let model = model.to_str().unwrap();
    succeed(dir.path(), &["ingest", "phantoms", "--data", "data", "--model", model]);
    let said = succeed(dir.path(), &["collection", "rebuild-index", "--data", "data"]);
    assert_eq!(said, "rebuilt the indexes of 'default': 24 points\n");
    let said = fail(dir.path(), &["collection", "rebuild-index", "none", "--data", "data"]);
    assert!(said.contains("there is no collection 'none'"), "{said}");
}
