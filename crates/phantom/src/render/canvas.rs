//! The grid of samples and the soft shapes painted on it.
//!
//! All shapes are built from polynomials, divisions and square roots: see the crate's promise of
//! equal bytes everywhere. Loops are written so that the compiler can vectorise them.
//! Deliberately absent: anatomy.

use std::ops::Range;

use crate::anatomy::Anatomy;

/// A smooth step: 0 below `-soft`, 1 above `soft`.
#[inline(always)]
pub(super) fn step(d: f32, soft: f32) -> f32 {
    let t = (d * (0.5 / soft) + 0.5).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// A smooth bump over the square of a distance: 1 at 0, 0 from 1 on.
#[inline(always)]
pub(super) fn bump(r2: f32) -> f32 {
    let t = (1.0 - r2).max(0.0);
    t * t
}

/// The nearest whole number for values below four million, by the rounding of addition: unlike
/// `round` it is one instruction on every processor.
#[inline(always)]
pub(super) fn nearest(v: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    (v + MAGIC) - MAGIC
}

/// A smooth wave of period 1 between -1 and 1, standing in for a cosine.
#[inline(always)]
pub(super) fn wave(v: f32) -> f32 {
    let t = (v - nearest(v)).abs() * 2.0;
    1.0 - 2.0 * t * t * (3.0 - 2.0 * t)
}

/// Irregular blotches between -1 and 1, about one unit of `x` and `y` in size.
#[inline(always)]
pub(super) fn mottle(x: f32, y: f32, phase: [f32; 3]) -> f32 {
    let u = x + 0.35 * wave(0.61 * y + phase[0]);
    let v = y + 0.35 * wave(0.73 * x + phase[1]);
    0.5 * wave(0.83 * u + 0.45 * v + phase[2])
        + 0.5 * wave(0.71 * v - 0.52 * u + phase[0] + phase[1]) * wave(0.37 * u + 0.9 * v - phase[2])
}

/// A rectangle in body coordinates.
#[derive(Debug, Clone, Copy)]
pub(super) struct Area {
    pub(super) x: (f32, f32),
    pub(super) y: (f32, f32),
}

impl Area {
    pub(super) const ALL: Self = Self { x: (-9.0, 9.0), y: (-9.0, 9.0) };

    pub(super) fn around((x, y): (f32, f32), rx: f32, ry: f32) -> Self {
        Self { x: (x - rx, x + rx), y: (y - ry, y + ry) }
    }

    /// The smallest area that holds both.
    fn with(self, other: Self) -> Self {
        Self {
            x: (self.x.0.min(other.x.0), self.x.1.max(other.x.1)),
            y: (self.y.0.min(other.y.0), self.y.1.max(other.y.1)),
        }
    }
}

/// A straight piece of something thin: end points and half widths at them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stroke {
    pub(super) from: (f32, f32),
    pub(super) to: (f32, f32),
    pub(super) width: (f32, f32),
}

impl Stroke {
    fn area(&self) -> Area {
        let margin = self.width.0.max(self.width.1);
        Area {
            x: (self.from.0.min(self.to.0) - margin, self.from.0.max(self.to.0) + margin),
            y: (self.from.1.min(self.to.1) - margin, self.from.1.max(self.to.1) + margin),
        }
    }
}

/// Two planes of samples: what absorbs, and the air of the lungs that does not.
pub(super) struct Canvas {
    n: usize,
    columns: Vec<f32>,
    /// Body coordinates of the first sample and per column; a row steps at right angles.
    origin: (f32, f32),
    along: (f32, f32),
    /// Attenuation of everything but air; about 0.9 in the middle of a body.
    pub(super) tissue: Vec<f32>,
    /// Air in the way of the ray, 0 to about 1.
    pub(super) air: Vec<f32>,
    /// Scratch for [`Canvas::line`].
    ink: Vec<f32>,
}

impl Canvas {
    /// `n` x `n` samples of the picture, seen from the patient's own coordinates.
    pub(super) fn new(n: usize, anatomy: &Anatomy) -> Self {
        let t = anatomy.tilt;
        let (sine, cosine) = (t - t * t * t / 6.0, 1.0 - t * t / 2.0);
        let pixel = 2.0 / n as f32;
        let (px, py) = (0.5 * pixel - 1.0 - anatomy.offset.0, 0.5 * pixel - 1.0 - anatomy.offset.1);
        let scale = 1.0 / anatomy.zoom;
        Self {
            n,
            columns: (0..n).map(|i| i as f32).collect(),
            origin: ((px * cosine + py * sine) * scale, (py * cosine - px * sine) * scale),
            along: (pixel * cosine * scale, -pixel * sine * scale),
            tissue: vec![0.0; n * n],
            air: vec![0.0; n * n],
            ink: vec![0.0; n * n],
        }
    }

    /// Calls `f(x, y, tissue, air)` for the samples of an area, and for a few around it.
    #[inline(always)]
    pub(super) fn each(&mut self, area: Area, f: impl Fn(f32, f32, &mut f32, &mut f32)) {
        let Some((rows, columns)) = self.samples(area) else { return };
        let (dx, dy) = self.along;
        for row in rows {
            let (range, x0, y0) = self.span(row, &columns);
            let tissue = &mut self.tissue[range.clone()];
            let air = &mut self.air[range];
            for ((t, a), c) in tissue.iter_mut().zip(air).zip(&self.columns[columns.clone()]) {
                f(x0 + c * dx, y0 + c * dy, t, a);
            }
        }
    }

