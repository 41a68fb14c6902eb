//! Heads: what training puts on top of a trunk, a few layers from features to a shared space.
//!
//! Owns: [`HeadSpec`], which is what a `config.json` says about a head, the names and shapes of its
//! tensors, and [`Head`], its forward pass. Dropout and other things of training do not appear here.

use std::fmt;

use diptych_core::Modality;
use diptych_kernels::{Activation, Threads, layer_norm};
use serde::{Deserialize, Serialize};

use crate::config::CONFIG_FILE;
use crate::error::LoadError;
use crate::tower::layers::Linear;
use crate::weights::Weights;

/// Longest row within a head.
const WIDTH_MAX: usize = 1 << 16;
/// Rows shorter than this are divided by it instead of their length, as PyTorch's `normalize` does.
const LENGTH_MIN: f32 = 1e-12;

/// The layers of a head, first to last. Without any, rows stay as they are.
///
/// With `residual`, what goes into that layer is added to what the last one gives.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadSpec {
    /// The layers.
    pub layers: Vec<HeadLayer>,
    /// The layer, counted from 0, whose input is added to the output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub residual: Option<usize>,
}

/// One layer of a head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum HeadLayer {
    /// Each row divided by its Euclidean length.
    Unit {},
    /// `(x - mean) / sqrt(variance + eps) * weight + bias` over each row; two tensors `[width]`.
    LayerNorm {
        /// Width of a row.
        width: usize,
        /// Added to the variance.
        eps: f64,
    },
    /// `x W^T + b`; W is `[out, input]`, b is `[out]`.
    Linear {
        /// Width of the input.
        input: usize,
        /// Width of the output.
        out: usize,
        /// Whether there is a b.
        bias: bool,
    },
    /// A function of every value.
    #[serde(
        serialize_with = "crate::activation::serialize",
        deserialize_with = "crate::activation::deserialize"
    )]
    Activation(Activation),
}

/// A named tensor: shape, and values in row-major order.
pub type HeadTensor = (String, Vec<usize>, Vec<f32>);

/// Why a list of layers makes no head.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("layer {layer} of the head: {reason}")]
pub struct HeadError {
    /// Position in the list, from 0.
    pub layer: usize,
    /// What is wrong and what would be right.
    pub reason: String,
}

impl HeadSpec {
    /// Width of the output for rows of `input` values.
    ///
    /// # Errors
    /// [`HeadError`] where layers do not fit to each other.
    pub fn out(&self, input: usize) -> Result<usize, HeadError> {
        let (mut width, mut added) = (input, None);
        for (layer, kind) in self.layers.iter().enumerate() {
            if self.residual == Some(layer) {
                added = Some(width);
            }
            let fail = |reason: String| Err(HeadError { layer, reason });
            let (takes, gives) = match kind {
                HeadLayer::Unit {} | HeadLayer::Activation(_) => (width, width),
                HeadLayer::LayerNorm { width, eps } => {
                    if !(eps.is_finite() && *eps > 0.0 && *eps < 1.0) {
                        return fail(format!("eps is {eps}, but must be between 0 and 1, usually 1e-5"));
                    }
                    (*width, *width)
                }
                HeadLayer::Linear { input, out, .. } => (*input, *out),
            };
            if takes != width {
                return fail(format!("takes rows of {takes}, but is given rows of {width}; make them equal"));
            }
            if !(1..=WIDTH_MAX).contains(&gives) {
                return fail(format!("gives rows of {gives}, but 1 to {WIDTH_MAX} are possible"));
            }
            width = gives;
        }
        match (self.residual, added) {
            (Some(layer), None) => {
                let reason = format!("is where the residual starts, but there are {}", self.layers.len());
                Err(HeadError { layer, reason })
            }
            (Some(layer), Some(added)) if added != width => {
                let reason =
                    format!("takes the residual's rows of {added}, but the head ends in rows of {width}");
                Err(HeadError { layer, reason })
            }
            _ => Ok(width),
        }
    }

