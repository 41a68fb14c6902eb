//! Reports: their sections and sentences.
//!
//! Owns: which lines of a report belong to which section, by headers in many spellings, and the text that is
//! stored and searched. Works on anything: text without a header is one section, and what is longer than
//! [`REPORT_BYTES_MAX`] is cut. Time and memory grow with the length of the text and nothing else.
//! Deliberately absent: what the sentences say (see `findings`) and who is named in them (see `deidentify`).

mod headers;
mod lines;
#[cfg(test)]
mod tests;

use diptych_core::sentences;

/// Most bytes of a report that are read; what follows is left out.
pub const REPORT_BYTES_MAX: usize = 64 * 1024;

/// Sections back to which one is compared, to be left out where it repeats them.
const REPEATED_WITHIN: usize = 32;

/// What a section is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SectionKind {
    /// Which examination it is: EXAMINATION, STUDY, and a title above the first header.
    Examination,
    /// Why it was asked for: INDICATION, HISTORY, REASON FOR EXAM. Says nothing of what was found.
    Indication,
    /// How it was made: TECHNIQUE, PROCEDURE.
    Technique,
    /// What it was compared with: COMPARISON, PRIOR STUDIES.
    Comparison,
    /// What was seen: FINDINGS, DESCRIPTION, and what FINDINGS AND IMPRESSION say in one.
    Findings,
    /// What follows from it: IMPRESSION, CONCLUSION, OPINION, SUMMARY.
    Impression,
    /// What to do next: RECOMMENDATION, FOLLOW-UP.
    Recommendation,
    /// What was added or corrected later.
    Addendum,
    /// Whom it was told to.
    Notification,
    /// A first reading that a final report replaces: WET READ.
    Preliminary,
    /// Text without a header, or below REPORT.
    Body,
    /// Whose it is, and who dictated, read and signed it.
    Signature,
}

impl SectionKind {
    /// Its header as it is written in [`Report::text`].
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Examination => "EXAMINATION",
            Self::Indication => "INDICATION",
            Self::Technique => "TECHNIQUE",
            Self::Comparison => "COMPARISON",
            Self::Findings => "FINDINGS",
            Self::Impression => "IMPRESSION",
            Self::Recommendation => "RECOMMENDATION",
            Self::Addendum => "ADDENDUM",
            Self::Notification => "NOTIFICATION",
            Self::Preliminary => "WET READ",
            Self::Body => "REPORT",
            Self::Signature => "SIGNATURE",
        }
    }
}

/// A section of a report; it has words that are not redacted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// What it is for.
    pub kind: SectionKind,
    /// Its text without the header: one line for each paragraph and for each item of a list, wrapped
    /// lines joined, marks of items left out.
    pub text: String,
}

/// A report by its sections, in the order in which they stand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    sections: Vec<Section>,
}

impl Report {
    /// Reads a report. Text before a line `FINAL REPORT` is not part of it, addenda aside; sections with
    /// nothing but redactions (`___`, `XXXX`) and sections repeated word for word are left out.
    pub fn parse(text: &str) -> Self {
        let text = &text[..headers::floor(text, REPORT_BYTES_MAX)];
        let text = text.trim_start_matches('\u{feff}').replace("\r\n", "\n").replace('\r', "\n");
        let mut reader = Reader::default();
        for line in text.lines() {
            reader.line(line);
        }
        reader.finish()
    }

    /// Its sections.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// What it comes to: the impression, else the findings, else the last paragraph; `None` without text.
    pub fn impression(&self) -> Option<&str> {
        let of = |kind| self.sections.iter().find(|section| section.kind == kind).map(|s| s.text.as_str());
        let last = || {
            let told = self
                .sections
                .iter()
                .rev()
                .find(|s| !matches!(s.kind, SectionKind::Signature | SectionKind::Notification));
            told.and_then(|section| section.text.lines().next_back())
        };
        of(SectionKind::Impression).or_else(|| of(SectionKind::Findings)).or_else(last)
    }

