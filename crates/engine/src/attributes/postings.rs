//! The points per attribute value, and the sets that conditions make of them.
//!
//! Deliberately absent: locks, loading, and what becomes of the sets.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use diptych_core::limits::FILTER_PREFIX_BYTES_MAX;

use diptych_core::{
    AttributeValue, Attributes, Comparison, Condition, FilterValue, Modality, Number, PartRef, PointId, Time,
};
use diptych_index::PointSet;

use crate::points::Points;

/// Bytes of a text beyond which its digest stands for it, so that long texts are not kept twice. So many
/// are kept beside the digest: a filter asks for no longer beginnings.
const TEXT_BYTES: usize = FILTER_PREFIX_BYTES_MAX;
/// Attribute names listed in a note about one that no record has.
const NAMES_LISTED: usize = 20;

/// A value as it is looked up. Ordered by kind, numbers by value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Term {
    Bool(bool),
    Number(Number),
    Time(Time),
    Text(Arc<str>),
    LongText(Arc<str>, Box<[u8; 32]>),
}

impl Term {
    fn text(text: &str) -> Self {
        if text.len() <= TEXT_BYTES {
            Self::Text(text.into())
        } else {
            let head = &text[..text.floor_char_boundary(TEXT_BYTES)];
            Self::LongText(head.into(), Box::new(*blake3::hash(text.as_bytes()).as_bytes()))
        }
    }

    fn of(value: &FilterValue) -> Self {
        match value {
            FilterValue::Text(text) => Self::text(text),
            FilterValue::Number(number) => Self::Number(*number),
            FilterValue::Bool(value) => Self::Bool(*value),
            FilterValue::Time(time) => Self::Time(*time),
        }
    }

    /// The value itself; `None` for a text of which only the beginning is kept.
    pub(super) fn value(&self) -> Option<FilterValue> {
        Some(match self {
            Self::Bool(value) => FilterValue::Bool(*value),
            Self::Number(value) => FilterValue::Number(*value),
            Self::Time(value) => FilterValue::Time(*value),
            Self::Text(text) => FilterValue::Text(text.to_string()),
            Self::LongText(..) => return None,
        })
    }

    /// How its text begins, if it is one.
    fn head(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::LongText(text, _) => Some(text),
            Self::Bool(_) | Self::Number(_) | Self::Time(_) => None,
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Bool(_) => Kind::Bool,
            Self::Number(_) => Kind::Number,
            Self::Time(_) => Kind::Time,
            Self::Text(_) | Self::LongText(..) => Kind::Text,
        }
    }
}

/// What an attribute of one record holds.
#[derive(Debug)]
enum Held {
    One(Term),
    List(Vec<Term>),
}

impl Held {
    fn of(value: &AttributeValue) -> Self {
        match value {
            AttributeValue::String(text) => Self::One(Term::text(text)),
            AttributeValue::Integer(v) => Self::One(Term::Number(Number::Integer(*v))),
            AttributeValue::Float(v) => Self::One(Term::Number(Number::Float(*v))),
            AttributeValue::Bool(v) => Self::One(Term::Bool(*v)),
            AttributeValue::Time(v) => Self::One(Term::Time(*v)),
            AttributeValue::List(items) => {
                let mut terms: Vec<Term> = items.iter().map(|item| Term::text(item)).collect();
                terms.sort_unstable();
                terms.dedup();
                Self::List(terms)
            }
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::One(term) => term.kind(),
            Self::List(_) => Kind::List,
        }
    }
}

/// Types of values, as notes name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    List,
    Number,
    Bool,
    Time,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Text, Self::List, Self::Number, Self::Bool, Self::Time];

    fn plural(self) -> &'static str {
        match self {
            Self::Text => "texts",
            Self::List => "lists of texts",
            Self::Number => "numbers",
            Self::Bool => "truth values",
            Self::Time => "times",
        }
    }
}

/// Points by modality.
pub(super) type Sides = [Points; 2];

/// The points of one attribute.
#[derive(Debug, Default)]
pub(super) struct Attribute {
    pub(super) any: Sides,
    /// Of single values.
    pub(super) values: BTreeMap<Term, Sides>,
    /// Of lists, by member.
    pub(super) members: BTreeMap<Term, Sides>,
    /// Points by [`Kind`] of the value.
    kinds: [usize; 5],
}

/// What one record has, shared by its points.
type Owned = Arc<[(Arc<str>, Held)]>;

/// The attributes of all points of a collection.
#[derive(Debug, Default)]
pub(super) struct Postings {
    attributes: BTreeMap<Arc<str>, Attribute>,
    all: [PointSet; 2],
    /// The first point of each record, by modality.
    pub(super) leads: [PointSet; 2],
    /// The first text of each record that has no image.
    pub(super) only_text: PointSet,
    owned: HashMap<PointId, Owned>,
    /// Points whose removal came before their addition: writers may overtake each other here.
    gone: HashSet<PointId>,
    /// Counts the writes.
    pub(super) version: u64,
}