    /// Names and shapes of the tensors of a head on this side: `image_head.2.weight` belongs to the third
    /// layer of the list.
    pub fn tensors(&self, side: Modality) -> Vec<(String, Vec<usize>)> {
        let mut tensors = Vec::new();
        for (i, layer) in self.layers.iter().enumerate() {
            let name = |part: &str| tensor_name(side, i, part);
            match layer {
                HeadLayer::Unit {} | HeadLayer::Activation(_) => {}
                HeadLayer::LayerNorm { width, .. } => {
                    tensors.extend([(name("weight"), vec![*width]), (name("bias"), vec![*width])]);
                }
                HeadLayer::Linear { input, out, bias } => {
                    tensors.push((name("weight"), vec![*out, *input]));
                    tensors.extend(bias.then(|| (name("bias"), vec![*out])));
                }
            }
        }
        tensors
    }
}

impl fmt::Display for HeadSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.layers.is_empty() {
            return f.write_str("none");
        }
        let layers: Vec<String> = self.layers.iter().map(HeadLayer::to_string).collect();
        match self.residual {
            None => f.write_str(&layers.join(", ")),
            Some(first) => {
                let (before, inner) = layers.split_at(first.min(layers.len()));
                let plus = format!("plus [{}]", inner.join(", "));
                f.write_str(&before.iter().cloned().chain([plus]).collect::<Vec<_>>().join(", "))
            }
        }
    }
}

impl fmt::Display for HeadLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unit {} => f.write_str("unit length"),
            Self::LayerNorm { width, .. } => write!(f, "layer norm of {width}"),
            Self::Linear { input, out, bias } => {
                write!(f, "linear {input} to {out}{}", if *bias { "" } else { " without bias" })
            }
            Self::Activation(activation) => activation.fmt(f),
        }
    }
}

/// A head with its weights.
pub struct Head {
    spec: HeadSpec,
    input: usize,
    out: usize,
    layers: Vec<Layer>,
}

enum Layer {
    Unit,
    Norm { weight: Vec<f32>, bias: Vec<f32>, eps: f32 },
    Linear(Linear),
    Activation(Activation),
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Head({} to {}: {})", self.input, self.out, self.spec)
    }
}

impl Head {
    /// A head for rows of `input` values from tensors named as [`HeadSpec::tensors`] says.
    ///
    /// # Errors
    /// [`LoadError`] naming the layer or the tensor that does not fit, is missing, or is left over.
    pub fn new(
        spec: &HeadSpec,
        input: usize,
        side: Modality,
        tensors: &[HeadTensor],
    ) -> Result<Self, LoadError> {
        let wanted = spec.tensors(side);
        let mut extra = tensors.iter().filter(|(name, ..)| wanted.iter().all(|(wanted, _)| wanted != name));
        if let Some((name, ..)) = extra.next() {
            return Err(LoadError::ExtraTensors { name: name.clone(), count: 1 + extra.count() });
        }
        Self::build(spec, input, side, |name, expected| {
            let expected = expected.to_vec();
            let Some((_, found, values)) = tensors.iter().find(|(tensor, ..)| tensor == name) else {
                return Err(LoadError::MissingTensor { name: name.to_owned(), expected });
            };
            if *found != expected || values.len() != expected.iter().product::<usize>() {
                let found = if *found == expected { vec![values.len()] } else { found.clone() };
                return Err(LoadError::TensorShape { name: name.to_owned(), expected, found });
            }
            match values.iter().position(|v| !v.is_finite()) {
                Some(position) => Err(LoadError::NotFinite { name: name.to_owned(), position }),
                None => Ok(values.clone()),
            }
        })
    }

    /// Takes a head from the weights of a composed model.
    pub(crate) fn load(
        spec: &HeadSpec,
        input: usize,
        side: Modality,
        weights: &Weights,
    ) -> Result<Self, LoadError> {
        Self::build(spec, input, side, |name, shape| Ok(weights.take(name, shape)?.to_vec()))
    }

