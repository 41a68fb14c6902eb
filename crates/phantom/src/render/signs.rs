//! Findings on frontal pictures: fluid, air, opacities and broken ribs.
//! Deliberately absent: devices, and findings on lateral pictures.

use super::canvas::{Area, Canvas, Stroke, bump, mottle, step};
use super::frontal::Chest;
use crate::finding::{Amount, Density, Finding, Side, Sign, Size};

/// Paints all findings but devices and the size of the heart.
pub(super) fn paint(canvas: &mut Canvas, chest: &Chest, found: &[Sign]) {
    // Air first: what lies in the remaining lung is painted over it.
    for sign in found {
        if let Finding::Pneumothorax { side, size } = sign.finding {
            pneumothorax(canvas, chest, side, size, sign.shape);
        }
    }
    for sign in found {
        match sign.finding {
            Finding::Effusion { side: Some(sides), amount } => {
                for side in Side::ALL.into_iter().filter(|&s| sides.includes(s)) {
                    effusion(canvas, chest, side, amount, sign.shape);
                }
            }
            Finding::Consolidation { side: Some(side), zone, density } => {
                let at = chest.place(side, zone, 0.54 + 0.12 * sign.shape[0], sign.shape[1]);
                patch(canvas, at, density, sign.shape);
            }
            Finding::Nodule { side: Some(side), zone, size } => {
                let at = chest.place(side, zone, 0.56 + 0.18 * sign.shape[0], sign.shape[1]);
                nodule(canvas, at, size, sign.shape);
            }
            Finding::Fracture { side, zone } => {
                let at = chest.place(side, zone, 0.80, sign.shape[1]);
                fracture(canvas, chest, side, at, sign.shape);
            }
            _ => {}
        }
    }
}

/// Fluid with a surface that rises towards the ribs.
fn effusion(canvas: &mut Canvas, chest: &Chest, side: Side, amount: Amount, shape: [f32; 8]) {
    let left = side == Side::Left;
    let bottom = chest.diaphragm(left, 0.34);
    let (medial, rise) = match amount {
        Amount::Small => (0.10, 0.36),
        Amount::Moderate => (-0.14, 0.26),
        Amount::Large => (-0.58, 0.26),
    };
    let level = bottom + medial + 0.05 * (shape[0] - 0.5);
    let x = if left { (0.0, 0.95) } else { (-0.95, 0.0) };
    canvas.each(Area { x, y: (level - 0.5, 1.1) }, |x, y, tissue, air| {
        let u = x.abs() / chest.half_width(y).max(0.05);
        let fluid = step(y - level + rise * u * u, 0.035) * step(x.abs() - 0.04, 0.03);
        *air *= 1.0 - 0.97 * fluid;
        *tissue += 0.08 * fluid * step(1.05 - u, 0.08);
    });
}

/// Air outside the lung: a black rim without vessels, the edge of the lung as a fine line.
fn pneumothorax(canvas: &mut Canvas, chest: &Chest, side: Side, size: Size, shape: [f32; 8]) {
    let (depth, fall, inner) = match size {
        Size::Small => (0.15 + 0.03 * shape[0], 0.42, 0.95),
        Size::Large => (0.36 + 0.06 * shape[0], 0.10, 0.55),
    };
    let left = side == Side::Left;
    let x = if left { (0.0, 0.9) } else { (-0.9, 0.0) };
    let bottom = chest.diaphragm(left, 0.34);
    canvas.each(Area { x, y: (-0.95, 0.95) }, |x, y, tissue, air| {
        let ax = x.abs();
        let half = chest.half_width(y);
        let wall = (half - ax).min(0.8 * (y - chest.top(ax)));
        let down = ((y - chest.a.apex) / (bottom - chest.a.apex)).clamp(0.0, 1.0);
        let rim = depth * (1.0 - fall * down - fall * down * down);
        let outside = step(rim - wall, 0.012);
        let cage =
            step(wall - 0.01, 0.02) * step(chest.diaphragm(left, ax) - y, 0.016) * step(ax - 0.12, 0.02);
        let lung = *air * inner;
        *air = lung + outside * cage * (1.18 - lung);
        let edge = (wall - rim) / 0.022;
        *tissue += 0.13 * bump(edge * edge) * cage;
    });
}

