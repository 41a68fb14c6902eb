//! `SiglipModel` of the transformers library: SigLIP, SigLIP 2 at fixed resolution, MedSigLIP.
//!
//! Owns: the names of its tensors and what its configuration means for the towers. Its text tower
//! attends to padding and pools the last position, so that texts are always as long as the context.

use std::path::Path;

use serde_json::Value;

use super::Parts;
use crate::activation::Activation;
use crate::config::CONFIG_FILE;
use crate::error::LoadError;
use crate::json::Section;
use crate::preprocess::{Preprocessing, ProcessorFamily};
use crate::tokenizer::{Cleaning, Kind, Padding, TextRules, TextTokenizer};
use crate::tower::layers::{Bias, Head, LayerNorm, Linear};
use crate::tower::text::{Attention, Pooling, TextSpec};
use crate::tower::transformer::{BlockNames, NormOrder, Transformer, TransformerSpec};
use crate::tower::vit::{self, AttentionPool, PatchEmbedding, PoolParts, VitSpec};
use crate::tower::{TextTower, VisionTower, Vit};
use crate::weights::Weights;

pub(super) fn load(dir: &Path, config: &Value, weights: &Weights) -> Result<Parts, LoadError> {
    let top = Section::top(CONFIG_FILE, config)?;
    let text = text_tower(weights, &top.section("text_config")?)?;
    let vision = vision_tower(weights, &top.section("vision_config")?)?;
    if text.out() != vision.out() {
        let reason = format!(
            "is {}, but the image tower gives {} dimensions; use the config.json of these weights",
            text.out(),
            vision.out()
        );
        return Err(top.error("text_config.projection_size", reason));
    }
    let rules = TextRules {
        context_length: Some(text.spec.context),
        vocab_size: text.spec.vocab_size,
        padding: Padding::ToContext,
        cleaning: Cleaning::None,
        default_kind: Kind::Siglip,
        tokenizer_kwargs: None,
    };
    Ok(Parts {
        preprocessing: Preprocessing::from_dir(dir, ProcessorFamily::Siglip, vision.spec.image)?,
        tokenizer: TextTokenizer::from_dir(dir, &rules)?,
        text,
        vision: VisionTower::Vit(Box::new(vision)),
        logit_scale: weights.scalar("logit_scale")?,
        logit_bias: Some(weights.scalar("logit_bias")?),
    })
}

fn transformer(weights: &Weights, section: &Section<'_>) -> Result<TransformerSpec, LoadError> {
    let hidden = section.size("hidden_size", 768, (1, 1 << 16))?;
    let heads = section.size("num_attention_heads", 12, (1, 1 << 12))?;
    if !hidden.is_multiple_of(heads) {
        return Err(section.heads_error(heads, hidden));
    }
    Ok(TransformerSpec {
        hidden,
        inner: section.size("intermediate_size", 3072, (1, 1 << 18))?,
        layers: section.size("num_hidden_layers", 12, (1, 1024))?,
        heads,
        activation: section.activation("hidden_act", Activation::GeluTanh)?,
        eps: section.epsilon("layer_norm_eps", 1e-6)?,
        norm: NormOrder::Before,
        qkv_bias: true,
        layer_scale: false,
        precision: weights.precision(),
    })
}