    /// Where some columns of a row lie in the planes, and the coordinates of the row's column 0.
    fn span(&self, row: usize, columns: &Range<usize>) -> (Range<usize>, f32, f32) {
        let r = row as f32;
        let start = row * self.n;
        let (x0, y0) = (self.origin.0 - r * self.along.1, self.origin.1 + r * self.along.0);
        (start + columns.start..start + columns.end, x0, y0)
    }

    /// Rows and columns whose samples can lie in an area.
    fn samples(&self, area: Area) -> Option<(Range<usize>, Range<usize>)> {
        let (dx, dy) = self.along;
        let norm = dx * dx + dy * dy;
        let mut low = (f32::MAX, f32::MAX);
        let mut high = (f32::MIN, f32::MIN);
        for x in [area.x.0, area.x.1] {
            for y in [area.y.0, area.y.1] {
                let (u, v) = (x - self.origin.0, y - self.origin.1);
                let (column, row) = ((u * dx + v * dy) / norm, (v * dx - u * dy) / norm);
                low = (low.0.min(column), low.1.min(row));
                high = (high.0.max(column), high.1.max(row));
            }
        }
        // A float that is out of range becomes the nearest bound of the integer.
        let range = |low: f32, high: f32| (low - 1.0) as usize..((high + 2.0) as usize).min(self.n);
        let (rows, columns) = (range(low.1, high.1), range(low.0, high.0));
        (!rows.is_empty() && !columns.is_empty() && high.0 > 0.0 && high.1 > 0.0).then_some((rows, columns))
    }

    /// Something thin: `f(strength, tissue, air)` with a strength of 1 on the axis and 0 outside.
    #[inline(always)]
    pub(super) fn stroke(&mut self, s: Stroke, f: impl Fn(f32, &mut f32, &mut f32)) {
        let (ax, ay) = s.from;
        let (bx, by) = (s.to.0 - ax, s.to.1 - ay);
        let inverse = 1.0 / (bx * bx + by * by).max(1e-9);
        let (w0, w1) = (s.width.0, s.width.1 - s.width.0);
        self.each(s.area(), |x, y, tissue, air| {
            let (u, v) = (x - ax, y - ay);
            let t = ((u * bx + v * by) * inverse).clamp(0.0, 1.0);
            let (du, dv) = (u - t * bx, v - t * by);
            let w = w0 + w1 * t;
            f(bump((du * du + dv * dv) / (w * w)), tissue, air);
        });
    }

    /// Something thin and bent, as [`Canvas::stroke`]: where its pieces meet, the stronger counts.
    pub(super) fn line(&mut self, points: &[(f32, f32)], width: f32, f: impl Fn(f32, &mut f32, &mut f32)) {
        let mut ink = std::mem::take(&mut self.ink);
        ink.fill(0.0);
        let mut whole = Area { x: (f32::MAX, f32::MIN), y: (f32::MAX, f32::MIN) };
        let (dx, dy) = self.along;
        let inverse_square = 1.0 / (width * width);
        for pair in points.windows(2) {
            let (ax, ay) = pair[0];
            let (bx, by) = (pair[1].0 - ax, pair[1].1 - ay);
            let inverse = 1.0 / (bx * bx + by * by).max(1e-9);
            let area = Stroke { from: pair[0], to: pair[1], width: (width, width) }.area();
            whole = whole.with(area);
            let Some((rows, columns)) = self.samples(area) else { continue };
            for row in rows {
                let (range, x0, y0) = self.span(row, &columns);
                for (i, c) in ink[range].iter_mut().zip(&self.columns[columns.clone()]) {
                    let (u, v) = (x0 + c * dx - ax, y0 + c * dy - ay);
                    let t = ((u * bx + v * by) * inverse).clamp(0.0, 1.0);
                    let (du, dv) = (u - t * bx, v - t * by);
                    *i = i.max(bump((du * du + dv * dv) * inverse_square));
                }
            }
        }
        if let Some((rows, columns)) = self.samples(whole) {
            for row in rows {
                let (range, ..) = self.span(row, &columns);
                let planes = self.tissue[range.clone()].iter_mut().zip(&mut self.air[range.clone()]);
                for ((t, a), i) in planes.zip(&ink[range]) {
                    f(*i, t, a);
                }
            }
        }
        self.ink = ink;
    }
}

/// Points on a smooth curve through the given ones (Catmull-Rom), `pieces` per stretch.
pub(super) fn curve(points: &[(f32, f32)], pieces: usize) -> Vec<(f32, f32)> {
    let at =
        |i: usize, shift: isize| points[(i as isize + shift).clamp(0, points.len() as isize - 1) as usize];
    let mut out = vec![points[0]];
    for i in 0..points.len() - 1 {
        let (p0, p1, p2, p3) = (at(i, -1), at(i, 0), at(i, 1), at(i, 2));
        for piece in 1..=pieces {
            let t = piece as f32 / pieces as f32;
            let blend = |a: f32, b: f32, c: f32, d: f32| {
                let cubic = 3.0 * b - a - 3.0 * c + d;
                0.5 * (2.0 * b + (c - a) * t + (2.0 * a - 5.0 * b + 4.0 * c - d) * t * t + cubic * t * t * t)
            };
            out.push((blend(p0.0, p1.0, p2.0, p3.0), blend(p0.1, p1.1, p2.1, p3.1)));
        }
    }
    out
}
