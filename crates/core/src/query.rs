//! What is asked of a collection, and what it answers.

mod error;
mod set;

use crate::limits::{EF_MAX, K_MAX, RANK_CONSTANT_MAX, TERMS_MAX, TEXT_BYTES_MAX, WEIGHT_MAX};
use crate::{Facet, Filter, Key, Modality, PartRef};

pub use error::QueryError;
pub use set::SetQuery;

/// What a search starts from.
#[derive(Debug, Clone, PartialEq)]
pub enum QuerySource {
    /// Words, encoded by the text tower.
    Text(String),
    /// An encoded image file, encoded by the image tower.
    Image(Vec<u8>),
    /// A stored record; without a part, its first part of either modality, images first.
    Key {
        /// The record.
        key: Key,
        /// The part whose stored embedding is used.
        part: Option<PartRef>,
    },
    /// A vector of the shared space; scaled to unit norm.
    Vector(Vec<f32>),
}

/// One thing that a search looks for, or away from.
#[derive(Debug, Clone, PartialEq)]
pub struct Term {
    source: QuerySource,
    weight: f32,
}

/// The modality of the parts that a search finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Parts of this one.
    Only(Modality),
    /// Parts of either; put into one order by relevance.
    Both,
}

/// One search: from terms, words or both, for the `k` best records by their parts of the target.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// Empty only where there are words.
    terms: Vec<Term>,
    lexical: Option<Lexical>,
    target: Target,
    k: usize,
    effort: Effort,
    filter: Option<Filter>,
    shape: Shape,
    facets: Vec<Facet>,
    thumbnails: bool,
}

/// Words that are looked for in the texts of records, beside the terms or instead of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Lexical {
    /// As it was typed: words, `"phrases"`, `+required` and `-excluded` ones.
    pub text: String,
    /// How the order by words and the order by terms become one.
    pub fusion: Fusion,
}

/// How two orders of records become one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fusion {
    /// Reciprocal rank fusion (Cormack et al. 2009): a record's worth is the sum of `1 / (k + rank)` over
    /// the orders that it is in, ranks counted from 1.
    Rrf {
        /// Larger lets the first places count less; above 0, [`Fusion::RANK_CONSTANT`] unless told
        /// otherwise.
        k: f32,
    },
    /// A weighted sum of scores, each brought to 0 to 1 over all candidates (the least is 0, the greatest
    /// 1). A record without the words has the score 0 by words before that.
    Weighted {
        /// How much the words count, 0 to 1; the rest is for the terms.
        lexical: f32,
    },
}

/// What becomes of the records that a search finds, before they are answered.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Shape {
    /// Only records whose relevance is at least this, 0 to 1. The best of the others are answered apart.
    pub min_relevance: Option<f64>,
    /// Records that have the same value of this attribute as a record that the query names are left out:
    /// with a patient's number, the other studies of the same patient.
    pub exclude_same: Option<String>,
    /// Of records with the same value of this attribute only the best; those without it stand alone.
    pub group_by: Option<String>,
    /// Of records whose parts are at least this similar, a cosine of 0 to 1, only the best.
    pub collapse: Option<f32>,
    /// How much a record has to differ from those before it: 0 for not at all, 1 for nothing else
    /// (maximal marginal relevance, Carbonell and Goldstein 1998).
    pub diversity: Option<f32>,
    /// Records that are passed over: those of the pages before.
    pub offset: usize,
}

/// How hard a search tries to find the true neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Effort {
    /// As the index does when nothing is said.
    #[default]
    Default,
    /// A candidate list of this size: larger finds more and takes longer.
    Ef(usize),
    /// The share of the true neighbours to be found, above 0 and below 1; the engine chooses the
    /// candidate list by what it has measured.
    Recall(f64),
}

impl Term {
    /// A term; one with a negative weight is looked away from.
    ///
    /// # Errors
    /// [`QueryError::Weight`] when the weight is 0, not finite or out of bounds.
    pub fn new(source: QuerySource, weight: f32) -> Result<Self, QueryError> {
        match weight != 0.0 && weight.abs() <= WEIGHT_MAX {
            true => Ok(Self { source, weight }),
            false => Err(QueryError::Weight { found: weight }),
        }
    }

    /// What it is.
    pub fn source(&self) -> &QuerySource {
        &self.source
    }

    /// How much it counts.
    pub fn weight(&self) -> f32 {
        self.weight
    }
}

impl From<QuerySource> for Term {
    fn from(source: QuerySource) -> Self {
        Self { source, weight: 1.0 }
    }
}

impl From<Modality> for Target {
    fn from(modality: Modality) -> Self {
        Self::Only(modality)
    }
}

