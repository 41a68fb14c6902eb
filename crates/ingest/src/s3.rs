//! Object stores that speak S3.
//!
//! Owns: what `s3://bucket/key` stands for, requests and their repetition, and what goes wrong in words. The
//! only file that names the signing and the HTTP libraries. A request never goes anywhere but to the endpoint:
//! redirects are not followed. Deliberately absent: writing, and what is in the objects.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use diptych_core::limits::{IMAGE_BYTES_MAX, TEXT_BYTES_MAX};
use diptych_core::{Attributes, Chunking, Key};
use rusty_s3::actions::{ListObjectsV2, S3Action};
use rusty_s3::{Bucket, Credentials, UrlStyle};
use tempfile::TempDir;
use ureq::Agent;
use url::Url;

use crate::detect::{self, Detected, Place};
use crate::folder::text_of;
use crate::item::{Item, ItemError, ItemImage, ItemResult, Origin, printable};
use crate::layout::Layout;
use crate::notes::Notes;
use crate::paths::has_extension;
use crate::{IMAGE_EXTENSIONS, Source, SourceError, SourceOptions};

/// Times that a request is tried.
const ATTEMPTS: u32 = 5;
/// The wait before the second time; each one after it is twice as long.
const BACKOFF: Duration = Duration::from_millis(250);
/// How long a signature is good for. Each attempt has its own.
const SIGNED_FOR: Duration = Duration::from_secs(900);
const CONNECT: Duration = Duration::from_secs(15);
/// Without a byte for this long, a connection is dead.
const SILENCE: Duration = Duration::from_secs(60);
/// Bytes of a page of a listing.
const PAGE_BYTES_MAX: u64 = 16 << 20;

/// Where a store is and who asks, from the environment that other tools use too.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) endpoint: Option<String>,
    pub(crate) region: String,
    pub(crate) key: Option<(String, String)>,
    pub(crate) token: Option<String>,
    pub(crate) backoff: Duration,
}

impl Settings {
    /// `AWS_ENDPOINT_URL_S3`, else `AWS_ENDPOINT_URL`; `AWS_REGION`, else `AWS_DEFAULT_REGION`;
    /// `AWS_ACCESS_KEY_ID` with `AWS_SECRET_ACCESS_KEY` and maybe `AWS_SESSION_TOKEN`. Without a key, requests
    /// are not signed, as public buckets want it.
    fn of_environment() -> Self {
        let first = |names: &[&str]| {
            names.iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.trim().is_empty()))
        };
        Self {
            endpoint: first(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]),
            region: first(&["AWS_REGION", "AWS_DEFAULT_REGION"]).unwrap_or_else(|| "us-east-1".to_owned()),
            key: first(&["AWS_ACCESS_KEY_ID"]).zip(first(&["AWS_SECRET_ACCESS_KEY"])),
            token: first(&["AWS_SESSION_TOKEN"]),
            backoff: BACKOFF,
        }
    }
}

/// A bucket that can be asked.
struct Store {
    bucket: Bucket,
    credentials: Option<Credentials>,
    agent: Agent,
    backoff: Duration,
}

/// All objects whose keys begin alike.
#[derive(Clone)]
pub(crate) struct Prefix {
    store: Arc<Store>,
    prefix: String,
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.store.url(&self.prefix))
    }
}

/// What a source in a store keeps: where it is, and the folder that files are fetched into.
#[derive(Debug, Clone)]
pub(crate) struct Remote {
    at: Prefix,
    _folder: Option<Arc<TempDir>>,
}

impl Remote {
    /// What paths in the object are relative to.
    pub(crate) fn beside(&self) -> Prefix {
        let end = self.at.prefix.rfind('/').map_or(0, |slash| slash + 1);
        Prefix { store: Arc::clone(&self.at.store), prefix: self.at.prefix[..end].to_owned() }
    }
}

/// An archive in a store.
#[derive(Clone)]
pub(crate) struct Object {
    store: Arc<Store>,
    key: String,
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.store.url(&self.key))
    }
}

impl Object {
    pub(crate) fn name(&self) -> PathBuf {
        PathBuf::from(self.store.url(&self.key))
    }

