//! Asking the hub.
//!
//! Owns: requests, redirects, who sees the token, and what status codes mean. Does not own where
//! answers are kept. The token goes to the server of the settings and to nobody else: contents are
//! mostly served by other hosts, under addresses that are signed already.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use ureq::http::{Response, StatusCode, Uri};
use ureq::{Agent, Body};

use crate::cache::is_commit;
use crate::name::is_plain;
use crate::{HubError, ModelName, Settings};

const MAX_REDIRECTS: usize = 5;
/// Bytes of an answer about a repository.
const MAX_LISTING: u64 = 32 << 20;
const CONNECT: Duration = Duration::from_secs(15);
/// Without a byte for this long, a connection is dead.
const SILENCE: Duration = Duration::from_secs(60);

/// What a revision is.
pub(crate) struct Repository {
    pub(crate) commit: String,
    pub(crate) files: BTreeSet<String>,
}

/// What the hub says about a file before it is fetched.
pub(crate) struct Metadata {
    /// The name of its contents: SHA-256 for large files.
    pub(crate) etag: String,
    pub(crate) size: Option<u64>,
    url: String,
}

/// A connection to the hub of the settings.
pub(crate) struct Client<'a> {
    model: &'a ModelName,
    settings: &'a Settings,
    agent: Agent,
}

type Answer = Response<Body>;

