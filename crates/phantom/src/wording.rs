//! The phrases of reports. `{side}`, `{zone}` and `{degree}` are filled in; a table for pictures that
//! show no side has no `{side}`. Phrases start in lower case and end without a full stop.
//! Deliberately absent: which phrase is said when (`report`).

use crate::anatomy::View;
use crate::finding::{Amount, Density, Line, Severity, Size};
use crate::finding::{Finding, Kind};

type Phrases = &'static [&'static str];

/// Phrases for the FINDINGS section.
pub(crate) fn finding(finding: &Finding) -> Phrases {
    match finding {
        Finding::Effusion { side: None, .. } => EFFUSION_LATERAL,
        Finding::Effusion { side: Some(crate::Sides::Both), .. } => EFFUSION_BOTH,
        Finding::Effusion { .. } => EFFUSION,
        Finding::Pneumothorax { .. } => PNEUMOTHORAX,
        Finding::Cardiomegaly { .. } => CARDIOMEGALY,
        Finding::Consolidation { side: None, .. } => CONSOLIDATION_LATERAL,
        Finding::Consolidation { .. } => CONSOLIDATION,
        Finding::Nodule { side: None, .. } => NODULE_LATERAL,
        Finding::Nodule { .. } => NODULE,
        Finding::Line(Line::Endotracheal) => ENDOTRACHEAL,
        Finding::Line(Line::CentralVenous(_)) => CENTRAL_VENOUS,
        Finding::Line(Line::Pacemaker(_)) => PACEMAKER,
        Finding::Line(Line::ChestTube(_)) => CHEST_TUBE,
        Finding::Line(Line::Nasogastric) => NASOGASTRIC,
        Finding::Fracture { .. } => FRACTURE,
    }
}

/// Shorter phrases for the IMPRESSION section.
pub(crate) fn impression(finding: &Finding) -> Phrases {
    match finding {
        Finding::Effusion { side: None, .. } => EFFUSION_LATERAL_SHORT,
        Finding::Effusion { side: Some(crate::Sides::Both), .. } => EFFUSION_BOTH_SHORT,
        Finding::Effusion { .. } => EFFUSION_SHORT,
        Finding::Pneumothorax { .. } => PNEUMOTHORAX_SHORT,
        Finding::Cardiomegaly { .. } => CARDIOMEGALY_SHORT,
        Finding::Consolidation { side: None, .. } => CONSOLIDATION_LATERAL_SHORT,
        Finding::Consolidation { .. } => CONSOLIDATION_SHORT,
        Finding::Nodule { side: None, .. } => NODULE_LATERAL_SHORT,
        Finding::Nodule { .. } => NODULE_SHORT,
        Finding::Line(Line::Endotracheal) => ENDOTRACHEAL_SHORT,
        Finding::Line(Line::CentralVenous(_)) => CENTRAL_VENOUS_SHORT,
        Finding::Line(Line::Pacemaker(_)) => PACEMAKER_SHORT,
        Finding::Line(Line::ChestTube(_)) => CHEST_TUBE_SHORT,
        Finding::Line(Line::Nasogastric) => NASOGASTRIC_SHORT,
        Finding::Fracture { .. } => FRACTURE_SHORT,
    }
}

/// Words for `{degree}`; the usual one comes more than once.
pub(crate) fn degree(finding: &Finding) -> Phrases {
    match *finding {
        Finding::Effusion { amount: Amount::Small, .. } => &["small", "small", "small", "minor"],
        Finding::Effusion { amount: Amount::Moderate, .. } => &["moderate", "moderate", "medium-sized"],
        Finding::Effusion { amount: Amount::Large, .. } => &["large", "large", "large", "massive"],
        Finding::Pneumothorax { size: Size::Small, .. } => &["small", "small", "minor"],
        Finding::Pneumothorax { size: Size::Large, .. } => &["large", "large", "extensive"],
        Finding::Cardiomegaly { severity: Severity::Mild } => &["mild", "mild", "slight"],
        Finding::Cardiomegaly { severity: Severity::Moderate } => &["moderate"],
        Finding::Cardiomegaly { severity: Severity::Severe } => &["severe", "severe", "marked"],
        Finding::Consolidation { density: Density::Mild, .. } => &["mild", "mild", "hazy", "faint"],
        Finding::Consolidation { density: Density::Dense, .. } => &["dense", "dense", "marked"],
        Finding::Nodule { size: Size::Small, .. } => &["small"],
        Finding::Nodule { size: Size::Large, .. } => &["large", "large", "sizeable"],
        Finding::Line(_) | Finding::Fracture { .. } => &[""],
    }
}

