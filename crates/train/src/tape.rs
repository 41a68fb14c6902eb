//! A tape: what was computed, layer by layer, and its gradients in the opposite order.
//!
//! Owns: nodes, which are row-major matrices, the buffers under them, and the walk back. The operations
//! are coarse - a linear layer, attention over a whole batch - so that the tape itself costs nothing, and
//! each has its gradient written by hand beside it. What nothing trained leads to is never visited on
//! the way back. Buffers are reused from step to step. Deliberately absent: threads (a caller runs one
//! tape per chunk of samples), parameters, and which layer follows which (see `tower`).

mod attention;
mod buffers;
mod elementwise;
mod linear;
mod norm;
mod rows;
#[cfg(test)]
mod tests;

pub(crate) use attention::{Columns, Visible};
pub(crate) use linear::{LinearSpan, Piece};
pub(crate) use norm::NormSpan;
pub(crate) use rows::NOTHING;

use std::ops::Range;

use buffers::{Buffer, Pool};

use crate::ops::add_assign;
use crate::params::Params;

/// A matrix on a tape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Node(usize);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Tape {
    entries: Vec<Entry>,
    /// Row numbers, ids and lengths that operations keep.
    numbers: Vec<usize>,
    seeds: Vec<u64>,
    pool: Pool,
}

#[derive(Debug)]
struct Entry {
    op: Op,
    width: usize,
    /// Whether it depends on anything trained.
    needs: bool,
    /// Whether it went into a node that does: then its values are read on the way back.
    read: bool,
    /// None once released.
    value: Option<Buffer>,
    /// None before anything has contributed to it.
    grad: Option<Buffer>,
    /// What else the way back needs: the attention weights.
    kept: Option<Buffer>,
}

/// What a node was computed by, and from which nodes.
#[derive(Debug)]
enum Op {
    Input,
    Parameter(rows::Parameter),
    Linear(linear::Linear),
    Norm(norm::Norm),
    Attention(attention::Attention),
    Activation(elementwise::Activate),
    Add(elementwise::Add),
    Scale(elementwise::Scale),
    Dropout(elementwise::Dropout),
    Unit(elementwise::Unit),
    AddRows(rows::AddRows),
    Prepend(rows::Prepend),
    Gather(rows::Gather),
    Mean(rows::Mean),
    Lookup(rows::Lookup),
}

impl Op {
    fn inputs(&self) -> [Option<Node>; 2] {
        match self {
            Self::Input | Self::Parameter(_) | Self::Lookup(_) => [None; 2],
            Self::Linear(op) => [Some(op.x), op.residual],
            Self::Scale(op) => [Some(op.x), op.residual],
            Self::Attention(op) => [Some(op.q.node), Some(op.k.node)],
            Self::Add(op) => [Some(op.a), Some(op.b)],
            Self::Norm(op) => [Some(op.x), None],
            Self::Activation(op) => [Some(op.x), None],
            Self::Dropout(op) => [Some(op.x), None],
            Self::Unit(op) => [Some(op.x), None],
            Self::AddRows(op) => [Some(op.x), None],
            Self::Prepend(op) => [Some(op.x), None],
            Self::Gather(op) => [Some(op.x), None],
            Self::Mean(op) => [Some(op.x), None],
        }
    }
}

impl Entry {
    fn value(&self) -> &[f32] {
        self.value.as_deref().expect("a released node is not read")
    }
}

impl Tape {
    #[cfg(test)]
    /// An empty tape.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets all nodes; their buffers serve the next ones.
    pub fn reset(&mut self) {
        for entry in self.entries.drain(..) {
            [entry.value, entry.grad, entry.kept].into_iter().flatten().for_each(|b| self.pool.give(b));
        }
        self.numbers.clear();
        self.seeds.clear();
    }

    /// The values of a node, `[rows, width]`.
    ///
    /// # Panics
    /// If the node was released, or a backward pass went through it; that leaves the values of the node
    /// that it began at.
    pub fn rows(&self, node: Node) -> &[f32] {
        self.entries[node.0].value()
    }

    /// Columns of a node.
    pub fn width(&self, node: Node) -> usize {
        self.entries[node.0].width
    }

    /// Rows of a node.
    pub fn count(&self, node: Node) -> usize {
        self.rows(node).len() / self.width(node)
    }

    /// Whether a node depends on anything trained.
    pub fn needs(&self, node: Node) -> bool {
        self.entries[node.0].needs
    }

    /// A node that is given: rows of `width` values. It has no gradient.
    pub fn input(&mut self, rows: &[f32], width: usize) -> Node {
        self.input_with(rows.len(), width, |out| out.copy_from_slice(rows))
    }

    /// [`Tape::input`] of `len` values, all of which `fill` writes.
    pub fn input_with(&mut self, len: usize, width: usize, fill: impl FnOnce(&mut [f32])) -> Node {
        let mut value = self.pool.take(len);
        fill(&mut value);
        self.push(Op::Input, width, value, false)
    }

    #[cfg(test)]
    /// [`Tape::input`] with a gradient, which [`Tape::gradient`] gives after a backward pass: the way
    /// from one tape to another.
    pub fn variable(&mut self, rows: &[f32], width: usize) -> Node {
        let node = self.input(rows, width);
        self.entries[node.0].needs = true;
        node
    }

    #[cfg(test)]
    /// The gradient of a [`Tape::variable`] after a backward pass; none where nothing depends on it.
    pub fn gradient(&self, node: Node) -> Option<&[f32]> {
        self.entries[node.0].grad.as_deref()
    }

