//! Layers between a tower's output and the shared space, with gradients.
//!
//! Owns: the forms of heads a recipe can ask for, how they start, and what the encoder is told about
//! them. Deliberately absent: towers, and inference, which is the encoder's.

use diptych_encoder::{Activation, HeadLayer, HeadSpec};

use crate::params::{Init, Layout, Params};
use crate::recipe::{HeadKind, HeadRecipe};
use crate::tape::{LinearSpan, Node, NormSpan, Piece, Tape};

/// Epsilon of a head's layer norm.
const EPS: f64 = 1e-5;

/// The head of one side.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    /// Each with its place in the description, where it has one.
    layers: Vec<(usize, Layer)>,
    spec: HeadSpec,
    dim: usize,
}

#[derive(Debug, Clone)]
enum Layer {
    Unit,
    Norm(NormSpan),
    Dropout(f32),
    Linear(LinearSpan),
    Activation(Activation),
}

impl Head {
    /// Appends the parameters of a head for inputs of `width` values to a layout, under `prefix`. With
    /// `solved`, a linear layer of so many outputs stands in front, whose parameters are frozen.
    pub fn new(
        recipe: &HeadRecipe,
        prefix: &str,
        width: usize,
        solved: Option<usize>,
        layout: &mut Layout,
    ) -> Self {
        let spec = HeadSpec { layers: Vec::new(), residual: None };
        let mut build = Builder { prefix, layout, layers: Vec::new(), spec };
        if let Some(out) = solved {
            build.linear(width, out, 1.0, false);
        }
        let width = solved.unwrap_or(width);
        let dim = match recipe.kind {
            HeadKind::Projection if solved.is_some() => width,
            HeadKind::Projection => build.linear(width, recipe.dim, 1.0, true),
            HeadKind::Linear => {
                build.norm(width);
                build.dropout(recipe.dropout);
                build.linear(width, recipe.dim, 1.0, true)
            }
            HeadKind::Mlp => {
                build.norm(width);
                build.two_layers(recipe, width, recipe.dim, 1.0)
            }
            HeadKind::Adapter => {
                build.unit();
                build.spec.residual = Some(build.spec.layers.len());
                build.norm(width);
                build.two_layers(recipe, width, width, 0.0)
            }
        };
        let Builder { layers, spec, .. } = build;
        Self { layers, spec, dim }
    }

    /// Dimensions of the output.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// What the encoder reads of it.
    pub fn spec(&self) -> &HeadSpec {
        &self.spec
    }

    /// The layer that it ends with, if that is linear and nothing is added to what it puts out.
    pub fn last_layer(&self) -> Option<&LinearSpan> {
        match self.layers.last() {
            Some((_, Layer::Linear(layer))) if self.spec.residual.is_none() => Some(layer),
            _ => None,
        }
    }

    /// The head's output. With `seeds`, one per row, some inputs of its layers are left out.
    pub fn forward(&self, tape: &mut Tape, params: &Params<'_>, x: Node, seeds: Option<&[u64]>) -> Node {
        let (mut x, mut kept) = (x, None);
        for (number, (place, layer)) in self.layers.iter().enumerate() {
            if self.spec.residual == Some(*place) && kept.is_none() {
                kept = Some(x);
            }
            x = match layer {
                Layer::Unit => tape.unit(x),
                Layer::Norm(norm) => tape.layer_norm(x, norm, params),
                Layer::Linear(linear) => tape.linear(x, linear, params),
                Layer::Activation(activation) => tape.activation(x, *activation),
                Layer::Dropout(rate) => match seeds {
                    None => x,
                    Some(seeds) => {
                        // Another stream for every layer.
                        let shift = (number as u64 + 1).wrapping_mul(0xd134_2543_de82_ef95);
                        let seeds: Vec<u64> = seeds.iter().map(|seed| seed ^ shift).collect();
                        tape.dropout(x, *rate, &seeds)
                    }
                },
            };
        }
        kept.map_or(x, |kept| tape.add(x, kept))
    }
}

/// Appends layers, parameters and the description of both.
struct Builder<'a> {
    prefix: &'a str,
    layout: &'a mut Layout,
    layers: Vec<(usize, Layer)>,
    spec: HeadSpec,
}

impl Builder<'_> {
    fn name(&self, part: &str) -> String {
        format!("{}.{}.{part}", self.prefix, self.spec.layers.len())
    }

    fn push(&mut self, layer: Layer, described: HeadLayer) {
        self.layers.push((self.spec.layers.len(), layer));
        self.spec.layers.push(described);
    }

    fn unit(&mut self) {
        self.push(Layer::Unit, HeadLayer::Unit {});
    }

    /// Is no part of the description: there is none at inference.
    fn dropout(&mut self, rate: f32) {
        if rate > 0.0 {
            self.layers.push((self.spec.layers.len(), Layer::Dropout(rate)));
        }
    }

    fn norm(&mut self, width: usize) {
        let weight = self.layout.push(self.name("weight"), &[width], Init::Constant(1.0), false);
        let bias = self.layout.push(self.name("bias"), &[width], Init::Constant(0.0), false);
        self.push(Layer::Norm(NormSpan::new(weight, bias, EPS)), HeadLayer::LayerNorm { width, eps: EPS });
    }

    /// Weights start with the variance of PyTorch's linear layers, times the square of `gain`. Gives the
    /// width of the output.
    fn linear(&mut self, input: usize, out: usize, gain: f32, trained: bool) -> usize {
        let std = gain * (3.0 * input as f32).powf(-0.5);
        let (weight, bias) = (self.name("weight"), self.name("bias"));
        let weight = self.layout.tensor(&weight, &[out, input], Init::Normal(std), true, trained);
        let bias = self.layout.tensor(&bias, &[out], Init::Constant(0.0), false, trained);
        let piece = Piece { span: weight, transposed: false };
        let linear = LinearSpan::new(&[piece], &[bias], None, (out, input));
        self.push(Layer::Linear(linear), HeadLayer::Linear { input, out, bias: true });
        out
    }

    /// Dropout, linear, GELU, dropout, linear; the last one starts with `gain`.
    fn two_layers(&mut self, recipe: &HeadRecipe, width: usize, out: usize, gain: f32) -> usize {
        self.dropout(recipe.dropout);
        self.linear(width, recipe.hidden, 1.0, true);
        self.push(Layer::Activation(Activation::Gelu), HeadLayer::Activation(Activation::Gelu));
        self.dropout(recipe.dropout);
        self.linear(recipe.hidden, out, gain, true)
    }
}
