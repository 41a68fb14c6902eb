//! Backups of a server at work, and what is made of them; damage; streams that end early.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use diptych_proto::v1 as wire;
use diptych_proto::v1::backup_response::Event;
use diptych_proto::v1::backup_service_client::BackupServiceClient;
use diptych_proto::v1::backup_service_server::{BackupService, BackupServiceServer};
use serde_json::Value;
use tokio_stream::Stream;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::support::{Server, corpus, fail, hits, ingest, mini_model, run, succeed};

fn text_item(key: String, text: String) -> wire::IngestRequest {
    wire::IngestRequest { key, texts: vec![text], ..Default::default() }
}

fn read_manifest(backup: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(backup.join("backup.json")).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_a_server_at_work_is_restored_to_what_it_was() {
    let dir = corpus(40);
    let server = Server::start(dir.path());
    succeed(dir.path(), &["ingest", "phantoms", "--server", &server.url]);
    let model = mini_model();
    let search = |place: &[&str]| {
        let args =
            [&["search", "pleural effusion", "--target", "image", "--k", "10", "--json"], place].concat();
        hits(&succeed(dir.path(), &args))
    };
    let before = search(&["--server", &server.url]);

    let (stop, client) = (Arc::new(AtomicBool::new(false)), server.client().await);
    let writing = {
        let (stop, mut client) = (Arc::clone(&stop), client.clone());
        tokio::spawn(async move {
            let mut written = 0;
            while !stop.load(Ordering::Relaxed) {
                let item = text_item(format!("new-{written}"), format!("A fracture of rib {written}."));
                ingest(&mut client, vec![item]).await;
                written += 1;
            }
            written
        })
    };
    let searching = {
        let (stop, mut client) = (Arc::clone(&stop), client);
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let query = Some(wire::search_request::Query::Text("pleural effusion".into()));
                let request =
                    wire::SearchRequest { query, target: wire::Modality::Image as i32, ..Default::default() };
                assert_eq!(client.search(request).await.unwrap().into_inner().hits.len(), 10);
            }
        })
    };
    let (path, url) = (dir.path().to_owned(), server.url.clone());
    let said = tokio::task::spawn_blocking(move || {
        ["one", "two"].map(|out| succeed(&path, &["backup", out, "--server", &url]))
    });
    let said = said.await.unwrap();
    stop.store(true, Ordering::Relaxed);
    searching.await.unwrap();
    let written: u64 = writing.await.unwrap();
    assert!(
        said.iter().all(|said| said.starts_with("backed up ") && said.contains(" up to change ")),
        "{said:?}"
    );
    assert!(!dir.path().join("data/backup.tmp").exists());

    // The backup is readable, says what it is of, and can be looked at where it lies.
    let manifest = read_manifest(&dir.path().join("two"));
    let records = manifest["records"].as_u64().unwrap();
    assert!((40..=40 + written).contains(&records), "{records} of {written}");
    assert!(succeed(dir.path(), &["restore", "two", "--check"]).contains("two is whole"));
    let said = succeed(dir.path(), &["restore", "two", "--data", "restored"]);
    assert!(
        said.contains(&format!("restored {records} records"))
            && said.contains("diptych serve --data restored"),
        "{said}"
    );
    let said = succeed(dir.path(), &["verify", "--data", "restored"]);
    assert!(said.contains(&format!("{records} records")) && said.contains("store and index agree"), "{said}");
    let restored = ["--data", "restored", "--model", model.to_str().unwrap()];
    let after = search(&restored);
    assert_eq!(after, before);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode =
            |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("two"), mode("restored")), (0o700, 0o700));
    }
    // The server's own directory goes on.
    assert!(server.stop_with_clients().await.success());
    assert!(
        succeed(dir.path(), &["verify", "--data", "data"]).contains(&format!("{} records", 40 + written))
    );
}

