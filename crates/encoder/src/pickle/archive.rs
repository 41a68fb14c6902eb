//! The zip container of a checkpoint: finding its entries.
//!
//! Owns: the central directory (zip64 included), the checks that entries are stored as they are, lie
//! within the file and do not overlap, and their checksums. Only what `torch.save` writes is read:
//! one folder, stored entries, one disk; compressed or encrypted entries are refused by name.

use std::collections::HashMap;
use std::ops::Range;

use rayon::prelude::*;

use super::PickleError;
use super::values::shown;

const LOCAL: u32 = 0x0403_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
const END64: u32 = 0x0606_4b50;
const LOCATOR64: u32 = 0x0706_4b50;
const END_LEN: usize = 22;
const CENTRAL_LEN: usize = 46;
const LOCAL_LEN: usize = 30;
/// Entries of one archive: one per storage, and a handful more.
const MAX_ENTRIES: usize = 200_000;

struct Entry {
    bytes: Range<usize>,
    /// 0 where the writer stored none, as `torch.serialization.set_crc32_options(False)` has it.
    crc: u32,
}

/// The entries of a checkpoint's archive.
pub(super) struct Archive<'a> {
    file: &'a [u8],
    /// By full name, the folder included.
    entries: HashMap<&'a str, Entry>,
    /// The one folder, with its slash.
    folder: &'a str,
}

impl<'a> Archive<'a> {
    /// Reads the directory of an archive, and checks that it is a checkpoint whose numbers are
    /// little-endian.
    pub(super) fn open(file: &'a [u8]) -> Result<Self, PickleError> {
        let (count, directory) = directory(file)?;
        let mut entries = HashMap::new();
        let mut at = directory.start;
        for _ in 0..count {
            let (name, entry, next) = central_entry(file, at, &directory)?;
            if entries.insert(name, entry).is_some() {
                return Err(damaged(name, "is stored twice"));
            }
            at = next;
        }
        if at != directory.end {
            return Err(damaged("central directory", "its size and its entries disagree"));
        }
        refuse_overlaps(&entries)?;
        let archive = Self { file, folder: folder(&entries)?, entries };
        archive.check_kind()?;
        Ok(archive)
    }

    /// The bytes of an entry of the folder, its checksum verified.
    pub(super) fn checked(&self, name: &str) -> Result<&'a [u8], PickleError> {
        let full = format!("{}{name}", self.folder);
        let Some(entry) = self.entries.get(full.as_str()) else {
            return Err(damaged(&full, "is missing"));
        };
        verify(&full, &self.file[entry.bytes.clone()], entry.crc)
    }

    /// Where each storage lies, by its key.
    pub(super) fn storages(&self) -> HashMap<&'a str, Range<usize>> {
        let entries = self.entries.iter();
        entries
            .filter_map(|(name, entry)| {
                let key = name.strip_prefix(self.folder)?.strip_prefix("data/")?;
                Some((key, entry.bytes.clone()))
            })
            .collect()
    }

    /// Verifies the checksums of storages.
    pub(super) fn verify(&self, keys: &[&str]) -> Result<(), PickleError> {
        keys.par_iter().try_for_each(|key| self.checked(&format!("data/{key}")).map(|_| ()))
    }

    fn check_kind(&self) -> Result<(), PickleError> {
        let has = |name: &str| self.entries.contains_key(format!("{}{name}", self.folder).as_str());
        if has("constants.pkl") {
            return Err(PickleError::Code("constants.pkl (of a TorchScript program)".into()));
        }
        if has("byteorder") {
            let order = self.checked("byteorder")?;
            if order != b"little" {
                let order = String::from_utf8_lossy(&order[..order.len().min(16)]).into_owned();
                return Err(PickleError::Form(format!(
                    "its byteorder is '{order}' and only 'little' is read; save it again on a little-endian machine"
                )));
            }
        }
        Ok(())
    }
}

fn damaged(entry: &str, reason: &str) -> PickleError {
    PickleError::Container { entry: shown(entry), reason: reason.to_owned() }
}

