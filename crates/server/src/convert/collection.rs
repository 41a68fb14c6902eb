//! Collections, their schemas and what is asked of records beside searching: changes, times.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};

use diptych_core::{CollectionName, Key, RequestId};
use diptych_engine::{AttributeChange, Changed, CollectionInfo, Outcome};
use diptych_proto::FieldMask;
use diptych_proto::convert::{attribute_from_wire, schema_to_wire, time_to_wire};
use diptych_proto::v1 as wire;
use tonic::Status;

use super::mask::attribute_path;
use super::{key_from_wire, refused};

/// The id of a request, if it has one.
pub(crate) fn request_id_from_wire(id: String) -> Result<Option<RequestId>, Status> {
    if id.is_empty() { Ok(None) } else { RequestId::new(id).map(Some).map_err(refused) }
}

pub(crate) fn collection_to_wire(info: CollectionInfo) -> wire::Collection {
    wire::Collection {
        name: info.name.to_string(),
        schema: Some(schema_to_wire(&info.schema)),
        model_id: info.model_id.to_string(),
        dimension: info.dim,
        create_time: info.created.map(time_to_wire),
        records: info.stats.records,
        image_points: info.stats.image_points,
        text_points: info.stats.text_points,
        truncated_texts: info.stats.truncated_texts,
    }
}

/// The collection after which a page starts; its token is its name.
pub(crate) fn collection_token_from_wire(token: String) -> Result<Option<CollectionName>, Status> {
    if token.is_empty() {
        return Ok(None);
    }
    CollectionName::new(token).map(Some).map_err(|_| {
        Status::invalid_argument("the page token is not one of this server's; start without one")
    })
}

/// The record to update, and how its attributes change.
pub(crate) fn update_from_wire(
    record: Option<wire::Record>,
    mask: Option<FieldMask>,
) -> Result<(Key, AttributeChange), Status> {
    let record = record.ok_or_else(|| {
        Status::invalid_argument("the request has no record; set its key and the attributes that change")
    })?;
    let key = key_from_wire(record.key)?;
    let mut given: HashMap<String, wire::AttributeValue> = record.attributes;
    let paths = mask.map(|mask| mask.paths).unwrap_or_default();
    let replace = paths.iter().any(|path| path == "attributes");
    let names: Vec<String> = match paths.is_empty() || replace {
        true => given.keys().cloned().collect(),
        false => Vec::new(),
    };
    let named = paths.iter().filter(|path| *path != "attributes").map(|path| {
        attribute_path(path).ok_or_else(|| {
            Status::invalid_argument(format!(
                "update_mask: '{}' cannot be updated; name attributes, as in attributes.age, or ingest the record \
                 again to change its parts",
                path.chars().take(64).collect::<String>()
            ))
        })
    });
    let named = named.collect::<Result<Vec<String>, Status>>()?;
    if !replace && names.is_empty() && named.is_empty() {
        return Err(Status::invalid_argument(
            "the request changes nothing; give the record attributes, or name some in update_mask",
        ));
    }
    let mut values = BTreeMap::new();
    for name in names.into_iter().chain(named) {
        // A name may come by both ways.
        if let Entry::Vacant(entry) = values.entry(name) {
            let value = given.remove(entry.key()).map(|value| attribute_from_wire(entry.key(), value));
            entry.insert(value.transpose()?);
        }
    }
    Ok((key, AttributeChange { replace, values }))
}

pub(crate) fn changed_to_wire(changed: Changed) -> wire::UpdateRecordResponse {
    let outcome = match changed.outcome {
        Outcome::Updated => wire::WriteOutcome::Updated,
        _ => wire::WriteOutcome::Unchanged,
    };
    wire::UpdateRecordResponse { outcome: outcome as i32, seq: changed.seq }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use diptych_core::AttributeValue;

    use super::super::mask::tests::{mask, record};
    use super::*;

    #[test]
    fn an_update_mask_says_what_changes_and_what_goes() {
        let update = |names: &[&str], paths| update_from_wire(Some(record(names)), paths);
        let value = Some(AttributeValue::Integer(1));
        let change = |names: &[&str], paths| update(names, paths).unwrap().1;
        let values = |values: &[(&str, &Option<AttributeValue>)]| {
            values.iter().map(|&(name, value)| (name.to_owned(), value.clone())).collect::<BTreeMap<_, _>>()
        };
        assert_eq!(
            change(&["a"], None),
            AttributeChange { replace: false, values: values(&[("a", &value)]) }
        );
        let found = change(&["a", "b"], mask(&["attributes.a", "attributes.gone"]));
        assert_eq!(
            found,
            AttributeChange { replace: false, values: values(&[("a", &value), ("gone", &None)]) }
        );
        let found = change(&["a"], mask(&["attributes"]));
        assert_eq!(found, AttributeChange { replace: true, values: values(&[("a", &value)]) });
        assert_eq!(
            change(&[], mask(&["attributes"])),
            AttributeChange { replace: true, ..Default::default() }
        );
        for (names, paths, says) in [
            (vec!["a"], mask(&["parts"]), "'parts' cannot be updated"),
            (vec![], None, "changes nothing"),
            (vec!["a"], mask(&["*"]), "'*' cannot be updated"),
        ] {
            let said = update(&names, paths).unwrap_err().message().to_owned();
            assert!(said.contains(says), "{said}");
        }
        assert!(update_from_wire(None, None).is_err());
    }
}
