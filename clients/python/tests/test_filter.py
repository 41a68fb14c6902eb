"""Conditions as Python writes them, attribute values, and what is sent for both."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from diptych import Condition, F, Item
from diptych._attributes import from_wire, to_wire
from diptych._filter import filter_to_wire
from diptych._proto.diptych.v1 import retrieval_pb2 as pb


def compared(name: str, operator: Any, **value: Any) -> pb.Filter:
    wire = pb.FilterValue(**value)
    return pb.Filter(compare=pb.AttributeComparison(attribute=name, operator=operator, value=wire))


def test_comparisons_keep_the_type_of_their_value() -> None:
    age = F("age")
    assert (age == 40).to_wire() == compared("age", pb.COMPARISON_OPERATOR_EQUAL, integer_value=40)
    assert (age != 40.0).to_wire() == compared("age", pb.COMPARISON_OPERATOR_NOT_EQUAL, float_value=40.0)
    assert (age < np.int32(4)).to_wire() == compared("age", pb.COMPARISON_OPERATOR_LESS, integer_value=4)
    assert (age <= 4).to_wire() == compared("age", pb.COMPARISON_OPERATOR_LESS_OR_EQUAL, integer_value=4)
    assert (age > 4).to_wire() == compared("age", pb.COMPARISON_OPERATOR_GREATER, integer_value=4)
    assert (40 <= age).to_wire() == compared("age", pb.COMPARISON_OPERATOR_GREATER_OR_EQUAL, integer_value=40)
    assert (F("view") == "PA").to_wire() == compared("view", pb.COMPARISON_OPERATOR_EQUAL, string_value="PA")
    # True is an int to Python, and no number to a filter.
    assert (F("portable") == True).to_wire() == compared(  # noqa: E712
        "portable", pb.COMPARISON_OPERATOR_EQUAL, bool_value=True
    )


def test_moments_are_compared_as_moments() -> None:
    noon = datetime(2024, 1, 31, 12, tzinfo=timezone(timedelta(hours=2)))
    wire = (F("taken") >= noon).to_wire()
    assert wire.compare.value.time_value.ToDatetime() == datetime(2024, 1, 31, 10)
    assert F("view").starts_with("P").to_wire().starts_with == pb.AttributePrefix(attribute="view", prefix="P")
    with pytest.raises(ValueError, match="no time zone"):
        _ = F("taken") >= datetime(2024, 1, 31)


def test_conditions_are_joined_flat() -> None:
    a, b, c = F("a").exists(), F("b").has("x"), F("c").one_of(["u", 2])
    every = (a & b & c).to_wire()
    assert [each.WhichOneof("condition") for each in every.all.filters] == ["exists", "has", "one_of"]
    either = (a | (b & c) | ~a).to_wire()
    assert [each.WhichOneof("condition") for each in either.any.filters] == ["exists", "all", "negation"]
    assert (a & b) == (a & b) and (a & b) != (b & a) and len({a & b, a & b}) == 1
    assert filter_to_wire(every) is every, "the message itself is a filter, too"


def test_what_python_would_get_wrong_is_refused_with_the_remedy() -> None:
    with pytest.raises(TypeError, match="instead of and, or and not"):
        bool(F("a") == 1 and F("b") == 2)
    with pytest.raises(TypeError, match="two of them"):
        40 <= F("age") < 60
    with pytest.raises(TypeError, match="in parentheses"):
        F("age") >= 40 & F("b").exists()
    with pytest.raises(TypeError, match="in parentheses"):
        F("a") == 40 & F("b")
    with pytest.raises(TypeError, match="one_of"):
        F("view").one_of("PA")
    with pytest.raises(TypeError, match="not dict"):
        _ = F("a") == {}
    with pytest.raises(TypeError, match="a filter is a condition"):
        filter_to_wire("age > 3")  # type: ignore[arg-type]


def test_a_condition_is_a_value() -> None:
    condition = F("a").exists()
    condition.to_wire().exists = "b"
    assert condition == Condition(pb.Filter(exists="a"))


def test_attributes_come_back_as_they_went() -> None:
    given: dict[str, Any] = {"s": "x", "l": ["a", "b"], "i": -(2**63), "f": 0.5, "t": True, "z": 0}
    given["m"] = datetime(2024, 1, 31, 12, 0, 0, 7, tzinfo=timezone.utc)
    back = from_wire({name: to_wire(value) for name, value in given.items()})
    assert back == given
    assert {name: type(value) for name, value in back.items()} == {name: type(value) for name, value in given.items()}
    assert to_wire(np.float32(0.5)) == pb.AttributeValue(float_value=0.5)
    assert to_wire(np.bool_(True)) == pb.AttributeValue(bool_value=True)
    assert to_wire(()) == pb.AttributeValue(list_value=pb.StringList())


def test_attributes_of_no_type_of_the_wire_are_refused() -> None:
    with pytest.raises(ValueError, match="64 bits"):
        to_wire(2**63)
    with pytest.raises(TypeError, match="not bytes"):
        to_wire(b"x")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="str only, not int"):
        to_wire([1])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="update the client"):
        from_wire({"new": pb.AttributeValue()})


def test_items_given_as_one_thing_are_refused() -> None:
    with pytest.raises(TypeError, match="also for one"):
        Item("k", texts="words")
    with pytest.raises(TypeError, match="also for one"):
        Item("k", images=b"x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'upsert' or 'insert'"):
        Item("k").to_wire("c", "replace")  # type: ignore[arg-type]
