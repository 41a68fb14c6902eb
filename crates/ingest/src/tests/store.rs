//! Object stores: a server on loopback that checks every signature and serves what is in a map.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use ring::{digest, hmac};

use super::archives::{file, tar};
use super::keys;
use crate::s3::{Settings, open_with};
use crate::{Item, ItemError, Layout, SourceOptions};

const ID: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// What the server does wrong.
#[derive(Debug, Default)]
struct Faults {
    /// Requests that are answered with 503 first.
    busy: AtomicUsize,
    /// Bodies that are cut in the middle first.
    cut: AtomicUsize,
}

struct Store {
    address: SocketAddr,
    faults: Arc<Faults>,
    log: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Store {
    fn start(objects: &[(&str, &[u8])]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let objects: BTreeMap<String, Vec<u8>> =
            objects.iter().map(|(key, bytes)| ((*key).to_owned(), bytes.to_vec())).collect();
        let (faults, log, stop): (Arc<Faults>, Arc<Mutex<Vec<String>>>, Arc<AtomicBool>) = Default::default();
        let (its_faults, its_log, stopped) = (Arc::clone(&faults), Arc::clone(&log), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                serve(stream.unwrap(), &objects, &its_faults, &its_log);
            }
        });
        Self { address, faults, log, stop, thread: Some(thread) }
    }

    fn settings(&self) -> Settings {
        Settings {
            endpoint: Some(format!("http://{}", self.address)),
            region: "eu-central-1".to_owned(),
            key: Some((ID.to_owned(), SECRET.to_owned())),
            token: Some("a session/token+of=many&letters".to_owned()),
            backoff: Duration::from_millis(1),
        }
    }

    fn read(&self, url: &str) -> Result<(Layout, Vec<Item>, Vec<ItemError>), String> {
        self.read_as(url, &self.settings())
    }

    fn read_as(&self, url: &str, settings: &Settings) -> Result<(Layout, Vec<Item>, Vec<ItemError>), String> {
        let source = open_with(url, &SourceOptions::default(), settings).map_err(|e| e.to_string())?;
        let read = source.items().map_err(|e| e.to_string())?;
        let layout = source.layout();
        drop(source);
        let (mut items, mut errors) = (Vec::new(), Vec::new());
        for item in read {
            match item {
                Ok(item) => items.push(item),
                Err(error) => errors.push(error),
            }
        }
        Ok((layout, items, errors))
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().unwrap().join();
    }
}

fn serve(
    mut stream: TcpStream,
    objects: &BTreeMap<String, Vec<u8>>,
    faults: &Faults,
    log: &Mutex<Vec<String>>,
) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let Some(Ok(request)) = lines.next() else { return };
    let headers: Vec<String> = lines.map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
    let header = |name: &str| {
        let with_name = |line: &&String| line.to_lowercase().starts_with(&format!("{name}:"));
        headers.iter().find(with_name).map(|line| line.split_once(':').unwrap().1.trim().to_owned())
    };
    let target = request.split(' ').nth(1).unwrap();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    log.lock().unwrap().push(path.to_owned());
    let once = |count: &AtomicUsize| {
        count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
    };
    let (mut status, mut body) = answer(path, query, &header("host").unwrap(), objects);
    if once(&faults.busy) {
        (status, body) = (503, b"<Error><Code>SlowDown</Code></Error>".to_vec());
    }
    if let Some(from) = header("range").filter(|_| status == 200) {
        assert_eq!(header("if-match").as_deref(), Some("\"tag\""));
        let from: usize = from.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
        (status, body) = (206, body[from..].to_vec());
    }
    let length = body.len();
    if status == 200 && length > 1000 && once(&faults.cut) {
        body.truncate(length / 2);
    }
    let head = format!(
        "HTTP/1.1 {status} Said\r\ncontent-length: {length}\r\netag: \"tag\"\r\nconnection: close\r\n\r\n"
    );
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
}

