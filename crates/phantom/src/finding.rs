//! The findings a phantom can show, their labels, and which of them occur together.
//! Deliberately absent: how a finding looks (`render`) and how it is worded (`report`).

use crate::anatomy::View;
use crate::draw::Draw;

/// A side of the patient. The patient's left is on the right of a frontal picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Side {
    Left,
    Right,
}

/// One side or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Sides {
    Left,
    Right,
    Both,
}

/// A third of the lung, from top to bottom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Zone {
    Upper,
    Mid,
    Lower,
}

/// How much fluid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Amount {
    Small,
    Moderate,
    Large,
}

/// How large a nodule or a pneumothorax is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Size {
    Small,
    Large,
}

/// How far a heart is enlarged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Severity {
    Mild,
    Moderate,
    Severe,
}

/// How opaque a consolidation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Density {
    Mild,
    Dense,
}

/// A line, tube or device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Line {
    /// In the trachea, tip above the carina.
    Endotracheal,
    /// From the neck or shoulder of a side to the superior vena cava.
    CentralVenous(Side),
    /// A generator in the chest wall of a side, with a lead to the heart.
    Pacemaker(Side),
    /// From the lower chest wall of a side towards its apex.
    ChestTube(Side),
    /// Down the oesophagus into the stomach.
    Nasogastric,
}

/// One thing a picture shows and its report names. On lateral pictures both sides lie over each
/// other: there `side` is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Finding {
    /// Fluid around the lung.
    Effusion { side: Option<Sides>, amount: Amount },
    /// Air around the lung.
    Pneumothorax { side: Side, size: Size },
    /// An enlarged heart.
    Cardiomegaly { severity: Severity },
    /// A patch of lung without air.
    Consolidation { side: Option<Side>, zone: Zone, density: Density },
    /// A round opacity.
    Nodule { side: Option<Side>, zone: Zone, size: Size },
    /// A line, tube or device.
    Line(Line),
    /// A broken rib.
    Fracture { side: Side, zone: Zone },
}

/// A finding with its exact place and shape: eight numbers in `[0, 1)` that the renderer reads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sign {
    /// What it is.
    pub finding: Finding,
    pub(crate) shape: [f32; 8],
}

impl Sign {
    /// A finding at the middle of its range of places and shapes.
    pub fn typical(finding: Finding) -> Self {
        Self { finding, shape: [0.5; 8] }
    }
}

impl Side {
    /// Both sides.
    pub const ALL: [Self; 2] = [Self::Left, Self::Right];

    /// Direction on a frontal picture: +1 towards its right edge.
    pub(crate) fn direction(self) -> f32 {
        match self {
            Self::Left => 1.0,
            Self::Right => -1.0,
        }
    }

    /// `left` or `right`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Right => "right",
        }
    }
}

impl Sides {
    /// Whether this includes a side.
    pub fn includes(self, side: Side) -> bool {
        match self {
            Self::Both => true,
            Self::Left => side == Side::Left,
            Self::Right => side == Side::Right,
        }
    }

    /// `left`, `right` or `bilateral`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Right => "right",
            Self::Both => "bilateral",
        }
    }
}

impl Zone {
    /// All zones, from top to bottom.
    pub const ALL: [Self; 3] = [Self::Upper, Self::Mid, Self::Lower];

    /// `upper`, `mid` or `lower`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Upper => "upper",
            Self::Mid => "mid",
            Self::Lower => "lower",
        }
    }
}

