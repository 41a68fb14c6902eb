//! What a tape does with whole rows: look them up, pick, repeat, add, average and put before others.
//!
//! Owns: embeddings, positions, class tokens and pooling, with their gradients. Deliberately absent:
//! which of them a tower uses (see `tower`).

use std::ops::Range;

use super::buffers::Buffer;
use super::{Back, Node, Op, Tape};
use crate::ops::add_assign;
use crate::params::{Params, Span};

/// In the place of an id: a row of zeros, which has no gradient.
pub(crate) const NOTHING: usize = usize::MAX;

/// See [`Tape::parameter`].
#[derive(Debug)]
pub(super) struct Parameter {
    span: Span,
}

/// See [`Tape::add_rows`].
#[derive(Debug)]
pub(super) struct AddRows {
    pub(super) x: Node,
    rows: Span,
}

/// See [`Tape::prepend`].
#[derive(Debug)]
pub(super) struct Prepend {
    pub(super) x: Node,
    row: Span,
    per_sample: usize,
}

/// See [`Tape::gather`].
#[derive(Debug)]
pub(super) struct Gather {
    pub(super) x: Node,
    picks: Range<usize>,
}

/// See [`Tape::mean`].
#[derive(Debug)]
pub(super) struct Mean {
    pub(super) x: Node,
    /// First and last plus one of each run of rows.
    bounds: Range<usize>,
}

/// See [`Tape::lookup`].
#[derive(Debug)]
pub(super) struct Lookup {
    table: Span,
    ids: Range<usize>,
}

impl Tape {
    /// Parameters as rows of `width` values.
    pub fn parameter(&mut self, span: Span, width: usize, params: &Params<'_>) -> Node {
        let mut y = self.pool.take(span.len());
        y.copy_from_slice(params.of(span));
        self.push(Op::Parameter(Parameter { span }), width, y, span.trained())
    }

    /// The rows of a table that ids name; zeros for [`NOTHING`].
    pub fn lookup(
        &mut self,
        table: Span,
        width: usize,
        ids: impl Iterator<Item = usize>,
        params: &Params<'_>,
    ) -> Node {
        let ids = self.keep_numbers(ids);
        let mut y = self.pool.take(ids.len() * width);
        let values = params.of(table);
        for (row, &id) in y.chunks_exact_mut(width).zip(&self.numbers[ids.clone()]) {
            if id == NOTHING {
                row.fill(0.0);
            } else {
                row.copy_from_slice(&values[id * width..][..width]);
            }
        }
        self.push(Op::Lookup(Lookup { table, ids }), width, y, table.trained())
    }

    /// Adds the first row of `rows` to the first of every sample, and so on; there are as many rows as
    /// a sample has.
    pub fn add_rows(&mut self, x: Node, rows: Span, params: &Params<'_>) -> Node {
        let mut y = self.pool.take(self.rows(x).len());
        y.copy_from_slice(self.rows(x));
        assert!(y.len().is_multiple_of(rows.len()), "as many rows as a sample has");
        y.chunks_exact_mut(rows.len()).for_each(|sample| add_assign(sample, params.of(rows)));
        let needs = self.needs(x) || rows.trained();
        self.push(Op::AddRows(AddRows { x, rows }), self.width(x), y, needs)
    }

    /// Puts a row before those of every sample, which are `per_sample`.
    pub fn prepend(&mut self, x: Node, row: Span, per_sample: usize, params: &Params<'_>) -> Node {
        let width = self.width(x);
        assert_eq!(row.len(), width, "one row");
        let samples = self.count(x) / per_sample;
        let mut y = self.pool.take(samples * (per_sample + 1) * width);
        let from = self.rows(x).chunks_exact(per_sample * width);
        for (to, from) in y.chunks_exact_mut((per_sample + 1) * width).zip(from) {
            to[..width].copy_from_slice(params.of(row));
            to[width..].copy_from_slice(from);
        }
        let needs = self.needs(x) || row.trained();
        self.push(Op::Prepend(Prepend { x, row, per_sample }), width, y, needs)
    }

