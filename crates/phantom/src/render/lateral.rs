//! Lateral pictures: the patient faces the left edge, both sides lie over each other.
//! Deliberately absent: findings that only a frontal picture shows.

use super::canvas::{Area, Canvas, Stroke, bump, mottle, nearest, step, wave};
use super::frontal::heart_ratio;
use super::signs;
use crate::anatomy::Anatomy;
use crate::finding::{Amount, Finding, Sign, Zone};

/// Paints a whole lateral chest.
pub(super) fn paint(canvas: &mut Canvas, anatomy: &Anatomy, found: &[Sign]) {
    let chest = Profile::new(anatomy, found);
    chest.paint_body(canvas);
    chest.paint_lungs(canvas);
    chest.paint_heart(canvas);
    for sign in found {
        chest.paint_sign(canvas, sign);
    }
    chest.paint_bones(canvas);
}

struct Profile<'a> {
    a: &'a Anatomy,
    dome: f32,
    depth: f32,
    heart: (f32, f32),
}

impl<'a> Profile<'a> {
    fn new(a: &'a Anatomy, found: &[Sign]) -> Self {
        let ratio = heart_ratio(found).unwrap_or(a.heart_ratio);
        Self {
            a,
            dome: 0.46 + 0.14 * a.inflation,
            depth: 0.92 * a.thorax + 0.04 * a.inflation,
            heart: (0.31 + 0.66 * (ratio - 0.44), 0.27 + 0.42 * (ratio - 0.44)),
        }
    }

    /// Inner surface of the front chest wall.
    #[inline(always)]
    fn front(&self, y: f32) -> f32 {
        let t = (y - 0.25) * 0.88;
        -self.depth * (1.0 - 0.62 * t * t).max(0.1)
    }

    /// Inner surface of the back.
    #[inline(always)]
    fn back(&self, y: f32) -> f32 {
        let t = (y + 0.02) * 0.95;
        (self.depth + 0.07) * (1.0 - 0.38 * t * t).max(0.1)
    }

    #[inline(always)]
    fn diaphragm(&self, x: f32) -> f32 {
        let d = x + 0.10;
        self.dome + 0.20 * d + 0.72 * d * d
    }

    fn paint_body(&self, canvas: &mut Canvas) {
        let phase = [self.a.mottle[0], self.a.mottle[1], self.a.mottle[2]];
        let wall = 0.08 + 0.6 * self.a.wall;
        canvas.each(Area::ALL, |x, y, tissue, _| {
            let neck = step(-0.74 - y, 0.2);
            let breast = 0.30 * self.a.breast * bump((y - 0.22) * (y - 0.22) / 0.20);
            let front = (self.front(y) - wall - breast) * (1.0 - neck) - 0.30 * neck;
            let back = (self.back(y) + 0.6 * wall) * (1.0 - neck) + 0.42 * neck;
            let (center, half) = (0.5 * (front + back), 0.5 * (back - front));
            let t = (x - center) / half;
            let t2 = t * t;
            let round = (1.0 - t2 * t2).max(0.0).sqrt() * step((1.0 - t2) * half, 0.03);
            let level = 0.86 + 0.10 * step(-0.35 - y, 0.25) + 0.12 * step(y - 0.45, 0.35);
            let arms = 0.35 * step(0.5 - (x + 0.25).abs(), 0.15) * step(-0.82 - y - 0.35 * x, 0.10);
            *tissue = (round * level).max(arms) * (1.0 + 0.04 * mottle(3.0 * x, 3.1 * y, phase));
        });
    }

    fn paint_lungs(&self, canvas: &mut Canvas) {
        canvas.each(Area { x: (-0.9, 0.9), y: (-0.95, 1.1) }, |x, y, tissue, air| {
            let top = self.a.apex + 1.1 * (x - 0.10) * (x - 0.10);
            let edge = step(x - self.front(y), 0.03) * step(self.back(y) - x, 0.03) * step(y - top, 0.07);
            let below = self.diaphragm(x) - y;
            let base = 0.80 * step(below, 0.016) + 0.20 * step(below + 0.06, 0.014);
            *air = edge * base * (0.84 + 0.12 * step(y + 0.25, 0.4));
            let windpipe = step(0.045 - (x - 0.11 - 0.06 * (y + 0.5)).abs(), 0.014) * step(-0.22 - y, 0.04);
            *tissue -= 0.12 * windpipe;
        });
        for v in &self.a.vessels {
            let mirror = if v.left { 1.0 } else { -0.8 };
            let at = |p: (f32, f32)| (0.08 + mirror * p.0, -0.06 + p.1);
            let stroke = Stroke { from: at(v.from), to: at(v.to), width: v.width };
            canvas.stroke(stroke, |s, _, air| *air *= 1.0 - 0.20 * s);
        }
        canvas.each(Area::around((0.08, -0.06), 0.17, 0.17), |x, y, _, air| {
            let (u, v) = ((x - 0.08) / 0.16, (y + 0.06) / 0.14);
            *air *= 1.0 - 0.45 * bump(u * u + v * v);
        });
    }

