//! The file of API keys: what is in it, and the three changes that the command line makes to it.
//!
//! A key is shown once, when it is made; the file has only its hash. The secret of a key is 256
//! random bits, so one pass of BLAKE3 is enough: slow, salted hashes protect words that people
//! choose, of which there are few enough to try them all, and nobody tries 2^256.
//! Deliberately absent: what a running server makes of the file, which is in `keyring`.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use diptych_core::CollectionName;
use serde::{Deserialize, Serialize};

use super::clock;
use super::roles::Role;

/// What a key begins with, so that people and scanners for leaked secrets know one when they see it.
const PREFIX: &str = "diptych";
const ID_BYTES: usize = 6;
const SECRET_BYTES: usize = 32;
const NAME_BYTES_MAX: usize = 64;

/// Why keys cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is no file.
    #[error(
        "there is no file of keys {path}; make one with `diptych keys create --file {path} --role admin`"
    )]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The file cannot be read or written.
    #[error("the file of keys {path} cannot be used: {source}; check the path and its permissions")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file says something that no file of keys says.
    #[error("the file of keys {path} is damaged: {problem}; mend it by hand or restore an older one")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Others could add keys.
    #[error("the file of keys {path} can be written by others (mode {mode:04o}); run `chmod 600 {path}`")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A name that keys cannot have.
    #[error(
        "'{name}' is no name for a key; use 1 to {NAME_BYTES_MAX} letters, digits, '_', '-', '.' and '@'"
    )]
    Name {
        /// What was asked for.
        name: String,
    },
    /// Another key has the name.
    #[error("there is a key '{name}' already; choose another name, or revoke that one first")]
    Taken {
        /// What was asked for.
        name: String,
    },
    /// No such key.
    #[error("there is no key '{which}' that could be revoked; `diptych keys list` shows those there are")]
    Unknown {
        /// What was asked for.
        which: String,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers to make a key of; try again later")]
    Random,
}

/// A key as the file has it: everything but the key.
#[derive(Debug, Clone)]
pub struct KeyRecord {
    /// Twelve hexadecimal digits, the second part of the key.
    pub id: String,
    /// What people and logs call it.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The collections it is for; all when `None`.
    pub collections: Option<Vec<CollectionName>>,
    /// When it was made.
    pub created: SystemTime,
    /// From when on it is refused.
    pub expires: Option<SystemTime>,
    /// Since when it is refused.
    pub revoked: Option<SystemTime>,
    hash: blake3::Hash,
}

impl KeyRecord {
    /// Whether this is the secret of the key. Takes the same time wherever the two differ.
    pub(super) fn is_secret(&self, secret: &[u8; SECRET_BYTES]) -> bool {
        // The comparison of hashes of this library is one in constant time, by contract.
        blake3::hash(secret) == self.hash
    }

    /// As text for people: the day from when on the key is refused.
    pub fn expires_text(&self) -> Option<String> {
        self.expires.map(clock::to_text)
    }

    /// As text for people: since when the key is refused.
    pub fn revoked_text(&self) -> Option<String> {
        self.revoked.map(clock::to_text)
    }

    /// As text for people: when the key was made.
    pub fn created_text(&self) -> String {
        clock::to_text(self.created)
    }
}

/// What a key to be made is to be.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// What it may do.
    pub role: Role,
    /// The collections it is for; all when `None`.
    pub collections: Option<Vec<CollectionName>>,
    /// What to call it; by its id when `None`.
    pub name: Option<String>,
    /// How long it is good for; forever when `None`.
    pub lifetime: Option<Duration>,
}

/// Makes a key, adds it to the file, which is made when there is none, and returns the record and
/// the key itself, which nobody can get again.
///
/// # Errors
/// [`KeyError`] when the name is taken or no name, or when the file cannot be read or written.
pub fn create_key(path: &Path, new: NewKey) -> Result<(KeyRecord, String), KeyError> {
    let _lock = lock(path)?;
    let mut records = match read(path) {
        Err(KeyError::Missing { .. }) => Vec::new(),
        read => read?,
    };
    let mut random = [0; ID_BYTES + SECRET_BYTES];
    let provider = rustls::crypto::ring::default_provider();
    provider.secure_random.fill(&mut random).map_err(|_| KeyError::Random)?;
    let (id, secret) = random.split_at(ID_BYTES);
    let id = hex(id);
    let name = new.name.unwrap_or_else(|| id.clone());
    check_name(&name)?;
    if records.iter().any(|r| r.id == id || (r.name == name && r.revoked.is_none())) {
        return Err(KeyError::Taken { name });
    }
    let created = SystemTime::now();
    let record = KeyRecord {
        name,
        role: new.role,
        collections: new.collections,
        created,
        expires: new.lifetime.map(|lifetime| created + lifetime),
        revoked: None,
        hash: blake3::hash(secret),
        id,
    };
    records.push(record.clone());
    write(path, &records)?;
    let key = format!("{PREFIX}_{}_{}", record.id, hex(secret));
    Ok((record, key))
}

