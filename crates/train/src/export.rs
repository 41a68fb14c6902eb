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

use crate::error::TrainError;
use crate::files;
use crate::params::Layout;
use crate::recipe::{ModelRecipe, WeightType};
use crate::vocabulary::Vocabulary;

/// The feed-forward layer is this many times as wide as the residual stream.
const MLP_RATIO: usize = 4;
/// What a composed model calls itself in its configuration.
const COMPOSED_TYPE: &str = "diptych";
/// Slots under this name are no part of the towers: what objectives learn.
pub(crate) const OBJECTIVE: &str = "objective.";

/// Whether a directory holds a model, whole or not, whoever wrote it.
pub(crate) fn holds_model(out: &Path) -> bool {
    [WEIGHTS_FILE, CONFIG_FILE].iter().any(|name| out.join(name).exists())
}

/// Takes away what makes a directory a model. The configuration of a composed one stays: it says which
/// folders the next may replace.
pub(crate) fn discard_model(out: &Path) -> Result<(), TrainError> {
    let config = std::fs::read(out.join(CONFIG_FILE)).unwrap_or_default();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap_or_default();
    let composed = config["model_type"] == COMPOSED_TYPE;
    for name in [WEIGHTS_FILE, CONFIG_FILE].into_iter().filter(|name| *name == WEIGHTS_FILE || !composed) {
        files::remove(&out.join(name))?;
    }
    Ok(())
}

/// A model trained from scratch, as far as its files go.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// Its architecture.
    pub config: ClipConfig,
    /// Its tokens.
    pub vocabulary: Vocabulary,
    /// How it reads images.
    pub preprocessing: Preprocessing,
    /// Number format of the weights.
    pub dtype: WeightType,
}

impl Scratch {
    /// Writes every file of a model directory and returns their size in bytes. The weights come last: a
    /// directory with weights is complete.
    pub fn write(
        &self,
        out: &Path,
        layout: &Layout,
        trained: &[f32],
        logit_scale: f32,
    ) -> Result<u64, TrainError> {
        files::create_folder(out)?;
        let context = self.config.text.max_position_embeddings;
        let vocabulary = &self.vocabulary;
        let contents = [
            (CONFIG_FILE, self.config.to_json().into_bytes()),
            (PREPROCESSOR_FILE, self.preprocessing.to_json().into_bytes()),
            ("tokenizer.json", vocabulary.tokenizer_json().into_bytes()),
            ("vocab.json", vocabulary.vocab_json().into_bytes()),
            ("merges.txt", vocabulary.merges_txt().into_bytes()),
            ("special_tokens_map.json", vocabulary.special_tokens_json().into_bytes()),
            ("tokenizer_config.json", vocabulary.config_json(context).into_bytes()),
            (WEIGHTS_FILE, self.weights(layout, trained, logit_scale)),
        ];
        for (name, bytes) in &contents {
            files::replace(&out.join(name), bytes)?;
        }
        Ok(contents.iter().map(|(_, bytes)| bytes.len() as u64).sum())
    }

    fn weights(&self, layout: &Layout, trained: &[f32], logit_scale: f32) -> Vec<u8> {
        let dtype = match self.dtype {
            WeightType::F16 => DType::F16,
            WeightType::F32 => DType::F32,
        };
        let tensor = |values: &[f32], shape: &[usize]| {
            Tensor::from_slice(values, shape, &Device::Cpu)
                .and_then(|tensor| tensor.to_dtype(dtype))
                .expect("a slot's shape covers its span")
        };
        let slots = layout.slots().iter().filter(|slot| !slot.name.starts_with(OBJECTIVE));
        let tensors = slots
            .map(|slot| (slot.name.clone(), tensor(slot.span.of(trained), &slot.shape)))
            .chain([("logit_scale".to_owned(), tensor(&[logit_scale], &[]))]);
        // The transformers library refuses files that do not name their framework.
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        safetensors::serialize(tensors, Some(metadata)).expect("plain tensors always serialise")
    }
}