#[test]
fn a_data_directory_without_a_server_is_backed_up_too() {
    let dir = corpus(10);
    let model = mini_model();
    succeed(dir.path(), &["ingest", "phantoms", "--data", "data", "--model", model.to_str().unwrap()]);
    let said = succeed(dir.path(), &["backup", "deep/er/out", "--data", "data"]);
    assert!(said.contains("backed up 10 records"), "{said}");
    succeed(dir.path(), &["restore", "deep/er/out", "--data", "again"]);
    assert!(
        succeed(dir.path(), &["verify", "--data", "again"])
            .contains("10 records, 20 vectors: store and index agree")
    );

    // Nothing is written where something is.
    for (args, says) in [
        (
            &["backup", "deep/er/out", "--data", "data"][..],
            "deep/er/out is not empty; name a new or empty folder",
        ),
        (&["restore", "deep/er/out", "--data", "again"], "again is not empty"),
        (&["restore", "deep/er/out", "--data", "phantoms/cases.jsonl"], "is a file"),
        (&["backup", "elsewhere", "--data", "nowhere"], "there is no store in nowhere"),
        (&["restore", "phantoms", "--data", "new"], "phantoms has no backup.json, so it is no backup"),
        (&["restore", "absent", "--data", "new"], "cannot read absent"),
        (&["restore", "deep/er/out"], "--data"),
    ] {
        let said = fail(dir.path(), args);
        assert!(said.contains(says), "{args:?}: {said}");
    }
    assert!(!dir.path().join("elsewhere").exists() && !dir.path().join("new").exists());
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    succeed(dir.path(), &["restore", "deep/er/out", "--data", "empty"]);
}

#[test]
fn a_damaged_backup_is_refused_by_the_name_of_the_file() {
    let dir = corpus(10);
    let model = mini_model();
    succeed(
        dir.path(),
        &["ingest", "phantoms", "--data", "data", "--model", model.to_str().unwrap(), "--index"],
    );
    succeed(dir.path(), &["backup", "out", "--data", "data"]);
    let out = dir.path().join("out");
    let manifest = read_manifest(&out);
    let files: Vec<&str> =
        manifest["files"].as_array().unwrap().iter().map(|f| f["path"].as_str().unwrap()).collect();
    assert!(files.iter().any(|path| path.starts_with("index/")), "the index goes along: {files:?}");
    for path in files {
        let file = out.join(path);
        let good = std::fs::read(&file).unwrap();
        let mut flipped = good.clone();
        if let Some(byte) = flipped.last_mut() {
            *byte ^= 1;
        }
        let truncated = &good[..good.len().saturating_sub(1)];
        for (damaged, says) in [
            (Some(&flipped[..]), "is not what was backed up"),
            (Some(truncated), "bytes instead of"),
            (None, "is missing"),
        ] {
            match damaged {
                Some(bytes) if bytes == good => continue,
                Some(bytes) => std::fs::write(&file, bytes).unwrap(),
                None => std::fs::remove_file(&file).unwrap(),
            }
            let named = format!("{path} ");
            let said = fail(dir.path(), &["restore", "out", "--data", "new"]);
            assert!(said.contains(&named) && said.contains(says), "{path}: {said}");
            let checked = run(dir.path(), &["restore", "out", "--check"]);
            assert_eq!(checked.status.code(), Some(1));
            let said = String::from_utf8(checked.stdout).unwrap();
            assert!(
                said.contains(&named) && said.contains("1 problem: do not rely on this backup"),
                "{said}"
            );
        }
        std::fs::write(&file, good).unwrap();
        assert_eq!(left(dir.path()), ["data", "out", "phantoms"], "nothing that looks like a data directory");
    }
    for (text, says) in [
        ("{", "backup.json is damaged"),
        ("{\"format\": 9}", "format 9, this program reads 1"),
        (&serde_json::to_string(&manifest).unwrap().replace("FORMAT", "../FORMAT"), "'../FORMAT' is no path"),
    ] {
        std::fs::write(out.join("backup.json"), text).unwrap();
        let said = fail(dir.path(), &["restore", "out", "--data", "new"]);
        assert!(said.contains(says), "{said}");
    }
}

