//! Settings files of every spelling, and the pipeline on small images.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::LoadError;

fn clip(json: &str, side: usize) -> Result<Preprocessing, LoadError> {
    Preprocessing::from_json(json, ProcessorFamily::Clip, (side, side))
}

fn open_clip(preprocess_cfg: Value, size: (usize, usize)) -> Result<Preprocessing, LoadError> {
    Preprocessing::from_open_clip(&json!({"model_cfg": {}, "preprocess_cfg": preprocess_cfg}), size)
}

#[test]
fn absent_keys_mean_the_clip_processor() {
    let read = clip("{}", 224).unwrap();
    assert_eq!(read, Preprocessing::for_training(224, CLIP_MEAN, CLIP_STD));
    let legacy = clip(r#"{"size": 64, "crop_size": 64}"#, 64).unwrap();
    assert_eq!(legacy, Preprocessing::for_training(64, CLIP_MEAN, CLIP_STD));
    let lists = clip(r#"{"size": [64, 64], "crop_size": [64, 64], "image_mean": 0.25}"#, 64).unwrap();
    assert_eq!(lists.rules.resize, Some(Resize::Exact(64, 64)));
    assert_eq!(lists.rules.normalize, Some(([0.25; 3], CLIP_STD)));
}

#[test]
fn absent_keys_mean_the_processor_that_the_file_names() {
    let half = Some(([0.5; 3], [0.5; 3]));
    let squash = Some(Resize::Exact(224, 224));
    let shortest = Some(Resize::ShortestEdge(224));
    let crop = Some((224, 224));
    let clip = Some((CLIP_MEAN, CLIP_STD));
    for (name, resize, crop, filter, normalize) in [
        ("CLIPImageProcessor", shortest, crop, Filter::Bicubic, clip),
        ("CLIPImageProcessorFast", shortest, crop, Filter::Bicubic, clip),
        ("CLIPImageProcessorPil", shortest, crop, Filter::Bicubic, clip),
        ("ChineseCLIPImageProcessor", shortest, crop, Filter::Bicubic, clip),
        ("BitImageProcessor", shortest, crop, Filter::Bicubic, clip),
        ("SiglipImageProcessor", squash, None, Filter::Bicubic, half),
        ("ViTImageProcessor", squash, None, Filter::Bilinear, half),
        ("DeiTImageProcessor", Some(Resize::Exact(256, 256)), crop, Filter::Bicubic, half),
    ] {
        let json = json!({"image_processor_type": name}).to_string();
        let read = Preprocessing::from_json(&json, ProcessorFamily::VisionText, (224, 224)).unwrap();
        let found = (read.rules.resize, read.rules.crop, read.rules.filter, read.rules.normalize);
        assert_eq!(found, (resize, crop, filter, normalize), "{name}");
    }
    let blip = json!({"image_processor_type": "BlipImageProcessor"}).to_string();
    let blip = Preprocessing::from_json(&blip, ProcessorFamily::VisionText, (384, 384)).unwrap();
    assert_eq!((blip.rules.resize, blip.rules.normalize), (Some(Resize::Exact(384, 384)), clip));
    let siglip = Preprocessing::from_json("{}", ProcessorFamily::Siglip, (224, 224)).unwrap();
    assert_eq!((siglip.rules.resize, siglip.rules.normalize), (squash, half));
}

#[test]
fn one_number_as_size_means_what_the_processor_makes_of_it() {
    let vit = r#"{"feature_extractor_type": "ViTFeatureExtractor", "size": 32}"#;
    let vit = Preprocessing::from_json(vit, ProcessorFamily::VisionText, (32, 32)).unwrap();
    assert_eq!((vit.rules.resize, vit.rules.crop), (Some(Resize::Exact(32, 32)), None));
    let old = r#"{"feature_extractor_type": "CLIPFeatureExtractor", "size": 40, "crop_size": 32}"#;
    assert_eq!(clip(old, 32).unwrap().rules.resize, Some(Resize::ShortestEdge(40)));
    let square = r#"{"size": 32, "crop_size": 32, "default_to_square": true}"#;
    assert_eq!(clip(square, 32).unwrap().rules.resize, Some(Resize::Exact(32, 32)));
    let siglip = Preprocessing::from_json(r#"{"size": 32}"#, ProcessorFamily::Siglip, (32, 32)).unwrap();
    assert_eq!(siglip.rules.resize, Some(Resize::ShortestEdge(32)));
    let own = r#"{"image_processor_type": "CLIPFeatureExtractor", "size": 32, "crop_size": 32}"#;
    assert!(clip(own, 32).is_ok());
}

#[test]
fn writing_and_reading_gives_the_same_settings() {
    for json in [
        r#"{"size": {"height": 32, "width": 32}, "do_center_crop": false, "resample": 2}"#,
        r#"{"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}, "do_rescale": false}"#,
        r#"{"do_resize": false, "do_center_crop": false, "do_normalize": false}"#,
        r#"{"do_resize": false, "crop_size": 32, "image_std": 2}"#,
    ] {
        let read = clip(json, 32).unwrap();
        assert_eq!(clip(&read.to_json(), 32).unwrap(), read, "{json}");
    }
    let siglip = r#"{"size": {"height": 24, "width": 32}, "resample": 2}"#;
    let siglip = Preprocessing::from_json(siglip, ProcessorFamily::Siglip, (24, 32)).unwrap();
    assert_eq!(Preprocessing::from_json(&siglip.to_json(), ProcessorFamily::Clip, (24, 32)).unwrap(), siglip);
    for (mode, size) in
        [("shortest", (32, 32)), ("shortest", (24, 32)), ("longest", (32, 24)), ("squash", (8, 9))]
    {
        for fill in [0, 127] {
            let cfg = json!({"resize_mode": mode, "fill_color": fill, "interpolation": "bicubic"});
            let read = open_clip(cfg, size).unwrap();
            let again: Value = serde_json::from_str(&read.to_json()).unwrap();
            assert_eq!(Preprocessing::from_open_clip(&again, size).unwrap(), read, "{mode} {size:?}");
        }
    }
    // The same numbers under another library are other pixels.
    let ours = Preprocessing::for_training(32, CLIP_MEAN, CLIP_STD);
    assert_ne!(open_clip(json!({}), (32, 32)).unwrap().to_json(), ours.to_json());
}

#[test]
fn open_clip_settings_take_the_librarys_defaults() {
    let read = open_clip(Value::Null, (32, 32)).unwrap();
    assert_eq!(read.rules.normalize, Some((CLIP_MEAN, CLIP_STD)));
    assert_eq!((read.rules.resize, read.rules.crop), (Some(Resize::ShortestEdge(32)), Some((32, 32))));
    let mobile = json!({"mean": [0, 0, 0], "std": [1, 1, 1], "interpolation": "bilinear", "size": [3, 3]});
    let read = open_clip(mobile, (32, 32)).unwrap();
    assert_eq!((read.rules.filter, read.rules.normalize), (Filter::Bilinear, Some(([0.0; 3], [1.0; 3]))));
    assert_eq!(open_clip(json!({"mean": 0}), (8, 8)).unwrap().rules.normalize, Some((CLIP_MEAN, CLIP_STD)));
    let wide = open_clip(json!({"interpolation": "bilinear"}), (8, 16)).unwrap();
    assert_eq!((wide.rules.resize, wide.rules.filter), (Some(Resize::Cover(8, 16)), Filter::Bicubic));
}

#[test]
fn wrong_settings_are_refused_by_name() {
    for (json, key) in [
        (r#"{"resample": 9}"#, "resample"),
        (r#"{"resample": "bicubic"}"#, "resample"),
        (r#"{"crop_size": 300}"#, "crop_size"),
        (r#"{"crop_size": {"shortest_edge": 224}}"#, "crop_size.height"),
        (r#"{"size": {"longest_edge": 224}}"#, "size.longest_edge"),
        (r#"{"size": {"max_height": 224, "max_width": 224}}"#, "size.max_height"),
        (r#"{"size": {"height": 224}}"#, "size.width"),
        (r#"{"size": {"shortest_edge": 224, "height": 224}}"#, "size.shortest_edge"),
        (r#"{"size": 0}"#, "size"),
        (r#"{"size": [224]}"#, "size"),
        (r#"{"size": "large"}"#, "size"),
        (r#"{"size": {"height": 99, "width": 224}, "do_center_crop": false}"#, "size"),
        (r#"{"size": 100, "do_center_crop": false}"#, "size"),
        (r#"{"image_std": [0, 1, 1]}"#, "image_std"),
        (r#"{"image_mean": [0, 1]}"#, "image_mean"),
        (r#"{"rescale_factor": -1}"#, "rescale_factor"),
        (r#"{"do_resize": "yes"}"#, "do_resize"),
        (r#"{"do_pad": true}"#, "do_pad"),
        (r#"{"use_square_size": true}"#, "use_square_size"),
        (r#"{"image_processor_type": "ConvNextImageProcessor"}"#, "image_processor_type"),
        (r#"{"image_processor_type": "Siglip2ImageProcessor"}"#, "naflex"),
        (r#"{"image_processor_type": "ViTFeatureExtractor"}"#, "image_processor_type"),
        (r#"{"feature_extractor_type": "EfficientNetFeatureExtractor"}"#, "feature_extractor_type"),
        (r#"{"image_processor_type": 3}"#, "image_processor_type"),
        (r#"{"image_processor_type": "SiglipImageProcessor", "do_center_crop": true}"#, "crop_size"),
        ("[]", "(top)"),
        (r#"{"size": 224"#, "line 1"),
    ] {
        let error = clip(json, 224).expect_err(json).to_string();
        assert!(error.contains(key) && error.contains(PREPROCESSOR_FILE), "{json}: {error}");
    }
    let error = Preprocessing::from_json("{}", ProcessorFamily::VisionText, (8, 8)).unwrap_err().to_string();
    assert!(error.contains("image_processor_type"), "{error}");
    for (cfg, key) in [
        (json!({"mode": "L"}), "preprocess_cfg.mode"),
        (json!({"interpolation": "nearest"}), "preprocess_cfg.interpolation"),
        (json!({"resize_mode": "crop"}), "preprocess_cfg.resize_mode"),
        (json!({"mean": [0.5]}), "preprocess_cfg.mean"),
        (json!({"std": [0.5, 0.5, 0]}), "preprocess_cfg.std"),
        (json!({"fill_color": 256}), "preprocess_cfg.fill_color"),
        (json!({"fill_color": [0, 0, 0]}), "preprocess_cfg.fill_color"),
        (json!(7), "preprocess_cfg"),
    ] {
        let error = open_clip(cfg.clone(), (8, 8)).expect_err(key).to_string();
        assert!(error.contains(key) && error.contains("open_clip_config.json"), "{cfg}: {error}");
    }
}

#[test]
fn the_nested_file_wins_over_the_older_one() {
    let dir = tempfile::tempdir().unwrap();
    let read = || Preprocessing::from_dir(dir.path(), ProcessorFamily::Clip, (32, 32));
    assert!(read().unwrap_err().to_string().contains(PREPROCESSOR_FILE));
    std::fs::write(dir.path().join(PREPROCESSOR_FILE), r#"{"size": 32, "crop_size": 32}"#).unwrap();
    std::fs::write(dir.path().join(PROCESSOR_FILE), r#"{"processor_class": "CLIPProcessor"}"#).unwrap();
    assert_eq!(read().unwrap().rules.resize, Some(Resize::ShortestEdge(32)));
    let nested = r#"{"image_processor": {"size": {"shortest_edge": 40}, "crop_size": 32}}"#;
    std::fs::write(dir.path().join(PROCESSOR_FILE), nested).unwrap();
    assert_eq!(read().unwrap().rules.resize, Some(Resize::ShortestEdge(40)));
    for (nested, key) in [
        (r#"{"image_processor": {"size": {"shortest_edge": 0}}}"#, "image_processor.size.shortest_edge"),
        (r#"{"image_processor": {"image_std": 0}}"#, "image_processor.image_std"),
        (r#"{"image_processor": []}"#, "image_processor"),
        ("{", "line 1"),
    ] {
        std::fs::write(dir.path().join(PROCESSOR_FILE), nested).unwrap();
        let error = read().unwrap_err().to_string();
        assert!(error.contains(key) && error.contains(PROCESSOR_FILE), "{nested}: {error}");
    }
}

#[test]
fn a_small_image_lies_in_the_middle_of_black() {
    let json = r#"{"do_resize": false, "crop_size": 8}"#;
    let settings = clip(json, 8).unwrap();
    let image = RgbImage::from_pixel(3, 11, image::Rgb([9, 9, 9]));
    let pixels = settings.pixels(&image);
    let row: Vec<u8> = pixels.data.iter().step_by(3).take(8).copied().collect();
    // (3 - 8) // 2 is -3.
    assert_eq!(row, [0, 0, 0, 9, 9, 9, 0, 0]);
    assert!(pixels.data.chunks_exact(24).all(|r| r.iter().step_by(3).eq(row.iter())));
}

#[test]
fn the_longest_mode_pads_with_the_fill_colour() {
    let settings = open_clip(json!({"resize_mode": "longest", "fill_color": 7}), (8, 8)).unwrap();
    let pixels = settings.pixels(&RgbImage::from_pixel(8, 3, image::Rgb([90, 90, 90])));
    let column: Vec<u8> = pixels.data.iter().step_by(24).copied().collect();
    // (8 - 3) // 2 before, the rest after.
    assert_eq!(column, [7, 7, 90, 90, 90, 7, 7, 7]);
}

#[test]
fn extreme_shapes_cost_no_more_than_the_crop() {
    let crops = Preprocessing::for_training(224, CLIP_MEAN, CLIP_STD);
    let pads = open_clip(json!({"resize_mode": "longest", "fill_color": 20}), (224, 224)).unwrap();
    for (width, height) in [(1, 65_535), (65_535, 1), (1, 1), (1_000_000, 2)] {
        let image = RgbImage::from_pixel(width, height, image::Rgb([10, 20, 30]));
        let pixels = crops.pixels(&image);
        assert!(pixels.data.chunks_exact(3).all(|p| p == [10, 20, 30]), "{width} x {height}");
        assert_eq!(pixels.to_planes().len(), 224 * 224 * 3);
        let padded = pads.pixels(&image);
        assert_eq!(padded.data.iter().filter(|v| **v == 10).count().min(224), 224, "{width} x {height}");
    }
}

#[test]
fn without_a_crop_only_fitting_shapes_pass() {
    let settings = clip(r#"{"size": 16, "do_center_crop": false}"#, 16).unwrap();
    assert!(settings.prepare_rgb(&RgbImage::new(40, 40)).is_ok());
    let error = settings.prepare_rgb(&RgbImage::new(40, 80)).unwrap_err().to_string();
    assert!(error.contains("40 x 80") && error.contains("crop it"), "{error}");
    let neither = clip(r#"{"do_resize": false, "do_center_crop": false}"#, 16).unwrap();
    assert!(neither.prepare_rgb(&RgbImage::new(16, 16)).is_ok());
    assert!(neither.prepare_rgb(&RgbImage::new(16, 17)).is_err());
}

#[test]
fn steps_can_be_left_out() {
    let json = r#"{"size": 1, "crop_size": 1, "do_rescale": false, "do_normalize": false}"#;
    let raw = clip(json, 1).unwrap();
    let image = RgbImage::from_pixel(1, 1, image::Rgb([9, 99, 255]));
    assert_eq!(*raw.prepare_rgb(&image).unwrap().values, [9.0, 99.0, 255.0]);
    let scaled = r#"{"size": 1, "crop_size": 1, "rescale_factor": 0.5, "image_mean": 1, "image_std": 2}"#;
    assert_eq!(*clip(scaled, 1).unwrap().prepare_rgb(&image).unwrap().values, [1.75, 24.25, 63.25]);
}

#[test]
fn alpha_arithmetic_is_pillows() {
    assert_eq!(premultiply([255, 100, 3, 128]), [128, 50, 2, 128]);
    assert_eq!(premultiply([255, 100, 3, 0]), [0, 0, 0, 0]);
    assert_eq!(unpremultiply([128, 50, 2, 128]), [255, 99, 3, 128]);
    assert_eq!(unpremultiply([9, 8, 7, 1]), [255, 255, 255, 1]);
    assert_eq!(unpremultiply([9, 8, 7, 0]), [9, 8, 7, 0]);
}

#[test]
fn the_description_names_every_step() {
    let described = Preprocessing::for_training(224, CLIP_MEAN, CLIP_STD).describe();
    let text: Vec<String> = described.iter().map(|(name, what)| format!("{name}: {what}")).collect();
    let text = text.join("\n");
    for words in ["224 x 224", "shorter side to 224", "bicubic", "centre", "divided by 255", "0.48145466"] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn open_clip_resamples_palettes_by_the_nearest_and_alpha_by_weight() {
    let settings = |mode: &str| {
        let cfg = json!({"resize_mode": mode, "fill_color": 1, "mean": [0, 0, 0], "std": [1, 1, 1]});
        open_clip(cfg, (2, 2)).unwrap()
    };
    // Columns of pure red and pure blue: no purple comes out of a GIF.
    let stripes = RgbImage::from_fn(8, 4, |x, _| image::Rgb(if x < 3 { [255, 0, 0] } else { [0, 0, 255] }));
    let mut gif = std::io::Cursor::new(Vec::new());
    stripes.write_to(&mut gif, image::ImageFormat::Gif).unwrap();
    let squashed = settings("squash").pixels_of_file(gif.get_ref()).unwrap();
    assert!(squashed.data.chunks(3).all(|p| p.iter().filter(|v| **v < 8).count() == 2), "{squashed:?}");
    assert!(settings("squash").pixels(&stripes).data.chunks(3).any(|p| p[0] > 8 && p[2] > 8));

    // A transparent column lends its colour to nothing, and the border is not thinned by it.
    let half = RgbaImage::from_fn(8, 4, |x, _| {
        image::Rgba([if x < 4 { 200 } else { 9 }, 0, 0, if x < 4 { 255 } else { 0 }])
    });
    let mut png = std::io::Cursor::new(Vec::new());
    half.write_to(&mut png, image::ImageFormat::Png).unwrap();
    let padded = settings("longest").pixels_of_file(png.get_ref()).unwrap();
    assert!(padded.data[0] >= 198 && padded.data[3] >= 198, "{padded:?}");
    assert_eq!(padded.data[6..], [1; 6]);
    let dropped = clip(r#"{"size": {"height": 2, "width": 2}, "do_center_crop": false}"#, 2).unwrap();
    assert!(dropped.pixels_of_file(png.get_ref()).unwrap().data[3] < 100);
}
