//! The curves of a run as a picture.
//!
//! Owns: panels with axes, ticks and lines, as one SVG file that needs nothing else and reads on light
//! and on dark ground. Deliberately absent: which quantities are drawn (see `log`).

use std::fmt::Write;

/// Name of the picture within the output directory.
pub const CURVES_FILE: &str = "training.svg";

/// One set of axes over the steps of a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Panel {
    /// What is drawn.
    pub title: String,
    /// The lines, at most as many as there are colours.
    pub lines: Vec<Line>,
}

/// One line.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// Its name in the legend; none without one.
    pub name: String,
    /// Steps and values.
    pub points: Vec<(f64, f64)>,
    /// How it is drawn.
    pub style: Style,
}

/// How a line is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Full.
    Full,
    /// Thin and pale: what a full line smooths.
    Pale,
    /// Dashed: what chance gives.
    Dashed,
}

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 280.0;
const COLUMNS: usize = 2;
const HEADING: f64 = 44.0;
/// Left, right, top and bottom of the axes within a panel.
const INSET: [f64; 4] = [64.0, 16.0, 56.0, 36.0];
/// Points of a line: more than pixels are of no use.
const POINTS: usize = 600;
/// Colours that differ in lightness too.
const COLOURS: [&str; 6] = ["#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2"];