fn answer(path: &str, query: &str, host: &str, objects: &BTreeMap<String, Vec<u8>>) -> (u16, Vec<u8>) {
    let error = |status, code: &str| (status, format!("<Error><Code>{code}</Code></Error>").into_bytes());
    if !is_signed(path, query, host) {
        return error(403, "SignatureDoesNotMatch");
    }
    let Some(key) = path.strip_prefix("/cases/") else { return error(404, "NoSuchBucket") };
    if !key.is_empty() {
        return match objects.get(&decoded(key)) {
            Some(bytes) => (200, bytes.clone()),
            None => error(404, "NoSuchKey"),
        };
    }
    let parameter =
        |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}="))).map(decoded);
    // Two keys a page.
    let prefix = parameter("prefix").unwrap_or_default();
    let after = parameter("continuation-token");
    let wanted: Vec<&String> = objects
        .keys()
        .filter(|key| key.starts_with(&prefix) && after.as_ref().is_none_or(|after| *key > after))
        .collect();
    let mut xml = r#"<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><MaxKeys>2</MaxKeys>"#
        .to_owned();
    let more = wanted.len() > 2;
    write!(xml, "<IsTruncated>{more}</IsTruncated>").unwrap();
    if more {
        write!(xml, "<NextContinuationToken>{}</NextContinuationToken>", wanted[1]).unwrap();
    }
    for key in wanted.iter().take(2) {
        write!(xml, "<Contents><Key>{key}</Key><Size>1</Size></Contents>").unwrap();
    }
    (200, (xml + "</ListBucketResult>").into_bytes())
}

fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut n) = (Vec::new(), 0);
    while n < bytes.len() {
        if bytes[n] == b'%' {
            out.push(u8::from_str_radix(&text[n + 1..n + 3], 16).unwrap());
            n += 3;
        } else {
            out.push(bytes[n]);
            n += 1;
        }
    }
    String::from_utf8(out).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Signature Version 4 in the query, computed anew as its description says.
fn is_signed(path: &str, query: &str, host: &str) -> bool {
    let mut pairs: Vec<&str> = query.split('&').collect();
    let Some(place) = pairs.iter().position(|pair| pair.starts_with("X-Amz-Signature=")) else {
        return false;
    };
    let given = pairs.remove(place).trim_start_matches("X-Amz-Signature=").to_owned();
    pairs.sort_unstable();
    let value = |name: &str| {
        pairs.iter().find_map(|pair| pair.strip_prefix(&format!("{name}="))).map(decoded).unwrap_or_default()
    };
    let canonical = format!("GET\n{path}\n{}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD", pairs.join("&"));
    let date = value("X-Amz-Date");
    let scope = value("X-Amz-Credential");
    let scope = scope.split_once('/').filter(|(id, _)| *id == ID).map(|(_, scope)| scope.to_owned());
    let Some(scope) = scope else { return false };
    let digest = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
    let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{digest}");
    let mac = |key: &[u8], text: &str| {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
    };
    let key = scope.split('/').fold(format!("AWS4{SECRET}").into_bytes(), |key, part| mac(&key, part));
    value("X-Amz-Security-Token") == "a session/token+of=many&letters" && hex(&mac(&key, &to_sign)) == given
}

#[test]
fn images_of_a_prefix_are_listed_in_pages_and_fetched_when_they_are_wanted() {
    let store = Store::start(&[
        ("photos/a b.jpg", b"first"),
        ("photos/a b.txt", b"A bird.\n"),
        ("photos/deep/c+d.png", b"second"),
        ("photos/deep/notes.md", b"no image"),
        ("photos/e.jpg", b"third"),
        ("photos/e.txt", b"caf\xE9"),
        ("photos/z.png", b"fourth"),
        ("other/x.jpg", b"elsewhere"),
    ]);
    let (layout, items, errors) = store.read("s3://cases/photos/").unwrap();
    assert_eq!(layout, Layout::Folder);
    assert_eq!(keys(&items), ["a b", "deep/c+d", "z"]);
    assert_eq!(items[0].texts, ["A bird."]);
    assert!(errors[0].to_string().starts_with("s3://cases/photos/e.jpg: the text beside it"), "{errors:?}");
    let asked = store.asked();
    assert!(asked.iter().all(|path| path.ends_with(".txt") || path == "/cases/"), "{asked:?}");
    assert_eq!(items[1].images[0].load().unwrap(), b"second");
    assert_eq!(items[1].images[0].source(), "s3://cases/photos/deep/c+d.png");
    assert_eq!(store.asked().len(), 1);
}

