//! Moments of the system's clock as text, as keys and audit lines carry them: RFC 3339 in UTC.
//!
//! Deliberately absent: the calendar, which is core's.

use std::time::SystemTime;

use diptych_core::Time;

/// A moment, to the millisecond. One that the calendar does not reach, as a clock that is far off may show, is its end.
pub(crate) fn to_text(moment: SystemTime) -> String {
    format!("{:.3}", Time::try_from(moment).unwrap_or(Time::MAX))
}

/// The moment that a text such as `2026-11-23T22:15:00Z` names.
pub(crate) fn from_text(text: &str) -> Option<SystemTime> {
    text.parse::<Time>().ok().map(SystemTime::from)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn moments_are_written_to_the_millisecond_and_read_back() {
        assert_eq!(to_text(UNIX_EPOCH), "1970-01-01T00:00:00.000Z");
        let moment = UNIX_EPOCH + Duration::from_micros(1_709_251_199_250_999);
        assert_eq!(to_text(moment), "2024-02-29T23:59:59.250Z");
        assert_eq!(from_text("2024-02-29T23:59:59.250999Z"), Some(moment));
        assert_eq!(from_text("2023-02-29T00:00:00Z"), None);
    }
}
