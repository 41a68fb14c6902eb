//! The layers that all towers are made of, with their weights.
//!
//! Owns: linear layers packed for the matrix product, layer norms, and the heads that map a pooled
//! state to the shared space. Does not own the arithmetic, which is `diptych_kernels`.

use diptych_kernels::{
    Activation, Epilogue, PackedMatrix, QuantizedMatrix, Threads, layer_norm, linear, linear_q8,
};

use crate::error::LoadError;
use crate::precision::Precision;
use crate::weights::{Floats, Weights};

/// `y = x W^T + b`, W being `[out, in]`.
pub(crate) struct Linear {
    weight: Matrix,
    bias: Option<Vec<f32>>,
}

enum Matrix {
    F32(PackedMatrix),
    Int8(Box<QuantizedMatrix>),
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
        Self::load_in(weights, name, (out, input), bias, Precision::F32)
    }

    /// [`Linear::load`] with weights held as a block's are.
    pub(crate) fn load_in(
        weights: &Weights,
        name: &str,
        (out, input): (usize, usize),
        bias: Bias,
        precision: Precision,
    ) -> Result<Self, LoadError> {
        let weight = weights.take(&format!("{name}.weight"), &[out, input])?;
        let bias = match bias {
            Bias::With => Some(weights.take(&format!("{name}.bias"), &[out])?),
            Bias::Without => None,
        };
        Ok(Self::with_precision(&weight, (out, input), bias.as_deref(), precision))
    }

    /// From values that were taken already.
    pub(crate) fn new(weight: &[f32], out: usize, input: usize, bias: Option<&[f32]>) -> Self {
        Self::with_precision(weight, (out, input), bias, Precision::F32)
    }

    /// [`Linear::new`] with weights held as a block's are.
    pub(crate) fn with_precision(
        weight: &[f32],
        (out, input): (usize, usize),
        bias: Option<&[f32]>,
        precision: Precision,
    ) -> Self {
        let weight = match precision {
            Precision::F32 => Matrix::F32(PackedMatrix::pack(weight, out, input)),
            Precision::Int8 => Matrix::Int8(Box::new(QuantizedMatrix::quantize(weight, out, input))),
        };
        Self { weight, bias: bias.map(<[f32]>::to_vec) }
    }

    /// Several layers over the same input as one.
    pub(crate) fn joined(
        parts: &[(Floats, usize)],
        input: usize,
        bias: Option<Vec<f32>>,
        precision: Precision,
    ) -> Self {
        let parts: Vec<(&[f32], usize)> = parts.iter().map(|(weight, out)| (&**weight, *out)).collect();
        match precision {
            Precision::F32 => Self { weight: Matrix::F32(PackedMatrix::concat(&parts, input)), bias },
            Precision::Int8 => {
                let weight: Vec<&[f32]> = parts.iter().map(|(weight, _)| *weight).collect();
                let out = parts.iter().map(|(_, out)| out).sum();
                Self::with_precision(&weight.concat(), (out, input), bias.as_deref(), precision)
            }
        }
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
        match &self.weight {
            Matrix::F32(weight) => weight.rows(),
            Matrix::Int8(weight) => weight.rows(),
        }
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
        self.product(y, x, rows, epilogue, threads);
    }

    /// Adds the layer's output to the residual stream.
    pub(crate) fn add_to(&self, residual: &mut [f32], x: &[f32], rows: usize, threads: Threads) {
        self.product(residual, x, rows, Epilogue::AddBias(self.bias.as_deref()), threads);
    }

    fn product(&self, y: &mut [f32], x: &[f32], rows: usize, epilogue: Epilogue<'_>, threads: Threads) {
        match &self.weight {
            Matrix::F32(weight) => linear(y, x, rows, weight, epilogue, threads),
            Matrix::Int8(weight) => linear_q8(y, x, rows, weight, epilogue, threads),
        }
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
