"""When calls are repeated, when not, and what is sent with them."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import grpc
import pytest
from diptych import AsyncClient, Client, F, NotFound, ResourceExhausted, RetryPolicy, Unavailable
from diptych._errors import from_code, from_rpc
from diptych._proto.diptych.client.v1 import standard_pb2 as standard
from diptych._proto.diptych.v1 import retrieval_pb2 as pb
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration

from conftest import Running

AT_ONCE = RetryPolicy(first_delay=0)
DOWN = (grpc.StatusCode.UNAVAILABLE, "starting", ())


def busy(seconds: float) -> tuple[grpc.StatusCode, str, tuple[tuple[str, bytes], ...]]:
    """A refusal that says when to come back."""
    delay = Duration()
    delay.FromNanoseconds(int(seconds * 1e9))
    info = standard.RetryInfo(retry_delay=delay).SerializeToString()
    detail = AnyMessage(type_url="type.googleapis.com/google.rpc.RetryInfo", value=info)
    status = standard.ErrorStatus(code=8, message="slower", details=[detail]).SerializeToString()
    return grpc.StatusCode.RESOURCE_EXHAUSTED, "slower", (("grpc-status-details-bin", status),)


def test_a_call_that_changes_nothing_is_repeated(obedient: Running) -> None:
    obedient.service.answers = [DOWN, busy(0.0), pb.StatsResponse(version="7")] * 2
    with Client(obedient.address, retry=AT_ONCE) as client:
        assert client.stats().version == "7"

    async def story() -> None:
        async with AsyncClient(obedient.address, retry=AT_ONCE) as client:
            assert (await client.stats()).version == "7"

    asyncio.run(story())
    assert len(obedient.service.asked) == 6


def test_a_write_is_repeated_under_one_id(obedient: Running) -> None:
    updated = pb.UpdateRecordResponse(outcome=pb.WRITE_OUTCOME_UPDATED)
    obedient.service.answers = [DOWN, updated, DOWN, pb.DeleteRecordsResponse(matching_records=3)]
    with Client(obedient.address, retry=AT_ONCE) as client:
        assert client.update_record("a", {"n": 1}, unset=["m"]) == "updated"
        assert client.delete_where(F("n") == 1, request_id="mine").matching_records == 3
    first, second, third, fourth = obedient.service.asked
    assert first == second and len(first.request_id) == 32
    assert list(first.update_mask.paths) == ["attributes.n", "attributes.m"]
    assert third == fourth and third.request_id == "mine"


def test_attempts_are_counted(obedient: Running) -> None:
    obedient.service.answers = [DOWN] * 5
    with Client(obedient.address, retry=RetryPolicy(attempts=3, first_delay=0)) as client:
        with pytest.raises(Unavailable, match="starting"):
            client.get("a")
    assert len(obedient.service.asked) == 3


def test_a_delete_is_never_repeated_and_other_errors_neither(obedient: Running) -> None:
    obedient.service.answers = [DOWN, (grpc.StatusCode.NOT_FOUND, "no record 'a'", ())]
    with Client(obedient.address, retry=AT_ONCE) as client:
        with pytest.raises(Unavailable):
            client.delete("a")
        with pytest.raises(NotFound, match="no record 'a'"):
            client.get("a")
    assert len(obedient.service.asked) == 2


def test_the_servers_delay_is_honoured(obedient: Running) -> None:
    obedient.service.answers = [busy(3600.0)]
    with Client(obedient.address, timeout=20) as client:
        with pytest.raises(ResourceExhausted, match="slower") as refused:
            client.stats()
    # An hour does not fit into the timeout, so the wait was not begun.
    assert refused.value.retry_delay == 3600.0 and len(obedient.service.asked) == 1


def test_delays_grow_and_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = RetryPolicy(attempts=10, first_delay=0.1, max_delay=1.0)
    down = Unavailable("x", grpc.StatusCode.UNAVAILABLE)
    monkeypatch.setattr(random, "random", lambda: 0.5)
    assert [policy.delay(down, made, None) for made in range(1, 6)] == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.5])
    assert policy.delay(down, 10, None) is None
    assert policy.delay(down, 1, 0.01) is None, "the wait would end after the timeout"
    named = ResourceExhausted("x", grpc.StatusCode.RESOURCE_EXHAUSTED, retry_delay=2.0)
    assert policy.delay(named, 1, None) == pytest.approx(2.25)
    assert policy.delay(NotFound("x", grpc.StatusCode.NOT_FOUND), 1, None) is None
    with pytest.raises(ValueError, match="at least 1"):
        RetryPolicy(attempts=0)


def test_details_that_cannot_be_read_do_no_harm() -> None:
    class Broken:
        def code(self) -> grpc.StatusCode:
            return grpc.StatusCode.UNAVAILABLE

        def details(self) -> str:
            return ""

        def trailing_metadata(self) -> Any:
            return (("grpc-status-details-bin", b"\xff\xff"),)

    error = from_rpc(Broken())
    assert isinstance(error, Unavailable) and error.retry_delay is None and "UNAVAILABLE" in str(error)
    assert from_code(999, "odd").code == grpc.StatusCode.UNKNOWN


def test_the_api_key_goes_with_every_call(obedient: Running) -> None:
    obedient.service.answers = [pb.StatsResponse(), pb.IngestResponse(key="a")]
    with Client(obedient.address, api_key="secret") as client:
        client.stats()
        list(client.ingest(iter(())))
        assert obedient.service.metadata[0]["authorization"] == "Bearer secret"
