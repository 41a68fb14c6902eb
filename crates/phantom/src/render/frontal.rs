//! Frontal pictures: body, lungs, mediastinum, heart, ribs and shoulders. The patient's left is at
//! positive x.
//! Deliberately absent: findings other than the size of the heart, and devices.

use super::canvas::{Area, Canvas, Stroke, bump, curve, mottle, nearest, step, wave};
use super::{devices, signs};
use crate::anatomy::{Anatomy, View};
use crate::finding::{Amount, Finding, Severity, Side, Sides, Sign, Size, Zone};

/// Paints a whole frontal chest.
pub(super) fn paint(canvas: &mut Canvas, anatomy: &Anatomy, found: &[Sign]) {
    let chest = Chest::new(anatomy, found);
    chest.paint_body(canvas);
    chest.paint_lungs(canvas);
    chest.paint_vessels(canvas);
    chest.paint_mediastinum(canvas);
    chest.paint_abdomen(canvas);
    signs::paint(canvas, &chest, found);
    chest.paint_ribs(canvas);
    chest.paint_shoulders(canvas);
    devices::paint(canvas, &chest, found);
}

/// Lengths that several shapes share.
pub(super) struct Chest<'a> {
    pub(super) a: &'a Anatomy,
    /// Where the mediastinum lies: rotation and displacement by findings.
    pub(super) middle: f32,
    pub(super) trachea: f32,
    /// Top of the diaphragm's domes: right, left.
    dome: [f32; 2],
    dome_curve: f32,
    /// Half the width of the heart's shadow, and half its height.
    heart: (f32, f32),
    heart_center: (f32, f32),
}

impl<'a> Chest<'a> {
    fn new(a: &'a Anatomy, found: &[Sign]) -> Self {
        let portable = if a.view == View::Ap { 1.0 } else { 0.0 };
        let push = displacement(found);
        let middle = 0.055 * a.rotation + 0.09 * push;
        let dome = 0.47 + 0.15 * a.inflation - 0.05 * portable;
        let dome = [dome - a.elevation[0], dome + 0.045 - a.elevation[1]];
        let ratio =
            heart_ratio(found).unwrap_or(a.heart_ratio + 0.02 * portable - 0.02 * a.inflation.max(0.0));
        let width = ratio * a.thorax;
        let height = 0.25 + 0.22 * (ratio - 0.44) + 0.03 * a.inflation;
        let center = (middle + 0.17 * width, dome[1].min(dome[0] + 0.1) - height * 0.60);
        Self {
            a,
            middle,
            trachea: -0.02 + 0.05 * a.rotation + 0.05 * push,
            dome,
            dome_curve: 1.05 - 0.55 * a.inflation.max(0.0) + 0.2 * portable,
            heart: (width, height),
            heart_center: center,
        }
    }

    /// Sideways position of the spine.
    #[inline(always)]
    pub(super) fn spine(&self, y: f32) -> f32 {
        let t = (y - 0.05) * 1.5;
        self.a.scoliosis * (1.0 - t * t).max(-0.6) + 0.02 * self.a.rotation
    }

    /// Half the inner width of the rib cage at a height.
    #[inline(always)]
    pub(super) fn half_width(&self, y: f32) -> f32 {
        let up = (0.34 - y).max(0.0) / (0.40 - self.a.apex);
        let down = (y - 0.34).max(0.0) * 0.35;
        self.a.thorax * ((1.0 - up * up).max(0.0).sqrt() - down * down)
    }

    /// Upper end of the lung at a distance from the midline.
    #[inline(always)]
    pub(super) fn top(&self, ax: f32) -> f32 {
        let d = ax - 0.27;
        self.a.apex + 1.5 * d * d
    }

    /// The diaphragm at a distance from the midline.
    #[inline(always)]
    pub(super) fn diaphragm(&self, left: bool, ax: f32) -> f32 {
        let d = ax - 0.34;
        let outwards = d.max(0.0);
        self.dome[usize::from(left)] + self.dome_curve * (0.75 * d * d + 1.9 * outwards * outwards)
    }

