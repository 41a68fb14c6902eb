//! The Rust client against a real server: every call, a server that dies half-way, and what it says of failures.

use std::path::Path;
use std::time::Duration;

use diptych_client::{
    AttributeSchema, AttributeType, AttributeValue, Client, ClientOptions, Code, CollectionName, DeleteWhere,
    Error, IngestOptions, Key, List, Modality, NewRecord, Outcome, PartContent, Plan, RequestId, RetryPolicy,
    Search, Update, WriteMode,
};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::support::{Server, corpus, diptych, mini_model, succeed};

/// The example of the client's own page, word for word.
mod first_steps {
    include!("client/first_steps.rs");

    #[tokio::test]
    async fn the_example_of_the_page_runs() {
        let page = include_str!("../crates/client/README.md");
        assert!(page.contains(include_str!("client/first_steps.rs")), "copy the example of the page here");
        let dir = tempfile::tempdir().unwrap();
        let server = super::Server::start(dir.path());
        first_steps(&server.url).await.unwrap();
        let client = super::connect(&server, "default").await;
        let record = client.get(&super::key("case-1")).await.unwrap();
        assert_eq!(record.attributes["age"], super::AttributeValue::Integer(63));
    }
}

fn key(key: &str) -> Key {
    Key::new(key).unwrap()
}

async fn connect(server: &Server, collection: &str) -> Client {
    let collection = CollectionName::new(collection).unwrap();
    Client::connect(ClientOptions { collection, ..ClientOptions::new(&server.url) }).await.unwrap()
}

fn text(n: usize) -> NewRecord {
    let record = NewRecord::new(key(&format!("r-{n:03}"))).text(format!("Nodule number {n}."));
    record.attribute("n", n as i64).attribute("odd", n % 2 == 1)
}

/// Ingests records; returns what became of each.
async fn outcomes(
    client: &Client,
    records: impl IntoIterator<Item = NewRecord, IntoIter: Send + 'static>,
) -> Vec<Outcome> {
    let results = client.ingest(tokio_stream::iter(records)).map(|r| r.unwrap().stored.unwrap().outcome);
    results.collect().await
}

async fn all<T>(pages: impl tokio_stream::Stream<Item = Result<T, Error>>) -> Vec<T> {
    pages.map(Result::unwrap).collect().await
}

