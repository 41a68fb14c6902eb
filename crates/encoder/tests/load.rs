//! Which model directories load, which are refused and with what words.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{
    Noise, Tensors, max_diff, read_tensors, tensor_shapes, tiny_config, tiny_model, write_model,
    write_tensors,
};
use diptych_core::{Embedding, Encode, PreparedImage};
use diptych_encoder::{DualEncoder, LoadError, WEIGHTS_FILE};
use half::{bf16, f16};
use safetensors::Dtype;
use serde_json::{Value, json};

fn embed(encoder: &DualEncoder) -> Vec<Embedding> {
    let mut noise = Noise::new(3);
    let side = encoder.image_size().0;
    let image =
        PreparedImage { values: (0..3 * side * side).map(|_| noise.next()).collect(), width: 1, height: 1 };
    let text = encoder.prepare_text("the cat sat on the mat").unwrap();
    let mut all = encoder.encode_images(&[image]).unwrap();
    all.extend(encoder.encode_texts(&[text]).unwrap());
    all
}

fn edit_weights(dir: &Path, edit: impl FnOnce(&mut Tensors)) {
    let mut tensors = read_tensors(&dir.join(WEIGHTS_FILE));
    edit(&mut tensors);
    write_tensors(&dir.join(WEIGHTS_FILE), &tensors);
}

fn edit_config(dir: &Path, edit: impl FnOnce(&mut Value)) {
    let path = dir.join("config.json");
    let mut config = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    edit(&mut config);
    std::fs::write(path, config.to_string()).unwrap();
}

fn convert(tensors: &mut Tensors, dtype: Dtype, encode: impl Fn(f32) -> [u8; 2]) {
    for (format, _, bytes) in tensors.values_mut() {
        *bytes = bytes.as_chunks::<4>().0.iter().flat_map(|b| encode(f32::from_le_bytes(*b))).collect();
        *format = dtype;
    }
}

#[test]
fn half_precision_loads_to_nearly_the_same_embeddings() {
    let dir = tiny_model();
    let full = DualEncoder::load(dir.path()).unwrap();
    let truth = embed(&full);
    let parameters: usize = tensor_shapes(&tiny_config()).values().map(|s| s.iter().product::<usize>()).sum();
    assert_eq!(full.parameters(), parameters as u64);
    assert!((full.logit_scale() - 2.6592).abs() < 1e-6);
    type Encode = fn(f32) -> [u8; 2];
    let formats: [(Dtype, Encode, f32); 2] = [
        (Dtype::F16, |v| f16::from_f32(v).to_le_bytes(), 4e-3),
        (Dtype::BF16, |v| bf16::from_f32(v).to_le_bytes(), 3e-2),
    ];
    for (dtype, encode, tolerance) in formats {
        let dir = tiny_model();
        edit_weights(dir.path(), |tensors| convert(tensors, dtype, encode));
        let half = DualEncoder::load(dir.path()).unwrap();
        for (a, b) in embed(&half).iter().zip(&truth) {
            let difference = max_diff(a.as_slice(), b.as_slice());
            assert!(difference > 0.0 && difference < tolerance, "{dtype:?}: {difference}");
        }
        assert_ne!(half.model_id(), full.model_id());
    }
}

