"""Requests, built once for both clients.

Owns the options of a search and how inputs to embed are divided. Deliberately absent: sending.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, TypedDict

from ._filter import FilterLike, filter_to_wire
from ._images import ImageSource, encoded
from ._proto.diptych.v1 import retrieval_pb2 as pb
from ._query import MODALITIES, QueryLike, set_query

Target = Literal["both", "image", "text"]
"""The modality of the parts that are searched."""

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


def search_request(
    collection: str,
    query: QueryLike,
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
    )
    set_query(request, query)
    return request


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