impl Target {
    /// The modalities that are searched.
    pub fn modalities(self) -> &'static [Modality] {
        match self {
            Self::Only(Modality::Image) => &[Modality::Image],
            Self::Only(Modality::Text) => &[Modality::Text],
            Self::Both => &Modality::ALL,
        }
    }
}

impl Query {
    /// Checks the bounds. `ef` is the size of the graph's candidate list: larger finds more of the
    /// true neighbours and takes longer; `None` lets the index choose.
    ///
    /// # Errors
    /// [`QueryError`] when `k` or `ef` is out of range.
    pub fn new(
        source: QuerySource,
        target: impl Into<Target>,
        k: u64,
        ef: Option<u64>,
    ) -> Result<Self, QueryError> {
        Self::composed(vec![source.into()], target, k, ef)
    }

    /// A query of several terms: what is near to the positive ones, by their weights, and not near to
    /// the negative ones.
    ///
    /// # Errors
    /// As [`Query::new`]; also when there is no term, none that is positive, or too many.
    pub fn composed(
        terms: Vec<Term>,
        target: impl Into<Target>,
        k: u64,
        ef: Option<u64>,
    ) -> Result<Self, QueryError> {
        let k = in_range(k, K_MAX).ok_or(QueryError::K { found: k })?;
        let ef = ef.map(|ef| in_range(ef, EF_MAX).ok_or(QueryError::Ef { found: ef })).transpose()?;
        match terms.len() {
            0 => return Err(QueryError::NoTerm),
            found if found > TERMS_MAX => return Err(QueryError::Terms { found }),
            _ if terms.iter().all(|term| term.weight < 0.0) => return Err(QueryError::OnlyNegative),
            _ => {}
        }
        let query = Self { effort: ef.map_or(Effort::Default, Effort::Ef), ..Self::bare(target.into(), k) };
        Ok(Self { terms, ..query })
    }

    /// A query of words alone, in the order of their BM25 scores; nothing is encoded.
    ///
    /// # Errors
    /// [`QueryError::K`]; as [`Query::with_lexical`].
    pub fn words(lexical: Lexical, target: impl Into<Target>, k: u64) -> Result<Self, QueryError> {
        let k = in_range(k, K_MAX).ok_or(QueryError::K { found: k })?;
        Self::bare(target.into(), k).with_lexical(lexical)
    }

    /// A query of nothing yet.
    fn bare(target: Target, k: usize) -> Self {
        Self {
            terms: Vec::new(),
            lexical: None,
            target,
            k,
            effort: Effort::Default,
            filter: None,
            shape: Shape::default(),
            facets: Vec::new(),
            thumbnails: false,
        }
    }

    /// The same query, which looks for words in texts, too.
    ///
    /// # Errors
    /// [`QueryError::Words`], [`QueryError::RankConstant`] or [`QueryError::Share`].
    pub fn with_lexical(self, lexical: Lexical) -> Result<Self, QueryError> {
        if lexical.text.len() > TEXT_BYTES_MAX {
            return Err(QueryError::Words { found: lexical.text.len() });
        }
        match lexical.fusion {
            Fusion::Rrf { k } if !(k > 0.0 && k <= RANK_CONSTANT_MAX) => {
                Err(QueryError::RankConstant { found: k })
            }
            Fusion::Weighted { lexical } if !(0.0..=1.0).contains(&lexical) => {
                Err(QueryError::Share { what: "the weight of words", found: lexical.into() })
            }
            _ => Ok(Self { lexical: Some(lexical), ..self }),
        }
    }

    /// The same query, whose answer has this shape.
    ///
    /// # Errors
    /// [`QueryError::Share`], [`QueryError::NoRelevance`], [`QueryError::NoAttribute`] or
    /// [`QueryError::Offset`].
    pub fn with_shape(self, shape: Shape) -> Result<Self, QueryError> {
        let shares = [
            ("min_relevance", shape.min_relevance),
            ("collapse", shape.collapse.map(f64::from)),
            ("diversity", shape.diversity.map(f64::from)),
        ];
        for (what, share) in shares {
            if let Some(found) = share.filter(|share| !(0.0..=1.0).contains(share)) {
                return Err(QueryError::Share { what, found });
            }
        }
        if shape.min_relevance.is_some() && self.terms.is_empty() {
            return Err(QueryError::NoRelevance);
        }
        for (what, name) in [("exclude_same", &shape.exclude_same), ("group_by", &shape.group_by)] {
            if name.as_ref().is_some_and(String::is_empty) {
                return Err(QueryError::NoAttribute { what });
            }
        }
        if shape.offset + self.k > K_MAX {
            return Err(QueryError::Offset { found: shape.offset });
        }
        Ok(Self { shape, ..self })
    }

    /// The same query, only among records that meet a filter.
    #[must_use]
    pub fn with_filter(self, filter: Filter) -> Self {
        Self { filter: Some(filter), ..self }
    }

