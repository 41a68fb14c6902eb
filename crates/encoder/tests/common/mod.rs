//! What the encoder's tests share: a tiny random CLIP directory that they write themselves, and the
//! place of the golden fixtures, which are not part of the repository.

#![allow(dead_code)]

pub mod cases;
pub mod formula;
pub mod trunks;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use diptych_encoder::{ClipConfig, Preprocessing, TextConfig, VisionConfig, WEIGHTS_FILE};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

/// Tensors by name: format, shape, little-endian bytes.
pub type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// A folder beside the checkout, or None with a loud line when it is not there.
pub fn shared(folder: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared").join(folder);
    if path.is_dir() {
        return Some(path);
    }
    eprintln!("SKIPPED: {} is absent, so nothing is compared with the reference", path.display());
    None
}

/// Deterministic numbers in -1 to 1.
pub struct Noise(u64);

impl Noise {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| (self.next() * 127.0 + 128.0) as u8).collect()
    }
}

pub const MERGES: [&str; 4] = ["a t</w>", "c at</w>", "t h", "th e</w>"];

/// The vocabulary of byte-level BPE: 256 bytes, the same at a word's end, merges, special tokens.
pub fn vocab() -> Vec<String> {
    let printable =
        |b: u32| (0x21..=0x7e).contains(&b) || (0xa1..=0xac).contains(&b) || (0xae..=0xff).contains(&b);
    let mut alphabet: Vec<String> = Vec::new();
    let mut moved = 256;
    for byte in 0..256u32 {
        let code = if printable(byte) {
            byte
        } else {
            moved += 1;
            moved - 1
        };
        alphabet.push(char::from_u32(code).expect("below the surrogates").to_string());
    }
    let ends: Vec<String> = alphabet.iter().map(|c| format!("{c}</w>")).collect();
    let merged = MERGES.iter().map(|m| m.replace(' ', ""));
    let special = ["<|startoftext|>", "<|endoftext|>"].map(str::to_owned);
    alphabet.into_iter().chain(ends).chain(merged).chain(special).collect()
}

/// A configuration small enough for hundreds of forward passes.
pub fn tiny_config() -> ClipConfig {
    let vocab_size = vocab().len();
    ClipConfig {
        text: TextConfig {
            vocab_size,
            hidden_size: 32,
            intermediate_size: 64,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            max_position_embeddings: 24,
            bos_token_id: vocab_size as u32 - 2,
            eos_token_id: vocab_size as u32 - 1,
            ..TextConfig::default()
        },
        vision: VisionConfig {
            hidden_size: 48,
            intermediate_size: 96,
            num_hidden_layers: 2,
            num_attention_heads: 3,
            image_size: 32,
            patch_size: 8,
            ..VisionConfig::default()
        },
        projection_dim: 40,
        logit_scale_init_value: 2.6592,
    }
}

/// Every tensor of a `CLIPModel` with its shape, under the names that are published.
pub fn tensor_shapes(config: &ClipConfig) -> BTreeMap<String, Vec<usize>> {
    let (text, vision) = (&config.text, &config.vision);
    let mut shapes = BTreeMap::new();
    let mut add = |name: String, shape: &[usize]| {
        shapes.insert(name, shape.to_vec());
    };
    add("logit_scale".into(), &[]);
    add("text_projection.weight".into(), &[config.projection_dim, text.hidden_size]);
    add("visual_projection.weight".into(), &[config.projection_dim, vision.hidden_size]);
    let embeddings = "text_model.embeddings";
    add(format!("{embeddings}.token_embedding.weight"), &[text.vocab_size, text.hidden_size]);
    add(format!("{embeddings}.position_embedding.weight"), &[text.max_position_embeddings, text.hidden_size]);
    let embeddings = "vision_model.embeddings";
    let patch = [vision.hidden_size, vision.num_channels, vision.patch_size, vision.patch_size];
    add(format!("{embeddings}.class_embedding"), &[vision.hidden_size]);
    add(format!("{embeddings}.patch_embedding.weight"), &patch);
    add(format!("{embeddings}.position_embedding.weight"), &[vision.num_positions(), vision.hidden_size]);
    for (norm, width) in [
        ("text_model.final_layer_norm", text.hidden_size),
        // Spelled like this in every published checkpoint.
        ("vision_model.pre_layrnorm", vision.hidden_size),
        ("vision_model.post_layernorm", vision.hidden_size),
    ] {
        add(format!("{norm}.weight"), &[width]);
        add(format!("{norm}.bias"), &[width]);
    }
    for (tower, layers, hidden, inner) in [
        ("text_model", text.num_hidden_layers, text.hidden_size, text.intermediate_size),
        ("vision_model", vision.num_hidden_layers, vision.hidden_size, vision.intermediate_size),
    ] {
        for layer in 0..layers {
            for (part, out, input) in [
                ("self_attn.q_proj", hidden, hidden),
                ("self_attn.k_proj", hidden, hidden),
                ("self_attn.v_proj", hidden, hidden),
                ("self_attn.out_proj", hidden, hidden),
                ("mlp.fc1", inner, hidden),
                ("mlp.fc2", hidden, inner),
            ] {
                add(format!("{tower}.encoder.layers.{layer}.{part}.weight"), &[out, input]);
                add(format!("{tower}.encoder.layers.{layer}.{part}.bias"), &[out]);
            }
            for norm in ["layer_norm1", "layer_norm2"] {
                add(format!("{tower}.encoder.layers.{layer}.{norm}.weight"), &[hidden]);
                add(format!("{tower}.encoder.layers.{layer}.{norm}.bias"), &[hidden]);
            }
        }
    }
    shapes
}

