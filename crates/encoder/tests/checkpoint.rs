//! Checkpoints of every family: what they are made of, and directories that are written from them.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use common::cases::{fixture, write};
use common::{Noise, Tensors, read_tensors, shared, tiny_config, tiny_model, write_tensors};
use diptych_core::{Embedding, Encode, PreparedImage};
use diptych_encoder::anatomy::{Anatomy, LinearParts, Source, VisionParts};
use diptych_encoder::{
    Checkpoint, ClipConfig, DualEncoder, LoadError, Preprocessing, WEIGHTS_FILE, WriteError, clip_anatomy,
};
use safetensors::Dtype;
use serde_json::Value;

/// The bundled model and the model of every golden folder.
fn published() -> Vec<(String, PathBuf)> {
    let mini = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/models/mini");
    let mut found = vec![("mini".to_owned(), mini)];
    if let Some(root) = shared("golden") {
        let folders = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
        let models = folders.filter(|folder| folder.join("golden.json").exists());
        found
            .extend(models.map(|f| (f.file_name().unwrap().to_string_lossy().into_owned(), f.join("model"))));
        assert!(found.len() >= 8, "{found:?}");
    }
    found
}

/// Calls `check` with a directory of every case of the fixtures, each made and removed in turn.
fn for_every_case(check: impl Fn(&str, &Path)) {
    for file in ["variants.json", "mobileclip.json"] {
        let fixture = fixture(file);
        let cases = fixture["cases"].as_array().unwrap();
        // The published sizes add time and no option.
        for case in cases.iter().filter(|c| file == "variants.json" || is_shrunk(c)) {
            let dir = tempfile::tempdir().unwrap();
            write(dir.path(), case, cases);
            check(case["name"].as_str().unwrap(), dir.path());
        }
    }
}

fn is_shrunk(case: &Value) -> bool {
    case["name"].as_str().unwrap().contains("shrunk")
}

fn load(dir: &Path) -> DualEncoder {
    DualEncoder::load(dir).unwrap()
}

/// Embeddings of two images and of two texts.
fn embed(encoder: &DualEncoder) -> [Vec<Embedding>; 2] {
    let (height, width) = encoder.image_size();
    let mut noise = Noise::new(4);
    let mut image = || {
        let values = (0..3 * height * width).map(|_| noise.next()).collect();
        PreparedImage { values, width: 1, height: 1 }
    };
    let images = encoder.encode_images(&[image(), image()]).unwrap();
    let texts = ["a cat on the mat", "No pleural effusion."].map(|t| encoder.prepare_text(t).unwrap());
    [images, encoder.encode_texts(&texts).unwrap()]
}

/// The file that the weights of `dir` were written to, read without the loader.
fn stored(dir: &Path) -> Tensors {
    let names = [WEIGHTS_FILE, "open_clip_model.safetensors"];
    let path = names.map(|name| dir.join(name)).into_iter().find(|path| path.exists()).unwrap();
    let mut tensors = read_tensors(&path);
    tensors.retain(|_, (dtype, _, _)| matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16));
    tensors
}

#[test]
fn a_copy_is_the_same_model() {
    for (name, dir) in published() {
        let out = tempfile::tempdir().unwrap();
        let checkpoint = Checkpoint::open(&dir).unwrap();
        let bytes = checkpoint.write(out.path(), &BTreeMap::new()).unwrap();
        let (ours, theirs) = (load(out.path()), load(&dir));
        assert_eq!(embed(&ours), embed(&theirs), "{name}");
        assert_eq!(ours.model_id(), theirs.model_id(), "{name}");
        assert_eq!(checkpoint.parameters(), theirs.parameters(), "{name}");
        let copy = Checkpoint::open(out.path()).unwrap();
        assert_eq!(copy.weights_digest(), checkpoint.weights_digest(), "{name}");
        assert_eq!(stored(out.path()), stored(&dir), "{name}");
        let files: Vec<_> = std::fs::read_dir(out.path()).unwrap().map(|f| f.unwrap()).collect();
        assert_eq!(bytes, files.iter().map(|f| f.metadata().unwrap().len()).sum::<u64>(), "{name}");
        assert!(files.iter().all(|f| !f.file_name().to_string_lossy().contains("README")), "{name}");
    }
}

