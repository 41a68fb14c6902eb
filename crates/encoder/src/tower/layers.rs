//! The layers that all towers are made of, with their weights.
//!
//! Owns: linear layers packed for the matrix product, layer norms, and the heads that map a pooled
//! state to the shared space. Does not own the arithmetic, which is `diptych_kernels`.

use diptych_kernels::{Activation, Epilogue, PackedMatrix, Threads, layer_norm, linear};

use crate::error::LoadError;
use crate::weights::{Floats, Weights};

/// `y = x W^T + b`, W being `[out, in]`.
pub(crate) struct Linear {
    weight: PackedMatrix,
    bias: Option<Vec<f32>>,
}

/// Whether a linear layer has a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bias {
    With,
    Without,
}

impl Linear {
    /// Takes `{name}.weight` and, where there is one, `{name}.bias`.
    pub(crate) fn load(
        weights: &Weights,
        name: &str,
        (out, input): (usize, usize),
        bias: Bias,
    ) -> Result<Self, LoadError> {
        let weight = weights.take(&format!("{name}.weight"), &[out, input])?;
        let bias = match bias {
            Bias::With => Some(weights.take(&format!("{name}.bias"), &[out])?),
            Bias::Without => None,
        };
        Ok(Self::new(&weight, out, input, bias.as_deref()))
    }

    /// From values that were taken already.
    pub(crate) fn new(weight: &[f32], out: usize, input: usize, bias: Option<&[f32]>) -> Self {
        Self { weight: PackedMatrix::pack(weight, out, input), bias: bias.map(<[f32]>::to_vec) }
    }

    /// Several layers over the same input as one.
    pub(crate) fn joined(parts: &[(Floats, usize)], input: usize, bias: Option<Vec<f32>>) -> Self {
        let parts: Vec<(&[f32], usize)> = parts.iter().map(|(weight, out)| (&**weight, *out)).collect();
        Self { weight: PackedMatrix::concat(&parts, input), bias }
    }

    /// A matrix that is stored `[in, out]` and multiplied from the right.
    pub(crate) fn load_transposed(
        weights: &Weights,
        name: &str,
        (out, input): (usize, usize),
    ) -> Result<Self, LoadError> {
        let stored = weights.take(name, &[input, out])?;
        let weight: Vec<f32> = (0..out * input).map(|i| stored[(i % input) * out + i / input]).collect();
        Ok(Self::new(&weight, out, input, None))
    }

    /// Width of the output.
    pub(crate) fn out(&self) -> usize {
        self.weight.rows()
    }

    /// The layer's output for `[rows, in]`.
    pub(crate) fn forward(&self, x: &[f32], rows: usize, threads: Threads) -> Vec<f32> {
        let mut y = vec![0f32; rows * self.out()];
        self.run(&mut y, x, rows, None, threads);
        y
    }

    /// Writes the layer's output, through the activation if there is one.
    pub(crate) fn run(
        &self,
        y: &mut [f32],
        x: &[f32],
        rows: usize,
        activation: Option<Activation>,
        threads: Threads,
    ) {
        let bias = self.bias.as_deref();
        let epilogue = match (activation, bias) {
            (Some(activation), _) => Epilogue::BiasActivation(bias, activation),
            (None, Some(bias)) => Epilogue::Bias(bias),
            (None, None) => Epilogue::None,
        };
        linear(y, x, rows, &self.weight, epilogue, threads);
    }

    /// Adds the layer's output to the residual stream.
    pub(crate) fn add_to(&self, residual: &mut [f32], x: &[f32], rows: usize, threads: Threads) {
        linear(residual, x, rows, &self.weight, Epilogue::AddBias(self.bias.as_deref()), threads);
    }
}

/// `(x - mean) / sqrt(variance + eps) * weight + bias` over each row.
pub(crate) struct LayerNorm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    eps: f32,
}

impl LayerNorm {
    /// Takes `{name}.weight` and `{name}.bias`.
    pub(crate) fn load(weights: &Weights, name: &str, width: usize, eps: f64) -> Result<Self, LoadError> {
        Ok(Self {
            weight: weights.take(&format!("{name}.weight"), &[width])?.to_vec(),
            bias: weights.take(&format!("{name}.bias"), &[width])?.to_vec(),
            eps: eps as f32,
        })
    }

    /// Writes the normalised rows of `x`.
    pub(crate) fn run(&self, out: &mut [f32], x: &[f32], threads: Threads) {
        layer_norm(out, x, self.weight.len(), &self.weight, &self.bias, self.eps, threads);
    }

    /// The normalised rows of `x`.
    pub(crate) fn forward(&self, x: &[f32], threads: Threads) -> Vec<f32> {
        let mut out = vec![0f32; x.len()];
        self.run(&mut out, x, threads);
        out
    }
}

/// From a pooled state to the shared space: layers one after another, each with its activation.
pub(crate) struct Head(pub(crate) Vec<(Linear, Option<Activation>)>);

impl Head {
    /// One linear layer.
    pub(crate) fn linear(layer: Linear) -> Self {
        Self(vec![(layer, None)])
    }

    /// Width of the output for an input of `width`.
    pub(crate) fn out(&self, width: usize) -> usize {
        self.0.last().map_or(width, |(layer, _)| layer.out())
    }

    /// The head's output for `[rows, width]`.
    pub(crate) fn forward(&self, mut x: Vec<f32>, rows: usize, threads: Threads) -> Vec<f32> {
        for (layer, activation) in &self.0 {
            let mut y = vec![0f32; rows * layer.out()];
            layer.run(&mut y, &x, rows, *activation, threads);
            x = y;
        }
        x
    }
}