    /// A place in the lung: `across` from 0 at the midline to 1 at the ribs.
    pub(super) fn place(&self, side: Side, zone: Zone, across: f32, jitter: f32) -> (f32, f32) {
        let bottom = self.diaphragm(side == Side::Left, 0.4);
        let down = match zone {
            Zone::Upper => 0.20,
            Zone::Mid => 0.50,
            Zone::Lower => 0.80,
        } + 0.09 * (jitter - 0.5);
        let y = self.a.apex + down * (bottom - self.a.apex);
        (side.direction() * across * self.half_width(y), y)
    }

    /// Height of the posterior rib that is nearest to a place.
    pub(super) fn rib_near(&self, ax: f32, y: f32) -> f32 {
        let (start, spacing) = self.posterior_rib(ax);
        start + nearest((y - start) / spacing).clamp(0.0, 9.0) * spacing
    }

    /// First posterior rib at a distance from the midline, and the distance to the next.
    #[inline(always)]
    fn posterior_rib(&self, ax: f32) -> (f32, f32) {
        let u = ax / self.a.thorax;
        let fall = self.a.rib_slope * (-0.16 * u + 0.42 * u * u);
        (self.a.rib_start + fall, self.a.rib_spacing * (1.0 + 0.10 * u))
    }

    fn paint_body(&self, canvas: &mut Canvas) {
        let a = self.a;
        let phase = [a.mottle[0], a.mottle[1], a.mottle[2]];
        let dense = 0.90 + 0.25 * (a.wall - 0.2);
        canvas.each(Area::ALL, |x, y, tissue, _| {
            let ax = x.abs();
            let shoulder = step(-0.36 - y, 0.26);
            let torso = a.thorax + a.wall - 0.10 * step(y + 0.1, 0.9) + 0.04;
            let width = torso + 0.42 * shoulder;
            let d = (ax - 0.17).max(0.0);
            let inside = step(width - ax, 0.03)
                .min(step(y + 1.06 - 0.42 * d - 0.15 * d * d, 0.04).max(step(0.24 - ax, 0.04)));
            let t = ax / width;
            let t2 = t * t;
            let round = (1.0 - t2 * t2).max(0.0).sqrt();
            let level = 0.70 + 0.22 * step(y + 0.55, 0.30) + 0.10 * step(y - 0.35, 0.35);
            *tissue = inside * round * level * dense * (1.0 + 0.035 * mottle(3.1 * x, 3.3 * y, phase));
            if a.breast > 0.0 {
                let (u, v) = (ax - 0.43, y - 0.16);
                let q = (u * u + v * v * 1.15) / (a.breast * a.breast);
                // A breast ends sharply below and fades above.
                *tissue += 0.20 * step(1.0 - q, 0.22) * (0.35 + 0.65 * step(v + 0.10, 0.22));
            }
        });
    }

    fn paint_lungs(&self, canvas: &mut Canvas) {
        let area = Area { x: (-0.85, 0.85), y: (-0.95, 0.95) };
        let turn = 0.06 * self.a.rotation;
        canvas.each(area, |x, y, _, air| {
            let x = x - 0.5 * self.spine(y);
            let ax = x.abs();
            let half = self.half_width(y);
            let t = ax / half.max(0.05);
            let depth = 0.66 + 0.34 * (1.0 - t * t).max(0.0).sqrt();
            let below = self.diaphragm(x > 0.0, ax) - y;
            let base = step(below, 0.016) * 0.84 + step(below + 0.08, 0.10) * 0.16;
            let edge = step(half - ax - 0.01, 0.022) * step(y - self.top(ax), 0.05) * step(ax - 0.05, 0.035);
            let turned = if x > 0.0 { 1.0 + turn } else { 1.0 - turn };
            *air =
                edge * base * depth * turned * (0.90 + 0.07 * self.a.inflation + 0.10 * step(y + 0.3, 0.5));
        });
    }

    fn paint_vessels(&self, canvas: &mut Canvas) {
        for v in &self.a.vessels {
            let mirror = if v.left { 1.0 } else { -1.0 };
            let hilum = (self.middle + mirror * 0.15, if v.left { -0.10 } else { -0.06 });
            let at = |p: (f32, f32)| (hilum.0 + mirror * p.0, hilum.1 + p.1);
            let stroke = Stroke { from: at(v.from), to: at(v.to), width: v.width };
            canvas.stroke(stroke, |s, _, air| *air *= 1.0 - 0.38 * s);
        }
        for mirror in [-1.0, 1.0] {
            let hilum = (self.middle + mirror * 0.165, -0.08 - 0.02 * mirror);
            canvas.each(Area::around(hilum, 0.13, 0.17), |x, y, _, air| {
                let (u, v) = ((x - hilum.0) / 0.12, (y - hilum.1) / 0.16);
                *air *= 1.0 - 0.55 * bump(u * u + v * v);
            });
        }
    }

