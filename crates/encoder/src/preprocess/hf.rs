//! `preprocessor_config.json` and `processor_config.json` of the transformers library.
//!
//! Owns: which image processors are known, their defaults, and the keys in all their published
//! spellings. Does not own what the settings do to pixels.

use std::path::Path;

use serde_json::{Value, json};

use super::geometry::Resize;
use super::{CLIP_MEAN, CLIP_STD, Library, Preprocessing, Rules, SIZE_MAX, size_value};
use crate::error::{LoadError, read_file};
use crate::json::{self, Section};
use crate::resize::Filter;

/// The settings' own file within a model directory.
pub const PREPROCESSOR_FILE: &str = "preprocessor_config.json";
/// The newer file that holds the settings under `image_processor`; it wins when it does.
pub const PROCESSOR_FILE: &str = "processor_config.json";

const HALF: [f64; 3] = [0.5; 3];

/// The kind of model, which decides the image processor where the file names none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessorFamily {
    /// `CLIPModel`: `CLIPImageProcessor`.
    Clip,
    /// `ChineseCLIPModel`: `ChineseCLIPImageProcessor`.
    ChineseClip,
    /// `SiglipModel`: `SiglipImageProcessor`.
    Siglip,
    /// `VisionTextDualEncoderModel`: the file has to name the processor.
    VisionText,
}

/// An image processor of the library: what absent keys mean.
struct Processor {
    name: &'static str,
    size: Resize,
    /// Whether a single number as size means a square instead of the shortest edge.
    default_to_square: bool,
    crop_size: Option<usize>,
    do_center_crop: bool,
    filter: Filter,
    mean: [f64; 3],
    std: [f64; 3],
}

const CLIP: Processor = Processor {
    name: "CLIP",
    size: Resize::ShortestEdge(224),
    default_to_square: false,
    crop_size: Some(224),
    do_center_crop: true,
    filter: Filter::Bicubic,
    mean: CLIP_MEAN,
    std: CLIP_STD,
};
const VIT: Processor = Processor {
    name: "ViT",
    size: Resize::Exact(224, 224),
    default_to_square: true,
    crop_size: None,
    do_center_crop: false,
    filter: Filter::Bilinear,
    mean: HALF,
    std: HALF,
};
/// Processors whose steps are these, in this order. Others, such as ConvNext's resize that crops,
/// have steps of their own and are refused by name.
const PROCESSORS: [Processor; 7] = [
    CLIP,
    Processor { name: "ChineseCLIP", ..CLIP },
    Processor { name: "Bit", ..CLIP },
    Processor { name: "Siglip", filter: Filter::Bicubic, default_to_square: false, ..VIT },
    VIT,
    Processor {
        name: "DeiT",
        size: Resize::Exact(256, 256),
        crop_size: Some(224),
        do_center_crop: true,
        filter: Filter::Bicubic,
        ..VIT
    },
    Processor {
        name: "Blip",
        size: Resize::Exact(384, 384),
        filter: Filter::Bicubic,
        mean: CLIP_MEAN,
        std: CLIP_STD,
        ..VIT
    },
];

impl ProcessorFamily {
    fn default_processor(self) -> Option<&'static str> {
        match self {
            Self::Clip => Some("CLIP"),
            Self::ChineseClip => Some("ChineseCLIP"),
            Self::Siglip => Some("Siglip"),
            Self::VisionText => None,
        }
    }
}

impl Preprocessing {
    /// Reads the image settings of a model directory: `image_processor` of `processor_config.json`
    /// where it is there, else `preprocessor_config.json`. `size` is the height and width of the
    /// image tower's input.
    ///
    /// # Errors
    /// [`LoadError::MissingFile`], [`LoadError::Io`], or [`LoadError::Config`] naming the key.
    pub fn from_dir(dir: &Path, family: ProcessorFamily, size: (usize, usize)) -> Result<Self, LoadError> {
        let nested = dir.join(PROCESSOR_FILE);
        if nested.exists() {
            let text = read_file(&nested, "the model's processor_config.json")?;
            let value = json::parse(PROCESSOR_FILE, &text)?;
            if let Some(inner) = Section::top(PROCESSOR_FILE, &value)?.value("image_processor") {
                return from_value((PROCESSOR_FILE, "image_processor"), inner, family, size);
            }
        }
        let text = read_file(
            &dir.join(PREPROCESSOR_FILE),
            "the model's preprocessor_config.json (or a processor_config.json with 'image_processor')",
        )?;
        Self::from_json(&text, family, size)
    }

    /// Reads the text of a `preprocessor_config.json`. Keys that are absent or null take the
    /// defaults of the image processor it names. `size` as for [`Self::from_dir`].
    ///
    /// # Errors
    /// [`LoadError::Config`] naming the key.
    pub fn from_json(text: &str, family: ProcessorFamily, size: (usize, usize)) -> Result<Self, LoadError> {
        let value = json::parse(PREPROCESSOR_FILE, text)?;
        from_value((PREPROCESSOR_FILE, ""), &value, family, size)
    }
}

/// A file's name and the dotted path of an object in it.
type Place<'a> = (&'a str, &'a str);