    /// Fetches the object into a file that goes away with the last handle of it.
    pub(crate) fn fetch(&self) -> Result<File, String> {
        let mut file = tempfile::tempfile().map_err(|e| no_room(&e))?;
        self.store.download(&self.key, &mut file)?;
        file.rewind().map_err(|e| no_room(&e))?;
        Ok(file)
    }
}

fn no_room(error: &io::Error) -> String {
    format!(
        "cannot be kept in the folder for temporary files: {error}; make room there, or name another by TMPDIR"
    )
}

/// Opens what a URL stands for: one object, archives by a pattern, or images by a prefix.
pub(crate) fn open(url: &str, options: &SourceOptions) -> Result<Source, SourceError> {
    open_with(url, options, &Settings::of_environment())
}

pub(crate) fn open_with(
    url: &str,
    options: &SourceOptions,
    settings: &Settings,
) -> Result<Source, SourceError> {
    let unusable = |reason: String| SourceError::Unusable { path: PathBuf::from(url), reason };
    let rest = url.strip_prefix("s3://").unwrap_or(url);
    let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
    let store = Arc::new(Store::new(bucket, settings).map_err(unusable)?);
    let at = Prefix { store: Arc::clone(&store), prefix: key.to_owned() };
    let source = |layout, why: &str, place, folder: Option<TempDir>, path: PathBuf| Source {
        path,
        layout,
        why: why.to_owned(),
        place,
        options: options.clone(),
        notes: Notes::default(),
        remote: Some(Remote { at: at.clone(), _folder: folder.map(Arc::new) }),
    };
    let named = detect::by_name(Path::new(key));
    let archives = |keys: Vec<String>| {
        Place::Objects(keys.into_iter().map(|key| Object { store: Arc::clone(&store), key }).collect())
    };
    if let Some(keys) = detect::expand_text(key).map_err(unusable)? {
        if options.layout.is_some_and(|layout| layout != Layout::WebDataset) {
            return Err(unusable("a pattern of several objects is read as tar archives only".to_owned()));
        }
        let why = "the pattern stands for several archives";
        return Ok(source(Layout::WebDataset, why, archives(keys), None, PathBuf::from(url)));
    }
    match options.layout.or(named) {
        Some(Layout::WebDataset) => {
            let place = archives(vec![key.to_owned()]);
            Ok(source(
                Layout::WebDataset,
                "the object is named as an archive",
                place,
                None,
                PathBuf::from(url),
            ))
        }
        None | Some(Layout::Folder) => {
            let why = "the URL names no file, so the images whose keys begin so are read";
            Ok(source(Layout::Folder, why, Place::Path(PathBuf::from(url)), None, PathBuf::from(url)))
        }
        Some(Layout::JsonLines | Layout::Csv | Layout::Parquet) => {
            let folder = tempfile::tempdir().map_err(|e| unusable(no_room(&e)))?;
            let name = key.rsplit('/').next().unwrap_or_default();
            let path = folder.path().join(name);
            let mut file = File::create(&path).map_err(|e| unusable(no_room(&e)))?;
            store.download(key, &mut file).map_err(unusable)?;
            let Detected { layout, why, place } = detect::detect(&path, options.layout)?;
            Ok(source(layout, &why, place, Some(folder), path))
        }
        Some(other) => {
            Err(unusable(format!("the layout {other} is not read from a store; copy it to a folder first")))
        }
    }
}

impl Source {
    /// The images of a prefix.
    pub(crate) fn objects(&self) -> Result<Objects, SourceError> {
        let remote = self.remote.as_ref().ok_or_else(|| self.unusable("it is not in a store"))?;
        let objects = Objects::open(remote.at.clone(), self.options.chunking);
        objects.map_err(|reason| self.unusable(reason))
    }
}

