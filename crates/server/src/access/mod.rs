//! Who may reach the server and what they may do there: TLS, API keys, limits, the audit log.
//!
//! Nothing here encodes, searches or stores. A request passes the guard ([`guard`]), which knows its
//! key and role, and then [`scoped`], which asks for the collection that it names. Without keys, on
//! the loopback interface, everybody on the machine may do everything, as it is with files.

mod audit;
mod caller;
mod clock;
mod guard;
mod keyfile;
mod keyring;
mod limits;
mod roles;
mod scoped;
mod tls;
mod watch;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use caller::{CallOff, Caller};
pub(crate) use guard::GuardLayer;
pub use keyfile::{KeyError, KeyRecord, NewKey, create_key, list_keys, revoke_key};
pub use limits::KeyLimits;
pub use roles::Role;
pub(crate) use scoped::Scoped;
pub(crate) use tls::Tls;
pub use tls::{TlsError, TlsOptions};

use audit::Audit;
use keyring::Keyring;
use limits::Limits;

/// Who may reach the server. The default is everybody on this machine, and nobody else.
#[derive(Debug, Clone, Default)]
pub struct AccessOptions {
    /// The file of API keys; no key is asked for when `None`.
    pub keys: Option<PathBuf>,
    /// Encryption; connections are plain when `None`.
    pub tls: Option<TlsOptions>,
    /// What each key may ask for.
    pub limits: KeyLimits,
    /// Where access to data is recorded; nowhere when `None`.
    pub audit_log: Option<PathBuf>,
}

/// Why a server is not started like this.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// Other machines could reach data.
    #[error(
        "{listen} is reachable from other machines, and this server has no {}; add {}, or listen on 127.0.0.1",
        .missing.iter().map(|(what, _)| *what).collect::<Vec<_>>().join(" and no "),
        .missing.iter().map(|(_, how)| *how).collect::<Vec<_>>().join(" and ")
    )]
    Open {
        /// Where it would listen.
        listen: SocketAddr,
        /// What is missing, and how it is given.
        missing: Vec<(&'static str, &'static str)>,
    },
    /// The keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Access could not be recorded.
    #[error("the audit log {path} cannot be written: {source}; check the path and its permissions")]
    Audit {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A bound that lets nothing through, or none that can be kept.
    #[error("{what} is {value}; it must be greater than 0")]
    Limit {
        /// Which one.
        what: &'static str,
        /// What it is.
        value: String,
    },
}

impl AccessOptions {
    /// Whether a server may listen there with these options, and whether all that they name can be
    /// used. To be asked before anything slow is done.
    ///
    /// # Errors
    /// [`AccessError`], which says what to add or mend.
    pub fn check(&self, listen: SocketAddr) -> Result<(), AccessError> {
        Gate::open(self, listen).map(|_| ())
    }

    fn check_reach(&self, listen: SocketAddr) -> Result<(), AccessError> {
        let mut missing = Vec::new();
        if self.keys.is_none() {
            missing.push((
                "authentication",
                "--keys FILE (a file made by `diptych keys create --file FILE --role admin`)",
            ));
        }
        if self.tls.is_none() {
            missing.push(("encryption", "--tls-certificate FILE --tls-key FILE"));
        }
        if listen.ip().is_loopback() || missing.is_empty() {
            return Ok(());
        }
        Err(AccessError::Open { listen, missing })
    }

    fn check_limits(&self) -> Result<(), AccessError> {
        let KeyLimits { requests_per_second, burst, in_work_max } = self.limits;
        let refuse = |what, value: String| Err(AccessError::Limit { what, value });
        match (requests_per_second, burst, in_work_max) {
            (Some(rate), ..) if !(rate.is_finite() && rate > 0.0) => {
                refuse("the rate limit per key", rate.to_string())
            }
            (_, Some(0), _) => refuse("the burst per key", "0".to_owned()),
            (.., Some(0)) => refuse("the bound on requests in work per key", "0".to_owned()),
            _ => Ok(()),
        }
    }
}

/// All that a request has to pass.
pub(crate) struct Gate {
    keys: Option<Arc<Keyring>>,
    limits: Limits,
    audit: Option<Arc<Audit>>,
    tls: Option<Arc<Tls>>,
}

impl Gate {
    pub(crate) fn open(options: &AccessOptions, listen: SocketAddr) -> Result<Self, AccessError> {
        options.check_reach(listen)?;
        options.check_limits()?;
        let audit = |path: &PathBuf| {
            Audit::open(path.clone())
                .map(Arc::new)
                .map_err(|source| AccessError::Audit { path: path.clone(), source })
        };
        Ok(Self {
            keys: options.keys.clone().map(Keyring::open).transpose()?.map(Arc::new),
            limits: Limits::new(options.limits.clone()),
            tls: options.tls.clone().map(Tls::open).transpose()?.map(Arc::new),
            audit: options.audit_log.as_ref().map(audit).transpose()?,
        })
    }

    pub(crate) fn tls(&self) -> Option<Arc<Tls>> {
        self.tls.clone()
    }

    /// The layer that puts services behind this gate; they have `timeout` to begin an answer.
    pub(crate) fn layer(self, timeout: Duration) -> GuardLayer {
        GuardLayer { gate: Arc::new(self), timeout }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn off_loopback_keys_and_tls_are_both_needed() {
        let far: SocketAddr = "0.0.0.0:7700".parse().unwrap();
        let tls = TlsOptions { certificate: "server.pem".into(), key: "server.key".into(), client_ca: None };
        let nothing = AccessOptions::default();
        let keys = AccessOptions { keys: Some("keys.toml".into()), ..nothing.clone() };
        let encrypted = AccessOptions { tls: Some(tls.clone()), ..nothing.clone() };
        let both = AccessOptions { tls: Some(tls), ..keys.clone() };
        let said = |options: &AccessOptions| options.check_reach(far).unwrap_err().to_string();
        assert!(said(&nothing).contains("no authentication and no encryption"), "{}", said(&nothing));
        assert!(said(&nothing).contains("--keys") && said(&nothing).contains("--tls-certificate"));
        assert!(!said(&keys).contains("--keys") && said(&keys).contains("--tls-certificate"));
        assert!(said(&encrypted).contains("--keys") && !said(&encrypted).contains("--tls-key"));
        assert!(both.check_reach(far).is_ok());
        for near in ["127.0.0.1:0", "127.1.2.3:7700", "[::1]:7700"] {
            assert!(nothing.check_reach(near.parse().unwrap()).is_ok(), "{near}");
        }
        for far in ["192.168.0.1:1", "[::]:7700", "[::ffff:127.0.0.1]:7700"] {
            assert!(nothing.check_reach(far.parse().unwrap()).is_err(), "{far}");
        }
    }

    #[test]
    fn limits_that_let_nothing_through_are_refused() {
        let near: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let limits = |limits| AccessOptions { limits, ..AccessOptions::default() }.check(near);
        let none = KeyLimits::default();
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let refused = limits(KeyLimits { requests_per_second: Some(rate), ..none.clone() });
            assert!(matches!(refused, Err(AccessError::Limit { .. })), "{rate}");
        }
        assert!(limits(KeyLimits { burst: Some(0), ..none.clone() }).is_err());
        assert!(limits(KeyLimits { in_work_max: Some(0), ..none.clone() }).is_err());
        assert!(limits(KeyLimits { requests_per_second: Some(0.1), ..none }).is_ok());
    }
}
