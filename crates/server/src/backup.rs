//! `diptych.v1.BackupService`: files of a snapshot, and records with their vectors, in and out.
//!
//! Owns: how they are cut into messages. A stream is read no faster than the client takes it, and ends with
//! the client. Deliberately absent: what a snapshot is, which is the engine's.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::pin::Pin;

use diptych_core::{CollectionName, Filter};
use diptych_engine::{Engine, PutMode, VectorRecord};
use diptych_proto::v1 as wire;
use diptych_proto::v1::backup_service_server::BackupService;
use diptych_store::StoreError;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::access::Caller;
use crate::groups::{self, Groups};
use crate::observe::Observed;
use crate::service::Retrieval;
use crate::{convert, status};

/// Bytes of a file in one message.
const CHUNK_BYTES: usize = 512 * 1024;
/// Messages that wait for the client at the most.
const MESSAGES_WAITING: usize = 4;
/// Records read at once for an export.
const EXPORT_PAGE: usize = 64;
/// Records in one message of an export come to about so many bytes of vectors and texts, the last one aside.
const EXPORT_BYTES: usize = 1 << 20;
/// What of an import is synced together, in vectors.
static IMPORT: Groups<wire::ImportRequest, wire::ImportResponse> = Groups {
    items: 256,
    bytes: 16 << 20,
    answers: 256,
    size: vector_bytes,
    work: import_group,
    told: |_, _| {},
};

/// The service of backups, beside the one of their records.
#[derive(Clone)]
pub(crate) struct Backups(pub(crate) Retrieval);

type Answers<T> = mpsc::Sender<Result<T, Status>>;
type Answered<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Why a stream ends before it is through.
enum Ended {
    /// The client has left.
    Left,
    Failed(Status),
}

impl<E: Into<diptych_engine::EngineError>> From<E> for Ended {
    fn from(error: E) -> Self {
        Self::Failed(status::from_engine(&error.into()))
    }
}

impl Backups {
    /// Runs `work` on a blocking thread; what it sends is the answer, and what it holds is held until its
    /// end, also when the client has left.
    fn stream<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Engine, &Caller, &Answers<T>) -> Result<(), Ended> + Send + 'static,
    ) -> Result<Response<Answered<T>>, Status> {
        let permit = self.0.admit()?;
        let caller = Caller::current()?;
        let engine = self.0.engine();
        let observed = Observed::current();
        let (answers, receive) = mpsc::channel(MESSAGES_WAITING);
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            if let Err(Ended::Failed(status)) = observed.run(|| work(&engine, &caller, &answers)) {
                // The client may be gone.
                let _ = answers.blocking_send(Err(status));
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receive))))
    }
}

fn send<T>(caller: &Caller, answers: &Answers<T>, message: T) -> Result<(), Ended> {
    caller.in_time().map_err(Ended::Failed)?;
    answers.blocking_send(Ok(message)).map_err(|_| Ended::Left)
}

#[tonic::async_trait]
impl BackupService for Backups {
    type BackupStream = Answered<wire::BackupResponse>;

    async fn backup(&self, _: Request<wire::BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        self.stream(send_backup)
    }

    type ExportStream = Answered<wire::ExportResponse>;

    async fn export(
        &self,
        request: Request<wire::ExportRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        let wire::ExportRequest { collection, filter } = request.into_inner();
        let collection = convert::collection_from_wire(collection)?;
        let filter = filter.map(convert::filter_from_wire).transpose()?;
        self.stream(move |engine, caller, answers| {
            send_export(engine, caller, answers, &collection, filter.as_ref())
        })
    }

    type ImportStream = Answered<wire::ImportResponse>;

    async fn import(
        &self,
        request: Request<Streaming<wire::ImportRequest>>,
    ) -> Result<Response<Self::ImportStream>, Status> {
        let receive = groups::answer(&self.0, request.into_inner(), &IMPORT)?;
        Ok(Response::new(Box::pin(ReceiverStream::new(receive))))
    }
}

fn send_backup(
    engine: &Engine,
    caller: &Caller,
    answers: &Answers<wire::BackupResponse>,
) -> Result<(), Ended> {
    use wire::backup_response::Event;
    let send = |event: Event| send(caller, answers, wire::BackupResponse { event: Some(event) });
    let snapshot = engine.backup()?;
    let (files, bytes) = (snapshot.files().len() as u64, snapshot.bytes());
    send(Event::Start(wire::BackupStart {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        model_id: engine.encoder().model_id().to_string(),
        seq: snapshot.seq(),
        records: snapshot.records(),
        files,
        bytes,
    }))?;
    let mut chunk = vec![0; CHUNK_BYTES];
    for (path, bytes) in snapshot.files() {
        send(Event::FileStart(wire::BackupFileStart { path: path.clone(), bytes: *bytes }))?;
        let digest = read_file(&snapshot.dir().join(path), *bytes, &mut chunk, |piece| {
            send(Event::Chunk(piece.to_vec()))
        })?;
        send(Event::FileEnd(wire::BackupFileEnd { digest }))?;
    }
    caller.count(snapshot.records());
    send(Event::End(wire::BackupEnd { files, bytes }))
}