    /// The same query, which also counts the values of attributes.
    ///
    /// # Errors
    /// [`QueryError::Facets`].
    pub fn with_facets(self, facets: Vec<Facet>) -> Result<Self, QueryError> {
        Facet::check_number(&facets)?;
        Ok(Self { facets, ..self })
    }

    /// The same query, whose hits come with small pictures.
    #[must_use]
    pub fn with_thumbnails(self, thumbnails: bool) -> Self {
        Self { thumbnails, ..self }
    }

    /// The same query, with the candidate list chosen for this share of the true neighbours.
    ///
    /// # Errors
    /// [`QueryError::Recall`] when it is not above 0 and below 1, [`QueryError::EfAndRecall`] when an
    /// `ef` is given, too.
    pub fn with_target_recall(self, recall: f64) -> Result<Self, QueryError> {
        if !(recall > 0.0 && recall < 1.0) {
            return Err(QueryError::Recall { found: recall });
        }
        match self.effort {
            Effort::Ef(_) => Err(QueryError::EfAndRecall),
            Effort::Default | Effort::Recall(_) => Ok(Self { effort: Effort::Recall(recall), ..self }),
        }
    }

    /// What the search looks for, and away from; empty when it looks for words alone.
    pub fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// The words that it looks for, if any.
    pub fn lexical(&self) -> Option<&Lexical> {
        self.lexical.as_ref()
    }

    /// The modality of the parts that are searched.
    pub fn target(&self) -> Target {
        self.target
    }

    /// What becomes of the records found.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Most hits wanted.
    pub fn k(&self) -> usize {
        self.k
    }

    /// How hard to try.
    pub fn effort(&self) -> Effort {
        self.effort
    }

    /// The attributes whose values are counted.
    pub fn facets(&self) -> &[Facet] {
        &self.facets
    }

    /// Whether hits come with small pictures.
    pub fn thumbnails(&self) -> bool {
        self.thumbnails
    }

    /// What records must meet to be found, if anything.
    pub fn filter(&self) -> Option<&Filter> {
        self.filter.as_ref()
    }
}

impl Fusion {
    /// The usual constant of reciprocal rank fusion.
    pub const RANK_CONSTANT: f32 = 60.0;
}

impl Default for Fusion {
    fn default() -> Self {
        Self::Rrf { k: Self::RANK_CONSTANT }
    }
}

fn in_range(value: u64, max: usize) -> Option<usize> {
    usize::try_from(value).ok().filter(|value| (1..=max).contains(value))
}

/// A record that answers a query.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// The record.
    pub key: Key,
    /// Cosine similarity of the query and the record's best part; 0 for a query of words alone.
    pub score: f32,
    /// That part; for a query of words alone, the piece of text that has them, or the first image where
    /// images are searched.
    pub part: PartRef,
}

/// How an index came to its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Plan {
    /// Every point that counts was compared with the query: the answer is exact.
    #[default]
    Scan,
    /// A walk of the graph; points that do not count were dropped from its list.
    Walk,
    /// A walk of the graph over the points that count, stepping across those that do not.
    TwoHop,
}