fn shard(dir: &Path) {
    let tensors = read_tensors(&dir.join(WEIGHTS_FILE));
    std::fs::remove_file(dir.join(WEIGHTS_FILE)).unwrap();
    let mut map = serde_json::Map::new();
    let mut shards = [Tensors::new(), Tensors::new(), Tensors::new()];
    for (i, (name, tensor)) in tensors.into_iter().enumerate() {
        map.insert(name.clone(), json!(format!("model-0000{}-of-00003.safetensors", i % 3 + 1)));
        shards[i % 3].insert(name, tensor);
    }
    for (i, shard) in shards.iter().enumerate() {
        write_tensors(&dir.join(format!("model-0000{}-of-00003.safetensors", i + 1)), shard);
    }
    let index = json!({"metadata": {"total_size": 0}, "weight_map": map});
    std::fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

#[test]
fn shards_are_the_same_model() {
    let dir = tiny_model();
    let whole = DualEncoder::load(dir.path()).unwrap();
    shard(dir.path());
    let sharded = DualEncoder::load(dir.path()).unwrap();
    assert_eq!(embed(&sharded), embed(&whole));
    assert_eq!(sharded.model_id(), whole.model_id());

    std::fs::remove_file(dir.path().join("model-00002-of-00003.safetensors")).unwrap();
    let error = DualEncoder::load(dir.path()).unwrap_err();
    assert!(error.to_string().contains("model-00002-of-00003.safetensors"), "{error}");
    let index = dir.path().join("model.safetensors.index.json");
    std::fs::write(index, r#"{"weight_map": {"logit_scale": "../elsewhere.safetensors"}}"#).unwrap();
    let error = DualEncoder::load(dir.path()).unwrap_err();
    assert!(error.to_string().contains("weight_map.logit_scale"), "{error}");
}

#[test]
fn the_model_id_follows_everything_that_decides_an_embedding() {
    let base = DualEncoder::load(tiny_model().path()).unwrap().model_id();
    let same = DualEncoder::load(tiny_model().path()).unwrap().model_id();
    assert_eq!(base, same);

    let changes: [&dyn Fn(&Path); 5] = [
        &|dir| write_model(dir, &tiny_config(), 2),
        &|dir| edit_weights(dir, |t| t.get_mut("logit_scale").unwrap().2[0] ^= 1),
        &|dir| edit_config(dir, |c| c["vision_config"]["layer_norm_eps"] = json!(1e-6)),
        &|dir| {
            let path = dir.join("preprocessor_config.json");
            let text = std::fs::read_to_string(&path).unwrap();
            std::fs::write(&path, text.replace(r#""resample": 3"#, r#""resample": 2"#)).unwrap();
        },
        &|dir| {
            let path = dir.join("merges.txt");
            let text = std::fs::read_to_string(&path).unwrap();
            std::fs::write(&path, text.replace("t h\n", "")).unwrap();
        },
    ];
    let mut seen = vec![base];
    for (i, change) in changes.iter().enumerate() {
        let dir = tiny_model();
        change(dir.path());
        let id = DualEncoder::load(dir.path()).unwrap_or_else(|e| panic!("change {i}: {e}")).model_id();
        assert!(!seen.contains(&id), "change {i} went unnoticed");
        seen.push(id);
    }
}

#[test]
fn position_ids_buffers_are_ignored() {
    let dir = tiny_model();
    let truth = DualEncoder::load(dir.path()).unwrap();
    edit_weights(dir.path(), |tensors| {
        let ids: Vec<u8> = (0..24i64).flat_map(i64::to_le_bytes).collect();
        tensors.insert("text_model.embeddings.position_ids".into(), (Dtype::I64, vec![1, 24], ids));
        // Some writers store the scalar as a vector of one.
        tensors.get_mut("logit_scale").unwrap().1 = vec![1];
    });
    let loaded = DualEncoder::load(dir.path()).unwrap();
    assert_eq!(embed(&loaded), embed(&truth));
}

fn refused(change: impl FnOnce(&Path)) -> (LoadError, String) {
    let dir = tiny_model();
    change(dir.path());
    let error = DualEncoder::load(dir.path()).unwrap_err();
    let text = error.to_string();
    eprintln!("{text}");
    (error, text)
}

const FC2: &str = "vision_model.encoder.layers.1.mlp.fc2.weight";

#[test]
fn wrong_tensors_are_refused_by_name() {
    let (error, text) = refused(|dir| edit_weights(dir, |t| drop(t.remove(FC2))));
    assert!(matches!(error, LoadError::MissingTensor { .. }) && text.contains(FC2), "{text}");

    let (error, text) = refused(|dir| {
        edit_weights(dir, |t| t.get_mut(FC2).unwrap().1 = vec![96, 48]);
    });
    assert!(matches!(error, LoadError::TensorShape { .. }) && text.contains("[48, 96]"), "{text}");

    let (error, text) = refused(|dir| {
        edit_weights(dir, |t| drop(t.insert("logit_bias".into(), (Dtype::F32, vec![1], vec![0; 4]))));
    });
    assert!(
        matches!(error, LoadError::ExtraTensors { count: 1, .. }) && text.contains("logit_bias"),
        "{text}"
    );

    let (error, text) = refused(|dir| {
        edit_weights(dir, |t| t.get_mut(FC2).unwrap().2[40..44].copy_from_slice(&f32::NAN.to_le_bytes()));
    });
    assert!(matches!(error, LoadError::NotFinite { position: 10, .. }) && text.contains(FC2), "{text}");

    let (error, text) = refused(|dir| {
        edit_weights(dir, |t| {
            let (dtype, _, bytes) = t.get_mut(FC2).unwrap();
            *bytes = vec![0; bytes.len() / 4];
            *dtype = Dtype::I8;
        });
    });
    assert!(matches!(error, LoadError::TensorType { .. }) && text.contains("I8"), "{text}");

    // One block more than the weights hold.
    let (_, text) = refused(|dir| edit_config(dir, |c| c["text_config"]["num_hidden_layers"] = json!(3)));
    assert!(text.contains("text_model.encoder.layers.2."), "{text}");
}

#[test]
fn broken_files_are_refused() {
    let weights = |dir: &Path| dir.join(WEIGHTS_FILE);
    let cuts: [&dyn Fn(Vec<u8>) -> Vec<u8>; 5] = [
        &|b| b[..b.len() - 5].to_vec(),
        &|b| b[..100].to_vec(),
        &|_| Vec::new(),
        &|_| b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n".to_vec(),
        &|mut b| {
            b[..8].copy_from_slice(&u64::MAX.to_le_bytes());
            b
        },
    ];
    for cut in cuts {
        let (error, text) = refused(|dir| {
            let bytes = cut(std::fs::read(weights(dir)).unwrap());
            std::fs::write(weights(dir), bytes).unwrap();
        });
        assert!(matches!(error, LoadError::Weights { .. }) && text.contains(WEIGHTS_FILE), "{text}");
    }
    for file in [WEIGHTS_FILE, "config.json", "preprocessor_config.json", "merges.txt", "vocab.json"] {
        let (error, text) = refused(|dir| std::fs::remove_file(dir.join(file)).unwrap());
        let expected = if file == "vocab.json" { "tokenizer.json" } else { file };
        assert!(matches!(error, LoadError::MissingFile { .. }) && text.contains(expected), "{text}");
    }
    let (_, text) = refused(|dir| std::fs::write(dir.join("tokenizer.json"), "{}").unwrap());
    assert!(text.contains("tokenizer.json"), "{text}");
}

#[test]
fn settings_that_do_not_fit_are_refused_by_key() {
    let (_, text) = refused(|dir| edit_config(dir, |c| c["vision_config"]["hidden_act"] = json!("softsign")));
    assert!(text.contains("vision_config.hidden_act") && text.contains("softsign"), "{text}");

    let (_, text) = refused(|dir| edit_config(dir, |c| c["vision_config"]["image_size"] = json!(64)));
    assert!(text.contains("crop_size") && text.contains("64"), "{text}");

    let (_, text) = refused(|dir| edit_config(dir, |c| c["text_config"]["eos_token_id"] = json!(7)));
    assert!(text.contains("at the first token 7"), "{text}");

    let (_, text) = refused(|dir| edit_config(dir, |c| c["text_config"]["vocab_size"] = json!(500)));
    assert!(text.contains("500"), "{text}");
}