impl Finding {
    /// Kind, side, zone and degree joined by dots, leaving out what does not apply:
    /// `effusion.left.large`, `nodule.right.upper.small`, `line.endotracheal`.
    pub fn label(&self) -> String {
        let mut words = vec![self.kind().as_str()];
        match *self {
            Self::Effusion { side, amount } => {
                words.extend(side.map(Sides::as_str));
                words.push(match amount {
                    Amount::Small => "small",
                    Amount::Moderate => "moderate",
                    Amount::Large => "large",
                });
            }
            Self::Pneumothorax { side, size } => words.extend([side.as_str(), size_str(size)]),
            Self::Cardiomegaly { severity } => words.push(match severity {
                Severity::Mild => "mild",
                Severity::Moderate => "moderate",
                Severity::Severe => "severe",
            }),
            Self::Consolidation { side, zone, density } => {
                words.extend(side.map(Side::as_str));
                words.extend([zone.as_str(), if density == Density::Mild { "mild" } else { "dense" }]);
            }
            Self::Nodule { side, zone, size } => {
                words.extend(side.map(Side::as_str));
                words.extend([zone.as_str(), size_str(size)]);
            }
            Self::Line(line) => words.extend(match line {
                Line::Endotracheal => vec!["endotracheal"],
                Line::CentralVenous(side) => vec!["central_venous", side.as_str()],
                Line::Pacemaker(side) => vec!["pacemaker", side.as_str()],
                Line::ChestTube(side) => vec!["chest_tube", side.as_str()],
                Line::Nasogastric => vec!["nasogastric"],
            }),
            Self::Fracture { side, zone } => words.extend([side.as_str(), zone.as_str()]),
        }
        words.join(".")
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Effusion { .. } => Kind::Effusion,
            Self::Pneumothorax { .. } => Kind::Pneumothorax,
            Self::Cardiomegaly { .. } => Kind::Cardiomegaly,
            Self::Consolidation { .. } => Kind::Consolidation,
            Self::Nodule { .. } => Kind::Nodule,
            Self::Line(_) => Kind::Line,
            Self::Fracture { .. } => Kind::Fracture,
        }
    }

    /// Which of the frontal lungs it touches.
    fn touches(&self, on: Side) -> bool {
        match *self {
            Self::Effusion { side, .. } => side.is_some_and(|s| s.includes(on)),
            Self::Pneumothorax { side, .. } | Self::Fracture { side, .. } => side == on,
            Self::Consolidation { side, .. } | Self::Nodule { side, .. } => side == Some(on),
            Self::Cardiomegaly { .. } | Self::Line(_) => false,
        }
    }

    fn zone(&self) -> Option<Zone> {
        match *self {
            Self::Consolidation { zone, .. } | Self::Nodule { zone, .. } | Self::Fracture { zone, .. } => {
                Some(zone)
            }
            _ => None,
        }
    }
}

/// The kinds of findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Effusion,
    Pneumothorax,
    Cardiomegaly,
    Consolidation,
    Nodule,
    Line,
    Fracture,
}

impl Kind {
    pub(crate) const ALL: [Self; 7] = [
        Self::Effusion,
        Self::Pneumothorax,
        Self::Cardiomegaly,
        Self::Consolidation,
        Self::Nodule,
        Self::Line,
        Self::Fracture,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Effusion => "effusion",
            Self::Pneumothorax => "pneumothorax",
            Self::Cardiomegaly => "cardiomegaly",
            Self::Consolidation => "consolidation",
            Self::Nodule => "nodule",
            Self::Line => "line",
            Self::Fracture => "fracture",
        }
    }
}

fn size_str(size: Size) -> &'static str {
    match size {
        Size::Small => "small",
        Size::Large => "large",
    }
}

/// The labels of some findings, sorted; `none` for a normal picture.
pub(crate) fn labels(findings: &[Finding]) -> Vec<String> {
    if findings.is_empty() {
        return vec!["none".to_owned()];
    }
    let mut labels: Vec<String> = findings.iter().map(Finding::label).collect();
    labels.sort();
    labels
}

/// Draws the findings of a case: none in 10 %, else one to three that can be seen together.
pub(crate) fn draw(draw: &mut Draw, view: View) -> Vec<Sign> {
    let wanted = match draw.unit() {
        u if u < 0.10 => 0,
        u if u < 0.42 => 1,
        u if u < 0.80 => 2,
        _ => 3,
    };
    let mut signs: Vec<Sign> = Vec::new();
    // Some draws are refused because they would hide each other; the first never is.
    for _ in 0..32 {
        if signs.len() == wanted {
            break;
        }
        let finding = if view == View::Lateral { draw_lateral(draw) } else { draw_frontal(draw) };
        let shape = std::array::from_fn(|_| draw.unit());
        if signs.iter().all(|s| compatible(&s.finding, &finding)) {
            signs.push(Sign { finding, shape });
        }
    }
    signs
}