    fn build(
        spec: &HeadSpec,
        input: usize,
        side: Modality,
        take: impl Fn(&str, &[usize]) -> Result<Vec<f32>, LoadError>,
    ) -> Result<Self, LoadError> {
        let out = spec.out(input).map_err(|HeadError { layer, reason }| LoadError::Config {
            file: CONFIG_FILE.to_owned(),
            key: format!("{side}.head.layers.{layer}", side = side.as_str()),
            reason,
        })?;
        let layer = |(i, layer): (usize, &HeadLayer)| {
            let part = |part: &str, shape: &[usize]| take(&tensor_name(side, i, part), shape);
            Ok(match layer {
                HeadLayer::Unit {} => Layer::Unit,
                HeadLayer::Activation(activation) => Layer::Activation(*activation),
                HeadLayer::LayerNorm { width, eps } => Layer::Norm {
                    weight: part("weight", &[*width])?,
                    bias: part("bias", &[*width])?,
                    eps: *eps as f32,
                },
                HeadLayer::Linear { input, out, bias } => {
                    let weight = part("weight", &[*out, *input])?;
                    let bias = if *bias { Some(part("bias", &[*out])?) } else { None };
                    Layer::Linear(Linear::new(&weight, *out, *input, bias.as_deref()))
                }
            })
        };
        let layers = spec.layers.iter().enumerate().map(layer).collect::<Result<_, LoadError>>()?;
        Ok(Self { spec: spec.clone(), input, out, layers })
    }

    /// What it is made of.
    pub fn spec(&self) -> &HeadSpec {
        &self.spec
    }

    /// Width of the output.
    pub fn out(&self) -> usize {
        self.out
    }

    /// The head's output for whole rows of features, `[rows, out]`. Uses all cores; a row's result does
    /// not depend on the others.
    ///
    /// # Panics
    /// If `rows` does not hold whole rows.
    pub fn forward(&self, rows: &[f32]) -> Vec<f32> {
        assert!(rows.len().is_multiple_of(self.input), "{} values in rows of {}", rows.len(), self.input);
        let (mut x, mut residual) = (rows.to_vec(), Vec::new());
        let count = rows.len() / self.input;
        let mut width = self.input;
        for (number, layer) in self.layers.iter().enumerate() {
            if self.spec.residual == Some(number) {
                residual.clone_from(&x);
            }
            match layer {
                Layer::Unit => to_unit(&mut x, width),
                Layer::Activation(activation) => activation.apply(&mut x),
                Layer::Norm { weight, bias, eps } => {
                    let from = std::mem::take(&mut x);
                    x = vec![0f32; from.len()];
                    layer_norm(&mut x, &from, width, weight, bias, *eps, Threads::All);
                }
                Layer::Linear(linear) => {
                    x = linear.forward(&x, count, Threads::All);
                    width = linear.out();
                }
            }
        }
        x.iter_mut().zip(&residual).for_each(|(y, u)| *y += u);
        x
    }
}

fn tensor_name(side: Modality, layer: usize, part: &str) -> String {
    format!("{}_head.{layer}.{part}", side.as_str())
}