    /// Where the tape stands, for [`Tape::release`].
    pub fn mark(&self) -> usize {
        self.entries.len()
    }

    /// Gives up the values of all nodes since `mark`, apart from `keep`, that no gradient depends on: a
    /// frozen tower then takes no more memory than one of its blocks.
    pub fn release(&mut self, mark: usize, keep: Node) {
        for (at, entry) in self.entries.iter_mut().enumerate().skip(mark) {
            if at != keep.0
                && !(entry.needs || entry.read)
                && let Some(value) = entry.value.take()
            {
                self.pool.give(value);
            }
        }
    }

    /// Adds the gradients of all trained parameters that `node` depends on to `grads`, which is as long
    /// as `params.trained`, given the gradient of the node's own values. At most once per node.
    ///
    /// # Panics
    /// If `d_rows` has another size than the node.
    pub fn backward(&mut self, node: Node, d_rows: &[f32], params: &Params<'_>, grads: &mut [f32]) {
        assert_eq!(d_rows.len(), self.rows(node).len(), "a gradient of another node");
        if !self.needs(node) {
            return;
        }
        let mut seed = self.pool.take(d_rows.len());
        seed.copy_from_slice(d_rows);
        let Self { entries, numbers, seeds, pool } = self;
        entries[node.0].grad = Some(seed);
        for at in (0..=node.0).rev() {
            let (before, rest) = entries.split_at_mut(at);
            let entry = &mut rest[0];
            if !entry.needs || matches!(entry.op, Op::Input) {
                continue;
            }
            let Some(dy) = entry.grad.take() else { continue };
            let mut back = Back { before, numbers, seeds, pool, params, grads };
            entry.backward(dy, &mut back);
            // Whatever read this node has had its turn.
            let value = if at == node.0 { None } else { entry.value.take() };
            [value, entry.kept.take()].into_iter().flatten().for_each(|b| pool.give(b));
        }
    }

    /// Bytes of all buffers, in use or not.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        let buffers = self.entries.iter().flat_map(|e| [&e.value, &e.grad, &e.kept]).flatten();
        buffers.map(Buffer::bytes).sum::<usize>() + self.pool.bytes()
    }

    fn push(&mut self, op: Op, width: usize, value: Buffer, needs: bool) -> Node {
        assert!(width > 0 && value.len().is_multiple_of(width), "{} values in rows of {width}", value.len());
        for x in op.inputs().into_iter().flatten() {
            self.entries[x.0].read |= needs;
        }
        self.entries.push(Entry {
            op,
            width,
            needs,
            read: false,
            value: Some(value),
            grad: None,
            kept: None,
        });
        Node(self.entries.len() - 1)
    }

    fn keep_numbers(&mut self, numbers: impl Iterator<Item = usize>) -> Range<usize> {
        let start = self.numbers.len();
        self.numbers.extend(numbers);
        start..self.numbers.len()
    }
}

impl Entry {
    fn backward(&self, dy: Buffer, back: &mut Back<'_>) {
        match &self.op {
            Op::Input => unreachable!("inputs are where the walk ends"),
            Op::Parameter(op) => op.backward(dy, back),
            Op::Linear(op) => op.backward(dy, back),
            Op::Norm(op) => op.backward(dy, back),
            Op::Attention(op) => op.backward(self, dy, back),
            Op::Activation(op) => op.backward(dy, back),
            Op::Add(op) => op.backward(dy, back),
            Op::Scale(op) => op.backward(dy, back),
            Op::Dropout(op) => op.backward(self.width, dy, back),
            Op::Unit(op) => op.backward(self.width, dy, back),
            Op::AddRows(op) => op.backward(dy, back),
            Op::Prepend(op) => op.backward(self.width, dy, back),
            Op::Gather(op) => op.backward(self.width, dy, back),
            Op::Mean(op) => op.backward(self.width, dy, back),
            Op::Lookup(op) => op.backward(self.width, dy, back),
        }
    }
}

/// What the backward pass of one operation works on.
struct Back<'a> {
    /// All entries before the one whose turn it is.
    before: &'a mut [Entry],
    numbers: &'a [usize],
    seeds: &'a [u64],
    pool: &'a mut Pool,
    params: &'a Params<'a>,
    grads: &'a mut [f32],
}

impl Back<'_> {
    fn needs(&self, x: Node) -> bool {
        self.before[x.0].needs
    }

    /// The buffer of a node's gradient, to be put back with [`Back::close`], and whether something has
    /// contributed to it. If nothing has, its content is arbitrary and must be overwritten.
    fn open(&mut self, x: Node) -> (Buffer, bool) {
        let entry = &mut self.before[x.0];
        match entry.grad.take() {
            Some(grad) => (grad, true),
            None => (self.pool.take(entry.value().len()), false),
        }
    }

    /// [`Back::open`] with zeros where nothing has contributed yet.
    fn open_zeroed(&mut self, x: Node) -> Buffer {
        let (mut grad, begun) = self.open(x);
        if !begun {
            grad.fill(0.0);
        }
        grad
    }

    fn close(&mut self, x: Node, grad: Buffer) {
        self.before[x.0].grad = Some(grad);
    }

    /// Contributes a whole gradient, which becomes the node's own if it is the first.
    fn give(&mut self, x: Node, d: Buffer) {
        let entry = &mut self.before[x.0];
        match &mut entry.grad {
            _ if !entry.needs => self.pool.give(d),
            None => entry.grad = Some(d),
            Some(grad) => {
                add_assign(grad, &d);
                self.pool.give(d);
            }
        }
    }
}
