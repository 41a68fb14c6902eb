"""Attribute values: Python's own types on one side, the wire's on the other.

Owns the conversion in both directions. Deliberately absent: conditions on attributes, which lie in `_filter`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Union

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from ._proto.diptych.v1 import retrieval_pb2 as pb

AttributeValue = Union[str, list[str], int, float, bool, datetime]
"""What an attribute of a stored record is; a moment is in UTC, to the microsecond."""

AttributeInput = Union[str, Sequence[str], int, float, bool, datetime, np.generic]
"""What an attribute can be given as; NumPy's numbers become Python's, and a moment needs its time zone."""

ScalarValue = Union[str, int, float, bool, datetime]
"""One value as the server tells it; a moment is in UTC, to the microsecond."""

Scalar = Union[str, int, float, bool, datetime, np.generic]
"""What an attribute can be compared with."""

_INTEGERS = range(-(2**63), 2**63)


def plain(value: Scalar) -> str | int | float | bool | Timestamp:
    """A value of one of the wire's types: text, truth value, whole number of 64 bits, number, moment."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, int) and not isinstance(value, bool) and value not in _INTEGERS:
        raise ValueError(f"{value} does not fit in 64 bits; give it as a text or as a float")
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise ValueError(f"{value!r} has no time zone; give it one, such as tzinfo=datetime.timezone.utc")
        moment = Timestamp()
        moment.FromDatetime(value)
        return moment
    if isinstance(value, (str, bool, int, float)):
        return value
    raise TypeError(f"an attribute is a str, a list of str, an int, a float, a bool or a datetime, not {type(value).__name__}")


def to_wire(value: AttributeInput) -> pb.AttributeValue:
    """A value as a record carries it."""
    if isinstance(value, (list, tuple)):
        for word in value:
            if not isinstance(word, str):
                raise TypeError(f"a list attribute holds str only, not {type(word).__name__}")
        return pb.AttributeValue(list_value=pb.StringList(values=value))
    one = plain(value)  # type: ignore[arg-type]  # whatever else it is, is refused there
    # A bool is an int to Python, so it is asked for first.
    if isinstance(one, bool):
        return pb.AttributeValue(bool_value=one)
    if isinstance(one, str):
        return pb.AttributeValue(string_value=one)
    if isinstance(one, int):
        return pb.AttributeValue(integer_value=one)
    if isinstance(one, Timestamp):
        return pb.AttributeValue(time_value=one)
    return pb.AttributeValue(float_value=one)


def from_wire(attributes: Mapping[str, pb.AttributeValue]) -> dict[str, AttributeValue]:
    """The attributes of a record, by name."""
    return {name: _value(value) for name, value in attributes.items()}


def scalar(value: pb.AttributeValue | pb.FilterValue) -> ScalarValue:
    """One value, which is no list."""
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return value.string_value
    if kind == "integer_value":
        return value.integer_value
    if kind == "float_value":
        return value.float_value
    if kind == "bool_value":
        return value.bool_value
    if kind == "time_value":
        return value.time_value.ToDatetime(timezone.utc)
    raise ValueError("the server sent an attribute of a type that this client does not know; update the client")


def _value(value: pb.AttributeValue) -> AttributeValue:
    if value.WhichOneof("value") == "list_value":
        return list(value.list_value.values)
    return scalar(value)
