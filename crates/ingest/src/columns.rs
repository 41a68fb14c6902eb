//! Which columns of a table mean what.
//!
//! Owns: the names that are understood without being told, the mapping by hand, and how the text of a cell
//! becomes a value. Deliberately absent: reading tables.

use diptych_core::{AttributeValue, Attributes, Chunking, Key};

use crate::item::{Item, Origin, printable};
use crate::keys::Found;
use crate::paths::{Base, slashed};
use crate::study;

/// A mapping of columns, or fields, by hand. What is not mapped goes by its name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns {
    /// The column with the keys.
    pub key: Option<String>,
    /// The column with the key of the study that a row belongs to: neighbouring rows with the same value are
    /// one item. Takes the place of `key`.
    pub study: Option<String>,
    /// The columns with paths of images, or with images.
    pub images: Vec<String>,
    /// The columns with texts.
    pub texts: Vec<String>,
    /// Attributes and the columns they come from; when there are any, no other column becomes one.
    pub attributes: Vec<(String, String)>,
}

/// Columns taken for images, in lower case, the first one present.
const IMAGE_NAMES: [&str; 9] =
    ["image", "images", "image_path", "img_path", "filepath", "file_path", "file_name", "filename", "path"];
/// Columns taken for texts, in lower case, all that are present.
const TEXT_NAMES: [&str; 6] = ["text", "texts", "caption", "captions", "report", "description"];
/// Columns taken for keys, in lower case, the first one present.
const KEY_NAMES: [&str; 2] = ["key", "id"];
/// The column that makes several rows one study where there is no key.
pub(crate) const STUDY_NAME: &str = "case_id";

/// What a column of a table is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Role {
    Key,
    Study,
    Image,
    Text,
    Attribute(String),
    Unused,
}

/// What the columns of a table are, in their order.
#[derive(Debug, Clone)]
pub(crate) struct Roles {
    pub(crate) names: Vec<String>,
    pub(crate) roles: Vec<Role>,
}

impl Roles {
    /// Gives each column its role. The error names the column that is asked for and not there.
    pub(crate) fn of(names: Vec<String>, columns: &Columns) -> Result<Self, String> {
        let mut roles: Vec<Option<Role>> = vec![None; names.len()];
        let find = |name: &str| {
            names.iter().position(|there| there == name).ok_or_else(|| {
                let there = names.iter().map(|n| printable(n)).collect::<Vec<_>>().join(", ");
                format!("there is no column '{}'; there are: {there}", printable(name))
            })
        };
        if let Some(name) = &columns.study {
            roles[find(name)?] = Some(Role::Study);
        }
        if let Some(name) = columns.key.as_ref().filter(|_| columns.study.is_none()) {
            roles[find(name)?] = Some(Role::Key);
        }
        for name in &columns.images {
            roles[find(name)?] = Some(Role::Image);
        }
        for name in &columns.texts {
            roles[find(name)?] = Some(Role::Text);
        }
        for (attribute, column) in &columns.attributes {
            let role = &mut roles[find(column)?];
            if role.is_none() {
                *role = Some(Role::Attribute(attribute.clone()));
            }
        }
        Self::by_name(&names, &mut roles, columns);
        let roles = roles
            .into_iter()
            .zip(&names)
            .map(|(role, name)| {
                role.unwrap_or_else(|| match columns.attributes.is_empty() && !name.trim().is_empty() {
                    true => Role::Attribute(name.trim().to_owned()),
                    false => Role::Unused,
                })
            })
            .collect();
        Ok(Self { names, roles })
    }

    /// Roles of columns that nobody has mapped.
    fn by_name(names: &[String], roles: &mut [Option<Role>], columns: &Columns) {
        let lower: Vec<String> = names.iter().map(|name| name.trim().to_lowercase()).collect();
        let first = |roles: &[Option<Role>], wanted: &[&str]| {
            wanted.iter().find_map(|w| (0..lower.len()).find(|&n| roles[n].is_none() && lower[n] == *w))
        };
        if columns.key.is_none() && columns.study.is_none() {
            if let Some(n) = first(roles, &KEY_NAMES) {
                roles[n] = Some(Role::Key);
            } else if let Some(n) = first(roles, &[STUDY_NAME]) {
                roles[n] = Some(Role::Study);
            }
        }
        if columns.images.is_empty()
            && let Some(n) = first(roles, &IMAGE_NAMES)
        {
            roles[n] = Some(Role::Image);
        }
        if columns.texts.is_empty() {
            for n in 0..lower.len() {
                if roles[n].is_none() && TEXT_NAMES.contains(&lower[n].as_str()) {
                    roles[n] = Some(Role::Text);
                }
            }
        }
    }

