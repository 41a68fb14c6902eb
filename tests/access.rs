//! Who may reach a server and what they may do there, as clients, operators and attackers see it:
//! keys, roles and collections here, the rest beside it.

mod audit;
mod drain;
mod limits;
mod tls;

use std::path::Path;
use std::time::{Duration, Instant};

use diptych_proto::v1 as wire;
use diptych_proto::v1::retrieval_service_client::RetrievalServiceClient;
use prost::Message;
use prost::bytes::{Buf, BufMut};
use prost_types::{FileDescriptorProto, MethodDescriptorProto};
use serde_json::Value;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::support::{Server, fail, run, succeed};

/// What the least role is that may call an RPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Least {
    Nobody,
    Read,
    Write,
    Admin,
}

/// The matrix: a new RPC must be added here and in the server's own table.
fn least(path: &str) -> Option<Least> {
    Some(match path {
        "/diptych.v1.RetrievalService/Search"
        | "/diptych.v1.RetrievalService/BatchSearch"
        | "/diptych.v1.RetrievalService/Replay"
        | "/diptych.v1.RetrievalService/Classify"
        | "/diptych.v1.RetrievalService/GetRecord"
        | "/diptych.v1.RetrievalService/ListRecords"
        | "/diptych.v1.RetrievalService/Embed"
        | "/diptych.v1.RetrievalService/Stats"
        | "/diptych.v1.RetrievalService/CountRecords"
        | "/diptych.v1.CaseService/FindSimilar"
        | "/diptych.v1.CaseService/Draft"
        | "/diptych.v1.CollectionService/ListCollections"
        | "/diptych.v1.CollectionService/GetCollection"
        | "/diptych.v1.OperationService/GetOperation"
        | "/diptych.v1.OperationService/ListOperations"
        | "/diptych.v1.BackupService/Export" => Least::Read,
        "/diptych.v1.RetrievalService/Ingest"
        | "/diptych.v1.RetrievalService/DeleteRecord"
        | "/diptych.v1.RetrievalService/UpdateRecord"
        | "/diptych.v1.RetrievalService/DeleteRecords"
        | "/diptych.v1.OperationService/CancelOperation"
        | "/diptych.v1.BackupService/Import" => Least::Write,
        "/diptych.v1.CollectionService/CreateCollection"
        | "/diptych.v1.CollectionService/DeleteCollection"
        | "/diptych.v1.CollectionService/RebuildIndex"
        | "/diptych.v1.BackupService/Backup" => Least::Admin,
        "/grpc.health.v1.Health/Check" | "/grpc.health.v1.Health/Watch" => Least::Nobody,
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
        | "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo" => Least::Read,
        "/diptych.v1.RetrievalService/NoSuchMethod" => Least::Admin,
        _ => return None,
    })
}

/// Makes a key in `dir/keys.toml` and returns it.
fn create(dir: &Path, role: &str, more: &[&str]) -> String {
    let args = [&["keys", "create", "--file", "keys.toml", "--role", role], more].concat();
    succeed(dir, &args).trim().to_owned()
}

type Keyed = RetrievalServiceClient<InterceptedService<Channel, Bearer>>;

#[derive(Clone)]
struct Bearer(String);

impl tonic::service::Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", format!("Bearer {}", self.0).parse().unwrap());
        Ok(request)
    }
}

async fn channel(server: &Server) -> Channel {
    Channel::from_shared(server.url.clone()).unwrap().connect().await.unwrap()
}

async fn client(server: &Server, key: &str) -> Keyed {
    RetrievalServiceClient::with_interceptor(channel(server).await, Bearer(key.to_owned()))
}

fn record(collection: &str, key: &str, text: &str) -> wire::IngestRequest {
    wire::IngestRequest {
        collection: collection.to_owned(),
        key: key.to_owned(),
        texts: vec![text.to_owned()],
        ..Default::default()
    }
}

fn search(collection: &str, text: &str) -> wire::SearchRequest {
    wire::SearchRequest {
        collection: collection.to_owned(),
        query: Some(wire::search_request::Query::Text(text.to_owned())),
        target: wire::Modality::Text as i32,
        ..Default::default()
    }
}

async fn ingest(client: &mut Keyed, items: Vec<wire::IngestRequest>) -> Vec<wire::IngestResponse> {
    let mut answers = client.ingest(tokio_stream::iter(items)).await.unwrap().into_inner();
    let mut all = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        all.push(answer);
    }
    all
}

/// Stops a server while clients of the same runtime say goodbye; returns its log.
async fn stop(server: Server) -> String {
    tokio::task::spawn_blocking(move || server.stop_and_read_log()).await.unwrap()
}

