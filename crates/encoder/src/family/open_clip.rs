//! OpenCLIP's own format: `open_clip_config.json` with the weights under OpenCLIP's names.
//!
//! Owns: what `model_cfg` means for the towers, and OpenCLIP's own transformers. Towers of timm and of
//! the transformers library within this format are `timm` and `bert`. BiomedCLIP is one of each.

use std::path::Path;

use serde_json::Value;

use super::bert::{self, BertConfig, Pooler};
use super::blocks::BlockNames;
use super::{Description, OPEN_CLIP_CONFIG_FILE, Vision, scalar, timm};
use crate::activation::Activation;
use crate::anatomy::{LinearParts, NormParts, Source, TextParts, VitParts};
use crate::error::LoadError;
use crate::json::Section;
use crate::precision::Precision;
use crate::preprocess::Preprocessing;
use crate::tokenizer::{Cleaning, Kind, Padding, TextRules, TextTokenizer};
use crate::tower::text::{Attention, Pooling, TextSpec};
use crate::tower::transformer::{NormOrder, TransformerSpec};
use crate::tower::vit::{self, VitSpec};
use crate::weights::Weights;

/// Options of OpenCLIP's blocks that add layers nobody has published weights for.
const CUSTOM_BLOCKS: [&str; 6] =
    ["qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc"];

pub(super) fn describe(dir: &Path, config: &Value, weights: &Weights) -> Result<Description, LoadError> {
    let top = Section::top(OPEN_CLIP_CONFIG_FILE, config)?;
    let model = top.section("model_cfg")?;
    model.refuse(&["multimodal_cfg"])?;
    let out = model.size("embed_dim", 512, (1, diptych_core::limits::DIM_MAX))?;
    let activation =
        if model.get_or("quick_gelu", false)? { Activation::QuickGelu } else { Activation::Gelu };
    let text_cfg = model.section("text_cfg")?;
    text_cfg.refuse(&["tokenizer_mode"])?;
    let vision_cfg = model.section("vision_cfg")?;
    let vision = match vision_cfg.get::<String>("timm_model_name")? {
        Some(_) => timm::vision_tower(weights, &vision_cfg, out)?,
        None => Vision::Vit(Box::new(vision_tower(&vision_cfg, activation, out)?)),
    };
    let hugging_face = text_cfg.get::<String>("hf_model_name")?;
    let text = match &hugging_face {
        Some(name) => hugging_face_tower(weights, &text_cfg, name, out)?,
        None => text_tower(weights, &text_cfg, activation, out)?,
    };
    // A tokenizer of the transformers library instead of OpenCLIP's own.
    let foreign = text_cfg.value("hf_tokenizer_name").is_some();
    let rules = TextRules {
        context_length: Some(text_cfg.get_or("context_length", 77)?.min(text.spec.context)),
        vocab_size: text.spec.vocab_size,
        padding: match (text.spec.attention, text.spec.pooling) {
            (Attention::Full, _) | (_, Pooling::Last) if foreign => Padding::ToContext,
            // OpenCLIP's own tokenizer pads with 0, whatever the files say.
            (Attention::Full, _) | (_, Pooling::Last) => Padding::ToContextWith(0),
            _ => Padding::None,
        },
        cleaning: if foreign { Cleaning::OpenClipHf } else { Cleaning::OpenClipSimple },
        default_kind: if hugging_face.is_some() { Kind::Bert } else { Kind::ClipBpe },
        tokenizer_kwargs: text_cfg.value("tokenizer_kwargs"),
    };
    Ok(Description {
        preprocessing: Preprocessing::from_open_clip(config, vision.image())?,
        tokenizer: TextTokenizer::from_dir(dir, &rules)?,
        text,
        vision,
        logit_scale: scalar(weights, "logit_scale"),
        logit_bias: weights.has("logit_bias").then(|| scalar(weights, "logit_bias")),
    })
}

