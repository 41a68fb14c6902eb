//! Networks of the timm library as image towers of OpenCLIP (`visual.trunk.`): vision transformers, with
//! MobileCLIP-B's among them, and the FastViTs of MobileCLIP.
//!
//! Owns: what a timm model name says that its tensors do not (heads, activation, epsilon, pooling),
//! the names of the tensors, and OpenCLIP's heads on top. Sizes come from the tensors.

use super::Vision;
use super::blocks::BlockNames;
use crate::activation::Activation;
use crate::anatomy::{HeadParts, LinearParts, NormParts, PoolParts, Source, VitParts};
use crate::error::LoadError;
use crate::json::Section;
use crate::precision::Precision;
use crate::tower::ConvStem;
use crate::tower::fastvit;
use crate::tower::transformer::{NormOrder, TransformerSpec};
use crate::tower::vit::{Pooling, VitSpec};
use crate::weights::Weights;

const TRUNK: &str = "visual.trunk.";
/// Below [`TRUNK`], the convolutions that embed the patches of MobileCLIP-B.
const STEM: &str = "patch_embed.backbone.";

/// What a model name of timm stands for.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Named {
    /// Width of an attention head.
    head_width: usize,
    activation: Activation,
    eps: f64,
    pooling: Pooling,
    /// Whether patches are embedded by several convolutions (MobileCLIP-B).
    stem: bool,
}

/// The published sizes with the width of their heads.
const SIZES: [(&str, usize); 13] = [
    ("tiny", 64),
    ("small", 64),
    ("xsmall", 64),
    ("medium", 64),
    ("betwixt", 64),
    ("base", 64),
    ("large", 64),
    ("so150m", 64),
    ("huge", 80),
    ("giant", 88),
    ("gigantic", 104),
    ("so400m", 72),
    ("giantopt", 96),
];
/// SigLIP 2 models that approximate GELU by tanh; the other ones do not.
const TANH: [&str; 3] = ["base_patch32", "so400m_patch16", "giantopt_patch16"];

/// Reads `vit_{size}_patch{n}[_plus]_[clip|clip_quickgelu|siglip|siglip_gap_]{pixels}`.
fn named(model: &str) -> Option<Named> {
    let model = model.split('.').next().unwrap_or(model);
    if model == "vit_base_mci_224" {
        let (activation, pooling) = (Activation::Gelu, Pooling::Class);
        return Some(Named { head_width: 64, activation, eps: 1e-6, pooling, stem: true });
    }
    let rest = model.strip_prefix("vit_")?;
    let (size, rest) = rest.split_once("_patch")?;
    let (_, head_width) = SIZES.iter().find(|(name, _)| *name == size)?;
    let mut words = rest.split('_');
    let patch = words.next().filter(|word| word.parse::<usize>().is_ok())?;
    let words: Vec<&str> = words.collect();
    let (pixels, kind) = words.split_last()?;
    let pixels: usize = pixels.parse().ok()?;
    let tanh = TANH.contains(&format!("{size}_patch{patch}").as_str()) || (size == "large" && pixels == 512);
    let siglip = if tanh { Activation::GeluTanh } else { Activation::Gelu };
    let (activation, eps, pooling) = match kind {
        [] => (Activation::Gelu, 1e-6, Pooling::Class),
        ["clip"] | ["plus", "clip"] => (Activation::Gelu, 1e-5, Pooling::Class),
        ["clip", "quickgelu"] => (Activation::QuickGelu, 1e-5, Pooling::Class),
        ["siglip"] => (siglip, 1e-6, Pooling::Attention),
        ["siglip", "gap"] => (siglip, 1e-6, Pooling::MeanOfPatches),
        _ => return None,
    };
    Some(Named { head_width: *head_width, activation, eps, pooling, stem: false })
}

pub(super) fn vision_tower(
    weights: &Weights,
    section: &Section<'_>,
    out: usize,
) -> Result<Vision, LoadError> {
    let model: String = section.get_or("timm_model_name", String::new())?;
    if fastvit::is_fastvit(&model) {
        return fast_vit(section, model, out);
    }
    let Some(mut named) = named(&model) else {
        let reason = format!(
            "is '{model}', but known are timm's plain vision transformers, with or without clip or siglip, and MobileCLIP's towers; use another checkpoint"
        );
        return Err(section.error("timm_model_name", reason));
    };
    match section.get::<String>("timm_pool")?.as_deref() {
        // The default of the configuration class, unless the file says otherwise.
        None | Some("avg") => named.pooling = Pooling::MeanOfPatches,
        Some("") => {}
        Some("token") if named.pooling == Pooling::Class => {}
        Some("map") if named.pooling == Pooling::Attention => {}
        Some(pool) => {
            let reason =
                format!("is '{pool}', which {model} does not support here; known are avg, token and map");
            return Err(section.error("timm_pool", reason));
        }
    }
    let parts = Box::new(vit(weights, section, named, out)?);
    Ok(match named.stem {
        true => Vision::Stemmed { model, prefix: format!("{TRUNK}{STEM}"), parts },
        false => Vision::Vit(parts),
    })
}

