//! Fetching what is missing of a model.
//!
//! Owns: the order of the files (the weights last), continuing where an earlier run stopped, and
//! the checks before contents become visible. A partial file has a name of its own beside the blobs;
//! it is renamed when its size, and for large files its SHA-256, are what the hub announced.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};

use crate::cache::{Cache, failed, make_parent, with_suffix};
use crate::client::{Client, Metadata};
use crate::{Event, HubError, ModelName, Settings, files};

/// Connections for one file that may break without a single byte.
const ATTEMPTS: usize = 3;
const BUFFER: usize = 128 << 10;

/// A fetch in progress.
struct Fetch<'a> {
    client: Client<'a>,
    cache: &'a Cache,
    commit: String,
    progress: &'a mut dyn FnMut(Event<'_>),
}

/// Completes the model in the cache.
pub(crate) fn fetch(
    model: &ModelName,
    settings: &Settings,
    cache: &Cache,
    progress: &mut dyn FnMut(Event<'_>),
) -> Result<PathBuf, HubError> {
    let client = Client::new(model, settings)?;
    let repository = client.repository()?;
    let mut fetch = Fetch { client, cache, commit: repository.commit, progress };
    let Some(form) = files::form(&repository.files, |config| fetch.read(config))? else {
        return Err(HubError::NoModel { model: model.clone() });
    };
    for file in files::before_weights(form, &repository.files) {
        fetch.file(file)?;
    }
    if form.is_index() {
        let index = fetch.read(form.weights)?;
        for shard in files::shards(form.weights, &index)? {
            fetch.file(&shard)?;
        }
    } else {
        fetch.file(form.weights)?;
    }
    // Last, so that an interrupted update leaves the earlier commit in use.
    cache.remember(&fetch.commit)?;
    Ok(cache.snapshot(&fetch.commit))
}

impl Fetch<'_> {
    /// Fetches a file unless it is there.
    fn file(&mut self, file: &str) -> Result<PathBuf, HubError> {
        let path = self.cache.snapshot(&self.commit).join(file);
        if path.is_file() {
            return Ok(path);
        }
        let metadata = self.client.metadata(&self.commit, file)?;
        let _lock = self.cache.lock(&metadata.etag)?;
        let blob = self.cache.blob(&metadata.etag);
        if !blob.is_file() {
            (self.progress)(Event::Started { file, size: metadata.size });
            let partial = with_suffix(&blob, ".diptych.incomplete");
            make_parent(&partial)?;
            self.contents(file, &metadata, &partial)?;
            std::fs::rename(&partial, &blob).map_err(|e| failed(&blob, e))?;
            (self.progress)(Event::Finished);
        }
        self.cache.link(&metadata.etag, &self.commit, file)?;
        Ok(path)
    }

    /// Fetches a small file and reads it.
    fn read(&mut self, file: &str) -> Result<Vec<u8>, HubError> {
        let path = self.file(file)?;
        std::fs::read(&path).map_err(|e| failed(&path, e))
    }

    /// Fills the partial file, through as many connections as make progress, and checks it.
    fn contents(&mut self, file: &str, metadata: &Metadata, partial: &Path) -> Result<(), HubError> {
        let io = |e| failed(partial, e);
        let out = File::options().create(true).truncate(false).read(true).write(true).open(partial);
        let out = &mut out.map_err(io)?;
        let mut received = out.seek(std::io::SeekFrom::End(0)).map_err(io)?;
        // Without a size nobody can tell a partial file from a whole one.
        if metadata.size.is_none_or(|size| received > size) {
            received = restart(out).map_err(io)?;
        }
        // The most that was ever there: a server that starts again each time makes no progress.
        let (mut most, mut idle) = (received, 0);
        while metadata.size != Some(received) || received == 0 {
            let broken = self.connection(metadata, out, &mut received, partial)?;
            match broken {
                None if metadata.size.is_none_or(|size| size == received) => break,
                _ if received > most => (most, idle) = (received, 0),
                _ => idle += 1,
            }
            if metadata.size.is_some_and(|size| received > size) {
                restart(out).map_err(io)?;
                return Err(damaged(file, "it is longer than announced".into()));
            }
            if idle == ATTEMPTS || metadata.size.is_none() {
                let reason = broken.unwrap_or_else(|| "the server ended it".into());
                return Err(HubError::Interrupted { file: file.to_owned(), received, reason });
            }
        }
        out.sync_all().map_err(io)?;
        if let Err(reason) = verify(out, &metadata.etag).map_err(io)? {
            restart(out).map_err(io)?;
            return Err(damaged(file, reason));
        }
        Ok(())
    }

    /// Appends what one connection delivers; gives the reason when it broke.
    fn connection(
        &mut self,
        metadata: &Metadata,
        out: &mut File,
        received: &mut u64,
        partial: &Path,
    ) -> Result<Option<String>, HubError> {
        let io = |e| failed(partial, e);
        let answer = match self.client.contents(metadata, *received) {
            // After the first byte, a server that is gone is an interruption.
            Err(HubError::Unreachable { reason, .. }) if *received > 0 => return Ok(Some(reason)),
            other => other?,
        };
        let range = answer.headers().get("content-range").and_then(|range| range.to_str().ok());
        let continues = range.is_some_and(|range| range.starts_with(&format!("bytes {received}-")));
        if *received > 0 && !continues {
            *received = restart(out).map_err(io)?;
            if answer.status() != 200 {
                return Ok(Some("the server could not continue it".into()));
            }
        }
        let mut body = answer.into_body().into_reader();
        let mut buffer = vec![0; BUFFER];
        loop {
            (self.progress)(Event::Received { bytes: *received });
            let len = match body.read(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(len) => len,
                Err(e) => return Ok(Some(e.to_string())),
            };
            out.write_all(&buffer[..len]).map_err(io)?;
            *received += len as u64;
            if metadata.size.is_some_and(|size| *received > size) {
                return Ok(None);
            }
        }
    }
}

fn damaged(file: &str, reason: String) -> HubError {
    HubError::Damaged { file: file.to_owned(), reason }
}

fn restart(out: &mut File) -> std::io::Result<u64> {
    out.set_len(0)?;
    out.rewind()?;
    Ok(0)
}

/// Compares the SHA-256 where the etag is one: large files are named by it.
fn verify(out: &mut File, etag: &str) -> std::io::Result<Result<(), String>> {
    if etag.len() != 64 || !etag.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(Ok(()));
    }
    out.rewind()?;
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; BUFFER];
    loop {
        match out.read(&mut buffer)? {
            0 => break,
            len => context.update(&buffer[..len]),
        }
    }
    let found: String = context.finish().as_ref().iter().map(|b| format!("{b:02x}")).collect();
    Ok(if found.eq_ignore_ascii_case(etag) {
        Ok(())
    } else {
        Err(format!("its SHA-256 is {found}, not {etag}"))
    })
}
