//! The keys that a running server takes: the file of keys, read again when it changes.
//!
//! Deliberately absent: what a key may do, which is asked elsewhere; and changes to the file.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Instant, SystemTime};

use tonic::Status;

use super::clock;
use super::keyfile::{self, KeyError, KeyRecord};
use super::watch::Watch;

/// Why nobody is let in.
#[derive(Debug)]
pub(super) enum Rejected {
    /// There is no key in the request.
    Absent,
    /// There is something else than one key.
    Malformed,
    /// No such key, or not its secret.
    Unknown,
    /// A key that was good once.
    Expired(Arc<KeyRecord>),
    /// A key that was taken back.
    Revoked(Arc<KeyRecord>),
}

impl Rejected {
    /// The key, if it was shown to be known.
    pub(super) fn key(&self) -> Option<&Arc<KeyRecord>> {
        match self {
            Self::Expired(key) | Self::Revoked(key) => Some(key),
            Self::Absent | Self::Malformed | Self::Unknown => None,
        }
    }

    pub(super) fn status(&self) -> Status {
        const MAKE: &str = "an administrator makes one with `diptych keys create`";
        Status::unauthenticated(match self {
            Self::Absent => {
                format!("this server needs an API key: send it as `authorization: Bearer KEY`; {MAKE}")
            }
            Self::Malformed => {
                format!("the authorization is not one `Bearer KEY` with a key of this server; {MAKE}")
            }
            Self::Unknown => {
                format!("the API key is none of this server's; check that it is whole and current; {MAKE}")
            }
            Self::Expired(key) => format!(
                "the API key '{}' has expired ({}); {MAKE}",
                key.name,
                clock::to_text(key.expires.unwrap_or(SystemTime::UNIX_EPOCH))
            ),
            Self::Revoked(key) => format!("the API key '{}' has been revoked; {MAKE}", key.name),
        })
    }
}

/// A key that was shown, and where to see whether it is still good.
#[derive(Clone)]
pub(super) struct Badge {
    pub(super) key: Arc<KeyRecord>,
    pub(super) ring: Arc<Keyring>,
}

impl Badge {
    /// Whether the key is still good, for what takes long.
    pub(super) fn still_good(&self, now: SystemTime) -> Result<(), Rejected> {
        self.ring.refresh(Instant::now());
        good(self.ring.keys().get(&self.key.id).ok_or(Rejected::Unknown)?, now)
    }
}

pub(super) struct Keyring {
    path: PathBuf,
    watch: Mutex<Watch>,
    by_id: RwLock<Arc<HashMap<String, Arc<KeyRecord>>>>,
}

impl Keyring {
    pub(super) fn open(path: PathBuf) -> Result<Self, KeyError> {
        let watch = Watch::new(vec![path.clone()], Instant::now());
        let keys = by_id(keyfile::read(&path)?);
        Ok(Self { path, watch: Mutex::new(watch), by_id: RwLock::new(Arc::new(keys)) })
    }

