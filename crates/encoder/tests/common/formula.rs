//! Tensors by formula: the Rust copy of `fixtures/formula.py`, where the rules are explained.
//!
//! Owns: the values of named tensors, the expansion of merged names, and a weight file of them. Does
//! not own what a fixture's cases mean.

#![allow(dead_code, clippy::unwrap_used)]

use std::collections::BTreeMap;

use serde_json::Value;

/// `count` values in [-1, 1) for a name.
pub fn uniform(name: &str, count: usize) -> impl Iterator<Item = f32> {
    let hash = name
        .bytes()
        .fold(0xCBF2_9CE4_8422_2325_u64, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3));
    (1..=count as u64).map(move |i| {
        let mut z = hash.wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        (z >> 40) as f32 * (1.0 / (1 << 23) as f32) - 1.0
    })
}

/// The values of a tensor with the given offset and scale.
pub fn tensor(name: &str, shape: &[usize], offset: f64, scale: f64) -> Vec<f32> {
    let (offset, scale) = (offset as f32, scale as f32);
    uniform(name, shape.iter().product()).map(|v| offset + scale * v).collect()
}

/// The values of a weight.
pub fn weight(name: &str, shape: &[usize]) -> Vec<f32> {
    let (offset, scale) = kind(name, shape);
    tensor(name, shape, offset, scale)
}

/// Whether a tensor is the integer buffer that batch norms carry, which is 0.
pub fn is_counter(name: &str) -> bool {
    name.ends_with("num_batches_tracked")
}

fn kind(name: &str, shape: &[usize]) -> (f64, f64) {
    match name.rsplit('.').next().unwrap() {
        "logit_scale" => return (2.6592, 0.0),
        "logit_bias" => return (-10.0, 0.0),
        "running_var" => return (1.0, 0.5),
        "running_mean" => return (0.0, 0.1),
        "gamma" => return (0.1, 0.05),
        "weight" if shape.len() <= 1 => return (1.0, 0.2),
        _ if shape.len() <= 1 => return (0.0, 0.2),
        _ => {}
    }
    if shape.len() < 4 && ["embed", "cls_token", "probe", "latent"].iter().any(|word| name.contains(word)) {
        return (0.0, 0.5);
    }
    let gain = if shape.len() == 2 {
        1.5
    } else if name.contains("reparam_conv") && !name.contains("token_mixer") {
        2.5
    } else {
        1.0
    };
    (0.0, gain * (3.0 / shape[1..].iter().product::<usize>() as f64).sqrt())
}

/// All names that a merged one stands for: `{a,b}` either word, `{0..3}` the numbers 0 to 3.
pub fn expand(pattern: &str) -> Vec<String> {
    let Some((head, rest)) = pattern.split_once('{') else { return vec![pattern.to_owned()] };
    let (inside, tail) = rest.split_once('}').unwrap();
    let words: Vec<String> = match inside.split_once("..") {
        Some((low, high)) => {
            (low.parse::<usize>().unwrap()..=high.parse().unwrap()).map(|i| i.to_string()).collect()
        }
        None => inside.split(',').map(str::to_owned).collect(),
    };
    let tails = expand(tail);
    words.iter().flat_map(|word| tails.iter().map(move |tail| format!("{head}{word}{tail}"))).collect()
}

/// Names and shapes of a case's tensors; `cases` resolves a reference to another case.
pub fn shapes(case: &Value, cases: &[Value]) -> BTreeMap<String, Vec<usize>> {
    match &case["tensors"] {
        Value::String(other) => shapes(cases.iter().find(|c| c["name"] == **other).unwrap(), cases),
        tensors => {
            let mut out = BTreeMap::new();
            for (pattern, shape) in tensors.as_object().unwrap() {
                let shape: Vec<usize> = serde_json::from_value(shape.clone()).unwrap();
                out.extend(expand(pattern).into_iter().map(|name| (name, shape.clone())));
            }
            out
        }
    }
}

/// The bytes of a safetensors file with these tensors.
pub fn safetensors(shapes: &BTreeMap<String, Vec<usize>>) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, shape) in shapes {
        let start = data.len();
        let kind = if is_counter(name) {
            data.extend(std::iter::repeat_n(0u8, 8 * shape.iter().product::<usize>()));
            "I64"
        } else {
            data.extend(weight(name, shape).iter().flat_map(|v| v.to_le_bytes()));
            "F32"
        };
        let entry = serde_json::json!({"dtype": kind, "shape": shape, "data_offsets": [start, data.len()]});
        header.insert(name.clone(), entry);
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header);
    out.extend(data);
    out
}

/// Compares the values with those that `formula.py` left in a fixture.
pub fn check(fixture: &Value) {
    for probe in fixture["formula_check"].as_array().unwrap() {
        let name = probe["name"].as_str().unwrap();
        let shape: Vec<usize> = serde_json::from_value(probe["shape"].clone()).unwrap();
        let values = weight(name, &shape);
        let first: Vec<f32> = serde_json::from_value(probe["first"].clone()).unwrap();
        assert_eq!(values[..3], first, "{name}");
        assert_eq!(*values.last().unwrap(), probe["last"].as_f64().unwrap() as f32, "{name}");
    }
}