#[test]
fn lists_and_archives_are_read_where_they_are() {
    let lines = "{\"key\":\"a\",\"image\":\"images/a.png\",\"text\":\"t\"}\n{\"key\":\"b\",\"image\":\"../secret.png\"}\n";
    let archive = tar(&[file("x.jpg", b"packed"), file("x.txt", b"text")]);
    let store = Store::start(&[
        ("set/list.jsonl", lines.as_bytes()),
        ("set/table.csv", b"id,image,text\n1,images/a.png,t\n"),
        ("set/images/a.png", b"image"),
        ("shards/000.tar", &archive),
        ("shards/001.tar", &tar(&[file("y.txt", b"text")])),
    ]);
    let (layout, items, errors) = store.read("s3://cases/set/list.jsonl").unwrap();
    assert_eq!((layout, keys(&items)), (Layout::JsonLines, vec!["a"]));
    assert_eq!(items[0].images[0].load().unwrap(), b"image");
    assert!(errors[0].to_string().starts_with("list.jsonl line 2: image '../secret.png' leads outside"));
    let (layout, items, errors) = store.read("s3://cases/set/table.csv").unwrap();
    assert_eq!((layout, keys(&items), errors.len()), (Layout::Csv, vec!["1"], 0));
    assert_eq!(items[0].images[0].load().unwrap(), b"image");
    let (layout, items, errors) = store.read("s3://cases/shards/{000..002}.tar").unwrap();
    assert_eq!((layout, keys(&items)), (Layout::WebDataset, vec!["x", "y"]));
    assert_eq!(items[0].images[0].load().unwrap(), b"packed");
    assert!(
        errors[0].to_string().contains("002.tar: the store refuses: status 404, NoSuchKey"),
        "{errors:?}"
    );
}

#[test]
fn what_fails_for_a_moment_is_tried_again_and_goes_on_where_it_was() {
    let lines: String = (0..2000).map(|n| format!("{{\"key\":\"{n}\",\"text\":\"t\"}}\n")).collect();
    let store = Store::start(&[("list.jsonl", lines.as_bytes())]);
    store.faults.busy.store(2, Ordering::SeqCst);
    store.faults.cut.store(1, Ordering::SeqCst);
    let (_, items, errors) = store.read("s3://cases/list.jsonl").unwrap();
    assert_eq!((items.len(), errors.len()), (2000, 0));
    assert_eq!(store.asked().len(), 4, "twice busy, once cut, once to the end");
    store.faults.busy.store(5, Ordering::SeqCst);
    let error = store.read("s3://cases/list.jsonl").unwrap_err();
    assert!(error.contains("status 503, SlowDown; tried 5 times"), "{error}");
}

#[test]
fn refusals_say_what_to_do_and_hold_no_secret() {
    let store = Store::start(&[("a.jpg", b"x")]);
    let wrong = Settings { key: Some((ID.to_owned(), "wrong".to_owned())), ..store.settings() };
    let unsigned = Settings { key: None, token: None, ..store.settings() };
    for settings in [wrong, unsigned] {
        let error = store.read_as("s3://cases/", &settings).unwrap_err();
        assert!(error.contains("status 403, SignatureDoesNotMatch; check AWS_ACCESS_KEY_ID"), "{error}");
    }
    let refused = |url: &str| store.read(url).unwrap_err();
    assert!(refused("s3://elsewhere/").contains("no such bucket"));
    assert!(refused("s3://cases/none/").contains("no key begins so"));
    assert!(refused("s3://cases/gone.csv").contains("no such object"));
    assert!(refused("s3:///x.csv").contains("there is no bucket"));
    assert!(refused("s3://cases/a/../b.csv").contains("'.' or '..'"));
    let nowhere = Settings { endpoint: Some("http://127.0.0.1:1".to_owned()), ..store.settings() };
    let error = store.read_as("s3://cases/", &nowhere).unwrap_err();
    assert!(error.contains("cannot be reached") && error.contains("tried 5 times"), "{error}");
    assert!(!error.contains("Signature") && !error.contains(SECRET), "{error}");
}