/// The keys of a file, in the order in which they were made.
///
/// # Errors
/// [`KeyError`] when the file cannot be read.
pub fn list_keys(path: &Path) -> Result<Vec<KeyRecord>, KeyError> {
    read(path)
}

/// Revokes the key of that name or id; it stays in the file, so that its name stays known.
///
/// # Errors
/// [`KeyError::Unknown`] when there is none that is not revoked yet; others when the file cannot be
/// read or written.
pub fn revoke_key(path: &Path, which: &str) -> Result<KeyRecord, KeyError> {
    let _lock = lock(path)?;
    let mut records = read(path)?;
    let record = records
        .iter_mut()
        .find(|r| r.revoked.is_none() && (r.name == which || r.id == which))
        .ok_or_else(|| KeyError::Unknown { which: which.to_owned() })?;
    record.revoked = Some(SystemTime::now());
    let record = record.clone();
    write(path, &records)?;
    Ok(record)
}

/// The id and the secret that a key is made of.
pub(super) fn parse_key(key: &str) -> Option<(&str, [u8; SECRET_BYTES])> {
    let (id, secret) = key.strip_prefix(PREFIX)?.strip_prefix('_')?.split_once('_')?;
    Some((id, unhex(secret)?))
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default, rename = "key", skip_serializing_if = "Vec::is_empty")]
    keys: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    name: String,
    role: Role,
    /// Absent for all; a list that is there and empty is for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    collections: Option<Vec<String>>,
    hash: String,
    created: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revoked: Option<String>,
}

impl From<&KeyRecord> for Entry {
    fn from(record: &KeyRecord) -> Self {
        let names = |names: &Vec<CollectionName>| names.iter().map(ToString::to_string).collect();
        Self {
            id: record.id.clone(),
            name: record.name.clone(),
            role: record.role,
            collections: record.collections.as_ref().map(names),
            hash: record.hash.to_hex().to_string(),
            created: record.created_text(),
            expires: record.expires_text(),
            revoked: record.revoked_text(),
        }
    }
}

impl TryFrom<Entry> for KeyRecord {
    type Error = String;

    fn try_from(entry: Entry) -> Result<Self, String> {
        let moment = |text: String| {
            clock::from_text(&text).ok_or_else(|| format!("'{text}' is no time like 2026-11-23T22:15:00Z"))
        };
        let names = |names: Vec<String>| {
            names
                .into_iter()
                .map(CollectionName::new)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|e| e.to_string())
        };
        check_name(&entry.name).map_err(|e| e.to_string())?;
        let hash = unhex(&entry.hash).ok_or_else(|| format!("key '{}' has no proper hash", entry.name))?;
        Ok(Self {
            role: entry.role,
            collections: entry.collections.map(names).transpose()?,
            created: moment(entry.created)?,
            expires: entry.expires.map(moment).transpose()?,
            revoked: entry.revoked.map(moment).transpose()?,
            hash: blake3::Hash::from_bytes(hash),
            id: entry.id,
            name: entry.name,
        })
    }
}

fn check_name(name: &str) -> Result<(), KeyError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_-.@".contains(c);
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(fits) {
        return Ok(());
    }
    Err(KeyError::Name { name: name.to_owned() })
}

/// Reads the whole file and checks every entry.
pub(super) fn read(path: &Path) -> Result<Vec<KeyRecord>, KeyError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => KeyError::Missing { path: path.to_owned() },
        _ => KeyError::Io { path: path.to_owned(), source },
    };
    let damaged = |problem: String| KeyError::Damaged { path: path.to_owned(), problem };
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o7777;
    // Reading it gives no key to anyone; writing it does.
    if mode & 0o022 != 0 {
        return Err(KeyError::Exposed { path: path.to_owned(), mode });
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    // Only the message: the error as a whole quotes the line, which may be a hash.
    let document: Document = toml::from_str(&text).map_err(|e| damaged(e.message().to_owned()))?;
    let records: Vec<KeyRecord> =
        document.keys.into_iter().map(KeyRecord::try_from).collect::<Result<_, _>>().map_err(damaged)?;
    for (at, record) in records.iter().enumerate() {
        if records[..at].iter().any(|other| other.id == record.id) {
            return Err(damaged(format!("two keys have the id '{}'", record.id)));
        }
    }
    Ok(records)
}