impl<'a> Client<'a> {
    pub(crate) fn new(model: &'a ModelName, settings: &'a Settings) -> Result<Self, HubError> {
        let host = host(&settings.endpoint);
        let here = matches!(host.as_str(), "localhost" | "127.0.0.1" | "[::1]");
        if settings.token.is_some() && settings.endpoint.starts_with("http://") && !here {
            return Err(HubError::Setting {
                name: "HF_ENDPOINT".into(),
                reason: "is not https, so that anybody could read the token sent to it".into(),
            });
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // Followed here, where it is known who may see the token.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("diptych/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .proxy(if here { None } else { ureq::Proxy::try_from_env() })
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .build();
        Ok(Self { model, settings, agent: config.into() })
    }

    /// Asks for the commit and the files of the revision.
    pub(crate) fn repository(&self) -> Result<Repository, HubError> {
        let (repository, revision) = (self.model.repository(), self.model.revision().replace('/', "%2F"));
        let mut url = format!("{}/api/models/{repository}/revision/{revision}", self.settings.endpoint);
        let mut answer = self.ask("GET", &url, None)?;
        // A repository that moved.
        for _ in 0..MAX_REDIRECTS {
            let Some(next) = self.redirect(&url, &answer)?.filter(|next| self.is_own(next)) else { break };
            url = next;
            answer = self.ask("GET", &url, None)?;
        }
        self.check(&url, &answer, StatusCode::OK)?;
        let bytes = answer.body_mut().with_config().limit(MAX_LISTING).read_to_vec();
        let bytes = bytes.map_err(|e| self.unreachable(&e))?;
        let wrong = |reason: String| HubError::Answer { url: url.clone(), reason };
        let value: Value = serde_json::from_slice(&bytes).map_err(|e| wrong(e.to_string()))?;
        let commit = value.get("sha").and_then(Value::as_str).filter(|sha| is_commit(sha));
        let siblings = value.get("siblings").and_then(Value::as_array);
        let (Some(commit), Some(siblings)) = (commit, siblings) else {
            return Err(wrong("neither commit nor files".into()));
        };
        let name = |sibling: &Value| Some(sibling.get("rfilename")?.as_str()?.to_owned());
        Ok(Repository { commit: commit.to_owned(), files: siblings.iter().filter_map(name).collect() })
    }

    /// Asks what a file is and where its contents are.
    pub(crate) fn metadata(&self, commit: &str, file: &str) -> Result<Metadata, HubError> {
        let repository = self.model.repository();
        let mut url = format!("{}/{repository}/resolve/{commit}/{file}", self.settings.endpoint);
        let mut answer = self.ask("HEAD", &url, None)?;
        for _ in 0..MAX_REDIRECTS {
            let Some(next) = self.redirect(&url, &answer)? else { break };
            // The hub names the contents, and redirects to where they are.
            let named = answer.headers().contains_key("x-linked-etag");
            if named || !self.is_own(&next) {
                return self.described(next, &answer);
            }
            url = next;
            answer = self.ask("HEAD", &url, None)?;
        }
        self.check(&url, &answer, StatusCode::OK)?;
        self.described(url, &answer)
    }

    /// Asks for the contents from a position on. The answer is 200, 206 or 416.
    pub(crate) fn contents(&self, metadata: &Metadata, from: u64) -> Result<Answer, HubError> {
        let mut url = metadata.url.clone();
        let range = (from > 0).then(|| format!("bytes={from}-"));
        let mut answer = self.ask("GET", &url, range.as_deref())?;
        for _ in 0..MAX_REDIRECTS {
            let Some(next) = self.redirect(&url, &answer)? else { break };
            url = next;
            answer = self.ask("GET", &url, range.as_deref())?;
        }
        let partial = [StatusCode::PARTIAL_CONTENT, StatusCode::RANGE_NOT_SATISFIABLE];
        if !(from > 0 && partial.contains(&answer.status())) {
            self.check(&url, &answer, StatusCode::OK)?;
        }
        Ok(answer)
    }

    fn described(&self, url: String, answer: &Answer) -> Result<Metadata, HubError> {
        let etag = header(answer, "x-linked-etag").or_else(|| header(answer, "etag"));
        let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"'));
        // It becomes a file name.
        let Some(etag) = etag.filter(|etag| is_plain(etag)) else {
            return Err(HubError::Answer { url, reason: "no usable ETag".into() });
        };
        let size = if answer.status().is_redirection() { None } else { header(answer, "content-length") };
        let size = header(answer, "x-linked-size").or(size).and_then(|size| size.parse().ok());
        Ok(Metadata { etag: etag.to_owned(), size, url })
    }

    fn ask(&self, method: &str, url: &str, range: Option<&str>) -> Result<Answer, HubError> {
        let mut request = match method {
            "HEAD" => self.agent.head(url),
            _ => self.agent.get(url),
        };
        if let Some(token) = self.settings.token.as_ref().filter(|_| self.is_own(url)) {
            request = request.header("authorization", format!("Bearer {}", token.secret()));
        }
        if let Some(range) = range {
            request = request.header("range", range);
        }
        request.call().map_err(|e| self.unreachable(&e))
    }

    /// Where an answer points to.
    fn redirect(&self, url: &str, answer: &Answer) -> Result<Option<String>, HubError> {
        if !answer.status().is_redirection() {
            return Ok(None);
        }
        let wrong = |reason: &str| HubError::Answer { url: url.to_owned(), reason: reason.to_owned() };
        let next = header(answer, "location").ok_or_else(|| wrong("a redirect to nowhere"))?;
        let next = match next {
            path if path.starts_with('/') && !path.starts_with("//") => format!("{}{path}", origin(url)),
            absolute => absolute.to_owned(),
        };
        if next.starts_with("https://") || (next.starts_with("http://") && url.starts_with("http://")) {
            return Ok(Some(next));
        }
        Err(wrong("a redirect away from https"))
    }

    /// Whether an address is on the server of the settings.
    fn is_own(&self, url: &str) -> bool {
        origin(url).eq_ignore_ascii_case(origin(&self.settings.endpoint))
    }

    fn check(&self, url: &str, answer: &Answer, wanted: StatusCode) -> Result<(), HubError> {
        let status = answer.status();
        if status == wanted {
            return Ok(());
        }
        let (model, endpoint) = (self.model.clone(), self.settings.endpoint.clone());
        let not_found = |hint| HubError::NotFound { model: model.clone(), endpoint: endpoint.clone(), hint };
        let code = header(answer, "x-error-code").unwrap_or_default();
        Err(match (status.as_u16(), code) {
            (_, "GatedRepo") => HubError::Gated { model, endpoint },
            (404, "RevisionNotFound") => HubError::Revision { model, endpoint },
            (401, _) if self.settings.token.is_some() => not_found(
                "the token was refused; set HF_TOKEN to a valid token that may read it, or unset it for a public model",
            ),
            // The hub does not tell strangers whether a private repository exists.
            (401 | 404, _) if self.settings.token.is_none() => {
                not_found("correct the name, or, if it is private, set HF_TOKEN to a token that may read it")
            }
            (403, _) => not_found("the token may not read it; set HF_TOKEN to one that may"),
            (404, _) => not_found("correct the name, or set HF_TOKEN to a token that may read it"),
            (status, _) => HubError::Answer { url: bare(url), reason: format!("status {status}") },
        })
    }

    fn unreachable(&self, error: &ureq::Error) -> HubError {
        HubError::Unreachable {
            model: self.model.clone(),
            endpoint: self.settings.endpoint.clone(),
            reason: error.to_string(),
        }
    }
}

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.headers().get(name)?.to_str().ok()
}

/// Scheme, host and port.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..].find(['/', '?', '#']).map_or(url.len(), |at| host + at);
    &url[..end]
}

fn host(url: &str) -> String {
    url.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_ascii_lowercase)).unwrap_or_default()
}

/// Without the query, which may hold a signature.
fn bare(url: &str) -> String {
    url.split(['?', '#']).next().unwrap_or_default().to_owned()
}
