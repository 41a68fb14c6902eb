//! Names of people: behind a title, behind a label, before a degree. Deliberately absent: names that nothing
//! announces, unless the study's header knows them.

use super::Found;
use super::tokens::{Gap, Shape, Tokens};
use super::words::{is_common, is_field};
use crate::deidentify::count::Kind;

/// Most words of one name.
const NAME_MAX: usize = 6;

fn found(from: usize, to: usize) -> Option<Found> {
    (to > from).then_some(Found { from, to, kind: Kind::Name })
}

/// `Dr. Jane A. Doe`, `Mrs Doe`, `Drs. Doe and Roe`.
pub(super) fn titled(tokens: &Tokens<'_>, at: usize) -> Option<Found> {
    let from = behind_title(tokens, at)?;
    let several = tokens.is(at, "drs");
    let loud = tokens.shouted(at) && tokens.text(at).len() > 1;
    let mut to = run(tokens, from, true, if loud { 2 } else { NAME_MAX });
    while several && to > from && to < from + 24 {
        let next = to
            + usize::from(tokens.is(to, ","))
            + usize::from(tokens.is_any(to, &["and", "&"]) || tokens.is_any(to + 1, &["and", "&"]));
        let end = run(tokens, next, true, NAME_MAX);
        if next == to || end == next {
            break;
        }
        to = end;
    }
    found(from, to)
}

/// Where the name behind a title begins.
fn behind_title(tokens: &Tokens<'_>, at: usize) -> Option<usize> {
    const TITLES: &[&str] = &["dr", "drs", "mr", "mrs", "ms", "prof"];
    const WORDS: &[&str] = &["Professor", "Doctor", "Miss", "Mister", "Madam", "Sister", "Nurse"];
    let text = tokens.text(at);
    let dot = tokens.is(at + 1, ".") && tokens.glued(at + 1);
    let from = at + 1 + usize::from(dot);
    let near = tokens.gap(from) <= Gap::Line && (dot || !tokens.glued(from));
    if !near || (tokens.glued(at) && at > 0 && tokens.shape(at - 1) != Shape::Mark) {
        return None;
    }
    let lower_name = || {
        let word = tokens.text(from);
        tokens.shape(from) == Shape::Word && word.len() > 2 && !is_common(word)
    };
    if tokens.is_any(at, TITLES) {
        // MR is a scanner and MS a disease; so are their lower-case forms.
        let scanner = tokens.is_any(at, &["mr", "ms", "dr"]) && !dot;
        let ok = match (tokens.capital(at), tokens.shouted(at)) {
            (true, false) => tokens.capital(from),
            (true, true) if scanner => {
                tokens.is(at, "dr") && tokens.capital(from) && !is_common(tokens.text(from))
            }
            (true, true) => tokens.capital(from),
            _ => (tokens.is_any(at, &["dr", "drs", "mrs"]) || dot) && lower_name(),
        };
        return ok.then_some(from);
    }
    let word = WORDS.contains(&text) && tokens.capital(from) && !is_common(tokens.text(from));
    word.then_some(from)
}

/// The end of a name that begins at `from`, or `from` when none does. After a title, the first word may be a
/// common one: there are people called Small.
fn run(tokens: &Tokens<'_>, from: usize, after_title: bool, most: usize) -> usize {
    let mut to = from;
    let mut words = 0;
    let mut at = from;
    while words < most && at < tokens.len() {
        if at > from && tokens.gap(at) > Gap::Line {
            break;
        }
        let text = tokens.text(at);
        // A letter is an article at the beginning, and an initial behind a name or before a point.
        let dotted = tokens.is(at + 1, ".") && tokens.glued(at + 1);
        let letter = text.chars().count() == 1 && (words > 0 || dotted);
        let common = is_common(text) && !(after_title && words == 0) && !letter;
        let lower = after_title && words == 0 && tokens.shape(at) == Shape::Word && text.len() > 2;
        let family = (at..at + 3).find(|&i| !is_particle(tokens.text(i))).filter(|&i| i > at);
        if let Some(family) = family.filter(|&i| tokens.capital(i) && !is_common(tokens.text(i))) {
            at = family;
            continue;
        }
        if (!tokens.capital(at) && !lower) || common || is_redacted(text) {
            break;
        }
        // A word that a colon follows is the next label.
        if tokens.is(at + 1, ":") {
            break;
        }
        words += 1;
        at += 1;
        to = at;
        let initial = text.chars().count() == 1;
        if initial && tokens.is(at, ".") && tokens.glued(at) {
            at += 1;
            to = at;
        } else if tokens.is(at, "-") && tokens.glued(at) && tokens.glued(at + 1) && tokens.capital(at + 1) {
            at += 1;
        } else if lower && !tokens.capital(at - 1) {
            break;
        }
    }
    // An initial's point that ends the sentence goes with it; nothing is lost.
    to
}

fn is_particle(text: &str) -> bool {
    [
        "van", "von", "der", "den", "de", "del", "della", "da", "dos", "la", "le", "di", "bin", "ibn", "al",
        "el", "ten", "ter", "zu",
    ]
    .contains(&text)
}

/// `XXXX` and the like, which others have put in place of a name.
fn is_redacted(text: &str) -> bool {
    text.len() > 1 && text.bytes().all(|b| matches!(b, b'X' | b'x'))
}