impl Store {
    fn new(name: &str, settings: &Settings) -> Result<Self, String> {
        let region = settings.region.clone();
        let (endpoint, style) = match &settings.endpoint {
            Some(endpoint) => (endpoint.clone(), UrlStyle::Path),
            // A name with a point does not fit the certificate of its own host.
            None if name.contains('.') => (format!("https://s3.{region}.amazonaws.com"), UrlStyle::Path),
            None => (format!("https://s3.{region}.amazonaws.com"), UrlStyle::VirtualHost),
        };
        let wrong = |reason: String| {
            format!("{reason}; write s3://bucket/key, and AWS_ENDPOINT_URL as https://host if it is set")
        };
        let endpoint: Url = endpoint.parse().map_err(|e| wrong(format!("the endpoint is no URL: {e}")))?;
        if name.is_empty() {
            return Err(wrong("there is no bucket".to_owned()));
        }
        let bucket = Bucket::new(endpoint, style, name.to_owned(), region)
            .map_err(|e| wrong(format!("the bucket or the endpoint cannot be asked: {e}")))?;
        let credentials = settings.key.as_ref().map(|(id, secret)| match &settings.token {
            Some(token) => Credentials::new_with_token(id.clone(), secret.clone(), token.clone()),
            None => Credentials::new(id.clone(), secret.clone()),
        });
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("diptych/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .build();
        Ok(Self { bucket, credentials, agent: config.into(), backoff: settings.backoff })
    }

    fn url(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.bucket.name())
    }

    /// A key that a URL can name as it is.
    fn check(&self, key: &str) -> Result<(), String> {
        let bad = |part: &str| matches!(part, "" | "." | "..");
        match key.split('/').any(bad) {
            true => Err(format!(
                "the key '{}' has empty parts, '.' or '..', which a URL cannot name; copy the object",
                printable(key)
            )),
            false => Ok(()),
        }
    }

    /// Tries until it works, is refused for good, or was tried often enough.
    fn retried<T>(&self, mut attempt: impl FnMut() -> Result<T, Failure>) -> Result<T, String> {
        let mut wait = self.backoff;
        for n in 1.. {
            match attempt() {
                Ok(done) => return Ok(done),
                Err(Failure { reason, again: true }) if n < ATTEMPTS => {
                    drop(reason);
                    std::thread::sleep(wait);
                    wait *= 2;
                }
                Err(Failure { reason, again: true }) => {
                    return Err(format!("{reason}; tried {ATTEMPTS} times, run again later to go on"));
                }
                Err(Failure { reason, again: false }) => return Err(reason),
            }
        }
        unreachable!("the numbers of attempts do not end")
    }

    /// One request from a position on. The answer is one that delivers.
    fn get(
        &self,
        url: Url,
        from: u64,
        etag: Option<&str>,
    ) -> Result<ureq::http::Response<ureq::Body>, Failure> {
        let mut request = self.agent.get(url.as_str());
        if from > 0 {
            request = request.header("range", format!("bytes={from}-"));
            if let Some(etag) = etag {
                request = request.header("if-match", etag);
            }
        }
        let mut answer = request.call().map_err(|e| Failure {
            reason: format!("the store cannot be reached: {}", without_url(&e.to_string())),
            again: true,
        })?;
        let status = answer.status().as_u16();
        if (status == 200 && from == 0) || (status == 206 && from > 0) {
            return Ok(answer);
        }
        let said = answer.body_mut().with_config().limit(64 << 10).read_to_string().unwrap_or_default();
        Err(refusal(status, code_of(&said)))
    }

    /// Fetches an object into memory, one byte over the bound at the most.
    fn bytes(&self, key: &str, most: usize) -> Result<Vec<u8>, String> {
        self.check(key)?;
        self.retried(|| {
            let url = self.bucket.get_object(self.credentials.as_ref(), key).sign(SIGNED_FOR);
            let mut answer = self.get(url, 0, None)?;
            let mut bytes = Vec::new();
            let body = answer.body_mut().as_reader();
            body.take(most as u64 + 1).read_to_end(&mut bytes).map_err(broken)?;
            Ok(bytes)
        })
    }

