//! Searching: what is asked for, and pages of answers.

use diptych_core::{
    CollectionName, Facet, Filter, FilterError, Fusion, Key, Lexical, PartRef, QuerySource, Target, Term,
};
use diptych_proto::convert::{
    facet_to_wire, filter_to_wire, lexical_to_wire, modality_to_wire, part_ref_to_wire,
};
use diptych_proto::v1 as wire;
use futures_util::stream;
use tokio_stream::Stream;

use crate::client::Repeat;
use crate::records::mask;
use crate::{Client, Error, Found};

/// A condition on attributes: a [`Filter`], or one as it is written, such as `view = "PA" and age >= 40`.
pub trait IntoFilter {
    /// The filter.
    ///
    /// # Errors
    /// When what is written is none.
    fn into_filter(self) -> Result<Filter, FilterError>;
}

impl IntoFilter for Filter {
    fn into_filter(self) -> Result<Filter, FilterError> {
        Ok(self)
    }
}

impl IntoFilter for &Filter {
    fn into_filter(self) -> Result<Filter, FilterError> {
        Ok(self.clone())
    }
}

impl IntoFilter for &str {
    fn into_filter(self) -> Result<Filter, FilterError> {
        self.parse()
    }
}

/// A filter for the wire.
pub(crate) fn condition(filter: impl IntoFilter) -> Result<wire::Filter, Error> {
    filter.into_filter().map(|filter| filter_to_wire(&filter)).map_err(Error::request)
}

/// What to look for, in what, and what shape the answer shall have. What is wrong with it is said when it is sent.
///
/// ```
/// use diptych_client::{Modality, Search};
///
/// let search = Search::new()
///     .text("golden retriever").weight(2.0)
///     .text("fruit").weight(-1.0)
///     .target(Modality::Image)
///     .filter("year >= 2020")
///     .k(20);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Search {
    request: wire::SearchRequest,
    problem: Option<Error>,
}

impl Search {
    /// A search for nothing yet, in images and texts, for 10 hits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks for words.
    #[must_use]
    pub fn text(self, words: impl Into<String>) -> Self {
        self.source(QuerySource::Text(words.into()), None)
    }

    /// Looks for an encoded image file.
    #[must_use]
    pub fn image(self, file: impl Into<Vec<u8>>) -> Self {
        self.source(QuerySource::Image(file.into()), None)
    }

    /// Looks for what a stored record's first image is, else its first text.
    #[must_use]
    pub fn key(self, key: Key) -> Self {
        self.source(QuerySource::Key { key, part: None }, None)
    }

    /// Looks for a part of a stored record.
    #[must_use]
    pub fn part(self, key: Key, part: PartRef) -> Self {
        self.source(QuerySource::Key { key, part: Some(part) }, None)
    }

    /// Looks for a vector of the collection's dimension.
    #[must_use]
    pub fn vector(self, values: impl Into<Vec<f32>>) -> Self {
        self.source(QuerySource::Vector(values.into()), None)
    }

    /// Looks for a term, or by a negative weight away from it.
    #[must_use]
    pub fn term(self, term: Term) -> Self {
        let weight = term.weight();
        self.source(term.source().clone(), Some(weight))
    }

    /// How much what was named last counts; below 0 what is near to it counts against a hit.
    #[must_use]
    pub fn weight(mut self, weight: f32) -> Self {
        match self.request.terms.last_mut() {
            Some(term) => term.weight = Some(weight),
            None => self.refuse(Error::request("a weight stands behind what it weighs; name that first")),
        }
        self
    }

    /// The modality of the parts that are searched; both in one order by relevance unless this is said.
    #[must_use]
    pub fn target(mut self, target: impl Into<Target>) -> Self {
        self.request.target = match target.into() {
            Target::Only(modality) => modality_to_wire(modality),
            Target::Both => wire::Modality::Unspecified as i32,
        };
        self
    }

    /// Most hits wanted, 1 to 1000, or of a page.
    #[must_use]
    pub fn k(mut self, k: u32) -> Self {
        self.request.k = Some(k);
        self
    }

    /// Size of the candidate list, 1 to 4096.
    #[must_use]
    pub fn ef(mut self, ef: u64) -> Self {
        self.request.ef = Some(ef);
        self
    }

    /// Instead of [`ef`](Self::ef): the share of the true neighbours to be found, above 0 and below 1.
    #[must_use]
    pub fn target_recall(mut self, share: f64) -> Self {
        self.request.target_recall = Some(share);
        self
    }

    /// What the attributes of a record must meet for it to be found.
    #[must_use]
    pub fn filter(mut self, filter: impl IntoFilter) -> Self {
        match condition(filter) {
            Ok(filter) => self.request.filter = Some(filter),
            Err(error) => self.refuse(error),
        }
        self
    }

    /// Only hits of at least this relevance, 0 to 1.
    #[must_use]
    pub fn min_relevance(mut self, relevance: f64) -> Self {
        self.request.min_relevance = Some(relevance);
        self
    }

    /// Leaves out records with the same value of this attribute as a record that is searched from.
    #[must_use]
    pub fn exclude_same(mut self, attribute: impl Into<String>) -> Self {
        self.request.exclude_same = attribute.into();
        self
    }

