//! Downloads from a server of the tests that behaves like the hub, or does not.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::server::{Reply, Request, Server};
use super::{COMMIT, WHOLE, name, quiet, settings};
use crate::*;

/// The weights; their name is their SHA-256, as for large files of the hub.
const WEIGHTS: &[u8] = b"the weights";

fn sha256(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

/// The hub: small files directly, the weights behind a redirect.
fn hub(request: &Request) -> Reply {
    let path = request.path.as_str();
    if path == "/api/models/owner/name/revision/main" {
        let files: Vec<String> = WHOLE
            .iter()
            .chain(&["README.md", "flax.msgpack"])
            .map(|f| format!(r#"{{"rfilename":"{f}"}}"#))
            .collect();
        let text = format!(r#"{{"sha":"{COMMIT}","siblings":[{}]}}"#, files.join(","));
        return Reply::new(200, text.as_bytes());
    }
    let Some(file) = path.strip_prefix(&format!("/owner/name/resolve/{COMMIT}/")) else {
        return match path {
            "/cdn/weights?signed" => contents(request, WEIGHTS),
            _ => Reply::new(404, b"").with("X-Error-Code", "RepoNotFound"),
        };
    };
    match file {
        "model.safetensors" => Reply::new(302, b"")
            .with("X-Linked-Etag", format!("\"{}\"", sha256(WEIGHTS)))
            .with("X-Linked-Size", WEIGHTS.len().to_string())
            .with("Location", "/cdn/weights?signed"),
        "README.md" | "flax.msgpack" => panic!("{file} is not needed"),
        file => Reply::new(200, file.as_bytes())
            .with("ETag", format!("W/\"{}\"", sha256(file.as_bytes()).split_at(40).0)),
    }
}

/// Contents, from where the request says.
fn contents(request: &Request, all: &[u8]) -> Reply {
    match request.headers.get("range") {
        None => Reply::new(200, all),
        Some(range) => {
            let from: usize =
                range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap();
            let range = format!("bytes {from}-{}/{}", all.len() - 1, all.len());
            Reply::new(206, &all[from..]).with("Content-Range", range)
        }
    }
}

fn online(cache: &Path, server: &Server) -> Settings {
    Settings { offline: false, endpoint: server.url(), ..settings(cache) }
}

fn weights(dir: &Path) -> Vec<u8> {
    std::fs::read(dir.join("model.safetensors")).unwrap()
}

/// Files of the cache that hold contents, by name.
fn blobs(cache: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(cache.join("models--owner--name/blobs")).unwrap();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_model_is_fetched_once_and_only_what_it_needs() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(hub);
    let settings = online(cache.path(), &server);
    let mut events = Vec::new();
    let dir = resolve(&name(), &settings, &mut |event| events.push(format!("{event:?}"))).unwrap();
    assert_eq!(dir, cache.path().join("models--owner--name/snapshots").join(COMMIT));
    assert_eq!(weights(&dir), WEIGHTS);
    for file in &WHOLE[..3] {
        assert_eq!(std::fs::read_to_string(dir.join(file)).unwrap(), *file);
    }
    assert!(blobs(cache.path()).contains(&sha256(WEIGHTS)));
    #[cfg(unix)]
    assert_eq!(
        std::fs::read_link(dir.join("model.safetensors")).unwrap(),
        Path::new("../../blobs").join(sha256(WEIGHTS))
    );
    let reference = std::fs::read_to_string(cache.path().join("models--owner--name/refs/main")).unwrap();
    assert_eq!(reference, COMMIT);
    assert_eq!(events.last().unwrap(), "Finished");
    assert!(events.contains(&r#"Started { file: "model.safetensors", size: Some(11) }"#.to_owned()));
    assert!(events.contains(&"Received { bytes: 11 }".to_owned()));
    // The weights come last: whoever finds them finds the rest.
    assert!(server.requests().last().unwrap().path.starts_with("/cdn/"));
    let asked = server.requests().len();
    assert_eq!(resolve(&name(), &settings, &mut quiet()).unwrap(), dir);
    assert_eq!(server.requests().len(), asked, "a whole model is not asked for");
}

#[test]
fn the_token_is_shown_to_the_hub_and_to_nobody_else() {
    let cache = tempfile::tempdir().unwrap();
    let other = Server::start(|request| contents(request, WEIGHTS));
    let location = format!("{}/weights", other.url());
    let server =
        Server::start(move |request| match request.headers.get("authorization").map(String::as_str) {
            Some("Bearer hf_right") if request.path.ends_with("model.safetensors") => {
                let mut reply = hub(request);
                reply.headers.retain(|(name, _)| *name != "Location");
                reply.with("Location", location.clone())
            }
            Some("Bearer hf_right") => hub(request),
            _ => Reply::new(401, b"").with("X-Error-Code", "RepoNotFound"),
        });
    let with =
        |token: Option<&str>| Settings { token: token.and_then(Token::new), ..online(cache.path(), &server) };
    let error = resolve(&name(), &with(None), &mut quiet()).unwrap_err().to_string();
    assert!(error.contains("shows no owner/name") && error.contains("set HF_TOKEN"), "{error}");
    let error = resolve(&name(), &with(Some("hf_wrong")), &mut quiet()).unwrap_err().to_string();
    assert!(error.contains("the token was refused") && !error.contains("hf_wrong"), "{error}");
    let dir = resolve(&name(), &with(Some("hf_right")), &mut quiet()).unwrap();
    assert_eq!(weights(&dir), WEIGHTS);
    assert_eq!(other.requests().len(), 1);
    assert!(other.requests().iter().all(|request| !request.headers.contains_key("authorization")));
}

#[test]
fn a_token_is_not_sent_in_the_clear() {
    let cache = tempfile::tempdir().unwrap();
    let settings = Settings {
        endpoint: "http://mirror.invalid".into(),
        offline: false,
        token: Token::new("hf_secret"),
        ..settings(cache.path())
    };
    let error = resolve(&name(), &settings, &mut quiet()).unwrap_err().to_string();
    assert!(error.contains("HF_ENDPOINT is not https"), "{error}");
}

#[test]
fn a_broken_connection_is_continued_where_it_broke() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(|request| {
        let mut reply = hub(request);
        if request.path.starts_with("/cdn/") {
            reply.cut = Some(reply.body.len().min(4));
        }
        reply
    });
    let dir = resolve(&name(), &online(cache.path(), &server), &mut quiet()).unwrap();
    assert_eq!(weights(&dir), WEIGHTS);
    let ranges: Vec<_> = server.requests().iter().filter_map(|r| r.headers.get("range").cloned()).collect();
    assert_eq!(ranges, ["bytes=4-", "bytes=8-"]);
}

#[test]
fn an_interrupted_download_never_looks_complete_and_is_continued() {
    let cache = tempfile::tempdir().unwrap();
    let dir = {
        // The first connection brings five bytes, the later ones none.
        let count = AtomicUsize::new(0);
        let server = Server::start(move |request| {
            let mut reply = hub(request);
            if request.path.starts_with("/cdn/") {
                reply.cut = Some(if count.fetch_add(1, Ordering::SeqCst) == 0 { 5 } else { 0 });
            }
            reply
        });
        let error = resolve(&name(), &online(cache.path(), &server), &mut quiet()).unwrap_err();
        assert!(matches!(error, HubError::Interrupted { received: 5, .. }), "{error}");
        cache.path().join("models--owner--name/snapshots").join(COMMIT)
    };
    assert!(!dir.join("model.safetensors").exists());
    assert!(!cache.path().join("models--owner--name/refs/main").exists());
    assert!(resolve(&name(), &settings(cache.path()), &mut quiet()).is_err(), "offline, it is not there");
    let server = Server::start(hub);
    assert_eq!(resolve(&name(), &online(cache.path(), &server), &mut quiet()).unwrap(), dir);
    assert_eq!(weights(&dir), WEIGHTS);
    let last = server.requests().pop().unwrap();
    assert_eq!(last.headers.get("range").unwrap(), "bytes=5-");
    assert!(blobs(cache.path()).iter().all(|name| !name.contains("incomplete")));
}

#[test]
fn a_server_that_cannot_continue_starts_again() {
    let cache = tempfile::tempdir().unwrap();
    let count = AtomicUsize::new(0);
    let server = Server::start(move |request| {
        let mut reply = hub(request);
        if request.path.starts_with("/cdn/") {
            reply = Reply::new(200, WEIGHTS);
            reply.cut = (count.fetch_add(1, Ordering::SeqCst) == 0).then_some(5);
        }
        reply
    });
    let dir = resolve(&name(), &online(cache.path(), &server), &mut quiet()).unwrap();
    assert_eq!(weights(&dir), WEIGHTS);
}

#[test]
fn a_server_that_starts_again_each_time_is_given_up() {
    let cache = tempfile::tempdir().unwrap();
    let count = AtomicUsize::new(0);
    let server = Server::start(move |request| {
        let mut reply = hub(request);
        if request.path.starts_with("/cdn/") {
            reply = Reply::new(200, WEIGHTS);
            reply.cut = Some(4 + count.fetch_add(1, Ordering::SeqCst) % 2);
        }
        reply
    });
    let error = resolve(&name(), &online(cache.path(), &server), &mut quiet()).unwrap_err();
    assert!(matches!(error, HubError::Interrupted { .. }), "{error}");
}

#[test]
fn contents_other_than_announced_are_refused() {
    for (wrong, words) in [(b"THE WEIGHTS".as_slice(), "SHA-256"), (b"the weights and more", "longer")] {
        let cache = tempfile::tempdir().unwrap();
        let server = Server::start(move |request| match request.path.starts_with("/cdn/") {
            true => Reply::new(200, wrong),
            false => hub(request),
        });
        let error = resolve(&name(), &online(cache.path(), &server), &mut quiet()).unwrap_err().to_string();
        assert!(error.starts_with("model.safetensors arrived damaged") && error.contains(words), "{error}");
        let good = Server::start(hub);
        let dir = resolve(&name(), &online(cache.path(), &good), &mut quiet()).unwrap();
        assert_eq!(weights(&dir), WEIGHTS, "what was damaged is not kept");
    }
}

#[test]
fn refusals_say_what_to_do() {
    for (status, code, token, words) in [
        (404, "RevisionNotFound", None, "no revision 'main'"),
        (404, "RepoNotFound", Some("hf_x"), "correct the name"),
        (403, "GatedRepo", Some("hf_x"), "accept its terms at http"),
        (401, "GatedRepo", None, "set HF_TOKEN"),
        (403, "", Some("hf_x"), "may not read it"),
        (500, "", None, "status 500"),
        (302, "", None, "redirect to nowhere"),
        (200, "", None, "HF_ENDPOINT"),
    ] {
        let cache = tempfile::tempdir().unwrap();
        let server = Server::start(move |_| Reply::new(status, b"[]").with("X-Error-Code", code));
        let settings = Settings { token: token.and_then(Token::new), ..online(cache.path(), &server) };
        let error = resolve(&name(), &settings, &mut quiet()).unwrap_err().to_string();
        assert!(error.contains(words), "{status} {code}: {error}");
    }
}

#[test]
fn an_etag_cannot_leave_the_cache() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(|request| match request.path.starts_with("/api/") {
        true => hub(request),
        false => Reply::new(200, b"x").with("ETag", "\"../../x\""),
    });
    let error = resolve(&name(), &online(cache.path(), &server), &mut quiet()).unwrap_err().to_string();
    assert!(error.contains("no usable ETag"), "{error}");
}

#[test]
fn a_repository_without_a_model_is_named() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(|_| {
        Reply::new(200, format!(r#"{{"sha":"{COMMIT}","siblings":[{{"rfilename":"x.gguf"}}]}}"#).as_bytes())
    });
    let error = resolve(&name(), &online(cache.path(), &server), &mut quiet()).unwrap_err().to_string();
    assert!(error.starts_with("hf:owner/name@main holds no config.json"), "{error}");
}

#[test]
fn shards_are_fetched_by_their_index() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(|request| {
        let file = request.path.rsplit('/').next().unwrap();
        let etag = format!("\"{}\"", sha256(file.as_bytes()).split_at(40).0);
        match file {
            "main" => {
                let files = [
                    "config.json",
                    "vocab.txt",
                    "model.safetensors.index.json",
                    "a-1.safetensors",
                    "a-2.safetensors",
                ];
                let files = files.map(|f| format!(r#"{{"rfilename":"{f}"}}"#)).join(",");
                Reply::new(200, format!(r#"{{"sha":"{COMMIT}","siblings":[{files}]}}"#).as_bytes())
            }
            "model.safetensors.index.json" => Reply::new(
                200,
                br#"{"weight_map":{"x":"a-1.safetensors","y":"a-2.safetensors","z":"a-1.safetensors"}}"#,
            )
            .with("ETag", etag),
            file => Reply::new(200, file.as_bytes()).with("ETag", etag),
        }
    });
    let dir = resolve(&name(), &online(cache.path(), &server), &mut quiet()).unwrap();
    for shard in ["a-1.safetensors", "a-2.safetensors"] {
        assert_eq!(std::fs::read_to_string(dir.join(shard)).unwrap(), shard);
    }
}

#[test]
fn a_hub_that_is_gone_is_named_unless_the_cache_suffices() {
    let cache = tempfile::tempdir().unwrap();
    let settings = {
        let server = Server::start(hub);
        online(cache.path(), &server)
    };
    let error = resolve(&name(), &settings, &mut quiet()).unwrap_err().to_string();
    assert!(error.contains("cannot be reached") && error.contains("'hf download owner/name"), "{error}");
    let dir = super::cached(cache.path(), "main", &["config.json", "model.safetensors"]);
    assert_eq!(resolve(&name(), &settings, &mut quiet()).unwrap(), dir);
}
