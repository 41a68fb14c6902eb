//! Header lines: which words announce which section.
//!
//! Owns: the spellings and where in a line a header may stand. Deliberately absent: what happens with the text
//! below it.

use super::SectionKind;

/// Longest spelling, in bytes; a colon further away from its line's start is looked at no further back.
const HEADER_BYTES_MAX: usize = 48;

/// Spellings in lower case, white space single. Several joined by "and", "&" or "/" are headers too.
const SPELLINGS: [(SectionKind, &[&str]); 12] = [
    (
        SectionKind::Examination,
        &[
            "examination",
            "exam",
            "exams",
            "examinations",
            "study",
            "exam type",
            "type of exam",
            "type of examination",
            "procedure name",
            "title",
            "modality",
            "exam date",
            "date of exam",
            "date of examination",
            "study date",
            "date of study",
            "date",
            "examination type",
            "imaging study",
            "exam description",
        ],
    ),
    (
        SectionKind::Indication,
        &[
            "indication",
            "indications",
            "clinical indication",
            "clinical indications",
            "history",
            "clinical history",
            "patient history",
            "medical history",
            "brief history",
            "reason for exam",
            "reason for examination",
            "reason for this exam",
            "reason for this examination",
            "reason for study",
            "reason for the study",
            "reason for the exam",
            "reason for request",
            "reason for referral",
            "reason",
            "clinical information",
            "clinical data",
            "clinical details",
            "clinical notes",
            "clinical note",
            "clinical statement",
            "clinical question",
            "clinical context",
            "clinical summary",
            "chief complaint",
            "presenting complaint",
            "admitting diagnosis",
            "preoperative diagnosis",
            "underlying medical condition",
            "history of present illness",
            "pertinent history",
            "hx",
            "hpi",
            "pmh",
            "question",
            "symptoms",
            "request",
            "exam indication",
            "indication for exam",
            "indication for study",
        ],
    ),
    (
        SectionKind::Technique,
        &[
            "technique",
            "techniques",
            "procedure",
            "procedures",
            "views",
            "number of views",
            "protocol",
            "technical factors",
            "technical details",
            "technical note",
            "contrast",
            "exposure",
            "radiation dose",
            "method",
            "imaging technique",
            "exam technique",
            "procedure comments",
        ],
    ),
    (
        SectionKind::Comparison,
        &[
            "comparison",
            "comparisons",
            "comparison study",
            "comparison studies",
            "comparison exam",
            "comparison exams",
            "comparison date",
            "compared to",
            "compared with",
            "comparison is made to",
            "comparison made to",
            "prior studies",
            "prior study",
            "prior exams",
            "priors",
            "prior",
            "previous studies",
            "previous study",
            "previous exams",
            "relevant prior studies",
            "relevant priors",
            "reference exam",
        ],
    ),
    (
        SectionKind::Findings,
        &[
            "findings",
            "finding",
            "radiographic findings",
            "imaging findings",
            "description",
            "observations",
            "observation",
            "result",
            "results",
            "findings of the study",
            "chest findings",
            "report of findings",
            "radiological findings",
            "radiology findings",
        ],
    ),
    (
        SectionKind::Impression,
        &[
            "impression",
            "impressions",
            "conclusion",
            "conclusions",
            "opinion",
            "opinions",
            "summary",
            "interpretation",
            "assessment",
            "diagnosis",
            "radiological diagnosis",
            "radiographic diagnosis",
            "final impression",
            "final diagnosis",
            "imp",
            "comment",
            "comments",
            "final interpretation",
            "overall impression",
            "summary of findings",
            "radiologist's impression",
        ],
    ),
    (
        SectionKind::Recommendation,
        &[
            "recommendation",
            "recommendations",
            "follow up",
            "follow-up",
            "followup",
            "advice",
            "plan",
            "suggestion",
            "suggestions",
            "suggested follow-up",
            "recommended follow-up",
        ],
    ),
    (SectionKind::Addendum, &["addendum", "addenda", "final addendum", "addendum report", "correction"]),
    (
        SectionKind::Notification,
        &[
            "notification",
            "notifications",
            "communication",
            "communications",
            "critical result",
            "critical results",
            "critical findings",
            "notification of critical result",
            "critical communication",
            "results communication",
        ],
    ),
    (
        SectionKind::Preliminary,
        &[
            "wet read",
            "wetread",
            "preliminary report",
            "preliminary read",
            "preliminary findings",
            "preliminary interpretation",
            "preliminary impression",
            "preliminary",
        ],
    ),
    (SectionKind::Body, &["report", "narrative", "dictation", "report text", "body", "final report"]),
    (
        SectionKind::Signature,
        &[
            "dictated by",
            "electronically signed by",
            "electronically signed",
            "signed by",
            "interpreted by",
            "transcribed by",
            "reported by",
            "read by",
            "reviewed by",
            "approved by",
            "verified by",
            "attending",
            "attending radiologist",
            "radiologist",
            "resident",
            "referring physician",
            "ordering physician",
            "report approved by",
            "signed",
            "dictated",
            "transcriptionist",
            "signature",
            // Whose report it is, as it stands at the top of a page.
            "patient name",
            "patient",
            "name",
            "patient id",
            "mrn",
            "medical record number",
            "accession",
            "accession number",
            "dob",
            "date of birth",
            "sex",
            "gender",
            "location",
            "account number",
        ],
    ),
];

/// A header within a line: what stands before it, its kind, and where its section's text begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub start: usize,
    pub end: usize,
    /// `None` where the words are none of ours, as in `FRONTAL AND LATERAL VIEWS:`.
    pub kind: Option<SectionKind>,
}

