//! Numbers that are somebody's: phones, social security and record numbers, UIDs, ages over 89; and e-mail
//! and web addresses. Deliberately absent: dates, and measurements, which stay.

use super::Found;
use super::tokens::{Gap, Shape, Tokens};
use crate::deidentify::count::Kind;

fn found(from: usize, to: usize, kind: Kind) -> Option<Found> {
    Some(Found { from, to, kind })
}

/// `name@host.org`, `https://host/path`, `www.host.org`.
pub(super) fn address_of_net(tokens: &Tokens<'_>, at: usize) -> Option<Found> {
    if at > 0 && tokens.glued(at) && !tokens.is_any(at - 1, &["(", "<", "[", ":", "\"", ","]) {
        return None;
    }
    let end = tokens.chunk_end(at);
    let mail = (at + 1..end.saturating_sub(1)).find(|&i| tokens.is(i, "@"));
    let scheme = tokens.is_any(at, &["http", "https", "ftp"]) && tokens.is(at + 1, ":") && end > at + 3;
    let www = tokens.is(at, "www") && tokens.is(at + 1, ".") && end > at + 2;
    if mail.is_none() && !scheme && !www {
        return None;
    }
    // Marks that end the sentence are not part of it.
    let last = (at..end).rev().find(|&i| tokens.shape(i) != Shape::Mark)?;
    found(at, last + 1, Kind::Contact)
}

/// `123-45-6789`.
pub(super) fn social_security(tokens: &Tokens<'_>, at: usize) -> Option<Found> {
    let digits = |i: usize, n: usize| tokens.number(i).is_some_and(|(_, d)| d == n);
    let dash = |i: usize| tokens.is(i, "-") && tokens.glued(i) && tokens.glued(i + 1);
    let is = digits(at, 3) && dash(at + 1) && digits(at + 2, 2) && dash(at + 3) && digits(at + 4, 4);
    is.then(|| Found { from: at, to: at + 5, kind: Kind::Identifier })
}

/// `(617) 555-0142`, `617.555.0142`, `+49 89 1234567`, and shorter ones behind "phone", "pager", "ext".
pub(super) fn phone(tokens: &Tokens<'_>, at: usize) -> Option<Found> {
    if at > 0 && tokens.glued(at) && tokens.is_any(at - 1, &[".", "-", "/"]) {
        return None;
    }
    if let Some(to) = groups(tokens, at) {
        return found(at, extension(tokens, to), Kind::Contact);
    }
    const LABELS: &[&str] = &[
        "phone",
        "telephone",
        "tel",
        "pager",
        "beeper",
        "fax",
        "ext",
        "extension",
        "mobile",
        "cell",
        "callback",
    ];
    if !tokens.is_any(at, LABELS) {
        return None;
    }
    let mut from = at + 1;
    while from < at + 4 && (tokens.is_any(from, &[".", ":", "#", "(", "number", "no", "is"])) {
        from += 1;
    }
    let mut to = from;
    let mut digits = 0;
    while to < from + 12 && tokens.gap(to) <= Gap::Space {
        match (tokens.shape(to), tokens.text(to)) {
            (Shape::Number, text) => digits += text.len(),
            (Shape::Mark, "-" | "(" | ")" | "+" | "." | "/") if tokens.shape(to + 1) == Shape::Number => {}
            _ => break,
        }
        to += 1;
    }
    (digits >= 3).then_some(Found { from, to, kind: Kind::Contact })
}

/// The end of a phone number in groups, with an area code or a country code.
fn groups(tokens: &Tokens<'_>, at: usize) -> Option<usize> {
    let digits = |i: usize, n: usize| tokens.number(i).is_some_and(|(_, d)| d == n);
    let tight = |i: usize| tokens.gap(i) <= Gap::Space;
    let mut i = at;
    if tokens.is(i, "+") && tokens.number(i + 1).is_some() {
        let (mut to, mut count) = (i + 1, 0);
        while to < i + 14 && tight(to) {
            match (tokens.shape(to), tokens.text(to)) {
                (Shape::Number, text) => count += text.len(),
                (Shape::Mark, "-" | "(" | ")" | "." | "/") if tokens.shape(to + 1) != Shape::Word => {}
                _ => break,
            }
            to += 1;
        }
        return (count >= 9).then_some(to);
    }
    if tokens.is(i, "1") && tokens.is_any(i + 1, &["-", "("]) {
        i += 1 + usize::from(tokens.is(i + 1, "-"));
    }
    if tokens.is(i, "(") && digits(i + 1, 3) && tokens.is(i + 2, ")") && tight(i + 3) {
        i += 3;
        i += usize::from(tokens.is(i, "-"));
    } else if digits(i, 3) && tokens.is_any(i + 1, &["-", "."]) && tokens.glued(i + 1) && tokens.glued(i + 2)
    {
        i += 2;
    } else if digits(i, 3) && tokens.gap(i + 1) == Gap::Space && tokens.is(i + 2, "-") {
        i += 1;
    } else {
        return None;
    }
    let rest = digits(i, 3) && tokens.is_any(i + 1, &["-", "."]) && tokens.glued(i + 2) && digits(i + 2, 4);
    (rest && tight(i)).then_some(i + 3)
}

fn extension(tokens: &Tokens<'_>, at: usize) -> usize {
    let mut i = at;
    if tokens.gap(i) <= Gap::Space && tokens.is_any(i, &["x", "ext", "extension"]) {
        i += 1 + usize::from(tokens.is(i + 1, "."));
        if tokens.number(i).is_some() {
            return i + 1;
        }
    }
    at
}