    /// Whether a row can have an image or a text at all.
    pub(crate) fn has_content(&self) -> bool {
        self.roles.iter().any(|role| matches!(role, Role::Image | Role::Text))
    }

    /// The mapping in words, a line for each column.
    pub(crate) fn describe(&self) -> Vec<(String, String)> {
        let said = |role: &Role| match role {
            Role::Key => "key".to_owned(),
            Role::Study => "key of the study; its rows are one record".to_owned(),
            Role::Image => "image".to_owned(),
            Role::Text => "text".to_owned(),
            Role::Attribute(name) => format!("attribute {}", printable(name)),
            Role::Unused => "not used".to_owned(),
        };
        self.names.iter().zip(&self.roles).map(|(name, role)| (printable(name), said(role))).collect()
    }
}

/// One row on its way to an item.
#[derive(Debug, Default)]
pub(crate) struct Row {
    pub(crate) key: Option<String>,
    /// Whether neighbours of the same key are one study.
    pub(crate) joins: bool,
    /// Images by path, in order.
    pub(crate) images: Vec<String>,
    /// Images that the row has itself.
    pub(crate) own_images: Vec<crate::ItemImage>,
    pub(crate) texts: Vec<String>,
    pub(crate) attributes: Attributes,
}

impl Row {
    /// The item of a row; without a key it is named after its first image, else after its place.
    pub(crate) fn into_found(
        self,
        base: &Base,
        chunking: Option<Chunking>,
        origin: Origin,
    ) -> Result<Found, String> {
        if self.images.is_empty() && self.own_images.is_empty() && self.texts.is_empty() {
            return Err("neither image nor text; give the row one of them".to_owned());
        }
        let mut images = self.own_images;
        let mut first = None;
        for given in &self.images {
            let (image, path) = base.image(given)?;
            images.push(image);
            first.get_or_insert(path);
        }
        let key = match (self.key, first, origin.position()) {
            (Some(key), _, _) => key,
            (None, Some(path), _) => slashed(&path.with_extension("")),
            (None, None, Some((what, place))) => format!("{what}-{place}"),
            (None, None, None) => return Err("it has no key; give it one".to_owned()),
        };
        let key = Key::new(key).map_err(|e| e.to_string())?;
        let mut attributes = self.attributes;
        if self.joins {
            attributes = study_attributes(attributes);
            // What a row says of a finding goes before what its report does.
            for (name, value) in self.texts.iter().flat_map(|text| study::record(text).1) {
                attributes.entry(name).or_insert(value);
            }
        }
        let by_layout = if self.joins { Chunking::Sentences } else { Chunking::Context };
        let chunking = chunking.unwrap_or(by_layout);
        let item = Item { key, images, texts: self.texts, chunking, attributes, origin };
        Ok(Found { item, joins: self.joins })
    }
}

/// A study has the views of all its images, so `view` is a list there, named `views`.
fn study_attributes(mut attributes: Attributes) -> Attributes {
    if let Some(AttributeValue::String(view)) = attributes.get("view")
        && !attributes.contains_key("views")
    {
        let views = AttributeValue::List(vec![normal_view(view)]);
        attributes.remove("view");
        attributes.insert("views".to_owned(), views);
    }
    attributes
}

/// A projection as all layouts write it: upper case; a left lateral without marks is `LATERAL`.
pub(crate) fn normal_view(view: &str) -> String {
    let upper = view.trim().to_uppercase();
    match upper.as_str() {
        "L" | "LAT" | "LATERAL VIEW" => "LATERAL".to_owned(),
        "POSTERO-ANTERIOR" | "POSTEROANTERIOR" => "PA".to_owned(),
        "ANTERO-POSTERIOR" | "ANTEROPOSTERIOR" => "AP".to_owned(),
        _ => upper,
    }
}

