//! From the parts of a checkpoint to parameters.
//!
//! Owns: which span of a layout each part is, how it starts where there is no checkpoint, and which
//! parameters decay. The standard deviations are those of the CLIP reference implementation.
//! Deliberately absent: what the layers compute (see `tape`).

use diptych_encoder::Activation;
use diptych_encoder::anatomy::{HeadParts, LinearParts, NormParts, Source};

use crate::params::{Init, Layout, Params, Span};
use crate::tape::{LinearSpan, Node, NormSpan, Piece, Tape};

/// Some rows of a tensor, as they are stored. The layout holds the whole tensor.
pub(super) fn rows(layout: &mut Layout, source: &Source, init: Init, decay: bool, open: bool) -> Span {
    let tensor = layout.tensor(&source.name, &source.shape, init, decay, open);
    let range = source.range();
    tensor.cut(range.start, range.len())
}

/// A layer whose weights start with this standard deviation.
pub(super) fn linear(layout: &mut Layout, parts: &LinearParts, std: f32, open: bool) -> LinearSpan {
    let weight: Vec<Piece> = parts
        .weight
        .iter()
        .map(|source| {
            let init = Init::Normal(std);
            let span = match source.transposed {
                true => layout.tensor(&source.name, &source.shape, init, true, open),
                false => rows(layout, source, init, true, open),
            };
            Piece { span, transposed: source.transposed }
        })
        .collect();
    let mut vector = |source, start| rows(layout, source, Init::Constant(start), false, open);
    let bias: Vec<Span> = parts.bias.iter().map(|source| vector(source, 0.0)).collect();
    let scale = parts.scale.as_ref().map(|source| vector(source, 1.0));
    LinearSpan::new(&weight, &bias, scale, (parts.out, parts.input))
}

/// A norm that starts with ones and zeros.
pub(super) fn norm(layout: &mut Layout, parts: &NormParts, open: bool) -> NormSpan {
    let mut vector = |source, start| rows(layout, source, Init::Constant(start), false, open);
    NormSpan::new(vector(&parts.weight, 1.0), vector(&parts.bias, 0.0), parts.eps)
}

/// From a pooled state to the shared space.
#[derive(Debug, Clone)]
pub(super) struct Head(Vec<(LinearSpan, Option<Activation>)>);

impl Head {
    pub fn new(layout: &mut Layout, parts: &HeadParts, open: bool) -> Self {
        let layer = |(parts, activation): &(LinearParts, Option<Activation>)| {
            (linear(layout, parts, (parts.input as f32).powf(-0.5), open), *activation)
        };
        Self(parts.iter().map(layer).collect())
    }

    /// The layer that it ends with, if that is linear.
    pub fn last_layer(&self) -> Option<&LinearSpan> {
        self.0.last().filter(|(_, activation)| activation.is_none()).map(|(layer, _)| layer)
    }

    pub fn forward(&self, tape: &mut Tape, params: &Params<'_>, mut x: Node) -> Node {
        for (layer, activation) in &self.0 {
            x = tape.linear(x, layer, params);
            if let Some(activation) = activation {
                x = tape.activation(x, *activation);
            }
        }
        x
    }
}