/// The folders there are.
fn left(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A server that sends what it is told to.
struct Scripted(Vec<Result<Event, Code>>);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl BackupService for Scripted {
    type BackupStream = Answers<wire::BackupResponse>;
    type ExportStream = Answers<wire::ExportResponse>;
    type ImportStream = Answers<wire::ImportResponse>;

    async fn backup(&self, _: Request<wire::BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        let message = |event: Result<Event, Code>| {
            event
                .map(|event| wire::BackupResponse { event: Some(event) })
                .map_err(|code| Status::new(code, "the wire was cut"))
        };
        let messages: Vec<_> = self.0.iter().cloned().map(message).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(messages))))
    }

    async fn export(&self, _: Request<wire::ExportRequest>) -> Result<Response<Self::ExportStream>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn import(
        &self,
        _: Request<Streaming<wire::ImportRequest>>,
    ) -> Result<Response<Self::ImportStream>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_cut_or_wrong_leaves_nothing_that_looks_like_a_backup() {
    let dir = tempfile::tempdir().unwrap();
    let start = || Ok(Event::Start(wire::BackupStart { files: 1, bytes: 3, ..Default::default() }));
    let file = |path: &str| Ok(Event::FileStart(wire::BackupFileStart { path: path.into(), bytes: 3 }));
    let chunk = |bytes: &[u8]| Ok(Event::Chunk(bytes.to_vec()));
    let file_end = |bytes: &[u8]| Ok(Event::FileEnd(wire::BackupFileEnd { digest: blake3(bytes) }));
    let end = |files: u64| Ok(Event::End(wire::BackupEnd { files, bytes: 3 }));
    for (script, says) in [
        (vec![], "ended the stream early"),
        (vec![start()], "ended the stream early"),
        (vec![start(), file("FORMAT"), chunk(b"ab")], "ended the stream early"),
        (vec![start(), file("FORMAT"), chunk(b"abc"), file_end(b"abc")], "ended the stream early"),
        (
            vec![start(), file("FORMAT"), Err(Code::Unavailable)],
            "nothing was written; run it again: the wire was cut (Unavailable)",
        ),
        (
            vec![start(), file("FORMAT"), chunk(b"abd"), file_end(b"abc")],
            "FORMAT did not arrive as it was sent",
        ),
        (
            vec![start(), file("FORMAT"), chunk(b"ab"), file_end(b"ab")],
            "FORMAT did not arrive as it was sent",
        ),
        (
            vec![start(), file("FORMAT"), chunk(b"abc"), file_end(b"abc"), end(2)],
            "not all files have arrived",
        ),
        (vec![file("FORMAT")], "out of order"),
        (vec![start(), chunk(b"abc")], "out of order"),
        (vec![start(), file("../../escape")], "'../../escape' is no path"),
        (vec![start(), file("/tmp/escape")], "is no path"),
        (vec![start(), file("backup.json")], "is no path"),
    ] {
        let said = backup_from(dir.path(), script, false).await;
        assert!(said.contains(says), "{said}");
        assert!(left(dir.path()).is_empty(), "{said}: {:?}", left(dir.path()));
    }
    let whole = vec![start(), file("FORMAT"), chunk(b"abc"), file_end(b"abc"), end(1)];
    backup_from(dir.path(), whole, true).await;
    assert_eq!(std::fs::read(dir.path().join("out/FORMAT")).unwrap(), b"abc");
}

fn blake3(bytes: &[u8]) -> Vec<u8> {
    ::blake3::hash(bytes).as_bytes().to_vec()
}

