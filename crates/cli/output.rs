//! What a person sees: lines, tables, progress bars, logs.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use diptych_core::{AttributeValue, ModelId};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Logs to standard error; `RUST_LOG` chooses what, `level` when it is not set.
pub fn init_logs_from(level: &str) {
    let logs = tracing_subscriber::fmt().with_env_filter(log_filter(level)).with_writer(io::stderr);
    logs.init();
}

/// What a server logs when `RUST_LOG` is not set; hnsw_rs tells its parameters with every graph.
const SERVER_LOGS: &str = "info,hnsw_rs=warn";

/// As [`init_logs_from`], in the format of a server. Colours are for terminals.
pub fn init_server_logs(format: LogFormat) {
    match format {
        LogFormat::Text => {
            let logs = tracing_subscriber::fmt().with_env_filter(log_filter(SERVER_LOGS));
            logs.with_ansi(io::stderr().is_terminal()).with_writer(io::stderr).init();
        }
        LogFormat::Json => {
            let logs = tracing_subscriber::fmt().json().with_span_list(false);
            logs.with_env_filter(log_filter(SERVER_LOGS)).with_writer(io::stderr).init();
        }
    }
}

fn log_filter(level: &str) -> EnvFilter {
    EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level))
}

/// Prints one line to standard output.
pub fn line(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()?;
    Ok(())
}

/// A reader that closed its end, such as `head`, is no failure.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|e| e.downcast_ref::<io::Error>()).any(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

/// An error with its causes, each said once: many say that of the system in their own words.
pub fn whole_error(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |said, cause| {
        let cause = cause.to_string();
        match said.is_empty() {
            true => cause,
            false if said.contains(&cause) => said,
            false => format!("{said}: {cause}"),
        }
    })
}

/// The first twelve digits of a model id, enough to tell models apart by eye.
pub fn short_id(id: &ModelId) -> String {
    id.to_string().chars().take(12).collect()
}

/// A progress bar with rate and time left on a terminal; silent elsewhere.
pub fn progress_bar(total: Option<u64>, unit: &str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    let template = if total.is_some() {
        format!("{{bar:30}} {{pos}}/{{len}} {unit} · {{per_sec}} · {{eta}} left · {{msg}}")
    } else {
        format!("{{spinner}} {{pos}} {unit} · {{per_sec}} · {{msg}}")
    };
    bar.set_style(ProgressStyle::with_template(&template).expect("the template is well formed"));
    bar
}

/// A progress bar on a terminal whose message says all that there is to say; silent elsewhere.
pub fn bare_bar() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:20} {msg}").expect("the template is well formed");
    ProgressBar::new(0).with_style(style)
}

/// A progress bar over the bytes of one file on a terminal; silent elsewhere.
pub fn download_bar(size: Option<u64>) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = size.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    let template = match size {
        Some(_) => "{bar:30} {bytes}/{total_bytes} · {bytes_per_sec} · {eta} left · {msg}",
        None => "{spinner} {bytes} · {bytes_per_sec} · {msg}",
    };
    bar.set_style(ProgressStyle::with_template(template).expect("the template is well formed"));
    bar
}

/// Writes small pictures into a folder, named by their rank; hits without one leave a gap.
pub fn write_pictures<'a>(dir: &Path, pictures: impl Iterator<Item = Option<&'a [u8]>>) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make the folder {}", dir.display()))?;
    let mut written = 0;
    for (rank, jpeg) in (1..).zip(pictures).filter_map(|(rank, picture)| Some((rank, picture?))) {
        let path = dir.join(format!("{rank:04}.jpg"));
        std::fs::write(&path, jpeg).with_context(|| format!("cannot write {}", path.display()))?;
        written += 1;
    }
    eprintln!("{} in {}, named by rank", count(written, "picture"), dir.display());
    Ok(())
}

/// A number and what it counts, such as `1 record` and `2 records`.
pub fn count(n: u64, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// A number with a comma between each three digits, such as `12,345`.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut said = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            said.push(',');
        }
        said.push(digit);
    }
    said
}

/// Bytes in MiB, with one decimal where that says something.
pub fn mebibytes(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib < 10.0 { format!("{mib:.1} MiB") } else { format!("{mib:.0} MiB") }
}

/// Seconds with one decimal.
pub fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// One line of text, cut to `width` characters with an ellipsis.
pub fn shorten(text: &str, width: usize) -> String {
    let flat: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
    let flat = flat.split_whitespace().collect::<Vec<_>>().join(" ");
    if flat.chars().count() <= width {
        return flat;
    }
    let mut cut: String = flat.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// An attribute as JSON.
pub fn attribute_json(value: &AttributeValue) -> Value {
    match value {
        AttributeValue::String(s) => json!(s),
        AttributeValue::List(items) => json!(items),
        AttributeValue::Integer(v) => json!(v),
        AttributeValue::Float(v) => json!(v),
        AttributeValue::Bool(v) => json!(v),
        AttributeValue::Time(v) => json!(v.to_string()),
    }
}
