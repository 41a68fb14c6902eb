//! `SiglipModel` of the transformers library: SigLIP, SigLIP 2 at fixed resolution, MedSigLIP.
//!
//! Owns: the names of its tensors and what its configuration means for the towers. Its text tower
//! attends to padding and pools the last position, so that texts are always as long as the context.

use std::ops::Range;
use std::path::Path;

use serde_json::Value;

use super::blocks::BlockNames;
use super::{Description, Vision, scalar};
use crate::activation::Activation;
use crate::anatomy::{LinearParts, NormParts, PoolParts, Source, TextParts, VitParts};
use crate::config::CONFIG_FILE;
use crate::error::LoadError;
use crate::json::Section;
use crate::precision::Precision;
use crate::preprocess::{Preprocessing, ProcessorFamily};
use crate::tokenizer::{Cleaning, Kind, Padding, TextRules, TextTokenizer};
use crate::tower::text::{Attention, Pooling, TextSpec};
use crate::tower::transformer::{NormOrder, TransformerSpec};
use crate::tower::vit::{self, VitSpec};
use crate::weights::Weights;

pub(super) fn describe(dir: &Path, config: &Value, weights: &Weights) -> Result<Description, LoadError> {
    let top = Section::top(CONFIG_FILE, config)?;
    let text = text_tower(&top.section("text_config")?)?;
    let vision = vision_tower(&top.section("vision_config")?)?;
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
    let image = vision.spec.image;
    Ok(Description {
        vision: Vision::Vit(Box::new(vision)),
        text,
        logit_scale: scalar(weights, "logit_scale"),
        logit_bias: Some(scalar(weights, "logit_bias")),
        preprocessing: Preprocessing::from_dir(dir, ProcessorFamily::Siglip, image)?,
        tokenizer: TextTokenizer::from_dir(dir, &rules)?,
    })
}

fn transformer(section: &Section<'_>) -> Result<TransformerSpec, LoadError> {
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
        precision: Precision::F32,
    })
}

fn text_tower(section: &Section<'_>) -> Result<TextParts, LoadError> {
    let transformer = transformer(section)?;
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
    let table = |part: &str, rows| {
        Source::whole(format!("text_model.embeddings.{part}_embedding.weight"), &[rows, hidden])
    };
    Ok(TextParts {
        tokens: table("token", spec.vocab_size),
        positions: table("position", spec.context),
        token_type: None,
        embedding_norm: None,
        blocks: BlockNames::CLIP.parts(|i| format!("text_model.encoder.layers.{i}."), &spec.transformer),
        final_norm: Some(NormParts::named("text_model.final_layer_norm", hidden, spec.transformer.eps)),
        head: vec![(LinearParts::biased("text_model.head", (out, hidden)), None)],
        spec,
    })
}

fn vision_tower(section: &Section<'_>) -> Result<VitParts, LoadError> {
    if !section.get_or("vision_use_head", true)? {
        let reason =
            "is false, but without its pooling head the model has no image embedding; use another checkpoint";
        return Err(section.error("vision_use_head", reason));
    }
    section.size("num_channels", 3, (3, 3))?;
    let image = section.pair("image_size", 224, 4096)?;
    let spec = VitSpec {
        transformer: transformer(section)?,
        image,
        patch: section.pair("patch_size", 16, image.0.min(image.1))?,
        class_token: false,
        pooling: vit::Pooling::Attention,
        norm_after_pooling: false,
    };
    let hidden = spec.transformer.hidden;
    let (high, wide) = spec.patch;
    let name = |part: &str| format!("vision_model.{part}");
    let kernel = Source::whole(name("embeddings.patch_embedding.weight"), &[hidden, 3, high, wide]);
    let bias = Source::whole(name("embeddings.patch_embedding.bias"), &[hidden]);
    let positions = name("embeddings.position_embedding.weight");
    Ok(VitParts {
        patch: LinearParts::of(kernel, Some(bias)),
        class: None,
        positions: Source::whole(positions, &[spec.positions(), hidden]),
        class_has_position: false,
        pre_norm: None,
        blocks: BlockNames::CLIP.parts(|i| name(&format!("encoder.layers.{i}.")), &spec.transformer),
        post_norm: Some(NormParts::named(&name("post_layernorm"), hidden, spec.transformer.eps)),
        pool: Some(pool(&spec.transformer)),
        head: Vec::new(),
        spec,
    })
}

/// PyTorch's `MultiheadAttention` keeps the three projections in one matrix: the query's rows, which
/// meet only the probe, then those of keys and values.
fn pool(spec: &TransformerSpec) -> PoolParts {
    let (hidden, inner) = (spec.hidden, spec.inner);
    let name = |part: &str| format!("vision_model.head.{part}");
    let projections = |rows: Range<usize>| {
        let weight = Source::whole(name("attention.in_proj_weight"), &[3 * hidden, hidden]);
        let bias = Source::whole(name("attention.in_proj_bias"), &[3 * hidden]);
        LinearParts::of(weight.part(rows.clone()), Some(bias.part(rows)))
    };
    PoolParts {
        probe: Source::whole(name("probe"), &[1, 1, hidden]),
        query: projections(0..hidden),
        key_value: projections(hidden..3 * hidden),
        out: LinearParts::biased(&name("attention.out_proj"), (hidden, hidden)),
        norm: NormParts::named(&name("layernorm"), hidden, spec.eps),
        fc1: LinearParts::biased(&name("mlp.fc1"), (inner, hidden)),
        fc2: LinearParts::biased(&name("mlp.fc2"), (hidden, inner)),
    }
}
