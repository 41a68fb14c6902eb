//! Pixels of every family's preprocessing against the stored ones of the reference libraries.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};

use common::{floats, max_diff, read_tensors, shared};
use diptych_encoder::{Pixels, Preprocessing, ProcessorFamily};
use serde_json::Value;

/// Images without a lossy codec: pixels must be equal to the bit.
const LOSSLESS: [usize; 3] = [2, 3, 4];
/// The image with an EXIF orientation.
const ORIENTED: usize = 5;
/// The tolerance of the fixtures, in steps of 8 bits.
const STEPS: u8 = 2;
/// What JPEG files may differ by instead, at one value in 200. Our decoder is not libjpeg-turbo: it
/// rounds colour conversion once where that rounds each product, and chroma at half size after each
/// direction where that rounds once. Both are a step at the source, and enlarging sharpens steps.
const STEPS_JPEG: u8 = 4;

const FAMILIES: [(&str, Option<ProcessorFamily>); 7] = [
    ("hf-clip-openai", Some(ProcessorFamily::Clip)),
    ("hf-clip-laion", Some(ProcessorFamily::Clip)),
    ("hf-chinese-clip", Some(ProcessorFamily::ChineseClip)),
    ("hf-siglip", Some(ProcessorFamily::Siglip)),
    ("hf-vision-text-dual-encoder", Some(ProcessorFamily::VisionText)),
    ("openclip-native", None),
    ("openclip-biomedclip", None),
];

fn read_json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn preprocessing(folder: &Path, family: Option<ProcessorFamily>, facts: &Value) -> Preprocessing {
    let side = |key: &str| facts["image"][key].as_u64().unwrap() as usize;
    let size = (side("height"), side("width"));
    match family {
        Some(family) => Preprocessing::from_dir(&folder.join("model"), family, size).unwrap(),
        None => {
            let config = read_json(&folder.join("model/open_clip_config.json"));
            Preprocessing::from_open_clip(&config, size).unwrap()
        }
    }
}

/// Our policy applies the orientation; where the reference does not, its alternative row counts.
fn stored_pixels(folder: &Path, facts: &Value) -> Vec<Vec<u8>> {
    let tensors = read_tensors(&folder.join("golden.safetensors"));
    let rows = |name: &str| {
        let (_, shape, bytes) = &tensors[name];
        bytes.chunks_exact(shape[1..].iter().product()).map(<[u8]>::to_vec).collect::<Vec<_>>()
    };
    let mut stored = rows("pixels_u8");
    if facts["exif"]["reference_applies_exif"] == false {
        stored[ORIENTED] = rows("alt_exif_pixels_u8").remove(0);
    }
    stored
}

fn image_files(folder: &Path, facts: &Value) -> Vec<Vec<u8>> {
    let paths = facts["images"].as_array().unwrap();
    paths.iter().map(|path| std::fs::read(folder.join(path.as_str().unwrap())).unwrap()).collect()
}

#[test]
fn pixels_of_every_family_are_pillows() {
    let Some(root) = shared("golden") else { return };
    for (name, family) in FAMILIES {
        let folder: PathBuf = root.join(name);
        let facts = read_json(&folder.join("golden.json"));
        let settings = preprocessing(&folder, family, &facts);
        let stored = stored_pixels(&folder, &facts);
        for (i, (bytes, stored)) in image_files(&folder, &facts).iter().zip(&stored).enumerate() {
            let ours = settings.pixels_of_file(bytes).unwrap().to_planes();
            assert_eq!(ours.len(), stored.len());
            let differences: Vec<u8> = ours.iter().zip(stored).map(|(a, b)| a.abs_diff(*b)).collect();
            let worst = differences.iter().max().copied().unwrap_or(0);
            let above = |bound: u8| differences.iter().filter(|&&d| d > bound).count();
            let (changed, far) = (above(0), above(STEPS));
            eprintln!(
                "{name:28} image {i}: max {worst}/255, {changed} of {} values differ, {far} by more than {STEPS}",
                stored.len()
            );
            if LOSSLESS.contains(&i) {
                assert_eq!(worst, 0, "{name} image {i}");
            }
            assert!(worst <= STEPS_JPEG && far * 200 <= stored.len(), "{name} image {i}: {worst}, {far}");
        }
    }
}

#[test]
fn stored_pixels_become_the_stored_values() {
    let Some(root) = shared("golden") else { return };
    let mut compared = 0;
    for (name, family) in FAMILIES {
        let folder = root.join(name);
        let facts = read_json(&folder.join("golden.json"));
        let settings = preprocessing(&folder, family, &facts);
        let tensors = read_tensors(&folder.join("golden.safetensors"));
        if !tensors.contains_key("pixel_values") {
            continue;
        }
        let (_, shape, bytes) = &tensors["pixels_u8"];
        let (height, width) = settings.size();
        assert_eq!(shape[2..], [height, width], "{name}");
        let ours: Vec<f32> = bytes
            .chunks_exact(3 * height * width)
            .flat_map(|planes| {
                let data = (0..3 * height * width).map(|i| planes[i % 3 * height * width + i / 3]).collect();
                settings.normalize(&Pixels { data, width, height })
            })
            .collect();
        let worst = max_diff(&ours, &floats(&tensors, "pixel_values"));
        eprintln!("{name:28} normalised pixels: max abs {worst:.1e}");
        assert!(worst < 1e-5, "{name}: {worst}");
        compared += 1;
    }
    assert!(compared >= 5, "only {compared} families store their values");
}