/// Its pooling and its classifier are part of the network; OpenCLIP adds nothing.
fn fast_vit(section: &Section<'_>, model: String, out: usize) -> Result<Vision, LoadError> {
    for (key, only) in [("timm_pool", "avg"), ("timm_proj", "")] {
        if let Some(found) = section.get::<String>(key)?
            && found != only
        {
            let reason = format!("is '{found}', but {model} goes with '{only}'; use another checkpoint");
            return Err(section.error(key, reason));
        }
    }
    let image = section.pair("image_size", 224, 4096)?;
    Ok(Vision::FastVit { model, prefix: TRUNK.to_owned(), image, out })
}

fn vit(weights: &Weights, section: &Section<'_>, named: Named, out: usize) -> Result<VitParts, LoadError> {
    let spec = spec(weights, section, named)?;
    let hidden = spec.transformer.hidden;
    let name = |part: &str| format!("{TRUNK}{part}");
    let norm = |part: &str| NormParts::named(&name(part), hidden, spec.transformer.eps);
    // Behind a stem the class token has no position of its own.
    let class_has_position = spec.class_token && !named.stem;
    let (rows, columns) = spec.grid();
    let positions = rows * columns + usize::from(class_has_position);
    Ok(VitParts {
        patch: patch(weights, &spec, named)?,
        class: spec.class_token.then(|| Source::whole(name("cls_token"), &[1, 1, hidden])),
        positions: Source::whole(name("pos_embed"), &[1, positions, hidden]),
        class_has_position,
        pre_norm: weights.has(&name("norm_pre.weight")).then(|| norm("norm_pre")),
        blocks: BlockNames::TIMM.parts(|i| name(&format!("blocks.{i}.")), &spec.transformer),
        post_norm: Some(norm(if spec.norm_after_pooling { "fc_norm" } else { "norm" })),
        pool: (spec.pooling == Pooling::Attention).then(|| pool(&spec.transformer)),
        head: head(section, hidden, out)?,
        spec,
    })
}

/// From patches to rows; behind a stem, from the windows of its last convolution.
fn patch(weights: &Weights, spec: &VitSpec, named: Named) -> Result<LinearParts, LoadError> {
    let hidden = spec.transformer.hidden;
    let name = |part: &str| format!("{TRUNK}{part}");
    if named.stem {
        let kernel = name(&format!("{STEM}2.conv.weight"));
        let bias = Source::whole(name(&format!("{STEM}2.conv.bias")), &[hidden]);
        let shape = weights.shape(&kernel)?;
        return Ok(LinearParts::of(Source::whole(kernel, shape), Some(bias)));
    }
    let (high, wide) = spec.patch;
    let kernel = Source::whole(name("patch_embed.proj.weight"), &[hidden, 3, high, wide]);
    // Models with a norm before the blocks have no bias here.
    let bias = name("patch_embed.proj.bias");
    let bias = weights.has(&bias).then(|| Source::whole(bias, &[hidden]));
    Ok(LinearParts::of(kernel, bias))
}

fn spec(weights: &Weights, section: &Section<'_>, named: Named) -> Result<VitSpec, LoadError> {
    let (hidden, patch) = match named.stem {
        true => (last_of(weights, &format!("{TRUNK}pos_embed"))?, (ConvStem::PATCH, ConvStem::PATCH)),
        false => {
            let kernel = format!("{TRUNK}patch_embed.proj.weight");
            match *weights.shape(&kernel)? {
                [hidden, _, high, wide] => (hidden, (high, wide)),
                ref found => {
                    let (expected, found) = (vec![0, 3, 0, 0], found.to_vec());
                    return Err(LoadError::TensorShape { name: kernel, expected, found });
                }
            }
        }
    };
    let block = |i: usize, part: &str| format!("{TRUNK}blocks.{i}.{part}");
    let layers = (0..).take_while(|i| weights.has(&block(*i, "norm1.weight"))).count();
    let inner = weights.shape(&block(0, "mlp.fc1.weight"))?[0];
    if !hidden.is_multiple_of(named.head_width) {
        let reason = format!(
            "has heads of {}, which do not divide the width {hidden} of the tensors",
            named.head_width
        );
        return Err(section.error("timm_model_name", reason));
    }
    Ok(VitSpec {
        transformer: TransformerSpec {
            hidden,
            inner,
            layers,
            heads: hidden / named.head_width,
            activation: named.activation,
            eps: named.eps,
            norm: NormOrder::Before,
            qkv_bias: weights.has(&block(0, "attn.qkv.bias")),
            layer_scale: weights.has(&block(0, "ls1.gamma")),
            precision: Precision::F32,
        },
        image: section.pair("image_size", 224, 4096)?,
        patch,
        class_token: weights.has(&format!("{TRUNK}cls_token")),
        pooling: named.pooling,
        norm_after_pooling: weights.has(&format!("{TRUNK}fc_norm.weight")),
    })
}

