//! `diptych findings`: what a report says, and how well that is read.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use diptych_eval::Agreement;
use diptych_radiology::findings::{
    Findings, Observation, Status, of_report, of_sentence, of_text, to_attributes,
};
use diptych_radiology::report::{REPORT_BYTES_MAX, Report};
use serde_json::{Map, Value, json};

use crate::args::FindingsArgs;
use crate::eval::align;
use crate::output;

/// Longest file of labels, in bytes.
const LABELS_BYTES_MAX: u64 = 1 << 30;

pub fn run(args: &FindingsArgs) -> Result<ExitCode> {
    if let Some(path) = &args.labels {
        return measure(path, args.json);
    }
    let text = match (&args.file, &args.text) {
        (_, Some(text)) => text.clone(),
        (Some(path), _) => read(path)?,
        _ => bail!("give a file with a report, or --text"),
    };
    let report = Report::parse(&text);
    if report.sections().is_empty() {
        bail!("there is no report in this: it has no words, or only redacted ones");
    }
    let findings = of_report(&report);
    if args.json {
        output::line(&serde_json::to_string_pretty(&to_json(&report, &findings))?)?;
        return Ok(ExitCode::SUCCESS);
    }
    for section in report.sections() {
        output::line(&format!("{}: {}", section.kind.as_str(), section.text.replace('\n', "\n  ")))?;
    }
    output::line("")?;
    for (_, sentence) in report.sentences() {
        let said = of_sentence(sentence);
        if !said.is_empty() {
            let said: Vec<String> = said.iter().map(|(o, s)| format!("{o} {}", s.as_str())).collect();
            output::line(&format!("{sentence}\n  {}", said.join(", ")))?;
        }
    }
    output::line("")?;
    for (observation, status) in &findings {
        output::line(&format!("finding.{observation} = {}", status.as_str()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The text of a file, at most as much as a report has, and a byte more to see that it was cut.
fn read(path: &Path) -> Result<String> {
    let limit = REPORT_BYTES_MAX as u64 + 1;
    let mut bytes = Vec::new();
    let read = match path == Path::new("-") {
        true => std::io::stdin().take(limit).read_to_end(&mut bytes),
        false => std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)),
    };
    read.with_context(|| format!("cannot read the report in {}", path.display()))?;
    if bytes.len() > REPORT_BYTES_MAX {
        eprintln!("note: the report has more than {REPORT_BYTES_MAX} bytes; what follows is left out");
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn to_json(report: &Report, findings: &Findings) -> Value {
    let named = |said: &mut dyn Iterator<Item = (Observation, Status)>| {
        said.map(|(o, s)| (o.to_string(), json!(s.as_str()))).collect::<Map<String, Value>>()
    };
    let sections: Vec<Value> =
        report.sections().iter().map(|s| json!({ "kind": s.kind.as_str(), "text": s.text })).collect();
    let sentences: Vec<Value> = report
        .sentences()
        .map(|(kind, sentence)| {
            let findings = named(&mut of_sentence(sentence).into_iter());
            json!({ "section": kind.as_str(), "text": sentence, "findings": findings })
        })
        .collect();
    let attributes: Map<String, Value> = to_attributes(findings)
        .iter()
        .map(|(name, value)| (name.clone(), output::attribute_json(value)))
        .collect();
    json!({
        "sections": sections,
        "impression": report.impression(),
        "sentences": sentences,
        "attributes": attributes,
    })
}

/// Agreement by observation, by status and of everything.
#[derive(Default)]
struct Measured {
    texts: usize,
    exact: usize,
    observations: BTreeMap<Observation, Agreement>,
    statuses: BTreeMap<Status, Agreement>,
    all: Agreement,
}

fn measure(path: &Path, as_json: bool) -> Result<ExitCode> {
    let metadata = path.metadata().with_context(|| format!("cannot read {}", path.display()))?;
    if !metadata.is_file() || metadata.len() > LABELS_BYTES_MAX {
        bail!("{} is no file of at most 1 GiB; give one JSON object per line", path.display());
    }
    let lines = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut measured = Measured::default();
    for (n, line) in (1..).zip(lines.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let (text, expected) = labelled(line).with_context(|| format!("{} line {n}", path.display()))?;
        measured.count(&expected, &of_text(&text));
    }
    if measured.texts == 0 {
        bail!("{} has no labelled texts; give one JSON object per line", path.display());
    }
    if as_json {
        output::line(&serde_json::to_string_pretty(&measured.json())?)?;
        return Ok(ExitCode::SUCCESS);
    }
    output::line(&format!("{} texts, {} of them exactly as labelled", measured.texts, measured.exact))?;
    for line in align(&measured.rows()) {
        output::line(&line)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A text and what is true of it.
fn labelled(line: &str) -> Result<(String, Findings)> {
    let value: Value = serde_json::from_str(line).context("is not a JSON object")?;
    let text = value["text"].as_str().context("has no \"text\"")?;
    let mut findings = Findings::new();
    for status in Status::ALL {
        let names = match &value[status.as_str()] {
            Value::Null => continue,
            Value::Array(names) => names,
            _ => bail!("\"{}\" is no list; give names of findings", status.as_str()),
        };
        for name in names {
            let name = name
                .as_str()
                .ok_or_else(|| anyhow!("\"{}\" has something that is no name", status.as_str()))?;
            if findings.insert(name.parse()?, status).is_some() {
                bail!("'{name}' has more than one status; give it one");
            }
        }
    }
    Ok((text.to_owned(), findings))
}

impl Measured {
    fn count(&mut self, expected: &Findings, found: &Findings) {
        self.texts += 1;
        self.exact += usize::from(expected == found);
        for observation in Observation::ALL {
            for status in Status::ALL {
                let [is_true, is_found] = [expected, found].map(|f| f.get(&observation) == Some(&status));
                self.observations.entry(observation).or_default().count(is_true, is_found);
                self.statuses.entry(status).or_default().count(is_true, is_found);
                self.all.count(is_true, is_found);
            }
        }
    }

    fn each(&self) -> Vec<(String, Agreement)> {
        let observations = self.observations.iter().map(|(o, counts)| (o.to_string(), *counts));
        let statuses = self.statuses.iter().map(|(s, counts)| (s.as_str().to_owned(), *counts));
        observations.chain(statuses).chain([("all".to_owned(), self.all)]).collect()
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let headings = ["", "labels", "precision", "recall", "F1", "right", "wrong", "missed"];
        let mut rows = vec![headings.map(str::to_owned).to_vec()];
        let share = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.3}"));
        for (name, counts) in self.each() {
            let Agreement { right, wrong, missed } = counts;
            let mut row = vec![name, (right + missed).to_string()];
            row.extend([counts.precision(), counts.recall(), counts.f1()].map(share));
            row.extend([right, wrong, missed].map(|n| n.to_string()));
            rows.push(row);
        }
        rows
    }

    fn json(&self) -> Value {
        let each = self.each().into_iter().map(|(name, counts)| {
            let value = json!({
                "right": counts.right,
                "wrong": counts.wrong,
                "missed": counts.missed,
                "precision": counts.precision(),
                "recall": counts.recall(),
                "f1": counts.f1(),
            });
            (name, value)
        });
        json!({ "texts": self.texts, "exact": self.exact, "agreement": each.collect::<Map<String, Value>>() })
    }
}