/// The sizes of OpenCLIP's own blocks, for either tower.
fn transformer(
    section: &Section<'_>,
    activation: Activation,
    (width, heads): (usize, usize),
) -> Result<TransformerSpec, LoadError> {
    section.refuse(&CUSTOM_BLOCKS)?;
    if section.value("block_type").is_some_and(|kind| kind != "default") {
        section.refuse(&["block_type"])?;
    }
    let activation = match (activation, section.value("act_kwargs")) {
        (activation, None) => activation,
        (Activation::Gelu, Some(_)) => gelu(&section.section("act_kwargs")?)?,
        _ => {
            let reason = "is there beside quick_gelu, which takes no options; use another checkpoint";
            return Err(section.error("act_kwargs", reason));
        }
    };
    if heads == 0 || !width.is_multiple_of(heads) {
        let reason =
            format!("is {width}, which {heads} heads do not divide; use the configuration of these weights");
        return Err(section.error("width", reason));
    }
    let ratio: f64 = section.get_or("mlp_ratio", 4.0)?;
    let inner = (width as f64 * ratio) as usize;
    if inner == 0 || inner > 1 << 18 {
        return Err(section.error("mlp_ratio", format!("is {ratio}, but is usually 4")));
    }
    let eps = match section.value("norm_kwargs") {
        None => 1e-5,
        Some(_) => section.section("norm_kwargs")?.epsilon("eps", 1e-5)?,
    };
    Ok(TransformerSpec {
        hidden: width,
        inner,
        layers: section.size("layers", 12, (1, 1024))?,
        heads,
        activation,
        eps,
        norm: NormOrder::Before,
        qkv_bias: true,
        layer_scale: section.value("ls_init_value").is_some(),
        precision: Precision::F32,
    })
}

/// PyTorch's GELU, exact or approximated.
fn gelu(options: &Section<'_>) -> Result<Activation, LoadError> {
    match options.get::<String>("approximate")?.as_deref() {
        None | Some("none") => Ok(Activation::Gelu),
        Some("tanh") => Ok(Activation::GeluTanh),
        Some(kind) => Err(options.error("approximate", format!("is '{kind}', but known are none and tanh"))),
    }
}

fn text_tower(
    weights: &Weights,
    section: &Section<'_>,
    activation: Activation,
    out: usize,
) -> Result<TextParts, LoadError> {
    section.refuse(&["embed_cls"])?;
    let width = section.size("width", 512, (1, 1 << 16))?;
    let heads = section.size("heads", 8, (1, 1 << 12))?;
    let pooling = match section.get::<String>("pool_type")?.as_deref() {
        None | Some("argmax") => Pooling::Argmax,
        Some("eos") => Pooling::FirstOf(section.get_or("eos_id", 2)?),
        Some("first") => Pooling::First,
        Some("last") => Pooling::Last,
        Some(kind) => {
            let reason = format!("is '{kind}', but known are argmax, eos, first and last");
            return Err(section.error("pool_type", reason));
        }
    };
    let causal = !section.get_or("no_causal_mask", false)?;
    let spec = TextSpec {
        transformer: transformer(section, activation, (width, heads))?,
        vocab_size: section.size("vocab_size", 49_408, (1, 1 << 24))?,
        context: section.size("context_length", 77, (2, 1 << 16))?,
        attention: if causal { Attention::Causal } else { Attention::Full },
        pooling,
        pad_id: section.get_or("pad_id", 0)?,
    };
    // Models with a text tower of their own class keep it below a prefix.
    let prefix = if weights.has("text.token_embedding.weight") { "text." } else { "" };
    let name = |part: &str| format!("{prefix}{part}");
    let projection = name("text_projection");
    let head = match section.get::<String>("proj_type")?.as_deref() {
        Some("none") if width == out => Vec::new(),
        Some("none") => {
            let reason = format!(
                "is 'none', but width {width} is not embed_dim {out}; use the configuration of these weights"
            );
            return Err(section.error("proj_type", reason));
        }
        None | Some("linear") => {
            let layer = match section.get_or("proj_bias", false)? {
                true => LinearParts::biased(&projection, (out, width)),
                false => LinearParts::of(Source::transposed(projection, out, width), None),
            };
            vec![(layer, None)]
        }
        Some(kind) => {
            return Err(section.error("proj_type", format!("is '{kind}', but known are linear and none")));
        }
    };
    Ok(TextParts {
        tokens: Source::whole(name("token_embedding.weight"), &[spec.vocab_size, width]),
        positions: Source::whole(name("positional_embedding"), &[spec.context, width]),
        token_type: None,
        embedding_norm: None,
        blocks: BlockNames::OPEN_CLIP
            .parts(|i| name(&format!("transformer.resblocks.{i}.")), &spec.transformer),
        final_norm: Some(NormParts::named(&name("ln_final"), width, spec.transformer.eps)),
        head,
        spec,
    })
}