#[test]
fn a_copy_of_every_option_is_the_same_model() {
    for_every_case(|name, dir| {
        let out = tempfile::tempdir().unwrap();
        Checkpoint::open(dir)
            .unwrap_or_else(|e| panic!("{name}: {e}"))
            .write(out.path(), &BTreeMap::new())
            .unwrap();
        assert_eq!(load(out.path()).model_id(), load(dir).model_id(), "{name}");
    });
}

/// One tensor of each tower is replaced: that tower's embeddings move, the other's stay.
#[test]
fn a_replaced_tensor_changes_its_tower() {
    for (name, dir) in published() {
        let checkpoint = Checkpoint::open(&dir).unwrap();
        let VisionParts::Vit(vision) = &checkpoint.anatomy().vision else { panic!("{name}") };
        let before = embed(&load(&dir));
        for (tower, norm) in
            [&vision.blocks[0].norm2, &checkpoint.anatomy().text.blocks[0].norm2].into_iter().enumerate()
        {
            let values: Vec<f32> =
                checkpoint.tensor(&norm.weight.name).unwrap().iter().rev().map(|v| v * 1.5).collect();
            let out = tempfile::tempdir().unwrap();
            let replaced = BTreeMap::from([(norm.weight.name.clone(), values.clone())]);
            checkpoint.write(out.path(), &replaced).unwrap();
            let after = embed(&load(out.path()));
            assert_ne!(after[tower], before[tower], "{name} {}", norm.weight.name);
            assert_eq!(after[1 - tower], before[1 - tower], "{name} {}", norm.weight.name);
            let (found, format) = (Checkpoint::open(out.path()).unwrap(), stored(&dir)[&norm.weight.name].0);
            assert_ne!(found.weights_digest(), checkpoint.weights_digest(), "{name}");
            for (found, value) in found.tensor(&norm.weight.name).unwrap().iter().zip(values) {
                assert!((found - value).abs() <= value.abs() / 1024.0, "{name} as {format:?}");
            }
            assert_eq!(stored(out.path())[&norm.weight.name].0, format, "{name}");
        }
    }
}

/// Every value of every float tensor belongs to a part, so that none could silently stay as it is when
/// the parts are trained. Left over are only rows that no text can reach: token types but the first, and
/// the positions that RoBERTa never counts from.
#[test]
fn an_anatomy_names_all_there_is() {
    let check = |name: &str, dir: &Path| {
        let checkpoint = Checkpoint::open(dir).unwrap();
        let anatomy = checkpoint.anatomy();
        let mut left = stored(dir);
        for source in anatomy.sources() {
            let (_, shape, _) = left.get(&source.name).unwrap_or_else(|| panic!("{name} {source:?}"));
            assert_eq!(&source.shape, shape, "{name} {}", source.name);
        }
        if let VisionParts::Convolutional(model) = &anatomy.vision {
            assert!(model.starts_with("fastvit_mci") || model == "vit_base_mci_224", "{name} {model}");
            left.retain(|tensor, _| !tensor.starts_with("visual."));
        }
        left.retain(|tensor, (_, shape, _)| {
            let mut used = vec![false; shape.iter().product()];
            for source in anatomy.sources().filter(|source| source.name == *tensor) {
                let range = if source.transposed { 0..used.len() } else { source.range() };
                assert!(range.clone().all(|i| !used[i]), "{name} {tensor} is used twice");
                used[range].fill(true);
            }
            let whole = used.iter().all(|used| *used);
            let columns = shape.last().copied().unwrap_or(1);
            let unused = used.chunks(columns).filter(|row| !row[0]).count();
            let beyond_reach = match tensor.rsplit('.').nth(1) {
                Some("token_type_embeddings") => unused == shape[0] - 1,
                Some("position_embeddings") => unused == anatomy.text.spec.pad_id as usize + 1,
                _ => false,
            };
            !whole && !beyond_reach
        });
        assert!(left.is_empty(), "{name}: {:?}", left.keys());
    };
    published().iter().for_each(|(name, dir)| check(name, dir));
    for_every_case(check);
}