    /// Fetches an object into a file; what is broken off goes on where it was.
    fn download(&self, key: &str, file: &mut File) -> Result<(), String> {
        self.check(key)?;
        let (mut written, mut etag) = (0u64, None::<String>);
        self.retried(|| {
            let url = self.bucket.get_object(self.credentials.as_ref(), key).sign(SIGNED_FOR);
            let mut answer = self.get(url, written, etag.as_deref())?;
            if written == 0 {
                let tag = answer.headers().get("etag").and_then(|tag| tag.to_str().ok());
                etag = tag.map(str::to_owned);
            }
            let mut body = answer.body_mut().as_reader();
            let mut buffer = vec![0; 256 << 10];
            loop {
                let read = body.read(&mut buffer).map_err(broken)?;
                if read == 0 {
                    return Ok(());
                }
                let kept = file.write_all(&buffer[..read]);
                kept.map_err(|e| Failure { reason: no_room(&e), again: false })?;
                written += read as u64;
            }
        })
    }

    /// A page of a listing: keys and sizes, and how to ask for the next one.
    fn page(&self, prefix: &str, token: Option<&str>) -> Result<Page, String> {
        self.retried(|| {
            let mut action = self.bucket.list_objects_v2(self.credentials.as_ref());
            action.with_prefix(prefix);
            if let Some(token) = token {
                action.with_continuation_token(token);
            }
            let mut answer = self.get(action.sign(SIGNED_FOR), 0, None)?;
            let text = answer.body_mut().with_config().limit(PAGE_BYTES_MAX).read_to_string();
            let text =
                text.map_err(|e| Failure { reason: format!("its list breaks off: {e}"), again: true })?;
            let listed = ListObjectsV2::parse_response(&text).map_err(|e| Failure {
                reason: format!("its list is not what S3 answers: {e}; check AWS_ENDPOINT_URL"),
                again: false,
            })?;
            Ok(Page {
                keys: listed.contents.into_iter().map(|object| object.key).collect(),
                next: listed.next_continuation_token,
            })
        })
    }
}

struct Page {
    keys: Vec<String>,
    next: Option<String>,
}

/// Why a request did not work, and whether another one may.
struct Failure {
    reason: String,
    again: bool,
}

fn broken(error: io::Error) -> Failure {
    Failure { reason: format!("the connection breaks off: {error}"), again: true }
}