const STYLE: &str = "<style>
text { font: 12px system-ui, sans-serif; fill: #374151 }
.title { font-weight: 600; font-size: 13px; fill: #111827 }
.heading { font-weight: 600; font-size: 16px; fill: #111827 }
.ground { fill: #ffffff }
.grid { stroke: #e5e7eb; stroke-width: 1 }
.axis { stroke: #9ca3af; stroke-width: 1 }
.line { fill: none; stroke-width: 2; stroke-linejoin: round }
.pale { stroke-width: 1; opacity: .3 }
.dashed { stroke-dasharray: 5 4 }
@media (prefers-color-scheme: dark) {
text { fill: #d1d5db } .title, .heading { fill: #f9fafb } .ground { fill: #111827 }
.grid { stroke: #374151 } .axis { stroke: #6b7280 }
}
</style>
";

/// Draws all panels, two beside each other.
pub(crate) fn svg(heading: &str, panels: &[Panel]) -> String {
    let rows = panels.len().div_ceil(COLUMNS);
    let (width, height) = (WIDTH * COLUMNS.min(panels.len().max(1)) as f64, HEADING + HEIGHT * rows as f64);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" role=\"img\" aria-label=\"{}\">\n{STYLE}<rect class=\"ground\" width=\"{width}\" \
         height=\"{height}\"/>\n<text class=\"heading\" x=\"16\" y=\"28\">{}</text>\n",
        escaped(heading),
        escaped(heading)
    );
    for (i, panel) in panels.iter().enumerate() {
        let (x, y) = ((i % COLUMNS) as f64 * WIDTH, HEADING + (i / COLUMNS) as f64 * HEIGHT);
        let _ = writeln!(out, "<g transform=\"translate({x} {y})\">");
        draw(&mut out, panel);
        out.push_str("</g>\n");
    }
    out.push_str("</svg>\n");
    out
}

fn draw(out: &mut String, panel: &Panel) {
    let [left, right, top, bottom] = INSET;
    let _ = writeln!(out, "<text class=\"title\" x=\"{left}\" y=\"18\">{}</text>", escaped(&panel.title));
    let all = || panel.lines.iter().flat_map(|line| &line.points).filter(|(_, y)| y.is_finite());
    let x_max = all().map(|p| p.0).fold(1.0, f64::max);
    let (low, high) =
        all().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &(_, y)| (low.min(y), high.max(y)));
    let (low, high) = if low <= high { padded(low, high) } else { (0.0, 1.0) };
    let px = |x: f64| left + x / x_max * (WIDTH - left - right);
    let py = |y: f64| HEIGHT - bottom - (y - low) / (high - low) * (HEIGHT - top - bottom);
    for tick in ticks(low, high) {
        let y = py(tick);
        let _ = writeln!(
            out,
            "<path class=\"grid\" d=\"M{left} {y:.1}H{:.1}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - right,
            left - 8.0,
            y + 4.0,
            number(tick)
        );
    }
    for tick in ticks(0.0, x_max) {
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            px(tick),
            HEIGHT - bottom + 18.0,
            number(tick)
        );
    }
    let _ = writeln!(out, "<path class=\"axis\" d=\"M{left} {:.1}H{:.1}\"/>", HEIGHT - bottom, WIDTH - right);
    let mut legend = left;
    for (i, line) in panel.lines.iter().enumerate() {
        // A pale line has the colour of the full one behind it in the list.
        let colour = panel.lines[..i].iter().filter(|line| line.style != Style::Pale).count() % COLOURS.len();
        let colour = COLOURS[colour];
        let class = match line.style {
            Style::Full => "line",
            Style::Pale => "line pale",
            Style::Dashed => "line dashed",
        };
        let path: Vec<String> =
            thinned(&line.points).map(|(x, y)| format!("{:.1} {:.1}", px(x), py(y))).collect();
        if !path.is_empty() {
            let _ = writeln!(out, "<path class=\"{class}\" stroke=\"{colour}\" d=\"M{}\"/>", path.join("L"));
        }
        if !line.name.is_empty() {
            let _ = writeln!(
                out,
                "<path class=\"{class}\" stroke=\"{colour}\" d=\"M{legend:.1} 36h18\"/><text x=\"{:.1}\" y=\"40\">{}</text>",
                legend + 23.0,
                escaped(&line.name)
            );
            legend += 40.0 + 6.6 * line.name.chars().count() as f64;
        }
    }
}

/// The mean over a window of steps, so that a noisy line can be read.
pub(crate) fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let window = (points.len() / 50).max(1);
    let mut sum = 0.0;
    points
        .iter()
        .enumerate()
        .map(|(i, &(x, y))| {
            sum += y;
            if i >= window {
                sum -= points[i - window].1;
            }
            (x, sum / window.min(i + 1) as f64)
        })
        .collect()
}

fn thinned(points: &[(f64, f64)]) -> impl Iterator<Item = (f64, f64)> {
    let every = points.len().div_ceil(POINTS).max(1);
    let last = points.len().saturating_sub(1);
    let chosen = points.iter().enumerate().filter(move |(i, _)| i % every == 0 || *i == last);
    chosen.map(|(_, point)| *point).filter(|(_, y)| y.is_finite())
}

/// A little air above and below, so that no line lies on the frame.
fn padded(low: f64, high: f64) -> (f64, f64) {
    let air = 0.05 * if high > low { high - low } else { high.abs().max(1.0) };
    // An axis that starts near zero starts there.
    let start = if low >= 0.0 && low < 0.5 * high { 0.0 } else { low - air };
    (start, high + air)
}

/// About five round numbers within a range.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let rough = (high - low) / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let step =
        [1.0, 2.0, 5.0, 10.0].into_iter().map(|s| s * power).find(|s| *s >= rough).unwrap_or(10.0 * power);
    let first = (low / step).ceil() as i64;
    (first..).map(|i| i as f64 * step).take_while(|tick| *tick <= high + 1e-9 * step).collect()
}

fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 1e4 {
        return format!("{}k", value / 1e3);
    }
    if size != 0.0 && size < 1e-3 {
        return format!("{value:.0e}");
    }
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, points: Vec<(f64, f64)>) -> Line {
        Line { name: name.to_owned(), points, style: Style::Full }
    }

    #[test]
    fn ticks_are_round_and_within_the_range() {
        assert_eq!(ticks(0.0, 1.0), [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]);
        assert_eq!(ticks(-3.0, 7.0), [-2.0, 0.0, 2.0, 4.0, 6.0]);
        assert_eq!([number(0.6000000000000001), number(25_000.0), number(2e-5)], ["0.6", "25k", "2e-5"]);
    }

    #[test]
    fn values_end_up_between_the_frame_and_text_is_escaped() {
        let points = vec![(0.0, 4.0), (50.0, f64::NAN), (100.0, 1.0)];
        let drawn = svg("a <run>", &[Panel { title: "loss".to_owned(), lines: vec![line("x&y", points)] }]);
        assert!(drawn.contains("a &lt;run&gt;") && drawn.contains("x&amp;y"), "{drawn}");
        assert!(!drawn.contains("NaN"), "{drawn}");
        // From the left edge of the axes to the right one.
        assert!(drawn.contains("d=\"M64.0 ") && drawn.contains("L464.0 "), "{drawn}");
    }

    #[test]
    fn an_empty_run_still_gives_a_picture() {
        let drawn = svg("nothing", &[Panel::default()]);
        assert!(drawn.starts_with("<svg") && drawn.ends_with("</svg>\n"));
    }

    #[test]
    fn smoothing_takes_the_mean_of_what_came_before() {
        let points: Vec<(f64, f64)> = (0..100).map(|i| (f64::from(i), f64::from(i % 2))).collect();
        let smooth = smoothed(&points);
        assert_eq!((smooth[0].1, smooth[99].1), (0.0, 0.5));
    }
}