/// Asks until the answer is the one that is waited for: files are looked at once in a second.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "waited in vain until {what}");
    }
}

/// Messages as bytes, so that any RPC can be called by its path.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut item = vec![0; buffer.remaining()];
        buffer.copy_to_slice(&mut item);
        Ok(Some(item))
    }
}

/// Calls an RPC with one message; the first message of the answer, if there is one.
async fn call(
    channel: &Channel,
    path: &str,
    authorization: Option<&str>,
    message: Vec<u8>,
) -> Result<Option<Vec<u8>>, Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let mut request = Request::new(tokio_stream::once(message));
    if let Some(value) = authorization {
        request.metadata_mut().insert("authorization", value.parse().unwrap());
    }
    let path: PathAndQuery = path.parse().unwrap();
    let mut answers = grpc.streaming(request, path, Raw).await?.into_inner();
    answers.message().await
}

async fn code(channel: &Channel, path: &str, authorization: Option<&str>) -> Code {
    call(channel, path, authorization, Vec::new()).await.err().map_or(Code::Ok, |status| status.code())
}

/// All that a server says it serves: each file once.
async fn reflected(server: &Server, key: &str) -> Vec<FileDescriptorProto> {
    let mut reflection =
        ServerReflectionClient::with_interceptor(channel(server).await, Bearer(key.to_owned()));
    let mut ask = async |message| {
        let request = ServerReflectionRequest { host: String::new(), message_request: Some(message) };
        let answers = reflection.server_reflection_info(tokio_stream::once(request)).await.unwrap();
        answers.into_inner().message().await.unwrap().unwrap().message_response.unwrap()
    };
    let MessageResponse::ListServicesResponse(list) = ask(MessageRequest::ListServices(String::new())).await
    else {
        panic!("no list of services");
    };
    let mut files: Vec<FileDescriptorProto> = Vec::new();
    for service in list.service {
        let MessageResponse::FileDescriptorResponse(found) =
            ask(MessageRequest::FileContainingSymbol(service.name)).await
        else {
            panic!("no file of a service");
        };
        for bytes in found.file_descriptor_proto {
            let file = FileDescriptorProto::decode(bytes.as_slice()).unwrap();
            if files.iter().all(|known| known.name != file.name) {
                files.push(file);
            }
        }
    }
    files
}

fn methods(files: &[FileDescriptorProto]) -> Vec<(String, &MethodDescriptorProto)> {
    let of = |file: &'_ FileDescriptorProto, service: &str, method: &str| {
        format!("/{}.{service}/{method}", file.package())
    };
    files
        .iter()
        .flat_map(|file| file.service.iter().map(move |service| (file, service)))
        .flat_map(|(file, service)| service.method.iter().map(move |method| (file, service, method)))
        .map(|(file, service, method)| (of(file, service.name(), method.name()), method))
        .collect()
}

/// The number of the field `collection` of a message, if it has one.
fn collection_field(files: &[FileDescriptorProto], message: &str) -> Option<i32> {
    let named = files
        .iter()
        .flat_map(|file| {
            file.message_type.iter().map(move |m| (format!(".{}.{}", file.package(), m.name()), m))
        })
        .find(|(name, _)| name == message);
    named?.1.field.iter().find(|field| field.name() == "collection").map(|field| field.number())
}

#[tokio::test]
async fn every_rpc_needs_the_role_that_the_matrix_gives_it() {
    let dir = tempfile::tempdir().unwrap();
    let keys = ["read", "write", "admin"].map(|role| create(dir.path(), role, &["--name", role]));
    let server = Server::start_with(dir.path(), &["--keys", "keys.toml"]);
    let channel = channel(&server).await;
    let files = reflected(&server, &keys[0]).await;
    let mut paths: Vec<String> = methods(&files).into_iter().map(|(path, _)| path).collect();
    assert!(paths.len() >= 10, "{paths:?}");
    // The older reflection does not name itself.
    paths.push("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo".to_owned());
    paths.push("/diptych.v1.RetrievalService/NoSuchMethod".to_owned());
    for path in paths {
        let least = least(&path).unwrap_or_else(|| panic!("{path} is not in the matrix: who may call it?"));
        let unknown = code(&channel, &path, None).await;
        let expected = if least == Least::Nobody { Code::Ok } else { Code::Unauthenticated };
        assert_eq!(unknown, expected, "{path} without a key");
        for (role, key) in [Least::Read, Least::Write, Least::Admin].into_iter().zip(&keys) {
            let found = code(&channel, &path, Some(&format!("Bearer {key}"))).await;
            let refused = [Code::Unauthenticated, Code::PermissionDenied].contains(&found);
            assert_eq!(refused, role < least, "{path} with {role:?}: {found:?}");
        }
    }
}