/// Sentences that deny a kind of finding.
pub(crate) fn denial(kind: Kind) -> Phrases {
    match kind {
        Kind::Effusion => NO_EFFUSION,
        Kind::Pneumothorax => NO_PNEUMOTHORAX,
        Kind::Cardiomegaly => NO_CARDIOMEGALY,
        Kind::Consolidation => NO_CONSOLIDATION,
        Kind::Nodule => NO_NODULE,
        Kind::Line => NO_LINE,
        Kind::Fracture => NO_FRACTURE,
    }
}

/// Sentences that deny two kinds at once.
pub(crate) const DENIALS_OF_TWO: &[(Kind, Kind, &str)] = &[
    (Kind::Effusion, Kind::Pneumothorax, "no pleural effusion or pneumothorax"),
    (Kind::Effusion, Kind::Pneumothorax, "neither effusion nor pneumothorax is seen"),
    (Kind::Consolidation, Kind::Effusion, "without focal consolidation or effusion"),
    (Kind::Consolidation, Kind::Pneumothorax, "no consolidation, no pneumothorax"),
    (Kind::Consolidation, Kind::Nodule, "no focal opacity or nodule"),
    (Kind::Cardiomegaly, Kind::Consolidation, "heart size normal, no consolidation"),
    (Kind::Nodule, Kind::Fracture, "no nodule and no rib fracture"),
    (Kind::Fracture, Kind::Pneumothorax, "no fracture and no pneumothorax"),
    (Kind::Line, Kind::Pneumothorax, "no lines or tubes, no pneumothorax"),
];

/// How a projection is announced.
pub(crate) fn view(view: View) -> Phrases {
    match view {
        View::Pa => &[
            "PA view",
            "PA radiograph",
            "frontal PA view",
            "upright PA film",
            "PA chest",
            "standing PA image",
        ],
        View::Ap => &[
            "portable AP view",
            "AP radiograph",
            "bedside AP film",
            "supine AP view",
            "AP chest, portable",
            "AP image",
        ],
        View::Lateral => &[
            "lateral view",
            "lateral radiograph",
            "left lateral film",
            "lateral chest",
            "lateral image",
            "side view",
        ],
    }
}

pub(crate) const LOW_VOLUMES: Phrases = &[
    "low lung volumes",
    "lung volumes are low",
    "shallow inspiration",
    "poor inspiration with high diaphragm",
    "reduced lung volumes",
    "hypoinflated lungs",
];
pub(crate) const HYPERINFLATED: Phrases = &[
    "hyperinflated lungs",
    "the lungs are hyperinflated",
    "hyperinflation with flat diaphragm",
    "large lung volumes",
    "overinflated lungs",
    "flattened diaphragm, hyperinflation",
];
pub(crate) const SCOLIOSIS: Phrases = &[
    "scoliosis convex to the {side}",
    "{side} convex scoliosis",
    "the spine curves to the {side}",
    "thoracic scoliosis to the {side}",
    "{side} scoliosis of the spine",
    "scoliotic spine, convex {side}",
];
pub(crate) const ROTATED: Phrases = &[
    "the patient is rotated to the {side}",
    "rotated to the {side}",
    "{side} rotation of the patient",
    "rotation to the {side}",
    "film rotated {side}",
    "turned to the {side}",
];
pub(crate) const UNDEREXPOSED: Phrases = &[
    "underexposed",
    "underexposed film",
    "the film is underpenetrated",
    "low exposure",
    "pale underexposed image",
    "underpenetrated",
];
pub(crate) const OVEREXPOSED: Phrases = &[
    "overexposed",
    "overexposed film",
    "the film is overpenetrated",
    "high exposure",
    "dark overexposed image",
    "overpenetrated",
];
pub(crate) const ELEVATED_DIAPHRAGM: Phrases = &[
    "elevated {side} hemidiaphragm",
    "the {side} hemidiaphragm is elevated",
    "raised {side} hemidiaphragm",
    "high {side} diaphragm",
    "{side} hemidiaphragm elevation",
    "{side} diaphragm stands high",
];