fn from_value(
    place: Place<'_>,
    value: &Value,
    family: ProcessorFamily,
    size: (usize, usize),
) -> Result<Preprocessing, LoadError> {
    let top = Section::new(place.0, place.1, value)?;
    let processor = read_processor(&top, family)?;
    refuse_other_steps(&top)?;
    let flag = |key: &str, default: bool| top.get_or(key, default);
    let resize = flag("do_resize", true)?.then(|| read_size(place, &top, processor)).transpose()?;
    let crop = flag("do_center_crop", processor.do_center_crop)?
        .then(|| read_crop(place, &top, processor))
        .transpose()?;
    let rescale = flag("do_rescale", true)?.then(|| read_factor(&top)).transpose()?;
    let normalize = flag("do_normalize", true)?.then(|| read_normalize(&top, processor)).transpose()?;
    let filter = read_filter(&top, processor)?;
    let rules =
        Rules { library: Library::Transformers, resize, filter, crop, fill: 0, rescale, normalize, size };
    check_against_tower(&top, &rules)?;
    Ok(Preprocessing::new(rules))
}

/// The processor that the file names, as the library's `AutoImageProcessor` chooses it.
fn read_processor(top: &Section<'_>, family: ProcessorFamily) -> Result<&'static Processor, LoadError> {
    let (key, suffixes) = match top.value("image_processor_type") {
        Some(_) => ("image_processor_type", ["ImageProcessorFast", "ImageProcessorPil", "ImageProcessor"]),
        None => ("feature_extractor_type", ["FeatureExtractor", "ImageProcessorFast", "ImageProcessor"]),
    };
    let default = family.default_processor();
    let base = match top.get::<String>(key)? {
        None => default.map(str::to_owned).ok_or_else(|| {
            let reason = "is missing, and models of this kind have no default; use the file as published, \
                          which names a processor such as 'ViTImageProcessor'";
            top.error("image_processor_type", reason)
        })?,
        Some(name) => {
            // The older names live on in the newer key, where the library takes the model's own default.
            let own = default.is_some_and(|default| name == format!("{default}FeatureExtractor"));
            let base = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix));
            let base = base.or(if own { default } else { None });
            let known = base.filter(|base| PROCESSORS.iter().any(|p| p.name == *base));
            known.ok_or_else(|| top.error(key, unknown_processor(&name)))?.to_owned()
        }
    };
    Ok(PROCESSORS.iter().find(|p| p.name == base).expect("checked against the same table"))
}

fn unknown_processor(name: &str) -> String {
    if name.starts_with("Siglip2") {
        return format!(
            "is '{name}', which keeps every image's own aspect ('naflex'); only the fixed-resolution \
             checkpoints of SigLIP 2, with a SiglipImageProcessor, can be read"
        );
    }
    let known: Vec<String> = PROCESSORS.iter().map(|p| format!("{}ImageProcessor", p.name)).collect();
    format!(
        "is '{name}', whose steps are not known; known are {}; use the file as published",
        known.join(", ")
    )
}

/// Steps of the library that are not done here.
fn refuse_other_steps(top: &Section<'_>) -> Result<(), LoadError> {
    if top.get_or("do_pad", false)? {
        return Err(
            top.error("do_pad", "is true, but padding after the crop is not supported; set it to false")
        );
    }
    if top.get_or("use_square_size", false)? {
        let reason = "is a setting of KOSMOS-2 and not supported; give 'size' as height and width instead";
        return Err(top.error("use_square_size", reason));
    }
    Ok(())
}

fn read_filter(top: &Section<'_>, processor: &Processor) -> Result<Filter, LoadError> {
    let id = top.get_or("resample", processor.filter as u64)?;
    Filter::from_pillow(id).ok_or_else(|| {
        top.error("resample", format!("is {id}, but Pillow's filters are 0 to 5, such as 3 for bicubic"))
    })
}

fn read_factor(top: &Section<'_>) -> Result<f64, LoadError> {
    let factor: f64 = top.get_or("rescale_factor", 1.0 / 255.0)?;
    if factor.is_finite() && factor > 0.0 {
        return Ok(factor);
    }
    Err(top.error("rescale_factor", format!("is {factor}, but must be above 0, usually 1/255")))
}

fn read_normalize(top: &Section<'_>, processor: &Processor) -> Result<([f64; 3], [f64; 3]), LoadError> {
    let mean = read_channels(top, "image_mean", processor.mean)?;
    let std = read_channels(top, "image_std", processor.std)?;
    if mean.iter().any(|v| !v.is_finite()) {
        return Err(top.error("image_mean", "is not finite; use the file as published"));
    }
    if std.iter().any(|v| !v.is_finite() || *v <= 0.0) {
        return Err(top.error("image_std", "must be above 0 in every channel; use the file as published"));
    }
    Ok((mean, std))
}

/// One number for all channels, or one for each.
fn read_channels(top: &Section<'_>, key: &str, default: [f64; 3]) -> Result<[f64; 3], LoadError> {
    match top.value(key) {
        Some(Value::Number(_)) => Ok([top.get_or(key, 0.0)?; 3]),
        _ => top.get_or(key, default),
    }
}

