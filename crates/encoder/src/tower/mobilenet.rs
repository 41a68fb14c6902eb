//! Pixels to features, by MobileNetV2 as torchvision publishes it.
//!
//! Owns: the sizes of the network at width 1.0, the names of its tensors, and the forward pass up to the
//! mean over all pixels, with every batch norm folded into the convolution before it. The classifier on
//! top is not part of it. Does not own the convolutions themselves, preprocessing or normalisation of the
//! result. Only torchvision's names are known; the transformers library has others for the same network.
//!
//! The architecture is that of Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks"
//! (2018).

use std::fmt;

use diptych_kernels::{Activation, Threads};
use serde::Serialize;

use super::convolution::{Depthwise, Kernel, Map, means, pointwise, windows};
use super::layers::Linear;
use super::one_by_one;
use crate::error::LoadError;
use crate::weights::Weights;

/// Table 2 of the paper: expansion factor, channels, blocks, and stride of the first block.
const STAGES: [(usize, usize, usize, usize); 7] = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
];
/// Channels of the first convolution.
const STEM: usize = 32;
/// Channels of the last convolution, which are the features.
const FEATURES: usize = 1280;
/// Height and width of the input in pixels.
const SIDE: usize = 224;
/// The activation of every convolution but a block's last.
const RELU6: Option<Activation> = Some(Activation::Relu6);

/// A tensor that only torchvision's layout has.
pub(crate) const FIRST_TENSOR: &str = "features.0.0.weight";

/// What decides the arithmetic of the tower.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct MobileNetSpec {
    /// The name in torchvision.
    pub(crate) model: &'static str,
    /// Height and width of the input in pixels.
    pub(crate) image: (usize, usize),
}

impl fmt::Display for MobileNetSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blocks: usize = STAGES.iter().map(|(_, _, blocks, _)| blocks).sum();
        write!(f, "MobileNetV2 of torchvision, {blocks} inverted residuals, {FEATURES} features")
    }
}

/// The image tower.
pub(crate) struct MobileNet {
    pub(crate) spec: MobileNetSpec,
    /// From windows of 3 x 3 pixels.
    stem: Linear,
    blocks: Vec<InvertedResidual>,
    last: Linear,
}

/// Expands to more channels, convolves each by itself, and projects to few channels again, without an
/// activation; added to its input where both have the same shape.
struct InvertedResidual {
    /// None where the factor is 1.
    expand: Option<Linear>,
    spatial: Depthwise,
    project: Linear,
    skip: bool,
}

impl MobileNet {
    /// Takes the tensors below `features.`.
    ///
    /// # Errors
    /// [`LoadError`] naming the tensor.
    pub(crate) fn load(weights: &Weights) -> Result<Self, LoadError> {
        let conv = |name: &str, shape| {
            let (kernel, norm) = (format!("features.{name}.0"), format!("features.{name}.1"));
            Ok::<_, LoadError>(Kernel::load_pair(weights, &kernel, &norm, shape)?.into_linear())
        };
        let stem = conv("0", (STEM, 3, 3))?;
        let mut blocks = Vec::new();
        let mut input = STEM;
        for (factor, out, count, stride) in STAGES {
            for i in 0..count {
                let name = format!("features.{}.conv", blocks.len() + 1);
                let stride = if i == 0 { stride } else { 1 };
                blocks.push(InvertedResidual::load(weights, &name, (input, out), factor, stride)?);
                input = out;
            }
        }
        let last = conv(&(blocks.len() + 1).to_string(), (FEATURES, input, 1))?;
        Ok(Self { spec: MobileNetSpec { model: "mobilenet_v2", image: (SIDE, SIDE) }, stem, blocks, last })
    }

    /// Dimensions of the output.
    pub(crate) fn out(&self) -> usize {
        self.last.out()
    }

    /// Not normalised: `[images, out]`. Each image is `[3, height, width]`.
    pub(crate) fn forward(&self, images: &[&[f32]]) -> Vec<f32> {
        one_by_one(images, |image, threads| self.image(image, threads))
    }