/// Sentences of a normal picture.
pub(crate) const NORMAL: Phrases = &[
    "the lungs are clear",
    "clear lungs",
    "heart and mediastinum are normal",
    "normal heart size",
    "both lungs are well aerated",
    "cardiomediastinal silhouette is normal",
    "the bones are intact",
    "pleural spaces are clear",
];
/// Impressions of a normal picture.
pub(crate) const NORMAL_SHORT: Phrases = &[
    "normal chest",
    "no acute abnormality",
    "no acute cardiopulmonary process",
    "unremarkable chest",
    "normal chest radiograph",
    "no abnormality detected",
    "normal study",
    "clear chest",
];

const EFFUSION: Phrases = &[
    "there is a {degree} {side} pleural effusion",
    "{degree} {side} pleural effusion",
    "{degree} pleural effusion on the {side}",
    "a {degree} amount of {side} pleural fluid",
    "{side} costophrenic angle obscured by {degree} effusion",
    "{degree} effusion layers at the {side} base",
    "{degree} {side} sided effusion",
    "{side} base opacified by a {degree} pleural effusion",
];
const EFFUSION_SHORT: Phrases = &[
    "{degree} {side} effusion",
    "{degree} {side} pleural effusion",
    "{side} effusion, {degree}",
    "{degree} {side} pleural fluid",
    "{side} pleural effusion, {degree}",
    "{degree} effusion on the {side}",
];
const EFFUSION_BOTH: Phrases = &[
    "there are {degree} bilateral pleural effusions",
    "{degree} bilateral pleural effusions",
    "{degree} pleural effusions on both sides",
    "bilateral {degree} effusions",
    "both costophrenic angles obscured by {degree} effusions",
    "{degree} amount of pleural fluid bilaterally",
    "{degree} effusions at both bases",
];
const EFFUSION_BOTH_SHORT: Phrases = &[
    "{degree} bilateral effusions",
    "bilateral {degree} effusions",
    "{degree} bilateral pleural effusions",
    "bilateral effusions, {degree}",
    "{degree} effusions on both sides",
    "{degree} bilateral pleural fluid",
];
const EFFUSION_LATERAL: Phrases = &[
    "{degree} pleural effusion posteriorly",
    "{degree} effusion in the posterior sulcus",
    "there is a {degree} pleural effusion",
    "posterior costophrenic angle obscured by {degree} effusion",
    "{degree} posterior pleural fluid",
    "{degree} layering effusion",
];
const EFFUSION_LATERAL_SHORT: Phrases = &[
    "{degree} effusion",
    "{degree} pleural effusion",
    "effusion, {degree}",
    "{degree} pleural fluid",
    "{degree} posterior effusion",
    "pleural effusion, {degree}",
];
const PNEUMOTHORAX: Phrases = &[
    "there is a {degree} {side} pneumothorax",
    "{degree} {side} pneumothorax",
    "{degree} pneumothorax on the {side}",
    "{side} pleural line with {degree} pneumothorax",
    "a {degree} {side} sided pneumothorax is seen",
    "{degree} {side} pneumothorax without lung markings peripherally",
    "{side} lung edge visible, {degree} pneumothorax",
];
const PNEUMOTHORAX_SHORT: Phrases = &[
    "{degree} {side} pneumothorax",
    "{side} pneumothorax, {degree}",
    "{degree} pneumothorax on the {side}",
    "{side} {degree} pneumothorax",
    "{degree} {side} sided pneumothorax",
    "pneumothorax, {degree}, {side}",
];
const CARDIOMEGALY: Phrases = &[
    "{degree} cardiomegaly",
    "there is {degree} cardiomegaly",
    "{degree} enlargement of the heart",
    "the cardiac silhouette shows {degree} enlargement",
    "heart size shows {degree} enlargement",
    "{degree} cardiac enlargement",
    "enlarged heart, {degree}",
];
const CARDIOMEGALY_SHORT: Phrases = &[
    "{degree} cardiomegaly",
    "cardiomegaly, {degree}",
    "{degree} cardiac enlargement",
    "{degree} heart enlargement",
    "enlarged heart, {degree}",
    "{degree} enlarged cardiac silhouette",
];
const CONSOLIDATION: Phrases = &[
    "{degree} consolidation in the {side} {zone} zone",
    "there is {degree} {side} {zone} zone consolidation",
    "{degree} airspace opacity in the {side} {zone} zone",
    "{side} {zone} lung zone shows {degree} consolidation",
    "{degree} opacification of the {side} {zone} zone",
    "focal {degree} consolidation, {side} {zone} lung",
    "{degree} infiltrate in the {side} {zone} lung zone",
];
const CONSOLIDATION_SHORT: Phrases = &[
    "{degree} {side} {zone} zone consolidation",
    "{side} {zone} consolidation, {degree}",
    "{degree} consolidation, {side} {zone} zone",
    "{side} {zone} zone pneumonia, {degree}",
    "{degree} {side} {zone} opacity",
    "{degree} {side} {zone} infiltrate",
];
const CONSOLIDATION_LATERAL: Phrases = &[
    "{degree} consolidation in the {zone} zone",
    "there is {degree} {zone} zone consolidation",
    "{degree} airspace opacity in the {zone} zone",
    "the {zone} lung zone shows {degree} consolidation",
    "{degree} opacification of the {zone} zone",
    "{degree} infiltrate in the {zone} lung zone",
];
const CONSOLIDATION_LATERAL_SHORT: Phrases = &[
    "{degree} {zone} zone consolidation",
    "{zone} consolidation, {degree}",
    "{degree} consolidation, {zone} zone",
    "{zone} zone pneumonia, {degree}",
    "{degree} {zone} opacity",
    "{degree} {zone} infiltrate",
];
const NODULE: Phrases = &[
    "{degree} nodule in the {side} {zone} zone",
    "there is a {degree} {side} {zone} zone nodule",
    "{degree} round opacity in the {side} {zone} lung",
    "a {degree} nodule projects over the {side} {zone} zone",
    "{degree} pulmonary nodule, {side} {zone} zone",
    "{side} {zone} lung zone contains a {degree} nodule",
    "{degree} well defined nodule, {side} {zone} lung",
];
const NODULE_SHORT: Phrases = &[
    "{degree} {side} {zone} nodule",
    "{degree} {side} {zone} zone nodule",
    "{side} {zone} nodule, {degree}",
    "{degree} nodule, {side} {zone} zone",
    "{degree} {side} {zone} pulmonary nodule",
    "{degree} {side} {zone} lung nodule",
];
const NODULE_LATERAL: Phrases = &[
    "{degree} nodule in the {zone} zone",
    "there is a {degree} {zone} zone nodule",
    "{degree} round opacity in the {zone} lung",
    "a {degree} nodule projects over the {zone} zone",
    "{degree} pulmonary nodule, {zone} zone",
    "the {zone} zone contains a {degree} nodule",
];
const NODULE_LATERAL_SHORT: Phrases = &[
    "{degree} {zone} nodule",
    "{degree} {zone} zone nodule",
    "{zone} nodule, {degree}",
    "{degree} nodule, {zone} zone",
    "{degree} {zone} pulmonary nodule",
    "{degree} {zone} lung nodule",
];
const ENDOTRACHEAL: Phrases = &[
    "endotracheal tube above the carina",
    "endotracheal tube in place",
    "an endotracheal tube lies in the trachea",
    "ET tube tip above the carina",
    "intubated, endotracheal tube in good position",
    "the patient is intubated with an endotracheal tube",
];
const ENDOTRACHEAL_SHORT: Phrases = &[
    "endotracheal tube",
    "endotracheal tube in place",
    "ET tube in position",
    "intubated, endotracheal tube",
    "endotracheal tube positioned",
    "ET tube above the carina",
];
const CENTRAL_VENOUS: Phrases = &[
    "{side} central venous catheter with tip in the superior vena cava",
    "{side} central venous line ends in the SVC",
    "central venous catheter from the {side}",
    "a {side} central line is in place",
    "{side} sided central venous catheter in the SVC",
    "central line inserted from the {side}",
];
const CENTRAL_VENOUS_SHORT: Phrases = &[
    "{side} central venous catheter",
    "{side} central line",
    "{side} central venous line",
    "central venous catheter, {side}",
    "central line from the {side}",
    "{side} central line in place",
];
const PACEMAKER: Phrases = &[
    "{side} chest wall pacemaker with lead in the right ventricle",
    "{side} pacemaker in place",
    "a {side} sided cardiac pacemaker is seen",
    "pacemaker generator over the {side} chest",
    "{side} pectoral pacemaker with ventricular lead",
    "cardiac device in the {side} chest wall, pacemaker",
];
const PACEMAKER_SHORT: Phrases = &[
    "{side} pacemaker",
    "{side} sided pacemaker",
    "pacemaker, {side}",
    "{side} cardiac pacemaker",
    "{side} chest pacemaker",
    "{side} pacemaker in place",
];
const CHEST_TUBE: Phrases = &[
    "{side} chest tube towards the apex",
    "{side} chest tube in place",
    "a {side} thoracic drain, chest tube",
    "chest tube enters the {side} lower chest",
    "{side} sided chest tube is seen",
    "{side} pleural drain, chest tube to the apex",
];
const CHEST_TUBE_SHORT: Phrases = &[
    "{side} chest tube",
    "chest tube, {side}",
    "{side} sided chest tube",
    "{side} chest tube in place",
    "{side} chest tube drain",
    "chest tube on the {side}",
];
const NASOGASTRIC: Phrases = &[
    "nasogastric tube ends in the stomach",
    "nasogastric tube in place",
    "a nasogastric tube crosses the diaphragm",
    "NG tube tip below the diaphragm",
    "enteric nasogastric tube reaches the stomach",
    "NG tube in the stomach",
];
const NASOGASTRIC_SHORT: Phrases = &[
    "nasogastric tube",
    "NG tube in the stomach",
    "nasogastric tube in place",
    "NG tube in place",
    "nasogastric tube in stomach",
    "NG tube, gastric position",
];
const FRACTURE: Phrases = &[
    "displaced {side} {zone} rib fracture",
    "fracture of a {side} {zone} rib",
    "there is a {side} {zone} zone rib fracture",
    "a {side} rib is fractured in the {zone} zone",
    "{side} rib fracture at the {zone} zone with step-off",
    "fractured rib, {side} {zone} chest wall",
];
const FRACTURE_SHORT: Phrases = &[
    "{side} {zone} rib fracture",
    "{side} {zone} zone rib fracture",
    "rib fracture, {side} {zone} zone",
    "fractured {side} {zone} rib",
    "displaced {side} {zone} rib fracture",
    "{side} {zone} fractured rib",
];

