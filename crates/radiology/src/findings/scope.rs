//! How far negation and uncertainty reach.
//!
//! Owns: what a sentence says of each finding in it. A sentence falls into clauses at words such as "but". Within a
//! clause a trigger before a finding reaches forward, through lists, up to a comma or an "and" that begins
//! something new ("no effusion, stable cardiomegaly"); one behind it reaches back over a list ("effusion and
//! pneumothorax are not seen"). Of several triggers the outermost counts ("no sign of possible pneumonia" is a
//! denial), but a denial within doubt stays one ("concern for pneumonia without effusion").
//! Deliberately absent: the phrases (see `lexicon`), and what several sentences come to.

use super::Observation::{self, *};
use super::Status::{self, *};
use super::lexicon::{Lexeme, Meaning, Quality, Trigger, lexemes};
use super::words::{Token, pieces};

/// What a sentence says of some observations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Statement {
    pub observations: &'static [Observation],
    pub status: Status,
    /// Whether it follows from a statement about a whole, as "the lungs are clear".
    pub blanket: bool,
}

/// Everything that a sentence says.
pub(super) fn statements(sentence: &str) -> Vec<Statement> {
    pieces(sentence).iter().flat_map(|tokens| Piece::new(tokens).statements()).collect()
}

/// A finding that is named, before it is known whether it is there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mention {
    pub meaning: Said,
    /// Tokens that name it; triggers stand outside of them.
    pub start: usize,
    pub end: usize,
    /// Where triggers before it may begin.
    pub floor: usize,
}

/// What a mention says when nothing is said of it, and when it is denied.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said {
    pub plain: Option<Statement>,
    pub denied: Option<Statement>,
    /// Whether doubt about it is worth telling.
    pub doubted: Option<Statement>,
}

pub(super) fn statement(observations: &'static [Observation], status: Status) -> Option<Statement> {
    Some(Statement { observations, status, blanket: false })
}

impl Said {
    pub fn of(observations: &'static [Observation], status: Status) -> Self {
        let absent = matches!(status, Absent);
        Self {
            plain: statement(observations, status),
            denied: if absent { None } else { statement(observations, Absent) },
            doubted: statement(observations, Uncertain),
        }
    }
}

/// Tokens without brackets, and the phrases in them.
struct Piece<'a> {
    tokens: &'a [Token],
    lexemes: Vec<Lexeme>,
}

/// The reach of a trigger over tokens, from `start` to before `end`.
#[derive(Debug, Clone, Copy)]
struct Scope {
    trigger: Trigger,
    /// Where the trigger itself stands.
    at: usize,
    start: usize,
    end: usize,
}

impl<'a> Piece<'a> {
    fn new(tokens: &'a [Token]) -> Self {
        Self { tokens, lexemes: lexemes(tokens) }
    }

    fn statements(&self) -> Vec<Statement> {
        let mut all = Vec::new();
        let mut last: Option<Statement> = None;
        for (start, end) in self.clauses() {
            let lexemes: Vec<Lexeme> =
                self.lexemes.iter().filter(|l| l.start >= start && l.end <= end).copied().collect();
            let clause = Clause { tokens: self.tokens, lexemes: &lexemes, start, end };
            let said = clause.statements();
            // "No definite effusion, though a small one cannot be excluded."
            if said.is_empty()
                && clause.has(Trigger::UncertainAfter)
                && let Some(before) = last.filter(|_| clause.refers_back())
            {
                all.push(Statement { status: Uncertain, ..before });
                if let Some(found) = all.iter().position(|statement| *statement == before) {
                    all.remove(found);
                }
            }
            last = said.last().copied().or(last);
            all.extend(said);
        }
        all
    }

    /// Token ranges between stops and terminators.
    fn clauses(&self) -> Vec<(usize, usize)> {
        let mut cuts: Vec<(usize, usize)> = (0..)
            .zip(self.tokens)
            .filter(|(_, token)| matches!(token, Token::Stop))
            .map(|(at, _)| (at, at + 1))
            .chain(self.lexemes.iter().filter(|l| l.meaning == Meaning::Terminator).map(|l| (l.start, l.end)))
            .collect();
        cuts.sort_unstable();
        let mut start = 0;
        let mut clauses = Vec::new();
        for (cut, after) in cuts.into_iter().chain([(self.tokens.len(), self.tokens.len())]) {
            if cut > start {
                clauses.push((start, cut));
            }
            start = after;
        }
        clauses
    }
}

