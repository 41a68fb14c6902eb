//! Records over the wire and from the command line: new attributes, deletion by filter, pages, counts,
//! repeated requests, operations.

use diptych_proto::v1 as wire;
use diptych_proto::v1::attribute_value::Value as Attribute;
use diptych_proto::v1::collection_service_client::CollectionServiceClient;
use diptych_proto::v1::operation_service_client::OperationServiceClient;
use diptych_proto::{FieldMask, Timestamp};
use serde_json::{Value, json};
use tonic::Code;

use crate::support::{Client, Server, corpus, fail, filter, ingest, mini_model, succeed, succeed_with_notes};

fn integer(value: i64) -> wire::AttributeValue {
    wire::AttributeValue { value: Some(Attribute::IntegerValue(value)) }
}

fn item(key: &str, age: i64) -> wire::IngestRequest {
    let attributes = [("age".to_owned(), integer(age))].into();
    wire::IngestRequest {
        key: key.to_owned(),
        texts: vec![format!("Nodule of {key}.")],
        attributes,
        ..Default::default()
    }
}

fn update(
    key: &str,
    attributes: &[(&str, wire::AttributeValue)],
    paths: &[&str],
) -> wire::UpdateRecordRequest {
    let attributes = attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    wire::UpdateRecordRequest {
        record: Some(wire::Record { key: key.to_owned(), attributes, ..Default::default() }),
        update_mask: mask(paths),
        ..Default::default()
    }
}

fn mask(paths: &[&str]) -> Option<FieldMask> {
    (!paths.is_empty()).then(|| FieldMask { paths: paths.iter().map(|&path| path.to_owned()).collect() })
}

async fn get(client: &mut Client, key: &str) -> wire::Record {
    let request = wire::GetRecordRequest { key: key.to_owned(), ..Default::default() };
    client.get_record(request).await.unwrap().into_inner().record.unwrap()
}

async fn count(client: &mut Client, written: &str) -> u64 {
    let filter = if written.is_empty() { None } else { filter(written) };
    let request = wire::CountRecordsRequest { filter, ..Default::default() };
    client.count_records(request).await.unwrap().into_inner().records
}

