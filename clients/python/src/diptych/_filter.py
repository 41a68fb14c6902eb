"""Conditions on attributes, written as Python: `(F("age") >= 40) & F("labels").has("nodule")`.

Owns the little language and its conversion to the wire's `Filter`. Deliberately absent: the textual language of
`diptych search --filter`, which the command line reads.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn, Union

from google.protobuf.timestamp_pb2 import Timestamp

from ._attributes import Scalar, plain
from ._proto.diptych.v1 import retrieval_pb2 as pb

_UNBRACKETED = "& and | bind closer than comparisons; put each condition in parentheses: (F('age') >= 40) & (...)"


class Condition:
    """What a record's attributes must meet. Joined by `&`, `|` and `~`."""

    __slots__ = ("_wire",)

    def __init__(self, wire: pb.Filter) -> None:
        self._wire = wire

    def to_wire(self) -> pb.Filter:
        """The condition as the message `diptych.v1.Filter`, a copy."""
        copy = pb.Filter()
        copy.CopyFrom(self._wire)
        return copy

    def __and__(self, other: object) -> Condition:
        if not isinstance(other, Condition):
            return NotImplemented
        # Chains stay flat: the server bounds how deep conditions lie within each other.
        parts = [*_parts(self._wire, "all"), *_parts(other._wire, "all")]
        return Condition(pb.Filter(all=pb.FilterList(filters=parts)))

    def __or__(self, other: object) -> Condition:
        if not isinstance(other, Condition):
            return NotImplemented
        parts = [*_parts(self._wire, "any"), *_parts(other._wire, "any")]
        return Condition(pb.Filter(any=pb.FilterList(filters=parts)))

    def _unbracketed(self, other: object) -> NoReturn:
        raise TypeError(_UNBRACKETED)

    # For what is no condition on the left: `F("age") >= 40 & F("view").exists()` begins with `40 & ...`.
    __rand__ = __ror__ = _unbracketed

    def __invert__(self) -> Condition:
        return Condition(pb.Filter(negation=self._wire))

    def __bool__(self) -> NoReturn:
        raise TypeError(
            "a condition is neither true nor false before the server sees it; join conditions with &, | and ~ "
            "instead of and, or and not, each in parentheses, and write 40 <= age < 60 as two of them"
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Condition) and self._wire == other._wire

    def __hash__(self) -> int:
        return hash(self._wire.SerializeToString(deterministic=True))

    def __repr__(self) -> str:
        return f"Condition({str(self._wire).strip()!r})"


FilterLike = Union[Condition, pb.Filter]
"""A condition built here, or the message itself."""


class F:
    """An attribute by its name, to be compared: `F("view") == "PA"`."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __eq__(self, value: Scalar) -> Condition:  # type: ignore[override]  # a condition, not an answer
        return self._compare(pb.COMPARISON_OPERATOR_EQUAL, value)

    def __ne__(self, value: Scalar) -> Condition:  # type: ignore[override]
        return self._compare(pb.COMPARISON_OPERATOR_NOT_EQUAL, value)

    def __lt__(self, value: Scalar) -> Condition:
        return self._compare(pb.COMPARISON_OPERATOR_LESS, value)

    def __le__(self, value: Scalar) -> Condition:
        return self._compare(pb.COMPARISON_OPERATOR_LESS_OR_EQUAL, value)

    def __gt__(self, value: Scalar) -> Condition:
        return self._compare(pb.COMPARISON_OPERATOR_GREATER, value)

    def __ge__(self, value: Scalar) -> Condition:
        return self._compare(pb.COMPARISON_OPERATOR_GREATER_OR_EQUAL, value)

    __hash__ = None  # type: ignore[assignment]  # its equality is no equality

    def one_of(self, values: Iterable[Scalar]) -> Condition:
        """The attribute is one of these values."""
        if isinstance(values, str):
            raise TypeError(f"one_of takes several values; write F({self._name!r}).one_of([{values!r}])")
        wire = [_value(value) for value in values]
        return Condition(pb.Filter(one_of=pb.AttributeIn(attribute=self._name, values=wire)))

    def has(self, text: str) -> Condition:
        """The attribute is a list of texts and contains this one."""
        return Condition(pb.Filter(has=pb.AttributeHas(attribute=self._name, text=text)))

    def starts_with(self, prefix: str) -> Condition:
        """The attribute is a text that begins with this one, 1 to 64 bytes."""
        return Condition(pb.Filter(starts_with=pb.AttributePrefix(attribute=self._name, prefix=prefix)))

    def exists(self) -> Condition:
        """The attribute is there, with any value."""
        return Condition(pb.Filter(exists=self._name))

    def __repr__(self) -> str:
        return f"F({self._name!r})"

    def _compare(self, operator: pb.ComparisonOperator.ValueType, value: Scalar) -> Condition:
        compare = pb.AttributeComparison(attribute=self._name, operator=operator, value=_value(value))
        return Condition(pb.Filter(compare=compare))

    def _unbracketed(self, other: object) -> NoReturn:
        raise TypeError(_UNBRACKETED)

    __and__ = __rand__ = __or__ = __ror__ = _unbracketed


def filter_to_wire(condition: FilterLike) -> pb.Filter:
    """A condition as the message."""
    if isinstance(condition, pb.Filter):
        return condition
    if isinstance(condition, Condition):
        return condition.to_wire()
    raise TypeError(
        f"a filter is a condition such as F('age') >= 40 or a diptych.v1.Filter, not {type(condition).__name__}"
    )


def _parts(wire: pb.Filter, joint: str) -> Iterable[pb.Filter]:
    """What `wire` joins by `joint`, or itself."""
    if wire.WhichOneof("condition") != joint:
        return (wire,)
    return wire.all.filters if joint == "all" else wire.any.filters


def _value(value: Scalar) -> pb.FilterValue:
    one = plain(value)
    if isinstance(one, bool):
        return pb.FilterValue(bool_value=one)
    if isinstance(one, str):
        return pb.FilterValue(string_value=one)
    if isinstance(one, int):
        return pb.FilterValue(integer_value=one)
    if isinstance(one, Timestamp):
        return pb.FilterValue(time_value=one)
    return pb.FilterValue(float_value=one)