impl std::fmt::Display for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Scan => "scan",
            Self::Walk => "walk",
            Self::TwoHop => "two-hop walk",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{FACET_VALUES_MAX, FACETS_MAX};

    #[test]
    fn k_and_ef_are_bounded() {
        let query = |k, ef| Query::new(QuerySource::Text("a".into()), Modality::Image, k, ef);
        assert_eq!(query(0, None), Err(QueryError::K { found: 0 }));
        assert_eq!(query(u64::MAX, None), Err(QueryError::K { found: u64::MAX }));
        assert_eq!(query(1, Some(0)), Err(QueryError::Ef { found: 0 }));
        assert_eq!(query(1, Some(u64::MAX)), Err(QueryError::Ef { found: u64::MAX }));
        assert!(query(K_MAX as u64, Some(EF_MAX as u64)).is_ok());
    }

    #[test]
    fn terms_have_a_weight_and_one_at_least_is_looked_for() {
        let text = || QuerySource::Text("a".into());
        for found in [0.0, f32::INFINITY, -1e6] {
            assert_eq!(Term::new(text(), found), Err(QueryError::Weight { found }));
        }
        assert!(matches!(Term::new(text(), f32::NAN), Err(QueryError::Weight { .. })));
        let query = |weights: &[f32]| {
            let terms = weights.iter().map(|weight| Term::new(text(), *weight).expect("valid")).collect();
            Query::composed(terms, Target::Both, 5, None)
        };
        assert_eq!(query(&[]), Err(QueryError::NoTerm));
        assert_eq!(query(&[-1.0, -2.0]), Err(QueryError::OnlyNegative));
        assert_eq!(query(&[1.0; TERMS_MAX + 1]), Err(QueryError::Terms { found: TERMS_MAX + 1 }));
        assert_eq!(query(&[-1.0, 0.5]).map(|query| query.terms().len()), Ok(2));
    }

    #[test]
    fn a_shape_is_made_of_shares_and_names() {
        let shaped = |shape| {
            let query = Query::new(QuerySource::Text("a".into()), Modality::Image, 10, None).expect("valid");
            query.with_shape(shape).map(|_| ())
        };
        let (what, found) = ("min_relevance", 1.5);
        let shape = Shape { min_relevance: Some(found), ..Shape::default() };
        assert_eq!(shaped(shape), Err(QueryError::Share { what, found }));
        assert!(shaped(Shape { diversity: Some(f32::NAN), ..Shape::default() }).is_err());
        let shape = Shape { group_by: Some(String::new()), ..Shape::default() };
        assert_eq!(shaped(shape), Err(QueryError::NoAttribute { what: "group_by" }));
        let last = Shape { offset: K_MAX - 10, collapse: Some(0.9), ..Shape::default() };
        assert_eq!(shaped(last.clone()), Ok(()));
        let found = K_MAX - 9;
        assert_eq!(shaped(Shape { offset: found, ..last }), Err(QueryError::Offset { found }));
    }

    #[test]
    fn a_facet_names_an_attribute_and_is_bounded() {
        assert_eq!(Facet::new("", 10), Err(QueryError::NoAttribute { what: "a facet" }));
        for found in [0, FACET_VALUES_MAX + 1] {
            assert_eq!(Facet::new("view", found), Err(QueryError::FacetValues { found }));
        }
        let query = Query::new(QuerySource::Text("a".into()), Modality::Image, 10, None).expect("valid");
        let facets = vec![Facet::new("view", 10).expect("valid"); FACETS_MAX + 1];
        let found = FACETS_MAX + 1;
        assert_eq!(query.clone().with_facets(facets.clone()), Err(QueryError::Facets { found }));
        assert_eq!(query.with_facets(facets[1..].to_vec()).map(|query| query.facets().len()), Ok(FACETS_MAX));
    }

    #[test]
    fn words_come_beside_the_terms_or_instead_of_them() {
        let words = |fusion| Lexical { text: "a b".into(), fusion };
        let beside = |fusion| {
            let query = Query::new(QuerySource::Text("a".into()), Modality::Image, 10, None).expect("valid");
            query.with_lexical(words(fusion)).map(|_| ())
        };
        assert_eq!(Fusion::default(), Fusion::Rrf { k: 60.0 });
        assert_eq!(beside(Fusion::default()), Ok(()));
        for found in [0.0, -1.0, f32::INFINITY, 1e6] {
            assert_eq!(beside(Fusion::Rrf { k: found }), Err(QueryError::RankConstant { found }));
        }
        assert!(beside(Fusion::Rrf { k: f32::NAN }).is_err());
        assert_eq!(beside(Fusion::Weighted { lexical: 1.0 }), Ok(()));
        for lexical in [-0.1, 1.1, f32::NAN] {
            let refused = beside(Fusion::Weighted { lexical });
            assert!(matches!(refused, Err(QueryError::Share { .. })), "{lexical}");
        }
        let alone = Query::words(words(Fusion::default()), Target::Both, 5).expect("valid");
        assert!(alone.terms().is_empty() && alone.lexical().is_some());
        let shape = Shape { min_relevance: Some(0.5), ..Shape::default() };
        assert_eq!(alone.with_shape(shape), Err(QueryError::NoRelevance));
        let long = Lexical { text: "a".repeat(TEXT_BYTES_MAX + 1), fusion: Fusion::default() };
        let found = TEXT_BYTES_MAX + 1;
        assert_eq!(Query::words(long, Target::Both, 5), Err(QueryError::Words { found }));
        assert!(matches!(Query::words(words(Fusion::default()), Target::Both, 0), Err(QueryError::K { .. })));
    }

    #[test]
    fn a_target_recall_is_a_share_and_takes_the_place_of_ef() {
        let query = |ef| Query::new(QuerySource::Text("a".into()), Modality::Image, 10, ef).expect("valid");
        for found in [0.0, 1.0, 95.0, -0.1, f64::INFINITY] {
            assert_eq!(query(None).with_target_recall(found), Err(QueryError::Recall { found }));
        }
        assert!(matches!(query(None).with_target_recall(f64::NAN), Err(QueryError::Recall { .. })));
        assert_eq!(query(Some(5)).with_target_recall(0.9), Err(QueryError::EfAndRecall));
        let chosen = query(None).with_target_recall(0.9).map(|query| query.effort());
        assert_eq!(chosen, Ok(Effort::Recall(0.9)));
        assert_eq!(query(Some(5)).effort(), Effort::Ef(5));
    }
}