fn draw_frontal(draw: &mut Draw) -> Finding {
    let side = draw.pick(&Side::ALL);
    match draw.unit() {
        u if u < 0.18 => Finding::Effusion {
            side: Some(draw.pick(&[Sides::Left, Sides::Right, Sides::Both])),
            amount: draw.pick(&[Amount::Small, Amount::Moderate, Amount::Large]),
        },
        u if u < 0.30 => Finding::Pneumothorax { side, size: draw.pick(&[Size::Small, Size::Large]) },
        u if u < 0.42 => draw_cardiomegaly(draw),
        u if u < 0.60 => draw_consolidation(draw, Some(side)),
        u if u < 0.76 => draw_nodule(draw, Some(side)),
        u if u < 0.90 => Finding::Line(draw.pick(&[
            Line::Endotracheal,
            Line::CentralVenous(side),
            Line::Pacemaker(side),
            Line::ChestTube(side),
            Line::Nasogastric,
        ])),
        _ => Finding::Fracture { side, zone: draw.pick(&Zone::ALL) },
    }
}

fn draw_lateral(draw: &mut Draw) -> Finding {
    match draw.below(4) {
        0 => Finding::Effusion {
            side: None,
            amount: draw.pick(&[Amount::Small, Amount::Moderate, Amount::Large]),
        },
        1 => draw_cardiomegaly(draw),
        2 => draw_consolidation(draw, None),
        _ => draw_nodule(draw, None),
    }
}

fn draw_cardiomegaly(draw: &mut Draw) -> Finding {
    Finding::Cardiomegaly { severity: draw.pick(&[Severity::Mild, Severity::Moderate, Severity::Severe]) }
}

fn draw_consolidation(draw: &mut Draw, side: Option<Side>) -> Finding {
    Finding::Consolidation {
        side,
        zone: draw.pick(&Zone::ALL),
        density: draw.pick(&[Density::Mild, Density::Dense]),
    }
}

fn draw_nodule(draw: &mut Draw, side: Option<Side>) -> Finding {
    Finding::Nodule { side, zone: draw.pick(&Zone::ALL), size: draw.pick(&[Size::Small, Size::Large]) }
}

/// Whether both can be seen in one picture. One of a kind is enough, and nothing may lie where
/// another finding has left no lung to see it in.
pub(crate) fn compatible(a: &Finding, b: &Finding) -> bool {
    a.kind() != b.kind() && !hides(a, b) && !hides(b, a)
}

fn hides(over: &Finding, under: &Finding) -> bool {
    let same_side = Side::ALL.iter().any(|&s| over.touches(s) && under.touches(s));
    let on_lateral = matches!(over, Finding::Effusion { side: None, .. })
        || matches!(over, Finding::Consolidation { side: None, .. });
    let overlap = same_side || on_lateral;
    match *over {
        Finding::Effusion { amount, .. } => {
            // A large effusion covers half of the heart, whose size can then not be judged.
            let covers_heart = amount == Amount::Large && under.kind() == Kind::Cardiomegaly;
            let reach = match amount {
                Amount::Small | Amount::Moderate => Zone::Lower,
                Amount::Large => Zone::Mid,
            };
            covers_heart
                || overlap && (under.kind() == Kind::Pneumothorax || under.zone().is_some_and(|z| z >= reach))
        }
        Finding::Pneumothorax { size, .. } => {
            overlap
                && (size == Size::Large || under.zone() == Some(Zone::Upper))
                && under.kind() != Kind::Fracture
        }
        Finding::Cardiomegaly { severity } => {
            let left_lower = under.zone() == Some(Zone::Lower) && !under.touches(Side::Right);
            severity != Severity::Mild && left_lower && under.kind() != Kind::Fracture
        }
        Finding::Consolidation { zone, .. } => overlap && under.zone() == Some(zone),
        Finding::Nodule { .. } | Finding::Line(_) | Finding::Fracture { .. } => {
            overlap && over.zone().is_some() && over.zone() == under.zone()
        }
    }
}