const NO_EFFUSION: Phrases = &[
    "no pleural effusion",
    "no effusion",
    "without pleural effusion",
    "costophrenic angles are sharp",
    "pleural effusion is absent",
    "no pleural fluid is seen",
];
const NO_PNEUMOTHORAX: Phrases = &[
    "no pneumothorax",
    "without pneumothorax",
    "there is no pneumothorax",
    "no evidence of pneumothorax",
    "pneumothorax is absent",
    "no pneumothorax on either side",
];
const NO_CARDIOMEGALY: Phrases = &[
    "heart size is normal",
    "the heart is not enlarged",
    "no cardiomegaly",
    "normal cardiac silhouette",
    "without cardiomegaly",
    "heart size within normal limits",
];
const NO_CONSOLIDATION: Phrases = &[
    "no focal consolidation",
    "without focal consolidation",
    "no consolidation",
    "no airspace disease",
    "there is no consolidation",
    "no infiltrate is seen",
];
const NO_NODULE: Phrases = &[
    "no nodule",
    "no pulmonary nodule",
    "no nodules or masses",
    "without suspicious nodule",
    "no lung nodule is seen",
    "no discrete nodule",
];
const NO_LINE: Phrases = &[
    "no lines or tubes",
    "no support devices",
    "no tubes in place",
    "without indwelling devices",
    "no catheter or tube is seen",
    "no devices",
];
const NO_FRACTURE: Phrases = &[
    "no rib fracture",
    "no fracture",
    "the ribs are intact",
    "no acute fracture is seen",
    "without rib fracture",
    "bones are intact",
];
