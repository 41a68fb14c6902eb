//! What is asked beside single searches: many on one stream, an earlier one again, labels.

use diptych_core::{Key, PartRef};
use diptych_proto::convert::part_ref_to_wire;
use diptych_proto::v1 as wire;
use futures_util::StreamExt;
use tokio_stream::Stream;

use crate::client::Repeat;
use crate::{Client, Error, Found, Receipt, Search};

/// An earlier search, asked again.
#[derive(Debug, Clone, PartialEq)]
pub struct Replayed {
    /// The answer as it is now.
    pub found: Found,
    /// Whether its hits are those of the receipt: the same keys, parts and scores, in the same order.
    pub identical: bool,
    /// Whether no record of the collection has changed since.
    pub same_generation: bool,
}

/// Something to be given a label, and the labels.
#[derive(Debug, Clone)]
pub struct Classify {
    request: wire::ClassifyRequest,
}

/// How well a label fits.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// The label's name.
    pub label: String,
    /// The probability that the model gives it among the labels, 0 to 1.
    pub probability: f64,
    /// The cosine of the subject and the label's prompts, -1 to 1.
    pub score: f32,
}

impl Classify {
    /// Asks what an encoded image file shows.
    pub fn image(file: impl Into<Vec<u8>>) -> Self {
        Self::of(wire::classify_request::Subject::Image(file.into()))
    }

    /// Asks what a text speaks of.
    pub fn text(text: impl Into<String>) -> Self {
        Self::of(wire::classify_request::Subject::Text(text.into()))
    }

    /// Asks what a stored record's first image is, else its first text, or one of its parts.
    pub fn key(key: &Key, part: Option<PartRef>) -> Self {
        let part = part.map(part_ref_to_wire);
        Self::of(wire::classify_request::Subject::Key(wire::KeyQuery { key: key.to_string(), part }))
    }

    /// Asks what a vector is nearest to.
    pub fn vector(values: impl Into<Vec<f32>>) -> Self {
        Self::of(wire::classify_request::Subject::Vector(wire::Vector { values: values.into() }))
    }

    /// One of the labels, by its name, which the templates describe.
    #[must_use]
    pub fn label(self, name: impl Into<String>) -> Self {
        self.described(name, [""; 0])
    }

    /// One of the labels, with prompts of its own.
    #[must_use]
    pub fn described<S: Into<String>>(
        mut self,
        name: impl Into<String>,
        prompts: impl IntoIterator<Item = S>,
    ) -> Self {
        let prompts = prompts.into_iter().map(Into::into).collect();
        self.request.labels.push(wire::ClassLabel { name: name.into(), prompts });
        self
    }

    /// A sentence that each label without prompts is put into, in the place of `{}`.
    #[must_use]
    pub fn template(mut self, template: impl Into<String>) -> Self {
        self.request.templates.push(template.into());
        self
    }

    fn of(subject: wire::classify_request::Subject) -> Self {
        Self { request: wire::ClassifyRequest { subject: Some(subject), ..Default::default() } }
    }
}

impl Client {
    /// Answers many searches over one stream, in their order; a bad one has its error, and the others go on. More are
    /// taken from `searches` as answers are taken. An error of the stream as a whole is the last item.
    ///
    /// # Errors
    /// [`Error::Status`] when the stream cannot be opened.
    pub async fn search_many(
        &self,
        searches: impl Stream<Item = Search> + Send + 'static,
    ) -> Result<impl Stream<Item = Result<Found, Error>> + Send + 'static, Error> {
        let collection = self.collection().clone();
        // What was built wrongly is refused by the server in its place: an item without a search.
        let requests = searches.map(move |search| match search.request(&collection) {
            Ok(search) => wire::BatchSearchRequest { search: Some(search), id: String::new() },
            Err(problem) => wire::BatchSearchRequest { search: None, id: problem.to_string() },
        });
        let answers = self.retrieval().batch_search(requests).await.map_err(Error::from)?;
        Ok(answers.into_inner().map(|answer| one(answer.map_err(Error::from)?)))
    }

    /// Asks again what an earlier answer was the answer to.
    ///
    /// # Errors
    /// [`Error::Status`]: `InvalidArgument` when the search had images or vectors of its own, which a receipt does not
    /// hold (see [`Client::replay_search`]), `FailedPrecondition` when it is of another model.
    pub async fn replay(&self, receipt: &Receipt) -> Result<Replayed, Error> {
        self.replayed(receipt, None).await
    }

    /// The same with the search that was answered, which must be equal.
    ///
    /// # Errors
    /// As [`Client::replay`].
    pub async fn replay_search(&self, receipt: &Receipt, search: &Search) -> Result<Replayed, Error> {
        self.replayed(receipt, Some(search.request(self.collection())?)).await
    }

    async fn replayed(
        &self,
        receipt: &Receipt,
        request: Option<wire::SearchRequest>,
    ) -> Result<Replayed, Error> {
        let request = wire::ReplayRequest { receipt: Some(receipt.message.clone()), request };
        let answer = self.call(Repeat::Safe, request, |request| {
            let mut client = self.retrieval();
            async move { client.replay(request).await }
        });
        let wire::ReplayResponse { response, identical, same_generation } = answer.await?;
        let found = Found::from_wire(response.ok_or_else(|| Error::lacks("response"))?)?;
        Ok(Replayed { found, identical, same_generation })
    }

    /// Compares something with labels; the most probable comes first.
    ///
    /// # Errors
    /// [`Error::Status`], `InvalidArgument` when there are too few or too many labels.
    pub async fn classify(&self, classify: &Classify) -> Result<Vec<Scored>, Error> {
        let collection = self.collection().to_string();
        let request = wire::ClassifyRequest { collection, ..classify.request.clone() };
        let answer = self.call(Repeat::Safe, request, |request| {
            let mut client = self.retrieval();
            async move { client.classify(request).await }
        });
        let scored =
            |of: wire::ClassScore| Scored { label: of.name, probability: of.probability, score: of.score };
        Ok(answer.await?.scores.into_iter().map(scored).collect())
    }
}

/// What became of one search of a stream.
fn one(answer: wire::BatchSearchResponse) -> Result<Found, Error> {
    use wire::batch_search_response::Outcome;
    match answer.outcome {
        Some(Outcome::Response(response)) => Found::from_wire(response),
        // Its id says why it was built wrongly.
        Some(Outcome::Error(_)) if !answer.id.is_empty() => Err(Error::request(answer.id)),
        Some(Outcome::Error(error)) => Err(Error::of_item(error.code, error.message)),
        None => Err(Error::lacks("outcome")),
    }
}