/// An error without addresses, which hold signatures.
fn without_url(error: &str) -> String {
    let words = error.split_whitespace().map(|word| if word.contains("://") { "(address)" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

/// The code in an answer of S3 that is an error: plain letters.
fn code_of(answer: &str) -> &str {
    let code = answer.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
    let code = code.map_or("", |(code, _)| code);
    if code.len() < 64 && code.bytes().all(|b| b.is_ascii_alphanumeric()) { code } else { "" }
}

fn refusal(status: u16, code: &str) -> Failure {
    let said = if code.is_empty() { format!("status {status}") } else { format!("status {status}, {code}") };
    let (remedy, again) = match (status, code) {
        (429 | 500 | 502 | 503 | 504, _) | (_, "SlowDown" | "RequestTimeout") => ("", true),
        (404, "NoSuchBucket") => ("; there is no such bucket, check its name and AWS_ENDPOINT_URL", false),
        (404, _) => ("; there is no such object, check the key", false),
        (301 | 302 | 307 | 308, _)
        | (400, "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException") => {
            ("; the bucket is elsewhere, set AWS_REGION to its region", false)
        }
        (403, "RequestTimeTooSkewed") => ("; set the clock of this machine", false),
        (401 | 403, _) => (
            "; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, and that they may list and read",
            false,
        ),
        (412, _) => ("; the object was changed while it was fetched, run again", false),
        _ => ("; check AWS_ENDPOINT_URL and the key", false),
    };
    Failure { reason: format!("the store refuses: {said}{remedy}"), again }
}

impl Prefix {
    /// An image beside, by its path.
    pub(crate) fn image(&self, path: &str) -> Result<ItemImage, String> {
        if path.starts_with('/') {
            let path = printable(path);
            return Err(format!(
                "image '{path}' is an absolute path, and the list is in a store; write a relative one"
            ));
        }
        let key = format!("{}{path}", self.prefix);
        self.store.check(&key)?;
        Ok(self.object(key))
    }

    fn object(&self, key: String) -> ItemImage {
        let store = Arc::clone(&self.store);
        let source = store.url(&key);
        ItemImage::lazy(source, move || {
            let bytes = store.bytes(&key, IMAGE_BYTES_MAX);
            bytes.map_err(|reason| format!("{}: {reason}", printable(&store.url(&key))))
        })
    }
}

/// The images of a prefix with the texts of the same name, in the order of their keys. A page of keys is in
/// memory; images are fetched by whoever loads them.
pub(crate) struct Objects {
    at: Prefix,
    chunking: Chunking,
    keys: VecDeque<String>,
    /// How to ask for the next page.
    next: Option<String>,
    ended: bool,
}

impl Objects {
    fn open(at: Prefix, chunking: Option<Chunking>) -> Result<Self, String> {
        let Page { keys, next } = at.store.page(&at.prefix, None)?;
        if keys.is_empty() {
            return Err("no key begins so; check the URL".to_owned());
        }
        let ended = next.is_none();
        Ok(Self { at, chunking: chunking.unwrap_or_default(), keys: keys.into(), next, ended })
    }

    /// The next key, and the page after it when that is needed.
    fn next_key(&mut self) -> Result<Option<String>, String> {
        while self.keys.is_empty() && !self.ended {
            let page = self.at.store.page(&self.at.prefix, self.next.as_deref());
            let Page { keys, next } = page.inspect_err(|_| self.ended = true)?;
            self.ended = next.is_none();
            (self.keys, self.next) = (keys.into(), next);
        }
        Ok(self.keys.pop_front())
    }

    fn item(&mut self, key: String) -> Result<Item, String> {
        self.at.store.check(&key)?;
        let name = key.strip_prefix(&self.at.prefix).unwrap_or(&key).trim_start_matches('/');
        let name = if name.is_empty() { key.as_str() } else { name };
        let stem = Path::new(name).with_extension("").to_string_lossy().into_owned();
        let text_key = Path::new(&key).with_extension("txt").to_string_lossy().into_owned();
        // A text follows its image in the order of keys, unless others of the same beginning lie between.
        let has_text = match self.keys.iter().take(8).any(|next| *next == text_key) {
            true => true,
            false if self.keys.len() < 8 && !self.ended => {
                self.fill()?;
                self.keys.iter().take(8).any(|next| *next == text_key)
            }
            false => false,
        };
        let texts = match has_text {
            true => {
                let named =
                    |reason: String| format!("the text beside it, {}, {reason}", printable(&text_key));
                let bytes = self.at.store.bytes(&text_key, TEXT_BYTES_MAX).map_err(named)?;
                if bytes.len() > TEXT_BYTES_MAX {
                    return Err(named(format!("has more than {TEXT_BYTES_MAX} bytes; shorten it")));
                }
                text_of(bytes).map_err(named)?.into_iter().collect()
            }
            false => Vec::new(),
        };
        let origin = Origin::Path(PathBuf::from(self.at.store.url(&key)));
        let images = vec![self.at.object(key)];
        let key = Key::new(stem).map_err(|e| format!("{e}, by copying the object"))?;
        Ok(Item { key, images, texts, chunking: self.chunking, attributes: Attributes::new(), origin })
    }

    /// Takes up one more page.
    fn fill(&mut self) -> Result<(), String> {
        let Page { keys, next } = self.at.store.page(&self.at.prefix, self.next.as_deref())?;
        self.keys.extend(keys);
        self.ended = next.is_none();
        self.next = next;
        Ok(())
    }
}

impl Iterator for Objects {
    type Item = ItemResult;

    fn next(&mut self) -> Option<ItemResult> {
        loop {
            match self.next_key() {
                Ok(None) => return None,
                Ok(Some(key)) if has_extension(Path::new(&key), &IMAGE_EXTENSIONS) => {
                    let origin = Origin::Path(PathBuf::from(self.at.store.url(&key)));
                    return Some(self.item(key).map_err(|reason| ItemError { origin, reason }));
                }
                Ok(Some(_)) => {}
                Err(reason) => {
                    let origin = Origin::Path(PathBuf::from(self.at.store.url(&self.at.prefix)));
                    let reason = format!("listing stops here: {reason}");
                    return Some(Err(ItemError { origin, reason }));
                }
            }
        }
    }
}