impl Postings {
    /// What a record has, with the names that are known already.
    fn own(&self, attributes: &Attributes) -> Owned {
        let name = |name: &String| match self.attributes.get_key_value(name.as_str()) {
            Some((known, _)) => Arc::clone(known),
            None => Arc::from(name.as_str()),
        };
        attributes.iter().map(|(key, value)| (name(key), Held::of(value))).collect()
    }

    /// Adds the points of a record with these attributes.
    pub(super) fn add(&mut self, attributes: &Attributes, points: &[(PartRef, PointId)]) {
        let owned = self.own(attributes);
        let [image, text] = Modality::ALL.map(|side| {
            points.iter().filter(|(part, _)| part.modality == side).min_by_key(|(part, _)| *part)
        });
        for &(part, point) in points {
            if !self.add_point(part, point, &owned) {
                continue;
            }
            if [image, text].contains(&Some(&(part, point))) {
                self.leads[part.modality as usize].insert(point.0);
                if image.is_none() {
                    self.only_text.insert(point.0);
                }
            }
        }
    }

    /// Returns whether the point is there now: it may have been removed already.
    fn add_point(&mut self, part: PartRef, point: PointId, owned: &Owned) -> bool {
        if self.gone.remove(&point) {
            return false;
        }
        let side = part.modality as usize;
        self.all[side].insert(point.0);
        for (name, held) in owned.iter() {
            let attribute = self.attributes.entry(Arc::clone(name)).or_default();
            attribute.any[side].insert(point.0);
            attribute.kinds[held.kind() as usize] += 1;
            match held {
                Held::One(term) => attribute.values.entry(term.clone()).or_default()[side].insert(point.0),
                Held::List(terms) => {
                    for term in terms {
                        attribute.members.entry(term.clone()).or_default()[side].insert(point.0);
                    }
                }
            }
        }
        self.owned.insert(point, Arc::clone(owned));
        true
    }

    pub(super) fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.get(name)
    }

    /// Removes a point, or remembers that it must not be added.
    pub(super) fn remove(&mut self, part: PartRef, point: PointId) {
        let Some(owned) = self.owned.remove(&point) else {
            self.gone.insert(point);
            return;
        };
        let side = part.modality as usize;
        self.all[side].remove(point.0);
        self.leads[side].remove(point.0);
        self.only_text.remove(point.0);
        for (name, held) in owned.iter() {
            let Some(attribute) = self.attributes.get_mut(name) else { continue };
            attribute.any[side].remove(point.0);
            attribute.kinds[held.kind() as usize] -= 1;
            match held {
                Held::One(term) => remove_from(&mut attribute.values, term, side, point),
                Held::List(terms) => {
                    for term in terms {
                        remove_from(&mut attribute.members, term, side, point);
                    }
                }
            }
            if attribute.any.iter().all(Points::is_empty) {
                self.attributes.remove(name);
            }
        }
    }

    /// The points of one modality whose records meet a condition.
    pub(super) fn meeting(&self, condition: &Condition, side: usize) -> Cow<'_, PointSet> {
        match condition {
            Condition::Compare { attribute, comparison, value } => {
                let attribute = self.attributes.get(attribute.as_str());
                let equal = || union(attribute.and_then(|a| a.values.get(&Term::of(value))), side);
                match comparison {
                    Comparison::Equal => equal(),
                    Comparison::NotEqual => Cow::Owned(&self.all[side] - equal().as_ref()),
                    _ => {
                        let range = size_range(*comparison, value);
                        union(attribute.iter().flat_map(|a| a.values.range(range.clone())).map(second), side)
                    }
                }
            }
            Condition::In { attribute, values } => {
                let attribute = self.attributes.get(attribute.as_str());
                union(values.iter().filter_map(|value| attribute?.values.get(&Term::of(value))), side)
            }
            Condition::Has { attribute, text } => {
                let attribute = self.attributes.get(attribute.as_str());
                union(attribute.and_then(|a| a.members.get(&Term::text(text))), side)
            }
            Condition::StartsWith { attribute, prefix } => {
                let attribute = self.attributes.get(attribute.as_str());
                union(attribute.iter().flat_map(|a| starting(&a.values, prefix)), side)
            }
            Condition::Exists { attribute } => {
                union(self.attributes.get(attribute.as_str()).map(|a| &a.any), side)
            }
            Condition::All(inner) => {
                let mut inner = inner.iter();
                let first = inner.next().map_or_else(Cow::default, |first| self.meeting(first, side));
                inner.fold(first, |met, next| {
                    if met.is_empty() {
                        met
                    } else {
                        Cow::Owned(met.as_ref() & self.meeting(next, side).as_ref())
                    }
                })
            }
            Condition::Any(inner) => {
                let mut any = PointSet::new();
                for condition in inner {
                    any |= self.meeting(condition, side).as_ref();
                }
                Cow::Owned(any)
            }
            Condition::Not(inner) => Cow::Owned(&self.all[side] - self.meeting(inner, side).as_ref()),
        }
    }

    /// Says of conditions that no record can meet why that is.
    pub(super) fn note(&self, condition: &Condition, notes: &mut Vec<String>) {
        let (name, wanted) = match condition {
            Condition::Compare { attribute, value, .. } => (attribute, vec![Term::of(value).kind()]),
            Condition::In { attribute, values } => {
                (attribute, values.iter().map(|value| Term::of(value).kind()).collect())
            }
            Condition::Has { attribute, .. } => (attribute, vec![Kind::List]),
            Condition::StartsWith { attribute, .. } => (attribute, vec![Kind::Text]),
            Condition::Exists { attribute } => (attribute, Kind::ALL.to_vec()),
            Condition::All(inner) | Condition::Any(inner) => {
                return inner.iter().for_each(|condition| self.note(condition, notes));
            }
            Condition::Not(inner) => return self.note(inner, notes),
        };
        let note = match self.attributes.get(name.as_str()) {
            None => self.no_such(name),
            Some(attribute) if wanted.iter().all(|&kind| attribute.kinds[kind as usize] == 0) => {
                let there = Kind::ALL.into_iter().filter(|&kind| attribute.kinds[kind as usize] > 0);
                let there: Vec<&str> = there.map(Kind::plural).collect();
                let hint = match condition {
                    Condition::Has { .. } => "; compare single values with '=' or 'in'",
                    _ if attribute.kinds[Kind::List as usize] > 0 => "; ask what a list contains with 'has'",
                    _ => "",
                };
                format!("'{name}' holds {}, no {}{hint}", there.join(" and "), wanted[0].plural())
            }
            Some(_) => return,
        };
        if !notes.contains(&note) {
            notes.push(note);
        }
    }

    fn no_such(&self, name: &str) -> String {
        let mut names: Vec<&str> = self.attributes.keys().map(AsRef::as_ref).take(NAMES_LISTED).collect();
        if self.attributes.len() > NAMES_LISTED {
            names.push("and others");
        }
        if names.is_empty() {
            format!("no record has the attribute '{name}', or any other")
        } else {
            format!("no record has the attribute '{name}'; there are: {}", names.join(", "))
        }
    }
}