#[tokio::test]
async fn attributes_change_and_vectors_stay() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut client = server.client().await;
    ingest(&mut client, (0..20).map(|n| item(&format!("r{n}"), n)).collect()).await;
    let search = |filter: Option<wire::Filter>| wire::SearchRequest {
        query: Some(wire::search_request::Query::Text("Nodule of r7.".into())),
        target: wire::Modality::Text as i32,
        filter,
        ..Default::default()
    };
    let before = client.search(search(None)).await.unwrap().into_inner().hits;
    assert_eq!(client.search(search(filter("age = 7"))).await.unwrap().into_inner().hits.len(), 1);
    let old = get(&mut client, "r7").await;

    let time = wire::AttributeValue {
        value: Some(Attribute::TimeValue(Timestamp { seconds: 1_706_659_200, nanos: 5 })),
    };
    let request = update(
        "r7",
        &[("age", integer(70)), ("taken", time.clone()), ("unnamed", time)],
        &["attributes.age", "attributes.taken"],
    );
    let changed = client.update_record(request.clone()).await.unwrap().into_inner();
    assert_eq!(changed.outcome(), wire::WriteOutcome::Updated);
    let new = get(&mut client, "r7").await;
    assert_eq!(Some(new.seq), changed.seq);
    assert!(new.seq > old.seq);
    assert_eq!((&new.parts, new.attributes.len()), (&old.parts, 2), "what no path names is left alone");
    // The filters know at once, and the vectors are where they were.
    for (written, found) in [
        ("age = 7", 0),
        ("age = 70", 1),
        ("taken >= time('2024-01-31')", 1),
        ("taken > time('2024-02-01')", 0),
    ] {
        let hits = client.search(search(filter(written))).await.unwrap().into_inner().hits;
        assert_eq!(hits.len(), found, "{written}");
    }
    let scores = |hits: &[wire::Hit]| {
        hits.iter().map(|hit| (hit.key.clone(), hit.score.to_bits())).collect::<Vec<_>>()
    };
    let after = client.search(search(None)).await.unwrap().into_inner().hits;
    assert_eq!(scores(&after), scores(&before));
    assert_eq!(
        client.update_record(request).await.unwrap().into_inner().outcome(),
        wire::WriteOutcome::Unchanged
    );
    // The content that was stored first is another one now, and that of the update is not.
    let answers = ingest(&mut client, vec![item("r7", 7), item("r8", 8)]).await;
    assert_eq!(answers[0].outcome(), wire::WriteOutcome::Updated);
    assert_eq!(answers[1].outcome(), wire::WriteOutcome::Unchanged);

    client.update_record(update("r8", &[("ward", integer(4))], &["attributes"])).await.unwrap();
    assert_eq!(get(&mut client, "r8").await.attributes.into_keys().collect::<Vec<_>>(), ["ward"]);
    client.update_record(update("r8", &[], &["attributes.ward"])).await.unwrap();
    assert!(get(&mut client, "r8").await.attributes.is_empty());
    let bad_time =
        wire::AttributeValue { value: Some(Attribute::TimeValue(Timestamp { seconds: i64::MAX, nanos: 0 })) };
    for (request, code, says) in [
        (update("nobody", &[("age", integer(1))], &[]), Code::NotFound, "nobody"),
        (update("r7", &[], &[]), Code::InvalidArgument, "changes nothing"),
        (update("r7", &[], &["parts"]), Code::InvalidArgument, "ingest the record"),
        (update("r7", &[("t", bad_time)], &[]), Code::InvalidArgument, "years 1 to 9999"),
        (
            update("r7", &[("t", wire::AttributeValue::default())], &[]),
            Code::InvalidArgument,
            "'t' has no value",
        ),
    ] {
        let status = client.update_record(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(says), "{status}");
    }
    assert!(server.stop_with_clients().await.success());
    assert!(succeed(dir.path(), &["verify", "--data", "data"]).contains("store and index agree"));
}