/// `Signed by Jane Doe`, `discussed with Jane Doe`, `Patient name: DOE, JANE`, `Radiologist: Jane Doe`.
pub(super) fn labelled(tokens: &Tokens<'_>, at: usize) -> Option<Found> {
    if tokens.shape(at) != Shape::Word {
        return None;
    }
    if let Some(from) = behind_deed(tokens, at) {
        return found(from, run(tokens, from, false, NAME_MAX).max(in_reverse(tokens, from)));
    }
    if !tokens.is(at + 1, ":") || tokens.gap(at + 2) == Gap::Blank {
        return None;
    }
    let from = at + 2;
    if tokens.is_any(at, &["name", "names", "surname", "forename", "firstname", "lastname", "alias"]) {
        return found(from, field_end(tokens, from));
    }
    const PEOPLE: &[&str] = &[
        "patient",
        "physician",
        "physicians",
        "radiologist",
        "radiologists",
        "attending",
        "resident",
        "fellow",
        "technologist",
        "technician",
        "provider",
        "clinician",
        "surgeon",
        "doctor",
        "transcriptionist",
        "dictator",
        "referring",
        "ordering",
        "requesting",
        "reader",
        "author",
        "nurse",
        "mother",
        "father",
        "spouse",
        "guardian",
        "contact",
        "by",
        "to",
        "md",
        "cc",
        "interpreter",
        "operator",
        "staff",
        "consultant",
    ];
    if !tokens.is_any(at, PEOPLE) || tokens.gap(from) == Gap::Line {
        return None;
    }
    found(from, run(tokens, from, false, NAME_MAX).max(in_reverse(tokens, from)))
}

/// Where the name behind a deed begins: `dictated by`, `spoke with`.
fn behind_deed(tokens: &Tokens<'_>, at: usize) -> Option<usize> {
    const BY: &[&str] = &[
        "signed",
        "dictated",
        "interpreted",
        "read",
        "reviewed",
        "transcribed",
        "verified",
        "approved",
        "reported",
        "performed",
        "ordered",
        "requested",
        "seen",
        "authenticated",
        "finalized",
        "entered",
        "typed",
        "prepared",
        "supervised",
        "attested",
        "called",
        "examined",
        "referred",
        "authorized",
        "electronically",
    ];
    const WITH: &[&str] = &["discussed", "communicated", "spoke", "spoken", "reviewed", "shared"];
    const TO: &[&str] = &[
        "communicated",
        "conveyed",
        "reported",
        "called",
        "relayed",
        "telephoned",
        "given",
        "telephonically",
    ];
    const ALONE: &[&str] = &["notified", "paged", "informed", "contacted"];
    let verb = |words: &[&str], link: &[&str]| tokens.is_any(at, words) && tokens.is_any(at + 1, link);
    let from = if verb(BY, &["by"]) || verb(WITH, &["with"]) || verb(TO, &["to"]) {
        at + 2
    } else if tokens.is_any(at, ALONE) {
        at + 1
    } else {
        return None;
    };
    let from = from + usize::from(tokens.is(from, ":"));
    // A title has a rule of its own.
    (tokens.gap(from) <= Gap::Line && behind_title(tokens, from).is_none()).then_some(from)
}

/// The end of `DOE, JANE A`, or `from`.
fn in_reverse(tokens: &Tokens<'_>, from: usize) -> usize {
    let family = run(tokens, from, false, 3);
    if family == from || !tokens.is(family, ",") {
        return from;
    }
    let given = run(tokens, family + 1, false, 3);
    if given > family + 1 && tokens.gap(family + 1) <= Gap::Space { given } else { from }
}

/// The end of the value of a field that holds a name: any words, up to the next column, line or label.
fn field_end(tokens: &Tokens<'_>, from: usize) -> usize {
    let mut to = from;
    for at in from..from + 12 {
        let broken = at > from && tokens.gap(at) > Gap::Space;
        let label = tokens.is(at + 1, ":") || is_field(tokens.text(at));
        let word = tokens.shape(at) == Shape::Word && !is_redacted(tokens.text(at));
        let mark = tokens.is_any(at, &[",", "^", "-", "."]);
        if at >= tokens.len() || broken || (!word && !mark) || (word && label) {
            break;
        }
        if word {
            to = at + 1;
        }
    }
    to
}

/// `Jane Doe, MD`, `JANE A. DOE, M.D.`.
pub(super) fn with_degree(tokens: &Tokens<'_>, at: usize) -> Option<Found> {
    if !tokens.capital(at) || (at > 0 && tokens.glued(at)) {
        return None;
    }
    let to = run(tokens, at, false, 4);
    let degree = to + usize::from(tokens.is(to, ","));
    let near = to > at && tokens.gap(degree) == Gap::Space;
    const DEGREES: &[&str] = &["MD", "DO", "PhD", "RN", "FRCR", "MBBS", "MBChB", "NP", "FACR", "RT"];
    let plain = DEGREES.contains(&tokens.text(degree)) && (degree > to || tokens.is_any(degree, &["md"]));
    let dotted = tokens.is(degree, "m")
        && tokens.is(degree + 1, ".")
        && tokens.is(degree + 2, "d")
        && tokens.glued(degree + 2);
    let doctor = tokens.is(degree, "d") && tokens.is(degree + 1, ".") && tokens.is(degree + 2, "o");
    (near && (plain || dotted || doctor)).then_some(Found { from: at, to, kind: Kind::Name })
}
