"""What the server answers, as frozen dataclasses.

Owns the conversion from the wire. Deliberately absent: requests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, overload

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from ._attributes import AttributeValue, from_wire
from ._errors import DiptychError, from_code
from ._facets import FacetCounts
from ._facets import from_wire as facets_from_wire
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
    """Cosine similarity of the query and the best part, -1 to 1; 0 where words alone were asked for."""
    relevance: float | None
    """Probability that it is a match, 0 to 1; None where the collection has too few pairs to tell."""
    part: Part | None
    """The record's best part of the target modality; None where `fields` leaves it out."""
    text: str | None
    """That part's words; None when it is an image or left out."""
    attributes: Mapping[str, AttributeValue]
    term_scores: tuple[float, ...]
    """Cosine similarity of the best part and every term, in their order; empty unless terms were given."""
    lexical_score: float | None
    """The BM25 score, above 0, of the record's text that has the words best; None where none has any."""
    lexical_part: Part | None
    """That text, or the chunk of it."""
    thumbnail: bytes | None = field(repr=False)
    """A small JPEG picture, where thumbnails are asked for and one is kept."""


@dataclass(frozen=True)
class Receipt:
    """What an answer was made from: two answers with equal receipts are equal. `replay` asks for it again.

    `bytes(receipt)` can be kept, and `Receipt.from_bytes` reads it. `message` is the whole of it, with the parameters
    of the search.
    """

    message: pb.Receipt

    @classmethod
    def from_bytes(cls, data: bytes) -> Receipt:
        """A receipt that was kept; raises ValueError when it is none."""
        try:
            message = pb.Receipt.FromString(data)
        except DecodeError as error:
            raise ValueError("these bytes are no receipt; keep what bytes(receipt) gives") from error
        return cls(message)

    @property
    def model_id(self) -> str:
        """The model's id."""
        return self.message.model_id

    @property
    def generation(self) -> int:
        """The position in the order of writes up to which the search has seen everything."""
        return self.message.generation

    @property
    def request_digest(self) -> bytes:
        """BLAKE3 digest of the request."""
        return self.message.request_digest

    @property
    def hits_digest(self) -> bytes:
        """BLAKE3 digest of the hits: their keys, parts and scores, in order."""
        return self.message.hits_digest

    def __repr__(self) -> str:
        return f"Receipt(model_id={self.model_id!r}, generation={self.generation})"

    def __bytes__(self) -> bytes:
        return self.message.SerializeToString(deterministic=True)

    def __hash__(self) -> int:
        return hash(bytes(self))


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
    lexical_micros: int
    """Time to look up words."""
    facet_micros: int
    """Time to count the values of attributes."""
    lexical_matches: int | None
    """Records that have the words as they are asked for, and meet the filter; None where no words were."""
    truncated_tokens: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class SearchResult:
    """The hits of a search, best first. It is a sequence of its hits."""

    hits: tuple[Hit, ...]
    below: tuple[Hit, ...]
    """With `min_relevance` and no hit: the best that there are, which are no good matches."""
    no_good_match: bool
    """Whether `min_relevance` was given and no record has it."""
    next_page_token: str
    stats: SearchStats
    receipt: Receipt
    facets: tuple[FacetCounts, ...]
    """The values of attributes over all records that could be found, as many as were asked for, in their order."""

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def __len__(self) -> int:
        return len(self.hits)

    def __bool__(self) -> bool:
        return bool(self.hits)

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Hit, ...]: ...
    def __getitem__(self, index: int | slice) -> Hit | tuple[Hit, ...]:
        return self.hits[index]


@dataclass(frozen=True)
class Replay:
    """What an earlier search answers now."""

    found: SearchResult
    """The answer as it is now."""
    identical: bool
    """Whether its hits are those of the receipt: the same keys, parts and scores, in the same order."""
    same_generation: bool
    """Whether no record of the collection has changed since."""


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
            lexical_micros=stats.lexical_micros,
            facet_micros=stats.facet_micros,
            lexical_matches=stats.lexical_matches if stats.HasField("lexical_matches") else None,
            truncated_tokens=stats.truncated_tokens,
            notes=tuple(stats.notes),
        ),
        receipt=Receipt(response.receipt),
        facets=facets_from_wire(response.facets),
    )


def batch_result(response: pb.BatchSearchResponse) -> SearchResult | DiptychError:
    """The answer to one item of BatchSearch."""
    if response.HasField("error"):
        return from_code(response.error.code, response.error.message)
    return search_result(response.response)


def replay(response: pb.ReplayResponse) -> Replay:
    """The answer of Replay."""
    return Replay(search_result(response.response), response.identical, response.same_generation)


def record(message: pb.Record) -> Record:
    """A stored record."""
    parts = tuple(map(part_of, message.parts))
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
    part = part_of(hit.part) if hit.HasField("part") else None
    return Hit(
        key=hit.key,
        score=hit.score,
        relevance=hit.relevance if hit.HasField("relevance") else None,
        part=part,
        text=part.content.text if part is not None and isinstance(part.content, TextPart) else None,
        attributes=from_wire(hit.attributes),
        term_scores=tuple(hit.term_scores),
        lexical_score=hit.lexical_score if hit.HasField("lexical_score") else None,
        lexical_part=part_of(hit.lexical_part) if hit.HasField("lexical_part") else None,
        thumbnail=hit.thumbnail or None,
    )


def part_of(part: pb.Part) -> Part:
    """A part as the wire has it."""
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