/// The value in a cell of a table that knows no types.
///
/// White space around it does not count. Empty is no value; `true` and `false` in any case are truth values;
/// digits without a leading zero, with `-` in front or not, are an integer; with one point and digits on both
/// sides of it, or an exponent, a float; a day or a moment of RFC 3339 is a time; all else is a text. An
/// integer beyond 64 bits stays a text, since a float would lose its last digits.
pub(crate) fn typed(cell: &str) -> Option<AttributeValue> {
    let cell = cell.trim();
    let (&first, rest) = cell.as_bytes().split_first()?;
    if cell.eq_ignore_ascii_case("true") || cell.eq_ignore_ascii_case("false") {
        return Some(AttributeValue::Bool(cell.eq_ignore_ascii_case("true")));
    }
    let number = if first == b'-' { rest } else { cell.as_bytes() };
    let whole = number.iter().take_while(|b| b.is_ascii_digit()).count();
    let padded = whole > 1 && number[0] == b'0';
    if whole > 0 && !padded {
        if whole == number.len() {
            let value = cell.parse().map(AttributeValue::Integer);
            return Some(value.unwrap_or_else(|_| AttributeValue::String(cell.to_owned())));
        }
        let fraction = &number[whole..];
        let decimal = fraction[0] == b'.' && fraction.get(1).is_some_and(u8::is_ascii_digit);
        if (decimal || matches!(fraction[0], b'e' | b'E'))
            && let Some(value) = cell.parse::<f64>().ok().filter(|v| v.is_finite())
        {
            return Some(AttributeValue::Float(value));
        }
    }
    Some(match cell.parse() {
        Ok(time) => AttributeValue::Time(time),
        Err(_) => AttributeValue::String(cell.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn cells_become_what_they_say() {
        let text = |t: &str| Some(AttributeValue::String(t.to_owned()));
        assert_eq!(typed(" \t"), None);
        assert_eq!(typed(" 52 "), Some(AttributeValue::Integer(52)));
        assert_eq!(typed("-7"), Some(AttributeValue::Integer(-7)));
        assert_eq!(typed("0"), Some(AttributeValue::Integer(0)));
        assert_eq!(typed("007"), text("007"));
        assert_eq!(typed("+5"), text("+5"));
        assert_eq!(typed("99999999999999999999"), text("99999999999999999999"));
        assert_eq!(typed("1.50"), Some(AttributeValue::Float(1.5)));
        assert_eq!(typed("-0.5"), Some(AttributeValue::Float(-0.5)));
        assert_eq!(typed("1e3"), Some(AttributeValue::Float(1000.0)));
        assert_eq!(typed("1e999"), text("1e999"));
        assert_eq!(typed("1."), text("1."));
        assert_eq!(typed("1.2.3"), text("1.2.3"));
        assert_eq!(typed("NaN"), text("NaN"));
        assert_eq!(typed("inf"), text("inf"));
        assert_eq!(typed("-"), text("-"));
        assert_eq!(typed("TRUE"), Some(AttributeValue::Bool(true)));
        assert_eq!(typed("false"), Some(AttributeValue::Bool(false)));
        assert_eq!(typed("2024-01-31"), Some(AttributeValue::Time("2024-01-31".parse().unwrap())));
        assert_eq!(typed("2024-13-31"), text("2024-13-31"));
    }

    #[test]
    fn columns_go_by_name_unless_they_are_mapped() {
        let names = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
        let attribute = |name: &str| Role::Attribute(name.to_owned());
        let table = names(&["ID", "Path", "caption", "age", "report", ""]);
        let roles = Roles::of(table.clone(), &Columns::default()).unwrap();
        assert_eq!(
            roles.roles,
            [Role::Key, Role::Image, Role::Text, attribute("age"), Role::Text, Role::Unused]
        );
        let columns = Columns {
            key: Some("age".to_owned()),
            texts: names(&["report"]),
            attributes: vec![("words".to_owned(), "caption".to_owned())],
            ..Columns::default()
        };
        let roles = Roles::of(table.clone(), &columns).unwrap();
        assert_eq!(
            roles.roles,
            [Role::Unused, Role::Image, attribute("words"), Role::Key, Role::Text, Role::Unused]
        );
        let columns = Columns { study: Some("nowhere".to_owned()), ..Columns::default() };
        let error = Roles::of(table, &columns).unwrap_err();
        assert!(error.contains("no column 'nowhere'") && error.contains("ID, Path"), "{error}");
        let roles = Roles::of(names(&["case_id", "image"]), &Columns::default()).unwrap();
        assert_eq!(roles.roles, [Role::Study, Role::Image]);
    }
}
