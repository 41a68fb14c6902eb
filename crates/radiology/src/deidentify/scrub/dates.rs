//! Days in prose: `05/12/2019`, `2019-05-12`, `12 May 2019`, `May 12th`, `12MAY2019`, `05/2019`, and `5/12`
//! where the words before say that it is one. Deliberately absent: years, months and times alone.

use super::Found;
use super::tokens::{Gap, Shape, Tokens};
use crate::deidentify::count::Kind;
use crate::deidentify::date::is_day;

pub(super) fn date(tokens: &Tokens<'_>, at: usize) -> Option<Found> {
    // A number behind a point or a slash is the end of something else.
    let inside = tokens.glued(at) && at > 0 && tokens.is_any(at - 1, &[".", "/", "-"]) && {
        at > 1 && tokens.glued(at - 1) && tokens.shape(at - 2) != Shape::Mark
    };
    if inside {
        return None;
    }
    let to = numeric(tokens, at).or_else(|| written(tokens, at)).or_else(|| compact(tokens, at))?;
    Some(Found { from: at, to: time(tokens, to), kind: Kind::Date })
}

fn is_year(value: i64, digits: usize) -> bool {
    digits == 4 && (1850..=2150).contains(&value)
}

/// Whether two numbers are a day and a month, in either order.
fn day_and_month(a: i64, b: i64) -> bool {
    is_day(2000, a, b) || is_day(2000, b, a)
}

fn numeric(tokens: &Tokens<'_>, at: usize) -> Option<usize> {
    let (a, a_digits) = tokens.number(at)?;
    let mark = tokens.text(at + 1);
    if !tokens.glued(at + 1) || !tokens.glued(at + 2) || !["/", "-", "."].contains(&mark) {
        return None;
    }
    let (b, b_digits) = tokens.number(at + 2)?;
    let third = (tokens.glued(at + 3) && tokens.glued(at + 4) && tokens.text(at + 3) == mark)
        .then(|| tokens.number(at + 4))
        .flatten();
    let ends = |to: usize| !(tokens.glued(to) && tokens.text(to) == mark && tokens.glued(to + 1));
    if let Some((c, c_digits)) = third {
        let short = a_digits <= 2 && b_digits <= 2;
        let of_four = short && is_year(c, c_digits) && day_and_month(a, b);
        let of_two = short
            && c_digits == 2
            && day_and_month(a, b)
            && (mark == "/" || (mark == "-" && a_digits == 2 && b_digits == 2));
        let iso = is_year(a, a_digits) && b_digits <= 2 && c_digits <= 2 && is_day(a, b, c);
        return ((of_four || of_two || iso) && ends(at + 5)).then_some(at + 5);
    }
    if mark == "." || !ends(at + 3) {
        return None;
    }
    let month_and_year = (1..=12).contains(&a) && a_digits <= 2 && is_year(b, b_digits);
    let said =
        mark == "/" && a_digits <= 2 && b_digits <= 2 && day_and_month(a, b) && dated_before(tokens, at);
    ((month_and_year && mark == "/") || said).then_some(at + 3)
}

/// Whether the words before a place say that a date comes, and those behind do not say otherwise.
fn dated_before(tokens: &Tokens<'_>, at: usize) -> bool {
    const SAY: &[&str] =
        &["on", "from", "dated", "since", "until", "till", "date", "dob", "admitted", "discharged"];
    const COUNTED: &[&str] =
        &["images", "image", "views", "slices", "films", "of", "mm", "cm", "lead", "leads"];
    let last = |back: usize| at.checked_sub(back).is_some_and(|i| tokens.is_any(i, SAY));
    let colon = at > 0 && tokens.is(at - 1, ":");
    (last(1) || (colon && last(2))) && !tokens.is_any(at + 3, COUNTED)
}

/// The month that a word names, in full or by three letters (Sept has four).
fn month(word: &str) -> bool {
    const MONTHS: [&str; 12] = [
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    ];
    let word = word.to_lowercase();
    word == "sept" || MONTHS.iter().any(|m| *m == word || (word.len() == 3 && m.starts_with(&word)))
}