fn text_tower(weights: &Weights, section: &Section<'_>) -> Result<TextTower, LoadError> {
    let transformer = transformer(weights, section)?;
    let hidden = transformer.hidden;
    let spec = TextSpec {
        vocab_size: section.size("vocab_size", 32_000, (1, 1 << 24))?,
        context: section.size("max_position_embeddings", 64, (1, 1 << 16))?,
        attention: Attention::Full,
        pooling: Pooling::Last,
        pad_id: section.get_or("pad_token_id", 1)?,
        transformer,
    };
    let out = section.size("projection_size", hidden, (1, diptych_core::limits::DIM_MAX))?;
    let embeddings = "text_model.embeddings";
    Ok(TextTower {
        tokens: weights.take(&format!("{embeddings}.token_embedding.weight"), &[spec.vocab_size, hidden])?,
        positions: weights
            .take(&format!("{embeddings}.position_embedding.weight"), &[spec.context, hidden])?
            .to_vec(),
        embedding_norm: None,
        blocks: Transformer::load(
            weights,
            |i| format!("text_model.encoder.layers.{i}."),
            &BlockNames::CLIP,
            spec.transformer.clone(),
        )?,
        final_norm: Some(LayerNorm::load(
            weights,
            "text_model.final_layer_norm",
            hidden,
            spec.transformer.eps,
        )?),
        head: Head::linear(Linear::load(weights, "text_model.head", (out, hidden), Bias::With)?),
        spec,
    })
}

fn vision_tower(weights: &Weights, section: &Section<'_>) -> Result<Vit, LoadError> {
    if !section.get_or("vision_use_head", true)? {
        let reason =
            "is false, but without its pooling head the model has no image embedding; use another checkpoint";
        return Err(section.error("vision_use_head", reason));
    }
    section.size("num_channels", 3, (3, 3))?;
    let image = section.pair("image_size", 224, 4096)?;
    let spec = VitSpec {
        transformer: transformer(weights, section)?,
        image,
        patch: section.pair("patch_size", 16, image.0.min(image.1))?,
        class_token: false,
        pooling: vit::Pooling::Attention,
        norm_after_pooling: false,
    };
    let hidden = spec.transformer.hidden;
    let (high, wide) = spec.patch;
    let embeddings = "vision_model.embeddings";
    let kernel = weights.take(&format!("{embeddings}.patch_embedding.weight"), &[hidden, 3, high, wide])?;
    let bias = weights.take(&format!("{embeddings}.patch_embedding.bias"), &[hidden])?;
    let positions =
        weights.take(&format!("{embeddings}.position_embedding.weight"), &[spec.positions(), hidden])?;
    let (class_row, patch_positions) = vit::split_positions(&positions, None);
    Ok(Vit {
        patch_embedding: PatchEmbedding::Linear(Linear::new(&kernel, hidden, 3 * high * wide, Some(&bias))),
        class_row,
        patch_positions,
        pre_norm: None,
        blocks: Transformer::load(
            weights,
            |i| format!("vision_model.encoder.layers.{i}."),
            &BlockNames::CLIP,
            spec.transformer.clone(),
        )?,
        post_norm: Some(LayerNorm::load(
            weights,
            "vision_model.post_layernorm",
            hidden,
            spec.transformer.eps,
        )?),
        attention_pool: Some(attention_pool(weights, &spec.transformer)?),
        head: Head(Vec::new()),
        spec,
    })
}

/// PyTorch's `MultiheadAttention` keeps the three projections in one matrix: the query's rows, which
/// meet only the probe, then those of keys and values.
fn attention_pool(weights: &Weights, spec: &TransformerSpec) -> Result<AttentionPool, LoadError> {
    let hidden = spec.hidden;
    let prefix = "vision_model.head.";
    let weight = weights.take(&format!("{prefix}attention.in_proj_weight"), &[3 * hidden, hidden])?;
    let bias = weights.take(&format!("{prefix}attention.in_proj_bias"), &[3 * hidden])?;
    let (query, key_value) = weight.split_at(hidden * hidden);
    let (query_bias, key_value_bias) = bias.split_at(hidden);
    let parts = PoolParts {
        probe: weights.take(&format!("{prefix}probe"), &[1, 1, hidden])?.to_vec(),
        query: Linear::new(query, hidden, hidden, Some(query_bias)),
        key_value: Linear::new(key_value, 2 * hidden, hidden, Some(key_value_bias)),
        out: "attention.out_proj",
        norm: "layernorm",
        fc: ["mlp.fc1", "mlp.fc2"],
    };
    AttentionPool::load(weights, prefix, parts, spec)
}