/// Replaces the file in one step: whoever reads it meanwhile sees the old one or the new one.
fn write(path: &Path, records: &[KeyRecord]) -> Result<(), KeyError> {
    let document = Document { keys: records.iter().map(Entry::from).collect() };
    let mut text = String::from(
        "# API keys of Diptych, kept by `diptych keys`. Only hashes: the keys were shown when they were made.\n\n",
    );
    text.push_str(&toml::to_string(&document).expect("a document of strings can be written"));
    let failed = |source| KeyError::Io { path: path.to_owned(), source };
    let new = path.with_extension("toml.new");
    // Left behind by a run that was killed, if it is there.
    let _ = fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(failed)?;
    if let Ok(old) = fs::metadata(path) {
        // A server that may read the old file must be able to read the new one.
        let mine = file.metadata().map_err(failed)?;
        if (mine.uid(), mine.gid()) != (old.uid(), old.gid()) {
            fchown(&file, Some(old.uid()), Some(old.gid())).map_err(failed)?;
        }
        file.set_permissions(old.permissions()).map_err(failed)?;
    }
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&new, path).map_err(failed)?;
    File::open(folder(path)).and_then(|dir| dir.sync_all()).map_err(failed)
}

/// Keeps other changes out for as long as it is held. The folder is locked, since the file itself is
/// replaced.
fn lock(path: &Path) -> Result<File, KeyError> {
    let folder = File::open(folder(path)).and_then(|dir| dir.lock().map(|()| dir));
    folder.map_err(|source| KeyError::Io { path: path.to_owned(), source })
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes what is written to it");
        text
    })
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn new(name: &str) -> NewKey {
        NewKey { role: Role::Write, collections: None, name: Some(name.to_owned()), lifetime: None }
    }

    #[test]
    fn a_key_is_made_listed_and_revoked_and_its_secret_is_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.toml");
        assert!(matches!(list_keys(&path), Err(KeyError::Missing { .. })));
        let cases = vec![CollectionName::new("cases").unwrap()];
        let scoped = NewKey { collections: Some(cases.clone()), ..new("ingest-box") };
        let (record, key) = create_key(&path, scoped).unwrap();
        let (other, other_key) = create_key(&path, NewKey { name: None, ..new("") }).unwrap();
        assert_eq!(other.name, other.id);
        assert_ne!(key, other_key);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        let (id, secret) = parse_key(&key).unwrap();
        assert_eq!(id, record.id);
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains(key.rsplit('_').next().unwrap()), "the file has the secret");
        let listed = list_keys(&path).unwrap();
        assert_eq!(listed.len(), 2);
        assert_eq!((listed[0].name.as_str(), listed[0].collections.clone()), ("ingest-box", Some(cases)));
        assert!(listed[0].is_secret(&secret) && !listed[1].is_secret(&secret));

        assert!(matches!(create_key(&path, new("ingest-box")), Err(KeyError::Taken { .. })));
        revoke_key(&path, "ingest-box").unwrap();
        assert!(matches!(revoke_key(&path, "ingest-box"), Err(KeyError::Unknown { .. })));
        assert!(list_keys(&path).unwrap()[0].revoked.is_some());
        create_key(&path, new("ingest-box")).unwrap();
        revoke_key(&path, &other.id).unwrap();
        assert_eq!(list_keys(&path).unwrap().iter().filter(|r| r.revoked.is_none()).count(), 1);
    }

    #[test]
    fn a_file_that_others_can_write_or_that_is_damaged_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.toml");
        create_key(&path, new("a")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o622)).unwrap();
        assert!(list_keys(&path).unwrap_err().to_string().contains("chmod 600"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let hash = text.lines().find(|l| l.starts_with("hash")).unwrap();
        for damaged in [
            text.replace(hash, "hash = \"short\""),
            text.replace("write", "owner"),
            text.replace("hash", "hush"),
            text.replace("[[key]]", "[[key"),
            text.replace("T", "_"),
            format!("{text}\n{text}"),
        ] {
            fs::write(&path, &damaged).unwrap();
            let error = list_keys(&path).unwrap_err();
            assert!(matches!(error, KeyError::Damaged { .. }), "{damaged}");
            let hash = hash.split('"').nth(1).unwrap();
            assert!(!error.to_string().contains(hash), "{error}");
        }
    }

    #[test]
    fn names_that_could_be_taken_for_something_else_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["", "a b", "a\nb", "\u{202e}", &"n".repeat(65)] {
            let refused = create_key(&dir.path().join("keys.toml"), new(name));
            assert!(matches!(refused, Err(KeyError::Name { .. })), "{name:?}");
        }
    }

    #[test]
    fn what_is_no_key_is_not_parsed() {
        let digits = "a".repeat(64);
        assert!(parse_key(&format!("diptych_0123456789ab_{digits}")).is_some());
        for text in ["", "diptych", "diptych_a_", &digits, &format!("diptych_a_{digits}0")] {
            assert!(parse_key(text).is_none(), "{text}");
        }
        assert!(parse_key(&format!("diptych_a_{}", "A".repeat(64))).is_none());
    }
}
