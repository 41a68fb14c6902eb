//! What people type after `diptych search`.
//!
//! Owns: the little language of terms, `"2:golden retriever" + ./pool.jpg - fruit`. Deliberately absent:
//! the search.

use std::path::Path;

use anyhow::{Result, anyhow, bail};
use diptych_core::{Key, QuerySource, Term};

use crate::sources;

/// What the name of an image file ends with.
const IMAGE_ENDINGS: [&str; 11] =
    ["jpg", "jpeg", "png", "webp", "gif", "tif", "tiff", "bmp", "pgm", "ppm", "pnm"];
/// What stands before the key of a stored record.
const KEY_PREFIX: &str = "key:";

/// The terms of some arguments: `+` and `-` that stand alone part them; arguments between two of these
/// belong together.
pub fn parse(arguments: &[String]) -> Result<Vec<Term>> {
    let mut terms = Vec::new();
    let (mut sign, mut words): (f32, Vec<&str>) = (1.0, Vec::new());
    for (n, argument) in arguments.iter().enumerate() {
        let next = match argument.as_str() {
            "+" => 1.0,
            "-" => -1.0,
            word => {
                words.push(word);
                continue;
            }
        };
        if !words.is_empty() {
            terms.push(term(sign, &words)?);
            words.clear();
        } else if n > 0 {
            bail!("two signs follow each other in the query; put a term between them");
        }
        sign = next;
    }
    if words.is_empty() {
        bail!("the query ends with a sign; put a term behind it");
    }
    terms.push(term(sign, &words)?);
    Ok(terms)
}

fn term(sign: f32, words: &[&str]) -> Result<Term> {
    let whole = words.join(" ");
    let (weight, what) = match whole.split_once(':') {
        Some((weight, what)) => match weight.trim().parse::<f32>() {
            Ok(weight) => (weight, what.trim()),
            Err(_) => (1.0, whole.as_str()),
        },
        None => (1.0, whole.as_str()),
    };
    Ok(Term::new(source(what)?, sign * weight)?)
}

fn source(what: &str) -> Result<QuerySource> {
    if let Some(key) = what.strip_prefix(KEY_PREFIX) {
        return Ok(QuerySource::Key { key: Key::new(key)?, part: None });
    }
    let path = Path::new(what);
    let ending = path.extension().and_then(|ending| ending.to_str()).map(str::to_lowercase);
    let is_image = ending.is_some_and(|ending| IMAGE_ENDINGS.contains(&ending.as_str()));
    if is_image || ["./", "../", "/"].iter().any(|start| what.starts_with(start)) {
        return image(path);
    }
    Ok(QuerySource::Text(what.to_owned()))
}

/// An image file as a source.
pub fn image(path: &Path) -> Result<QuerySource> {
    let bytes = sources::read_image(path).map_err(|reason| anyhow!("{} {reason}", path.display()))?;
    Ok(QuerySource::Image(bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn shown(typed: &str) -> Vec<(f32, String)> {
        let arguments: Vec<String> = typed.split('|').map(str::to_owned).collect();
        let terms = parse(&arguments).unwrap();
        let what = |term: &Term| match term.source() {
            QuerySource::Text(text) => text.clone(),
            QuerySource::Key { key, .. } => format!("key {key}"),
            other => panic!("{other:?}"),
        };
        terms.iter().map(|term| (term.weight(), what(term))).collect()
    }

    #[test]
    fn terms_are_typed_as_people_type_them() {
        let dog = |weight| (weight, "golden retriever".to_owned());
        assert_eq!(shown("golden retriever"), [dog(1.0)]);
        assert_eq!(shown("golden|retriever"), [dog(1.0)]);
        assert_eq!(shown("2:golden retriever|-|fruit"), [dog(2.0), (-1.0, "fruit".to_owned())]);
        assert_eq!(shown("-|0.5:fruit|+|2:|golden|retriever"), [(-0.5, "fruit".to_owned()), dog(2.0)]);
        assert_eq!(shown("key:case-7|+|a"), [(1.0, "key case-7".to_owned()), (1.0, "a".to_owned())]);
        // A colon is no weight where no number is before it.
        assert_eq!(shown("FINDINGS: no effusion"), [(1.0, "FINDINGS: no effusion".to_owned())]);
    }

    #[test]
    fn what_is_no_query_is_refused_with_the_remedy() {
        let refused = |typed: &[&str]| {
            let arguments: Vec<String> = typed.iter().map(|word| (*word).to_owned()).collect();
            parse(&arguments).unwrap_err().to_string()
        };
        assert!(refused(&["a", "+", "-", "b"]).contains("put a term between"));
        assert!(refused(&["a", "-"]).contains("behind it"));
        assert!(refused(&["0:a"]).contains("weight"));
        assert!(refused(&["./no-such.jpg"]).contains("no-such.jpg"));
        assert!(refused(&["key:"]).contains("key"));
    }
}
