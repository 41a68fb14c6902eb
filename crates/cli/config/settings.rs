//! Every setting of `diptych serve`: its names, its bounds, where it goes. A new one is a row here.
//!
//! A row is all there is to a setting: the flag, the variable, the key of the file, the help and the
//! lines of `config print` are made from it. The reading of values is in `values`.

use std::path::Path;

use super::values::{address, log_format, parsed, rate, seconds, share, switch, whole, words};
use super::{LogFormat, ServeConfig};
use crate::args::MODEL_HELP;

/// How a value is written in the file, and what a shell may complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A text in quotes.
    Text,
    /// A text in quotes that is a path; in a file, relative to that file.
    Path,
    /// As [`Kind::Path`], or the name of a model.
    Model,
    /// A number.
    Number,
    /// `true` or `false`; its flag may stand alone.
    Switch,
}

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// The table of the file that it is in; empty for the top of the file.
    pub section: &'static str,
    /// Its name there.
    pub name: &'static str,
    /// Its flag, without the hyphens.
    pub flag: &'static str,
    /// Its environment variable.
    pub env: &'static str,
    /// What stands for the value in help.
    pub value: &'static str,
    /// How it is written.
    pub kind: Kind,
    /// What it is for.
    pub help: &'static str,
    /// Checks a value and sets it.
    pub set: fn(&mut ServeConfig, &str) -> Result<(), String>,
    /// The value that is set.
    pub show: fn(&ServeConfig) -> Option<String>,
}

impl Setting {
    /// Its full name in the file, such as `server.listen`.
    pub fn key(&self) -> String {
        if self.section.is_empty() { self.name.to_owned() } else { format!("{}.{}", self.section, self.name) }
    }

    /// The value that counts when nobody says otherwise.
    pub fn default(&self) -> Option<String> {
        (self.show)(&ServeConfig::default())
    }
}

