//! Moments: what an attribute of type time holds, and how it is written.
//!
//! Deliberately absent: what time it is, time zones by name, leap seconds (as in `google.protobuf.Timestamp`).

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::calendar::{civil_from_days, days_from_civil, month_days};

const DAY_SECONDS: i64 = 86_400;
/// 0001-01-01T00:00:00Z, in seconds since 1970.
const FIRST: i64 = -62_135_596_800;
/// 9999-12-31T23:59:59Z.
const LAST: i64 = 253_402_300_799;

/// A moment from the year 1 to the year 9999, to the nanosecond, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Time {
    seconds: i64,
    nanos: u32,
}

/// Why something is no moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}; write a time as RFC 3339 does, such as 2024-01-31T08:30:00Z, or a day such as 2024-01-31")]
pub struct TimeError {
    reason: String,
}

impl Time {
    /// The first moment.
    pub const MIN: Self = Self { seconds: FIRST, nanos: 0 };
    /// The last moment.
    pub const MAX: Self = Self { seconds: LAST, nanos: 999_999_999 };

    /// A moment by seconds since 1970-01-01T00:00:00Z, and nanoseconds after those.
    ///
    /// # Errors
    /// [`TimeError`] before the year 1, after the year 9999, or with a second's worth of nanoseconds.
    pub fn new(seconds: i64, nanos: u32) -> Result<Self, TimeError> {
        if !(FIRST..=LAST).contains(&seconds) {
            let reason = format!("{seconds} seconds since 1970 are outside the years 1 to 9999");
            return Err(TimeError { reason });
        }
        if nanos > 999_999_999 {
            return Err(TimeError { reason: format!("{nanos} nanoseconds are more than a second has") });
        }
        Ok(Self { seconds, nanos })
    }

    /// Seconds since 1970-01-01T00:00:00Z; negative before.
    pub fn seconds(self) -> i64 {
        self.seconds
    }

    /// Nanoseconds after [`Self::seconds`], below 10^9.
    pub fn nanos(self) -> u32 {
        self.nanos
    }
}

impl TryFrom<SystemTime> for Time {
    type Error = TimeError;

    /// The moment that a clock shows.
    fn try_from(moment: SystemTime) -> Result<Self, TimeError> {
        let whole = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        match moment.duration_since(UNIX_EPOCH) {
            Ok(since) => Self::new(whole(since), since.subsec_nanos()),
            Err(before) => {
                let before = before.duration();
                match before.subsec_nanos() {
                    0 => Self::new(-whole(before), 0),
                    nanos => Self::new(-whole(before) - 1, 1_000_000_000 - nanos),
                }
            }
        }
    }
}

impl From<Time> for SystemTime {
    fn from(time: Time) -> Self {
        let nanos = Duration::from_nanos(time.nanos.into());
        let whole = Duration::from_secs(time.seconds.unsigned_abs());
        if time.seconds < 0 { UNIX_EPOCH - whole + nanos } else { UNIX_EPOCH + whole + nanos }
    }
}

impl FromStr for Time {
    type Err = TimeError;

    /// Reads RFC 3339 with any offset, and a day alone, which is its first moment in UTC.
    fn from_str(s: &str) -> Result<Self, TimeError> {
        let refuse =
            || TimeError { reason: format!("'{}' is no time", s.chars().take(64).collect::<String>()) };
        let (date, rest) = s.split_at_checked(10).ok_or_else(refuse)?;
        let day = day(date).ok_or_else(refuse)?;
        let (seconds, nanos, offset) =
            if rest.is_empty() { (0, 0, 0) } else { clock(rest).ok_or_else(refuse)? };
        Self::new(day * DAY_SECONDS + seconds - offset, nanos)
    }
}

/// Days since 1970 of a day such as `2024-01-31`.
fn day(date: &str) -> Option<i64> {
    let bytes = date.as_bytes();
    (bytes.len() == 10 && bytes[4] == b'-' && bytes[7] == b'-').then_some(())?;
    let (year, month, day) = (digits(&bytes[..4])?, digits(&bytes[5..7])?, digits(&bytes[8..])?);
    let valid = year >= 1 && (1..=12).contains(&month) && (1..=month_days(year, month)).contains(&day);
    valid.then(|| days_from_civil(year, month, day))
}

/// Seconds of the day, nanoseconds and offset in seconds of `T08:30:00.5+01:00`.
fn clock(rest: &str) -> Option<(i64, u32, i64)> {
    let bytes = rest.as_bytes();
    let shaped =
        bytes.len() >= 10 && matches!(bytes[0], b'T' | b't' | b' ') && bytes[3] == b':' && bytes[6] == b':';
    shaped.then_some(())?;
    let (hour, minute, second) = (digits(&bytes[1..3])?, digits(&bytes[4..6])?, digits(&bytes[7..9])?);
    (hour < 24 && minute < 60 && second < 60).then_some(())?;
    let mut zone = &bytes[9..];
    let mut nanos = 0;
    if let Some(fraction) = zone.strip_prefix(b".") {
        let length = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
        (1..=9).contains(&length).then_some(())?;
        nanos = digits(&fraction[..length])? * 10_i64.pow(9 - length as u32);
        zone = &fraction[length..];
    }
    let offset = match zone {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (digits(&[*h1, *h2])?, digits(&[*m1, *m2])?);
            (hours < 24 && minutes < 60).then_some(())?;
            let seconds = hours * 3600 + minutes * 60;
            if *sign == b'-' { -seconds } else { seconds }
        }
        _ => return None,
    };
    Some((hour * 3600 + minute * 60 + second, u32::try_from(nanos).ok()?, offset))
}

