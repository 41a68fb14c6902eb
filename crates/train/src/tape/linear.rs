//! Linear layers on a tape.
//!
//! Owns: [`LinearSpan`], which parameters a layer multiplies with, and the product with its gradients.
//! Queries, keys and values are one layer, whether they are stored as one tensor or as three.
//! Deliberately absent: where the parameters come from (see `tower`).

use std::sync::Arc;

use diptych_kernels::{Mat, MatMut};

use super::buffers::Buffer;
use super::{Back, Node, Op, Tape};
use crate::ops::{add_bias, add_columns, add_to_columns, fill_columns, matmul};
use crate::params::{Params, Span};

/// The parameters of `y = (x W^T + b) * scale`, W being `[out, input]`.
#[derive(Debug, Clone)]
pub(crate) struct LinearSpan {
    weight: Arc<[Piece]>,
    /// Behind one another they have a value per output; empty without a bias.
    bias: Arc<[Span]>,
    /// A factor per output.
    scale: Option<Span>,
    out: usize,
    input: usize,
}

/// Some rows of W, in one run of parameters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece {
    /// `[rows, input]`, or `[input, rows]` when it is transposed.
    pub span: Span,
    /// See `span`.
    pub transposed: bool,
}

impl LinearSpan {
    /// Pieces of weight and bias that lie behind one another become one.
    ///
    /// # Panics
    /// If the pieces do not make up a layer of these sizes.
    pub fn new(
        weight: &[Piece],
        bias: &[Span],
        scale: Option<Span>,
        (out, input): (usize, usize),
    ) -> LinearSpan {
        let mut merged: Vec<Piece> = Vec::new();
        for piece in weight {
            match merged.last_mut() {
                Some(last)
                    if !last.transposed && !piece.transposed && last.span.joined(piece.span).is_some() =>
                {
                    last.span = last.span.joined(piece.span).expect("just seen");
                }
                _ => merged.push(*piece),
            }
        }
        let mut biases: Vec<Span> = Vec::new();
        for span in bias {
            match biases.last_mut().and_then(|last| last.joined(*span)) {
                Some(joined) => *biases.last_mut().expect("just seen") = joined,
                None => biases.push(*span),
            }
        }
        let rows: usize = merged.iter().map(|piece| piece.span.len()).sum();
        assert_eq!(rows, out * input, "weights of a layer of {out} x {input}");
        let len: usize = biases.iter().map(|span| span.len()).sum();
        assert!(bias.is_empty() || len == out, "{len} biases for {out} outputs");
        assert!(scale.is_none_or(|scale| scale.len() == out), "a scale for another layer than {out} outputs");
        Self { weight: merged.into(), bias: biases.into(), scale, out, input }
    }

    /// The layer of the outputs `first .. first + out` alone.
    ///
    /// # Panics
    /// If a weight among them is transposed, or there are not as many.
    pub fn outputs(&self, first: usize, out: usize) -> LinearSpan {
        assert!(first + out <= self.out, "{first} + {out} of {} outputs", self.out);
        let weight: Vec<Piece> = within(self.weight.iter().map(|p| p.span), self.input, (first, out))
            .zip(self.weight.iter())
            .filter_map(|(cut, piece)| cut.map(|span| Piece { span, ..*piece }))
            .collect();
        assert!(weight.iter().all(|piece| !piece.transposed), "rows of a transposed weight");
        let bias: Vec<Span> = within(self.bias.iter().copied(), 1, (first, out)).flatten().collect();
        Self::new(&weight, &bias, self.scale.map(|scale| scale.cut(first, out)), (out, self.input))
    }

    /// Replaces W by M W and b by M b among the trained parameters, M being `[out, out]`.
    ///
    /// # Panics
    /// If M has another size, or a part of the layer is frozen.
    pub fn mapped(&self, trained: &mut [f32], map: &[f32]) {
        let (out, input) = (self.out, self.input);
        assert_eq!(map.len(), out * out, "a map of {out} outputs");
        assert!(
            self.scale.is_none() && self.weight.iter().all(|piece| piece.span.trained()),
            "a frozen layer"
        );
        let mut old = vec![0f32; out * input];
        self.places().for_each(|(at, place)| old[at] = trained[place]);
        let mut new = vec![0f32; out * input];
        let map = Mat::new(map, out);
        matmul(MatMut::new(&mut new, input), (out, input, out), map, Mat::new(&old, input), false);
        self.places().for_each(|(at, place)| trained[place] = new[at]);
        let old: Vec<f32> = self.biases().flat_map(|(_, bias)| bias.of(trained).to_vec()).collect();
        if !old.is_empty() {
            let mut new = vec![0f32; out];
            matmul(MatMut::new(&mut new, 1), (out, 1, out), map, Mat::new(&old, 1), false);
            self.biases().for_each(|(at, bias)| {
                bias.of_mut(trained).copy_from_slice(&new[at..at + bias.len()]);
            });
        }
    }

    /// Where every element of W, row by row, lies among the parameters.
    fn places(&self) -> impl Iterator<Item = (usize, usize)> {
        let input = self.input;
        self.pieces().flat_map(move |(first, rows, piece)| {
            let start = piece.span.range().start;
            (0..rows * input).map(move |i| {
                let (row, column) = (i / input, i % input);
                (first * input + i, start + if piece.transposed { column * rows + row } else { i })
            })
        })
    }