#[tokio::test]
async fn searches_are_built_answered_and_paged() {
    let dir = corpus(60);
    let server = Server::start(dir.path());
    succeed(dir.path(), &["ingest", "phantoms", "--server", &server.url]);
    let mut options = ClientOptions::new(server.url.trim_start_matches("http://"));
    options.compression = true;
    let client = Client::connect(options).await.unwrap();
    let image = std::fs::read(dir.path().join("phantoms/images/phantom-000004.png")).unwrap();

    let found = client.search(&Search::new().image(image.clone()).target(Modality::Image)).await.unwrap();
    assert_eq!((found.hits.len(), found.hits[0].key.as_str()), (10, "phantom-000004"));
    assert!(found.hits[0].score > 0.999 && found.hits[0].term_scores.is_empty());
    assert!(
        matches!(&found.hits[0].part.as_ref().unwrap().content, Some(PartContent::Image(image)) if image.source.ends_with(".png"))
    );
    assert_eq!(found.stats.plan, Some(Plan::Scan));
    let case = key("phantom-000004");
    let words = client.get(&case).await.unwrap().parts.into_iter().find_map(|part| match part.content {
        Some(PartContent::Text(text)) => Some(text.text),
        _ => None,
    });
    let words = words.unwrap();
    let search = Search::new().text(&words).target(Modality::Text).k(3);
    let found = client.search(&search).await.unwrap();
    assert_eq!(found.hits[0].text(), Some(words.as_str()));

    let composed = Search::new().key(case.clone()).weight(2.0).text(&words).image(image).weight(-0.5);
    let found = client.search(&composed.target(Modality::Image)).await.unwrap();
    assert!(found.hits.iter().all(|hit| hit.term_scores.len() == 3));
    let older = Search::new().text(&words).target(Modality::Image).k(60).filter("age > 50");
    let found = client.search(&older).await.unwrap();
    assert!(found.hits.iter().all(|hit| matches!(hit.attributes["age"], AttributeValue::Integer(51..))));
    assert_eq!(found.stats.matching_points, Some(found.hits.len() as u64));
    let grouped =
        client.search(&Search::new().text(&words).target(Modality::Image).group_by("sex")).await.unwrap();
    assert_eq!(grouped.hits.len(), 2);

    let made = client.embed(vec![], vec![words.clone(); 300]).await.unwrap();
    assert_eq!((made.images.len(), made.texts.len(), made.truncated_tokens.len()), (0, 300, 300));
    let near =
        client.search(&Search::new().vector(made.texts[299].clone()).target(Modality::Text)).await.unwrap();
    assert_eq!(near.hits[0].text(), Some(words.as_str()));

    let search = Search::new().text(&words).target(Modality::Image).k(25);
    let pages = all(client.search_pages(&search)).await;
    assert_eq!(pages.iter().map(|page| page.hits.len()).collect::<Vec<_>>(), [25, 25, 10]);
    let keys: std::collections::BTreeSet<_> =
        pages.iter().flat_map(|p| &p.hits).map(|hit| &hit.key).collect();
    assert_eq!(keys.len(), 60);

    assert!(client.health().await.unwrap());
    let stats = client.stats().await.unwrap();
    assert_eq!((stats.collections[0].records, &stats.model_id), (60, &made.model_id));

    for (search, code, says) in [
        (Search::new().text("a").filter("age >"), Code::InvalidArgument, "not understood"),
        (Search::new().text("a").k(0), Code::InvalidArgument, "k is 0"),
        (Search::new().key(key("nobody")), Code::NotFound, "nobody"),
    ] {
        let error = client.search(&search).await.unwrap_err();
        assert_eq!((error.code(), error.is_retryable()), (code, false), "{error}");
        assert!(error.message().contains(says), "{error}");
    }
    let error = client.search(&Search::new()).await.unwrap_err();
    assert_eq!(error.request_id().map(str::len), Some(16), "the server's logs name it: {error:?}");
    let elsewhere = client.with_collection(CollectionName::new("nowhere").unwrap());
    assert_eq!(elsewhere.count().await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn records_come_change_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let client = connect(&server, "records").await;
    assert_eq!(outcomes(&client, (0..25).map(text)).await, [Outcome::Created; 25]);
    assert_eq!(outcomes(&client, (0..2).map(text)).await, [Outcome::Unchanged; 2]);
    let once = RequestId::new("once").unwrap();
    let named = NewRecord { request_id: Some(once), ..text(30) };
    assert_eq!(outcomes(&client, [named.clone(), named]).await, [Outcome::Created; 2], "it was created once");
    let insert = IngestOptions { mode: WriteMode::Insert, in_flight: 1 };
    let records = [text(3).text("More."), NewRecord::new(key("bad")).text("")];
    let refused = all(client.ingest_with(tokio_stream::iter(records), insert)).await;
    let codes: Vec<Code> = refused.iter().map(|r| r.stored.as_ref().unwrap_err().code()).collect();
    assert_eq!(codes, [Code::AlreadyExists, Code::InvalidArgument]);

    let listed = all(client.list(&List::new().page_size(10).fields(["attributes.n"]))).await;
    assert_eq!(listed.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 6]);
    let seventh = &listed[0][7];
    assert_eq!((seventh.key.as_str(), seventh.attributes.len(), seventh.parts.len()), ("r-007", 1, 0));
    let odd = all(client.list(&List::new().filter("odd = true"))).await;
    assert_eq!(odd.concat().len(), 12);
    assert!(all_err(client.list(&List::new().filter("odd ="))).await.message().contains("not understood"));

    let change = Update::new(key("r-003")).set("n", 300).unset("odd");
    assert!(client.update(change.clone()).await.unwrap().seq.is_some());
    assert!(client.update(change).await.unwrap().seq.is_none(), "it has these attributes already");
    let record = client.get_fields(&key("r-003"), ["attributes"]).await.unwrap();
    assert_eq!(record.attributes, [("n".to_owned(), AttributeValue::Integer(300))].into());
    assert_eq!(client.count().await.unwrap(), 26);
    assert_eq!(client.count_where("n > 24").await.unwrap().records, 2);
    assert!(client.count_where("m > 1").await.unwrap().notes[0].contains("'m'"));

    let id = RequestId::new("gone").unwrap();
    client.delete_once(&key("r-000"), &id).await.unwrap();
    client.delete_once(&key("r-000"), &id).await.unwrap();
    let error = client.delete(&key("r-000")).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    let dry = client.delete_where(DeleteWhere::new("odd = true").dry_run()).await.unwrap();
    assert_eq!((dry.matching_records, dry.operation), (11, None));
    let deletion = client.delete_where(DeleteWhere::new("odd = true")).await.unwrap().operation.unwrap();
    let ended = client.wait(&deletion.name, |_| {}).await.unwrap();
    assert_eq!((ended.done, ended.error, ended.deleted_records), (true, None, 11));
    assert_eq!(client.count().await.unwrap(), 14);
}

