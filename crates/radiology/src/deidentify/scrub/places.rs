//! Where people live and are treated: postal addresses, and the names of hospitals and clinics.
//! Deliberately absent: cities and countries alone.

use super::Found;
use super::tokens::{Gap, Shape, Tokens};
use super::words::is_common;
use crate::deidentify::count::Kind;

const STREETS: &[&str] = &[
    "Street",
    "St",
    "Avenue",
    "Ave",
    "Road",
    "Rd",
    "Drive",
    "Lane",
    "Ln",
    "Boulevard",
    "Blvd",
    "Court",
    "Ct",
    "Way",
    "Place",
    "Pl",
    "Terrace",
    "Highway",
    "Hwy",
    "Parkway",
    "Pkwy",
    "Square",
    "Circle",
    "Crescent",
    "Close",
];

/// `12 Long Street, Apt 4, Springfield, IL 62704`, `P.O. Box 12`, `Lange Straße 12`.
pub(super) fn address(tokens: &Tokens<'_>, at: usize) -> Option<Found> {
    let to = street(tokens, at).or_else(|| box_number(tokens, at)).or_else(|| street_first(tokens, at));
    let (from, to) = match to {
        Some(to) => (at, town(tokens, to)),
        None => (at, state_and_code(tokens, at)?),
    };
    Some(Found { from, to, kind: Kind::Address })
}

fn street(tokens: &Tokens<'_>, at: usize) -> Option<usize> {
    let number = tokens.number(at).is_some_and(|(_, digits)| digits <= 5)
        || (tokens.shape(at) == Shape::Mixed
            && tokens.text(at).len() <= 6
            && tokens.text(at).as_bytes()[0].is_ascii_digit());
    if !number || (at > 0 && tokens.glued(at)) {
        return None;
    }
    let mut i = at + 1;
    while i < at + 7 && tokens.gap(i) == Gap::Space {
        let ordinal = tokens.shape(i) == Shape::Mixed;
        if !tokens.capital(i) && !ordinal {
            return None;
        }
        let named = i > at + 1;
        let suffix = STREETS.iter().any(|s| tokens.text(i) == *s || tokens.text(i) == s.to_ascii_uppercase());
        i += 1;
        if suffix && named {
            return Some(i + usize::from(tokens.is(i, ".") && tokens.glued(i) && tokens.is(i + 1, ",")));
        }
        i += usize::from(tokens.is(i, ".") && tokens.glued(i) && tokens.text(i - 1).len() <= 2);
    }
    None
}

/// A word that ends as streets do in German, and a number.
fn street_first(tokens: &Tokens<'_>, at: usize) -> Option<usize> {
    let word = tokens.text(at).to_lowercase();
    let ends = ["straße", "strasse", "gasse", "allee"].iter().any(|s| word.ends_with(s) && word != *s);
    let named = ends || (tokens.is_any(at + 1, &["Straße", "Strasse", "Allee"]) && tokens.capital(at));
    let number = at + if ends { 1 } else { 2 };
    let number = number + usize::from(tokens.is(number, "."));
    (named && tokens.number(number).is_some() && tokens.gap(number) == Gap::Space).then_some(number + 1)
}

fn box_number(tokens: &Tokens<'_>, at: usize) -> Option<usize> {
    let start = if tokens.is(at, "po") {
        at + 1
    } else if tokens.is(at, "p") && tokens.is(at + 1, ".") && tokens.is(at + 2, "o") {
        at + 3 + usize::from(tokens.is(at + 3, "."))
    } else {
        return None;
    };
    (tokens.is(start, "box") && tokens.number(start + 1).is_some()).then_some(start + 2)
}