fn verify<'a>(name: &str, bytes: &'a [u8], crc: u32) -> Result<&'a [u8], PickleError> {
    if crc != 0 && crc32fast::hash(bytes) != crc {
        return Err(damaged(name, "its checksum does not match its bytes"));
    }
    Ok(bytes)
}

/// How many entries there are, and where their directory lies.
fn directory(file: &[u8]) -> Result<(usize, Range<usize>), PickleError> {
    let cut = || damaged("central directory", "is missing, so the file is cut short");
    // The end record is last but for a comment of at most 65535 bytes.
    let last = file.len().checked_sub(END_LEN).ok_or_else(cut)?;
    let first = last.saturating_sub(usize::from(u16::MAX));
    let is_end = |at: usize| {
        u32_at(file, at) == Some(END) && u16_at(file, at + 20).map(usize::from) == Some(last - at)
    };
    let end = (first..=last).rev().find(|&at| is_end(at)).ok_or_else(cut)?;
    let narrow = |at: usize| u32_at(file, end + at).map(u64::from).ok_or_else(cut);
    let disks = u32_at(file, end + 4).ok_or_else(cut)?;
    let count = u16_at(file, end + 10).map(u64::from).ok_or_else(cut)?;
    let mut fields = (count, narrow(12)?, narrow(16)?);
    let saturated = fields.0 == 0xffff || fields.1 == 0xffff_ffff || fields.2 == 0xffff_ffff;
    let locator = end.checked_sub(20).filter(|&at| u32_at(file, at) == Some(LOCATOR64));
    match locator {
        Some(locator) if saturated => {
            let wide = u64_at(file, locator + 8).and_then(|at| usize::try_from(at).ok());
            let wide = wide.filter(|&at| u32_at(file, at) == Some(END64)).ok_or_else(cut)?;
            let field = |at: usize| wide.checked_add(at).and_then(|at| u64_at(file, at)).ok_or_else(cut);
            fields = (field(32)?, field(40)?, field(48)?);
        }
        None if saturated => return Err(damaged("central directory", "lacks its zip64 record")),
        _ if disks != 0 => return Err(damaged("central directory", "spans several disks")),
        _ => {}
    }
    let count = usize::try_from(fields.0).unwrap_or(usize::MAX);
    if count > MAX_ENTRIES {
        return Err(PickleError::TooLarge { what: "entries", limit: MAX_ENTRIES });
    }
    match range(fields.2, fields.1) {
        Some(range) if range.end <= end => Ok((count, range)),
        _ => Err(damaged("central directory", "reaches beyond the file")),
    }
}

/// The entry described at a position of the directory, and the position after it.
fn central_entry<'a>(
    file: &'a [u8],
    at: usize,
    directory: &Range<usize>,
) -> Result<(&'a str, Entry, usize), PickleError> {
    let broken = || damaged("central directory", "an entry of it is malformed");
    let head = file.get(at..directory.end).and_then(|rest| rest.get(..CENTRAL_LEN)).ok_or_else(broken)?;
    let narrow = |at| u32_at(head, at).ok_or_else(broken);
    let short = |at| u16_at(head, at).map(usize::from).ok_or_else(broken);
    if narrow(0)? != CENTRAL {
        return Err(broken());
    }
    let (name_len, extra_len, comment_len) = (short(28)?, short(30)?, short(32)?);
    let name_at = at + CENTRAL_LEN;
    let next = name_at + name_len + extra_len + comment_len;
    if next > directory.end {
        return Err(broken());
    }
    let name = &file[name_at..name_at + name_len];
    let name = std::str::from_utf8(name).map_err(|_| broken())?;
    if short(8)? & 1 != 0 {
        return Err(damaged(name, "is encrypted"));
    }
    if name.contains("/code/") {
        return Err(PickleError::Code(format!("{} (a TorchScript program)", shown(name))));
    }
    if short(10)? != 0 {
        return Err(PickleError::Form(format!(
            "{} is compressed, which torch.save never does; unpack the archive and pack it with 'zip -0', or download it again",
            shown(name)
        )));
    }
    let extra = &file[name_at + name_len..name_at + name_len + extra_len];
    let sizes = [narrow(24)?, narrow(20)?, narrow(42)?];
    let [size, packed, offset] = widen(extra, sizes).ok_or_else(|| damaged(name, "lacks its zip64 sizes"))?;
    if size != packed {
        return Err(damaged(name, "is stored, yet its two sizes differ"));
    }
    let bytes = local_bytes(file, name, offset, size, directory.start)?;
    Ok((name, Entry { bytes, crc: narrow(16)? }, next))
}

