//! `CLIPModel` of the transformers library, and its image tower wherever else it is used.
//!
//! Owns: the names of its tensors and what its configuration means for the towers.

use std::path::Path;

use serde_json::Value;

use super::Parts;
use crate::config::{ClipConfig, TextConfig, VisionConfig};
use crate::error::LoadError;
use crate::preprocess::{Preprocessing, ProcessorFamily};
use crate::tokenizer::{Cleaning, Kind, Padding, TextRules, TextTokenizer};
use crate::tower::layers::{Bias, Head, LayerNorm, Linear};
use crate::tower::text::{Attention, Pooling, TextSpec};
use crate::tower::transformer::{BlockNames, NormOrder, Transformer, TransformerSpec};
use crate::tower::vit::{self, PatchEmbedding, VitSpec};
use crate::tower::{TextTower, VisionTower, Vit};
use crate::weights::Weights;

pub(super) fn load(dir: &Path, config: &Value, weights: &Weights) -> Result<Parts, LoadError> {
    let config = ClipConfig::from_value(config)?;
    let side = config.vision.image_size;
    let rules = TextRules {
        context_length: Some(config.text.max_position_embeddings),
        vocab_size: config.text.vocab_size,
        padding: Padding::None,
        cleaning: Cleaning::None,
        default_kind: Kind::ClipBpe,
        tokenizer_kwargs: None,
    };
    let width = config.vision.hidden_size;
    let head = Linear::load(weights, "visual_projection", (config.projection_dim, width), Bias::Without)?;
    Ok(Parts {
        preprocessing: Preprocessing::from_dir(dir, ProcessorFamily::Clip, (side, side))?,
        tokenizer: TextTokenizer::from_dir(dir, &rules)?,
        text: text_tower(weights, &config.text, config.projection_dim)?,
        vision: VisionTower::Vit(Box::new(vision_tower(
            weights,
            "vision_model.",
            &config.vision,
            Head::linear(head),
        )?)),
        logit_scale: weights.scalar("logit_scale")?,
        logit_bias: None,
    })
}

fn text_tower(weights: &Weights, config: &TextConfig, out: usize) -> Result<TextTower, LoadError> {
    let hidden = config.hidden_size;
    let spec = TextSpec {
        transformer: TransformerSpec {
            hidden,
            inner: config.intermediate_size,
            layers: config.num_hidden_layers,
            heads: config.num_attention_heads,
            activation: config.hidden_act,
            eps: config.layer_norm_eps,
            norm: NormOrder::Before,
            qkv_bias: true,
            layer_scale: false,
            precision: weights.precision(),
        },
        vocab_size: config.vocab_size,
        context: config.max_position_embeddings,
        attention: Attention::Causal,
        // The id 2 was written by mistake into historic configurations; the library pools those at
        // the largest id, which is the end token's.
        pooling: if config.eos_token_id == 2 {
            Pooling::Argmax
        } else {
            Pooling::FirstOf(config.eos_token_id)
        },
        pad_id: config.pad_token_id,
    };
    let prefix = |i| format!("text_model.encoder.layers.{i}.");
    let embeddings = "text_model.embeddings";
    Ok(TextTower {
        tokens: weights.take(&format!("{embeddings}.token_embedding.weight"), &[spec.vocab_size, hidden])?,
        positions: weights
            .take(&format!("{embeddings}.position_embedding.weight"), &[spec.context, hidden])?
            .to_vec(),
        embedding_norm: None,
        blocks: Transformer::load(weights, prefix, &BlockNames::CLIP, spec.transformer.clone())?,
        final_norm: Some(LayerNorm::load(
            weights,
            "text_model.final_layer_norm",
            hidden,
            config.layer_norm_eps,
        )?),
        head: Head::linear(Linear::load(weights, "text_projection", (out, hidden), Bias::Without)?),
        spec,
    })
}

/// `CLIPVisionTransformer` below a prefix, with the head that the family puts on it.
pub(super) fn vision_tower(
    weights: &Weights,
    prefix: &str,
    config: &VisionConfig,
    head: Head,
) -> Result<Vit, LoadError> {
    let (hidden, side, patch) = (config.hidden_size, config.image_size, config.patch_size);
    let spec = VitSpec {
        transformer: TransformerSpec {
            hidden,
            inner: config.intermediate_size,
            layers: config.num_hidden_layers,
            heads: config.num_attention_heads,
            activation: config.hidden_act,
            eps: config.layer_norm_eps,
            norm: NormOrder::Before,
            qkv_bias: true,
            layer_scale: false,
            precision: weights.precision(),
        },
        image: (side, side),
        patch: (patch, patch),
        class_token: true,
        pooling: vit::Pooling::Class,
        norm_after_pooling: false,
    };
    let name = |part: &str| format!("{prefix}{part}");
    let norm = |part: &str| LayerNorm::load(weights, &name(part), hidden, config.layer_norm_eps);
    let kernel = weights.take(&name("embeddings.patch_embedding.weight"), &[hidden, 3, patch, patch])?;
    let class = weights.take(&name("embeddings.class_embedding"), &[hidden])?;
    let positions =
        weights.take(&name("embeddings.position_embedding.weight"), &[spec.positions(), hidden])?;
    let (class_row, patch_positions) = vit::split_positions(&positions, Some(&class));
    Ok(Vit {
        patch_embedding: PatchEmbedding::Linear(Linear::new(&kernel, hidden, 3 * patch * patch, None)),
        class_row,
        patch_positions,
        // Spelled like this in every published checkpoint.
        pre_norm: Some(norm("pre_layrnorm")?),
        blocks: Transformer::load(
            weights,
            |i| name(&format!("encoder.layers.{i}.")),
            &BlockNames::CLIP,
            spec.transformer.clone(),
        )?,
        post_norm: Some(norm("post_layernorm")?),
        attention_pool: None,
        head,
        spec,
    })
}