/// All of them, a table's together.
pub const SETTINGS: &[Setting] = &[
    Setting {
        section: "",
        name: "data",
        flag: "data",
        env: "DIPTYCH_DATA",
        value: "DIR",
        kind: Kind::Path,
        help: "Data directory; created when absent",
        set: |config, text| {
            config.data = Some(words(text)?.into());
            Ok(())
        },
        show: |config| path(config.data.as_deref()),
    },
    Setting {
        section: "",
        name: "model",
        flag: "model",
        env: "DIPTYCH_MODEL",
        value: "MODEL_DIR",
        kind: Kind::Model,
        help: MODEL_HELP,
        set: |config, text| {
            config.model = Some(words(text)?.into());
            Ok(())
        },
        show: |config| path(config.model.as_deref()),
    },
    Setting {
        section: "",
        name: "precision",
        flag: "precision",
        env: "DIPTYCH_PRECISION",
        value: "f32|int8",
        kind: Kind::Text,
        help: "How the model computes: f32, or int8, which is faster and gives embeddings that differ a little",
        set: |config, text| {
            config.precision = parsed(text)?;
            Ok(())
        },
        show: |config| Some(config.precision.to_string()),
    },
    Setting {
        section: "server",
        name: "listen",
        flag: "listen",
        env: "DIPTYCH_LISTEN",
        value: "ADDRESS",
        kind: Kind::Text,
        help: "Address to listen on; off loopback only with --keys, --tls-certificate and --tls-key",
        set: |config, text| {
            config.listen = address(text)?;
            Ok(())
        },
        show: |config| Some(config.listen.to_string()),
    },
    Setting {
        section: "server",
        name: "connections_max",
        flag: "connections-max",
        env: "DIPTYCH_CONNECTIONS_MAX",
        value: "N",
        kind: Kind::Number,
        help: "Open connections; one more is closed at once",
        set: |config, text| {
            config.server.connections_max = whole(text, 1, 65_536)?;
            Ok(())
        },
        show: |config| Some(config.server.connections_max.to_string()),
    },
    Setting {
        section: "server",
        name: "streams_per_connection_max",
        flag: "streams-per-connection-max",
        env: "DIPTYCH_STREAMS_PER_CONNECTION_MAX",
        value: "N",
        kind: Kind::Number,
        help: "Requests at once on one connection; further ones wait at the client",
        set: |config, text| {
            config.server.streams_per_connection_max = whole(text, 1, 1024)?;
            Ok(())
        },
        show: |config| Some(config.server.streams_per_connection_max.to_string()),
    },
    Setting {
        section: "server",
        name: "requests_max",
        flag: "requests-max",
        env: "DIPTYCH_REQUESTS_MAX",
        value: "N",
        kind: Kind::Number,
        help: "Requests in work; one more is refused",
        set: |config, text| {
            config.server.requests_max = whole(text, 1, 65_536)?;
            Ok(())
        },
        show: |config| Some(config.server.requests_max.to_string()),
    },
    Setting {
        section: "server",
        name: "timeout_seconds",
        flag: "timeout-seconds",
        env: "DIPTYCH_TIMEOUT_SECONDS",
        value: "S",
        kind: Kind::Number,
        help: "Longest time to the first byte of an answer",
        set: |config, text| {
            config.server.timeout = seconds(text, 0.001, 86_400.0)?;
            Ok(())
        },
        show: |config| Some(config.server.timeout.as_secs_f64().to_string()),
    },
    Setting {
        section: "tls",
        name: "certificate",
        flag: "tls-certificate",
        env: "DIPTYCH_TLS_CERTIFICATE",
        value: "FILE",
        kind: Kind::Path,
        help: "The server's certificate and those that lead to a root, PEM; read again when it changes",
        set: |config, text| {
            config.tls.certificate = Some(words(text)?.into());
            Ok(())
        },
        show: |config| path(config.tls.certificate.as_deref()),
    },
    Setting {
        section: "tls",
        name: "key",
        flag: "tls-key",
        env: "DIPTYCH_TLS_KEY",
        value: "FILE",
        kind: Kind::Path,
        help: "The certificate's private key, PEM",
        set: |config, text| {
            config.tls.key = Some(words(text)?.into());
            Ok(())
        },
        show: |config| path(config.tls.key.as_deref()),
    },
    Setting {
        section: "tls",
        name: "client_ca",
        flag: "tls-client-ca",
        env: "DIPTYCH_TLS_CLIENT_CA",
        value: "FILE",
        kind: Kind::Path,
        help: "Let in only clients with a certificate signed by one of these, PEM",
        set: |config, text| {
            config.tls.client_ca = Some(words(text)?.into());
            Ok(())
        },
        show: |config| path(config.tls.client_ca.as_deref()),
    },
    Setting {
        section: "access",
        name: "keys",
        flag: "keys",
        env: "DIPTYCH_KEYS",
        value: "FILE",
        kind: Kind::Path,
        help: "File of API keys, made by `diptych keys create`; read again when it changes",
        set: |config, text| {
            config.server.access.keys = Some(words(text)?.into());
            Ok(())
        },
        show: |config| path(config.server.access.keys.as_deref()),
    },
    Setting {
        section: "access",
        name: "rate_limit",
        flag: "rate-limit",
        env: "DIPTYCH_RATE_LIMIT",
        value: "N",
        kind: Kind::Number,
        help: "Requests per second of each key, on average; no limit unless told",
        set: |config, text| {
            config.server.access.limits.requests_per_second = Some(rate(text)?);
            Ok(())
        },
        show: |config| config.server.access.limits.requests_per_second.map(|n| n.to_string()),
    },
    Setting {
        section: "access",
        name: "rate_burst",
        flag: "rate-burst",
        env: "DIPTYCH_RATE_BURST",
        value: "N",
        kind: Kind::Number,
        help: "Requests of each key that may come at once after a pause; those of a second unless told",
        set: |config, text| {
            config.server.access.limits.burst = Some(whole(text, 1, 1_000_000)?);
            Ok(())
        },
        show: |config| config.server.access.limits.burst.map(|n| n.to_string()),
    },
    Setting {
        section: "access",
        name: "key_concurrency",
        flag: "key-concurrency",
        env: "DIPTYCH_KEY_CONCURRENCY",
        value: "N",
        kind: Kind::Number,
        help: "Requests of each key in work at a time, a stream being one; no limit unless told",
        set: |config, text| {
            config.server.access.limits.in_work_max = Some(whole(text, 1, 65_536)?);
            Ok(())
        },
        show: |config| config.server.access.limits.in_work_max.map(|n| n.to_string()),
    },
    Setting {
        section: "access",
        name: "audit_log",
        flag: "audit-log",
        env: "DIPTYCH_AUDIT_LOG",
        value: "FILE",
        kind: Kind::Path,
        help: "Record every access to data here, as JSON lines without content; what cannot be recorded is refused",
        set: |config, text| {
            config.server.access.audit_log = Some(words(text)?.into());
            Ok(())
        },
        show: |config| path(config.server.access.audit_log.as_deref()),
    },
    Setting {
        section: "shutdown",
        name: "drain_notice",
        flag: "drain-notice",
        env: "DIPTYCH_DRAIN_NOTICE",
        value: "SECONDS",
        kind: Kind::Number,
        help: "How long to go on serving while health says NOT_SERVING, when told to stop",
        set: |config, text| {
            config.server.drain_notice = seconds(text, 0.0, 3600.0)?;
            Ok(())
        },
        show: |config| Some(config.server.drain_notice.as_secs_f64().to_string()),
    },
    Setting {
        section: "shutdown",
        name: "drain_time",
        flag: "drain-time",
        env: "DIPTYCH_DRAIN_TIME",
        value: "SECONDS",
        kind: Kind::Number,
        help: "How long requests in work have to finish after that",
        set: |config, text| {
            config.server.drain_time = seconds(text, 0.0, 3600.0)?;
            Ok(())
        },
        show: |config| Some(config.server.drain_time.as_secs_f64().to_string()),
    },
    Setting {
        section: "engine",
        name: "waiting_searches_max",
        flag: "waiting-searches-max",
        env: "DIPTYCH_WAITING_SEARCHES_MAX",
        value: "N",
        kind: Kind::Number,
        help: "Searches that may wait for the model; one more is refused",
        set: |config, text| {
            config.engine.waiting_searches_max = whole(text, 1, 65_536)?;
            Ok(())
        },
        show: |config| Some(config.engine.waiting_searches_max.to_string()),
    },
    Setting {
        section: "engine",
        name: "waiting_ingests_max",
        flag: "waiting-ingests-max",
        env: "DIPTYCH_WAITING_INGESTS_MAX",
        value: "N",
        kind: Kind::Number,
        help: "Ingest batches that may wait for the model; the sender of one more waits",
        set: |config, text| {
            config.engine.waiting_ingests_max = whole(text, 1, 1024)?;
            Ok(())
        },
        show: |config| Some(config.engine.waiting_ingests_max.to_string()),
    },
    Setting {
        section: "engine",
        name: "batch_positions",
        flag: "batch-positions",
        env: "DIPTYCH_BATCH_POSITIONS",
        value: "N",
        kind: Kind::Number,
        help: "Patches and tokens that go through the model at once; more is more throughput and longer waits",
        set: |config, text| {
            config.engine.batch_positions = whole(text, 1, 1 << 20)?;
            Ok(())
        },
        show: |config| Some(config.engine.batch_positions.to_string()),
    },
    Setting {
        section: "engine",
        name: "query_cache_entries",
        flag: "query-cache-entries",
        env: "DIPTYCH_QUERY_CACHE_ENTRIES",
        value: "N",
        kind: Kind::Number,
        help: "Query texts whose embeddings are kept; 0 for none",
        set: |config, text| {
            config.engine.query_cache_entries = whole(text, 0, 1 << 24)?;
            Ok(())
        },
        show: |config| Some(config.engine.query_cache_entries.to_string()),
    },
    Setting {
        section: "engine",
        name: "query_cache_bytes",
        flag: "query-cache-bytes",
        env: "DIPTYCH_QUERY_CACHE_BYTES",
        value: "BYTES",
        kind: Kind::Number,
        help: "Memory for these embeddings; 0 for none",
        set: |config, text| {
            config.engine.query_cache_bytes = whole(text, 0, 1 << 36)?;
            Ok(())
        },
        show: |config| Some(config.engine.query_cache_bytes.to_string()),
    },
    Setting {
        section: "engine",
        name: "thumbnail_side",
        flag: "thumbnail-side",
        env: "DIPTYCH_THUMBNAIL_SIDE",
        value: "PIXELS",
        kind: Kind::Number,
        help: "Longer side of the small pictures that are kept of images from now on; 0 for none",
        set: |config, text| {
            config.engine.thumbnail_side = whole(text, 0, 512)?;
            Ok(())
        },
        show: |config| Some(config.engine.thumbnail_side.to_string()),
    },
    Setting {
        section: "recall",
        name: "sample",
        flag: "recall-sample",
        env: "DIPTYCH_RECALL_SAMPLE",
        value: "0..1",
        kind: Kind::Number,
        help: "Share of searches that is repeated exactly in the background, to measure recall; 0 for none",
        set: |config, text| {
            config.engine.recall.sample = share(text)?;
            Ok(())
        },
        show: |config| Some(config.engine.recall.sample.to_string()),
    },
    Setting {
        section: "recall",
        name: "busy",
        flag: "recall-busy",
        env: "DIPTYCH_RECALL_BUSY",
        value: "0..1",
        kind: Kind::Number,
        help: "Share of one core's time that these repeats may take",
        set: |config, text| {
            config.engine.recall.busy_max = share(text)?;
            Ok(())
        },
        show: |config| Some(config.engine.recall.busy_max.to_string()),
    },
    Setting {
        section: "recall",
        name: "waiting_max",
        flag: "recall-waiting-max",
        env: "DIPTYCH_RECALL_WAITING_MAX",
        value: "N",
        kind: Kind::Number,
        help: "Searches that may wait to be repeated; one more is not",
        set: |config, text| {
            config.engine.recall.waiting_max = whole(text, 1, 65_536)?;
            Ok(())
        },
        show: |config| Some(config.engine.recall.waiting_max.to_string()),
    },
    Setting {
        section: "recall",
        name: "window",
        flag: "recall-window",
        env: "DIPTYCH_RECALL_WINDOW",
        value: "N",
        kind: Kind::Number,
        help: "Latest repeated searches that the reported recall is the mean of",
        set: |config, text| {
            config.engine.recall.window = whole(text, 1, 1 << 20)?;
            Ok(())
        },
        show: |config| Some(config.engine.recall.window.to_string()),
    },
    Setting {
        section: "metrics",
        name: "listen",
        flag: "metrics-listen",
        env: "DIPTYCH_METRICS_LISTEN",
        value: "ADDRESS",
        kind: Kind::Text,
        help: "Address to serve Prometheus metrics on, such as 127.0.0.1:9770; none when absent",
        set: |config, text| {
            config.metrics_listen = Some(address(text)?);
            Ok(())
        },
        show: |config| config.metrics_listen.map(|address| address.to_string()),
    },
    Setting {
        section: "metrics",
        name: "remote",
        flag: "metrics-remote",
        env: "DIPTYCH_METRICS_REMOTE",
        value: "true|false",
        kind: Kind::Switch,
        help: "Whether that address may be reachable from other machines: metrics are for whoever asks",
        set: |config, text| {
            config.metrics_remote = switch(text)?;
            Ok(())
        },
        show: |config| Some(config.metrics_remote.to_string()),
    },
    Setting {
        section: "log",
        name: "format",
        flag: "log-format",
        env: "DIPTYCH_LOG_FORMAT",
        value: "text|json",
        kind: Kind::Text,
        help: "How log lines are written; which ones is up to RUST_LOG, such as RUST_LOG=debug",
        set: |config, text| {
            config.log_format = log_format(text)?;
            Ok(())
        },
        show: |config| {
            let format = if config.log_format == LogFormat::Json { "json" } else { "text" };
            Some(format.to_owned())
        },
    },
    Setting {
        section: "log",
        name: "slow_seconds",
        flag: "log-slow-seconds",
        env: "DIPTYCH_LOG_SLOW_SECONDS",
        value: "S",
        kind: Kind::Number,
        help: "Requests that take longer are logged with the time of each stage; 0 for none",
        set: |config, text| {
            config.server.slow = Some(seconds(text, 0.0, 86_400.0)?).filter(|slow| !slow.is_zero());
            Ok(())
        },
        show: |config| Some(config.server.slow.unwrap_or_default().as_secs_f64().to_string()),
    },
];

