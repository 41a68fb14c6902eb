//! Days: reading the dates of DICOM values, moving them, writing them again.
//!
//! The calendar is the proleptic Gregorian one (the day counts are those of Howard Hinnant's
//! `days_from_civil`). Deliberately absent: dates in prose (`scrub`), and how far a patient's dates move.

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
    let (year, month, day) = civil(days_of(year, month, day) + days);
    (0..=9999).contains(&year).then(|| format!("{year:04}{month:02}{day:02}"))
}

/// Whether a day is in the calendar.
pub(super) fn is_day(year: i64, month: i64, day: i64) -> bool {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return false,
    };
    (1..=last).contains(&day)
}

fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year - era * 400;
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year
}

fn civil(days: i64) -> (i64, i64, i64) {
    let era = days.div_euclid(146_097);
    let of_era = days - era * 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
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
            let (y, m, d) = civil(day);
            assert!(is_day(y, m, d) && days_of(y, m, d) == day, "{day}: {y}-{m}-{d}");
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