/// Random weights for a configuration: layer norms near one, everything else small.
pub fn random_tensors(config: &ClipConfig, seed: u64) -> Tensors {
    let mut noise = Noise::new(seed);
    tensor_shapes(config)
        .into_iter()
        .map(|(name, shape)| {
            let n: usize = shape.iter().product();
            let fan_in = shape.last().copied().unwrap_or(1) as f32;
            let bytes = (0..n)
                .flat_map(|_| {
                    let value = match () {
                        () if name.contains("norm") && name.ends_with("weight") => 1.0 + 0.2 * noise.next(),
                        () if name == "logit_scale" => 2.6592,
                        () if name.ends_with("bias") => 0.1 * noise.next(),
                        () => noise.next() * 2.0 / fan_in.sqrt(),
                    };
                    value.to_le_bytes()
                })
                .collect();
            (name, (Dtype::F32, shape, bytes))
        })
        .collect()
}

pub fn write_tensors(path: &Path, tensors: &Tensors) {
    let views: HashMap<&String, TensorView<'_>> = tensors
        .iter()
        .map(|(name, (dtype, shape, bytes))| {
            (name, TensorView::new(*dtype, shape.clone(), bytes).expect("shape and bytes agree"))
        })
        .collect();
    safetensors::serialize_to_file(views, None, path).expect("writes");
}

pub fn read_tensors(path: &Path) -> Tensors {
    let bytes = std::fs::read(path).expect("reads");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    file.iter()
        .map(|(name, view)| (name.to_owned(), (view.dtype(), view.shape().to_vec(), view.data().to_vec())))
        .collect()
}

pub fn floats(tensors: &Tensors, name: &str) -> Vec<f32> {
    tensors[name].2.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// The tokenizer as the older pair of files.
pub fn write_vocab_and_merges(dir: &Path) {
    let vocab: serde_json::Map<String, Value> =
        vocab().into_iter().enumerate().map(|(id, token)| (token, json!(id))).collect();
    std::fs::write(dir.join("vocab.json"), Value::Object(vocab).to_string()).expect("writes");
    std::fs::write(dir.join("merges.txt"), format!("#version: 0.2\n{}\n", MERGES.join("\n")))
        .expect("writes");
}

/// A tokenizer that knows one letter and, around it, the given ids under CLIP's names: all that towers
/// need that are fed with ids. `begin` is in the vocabulary in any case, `surround` says whether in texts.
pub fn letter_tokenizer(begin: u32, end: u32, surround: bool) -> String {
    let ids = [("<|startoftext|>", begin), ("<|endoftext|>", end)];
    let [first, last] = ids.map(|(name, _)| json!({"SpecialToken": {"id": name, "type_id": 0}}));
    let letter = json!({"Sequence": {"id": "A", "type_id": 0}});
    let single = if surround { vec![first, letter, last] } else { vec![letter, last] };
    let specials: serde_json::Map<String, Value> = ids
        .iter()
        .map(|(name, id)| ((*name).to_owned(), json!({"id": name, "ids": [id], "tokens": [name]})))
        .collect();
    let added = ids.map(|(name, id)| {
        json!({"id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    });
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": null, "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": specials},
        "decoder": null,
        "model": {"type": "BPE", "vocab": {"a": 5, "<|startoftext|>": begin, "<|endoftext|>": end}, "merges": []},
    })
    .to_string()
}

/// A whole model directory with random weights.
pub fn write_model(dir: &Path, config: &ClipConfig, seed: u64) {
    std::fs::create_dir_all(dir).expect("creates");
    std::fs::write(dir.join("config.json"), config.to_json()).expect("writes");
    let preprocessing = Preprocessing::for_training(
        config.vision.image_size,
        diptych_encoder::CLIP_MEAN,
        diptych_encoder::CLIP_STD,
    );
    std::fs::write(dir.join("preprocessor_config.json"), preprocessing.to_json()).expect("writes");
    write_vocab_and_merges(dir);
    write_tensors(&dir.join(WEIGHTS_FILE), &random_tensors(config, seed));
}

/// A tiny model directory that vanishes with the value.
pub fn tiny_model() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("temporary folder");
    write_model(dir.path(), &tiny_config(), 1);
    dir
}

/// Largest absolute difference.
pub fn max_diff(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}
