//! The promise under kill -9: what was acknowledged is there, and the rest is simply done again.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use diptych_proto::v1 as wire;

use crate::support::{Server, corpus, diptych, fail, mini_model, succeed};

#[tokio::test]
async fn acknowledged_records_survive_a_kill_in_the_middle_of_ingestion() {
    let dir = corpus(1);
    let mut acknowledged = Vec::new();
    {
        let server = Server::start(dir.path());
        let mut client = server.client().await;
        let items = (0..).map(|n| wire::IngestRequest {
            key: format!("r{n:05}"),
            texts: vec![format!("Nodule number {n}.")],
            ..Default::default()
        });
        let mut answers = client.ingest(tokio_stream::iter(items)).await.unwrap().into_inner();
        while acknowledged.len() < 150 {
            let answer = answers.message().await.unwrap().unwrap();
            assert!(answer.error.is_none(), "{answer:?}");
            acknowledged.push(answer.key);
        }
        // Dropping the server kills it with SIGKILL while the stream is still running.
    }
    let said = succeed(dir.path(), &["verify", "--data", "data"]);
    assert!(said.contains("store and index agree"), "{said}");
    let server = Server::start(dir.path());
    let mut client = server.client().await;
    for key in acknowledged {
        let request = wire::GetRecordRequest { key: key.clone(), ..Default::default() };
        assert!(client.get_record(request).await.is_ok(), "{key} was acknowledged and is gone");
    }
}

#[test]
fn bulk_ingestion_that_was_killed_goes_on_and_ends_as_if_it_had_not_been() {
    let dir = corpus(300);
    let model = mini_model();
    let ingest = ["ingest", "phantoms", "--data", "data", "--model", model.to_str().unwrap()];
    let mut child = diptych(dir.path(), &ingest).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // Killed as soon as the store has grown a log, which is somewhere in the middle.
    let grown = || {
        let log = |e: std::io::Result<std::fs::DirEntry>| {
            let entry = e.ok()?;
            let is_log = entry.path().extension().is_some_and(|x| x == "log");
            (is_log && entry.metadata().ok()?.len() > 20_000).then_some(())
        };
        let mut folders = vec![dir.path().join("data")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten() {
                if entry.as_ref().is_ok_and(|e| e.path().is_dir()) {
                    folders.push(entry.as_ref().unwrap().path());
                } else if log(entry).is_some() {
                    return true;
                }
            }
        }
        false
    };
    while !grown() && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();

    let said = succeed(dir.path(), &["verify", "--data", "data"]);
    assert!(said.contains("store and index agree"), "{said}");
    let said = succeed(dir.path(), &ingest);
    assert!(said.contains("300 items") && said.contains("0 failed"), "{said}");
    let said = succeed(dir.path(), &["verify", "--data", "data"]);
    assert!(said.contains("300 records, 600 vectors: store and index agree"), "{said}");
}

#[test]
fn a_second_process_on_the_same_directory_is_told_who_has_it() {
    let dir = corpus(2);
    let server = Server::start(dir.path());
    let model = mini_model();
    let said =
        fail(dir.path(), &["ingest", "phantoms", "--data", "data", "--model", model.to_str().unwrap()]);
    assert!(said.contains("in use") && said.contains("lock"), "{said}");
    drop(server);
    succeed(dir.path(), &["ingest", "phantoms", "--data", "data", "--model", model.to_str().unwrap()]);
}

#[test]
fn a_server_prints_one_line_and_listens_on_loopback_only() {
    let dir = tempfile::tempdir().unwrap();
    let model = mini_model();
    let args = ["serve", "--data", "data", "--model", model.to_str().unwrap(), "--listen", "0.0.0.0:0"];
    assert!(fail(dir.path(), &args).contains("no authentication"));
    let args = ["serve", "--data", "data", "--model", model.to_str().unwrap(), "--listen", "127.0.0.1:0"];
    let mut child = diptych(dir.path(), &args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(line.starts_with("serving on http://127.0.0.1:") && line.contains("0 records"), "{line}");
}