/// A tower of the transformers library. The configuration gives only its name, so that sizes come
/// from the tensors.
fn hugging_face_tower(
    weights: &Weights,
    section: &Section<'_>,
    model: &str,
    out: usize,
) -> Result<TextParts, LoadError> {
    let roberta = model.to_lowercase().contains("roberta");
    if !roberta && !model.to_lowercase().contains("bert") {
        let reason =
            format!("is '{model}', but known text towers are BERT and RoBERTa; use another checkpoint");
        return Err(section.error("hf_model_name", reason));
    }
    let prefix = "text.transformer.";
    let config = BertConfig::from_shapes(weights, prefix, roberta)?;
    let pooler = match section.get::<String>("hf_pooler_type")?.as_deref() {
        None | Some("mean_pooler") => Pooler::State(Pooling::Mean),
        Some("cls_last_hidden_state_pooler") => Pooler::State(Pooling::First),
        Some("cls_pooler") => Pooler::Dense,
        Some(kind) => {
            let reason = format!(
                "is '{kind}', but known are mean_pooler, cls_pooler and cls_last_hidden_state_pooler"
            );
            return Err(section.error("hf_pooler_type", reason));
        }
    };
    let hidden = config.hidden;
    let kind = match section.value("hf_proj_type") {
        None => Some("mlp".to_owned()).filter(|_| !section.is_null("hf_proj_type")),
        Some(_) => section.get::<String>("hf_proj_type")?,
    };
    let layer = LinearParts::unbiased;
    let head = match kind.as_deref() {
        None | Some("") if hidden == out => Vec::new(),
        Some("linear") => vec![(layer("text.proj", (out, hidden)), None)],
        Some("mlp") => {
            let middle = (hidden + out) / 2;
            vec![
                (layer("text.proj.0", (middle, hidden)), Some(Activation::Gelu)),
                (layer("text.proj.2", (out, middle)), None),
            ]
        }
        other => {
            let reason = format!("is {other:?}, but known are linear and mlp");
            return Err(section.error("hf_proj_type", reason));
        }
    };
    Ok(bert::tower(prefix, &config, pooler, head))
}

fn vision_tower(section: &Section<'_>, activation: Activation, out: usize) -> Result<VitParts, LoadError> {
    section.refuse(&["attentional_pool"])?;
    if let Some(Value::Array(_)) = section.value("layers") {
        let reason =
            "is a list, which means a ResNet; only vision transformers are supported, use a ViT checkpoint";
        return Err(section.error("layers", reason));
    }
    let width = section.size("width", 768, (1, 1 << 16))?;
    let heads = width / section.size("head_width", 64, (1, 1 << 16))?;
    let pooling = match section.get::<String>("pool_type")?.as_deref() {
        None | Some("tok") => vit::Pooling::Class,
        Some("avg") => vit::Pooling::MeanOfPatches,
        Some(kind) => {
            return Err(section.error("pool_type", format!("is '{kind}', but known are tok and avg")));
        }
    };
    let image = section.pair("image_size", 224, 4096)?;
    let spec = VitSpec {
        transformer: transformer(section, activation, (width, heads))?,
        image,
        patch: section.pair("patch_size", 16, image.0.min(image.1))?,
        class_token: true,
        pooling,
        norm_after_pooling: section.get_or("final_ln_after_pool", false)?,
    };
    let (high, wide) = spec.patch;
    let norm = |part: &str| NormParts::named(&format!("visual.{part}"), width, spec.transformer.eps);
    Ok(VitParts {
        patch: LinearParts::of(Source::whole("visual.conv1.weight", &[width, 3, high, wide]), None),
        class: Some(Source::whole("visual.class_embedding", &[width])),
        positions: Source::whole("visual.positional_embedding", &[spec.positions(), width]),
        class_has_position: true,
        pre_norm: if section.get_or("no_ln_pre", false)? { None } else { Some(norm("ln_pre")) },
        blocks: BlockNames::OPEN_CLIP
            .parts(|i| format!("visual.transformer.resblocks.{i}."), &spec.transformer),
        post_norm: Some(norm("ln_post")),
        pool: None,
        head: vec![(LinearParts::of(Source::transposed("visual.proj", out, width), None), None)],
        spec,
    })
}