    /// The key that the value of `authorization` shows.
    pub(super) fn authenticate(
        &self,
        authorization: &str,
        now: SystemTime,
    ) -> Result<Arc<KeyRecord>, Rejected> {
        self.refresh(Instant::now());
        let (scheme, key) = authorization.split_once(' ').ok_or(Rejected::Malformed)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Rejected::Malformed);
        }
        let (id, secret) = keyfile::parse_key(key.trim()).ok_or(Rejected::Malformed)?;
        let keys = self.keys();
        let key = keys.get(id).filter(|key| key.is_secret(&secret)).ok_or(Rejected::Unknown)?;
        good(key, now).map(|()| Arc::clone(key))
    }

    fn keys(&self) -> Arc<HashMap<String, Arc<KeyRecord>>> {
        Arc::clone(&self.by_id.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the file again when it has changed. One that cannot be read changes nothing: who could
    /// damage the file should not be able to lock everybody out by that.
    fn refresh(&self, now: Instant) {
        // Whoever is looking just now looks for all.
        let Ok(mut watch) = self.watch.try_lock() else { return };
        if !watch.changed(now) {
            return;
        }
        match keyfile::read(&self.path) {
            Ok(records) => {
                tracing::info!(keys = records.len(), "the file of keys has changed and was read again");
                *self.by_id.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(by_id(records));
            }
            Err(error) => {
                tracing::error!(%error, "the file of keys has changed and cannot be read; the keys read before stay in force");
                watch.distrust();
            }
        }
    }
}

fn good(key: &Arc<KeyRecord>, now: SystemTime) -> Result<(), Rejected> {
    if key.revoked.is_some() {
        return Err(Rejected::Revoked(Arc::clone(key)));
    }
    if key.expires.is_some_and(|expires| now >= expires) {
        return Err(Rejected::Expired(Arc::clone(key)));
    }
    Ok(())
}

fn by_id(records: Vec<KeyRecord>) -> HashMap<String, Arc<KeyRecord>> {
    records.into_iter().map(|record| (record.id.clone(), Arc::new(record))).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::super::keyfile::{NewKey, create_key, revoke_key};
    use super::super::roles::Role;
    use super::super::watch::INTERVAL;
    use super::*;

    fn new(name: &str, days: Option<u64>) -> NewKey {
        let lifetime = days.map(|days| Duration::from_secs(days * 86_400));
        NewKey { role: Role::Read, collections: None, name: Some(name.to_owned()), lifetime }
    }

    #[test]
    fn a_key_is_good_until_it_expires() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.toml");
        let (record, key) = create_key(&path, new("a", Some(1))).unwrap();
        let ring = Keyring::open(path).unwrap();
        let expires = record.expires.unwrap();
        let bearer = format!("Bearer {key}");
        let before = expires - Duration::from_secs(1);
        assert_eq!(ring.authenticate(&bearer, before).unwrap().name, "a");
        assert!(ring.authenticate(&format!("bearer  {key}"), before).is_ok());
        // The file keeps milliseconds.
        let after = expires + Duration::from_millis(1);
        let rejected = ring.authenticate(&bearer, after).unwrap_err();
        assert!(matches!(&rejected, Rejected::Expired(_)) && rejected.key().unwrap().name == "a");
        assert!(rejected.status().message().contains("has expired"));
    }

    #[test]
    fn another_secret_another_id_and_another_scheme_are_rejected() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.toml");
        let (_, key) = create_key(&path, new("a", None)).unwrap();
        let (_, other) = create_key(&path, new("b", None)).unwrap();
        let ring = Keyring::open(path).unwrap();
        let parts = |key: &str| key.split('_').map(str::to_owned).collect::<Vec<_>>();
        let (mine, others) = (parts(&key), parts(&other));
        let mixed = format!("Bearer diptych_{}_{}", mine[1], others[2]);
        let now = SystemTime::now();
        assert!(matches!(ring.authenticate(&mixed, now), Err(Rejected::Unknown)));
        let nobody = format!("Bearer diptych_000000000000_{}", mine[2]);
        assert!(matches!(ring.authenticate(&nobody, now), Err(Rejected::Unknown)));
        for malformed in [key.clone(), format!("Basic {key}"), "Bearer".to_owned(), "Bearer ".to_owned()] {
            assert!(matches!(ring.authenticate(&malformed, now), Err(Rejected::Malformed)), "{malformed}");
        }
        let message = Rejected::Unknown.status().message().to_owned();
        assert!(!message.contains(&mine[2]), "{message}");
    }

    #[test]
    fn the_file_is_read_again_when_it_changes_and_a_damaged_one_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.toml");
        let (_, old) = create_key(&path, new("old", None)).unwrap();
        let ring = Keyring::open(path.clone()).unwrap();
        let (start, now) = (Instant::now(), SystemTime::now());
        let good = |key: &str| ring.authenticate(&format!("Bearer {key}"), now).is_ok();

        let (_, young) = create_key(&path, new("young", None)).unwrap();
        revoke_key(&path, "old").unwrap();
        ring.refresh(start + 2 * INTERVAL);
        assert!(good(&young) && !good(&old));

        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, "not = [a file of keys").unwrap();
        ring.refresh(start + 4 * INTERVAL);
        assert!(good(&young) && !good(&old), "what was read before is in force");
        std::fs::write(&path, text.replace("revoked", "expires")).unwrap();
        ring.refresh(start + 6 * INTERVAL);
        assert!(good(&young), "and the next good one is read");
        let rejected = ring.authenticate(&format!("Bearer {old}"), now + Duration::from_secs(60));
        assert!(matches!(rejected, Err(Rejected::Expired(_))));
    }
}
