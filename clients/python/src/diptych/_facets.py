"""Counts of attribute values, beside a search or a number of records.

Owns how they are asked for and answered. Deliberately absent: which records they are over, which the call says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Union

from ._attributes import ScalarValue, scalar
from ._proto.diptych.v1 import retrieval_pb2 as pb

FacetLike = Union[str, tuple[str, int]]
"""The name of an attribute, or that and the most values wanted, at most 1000; 10 without it."""


class FacetValue(NamedTuple):
    """A value of an attribute, and how many records have it."""

    value: ScalarValue
    records: int


@dataclass(frozen=True)
class FacetCounts:
    """The values of an attribute. Iterating over it is iterating over its values."""

    attribute: str
    records: int
    """Records that have it, with any value."""
    distinct_values: int
    """Different values, whether they are listed or not."""
    values: tuple[FacetValue, ...]
    """Those of most records first; of a list, its members."""

    def __iter__(self) -> Iterator[FacetValue]:
        return iter(self.values)

    def __len__(self) -> int:
        return len(self.values)


def to_wire(facets: Sequence[FacetLike] | None) -> list[pb.Facet]:
    """What is to be counted, as the messages."""
    if isinstance(facets, str):
        raise TypeError("facets is a sequence; write facets=[...], also for one")
    return [_facet(each) for each in facets or ()]


def from_wire(messages: Iterable[pb.FacetCounts]) -> tuple[FacetCounts, ...]:
    """The counts, in the order in which they were asked for."""
    return tuple(
        FacetCounts(
            attribute=each.attribute,
            records=each.records,
            distinct_values=each.distinct_values,
            values=tuple(FacetValue(scalar(one.value), one.records) for one in each.values),
        )
        for each in messages
    )


def _facet(facet: FacetLike) -> pb.Facet:
    if isinstance(facet, str):
        return pb.Facet(attribute=facet)
    if not (isinstance(facet, tuple) and len(facet) == 2):
        raise TypeError(f"a facet is the name of an attribute or (name, most values), not {facet!r}")
    attribute, limit = facet
    return pb.Facet(attribute=attribute, limit=limit)