    /// Rows of `x` by number, in any order and any number of times.
    pub fn gather(&mut self, x: Node, picks: impl Iterator<Item = usize>) -> Node {
        let (width, picks) = (self.width(x), self.keep_numbers(picks));
        let mut y = self.pool.take(picks.len() * width);
        let values = self.rows(x);
        for (row, &pick) in y.chunks_exact_mut(width).zip(&self.numbers[picks.clone()]) {
            row.copy_from_slice(&values[pick * width..][..width]);
        }
        self.push(Op::Gather(Gather { x, picks }), width, y, self.needs(x))
    }

    /// The mean of each run of rows; none is empty.
    pub fn mean(&mut self, x: Node, runs: impl Iterator<Item = Range<usize>>) -> Node {
        let (width, bounds) = (self.width(x), self.keep_numbers(runs.flat_map(|run| [run.start, run.end])));
        let mut y = self.pool.take(bounds.len() / 2 * width);
        y.fill(0.0);
        let values = self.rows(x);
        for (row, bounds) in y.chunks_exact_mut(width).zip(self.numbers[bounds.clone()].chunks_exact(2)) {
            let run = &values[bounds[0] * width..bounds[1] * width];
            run.chunks_exact(width).for_each(|x| add_assign(row, x));
            let count = (bounds[1] - bounds[0]) as f32;
            row.iter_mut().for_each(|v| *v /= count);
        }
        self.push(Op::Mean(Mean { x, bounds }), width, y, self.needs(x))
    }
}

impl Parameter {
    pub fn backward(&self, dy: Buffer, back: &mut Back<'_>) {
        add_assign(self.span.of_mut(back.grads), &dy);
        back.pool.give(dy);
    }
}

impl Lookup {
    pub fn backward(&self, width: usize, dy: Buffer, back: &mut Back<'_>) {
        let table = self.table.of_mut(back.grads);
        for (row, &id) in dy.chunks_exact(width).zip(&back.numbers[self.ids.clone()]) {
            if id != NOTHING {
                add_assign(&mut table[id * width..][..width], row);
            }
        }
        back.pool.give(dy);
    }
}

impl AddRows {
    pub fn backward(&self, dy: Buffer, back: &mut Back<'_>) {
        if self.rows.trained() {
            let rows = self.rows.of_mut(back.grads);
            dy.chunks_exact(rows.len()).for_each(|sample| add_assign(rows, sample));
        }
        back.give(self.x, dy);
    }
}

impl Prepend {
    pub fn backward(&self, width: usize, dy: Buffer, back: &mut Back<'_>) {
        let sample = (self.per_sample + 1) * width;
        if self.row.trained() {
            let row = self.row.of_mut(back.grads);
            dy.chunks_exact(sample).for_each(|d| add_assign(row, &d[..width]));
        }
        if back.needs(self.x) {
            let mut dx = back.pool.take(back.before[self.x.0].value().len());
            for (to, from) in dx.chunks_exact_mut(sample - width).zip(dy.chunks_exact(sample)) {
                to.copy_from_slice(&from[width..]);
            }
            back.give(self.x, dx);
        }
        back.pool.give(dy);
    }
}

impl Gather {
    pub fn backward(&self, width: usize, dy: Buffer, back: &mut Back<'_>) {
        let mut dx = back.open_zeroed(self.x);
        for (row, &pick) in dy.chunks_exact(width).zip(&back.numbers[self.picks.clone()]) {
            add_assign(&mut dx[pick * width..][..width], row);
        }
        back.close(self.x, dx);
        back.pool.give(dy);
    }
}

impl Mean {
    pub fn backward(&self, width: usize, dy: Buffer, back: &mut Back<'_>) {
        let mut dx = back.open_zeroed(self.x);
        for (row, bounds) in dy.chunks_exact(width).zip(back.numbers[self.bounds.clone()].chunks_exact(2)) {
            let count = (bounds[1] - bounds[0]) as f32;
            for dx in dx[bounds[0] * width..bounds[1] * width].chunks_exact_mut(width) {
                dx.iter_mut().zip(row).for_each(|(dx, d)| *dx += d / count);
            }
        }
        back.close(self.x, dx);
        back.pool.give(dy);
    }
}
