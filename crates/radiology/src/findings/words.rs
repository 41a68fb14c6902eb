//! A sentence as words and marks.
//!
//! Deliberately absent: what the words mean.

/// Most tokens that are looked at together; a longer sentence is read in pieces, so that time grows with length.
const TOKENS_MAX: usize = 400;

/// A word in lower case, or a mark that matters to scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    Word(String),
    Comma,
    Colon,
    /// A full stop, a semicolon or a dash between spaces.
    Stop,
    /// A question mark; whether a word follows at once, as in `?pneumonia`.
    Question {
        before_word: bool,
    },
}

impl Token {
    /// The word; empty for a mark.
    pub fn word(&self) -> &str {
        match self {
            Self::Word(word) => word,
            _ => "",
        }
    }
}

/// The pieces of a sentence that are read on their own: what is within brackets, and what is around them.
pub(super) fn pieces(sentence: &str) -> Vec<Vec<Token>> {
    let (mut outer, mut inner) = (Vec::new(), Vec::new());
    let mut depth = 0usize;
    let mut pieces = Vec::new();
    for token in (Tokens { rest: sentence }) {
        match token {
            Bracketed::Open => depth += 1,
            Bracketed::Close => {
                depth = depth.saturating_sub(1);
                if depth == 0 && !inner.is_empty() {
                    pieces.push(std::mem::take(&mut inner));
                }
            }
            Bracketed::Token(token) if depth == 0 => outer.push(token),
            Bracketed::Token(token) => inner.push(token),
        }
    }
    pieces.insert(0, outer);
    pieces.push(inner);
    pieces.into_iter().flat_map(shortened).collect()
}

/// Pieces of at most [`TOKENS_MAX`] tokens, cut behind a mark where there is one in the second half.
fn shortened(mut tokens: Vec<Token>) -> Vec<Vec<Token>> {
    let mut cut = Vec::new();
    while tokens.len() > TOKENS_MAX {
        let half = TOKENS_MAX / 2;
        let mark = tokens[half..TOKENS_MAX].iter().rposition(|token| !matches!(token, Token::Word(_)));
        let rest = tokens.split_off(mark.map_or(TOKENS_MAX, |at| half + at + 1));
        cut.push(std::mem::replace(&mut tokens, rest));
    }
    cut.push(tokens);
    cut
}

enum Bracketed {
    Open,
    Close,
    Token(Token),
}

struct Tokens<'a> {
    rest: &'a str,
}

impl Iterator for Tokens<'_> {
    type Item = Bracketed;

    fn next(&mut self) -> Option<Bracketed> {
        loop {
            let c = self.rest.chars().next()?;
            if is_word(c) {
                return Some(Bracketed::Token(self.word()));
            }
            let after = &self.rest[c.len_utf8()..];
            let spaced = after.chars().next().is_none_or(char::is_whitespace);
            self.rest = after;
            let token = match c {
                ',' => Token::Comma,
                ':' => Token::Colon,
                ';' => Token::Stop,
                '.' | '!' | '–' | '—' if spaced => Token::Stop,
                // A hyphen within a word is passed over; one between words is a dash.
                '-' if spaced => Token::Stop,
                '?' => Token::Question { before_word: !spaced },
                '(' | '[' => return Some(Bracketed::Open),
                ')' | ']' => return Some(Bracketed::Close),
                _ => continue,
            };
            return Some(Bracketed::Token(token));
        }
    }
}

impl Tokens<'_> {
    /// The word at the front, without apostrophes; a decimal number is one word.
    fn word(&mut self) -> Token {
        let mut word = String::new();
        let mut chars = self.rest.char_indices().peekable();
        let mut end = self.rest.len();
        while let Some((at, c)) = chars.next() {
            let joins = matches!(c, '.' | '\'' | '’') && chars.peek().is_some_and(|&(_, next)| is_word(next));
            if is_word(c) {
                word.extend(c.to_lowercase());
            } else if c == '.' && joins && word.ends_with(|c: char| c.is_ascii_digit()) {
                word.push('.');
            } else if !(joins && c != '.') {
                end = at;
                break;
            }
        }
        self.rest = &self.rest[end..];
        Token::Word(word)
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}
