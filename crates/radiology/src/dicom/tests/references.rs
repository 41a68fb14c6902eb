//! Real files, whose pixel statistics were taken with other software.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::super::*;

/// The folder of real files; they are not part of the repository.
pub(super) fn folder() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/dicom");
    if !path.join("index.jsonl").exists() {
        eprintln!("skipped: {} is not there", path.display());
        return None;
    }
    Some(path)
}

#[test]
fn real_files_give_the_numbers_of_other_software() {
    let Some(folder) = folder() else { return };
    let index = std::fs::read_to_string(folder.join("index.jsonl")).unwrap();
    let mut files = 0;
    println!("{:36} {:>10} {:>10} {:>14} {:>14}  verdict", "file", "min", "max", "mean", "reference");
    for line in index.lines() {
        let entry: Value = serde_json::from_str(line).unwrap();
        let name = entry["file"].as_str().unwrap();
        let file = DicomFile::open(&folder.join(name)).unwrap();
        let raw = file.raw_frame(0).unwrap_or_else(|error| panic!("{name}: {error}"));
        check_raw(name, &raw, &entry["reference"]);
        check_shown(name, &file, &raw, &entry["reference"]);
        let picture = file.frame(0).unwrap();
        assert_eq!(u64::from(picture.width()), entry["cols"].as_u64().unwrap());
        assert_eq!(
            picture.color().has_color(),
            raw.samples_per_pixel == 3 || raw.photometric == Photometric::PaletteColor
        );
        assert!(file.header().sop_class.is_some() && file.object().is_ok(), "{name}");
        files += 1;
    }
    assert!(files >= 14, "{files} files");
}

fn check_raw(name: &str, raw: &RawFrame, reference: &Value) {
    let (dtype, bytes) = raw.samples.to_le_bytes();
    assert_eq!(dtype, reference["dtype"].as_str().unwrap(), "{name}");
    let numbers = raw.samples.to_numbers();
    let (min, max) = numbers.iter().fold((f64::MAX, f64::MIN), |(a, b), &v| (a.min(v), b.max(v)));
    let mean = numbers.iter().sum::<f64>() / numbers.len() as f64;
    let expected = |key: &str| reference["raw"][key].as_f64().unwrap();
    let short = name.trim_start_matches("files/");
    let exact = reference["compare"] == "exact";
    let (levels, level) = if exact { (0.0, 1e-6) } else { (5.0, 0.1) };
    println!(
        "{short:36} {min:>10} {max:>10} {mean:>14.4} {:>14.4}  {}",
        expected("mean"),
        reference["compare"]
    );
    assert!(
        (min - expected("min")).abs() <= levels && (max - expected("max")).abs() <= levels,
        "{name}: {min} {max}"
    );
    assert!((mean - expected("mean")).abs() <= level, "{name}: mean {mean}, not {}", expected("mean"));
    if exact {
        let digest = ring::digest::digest(&ring::digest::SHA256, &bytes);
        let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, reference["raw_frame0_sha256"].as_str().unwrap(), "{name}");
    }
}

fn check_shown(name: &str, file: &DicomFile, raw: &RawFrame, reference: &Value) {
    let tolerance = if reference["compare"] == "exact" { 1e-6 } else { 0.1 };
    if let Some(modality) = reference["modality_lut"].as_object() {
        let statistics = file.statistics(raw, 0).unwrap();
        for (value, key) in [(statistics.min, "min"), (statistics.max, "max"), (statistics.mean, "mean")] {
            assert!((value - modality[key].as_f64().unwrap()).abs() <= tolerance, "{name}: {key} {value}");
        }
    }
    if let Some(means) = reference["rgb_mean"].as_array() {
        let values: Vec<f64> = match file.rgb(raw).unwrap() {
            Rgb::U8(values) => values.into_iter().map(f64::from).collect(),
            Rgb::U16 { values, .. } => values.into_iter().map(f64::from).collect(),
        };
        for channel in 0..3 {
            let own: Vec<f64> = values.iter().skip(channel).step_by(3).copied().collect();
            let mean = own.iter().sum::<f64>() / own.len() as f64;
            let max = own.iter().copied().fold(0.0, f64::max);
            let (expected, largest) =
                (means[channel].as_f64().unwrap(), reference["rgb_max"][channel].as_f64().unwrap());
            println!("{:36} colour {channel}: mean {mean:.4}, reference {expected:.4}", "");
            // Decoders round the conversion of colours in different ways.
            let slack = if raw.photometric == Photometric::Rgb { tolerance } else { 0.11 };
            assert!((mean - expected).abs() <= slack, "{name}: colour {channel} {mean}, not {expected}");
            assert!(
                (max - largest).abs() <= if slack > 1e-3 { 5.0 } else { 0.0 },
                "{name}: colour {channel} {max}"
            );
        }
    }
}
