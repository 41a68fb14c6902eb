//! The imagined patient and the exposure: everything about a picture that is not a finding.
//! Lengths are in half picture widths: the picture spans -1 to 1 in both directions, y downwards.
//! Deliberately absent: pixels.

use crate::draw::Draw;
use crate::finding::Side;

/// Projection of the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum View {
    /// Standing, X-rays from behind.
    Pa,
    /// In bed, X-rays from the front: larger heart, higher diaphragm, shoulder blades over the lungs.
    Ap,
    /// From the side, facing the left edge.
    Lateral,
}

impl View {
    /// `PA`, `AP` or `LATERAL`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pa => "PA",
            Self::Ap => "AP",
            Self::Lateral => "LATERAL",
        }
    }
}

/// Sex of the patient; decides on breast shadows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Sex {
    Female,
    Male,
}

impl Sex {
    /// `F` or `M`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Female => "F",
            Self::Male => "M",
        }
    }
}

/// A visible property that is no finding but that reports name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Trait {
    /// High diaphragm.
    LowVolumes,
    /// Low, flat diaphragm.
    Hyperinflated,
    /// A spine curved towards a side.
    Scoliosis(Side),
    /// Turned towards a side.
    Rotated(Side),
    /// Too little exposure: a pale picture.
    Underexposed,
    /// Too much exposure: a dark picture.
    Overexposed,
    /// One half of the diaphragm stands high.
    ElevatedDiaphragm(Side),
}

impl Trait {
    /// The attribute value, such as `scoliosis.left`.
    pub fn label(self) -> String {
        match self {
            Self::LowVolumes => "low_volumes".to_owned(),
            Self::Hyperinflated => "hyperinflated".to_owned(),
            Self::Scoliosis(side) => format!("scoliosis.{}", side.as_str()),
            Self::Rotated(side) => format!("rotated.{}", side.as_str()),
            Self::Underexposed => "underexposed".to_owned(),
            Self::Overexposed => "overexposed".to_owned(),
            Self::ElevatedDiaphragm(side) => format!("elevated_diaphragm.{}", side.as_str()),
        }
    }
}

/// The imagined patient and the exposure.
#[derive(Debug, Clone, PartialEq)]
pub struct Anatomy {
    pub(crate) view: View,
    pub(crate) sex: Sex,
    pub(crate) age: u32,
    /// Half the inner width of the rib cage.
    pub(crate) thorax: f32,
    /// Thickness of the chest wall at the sides.
    pub(crate) wall: f32,
    /// Upper end of the lungs.
    pub(crate) apex: f32,
    /// -1 for low lung volumes to 1 for hyperinflation.
    pub(crate) inflation: f32,
    /// Heart width over the inner width of the rib cage.
    pub(crate) heart_ratio: f32,
    pub(crate) heart_tilt: f32,
    pub(crate) aorta: f32,
    /// -1 to 1, towards the patient's left; 0 for a straight picture.
    pub(crate) rotation: f32,
    /// Sideways bend of the spine, towards the patient's left.
    pub(crate) scoliosis: f32,
    /// How far the diaphragm is raised, per side: right, left.
    pub(crate) elevation: [f32; 2],
    pub(crate) rib_spacing: f32,
    pub(crate) rib_start: f32,
    pub(crate) rib_slope: f32,
    pub(crate) rib_width: f32,
    pub(crate) bone: f32,
    pub(crate) clavicle: f32,
    /// Radius of breast shadows, 0 for none.
    pub(crate) breast: f32,
    /// Radius of the gas bubble in the stomach, 0 for none.
    pub(crate) bubble: f32,
    pub(crate) vessels: Vec<Vessel>,
    pub(crate) mottle: [f32; 6],
    /// Displacement, zoom and tilt (radians) of the patient in the picture.
    pub(crate) offset: (f32, f32),
    pub(crate) zoom: f32,
    pub(crate) tilt: f32,
    /// Added to the brightness: positive is underexposed.
    pub(crate) exposure: f32,
    pub(crate) contrast: f32,
    /// Standard deviation of the grain at 256 pixels, of a full scale of 1.
    pub(crate) noise: f32,
    pub(crate) grain: u32,
}

/// A piece of a lung vessel, relative to its hilum and pointing away from the midline.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Vessel {
    pub(crate) left: bool,
    pub(crate) from: (f32, f32),
    pub(crate) to: (f32, f32),
    pub(crate) width: (f32, f32),
}

