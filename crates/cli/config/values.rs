//! Values of settings as text, with their bounds. Each error says what to write instead.

use std::fmt::Display;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use super::LogFormat;

/// A whole number within bounds, both included.
pub fn whole<T: TryFrom<u64>>(text: &str, min: u64, max: u64) -> Result<T, String> {
    let wanted = || format!("'{text}' does not fit: use a whole number from {min} to {max}");
    let value = text.parse::<u64>().ok().filter(|v| (min..=max).contains(v)).ok_or_else(wanted)?;
    T::try_from(value).map_err(|_| wanted())
}

/// A share, 0 to 1.
pub fn share(text: &str) -> Result<f64, String> {
    number(text, 0.0, 1.0)
        .ok_or_else(|| format!("'{text}' does not fit: use a share from 0 to 1, such as 0.01"))
}

/// Seconds within bounds, both included.
pub fn seconds(text: &str, min: f64, max: f64) -> Result<Duration, String> {
    number(text, min, max)
        .map(Duration::from_secs_f64)
        .ok_or_else(|| format!("'{text}' does not fit: use seconds from {min} to {max}"))
}

/// So many per second.
pub fn rate(text: &str) -> Result<f64, String> {
    number(text, 0.001, 1e6)
        .ok_or_else(|| format!("'{text}' does not fit: use a number from 0.001 to 1000000"))
}

/// An address to listen on.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("'{text}' is no address: write it like 127.0.0.1:7700 or [::1]:7700"))
}

/// Yes or no.
pub fn switch(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| format!("'{text}' does not fit: use true or false"))
}

/// How log lines are written.
pub fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("'{text}' is no format: use text or json")),
    }
}

/// Anything that its own crate reads.
pub fn parsed<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|e: T::Err| e.to_string())
}

/// Words that must not be empty, such as a path.
pub fn words(text: &str) -> Result<&str, String> {
    if text.is_empty() { Err("it is empty: write a value or leave it out".to_owned()) } else { Ok(text) }
}

/// NaN is within no bounds.
fn number(text: &str, min: f64, max: f64) -> Option<f64> {
    text.parse().ok().filter(|v| (min..=max).contains(v))
}