fn to_unit(x: &mut [f32], width: usize) {
    for row in x.chunks_exact_mut(width) {
        let squares: f64 = row.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
        let length = (squares.sqrt() as f32).max(LENGTH_MIN);
        row.iter_mut().for_each(|v| *v /= length);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn spec(json: &str) -> HeadSpec {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_spec_reads_as_it_was_written() {
        let json = concat!(
            r#"{"layers":[{"unit":{}},{"layer_norm":{"width":3,"eps":0.25}},"#,
            r#"{"linear":{"input":3,"out":3,"bias":true}},{"activation":"quick_gelu"}],"residual":1}"#
        );
        let read = spec(json);
        assert_eq!(serde_json::to_string(&read).unwrap(), json);
        assert_eq!(read.layers[3], HeadLayer::Activation(Activation::QuickGelu));
        let names: Vec<String> = read.tensors(Modality::Image).into_iter().map(|(name, _)| name).collect();
        let expected =
            ["image_head.1.weight", "image_head.1.bias", "image_head.2.weight", "image_head.2.bias"];
        assert_eq!(names, expected);
        for (json, words) in [
            (r#"{"layers":[{"dropout":{}}]}"#, "dropout"),
            (r#"{"layers":[{"activation":"softmax"}]}"#, "softmax"),
            (r#"{"layers":[{"linear":{"input":3,"out":2,"bias":true,"scale":1}}]}"#, "scale"),
            (r#"{"layers":[],"dropout":0.1}"#, "dropout"),
        ] {
            let e = serde_json::from_str::<HeadSpec>(json).unwrap_err().to_string();
            assert!(e.contains(words), "{e}");
        }
    }

    #[test]
    fn layers_that_do_not_fit_are_refused_by_their_place() {
        let e = |json: &str, input| spec(json).out(input).unwrap_err();
        let wrong = e(r#"{"layers":[{"unit":{}},{"linear":{"input":4,"out":2,"bias":false}}]}"#, 3);
        assert_eq!(wrong.layer, 1);
        assert!(wrong.reason.contains("takes rows of 4") && wrong.reason.contains("rows of 3"), "{wrong}");
        let wrong = e(r#"{"layers":[{"linear":{"input":3,"out":2,"bias":false}}],"residual":0}"#, 3);
        assert!(wrong.reason.contains("residual"), "{wrong}");
        let wrong = e(r#"{"layers":[{"linear":{"input":3,"out":0,"bias":false}}]}"#, 3);
        assert!(wrong.reason.contains("rows of 0"), "{wrong}");
        let wrong = e(r#"{"layers":[{"layer_norm":{"width":3,"eps":0}}]}"#, 3);
        assert!(wrong.reason.contains("eps is 0"), "{wrong}");
        assert_eq!(spec(r#"{"layers":[]}"#).out(7), Ok(7));
    }

    #[test]
    fn tensors_that_do_not_fit_are_refused_by_name() {
        let spec = spec(r#"{"layers":[{"linear":{"input":2,"out":1,"bias":true}}]}"#);
        let weight = ("text_head.0.weight".to_owned(), vec![1, 2], vec![1.0, 2.0]);
        let bias = |values: Vec<f32>| ("text_head.0.bias".to_owned(), vec![1], values);
        let e =
            |tensors: &[HeadTensor]| Head::new(&spec, 2, Modality::Text, tensors).unwrap_err().to_string();
        assert!(e(std::slice::from_ref(&weight)).contains("lack the tensor 'text_head.0.bias'"));
        assert!(e(&[weight.clone(), bias(vec![f32::NAN])]).contains("not finite"));
        assert!(e(&[weight.clone(), bias(vec![1.0, 2.0])]).contains("has shape [2]"));
        let other = ("image_head.0.bias".to_owned(), vec![1], vec![0.0]);
        assert!(e(&[weight.clone(), bias(vec![1.0]), other]).contains("'image_head.0.bias'"));
        let head = Head::new(&spec, 2, Modality::Text, &[weight, bias(vec![0.5])]).unwrap();
        assert_eq!(head.forward(&[1.0, 1.0, 2.0, -1.0]), [3.5, 0.5]);
    }

    #[test]
    fn a_residual_head_adds_its_unit_input() {
        let tensors = [("image_head.1.weight".to_owned(), vec![2, 2], vec![0.0, 2.0, -1.0, 0.0])];
        let layers =
            r#""layers":[{"unit":{}},{"linear":{"input":2,"out":2,"bias":false}},{"activation":"relu"}]"#;
        let run = |residual: Option<usize>| {
            let residual = residual.map_or("null".to_owned(), |layer| layer.to_string());
            let spec = spec(&format!(r#"{{{layers},"residual":{residual}}}"#));
            Head::new(&spec, 2, Modality::Image, &tensors).unwrap().forward(&[3.0, 4.0, 0.0, 0.0])
        };
        let close = |found: Vec<f32>, expected: [f32; 4]| {
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?}");
        };
        close(run(None), [1.6, 0.0, 0.0, 0.0]);
        close(run(Some(1)), [2.2, 0.8, 0.0, 0.0]);
        close(run(Some(0)), [4.6, 4.0, 0.0, 0.0]);
    }
}
