//! Plots as inline SVG: recall by depth, ranks, intervals.
//!
//! Colours are classes of the page's style sheet, so that they follow its light and dark forms.
//! Deliberately absent: the page around them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use diptych_eval::{Direction, Interval, Metric, chance_at};

use super::table::title;

const WIDTH: f64 = 560.0;
/// Between the lines of two labels, in the units of a plot.
const LINE: f64 = 15.0;

/// Queries whose right answer came at ranks `from..=to`.
#[derive(Debug, PartialEq)]
pub struct RankBin {
    pub from: usize,
    pub to: usize,
    pub queries: usize,
    /// The share of queries that a random order puts there.
    pub chance: f64,
}

/// Ranks in bins that widen like 1, 2, 5, 10, up to the size of the gallery; none without outcomes.
pub fn rank_bins(direction: &Direction) -> Vec<RankBin> {
    if direction.outcomes.is_empty() {
        return Vec::new();
    }
    let mut by_right: BTreeMap<usize, usize> = BTreeMap::new();
    direction.outcomes.iter().for_each(|o| *by_right.entry(o.right as usize).or_default() += 1);
    let chance_within = |k: usize| {
        let each = by_right.iter().map(|(&right, &n)| chance_at(k, right, direction.gallery) * n as f64);
        each.sum::<f64>() / direction.outcomes.len() as f64
    };
    let edges =
        [1, 2, 3].into_iter().chain((0..).flat_map(|power| [5, 10, 20].map(|n| n * 10usize.pow(power))));
    let mut bins = Vec::new();
    let (mut from, mut below) = (1, 0.0);
    for edge in edges {
        let to = edge.min(direction.gallery);
        let within = chance_within(to);
        let inside = |rank: u32| (from..=to).contains(&(rank as usize));
        let queries = direction.outcomes.iter().filter(|o| inside(o.rank)).count();
        bins.push(RankBin { from, to, queries, chance: within - below });
        if to == direction.gallery {
            break;
        }
        (from, below) = (to + 1, within);
    }
    bins
}

/// Recall at 1, 2, ... beside chance and the control.
pub fn recall_curve(name: &str, direction: &Direction, control: Option<&Direction>) -> String {
    let (left, right, top, bottom, height) = (44.0, 112.0, 14.0, 42.0, 290.0);
    let depth = direction.recall_curve.len();
    let x = |k: usize| left + (WIDTH - left - right) * (k - 1) as f64 / (depth.max(2) - 1) as f64;
    let y = |share: f64| height - bottom - (height - top - bottom) * share;
    let mut svg = open(
        height,
        &format!("Recall at k, {name}"),
        &format!(
            "Recall rises from {:.3} at rank 1 to {:.3} at rank {depth}; a random order from {:.4} to {:.3}.",
            direction.recall_curve[0],
            direction.recall_curve[depth - 1],
            direction.chance_curve[0],
            direction.chance_curve[depth - 1]
        ),
    );
    for tick in 0..=4 {
        let share = f64::from(tick) / 4.0;
        line(&mut svg, "grid", (left, y(share)), (WIDTH - right, y(share)));
        text(&mut svg, "end", "", (left - 7.0, y(share) + 4.0), &format!("{share:.2}"));
    }
    for k in std::iter::once(1).chain((10..=depth).step_by(10)) {
        text(&mut svg, "middle", "", (x(k), height - bottom + 18.0), &k.to_string());
    }
    text(&mut svg, "middle", "", (f64::midpoint(left, WIDTH - right), height - 6.0), "first k answers");
    let mut labels = Vec::new();
    let curves = [
        ("chance", "chance", Some(&direction.chance_curve)),
        ("control", "shuffled pairs", control.map(|c| &c.recall_curve)),
        ("model", "model", Some(&direction.recall_curve)),
    ];
    for (class, label, curve) in curves {
        let Some(curve) = curve else { continue };
        let points: Vec<String> =
            (1..).zip(curve).map(|(k, &share)| format!("{:.1},{:.1}", x(k), y(share))).collect();
        let _ = write!(svg, "<polyline class=\"line {class}\" points=\"{}\"/>", points.join(" "));
        // A gallery of one has a curve of one point.
        if let [share] = curve[..] {
            let _ =
                write!(svg, "<circle class=\"dot {class}\" cx=\"{left}\" cy=\"{:.1}\" r=\"3.5\"/>", y(share));
        }
        labels.push((y(curve[depth - 1]), class, label));
    }
    // Labels stand at the ends of their curves, pushed upwards where these meet.
    labels.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut above = f64::INFINITY;
    for (end, class, label) in labels {
        above = end.min(above - LINE);
        text(&mut svg, "start", class, (WIDTH - right + 8.0, above + 4.0), label);
    }
    svg + "</svg>"
}

