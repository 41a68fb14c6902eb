//! The written form of filters.
//!
//! ```text
//! filter    = all ("or" all)*
//! all       = one ("and" one)*
//! one       = "not" one | "(" filter ")" | "exists" name | name test
//! test      = ("=" | "!=" | "<" | "<=" | ">" | ">=") value
//!           | ["not"] "in" "(" value ("," value)* ")"
//!           | ["not"] "has" text
//!           | ["not"] "starts_with" text
//! name      = letter (letter | digit | "_" | "-" | ".")* | "`" any "`" (a backquote is doubled)
//! value     = text | number | "true" | "false" | "time" "(" text ")"
//! text      = in double or single quotes; \" \' \\ \n \r \t within
//! ```
//! Words such as `and` may be written in capitals. `starts_with` and `time` are words only where no
//! name can stand, so that attributes may still be called that. Deliberately absent: what a filter means.

use std::str::FromStr;

use super::{Comparison, Condition, Filter, FilterError, FilterValue, Number};
use crate::TimeError;
use crate::limits::FILTER_DEPTH_MAX;

const WORDS: [&str; 8] = ["and", "or", "not", "in", "has", "exists", "true", "false"];

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(s: &str) -> Result<Self, FilterError> {
        let mut parser = Parser { tokens: tokens(s)?, next: 0, depth: 0 };
        let condition = parser.any()?;
        match parser.peek() {
            Token::End => Self::new(condition),
            _ => Err(parser.expected("go on with 'and' or 'or', or end here")),
        }
    }
}

/// Begins the test of how a text begins.
const STARTS_WITH: &str = "starts_with";
/// Begins a time.
const TIME: &str = "time";

/// Whether a name can be written without backquotes.
pub(super) fn is_bare_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(starts_name) && chars.all(continues_name) && word(name).is_none()
}

fn starts_name(c: char) -> bool {
    c.is_alphabetic() || c == '_'
}

fn continues_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.')
}

/// The word of the grammar that this is, if it is one.
fn word(name: &str) -> Option<&'static str> {
    WORDS.into_iter().find(|word| word.eq_ignore_ascii_case(name))
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(&'static str),
    Name(String),
    Text(String),
    Number(Number),
    Comparison(Comparison),
    Open,
    Close,
    Comma,
    End,
}

/// A token, where it begins (in characters, from 1), and how it was written.
struct Placed {
    token: Token,
    position: usize,
    written: String,
}