/// The last of a tensor's sizes.
fn last_of(weights: &Weights, name: &str) -> Result<usize, LoadError> {
    weights.shape(name)?.last().copied().ok_or_else(|| LoadError::TensorShape {
        name: name.to_owned(),
        expected: vec![1, 0, 0],
        found: Vec::new(),
    })
}

/// OpenCLIP's projection, or timm's own classifier in its place.
fn head(section: &Section<'_>, hidden: usize, out: usize) -> Result<HeadParts, LoadError> {
    let layer = match section.get_or("timm_proj_bias", false)? {
        true => LinearParts::biased,
        false => LinearParts::unbiased,
    };
    let kind = match section.is_null("timm_proj") {
        true => String::new(),
        false => section.get_or("timm_proj", "linear".to_owned())?,
    };
    Ok(match kind.as_str() {
        "linear" => vec![(layer("visual.head.proj", (out, hidden)), None)],
        "mlp" => {
            let fc1 = LinearParts::biased("visual.head.mlp.fc1", (2 * out, hidden));
            vec![(fc1, Some(Activation::Gelu)), (layer("visual.head.mlp.fc2", (out, 2 * out)), None)]
        }
        "" => vec![(LinearParts::biased(&format!("{TRUNK}head"), (out, hidden)), None)],
        "none" if hidden == out => Vec::new(),
        other => {
            let reason = format!("is '{other}', but known are linear, mlp and none");
            return Err(section.error("timm_proj", reason));
        }
    })
}

fn pool(spec: &TransformerSpec) -> PoolParts {
    let (hidden, inner) = (spec.hidden, spec.inner);
    let name = |part: &str| format!("{TRUNK}attn_pool.{part}");
    PoolParts {
        probe: Source::whole(name("latent"), &[1, 1, hidden]),
        query: LinearParts::biased(&name("q"), (hidden, hidden)),
        key_value: LinearParts::biased(&name("kv"), (2 * hidden, hidden)),
        out: LinearParts::biased(&name("proj"), (hidden, hidden)),
        norm: NormParts::named(&name("norm"), hidden, spec.eps),
        fc1: LinearParts::biased(&name("mlp.fc1"), (inner, hidden)),
        fc2: LinearParts::biased(&name("mlp.fc2"), (hidden, inner)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_published_models_are_understood() {
        let read = |name: &str| named(name).map(|n| (n.head_width, n.activation, n.eps, n.pooling));
        assert_eq!(read("vit_base_patch16_224"), Some((64, Activation::Gelu, 1e-6, Pooling::Class)));
        assert_eq!(
            read("vit_large_patch14_clip_quickgelu_336"),
            Some((64, Activation::QuickGelu, 1e-5, Pooling::Class))
        );
        assert_eq!(
            read("vit_base_patch16_siglip_224"),
            Some((64, Activation::Gelu, 1e-6, Pooling::Attention))
        );
        assert_eq!(
            read("vit_so400m_patch14_siglip_384"),
            Some((72, Activation::Gelu, 1e-6, Pooling::Attention))
        );
        assert_eq!(
            read("vit_so400m_patch16_siglip_256.webli"),
            Some((72, Activation::GeluTanh, 1e-6, Pooling::Attention))
        );
        assert_eq!(
            read("vit_large_patch16_siglip_512"),
            Some((64, Activation::GeluTanh, 1e-6, Pooling::Attention))
        );
        assert_eq!(
            read("vit_large_patch16_siglip_384"),
            Some((64, Activation::Gelu, 1e-6, Pooling::Attention))
        );
        assert_eq!(
            read("vit_base_patch16_siglip_gap_256"),
            Some((64, Activation::Gelu, 1e-6, Pooling::MeanOfPatches))
        );
        for unknown in
            ["resnet50", "vit_base_patch16_rope_224", "vit_base_patch16_reg4_gap_256", "vit_nano_patch8_32"]
        {
            assert_eq!(read(unknown), None, "{unknown}");
        }
    }
}