async fn all_err<T>(pages: impl tokio_stream::Stream<Item = Result<T, Error>>) -> Error {
    let pages: Vec<_> = pages.collect().await;
    assert_eq!(pages.len(), 1, "nothing follows an error");
    pages.into_iter().next().unwrap().err().unwrap()
}

#[tokio::test]
async fn collections_and_operations_are_handled() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let client = connect(&server, "typed").await;
    let schema = [("n".to_owned(), AttributeType::Integer), ("odd".to_owned(), AttributeType::Bool)];
    let schema = AttributeSchema::new(schema.into(), false).unwrap();
    let made = client.create_collection(client.collection(), &schema).await.unwrap();
    assert_eq!((&made.schema, made.records), (&schema, 0));
    assert!(made.created.is_some());
    let error = client.create_collection(client.collection(), &schema).await.unwrap_err();
    assert_eq!(error.code(), Code::AlreadyExists);
    outcomes(&client, (0..5).map(text)).await;
    let names: Vec<_> = client.collections().await.unwrap().into_iter().map(|c| c.name).collect();
    assert_eq!(names, std::slice::from_ref(client.collection()));

    let rebuild = client.rebuild_index(client.collection()).await.unwrap();
    let ended = client.wait(&rebuild.name, |_| {}).await.unwrap();
    assert_eq!((ended.what().as_str(), ended.indexed_points), ("rebuild index", 5));
    assert!(ended.started <= ended.ended && ended.ended.is_some());
    let listed = all(client.operations()).await.concat();
    assert_eq!(listed, std::slice::from_ref(&ended));
    assert_eq!(client.operation(&rebuild.name).await.unwrap(), ended);
    client.cancel(&rebuild.name).await.unwrap();
    assert_eq!(client.operation("operations/0-1").await.unwrap_err().code(), Code::NotFound);

    client.delete_collection(client.collection()).await.unwrap();
    let error = client.get_collection(client.collection()).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_half_way_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let retry = RetryPolicy {
        attempts: 10_000,
        first_delay: Duration::from_millis(10),
        max_delay: Duration::from_millis(50),
        seed: Some(1),
        ..RetryPolicy::default()
    };
    let options = ClientOptions { retry, timeout: None, ..ClientOptions::new(&server.url) };
    let client = Client::connect(options).await.unwrap();
    let (send, records) = tokio::sync::mpsc::unbounded_channel();
    let mut results = client.ingest(UnboundedReceiverStream::new(records));
    for n in 0..10 {
        send.send(text(n)).unwrap();
        let result = results.next().await.unwrap().unwrap();
        assert_eq!(result.stored.unwrap().outcome, Outcome::Created);
    }
    // Some of these may reach the server before it is killed, and some may be stored.
    (10..60).for_each(|n| send.send(text(n)).unwrap());
    let address = server.url.trim_start_matches("http://").to_owned();
    let path = dir.path().to_owned();
    let server = tokio::task::spawn_blocking(move || {
        drop(server);
        start_at(&path, &address)
    });
    let server = server.await.unwrap();
    drop(send);
    let rest: Vec<_> = results.map(Result::unwrap).collect().await;
    assert_eq!(rest.len(), 50);
    for (n, result) in (10..60).zip(rest) {
        assert_eq!(result.key, text(n).key);
        // Stored once, whichever of the attempts it was.
        assert_eq!(result.stored.unwrap().outcome, Outcome::Created);
    }
    assert_eq!(client.count().await.unwrap(), 60);
    assert!(server.stop_with_clients().await.success());
}

/// A server at an address that one had before.
fn start_at(dir: &Path, address: &str) -> Server {
    let model = mini_model();
    let args = ["serve", "--data", "data", "--model", model.to_str().unwrap(), "--listen", address];
    Server::spawn(&mut diptych(dir, &args))
}

#[tokio::test]
async fn nobody_there_is_said_at_once_or_after_some_attempts() {
    // A port that was free a moment ago, and that nobody listens on.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let retry = RetryPolicy { attempts: 3, first_delay: Duration::ZERO, ..RetryPolicy::default() };
    let options = ClientOptions { retry, ..ClientOptions::new(free.to_string()) };
    let error = Client::connect(options.clone()).await.unwrap_err();
    assert!(error.is_retryable() && error.message().contains(&free.to_string()), "{error}");
    let error = Client::connect_lazy(options).unwrap().count().await.unwrap_err();
    assert_eq!((error.code(), error.is_retryable()), (Code::Unavailable, true));
    assert!(error.message().contains("connection"), "{error}");
}
