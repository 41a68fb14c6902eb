//! Lines, tubes and devices on frontal pictures.
//! Deliberately absent: everything that belongs to the body.

use super::canvas::{Area, Canvas, curve, step};
use super::frontal::Chest;
use crate::finding::{Finding, Line, Side, Sign};

/// Paints all devices.
pub(super) fn paint(canvas: &mut Canvas, chest: &Chest, found: &[Sign]) {
    for sign in found {
        let Finding::Line(line) = sign.finding else { continue };
        let s = sign.shape;
        match line {
            Line::Endotracheal => {
                let x = chest.trachea;
                wire(canvas, &[(x - 0.02, -1.2), (x, -0.8), (x, -0.47 + 0.08 * s[0])], 0.030, 0.42);
            }
            Line::Nasogastric => {
                let below = chest.diaphragm(true, 0.3) + 0.10 + 0.08 * s[0];
                let x = chest.middle + 0.03;
                let tip = (0.34 + 0.12 * s[1], below + 0.05);
                wire(
                    canvas,
                    &[
                        (x, -1.2),
                        (x + 0.01, -0.5),
                        (x, 0.1),
                        (x + 0.08, below - 0.12),
                        (x + 0.19, below + 0.03),
                        tip,
                    ],
                    0.026,
                    0.40,
                );
            }
            Line::CentralVenous(side) => central_line(canvas, chest, side, s),
            Line::Pacemaker(side) => pacemaker(canvas, chest, side, s),
            Line::ChestTube(side) => {
                let out = side.direction();
                let half = chest.half_width(0.25);
                let points = [
                    (out * (half + 0.30), 0.42 + 0.08 * s[0]),
                    (out * (half - 0.03), 0.26),
                    (out * (half - 0.14), -0.05),
                    (out * (0.36 + 0.08 * s[1]), -0.42),
                    (out * 0.26, -0.58),
                ];
                wire(canvas, &points, 0.042, 0.34);
            }
        }
    }
}

fn central_line(canvas: &mut Canvas, chest: &Chest, side: Side, s: [f32; 8]) {
    let out = side.direction();
    let m = chest.middle;
    let tip = (m - 0.10, 0.0 + 0.10 * s[0]);
    let cava = (m - 0.105, -0.25);
    let start = if s[1] < 0.5 {
        vec![(out * 0.22, -1.2), (out * 0.19, -0.82), (out * 0.14, -0.58)]
    } else {
        vec![(out * 0.80, -0.52), (out * 0.50, -0.62), (out * 0.20, -0.54)]
    };
    let mut points = start;
    if side == Side::Left {
        // From the left it has to cross the midline first.
        points.push((m + 0.02, -0.46));
    }
    points.extend([cava, tip]);
    wire(canvas, &points, 0.026, 0.40);
}

fn pacemaker(canvas: &mut Canvas, chest: &Chest, side: Side, s: [f32; 8]) {
    let out = side.direction();
    let m = chest.middle;
    let at = (out * (0.54 + 0.06 * s[0]), -0.46 + 0.08 * s[1]);
    let lead = [
        at,
        (out * 0.30, -0.60),
        (m + out * 0.06, -0.48),
        (m - 0.10, -0.25),
        (m - 0.09, 0.10),
        (m + 0.05, 0.30),
        (m + 0.24, 0.34),
    ];
    wire(canvas, &lead, 0.022, 0.38);
    canvas.each(Area::around(at, 0.16, 0.14), |x, y, tissue, _| {
        let (u, v) = ((x - at.0).abs() - 0.075, (y - at.1).abs() - 0.050);
        let (p, q) = (u.max(0.0), v.max(0.0));
        let can = step(0.05 - (p * p + q * q).sqrt(), 0.012);
        *tissue += 0.75 * can;
    });
}

/// A radiopaque line through some points.
fn wire(canvas: &mut Canvas, points: &[(f32, f32)], width: f32, gain: f32) {
    canvas.line(&curve(points, 5), width, |s, tissue, air| {
        *air *= 1.0 - 0.25 * s;
        *tissue += gain * s;
    });
}