/// At which ranks the right answers came.
pub fn rank_histogram(name: &str, direction: &Direction) -> String {
    let (left, right, top, bottom, height) = (44.0, 12.0, 26.0, 42.0, 290.0);
    let bins = rank_bins(direction);
    let shares: Vec<f64> = bins.iter().map(|b| b.queries as f64 / direction.queries as f64).collect();
    let highest = shares.iter().copied().chain(bins.iter().map(|b| b.chance)).fold(0.0, f64::max);
    let step = [0.02, 0.05, 0.1, 0.2, 0.25].into_iter().find(|s| highest / s <= 5.0).unwrap_or(0.25);
    let full = (highest / step).ceil() * step;
    let slot = (WIDTH - left - right) / bins.len() as f64;
    let y = |share: f64| height - bottom - (height - top - bottom) * share / full;
    let (most, share) =
        bins.iter().zip(&shares).max_by(|a, b| a.1.total_cmp(b.1)).expect("a gallery has a bin");
    let mut svg = open(
        height,
        &format!("Rank of the first right answer, {name}"),
        &format!(
            "Most queries, {:.1} %, have their first right answer at rank {}; the median rank is {}.",
            100.0 * share,
            range(most),
            direction.median_rank.value
        ),
    );
    for tick in 0..=(full / step).round() as u32 {
        let share = f64::from(tick) * step;
        line(&mut svg, "grid", (left, y(share)), (WIDTH - right, y(share)));
        text(&mut svg, "end", "", (left - 7.0, y(share) + 4.0), &format!("{:.0} %", 100.0 * share));
    }
    for (n, (bin, &share)) in bins.iter().zip(&shares).enumerate() {
        let x = left + slot * n as f64;
        let _ = write!(
            svg,
            "<rect class=\"bar\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
            x + slot * 0.12,
            y(share),
            slot * 0.76,
            (y(0.0) - y(share)).max(0.0)
        );
        line(&mut svg, "line chance", (x + slot * 0.03, y(bin.chance)), (x + slot * 0.97, y(bin.chance)));
        let middle = x + slot / 2.0;
        text(&mut svg, "middle", "small", (middle, height - bottom + 17.0), &short_range(bin));
        if bin.queries > 0 {
            // On its bar, or on the dash where the dash would run through it.
            let (bar, dash) = (y(share), y(bin.chance));
            let above = if dash < bar && dash > bar - 20.0 { dash } else { bar } - 6.0;
            text(&mut svg, "middle", "small", (middle, above), &bin.queries.to_string());
        }
    }
    text(
        &mut svg,
        "middle",
        "",
        (f64::midpoint(left, WIDTH - right), height - 6.0),
        "rank of the first right answer (number of queries on the bars; dashes: chance)",
    );
    svg + "</svg>"
}

/// The last rank of a bin, where its first is that after the bin before: short enough for an axis.
fn short_range(bin: &RankBin) -> String {
    if bin.from == bin.to { bin.from.to_string() } else { format!("≤{}", bin.to) }
}

fn range(bin: &RankBin) -> String {
    if bin.from == bin.to { bin.from.to_string() } else { format!("{}–{}", bin.from, bin.to) }
}

/// Every share with its interval, beside chance and the control.
pub fn intervals(name: &str, direction: &Direction, control: Option<&Direction>) -> String {
    let (left, right, top, row) = (126.0, 20.0, 30.0, 25.0);
    let metrics: Vec<(String, Metric)> =
        direction.metrics().into_iter().filter(|(name, _)| name != "median_rank").collect();
    let controls = control.map(Direction::metrics).unwrap_or_default();
    let height = top + row * metrics.len() as f64 + 24.0;
    let x = |share: f64| left + (WIDTH - left - right) * share;
    let mut svg = open(
        height,
        &format!("Values and 95 % intervals, {name}"),
        "Each row is a metric: the model's value with its interval, shuffled pairs with their range, and chance. The \
         same numbers are in the table.",
    );
    let bottom = top + row * metrics.len() as f64;
    for tick in 0..=4 {
        let share = f64::from(tick) / 4.0;
        line(&mut svg, "grid", (x(share), top - 4.0), (x(share), bottom));
        text(&mut svg, "middle", "", (x(share), bottom + 17.0), &format!("{share:.2}"));
    }
    let mut legend = left;
    for (class, label, width) in
        [("model", "● model", 76.0), ("control", "○ shuffled pairs", 124.0), ("chance", "| chance", 0.0)]
    {
        if class != "control" || control.is_some() {
            text(&mut svg, "start", class, (legend, 14.0), label);
            legend += width;
        }
    }
    for (n, (name, metric)) in metrics.iter().enumerate() {
        let y = top + row * (n as f64 + 0.5);
        text(&mut svg, "end", "", (left - 10.0, y + 4.0), &title(name));
        line(&mut svg, "tick", (x(metric.chance), y - 8.0), (x(metric.chance), y + 8.0));
        if let Some((_, metric)) = controls.iter().find(|(other, _)| other == name) {
            mark(&mut svg, "control", metric.interval, x, metric.value, y + 4.0);
        }
        mark(&mut svg, "model", metric.interval, x, metric.value, y - 3.0);
    }
    svg + "</svg>"
}

/// A dot with a bar for the interval.
fn mark(
    svg: &mut String,
    class: &str,
    interval: Option<Interval>,
    x: impl Fn(f64) -> f64,
    value: f64,
    y: f64,
) {
    if let Some(Interval { low, high }) = interval {
        line(svg, &format!("span {class}"), (x(low), y), (x(high), y));
    }
    let _ = write!(svg, "<circle class=\"dot {class}\" cx=\"{:.1}\" cy=\"{y:.1}\" r=\"3.6\"/>", x(value));
}

/// The opening of a plot with a name and a description for those who cannot see it.
fn open(height: f64, name: &str, description: &str) -> String {
    format!(
        "<svg role=\"img\" viewBox=\"0 0 {WIDTH} {height}\" aria-label=\"{name}. {description}\">\
         <title>{name}</title><desc>{description}</desc>"
    )
}

fn line(svg: &mut String, class: &str, from: (f64, f64), to: (f64, f64)) {
    let _ = write!(
        svg,
        "<line class=\"{class}\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>",
        from.0, from.1, to.0, to.1
    );
}

fn text(svg: &mut String, anchor: &str, class: &str, at: (f64, f64), text: &str) {
    let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
    let _ = write!(
        svg,
        "<text{class} text-anchor=\"{anchor}\" x=\"{:.1}\" y=\"{:.1}\">{text}</text>",
        at.0, at.1
    );
}
