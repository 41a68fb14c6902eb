//! What of a record or of a hit is wanted.

use diptych_proto::{FieldMask, v1 as wire};
use tonic::Status;

/// What of a record is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReadMask {
    key: bool,
    parts: bool,
    seq: bool,
    attributes: Wanted,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    All,
    Named(Vec<String>),
}

impl Wanted {
    /// Wants the attribute of a path.
    fn name(&mut self, path: &str, of: &str, known: &str) -> Result<(), Status> {
        match (attribute_path(path), self) {
            (Some(name), Self::Named(names)) => names.push(name),
            (Some(_), Self::All) => {}
            (None, _) => {
                let path: String = path.chars().take(64).collect();
                return Err(Status::invalid_argument(format!(
                    "read_mask: {of} has no field '{path}'; use {known}"
                )));
            }
        }
        Ok(())
    }
}

impl ReadMask {
    /// Removes what is not wanted.
    pub(crate) fn apply(&self, mut record: wire::Record) -> wire::Record {
        if !self.key {
            record.key.clear();
        }
        if !self.parts {
            record.parts.clear();
        }
        if !self.seq {
            record.seq = 0;
        }
        if let Wanted::Named(names) = &self.attributes {
            record.attributes.retain(|name, _| names.contains(name));
        }
        record
    }
}

/// A mask of a record's fields; none is for all.
pub(crate) fn read_mask_from_wire(mask: Option<FieldMask>) -> Result<ReadMask, Status> {
    let paths = mask.map(|mask| mask.paths).unwrap_or_default();
    if paths.is_empty() || paths.iter().any(|path| path == "*") {
        return Ok(ReadMask { key: true, parts: true, seq: true, attributes: Wanted::All });
    }
    let mut found = ReadMask { key: false, parts: false, seq: false, attributes: Wanted::Named(Vec::new()) };
    for path in paths {
        match path.as_str() {
            "key" => found.key = true,
            "parts" => found.parts = true,
            "seq" => found.seq = true,
            "attributes" => found.attributes = Wanted::All,
            _ => {
                found.attributes.name(&path, "a record", "key, parts, attributes, attributes.NAME and seq")?
            }
        }
    }
    Ok(found)
}

/// What of a hit is wanted; key, score and relevance always are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HitMask {
    part: bool,
    lexical_part: bool,
    term_scores: bool,
    attributes: Wanted,
}

impl HitMask {
    /// Removes what is not wanted.
    pub(crate) fn apply(&self, mut hit: wire::Hit) -> wire::Hit {
        if !self.part {
            hit.part = None;
        }
        if !self.lexical_part {
            hit.lexical_part = None;
        }
        if !self.term_scores {
            hit.term_scores.clear();
        }
        if let Wanted::Named(names) = &self.attributes {
            hit.attributes.retain(|name, _| names.contains(name));
        }
        hit
    }
}

/// A mask of a hit's fields; none is for all.
pub(crate) fn hit_mask_from_wire(mask: Option<&FieldMask>) -> Result<HitMask, Status> {
    let paths = mask.map(|mask| mask.paths.as_slice()).unwrap_or_default();
    if paths.is_empty() || paths.iter().any(|path| path == "*") {
        return Ok(HitMask { part: true, lexical_part: true, term_scores: true, attributes: Wanted::All });
    }
    let attributes = Wanted::Named(Vec::new());
    let mut found = HitMask { part: false, lexical_part: false, term_scores: false, attributes };
    for path in paths {
        match path.as_str() {
            "key" | "score" | "relevance" | "lexical_score" => {}
            "part" => found.part = true,
            "lexical_part" => found.lexical_part = true,
            "term_scores" => found.term_scores = true,
            "attributes" => found.attributes = Wanted::All,
            _ => found.attributes.name(
                path,
                "a hit",
                "part, lexical_part, attributes, attributes.NAME and term_scores",
            )?,
        }
    }
    Ok(found)
}

/// The name in `attributes.NAME`. All behind the point is the name; backquotes around it are left out.
pub(super) fn attribute_path(path: &str) -> Option<String> {
    let name = path.strip_prefix("attributes.")?;
    let quoted = name.strip_prefix('`').and_then(|name| name.strip_suffix('`'));
    let name = quoted.unwrap_or(name);
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    pub(crate) fn mask(paths: &[&str]) -> Option<FieldMask> {
        Some(FieldMask { paths: paths.iter().map(|&path| path.to_owned()).collect() })
    }

    pub(crate) fn record(names: &[&str]) -> wire::Record {
        let value = wire::AttributeValue { value: Some(wire::attribute_value::Value::IntegerValue(1)) };
        let attributes = names.iter().map(|&name| (name.to_owned(), value.clone())).collect();
        wire::Record { key: "k".into(), attributes, parts: vec![wire::Part::default()], seq: 7 }
    }

    #[test]
    fn a_read_mask_takes_away_what_it_does_not_name() {
        let masked = |paths| read_mask_from_wire(paths).unwrap().apply(record(&["a.b", "c"]));
        assert_eq!(masked(None), record(&["a.b", "c"]));
        assert_eq!(masked(mask(&["*"])), record(&["a.b", "c"]));
        let found = masked(mask(&["attributes.a.b", "seq"]));
        assert_eq!((found.key.as_str(), found.parts.len(), found.seq), ("", 0, 7));
        assert_eq!(found.attributes.keys().collect::<Vec<_>>(), ["a.b"]);
        assert_eq!(masked(mask(&["attributes.`a.b`"])).attributes.len(), 1);
        assert_eq!(masked(mask(&["attributes.c", "attributes"])).attributes.len(), 2);
        for wrong in ["vectors", "attributes.", "parts.text"] {
            let said = read_mask_from_wire(mask(&[wrong])).unwrap_err().message().to_owned();
            assert!(said.contains(wrong) && said.contains("attributes.NAME"), "{said}");
        }
    }

    #[test]
    fn a_mask_of_hits_keeps_what_every_hit_has() {
        let hit = wire::Hit {
            key: "k".into(),
            score: 0.5,
            part: Some(wire::Part::default()),
            attributes: record(&["a", "b"]).attributes,
            relevance: Some(0.9),
            term_scores: vec![0.5, 0.2],
            ..Default::default()
        };
        let masked =
            |paths: Option<FieldMask>| hit_mask_from_wire(paths.as_ref()).unwrap().apply(hit.clone());
        assert_eq!(masked(None), hit);
        let bare = masked(mask(&["key"]));
        assert_eq!((bare.key.as_str(), bare.score, bare.relevance), ("k", 0.5, Some(0.9)));
        assert!(bare.part.is_none() && bare.attributes.is_empty() && bare.term_scores.is_empty());
        let some = masked(mask(&["attributes.b", "term_scores"]));
        assert_eq!(some.attributes.keys().collect::<Vec<_>>(), ["b"]);
        assert_eq!((some.term_scores.len(), some.part), (2, None));
        let said = hit_mask_from_wire(mask(&["parts"]).as_ref()).unwrap_err();
        assert!(said.message().contains("a hit has no field 'parts'"), "{said:?}");
    }
}
