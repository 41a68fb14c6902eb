//! JPEG files at a reduced scale, and whether they are whole.
//!
//! Owns: the choice of the scale, and decoding baseline files at it. Does not own decoding at full
//! size, which is the truth: whatever is progressive, unusual or damaged is left to it.
//!
//! The discrete cosine transform of each block is inverted for its lowest frequencies only, which is
//! the block averaged down. Colour planes that are stored at half the size are reduced by half as
//! much, so that nothing is enlarged again. A large photograph costs a fraction of the time, and since
//! it is still resampled to at most a third of the reduced size, what is lost is what the resampling
//! filter removes.

mod bits;
mod frame;
mod scan;

use std::panic::{AssertUnwindSafe, catch_unwind};

use image::Rgb32FImage;

/// How much larger than the target, along both sides, the reduced image has to be. At 1.7 photographs
/// differ by up to 19 grey levels from full decoding, at 3.3 by up to 5, with a mean below a third.
const MARGIN: u64 = 3;

/// The largest of 8, 4 and 2 by which an image of `(width, height)` may be reduced before it is
/// resampled to a target of `(height, width)`. None for images of less than six times the target.
pub(crate) fn factor(size: (u32, u32), target: (u64, u64)) -> Option<usize> {
    [8, 4, 2].into_iter().find(|&factor| {
        let needed = factor as u64 * MARGIN;
        u64::from(size.0) >= needed * target.1 && u64::from(size.1) >= needed * target.0
    })
}

/// The image of `(width, height)` with both sides divided by the factor, rounded up, in 0 to 255. None when it is
/// no baseline file of one or three components, or when anything is wrong with it.
pub(crate) fn decode_reduced(bytes: &[u8], size: (u32, u32), factor: usize) -> Option<Rgb32FImage> {
    // The full decoder has the last word on files that bring this one down.
    catch_unwind(AssertUnwindSafe(|| {
        let (frame, data) = frame::Frame::read(bytes, size)?;
        scan::decode(&frame, data, factor)
    }))
    .ok()
    .flatten()
}

/// Whether the end-of-image marker follows the compressed data (ITU-T T.81, annex B). Segments are
/// skipped by their length, so that a thumbnail's end marker within one does not count.
pub(crate) fn reaches_its_end(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some(found) = bytes.get(at..).and_then(|rest| rest.iter().position(|&b| b == 0xFF)) {
        at += found + 1;
        match bytes.get(at) {
            None => return false,
            Some(0xD9) => return true,
            // A fill byte; the marker is still to come.
            Some(0xFF) => {}
            // An escaped 0xFF of the data, a restart, or another marker without a length.
            Some(0x00 | 0x01 | 0xD0..=0xD8) => at += 1,
            Some(_) => match bytes.get(at + 1..at + 3) {
                Some(length) => at += 1 + usize::from(u16::from_be_bytes([length[0], length[1]])).max(2),
                None => return false,
            },
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_marker_of_an_embedded_thumbnail_does_not_count() {
        let thumbnail = [0xFF, 0xE1, 0x00, 0x06, 0xFF, 0xD9, 0x00, 0x00];
        let mut file = vec![0xFF, 0xD8];
        file.extend(thumbnail);
        file.extend([0xFF, 0xDA, 0x00, 0x02, 0x12, 0xFF, 0x00, 0x34, 0xFF, 0xD0, 0x56]);
        assert!(!reaches_its_end(&file));
        file.extend([0xFF, 0xFF, 0xD9]);
        assert!(reaches_its_end(&file));
        assert!(!reaches_its_end(&[0xFF, 0xD8, 0xFF, 0xE1, 0x00]));
    }

    #[test]
    fn the_reduced_image_stays_three_times_the_target() {
        assert_eq!(factor((4000, 3000), (224, 298)), Some(4));
        assert_eq!(factor((5376, 5376), (224, 224)), Some(8));
        assert_eq!(factor((5376, 5375), (224, 224)), Some(4));
        assert_eq!(factor((1344, 1344), (224, 224)), Some(2));
        assert_eq!(factor((1344, 1343), (224, 224)), None);
        assert_eq!(factor((8000, 1000), (224, 224)), None);
    }
}