struct Parser {
    /// Ends with [`Token::End`].
    tokens: Vec<Placed>,
    next: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.next].token
    }

    /// The next token; the last one again and again.
    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        self.next = (self.next + 1).min(self.tokens.len() - 1);
        token
    }

    fn take_if(&mut self, wanted: &Token) -> bool {
        let found = self.peek() == wanted;
        if found {
            self.take();
        }
        found
    }

    /// The error that something else is expected at the next token.
    fn expected(&self, hint: &str) -> FilterError {
        let Placed { token, position, written } = &self.tokens[self.next];
        let place = match token {
            Token::End => "the end".to_owned(),
            _ => format!("'{written}'"),
        };
        FilterError::Syntax { position: *position, place, hint: hint.to_owned() }
    }

    fn any(&mut self) -> Result<Condition, FilterError> {
        let mut conditions = vec![self.all()?];
        while self.take_if(&Token::Word("or")) {
            conditions.push(self.all()?);
        }
        Ok(one_or(conditions, Condition::Any))
    }

    fn all(&mut self) -> Result<Condition, FilterError> {
        let mut conditions = vec![self.one()?];
        while self.take_if(&Token::Word("and")) {
            conditions.push(self.one()?);
        }
        Ok(one_or(conditions, Condition::All))
    }

    fn one(&mut self) -> Result<Condition, FilterError> {
        if self.depth == FILTER_DEPTH_MAX {
            return Err(FilterError::TooDeep);
        }
        self.depth += 1;
        let condition = match self.peek().clone() {
            Token::Word("not") => {
                self.take();
                Condition::Not(Box::new(self.one()?))
            }
            Token::Open => {
                self.take();
                let inner = self.any()?;
                if !self.take_if(&Token::Close) {
                    return Err(self.expected("close the parenthesis with ')', or go on with 'and' or 'or'"));
                }
                inner
            }
            Token::Word("exists") => {
                self.take();
                Condition::Exists { attribute: self.name()? }
            }
            Token::Name(_) => self.test()?,
            _ => {
                return Err(self.expected(
                    "begin a condition with an attribute's name, such as age >= 40; write names with other \
                     characters, and words of the filter that are names, in `backquotes`",
                ));
            }
        };
        self.depth -= 1;
        Ok(condition)
    }

    fn name(&mut self) -> Result<String, FilterError> {
        match self.peek().clone() {
            Token::Name(name) => {
                self.take();
                Ok(name)
            }
            _ => Err(self.expected("name an attribute, such as exists age")),
        }
    }

    fn test(&mut self) -> Result<Condition, FilterError> {
        let attribute = self.name()?;
        let negated = self.take_if(&Token::Word("not"));
        let condition = match self.peek().clone() {
            Token::Comparison(comparison) if !negated => {
                self.take();
                let hint = "compare with a \"text\" in quotes, a number, true or false";
                Condition::Compare { attribute, comparison, value: self.value(hint)? }
            }
            Token::Word("in") => {
                self.take();
                Condition::In { attribute, values: self.values()? }
            }
            Token::Word("has") => {
                self.take();
                match self.peek().clone() {
                    Token::Text(text) => {
                        self.take();
                        Condition::Has { attribute, text }
                    }
                    _ => return Err(self.expected("give the \"text\" that the list has, in quotes")),
                }
            }
            Token::Name(name) if name.eq_ignore_ascii_case(STARTS_WITH) => {
                self.take();
                match self.peek().clone() {
                    Token::Text(prefix) => {
                        self.take();
                        Condition::StartsWith { attribute, prefix }
                    }
                    _ => return Err(self.expected("give the \"text\" that it begins with, in quotes")),
                }
            }
            _ if negated => {
                return Err(
                    self.expected("write 'not in (...)', 'not has \"...\"' or 'not starts_with \"...\"'")
                );
            }
            _ => {
                return Err(self.expected(
                    "compare the attribute: =, !=, <, <=, >, >=, in (...), has \"...\", starts_with \"...\"; or ask whether it is \
                     there with 'exists' before its name",
                ));
            }
        };
        Ok(if negated { Condition::Not(Box::new(condition)) } else { condition })
    }

    fn values(&mut self) -> Result<Vec<FilterValue>, FilterError> {
        let hint = "list values in parentheses, such as in (\"PA\", \"AP\")";
        if !self.take_if(&Token::Open) {
            return Err(self.expected(hint));
        }
        let mut values = vec![self.value(hint)?];
        while self.take_if(&Token::Comma) {
            values.push(self.value(hint)?);
        }
        if !self.take_if(&Token::Close) {
            return Err(self.expected("separate the values with ',' and close the list with ')'"));
        }
        Ok(values)
    }

    fn value(&mut self, hint: &str) -> Result<FilterValue, FilterError> {
        let value = match self.peek().clone() {
            Token::Text(text) => FilterValue::Text(text),
            Token::Number(number) => FilterValue::Number(number),
            Token::Word("true") => FilterValue::Bool(true),
            Token::Word("false") => FilterValue::Bool(false),
            Token::Name(name) if name.eq_ignore_ascii_case(TIME) && self.opens_next() => return self.time(),
            _ => return Err(self.expected(hint)),
        };
        self.take();
        Ok(value)
    }

    /// Whether a parenthesis opens behind the next token.
    fn opens_next(&self) -> bool {
        self.tokens.get(self.next + 1).is_some_and(|placed| placed.token == Token::Open)
    }

    /// A time, at its word.
    fn time(&mut self) -> Result<FilterValue, FilterError> {
        self.take();
        self.take();
        let Token::Text(written) = self.peek().clone() else {
            return Err(self.expected("write a time in quotes, such as time(\"2024-01-31\")"));
        };
        let time = written.parse().map_err(|error: TimeError| self.expected(&error.to_string()))?;
        self.take();
        if !self.take_if(&Token::Close) {
            return Err(self.expected("close the time with ')'"));
        }
        Ok(FilterValue::Time(time))
    }
}

fn one_or(mut conditions: Vec<Condition>, join: impl FnOnce(Vec<Condition>) -> Condition) -> Condition {
    if conditions.len() == 1 { conditions.remove(0) } else { join(conditions) }
}

fn tokens(s: &str) -> Result<Vec<Placed>, FilterError> {
    let chars: Vec<char> = s.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        if chars[at].is_whitespace() {
            at += 1;
            continue;
        }
        let (token, len) = token(&chars[at..]).map_err(|(place, hint)| FilterError::Syntax {
            position: at + 1,
            place,
            hint,
        })?;
        let written = chars[at..at + len].iter().collect();
        tokens.push(Placed { token, position: at + 1, written });
        at += len;
    }
    tokens.push(Placed { token: Token::End, position: chars.len() + 1, written: String::new() });
    Ok(tokens)
}