/// Reads a file of a snapshot, which never changes; returns its digest.
fn read_file(
    path: &Path,
    bytes: u64,
    chunk: &mut [u8],
    mut each: impl FnMut(&[u8]) -> Result<(), Ended>,
) -> Result<Vec<u8>, Ended> {
    let failed = |reason: String| StoreError::Io { doing: "reading a backup", reason };
    let mut file = File::open(path).map_err(|e| failed(format!("{}: {e}", path.display())))?;
    let mut hasher = blake3::Hasher::new();
    let mut left = bytes;
    while left > 0 {
        let wanted = usize::try_from(left).map_or(chunk.len(), |left| left.min(chunk.len()));
        let piece = &mut chunk[..wanted];
        file.read_exact(piece).map_err(|e| failed(format!("{}: {e}", path.display())))?;
        hasher.update(piece);
        each(piece)?;
        left -= wanted as u64;
    }
    Ok(hasher.finalize().as_bytes().to_vec())
}

fn send_export(
    engine: &Engine,
    caller: &Caller,
    answers: &Answers<wire::ExportResponse>,
    collection: &CollectionName,
    filter: Option<&Filter>,
) -> Result<(), Ended> {
    let info = convert::collection_to_wire(engine.describe_collection(collection)?);
    send(caller, answers, wire::ExportResponse { collection: Some(info), records: Vec::new() })?;
    let mut after = None;
    loop {
        let page = engine.export_page(collection, after.as_ref(), EXPORT_PAGE, filter)?;
        let (mut records, mut bytes) = (Vec::new(), 0);
        for exported in page.records {
            bytes += exported.vectors.iter().map(|vector| 4 * vector.embedding.dim()).sum::<usize>();
            let record = convert::exported_to_wire(exported);
            bytes += record.record.as_ref().map_or(0, text_bytes);
            records.push(record);
            if bytes >= EXPORT_BYTES {
                send_records(caller, answers, std::mem::take(&mut records))?;
                bytes = 0;
            }
        }
        if !records.is_empty() {
            send_records(caller, answers, records)?;
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}

fn send_records(
    caller: &Caller,
    answers: &Answers<wire::ExportResponse>,
    records: Vec<wire::VectorRecord>,
) -> Result<(), Ended> {
    caller.count(records.len() as u64);
    send(caller, answers, wire::ExportResponse { collection: None, records })
}

fn text_bytes(record: &wire::Record) -> usize {
    use wire::part::Content;
    let text = |part: &wire::Part| match &part.content {
        Some(Content::Text(text)) => text.text.len(),
        _ => 0,
    };
    record.parts.iter().map(text).sum()
}

fn vector_bytes(item: &wire::ImportRequest) -> usize {
    let vectors = item.record.iter().flat_map(|record| &record.vectors).filter_map(|v| v.vector.as_ref());
    vectors.map(|vector| 4 * vector.values.len()).sum()
}

/// Stores the items of a group, answers in order. Runs of one collection and mode go together.
fn import_group(
    engine: &Engine,
    caller: &Caller,
    group: Vec<wire::ImportRequest>,
) -> Vec<wire::ImportResponse> {
    let mut answers = Vec::with_capacity(group.len());
    let mut run: Vec<VectorRecord> = Vec::new();
    let mut place: Option<(CollectionName, PutMode)> = None;
    for item in group {
        let key = item.record.as_ref().and_then(|r| r.record.as_ref()).map(|r| r.key.clone());
        let allowed = caller.may_enter(&item.collection);
        match allowed.and_then(|()| convert::import_from_wire(item)) {
            Ok((collection, mode, record)) => {
                let here = Some((collection, mode));
                if place != here {
                    flush(engine, &mut place, &mut run, &mut answers);
                    place = here;
                }
                run.push(record);
            }
            Err(status) => {
                flush(engine, &mut place, &mut run, &mut answers);
                answers.push(refusal(key.unwrap_or_default(), &status));
            }
        }
    }
    flush(engine, &mut place, &mut run, &mut answers);
    let written = [wire::WriteOutcome::Created, wire::WriteOutcome::Updated];
    caller.count(answers.iter().filter(|answer| written.contains(&answer.outcome())).count() as u64);
    answers
}

fn flush(
    engine: &Engine,
    place: &mut Option<(CollectionName, PutMode)>,
    run: &mut Vec<VectorRecord>,
    answers: &mut Vec<wire::ImportResponse>,
) {
    let Some((collection, mode)) = place.take() else { return };
    let records = std::mem::take(run);
    let keys: Vec<String> = records.iter().map(|new| new.record.key().to_string()).collect();
    match engine.import(&collection, records, mode) {
        Ok(results) => answers.extend(keys.into_iter().zip(results).map(|(key, result)| match result {
            Ok(written) => {
                let outcome = convert::outcome_to_wire(written.outcome) as i32;
                wire::ImportResponse { key, outcome, error: None }
            }
            Err(error) => refusal(key, &status::from_engine(&error)),
        })),
        Err(error) => {
            let status = status::from_engine(&error);
            answers.extend(keys.into_iter().map(|key| refusal(key, &status)));
        }
    }
}

fn refusal(key: String, status: &Status) -> wire::ImportResponse {
    let error = wire::ItemError { code: status.code() as i32, message: status.message().to_owned() };
    wire::ImportResponse { key, outcome: wire::WriteOutcome::Unspecified as i32, error: Some(error) }
}