/// A day of a month as a number, with or without its ending.
fn day(tokens: &Tokens<'_>, at: usize) -> bool {
    let text = tokens.text(at);
    let lower = text.to_ascii_lowercase();
    let digits = ["st", "nd", "rd", "th"].iter().find_map(|e| lower.strip_suffix(e)).unwrap_or(&lower);
    digits.len() <= 2 && digits.parse::<u8>().is_ok_and(|d| (1..=31).contains(&d))
}

fn written(tokens: &Tokens<'_>, at: usize) -> Option<usize> {
    let near = |i: usize| tokens.gap(i) <= Gap::Line;
    let skip = |i: usize, marks: &[&str]| if near(i) && tokens.is_any(i, marks) { i + 1 } else { i };
    let year = |i: usize| {
        let i = skip(i, &[",", "-", "/"]);
        let short = tokens.is(i, "'") || tokens.is(i, "’");
        let at = i + usize::from(short);
        let number = tokens.number(at).filter(|_| near(at));
        number.is_some_and(|(v, d)| is_year(v, d) || (short && d == 2)).then_some(at + 1)
    };
    if month(tokens.text(at)) && tokens.shape(at) == Shape::Word {
        let next = skip(at + 1, &[".", "-", "/"]);
        // "may 2" is a verb and a number, "May 2" is not.
        let verb = tokens.is(at, "may") && !tokens.capital(at);
        if near(next) && day(tokens, next) && !verb && !measured(tokens, next + 1) {
            return Some(year(next + 1).unwrap_or(next + 1));
        }
        return year(at + 1).filter(|_| !verb);
    }
    if day(tokens, at) {
        let next = skip(skip(at + 1, &["-", "/", "."]), &["of"]);
        if near(next) && month(tokens.text(next)) && tokens.shape(next) == Shape::Word {
            let after = skip(next + 1, &["."]);
            let verb = tokens.is(next, "may") && !tokens.capital(next);
            return year(after).or((!verb).then_some(next + 1));
        }
    }
    None
}

/// Whether a unit or a decimal follows, so that a number before was no day.
fn measured(tokens: &Tokens<'_>, at: usize) -> bool {
    tokens.is_any(at, &["mm", "cm", "x", "%"])
        || (tokens.glued(at) && tokens.is(at, ".") && tokens.glued(at + 1))
}

/// `20190512`, `20190512T1422`, `12MAY2019`.
fn compact(tokens: &Tokens<'_>, at: usize) -> Option<usize> {
    let text = tokens.text(at);
    let number = |range: std::ops::Range<usize>| text.get(range).and_then(|t| t.parse::<i64>().ok());
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 8 || (digits == 14 && text.len() == 14) {
        let (y, m, d) = (number(0..4)?, number(4..6)?, number(6..8)?);
        let rest = &text[8..];
        let timed = rest.is_empty() || rest.trim_start_matches('T').bytes().all(|b| b.is_ascii_digit());
        return (timed && (1850..=2150).contains(&y) && is_day(y, m, d)).then_some(at + 1);
    }
    if tokens.shape(at) == Shape::Mixed && (1..=2).contains(&digits) {
        let rest = &text[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let year = rest[letters..].parse::<i64>().ok().filter(|_| letters > 0);
        let year = year.filter(|y| is_year(*y, rest.len() - letters) || rest.len() - letters == 2);
        return (month(&rest[..letters]) && year.is_some()).then_some(at + 1);
    }
    None
}

/// The end of a time of day behind a date, which goes with it: `at 14:22:05 PM`.
fn time(tokens: &Tokens<'_>, at: usize) -> usize {
    let mut next = at;
    if tokens.gap(next) <= Gap::Space && tokens.is_any(next, &[",", "at"]) {
        next += 1;
    }
    let hour = tokens.number(next).is_some_and(|(v, d)| v < 25 && d <= 2) && tokens.gap(next) <= Gap::Space;
    let of_clock =
        |i: usize| tokens.is(i, ":") && tokens.glued(i) && tokens.number(i + 1).is_some_and(|n| n.1 == 2);
    if !hour || !of_clock(next + 1) {
        return at;
    }
    next += 3;
    if of_clock(next) {
        next += 2;
    }
    if tokens.gap(next) <= Gap::Space && tokens.is_any(next, &["am", "pm"]) {
        next += 1;
    }
    next
}
