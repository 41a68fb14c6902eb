//! Collections over the wire and from the command line: made with a schema, described, deleted whole.

use std::path::Path;

use diptych_proto::v1 as wire;
use diptych_proto::v1::collection_service_client::CollectionServiceClient;
use serde_json::Value;
use tonic::Code;
use tonic::transport::Channel;

use crate::support::{Server, fail, filter, hits, ingest, mini_model, run, succeed};

type Collections = CollectionServiceClient<Channel>;

fn item(collection: &str, key: &str, text: &str) -> wire::IngestRequest {
    let (collection, key, texts) = (collection.to_owned(), key.to_owned(), vec![text.to_owned()]);
    wire::IngestRequest { collection, key, texts, ..Default::default() }
}

fn string(text: &str) -> wire::AttributeValue {
    wire::AttributeValue { value: Some(wire::attribute_value::Value::StringValue(text.to_owned())) }
}

async fn describe(client: &mut Collections, name: &str) -> Result<wire::Collection, tonic::Status> {
    let request = wire::GetCollectionRequest { name: name.to_owned() };
    Ok(client.get_collection(request).await?.into_inner().collection.unwrap())
}

#[test]
fn the_command_line_makes_describes_and_deletes_collections_here_and_there() {
    let dir = tempfile::tempdir().unwrap();
    let model = mini_model();
    let model = model.to_str().unwrap();
    let said = fail(dir.path(), &["collection", "create", "cases", "--data", "data"]);
    assert!(said.contains("name it with --model"), "{said}");
    let create = ["collection", "create", "cases", "--attribute", "taken:time", "--attribute", "dose:float"];
    let said =
        succeed(dir.path(), &[&create[..], &["--closed", "--data", "data", "--model", model]].concat());
    assert_eq!(said, "created collection 'cases': dose float, taken time; no others\n");
    // From now on the directory knows its model.
    let said = succeed(dir.path(), &["collection", "create", "other", "--data", "data"]);
    assert_eq!(said, "created collection 'other': any attributes\n");

    let lines = [
        r#"{"key":"a","text":"No effusion.","attributes":{"taken":"2024-01-31","dose":3}}"#,
        r#"{"key":"b","text":"Effusion.","attributes":{"taken":"2024-02-01T09:30:00+01:00"}}"#,
        r#"{"key":"c","text":"Nodule.","attributes":{"taken":"last week"}}"#,
        r#"{"key":"d","text":"Nodule.","attributes":{"ward":"4"}}"#,
    ];
    std::fs::write(dir.path().join("items.jsonl"), lines.join("\n")).unwrap();
    let server = Server::start(dir.path());
    let there = ["--server", server.url.as_str()];
    let source = ["ingest", "items.jsonl", "--collection", "cases"];
    let said = succeed(dir.path(), &[&source[..], &there].concat());
    assert!(said.contains("2 created") && said.contains("2 failed"), "{said}");
    let failures = std::fs::read_to_string(dir.path().join("ingest-failures.jsonl")).unwrap();
    assert!(failures.contains("'taken' is the string 'last week', and the collection's schema says time"));
    assert!(failures.contains("'ward' (string) is not in the collection's schema, which allows dose, taken"));

    let search = ["search", "--collection", "cases", "--text", "Effusion.", "--target", "text", "--json"];
    let found = |filter: &str| {
        let said = succeed(dir.path(), &[&search[..], &["--filter", filter], &there].concat());
        hits(&said).into_iter().map(|hit| hit.0).collect::<Vec<_>>()
    };
    assert_eq!(found(r#"taken >= time("2024-02-01T08:30:00Z")"#), ["b"]);
    assert_eq!(found(r#"taken < time("2024-02-01") and dose = 3"#), ["a"]);

    let listed = succeed(dir.path(), &[&["collection", "list"], &there[..]].concat());
    assert_eq!(listed, "cases  2 records, 0 images, 2 texts\nother  0 records, 0 images, 0 texts\n");
    let said = succeed(dir.path(), &[&["collection", "describe", "cases", "--json"], &there[..]].concat());
    let described: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(described["attributes"], serde_json::json!({"dose": "float", "taken": "time"}));
    assert_eq!((&described["closed"], &described["records"]), (&true.into(), &2.into()));
    assert!(described["created"].as_str().unwrap().starts_with("20"), "{said}");

    assert!(server.stop().success());
    let here = ["--data", "data"];
    let said = succeed(dir.path(), &[&["collection", "delete", "cases"], &here[..]].concat());
    assert_eq!(said, "deleted collection 'cases' with 2 records\n");
    let said = succeed(dir.path(), &[&["collection", "list"], &here[..]].concat());
    assert_eq!(said, "other  0 records, 0 images, 0 texts\n");
    let said = fail(dir.path(), &[&["collection", "describe", "cases"], &here[..]].concat());
    assert!(said.contains("there is no collection 'cases'; there are: other"), "{said}");
    assert!(succeed(dir.path(), &["verify", "--data", "data"]).contains("store and index agree"));
}

#[tokio::test]
async fn collections_of_the_wire_are_paged_and_wrong_requests_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut client = Collections::new(server.channel().await);
    let types = |of: i32| [("age".to_owned(), of)].into();
    let create = |name: &str, of: i32| wire::CreateCollectionRequest {
        name: name.to_owned(),
        schema: Some(wire::AttributeSchema { types: types(of), closed: false }),
    };
    let integer = wire::AttributeType::Integer as i32;
    for name in ["b", "d", "a", "c"] {
        let made = client.create_collection(create(name, integer)).await.unwrap().into_inner().collection;
        let made = made.unwrap();
        assert_eq!((made.name.as_str(), made.schema.unwrap().types), (name, types(integer)));
        assert_eq!(made.model_id.len(), 64);
    }
    for (request, code, says) in [
        (create("a", integer), Code::AlreadyExists, "collection 'a' exists"),
        (create("", integer), Code::InvalidArgument, "empty"),
        (create("a/b", integer), Code::InvalidArgument, "letters, digits"),
        (create("e", 0), Code::InvalidArgument, "ATTRIBUTE_TYPE_STRING"),
        (create("e", 99), Code::InvalidArgument, "ATTRIBUTE_TYPE_STRING"),
    ] {
        let status = client.create_collection(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(says), "{status}");
    }
    let mut names = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = wire::ListCollectionsRequest { page_size: 3, page_token };
        let page = client.list_collections(request).await.unwrap().into_inner();
        assert!(page.collections.len() <= 3);
        names.extend(page.collections.into_iter().map(|c| c.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["a", "b", "c", "d"]);
    let wrong = wire::ListCollectionsRequest { page_token: "/".into(), ..Default::default() };
    assert_eq!(client.list_collections(wrong).await.unwrap_err().code(), Code::InvalidArgument);
    let gone = wire::DeleteCollectionRequest { name: "nowhere".into() };
    assert_eq!(client.delete_collection(gone).await.unwrap_err().code(), Code::NotFound);

    // An item that breaks the schema is answered; the next one is stored.
    let mut records = server.client().await;
    let bad =
        wire::IngestRequest { attributes: [("age".into(), string("old"))].into(), ..item("a", "x", "X.") };
    let items = tokio_stream::iter([bad, item("a", "y", "Y.")]);
    let mut answers = records.ingest(items).await.unwrap().into_inner();
    let error = answers.message().await.unwrap().unwrap().error.unwrap();
    assert_eq!(error.code, Code::InvalidArgument as i32);
    assert!(error.message.contains("'age' is the string 'old'") && error.message.contains("says integer"));
    assert!(answers.message().await.unwrap().unwrap().error.is_none());
}

#[tokio::test]
async fn the_name_of_a_deleted_collection_is_free_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut client = server.client().await;
    let mut collections = Collections::new(server.channel().await);
    let search = || wire::SearchRequest {
        collection: "x".into(),
        query: Some(wire::search_request::Query::Text("First.".into())),
        target: wire::Modality::Text as i32,
        ..Default::default()
    };
    for round in 0..3 {
        let items = (0..5).map(|n| item("x", &format!("{round}-{n}"), "First.")).collect();
        ingest(&mut client, items).await;
        let found = client.search(search()).await.unwrap().into_inner().hits;
        assert_eq!(found.len(), 5);
        assert!(found.iter().all(|hit| hit.key.starts_with(&format!("{round}-"))), "{found:?}");
        let count = wire::CountRecordsRequest {
            collection: "x".into(),
            filter: filter("not exists y"),
            ..Default::default()
        };
        assert_eq!(client.count_records(count).await.unwrap().into_inner().records, 5);
        let delete = wire::DeleteCollectionRequest { name: "x".into() };
        collections.delete_collection(delete).await.unwrap();
        assert_eq!(client.search(search()).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(describe(&mut collections, "x").await.unwrap_err().code(), Code::NotFound);
        let stats = client.stats(wire::StatsRequest {}).await.unwrap().into_inner();
        assert_eq!(stats.collections, []);
    }
    assert!(server.stop_with_clients().await.success());
    assert!(index_dirs(dir.path()).is_empty(), "{:?}", index_dirs(dir.path()));
    assert!(succeed(dir.path(), &["verify", "--data", "data"]).contains("store and index agree"));
}

/// The names of the folders of indexes.
fn index_dirs(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir.join("data/index")).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn a_collection_whose_deletion_is_killed_is_there_or_gone_but_never_half() {
    const RECORDS: u64 = 40;
    let dir = tempfile::tempdir().unwrap();
    let (mut there, mut gone) = (0, 0);
    for round in 0..6u32 {
        let answered = {
            let server = Server::start(dir.path());
            let mut client = server.client().await;
            let mut items: Vec<_> = (0..RECORDS).map(|n| item("x", &n.to_string(), "Nodule.")).collect();
            items.push(item("kept", "a", "Effusion."));
            ingest(&mut client, items).await;
            let search = ["search", "--text", "Nodule.", "--target", "text", "--collection", "x"];
            succeed(dir.path(), &[&search[..], &["--server", &server.url]].concat());
            let mut collections = Collections::new(server.channel().await);
            let delete = tokio::spawn(async move {
                collections
                    .delete_collection(wire::DeleteCollectionRequest { name: "x".into() })
                    .await
                    .is_ok()
            });
            // Later in each round: in the first, the request has hardly left; in the last, it was answered.
            for _ in 0..round * 60 {
                tokio::task::yield_now().await;
            }
            let answered = if round == 5 { Some(delete.await.unwrap()) } else { None };
            // Dropping the server kills it with SIGKILL.
            drop(server);
            answered
        };
        let said = succeed(dir.path(), &["verify", "--data", "data"]);
        assert!(said.contains("store and index agree"), "round {round}: {said}");

        let server = Server::start(dir.path());
        let mut collections = Collections::new(server.channel().await);
        match describe(&mut collections, "x").await {
            Ok(found) => {
                assert_eq!(answered, None, "round {round}: it was said to be gone");
                assert_eq!((found.records, found.text_points), (RECORDS, RECORDS), "round {round}");
                let search =
                    ["search", "--text", "Nodule.", "--target", "text", "--collection", "x", "-k", "100"];
                let said = succeed(dir.path(), &[&search[..], &["--json", "--server", &server.url]].concat());
                assert_eq!(hits(&said).len() as u64, RECORDS, "round {round}");
                there += 1;
            }
            Err(status) => {
                assert_eq!(status.code(), Code::NotFound, "round {round}: {status}");
                let create = wire::CreateCollectionRequest { name: "x".into(), schema: None };
                let made = collections.create_collection(create).await.unwrap().into_inner().collection;
                assert_eq!(made.unwrap().records, 0, "round {round}");
                // Of the collection that is gone, no files are left; those of two are there.
                assert!(index_dirs(dir.path()).len() <= 4, "round {round}: {:?}", index_dirs(dir.path()));
                gone += 1;
            }
        }
        assert_eq!(describe(&mut collections, "kept").await.unwrap().records, 1, "round {round}");
    }
    assert!(gone >= 1, "there {there}, gone {gone}");
}

/// The directory was written by the program as it was before collections had schemas.
#[test]
fn a_directory_of_the_first_format_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/store/tests/fixtures/format-1");
    copy(&fixture, &dir.path().join("data"));
    let said = succeed(dir.path(), &["collection", "describe", "--data", "data"]);
    assert!(said.starts_with("default: 2 records, 0 images, 3 texts\n"), "{said}");
    assert!(said.contains("any attributes") && said.contains("created     not known"), "{said}");
    let said = succeed(dir.path(), &["record", "list", "--data", "data", "--fields", "key,attributes"]);
    let first: Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
    assert_eq!(first["attributes"]["taken"], "2024-01-31", "a text stays one: {said}");
    let set = ["record", "update", "a", "--set", "taken=time(2024-01-31)", "--data", "data"];
    assert_eq!(succeed(dir.path(), &set), "updated\n");
    // Its vectors are those of the model that the fixture was made with, which may have been replaced.
    let model = mini_model();
    let search =
        ["search", "--data", "data", "--model", model.to_str().unwrap(), "--target", "text", "--json"];
    let output = run(dir.path(), &[&search[..], &["--text", "No effusion."]].concat());
    match output.status.success() {
        true => assert_eq!(hits(&String::from_utf8(output.stdout).unwrap())[0].0, "a"),
        false => assert!(String::from_utf8_lossy(&output.stderr).contains("was made with model")),
    }
    assert!(succeed(dir.path(), &["verify", "--data", "data"]).contains("store and index agree"));
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}
