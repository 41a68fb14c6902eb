//! Convolutions of one image, channels last.
//!
//! Owns: kernels with their batch norms and parallel branches summed into one, the depthwise
//! convolution, and squeeze-and-excitation. A convolution of one pixel is a `Linear` over all pixels.
//! Does not own which layer follows which.

#[cfg(test)]
mod tests;

use diptych_kernels::{Activation, Threads, multiversion};
use rayon::prelude::*;

use super::layers::Linear;
use crate::error::LoadError;
use crate::weights::Weights;

/// PyTorch's default, which all published models with batch norms use.
const BATCH_NORM_EPS: f64 = 1e-5;
/// Channels that the depthwise convolution sums side by side.
const LANES: usize = 16;
/// Pixels that share the loads of a kernel's weights.
const STRIP: usize = 4;

/// A feature map: `[height, width, channels]`.
pub(crate) struct Map {
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) channels: usize,
    pub(crate) values: Vec<f32>,
}

impl Map {
    pub(crate) fn pixels(&self) -> usize {
        self.height * self.width
    }
}

/// What a batch norm does to each channel in inference: `x scale + shift`.
pub(crate) struct BatchNorm {
    pub(crate) scale: Vec<f64>,
    pub(crate) shift: Vec<f64>,
}

impl BatchNorm {
    /// Takes `weight`, `bias`, `running_mean` and `running_var` below `name`.
    pub(crate) fn load(weights: &Weights, name: &str, width: usize) -> Result<Self, LoadError> {
        let take = |part: &str| weights.take(&format!("{name}.{part}"), &[width]);
        let (weight, bias) = (take("weight")?, take("bias")?);
        let (mean, variance) = (take("running_mean")?, take("running_var")?);
        let scale: Vec<f64> = weight
            .iter()
            .zip(&*variance)
            .map(|(w, v)| f64::from(*w) / (f64::from(*v) + BATCH_NORM_EPS).sqrt())
            .collect();
        let shift = bias.iter().zip(&*mean).zip(&scale).map(|((b, m), s)| f64::from(*b) - f64::from(*m) * s);
        Ok(Self { shift: shift.collect(), scale })
    }
}

/// Weights `[out, in per group, side, side]` and biases of a convolution, in double precision while
/// branches are summed.
pub(crate) struct Kernel {
    /// Outputs, inputs per group, and the side of the square.
    shape: (usize, usize, usize),
    weight: Vec<f64>,
    bias: Vec<f64>,
}

impl Kernel {
    fn zeros(shape: (usize, usize, usize)) -> Self {
        let (out, input, side) = shape;
        Self { shape, weight: vec![0.0; out * input * side * side], bias: vec![0.0; out] }
    }

    /// The kernel that gives its input back; groups of `input` channels.
    pub(crate) fn identity(shape: (usize, usize, usize)) -> Self {
        let (out, input, side) = shape;
        let mut kernel = Self::zeros(shape);
        for o in 0..out {
            kernel.weight[(o * input + o % input) * side * side + side * side / 2] = 1.0;
        }
        kernel
    }

    /// Takes `{name}.weight` and `{name}.bias`.
    pub(crate) fn load(
        weights: &Weights,
        name: &str,
        shape: (usize, usize, usize),
    ) -> Result<Self, LoadError> {
        let mut kernel = Self::load_weight(weights, name, shape)?;
        kernel.bias = widen(&weights.take(&format!("{name}.bias"), &[shape.0])?);
        Ok(kernel)
    }

    /// Takes the convolution `{name}.conv`, which has no bias, and the batch norm `{name}.bn` after it.
    pub(crate) fn load_normed(
        weights: &Weights,
        name: &str,
        shape: (usize, usize, usize),
    ) -> Result<Self, LoadError> {
        Self::load_pair(weights, &format!("{name}.conv"), &format!("{name}.bn"), shape)
    }

    /// Takes a convolution without bias and the batch norm after it.
    pub(crate) fn load_pair(
        weights: &Weights,
        convolution: &str,
        norm: &str,
        shape: (usize, usize, usize),
    ) -> Result<Self, LoadError> {
        let kernel = Self::load_weight(weights, convolution, shape)?;
        Ok(kernel.normed(&BatchNorm::load(weights, norm, shape.0)?))
    }

    fn load_weight(
        weights: &Weights,
        name: &str,
        shape @ (out, input, side): (usize, usize, usize),
    ) -> Result<Self, LoadError> {
        let weight = weights.take(&format!("{name}.weight"), &[out, input, side, side])?;
        Ok(Self { shape, weight: widen(&weight), bias: vec![0.0; out] })
    }

    /// The convolution followed by the batch norm.
    pub(crate) fn normed(mut self, norm: &BatchNorm) -> Self {
        self.scale(&norm.scale);
        self.bias.iter_mut().zip(&norm.shift).for_each(|(b, shift)| *b += shift);
        self
    }

    /// Multiplies each output by a factor.
    pub(crate) fn scale(&mut self, factors: &[f64]) {
        let per_output = self.weight.len() / self.shape.0;
        for (weight, factor) in self.weight.chunks_exact_mut(per_output).zip(factors) {
            weight.iter_mut().for_each(|w| *w *= factor);
        }
        self.bias.iter_mut().zip(factors).for_each(|(b, factor)| *b *= factor);
    }

