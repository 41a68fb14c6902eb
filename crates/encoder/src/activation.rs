//! The names that published files give to activations.
//!
//! Owns: the spelling of `hidden_act`. Does not own the functions, which are `diptych_kernels`.

pub use diptych_kernels::Activation;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

/// The names to suggest in errors.
pub(crate) const KNOWN: &str = "quick_gelu, gelu, gelu_pytorch_tanh, relu, relu6, silu and tanh";

/// The activation of a `hidden_act`; none for an unknown name. The transformers library has several
/// names for the same function, some for different ways to compute it.
pub(crate) fn from_name(name: &str) -> Option<Activation> {
    Some(match name {
        "quick_gelu" => Activation::QuickGelu,
        "gelu" | "gelu_python" => Activation::Gelu,
        "gelu_pytorch_tanh" | "gelu_new" | "gelu_fast" | "gelu_accurate" | "gelu_python_tanh" => {
            Activation::GeluTanh
        }
        "relu" => Activation::Relu,
        "relu6" => Activation::Relu6,
        "silu" | "swish" => Activation::Silu,
        "tanh" => Activation::Tanh,
        _ => return None,
    })
}

/// The name to write into a `config.json`.
pub(crate) fn name(activation: Activation) -> &'static str {
    match activation {
        Activation::QuickGelu => "quick_gelu",
        Activation::Gelu => "gelu",
        Activation::GeluTanh => "gelu_pytorch_tanh",
        Activation::Relu => "relu",
        Activation::Relu6 => "relu6",
        Activation::Silu => "silu",
        Activation::Tanh => "tanh",
    }
}

/// For `#[serde(serialize_with)]`.
pub(crate) fn serialize<S: Serializer>(activation: &Activation, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(name(*activation))
}

/// For `#[serde(deserialize_with)]`.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Activation, D::Error> {
    let found = String::deserialize(deserializer)?;
    from_name(&found).ok_or_else(|| {
        D::Error::custom(format!("'{found}' is no activation that is known; known are {KNOWN}"))
    })
}
