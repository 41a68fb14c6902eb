//! `CLIPModel` of the transformers library, and its image tower wherever else it is used.
//!
//! Owns: the names of its tensors and what its configuration means for the towers.

use std::path::Path;

use serde_json::Value;

use super::blocks::BlockNames;
use super::{Description, Vision, scalar};
use crate::anatomy::{Anatomy, HeadParts, LinearParts, NormParts, Source, TextParts, VisionParts, VitParts};
use crate::config::{ClipConfig, TextConfig, VisionConfig};
use crate::error::LoadError;
use crate::precision::Precision;
use crate::preprocess::{Preprocessing, ProcessorFamily};
use crate::tokenizer::{Cleaning, Kind, Padding, TextRules, TextTokenizer};
use crate::tower::text::{Attention, Pooling, TextSpec};
use crate::tower::transformer::{NormOrder, TransformerSpec};
use crate::tower::vit::{self, VitSpec};
use crate::weights::Weights;

pub(super) fn describe(dir: &Path, config: &Value, weights: &Weights) -> Result<Description, LoadError> {
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
    let (vision, text) = towers(&config);
    Ok(Description {
        vision: Vision::Vit(Box::new(vision)),
        text,
        logit_scale: scalar(weights, "logit_scale"),
        logit_bias: None,
        preprocessing: Preprocessing::from_dir(dir, ProcessorFamily::Clip, (side, side))?,
        tokenizer: TextTokenizer::from_dir(dir, &rules)?,
    })
}

/// What a `CLIPModel` of this configuration is made of, under the names that the transformers library
/// saves it with. The configuration is taken to be valid ([`ClipConfig::validate`]).
pub fn clip_anatomy(config: &ClipConfig) -> Anatomy {
    let (vision, text) = towers(config);
    Anatomy {
        vision: VisionParts::Vit(Box::new(vision)),
        text,
        logit_scale: Source::whole("logit_scale", &[]),
        logit_bias: None,
    }
}

fn towers(config: &ClipConfig) -> (VitParts, TextParts) {
    let shape = (config.projection_dim, config.vision.hidden_size);
    let head = vec![(LinearParts::unbiased("visual_projection", shape), None)];
    let vision = vision_tower("vision_model.", &config.vision, head);
    (vision, text_tower(&config.text, config.projection_dim))
}

fn text_tower(config: &TextConfig, out: usize) -> TextParts {
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
            precision: Precision::F32,
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
    let table = |part: &str, rows| {
        Source::whole(format!("text_model.embeddings.{part}_embedding.weight"), &[rows, hidden])
    };
    TextParts {
        tokens: table("token", spec.vocab_size),
        positions: table("position", spec.context),
        token_type: None,
        embedding_norm: None,
        blocks: BlockNames::CLIP.parts(|i| format!("text_model.encoder.layers.{i}."), &spec.transformer),
        final_norm: Some(NormParts::named("text_model.final_layer_norm", hidden, config.layer_norm_eps)),
        head: vec![(LinearParts::unbiased("text_projection", (out, hidden)), None)],
        spec,
    }
}

/// `CLIPVisionTransformer` below a prefix, with the head that the family puts on it.
pub(super) fn vision_tower(prefix: &str, config: &VisionConfig, head: HeadParts) -> VitParts {
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
            precision: Precision::F32,
        },
        image: (side, side),
        patch: (patch, patch),
        class_token: true,
        pooling: vit::Pooling::Class,
        norm_after_pooling: false,
    };
    let name = |part: &str| format!("{prefix}{part}");
    let norm = |part: &str| NormParts::named(&name(part), hidden, config.layer_norm_eps);
    let kernel = Source::whole(name("embeddings.patch_embedding.weight"), &[hidden, 3, patch, patch]);
    let positions = name("embeddings.position_embedding.weight");
    VitParts {
        patch: LinearParts::of(kernel, None),
        class: Some(Source::whole(name("embeddings.class_embedding"), &[hidden])),
        positions: Source::whole(positions, &[spec.positions(), hidden]),
        class_has_position: true,
        // Spelled like this in every published checkpoint.
        pre_norm: Some(norm("pre_layrnorm")),
        blocks: BlockNames::CLIP.parts(|i| name(&format!("encoder.layers.{i}.")), &spec.transformer),
        post_norm: Some(norm("post_layernorm")),
        pool: None,
        head,
        spec,
    }
}