/// What the parts say about sizes fits together.
#[test]
fn an_anatomy_is_consistent() {
    let linear = |name: &str, parts: &LinearParts, out: usize, input: usize| {
        assert_eq!((parts.out, parts.input), (out, input), "{name} {parts:?}");
        assert_eq!(parts.weight.iter().map(|s| s.rows).sum::<usize>(), out, "{name} {parts:?}");
        assert!(parts.weight.iter().all(|s| s.columns() == input), "{name} {parts:?}");
        let bias: usize = parts.bias.iter().map(|s| s.range().len()).sum();
        assert!(bias == 0 || bias == out, "{name} {parts:?}");
        assert!(parts.scale.iter().all(|s| s.range().len() == out), "{name} {parts:?}");
    };
    let check = |name: &str, dir: &Path| {
        let checkpoint = Checkpoint::open(dir).unwrap();
        let text = &checkpoint.anatomy().text;
        let mut towers = vec![(&text.spec.transformer, &text.blocks)];
        if let VisionParts::Vit(vision) = &checkpoint.anatomy().vision {
            let spec = &vision.spec;
            let hidden = spec.transformer.hidden;
            linear(name, &vision.patch, hidden, 3 * spec.patch.0 * spec.patch.1);
            let positions = spec.positions() - usize::from(spec.class_token && !vision.class_has_position);
            assert_eq!(vision.positions.range().len(), positions * hidden, "{name}");
            assert_eq!(vision.class.is_some(), spec.class_token, "{name}");
            assert_eq!(vision.out(), text.out(), "{name}");
            towers.push((&spec.transformer, &vision.blocks));
        }
        assert_eq!(text.tokens.range().len(), text.spec.vocab_size * text.spec.transformer.hidden, "{name}");
        assert_eq!(
            (text.positions.rows, text.positions.columns()),
            (text.spec.context, text.tokens.columns())
        );
        for (spec, blocks) in towers {
            assert_eq!(blocks.len(), spec.layers, "{name}");
            for block in blocks {
                linear(name, &block.qkv, 3 * spec.hidden, spec.hidden);
                linear(name, &block.out, spec.hidden, spec.hidden);
                linear(name, &block.fc1, spec.inner, spec.hidden);
                linear(name, &block.fc2, spec.hidden, spec.inner);
                assert_eq!(block.fc2.scale.is_some(), spec.layer_scale, "{name}");
            }
        }
    };
    published().iter().for_each(|(name, dir)| check(name, dir));
    for_every_case(check);
}

#[test]
fn a_configuration_alone_gives_the_anatomy_of_a_clip_model() {
    let dir = tiny_model();
    assert_eq!(Checkpoint::open(dir.path()).unwrap().anatomy(), &clip_anatomy(&tiny_config()));
    for (name, dir) in published().iter().filter(|(name, _)| name == "mini" || name.starts_with("hf-clip")) {
        let mut expected: Anatomy = clip_anatomy(&ClipConfig::from_dir(dir).unwrap());
        let checkpoint = Checkpoint::open(dir).unwrap();
        // A scalar may be stored as a vector of one.
        expected.logit_scale.shape.clone_from(&checkpoint.anatomy().logit_scale.shape);
        assert_eq!(checkpoint.anatomy(), &expected, "{name}");
    }
}

#[test]
fn rows_of_a_tensor_are_found_in_its_values() {
    let kernel = Source::whole("kernel", &[4, 3, 2, 2]);
    assert_eq!((kernel.rows, kernel.columns(), kernel.range()), (4, 12, 0..48));
    assert_eq!((kernel.clone().part(1..3).range(), kernel.part(2..2).range()), (12..36, 24..24));
    let right = Source::transposed("right", 5, 7);
    assert_eq!((right.shape.as_slice(), right.rows, right.columns()), (&[7, 5][..], 5, 7));
    assert_eq!((Source::whole("scale", &[]).range(), Source::whole("bias", &[6]).range()), (0..1, 0..6));
}

