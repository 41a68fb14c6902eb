//! Damaged files: bytes changed, cut, repeated or set to the ends of their range, by a fixed seed. Nothing may
//! panic, and nothing may take longer than a small file can explain.

use std::time::Instant;

use dicom_core::VR;
use dicom_dictionary_std::tags;

use super::super::*;
use super::made::{BIG, DEFLATED, EXPLICIT, IMPLICIT, JPEG, Maker, RLE, rle};
use super::references::folder;

/// Damaged files tried in all; `DIPTYCH_DICOM_DAMAGES` sets another number.
const DAMAGES: usize = 20_000;
/// Real files above this size are too slow to damage often.
const SMALL: u64 = 130_000;

/// A sequence that looks random and is always the same (xorshift64*).
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % end.max(1)
    }
}

fn sound_files() -> Vec<Vec<u8>> {
    let pixels: Vec<u8> = (0..=255).collect();
    let mut files = Vec::new();
    for uid in [EXPLICIT, IMPLICIT, BIG, DEFLATED] {
        let mut maker = Maker::grey(16, 16, 8, 8, false);
        maker.text(tags::WINDOW_CENTER, VR::DS, "40").text(tags::WINDOW_WIDTH, VR::DS, "80");
        files.push(maker.syntax(uid).put(tags::PIXEL_DATA, VR::OW, pixels.clone()).file());
    }
    let mut packed = Maker::grey(16, 16, 8, 8, true);
    packed.syntax(RLE).fragments = Some(vec![Vec::new(), rle(std::slice::from_ref(&pixels))]);
    files.push(packed.file());
    for (colour, samples) in [(image::ExtendedColorType::L8, 1), (image::ExtendedColorType::Rgb8, 3)] {
        let mut stream = Vec::new();
        let picture = pixels.repeat(samples);
        image::codecs::jpeg::JpegEncoder::new(&mut stream).encode(&picture, 16, 16, colour).unwrap();
        let mut maker = Maker::grey(16, 16, 8, 8, false);
        maker.word(tags::SAMPLES_PER_PIXEL, samples as u16);
        maker.text(
            tags::PHOTOMETRIC_INTERPRETATION,
            VR::CS,
            if samples == 1 { "MONOCHROME2" } else { "YBR_FULL" },
        );
        maker.syntax(JPEG).fragments = Some(vec![Vec::new(), stream]);
        files.push(maker.file());
    }
    if let Some(folder) = folder() {
        for entry in std::fs::read_dir(folder.join("files")).unwrap() {
            let entry = entry.unwrap();
            if entry.metadata().unwrap().len() < SMALL {
                files.push(std::fs::read(entry.path()).unwrap());
            }
        }
    }
    files
}

fn damaged(file: &[u8], chance: &mut Chance) -> Vec<u8> {
    let mut bytes = file.to_vec();
    // Half of the damage near the beginning, where the structure is.
    let reach = |chance: &mut Chance, len: usize| if chance.below(2) == 0 { len } else { len.min(1200) };
    for _ in 0..=chance.below(4) {
        let limit = reach(chance, bytes.len());
        let at = chance.below(limit);
        match chance.below(6) {
            0 => bytes[at] ^= 1 << chance.below(8),
            1 => bytes[at] = [0, 1, 0x7F, 0x80, 0xFF][chance.below(5)],
            2 => bytes[at] = chance.below(256) as u8,
            3 => bytes.truncate(at.max(1)),
            4 => {
                let end = (at + chance.below(64)).min(bytes.len());
                bytes.drain(at..end);
            }
            _ => {
                let end = (at + chance.below(64)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
        }
        if bytes.is_empty() {
            bytes.push(0);
        }
    }
    bytes
}

#[test]
fn damaged_files_are_refused_or_read_and_never_panic() {
    let damages = std::env::var("DIPTYCH_DICOM_DAMAGES").ok().and_then(|n| n.parse().ok()).unwrap_or(DAMAGES);
    let files = sound_files();
    let mut chance = Chance(0x5EED);
    let (mut read, mut slowest) = (0, std::time::Duration::ZERO);
    for index in 0..damages {
        let bytes = damaged(&files[index % files.len()], &mut chance);
        let began = Instant::now();
        if let Ok(file) = DicomFile::read(bytes) {
            let _ = file.sr_text();
            read += usize::from(file.frame(0).is_ok());
            let _ = file.frame(file.header().image.as_ref().map_or(0, |image| image.frames / 2));
        }
        slowest = slowest.max(began.elapsed());
    }
    println!("{damages} damaged files, {read} still shown, the slowest took {slowest:?}");
    assert!(
        read > damages / 50,
        "only {read} of {damages} could still be shown: the damage hides the decoders"
    );
    assert!(read < damages, "damage that nothing notices is no damage");
}
