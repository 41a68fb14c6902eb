"""What the server answers, as frozen dataclasses.

Owns the conversion from the wire. Deliberately absent: requests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ._attributes import AttributeValue, from_wire
from ._errors import DiptychError, from_code
from ._proto.diptych.v1 import retrieval_pb2 as pb
from ._query import Modality, PartRef

Outcome = Literal["created", "updated", "unchanged"]
Plan = Literal["scan", "walk", "two_hop"]

_OUTCOMES: dict[int, Outcome] = {
    pb.WRITE_OUTCOME_CREATED: "created",
    pb.WRITE_OUTCOME_UPDATED: "updated",
    pb.WRITE_OUTCOME_UNCHANGED: "unchanged",
}
_PLANS: dict[int, Plan] = {
    pb.SEARCH_PLAN_SCAN: "scan",
    pb.SEARCH_PLAN_WALK: "walk",
    pb.SEARCH_PLAN_TWO_HOP: "two_hop",
}


@dataclass(frozen=True)
class TextSpan:
    """A piece of a text, in bytes of its UTF-8, the end excluded."""

    start: int
    end: int


@dataclass(frozen=True)
class ImagePart:
    """What is kept of an image: the name it came under, the BLAKE3 digest of its file, its size in pixels."""

    source: str
    digest: bytes
    width: int
    height: int


@dataclass(frozen=True)
class TextPart:
    """What is kept of a text; in a hit of a chunk, that chunk and where it lies in the whole."""

    text: str
    truncated_tokens: int
    span: TextSpan | None
    chunks: tuple[TextSpan, ...]


@dataclass(frozen=True)
class Part:
    """One piece of a record and its place there."""

    ref: PartRef
    content: ImagePart | TextPart


@dataclass(frozen=True)
class Record:
    """A stored record; `seq` is its position in the order of writes."""

    key: str
    parts: tuple[Part, ...]
    attributes: Mapping[str, AttributeValue]
    seq: int


@dataclass(frozen=True)
class RecordPage:
    """Some records in the order of their keys; the token is empty on the last page."""

    records: tuple[Record, ...]
    next_page_token: str

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)


@dataclass(frozen=True)
class Hit:
    """A record that answers a query."""

    key: str
    score: float
    """Cosine similarity of the query and the best part, -1 to 1."""
    relevance: float | None
    """Probability that it is a match, 0 to 1; None where the collection has too few pairs to tell."""
    part: Part
    """The record's best part of the target modality."""
    text: str | None
    """That part's words; None when it is an image."""
    attributes: Mapping[str, AttributeValue]
    term_scores: tuple[float, ...]
    """Cosine similarity of the best part and every term, in their order; empty unless terms were given."""


@dataclass(frozen=True)
class Receipt:
    """What an answer was made from: two answers with equal receipts are equal."""

    model_id: str
    generation: int
    request_digest: bytes


@dataclass(frozen=True)
class SearchStats:
    """What a search did; times in microseconds."""

    searched_points: int
    matching_points: int | None
    plan: Plan | None
    ef: int | None
    encode_micros: int
    search_micros: int
    fetch_micros: int
    truncated_tokens: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class SearchResult:
    """The hits of a search, best first. Iterating over it is iterating over its hits."""

    hits: tuple[Hit, ...]
    below: tuple[Hit, ...]
    """With `min_relevance` and no hit: the best that there are, which are no good matches."""
    no_good_match: bool
    """Whether `min_relevance` was given and no record has it."""
    next_page_token: str
    stats: SearchStats
    receipt: Receipt

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def __len__(self) -> int:
        return len(self.hits)

    def __bool__(self) -> bool:
        return bool(self.hits)


@dataclass(frozen=True)
class IngestResult:
    """What became of one record."""

    key: str
    outcome: Outcome | None
    """None when it was not stored."""
    error: DiptychError | None
    """Why it was not stored; None when it was."""
    truncated_tokens: int

    def raise_for_error(self) -> IngestResult:
        """Itself, when the record was stored; raises the error otherwise."""
        if self.error is not None:
            raise self.error
        return self


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of unit L2 norm, a row for each input in its order: float32 of shape (inputs, dimension)."""

    images: NDArray[np.float32]
    texts: NDArray[np.float32]
    truncated_tokens: tuple[int, ...]
    """For each text its tokens beyond the model's context, which its embedding does not see."""
    model_id: str


@dataclass(frozen=True)
class CollectionStats:
    """What a collection holds."""

    name: str
    records: int
    image_points: int
    text_points: int
    truncated_texts: int


