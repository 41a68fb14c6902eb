//! How the weights of transformer blocks are held and multiplied.
//!
//! Owns: the choice and its names. Does not own the arithmetic, which is `diptych_kernels`.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// How the linear layers of transformer blocks compute. Everything else is always `f32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// As published, up-cast where stored in half precision.
    #[default]
    F32,
    /// Weights and activations rounded to 8 bits with a scale for each group of inputs; sums are exact.
    /// A quarter of the memory and a multiple of the speed, for embeddings that differ a little: another
    /// model, with an id of its own. On processors without 8-bit dot products (VNNI) it is slower.
    Int8,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Int8 => "int8",
        })
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "f32" => Ok(Self::F32),
            "int8" => Ok(Self::Int8),
            _ => Err(format!("'{name}' is no precision; known are f32 and int8")),
        }
    }
}