    fn image(&self, image: &[f32], threads: Threads) -> Vec<f32> {
        let mut padded = Vec::new();
        let (windows, height, width) = windows(image, self.spec.image);
        let mut x =
            pointwise(&self.stem, &Map { height, width, channels: 27, values: windows }, RELU6, threads);
        for block in &self.blocks {
            x = block.forward(x, &mut padded, threads);
        }
        means(&pointwise(&self.last, &x, RELU6, threads))
    }
}

impl InvertedResidual {
    /// Takes the block `name`, from `input` to `out` channels.
    fn load(
        weights: &Weights,
        name: &str,
        (input, out): (usize, usize),
        factor: usize,
        stride: usize,
    ) -> Result<Self, LoadError> {
        let inner = input * factor;
        // The convolutions are numbered; one that is not there has no number.
        let mut next = 0;
        let mut normed = |shape| {
            let name = format!("{name}.{next}");
            next += 1;
            Kernel::load_pair(weights, &format!("{name}.0"), &format!("{name}.1"), shape)
        };
        let expand = if factor == 1 { None } else { Some(normed((inner, input, 1))?.into_linear()) };
        let spatial = normed((inner, 1, 3))?.into_depthwise(stride, inner);
        let (kernel, norm) = (format!("{name}.{next}"), format!("{name}.{}", next + 1));
        let project = Kernel::load_pair(weights, &kernel, &norm, (out, inner, 1))?.into_linear();
        Ok(Self { expand, spatial, project, skip: stride == 1 && input == out })
    }

