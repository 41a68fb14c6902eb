//! `diptych relevance`: can the relevance of hits be trusted?

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use diptych_engine::{EngineOptions, IndexKind, RelevanceReport, Reliability};
use serde_json::{Value, json};

use crate::args::RelevanceArgs;
use crate::{local, output};

/// Side of the axes of one diagram, and what is around them.
const SIDE: f64 = 240.0;
const MARGIN: f64 = 56.0;

pub fn run(args: &RelevanceArgs) -> Result<ExitCode> {
    output::init_logs_from("warn");
    let encoder = local::load_model(&args.model.dir, args.model.precision)?;
    let options = EngineOptions { index: IndexKind::Ready, ..EngineOptions::default() };
    let engine = local::open_engine(&args.data, encoder, options, false)?;
    let reports = engine.calibrate(&args.collection)?;
    if reports.is_empty() {
        bail!(
            "what scores mean cannot be told: '{}' has too few records with parts that belong together; \
             ingest records with both an image and a text",
            args.collection
        );
    }
    if args.json {
        let all: Vec<Value> = reports.iter().map(as_json).collect();
        output::line(&serde_json::to_string_pretty(&all)?)?;
    } else {
        print(&reports)?;
    }
    if let Some(path) = &args.svg {
        std::fs::write(path, diagrams(&reports))
            .with_context(|| format!("cannot write {}", path.display()))?;
        eprintln!("wrote {}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

fn direction(report: &RelevanceReport) -> String {
    format!("{} to {}", report.from, report.to)
}

fn print(reports: &[RelevanceReport]) -> Result<()> {
    output::line("direction        questions   points  error, all hits  error, first hits")?;
    for report in reports {
        let calibration = &report.calibration;
        output::line(&format!(
            "{:<15} {:>10} {:>8} {:>16.3} {:>18.3}",
            direction(report),
            calibration.questions,
            calibration.points,
            calibration.reliability.error,
            calibration.first_hits.error
        ))?;
    }
    output::line("\nof the first hits with a relevance of about .., so many were matches:")?;
    for report in reports {
        output::line(&direction(report))?;
        for bin in &report.calibration.first_hits.bins {
            output::line(&format!("  {:.2}  {:.2}  of {}", bin.predicted, bin.observed, bin.hits))?;
        }
    }
    Ok(())
}

fn as_json(report: &RelevanceReport) -> Value {
    let reliability = |reliability: &Reliability| {
        let bins = reliability.bins.iter();
        json!({
            "expected_calibration_error": reliability.error,
            "bins": bins
                .map(|bin| json!({"predicted": bin.predicted, "observed": bin.observed, "hits": bin.hits}))
                .collect::<Vec<_>>(),
        })
    };
    json!({
        "direction": direction(report),
        "questions": report.calibration.questions,
        "points": report.calibration.points,
        "hits": reliability(&report.calibration.reliability),
        "first_hits": reliability(&report.calibration.first_hits),
    })
}

/// A reliability diagram for each direction: over the promised share of matches the share that came true, in
/// bins of the first hits; a dot's area grows with its hits, and on the diagonal promises are kept.
fn diagrams(reports: &[RelevanceReport]) -> String {
    let cell = SIDE + 2.0 * MARGIN;
    let width = cell * reports.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {cell}\" width=\"{width}\" \
         height=\"{cell}\" role=\"img\" font-family=\"system-ui, sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    for (n, report) in reports.iter().enumerate() {
        diagram(&mut svg, report, n as f64 * cell + MARGIN);
    }
    svg.push_str("</svg>\n");
    svg
}

fn diagram(svg: &mut String, report: &RelevanceReport, left: f64) {
    let (top, bottom, right) = (MARGIN, MARGIN + SIDE, left + SIDE);
    let x = |share: f64| left + share * SIDE;
    let y = |share: f64| bottom - share * SIDE;
    let mut put = |line: String| {
        svg.push_str(&line);
        svg.push('\n');
    };
    let title = format!("{}: error {:.3}", direction(report), report.calibration.first_hits.error);
    put(text((left, top - 16.0), "start", &title, "#111827\" font-weight=\"600"));
    for tick in 0..=5 {
        let share = f64::from(tick) / 5.0;
        put(line((x(share), top), (x(share), bottom), "#e5e7eb"));
        put(line((left, y(share)), (right, y(share)), "#e5e7eb"));
        let label = format!("{share:.1}");
        put(text((x(share), bottom + 16.0), "middle", &label, "#374151"));
        put(text((left - 6.0, y(share) + 4.0), "end", &label, "#374151"));
    }
    put(line((left, bottom), (right, top), "#9ca3af\" stroke-dasharray=\"5 4"));
    let bins = &report.calibration.first_hits.bins;
    let most = bins.iter().map(|bin| bin.hits).max().unwrap_or(1) as f64;
    for bin in bins {
        let (cx, cy) = (x(bin.predicted), y(bin.observed));
        let radius = 3.0 + 9.0 * (bin.hits as f64 / most).sqrt();
        put(format!(
            "<circle cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"{radius:.1}\" fill=\"#2563eb\" fill-opacity=\"0.75\">\
             <title>{:.2} promised, {:.2} true, {} hits</title></circle>",
            bin.predicted, bin.observed, bin.hits
        ));
    }
    let caption = "promised across, true up; first hits only";
    put(text((left, bottom + 36.0), "start", caption, "#374151"));
}

fn line(from: (f64, f64), to: (f64, f64), stroke: &str) -> String {
    let ((x1, y1), (x2, y2)) = (from, to);
    format!("<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{stroke}\"/>")
}

fn text((x, y): (f64, f64), anchor: &str, text: &str, fill: &str) -> String {
    // What is drawn is made of names and numbers of ours, which need no escaping.
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{fill}\">{text}</text>")
}