/// The architecture of a recipe, as the encoder reads it.
pub(crate) fn config(m: &ModelRecipe, vocabulary: &Vocabulary) -> ClipConfig {
    ClipConfig {
        text: TextConfig {
            vocab_size: vocabulary.len(),
            hidden_size: m.text_width,
            intermediate_size: MLP_RATIO * m.text_width,
            num_hidden_layers: m.text_layers,
            num_attention_heads: m.text_heads,
            max_position_embeddings: m.context_length,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: LAYER_NORM_EPS,
            bos_token_id: vocabulary.start_id(),
            // Never 2, which would mean the pooling of historic checkpoints: 512 bytes come first.
            eos_token_id: vocabulary.start_id() + 1,
            pad_token_id: vocabulary.start_id() + 1,
        },
        vision: VisionConfig {
            hidden_size: m.vision_width,
            intermediate_size: MLP_RATIO * m.vision_width,
            num_hidden_layers: m.vision_layers,
            num_attention_heads: m.vision_heads,
            num_channels: 3,
            image_size: m.image_size,
            patch_size: m.patch_size,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: LAYER_NORM_EPS,
        },
        projection_dim: m.projection_dim,
        // What transformers starts from; the weights say what was learned.
        logit_scale_init_value: LOGIT_SCALE_INIT,
    }
}

/// Epsilon of every layer norm, as in the published CLIP checkpoints.
const LAYER_NORM_EPS: f64 = 1e-5;
/// `ln(1 / 0.07)`, that of CLIP.
const LOGIT_SCALE_INIT: f32 = 2.6592;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::augment::Augment;
    use crate::objective::unit_rows;
    use crate::recipe::AugmentRecipe;
    use crate::sampler::{Inputs, Purpose, generator, tokenise};
    use crate::setup::scratch_model;
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
        let recipe = ModelRecipe {
            image_size: 16,
            patch_size: 4,
            vision_width: 16,
            vision_layers: 2,
            vision_heads: 2,
            text_width: 8,
            text_layers: 3,
            text_heads: 2,
            context_length: 16,
            projection_dim: 6,
        };
        let preprocessing = Preprocessing::for_training(16, CLIP_MEAN, CLIP_STD);
        let config = config(&recipe, &vocabulary);
        let (mut model, _) = scratch_model(&config, Vec::new());
        let params = model.layout().init(&mut generator(1, Purpose::Weights, 0));
        let scratch = Scratch { config, vocabulary, preprocessing, dtype };
        let dir = tempfile::tempdir().unwrap();
        let bytes = scratch.write(dir.path(), model.layout(), &params, 2.5).unwrap();
        let on_disk = std::fs::read_dir(dir.path()).unwrap().map(|f| f.unwrap().metadata().unwrap().len());
        assert_eq!(bytes, on_disk.sum::<u64>());

        let encoder = DualEncoder::load(dir.path()).unwrap();
        assert_eq!(encoder.parameters(), params.len() as u64 + 1);
        assert!((encoder.logit_scale() - 2.5).abs() < 1e-3);
        assert_eq!(encoder.preprocessing(), &scratch.preprocessing);
        let mut image = RgbImage::new(30, 23);
        image.iter_mut().enumerate().for_each(|(i, v)| *v = (i * i / 7 % 256) as u8);
        let prepared = encoder.preprocessing().prepare_rgb(&image).unwrap();
        let theirs = encoder.encode_images(&[prepared]).unwrap();
        let augment = Augment::new(AugmentRecipe::none(), &scratch.preprocessing);
        let mut values = vec![0f32; augment.values()];
        augment.plain(&scratch.preprocessing.pixels(&image).to_planes(), &mut values);
        let ours = model.embed_images(&params, &Inputs::Pixels(values));
        let images = largest_difference(theirs[0].as_slice(), &ours);

        let prepared: Vec<_> = REPORTS.iter().map(|text| encoder.prepare_text(text).unwrap()).collect();
        let theirs = encoder.encode_texts(&prepared).unwrap();
        let ids: Vec<_> = REPORTS.iter().map(|text| tokenise(encoder.tokenizer(), text).unwrap()).collect();
        let ours = model.embed_texts(&params, &Inputs::Tokens(ids));
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