    /// Adds `factor` times a parallel branch, whose kernel may be smaller; both are centred on the pixel.
    pub(crate) fn add(&mut self, branch: &Self, factor: f64) {
        let (out, input, side) = self.shape;
        let small = branch.shape.2;
        assert!(branch.shape.0 == out && branch.shape.1 == input && small <= side, "branches of one shape");
        let edge = (side - small) / 2;
        for (to, from) in
            self.weight.chunks_exact_mut(side * side).zip(branch.weight.chunks_exact(small * small))
        {
            for (i, w) in from.iter().enumerate() {
                to[(i / small + edge) * side + i % small + edge] += factor * w;
            }
        }
        self.bias.iter_mut().zip(&branch.bias).for_each(|(b, other)| *b += factor * other);
    }

    /// The sum as one product per output pixel, whose input is the window in the order row, column,
    /// channel. For convolutions that are not depthwise.
    pub(crate) fn into_linear(self) -> Linear {
        let (out, input, side) = self.shape;
        let window = side * side;
        let weight: Vec<f32> = (0..out * window * input)
            .map(|i| {
                let (o, at, channel) = (i / (window * input), i / input % window, i % input);
                self.weight[(o * input + channel) * window + at] as f32
            })
            .collect();
        Linear::new(&weight, out, window * input, Some(&narrow(&self.bias)))
    }

    /// The sum as a depthwise convolution, one input channel for each output.
    pub(crate) fn into_depthwise(self, stride: usize, inputs: usize) -> Depthwise {
        let (out, input, side) = self.shape;
        assert!(input == 1 && out.is_multiple_of(inputs), "a group is one channel");
        let window = side * side;
        let taps = (0..window * out).map(|i| self.weight[i % out * window + i / out] as f32).collect();
        Depthwise { taps, bias: narrow(&self.bias), side, stride, repeat: out / inputs }
    }
}

fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|v| *v as f32).collect()
}

/// A convolution of each channel by itself, padded with zeros so that stride 1 keeps the size.
pub(crate) struct Depthwise {
    /// `[side * side, outputs]`.
    taps: Vec<f32>,
    bias: Vec<f32>,
    side: usize,
    stride: usize,
    /// Outputs made from each input channel; they are neighbours.
    repeat: usize,
}

impl Depthwise {
    /// The convolution of a map. `padded` is working memory.
    pub(crate) fn forward(&self, x: &Map, padded: &mut Vec<f32>, threads: Threads) -> Map {
        self.forward_activated(x, padded, None, threads)
    }

    /// [`Depthwise::forward`], through the activation if there is one.
    pub(crate) fn forward_activated(
        &self,
        x: &Map,
        padded: &mut Vec<f32>,
        activation: Option<Activation>,
        threads: Threads,
    ) -> Map {
        let channels = self.bias.len();
        let (height, width) = (x.height.div_ceil(self.stride), x.width.div_ceil(self.stride));
        let pitch = self.pad(x, padded);
        let mut values = vec![0f32; height * width * channels];
        let row = |(y, out): (usize, &mut [f32])| {
            let window = &padded[y * self.stride * pitch..];
            depthwise_row(out, window, &self.taps, &self.bias, self.side, self.stride, pitch);
            if let Some(activation) = activation {
                activation.apply(out);
            }
        };
        let rows = width * channels;
        match threads {
            Threads::One => values.chunks_exact_mut(rows).enumerate().for_each(row),
            Threads::All => values.par_chunks_exact_mut(rows).enumerate().for_each(row),
        }
        Map { height, width, channels, values }
    }

    /// Copies the map into a frame of zeros, every channel as often as it has outputs. Returns the
    /// length of a row.
    fn pad(&self, x: &Map, padded: &mut Vec<f32>) -> usize {
        let (edge, channels) = (self.side / 2, self.bias.len());
        let pitch = (x.width + 2 * edge) * channels;
        padded.clear();
        padded.resize((x.height + 2 * edge) * pitch, 0.0);
        for (y, row) in x.values.chunks_exact(x.width * x.channels).enumerate() {
            let to = &mut padded[(y + edge) * pitch + edge * channels..][..x.width * channels];
            if self.repeat == 1 {
                to.copy_from_slice(row);
                continue;
            }
            for (to, value) in to.chunks_exact_mut(self.repeat).zip(row) {
                to.fill(*value);
            }
        }
        pitch
    }
}

multiversion! {
    /// One row of outputs, `[width, channels]`; `padded` begins with the first row of their windows.
    fn depthwise_row(
        out: &mut [f32],
        padded: &[f32],
        taps: &[f32],
        bias: &[f32],
        side: usize,
        stride: usize,
        pitch: usize,
    ) {
        let channels = bias.len();
        let window = Window { padded, taps, bias, side, stride, pitch };
        let whole = channels - channels % LANES;
        for at in (0..whole).step_by(LANES) {
            window.columns::<FUSED, LANES>(out, at);
        }
        for at in whole..channels {
            window.columns::<FUSED, 1>(out, at);
        }
    }
}

