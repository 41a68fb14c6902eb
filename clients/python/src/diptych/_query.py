"""What is searched for: texts, images, stored records and vectors, weighted and added up.

Owns the sugar `2 * text("a") + image(path) - text("b")` and its conversion to the wire. Deliberately absent: how a
search is shaped (`_requests`) and how weights count, which is the server's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._images import ImageSource, encoded, is_pil
from ._proto.diptych.v1 import retrieval_pb2 as pb

if TYPE_CHECKING:
    from PIL import Image

Modality = Literal["image", "text"]
"""A side of the shared space."""

MODALITIES: dict[str, pb.Modality.ValueType] = {"image": pb.MODALITY_IMAGE, "text": pb.MODALITY_TEXT}


class _Addable:
    """What can be added, taken away and weighted."""

    # NumPy leaves `np.float64(2) * term` to the term.
    __array_ufunc__ = None

    def _terms(self) -> tuple[Term, ...]:
        raise NotImplementedError

    def __add__(self, other: object) -> Query:
        if not isinstance(other, _Addable):
            return NotImplemented
        return Query(self._terms() + other._terms())

    def __sub__(self, other: object) -> Query:
        if not isinstance(other, _Addable):
            return NotImplemented
        return self + -other

    def __neg__(self) -> Query:
        return -1.0 * self

    def __mul__(self, weight: float | np.integer[Any] | np.floating[Any]) -> Query:
        if not isinstance(weight, (int, float, np.integer, np.floating)):
            return NotImplemented
        return Query(tuple(Term(term.source, term.weight * float(weight)) for term in self._terms()))

    __rmul__ = __mul__


@dataclass(frozen=True)
class PartRef:
    """A part of a record: the ordinal-th image or text, counted from 0, and of a long text the chunk."""

    modality: Modality
    ordinal: int = 0
    chunk: int | None = None

    def to_wire(self) -> pb.PartRef:
        """The part as the message."""
        return pb.PartRef(modality=MODALITIES[self.modality], ordinal=self.ordinal, chunk=self.chunk)


@dataclass(frozen=True)
class Key(_Addable):
    """A stored record to search from: its first image, else its first text, or the part that is named."""

    key: str
    part: PartRef | None = None

    def _terms(self) -> tuple[Term, ...]:
        return (Term(self),)


Source = Union[str, bytes, Path, "Image.Image", Key, "NDArray[Any]"]
"""A text, an image (bytes, path, PIL image, uint8 pixels), a stored record, or a vector (an array of one axis)."""


@dataclass(frozen=True, eq=False)
class Term(_Addable):
    """Something to look for, or by a negative weight away from."""

    source: Source
    weight: float = 1.0

    def _terms(self) -> tuple[Term, ...]:
        return (self,)


@dataclass(frozen=True, eq=False)
class Query(_Addable):
    """Several terms, at most 32; one at least of positive weight."""

    terms: tuple[Term, ...]

    def _terms(self) -> tuple[Term, ...]:
        return self.terms


QueryLike = Union[Source, Term, Query, Sequence[Union[Source, Term]]]
"""One thing to search from, or several terms."""


def text(words: str) -> Term:
    """Words as a term."""
    if not isinstance(words, str):
        raise TypeError(f"text() takes a str, not {type(words).__name__}")
    return Term(words)


def image(source: ImageSource | str) -> Term:
    """An image as a term; here a str is a path."""
    return Term(encoded(Path(source) if isinstance(source, str) else source))


def vector(values: ArrayLike) -> Term:
    """A vector of the collection's dimension as a term."""
    return Term(np.asarray(values, dtype=np.float32))


def set_query(request: pb.SearchRequest, query: QueryLike) -> None:
    """Writes a query into a request: a single source as that, everything else as terms."""
    if isinstance(query, (Term, Query)):
        terms: Sequence[Source | Term] = query._terms()
    elif isinstance(query, (list, tuple)):
        terms = query
    else:
        set_source(request, query)  # type: ignore[arg-type]  # what is no source is refused there
        return
    if not terms:
        raise ValueError("the query has no terms; give at least one text, image, key or vector")
    for each in terms:
        if isinstance(each, Query):
            raise TypeError("a list of terms holds terms; add a query to them with +")
        term = each if isinstance(each, Term) else Term(each)
        set_source(request.terms.add(weight=term.weight), term.source)


def set_source(message: pb.SearchRequest | pb.QueryTerm | pb.ClassifyRequest, source: Source) -> None:
    """Writes a single source into a message."""
    if isinstance(source, str):
        message.text = source
    elif isinstance(source, Key):
        part = source.part.to_wire() if source.part else None
        message.key.CopyFrom(pb.KeyQuery(key=source.key, part=part))
    elif isinstance(source, np.ndarray) and source.ndim == 1:
        message.vector.CopyFrom(pb.Vector(values=source.astype(np.float32).tolist()))
    elif isinstance(source, (bytes, Path, np.ndarray)) or is_pil(source):
        message.image = encoded(source)
    else:
        raise TypeError(
            "a query is a str (text), bytes, a pathlib.Path or a PIL image (image), a Key, a NumPy array (vector), "
            f"or terms of these, not {type(source).__name__}"
        )