#[tokio::test]
async fn a_repeated_request_gets_its_first_answer_also_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let with_id =
        |request: wire::IngestRequest, id: &str| wire::IngestRequest { request_id: id.into(), ..request };
    let change =
        wire::UpdateRecordRequest { request_id: "u1".into(), ..update("b", &[("age", integer(9))], &[]) };
    let delete = wire::DeleteRecordRequest { key: "c".into(), request_id: "d1".into(), ..Default::default() };
    let first = {
        let server = Server::start(dir.path());
        let mut client = server.client().await;
        let items =
            vec![with_id(item("a", 1), "i1"), with_id(item("a", 1), "i1"), item("b", 2), item("c", 3)];
        let answers = ingest(&mut client, items).await;
        assert_eq!(answers[0].outcome(), wire::WriteOutcome::Created);
        assert_eq!(answers[1], answers[0], "two of one id in one stream");
        let changed = client.update_record(change.clone()).await.unwrap().into_inner();
        client.delete_record(delete.clone()).await.unwrap();
        // Killed when it is dropped.
        (answers[0].clone(), changed)
    };
    let server = Server::start(dir.path());
    let mut client = server.client().await;
    // Others have changed all of it since.
    ingest(&mut client, vec![item("a", 50), item("b", 50), item("c", 50)]).await;
    let again = ingest(&mut client, vec![with_id(item("a", 1), "i1")]).await;
    assert_eq!(again[0], first.0);
    assert_eq!(client.update_record(change.clone()).await.unwrap().into_inner(), first.1);
    client.delete_record(delete.clone()).await.unwrap();
    assert_eq!(count(&mut client, "age = 50").await, 3, "nothing was done again");

    // The same id for something else is a mistake.
    let mut answers =
        client.ingest(tokio_stream::iter([with_id(item("a", 2), "i1")])).await.unwrap().into_inner();
    let error = answers.message().await.unwrap().unwrap().error.unwrap();
    assert_eq!(error.code, Code::InvalidArgument as i32);
    assert!(error.message.contains("'i1' belongs to another request"), "{}", error.message);
    let other = wire::UpdateRecordRequest { request_id: "d1".into(), ..change };
    assert_eq!(client.update_record(other).await.unwrap_err().code(), Code::InvalidArgument);
    let other = wire::DeleteRecordRequest { request_id: "x".repeat(200), ..delete };
    assert_eq!(client.delete_record(other).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn records_are_listed_and_counted_by_filter_with_the_fields_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut client = server.client().await;
    ingest(&mut client, (0..30).map(|n| item(&format!("r{n:02}"), n)).collect()).await;
    let (mut keys, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = wire::ListRecordsRequest {
            page_size: 4,
            page_token,
            filter: filter("age >= 10 and not age in (12, 13)"),
            read_mask: mask(&["key", "attributes.age"]),
            ..Default::default()
        };
        let page = client.list_records(request).await.unwrap().into_inner();
        assert!(page.records.len() <= 4);
        for record in page.records {
            assert_eq!((record.parts.len(), record.seq, record.attributes.len()), (0, 0, 1));
            keys.push(record.key);
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let expected: Vec<String> =
        (10..30).filter(|n| ![12, 13].contains(n)).map(|n| format!("r{n:02}")).collect();
    assert_eq!(keys, expected);
    assert_eq!(count(&mut client, "").await, 30);
    assert_eq!(count(&mut client, "age >= 10 and not age in (12, 13)").await, 18);
    let request = wire::CountRecordsRequest { filter: filter("height > 3"), ..Default::default() };
    let counted = client.count_records(request).await.unwrap().into_inner();
    assert_eq!((counted.records, counted.notes.len()), (0, 1));
    let wrong = wire::ListRecordsRequest { read_mask: mask(&["vectors"]), ..Default::default() };
    let status = client.list_records(wrong).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("'vectors'"), "{status}");
}

#[tokio::test]
async fn records_are_deleted_by_filter_as_an_operation() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut client = server.client().await;
    let mut operations = OperationServiceClient::new(server.channel().await);
    ingest(&mut client, (0..600).map(|n| item(&format!("r{n:03}"), n)).collect()).await;
    let request = |written: &str, dry_run: bool| wire::DeleteRecordsRequest {
        filter: filter(written),
        dry_run,
        request_id: if dry_run { String::new() } else { "bulk".into() },
        ..Default::default()
    };
    let dry = client.delete_records(request("age < 580", true)).await.unwrap().into_inner();
    assert_eq!((dry.matching_records, dry.operation), (580, None));
    assert_eq!(count(&mut client, "").await, 600);

    let answer = client.delete_records(request("age < 580", false)).await.unwrap().into_inner();
    assert_eq!(answer.matching_records, 580);
    let name = answer.operation.unwrap().name;
    let get = wire::GetOperationRequest { name: name.clone(), wait_millis: 10_000 };
    let end = operations.get_operation(get).await.unwrap().into_inner().operation.unwrap();
    assert!(end.done && end.error.is_none() && end.end_time.is_some(), "{end:?}");
    assert_eq!(end.kind(), wire::OperationKind::DeleteRecords);
    assert_eq!(end.result.unwrap().deleted_records, 580);
    assert_eq!(end.progress, Some(wire::OperationProgress { completed: 580, total: 580 }));
    assert_eq!(count(&mut client, "").await, 20);
    let search = wire::SearchRequest {
        query: Some(wire::search_request::Query::Text("Nodule.".into())),
        target: wire::Modality::Text as i32,
        k: Some(1000),
        ..Default::default()
    };
    assert_eq!(client.search(search).await.unwrap().into_inner().hits.len(), 20);

    // Repeated, the request is answered as it was, although there is more to delete now.
    ingest(&mut client, vec![item("late", 5)]).await;
    let again = client.delete_records(request("age < 580", false)).await.unwrap().into_inner();
    let get = wire::GetOperationRequest { name: again.operation.unwrap().name, wait_millis: 10_000 };
    let end = operations.get_operation(get).await.unwrap().into_inner().operation.unwrap();
    assert_eq!(end.result.unwrap().deleted_records, 580);
    assert_eq!(count(&mut client, "age = 5").await, 1);
    let other = client.delete_records(request("age < 3", false)).await.unwrap().into_inner();
    let get = wire::GetOperationRequest { name: other.operation.unwrap().name, wait_millis: 10_000 };
    let end = operations.get_operation(get).await.unwrap().into_inner().operation.unwrap();
    assert_eq!(end.error.unwrap().code, Code::InvalidArgument as i32);
    let all = wire::DeleteRecordsRequest::default();
    let status = client.delete_records(all).await.unwrap_err();
    assert!(status.message().contains("has no filter"), "{status}");

    let page = wire::ListOperationsRequest { page_size: 2, ..Default::default() };
    let page = operations.list_operations(page).await.unwrap().into_inner();
    assert_eq!(page.operations.len(), 2);
    let rest = wire::ListOperationsRequest { page_token: page.next_page_token, ..Default::default() };
    let rest = operations.list_operations(rest).await.unwrap().into_inner();
    assert_eq!(rest.operations.iter().map(|o| &o.name).collect::<Vec<_>>(), [&name]);
    let cancel = wire::CancelOperationRequest { name };
    operations.cancel_operation(cancel).await.unwrap();
    let unknown = wire::CancelOperationRequest { name: "operations/1".into() };
    assert_eq!(operations.cancel_operation(unknown).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_deletion_that_is_killed_goes_on_when_its_request_is_repeated() {
    const RECORDS: i64 = 1500;
    let dir = tempfile::tempdir().unwrap();
    let request = || wire::DeleteRecordsRequest {
        filter: filter("age >= 10"),
        request_id: "bulk".into(),
        ..Default::default()
    };
    {
        let server = Server::start(dir.path());
        let mut client = server.client().await;
        ingest(&mut client, (0..RECORDS).map(|n| item(&format!("r{n:04}"), n)).collect()).await;
        let mut deleting = server.client().await;
        let sent = tokio::spawn(async move { deleting.delete_records(request()).await.is_ok() });
        // Killed once something is deleted, which is somewhere in the middle, or at the end on a fast disk.
        while count(&mut client, "").await == RECORDS as u64 {}
        drop(server);
        let _ = sent.await;
    }
    let said = succeed(dir.path(), &["verify", "--data", "data"]);
    assert!(said.contains("store and index agree"), "{said}");
    let server = Server::start(dir.path());
    let mut client = server.client().await;
    let operation = client.delete_records(request()).await.unwrap().into_inner().operation.unwrap();
    let mut operations = OperationServiceClient::new(server.channel().await);
    let get = wire::GetOperationRequest { name: operation.name, wait_millis: 10_000 };
    let end = operations.get_operation(get).await.unwrap().into_inner().operation.unwrap();
    assert!(end.done && end.error.is_none(), "{end:?}");
    assert_eq!(end.result.unwrap().deleted_records, RECORDS as u64 - 10, "each is counted once");
    assert_eq!(count(&mut client, "").await, 10);
}

#[tokio::test]
async fn indexes_are_built_again_while_searches_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut client = server.client().await;
    let channel = server.channel().await;
    let mut collections = CollectionServiceClient::new(channel.clone());
    let mut operations = OperationServiceClient::new(channel);
    ingest(&mut client, (0..50).map(|n| item(&format!("r{n}"), n)).collect()).await;
    let search = || wire::SearchRequest {
        query: Some(wire::search_request::Query::Text("Nodule of r7.".into())),
        target: wire::Modality::Text as i32,
        k: Some(50),
        ..Default::default()
    };
    let before = client.search(search()).await.unwrap().into_inner().hits;
    let request = wire::RebuildIndexRequest { collection: "default".into() };
    let started = collections.rebuild_index(request).await.unwrap().into_inner().operation.unwrap();
    assert_eq!(client.search(search()).await.unwrap().into_inner().hits, before);
    let get = wire::GetOperationRequest { name: started.name, wait_millis: 10_000 };
    let end = operations.get_operation(get).await.unwrap().into_inner().operation.unwrap();
    assert!(end.done && end.error.is_none(), "{end:?}");
    assert_eq!(end.result.unwrap().indexed_points, 50);
    assert_eq!(client.search(search()).await.unwrap().into_inner().hits, before);
    ingest(&mut client, vec![item("late", 5)]).await;
    let late = client.search(wire::SearchRequest { k: Some(100), ..search() }).await.unwrap().into_inner();
    assert_eq!(late.hits.len(), 51);
    let request = wire::RebuildIndexRequest { collection: "nowhere".into() };
    assert_eq!(collections.rebuild_index(request).await.unwrap_err().code(), Code::NotFound);
    assert!(server.stop_with_clients().await.success());
    assert!(succeed(dir.path(), &["verify", "--data", "data"]).contains("store and index agree"));
}

#[test]
fn the_command_line_reads_counts_changes_and_deletes_records_here_and_there() {
    let dir = corpus(30);
    let model = mini_model();
    succeed(dir.path(), &["ingest", "phantoms", "--data", "data", "--model", model.to_str().unwrap()]);
    let work = |place: &[&str], n: u32| {
        let key = format!("phantom-{n:06}");
        let record = |args: &[&str]| succeed(dir.path(), &[&["record"], args, place].concat());
        let age = |key: &str| -> Value {
            let said = record(&["get", key, "--fields", "attributes.age,seq"]);
            let value: Value = serde_json::from_str(&said).unwrap();
            assert_eq!(value.as_object().unwrap().keys().collect::<Vec<_>>(), ["attributes", "seq"]);
            value["attributes"]["age"].clone()
        };
        let before: u64 = record(&["count"]).trim().parse().unwrap();
        let update = ["update", &key, "--set", "age=200", "--set", "note=checked", "--unset", "sex"];
        assert_eq!(record(&update), "updated\n");
        assert_eq!(record(&update[..4]), "unchanged: it has these attributes already\n");
        assert_eq!(age(&key), json!(200));
        let listed = record(&["list", "--filter", "note starts_with 'check'", "--fields", "key"]);
        assert_eq!(listed, format!("{}\n", json!({"key": key})));
        let whole: Value = serde_json::from_str(&record(&["get", &key])).unwrap();
        assert_eq!(whole["parts"][0]["part"], "image:0");
        assert!(whole["attributes"].get("sex").is_none());
        assert_eq!(record(&["count", "--filter", "age = 200"]), "1\n");
        let dry = ["delete", "--filter", "age = 200", "--dry-run"];
        assert_eq!(record(&dry), "1 record would be deleted\n");
        assert_eq!(record(&["delete", "--filter", "age = 200"]), "deleted 1 record\n");
        let next = format!("phantom-{:06}", n + 1);
        assert_eq!(record(&["delete", &next]), "deleted 1 record\n");
        assert_eq!(record(&["count"]).trim().parse::<u64>().unwrap(), before - 2);
        let said = fail(dir.path(), &[&["record", "get", &next], place].concat());
        assert!(said.contains("there is no record"), "{said}");
        let (said, notes) =
            succeed_with_notes(dir.path(), &[&["record", "count", "--filter", "vieww = 1"], place].concat());
        assert_eq!(said, "0\n");
        assert!(notes.contains("no record has the attribute 'vieww'"), "{notes}");
    };
    work(&["--data", "data"], 3);
    let server = Server::start(dir.path());
    work(&["--server", &server.url], 10);
    assert!(server.stop().success());
    let said = succeed(dir.path(), &["verify", "--data", "data"]);
    assert!(said.contains("26 records, 52 vectors: store and index agree"), "{said}");
}