struct Window<'a> {
    padded: &'a [f32],
    taps: &'a [f32],
    bias: &'a [f32],
    side: usize,
    stride: usize,
    pitch: usize,
}

impl Window<'_> {
    /// `L` channels from `at` on, of every pixel of the row.
    #[inline(always)]
    fn columns<const FUSED: bool, const L: usize>(&self, out: &mut [f32], at: usize) {
        let channels = self.bias.len();
        let width = out.len() / channels;
        let whole = width - width % STRIP;
        for x in (0..whole).step_by(STRIP) {
            self.strip::<FUSED, L, STRIP>(out, x, at);
        }
        for x in whole..width {
            self.strip::<FUSED, L, 1>(out, x, at);
        }
    }

    #[inline(always)]
    fn strip<const FUSED: bool, const L: usize, const P: usize>(&self, out: &mut [f32], x: usize, at: usize) {
        let channels = self.bias.len();
        let mut sums = [[0f32; L]; P];
        for sum in &mut sums {
            sum.copy_from_slice(&self.bias[at..at + L]);
        }
        for (i, taps) in self.taps.chunks_exact(channels).enumerate() {
            let taps = &taps[at..at + L];
            let from = i / self.side * self.pitch + (x * self.stride + i % self.side) * channels + at;
            for (p, sum) in sums.iter_mut().enumerate() {
                let values = &self.padded[from + p * self.stride * channels..][..L];
                for j in 0..L {
                    sum[j] = match FUSED {
                        true => values[j].mul_add(taps[j], sum[j]),
                        false => values[j] * taps[j] + sum[j],
                    };
                }
            }
        }
        for (p, sum) in sums.iter().enumerate() {
            out[(x + p) * channels + at..][..L].copy_from_slice(sum);
        }
    }
}

/// Squeeze-and-excitation: each channel times a gate that all channels' means decide.
pub(crate) struct Excite {
    fc1: Linear,
    fc2: Linear,
}

impl Excite {
    /// Takes the one-pixel convolutions `{name}.fc1` and `{name}.fc2`.
    pub(crate) fn load(weights: &Weights, name: &str, width: usize) -> Result<Self, LoadError> {
        let fc1 = format!("{name}.fc1");
        let inner = weights.shape(&format!("{fc1}.weight"))?.first().copied().unwrap_or(0);
        Ok(Self {
            fc1: Kernel::load(weights, &fc1, (inner, width, 1))?.into_linear(),
            fc2: Kernel::load(weights, &format!("{name}.fc2"), (width, inner, 1))?.into_linear(),
        })
    }

    /// Multiplies the map by its gates.
    pub(crate) fn run(&self, x: &mut Map, threads: Threads) {
        let mut inner = vec![0f32; self.fc1.out()];
        self.fc1.run(&mut inner, &means(x), 1, Some(Activation::Relu), threads);
        let gates: Vec<f32> =
            self.fc2.forward(&inner, 1, threads).iter().map(|v| 1.0 / (1.0 + (-v).exp())).collect();
        for pixel in x.values.chunks_exact_mut(x.channels) {
            pixel.iter_mut().zip(&gates).for_each(|(v, gate)| *v *= gate);
        }
    }
}

/// The mean of each channel over all pixels.
pub(crate) fn means(x: &Map) -> Vec<f32> {
    let mut sums = vec![0f64; x.channels];
    for pixel in x.values.chunks_exact(x.channels) {
        sums.iter_mut().zip(pixel).for_each(|(sum, v)| *sum += f64::from(*v));
    }
    sums.iter().map(|sum| (sum / x.pixels() as f64) as f32).collect()
}

/// A convolution of one pixel, and the activation after it.
pub(crate) fn pointwise(layer: &Linear, x: &Map, activation: Option<Activation>, threads: Threads) -> Map {
    let mut values = vec![0f32; x.pixels() * layer.out()];
    layer.run(&mut values, &x.values, x.pixels(), activation, threads);
    Map { height: x.height, width: x.width, channels: layer.out(), values }
}

/// The windows of 3 x 3 pixels around every second pixel of a `[3, height, width]` image, each in the
/// order row, column, colour; and how many there are along each side.
pub(crate) fn windows(image: &[f32], (height, width): (usize, usize)) -> (Vec<f32>, usize, usize) {
    let (high, wide) = (height.div_ceil(2), width.div_ceil(2));
    let mut out = vec![0f32; high * wide * 27];
    for (i, window) in out.chunks_exact_mut(27).enumerate() {
        let (top, left) = (i / wide * 2, i % wide * 2);
        for (k, colours) in window.chunks_exact_mut(3).enumerate() {
            // One pixel up and left of the centre is outside at the edge, and stays 0.
            let (y, x) = ((top + k / 3).wrapping_sub(1), (left + k % 3).wrapping_sub(1));
            if y < height && x < width {
                for (c, colour) in colours.iter_mut().enumerate() {
                    *colour = image[(c * height + y) * width + x];
                }
            }
        }
    }
    (out, high, wide)
}