    /// What is stored and searched: one line for each section, its header in front (`FINDINGS: ...`).
    /// Signatures and notifications are left out, and a first reading where there is a final one; text
    /// without any header stays as it is. Reading it again gives the same sections.
    pub fn text(&self) -> String {
        let told: Vec<&Section> = self.sections.iter().filter(|section| self.is_told(section)).collect();
        if let [Section { kind: SectionKind::Body, text }] = told[..] {
            return one_line(text);
        }
        let lines = told.iter().map(|s| format!("{}: {}", s.kind.as_str(), one_line(&s.text)));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// The sentences that describe the study, in order, with the section of each: those of findings,
    /// impression, addenda and text without header, not those of indication, comparison or advice.
    pub fn sentences(&self) -> impl Iterator<Item = (SectionKind, &str)> {
        let describing = self.sections.iter().filter(|section| self.describes(section));
        describing.flat_map(|section| sentences(&section.text).map(|sentence| (section.kind, sentence)))
    }

    fn describes(&self, section: &Section) -> bool {
        match section.kind {
            SectionKind::Findings | SectionKind::Impression | SectionKind::Addendum | SectionKind::Body => {
                true
            }
            SectionKind::Preliminary => !self.is_final(),
            _ => false,
        }
    }

    fn is_told(&self, section: &Section) -> bool {
        match section.kind {
            SectionKind::Signature | SectionKind::Notification => false,
            SectionKind::Preliminary => !self.is_final(),
            _ => true,
        }
    }

    /// Whether something other than a first reading describes the study.
    fn is_final(&self) -> bool {
        let of = |kind: SectionKind| self.sections.iter().any(|section| section.kind == kind);
        of(SectionKind::Findings) || of(SectionKind::Impression) || of(SectionKind::Body)
    }
}

/// Paragraphs and items in one line, each with an end.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for paragraph in text.lines() {
        if !line.is_empty() {
            if !line.ends_with(['.', '!', '?', ':', ';']) {
                line.push('.');
            }
            line.push(' ');
        }
        line.push_str(paragraph);
    }
    line
}

/// Sections while lines come in.
#[derive(Default)]
struct Reader<'a> {
    done: Vec<Section>,
    /// The kind of the section that lines are added to; `None` above the first header.
    kind: Option<SectionKind>,
    lines: Vec<&'a str>,
    /// Whether the last line of the section was blank.
    blank: bool,
    /// Whether the first section stands above the first header.
    titled: bool,
}

impl<'a> Reader<'a> {
    fn line(&mut self, line: &'a str) {
        let bare = line.trim_matches(|c: char| c.is_whitespace() || matches!(c, '*' | '_' | '#' | ':' | '='));
        if bare.eq_ignore_ascii_case("final report") {
            self.close();
            self.done.retain(|section| section.kind == SectionKind::Addendum);
            self.kind = None;
            self.titled = false;
            return;
        }
        if bare.is_empty() {
            self.blank |= self.lines.last().is_some_and(|last| !last.is_empty());
            self.lines.push("");
            return;
        }
        if self.blank && self.kind.is_some_and(ends_at_blank) {
            self.open(SectionKind::Body);
        }
        self.blank = false;
        // What is not yet added begins at `rest`, what is not yet looked at for headers at `from`.
        let (mut rest, mut from) = (0, 0);
        while let Some(header) = headers::find(line, from) {
            from = header.end.min(line.len());
            match header.kind {
                Some(kind) => {
                    self.add(&line[rest..header.start]);
                    self.open(kind);
                    rest = from;
                }
                // Below a header that describes, `LUNGS:` is only a heading; elsewhere the study begins.
                None if self.kind.is_some_and(ends_at_blank) || self.is_new_body() => {
                    self.open(SectionKind::Findings)
                }
                None => {}
            }
        }
        self.add(&line[rest..]);
    }

    /// Whether a blank line has just ended a section, and nothing followed yet.
    fn is_new_body(&self) -> bool {
        self.kind == Some(SectionKind::Body) && self.lines.is_empty()
    }

    fn add(&mut self, text: &'a str) {
        if !text.trim().is_empty() {
            self.lines.push(text);
        }
    }

    fn open(&mut self, kind: SectionKind) {
        self.close();
        self.kind = Some(kind);
    }

    fn close(&mut self) {
        let text = lines::unwrap(&self.lines);
        self.lines.clear();
        self.blank = false;
        if !is_redacted(&text) {
            let kind = self.kind.unwrap_or(SectionKind::Body);
            let section = Section { kind, text };
            if !self.done.iter().rev().take(REPEATED_WITHIN).any(|other| *other == section) {
                self.titled |= self.kind.is_none() && self.done.is_empty();
                self.done.push(section);
            }
        }
    }

    fn finish(mut self) -> Report {
        self.close();
        let described = |s: &Section| matches!(s.kind, SectionKind::Findings | SectionKind::Impression);
        // What stands above the first header of a report that has headers names the examination.
        if self.titled
            && self.done.iter().any(described)
            && let Some(first) = self.done.first_mut().filter(|first| first.kind == SectionKind::Body)
        {
            first.kind = SectionKind::Examination;
        }
        Report { sections: self.done }
    }
}

/// Sections that a blank line ends: what follows without a header describes the study.
fn ends_at_blank(kind: SectionKind) -> bool {
    use SectionKind::{Comparison, Examination, Indication, Notification, Technique};
    matches!(kind, Examination | Indication | Technique | Comparison | Notification)
}

/// Whether nothing is left of a text but redactions and punctuation.
fn is_redacted(text: &str) -> bool {
    let mut words = text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
    words.all(|word| word.chars().all(|c| c == '_') || word.len() >= 2 && word.chars().all(|c| c == 'X'))
}