/// Weights in shards or in a pickle become one safetensors file; what describes the old files, and what
/// no loader reads, is not copied.
#[test]
fn only_what_belongs_to_the_new_weights_is_written() {
    let dir = tiny_model();
    let tensors = read_tensors(&dir.path().join(WEIGHTS_FILE));
    let (first, second): (Tensors, Tensors) =
        tensors.clone().into_iter().partition(|(name, _)| name.starts_with("text"));
    let mut map = serde_json::Map::new();
    for (file, shard) in [("a.safetensors", &first), ("b.safetensors", &second)] {
        write_tensors(&dir.path().join(file), shard);
        map.extend(shard.keys().map(|name| (name.clone(), file.into())));
    }
    std::fs::remove_file(dir.path().join(WEIGHTS_FILE)).unwrap();
    let index = serde_json::json!({ "weight_map": map }).to_string();
    std::fs::write(dir.path().join("model.safetensors.index.json"), index).unwrap();
    for file in ["README.md", "LICENSE", ".gitattributes", "tf_model.h5", "training_args.bin"] {
        std::fs::write(dir.path().join(file), file).unwrap();
    }
    let out = tempfile::tempdir().unwrap();
    Checkpoint::open(dir.path()).unwrap().write(&out.path().join("new/model"), &BTreeMap::new()).unwrap();
    let out = out.path().join("new/model");
    let found = std::fs::read_dir(&out).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap());
    let expected = [
        "LICENSE",
        "config.json",
        "merges.txt",
        "model.safetensors",
        "preprocessor_config.json",
        "vocab.json",
    ];
    assert_eq!(found.collect::<BTreeSet<_>>(), expected.map(str::to_owned).into());
    assert_eq!(read_tensors(&out.join(WEIGHTS_FILE)), tensors);
    assert_eq!(embed(&load(&out)), embed(&load(dir.path())));
    let bytes = std::fs::read(out.join(WEIGHTS_FILE)).unwrap();
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(metadata.metadata().as_ref().unwrap()["format"], "pt");
}

#[test]
fn pickled_weights_are_written_as_safetensors() {
    let Some(root) = shared("golden") else { return };
    let dir = tempfile::tempdir().unwrap();
    let source = root.join("openclip-biomedclip/model");
    for file in std::fs::read_dir(&source).unwrap().map(|entry| entry.unwrap().path()) {
        if !file.ends_with("open_clip_model.safetensors") {
            std::fs::copy(&file, dir.path().join(file.file_name().unwrap())).unwrap();
        }
    }
    let out = tempfile::tempdir().unwrap();
    Checkpoint::open(dir.path()).unwrap().write(out.path(), &BTreeMap::new()).unwrap();
    assert!(!out.path().join("open_clip_pytorch_model.bin").exists());
    assert_eq!(embed(&load(out.path())), embed(&load(&source)));
}

#[test]
fn what_cannot_be_written_is_refused_before_anything_is() {
    let dir = tiny_model();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let out = tempfile::tempdir().unwrap();
    let attempt = |name: &str, values: Vec<f32>| {
        let replaced = BTreeMap::from([(name.to_owned(), values)]);
        let error = checkpoint.write(out.path(), &replaced).unwrap_err();
        assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 0, "{error}");
        error
    };
    assert!(matches!(attempt("logit_bias", vec![0.0]), WriteError::Unknown { name } if name == "logit_bias"));
    let error = attempt("logit_scale", Vec::new());
    assert!(matches!(error, WriteError::Length { expected: 1, found: 0, .. }), "{error}");
    let error = attempt("text_model.final_layer_norm.bias", vec![f32::NAN; 32]);
    assert!(matches!(error, WriteError::NotFinite { position: 0, .. }), "{error}");

    let error = checkpoint.write(dir.path(), &BTreeMap::new()).unwrap_err();
    assert!(matches!(error, WriteError::Source { .. }), "{error}");
    std::fs::write(out.path().join("open_clip_model.safetensors"), "").unwrap();
    let error = checkpoint.write(out.path(), &BTreeMap::new()).unwrap_err();
    assert!(matches!(error, WriteError::Occupied { .. }), "{error}");
}