/// Size, stored size and offset, from the zip64 field where the short ones are saturated.
fn widen(extra: &[u8], short: [u32; 3]) -> Option<[u64; 3]> {
    if short.iter().all(|&value| value != u32::MAX) {
        return Some(short.map(u64::from));
    }
    let mut at = 0;
    while let (Some(kind), Some(len)) = (u16_at(extra, at), u16_at(extra, at + 2)) {
        let field = extra.get(at + 4..at + 4 + usize::from(len))?;
        if kind == 1 {
            let mut wide = [0; 3];
            let mut next = 0;
            for (wide, short) in wide.iter_mut().zip(short) {
                *wide = u64::from(short);
                if short == u32::MAX {
                    *wide = u64_at(field, next)?;
                    next += 8;
                }
            }
            return Some(wide);
        }
        at += 4 + usize::from(len);
    }
    None
}

/// The bytes of an entry: they follow its local header and end before the directory.
fn local_bytes(
    file: &[u8],
    name: &str,
    offset: u64,
    size: u64,
    limit: usize,
) -> Result<Range<usize>, PickleError> {
    let outside = || damaged(name, "lies outside the file");
    let offset = usize::try_from(offset).ok().filter(|&at| at < limit).ok_or_else(outside)?;
    let head = file[offset..limit].get(..LOCAL_LEN).ok_or_else(outside)?;
    let (Some(LOCAL), Some(0), Some(name_len), Some(extra_len)) =
        (u32_at(head, 0), u16_at(head, 8), u16_at(head, 26), u16_at(head, 28))
    else {
        return Err(damaged(name, "is not where the directory says"));
    };
    let name_at = offset + LOCAL_LEN;
    let start = name_at + usize::from(name_len) + usize::from(extra_len);
    if file[..limit].get(name_at..name_at + usize::from(name_len)) != Some(name.as_bytes()) {
        return Err(damaged(name, "is not where the directory says"));
    }
    let size = usize::try_from(size).map_err(|_| outside())?;
    match start.checked_add(size) {
        Some(end) if end <= limit => Ok(start..end),
        _ => Err(outside()),
    }
}

/// No byte belongs to two entries, so that reading them all costs no more than reading the file.
fn refuse_overlaps(entries: &HashMap<&str, Entry>) -> Result<(), PickleError> {
    let mut order: Vec<(&str, &Range<usize>)> =
        entries.iter().map(|(name, entry)| (*name, &entry.bytes)).collect();
    order.sort_unstable_by_key(|(_, bytes)| (bytes.start, bytes.end));
    match order.windows(2).find(|pair| pair[0].1.end > pair[1].1.start) {
        Some(pair) => Err(damaged(pair[1].0, &format!("overlaps {}", shown(pair[0].0)))),
        None => Ok(()),
    }
}

/// The folder that holds `data.pkl`.
fn folder<'a>(entries: &HashMap<&'a str, Entry>) -> Result<&'a str, PickleError> {
    let mut folders = entries.keys().filter_map(|name| {
        let folder = name.strip_suffix("data.pkl")?;
        (folder.len() > 1 && folder.find('/') == Some(folder.len() - 1)).then_some(folder)
    });
    match (folders.next(), folders.next()) {
        (Some(folder), None) => Ok(folder),
        (None, _) => Err(PickleError::Form(
            "it is a zip archive without data.pkl, so no checkpoint that torch.save wrote; use the published weights file".into(),
        )),
        _ => Err(PickleError::Form(
            "it is a zip archive with several data.pkl; use the published weights file".into(),
        )),
    }
}

fn range(start: u64, len: u64) -> Option<Range<usize>> {
    let start = usize::try_from(start).ok()?;
    let end = start.checked_add(usize::try_from(len).ok()?)?;
    Some(start..end)
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array_at(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array_at(bytes, at).map(u64::from_le_bytes)
}