@dataclass(frozen=True)
class Stats:
    """What a server holds. `message` is the whole answer, with recall, relevance and indexes."""

    version: str
    model_id: str
    dimension: int
    collections: tuple[CollectionStats, ...]
    message: pb.StatsResponse = field(repr=False)


def search_result(response: pb.SearchResponse) -> SearchResult:
    """The answer of Search."""
    stats = response.stats
    return SearchResult(
        hits=tuple(map(_hit, response.hits)),
        below=tuple(map(_hit, response.below)),
        no_good_match=response.no_good_match,
        next_page_token=response.next_page_token,
        stats=SearchStats(
            searched_points=stats.searched_points,
            matching_points=stats.matching_points if stats.HasField("matching_points") else None,
            plan=_PLANS.get(stats.plan),
            ef=stats.ef if stats.HasField("ef") else None,
            encode_micros=stats.encode_micros,
            search_micros=stats.search_micros,
            fetch_micros=stats.fetch_micros,
            truncated_tokens=stats.truncated_tokens,
            notes=tuple(stats.notes),
        ),
        receipt=Receipt(response.receipt.model_id, response.receipt.generation, response.receipt.request_digest),
    )


def record(message: pb.Record) -> Record:
    """A stored record."""
    parts = tuple(map(_part, message.parts))
    return Record(key=message.key, parts=parts, attributes=from_wire(message.attributes), seq=message.seq)


def record_page(response: pb.ListRecordsResponse) -> RecordPage:
    """The answer of ListRecords."""
    return RecordPage(tuple(map(record, response.records)), response.next_page_token)


def ingest_result(response: pb.IngestResponse) -> IngestResult:
    """The answer to one item of Ingest."""
    failed = response.HasField("error")
    return IngestResult(
        key=response.key,
        outcome=_OUTCOMES.get(response.outcome),
        error=from_code(response.error.code, response.error.message) if failed else None,
        truncated_tokens=response.truncated_tokens,
    )


def outcome(response: pb.UpdateRecordResponse) -> Outcome:
    """The answer of UpdateRecord."""
    return _OUTCOMES.get(response.outcome, "updated")


def embeddings(responses: Sequence[pb.EmbedResponse]) -> Embeddings:
    """The answers of several Embed calls as one, in their order."""
    return Embeddings(
        images=_rows([vector for each in responses for vector in each.image_embeddings]),
        texts=_rows([vector for each in responses for vector in each.text_embeddings]),
        truncated_tokens=tuple(tokens for each in responses for tokens in each.truncated_tokens),
        model_id=responses[0].model_id if responses else "",
    )


def stats(response: pb.StatsResponse) -> Stats:
    """The answer of Stats."""
    return Stats(
        version=response.version,
        model_id=response.model_id,
        dimension=response.dimension,
        collections=tuple(
            CollectionStats(each.name, each.records, each.image_points, each.text_points, each.truncated_texts)
            for each in response.collections
        ),
        message=response,
    )


def _hit(hit: pb.Hit) -> Hit:
    part = _part(hit.part)
    return Hit(
        key=hit.key,
        score=hit.score,
        relevance=hit.relevance if hit.HasField("relevance") else None,
        part=part,
        text=part.content.text if isinstance(part.content, TextPart) else None,
        attributes=from_wire(hit.attributes),
        term_scores=tuple(hit.term_scores),
    )


def _part(part: pb.Part) -> Part:
    modality: Modality = "text" if part.ref.modality == pb.MODALITY_TEXT else "image"
    ref = PartRef(modality, part.ref.ordinal, part.ref.chunk if part.ref.HasField("chunk") else None)
    content: ImagePart | TextPart
    if part.WhichOneof("content") == "text":
        words = part.text
        content = TextPart(
            text=words.text,
            truncated_tokens=words.truncated_tokens,
            span=TextSpan(words.span.start, words.span.end) if words.HasField("span") else None,
            chunks=tuple(TextSpan(each.start, each.end) for each in words.chunks),
        )
    else:
        picture = part.image
        content = ImagePart(picture.source, picture.digest, picture.width, picture.height)
    return Part(ref, content)


def _rows(vectors: Sequence[pb.Vector]) -> NDArray[np.float32]:
    dimension = len(vectors[0].values) if vectors else 0
    rows = np.empty((len(vectors), dimension), dtype=np.float32)
    for row, each in zip(rows, vectors):
        row[:] = each.values
    return rows