fn read_size(place: Place<'_>, top: &Section<'_>, processor: &Processor) -> Result<Resize, LoadError> {
    match top.value("size") {
        None => Ok(processor.size),
        // The historic spelling: what one number means depends on the processor.
        Some(Value::Number(_)) => {
            let edge = side(top, "size")?;
            let square = top.get_or("default_to_square", processor.default_to_square)?;
            Ok(if square { Resize::Exact(edge, edge) } else { Resize::ShortestEdge(edge) })
        }
        Some(Value::Array(_)) => pair(top, "size").map(|(h, w)| Resize::Exact(h, w)),
        Some(size) => {
            let path = nested(place, "size");
            let section = Section::new(place.0, &path, size)?;
            for key in ["longest_edge", "max_height", "max_width", "min_pixels", "max_pixels"] {
                if section.value(key).is_some() {
                    let reason = "is not part of this model's preprocessing; use 'shortest_edge', or 'height' and 'width'";
                    return Err(section.error(key, reason));
                }
            }
            match (section.value("shortest_edge"), section.value("height").or(section.value("width"))) {
                (Some(_), Some(_)) => Err(section
                    .error("shortest_edge", "is given beside height or width; use the file as published")),
                (Some(_), None) => Ok(Resize::ShortestEdge(side(&section, "shortest_edge")?)),
                _ => Ok(Resize::Exact(side(&section, "height")?, side(&section, "width")?)),
            }
        }
    }
}

fn read_crop(
    place: Place<'_>,
    top: &Section<'_>,
    processor: &Processor,
) -> Result<(usize, usize), LoadError> {
    match top.value("crop_size") {
        None => processor
            .crop_size
            .map(|side| (side, side))
            .ok_or_else(|| top.error("crop_size", "is missing, but do_center_crop is true; give the size")),
        Some(Value::Number(_)) => side(top, "crop_size").map(|side| (side, side)),
        Some(Value::Array(_)) => pair(top, "crop_size"),
        Some(size) => {
            let path = nested(place, "crop_size");
            let section = Section::new(place.0, &path, size)?;
            Ok((side(&section, "height")?, side(&section, "width")?))
        }
    }
}

fn nested(place: Place<'_>, key: &str) -> String {
    if place.1.is_empty() { key.to_owned() } else { format!("{}.{key}", place.1) }
}

fn side(section: &Section<'_>, key: &str) -> Result<usize, LoadError> {
    match section.get::<usize>(key)? {
        Some(side) => bounded(section, key, side),
        None => Err(section.error(key, "is missing; give the size in pixels")),
    }
}

/// Height and width as a list.
fn pair(section: &Section<'_>, key: &str) -> Result<(usize, usize), LoadError> {
    let [height, width]: [usize; 2] = section.get_or(key, [0; 2])?;
    Ok((bounded(section, key, height)?, bounded(section, key, width)?))
}

fn bounded(section: &Section<'_>, key: &str, side: usize) -> Result<usize, LoadError> {
    if (1..=SIZE_MAX).contains(&side) {
        return Ok(side);
    }
    Err(section.error(key, format!("is {side}, but must be 1 to {SIZE_MAX} pixels")))
}

/// Refuses a combination that gives the tower another size than it was built for.
fn check_against_tower(top: &Section<'_>, rules: &Rules) -> Result<(), LoadError> {
    let (key, given) = match (rules.crop, rules.resize) {
        (Some(crop), _) => ("crop_size", crop),
        (None, Some(Resize::ShortestEdge(edge))) => ("size", (edge, edge)),
        (None, Some(Resize::Exact(h, w) | Resize::Cover(h, w) | Resize::Contain(h, w))) => ("size", (h, w)),
        // Images must come in the tower's size; each is checked.
        (None, None) => return Ok(()),
    };
    if given == rules.size {
        return Ok(());
    }
    let reason = format!(
        "gives images of {} x {} (height x width), but the image tower reads {} x {}; use the two files that were published together",
        given.0, given.1, rules.size.0, rules.size.1
    );
    Err(top.error(key, reason))
}

/// The settings as a file that any model kind reads back to the same settings.
pub(super) fn to_value(rules: &Rules) -> Value {
    let (mean, std) = rules.normalize.unwrap_or((CLIP_MEAN, CLIP_STD));
    let size = match rules.resize {
        Some(Resize::Exact(h, w) | Resize::Cover(h, w) | Resize::Contain(h, w)) => size_value((h, w)),
        Some(Resize::ShortestEdge(edge)) => json!({"shortest_edge": edge}),
        None => json!({"shortest_edge": rules.size.0}),
    };
    json!({
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": true,
        "do_resize": rules.resize.is_some(),
        "size": size,
        "resample": rules.filter as u64,
        "do_center_crop": rules.crop.is_some(),
        "crop_size": size_value(rules.crop.unwrap_or(rules.size)),
        "do_rescale": rules.rescale.is_some(),
        "rescale_factor": rules.rescale.unwrap_or(1.0 / 255.0),
        "do_normalize": rules.normalize.is_some(),
        "image_mean": mean,
        "image_std": std,
    })
}