    fn forward(&self, mut x: Map, padded: &mut Vec<f32>, threads: Threads) -> Map {
        let wide = self.expand.as_ref().map(|expand| pointwise(expand, &x, RELU6, threads));
        let spatial = self.spatial.forward_activated(wide.as_ref().unwrap_or(&x), padded, RELU6, threads);
        if !self.skip {
            return pointwise(&self.project, &spatial, None, threads);
        }
        self.project.add_to(&mut x.values, &spatial.values, spatial.pixels(), threads);
        x
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use safetensors::Dtype;
    use safetensors::tensor::TensorView;

    use super::*;
    use crate::precision::Precision;

    const EPS: f64 = 1e-5;

    /// Deterministic numbers in -1 to 1.
    fn noise(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    /// The tensors of a block by their shapes; variances are positive.
    fn block_tensors(input: usize, out: usize, factor: usize) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
        let inner = input * factor;
        let mut shapes = Vec::new();
        let mut next = 0;
        let mut pair = |shape: Vec<usize>, names: (String, String)| {
            for part in ["weight", "bias", "running_mean", "running_var"] {
                shapes.push((format!("{}.{part}", names.1), vec![shape[0]]));
            }
            shapes.push((format!("{}.weight", names.0), shape));
        };
        if factor > 1 {
            pair(vec![inner, input, 1, 1], ("b.0.0".into(), "b.0.1".into()));
            next = 1;
        }
        pair(vec![inner, 1, 3, 3], (format!("b.{next}.0"), format!("b.{next}.1")));
        pair(vec![out, inner, 1, 1], (format!("b.{}", next + 1), format!("b.{}", next + 2)));
        shapes
            .into_iter()
            .zip(1..)
            .map(|((name, shape), seed)| {
                let mut values = noise(shape.iter().product(), seed);
                if name.ends_with("running_var") {
                    values.iter_mut().for_each(|v| *v = 1.0 + *v / 2.0);
                }
                (name, (shape, values))
            })
            .collect()
    }

    fn weights(tensors: &BTreeMap<String, (Vec<usize>, Vec<f32>)>) -> Weights {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("block.safetensors");
        let bytes: Vec<Vec<u8>> =
            tensors.values().map(|(_, v)| v.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
        let views = tensors.iter().zip(&bytes).map(|((name, (shape, _)), bytes)| {
            (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
        });
        safetensors::serialize_to_file(views, None, &path).unwrap();
        Weights::open_file(path, Precision::F32).unwrap()
    }

    /// A convolution in the layout of PyTorch, then the batch norm, then ReLU6 where wanted; from the
    /// definitions. `x` is `[channels][y][x]`.
    fn conv_norm(
        x: &[Vec<Vec<f64>>],
        tensors: &BTreeMap<String, (Vec<usize>, Vec<f32>)>,
        (conv, norm): (&str, &str),
        stride: usize,
        relu6: bool,
    ) -> Vec<Vec<Vec<f64>>> {
        let (shape, kernel) = &tensors[&format!("{conv}.weight")];
        let [out, per_group, side, _] = shape[..] else { panic!("{shape:?}") };
        let of = |part: &str, o: usize| f64::from(tensors[&format!("{norm}.{part}")].1[o]);
        let (height, width) = (x[0].len(), x[0][0].len());
        let at = |c: usize, y: isize, left: isize| match (usize::try_from(y), usize::try_from(left)) {
            (Ok(y), Ok(left)) if y < height && left < width => x[c][y][left],
            _ => 0.0,
        };
        let pixel = |o: usize, y: usize, left: usize| {
            let mut sum = 0.0;
            for i in 0..per_group {
                let channel = if per_group == 1 && x.len() == out { o } else { i };
                for (ky, kx) in (0..side * side).map(|k| (k / side, k % side)) {
                    let edge = (side / 2) as isize;
                    let value =
                        at(channel, (y * stride + ky) as isize - edge, (left * stride + kx) as isize - edge);
                    sum += value * f64::from(kernel[((o * per_group + i) * side + ky) * side + kx]);
                }
            }
            let normed = (sum - of("running_mean", o)) / (of("running_var", o) + EPS).sqrt()
                * of("weight", o)
                + of("bias", o);
            if relu6 { normed.clamp(0.0, 6.0) } else { normed }
        };
        let (high, wide) = (height.div_ceil(stride), width.div_ceil(stride));
        (0..out)
            .map(|o| (0..high).map(|y| (0..wide).map(|left| pixel(o, y, left)).collect()).collect())
            .collect()
    }

    #[test]
    fn a_block_agrees_with_its_definition() {
        for (input, out, factor, stride, height, width) in [
            (5, 5, 6, 1, 7, 6),
            (5, 7, 6, 2, 7, 6),
            (4, 4, 6, 2, 6, 5),
            (9, 4, 1, 1, 4, 5),
            (3, 4, 6, 1, 1, 1),
        ] {
            let tensors = block_tensors(input, out, factor);
            let block =
                InvertedResidual::load(&weights(&tensors), "b", (input, out), factor, stride).unwrap();
            let values: Vec<f32> = noise(height * width * input, 77).iter().map(|v| v * 3.0).collect();
            let x: Vec<Vec<Vec<f64>>> = (0..input)
                .map(|c| {
                    let pixel = |y: usize, left: usize| f64::from(values[(y * width + left) * input + c]);
                    (0..height).map(|y| (0..width).map(|left| pixel(y, left)).collect()).collect()
                })
                .collect();
            let mut truth = x.clone();
            let mut next = 0;
            if factor > 1 {
                truth = conv_norm(&truth, &tensors, ("b.0.0", "b.0.1"), 1, true);
                next = 1;
            }
            let names = (format!("b.{next}.0"), format!("b.{next}.1"));
            truth = conv_norm(&truth, &tensors, (&names.0, &names.1), stride, true);
            let names = (format!("b.{}", next + 1), format!("b.{}", next + 2));
            truth = conv_norm(&truth, &tensors, (&names.0, &names.1), 1, false);
            let skip = stride == 1 && input == out;
            assert_eq!(block.skip, skip);
            let map = Map { height, width, channels: input, values: values.clone() };
            let found = block.forward(map, &mut Vec::new(), Threads::One);
            assert_eq!(
                (found.height, found.width, found.channels),
                (height.div_ceil(stride), width.div_ceil(stride), out)
            );
            for (i, value) in found.values.iter().enumerate() {
                let (y, left, o) = (i / (found.width * out), i / out % found.width, i % out);
                let truth = truth[o][y][left] + if skip { x[o][y][left] } else { 0.0 };
                let bound = 1e-5 * truth.abs().max(1.0) * 10.0;
                assert!((f64::from(*value) - truth).abs() < bound, "{input} to {out}: {value}, {truth}");
            }
        }
    }
}