/// The end of what follows a street: flat, town, state and code, each behind a comma or on the next line.
fn town(tokens: &Tokens<'_>, at: usize) -> usize {
    let mut to = at;
    for _ in 0..3 {
        let comma = tokens.is(to, ",") && tokens.gap(to + 1) <= Gap::Line;
        let next_line = tokens.gap(to) == Gap::Line;
        if !comma && !next_line {
            break;
        }
        let part = to + usize::from(comma);
        if let Some(end) = state_and_code(tokens, part).or_else(|| code_and_town(tokens, part)) {
            return end;
        }
        if tokens.is_any(part, &["apt", "apartment", "suite", "unit", "flat", "floor", "room"]) {
            let number = part + 1 + usize::from(tokens.is_any(part + 1, &["#", "."]));
            if tokens.gap(number) <= Gap::Space && !tokens.is_any(number, &[",", "."]) {
                to = number + 1;
                continue;
            }
        }
        let end = capitals(tokens, part, 4);
        if end == part || next_line {
            break;
        }
        to = end;
        if let Some(end) = code(tokens, to) {
            return end;
        }
    }
    to
}

/// The end of some words with capitals that are no common ones.
fn capitals(tokens: &Tokens<'_>, from: usize, most: usize) -> usize {
    let mut to = from;
    while to < from + most
        && tokens.capital(to)
        && (to == from || tokens.gap(to) == Gap::Space)
        && !is_common(tokens.text(to))
    {
        to += 1;
    }
    to
}

/// `Springfield, IL 62704-1234` or `IL 62704`.
fn state_and_code(tokens: &Tokens<'_>, at: usize) -> Option<usize> {
    let town = capitals(tokens, at, 3);
    let state = if town > at && tokens.is(town, ",") { town + 1 } else { at };
    let is_state = tokens.shouted(state) && tokens.text(state).len() == 2;
    (is_state && !is_common(tokens.text(at))).then(|| code(tokens, state + 1)).flatten()
}

fn code(tokens: &Tokens<'_>, at: usize) -> Option<usize> {
    let digits = |i: usize, n: usize| tokens.number(i).is_some_and(|(_, d)| d == n);
    if !digits(at, 5) || tokens.gap(at) != Gap::Space {
        return None;
    }
    let long = tokens.is(at + 1, "-") && tokens.glued(at + 1) && tokens.glued(at + 2) && digits(at + 2, 4);
    Some(if long { at + 3 } else { at + 1 })
}

/// `80331 München`.
fn code_and_town(tokens: &Tokens<'_>, at: usize) -> Option<usize> {
    let five = tokens.number(at).is_some_and(|(_, digits)| digits == 5);
    (five && tokens.capital(at + 1) && tokens.gap(at + 1) == Gap::Space).then(|| capitals(tokens, at + 1, 2))
}

/// The name before `Hospital`, `Clinic`, `Medical Center`; the name behind `Hospital of`.
pub(super) fn institution(tokens: &Tokens<'_>, at: usize) -> Option<Found> {
    if !tokens.capital(at) || is_common(tokens.text(at)) || (at > 0 && tokens.glued(at)) {
        return None;
    }
    let mut to = at;
    while to < at + 8 && (to == at || tokens.gap(to) <= Gap::Line) {
        if to > at && is_house(tokens, to) {
            return Some(Found { from: at, to, kind: Kind::Institution });
        }
        let text = tokens.text(to);
        let linked = ["of", "and", "the", "&", "for"].contains(&text) && to > at && tokens.capital(to + 1);
        if tokens.capital(to) || linked {
            to += 1;
            // St. Mary's
            to += usize::from(tokens.is(to, ".") && tokens.glued(to) && text.len() <= 2);
            to += usize::from(tokens.is(to, "-") && tokens.glued(to) && tokens.glued(to + 1));
        } else {
            return None;
        }
    }
    None
}

fn is_house(tokens: &Tokens<'_>, at: usize) -> bool {
    const HOUSES: &[&str] = &[
        "Hospital",
        "Hospitals",
        "Clinic",
        "Clinics",
        "Infirmary",
        "Hospice",
        "Sanatorium",
        "Klinikum",
        "Krankenhaus",
        "Polyclinic",
    ];
    let capital =
        |word: &str, i: usize| tokens.text(i) == word || tokens.text(i) == word.to_ascii_uppercase();
    HOUSES.iter().any(|house| capital(house, at))
        || (["Medical", "Health", "Imaging", "Cancer", "Trauma", "Radiology"].iter().any(|w| capital(w, at))
            && ["Center", "Centre", "System", "Group", "Associates", "Partners"]
                .iter()
                .any(|w| capital(w, at + 1)))
}