fn path(path: Option<&Path>) -> Option<String> {
    path.map(|path| path.display().to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_follow_one_rule_and_no_two_settings_share_one() {
        let mut seen = std::collections::HashSet::new();
        for setting in SETTINGS {
            let flag = setting.flag.to_uppercase().replace('-', "_");
            assert_eq!(setting.env, format!("DIPTYCH_{flag}"), "{}", setting.key());
            let name = setting.name.replace('_', "-");
            let within = format!("{}-{name}", setting.section);
            assert!(setting.flag == name || setting.flag == within, "{}", setting.flag);
            assert!(seen.insert(setting.flag) && seen.insert(setting.env), "{} twice", setting.flag);
        }
        let sections: Vec<_> = SETTINGS.iter().map(|s| s.section).collect();
        let mut distinct = sections.clone();
        distinct.dedup();
        let all: std::collections::HashSet<_> = sections.iter().collect();
        assert_eq!(distinct.len(), all.len(), "a table's settings stand together");
    }

    #[test]
    fn the_page_on_configuration_has_a_row_for_every_setting_and_no_other() {
        let page = include_str!("../../../docs/configuration.md");
        let rows = page.lines().filter(|line| line.starts_with("| `")).map(|line| {
            let cells: Vec<&str> = line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
            [cells[1], cells[2], cells[3]].map(str::to_owned)
        });
        let settings = SETTINGS.iter().map(|setting| {
            let default = setting.default().unwrap_or_else(|| "none".to_owned());
            [setting.key(), format!("--{}", setting.flag), default]
        });
        assert_eq!(rows.collect::<Vec<_>>(), settings.collect::<Vec<_>>());
    }

    #[test]
    fn every_default_is_within_its_own_bounds_and_comes_back_as_it_was() {
        for setting in SETTINGS {
            let Some(default) = setting.default() else { continue };
            let mut config = ServeConfig::default();
            (setting.set)(&mut config, &default).unwrap();
            assert_eq!((setting.show)(&config), Some(default), "{}", setting.key());
        }
    }

    #[test]
    fn every_setting_sets_what_it_shows_and_nothing_else() {
        for (at, setting) in SETTINGS.iter().enumerate() {
            let other = match setting.kind {
                Kind::Switch => "true",
                Kind::Number => "1",
                Kind::Path | Kind::Model => "elsewhere",
                Kind::Text if setting.name == "listen" => "127.0.0.1:1",
                Kind::Text if setting.name == "precision" => "int8",
                Kind::Text => "json",
            };
            let mut config = ServeConfig::default();
            (setting.set)(&mut config, other).unwrap();
            for (n, shown) in SETTINGS.iter().enumerate() {
                let expected = if n == at { Some(other.to_owned()) } else { shown.default() };
                assert_eq!((shown.show)(&config), expected, "{} shows in {}", setting.key(), shown.key());
            }
        }
    }

    #[test]
    fn numbers_out_of_bounds_are_refused() {
        for setting in SETTINGS.iter().filter(|s| s.kind == Kind::Number) {
            for wrong in ["-1", "1e30", "nan", "", "ten", "99999999999999999999"] {
                let refused = (setting.set)(&mut ServeConfig::default(), wrong).unwrap_err();
                assert!(refused.contains("use ") && refused.contains(wrong), "{}: {refused}", setting.key());
            }
        }
    }
}
