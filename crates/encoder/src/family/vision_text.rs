//! `VisionTextDualEncoderModel` of the transformers library: a ViT or CLIP's image tower beside a BERT
//! or RoBERTa, each as it was pretrained.
//!
//! Owns: the names of `ViTModel`'s tensors and what the configuration means for the towers.

use std::path::Path;

use serde_json::Value;

use super::bert::{self, Pooler};
use super::blocks::BlockNames;
use super::{Description, Vision, hf_clip, scalar};
use crate::activation::Activation;
use crate::anatomy::{LinearParts, NormParts, Source, VitParts};
use crate::config::{CONFIG_FILE, VisionConfig};
use crate::error::LoadError;
use crate::json::Section;
use crate::precision::Precision;
use crate::preprocess::{Preprocessing, ProcessorFamily};
use crate::tokenizer::{Cleaning, Kind, Padding, TextRules, TextTokenizer};
use crate::tower::transformer::{NormOrder, TransformerSpec};
use crate::tower::vit::{self, VitSpec};
use crate::weights::Weights;

pub(super) fn describe(dir: &Path, config: &Value, weights: &Weights) -> Result<Description, LoadError> {
    let top = Section::top(CONFIG_FILE, config)?;
    let out = top.size("projection_dim", 512, (1, diptych_core::limits::DIM_MAX))?;
    let section = top.section("text_config")?;
    let text = bert::projected(&section, Pooler::Dense, out)?;
    let vision = vision_tower(weights, &top.section("vision_config")?, out)?;
    let rules = TextRules {
        context_length: Some(text.spec.context),
        vocab_size: text.spec.vocab_size,
        padding: Padding::None,
        cleaning: Cleaning::None,
        default_kind: Kind::Bert,
        tokenizer_kwargs: None,
    };
    let image = vision.spec.image;
    Ok(Description {
        vision: Vision::Vit(Box::new(vision)),
        text,
        logit_scale: scalar(weights, "logit_scale"),
        logit_bias: None,
        preprocessing: Preprocessing::from_dir(dir, ProcessorFamily::VisionText, image)?,
        tokenizer: TextTokenizer::from_dir(dir, &rules)?,
    })
}

fn vision_tower(weights: &Weights, section: &Section<'_>, out: usize) -> Result<VitParts, LoadError> {
    let projection = |hidden| LinearParts::unbiased("visual_projection", (out, hidden));
    match section.get::<String>("model_type")?.as_deref() {
        None | Some("vit") => vit_tower(section, projection),
        Some("clip" | "clip_vision_model") => {
            // A whole CLIPConfig may stand here; its image tower is what counts.
            let inner = match section.value("vision_config") {
                Some(_) => section.section("vision_config")?,
                None => *section,
            };
            let config = VisionConfig::from_section(inner)?;
            config.validate()?;
            // Older versions of the library wrap the tower once more.
            let wrapped = "vision_model.vision_model.";
            let deep = weights.has(&format!("{wrapped}embeddings.class_embedding"));
            let prefix = if deep { wrapped } else { "vision_model." };
            let head = vec![(projection(config.hidden_size), None)];
            Ok(hf_clip::vision_tower(prefix, &config, head))
        }
        Some(kind) => {
            let reason = format!(
                "is '{kind}', but known image towers are vit and clip_vision_model; use a checkpoint with one of these"
            );
            Err(section.error("model_type", reason))
        }
    }
}

/// `ViTModel` with its pooler: a linear layer and an activation on the class token.
fn vit_tower(
    section: &Section<'_>,
    projection: impl Fn(usize) -> LinearParts,
) -> Result<VitParts, LoadError> {
    let hidden = section.size("hidden_size", 768, (1, 1 << 16))?;
    let heads = section.size("num_attention_heads", 12, (1, 1 << 12))?;
    if !hidden.is_multiple_of(heads) {
        return Err(section.heads_error(heads, hidden));
    }
    section.size("num_channels", 3, (3, 3))?;
    section.size("pooler_output_size", hidden, (hidden, hidden))?;
    let image = section.pair("image_size", 224, 4096)?;
    let spec = VitSpec {
        transformer: TransformerSpec {
            hidden,
            inner: section.size("intermediate_size", 3072, (1, 1 << 18))?,
            layers: section.size("num_hidden_layers", 12, (1, 1024))?,
            heads,
            activation: section.activation("hidden_act", Activation::Gelu)?,
            eps: section.epsilon("layer_norm_eps", 1e-12)?,
            norm: NormOrder::Before,
            qkv_bias: section.get_or("qkv_bias", true)?,
            layer_scale: false,
            precision: Precision::F32,
        },
        image,
        patch: section.pair("patch_size", 16, image.0.min(image.1))?,
        class_token: true,
        pooling: vit::Pooling::Class,
        norm_after_pooling: false,
    };
    let name = |part: &str| format!("vision_model.{part}");
    let kernel = name("embeddings.patch_embeddings.projection");
    let (high, wide) = spec.patch;
    let weight = Source::whole(format!("{kernel}.weight"), &[hidden, 3, high, wide]);
    let bias = Source::whole(format!("{kernel}.bias"), &[hidden]);
    let pooler = LinearParts::biased(&name("pooler.dense"), (hidden, hidden));
    let pooler_act = section.activation("pooler_act", Activation::Tanh)?;
    let positions = name("embeddings.position_embeddings");
    Ok(VitParts {
        patch: LinearParts::of(weight, Some(bias)),
        class: Some(Source::whole(name("embeddings.cls_token"), &[1, 1, hidden])),
        positions: Source::whole(positions, &[1, spec.positions(), hidden]),
        class_has_position: true,
        pre_norm: None,
        blocks: BlockNames::VIT.parts(|i| name(&format!("encoder.layer.{i}.")), &spec.transformer),
        post_norm: Some(NormParts::named(&name("layernorm"), hidden, spec.transformer.eps)),
        pool: None,
        head: vec![(pooler, Some(pooler_act)), (projection(hidden), None)],
        spec,
    })
}