    fn paint_heart(&self, canvas: &mut Canvas) {
        let (rx, ry) = self.heart;
        let at = (-0.24, self.diaphragm(-0.24) - 0.62 * ry);
        canvas.each(Area::around(at, 1.2 * rx, 1.6 * ry + 0.4), |x, y, tissue, air| {
            let (u, v) = ((x - at.0) / rx, (y - at.1 - 0.15 * (x - at.0)) / ry);
            // The underside rests on the diaphragm and is not seen.
            let v = v.min(v * 0.62);
            let q = u * u + v * v;
            let heart = step((1.0 - q.sqrt()) * ry, 0.04);
            // The great vessels rise from the heart behind the clear space at the breastbone.
            let stem = step(0.13 - (x - at.0 - 0.16 - 0.30 * (at.1 - ry - y)).abs(), 0.06)
                * step(y + 0.40, 0.15)
                * step(at.1 - y, 0.05);
            *tissue += *air * 0.10 * heart * (1.0 - 0.6 * q).max(0.0);
            *air *= 1.0 - (0.86 * heart).max(0.50 * stem);
        });
    }

    fn paint_sign(&self, canvas: &mut Canvas, sign: &Sign) {
        let s = sign.shape;
        let place = |zone: Zone| {
            let (x, down) = match zone {
                Zone::Upper => (0.10, 0.24),
                Zone::Mid => (0.24, 0.52),
                Zone::Lower => (0.30, 0.84),
            };
            let down = down + 0.08 * (s[1] - 0.5);
            (x + 0.12 * (s[0] - 0.5), self.a.apex + down * (self.dome - self.a.apex))
        };
        match sign.finding {
            Finding::Consolidation { zone, density, .. } => signs::patch(canvas, place(zone), density, s),
            Finding::Nodule { zone, size, .. } => signs::nodule(canvas, place(zone), size, s),
            Finding::Effusion { amount, .. } => {
                let level = self.dome
                    + match amount {
                        Amount::Small => 0.22,
                        Amount::Moderate => -0.06,
                        Amount::Large => -0.48,
                    };
                canvas.each(Area { x: (-0.9, 0.9), y: (level - 0.5, 1.1) }, |x, y, tissue, air| {
                    let surface = level - 0.35 * x.max(0.0) * x.max(0.0) - 0.15 * x * x;
                    let fluid = step(y - surface, 0.035);
                    *air *= 1.0 - 0.96 * fluid;
                    *tissue += 0.05 * fluid * step(*tissue, 0.3);
                });
            }
            _ => {}
        }
    }

    fn paint_bones(&self, canvas: &mut Canvas) {
        let a = self.a;
        canvas.each(Area::ALL, |x, y, tissue, _| {
            let inside = step(*tissue - 0.25, 0.1);
            let spine = self.back(y) - 0.21;
            let half = 0.085 + 0.015 * y;
            let across = (x - spine).abs();
            let disc = step(wave((y + 0.15 * (x - spine)) / (0.135 + 0.02 * y) + a.mottle[3]) + 0.55, 0.25);
            let rim = 0.6 + 0.4 * bump((across - half) * (across - half) / 0.0009);
            let vertebra = step(half - across, 0.012)
                * (0.05 + 0.15 * disc * rim)
                * (1.0 - 0.6 * step(y - self.diaphragm(x), 0.1));
            let plate = step(0.028 - (x - self.front(y) + 0.035).abs(), 0.012)
                * step(y + 0.52, 0.05)
                * step(0.16 - y, 0.05);
            let q = (y + 0.62 * x - a.rib_start + 0.12) / a.rib_spacing;
            let d = (q - nearest(q)) * a.rib_spacing;
            let ribs = step(a.rib_width - d.abs(), 0.015)
                * step(x - self.front(y), 0.05)
                * step(self.back(y) + 0.05 - x, 0.03)
                * step(self.diaphragm(x) + 0.05 - y, 0.10)
                * step(y + 0.72, 0.1);
            *tissue += inside * a.bone * (vertebra + 0.10 * plate + 0.05 * ribs);
        });
    }
}
