//! Days: reading the dates of DICOM values, moving them, writing them again.
//!
//! The calendar is the proleptic Gregorian one (the day counts are those of Howard Hinnant's
//! `days_from_civil`). Deliberately absent: dates in prose (`scrub`), and how far a patient's dates move.

use diptych_core::calendar::{civil_from_days, days_from_civil, month_days};

/// Moves every date of a DA value; `None` when one of them is no date.
pub(super) fn shift_da(value: &str, days: i64) -> Option<String> {
    each(value, |date| {
        let digits: String = date.chars().filter(|c| *c != '.').collect();
        (digits.len() == 8).then(|| moved(&digits, days)).flatten()
    })
}

/// Moves every date of a DT value; its time, zone and precision stay.
pub(super) fn shift_dt(value: &str, days: i64) -> Option<String> {
    each(value, |moment| {
        let digits = moment.bytes().take_while(u8::is_ascii_digit).count().min(8);
        let (date, rest) = moment.split_at(digits);
        // The middle of a month or year stands for it.
        let whole = match digits {
            4 => format!("{date}0701"),
            6 => format!("{date}15"),
            8 => date.to_owned(),
            _ => return None,
        };
        let plausible = rest.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | '+' | '-'));
        plausible.then(|| moved(&whole, days).map(|m| format!("{}{rest}", &m[..digits]))).flatten()
    })
}

fn each(value: &str, f: impl Fn(&str) -> Option<String>) -> Option<String> {
    let moved: Option<Vec<String>> = value
        .split('\\')
        .map(|v| v.trim_matches([' ', '\0']))
        .map(|v| if v.is_empty() { Some(String::new()) } else { f(v) })
        .collect();
    moved.map(|values| values.join("\\"))
}

fn moved(date: &str, days: i64) -> Option<String> {
    let number = |range: std::ops::Range<usize>| date.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(4..6)?, number(6..8)?);
    if !is_day(year, month, day) {
        return None;
    }
    let (year, month, day) = civil_from_days(days_from_civil(year, month, day) + days);
    (0..=9999).contains(&year).then(|| format!("{year:04}{month:02}{day:02}"))
}

/// Whether a day is in the calendar.
pub(super) fn is_day(year: i64, month: i64, day: i64) -> bool {
    (1..=12).contains(&month) && (1..=month_days(year, month)).contains(&day)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn dates_move_over_months_years_and_leap_days() {
        assert_eq!(shift_da("20200301", -1).unwrap(), "20200229");
        assert_eq!(shift_da("20190301", -1).unwrap(), "20190228");
        assert_eq!(shift_da("20200101", -365).unwrap(), "20190101");
        assert_eq!(shift_da("2020.01.10 ", -9).unwrap(), "20200101", "the form of ACR-NEMA");
        assert_eq!(shift_da("20200301\\20200302", -1).unwrap(), "20200229\\20200301");
        assert_eq!(shift_da("", -1).unwrap(), "");
        for day in 0..200_000 {
            let (y, m, d) = civil_from_days(day);
            assert!(is_day(y, m, d) && days_from_civil(y, m, d) == day, "{day}: {y}-{m}-{d}");
        }
    }

    #[test]
    fn moments_keep_their_time_and_precision() {
        assert_eq!(shift_dt("20200301123015.25+0100", -1).unwrap(), "20200229123015.25+0100");
        assert_eq!(shift_dt("202003", -30).unwrap(), "202002");
        assert_eq!(shift_dt("2020", -365).unwrap(), "2019");
    }

    #[test]
    fn what_is_no_date_is_not_passed_on() {
        for bad in ["2020", "20201301", "20190229", "yesterday", "2020-1-1", "9999999999", "é0200101"] {
            assert_eq!(shift_da(bad, -1), None, "{bad}");
        }
        for bad in ["202", "20200230", "20200101 Smith", "noon"] {
            assert_eq!(shift_dt(bad, -1), None, "{bad}");
        }
    }
}
