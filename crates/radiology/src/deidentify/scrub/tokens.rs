//! A text as words, numbers and marks, with what stands between them. Deliberately absent: meaning.

/// What a token is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Letters, with apostrophes inside.
    Word,
    /// ASCII digits.
    Number,
    /// Letters and digits.
    Mixed,
    /// One other character.
    Mark,
}

/// What stands before a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Gap {
    None,
    Space,
    /// A line break.
    Line,
    /// Several spaces, or a tab: the next column.
    Wide,
    /// An empty line.
    Blank,
}

struct Token {
    start: usize,
    end: usize,
    shape: Shape,
    gap: Gap,
}

/// The tokens of a text. Places beyond the end are empty marks.
pub(super) struct Tokens<'a> {
    text: &'a str,
    tokens: Vec<Token>,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let mut tokens: Vec<Token> = Vec::new();
        let mut chars = text.char_indices().peekable();
        let mut last_end = 0;
        while let Some((start, c)) = chars.next() {
            if c.is_whitespace() || c.is_control() {
                continue;
            }
            let mut end = start + c.len_utf8();
            let mut shape = Shape::Mark;
            if c.is_alphanumeric() {
                let (mut letters, mut digits) = (!c.is_ascii_digit(), c.is_ascii_digit());
                while let Some(&(at, next)) = chars.peek() {
                    let inside = matches!(next, '\'' | '’')
                        && !digits
                        && text[at + next.len_utf8()..].chars().next().is_some_and(char::is_alphabetic);
                    if !next.is_alphanumeric() && !inside {
                        break;
                    }
                    digits |= next.is_ascii_digit();
                    letters |= !next.is_ascii_digit() && !inside;
                    end = at + next.len_utf8();
                    chars.next();
                }
                shape = match (letters, digits) {
                    (true, true) => Shape::Mixed,
                    (true, false) => Shape::Word,
                    _ => Shape::Number,
                };
            }
            tokens.push(Token { start, end, shape, gap: gap(&text[last_end..start]) });
            last_end = end;
        }
        Self { text, tokens }
    }

    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    pub(super) fn start(&self, at: usize) -> usize {
        self.tokens.get(at).map_or(self.text.len(), |t| t.start)
    }

    pub(super) fn end(&self, at: usize) -> usize {
        self.tokens.get(at).map_or(self.text.len(), |t| t.end)
    }

    pub(super) fn text(&self, at: usize) -> &'a str {
        self.tokens.get(at).map_or("", |t| &self.text[t.start..t.end])
    }

    pub(super) fn shape(&self, at: usize) -> Shape {
        self.tokens.get(at).map_or(Shape::Mark, |t| t.shape)
    }

    /// What stands before a token; before the first and after the last is an empty line.
    pub(super) fn gap(&self, at: usize) -> Gap {
        self.tokens.get(at).filter(|_| at > 0).map_or(Gap::Blank, |t| t.gap)
    }

    /// Whether nothing stands between a token and the one before it.
    pub(super) fn glued(&self, at: usize) -> bool {
        self.gap(at) == Gap::None
    }

    pub(super) fn is(&self, at: usize, text: &str) -> bool {
        self.text(at).eq_ignore_ascii_case(text)
    }

    pub(super) fn is_any(&self, at: usize, texts: &[&str]) -> bool {
        texts.iter().any(|text| self.is(at, text))
    }

    /// The value of a number of at most nine digits, and how many digits it has.
    pub(super) fn number(&self, at: usize) -> Option<(i64, usize)> {
        let text = self.text(at);
        let fits = self.shape(at) == Shape::Number && text.len() <= 9;
        fits.then(|| text.parse().ok()).flatten().map(|value| (value, text.len()))
    }

    /// A word in lower case, without the ending of a genitive: how names are compared.
    pub(super) fn name_key(&self, at: usize) -> Option<String> {
        (self.shape(at) == Shape::Word).then(|| {
            let word = self.text(at).to_lowercase();
            let stem = word.strip_suffix("'s").or_else(|| word.strip_suffix("’s"));
            stem.map(str::to_owned).unwrap_or(word)
        })
    }

    /// Whether a word begins with a capital letter.
    pub(super) fn capital(&self, at: usize) -> bool {
        self.shape(at) == Shape::Word && self.text(at).chars().next().is_some_and(char::is_uppercase)
    }

    /// Whether a word is in capitals.
    pub(super) fn shouted(&self, at: usize) -> bool {
        self.capital(at) && !self.text(at).chars().any(char::is_lowercase)
    }

    /// The end of the tokens from `at` that stand together without a gap.
    pub(super) fn chunk_end(&self, at: usize) -> usize {
        // Bounded: hostile texts have no gaps.
        let limit = (at + 128).min(self.len());
        (at + 1..limit).find(|&next| !self.glued(next)).unwrap_or(limit)
    }
}

fn gap(between: &str) -> Gap {
    match between.bytes().filter(|b| *b == b'\n').count() {
        _ if between.is_empty() => Gap::None,
        0 if between == " " || between.chars().count() == 1 && !between.contains('\t') => Gap::Space,
        0 => Gap::Wide,
        1 => Gap::Line,
        _ => Gap::Blank,
    }
}
