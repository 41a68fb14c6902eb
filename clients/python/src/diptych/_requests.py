"""Requests, built once for both clients.

Owns the options of searches and how inputs to embed are divided. Deliberately absent: sending.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypedDict, Union, cast

from google.protobuf.field_mask_pb2 import FieldMask

from . import _facets
from ._facets import FacetLike
from ._filter import FilterLike, filter_to_wire
from ._images import ImageSource, encoded
from ._proto.diptych.v1 import retrieval_pb2 as pb
from ._query import MODALITIES, QueryLike, set_query
from ._results import Receipt

Target = Literal["both", "image", "text"]
"""The modality of the parts that are searched."""

Fusion = Union[Literal["rrf"], tuple[Literal["rrf", "weighted"], float]]
"""How the order by words and that by vectors become one: reciprocal rank fusion, ("rrf", its k), or ("weighted", how
much the words count, 0 to 1)."""

# The server's bounds for one request.
_EMBED_INPUTS = 256
_EMBED_BYTES = 32 << 20


class SearchOptions(TypedDict, total=False):
    """The shape of a search; all may be left out."""

    target: Target
    """What is searched; both in one order by relevance when left out."""
    k: int
    """Most hits wanted, or of a page; 10 when left out."""
    filter: FilterLike | None
    """What the attributes of a record must meet."""
    min_relevance: float | None
    """Only hits of at least this relevance, 0 to 1."""
    group_by: str | None
    """Of records with the same value of this attribute, only the best."""
    exclude_same: str | None
    """No record with the same value of this attribute as a record that is searched from."""
    collapse: float | None
    """Of records whose best parts are at least this similar, 0 to 1, only the best."""
    diversity: float | None
    """How much hits have to differ from those before them, 0 to 1."""
    ef: int | None
    """Size of the candidate list."""
    target_recall: float | None
    """Instead of ef: the share of the true neighbours to be found, above 0 and below 1."""
    page_token: str
    """The next_page_token of the page before."""
    words: str | None
    """Words to look for in texts, beside the query or, without one, alone: plain, "in quotes", +needed, -unwanted."""
    fusion: Fusion | None
    """How the orders by words and by vectors become one; by ranks when left out."""
    facets: Sequence[FacetLike] | None
    """Attributes whose values are counted over all records that could be found: names, or (name, most values)."""
    fields: Sequence[str] | None
    """What of each hit is wanted: part, lexical_part, attributes, attributes.NAME, term_scores; all when left out.
    Key, scores and relevance are always there."""
    thumbnails: bool
    """Whether hits come with a small picture."""


class SearchItem(SearchOptions, total=False):
    """One of many searches: its query, its options and its collection."""

    query: QueryLike | None
    collection: str


SearchLike = Union[QueryLike, SearchItem]
"""One of many searches: a query, or a dict with its options."""


def search_request(
    collection: str,
    query: QueryLike | None,
    *,
    target: Target = "both",
    k: int = 10,
    filter: FilterLike | None = None,
    min_relevance: float | None = None,
    group_by: str | None = None,
    exclude_same: str | None = None,
    collapse: float | None = None,
    diversity: float | None = None,
    ef: int | None = None,
    target_recall: float | None = None,
    page_token: str = "",
    words: str | None = None,
    fusion: Fusion | None = None,
    facets: Sequence[FacetLike] | None = None,
    fields: Sequence[str] | None = None,
    thumbnails: bool = False,
) -> pb.SearchRequest:
    """The request of a search; takes SearchOptions."""
    if target != "both" and target not in MODALITIES:
        raise ValueError(f"there is no target {target!r}; use 'both', 'image' or 'text'")
    request = pb.SearchRequest(
        collection=collection,
        target=pb.MODALITY_UNSPECIFIED if target == "both" else MODALITIES[target],
        k=k,
        filter=None if filter is None else filter_to_wire(filter),
        min_relevance=min_relevance,
        group_by=group_by or "",
        exclude_same=exclude_same or "",
        collapse=collapse,
        diversity=diversity,
        ef=ef,
        target_recall=target_recall,
        page_token=page_token,
        lexical=_lexical(words, fusion),
        facets=_facets.to_wire(facets),
        read_mask=_read_mask(fields),
        thumbnails=thumbnails,
    )
    if query is not None:
        set_query(request, query)
    elif words is None:
        raise ValueError("there is nothing to search for; give a query, words=..., or both")
    return request


def item_request(collection: str, item: SearchLike, common: SearchOptions) -> pb.SearchRequest:
    """The request of one of many searches; what it says itself goes before what is common to all."""
    if not isinstance(item, Mapping):
        return search_request(collection, cast("QueryLike | None", item), **common)
    given: dict[str, Any] = {**common, **item}
    return search_request(given.pop("collection", collection), given.pop("query", None), **given)


def replay_request(receipt: Receipt, query: QueryLike | None, options: SearchOptions) -> pb.ReplayRequest:
    """The request to ask again; with the earlier request only when that is given."""
    if not isinstance(receipt, Receipt):
        raise TypeError(f"replay takes the receipt of an answer, such as found.receipt, not {type(receipt).__name__}")
    request = pb.ReplayRequest(receipt=receipt.message)
    if query is not None or options:
        # The receipt belongs to one collection, whichever the client's own is.
        request.request.CopyFrom(search_request(receipt.message.parameters.collection, query, **options))
    return request


def _lexical(words: str | None, fusion: Fusion | None) -> pb.LexicalQuery | None:
    if words is None:
        if fusion is not None:
            raise ValueError("fusion joins the orders by words and by vectors; give words=..., or leave it out")
        return None
    if fusion is None:
        return pb.LexicalQuery(text=words)
    kind, number = (fusion, None) if isinstance(fusion, str) else fusion
    if kind == "rrf":
        return pb.LexicalQuery(text=words, rank_fusion=pb.RankFusion(k=number))
    if kind == "weighted" and number is not None:
        return pb.LexicalQuery(text=words, weighted_fusion=pb.WeightedFusion(lexical=number))
    raise ValueError(f"there is no fusion {fusion!r}; use 'rrf', ('rrf', 60.0) or ('weighted', 0.3)")


def _read_mask(fields: Sequence[str] | None) -> FieldMask | None:
    if fields is None:
        return None
    if isinstance(fields, str):
        raise TypeError("fields is a sequence; write fields=[...], also for one")
    # To the wire an empty mask is none; the key is there in any case.
    return FieldMask(paths=fields or ["key"])


def list_request(collection: str, filter: FilterLike | None, page_size: int) -> pb.ListRecordsRequest:
    """The request of a page of records."""
    wire = None if filter is None else filter_to_wire(filter)
    return pb.ListRecordsRequest(collection=collection, filter=wire, page_size=page_size)


def embed_requests(images: Sequence[ImageSource], texts: Sequence[str]) -> Iterator[pb.EmbedRequest]:
    """As many requests as the server's bounds ask for; images are read when their request is made."""
    if isinstance(texts, str):
        raise TypeError("texts is a sequence; write texts=[...], also for one")
    if isinstance(images, (bytes, str)):
        raise TypeError("images is a sequence; write images=[...], also for one")
    request, inputs, size = pb.EmbedRequest(), 0, 0
    for data in _inputs(images, texts):
        if inputs == _EMBED_INPUTS or (inputs and size + len(data) > _EMBED_BYTES):
            yield request
            request, inputs, size = pb.EmbedRequest(), 0, 0
        if isinstance(data, bytes):
            request.images.add(data=data)
        else:
            request.texts.append(data)
        inputs, size = inputs + 1, size + len(data)
    if inputs:
        yield request


def _inputs(images: Sequence[ImageSource], texts: Sequence[str]) -> Iterator[bytes | str]:
    yield from map(encoded, images)
    yield from texts
