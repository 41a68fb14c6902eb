//! Small stand-ins for published trunks, with random weights: a sentence encoder, and a MobileNetV2, which
//! has only one size.

use std::path::Path;

use safetensors::Dtype;
use serde_json::json;

use super::{Noise, Tensors, write_tensors};

fn add(tensors: &mut Tensors, noise: &mut Noise, name: String, shape: &[usize], scale: f32, offset: f32) {
    let count: usize = shape.iter().product();
    let bytes = (0..count).flat_map(|_| (offset + scale * noise.next()).to_le_bytes()).collect();
    tensors.insert(name, (Dtype::F32, shape.to_vec(), bytes));
}

/// [`write_bert_of`] a few words.
pub fn write_bert(dir: &Path, seed: u64) {
    write_bert_of(dir, seed, &["a", "dog", "cat", "on", "the", "beach", "runs", "."]);
}

/// A `BertModel` of two layers with its unused pooler, and a tokenizer that knows some words and asks for
/// padding and truncation to 4 tokens, which is not obeyed.
pub fn write_bert_of(dir: &Path, seed: u64, words: &[&str]) {
    std::fs::create_dir_all(dir).expect("creates");
    let tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"].iter().chain(words);
    let (vocab, hidden, inner, positions) = (4 + words.len(), 32, 48, 300);
    let config = json!({"model_type": "bert", "vocab_size": vocab, "hidden_size": hidden,
        "intermediate_size": inner, "num_hidden_layers": 2, "num_attention_heads": 4,
        "max_position_embeddings": positions, "type_vocab_size": 2, "hidden_act": "gelu"});
    std::fs::write(dir.join("config.json"), config.to_string()).expect("writes");
    let vocabulary: serde_json::Map<_, _> =
        tokens.enumerate().map(|(id, word)| ((*word).to_owned(), json!(id))).collect();
    let special = |token: &str| json!({"SpecialToken": {"id": token, "type_id": 0}});
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    let tokenizer = json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 4}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
                    "pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": [],
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                       "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing", "single": [special("[CLS]"), text, special("[SEP]")],
            "pair": [special("[CLS]"), text, special("[SEP]")],
            "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                               "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}}},
        "decoder": null,
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": vocabulary},
    });
    std::fs::write(dir.join("tokenizer.json"), tokenizer.to_string()).expect("writes");
    let (mut tensors, mut noise) = (Tensors::new(), Noise::new(seed));
    let mut linear = |name: &str, out: usize, input: usize| {
        let scale = 2.0 / (input as f32).sqrt();
        add(&mut tensors, &mut noise, format!("{name}.weight"), &[out, input], scale, 0.0);
        add(&mut tensors, &mut noise, format!("{name}.bias"), &[out], 0.1, 0.0);
    };
    for layer in (0..2).map(|i| format!("encoder.layer.{i}")) {
        for part in ["query", "key", "value"] {
            linear(&format!("{layer}.attention.self.{part}"), hidden, hidden);
        }
        linear(&format!("{layer}.attention.output.dense"), hidden, hidden);
        linear(&format!("{layer}.intermediate.dense"), inner, hidden);
        linear(&format!("{layer}.output.dense"), hidden, inner);
    }
    linear("pooler.dense", hidden, hidden);
    let mut norms = vec!["embeddings.LayerNorm".to_owned()];
    norms.extend((0..2).flat_map(|i| {
        ["attention.output", "output"].map(|part| format!("encoder.layer.{i}.{part}.LayerNorm"))
    }));
    for norm in norms {
        add(&mut tensors, &mut noise, format!("{norm}.weight"), &[hidden], 0.2, 1.0);
        add(&mut tensors, &mut noise, format!("{norm}.bias"), &[hidden], 0.1, 0.0);
    }
    for (table, rows) in [("word", vocab), ("position", positions), ("token_type", 2)] {
        let name = format!("embeddings.{table}_embeddings.weight");
        add(&mut tensors, &mut noise, name, &[rows, hidden], 1.0, 0.0);
    }
    write_tensors(&dir.join("sentence.safetensors"), &tensors);
}

/// torchvision's `mobilenet_v2` with its classifier and counters, as one file.
pub fn write_mobilenet(path: &Path, seed: u64) {
    let (mut tensors, mut noise) = (Tensors::new(), Noise::new(seed));
    let mut pair = |conv: String, norm: String, shape: [usize; 4]| {
        let fan_in = (shape[1] * shape[2] * shape[3]) as f32;
        add(&mut tensors, &mut noise, format!("{conv}.weight"), &shape, 2.5 / fan_in.sqrt(), 0.0);
        for (part, scale, offset) in
            [("weight", 0.2, 1.0), ("bias", 0.3, 0.2), ("running_mean", 0.1, 0.0), ("running_var", 0.2, 1.0)]
        {
            add(&mut tensors, &mut noise, format!("{norm}.{part}"), &shape[..1], scale, offset);
        }
        let counter = (Dtype::I64, Vec::new(), 7i64.to_le_bytes().to_vec());
        tensors.insert(format!("{norm}.num_batches_tracked"), counter);
    };
    pair("features.0.0".into(), "features.0.1".into(), [32, 3, 3, 3]);
    let (mut input, mut block) = (32, 1);
    for (factor, out, count) in
        [(1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1)]
    {
        for _ in 0..count {
            let (name, inner) = (format!("features.{block}.conv"), input * factor);
            let expands = usize::from(factor > 1);
            if expands == 1 {
                pair(format!("{name}.0.0"), format!("{name}.0.1"), [inner, input, 1, 1]);
            }
            pair(format!("{name}.{expands}.0"), format!("{name}.{expands}.1"), [inner, 1, 3, 3]);
            let (conv, norm) = (format!("{name}.{}", expands + 1), format!("{name}.{}", expands + 2));
            pair(conv, norm, [out, inner, 1, 1]);
            (input, block) = (out, block + 1);
        }
    }
    pair("features.18.0".into(), "features.18.1".into(), [1280, 320, 1, 1]);
    add(&mut tensors, &mut noise, "classifier.1.weight".into(), &[10, 1280], 0.1, 0.0);
    add(&mut tensors, &mut noise, "classifier.1.bias".into(), &[10], 0.1, 0.0);
    write_tensors(path, &tensors);
}