/// A part of a sentence that no trigger reaches out of.
pub(super) struct Clause<'a> {
    pub tokens: &'a [Token],
    pub lexemes: &'a [Lexeme],
    pub start: usize,
    pub end: usize,
}

impl Clause<'_> {
    fn statements(&self) -> Vec<Statement> {
        let mut mentions = self.named();
        mentions.extend(self.described());
        mentions.sort_by_key(|mention| mention.start);
        let forward: Vec<Scope> = self.forward();
        let backward: Vec<Scope> = self.backward(&mentions);
        let alternatives = self.alternatives(&mentions);
        let mut all = Vec::new();
        for mention in &mentions {
            all.extend(self.resolve(mention, &forward, &backward, alternatives.contains(&mention.start)));
        }
        all
    }

    fn has(&self, trigger: Trigger) -> bool {
        self.lexemes.iter().any(|lexeme| lexeme.meaning == Meaning::Trigger(trigger))
    }

    /// Whether it speaks of what was named before.
    fn refers_back(&self) -> bool {
        self.tokens[self.start..self.end]
            .iter()
            .any(|t| matches!(t.word(), "one" | "ones" | "it" | "this" | "these" | "component"))
    }

    pub fn word(&self, at: usize) -> &str {
        if at < self.end { self.tokens[at].word() } else { "" }
    }

    /// Findings that a phrase names.
    fn named(&self) -> Vec<Mention> {
        let each = self.lexemes.iter().filter_map(|lexeme| {
            let meaning = match lexeme.meaning {
                Meaning::Finding(observations, status) => Said::of(observations, status),
                Meaning::General(observations, denied) => {
                    Said { denied: statement(denied, Absent), ..Said::of(observations, Present) }
                }
                Meaning::Denied(observation, status) => {
                    Said { plain: None, denied: statement(only(observation), status), doubted: None }
                }
                _ => return None,
            };
            Some(Mention { meaning, start: lexeme.start, end: lexeme.end, floor: self.start })
        });
        each.collect()
    }

    /// Triggers that reach forward, with the end of their reach, in order.
    fn forward(&self) -> Vec<Scope> {
        let each = self.lexemes.iter().enumerate().filter_map(|(n, lexeme)| {
            let trigger = match lexeme.meaning {
                Meaning::Trigger(
                    trigger @ (Trigger::NegationBefore
                    | Trigger::UncertainBefore
                    | Trigger::Differential
                    | Trigger::History),
                ) => trigger,
                Meaning::ClearOf => Trigger::NegationBefore,
                // "Borderline cardiomegaly": of what follows at once.
                Meaning::Quality(Quality::Borderline) => {
                    let end = (lexeme.end + 2).min(self.end);
                    return Some(Scope {
                        trigger: Trigger::UncertainBefore,
                        at: lexeme.start,
                        start: lexeme.end,
                        end,
                    });
                }
                _ => return None,
            };
            Some(Scope { trigger, at: lexeme.start, start: lexeme.end, end: self.reach(n, trigger) })
        });
        let asked = (self.start..self.end).filter_map(|at| match self.tokens[at] {
            Token::Question { before_word: true } => {
                Some(Scope { trigger: Trigger::UncertainBefore, at, start: at, end: self.end })
            }
            _ => None,
        });
        each.chain(asked).collect()
    }

    /// The end of what a trigger before findings reaches: the clause, or where something new begins.
    fn reach(&self, n: usize, trigger: Trigger) -> usize {
        if trigger == Trigger::Differential {
            return self.end;
        }
        for at in self.lexemes[n].end..self.end {
            let comma = self.tokens[at] == Token::Comma;
            // "No effusion seen, old fracture": what is not seen has been told.
            let told = comma && SEEN.contains(&self.word(at - 1));
            let joined = matches!(self.word(at), "and" | "with");
            if comma && trigger != Trigger::NegationBefore && !self.goes_on_with_or(at + 1)
                || told && !self.goes_on_with_or(at + 1)
                || (comma || joined) && self.begins_anew(at + 1)
            {
                return at;
            }
        }
        self.end
    }

    /// Whether words after a comma or an "and" begin a statement of their own.
    fn begins_anew(&self, at: usize) -> bool {
        let at = if self.word(at) == "and" { at + 1 } else { at };
        if matches!(self.word(at), "the" | "there" | "a" | "an" | "this" | "these") {
            return true;
        }
        let doubt = self
            .lexemes
            .iter()
            .any(|l| l.start == at && l.meaning == Meaning::Trigger(Trigger::UncertainBefore));
        (doubt || NEW.contains(&self.word(at))) && !self.goes_on_with_or(at)
    }

    /// Whether a list with "or" or "nor" goes on from a place.
    fn goes_on_with_or(&self, from: usize) -> bool {
        (from..self.end).any(|at| matches!(self.word(at), "or" | "nor"))
    }

    /// Triggers that reach back, and question marks.
    fn backward(&self, mentions: &[Mention]) -> Vec<Scope> {
        let each = self.lexemes.iter().filter_map(|lexeme| {
            let Meaning::Trigger(trigger) = lexeme.meaning else { return None };
            let at = lexeme.start;
            match trigger {
                Trigger::NegationNear => {
                    Some(Scope { trigger: Trigger::NegationAfter, at, start: at.saturating_sub(2), end: at })
                }
                // "Pneumothorax: no."
                Trigger::NegationBefore if lexeme.end == self.end && at > self.start => {
                    (self.tokens[at - 1] == Token::Colon).then_some(Scope {
                        trigger: Trigger::NegationAfter,
                        at,
                        start: self.reach_back(at),
                        end: at,
                    })
                }
                Trigger::NegationAfter | Trigger::UncertainAfter => {
                    let start = self.reach_back(at);
                    let before = mentions.iter().any(|m| m.start >= start && m.end <= at);
                    // "Resolved effusion", "unlikely pneumonia".
                    let (start, end) =
                        if before { (start, at) } else { (lexeme.end, (lexeme.end + 4).min(self.end)) };
                    Some(Scope { trigger, at, start, end })
                }
                _ => None,
            }
        });
        let asked = (self.start..self.end).filter_map(|at| match self.tokens[at] {
            Token::Question { before_word: false } => {
                Some(Scope { trigger: Trigger::UncertainAfter, at, start: self.start, end: at })
            }
            _ => None,
        });
        each.chain(asked).collect()
    }

    /// Where the reach of a trigger behind findings begins: past a list, but not past a comma without one.
    fn reach_back(&self, at: usize) -> usize {
        let mut list = false;
        // "Trace effusion, if any": a comma right before the trigger parts nothing, but in "on the right, none on
        // the left".
        let joined = at > self.start && self.tokens[at - 1] == Token::Comma && self.word(at) != "none";
        let at = if joined { at - 1 } else { at };
        for place in (self.start..at).rev() {
            let affirmed = self.lexemes.iter().any(|l| {
                l.end == place + 1
                    && matches!(l.meaning, Meaning::Trigger(Trigger::Affirmed | Trigger::NegationAfter))
            });
            if affirmed {
                return place + 1;
            }
            if self.tokens[place] == Token::Comma {
                list |= matches!(self.word(place + 1), "and" | "or" | "nor");
                if !list {
                    return place + 1;
                }
            }
        }
        self.start
    }

    /// Starts of mentions that "versus" or "or" offers for choice.
    fn alternatives(&self, mentions: &[Mention]) -> Vec<usize> {
        let things: Vec<(usize, usize)> = mentions
            .iter()
            .map(|m| (m.start, m.end))
            .chain(self.lexemes.iter().filter(|l| l.meaning == Meaning::Other).map(|l| (l.start, l.end)))
            .collect();
        let mut offered = Vec::new();
        for lexeme in self.lexemes.iter().filter(|l| l.meaning == Meaning::Trigger(Trigger::Alternative)) {
            let before =
                things.iter().filter(|t| t.1 <= lexeme.start && lexeme.start - t.1 <= 4).max_by_key(|t| t.1);
            let after =
                things.iter().filter(|t| t.0 >= lexeme.end && t.0 - lexeme.end <= 5).min_by_key(|t| t.0);
            // "Or" is between any two words; "versus" is not.
            let versus = self.word(lexeme.start) != "or" && self.word(lexeme.start) != "and";
            if versus || before.is_some() && after.is_some() {
                offered.extend(before.into_iter().chain(after).map(|thing| thing.0));
            }
        }
        offered
    }

    /// What is said of a mention in the end.
    fn resolve(
        &self,
        mention: &Mention,
        forward: &[Scope],
        backward: &[Scope],
        offered: bool,
    ) -> Option<Statement> {
        let covers = |s: &&Scope| s.start <= mention.start && mention.end <= s.end;
        let before: Vec<&Scope> = forward.iter().filter(|s| s.at >= mention.floor).filter(covers).collect();
        if before.iter().any(|s| s.trigger == Trigger::History) {
            return None;
        }
        let negated = before.iter().find(|s| s.trigger == Trigger::NegationBefore);
        let doubted =
            before.iter().find(|s| matches!(s.trigger, Trigger::UncertainBefore | Trigger::Differential));
        let denied = match (negated, doubted) {
            // "Likely no effusion" is doubt, "concern for pneumonia without effusion" is none about the effusion.
            (Some(negation), Some(doubt)) => doubt.at > negation.at || negation.at > doubt.start,
            (Some(_), None) => true,
            _ => false,
        };
        if denied && !self.is_affirmed(mention, negated.map_or(mention.start, |s| s.start)) {
            return mention.meaning.denied;
        }
        let behind = |trigger| backward.iter().filter(covers).any(|s| s.trigger == trigger);
        if doubted.is_some() || offered || behind(Trigger::UncertainAfter) {
            return mention.meaning.doubted;
        }
        if behind(Trigger::NegationAfter) { mention.meaning.denied } else { mention.meaning.plain }
    }

    /// "No pneumothorax, effusion unchanged": what is said to go on is not denied from before a comma.
    fn is_affirmed(&self, mention: &Mention, from: usize) -> bool {
        let parted = self.tokens[from.min(mention.start)..mention.start].contains(&Token::Comma);
        let listed = mention.start > 0 && matches!(self.word(mention.start - 1), "or" | "nor");
        let affirmed = self.lexemes.iter().any(|l| {
            l.meaning == Meaning::Trigger(Trigger::Affirmed)
                && l.start >= mention.end
                && l.start <= mention.end + 1
        });
        parted && !listed && affirmed
    }
}

/// Words that begin a statement after a comma or an "and", and do not go on with a denial.
const NEW: [&str; 40] = [
    "left",
    "right",
    "stable",
    "unchanged",
    "persistent",
    "persisting",
    "mild",
    "mildly",
    "moderate",
    "moderately",
    "severe",
    "small",
    "tiny",
    "minimal",
    "trace",
    "increased",
    "increasing",
    "decreased",
    "decreasing",
    "improved",
    "improving",
    "worsening",
    "worsened",
    "interval",
    "residual",
    "chronic",
    "old",
    "multiple",
    "again",
    "redemonstrated",
    "redemonstration",
    "bilateral",
    "low",
    "bibasilar",
    "minor",
    "known",
    "continued",
    "borderline",
    "slight",
    "patchy",
];

/// Words that end a denial when a comma follows.
const SEEN: [&str; 9] = [
    "seen",
    "identified",
    "noted",
    "present",
    "visualized",
    "demonstrated",
    "evident",
    "appreciated",
    "detected",
];

/// An observation as a list of its own.
fn only(observation: Observation) -> &'static [Observation] {
    match observation {
        Fracture => &[Fracture],
        Edema => &[Edema],
        _ => &[NoFinding],
    }
}
