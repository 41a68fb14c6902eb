//! A configuration file: TOML to settings, with the line of each and every problem at once.
//!
//! Deliberately absent: what the values mean together, which is known only when flags and environment
//! are in. Values are never repeated for keys that are not known: they may be secrets in a wrong place.

use std::path::Path;

use diptych_hub::ModelName;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Kind, Problem, SETTINGS, ServeConfig};

/// A setting that the file sets.
#[derive(Debug)]
pub struct Entry {
    /// Its place in [`SETTINGS`].
    pub setting: usize,
    /// Its value, checked.
    pub text: String,
    /// Its line, counted from 1.
    pub line: usize,
}

/// What a file sets, and all that is wrong with it.
pub fn read(path: &Path) -> (Vec<Entry>, Vec<Problem>) {
    match std::fs::read_to_string(path) {
        Ok(text) => parse(path, &text),
        Err(error) => {
            let what = format!("it cannot be read: {error}");
            (Vec::new(), vec![Problem { place: path.display().to_string(), what }])
        }
    }
}

fn parse(path: &Path, text: &str) -> (Vec<Entry>, Vec<Problem>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut reader = Reader { path, text, entries: Vec::new(), problems: Vec::new() };
    let mut told = 0;
    for error in &errors {
        let at = error.span().map_or(0, |span| span.start);
        let line = reader.line(at);
        // The parser goes on guessing within a line; its first complaint is the one to mend.
        if line > told {
            reader.problem(at, format!("this is no TOML: {}", error.message()));
            told = line;
        }
    }
    // What follows a slip of the pen is guesswork: its other problems would be made up.
    if errors.is_empty() {
        reader.top(table.get_ref());
    }
    let Reader { entries, mut problems, .. } = reader;
    problems.sort_by_key(|(line, _)| *line);
    (entries, problems.into_iter().map(|(_, problem)| problem).collect())
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    entries: Vec<Entry>,
    problems: Vec<(usize, Problem)>,
}

impl Reader<'_> {
    fn top(&mut self, table: &DeTable<'_>) {
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            match value.get_ref() {
                DeValue::Table(section) if SETTINGS.iter().any(|s| s.section == name) && !name.is_empty() => {
                    for (key, value) in section {
                        self.entry(name, key.span().start, key.get_ref(), value);
                    }
                }
                DeValue::Table(_) => {
                    let sections = SETTINGS.iter().map(|s| s.section.to_owned()).filter(|s| !s.is_empty());
                    let hint = suggest(name, sections.collect());
                    self.problem(key.span().start, format!("there is no table [{name}]; {hint}"));
                }
                _ => self.entry("", key.span().start, name, value),
            }
        }
    }

    fn entry(&mut self, section: &str, at: usize, name: &str, value: &Spanned<DeValue<'_>>) {
        let full = if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") };
        let Some(setting) = SETTINGS.iter().position(|s| s.section == section && s.name == name) else {
            let hint = suggest_key(section, name);
            return self.problem(at, format!("{full}: there is no such setting; {hint}"));
        };
        let known = &SETTINGS[setting];
        let text = match self.value(known.kind, value.get_ref()) {
            Ok(text) => text,
            Err(what) => return self.problem(at, format!("{full}: {what}")),
        };
        match (known.set)(&mut ServeConfig::default(), &text) {
            Ok(()) => self.entries.push(Entry { setting, text, line: self.line(at) }),
            Err(what) => self.problem(at, format!("{full}: {what}")),
        }
    }

    /// The value as text, if it is of the right type.
    fn value(&self, kind: Kind, value: &DeValue<'_>) -> Result<String, String> {
        let wanted = |what: &str| Err(format!("this is {}; write {what}", kind_of(value)));
        match (kind, value) {
            (Kind::Text, DeValue::String(text)) => Ok(text.as_ref().to_owned()),
            (Kind::Path, DeValue::String(text)) => Ok(self.beside(text)),
            (Kind::Model, DeValue::String(text)) if text.starts_with(ModelName::PREFIX) => {
                Ok(text.as_ref().to_owned())
            }
            (Kind::Model, DeValue::String(text)) => Ok(self.beside(text)),
            (Kind::Number, DeValue::Integer(number)) => i64::from_str_radix(number.as_str(), number.radix())
                .map(|number| number.to_string())
                .map_err(|_| "this number is too large".to_owned()),
            (Kind::Number, DeValue::Float(number)) => Ok(number.as_str().to_owned()),
            (Kind::Switch, DeValue::Boolean(on)) => Ok(on.to_string()),
            (Kind::Text | Kind::Path | Kind::Model, _) => wanted("a text in \"quotes\""),
            (Kind::Number, _) => wanted("a number without quotes"),
            (Kind::Switch, _) => wanted("true or false without quotes"),
        }
    }

    /// A path of the file, relative to where the file is. An empty one stays empty, to be refused.
    fn beside(&self, path: &str) -> String {
        match self.path.parent() {
            Some(dir) if !path.is_empty() => dir.join(path).display().to_string(),
            _ => path.to_owned(),
        }
    }

    fn line(&self, at: usize) -> usize {
        self.text.as_bytes()[..at.min(self.text.len())].iter().filter(|b| **b == b'\n').count() + 1
    }

    fn problem(&mut self, at: usize, what: String) {
        let line = self.line(at);
        let place = format!("{}:{line}", self.path.display());
        self.problems.push((line, Problem { place, what }));
    }
}

fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "a truth value",
        DeValue::Datetime(_) => "a time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The settings that may have been meant: the same name elsewhere, else the nearest of all.
fn suggest_key(section: &str, name: &str) -> String {
    if let Some(same) = SETTINGS.iter().find(|s| s.name == name || s.flag.replace('-', "_") == name) {
        return match same.section {
            "" => format!("'{}' stands at the top of the file, before any [table]", same.name),
            table => format!("write '{}' under [{table}]", same.name),
        };
    }
    let here: Vec<String> =
        SETTINGS.iter().filter(|s| s.section == section).map(|s| s.name.to_owned()).collect();
    suggest(name, here)
}

/// The nearest of the known names, or all when none is near.
fn suggest(name: &str, mut known: Vec<String>) -> String {
    known.dedup();
    let distance = |other: &String| strsim::damerau_levenshtein(name, other);
    match known.iter().min_by_key(|other| distance(other)) {
        Some(near) if distance(near) <= 1 + name.chars().count() / 3 => format!("did you mean '{near}'?"),
        _ => format!("there are {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let (_, problems) = parse(Path::new("etc/diptych.toml"), text);
        problems.into_iter().map(|p| format!("{}: {}", p.place, p.what)).collect()
    }

    #[test]
    fn every_problem_is_told_with_its_line_and_what_to_write() {
        let text = "\
data = 7
[server]
listne = \"secret\"
timeout_seconds = \"30\"
requests_max = 0
[sever]
listen = \"127.0.0.1:1\"
[log]
format = 'xml'
";
        assert_eq!(
            problems(text),
            [
                "etc/diptych.toml:1: data: this is a number; write a text in \"quotes\"",
                "etc/diptych.toml:3: server.listne: there is no such setting; did you mean 'listen'?",
                "etc/diptych.toml:4: server.timeout_seconds: this is a text; write a number without quotes",
                "etc/diptych.toml:5: server.requests_max: '0' does not fit: use a whole number from 1 to 65536",
                "etc/diptych.toml:6: there is no table [sever]; did you mean 'server'?",
                "etc/diptych.toml:9: log.format: 'xml' is no format: use text or json",
            ]
        );
    }

    #[test]
    fn a_setting_in_the_wrong_place_is_sent_to_the_right_one() {
        let said = problems("slow_seconds = 1\nrecall_sample = 0.5\n[log]\ndata = 'x'\nzzz = 1\n");
        assert!(said[0].ends_with("write 'slow_seconds' under [log]"), "{}", said[0]);
        assert!(said[1].ends_with("write 'sample' under [recall]"), "{}", said[1]);
        assert!(said[2].ends_with("'data' stands at the top of the file, before any [table]"), "{}", said[2]);
        assert!(said[3].ends_with("there are format, slow_seconds"), "{}", said[3]);
    }

    #[test]
    fn paths_are_relative_to_the_file_and_numbers_may_have_any_form_of_toml() {
        let text =
            "data = 'd'\nmodel = 'hf:o/n'\n[engine]\nbatch_positions = 0x4_00\n[recall]\nsample = 5e-1\n";
        let (entries, problems) = parse(Path::new("etc/diptych.toml"), text);
        assert_eq!(problems, []);
        let mut said: Vec<_> = entries.iter().map(|e| (e.line, e.text.as_str())).collect();
        said.sort_unstable();
        assert_eq!(said, [(1, "etc/d"), (2, "hf:o/n"), (4, "1024"), (6, "5e-1")]);
    }

    #[test]
    fn what_is_no_toml_is_said_with_its_line() {
        let said = problems("data = 'x'\n[server\nlisten = 1\nrequests_max = = 1 = 2\n");
        assert_eq!(said.len(), 2, "one for each wrong line: {said:?}");
        for (line, problem) in [2, 4].into_iter().zip(said) {
            assert!(problem.starts_with(&format!("etc/diptych.toml:{line}: this is no TOML: ")), "{problem}");
        }
    }
}