    fn paint_mediastinum(&self, canvas: &mut Canvas) {
        let (rx, ry) = self.heart;
        let (hx, hy) = self.heart_center;
        let (tilt, knob) = (self.a.heart_tilt, self.a.aorta);
        canvas.each(Area { x: (-0.95, 0.95), y: (-1.2, 1.0) }, |x, y, tissue, air| {
            let u = (x - hx) / rx;
            let v = (y - hy - tilt * (x - hx)) / ry;
            // The underside rests on the diaphragm and is not seen.
            let v = v.min(v * 0.62);
            let q = u * u + v * v;
            let heart = step((1.0 - q.sqrt()) * rx, 0.020);
            let narrow = x - self.middle;
            let band = 0.105 + 0.03 * step(-0.5 - y, 0.3) + 0.05 * step(y - 0.0, 0.3);
            let center = step(band - narrow.abs(), 0.022) * step(0.9 - y, 0.1);
            // The aortic knob and the pulmonary trunk on the left, the atrium on the right.
            let round = |cx: f32, cy: f32, r: f32| {
                let (u, v) = (narrow - cx, y - cy);
                step(r - (u * u + v * v).sqrt(), 0.020)
            };
            let bulges =
                round(0.075, -0.36, knob).max(round(0.085, -0.16, 0.085)).max(round(-0.08, hy - 0.08, 0.13));
            let solid = heart.max(center).max(bulges);
            *tissue += *air * (0.11 * heart * (1.0 - 0.6 * q).max(0.0) + 0.03 * solid);
            *air *= 1.0 - 0.94 * solid;
            let xs = x - self.spine(y);
            let disc = wave(y / 0.125 + self.a.mottle[3]);
            let body = step(0.085 - xs.abs(), 0.02) * (0.06 + 0.03 * disc);
            let process = bump(xs * xs / 0.0006) * 0.05 * step(disc, 0.6);
            let windpipe = (x - self.trachea - 0.02 * (y + 0.3)).abs();
            let trachea = step(0.044 - windpipe, 0.014) * step(-0.27 - y, 0.05);
            *tissue += (body + process) * self.a.bone * step(*tissue, 0.2) - 0.17 * trachea;
        });
        for side in [-1.0, 1.0] {
            let from = (self.trachea, -0.28);
            let to = (self.trachea + side * 0.15, -0.13);
            canvas.stroke(Stroke { from, to, width: (0.036, 0.026) }, |s, tissue, _| *tissue -= 0.10 * s);
        }
    }

    /// Gas in the stomach and the bowel.
    fn paint_abdomen(&self, canvas: &mut Canvas) {
        let r = self.a.bubble;
        if r > 0.0 {
            let at = (0.30 + 0.3 * r, self.diaphragm(true, 0.3) + 0.06 + r);
            canvas.each(Area::around(at, 2.0 * r, 1.2 * r), |x, y, tissue, _| {
                let (u, v) = ((x - at.0) / (1.6 * r), (y - at.1) / r);
                *tissue -= 0.30 * step(1.0 - (u * u + v * v).sqrt(), 0.12);
            });
        }
        let phase = [self.a.mottle[3], self.a.mottle[4], self.a.mottle[5]];
        let at = (0.50, 0.95);
        canvas.each(Area::around(at, 0.5, 0.2), |x, y, tissue, _| {
            let (u, v) = ((x - at.0) / 0.3, (y - at.1) / 0.12);
            *tissue -= 0.16 * bump(u * u + v * v) * (0.5 + mottle(6.0 * x, 7.0 * y, phase)).max(0.0);
        });
    }