    /// Whether any of its parameters has a gradient.
    pub fn trained(&self) -> bool {
        self.weight.iter().any(|piece| piece.span.trained()) || self.bias.iter().any(|span| span.trained())
    }

    /// The pieces of W with their first output and their number of outputs.
    fn pieces(&self) -> impl Iterator<Item = (usize, usize, Piece)> {
        let mut first = 0;
        self.weight.iter().map(move |piece| {
            let rows = piece.span.len() / self.input;
            first += rows;
            (first - rows, rows, *piece)
        })
    }

    /// The pieces of the bias with their first output.
    fn biases(&self) -> impl Iterator<Item = (usize, Span)> {
        let mut first = 0;
        self.bias.iter().map(move |span| {
            first += span.len();
            (first - span.len(), *span)
        })
    }
}

/// What of each span, in rows of `width` that are counted through all spans, lies in the wanted rows.
fn within(
    spans: impl Iterator<Item = Span>,
    width: usize,
    (first, count): (usize, usize),
) -> impl Iterator<Item = Option<Span>> {
    let mut at = 0;
    spans.map(move |span| {
        let rows = span.len() / width;
        let (from, to) = (first.max(at), (first + count).min(at + rows));
        at += rows;
        (from < to).then(|| span.cut((from + rows - at) * width, (to - from) * width))
    })
}

/// See [`Tape::linear`].
#[derive(Debug)]
pub(super) struct Linear {
    pub(super) x: Node,
    pub(super) residual: Option<Node>,
    layer: LinearSpan,
}

impl Tape {
    /// `y = (x W^T + b) * scale`.
    pub fn linear(&mut self, x: Node, layer: &LinearSpan, params: &Params<'_>) -> Node {
        self.linear_onto(x, layer, None, params)
    }

    /// `y = residual + (x W^T + b) * scale`: a branch that joins the residual stream.
    pub fn linear_add(&mut self, x: Node, layer: &LinearSpan, residual: Node, params: &Params<'_>) -> Node {
        self.linear_onto(x, layer, Some(residual), params)
    }

    fn linear_onto(
        &mut self,
        x: Node,
        layer: &LinearSpan,
        residual: Option<Node>,
        params: &Params<'_>,
    ) -> Node {
        if let Some(scale) = layer.scale {
            let plain = LinearSpan { scale: None, ..layer.clone() };
            let y = self.linear_onto(x, &plain, None, params);
            return self.scale(y, scale, residual, params);
        }
        let (out, input) = (layer.out, layer.input);
        assert_eq!(self.width(x), input, "the input of a layer of {out} x {input}");
        let rows = self.count(x);
        let mut y = self.pool.take(rows * out);
        let begun = match (residual, layer.bias.as_ref()) {
            (Some(residual), [bias]) => {
                add_bias(&mut y, self.rows(residual), params.of(*bias));
                true
            }
            (Some(residual), _) => {
                y.copy_from_slice(self.rows(residual));
                layer.biases().for_each(|(at, bias)| add_to_columns(&mut y, out, at, params.of(bias)));
                true
            }
            (None, biases) => {
                layer.biases().for_each(|(at, bias)| fill_columns(&mut y, out, at, params.of(bias)));
                !biases.is_empty()
            }
        };
        let x_values = self.rows(x);
        for (first, n, piece) in layer.pieces() {
            let weight = params.of(piece.span);
            let weight = if piece.transposed { Mat::new(weight, n) } else { Mat::new(weight, input).t() };
            let y = MatMut::new(&mut y[first..], out);
            matmul(y, (rows, n, input), Mat::new(x_values, input), weight, begun);
        }
        let needs = self.needs(x) || layer.trained() || residual.is_some_and(|r| self.needs(r));
        self.push(Op::Linear(Linear { x, residual, layer: layer.clone() }), out, y, needs)
    }
}

impl Linear {
    pub fn backward(&self, dy: Buffer, back: &mut Back<'_>) {
        let (out, input) = (self.layer.out, self.layer.input);
        let rows = dy.len() / out;
        for (first, bias) in self.layer.biases().filter(|(_, bias)| bias.trained()) {
            add_columns(bias.of_mut(back.grads), &dy, out, first);
        }
        let x = Mat::new(back.before[self.x.0].value(), input);
        for (first, n, piece) in self.layer.pieces().filter(|(_, _, piece)| piece.span.trained()) {
            let (dw, dy) = (piece.span.of_mut(back.grads), Mat::new(&dy[first..], out));
            if piece.transposed {
                matmul(MatMut::new(dw, n), (input, n, rows), x.t(), dy, true);
            } else {
                matmul(MatMut::new(dw, input), (n, input, rows), dy.t(), x, true);
            }
        }
        if back.needs(self.x) {
            let (mut dx, mut begun) = back.open(self.x);
            for (first, n, piece) in self.layer.pieces() {
                let weight = back.params.of(piece.span);
                let weight = if piece.transposed { Mat::new(weight, n).t() } else { Mat::new(weight, input) };
                let dy = Mat::new(&dy[first..], out);
                matmul(MatMut::new(&mut dx, input), (rows, input, n), dy, weight, begun);
                begun = true;
            }
            back.close(self.x, dx);
        }
        match self.residual {
            Some(residual) => back.give(residual, dy),
            None => back.pool.give(dy),
        }
    }
}
