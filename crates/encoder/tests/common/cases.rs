//! Tiny models of every family and option, made from the cases of a fixture.

use std::path::Path;

use serde_json::{Value, json};

use super::{formula, letter_tokenizer};

/// A file of cases.
pub fn fixture(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// A case's model directory as a user would have it, with a tokenizer that nothing depends on; `cases`
/// resolves references to other cases.
pub fn write(dir: &Path, case: &Value, cases: &[Value]) {
    let config = &case["config"];
    let open_clip = config.get("model_cfg").is_some();
    let (config_file, weights_file) = match open_clip {
        true => ("open_clip_config.json", "open_clip_model.safetensors"),
        false => ("config.json", "model.safetensors"),
    };
    std::fs::write(dir.join(config_file), config.to_string()).unwrap();
    std::fs::write(dir.join(weights_file), formula::safetensors(&formula::shapes(case, cases))).unwrap();
    let shape: [usize; 3] = serde_json::from_value(case["images"]["shape"].clone()).unwrap();
    let kind = match config["model_type"] == "vision-text-dual-encoder" {
        true => json!("ViTImageProcessor"),
        false => Value::Null,
    };
    let processor = json!({"image_processor_type": kind, "size": {"height": shape[1], "width": shape[2]},
                           "crop_size": {"height": shape[1], "width": shape[2]}, "do_center_crop": false});
    std::fs::write(dir.join("preprocessor_config.json"), processor.to_string()).unwrap();
    // The first row of ids begins with the begin token, two words and the end token.
    let ids: Vec<u32> = serde_json::from_value(case["input_ids"][0].clone()).unwrap();
    let surround = ids[3] != ids[4];
    // The historic 2 does not name the end token.
    let eos = config["text_config"]["eos_token_id"].as_u64().filter(|&id| id > 2);
    let end = eos.map_or(ids[3], |id| id as u32);
    let begin = if surround { ids[0] } else { 62 };
    std::fs::write(dir.join("tokenizer.json"), letter_tokenizer(begin, end, surround)).unwrap();
    let settings = json!({"pad_token": "<|endoftext|>"});
    std::fs::write(dir.join("tokenizer_config.json"), settings.to_string()).unwrap();
}
