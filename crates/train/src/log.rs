//! What a run says of itself, step by step.
//!
//! Owns: `training.jsonl`, one JSON object per step and per validation, and the curves drawn from it.
//! Lines are appended before each checkpoint; those past the checkpoint are dropped when a run goes on.
//! Deliberately absent: terminals.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::curves::{self, CURVES_FILE, Line as Curve, Panel, Style, smoothed};
use crate::error::{TrainError, io};
use crate::exam::Validation;
use crate::files;

/// Name of the log within the output directory: one JSON object per line.
pub const LOG_FILE: &str = "training.jsonl";

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Line {
    /// An optimiser step.
    Step(StepLine),
    /// A look at the held-out pairs.
    Validation(ValidationLine),
}

/// An optimiser step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StepLine {
    pub step: u64,
    pub loss: f32,
    /// The loss of every objective before its weight.
    pub terms: Vec<(String, f32)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    pub learning_rate: f32,
    pub gradient_norm: f32,
    pub images_per_second: f64,
}

/// A look at the held-out pairs after a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ValidationLine {
    pub step: u64,
    pub validation: Validation,
}

impl Line {
    fn step(&self) -> u64 {
        match self {
            Self::Step(line) => line.step,
            Self::Validation(line) => line.step,
        }
    }
}

/// The log of a run.
#[derive(Debug)]
pub(crate) struct Log {
    out: PathBuf,
    lines: Vec<Line>,
    /// Lines that are in the file.
    written: usize,
}

impl Log {
    /// Opens the log of an output directory at a step: later lines are dropped.
    pub fn open(out: &Path, step: u64) -> Result<Self, TrainError> {
        let path = out.join(LOG_FILE);
        let text = match std::fs::read_to_string(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            other => other.map_err(io("read", &path))?,
        };
        let read = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
        let lines: Vec<Line> = read.filter(|line| line.step() <= step && step > 0).collect();
        files::replace(&path, text_of(&lines).as_bytes())?;
        Ok(Self { out: out.to_path_buf(), written: lines.len(), lines })
    }

    /// Adds a line. A second look after the same step, as at the end of a run that is continued when it
    /// was over, says nothing new.
    pub fn push(&mut self, line: Line) {
        let known = match (self.lines.last(), &line) {
            (Some(Line::Validation(last)), Line::Validation(look)) => last.step == look.step,
            _ => false,
        };
        if !known {
            self.lines.push(line);
        }
    }

    /// The last step, if there was one.
    pub fn last_step(&self) -> Option<&StepLine> {
        self.lines.iter().rev().find_map(|line| match line {
            Line::Step(step) => Some(step),
            Line::Validation(_) => None,
        })
    }

    /// The look at the held-out pairs before the first step, if there was one.
    pub fn first_look(&self) -> Option<Validation> {
        self.lines.iter().find_map(|line| match line {
            Line::Validation(look) if look.step == 0 => Some(look.validation),
            _ => None,
        })
    }

    /// Appends what is new to the file.
    pub fn flush(&mut self) -> Result<(), TrainError> {
        let path = self.out.join(LOG_FILE);
        let mut file = OpenOptions::new().append(true).open(&path).map_err(io("open", &path))?;
        let text = text_of(&self.lines[self.written..]);
        file.write_all(text.as_bytes()).and_then(|()| file.sync_data()).map_err(io("write", &path))?;
        self.written = self.lines.len();
        Ok(())
    }

    /// Draws the curves of the whole run.
    pub fn draw(&self, heading: &str) -> Result<(), TrainError> {
        let drawn = curves::svg(heading, &self.panels());
        files::replace(&self.out.join(CURVES_FILE), drawn.as_bytes())
    }

    fn panels(&self) -> Vec<Panel> {
        let steps =
            || self.lines.iter().filter_map(|line| if let Line::Step(s) = line { Some(s) } else { None });
        let of = |value: &dyn Fn(&StepLine) -> Option<f32>| -> Vec<(f64, f64)> {
            steps().filter_map(|s| value(s).map(|v| (s.step as f64, f64::from(v)))).collect()
        };
        let terms: Vec<&String> =
            steps().next().into_iter().flat_map(|s| s.terms.iter().map(|(name, _)| name)).collect();
        let mut losses = both("all", of(&|s| Some(s.loss)));
        if terms.len() > 1 {
            for (at, name) in terms.into_iter().enumerate() {
                losses.extend(both(name, of(&|s| s.terms.get(at).map(|term| term.1))));
            }
        } else {
            losses[1].name.clear();
        }
        let mut panels = vec![Panel { title: "loss".to_owned(), lines: losses }];
        panels.extend(self.recall());
        let temperature = of(&|s| s.temperature);
        if !temperature.is_empty() {
            panels.push(Panel { title: "temperature".to_owned(), lines: vec![full("", temperature)] });
        }
        panels.push(Panel {
            title: "learning rate".to_owned(),
            lines: vec![full("", of(&|s| Some(s.learning_rate)))],
        });
        panels.push(Panel {
            title: "norm of the gradient".to_owned(),
            lines: both("", of(&|s| Some(s.gradient_norm))),
        });
        panels
    }

    fn recall(&self) -> Option<Panel> {
        let looks: Vec<&ValidationLine> = self
            .lines
            .iter()
            .filter_map(|line| if let Line::Validation(v) = line { Some(v) } else { None })
            .collect();
        let last = looks.last()?;
        let of = |value: &dyn Fn(&Validation) -> f64| -> Vec<(f64, f64)> {
            looks.iter().map(|look| (look.step as f64, value(&look.validation))).collect()
        };
        let chance = Curve {
            name: "chance".to_owned(),
            points: of(&|v| v.text_to_image.chance_at_10),
            style: Style::Dashed,
        };
        Some(Panel {
            title: format!("recall@10 among {} held-out images", last.validation.text_to_image.gallery),
            lines: vec![
                full("text to image", of(&|v| v.text_to_image.recall_at_10)),
                full("image to text", of(&|v| v.image_to_text.recall_at_10)),
                chance,
            ],
        })
    }
}

fn full(name: &str, points: Vec<(f64, f64)>) -> Curve {
    Curve { name: name.to_owned(), points, style: Style::Full }
}

/// A noisy line, pale, and what smooths it.
fn both(name: &str, points: Vec<(f64, f64)>) -> Vec<Curve> {
    let smooth = smoothed(&points);
    vec![Curve { name: String::new(), points, style: Style::Pale }, full(name, smooth)]
}

fn text_of(lines: &[Line]) -> String {
    lines
        .iter()
        .map(|line| serde_json::to_string(line).expect("plain numbers always serialise") + "\n")
        .collect()
}
