//! The finished model as a Hugging Face `CLIPModel` directory.
//!
//! Owns: config.json, model.safetensors, preprocessor_config.json and the tokenizer's files.
//! Deliberately absent: reading them back, which is the encoder's work.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use diptych_encoder::{
    Activation, CONFIG_FILE, ClipConfig, PREPROCESSOR_FILE, Preprocessing, TextConfig, VisionConfig,
    WEIGHTS_FILE,
};

use crate::block::MLP_RATIO;
use crate::error::TrainError;
use crate::files;
use crate::model::{Model, ModelShape};
use crate::ops::LAYER_NORM_EPS;
use crate::recipe::WeightType;
use crate::vocabulary::Vocabulary;

/// Writes every file of a model directory and returns their size in bytes. The weights come last: a
/// directory with weights is complete.
pub(crate) fn write(
    out: &Path,
    model: &Model,
    params: &[f32],
    vocabulary: &Vocabulary,
    preprocessing: &Preprocessing,
    dtype: WeightType,
) -> Result<u64, TrainError> {
    files::create_folder(out)?;
    let context = model.shape().context_length;
    let contents = [
        (CONFIG_FILE, config(model.shape(), vocabulary).to_json().into_bytes()),
        (PREPROCESSOR_FILE, preprocessing.to_json().into_bytes()),
        ("tokenizer.json", vocabulary.tokenizer_json().into_bytes()),
        ("vocab.json", vocabulary.vocab_json().into_bytes()),
        ("merges.txt", vocabulary.merges_txt().into_bytes()),
        ("special_tokens_map.json", vocabulary.special_tokens_json().into_bytes()),
        ("tokenizer_config.json", vocabulary.config_json(context).into_bytes()),
        (WEIGHTS_FILE, weights(model, params, dtype)),
    ];
    for (name, bytes) in &contents {
        files::replace(&out.join(name), bytes)?;
    }
    Ok(contents.iter().map(|(_, bytes)| bytes.len() as u64).sum())
}

/// The config the encoder reads back.
pub(crate) fn config(shape: &ModelShape, vocabulary: &Vocabulary) -> ClipConfig {
    let (text, vision) = (&shape.text, &shape.vision);
    ClipConfig {
        text: TextConfig {
            vocab_size: shape.vocab_size,
            hidden_size: text.width,
            intermediate_size: MLP_RATIO * text.width,
            num_hidden_layers: text.layers,
            num_attention_heads: text.heads,
            max_position_embeddings: shape.context_length,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: layer_norm_eps(),
            bos_token_id: vocabulary.start_id(),
            // Never 2, which would mean the pooling of historic checkpoints: 512 bytes come first.
            eos_token_id: vocabulary.start_id() + 1,
            pad_token_id: vocabulary.start_id() + 1,
        },
        vision: VisionConfig {
            hidden_size: vision.width,
            intermediate_size: MLP_RATIO * vision.width,
            num_hidden_layers: vision.layers,
            num_attention_heads: vision.heads,
            num_channels: 3,
            image_size: shape.image_size,
            patch_size: shape.patch_size,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: layer_norm_eps(),
        },
        projection_dim: vision.projection_dim,
        logit_scale_init_value: shape.logit_scale,
    }
}

/// The shortest decimal of the constant the kernels use, not its f32 expansion.
fn layer_norm_eps() -> f64 {
    let eps = 1e-5;
    debug_assert_eq!(eps as f32, LAYER_NORM_EPS);
    eps
}

fn weights(model: &Model, params: &[f32], dtype: WeightType) -> Vec<u8> {
    let dtype = match dtype {
        WeightType::F16 => DType::F16,
        WeightType::F32 => DType::F32,
    };
    let tensors = model.layout().slots().iter().map(|slot| {
        let tensor = Tensor::from_slice(slot.span.of(params), slot.shape.as_slice(), &Device::Cpu)
            .and_then(|tensor| tensor.to_dtype(dtype))
            .expect("a slot's shape covers its span");
        (slot.name.clone(), tensor)
    });
    // The transformers library refuses files that do not name their framework.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize(tensors, Some(metadata)).expect("plain tensors always serialise")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::exam::normalised;
    use crate::loss::unit_rows;
    use crate::sampler::{Purpose, generator, tokenise};
    use crate::tower::TowerShape;
    use diptych_core::Encode;
    use diptych_encoder::{CLIP_MEAN, CLIP_STD, DualEncoder, RgbImage};

    const REPORTS: [&str; 3] = [
        "Large left pleural effusion.",
        "No effusion.",
        "Right chest tube towards the apex, no pneumothorax",
    ];

    /// Embeddings of the encoder and of the trainer, largest difference per modality.
    fn difference(dtype: WeightType) -> [f32; 2] {
        let vocabulary = Vocabulary::learn(&REPORTS.map(str::to_owned), 540).unwrap();
        let tower = |width, layers| TowerShape { width, layers, heads: 2, projection_dim: 6 };
        let mut model = Model::new(ModelShape {
            image_size: 16,
            patch_size: 4,
            vision: tower(16, 2),
            text: tower(8, 3),
            vocab_size: vocabulary.len(),
            context_length: 16,
            logit_scale: 2.5,
        });
        let params = model.layout().init(&mut generator(1, Purpose::Weights, 0));
        let preprocessing = Preprocessing::for_training(16, CLIP_MEAN, CLIP_STD);
        let dir = tempfile::tempdir().unwrap();
        let bytes = write(dir.path(), &model, &params, &vocabulary, &preprocessing, dtype).unwrap();
        let on_disk = std::fs::read_dir(dir.path()).unwrap().map(|f| f.unwrap().metadata().unwrap().len());
        assert_eq!(bytes, on_disk.sum::<u64>());

        let encoder = DualEncoder::load(dir.path()).unwrap();
        assert_eq!(encoder.parameters(), params.len() as u64);
        assert_eq!(encoder.preprocessing(), &preprocessing);
        let mut image = RgbImage::new(30, 23);
        image.iter_mut().enumerate().for_each(|(i, v)| *v = (i * i / 7 % 256) as u8);
        let prepared = encoder.preprocessing().prepare_rgb(&image).unwrap();
        let theirs = encoder.encode_images(&[prepared]).unwrap();
        let planes = preprocessing.pixels(&image).to_planes();
        let ours = model.embed_images(&params, &normalised(&planes, 16 * 16));
        let images = largest_difference(theirs[0].as_slice(), &ours);

        let prepared: Vec<_> = REPORTS.iter().map(|text| encoder.prepare_text(text).unwrap()).collect();
        let theirs = encoder.encode_texts(&prepared).unwrap();
        let ids: Vec<_> = REPORTS.iter().map(|text| tokenise(encoder.tokenizer(), text).unwrap()).collect();
        let ours = model.embed_texts(&params, &ids);
        let theirs: Vec<f32> = theirs.iter().flat_map(|e| e.as_slice().to_vec()).collect();
        [images, largest_difference(&theirs, &ours)]
    }

    fn largest_difference(unit: &[f32], raw: &[f32]) -> f32 {
        let (_, raw) = unit_rows(raw, 6);
        assert_eq!(unit.len(), raw.len());
        unit.iter().zip(&raw).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn the_encoder_computes_what_the_trainer_trained() {
        let [images, texts] = difference(WeightType::F32);
        assert!(images < 2e-5 && texts < 2e-5, "images differ by {images}, texts by {texts}");
    }

    #[test]
    fn half_precision_costs_little() {
        let [images, texts] = difference(WeightType::F16);
        assert!(images < 5e-3 && texts < 5e-3, "images differ by {images}, texts by {texts}");
    }
}