/// What a phrase announces, such as `FINDINGS` or `Findings and impression`.
pub(super) fn kind_of(phrase: &str) -> Option<SectionKind> {
    if phrase.len() > 2 * HEADER_BYTES_MAX {
        return None;
    }
    let words: Vec<String> = phrase.split_whitespace().map(str::to_lowercase).collect();
    let whole = words.join(" ").replace("(s)", "s");
    let whole = whole.trim_matches(|c: char| matches!(c, '*' | '_' | '#' | ' '));
    if let Some(kind) = spelled(whole) {
        return Some(kind);
    }
    let parts = whole.replace(" and ", "/").replace('&', "/");
    let mut kinds = parts.split('/').map(|part| spelled(part.trim()));
    let first = kinds.next()??;
    // Findings and impression in one are findings, to which an absent impression falls back.
    kinds.try_fold(first, |kept, next| {
        Some(if next? == SectionKind::Findings { SectionKind::Findings } else { kept })
    })
}

fn spelled(phrase: &str) -> Option<SectionKind> {
    SPELLINGS.iter().find(|(_, spellings)| spellings.contains(&phrase)).map(|&(kind, _)| kind)
}

/// The first header of a line at or after `from`, a character boundary.
///
/// At the start of a line a header ends in a colon, a dash or the line itself; further inside only a
/// colon ends it, and it is in capitals or follows the end of a sentence.
pub(super) fn find(line: &str, from: usize) -> Option<Header> {
    if from == 0
        && let Some(header) = leading(line)
    {
        return Some(header);
    }
    let colons = line.as_bytes().iter().enumerate().skip(from).filter(|(_, byte)| **byte == b':');
    for (colon, _) in colons {
        if let Some((start, kind)) = before_colon(line, from, colon) {
            return Some(Header { start, end: colon + 1, kind: Some(kind) });
        }
    }
    None
}

/// A header that opens the line.
fn leading(line: &str) -> Option<Header> {
    let bare = line.trim_end().trim_end_matches(['*', '_', ' ']);
    let start = line.len() - line.trim_start_matches([' ', '\t', '*', '_', '#', '-', '•']).len();
    let header = |end: usize, kind| Some(Header { start, end, kind });
    let text = bare.get(start..)?;
    if !text.starts_with(char::is_alphabetic) {
        return None;
    }
    let near = floor(text, 2 * HEADER_BYTES_MAX);
    if let Some(colon) = text[..near].find(':') {
        let phrase = &text[..colon];
        let capitals = is_capitals(phrase);
        let end = start + colon + 1;
        let end = end + line[end..].bytes().take_while(|b| *b == b'*' || *b == b'_').count().min(3);
        match kind_of(phrase) {
            Some(kind) if capitals || phrase.starts_with(char::is_uppercase) => {
                return header(end, Some(kind));
            }
            None if capitals && phrase.split_whitespace().count() <= 8 => return header(end, None),
            _ => {}
        }
    }
    if !text.starts_with(char::is_uppercase) {
        return None;
    }
    for dash in [" - ", " -- ", " – ", " — "] {
        if let Some(at) = text[..near].find(dash)
            && let Some(kind) = kind_of(&text[..at])
        {
            return header(start + at + dash.len(), Some(kind));
        }
    }
    let whole = text.trim_end_matches(['-', '–', '—', '.', ' ']);
    if let Some(kind) = kind_of(whole) {
        return header(line.len(), Some(kind));
    }
    capitals_then_words(text).and_then(|(end, kind)| header(start + end, Some(kind)))
}

/// `IMPRESSION No acute disease`: a single word in capitals before words that are not.
fn capitals_then_words(text: &str) -> Option<(usize, SectionKind)> {
    let (word, rest) = text.split_once(' ')?;
    let next = rest.split_whitespace().next()?;
    if word.len() < 4 || !is_capitals(word) || is_capitals(next) || !next.starts_with(char::is_alphabetic) {
        return None;
    }
    Some((word.len() + 1, kind_of(word)?))
}

/// The longest header that ends at a colon inside a line.
fn before_colon(line: &str, from: usize, colon: usize) -> Option<(usize, SectionKind)> {
    let first = ceil(line, from.max(colon.saturating_sub(HEADER_BYTES_MAX)));
    let window = line.get(first..colon)?;
    // No header has a colon within, so no byte is looked at for more than one.
    let first = first + window.rfind(':').map_or(0, |before| before + 1);
    for (at, _) in line[first..colon].char_indices().filter(|(_, c)| c.is_uppercase()) {
        let (before, phrase) = (&line[..first + at], &line[first + at..colon]);
        if before.ends_with(char::is_alphanumeric) {
            continue;
        }
        let before = before[from..].trim_end_matches([' ', '\t', '*', '_']);
        let after_sentence = before.is_empty() || before.ends_with(['.', '!', '?', ':', ';']);
        if (is_capitals(phrase) || after_sentence)
            && let Some(kind) = kind_of(phrase)
        {
            return Some((first + at, kind));
        }
    }
    None
}

/// Whether a phrase has letters, all of them capitals.
fn is_capitals(phrase: &str) -> bool {
    phrase.chars().any(char::is_alphabetic) && !phrase.chars().any(char::is_lowercase)
}

/// The last character boundary at or before `at`.
pub(super) fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

/// The first character boundary at or after `at`.
fn ceil(text: &str, at: usize) -> usize {
    (at..=text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len())
}