#[tokio::test]
async fn a_key_for_one_collection_reaches_no_other_by_any_rpc() {
    let dir = tempfile::tempdir().unwrap();
    let all = create(dir.path(), "write", &[]);
    let mine = create(dir.path(), "admin", &["--collection", "mine", "--collection", "ours"]);
    let server = Server::start_with(dir.path(), &["--keys", "keys.toml"]);
    let mut everybody = client(&server, &all).await;
    let written = ingest(&mut everybody, vec![record("other", "a", "one"), record("mine", "b", "two")]).await;
    assert!(written.iter().all(|answer| answer.error.is_none()), "{written:?}");

    let files = reflected(&server, &mine).await;
    let channel = channel(&server).await;
    let bearer = format!("Bearer {mine}");
    let mut asked = 0;
    for (path, method) in methods(&files) {
        let Some(field) = collection_field(&files, method.input_type()) else { continue };
        for collection in ["other", "", "nowhere", "no/name"] {
            let mut message = Vec::new();
            prost::encoding::string::encode(field as u32, &collection.to_owned(), &mut message);
            let code = match call(&channel, &path, Some(&bearer), message).await {
                Err(status) => status.code(),
                // A bad item of a stream is answered, and the stream goes on.
                Ok(answer) => {
                    let answer = wire::IngestResponse::decode(answer.unwrap().as_slice()).unwrap();
                    Code::from(answer.error.unwrap().code)
                }
            };
            assert_eq!(code, Code::PermissionDenied, "{path} on '{collection}'");
        }
        asked += 1;
    }
    assert!(asked >= 5, "{asked} RPCs name a collection");

    let mut client = client(&server, &mine).await;
    let found = client.search(search("mine", "two")).await.unwrap().into_inner();
    assert_eq!(found.hits.len(), 1);
    let both = ["mine", "other"]
        .map(|of| wire::BatchSearchRequest { search: Some(search(of, "two")), ..Default::default() });
    let mut answers = client.batch_search(tokio_stream::iter(both)).await.unwrap().into_inner();
    use wire::batch_search_response::Outcome;
    let answer = answers.message().await.unwrap().unwrap();
    assert!(matches!(answer.outcome, Some(Outcome::Response(found)) if found.hits.len() == 1));
    let Some(Outcome::Error(refused)) = answers.message().await.unwrap().unwrap().outcome else { panic!() };
    assert_eq!(Code::from(refused.code), Code::PermissionDenied);
    let receipt = wire::Receipt { parameters: Some(search("other", "two")), ..Default::default() };
    let replayed = wire::ReplayRequest { receipt: Some(receipt), ..Default::default() };
    assert_eq!(client.replay(replayed).await.unwrap_err().code(), Code::PermissionDenied);
    let stats = client.stats(wire::StatsRequest {}).await.unwrap().into_inner();
    assert_eq!(stats.collections.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["mine"]);
    let missing = client.search(search("ours", "two")).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    assert!(missing.message().contains("mine") && !missing.message().contains("other"), "{missing:?}");
}