/// A number behind what says whose it is: `MRN: 123-45`, `Accession number A1234`, `ID# 77812`.
pub(super) fn labelled(tokens: &Tokens<'_>, at: usize) -> Option<Found> {
    const STRONG: &[&str] = &[
        "mrn",
        "accession",
        "acc",
        "acct",
        "ssn",
        "npi",
        "csn",
        "nhs",
        "hrn",
        "urn",
        "pid",
        "medicare",
        "medicaid",
    ];
    const WEAK: &[&str] = &[
        "id",
        "record",
        "case",
        "order",
        "visit",
        "chart",
        "account",
        "policy",
        "encounter",
        "license",
        "licence",
        "patient",
        "requisition",
        "exam",
        "study",
        "room",
        "bed",
        "identifier",
        "insurance",
        "member",
        "passport",
        "plate",
        "serial",
        "hospital",
        "reference",
        "ref",
        "mr",
    ];
    let strong = tokens.is_any(at, STRONG);
    if !strong && !tokens.is_any(at, WEAK) {
        return None;
    }
    let mut from = at + 1;
    let mut said = strong;
    while from < at + 5 && tokens.gap(from) <= Gap::Space {
        if tokens.is_any(from, &[":", "#", "number", "no", "num", "nr"]) {
            said = true;
        } else if !tokens.is_any(from, &["id", ".", "is", "(", "="]) {
            break;
        }
        from += 1;
    }
    let to = tokens.chunk_end(from);
    let last = (from..to).rev().find(|&i| tokens.shape(i) != Shape::Mark)?;
    let digits: usize =
        (from..=last).map(|i| tokens.text(i).bytes().filter(u8::is_ascii_digit).count()).sum();
    // A short number behind a weak label counts something.
    let enough = digits >= if strong { 3 } else { 4 };
    let near = tokens.gap(from) <= Gap::Space || tokens.gap(from) == Gap::Wide;
    (said && enough && near).then_some(Found { from, to: last + 1, kind: Kind::Identifier })
}

/// `1.2.840.113619.2.1`: five numbers and more, joined by points.
pub(super) fn uid(tokens: &Tokens<'_>, at: usize) -> Option<Found> {
    let mut to = at;
    while to < at + 64 && tokens.shape(to) == Shape::Number && (to == at || tokens.glued(to)) {
        if tokens.is(to + 1, ".") && tokens.glued(to + 1) && tokens.glued(to + 2) {
            to += 2;
            continue;
        }
        let groups = (to - at) / 2 + 1;
        return (groups >= 5).then_some(Found { from: at, to: to + 1, kind: Kind::Identifier });
    }
    None
}

/// Six digits and more, or a word of eight and more letters and digits with at least three digits.
pub(super) fn long_number(tokens: &Tokens<'_>, at: usize) -> Option<Found> {
    let text = tokens.text(at);
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    let decimal = |mark: usize, number: usize| {
        tokens.is_any(mark, &[".", ","]) && tokens.glued(mark.max(number)) && tokens.number(number).is_some()
    };
    let long = match tokens.shape(at) {
        Shape::Number => digits >= 6 && !(at > 1 && tokens.glued(at) && decimal(at - 1, at - 2)),
        Shape::Mixed => digits >= 6 || (digits >= 3 && text.chars().count() >= 8),
        _ => false,
    };
    if !long {
        return None;
    }
    // Joined by hyphens or slashes, it is one number: 1234567-8.
    let mut to = at + 1;
    while to < at + 8
        && tokens.glued(to)
        && tokens.is_any(to, &["-", "/"])
        && tokens.glued(to + 1)
        && tokens.shape(to + 1) != Shape::Mark
    {
        to += 2;
    }
    found(at, to, Kind::Identifier)
}

/// The number of an age over 89: `93-year-old`, `aged 93`, `Age: 93`.
pub(super) fn age(tokens: &Tokens<'_>, at: usize) -> Option<Found> {
    let (value, digits) = tokens.number(at).or_else(|| glued_age(tokens, at))?;
    if !(90..=130).contains(&value) || digits > 3 {
        return None;
    }
    let next = at + 1 + usize::from(tokens.is(at + 1, "-"));
    let behind =
        tokens.is_any(next, &["year", "years", "yo", "yr", "yrs", "y"]) && tokens.gap(next) <= Gap::Line;
    let unit = behind && (!tokens.is(next, "y") || tokens.is(next + 1, "/"));
    let of_time = tokens.is_any(next + 1, &["ago", "prior", "earlier", "later"]);
    let before = at > 0
        && (tokens.is_any(at - 1, &["aged", "age"])
            || (at > 1 && tokens.is(at - 1, ":") && tokens.is(at - 2, "age")));
    let glued = tokens.shape(at) == Shape::Mixed;
    ((unit && !of_time) || before || glued).then_some(Found { from: at, to: at + 1, kind: Kind::Age })
}

/// `93yo`, `093Y`.
fn glued_age(tokens: &Tokens<'_>, at: usize) -> Option<(i64, usize)> {
    let text = tokens.text(at).to_ascii_lowercase();
    let digits = ["yo", "y", "yr", "yrs"].iter().find_map(|unit| text.strip_suffix(unit))?;
    let fits = (2..=3).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    fits.then(|| digits.parse().ok()).flatten().map(|value| (value, digits.len()))
}