fn digits(bytes: &[u8]) -> Option<i64> {
    bytes.iter().try_fold(0, |n, b| b.is_ascii_digit().then(|| n * 10 + i64::from(b - b'0')))
}

impl fmt::Display for Time {
    /// RFC 3339 in UTC, with as many digits of the second as it has, or as the format asks for: `{:.3}` cuts it to
    /// milliseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil_from_days(self.seconds.div_euclid(DAY_SECONDS));
        let of_day = self.seconds.rem_euclid(DAY_SECONDS);
        let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        let digits = format!("{:09}", self.nanos);
        let digits = match f.precision() {
            Some(precision) => &digits[..precision.min(9)],
            None => digits.trim_end_matches('0'),
        };
        if !digits.is_empty() {
            write!(f, ".{digits}")?;
        }
        f.write_str("Z")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_read_and_written() {
        for (written, seconds, nanos, back) in [
            ("1970-01-01", 0, 0, "1970-01-01T00:00:00Z"),
            ("2024-02-29T23:59:59Z", 1_709_251_199, 0, "2024-02-29T23:59:59Z"),
            ("2024-01-31T08:30:00.25+01:30", 1_706_684_400, 250_000_000, "2024-01-31T07:00:00.25Z"),
            ("1969-12-31t23:59:59.999999999z", -1, 999_999_999, "1969-12-31T23:59:59.999999999Z"),
            ("2000-03-01 00:00:00-00:30", 951_870_600, 0, "2000-03-01T00:30:00Z"),
            ("0001-01-01T00:00:00Z", FIRST, 0, "0001-01-01T00:00:00Z"),
            ("9999-12-31T23:59:59Z", LAST, 0, "9999-12-31T23:59:59Z"),
        ] {
            let time: Time = written.parse().unwrap();
            assert_eq!((time.seconds(), time.nanos()), (seconds, nanos), "{written}");
            assert_eq!(time.to_string(), back);
        }
    }

    #[test]
    fn what_is_no_time_is_refused_and_shown() {
        for written in [
            "",
            "yesterday",
            "2024",
            "2024-13-01",
            "2023-02-29",
            "2024-04-31",
            "2024-01-31T",
            "2024-01-31T24:00:00Z",
            "2024-01-31T08:30:00",
            "2024-01-31T08:30:00+1:00",
            "2024-01-31T08:30:00.Z",
            "2024-01-31T08:30Z",
            "0001-01-01T00:00:00+01:00",
            "0000-01-01",
            "2024-01-31T08:30:60Z",
            "2024-01-3é",
            "+024-01-01",
        ] {
            let said = written.parse::<Time>().unwrap_err().to_string();
            assert!(said.contains("RFC 3339"), "{written}: {said}");
        }
        assert!(Time::new(LAST + 1, 0).is_err() && Time::new(0, 1_000_000_000).is_err());
    }

    #[test]
    fn a_precision_cuts_the_second() {
        let time: Time = "2024-01-31T08:30:00.98765Z".parse().unwrap();
        assert_eq!(format!("{time:.3}"), "2024-01-31T08:30:00.987Z");
        assert_eq!(
            format!("{time:.0} {:.12}", Time::MAX),
            "2024-01-31T08:30:00Z 9999-12-31T23:59:59.999999999Z"
        );
        let whole: Time = "2000-02-29".parse().unwrap();
        assert_eq!(format!("{whole:.3}"), "2000-02-29T00:00:00.000Z");
    }

    proptest! {
        #[test]
        fn a_clocks_moment_comes_back(seconds in FIRST..=LAST, nanos in 0u32..1_000_000_000) {
            let time = Time::new(seconds, nanos).unwrap();
            prop_assert_eq!(Time::try_from(SystemTime::from(time)), Ok(time));
        }

        #[test]
        fn the_written_form_reads_back_and_keeps_the_order(a in FIRST..=LAST, b in FIRST..=LAST, n in 0u32..1_000_000_000) {
            let (a, b) = (Time::new(a, n).unwrap(), Time::new(b, 0).unwrap());
            prop_assert_eq!(a.to_string().parse::<Time>(), Ok(a));
            prop_assert_eq!(a.seconds().cmp(&b.seconds()).then(a.nanos().cmp(&b.nanos())), a.cmp(&b));
        }
    }
}