fn remove_from(postings: &mut BTreeMap<Term, Sides>, term: &Term, side: usize, point: PointId) {
    if let Some(sides) = postings.get_mut(term) {
        sides[side].remove(point.0);
        if sides.iter().all(Points::is_empty) {
            postings.remove(term);
        }
    }
}

fn second<A, B>((_, b): (A, B)) -> B {
    b
}

fn union<'a>(sides: impl IntoIterator<Item = &'a Sides>, side: usize) -> Cow<'a, PointSet> {
    Points::union(sides.into_iter().map(|sides| &sides[side]))
}

/// The sets of the texts that begin with `prefix`. Short texts and long ones are ordered apart.
fn starting<'a>(values: &'a BTreeMap<Term, Sides>, prefix: &str) -> impl Iterator<Item = &'a Sides> {
    let short = Term::Text(prefix.into());
    let long = Term::LongText(prefix.into(), Box::new([0; 32]));
    [short, long].into_iter().flat_map(move |first| {
        let long = matches!(first, Term::LongText(..));
        let same = move |term: &Term| matches!(term, Term::LongText(..)) == long;
        let begins = move |term: &Term| term.head().is_some_and(|head| head.starts_with(prefix));
        values.range(first..).take_while(move |(term, _)| same(term) && begins(term)).map(second)
    })
}

/// The terms that a comparison of sizes accepts; for a value that is neither number nor time, none.
fn size_range(comparison: Comparison, value: &FilterValue) -> (Bound<Term>, Bound<Term>) {
    let (least, greatest) = match value {
        FilterValue::Number(_) => {
            (Term::Number(Number::Float(f64::NEG_INFINITY)), Term::Number(Number::Float(f64::INFINITY)))
        }
        FilterValue::Time(_) => (Term::Time(Time::MIN), Term::Time(Time::MAX)),
        FilterValue::Text(_) | FilterValue::Bool(_) => {
            return (Bound::Included(Term::Bool(true)), Bound::Excluded(Term::Bool(true)));
        }
    };
    let term = Term::of(value);
    let (least, greatest) = (Bound::Included(least), Bound::Included(greatest));
    match comparison {
        Comparison::Less => (least, Bound::Excluded(term)),
        Comparison::LessOrEqual => (least, Bound::Included(term)),
        Comparison::Greater => (Bound::Excluded(term), greatest),
        Comparison::GreaterOrEqual => (Bound::Included(term), greatest),
        Comparison::Equal | Comparison::NotEqual => (Bound::Included(term.clone()), Bound::Included(term)),
    }
}

#[cfg(test)]
impl Postings {
    pub(super) fn is_empty(&self) -> bool {
        self.attributes.is_empty()
            && self.owned.is_empty()
            && self.gone.is_empty()
            && self.all.iter().chain(&self.leads).all(PointSet::is_empty)
            && self.only_text.is_empty()
    }
}
