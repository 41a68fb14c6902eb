//! The layers that all towers are made of, with their weights.
//!
//! Owns: taking the tensors that a description names and packing them for the matrix product, layer
//! norms, and the heads that map a pooled state to the shared space. Does not own names, nor the
//! arithmetic, which is `diptych_kernels`.

use diptych_kernels::{
    Activation, Epilogue, PackedMatrix, QuantizedMatrix, Threads, layer_norm, linear, linear_q8,
};

use crate::anatomy::{HeadParts, LinearParts, NormParts};
use crate::error::LoadError;
use crate::precision::Precision;
use crate::weights::Weights;

/// `y = x W^T + b`, W being `[out, in]`.
pub(crate) struct Linear {
    weight: Matrix,
    bias: Option<Vec<f32>>,
}

enum Matrix {
    F32(PackedMatrix),
    Int8(Box<QuantizedMatrix>),
}

impl Matrix {
    /// Matrices of `input` columns, one below the other.
    fn pack(stacked: &[&[f32]], input: usize, precision: Precision) -> Self {
        match (precision, stacked) {
            (Precision::F32, _) => {
                let stacked: Vec<(&[f32], usize)> =
                    stacked.iter().map(|values| (*values, values.len() / input)).collect();
                Self::F32(PackedMatrix::concat(&stacked, input))
            }
            (Precision::Int8, [whole]) => {
                Self::Int8(Box::new(QuantizedMatrix::quantize(whole, whole.len() / input, input)))
            }
            (Precision::Int8, _) => Self::pack(&[&stacked.concat()], input, precision),
        }
    }
}

impl Linear {
    /// From values that were taken already.
    pub(crate) fn new(weight: &[f32], out: usize, input: usize, bias: Option<&[f32]>) -> Self {
        let weight = Matrix::F32(PackedMatrix::pack(weight, out, input));
        Self { weight, bias: bias.map(<[f32]>::to_vec) }
    }

    /// Takes the tensors of `parts`; several stacked ones become one product, a scale is multiplied in.
    pub(crate) fn assemble(
        weights: &Weights,
        parts: &LinearParts,
        precision: Precision,
    ) -> Result<Self, LoadError> {
        let input = parts.input;
        let mut bias = Vec::new();
        for source in &parts.bias {
            bias.extend_from_slice(&weights.rows(source)?);
        }
        let taken = parts.weight.iter().map(|source| weights.rows(source)).collect::<Result<Vec<_>, _>>()?;
        let weight = match &parts.scale {
            None => {
                let stacked: Vec<&[f32]> = taken.iter().map(|values| &**values).collect();
                Matrix::pack(&stacked, input, precision)
            }
            Some(scale) => {
                let scale = weights.rows(scale)?;
                bias.iter_mut().zip(&*scale).for_each(|(b, g)| *b *= g);
                let rows = taken.iter().flat_map(|values| values.chunks_exact(input));
                let scaled: Vec<f32> =
                    rows.zip(&*scale).flat_map(|(row, g)| row.iter().map(move |w| w * g)).collect();
                Matrix::pack(&[&scaled], input, precision)
            }
        };
        Ok(Self { weight, bias: (!parts.bias.is_empty()).then_some(bias) })
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
    /// Takes the tensors of `parts`.
    pub(crate) fn assemble(weights: &Weights, parts: &NormParts) -> Result<Self, LoadError> {
        Ok(Self {
            weight: weights.rows(&parts.weight)?.to_vec(),
            bias: weights.rows(&parts.bias)?.to_vec(),
            eps: parts.eps as f32,
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
pub(crate) struct Head(Vec<(Linear, Option<Activation>)>);

impl Head {
    /// Takes the tensors of `parts`.
    pub(crate) fn assemble(weights: &Weights, parts: &HeadParts) -> Result<Self, LoadError> {
        let layer = |(layer, activation): &(LinearParts, _)| {
            Ok((Linear::assemble(weights, layer, Precision::F32)?, *activation))
        };
        Ok(Self(parts.iter().map(layer).collect::<Result<_, LoadError>>()?))
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
