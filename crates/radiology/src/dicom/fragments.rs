//! Encapsulated pixels: which fragments make a frame (PS3.5 annex A.4).
//!
//! Offset tables are believed only where they point at fragments; without one, fragments are counted, and at
//! last looked at for the beginnings of streams.

use std::borrow::Cow;
use std::ops::Range;

use dicom_core::Tag;

use super::dataset::DataSet;
use super::error::DicomError;

const EXTENDED_OFFSET_TABLE: Tag = Tag(0x7FE0, 0x0001);
/// Tag and length in front of each fragment.
const ITEM_HEADER: u64 = 8;

/// The coded bytes of a frame. `parts` begins with the basic offset table.
pub(crate) fn frame<'a>(
    set: &DataSet<'a>,
    parts: &[Range<usize>],
    frames: u32,
    frame: u32,
) -> Result<Cow<'a, [u8]>, DicomError> {
    let missing = |reason: String| DicomError::MissingFragment { frame, reason };
    let Some((table, fragments)) = parts.split_first() else {
        return Err(missing("the pixel data has no fragment at all".to_owned()));
    };
    if fragments.is_empty() {
        return Err(missing("the pixel data has no fragment besides its offset table".to_owned()));
    }
    let count = frames as usize;
    let starts = by_table(set, table, fragments, count)
        .or_else(|| (count == 1).then(|| vec![0]))
        .or_else(|| (fragments.len() == count).then(|| (0..count).collect()))
        .or_else(|| by_stream(set.bytes, fragments).filter(|starts| starts.len() == count));
    let Some(starts) = starts else {
        let reason = format!("{} fragments cannot be told apart into {frames} frames", fragments.len());
        return Err(missing(reason));
    };
    let index = frame as usize;
    let end = starts.get(index + 1).copied().unwrap_or(fragments.len());
    let own = starts.get(index).and_then(|&start| fragments.get(start..end));
    match own {
        Some([one]) => Ok(Cow::Borrowed(&set.bytes[one.clone()])),
        Some(several) if !several.is_empty() => {
            let parts: Vec<&[u8]> = several.iter().map(|range| &set.bytes[range.clone()]).collect();
            Ok(Cow::Owned(parts.concat()))
        }
        _ => Err(missing("its fragments are missing".to_owned())),
    }
}

/// The first fragment of each frame by an offset table that fits.
fn by_table(
    set: &DataSet<'_>,
    table: &Range<usize>,
    fragments: &[Range<usize>],
    frames: usize,
) -> Option<Vec<usize>> {
    let basic = set.bytes[table.clone()].chunks_exact(4);
    let basic: Vec<u64> =
        basic.map(|word| u64::from(u32::from_le_bytes([word[0], word[1], word[2], word[3]]))).collect();
    let offsets = if basic.is_empty() {
        set.integers(EXTENDED_OFFSET_TABLE).into_iter().map(|offset| offset as u64).collect()
    } else {
        basic
    };
    if offsets.len() != frames || offsets.is_empty() {
        return None;
    }
    // Where each fragment's item begins, counted from the first.
    let mut at = 0;
    let mut places = Vec::with_capacity(fragments.len());
    for fragment in fragments {
        places.push(at);
        at += ITEM_HEADER + fragment.len() as u64;
    }
    let starts: Option<Vec<usize>> = offsets.iter().map(|offset| places.binary_search(offset).ok()).collect();
    starts.filter(|starts| starts.is_sorted_by(|a, b| a < b) && starts.first() == Some(&0))
}

/// The fragments that begin as streams of JPEG, JPEG-LS or JPEG 2000 do.
fn by_stream(bytes: &[u8], fragments: &[Range<usize>]) -> Option<Vec<usize>> {
    let begins = |range: &Range<usize>| {
        let fragment = &bytes[range.clone()];
        fragment.starts_with(&[0xFF, 0xD8, 0xFF]) || fragment.starts_with(&[0xFF, 0x4F, 0xFF, 0x51])
    };
    let starts: Vec<usize> = (0..fragments.len()).filter(|&index| begins(&fragments[index])).collect();
    (starts.first() == Some(&0)).then_some(starts)
}
