//! Text towers by themselves as training opens them, and directories that are written from them.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::trunks::write_bert;
use common::{Tensors, read_tensors, shared, tiny_model, write_tensors};
use diptych_core::Encode;
use diptych_encoder::{Checkpoint, DualEncoder, TextCheckpoint, TextTrunk, WEIGHTS_FILE};
use safetensors::Dtype;

#[test]
fn a_sentence_encoder_is_written_as_it_was_but_for_what_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    write_bert(dir.path(), 1);
    let file = dir.path().join("sentence.safetensors");
    // In half precision, as many are published.
    let mut tensors = read_tensors(&file);
    for (dtype, _, bytes) in tensors.values_mut() {
        let values = bytes.as_chunks::<4>().0.iter().map(|b| half::f16::from_f32(f32::from_le_bytes(*b)));
        (*dtype, *bytes) = (Dtype::F16, values.flat_map(half::f16::to_le_bytes).collect());
    }
    write_tensors(&file, &tensors);
    std::fs::create_dir(dir.path().join("1_Pooling")).unwrap();
    let pooling = r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}"#;
    std::fs::write(dir.path().join("1_Pooling/config.json"), pooling).unwrap();
    std::fs::write(dir.path().join("sentence_bert_config.json"), r#"{"max_seq_length": 7}"#).unwrap();

    let digest = |dir: &Path| TextTrunk::open(dir).unwrap().digest();
    let checkpoint = TextCheckpoint::open(dir.path()).unwrap();
    assert_eq!(checkpoint.tokenizer().context_length(), 7);
    assert!(checkpoint.has("pooler.dense.bias") && !checkpoint.has("logit_scale"));
    assert!(checkpoint.parts().sources().all(|source| !source.name.starts_with("pooler.")));
    let out = tempfile::tempdir().unwrap();
    checkpoint.write(out.path(), &BTreeMap::new()).unwrap();
    assert_eq!(digest(out.path()), digest(dir.path()));
    assert_eq!(read_tensors(&out.path().join(WEIGHTS_FILE)), tensors);

    let name = "encoder.layer.1.output.LayerNorm.bias";
    let values: Vec<f32> = checkpoint.tensor(name).unwrap().iter().map(|v| v + 1.0).collect();
    checkpoint.write(out.path(), &BTreeMap::from([(name.to_owned(), values.clone())])).unwrap();
    assert_ne!(digest(out.path()), digest(dir.path()));
    let (mut after, copy) =
        (read_tensors(&out.path().join(WEIGHTS_FILE)), TextCheckpoint::open(out.path()).unwrap());
    assert_eq!(after[name].0, Dtype::F16);
    let close = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-3;
    assert!(copy.tensor(name).unwrap().iter().zip(&values).all(close));
    after.insert(name.to_owned(), tensors[name].clone());
    assert_eq!(after, tensors);
}

#[test]
fn the_text_tower_of_a_dual_encoder_is_opened_by_itself() {
    let dir = tiny_model();
    let (text, both) = (TextCheckpoint::open(dir.path()).unwrap(), Checkpoint::open(dir.path()).unwrap());
    assert_eq!(text.parts(), &both.anatomy().text);
    let out = tempfile::tempdir().unwrap();
    text.write(out.path(), &BTreeMap::new()).unwrap();
    let id = |dir: &Path| DualEncoder::load(dir).unwrap().model_id();
    assert_eq!(id(out.path()), id(dir.path()));
}

#[test]
fn a_sentence_encoder_that_does_not_load_is_not_opened() {
    let edited = |edit: &dyn Fn(&mut Tensors)| {
        let dir = tempfile::tempdir().unwrap();
        write_bert(dir.path(), 1);
        let file = dir.path().join("sentence.safetensors");
        let mut tensors = read_tensors(&file);
        edit(&mut tensors);
        write_tensors(&file, &tensors);
        let (opened, loaded) = (TextCheckpoint::open(dir.path()), TextTrunk::open(dir.path()));
        let error = opened.unwrap_err().to_string();
        assert_eq!(error, loaded.map(|_| ()).unwrap_err().to_string());
        error
    };
    let norm = "embeddings.LayerNorm.bias";
    assert!(edited(&|tensors| drop(tensors.remove(norm))).contains(norm));
    let extra = edited(&|tensors| {
        let tensor = tensors[norm].clone();
        tensors.insert("cls.predictions.bias".to_owned(), tensor);
    });
    assert!(extra.contains("cls.predictions.bias"), "{extra}");
}

/// The published encoder comes back bit for bit.
#[test]
fn a_copy_of_a_published_sentence_encoder_is_the_same() {
    let Some(models) = shared("models") else { return };
    let (dir, out) = (models.join("all-MiniLM-L6-v2-fp16"), tempfile::tempdir().unwrap());
    TextCheckpoint::open(&dir).unwrap().write(out.path(), &BTreeMap::new()).unwrap();
    assert_eq!(TextTrunk::open(out.path()).unwrap().digest(), TextTrunk::open(&dir).unwrap().digest());
}