/// The first token and its length in characters; else what stands there and what to write.
fn token(chars: &[char]) -> Result<(Token, usize), (String, String)> {
    let first = chars[0];
    let second = chars.get(1).copied();
    let length = |two: bool| if two { 2 } else { 1 };
    match first {
        '(' => Ok((Token::Open, 1)),
        ')' => Ok((Token::Close, 1)),
        ',' => Ok((Token::Comma, 1)),
        '=' => Ok((Token::Comparison(Comparison::Equal), length(second == Some('=')))),
        '!' if second == Some('=') => Ok((Token::Comparison(Comparison::NotEqual), 2)),
        '<' if second == Some('=') => Ok((Token::Comparison(Comparison::LessOrEqual), 2)),
        '<' if second == Some('>') => Ok((Token::Comparison(Comparison::NotEqual), 2)),
        '<' => Ok((Token::Comparison(Comparison::Less), 1)),
        '>' if second == Some('=') => Ok((Token::Comparison(Comparison::GreaterOrEqual), 2)),
        '>' => Ok((Token::Comparison(Comparison::Greater), 1)),
        '"' | '\'' => text(chars),
        '`' => quoted_name(chars),
        '0'..='9' | '-' | '+' | '.' => number(chars),
        c if starts_name(c) => {
            let name: String = chars.iter().take_while(|&&c| continues_name(c)).collect();
            let length = name.chars().count();
            Ok((word(&name).map_or_else(|| Token::Name(name), Token::Word), length))
        }
        '!' => Err(("'!'".into(), "write 'not', or '!=' for unequal".into())),
        '&' => Err(("'&'".into(), "write 'and'".into())),
        '|' => Err(("'|'".into(), "write 'or'".into())),
        '[' | '{' => Err((format!("'{first}'"), "use parentheses, such as in (\"PA\", \"AP\")".into())),
        c => Err((
            format!("'{c}'"),
            "write names with other characters in `backquotes` and texts in \"quotes\"".into(),
        )),
    }
}

fn text(chars: &[char]) -> Result<(Token, usize), (String, String)> {
    let quote = chars[0];
    let mut text = String::new();
    let mut at = 1;
    while let Some(&c) = chars.get(at) {
        match c {
            c if c == quote => return Ok((Token::Text(text), at + 1)),
            '\\' => {
                at += 1;
                text.push(match chars.get(at) {
                    Some('n') => '\n',
                    Some('r') => '\r',
                    Some('t') => '\t',
                    Some(&c @ ('\\' | '"' | '\'')) => c,
                    _ => {
                        let hint =
                            "in quotes, a backslash stands before \\ \" ' n r or t; double it to mean itself";
                        return Err(("a text in quotes".into(), hint.into()));
                    }
                });
            }
            c => text.push(c),
        }
        at += 1;
    }
    Err(("a text in quotes".into(), format!("end the text with {quote}")))
}

fn quoted_name(chars: &[char]) -> Result<(Token, usize), (String, String)> {
    let mut name = String::new();
    let mut at = 1;
    while let Some(&c) = chars.get(at) {
        match (c, chars.get(at + 1)) {
            ('`', Some('`')) => {
                name.push('`');
                at += 1;
            }
            ('`', _) => return Ok((Token::Name(name), at + 1)),
            (c, _) => name.push(c),
        }
        at += 1;
    }
    Err(("a name in backquotes".into(), "end the name with `".into()))
}

fn number(chars: &[char]) -> Result<(Token, usize), (String, String)> {
    // Takes what cannot be anything else, so that the error shows it whole.
    let mut len = 1;
    while let Some(&c) = chars.get(len) {
        let exponent_sign = matches!(c, '+' | '-') && matches!(chars[len - 1], 'e' | 'E');
        if !(c.is_alphanumeric() || c == '.' || c == '_' || exponent_sign) {
            break;
        }
        len += 1;
    }
    let written: String = chars[..len].iter().collect();
    let refuse = |hint: &str| (format!("'{written}'"), hint.to_owned());
    let digits = written.trim_start_matches(['+', '-']);
    let whole = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit());
    let number = if whole {
        let too_large = "the number does not fit 64 bits; write it with a point, such as 1e20";
        Number::Integer(written.parse().map_err(|_| refuse(too_large))?)
    } else {
        let no_number = "this is no number; write it like 40, -2 or 0.5, and texts in \"quotes\"";
        // The standard parser also takes words such as "infinity", which cannot begin here.
        let value: f64 = written.parse().map_err(|_| refuse(no_number))?;
        if !value.is_finite() {
            return Err(refuse("the number is too large; leave the condition out"));
        }
        Number::Float(value)
    };
    Ok((Token::Number(number), len))
}
