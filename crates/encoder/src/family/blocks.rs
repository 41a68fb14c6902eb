//! The names of a transformer block's tensors.
//!
//! Owns: how each library spells the parts of a block, and the description that this makes of all
//! blocks of a tower. Does not own sizes.

use crate::anatomy::{BlockParts, LinearParts, NormParts, Source, TransformerSpec};

/// Where queries, keys and values are stored.
#[derive(Debug, Clone, Copy)]
pub(super) enum QkvNames {
    /// Three linear layers.
    Split([&'static str; 3]),
    /// One matrix of three blocks of rows, and its bias, under these full names.
    Joined { weight: &'static str, bias: &'static str },
}

/// A family's names for the parts of a block, below the block's own prefix.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockNames {
    pub(super) qkv: QkvNames,
    pub(super) out: &'static str,
    /// The norm of attention, and of the feed-forward layer.
    pub(super) norms: [&'static str; 2],
    pub(super) fc: [&'static str; 2],
    /// The scales of both additions, where there are any.
    pub(super) scales: [&'static str; 2],
}

impl BlockNames {
    /// `CLIPEncoderLayer` and `SiglipEncoderLayer` of the transformers library.
    pub(super) const CLIP: Self = Self {
        qkv: QkvNames::Split(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
        out: "self_attn.out_proj",
        norms: ["layer_norm1", "layer_norm2"],
        fc: ["mlp.fc1", "mlp.fc2"],
        scales: ["", ""],
    };
    /// `BertLayer`.
    pub(super) const BERT: Self = Self {
        qkv: QkvNames::Split(["attention.self.query", "attention.self.key", "attention.self.value"]),
        out: "attention.output.dense",
        norms: ["attention.output.LayerNorm", "output.LayerNorm"],
        fc: ["intermediate.dense", "output.dense"],
        scales: ["", ""],
    };
    /// `ViTLayer`.
    pub(super) const VIT: Self = Self {
        qkv: QkvNames::Split([
            "attention.attention.query",
            "attention.attention.key",
            "attention.attention.value",
        ]),
        out: "attention.output.dense",
        norms: ["layernorm_before", "layernorm_after"],
        fc: ["intermediate.dense", "output.dense"],
        scales: ["", ""],
    };
    /// `ResidualAttentionBlock` of OpenCLIP.
    pub(super) const OPEN_CLIP: Self = Self {
        qkv: QkvNames::Joined { weight: "attn.in_proj_weight", bias: "attn.in_proj_bias" },
        out: "attn.out_proj",
        norms: ["ln_1", "ln_2"],
        fc: ["mlp.c_fc", "mlp.c_proj"],
        scales: ["ls_1.gamma", "ls_2.gamma"],
    };
    /// `Block` of timm's vision transformer.
    pub(super) const TIMM: Self = Self {
        qkv: QkvNames::Joined { weight: "attn.qkv.weight", bias: "attn.qkv.bias" },
        out: "attn.proj",
        norms: ["norm1", "norm2"],
        fc: ["mlp.fc1", "mlp.fc2"],
        scales: ["ls1.gamma", "ls2.gamma"],
    };

    /// All blocks of a tower, block `i` below `prefix(i)`.
    pub(super) fn parts(&self, prefix: impl Fn(usize) -> String, spec: &TransformerSpec) -> Vec<BlockParts> {
        (0..spec.layers).map(|i| self.block(&prefix(i), spec)).collect()
    }

    fn block(&self, prefix: &str, spec: &TransformerSpec) -> BlockParts {
        let (hidden, inner) = (spec.hidden, spec.inner);
        let name = |part: &str| format!("{prefix}{part}");
        let [norm1, norm2] = self.norms.map(|part| NormParts::named(&name(part), hidden, spec.eps));
        let [scale1, scale2] =
            self.scales.map(|part| spec.layer_scale.then(|| Source::whole(name(part), &[hidden])));
        let linear = |part: &str, out, input, scale| LinearParts {
            scale,
            ..LinearParts::biased(&name(part), (out, input))
        };
        BlockParts {
            norm1,
            qkv: self.qkv.parts(prefix, spec),
            out: linear(self.out, hidden, hidden, scale1),
            norm2,
            fc1: linear(self.fc[0], inner, hidden, None),
            fc2: linear(self.fc[1], hidden, inner, scale2),
        }
    }
}

impl QkvNames {
    fn parts(self, prefix: &str, spec: &TransformerSpec) -> LinearParts {
        let hidden = spec.hidden;
        let whole = |name: String, shape: &[usize]| Source::whole(format!("{prefix}{name}"), shape);
        let (weight, bias): (Vec<Source>, Vec<Source>) = match self {
            Self::Split(parts) => parts
                .iter()
                .map(|part| {
                    (
                        whole(format!("{part}.weight"), &[hidden, hidden]),
                        whole(format!("{part}.bias"), &[hidden]),
                    )
                })
                .unzip(),
            Self::Joined { weight, bias } => (
                vec![whole(weight.to_owned(), &[3 * hidden, hidden])],
                vec![whole(bias.to_owned(), &[3 * hidden])],
            ),
        };
        let bias = if spec.qkv_bias { bias } else { Vec::new() };
        LinearParts { weight, bias, scale: None, out: 3 * hidden, input: hidden }
    }
}