#[tokio::test]
async fn only_a_key_that_is_whole_known_and_current_is_let_in() {
    let dir = tempfile::tempdir().unwrap();
    let good = create(dir.path(), "read", &["--name", "good"]);
    let revoked = create(dir.path(), "read", &["--name", "taken-back"]);
    succeed(dir.path(), &["keys", "revoke", "--file", "keys.toml", "taken-back"]);
    let expired = create(dir.path(), "read", &["--name", "old"]);
    let file = dir.path().join("keys.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    // The last key of the file.
    std::fs::write(&file, text + "expires = \"2001-02-03T04:05:06Z\"\n").unwrap();
    let listed = succeed(dir.path(), &["keys", "list", "--file", "keys.toml"]);
    assert!(listed.contains("expired 2001-02-03") && listed.contains("revoked 20"), "{listed}");

    let server = Server::start_with(dir.path(), &["--keys", "keys.toml"]);
    let channel = channel(&server).await;
    let stats = "/diptych.v1.RetrievalService/Stats";
    assert_eq!(code(&channel, stats, Some(&format!("Bearer {good}"))).await, Code::Ok);
    assert_eq!(code(&channel, stats, Some(&format!("bearer {good}"))).await, Code::Ok);
    let (head, secret) = good.rsplit_once('_').unwrap();
    let other = if secret.starts_with('0') { "1" } else { "0" };
    let wrong = format!("{head}_{other}{}", &secret[1..]);
    let cases = [
        (None, "authorization: Bearer KEY"),
        (Some(format!("Bearer {wrong}")), "none of this server's"),
        (Some(format!("Bearer {}", &good[..good.len() - 1])), "not one `Bearer KEY`"),
        (Some(good.clone()), "not one `Bearer KEY`"),
        (Some(format!("Basic {good}")), "not one `Bearer KEY`"),
        (Some(format!("Bearer {revoked}")), "'taken-back' has been revoked"),
        (Some(format!("Bearer {expired}")), "'old' has expired"),
    ];
    for (authorization, says) in cases {
        let status = call(&channel, stats, authorization.as_deref(), Vec::new()).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{authorization:?}");
        assert!(status.message().contains(says), "{}", status.message());
        assert!(!status.message().contains(&secret[1..]), "{}", status.message());
    }
    let log = stop(server).await;
    assert!(!log.contains(&secret[1..]), "the log has a key");
}

#[tokio::test]
async fn keys_come_and_go_while_the_server_runs() {
    let dir = tempfile::tempdir().unwrap();
    let old = create(dir.path(), "read", &["--name", "old"]);
    let server = Server::start_with(dir.path(), &["--keys", "keys.toml"]);
    let mut before = client(&server, &old).await;
    before.stats(wire::StatsRequest {}).await.unwrap();

    let young = create(dir.path(), "write", &["--name", "young", "--expires", "30"]);
    let mut after = client(&server, &young).await;
    until("the new key is let in", async || after.stats(wire::StatsRequest {}).await.ok()).await;
    before.stats(wire::StatsRequest {}).await.unwrap();
    succeed(dir.path(), &["keys", "revoke", "--file", "keys.toml", "old"]);
    let refused = until("the old key is refused, on a connection that it had opened", async || {
        before.stats(wire::StatsRequest {}).await.err()
    });
    assert_eq!(refused.await.code(), Code::Unauthenticated);
    after.stats(wire::StatsRequest {}).await.unwrap();
}

#[tokio::test]
async fn a_stream_ends_to_be_answered_when_its_key_is_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let key = create(dir.path(), "write", &["--name", "writer"]);
    let server = Server::start_with(dir.path(), &["--keys", "keys.toml"]);
    let (send, items) = tokio::sync::mpsc::channel(1);
    let stream = tokio_stream::wrappers::ReceiverStream::new(items);
    let mut answers = client(&server, &key).await.ingest(stream).await.unwrap().into_inner();
    let mut write = async || {
        send.send(record("", "a", "one")).await.unwrap();
        answers.message().await.unwrap().unwrap().error
    };
    assert_eq!(write().await, None);
    succeed(dir.path(), &["keys", "revoke", "--file", "keys.toml", "writer"]);
    let error = until("writes are refused", async || write().await).await;
    assert_eq!(error.code, Code::Unauthenticated as i32, "{}", error.message);
}

#[test]
fn keys_are_made_listed_and_revoked_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    assert!(fail(path, &["keys", "list", "--file", "keys.toml"]).contains("keys create"));
    let key = create(path, "write", &["--name", "ingest-box", "--collection", "cases", "--expires", "7"]);
    let output = run(path, &["keys", "create", "--file", "keys.toml", "--role", "read"]);
    let notes = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(notes.contains("cannot be shown again"), "{notes}");
    let taken = ["keys", "create", "--file", "keys.toml", "--role", "read", "--name", "ingest-box"];
    assert!(fail(path, &taken).contains("already"));
    assert!(fail(path, &["keys", "create", "--file", "keys.toml", "--role", "root"]).contains("read, write"));
    let all: Value =
        serde_json::from_str(&succeed(path, &["keys", "list", "--file", "keys.toml", "--json"])).unwrap();
    assert_eq!(all.as_array().unwrap().len(), 2);
    assert_eq!(
        (&all[0]["name"], &all[0]["role"], &all[0]["good"], &all[0]["collections"]),
        (&"ingest-box".into(), &"write".into(), &true.into(), &vec!["cases"].into())
    );
    assert!(fail(path, &["keys", "revoke", "--file", "keys.toml", "nobody"]).contains("no key 'nobody'"));
    succeed(path, &["keys", "revoke", "--file", "keys.toml", "ingest-box"]);
    let text = std::fs::read_to_string(path.join("keys.toml")).unwrap();
    assert!(!text.contains(key.rsplit_once('_').unwrap().1), "the file has the key's secret");
    let listed = succeed(path, &["keys", "list", "--file", "keys.toml"]);
    assert!(listed.lines().next().unwrap().contains("revoked"), "{listed}");
}