impl Anatomy {
    pub(crate) fn draw(draw: &mut Draw) -> Self {
        let view = match draw.unit() {
            u if u < 0.54 => View::Pa,
            u if u < 0.92 => View::Ap,
            _ => View::Lateral,
        };
        let sex = if draw.chance(0.5) { Sex::Female } else { Sex::Male };
        let inflation = match draw.unit() {
            u if u < 0.15 => draw.range(-1.0, -0.75),
            u if u < 0.30 => draw.range(0.75, 1.0),
            _ => draw.range(-0.3, 0.3),
        };
        let exposure = match draw.unit() {
            u if u < 0.10 => draw.range(0.10, 0.14),
            u if u < 0.18 => draw.range(-0.14, -0.10),
            _ => draw.range(-0.035, 0.035),
        };
        let frontal = view != View::Lateral;
        let rotation = if frontal && draw.chance(0.15) { draw.sign() * draw.range(0.75, 1.0) } else { 0.0 };
        let scoliosis = if frontal && draw.chance(0.12) { draw.sign() * draw.range(0.09, 0.13) } else { 0.0 };
        let mut elevation = [0.0; 2];
        if frontal && draw.chance(0.08) {
            elevation[draw.below(2)] = draw.range(0.16, 0.21);
        }
        let heavy = draw.unit();
        Self {
            view,
            sex,
            age: 20 + draw.below(71) as u32,
            thorax: draw.range(0.66, 0.76) - 0.03 * heavy,
            wall: 0.10 + 0.24 * heavy * heavy + draw.range(0.0, 0.04),
            apex: draw.range(-0.80, -0.72),
            inflation,
            heart_ratio: draw.range(0.41, 0.47),
            heart_tilt: draw.range(0.22, 0.42),
            aorta: draw.range(0.07, 0.095),
            rotation,
            scoliosis,
            elevation,
            rib_spacing: draw.range(0.135, 0.155) * (1.0 + 0.06 * inflation),
            rib_start: draw.range(-0.78, -0.70),
            rib_slope: draw.range(0.85, 1.15),
            rib_width: draw.range(0.026, 0.033),
            bone: draw.range(0.8, 1.15),
            clavicle: draw.range(-0.04, 0.04),
            breast: if sex == Sex::Female { draw.range(0.27, 0.40) } else { 0.0 },
            bubble: if draw.chance(0.65) { draw.range(0.06, 0.12) } else { 0.0 },
            vessels: draw_vessels(draw),
            mottle: std::array::from_fn(|_| draw.unit()),
            offset: (draw.range(-0.05, 0.05), draw.range(-0.04, 0.04)),
            zoom: draw.range(0.95, 1.07),
            tilt: draw.range(-0.05, 0.05),
            exposure,
            contrast: draw.range(0.92, 1.08),
            noise: draw.range(0.012, 0.035),
            grain: draw.bits(),
        }
    }

    /// Projection.
    pub fn view(&self) -> View {
        self.view
    }

    /// Sex of the patient.
    pub fn sex(&self) -> Sex {
        self.sex
    }

    /// Age of the patient in years.
    pub fn age(&self) -> u32 {
        self.age
    }

    /// What a report may name besides findings, in a fixed order.
    pub fn traits(&self) -> Vec<Trait> {
        let side = |v: f32| if v > 0.0 { Side::Left } else { Side::Right };
        let raised =
            |i: usize, side: Side| (self.elevation[i] > 0.0).then_some(Trait::ElevatedDiaphragm(side));
        [
            (self.inflation <= -0.75).then_some(Trait::LowVolumes),
            (self.inflation >= 0.75).then_some(Trait::Hyperinflated),
            (self.scoliosis != 0.0).then(|| Trait::Scoliosis(side(self.scoliosis))),
            (self.rotation != 0.0).then(|| Trait::Rotated(side(self.rotation))),
            (self.exposure >= 0.10).then_some(Trait::Underexposed),
            (self.exposure <= -0.10).then_some(Trait::Overexposed),
            raised(0, Side::Right),
            raised(1, Side::Left),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// Two trees of branching vessels. Directions are drawn as points and normalised, so that no sine is
/// needed.
fn draw_vessels(draw: &mut Draw) -> Vec<Vessel> {
    let mut vessels = Vec::with_capacity(60);
    for left in [false, true] {
        for branch in 0..8 {
            let climb = -1.0 + 2.0 * (branch as f32 + draw.range(0.1, 0.9)) / 8.0;
            let direction = unit((draw.range(0.35, 1.0), climb * 1.5));
            let reach = draw.range(0.14, 0.24);
            let width = draw.range(0.016, 0.025);
            let fork = (direction.0 * reach, direction.1 * reach);
            vessels.push(Vessel { left, from: (0.0, 0.0), to: fork, width: (width * 1.2, width * 0.8) });
            for turn in [-0.45, 0.40] {
                let turned = unit((
                    direction.0 - turn * direction.1 + draw.range(-0.2, 0.2),
                    direction.1 + turn * direction.0 + draw.range(-0.2, 0.2),
                ));
                let reach = draw.range(0.14, 0.30);
                let to = (fork.0 + turned.0 * reach, fork.1 + turned.1 * reach);
                vessels.push(Vessel { left, from: fork, to, width: (width * 0.75, width * 0.35) });
            }
        }
    }
    vessels
}

fn unit((x, y): (f32, f32)) -> (f32, f32) {
    let norm = (x * x + y * y).sqrt().max(1e-6);
    (x / norm, y / norm)
}
