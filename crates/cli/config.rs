//! The configuration of `diptych serve`: from flags, the environment, a file and defaults to one value.
//!
//! What was given is parsed first (`args` by clap, `file` from TOML) and resolved after, here: flags go
//! before the environment, that before the file, that before the defaults. Which settings there are is
//! said once, in the table of `settings`; the command line, the file, `config check` and `config print`
//! all follow from it. Deliberately absent: what a setting means, which is its part's own business, and
//! secrets, which stay in files that settings name.

mod args;
mod commands;
mod file;
mod settings;
mod values;

use std::fmt;
use std::path::{Path, PathBuf};

use diptych_encoder::Precision;
use diptych_engine::EngineOptions;
use diptych_server::{ServerOptions, TlsOptions};

pub use args::{ConfigCommand, ServeArgs};
pub use commands::run;
pub use settings::{Kind, SETTINGS, Setting};

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Certificates and the key to them, PEM.
#[derive(Debug, Clone, Default)]
pub struct TlsFiles {
    /// The server's certificate, and those that lead to a root.
    pub certificate: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
    /// Who signs the certificates of clients that are let in.
    pub client_ca: Option<PathBuf>,
}

/// Everything that `diptych serve` can be told. The one place of its defaults, where those of the parts
/// are not.
#[derive(Debug, Clone)]
pub struct ServeConfig {
    /// The data directory.
    pub data: Option<PathBuf>,
    /// A model directory, or the name of a model.
    pub model: Option<PathBuf>,
    /// How the model computes.
    pub precision: Precision,
    /// Where to listen.
    pub listen: std::net::SocketAddr,
    /// Bounds of the server.
    pub server: ServerOptions,
    /// Certificates.
    pub tls: TlsFiles,
    /// Bounds of the engine.
    pub engine: EngineOptions,
    /// Where to serve metrics, if anywhere.
    pub metrics_listen: Option<std::net::SocketAddr>,
    /// Whether metrics may be served to other machines.
    pub metrics_remote: bool,
    /// How log lines are written.
    pub log_format: LogFormat,
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self {
            data: None,
            model: None,
            precision: Precision::F32,
            listen: ([127, 0, 0, 1], 7700).into(),
            server: ServerOptions::default(),
            tls: TlsFiles::default(),
            engine: EngineOptions::default(),
            metrics_listen: None,
            metrics_remote: false,
            log_format: LogFormat::Text,
        }
    }
}

impl ServeConfig {
    /// The data directory and the model, which have no defaults.
    ///
    /// # Errors
    /// When one is not set; says how to.
    pub fn places(&self) -> anyhow::Result<(&Path, &Path)> {
        match (&self.data, &self.model) {
            (Some(data), Some(model)) => Ok((data, model)),
            (data, _) => {
                let (what, flag) =
                    if data.is_none() { ("data", "--data DIR") } else { ("model", "--model MODEL_DIR") };
                anyhow::bail!(
                    "there is no {what}: give {flag}, set DIPTYCH_{}, or write '{what} = \"...\"' at the \
                     top of the file that --config names",
                    what.to_uppercase()
                )
            }
        }
    }

    /// The server's options, certificates included.
    pub fn server_options(&self) -> ServerOptions {
        let mut options = self.server.clone();
        let TlsFiles { certificate, key, client_ca } = self.tls.clone();
        options.access.tls =
            certificate.zip(key).map(|(certificate, key)| TlsOptions { certificate, key, client_ca });
        options
    }

    /// What is wrong with settings that are each for itself right.
    fn conflicts(&self) -> Option<Problem> {
        let tls = &self.tls;
        if tls.certificate.is_some() != tls.key.is_some() || (tls.client_ca.is_some() && tls.key.is_none()) {
            return Some(Problem {
                place: "tls".to_owned(),
                what:
                    "a certificate and its key belong together, and client_ca to both: set tls.certificate \
                       and tls.key (--tls-certificate, --tls-key)"
                        .to_owned(),
            });
        }
        let limits = &self.server.access.limits;
        if limits.burst.is_some() && limits.requests_per_second.is_none() {
            return Some(Problem {
                place: "access.rate_burst".to_owned(),
                what: "there is no rate to burst from: set access.rate_limit (--rate-limit), too".to_owned(),
            });
        }
        let address = self.metrics_listen.filter(|a| !a.ip().is_loopback() && !self.metrics_remote)?;
        Some(Problem {
            place: "metrics.listen".to_owned(),
            what: format!(
                "{address} is reachable from other machines, and metrics are served to whoever asks; use \
                 127.0.0.1, or say metrics.remote = true (--metrics-remote) if that network is yours"
            ),
        })
    }
}

/// Where the value of a setting comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Nobody said otherwise.
    Default,
    /// A line of the file, counted from 1.
    File(usize),
    /// Its environment variable.
    Environment,
    /// Its flag.
    Flag,
}

/// The configuration, and where each setting comes from, in the order of [`SETTINGS`].
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The values.
    pub config: ServeConfig,
    /// The sources.
    pub sources: Vec<Source>,
}

/// Something that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    place: String,
    what: String,
}

/// All that is wrong; at least one.
#[derive(Debug)]
pub struct Problems(Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(|p| format!("{}: {}", p.place, p.what)).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Problems {}

/// The effective configuration.
///
/// # Errors
/// With every problem of the file, and of what comes of it together with flags and environment.
pub fn resolve(args: &ServeArgs) -> Result<Resolved, Problems> {
    let (entries, mut problems) = args.config.as_deref().map(file::read).unwrap_or_default();
    let mut resolved =
        Resolved { config: ServeConfig::default(), sources: vec![Source::Default; SETTINGS.len()] };
    let from_file = entries.into_iter().map(|entry| (entry.setting, entry.text, Source::File(entry.line)));
    let given = args.given.values().iter().cloned();
    for (setting, text, source) in from_file.chain(given) {
        // Both have been checked by the same function, so this is only for a file that changes its mind.
        if let Err(what) = (SETTINGS[setting].set)(&mut resolved.config, &text) {
            problems.push(Problem { place: SETTINGS[setting].key(), what });
        }
        resolved.sources[setting] = source;
    }
    problems.extend(resolved.config.conflicts());
    if problems.is_empty() { Ok(resolved) } else { Err(Problems(problems)) }
}

/// The settings that a file sets.
///
/// # Errors
/// With every problem, what follows from its values together included.
pub fn check_file(path: &Path) -> Result<usize, Problems> {
    let args = ServeArgs { config: Some(path.to_owned()), ..ServeArgs::default() };
    let resolved = resolve(&args)?;
    Ok(resolved.sources.iter().filter(|source| **source != Source::Default).count())
}