    /// Of records with the same value of this attribute, only the best is a hit.
    #[must_use]
    pub fn group_by(mut self, attribute: impl Into<String>) -> Self {
        self.request.group_by = attribute.into();
        self
    }

    /// Of records whose best parts are at least this similar, a cosine of 0 to 1, only the best is a hit.
    #[must_use]
    pub fn collapse(mut self, similarity: f32) -> Self {
        self.request.collapse = Some(similarity);
        self
    }

    /// How much a hit has to differ from those before it, 0 to 1.
    #[must_use]
    pub fn diversity(mut self, share: f32) -> Self {
        self.request.diversity = Some(share);
        self
    }

    /// Looks for words in texts, too, or with nothing else for words alone.
    #[must_use]
    pub fn lexical(mut self, lexical: &Lexical) -> Self {
        self.request.lexical = Some(lexical_to_wire(lexical));
        self
    }

    /// The same with ranks fused as usual: words, `"phrases"`, `+required` and `-excluded` ones.
    #[must_use]
    pub fn words(self, words: impl Into<String>) -> Self {
        self.lexical(&Lexical { text: words.into(), fusion: Fusion::default() })
    }

    /// Counts the values of an attribute, over all records that could be found.
    #[must_use]
    pub fn facet(mut self, facet: &Facet) -> Self {
        self.request.facets.push(facet_to_wire(facet));
        self
    }

    /// What of each hit is wanted: `part`, `attributes`, `attributes.NAME`, `term_scores`; all unless this is said.
    #[must_use]
    pub fn fields<S: Into<String>>(mut self, fields: impl IntoIterator<Item = S>) -> Self {
        self.request.read_mask = mask(fields);
        self
    }

    /// Has each hit come with a small picture.
    #[must_use]
    pub fn thumbnails(mut self) -> Self {
        self.request.thumbnails = true;
        self
    }

    /// The page behind the one that gave this token, of the same search.
    #[must_use]
    pub fn page_token(mut self, token: impl Into<String>) -> Self {
        self.request.page_token = token.into();
        self
    }

    fn source(mut self, source: QuerySource, weight: Option<f32>) -> Self {
        use wire::query_term::Source;
        let source = match source {
            QuerySource::Text(text) => Source::Text(text),
            QuerySource::Image(bytes) => Source::Image(bytes),
            QuerySource::Key { key, part } => {
                Source::Key(wire::KeyQuery { key: key.to_string(), part: part.map(part_ref_to_wire) })
            }
            QuerySource::Vector(values) => Source::Vector(wire::Vector { values }),
        };
        self.request.terms.push(wire::QueryTerm { source: Some(source), weight });
        self
    }

    /// The first problem is the one that is told.
    fn refuse(&mut self, error: Error) {
        self.problem.get_or_insert(error);
    }

    pub(crate) fn request(&self, collection: &CollectionName) -> Result<wire::SearchRequest, Error> {
        match &self.problem {
            Some(error) => Err(error.clone()),
            None => Ok(wire::SearchRequest { collection: collection.to_string(), ..self.request.clone() }),
        }
    }
}

impl Client {
    /// Finds the records nearest to what a search looks for.
    ///
    /// # Errors
    /// [`Error::Request`] when the search was built wrongly, else [`Error::Status`].
    pub async fn search(&self, search: &Search) -> Result<Found, Error> {
        self.find(search.request(self.collection())?).await
    }

    /// The same, page by page of `k` hits; it ends with the last page, or with an error.
    pub fn search_pages(&self, search: &Search) -> impl Stream<Item = Result<Found, Error>> + Send + 'static {
        let (client, request) = (self.clone(), search.request(self.collection()));
        stream::unfold(Some(request), move |request| {
            let client = client.clone();
            async move {
                let request = match request? {
                    Ok(request) => request,
                    Err(error) => return Some((Err(error), None)),
                };
                let found = client.find(request.clone()).await;
                let token = found.as_ref().ok().and_then(|found| found.next_page_token.clone());
                let next = token.map(|page_token| Ok(wire::SearchRequest { page_token, ..request }));
                Some((found, next))
            }
        })
    }

    async fn find(&self, request: wire::SearchRequest) -> Result<Found, Error> {
        let answer = self.call(Repeat::Safe, request, |request| {
            let mut client = self.retrieval();
            async move { client.search(request).await }
        });
        Found::from_wire(answer.await?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_search_says_what_was_built_and_what_is_wrong_with_it() {
        let here = CollectionName::new("cases").unwrap();
        let search =
            Search::new().text("a").image(vec![1]).weight(-0.5).target(Target::Both).filter("age > 3");
        let request = search.request(&here).unwrap();
        let weights: Vec<Option<f32>> = request.terms.iter().map(|term| term.weight).collect();
        assert_eq!((weights, request.collection.as_str()), (vec![None, Some(-0.5)], "cases"));
        assert!(request.filter.is_some());
        let said = Search::new().weight(2.0).filter("age >").request(&here).unwrap_err();
        assert!(said.to_string().contains("weight stands behind"), "{said}");
        assert!(Search::new().text("a").filter("age >").request(&here).is_err());
    }
}
