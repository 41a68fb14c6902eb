//! The checkpoint format before PyTorch 1.6: pickles one after another, then the raw storages.
//!
//! Owns: that stream. It holds a magic number, the protocol, facts about the machine that wrote it,
//! the object, the order of the storages, and each storage as a count of elements and its bytes.
//! The tar format before PyTorch 0.1.10 is not read.

use std::collections::HashMap;
use std::ops::Range;

use safetensors::Dtype;

use super::machine::Machine;
use super::values::{Id, Node, shown};
use super::{MAX_PICKLE, PickleError};

/// After the two bytes that name a pickle protocol: 0x1950a86a20f9469cfc6c, and the end.
const MAGIC: &[u8] = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e";
const PROTOCOL: i64 = 1001;

/// A stream whose storages are found.
pub(super) struct Stream<'a> {
    pub(super) machine: Machine<'a>,
    pub(super) root: Id,
    pub(super) storages: HashMap<&'a str, Range<usize>>,
}

/// Whether a file starts as such a stream.
pub(super) fn is_legacy(file: &[u8]) -> bool {
    file.first() == Some(&0x80) && file.get(2..2 + MAGIC.len()) == Some(MAGIC)
}

/// Reads the pickles and locates every storage.
pub(super) fn open(file: &[u8]) -> Result<Stream<'_>, PickleError> {
    let mut at = 2 + MAGIC.len();
    let (machine, root) = next(file, &mut at)?;
    if !matches!(machine.node(root), Node::Int(PROTOCOL)) {
        return Err(damaged("protocol", format!("is not {PROTOCOL}")));
    }
    next(file, &mut at)?;
    let (machine, root) = next(file, &mut at)?;
    let (order, keys) = next(file, &mut at)?;
    let Node::List(keys) = order.node(keys) else {
        return Err(damaged("storage order", "is no list"));
    };
    let mut kinds: HashMap<&str, (Option<Dtype>, i64)> = HashMap::new();
    for node in machine.nodes() {
        if let Node::Storage { key, dtype, numel } = node
            && kinds.insert(key, (*dtype, *numel)).is_some_and(|other| other != (*dtype, *numel))
        {
            return Err(damaged(key, "is described in two ways"));
        }
    }
    let mut storages = HashMap::new();
    for key in keys {
        let &Node::Str(key) = order.node(*key) else {
            return Err(damaged("storage order", "holds something else than keys"));
        };
        let Some(&(dtype, numel)) = kinds.get(key) else {
            return Err(damaged(key, "is a storage that no tensor names"));
        };
        let stored = file.get(at..).and_then(|rest| rest.first_chunk()).map(|n| i64::from_le_bytes(*n));
        if stored != Some(numel) {
            return Err(damaged(key, "has another length than its tensors say, or is cut short"));
        }
        let start = at + 8;
        let size = dtype.unwrap_or(Dtype::U8).bitsize() / 8;
        let len = usize::try_from(numel).ok().and_then(|n| n.checked_mul(size));
        let end = len.and_then(|len| start.checked_add(len)).filter(|&end| end <= file.len());
        at = end.ok_or_else(|| damaged(key, "is cut short"))?;
        if storages.insert(key, start..at).is_some() {
            return Err(damaged(key, "is stored twice"));
        }
    }
    match file.len() - at {
        0 => Ok(Stream { machine, root, storages }),
        rest => Err(damaged("end", format!("{rest} bytes follow the last storage"))),
    }
}

fn next<'a>(file: &'a [u8], at: &mut usize) -> Result<(Machine<'a>, Id), PickleError> {
    let rest = file.get(*at..).unwrap_or_default();
    let mut machine = Machine::new(&rest[..rest.len().min(MAX_PICKLE)]);
    let root = machine.run()?;
    *at += machine.position();
    Ok((machine, root))
}

fn damaged(entry: &str, reason: impl Into<String>) -> PickleError {
    PickleError::Container { entry: shown(entry), reason: reason.into() }
}