    fn paint_ribs(&self, canvas: &mut Canvas) {
        let a = self.a;
        let (w, gain) = (a.rib_width, 0.135 * a.bone);
        canvas.each(Area { x: (-0.9, 0.9), y: (-0.95, 0.95) }, |x, y, tissue, _| {
            let x = x - 0.6 * self.spine(y);
            let ax = x.abs();
            let cage = self.half_width(y) + 0.035;
            let inside = step(cage - ax, 0.02) * step(ax - 0.06, 0.02) * step(0.86 - y, 0.1);
            let (start, spacing) = self.posterior_rib(ax);
            let q = (y - start) / spacing;
            let k = nearest(q).clamp(0.0, 10.0);
            let back = hollow((q - k) * spacing, w) * (1.0 - 0.055 * k);
            let u = ax / a.thorax;
            let start = a.rib_start + 0.17 + 0.36 * a.rib_slope * (1.0 - u) - 0.10 * u;
            let spacing = a.rib_spacing * 1.12;
            let q = (y - start) / spacing;
            let k = nearest(q).clamp(0.0, 6.0);
            let front = hollow((q - k) * spacing, w * 1.15) * step(u - 0.42, 0.10);
            // Seen along its bend at the side, a rib is dense.
            let bend = 1.0 + 0.8 * step(ax - cage + 0.09, 0.07);
            let seen = 1.0 - 0.6 * step(y - self.diaphragm(x > 0.0, ax), 0.03);
            *tissue += inside * gain * bend * seen * (back + 0.45 * front);
        });
    }

    fn paint_shoulders(&self, canvas: &mut Canvas) {
        let portable = self.a.view == View::Ap;
        let (blade, rise) = if portable { (0.50, 0.10) } else { (0.68, 0.0) };
        for side in [-1.0, 1.0] {
            let area = Area { x: (side * 0.75 - 0.40, side * 0.75 + 0.40), y: (-0.85, 0.25) };
            canvas.each(area, |x, y, tissue, _| {
                let u = side * x - blade;
                let medial = u - 0.10 * (y + 0.5);
                let lateral = 0.42 - u - 0.55 * (y + 0.55);
                let inside = step(medial, 0.02) * step(lateral, 0.03) * step(y + 0.66, 0.05);
                let rim = bump(medial * medial / 0.0009) * step(lateral, 0.03) * step(y + 0.6, 0.05);
                let (p, q) = (side * x - 0.99, y + 0.62);
                let head = step(0.145 - (p * p + q * q).sqrt(), 0.02);
                *tissue += (0.055 * inside + 0.07 * rim + 0.17 * head) * self.a.bone;
            });
            let turned = 0.03 * self.a.rotation;
            let y = -0.53 - rise + self.a.clavicle;
            let points = [
                (0.075 * side + turned, y + 0.02),
                (0.28 * side + turned, y - 0.035),
                (0.55 * side, y - 0.06),
                (0.84 * side, y - 0.15),
            ];
            let gain = 0.15 * self.a.bone;
            canvas.line(&curve(&points, 4), 0.044, |s, tissue, _| {
                // Dense walls around a lighter middle.
                *tissue += gain * step(s - 0.25, 0.20) * (1.15 - 0.45 * s);
            });
        }
    }
}

/// A tube seen from outside: its walls are denser than its middle.
#[inline(always)]
fn hollow(d: f32, w: f32) -> f32 {
    let t = d * d / (w * w);
    step((1.0 - t) * w, 0.014) * (0.62 + 0.55 * t.min(1.0))
}

/// Heart width over chest width that a finding demands.
pub(super) fn heart_ratio(found: &[Sign]) -> Option<f32> {
    found.iter().find_map(|s| match s.finding {
        Finding::Cardiomegaly { severity } => Some(
            match severity {
                Severity::Mild => 0.56,
                Severity::Moderate => 0.66,
                Severity::Severe => 0.77,
            } + 0.03 * (s.shape[0] - 0.5),
        ),
        _ => None,
    })
}

/// Where findings push the mediastinum: -1 to 1, towards the patient's left.
fn displacement(found: &[Sign]) -> f32 {
    found
        .iter()
        .map(|s| match s.finding {
            Finding::Effusion { side: Some(Sides::Left), amount: Amount::Large } => -1.0,
            Finding::Effusion { side: Some(Sides::Right), amount: Amount::Large } => 1.0,
            Finding::Pneumothorax { side, size: Size::Large } => -side.direction(),
            _ => 0.0,
        })
        .sum::<f32>()
        .clamp(-1.0, 1.0)
}
