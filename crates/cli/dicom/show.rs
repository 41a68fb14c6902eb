//! `diptych dicom show`: what is understood of a DICOM file, and its picture.
//!
//! Owns: the layout of the table and of the JSON. Identifying values are hidden unless they are asked for.
//! Not here: how files are read, which is the crate radiology's.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use diptych_radiology::dicom::{DicomError, DicomFile, FramePolicy, Header, RawFrame, Rgb};
use serde_json::{Map, Value, json};

use crate::output;

/// What stands in place of a value that could identify somebody.
const HIDDEN: &str = "(hidden)";
const SHOW_HELP: &str = "\
    The picture is what a viewer shows first: modality lookup table or rescale, then VOI lookup table or \
    window, from the smallest to the largest value where there is none, MONOCHROME1 inverted. It is a \
    picture for retrieval, not for diagnosis.";

#[derive(Debug, clap::Args)]
#[command(after_help = SHOW_HELP)]
pub struct ShowArgs {
    /// DICOM file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Frame to show, counted from 0 [default: the one in the middle]
    #[arg(long, value_name = "N")]
    pub frame: Option<u32>,
    /// Where to write the picture, 8 bits of grey or of each colour [default: the file's name with .png, here]
    #[arg(long, value_name = "FILE.png")]
    pub out: Option<PathBuf>,
    /// Write no picture
    #[arg(long, conflicts_with = "out")]
    pub no_picture: bool,
    /// Also print the smallest, largest and mean stored value, the same after the modality stage or of each
    /// colour, and a hash of the stored values (BLAKE3, little endian, interleaved by pixel)
    #[arg(long)]
    pub raw_stats: bool,
    /// Print names, numbers and dates of the patient too
    #[arg(long)]
    pub identifying: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
pub fn run(args: &ShowArgs) -> Result<ExitCode> {
    let name = args.file.display();
    let file = DicomFile::open(&args.file).with_context(|| format!("{name}"))?;
    let header = file.header();
    let mut rows = described(header, args.identifying);
    if let Some(text) = file.sr_text().with_context(|| format!("{name}"))? {
        let text = if args.identifying { Value::from(text) } else { Value::from(HIDDEN) };
        rows.push(("report_text", text));
    }
    let frames = header.image.as_ref().map_or(0, |image| image.frames);
    let middle = FramePolicy::default().frames(frames).first().copied().unwrap_or(0);
    let frame = args.frame.unwrap_or(middle);
    // The table is printed even where the pixels cannot be shown: it says why.
    let asked = args.raw_stats || args.out.is_some() || args.frame.is_some();
    let out = (!args.no_picture).then(|| args.out.clone().unwrap_or_else(|| picture_name(&args.file)));
    let pixels = if asked || (header.image.is_some() && out.is_some()) {
        rows.push(("frame", frame.into()));
        Some(picture(args, out.as_deref(), &file, frame, &mut rows))
    } else {
        None
    };
    print(&rows, args.json)?;
    if let Some(outcome) = pixels {
        outcome.with_context(|| format!("{name}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The name of a picture in the current folder.
fn picture_name(file: &Path) -> PathBuf {
    let mut name = file.file_stem().unwrap_or_default().to_owned();
    name.push(".png");
    PathBuf::from(name)
}

/// Decodes a frame once, for its numbers and its picture.
fn picture(args: &ShowArgs, out: Option<&Path>, file: &DicomFile, frame: u32, rows: &mut Rows) -> Result<()> {
    let raw = file.raw_frame(frame)?;
    if args.raw_stats {
        rows.extend(statistics(file, &raw, frame)?);
    }
    if let Some(out) = out {
        let picture = file.picture(&raw, frame)?;
        picture
            .save_with_format(out, image::ImageFormat::Png)
            .with_context(|| format!("write {}", out.display()))?;
        rows.push(("written", out.display().to_string().into()));
    }
    Ok(())
}

type Rows = Vec<(&'static str, Value)>;

fn print(rows: &Rows, as_json: bool) -> Result<()> {
    if as_json {
        let object: Map<String, Value> =
            rows.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        return output::line(&Value::Object(object).to_string());
    }
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_null()) {
        let text = match value {
            // Control characters in a file are no business of a terminal.
            Value::String(text) => {
                text.lines().map(|line| line.replace(char::is_control, " ")).collect::<Vec<_>>()
            }
            other => vec![other.to_string()],
        };
        let text = text.join(&format!("\n{:width$}  ", ""));
        output::line(&format!("{:width$}  {text}", name.replace('_', " ")))?;
    }
    Ok(())
}

fn described(header: &Header, identifying: bool) -> Rows {
    let hide = |value: &Option<String>| match value {
        Some(value) if identifying => Value::from(value.clone()),
        Some(_) => HIDDEN.into(),
        None => Value::Null,
    };
    let date = header.study_date.map(|date| date.to_string());
    let mut rows: Rows = vec![
        ("transfer_syntax", header.transfer_syntax.clone().into()),
        ("transfer_syntax_name", header.transfer_syntax_name.into()),
        ("sop_class", json!(header.sop_class)),
        ("modality", json!(header.modality)),
        ("view", json!(header.view.map(|view| view.as_str()))),
        ("body_part", json!(header.body_part)),
        ("laterality", json!(header.laterality)),
        ("sex", json!(header.sex)),
        ("age", json!(header.age)),
        ("manufacturer", json!(header.manufacturer)),
        ("series_number", json!(header.series_number)),
        ("instance_number", json!(header.instance_number)),
        ("character_set", json!(header.character_set)),
        ("burned_in_annotation", json!(header.burned_in)),
        ("patient_identity_removed", json!(header.identity_removed)),
        ("patient_id", hide(&header.patient_id)),
        ("patient_name", hide(&header.patient_name)),
        ("birth_date", hide(&header.birth_date)),
        ("accession_number", hide(&header.accession_number)),
        ("study_date", hide(&date)),
        ("study_description", hide(&header.study_description)),
        ("series_description", hide(&header.series_description)),
        ("study_instance_uid", hide(&header.study_instance)),
        ("series_instance_uid", hide(&header.series_instance)),
        ("sop_instance_uid", hide(&header.sop_instance)),
    ];
    let Some(image) = &header.image else { return rows };
    rows.extend([
        ("rows", json!(image.rows)),
        ("columns", json!(image.columns)),
        ("frames", json!(image.frames)),
        ("samples_per_pixel", json!(image.samples_per_pixel)),
        ("planar_configuration", json!(image.planar_configuration)),
        ("photometric_interpretation", json!(image.photometric)),
        ("bits_allocated", json!(image.bits_allocated)),
        ("bits_stored", json!(image.bits_stored)),
        ("high_bit", json!(image.high_bit)),
        ("signed", json!(image.signed)),
        ("rescale_slope", json!(image.rescale.map(|(slope, _)| slope))),
        ("rescale_intercept", json!(image.rescale.map(|(_, intercept)| intercept))),
        ("window_center", json!(image.window.map(|(centre, _)| centre))),
        ("window_width", json!(image.window.map(|(_, width)| width))),
        ("modality_lut", json!(image.has_modality_lut)),
        ("voi_lut", json!(image.has_voi_lut)),
    ]);
    rows
}

fn statistics(file: &DicomFile, raw: &RawFrame, frame: u32) -> Result<Rows, DicomError> {
    let (dtype, bytes) = raw.samples.to_le_bytes();
    let shape = match raw.samples_per_pixel {
        1 => json!([raw.rows, raw.columns]),
        samples => json!([raw.rows, raw.columns, samples]),
    };
    let (min, max, mean) = summary(&raw.samples.to_numbers());
    let mut rows: Rows = vec![
        ("raw_dtype", dtype.into()),
        ("raw_shape", shape),
        ("raw_min", json!(min)),
        ("raw_max", json!(max)),
        ("raw_mean", json!(mean)),
        ("raw_blake3", blake3::hash(&bytes).to_hex().to_string().into()),
    ];
    if raw.photometric.is_grey() {
        let modality = file.statistics(raw, frame)?;
        rows.push(("modality_min", json!(modality.min)));
        rows.push(("modality_max", json!(modality.max)));
        rows.push(("modality_mean", json!(modality.mean)));
        return Ok(rows);
    }
    let values: Vec<f64> = match file.rgb(raw)? {
        Rgb::U8(values) => values.into_iter().map(f64::from).collect(),
        Rgb::U16 { values, .. } => values.into_iter().map(f64::from).collect(),
    };
    let channel = |index| summary(&values.iter().skip(index).step_by(3).copied().collect::<Vec<_>>());
    let channels = [0, 1, 2].map(channel);
    rows.push(("rgb_mean", json!(channels.map(|(_, _, mean)| mean))));
    rows.push(("rgb_max", json!(channels.map(|(_, max, _)| max))));
    Ok(rows)
}

fn summary(values: &[f64]) -> (f64, f64, f64) {
    let ends = |(low, high): (f64, f64), &value: &f64| (low.min(value), high.max(value));
    let (min, max) = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), ends);
    (min, max, values.iter().sum::<f64>() / values.len() as f64)
}