/// 1e5 is a good f32 and no f16.
#[test]
fn a_value_beyond_the_stored_format_is_refused() {
    let mini =
        Checkpoint::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/models/mini")).unwrap();
    let out = tempfile::tempdir().unwrap();
    let name = "text_model.final_layer_norm.bias";
    let mut values = mini.tensor(name).unwrap();
    values[3] = 1e5;
    let error = mini.write(out.path(), &BTreeMap::from([(name.to_owned(), values)])).unwrap_err();
    assert!(
        matches!(&error, WriteError::NotFinite { position: 3, format, .. } if format == "F16"),
        "{error}"
    );
}

/// A second run writes over what the first has left.
#[test]
fn a_directory_is_replaced_by_the_next_write() {
    let dir = tiny_model();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let out = tempfile::tempdir().unwrap();
    let replaced = BTreeMap::from([("logit_scale".to_owned(), vec![1.5])]);
    checkpoint.write(out.path(), &BTreeMap::new()).unwrap();
    checkpoint.write(out.path(), &replaced).unwrap();
    assert_eq!(load(out.path()).logit_scale(), 1.5);
    assert_eq!(checkpoint.tensor("logit_scale").unwrap(), [2.6592]);
    assert!(
        std::fs::read_dir(out.path()).unwrap().all(|f| f.unwrap().path().extension() != Some("tmp".as_ref()))
    );
}

#[test]
fn what_does_not_load_is_not_opened() {
    let edited = |edit: &dyn Fn(&mut Tensors)| {
        let dir = tiny_model();
        let mut tensors = read_tensors(&dir.path().join(WEIGHTS_FILE));
        edit(&mut tensors);
        write_tensors(&dir.path().join(WEIGHTS_FILE), &tensors);
        let (opened, loaded) = (Checkpoint::open(dir.path()), DualEncoder::load(dir.path()));
        let error = opened.unwrap_err();
        assert_eq!(error.to_string(), loaded.unwrap_err().to_string());
        error
    };
    let norm = "text_model.final_layer_norm.bias";
    let error = edited(&|tensors| drop(tensors.remove(norm)));
    assert!(matches!(&error, LoadError::MissingTensor { name, .. } if name == norm), "{error}");
    let error = edited(&|tensors| {
        let tensor = tensors[norm].clone();
        tensors.insert("text_model.extra".to_owned(), tensor);
    });
    assert!(matches!(error, LoadError::ExtraTensors { count: 1, .. }), "{error}");
    let error = edited(&|tensors| {
        tensors.insert("logit_scale".to_owned(), (Dtype::F32, vec![2], vec![0; 8]));
    });
    assert!(matches!(error, LoadError::TensorShape { .. }), "{error}");
    let error = edited(&|tensors| {
        tensors.insert(norm.to_owned(), (Dtype::I32, vec![32], vec![0; 128]));
    });
    assert!(matches!(error, LoadError::TensorType { .. }), "{error}");
}

/// The pieces that a caller needs beside the towers.
#[test]
fn a_checkpoint_reads_images_and_texts_as_its_model_does() {
    let dir = tiny_model();
    let (checkpoint, encoder) = (Checkpoint::open(dir.path()).unwrap(), load(dir.path()));
    let preprocessing: &Preprocessing = checkpoint.preprocessing();
    assert_eq!(preprocessing, encoder.preprocessing());
    assert_eq!(checkpoint.family(), encoder.family());
    let text = checkpoint.tokenizer().prepare("the cat").unwrap();
    assert_eq!(text, encoder.prepare_text("the cat").unwrap());
}