/// A blotchy patch with a soft edge. A dense one shows the airways in it.
pub(super) fn patch(canvas: &mut Canvas, at: (f32, f32), density: Density, shape: [f32; 8]) {
    let (rx, ry) = (0.21 + 0.05 * shape[2], 0.16 + 0.04 * shape[3]);
    let strength = match density {
        Density::Mild => 0.50,
        Density::Dense => 0.95,
    };
    let phase = [shape[4], shape[5], shape[6]];
    canvas.each(Area::around(at, 1.6 * rx, 1.6 * ry), |x, y, tissue, air| {
        let (u, v) = ((x - at.0) / rx, (y - at.1) / ry);
        let ragged = 1.08 - (u * u + v * v).sqrt() + 0.24 * mottle(3.6 * x, 3.6 * y, phase);
        let m = strength * step(ragged, 0.42);
        *air *= 1.0 - m;
        *tissue += 0.05 * m;
    });
    if density == Density::Dense {
        for (i, turn) in [-0.5, 0.1, 0.6].into_iter().enumerate() {
            let outwards = at.0.signum();
            let from = (at.0 - outwards * 0.5 * rx, at.1 + 0.3 * ry * turn);
            let to = (at.0 + outwards * 0.5 * rx, at.1 + ry * (turn + 0.2 * shape[i]));
            let stroke = Stroke { from, to, width: (0.022, 0.012) };
            canvas.stroke(stroke, |s, _, air| *air = air.max(0.35 * s));
        }
    }
}

/// A solid ball.
pub(super) fn nodule(canvas: &mut Canvas, at: (f32, f32), size: Size, shape: [f32; 8]) {
    let r = match size {
        Size::Small => 0.082 + 0.014 * shape[2],
        Size::Large => 0.165 + 0.035 * shape[2],
    };
    let stretch = 0.88 + 0.24 * shape[3];
    canvas.each(Area::around(at, 1.3 * r, 1.4 * r), |x, y, tissue, air| {
        let (u, v) = ((x - at.0) / r, (y - at.1) / (r * stretch));
        let q = u * u + v * v;
        let lobes = 0.06 * mottle(9.0 * x, 9.0 * y, [shape[4], shape[5], shape[6]]);
        let m = step((1.0 + lobes - q.sqrt()) * r, 0.028);
        *air *= 1.0 - 0.72 * m;
        *tissue += m * 0.12 * (1.0 - q).max(0.0).sqrt();
    });
}

/// Two ends of a rib, apart and out of line, thickened, with blood beneath.
fn fracture(canvas: &mut Canvas, chest: &Chest, side: Side, at: (f32, f32), shape: [f32; 8]) {
    let out = side.direction();
    let ax = at.0.abs();
    let y = chest.rib_near(ax, at.1);
    let slope = (chest.rib_near(ax + 0.03, y) - y) / 0.03;
    let slope = slope.clamp(-0.3, 1.2);
    let lift = if shape[2] < 0.5 { 0.045 } else { -0.045 };
    canvas.each(Area::around((at.0, y), 0.17, 0.17), |x, v, tissue, _| {
        let (u, v) = (x - at.0, v - y);
        *tissue += 0.10 * bump((u * u + v * v) / 0.028);
    });
    let gap = Stroke { from: (at.0, y - 0.07), to: (at.0, y + 0.07), width: (0.05, 0.05) };
    canvas.stroke(gap, |s, tissue, _| *tissue -= 0.22 * s);
    for end in [-1.0, 1.0] {
        let point = |along: f32, off: f32| (at.0 + out * end * along, y + end * (along * slope + off));
        let stroke = Stroke { from: point(0.17, 0.0), to: point(0.045, lift), width: (0.036, 0.056) };
        canvas.stroke(stroke, |s, tissue, _| *tissue += 0.26 * step(s - 0.35, 0.30));
    }
}