/// Runs `diptych backup` against a server that follows a script; returns what it said.
async fn backup_from(dir: &Path, script: Vec<Result<Event, Code>>, succeeds: bool) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server = tonic::transport::Server::builder().add_service(BackupServiceServer::new(Scripted(script)));
    let serving = tokio::spawn(server.serve_with_incoming(incoming));
    let dir = dir.to_owned();
    let said = tokio::task::spawn_blocking(move || {
        let args = ["backup", "out", "--server", &url];
        if succeeds { succeed(&dir, &args) } else { fail(&dir, &args) }
    });
    let said = said.await.unwrap();
    serving.abort();
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_backup_at_a_time_and_none_is_left_when_its_client_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut client = server.client().await;
    let about = client.stats(wire::StatsRequest {}).await.unwrap().into_inner();
    let mut backups = BackupServiceClient::new(server.channel().await);
    // More than fits between a server and a client that does not read.
    let item = |n: u64| {
        let mut state = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let text = (0..60_000).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b' ' + ((state >> 33) % 95) as u8)
        });
        let text = wire::TextPart { text: text.collect(), ..Default::default() };
        let part = wire::Part { content: Some(wire::part::Content::Text(text)), ..Default::default() };
        let record = wire::Record { key: format!("r{n}"), parts: vec![part], ..Default::default() };
        let values = (0..about.dimension).map(|i| ((u64::from(i) + 1) * (n + 1) % 97) as f32 + 1.0).collect();
        let text = wire::PartRef { modality: wire::Modality::Text as i32, ..Default::default() };
        let vector = wire::PartVector { r#ref: Some(text), vector: Some(wire::Vector { values }) };
        let record = wire::VectorRecord { record: Some(record), vectors: vec![vector] };
        wire::ImportRequest { record: Some(record), model_id: about.model_id.clone(), ..Default::default() }
    };
    let items: Vec<_> = (0..300).map(item).collect();
    let mut answers = backups.import(tokio_stream::iter(items)).await.unwrap().into_inner();
    while let Some(answer) = answers.message().await.unwrap() {
        assert_eq!((answer.outcome(), answer.error), (wire::WriteOutcome::Created, None));
    }

    let mut first = backups.backup(wire::BackupRequest {}).await.unwrap().into_inner();
    let Some(Event::Start(start)) = first.message().await.unwrap().unwrap().event else { panic!("no start") };
    assert!(start.bytes > 12 << 20 && start.records == 300, "{start:?}");
    let staging = dir.path().join("data/backup.tmp");
    assert!(staging.exists());
    let mut second = backups.backup(wire::BackupRequest {}).await.unwrap().into_inner();
    let refused = second.message().await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("wait until it has ended"), "{refused}");
    drop(first);
    // The server notices when it sends the next piece.
    loop {
        let mut third = backups.backup(wire::BackupRequest {}).await.unwrap().into_inner();
        match third.message().await {
            Ok(Some(_)) => break,
            Ok(None) => panic!("an empty stream"),
            Err(status) => assert_eq!(status.code(), Code::ResourceExhausted),
        }
    }
    drop(backups);
    assert!(server.stop_with_clients().await.success());
}

#[test]
fn a_key_for_some_collections_makes_no_backup() {
    let dir = tempfile::tempdir().unwrap();
    let key = |name: &str, more: &[&str]| {
        let args = [&["keys", "create", "--file", "keys.toml", "--name", name], more].concat();
        succeed(dir.path(), &args).trim().to_owned()
    };
    let all = key("all", &["--role", "admin"]);
    let some = key("some", &["--role", "admin", "--collection", "mine"]);
    let writer = key("writer", &["--role", "write"]);
    let server = Server::start_with(dir.path(), &["--keys", "keys.toml"]);
    let backup = |key: &str| {
        let mut command = crate::support::diptych(dir.path(), &["backup", "out", "--server", &server.url]);
        let output = command.env("DIPTYCH_API_KEY", key).output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let (done, said) = backup(&some);
    assert!(!done && said.contains("'some' is for some collections only"), "{said}");
    let (done, said) = backup(&writer);
    assert!(!done && said.contains("PermissionDenied"), "{said}");
    assert!(!dir.path().join("out").exists());
    let (done, said) = backup(&all);
    assert!(done, "{said}");
}
